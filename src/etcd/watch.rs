//! The Watch service: many watches over one stream.
//!
//! Nothing is queued for a client: each watch reads on in the store's history as fast as the stream takes it. One that
//! falls behind what is kept is cancelled with the revision at which history begins, as after a compaction.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, FuturesUnordered};
use futures::{FutureExt, StreamExt};
use prost::Message;
use store::{Event, WatchBatch, WatchError, WatchProgress, Watcher};
use task::Shutdown;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::DropGuard;
use tonic::{Request, Response, Status, Streaming};

use crate::v3::watch_create_request::FilterType;
use crate::v3::watch_request::RequestUnion;
use crate::v3::watch_server::Watch;
use crate::{REQUEST_BYTES_MAX, Served, convert, errors, v3};

/// Responses that wait for the client.
const RESPONSES_MAX: usize = 16;
/// Watches of one stream.
const WATCHES_MAX: usize = 10_000;
/// How often a watch that asked for it hears that nothing happened (etcd: `--experimental-watch-progress-notify-interval`).
const PROGRESS_EVERY: Duration = Duration::from_secs(600);
/// The number of a watch that is none.
const NO_WATCH: i64 = -1;

type Answer<T> = Result<Response<T>, Status>;
type Out = mpsc::Sender<Result<v3::WatchResponse, Status>>;

/// The client is gone.
struct Gone;

/// Who is answered.
struct Client {
    served: Served,
    out: Out,
}

#[tonic::async_trait]
impl Watch for Served {
    type WatchStream = BoxStream<'static, Result<v3::WatchResponse, Status>>;

    async fn watch(&self, request: Request<Streaming<v3::WatchRequest>>) -> Answer<Self::WatchStream> {
        let (out, responses) = mpsc::channel(RESPONSES_MAX);
        let session = Session {
            client: Client { served: self.clone(), out },
            watches: BTreeMap::new(),
            next_id: 0,
            steps: FuturesUnordered::new(),
            asked: None,
        };
        let requests = request.into_inner();
        task::spawn("etcd-watch", async move { drop(session.run(requests).await) });
        Ok(Response::new(ReceiverStream::new(responses).boxed()))
    }
}

/// One stream with its watches.
struct Session {
    client: Client,
    watches: BTreeMap<i64, Known>,
    next_id: i64,
    steps: FuturesUnordered<BoxFuture<'static, (Running, Step)>>,
    /// The client wants to know how far all its watches are.
    asked: Option<Asked>,
}

/// What is known of a watch that runs.
struct Known {
    progress: WatchProgress,
    /// Dropping it ends the watch.
    _cancel: DropGuard,
}

struct Asked {
    revision: u64,
    /// Watches that have not said yet that they have come so far.
    missing: BTreeSet<i64>,
}

struct Running {
    id: i64,
    watcher: Watcher,
    cancelled: Shutdown,
    /// When it is to hear that nothing happened.
    notify_at: Option<Instant>,
    notify_due: bool,
    filters: Vec<i32>,
    prev_kv: bool,
    fragment: bool,
}

enum Step {
    Batch(WatchBatch),
    NotifyDue,
    Ended(WatchError),
    Cancelled,
}

impl Session {
    /// Works until the client goes, or the store closes.
    async fn run(mut self, mut requests: Streaming<v3::WatchRequest>) -> Result<(), Gone> {
        loop {
            tokio::select! {
                request = requests.next() => match request {
                    Some(Ok(v3::WatchRequest { request_union: Some(request) })) => self.request(request).await?,
                    Some(Ok(_)) => {}
                    // Half closed or broken: watches of a client that says nothing more are of no use to it.
                    Some(Err(_)) | None => return Err(Gone),
                },
                Some((running, step)) = self.steps.next() => self.step(running, step).await?,
                () = self.client.out.closed() => return Err(Gone),
            }
        }
    }

