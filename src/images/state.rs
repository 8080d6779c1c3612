//! What the store holds, in memory and on disk.
//!
//! ```text
//! images/<hex of the ID>.json         one record per image
//! layers/<n>/layer.json, fs/          unpacked layers; n is a number so that mount options stay short
//! rootfs/<container>/rootfs.json, upper/, work/
//! tmp/                                being made or being deleted; swept at open
//! empty/                              the lower directory of an image without layers
//! ```
//!
//! Everything appears by a rename out of `tmp/`, after its content is synced. Methods here block.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use oci_spec::image::ImageConfiguration;
use parking_lot::{Mutex, RwLock};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::ImagesConfig;
use crate::chain::{chain_ids, is_hex_64, is_sha256};
use crate::error::{Error, IoContext};
use crate::image::{Image, LayerInfo};
use crate::reference::Reference;
use crate::rootfs::{FsUsage, Rootfs, is_container_id, usage};

/// Largest record that is read back.
const RECORD_BYTES_MAX: u64 = 16 << 20;

/// The store behind [`Images`](crate::Images).
pub(crate) struct State {
    pub config: ImagesConfig,
    held: RwLock<Held>,
    /// Held by whoever changes what is on disk, so that `held` is locked for moments only and readers never wait for a
    /// disk.
    changes: Mutex<()>,
    next: AtomicU64,
}

#[derive(Default)]
struct Held {
    images: BTreeMap<String, HeldImage>,
    /// Full tag or name with digest, to image ID.
    names: HashMap<String, String>,
    /// By chain ID. A layer whose `Arc` nobody else holds is unused.
    layers: HashMap<String, Arc<LayerDir>>,
    rootfs: HashMap<String, HeldRootfs>,
    /// The highest `sequence` of any record.
    sequence: u64,
}

struct HeldImage {
    image: Arc<Image>,
    layers: Vec<Arc<LayerDir>>,
    sequence: u64,
}

struct HeldRootfs {
    image_id: String,
    layers: Vec<Arc<LayerDir>>,
}

/// An unpacked layer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LayerDir {
    #[serde(skip)]
    pub dir: PathBuf,
    pub chain_id: String,
    pub diff_id: String,
    pub usage: FsUsage,
}

#[derive(Serialize, Deserialize)]
struct ImageRecord {
    id: String,
    /// Records are written in this order; of two that claim a name the later one has it.
    sequence: u64,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    size_bytes: u64,
    diff_ids: Vec<String>,
    config: ImageConfiguration,
}

#[derive(Serialize, Deserialize)]
struct RootfsRecord {
    image_id: String,
    /// Bottom first.
    chain_ids: Vec<String>,
}

impl LayerDir {
    pub(crate) fn fs(&self) -> PathBuf {
        self.dir.join("fs")
    }
}

impl State {
    pub(crate) fn open(config: ImagesConfig) -> Result<Self, Error> {
        let dir = config.dir.clone();
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        for sub in ["images", "layers", "rootfs", "tmp", "empty"] {
            builder.create(dir.join(sub)).at("creating", &dir.join(sub))?;
        }
        for entry in entries(&dir.join("tmp"))? {
            delete_tree(&entry)?;
        }
        let mut held = Held::default();
        let mut next = 0;
        for layer in entries(&dir.join("layers"))? {
            let number = layer.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
            next = next.max(number.map_or(0, |n| n.saturating_add(1)));
            match read_json::<LayerDir>(&layer.join("layer.json")) {
                Ok(mut record) => {
                    record.dir = layer;
                    held.layers.insert(record.chain_id.clone(), Arc::new(record));
                }
                Err(error) => {
                    tracing::warn!(layer = %layer.display(), %error, "layer is dropped");
                    delete_tree(&layer)?;
                }
            }
        }
        let state = Self { config, held: RwLock::default(), changes: Mutex::default(), next: AtomicU64::new(next) };
        state.load_images(&mut held)?;
        state.load_rootfs(&mut held)?;
        *state.held.write() = held;
        state.collect_layers()?;
        Ok(state)
    }

