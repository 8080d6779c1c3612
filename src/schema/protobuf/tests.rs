use serde_json::{Value, json};

use super::*;
use crate::Types;

fn pod() -> TypeRef<'static> {
    Types::builtin().kind("", "v1", "Pod").unwrap()
}

fn encoded(value: &Value, ty: TypeRef<'_>) -> Vec<u8> {
    let (mut from_value, mut from_json) = (Vec::new(), Vec::new());
    Encoder::default().value(value, ty, &mut from_value).unwrap();
    Encoder::default().json(value.to_string().as_bytes(), ty, &mut from_json).unwrap();
    assert_eq!(from_value, from_json);
    from_value
}

fn decoded(bytes: &[u8], ty: TypeRef<'_>) -> Value {
    let mut object = serde_json::Map::new();
    decode_message(bytes, ty, &mut object).unwrap();
    object.into()
}

#[test]
fn a_message_is_ordered_by_numbers_and_says_what_go_says() {
    let ty = Types::builtin().named("io.k8s.api.core.v1.ContainerPort").unwrap();
    // name, hostPort, containerPort, protocol, hostIP
    let bytes = encoded(&json!({"protocol": "TCP", "containerPort": 300}), ty);
    assert_eq!(bytes, b"\x0a\x00\x10\x00\x18\xac\x02\x22\x03TCP\x2a\x00");
    assert_eq!(decoded(&bytes, ty), json!({"containerPort": 300, "protocol": "TCP"}));
}

#[test]
fn lengths_beyond_a_byte_and_maps_out_of_order_come_back() {
    let long = "x".repeat(20_000);
    let value = json!({
        "metadata": {"name": "a", "labels": {"z": "1", "b": long, "m": ""}, "annotations": {}},
        "spec": {"containers": [{"name": "c", "image": long, "resources": {"limits": {"cpu": "1", "memory": "2Gi"}}}],
            "volumes": [{"name": "v", "secret": {"secretName": "s", "defaultMode": 0}}], "hostNetwork": true,
            "terminationGracePeriodSeconds": 0},
        "status": {"startTime": "2026-01-02T03:04:05Z"},
    });
    let back = decoded(&encoded(&value, pod()), pod());
    assert_eq!(back["metadata"]["labels"], value["metadata"]["labels"]);
    assert_eq!(back["spec"]["containers"][0]["image"], value["spec"]["containers"][0]["image"]);
    assert_eq!(back["spec"]["volumes"], value["spec"]["volumes"]);
    assert_eq!(back["spec"]["terminationGracePeriodSeconds"], json!(0));
    assert_eq!(back["status"]["startTime"], value["status"]["startTime"]);
    assert_eq!(encoded(&back, pod()), encoded(&value, pod()));
    // Map entries are in the order of their keys.
    let bytes = encoded(&json!({"metadata": {"labels": {"b": "2", "a": "1"}}}), pod());
    let at = |needle: &[u8]| bytes.windows(needle.len()).position(|window| window == needle).unwrap();
    assert!(at(b"\x0a\x01a\x12\x011") < at(b"\x0a\x01b\x12\x012"));
}

#[test]
fn schemas_stand_beside_what_else_may_stand_there() {
    let ty = Types::builtin().named(JSON_SCHEMA).unwrap();
    let value = json!({
        "type": "object", "additionalProperties": false, "default": {"a": [1, null]}, "enum": ["x", 3],
        "properties": {"a": {"items": {"type": "string"}}, "b": {"items": [{"type": "integer"}]},
            "c": {"additionalProperties": {"type": "number", "maximum": 2.5}}},
        "dependencies": {"a": ["b", "c"], "b": {"minProperties": 0}},
    });
    assert_eq!(decoded(&encoded(&value, ty), ty), value);
}

#[test]
fn values_of_another_type_are_refused() {
    let mut out = Vec::new();
    for wrong in [
        json!({"spec": {"hostNetwork": "yes"}}),
        json!({"spec": {"containers": {}}}),
        json!({"spec": []}),
        json!({"metadata": {"labels": {"a": 1}}}),
        json!({"metadata": {"creationTimestamp": "yesterday"}}),
    ] {
        assert!(Encoder::default().value(&wrong, pod(), &mut out).is_err(), "{wrong}");
    }
    assert!(Encoder::default().json(b"{} {}", pod(), &mut out).is_err());
}

#[test]
fn a_broken_body_is_refused() {
    let of = |body: &[u8]| decode(body, Types::builtin()).unwrap_err();
    assert_eq!(of(b"{}"), DecodeError::Magic);
    assert_eq!(of(b"k8s\0\x0a\xff"), DecodeError::Truncated);
    assert_eq!(of(b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x04\x0a\x7fxx"), DecodeError::Truncated);
    assert_eq!(of(b"k8s\0\x0a\x0b\x0a\x02v1\x12\x05Chair"), DecodeError::Kind);
    let schema = Types::builtin().named(JSON_SCHEMA).unwrap();
    let not = schema.as_struct().unwrap().field("not").unwrap().number().last();
    let mut deep = Vec::new();
    for _ in 0..3000 {
        let inner = std::mem::take(&mut deep);
        write_bytes(not, &inner, &mut deep);
    }
    assert_eq!(decode_message(&deep, schema, &mut serde_json::Map::new()), Err(DecodeError::Depth));
}

#[test]
fn an_envelope_is_opened_again() {
    let mut out = Vec::new();
    envelope("apps/v1", "Deployment", &[7; 300], &mut out);
    assert_eq!(opened(&out), Ok(("apps/v1", "Deployment", &[7; 300][..])));
}

proptest::proptest! {
    #[test]
    fn no_bytes_do_harm(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300), cut in 0usize..400) {
        let (mut body, mut object) = (Vec::new(), serde_json::Map::new());
        envelope("v1", "Pod", &bytes, &mut body);
        let _ = decode(&body, Types::builtin());
        // A body that was right once, cut and with other bytes in it.
        let value = json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80}], "env": [
            {"name": "A", "valueFrom": {"resourceFieldRef": {"resource": "cpu", "divisor": "1"}}}]}],
            "volumes": [{"name": "v", "hostPath": {"path": "/x"}}], "overhead": {"cpu": "1"}}});
        let mut good = encoded(&value, pod());
        for (at, byte) in bytes.iter().enumerate().step_by(7) {
            let at = at * 31 % good.len();
            good[at] = *byte;
        }
        good.truncate(cut);
        let _ = decode_message(&good, pod(), &mut object);
    }
}
