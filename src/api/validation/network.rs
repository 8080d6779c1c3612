//! Ingresses, their classes, and network policies.

use serde_json::Value;

use super::{Check, labels};
use crate::{failure::FieldError, fields::Fields, format, path::Path};

const CONTROLLER_BYTES_MAX: usize = 250;

pub fn ingress(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    if spec.list("rules").is_empty() && !spec.has("defaultBackend") {
        let rules = Value::from(spec.list("rules").to_vec());
        check.invalid(&path, &rules, "either `defaultBackend` or `rules` must be specified");
    }
    if let Some(backend) = spec.at("defaultBackend") {
        self::backend(check, backend, &path.field("defaultBackend"));
    }
    let rules = path.field("rules");
    for (index, rule) in spec.list("rules").iter().enumerate() {
        let path = rules.index(index);
        host(check, rule.text("host"), &path.field("host"));
        let Some(http) = rule.at("http") else { continue };
        let path = path.field("http");
        let paths = path.field("paths");
        if http.list("paths").is_empty() {
            check.required(&paths, "");
        }
        for (index, one) in http.list("paths").iter().enumerate() {
            http_path(check, one, &paths.index(index));
        }
    }
    let list = path.field("tls");
    for (index, tls) in spec.list("tls").iter().enumerate() {
        let path = list.index(index);
        let hosts = path.field("hosts");
        for (index, name) in tls.list("hosts").iter().enumerate() {
            let name = name.as_str().unwrap_or_default();
            check.found(&hosts.index(index), name, host_findings(name));
        }
        let secret = tls.text("secretName");
        if !secret.is_empty() {
            check.found(&path.field("secretName"), secret, format::dns_subdomain(secret));
        }
    }
    let class = spec.text("ingressClassName");
    if spec.has("ingressClassName") {
        check.found(&path.field("ingressClassName"), class, format::dns_subdomain(class));
    }
}

fn host_findings(name: &str) -> Vec<String> {
    if name.contains('*') { format::wildcard_subdomain(name) } else { format::dns_subdomain(name) }
}

fn host(check: &mut Check<'_>, name: &str, path: &Path<'_>) {
    if name.is_empty() {
        return;
    }
    if name.parse::<std::net::IpAddr>().is_ok() {
        check.invalid(path, &name.into(), "must be a DNS name, not an IP address");
    }
    check.found(path, name, host_findings(name));
}

fn http_path(check: &mut Check<'_>, one: &Value, path: &Path<'_>) {
    let text = one.text("path");
    let here = path.field("path");
    match one.text("pathType") {
        "" => return check.required(&path.field("pathType"), "pathType must be specified"),
        "Exact" | "Prefix" => {
            if !format::is_absolute(text) {
                check.invalid(&here, &text.into(), "must be an absolute path");
            } else {
                for sequence in ["//", "/./", "/../", "%2f", "%2F"] {
                    if text.contains(sequence) {
                        check.invalid(&here, &text.into(), &format!("must not contain '{sequence}'"));
                    }
                }
                for end in ["/..", "/."] {
                    if text.ends_with(end) {
                        check.invalid(&here, &text.into(), &format!("cannot end with '{end}'"));
                    }
                }
            }
        }
        "ImplementationSpecific" => {
            if !text.is_empty() && !format::is_absolute(text) {
                check.invalid(&here, &text.into(), "must be an absolute path");
            }
        }
        other => {
            let supported = &["Exact", "ImplementationSpecific", "Prefix"];
            check.not_supported(&path.field("pathType"), &other.into(), supported);
        }
    }
    backend(check, one.part("backend"), &path.field("backend"));
}

fn backend(check: &mut Check<'_>, backend: &Value, path: &Path<'_>) {
    match (backend.at("service"), backend.at("resource")) {
        (Some(_), Some(_)) => {
            check.invalid(path, &"".into(), "cannot set both resource and service backends");
        }
        (None, None) => check.invalid(path, &"".into(), "resource or service backend is required"),
        (None, Some(resource)) => {
            local_reference(check, resource, &path.field("resource"));
        }
        (Some(service), None) => {
            let here = path.field("service");
            if check.text(service, &here, "name") {
                check.found(&here.field("name"), service.text("name"), format::dns_label(service.text("name")));
            }
            let port = service.part("port");
            let number = port.int("number").unwrap_or_default();
            let here = here.field("port");
            match (port.text("name"), number) {
                ("", 0) => check.required(path, "port name or number is required"),
                ("", _) => check.port(port, &here, "number"),
                (name, 0) => check.found(&here.field("name"), name, format::port_name(name)),
                _ => check.invalid(path, &"".into(), "cannot set both port name & port number"),
            }
        }
    }
}

