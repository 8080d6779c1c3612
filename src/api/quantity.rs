//! `resource.Quantity`: exact amounts such as `100m`, `1.5Gi` or `2e3`, kept in billionths.
//!
//! As upstream, amounts are at most 2^63-1 in either direction (more is capped) and a fraction below a billionth is
//! rounded away from zero. [`fmt::Display`] gives the canonical form: no fraction, and the largest suffix that needs
//! none.

use std::{
    cmp::Ordering,
    fmt,
    ops::{Add, AddAssign, Neg, Sub, SubAssign},
    str::FromStr,
};

use serde_json::Value;

const NANOS: i128 = 1_000_000_000;
const UNITS_MAX: i128 = i64::MAX as i128;
/// No more digits than an `i128` surely holds.
const DIGITS_MAX: usize = 37;
const FRACTION_DIGITS_MAX: usize = 18;

/// Which suffixes the canonical form has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Form {
    /// `m`, `k`, `M`, ...
    #[default]
    Decimal,
    /// `Ki`, `Mi`, ...
    Binary,
    /// `e3`, `e6`, ...
    Exponent,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Quantity {
    nanos: i128,
    form: Form,
}

/// The two complaints that upstream has, with its texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Form,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    pub const ZERO: Quantity = Quantity { nanos: 0, form: Form::Decimal };

    pub fn units(units: i64, form: Form) -> Quantity {
        Quantity { nanos: i128::from(units) * NANOS, form }
    }

    pub fn millis(millis: i64) -> Quantity {
        Quantity { nanos: i128::from(millis) * 1_000_000, form: Form::Decimal }
    }

    pub fn bytes(bytes: i64) -> Quantity {
        Quantity::units(bytes, Form::Binary)
    }

    /// From JSON: a string, or a bare number as YAML authors write it.
    pub fn from_value(value: &Value) -> Result<Quantity, QuantityError> {
        match value {
            Value::String(text) => text.parse(),
            Value::Number(number) => number.to_string().parse(),
            _ => Err(QuantityError::Form),
        }
    }

    /// From k8s-openapi's type; what cannot be read counts as nothing.
    pub fn of(quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Quantity {
        quantity.0.parse().unwrap_or_default()
    }

    pub fn form(self) -> Form {
        self.form
    }

    pub fn is_zero(self) -> bool {
        self.nanos == 0
    }

    pub fn is_negative(self) -> bool {
        self.nanos < 0
    }

    /// Whole units, rounded up as upstream's `Value`.
    pub fn value(self) -> i64 {
        saturate(ceil_div(self.nanos, NANOS))
    }

    /// Thousandths, rounded up as upstream's `MilliValue`.
    pub fn milli_value(self) -> i64 {
        saturate(ceil_div(self.nanos, 1_000_000))
    }

    /// Nothing finer than a thousandth, rounded up.
    pub fn round_up_to_milli(self) -> Quantity {
        Quantity { nanos: ceil_div(self.nanos, 1_000_000) * 1_000_000, form: self.form }
    }

    /// A whole number of units.
    pub fn is_whole(self) -> bool {
        self.nanos % NANOS == 0
    }

    pub fn as_f64(self) -> f64 {
        self.nanos as f64 / NANOS as f64
    }

    fn capped(nanos: i128, form: Form) -> Quantity {
        Quantity { nanos: nanos.clamp(-UNITS_MAX * NANOS, UNITS_MAX * NANOS), form }
    }
}

fn saturate(number: i128) -> i64 {
    i64::try_from(number).unwrap_or(if number < 0 { i64::MIN } else { i64::MAX })
}

fn ceil_div(number: i128, by: i128) -> i128 {
    let whole = number / by;
    if number % by > 0 { whole + 1 } else { whole }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Quantity) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Quantity) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Quantity) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Quantity;

    /// The form is the left one's, unless that is zero.
    fn add(self, other: Quantity) -> Quantity {
        let form = if self.is_zero() { other.form } else { self.form };
        Quantity::capped(self.nanos + other.nanos, form)
    }
}

impl Sub for Quantity {
    type Output = Quantity;

    fn sub(self, other: Quantity) -> Quantity {
        let form = if self.is_zero() { other.form } else { self.form };
        Quantity::capped(self.nanos - other.nanos, form)
    }
}

impl Neg for Quantity {
    type Output = Quantity;

    fn neg(self) -> Quantity {
        Quantity { nanos: -self.nanos, form: self.form }
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Quantity) {
        *self = *self + other;
    }
}

impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Quantity) {
        *self = *self - other;
    }
}

enum Suffix {
    /// A power of ten.
    Ten(i32),
    /// A power of two.
    Two(u32),
}

fn suffix(text: &str) -> Result<(Suffix, Form), QuantityError> {
    let known = match text {
        "n" => (Suffix::Ten(-9), Form::Decimal),
        "u" => (Suffix::Ten(-6), Form::Decimal),
        "m" => (Suffix::Ten(-3), Form::Decimal),
        "" => (Suffix::Ten(0), Form::Decimal),
        "k" => (Suffix::Ten(3), Form::Decimal),
        "M" => (Suffix::Ten(6), Form::Decimal),
        "G" => (Suffix::Ten(9), Form::Decimal),
        "T" => (Suffix::Ten(12), Form::Decimal),
        "P" => (Suffix::Ten(15), Form::Decimal),
        "E" => (Suffix::Ten(18), Form::Decimal),
        "Ki" => (Suffix::Two(10), Form::Binary),
        "Mi" => (Suffix::Two(20), Form::Binary),
        "Gi" => (Suffix::Two(30), Form::Binary),
        "Ti" => (Suffix::Two(40), Form::Binary),
        "Pi" => (Suffix::Two(50), Form::Binary),
        "Ei" => (Suffix::Two(60), Form::Binary),
        _ => {
            let exponent = text.strip_prefix(['e', 'E']).ok_or(QuantityError::Suffix)?;
            (Suffix::Ten(exponent.parse().map_err(|_| QuantityError::Suffix)?), Form::Exponent)
        }
    };
    Ok(known)
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Quantity, QuantityError> {
        let negative = text.starts_with('-');
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, rest) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
            return Err(QuantityError::Form);
        }
        if !rest.bytes().all(|byte| byte.is_ascii_digit() || b"eEinumkKMGTP+-".contains(&byte)) {
            return Err(QuantityError::Form);
        }
        let (suffix, form) = suffix(rest)?;
        let whole = whole.trim_start_matches('0');
        let fraction = fraction.trim_end_matches('0');
        let nanos = match suffix {
            Suffix::Ten(exponent) => decimal_nanos(whole, fraction, exponent),
            Suffix::Two(exponent) => binary_nanos(whole, fraction, exponent),
        };
        Ok(Quantity::capped(if negative { -nanos } else { nanos }, form))
    }
}

fn number(digits: &str) -> i128 {
    digits.bytes().fold(0, |sum, digit| sum * 10 + i128::from(digit.wrapping_sub(b'0')))
}

/// Far beyond the cap, so that capping is what remains of it.
const TOO_MUCH: i128 = i128::MAX / 2;

fn decimal_nanos(whole: &str, fraction: &str, exponent: i32) -> i128 {
    let digits = whole.bytes().chain(fraction.bytes()).skip_while(|&digit| digit == b'0');
    let count = digits.clone().count();
    if count == 0 {
        return 0;
    }
    let shift = 9 + i64::from(exponent) - fraction.len() as i64;
    let length = count as i64 + shift;
    if length > DIGITS_MAX as i64 {
        return TOO_MUCH;
    }
    let number = |digits: &mut dyn Iterator<Item = u8>| {
        digits.fold(0, |sum: i128, digit| sum * 10 + i128::from(digit.wrapping_sub(b'0')))
    };
    if shift >= 0 {
        return number(&mut digits.clone()) * 10_i128.pow(u32::try_from(shift).unwrap_or_default());
    }
    // Some digits are finer than a billionth: whatever they say, it is more than nothing.
    let kept = usize::try_from(length.max(0)).unwrap_or_default();
    let lost = digits.clone().skip(kept).any(|digit| digit != b'0') || length < 0;
    number(&mut digits.take(kept)) + i128::from(lost)
}