    async fn request(&mut self, request: RequestUnion) -> Result<(), Gone> {
        match request {
            RequestUnion::CreateRequest(create) => self.create(create).await,
            RequestUnion::CancelRequest(cancel) => {
                if self.forget(cancel.watch_id) {
                    let cancelled =
                        v3::WatchResponse { watch_id: cancel.watch_id, canceled: true, ..v3::WatchResponse::default() };
                    self.client.send(self.client.served.store.revision(), cancelled).await?;
                }
                self.tell_progress().await
            }
            RequestUnion::ProgressRequest(_) => {
                self.watches.values().for_each(|known| known.progress.request());
                let missing = self.watches.keys().copied().collect();
                self.asked = Some(Asked { revision: self.client.served.store.revision(), missing });
                self.tell_progress().await
            }
        }
    }

    async fn create(&mut self, create: v3::WatchCreateRequest) -> Result<(), Gone> {
        let revision = self.client.served.store.revision();
        let refused = |reason: &str| v3::WatchResponse {
            watch_id: NO_WATCH,
            created: true,
            canceled: true,
            cancel_reason: reason.to_owned(),
            ..v3::WatchResponse::default()
        };
        if self.watches.len() >= WATCHES_MAX {
            return self.client.send(revision, refused("etcdserver: too many requests")).await;
        }
        while self.watches.contains_key(&self.next_id) {
            self.next_id += 1;
        }
        let id = if create.watch_id == 0 { self.next_id } else { create.watch_id };
        if self.watches.contains_key(&id) {
            return self.client.send(revision, refused("mvcc: duplicate watch ID provided on the WatchStream")).await;
        }
        // No key is the first key.
        let key = if create.key.is_empty() { Bytes::from_static(&[0]) } else { create.key };
        let from_revision = u64::try_from(create.start_revision).ok().filter(|revision| *revision > 0);
        let request = store::WatchRequest { keys: convert::key_range(key, create.range_end), from_revision };
        let watching = self.client.served.store.watch(request);
        let created = v3::WatchResponse { watch_id: id, created: true, ..v3::WatchResponse::default() };
        self.client.send(revision, created).await?;
        let watcher = match watching {
            Ok(watcher) => watcher,
            Err(store::Error::Compacted { compacted, .. }) => {
                return self.client.cancelled(id, &WatchError::Compacted { compacted }).await;
            }
            Err(_) => return self.client.cancelled(id, &WatchError::Closed).await,
        };
        let cancelled = Shutdown::new();
        let known = Known { progress: watcher.progress(), _cancel: cancelled.clone().drop_guard() };
        self.watches.insert(id, known);
        let running = Running {
            id,
            watcher,
            cancelled,
            notify_at: create.progress_notify.then(|| Instant::now() + PROGRESS_EVERY),
            notify_due: false,
            filters: create.filters,
            prev_kv: create.prev_kv,
            fragment: create.fragment,
        };
        self.steps.push(running.step().boxed());
        Ok(())
    }

    async fn step(&mut self, mut running: Running, step: Step) -> Result<(), Gone> {
        let id = running.id;
        match step {
            Step::Cancelled => return Ok(()),
            Step::Ended(error) => {
                self.forget(id);
                self.client.cancelled(id, &error).await?;
                return self.tell_progress().await;
            }
            Step::NotifyDue => {
                running.notify_due = true;
                running.notify_at = None;
                if let Some(known) = self.watches.get(&id) {
                    known.progress.request();
                }
            }
            Step::Batch(batch) => {
                let events: Vec<v3::Event> = running.wanted(&batch).collect();
                let idle = batch.events.is_empty();
                if !events.is_empty() || (idle && running.notify_due) {
                    for response in pieces(id, events, running.fragment) {
                        self.client.send(batch.revision, response).await?;
                    }
                }
                if running.notify_due || (running.notify_at.is_some() && !idle) {
                    running.notify_due = false;
                    running.notify_at = Some(Instant::now() + PROGRESS_EVERY);
                }
                if let Some(asked) = &mut self.asked
                    && batch.revision >= asked.revision
                {
                    asked.missing.remove(&id);
                }
                self.tell_progress().await?;
            }
        }
        self.steps.push(running.step().boxed());
        Ok(())
    }

    /// True if there was such a watch.
    fn forget(&mut self, id: i64) -> bool {
        if let Some(asked) = &mut self.asked {
            asked.missing.remove(&id);
        }
        self.watches.remove(&id).is_some()
    }

