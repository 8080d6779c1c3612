//! What the server takes upon itself: the flags of `src/apiserver/flowcontrol` and of its limits.

use super::Flag;
use super::Set::{Duration, Text};

pub(super) const FLAGS: &[Flag] = &[
    (
        "max-mutating-requests-inflight",
        Text(|config, text| number(text).map(|number| config.limits.mutating_in_flight_max = number)),
    ),
    (
        "max-requests-inflight",
        Text(|config, text| number(text).map(|number| config.limits.reading_in_flight_max = number)),
    ),
    ("min-request-timeout", Text(|config, text| seconds(text).map(|time| config.limits.watch_min = time))),
    (
        "request-timeout",
        Duration(|config, time| {
            config.limits.request_max = time;
            // Upstream lets a request wait for a quarter of its time, and a minute at most.
            config.limits.wait_max = (time / 4).min(std::time::Duration::from_secs(60));
        }),
    ),
];

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| "it should be a number that is not negative".to_owned())
}

fn seconds(text: &str) -> Result<std::time::Duration, String> {
    number(text).map(std::time::Duration::from_secs)
}
