//! Compares with reference data of upstream, where it lies beside the repository.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test, its helpers included")]

use std::path::{Path, PathBuf};

use schema::Types;
use schema::managed;
use schema::openapi::{Endpoint, Verb, v3};
use schema::patch::strategic_merge;
use schema::validation::{check_types, unknown_fields};
use serde_json::Value;

/// The reference data, or None with a word on why.
fn shared(what: &str) -> Option<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let candidates = [repository.join("../shared"), repository.join("../../shared")];
    let found = candidates.iter().map(|c| c.join("kubernetes-1.36").join(what)).find(|p| p.is_dir());
    if found.is_none() {
        eprintln!("nothing compared: there is no ../shared/kubernetes-1.36/{what} beside the repository");
    }
    found
}

fn documents(directory: &Path) -> Vec<(String, Value)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .map(|p| {
            let name = p.file_stem().unwrap().to_string_lossy().into_owned();
            (name, serde_json::from_slice(&std::fs::read(&p).unwrap()).unwrap())
        })
        .collect()
}

#[test]
fn filled_in_objects_have_only_known_fields_of_the_right_types() {
    let Some(directory) = shared("roundtrip") else { return };
    let mut compared = 0;
    for (name, value) in documents(&directory) {
        let (Some(api_version), Some(kind)) = (value["apiVersion"].as_str(), value["kind"].as_str()) else { continue };
        let Some(ty) = Types::builtin().api_version_kind(api_version, kind) else { continue };
        assert_eq!(unknown_fields(&value, ty), Vec::<String>::new(), "{name}");
        if let Err(e) = check_types(&value, ty) {
            panic!("{name}: {e}");
        }
        compared += 1;
    }
    assert!(compared > 90, "{compared}");
}

#[test]
fn filled_in_objects_survive_all_that_is_done_to_objects() {
    let Some(directory) = shared("roundtrip") else { return };
    for (name, mut value) in documents(&directory) {
        let (Some(api_version), Some(kind)) = (value["apiVersion"].as_str(), value["kind"].as_str()) else { continue };
        let (api_version, kind) = (api_version.to_owned(), kind.to_owned());
        let Some(ty) = Types::builtin().api_version_kind(&api_version, &kind) else { continue };
        if ty.path(&["metadata", "name"]).is_none() {
            continue;
        }
        let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) else { continue };
        metadata.remove("managedFields");
        managed::validate(&value, ty).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert!(managed::compare(&value, &value, ty).is_empty(), "{name}");
        let same = |merged: &Value| {
            let changes = managed::compare(&value, merged, ty);
            assert!(changes.is_empty(), "{name}: {changes:?}");
        };
        same(&managed::merge(&value, &value, ty));
        let mut patched = value.clone();
        strategic_merge(&mut patched, value.clone(), ty).unwrap_or_else(|e| panic!("{name}: {e}"));
        // In a patch null takes out.
        if !value.to_string().contains(":null") {
            same(&patched);
        }

        // Whoever applies all of it owns all of it, and takes all of it along.
        let write = managed::Write {
            ty,
            manager: "one",
            api_version: &api_version,
            subresource: "",
            reset_fields: None,
            now: "2026-01-01T00:00:00Z",
        };
        let applied = managed::apply(None, &value, false, &write).unwrap_or_else(|e| panic!("{name}: {e}"));
        same(&applied);
        let again = managed::apply(Some(&applied), &value, false, &write).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(applied, again, "{name}");
        let bare = serde_json::json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x"}});
        let mut left = managed::apply(Some(&applied), &bare, false, &write).unwrap_or_else(|e| panic!("{name}: {e}"));
        let metadata = left["metadata"].as_object_mut().unwrap();
        for unowned in ["uid", "resourceVersion", "generation", "creationTimestamp", "selfLink", "namespace"] {
            metadata.remove(unowned);
        }
        let changes = managed::compare(&bare, &left, ty);
        assert!(changes.is_empty(), "{name}: {changes:?}");
    }
}

/// Without descriptions, required fields in one order.
fn normalized(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter(|(name, value)| !(*name == "description" && value.is_string()))
                .map(|(name, value)| {
                    let mut value = normalized(value);
                    if name == "required"
                        && let Value::Array(names) = &mut value
                    {
                        names.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
                    }
                    if name == "x-kubernetes-group-version-kind"
                        && let Value::Array(kinds) = &mut value
                    {
                        kinds.sort_by_key(Value::to_string);
                    }
                    (name.clone(), value)
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.iter().map(normalized).collect()),
        other => other.clone(),
    }
}

/// What upstream's document serves, read from its operations.
struct Served {
    resource: String,
    kind: String,
    namespaced: bool,
    subresource: Option<String>,
    body: (String, String, String),
    verbs: Vec<Verb>,
}

