//! Tables as `kubectl get` shows them (`meta.k8s.io` `Table`): columns per kind, and a row of cells per object.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::{Value, json};

mod duration;

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

/// Cells for [`NAME_AND_CREATION`]: the time as it stands, for the client to turn into an age.
pub fn name_and_creation(object: &Value, _now: Timestamp) -> Vec<Value> {
    let text = |path: &str| Value::from(object.pointer(path).and_then(Value::as_str).unwrap_or_default());
    vec![text("/metadata/name"), text("/metadata/creationTimestamp")]
}
