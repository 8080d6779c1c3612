//! When a probe runs and what its results add up to.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;
use k8s_openapi::jiff::Timestamp;

use super::seconds;

const PERIOD_SECONDS_DEFAULT: u64 = 10;
const FAILURES_DEFAULT: i32 = 3;
const SUCCESSES_DEFAULT: i32 = 1;

pub fn period(probe: &Probe) -> Duration {
    seconds(probe.period_seconds, PERIOD_SECONDS_DEFAULT)
}

/// Until the first probe: `initialDelaySeconds` counts from the container's start.
pub fn initial_pause(probe: &Probe, started_at: Timestamp, now: Timestamp) -> Duration {
    let delay = seconds(probe.initial_delay_seconds, 0);
    let gone = Duration::try_from(now.duration_since(started_at)).unwrap_or_default();
    delay.saturating_sub(gone)
}

/// Counts results in a row against the thresholds.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    verdict: Option<bool>,
    last: Option<bool>,
    in_a_row: i32,
}

impl Tally {
    pub fn new(verdict: Option<bool>) -> Tally {
        Tally { verdict, last: None, in_a_row: 0 }
    }

    /// Takes a result; yields the verdict when it changes.
    pub fn add(&mut self, success: bool, probe: &Probe) -> Option<bool> {
        self.in_a_row = if self.last == Some(success) { self.in_a_row.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let (given, default) = if success {
            (probe.success_threshold, SUCCESSES_DEFAULT)
        } else {
            (probe.failure_threshold, FAILURES_DEFAULT)
        };
        if self.in_a_row < given.unwrap_or(default) || self.verdict == Some(success) {
            return None;
        }
        self.verdict = Some(success);
        Some(success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_change_at_the_thresholds() {
        let probe = Probe { failure_threshold: Some(2), success_threshold: Some(2), ..Probe::default() };
        let mut tally = Tally::new(None);
        let results = [true, true, true, false, true, false, false, false, true, true];
        let verdicts: Vec<_> = results.into_iter().map(|result| tally.add(result, &probe)).collect();
        let none = None;
        assert_eq!(verdicts, [none, Some(true), none, none, none, none, Some(false), none, none, Some(true)]);
        assert_eq!(Tally::new(Some(true)).add(true, &Probe::default()), None);
    }

    #[test]
    fn the_delay_counts_from_the_start() {
        let probe = Probe { initial_delay_seconds: Some(10), ..Probe::default() };
        let at = |second| Timestamp::from_second(second).unwrap();
        assert_eq!(initial_pause(&probe, at(100), at(104)), Duration::from_secs(6));
        assert_eq!(initial_pause(&probe, at(100), at(200)), Duration::ZERO);
        assert_eq!(initial_pause(&Probe::default(), at(100), at(90)), Duration::ZERO);
    }
}
