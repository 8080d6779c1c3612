//! A priority level at work: seats, who holds them, and who waits for one.
//!
//! A request that finds a free seat while nobody waits takes it with one atomic exchange. Only where there is
//! contention the queues under the lock come in. Who gives a seat back looks whether somebody waits; who begins to
//! wait looks whether a seat is free: both in sequentially consistent order, so nobody is overlooked.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::debug::QueueDump;
use super::queueset::{Charge, QueueSet, Queuing, Ticket};
use super::retry::RetryAfter;

/// What the configuration object says and what follows from it (upstream: `priorityLevelState`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    pub nominal: u64,
    /// What is left when everything that may be lent is.
    pub min: u64,
    /// Nominal and what may be borrowed.
    pub max: u64,
    /// Seats that one request may be taken to need.
    pub seats_max: u64,
    /// `None`: nobody waits, who finds no seat is refused.
    pub queuing: Option<Queuing>,
}

pub struct Level {
    pub name: String,
    pub exempt: bool,
    limit: AtomicU64,
    in_use: AtomicU64,
    seats_max: AtomicU64,
    waiting: AtomicUsize,
    waiting_seats: AtomicU64,
    state: Mutex<State>,
    /// Most seats in use and waited for since the last adjustment.
    high_watermark: AtomicU64,
    /// Seat-nanoseconds of requests that ended since the last adjustment.
    seat_ns: AtomicU64,
    /// Somebody had to wait or was refused since the last adjustment.
    pressed: AtomicBool,
    refusals: Mutex<RetryAfter>,
    started: Instant,
}

struct State {
    bounds: Bounds,
    queues: QueueSet<oneshot::Sender<Charge>>,
    figures: Figures,
}

/// What is known of a level's demand (upstream: `seatDemandStats`).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    pub high_watermark: u64,
    pub average: f64,
    pub deviation: f64,
    pub smoothed: f64,
    pub target: f64,
}

/// Why there is no seat, in the words of upstream's metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    QueueFull,
    ConcurrencyLimit,
    TimeOut,
}

/// Seats that a request holds; [`Level::leave`] takes them back.
#[derive(Debug)]
pub struct Held {
    pub seats: u64,
    charge: Option<Charge>,
}

const NO_QUEUES: Queuing = Queuing { queues: 0, hand_size: 0, queue_length_max: 0 };

impl Level {
    pub fn new(name: &str, exempt: bool, bounds: Bounds) -> Level {
        // Half of what is lent is there at first (upstream does the same).
        let limit = bounds.nominal - (bounds.nominal - bounds.min) / 2;
        Level {
            name: name.to_owned(),
            exempt,
            limit: AtomicU64::new(limit),
            in_use: AtomicU64::new(0),
            seats_max: AtomicU64::new(bounds.seats_max),
            waiting: AtomicUsize::new(0),
            waiting_seats: AtomicU64::new(0),
            state: Mutex::new(State {
                bounds,
                queues: QueueSet::new(bounds.queuing.unwrap_or(NO_QUEUES)),
                figures: Figures::default(),
            }),
            high_watermark: AtomicU64::new(0),
            seat_ns: AtomicU64::new(0),
            pressed: AtomicBool::new(false),
            refusals: Mutex::new(RetryAfter::default()),
            started: Instant::now(),
        }
    }

    pub fn bounds(&self) -> Bounds {
        self.state.lock().bounds
    }

    pub fn figures(&self) -> Figures {
        self.state.lock().figures
    }

    pub fn set_bounds(&self, bounds: Bounds) {
        let mut state = self.state.lock();
        state.bounds = bounds;
        self.seats_max.store(bounds.seats_max, Ordering::Relaxed);
        state.queues.configure(bounds.queuing.unwrap_or(NO_QUEUES));
    }

    /// Seats that one request may be taken to need.
    pub fn seats_max(&self) -> u64 {
        self.seats_max.load(Ordering::Relaxed)
    }

    /// Seats there are now.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    pub fn in_use(&self) -> u64 {
        self.in_use.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub fn waiting(&self) -> (usize, u64) {
        (self.waiting.load(Ordering::Relaxed), self.waiting_seats.load(Ordering::Relaxed))
    }

