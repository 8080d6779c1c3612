//! Whether a schema is structural (`ValidateStructural`).
//!
//! What may differ from value to value must be said apart from what the fields are: below `allOf`, `anyOf`, `oneOf`
//! and `not` there are neither types nor defaults, and no field that is not also declared outside.

use super::{Problem, Structural};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// The findings, by their texts. `path` is where the schema stands.
pub fn check(schema: &Structural, path: &str) -> Vec<Problem> {
    let mut problems = Vec::new();
    structure(schema, Level::Root, path, &mut problems);
    complete(schema, Some(schema), path, path, &mut problems);
    problems.sort_by_cached_key(|problem| format!("{}: {}", problem.path, problem.detail));
    problems
}

fn structure(s: &Structural, level: Level, path: &str, problems: &mut Vec<Problem>) {
    if s.ty == "array" && s.items.is_none() {
        problems.push(Problem::required(format!("{path}.items"), "must be specified"));
    }
    if let Some(items) = &s.items {
        structure(items, Level::Item, &format!("{path}.items"), problems);
    }
    for (name, property) in &s.properties {
        structure(property, Level::Field, &format!("{path}.properties[{name}]"), problems);
    }
    let additional = format!("{path}.additionalProperties");
    if s.additional.is_some() && level == Level::Root {
        problems.push(Problem::forbidden(additional.as_str(), "must not be used at the root"));
    }
    if let Some(schema) = s.additional_schema() {
        structure(schema, Level::Field, &additional, problems);
    }
    if s.int_or_string && s.preserve_unknown_fields {
        let path = format!("{path}.x-kubernetes-preserve-unknown-fields");
        problems.push(Problem::invalid(path, true, "must be false if x-kubernetes-int-or-string is true"));
    }
    if s.int_or_string && s.embedded_resource {
        let path = format!("{path}.x-kubernetes-embedded-resource");
        problems.push(Problem::invalid(path, true, "must be false if x-kubernetes-int-or-string is true"));
    }
    values(s, is_int_or_string(&s.values.any_of), first_is_int_or_string(s), path, problems);
    types(s, level, path, problems);
    if s.embedded_resource && s.additional.is_some() {
        let text = "must not be used if x-kubernetes-embedded-resource is set";
        problems.push(Problem::forbidden(additional, text));
    }
    if level == Level::Root || s.embedded_resource {
        for name in ["kind", "apiVersion"] {
            if let Some(field) = s.properties.get(name).filter(|field| field.ty != "string") {
                let path = format!("{path}.properties[{name}].type");
                problems.push(Problem::invalid(path, field.ty.as_str(), "must be string"));
            }
        }
    }
    if let Some(metadata) = s.properties.get("metadata") {
        let path = format!("{path}.properties[metadata]");
        if (level == Level::Root || s.embedded_resource) && metadata.ty != "object" {
            problems.push(Problem::invalid(format!("{path}.type"), metadata.ty.as_str(), "must be object"));
        }
        if level == Level::Root && restricts_more_than_names(metadata) {
            let text =
                "must not specify anything other than name and generateName, but metadata is implicitly specified";
            problems.push(Problem::forbidden(path, text));
        }
    }
    if s.embedded_resource && !s.preserve_unknown_fields && s.properties.is_empty() {
        let text = "must not be empty if x-kubernetes-embedded-resource is true without \
                    x-kubernetes-preserve-unknown-fields";
        problems.push(Problem::required(format!("{path}.properties"), text));
    }
}

fn types(s: &Structural, level: Level, path: &str, problems: &mut Vec<Problem>) {
    let path = format!("{path}.type");
    if s.embedded_resource && s.ty != "object" {
        let text = "must be object if x-kubernetes-embedded-resource is true";
        problems.push(if s.ty.is_empty() {
            Problem::required(path.as_str(), text)
        } else {
            Problem::invalid(path.as_str(), s.ty.as_str(), text)
        });
    } else if s.ty.is_empty() && !s.int_or_string && !s.preserve_unknown_fields {
        let text = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        problems.push(Problem::required(path.as_str(), text));
    }
    if level == Level::Root && !s.ty.is_empty() && s.ty != "object" {
        problems.push(Problem::invalid(path, s.ty.as_str(), "must be object at the root"));
    }
}