    fn load_images(&self, held: &mut Held) -> Result<(), Error> {
        let mut records = Vec::new();
        for path in entries(&self.config.dir.join("images"))? {
            match read_json::<ImageRecord>(&path) {
                Ok(record) => records.push(record),
                Err(error) => {
                    tracing::warn!(record = %path.display(), %error, "image record is dropped");
                    remove_file(&path)?;
                }
            }
        }
        records.sort_by_key(|record| record.sequence);
        for record in records {
            let path = self.image_path(&record.id);
            let layers: Option<Vec<_>> =
                chain_ids(&record.diff_ids).iter().map(|chain| held.layers.get(chain).cloned()).collect();
            match layers {
                Some(layers) => {
                    held.insert(record.into_image(), layers);
                }
                None => {
                    tracing::warn!(image = record.id, "image is dropped: a layer of it is missing");
                    remove_file(&path)?;
                }
            }
        }
        Ok(())
    }

    fn load_rootfs(&self, held: &mut Held) -> Result<(), Error> {
        for path in entries(&self.config.dir.join("rootfs"))? {
            let Some(id) = path.file_name().and_then(|name| name.to_str()) else { continue };
            // A rootfs may be mounted right now: it is never deleted here, whatever its record says.
            match read_json::<RootfsRecord>(&path.join("rootfs.json")) {
                Ok(record) => {
                    let layers = record.chain_ids.iter().filter_map(|chain| held.layers.get(chain).cloned()).collect();
                    held.rootfs.insert(id.to_owned(), HeldRootfs { image_id: record.image_id, layers });
                }
                Err(error) => tracing::warn!(container = id, %error, "rootfs record does not decode"),
            }
        }
        Ok(())
    }

    pub(crate) fn find(&self, reference_or_id: &str) -> Option<Arc<Image>> {
        let held = self.held.read();
        let id = held.resolve(reference_or_id)?;
        held.images.get(&id).map(|held| held.image.clone())
    }

    pub(crate) fn list(&self) -> Vec<Arc<Image>> {
        self.held.read().images.values().map(|held| held.image.clone()).collect()
    }

    pub(crate) fn fs_usage(&self) -> FsUsage {
        let mut total = FsUsage { dir: self.config.dir.clone(), ..FsUsage::default() };
        for layer in self.held.read().layers.values() {
            total.used_bytes += layer.usage.used_bytes;
            total.inodes_used += layer.usage.inodes_used;
        }
        total
    }

    pub(crate) fn remove(&self, reference_or_id: &str) -> Result<(), Error> {
        {
            let _changes = self.changes.lock();
            let Some(id) = self.held.read().resolve(reference_or_id) else { return Ok(()) };
            remove_file(&self.image_path(&id))?;
            let mut held = self.held.write();
            held.images.remove(&id);
            held.names.retain(|_, named| *named != id);
        }
        self.collect_layers()
    }

    /// The layer with this chain ID. While the result is held the layer is not deleted.
    pub(crate) fn layer(&self, chain_id: &str) -> Option<Arc<LayerDir>> {
        self.held.read().layers.get(chain_id).cloned()
    }

    /// A new directory in `tmp/`.
    pub(crate) fn temporary(&self) -> Result<PathBuf, Error> {
        let path = self.temporary_path();
        fs::DirBuilder::new().mode(0o700).create(&path).at("creating", &path)?;
        Ok(path)
    }

