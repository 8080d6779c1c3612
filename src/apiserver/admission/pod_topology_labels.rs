//! PodTopologyLabels: a Pod has the zone and the region of its node as labels, so that what runs in it can read them.

use api::{Failure, Fields};
use serde_json::{Map, Value};

use super::objects::Objects;
use super::{Attributes, Operation, Plugin};
use crate::cache::Cache;

const LABELS: [&str; 2] = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];

pub struct PodTopologyLabels {
    /// Those of the labels that a node has.
    nodes: Objects<Map<String, Value>>,
}

impl PodTopologyLabels {
    pub fn new(cache: &Cache) -> PodTopologyLabels {
        PodTopologyLabels { nodes: Objects::new(cache, "/registry/minions/", read) }
    }
}

fn read(node: &Value) -> Map<String, Value> {
    let labels = node.part("metadata").map("labels").into_iter().flatten();
    let topology = labels.filter(|(key, _)| LABELS.contains(&key.as_str()));
    topology.map(|(key, value)| (key.clone(), value.clone())).collect()
}

impl Plugin for PodTopologyLabels {
    fn mutate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        let resource = &attributes.row.resource;
        if !resource.group.is_empty()
            || resource.plural != "pods"
            || !matches!(attributes.operation, Operation::Create | Operation::Update)
        {
            return Ok(());
        }
        let node = match attributes.subresource {
            None => object.part("spec").text("nodeName"),
            Some("binding") if object.part("target").text("kind") == "Node" => object.part("target").text("name"),
            Some(_) => return Ok(()),
        };
        if node.is_empty() {
            return Ok(());
        }
        let Some(topology) = self.nodes.get(node).filter(|topology| !topology.is_empty()) else { return Ok(()) };
        if let Some(labels) = object.object("metadata").and_then(|metadata| metadata.object("labels")) {
            topology.iter().for_each(|(key, value)| labels.set(key, value.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Fixture;

    #[tokio::test]
    async fn a_pod_that_is_bound_has_its_nodes_zone() {
        let t = Fixture::start().await.with_account().await;
        let labels = json!({"topology.kubernetes.io/zone": "z", "kubernetes.io/hostname": "n"});
        t.create("", "nodes", json!({"metadata": {"name": "n", "labels": labels}})).await.unwrap();
        let spec = json!({"containers": [{"name": "c", "image": "i"}]});
        t.create("", "pods", json!({"metadata": {"name": "p"}, "spec": spec})).await.unwrap();
        t.catch_up().await;
        let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
        t.create("", "pods/p/binding", binding).await.unwrap();
        assert_eq!(
            t.get("", "pods/p").await.unwrap()["metadata"]["labels"],
            json!({"topology.kubernetes.io/zone": "z"})
        );
    }
}
