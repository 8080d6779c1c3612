//! Quantities such as `100m` and `1.5Gi`, in billionths.

use std::cmp::Ordering;
use std::fmt;

use super::{Function, bad, failed, function, library, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::{Library, Value};

const NANOS: i128 = 1_000_000_000;
const UNITS_MAX: i128 = i64::MAX as i128;
/// No more digits than an `i128` surely holds.
const DIGITS_MAX: usize = 28;
const BOTH: &str = "kubernetes.Quantity.(kubernetes.Quantity) -> bool";
const CALCULATED: &str = "kubernetes.Quantity.(kubernetes.Quantity) -> kubernetes.Quantity; \
                          kubernetes.Quantity.(int) -> kubernetes.Quantity";

pub const FUNCTIONS: &[Function] = &[
    function("quantity", "(string) -> kubernetes.Quantity", Cost::Text, |args| {
        Ok(Value::Library(Library::Quantity(Quantity::parse(text(args, 0)?).map_err(EvalError::failed)?)))
    }),
    function("isQuantity", "(string) -> bool", Cost::Text, |args| {
        Ok(Value::Bool(Quantity::parse(text(args, 0)?).is_ok()))
    }),
    function("sign", "(kubernetes.Quantity) -> int", Cost::One, |args| {
        Ok(Value::Int(quantity(args, 0)?.nanos.signum() as i64))
    }),
    function("isGreaterThan", BOTH, Cost::One, |args| Ok(Value::Bool(order(args)? == Ordering::Greater))),
    function("isLessThan", BOTH, Cost::One, |args| Ok(Value::Bool(order(args)? == Ordering::Less))),
    function("compareTo", "kubernetes.Quantity.(kubernetes.Quantity) -> int", Cost::One, |args| {
        Ok(Value::Int(order(args)? as i64))
    }),
    function("asApproximateFloat", "kubernetes.Quantity.() -> double", Cost::One, |args| {
        Ok(Value::Double(quantity(args, 0)?.nanos as f64 / NANOS as f64))
    }),
    function("asInteger", "kubernetes.Quantity.() -> int", Cost::One, |args| match quantity(args, 0)?.whole() {
        Some(value) => Ok(Value::Int(value)),
        None => failed("cannot convert value to integer"),
    }),
    function("isInteger", "kubernetes.Quantity.() -> bool", Cost::One, |args| {
        Ok(Value::Bool(quantity(args, 0)?.whole().is_some()))
    }),
    function("add", CALCULATED, Cost::One, |args| calculate(args, 1)),
    function("sub", CALCULATED, Cost::One, |args| calculate(args, -1)),
];

fn quantity(args: &[Value<'_>], index: usize) -> Result<Quantity, EvalError> {
    match library(args, index)? {
        Library::Quantity(quantity) => Ok(*quantity),
        _ => bad(),
    }
}

fn order(args: &[Value<'_>]) -> Result<Ordering, EvalError> {
    Ok(quantity(args, 0)?.nanos.cmp(&quantity(args, 1)?.nanos))
}

fn calculate<'a>(args: &[Value<'a>], sign: i128) -> Result<Value<'a>, EvalError> {
    let Quantity { nanos, form } = quantity(args, 0)?;
    let other = match args.get(1) {
        Some(Value::Int(units)) => i128::from(*units) * NANOS,
        _ => quantity(args, 1)?.nanos,
    };
    let nanos = (nanos + sign * other).clamp(-UNITS_MAX * NANOS, UNITS_MAX * NANOS);
    Ok(Value::Library(Library::Quantity(Quantity { nanos, form })))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Decimal,
    Binary,
    Exponent,
}

#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    form: Form,
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}

const FORM: &str = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const SUFFIX: &str = "unable to parse quantity's suffix";

