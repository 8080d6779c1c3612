//! The Raft log, with the vote and the commit position in it: an append-only file in segments, with one sync for
//! each group of writes.
//!
//! Invariants:
//! - What was acknowledged as synced is read back after any power cut, or opening is refused and says where the
//!   damage is. A tail that was never synced may be torn; it is cut off.
//! - A write is decided upon only where its room is secured ([`Log::secure`]); the log itself never runs out of disk.
//! - Segments go only when a snapshot that was verified covers them ([`Log::purge`]).
//! - A read is answered with the entries or not at all: an answer `Err` would make Raft start anew.
//!
//! Limitations: damage to the very last group, after a stop that was not clean, cannot be told from a torn tail.

mod parts;
mod record;
mod recover;
mod segment;
mod writer;

#[cfg(test)]
mod power_test;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;

use openraft::{EntryPayload, LogId, Vote};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::codec::{Encode, decode_all};
use crate::disk::Disk;
use crate::error::OpenError;
use crate::raft::{Entry, Id};

use record::HEADER_BYTES;
use segment::Segment;
use writer::{Request, Writer};

/// Bytes from the beginning of the log, over all segments.
type LogPosition = u64;

/// Length of a segment unless a test wants shorter ones.
pub(crate) const SEGMENT_BYTES: u64 = 16 << 20;
/// Room at the end of a segment that ordinary writes leave to votes, membership and compaction.
const RESERVED_BYTES: u64 = 64 << 10;
/// The newest entries are kept in memory for those who read what was just written.
const CACHE_ENTRIES: usize = 256;
const CACHE_BYTES: usize = 4 << 20;

/// Answers when a write is on the disk, or was given up.
pub(crate) type Done = Box<dyn FnOnce(io::Result<()>) + Send>;

/// A handle on the log; clones are the same log.
#[derive(Clone)]
pub(crate) struct Log {
    shared: Arc<Shared>,
    requests: Queue,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
}

/// Where and how.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) dir: PathBuf,
    pub(crate) segment_bytes: u64,
    /// How long a relaxed write may wait for a sync that another one causes.
    pub(crate) relaxed_sync_after: std::time::Duration,
    /// Where the writer runs.
    pub(crate) runs: Runs,
}

/// Where the writer runs.
#[derive(Clone, Default)]
pub(crate) enum Runs {
    /// On a thread of its own: syncing blocks.
    #[default]
    Thread,
    /// As a task that pauses for so long before each group, for tests that pretend time.
    #[cfg(test)]
    Task { pause: Arc<dyn Fn() -> std::time::Duration + Send + Sync> },
}

#[derive(Clone)]
enum Queue {
    Thread(mpsc::Sender<Request>),
    #[cfg(test)]
    Task(tokio::sync::mpsc::UnboundedSender<Request>),
}

struct Shared {
    disk: Arc<dyn Disk>,
    options: Options,
    index: Mutex<Index>,
    /// Bytes left in the current segment.
    room: AtomicU64,
    spare: AtomicBool,
    full: AtomicBool,
    disk_bytes: AtomicU64,
    written_bytes: AtomicU64,
    /// Nobody else has a copy, so that a loss is no contradiction: relaxed entries need no sync.
    alone: AtomicBool,
    /// Set when the log failed: nothing more is written or acknowledged.
    failed: task::Shutdown,
}

/// What the log holds.
#[derive(Debug, Default)]
struct Index {
    vote: Option<Vote<Id>>,
    committed: Option<LogId<Id>>,
    purged: Option<LogId<Id>>,
    last: Option<LogId<Id>>,
    segments: VecDeque<Segment>,
    /// Index of the entry that `places` begins with.
    first: u64,
    places: VecDeque<Place>,
    cache: VecDeque<(Entry, usize)>,
    cache_bytes: usize,
}

/// Where an entry's record lies.
#[derive(Clone, Copy, Debug)]
struct Place {
    position: LogPosition,
    payload_bytes: u32,
}

impl Log {
    /// Reads the log, repairs a torn tail, and starts the thread that writes. `failed` is set when it must stop.
    pub(crate) fn open(disk: Arc<dyn Disk>, options: Options, failed: task::Shutdown) -> Result<Log, OpenError> {
        let recovered = recover::recover(disk.as_ref(), &options)?;
        let shared = Arc::new(Shared {
            room: AtomicU64::new(0),
            spare: AtomicBool::new(segment::has_spare(disk.as_ref(), &options.dir, options.segment_bytes)),
            full: AtomicBool::new(false),
            disk_bytes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            alone: AtomicBool::new(false),
            index: Mutex::new(recovered.index),
            disk,
            options,
            failed,
        });
        let writer = Writer::new(shared.clone(), recovered.end);
        let (requests, thread) = match shared.options.runs.clone() {
            Runs::Thread => {
                let (requests, queue) = mpsc::channel();
                let dir = shared.options.dir.clone();
                let thread = std::thread::Builder::new()
                    .name("store-log".into())
                    .spawn(move || writer.run(&queue))
                    .map_err(|source| OpenError::Io { action: "start the thread that writes", path: dir, source })?;
                (Queue::Thread(requests), Some(thread))
            }
            #[cfg(test)]
            Runs::Task { pause } => {
                let (requests, queue) = tokio::sync::mpsc::unbounded_channel();
                task::spawn("store-log", writer.run_as_task(queue, pause));
                (Queue::Task(requests), None)
            }
        };
        Ok(Log { shared, requests, thread: Arc::new(Mutex::new(thread)) })
    }

