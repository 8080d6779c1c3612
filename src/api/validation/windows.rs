//! What only containers on Windows have: group managed accounts, user names, host processes.

use serde_json::Value;

use super::Check;
use crate::{fields::Fields, format, path::Path};

const CREDENTIAL_KIB_MAX: usize = 64;
const DOMAIN_CHARS_MAX: usize = 256;
const USER_CHARS_MAX: usize = 104;
const NETBIOS_CHARS_MAX: usize = 15;

/// `windowsOptions` of a security context.
pub(crate) fn options(check: &mut Check<'_>, context: &Value, path: &Path<'_>) {
    let Some(options) = context.at("windowsOptions") else { return };
    let path = path.field("windowsOptions");
    if let Some(name) = options.at("gmsaCredentialSpecName").and_then(Value::as_str) {
        check.found(&path.field("gmsaCredentialSpecName"), name, format::dns_subdomain(name));
    }
    if let Some(credential) = options.at("gmsaCredentialSpec").and_then(Value::as_str) {
        let here = path.field("gmsaCredentialSpec");
        if credential.is_empty() {
            check.invalid(&here, &credential.into(), "gmsaCredentialSpec cannot be an empty string");
        } else if credential.len() > CREDENTIAL_KIB_MAX * 1024 {
            let text = format!("gmsaCredentialSpec size must be under {CREDENTIAL_KIB_MAX} KiB");
            check.invalid(&here, &credential.into(), &text);
        }
    }
    if let Some(name) = options.at("runAsUserName").and_then(Value::as_str) {
        check.found(&path.field("runAsUserName"), name, user_name_findings(name));
    }
}

/// `user` or `DOMAIN\user`.
fn user_name_findings(name: &str) -> Vec<String> {
    let one = |text: &str| vec![format!("runAsUserName{text}")];
    if name.is_empty() {
        return one(" cannot be an empty string");
    }
    if name.bytes().any(|byte| byte.is_ascii_control()) {
        return one(" cannot contain control characters");
    }
    let (domain, user) = match name.split('\\').collect::<Vec<_>>()[..] {
        [user] => (None, user),
        [domain, user] => (Some(domain), user),
        _ => return one(" cannot contain more than one backslash"),
    };
    let mut findings = Vec::new();
    if domain.is_some_and(|domain| domain.len() >= DOMAIN_CHARS_MAX) {
        findings.extend(one(&format!("'s Domain length must be under {DOMAIN_CHARS_MAX} characters")));
    }
    if domain.is_some_and(|domain| !is_netbios(domain) && !is_dns(domain)) {
        findings.extend(one("'s Domain doesn't match the NetBios nor the DNS format"));
    }
    if user.is_empty() {
        findings.extend(one("'s User cannot be empty"));
    } else if user.len() > USER_CHARS_MAX {
        findings.extend(one(&format!("'s User length must not be longer than {USER_CHARS_MAX} characters")));
    }
    if !user.is_empty() && user.chars().all(|char| matches!(char, '.' | ' ')) {
        findings.extend(one("'s User cannot contain only periods or spaces"));
    }
    if user.contains(|char| r#""/\:;|=,+*?<>@[]"#.contains(char)) {
        findings.extend(one(r#"'s User cannot contain the following characters: "/\:;|=,+*?<>@[]"#));
    }
    findings
}

fn is_netbios(domain: &str) -> bool {
    let chars = domain.chars().count();
    (1..=NETBIOS_CHARS_MAX).contains(&chars)
        && !domain.starts_with('.')
        && !domain.contains(|char| r#"\/:*?"<>|"#.contains(char))
}

/// DNS labels in any case.
fn is_dns(domain: &str) -> bool {
    domain.split('.').all(|label| format::dns_label(&label.to_ascii_lowercase()).is_empty())
}

/// Where one container is a process of the host, all are, and on its network.
pub(crate) fn host_processes(check: &mut Check<'_>, spec: &Value, path: &Path<'_>) {
    let wanted = |context: &Value| context.part("windowsOptions").at("hostProcess").and_then(Value::as_bool);
    let of_pod = wanted(spec.part("securityContext"));
    let (mut containers, mut of_host) = (0, 0);
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let here = path.field(list);
        for (index, container) in spec.list(list).iter().enumerate() {
            containers += 1;
            let of_container = wanted(container.part("securityContext"));
            if let (Some(pod), Some(own)) = (of_pod, of_container)
                && pod != own
            {
                let here = here.index(index);
                let here = here.field("securityContext");
                let here = here.field("windowsOptions");
                let text = format!("pod hostProcess value must be identical if both are specified, was {pod}");
                check.invalid(&here.field("hostProcess"), &own.into(), &text);
            }
            of_host += usize::from(of_container.or(of_pod).unwrap_or_default());
        }
    }
    if of_host == 0 {
        return;
    }
    if of_host != containers {
        let text = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        check.invalid(path, &"".into(), text);
    }
    if !spec.flag("hostNetwork") {
        let text = "hostNetwork must be true if pod contains any hostProcess containers";
        check.invalid(&path.field("hostNetwork"), &false.into(), text);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn users_are_named_as_windows_names_them() {
        for good in ["ContainerAdministrator", r"corp\user", r"a.example.com\user", "two words"] {
            assert_eq!(user_name_findings(good), [""; 0], "{good}");
        }
        let cases = [
            ("", "cannot be an empty string"),
            ("a\nb", "cannot contain control characters"),
            (r"a\b\c", "cannot contain more than one backslash"),
            (r"-.a|\b", "Domain doesn't match the NetBios nor the DNS format"),
            (r"a\", "User cannot be empty"),
            ("..", "User cannot contain only periods or spaces"),
            ("a@b", "User cannot contain the following characters"),
        ];
        for (name, expected) in cases {
            let findings = user_name_findings(name);
            assert!(findings.len() == 1 && findings[0].contains(expected), "{name}: {findings:?}");
        }
        assert_eq!(user_name_findings(&"u".repeat(105)).len(), 1);
    }

    #[test]
    fn all_containers_are_processes_of_the_host_or_none() {
        let own = |host: bool| json!({"securityContext": {"windowsOptions": {"hostProcess": host}}});
        let found = |spec: Value| {
            let mut errors = Vec::new();
            host_processes(&mut Check { errors: &mut errors }, &spec, &Path::Root.field("spec"));
            errors.iter().map(|error| error.field.clone()).collect::<Vec<_>>()
        };
        assert_eq!(found(json!({"containers": [own(false), {}]})), [""; 0]);
        assert_eq!(found(json!({"hostNetwork": true, "containers": [own(true)]})), [""; 0]);
        assert_eq!(found(json!({"containers": [own(true), {}]})), ["spec", "spec.hostNetwork"]);
        assert_eq!(
            found(json!({"hostNetwork": true, "securityContext": own(true)["securityContext"],
                "containers": [own(false), {}]})),
            ["spec.containers[0].securityContext.windowsOptions.hostProcess", "spec"]
        );
    }
}
