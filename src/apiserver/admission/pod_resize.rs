//! PodResizeValidator: a Pod does not grow beyond what its node has.

use api::quantity::Quantity;
use api::quota::amounts;
use api::quota::pod::{Amount, Counting, total};
use api::{Cause, Failure, Fields};
use serde_json::Value;

use super::objects::Objects;
use super::{Attributes, Plugin};
use crate::cache::Cache;

pub struct PodResizeValidator {
    nodes: Objects<Node>,
}

struct Node {
    /// Empty where the node does not say.
    os: String,
    cpu: Quantity,
    memory: Quantity,
}

impl PodResizeValidator {
    pub fn new(cache: &Cache) -> PodResizeValidator {
        let read = |node: &Value| {
            let has = amounts(node.part("status").part("allocatable"));
            let of = |name: &str| has.get(name).copied().unwrap_or(Quantity::ZERO);
            let os = node.part("metadata").part("labels").text("kubernetes.io/os").to_owned();
            Node { os, cpu: of("cpu"), memory: of("memory") }
        };
        PodResizeValidator { nodes: Objects::new(cache, "/registry/minions/", read) }
    }
}

impl Plugin for PodResizeValidator {
    fn validate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        let ways = [Some("resize")];
        let Some((pod, _, name)) = attributes.changed_on_its_node(&ways, object, old) else { return Ok(()) };
        let Some(node) = self.nodes.get(name) else {
            return Err(attributes.refuse(format!("node \"{name}\" not found")));
        };
        let refuse = |why: String, reason: &str| {
            let mut failure = attributes.refuse(why);
            let cause = Cause { reason: reason.to_owned(), message: String::new(), field: String::new() };
            failure.details_mut().causes.push(cause);
            Err(failure)
        };
        if !node.os.is_empty() && node.os != "linux" {
            let os = &node.os;
            let why = format!("pod resize is only supported on linux nodes, node \"{name}\" is \"{os}\"");
            return refuse(why, "UnsupportedPlatform");
        }
        match beyond(pod, &node) {
            None => Ok(()),
            Some(what) => refuse(format!("node didn't have enough allocatable resources: {what}"), "NodeCapacity"),
        }
    }
}

/// What the Pod asks for that the whole node does not have.
fn beyond(pod: &Value, node: &Node) -> Option<String> {
    let asked = total(pod, Amount::Requests, Counting { overhead: true, status: false });
    let of = |name: &str| asked.get(name).copied().unwrap_or(Quantity::ZERO);
    let (cpu, memory) = (of("cpu"), of("memory"));
    let mut found = Vec::new();
    if cpu > node.cpu {
        found.push(format!("cpu, requested: {}, allocatable: {}", cpu.milli_value(), node.cpu.milli_value()));
    }
    if memory > node.memory {
        found.push(format!("memory, requested: {}, allocatable: {}", memory.value(), node.memory.value()));
    }
    (!found.is_empty()).then(|| found.join("; "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Fixture;

    #[tokio::test]
    async fn a_pod_grows_within_its_node() {
        let t = Fixture::start().await.with_account().await;
        let mut node = t.create("", "nodes", json!({"metadata": {"name": "n"}})).await.unwrap();
        node["status"] = json!({"allocatable": {"cpu": "2", "memory": "1Gi"}});
        t.update("", "nodes/n/status", node).await.unwrap();
        let resources = |cpu: &str, memory: &str| json!({"requests": {"cpu": cpu, "memory": memory}});
        let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n",
            "containers": [{"name": "c", "image": "i", "resources": resources("1", "1Gi")}]}});
        t.create("", "pods", pod).await.unwrap();
        t.catch_up().await;
        let resize = async |cpu: &str, memory: &str| {
            let mut pod = t.get("", "pods/p").await.unwrap();
            pod["spec"]["containers"][0]["resources"] = resources(cpu, memory);
            t.update("", "pods/p/resize", pod).await
        };
        let failure = resize("2001m", "1025Mi").await.unwrap_err();
        assert_eq!(
            failure.message,
            "pods \"p\" is forbidden: node didn't have enough allocatable resources: cpu, requested: 2001, \
             allocatable: 2000; memory, requested: 1074790400, allocatable: 1073741824"
        );
        assert_eq!(failure.details.unwrap().causes[0].reason, "NodeCapacity");
        resize("2", "1Gi").await.unwrap();
    }
}
