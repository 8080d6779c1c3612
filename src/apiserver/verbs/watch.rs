//! Watch: what is there, then what changes, in order and without gaps.
//!
//! A watch reads from the resource's window of changes; the bytes of an event are made once for all watchers. With a
//! selector an object that begins to match is ADDED and one that ceases to match is DELETED.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use api::{Call, Encoded, EventKind, Failure, Row, WatchEvent, WatchResult};
use bytes::Bytes;
use futures::{Stream, stream};
use rand::RngExt;
use task::Shutdown;
use tokio::time::Instant;

use super::read::revision_of_one;
use super::{Selection, cache_of, convert};
use crate::cache::{Cache, Change, Follower, Stored, TooOld};
use crate::failures;
use crate::server::ApiServer;

/// Bookmarks are sent about this often to those who want them.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// The initial objects are handed on in pieces of this many.
const INITIAL_EVENTS_MAX: usize = 256;

/// One thing that a watch yields.
pub enum Item {
    /// An event in the bytes that all watchers share.
    Shared(EventKind, Arc<Change>),
    /// An event of this watch alone: the initial state, what a selector makes of a change, another version.
    Own(EventKind, Arc<Stored>),
    Bookmark(Bytes),
    Failed(Failure),
}

pub struct Watch {
    server: ApiServer,
    row: Arc<Row>,
    cache: Arc<Cache>,
    selection: Selection,
    initial: VecDeque<Arc<Stored>>,
    /// To be sent after the initial objects: they are complete as of this revision.
    initial_end: Option<u64>,
    opened: Instant,
    follower: Follower,
    /// The watcher knows everything up to here.
    known: u64,
    bookmark_at: Option<Instant>,
    deadline: Instant,
    shutdown: Shutdown,
    /// Cancelled when a custom resource is served no more as it was.
    row_ended: Shutdown,
    ended: bool,
}

/// Opens a watch; a failure here is the answer to the request, later ones are events.
pub async fn open(server: &ApiServer, row: Arc<Row>, call: Call) -> Result<Watch, Failure> {
    let now = Instant::now();
    let options = &call.options;
    let namespace = call.namespace.as_deref().filter(|_| row.namespaced);
    let mut selection = Selection::new(&row, namespace, options)?;
    if let Some(name) = &call.name {
        selection.only(name);
    }
    let asked = revision_of_one(options.resource_version.as_deref())?;
    let resource = cache_of(server, &row)?;
    let cache = server.cache().clone();
    let streaming_list = options.send_initial_events == Some(true);
    let from_now = matches!(asked, None | Some(0));
    let (initial, initial_end, follower, known) =
        if streaming_list || (from_now && options.send_initial_events.is_none()) {
            let wanted = match asked {
                Some(asked) => asked,
                None => server.store().read_index().await.map_err(|error| failures::of_store(&error))?,
            };
            cache.reach(wanted).await?;
            let (snapshot, follower) = resource.snapshot_and_follow(selection.namespace.as_deref(), cache.revision());
            let mut objects = snapshot.objects;
            if selection.looks_into(&row) {
                objects = convert::all_in_version(server, &row, objects).await?;
            }
            objects.retain(|stored| selection.matches(&row, stored));
            let end = (streaming_list && options.allow_watch_bookmarks).then_some(snapshot.revision);
            (objects.into(), end, follower, snapshot.revision)
        } else {
            let from = if from_now { cache.revision() } else { asked.unwrap_or_default() };
            cache.reach(from).await?;
            let follower = resource.follow(from).map_err(|error| failures::too_old(from, error.complete_after))?;
            (VecDeque::new(), None, follower, from)
        };
    let lasts = match options.timeout_seconds.filter(|seconds| *seconds > 0) {
        Some(seconds) => Duration::from_secs(seconds.min(86_400)),
        None => server.limits().watch_min.mul_f64(server.rng().random_range(1.0..2.0)),
    };
    let row_ended = server.custom().end_of(&row).unwrap_or_default();
    Ok(Watch {
        server: server.clone(),
        row,
        cache,
        selection,
        initial,
        initial_end,
        opened: now,
        follower,
        known,
        bookmark_at: options.allow_watch_bookmarks.then(|| now + BOOKMARK_INTERVAL),
        deadline: now + lasts,
        shutdown: server.shutdown().clone(),
        row_ended,
        ended: false,
    })
}

