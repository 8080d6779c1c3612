//! The operations on resources.

use serde_json::{Map, Value, json};

use super::schemas::{Schemas, capitalized, object, put};
use super::{Dialect, connect};

/// What can be done with a resource. `Watch` adds parameters to `List`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
}

/// A resource or subresource that is served.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint<'e> {
    /// Empty for the core group.
    pub group: &'e str,
    pub version: &'e str,
    /// `deployments`
    pub resource: &'e str,
    /// The kind of the resource itself, also where this is a subresource.
    pub kind: &'e str,
    /// The kind of its lists, where that is not the kind with `List` behind it.
    pub list_kind: Option<&'e str>,
    /// A custom resource, which has no binary form and no strategic merge patches.
    pub custom: bool,
    pub namespaced: bool,
    /// `status`, `scale`, ...
    pub subresource: Option<&'e str>,
    /// Group, version and kind of bodies where they are not the resource's (`autoscaling`, `v1`, `Scale`).
    pub body: Option<(&'e str, &'e str, &'e str)>,
    pub verbs: &'e [Verb],
}

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const MEDIA_TYPES: [&str; 3] = ["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"];
const CUSTOM_MEDIA_TYPES: [&str; 2] = ["application/json", "application/yaml"];
const STREAM_TYPES: [&str; 2] = ["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"];
const PATCH_TYPES: [&str; 4] = [
    "application/apply-patch+yaml",
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
];
const CUSTOM_PATCH_TYPES: [&str; 3] =
    ["application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json"];

const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
const PATCH: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];
const DELETE: &[&str] = &[
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
];
const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "shardSelector",
    "timeoutSeconds",
    "watch",
];

/// An operation before its parameters are sorted into its own and its path's.
struct Operation {
    method: &'static str,
    parameters: Vec<&'static str>,
    body: Map<String, Value>,
}

