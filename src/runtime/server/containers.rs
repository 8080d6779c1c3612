//! Containers: made from an image and a request, started and stopped by the pod's shim.

use std::collections::HashMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cri::v1;
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Status;

use super::plan::{self, HostDevice};
use super::sandboxes::{blocking, internal, new_id};
use super::shims::ShimError;
use super::state::{Container, ContainerRecord, Sandbox};
use super::{Runtime, views};
use crate::shim::protocol::{FailureKind, Reply, Request};
use crate::spec::{ContainerStatus, DeviceSpec, RootfsSpec};

/// How long killed processes may take to be gone.
const KILL_MAX: Duration = Duration::from_secs(120);
const PROFILE_BYTES_MAX: u64 = 1 << 20;
/// Devices of a directory, or of the node for a privileged container.
const DEVICES_MAX: usize = 4096;

pub fn shim_status(what: &str, error: ShimError) -> Status {
    match error {
        ShimError::Failed { kind: FailureKind::NotFound, message } => Status::not_found(message),
        ShimError::Failed { kind: FailureKind::NotRunning, message } => Status::failed_precondition(message),
        ShimError::Failed { kind: FailureKind::Other, message } => Status::unknown(format!("{what}: {message}")),
        other => internal(what, other),
    }
}

impl Runtime {
    pub async fn create_container(&self, request: v1::CreateContainerRequest) -> Result<String, Status> {
        let sandbox = self.sandbox(&request.pod_sandbox_id)?;
        let config = request.config.ok_or_else(|| Status::invalid_argument("container config is nil"))?;
        if config.metadata.is_none() {
            return Err(Status::invalid_argument("container config must include metadata"));
        }
        if !sandbox.is_ready() {
            return Err(Status::failed_precondition(format!("sandbox {:?} is not running", sandbox.id)));
        }
        let name = config.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
        let image = self.images.get(&name).ok_or_else(|| Status::not_found(format!("image {name:?} not found")))?;
        let id = new_id();
        let rootfs = self
            .images
            .prepare_rootfs(&image.id, &id)
            .await
            .map_err(|error| internal("prepare the root filesystem", error))?;
        let dir = self.container_dir(&id);
        let relative = |path: PathBuf| {
            path.strip_prefix(&rootfs.layers_dir).map(Path::to_path_buf).unwrap_or_else(|_| path.clone())
        };
        let rootfs = RootfsSpec {
            lowers: rootfs.lowerdirs.into_iter().map(relative).collect(),
            base: rootfs.layers_dir.clone(),
            upper: rootfs.upperdir,
            work: rootfs.workdir,
            target: dir.join("rootfs"),
            readonly: false,
        };
        let made = self.create_with(&id, dir, &sandbox, config, &image, rootfs).await;
        if made.is_err() {
            let _ = std::fs::remove_dir_all(self.container_dir(&id));
            self.release(&id).await?;
        }
        made.map(|()| id)
    }

