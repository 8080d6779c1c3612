//! Expressions with what comes of them, from text files.
//!
//! A line is `expression ==> value`, or after the arrow `error: text` for what fails while it runs, `compile: text` for
//! a complaint that the compiler makes (a part of its first line, or of all of it), `cost: number` for what running it
//! costs, `estimate: min max` for the bounds known before. `#` starts a comment.

use std::sync::Arc;

use cel::{Budget, Decl, Env, ListKind, ObjectType, Type, Value, Variables, show};
use serde_json::json;

/// `self`: an object with one field of each kind.
struct Declared;

struct Inner;

impl ObjectType for Inner {
    fn name(&self) -> &str {
        "object"
    }

    fn field(&self, name: &str) -> Option<Decl> {
        matches!(name, "a-b" | "namespace").then_some(Decl::String { max_length: 10 })
    }
}

impl ObjectType for Declared {
    fn name(&self) -> &str {
        "object"
    }

    fn field(&self, name: &str) -> Option<Decl> {
        let text = Decl::String { max_length: 20 };
        Some(match name {
            "replicas" | "minReplicas" => Decl::Plain(Type::Int),
            "ratio" => Decl::Plain(Type::Double),
            "name" | "missing" => text,
            "long" => Decl::String { max_length: 3_145_726 },
            "port" => Decl::Any { max_bytes: 3_145_726 },
            "when" => Decl::Timestamp { max_length: 20 },
            "wait" => Decl::Duration { max_length: 30 },
            "data" => Decl::Bytes { max_length: 40 },
            "tags" => Decl::List { items: Arc::new(text), max_items: 10, kind: ListKind::Atomic },
            "set" => Decl::List { items: Arc::new(text), max_items: 10, kind: ListKind::Set },
            "many" => Decl::List { items: Arc::new(text), max_items: 1_000_000, kind: ListKind::Atomic },
            "labels" => Decl::Map { values: Arc::new(text), max_properties: 10 },
            "inner" => Decl::Object(Arc::new(Inner)),
            _ => return None,
        })
    }
}

fn environment() -> Env {
    Env::new()
        .variable("self", Decl::Object(Arc::new(Declared)))
        .variable("any", Decl::dynamic())
        .variable("authorizer.requestResource", Decl::Plain(Type::Int))
}

#[expect(clippy::unwrap_used, reason = "the object is as it is declared")]
fn check(file: &str) {
    let object = json!({
        "replicas": 3, "minReplicas": 5, "ratio": 1, "name": "web", "long": "x", "port": "80%",
        "when": "2024-05-06T07:08:09Z", "wait": "1h30m", "data": "aGVsbG8=", "tags": ["a", "b", "c"],
        "set": ["x", "y"], "many": [], "labels": {"app": "web", "tier": "front"},
        "inner": {"a-b": "dash", "namespace": "ns"}
    });
    let any = json!({
        "i": 1, "d": 1.5, "s": "text", "n": null, "l": [1, 2.0, "three"], "m": {"a": {"b": [true]}}, "big": 9e18,
        "dotted.key": 1
    });
    let env = environment();
    let variables = Variables::new()
        .with("self", Value::of_json(&object, &Decl::Object(Arc::new(Declared))).unwrap())
        .with("any", Value::of_plain_json(&any))
        .with("authorizer.requestResource", Value::Int(7));
    let mut wrong = Vec::new();
    for (number, line) in file.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let (expression, expected) =
            line.split_once(" ==> ").unwrap_or_else(|| panic!("line {}: no arrow", number + 1));
        let (expression, expected) = (expression.trim(), expected.trim());
        let mut budget = Budget::new(100_000_000);
        let found = match env.compile(expression) {
            Err(errors) => {
                let text = errors.to_string();
                match expected.strip_prefix("compile: ") {
                    Some(part) if text.contains(part) => expected.to_owned(),
                    _ => format!("compile: {text}"),
                }
            }
            Ok(program) => match expected.split_once(": ") {
                Some(("estimate", _)) => {
                    let range = program.estimate();
                    format!("estimate: {} {}", range.min, range.max)
                }
                Some(("cost", _)) => {
                    let before = budget.left();
                    let _ = program.eval(&variables, &mut budget);
                    format!("cost: {}", before - budget.left())
                }
                _ => match program.eval(&variables, &mut budget) {
                    Ok(value) => show::literal(&value),
                    Err(error) => format!("error: {error}"),
                },
            },
        };
        if found != expected {
            wrong.push(format!("line {}: {expression}\n  expected {expected}\n  found    {found}", number + 1));
        }
    }
    assert!(wrong.is_empty(), "{} lines:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_language() {
    check(include_str!("language.txt"));
}

#[test]
fn the_libraries() {
    check(include_str!("libraries.txt"));
}

#[test]
fn the_checker() {
    check(include_str!("checker.txt"));
}

#[test]
fn the_costs() {
    check(include_str!("costs.txt"));
}
