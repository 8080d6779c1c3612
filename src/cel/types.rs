//! Types of values, and declarations: a type with the bounds that a schema puts on its sizes.

use std::fmt;
use std::sync::Arc;

/// The static type of an expression.
#[derive(Clone)]
pub enum Type {
    Dyn,
    /// Of an expression that was reported already.
    Error,
    Null,
    Bool,
    Int,
    Uint,
    Double,
    String,
    Bytes,
    Timestamp,
    Duration,
    List(Arc<Type>),
    /// Keys and values.
    Map(Arc<(Type, Type)>),
    Object(Arc<dyn ObjectType>),
    /// A type of a library, such as `kubernetes.URL`; `optional_type` has a parameter.
    Opaque(&'static str, Option<Arc<Type>>),
    /// The type of types.
    Type(Option<Arc<Type>>),
    /// Not known yet; numbered by the checker, or a parameter of a signature.
    Param(u32),
}

pub const OPTIONAL: &str = "optional_type";
pub const URL: &str = "kubernetes.URL";
pub const IP: &str = "net.IP";
pub const CIDR: &str = "net.CIDR";
pub const QUANTITY: &str = "kubernetes.Quantity";
pub const SEMVER: &str = "kubernetes.Semver";
pub const FORMAT: &str = "kubernetes.NamedFormat";
pub const AUTHORIZER: &str = "kubernetes.authorization.Authorizer";
pub const PATH_CHECK: &str = "kubernetes.authorization.PathCheck";
pub const GROUP_CHECK: &str = "kubernetes.authorization.GroupCheck";
pub const RESOURCE_CHECK: &str = "kubernetes.authorization.ResourceCheck";
pub const DECISION: &str = "kubernetes.authorization.Decision";

/// An object with declared fields. Two are the same type if their names are the same.
pub trait ObjectType: Send + Sync {
    /// As complaints show it (upstream: `object`, or the path of the type such as `Object.spec`).
    fn name(&self) -> &str;

    /// The declaration of a field by its name in JSON (not escaped), `None` if there is no such field.
    fn field(&self, name: &str) -> Option<Decl>;

    /// Field names in expressions are the JSON names themselves, without `__dot__` and the like.
    fn plain_names(&self) -> bool {
        false
    }
}

/// How the items of a list belong together (`x-kubernetes-list-type`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListKind {
    Atomic,
    /// Equal regardless of order; `+` unites.
    Set,
    /// Items with the same values in these fields are one; `+` replaces.
    Map(Arc<[String]>),
}

/// What is known of a variable, field or item: its type, and bounds of its size for estimates (upstream: `DeclType`
/// with `MaxElements`). Cheap to clone.
#[derive(Clone)]
pub enum Decl {
    /// Anything whose size does not matter, or is not known (`Type::Dyn`).
    Plain(Type),
    /// A value of any type whose text has at most that many bytes (`x-kubernetes-int-or-string`).
    Any {
        max_bytes: u64,
    },
    String {
        max_length: u64,
    },
    /// A string in base64 (`format: byte`).
    Bytes {
        max_length: u64,
    },
    /// RFC 3339 (`format: date-time`), or a date (`format: date`).
    Timestamp {
        max_length: u64,
    },
    /// `format: duration`.
    Duration {
        max_length: u64,
    },
    List {
        items: Arc<Decl>,
        max_items: u64,
        kind: ListKind,
    },
    /// Keys are strings.
    Map {
        values: Arc<Decl>,
        max_properties: u64,
    },
    Object(Arc<dyn ObjectType>),
}

impl Decl {
    pub fn dynamic() -> Decl {
        Decl::Plain(Type::Dyn)
    }

    pub fn ty(&self) -> Type {
        match self {
            Decl::Plain(ty) => ty.clone(),
            Decl::Any { .. } => Type::Dyn,
            Decl::String { .. } => Type::String,
            Decl::Bytes { .. } => Type::Bytes,
            Decl::Timestamp { .. } => Type::Timestamp,
            Decl::Duration { .. } => Type::Duration,
            Decl::List { items, .. } => Type::list(items.ty()),
            Decl::Map { values, .. } => Type::map(Type::String, values.ty()),
            Decl::Object(object) => Type::Object(object.clone()),
        }
    }

