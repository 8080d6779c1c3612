//! Tables as `kubectl get` shows them (`meta.k8s.io` `Table`): columns per kind, and a row of cells per object.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{fields::Fields, selector::LabelSelector};

mod cluster;
mod core;
mod duration;
mod furniture;
mod network;
mod pod;
mod previews;
mod storage;
mod workloads;

pub(crate) use cluster::*;
pub(crate) use core::*;
pub(crate) use furniture::*;
pub(crate) use network::*;
pub(crate) use pod::*;
pub(crate) use previews::*;
pub(crate) use storage::*;
pub(crate) use workloads::*;

pub use duration::{age, human_duration};

/// `metav1.TableColumnDefinition`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: Cow<'static, str>,
    /// OpenAPI type: `string`, `integer`, `number`, `boolean`.
    pub kind: Cow<'static, str>,
    /// `name` marks the primary identifier.
    pub format: Cow<'static, str>,
    pub description: Cow<'static, str>,
    /// 0 is always shown, 1 with `-o wide`.
    pub priority: i32,
}

impl Column {
    pub const fn name() -> Column {
        Column {
            name: Cow::Borrowed("Name"),
            kind: Cow::Borrowed("string"),
            format: Cow::Borrowed("name"),
            description: Cow::Borrowed("Name must be unique within a namespace."),
            priority: 0,
        }
    }

    pub const fn string(name: &'static str, description: &'static str) -> Column {
        Column::of(name, "string", description)
    }

    pub const fn integer(name: &'static str, description: &'static str) -> Column {
        Column::of(name, "integer", description)
    }

    pub const fn boolean(name: &'static str, description: &'static str) -> Column {
        Column::of(name, "boolean", description)
    }

    pub const fn age() -> Column {
        Column::of("Age", "string", "Time since the object was created.")
    }

    /// Shown with `-o wide` only.
    pub const fn wide(mut self) -> Column {
        self.priority = 1;
        self
    }

    const fn of(name: &'static str, kind: &'static str, description: &'static str) -> Column {
        Column {
            name: Cow::Borrowed(name),
            kind: Cow::Borrowed(kind),
            format: Cow::Borrowed(""),
            description: Cow::Borrowed(description),
            priority: 0,
        }
    }

    /// As in `Table.columnDefinitions`.
    pub fn to_value(&self) -> Value {
        json!({
            "name": self.name, "type": self.kind, "format": self.format,
            "description": self.description, "priority": self.priority,
        })
    }
}

/// What kinds without columns of their own show.
pub const NAME_AND_CREATION: &[Column] = &[
    Column::name(),
    Column {
        name: Cow::Borrowed("Created At"),
        kind: Cow::Borrowed("date"),
        format: Cow::Borrowed(""),
        description: Cow::Borrowed("Time since the object was created."),
        priority: 0,
    },
];

const NONE: &str = "<none>";
const UNSET: &str = "<unset>";
const UNKNOWN: &str = "<unknown>";
/// So many of a list are shown before the rest is only counted.
const SHOWN_MAX: usize = 3;

pub(crate) const NAME_AGE: &[Column] = &[Column::name(), Column::age()];

pub(crate) fn name_age(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![name(object), since(object, now)]
}

fn name(object: &Value) -> Value {
    object.part("metadata").text("name").into()
}

/// The age of an object.
fn since(object: &Value, now: Timestamp) -> Value {
    age_of(object.part("metadata"), "creationTimestamp", now).into()
}

fn age_of(holder: &Value, name: &str, now: Timestamp) -> String {
    age(holder.at(name).and_then(Value::as_str), now)
}

fn or_else(text: &str, otherwise: &str) -> Value {
    if text.is_empty() { otherwise.into() } else { text.into() }
}

fn number(holder: &Value, name: &str) -> Value {
    holder.int(name).unwrap_or_default().into()
}

/// A quantity or number as text.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "0".to_owned(),
        other => other.to_string(),
    }
}

/// `a=b,c=d`, or nothing of it.
fn labels(labels: &Value) -> Value {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    or_else(&pairs.join(","), NONE)
}

fn selector(selector: &Value) -> Value {
    match LabelSelector::from_value(Some(selector)) {
        Err(_) => "<error>".into(),
        Ok(selector) => or_else(&selector.to_string(), NONE),
    }
}

/// Names and images of a template's containers.
fn containers(spec: &Value) -> [Value; 2] {
    let all = spec.part("template").part("spec").list("containers");
    ["name", "image"].map(|field| all.iter().map(|one| one.text(field)).collect::<Vec<_>>().join(",").into())
}

/// The first few, and how many more there are.
fn shortened(list: &[String]) -> String {
    if list.is_empty() {
        return UNSET.to_owned();
    }
    let shown = list.iter().take(SHOWN_MAX).cloned().collect::<Vec<_>>().join(",");
    if list.len() > SHOWN_MAX { format!("{shown} + {} more...", list.len() - SHOWN_MAX) } else { shown }
}

/// Addresses of a load balancer, in order and each once.
fn load_balancer(status: &Value) -> String {
    let ingress = status.part("loadBalancer").list("ingress").iter();
    let all: std::collections::BTreeSet<&str> = ingress
        .map(|one| if one.text("ip").is_empty() { one.text("hostname") } else { one.text("ip") })
        .filter(|one| !one.is_empty())
        .collect();
    all.into_iter().collect::<Vec<_>>().join(",")
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<&'a Value> {
    object.part("status").list("conditions").iter().find(|one| one.text("type") == kind)
}

fn holds(object: &Value, kind: &str) -> bool {
    condition(object, kind).is_some_and(|one| one.text("status") == "True")
}

/// Cells for [`NAME_AND_CREATION`]: the time as it stands, for the client to turn into an age.
pub fn name_and_creation(object: &Value, _now: Timestamp) -> Vec<Value> {
    let text = |path: &str| Value::from(object.pointer(path).and_then(Value::as_str).unwrap_or_default());
    vec![text("/metadata/name"), text("/metadata/creationTimestamp")]
}

#[cfg(test)]
mod tests;
