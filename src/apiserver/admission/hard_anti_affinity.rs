//! LimitPodHardAntiAffinityTopology: what a Pod cannot stand, it cannot stand on its own node only.

use api::{Failure, Fields};
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::cache::Cache;

pub struct LimitPodHardAntiAffinityTopology;

const HOSTNAME: &str = "kubernetes.io/hostname";

impl Plugin for LimitPodHardAntiAffinityTopology {
    fn validate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        if !attributes.is("", "pods") || !matches!(attributes.operation, Operation::Create | Operation::Update) {
            return Ok(());
        }
        let Some(pod) = object else { return Ok(()) };
        let terms = pod.part("spec").part("affinity").part("podAntiAffinity");
        let terms = terms.list("requiredDuringSchedulingIgnoredDuringExecution").iter();
        match terms.map(|term| term.text("topologyKey")).find(|key| *key != HOSTNAME) {
            None => Ok(()),
            Some(key) => Err(attributes.refuse(format!(
                "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {HOSTNAME} is \
                 allowed"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::Fixture;

    #[tokio::test]
    async fn a_pod_keeps_others_off_its_own_node_only() {
        let t = Fixture::with_flags(&["enable-admission-plugins=LimitPodHardAntiAffinityTopology"]).await;
        let t = t.with_account().await;
        let pod = |key: &str| {
            let term = json!({"topologyKey": key, "labelSelector": {"matchLabels": {"a": "b"}}});
            json!({"metadata": {"name": "p"}, "spec": {
                "containers": [{"name": "c", "image": "i"}],
                "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}},
            }})
        };
        let failure = t.create("", "pods", pod("topology.kubernetes.io/zone")).await.unwrap_err();
        assert_eq!(
            failure.message,
            "pods \"p\" is forbidden: affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey \
             topology.kubernetes.io/zone but only key kubernetes.io/hostname is allowed"
        );
        t.create("", "pods", pod(HOSTNAME)).await.unwrap();
    }
}
