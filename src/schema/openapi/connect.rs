//! Paths of subresources that answer with streams: exec, attach, port-forward, proxies and logs.

use serde_json::{Map, Value, json};

use super::Dialect;
use super::paths::{Endpoint, Verb, base_path, parameter, tag, title};
use super::schemas::{capitalized, object, put};

const STREAMS: &[&str] = &["container", "stderr", "stdin", "stdout", "tty"];
const EXEC: &[&str] = &["command", "container", "stderr", "stdin", "stdout", "tty"];
const LOG: &[&str] = &[
    "container",
    "follow",
    "insecureSkipTLSVerifyBackend",
    "limitBytes",
    "pretty",
    "previous",
    "sinceSeconds",
    "stream",
    "tailLines",
    "timestamps",
];
const LOG_TYPES: [&str; 4] =
    ["text/plain", "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];

/// The parameters in the query of a subresource that is a stream; `None` for all others.
pub(super) fn parameters(subresource: &str) -> Option<&'static [&'static str]> {
    Some(match subresource {
        "attach" => STREAMS,
        "exec" => EXEC,
        "log" => LOG,
        "portforward" => &["ports"],
        "proxy" => &["path"],
        _ => return None,
    })
}

/// Writes the paths of such a subresource.
pub(super) fn connect(
    e: &Endpoint<'_>,
    subresource: &str,
    query: &[&str],
    dialect: Dialect,
    paths: &mut Map<String, Value>,
) {
    let scope = if e.namespaced { "/namespaces/{namespace}" } else { "" };
    let path = format!("{}{scope}/{}/{{name}}/{subresource}", base_path(e.group, e.version), e.resource);
    let mut names: Vec<(&str, bool)> = query.iter().map(|name| (*name, false)).collect();
    names.push(("name", true));
    names.extend(e.namespaced.then_some(("namespace", true)));
    if subresource == "proxy" {
        // What follows is the path that is asked for there.
        let below = names.iter().copied().chain([("path", true)]).collect();
        paths.insert(format!("{path}/{{path}}"), item(e, subresource, "WithPath", below, dialect));
    }
    paths.insert(path, item(e, subresource, "", names, dialect));
}

fn item(e: &Endpoint<'_>, subresource: &str, suffix: &str, mut names: Vec<(&str, bool)>, dialect: Dialect) -> Value {
    names.sort_unstable_by_key(|(name, in_path)| (*name, !in_path));
    let parameters = names.iter().map(|(name, in_path)| parameter(name, *in_path, dialect)).collect();
    let mut item = object([("parameters", Value::Array(parameters))]);
    for method in methods(e.verbs, subresource) {
        put(&mut item, method, operation(e, subresource, suffix, method, dialect));
    }
    Value::Object(item)
}

fn methods(verbs: &[Verb], subresource: &str) -> Vec<&'static str> {
    let mut methods: Vec<&str> = verbs
        .iter()
        .filter_map(|verb| match verb {
            Verb::Get => Some("get"),
            Verb::Create => Some("post"),
            Verb::Update => Some("put"),
            Verb::Patch => Some("patch"),
            Verb::Delete => Some("delete"),
            Verb::List | Verb::Watch | Verb::DeleteCollection => None,
        })
        .collect();
    if subresource == "proxy" {
        methods.extend(["head", "options"]);
    }
    methods
}

fn operation(e: &Endpoint<'_>, subresource: &str, suffix: &str, method: &str, dialect: Dialect) -> Value {
    let title = title(e.group, e.version);
    let scope = if e.namespaced { "Namespaced" } else { "" };
    let what = format!("{scope}{}{}{suffix}", e.kind, capitalized(subresource));
    let (id, action, media) = match subresource {
        "log" => (format!("read{title}{what}"), "get", &LOG_TYPES[..]),
        _ => (format!("connect{title}{}{what}", capitalized(method)), "connect", &["*/*"][..]),
    };
    let (group, version, kind) = e.body.unwrap_or((e.group, e.version, e.kind));
    let text = json!({"type": "string"});
    let mut answer = object([("description", json!("OK"))]);
    match dialect {
        Dialect::V2 => put(&mut answer, "schema", text),
        Dialect::V3 => {
            let content: Map<String, Value> =
                media.iter().map(|media| ((*media).to_owned(), json!({"schema": text}))).collect();
            put(&mut answer, "content", Value::Object(content));
        }
    }
    let mut operation = object([
        ("operationId", Value::String(id)),
        ("tags", json!([tag(e.group, e.version)])),
        ("x-kubernetes-action", json!(action)),
        ("x-kubernetes-group-version-kind", json!({"group": group, "version": version, "kind": kind})),
        ("responses", json!({"200": answer, "401": {"description": "Unauthorized"}})),
    ]);
    if dialect == Dialect::V2 {
        put(&mut operation, "consumes", json!(["*/*"]));
        put(&mut operation, "produces", json!(media));
        put(&mut operation, "schemes", json!(["https"]));
    }
    Value::Object(operation)
}
