//! Many schedules. `STORE_SEEDS=10000 cargo test -p store --release schedules` runs as many as it says,
//! from `STORE_SEED` on, on all processors. With `STORE_SEED=17 STORE_SEEDS=1` one is run again; exactly so if both
//! times were built with `RUSTFLAGS="--cfg tokio_unstable"` (see [`super::run`]).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::schedule::{Summary, schedule};

/// Schedules unless the environment says how many.
const SEEDS: u64 = 200;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn schedules_hold_every_invariant() {
    let first = number("STORE_SEED").unwrap_or(1);
    let seeds = number("STORE_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(first);
    let failed = Mutex::new(Vec::new());
    let done = Mutex::new((0, 0, 0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    match std::panic::catch_unwind(|| schedule(seed)) {
                        Ok(Ok(Summary { operations, written, .. })) => {
                            let mut done = done.lock();
                            *done = (done.0 + 1, done.1 + operations, done.2 + written);
                        }
                        Ok(Err(what)) => failed.lock().push((seed, what)),
                        Err(_) => failed.lock().push((seed, "a panic".to_owned())),
                    }
                }
            });
        }
    });
    let (schedules, operations, written) = *done.lock();
    let failed = failed.into_inner();
    let told: Vec<String> =
        failed.iter().take(5).map(|(seed, what)| format!("STORE_SEED={seed} STORE_SEEDS=1: {what}")).collect();
    assert!(failed.is_empty(), "{} of {seeds} schedules failed:\n{}", failed.len(), told.join("\n"));
    assert!(written * 4 > operations, "clients hardly got anything done: {written} of {operations}");
    let took = began.elapsed();
    println!("{schedules} schedules, {operations} operations, {written} writes acknowledged, {took:?}");
}

#[cfg(tokio_unstable)]
#[test]
fn a_seed_gives_the_same_schedule_again() {
    for seed in [1, 2, 3] {
        assert_eq!(schedule(seed), schedule(seed), "seed {seed}");
    }
}
