//! Images from tarballs: `docker save` archives and OCI layouts, plain, gzip or zstd.
//!
//! A compressed tarball is decompressed to a temporary file first, because its members are read out of order.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use oci_spec::image::ImageConfiguration;
use serde::Deserialize;

use crate::chain::{chain_ids, sha256};
use crate::error::{Error, LayerError, PullError, chain_text};
use crate::image::Image;
use crate::manifest::{Descriptor, Manifest, Platform};
use crate::pull::{CONFIG_BYTES_MAX, check_diff_ids, parse_config, place};
use crate::reference::Reference;
use crate::state::{State, delete_tree};
use crate::unpack::{Budget, decompressed, unpack};
use crate::untar::{Kind, Untar};
use crate::{Images, blocking};

const JSON_BYTES_MAX: u64 = CONFIG_BYTES_MAX as u64;
/// Members that are looked at.
const MEMBERS_MAX: usize = 100_000;
const IMAGES_MAX: usize = 1000;
/// Links from member to member that are followed; old `docker save` has them between equal layers.
const LINKS_MAX: usize = 4;
const INDEX_DEPTH_MAX: usize = 3;

/// Annotations that name an image in an OCI layout: the whole name, and what may be just a tag.
const NAME_ANNOTATION: &str = "io.containerd.image.name";
const REF_ANNOTATION: &str = "org.opencontainers.image.ref.name";

impl Images {
    /// Takes in all images of a tarball that are for this machine. Members are verified against the digests that the
    /// tarball itself states.
    pub async fn import(&self, tarball: &Path) -> Result<Vec<Arc<Image>>, Error> {
        let (state, tarball) = (self.state.clone(), tarball.to_owned());
        blocking(move || {
            let temporary = state.temporary()?;
            let imported = import(&state, &tarball, &temporary);
            delete_tree(&temporary)?;
            // Layers of an image that failed half way.
            state.collect_layers()?;
            imported
        })
        .await
    }
}