/// The path of a group-version: `/api/v1` or `/apis/apps/v1`.
pub(super) fn base_path(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// Writes the discovery path of a group-version.
pub(super) fn discovery(group: &str, version: &str, schemas: &mut Schemas<'_>) -> (String, Value) {
    let path = format!("{}/", base_path(group, version));
    let list = format!("{META}APIResourceList");
    let operation = object([
        ("operationId", Value::String(format!("get{}APIResources", title(group, version)))),
        ("tags", json!([tag(group, version)])),
        ("responses", responses(schemas, &["200"], Some(&list), &[&MEDIA_TYPES])),
    ]);
    (path, Value::Object(object([("get", Value::Object(operation))])))
}

/// Writes all paths of an endpoint.
pub(super) fn endpoint(e: &Endpoint<'_>, schemas: &mut Schemas<'_>, paths: &mut Map<String, Value>) {
    if let Some(subresource) = e.subresource
        && let Some(query) = connect::parameters(subresource)
    {
        return connect::connect(e, subresource, query, schemas.dialect, paths);
    }
    let base = base_path(e.group, e.version);
    let scope = if e.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{base}{scope}/{}", e.resource);
    let place = if e.namespaced { &["namespace"][..] } else { &[] };
    let has = |verb| e.verbs.contains(&verb);
    if e.subresource.is_none() {
        let mut operations = Vec::new();
        for (verb, make) in [
            (Verb::Create, create as fn(&Endpoint<'_>, &mut Schemas<'_>) -> Operation),
            (Verb::DeleteCollection, delete_collection),
            (Verb::List, list),
        ] {
            if has(verb) {
                operations.push(make(e, schemas));
            }
        }
        put_path(paths, collection.clone(), operations, place, e, schemas);
        if e.namespaced && has(Verb::List) {
            let mut all = list(e, schemas);
            let id = format!("list{}{}ForAllNamespaces", title(e.group, e.version), e.kind);
            put(&mut all.body, "operationId", Value::String(id));
            put_path(paths, format!("{base}/{}", e.resource), vec![all], &[], e, schemas);
        }
    }
    let mut operations = Vec::new();
    for (verb, make) in [
        (Verb::Get, read as fn(&Endpoint<'_>, &mut Schemas<'_>) -> Operation),
        (Verb::Update, replace),
        (Verb::Patch, patch),
        (Verb::Delete, delete),
    ] {
        if has(verb) {
            operations.push(make(e, schemas));
        }
    }
    if e.subresource.is_some() && has(Verb::Create) {
        operations.push(create(e, schemas));
    }
    let below = e.subresource.map(|s| format!("/{s}")).unwrap_or_default();
    let place: Vec<&str> = place.iter().copied().chain(["name"]).collect();
    put_path(paths, format!("{collection}/{{name}}{below}"), operations, &place, e, schemas);
}

fn read(e: &Endpoint<'_>, schemas: &mut Schemas<'_>) -> Operation {
    let body = body(e, schemas, "read", "get", &["200"]);
    Operation { method: "get", parameters: Vec::new(), body }
}

fn replace(e: &Endpoint<'_>, schemas: &mut Schemas<'_>) -> Operation {
    let mut body = body(e, schemas, "replace", "put", &["200", "201"]);
    let ty = body_type(e, schemas);
    put_request(&mut body, schemas, &["*/*"], &ty, true);
    Operation { method: "put", parameters: WRITE.to_vec(), body }
}

fn create(e: &Endpoint<'_>, schemas: &mut Schemas<'_>) -> Operation {
    let mut body = body(e, schemas, "create", "post", &["200", "201", "202"]);
    let ty = body_type(e, schemas);
    put_request(&mut body, schemas, &["*/*"], &ty, true);
    Operation { method: "post", parameters: WRITE.to_vec(), body }
}

fn patch(e: &Endpoint<'_>, schemas: &mut Schemas<'_>) -> Operation {
    let mut body = body(e, schemas, "patch", "patch", &["200", "201"]);
    let media = if e.custom { &CUSTOM_PATCH_TYPES[..] } else { &PATCH_TYPES[..] };
    put_request(&mut body, schemas, media, &format!("{META}Patch"), true);
    Operation { method: "patch", parameters: PATCH.to_vec(), body }
}

fn delete(e: &Endpoint<'_>, schemas: &mut Schemas<'_>) -> Operation {
    let mut body = body(e, schemas, "delete", "delete", &[]);
    put(&mut body, "responses", responses(schemas, &["200", "202"], Some(&format!("{META}Status")), &[e.media()]));
    put_request(&mut body, schemas, &["*/*"], &format!("{META}DeleteOptions"), false);
    Operation { method: "delete", parameters: DELETE.to_vec(), body }
}

fn delete_collection(e: &Endpoint<'_>, schemas: &mut Schemas<'_>) -> Operation {
    let mut body = body(e, schemas, "delete", "deletecollection", &[]);
    let id = format!(
        "delete{}Collection{}{}",
        title(e.group, e.version),
        if e.namespaced { "Namespaced" } else { "" },
        e.kind
    );
    put(&mut body, "operationId", Value::String(id));
    put(&mut body, "responses", responses(schemas, &["200"], Some(&format!("{META}Status")), &[e.media()]));
    put_request(&mut body, schemas, &["*/*"], &format!("{META}DeleteOptions"), false);
    let selection = LIST.iter().filter(|p| !matches!(**p, "allowWatchBookmarks" | "watch"));
    let mut parameters: Vec<&str> = DELETE.iter().chain(selection).copied().collect();
    parameters.sort_unstable();
    Operation { method: "delete", parameters, body }
}

fn list(e: &Endpoint<'_>, schemas: &mut Schemas<'_>) -> Operation {
    let mut body = body(e, schemas, "list", "list", &[]);
    let list_kind = e.list_kind.map_or_else(|| format!("{}List", e.kind), str::to_owned);
    let list = schemas.of_kind(e.group, e.version, &list_kind);
    let watched = e.verbs.contains(&Verb::Watch) && !e.custom;
    let streams = if watched { &STREAM_TYPES[..] } else { &[] };
    put(&mut body, "responses", responses(schemas, &["200"], list.as_deref(), &[e.media(), streams]));
    Operation { method: "get", parameters: LIST.to_vec(), body }
}

/// What all operations have.
fn body(
    e: &Endpoint<'_>,
    schemas: &mut Schemas<'_>,
    operation: &str,
    action: &str,
    codes: &[&str],
) -> Map<String, Value> {
    let scope = if e.namespaced { "Namespaced" } else { "" };
    let subresource = e.subresource.map(|s| s.split('/').map(capitalized).collect::<String>()).unwrap_or_default();
    let id = format!("{operation}{}{scope}{}{subresource}", title(e.group, e.version), e.kind);
    let (group, version, kind) = e.body.unwrap_or((e.group, e.version, e.kind));
    let ty = body_type(e, schemas);
    object([
        ("operationId", Value::String(id)),
        ("tags", json!([tag(e.group, e.version)])),
        ("x-kubernetes-action", json!(action)),
        ("x-kubernetes-group-version-kind", json!({"group": group, "version": version, "kind": kind})),
        ("responses", responses(schemas, codes, Some(&ty), &[e.media()])),
    ])
}

/// The definition of bodies; empty if the table does not have it.
fn body_type(e: &Endpoint<'_>, schemas: &Schemas<'_>) -> String {
    let (group, version, kind) = e.body.unwrap_or((e.group, e.version, e.kind));
    schemas.of_kind(group, version, kind).unwrap_or_default()
}

impl Endpoint<'_> {
    fn media(&self) -> &'static [&'static str] {
        if self.custom { &CUSTOM_MEDIA_TYPES } else { &MEDIA_TYPES }
    }
}

