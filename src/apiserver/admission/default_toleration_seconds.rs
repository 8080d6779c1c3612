//! DefaultTolerationSeconds: Pods stay five minutes on a node that is not ready or unreachable.

use api::{Failure, Fields};
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::cache::Cache;

const SECONDS: i64 = 300;
const TAINTS: [&str; 2] = ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"];

pub struct DefaultTolerationSeconds;

impl Plugin for DefaultTolerationSeconds {
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
        let Some(spec) = object.object("spec") else { return Ok(()) };
        let mut tolerations = spec.list("tolerations").to_vec();
        let before = tolerations.len();
        for taint in TAINTS {
            let tolerated = tolerations.iter().take(before).any(|toleration| {
                (toleration.text("key").is_empty() || toleration.text("key") == taint)
                    && matches!(toleration.text("effect"), "" | "NoExecute")
            });
            if !tolerated {
                tolerations.push(json!({
                    "key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": SECONDS,
                }));
            }
        }
        if tolerations.len() > before {
            spec.set("tolerations", tolerations);
        }
        Ok(())
    }
}
