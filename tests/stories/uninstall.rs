//! Uninstalling leaves nothing behind.

use super::stage;
use crate::support::both;

#[test]
fn nothing_is_left() {
    let before = cgroups();
    let mut stage = stage();
    let server = &mut stage.server;
    server.kubectl(&["create", "deployment", "idle", "--image=busybox:1", "--replicas=2", "--", "sleep", "3600"]);
    server.kubectl(&["rollout", "status", "deployment/idle", "--timeout=60s"]);
    assert_ne!(cgroups(), before);
    let output = server.uninstall();
    assert!(output.status.success(), "{}", both(&output));
    let dir = server.dir().to_str().unwrap().to_owned();
    assert_eq!(cgroups(), before);
    assert!(!server.host.links().contains("cluster"), "{}", server.host.links());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(&dir), "{mounts}");
    let rules = server.host.command("nft").args(["list", "tables"]).output();
    if let Ok(rules) = rules {
        assert!(!both(&rules).contains("cluster"), "{}", both(&rules));
    }
    let processes = std::process::Command::new("pgrep").args(["-af", &dir]).output().unwrap();
    assert!(processes.stdout.is_empty(), "{}", both(&processes));
    assert!(!server.path("data").exists() && !server.path("run").exists());
}

fn cgroups() -> Vec<String> {
    let walk =
        std::process::Command::new("find").args(["/sys/fs/cgroup", "-maxdepth", "2", "-name", "cluster-*"]).output();
    let mut found: Vec<String> = String::from_utf8_lossy(&walk.unwrap().stdout).lines().map(str::to_owned).collect();
    found.sort();
    found
}
