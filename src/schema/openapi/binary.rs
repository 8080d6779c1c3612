//! OpenAPI v2 documents in protobuf (`openapi.v2.Document` of gnostic), which is what client-go asks for.
//!
//! A document is written from its JSON by tables of fields. Values of extensions, defaults and enumerations are texts in
//! YAML, which JSON is.

use serde_json::{Map, Value};

use crate::protobuf::wire::{FIXED64, VARINT, close, open, write_bytes, write_tag, write_varint};

/// A message's fields in the order of their numbers: the name in JSON, the number, how it is written.
type Fields = &'static [(&'static str, u32, Form)];
/// Writes what a message consists of.
type Write = fn(&Value, &mut Vec<u8>);

#[derive(Clone, Copy)]
enum Form {
    Text,
    Texts,
    Flag,
    Integer,
    Double,
    /// Anything, as YAML.
    Any,
    Anys,
    Message(Write),
    /// A message for each element of a list.
    Each(Write),
}
use Form::{Any, Anys, Double, Each, Flag, Integer, Message, Text, Texts};

/// The document of `/openapi/v2` in protobuf. What the message has no place for is left out.
pub fn v2_binary(document: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    fields(document, DOCUMENT, &mut out);
    out
}

const DOCUMENT: Fields = &[
    ("swagger", 1, Text),
    ("info", 2, Message(|info, out| fields(info, INFO, out))),
    ("host", 3, Text),
    ("basePath", 4, Text),
    ("schemes", 5, Texts),
    ("consumes", 6, Texts),
    ("produces", 7, Texts),
    ("paths", 8, Message(|paths, out| named(2, paths, path_item, out))),
    ("definitions", 9, Message(|definitions, out| named(1, definitions, schema, out))),
    ("parameters", 10, Message(|parameters, out| named(1, parameters, parameter, out))),
    ("security", 12, Each(requirement)),
    ("securityDefinitions", 13, Message(|schemes, out| named(1, schemes, security_scheme, out))),
];
const INFO: Fields = &[("title", 1, Text), ("version", 2, Text), ("description", 3, Text)];
const OPERATION: Fields = &[
    ("tags", 1, Texts),
    ("summary", 2, Text),
    ("description", 3, Text),
    ("operationId", 5, Text),
    ("produces", 6, Texts),
    ("consumes", 7, Texts),
    ("parameters", 8, Each(parameters_item)),
    ("responses", 9, Message(|responses, out| named(1, responses, response_value, out))),
    ("schemes", 10, Texts),
    ("deprecated", 11, Flag),
    ("security", 12, Each(requirement)),
];
const OPERATION_EXTENSIONS: u32 = 13;
const PATH_ITEM: Fields = &[
    ("get", 2, Message(operation)),
    ("put", 3, Message(operation)),
    ("post", 4, Message(operation)),
    ("delete", 5, Message(operation)),
    ("options", 6, Message(operation)),
    ("head", 7, Message(operation)),
    ("patch", 8, Message(operation)),
    ("parameters", 9, Each(parameters_item)),
];
const REFERENCE: Fields = &[("$ref", 1, Text), ("description", 2, Text)];
const BODY_PARAMETER: Fields = &[
    ("description", 1, Text),
    ("name", 2, Text),
    ("in", 3, Text),
    ("required", 4, Flag),
    ("schema", 5, Message(schema)),
];
const PATH_PARAMETER: Fields = &[
    ("required", 1, Flag),
    ("in", 2, Text),
    ("description", 3, Text),
    ("name", 4, Text),
    ("type", 5, Text),
    ("format", 6, Text),
    ("pattern", 16, Text),
    ("uniqueItems", 19, Flag),
    ("enum", 20, Anys),
];
const QUERY_PARAMETER: Fields = &[
    ("required", 1, Flag),
    ("in", 2, Text),
    ("description", 3, Text),
    ("name", 4, Text),
    ("type", 6, Text),
    ("format", 7, Text),
    ("pattern", 17, Text),
    ("uniqueItems", 20, Flag),
    ("enum", 21, Anys),
];
const RESPONSE: Fields =
    &[("description", 1, Text), ("schema", 2, Message(|value, out| message(1, value, schema, out)))];
