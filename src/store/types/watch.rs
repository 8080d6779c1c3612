//! What watchers ask for and get.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{KeyRange, KeyValue};

/// Which changes a watcher wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchRequest {
    pub keys: KeyRange,
    /// The first revision that may be delivered; `None` is the one after the newest. One that lies ahead is waited for.
    pub from_revision: Option<u64>,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// The key as it is now. After a deletion: no value, version and create revision 0, and the deleting revision.
    pub kv: KeyValue,
    pub deleted: bool,
    /// The key as it was before this revision. Most changes in history are creations and have none.
    pub prev: Option<Box<KeyValue>>,
}

/// Changes in revision order: everything that concerns the watcher up to and including `revision`, and never a
/// part of a revision. Without events it is a sign of progress only.
#[derive(Clone, Debug)]
pub struct WatchBatch {
    pub revision: u64,
    pub events: Vec<Arc<Event>>,
}
