//! Resource quantities as the numbers that cgroups and CRI want.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

pub type Resources = BTreeMap<String, Quantity>;

/// The value in thousandths, rounded up; `None` for what is no quantity.
pub fn milli(quantity: &Quantity) -> Option<i64> {
    quantity.0.parse::<api::Quantity>().ok().map(api::Quantity::milli_value)
}

/// The value in whole units (bytes for memory), rounded up.
pub fn whole(quantity: &Quantity) -> Option<i64> {
    quantity.0.parse::<api::Quantity>().ok().map(api::Quantity::value)
}

pub fn cpu_milli(resources: Option<&Resources>) -> Option<i64> {
    resources?.get("cpu").and_then(milli)
}

pub fn memory_bytes(resources: Option<&Resources>) -> Option<i64> {
    resources?.get("memory").and_then(whole)
}
