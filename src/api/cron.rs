//! Cron schedules, in the grammar that upstream reads them in: five fields (`*/5 0-6 1,15 jan-mar MON`), names such as
//! `@hourly`, and `@every 1h30m`. Errors are worded as upstream's library words them.

use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned};

/// A schedule that matches nothing within so many years matches never.
const YEARS_MAX: i16 = 5;
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// When something is due, over and over.
#[derive(Clone, Debug)]
pub enum Schedule {
    Fields(Box<Fields>),
    /// Every so many whole seconds.
    Every(Duration),
}

/// The minutes, hours and days that match, in a time zone.
#[derive(Clone, Debug)]
pub struct Fields {
    minute: Field,
    hour: Field,
    day: Field,
    month: Field,
    weekday: Field,
    zone: TimeZone,
}

/// The numbers that match, a bit for each.
#[derive(Clone, Copy, Debug)]
struct Field {
    bits: u64,
    /// Given as `*` or `?`: of the two day fields the other one decides alone.
    any: bool,
}

/// What a field may hold.
struct Bounds {
    min: u32,
    max: u32,
    /// From `min` on.
    names: &'static [&'static str],
}

const BOUNDS: [Bounds; 5] = [
    Bounds { min: 0, max: 59, names: &[] },
    Bounds { min: 0, max: 23, names: &[] },
    Bounds { min: 1, max: 31, names: &[] },
    Bounds { min: 1, max: 12, names: &MONTHS },
    Bounds { min: 0, max: 6, names: &DAYS },
];

/// The time zone of a name such as `Europe/Berlin`; the empty name is UTC. From the data that is compiled in, so that it
/// is the same on every machine.
pub fn time_zone(name: &str) -> Result<TimeZone, String> {
    if name.is_empty() {
        return Ok(TimeZone::UTC);
    }
    jiff::tz::TimeZoneDatabase::bundled().get(name).map_err(|_| format!("unknown time zone {name}"))
}

impl Schedule {
    /// Reads a schedule that is meant in `zone`. One that begins with `TZ=` or `CRON_TZ=` says its zone itself.
    pub fn parse(text: &str, zone: TimeZone) -> Result<Schedule, String> {
        if text.is_empty() {
            return Err("empty spec string".to_owned());
        }
        if let Some(own) = text.strip_prefix("TZ=").or_else(|| text.strip_prefix("CRON_TZ=")) {
            let (name, rest) = own.split_once(' ').unwrap_or((own, ""));
            let zone = time_zone(name).map_err(|why| format!("provided bad location {name}: {why}"))?;
            return Schedule::parse_in(rest.trim(), zone);
        }
        Schedule::parse_in(text, zone)
    }

    fn parse_in(text: &str, zone: TimeZone) -> Result<Schedule, String> {
        let fields = match text {
            "@yearly" | "@annually" => "0 0 1 1 *",
            "@monthly" => "0 0 1 * *",
            "@weekly" => "0 0 * * 0",
            "@daily" | "@midnight" => "0 0 * * *",
            "@hourly" => "0 * * * *",
            _ => match text.strip_prefix("@every ") {
                Some(every) => {
                    let every = duration(every)
                        .ok_or_else(|| format!("failed to parse duration {text}: time: invalid duration {every:?}"))?;
                    return Ok(Schedule::Every(Duration::from_secs(every.as_secs().max(1).unsigned_abs())));
                }
                None if text.starts_with('@') => return Err(format!("unrecognized descriptor: {text}")),
                None => text,
            },
        };
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let &[minute, hour, day, month, weekday] = fields.as_slice() else {
            let listed = fields.join(" ");
            return Err(format!("expected exactly 5 fields, found {}: [{listed}]", fields.len()));
        };
        let [minutes, hours, days, months, weekdays] = &BOUNDS;
        Ok(Schedule::Fields(Box::new(Fields {
            minute: Field::parse(minute, minutes)?,
            hour: Field::parse(hour, hours)?,
            day: Field::parse(day, days)?,
            month: Field::parse(month, months)?,
            weekday: Field::parse(weekday, weekdays)?,
            zone,
        })))
    }

    /// The first time after `after`; `None` if there is none within five years.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        match self {
            Schedule::Every(every) => {
                let second = Timestamp::from_second(after.as_second()).ok()?;
                second.checked_add(*every).ok()
            }
            Schedule::Fields(fields) => fields.next(after),
        }
    }
}

