//! What a container's program sees, says and returns.

use cri::v1;

use crate::node::{Node, labels, leftovers, security, shell};

#[tokio::test]
async fn a_container_runs_and_its_end_is_known() {
    let mut node = Node::start().await;
    let (code, log) = node.script(shell("echo out; echo err >&2; printf rest; exit 7")).await;
    assert_eq!(code, 7);
    assert!(log.contains("out\n") && log.contains("! err\n") && log.contains("rest\n"), "{log}");
    assert_eq!(leftovers(node.dir.path(), &node.cgroup()), Vec::<String>::new());
}

#[tokio::test]
async fn the_program_finds_what_was_asked_for() {
    let mut node = Node::start().await;
    let mut config = shell(
        "pwd; echo $FROM_IMAGE $OWN $HOME $HOSTNAME; hostname; cat /etc/hostname; id; cat /proc/1/cmdline | head -c 7",
    );
    config.envs = vec![v1::KeyValue { key: "OWN".into(), value: b"mine".to_vec() }];
    config.working_dir = "/made/for/it".into();
    let (code, log) = node.script(config).await;
    assert_eq!(
        (code, log.as_str()),
        (0, "/made/for/it\n1 mine /root pod\npod\npod\nuid=0(root) gid=0(root) groups=0(root)\n/bin/sh\n")
    );

    let mut config = shell("id; echo $HOME; touch /tmp/x && stat -c %u /tmp/x; echo to-stdout > /dev/stdout");
    let context = security(&mut config);
    context.run_as_username = "app".into();
    context.supplemental_groups = vec![4242];
    let (code, log) = node.script(config).await;
    assert_eq!(
        (code, log.as_str()),
        (0, "uid=1000(app) gid=1001(app) groups=50(staff),1001(app),4242\n/home/app\n1000\nto-stdout\n")
    );
}

#[tokio::test]
async fn mounts_are_where_they_should_be_and_nowhere_else() {
    let mut node = Node::start().await;
    let shared = node.dir.path().join("shared");
    std::fs::create_dir_all(shared.join("sub")).unwrap();
    std::fs::write(shared.join("file"), "from the node").unwrap();
    let mount = |inside: &str, host: &std::path::Path, readonly| v1::Mount {
        container_path: inside.into(),
        host_path: host.to_str().unwrap().into(),
        readonly,
        ..Default::default()
    };
    let mut config = shell(
        "cat /data/file; echo; echo back > /data/answer; touch /ro/x || echo refused; cat /etc/hosts; \
         test -c /dev/null && echo null; test -p /dev/stdin; ls /sys/fs/cgroup/memory/cgroup.procs; \
         echo x > /dev/shm/y && cat /dev/shm/y; cat /etc/resolv.conf; test -e /made && ls -d /made/it",
    );
    config.mounts = vec![
        mount("/ro", &shared, true),
        mount("/data", &shared, false),
        mount("/etc/hosts", &shared.join("file"), true),
        mount("/made/it", &node.dir.path().join("not-there-yet"), false),
    ];
    let mut of = node.pod("pod");
    of.dns_config = Some(v1::DnsConfig { servers: vec!["192.0.2.1".into()], ..Default::default() });
    let pod = node.run_pod(&of).await;
    let id = node.run_container(&pod, config, &of).await;
    let status = node.ended(&id).await;
    assert_eq!(status.exit_code, 0, "{}", node.log("c.log"));
    let log = node.log("c.log");
    let expected = "from the node\n! touch: /ro/x: Read-only file system\nrefused\nfrom the nodenull\n\
                    /sys/fs/cgroup/memory/cgroup.procs\nx\nnameserver 192.0.2.1\n/made/it\n";
    assert_eq!(
        log.replace("! touch: /ro/x: Read-only file system\n", ""),
        expected.replace("! touch: /ro/x: Read-only file system\n", "")
    );
    assert_eq!(std::fs::read_to_string(shared.join("answer")).unwrap(), "back\n");
    node.remove_pod(&pod).await;
}

