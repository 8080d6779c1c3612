//! Writes the table of facts (`embedded/types.txt`) from Kubernetes' OpenAPI v3 documents and its Go types.
//!
//! `cargo run -p schema --example generate -- ../shared/kubernetes-1.36/openapi-v3 KUBERNETES/staging/src embedded/types.txt`
//!
//! The format is described in `types/table.rs`, which reads it. Anything in the documents that the
//! format cannot say is an error here, so that no fact is lost silently.

mod go;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Map, Value, json};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const REF_PREFIX: &str = "#/components/schemas/";
const HEADER: &str = "# What fields the types of Kubernetes v1.36 have. Written by src/schema/examples/generate.\n";

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(from), Some(staging), Some(to)) = (args.next(), args.next(), args.next()) else {
        return Err("usage: generate <directory of OpenAPI v3 documents> <staging/src of Kubernetes> <table>".into());
    };
    let mut definitions = read(Path::new(&from))?;
    for (name, properties) in beside_openapi() {
        let schema = properties.as_object().cloned().unwrap_or_default();
        let definition = Definition { schema, kinds: BTreeSet::new(), in_every_group: false };
        definitions.insert(format!("{META}{name}"), definition);
    }
    let mut packages = go::Packages::new(Path::new(&staging));
    let mut out = String::from(HEADER);
    for (name, definition) in &definitions {
        write_definition(&mut out, name, definition, &mut packages).map_err(|e| format!("{name}: {e}"))?;
    }
    std::fs::write(to, out)?;
    Ok(())
}

/// A definition as all documents together have it: only the list of kinds may differ between them.
struct Definition {
    schema: Map<String, Value>,
    kinds: BTreeSet<String>,
    in_every_group: bool,
}

