//! What bad input gets.

use std::process::Command;

use super::{SOON, stage};
use crate::support::cluster::{CLUSTER, Node};
use crate::support::hosts::Lan;
use crate::support::{both, images, until};

#[test]
fn wrong_flags_and_keys_are_named() {
    let said = |args: &[&str]| {
        let output = Command::new(CLUSTER).args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", both(&output));
        both(&output)
    };
    let text = said(&["server", "--node-nmae=x"]);
    assert!(text.contains("--node-nmae") && text.contains("--node-name"), "{text}");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.yaml");
    std::fs::write(&file, "cluster-cdir: 10.0.0.0/16\n").unwrap();
    let text = said(&["server", "--config", file.to_str().unwrap()]);
    assert!(text.contains("\"cluster-cdir\"") && text.contains("\"cluster-cidr\""), "{text}");
}

#[test]
fn a_port_in_use_is_said_before_anything_is_written() {
    let lan = Lan::new();
    let host = lan.host("one", 1);
    let mut taken = host.command("socat").args(["TCP-LISTEN:6443,fork", "EXEC:true"]).spawn().unwrap();
    until("the port is taken", SOON, || {
        host.command("socat").args(["-u", "OPEN:/dev/null", "TCP:127.0.0.1:6443"]).status().unwrap().success()
    });
    let mut server = Node::server(&host);
    server.spawn();
    let said = server.refusal();
    taken.kill().unwrap();
    taken.wait().unwrap();
    assert!(said.contains("port 6443 is in use"), "{said}");
    assert!(!server.path("data").exists() && !server.path("run").exists(), "nothing is written");
}

#[test]
fn bad_manifests_name_the_field() {
    let stage = stage();
    let server = &stage.server;
    let file = server.path("bad.yaml");
    let apply = |text: &str| {
        std::fs::write(&file, text).unwrap();
        server.kubectl_fails(&["apply", "-f", file.to_str().unwrap()])
    };
    let pod = |spec: &str| format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: bad}}\nspec: {spec}\n");
    let said = apply(&pod("{containers: [{name: main, image: x, prots: []}]}"));
    assert!(said.contains("unknown field \"spec.containers[0].prots\""), "{said}");
    let said = apply(&pod("{containers: [{name: Main, image: x}]}"));
    assert!(said.contains("spec.containers[0].name: Invalid value: \"Main\""), "{said}");
    let said = apply(&pod("{containers: []}"));
    assert!(said.contains("spec.containers: Required value"), "{said}");
    let said = apply(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bad}\nspec:\n  selector: {matchLabels: {a: b}}\n  \
         template: {metadata: {labels: {a: c}}, spec: {containers: [{name: main, image: x}]}}\n",
    );
    assert!(
        said.contains("spec.template.metadata.labels: Invalid value") && said.contains("`selector` does not match"),
        "{said}"
    );
    let said = apply("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bad}\nspec: {replicas: three}\n");
    assert!(said.contains("cannot unmarshal string into Go struct field") || said.contains("invalid type"), "{said}");
}

#[test]
fn a_corrupt_layer_is_said_in_the_pods_events() {
    let stage = stage();
    let server = &stage.server;
    let image = images::nginx("corrupt\n");
    stage.registry.push("library/nginx:1", &image);
    stage.registry.corrupt(&image.layer);
    server.kubectl(&["run", "web", "--image=nginx:1"]);
    until("the pod's event names the digest", SOON, || {
        let said = server.kubectl(&["describe", "pod", "web"]);
        said.contains("digest mismatch") && said.contains(&images::digest(&image.layer))
    });
    let store = server.path("data/agent/images-store/tmp");
    until("nothing half-unpacked is left", SOON, || {
        std::fs::read_dir(&store).map_or(0, |entries| entries.count()) == 0
    });
}
