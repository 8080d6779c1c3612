//! Devices and requests for them between `resource.k8s.io` v1beta1 and v1. In the beta a request for one class of
//! devices has its fields beside its alternatives, and a device has its under `basic`.

use serde_json::{Map, Value, json};

use crate::fields::Fields;

/// What v1 has in `exactly`.
const EXACT: [&str; 7] =
    ["deviceClassName", "selectors", "allocationMode", "count", "adminAccess", "tolerations", "capacity"];

pub fn claim_to_stable(claim: &mut Value) {
    requests(claim.at_mut("spec"), request_to_stable);
}

pub fn claim_from_stable(claim: &mut Value) {
    requests(claim.at_mut("spec"), request_from_stable);
}

pub fn template_to_stable(template: &mut Value) {
    requests(template.at_mut("spec").and_then(|spec| spec.at_mut("spec")), request_to_stable);
}

pub fn template_from_stable(template: &mut Value) {
    requests(template.at_mut("spec").and_then(|spec| spec.at_mut("spec")), request_from_stable);
}

fn requests(spec: Option<&mut Value>, change: fn(&mut Map<String, Value>)) {
    let Some(devices) = spec.and_then(|spec| spec.at_mut("devices")) else { return };
    devices.list_mut("requests").iter_mut().filter_map(Value::as_object_mut).for_each(change);
}

fn request_to_stable(request: &mut Map<String, Value>) {
    let exactly: Map<String, Value> = EXACT
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), request.remove(name)?)))
        .filter(|(_, value)| !says_nothing(value))
        .collect();
    if !exactly.is_empty() {
        request.insert("exactly".to_owned(), exactly.into());
    }
}

/// A field that Go has no pointer for is the same when it is zero as when it is missing.
fn says_nothing(value: &Value) -> bool {
    value.is_null() || *value == "" || *value == 0
}

fn request_from_stable(request: &mut Map<String, Value>) {
    if let Some(Value::Object(exactly)) = request.remove("exactly") {
        request.extend(exactly);
    }
}

pub fn slice_to_stable(slice: &mut Value) {
    let Some(spec) = slice.at_mut("spec") else { return };
    if spec.text("nodeName").is_empty() {
        spec.unset("nodeName");
    }
    if !spec.flag("allNodes") {
        spec.unset("allNodes");
    }
    for device in spec.list_mut("devices").iter_mut().filter_map(Value::as_object_mut) {
        if let Some(Value::Object(basic)) = device.remove("basic") {
            device.extend(basic);
        }
    }
}

pub fn slice_from_stable(slice: &mut Value) {
    let Some(spec) = slice.at_mut("spec") else { return };
    for device in spec.list_mut("devices") {
        let Some(fields) = device.as_object_mut() else { continue };
        let name = fields.remove("name");
        let basic = std::mem::take(fields);
        fields.extend(name.map(|name| ("name".to_owned(), name)));
        fields.insert("basic".to_owned(), json!(basic));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_keep_everything() {
        let beta = json!({"spec": {"devices": {"requests": [
            {"name": "one", "deviceClassName": "c", "allocationMode": "ExactCount", "count": 2, "tolerations": [{"key": "k"}]},
            {"name": "any", "firstAvailable": [{"name": "a", "deviceClassName": "c"}]},
        ]}}});
        let mut claim = beta.clone();
        claim_to_stable(&mut claim);
        let requests = &claim["spec"]["devices"]["requests"];
        assert_eq!(requests[0]["exactly"]["count"], 2);
        assert_eq!(requests[0]["exactly"]["tolerations"], json!([{"key": "k"}]));
        assert_eq!(requests[1], beta["spec"]["devices"]["requests"][1]);
        claim_from_stable(&mut claim);
        assert_eq!(claim, beta);
        let mut template = json!({"spec": beta});
        template_to_stable(&mut template);
        assert_eq!(template["spec"]["spec"]["devices"]["requests"][0]["name"], "one");
        template_from_stable(&mut template);
        assert_eq!(template["spec"], beta);
    }

    #[test]
    fn devices_keep_everything() {
        let beta = json!({"spec": {"driver": "d", "nodeName": "n", "devices": [
            {"name": "gpu", "basic": {"attributes": {"a": {"int": 1}}, "taints": [{"key": "k", "effect": "None"}]}},
            {"name": "plain", "basic": {}},
        ]}});
        let mut slice = beta.clone();
        slice_to_stable(&mut slice);
        assert_eq!(slice["spec"]["devices"][0]["attributes"], json!({"a": {"int": 1}}));
        slice_from_stable(&mut slice);
        assert_eq!(slice, beta);
        let mut everywhere = json!({"spec": {"nodeName": "", "allNodes": false, "devices": []}});
        slice_to_stable(&mut everywhere);
        assert_eq!(everywhere, json!({"spec": {"devices": []}}));
    }
}
