//! From a reference to an image in the store: which manifest, which layers, each fetched and unpacked at most once at
//! a time, whoever wants it.

use std::collections::HashMap;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, Weak};

use bytes::{Buf, Bytes};
use futures::future::try_join_all;
use oci_spec::image::ImageConfiguration;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::chain::{chain_ids, is_sha256, sha256};
use crate::error::{Error, LayerError, PullError};
use crate::image::{Auth, Image, Progress};
use crate::manifest::{Descriptor, Manifest, Platform};
use crate::reference::Reference;
use crate::registry::{Failure, Registry};
use crate::state::{LayerDir, State, delete_tree};
use crate::transport::Transport;
use crate::unpack::{Budget, adopt_implicit, unpack};
use crate::{Images, blocking};

/// Layers that are downloaded and unpacked at the same time, over all pulls.
const DOWNLOADS_MAX: usize = 3;
const MANIFEST_BYTES_MAX: usize = 4 << 20;
pub(crate) const CONFIG_BYTES_MAX: usize = 8 << 20;
/// Indexes may point to indexes, but not for long.
const INDEX_DEPTH_MAX: usize = 3;
/// Pieces of a download that wait for the unpacker.
const QUEUE_PIECES_MAX: usize = 16;
/// Progress is reported in steps of this size.
const PROGRESS_STEP_BYTES: u64 = 64 << 10;

/// What pulls share.
pub(crate) struct Pulls {
    transport: Transport,
    permits: Arc<Semaphore>,
    /// By chain ID.
    jobs: Mutex<HashMap<String, Weak<Job>>>,
}

/// A layer on its way. When the last handle is dropped the work is given up.
struct Job {
    done: watch::Receiver<Option<Result<Arc<LayerDir>, Arc<PullError>>>>,
    received_bytes: watch::Receiver<u64>,
    _cancel: DropGuard,
}

struct Found {
    reference: Reference,
    /// Digest of what the reference itself named: the index, if it is one.
    digest: String,
    config: Descriptor,
    layers: Vec<Descriptor>,
    /// The endpoint that had it.
    endpoint: usize,
}

/// All that a layer's job needs.
struct LayerWork {
    images: Images,
    reference: Reference,
    auth: Option<Auth>,
    /// Where to look first.
    endpoint: usize,
    blob: Descriptor,
    diff_id: String,
    chain_id: String,
    below: Option<Arc<Job>>,
    /// Chain IDs of the layers below, uppermost first.
    lower_ids: Vec<String>,
    budget: Arc<Budget>,
}

impl Default for Pulls {
    fn default() -> Self {
        Self {
            transport: Transport::default(),
            permits: Arc::new(Semaphore::new(DOWNLOADS_MAX)),
            jobs: Mutex::default(),
        }
    }
}

impl Images {
    /// Makes sure that the image is in the store under this name. The registry is asked what a tag means now; a reference
    /// by digest that is present asks nobody. Layers that are present are not fetched again, and two pulls of one
    /// layer share the work.
    ///
    /// Dropping the future gives the pull up and leaves nothing behind.
    pub async fn pull(
        &self,
        reference: &str,
        auth: Option<Auth>,
        progress: impl Fn(Progress) + Send + Sync,
    ) -> Result<Arc<Image>, PullError> {
        let reference = Reference::parse(reference)?;
        if reference.digest.is_some()
            && let Some(image) = self.state.find(&reference.to_string())
        {
            return Ok(image);
        }
        let found = self.find_manifest(reference, auth.as_ref()).await?;
        let name = found.reference.to_string();
        let tag = found.reference.repo_tag();
        let repo_digest = format!("{}@{}", found.reference.repository(), found.digest);
        let id = found.config.digest.clone();
        if let Some(present) = self.state.find(&id) {
            let layers: Option<Vec<_>> = present.layers.iter().map(|layer| self.state.layer(&layer.chain_id)).collect();
            if let Some(layers) = layers {
                let (state, config) = (self.state.clone(), (*present.config).clone());
                return Ok(blocking(move || state.add_image(&id, config, layers, tag, Some(repo_digest))).await?);
            }
        }
        let config = self.fetch_config(&found, auth.as_ref()).await?;
        let diff_ids = config.rootfs().diff_ids().clone();
        check_diff_ids(&name, &diff_ids, found.layers.len())?;
        let layers = self.fetch_layers(&found, auth, &diff_ids, &progress).await?;
        let state = self.state.clone();
        Ok(blocking(move || state.add_image(&id, config, layers, tag, Some(repo_digest))).await?)
    }

