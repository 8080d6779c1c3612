//! LimitRanger: containers that say nothing get a namespace's default requests and limits, and those that ask for
//! more or less than it allows are refused.

use api::quantity::Quantity;
use api::{Failure, Fields};
use serde_json::{Map, Value};

use super::{Attributes, Operation, Plugin, all};
use crate::cache::Cache;

const RANGES: &str = "/registry/limitranges/";

pub struct LimitRanger;

impl Plugin for LimitRanger {
    fn mutate(
        &self,
        cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        if !attributes.is("", "pods") || attributes.operation != Operation::Create {
            return Ok(());
        }
        for range in all(cache, RANGES, Some(attributes.namespace)) {
            for item in range.part("spec").list("limits").iter().filter(|item| item.text("type") == "Container") {
                let Some(spec) = object.object("spec") else { return Ok(()) };
                for field in ["initContainers", "containers"] {
                    for container in spec.list_mut(field) {
                        fill(container, "limits", item.map("default"));
                        fill(container, "requests", item.map("defaultRequest"));
                    }
                }
            }
        }
        Ok(())
    }

    fn validate(
        &self,
        cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        let Some(object) = object.filter(|_| attributes.operation == Operation::Create) else { return Ok(()) };
        let (pod, claim) = (attributes.is("", "pods"), attributes.is("", "persistentvolumeclaims"));
        if !pod && !claim {
            return Ok(());
        }
        let mut problems = Vec::new();
        for range in all(cache, RANGES, Some(attributes.namespace)) {
            for item in range.part("spec").list("limits") {
                let spec = object.part("spec");
                match item.text("type") {
                    "Container" if pod => {
                        for container in spec.list("initContainers").iter().chain(spec.list("containers")) {
                            check(item, container.part("resources"), "Container", &mut problems);
                        }
                    }
                    "PersistentVolumeClaim" if claim => {
                        check(item, spec.part("resources"), "PersistentVolumeClaim", &mut problems);
                    }
                    _ => {}
                }
            }
        }
        match problems.as_slice() {
            [] => Ok(()),
            [problem] => Err(attributes.refuse(problem)),
            _ => Err(attributes.refuse(format!("[{}]", problems.join(", ")))),
        }
    }
}

fn fill(container: &mut Value, kind: &str, defaults: Option<&Map<String, Value>>) {
    let Some(defaults) = defaults.filter(|defaults| !defaults.is_empty()) else { return };
    let Some(amounts) = container.object("resources").and_then(|resources| resources.object(kind)) else { return };
    for (name, amount) in defaults {
        amounts.fill(name, amount.clone());
    }
}

fn check(item: &Value, resources: &Value, kind: &str, problems: &mut Vec<String>) {
    let amount = |value: &Value| value.as_str().map(str::to_owned).unwrap_or_else(|| value.to_string());
    let parse = |text: &str| text.parse::<Quantity>().ok();
    for (name, min) in item.map("min").into_iter().flatten() {
        let min = amount(min);
        match resources.part("requests").at(name).map(amount) {
            None => problems.push(format!("minimum {name} usage per {kind} is {min}. No request is specified")),
            Some(asked) if parse(&asked) < parse(&min) => {
                problems.push(format!("minimum {name} usage per {kind} is {min}, but request is {asked}"));
            }
            Some(_) => {}
        }
    }
    for (name, max) in item.map("max").into_iter().flatten() {
        let max = amount(max);
        let field = if kind == "Container" { "limits" } else { "requests" };
        let word = if kind == "Container" { "limit" } else { "request" };
        match resources.part(field).at(name).map(amount) {
            None => problems.push(format!("maximum {name} usage per {kind} is {max}. No {word} is specified")),
            Some(asked) if parse(&asked) > parse(&max) => {
                problems.push(format!("maximum {name} usage per {kind} is {max}, but {word} is {asked}"));
            }
            Some(_) => {}
        }
    }
}
