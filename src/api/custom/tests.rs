//! Definitions and the objects that follow them.

use jiff::Timestamp;
use serde_json::json;

use super::*;

fn definition() -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "required": ["replicas"], "properties": {
            "replicas": {"type": "integer"}, "colour": {"type": "string", "default": "red"},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true},
        }},
        "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}},
    }});
    let object = json!({
        "metadata": {"name": "widgets.example.com", "generation": 1},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList", "shortNames": ["w"]},
            "versions": [
                {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                    "selectableFields": [{"jsonPath": ".spec.colour"}],
                    "additionalPrinterColumns": [
                        {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas"},
                        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}]},
                {"name": "v1beta1", "served": true, "storage": false, "deprecated": true, "schema": {"openAPIV3Schema": {"type": "object"}}},
            ],
        },
        "status": {},
    });
    status::next(&object, &[], Timestamp::UNIX_EPOCH)
}

fn row(version: &str) -> Arc<Row> {
    let object = definition();
    let definition = Arc::new(Definition::compile(&object).unwrap());
    rows(&definition, &object).into_iter().find(|row| row.resource.version == version).unwrap()
}

fn widget(spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a", "namespace": "d"}, "spec": spec})
}

#[test]
fn a_version_becomes_a_row() {
    let row = row("v1");
    assert_eq!((row.kind.as_ref(), row.list_kind.as_ref(), row.namespaced), ("Widget", "WidgetList", true));
    assert_eq!(row.key(Some("d"), "a"), "/registry/example.com/widgets/d/a");
    assert!(row.has_status() && row.subresource("scale").is_some() && row.enabled);
    assert_eq!(row.selectable_fields[0].label, "spec.colour");
    let old = self::row("v1beta1");
    assert_eq!(old.storage.version, "v1");
    let compiled = old.custom.as_ref().unwrap().compiled().unwrap();
    assert_eq!(
        compiled.deprecation.as_deref(),
        Some("example.com/v1beta1 Widget is deprecated; use example.com/v1 Widget")
    );
}

#[test]
fn objects_are_completed_and_checked() {
    let row = row("v1");
    let mut object = widget(json!({"replicas": 1}));
    object["status"] = json!({"replicas": 5});
    row.default(&mut object);
    row.prepare_create(&mut object);
    assert_eq!(object["spec"]["colour"], "red");
    assert_eq!(object.get("status"), None);
    assert_eq!(object["metadata"]["generation"], 1);
    assert!(row.validate_create(&object).is_empty());
    let texts = |object: &Value| row.validate_create(object).iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(&widget(json!({}))), ["spec.replicas: Required value"]);
    assert_eq!(
        texts(&widget(json!({"replicas": -1}))),
        [".spec.replicas: Invalid value: -1: should be a non-negative integer"]
    );
    assert_eq!(
        texts(&widget(json!({"replicas": 1, "template": {"kind": "Pod", "metadata": {"labels": {"a/b/c": "x"}}}})))
            .len(),
        2
    );
}

#[test]
fn a_status_update_changes_the_status_alone() {
    let row = row("v1");
    let old = widget(json!({"replicas": 1}));
    let mut new = widget(json!({"replicas": 2}));
    new["metadata"]["labels"] = json!({"a": "b"});
    new["status"] = json!({"replicas": 1});
    row.prepare_update(&mut new, &old, Some("status"));
    assert_eq!((&new["spec"], new["metadata"].get("labels")), (&json!({"replicas": 1}), None));
    assert_eq!(new["status"], json!({"replicas": 1}));
    new["status"] = json!({"replicas": "x"});
    let errors = row.validate_update(&new, &old, Some("status"));
    let expected = r#"status.replicas: Invalid value: "string": replicas in body must be of type integer: "string""#;
    assert!(errors.iter().any(|error| error.to_string() == expected), "{errors:?}");
}

#[test]
fn columns_show_what_their_paths_lead_to() {
    let row = row("v1");
    let mut object = widget(json!({"replicas": 3}));
    object["metadata"]["creationTimestamp"] = json!("1970-01-01T00:00:00Z");
    let now = Timestamp::from_second(300).unwrap();
    assert_eq!(row.cells(&object, now), [json!("a"), json!(3), json!("5m")]);
    assert_eq!(row.columns().len(), 3);
    assert_eq!(self::row("v1beta1").cells(&object, now), [json!("a"), json!("5m")]);
}

#[test]
fn what_was_stored_is_read_by_the_schema_of_its_version() {
    let row = row("v1");
    let mut stored = widget(json!({"replicas": 1, "gone": true}));
    row.custom.as_ref().unwrap().definition.as_read(&mut stored);
    assert_eq!(stored["spec"], json!({"replicas": 1, "colour": "red"}));
    assert_eq!(row.warnings(&json!({"metadata": {"finalizers": ["a", "x.com/y"]}}), None).len(), 1);
}
