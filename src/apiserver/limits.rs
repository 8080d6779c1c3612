//! How many requests are worked on at the same time.
//!
//! Reads and writes have places of their own; who finds none waits a while in a bounded queue and is then told to
//! come again (429). Watches and streams are counted apart, since they last. The cluster's own administrators and
//! components (`system:masters`) always get in. Upstream's priority and fairness takes this file's place later.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use api::Failure;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;

const RETRY_AFTER_SECONDS: u32 = 1;

pub struct InFlight {
    mutating: Arc<Semaphore>,
    reading: Arc<Semaphore>,
    long_running: Arc<Semaphore>,
    waiting: AtomicUsize,
    waiting_max: usize,
    wait_max: Duration,
}

/// What a request takes its place among.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    Mutating,
    Reading,
    LongRunning,
}

/// A place; dropping it gives it back.
pub struct Place(#[expect(dead_code, reason = "held for its drop")] Option<OwnedSemaphorePermit>);

impl Place {
    pub const EXEMPT: Place = Place(None);
}

impl InFlight {
    pub fn new(limits: &Limits) -> InFlight {
        InFlight {
            mutating: Arc::new(Semaphore::new(limits.mutating_in_flight_max)),
            reading: Arc::new(Semaphore::new(limits.reading_in_flight_max)),
            long_running: Arc::new(Semaphore::new(limits.long_running_max)),
            waiting: AtomicUsize::new(0),
            waiting_max: limits.waiting_max,
            wait_max: limits.wait_max,
        }
    }

    pub async fn enter(&self, class: Class) -> Result<Place, Failure> {
        let places = match class {
            Class::Mutating => &self.mutating,
            Class::Reading => &self.reading,
            Class::LongRunning => &self.long_running,
        };
        if let Ok(place) = places.clone().try_acquire_owned() {
            return Ok(Place(Some(place)));
        }
        if class == Class::LongRunning || self.waiting.load(Ordering::Relaxed) >= self.waiting_max {
            return Err(too_many());
        }
        let _waiting = Waiting::new(&self.waiting);
        match tokio::time::timeout(self.wait_max, places.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(Place(Some(place))),
            Ok(Err(_)) | Err(_) => Err(too_many()),
        }
    }
}

fn too_many() -> Failure {
    Failure::too_many_requests("too many requests, please try again later", RETRY_AFTER_SECONDS)
}

struct Waiting<'a>(&'a AtomicUsize);

impl Waiting<'_> {
    fn new(count: &AtomicUsize) -> Waiting<'_> {
        count.fetch_add(1, Ordering::Relaxed);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told_to_come_again() {
        let limits =
            Limits { mutating_in_flight_max: 1, waiting_max: 1, wait_max: Duration::from_secs(1), ..Limits::default() };
        let in_flight = InFlight::new(&limits);
        let first = in_flight.enter(Class::Mutating).await.unwrap();
        let (second, third) = tokio::join!(in_flight.enter(Class::Mutating), in_flight.enter(Class::Mutating));
        let refused = third.err().unwrap();
        assert_eq!((refused.code, refused.details.unwrap().retry_after_seconds), (429, 1));
        assert_eq!(second.err().unwrap().code, 429);
        drop(first);
        assert!(in_flight.enter(Class::Mutating).await.is_ok());
        assert!(in_flight.enter(Class::Reading).await.is_ok());
    }
}
