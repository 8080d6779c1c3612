//! Who controls whom: owner references with `controller: true`, and what a controller has just done to objects that its
//! cache does not show yet.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Failure, Object};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use parking_lot::Mutex;
use tokio::time::Instant;

/// An object that was created and is not seen in the cache after this long is not waited for any more: it came and went.
const UNSEEN_MAX: Duration = Duration::from_secs(30);

/// The reference that makes `owner` the controller of an object.
pub fn controller_reference<T: Object>(owner: &T) -> OwnerReference {
    let meta = owner.metadata();
    OwnerReference {
        api_version: T::API_VERSION.to_owned(),
        kind: T::KIND.to_owned(),
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The reference to an object's controller, if it has one.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|reference| reference.controller == Some(true))
}

pub fn is_controlled_by(meta: &ObjectMeta, uid: Option<&str>) -> bool {
    uid.is_some() && controller_of(meta).map(|reference| reference.uid.as_str()) == uid
}

pub fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or_default()
}

/// Creations and deletions that the cache may not show yet, per owner. A controller that counted only what the cache
/// shows would create again what it has just created (upstream's expectations).
#[derive(Clone, Default)]
pub struct Recent {
    of: Arc<Mutex<HashMap<String, Deeds>>>,
}

#[derive(Default)]
struct Deeds {
    created: HashMap<String, Instant>,
    deleted: HashMap<String, Instant>,
}

impl Recent {
    pub fn created(&self, owner_uid: &str, uid: &str) {
        self.of.lock().entry(owner_uid.to_owned()).or_default().created.insert(uid.to_owned(), Instant::now());
    }

    pub fn deleted(&self, owner_uid: &str, uid: &str) {
        self.of.lock().entry(owner_uid.to_owned()).or_default().deleted.insert(uid.to_owned(), Instant::now());
    }

    /// Forgets what the cache, which shows the objects with the uids `seen`, knows by now. Yields how many created ones
    /// are still unseen, and the deleted ones that are still seen.
    pub fn settle(&self, owner_uid: &str, seen: &[&str]) -> (usize, Vec<String>) {
        let mut of = self.of.lock();
        let Some(deeds) = of.get_mut(owner_uid) else { return (0, Vec::new()) };
        let now = Instant::now();
        deeds.created.retain(|uid, at| now.duration_since(*at) < UNSEEN_MAX && !seen.contains(&uid.as_str()));
        deeds.deleted.retain(|uid, at| now.duration_since(*at) < UNSEEN_MAX && seen.contains(&uid.as_str()));
        let outcome = (deeds.created.len(), deeds.deleted.keys().cloned().collect());
        if deeds.created.is_empty() && deeds.deleted.is_empty() {
            of.remove(owner_uid);
        }
        outcome
    }

    /// When a created object that never shows up stops being waited for.
    pub const fn patience() -> Duration {
        UNSEEN_MAX
    }
}

/// For deletions and the like: that the object is gone already is as good.
pub fn gone_is_fine<T>(outcome: Result<T, Failure>) -> Result<(), Failure> {
    match outcome {
        Err(failure) if !failure.is_not_found() => Err(failure),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_was_done_counts_until_it_is_seen() {
        let recent = Recent::default();
        recent.created("owner", "a");
        recent.created("owner", "b");
        recent.deleted("owner", "c");
        assert_eq!(recent.settle("owner", &["a", "c"]), (1, vec!["c".to_owned()]));
        assert_eq!(recent.settle("owner", &["a", "b"]), (0, vec![]));
        assert_eq!(recent.settle("other", &[]), (0, vec![]));
        recent.created("owner", "d");
        tokio::time::advance(UNSEEN_MAX).await;
        assert_eq!(recent.settle("owner", &[]), (0, vec![]), "it came and went unseen");
    }
}
