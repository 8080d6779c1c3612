//! Types of the variables that expressions see.

use std::sync::{Arc, LazyLock};

use cel::{Decl, Env, ListKind, ObjectType, Objects, Type};

/// An object type with its fields written out.
struct Declared {
    name: &'static str,
    fields: Vec<(&'static str, Decl)>,
}

impl ObjectType for Declared {
    fn name(&self) -> &str {
        self.name
    }

    fn field(&self, name: &str) -> Option<Decl> {
        self.fields.iter().find(|(found, _)| *found == name).map(|(_, decl)| decl.clone())
    }
}

fn object(name: &'static str, fields: Vec<(&'static str, Decl)>) -> Decl {
    Decl::Object(Arc::new(Declared { name, fields }))
}

fn list(items: Decl) -> Decl {
    Decl::List { items: Arc::new(items), max_items: 0, kind: ListKind::Atomic }
}

fn map(values: Decl) -> Decl {
    Decl::Map { values: Arc::new(values), max_properties: 0 }
}

fn text() -> Decl {
    Decl::Plain(Type::String)
}

/// `request` (upstream: `BuildRequestType`).
pub static REQUEST: LazyLock<Decl> = LazyLock::new(|| {
    let kind = object("kubernetes.GroupVersionKind", vec![("group", text()), ("version", text()), ("kind", text())]);
    let resource =
        object("kubernetes.GroupVersionResource", vec![("group", text()), ("version", text()), ("resource", text())]);
    let user = object(
        "kubernetes.UserInfo",
        vec![("username", text()), ("uid", text()), ("groups", list(text())), ("extra", map(list(text())))],
    );
    object(
        "kubernetes.AdmissionRequest",
        vec![
            ("kind", kind.clone()),
            ("resource", resource.clone()),
            ("subResource", text()),
            ("requestKind", kind),
            ("requestResource", resource),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", user),
            ("dryRun", Decl::Plain(Type::Bool)),
            ("options", Decl::dynamic()),
        ],
    )
});

/// `namespaceObject` (upstream: `BuildNamespaceType`).
pub static NAMESPACE: LazyLock<Decl> = LazyLock::new(|| {
    let time = || Decl::Plain(Type::Timestamp);
    let condition = object(
        "kubernetes.NamespaceCondition",
        vec![
            ("status", text()),
            ("type", text()),
            ("lastTransitionTime", time()),
            ("message", text()),
            ("reason", text()),
        ],
    );
    let metadata = object(
        "kubernetes.NamespaceMetadata",
        vec![
            ("name", text()),
            ("generateName", text()),
            ("namespace", text()),
            ("labels", map(text())),
            ("annotations", map(text())),
            ("UID", text()),
            ("creationTimestamp", time()),
            ("deletionGracePeriodSeconds", Decl::Plain(Type::Int)),
            ("deletionTimestamp", time()),
            ("generation", Decl::Plain(Type::Int)),
            ("resourceVersion", text()),
            ("finalizers", list(text())),
        ],
    );
    object(
        "kubernetes.Namespace",
        vec![
            ("metadata", metadata),
            ("spec", object("kubernetes.NamespaceSpec", vec![("finalizers", list(text()))])),
            ("status", object("kubernetes.NamespaceStatus", vec![("conditions", list(condition)), ("phase", text())])),
        ],
    )
});

/// What an environment has beside `object`, `oldObject`, `request` and `namespaceObject`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras {
    pub params: bool,
    pub authorizer: bool,
    /// `Object{}` and `JSONPatch{}` can be made.
    pub patches: bool,
}

pub fn environment(object: Decl, params: Decl, extras: Extras) -> Env {
    let mut env = Env::new()
        .variable("object", object.clone())
        .variable("oldObject", object)
        .variable("request", REQUEST.clone())
        .variable("namespaceObject", NAMESPACE.clone());
    if extras.params {
        env = env.variable("params", params);
    }
    if extras.authorizer {
        env = env
            .variable("authorizer", Decl::Plain(Type::opaque(cel::AUTHORIZER)))
            .variable("authorizer.requestResource", Decl::Plain(Type::opaque(cel::RESOURCE_CHECK)));
    }
    if extras.patches { env.objects(Arc::new(Patches)) } else { env }
}

/// `variables`: what a policy's variables evaluate to.
#[derive(Clone, Default)]
pub struct VariableTypes {
    pub known: Vec<(String, Type)>,
}

impl ObjectType for VariableTypes {
    fn name(&self) -> &str {
        "kubernetes.variables"
    }

    fn field(&self, name: &str) -> Option<Decl> {
        self.known.iter().find(|(found, _)| found == name).map(|(_, ty)| Decl::Plain(ty.clone()))
    }

    fn plain_names(&self) -> bool {
        true
    }
}

pub const OBJECT: &str = "Object";
pub const JSON_PATCH: &str = "JSONPatch";

/// Types of what mutations make: parts of the object by their paths, and operations of a JSON patch.
struct Patches;

impl Objects for Patches {
    fn object(&self, name: &str) -> Option<Arc<dyn ObjectType>> {
        if name == JSON_PATCH {
            return Some(Arc::new(Declared {
                name: JSON_PATCH,
                fields: vec![("op", text()), ("path", text()), ("from", text()), ("value", Decl::dynamic())],
            }));
        }
        let part = name == OBJECT || name.strip_prefix(OBJECT).is_some_and(|rest| rest.starts_with('.'));
        part.then(|| Arc::new(Part { name: name.to_owned() }) as Arc<dyn ObjectType>)
    }
}

/// A part of the object: it may have any field.
struct Part {
    name: String,
}

impl ObjectType for Part {
    fn name(&self) -> &str {
        &self.name
    }

    fn field(&self, _: &str) -> Option<Decl> {
        Some(Decl::dynamic())
    }
}