/// What goes over the wire without being in the documents.
fn beside_openapi() -> [(&'static str, Value); 2] {
    let reference = |name: &str| json!({"$ref": format!("{REF_PREFIX}{META}{name}")});
    [
        (
            "PartialObjectMetadata",
            json!({"properties": {
                "apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": reference("ObjectMeta"),
            }}),
        ),
        (
            "PartialObjectMetadataList",
            json!({"required": ["items"], "properties": {
                "apiVersion": {"type": "string"}, "items": {"type": "array", "items": reference("PartialObjectMetadata")},
                "kind": {"type": "string"}, "metadata": reference("ListMeta"),
            }}),
        ),
    ]
}

fn read(directory: &Path) -> Result<BTreeMap<String, Definition>, Box<dyn Error>> {
    let mut all: BTreeMap<String, Definition> = BTreeMap::new();
    let mut paths: Vec<_> = std::fs::read_dir(directory)?.collect::<Result<Vec<_>, _>>()?;
    paths.sort_by_key(std::fs::DirEntry::path);
    for entry in paths {
        let path = entry.path();
        let document: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
        let Some(schemas) = document.pointer("/components/schemas").and_then(Value::as_object) else { continue };
        for (name, schema) in schemas {
            let mut schema = schema.as_object().ok_or("schema is not an object")?.clone();
            let kinds: BTreeSet<String> = schema
                .remove("x-kubernetes-group-version-kind")
                .and_then(|v| v.as_array().cloned())
                .unwrap_or_default()
                .iter()
                .map(|k| format!("{}/{}/{}", text(k, "group"), text(k, "version"), text(k, "kind")))
                .collect();
            match all.get_mut(name) {
                None => {
                    all.insert(name.clone(), Definition { schema, kinds, in_every_group: false });
                }
                Some(known) => {
                    if known.schema != schema {
                        return Err(format!("{name} differs between documents ({})", path.display()).into());
                    }
                    if known.kinds != kinds {
                        known.in_every_group = true;
                        known.kinds = known.kinds.intersection(&kinds).cloned().collect();
                    }
                }
            }
        }
    }
    Ok(all)
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn write_definition(
    out: &mut String,
    name: &str,
    definition: &Definition,
    packages: &mut go::Packages,
) -> Result<(), Box<dyn Error>> {
    let schema = &definition.schema;
    known_keys(
        schema,
        &["properties", "required", "x-kubernetes-map-type", "x-kubernetes-unions", "type", "oneOf", "format"],
    )?;
    out.push_str(name);
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        writeln!(out, " := {}", type_text(schema)?)?;
        return Ok(());
    };
    for kind in &definition.kinds {
        write!(out, " @{kind}")?;
    }
    if definition.in_every_group {
        out.push_str(" @*");
    }
    if let Some(map_type) = schema.get("x-kubernetes-map-type").and_then(Value::as_str) {
        write!(out, " map={map_type}")?;
    }
    for union in schema.get("x-kubernetes-unions").and_then(Value::as_array).into_iter().flatten() {
        let fields = union.get("fields-to-discriminateBy").and_then(Value::as_object).ok_or("union without fields")?;
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        write!(out, " union={}:{}", text(union, "discriminator"), names.join(","))?;
    }
    out.push('\n');
    let mut numbers = packages.numbers(name)?;
    let required: Vec<&str> =
        schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
    for (field, schema) in properties {
        let schema = schema.as_object().ok_or("property is not an object")?;
        known_keys(
            schema,
            &[
                "type",
                "format",
                "items",
                "additionalProperties",
                "allOf",
                "$ref",
                "default",
                "x-kubernetes-list-type",
                "x-kubernetes-list-map-keys",
                "x-kubernetes-map-type",
                "x-kubernetes-patch-strategy",
                "x-kubernetes-patch-merge-key",
            ],
        )
        .map_err(|e| format!("{field}: {e}"))?;
        let required = required.contains(&field.as_str());
        let mark = if required { "!" } else { "" };
        write!(out, "\t{field}{mark} {}", type_text(schema).map_err(|e| format!("{field}: {e}"))?)?;
        if let Some(wire) = numbers.remove(field) {
            let value = (schema.contains_key("$ref") || schema.contains_key("allOf")) && !wire.pointer;
            let kept = wire.kept == go::Kept::Always || (wire.kept == go::Kept::Structs && value);
            let mark = match (kept, required || value) {
                (true, false) => "+",
                (false, true) => "-",
                _ => "",
            };
            write!(out, " #{}{mark}", wire.number)?;
        }
        if let Some(strategy) = schema.get("x-kubernetes-patch-strategy").and_then(Value::as_str) {
            write!(out, " patch={strategy}")?;
        }
        if let Some(key) = schema.get("x-kubernetes-patch-merge-key").and_then(Value::as_str) {
            write!(out, " key={key}")?;
        }
        if schema.get("type").and_then(Value::as_str) == Some("string") && schema.contains_key("x-kubernetes-list-type")
        {
            out.push_str(" string-list-type=atomic");
        }
        if let Some(default) = schema.get("default") {
            write!(out, " = {default}")?;
        }
        out.push('\n');
    }
    match numbers.first_key_value() {
        Some((name, _)) => Err(format!("OpenAPI does not have the field {name}").into()),
        None => Ok(()),
    }
}

fn known_keys(schema: &Map<String, Value>, known: &[&str]) -> Result<(), String> {
    match schema.keys().find(|k| *k != "description" && !known.contains(&k.as_str())) {
        Some(key) => Err(format!("the table has no place for {key:?}")),
        None => Ok(()),
    }
}

fn type_text(schema: &Map<String, Value>) -> Result<String, Box<dyn Error>> {
    let reference = schema.get("$ref").or_else(|| {
        let all_of = schema.get("allOf")?.as_array()?;
        if all_of.len() == 1 { all_of.first()?.get("$ref") } else { None }
    });
    let map_type = schema.get("x-kubernetes-map-type").and_then(Value::as_str);
    if let Some(reference) = reference.and_then(Value::as_str) {
        let name = reference.strip_prefix(REF_PREFIX).ok_or("foreign reference")?;
        return Ok(match map_type {
            Some(map_type) => format!("<{map_type}>{name}"),
            None => name.to_owned(),
        });
    }
    let format = schema.get("format").and_then(Value::as_str).unwrap_or_default();
    let scalar = match (schema.get("type").and_then(Value::as_str).unwrap_or_default(), format) {
        ("string", "") => "string",
        ("string", "byte") => "byte",
        ("string", "date-time") => "date-time",
        ("integer", "") => "integer",
        ("integer", "int32") => "int32",
        ("integer", "int64") => "int64",
        ("number", "") => "number",
        ("number", "double") => "double",
        ("boolean", "") => "boolean",
        ("", "int-or-string") => "int-or-string",
        ("", "") if schema.contains_key("oneOf") => "quantity",
        ("", "") => "any",
        ("array", "") => {
            let element = type_text(schema.get("items").and_then(Value::as_object).ok_or("array without items")?)?;
            let list_type = schema.get("x-kubernetes-list-type").and_then(Value::as_str).unwrap_or_default();
            let keys: Vec<&str> = schema
                .get("x-kubernetes-list-map-keys")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect();
            let colon = if keys.is_empty() { "" } else { ":" };
            return Ok(format!("[{list_type}{colon}{}]{element}", keys.join(",")));
        }
        ("object", "") => match schema.get("additionalProperties").and_then(Value::as_object) {
            None => "object",
            Some(element) => return Ok(format!("{{{}}}{}", map_type.unwrap_or_default(), type_text(element)?)),
        },
        other => return Err(format!("the table has no type for {other:?}").into()),
    };
    Ok(scalar.to_owned())
}