fn responses(schemas: &mut Schemas<'_>, codes: &[&str], ty: Option<&str>, media: &[&[&str]]) -> Value {
    let mut responses = object([("401", json!({"description": "Unauthorized"}))]);
    for code in codes {
        let description = match *code {
            "201" => "Created",
            "202" => "Accepted",
            _ => "OK",
        };
        let mut response = object([("description", json!(description))]);
        if let Some(ty) = ty.filter(|ty| !ty.is_empty()) {
            let schema = json!({"$ref": schemas.reference(ty)});
            match schemas.dialect {
                Dialect::V2 => put(&mut response, "schema", schema),
                Dialect::V3 => {
                    let content: Map<String, Value> = media
                        .iter()
                        .copied()
                        .flatten()
                        .map(|media| ((*media).to_owned(), json!({"schema": schema})))
                        .collect();
                    put(&mut response, "content", Value::Object(content));
                }
            }
        }
        put(&mut responses, code, Value::Object(response));
    }
    Value::Object(responses)
}

/// Puts the request's body; in the older dialect it is a parameter, sorted in by [`put_path`].
fn put_request(body: &mut Map<String, Value>, schemas: &mut Schemas<'_>, media: &[&str], ty: &str, required: bool) {
    if ty.is_empty() {
        return;
    }
    let schema = json!({"$ref": schemas.reference(ty)});
    match schemas.dialect {
        Dialect::V2 => {
            let mut parameter = object([("in", json!("body")), ("name", json!("body")), ("schema", schema)]);
            if required {
                put(&mut parameter, "required", json!(true));
            }
            put(body, "parameters", Value::Array(vec![Value::Object(parameter)]));
            put(body, "consumes", json!(media));
        }
        Dialect::V3 => {
            let content: Map<String, Value> =
                media.iter().map(|m| ((*m).to_owned(), json!({"schema": schema}))).collect();
            let mut request = object([("content", Value::Object(content))]);
            if required {
                put(&mut request, "required", json!(true));
            }
            put(body, "requestBody", Value::Object(request));
        }
    }
}

