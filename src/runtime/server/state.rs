//! Sandboxes and containers in memory and on disk, and how the server finds them again.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use cri::v1;
use parking_lot::Mutex;
use prost::Message;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tonic::Status;

use super::shims::ShimAddress;
use super::{Error, Runtime};
use crate::disk;
use crate::shim::protocol::{Reply, Request};
use crate::spec::{ContainerSpec, ContainerStatus, Resources};

/// Directories of the state directory, and of the run directory.
pub const SANDBOXES: &str = "sandboxes";
pub const CONTAINERS: &str = "containers";
pub const SHIMS: &str = "shims";
/// A record's directory has its request beside it, as it came.
const RECORD: &str = "record.json";
const CONFIG: &str = "config.pb";
const STATUS: &str = "status.json";
/// How a container ends whose end nobody saw, as containerd reports it.
const UNKNOWN_CODE: i32 = 255;
/// A socket's path may have 108 bytes, and an ID has 64.
const SOCKET_ID_CHARS: usize = 24;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub created_at_ns: i64,
    /// Set before anything is taken down, so that it is never taken for running again.
    pub stopped: bool,
    pub addresses: Vec<IpAddr>,
    pub host_network: bool,
    pub cgroup_parent: String,
    /// Whether the parent was missing, and so is removed with the sandbox.
    pub made_cgroup_parent: bool,
    pub runtime_handler: String,
}

/// A pod sandbox.
pub struct Sandbox {
    pub id: String,
    pub dir: PathBuf,
    pub config: v1::PodSandboxConfig,
    pub record: Mutex<SandboxRecord>,
    pub shim: ShimAddress,
    /// 0 when there is none.
    pub shim_pid: AtomicI32,
    /// Held while it is stopped or removed.
    pub work: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub sandbox_id: String,
    pub created_at_ns: i64,
    pub image_id: String,
    /// A digest reference if the image has one, else its ID.
    pub image_ref: String,
    pub spec: ContainerSpec,
}

/// A container.
pub struct Container {
    pub id: String,
    pub dir: PathBuf,
    pub config: v1::ContainerConfig,
    pub record: ContainerRecord,
    /// Limits as last set.
    pub resources: Mutex<v1::LinuxContainerResources>,
    pub status: watch::Sender<ContainerStatus>,
    /// What its writable layer took, and when that was looked up.
    pub usage: Mutex<Option<(tokio::time::Instant, images::FsUsage)>>,
    /// Held while it is started, stopped or removed.
    pub work: tokio::sync::Mutex<()>,
}

impl Sandbox {
    pub fn is_ready(&self) -> bool {
        !self.record.lock().stopped && self.shim_pid.load(Ordering::Acquire) != 0
    }

    pub fn save(&self) -> std::io::Result<()> {
        let record = self.record.lock().clone();
        disk::replace_json(&self.dir.join(RECORD), &record)
    }

    pub fn create(&self) -> std::io::Result<()> {
        disk::replace(&self.dir.join(CONFIG), &self.config.encode_to_vec())?;
        self.save()
    }
}

impl Container {
    pub fn create(&self) -> std::io::Result<()> {
        disk::replace(&self.dir.join(CONFIG), &self.config.encode_to_vec())?;
        disk::replace_json(&self.dir.join(RECORD), &self.record)
    }

    pub fn state(&self) -> v1::ContainerState {
        let status = self.status.borrow();
        match (status.pid, status.finished_at_ns) {
            (_, finished) if finished != 0 => v1::ContainerState::ContainerExited,
            (0, _) => v1::ContainerState::ContainerCreated,
            _ => v1::ContainerState::ContainerRunning,
        }
    }

    pub fn cgroup(&self) -> &str {
        &self.record.spec.cgroup.path
    }

    pub fn set_resources(&self, resources: &v1::LinuxContainerResources) -> Resources {
        let mut known = self.resources.lock();
        merge(&mut known, resources);
        super::plan::resources(resources)
    }

    /// Takes a status that the shim reported, and says what has happened. A container that has ended stays so.
    pub fn advance(&self, status: ContainerStatus) -> Option<v1::ContainerEventType> {
        let mut event = None;
        self.status.send_if_modified(|known| {
            if known.finished_at_ns != 0 || *known == status {
                return false;
            }
            event = if status.finished_at_ns != 0 {
                Some(v1::ContainerEventType::ContainerStoppedEvent)
            } else if known.pid == 0 && status.pid != 0 {
                Some(v1::ContainerEventType::ContainerStartedEvent)
            } else {
                None
            };
            *known = status;
            true
        });
        event
    }
}

