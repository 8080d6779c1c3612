//! JSON patch (RFC 6902), `application/json-patch+json`.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

/// How many operations a patch may have.
pub const OPERATIONS_MAX: usize = 10_000;

/// By how many bytes, roughly, all copy operations of a patch may make a document grow.
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;

/// How deep a patch may make a document.
const DEPTH_MAX: usize = 256;

/// How often the real depth is looked up when the estimate has become too large.
const DEPTH_LOOKUPS_MAX: usize = 16;

/// A parsed patch.
#[derive(Debug, Clone)]
pub struct JsonPatch {
    operations: Vec<Operation>,
}

/// Why a patch is refused. `TooMany` is 413, `Malformed` (not even operations) 400, everything else 422.
#[derive(Debug, thiserror::Error)]
pub enum JsonPatchError {
    #[error("error decoding patch: {0}")]
    Malformed(String),
    #[error("The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {0}")]
    TooMany(usize),
    #[error("{0}")]
    Operation(String),
    #[error("testing value {0} failed: test failed")]
    TestFailed(String),
    #[error("{operation} operation does not apply: {problem}: missing value")]
    Missing { operation: &'static str, problem: String },
    #[error("error in {operation} for path: '{path}': {problem}")]
    Key { operation: &'static str, path: String, problem: String },
    #[error(
        "unable to complete the copy, the accumulated size increase of copy is {0}, exceeding the limit {COPIED_BYTES_MAX}"
    )]
    TooMuchCopied(usize),
    #[error("the patch nests the document deeper than {DEPTH_MAX} levels")]
    TooDeep,
}

#[derive(Debug, Clone)]
enum Operation {
    Add { path: String, value: Value },
    Remove { path: String },
    Replace { path: String, value: Value },
    Move { from: String, path: String },
    Copy { from: String, path: String },
    Test { path: String, value: Value },
}

#[derive(Deserialize)]
struct RawOperation {
    #[serde(default)]
    op: String,
    path: Option<String>,
    from: Option<String>,
    #[serde(default)]
    value: Value,
}

impl JsonPatch {
    /// Reads a patch document.
    pub fn parse(json: &[u8]) -> Result<JsonPatch, JsonPatchError> {
        let raw: Option<Vec<RawOperation>> =
            serde_json::from_slice(json).map_err(|e| JsonPatchError::Malformed(e.to_string()))?;
        let raw = raw.unwrap_or_default();
        if raw.len() > OPERATIONS_MAX {
            return Err(JsonPatchError::TooMany(raw.len()));
        }
        let operations = raw.into_iter().map(operation).collect::<Result<_, _>>()?;
        Ok(JsonPatch { operations })
    }

    /// Applies all operations in their order.
    pub fn apply(&self, document: &mut Value) -> Result<(), JsonPatchError> {
        let mut limits = Limits { copied_bytes: 0, depth: depth(document), depth_lookups: 0 };
        for operation in &self.operations {
            apply(document, operation, &mut limits)?;
            limits.check_depth(document, operation)?;
        }
        Ok(())
    }
}

/// What a patch has used up. A few bytes of operations can make a document that no stack holds.
struct Limits {
    copied_bytes: usize,
    /// At least how deep the document is.
    depth: usize,
    depth_lookups: usize,
}

impl Limits {
    fn check_depth(&mut self, document: &Value, operation: &Operation) -> Result<(), JsonPatchError> {
        let segments = |path: &str| path.matches('/').count();
        let reached = match operation {
            Operation::Add { path, value } | Operation::Replace { path, value } => segments(path) + depth(value),
            Operation::Move { from, path } | Operation::Copy { from, path } => {
                segments(path) + self.depth.saturating_sub(segments(from))
            }
            Operation::Remove { .. } | Operation::Test { .. } => return Ok(()),
        };
        self.depth = self.depth.max(reached);
        if self.depth > DEPTH_MAX {
            self.depth_lookups += 1;
            self.depth = if self.depth_lookups > DEPTH_LOOKUPS_MAX { usize::MAX } else { depth(document) };
        }
        if self.depth > DEPTH_MAX { Err(JsonPatchError::TooDeep) } else { Ok(()) }
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        _ => 1,
    }
}