    fn temporary_path(&self) -> PathBuf {
        self.config.dir.join("tmp").join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Gives an unpacked and synced layer its place. `unpacked` is a directory from [`temporary`](Self::temporary) that
    /// holds `fs/`.
    pub(crate) fn add_layer(&self, unpacked: &Path, chain_id: &str, diff_id: &str) -> Result<Arc<LayerDir>, Error> {
        let usage = usage(&unpacked.join("fs"))?;
        let number = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let dir = self.config.dir.join("layers").join(number);
        let layer = LayerDir { dir, chain_id: chain_id.to_owned(), diff_id: diff_id.to_owned(), usage };
        write_synced(&unpacked.join("layer.json"), &layer)?;
        sync_file_system(unpacked)?;
        let _changes = self.changes.lock();
        if let Some(present) = self.layer(chain_id) {
            return Ok(present);
        }
        fs::rename(unpacked, &layer.dir).at("renaming to", &layer.dir)?;
        sync_dir(&self.config.dir.join("layers"))?;
        let layer = Arc::new(layer);
        self.held.write().layers.insert(chain_id.to_owned(), layer.clone());
        Ok(layer)
    }

    /// Records an image under new names (which other images lose), keeping the names it had.
    pub(crate) fn add_image(
        &self,
        id: &str,
        config: ImageConfiguration,
        layers: Vec<Arc<LayerDir>>,
        tag: Option<String>,
        digest: Option<String>,
    ) -> Result<Arc<Image>, Error> {
        let _changes = self.changes.lock();
        let present = self.held.read().images.get(id).map(|held| held.image.clone());
        let (mut repo_tags, mut repo_digests) =
            present.as_ref().map(|image| (image.repo_tags.clone(), image.repo_digests.clone())).unwrap_or_default();
        let (had_tags, had_digests) = (repo_tags.len(), repo_digests.len());
        for (names, new) in [(&mut repo_tags, tag), (&mut repo_digests, digest)] {
            if let Some(name) = new.filter(|name| !names.contains(name)) {
                names.push(name);
                names.sort();
            }
        }
        if let Some(present) = present
            && (had_tags, had_digests) == (repo_tags.len(), repo_digests.len())
        {
            return Ok(present);
        }
        let record = ImageRecord {
            id: id.to_owned(),
            sequence: self.held.read().sequence + 1,
            repo_tags,
            repo_digests,
            size_bytes: layers.iter().map(|layer| layer.usage.used_bytes).sum(),
            diff_ids: layers.iter().map(|layer| layer.diff_id.clone()).collect(),
            config: without_history(config),
        };
        self.write_record(&record)?;
        let losers = self.held.write().insert(record.into_image(), layers);
        for loser in losers {
            let record = self.held.read().images.get(&loser).map(HeldImage::record);
            if let Some(record) = record {
                self.write_record(&record)?;
            }
        }
        self.find(id).ok_or_else(|| Error::ImageNotFound(id.to_owned()))
    }

    fn write_record(&self, record: &ImageRecord) -> Result<(), Error> {
        let temporary = self.temporary_path();
        write_synced(&temporary, record)?;
        let path = self.image_path(&record.id);
        fs::rename(&temporary, &path).at("renaming to", &path)?;
        sync_dir(&self.config.dir.join("images"))
    }

    fn image_path(&self, id: &str) -> PathBuf {
        self.config.dir.join("images").join(format!("{}.json", id.strip_prefix("sha256:").unwrap_or(id)))
    }

    pub(crate) fn prepare_rootfs(&self, image_id: &str, container_id: &str) -> Result<Rootfs, Error> {
        if !is_container_id(container_id) {
            return Err(Error::BadContainerId(container_id.to_owned()));
        }
        let dir = self.config.dir.join("rootfs").join(container_id);
        let _changes = self.changes.lock();
        let held = self.held.read();
        if let Some(present) = held.rootfs.get(container_id) {
            if held.resolve(image_id).is_none_or(|id| id != present.image_id) && image_id != present.image_id {
                return Err(Error::RootfsOfAnotherImage { container_id: container_id.to_owned() });
            }
            return Ok(self.rootfs(&dir, &present.layers));
        }
        let id = held.resolve(image_id).ok_or_else(|| Error::ImageNotFound(image_id.to_owned()))?;
        let layers = held.images.get(&id).map(|held| held.layers.clone()).unwrap_or_default();
        drop(held);
        let temporary = self.temporary()?;
        let mut builder = fs::DirBuilder::new();
        // The upper directory is the container's root directory: everybody may enter it.
        builder.mode(0o755).create(temporary.join("upper")).at("creating", &temporary)?;
        if let Some(top) = layers.last() {
            copy_root_metadata(&top.fs(), &temporary.join("upper"))?;
        }
        builder.mode(0o700).create(temporary.join("work")).at("creating", &temporary)?;
        let record = RootfsRecord {
            image_id: id.clone(),
            chain_ids: layers.iter().map(|layer| layer.chain_id.clone()).collect(),
        };
        // Not synced: after a power cut no container runs, and kubelet makes new ones.
        let json =
            serde_json::to_vec(&record).map_err(|source| Error::Decode { what: "rootfs.json".into(), source })?;
        fs::write(temporary.join("rootfs.json"), json).at("writing", &temporary)?;
        match fs::rename(&temporary, &dir) {
            Ok(()) => {}
            Err(error) => {
                delete_tree(&temporary)?;
                return Err(error).at("renaming to", &dir);
            }
        }
        let rootfs = self.rootfs(&dir, &layers);
        let kept = HeldRootfs { image_id: id, layers };
        self.held.write().rootfs.insert(container_id.to_owned(), kept);
        Ok(rootfs)
    }

    fn rootfs(&self, dir: &Path, layers: &[Arc<LayerDir>]) -> Rootfs {
        let mut lowerdirs: Vec<PathBuf> = layers.iter().rev().map(|layer| layer.fs()).collect();
        if lowerdirs.is_empty() {
            lowerdirs.push(self.config.dir.join("empty"));
        }
        Rootfs {
            lowerdirs,
            upperdir: dir.join("upper"),
            workdir: dir.join("work"),
            layers_dir: self.config.dir.join("layers"),
        }
    }

    pub(crate) fn release_rootfs(&self, container_id: &str) -> Result<(), Error> {
        if !is_container_id(container_id) {
            return Err(Error::BadContainerId(container_id.to_owned()));
        }
        let dir = self.config.dir.join("rootfs").join(container_id);
        let doomed = self.temporary_path();
        {
            let _changes = self.changes.lock();
            match fs::rename(&dir, &doomed) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).at("renaming", &dir),
            }
            self.held.write().rootfs.remove(container_id);
        }
        delete_tree(&doomed)?;
        self.collect_layers()
    }

    pub(crate) fn rootfs_ids(&self) -> Vec<String> {
        self.held.read().rootfs.keys().cloned().collect()
    }

    pub(crate) fn rootfs_usage(&self, container_id: &str) -> Result<Option<FsUsage>, Error> {
        if !self.held.read().rootfs.contains_key(container_id) {
            return Ok(None);
        }
        usage(&self.config.dir.join("rootfs").join(container_id).join("upper")).map(Some)
    }

    /// Deletes the layers that nothing refers to.
    pub(crate) fn collect_layers(&self) -> Result<(), Error> {
        let mut doomed = Vec::new();
        {
            let _changes = self.changes.lock();
            let unused: Vec<_> = {
                let mut held = self.held.write();
                held.layers.extract_if(|_, layer| Arc::strong_count(layer) == 1).map(|(_, layer)| layer).collect()
            };
            for layer in unused {
                let temporary = self.temporary_path();
                fs::rename(&layer.dir, &temporary).at("renaming", &layer.dir)?;
                doomed.push(temporary);
            }
        }
        doomed.iter().try_for_each(|dir| delete_tree(dir))
    }
}

