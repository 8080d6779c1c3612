//! A runtime in a directory of its own, run by the example `node`, with a busybox image in it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cri::v1;
use cri::v1::runtime_service_client::RuntimeServiceClient;
use sha2::Digest;
use tonic::transport::Channel;

pub const IMAGE: &str = "docker.io/library/busybox:test";
const WAIT: Duration = Duration::from_secs(10);

pub struct Node {
    pub dir: tempfile::TempDir,
    server: Child,
    pub runtime: RuntimeServiceClient<Channel>,
}

fn executable() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().unwrap().parent().unwrap().join("examples/node")
}

impl Node {
    pub async fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("cluster-runtime-").tempdir().unwrap();
        let tarball = dir.path().join("busybox.tar");
        fs::write(&tarball, image()).unwrap();
        let server = Self::serve(dir.path(), Some(&tarball));
        let runtime = RuntimeServiceClient::new(cri::connect(&dir.path().join("runtime.sock")));
        let node = Self { dir, server, runtime };
        node.answers().await;
        node
    }

    fn serve(dir: &Path, tarball: Option<&Path>) -> Child {
        let mut command = Command::new(executable());
        command.arg("serve").arg(dir).args(tarball).stdin(Stdio::null()).spawn().unwrap()
    }

    async fn answers(&self) {
        let start = Instant::now();
        while self.runtime.clone().version(v1::VersionRequest::default()).await.is_err() {
            assert!(start.elapsed() < WAIT, "the runtime does not answer");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Kills the server without a word and starts the next one.
    pub async fn kill_and_restart(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
        self.server = Self::serve(self.dir.path(), None);
        self.runtime = RuntimeServiceClient::new(cri::connect(&self.dir.path().join("runtime.sock")));
        self.answers().await;
    }

    /// Kills the server and removes everything that it made.
    pub fn tear_down(&mut self) -> bool {
        let _ = self.server.kill();
        let _ = self.server.wait();
        Command::new(executable()).arg("teardown").arg(self.dir.path()).status().is_ok_and(|status| status.success())
    }

    pub fn server_pid(&self) -> u32 {
        self.server.id()
    }

    pub fn logs(&self) -> PathBuf {
        self.dir.path().join("logs")
    }

    pub fn pod(&self, name: &str) -> v1::PodSandboxConfig {
        v1::PodSandboxConfig {
            metadata: Some(v1::PodSandboxMetadata {
                name: name.into(),
                uid: format!("uid-{name}"),
                namespace: "default".into(),
                attempt: 0,
            }),
            hostname: name.into(),
            log_directory: self.logs().to_str().unwrap().into(),
            linux: Some(v1::LinuxPodSandboxConfig {
                cgroup_parent: format!("{}/{name}", self.cgroup()),
                security_context: Some(v1::LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    pub fn cgroup(&self) -> String {
        format!("/{}", self.dir.path().file_name().unwrap().to_str().unwrap())
    }

    pub async fn run_pod(&mut self, config: &v1::PodSandboxConfig) -> String {
        let request = v1::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
        self.runtime.run_pod_sandbox(request).await.unwrap().into_inner().pod_sandbox_id
    }

    pub async fn create(
        &mut self,
        pod: &str,
        config: v1::ContainerConfig,
        of: &v1::PodSandboxConfig,
    ) -> Result<String, tonic::Status> {
        let request = v1::CreateContainerRequest {
            pod_sandbox_id: pod.into(),
            config: Some(config),
            sandbox_config: Some(of.clone()),
        };
        self.runtime.create_container(request).await.map(|answer| answer.into_inner().container_id)
    }

    pub async fn start_container(&mut self, id: &str) -> Result<(), tonic::Status> {
        self.runtime.start_container(v1::StartContainerRequest { container_id: id.into() }).await.map(drop)
    }

    pub async fn run_container(&mut self, pod: &str, config: v1::ContainerConfig, of: &v1::PodSandboxConfig) -> String {
        let id = self.create(pod, config, of).await.unwrap();
        self.start_container(&id).await.unwrap();
        id
    }

    /// A pod with one container.
    pub async fn run(&mut self, config: v1::ContainerConfig) -> (String, String) {
        let of = self.pod("pod");
        let pod = self.run_pod(&of).await;
        let container = self.run_container(&pod, config, &of).await;
        (pod, container)
    }

    pub async fn status(&mut self, id: &str) -> v1::ContainerStatus {
        let request = v1::ContainerStatusRequest { container_id: id.into(), verbose: false };
        self.runtime.container_status(request).await.unwrap().into_inner().status.unwrap()
    }

    pub async fn pid(&mut self, id: &str) -> i32 {
        let request = v1::ContainerStatusRequest { container_id: id.into(), verbose: true };
        let info = self.runtime.container_status(request).await.unwrap().into_inner().info;
        let info: serde_json::Value = serde_json::from_str(&info["info"]).unwrap();
        info["pid"].as_i64().unwrap() as i32
    }

    pub async fn ended(&mut self, id: &str) -> v1::ContainerStatus {
        let start = Instant::now();
        loop {
            let status = self.status(id).await;
            if status.state() == v1::ContainerState::ContainerExited {
                return status;
            }
            assert!(start.elapsed() < WAIT, "the container does not end: {status:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Runs a shell script in a container of its own: exit code and output.
    pub async fn script(&mut self, config: v1::ContainerConfig) -> (i32, String) {
        let (pod, id) = self.run(config).await;
        let status = self.ended(&id).await;
        let log = self.log("c.log");
        self.remove_pod(&pod).await;
        fs::remove_file(self.logs().join("c.log")).unwrap();
        (status.exit_code, log)
    }

    /// The log's text without stamps, stderr's lines marked.
    pub fn log(&self, name: &str) -> String {
        let text = fs::read_to_string(self.logs().join(name)).unwrap();
        text.lines()
            .map(|line| {
                let mut parts = line.splitn(4, ' ');
                let (_, stream) = (parts.next().unwrap(), parts.next().unwrap());
                let mark = if stream == "stderr" { "! " } else { "" };
                format!("{mark}{}\n", parts.nth(1).unwrap())
            })
            .collect()
    }

    pub async fn exec(&mut self, id: &str, script: &str) -> Result<(i32, String, String), tonic::Status> {
        let cmd = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let request = v1::ExecSyncRequest { container_id: id.into(), cmd, timeout: 10 };
        let answer = self.runtime.exec_sync(request).await?.into_inner();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok((answer.exit_code, text(&answer.stdout), text(&answer.stderr)))
    }

    pub async fn remove_pod(&mut self, id: &str) {
        self.runtime.stop_pod_sandbox(v1::StopPodSandboxRequest { pod_sandbox_id: id.into() }).await.unwrap();
        self.runtime.remove_pod_sandbox(v1::RemovePodSandboxRequest { pod_sandbox_id: id.into() }).await.unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let torn = self.tear_down();
        assert!(torn || std::thread::panicking(), "teardown");
    }
}

pub fn namespaces() -> v1::NamespaceOption {
    v1::NamespaceOption { pid: v1::NamespaceMode::Container as i32, ..Default::default() }
}

/// A container that runs a shell script.
pub fn shell(script: &str) -> v1::ContainerConfig {
    v1::ContainerConfig {
        metadata: Some(v1::ContainerMetadata { name: "c".into(), attempt: 0 }),
        image: Some(v1::ImageSpec { image: IMAGE.into(), ..Default::default() }),
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        log_path: "c.log".into(),
        linux: Some(v1::LinuxContainerConfig {
            security_context: Some(v1::LinuxContainerSecurityContext {
                namespace_options: Some(namespaces()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub fn security(config: &mut v1::ContainerConfig) -> &mut v1::LinuxContainerSecurityContext {
    config.linux.get_or_insert_default().security_context.get_or_insert_default()
}

/// Everything of a node that a container could leave behind: mounts, cgroups, processes, by name.
pub fn leftovers(dir: &Path, cgroup: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    found.extend(mounts.lines().filter(|line| line.contains(dir.to_str().unwrap())).map(str::to_owned));
    for controller in fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
        let below = controller.path().join(cgroup.trim_start_matches('/'));
        if let Ok(entries) = fs::read_dir(&below) {
            let groups = entries.flatten().filter(|entry| entry.path().is_dir());
            found.extend(groups.map(|entry| entry.path().display().to_string()));
        }
    }
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        if line.starts_with("cluster\0shim") && line.contains(dir.to_str().unwrap()) {
            found.push(line.replace('\0', " "));
        }
    }
    found
}

/// A Docker archive with one layer: busybox, its names, users and groups.
fn image() -> Vec<u8> {
    let mut layer = tar::Builder::new(Vec::new());
    let add = |layer: &mut tar::Builder<Vec<u8>>, path: &str, mode, kind, data: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_mode(mode);
        header.set_entry_type(kind);
        header.set_size(data.len() as u64);
        header.set_mtime(1);
        layer.append_data(&mut header, path, data).unwrap();
    };
    for (path, mode) in [("bin", 0o755), ("etc", 0o755), ("tmp", 0o1777), ("root", 0o700), ("home/app", 0o755)] {
        add(&mut layer, path, mode, tar::EntryType::Directory, &[]);
    }
    add(&mut layer, "bin/busybox", 0o755, tar::EntryType::Regular, &fs::read("/bin/busybox").unwrap());
    add(
        &mut layer,
        "etc/passwd",
        0o644,
        tar::EntryType::Regular,
        b"root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n",
    );
    add(&mut layer, "etc/group", 0o644, tar::EntryType::Regular, b"root:x:0:\napp:x:1001:\nstaff:x:50:app\n");
    for name in
        "sh cat echo id ls sleep env mount grep touch stat tty stty hostname ps kill true false head dd nslookup \
        mknod pwd readlink seq test wc nc tr ulimit trap yes chroot unshare printf rm"
            .split_whitespace()
    {
        let mut header = tar::Header::new_gnu();
        header.set_uid(0);
        header.set_gid(0);
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        header.set_mtime(1);
        layer.append_link(&mut header, format!("bin/{name}"), "/bin/busybox").unwrap();
    }
    let layer = layer.into_inner().unwrap();
    let digest = |bytes: &[u8]| hex::encode(sha2::Sha256::digest(bytes));
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": {"Env": ["PATH=/bin", "FROM_IMAGE=1"], "Cmd": ["/bin/sleep", "1000"], "WorkingDir": "/home/app"},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", digest(&layer))]},
    });
    let config = serde_json::to_vec(&config).unwrap();
    let manifest =
        serde_json::json!([{"Config": "config.json", "RepoTags": ["busybox:test"], "Layers": ["layer.tar"]}]);
    let mut archive = tar::Builder::new(Vec::new());
    let manifest = serde_json::to_vec(&manifest).unwrap();
    for (name, data) in [("config.json", &config), ("layer.tar", &layer), ("manifest.json", &manifest)] {
        add(&mut archive, name, 0o644, tar::EntryType::Regular, data);
    }
    archive.into_inner().unwrap()
}

/// Labels, for filters.
pub fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}