    /// Takes seats if they are free and nobody waits for them.
    pub fn try_enter(&self, seats: u64) -> Option<Held> {
        if self.exempt {
            self.note(self.in_use.fetch_add(seats, Ordering::Relaxed) + seats);
            return Some(Held { seats, charge: None });
        }
        (self.waiting.load(Ordering::SeqCst) == 0 && self.take(seats)).then_some(Held { seats, charge: None })
    }

    /// Begins to wait. `later` is the work after the answer, in seat-seconds.
    pub fn queue(&self, flow: u64, seats: u64, later: f64) -> Result<(Ticket, oneshot::Receiver<Charge>), Refused> {
        self.pressed.store(true, Ordering::Relaxed);
        let mut state = self.state.lock();
        if state.bounds.queuing.is_none() {
            return Err(Refused::ConcurrencyLimit);
        }
        let (told, heard) = oneshot::channel();
        let now = self.now_ns();
        let ticket =
            state.queues.arrive(now, self.limit(), flow, seats, later, told).map_err(|_| Refused::QueueFull)?;
        self.publish(&state);
        self.note(self.in_use() + state.queues.waiting_seats());
        self.dispatch(&mut state, now);
        Ok((ticket, heard))
    }

    /// The seats that were waited for.
    pub fn granted(charge: Charge) -> Held {
        Held { seats: charge.seats, charge: Some(charge) }
    }

    /// Waits no longer; seats that were granted in this very moment go back.
    pub fn cancel(&self, ticket: Ticket, heard: &mut oneshot::Receiver<Charge>) {
        let mut state = self.state.lock();
        let now = self.now_ns();
        if state.queues.cancel(now, self.limit(), ticket) {
            self.publish(&state);
            self.dispatch(&mut state, now);
        } else if let Ok(charge) = heard.try_recv() {
            self.in_use.fetch_sub(charge.seats, Ordering::SeqCst);
            state.queues.finished(now, self.limit(), charge);
            self.dispatch(&mut state, now);
        }
    }

    /// The queues as they are now; an exempt level has none.
    pub fn dump(&self) -> Vec<QueueDump> {
        self.state.lock().queues.dump()
    }

    /// Somebody waits: what is held on to keeps others out.
    pub fn is_contended(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Takes seats back that were held for so long.
    pub fn leave(&self, held: Held, took_ns: u64) {
        self.seat_ns.fetch_add(held.seats.saturating_mul(took_ns), Ordering::Relaxed);
        self.in_use.fetch_sub(held.seats, Ordering::SeqCst);
        if held.charge.is_none() && !self.is_contended() {
            return;
        }
        let mut state = self.state.lock();
        let now = self.now_ns();
        if let Some(charge) = held.charge {
            state.queues.finished(now, self.limit(), charge);
        }
        self.dispatch(&mut state, now);
    }

    /// Seconds after which a client that is refused now may come again.
    pub fn retry_after(&self, now_seconds: i64) -> u32 {
        self.refusals.lock().refused(now_seconds)
    }

    /// What was seen since the last time, with the average over `period_seconds`; `decay` is how much of the smoothed
    /// figure stays. True when somebody had to wait.
    pub fn measure(&self, period_seconds: f64, decay: f64) -> (Figures, bool) {
        let (waiting, in_use) = (self.waiting_seats.load(Ordering::Relaxed), self.in_use());
        let high_watermark = self.high_watermark.swap(in_use + waiting, Ordering::Relaxed).max(in_use + waiting);
        let average = self.seat_ns.swap(0, Ordering::Relaxed) as f64 / 1e9 / period_seconds.max(1e-3);
        let average = average.max(waiting as f64).min(high_watermark as f64);
        // Requests that come at random occupy seats in a Poisson distribution, whose variance is its mean.
        let deviation = average.sqrt();
        let envelope = average + deviation;
        let mut state = self.state.lock();
        let smoothed = envelope.max(decay * state.figures.smoothed + (1.0 - decay) * envelope);
        state.figures = Figures { high_watermark, average, deviation, smoothed, target: state.figures.target };
        (state.figures, self.pressed.swap(false, Ordering::Relaxed))
    }

    /// From now on there are so many seats.
    pub fn set_limit(&self, limit: u64, target: f64) {
        let mut state = self.state.lock();
        state.figures.target = target;
        self.limit.store(limit, Ordering::SeqCst);
        let now = self.now_ns();
        self.dispatch(&mut state, now);
    }

    fn take(&self, seats: u64) -> bool {
        let limit = self.limit.load(Ordering::Relaxed);
        // One that is wider than the level goes alone.
        let fits = |in_use: u64| in_use + seats <= limit || in_use == 0;
        let taken = self
            .in_use
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |in_use| fits(in_use).then_some(in_use + seats));
        if let Ok(before) = taken {
            self.note(before + seats);
        }
        taken.is_ok()
    }