fn operation(raw: RawOperation) -> Result<Operation, JsonPatchError> {
    let malformed = |what: &str| JsonPatchError::Operation(format!("operation {:?} {what}", raw.op));
    let path = raw.path.ok_or_else(|| malformed("has no path"))?;
    let from = raw.from.ok_or_else(|| malformed("has no from"));
    match raw.op.as_str() {
        "add" => Ok(Operation::Add { path, value: raw.value }),
        "remove" => Ok(Operation::Remove { path }),
        "replace" => Ok(Operation::Replace { path, value: raw.value }),
        "move" => Ok(Operation::Move { from: from?, path }),
        "copy" => Ok(Operation::Copy { from: from?, path }),
        "test" => Ok(Operation::Test { path, value: raw.value }),
        other => Err(JsonPatchError::Operation(format!("Unexpected kind: {other}"))),
    }
}

fn apply(document: &mut Value, operation: &Operation, limits: &mut Limits) -> Result<(), JsonPatchError> {
    match operation {
        Operation::Add { path, value } => add(document, path, value.clone(), "add"),
        Operation::Remove { path } => remove(document, path, "remove").map(drop),
        Operation::Replace { path, value } => {
            if path.is_empty() {
                *document = value.clone();
                return Ok(());
            }
            let (container, key) = container(document, path).ok_or_else(|| missing_path("replace", path))?;
            // Upstream's library adds a key that an object does not have.
            if let Value::Object(map) = container {
                map.insert(key.into_owned(), value.clone());
                return Ok(());
            }
            *child_mut(container, &key).ok_or_else(|| JsonPatchError::Missing {
                operation: "replace",
                problem: format!("doc is missing key: {path}"),
            })? = value.clone();
            Ok(())
        }
        Operation::Move { from, path } => {
            if from == path {
                return get(document, from).map(|_| ()).ok_or_else(|| missing_from("move", from));
            }
            if path.strip_prefix(from.as_str()).is_some_and(|rest| rest.starts_with('/')) {
                let problem = String::from("cannot move a value into itself");
                return Err(JsonPatchError::Key { operation: "move", path: path.clone(), problem });
            }
            let value = remove(document, from, "move")?;
            add(document, path, value, "move")
        }
        Operation::Copy { from, path } => {
            // And copies null from one.
            let absent = matches!(container(document, from), Some((Value::Object(_), _))).then_some(&Value::Null);
            let value = get(document, from).or(absent).ok_or_else(|| missing_from("copy", from))?.clone();
            limits.copied_bytes += size_bytes(&value);
            if limits.copied_bytes > COPIED_BYTES_MAX {
                return Err(JsonPatchError::TooMuchCopied(limits.copied_bytes));
            }
            add(document, path, value, "copy")
        }
        Operation::Test { path, value } => {
            let passed = match get(document, path) {
                Some(found) => same(found, value),
                // A field that is not there tests equal to null.
                None => value.is_null() && container(document, path).is_some(),
            };
            if passed { Ok(()) } else { Err(JsonPatchError::TestFailed(path.clone())) }
        }
    }
}

fn add(document: &mut Value, path: &str, value: Value, operation: &'static str) -> Result<(), JsonPatchError> {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let (container, key) = container(document, path).ok_or_else(|| missing_path(operation, path))?;
    match container {
        Value::Object(map) => {
            map.insert(key.into_owned(), value);
        }
        Value::Array(items) => {
            let index = if key == "-" { Some(items.len()) } else { index(&key, items.len() + 1) };
            match index {
                Some(index) if index <= items.len() => items.insert(index, value),
                _ => return Err(invalid_index(operation, path, &key)),
            }
        }
        _ => return Err(missing_path(operation, path)),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str, operation: &'static str) -> Result<Value, JsonPatchError> {
    let (container, key) = container(document, path).ok_or_else(|| missing_path(operation, path))?;
    match container {
        Value::Object(map) => map.remove(key.as_ref()).ok_or_else(|| JsonPatchError::Key {
            operation,
            path: path.to_owned(),
            problem: format!("unable to remove nonexistent key: {key}: missing value"),
        }),
        Value::Array(items) => match index(&key, items.len()) {
            Some(index) if index < items.len() => Ok(items.remove(index)),
            _ => Err(invalid_index(operation, path, &key)),
        },
        _ => Err(missing_path(operation, path)),
    }
}

/// The object or array that the last part of the path is a key of, and that part.
fn container<'d, 'p>(document: &'d mut Value, path: &'p str) -> Option<(&'d mut Value, Cow<'p, str>)> {
    let (parents, last) = path.strip_prefix('/')?.rsplit_once('/').unwrap_or(("", path.strip_prefix('/')?));
    let mut at = document;
    if path.rfind('/') != Some(0) {
        for part in parents.split('/') {
            at = child_mut(at, &unescape(part))?;
        }
    }
    matches!(at, Value::Object(_) | Value::Array(_)).then(|| (at, unescape(last)))
}

fn get<'d>(document: &'d Value, path: &str) -> Option<&'d Value> {
    if path.is_empty() {
        return Some(document);
    }
    path.strip_prefix('/')?.split('/').try_fold(document, |at, part| match at {
        Value::Object(map) => map.get(unescape(part).as_ref()),
        Value::Array(items) => items.get(index(part, items.len())?),
        _ => None,
    })
}

