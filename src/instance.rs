//! One process per pair of data and run directories, and how others find it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::options::PathOptions;

/// Held while this process runs. The file holds the process's id.
pub struct Instance {
    _lock: Flock<File>,
}

fn path(paths: &PathOptions) -> PathBuf {
    paths.run_dir.join("cluster.pid")
}

impl Instance {
    pub fn take(paths: &PathOptions) -> anyhow::Result<Instance> {
        fs::create_dir_all(&paths.run_dir).with_context(|| format!("cannot make {}", paths.run_dir.display()))?;
        let path = path(paths);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        let mut lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((mut file, _)) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid).ok();
                bail!(
                    "cluster runs already with {} (process {}); stop it first, or choose another --run-dir and --data-dir",
                    paths.run_dir.display(),
                    pid.trim()
                );
            }
        };
        lock.set_len(0).and_then(|()| lock.rewind())?;
        writeln!(lock, "{}", std::process::id())?;
        Ok(Instance { _lock: lock })
    }
}

/// The process that runs with these directories, if one does.
pub fn running(paths: &PathOptions) -> Option<i32> {
    let mut file = OpenOptions::new().read(true).write(true).open(path(paths)).ok()?;
    let mut pid = String::new();
    file.read_to_string(&mut pid).ok()?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(_) => None,
        Err(_) => pid.trim().parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_cannot_have_the_same_directories() {
        let dir = tempfile::tempdir().unwrap();
        let paths = PathOptions { data_dir: dir.path().into(), run_dir: dir.path().join("run") };
        assert_eq!(running(&paths), None);
        let first = Instance::take(&paths).unwrap();
        let refused = Instance::take(&paths).err().unwrap().to_string();
        assert!(refused.contains(&std::process::id().to_string()), "{refused}");
        assert_eq!(running(&paths), i32::try_from(std::process::id()).ok());
        drop(first);
        assert_eq!(running(&paths), None);
        Instance::take(&paths).unwrap();
    }
}