/// An object of any kind by group, kind and name.
pub(crate) fn local_reference(check: &mut Check<'_>, reference: &Value, path: &Path<'_>) {
    if let Some(group) = reference.at("apiGroup").and_then(Value::as_str) {
        check.found(&path.field("apiGroup"), group, format::dns_subdomain(group));
    }
    for name in ["kind", "name"] {
        let value = reference.text(name);
        if check.text(reference, path, name) {
            check.found(&path.field(name), value, format::path_segment(value, false));
        }
    }
}

pub fn ingress_class(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    let controller = path.field("controller");
    let name = spec.text("controller");
    if check.text(spec, &path, "controller") {
        if name.len() > CONTROLLER_BYTES_MAX {
            check.errors.push(FieldError::too_long(&controller, CONTROLLER_BYTES_MAX));
        }
        check.domain_prefixed(&controller, name);
    }
    let Some(parameters) = spec.at("parameters") else { return };
    let path = path.field("parameters");
    local_reference(check, parameters, &path);
    if !parameters.has("scope") {
        return check.required(&path.field("scope"), "");
    }
    check.one_of(parameters, &path, "scope", &["Cluster", "Namespace"]);
    match (parameters.text("scope"), parameters.has("namespace")) {
        ("Namespace", false) => {
            check.required(&path.field("namespace"), "`parameters.scope` is set to 'Namespace'");
        }
        ("Namespace", true) => {
            let namespace = parameters.text("namespace");
            check.found(&path.field("namespace"), namespace, format::dns_label(namespace));
        }
        ("Cluster", true) => check.forbidden(&path.field("namespace"), "`parameters.scope` is set to 'Cluster'"),
        _ => {}
    }
}

pub fn ingress_class_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    ingress_class(object, errors);
    let root = Path::Root;
    Check { errors }.unchanged(object.part("spec"), old.part("spec"), &root.field("spec"), "controller");
}

pub fn network_policy(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    labels::selector(check, spec.part("podSelector"), &path.field("podSelector"));
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let rules = path.field(direction);
        for (index, rule) in spec.list(direction).iter().enumerate() {
            let path = rules.index(index);
            let ports = path.field("ports");
            for (index, port) in rule.list("ports").iter().enumerate() {
                policy_port(check, port, &ports.index(index));
            }
            let list = path.field(peers);
            for (index, peer) in rule.list(peers).iter().enumerate() {
                policy_peer(check, peer, &list.index(index));
            }
        }
    }
    let types = path.field("policyTypes");
    if spec.list("policyTypes").len() > 2 {
        return check.invalid(&types, spec.part("policyTypes"), "may not specify more than two policyTypes");
    }
    for (index, kind) in spec.list("policyTypes").iter().enumerate() {
        if !matches!(kind.as_str(), Some("Ingress" | "Egress")) {
            check.not_supported(&types.index(index), kind, &["Ingress", "Egress"]);
        }
    }
}

fn policy_port(check: &mut Check<'_>, port: &Value, path: &Path<'_>) {
    check.one_of(port, path, "protocol", &["TCP", "UDP", "SCTP"]);
    let end = path.field("endPort");
    match port.at("port") {
        Some(number) => {
            check.port(port, path, "port");
            if let Some(last) = port.int("endPort") {
                if number.is_string() {
                    check.invalid(&end, &last.into(), "may not be specified when `port` is non-numeric");
                } else if number.as_i64().is_some_and(|first| first > last) {
                    check.invalid(&end, &last.into(), "must be greater than or equal to `port`");
                } else {
                    check.port(port, path, "endPort");
                }
            }
        }
        None => {
            if let Some(last) = port.int("endPort") {
                check.invalid(&end, &last.into(), "may not be specified when `port` is not specified");
            }
        }
    }
}

fn policy_peer(check: &mut Check<'_>, peer: &Value, path: &Path<'_>) {
    let mut peers = 0;
    for name in ["podSelector", "namespaceSelector"] {
        if let Some(selector) = peer.at(name) {
            peers += 1;
            labels::selector(check, selector, &path.field(name));
        }
    }
    if let Some(block) = peer.at("ipBlock") {
        let here = path.field("ipBlock");
        if peers > 0 {
            check.forbidden(path, "may not specify both ipBlock and another peer");
        }
        peers += 1;
        let text = block.text("cidr");
        if check.text(block, &here, "cidr") {
            check.found(&here.field("cidr"), text, format::cidr(text));
        }
        let whole = text.parse::<ipnet::IpNet>().ok();
        let list = here.field("except");
        for (index, except) in block.list("except").iter().enumerate() {
            let except = except.as_str().unwrap_or_default();
            let path = list.index(index);
            match (whole, except.parse::<ipnet::IpNet>()) {
                (_, Err(_)) => check.found(&path, except, format::cidr(except)),
                (Some(whole), Ok(part)) if !whole.contains(&part) || whole.prefix_len() >= part.prefix_len() => {
                    check.invalid(&path, &except.into(), "must be a strict subset of `cidr`");
                }
                _ => {}
            }
        }
    }
    if peers == 0 {
        check.required(path, "must specify a peer");
    }
}
