//! Lists a kind and follows it with a watch, for ever (upstream's reflector).
//!
//! After a broken watch it goes on from the last revision it saw, and after 410 Expired it lists again. So its user misses
//! no state, only intermediate ones.

use std::sync::Arc;
use std::time::Duration;

use api::{Call, Encoded, EventKind, Failure, Reason, Resource, Verb, WatchResult};
use futures::StreamExt;
use futures::stream::BoxStream;

use crate::backend::Backend;
use crate::informer::Scope;

const RECONNECT_PAUSE_MIN: Duration = Duration::from_millis(50);
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Objects fetched with one list call.
const PAGE_OBJECTS: u64 = 500;
/// A server ends a watch after about this long, so that connections spread over the servers again.
const WATCH_SECONDS: u64 = 30 * 60;

/// What is to be done with a copy of the objects.
#[derive(Debug)]
pub enum Step {
    /// These are all; what else the copy holds is gone.
    All(Vec<Encoded>),
    Put(Encoded),
    /// As it was last.
    Gone(Encoded),
}

/// Follows the objects of one resource.
pub struct Follow {
    backend: Arc<dyn Backend>,
    resource: Resource,
    scope: Scope,
    state: State,
    pause: Duration,
}

enum State {
    Listing,
    Reconnecting {
        revision: String,
    },
    /// `gave`: something came out of it.
    Watching {
        events: BoxStream<'static, WatchResult>,
        revision: String,
        gave: bool,
    },
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    resource_version: String,
}

impl Follow {
    pub fn new(backend: Arc<dyn Backend>, resource: Resource, scope: Scope) -> Follow {
        Follow { backend, resource, scope, state: State::Listing, pause: RECONNECT_PAUSE_MIN }
    }

    /// Waits for the next step, through every failure. The first one is [`Step::All`].
    pub async fn next(&mut self) -> Step {
        loop {
            match self.advance().await {
                Ok(Some(step)) => {
                    self.pause = RECONNECT_PAUSE_MIN;
                    return step;
                }
                Ok(None) => {}
                Err(failure) => {
                    if failure.is_expired() {
                        self.state = State::Listing;
                    } else {
                        tracing::debug!(resource = %self.resource, %failure, "watch broke; it goes on in a moment");
                    }
                    tokio::time::sleep(self.pause).await;
                    self.pause = (self.pause * 2).min(RECONNECT_PAUSE_MAX);
                }
            }
        }
    }

    async fn advance(&mut self) -> Result<Option<Step>, Failure> {
        match &mut self.state {
            State::Listing => {
                let (objects, revision) = self.list().await?;
                self.state = State::Reconnecting { revision };
                Ok(Some(Step::All(objects)))
            }
            State::Reconnecting { revision } => {
                let revision = std::mem::take(revision);
                let mut call = self.call(Verb::Watch);
                call.options.resource_version = Some(revision.clone());
                call.options.allow_watch_bookmarks = true;
                call.options.timeout_seconds = Some(WATCH_SECONDS);
                self.state = State::Watching { events: self.backend.watch(call), revision, gave: false };
                Ok(None)
            }
            State::Watching { events, revision, gave } => {
                let event = match events.next().await {
                    Some(Ok(event)) => event,
                    ended => {
                        let was_good = *gave;
                        self.state = State::Reconnecting { revision: std::mem::take(revision) };
                        return match ended {
                            Some(Err(failure)) => Err(failure),
                            // A server that ends every watch at once, as one that stops does, is not asked in a tight loop.
                            _ if !was_good => Err(Failure::new(Reason::ServiceUnavailable, "the watch ended at once")),
                            _ => Ok(None),
                        };
                    }
                };
                *gave = true;
                let version = match event.object.resource_version {
                    Some(version) => version.to_string(),
                    None => event.object.metadata::<Meta>().map_err(Failure::internal)?.resource_version,
                };
                if !version.is_empty() {
                    *revision = version;
                }
                Ok(match event.kind {
                    EventKind::Added | EventKind::Modified => Some(Step::Put(event.object)),
                    EventKind::Deleted => Some(Step::Gone(event.object)),
                    EventKind::Bookmark => None,
                })
            }
        }
    }

    async fn list(&mut self) -> Result<(Vec<Encoded>, String), Failure> {
        let mut objects = Vec::new();
        let mut next = None;
        loop {
            let mut call = self.call(Verb::List);
            call.options.limit = Some(PAGE_OBJECTS);
            call.options.continue_token = next.take();
            let mut page = self.backend.list(call).await?;
            objects.append(&mut page.objects);
            next = page.continue_token;
            if next.is_none() {
                return Ok((objects, page.resource_version));
            }
        }
    }

    fn call(&self, verb: Verb) -> Call {
        let mut call = Call::new(verb, self.resource.clone());
        call.namespace = self.scope.namespace.clone();
        call.options.field_selector = self.scope.field_selector.clone();
        call.options.label_selector = self.scope.label_selector.clone();
        call
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Answer;
    use bytes::Bytes;
    use futures::future::BoxFuture;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Ends every watch at once.
    struct Stopping(AtomicUsize);

    impl Backend for Stopping {
        fn call(&self, _: Call) -> BoxFuture<'static, Result<Answer, Failure>> {
            let body = Bytes::from_static(br#"{"metadata": {"resourceVersion": "1"}, "items": []}"#);
            Box::pin(async move { Ok(Answer { code: 200, body, warnings: vec![] }) })
        }

        fn watch(&self, _: Call) -> BoxStream<'static, WatchResult> {
            self.0.fetch_add(1, Ordering::SeqCst);
            futures::stream::empty().boxed()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn watches_that_end_at_once_are_opened_ever_more_slowly() {
        let backend = Arc::new(Stopping(AtomicUsize::new(0)));
        let mut follow = Follow::new(backend.clone(), Resource::new("", "v1", "pods"), Scope::all());
        assert!(matches!(follow.next().await, Step::All(_)));
        assert!(tokio::time::timeout(Duration::from_secs(5), follow.next()).await.is_err());
        let opened = backend.0.load(Ordering::SeqCst);
        assert!((3..10).contains(&opened), "{opened} watches in 5 s");
    }
}