    fn registries<'a>(
        &'a self,
        reference: &'a Reference,
        auth: Option<&'a Auth>,
    ) -> impl Iterator<Item = Registry<'a>> {
        let config = &self.state.config.registries;
        let endpoints = config.endpoints(&reference.domain).into_iter();
        endpoints.map(move |endpoint| Registry::new(&self.pulls.transport, config, endpoint, reference, auth))
    }

    /// Asks the endpoints in order for the manifest of the image for this machine.
    async fn find_manifest(&self, reference: Reference, auth: Option<&Auth>) -> Result<Found, PullError> {
        let mut last = None;
        let mut mirrors = Vec::new();
        for (endpoint, registry) in self.registries(&reference, auth).enumerate() {
            match self.find_at(&registry, &reference).await {
                Ok((digest, config, layers)) => {
                    return Ok(Found { reference: reference.clone(), digest, config, layers, endpoint });
                }
                Err(error) => {
                    if !registry.endpoint.is_origin {
                        tracing::debug!(image = %reference, mirror = registry.endpoint.authority, %error, "mirror is passed over");
                        mirrors.push(error.to_string());
                    }
                    last = Some(error);
                }
            }
        }
        Err(match last {
            Some(PullError::Unavailable { host, reason }) if !mirrors.is_empty() => {
                let mirrors = mirrors.join("; ");
                PullError::Unavailable { host, reason: format!("{reason} (mirrors: {mirrors})") }
            }
            Some(error) => error,
            None => PullError::Unavailable { host: reference.domain, reason: "no endpoint".to_owned() },
        })
    }

    async fn find_at(
        &self,
        registry: &Registry<'_>,
        reference: &Reference,
    ) -> Result<(String, Descriptor, Vec<Descriptor>), PullError> {
        let mut selector = reference.selector().to_owned();
        let mut named = None;
        for _ in 0..INDEX_DEPTH_MAX {
            let json = registry
                .manifest(&selector, MANIFEST_BYTES_MAX)
                .await
                .map_err(|failure| pull_error(failure, registry, reference))?;
            let digest = sha256(&json);
            if is_sha256(&selector) && selector != digest {
                return Err(PullError::DigestMismatch { what: "manifest", digest: selector, got: digest });
            }
            let manifest = Manifest::parse(&json)
                .map_err(|reason| PullError::Malformed { what: format!("manifest of {reference}"), reason })?;
            let named = named.get_or_insert(digest).clone();
            match manifest {
                Manifest::Image { config, layers } => return Ok((named, config, layers)),
                Manifest::Index(manifests) => {
                    let here = Platform::here();
                    let chosen = here.choose(&manifests).ok_or_else(|| PullError::NoPlatform {
                        reference: reference.to_string(),
                        platform: here.to_string(),
                    })?;
                    selector = chosen.digest.clone();
                }
            }
        }
        let reason = format!("indexes more than {INDEX_DEPTH_MAX} deep");
        Err(PullError::Malformed { what: format!("manifest of {reference}"), reason })
    }

    async fn fetch_config(&self, found: &Found, auth: Option<&Auth>) -> Result<ImageConfiguration, PullError> {
        let mut last = None;
        let mut registries: Vec<_> = self.registries(&found.reference, auth).collect();
        let first = found.endpoint.min(registries.len());
        registries.rotate_left(first);
        for registry in registries {
            match registry.small_blob(&found.config.digest, CONFIG_BYTES_MAX).await {
                Ok(json) => {
                    let got = sha256(&json);
                    if got == found.config.digest {
                        return parse_config(&found.reference.to_string(), &json);
                    }
                    let digest = found.config.digest.clone();
                    last = Some(PullError::DigestMismatch { what: "image configuration", digest, got });
                }
                Err(failure) => last = Some(pull_error(failure, &registry, &found.reference)),
            }
        }
        Err(last.unwrap_or_else(|| PullError::NotFound { reference: found.reference.to_string() }))
    }

    /// All layers, bottom first. They are fetched at the same time and put in their places in order.
    async fn fetch_layers(
        &self,
        found: &Found,
        auth: Option<Auth>,
        diff_ids: &[String],
        progress: &(impl Fn(Progress) + Send + Sync),
    ) -> Result<Vec<Arc<LayerDir>>, PullError> {
        let budget = Arc::new(Budget::new(self.state.config.image_unpacked_bytes_max));
        let chain = chain_ids(diff_ids);
        let mut jobs: Vec<(Arc<Job>, &Descriptor)> = Vec::new();
        for (i, ((blob, diff_id), chain_id)) in found.layers.iter().zip(diff_ids).zip(&chain).enumerate() {
            let work = LayerWork {
                images: self.clone(),
                reference: found.reference.clone(),
                auth: auth.clone(),
                endpoint: found.endpoint,
                blob: blob.clone(),
                diff_id: diff_id.clone(),
                chain_id: chain_id.clone(),
                below: jobs.last().map(|(job, _)| job.clone()),
                lower_ids: chain.iter().take(i).rev().cloned().collect(),
                budget: budget.clone(),
            };
            jobs.push((self.pulls.job(work), blob));
        }
        try_join_all(jobs.iter().map(|(job, blob)| job.wait(blob, progress))).await
    }
}

