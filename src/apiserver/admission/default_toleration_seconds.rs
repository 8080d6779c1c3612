//! DefaultTolerationSeconds: Pods stay a while on a node that is not ready or unreachable.

use api::{Failure, Fields};
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::cache::Cache;

const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub struct DefaultTolerationSeconds {
    /// For either taint, in the order of [`TAINTS`].
    seconds: [i64; 2],
}

impl DefaultTolerationSeconds {
    pub fn new(seconds: [i64; 2]) -> DefaultTolerationSeconds {
        DefaultTolerationSeconds { seconds }
    }
}

impl Plugin for DefaultTolerationSeconds {
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
        let mut tolerations = spec.list("tolerations").to_vec();
        let before = tolerations.len();
        for (taint, seconds) in TAINTS.into_iter().zip(self.seconds) {
            let tolerated = tolerations.iter().take(before).any(|toleration| {
                (toleration.text("key").is_empty() || toleration.text("key") == taint)
                    && matches!(toleration.text("effect"), "" | "NoExecute")
            });
            if !tolerated {
                tolerations.push(json!({
                    "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds,
                }));
            }
        }
        if tolerations.len() > before {
            spec.set("tolerations", tolerations);
        }
        Ok(())
    }
}
