//! Priority and fairness (upstream: API Priority and Fairness, KEP-1040): who is worked on when not all can be.
//!
//! Each request belongs to a FlowSchema, which leads to a priority level and tells its flow from others. A level has
//! seats; who finds none waits in one of a few queues that are the flow's, and flows take turns. Levels lend seats to
//! each other. [`queueset`] and [`allocate`] are the decisions, [`level`] is their use by many threads at once, and
//! [`controller`] follows the configuration objects.
//!
//! Watches hold seats until they are open; they and streams are bounded in number. Components in this process do not
//! come this way: how much they ask at once is bounded by their own workers.

mod allocate;
mod compile;
mod controller;
mod debug;
mod figures;
mod level;
mod objects;
mod queueset;
mod requests;
mod retry;
mod schema;
mod shuffle;
mod work;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use api::Failure;
use arc_swap::ArcSwap;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;

use crate::audit::Recording;
use crate::config::Limits;
use crate::metrics::{Lasting, RequestSet, Text};

pub use compile::Compiled;
pub use controller::{keep_up, run};
pub use requests::Arrival;
pub use schema::{About, Digest, Schema};
pub use work::{Work, estimate};

use level::{Held, Level, Refused};
use queueset::{Charge, Ticket};
use requests::{Noted, Requests};

const RETRY_AFTER_SECONDS: u32 = 1;

pub struct FlowControl {
    compiled: ArcSwap<Compiled>,
    /// The server's seats: reading and mutating requests together, as upstream counts them.
    seats: u64,
    wait_max: Duration,
    long_running: Arc<Semaphore>,
    /// Somebody found no seat: the levels' limits may need adjusting.
    pressed: Notify,
    /// Bits of the last adjustment's fair fraction.
    fair_fraction: AtomicU64,
    requests: Arc<Requests>,
}

/// The seats of a request in progress; dropping it gives them back.
pub struct Seat {
    schema: Arc<Schema>,
    /// Unless nobody follows it.
    noted: Option<Noted>,
    held: Option<Held>,
    waited: Duration,
    began: Instant,
    linger: Duration,
}

/// One of the places for watches and streams; dropping it gives it back.
#[expect(dead_code, reason = "held for its drop")]
pub struct Place {
    permit: OwnedSemaphorePermit,
    /// What lasts is recorded to its end.
    recording: Option<Recording>,
    lasting: Lasting,
}

/// The client is to come again later (429).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMany {
    pub retry_after_seconds: u32,
}

impl FlowControl {
    pub fn new(limits: &Limits) -> FlowControl {
        let seats = (limits.mutating_in_flight_max + limits.reading_in_flight_max) as u64;
        let (compiled, _) = compile::compile(&Compiled::default(), &[], &[], seats);
        FlowControl {
            compiled: ArcSwap::from_pointee(compiled),
            seats,
            wait_max: limits.wait_max,
            long_running: Arc::new(Semaphore::new(limits.long_running_max)),
            pressed: Notify::new(),
            fair_fraction: AtomicU64::new(0),
            requests: Arc::new(Requests::new()),
        }
    }

    /// The FlowSchema of a request.
    pub fn classify(&self, digest: &Digest<'_>) -> Option<Arc<Schema>> {
        self.compiled.load().classify(digest).cloned()
    }

    /// Takes seats, or waits for them in the flow's turn.
    pub async fn enter(
        &self,
        schema: &Arc<Schema>,
        digest: &Digest<'_>,
        work: Work,
        arrival: Arrival<'_>,
    ) -> Result<Seat, TooMany> {
        let level = &schema.level;
        let note = |waits| self.requests.note(schema, digest, arrival, work, waits);
        let (entered, noted, waited) = match level.try_enter(work.seats) {
            Some(held) => (Ok(held), (!level.exempt).then(|| note(false)), Duration::ZERO),
            None => {
                let (since, noted) = (Instant::now(), note(true));
                let entered = self.wait(schema, schema.flow(digest), work, &noted).await;
                noted.starts(since.elapsed());
                (entered, Some(noted), since.elapsed())
            }
        };
        match entered {
            Ok(held) => {
                schema.figures.begin(held.seats);
                let (schema, held, began) = (schema.clone(), Some(held), Instant::now());
                Ok(Seat { schema, noted, held, waited, began, linger: work.linger })
            }
            Err(why) => {
                schema.figures.refuse(why);
                Err(TooMany { retry_after_seconds: level.retry_after(arrival.now.as_second()) })
            }
        }
    }