impl Fields {
    /// Days are passed over as a whole. Within a day time goes on as it does on the clock of the zone: what is skipped
    /// there is never due, what comes twice is due twice.
    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        if self.minute.bits == 0 || self.hour.bits == 0 {
            return None;
        }
        let mut at = after.to_zoned(self.zone.clone());
        let since_minute = SignedDuration::new(i64::from(at.second()), at.subsec_nanosecond());
        at = at.checked_add(SignedDuration::from_secs(60) - since_minute).ok()?;
        let year_max = at.year().saturating_add(YEARS_MAX);
        while at.year() <= year_max {
            if !self.day_matches(&at) {
                at = at.tomorrow().ok()?.start_of_day().ok()?;
            } else if !self.hour.has(at.hour()) {
                at = at.checked_add((60 - i64::from(at.minute())).minutes()).ok()?;
            } else if !self.minute.has(at.minute()) {
                at = at.checked_add(1.minute()).ok()?;
            } else {
                return Some(at.timestamp());
            }
        }
        None
    }

    fn day_matches(&self, at: &Zoned) -> bool {
        let day = self.day.has(at.day());
        let weekday = self.weekday.has(at.weekday().to_sunday_zero_offset());
        let either = if self.day.any || self.weekday.any { day && weekday } else { day || weekday };
        self.month.has(at.month()) && either
    }
}

impl Field {
    fn has(self, number: i8) -> bool {
        u32::try_from(number).is_ok_and(|number| self.bits & (1 << number) != 0)
    }

    fn parse(text: &str, bounds: &Bounds) -> Result<Field, String> {
        let mut field = Field { bits: 0, any: false };
        for part in text.split(',').filter(|part| !part.is_empty()) {
            field.add(part, bounds)?;
        }
        Ok(field)
    }

    /// Adds `5`, `2-4`, `*`, each perhaps with a step behind `/`.
    fn add(&mut self, part: &str, bounds: &Bounds) -> Result<(), String> {
        let mut steps = part.split('/');
        let range = steps.next().unwrap_or_default();
        let step = steps.next();
        if steps.next().is_some() {
            return Err(format!("too many slashes: {part}"));
        }
        let mut ends = range.split('-');
        let low = ends.next().unwrap_or_default();
        let high = ends.next();
        let any = matches!(low, "*" | "?");
        let (start, mut end) = if any {
            (bounds.min, bounds.max)
        } else {
            let start = number_or_name(low, bounds)?;
            let end = high.map_or(Ok(start), |high| number_or_name(high, bounds))?;
            if ends.next().is_some() {
                return Err(format!("too many hyphens: {part}"));
            }
            (start, end)
        };
        let every = step.map_or(Ok(1), number)?;
        if step.is_some() && high.is_none() {
            end = bounds.max;
        }
        if start < bounds.min {
            return Err(format!("beginning of range ({start}) below minimum ({}): {part}", bounds.min));
        }
        if end > bounds.max {
            return Err(format!("end of range ({end}) above maximum ({}): {part}", bounds.max));
        }
        if start > end {
            return Err(format!("beginning of range ({start}) beyond end of range ({end}): {part}"));
        }
        if every == 0 {
            return Err(format!("step of range should be a positive number: {part}"));
        }
        self.any |= any && every == 1;
        for number in (start..=end).step_by(usize::try_from(every).unwrap_or(usize::MAX)) {
            self.bits |= 1 << number;
        }
        Ok(())
    }
}

fn number_or_name(text: &str, bounds: &Bounds) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    match (bounds.min..).zip(bounds.names).find(|(_, name)| **name == lower) {
        Some((number, _)) => Ok(number),
        None => number(text),
    }
}

fn number(text: &str) -> Result<u32, String> {
    let signless = text.strip_prefix(['+', '-']).unwrap_or(text);
    if signless.is_empty() || !signless.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax"));
    }
    let Ok(number) = text.parse::<i64>() else {
        return Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: value out of range"));
    };
    if number < 0 {
        return Err(format!("negative number ({number}) not allowed: {text}"));
    }
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

