//! Moments from year 1 to 9999, and their calendar.

use std::fmt;

/// 0001-01-01T00:00:00Z.
const SECONDS_MIN: i64 = -62_135_596_800;
/// 9999-12-31T23:59:59Z.
const SECONDS_MAX: i64 = 253_402_300_799;
const NANOS: i128 = 1_000_000_000;
const DAY_SECONDS: i64 = 86_400;

/// Nanoseconds since 1970 in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    nanos: i128,
}

/// A moment taken apart.
pub struct Date {
    pub year: i64,
    /// From 1, as the day.
    pub month: i64,
    pub day: i64,
    /// From 0.
    pub day_of_year: i64,
    /// Sunday is 0.
    pub weekday: i64,
    pub hour: i64,
    pub minute: i64,
    pub second: i64,
    pub nanos: i64,
}

impl Timestamp {
    /// `None` outside of the range.
    pub fn from_nanos(nanos: i128) -> Option<Timestamp> {
        let seconds = nanos.div_euclid(NANOS);
        (i128::from(SECONDS_MIN)..=i128::from(SECONDS_MAX)).contains(&seconds).then_some(Timestamp { nanos })
    }

    pub fn from_seconds(seconds: i64) -> Option<Timestamp> {
        Timestamp::from_nanos(i128::from(seconds) * NANOS)
    }

    /// A date at so many seconds ahead of UTC. `None` if there is no such day or time.
    pub fn from_date(date: &Date, offset_seconds: i64) -> Option<Timestamp> {
        let valid = (1..=12).contains(&date.month)
            && (1..=days_in(date.year, date.month)).contains(&date.day)
            && (0..24).contains(&date.hour)
            && (0..60).contains(&date.minute)
            && (0..60).contains(&date.second);
        if !valid {
            return None;
        }
        let seconds = days_from_civil(date.year, date.month, date.day) * DAY_SECONDS
            + date.hour * 3600
            + date.minute * 60
            + date.second
            - offset_seconds;
        Timestamp::from_nanos(i128::from(seconds) * NANOS + i128::from(date.nanos))
    }

    pub fn nanos(self) -> i128 {
        self.nanos
    }

    pub fn seconds(self) -> i64 {
        i64::try_from(self.nanos.div_euclid(NANOS)).unwrap_or(SECONDS_MAX)
    }

    /// The calendar at so many seconds ahead of UTC.
    pub fn date(self, offset_seconds: i64) -> Date {
        let seconds = self.seconds() + offset_seconds;
        let days = seconds.div_euclid(DAY_SECONDS);
        let rest = seconds.rem_euclid(DAY_SECONDS);
        let (year, month, day) = civil_from_days(days);
        Date {
            year,
            month,
            day,
            day_of_year: days - days_from_civil(year, 1, 1),
            weekday: (days + 4).rem_euclid(7),
            hour: rest / 3600,
            minute: rest / 60 % 60,
            second: rest % 60,
            nanos: i64::try_from(self.nanos.rem_euclid(NANOS)).unwrap_or(0),
        }
    }
}

/// RFC 3339 in UTC, with as many digits as there are.
impl fmt::Display for Timestamp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let date = self.date(0);
        let Date { year, month, day, hour, minute, second, nanos, .. } = date;
        write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")?;
        if nanos > 0 {
            write!(out, ".{}", format!("{nanos:09}").trim_end_matches('0'))?;
        }
        out.write_str("Z")
    }
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01; years are counted from March, so that the leap day is the last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day_of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day_of_year - (153 * shifted_month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_come_back() {
        for days in (-719_162..2_932_896).step_by(97) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
            assert!((1..=days_in(year, month)).contains(&day));
        }
        assert_eq!(Timestamp::from_seconds(SECONDS_MAX).unwrap().to_string(), "9999-12-31T23:59:59Z");
        assert_eq!(Timestamp::from_seconds(SECONDS_MIN).unwrap().to_string(), "0001-01-01T00:00:00Z");
        assert!(Timestamp::from_seconds(SECONDS_MAX + 1).is_none());
        assert!(Timestamp::from_seconds(SECONDS_MIN - 1).is_none());
    }
}