    /// The most characters, items or entries that a value can have.
    pub fn size_max(&self) -> u64 {
        match self {
            Decl::Plain(_) | Decl::Object(_) => 0,
            Decl::Any { max_bytes } => *max_bytes,
            Decl::String { max_length }
            | Decl::Bytes { max_length }
            | Decl::Timestamp { max_length }
            | Decl::Duration { max_length } => *max_length,
            Decl::List { max_items, .. } => *max_items,
            Decl::Map { max_properties, .. } => *max_properties,
        }
    }

    /// The field of an object by its name in expressions.
    pub fn field(&self, name: &str) -> Option<Decl> {
        match self {
            Decl::Object(object) => declared_field(&**object, name),
            _ => None,
        }
    }
}

/// A field by its name in expressions.
pub fn declared_field(object: &dyn ObjectType, name: &str) -> Option<Decl> {
    if object.plain_names() {
        return object.field(name);
    }
    let json = crate::names::unescape(name)?;
    // Only the escaped form is a name: what escapes to something else is not reachable as it stands.
    (crate::names::escape(&json)? == name).then(|| object.field(&json)).flatten()
}

impl Type {
    pub fn list(items: Type) -> Type {
        Type::List(Arc::new(items))
    }

    pub fn map(keys: Type, values: Type) -> Type {
        Type::Map(Arc::new((keys, values)))
    }

    pub fn optional(of: Type) -> Type {
        Type::Opaque(OPTIONAL, Some(Arc::new(of)))
    }

    pub fn opaque(name: &'static str) -> Type {
        Type::Opaque(name, None)
    }

    /// Whatever is not known at compile time.
    pub fn is_dyn(&self) -> bool {
        matches!(self, Type::Dyn)
    }

    pub fn is_scalar(&self) -> bool {
        match self {
            Type::Bool | Type::Double | Type::Duration | Type::Int | Type::Timestamp | Type::Uint => true,
            Type::Opaque(OPTIONAL, Some(of)) => of.is_scalar(),
            _ => false,
        }
    }

    pub fn unwrap_optional(&self) -> (Type, bool) {
        match self {
            Type::Opaque(OPTIONAL, Some(of)) => ((**of).clone(), true),
            other => (other.clone(), false),
        }
    }

    /// The same, not only compatible.
    pub fn same(&self, other: &Type) -> bool {
        match (self, other) {
            (Type::List(a), Type::List(b)) => a.same(b),
            (Type::Map(a), Type::Map(b)) => a.0.same(&b.0) && a.1.same(&b.1),
            (Type::Object(a), Type::Object(b)) => a.name() == b.name(),
            (Type::Opaque(a, x), Type::Opaque(b, y)) => a == b && same_parameter(x.as_ref(), y.as_ref()),
            (Type::Type(a), Type::Type(b)) => same_parameter(a.as_ref(), b.as_ref()),
            (Type::Param(a), Type::Param(b)) => a == b,
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

fn same_parameter(a: Option<&Arc<Type>>, b: Option<&Arc<Type>>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.same(b),
        (None, None) => true,
        _ => false,
    }
}

impl fmt::Debug for Type {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// As complaints show types.
impl fmt::Display for Type {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Type::Dyn => "dyn",
            Type::Error => "!error!",
            Type::Null => "null",
            Type::Bool => "bool",
            Type::Int => "int",
            Type::Uint => "uint",
            Type::Double => "double",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::Timestamp => "timestamp",
            Type::Duration => "duration",
            Type::List(items) => return write!(out, "list({items})"),
            Type::Map(of) => return write!(out, "map({}, {})", of.0, of.1),
            Type::Object(object) => object.name(),
            Type::Opaque(name, None) => name,
            Type::Opaque(name, Some(of)) => return write!(out, "{name}({of})"),
            Type::Type(None) => "type",
            Type::Type(Some(of)) => return write!(out, "type({of})"),
            Type::Param(number) => return write!(out, "_var{number}"),
        };
        out.write_str(name)
    }
}