    fn note(&self, demand: u64) {
        if demand > self.high_watermark.load(Ordering::Relaxed) {
            self.high_watermark.fetch_max(demand, Ordering::Relaxed);
        }
    }

    fn dispatch(&self, state: &mut State, now: u64) {
        while let Some((told, charge)) = state.queues.next(now, self.limit(), |seats| self.take(seats)) {
            self.publish(state);
            if told.send(charge).is_err() {
                self.in_use.fetch_sub(charge.seats, Ordering::SeqCst);
                state.queues.finished(now, self.limit(), charge);
            }
        }
    }

    fn publish(&self, state: &State) {
        self.waiting.store(state.queues.waiting(), Ordering::SeqCst);
        self.waiting_seats.store(state.queues.waiting_seats(), Ordering::Relaxed);
    }

    fn now_ns(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn level(nominal: u64, queuing: Option<Queuing>) -> Level {
        let bounds = Bounds { nominal, min: nominal, max: nominal, seats_max: 10, queuing };
        Level::new("test", false, bounds)
    }

    const QUEUING: Queuing = Queuing { queues: 2, hand_size: 1, queue_length_max: 1 };

    #[tokio::test]
    async fn who_leaves_lets_the_next_one_in() {
        let level = level(1, Some(QUEUING));
        let first = level.try_enter(1).unwrap();
        assert!(level.try_enter(1).is_none());
        let (_, heard) = level.queue(0, 1, 0.0).unwrap();
        assert_eq!(level.queue(0, 1, 0.0).err(), Some(Refused::QueueFull));
        let (ticket, mut other) = level.queue(1, 1, 0.0).unwrap();
        level.cancel(ticket, &mut other);
        assert!(level.is_contended());
        level.leave(first, 1);
        let second = Level::granted(heard.await.unwrap());
        assert!(!level.is_contended() && level.try_enter(1).is_none());
        level.leave(second, 1);
        assert_eq!(level.in_use(), 0);
    }

    #[tokio::test]
    async fn a_seat_that_was_granted_to_nobody_goes_on() {
        let level = level(1, Some(QUEUING));
        let first = level.try_enter(1).unwrap();
        let (ticket, mut heard) = level.queue(0, 1, 0.0).unwrap();
        let (_, next) = level.queue(1, 1, 0.0).unwrap();
        level.leave(first, 1);
        level.cancel(ticket, &mut heard);
        assert_eq!(next.await.unwrap().seats, 1);
    }

    #[test]
    fn without_queues_there_is_a_seat_or_none() {
        let level = level(2, None);
        let _held = [level.try_enter(1).unwrap(), level.try_enter(1).unwrap()];
        assert!(level.try_enter(1).is_none());
        assert_eq!(level.queue(0, 1, 0.0).err(), Some(Refused::ConcurrencyLimit));
    }

    #[test]
    fn a_wide_request_goes_alone() {
        let level = level(2, None);
        let wide = level.try_enter(7).unwrap();
        assert!(level.try_enter(1).is_none());
        level.leave(wide, 1);
        assert!(level.try_enter(1).is_some());
    }

    #[tokio::test]
    async fn more_seats_let_more_in() {
        let level = level(1, Some(QUEUING));
        let _first = level.try_enter(1).unwrap();
        let (_, heard) = level.queue(0, 1, 0.0).unwrap();
        level.set_limit(2, 2.0);
        assert!(heard.await.is_ok());
        let (figures, pressed) = level.measure(10.0, 0.977);
        assert!(pressed && figures.high_watermark == 2);
    }
}
