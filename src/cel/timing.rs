//! How long compiling and evaluating took, all told in this process: counted where it happens, read by whoever shows
//! figures.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Upper bounds of the buckets, in nanoseconds; the last bucket has none (upstream: the client library's default).
pub const BOUNDS_NS: [u64; 11] = [
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];

static COMPILATION: Timing = Timing::new();
static EVALUATION: Timing = Timing::new();

/// Durations by bucket. Counting costs two atomic additions.
pub struct Timing {
    counts: [AtomicU64; BOUNDS_NS.len() + 1],
    sum_ns: AtomicU64,
}

/// Of all expressions that were compiled.
pub fn compilation() -> &'static Timing {
    &COMPILATION
}

/// Of all programs that were evaluated.
pub fn evaluation() -> &'static Timing {
    &EVALUATION
}

impl Timing {
    const fn new() -> Timing {
        Timing { counts: [const { AtomicU64::new(0) }; BOUNDS_NS.len() + 1], sum_ns: AtomicU64::new(0) }
    }

    /// Counts what `work` takes.
    pub(crate) fn of<T>(&self, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = work();
        let took_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let at = BOUNDS_NS.partition_point(|bound| *bound < took_ns);
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum_ns.fetch_add(took_ns, Ordering::Relaxed);
        done
    }

    /// How many there were in each bucket.
    pub fn counts(&self) -> [u64; BOUNDS_NS.len() + 1] {
        self.counts.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// How long they took together, in nanoseconds.
    pub fn sum_ns(&self) -> u64 {
        self.sum_ns.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn what_takes_longer_is_counted_further_on() {
        let timing = Timing::new();
        assert_eq!(timing.of(|| 3), 3);
        timing.of(|| std::thread::sleep(Duration::from_millis(6)));
        let counts = timing.counts();
        assert_eq!(counts.iter().sum::<u64>(), 2);
        assert!(counts[0] < 2, "six milliseconds are not in the bucket of five");
        assert!(timing.sum_ns() >= 6_000_000);
    }
}
