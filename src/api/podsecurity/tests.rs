//! Small Pods, and what is said of them.

use serde_json::{Value, json};

use super::*;

const RESTRICTED_LATEST: LevelVersion = LevelVersion { level: Level::Restricted, version: Version::Latest };
const BASELINE_LATEST: LevelVersion = LevelVersion { level: Level::Baseline, version: Version::Latest };

fn at(level: LevelVersion, minor: u32) -> LevelVersion {
    LevelVersion { version: Version::Minor(minor), ..level }
}

fn said(level: LevelVersion, pod: &Value) -> String {
    details(&evaluate(level, Subject { metadata: pod.part("metadata"), spec: pod.part("spec") }))
}

/// A Pod that everybody takes.
fn good() -> Value {
    json!({"metadata": {}, "spec": {
        "securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{"name": "a", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]},
        }}],
    }})
}

#[test]
fn a_plain_pod_is_not_restricted_and_says_why() {
    let pod = json!({"spec": {"containers": [{"name": "x"}]}});
    assert_eq!(
        said(RESTRICTED_LATEST, &pod),
        "allowPrivilegeEscalation != false (container \"x\" must set \
         securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container \"x\" must set \
         securityContext.capabilities.drop=[\"ALL\"]), runAsNonRoot != true (pod or container \"x\" must set \
         securityContext.runAsNonRoot=true), seccompProfile (pod or container \"x\" must set \
         securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
    assert_eq!(said(BASELINE_LATEST, &pod), "");
    assert_eq!(said(RESTRICTED_LATEST, &good()), "");
    let privileged = LevelVersion { level: Level::Privileged, version: Version::Latest };
    let bad = json!({"spec": {"hostPID": true, "containers": []}});
    assert_eq!(said(privileged, &bad), "");
}

/// One change to a good Pod, and what each level says of it.
#[test]
fn each_check_says_what_it_forbids() {
    let change = |change: Value| {
        let mut pod = good();
        json_merge(&mut pod, &change);
        pod
    };
    let container = |fields: Value| {
        let mut pod = good();
        json_merge(&mut pod["spec"]["containers"][0], &fields);
        pod
    };
    for (pod, baseline, restricted) in [
        (
            change(json!({"spec": {"hostNetwork": true, "hostIPC": true}})),
            "host namespaces (hostNetwork=true, hostIPC=true)",
            None,
        ),
        (
            change(json!({"spec": {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}})),
            "hostPath volumes (volume \"v\")",
            Some("restricted volume types (volume \"v\" uses restricted volume type \"hostPath\")"),
        ),
        (
            change(
                json!({"spec": {"volumes": [{"name": "v", "nfs": {}}, {"name": "w", "rbd": {}}, {"name": "ok", "emptyDir": {}}]}}),
            ),
            "",
            Some("restricted volume types (volumes \"v\", \"w\" use restricted volume types \"nfs\", \"rbd\")"),
        ),
        (
            container(json!({"ports": [{"hostPort": 80}, {"hostPort": 0}, {"hostPort": 443}]})),
            "hostPort (container \"a\" uses hostPorts 443, 80)",
            None,
        ),
        (
            container(json!({"livenessProbe": {"httpGet": {"host": "h"}}})),
            "probe or lifecycle host (container \"a\" uses probe or lifecycle host \"h\")",
            None,
        ),
        (
            container(json!({"securityContext": {"privileged": true}})),
            "privileged (container \"a\" must not set securityContext.privileged=true)",
            None,
        ),
        (
            container(json!({"securityContext": {"procMount": "Unmasked"}})),
            "procMount (container \"a\" must not set securityContext.procMount to \"Unmasked\")",
            None,
        ),
        (
            container(json!({"securityContext": {"capabilities": {"add": ["SYS_ADMIN", "CHOWN"]}}})),
            "non-default capabilities (container \"a\" must not include \"SYS_ADMIN\" in securityContext.capabilities.add)",
            Some(
                "unrestricted capabilities (container \"a\" must not include \"CHOWN\", \"SYS_ADMIN\" in securityContext.capabilities.add)",
            ),
        ),
        (
            change(json!({"spec": {"securityContext": {"seLinuxOptions": {"type": "x", "user": "u"}}}})),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"x\"; user may not be set)",
            None,
        ),
        (
            container(json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}})),
            "seccompProfile (container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\")",
            None,
        ),
        (
            change(
                json!({"spec": {"securityContext": {"sysctls": [{"name": "kernel.msgmax"}, {"name": "net.ipv4.tcp_wmem"}]}}}),
            ),
            "forbidden sysctls (kernel.msgmax)",
            None,
        ),
        (
            change(json!({"spec": {"securityContext": {"windowsOptions": {"hostProcess": true}}}})),
            "hostProcess (pod must not set securityContext.windowsOptions.hostProcess=true)",
            None,
        ),
        (
            change(
                json!({"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/a": "unconfined"}}}),
            ),
            "forbidden AppArmor profile (annotation must not set AppArmor profile type to \"container.apparmor.security.beta.kubernetes.io/a=\"unconfined\"\")",
            None,
        ),
        (
            change(json!({"spec": {"securityContext": {"runAsUser": 0}}})),
            "",
            Some("runAsUser=0 (pod must not set runAsUser=0)"),
        ),
        (
            container(json!({"securityContext": {"runAsNonRoot": false}})),
            "",
            Some("runAsNonRoot != true (container \"a\" must not set securityContext.runAsNonRoot=false)"),
        ),
    ] {
        assert_eq!(said(BASELINE_LATEST, &pod), baseline);
        assert_eq!(said(RESTRICTED_LATEST, &pod), restricted.unwrap_or(baseline));
    }
}