    async fn wait(&self, schema: &Arc<Schema>, flow: &str, work: Work, noted: &Noted) -> Result<Held, Refused> {
        self.pressed.notify_one();
        let hash = shuffle::hash(&schema.name, flow);
        let later = work.linger.as_secs_f64() * work.seats as f64;
        let (ticket, heard) = schema.level.queue(hash, work.seats, later)?;
        noted.waits_in(ticket.queue());
        schema.figures.queue(work.seats);
        let mut waiter = Waiter { schema, ticket, heard, seats: work.seats, since: Instant::now(), served: false };
        match tokio::time::timeout(self.wait_max, &mut waiter.heard).await {
            Ok(Ok(charge)) => {
                waiter.served = true;
                Ok(Level::granted(charge))
            }
            Ok(Err(_)) | Err(_) => Err(Refused::TimeOut),
        }
    }

    /// A place for a watch or a stream.
    pub fn place(&self, recording: Option<Recording>, figures: RequestSet) -> Result<Place, Failure> {
        let permit = self.long_running.clone().try_acquire_owned();
        permit
            .map(|permit| Place { permit, recording, lasting: Lasting::new(figures) })
            .map_err(|_| Failure::too_many_requests("too many requests, please try again later", RETRY_AFTER_SECONDS))
    }

    /// What the levels are doing now, as a table for people.
    pub fn dump_levels(&self) -> String {
        debug::levels(&self.compiled.load())
    }

    /// The same of their queues.
    pub fn dump_queues(&self) -> String {
        debug::queues(&self.compiled.load())
    }

    /// The same of the requests themselves, with what they are about if `details` are wanted.
    pub fn dump_requests(&self, details: bool) -> String {
        self.requests.dump(details)
    }

    pub fn write_figures(&self, out: &mut Text) {
        let fraction = f64::from_bits(self.fair_fraction.load(Ordering::Relaxed));
        figures::write(&self.compiled.load(), fraction, out);
    }
}

