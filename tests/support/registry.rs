//! Debian's docker-registry on a host of its own.

use std::process::{Child, Stdio};
use std::time::Duration;

use super::hosts::Host;
use super::images::{Image, MANIFEST_TYPE, digest};
use super::{run, until};

pub struct Registry {
    host: Host,
    dir: tempfile::TempDir,
    child: Child,
}

impl Registry {
    pub fn start(host: &Host) -> Registry {
        let dir = tempfile::tempdir().unwrap();
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: 0.0.0.0:5000\n",
            dir.path().join("storage").display()
        );
        let file = dir.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let child = host
            .command("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let registry = Registry { host: host.clone(), dir, child };
        until("the registry answers", Duration::from_secs(20), || {
            registry.curl(&[]).arg(registry.url("")).output().unwrap().status.success()
        });
        registry
    }

    /// `192.168.100.9:5000`.
    pub fn address(&self) -> String {
        format!("{}:5000", self.host.ip)
    }

    /// What a node needs in its registries.yaml: this registry speaks plain HTTP, and stands in for docker.io.
    pub fn registries_yaml(&self) -> String {
        let address = self.address();
        format!(
            "mirrors:\n  \"{address}\":\n    endpoint: [\"http://{address}\"]\n  docker.io:\n    endpoint: [\"http://{address}\"]\n"
        )
    }

    /// Pushes an image under `name:tag`, such as `library/nginx:1`.
    pub fn push(&self, name: &str, image: &Image) {
        let (repository, tag) = name.split_once(':').unwrap();
        for blob in [&image.config, &image.layer] {
            self.push_blob(repository, blob);
        }
        let file = self.dir.path().join("manifest");
        std::fs::write(&file, &image.manifest).unwrap();
        let body = format!("@{}", file.display());
        let content_type = format!("Content-Type: {MANIFEST_TYPE}");
        let url = self.url(&format!("{repository}/manifests/{tag}"));
        run(self.curl(&["-X", "PUT", "-H", &content_type, "--data-binary", &body]).arg(url));
    }

    fn push_blob(&self, repository: &str, blob: &[u8]) {
        let answer = run(self.curl(&["-X", "POST", "-i"]).arg(self.url(&format!("{repository}/blobs/uploads/"))));
        let location = answer
            .lines()
            .find_map(|line| line.strip_prefix("Location: ").or_else(|| line.strip_prefix("location: ")))
            .unwrap()
            .trim()
            .to_owned();
        let file = self.dir.path().join("blob");
        std::fs::write(&file, blob).unwrap();
        let url = format!("{location}&digest={}", digest(blob));
        run(self.curl(&["-X", "PUT", "-T"]).arg(&file).arg(url));
    }

    /// Changes a byte in the middle of a blob that is stored already.
    pub fn corrupt(&self, blob: &[u8]) {
        let hex = digest(blob).trim_start_matches("sha256:").to_owned();
        let path =
            self.dir.path().join("storage/docker/registry/v2/blobs/sha256").join(&hex[..2]).join(&hex).join("data");
        let mut bytes = std::fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        std::fs::write(&path, bytes).unwrap();
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/v2/{path}", self.address())
    }

    fn curl(&self, args: &[&str]) -> std::process::Command {
        let mut command = self.host.command("curl");
        command.args(["-sSf", "--max-time", "60"]).args(args);
        command
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
