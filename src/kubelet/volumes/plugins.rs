//! One function per kind of volume: emptyDir, hostPath, and those with contents from the API.

use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Pod, Volume};

use super::payload::Payload;
use super::{VolumeCause, atomic, mounts, ownership};
use crate::containers::resources::pod_resources;
use crate::objects::PodExt;
use crate::quantity;

/// An emptyDir is for everybody in the pod.
const EMPTY_DIR_MODE: u32 = 0o777;

/// Where a volume lies; `None` for kinds that this node does not know.
pub fn path(pod_dir: &Path, volume: &Volume) -> Option<PathBuf> {
    if let Some(host) = &volume.host_path {
        return Some(PathBuf::from(&host.path));
    }
    let plugin = if volume.empty_dir.is_some() {
        "empty-dir"
    } else if volume.config_map.is_some() {
        "configmap"
    } else if volume.secret.is_some() {
        "secret"
    } else if volume.downward_api.is_some() {
        "downward-api"
    } else if volume.projected.is_some() {
        "projected"
    } else {
        return None;
    };
    Some(pod_dir.join("volumes").join(format!("kubernetes.io~{plugin}")).join(&volume.name))
}

/// Makes the volume, with the files of `contents` if it has its contents from the API.
pub fn apply(pod_dir: &Path, pod: &Pod, volume: &Volume, contents: Option<Payload>) -> Result<(), VolumeCause> {
    if let Some(source) = &volume.host_path {
        return host_path(source);
    }
    let path = path(pod_dir, volume).ok_or(VolumeCause::Unsupported)?;
    let context = pod.spec().security_context.as_ref();
    let group = context.and_then(|context| context.fs_group).and_then(|group| u32::try_from(group).ok());
    if let Some(source) = &volume.empty_dir {
        empty_dir(&path, pod, source)?;
        if let Some(group) = group {
            let on_mismatch =
                context.and_then(|context| context.fs_group_change_policy.as_deref()) == Some("OnRootMismatch");
            // Only once: afterwards the files are the pod's own affair.
            if !ownership::is_set(&path, group) || (!on_mismatch && is_empty(&path)) {
                ownership::set(&path, group, ownership::Access::ReadWrite).map_err(VolumeCause::io(&path))?;
            }
        }
        return Ok(());
    }
    let contents = contents.ok_or(VolumeCause::Unsupported)?;
    make_dir(&path, EMPTY_DIR_MODE)?;
    if volume.config_map.is_none() {
        tmpfs(&path, None)?;
    }
    atomic::write(&path, &contents, group).map_err(VolumeCause::io(&path))?;
    Ok(())
}

fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}

/// Makes a directory and those above it, with just this mode whatever the umask.
pub fn make_dir(path: &Path, mode: u32) -> Result<(), VolumeCause> {
    if path.is_dir() {
        return Ok(());
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(path)
        .and_then(|()| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)))
        .map_err(VolumeCause::io(path))
}

fn empty_dir(path: &Path, pod: &Pod, source: &EmptyDirVolumeSource) -> Result<(), VolumeCause> {
    make_dir(path, EMPTY_DIR_MODE)?;
    match source.medium.as_deref() {
        None | Some("") => Ok(()),
        Some("Memory") => {
            let limit = source.size_limit.as_ref().and_then(quantity::whole).filter(|&bytes| bytes > 0);
            let pod_limit = Some(pod_resources(pod).memory_limit_bytes).filter(|&bytes| bytes > 0);
            let size = match (limit, pod_limit) {
                (Some(own), Some(pod)) => Some(own.min(pod)),
                (own, pod) => own.or(pod),
            };
            tmpfs(path, size)
        }
        Some(_) => Err(VolumeCause::Unsupported),
    }
}

fn tmpfs(path: &Path, size_bytes: Option<i64>) -> Result<(), VolumeCause> {
    mounts::tmpfs(path, EMPTY_DIR_MODE, size_bytes).map_err(VolumeCause::io(path))
}

/// Checks or makes what `type` asks for.
fn host_path(source: &HostPathVolumeSource) -> Result<(), VolumeCause> {
    let path = Path::new(&source.path);
    let found = match std::fs::metadata(path) {
        Ok(meta) => Some(meta.file_type()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(VolumeCause::Io { path: path.to_owned(), error }),
    };
    let wrong = |what: &str| Err(VolumeCause::HostPathType(format!("{} is not {what}", source.path)));
    let expect = |holds: bool, what: &str| if holds { Ok(()) } else { wrong(what) };
    match source.type_.as_deref().unwrap_or_default() {
        "DirectoryOrCreate" => match found {
            None => make_dir(path, 0o755),
            Some(kind) => expect(kind.is_dir(), "a directory"),
        },
        "FileOrCreate" => match found {
            None => std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(path)
                .and_then(|file| file.set_permissions(std::fs::Permissions::from_mode(0o644)))
                .map_err(VolumeCause::io(path)),
            Some(kind) => expect(kind.is_file(), "a file"),
        },
        "Directory" => expect(found.is_some_and(|kind| kind.is_dir()), "a directory"),
        "File" => expect(found.is_some_and(|kind| kind.is_file()), "a file"),
        "Socket" => expect(found.is_some_and(|kind| kind.is_socket()), "a socket file"),
        "CharDevice" => expect(found.is_some_and(|kind| kind.is_char_device()), "a character device"),
        "BlockDevice" => expect(found.is_some_and(|kind| kind.is_block_device()), "a block device"),
        "" => {
            // The runtime needs something to mount; upstream's runtimes make a directory, too.
            if found.is_none() { make_dir(path, 0o755) } else { Ok(()) }
        }
        other => Err(VolumeCause::HostPathType(format!("unknown type {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_paths_are_checked() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str, kind: &str| {
            host_path(&HostPathVolumeSource {
                path: temp.path().join(name).to_string_lossy().into_owned(),
                type_: Some(kind.to_owned()),
            })
            .map_err(|error| error.to_string())
        };
        std::fs::write(temp.path().join("file"), "").unwrap();
        assert!(at("file", "File").is_ok());
        assert!(at("file", "Directory").unwrap_err().ends_with("file is not a directory"));
        assert!(at("none", "Directory").is_err());
        assert!(at("made", "DirectoryOrCreate").is_ok() && temp.path().join("made").is_dir());
        assert!(at("made.txt", "FileOrCreate").is_ok() && temp.path().join("made.txt").is_file());
        assert!(at("file", "Socket").is_err());
        assert!(at("file", "").is_ok());
    }
}