#[test]
fn versions_are_as_strict_as_they_were() {
    let with_probe = json!({"spec": {"containers": [{"name": "a", "startupProbe": {"tcpSocket": {"host": "h"}}}]}});
    assert_eq!(said(at(BASELINE_LATEST, 33), &with_probe), "");
    assert!(!said(at(BASELINE_LATEST, 34), &with_probe).is_empty());
    let mut root = good();
    root["spec"]["hostUsers"] = json!(false);
    root["spec"]["containers"][0]["securityContext"]["runAsUser"] = json!(0);
    assert_eq!(said(at(RESTRICTED_LATEST, 22), &root), "");
    assert!(said(at(RESTRICTED_LATEST, 23), &root).contains("runAsUser=0"));
    assert_eq!(said(at(RESTRICTED_LATEST, 35), &root), "", "root of a user namespace is nobody");
    let mut windows = json!({"spec": {"os": {"name": "windows"}, "containers": [{"name": "a"}]}});
    assert!(said(at(RESTRICTED_LATEST, 24), &windows).contains("allowPrivilegeEscalation"));
    windows["spec"]["securityContext"] = json!({"runAsNonRoot": true});
    assert_eq!(said(RESTRICTED_LATEST, &windows), "");
    let old = json!({"metadata": {"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined"}}});
    assert!(said(at(BASELINE_LATEST, 18), &old).contains("forbidden annotation seccomp"));
    assert_eq!(said(at(BASELINE_LATEST, 19), &old), "");
}

#[test]
fn labels_say_what_is_refused_and_warned_of() {
    let (policy, errors) = Policy::default().of_labels(&json!({"a": "b"}));
    assert!(policy.is_privileged() && errors.is_empty());
    let labels = json!({
        "pod-security.kubernetes.io/enforce": "baseline", "pod-security.kubernetes.io/enforce-version": "v1.30",
        "pod-security.kubernetes.io/audit": "restricted",
    });
    let (policy, errors) = Policy::default().of_labels(&labels);
    assert!(errors.is_empty());
    let shown = [policy.enforce, policy.audit, policy.warn].map(|one| one.to_string());
    assert_eq!(shown, ["baseline:v1.30", "restricted:latest", "baseline:v1.30"]);
    let wrong = json!({"pod-security.kubernetes.io/enforce": "x", "pod-security.kubernetes.io/warn-version": "v1.01"});
    let (policy, errors) = Policy::default().of_labels(&wrong);
    assert_eq!((policy.enforce.level, policy.warn.level), (Level::Restricted, Level::Privileged));
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: \"x\": must be one of privileged, \
             baseline, restricted",
            "metadata.labels[pod-security.kubernetes.io/warn-version]: Invalid value: \"v1.01\": must be \"latest\" or \
             \"v1.x\"",
        ]
    );
    let (policy, _) = Policy::default().of_labels(&labels);
    assert_eq!(
        policy.exempt_warning("n", &labels, &Policy::default()).unwrap(),
        "namespace \"n\" is exempt from Pod Security, and the policy (enforce=baseline:v1.30, \
         audit=restricted:latest) will be ignored"
    );
}

fn json_merge(to: &mut Value, change: &Value) {
    match (to, change) {
        (Value::Object(to), Value::Object(change)) => {
            for (key, value) in change {
                json_merge(to.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
        (to, change) => *to = change.clone(),
    }
}
