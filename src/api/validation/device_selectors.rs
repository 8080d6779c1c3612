//! Expressions that choose devices (`resource.k8s.io`): what they may ask of a device, and how much they may cost.
//!
//! Limitation: `cel.bind` is not known to our CEL; expressions with it are taken as they are.

use std::sync::{Arc, LazyLock};

use cel::{Decl, Env, ObjectType, Type};
use serde_json::Value;

use super::{Check, claims::at_most};
use crate::{failure::FieldError, fields::Fields, path::Path};

const SELECTORS_MAX: usize = 32;
const EXPRESSION_BYTES_MAX: usize = 10 * 1024;
const EXPRESSION_COST_MAX: u64 = 1_000_000;
const ATTRIBUTES_MAX: u64 = 32;
const ATTRIBUTE_BYTES_MAX: u64 = 64;
const DRIVER_BYTES_MAX: u64 = 63;

/// `stored`: they are as they were, and what was taken once stays.
pub(crate) fn selectors(check: &mut Check<'_>, holder: &Value, stored: bool, path: &Path<'_>) {
    let list = path.field("selectors");
    let selectors = holder.list("selectors");
    if selectors.len() > SELECTORS_MAX {
        return at_most(check, selectors.len(), SELECTORS_MAX, &list);
    }
    for (index, selector) in selectors.iter().enumerate() {
        let path = list.index(index);
        let Some(cel) = selector.at("cel") else {
            check.required(&path.field("cel"), "");
            continue;
        };
        let path = path.field("cel");
        let (path, text) = (path.field("expression"), cel.text("expression"));
        if text.len() > EXPRESSION_BYTES_MAX {
            check.errors.push(FieldError::too_long(&path, EXPRESSION_BYTES_MAX));
        } else if !stored {
            match cost(text) {
                Err(finding) => check.invalid(&path, &text.into(), &finding),
                Ok(cost) if cost > EXPRESSION_COST_MAX => {
                    check.forbidden(&path, "too complex, exceeds cost limit");
                }
                Ok(_) => {}
            }
        }
    }
}

/// The most that one evaluation can cost, or what is wrong with the expression.
fn cost(text: &str) -> Result<u64, String> {
    static ENV: LazyLock<Env> = LazyLock::new(|| Env::new().variable("device", Decl::Object(Arc::new(Device))));
    if text.contains("cel.bind(") {
        return Ok(0);
    }
    let program = ENV.compile(text).map_err(|errors| format!("compilation failed: {errors}"))?;
    // What an attribute is shows only on a device.
    match program.result() {
        Type::Bool | Type::Dyn => Ok(program.estimate().max),
        other => Err(format!("must evaluate to bool or the unknown type, not {other}")),
    }
}

/// A device as expressions see it: attributes and capacities by domain and by name.
struct Device;

impl ObjectType for Device {
    fn name(&self) -> &'static str {
        "kubernetes.DRADevice"
    }

    fn field(&self, name: &str) -> Option<Decl> {
        let by_domain = |values: Decl| {
            let by_name = Decl::Map { values: Arc::new(values), max_properties: ATTRIBUTES_MAX };
            Decl::Map { values: Arc::new(by_name), max_properties: ATTRIBUTES_MAX }
        };
        Some(match name {
            "driver" => Decl::String { max_length: DRIVER_BYTES_MAX },
            "attributes" => by_domain(Decl::Any { max_bytes: ATTRIBUTE_BYTES_MAX }),
            "capacity" => by_domain(Decl::Plain(Type::opaque("kubernetes.Quantity"))),
            "allowMultipleAllocations" => Decl::Plain(Type::Bool),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_about_devices() {
        for good in [
            "device.driver == 'gpu.example.com'",
            "device.attributes['dra.example.com'].model == 'a' && device.capacity['dra.example.com'].memory.compareTo(quantity('1Gi')) >= 0",
            "device.attributes['dra.example.com'].healthy",
            "device.allowMultipleAllocations == true",
            "cel.bind(dra, device.attributes['dra.example.com'], dra.a && dra.b)",
        ] {
            assert!(cost(good).is_ok_and(|cost| cost <= EXPRESSION_COST_MAX), "{good}: {:?}", cost(good));
        }
        for (bad, expected) in [
            ("", "compilation failed: "),
            ("device.vendor == 'a'", "compilation failed: "),
            ("device.driver", "must evaluate to bool or the unknown type, not string"),
        ] {
            assert!(cost(bad).is_err_and(|finding| finding.starts_with(expected)), "{bad}: {:?}", cost(bad));
        }
    }
}