#[derive(Deserialize)]
struct DockerEntry {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags", default)]
    repo_tags: Option<Vec<String>>,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

/// A tarball with the places of its members.
struct Archive {
    file: File,
    members: HashMap<String, Member>,
}

enum Member {
    File { offset: u64, size: u64 },
    Link(String),
}

/// A layer's member, and the digest of its blob where one is stated.
struct LayerMember {
    name: String,
    digest: Option<String>,
}

fn import(state: &State, tarball: &Path, temporary: &Path) -> Result<Vec<Arc<Image>>, Error> {
    let mut archive = Archive::open(state, tarball, temporary)?;
    if archive.members.contains_key("index.json") && archive.members.contains_key("oci-layout") {
        let images = import_oci(state, &mut archive)?;
        if !images.is_empty() || !archive.members.contains_key("manifest.json") {
            return Ok(images);
        }
    }
    if archive.members.contains_key("manifest.json") {
        return import_docker(state, &mut archive);
    }
    Err(Error::Archive(format!(
        "{} is no image archive: it has neither manifest.json (docker save) nor index.json (OCI layout)",
        tarball.display()
    )))
}

fn import_docker(state: &State, archive: &mut Archive) -> Result<Vec<Arc<Image>>, Error> {
    let entries: Vec<DockerEntry> = archive.json("manifest.json")?;
    if entries.len() > IMAGES_MAX {
        return Err(Error::Archive(format!("manifest.json: more than {IMAGES_MAX} images")));
    }
    let mut images = Vec::new();
    for entry in entries {
        let config = archive.bytes(&entry.config)?;
        let layers = entry.layers.into_iter().map(|name| LayerMember { name, digest: None }).collect();
        let tags = entry.repo_tags.unwrap_or_default();
        let tags: Vec<_> = tags.iter().filter_map(|tag| Reference::parse(tag).ok()?.repo_tag()).collect();
        images.push(add(state, archive, &config, layers, &tags, None)?);
    }
    Ok(images)
}

fn import_oci(state: &State, archive: &mut Archive) -> Result<Vec<Arc<Image>>, Error> {
    let Manifest::Index(manifests) = parse_manifest("index.json", &archive.bytes("index.json")?)? else {
        return Err(Error::Archive("index.json is no index".to_owned()));
    };
    let mut images: Vec<Arc<Image>> = Vec::new();
    for descriptor in manifests.iter().take(IMAGES_MAX) {
        let Some((config, layers)) = find_manifest(archive, descriptor)? else { continue };
        let annotation = |key: &str| descriptor.annotations.as_ref().and_then(|annotations| annotations.get(key));
        let named = annotation(NAME_ANNOTATION).or_else(|| {
            // What is only a tag names no image by itself.
            annotation(REF_ANNOTATION).filter(|name| name.contains(['/', ':']))
        });
        let reference = named.and_then(|name| Reference::parse(name).ok());
        let tags: Vec<_> = reference.iter().filter_map(Reference::repo_tag).collect();
        let repo_digest = reference.map(|reference| format!("{}@{}", reference.repository(), descriptor.digest));
        let config_json = archive.verified(&config.digest)?;
        let layers = layers
            .into_iter()
            .map(|layer| LayerMember { name: blob_name(&layer.digest), digest: Some(layer.digest) })
            .collect();
        let image = add(state, archive, &config_json, layers, &tags, repo_digest)?;
        images.retain(|other| other.id != image.id);
        images.push(image);
    }
    Ok(images)
}

/// The image's manifest below a descriptor; `None` if there is none for this machine.
fn find_manifest(archive: &mut Archive, from: &Descriptor) -> Result<Option<(Descriptor, Vec<Descriptor>)>, Error> {
    let mut descriptor = from.clone();
    for _ in 0..INDEX_DEPTH_MAX {
        let here = Platform::here();
        if here.choose(std::slice::from_ref(&descriptor)).is_none() {
            return Ok(None);
        }
        let json = archive.verified(&descriptor.digest)?;
        match parse_manifest(&descriptor.digest, &json)? {
            Manifest::Image { config, layers } => return Ok(Some((config, layers))),
            Manifest::Index(manifests) => match here.choose(&manifests) {
                Some(chosen) => descriptor = chosen.clone(),
                None => return Ok(None),
            },
        }
    }
    Err(Error::Archive(format!("{}: indexes more than {INDEX_DEPTH_MAX} deep", from.digest)))
}

fn add(
    state: &State,
    archive: &mut Archive,
    config_json: &[u8],
    members: Vec<LayerMember>,
    tags: &[String],
    mut repo_digest: Option<String>,
) -> Result<Arc<Image>, Error> {
    let id = sha256(config_json);
    let archive_error = |error: PullError| Error::Archive(chain_text(&error));
    let config: ImageConfiguration = parse_config(&id, config_json).map_err(archive_error)?;
    let diff_ids = config.rootfs().diff_ids().clone();
    check_diff_ids(&id, &diff_ids, members.len()).map_err(archive_error)?;
    let chain = chain_ids(&diff_ids);
    let budget = Budget::new(state.config.image_unpacked_bytes_max);
    let mut layers = Vec::new();
    for (i, ((member, diff_id), chain_id)) in members.iter().zip(&diff_ids).zip(&chain).enumerate() {
        if let Some(layer) = state.layer(chain_id) {
            layers.push(layer);
            continue;
        }
        let temporary = state.temporary()?;
        let made = std::fs::create_dir(temporary.join("fs")).map_err(|source| Error::Io {
            action: "creating",
            path: temporary.join("fs"),
            source,
        });
        let placed = made.and_then(|()| {
            let blob = archive.reader(&member.name)?;
            let layer = member.digest.as_deref().unwrap_or(diff_id);
            let implicit = unpack(blob, member.digest.as_deref(), diff_id, &temporary.join("fs"), &budget)
                .map_err(|source| Error::Layer { layer: layer.to_owned(), source })?;
            let lower_ids: Vec<_> = chain.iter().take(i).rev().cloned().collect();
            place(state, &temporary, &implicit, &lower_ids, chain_id, diff_id)
        });
        if placed.is_err() {
            delete_tree(&temporary)?;
        }
        layers.push(placed?);
    }
    let mut image = state.add_image(&id, config.clone(), layers.clone(), tags.first().cloned(), repo_digest.take())?;
    for tag in tags.iter().skip(1) {
        image = state.add_image(&id, config.clone(), layers.clone(), Some(tag.clone()), None)?;
    }
    Ok(image)
}

fn parse_manifest(name: &str, json: &[u8]) -> Result<Manifest, Error> {
    Manifest::parse(json).map_err(|reason| Error::Archive(format!("{name}: {reason}")))
}

fn blob_name(digest: &str) -> String {
    format!("blobs/{}", digest.replacen(':', "/", 1))
}

impl Archive {
    fn open(state: &State, tarball: &Path, temporary: &Path) -> Result<Self, Error> {
        let io = |action| {
            let path = tarball.to_owned();
            move |source| Error::Io { action, path, source }
        };
        let mut file = File::open(tarball).map_err(io("opening"))?;
        let mut magic = Vec::new();
        (&file).take(4).read_to_end(&mut magic).map_err(io("reading"))?;
        file.rewind().map_err(io("reading"))?;
        if matches!(magic.as_slice(), [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd]) {
            file = decompress(file, temporary, state.config.image_unpacked_bytes_max).map_err(io("decompressing"))?;
        }
        let members =
            index(&mut file).map_err(|source| Error::Layer { layer: tarball.display().to_string(), source })?;
        Ok(Self { file, members })
    }

