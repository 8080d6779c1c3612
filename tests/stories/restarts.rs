//! What is killed comes back, and what is not killed goes on.

use super::{SOON, stage};
use crate::support::{images, run, until};

#[test]
fn containers_and_services_outlive_the_process() {
    let mut stage = stage();
    stage.registry.push("library/nginx:1", &images::nginx("here\n"));
    let outside = stage.lan.host("outside", 99);
    let server = &mut stage.server;
    server.kubectl(&["create", "deployment", "web", "--image=nginx:1", "--replicas=2"]);
    server.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
    server.kubectl(&["expose", "deployment", "web", "--port=80", "--type=NodePort"]);
    let port = server.kubectl(&["get", "service", "web", "-o", "jsonpath={.spec.ports[0].nodePort}"]);
    let url = format!("http://{}:{port}", server.host.ip);
    let answers = || {
        let output = outside.command("curl").args(["-sS", "--max-time", "3", &url]).output().unwrap();
        output.stdout == b"here\n"
    };
    until("the Service answers", SOON, answers);
    let pids = || {
        let mut pids: Vec<String> =
            run(outside.command("pgrep").args(["-f", "nginx: master"])).lines().map(str::to_owned).collect();
        pids.sort();
        pids
    };
    let before = pids();
    let uids = |server: &crate::support::cluster::Node| {
        server.kubectl(&[
            "get",
            "pods",
            "-o",
            "jsonpath={.items[*].metadata.uid} {.items[*].status.containerStatuses[0].restartCount}",
        ])
    };
    let pods_before = uids(server);

    server.kubectl(&["create", "configmap", "written", "--from-literal=just=now"]);
    server.kill();
    for _ in 0..10 {
        assert!(answers(), "the Service goes on without the process");
    }
    assert_eq!(pids(), before);
    server.spawn();
    server.wait_ready();
    assert_eq!(server.kubectl(&["get", "configmap", "written", "-o", "jsonpath={.data.just}"]), "now");
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert_eq!(pids(), before, "the containers are adopted");
    assert_eq!(uids(server), pods_before);
    assert!(answers());

    // A container's process that is killed is started again, as the pod's policy says.
    run(outside.command("kill").args(["-9", &before[0]]));
    until("the container is restarted", SOON, || {
        server
            .kubectl(&["get", "pods", "-o", "jsonpath={.items[*].status.containerStatuses[0].restartCount}"])
            .contains('1')
    });
    server.kubectl(&["rollout", "status", "deployment/web", "--timeout=60s"]);
}

#[test]
fn every_acknowledged_write_is_there_after_kill() {
    let mut stage = stage();
    let server = &mut stage.server;
    let mut expected = Vec::new();
    for round in 0..3 {
        for number in 0..10 {
            let name = format!("w-{round}-{number}");
            server.kubectl(&["create", "configmap", &name]);
            expected.push(name);
        }
        server.kill();
        server.spawn();
        server.wait_ready();
        let found = server.kubectl(&["get", "configmaps", "-o", "jsonpath={.items[*].metadata.name}"]);
        let found: Vec<&str> = found.split(' ').collect();
        assert!(expected.iter().all(|name| found.contains(&name.as_str())), "{found:?}");
    }
}
