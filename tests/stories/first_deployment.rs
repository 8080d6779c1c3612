//! Three replicas of nginx from the registry behind a Service: found by name from a pod, by node port from another host,
//! rolled to a new image and back.

use super::{SOON, stage};
use crate::support::{images, run, until};

#[test]
fn three_replicas_behind_a_service_are_rolled_and_rolled_back() {
    let stage = stage();
    let (server, registry) = (&stage.server, &stage.registry);
    registry.push("library/nginx:1", &images::nginx("first\n"));
    registry.push("library/nginx:2", &images::nginx("second\n"));

    server.kubectl(&["create", "deployment", "web", "--image=nginx:1", "--replicas=3"]);
    server.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    server.kubectl(&["expose", "deployment", "web", "--port=80", "--type=NodePort"]);
    let port = server.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}"]);

    server.kubectl(&["run", "client", "--image=busybox:1", "--restart=Never", "--", "sleep", "3600"]);
    server.kubectl(&["wait", "--for=condition=Ready", "pod/client", "--timeout=60s"]);
    let by_name = || {
        let args = ["exec", "client", "--", "wget", "-q", "-O-", "-T", "3", "http://web.default.svc.cluster.local"];
        String::from_utf8_lossy(&server.kubectl_output(&args).stdout).into_owned()
    };
    until("the Service answers by name", SOON, || by_name() == "first\n");

    let outside = stage.lan.host("outside", 99);
    let url = format!("http://{}:{port}", server.host.ip);
    let by_port = || run(outside.command("curl").args(["-sSf", "--max-time", "5", &url]));
    until("the Service answers by node port", SOON, || by_port() == "first\n");

    server.kubectl(&["set", "image", "deployment/web", "nginx=nginx:2"]);
    server.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    until("the new image answers", SOON, || by_name() == "second\n");
    let history = server.kubectl(&["rollout", "history", "deployment/web"]);
    assert!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");
    server.kubectl(&["rollout", "undo", "deployment/web"]);
    server.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    until("the old image answers again", SOON, || by_name() == "first\n");

    server.kubectl(&["delete", "deployment,service", "web"]);
    until("the pods go with their Deployment", SOON, || {
        server.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"]).is_empty()
    });
}
