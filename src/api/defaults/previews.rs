//! Defaults of kinds and versions that are not stable.

use serde_json::Value;

use super::cluster::device_count;
use crate::fields::Fields;

const CERTIFICATE_SECONDS: i64 = 24 * 60 * 60;
const POOLS: i64 = 100;

pub fn pod_certificate_request(object: &mut Value) {
    if let Some(spec) = object.object("spec") {
        spec.fill("maxExpirationSeconds", CERTIFICATE_SECONDS);
    }
}

pub fn pod_group(object: &mut Value) {
    if let Some(spec) = object.object("spec") {
        spec.fill("disruptionMode", "Pod");
    }
}

pub fn pool_request(object: &mut Value) {
    if let Some(spec) = object.object("spec") {
        spec.fill("limit", POOLS);
    }
}

/// `resource.k8s.io/v1beta1`.
pub fn claim(object: &mut Value) {
    if let Some(spec) = object.object("spec") {
        device_requests(spec);
    }
}

/// `resource.k8s.io/v1beta1`.
pub fn claim_template(object: &mut Value) {
    if let Some(spec) = object.object("spec").and_then(|spec| spec.object("spec")) {
        device_requests(spec);
    }
}

/// A request without a class of its own is one for alternatives.
fn device_requests(spec: &mut Value) {
    let Some(devices) = spec.at_mut("devices") else { return };
    for request in devices.list_mut("requests") {
        if !request.text("deviceClassName").is_empty() {
            device_count(request);
        }
        request.list_mut("firstAvailable").iter_mut().for_each(device_count);
    }
}
