//! Replaces a directory's files all at once (upstream's atomic writer).
//!
//! The files lie in a directory named after the time, `..data` is a symbolic link to it, and what the container sees are
//! links through `..data`. Renaming the link changes all files in one step; a reader who opened the old ones keeps them.

use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path};

use k8s_openapi::jiff::Timestamp;

use super::ownership;
use super::payload::Payload;

const DATA: &str = "..data";
const DATA_NEXT: &str = "..data_tmp";

/// Writes `payload` into `dir`, which exists. Does nothing when it is there already. `group` is the pod's `fsGroup`.
pub fn write(dir: &Path, payload: &Payload, group: Option<u32>) -> io::Result<()> {
    for path in payload.keys() {
        check(path)?;
    }
    let old = std::fs::read_link(dir.join(DATA)).ok();
    if old.as_ref().is_some_and(|old| is_same(&dir.join(old), payload)) {
        return link_all(dir, payload);
    }
    let name =
        format!("..{}.{:09}", Timestamp::now().strftime("%Y_%m_%d_%H_%M_%S"), rand::random_range(0..1_000_000_000u32));
    let next = dir.join(&name);
    std::fs::DirBuilder::new().mode(0o755).create(&next)?;
    std::fs::set_permissions(&next, std::fs::Permissions::from_mode(0o755))?;
    for (path, file) in payload {
        let target = next.join(path);
        if let Some(parent) = target.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
        }
        let mut options = std::fs::OpenOptions::new();
        let mut written = options.write(true).create_new(true).mode(0o600).open(&target)?;
        io::Write::write_all(&mut written, &file.data)?;
        written.set_permissions(std::fs::Permissions::from_mode(file.mode))?;
        if let Some(uid) = file.uid {
            std::os::unix::fs::chown(&target, Some(uid), None)?;
        }
    }
    if let Some(group) = group {
        ownership::set(&next, group, ownership::Access::ReadOnly)?;
    }
    let link = dir.join(DATA_NEXT);
    match std::fs::remove_file(&link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(&name, &link)?;
    std::fs::rename(&link, dir.join(DATA))?;
    link_all(dir, payload)?;
    unlink_stale(dir, payload, &name)
}

fn refused(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, why)
}

/// Paths stay inside and do not look like ours.
fn check(path: &str) -> io::Result<()> {
    const PATH_BYTES_MAX: usize = 4096;
    let inside = !path.is_empty()
        && path.len() <= PATH_BYTES_MAX
        && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if inside && !path.starts_with("..") {
        Ok(())
    } else {
        Err(refused(format!("invalid path: must be relative, without '..': {path}")))
    }
}

/// Whether a directory holds just these files.
fn is_same(dir: &Path, payload: &Payload) -> bool {
    let same_files = payload.iter().all(|(path, file)| {
        let path = dir.join(path);
        std::fs::read(&path).is_ok_and(|data| data == file.data)
            && std::fs::metadata(&path).is_ok_and(|meta| meta.permissions().mode() & file.mode == file.mode)
    });
    same_files && count(dir) == Some(payload.len())
}

fn count(dir: &Path) -> Option<usize> {
    let mut files = 0;
    for entry in std::fs::read_dir(dir).ok()? {
        let entry = entry.ok()?;
        files += if entry.file_type().ok()?.is_dir() { count(&entry.path())? } else { 1 };
    }
    Some(files)
}

fn top(path: &str) -> &str {
    path.split('/').next().unwrap_or(path)
}

fn link_all(dir: &Path, payload: &Payload) -> io::Result<()> {
    for path in payload.keys() {
        let visible = dir.join(top(path));
        if std::fs::symlink_metadata(&visible).is_err() {
            symlink(Path::new(DATA).join(top(path)), &visible)?;
        }
    }
    Ok(())
}

fn unlink_stale(dir: &Path, payload: &Payload, current: &str) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let file_name = entry.file_name();
        let Some(name) = file_name.to_str() else { continue };
        if name == DATA || name == current {
            continue;
        }
        if name.starts_with("..") && entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else if entry.file_type()?.is_symlink() && !payload.keys().any(|path| top(path) == name) {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::payload::File;
    use super::*;

    fn payload(files: &[(&str, &str)]) -> Payload {
        files
            .iter()
            .map(|(path, data)| ((*path).to_owned(), File { data: data.as_bytes().to_vec(), mode: 0o640, uid: None }))
            .collect()
    }

    fn visible(dir: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(dir).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| !name.starts_with(".."));
        names.sort();
        names
    }

    #[test]
    fn files_change_together_and_old_ones_go() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        write(dir, &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap();
        assert_eq!(visible(dir), ["a", "sub"]);
        assert_eq!(std::fs::read_to_string(dir.join("sub/b")).unwrap(), "2");
        assert_eq!(std::fs::metadata(dir.join("a")).unwrap().permissions().mode() & 0o777, 0o640);
        let first = std::fs::read_link(dir.join(DATA)).unwrap();
        write(dir, &payload(&[("a", "1"), ("sub/b", "2")]), None).unwrap();
        assert_eq!(std::fs::read_link(dir.join(DATA)).unwrap(), first, "nothing to do");
        write(dir, &payload(&[("a", "3")]), None).unwrap();
        assert_eq!(visible(dir), ["a"]);
        assert_eq!(std::fs::read_to_string(dir.join("a")).unwrap(), "3");
        assert!(!dir.join(first).exists());
        write(dir, &payload(&[]), None).unwrap();
        assert_eq!(visible(dir), [""; 0]);
    }

    #[test]
    fn paths_stay_inside() {
        let temp = tempfile::tempdir().unwrap();
        for bad in ["../x", "/x", "a/../../x", "..data", ""] {
            assert!(write(temp.path(), &payload(&[(bad, "1")]), None).is_err(), "{bad}");
        }
    }
}