    pub(crate) fn vote(&self) -> Option<Vote<Id>> {
        self.shared.index.lock().vote
    }

    pub(crate) fn committed(&self) -> Option<LogId<Id>> {
        self.shared.index.lock().committed
    }

    /// The last entry purged and the last entry there is.
    pub(crate) fn bounds(&self) -> (Option<LogId<Id>>, Option<LogId<Id>>) {
        let index = self.shared.index.lock();
        (index.purged, [index.purged, index.last].into_iter().flatten().max_by_key(|id| id.index))
    }

    /// Bytes that its files take on disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.shared.disk_bytes.load(Ordering::Relaxed)
    }

    /// Bytes written since it was opened.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.shared.written_bytes.load(Ordering::Relaxed)
    }

    /// Fails it, as a disk would.
    #[cfg(test)]
    pub(crate) fn fail(&self) {
        self.shared.failed.cancel();
    }

    /// Says whether this member is the only one. Until then nothing is relaxed.
    pub(crate) fn set_alone(&self, alone: bool) {
        self.shared.alone.store(alone, Ordering::Relaxed);
    }

    /// A write found no room on the disk, and none has been found since.
    pub(crate) fn is_full(&self) -> bool {
        self.shared.full.load(Ordering::Relaxed)
    }

    /// Sees that an entry of so many bytes can be written; `false` if the disk has no room for it. `needed` is for
    /// what must go on when the disk is full and may use what is held back for it.
    pub(crate) async fn secure(&self, bytes: usize, needed: bool) -> bool {
        let reserved = if needed { 0 } else { RESERVED_BYTES };
        let fits = || {
            let room = self.shared.room.load(Ordering::Acquire);
            room >= bytes as u64 + 4 * HEADER_BYTES as u64 + reserved || self.shared.spare.load(Ordering::Acquire)
        };
        if fits() {
            if self.is_full() {
                // There may be room again by now; nobody needs to wait to know.
                self.send(Request::Spare { done: oneshot::channel().0 });
            }
            return true;
        }
        let (done, made) = oneshot::channel();
        self.send(Request::Spare { done });
        let _ = made.await;
        fits()
    }

    /// Appends entries; they can be read on return. `done` answers once they are synced, or at once after they are
    /// written if they need no sync.
    pub(crate) fn append(&self, mut entries: Vec<Entry>, done: Done) {
        let mut encoded = Vec::with_capacity(entries.len());
        let mut sync = false;
        {
            let mut index = self.shared.index.lock();
            // What a snapshot holds is not wanted any more.
            let purged = index.purged.map(|purged| purged.index);
            entries.retain(|entry| Some(entry.log_id.index) > purged);
            if index.places.is_empty()
                && index.cache.is_empty()
                && let Some(first) = entries.first()
            {
                index.first = first.log_id.index;
            }
            for entry in entries {
                let mut payload = Vec::new();
                entry.encode(&mut payload);
                if let EntryPayload::Membership(membership) = &entry.payload {
                    self.set_alone(membership.nodes().count() == 1);
                }
                let relaxed = match &entry.payload {
                    EntryPayload::Normal(batch) => {
                        batch.take();
                        batch.relaxed()
                    }
                    EntryPayload::Blank | EntryPayload::Membership(_) => false,
                };
                sync |= !(relaxed && self.shared.alone.load(Ordering::Relaxed));
                index.last = Some(entry.log_id);
                index.cache_bytes += payload.len();
                index.cache.push_back((entry, payload.len()));
                encoded.push(payload);
            }
        }
        self.send(Request::Append { encoded, sync, done });
    }

    /// Returns once the vote is synced.
    pub(crate) async fn save_vote(&self, vote: Vote<Id>) {
        self.shared.index.lock().vote = Some(vote);
        self.done(|done| Request::Vote { vote, done }).await;
    }

    /// Written with the next write, which nobody is woken for; losing it costs nothing but time.
    pub(crate) fn save_committed(&self, committed: LogId<Id>) {
        self.shared.index.lock().committed = Some(committed);
    }

    /// Drops the entries from `since` on.
    pub(crate) async fn truncate(&self, since: u64) {
        {
            let mut index = self.shared.index.lock();
            while index.cache.back().is_some_and(|(entry, _)| entry.log_id.index >= since) {
                if let Some((_, bytes)) = index.cache.pop_back() {
                    index.cache_bytes -= bytes;
                }
            }
        }
        self.done(|done| Request::Truncate { since, done }).await;
        let last = match since.checked_sub(1) {
            Some(before) => self.read(before, since, usize::MAX).first().map(|entry| entry.log_id),
            None => None,
        };
        self.shared.index.lock().last = last;
    }

    /// Drops the entries up to `upto`, which a verified snapshot holds.
    pub(crate) async fn purge(&self, upto: LogId<Id>) {
        self.done(|done| Request::Purge { upto, done }).await;
    }

    /// Returns once everything appended before is synced.
    pub(crate) async fn sync(&self) {
        self.done(|done| Request::Sync { done }).await;
    }

    /// Syncs what is written, marks the end as clean, and ends the thread.
    pub(crate) async fn close(&self) {
        self.done(|done| Request::Close { done }).await;
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }

    /// The entries with `from <= index < to` that are there, up to the first that makes them longer than `bytes`.
    /// Never returns if one cannot be read; `failed` is then set.
    pub(crate) async fn entries(&self, from: u64, to: u64, bytes: usize) -> Vec<Entry> {
        let entries = self.read(from, to, bytes);
        if self.shared.failed.is_cancelled() {
            std::future::pending::<()>().await;
        }
        entries
    }

    fn read(&self, from: u64, to: u64, bytes: usize) -> Vec<Entry> {
        let mut room = bytes;
        let mut take = |bytes: usize| {
            let fits = room > 0;
            room = room.saturating_sub(bytes);
            fits
        };
        let mut entries = Vec::new();
        // Reading happens outside of the lock: the places first, then the files.
        let mut on_disk = Vec::new();
        let mut cached = Vec::new();
        {
            let index = self.shared.index.lock();
            let cache_first = index.cache.front().map_or(u64::MAX, |(entry, _)| entry.log_id.index);
            let from = from.max(index.first);
            for at in from..to.min(cache_first) {
                let Some(place) = usize::try_from(at - index.first).ok().and_then(|at| index.places.get(at)) else {
                    break;
                };
                if !take(place.payload_bytes as usize) {
                    break;
                }
                if let Some(segment) = index.segment_of(place.position) {
                    on_disk.push((*place, segment.clone()));
                }
            }
            if to > cache_first {
                let skip = usize::try_from(from.saturating_sub(cache_first)).unwrap_or(usize::MAX);
                let taken = index.cache.iter().skip(skip);
                let taken = taken.take_while(|(entry, bytes)| entry.log_id.index < to && take(*bytes));
                cached.extend(taken.map(|(entry, _)| entry.clone()));
            }
        }
        for (place, segment) in on_disk {
            match read_entry(&segment, place) {
                Ok(entry) => entries.push(entry),
                Err(error) => {
                    tracing::error!(%error, segment = segment.number, "an entry of the log cannot be read; the store stops");
                    self.shared.failed.cancel();
                    return entries;
                }
            }
        }
        entries.extend(cached);
        entries
    }

    fn send(&self, request: Request) {
        // The thread is gone: it failed, or the log is closed. Whoever waits for an answer learns it by the dropped
        // sender.
        match &self.requests {
            Queue::Thread(requests) => drop(requests.send(request)),
            #[cfg(test)]
            Queue::Task(requests) => drop(requests.send(request)),
        }
    }

    /// Sends a request and waits for its end. When the log has failed there is none, and nothing may go on.
    async fn done(&self, request: impl FnOnce(oneshot::Sender<()>) -> Request) {
        let (done, ended) = oneshot::channel();
        self.send(request(done));
        if ended.await.is_err() && self.shared.failed.is_cancelled() {
            std::future::pending::<()>().await;
        }
    }
}

