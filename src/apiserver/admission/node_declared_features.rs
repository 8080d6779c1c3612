//! NodeDeclaredFeatureValidator: a running Pod is changed only in ways that its node declares to know (KEP-5328).

use api::{Failure, Fields};
use serde_json::Value;

use super::objects::Objects;
use super::{Attributes, Plugin};
use crate::cache::Cache;

pub struct NodeDeclaredFeatureValidator {
    /// `status.declaredFeatures`.
    declared: Objects<Vec<String>>,
}

/// Whether a change of a Pod, from the old one to the new, needs a feature.
type Needs = fn(&Value, &Value) -> bool;

/// Features that changes of a running Pod may need, by name.
const FEATURES: [(&str, Needs); 2] = [
    ("InPlacePodLevelResourcesVerticalScaling", resizes_as_a_whole),
    ("InPlacePodVerticalScalingInitContainers", resizes_at_its_start),
];

impl NodeDeclaredFeatureValidator {
    pub fn new(cache: &Cache) -> NodeDeclaredFeatureValidator {
        let read = |node: &Value| {
            let all = node.part("status").list("declaredFeatures").iter();
            all.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        NodeDeclaredFeatureValidator { declared: Objects::new(cache, "/registry/minions/", read) }
    }
}

impl Plugin for NodeDeclaredFeatureValidator {
    fn validate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        let ways = [None, Some("resize")];
        let Some((pod, old, name)) = attributes.changed_on_its_node(&ways, object, old) else { return Ok(()) };
        let (new, before) = (pod.part("spec"), old.part("spec"));
        let needed = FEATURES.iter().filter(|(_, needs)| needs(new, before)).map(|(name, _)| *name);
        let needed: Vec<&str> = needed.collect();
        if needed.is_empty() {
            return Ok(());
        }
        let Some(declared) = self.declared.get(name) else {
            return Err(attributes.refuse(format!("node \"{name}\" not found")));
        };
        let missing: Vec<&str> =
            needed.into_iter().filter(|feature| !declared.iter().any(|one| one == feature)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let missing = missing.join(", ");
        Err(attributes
            .refuse(format!("pod update requires features {missing} which are not available on node \"{name}\"")))
    }
}

fn resizes_as_a_whole(new: &Value, old: &Value) -> bool {
    new.part("resources") != old.part("resources")
}

fn resizes_at_its_start(new: &Value, old: &Value) -> bool {
    let ends = |container: &&Value| container.text("restartPolicy") != "Always";
    let new = new.list("initContainers");
    old.list("initContainers").iter().filter(ends).any(|container| {
        let now = new.iter().find(|one| one.text("name") == container.text("name"));
        now.is_some_and(|now| now.part("resources") != container.part("resources"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Fixture;

    #[tokio::test]
    async fn a_node_must_know_how_to_do_it() {
        let t = Fixture::start().await.with_account().await;
        let mut node = t.create("", "nodes", json!({"metadata": {"name": "n"}})).await.unwrap();
        node["status"] = json!({"allocatable": {"cpu": "2", "memory": "1Gi"}});
        let mut node = t.update("", "nodes/n/status", node).await.unwrap();
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n",
            "resources": {"requests": {"cpu": "1"}}, "containers": [{"name": "c", "image": "i"}]}});
        t.create("", "pods", pod).await.unwrap();
        t.catch_up().await;
        let resize = async || {
            let mut pod = t.get("", "pods/p").await.unwrap();
            pod["spec"]["resources"] = json!({"requests": {"cpu": "2"}});
            t.update("", "pods/p/resize", pod).await
        };
        let failure = resize().await.unwrap_err();
        assert_eq!(
            failure.message,
            "pods \"p\" is forbidden: pod update requires features InPlacePodLevelResourcesVerticalScaling which are \
             not available on node \"n\""
        );
        node["status"]["declaredFeatures"] = json!(["InPlacePodLevelResourcesVerticalScaling"]);
        t.update("", "nodes/n/status", node).await.unwrap();
        t.catch_up().await;
        resize().await.unwrap();
    }
}
