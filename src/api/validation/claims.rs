//! What asks for devices: ResourceClaims, their templates, DeviceClasses.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Check, device_selectors::selectors, placement, same};
use crate::{failure::FieldError, fields::Fields, format, meta, path::Path};

const REQUESTS_MAX: usize = 32;
const SUB_REQUESTS_MAX: usize = 8;
const CONSTRAINTS_MAX: usize = 32;
const CONFIGS_MAX: usize = 32;
const TOLERATIONS_MAX: usize = 16;
const RESERVED_FOR_MAX: usize = 256;
const RESULTS_MAX: usize = 32;
const PARAMETERS_BYTES_MAX: usize = 10 * 1024;
const DRIVER_BYTES_MAX: usize = 63;
const POOL_BYTES_MAX: usize = 253;
pub(crate) const IDENTIFIER_BYTES_MAX: usize = 32;
pub(crate) const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];
const NOT_A_REQUEST: &str =
    "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";

pub fn claim(object: &Value, errors: &mut Vec<FieldError>) {
    claim_spec(&mut Check { errors }, object.part("spec"), &Path::Root.field("spec"));
}

pub fn claim_update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    if subresource == Some("status") {
        return claim_status(object, old, errors);
    }
    Check { errors }.unchanged(object, old, &Path::Root, "spec");
}

pub fn claim_template(object: &Value, errors: &mut Vec<FieldError>) {
    let root = Path::Root;
    let path = root.field("spec");
    let metadata = object.part("spec").part("metadata");
    let here = path.field("metadata");
    meta::labels(metadata.map("labels"), &here.field("labels"), errors);
    meta::annotations(metadata.map("annotations"), &here.field("annotations"), errors);
    claim_spec(&mut Check { errors }, object.part("spec").part("spec"), &path.field("spec"));
}

pub fn claim_template_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    Check { errors }.unchanged(object, old, &Path::Root, "spec");
}

pub fn device_class(object: &Value, errors: &mut Vec<FieldError>) {
    device_class_spec(&mut Check { errors }, object.part("spec"), &Value::Null);
}

pub fn device_class_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    device_class_spec(&mut Check { errors }, object.part("spec"), old.part("spec"));
}

fn device_class_spec(check: &mut Check<'_>, spec: &Value, old: &Value) {
    let root = Path::Root;
    let path = root.field("spec");
    selectors(check, spec, old.is_object() && same(spec.part("selectors"), old.part("selectors")), &path);
    let list = path.field("config");
    at_most(check, spec.list("config").len(), CONFIGS_MAX, &list);
    for (index, config) in spec.list("config").iter().enumerate() {
        configuration(check, config, &list.index(index));
    }
    if let Some(name) = spec.at("extendedResourceName")
        && !name.as_str().is_some_and(super::resources::is_extended)
    {
        check.invalid(&path.field("extendedResourceName"), name, "must be a valid extended resource name");
    }
}

/// Names of requests, each with those of its alternatives.
type Requests<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

fn requests_of(spec: &Value) -> Requests<'_> {
    let requests = spec.part("devices").list("requests").iter();
    requests
        .map(|request| {
            let alternatives = request.list("firstAvailable").iter().map(|one| one.text("name")).collect();
            (request.text("name"), alternatives)
        })
        .collect()
}

fn claim_spec(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let known = requests_of(spec);
    let devices = spec.part("devices");
    let path = path.field("devices");
    let list = path.field("requests");
    named(check, devices.list("requests"), REQUESTS_MAX, &list, |check, request, path| {
        match (request.list("firstAvailable"), request.at("exactly")) {
            ([], None) => check.required(path, "exactly one of `exactly` or `firstAvailable` is required"),
            ([], Some(exactly)) => exact_request(check, exactly, &path.field("exactly")),
            (alternatives, None) => {
                named(check, alternatives, SUB_REQUESTS_MAX, &path.field("firstAvailable"), exact_request);
            }
            (_, Some(_)) => {
                let text = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
                check.invalid(path, &Value::Null, text);
            }
        }
    });
    let list = path.field("constraints");
    at_most(check, devices.list("constraints").len(), CONSTRAINTS_MAX, &list);
    for (index, constraint) in devices.list("constraints").iter().enumerate() {
        let path = list.index(index);
        request_names(check, constraint, &known, &path);
        let of = ["matchAttribute", "distinctAttribute"].into_iter().find(|name| constraint.has(name));
        match of {
            Some(name) => full_name(check, constraint.text(name), &path.field(name)),
            None => {
                let text = "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple \
                            fields are set";
                check.required(&path, text);
            }
        }
    }
    let list = path.field("config");
    at_most(check, devices.list("config").len(), CONFIGS_MAX, &list);
    for (index, config) in devices.list("config").iter().enumerate() {
        let path = list.index(index);
        request_names(check, config, &known, &path);
        configuration(check, config, &path);
    }
}