fn child_mut<'d>(container: &'d mut Value, key: &str) -> Option<&'d mut Value> {
    match container {
        Value::Object(map) => map.get_mut(key),
        Value::Array(items) => {
            let index = index(key, items.len())?;
            items.get_mut(index)
        }
        _ => None,
    }
}

/// An array index; upstream also counts negative ones from the end.
fn index(key: &str, len: usize) -> Option<usize> {
    match key.strip_prefix('-') {
        Some(from_end) => len.checked_sub(from_end.parse().ok().filter(|n: &usize| *n > 0)?),
        None => key.parse().ok(),
    }
}

fn unescape(part: &str) -> Cow<'_, str> {
    if part.contains('~') { Cow::Owned(part.replace("~1", "/").replace("~0", "~")) } else { Cow::Borrowed(part) }
}

/// Equality in which `1` is `1.0`.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(k, a)| b.get(k).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

/// About how long the value is as JSON.
fn size_bytes(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 4,
        Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(|i| size_bytes(i) + 1).sum::<usize>() + 2,
        Value::Object(map) => map.iter().map(|(k, v)| k.len() + size_bytes(v) + 4).sum::<usize>() + 2,
    }
}

fn missing_path(operation: &'static str, path: &str) -> JsonPatchError {
    JsonPatchError::Missing { operation, problem: format!("doc is missing path: {path:?}") }
}

fn missing_from(operation: &'static str, path: &str) -> JsonPatchError {
    JsonPatchError::Missing { operation, problem: format!("doc is missing from path: {path:?}") }
}

