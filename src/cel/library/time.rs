//! Timestamps and durations: reading, showing, arithmetic, parts of dates.

use super::{Function, bad, failed, function};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::{Date, Timestamp, Value};

pub const DURATION_OVERFLOW: &str = "duration overflow";
const TIMESTAMP_OVERFLOW: &str = "timestamp overflow";

const PART: &str = "timestamp.() -> int; timestamp.(string) -> int";
const PART_OR_DURATION: &str = "timestamp.() -> int; timestamp.(string) -> int; duration.() -> int";

pub const FUNCTIONS: &[Function] = &[
    function("getFullYear", PART, Cost::One, |args| part(args, |at| at.year)),
    function("getMonth", PART, Cost::One, |args| part(args, |at| at.month - 1)),
    function("getDayOfYear", PART, Cost::One, |args| part(args, |at| at.day_of_year)),
    function("getDayOfMonth", PART, Cost::One, |args| part(args, |at| at.day - 1)),
    function("getDate", PART, Cost::One, |args| part(args, |at| at.day)),
    function("getDayOfWeek", PART, Cost::One, |args| part(args, |at| at.weekday)),
    function("getHours", PART_OR_DURATION, Cost::One, |args| match args {
        [Value::Duration(nanos)] => Ok(Value::Int(nanos / 3_600_000_000_000)),
        _ => part(args, |at| at.hour),
    }),
    function("getMinutes", PART_OR_DURATION, Cost::One, |args| match args {
        [Value::Duration(nanos)] => Ok(Value::Int(nanos / 60_000_000_000)),
        _ => part(args, |at| at.minute),
    }),
    function("getSeconds", PART_OR_DURATION, Cost::One, |args| match args {
        [Value::Duration(nanos)] => Ok(Value::Int(nanos / 1_000_000_000)),
        _ => part(args, |at| at.second),
    }),
    function("getMilliseconds", PART_OR_DURATION, Cost::One, |args| match args {
        [Value::Duration(nanos)] => Ok(Value::Int(nanos / 1_000_000)),
        _ => part(args, |at| at.nanos / 1_000_000),
    }),
];

fn part<'a>(args: &[Value<'a>], of: fn(Date) -> i64) -> Result<Value<'a>, EvalError> {
    let (at, zone) = match args {
        [Value::Timestamp(at)] => (at, 0),
        [Value::Timestamp(at), Value::String(zone)] => (at, offset_seconds(zone, at)?),
        _ => return bad(),
    };
    Ok(Value::Int(of(at.date(zone))))
}

/// How far a zone is ahead of UTC at a moment: a name of the time zone database, or an offset such as `-08:00`.
fn offset_seconds(name: &str, at: &Timestamp) -> Result<i64, EvalError> {
    let Some((hours, minutes)) = name.split_once(':') else { return named_offset_seconds(name, at) };
    let number = |text: &str| -> Result<i64, EvalError> {
        let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
        if digits.is_empty() || digits.len() > 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return failed(format!("strconv.Atoi: parsing {text:?}: invalid syntax"));
        }
        text.parse().map_err(|_| EvalError::failed(format!("strconv.Atoi: parsing {text:?}: invalid syntax")))
    };
    let (hour, minute) = (number(hours)?, number(minutes)?);
    if !(0..60).contains(&minute) {
        return failed(format!("timezone offset minutes out of range [0, 59]: {name}"));
    }
    let sign = if hours.starts_with('-') { -1 } else { 1 };
    Ok(sign * (hour.abs() * 3600 + minute * 60))
}

/// The same of a name alone (upstream: Go's `LoadLocation`). The database is compiled in.
fn named_offset_seconds(name: &str, at: &Timestamp) -> Result<i64, EvalError> {
    if matches!(name, "" | "UTC") {
        return Ok(0);
    }
    if name.contains("..") || name.starts_with(['/', '\\']) {
        return failed("time: invalid location name");
    }
    let unknown = || EvalError::failed(format!("unknown time zone {name}"));
    let zone = jiff::tz::db().get(name).map_err(|_| unknown())?;
    // Names are what they are, in whichever letters others might take them.
    if zone.iana_name() != Some(name) {
        return Err(unknown());
    }
    // The last hours of the year 9999 are as those before.
    let at = jiff::Timestamp::from_second(at.seconds()).unwrap_or(jiff::Timestamp::MAX);
    Ok(i64::from(zone.to_offset(at).seconds()))
}

fn in_range(at: Option<Timestamp>) -> Result<Timestamp, EvalError> {
    at.ok_or_else(|| EvalError::failed(TIMESTAMP_OVERFLOW))
}

pub fn from_seconds(seconds: i64) -> Result<Timestamp, EvalError> {
    in_range(Timestamp::from_seconds(seconds))
}

