//! What a pod may not ask for because of its operating system.

use serde_json::Value;

use super::Check;
use crate::{fields::Fields, path::Path};

const FOR_LINUX: &str = "windows options cannot be set for a linux pod";
const FOR_WINDOWS: &str = "cannot be set for a windows pod";
const POD_FIELDS: &[&str] = &["hostIPC", "hostPID", "hostUsers", "shareProcessNamespace"];
const CONTEXT_FIELDS: &[&str] = &[
    "appArmorProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "runAsGroup",
    "runAsUser",
    "seLinuxChangePolicy",
    "seLinuxOptions",
    "seccompProfile",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "sysctls",
];
const CONTAINER_FIELDS: &[&str] = &[
    "allowPrivilegeEscalation",
    "appArmorProfile",
    "capabilities",
    "privileged",
    "procMount",
    "readOnlyRootFilesystem",
    "runAsGroup",
    "runAsUser",
    "seLinuxOptions",
    "seccompProfile",
];

pub(crate) fn fields(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let Some(os) = spec.at("os") else { return };
    if !check.text(os, &path.field("os"), "name") {
        return;
    }
    match os.text("name") {
        "linux" => contexts(check, spec, path, (&["windowsOptions"], &["windowsOptions"]), FOR_LINUX),
        "windows" => {
            for name in POD_FIELDS.iter().filter(|name| is_set(spec, name)) {
                check.forbidden(&path.field(name), FOR_WINDOWS);
            }
            contexts(check, spec, path, (CONTEXT_FIELDS, CONTAINER_FIELDS), FOR_WINDOWS);
        }
        other => check.not_supported(&path.field("os"), &other.into(), &["linux", "windows"]),
    }
}

/// Neither missing nor the zero value of a field that is no pointer in Go.
fn is_set(holder: &Value, name: &str) -> bool {
    let value = holder.part(name);
    let zero = matches!(name, "hostIPC" | "hostPID") && *value == Value::Bool(false);
    !value.is_null() && !zero && !value.as_array().is_some_and(Vec::is_empty)
}

/// Fields that neither the pod's nor a container's security context may have.
fn contexts(
    check: &mut Check<'_>,
    spec: &Value,
    path: &Path<'_>,
    (of_pod, of_containers): (&[&str], &[&str]),
    text: &str,
) {
    let here = path.field("securityContext");
    for name in of_pod.iter().filter(|name| is_set(spec.part("securityContext"), name)) {
        check.forbidden(&here.field(name), text);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let containers = path.field(list);
        for (index, container) in spec.list(list).iter().enumerate() {
            let here = containers.index(index);
            let here = here.field("securityContext");
            for name in of_containers.iter().filter(|name| is_set(container.part("securityContext"), name)) {
                check.forbidden(&here.field(name), text);
            }
        }
    }
}
