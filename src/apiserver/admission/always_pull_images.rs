//! AlwaysPullImages: nobody runs an image that somebody else's credentials brought to the node.

use api::{Failure, FieldError, Fields, Reason};
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::cache::Cache;

pub struct AlwaysPullImages;

const ALWAYS: &str = "Always";
const LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

impl Plugin for AlwaysPullImages {
    fn mutate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        if !concerns(attributes, object, old) {
            return Ok(());
        }
        let Some(spec) = object.object("spec") else { return Ok(()) };
        for container in LISTS {
            spec.list_mut(container).iter_mut().for_each(|container| container.set("imagePullPolicy", ALWAYS));
        }
        for volume in spec.list_mut("volumes") {
            if let Some(image) = volume.at_mut("image") {
                image.set("pullPolicy", ALWAYS);
            }
        }
        Ok(())
    }

    fn validate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        let Some(pod) = object.filter(|pod| concerns(attributes, pod, old)) else { return Ok(()) };
        let spec = pod.part("spec");
        let mut refused = Vec::new();
        let mut check = |field: String, policy: &Value| {
            if policy.as_str() != Some(ALWAYS) {
                refused.push(attributes.refuse(FieldError::not_supported(field, policy, &[ALWAYS])).message);
            }
        };
        for list in LISTS {
            for (index, container) in spec.list(list).iter().enumerate() {
                check(format!("spec.{list}[{index}].imagePullPolicy"), container.part("imagePullPolicy"));
            }
        }
        for (index, volume) in spec.list("volumes").iter().enumerate() {
            if let Some(image) = volume.at("image") {
                check(format!("spec.volumes[{index}].image.pullPolicy"), image.part("pullPolicy"));
            }
        }
        match refused.as_slice() {
            [] => Ok(()),
            // Upstream's answer is no Status here, and so has no reason.
            [one] => Err(Failure::new(Reason::Unknown, one)),
            all => Err(Failure::new(Reason::Unknown, format!("[{}]", all.join(", ")))),
        }
    }
}

/// New Pods, and those that get other images.
fn concerns(attributes: &Attributes<'_>, pod: &Value, old: Option<&Value>) -> bool {
    if !attributes.is("", "pods") {
        return false;
    }
    let images = |pod: &Value| -> Vec<String> {
        let spec = pod.part("spec");
        LISTS.iter().flat_map(|list| spec.list(list)).map(|container| container.text("image").to_owned()).collect()
    };
    match (attributes.operation, old) {
        (Operation::Create, _) | (Operation::Update, None) => true,
        (Operation::Update, Some(old)) => {
            let before = images(old);
            images(pod).iter().any(|image| !before.contains(image))
        }
        (Operation::Delete | Operation::Connect, _) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Fixture;

    #[tokio::test]
    async fn images_are_pulled_whenever_a_pod_starts() {
        let t = Fixture::with_flags(&["enable-admission-plugins=AlwaysPullImages"]).await.with_account().await;
        let pod = json!({"metadata": {"name": "p"}, "spec": {
            "containers": [{"name": "c", "image": "i:1", "imagePullPolicy": "IfNotPresent"}],
            "volumes": [{"name": "v", "image": {"reference": "r:1", "pullPolicy": "Never"}}],
        }});
        let made = t.create("", "pods", pod).await.unwrap();
        assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "Always");
        assert_eq!(made["spec"]["volumes"][0]["image"]["pullPolicy"], "Always");
        let t = Fixture::start().await.with_account().await;
        let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}});
        let made = t.create("", "pods", pod).await.unwrap();
        assert_eq!(made["spec"]["containers"][0]["imagePullPolicy"], "IfNotPresent", "it is off by default");
    }
}
