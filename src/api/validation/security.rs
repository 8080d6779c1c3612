//! Security contexts of pods and containers: whose rights processes have, and what the kernel lets them do.

use serde_json::Value;

use super::{Check, container::Pod, volumes, windows};
use crate::{failure::FieldError, fields::Fields, format, path::Path};

const ID_MAX: i64 = i32::MAX as i64;
/// What a path may have on Linux, less its end.
const PROFILE_BYTES_MAX: usize = 4095;

/// The security context of a pod.
pub(crate) fn of_pod(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let Some(context) = spec.at("securityContext") else { return };
    let path = path.field("securityContext");
    for name in ["fsGroup", "runAsUser", "runAsGroup"] {
        check.in_range(context, &path, name, 0, ID_MAX);
    }
    let groups = path.field("supplementalGroups");
    for (index, group) in context.list("supplementalGroups").iter().enumerate() {
        if !group.as_i64().is_some_and(|group| (0..=ID_MAX).contains(&group)) {
            check.invalid(&groups.index(index), group, &format::range_text(0, ID_MAX));
        }
    }
    if spec.flag("shareProcessNamespace") && spec.flag("hostPID") {
        let text = "ShareProcessNamespace and HostPID cannot both be enabled";
        check.invalid(&path.field("shareProcessNamespace"), &true.into(), text);
    }
    sysctls(check, context, &path);
    check.one_of(context, &path, "fsGroupChangePolicy", &["OnRootMismatch", "Always"]);
    check.one_of(context, &path, "supplementalGroupsPolicy", &["Merge", "Strict"]);
    check.one_of(context, &path, "seLinuxChangePolicy", &["MountOption", "Recursive"]);
    seccomp_profile(check, context, &path);
    windows::options(check, context, &path);
    app_armor_profile(check, context, &path);
}

fn sysctls(check: &mut Check<'_>, context: &Value, path: &Path<'_>) {
    const PATTERN: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
    let list = path.field("sysctls");
    let part = |part: &str| {
        let edge = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = part.as_bytes();
        bytes.first().is_some_and(edge)
            && bytes.last().is_some_and(edge)
            && bytes.iter().all(|byte| edge(byte) || b"-_".contains(byte))
    };
    let mut seen = std::collections::BTreeSet::new();
    for (index, sysctl) in context.list("sysctls").iter().enumerate() {
        let path = list.index(index);
        let name = sysctl.text("name");
        if name.is_empty() {
            check.required(&path.field("name"), "");
        } else if name.len() > format::SUBDOMAIN_BYTES_MAX || !name.split(['.', '/']).all(part) {
            let text =
                format!("must have at most {} characters and match regex {PATTERN}", format::SUBDOMAIN_BYTES_MAX);
            check.invalid(&path.field("name"), &name.into(), &text);
        } else if !seen.insert(name) {
            check.duplicate(&path.field("name"), &name.into());
        }
    }
}

/// The security context of a container.
pub(crate) fn of_container(check: &mut Check<'_>, context: &Value, pod: &Pod<'_>, path: &Path<'_>) {
    if context.is_null() {
        return;
    }
    check.in_range(context, path, "runAsUser", 0, ID_MAX);
    check.in_range(context, path, "runAsGroup", 0, ID_MAX);
    check.one_of(context, path, "procMount", &["Default", "Unmasked"]);
    if context.text("procMount") == "Unmasked" && pod.host_users {
        let text = "`hostUsers` must be false to use `Unmasked`";
        check.invalid(&path.field("procMount"), context.part("procMount"), text);
    }
    seccomp_profile(check, context, path);
    if context.get("allowPrivilegeEscalation") == Some(&Value::Bool(false)) {
        if context.flag("privileged") {
            let text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            check.invalid(path, context, text);
        }
        for _ in context.part("capabilities").list("add").iter().filter(|one| *one == "CAP_SYS_ADMIN") {
            let text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            check.invalid(path, context, text);
        }
    }
    windows::options(check, context, path);
    app_armor_profile(check, context, path);
}

fn seccomp_profile(check: &mut Check<'_>, context: &Value, path: &Path<'_>) {
    let Some(profile) = context.at("seccompProfile") else { return };
    let path = path.field("seccompProfile");
    profile_type(check, profile, "seccompProfile", &path);
    let here = path.field("localhostProfile");
    match (profile.text("type") == "Localhost", profile.at("localhostProfile").and_then(Value::as_str)) {
        (true, None) => check.required(&here, "must be set when seccomp type is Localhost"),
        (true, Some(file)) => volumes::descending(check, file, &here),
        (false, Some(_)) => check.invalid(&here, profile, "can only be set when seccomp type is Localhost"),
        (false, None) => {}
    }
}

fn app_armor_profile(check: &mut Check<'_>, context: &Value, path: &Path<'_>) {
    const MISSING: &str = "must be set when AppArmor type is Localhost";
    let Some(profile) = context.at("appArmorProfile") else { return };
    let path = path.field("appArmorProfile");
    let here = path.field("localhostProfile");
    let name = profile.at("localhostProfile").and_then(Value::as_str);
    match (profile.text("type"), name) {
        ("Localhost", None) => check.required(&here, MISSING),
        ("Localhost", Some(name)) => {
            if name.trim() != name {
                check.invalid(&here, &name.into(), "must not be padded with whitespace");
            } else if name.is_empty() {
                check.required(&here, MISSING);
            }
            if name.len() > PROFILE_BYTES_MAX {
                check.errors.push(FieldError::too_long(&here, PROFILE_BYTES_MAX));
            }
        }
        ("RuntimeDefault" | "Unconfined", Some(name)) => {
            check.invalid(&here, &name.into(), "can only be set when AppArmor type is Localhost");
        }
        _ => profile_type(check, profile, "appArmorProfile", &path),
    }
}

fn profile_type(check: &mut Check<'_>, profile: &Value, name: &str, path: &Path<'_>) {
    if profile.text("type").is_empty() {
        check.required(&path.field("type"), &format!("type is required when {name} is set"));
    } else {
        check.one_of(profile, path, "type", &["Localhost", "RuntimeDefault", "Unconfined"]);
    }
}
