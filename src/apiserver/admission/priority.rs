//! Priority: a Pod's priority is that of its class, which must exist; one class may be for all that name none.

use api::{Failure, Fields};
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin, all, look_up};
use crate::cache::Cache;

const CLASSES: &str = "/registry/priorityclasses/";

pub struct Priority;

impl Plugin for Priority {
    fn mutate(
        &self,
        cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        if !attributes.is("", "pods") {
            return Ok(());
        }
        if attributes.operation == Operation::Update {
            // Neither can be changed; who leaves them out keeps them.
            let (Some(old), Some(spec)) = (old, object.object("spec")) else { return Ok(()) };
            for field in ["priority", "preemptionPolicy"] {
                if let Some(value) = old.part("spec").at(field).filter(|_| !spec.has(field)) {
                    let value = value.clone();
                    spec.set(field, value);
                }
            }
            return Ok(());
        }
        let Some(spec) = object.object("spec") else { return Ok(()) };
        let name = spec.text("priorityClassName").to_owned();
        let class = if name.is_empty() {
            let default = all(cache, CLASSES, None).into_iter().filter(|class| class.flag("globalDefault"));
            default.min_by_key(|class| class.int("value"))
        } else {
            let class = look_up(cache, CLASSES, &name);
            Some(class.ok_or_else(|| attributes.refuse(format!("no PriorityClass with name {name} was found")))?)
        };
        let (value, policy) = match &class {
            Some(class) => {
                spec.set("priorityClassName", class.part("metadata").text("name"));
                let policy = class.text("preemptionPolicy");
                (
                    class.int("value").unwrap_or_default(),
                    if policy.is_empty() { "PreemptLowerPriority" } else { policy },
                )
            }
            None => (0, "PreemptLowerPriority"),
        };
        if let Some(given) = spec.int("priority").filter(|given| *given != value) {
            return Err(attributes.refuse(format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission \
                 controller computed {value} from the given PriorityClass name"
            )));
        }
        let given = spec.text("preemptionPolicy");
        if !given.is_empty() && given != policy {
            return Err(attributes.refuse(format!(
                "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
                 controller computed {policy} from the given PriorityClass name"
            )));
        }
        spec.set("priority", json!(value));
        spec.set("preemptionPolicy", policy);
        Ok(())
    }

    fn validate(
        &self,
        cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        let (true, Some(object)) = (attributes.is("scheduling.k8s.io", "priorityclasses"), object) else {
            return Ok(());
        };
        if !object.flag("globalDefault") {
            return Ok(());
        }
        let other = all(cache, CLASSES, None).into_iter().find(|class| {
            class.flag("globalDefault") && class.part("metadata").text("name") != object.part("metadata").text("name")
        });
        match other {
            None => Ok(()),
            Some(other) => {
                let name = other.part("metadata").text("name");
                Err(attributes
                    .refuse(format!("PriorityClass {name} is already marked as default. Only one default can exist")))
            }
        }
    }
}
