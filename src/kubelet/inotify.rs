//! Waiting for changes in a directory.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

/// A directory that is watched. What exactly changed does not matter here: who waits looks again.
pub struct Watch(AsyncFd<OwnedFd>);

impl Watch {
    pub fn new(dir: &Path, flags: AddWatchFlags) -> io::Result<Watch> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(dir, flags)?;
        #[expect(unsafe_code, reason = "tokio registers descriptors by their number")]
        // SAFETY: an OwnedFd has one number and keeps it open as long as it lives.
        let registered = unsafe { AsyncFd::register(OwnedFd::from(inotify)) }.map_err(io::Error::other)?;
        Ok(Watch(registered))
    }

    /// Waits until something has changed since the last time. Cancel-safe.
    pub async fn changed(&self) -> io::Result<()> {
        let mut ready = self.0.readable().await?;
        let mut events = [0u8; 4096];
        loop {
            match nix::unistd::read(self.0.get_ref(), &mut events) {
                Ok(0) | Err(Errno::EAGAIN) => break,
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
        }
        ready.clear_ready();
        Ok(())
    }
}
