//! How much a device has, and in which portions more than one claim may take of it (KEP-5075).

use serde_json::Value;

use super::{Check, claims::at_most};
use crate::{fields::Fields, path::Path, quantity::Quantity};

const OPTIONS_MAX: usize = 10;

/// `shared`: more than one claim may have the device.
pub(crate) fn capacity(check: &mut Check<'_>, capacity: &Value, shared: bool, path: &Path<'_>) {
    let Some(policy) = capacity.at("requestPolicy") else { return };
    let path = path.field("requestPolicy");
    if !shared {
        return check.forbidden(&path, "allowMultipleAllocations must be true");
    }
    let (options, range) = (policy.list("validValues"), policy.at("validRange"));
    if !options.is_empty() && range.is_some() {
        let text =
            "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time";
        return check.forbidden(&path, text);
    }
    let Some(most) = amount(capacity, "value") else { return };
    let named = if range.is_some() { "validRange" } else { "validValues" };
    if options.is_empty() && range.is_none() {
        return;
    }
    let Some(default) = amount(policy, "default") else {
        return check.required(&path.field("default"), &format!("required when {named} is defined"));
    };
    match range {
        Some(range) => within(check, range, default, most, &path.field(named)),
        None => one_of(check, options, default, most, &path.field(named)),
    }
}

fn amount(holder: &Value, name: &str) -> Option<Quantity> {
    holder.at(name).and_then(|value| Quantity::from_value(value).ok())
}

fn one_of(check: &mut Check<'_>, options: &[Value], default: Quantity, most: Quantity, path: &Path<'_>) {
    let amounts: Vec<Quantity> = options.iter().filter_map(|option| Quantity::from_value(option).ok()).collect();
    for (index, pair) in amounts.windows(2).enumerate() {
        if let [one, next] = pair
            && one > next
        {
            check.invalid(&path.index(index + 1), &next.to_string().into(), "values must be sorted in ascending order");
        }
    }
    if amounts.len() > OPTIONS_MAX {
        at_most(check, amounts.len(), OPTIONS_MAX, path);
    } else {
        for (index, option) in amounts.iter().enumerate().filter(|(_, option)| **option > most) {
            let text = format!("option is larger than capacity value: {most}");
            check.invalid(&path.index(index), &option.to_string().into(), &text);
        }
        for (index, option) in amounts.iter().enumerate() {
            if amounts.iter().take(index).any(|before| before == option) {
                check.duplicate(&path.index(index), &option.to_string().into());
            }
        }
    }
    if amounts.len() > OPTIONS_MAX || !amounts.contains(&default) {
        let text = "default value is not valid according to the requestPolicy";
        check.invalid(path, &default.to_string().into(), text);
    }
}

fn within(check: &mut Check<'_>, range: &Value, default: Quantity, most: Quantity, path: &Path<'_>) {
    let Some(min) = amount(range, "min") else {
        return check.required(&path.field("min"), "required when validRange is defined");
    };
    let mut bound = |name: &str, wrong: bool, value: Quantity, text: String| {
        if wrong {
            check.invalid(&path.field(name), &value.to_string().into(), &text);
        }
    };
    bound("min", min > most, min, format!("min is larger than capacity value: {most}"));
    bound("min", default < min, default, format!("default is less than min: {min}"));
    let max = amount(range, "max");
    if let Some(max) = max {
        bound("max", min > max, min, format!("min is larger than max: {max}"));
        bound("max", max > most, max, format!("max is larger than capacity value: {most}"));
        bound("max", default > max, default, format!("default is more than max: {max}"));
    }
    let Some(step) = amount(range, "step") else { return };
    let mut next = min;
    next += step;
    bound("step", next > most, step, format!("one step {next} is larger than capacity value: {most}"));
    for value in std::iter::once(default).chain(max) {
        // A step of nothing leads nowhere.
        let reached = value.value().saturating_sub(min.value()).checked_rem(step.value()) == Some(0);
        let text = format!("value is not a multiple of a given step ({step}) from ({min})");
        bound("step", !reached, value, text);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn portions_fit_into_the_whole() {
        let found = |policy: Value, shared: bool| {
            let mut errors = Vec::new();
            let holder = json!({"value": "4Gi", "requestPolicy": policy});
            capacity(&mut Check { errors: &mut errors }, &holder, shared, &Path::Root.field("c"));
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let fine = json!({"default": "2Gi", "validRange": {"min": "1Gi", "max": "4Gi", "step": "1Gi"}});
        assert_eq!(found(fine.clone(), true), [""; 0]);
        assert_eq!(found(fine, false), ["c.requestPolicy: Forbidden: allowMultipleAllocations must be true"]);
        assert_eq!(found(json!({"default": "1Gi", "validValues": ["1Gi", "2Gi"]}), true), [""; 0]);
        assert_eq!(
            found(json!({"default": "3Gi", "validValues": ["2Gi", "1Gi", "1Gi", "8Gi"]}), true),
            [
                "c.requestPolicy.validValues[1]: Invalid value: \"1Gi\": values must be sorted in ascending order",
                "c.requestPolicy.validValues[3]: Invalid value: \"8Gi\": option is larger than capacity value: 4Gi",
                "c.requestPolicy.validValues[2]: Duplicate value: \"1Gi\"",
                "c.requestPolicy.validValues: Invalid value: \"3Gi\": default value is not valid according to the requestPolicy",
            ]
        );
        assert_eq!(
            found(json!({"default": "512Mi", "validRange": {"min": "1Gi", "max": "8Gi", "step": "4Gi"}}), true),
            [
                "c.requestPolicy.validRange.min: Invalid value: \"512Mi\": default is less than min: 1Gi",
                "c.requestPolicy.validRange.max: Invalid value: \"8Gi\": max is larger than capacity value: 4Gi",
                "c.requestPolicy.validRange.step: Invalid value: \"4Gi\": one step 5Gi is larger than capacity value: 4Gi",
                "c.requestPolicy.validRange.step: Invalid value: \"512Mi\": value is not a multiple of a given step (4Gi) from (1Gi)",
                "c.requestPolicy.validRange.step: Invalid value: \"8Gi\": value is not a multiple of a given step (4Gi) from (1Gi)",
            ]
        );
        assert_eq!(
            found(json!({"validValues": ["1Gi"]}), true),
            ["c.requestPolicy.default: Required value: required when validValues is defined"]
        );
        assert_eq!(found(json!({"default": "1Gi", "validRange": {"min": "1Gi", "step": "0"}}), true).len(), 1);
    }
}