pub fn shift(at: &Timestamp, nanos: i128) -> Result<Timestamp, EvalError> {
    in_range(Timestamp::from_nanos(at.nanos() + nanos))
}

/// `a - b` in nanoseconds.
pub fn between(a: &Timestamp, b: &Timestamp) -> Result<i64, EvalError> {
    i64::try_from(a.nanos() - b.nanos()).map_err(|_| EvalError::failed(DURATION_OVERFLOW))
}

/// RFC 3339 to the letter.
pub fn timestamp(text: &str) -> Result<Timestamp, EvalError> {
    let complaint = || EvalError::failed(format!("parsing time {text:?}: cannot parse as RFC 3339"));
    let bytes = text.as_bytes();
    let formed = bytes.len() >= 20
        && bytes.iter().enumerate().take(19).all(|(index, byte)| match index {
            4 | 7 => *byte == b'-',
            10 => *byte == b'T',
            13 | 16 => *byte == b':',
            _ => byte.is_ascii_digit(),
        });
    let zone = bytes.get(19..).map(|rest| match rest.iter().position(|byte| !matches!(byte, b'.' | b'0'..=b'9')) {
        Some(index) => rest.get(index..).unwrap_or_default(),
        None => &[],
    });
    let zoned = match zone {
        Some([b'Z']) => true,
        Some([b'+' | b'-', a, b, b':', c, d]) => [a, b, c, d].iter().all(|byte| byte.is_ascii_digit()),
        _ => false,
    };
    if !formed || !zoned {
        return Err(complaint());
    }
    read(text).ok_or_else(complaint)
}

/// Reads what is known to have the form.
fn read(text: &str) -> Option<Timestamp> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let rest = text.get(19..)?;
    let (fraction, zone) = rest.split_at(rest.find(['Z', '+', '-'])?);
    let nanos = match fraction.strip_prefix('.') {
        Some(digits) if !digits.is_empty() => format!("{digits:0<9}").get(..9)?.parse().ok()?,
        Some(_) => return None,
        None => 0,
    };
    let date = Date {
        year: number(0..4)?,
        month: number(5..7)?,
        day: number(8..10)?,
        day_of_year: 0,
        weekday: 0,
        hour: number(11..13)?,
        minute: number(14..16)?,
        second: number(17..19)?,
        nanos,
    };
    let offset = match zone.as_bytes() {
        [b'Z'] => 0,
        [sign, ..] => {
            let (hours, minutes) = (zone.get(1..3)?.parse::<i64>().ok()?, zone.get(4..6)?.parse::<i64>().ok()?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        [] => return None,
    };
    Timestamp::from_date(&date, offset)
}

/// What `format: date-time` and `format: date` hold.
pub fn timestamp_or_date(text: &str) -> Result<Timestamp, EvalError> {
    if text.len() == 10 { timestamp(&format!("{text}T00:00:00Z")) } else { timestamp(text) }
}

pub fn show_timestamp(at: &Timestamp) -> String {
    at.to_string()
}

/// A duration as `string()` shows it: seconds.
pub fn show_seconds(nanos: i64) -> String {
    let (whole, rest) = (nanos.unsigned_abs() / 1_000_000_000, nanos.unsigned_abs() % 1_000_000_000);
    let sign = if nanos < 0 { "-" } else { "" };
    let fraction = format!("{rest:09}");
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { format!("{sign}{whole}s") } else { format!("{sign}{whole}.{fraction}s") }
}

/// Go's form: `1h30m`, `-1.5s`, `300ms`; in nanoseconds.
pub fn duration(text: &str) -> Result<i64, String> {
    let invalid = || format!("time: invalid duration {text:?}");
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let whole_end = rest.find(|found: char| !found.is_ascii_digit()).unwrap_or(rest.len());
        let (whole, tail) = rest.split_at(whole_end);
        let (fraction, tail) = match tail.strip_prefix('.') {
            Some(tail) => tail.split_at(tail.find(|found: char| !found.is_ascii_digit()).unwrap_or(tail.len())),
            None => ("", tail),
        };
        if (whole.is_empty() && fraction.is_empty()) || whole.len() > 19 {
            return Err(invalid());
        }
        let unit_end = tail.find(|found: char| found == '.' || found.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, after) = tail.split_at(unit_end);
        let nanos: i128 = match unit {
            "ns" => 1,
            "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "" => return Err(format!("time: missing unit in duration {text:?}")),
            unknown => return Err(format!("time: unknown unit {unknown:?} in duration {text:?}")),
        };
        total += whole.parse::<i128>().unwrap_or(0) * nanos;
        let mut scale = nanos;
        for digit in fraction.bytes().take(18) {
            scale /= 10;
            total += i128::from(digit - b'0') * scale;
        }
        if total > i128::from(i64::MAX) + i128::from(negative) {
            return Err(invalid());
        }
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).map_err(|_| invalid())
}
