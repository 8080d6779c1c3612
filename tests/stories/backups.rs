//! A cluster is saved, its machine is lost, and another machine goes on.

use std::process::Command;

use super::{SOON, stage};
use crate::support::cluster::Node;
use crate::support::{both, run, until};

const PASSPHRASE: (&str, &str) = ("CLUSTER_SNAPSHOT_PASSPHRASE", "correct horse");

fn snapshot(node: &Node, args: &[&str]) -> Command {
    let mut command = node.cluster();
    command.env(PASSPHRASE.0, PASSPHRASE.1).arg("snapshot").args(args).args(node.directories());
    command
}

#[test]
fn a_lost_machine_is_replaced() {
    let mut stage = stage();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("shed.clusterbackup");
    let file = file.to_str().unwrap();
    let server = &mut stage.server;
    server.kubectl(&["create", "secret", "generic", "kept", "--from-literal=word=hush"]);
    server.kubectl(&["create", "deployment", "web", "--image=busybox:1", "--", "sleep", "3600"]);
    server.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    let token = server.token();

    let unsealed = snapshot(server, &["save", file]).env_remove(PASSPHRASE.0).output().unwrap();
    assert!(!unsealed.status.success() && both(&unsealed).contains("--passphrase-file"), "{}", both(&unsealed));
    let said = run(&mut snapshot(server, &["save", file]));
    assert!(said.contains("saved revision"), "{said}");
    let again = snapshot(server, &["save", file]).output().unwrap();
    assert!(both(&again).contains("is there already"), "{}", both(&again));
    let bytes = std::fs::read(file).unwrap();
    assert!(!bytes.windows(4).any(|window| window == b"hush"), "Secrets are sealed");
    for _ in 0..2 {
        run(&mut snapshot(server, &["save"]));
        // Their names tell seconds apart.
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
    let listed = run(&mut snapshot(server, &["list"]));
    assert_eq!(listed.lines().count(), 3, "{listed}");
    let pruned = run(&mut snapshot(server, &["prune", "--etcd-snapshot-retention=1"]));
    assert_eq!(pruned.lines().count(), 1, "{pruned}");
    server.kubectl(&["create", "configmap", "later"]);
    let running = snapshot(server, &["restore", file]).output().unwrap();
    assert!(both(&running).contains("cluster runs here"), "{}", both(&running));
    server.kill();

    let mut spare = Node::server(&stage.lan.host("two", 2));
    std::fs::write(spare.path("registries.yaml"), stage.registry.registries_yaml()).unwrap();
    let wrong = snapshot(&spare, &["restore", file]).env(PASSPHRASE.0, "wrong").output().unwrap();
    assert!(!wrong.status.success() && both(&wrong).contains("the passphrase is another one"), "{}", both(&wrong));
    let damaged = dir.path().join("damaged");
    let mut changed = bytes.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    std::fs::write(&damaged, changed).unwrap();
    assert!(!snapshot(&spare, &["restore", damaged.to_str().unwrap()]).output().unwrap().status.success());
    assert!(!spare.path("data/server").exists(), "nothing is left of what failed");
    let said = run(&mut snapshot(&spare, &["restore", file]));
    assert!(said.contains("as they were on one at"), "{said}");
    let twice = snapshot(&spare, &["restore", file]).output().unwrap();
    assert!(both(&twice).contains("a server has run here"), "{}", both(&twice));

    spare.spawn();
    spare.wait_ready();
    assert_eq!(spare.token(), token, "nodes join as before");
    let word = spare.kubectl(&["get", "secret", "kept", "-o", "jsonpath={.data.word}"]);
    assert_eq!(word, "aHVzaA==");
    assert!(spare.kubectl_fails(&["get", "configmap", "later"]).contains("not found"));
    // Who knows that the machine is lost for good need not wait until its pods are given up.
    spare.kubectl(&["delete", "node", "one"]);
    spare.kubectl(&["delete", "pods", "-l", "app=web", "--force", "--grace-period=0"]);
    until("the deployment is here", SOON, || {
        spare.kubectl(&[
            "get",
            "pods",
            "-l",
            "app=web",
            "-o",
            "jsonpath={.items[*].spec.nodeName} {.items[*].status.phase}",
        ]) == "two Running"
    });
}
