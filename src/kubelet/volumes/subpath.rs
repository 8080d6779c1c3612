//! `subPath`: a part of a volume as a mount of its own.
//!
//! A container may have put symbolic links into the volume that lead out of it. The path is therefore opened by the
//! kernel with the volume as its border (`openat2`, `RESOLVE_BENEATH`), and what was opened is bound, not what its
//! name leads to later.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, mkdirat};

/// Binds `volume/sub_path` to `target`, making the directories that are missing inside the volume.
pub fn bind(volume: &Path, sub_path: &str, target: &Path) -> io::Result<()> {
    let fd = open(volume, sub_path)?;
    let source = format!("/proc/self/fd/{}", fd.as_raw_fd());
    // A target that is left from an instance before shows what was there then.
    super::mounts::unmount_below(target)?;
    let is_dir = std::fs::metadata(&source)?.is_dir();
    if target.exists() {
        if std::fs::metadata(target)?.is_dir() { std::fs::remove_dir(target)? } else { std::fs::remove_file(target)? }
    }
    if is_dir {
        std::fs::create_dir_all(target)?;
    } else {
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        File::create(target)?;
    }
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(source.as_str()), target, None::<&str>, flags, None::<&str>)?;
    Ok(())
}

fn how() -> OpenHow {
    OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_MAGICLINKS)
}

/// Opens a path inside the volume. What leads out of it is refused.
fn open(volume: &Path, sub_path: &str) -> io::Result<OwnedFd> {
    let path = Path::new(sub_path);
    if !path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "must not be absolute and must not contain '..'"));
    }
    let root: OwnedFd = File::open(volume)?.into();
    // What is made has the volume's own mode, so that those who may write there may write here.
    let mode = std::fs::metadata(volume)?.permissions();
    match openat2(root.as_fd(), path, how()) {
        Ok(fd) => return Ok(fd),
        Err(Errno::ENOENT) => {}
        Err(Errno::EXDEV) => {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the path leads out of the volume"));
        }
        Err(error) => return Err(error.into()),
    }
    let mut above = root;
    for part in path.components() {
        let Component::Normal(name) = part else { continue };
        above = match openat2(above.as_fd(), name, how()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => {
                mkdirat(above.as_fd(), name, Mode::from_bits_truncate(0o750)).map_err(io::Error::from)?;
                let flags = OFlag::O_PATH | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY;
                let made = openat2(above.as_fd(), name, how().flags(flags))?;
                std::fs::set_permissions(format!("/proc/self/fd/{}", made.as_raw_fd()), mode.clone())?;
                made
            }
            Err(error) => return Err(error.into()),
        };
    }
    Ok(above)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sub_path_stays_in_its_volume() {
        let temp = tempfile::tempdir().unwrap();
        let volume = temp.path().join("volume");
        std::fs::create_dir_all(volume.join("data")).unwrap();
        std::fs::write(volume.join("data/file"), "inside").unwrap();
        std::os::unix::fs::symlink("data/file", volume.join("inner")).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("absolute")).unwrap();
        std::os::unix::fs::symlink("../..", volume.join("above")).unwrap();
        let read = |path: &str| {
            let fd = open(&volume, path)?;
            std::fs::read_to_string(format!("/proc/self/fd/{}", fd.as_raw_fd()))
        };
        assert_eq!(read("data/file").unwrap(), "inside");
        assert_eq!(read("inner").unwrap(), "inside");
        for bad in ["absolute", "absolute/passwd", "above/x", "../x", "/etc"] {
            assert!(open(&volume, bad).is_err(), "{bad}");
        }
        open(&volume, "new/deep").unwrap();
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&volume.join("new/deep")), mode(&volume));
    }
}
