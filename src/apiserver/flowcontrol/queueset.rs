//! Fair queuing of one priority level, without clock and without waiting: who goes next when a seat is free.
//!
//! Each queue has a start on a common virtual clock that runs as fast as every queue with something to do is served.
//! The request that would be finished first, were all queues served at the same time, goes next (upstream:
//! `fairqueuing/queueset`). Times are nanoseconds of the caller's clock; virtual time is seat-seconds.
//!
//! Limitation: only requests that had to wait are accounted. Those that found a seat at once owe nobody anything.

use std::collections::VecDeque;

use super::debug::QueueDump;
use super::shuffle;

/// What a request is taken to last before it is known (upstream: 3 ms).
const SERVICE_GUESS_SECONDS: f64 = 0.003;

/// How a level queues (upstream: `QueuingConfiguration`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queuing {
    pub queues: usize,
    pub hand_size: usize,
    pub queue_length_max: usize,
}

/// The requests that wait; `T` is how each is told.
pub struct QueueSet<T> {
    config: Queuing,
    queues: Vec<Queue<T>>,
    /// The queue that was served last: among equals the next one goes.
    last_served: usize,
    next_ticket: u64,
    waiting: usize,
    waiting_seats: u64,
    /// Queues with something waiting or executing.
    active: usize,
    executing_seats: u64,
    virtual_now: f64,
    synced_ns: u64,
}

struct Queue<T> {
    waiting: VecDeque<Waiting<T>>,
    waiting_seats: u64,
    executing: usize,
    executing_seats: u64,
    next_start: f64,
}

struct Waiting<T> {
    ticket: u64,
    seats: u64,
    /// Seat-seconds that stay occupied after the answer.
    later: f64,
    arrived: f64,
    how: T,
}

/// Where a request waits, to be cancelled with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    queue: usize,
    number: u64,
}

impl Ticket {
    /// In which queue it waits.
    pub fn queue(self) -> usize {
        self.queue
    }
}

/// A request that may go, and what [`QueueSet::finished`] needs to know of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Charge {
    queue: usize,
    pub seats: u64,
    started_ns: u64,
}

/// Every queue in the flow's hand that was looked at is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueFull;

impl<T> QueueSet<T> {
    pub fn new(config: Queuing) -> QueueSet<T> {
        let mut set = QueueSet {
            config,
            queues: Vec::new(),
            last_served: 0,
            next_ticket: 0,
            waiting: 0,
            waiting_seats: 0,
            active: 0,
            executing_seats: 0,
            virtual_now: 0.0,
            synced_ns: 0,
        };
        set.configure(config);
        set
    }

    /// Takes another configuration. Queues that are no longer dealt drain and go.
    pub fn configure(&mut self, config: Queuing) {
        self.config = config;
        while self.queues.len() < config.queues {
            self.queues.push(Queue::new());
        }
        self.drop_drained();
    }

    pub fn waiting(&self) -> usize {
        self.waiting
    }

    pub fn waiting_seats(&self) -> u64 {
        self.waiting_seats
    }

    /// The queues as they are now.
    pub fn dump(&self) -> Vec<QueueDump> {
        let dump = |queue: &Queue<T>| QueueDump {
            waiting: queue.waiting.len(),
            executing: queue.executing,
            executing_seats: queue.executing_seats,
            next_start: queue.next_start,
            waiting_seats: queue.waiting_seats,
            work: queue.waiting.iter().map(Waiting::work).sum(),
        };
        self.queues.iter().map(dump).collect()
    }

