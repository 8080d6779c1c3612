//! The one thread that writes the log. It takes what waits, writes it in one piece, syncs once, and answers all.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use openraft::{LogId, Vote};
use tokio::sync::oneshot;

use super::record::{self, HEADER_BYTES, Kind};
use super::segment::{self, SEGMENT_HEADER_BYTES, Segment};
use super::{Done, LogPosition, Place, Shared};
use crate::codec::Encode;
use crate::disk::is_full;
use crate::raft::Id;

/// Requests taken into one group.
const GROUP_REQUESTS_MAX: usize = 1_024;
/// A group ends once it is this long.
const GROUP_BYTES_MAX: usize = 4 << 20;
/// The next so many bytes of the segment are zeros that were written. To the file system, blocks that were only
/// allocated become other blocks when they are written, and each sync would have to record that: it costs a journal's
/// commit, several times the sync itself.
const ZEROED_BYTES_MIN: u64 = 128 << 10;
/// Zeros written at once.
static ZEROS: [u8; 256 << 10] = [0; 256 << 10];
/// Pause before a write that found no room is tried again.
const FULL_PAUSE: Duration = Duration::from_secs(1);

pub(super) enum Request {
    Append {
        encoded: Vec<Vec<u8>>,
        sync: bool,
        done: Done,
    },
    Vote {
        vote: Vote<Id>,
        done: oneshot::Sender<()>,
    },
    Truncate {
        since: u64,
        done: oneshot::Sender<()>,
    },
    Purge {
        upto: LogId<Id>,
        done: oneshot::Sender<()>,
    },
    Sync {
        done: oneshot::Sender<()>,
    },
    /// Try to secure room for another segment.
    Spare {
        done: oneshot::Sender<()>,
    },
    Close {
        done: oneshot::Sender<()>,
    },
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    /// Where the next record goes.
    end: LogPosition,
    durable: LogPosition,
    /// Zeros were written up to here, or up to `end` if that is further.
    zeroed: LogPosition,
    /// When the oldest write that is not synced was made.
    unsynced_since: Option<Instant>,
    /// The commit position that was written last.
    committed: Option<LogId<Id>>,
}

/// What is written and synced together.
#[derive(Default)]
struct Group {
    records: Vec<(Kind, Vec<u8>)>,
    bytes: usize,
    sync: bool,
    answers: Vec<Answer>,
    truncate: Option<u64>,
    purge: Option<LogId<Id>>,
    close: bool,
}

enum Answer {
    Append(Done),
    Plain(oneshot::Sender<()>),
}

impl Group {
    fn add(&mut self, kind: Kind, payload: Vec<u8>) {
        self.bytes += HEADER_BYTES + payload.len();
        self.records.push((kind, payload));
    }

