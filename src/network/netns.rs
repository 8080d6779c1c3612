//! Work inside another network namespace.
//!
//! A namespace belongs to a thread. Work there is done by a thread of its own that ends with the work: no thread of
//! the runtime ever changes its namespace.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use nix::sched::{CloneFlags, setns, unshare};

use crate::Error;

pub(crate) fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::Namespace { path: path.to_owned(), source })
}

/// Runs `work` in the namespace and waits for it. Blocks.
pub(crate) fn within<T, F>(path: &Path, namespace: &File, work: F) -> Result<T, Error>
where
    T: Send,
    F: FnOnce() -> Result<T, Error> + Send,
{
    on_own_thread(|| {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::Namespace { path: path.to_owned(), source: errno.into() })?;
        work()
    })
}

/// Runs `work` in a new, empty namespace that vanishes afterwards. Blocks.
pub(crate) fn within_scratch<T, F>(work: F) -> Result<T, Error>
where
    T: Send,
    F: FnOnce() -> Result<T, Error> + Send,
{
    on_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)
            .map_err(|errno| Error::Namespace { path: "(new)".into(), source: errno.into() })?;
        work()
    })
}

fn on_own_thread<T, F>(work: F) -> Result<T, Error>
where
    T: Send,
    F: FnOnce() -> Result<T, Error> + Send,
{
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, work);
        thread.map_err(|_| Error::Worker)?.join().map_err(|_| Error::Worker)?
    })
}