/// A duration as Go writes them: `1h30m`, `1.5h`, `300ms`, with a sign before it. `None` if it is none.
fn duration(text: &str) -> Option<SignedDuration> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0)];
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let letters = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let (_, weight) = UNITS.iter().find(|(name, _)| *name == unit)?;
        seconds += number.parse::<f64>().ok()? * weight;
        rest = after;
    }
    SignedDuration::try_from_secs_f64(if negative { -seconds } else { seconds }).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Schedule, String> {
        Schedule::parse(text, TimeZone::UTC)
    }

    /// The next times, as the clock of the zone shows them.
    fn times(text: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let zone = time_zone(zone).unwrap();
        let schedule = Schedule::parse(text, zone.clone()).unwrap();
        let mut at: Timestamp = after.parse().unwrap();
        let mut times = Vec::new();
        for _ in 0..count {
            at = schedule.next(at).unwrap();
            times.push(at.to_zoned(zone.clone()).strftime("%a %Y-%m-%d %H:%M:%S %:z").to_string());
        }
        times
    }

    #[test]
    fn errors_are_worded_as_upstream_words_them() {
        for good in ["* * * * *", "*/5 0-6 1,15 jan-mar MON", "@daily", "@every 1h", "0 0 ? * *", "TZ=UTC * * * * *"] {
            assert!(read(good).is_ok(), "{good}");
        }
        for (bad, why) in [
            ("", "empty spec string"),
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("a * * * *", "failed to parse int from a: strconv.Atoi: parsing \"a\": invalid syntax"),
            ("-1 * * * *", "failed to parse int from : strconv.Atoi: parsing \"\": invalid syntax"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("*/-2 * * * *", "negative number (-2) not allowed: -2"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("5-2 * * * *", "beginning of range (5) beyond end of range (2): 5-2"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("@never", "unrecognized descriptor: @never"),
            ("@every x", "failed to parse duration @every x: time: invalid duration \"x\""),
            ("TZ=Moon/Base * * * * *", "provided bad location Moon/Base: unknown time zone Moon/Base"),
        ] {
            assert_eq!(read(bad).unwrap_err(), why, "{bad}");
        }
    }

    #[test]
    fn times_come_in_order() {
        assert_eq!(
            times("30 6-16/4 * * 1-5", "", "2026-01-02T14:31:00Z", 2),
            ["Mon 2026-01-05 06:30:00 +00:00", "Mon 2026-01-05 10:30:00 +00:00"],
        );
        assert_eq!(
            times("0 0 13 * FRI", "", "2026-02-06T00:00:00Z", 3),
            ["Fri 2026-02-13 00:00:00 +00:00", "Fri 2026-02-20 00:00:00 +00:00", "Fri 2026-02-27 00:00:00 +00:00"],
            "one of two days is enough",
        );
        assert_eq!(times("@yearly", "", "2026-01-01T00:00:00Z", 1), ["Fri 2027-01-01 00:00:00 +00:00"]);
        assert_eq!(times("0 0 29 2 *", "", "2025-01-01T00:00:00Z", 1), ["Tue 2028-02-29 00:00:00 +00:00"]);
        assert_eq!(times("@every 1h30m", "", "2026-01-01T00:00:07.9Z", 1), ["Thu 2026-01-01 01:30:07 +00:00"]);
        assert_eq!(times("@every -5m", "", "2026-01-01T00:00:00Z", 1), ["Thu 2026-01-01 00:00:01 +00:00"]);
        assert!(read("59 23 31 2 *").unwrap().next(Timestamp::UNIX_EPOCH).is_none());
    }

    #[test]
    fn clocks_that_are_put_on_and_back() {
        assert_eq!(
            times("30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", 1),
            ["Mon 2026-03-09 02:30:00 -04:00"],
            "half past two is skipped",
        );
        assert_eq!(
            times("30 1 * * *", "America/New_York", "2026-11-01T04:00:00Z", 2),
            ["Sun 2026-11-01 01:30:00 -04:00", "Sun 2026-11-01 01:30:00 -05:00"],
            "half past one comes twice",
        );
        assert_eq!(
            times("0 * * * *", "Australia/Lord_Howe", "2026-10-03T14:30:00Z", 3),
            ["Sun 2026-10-04 03:00:00 +11:00", "Sun 2026-10-04 04:00:00 +11:00", "Sun 2026-10-04 05:00:00 +11:00"],
        );
        assert_eq!(time_zone("Moon/Base").unwrap_err(), "unknown time zone Moon/Base");
    }

    proptest! {
        /// The next time is the first minute that matches.
        #[test]
        fn nothing_is_passed_over(minute in 0..60_u8, hours in 1..6_u8, second in 0..100_000_000_i64) {
            let schedule = read(&format!("{minute} */{hours} * * *")).unwrap();
            let after = Timestamp::from_second(second).unwrap();
            let next = schedule.next(after).unwrap().as_second();
            let first = (second + 1..).find(|at| {
                at % 60 == 0 && at / 60 % 60 == i64::from(minute) && (at / 3600 % 24) % i64::from(hours) == 0
            });
            prop_assert_eq!(Some(next), first);
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[-*/?,0-9a-zA-Z@. ]{0,24}") {
            if let Ok(schedule) = read(&text) {
                let _ = schedule.next(Timestamp::UNIX_EPOCH);
            }
        }
    }
}
