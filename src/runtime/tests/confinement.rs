//! What a container cannot do.

use cri::v1;

use crate::node::{Node, security, shell};

#[tokio::test]
async fn an_ordinary_container_has_little() {
    let mut node = Node::start().await;
    let (code, log) = node
        .script(shell(
            "grep -E 'CapEff|CapBnd|Seccomp:' /proc/1/status | tr '\\t' ' '; ls /proc/self/fd | wc -l; \
             cat /proc/kcore | wc -c; echo 1 > /proc/sys/kernel/panic || echo no-sysctl; ls /sys/firmware | wc -l; \
             mount -t tmpfs none /tmp || echo no-mount; unshare -U true || echo no-userns; \
             mknod /tmp/disk b 254 0 && head -c 1 /tmp/disk || echo no-disk; touch /sys/x || echo no-sys; \
             ls /dev | tr '\\n' ' '",
        ))
        .await;
    let visible: String = log.lines().filter(|line| !line.starts_with("! ")).collect::<Vec<_>>().join("\n");
    assert_eq!(code, 0, "{log}");
    assert_eq!(
        visible,
        "CapEff: 00000000a80425fb\nCapBnd: 00000000a80425fb\nSeccomp: 2\n4\n0\nno-sysctl\n0\nno-mount\nno-userns\n\
         no-disk\nno-sys\nfd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ",
        "{log}"
    );
}

#[tokio::test]
async fn capabilities_users_and_new_privileges() {
    let mut node = Node::start().await;
    let mut config = shell("grep -E 'CapEff|CapBnd|NoNewPrivs|Uid' /proc/1/status | tr '\\t' ' '");
    let context = security(&mut config);
    context.run_as_user = Some(v1::Int64Value { value: 4242 });
    context.no_new_privs = true;
    context.capabilities = Some(v1::Capability {
        drop_capabilities: vec!["ALL".into()],
        add_capabilities: vec!["NET_BIND_SERVICE".into()],
        ..Default::default()
    });
    let (_, log) = node.script(config).await;
    assert_eq!(log, "Uid: 4242 4242 4242 4242\nCapEff: 0000000000000000\nCapBnd: 0000000000000400\nNoNewPrivs: 1\n");

    let mut config = shell("grep CapEff /proc/1/status | tr '\\t' ' '");
    let context = security(&mut config);
    context.run_as_user = Some(v1::Int64Value { value: 4242 });
    context.capabilities =
        Some(v1::Capability { add_ambient_capabilities: vec!["NET_BIND_SERVICE".into()], ..Default::default() });
    let (_, log) = node.script(config).await;
    assert_eq!(log, "CapEff: 0000000000000400\n");

    let mut config = shell(
        "mount -t tmpfs none /tmp && echo mounted; grep Seccomp: /proc/1/status | tr '\\t' ' '; touch /sys/fs/cgroup/memory && echo writable",
    );
    security(&mut config).privileged = true;
    let (_, log) = node.script(config).await;
    assert_eq!(log, "mounted\nSeccomp: 0\nwritable\n");
}

#[tokio::test]
async fn a_read_only_root() {
    let mut node = Node::start().await;
    let mut config = shell("touch /x || echo refused; touch /dev/shm/x && echo shm");
    security(&mut config).readonly_rootfs = true;
    let (_, log) = node.script(config).await;
    assert!(log.contains("refused\nshm\n"), "{log}");
}

#[tokio::test]
async fn a_mount_point_that_is_a_link_stays_inside() {
    let mut node = Node::start().await;
    let of = node.pod("pod");
    let pod = node.run_pod(&of).await;
    let shared = node.dir.path().join("shared");
    std::fs::create_dir_all(&shared).unwrap();
    let trap = node.dir.path().join("trap");
    std::fs::create_dir_all(&trap).unwrap();
    // The first mount brings a link that leads out of the root; the second goes through it.
    std::os::unix::fs::symlink(&trap, shared.join("link")).unwrap();
    let mut config = shell("echo caught > /data/link/deep/file; true");
    let mount = |inside: &str, host: &std::path::Path| v1::Mount {
        container_path: inside.into(),
        host_path: host.to_str().unwrap().into(),
        ..Default::default()
    };
    let other = node.dir.path().join("other");
    config.mounts = vec![mount("/data", &shared), mount("/data/link/deep", &other)];
    let id = node.create(&pod, config, &of).await.unwrap();
    // Refused or mounted inside, both are fine; the node's directory is not touched.
    if node.start_container(&id).await.is_ok() {
        node.ended(&id).await;
    }
    assert_eq!(std::fs::read_dir(&trap).unwrap().count(), 0);
    node.remove_pod(&pod).await;
}

#[tokio::test]
async fn the_runtimes_executable_cannot_be_written_from_a_container() {
    let mut node = Node::start().await;
    // Process 1 of the pod is the runtime's: its executable can be reached, and must not be writable.
    let mut config = shell("(echo x > /proc/1/exe) 2>&1; head -c 7 /proc/1/cmdline");
    let context = security(&mut config);
    context.privileged = true;
    context.namespace_options = Some(v1::NamespaceOption { pid: v1::NamespaceMode::Pod as i32, ..Default::default() });
    let mut of = node.pod("pod");
    of.linux.as_mut().unwrap().security_context = None;
    let pod = node.run_pod(&of).await;
    let id = node.run_container(&pod, config, &of).await;
    node.ended(&id).await;
    assert_eq!(node.log("c.log"), "/bin/sh: can't create /proc/1/exe: Read-only file system\ncluster\n");
    node.remove_pod(&pod).await;
}