/// Writes a path. Parameters that all its operations have are the path's.
fn put_path(
    paths: &mut Map<String, Value>,
    path: String,
    operations: Vec<Operation>,
    place: &[&str],
    e: &Endpoint<'_>,
    schemas: &Schemas<'_>,
) {
    let Some(first) = operations.first() else { return };
    let common: Vec<&str> =
        first.parameters.iter().filter(|p| operations.iter().all(|o| o.parameters.contains(p))).copied().collect();
    let mut names: Vec<(&str, bool)> = common.iter().map(|p| (*p, false)).chain([("pretty", false)]).collect();
    names.extend(place.iter().map(|p| (*p, true)));
    names.sort_unstable();
    let shared: Vec<Value> = names.iter().map(|(name, in_path)| parameter(name, *in_path, schemas.dialect)).collect();
    let mut item = object([("parameters", Value::Array(shared))]);
    for mut operation in operations {
        let own = operation.parameters.iter().filter(|p| !common.contains(p));
        let own: Vec<Value> = own.map(|name| parameter(name, false, schemas.dialect)).collect();
        if !own.is_empty() {
            let parameters = operation.body.entry("parameters").or_insert_with(|| json!([]));
            if let Value::Array(parameters) = parameters {
                parameters.extend(own);
            }
        }
        if schemas.dialect == Dialect::V2 {
            let streams = operation.parameters.contains(&"watch") && !e.custom;
            let streams = if streams { &STREAM_TYPES[..] } else { &[] };
            let produces: Vec<&str> = e.media().iter().chain(streams).copied().collect();
            put(&mut operation.body, "produces", json!(produces));
            operation.body.entry("consumes").or_insert_with(|| json!(["*/*"]));
            put(&mut operation.body, "schemes", json!(["https"]));
        }
        put(&mut item, operation.method, Value::Object(operation.body));
    }
    paths.insert(path, Value::Object(item));
}

pub(super) fn parameter(name: &str, in_path: bool, dialect: Dialect) -> Value {
    let ty = match name {
        "gracePeriodSeconds" | "limit" | "limitBytes" | "ports" | "sinceSeconds" | "tailLines" | "timeoutSeconds" => {
            "integer"
        }
        "allowWatchBookmarks"
        | "follow"
        | "force"
        | "ignoreStoreReadErrorWithClusterBreakingPotential"
        | "insecureSkipTLSVerifyBackend"
        | "orphanDependents"
        | "previous"
        | "sendInitialEvents"
        | "stderr"
        | "stdin"
        | "stdout"
        | "timestamps"
        | "tty"
        | "watch" => "boolean",
        _ => "string",
    };
    let mut parameter = object([("name", json!(name)), ("in", json!(if in_path { "path" } else { "query" }))]);
    if in_path {
        put(&mut parameter, "required", json!(true));
    }
    match dialect {
        Dialect::V2 => {
            put(&mut parameter, "type", json!(ty));
            put(&mut parameter, "uniqueItems", json!(true));
        }
        Dialect::V3 => put(&mut parameter, "schema", json!({"type": ty, "uniqueItems": true})),
    }
    Value::Object(parameter)
}

/// `AppsV1`, `CoreV1`, `RbacAuthorizationV1`
pub(super) fn title(group: &str, version: &str) -> String {
    format!("{}{}", group_title(group), capitalized(version))
}

fn group_title(group: &str) -> String {
    let group = if group.is_empty() { "core" } else { group.strip_suffix(".k8s.io").unwrap_or(group) };
    group.split('.').map(capitalized).collect()
}

/// `apps_v1`, `core_v1`, `rbacAuthorization_v1`
pub(super) fn tag(group: &str, version: &str) -> String {
    let title = group_title(group);
    let mut chars = title.chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase()).unwrap_or_default();
    format!("{first}{}_{version}", chars.as_str())
}