impl Seat {
    /// How long it was waited for.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

/// Somebody who waits. Whoever goes away takes nothing along.
struct Waiter<'a> {
    schema: &'a Schema,
    ticket: Ticket,
    heard: oneshot::Receiver<Charge>,
    seats: u64,
    since: Instant,
    served: bool,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.schema.figures.dequeue(self.seats, self.since.elapsed(), self.served);
        if !self.served {
            self.schema.level.cancel(self.ticket, &mut self.heard);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let Some(held) = self.held.take() else { return };
        let (schema, took, seats) = (self.schema.clone(), self.began.elapsed(), held.seats);
        let leave = move |schema: &Schema, took: Duration| {
            let took_ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
            schema.level.leave(held, took_ns);
        };
        schema.figures.end(seats, took);
        self.noted = None;
        // The watchers' work goes on when the answer is out. That matters only to those who wait for a seat.
        if self.linger.is_zero() || !schema.level.is_contended() || tokio::runtime::Handle::try_current().is_err() {
            leave(&schema, took);
            return;
        }
        let linger = self.linger;
        task::spawn("seat-lingers", async move {
            tokio::time::sleep(linger).await;
            leave(&schema, took + linger);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    const POD: About<'static> = About::Resource { group: "", resource: "pods", subresource: "", namespace: "default" };
    const WORK: Work = Work { seats: 1, linger: Duration::ZERO };

    fn arrival() -> Arrival<'static> {
        Arrival { path: "/api/v1/namespaces/default/pods/p/status", now: jiff::Timestamp::UNIX_EPOCH }
    }

    fn control(seats: usize) -> FlowControl {
        let limits = Limits { mutating_in_flight_max: seats, reading_in_flight_max: 0, ..Limits::default() };
        let control = FlowControl::new(&limits);
        let (compiled, _) =
            compile::compile(&control.compiled.load(), &objects::levels(), &objects::schemas(), control.seats);
        control.compiled.store(Arc::new(compiled));
        control
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_told_to_come_again_and_the_administrator_gets_in() {
        let control = control(3);
        let user = Identity::user("jane", [""; 0]);
        let digest = Digest { user: &user, verb: "create", about: POD };
        let schema = control.classify(&digest).unwrap();
        assert_eq!(schema.name, "global-default");
        let first = control.enter(&schema, &digest, WORK, arrival()).await.unwrap();
        let refused = control.enter(&schema, &digest, WORK, arrival()).await.err();
        assert_eq!(refused, Some(TooMany { retry_after_seconds: 1 }));
        let admin = Identity::master("admin");
        let exempt = Digest { user: &admin, ..digest };
        let exempt_schema = control.classify(&exempt).unwrap();
        let _exempt: Vec<Seat> =
            futures::future::join_all((0..100).map(|_| control.enter(&exempt_schema, &exempt, WORK, arrival())))
                .await
                .into_iter()
                .map(Result::unwrap)
                .collect();
        let (second, ()) = tokio::join!(control.enter(&schema, &digest, WORK, arrival()), async { drop(first) });
        drop(second.unwrap());
        assert_eq!(schema.level.in_use(), 0);
        let mut text = Text::new(false);
        control.write_figures(&mut text);
        let text = text.finish();
        let labels = "flow_schema=\"global-default\",priority_level=\"global-default\"";
        assert!(text.contains(&format!("rejected_requests_total{{{labels},reason=\"time-out\"}} 1\n")), "{text}");
        assert!(text.contains(&format!("dispatched_requests_total{{{labels}}} 2\n")), "{text}");
        assert!(text.contains(&format!("current_inqueue_requests{{{labels}}} 0\n")), "{text}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_goes_away_leaves_the_queue() {
        let control = control(3);
        let user = Identity::user("jane", [""; 0]);
        let digest = Digest { user: &user, verb: "get", about: POD };
        let schema = control.classify(&digest).unwrap();
        let _first = control.enter(&schema, &digest, WORK, arrival()).await.unwrap();
        let gone = tokio::time::timeout(Duration::from_secs(1), control.enter(&schema, &digest, WORK, arrival())).await;
        assert!(gone.is_err());
        assert_eq!(schema.level.waiting(), (0, 0));
    }

    /// Many threads, few seats: never more in than there are seats, and nobody who waits is forgotten.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn nobody_is_overlooked_and_nobody_too_many_gets_in() {
        use std::sync::atomic::AtomicU64;
        const TASKS: usize = 100;
        let control = Arc::new(control(80));
        let user = Identity::user("jane", [""; 0]);
        let schema = control.classify(&Digest { user: &user, verb: "get", about: POD }).unwrap();
        let inside = Arc::new(AtomicU64::new(0));
        let limit = schema.level.limit();
        assert!(limit < TASKS as u64 / 2);
        let tasks: Vec<_> = (0..TASKS)
            .map(|number| {
                let (control, schema, inside) = (control.clone(), schema.clone(), inside.clone());
                task::spawn("test-request", async move {
                    let user = Identity::user(format!("user-{number}"), [""; 0]);
                    let digest = Digest { user: &user, verb: "get", about: POD };
                    for _ in 0..50 {
                        let seat = control.enter(&schema, &digest, WORK, arrival()).await.unwrap();
                        assert!(inside.fetch_add(1, Ordering::SeqCst) < limit);
                        tokio::task::yield_now().await;
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(seat);
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert_eq!((schema.level.in_use(), schema.level.waiting()), (0, (0, 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn seats_linger_while_somebody_waits() {
        let control = control(3);
        let user = Identity::user("jane", [""; 0]);
        let digest = Digest { user: &user, verb: "create", about: POD };
        let schema = control.classify(&digest).unwrap();
        let work = Work { seats: 1, linger: Duration::from_secs(5) };
        let first = control.enter(&schema, &digest, work, arrival()).await.unwrap();
        let began = Instant::now();
        let (second, ()) = tokio::join!(control.enter(&schema, &digest, work, arrival()), async { drop(first) });
        assert!(began.elapsed() >= work.linger);
        drop(second);
        assert_eq!(schema.level.in_use(), 0, "nobody waits");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_are_told_of_while_they_are_there() {
        let control = control(3);
        let user = Identity::user("jane", [""; 0]);
        let digest = Digest { user: &user, verb: "get", about: POD };
        let schema = control.classify(&digest).unwrap();
        let first = control.enter(&schema, &digest, WORK, arrival()).await.unwrap();
        let mut second = std::pin::pin!(control.enter(&schema, &digest, WORK, arrival()));
        assert!(futures::poll!(&mut second).is_pending());
        let rows = |details| -> Vec<Vec<String>> {
            let text = control.dump_requests(details);
            text.lines().map(|line| line.split(',').map(|cell| cell.trim().to_owned()).collect()).collect()
        };
        let all = rows(true);
        assert_eq!(all.len(), 3, "{all:?}");
        assert!(all.iter().all(|row| row.len() == 18), "{all:?}");
        let begun = ["global-default", "global-default", "-1", "-1", "jane", "1970-01-01T00:00:00Z", "1", "0", "0s"];
        assert_eq!(all[1][..9], begun);
        assert_eq!(all[1][9], "1970-01-01T00:00:00Z");
        let about = ["jane", "get", "/api/v1/namespaces/default/pods/p/status", "default", "p", "v1", "pods", "status"];
        assert_eq!(all[1][10..], about);
        assert_eq!((all[2][3].as_str(), all[2][9].as_str()), ("0", "0001-01-01T00:00:00Z"), "the other waits");
        drop(first);
        let second = second.await.unwrap();
        assert_eq!(rows(false).len(), 2);
        drop(second);
        assert_eq!(rows(false).len(), 1, "the head alone");
    }
}
