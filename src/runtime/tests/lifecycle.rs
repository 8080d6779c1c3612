//! Starting, stopping, surviving and removing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cri::v1;
use futures::StreamExt;

use crate::node::{Node, leftovers, security, shell};

fn group(node: &Node, controller: &str, container: &str) -> PathBuf {
    PathBuf::from("/sys/fs/cgroup")
        .join(controller)
        .join(node.cgroup().trim_start_matches('/'))
        .join("pod")
        .join(container)
}

async fn stop(node: &mut Node, id: &str, timeout: i64) -> Duration {
    let start = Instant::now();
    node.runtime.stop_container(v1::StopContainerRequest { container_id: id.into(), timeout }).await.unwrap();
    start.elapsed()
}

#[tokio::test]
async fn stopping_asks_and_then_insists() {
    let mut node = Node::start().await;
    let of = node.pod("pod");
    let pod = node.run_pod(&of).await;
    let polite =
        node.run_container(&pod, shell("trap 'exit 5' TERM; echo up; while :; do sleep 0.05; done"), &of).await;
    let stubborn = shell("trap '' TERM; while :; do sleep 0.05; done");
    let stubborn = node.run_container(&pod, v1::ContainerConfig { log_path: String::new(), ..stubborn }, &of).await;
    while !node.log("c.log").contains("up") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(stop(&mut node, &polite, 10).await < Duration::from_secs(5));
    assert_eq!(node.status(&polite).await.exit_code, 5);
    let took = stop(&mut node, &stubborn, 1).await;
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(node.status(&stubborn).await.exit_code, 137);
    // Once more, and one that never was.
    stop(&mut node, &stubborn, 1).await;
    stop(&mut node, "nonesuch", 1).await;
    node.remove_pod(&pod).await;
    node.remove_pod(&pod).await;
    assert_eq!(leftovers(node.dir.path(), &node.cgroup()), Vec::<String>::new());
}

#[tokio::test]
async fn containers_outlive_the_server() {
    let mut node = Node::start().await;
    let of = node.pod("pod");
    let pod = node.run_pod(&of).await;
    let long = node.run_container(&pod, shell("while :; do echo tick; sleep 0.05; done"), &of).await;
    let brief = v1::ContainerConfig { log_path: "brief.log".into(), ..shell("sleep 0.5; exit 9") };
    let brief = node.run_container(&pod, brief, &of).await;
    let waiting = node.create(&pod, shell("exit 4"), &of).await.unwrap();
    let pid = node.pid(&long).await;
    let lines = node.log("c.log").lines().count();
    node.kill_and_restart().await;
    assert_eq!(node.status(&long).await.state(), v1::ContainerState::ContainerRunning);
    assert_eq!(node.pid(&long).await, pid, "adopted with the same process");
    assert_eq!(node.ended(&brief).await.exit_code, 9);
    assert_eq!(node.exec(&long, "echo still").await.unwrap().1, "still\n");
    node.start_container(&waiting).await.unwrap();
    assert_eq!(node.ended(&waiting).await.exit_code, 4);
    assert!(node.log("c.log").lines().count() > lines, "the log went on");
    let status = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: false };
    let status = node.runtime.pod_sandbox_status(status).await.unwrap().into_inner().status.unwrap();
    assert_eq!(status.state(), v1::PodSandboxState::SandboxReady);
    assert_eq!(status.network.unwrap().ip, "192.0.2.7");
    node.remove_pod(&pod).await;
    assert_eq!(leftovers(node.dir.path(), &node.cgroup()), Vec::<String>::new());
}

#[tokio::test]
async fn a_lost_shim_ends_its_containers() {
    let mut node = Node::start().await;
    let (pod, id) = node.run(shell("sleep 1000")).await;
    let pid = node.pid(&id).await;
    let shim = nix::unistd::Pid::from_raw(shim(&mut node, &pod).await);
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGKILL).unwrap();
    let status = node.ended(&id).await;
    assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
    assert!(!fs::exists(format!("/proc/{pid}/root/bin")).unwrap(), "its process is gone");
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: false };
    let status = node.runtime.pod_sandbox_status(request).await.unwrap().into_inner().status.unwrap();
    assert_eq!(status.state(), v1::PodSandboxState::SandboxNotready);
    node.remove_pod(&pod).await;
    assert_eq!(leftovers(node.dir.path(), &node.cgroup()), Vec::<String>::new());
}

async fn shim(node: &mut Node, pod: &str) -> i32 {
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: true };
    let info = node.runtime.pod_sandbox_status(request).await.unwrap().into_inner().info;
    let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
    info["pid"].as_i64().unwrap() as i32
}

