//! The requests that priority and fairness has in hand, for people who ask
//! (`/debug/api_priority_and_fairness/dump_requests`). Exempt ones are not followed, as upstream has it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::debug::table;
use super::{Digest, Schema, Work};
use crate::request::Target;

/// Parts of the table, so that requests that come at the same time seldom wait for each other.
const SHARDS: usize = 16;
/// How Go writes a time that has not come.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Never more than there are seats and places in queues.
pub struct Requests {
    shards: [Mutex<HashMap<u64, Request>>; SHARDS],
    next: AtomicU64,
}

struct Request {
    schema: Arc<Schema>,
    flow: String,
    user: String,
    verb: String,
    path: String,
    work: Work,
    arrived: Timestamp,
    started: Option<Timestamp>,
    /// In which it waits or waited.
    queue: Option<usize>,
}

/// Where a request comes from, besides its digest.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    pub path: &'a str,
    pub now: Timestamp,
}

/// One request; dropping it takes it off the table.
pub struct Noted {
    requests: Arc<Requests>,
    id: u64,
}

/// Level, queue, arrival and number: the order of the rows.
type Place = (String, Option<usize>, Timestamp, u64);
/// Whether the request waits, its row, and what it is about.
type Row = (bool, [String; 10], [String; 8]);

impl Requests {
    pub fn new() -> Requests {
        Requests { shards: Default::default(), next: AtomicU64::new(0) }
    }

    /// A request came; `waits` unless it has its seats already.
    pub fn note(
        self: &Arc<Self>,
        schema: &Arc<Schema>,
        digest: &Digest<'_>,
        arrival: Arrival<'_>,
        work: Work,
        waits: bool,
    ) -> Noted {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let request = Request {
            schema: schema.clone(),
            flow: schema.flow(digest).to_owned(),
            user: digest.user.name.clone(),
            verb: digest.verb.to_owned(),
            path: arrival.path.to_owned(),
            work,
            arrived: arrival.now,
            started: (!waits).then_some(arrival.now),
            queue: None,
        };
        self.shard(id).lock().insert(id, request);
        Noted { requests: self.clone(), id }
    }

    fn shard(&self, id: u64) -> &Mutex<HashMap<u64, Request>> {
        let at = usize::try_from(id % SHARDS as u64).unwrap_or_default();
        // The remainder is a place in the array.
        self.shards.get(at).unwrap_or(&self.shards[0])
    }

    /// A row for each request, by level, queue and arrival; with what it is about if `details` are wanted.
    pub fn dump(&self, details: bool) -> String {
        let mut rows: BTreeMap<Place, Row> = BTreeMap::new();
        for shard in &self.shards {
            for (id, request) in shard.lock().iter() {
                let key = (request.schema.level.name.clone(), request.queue, request.arrived, *id);
                rows.insert(key, (request.started.is_none(), request.row(), request.details()));
            }
        }
        // Those that wait are numbered within their queue.
        let mut waiting: HashMap<(String, Option<usize>), usize> = HashMap::new();
        for ((level, queue, ..), (waits, row, _)) in &mut rows {
            if *waits {
                let index = waiting.entry((level.clone(), *queue)).or_default();
                row[3] = index.to_string();
                *index += 1;
            }
        }
        let head = HEAD.map(str::to_owned);
        if !details {
            let rows: Vec<[String; 10]> =
                std::iter::once(head).chain(rows.into_values().map(|(_, row, _)| row)).collect();
            return table(&rows);
        }
        let join = |row: [String; 10], details: [String; 8]| -> [String; 18] {
            let mut all = row.into_iter().chain(details);
            std::array::from_fn(|_| all.next().unwrap_or_default())
        };
        let head = join(head, DETAILS.map(str::to_owned));
        let rows = rows.into_values().map(|(_, row, details)| join(row, details));
        let rows: Vec<[String; 18]> = std::iter::once(head).chain(rows).collect();
        table(&rows)
    }
}

const HEAD: [&str; 10] = [
    "PriorityLevelName",
    "FlowSchemaName",
    "QueueIndex",
    "RequestIndexInQueue",
    "FlowDistingsher",
    "ArriveTime",
    "InitialSeats",
    "FinalSeats",
    "AdditionalLatency",
    "StartTime",
];
const DETAILS: [&str; 8] =
    ["UserName", "Verb", "APIPath", "Namespace", "Name", "APIVersion", "Resource", "SubResource"];

impl Request {
    fn row(&self) -> [String; 10] {
        // What lingers has its seats in the end, what does not has them in the beginning only.
        let lingering = if self.work.linger.is_zero() { 0 } else { self.work.seats };
        [
            self.schema.level.name.clone(),
            self.schema.name.clone(),
            self.queue.map_or("-1".to_owned(), |queue| queue.to_string()),
            "-1".to_owned(),
            self.flow.clone(),
            self.arrived.to_string(),
            self.work.seats.to_string(),
            lingering.to_string(),
            duration(self.work.linger),
            self.started.map_or(NEVER.to_owned(), |started| started.to_string()),
        ]
    }

    fn details(&self) -> [String; 8] {
        let target = Target::parse(&self.path).unwrap_or_default();
        let version = match (target.group.as_str(), target.version.as_str()) {
            ("", version) => version.to_owned(),
            (group, version) => format!("{group}/{version}"),
        };
        [
            self.user.clone(),
            self.verb.clone(),
            self.path.clone(),
            target.namespace.unwrap_or_default(),
            target.name.unwrap_or_default(),
            version,
            target.plural,
            target.subresource.unwrap_or_default(),
        ]
    }
}

/// As Go writes durations of less than a second.
fn duration(time: Duration) -> String {
    if time.is_zero() { "0s".to_owned() } else { format!("{}ms", time.as_secs_f64() * 1000.0) }
}

impl Noted {
    /// It waits in this queue.
    pub fn waits_in(&self, queue: usize) {
        self.change(|request| request.queue = Some(queue));
    }

    /// It has its seats, after it waited for so long.
    pub fn starts(&self, waited: Duration) {
        self.change(|request| request.started = request.arrived.checked_add(waited).ok());
    }

    fn change(&self, change: impl FnOnce(&mut Request)) {
        if let Some(request) = self.requests.shard(self.id).lock().get_mut(&self.id) {
            change(request);
        }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.requests.shard(self.id).lock().remove(&self.id);
    }
}
