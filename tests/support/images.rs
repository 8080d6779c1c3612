//! Images, made of Debian's packages: busybox-static as it is installed, and nginx, unpacked.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::run;

/// An image as a registry holds it.
pub struct Image {
    pub config: Vec<u8>,
    /// Compressed with gzip.
    pub layer: Vec<u8>,
    pub manifest: Vec<u8>,
}

pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// busybox with all its commands.
pub fn busybox() -> Image {
    let root = tempfile::tempdir().unwrap();
    let bin = root.path().join("bin");
    fs::create_dir(&bin).unwrap();
    fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
    for name in run(Command::new("/bin/busybox").arg("--list")).lines() {
        if name != "busybox" {
            symlink("busybox", bin.join(name)).unwrap();
        }
    }
    common_files(root.path());
    build(root.path(), json!({"Cmd": ["sh"], "Env": ["PATH=/bin"]}))
}

/// nginx that answers with `text`.
pub fn nginx(text: &str) -> Image {
    let root = tempfile::tempdir().unwrap();
    let debs = PathBuf::from(std::env::var("CLUSTER_TEST_DEBS").expect("run the tests with tests/run.sh"));
    for deb in fs::read_dir(debs).unwrap().flatten().map(|entry| entry.path()) {
        run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(root.path()));
    }
    // Merged /usr, as on an installed system.
    for name in ["lib", "lib64", "bin", "sbin"] {
        let old = root.path().join(name);
        let new = root.path().join("usr").join(name);
        fs::create_dir_all(&new).unwrap();
        if old.exists() {
            run(Command::new("cp").args(["-a", "-T"]).arg(&old).arg(&new));
            fs::remove_dir_all(&old).unwrap();
        }
        symlink(format!("usr/{name}"), &old).unwrap();
    }
    common_files(root.path());
    for dir in ["var/log/nginx", "var/lib/nginx", "run", "srv"] {
        fs::create_dir_all(root.path().join(dir)).unwrap();
    }
    fs::write(root.path().join("srv/index.html"), text).unwrap();
    let config = "user root;\ndaemon off;\nerror_log stderr;\nevents {}\nhttp {\n  access_log off;\n  server { listen 80; \
                  root /srv; }\n}\n";
    fs::write(root.path().join("etc/nginx/nginx.conf"), config).unwrap();
    build(root.path(), json!({"Cmd": ["/usr/sbin/nginx"], "ExposedPorts": {"80/tcp": {}}, "StopSignal": "SIGQUIT"}))
}

fn common_files(root: &Path) {
    for dir in ["etc", "tmp", "root", "proc", "sys", "dev"] {
        fs::create_dir_all(root.join(dir)).unwrap();
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n").unwrap();
    fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n").unwrap();
}

fn build(root: &Path, container: Value) -> Image {
    let work = tempfile::tempdir().unwrap();
    let tar = work.path().join("layer.tar");
    run(Command::new("tar").args(["--numeric-owner", "-cf"]).arg(&tar).arg("-C").arg(root).arg("."));
    let diff_id = digest(&fs::read(&tar).unwrap());
    run(Command::new("gzip").arg("-1n").arg(&tar));
    let layer = fs::read(work.path().join("layer.tar.gz")).unwrap();
    let config = serde_json::to_vec(&json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": container, "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    }))
    .unwrap();
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json",
                   "digest": digest(&config), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "digest": digest(&layer), "size": layer.len()}],
    }))
    .unwrap();
    Image { config, layer, manifest }
}

impl Image {
    /// Writes it as an OCI layout in a tar file.
    pub fn save(&self, name: &str, file: &Path) {
        let dir = tempfile::tempdir().unwrap();
        let blobs = dir.path().join("blobs/sha256");
        fs::create_dir_all(&blobs).unwrap();
        for blob in [&self.config, &self.layer, &self.manifest] {
            fs::write(blobs.join(digest(blob).trim_start_matches("sha256:")), blob).unwrap();
        }
        fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": MANIFEST_TYPE, "digest": digest(&self.manifest), "size": self.manifest.len(),
            "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name},
        }]});
        fs::write(dir.path().join("index.json"), index.to_string()).unwrap();
        run(Command::new("tar").arg("-cf").arg(file).arg("-C").arg(dir.path()).arg("."));
    }
}
