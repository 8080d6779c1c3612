//! kubectl, unmodified: every verb that people use.

use std::io::{Read, Write};
use std::process::Stdio;

use super::{SOON, stage};
use crate::support::{both, until};

#[test]
fn every_verb() {
    let stage = stage();
    let server = &stage.server;

    assert!(server.kubectl(&["version"]).contains("Server Version: v1.36."));
    assert!(server.kubectl(&["cluster-info"]).contains("is running at"));
    let resources = server.kubectl(&["api-resources"]);
    for line in ["pods", "deployments", "endpointslices", "customresourcedefinitions"] {
        assert!(resources.contains(line), "{resources}");
    }
    assert!(server.kubectl(&["explain", "deployment.spec.strategy"]).contains("rollingUpdate"));
    assert_eq!(server.kubectl(&["auth", "can-i", "delete", "nodes"]).trim(), "yes");
    let cannot = server.kubectl_output(&["auth", "can-i", "delete", "nodes", "--as=somebody"]);
    assert_eq!((String::from_utf8_lossy(&cannot.stdout).trim(), cannot.status.success()), ("no", false));

    // create, label, annotate, get in all forms
    server.kubectl(&["create", "namespace", "shop"]);
    server.kubectl(&["create", "configmap", "settings", "--from-literal=colour=blue", "-n", "shop"]);
    server.kubectl(&["create", "secret", "generic", "login", "--from-literal=user=bob", "-n", "shop"]);
    server.kubectl(&["label", "configmap", "settings", "tier=front", "-n", "shop"]);
    server.kubectl(&["annotate", "configmap", "settings", "note=hello", "-n", "shop"]);
    let get = |form: &str| server.kubectl(&["get", "configmap", "settings", "-n", "shop", "-o", form]);
    assert!(get("json").contains("\"colour\": \"blue\"") && get("yaml").contains("colour: blue"));
    assert_eq!(get("name"), "configmap/settings\n");
    assert!(get("wide").contains("settings"));
    assert_eq!(get("jsonpath={.metadata.annotations.note}"), "hello");
    assert!(get("custom-columns=N:.metadata.name,T:.metadata.labels.tier").contains("settings   front"));
    assert_eq!(get("go-template={{.data.colour}}"), "blue");
    assert!(server.kubectl(&["get", "cm", "-n", "shop", "-l", "tier=front", "--show-labels"]).contains("tier=front"));
    assert!(server.kubectl(&["get", "secrets", "-A", "--field-selector=metadata.name=login"]).contains("shop"));

    // apply, client side and server side
    let deployment = |replicas: u32| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: sleepers, namespace: shop}}\nspec:\n  replicas: {replicas}\n  \
             selector: {{matchLabels: {{app: sleepers}}}}\n  template:\n    metadata: {{labels: {{app: sleepers}}}}\n    spec:\n      \
             terminationGracePeriodSeconds: 1\n      containers:\n      - {{name: main, image: 'busybox:1', command: [sleep, '3600']}}\n"
        )
    };
    assert!(server.apply(&deployment(1)).contains("created"));
    assert!(server.apply(&deployment(1)).contains("unchanged"));
    assert!(server.apply(&deployment(2)).contains("configured"));
    // kubectl hands the fields that it applied before over to server-side apply, so this is no conflict; what somebody
    // scaled meanwhile is one.
    let file = server.path("server-side.yaml");
    std::fs::write(&file, deployment(3)).unwrap();
    let apply = ["apply", "--server-side", "-f", file.to_str().unwrap()];
    assert!(server.kubectl(&apply).contains("serverside-applied"));
    server.kubectl(&["scale", "deployment/sleepers", "--replicas=2", "-n", "shop"]);
    let conflict = server.kubectl_fails(&apply);
    assert!(conflict.contains("conflict with \"kubectl\"") && conflict.contains(".spec.replicas"), "{conflict}");
    assert!(server.kubectl(&[&apply[..], &["--force-conflicts"]].concat()).contains("serverside-applied"));

    // rollout, scale, edit, patch
    let shop = |args: &[&str]| server.kubectl(&[&["-n", "shop"], args].concat());
    shop(&["rollout", "status", "deployment/sleepers", "--timeout=60s"]);
    shop(&["scale", "deployment/sleepers", "--replicas=1"]);
    shop(&["rollout", "restart", "deployment/sleepers"]);
    shop(&["rollout", "status", "deployment/sleepers", "--timeout=60s"]);
    let mut edit = server.kubectl_command(&["edit", "deployment/sleepers", "-n", "shop"]);
    let edited = edit.env("KUBE_EDITOR", "sed -i 's/replicas: 1/replicas: 2/'").output().unwrap();
    assert!(edited.status.success(), "{}", both(&edited));
    assert_eq!(shop(&["get", "deployment", "sleepers", "-o", "jsonpath={.spec.replicas}"]), "2");
    shop(&["patch", "deployment", "sleepers", "-p", r#"{"spec":{"replicas":1}}"#]);
    shop(&[
        "patch",
        "deployment",
        "sleepers",
        "--type=json",
        "-p",
        r#"[{"op":"replace","path":"/spec/replicas","value":1}]"#,
    ]);
    assert!(shop(&["describe", "deployment", "sleepers"]).contains("ScalingReplicaSet"));
    assert!(server.kubectl(&["describe", "node", "one"]).contains("Allocated resources"));

    // run, wait, logs, exec, attach, cp, port-forward
    let script = "echo ready > /tmp/state; for i in 1 2 3; do echo line $i; sleep 1; done; sleep 3600";
    shop(&["run", "talker", "--image=busybox:1", "--restart=Never", "--", "sh", "-c", script]);
    shop(&["wait", "--for=condition=Ready", "pod/talker", "--timeout=60s"]);
    until("the log has all lines", SOON, || shop(&["logs", "talker"]) == "line 1\nline 2\nline 3\n");
    assert_eq!(shop(&["logs", "talker", "--tail=1"]), "line 3\n");
    assert!(shop(&["logs", "talker", "--timestamps"]).starts_with("20"));
    let mut follow =
        server.kubectl_command(&["logs", "-f", "talker", "-n", "shop"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut first = [0; 7];
    follow.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    follow.kill().unwrap();
    follow.wait().unwrap();
    assert_eq!(&first, b"line 1\n");

    assert_eq!(shop(&["exec", "talker", "--", "cat", "/tmp/state"]), "ready\n");
    let failed = server.kubectl_output(&["exec", "talker", "-n", "shop", "--", "sh", "-c", "exit 7"]);
    assert_eq!(failed.status.code(), Some(7), "{}", both(&failed));
    let mut exec = server.kubectl_command(&["exec", "-i", "talker", "-n", "shop", "--", "wc", "-c"]);
    let mut exec = exec.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    exec.stdin.take().unwrap().write_all(&[b'x'; 100_000]).unwrap();
    assert_eq!(String::from_utf8(exec.wait_with_output().unwrap().stdout).unwrap().trim(), "100000");
    // A terminal, made by script(1).
    let kubectl = server.kubectl_command(&["exec", "-it", "talker", "-n", "shop", "--", "tty"]);
    let line: Vec<String> = kubectl.get_args().skip(2).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let typed = server.host.command("script").args(["-qec", &line.join(" "), "/dev/null"]).output().unwrap();
    assert!(both(&typed).contains("/dev/pts/"), "{}", both(&typed));

    let local = server.path("copied");
    std::fs::write(&local, "there and back").unwrap();
    let local = local.to_str().unwrap();
    shop(&["cp", local, "talker:/tmp/copied"]);
    std::fs::remove_file(local).unwrap();
    shop(&["cp", "talker:/tmp/copied", local]);
    assert_eq!(std::fs::read_to_string(local).unwrap(), "there and back");

    server.apply(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: listener, namespace: shop}\nspec:\n  containers:\n  - name: main\n    image: busybox:1\n    \
         stdin: true\n    command: [sh, -c, 'httpd -f -p 8080 -h /etc & while read line; do echo got $line; done']\n",
    );
    shop(&["wait", "--for=condition=Ready", "pod/listener", "--timeout=60s"]);
    let mut attach = server.kubectl_command(&["attach", "-i", "listener", "-n", "shop"]);
    let mut attach = attach.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    attach.stdin.as_mut().unwrap().write_all(b"hello\n").unwrap();
    let mut heard = [0; 10];
    attach.stdout.as_mut().unwrap().read_exact(&mut heard).unwrap();
    attach.kill().unwrap();
    attach.wait().unwrap();
    assert_eq!(&heard, b"got hello\n");

    let mut forward = server.kubectl_command(&["port-forward", "pod/listener", "18080:8080", "-n", "shop"]);
    let mut forward = forward.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    until("port-forward answers", SOON, || {
        let curl =
            server.host.command("curl").args(["-s", "--max-time", "5", "http://127.0.0.1:18080/passwd"]).output();
        String::from_utf8_lossy(&curl.unwrap().stdout).starts_with("root:")
    });
    forward.kill().unwrap();
    forward.wait().unwrap();

    // events, cordon, drain, delete
    assert!(shop(&["events"]).contains("Scheduled"));
    server.kubectl(&["cordon", "one"]);
    assert!(server.kubectl(&["get", "nodes"]).contains("SchedulingDisabled"));
    server.kubectl(&["drain", "one", "--ignore-daemonsets", "--force", "--delete-emptydir-data", "--timeout=90s"]);
    server.kubectl(&["uncordon", "one"]);
    shop(&["rollout", "status", "deployment/sleepers", "--timeout=60s"]);
    server.kubectl(&["delete", "namespace", "shop", "--timeout=90s"]);
    assert!(server.kubectl_fails(&["get", "namespace", "shop"]).contains("not found"));
}
