//! What upstream fills in when an author leaves it out, kind by kind (`SetDefaults_*`, and what Go's encoding of a
//! decoded object adds or makes canonical). Every function may be applied again without effect.

use serde_json::{Value, json};

use crate::{fields::Fields, quantity::Quantity};

pub mod apps;
pub mod cluster;
pub mod config;
pub mod pod;
pub mod previews;
pub mod service;
pub mod storage;

/// Quantities of a resource list in canonical form, nothing finer than a thousandth.
pub fn resource_list(holder: &mut Value, name: &str) {
    let Some(list) = holder.get_mut(name).and_then(Value::as_object_mut) else { return };
    for value in list.values_mut() {
        canonical(value, true);
    }
}

/// One quantity field in canonical form.
pub fn quantity(holder: &mut Value, name: &str) {
    if let Some(value) = holder.at_mut(name) {
        canonical(value, false);
    }
}

fn canonical(value: &mut Value, milli: bool) {
    if let Ok(quantity) = Quantity::from_value(value) {
        let text = if milli { quantity.round_up_to_milli() } else { quantity }.to_string();
        if value.as_str() != Some(text.as_str()) {
            *value = Value::String(text);
        }
    }
}

/// Limits and requests in canonical form.
pub fn resources(holder: &mut Value) {
    resource_list(holder, "limits");
    resource_list(holder, "requests");
}

/// A selector that was left out selects everything.
pub(crate) fn empty_object(holder: &mut Value, name: &str) {
    if !holder.has(name) {
        holder.set(name, json!({}));
    }
}

#[cfg(test)]
mod tests;