fn invalid_index(operation: &'static str, path: &str, key: &str) -> JsonPatchError {
    let problem = format!("Unable to access invalid index: {key}: invalid index referenced");
    JsonPatchError::Key { operation, path: path.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(document: Value, patch: &Value) -> Result<Value, String> {
        let mut document = document;
        let patch = JsonPatch::parse(patch.to_string().as_bytes()).map_err(|e| e.to_string())?;
        patch.apply(&mut document).map_err(|e| e.to_string())?;
        Ok(document)
    }

    #[test]
    fn operations() {
        for (document, patch, expected) in [
            (json!({"a": 1}), json!([{"op": "add", "path": "/b", "value": 2}]), json!({"a": 1, "b": 2})),
            (json!({"a": [1, 3]}), json!([{"op": "add", "path": "/a/1", "value": 2}]), json!({"a": [1, 2, 3]})),
            (json!({"a": [1]}), json!([{"op": "add", "path": "/a/-", "value": 2}]), json!({"a": [1, 2]})),
            (json!({"a": [1]}), json!([{"op": "add", "path": "/a/1", "value": 2}]), json!({"a": [1, 2]})),
            (json!({"a": [1, 2]}), json!([{"op": "remove", "path": "/a/0"}]), json!({"a": [2]})),
            (json!({"a": [1, 2]}), json!([{"op": "remove", "path": "/a/-1"}]), json!({"a": [1]})),
            (json!({"a": 1}), json!([{"op": "replace", "path": "/a", "value": null}]), json!({"a": null})),
            (json!({"a": 1}), json!([{"op": "replace", "path": "", "value": {"b": 1}}]), json!({"b": 1})),
            (json!({"a/b": {"m~n": 1}}), json!([{"op": "remove", "path": "/a~1b/m~0n"}]), json!({"a/b": {}})),
            (json!({"a": {"b": 1}}), json!([{"op": "move", "from": "/a/b", "path": "/c"}]), json!({"a": {}, "c": 1})),
            (json!({"a": [1]}), json!([{"op": "copy", "from": "/a", "path": "/b"}]), json!({"a": [1], "b": [1]})),
            (json!({"a": 1}), json!([{"op": "test", "path": "/a", "value": 1.0}]), json!({"a": 1})),
            (json!({"a": 1}), json!([{"op": "test", "path": "/b", "value": null}]), json!({"a": 1})),
            (json!({"": 1}), json!([{"op": "add", "path": "/", "value": 2}]), json!({"": 2})),
            (json!({}), json!([{"op": "replace", "path": "/a", "value": 2}]), json!({"a": 2})),
            (json!({}), json!([{"op": "copy", "from": "/a", "path": "/b"}]), json!({"b": null})),
            (json!({"a": 1}), json!(null), json!({"a": 1})),
        ] {
            assert_eq!(patched(document, &patch).unwrap(), expected, "{patch}");
        }
    }

    #[test]
    fn errors_read_as_upstream() {
        for (patch, expected) in [
            (json!([{"op": "test", "path": "/a", "value": 2}]), "testing value /a failed: test failed"),
            (
                json!([{"op": "add", "path": "/x/y", "value": 2}]),
                r#"add operation does not apply: doc is missing path: "/x/y": missing value"#,
            ),
            (
                json!([{"op": "remove", "path": "/x"}]),
                "error in remove for path: '/x': unable to remove nonexistent key: x: missing value",
            ),
            (
                json!([{"op": "replace", "path": "/l/7", "value": 1}]),
                "replace operation does not apply: doc is missing key: /l/7: missing value",
            ),
            (
                json!([{"op": "add", "path": "/l/5", "value": 1}]),
                "error in add for path: '/l/5': Unable to access invalid index: 5: invalid index referenced",
            ),
            (
                json!([{"op": "copy", "from": "/x/y", "path": "/b"}]),
                r#"copy operation does not apply: doc is missing from path: "/x/y": missing value"#,
            ),
            (json!([{"op": "nope", "path": "/a"}]), "Unexpected kind: nope"),
        ] {
            assert_eq!(patched(json!({"a": 1, "l": [1]}), &patch).unwrap_err(), expected);
        }
        assert!(patched(json!({"a": {}}), &json!([{"op": "move", "from": "/a", "path": "/a/b"}])).is_err());
        assert!(patched(json!({"a": 1}), &json!([{"op": "add", "path": "b", "value": 1}])).is_err());
        assert!(patched(json!({"a": 1}), &json!({"op": "add"})).is_err());
    }

    #[test]
    fn patches_are_bounded() {
        let many: Vec<Value> = (0..=OPERATIONS_MAX).map(|_| json!({"op": "remove", "path": "/a"})).collect();
        let error = patched(json!({}), &Value::Array(many)).unwrap_err();
        assert_eq!(error, "The allowed maximum operations in a JSON patch is 10000, got 10001");
        // Each copy doubles the document.
        let bomb: Vec<Value> = (0..40).map(|i| json!({"op": "copy", "from": "", "path": format!("/x{i}")})).collect();
        assert!(patched(json!({"a": 1}), &Value::Array(bomb)).unwrap_err().starts_with("unable to complete the copy"));
        // Each pair of operations puts the document one level down.
        let nest = (0..4000).flat_map(|i| {
            let (a, b) = if i % 2 == 0 { ("/a", "/b") } else { ("/b", "/a") };
            [json!({"op": "add", "path": b, "value": {}}), json!({"op": "move", "from": a, "path": format!("{b}/x")})]
        });
        let error = patched(json!({"a": {}}), &nest.collect()).unwrap_err();
        assert_eq!(error, "the patch nests the document deeper than 256 levels");
        // Moving about is no nesting.
        let about = (0..2000).map(|i| {
            let (a, b) = if i % 2 == 0 { ("/a/x", "/a/b/y") } else { ("/a/b/y", "/a/x") };
            json!({"op": "move", "from": a, "path": b})
        });
        assert!(patched(json!({"a": {"x": {}, "b": {}}}), &about.collect()).is_ok());
    }
}