impl Watch {
    /// The events, as many at a time as are there.
    pub fn into_batches(self) -> impl Stream<Item = Vec<Item>> + Send + 'static {
        stream::unfold(self, |mut watch| async move {
            let batch = watch.next().await?;
            Some((batch, watch))
        })
    }

    async fn next(&mut self) -> Option<Vec<Item>> {
        if self.ended {
            return None;
        }
        if !self.initial.is_empty() {
            let count = self.initial.len().min(INITIAL_EVENTS_MAX);
            let objects: Vec<_> = self.initial.drain(..count).collect();
            return Some(match self.converted(objects).await {
                Ok(objects) => objects.into_iter().map(|stored| Item::Own(EventKind::Added, stored)).collect(),
                Err(failure) => self.fail(failure),
            });
        }
        if let Some(revision) = self.initial_end.take() {
            let (lists, took) = (&self.server.metrics().lists, self.opened.elapsed());
            lists.watched(&self.row.resource, self.selection.scope(), took);
            return Some(vec![Item::Bookmark(bookmark(&self.row, revision, true))]);
        }
        loop {
            let bookmark_at = self.bookmark_at.unwrap_or(self.deadline);
            let changes = tokio::select! {
                // What there is to tell is told before the end.
                biased;
                changes = self.follower.next() => changes,
                () = tokio::time::sleep_until(bookmark_at.min(self.deadline)) => {
                    if Instant::now() >= self.deadline {
                        self.ended = true;
                        return None;
                    }
                    match self.progress().await {
                        Some(items) => return Some(items),
                        None => continue,
                    }
                }
                () = self.shutdown.cancelled() => {
                    self.ended = true;
                    return None;
                }
                () = self.row_ended.cancelled() => {
                    self.ended = true;
                    return None;
                }
            };
            match changes {
                Ok(changes) => {
                    let items = self.items(&changes).await;
                    if !items.is_empty() {
                        return Some(items);
                    }
                }
                Err(TooOld { complete_after }) => {
                    self.ended = true;
                    self.server.metrics().lists.watch_ended(&self.row.storage);
                    return Some(vec![Item::Failed(failures::too_old(self.known, complete_after))]);
                }
            }
        }
    }

    /// What is due when the bookmark's time has come.
    async fn progress(&mut self) -> Option<Vec<Item>> {
        self.bookmark_at = self.bookmark_at.map(|_| Instant::now() + BOOKMARK_INTERVAL);
        // Read in this order: everything up to `reached` is in the window when the window is looked at.
        let reached = self.cache.revision();
        let changes = self.follower.ready().ok()?;
        let mut items = self.items(&changes).await;
        if changes.is_empty() && reached > self.known {
            self.known = reached;
            items.push(Item::Bookmark(bookmark(&self.row, reached, false)));
        }
        (!items.is_empty()).then_some(items)
    }

    async fn items(&mut self, changes: &[Arc<Change>]) -> Vec<Item> {
        if let Some(last) = changes.last() {
            self.known = last.revision;
        }
        if convert::is_native(&self.row) {
            return changes.iter().filter_map(|change| self.item(change)).collect();
        }
        match self.foreign_items(changes).await {
            Ok(items) => items,
            Err(failure) => self.fail(failure),
        }
    }

    fn item(&self, change: &Arc<Change>) -> Option<Item> {
        let before = change.previous.as_ref().filter(|previous| self.selection.matches(&self.row, previous));
        let after = !change.deleted && self.selection.matches(&self.row, &change.object);
        let kind = kind(before.is_some(), after)?;
        // What ceased to match is shown as it was when it did.
        Some(match before {
            Some(previous) if kind == EventKind::Deleted && !change.deleted => {
                Item::Own(kind, Arc::new(previous.at(change.revision)))
            }
            _ => Item::Shared(kind, change.clone()),
        })
    }

    /// The same in another version than the stored one. All objects are converted in one go, before or after it is
    /// decided which are wanted.
    async fn foreign_items(&self, changes: &[Arc<Change>]) -> Result<Vec<Item>, Failure> {
        let first = self.selection.looks_into(&self.row);
        let mut all = Vec::with_capacity(changes.len() * 2);
        for change in changes {
            all.push(change.object.clone());
            all.push(change.previous.clone().unwrap_or_else(|| change.object.clone()));
        }
        if first {
            all = self.converted(all).await?;
        }
        let mut kinds = Vec::with_capacity(changes.len());
        let mut wanted = Vec::with_capacity(changes.len());
        for (change, pair) in changes.iter().zip(all.chunks_exact(2)) {
            let [object, previous] = pair else { continue };
            let before = change.previous.is_some() && self.selection.matches(&self.row, previous);
            let after = !change.deleted && self.selection.matches(&self.row, object);
            let Some(kind) = kind(before, after) else { continue };
            let ceased = kind == EventKind::Deleted && !change.deleted;
            wanted.push(if ceased { Arc::new(previous.at(change.revision)) } else { object.clone() });
            kinds.push(kind);
        }
        if !first {
            wanted = self.converted(wanted).await?;
        }
        Ok(kinds.into_iter().zip(wanted).map(|(kind, object)| Item::Own(kind, object)).collect())
    }

    async fn converted(&self, objects: Vec<Arc<Stored>>) -> Result<Vec<Arc<Stored>>, Failure> {
        convert::all_in_version(&self.server, &self.row, objects).await
    }

    /// A watch that cannot show an object ends.
    fn fail(&mut self, failure: Failure) -> Vec<Item> {
        self.ended = true;
        vec![Item::Failed(failure)]
    }
}

