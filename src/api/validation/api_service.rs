//! APIServices: who serves a group version.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Check;
use crate::{failure::FieldError, fields::Fields, format, path::Path};

const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1000;

pub fn create(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    let (group, version) = (spec.text("group"), spec.text("version"));
    let name = object.part("metadata").text("name");
    let expected = format!("{version}.{group}");
    if name != expected {
        let text = format!("must be `spec.version+\".\"+spec.group`: {}", Value::from(expected));
        check.invalid(&root.field("metadata").field("name"), &name.into(), &text);
    }
    if group.is_empty() && version != "v1" {
        check.required(&path.field("group"), "only v1 may have an empty group and it better be legacy kube");
    }
    if !group.is_empty() {
        check.found(&path.field("group"), group, format::dns_subdomain(group));
    }
    check.found(&path.field("version"), version, format::dns_1035_label(version));
    for (field, max) in [("groupPriorityMinimum", GROUP_PRIORITY_MAX), ("versionPriority", VERSION_PRIORITY_MAX)] {
        let priority = spec.int(field).unwrap_or_default();
        if !(1..=max).contains(&priority) {
            let text = format!("must be positive and less than {max}");
            check.invalid(&path.field(field), &priority.into(), &text);
        }
    }
    let bundle_bytes = STANDARD.decode(spec.text("caBundle")).map_or(0, |bundle| bundle.len());
    let insecure = spec.flag("insecureSkipTLSVerify");
    let Some(service) = spec.at("service") else {
        if bundle_bytes > 0 {
            let text = "local APIServices may not have a caBundle";
            check.invalid(&path.field("caBundle"), &format!("{bundle_bytes} bytes").into(), text);
        }
        if insecure {
            let text = "local APIServices may not have insecureSkipTLSVerify";
            check.invalid(&path.field("insecureSkipTLSVerify"), &true.into(), text);
        }
        return;
    };
    let here = path.field("service");
    check.text(service, &here, "namespace");
    check.text(service, &here, "name");
    let port = service.int("port").unwrap_or_default();
    let findings = format::port_number(port);
    if !findings.is_empty() {
        check.invalid(&here.field("port"), &port.into(), &format!("port is not valid: {}", findings.join(", ")));
    }
    if insecure && bundle_bytes > 0 {
        check.invalid(&path.field("insecureSkipTLSVerify"), &true.into(), "may not be true if caBundle is present");
    }
}

pub fn update(object: &Value, _old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    if subresource != Some("status") {
        return create(object, errors);
    }
    let check = &mut Check { errors };
    let root = Path::Root;
    let status = root.field("status");
    let list = status.field("conditions");
    for (index, condition) in object.part("status").list("conditions").iter().enumerate() {
        let supported = ["True", "False", "Unknown"];
        if !supported.contains(&condition.text("status")) {
            let path = list.index(index);
            check.not_supported(&path.field("status"), &condition.text("status").into(), &supported);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut object = json!({"metadata": {"name": "v1.example.com"}, "spec": {
            "group": "example.com", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
            "service": {"namespace": "n", "name": "s", "port": 443},
        }});
        change(&mut object);
        let mut errors = Vec::new();
        create(&object, &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn problems_get_upstreams_texts() {
        assert!(found(|_| {}).is_empty());
        let spec = |field: &'static str, value: Value| found(|object| object["spec"][field] = value);
        assert_eq!(
            spec("group", json!("other.com")),
            ["metadata.name: Invalid value: \"v1.example.com\": must be `spec.version+\".\"+spec.group`: \
              \"v1.other.com\""]
        );
        assert_eq!(
            spec("versionPriority", json!(1001)),
            ["spec.versionPriority: Invalid value: 1001: must be positive and less than 1000"]
        );
        assert_eq!(
            spec("service", json!({"namespace": "n", "port": 0})),
            [
                "spec.service.name: Required value",
                "spec.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive"
            ]
        );
        let both = found(|object| {
            object["spec"]["insecureSkipTLSVerify"] = true.into();
            object["spec"]["caBundle"] = "AAAA".into();
        });
        let text = "spec.insecureSkipTLSVerify: Invalid value: true: may not be true if caBundle is present";
        assert_eq!(both, [text]);
        let local = found(|object| {
            object["spec"]["service"] = Value::Null;
            object["spec"]["caBundle"] = "AAAA".into();
        });
        assert_eq!(local, ["spec.caBundle: Invalid value: \"3 bytes\": local APIServices may not have a caBundle"]);
    }

    #[test]
    fn a_condition_is_true_false_or_unknown() {
        let object = json!({"status": {"conditions": [{"status": "True"}, {"status": "maybe"}]}});
        let mut errors = Vec::new();
        update(&object, &json!({}), Some("status"), &mut errors);
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["status.conditions[1].status: Unsupported value: \"maybe\": supported values: \"True\", \"False\", \
              \"Unknown\""]
        );
    }
}
