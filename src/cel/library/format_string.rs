//! `"%s and %d".format([a, b])`.

use super::{Function, failed, function, list, room_for_text, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::{Key, Value, show};

const PRECISION: usize = 6;
/// More digits than any double has; upstream has no limit here.
const PRECISION_MAX: usize = 1_000;

pub const FUNCTIONS: &[Function] = &[function("format", "string.(list(dyn)) -> string", Cost::FormatString, |args| {
    let items = list(args, 1)?.to_vec()?;
    format(text(args, 0)?, &items).map(Value::string)
})];

fn format(pattern: &str, items: &[Value<'_>]) -> Result<String, EvalError> {
    let mut out = String::new();
    let mut rest = pattern;
    let mut next = 0;
    while let Some(start) = rest.find('%') {
        out.push_str(&rest[..start]);
        rest = &rest[start + 1..];
        if let Some(after) = rest.strip_prefix('%') {
            out.push('%');
            rest = after;
            continue;
        }
        let (precision, after) = precision(rest)?;
        let Some(clause) = after.chars().next() else {
            return failed(if precision.is_some() {
                "could not find end of precision specifier"
            } else {
                "unexpected end of string"
            });
        };
        let Some(value) = items.get(next) else { return failed(format!("index {next} out of range")) };
        next += 1;
        out.push_str(&one(clause, precision, value)?);
        room_for_text(out.len())?;
        rest = &after[clause.len_utf8()..];
    }
    out.push_str(rest);
    Ok(out)
}

fn precision(text: &str) -> Result<(Option<usize>, &str), EvalError> {
    let Some(rest) = text.strip_prefix('.') else { return Ok((None, text)) };
    let end = rest.find(|found: char| !found.is_ascii_digit()).unwrap_or(rest.len());
    let (digits, rest) = rest.split_at(end);
    match digits.parse::<usize>() {
        Ok(precision) if precision > PRECISION_MAX => {
            failed(format!("precision {precision} exceeds maximum allowed precision {PRECISION_MAX}"))
        }
        Ok(precision) => Ok((Some(precision), rest)),
        Err(_) => failed(format!(
            "error while parsing precision: error while converting precision to integer: strconv.Atoi: parsing {digits:?}: invalid syntax"
        )),
    }
}

fn one(clause: char, precision: Option<usize>, value: &Value<'_>) -> Result<String, EvalError> {
    let kind = value.type_name();
    let wants = |what: &str| failed(format!("error during formatting: {what}, was given {kind}"));
    Ok(match (clause, value) {
        ('s', _) => string(value)?,
        ('d', Value::Int(value)) => value.to_string(),
        ('d', Value::Uint(value)) => value.to_string(),
        ('d', _) => return wants("decimal clause can only be used on integers"),
        ('f' | 'e', Value::String(text)) if matches!(&**text, "NaN" | "Infinity" | "-Infinity") => match &**text {
            "Infinity" => "\u{221e}".to_owned(),
            "-Infinity" => "-\u{221e}".to_owned(),
            _ => "NaN".to_owned(),
        },
        ('f', Value::Double(value)) => fixed(*value, precision.unwrap_or(PRECISION)),
        ('f', _) => return wants("fixed-point clause can only be used on doubles"),
        ('e', Value::Double(value)) => scientific(*value, precision.unwrap_or(PRECISION)),
        ('e', _) => return wants("scientific clause can only be used on doubles"),
        ('b', Value::Int(value)) => signed(*value, |magnitude| format!("{magnitude:b}")),
        ('b', Value::Uint(value)) => format!("{value:b}"),
        ('b', Value::Bool(value)) => u8::from(*value).to_string(),
        ('b', _) => return wants("only integers and bools can be formatted as binary"),
        ('x', Value::Int(value)) => signed(*value, |magnitude| format!("{magnitude:x}")),
        ('x', Value::Uint(value)) => format!("{value:x}"),
        ('x', Value::String(text)) => hex(text.as_bytes()),
        ('x', Value::Bytes(bytes)) => hex(bytes),
        ('X', _) => match value {
            Value::Int(_) | Value::Uint(_) | Value::String(_) | Value::Bytes(_) => {
                one('x', precision, value)?.to_ascii_uppercase()
            }
            _ => return wants("only integers, byte buffers, and strings can be formatted as hex"),
        },
        ('x', _) => return wants("only integers, byte buffers, and strings can be formatted as hex"),
        ('o', Value::Int(value)) => signed(*value, |magnitude| format!("{magnitude:o}")),
        ('o', Value::Uint(value)) => format!("{value:o}"),
        ('o', _) => return wants("octal clause can only be used on integers"),
        (unknown, _) => {
            return failed(format!("could not parse formatting clause: unrecognized formatting clause \"{unknown}\""));
        }
    })
}

fn signed(value: i64, digits: impl Fn(u64) -> String) -> String {
    format!("{}{}", if value < 0 { "-" } else { "" }, digits(value.unsigned_abs()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// With commas between thousands, as upstream's English printer has them.
fn fixed(value: f64, precision: usize) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "NaN".to_owned()
        } else if value > 0.0 {
            "\u{221e}".to_owned()
        } else {
            "-\u{221e}".to_owned()
        };
    }
    let shown = format!("{value:.precision$}");
    let (sign, digits) = shown.strip_prefix('-').map_or(("", shown.as_str()), |digits| ("-", digits));
    let (whole, fraction) = digits.split_once('.').map_or((digits, None), |(whole, rest)| (whole, Some(rest)));
    let mut grouped = String::from(sign);
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if let Some(fraction) = fraction {
        grouped.push('.');
        grouped.push_str(fraction);
    }
    grouped
}

/// As upstream's English printer writes it: `1.5\u{202f}×\u{202f}10⁰³`.
fn scientific(value: f64, precision: usize) -> String {
    const RAISED: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    if !value.is_finite() {
        return fixed(value, precision);
    }
    let shown = format!("{value:.precision$e}");
    let Some((digits, exponent)) = shown.split_once('e') else { return shown };
    let (sign, magnitude) = exponent.strip_prefix('-').map_or(("", exponent), |rest| ("⁻", rest));
    let magnitude = format!("{magnitude:0>2}");
    let raised: String =
        magnitude.chars().filter_map(|digit| digit.to_digit(10).and_then(|digit| RAISED.get(digit as usize))).collect();
    format!("{digits}\u{202f}×\u{202f}10{sign}{raised}")
}

fn string(value: &Value<'_>) -> Result<String, EvalError> {
    match value {
        Value::List(_) | Value::Map(_) => inner(value),
        Value::Null
        | Value::Bool(_)
        | Value::Int(_)
        | Value::Uint(_)
        | Value::Double(_)
        | Value::String(_)
        | Value::Bytes(_)
        | Value::Timestamp(_)
        | Value::Duration(_)
        | Value::Type(_) => Ok(show::plain(value)),
        other => failed(format!(
            "error during formatting: string clause can only be used on strings, bools, bytes, ints, doubles, maps, lists, types, durations, and timestamps, was given {}",
            other.type_name()
        )),
    }
}

/// Within a list or map: strings in quotes, keys in order.
fn inner(value: &Value<'_>) -> Result<String, EvalError> {
    Ok(match value {
        Value::List(list) => {
            let mut shown = Vec::new();
            for item in list.iter() {
                shown.push(inner(&item?)?);
            }
            format!("[{}]", shown.join(", "))
        }
        Value::Map(map) => {
            let mut keys: Vec<(String, Key<'_>)> = map
                .keys()
                .into_iter()
                .map(|key| inner(&key.value()).map(|shown| (shown, key)))
                .collect::<Result<_, _>>()?;
            keys.sort_by(|a, b| a.0.cmp(&b.0));
            let mut shown = Vec::new();
            for (name, key) in &keys {
                if let Some(value) = map.get(key) {
                    shown.push(format!("{name}: {}", inner(&value?)?));
                }
            }
            format!("{{{}}}", shown.join(", "))
        }
        Value::String(text) => format!("{:?}", &**text),
        Value::Bytes(_) => format!("b{:?}", show::plain(value)),
        Value::Double(value) if value.is_finite() => format!("{value:.PRECISION$}"),
        Value::Double(_) => format!("{:?}", show::plain(value)),
        Value::Timestamp(_) => format!("timestamp({:?})", show::plain(value)),
        Value::Duration(_) => format!("duration({:?})", show::plain(value)),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::Uint(_) | Value::Type(_) => show::plain(value),
        other => return failed(format!("no formatting function for {}", other.type_name())),
    })
}
