//! Fields that may be written no longer, or not yet: those of alpha features and of features that are off by default.
//!
//! Upstream drops them from what authors send, unless the object has them already.

use serde_json::{Value, json};

use super::clear_status;
use crate::fields::Fields;

fn drop_unless_there(object: &mut Value, old: &Value, holder: &str, names: &[&str]) {
    if let Some(part) = object.at_mut(holder) {
        for name in names {
            if !old.part(holder).has(name) {
                part.unset(name);
            }
        }
    }
}

/// Elections that the API server coordinates (`CoordinatedLeaderElection`).
pub fn lease_create(object: &mut Value) {
    lease_update(object, &Value::Null, None);
}

pub fn lease_update(object: &mut Value, old: &Value, _subresource: Option<&str>) {
    drop_unless_there(object, old, "spec", &["strategy", "preferredHolder"]);
}

/// `VolumeLimitScaling`
pub fn csi_driver_create(object: &mut Value) {
    csi_driver_update(object, &Value::Null, None);
}

pub fn csi_driver_update(object: &mut Value, old: &Value, _subresource: Option<&str>) {
    drop_unless_there(object, old, "spec", &["preventPodSchedulingIfMissing"]);
}

/// Configuration of kubelets by the API, which is no more.
pub fn node_create(object: &mut Value) {
    drop_unless_there(object, &Value::Null, "spec", &["configSource"]);
    drop_unless_there(object, &Value::Null, "status", &["config"]);
}

/// The topology of old is read only: with endpoints that are written anew it goes.
pub fn endpoint_slice_create(object: &mut Value) {
    endpoint_slice_update(object, &Value::Null, None);
}

pub fn endpoint_slice_update(object: &mut Value, old: &Value, _subresource: Option<&str>) {
    if object.list("endpoints") == old.list("endpoints") {
        return;
    }
    for endpoint in object.list_mut("endpoints") {
        endpoint.unset("deprecatedTopology");
    }
}

/// `MaxUnavailableStatefulSet`
pub fn stateful_set_create(object: &mut Value) {
    clear_status(object);
    max_unavailable(object, &Value::Null);
}

pub fn stateful_set_update(object: &mut Value, old: &Value, subresource: Option<&str>) {
    super::isolate_status(object, old, subresource);
    max_unavailable(object, old);
}

fn max_unavailable(object: &mut Value, old: &Value) {
    let before = old.part("spec").part("updateStrategy");
    if let Some(strategy) = object.at_mut("spec").and_then(|spec| spec.at_mut("updateStrategy")) {
        drop_unless_there(strategy, before, "rollingUpdate", &["maxUnavailable"]);
    }
}

/// A range without a name is called by a random one.
pub fn limit_range_create(object: &mut Value) {
    let uid = object.part("metadata").text("uid").to_owned();
    if let Some(metadata) = object.object("metadata").filter(|metadata| metadata.text("name").is_empty()) {
        metadata.set("name", json!(uid));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_off_is_dropped_unless_it_is_there() {
        let new = json!({"spec": {"holderIdentity": "a", "strategy": "OldestEmulationVersion"}});
        let mut lease = new.clone();
        lease_create(&mut lease);
        assert_eq!(lease, json!({"spec": {"holderIdentity": "a"}}));
        let mut known = new.clone();
        lease_update(&mut known, &new, None);
        assert_eq!(known, new);
        let mut node = json!({"spec": {"configSource": {}}, "status": {"config": {}, "phase": "x"}});
        node_create(&mut node);
        assert_eq!(node, json!({"spec": {}, "status": {"phase": "x"}}));
        let topology = json!({"endpoints": [{"addresses": ["a"], "deprecatedTopology": {"zone": "a"}}]});
        let mut slice = topology.clone();
        endpoint_slice_update(&mut slice, &topology, None);
        assert_eq!(slice, topology);
        endpoint_slice_create(&mut slice);
        assert_eq!(slice, json!({"endpoints": [{"addresses": ["a"]}]}));
    }
}
