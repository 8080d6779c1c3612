//! A folder of such files.

use std::fs;
use std::path::{Path, PathBuf};

use super::{About, Error, SUFFIX, about, failed};

/// The files in a folder that are snapshots, oldest first. Others are left out.
pub fn list(dir: &Path) -> Result<Vec<(PathBuf, About)>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("list", dir)(error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed("list", dir))?.path();
        if path.to_string_lossy().ends_with(SUFFIX)
            && let Ok(about) = about(&path)
        {
            found.push((path, about));
        }
    }
    found.sort_by(|(a_path, a), (b_path, b)| (a.created, a.revision, a_path).cmp(&(b.created, b.revision, b_path)));
    Ok(found)
}

/// Removes all but the newest snapshots of a cluster; returns those that are gone.
pub fn prune(dir: &Path, cluster: &str, keep: usize) -> Result<Vec<PathBuf>, Error> {
    let mut own = list(dir)?;
    own.retain(|(_, about)| about.cluster == cluster);
    let gone = own.len().saturating_sub(keep);
    let mut removed = Vec::new();
    for (path, _) in own.into_iter().take(gone) {
        fs::remove_file(&path).map_err(failed("remove", &path))?;
        removed.push(path);
    }
    Ok(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_of_a_cluster_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(format!("{name}{SUFFIX}"));
        for (name, cluster, created) in [("b", "x", 2), ("a", "x", 3), ("c", "x", 1), ("other", "y", 0)] {
            let about = About { cluster: cluster.into(), server: "s".into(), created, revision: 1, keys: 0, bytes: 0 };
            crate::write(&path(name), &about, "p", &[]).unwrap();
        }
        fs::write(path("no-snapshot"), "text").unwrap();
        assert_eq!(prune(dir.path(), "x", 2).unwrap(), [path("c")]);
        let left: Vec<PathBuf> = list(dir.path()).unwrap().into_iter().map(|(path, _)| path).collect();
        assert_eq!(left, [path("other"), path("b"), path("a")]);
        assert!(list(&dir.path().join("none")).unwrap().is_empty());
    }
}