    /// What is in it must be done before anything is added.
    fn is_closed(&self) -> bool {
        self.truncate.is_some() || self.purge.is_some() || self.close || self.bytes >= GROUP_BYTES_MAX
    }
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, end: LogPosition) -> Writer {
        let committed = shared.index.lock().committed;
        let writer = Writer { shared, end, durable: end, zeroed: end, unsynced_since: None, committed };
        writer.account();
        writer
    }

    /// Works until the log is closed or fails. On failure nothing more is answered but with the error.
    pub(super) fn run(mut self, queue: &Receiver<Request>) {
        if !self.shared.spare.load(Ordering::Acquire) {
            self.make_spare();
        }
        loop {
            let first = match self.unsynced_since {
                None => queue.recv().ok(),
                Some(since) => {
                    let wait = self.shared.options.relaxed_sync_after.saturating_sub(since.elapsed());
                    match queue.recv_timeout(wait) {
                        Ok(request) => Some(request),
                        Err(RecvTimeoutError::Timeout) => Some(Request::Sync { done: oneshot::channel().0 }),
                        Err(RecvTimeoutError::Disconnected) => None,
                    }
                }
            };
            let Some(first) = first else { return };
            if !self.round(first, || queue.try_recv().ok()) {
                return;
            }
        }
    }

    /// The same as a task, with pauses in the runtime's time instead of a real disk's.
    #[cfg(test)]
    pub(super) async fn run_as_task(
        mut self,
        mut queue: tokio::sync::mpsc::UnboundedReceiver<Request>,
        pause: Arc<dyn Fn() -> Duration + Send + Sync>,
    ) {
        if !self.shared.spare.load(Ordering::Acquire) {
            self.make_spare();
        }
        loop {
            let wait = self.shared.options.relaxed_sync_after;
            let first = match self.unsynced_since {
                None => queue.recv().await,
                Some(_) => match tokio::time::timeout(wait, queue.recv()).await {
                    Ok(request) => request,
                    Err(_) => Some(Request::Sync { done: oneshot::channel().0 }),
                },
            };
            let Some(first) = first else { return };
            tokio::time::sleep(pause()).await;
            if self.shared.failed.is_cancelled() || !self.round(first, || queue.try_recv().ok()) {
                return;
            }
        }
    }

    /// Does what waits, at once; `false` if it was the last.
    fn round(&mut self, first: Request, mut next: impl FnMut() -> Option<Request>) -> bool {
        let mut group = Group::default();
        self.take(first, &mut group);
        for _ in 0..GROUP_REQUESTS_MAX {
            if group.is_closed() {
                break;
            }
            let Some(request) = next() else { break };
            self.take(request, &mut group);
        }
        let close = group.close;
        if let Err(error) = self.commit(group) {
            tracing::error!(%error, "the log cannot be written; the store stops");
            self.shared.failed.cancel();
            return false;
        }
        !close
    }

    fn take(&mut self, request: Request, group: &mut Group) {
        match request {
            Request::Append { encoded, sync, done } => {
                encoded.into_iter().for_each(|payload| group.add(Kind::Entry, payload));
                group.sync |= sync;
                group.answers.push(Answer::Append(done));
            }
            Request::Vote { vote, done } => {
                group.add(Kind::Vote, encoded(&vote));
                group.sync = true;
                group.answers.push(Answer::Plain(done));
            }
            Request::Truncate { since, done } => {
                group.add(Kind::Truncate, encoded(&since));
                group.sync = true;
                group.truncate = Some(since);
                group.answers.push(Answer::Plain(done));
            }
            Request::Purge { upto, done } => {
                group.add(Kind::Purged, encoded(&upto));
                group.sync = true;
                group.purge = Some(upto);
                group.answers.push(Answer::Plain(done));
            }
            Request::Sync { done } => {
                group.sync = true;
                group.answers.push(Answer::Plain(done));
            }
            Request::Spare { done } => {
                if !self.shared.spare.load(Ordering::Acquire) {
                    self.make_spare();
                }
                let _ = done.send(());
            }
            Request::Close { done } => {
                group.sync = true;
                group.close = true;
                group.answers.push(Answer::Plain(done));
            }
        }
    }

    /// Writes a group, syncs it if anything in it asks for that, and answers.
    fn commit(&mut self, mut group: Group) -> io::Result<()> {
        let result = self.write(&mut group);
        let ok = result.is_ok();
        for answer in group.answers {
            match answer {
                Answer::Append(done) if ok => done(Ok(())),
                Answer::Append(done) => done(Err(io::Error::other("the log cannot be written"))),
                // Not answered on failure: the waiting end sees the channel closed.
                Answer::Plain(done) if ok => drop(done.send(())),
                Answer::Plain(_) => {}
            }
        }
        result?;
        // After the answers: nobody waits for this.
        if !self.shared.spare.load(Ordering::Acquire) && !self.shared.full.load(Ordering::Relaxed) && !group.close {
            self.make_spare();
        }
        if !group.close {
            self.zero_ahead();
        }
        Ok(())
    }

    /// Writes zeros beyond the end; they reach the disk with the next sync.
    fn zero_ahead(&mut self) {
        let from = self.zeroed.max(self.end);
        let left = self.segment_end().saturating_sub(from);
        if from >= self.end + ZEROED_BYTES_MIN || left == 0 {
            return;
        }
        let Ok(segment) = self.segment() else { return };
        let zeros = usize::try_from(left).ok().and_then(|left| ZEROS.get(..left)).unwrap_or(&ZEROS);
        match segment.file.write_at(segment.offset_of(from), zeros) {
            Ok(()) => self.zeroed = from + zeros.len() as u64,
            // What matters fails, or does not, when something is written in its place.
            Err(error) => tracing::debug!(%error, "zeros cannot be written ahead of the log"),
        }
    }

    fn write(&mut self, group: &mut Group) -> io::Result<()> {
        // It is not written before the entry that it names.
        let committed = {
            let index = self.shared.index.lock();
            index.committed.filter(|committed| committed.index < index.end())
        };
        if (!group.records.is_empty() || group.close)
            && committed != self.committed
            && let Some(committed) = committed
        {
            self.committed = Some(committed);
            group.add(Kind::Committed, encoded(&committed));
        }
        if group.close {
            // What lies before the mark is synced when the mark says so.
            let mark = std::mem::take(&mut group.records);
            self.write_records(mark)?;
            self.sync()?;
            group.add(Kind::Mark, Vec::new());
        }
        self.write_records(std::mem::take(&mut group.records))?;
        if let Some(since) = group.truncate {
            self.truncate(since);
        }
        self.shared.index.lock().trim_cache();
        if group.sync && self.durable < self.end {
            self.sync()?;
        }
        if let Some(upto) = group.purge {
            self.purge(upto)?;
        }
        self.account();
        Ok(())
    }

    fn write_records(&mut self, records: Vec<(Kind, Vec<u8>)>) -> io::Result<()> {
        let mut buffer = Vec::new();
        let mut places = Vec::new();
        for (kind, payload) in records {
            let position = self.end + buffer.len() as u64;
            let bytes = (HEADER_BYTES + payload.len()) as u64;
            if position + bytes > self.segment_end() {
                self.flush(&mut buffer, &mut places)?;
                self.roll()?;
            }
            let position = self.end + buffer.len() as u64;
            if kind == Kind::Entry {
                places.push(Place { position, payload_bytes: u32::try_from(payload.len()).map_err(io::Error::other)? });
            }
            record::write(&mut buffer, position, self.durable, kind, &payload);
        }
        self.flush(&mut buffer, &mut places)
    }

    /// Writes what is in the buffer to the current segment.
    fn flush(&mut self, buffer: &mut Vec<u8>, places: &mut Vec<Place>) -> io::Result<()> {
        if buffer.is_empty() {
            return Ok(());
        }
        let segment = self.segment()?;
        while let Err(error) = segment.file.write_at(segment.offset_of(self.end), buffer) {
            if !is_full(&error) {
                return Err(error);
            }
            // Its room was secured, but some file systems do not keep such promises. Nothing is acknowledged
            // meanwhile, and writing the same bytes to the same place again is harmless.
            tracing::warn!("the disk is full: a write to the log waits");
            self.shared.full.store(true, Ordering::Relaxed);
            if self.shared.failed.is_cancelled() {
                return Err(error);
            }
            std::thread::sleep(FULL_PAUSE);
        }
        self.end += buffer.len() as u64;
        self.shared.written_bytes.fetch_add(buffer.len() as u64, Ordering::Relaxed);
        self.unsynced_since.get_or_insert_with(Instant::now);
        buffer.clear();
        self.shared.index.lock().places.extend(places.drain(..));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.durable < self.end {
            self.segment()?.file.sync()?;
            self.durable = self.end;
        }
        self.unsynced_since = None;
        Ok(())
    }

    fn segment(&self) -> io::Result<Segment> {
        self.shared.index.lock().segments.back().cloned().ok_or_else(|| io::Error::other("the log has no segment"))
    }

    fn segment_end(&self) -> LogPosition {
        let base = self.shared.index.lock().segments.back().map_or(self.end, |segment| segment.base);
        base + self.shared.options.segment_bytes - SEGMENT_HEADER_BYTES
    }

    /// Goes on to the next segment. It begins with what would be lost with the segments before it.
    fn roll(&mut self) -> io::Result<()> {
        self.sync()?;
        let number = self.segment()?.number + 1;
        while !self.shared.spare.load(Ordering::Acquire) {
            self.make_spare();
            if self.shared.failed.is_cancelled() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            if !self.shared.spare.load(Ordering::Acquire) {
                std::thread::sleep(FULL_PAUSE);
            }
        }
        let segment = segment::use_spare(self.shared.disk.as_ref(), &self.shared.options.dir, number, self.end)?;
        self.shared.spare.store(false, Ordering::Release);
        let heads = {
            let mut index = self.shared.index.lock();
            index.segments.push_back(segment);
            let vote = index.vote.map(|vote| (Kind::Vote, encoded(&vote)));
            let purged = index.purged.map(|purged| (Kind::Purged, encoded(&purged)));
            vote.into_iter().chain(purged)
        };
        let (mut buffer, mut places) = (Vec::new(), Vec::new());
        for (kind, payload) in heads {
            let position = self.end + buffer.len() as u64;
            record::write(&mut buffer, position, self.durable, kind, &payload);
        }
        self.flush(&mut buffer, &mut places)
    }

    fn make_spare(&mut self) {
        let shared = &self.shared;
        match segment::make_spare(shared.disk.as_ref(), &shared.options.dir, shared.options.segment_bytes) {
            Ok(()) => {
                shared.spare.store(true, Ordering::Release);
                if shared.full.swap(false, Ordering::Relaxed) {
                    tracing::info!("the disk has room again");
                }
            }
            Err(error) if is_full(&error) => {
                if !shared.full.swap(true, Ordering::Relaxed) {
                    tracing::warn!("the disk is full: the log cannot grow");
                }
            }
            Err(error) => tracing::warn!(%error, "room for the log cannot be secured"),
        }
        self.account();
    }

    fn truncate(&self, since: u64) {
        let mut index = self.shared.index.lock();
        let keep = usize::try_from(since.saturating_sub(index.first)).unwrap_or(usize::MAX);
        index.places.truncate(keep);
    }

    /// The record that says so is synced; now the segments may go that hold nothing else.
    fn purge(&self, upto: LogId<Id>) -> io::Result<()> {
        let mut gone = Vec::new();
        {
            let mut index = self.shared.index.lock();
            index.purged = index.purged.max(Some(upto));
            let drop = usize::try_from((upto.index + 1).saturating_sub(index.first)).unwrap_or(usize::MAX);
            let drop = drop.min(index.places.len());
            index.places.drain(..drop);
            index.first = index.first.max(upto.index + 1);
            while index.cache.front().is_some_and(|(entry, _)| entry.log_id.index <= upto.index) {
                if let Some((_, bytes)) = index.cache.pop_front() {
                    index.cache_bytes -= bytes;
                }
            }
            let needed = index.places.front().map_or(self.end, |place| place.position);
            while index.segments.len() > 1 && index.segments.get(1).is_some_and(|next| next.base <= needed) {
                gone.extend(index.segments.pop_front());
            }
        }
        for segment in &gone {
            self.shared.disk.remove(&Segment::path(&self.shared.options.dir, segment.number))?;
        }
        if !gone.is_empty() {
            self.shared.disk.sync_dir(&self.shared.options.dir)?;
        }
        Ok(())
    }

    fn account(&self) {
        let segments =
            self.shared.index.lock().segments.len() as u64 + u64::from(self.shared.spare.load(Ordering::Relaxed));
        self.shared.room.store(self.segment_end().saturating_sub(self.end), Ordering::Release);
        self.shared.disk_bytes.store(segments * self.shared.options.segment_bytes, Ordering::Relaxed);
    }
}

fn encoded(value: &impl Encode) -> Vec<u8> {
    let mut out = Vec::new();
    value.encode(&mut out);
    out
}