    /// Puts a request into the emptiest queue of its flow's hand. `limit` is the level's number of seats now.
    pub fn arrive(
        &mut self,
        now_ns: u64,
        limit: u64,
        flow: u64,
        seats: u64,
        later: f64,
        how: T,
    ) -> Result<Ticket, QueueFull> {
        self.sync(now_ns, limit);
        let hand = shuffle::deal(flow, self.config.queues, self.config.hand_size);
        let load =
            |at: &usize| self.queues.get(*at).map_or(u64::MAX, |queue| queue.executing_seats + queue.waiting_seats);
        let at = hand.min_by_key(load).ok_or(QueueFull)?;
        let virtual_now = self.virtual_now;
        let queue = self.queues.get_mut(at).ok_or(QueueFull)?;
        if queue.waiting.len() >= self.config.queue_length_max {
            return Err(QueueFull);
        }
        if queue.is_idle() {
            queue.next_start = virtual_now;
            self.active += 1;
        }
        let number = self.next_ticket;
        self.next_ticket += 1;
        queue.waiting.push_back(Waiting { ticket: number, seats, later, arrived: virtual_now, how });
        queue.waiting_seats += seats;
        self.waiting += 1;
        self.waiting_seats += seats;
        Ok(Ticket { queue: at, number })
    }

    /// The request that goes next, if `fits` says that there are seats for it. One that does not fit keeps its turn.
    pub fn next(&mut self, now_ns: u64, limit: u64, fits: impl FnOnce(u64) -> bool) -> Option<(T, Charge)> {
        if self.waiting == 0 {
            return None;
        }
        self.sync(now_ns, limit);
        let count = self.queues.len();
        let mut best: Option<(f64, usize)> = None;
        for step in 1..=count {
            let at = (self.last_served + step) % count;
            let Some((queue, first)) = self.queues.get(at).and_then(|queue| Some((queue, queue.waiting.front()?)))
            else {
                continue;
            };
            let finish = queue.next_start + first.work();
            if best.is_none_or(|(earliest, _)| finish < earliest) {
                best = Some((finish, at));
            }
        }
        let (_, at) = best?;
        let queue = self.queues.get_mut(at)?;
        if !fits(queue.waiting.front()?.seats) {
            return None;
        }
        let first = queue.waiting.pop_front()?;
        let work = first.work();
        queue.waiting_seats -= first.seats;
        queue.executing += 1;
        queue.executing_seats += first.seats;
        queue.bound();
        queue.next_start += work;
        self.waiting -= 1;
        self.waiting_seats -= first.seats;
        self.executing_seats += first.seats;
        self.last_served = at;
        Some((first.how, Charge { queue: at, seats: first.seats, started_ns: now_ns }))
    }

    /// A request that [`QueueSet::next`] yielded is done: its queue is charged for what it took, not for the guess.
    pub fn finished(&mut self, now_ns: u64, limit: u64, charge: Charge) {
        self.sync(now_ns, limit);
        let took = now_ns.saturating_sub(charge.started_ns) as f64 / 1e9;
        self.executing_seats = self.executing_seats.saturating_sub(charge.seats);
        if let Some(queue) = self.queues.get_mut(charge.queue) {
            queue.executing = queue.executing.saturating_sub(1);
            queue.executing_seats = queue.executing_seats.saturating_sub(charge.seats);
            queue.next_start -= charge.seats as f64 * (SERVICE_GUESS_SECONDS - took);
            queue.bound();
            if queue.is_idle() {
                self.active -= 1;
            }
        }
        self.drop_drained();
    }

    /// Takes a request out that waits no longer; false when it is not there any more.
    pub fn cancel(&mut self, now_ns: u64, limit: u64, ticket: Ticket) -> bool {
        self.sync(now_ns, limit);
        let Some(queue) = self.queues.get_mut(ticket.queue) else { return false };
        let Some(at) = queue.waiting.iter().position(|one| one.ticket == ticket.number) else { return false };
        let Some(gone) = queue.waiting.remove(at) else { return false };
        queue.waiting_seats -= gone.seats;
        queue.bound();
        self.waiting -= 1;
        self.waiting_seats -= gone.seats;
        if queue.is_idle() {
            self.active -= 1;
        }
        self.drop_drained();
        true
    }

