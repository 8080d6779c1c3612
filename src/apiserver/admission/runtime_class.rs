//! RuntimeClass: a Pod's class must exist; what the class costs and where it runs becomes part of the Pod.

use api::quantity::Quantity;
use api::{Failure, Fields};
use serde_json::{Map, Value};

use super::objects::Objects;
use super::tolerations;
use super::{Attributes, Operation, Plugin};
use crate::cache::Cache;

pub struct RuntimeClass {
    classes: Objects<Class>,
}

/// What of a RuntimeClass becomes part of its Pods.
#[derive(Default)]
struct Class {
    overhead: Option<Map<String, Value>>,
    /// `None` where the class says nothing of scheduling.
    scheduling: Option<Scheduling>,
}

#[derive(Default)]
struct Scheduling {
    node_selector: Map<String, Value>,
    tolerations: Vec<Value>,
}

impl RuntimeClass {
    pub fn new(cache: &Cache) -> RuntimeClass {
        RuntimeClass { classes: Objects::new(cache, "/registry/runtimeclasses/", read) }
    }

    /// The class that the Pod names.
    fn class(&self, attributes: &Attributes<'_>, pod: &Value) -> Result<Option<std::sync::Arc<Class>>, Failure> {
        let Some(name) = pod.part("spec").at("runtimeClassName").and_then(Value::as_str) else { return Ok(None) };
        match self.classes.get(name) {
            Some(class) => Ok(Some(class)),
            None => Err(attributes.refuse(format!("pod rejected: RuntimeClass \"{name}\" not found"))),
        }
    }
}

fn read(class: &Value) -> Class {
    Class {
        overhead: class.at("overhead").map(|overhead| overhead.map("podFixed").cloned().unwrap_or_default()),
        scheduling: class.at("scheduling").map(|scheduling| Scheduling {
            node_selector: scheduling.map("nodeSelector").cloned().unwrap_or_default(),
            tolerations: scheduling.list("tolerations").to_vec(),
        }),
    }
}

impl Plugin for RuntimeClass {
    fn mutate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        if !attributes.is("", "pods") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let Some(class) = self.class(attributes, object)? else { return Ok(()) };
        let Some(spec) = object.object("spec") else { return Ok(()) };
        merge(spec, &class).map_err(|why| attributes.refuse(why))
    }

    fn validate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        let (true, Some(pod)) = (attributes.is("", "pods") && attributes.operation == Operation::Create, object) else {
            return Ok(());
        };
        let class = self.class(attributes, pod)?;
        let defined = class.as_ref().and_then(|class| class.overhead.as_ref());
        match (defined, pod.part("spec").at("overhead")) {
            (Some(defined), given) if !same(defined, given.and_then(Value::as_object)) => {
                Err(attributes.refuse("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead"))
            }
            (None, Some(_)) => {
                Err(attributes
                    .refuse("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"))
            }
            _ => Ok(()),
        }
    }
}

/// The same amounts, however they are written.
fn same(defined: &Map<String, Value>, given: Option<&Map<String, Value>>) -> bool {
    let amount = |value: &Value| Quantity::from_value(value).ok();
    let given_len = given.map_or(0, Map::len);
    given_len == defined.len()
        && defined.iter().all(|(name, value)| {
            given.and_then(|given| given.get(name)).is_some_and(|one| amount(one) == amount(value))
        })
}

fn merge(spec: &mut Value, class: &Class) -> Result<(), String> {
    if let Some(overhead) = &class.overhead {
        let given = spec.map("overhead").filter(|given| !given.is_empty());
        if given.is_some_and(|given| !same(overhead, Some(given))) {
            return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".to_owned());
        }
        if !overhead.is_empty() {
            spec.set("overhead", overhead.clone());
        }
    }
    let Some(scheduling) = &class.scheduling else { return Ok(()) };
    if !scheduling.node_selector.is_empty()
        && let Some(selector) = spec.object("nodeSelector").and_then(Value::as_object_mut)
    {
        for (key, value) in &scheduling.node_selector {
            let value = value.as_str().unwrap_or_default();
            match selector.get(key).and_then(Value::as_str) {
                Some(given) if given != value => {
                    return Err(format!(
                        "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; \
                         pod.spec.nodeSelector[{key}] = {given}"
                    ));
                }
                _ => drop(selector.insert(key.clone(), value.into())),
            }
        }
    }
    if !scheduling.tolerations.is_empty() {
        let tolerations = tolerations::merged(spec.list("tolerations"), &scheduling.tolerations);
        spec.set("tolerations", tolerations);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::Fixture;

    #[test]
    fn what_a_class_says_of_scheduling_joins_the_pods_own() {
        let class = read(&json!({"scheduling": {
            "nodeSelector": {"sandbox": "yes"}, "tolerations": [{"key": "sandbox", "operator": "Exists"}],
        }}));
        let mut spec = json!({"nodeSelector": {"a": "b"}, "tolerations": [
            {"key": "sandbox", "operator": "Equal", "value": "x"}, {"key": "other", "operator": "Exists"},
        ]});
        merge(&mut spec, &class).unwrap();
        assert_eq!(spec["nodeSelector"], json!({"a": "b", "sandbox": "yes"}));
        assert_eq!(
            spec["tolerations"],
            json!([{"key": "other", "operator": "Exists"}, {"key": "sandbox", "operator": "Exists"}])
        );
        let mut spec = json!({"nodeSelector": {"sandbox": "no"}});
        assert_eq!(
            merge(&mut spec, &class).unwrap_err(),
            "conflict: runtimeClass.scheduling.nodeSelector[sandbox] = yes; pod.spec.nodeSelector[sandbox] = no"
        );
    }

    #[tokio::test]
    async fn a_class_must_exist_and_its_overhead_is_the_pods() {
        let t = Fixture::start().await.with_account().await;
        let pod = |class: Option<&str>| {
            json!({"metadata": {"name": class.unwrap_or("none")}, "spec": {
                "runtimeClassName": class, "containers": [{"name": "c", "image": "i"}],
            }})
        };
        let failure = t.create("", "pods", pod(Some("x"))).await.unwrap_err();
        assert!(failure.message.ends_with("pod rejected: RuntimeClass \"x\" not found"), "{failure}");
        let class = json!({"metadata": {"name": "x"}, "handler": "h", "overhead": {"podFixed": {"cpu": "100m"}}});
        t.create("node.k8s.io", "runtimeclasses", class).await.unwrap();
        t.catch_up().await;
        let made = t.create("", "pods", pod(Some("x"))).await.unwrap();
        assert_eq!(made["spec"]["overhead"], json!({"cpu": "100m"}));
        let mut alone = pod(None);
        alone["spec"]["overhead"] = json!({"cpu": "1"});
        let failure = t.create("", "pods", alone).await.unwrap_err();
        assert!(failure.message.contains("Pod Overhead set without corresponding RuntimeClass"), "{failure}");
    }
}