fn restricts_more_than_names(metadata: &Structural) -> bool {
    let mut rest = metadata.clone();
    if rest.properties.keys().all(|name| name == "name" || name == "generateName") {
        rest.properties.clear();
    }
    rest.ty.clear();
    rest.default = None;
    rest != Structural::default()
}

/// `anyOf: [{type: integer}, {type: string}]`, which is allowed where a value is either.
fn is_int_or_string(any_of: &[Structural]) -> bool {
    let of_type = |ty: &str| Structural { ty: ty.to_owned(), ..Structural::default() };
    matches!(any_of, [first, second] if *first == of_type("integer") && *second == of_type("string"))
}

fn first_is_int_or_string(s: &Structural) -> bool {
    s.values.all_of.first().is_some_and(|first| is_int_or_string(&first.values.any_of))
}

fn values(s: &Structural, skip_any_of: bool, skip_first_all_of_any_of: bool, path: &str, problems: &mut Vec<Problem>) {
    let v = &s.values;
    if !skip_any_of {
        for (index, one) in v.any_of.iter().enumerate() {
            nested(one, false, &format!("{path}.anyOf[{index}]"), problems);
        }
    }
    for (index, one) in v.all_of.iter().enumerate() {
        nested(one, skip_first_all_of_any_of && index == 0, &format!("{path}.allOf[{index}]"), problems);
    }
    for (index, one) in v.one_of.iter().enumerate() {
        nested(one, false, &format!("{path}.oneOf[{index}]"), problems);
    }
    if let Some(not) = &v.not {
        nested(not, false, &format!("{path}.not"), problems);
    }
    if let Some(pattern) = &v.pattern
        && let Some(error) = pattern.error()
    {
        let text = format!("must be a valid regular expression, but isn't: {error}");
        problems.push(Problem::invalid(format!("{path}.pattern"), pattern.text(), text));
    }
}

fn nested(s: &Structural, skip_any_of: bool, path: &str, problems: &mut Vec<Problem>) {
    values(s, skip_any_of, false, path, problems);
    if let Some(items) = &s.items {
        nested(items, false, &format!("{path}.items"), problems);
    }
    for (name, property) in &s.properties {
        nested(property, false, &format!("{path}.properties[{name}]"), problems);
    }
    let mut forbid = |is_set: bool, name: &str, text: &str| {
        if is_set {
            problems.push(Problem::forbidden(format!("{path}.{name}"), text));
        }
    };
    let (empty, undefined, unset) =
        ("must be empty to be structural", "must be undefined to be structural", "must be false to be structural");
    forbid(!s.ty.is_empty(), "type", empty);
    let additional = matches!(&s.additional, Some(super::Additional::Schema(_) | super::Additional::Any(true)));
    forbid(additional, "additionalProperties", undefined);
    forbid(s.default.is_some(), "default", undefined);
    forbid(!s.title.is_empty(), "title", empty);
    forbid(!s.description.is_empty(), "description", empty);
    forbid(s.nullable, "nullable", unset);
    forbid(s.preserve_unknown_fields, "x-kubernetes-preserve-unknown-fields", unset);
    forbid(s.embedded_resource, "x-kubernetes-embedded-resource", unset);
    forbid(s.int_or_string, "x-kubernetes-int-or-string", unset);
    forbid(!s.list_map_keys.is_empty(), "x-kubernetes-list-map-keys", empty);
    forbid(s.list_type.is_some(), "x-kubernetes-list-type", undefined);
    forbid(s.map_type.is_some(), "x-kubernetes-map-type", undefined);
    forbid(!s.rules.is_empty(), "x-kubernetes-validations", empty);
    let metadata = s.properties.contains_key("metadata");
    forbid(metadata, "properties[metadata]", "must not be specified in a nested context");
}