fn binary_nanos(whole: &str, fraction: &str, exponent: u32) -> i128 {
    let factor = 1_i128 << exponent;
    if whole.len() > FRACTION_DIGITS_MAX + 1 {
        return TOO_MUCH;
    }
    let units = number(whole) * factor;
    if units > UNITS_MAX {
        return TOO_MUCH;
    }
    let kept = fraction.len().min(FRACTION_DIGITS_MAX);
    let lost = fraction.len() > kept;
    let scale = 10_i128.pow(kept as u32);
    let parts = number(&fraction[..kept]) * factor;
    let rest = parts % scale * NANOS;
    let round = i128::from(rest % scale != 0 || lost);
    (units + parts / scale) * NANOS + rest / scale + round
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return f.write_str("0");
        }
        let units = self.nanos / NANOS;
        if self.form == Form::Binary && self.is_whole() && units.abs() >= 1024 {
            let mut mantissa = units;
            let mut suffixes = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].into_iter();
            let mut suffix = suffixes.next().unwrap_or_default();
            while mantissa % 1024 == 0 {
                let Some(next) = suffixes.next() else { break };
                suffix = next;
                mantissa /= 1024;
            }
            return write!(f, "{mantissa}{suffix}");
        }
        let mut mantissa = self.nanos;
        let mut exponent = -9;
        while mantissa % 1000 == 0 {
            mantissa /= 1000;
            exponent += 3;
        }
        if self.form == Form::Exponent {
            return if exponent == 0 { write!(f, "{mantissa}") } else { write!(f, "{mantissa}e{exponent}") };
        }
        let suffix = match exponent {
            -9 => "n",
            -6 => "u",
            -3 => "m",
            3 => "k",
            6 => "M",
            9 => "G",
            12 => "T",
            15 => "P",
            18 => "E",
            _ => "",
        };
        write!(f, "{mantissa}{suffix}")
    }
}

impl From<Quantity> for Value {
    fn from(quantity: Quantity) -> Value {
        Value::String(quantity.to_string())
    }
}

impl From<Quantity> for k8s_openapi::apimachinery::pkg::api::resource::Quantity {
    fn from(quantity: Quantity) -> Self {
        Self(quantity.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Quantity>().unwrap().to_string()
    }

    #[test]
    fn canonical_forms_are_upstreams() {
        for (text, expected) in [
            ("0", "0"),
            ("0Ki", "0"),
            ("1000m", "1"),
            ("100m", "100m"),
            ("1500m", "1500m"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("+1", "1"),
            ("-1", "-1"),
            ("1024", "1024"),
            ("1024Ki", "1Mi"),
            ("0.5Gi", "512Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("100Ki", "100Ki"),
            ("1e3", "1e3"),
            ("1E3", "1e3"),
            ("12e2", "1200"),
            ("1E", "1E"),
            ("1000000", "1M"),
            ("1234567", "1234567"),
            ("0.1n", "1n"),
            ("0.0000000001", "1n"),
            ("1.0000000001Ki", "1024000000103n"),
            ("9223372036854775808", "9223372036854775807"),
            ("100E", "9223372036854775807"),
            ("8Ei", "9223372036854775807"),
            ("-100E", "-9223372036854775807"),
            ("1e-9", "1e-9"),
            ("1e400", "9223372036854775807"),
            ("00000000000000000000000000000000000000000000001", "1"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "a", "1..2", "1.2.3", "--1", "1 Gi", " 1", "1Gi ", "."] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
        assert_eq!("1KI".parse::<Quantity>().unwrap_err(), QuantityError::Form);
        assert_eq!("1K".parse::<Quantity>().unwrap_err(), QuantityError::Suffix);
        assert_eq!("1e".parse::<Quantity>().unwrap_err(), QuantityError::Suffix);
    }

    #[test]
    fn values_round_up() {
        let quantity: Quantity = "1500m".parse().unwrap();
        assert_eq!((quantity.value(), quantity.milli_value()), (2, 1500));
        let quantity: Quantity = "1.1m".parse().unwrap();
        assert_eq!(quantity.milli_value(), 2);
        let sum = "1Gi".parse::<Quantity>().unwrap() + "512Mi".parse().unwrap();
        assert_eq!(sum.to_string(), "1536Mi");
        assert_eq!((Quantity::ZERO - "1Gi".parse().unwrap()).to_string(), "-1Gi");
    }

    proptest! {
        #[test]
        fn the_canonical_form_is_stable(text in "[+-]?[0-9]{1,40}(\\.[0-9]{0,40})?(n|u|m||k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e[0-9]{1,3})") {
            let quantity: Quantity = text.parse().unwrap();
            let again: Quantity = quantity.to_string().parse().unwrap();
            prop_assert_eq!(quantity, again);
            prop_assert_eq!(quantity.to_string(), again.to_string());
        }

        #[test]
        fn nothing_panics(text in "\\PC{0,60}") {
            let _ = text.parse::<Quantity>();
        }
    }
}
