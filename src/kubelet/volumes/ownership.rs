//! `fsGroup`: the files of a volume belong to the pod's group.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    ReadWrite,
    ReadOnly,
}

const READ_WRITE: u32 = 0o660;
const READ_ONLY: u32 = 0o440;
const EXECUTE: u32 = 0o110;
const SET_GROUP_ID: u32 = 0o2000;

/// Gives everything below `root`, and `root`, to `group`. Symbolic links are changed themselves, never followed.
pub fn set(root: &Path, group: u32, access: Access) -> io::Result<()> {
    one(root, group, access)?;
    if std::fs::symlink_metadata(root)?.is_dir() {
        for entry in std::fs::read_dir(root)? {
            set(&entry?.path(), group, access)?;
        }
    }
    Ok(())
}

/// `fsGroupChangePolicy: OnRootMismatch`: whether the root is as [`set`] leaves it.
pub fn is_set(root: &Path, group: u32) -> bool {
    std::fs::metadata(root)
        .is_ok_and(|meta| meta.gid() == group && meta.mode() & SET_GROUP_ID != 0 && meta.mode() & 0o060 == 0o060)
}

fn one(path: &Path, group: u32, access: Access) -> io::Result<()> {
    let meta = std::fs::symlink_metadata(path)?;
    lchown(path, None, Some(group))?;
    if meta.is_symlink() {
        return Ok(());
    }
    let mut mode = meta.mode() & 0o7777 | if access == Access::ReadWrite { READ_WRITE } else { READ_ONLY };
    if meta.is_dir() {
        mode |= EXECUTE | SET_GROUP_ID;
    }
    std::fs::set_permissions(path, Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_belongs_to_the_group_and_links_are_not_followed() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("volume");
        std::fs::create_dir(&root).unwrap();
        let outside = temp.path().join("outside");
        std::fs::write(&outside, "x").unwrap();
        std::fs::write(root.join("file"), "x").unwrap();
        std::fs::set_permissions(root.join("file"), Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&outside, root.join("link")).unwrap();
        assert!(!is_set(&root, 4242));
        set(&root, 4242, Access::ReadWrite).unwrap();
        assert!(is_set(&root, 4242));
        let file = std::fs::metadata(root.join("file")).unwrap();
        assert_eq!((file.gid(), file.mode() & 0o777), (4242, 0o660));
        assert_ne!(std::fs::metadata(&outside).unwrap().gid(), 4242);
    }
}
