//! `intstr.IntOrString`: a number, or a percentage of one.

use serde_json::Value;

/// A value that is neither a number nor a percentage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid value for IntOrString: invalid type: string is not a percentage")]
pub struct NotAPercentage;

/// The number, or that many percent of `total`, rounded up or down (upstream's
/// `GetScaledValueFromIntOrPercent`).
pub fn scaled(value: &Value, total: i64, round_up: bool) -> Result<i64, NotAPercentage> {
    if let Some(number) = value.as_i64() {
        return Ok(number);
    }
    let percent = percent(value).ok_or(NotAPercentage)?;
    let hundredfold = i128::from(percent) * i128::from(total);
    let scaled = if round_up { (hundredfold + 99).div_euclid(100) } else { hundredfold.div_euclid(100) };
    Ok(i64::try_from(scaled).unwrap_or(i64::MAX))
}

/// The same from k8s-openapi's type.
pub fn scaled_of(
    value: &k8s_openapi::apimachinery::pkg::util::intstr::IntOrString,
    total: i64,
    round_up: bool,
) -> Result<i64, NotAPercentage> {
    use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
    match value {
        IntOrString::Int(number) => Ok(i64::from(*number)),
        IntOrString::String(text) => scaled(&Value::from(text.as_str()), total, round_up),
    }
}

/// The number before the `%`.
pub fn percent(value: &Value) -> Option<i64> {
    let digits = value.as_str()?.strip_suffix('%')?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn percentages_round_as_asked() {
        assert_eq!(scaled(&json!("25%"), 3, true), Ok(1));
        assert_eq!(scaled(&json!("25%"), 3, false), Ok(0));
        assert_eq!(scaled(&json!("100%"), 7, false), Ok(7));
        assert_eq!(scaled(&json!(4), 3, true), Ok(4));
        assert_eq!(scaled(&json!("4"), 3, true), Err(NotAPercentage));
        assert_eq!(scaled(&json!("%"), 3, true), Err(NotAPercentage));
    }
}