impl Index {
    fn segment_of(&self, position: LogPosition) -> Option<&Segment> {
        let after = self.segments.partition_point(|segment| segment.base <= position);
        self.segments.get(after.checked_sub(1)?)
    }

    /// Index after the last entry that is written.
    fn end(&self) -> u64 {
        self.first + self.places.len() as u64
    }

    /// Forgets entries that can be read from disk, beyond what is worth keeping.
    fn trim_cache(&mut self) {
        let end = self.end();
        while self.cache.len() > CACHE_ENTRIES || self.cache_bytes > CACHE_BYTES {
            match self.cache.front() {
                Some((entry, bytes)) if entry.log_id.index < end => {
                    self.cache_bytes -= bytes;
                    self.cache.pop_front();
                }
                _ => return,
            }
        }
    }
}

/// The entries of a log that cannot be opened, up to where it is damaged.
pub(crate) fn entries_before_damage(disk: &dyn Disk, options: &Options) -> Vec<Entry> {
    recover::entries_before_damage(disk, options)
}

fn read_entry(segment: &Segment, place: Place) -> io::Result<Entry> {
    let length = HEADER_BYTES + usize::try_from(place.payload_bytes).map_err(io::Error::other)?;
    let mut buffer = vec![0; length];
    segment.file.read_at(segment.offset_of(place.position), &mut buffer)?;
    record::read(&buffer, place.position)
        .and_then(|found| decode_all(found.payload))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a record is damaged"))
}