/// Fields that are set replace those that were.
fn merge(known: &mut v1::LinuxContainerResources, new: &v1::LinuxContainerResources) {
    let number = |known: &mut i64, new: i64| {
        if new != 0 {
            *known = new;
        }
    };
    number(&mut known.cpu_period, new.cpu_period);
    number(&mut known.cpu_quota, new.cpu_quota);
    number(&mut known.cpu_shares, new.cpu_shares);
    number(&mut known.memory_limit_in_bytes, new.memory_limit_in_bytes);
    number(&mut known.memory_swap_limit_in_bytes, new.memory_swap_limit_in_bytes);
    number(&mut known.oom_score_adj, new.oom_score_adj);
    if !new.cpuset_cpus.is_empty() {
        known.cpuset_cpus.clone_from(&new.cpuset_cpus);
    }
    if !new.cpuset_mems.is_empty() {
        known.cpuset_mems.clone_from(&new.cpuset_mems);
    }
    known.unified.extend(new.unified.clone());
}

impl Runtime {
    pub fn shim_address(&self, sandbox_id: &str) -> ShimAddress {
        let short = sandbox_id.get(..SOCKET_ID_CHARS).unwrap_or(sandbox_id);
        ShimAddress(self.config.run_dir.join(SHIMS).join(format!("{short}.sock")))
    }

    /// The group of a sandbox's shim, beside those of its containers.
    pub fn shim_cgroup(parent: &str, sandbox_id: &str) -> String {
        format!("{}/{sandbox_id}", parent.trim_end_matches('/'))
    }

    pub fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.config.state_dir.join(SANDBOXES).join(id)
    }

    pub fn container_dir(&self, id: &str) -> PathBuf {
        self.config.state_dir.join(CONTAINERS).join(id)
    }

    /// By whole ID, or by a prefix that fits only one.
    pub fn sandbox(&self, id: &str) -> Result<Arc<Sandbox>, Status> {
        find(&self.sandboxes.read(), id).ok_or_else(|| Status::not_found(format!("sandbox {id:?} not found")))
    }

    pub fn container(&self, id: &str) -> Result<Arc<Container>, Status> {
        find(&self.containers.read(), id).ok_or_else(|| Status::not_found(format!("container {id:?} not found")))
    }

    pub fn containers_of(&self, sandbox_id: &str) -> Vec<Arc<Container>> {
        let containers = self.containers.read();
        containers.values().filter(|container| container.record.sandbox_id == sandbox_id).cloned().collect()
    }

    /// Reads what is on disk and asks every shim.
    pub async fn adopt(self: &Arc<Self>) -> Result<(), Error> {
        self.read_all()?;
        let sandboxes: Vec<Arc<Sandbox>> = self.sandboxes.read().values().cloned().collect();
        let taken =
            sandboxes.iter().filter(|sandbox| !sandbox.record.lock().stopped).map(|sandbox| self.watch(sandbox));
        futures::future::join_all(taken).await;
        // Their writable layers belong to containers that are not known any more.
        for id in self.images.rootfs_ids() {
            // An image volume is held in the container's name with something behind it.
            let owner = id.split_once('-').map_or(id.as_str(), |(owner, _)| owner);
            if !self.containers.read().contains_key(owner)
                && let Err(error) = self.images.release_rootfs(&id).await
            {
                tracing::warn!(container = id, %error, "removing a forgotten root filesystem");
            }
        }
        Ok(())
    }

    fn read_all(&self) -> Result<(), Error> {
        for id in names(&self.config.state_dir.join(SANDBOXES))? {
            let dir = self.sandbox_dir(&id);
            let record: Option<SandboxRecord> = read(&dir);
            let Some((record, config)) = record.zip(read_config(&dir)) else {
                sweep(&dir);
                continue;
            };
            let sandbox = Sandbox {
                shim: self.shim_address(&id),
                dir,
                config,
                record: Mutex::new(record),
                shim_pid: AtomicI32::new(0),
                work: tokio::sync::Mutex::default(),
                id: id.clone(),
            };
            self.sandboxes.write().insert(id, Arc::new(sandbox));
        }
        for id in names(&self.config.state_dir.join(CONTAINERS))? {
            let dir = self.container_dir(&id);
            let record: Option<ContainerRecord> = read(&dir);
            let Some((record, config)) = record.zip(read_config::<v1::ContainerConfig>(&dir)) else {
                sweep(&dir);
                continue;
            };
            let status = disk::read_json(&dir.join(STATUS)).ok().flatten().unwrap_or_default();
            let resources = config.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default();
            let container = Container {
                dir,
                config,
                record,
                resources: Mutex::new(resources),
                status: watch::channel(status).0,
                usage: Mutex::default(),
                work: tokio::sync::Mutex::default(),
                id: id.clone(),
            };
            self.containers.write().insert(id, Arc::new(container));
        }
        Ok(())
    }

    /// Takes up a sandbox's shim: learns how its containers are now, and follows them from then on.
    pub async fn watch(self: &Arc<Self>, sandbox: &Arc<Sandbox>) {
        let mut conversation = match sandbox.shim.ask(&Request::Watch, &[]).await {
            Ok(conversation) => conversation,
            Err(_) => return self.shim_gone(sandbox).await,
        };
        loop {
            match conversation.next().await {
                Ok(Some(Reply::Synced { pid })) => {
                    sandbox.shim_pid.store(pid, Ordering::Release);
                    break;
                }
                Ok(Some(reply)) => self.heard(reply),
                Ok(None) | Err(_) => return self.shim_gone(sandbox).await,
            }
        }
        let (runtime, sandbox) = (Arc::downgrade(self), sandbox.clone());
        task::spawn("shim", async move {
            while let Ok(Some(reply)) = conversation.next().await {
                let Some(runtime) = runtime.upgrade() else { return };
                runtime.heard(reply);
            }
            if let Some(runtime) = runtime.upgrade() {
                runtime.shim_gone(&sandbox).await;
            }
        });
    }

    fn heard(&self, reply: Reply) {
        let Reply::Status { container, status } = reply else { return };
        // One that is not known here is being removed.
        let Some(container) = self.containers.read().get(&container).cloned() else { return };
        self.advance(&container, status);
    }

    pub fn advance(&self, container: &Container, status: ContainerStatus) {
        if let Some(event) = container.advance(status) {
            self.emit_container(container, event);
        }
    }

    /// Without their parent, containers lose their output and their exit codes: they are ended.
    async fn shim_gone(&self, sandbox: &Sandbox) {
        sandbox.shim_pid.store(0, Ordering::Release);
        let is_expected = sandbox.record.lock().stopped;
        let mut lost = Vec::new();
        for container in self.containers_of(&sandbox.id) {
            // The shim may have written what it could not say any more.
            if let Ok(Some(status)) = disk::read_json(&container.dir.join(STATUS)) {
                self.advance(&container, status);
            }
            if container.state() == v1::ContainerState::ContainerRunning {
                lost.push(container);
            }
        }
        if !is_expected {
            tracing::warn!(sandbox = sandbox.id, containers = lost.len(), "the pod's shim is gone");
        }
        for container in lost {
            let (hierarchy, path) = (self.hierarchy.clone(), container.cgroup().to_owned());
            let ended = tokio::task::spawn_blocking(move || {
                hierarchy.kill(&path);
                hierarchy.remove(&path)
            });
            if let Ok(Err(error)) = ended.await {
                tracing::warn!(container = container.id, %error, "removing the cgroup of a lost container");
            }
            let mut status = container.status.borrow().clone();
            status.finished_at_ns = super::views::now_ns();
            status.exit_code = UNKNOWN_CODE;
            status.reason = "Unknown".into();
            if let Err(error) = disk::replace_json(&container.dir.join(STATUS), &status) {
                tracing::warn!(container = container.id, %error, "writing the status of a lost container");
            }
            self.advance(&container, status);
        }
        if !is_expected {
            self.emit_sandbox(sandbox, v1::ContainerEventType::ContainerStoppedEvent);
        }
    }
}

