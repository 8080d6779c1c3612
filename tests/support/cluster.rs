//! Servers and agents: the real executable on a host, with directories of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use super::hosts::Host;
use super::{both, run, until};

pub const CLUSTER: &str = env!("CARGO_BIN_EXE_cluster");
const READY_MAX: Duration = Duration::from_secs(60);

/// `cluster server` or `cluster agent` on a host. Uninstalled when it is dropped; its log is shown when the story failed.
pub struct Node {
    pub host: Host,
    dir: tempfile::TempDir,
    face: Vec<String>,
    child: Option<Child>,
}

impl Node {
    /// A server, not started yet, so that its directory can be prepared.
    pub fn server(host: &Host) -> Node {
        Node::new(host, vec!["server".into()])
    }

    pub fn agent(host: &Host, server: &Node) -> Node {
        let face = ["agent", "--server", &format!("https://{}:6443", server.host.ip), "--token", &server.token()];
        Node::new(host, face.map(str::to_owned).to_vec())
    }

    pub fn agent_with_token(host: &Host, server: &Node, token: &str) -> Node {
        let face = ["agent", "--server", &format!("https://{}:6443", server.host.ip), "--token", token];
        Node::new(host, face.map(str::to_owned).to_vec())
    }

    fn new(host: &Host, face: Vec<String>) -> Node {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("config.yaml"), "").unwrap();
        std::fs::write(dir.path().join("resolv.conf"), "").unwrap();
        Node { host: host.clone(), dir, face, child: None }
    }

    /// Starts it and waits until its node is Ready.
    pub fn start(mut self) -> Node {
        self.spawn();
        self.wait_ready();
        self
    }

    pub fn spawn(&mut self) {
        let mut command = self.cluster();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        command.args(&self.face).args(self.directories()).args([
            "--config",
            &self.text("config.yaml"),
            "--private-registry",
            &self.text("registries.yaml"),
            "--resolv-conf",
            &self.text("resolv.conf"),
            "--node-name",
            &self.host.name,
        ]);
        if self.face[0] == "server" {
            command.args(["--write-kubeconfig", &self.text("kubeconfig.yaml")]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().unwrap());
    }

    pub fn wait_ready(&mut self) {
        until("the node is Ready", READY_MAX, || {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            assert!(ended.is_none(), "cluster ended: {ended:?}\n{}", self.log());
            self.cluster().arg("status").args(self.directories()).output().unwrap().status.success()
        });
    }

    /// Waits for a start that fails; what it says.
    pub fn refusal(&mut self) -> String {
        until("it ends", READY_MAX, || self.child.as_mut().unwrap().try_wait().unwrap().is_some());
        assert!(!self.child.take().unwrap().wait().unwrap().success());
        self.log()
    }

    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The executable, on this node's host.
    pub fn cluster(&self) -> Command {
        self.host.command(CLUSTER)
    }

    pub fn directories(&self) -> [String; 4] {
        ["--data-dir".into(), self.text("data"), "--run-dir".into(), self.text("run")]
    }

    pub fn token(&self) -> String {
        run(self.cluster().arg("token").args(self.directories())).trim().to_owned()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    pub fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = self.host.command("kubectl");
        command.arg("--kubeconfig").arg(self.path("kubeconfig.yaml"));
        command.arg("--cache-dir").arg(self.path("kubectl-cache")).args(args);
        command
    }

    /// `kubectl`, which has to succeed; what it prints.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> String {
        for _ in 0..2 {
            let output = self.kubectl_output(args);
            // kubectl drops what comes before it has registered the stream, and says so; then it is asked again.
            if !String::from_utf8_lossy(&output.stderr).contains("Unknown stream id") {
                assert!(output.status.success(), "{args:?}\n{}", both(&output));
                return String::from_utf8_lossy(&output.stdout).into_owned();
            }
        }
        run(&mut self.kubectl_command(args))
    }

    /// `kubectl`, which has to fail; what it says.
    #[track_caller]
    pub fn kubectl_fails(&self, args: &[&str]) -> String {
        let output = self.kubectl_output(args);
        assert!(!output.status.success(), "{args:?} should fail\n{}", both(&output));
        both(&output)
    }

    pub fn kubectl_output(&self, args: &[&str]) -> Output {
        self.kubectl_command(args).output().unwrap()
    }

    /// `kubectl apply -f -`.
    #[track_caller]
    pub fn apply(&self, manifest: &str) -> String {
        let file = self.path("manifest.yaml");
        std::fs::write(&file, manifest).unwrap();
        self.kubectl(&["apply", "-f", file.to_str().unwrap()])
    }

    /// Stops it and removes all that it made; what is still there then is the story's to look at.
    pub fn uninstall(&mut self) -> Output {
        let output = self.cluster().arg("uninstall").args(self.directories()).output().unwrap();
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
        output
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = lines.len().saturating_sub(60);
            eprintln!("---- the end of {}'s log\n{}\n----", self.host.name, lines[shown..].join("\n"));
        }
        let output = self.uninstall();
        if !output.status.success() {
            eprintln!("uninstall on {}: {}", self.host.name, both(&output));
        }
    }
}
