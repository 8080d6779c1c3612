//! Pod sandboxes: a shim with its namespaces, the pod's address, and the files that its containers share.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use cri::v1;
use parking_lot::Mutex;
use tonic::Status;

use super::state::{Sandbox, SandboxRecord};
use super::{Runtime, shims, views};
use crate::disk;
use crate::shim::protocol::Request;
use crate::spec::SandboxSpec;

/// How long a shim may take to end, all containers killed, before it is killed itself.
const SHUTDOWN_MAX: Duration = Duration::from_secs(10);
const RESOLV_CONF: &str = "/etc/resolv.conf";
const FILE_BYTES_MAX: u64 = 1 << 20;

/// An ID as everybody makes them: 32 random bytes in hexadecimal.
pub fn new_id() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

pub fn internal(what: &str, error: impl std::error::Error) -> Status {
    let mut text = format!("{what}: {error}");
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(&format!(": {source}"));
        next = source.source();
    }
    Status::internal(text)
}

/// Runs what waits for the disk or the kernel.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    tokio::task::spawn_blocking(work).await.map_err(|error| internal("the work was interrupted", error))
}

impl Runtime {
    pub async fn run_sandbox(self: &Arc<Self>, request: v1::RunPodSandboxRequest) -> Result<String, Status> {
        let config = request.config.ok_or_else(|| Status::invalid_argument("sandbox config is nil"))?;
        let metadata =
            config.metadata.clone().ok_or_else(|| Status::invalid_argument("sandbox config must include metadata"))?;
        if !request.runtime_handler.is_empty() {
            let handler = &request.runtime_handler;
            return Err(Status::not_found(format!("no runtime for {handler:?} is configured")));
        }
        let id = new_id();
        let linux = config.linux.clone().unwrap_or_default();
        let namespaces =
            linux.security_context.as_ref().and_then(|context| context.namespace_options.clone()).unwrap_or_default();
        if namespaces.userns_options.as_ref().is_some_and(|options| options.mode() == v1::NamespaceMode::Pod) {
            return Err(Status::invalid_argument("user namespaces are not supported"));
        }
        let host_network = namespaces.network() == v1::NamespaceMode::Node;
        let cgroup_parent = if linux.cgroup_parent.is_empty() {
            self.config.cgroup_parent_default.clone()
        } else {
            linux.cgroup_parent
        };
        let dir = self.sandbox_dir(&id);
        let spec = SandboxSpec {
            id: id.clone(),
            socket: self.shim_address(&id).0,
            scratch: dir.join("scratch"),
            cgroup: Self::shim_cgroup(&cgroup_parent, &id),
            hostname: config.hostname.clone(),
            host_network,
            host_ipc: namespaces.ipc() == v1::NamespaceMode::Node,
            shared_pid: namespaces.pid() == v1::NamespaceMode::Pod,
            sysctls: linux.sysctls.into_iter().collect(),
        };
        let sandbox = Arc::new(Sandbox {
            record: Mutex::new(SandboxRecord {
                created_at_ns: views::now_ns(),
                stopped: false,
                addresses: Vec::new(),
                host_network,
                made_cgroup_parent: false,
                cgroup_parent,
                runtime_handler: request.runtime_handler,
            }),
            shim: self.shim_address(&id),
            shim_pid: AtomicI32::new(0),
            work: tokio::sync::Mutex::default(),
            dir,
            config,
            id: id.clone(),
        });
        // Nobody can ask for it yet; a failure takes it away again.
        match self.start_sandbox(&sandbox, spec, &metadata).await {
            Ok(()) => {
                self.emit_sandbox(&sandbox, v1::ContainerEventType::ContainerCreatedEvent);
                self.emit_sandbox(&sandbox, v1::ContainerEventType::ContainerStartedEvent);
                Ok(id)
            }
            Err(status) => {
                self.sandboxes.write().insert(id.clone(), sandbox);
                if let Err(error) = self.remove_sandbox(&id).await {
                    tracing::error!(sandbox = id, error = error.message(), "removing a sandbox that failed to start");
                }
                Err(status)
            }
        }
    }

