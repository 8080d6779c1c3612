//! Durations as Go writes them (`time.ParseDuration`): `300ms`, `1h30m`, `1.5h`.

use std::time::Duration;

/// The text is no duration, or a negative one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it should be a duration such as 30s or 1h30m")]
pub struct DurationError;

pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(DurationError);
    }
    let mut whole = Duration::ZERO;
    while !rest.is_empty() {
        let unit_at = rest.find(|one: char| !one.is_ascii_digit() && one != '.').ok_or(DurationError)?;
        let (number, tail) = rest.split_at(unit_at);
        let number: f64 = number.parse().map_err(|_| DurationError)?;
        let next_at = tail.find(|one: char| one.is_ascii_digit() || one == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(next_at);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(DurationError),
        };
        let part = Duration::try_from_secs_f64(number * seconds).map_err(|_| DurationError)?;
        whole = whole.checked_add(part).ok_or(DurationError)?;
        rest = tail;
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, millis) in
            [("0", 0), ("0s", 0), ("10s", 10_000), ("1h30m", 5_400_000), ("1.5h", 5_400_000), ("2m0.5s", 120_500)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "s", "-1s", "1d", "1h30", "1..5s", "99999999999999999999h"] {
            assert_eq!(parse(text), Err(DurationError), "{text}");
        }
    }
}
