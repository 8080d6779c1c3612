//! What a controller has just done to objects that its cache does not show yet (upstream's expectations).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// An object that was created and is not seen in the cache after this long is not waited for any more: it came and went.
const UNSEEN_MAX: Duration = Duration::from_secs(30);

/// Creations and deletions that the cache may not show yet, per owner. A controller that counted only what the cache
/// shows would create again what it has just created.
#[derive(Clone, Default)]
pub struct Recent {
    of: Arc<Mutex<HashMap<String, Deeds>>>,
}

#[derive(Default)]
struct Deeds {
    created: HashMap<String, Instant>,
    deleted: HashMap<String, Instant>,
}

/// What the cache does not show yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unseen {
    /// Objects that were created.
    pub created: usize,
    /// The uids of objects that were deleted, and look as if they were not.
    pub deleted: Vec<String>,
}

impl Unseen {
    pub fn is_empty(&self) -> bool {
        self.created == 0 && self.deleted.is_empty()
    }

    /// When to look again for a created object that never shows up.
    pub fn again(&self) -> Option<Duration> {
        (!self.is_empty()).then_some(UNSEEN_MAX)
    }
}

impl Recent {
    pub fn created(&self, owner_uid: &str, uid: &str) {
        self.of.lock().entry(owner_uid.to_owned()).or_default().created.insert(uid.to_owned(), Instant::now());
    }

    pub fn deleted(&self, owner_uid: &str, uid: &str) {
        self.of.lock().entry(owner_uid.to_owned()).or_default().deleted.insert(uid.to_owned(), Instant::now());
    }

    /// It was not deleted after all.
    pub fn kept(&self, owner_uid: &str, uid: &str) {
        if let Some(deeds) = self.of.lock().get_mut(owner_uid) {
            deeds.deleted.remove(uid);
        }
    }

    /// Forgets what the cache knows by now. `seen` are the uids of the objects that it shows, each with whether it shows
    /// the deletion as well.
    pub fn settle<'a>(&self, owner_uid: &str, seen: impl IntoIterator<Item = (&'a str, bool)>) -> Unseen {
        let mut of = self.of.lock();
        let Some(deeds) = of.get_mut(owner_uid) else { return Unseen::default() };
        let seen: HashMap<&str, bool> = seen.into_iter().collect();
        let now = Instant::now();
        let young = |at: &Instant| now.duration_since(*at) < UNSEEN_MAX;
        deeds.created.retain(|uid, at| young(at) && !seen.contains_key(uid.as_str()));
        deeds.deleted.retain(|uid, at| young(at) && seen.get(uid.as_str()) == Some(&false));
        let unseen = Unseen { created: deeds.created.len(), deleted: deeds.deleted.keys().cloned().collect() };
        if unseen.is_empty() {
            of.remove(owner_uid);
        }
        unseen
    }

    /// The owner is gone.
    pub fn forget(&self, owner_uid: &str) {
        self.of.lock().remove(owner_uid);
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
        let unseen = recent.settle("owner", [("a", false), ("c", false)]);
        assert_eq!(unseen, Unseen { created: 1, deleted: vec!["c".to_owned()] });
        assert_eq!(unseen.again(), Some(UNSEEN_MAX));
        assert!(recent.settle("owner", [("a", false), ("b", false), ("c", true)]).is_empty(), "c is seen to go");
        assert!(recent.settle("other", []).is_empty());
        recent.created("owner", "d");
        tokio::time::advance(UNSEEN_MAX).await;
        assert!(recent.settle("owner", []).is_empty(), "it came and went unseen");
    }

    #[tokio::test(start_paused = true)]
    async fn a_deletion_that_was_refused_is_not_waited_for() {
        let recent = Recent::default();
        recent.deleted("owner", "a");
        recent.kept("owner", "a");
        assert!(recent.settle("owner", [("a", false)]).is_empty());
    }
}
