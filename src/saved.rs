//! A cluster as a file: what of this machine goes into a snapshot, and how it comes back.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use backup::About;
use store::Store;

use crate::authority;
use crate::instance;
use crate::options::PathOptions;

/// The store's state, among a snapshot's parts; the others are called as they are in the data directory.
const STATE: &str = "state";
const SERVER: &str = "server";
const DIR_MODE: u32 = 0o700;

/// Saves the cluster that runs in this process.
#[derive(Clone)]
pub struct Saver {
    pub store: Store,
    pub paths: PathOptions,
    /// The hash of its authority, which no other cluster has.
    pub cluster: String,
    pub server: String,
}

/// A file that goes when this does.
struct Passing(PathBuf);

impl Drop for Passing {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

impl Saver {
    pub async fn save(&self, file: &Path, passphrase: &str) -> anyhow::Result<About> {
        if let Some(dir) = file.parent() {
            make_dir(dir)?;
        }
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let state = Passing(self.paths.server().join(format!("saving-{}", std::process::id())));
        let saved = self.store.save(state.0.clone()).await.context("the store's state cannot be written")?;
        let about = About {
            cluster: self.cluster.clone(),
            server: self.server.clone(),
            created,
            revision: saved.revision,
            keys: saved.keys,
            bytes: saved.bytes,
        };
        let mut parts = vec![(STATE.to_owned(), state.0.clone())];
        for path in authority::files(&self.paths)? {
            let name = path.strip_prefix(&self.paths.data_dir)?.to_str().context("a name is not text")?;
            parts.push((name.to_owned(), path));
        }
        let (file, passphrase, written) = (file.to_owned(), passphrase.to_owned(), about.clone());
        tokio::task::spawn_blocking(move || backup::write(&file, &written, &passphrase, &parts)).await??;
        Ok(about)
    }
}

/// Makes this machine the server of a cluster that was saved. Either all of it is there in the end, or nothing.
pub async fn restore(paths: &PathOptions, file: &Path, passphrase: &str) -> anyhow::Result<About> {
    if let Some(pid) = instance::running(paths) {
        bail!("cluster runs here (process {pid}); a cluster is restored where none runs");
    }
    let server = paths.server();
    if fs::read_dir(&server).is_ok_and(|mut entries| entries.next().is_some()) {
        bail!("a server has run here: move {} away, or restore with another --data-dir", server.display());
    }
    let staging = paths.data_dir.join("restoring");
    remove_dir(&staging)?;
    make_dir(&staging)?;
    let restored = async {
        let about = backup::read(file, passphrase, &staging)?;
        let config = store::Config::new(staging.join(SERVER).join("db"), about.server.clone());
        store::restore(staging.join(STATE), config).await.context("the state cannot be restored")?;
        remove_dir(&server)?;
        fs::rename(staging.join(SERVER), &server).with_context(|| format!("cannot make {}", server.display()))?;
        fs::File::open(&paths.data_dir)?.sync_all()?;
        anyhow::Ok(about)
    };
    let outcome = restored.await;
    remove_dir(&staging)?;
    outcome
}

fn make_dir(dir: &Path) -> anyhow::Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir);
    made.with_context(|| format!("cannot make {}", dir.display()))
}

fn remove_dir(dir: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", dir.display()))
        }
        _ => Ok(()),
    }
}