/// A list of which every element has a name of its own.
fn named(
    check: &mut Check<'_>,
    items: &[Value],
    max: usize,
    path: &Path<'_>,
    each: fn(&mut Check<'_>, &Value, &Path<'_>),
) {
    at_most(check, items.len(), max, path);
    let mut names = BTreeSet::new();
    for (index, item) in items.iter().enumerate() {
        let path = path.index(index);
        let name = item.text("name");
        check.found(&path.field("name"), name, format::dns_label(name));
        each(check, item, &path);
        if !names.insert(name) {
            check.duplicate(&path, &name.into());
        }
    }
}

fn exact_request(check: &mut Check<'_>, request: &Value, path: &Path<'_>) {
    let class = request.text("deviceClassName");
    if check.text(request, path, "deviceClassName") {
        check.found(&path.field("deviceClassName"), class, format::dns_subdomain(class));
    }
    selectors(check, request, false, path);
    let count = request.int("count").unwrap_or_default();
    match request.text("allocationMode") {
        "All" if count != 0 => {
            check.invalid(&path.field("count"), &count.into(), "must not be specified when allocationMode is 'All'");
        }
        "All" => {}
        "ExactCount" if count <= 0 => check.invalid(&path.field("count"), &count.into(), "must be greater than zero"),
        "ExactCount" => {}
        other => check.not_supported(&path.field("allocationMode"), &other.into(), &["All", "ExactCount"]),
    }
    let list = path.field("tolerations");
    at_most(check, request.list("tolerations").len(), TOLERATIONS_MAX, &list);
    for (index, one) in request.list("tolerations").iter().enumerate() {
        toleration(check, one, &list.index(index));
    }
}

fn toleration(check: &mut Check<'_>, toleration: &Value, path: &Path<'_>) {
    let (key, value) = (toleration.text("key"), toleration.text("value"));
    if !key.is_empty() {
        check.found(&path.field("key"), key, format::label_key(key));
    }
    match toleration.text("operator") {
        "Exists" if !value.is_empty() => {
            check.invalid(&path.field("value"), &value.into(), "must be empty for operator `Exists`");
        }
        "Equal" => check.found(&path.field("value"), value, format::label_value(value)),
        _ => check.choice(toleration, path, "operator", &["Equal", "Exists"]),
    }
    if !toleration.text("effect").is_empty() {
        check.one_of(toleration, path, "effect", EFFECTS);
    }
}

fn configuration(check: &mut Check<'_>, config: &Value, path: &Path<'_>) {
    let path = path.field("opaque");
    let Some(opaque) = config.at("opaque") else { return check.required(&path, "") };
    driver(check, opaque, &path);
    raw_object(check, opaque.part("parameters"), &path.field("parameters"));
}

/// An object whose fields only drivers know.
fn raw_object(check: &mut Check<'_>, object: &Value, path: &Path<'_>) {
    if object.is_null() {
        check.required(path, "");
    } else if object.to_string().len() > PARAMETERS_BYTES_MAX {
        check.errors.push(FieldError::too_long(path, PARAMETERS_BYTES_MAX));
    } else if !object.is_object() {
        check.invalid(path, &"<value omitted>".into(), "must be a valid JSON object");
    }
}

/// Requests that constraints and configuration are about; none means all.
fn request_names(check: &mut Check<'_>, holder: &Value, known: &Requests<'_>, path: &Path<'_>) {
    let list = path.field("requests");
    at_most(check, holder.list("requests").len(), REQUESTS_MAX, &list);
    let mut seen = BTreeSet::new();
    for (index, name) in holder.list("requests").iter().enumerate() {
        let path = list.index(index);
        request_name(check, name.as_str().unwrap_or_default(), known, &path);
        if !seen.insert(name.as_str()) {
            check.duplicate(&path, name);
        }
    }
}

