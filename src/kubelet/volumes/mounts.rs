//! Mounting, unmounting and removing, without ever removing what is mounted from elsewhere.

use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mounts a tmpfs on a directory, once.
pub fn tmpfs(path: &Path, mode: u32, size_bytes: Option<i64>) -> io::Result<()> {
    if is_mount_point(path)? {
        return Ok(());
    }
    let mut options = format!("mode={mode:o}");
    if let Some(bytes) = size_bytes {
        options.push_str(&format!(",size={bytes}"));
    }
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options.as_str()))?;
    Ok(())
}

/// Mount points below and at `dir`, the deepest first.
pub fn below(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut points = points_below(&std::fs::read_to_string("/proc/self/mountinfo")?, dir);
    points.reverse();
    Ok(points)
}

fn points_below(mountinfo: &str, dir: &Path) -> Vec<PathBuf> {
    let points =
        mountinfo.lines().filter_map(|line| line.split(' ').nth(4)).map(|field| PathBuf::from(unescape(field)));
    points.filter(|point| point.starts_with(dir)).collect()
}

/// The kernel writes blanks and backslashes in paths as octal numbers.
fn unescape(field: &str) -> String {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()).filter(|_| byte == b'\\') {
            Some(value) => {
                out.push(value);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn is_mount_point(path: &Path) -> io::Result<bool> {
    Ok(below(path)?.iter().any(|point| point == path))
}

pub fn unmount_below(dir: &Path) -> io::Result<()> {
    for point in below(dir)? {
        match umount2(&point, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Removes a tree that nothing is mounted in.
pub fn remove(dir: &Path) -> io::Result<()> {
    if let Some(point) = below(dir)?.first() {
        return Err(io::Error::other(format!("{} is still mounted", point.display())));
    }
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// An empty file that every user of the container may write.
pub fn make_file(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o666).open(path)?;
    file.set_permissions(std::fs::Permissions::from_mode(0o666))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read_from_the_kernels_table() {
        let table = "1 0 0:1 / / rw - ext4 a rw\n2 1 0:2 / /p/a\\040b rw - tmpfs tmpfs rw\n3 2 0:3 / /p/a\\040b/c rw - tmpfs x rw\n4 1 0:4 / /pq rw - x x x";
        let points = points_below(table, Path::new("/p"));
        assert_eq!(points, [PathBuf::from("/p/a b"), PathBuf::from("/p/a b/c")]);
        assert!(points_below("garbage", Path::new("/p")).is_empty());
    }
}
