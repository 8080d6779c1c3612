//! Tables of what priority and fairness is doing now, for people
//! (`/debug/api_priority_and_fairness/dump_priority_levels` and `dump_queues`).

use std::fmt::Write;

use super::{Compiled, figures::SchemaFigures};

/// Columns are no narrower than this, and a space wider than what stands in them.
const COLUMN_MIN: usize = 8;

/// What is known of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct QueueDump {
    pub waiting: usize,
    pub executing: usize,
    pub executing_seats: u64,
    /// On the level's virtual clock.
    pub next_start: f64,
    pub waiting_seats: u64,
    /// Of those that wait, in seat-seconds.
    pub work: f64,
}

/// A row for each priority level.
pub fn levels(compiled: &Compiled) -> String {
    let mut rows = vec![
        [
            "PriorityLevelName",
            "ActiveQueues",
            "IsIdle",
            "IsQuiescing",
            "WaitingRequests",
            "ExecutingRequests",
            "DispatchedRequests",
            "RejectedRequests",
            "TimedoutRequests",
            "CancelledRequests",
        ]
        .map(str::to_owned),
    ];
    for level in &compiled.levels {
        let of_level = compiled.schemas.iter().filter(|schema| schema.level.name == level.name);
        let figures: Vec<&SchemaFigures> = of_level.map(|schema| schema.figures.as_ref()).collect();
        let sum = |of: fn(&SchemaFigures) -> u64| figures.iter().map(|figures| of(figures)).sum::<u64>();
        let queues = level.dump();
        let waiting: usize = queues.iter().map(|queue| queue.waiting).sum();
        let executing = sum(SchemaFigures::executing);
        rows.push([
            level.name.clone(),
            queues.iter().filter(|queue| queue.waiting > 0).count().to_string(),
            (waiting == 0 && executing == 0).to_string(),
            // A level goes when its object goes; what it still executes has it for itself.
            false.to_string(),
            waiting.to_string(),
            executing.to_string(),
            sum(SchemaFigures::dispatched).to_string(),
            sum(SchemaFigures::rejected).to_string(),
            sum(SchemaFigures::timed_out).to_string(),
            sum(SchemaFigures::cancelled).to_string(),
        ]);
    }
    table(&rows)
}

/// A row for each queue.
pub fn queues(compiled: &Compiled) -> String {
    let mut rows = vec![
        [
            "PriorityLevelName",
            "Index",
            "PendingRequests",
            "ExecutingRequests",
            "SeatsInUse",
            "NextDispatchR",
            "InitialSeatsSum",
            "MaxSeatsSum",
            "TotalWorkSum",
        ]
        .map(str::to_owned),
    ];
    for level in &compiled.levels {
        for (index, queue) in level.dump().into_iter().enumerate() {
            rows.push([
                level.name.clone(),
                index.to_string(),
                queue.waiting.to_string(),
                queue.executing.to_string(),
                queue.executing_seats.to_string(),
                format!("{:.8}ss", queue.next_start),
                queue.waiting_seats.to_string(),
                queue.waiting_seats.to_string(),
                format!("{:.8}ss", queue.work),
            ]);
        }
    }
    table(&rows)
}

/// Values with commas between them, in columns.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [COLUMN_MIN; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            // The comma, and a space.
            *width = (*width).max(cell.len() + 2);
        }
    }
    let mut out = String::new();
    for row in rows {
        for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
            // Writing to a string does not fail.
            let _ = match at + 1 == N {
                true => writeln!(out, "{cell}"),
                false => write!(out, "{:width$}", format!("{cell},")),
            };
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::level::{Bounds, Level};
    use super::super::queueset::Queuing;
    use super::*;

    #[tokio::test]
    async fn who_waits_stands_in_the_tables() {
        let queuing = Queuing { queues: 2, hand_size: 1, queue_length_max: 5 };
        let bounds = Bounds { nominal: 1, min: 1, max: 1, seats_max: 1, queuing: Some(queuing) };
        let level = Arc::new(Level::new("busy", false, bounds));
        let _held = level.try_enter(1).unwrap();
        let (_, _heard) = level.queue(0, 1, 0.0).unwrap();
        let compiled = Compiled { schemas: Vec::new(), levels: vec![level] };
        let lines = |text: String| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let levels = lines(levels(&compiled));
        assert!(levels[0].starts_with("PriorityLevelName, ActiveQueues, IsIdle, "), "{levels:?}");
        assert!(levels[1].starts_with("busy,              1,            false,  false,       1,    "), "{levels:?}");
        let queues = lines(queues(&compiled));
        assert_eq!(queues.len(), 3);
        let row: Vec<&str> = queues[1].split(',').map(str::trim).collect();
        assert_eq!(row, ["busy", "0", "1", "0", "0", "0.00000000ss", "1", "1", "0.00300000ss"]);
    }
}