/// The groups of a process in the hierarchies that are mounted, each once.
fn groups_of(pid: i32) -> Vec<String> {
    let dir = Path::new("/sys/fs/cgroup");
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let mut found = Vec::new();
    for line in text.lines() {
        let [_, names, path] = line.splitn(3, ':').collect::<Vec<_>>().try_into().unwrap();
        let is_mounted = match names {
            "" => dir.join("unified").exists() || dir.join("cgroup.controllers").exists(),
            names => dir.join(names.trim_start_matches("name=")).exists(),
        };
        if is_mounted && !found.iter().any(|known| known == path) {
            found.push(path.to_owned());
        }
    }
    found
}

#[tokio::test]
async fn a_shim_is_in_a_group_of_its_own() {
    let mut node = Node::start().await;
    let (pod, id) = node.run(shell("sleep 1000")).await;
    let parent = format!("{}/pod", node.cgroup());
    let shim = shim(&mut node, &pod).await;
    assert_eq!(groups_of(shim), [format!("{parent}/{pod}")], "in every hierarchy, whatever the server is in");
    assert_eq!(groups_of(node.pid(&id).await), [format!("{parent}/{id}")]);
    node.remove_pod(&pod).await;
    assert_eq!(leftovers(node.dir.path(), &node.cgroup()), Vec::<String>::new());
}

#[tokio::test]
async fn teardown_finds_a_shim_that_no_record_tells_of() {
    let mut node = Node::start().await;
    let (pod, id) = node.run(shell("sleep 1000")).await;
    let pids = [shim(&mut node, &pod).await, node.pid(&id).await];
    fs::remove_dir_all(node.dir.path().join("containers")).unwrap();
    assert!(node.tear_down());
    for pid in pids {
        assert!(!fs::exists(format!("/proc/{pid}/root/bin")).unwrap());
    }
    assert_eq!(leftovers(node.dir.path(), &node.cgroup()), Vec::<String>::new());
}