fn served(base: &str, document: &Value) -> Vec<Served> {
    let mut all: Vec<Served> = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let Some(rest) = path.strip_prefix(base).and_then(|p| p.strip_prefix('/')) else { continue };
        if rest.is_empty() || rest.starts_with("watch/") {
            continue;
        }
        let (namespaced, rest) = match rest.strip_prefix("namespaces/{namespace}/") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        let mut parts = rest.splitn(3, '/');
        let resource = parts.next().unwrap().to_owned();
        let (_name, subresource) = (parts.next(), parts.next().map(str::to_owned));
        for (method, operation) in item.as_object().unwrap().iter().filter(|(_, o)| o.is_object()) {
            let connected: &[Verb] = match method.as_str() {
                "get" => &[Verb::Get],
                "post" => &[Verb::Create],
                "put" => &[Verb::Update],
                "patch" => &[Verb::Patch],
                "delete" => &[Verb::Delete],
                _ => &[],
            };
            let Some(action) = operation["x-kubernetes-action"].as_str() else { continue };
            if operation["operationId"].as_str().unwrap().ends_with("ForAllNamespaces") {
                continue;
            }
            let verbs: &[Verb] = match action {
                "get" => &[Verb::Get],
                "list" => &[Verb::List, Verb::Watch],
                "post" => &[Verb::Create],
                "put" => &[Verb::Update],
                "patch" => &[Verb::Patch],
                "delete" => &[Verb::Delete],
                "deletecollection" => &[Verb::DeleteCollection],
                "connect" if !operation["operationId"].as_str().unwrap().ends_with("WithPath") => connected,
                _ => continue,
            };
            let gvk = &operation["x-kubernetes-group-version-kind"];
            let text = |name: &str| gvk[name].as_str().unwrap_or_default().to_owned();
            let body = (text("group"), text("version"), text("kind"));
            let known = all.iter_mut().find(|s| s.resource == resource && s.subresource == subresource);
            match known {
                Some(known) => known.verbs.extend(verbs),
                None => all.push(Served {
                    resource: resource.clone(),
                    kind: body.2.clone(),
                    namespaced,
                    subresource: subresource.clone(),
                    body,
                    verbs: verbs.to_vec(),
                }),
            }
        }
    }
    // A subresource's operations are named after the resource's kind.
    let kinds: Vec<(String, String)> =
        all.iter().filter(|s| s.subresource.is_none()).map(|s| (s.resource.clone(), s.kind.clone())).collect();
    for s in all.iter_mut() {
        if let Some((_, kind)) = kinds.iter().find(|(resource, _)| *resource == s.resource) {
            s.kind = kind.clone();
        }
    }
    all
}

#[test]
fn documents_say_of_types_and_operations_what_upstream_says() {
    let Some(directory) = shared("openapi-v3") else { return };
    let (mut schemas, mut operations) = (0, 0);
    for (name, theirs) in documents(&directory) {
        let path = name.trim_end_matches("_openapi");
        let (group, version) = match path.split("__").collect::<Vec<_>>()[..] {
            ["api", version] => ("", version),
            ["apis", group, version] => (group, version),
            _ => continue,
        };
        let base = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let served = served(&base, &theirs);
        let endpoints: Vec<Endpoint<'_>> = served
            .iter()
            .map(|s| Endpoint {
                group,
                version,
                resource: &s.resource,
                kind: &s.kind,
                list_kind: None,
                custom: false,
                namespaced: s.namespaced,
                subresource: s.subresource.as_deref(),
                body: Some((&s.body.0, &s.body.1, &s.body.2)),
                verbs: &s.verbs,
            })
            .collect();
        let all = &theirs["components"]["schemas"];
        let describe = |definition: &str, field: Option<&str>| match field {
            Some(field) => all[definition]["properties"][field]["description"].as_str().map(str::to_owned),
            None => all[definition]["description"].as_str().map(str::to_owned),
        };
        let ours = v3(Types::builtin(), group, version, &endpoints, &[], &describe);

        for (definition, schema) in ours["components"]["schemas"].as_object().unwrap() {
            assert_eq!(normalized(schema), normalized(&all[definition]), "{name}: {definition}");
            assert_eq!(schema["description"], all[definition]["description"]);
            schemas += 1;
        }
        for (path, item) in ours["paths"].as_object().unwrap() {
            let their_item = &theirs["paths"][path];
            assert_eq!(normalized(&item["parameters"]), normalized(&their_item["parameters"]), "{path}");
            for (method, operation) in item.as_object().unwrap().iter().filter(|(m, _)| *m != "parameters") {
                let their = &their_item[method];
                for fact in
                    ["operationId", "tags", "x-kubernetes-action", "x-kubernetes-group-version-kind", "parameters"]
                {
                    assert_eq!(normalized(&operation[fact]), normalized(&their[fact]), "{path} {method} {fact}");
                }
                let codes = |o: &Value| o["responses"].as_object().unwrap().keys().cloned().collect::<Vec<_>>();
                assert_eq!(codes(operation), codes(their), "{path} {method}");
                operations += 1;
            }
        }
        for path in theirs["paths"].as_object().unwrap().keys().filter(|path| !path.contains("/watch/")) {
            assert!(ours["paths"].get(path).is_some(), "{name}: {path}");
        }
        for definition in all.as_object().unwrap().keys() {
            assert!(ours["components"]["schemas"].get(definition).is_some(), "{name}: {definition}");
        }
    }
    assert!(schemas > 1000 && operations > 400, "{schemas} schemas, {operations} operations");
}

/// The committed table is what the generator makes of upstream's documents.
#[test]
fn the_table_has_every_definition() {
    let Some(directory) = shared("openapi-v3") else { return };
    for (name, document) in documents(&directory) {
        let Some(schemas) = document.pointer("/components/schemas").and_then(Value::as_object) else { continue };
        for (definition, schema) in schemas {
            let ty = Types::builtin().named(definition).unwrap_or_else(|| panic!("{name}: {definition}"));
            let fields = ty.as_struct().map_or(0, |s| s.fields().len());
            assert_eq!(fields, schema["properties"].as_object().map_or(0, |p| p.len()), "{definition}");
        }
    }
}