fn find<T>(known: &std::collections::HashMap<String, Arc<T>>, id: &str) -> Option<Arc<T>> {
    if let Some(found) = known.get(id) {
        return Some(found.clone());
    }
    if id.is_empty() {
        return None;
    }
    let mut fitting = known.iter().filter(|(whole, _)| whole.starts_with(id));
    match (fitting.next(), fitting.next()) {
        (Some((_, found)), None) => Some(found.clone()),
        _ => None,
    }
}

fn names(dir: &std::path::Path) -> Result<Vec<String>, Error> {
    let entries =
        std::fs::read_dir(dir).map_err(|source| Error::Io { action: "list", path: dir.to_owned(), source })?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

fn read<T: serde::de::DeserializeOwned>(dir: &std::path::Path) -> Option<T> {
    disk::read_json(&dir.join(RECORD)).unwrap_or_else(|error| {
        tracing::warn!(dir = %dir.display(), %error, "a record does not decode");
        None
    })
}

fn read_config<T: Message + Default>(dir: &std::path::Path) -> Option<T> {
    let bytes = std::fs::read(dir.join(CONFIG)).ok()?;
    T::decode(bytes.as_slice()).ok()
}

/// A directory without a record is what a crash left of a creation or a removal.
fn sweep(dir: &std::path::Path) {
    if let Err(error) = std::fs::remove_dir_all(dir) {
        tracing::warn!(dir = %dir.display(), %error, "removing what a crash left");
    }
}
