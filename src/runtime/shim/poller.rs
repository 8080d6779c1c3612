//! One epoll instance and what each of its descriptors means.

use std::collections::HashMap;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::log::Stream;

/// Events taken in one round.
const EVENTS_MAX: usize = 32;

/// What became ready. Containers are named, attached clients, connections and commands are numbered.
#[derive(Debug, Clone)]
pub enum Source {
    Signals,
    Listener,
    Connection,
    StartStatus(Rc<str>),
    ExecStatus(i32),
    /// A container's stdout, stderr, or (as stdout) its terminal.
    Output(Rc<str>, Stream),
    /// A container's stdin takes more.
    Input(Rc<str>),
    /// A client typed.
    AttachedInput(Rc<str>, u64),
    /// A client takes more.
    AttachedOutput(Rc<str>, u64),
}

#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
    sources: HashMap<u64, Source>,
    next: u64,
}

impl Poller {
    pub fn new() -> Result<Self, Errno> {
        Ok(Self { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?, sources: HashMap::new(), next: 1 })
    }

    /// Watches `fd` and returns the number to name it by.
    pub fn add(&mut self, fd: impl AsFd, source: Source, flags: EpollFlags) -> Result<u64, Errno> {
        let token = self.next;
        self.epoll.add(fd, EpollEvent::new(flags, token))?;
        self.next += 1;
        self.sources.insert(token, source);
        Ok(token)
    }

    pub fn change(&self, fd: impl AsFd, token: u64, flags: EpollFlags) {
        // Cannot fail for what was added and not removed.
        let _ = self.epoll.modify(fd, &mut EpollEvent::new(flags, token));
    }

    /// To be called before `fd` is closed: a child that has not run its program yet keeps a copy.
    pub fn remove(&mut self, fd: impl AsFd, token: u64) {
        let _ = self.epoll.delete(fd);
        self.sources.remove(&token);
    }

    /// Waits for whatever comes next; not longer than `limit`, rounded up, if there is one.
    pub fn wait(&self, limit: Option<Duration>) -> Result<Vec<u64>, Errno> {
        let mut events = [EpollEvent::empty(); EVENTS_MAX];
        let timeout = limit.map_or(EpollTimeout::NONE, |limit| {
            EpollTimeout::try_from(limit + Duration::from_millis(1)).unwrap_or(EpollTimeout::MAX)
        });
        let count = match self.epoll.wait(&mut events, timeout) {
            Err(Errno::EINTR) => 0,
            other => other?,
        };
        Ok(events.iter().take(count).map(EpollEvent::data).collect())
    }

    /// `None` if it was removed since the events were taken.
    pub fn source(&self, token: u64) -> Option<Source> {
        self.sources.get(&token).cloned()
    }
}
