//! Bounds of numbers, in the words of kube-openapi.

use serde_json::{Number, Value};

use super::Structural;
use super::values::{Finding, Run};

/// A number as Go's decoder has it: an integer of 64 bits, or else a float.
#[derive(Clone, Copy)]
pub(super) enum Num {
    Int(i64),
    Float(f64),
}

impl Num {
    pub fn of(number: &Number) -> Num {
        match number.as_i64() {
            Some(int) => Num::Int(int),
            None => Num::Float(number.as_f64().unwrap_or_default()),
        }
    }

    /// `1.0` is an integer in JSON's eyes.
    pub fn is_integer(self) -> bool {
        match self {
            Num::Int(_) => true,
            Num::Float(float) => float.is_finite() && float.fract() == 0.0,
        }
    }

    fn as_f64(self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "compared as upstream compares it")]
            Num::Int(int) => int as f64,
            Num::Float(float) => float,
        }
    }
}

pub(super) fn check(schema: &Structural, number: &Number, path: &str, run: &mut Run) {
    let v = &schema.values;
    let num = Num::of(number);
    // Bounds of a format hold only where the type is certain.
    let ty = if schema.int_or_string { "" } else { schema.ty.as_str() };
    run.general(range(num, ty, &v.format, "Checked", path));
    if let Some(factor) = v.multiple_of {
        run.general(range(Num::Float(factor), ty, &v.format, "MultipleOf", path));
        if factor <= 0.0 {
            let text = format!("factor MultipleOf declared for {path} must be positive: {}", go(factor));
            run.invalid(path, Value::Number(number.clone()), text);
        } else if !is_multiple(num, factor) {
            let text = format!("{path} in body should be a multiple of {}", go(factor));
            run.invalid(path, Value::Number(number.clone()), text);
        }
    }
    if let Some(min) = v.minimum {
        run.general(range(Num::Float(min), ty, &v.format, "Minimum boundary", path));
        let (below, words) = if v.exclusive_minimum {
            (num.as_f64() <= min, "greater than")
        } else {
            (num.as_f64() < min, "greater than or equal to")
        };
        if below {
            let text = format!("{path} in body should be {words} {}", go(min));
            run.invalid(path, Value::Number(number.clone()), text);
        }
    }
    if let Some(max) = v.maximum {
        run.general(range(Num::Float(max), ty, &v.format, "Maximum boundary", path));
        let (above, words) = if v.exclusive_maximum {
            (num.as_f64() >= max, "less than")
        } else {
            (num.as_f64() > max, "less than or equal to")
        };
        if above {
            let text = format!("{path} in body should be {words} {}", go(max));
            run.invalid(path, Value::Number(number.clone()), text);
        }
    }
    run.matches += 1;
}

fn is_multiple(num: Num, factor: f64) -> bool {
    let quotient = if factor < 1.0 { 1.0 / factor * num.as_f64() } else { num.as_f64() / factor };
    Num::Float(quotient).is_integer()
}

/// Whether a number can be of the type and format at all.
fn range(num: Num, ty: &str, format: &str, what: &str, path: &str) -> Option<String> {
    let fits = match (ty, format) {
        ("integer", "int32") => num.is_integer() && (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&num.as_f64()),
        ("integer", _) => match num {
            Num::Int(_) => true,
            // Between the last float below 2^63 and it there is none.
            Num::Float(float) => num.is_integer() && float.abs() < 9_223_372_036_854_775_808.0,
        },
        ("number", "float") => num.as_f64().abs() <= f64::from(f32::MAX),
        _ => true,
    };
    if fits {
        return None;
    }
    let known = matches!((ty, format), ("integer", "int32" | "int64") | ("number", "float" | "double"));
    Some(if known {
        format!("{what} value must be of type {ty} with format {format} in {path}")
    } else {
        format!("{what} value must be of type {ty} (default format) in {path}")
    })
}

/// A float as Go's `%v` writes it.
fn go(float: f64) -> String {
    let exponent = if float == 0.0 { 0.0 } else { float.abs().log10().floor() };
    if (-4.0..21.0).contains(&exponent) {
        return float.to_string();
    }
    let text = format!("{float:e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => {
            let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
            format!("{mantissa}e{sign}{digits:0>2}")
        }
        None => text,
    }
}

impl Run {
    /// A finding that upstream attaches to no field.
    fn general(&mut self, text: Option<String>) {
        if let Some(text) = text {
            self.add(Finding::general(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_go_writes_them() {
        for (float, text) in [(10.0, "10"), (0.5, "0.5"), (1e21, "1e+21"), (1.5e-7, "1.5e-07"), (0.0, "0")] {
            assert_eq!(go(float), text);
        }
    }
}