    async fn start_sandbox(
        self: &Arc<Self>,
        sandbox: &Arc<Sandbox>,
        spec: SandboxSpec,
        metadata: &v1::PodSandboxMetadata,
    ) -> Result<(), Status> {
        let (runtime, of) = (self.clone(), sandbox.clone());
        let host_network = spec.host_network;
        let pid = blocking(move || runtime.start_shim(&of, &spec)).await??;
        sandbox.shim_pid.store(pid, Ordering::Release);
        if !host_network {
            let netns = Path::new("/proc").join(pid.to_string()).join("ns/net");
            let attached = self.network.attach(&sandbox.id, &netns, metadata).await;
            let addresses = attached.map_err(|error| {
                Status::unavailable(format!("failed to setup network for sandbox {:?}: {error}", sandbox.id))
            })?;
            sandbox.record.lock().addresses = addresses;
        }
        write_hosts(sandbox, &self.node_hostname).map_err(|error| internal("write sandbox files", error))?;
        sandbox.save().map_err(|error| internal("write sandbox record", error))?;
        self.sandboxes.write().insert(sandbox.id.clone(), sandbox.clone());
        self.watch(sandbox).await;
        Ok(())
    }

    fn start_shim(&self, sandbox: &Sandbox, spec: &SandboxSpec) -> Result<i32, Status> {
        let failed = |error: std::io::Error| internal("write sandbox files", error);
        std::fs::create_dir_all(&spec.scratch).map_err(failed)?;
        // Containers' users read the files in it through bind mounts; nobody else gets through its parent.
        std::fs::set_permissions(&sandbox.dir, PermissionsExt::from_mode(0o755)).map_err(failed)?;
        write_files(sandbox, &self.node_hostname).map_err(failed)?;
        let parent = sandbox.record.lock().cgroup_parent.clone();
        let missing = parent != self.config.cgroup_parent_default && !self.hierarchy.exists(&parent);
        sandbox.record.lock().made_cgroup_parent = missing;
        sandbox.create().map_err(failed)?;
        let file = sandbox.dir.join("spec.json");
        disk::replace_json(&file, spec).map_err(failed)?;
        self.hierarchy.make(&spec.cgroup).map_err(|error| internal("make the sandbox's cgroup", error))?;
        shims::start(&self.executable, &file, &sandbox.dir.join("shim.log"))
            .map_err(|error| internal("failed to create pod sandbox", error))
    }

    pub async fn stop_sandbox(&self, id: &str) -> Result<(), Status> {
        // Stopping what is not there is no error.
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        let _working = sandbox.work.lock().await;
        self.stop_sandbox_locked(&sandbox).await
    }

    async fn stop_sandbox_locked(&self, sandbox: &Sandbox) -> Result<(), Status> {
        let was_ready = sandbox.is_ready();
        let containers = self.containers_of(&sandbox.id);
        let ends = containers.iter().map(|container| self.stop_known(container, Duration::ZERO));
        futures::future::try_join_all(ends).await?;
        let (was_stopped, host_network) = {
            let record = sandbox.record.lock();
            (record.stopped, record.host_network)
        };
        if !host_network && !was_stopped {
            self.network.detach(&sandbox.id).await.map_err(|error| {
                Status::internal(format!("failed to destroy network for sandbox {:?}: {error}", sandbox.id))
            })?;
        }
        sandbox.record.lock().stopped = true;
        if sandbox.dir.exists() {
            sandbox.save().map_err(|error| internal("write sandbox record", error))?;
        }
        let pid = sandbox.shim_pid.load(Ordering::Acquire);
        if pid != 0 {
            let ended = tokio::time::timeout(SHUTDOWN_MAX, sandbox.shim.order(&Request::Shutdown)).await;
            if ended.is_err() {
                tracing::warn!(sandbox = sandbox.id, pid, "the shim does not end and is killed");
            }
            sandbox.shim_pid.store(0, Ordering::Release);
        }
        let (hierarchy, parent) = (self.hierarchy.clone(), sandbox.record.lock().cgroup_parent.clone());
        let group = Self::shim_cgroup(&parent, &sandbox.id);
        let removed = blocking(move || {
            // Also a shim that has lost its socket.
            hierarchy.kill(&group);
            hierarchy.remove(&group)
        });
        removed.await?.map_err(|error| internal("remove the shim's cgroup", error))?;
        if was_ready {
            self.emit_sandbox(sandbox, v1::ContainerEventType::ContainerStoppedEvent);
        }
        Ok(())
    }