fn request_name(check: &mut Check<'_>, name: &str, known: &Requests<'_>, path: &Path<'_>) {
    let parts: Vec<&str> = name.split('/').collect();
    let is_known = match parts.as_slice() {
        [one] => known.contains_key(one),
        [one, alternative] => known.get(one).is_some_and(|all| all.contains(alternative)),
        _ => return check.invalid(path, &name.into(), NOT_A_REQUEST),
    };
    for part in parts {
        check.found(path, part, format::dns_label(part));
    }
    if !is_known {
        check.invalid(path, &name.into(), NOT_A_REQUEST);
    }
}

fn claim_status(object: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("status");
    let (status, before) = (object.part("status"), old.part("status"));
    let reserved = path.field("reservedFor");
    let list = status.list("reservedFor");
    at_most(check, list.len(), RESERVED_FOR_MAX, &reserved);
    let mut seen = BTreeSet::new();
    for (index, consumer) in list.iter().enumerate() {
        let path = reserved.index(index);
        for name in ["resource", "name", "uid"] {
            check.text(consumer, &path, name);
        }
        if !seen.insert(consumer.text("uid")) {
            check.duplicate(&path, consumer.part("uid"));
        }
    }
    if !list.is_empty() && !status.has("allocation") {
        check.forbidden(&reserved, "may not be specified when `allocated` is not set");
    } else if object.part("metadata").has("deletionTimestamp")
        && list.iter().any(|one| !before.list("reservedFor").iter().any(|known| same(one, known)))
    {
        let text = "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set";
        check.forbidden(&reserved, text);
    }
    device_statuses(check, status, &path.field("devices"));
    match (before.at("allocation"), status.at("allocation")) {
        (Some(_), Some(_)) => check.unchanged(status, before, &path, "allocation"),
        (None, Some(allocation)) => {
            allocated(check, allocation, &requests_of(object.part("spec")), &path.field("allocation"));
        }
        (_, None) => {}
    }
}

/// What drivers say of devices that the claim has.
fn device_statuses(check: &mut Check<'_>, status: &Value, path: &Path<'_>) {
    const CONDITIONS_MAX: usize = 8;
    const IPS_MAX: usize = 16;
    let id = |device: &Value| ["driver", "pool", "device", "shareID"].map(|name| device.text(name).to_owned());
    let has: BTreeSet<_> = status.part("allocation").part("devices").list("results").iter().map(id).collect();
    let mut seen = BTreeSet::new();
    for (index, device) in status.list("devices").iter().enumerate() {
        let path = path.index(index);
        driver(check, device, &path);
        pool_name(check, device.text("pool"), &path.field("pool"));
        check.found(&path.field("device"), device.text("device"), format::dns_label(device.text("device")));
        if let Some(share) = device.at("shareID").and_then(Value::as_str) {
            share_id(check, share, &path.field("shareID"));
        }
        let own = id(device);
        let [driver, pool, name, share] = &own;
        let shown = serde_json::json!({"Driver": driver, "Pool": pool, "Device": name, "ShareID": share});
        if !has.contains(&own) {
            check.invalid(&path, &shown, "must be an allocated device in the claim");
        }
        if !seen.insert(own) {
            check.duplicate(&path, &shown);
        }
        at_most(check, device.list("conditions").len(), CONDITIONS_MAX, &path.field("conditions"));
        super::conditions::conditions(check, device, &path);
        if device.has("data") {
            raw_object(check, device.part("data"), &path.field("data"));
        }
        let network = path.field("networkData");
        let ips = network.field("ips");
        let addresses = device.part("networkData").list("ips");
        at_most(check, addresses.len(), IPS_MAX, &ips);
        for (index, address) in addresses.iter().filter_map(Value::as_str).enumerate() {
            if address.parse::<ipnet::IpNet>().is_err() {
                let text = "must be a valid address in CIDR form, (e.g. 10.9.8.7/24 or 2001:db8::1/64)";
                check.invalid(&ips.index(index), &address.into(), text);
            }
        }
    }
}