const API_KEY: Fields = &[("type", 1, Text), ("name", 2, Text), ("in", 3, Text), ("description", 4, Text)];
const SCHEMA: Fields = &[
    ("$ref", 1, Text),
    ("format", 2, Text),
    ("title", 3, Text),
    ("description", 4, Text),
    ("default", 5, Any),
    ("multipleOf", 6, Double),
    ("maximum", 7, Double),
    ("exclusiveMaximum", 8, Flag),
    ("minimum", 9, Double),
    ("exclusiveMinimum", 10, Flag),
    ("maxLength", 11, Integer),
    ("minLength", 12, Integer),
    ("pattern", 13, Text),
    ("maxItems", 14, Integer),
    ("minItems", 15, Integer),
    ("uniqueItems", 16, Flag),
    ("maxProperties", 17, Integer),
    ("minProperties", 18, Integer),
    ("required", 19, Texts),
    ("enum", 20, Anys),
    ("additionalProperties", 21, Message(additional_properties)),
    ("type", 22, Message(|types, out| texts(1, types, out))),
    ("items", 23, Message(items)),
    ("allOf", 24, Each(schema)),
    ("properties", 25, Message(|properties, out| named(1, properties, schema, out))),
    ("example", 30, Any),
];
const SCHEMA_EXTENSIONS: u32 = 31;

fn path_item(item: &Value, out: &mut Vec<u8>) {
    fields(item, PATH_ITEM, out);
}

fn operation(operation: &Value, out: &mut Vec<u8>) {
    fields(operation, OPERATION, out);
    extensions(operation, OPERATION_EXTENSIONS, out);
}

fn parameters_item(item: &Value, out: &mut Vec<u8>) {
    match item.get("$ref") {
        Some(_) => message(2, item, reference, out),
        None => message(1, item, parameter, out),
    }
}

fn parameter(item: &Value, out: &mut Vec<u8>) {
    match item.get("in").and_then(Value::as_str) {
        Some("body") => message(1, item, |item, out| fields(item, BODY_PARAMETER, out), out),
        Some("path") => {
            let start = open(2, out);
            message(4, item, |item, out| fields(item, PATH_PARAMETER, out), out);
            close(start, out);
        }
        _ => {
            let start = open(2, out);
            message(3, item, |item, out| fields(item, QUERY_PARAMETER, out), out);
            close(start, out);
        }
    }
}

fn response_value(value: &Value, out: &mut Vec<u8>) {
    match value.get("$ref") {
        Some(_) => message(2, value, reference, out),
        None => message(1, value, |value, out| fields(value, RESPONSE, out), out),
    }
}

fn reference(value: &Value, out: &mut Vec<u8>) {
    fields(value, REFERENCE, out);
}

fn schema(schema: &Value, out: &mut Vec<u8>) {
    fields(schema, SCHEMA, out);
    extensions(schema, SCHEMA_EXTENSIONS, out);
}

fn additional_properties(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Bool(allowed) => flag(2, *allowed, out),
        other => message(1, other, schema, out),
    }
}

fn items(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Array(each) => each.iter().for_each(|one| message(1, one, schema, out)),
        one => message(1, one, schema, out),
    }
}

/// Which scheme needs which scopes.
fn requirement(value: &Value, out: &mut Vec<u8>) {
    named(1, value, |scopes, out| texts(1, scopes, out), out);
}

fn security_scheme(value: &Value, out: &mut Vec<u8>) {
    // No other kind of scheme is in the documents.
    message(2, value, |value, out| fields(value, API_KEY, out), out);
}

fn fields(value: &Value, fields: Fields, out: &mut Vec<u8>) {
    for (name, number, form) in fields {
        let Some(value) = value.get(name) else { continue };
        match form {
            Text => write_bytes(*number, value.as_str().unwrap_or_default().as_bytes(), out),
            Texts => texts(*number, value, out),
            Flag => flag(*number, value.as_bool().unwrap_or_default(), out),
            Integer => {
                write_tag(*number, VARINT, out);
                write_varint(value.as_u64().unwrap_or_default(), out);
            }
            Double => {
                write_tag(*number, FIXED64, out);
                out.extend_from_slice(&value.as_f64().unwrap_or_default().to_le_bytes());
            }
            Any => message(*number, value, any, out),
            Anys => value.as_array().into_iter().flatten().for_each(|one| message(*number, one, any, out)),
            Message(write) => message(*number, value, *write, out),
            Each(write) => value.as_array().into_iter().flatten().for_each(|one| message(*number, one, *write, out)),
        }
    }
}

fn message(number: u32, value: &Value, write: Write, out: &mut Vec<u8>) {
    let start = open(number, out);
    write(value, out);
    close(start, out);
}

fn flag(number: u32, value: bool, out: &mut Vec<u8>) {
    if value {
        write_tag(number, VARINT, out);
        write_varint(1, out);
    }
}

/// A list of texts, or one that stands for itself.
fn texts(number: u32, value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Array(texts) => texts.iter().for_each(|text| texts_one(number, text, out)),
        one => texts_one(number, one, out),
    }
}

fn texts_one(number: u32, text: &Value, out: &mut Vec<u8>) {
    if let Some(text) = text.as_str() {
        write_bytes(number, text.as_bytes(), out);
    }
}

