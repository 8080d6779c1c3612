//! What is counted of each FlowSchema's requests, under upstream's names.

use std::sync::Arc;
use std::time::Duration;

use super::level::Refused;
use super::{Compiled, schema::Schema};
use crate::metrics::{Buckets, Counter, Gauge, Histogram, Kind, Text};

const MS: u64 = 1_000_000;
static WAIT_SECONDS: Buckets = Buckets {
    bounds: &[
        0,
        5 * MS,
        20 * MS,
        50 * MS,
        100 * MS,
        200 * MS,
        500 * MS,
        1000 * MS,
        2000 * MS,
        5000 * MS,
        10_000 * MS,
        15_000 * MS,
        30_000 * MS,
    ],
    per_unit: 1e9,
};
static SEATS: Buckets = Buckets { bounds: &[1, 2, 4, 8, 16, 32, 64, 100], per_unit: 1.0 };

pub struct SchemaFigures {
    dispatched: Counter,
    seats_in_use: Gauge,
    in_queue: Gauge,
    seats_in_queue: Gauge,
    refused: [Counter; 3],
    waited: Histogram,
    waited_in_vain: Histogram,
    executed: Histogram,
    seats: Histogram,
}

impl SchemaFigures {
    pub fn new() -> SchemaFigures {
        SchemaFigures {
            dispatched: Counter::default(),
            seats_in_use: Gauge::default(),
            in_queue: Gauge::default(),
            seats_in_queue: Gauge::default(),
            refused: Default::default(),
            waited: Histogram::new(&WAIT_SECONDS),
            waited_in_vain: Histogram::new(&WAIT_SECONDS),
            executed: Histogram::new(&WAIT_SECONDS),
            seats: Histogram::new(&SEATS),
        }
    }

    pub fn begin(&self, seats: u64) {
        self.dispatched.inc();
        self.seats_in_use.add(signed(seats));
        self.seats.observe(seats);
    }

    pub fn end(&self, seats: u64, took: Duration) {
        self.seats_in_use.add(-signed(seats));
        self.executed.observe_duration(took);
    }

    pub fn queue(&self, seats: u64) {
        self.in_queue.add(1);
        self.seats_in_queue.add(signed(seats));
    }

    pub fn dequeue(&self, seats: u64, waited: Duration, served: bool) {
        self.in_queue.add(-1);
        self.seats_in_queue.add(-signed(seats));
        let histogram = if served { &self.waited } else { &self.waited_in_vain };
        histogram.observe_duration(waited);
    }

    pub fn refuse(&self, why: Refused) {
        let [full, limit, time] = &self.refused;
        match why {
            Refused::QueueFull => full.inc(),
            Refused::ConcurrencyLimit => limit.inc(),
            Refused::TimeOut => time.inc(),
        }
    }

    pub fn executing(&self) -> u64 {
        self.dispatched.get().saturating_sub(self.executed.count())
    }

    pub fn dispatched(&self) -> u64 {
        self.dispatched.get()
    }

    /// For want of a place to wait.
    pub fn rejected(&self) -> u64 {
        let [full, limit, _] = &self.refused;
        full.get() + limit.get()
    }

    pub fn timed_out(&self) -> u64 {
        let [_, _, time] = &self.refused;
        time.get()
    }

    /// Those whose clients waited no longer.
    pub fn cancelled(&self) -> u64 {
        self.waited_in_vain.count().saturating_sub(self.timed_out())
    }
}

fn signed(seats: u64) -> i64 {
    i64::try_from(seats).unwrap_or(i64::MAX)
}

const PREFIX: &str = "apiserver_flowcontrol_";

