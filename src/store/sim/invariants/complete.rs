//! The history that everything else is compared with has every revision, each key at most once in it, and each event
//! says rightly what was there before.

use std::collections::BTreeMap;

use crate::sim::history::Inner;

pub(in crate::sim) fn check(history: &Inner, last: u64) -> Result<(), String> {
    let revisions: Vec<u64> = history.events.keys().copied().collect();
    if !revisions.iter().copied().eq(2..=last) {
        return Err(format!("complete: the group is at revision {last}, and these were seen: {revisions:?}"));
    }
    let mut now = BTreeMap::new();
    for (revision, events) in &history.events {
        for event in events {
            let key = &event.kv.key;
            let before = if event.deleted { now.remove(key) } else { now.insert(key.clone(), event.kv.clone()) };
            if before.as_ref() != event.prev.as_deref() {
                return Err(format!(
                    "complete: at {revision} {key:?} was {before:?}, and the event says {:?}",
                    event.prev
                ));
            }
        }
    }
    Ok(())
}
