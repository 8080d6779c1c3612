//! Figures that cost the request path an atomic addition each, and Prometheus' text forms of them.
//!
//! What is counted stands with what does the counting; `endpoints::metrics` collects it when somebody asks.

mod features;
mod labels;
mod lists;
mod process;
mod requests;
mod text;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use api::Row;

use crate::admission::Operation;

pub use features::write as write_features;
pub use labels::{ByLabels, Set};
pub use lists::Lists;
pub use process::write as write_process;
pub use requests::{Lasting, RequestSet, Requests, Took};
pub use text::{Kind, Text};

/// Goes up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

/// Goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

/// Counts observations by size. Bounds and sums are whole numbers of the observed unit.
#[derive(Debug)]
pub struct Histogram {
    buckets: &'static Buckets,
    counts: Box<[AtomicU64]>,
    sum: AtomicU64,
}

/// The bounds of a histogram's buckets, ascending, and how they are written.
#[derive(Debug)]
pub struct Buckets {
    /// In the observed unit, such as nanoseconds.
    pub bounds: &'static [u64],
    /// Observed units in one written unit: 1e9 for durations that are written in seconds.
    pub per_unit: f64,
}

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

/// Upstream's buckets of `apiserver_request_duration_seconds`.
pub static REQUEST_SECONDS: Buckets = Buckets {
    bounds: &[
        5 * MS,
        25 * MS,
        50 * MS,
        100 * MS,
        200 * MS,
        400 * MS,
        600 * MS,
        800 * MS,
        SECOND,
        1250 * MS,
        1500 * MS,
        2 * SECOND,
        3 * SECOND,
        4 * SECOND,
        5 * SECOND,
        6 * SECOND,
        8 * SECOND,
        10 * SECOND,
        15 * SECOND,
        20 * SECOND,
        30 * SECOND,
        45 * SECOND,
        60 * SECOND,
    ],
    per_unit: 1e9,
};

/// Upstream's buckets of `apiserver_admission_step_admission_duration_seconds`.
pub static ADMISSION_SECONDS: Buckets =
    Buckets { bounds: &[5 * MS, 25 * MS, 100 * MS, 500 * MS, SECOND, 2500 * MS], per_unit: 1e9 };

/// Where upstream doubles from a millisecond to sixteen seconds, as for authentication and authorisation.
pub static LATENCY_SECONDS: Buckets = Buckets { bounds: &doubling::<15>(MS), per_unit: 1e9 };

/// What upstream's client library has where nobody chose anything else.
pub static DEFAULT_SECONDS: Buckets = Buckets {
    bounds: &[
        5 * MS,
        10 * MS,
        25 * MS,
        50 * MS,
        100 * MS,
        250 * MS,
        500 * MS,
        SECOND,
        2500 * MS,
        5 * SECOND,
        10 * SECOND,
    ],
    per_unit: 1e9,
};

/// Bounds of which each is twice the one before (upstream: `ExponentialBuckets`).
pub const fn doubling<const N: usize>(first: u64) -> [u64; N] {
    let mut bounds = [first; N];
    let mut at = 1;
    while at < N {
        bounds[at] = bounds[at - 1] * 2;
        at += 1;
    }
    bounds
}

/// What is counted in more than one place.
pub struct Metrics {
    pub requests: Requests,
    pub lists: Lists,
    /// By operation, group and resource.
    pub storage: ByLabels<3, StorageFigures>,
    /// Results of health checks, by check, result and endpoint.
    pub health_results: ByLabels<3, Counter>,
    /// Whether a check is passed, by check and endpoint.
    pub health: ByLabels<2, Gauge>,
    /// By operation, whether it was refused, and step.
    pub admission: ByLabels<3, Histogram>,
    /// What is deprecated and was asked for, by group, version, resource, subresource and the release that ends it.
    pub deprecated: ByLabels<5, Gauge>,
    /// TLS handshakes that did not come to an end.
    pub handshake_errors: Counter,
}

/// One operation of the store.
pub struct StorageFigures {
    pub duration: Histogram,
    pub errors: Counter,
}

impl Metrics {
    pub fn new() -> Metrics {
        Metrics {
            requests: Requests::new(),
            lists: Lists::new(),
            storage: ByLabels::new(|| StorageFigures {
                duration: Histogram::new(&REQUEST_SECONDS),
                errors: Counter::default(),
            }),
            health_results: ByLabels::new(Counter::default),
            health: ByLabels::new(Gauge::default),
            admission: ByLabels::new(|| Histogram::new(&ADMISSION_SECONDS)),
            deprecated: ByLabels::new(Gauge::default),
            handshake_errors: Counter::default(),
        }
    }

    /// Somebody asks for something that is deprecated.
    pub fn asked_for_deprecated(&self, row: &Row, subresource: Option<&str>) {
        let text = row.deprecation.as_deref().unwrap_or_default();
        let removed = text.split("unavailable in v").nth(1).and_then(|rest| rest.split('+').next()).unwrap_or_default();
        let resource = &row.resource;
        let labels = [
            resource.group.as_ref(),
            resource.version.as_ref(),
            resource.plural.as_ref(),
            subresource.unwrap_or_default(),
            removed,
        ];
        self.deprecated.get(labels).figures.set(1);
    }

    /// A step of admission is done.
    pub fn admitted(&self, step: &str, operation: Operation, admitted: bool, took: Duration) {
        let refused = if admitted { "false" } else { "true" };
        self.admission.get([operation.as_str(), refused, step]).figures.observe_duration(took);
    }
}

impl Counter {
    pub fn inc(&self) {
        self.add(1);
    }

    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Gauge {
    pub fn add(&self, more: i64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Histogram {
    pub fn new(buckets: &'static Buckets) -> Histogram {
        let counts = (0..=buckets.bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Histogram { buckets, counts, sum: AtomicU64::new(0) }
    }

    pub fn observe(&self, value: u64) {
        let at = self.buckets.bounds.partition_point(|bound| *bound < value);
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub fn observe_duration(&self, took: Duration) {
        self.observe(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// One that was counted elsewhere: `counts` has one more than there are bounds.
    pub fn of(buckets: &'static Buckets, counts: impl IntoIterator<Item = u64>, sum: u64) -> Histogram {
        let mut counts = counts.into_iter();
        let counts = (0..=buckets.bounds.len()).map(|_| AtomicU64::new(counts.next().unwrap_or_default())).collect();
        Histogram { buckets, counts, sum: AtomicU64::new(sum) }
    }

    /// Counts what another with the same buckets has counted.
    pub fn absorb(&self, other: &Histogram) {
        for (count, more) in self.counts.iter().zip(&other.counts) {
            count.fetch_add(more.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        self.sum.fetch_add(other.sum.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Observations so far.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    fn sum(&self) -> f64 {
        self.sum.load(Ordering::Relaxed) as f64 / self.buckets.per_unit
    }

    /// Upper bounds and how many observations were at most that, without the last bucket, which holds all.
    fn cumulated(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut so_far = 0;
        self.buckets.bounds.iter().zip(&self.counts).map(move |(bound, count)| {
            so_far += count.load(Ordering::Relaxed);
            (*bound as f64 / self.buckets.per_unit, so_far)
        })
    }
}