    /// Answers who asked how far all watches are, once all have come so far.
    async fn tell_progress(&mut self) -> Result<(), Gone> {
        let Some(asked) = self.asked.take_if(|asked| asked.missing.is_empty()) else { return Ok(()) };
        let response = v3::WatchResponse { watch_id: NO_WATCH, ..v3::WatchResponse::default() };
        self.client.send(asked.revision, response).await
    }
}

impl Client {
    async fn cancelled(&self, id: i64, error: &WatchError) -> Result<(), Gone> {
        let (reason, compacted) = errors::of_watch(error);
        let response = v3::WatchResponse {
            watch_id: id,
            canceled: true,
            compact_revision: convert::signed(compacted),
            cancel_reason: reason.to_owned(),
            ..v3::WatchResponse::default()
        };
        self.send(self.served.store.revision(), response).await
    }

    async fn send(&self, revision: u64, response: v3::WatchResponse) -> Result<(), Gone> {
        let response = v3::WatchResponse { header: self.served.header(revision), ..response };
        self.out.send(Ok(response)).await.map_err(|_| Gone)
    }
}

impl Running {
    async fn step(mut self) -> (Running, Step) {
        let due = self.notify_at;
        let notify = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let step = tokio::select! {
            biased;
            () = self.cancelled.cancelled() => Step::Cancelled,
            batch = self.watcher.next() => batch.map_or_else(Step::Ended, Step::Batch),
            () = notify => Step::NotifyDue,
        };
        (self, step)
    }

    fn wanted(&self, batch: &WatchBatch) -> impl Iterator<Item = v3::Event> {
        let filtered = |filter: FilterType| self.filters.contains(&i32::from(filter));
        let (no_put, no_delete) = (filtered(FilterType::Noput), filtered(FilterType::Nodelete));
        let wanted = move |event: &Event| if event.deleted { !no_delete } else { !no_put };
        let prev_kv = self.prev_kv;
        batch.events.iter().filter(move |event| wanted(event)).map(move |event| convert::event(event, prev_kv))
    }
}

/// The events in one response, or, for a client that puts them together again, in several of bounded length.
fn pieces(id: i64, events: Vec<v3::Event>, fragment: bool) -> Vec<v3::WatchResponse> {
    let response = |events| v3::WatchResponse { watch_id: id, events, ..v3::WatchResponse::default() };
    if !fragment {
        return vec![response(events)];
    }
    let mut pieces = vec![response(Vec::new())];
    let mut bytes = 0;
    for event in events {
        let more = event.encoded_len();
        if bytes > 0 && bytes + more > REQUEST_BYTES_MAX {
            pieces.push(response(Vec::new()));
            bytes = 0;
        }
        bytes += more;
        if let Some(last) = pieces.last_mut() {
            last.events.push(event);
        }
    }
    if let Some((_, before)) = pieces.split_last_mut() {
        before.iter_mut().for_each(|piece| piece.fragment = true);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(value_bytes: usize) -> v3::Event {
        let kv = v3::KeyValue { value: vec![0; value_bytes].into(), ..v3::KeyValue::default() };
        v3::Event { kv: Some(kv), ..v3::Event::default() }
    }

    #[test]
    fn many_events_come_in_pieces_for_those_who_put_them_together() {
        let half = REQUEST_BYTES_MAX / 2;
        let events = vec![event(half), event(half), event(10), event(REQUEST_BYTES_MAX), event(10)];
        let whole = pieces(7, events.clone(), false);
        assert_eq!(whole.iter().map(|piece| (piece.events.len(), piece.fragment)).collect::<Vec<_>>(), [(5, false)]);
        let parts = pieces(7, events.clone(), true);
        let shape: Vec<_> = parts.iter().map(|piece| (piece.watch_id, piece.events.len(), piece.fragment)).collect();
        assert_eq!(shape, [(7, 1, true), (7, 2, true), (7, 1, true), (7, 1, false)]);
        assert_eq!(parts.into_iter().flat_map(|piece| piece.events).collect::<Vec<_>>(), events);
        assert_eq!(pieces(1, Vec::new(), true).len(), 1, "that nothing happened is one response");
    }
}
