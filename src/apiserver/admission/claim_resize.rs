//! PersistentVolumeClaimResize: a claim grows only when it is bound and its class says that volumes can grow.

use api::quantity::Quantity;
use api::{Failure, Fields};
use serde_json::Value;

use super::objects::Objects;
use super::{Attributes, Operation, Plugin};
use crate::cache::Cache;

const OLD_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";

pub struct PersistentVolumeClaimResize {
    /// Whether volumes of the class can grow.
    expandable: Objects<bool>,
}

impl PersistentVolumeClaimResize {
    pub fn new(cache: &Cache) -> PersistentVolumeClaimResize {
        let expandable = |class: &Value| class.flag("allowVolumeExpansion");
        PersistentVolumeClaimResize { expandable: Objects::new(cache, "/registry/storageclasses/", expandable) }
    }
}

impl Plugin for PersistentVolumeClaimResize {
    fn validate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        if !attributes.is("", "persistentvolumeclaims") || attributes.operation != Operation::Update {
            return Ok(());
        }
        let (Some(object), Some(old)) = (object, old) else { return Ok(()) };
        if size(object) <= size(old) {
            return Ok(());
        }
        if old.part("status").text("phase") != "Bound" {
            return Err(attributes.refuse("Only bound persistent volume claims can be expanded"));
        }
        let (class, before) = (class(object), class(old));
        if !class.is_empty() && class == before && self.expandable.get(class).is_some_and(|can| *can) {
            return Ok(());
        }
        Err(attributes.refuse(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
             support resize",
        ))
    }
}

fn size(claim: &Value) -> Quantity {
    let wanted = claim.part("spec").part("resources").part("requests").at("storage");
    wanted.and_then(|amount| Quantity::from_value(amount).ok()).unwrap_or_default()
}

fn class(claim: &Value) -> &str {
    let annotations = claim.part("metadata").part("annotations");
    if annotations.has(OLD_ANNOTATION) {
        return annotations.text(OLD_ANNOTATION);
    }
    claim.part("spec").text("storageClassName")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Fixture;

    #[tokio::test]
    async fn a_bound_claim_of_a_class_that_can_grow_grows() {
        let t = Fixture::start().await;
        for (name, can) in [("fixed", false), ("elastic", true)] {
            let class =
                json!({"metadata": {"name": name}, "provisioner": "example.com/p", "allowVolumeExpansion": can});
            t.create("storage.k8s.io", "storageclasses", class).await.unwrap();
        }
        t.catch_up().await;
        for (class, bound, expected) in [
            ("elastic", false, Some("spec is immutable after creation")),
            ("fixed", true, Some("only dynamically provisioned pvc can be resized")),
            ("elastic", true, None),
        ] {
            let name = format!("{class}-{bound}");
            let path = format!("persistentvolumeclaims/{name}");
            let claim = json!({"metadata": {"name": name}, "spec": {
                "storageClassName": class, "accessModes": ["ReadWriteOnce"], "volumeName": "v",
                "resources": {"requests": {"storage": "1Gi"}},
            }});
            let mut claim = t.create("", "persistentvolumeclaims", claim).await.unwrap();
            if bound {
                claim["status"] = json!({"phase": "Bound"});
                claim = t.update("", &format!("{path}/status"), claim).await.unwrap();
            }
            claim["spec"]["resources"]["requests"]["storage"] = json!("2Gi");
            match (t.update("", &path, claim).await, expected) {
                (Ok(_), None) => {}
                (Err(failure), Some(text)) => assert!(failure.message.contains(text), "{failure}"),
                (other, expected) => panic!("{other:?} and not {expected:?}"),
            }
        }
    }
}