/// The entries of a map, each a message with its name and its value.
fn named(number: u32, map: &Value, write: Write, out: &mut Vec<u8>) {
    for (name, value) in map.as_object().into_iter().flatten() {
        let start = open(number, out);
        write_bytes(1, name.as_bytes(), out);
        message(2, value, write, out);
        close(start, out);
    }
}

fn extensions(value: &Value, number: u32, out: &mut Vec<u8>) {
    let none = Map::new();
    for (name, value) in value.as_object().unwrap_or(&none).iter().filter(|(name, _)| name.starts_with("x-")) {
        let start = open(number, out);
        write_bytes(1, name.as_bytes(), out);
        message(2, value, any, out);
        close(start, out);
    }
}

fn any(value: &Value, out: &mut Vec<u8>) {
    let mut yaml = value.to_string();
    yaml.push('\n');
    write_bytes(2, yaml.as_bytes(), out);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Numbers and contents of a message's fields.
    fn opened(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let (mut number, mut shift) = (0, 0);
            loop {
                let (&byte, rest) = bytes.split_first().unwrap();
                *bytes = rest;
                number |= u64::from(byte & 0x7f) << shift;
                shift += 7;
                if byte < 0x80 {
                    return number;
                }
            }
        }
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let tag = varint(&mut bytes);
            let content = match tag & 7 {
                0 => varint(&mut bytes).to_le_bytes().to_vec(),
                1 => bytes.split_off(..8).unwrap().to_vec(),
                _ => {
                    let length = usize::try_from(varint(&mut bytes)).unwrap();
                    bytes.split_off(..length).unwrap().to_vec()
                }
            };
            fields.push((tag >> 3, content));
        }
        fields
    }

    fn inside(bytes: &[u8], path: &[u64]) -> Vec<u8> {
        path.iter().fold(bytes.to_vec(), |bytes, number| {
            opened(&bytes).into_iter().find(|(one, _)| one == number).unwrap_or_else(|| panic!("{number}")).1
        })
    }

    #[test]
    fn a_document_has_its_parts_where_gnostic_has_them() {
        let document = json!({
            "swagger": "2.0", "info": {"title": "Kubernetes", "version": "v1.36.2"}, "security": [{"BearerToken": []}],
            "securityDefinitions": {"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"}},
            "paths": {"/a/{name}": {
                "parameters": [{"name": "name", "in": "path", "required": true, "type": "string", "uniqueItems": true}],
                "put": {
                    "operationId": "replaceA", "x-kubernetes-action": "put",
                    "parameters": [{"in": "body", "name": "body", "schema": {"$ref": "#/definitions/A"}}],
                    "responses": {"200": {"description": "OK", "schema": {"$ref": "#/definitions/A"}}},
                },
            }},
            "definitions": {"A": {
                "type": "object", "required": ["n"], "x-kubernetes-group-version-kind": [{"kind": "A"}],
                "properties": {"n": {"type": "number", "maximum": 1.5}, "m": {"additionalProperties": true}},
            }},
        });
        let binary = v2_binary(&document);
        assert_eq!(inside(&binary, &[1]), b"2.0");
        assert_eq!(inside(&binary, &[2, 2]), b"v1.36.2");
        assert_eq!(inside(&binary, &[12, 1, 1]), b"BearerToken");
        assert_eq!(inside(&binary, &[13, 1, 2, 2, 3]), b"header");
        let path = [8, 2];
        let at = |rest: &[u64]| inside(&binary, &[&path[..], rest].concat());
        assert_eq!(at(&[1]), b"/a/{name}");
        assert_eq!(at(&[2, 9, 1, 2, 4, 4]), b"name");
        assert_eq!(at(&[2, 3, 5]), b"replaceA");
        assert_eq!(at(&[2, 3, 8, 1, 1, 5, 1]), b"#/definitions/A");
        assert_eq!(at(&[2, 3, 9, 1, 2, 1, 2, 1, 1]), b"#/definitions/A");
        assert_eq!(
            (at(&[2, 3, 13, 1]), at(&[2, 3, 13, 2, 2])),
            (b"x-kubernetes-action".to_vec(), b"\"put\"\n".to_vec())
        );
        let definition = |rest: &[u64]| inside(&binary, &[&[9, 1, 2], rest].concat());
        assert_eq!((definition(&[19]), definition(&[22, 1])), (b"n".to_vec(), b"object".to_vec()));
        assert_eq!(definition(&[31, 2, 2]), b"[{\"kind\":\"A\"}]\n");
        let properties = opened(&definition(&[25]));
        assert_eq!(inside(&properties[0].1, &[2, 21, 2]), 1u64.to_le_bytes());
        assert_eq!(inside(&properties[1].1, &[2, 7]), 1.5f64.to_le_bytes());
    }
}