impl Quantity {
    /// The error is upstream's text. More than 2^63-1 is capped, less than a billionth rounds away from zero.
    fn parse(text: &str) -> Result<Quantity, &'static str> {
        if text.is_empty() {
            return Err(FORM);
        }
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = unsigned.find(|found: char| !found.is_ascii_digit() && found != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
            return Err(FORM);
        }
        let (base, exponent, form) = scale(suffix)?;
        let whole = whole.trim_start_matches('0');
        let digits = format!("{whole}{fraction}");
        let mut digits = digits.as_str();
        let mut scale = exponent - i32::try_from(fraction.len()).unwrap_or(i32::MAX / 2);
        if base == 2 {
            scale = -i32::try_from(fraction.len()).unwrap_or(i32::MAX / 2);
        }
        let mut rest = false;
        if digits.len() > DIGITS_MAX {
            // More than anything can be, or finer than counts.
            if whole.len() > DIGITS_MAX {
                return Ok(Quantity { nanos: if negative { -1 } else { 1 } * UNITS_MAX * NANOS, form });
            }
            rest = digits[DIGITS_MAX..].bytes().any(|digit| digit != b'0');
            scale += i32::try_from(digits.len() - DIGITS_MAX).unwrap_or(i32::MAX / 2);
            digits = &digits[..DIGITS_MAX];
        }
        let value: i128 = digits.parse().unwrap_or(0);
        let mut factor = 9 + scale;
        let mut nanos = value;
        if base == 2 {
            nanos = nanos.saturating_mul(1i128 << exponent);
        }
        while factor > 0 && nanos != 0 {
            nanos = nanos.saturating_mul(10);
            factor -= 1;
        }
        while factor < 0 && (nanos != 0 || rest) {
            rest = rest || nanos % 10 != 0;
            nanos /= 10;
            factor += 1;
            if nanos == 0 {
                break;
            }
        }
        if rest {
            nanos = nanos.saturating_add(1);
        }
        let nanos = nanos.min(UNITS_MAX * NANOS);
        Ok(Quantity { nanos: if negative { -nanos } else { nanos }, form })
    }

    fn whole(self) -> Option<i64> {
        if self.nanos % NANOS != 0 {
            return None;
        }
        i64::try_from(self.nanos / NANOS).ok()
    }
}

/// Base, exponent and form that a suffix stands for.
fn scale(suffix: &str) -> Result<(u32, i32, Form), &'static str> {
    Ok(match suffix {
        "" => (10, 0, Form::Decimal),
        "n" => (10, -9, Form::Decimal),
        "u" => (10, -6, Form::Decimal),
        "m" => (10, -3, Form::Decimal),
        "k" => (10, 3, Form::Decimal),
        "M" => (10, 6, Form::Decimal),
        "G" => (10, 9, Form::Decimal),
        "T" => (10, 12, Form::Decimal),
        "P" => (10, 15, Form::Decimal),
        "E" => (10, 18, Form::Decimal),
        "Ki" => (2, 10, Form::Binary),
        "Mi" => (2, 20, Form::Binary),
        "Gi" => (2, 30, Form::Binary),
        "Ti" => (2, 40, Form::Binary),
        "Pi" => (2, 50, Form::Binary),
        "Ei" => (2, 60, Form::Binary),
        other => {
            let exponent = other.strip_prefix(['e', 'E']).ok_or_else(|| unknown(other))?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || digits.len() > 4 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(SUFFIX);
            }
            (10, exponent.parse().map_err(|_| SUFFIX)?, Form::Exponent)
        }
    })
}

fn unknown(suffix: &str) -> &'static str {
    let letters = suffix.trim_start_matches(|found: char| "eEinumkKMGTP".contains(found));
    let digits = letters.strip_prefix(['+', '-']).unwrap_or(letters);
    if digits.bytes().all(|byte| byte.is_ascii_digit()) { SUFFIX } else { FORM }
}

/// The canonical form: no fraction, and the largest suffix that needs none.
impl fmt::Display for Quantity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Quantity { nanos, form } = *self;
        if nanos == 0 {
            return out.write_str("0");
        }
        if form == Form::Binary && nanos % NANOS == 0 && nanos.abs() >= 1024 * NANOS {
            let mut units = nanos / NANOS;
            let mut step = 0;
            while units % 1024 == 0 && step < 6 {
                units /= 1024;
                step += 1;
            }
            return write!(out, "{units}{}", ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][step]);
        }
        let (mut value, mut exponent) = (nanos, -9);
        while value % 1000 == 0 && exponent < 18 {
            value /= 1000;
            exponent += 3;
        }
        let suffixes = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        match form {
            Form::Exponent if exponent != 0 => write!(out, "{value}e{exponent}"),
            _ => write!(out, "{value}{}", suffixes[usize::try_from((exponent + 9) / 3).unwrap_or(3)]),
        }
    }
}
