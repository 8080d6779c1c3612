//! Priority: a Pod's priority is that of its class, which must exist; one class may be for all that name none.

use api::{Failure, Fields};
use serde_json::{Value, json};

use super::objects::Objects;
use super::{Attributes, Operation, Plugin};
use crate::cache::Cache;

pub struct Priority {
    classes: Objects<Class>,
}

/// What of a PriorityClass matters here.
struct Class {
    name: String,
    value: i64,
    is_default: bool,
    policy: String,
}

impl Priority {
    pub fn new(cache: &Cache) -> Priority {
        Priority { classes: Objects::new(cache, "/registry/priorityclasses/", read) }
    }
}

fn read(class: &Value) -> Class {
    let policy = class.text("preemptionPolicy");
    Class {
        name: class.part("metadata").text("name").to_owned(),
        value: class.int("value").unwrap_or_default(),
        is_default: class.flag("globalDefault"),
        policy: if policy.is_empty() { "PreemptLowerPriority" } else { policy }.to_owned(),
    }
}

impl Plugin for Priority {
    fn mutate(
        &self,
        _cache: &Cache,
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
            let defaults = self.classes.all(None).into_iter().filter(|class| class.is_default);
            defaults.min_by_key(|class| class.value)
        } else {
            let class = self.classes.get(&name);
            Some(class.ok_or_else(|| attributes.refuse(format!("no PriorityClass with name {name} was found")))?)
        };
        let (value, policy) = match &class {
            Some(class) => {
                spec.set("priorityClassName", class.name.as_str());
                (class.value, class.policy.as_str())
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
        _cache: &Cache,
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
        let name = object.part("metadata").text("name");
        let other = self.classes.all(None).into_iter().find(|class| class.is_default && class.name != name);
        match other {
            None => Ok(()),
            Some(other) => Err(attributes.refuse(format!(
                "PriorityClass {} is already marked as default. Only one default can exist",
                other.name
            ))),
        }
    }
}
