//! Values at run time. What comes from JSON stays where it is until it is looked at.

pub mod compare;
mod json;
mod map;
mod own;
pub mod show;
mod text;
mod timestamp;

use std::fmt;
use std::sync::Arc;

use crate::budget::Budget;
use crate::error::EvalError;
use crate::library::{authz, format, ip, quantity::Quantity, semver::Semver, url::Url};
use crate::types::{self, Decl, ListKind};

pub use map::{Key, Map};
pub use text::Text;
pub use timestamp::{Date, Timestamp};

/// A value; copies share what is behind them.
#[derive(Clone)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    String(Text<'a>),
    Bytes(Arc<[u8]>),
    /// Years 1 to 9999.
    Timestamp(Timestamp),
    /// In nanoseconds.
    Duration(i64),
    List(List<'a>),
    Map(Map<'a>),
    /// An object made in the expression: `Object.spec{replicas: 1}`.
    Struct(Arc<Struct<'a>>),
    Optional(Option<Arc<Value<'a>>>),
    /// A type, by its name.
    Type(Arc<str>),
    Library(Library<'a>),
    /// Fields that are computed when they are asked for.
    Lazy(&'a (dyn Fields + 'a)),
}

/// Values of the types that Kubernetes' libraries add.
#[derive(Clone)]
pub enum Library<'a> {
    Url(Arc<Url>),
    Ip(std::net::IpAddr),
    Cidr(ip::Cidr),
    Quantity(Quantity),
    Semver(Arc<Semver>),
    Format(format::Format),
    Authorizer(authz::Check<'a>),
    Decision(Arc<authz::Decided>),
}

#[derive(Clone)]
pub enum List<'a> {
    Json { items: &'a [serde_json::Value], decl: Arc<Decl>, kind: ListKind },
    Shared(Arc<Vec<Value<'a>>>),
}

pub struct Struct<'a> {
    pub name: Arc<str>,
    pub fields: Map<'a>,
}

/// Something with fields that are computed on demand, at most once each if the implementor keeps them (upstream:
/// `lazy.MapValue`). What it costs goes to the budget of the whole.
pub trait Fields: Sync {
    /// `None`: there is no such field.
    fn field<'s>(&'s self, name: &str, budget: &mut Budget) -> Option<Result<Value<'s>, EvalError>>;
}

impl<'a> Value<'a> {
    pub fn string(text: impl Into<Arc<str>>) -> Value<'a> {
        Value::String(Text::Shared(text.into()))
    }

    pub fn list(items: Vec<Value<'a>>) -> Value<'a> {
        Value::List(List::Shared(Arc::new(items)))
    }

    pub fn some(value: Value<'a>) -> Value<'a> {
        Value::Optional(Some(Arc::new(value)))
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::String(text) => Some(text),
            _ => None,
        }
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The name of its type.
    pub fn type_name(&self) -> &str {
        match self {
            Value::Null => "null_type",
            Value::Bool(_) => "bool",
            Value::Int(_) => "int",
            Value::Uint(_) => "uint",
            Value::Double(_) => "double",
            Value::String(_) => "string",
            Value::Bytes(_) => "bytes",
            Value::Timestamp(_) => "google.protobuf.Timestamp",
            Value::Duration(_) => "google.protobuf.Duration",
            Value::List(_) => "list",
            Value::Map(map) => map.type_name(),
            Value::Struct(of) => &of.name,
            Value::Optional(_) => types::OPTIONAL,
            Value::Type(_) => "type",
            Value::Lazy(_) => "map",
            Value::Library(value) => match value {
                Library::Url(_) => types::URL,
                Library::Ip(_) => types::IP,
                Library::Cidr(_) => types::CIDR,
                Library::Quantity(_) => types::QUANTITY,
                Library::Semver(_) => types::SEMVER,
                Library::Format(_) => types::FORMAT,
                Library::Authorizer(check) => check.type_name(),
                Library::Decision(_) => types::DECISION,
            },
        }
    }

    /// Characters, bytes, items or entries; 1 for everything else.
    pub fn cost_size(&self) -> u64 {
        match self {
            Value::Optional(Some(value)) => value.cost_size(),
            Value::Library(Library::Cidr(cidr)) => cidr.cost_size(),
            Value::Library(Library::Ip(address)) => ip::cost_size(address),
            other => other.size().unwrap_or(1),
        }
    }

    /// What `size()` says, `None` where it says nothing.
    pub fn size(&self) -> Option<u64> {
        Some(match self {
            Value::String(text) => text.chars().count() as u64,
            Value::Bytes(bytes) => bytes.len() as u64,
            Value::List(list) => list.len() as u64,
            Value::Map(map) => map.len() as u64,
            _ => return None,
        })
    }

    /// Nothing to speak of: what `optional.ofNonZeroValue` takes for absent.
    pub fn is_zero(&self) -> bool {
        match self {
            Value::Null => true,
            Value::Bool(value) => !value,
            Value::Int(value) => *value == 0,
            Value::Uint(value) => *value == 0,
            Value::Double(value) => *value == 0.0,
            Value::String(text) => text.is_empty(),
            Value::Bytes(bytes) => bytes.is_empty(),
            Value::Duration(nanos) => *nanos == 0,
            Value::List(list) => list.is_empty(),
            Value::Map(map) => map.is_empty(),
            Value::Struct(of) => of.fields.is_empty(),
            Value::Optional(of) => of.is_none(),
            _ => false,
        }
    }
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            List::Json { items, .. } => items.len(),
            List::Shared(items) => items.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `None` beyond the end.
    pub fn get(&self, index: usize) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            List::Json { items, decl, .. } => items.get(index).map(|item| Value::of_json(item, decl)),
            List::Shared(items) => items.get(index).cloned().map(Ok),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Result<Value<'a>, EvalError>> + '_ {
        (0..self.len()).filter_map(|index| self.get(index))
    }

    pub fn to_vec(&self) -> Result<Vec<Value<'a>>, EvalError> {
        self.iter().collect()
    }
}

impl fmt::Debug for Value<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&show::literal(self))
    }
}
