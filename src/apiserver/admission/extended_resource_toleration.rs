//! ExtendedResourceToleration: a Pod that asks for an extended resource tolerates the taint of the nodes that have it.

use std::collections::BTreeSet;

use api::{Failure, Fields};
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::cache::Cache;

pub struct ExtendedResourceToleration;

impl Plugin for ExtendedResourceToleration {
    fn mutate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        if !attributes.is("", "pods") || !matches!(attributes.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let Some(spec) = object.object("spec") else { return Ok(()) };
        let containers = spec.list("containers").iter().chain(spec.list("initContainers"));
        let requests = containers.filter_map(|container| container.part("resources").map("requests"));
        let names: BTreeSet<String> = requests
            .flat_map(|map| map.keys())
            .filter(|name| api::validation::resources::is_extended(name))
            .cloned()
            .collect();
        if names.is_empty() {
            return Ok(());
        }
        let mut tolerations = spec.list("tolerations").to_vec();
        for name in names {
            tolerate(&mut tolerations, &name);
        }
        spec.set("tolerations", tolerations);
        Ok(())
    }
}

/// Where the taint is tolerated already, this is how.
fn tolerate(tolerations: &mut Vec<Value>, key: &str) {
    let toleration = json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
    let is_same = |one: &Value| {
        one.text("key") == key
            && one.text("effect") == "NoSchedule"
            && one.text("operator") == "Exists"
            && one.text("value").is_empty()
    };
    match tolerations.iter_mut().find(|one| is_same(one)) {
        Some(known) => *known = toleration,
        None => tolerations.push(toleration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    #[tokio::test]
    async fn devices_bring_their_tolerations() {
        let t = Fixture::with_flags(&["enable-admission-plugins=ExtendedResourceToleration"]).await;
        let t = t.with_account().await;
        let amounts = json!({"cpu": "1", "example.com/b": "1", "example.com/a": "2"});
        let made = t.create(
            "",
            "pods",
            json!({"metadata": {"name": "p"}, "spec": {
                "containers": [{"name": "c", "image": "i", "resources": {"requests": amounts, "limits": amounts}}],
                "tolerations": [{"key": "example.com/b", "operator": "Exists", "effect": "NoSchedule"}],
            }}),
        );
        let made = made.await.unwrap();
        let mut keys: Vec<&str> =
            made["spec"]["tolerations"].as_array().unwrap().iter().map(|t| t.text("key")).collect();
        keys.retain(|key| key.starts_with("example.com/"));
        assert_eq!(keys, ["example.com/b", "example.com/a"]);
    }
}
