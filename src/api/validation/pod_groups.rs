//! Groups of pods that are scheduled together, and the workloads that they belong to (`scheduling.k8s.io`).
//!
//! Fields that upstream has behind features which are off by default are taken out before they come here
//! (`strategy::kinds::pod_group_create`).

use std::collections::BTreeSet;

use serde_json::Value;

use super::conditions::conditions;
use super::{Check, IMMUTABLE, same};
use crate::{failure::FieldError, fields::Fields, format, path::Path};

const TEMPLATES_MAX: usize = 8;

pub fn workload(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    if let Some(controller) = spec.at("controllerRef") {
        let path = path.field("controllerRef");
        let group = controller.text("apiGroup");
        if !group.is_empty() {
            check.found(&path.field("apiGroup"), group, format::dns_subdomain(group));
        }
        for name in ["kind", "name"] {
            if check.text(controller, &path, name) {
                let segment = controller.text(name);
                check.found(&path.field(name), segment, format::path_segment(segment, false));
            }
        }
    }
    let list = path.field("podGroupTemplates");
    let templates = spec.list("podGroupTemplates");
    if templates.is_empty() {
        check.required(&list, "");
    } else if templates.len() > TEMPLATES_MAX {
        return check.errors.push(FieldError::too_many(&list, templates.len(), TEMPLATES_MAX));
    }
    let mut names = BTreeSet::new();
    for (index, template) in templates.iter().enumerate() {
        let path = list.index(index);
        if !names.insert(template.text("name")) {
            check.duplicate(&path, &template.text("name").into());
        }
        label(check, template, &path, "name");
        policy(check, template.part("schedulingPolicy"), &path.field("schedulingPolicy"));
    }
}

pub fn workload_update(object: &Value, old: &Value, _subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    for name in ["controllerRef", "podGroupTemplates"] {
        fixed(check, object.part("spec"), old.part("spec"), &path, name);
    }
}

pub fn pod_group(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    if let Some(template) = spec.at("podGroupTemplateRef") {
        let path = path.field("podGroupTemplateRef");
        match template.at("workload") {
            Some(workload) => {
                let path = path.field("workload");
                if check.text(workload, &path, "workloadName") {
                    let name = workload.text("workloadName");
                    check.found(&path.field("workloadName"), name, format::dns_subdomain(name));
                }
                label(check, workload, &path, "podGroupTemplateName");
            }
            None => check.invalid(&path, &"".into(), "must specify one of: `workload`"),
        }
    }
    policy(check, spec.part("schedulingPolicy"), &path.field("schedulingPolicy"));
}

pub fn pod_group_update(object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    if subresource == Some("status") {
        let path = root.field("status");
        return conditions(check, object.part("status"), &path);
    }
    let path = root.field("spec");
    for name in ["podGroupTemplateRef", "schedulingPolicy"] {
        fixed(check, object.part("spec"), old.part("spec"), &path, name);
    }
}

/// As [`Check::unchanged`], but the value is not told.
fn fixed(check: &mut Check<'_>, new: &Value, old: &Value, path: &Path<'_>, name: &str) {
    if !same(new.part(name), old.part(name)) {
        check.invalid(&path.field(name), &Value::Null, IMMUTABLE);
    }
}

fn label(check: &mut Check<'_>, holder: &Value, path: &Path<'_>, name: &str) {
    if check.text(holder, path, name) {
        check.found(&path.field(name), holder.text(name), format::dns_label(holder.text(name)));
    }
}

/// Each pod by itself, or all at once.
fn policy(check: &mut Check<'_>, policy: &Value, path: &Path<'_>) {
    match (policy.has("basic"), policy.at("gang")) {
        (false, None) => check.invalid(path, &"".into(), "must specify one of: `basic`, `gang`"),
        (true, Some(_)) => {
            check.invalid(path, &"{basic, gang}".into(), "must specify exactly one of: `basic`, `gang`");
        }
        (true, None) => {}
        (false, Some(gang)) => {
            let path = path.field("gang");
            let path = path.field("minCount");
            match gang.int("minCount").unwrap_or_default() {
                0 => check.required(&path, ""),
                count if count < 1 => check.invalid(&path, &count.into(), "must be greater than or equal to 1"),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(errors: &[FieldError]) -> Vec<&str> {
        errors.iter().map(|error| error.field.as_str()).collect()
    }

    #[test]
    fn a_group_has_one_policy() {
        let found = |spec: Value| {
            let mut errors = Vec::new();
            pod_group(&json!({"spec": spec}), &mut errors);
            errors.iter().map(|error| error.field.clone()).collect::<Vec<_>>()
        };
        assert!(found(json!({"schedulingPolicy": {"gang": {"minCount": 2}}})).is_empty());
        assert_eq!(found(json!({})), ["spec.schedulingPolicy"]);
        assert_eq!(
            found(json!({"schedulingPolicy": {"basic": {}, "gang": {"minCount": 1}}})),
            ["spec.schedulingPolicy"]
        );
        assert_eq!(found(json!({"schedulingPolicy": {"gang": {}}})), ["spec.schedulingPolicy.gang.minCount"]);
        let reference = json!({"podGroupTemplateRef": {}, "schedulingPolicy": {"basic": {}}});
        assert_eq!(found(reference), ["spec.podGroupTemplateRef"]);
    }

    #[test]
    fn a_workload_does_not_change() {
        let template = |name: &str| json!({"name": name, "schedulingPolicy": {"basic": {}}});
        let old = json!({"spec": {"podGroupTemplates": [template("a")]}});
        let mut errors = Vec::new();
        workload(&old, &mut errors);
        assert!(errors.is_empty());
        let twice = json!({"spec": {"podGroupTemplates": [template("a"), template("a")]}});
        workload(&twice, &mut errors);
        workload_update(&twice, &old, None, &mut errors);
        assert_eq!(fields(&errors), ["spec.podGroupTemplates[1]", "spec.podGroupTemplates"]);
    }
}