    async fn create_with(
        &self,
        id: &str,
        dir: PathBuf,
        sandbox: &Arc<Sandbox>,
        config: v1::ContainerConfig,
        image: &images::Image,
        rootfs: RootfsSpec,
    ) -> Result<(), Status> {
        let invalid = |error: plan::PlanError| Status::invalid_argument(error.to_string());
        let mut volumes = HashMap::new();
        for volume in config.mounts.iter().filter_map(|mount| mount.image.as_ref()) {
            let layers = self.volume_layers(id, &volume.image).await?;
            volumes.insert(volume.image.clone(), layers);
        }
        let (wanted, of_sandbox) = (config.clone(), sandbox.clone());
        let profile = self.localhost_profile(&config)?;
        let (devices, rootfs) = blocking(move || {
            prepare_host(&wanted, &rootfs)?;
            let log_dir = &of_sandbox.config.log_directory;
            if !log_dir.is_empty() {
                std::fs::create_dir_all(log_dir).map_err(|error| internal("make the log directory", error))?;
            }
            host_devices(&wanted).map(|devices| (devices, rootfs))
        })
        .await??;
        let of_image = image.config.config().as_ref();
        let parent = sandbox.record.lock().cgroup_parent.clone();
        let spec = plan::container(plan::Input {
            id,
            dir: &dir,
            sandbox_dir: &sandbox.dir,
            sandbox: &sandbox.config,
            config: &config,
            image: of_image,
            rootfs,
            cgroup_parent: &parent,
            node_hostname: &self.node_hostname,
            devices,
            volumes,
            localhost_profile: profile,
        })
        .map_err(invalid)?;
        let resources = config.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default();
        let container = Container {
            id: id.to_owned(),
            dir,
            record: ContainerRecord {
                sandbox_id: sandbox.id.clone(),
                created_at_ns: views::now_ns(),
                image_id: image.id.clone(),
                image_ref: image.repo_digests.first().unwrap_or(&image.id).clone(),
                spec,
            },
            config,
            resources: Mutex::new(resources),
            status: watch::channel(ContainerStatus::default()).0,
            usage: Mutex::default(),
            work: tokio::sync::Mutex::default(),
        };
        container.create().map_err(|error| internal("write container record", error))?;
        let container = Arc::new(container);
        self.containers.write().insert(id.to_owned(), container.clone());
        self.emit_container(&container, v1::ContainerEventType::ContainerCreatedEvent);
        Ok(())
    }

    /// An image that is mounted as a volume is held like a container's root.
    async fn volume_layers(&self, container_id: &str, name: &str) -> Result<Vec<PathBuf>, Status> {
        let image = self.images.get(name).ok_or_else(|| Status::not_found(format!("image {name:?} not found")))?;
        let holder = volume_holder(container_id, &image.id);
        let rootfs = self
            .images
            .prepare_rootfs(&image.id, &holder)
            .await
            .map_err(|error| internal("prepare the image volume", error))?;
        Ok(rootfs.lowerdirs)
    }

    fn localhost_profile(&self, config: &v1::ContainerConfig) -> Result<Option<serde_json::Value>, Status> {
        let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
        let Some(profile) = security
            .and_then(|security| security.seccomp.as_ref())
            .filter(|profile| profile.profile_type() == v1::security_profile::ProfileType::Localhost)
        else {
            return Ok(None);
        };
        let path = self.config.seccomp_dir.join(&profile.localhost_ref);
        let fail = |text: String| Status::invalid_argument(format!("seccomp profile {}: {text}", path.display()));
        let meta = std::fs::metadata(&path).map_err(|error| fail(error.to_string()))?;
        if meta.len() > PROFILE_BYTES_MAX {
            return Err(fail("too large".into()));
        }
        let text = std::fs::read(&path).map_err(|error| fail(error.to_string()))?;
        serde_json::from_slice(&text).map(Some).map_err(|error| fail(error.to_string()))
    }

    pub async fn start_container(&self, id: &str) -> Result<(), Status> {
        let container = self.container(id)?;
        let _working = container.work.lock().await;
        if container.state() != v1::ContainerState::ContainerCreated {
            return Err(Status::failed_precondition(format!(
                "container is in {} state",
                container.state().as_str_name()
            )));
        }
        let sandbox = self.sandbox(&container.record.sandbox_id)?;
        let request = Request::Start(Box::new(container.record.spec.clone()));
        match sandbox.shim.call(&request).await {
            Ok(Reply::Status { status, .. }) => {
                self.advance(&container, status);
                Ok(())
            }
            Ok(_) => Err(shim_status("start container", ShimError::Unexpected)),
            Err(error) => Err(shim_status("failed to start container", error)),
        }
    }

