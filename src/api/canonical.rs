//! An object as Go's encoder writes it after Go's decoder read it.
//!
//! Upstream keeps objects as structs, so two bodies that mean the same are stored alike: zero values of fields that are
//! omitted when empty go, those of other fields come, times are in UTC and whole seconds, quantities in their
//! canonical form. What clients read, who owns which field and whether an update changes anything follow from it.
//!
//! Limitation: integers and floating-point numbers stay as they are written (`1.0` where upstream writes `1`).

use jiff::Timestamp;
use schema::{FieldRef, Scalar, Shape, StructType, TypeRef, Types};
use serde_json::{Map, Value, json};

use crate::{Quantity, fields::Fields, meta};

/// Brings a value of the type into its canonical form. Applying it twice changes nothing.
pub fn canonical(value: &mut Value, ty: TypeRef<'_>) {
    match (ty.shape(), &mut *value) {
        (_, Value::Null) => *value = zero(ty),
        (Shape::Struct(s), Value::Object(fields)) => structure(fields, s),
        (Shape::List(list), Value::Array(items)) => items.iter_mut().for_each(|item| canonical(item, list.element)),
        (Shape::Map(map), Value::Object(fields)) => {
            fields.values_mut().for_each(|value| canonical(value, map.element));
        }
        (Shape::Scalar(Scalar::DateTime), Value::String(text)) => time(text, is_micro(ty)),
        (Shape::Scalar(Scalar::Quantity), _) => quantity(value),
        _ => {}
    }
}

/// The zero value of a type: what stands where nothing was written and something must stand.
pub fn zero(ty: TypeRef<'_>) -> Value {
    match ty.shape() {
        Shape::Struct(s) => {
            let mut fields = Map::new();
            structure(&mut fields, s);
            Value::Object(fields)
        }
        Shape::Scalar(Scalar::String) => json!(""),
        Shape::Scalar(Scalar::Boolean) => json!(false),
        Shape::Scalar(Scalar::Quantity) => json!("0"),
        Shape::Scalar(Scalar::DateTime | Scalar::Byte) | Shape::List(_) | Shape::Map(_) => Value::Null,
        Shape::Scalar(_) => json!(0),
        Shape::Object | Shape::Any => Value::Null,
    }
}

/// The status that an object of a kind has before anybody wrote one. `api_version` is `v1` or `apps/v1`.
pub fn empty_status(api_version: &str, kind: &str) -> Value {
    let ty = Types::builtin().api_version_kind(api_version, kind).and_then(|ty| ty.field("status"));
    ty.map_or_else(|| json!({}), zero)
}

fn structure(fields: &mut Map<String, Value>, s: StructType<'_>) {
    fields.retain(|name, value| match s.field(name) {
        Some(field) if value.is_null() => field.kept_when_zero() && field.pointer(),
        Some(field) => {
            canonical(value, field.ty());
            if field.kept_when_zero() && !field.pointer() && is_zero_list(value, field) {
                *value = Value::Null;
            }
            // That owners are given as none says that they are to be forgotten.
            field.pointer() || field.kept_when_zero() || name == "managedFields" || !is_zero(value, field)
        }
        None => true,
    });
    for field in s.fields().filter(|field| field.kept_when_zero()) {
        if !fields.contains_key(field.name()) {
            let value = if field.pointer() { Value::Null } else { zero(field.ty()) };
            fields.insert(field.name().to_owned(), value);
        }
    }
}

/// What `omitempty` omits.
fn is_zero(value: &Value, field: FieldRef<'_>) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty() && matches!(field.ty().shape(), Shape::Map(_)),
    }
}

/// In protobuf, in which upstream stores, a list or map without items is none.
fn is_zero_list(value: &Value, field: FieldRef<'_>) -> bool {
    match (field.ty().shape(), value) {
        (Shape::List(_), Value::Array(items)) => items.is_empty(),
        (Shape::Map(_), Value::Object(fields)) => fields.is_empty(),
        _ => false,
    }
}

fn is_micro(ty: TypeRef<'_>) -> bool {
    ty.definition_name().is_some_and(|name| name.ends_with(".MicroTime"))
}