impl Pulls {
    /// The job that is on its way for this layer, or a new one.
    fn job(&self, work: LayerWork) -> Arc<Job> {
        let mut jobs = self.jobs.lock();
        jobs.retain(|_, job| job.strong_count() > 0);
        if let Some(job) = jobs.get(&work.chain_id).and_then(Weak::upgrade)
            // One that failed is no help.
            && !matches!(&*job.done.borrow(), Some(Err(_)))
        {
            return job;
        }
        let (done, done_receiver) = watch::channel(None);
        let (received, received_bytes) = watch::channel(0);
        let cancel = CancellationToken::new();
        let job = Arc::new(Job { done: done_receiver, received_bytes, _cancel: cancel.clone().drop_guard() });
        jobs.insert(work.chain_id.clone(), Arc::downgrade(&job));
        let permits = self.permits.clone();
        task::spawn("image layer", async move {
            let result = work.run(&permits, &received, &cancel).await;
            done.send_replace(Some(result.map_err(Arc::new)));
        });
        job
    }
}

impl Job {
    async fn finished(&self) -> Result<Arc<LayerDir>, PullError> {
        let mut done = self.done.clone();
        let finished = done.wait_for(Option::is_some).await;
        match finished.as_deref() {
            Ok(Some(Ok(layer))) => Ok(layer.clone()),
            Ok(Some(Err(error))) => Err(PullError::Shared(error.clone())),
            // The job panicked.
            _ => Err(Error::Interrupted.into()),
        }
    }

    async fn wait(
        &self,
        blob: &Descriptor,
        progress: &(impl Fn(Progress) + Send + Sync),
    ) -> Result<Arc<LayerDir>, PullError> {
        let report = |done_bytes| {
            progress(Progress { layer: blob.digest.clone(), done_bytes, total_bytes: blob.size });
        };
        let mut received = self.received_bytes.clone();
        let finished = self.finished();
        tokio::pin!(finished);
        loop {
            tokio::select! {
                biased;
                result = &mut finished => {
                    if result.is_ok() {
                        report(blob.size);
                    }
                    return result;
                }
                Ok(()) = received.changed() => report(*received.borrow_and_update()),
            }
        }
    }
}

