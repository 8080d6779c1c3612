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
            if single || (call.verb == Verb::Watch && !initial) {
                return Work::ONE;
            }
            list(cache.len() as u64, cache.bytes() as u64, options.limit, seats_max)
        }
        _ if call.subresource.as_deref() == Some("token") => Work::ONE,
        _ => write(cache.watchers() as u64, seats_max),
    }
}

fn list(objects: u64, bytes: u64, limit: Option<u64>, seats_max: u64) -> Work {
    let listed = limit.unwrap_or(objects).min(objects);
    let listed_bytes = (bytes / objects.max(1)).saturating_mul(listed).min(LIST_BYTES_MAX);
    let seats = listed_bytes.div_ceil(BYTES_PER_SEAT).min(seats_max).clamp(1, LIST_SEATS_MAX);
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
        assert_eq!(seats(list(0, 0, None, 10)), (1, 0));
        assert_eq!(seats(list(100, 250_000, None, 10)), (3, 0));
        assert_eq!(seats(list(100, 250_000, Some(10), 10)), (1, 0));
        assert_eq!(seats(list(10_000, 74_000_000, None, 37)), (10, 0), "sent in pieces");
        assert_eq!(seats(list(10_000, 74_000_000, None, 8)), (8, 0));
        assert_eq!(seats(write(9, 10)), (1, 0));
        assert_eq!(seats(write(11, 10)), (2, 5));
        assert_eq!(seats(write(1000, 37)), (10, 50));
    }
}