    pub async fn remove_sandbox(&self, id: &str) -> Result<(), Status> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        let _working = sandbox.work.lock().await;
        self.stop_sandbox_locked(&sandbox).await?;
        for container in self.containers_of(&sandbox.id) {
            self.remove_known(&container).await?;
        }
        let (dir, socket) = (sandbox.dir.clone(), sandbox.shim.0.clone());
        let (hierarchy, record) = (self.hierarchy.clone(), sandbox.record.lock().clone());
        blocking(move || {
            let _ = std::fs::remove_file(socket);
            if record.made_cgroup_parent {
                hierarchy.remove_if_empty(&record.cgroup_parent);
            } else {
                hierarchy.remove_unlimited_if_empty(&record.cgroup_parent);
            }
            match std::fs::remove_dir_all(dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        })
        .await?
        .map_err(|error| internal("remove sandbox files", error))?;
        self.emit_sandbox(&sandbox, v1::ContainerEventType::ContainerDeletedEvent);
        self.sandboxes.write().remove(&sandbox.id);
        Ok(())
    }
}

/// What containers get as `/etc/resolv.conf` and `/etc/hostname` unless they mount their own.
fn write_files(sandbox: &Sandbox, node_hostname: &str) -> std::io::Result<()> {
    let resolv = match sandbox.config.dns_config.as_ref().and_then(resolv_conf) {
        Some(text) => text.into_bytes(),
        None => match std::fs::metadata(RESOLV_CONF) {
            Ok(meta) if meta.len() <= FILE_BYTES_MAX => std::fs::read(RESOLV_CONF)?,
            _ => Vec::new(),
        },
    };
    std::fs::write(sandbox.dir.join("resolv.conf"), resolv)?;
    std::fs::write(sandbox.dir.join("hostname"), format!("{}\n", hostname(sandbox, node_hostname)))
}

fn write_hosts(sandbox: &Sandbox, node_hostname: &str) -> std::io::Result<()> {
    let path = sandbox.dir.join("hosts");
    let record = sandbox.record.lock().clone();
    if record.host_network {
        return std::fs::write(path, std::fs::read("/etc/hosts").unwrap_or_default());
    }
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    for address in &record.addresses {
        text.push_str(&format!("{address}\t{}\n", hostname(sandbox, node_hostname)));
    }
    std::fs::write(path, text)
}

fn hostname<'a>(sandbox: &'a Sandbox, node_hostname: &'a str) -> &'a str {
    if sandbox.config.hostname.is_empty() { node_hostname } else { &sandbox.config.hostname }
}

/// `None` when nothing is asked for: then the node's is used.
fn resolv_conf(dns: &v1::DnsConfig) -> Option<String> {
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_configuration() {
        let dns = v1::DnsConfig {
            servers: vec!["10.43.0.10".into()],
            searches: vec!["ns.svc.cluster.local".into(), "svc.cluster.local".into()],
            options: vec!["ndots:5".into()],
        };
        let text = "search ns.svc.cluster.local svc.cluster.local\nnameserver 10.43.0.10\noptions ndots:5\n";
        assert_eq!(resolv_conf(&dns).as_deref(), Some(text));
        assert_eq!(resolv_conf(&v1::DnsConfig::default()), None);
    }
}