pub fn write(compiled: &Compiled, fair_fraction: f64, out: &mut Text) {
    let schemas = &compiled.schemas;
    let each = |out: &mut Text, name: &str, kind: Kind, help: &str, of: &dyn Fn(&SchemaFigures) -> i64| {
        let name = format!("{PREFIX}{name}");
        out.family(&name, kind, help);
        schemas.iter().for_each(|schema| out.sample(&name, &labels(schema), of(&schema.figures)));
    };
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    each(
        out,
        "dispatched_requests_total",
        Kind::Counter,
        "[BETA] Number of requests executed by API Priority and Fairness subsystem",
        &|figures| count(figures.dispatched.get()),
    );
    each(
        out,
        "current_executing_requests",
        Kind::Gauge,
        "[BETA] Number of requests in initial (for a WATCH) or any (for a non-WATCH) execution stage in the API \
         Priority and Fairness subsystem",
        &|figures| count(figures.executing()),
    );
    each(
        out,
        "current_executing_seats",
        Kind::Gauge,
        "[BETA] Concurrency (number of seats) occupied by the currently executing (initial stage for a WATCH, any \
         stage otherwise) requests in the API Priority and Fairness subsystem",
        &|figures| figures.seats_in_use.get(),
    );
    each(
        out,
        "current_inqueue_requests",
        Kind::Gauge,
        "[BETA] Number of requests currently pending in queues of the API Priority and Fairness subsystem",
        &|figures| figures.in_queue.get(),
    );
    each(
        out,
        "current_inqueue_seats",
        Kind::Gauge,
        "[ALPHA] Number of seats currently pending in queues of the API Priority and Fairness subsystem",
        &|figures| figures.seats_in_queue.get(),
    );
    let name = format!("{PREFIX}rejected_requests_total");
    out.family(&name, Kind::Counter, "[BETA] Number of requests rejected by API Priority and Fairness subsystem");
    for schema in schemas {
        let reasons = ["queue-full", "concurrency-limit", "time-out"];
        for (counter, reason) in schema.figures.refused.iter().zip(reasons).filter(|(counter, _)| counter.get() > 0) {
            let [schema_label, level_label] = labels(schema);
            out.sample(&name, &[schema_label, level_label, ("reason", reason)], counter.get());
        }
    }
    histograms(schemas, out);
    levels(compiled, out);
    out.single(
        &format!("{PREFIX}seat_fair_frac"),
        Kind::Gauge,
        "[ALPHA] Fair fraction of server's concurrency to allocate to each priority level that can use it",
        fair_fraction,
    );
}

fn histograms(schemas: &[Arc<Schema>], out: &mut Text) {
    let name = format!("{PREFIX}request_wait_duration_seconds");
    out.family(&name, Kind::Histogram, "[BETA] Length of time a request spent waiting in its queue");
    for schema in schemas {
        let [schema_label, level_label] = labels(schema);
        for (execute, waited) in [("true", &schema.figures.waited), ("false", &schema.figures.waited_in_vain)] {
            if waited.count() > 0 {
                out.histogram(&name, &[("execute", execute), schema_label, level_label], waited);
            }
        }
    }
    let mut each = |name: &str, help: &str, of: &dyn Fn(&SchemaFigures) -> &Histogram| {
        let name = format!("{PREFIX}{name}");
        out.family(&name, Kind::Histogram, help);
        for schema in schemas.iter().filter(|schema| of(&schema.figures).count() > 0) {
            out.histogram(&name, &labels(schema), of(&schema.figures));
        }
    };
    each(
        "request_execution_seconds",
        "[ALPHA] Duration of initial stage (for a WATCH) or any (for a non-WATCH) stage of request execution in the API \
         Priority and Fairness subsystem",
        &|figures| &figures.executed,
    );
    each(
        "work_estimated_seats",
        "[ALPHA] Number of estimated seats (maximum of initial and final seats) associated with requests in API \
         Priority and Fairness",
        &|figures| &figures.seats,
    );
}

fn levels(compiled: &Compiled, out: &mut Text) {
    let mut each = |name: &str, help: &str, of: &dyn Fn(&super::level::Level) -> f64| {
        let name = format!("{PREFIX}{name}");
        out.family(&name, Kind::Gauge, help);
        for level in &compiled.levels {
            out.sample(&name, &[("priority_level", &level.name)], of(level));
        }
    };
    each(
        "nominal_limit_seats",
        "[BETA] Nominal number of execution seats configured for each priority level",
        &|level| level.bounds().nominal as f64,
    );
    each(
        "lower_limit_seats",
        "[ALPHA] Configured lower bound on number of execution seats available to each priority level",
        &|level| level.bounds().min as f64,
    );
    each(
        "upper_limit_seats",
        "[ALPHA] Configured upper bound on number of execution seats available to each priority level",
        &|level| level.bounds().max as f64,
    );
    each(
        "current_limit_seats",
        "[ALPHA] current derived number of execution seats available to each priority level",
        &|level| level.limit() as f64,
    );
    each(
        "demand_seats_high_watermark",
        "[ALPHA] High watermark, over last adjustment period, of demand_seats",
        &|level| level.figures().high_watermark as f64,
    );
    each(
        "demand_seats_average",
        "[ALPHA] Time-weighted average, over last adjustment period, of demand_seats",
        &|level| level.figures().average,
    );
    each(
        "demand_seats_stdev",
        "[ALPHA] Time-weighted standard deviation, over last adjustment period, of demand_seats",
        &|level| level.figures().deviation,
    );
    each("demand_seats_smoothed", "[ALPHA] Smoothed seat demands", &|level| level.figures().smoothed);
    each("target_seats", "[ALPHA] Seat allocation targets", &|level| level.figures().target);
}

fn labels(schema: &Schema) -> [(&str, &str); 2] {
    [("flow_schema", &schema.name), ("priority_level", &schema.level.name)]
}
