//! A pod's volumes on this node: made before its containers start, kept up to date, removed with the pod.
//!
//! Everything lies under `<data-dir>/kubelet/pods/<uid>/`, in upstream's layout: `volumes/kubernetes.io~<plugin>/<name>`.
//! Secrets, tokens and downward API files are on tmpfs and never touch the disk. [`Volumes::set_up`] is idempotent: it
//! runs when the pod starts, when the process starts again, when a ConfigMap or Secret changed, and when a token is due for
//! renewal.
//!
//! Limitations: no PersistentVolumeClaims, CSI or image volumes yet; `sizeLimit` of an emptyDir on disk is not enforced.

mod atomic;
mod hosts;
mod mounts;
mod ownership;
mod payload;
mod plugins;
mod sources;
mod subpath;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use client::{Client, Failure};
use cri::v1::{Mount, MountPropagation};
use k8s_openapi::api::core::v1::{Container, Pod, Volume};
use k8s_openapi::jiff::Timestamp;

use crate::containers::expand::expand;
use crate::containers::fields::NodeFacts;
use crate::objects::PodExt;
use payload::{Payload, PayloadError};

pub use sources::{Tokens, Watched};

/// Volumes of all pods on a node.
#[derive(Clone)]
pub struct Volumes {
    pods_dir: PathBuf,
    client: Client,
    cluster_domain: String,
}

/// What setting up a pod's volumes came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetUp {
    /// When a token has to be renewed.
    pub refresh_at: Option<Timestamp>,
}

/// A volume that could not be made; the text is that of the `FailedMount` event.
#[derive(Debug, thiserror::Error)]
#[error("MountVolume.SetUp failed for volume \"{volume}\" : {cause}")]
pub struct VolumeError {
    pub volume: String,
    pub cause: VolumeCause,
}

#[derive(Debug, thiserror::Error)]
pub enum VolumeCause {
    #[error(transparent)]
    Api(#[from] Failure),
    #[error(transparent)]
    Payload(#[from] PayloadError),
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error("hostPath type check failed: {0}")]
    HostPathType(String),
    #[error("failed to fetch token: {0}")]
    Token(Failure),
    #[error("no volume plugin matched")]
    Unsupported,
    #[error("the API server has not answered for {0} s")]
    Unreachable(u64),
    #[error("interrupted")]
    Interrupted,
}

impl VolumeCause {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> VolumeCause + '_ {
        move |error| VolumeCause::Io { path: path.to_owned(), error }
    }
}

/// Why a container's mounts cannot be made; shown with `CreateContainerConfigError`.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("volume \"{0}\" is not there")]
    NoVolume(String),
    #[error("failed to prepare subPath for volumeMount \"{mount}\" of container \"{container}\": {error}")]
    SubPath { mount: String, container: String, error: io::Error },
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
}

/// The volumes directory is readable for those who get in; what is inside has its own modes.
const POD_DIR_MODE: u32 = 0o750;

