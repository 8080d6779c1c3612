//! Three replicas of nginx from the registry behind a Service: found by name from a pod, by node port from another host,
//! rolled to a new image and back.

use super::{SOON, stage};
use crate::support::{both, images, until, until_is};

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
        let args =
            ["exec", "client", "--", "timeout", "5", "wget", "-q", "-O-", "http://web.default.svc.cluster.local"];
        both(&server.kubectl_output(&args))
    };
    until_is("the Service answers by name", SOON, "first\n", by_name);

    let outside = stage.lan.host("outside", 99);
    let url = format!("http://{}:{port}", server.host.ip);
    let by_port = || both(&outside.command("curl").args(["-sSf", "--max-time", "5", &url]).output().unwrap());
    until_is("the Service answers by node port", SOON, "first\n", by_port);

    server.kubectl(&["set", "image", "deployment/web", "nginx=nginx:2"]);
    server.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    until_is("the new image answers", SOON, "second\n", by_name);
    let history = server.kubectl(&["rollout", "history", "deployment/web"]);
    assert!(history.contains("\n1 ") && history.contains("\n2 "), "{history}");
    server.kubectl(&["rollout", "undo", "deployment/web"]);
    server.kubectl(&["rollout", "status", "deployment/web", "--timeout=90s"]);
    until_is("the old image answers again", SOON, "first\n", by_name);

    server.kubectl(&["delete", "deployment,service", "web"]);
    until("the pods go with their Deployment", SOON, || {
        server.kubectl(&["get", "pods", "-l", "app=web", "-o", "name"]).is_empty()
    });
}
