//! Bodies that nobody well-meaning sends: an answer, never a panic, never a hang.

use std::sync::Arc;

use api::{Call, Failure, PatchKind, Resource, Row, Verb};
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use proptest::prelude::*;
use serde_json::Value;

use super::decode;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

fn row() -> Arc<Row> {
    Row::find("", "v1", "pods").unwrap().clone()
}

fn decoded(verb: Verb, patch: Option<PatchKind>, media_type: &str, bytes: &[u8]) -> Result<Option<Value>, Failure> {
    let mut call = Call::new(verb, Resource::new("", "v1", "pods"));
    call.options.patch = patch;
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, media_type.parse().unwrap());
    decode(&row(), &call, &headers, &Bytes::copy_from_slice(bytes)).map(|(body, _)| body)
}

/// A body of every form in which an object comes, and as a patch.
fn all(bytes: &[u8]) -> Vec<Result<Option<Value>, Failure>> {
    let objects = [JSON, YAML, PROTOBUF].map(|media_type| decoded(Verb::Create, None, media_type, bytes));
    let patches = [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic, PatchKind::Apply]
        .map(|kind| decoded(Verb::Patch, Some(kind), kind.media_type(), bytes));
    objects.into_iter().chain(patches).collect()
}

/// A Pod with a bit of everything, in upstream's protobuf: `runtime.Unknown` with kind, and metadata with a name.
const POD: &[u8] = b"k8s\0\n\t\n\x02v1\x12\x03Pod\x12\x0d\n\x0b\n\x03web\x12\x00\x1a\x02ab\x1a\0\"\0";

const TEXT: &str = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web","labels":{"a":"b"}},
"spec":{"containers":[{"name":"c","image":"i","ports":[{"containerPort":80}]}],"restartPolicy":"Always"}}"#;

proptest! {
    #[test]
    fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        all(&bytes);
    }

    #[test]
    fn truncated_and_changed_bodies_get_an_answer(
        cut in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut framed = b"k8s\0".to_vec();
        framed.extend_from_slice(TEXT.as_bytes());
        for body in [TEXT.as_bytes(), POD, &framed] {
            let mut body = body.to_vec();
            let place = at.index(body.len());
            body[place] = byte;
            all(&body);
            body.truncate(cut.index(body.len()));
            all(&body);
        }
    }

    #[test]
    fn any_patch_applies_or_is_refused(
        operations in prop::collection::vec(
            (prop::sample::select(vec!["add", "remove", "replace", "move", "copy", "test"]), "(/[a-c~01-]{0,2}){0,4}", "(/[a-c]{1,2}){0,3}"),
            0..20,
        ),
    ) {
        let operations: Vec<Value> = operations
            .into_iter()
            .map(|(op, path, from)| serde_json::json!({"op": op, "path": path, "from": from, "value": {"a": [1, {"b": 2}]}}))
            .collect();
        let bytes = serde_json::to_vec(&operations).unwrap();
        if let Ok(patch) = schema::patch::JsonPatch::parse(&bytes) {
            let mut document = serde_json::json!({"a": {"b": [1, 2, {"c": {}}]}, "c": [[]]});
            let _ = patch.apply(&mut document);
        }
    }
}

#[test]
fn bombs_are_refused() {
    let deep = |open: &str, close: &str, times: usize| format!("{}1{}", open.repeat(times), close.repeat(times));
    for nested in [deep("[", "]", 100_000), deep("{\"a\":", "}", 100_000)] {
        for answer in all(nested.as_bytes()) {
            assert_eq!(answer.unwrap_err().code, 400);
        }
    }
    // Each level is ten of the one before: ten million million.
    let mut laughs = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..13 {
        let before = vec![format!("*a{}", level - 1); 10].join(", ");
        laughs.push_str(&format!("a{level}: &a{level} [{before}]\n"));
    }
    let yaml = |text: &str| decoded(Verb::Create, None, YAML, text.as_bytes());
    assert_eq!(yaml(&laughs).unwrap_err().code, 400);
    let indented: String = (0..5000).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    assert_eq!(yaml(&indented).unwrap_err().code, 400);
    assert_eq!(yaml("a: &a\n  b: *a\n").unwrap_err().code, 400);
    // Protobuf that is nothing but messages in messages.
    let mut inner = vec![0x0a, 0];
    for _ in 0..20_000 {
        let mut outer = vec![0x0a];
        let mut length = inner.len();
        while length >= 0x80 {
            outer.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        outer.push(u8::try_from(length).unwrap());
        outer.extend_from_slice(&inner);
        inner = outer;
        if inner.len() > 100_000 {
            break;
        }
    }
    let mut body = b"k8s\0\n\t\n\x02v1\x12\x03Pod\x12".to_vec();
    body.extend_from_slice(&[0xa0, 0x8d, 0x06]);
    body.extend_from_slice(&inner);
    let _ = decoded(Verb::Create, None, PROTOBUF, &body);
}