impl Held {
    fn resolve(&self, reference_or_id: &str) -> Option<String> {
        let full =
            if is_hex_64(reference_or_id) { format!("sha256:{reference_or_id}") } else { reference_or_id.to_owned() };
        if is_sha256(&full) {
            return self.images.contains_key(&full).then_some(full);
        }
        let reference = Reference::parse(reference_or_id).ok()?;
        let name = match &reference.digest {
            Some(digest) => format!("{}@{digest}", reference.repository()),
            None => reference.to_string(),
        };
        self.names.get(&name).cloned()
    }

    /// Takes in an image whose names are its own from now on. Returns the images that lost one.
    fn insert(&mut self, (image, sequence): (Image, u64), layers: Vec<Arc<LayerDir>>) -> Vec<String> {
        let mut losers = Vec::new();
        self.sequence = self.sequence.max(sequence);
        for name in image.repo_tags.iter().chain(&image.repo_digests) {
            let former = self.names.insert(name.clone(), image.id.clone());
            if let Some(former) = former.filter(|former| *former != image.id)
                && let Some(held) = self.images.get_mut(&former)
            {
                let mut without = (*held.image).clone();
                without.repo_tags.retain(|tag| tag != name);
                without.repo_digests.retain(|digest| digest != name);
                held.image = Arc::new(without);
                losers.push(former);
            }
        }
        self.images.insert(image.id.clone(), HeldImage { image: Arc::new(image), layers, sequence });
        losers
    }
}

