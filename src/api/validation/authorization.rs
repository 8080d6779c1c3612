//! Roles, bindings and certificate signing requests.

use serde_json::Value;

use super::{Check, labels, same};
use crate::{failure::FieldError, fields::Fields, format, path::Path};

const RBAC: &str = "rbac.authorization.k8s.io";
const CERTIFICATE_SECONDS_MIN: i64 = 600;
const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

pub fn role(object: &Value, errors: &mut Vec<FieldError>) {
    rules(&mut Check { errors }, object, true);
}

pub fn cluster_role(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    rules(check, object, false);
    let Some(aggregation) = object.at("aggregationRule") else { return };
    let root = Path::Root;
    let path = root.field("aggregationRule");
    let list = path.field("clusterRoleSelectors");
    if aggregation.list("clusterRoleSelectors").is_empty() {
        let text = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        check.required(&list, text);
    }
    for (index, selector) in aggregation.list("clusterRoleSelectors").iter().enumerate() {
        labels::selector(check, selector, &list.index(index));
    }
}

fn rules(check: &mut Check<'_>, object: &Value, namespaced: bool) {
    let root = Path::Root;
    let list = root.field("rules");
    for (index, rule) in object.list("rules").iter().enumerate() {
        let path = list.index(index);
        if rule.list("verbs").is_empty() {
            check.required(&path.field("verbs"), "verbs must contain at least one value");
        }
        if !rule.list("nonResourceURLs").is_empty() {
            let urls = path.field("nonResourceURLs");
            if namespaced {
                let text = "namespaced rules cannot apply to non-resource URLs";
                check.invalid(&urls, rule.part("nonResourceURLs"), text);
            }
            let resources = ["apiGroups", "resources", "resourceNames"];
            if resources.into_iter().any(|name| !rule.list(name).is_empty()) {
                let text = "rules cannot apply to both regular resources and non-resource URLs";
                check.invalid(&urls, rule.part("nonResourceURLs"), text);
            }
            continue;
        }
        if rule.list("apiGroups").is_empty() {
            check.required(&path.field("apiGroups"), "resource rules must supply at least one api group");
        }
        if rule.list("resources").is_empty() {
            check.required(&path.field("resources"), "resource rules must supply at least one resource");
        }
    }
}

pub fn role_binding(object: &Value, errors: &mut Vec<FieldError>) {
    binding(&mut Check { errors }, object, &["Role", "ClusterRole"]);
}

pub fn cluster_role_binding(object: &Value, errors: &mut Vec<FieldError>) {
    binding(&mut Check { errors }, object, &["ClusterRole"]);
}

fn binding(check: &mut Check<'_>, object: &Value, kinds: &[&str]) {
    let root = Path::Root;
    let path = root.field("roleRef");
    let role = object.part("roleRef");
    if role.text("apiGroup") != RBAC {
        check.not_supported(&path.field("apiGroup"), &role.text("apiGroup").into(), &[RBAC]);
    }
    if !kinds.contains(&role.text("kind")) {
        check.not_supported(&path.field("kind"), &role.text("kind").into(), kinds);
    }
    if check.text(role, &path, "name") {
        check.found(&path.field("name"), role.text("name"), format::path_segment(role.text("name"), false));
    }
    let list = root.field("subjects");
    for (index, subject) in object.list("subjects").iter().enumerate() {
        let path = list.index(index);
        check.text(subject, &path, "name");
        let (name, group) = (subject.text("name"), subject.text("apiGroup"));
        match subject.text("kind") {
            "ServiceAccount" => {
                if !name.is_empty() {
                    check.found(&path.field("name"), name, format::dns_subdomain(name));
                }
                if !group.is_empty() {
                    check.not_supported(&path.field("apiGroup"), &group.into(), &[""]);
                }
                // Only a binding within a namespace may leave out its own.
                if subject.text("namespace").is_empty() && !kinds.contains(&"Role") {
                    check.required(&path.field("namespace"), "");
                }
            }
            "User" | "Group" => {
                if group != RBAC {
                    check.not_supported(&path.field("apiGroup"), &group.into(), &[RBAC]);
                }
            }
            other => {
                check.not_supported(&path.field("kind"), &other.into(), &["ServiceAccount", "User", "Group"]);
            }
        }
    }
}

pub fn role_binding_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    role_binding(object, errors);
    same_role(object, old, errors);
}

pub fn cluster_role_binding_update(
    object: &Value,
    old: &Value,
    _subresource: Option<&str>,
    errors: &mut Vec<FieldError>,
) {
    cluster_role_binding(object, errors);
    same_role(object, old, errors);
}

fn same_role(object: &Value, old: &Value, errors: &mut Vec<FieldError>) {
    if !same(object.part("roleRef"), old.part("roleRef")) {
        let root = Path::Root;
        Check { errors }.invalid(&root.field("roleRef"), object.part("roleRef"), "cannot change roleRef");
    }
}

pub fn signing_request(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    check.text(spec, &path, "request");
    let list = path.field("usages");
    let usages = spec.list("usages");
    if usages.is_empty() {
        check.required(&list, "");
    }
    for (index, usage) in usages.iter().enumerate() {
        if !usage.as_str().is_some_and(|usage| USAGES.contains(&usage)) {
            check.not_supported(&list.index(index), usage, USAGES);
        }
        if usages[..index].contains(usage) {
            check.duplicate(&list.index(index), usage);
        }
    }
    let signer = spec.text("signerName");
    if check.text(spec, &path, "signerName") {
        match signer.split_once('/') {
            Some((domain, rest)) if !rest.is_empty() => {
                check.found(&path.field("signerName"), signer, format::dns_subdomain(domain));
            }
            _ => {
                let text = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
                check.invalid(&path.field("signerName"), &signer.into(), text);
            }
        }
    }
    if let Some(seconds) = spec.int("expirationSeconds").filter(|&seconds| seconds < CERTIFICATE_SECONDS_MIN) {
        let text = "may not specify a duration less than 600 seconds (10 minutes)";
        check.invalid(&path.field("expirationSeconds"), &seconds.into(), text);
    }
}

pub fn signing_request_update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("status");
    let conditions = path.field("conditions");
    let find = |object: &Value, kind: &str| {
        object.part("status").list("conditions").iter().find(|one| one.text("type") == kind).cloned()
    };
    for kind in ["Approved", "Denied", "Failed"] {
        if find(old, kind).is_some() && find(object, kind).is_none() {
            check.forbidden(&conditions, &format!("updates may not remove a condition of type \"{kind}\""));
        }
    }
    for (index, condition) in object.part("status").list("conditions").iter().enumerate() {
        let path = conditions.index(index);
        check.text(condition, &path, "type");
        let decided = matches!(condition.text("type"), "Approved" | "Denied" | "Failed");
        check.choice(condition, &path, "status", if decided { &["True"] } else { &["False", "True", "Unknown"] });
        let kinds = object.part("status").list("conditions").iter().take(index);
        if kinds.into_iter().any(|before| before.text("type") == condition.text("type")) {
            check.duplicate(&path.field("type"), condition.part("type"));
        }
    }
    if find(object, "Approved").is_some() && find(object, "Denied").is_some() {
        check.invalid(&conditions, &"Denied".into(), "Approved and Denied conditions are mutually exclusive");
    }
    let (before, now) = (old.part("status").text("certificate"), object.part("status").text("certificate"));
    if before != now {
        let path = path.field("certificate");
        if subresource != Some("status") {
            check.forbidden(&path, "updates may not set certificate content");
        } else if !before.is_empty() {
            check.forbidden(&path, "updates may not modify existing certificate content");
        }
    }
}
