//! All members have the same state, and it is what the history makes of nothing.

use std::collections::BTreeMap;

use crate::sim::history::Inner;
use crate::{KeyRange, Store};

pub(in crate::sim) fn check(members: &[Store], history: &Inner) -> Result<(), String> {
    let state = |store: &Store| {
        store.inner.watched.with(|state, _| (state.revision(), state.compacted(), state.hash(), state.leases()))
    };
    let members = members.iter().filter(|store| !store.inner.group.witness);
    let states: Vec<_> = members.clone().map(state).collect();
    if states.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(format!("same state: {states:?}"));
    }
    let mut want = BTreeMap::new();
    for event in history.events.values().flatten() {
        if event.deleted {
            want.remove(&event.kv.key);
        } else {
            want.insert(event.kv.key.clone(), event.kv.clone());
        }
    }
    for store in members {
        let found = store.range(&KeyRange::prefix("").into()).map_err(|error| error.to_string())?;
        if !found.kvs.iter().eq(want.values()) {
            return Err(format!("same state: {:?} is there instead of {want:?}", found.kvs));
        }
    }
    Ok(())
}
