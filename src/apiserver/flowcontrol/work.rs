//! How much of the server a request is taken to need (upstream: the work estimators).

use std::time::Duration;

use api::{Call, Verb};

use crate::cache::ResourceCache;

/// Bytes in memory that one seat stands for.
const BYTES_PER_SEAT: u64 = 100_000;
/// Lists are sent piece by piece: more than this is not held at once.
const LIST_BYTES_MAX: u64 = 1_000_000;
const LIST_SEATS_MAX: u64 = 100;
const MUTATING_SEATS_MAX: u64 = 10;
const WATCHES_PER_SEAT: u64 = 10;
/// What a seat's worth of watchers takes to be told of a change.
const EVENT: Duration = Duration::from_millis(5);

/// Seats while a request runs, and how long they are taken after its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    pub seats: u64,
    pub linger: Duration,
}

impl Work {
    pub const ONE: Work = Work { seats: 1, linger: Duration::ZERO };
}

/// `single` says that the selector names one object, `seats_max` is the level's bound.
pub fn estimate(call: &Call, single: bool, cache: Option<&ResourceCache>, seats_max: u64) -> Work {
    let Some(cache) = cache else { return Work::ONE };
    match call.verb {
        Verb::Get => Work::ONE,
        Verb::List | Verb::Watch => {
            let options = &call.options;
            let initial = options.send_initial_events == Some(true)
                || matches!(options.resource_version.as_deref(), None | Some("" | "0"));
            if call.verb == Verb::Watch && !initial {
                return Work::ONE;
            }
            let exact = options.resource_version_match.as_deref() == Some("Exact");
            let from_store = call.verb == Verb::List && (exact || options.continue_token.is_some());
            let selects = options.label_selector.is_some() || options.field_selector.is_some();
            let listing = Listing { limit: options.limit.filter(|limit| *limit > 0), single, from_store, selects };
            list(cache.len() as u64, cache.bytes() as u64, listing, seats_max)
        }
        _ if call.subresource.as_deref() == Some("token") => Work::ONE,
        _ => write(cache.watchers() as u64, seats_max),
    }
}

/// What of a list says how many objects it has in memory at once.
#[derive(Clone, Copy, Default)]
struct Listing {
    limit: Option<u64>,
    /// The selector names one object.
    single: bool,
    /// It is read from the store's history and not from the cache.
    from_store: bool,
    selects: bool,
}

fn list(objects: u64, bytes: u64, listing: Listing, seats_max: u64) -> Work {
    let limited = listing.limit.unwrap_or(objects).min(objects);
    let held = match listing {
        Listing { single: true, .. } => 1,
        // Half of them may be looked at before enough are found.
        Listing { from_store: true, selects: true, .. } => limited.max(objects / 2),
        _ => limited,
    };
    let held_bytes = (bytes / objects.max(1)).saturating_mul(held);
    let held_bytes = if listing.from_store { held_bytes } else { held_bytes.min(LIST_BYTES_MAX) };
    let seats_max = if seats_max == 0 { LIST_SEATS_MAX } else { seats_max.min(LIST_SEATS_MAX) };
    let seats = held_bytes.div_ceil(BYTES_PER_SEAT).max(1).min(seats_max);
    Work { seats, linger: Duration::ZERO }
}

fn write(watchers: u64, seats_max: u64) -> Work {
    if watchers < WATCHES_PER_SEAT {
        return Work::ONE;
    }
    let wanted = watchers.div_ceil(WATCHES_PER_SEAT);
    let seats = wanted.min(seats_max).clamp(1, MUTATING_SEATS_MAX);
    // The same work on fewer seats takes longer.
    Work { seats, linger: EVENT.mul_f64(wanted as f64 / seats as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_lists_and_watched_writes_need_more() {
        let seats = |work: Work| (work.seats, work.linger.as_millis());
        let all = Listing::default();
        assert_eq!(seats(list(0, 0, all, 10)), (1, 0));
        assert_eq!(seats(list(100, 250_000, all, 10)), (3, 0));
        let limited = Listing { limit: Some(10), ..all };
        assert_eq!(seats(list(100, 250_000, limited, 10)), (1, 0));
        assert_eq!(seats(list(10_000, 74_000_000, all, 37)), (10, 0), "sent in pieces");
        assert_eq!(seats(list(10_000, 74_000_000, all, 8)), (8, 0));
        let one = Listing { single: true, ..all };
        assert_eq!(seats(list(100, 250_000, one, 10)), (1, 0));
        assert_eq!(seats(list(10, 3_000_000, one, 10)), (3, 0), "a large object is large alone");
        let stored = Listing { from_store: true, limit: Some(500), ..all };
        assert_eq!(seats(list(10_000, 74_000_000, stored, 100)), (37, 0));
        let selected = Listing { selects: true, ..stored };
        assert_eq!(seats(list(10_000, 74_000_000, selected, 0)), (100, 0));
        assert_eq!(seats(write(9, 10)), (1, 0));
        assert_eq!(seats(write(11, 10)), (2, 5));
        assert_eq!(seats(write(1000, 37)), (10, 50));
    }
}