impl HeldImage {
    fn record(&self) -> ImageRecord {
        let image = &self.image;
        ImageRecord {
            id: image.id.clone(),
            sequence: self.sequence,
            repo_tags: image.repo_tags.clone(),
            repo_digests: image.repo_digests.clone(),
            size_bytes: image.size_bytes,
            diff_ids: image.layers.iter().map(|layer| layer.diff_id.clone()).collect(),
            config: (*image.config).clone(),
        }
    }
}

impl ImageRecord {
    fn into_image(self) -> (Image, u64) {
        let layers = chain_ids(&self.diff_ids)
            .into_iter()
            .zip(self.diff_ids)
            .map(|(chain_id, diff_id)| LayerInfo { diff_id, chain_id })
            .collect();
        let image = Image {
            id: self.id,
            repo_tags: self.repo_tags,
            repo_digests: self.repo_digests,
            size_bytes: self.size_bytes,
            config: Arc::new(self.config),
            layers,
        };
        (image, self.sequence)
    }
}

fn without_history(mut config: ImageConfiguration) -> ImageConfiguration {
    config.set_history(None);
    config
}

/// The merged root directory has the uppermost directory's owner and mode.
fn copy_root_metadata(from: &Path, to: &Path) -> Result<(), Error> {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(from).at("reading", from)?;
    std::os::unix::fs::chown(to, Some(metadata.uid()), Some(metadata.gid())).at("changing the owner of", to)?;
    fs::set_permissions(to, metadata.permissions()).at("changing the mode of", to)
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut paths = fs::read_dir(dir)
        .and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>())
        .at("reading directory", dir)?;
    paths.sort();
    Ok(paths)
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let file = File::open(path).at("opening", path)?;
    let mut bytes = Vec::new();
    file.take(RECORD_BYTES_MAX).read_to_end(&mut bytes).at("reading", path)?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Decode { what: path.display().to_string(), source })
}

fn write_synced(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let json =
        serde_json::to_vec(value).map_err(|source| Error::Decode { what: path.display().to_string(), source })?;
    let mut file = File::create(path).at("creating", path)?;
    file.write_all(&json).at("writing", path)?;
    file.sync_all().at("syncing", path)
}

fn sync_dir(dir: &Path) -> Result<(), Error> {
    File::open(dir).and_then(|file| file.sync_all()).at("syncing", dir)
}

/// One sync for all files of a layer, instead of one per file.
fn sync_file_system(dir: &Path) -> Result<(), Error> {
    let file = File::open(dir).at("opening", dir)?;
    rustix::fs::syncfs(&file).at("syncing the file system of", dir)
}

fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).at("deleting", path),
    }
}

/// Deletes a file or a directory with all it holds, following no symbolic link.
pub(crate) fn delete_tree(path: &Path) -> Result<(), Error> {
    let deleted = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match deleted {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).at("deleting", path),
    }
}