    pub async fn stop_container(&self, id: &str, timeout_s: i64) -> Result<(), Status> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        self.stop_known(&container, Duration::from_secs(timeout_s.max(0).unsigned_abs())).await
    }

    /// Asks it to end, and after the grace period makes it. Several may wait for the same container: the
    /// shortest grace wins.
    pub async fn stop_known(&self, container: &Container, grace: Duration) -> Result<(), Status> {
        if container.state() != v1::ContainerState::ContainerRunning {
            return Ok(());
        }
        let Ok(sandbox) = self.sandbox(&container.record.sandbox_id) else { return Ok(()) };
        let kill = |signal, all| {
            let (id, shim) = (container.id.clone(), sandbox.shim.clone());
            async move {
                match shim.order(&Request::Kill { container: id, signal, all }).await {
                    // It has ended meanwhile, which the watch tells.
                    Ok(()) | Err(ShimError::Failed { kind: FailureKind::NotRunning, .. } | ShimError::Gone(_)) => {
                        Ok(())
                    }
                    Err(error) => Err(shim_status("stop container", error)),
                }
            }
        };
        let mut status = container.status.subscribe();
        if !grace.is_zero() {
            kill(container.record.spec.stop_signal, false).await?;
            let ended = status.wait_for(|status| !status.is_running());
            if tokio::time::timeout(grace, ended).await.is_ok() {
                return Ok(());
            }
        }
        kill(libc::SIGKILL, true).await?;
        let ended = status.wait_for(|status| !status.is_running());
        match tokio::time::timeout(KILL_MAX, ended).await {
            Ok(_) => Ok(()),
            Err(_) => Err(Status::deadline_exceeded(format!("container {:?} does not end", container.id))),
        }
    }

    pub async fn remove_container(&self, id: &str) -> Result<(), Status> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        self.remove_known(&container).await
    }

    pub async fn remove_known(&self, container: &Arc<Container>) -> Result<(), Status> {
        let _working = container.work.lock().await;
        if container.state() == v1::ContainerState::ContainerRunning {
            self.stop_known(container, Duration::ZERO).await?;
        }
        if let Ok(sandbox) = self.sandbox(&container.record.sandbox_id)
            && sandbox.is_ready()
        {
            // The shim may be on its way out; it forgets either way.
            let _ = sandbox.shim.order(&Request::Forget { container: container.id.clone() }).await;
        }
        self.release(&container.id).await?;
        for image in container.config.mounts.iter().filter_map(|mount| mount.image.as_ref()) {
            if let Some(image) = self.images.get(&image.image) {
                self.release(&volume_holder(&container.id, &image.id)).await?;
            }
        }
        let (hierarchy, group, dir) = (self.hierarchy.clone(), container.cgroup().to_owned(), container.dir.clone());
        blocking(move || {
            let _ = hierarchy.remove(&group);
            match std::fs::remove_dir_all(dir) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            }
        })
        .await?
        .map_err(|error| internal("remove container files", error))?;
        if self.containers.write().remove(&container.id).is_some() {
            self.emit_container(container, v1::ContainerEventType::ContainerDeletedEvent);
        }
        Ok(())
    }

    async fn release(&self, id: &str) -> Result<(), Status> {
        self.images.release_rootfs(id).await.map_err(|error| internal("remove the root filesystem", error))
    }

    pub async fn update_resources(&self, request: v1::UpdateContainerResourcesRequest) -> Result<(), Status> {
        let container = self.container(&request.container_id)?;
        let Some(linux) = request.linux else { return Ok(()) };
        if container.state() == v1::ContainerState::ContainerExited {
            return Err(Status::failed_precondition(format!("container {:?} is not running", container.id)));
        }
        let _working = container.work.lock().await;
        if container.state() == v1::ContainerState::ContainerRunning {
            let (hierarchy, group, new) =
                (self.hierarchy.clone(), container.cgroup().to_owned(), plan::resources(&linux));
            blocking(move || hierarchy.update(&group, &new))
                .await?
                .map_err(|error| internal("update container resources", error))?;
        }
        container.set_resources(&linux);
        Ok(())
    }

    pub async fn reopen_log(&self, id: &str) -> Result<(), Status> {
        let container = self.container(id)?;
        if container.state() != v1::ContainerState::ContainerRunning {
            return Err(Status::failed_precondition("container is not running"));
        }
        let sandbox = self.sandbox(&container.record.sandbox_id)?;
        let request = Request::ReopenLog { container: container.id.clone() };
        sandbox.shim.order(&request).await.map_err(|error| shim_status("reopen container log", error))
    }
}