/// What a change is to a watcher, by whether the object was wanted before and is now.
fn kind(before: bool, after: bool) -> Option<EventKind> {
    match (before, after) {
        (false, false) => None,
        (false, true) => Some(EventKind::Added),
        (true, true) => Some(EventKind::Modified),
        (true, false) => Some(EventKind::Deleted),
    }
}

impl Item {
    /// The event as components in this process take it.
    pub fn into_event(self) -> WatchResult {
        match self {
            Item::Shared(kind, change) => Ok(WatchEvent { kind, object: change.object.encoded() }),
            Item::Own(kind, stored) => Ok(WatchEvent { kind, object: stored.encoded() }),
            Item::Bookmark(object) => Ok(WatchEvent { kind: EventKind::Bookmark, object: Encoded::whole(object) }),
            Item::Failed(failure) => Err(failure),
        }
    }

    /// The event as a line of JSON.
    pub fn into_frame(self) -> Bytes {
        match self {
            Item::Shared(kind, change) => change.frame(kind),
            Item::Own(kind, stored) => crate::cache::frame(name(kind), &stored),
            Item::Bookmark(object) => line("BOOKMARK", &object),
            Item::Failed(failure) => line("ERROR", failure.to_status().to_string().as_bytes()),
        }
    }
}

pub fn name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Added => "ADDED",
        EventKind::Modified => "MODIFIED",
        EventKind::Deleted => "DELETED",
        EventKind::Bookmark => "BOOKMARK",
    }
}

/// A watch event's line from an object's JSON.
pub fn line(kind: &str, object: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(object.len() + 40);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
    out.into()
}

fn bookmark(row: &Row, revision: u64, initial_end: bool) -> Bytes {
    let annotations = if initial_end { r#","annotations":{"k8s.io/initial-events-end":"true"}"# } else { "" };
    let text = format!(
        r#"{{"kind":"{}","apiVersion":"{}","metadata":{{"resourceVersion":"{revision}"{annotations}}}}}"#,
        row.kind,
        row.api_version(),
    );
    text.into()
}
