//! TaintNodesByCondition: a new node takes no Pods until it says that it is ready.

use api::{Failure, Fields};
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::cache::Cache;

const NOT_READY: &str = "node.kubernetes.io/not-ready";

pub struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn mutate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        if !attributes.is("", "nodes") || attributes.operation != Operation::Create {
            return Ok(());
        }
        let Some(spec) = object.object("spec") else { return Ok(()) };
        let mut taints = spec.list("taints").to_vec();
        let there = taints.iter().any(|taint| taint.text("key") == NOT_READY && taint.text("effect") == "NoSchedule");
        if !there {
            taints.push(json!({"key": NOT_READY, "effect": "NoSchedule"}));
            spec.set("taints", taints);
        }
        Ok(())
    }
}
