//! Amounts by resource name (upstream: `v1.ResourceList` and `quota/v1/resources.go`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::Quantity;

pub type Amounts = BTreeMap<String, Quantity>;

/// From JSON; what is no amount is left out.
pub fn amounts(map: &Value) -> Amounts {
    let fields = map.as_object().into_iter().flatten();
    fields.filter_map(|(name, amount)| Some((name.clone(), Quantity::from_value(amount).ok()?))).collect()
}

pub fn to_map(amounts: &Amounts) -> Map<String, Value> {
    amounts.iter().map(|(name, amount)| (name.clone(), (*amount).into())).collect()
}

pub(super) fn add(to: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *to.entry(name.clone()).or_default() += *amount;
    }
}

/// The greater amount of each resource.
pub(super) fn raise(to: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let known = to.entry(name.clone()).or_insert(*amount);
        if *amount > *known {
            *known = *amount;
        }
    }
}

/// How much more `new` is than `old`; nothing is less than zero.
pub(super) fn growth(new: &Amounts, old: &Amounts) -> Amounts {
    let more = |(name, amount): (&String, &Quantity)| {
        let difference = *amount - old.get(name).copied().unwrap_or_default();
        (!difference.is_negative() && !difference.is_zero()).then(|| (name.clone(), difference))
    };
    new.iter().filter_map(more).collect()
}

/// `cpu=2,pods=1`.
pub(super) fn print(amounts: &Amounts) -> String {
    let parts: Vec<String> = amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
    parts.join(",")
}