    /// Moves the virtual clock: every active queue gets the same part of the seats that can be used.
    fn sync(&mut self, now_ns: u64, limit: u64) {
        let elapsed = now_ns.saturating_sub(self.synced_ns) as f64 / 1e9;
        self.synced_ns = self.synced_ns.max(now_ns);
        if self.active == 0 {
            // Nobody has a claim: the clock may begin anew and keeps its precision for ever.
            self.virtual_now = 0.0;
            return;
        }
        let usable = (self.executing_seats + self.waiting_seats).min(limit) as f64;
        self.virtual_now += elapsed * usable / self.active as f64;
    }

    fn drop_drained(&mut self) {
        while self.queues.len() > self.config.queues && self.queues.last().is_some_and(Queue::is_idle) {
            self.queues.pop();
        }
    }
}

impl<T> Queue<T> {
    fn new() -> Queue<T> {
        Queue { waiting: VecDeque::new(), waiting_seats: 0, executing: 0, executing_seats: 0, next_start: 0.0 }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.executing == 0
    }

    /// A queue that could not use its part does not save it up: nothing starts before it arrived.
    fn bound(&mut self) {
        if let Some(first) = self.waiting.front() {
            self.next_start = self.next_start.max(first.arrived);
        }
    }
}

impl<T> Waiting<T> {
    fn work(&self) -> f64 {
        self.seats as f64 * SERVICE_GUESS_SECONDS + self.later
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const MILLISECOND: u64 = 1_000_000;

    /// A hash whose hand of one is this queue.
    fn flow(queue: usize) -> u64 {
        queue as u64
    }

    /// A level on a pretended clock: flows that always have requests waiting, and how long each flow's requests take.
    struct World {
        set: QueueSet<usize>,
        limit: u64,
        in_use: u64,
        now_ns: u64,
        /// When who ends: (time, sequence) to flow and charge.
        ends: BTreeMap<(u64, u64), (usize, Charge)>,
        sequence: u64,
        served: Vec<f64>,
    }

    impl World {
        fn new(flows: usize, limit: u64) -> World {
            let set = QueueSet::new(Queuing { queues: flows, hand_size: 1, queue_length_max: 50 });
            World { set, limit, in_use: 0, now_ns: 0, ends: BTreeMap::new(), sequence: 0, served: vec![0.0; flows] }
        }

        fn fill(&mut self, which: usize, seats: u64) {
            while self.set.arrive(self.now_ns, self.limit, flow(which), seats, 0.0, which).is_ok() {}
        }

        fn dispatch(&mut self, durations: &[u64]) {
            let (limit, now) = (self.limit, self.now_ns);
            loop {
                let in_use = self.in_use;
                let next = self.set.next(now, limit, |seats| in_use + seats <= limit || in_use == 0);
                let Some((which, charge)) = next else { return };
                self.in_use += charge.seats;
                self.sequence += 1;
                self.ends.insert((now + durations[which], self.sequence), (which, charge));
            }
        }

        fn end_one(&mut self, durations: &[u64]) {
            let Some(((at, _), (which, charge))) = self.ends.pop_first() else { return };
            self.now_ns = at;
            self.in_use -= charge.seats;
            self.served[which] += charge.seats as f64 * durations[which] as f64 / 1e9;
            self.set.finished(at, self.limit, charge);
        }
    }

    proptest! {
        /// Flows that always want more get the same seat-time, however long their requests are.
        #[test]
        fn flows_that_always_wait_get_equal_parts(
            durations in prop::collection::vec(1u64..40, 2..6),
            width in 1u64..4,
            abreast in 2u64..8,
        ) {
            let durations: Vec<u64> = durations.into_iter().map(|ms| ms * MILLISECOND).collect();
            let flows = durations.len();
            let mut world = World::new(flows, width * abreast);
            while world.now_ns < 20_000 * MILLISECOND {
                (0..flows).for_each(|which| world.fill(which, width));
                world.dispatch(&durations);
                prop_assert!(world.in_use <= world.limit);
                world.end_one(&durations);
            }
            let (least, most) =
                world.served.iter().fold((f64::MAX, 0f64), |(least, most), one| (least.min(*one), most.max(*one)));
            prop_assert!(most - least < 0.1 * most + 1.0, "{:?}", world.served);
        }

        /// Whatever comes, goes and is cancelled: nothing is lost, counted twice or left over.
        #[test]
        fn the_books_balance(steps in prop::collection::vec((0u8..4, any::<u64>(), 1u64..5), 1..200)) {
            let mut set = QueueSet::new(Queuing { queues: 8, hand_size: 3, queue_length_max: 4 });
            let (mut tickets, mut running, mut now) = (Vec::new(), Vec::new(), 0);
            for (step, number, seats) in steps {
                now += number % (5 * MILLISECOND);
                match step {
                    0 => {
                        let id = tickets.len();
                        if let Ok(ticket) = set.arrive(now, 10, number, seats, 0.0, id) {
                            tickets.push(Some((ticket, seats)));
                        }
                    }
                    1 => {
                        let in_use: u64 = running.iter().map(|charge: &Charge| charge.seats).sum();
                        if let Some((id, charge)) = set.next(now, 10, |seats| in_use + seats <= 10) {
                            prop_assert!(tickets[id].take().is_some());
                            running.push(charge);
                        }
                    }
                    2 => if let Some(charge) = running.pop() { set.finished(now, 10, charge) },
                    _ if tickets.is_empty() => {}
                    _ => {
                        let id = usize::try_from(number % tickets.len() as u64).unwrap();
                        let there = tickets[id].take();
                        if let Some((ticket, _)) = there {
                            prop_assert!(set.cancel(now, 10, ticket));
                            prop_assert!(!set.cancel(now, 10, ticket));
                        }
                    }
                }
                prop_assert_eq!(set.waiting(), tickets.iter().flatten().count());
                prop_assert_eq!(set.waiting_seats(), tickets.iter().flatten().map(|(_, seats)| seats).sum::<u64>());
                prop_assert_eq!(set.active, set.queues.iter().filter(|queue| !queue.is_idle()).count());
            }
        }
    }

    #[test]
    fn a_quiet_flow_does_not_wait_behind_a_loud_one() {
        let mut world = World::new(2, 1);
        let durations = [10 * MILLISECOND, 10 * MILLISECOND];
        world.fill(0, 1);
        world.dispatch(&durations);
        for _ in 0..5 {
            world.end_one(&durations);
            world.dispatch(&durations);
        }
        world.set.arrive(world.now_ns, 1, flow(1), 1, 0.0, 1).unwrap();
        world.end_one(&durations);
        world.dispatch(&durations);
        assert_eq!(world.ends.first_key_value().unwrap().1.0, 1, "the quiet flow is next");
    }

    #[test]
    fn a_full_queue_refuses() {
        let mut set = QueueSet::new(Queuing { queues: 1, hand_size: 1, queue_length_max: 2 });
        assert!(set.arrive(0, 1, 7, 1, 0.0, ()).is_ok());
        assert!(set.arrive(0, 1, 8, 1, 0.0, ()).is_ok());
        assert_eq!(set.arrive(0, 1, 9, 1, 0.0, ()), Err(QueueFull));
    }

    #[test]
    fn fewer_queues_drain_first() {
        let mut set = QueueSet::new(Queuing { queues: 4, hand_size: 1, queue_length_max: 2 });
        let ticket = set.arrive(0, 1, 3, 1, 0.0, ()).unwrap();
        set.configure(Queuing { queues: 1, hand_size: 1, queue_length_max: 2 });
        assert_eq!(set.queues.len(), 4);
        assert!(set.cancel(0, 1, ticket));
        assert_eq!(set.queues.len(), 1);
    }
}