impl LayerWork {
    async fn run(
        self,
        permits: &Semaphore,
        received: &watch::Sender<u64>,
        cancel: &CancellationToken,
    ) -> Result<Arc<LayerDir>, PullError> {
        let state = self.images.state.clone();
        if let Some(layer) = state.layer(&self.chain_id) {
            return Ok(layer);
        }
        let interrupted = || PullError::Store(Error::Interrupted);
        let permit = tokio::select! {
            () = cancel.cancelled() => return Err(interrupted()),
            permit = permits.acquire() => permit.map_err(|_| interrupted())?,
        };
        let making = state.clone();
        let temporary = blocking(move || making.temporary()).await?;
        let unpacked = self.download_and_unpack(&temporary, received, cancel).await;
        drop(permit);
        let placed = match unpacked {
            Ok(implicit) => self.place(&state, &temporary, implicit, cancel).await,
            Err(error) => Err(error),
        };
        if placed.is_err() {
            let sweeping = blocking(move || delete_tree(&temporary)).await;
            if let Err(error) = sweeping {
                tracing::warn!(%error, "what a failed pull left behind stays until the next start");
            }
        }
        placed
    }

    async fn download_and_unpack(
        &self,
        temporary: &Path,
        received: &watch::Sender<u64>,
        cancel: &CancellationToken,
    ) -> Result<crate::unpack::ImplicitDirs, PullError> {
        let (pieces, queue) = mpsc::channel(QUEUE_PIECES_MAX);
        let root = temporary.join("fs");
        let (digest, diff_id, budget) = (self.blob.digest.clone(), self.diff_id.clone(), self.budget.clone());
        let unpacking = blocking(move || {
            use std::os::unix::fs::DirBuilderExt;
            std::fs::DirBuilder::new().mode(0o755).create(&root).map_err(|source| Error::Io {
                action: "creating",
                path: root.clone(),
                source,
            })?;
            let source = Queue { queue, current: Bytes::new(), ended: false };
            unpack(source, Some(&digest), &diff_id, &root, &budget)
                .map_err(|source| Error::Layer { layer: digest, source })
        });
        let downloading = async {
            // Dropping the sender without the empty piece that marks the end is what tells the unpacker to stop.
            let downloaded = tokio::select! {
                () = cancel.cancelled() => Err(PullError::Store(Error::Interrupted)),
                downloaded = self.download(&pieces, received) => downloaded,
            };
            if downloaded.is_ok() {
                // An unpacker that is gone has its own error.
                let _ = pieces.send(Bytes::new()).await;
            }
            drop(pieces);
            downloaded
        };
        let (unpacked, downloaded) = futures::join!(unpacking, downloading);
        match (unpacked, downloaded) {
            (Ok(implicit), Ok(())) => Ok(implicit),
            (Err(Error::Layer { source: LayerError::Cut, .. }), Err(error)) => Err(error),
            (Err(error), _) => Err(error.into()),
            (Ok(_), Err(error)) => Err(error),
        }
    }

    /// Streams the blob to the unpacker, from whichever endpoint has it.
    async fn download(&self, pieces: &mpsc::Sender<Bytes>, received: &watch::Sender<u64>) -> Result<(), PullError> {
        let mut offset = 0;
        let mut got = 0u64;
        let mut sink = |piece: Bytes| {
            got += piece.len() as u64;
            let got = got;
            received.send_if_modified(|reported| {
                let step = got >= *reported + PROGRESS_STEP_BYTES;
                if step {
                    *reported = got;
                }
                step
            });
            async move { pieces.send(piece).await.is_ok() }
        };
        let mut registries: Vec<_> = self.images.registries(&self.reference, self.auth.as_ref()).collect();
        let first = self.endpoint.min(registries.len());
        registries.rotate_left(first);
        let mut last = None;
        for registry in &registries {
            match registry.blob(&self.blob, &mut offset, &mut sink).await {
                Ok(()) => return Ok(()),
                Err(failure) => last = Some(pull_error(failure, registry, &self.reference)),
            }
        }
        Err(match last {
            Some(PullError::NotFound { reference }) => {
                PullError::NotFound { reference: format!("layer {} of {reference}", self.blob.digest) }
            }
            Some(error) => error,
            None => PullError::NotFound { reference: self.reference.to_string() },
        })
    }

