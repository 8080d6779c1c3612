//! Every type filled in by upstream, in all forms that go over the wire.

#![expect(clippy::print_stderr, reason = "a test, its helpers included")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use schema::Types;
use schema::protobuf::{Encoder, decode, decode_message, envelope, opened};
use serde_json::Value;

/// What never is in a body: parameters of requests, and what upstream keeps for itself.
const NO_BODIES: [&str; 17] = [
    "CreateOptions",
    "GetOptions",
    "ListOptions",
    "NodeProxyOptions",
    "PatchOptions",
    "PodAttachOptions",
    "PodExecOptions",
    "PodLogOptions",
    "PodPortForwardOptions",
    "PodProxyOptions",
    "PodStatusResult",
    "RangeAllocation",
    "SerializedReference",
    "ServiceProxyOptions",
    "UpdateOptions",
    // These two stand in documents that are JSON alone.
    "APIGroupDiscovery",
    "AdmissionReview",
];

fn directory() -> Option<PathBuf> {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let candidates = [repository.join("../shared"), repository.join("../../shared")];
    let found = candidates.iter().map(|c| c.join("kubernetes-1.36/roundtrip")).find(|p| p.is_dir());
    if found.is_none() {
        eprintln!("nothing compared: there is no ../shared/kubernetes-1.36/roundtrip beside the repository");
    }
    found
}

/// What Go's decoder does with them: null is nothing.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

#[test]
fn every_type_is_the_same_in_every_form() {
    let Some(directory) = directory() else { return };
    let (mut compared, mut left, mut wrong) = (0, BTreeSet::new(), Vec::new());
    let mut paths: Vec<PathBuf> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "json")) {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let json = std::fs::read(path).unwrap();
        let yaml = std::fs::read_to_string(path.with_extension("yaml")).unwrap();
        let protobuf = std::fs::read(path.with_extension("pb")).unwrap();

        let mut value: Value = serde_json::from_slice(&json).unwrap();
        let of_yaml: Value = serde_saphyr::from_str(&yaml).unwrap();
        if of_yaml != value {
            wrong.push(format!("{name}: YAML is another value"));
        }
        let again: Value = serde_saphyr::from_str(&serde_saphyr::to_string(&value).unwrap()).unwrap();
        if again != value {
            wrong.push(format!("{name}: YAML that we write is another value"));
        }
        let (api_version, kind, message) = opened(&protobuf).unwrap();
        // Upstream has types of versions that no API server of v1.36 serves any more; the table, which is made of its
        // OpenAPI documents, has not.
        let ty = Types::builtin().api_version_kind(api_version, kind).filter(|_| !NO_BODIES.contains(&kind));
        let Some(ty) = ty else {
            left.insert(name);
            continue;
        };
        let json = value.to_string();
        let mut of_protobuf = decode(&protobuf, Types::builtin()).unwrap();
        let (mut ours, mut of_value, mut body) = (Vec::new(), Vec::new(), Vec::new());
        let mut encoder = Encoder::default();
        encoder.value(&of_protobuf, ty, &mut of_value).unwrap();
        without_nulls(&mut value);
        without_nulls(&mut of_protobuf);
        if of_protobuf != value {
            wrong.push(format!("{name}: protobuf is another value: {}", difference("", &of_protobuf, &value)));
        }
        if let Err(error) = encoder.json(json.as_bytes(), ty, &mut ours) {
            wrong.push(format!("{name}: {error}"));
        }
        envelope(api_version, kind, &ours, &mut body);
        if ours != message || body != protobuf {
            wrong.push(format!("{name}: other bytes of protobuf ({} instead of {})", body.len(), protobuf.len()));
        }
        if of_value != message {
            wrong.push(format!("{name}: other bytes of protobuf from protobuf"));
        }
        compared += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    eprintln!("{compared} compared; not over the wire: {left:?}");
    assert!(compared >= 100, "{compared}");
    assert!(left.len() <= 85, "{left:?}");
}

/// Events of a watch stand without an envelope; upstream's file has one that says nothing.
#[test]
fn a_watch_event_is_the_same_in_both_forms() {
    let Some(directory) = directory() else { return };
    let protobuf = std::fs::read(directory.join("core.v1.WatchEvent.pb")).unwrap();
    let mut value: Value =
        serde_json::from_slice(&std::fs::read(directory.join("core.v1.WatchEvent.json")).unwrap()).unwrap();
    let ty = Types::builtin().kind("", "v1", "WatchEvent").unwrap();
    let (_, _, message) = opened(&protobuf).unwrap();
    let (mut ours, mut decoded) = (Vec::new(), serde_json::Map::new());
    Encoder::default().value(&value, ty, &mut ours).unwrap();
    assert_eq!(ours, message);
    decode_message(message, ty, &mut decoded).unwrap();
    without_nulls(&mut value);
    assert_eq!(Value::Object(decoded), value);
}

/// The first place where two values differ.
fn difference(path: &str, ours: &Value, theirs: &Value) -> String {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                let (one, other) = (a.get(name).unwrap_or(&Value::Null), b.get(name).unwrap_or(&Value::Null));
                if one != other {
                    return difference(&format!("{path}.{name}"), one, other);
                }
            }
            String::new()
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let at = a.iter().zip(b).position(|(one, other)| one != other).unwrap_or_default();
            difference(&format!("{path}[{at}]"), &a[at], &b[at])
        }
        _ => format!("{path}: {ours} instead of {theirs}"),
    }
}