#[tokio::test]
async fn commands_run_in_a_container() {
    let mut node = Node::start().await;
    let (pod, id) = node.run(shell("echo $$ > /tmp/pid; sleep 1000")).await;
    let (code, out, err) = node.exec(&id, "echo hello; echo trouble >&2; hostname; exit 3").await.unwrap();
    assert_eq!((code, out.as_str(), err.as_str()), (3, "hello\npod\n", "trouble\n"));
    let (_, out, _) = node.exec(&id, "head -c 1000000 /dev/zero | tr '\\0' x").await.unwrap();
    assert_eq!(out.len(), 1_000_000);
    let missing = v1::ExecSyncRequest { container_id: id.clone(), cmd: vec!["nonesuch".into()], timeout: 0 };
    let error = node.runtime.exec_sync(missing).await.unwrap_err();
    assert!(error.message().contains("executable file not found in $PATH"), "{error}");
    let slow = v1::ExecSyncRequest { container_id: id.clone(), cmd: vec!["sleep".into(), "77".into()], timeout: 1 };
    let error = node.runtime.exec_sync(slow).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::DeadlineExceeded);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let (_, out, _) = node.exec(&id, "ps").await.unwrap();
    assert!(!out.contains("sleep 77"), "killed with its caller: {out}");
    node.remove_pod(&pod).await;
    assert_eq!(node.exec(&id, "true").await.unwrap_err().code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let mut node = Node::start().await;
    let of = node.pod("pod");
    let pod = node.run_pod(&of).await;
    for (command, why) in [
        ("nonesuch", "exec: \"nonesuch\": executable file not found in $PATH"),
        ("/bin/nonesuch", "stat /bin/nonesuch: no such file or directory"),
        ("/etc/passwd", "exec: \"/etc/passwd\": permission denied"),
    ] {
        let config = v1::ContainerConfig { command: vec![command.into()], ..shell("") };
        let id = node.create(&pod, config, &of).await.unwrap();
        let error = node.start_container(&id).await.unwrap_err();
        assert!(error.message().contains(why), "{error}");
        let status = node.status(&id).await;
        assert_eq!((status.exit_code, status.reason.as_str()), (128, "StartError"));
        assert!(status.message.contains(why));
    }
    let mut config = shell("true");
    security(&mut config).run_as_username = "ghost".into();
    let id = node.create(&pod, config, &of).await.unwrap();
    assert!(node.start_container(&id).await.unwrap_err().message().contains("unable to find user ghost"));
    let missing = v1::ContainerConfig {
        image: Some(v1::ImageSpec { image: "absent:1".into(), ..Default::default() }),
        ..shell("")
    };
    assert_eq!(node.create(&pod, missing, &of).await.unwrap_err().code(), tonic::Code::NotFound);
    node.remove_pod(&pod).await;
    assert_eq!(leftovers(node.dir.path(), &node.cgroup()), Vec::<String>::new());
}

#[tokio::test]
async fn lists_and_statuses_are_filtered() {
    let mut node = Node::start().await;
    let of = v1::PodSandboxConfig { labels: labels(&[("app", "web")]), ..node.pod("pod") };
    let pod = node.run_pod(&of).await;
    let config = v1::ContainerConfig { labels: labels(&[("tier", "front")]), ..shell("sleep 1000") };
    let id = node.run_container(&pod, config, &of).await;
    let filter = |label| v1::ListPodSandboxRequest {
        filter: Some(v1::PodSandboxFilter { label_selector: labels(&[("app", label)]), ..Default::default() }),
    };
    assert_eq!(node.runtime.list_pod_sandbox(filter("web")).await.unwrap().into_inner().items.len(), 1);
    assert_eq!(node.runtime.list_pod_sandbox(filter("db")).await.unwrap().into_inner().items.len(), 0);
    let state = v1::ContainerStateValue { state: v1::ContainerState::ContainerRunning as i32 };
    let filter = v1::ContainerFilter { pod_sandbox_id: pod.clone(), state: Some(state), ..Default::default() };
    let request = v1::ListContainersRequest { filter: Some(filter) };
    let listed = node.runtime.list_containers(request).await.unwrap().into_inner().containers;
    assert_eq!(listed.iter().map(|container| container.id.as_str()).collect::<Vec<_>>(), [id.as_str()]);
    let request = v1::PodSandboxStatusRequest { pod_sandbox_id: pod.clone(), verbose: true };
    let status = node.runtime.pod_sandbox_status(request).await.unwrap().into_inner();
    assert_eq!(status.status.unwrap().network.unwrap().ip, "192.0.2.7");
    assert_eq!(status.containers_statuses.len(), 1);
    let stats = v1::ContainerStatsRequest { container_id: id.clone() };
    let stats = node.runtime.container_stats(stats).await.unwrap().into_inner().stats.unwrap();
    assert!(stats.cpu.unwrap().usage_core_nano_seconds.unwrap().value > 0);
    assert!(stats.memory.unwrap().usage_bytes.unwrap().value > 0);
    node.remove_pod(&pod).await;
}