/// Every field that constraints speak of must be declared. `place` is the structural part for `s`.
fn complete(s: &Structural, place: Option<&Structural>, place_path: &str, path: &str, problems: &mut Vec<Problem>) {
    let v = &s.values;
    if let Some(not) = &v.not {
        nested_complete(not, place, place_path, &format!("{path}.not"), problems);
    }
    for (name, all) in [("allOf", &v.all_of), ("anyOf", &v.any_of), ("oneOf", &v.one_of)] {
        for (index, one) in all.iter().enumerate() {
            nested_complete(one, place, place_path, &format!("{path}.{name}[{index}]"), problems);
        }
    }
}

fn nested_complete(
    s: &Structural,
    place: Option<&Structural>,
    place_path: &str,
    path: &str,
    problems: &mut Vec<Problem>,
) {
    let Some(place) = place else {
        problems.push(Problem::required(place_path, format!("because it is defined in {path}")));
        return;
    };
    complete(s, Some(place), place_path, path, problems);
    if let Some(items) = &s.items {
        let (place_path, path) = (format!("{place_path}.items"), format!("{path}.items"));
        nested_complete(items, place.items.as_deref(), &place_path, &path, problems);
    }
    for (name, property) in &s.properties {
        let (place_path, path) = (format!("{place_path}.properties[{name}]"), format!("{path}.properties[{name}]"));
        nested_complete(property, place.properties.get(name), &place_path, &path, problems);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found(schema: Value) -> Vec<String> {
        let schema = Structural::parse(&schema).unwrap();
        check(&schema, "s").into_iter().map(|p| format!("{}: {}", p.path, p.detail)).collect()
    }

    #[test]
    fn structural_schemas_pass() {
        let schema = json!({
            "type": "object",
            "properties": {
                "metadata": {"type": "object", "properties": {"name": {"type": "string", "pattern": "^a"}}},
                "spec": {"type": "object", "required": ["a"], "properties": {
                    "a": {"type": "integer"},
                    "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                    "any": {"x-kubernetes-preserve-unknown-fields": true},
                    "list": {"type": "array", "items": {"type": "string"}},
                    "map": {"type": "object", "additionalProperties": {"type": "string"}},
                }, "anyOf": [{"required": ["a"]}, {"properties": {"a": {"minimum": 3}}}]},
            },
        });
        assert_eq!(found(schema), [""; 0]);
    }

    #[test]
    fn others_are_named_with_the_reason() {
        let schema = json!({
            "properties": {
                "metadata": {"type": "object", "properties": {"labels": {"type": "object"}}},
                "a": {"type": "array"},
                "b": {},
                "c": {"type": "object", "allOf": [{"type": "object", "properties": {"x": {"default": 1}}}]},
                "d": {"type": "string", "pattern": "("},
            },
            "anyOf": [{"properties": {"e": {"minimum": 1}}}],
        });
        assert_eq!(
            found(schema),
            [
                "s.properties[a].items: must be specified",
                "s.properties[b].type: must not be empty for specified object fields",
                "s.properties[c].allOf[0].properties[x].default: must be undefined to be structural",
                "s.properties[c].allOf[0].type: must be empty to be structural",
                "s.properties[d].pattern: must be a valid regular expression, but isn't: error parsing regexp: error: unclosed group",
                "s.properties[e]: because it is defined in s.anyOf[0].properties[e]",
                "s.properties[metadata]: must not specify anything other than name and generateName, but metadata is implicitly specified",
                "s.type: must not be empty at the root",
            ]
        );
        for unsupported in [json!({"$ref": "x"}), json!({"items": []}), json!({"definitions": {"a": {}}})] {
            assert!(Structural::parse(&unsupported).is_err());
        }
    }
}