fn time(text: &mut String, micro: bool) {
    const SECONDS_CHARS: usize = "2006-01-02T15:04:05Z".len();
    const MICROS_CHARS: usize = "2006-01-02T15:04:05.000000Z".len();
    if text.ends_with('Z') && text.len() == if micro { MICROS_CHARS } else { SECONDS_CHARS } {
        return;
    }
    if let Ok(time) = text.parse::<Timestamp>() {
        *text = if micro { meta::micro_time(time) } else { meta::time(time) };
    }
}

fn quantity(value: &mut Value) {
    if let Ok(quantity) = Quantity::from_value(value) {
        let text = quantity.to_string();
        if value.as_str() != Some(text.as_str()) {
            *value = Value::String(text);
        }
    }
}

/// Empties the status that the author of a new object sent.
pub fn clear_status(object: &mut Value) {
    let status = empty_status(object.text("apiVersion"), object.text("kind"));
    object.set("status", status);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(api_version: &str, kind: &str, mut object: Value) -> Value {
        canonical(&mut object, Types::builtin().api_version_kind(api_version, kind).unwrap());
        let again = {
            let mut again = object.clone();
            canonical(&mut again, Types::builtin().api_version_kind(api_version, kind).unwrap());
            again
        };
        assert_eq!(object, again);
        object
    }

    #[test]
    fn zero_values_are_there_or_not_as_upstream_has_them() {
        let deployment = of(
            "apps/v1",
            "Deployment",
            json!({"metadata": {"generateName": "", "ownerReferences": [], "labels": {}, "creationTimestamp": null},
                "spec": {"paused": false, "replicas": 0, "selector": null, "template": {"spec": {"volumes": [],
                    "automountServiceAccountToken": false, "hostNetwork": false}}}}),
        );
        assert_eq!(
            deployment,
            json!({"metadata": {}, "spec": {"replicas": 0, "selector": null, "strategy": {}, "template": {
                "metadata": {}, "spec": {"automountServiceAccountToken": false, "containers": null}}}, "status": {}})
        );
        let node = of("v1", "Node", json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
        let condition = &node["status"]["conditions"][0];
        assert!(condition.as_object().unwrap()["lastHeartbeatTime"].is_null());
        assert_eq!(node["status"]["daemonEndpoints"], json!({"kubeletEndpoint": {"Port": 0}}));
        let claim = of("v1", "PersistentVolumeClaim", json!({"spec": {"dataSource": {"kind": "A", "name": "b"}}}));
        assert_eq!(claim["spec"]["dataSource"], json!({"apiGroup": null, "kind": "A", "name": "b"}));
        let event = of("v1", "Event", json!({"count": 0}));
        assert_eq!((&event["reportingComponent"], &event["source"]), (&json!(""), &json!({})));
        assert!(event.get("count").is_none());
    }

    #[test]
    fn times_and_quantities_have_one_form() {
        let lease = of("coordination.k8s.io/v1", "Lease", json!({"spec": {"renewTime": "2026-01-01T02:00:00+02:00"}}));
        assert_eq!(lease["spec"]["renewTime"], "2026-01-01T00:00:00.000000Z");
        let job = of("batch/v1", "Job", json!({"status": {"startTime": "2026-01-01T00:00:00.9Z"}}));
        assert_eq!(job["status"]["startTime"], "2026-01-01T00:00:00Z");
        let behaviour = json!({"spec": {"behavior": {"scaleUp": {"tolerance": 0.1}}}});
        let scaler = of("autoscaling/v2", "HorizontalPodAutoscaler", behaviour);
        assert_eq!(scaler["spec"]["behavior"]["scaleUp"]["tolerance"], "100m");
    }

    #[test]
    fn a_status_begins_with_what_is_never_omitted() {
        assert_eq!(empty_status("apps/v1", "ReplicaSet"), json!({"replicas": 0}));
        assert_eq!(empty_status("v1", "Pod"), json!({}));
        assert_eq!(empty_status("example.com/v1", "Thing"), json!({}));
    }
}