/// The name under which a container holds an image that it mounts.
fn volume_holder(container_id: &str, image_id: &str) -> String {
    let short: String = image_id.trim_start_matches("sha256:").chars().take(16).collect();
    format!("{container_id}-{short}")
}

/// Makes what the container's mounts need on the node.
fn prepare_host(config: &v1::ContainerConfig, rootfs: &RootfsSpec) -> Result<(), Status> {
    let failed = |error| internal("make container directory", error);
    std::fs::create_dir_all(&rootfs.target).map_err(failed)?;
    if let Some(dir) = rootfs.target.parent() {
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o711)).map_err(failed)?;
    }
    for mount in config.mounts.iter().filter(|mount| mount.image.is_none()) {
        let source = Path::new(&mount.host_path);
        if !source.is_absolute() {
            return Err(Status::invalid_argument(format!("mount source {:?} is not absolute", mount.host_path)));
        }
        // As containerd does: a source that is missing is an empty directory.
        if std::fs::symlink_metadata(source).is_err() {
            std::fs::create_dir_all(source)
                .map_err(|error| internal(&format!("make mount source {}", source.display()), error))?;
        }
    }
    Ok(())
}

/// The devices that a container asks for, and all of the node's for a privileged one.
fn host_devices(config: &v1::ContainerConfig) -> Result<Vec<HostDevice>, Status> {
    let mut found = Vec::new();
    let privileged = config
        .linux
        .as_ref()
        .and_then(|linux| linux.security_context.as_ref())
        .is_some_and(|security| security.privileged);
    if privileged {
        walk(Path::new("/dev"), Path::new("/dev"), "rwm", &mut found);
    }
    for device in &config.devices {
        let (host, inside) = (Path::new(&device.host_path), Path::new(&device.container_path));
        let meta = std::fs::metadata(host)
            .map_err(|error| Status::invalid_argument(format!("device {}: {error}", host.display())))?;
        if meta.is_dir() {
            walk(host, inside, &device.permissions, &mut found);
        } else {
            let device = look_up(host, inside, &device.permissions, &meta);
            found.push(device.ok_or_else(|| Status::invalid_argument(format!("{} is not a device", host.display())))?);
        }
    }
    Ok(found)
}

fn look_up(host: &Path, inside: &Path, permissions: &str, meta: &std::fs::Metadata) -> Option<HostDevice> {
    let kind = match meta.file_type() {
        kind if kind.is_block_device() => 'b',
        kind if kind.is_char_device() => 'c',
        _ => return None,
    };
    Some(HostDevice {
        spec: DeviceSpec { host_path: host.to_owned(), container_path: inside.to_owned() },
        kind,
        major: nix::sys::stat::major(meta.rdev()),
        minor: nix::sys::stat::minor(meta.rdev()),
        permissions: permissions.to_owned(),
    })
}

/// Devices below a directory, without those that every container has of its own.
fn walk(host: &Path, inside: &Path, permissions: &str, found: &mut Vec<HostDevice>) {
    for entry in std::fs::read_dir(host).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let own = ["pts", "shm", "mqueue", "fd", "console", "ptmx", "null", "zero", "full", "random", "urandom", "tty"];
        if found.len() >= DEVICES_MAX || (host == Path::new("/dev") && own.iter().any(|own| name == *own)) {
            continue;
        }
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            walk(&path, &inside.join(name), permissions, found);
        } else if let Some(device) = look_up(&path, &inside.join(name), permissions, &meta) {
            found.push(device);
        }
    }
}