impl Volumes {
    pub fn new(pods_dir: PathBuf, client: Client, cluster_domain: String) -> Volumes {
        Volumes { pods_dir, client, cluster_domain }
    }

    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.pods_dir.join(uid)
    }

    /// Uids that have a directory here.
    pub fn pods_on_disk(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.pods_dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Makes or refreshes all volumes of a pod.
    pub async fn set_up(
        &self,
        pod: &Pod,
        node: &NodeFacts,
        watched: &Watched,
        tokens: &Tokens,
        now: Timestamp,
    ) -> Result<SetUp, VolumeError> {
        let dir = self.pod_dir(pod.uid());
        plugins::make_dir(&dir, POD_DIR_MODE)
            .map_err(|cause| VolumeError { volume: "pod directory".to_owned(), cause })?;
        let mut refresh_at: Option<Timestamp> = None;
        for volume in pod.spec().volumes.iter().flatten() {
            let fail = |cause| VolumeError { volume: volume.name.clone(), cause };
            let contents = self.contents(pod, volume, node, watched, tokens, now).await.map_err(fail)?;
            if let Some((_, Some(at))) = &contents {
                refresh_at = Some(refresh_at.map_or(*at, |before| before.min(*at)));
            }
            let (dir, pod, volume) = (dir.clone(), pod.clone(), volume.clone());
            let name = volume.name.clone();
            // File system work may take long (ownership of many files) and must not hold up other pods.
            let done = tokio::task::spawn_blocking(move || {
                plugins::apply(&dir, &pod, &volume, contents.map(|(payload, _)| payload))
            });
            let outcome = done.await.unwrap_or(Err(VolumeCause::Interrupted));
            outcome.map_err(|cause| VolumeError { volume: name, cause })?;
        }
        Ok(SetUp { refresh_at })
    }

    /// The files of a volume that has its contents from the API, and when they have to be renewed.
    async fn contents(
        &self,
        pod: &Pod,
        volume: &Volume,
        node: &NodeFacts,
        watched: &Watched,
        tokens: &Tokens,
        now: Timestamp,
    ) -> Result<Option<(Payload, Option<Timestamp>)>, VolumeCause> {
        if let Some(source) = &volume.config_map {
            let map = watched.config_map(&self.client, pod.ns(), &source.name).await?;
            return Ok(Some((payload::config_map(source, map.as_deref())?, None)));
        }
        if let Some(source) = &volume.secret {
            let name = source.secret_name.as_deref().unwrap_or_default();
            let secret = watched.secret(&self.client, pod.ns(), name).await?;
            return Ok(Some((payload::secret(source, secret.as_deref())?, None)));
        }
        if let Some(source) = &volume.downward_api {
            let mode = source.default_mode;
            return Ok(Some((payload::downward(pod, source.items.as_deref(), mode, node)?, None)));
        }
        if let Some(source) = &volume.projected {
            let mut all = Payload::new();
            let mut refresh_at: Option<Timestamp> = None;
            for one in source.sources.iter().flatten() {
                if let Some(from) = &one.config_map {
                    let map = watched.config_map(&self.client, pod.ns(), &from.name).await?;
                    all.extend(payload::projected_config_map(from, map.as_deref(), source.default_mode)?);
                }
                if let Some(from) = &one.secret {
                    let secret = watched.secret(&self.client, pod.ns(), &from.name).await?;
                    all.extend(payload::projected_secret(from, secret.as_deref(), source.default_mode)?);
                }
                if let Some(from) = &one.downward_api {
                    all.extend(payload::downward(pod, from.items.as_deref(), source.default_mode, node)?);
                }
                if let Some(from) = &one.service_account_token {
                    let token = tokens.get(&self.client, pod, from, now).await.map_err(VolumeCause::Token)?;
                    refresh_at = Some(refresh_at.map_or(token.refresh_at, |before| before.min(token.refresh_at)));
                    all.insert(from.path.clone(), payload::token(pod, token.value, source.default_mode));
                }
                if one.cluster_trust_bundle.is_some() || one.pod_certificate.is_some() {
                    return Err(VolumeCause::Unsupported);
                }
            }
            return Ok(Some((all, refresh_at)));
        }
        Ok(None)
    }

    /// A container's mounts: its volumes, `/etc/hosts`, the file of its termination message.
    pub fn mounts(
        &self,
        pod: &Pod,
        container: &Container,
        attempt: u32,
        env: &[(String, String)],
        pod_ips: &[String],
    ) -> Result<Vec<Mount>, MountError> {
        let dir = self.pod_dir(pod.uid());
        let lookup = |name: &str| env.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let volumes: BTreeMap<&str, &Volume> =
            pod.spec().volumes.iter().flatten().map(|volume| (volume.name.as_str(), volume)).collect();
        let mut mounts = Vec::new();
        for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
            let host_path = volumes
                .get(mount.name.as_str())
                .and_then(|volume| plugins::path(&dir, volume))
                .ok_or_else(|| MountError::NoVolume(mount.name.clone()))?;
            let sub_path = match (&mount.sub_path, &mount.sub_path_expr) {
                (Some(path), _) if !path.is_empty() => path.clone(),
                (_, Some(expression)) if !expression.is_empty() => expand(expression, lookup),
                _ => String::new(),
            };
            let host_path = if sub_path.is_empty() {
                host_path
            } else {
                let target =
                    dir.join("volume-subpaths").join(&mount.name).join(&container.name).join(index.to_string());
                subpath::bind(&host_path, &sub_path, &target).map_err(|error| MountError::SubPath {
                    mount: mount.name.clone(),
                    container: container.name.clone(),
                    error,
                })?;
                target
            };
            let propagation = match mount.mount_propagation.as_deref() {
                Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
                Some("Bidirectional") => MountPropagation::PropagationBidirectional,
                _ => MountPropagation::PropagationPrivate,
            };
            mounts.push(Mount {
                container_path: Path::new("/").join(&mount.mount_path).to_string_lossy().into_owned(),
                host_path: host_path.to_string_lossy().into_owned(),
                readonly: mount.read_only == Some(true),
                recursive_read_only: matches!(mount.recursive_read_only.as_deref(), Some("Enabled")),
                propagation: propagation.into(),
                ..Mount::default()
            });
        }
        let io_error = |path: &Path| {
            let path = path.to_owned();
            move |error| MountError::Io { path, error }
        };
        if !mounts.iter().any(|mount| mount.container_path == hosts::CONTAINER_PATH) {
            let path = dir.join("etc-hosts");
            hosts::write(&path, pod, pod_ips, &self.cluster_domain).map_err(io_error(&path))?;
            mounts.push(plain_mount(hosts::CONTAINER_PATH, &path));
        }
        let path = self.termination_log(pod.uid(), &container.name, attempt);
        mounts::make_file(&path).map_err(io_error(&path))?;
        let inside = container
            .termination_message_path
            .as_deref()
            .unwrap_or(crate::containers::config::TERMINATION_MESSAGE_PATH_DEFAULT);
        mounts.push(plain_mount(inside, &path));
        Ok(mounts)
    }

    /// Where a container's instance writes its last words.
    pub fn termination_log(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.pod_dir(uid).join("containers").join(container).join(attempt.to_string())
    }

    /// Unmounts and removes everything in a pod's volumes; what was mounted from elsewhere keeps its contents.
    pub async fn tear_down(&self, uid: &str) -> io::Result<()> {
        let dir = self.pod_dir(uid);
        let done = tokio::task::spawn_blocking(move || {
            mounts::unmount_below(&dir)?;
            for part in ["volumes", "volume-subpaths"] {
                mounts::remove(&dir.join(part))?;
            }
            Ok(())
        });
        done.await.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))
    }

    /// Removes the pod's directory with all that is left.
    pub async fn forget(&self, uid: &str) -> io::Result<()> {
        self.tear_down(uid).await?;
        let dir = self.pod_dir(uid);
        let done = tokio::task::spawn_blocking(move || mounts::remove(&dir));
        done.await.unwrap_or_else(|_| Err(io::ErrorKind::Interrupted.into()))
    }
}

fn plain_mount(container_path: &str, host_path: &Path) -> Mount {
    Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.to_string_lossy().into_owned(),
        ..Mount::default()
    }
}
