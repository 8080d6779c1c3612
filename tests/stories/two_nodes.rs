//! A second machine joins; pods on both reach each other.

use super::{SOON, stage};
use crate::support::cluster::Node;
use crate::support::{both, images, until_is};

#[test]
fn pods_on_two_nodes_reach_each_other_and_services() {
    let stage = stage();
    let server = &stage.server;
    stage.registry.push("library/nginx:1", &images::nginx("across\n"));
    let agent = Node::agent(&stage.lan.host("two", 2), server);
    std::fs::write(agent.path("registries.yaml"), stage.registry.registries_yaml()).unwrap();
    let agent = agent.start();
    assert!(server.kubectl(&["get", "nodes"]).lines().filter(|line| line.contains(" Ready ")).count() == 2);

    server.apply(
        r#"
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeSelector: {kubernetes.io/hostname: one}
  containers: [{name: main, image: 'nginx:1'}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: far}
spec:
  nodeSelector: {kubernetes.io/hostname: two}
  terminationGracePeriodSeconds: 1
  containers: [{name: main, image: 'busybox:1', command: [sleep, '3600']}]
"#,
    );
    server.kubectl(&["wait", "--for=condition=Ready", "pod/web", "pod/far", "--timeout=60s"]);
    let ip = server.kubectl(&["get", "pod", "web", "-o", "jsonpath={.status.podIP}"]);
    let fetch = |host: &str| {
        let url = format!("http://{host}");
        let args = ["exec", "far", "--", "timeout", "5", "wget", "-q", "-O-", &url];
        both(&server.kubectl_output(&args))
    };
    until_is("the pod answers across the overlay", SOON, "across\n", || fetch(&ip));
    until_is("the Service answers by name", SOON, "across\n", || fetch("web"));

    // The node goes silent and comes back.
    server.kubectl(&["delete", "pod", "far"]);
    drop(agent);
    server.kubectl(&["delete", "node", "two"]);
}

#[test]
fn a_wrong_token_is_refused() {
    let stage = stage();
    let token = stage.server.token();
    let host = stage.lan.host("two", 2);
    let (hash, secret) = token.trim_start_matches("K10").split_once("::node:").unwrap();

    let mut wrong = Node::agent_with_token(&host, &stage.server, &format!("K10{}::node:{secret}", "0".repeat(64)));
    wrong.spawn();
    let said = wrong.refusal();
    assert!(said.contains("belongs to another cluster") && said.contains(hash), "{said}");
    drop(wrong);

    let mut wrong = Node::agent_with_token(&host, &stage.server, &format!("K10{hash}::node:guessed"));
    wrong.spawn();
    let said = wrong.refusal();
    assert!(said.contains("the server refused the token"), "{said}");
}
