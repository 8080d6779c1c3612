//! Every operation took place at one moment between its beginning and its end. The store numbers its moments: a write
//! took place at its revision, a read after the revision that it names. So it is enough that these agree with the
//! history, and with the order in which operations ended and began.

use std::collections::BTreeMap;

use crate::sim::history::{Call, End, Inner, Operation};

pub(in crate::sim) fn check(history: &Inner) -> Result<(), String> {
    let failed = |operation: &Operation, what: &str| Err(format!("linearizable: {what}: {operation:?}"));
    let mut written: BTreeMap<&[u8], u64> = BTreeMap::new();
    for event in history.events.values().flatten().filter(|event| !event.deleted) {
        if written.insert(&event.kv.value, event.kv.mod_revision).is_some() {
            return Err(format!("linearizable: {:?} was written twice", event.kv.value));
        }
    }
    for operation in &history.operations {
        let value = match &operation.call {
            Call::Put { value, .. } | Call::Swap { value, .. } => Some(value),
            Call::Delete | Call::Get => None,
        };
        let found = value.and_then(|value| written.remove(value.as_bytes()));
        match &operation.end {
            End::Written { revision } => {
                if value.is_some() && found != Some(*revision) {
                    return failed(operation, "an acknowledged write is not there");
                }
                let events = &history.events[revision];
                if !events
                    .iter()
                    .any(|event| event.kv.key == operation.key.as_bytes() && event.deleted == value.is_none())
                {
                    return failed(operation, "an acknowledged write is another one");
                }
                if let Call::Swap { expected, .. } = operation.call
                    && history.at(operation.key, revision - 1).map_or(0, |(_, at)| at) != expected
                {
                    return failed(operation, "a comparison held that should not have");
                }
            }
            End::Found { revision, kv } => {
                if history.at(operation.key, *revision) != *kv {
                    return failed(operation, "something else was there");
                }
            }
            End::NotSwapped { revision } => {
                let Call::Swap { expected, .. } = operation.call else { continue };
                if history.at(operation.key, *revision).map_or(0, |(_, at)| at) == expected {
                    return failed(operation, "a comparison did not hold that should have");
                }
            }
            End::Refused if found.is_some() => return failed(operation, "a refused write was written"),
            End::Refused | End::Unknown => {}
        }
    }
    if let Some((value, revision)) = written.into_iter().next() {
        return Err(format!("linearizable: at {revision} {value:?} was written, which nobody asked for"));
    }
    real_time(history)
}

/// Who begins after another one has ended comes after it.
fn real_time(history: &Inner) -> Result<(), String> {
    let point = |operation: &Operation| match operation.end {
        End::Written { revision } => Some((revision, true)),
        End::Found { revision, .. } | End::NotSwapped { revision } => Some((revision, false)),
        End::Refused | End::Unknown => None,
    };
    let mut by_end: Vec<&Operation> = history.operations.iter().filter(|one| point(one).is_some()).collect();
    let mut by_begin = by_end.clone();
    by_end.sort_by_key(|operation| operation.ended);
    by_begin.sort_by_key(|operation| operation.began);
    let mut ended = by_end.into_iter().peekable();
    let mut newest: Option<(u64, &Operation)> = None;
    for operation in by_begin {
        while let Some(before) = ended.next_if(|before| before.ended < operation.began) {
            if let Some((revision, _)) = point(before)
                && newest.is_none_or(|(newest, _)| revision > newest)
            {
                newest = Some((revision, before));
            }
        }
        if let (Some((newest, before)), Some((revision, writes))) = (newest, point(operation))
            && (revision < newest || (writes && revision == newest))
        {
            return Err(format!("linearizable: {operation:?} does not come after {before:?}"));
        }
    }
    Ok(())
}