/// A UUID in its usual form.
fn share_id(check: &mut Check<'_>, id: &str, path: &Path<'_>) {
    const UUID_CHARS: usize = 36;
    let digits = |byte: u8| byte.is_ascii_hexdigit();
    let formed = id.bytes().enumerate().all(|(at, byte)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => digits(byte),
    });
    if id.len() != UUID_CHARS {
        let text = format!("error validating uid: invalid UUID length: {}", id.len());
        check.invalid(path, &id.into(), &text);
    } else if !formed {
        check.invalid(path, &id.into(), "error validating uid: invalid UUID format");
    } else if id.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let text = "uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase \
                    hexadecimal characters";
        check.invalid(path, &id.into(), text);
    }
}

fn allocated(check: &mut Check<'_>, allocation: &Value, known: &Requests<'_>, path: &Path<'_>) {
    let devices = allocation.part("devices");
    let here = path.field("devices");
    let list = here.field("results");
    at_most(check, devices.list("results").len(), RESULTS_MAX, &list);
    for (index, result) in devices.list("results").iter().enumerate() {
        let path = list.index(index);
        request_name(check, result.text("request"), known, &path.field("request"));
        driver(check, result, &path);
        pool_name(check, result.text("pool"), &path.field("pool"));
        let device = result.text("device");
        check.found(&path.field("device"), device, format::dns_label(device));
    }
    let list = here.field("config");
    at_most(check, devices.list("config").len(), 2 * CONFIGS_MAX, &list);
    for (index, config) in devices.list("config").iter().enumerate() {
        let path = list.index(index);
        check.choice(config, &path, "source", &["FromClaim", "FromClass"]);
        request_names(check, config, known, &path);
        configuration(check, config, &path);
    }
    if let Some(selector) = allocation.at("nodeSelector") {
        placement::node_selector(check, selector, &path.field("nodeSelector"));
    }
}

pub(crate) fn at_most(check: &mut Check<'_>, count: usize, max: usize, path: &Path<'_>) {
    if count > max {
        check.errors.push(FieldError::too_many(path, count, max));
    }
}

/// The name of a driver, as of CSI drivers.
pub(crate) fn driver(check: &mut Check<'_>, holder: &Value, path: &Path<'_>) {
    let name = holder.text("driver");
    if check.text(holder, path, "driver") {
        driver_name(check, name, &path.field("driver"));
    }
}

pub(crate) fn driver_name(check: &mut Check<'_>, name: &str, path: &Path<'_>) {
    if name.len() > DRIVER_BYTES_MAX {
        check.errors.push(FieldError::too_long(path, DRIVER_BYTES_MAX));
    }
    check.found(path, name, format::dns_subdomain(&name.to_ascii_lowercase()));
}

pub(crate) fn pool_name(check: &mut Check<'_>, name: &str, path: &Path<'_>) {
    if name.is_empty() {
        return check.required(path, "");
    }
    if name.len() > POOL_BYTES_MAX {
        check.errors.push(FieldError::too_long(path, POOL_BYTES_MAX));
    }
    for part in name.split('/') {
        check.found(path, part, format::dns_subdomain(part));
    }
}

/// The name of an attribute or capacity: an identifier, or one of a domain.
pub(crate) fn qualified_name(check: &mut Check<'_>, name: &str, path: &Path<'_>) {
    let identifier = |check: &mut Check<'_>, text: &str| {
        if text.len() > IDENTIFIER_BYTES_MAX {
            check.errors.push(FieldError::too_long(path, IDENTIFIER_BYTES_MAX));
        }
        check.found(path, text, format::c_identifier(text));
    };
    match name.split('/').collect::<Vec<_>>().as_slice() {
        [one] => identifier(check, one),
        [domain, one] => {
            match *domain {
                "" => check.invalid(path, &"".into(), "the domain must not be empty"),
                domain => driver_name(check, domain, path),
            }
            match *one {
                "" => check.invalid(path, &"".into(), "the name must not be empty"),
                one => identifier(check, one),
            }
        }
        // Upstream lets these pass.
        _ => {}
    }
}

fn full_name(check: &mut Check<'_>, name: &str, path: &Path<'_>) {
    qualified_name(check, name, path);
    if !name.contains('/') {
        let text = "a fully qualified name must be a domain and a name separated by a slash";
        check.invalid(path, &name.into(), text);
    }
}
