//! What load balancers say of themselves in the status of Services and Ingresses.

use std::net::IpAddr;

use serde_json::Value;

use super::{Check, network};
use crate::{failure::FieldError, fields::Fields, format, path::Path};

pub(crate) fn service_status(check: &mut Check<'_>, object: &Value) {
    let root = Path::Root;
    let path = root.field("status");
    let path = path.field("loadBalancer");
    let list = path.field("ingress");
    let points = object.part("status").part("loadBalancer").list("ingress");
    if object.part("spec").text("type") != "LoadBalancer" && !points.is_empty() {
        return check.forbidden(&list, "may only be used when `spec.type` is 'LoadBalancer'");
    }
    for (index, point) in points.iter().enumerate() {
        let path = list.index(index);
        let has_address = !point.text("ip").is_empty();
        let mode = path.field("ipMode");
        match (point.has("ipMode"), has_address) {
            (false, true) => check.required(&mode, "must be specified when `ip` is set"),
            (true, false) => check.forbidden(&mode, "may not be specified when `ip` is not set"),
            _ => check.one_of(point, &path, "ipMode", &["Proxy", "VIP"]),
        }
        address_and_name(check, point, &path);
    }
}

pub fn ingress_update(object: &Value, _old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    if subresource != Some("status") {
        return network::ingress(object, errors);
    }
    let root = Path::Root;
    let path = root.field("status");
    let path = path.field("loadBalancer");
    let list = path.field("ingress");
    for (index, point) in object.part("status").part("loadBalancer").list("ingress").iter().enumerate() {
        address_and_name(&mut Check { errors }, point, &list.index(index));
    }
}

fn address_and_name(check: &mut Check<'_>, point: &Value, path: &Path<'_>) {
    let (ip, name) = (point.text("ip"), point.text("hostname"));
    if !ip.is_empty() {
        check.found(&path.field("ip"), ip, format::ip(ip));
    }
    if !name.is_empty() {
        check.found(&path.field("hostname"), name, format::dns_subdomain(name));
        if name.parse::<IpAddr>().is_ok() {
            check.invalid(&path.field("hostname"), &name.into(), "must be a DNS name, not an IP address");
        }
    }
}
