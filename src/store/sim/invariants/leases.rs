//! No lease ends before its time: that which it was given last, counted from when that was asked for.

use std::time::Duration;

use crate::sim::history::{Call, End, Inner};

pub(in crate::sim) fn check(history: &Inner) -> Result<(), String> {
    // A key can also go because a client deleted it.
    let deleted_by_clients =
        history.operations.iter().any(|one| matches!(one.call, Call::Delete) && matches!(one.end, End::Unknown));
    for (lease, ended) in &history.ends {
        let kept = history.alive.iter().filter(|alive| alive.lease == *lease && alive.at < *ended);
        let Some(last) = kept.max_by_key(|alive| alive.at) else { continue };
        let time = Duration::from_secs(last.ttl_seconds.unsigned_abs());
        if *ended < last.at + time && !deleted_by_clients && !by_client(history, *lease) {
            let early = last.at + time - *ended;
            return Err(format!("leases: {lease} ended {early:?} before its time"));
        }
    }
    Ok(())
}

/// A key of the lease was deleted by a client.
fn by_client(history: &Inner, lease: i64) -> bool {
    let deletions = history.operations.iter().filter_map(|one| match (&one.call, &one.end) {
        (Call::Delete, End::Written { revision }) => Some(*revision),
        _ => None,
    });
    let mut events = deletions.flat_map(|revision| history.events.get(&revision).into_iter().flatten());
    events.any(|event| event.prev.as_ref().is_some_and(|prev| prev.lease == lease))
}
