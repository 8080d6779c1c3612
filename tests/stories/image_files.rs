//! Images without a registry: from tar files, by hand and from the directory that is read at every start.

use super::SOON;
use crate::support::cluster::Node;
use crate::support::hosts::Lan;
use crate::support::{images, run, until};

#[test]
fn images_come_from_tar_files() {
    let lan = Lan::new();
    let server = Node::server(&lan.host("one", 1));
    let dropped = server.path("data/agent/images");
    std::fs::create_dir_all(&dropped).unwrap();
    images::busybox().save("docker.io/library/dropped:1", &dropped.join("dropped.tar"));
    let server = server.start();
    let image = |args: &[&str]| run(server.cluster().arg("image").args(server.directories()).args(args));
    until("the dropped image is imported", SOON, || image(&["list"]).contains("docker.io/library/dropped:1"));

    let file = server.path("brought.tar");
    images::busybox().save("docker.io/library/brought:1", &file);
    assert!(image(&["import", file.to_str().unwrap()]).contains("imported docker.io/library/"));
    for name in ["dropped", "brought"] {
        server.kubectl(&["run", name, &format!("--image={name}:1"), "--restart=Never", "--", "echo", "it runs"]);
        until("the pod has run", SOON, || {
            server.kubectl(&["get", "pod", name, "-o", "jsonpath={.status.phase}"]) == "Succeeded"
        });
        assert_eq!(server.kubectl(&["logs", name]), "it runs\n");
    }

    let broken = server.path("broken.tar");
    std::fs::write(&broken, "no tar at all").unwrap();
    let refused = server.cluster().arg("image").args(server.directories()).arg("import").arg(&broken).output().unwrap();
    assert!(!refused.status.success() && !refused.stderr.is_empty());
}
