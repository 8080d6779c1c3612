//! Waiting longer after each failure, as upstream's `flowcontrol.Backoff`.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

pub const WAIT_MIN: Duration = Duration::from_secs(10);
/// Upstream's `MaxContainerRestartPeriod`, and the limit of image pulls.
pub const WAIT_MAX: Duration = Duration::from_secs(300);

/// How long to wait before the next attempt. Forgotten when nothing failed for twice [`WAIT_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    wait: Duration,
    updated: Timestamp,
}

impl Backoff {
    /// After one more attempt at `now` than `before` knows of.
    pub fn next(before: Option<&Backoff>, now: Timestamp) -> Backoff {
        let wait = match before {
            Some(before) if !before.is_old(now) => (before.wait * 2).min(WAIT_MAX),
            _ => WAIT_MIN,
        };
        Backoff { wait, updated: now }
    }

    /// The wait that counts from a failure at `failed`, if it still counts.
    pub fn wait(&self, failed: Timestamp) -> Option<Duration> {
        (!self.is_old(failed)).then_some(self.wait)
    }

    fn is_old(&self, at: Timestamp) -> bool {
        at.duration_since(self.updated) > SignedDuration::from_secs(2 * 300)
    }
}

/// `time` plus `wait`, or as far as the calendar goes.
pub fn after(time: Timestamp, wait: Duration) -> Timestamp {
    time.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// As Go prints a duration of whole seconds: `10s`, `1m20s`, `5m0s`.
pub fn go_seconds(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_a_limit_and_are_forgotten() {
        let mut now = Timestamp::UNIX_EPOCH;
        let mut backoff: Option<Backoff> = None;
        let mut waits = Vec::new();
        for _ in 0..7 {
            let next = Backoff::next(backoff.as_ref(), now);
            let wait = next.wait(now).unwrap();
            waits.push(wait.as_secs());
            now = after(now, wait);
            backoff = Some(next);
        }
        assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300]);
        let later = after(now, Duration::from_secs(601));
        assert_eq!(backoff.unwrap().wait(later), None);
        assert_eq!(Backoff::next(backoff.as_ref(), later).wait(later), Some(WAIT_MIN));
        assert_eq!(go_seconds(Duration::from_secs(300)), "5m0s");
    }
}