#[tokio::test]
async fn a_shim_that_is_terminated_ends_its_containers_in_order() {
    let mut node = Node::start().await;
    let of = node.pod("pod");
    let pod = node.run_pod(&of).await;
    let script = |on: &str| shell(&format!("{on}; echo up; while :; do sleep 0.05; done"));
    let polite = node.run_container(&pod, script("trap 'echo over; exit 5' TERM"), &of).await;
    let own = v1::ContainerConfig {
        log_path: "own.log".into(),
        stop_signal: v1::Signal::Sigusr1 as i32,
        ..script("trap 'exit 6' USR1; trap '' TERM")
    };
    let own = node.run_container(&pod, own, &of).await;
    let stubborn = v1::ContainerConfig { log_path: "stubborn.log".into(), ..script("trap '' TERM") };
    let stubborn = node.run_container(&pod, stubborn, &of).await;
    for log in ["c.log", "own.log", "stubborn.log"] {
        while !node.log(log).contains("up") {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let shim = nix::unistd::Pid::from_raw(shim(&mut node, &pod).await);
    nix::sys::signal::kill(shim, nix::sys::signal::Signal::SIGTERM).unwrap();
    assert_eq!(node.ended(&polite).await.exit_code, 5);
    assert_eq!(node.ended(&own).await.exit_code, 6);
    assert!(node.log("c.log").ends_with("over\n"));
    assert_eq!(node.status(&stubborn).await.state(), v1::ContainerState::ContainerRunning, "it has its time");
    let start = Instant::now();
    while fs::exists(format!("/proc/{shim}")).unwrap() {
        assert!(start.elapsed() < Duration::from_secs(60), "the shim does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(node.ended(&stubborn).await.exit_code, 137);
    // As after a reboot: what is on disk counts.
    node.kill_and_restart().await;
    for (id, code) in [(&polite, 5), (&own, 6), (&stubborn, 137)] {
        assert_eq!(node.status(id).await.exit_code, code);
    }
    node.remove_pod(&pod).await;
    assert_eq!(leftovers(node.dir.path(), &node.cgroup()), Vec::<String>::new());
}

#[tokio::test]
async fn limits_are_set_changed_and_felt() {
    let mut node = Node::start().await;
    let mut config = shell("echo up; yes | dd of=/dev/shm/fill bs=1M count=1000 2>/dev/null; sleep 1000");
    config.linux.as_mut().unwrap().resources = Some(v1::LinuxContainerResources {
        cpu_shares: 512,
        cpu_quota: 50_000,
        cpu_period: 100_000,
        memory_limit_in_bytes: 64 << 20,
        oom_score_adj: 900,
        ..Default::default()
    });
    let (pod, id) = node.run(config).await;
    let read = |path: PathBuf| fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(read(group(&node, "cpu", &id).join("cpu.shares")), "512\n");
    assert_eq!(read(group(&node, "cpu", &id).join("cpu.cfs_quota_us")), "50000\n");
    assert_eq!(read(group(&node, "memory", &id).join("memory.limit_in_bytes")), format!("{}\n", 64 << 20));
    let pid = node.pid(&id).await;
    assert_eq!(read(format!("/proc/{pid}/oom_score_adj").into()), "900\n");
    let linux = v1::LinuxContainerResources { memory_limit_in_bytes: 48 << 20, cpu_shares: 256, ..Default::default() };
    let request =
        v1::UpdateContainerResourcesRequest { container_id: id.clone(), linux: Some(linux), ..Default::default() };
    node.runtime.update_container_resources(request).await.unwrap();
    assert_eq!(read(group(&node, "cpu", &id).join("cpu.shares")), "256\n");
    node.remove_pod(&pod).await;

    let mut config = shell("x=$(yes | head -c 200000000); echo survived");
    config.linux.as_mut().unwrap().resources =
        Some(v1::LinuxContainerResources { memory_limit_in_bytes: 32 << 20, ..Default::default() });
    let (pod, id) = node.run(config).await;
    let status = node.ended(&id).await;
    assert_eq!(status.reason, "OOMKilled", "{status:?}");
    node.remove_pod(&pod).await;
}

#[tokio::test]
async fn a_terminal() {
    let mut node = Node::start().await;
    let config = v1::ContainerConfig {
        tty: true,
        stdin: true,
        ..shell("tty; test -c /dev/console && echo console; echo $TERM")
    };
    let (_, log) = node.script(config).await;
    assert_eq!(log, "/dev/pts/0\nconsole\nxterm\n");
}

#[tokio::test]
async fn containers_of_a_pod_share_what_pods_share() {
    let mut node = Node::start().await;
    let mut of = node.pod("pod");
    of.linux.as_mut().unwrap().security_context = None;
    of.linux.as_mut().unwrap().sysctls = [("kernel.shm_rmid_forced".to_owned(), "1".to_owned())].into();
    let pod = node.run_pod(&of).await;
    let mut first = shell("echo here > /dev/shm/note; cat /proc/sys/kernel/shm_rmid_forced; sleep 1000");
    let mut second = shell("cat /dev/shm/note; ps; exit 0");
    for config in [&mut first, &mut second] {
        security(config).namespace_options = None;
    }
    second.log_path = "second.log".into();
    let one = node.run_container(&pod, first, &of).await;
    while !node.log("c.log").contains('1') {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let two = node.run_container(&pod, second, &of).await;
    node.ended(&two).await;
    let log = node.log("second.log");
    assert!(log.starts_with("here\n"), "{log}");
    assert!(log.contains("sleep 1000"), "one process namespace: {log}");
    let net = |pid| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    let pid = node.pid(&one).await;
    assert_ne!(net(pid), net(node.server_pid() as i32));
    node.remove_pod(&pod).await;
    assert!(!fs::exists(format!("/proc/{pid}/root/bin")).unwrap());
}

#[tokio::test]
async fn a_pod_that_cannot_be_connected_leaves_nothing() {
    let mut node = Node::start().await;
    let request = v1::RunPodSandboxRequest { config: Some(node.pod("unconnectable")), runtime_handler: String::new() };
    let error = node.runtime.run_pod_sandbox(request).await.unwrap_err();
    assert!(error.message().contains("no address is left"), "{error}");
    let all = node.runtime.list_pod_sandbox(v1::ListPodSandboxRequest::default()).await.unwrap().into_inner();
    assert!(all.items.is_empty());
    assert_eq!(leftovers(node.dir.path(), &node.cgroup()), Vec::<String>::new());
}

#[tokio::test]
async fn events_come_as_things_happen() {
    let mut node = Node::start().await;
    let mut events = node.runtime.get_container_events(v1::GetEventsRequest {}).await.unwrap().into_inner();
    let (pod, id) = node.run(shell("exit 3")).await;
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let event = tokio::time::timeout(Duration::from_secs(5), events.next()).await.unwrap().unwrap().unwrap();
        if event.container_event_type() == v1::ContainerEventType::ContainerStoppedEvent {
            assert_eq!(event.containers_statuses[0].exit_code, 3);
            assert!(event.pod_sandbox_status.is_some());
        }
        seen.push((event.container_id == id, event.container_event_type));
    }
    let (of_pod, of_container) = (false, true);
    assert_eq!(seen, [(of_pod, 0), (of_pod, 1), (of_container, 0), (of_container, 1), (of_container, 2)]);
    node.remove_pod(&pod).await;
}

#[tokio::test]
async fn logs_are_reopened() {
    let mut node = Node::start().await;
    let (pod, id) = node.run(shell("i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done")).await;
    let log = node.logs().join("c.log");
    fs::rename(&log, node.logs().join("c.log.1")).unwrap();
    node.runtime.reopen_container_log(v1::ReopenContainerLogRequest { container_id: id.clone() }).await.unwrap();
    let start = Instant::now();
    while !fs::read_to_string(&log).is_ok_and(|text| text.contains("line")) {
        assert!(start.elapsed() < Duration::from_secs(5));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    node.remove_pod(&pod).await;
}