    fn reader(&mut self, name: &str) -> Result<impl Read + '_, Error> {
        let missing = || Error::Archive(format!("member {name:?} is missing"));
        let mut at = name.to_owned();
        for _ in 0..=LINKS_MAX {
            match self.members.get(&clean(&at)).ok_or_else(missing)? {
                Member::Link(target) => at = target.clone(),
                Member::File { offset, size } => {
                    self.file.seek(SeekFrom::Start(*offset)).map_err(|source| Error::Io {
                        action: "reading",
                        path: name.into(),
                        source,
                    })?;
                    return Ok((&self.file).take(*size));
                }
            }
        }
        Err(missing())
    }

    fn bytes(&mut self, name: &str) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        self.reader(name)?.take(JSON_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|source| Error::Io {
            action: "reading",
            path: name.into(),
            source,
        })?;
        if bytes.len() as u64 > JSON_BYTES_MAX {
            return Err(Error::Archive(format!("member {name:?} has more than {JSON_BYTES_MAX} bytes")));
        }
        Ok(bytes)
    }

    fn json<T: serde::de::DeserializeOwned>(&mut self, name: &str) -> Result<T, Error> {
        serde_json::from_slice(&self.bytes(name)?).map_err(|source| Error::Decode { what: name.to_owned(), source })
    }

    fn verified(&mut self, digest: &str) -> Result<Vec<u8>, Error> {
        let bytes = self.bytes(&blob_name(digest))?;
        let got = sha256(&bytes);
        if got != digest {
            return Err(Error::Archive(format!("blob {digest}: digest mismatch: expected {digest}, got {got}")));
        }
        Ok(bytes)
    }
}

fn decompress(file: File, temporary: &Path, bytes_max: u64) -> io::Result<File> {
    let path = temporary.join("archive.tar");
    let mut plain = File::options().read(true).write(true).create_new(true).open(&path)?;
    let copied = io::copy(&mut decompressed(file)?.take(bytes_max + 1), &mut plain)?;
    if copied > bytes_max {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("unpacks to more than {bytes_max} bytes")));
    }
    plain.flush()?;
    plain.rewind()?;
    Ok(plain)
}

/// Where each member lies.
fn index(file: &mut File) -> Result<HashMap<String, Member>, LayerError> {
    let mut members = HashMap::new();
    let mut untar = Untar::new(Counting { inner: BufReader::new(file), count: 0 });
    while let Some(entry) = untar.next()? {
        if members.len() >= MEMBERS_MAX {
            return Err(LayerError::Malformed("archive with too many members"));
        }
        let name = clean(&String::from_utf8_lossy(&entry.path));
        let link = String::from_utf8_lossy(&entry.link);
        let member = match entry.kind {
            Kind::File => Member::File { offset: untar.get_ref().count, size: entry.size },
            Kind::HardLink => Member::Link(link.into_owned()),
            Kind::Symlink => {
                let directory = name.rsplit_once('/').map_or("", |(directory, _)| directory);
                Member::Link(format!("{directory}/{link}"))
            }
            _ => continue,
        };
        members.insert(name, member);
    }
    Ok(members)
}

struct Counting<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(into)?;
        self.count += count as u64;
        Ok(count)
    }
}

/// A member's name without `.` and `..`, which lead no further than the archive.
fn clean(name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in name.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}