    async fn place(
        &self,
        state: &Arc<State>,
        temporary: &Path,
        implicit: crate::unpack::ImplicitDirs,
        cancel: &CancellationToken,
    ) -> Result<Arc<LayerDir>, PullError> {
        if let Some(below) = &self.below {
            tokio::select! {
                () = cancel.cancelled() => return Err(Error::Interrupted.into()),
                below = below.finished() => { below?; }
            }
        }
        let (state, temporary) = (state.clone(), temporary.to_owned());
        let (chain_id, diff_id, lower_ids) = (self.chain_id.clone(), self.diff_id.clone(), self.lower_ids.clone());
        Ok(blocking(move || place(&state, &temporary, &implicit, &lower_ids, &chain_id, &diff_id)).await?)
    }
}

/// Gives an unpacked layer its place on top of the layers `lower_ids` (uppermost first).
pub(crate) fn place(
    state: &State,
    temporary: &Path,
    implicit: &crate::unpack::ImplicitDirs,
    lower_ids: &[String],
    chain_id: &str,
    diff_id: &str,
) -> Result<Arc<LayerDir>, Error> {
    let root = temporary.join("fs");
    let lowers: Vec<_> = lower_ids.iter().filter_map(|id| state.layer(id)).collect();
    let lowers: Vec<_> = lowers.iter().map(|layer| layer.fs()).collect();
    adopt_implicit(&root, implicit, &lowers).map_err(|source| Error::Io {
        action: "adopting directories into",
        path: root.clone(),
        source,
    })?;
    let layer = state.add_layer(temporary, chain_id, diff_id)?;
    // Still there if somebody else was first.
    delete_tree(temporary)?;
    Ok(layer)
}

pub(crate) fn parse_config(name: &str, json: &[u8]) -> Result<ImageConfiguration, PullError> {
    serde_json::from_slice(json)
        .map_err(|error| PullError::Malformed { what: format!("configuration of {name}"), reason: error.to_string() })
}

pub(crate) fn check_diff_ids(name: &str, diff_ids: &[String], layers: usize) -> Result<(), PullError> {
    let what = || format!("configuration of {name}");
    if diff_ids.len() != layers {
        let reason = format!("it has {} diff IDs for {layers} layers", diff_ids.len());
        return Err(PullError::Malformed { what: what(), reason });
    }
    match diff_ids.iter().find(|diff_id| !is_sha256(diff_id)) {
        Some(bad) => Err(PullError::Malformed { what: what(), reason: format!("diff ID {bad:?} is not sha256") }),
        None => Ok(()),
    }
}

fn pull_error(failure: Failure, registry: &Registry<'_>, reference: &Reference) -> PullError {
    let host = registry.endpoint.authority.clone();
    match failure {
        Failure::NotFound => PullError::NotFound { reference: reference.to_string() },
        Failure::Unauthorized(reason) => PullError::Unauthorized { host, reason },
        Failure::Unavailable(reason) => PullError::Unavailable { host, reason },
        Failure::Malformed(reason) => PullError::Malformed { what: host, reason },
    }
}

/// The pieces of a download as something to read, for the thread that unpacks.
struct Queue {
    queue: mpsc::Receiver<Bytes>,
    current: Bytes,
    ended: bool,
}

impl Read for Queue {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.current.is_empty() && !self.ended {
            match self.queue.blocking_recv() {
                Some(piece) if piece.is_empty() => self.ended = true,
                Some(piece) => self.current = piece,
                None => return Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the download was given up")),
            }
        }
        let count = self.current.len().min(into.len());
        self.current.copy_to_slice(into.get_mut(..count).unwrap_or_default());
        Ok(count)
    }
}
