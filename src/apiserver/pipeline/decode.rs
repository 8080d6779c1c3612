//! Bodies: from bytes in whatever form to values, with what upstream says of those that are none.

use std::sync::Arc;

use api::{Call, Failure, PatchKind, Row, Verb};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use serde_json::Value;

use crate::http::negotiate::PROTOBUF;
use crate::http::objects;
use crate::verbs::typed::Strictness;
use crate::{failures, request, verbs};

/// The body as a value, with findings about fields that occur twice.
pub(crate) fn decode(
    row: &Arc<Row>,
    call: &Call,
    headers: &http::HeaderMap,
    bytes: &Bytes,
) -> Result<(Option<Value>, Vec<String>), Failure> {
    const OBJECTS: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
    const OBJECTS_WITHOUT_PROTOBUF: &str = "application/json, application/yaml";
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("application/json");
    let media_type = request::media_type(content_type);
    if bytes.is_empty() && matches!(call.verb, Verb::Delete | Verb::DeleteCollection) {
        return Ok((None, Vec::new()));
    }
    if call.verb != Verb::Patch && media_type == PROTOBUF {
        if objects::of_row(row).is_none() && matches!(call.verb, Verb::Create | Verb::Update) {
            return Err(failures::unsupported_media_type(OBJECTS_WITHOUT_PROTOBUF));
        }
        let object = schema::protobuf::decode(bytes, schema::Types::builtin())
            .map_err(|error| Failure::bad_request(error.to_string()))?;
        return Ok((Some(object), Vec::new()));
    }
    let yaml = match (call.verb, call.options.patch, media_type) {
        (Verb::Patch, Some(kind), _) => kind == PatchKind::Apply,
        (Verb::Patch, None, _) => return Err(failures::no_such_patch()),
        (_, _, "application/json" | "") => false,
        (_, _, "application/yaml") => true,
        _ => return Err(failures::unsupported_media_type(OBJECTS)),
    };
    let begins_as_json = bytes.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| *byte == b'{');
    let broken = |error: &dyn std::fmt::Display| {
        let error = error.to_string();
        // Go tells no more of where a document ends.
        let error = if error.starts_with("EOF while parsing") { "unexpected end of JSON input" } else { &error };
        Failure::bad_request(match (call.verb, call.options.patch, yaml) {
            (Verb::Patch, Some(PatchKind::Apply), _) => {
                format!("error decoding YAML: error converting YAML to JSON: yaml: {error}")
            }
            (Verb::Patch, Some(PatchKind::Strategic), _) => error.to_owned(),
            (Verb::Patch, ..) => format!("error decoding patch: {error}"),
            (Verb::Delete | Verb::DeleteCollection, ..) => {
                format!("couldn't get version/kind; json parse error: {error}")
            }
            (_, _, true) => unrecognized(row, &format!("yaml: {error}"), bytes),
            _ => unrecognized(row, &format!("couldn't get version/kind; json parse error: {error}"), bytes),
        })
    };
    let json = schema::validation::decode(bytes);
    match json {
        Ok(decoded)
            if matches!(call.verb, Verb::Create | Verb::Update)
                && !yaml
                && !matches!(decoded.value, Value::Object(_) | Value::Null) =>
        {
            Err(broken(&verbs::cannot_unmarshal(&decoded.value, TYPE_META)))
        }
        Ok(decoded) if !yaml || begins_as_json => {
            let repeated = decoded.duplicates.iter().map(|path| schema::validation::duplicate_field(path));
            Ok((Some(decoded.value), repeated.collect()))
        }
        Err(error) if !yaml => Err(broken(&error)),
        _ => {
            let text = std::str::from_utf8(bytes).map_err(|error| broken(&error))?;
            let (value, repeated) = of_yaml(text).map_err(|error| broken(&error))?;
            Ok((Some(value), repeated.into_iter().collect()))
        }
    }
}

/// How Go shows the type by which it finds out what an object is.
const TYPE_META: &str = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \
                         \"json:\\\"kind,omitempty\\\"\" }";

/// A body in which no object can be found, with how it begins.
fn unrecognized(row: &Row, why: &str, bytes: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 30;
    let shown = bytes.get(..SHOWN_BYTES_MAX).unwrap_or(bytes);
    let mut summary = match bytes.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(shown).into_owned(),
        Some(_) => shown.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if bytes.len() > SHOWN_BYTES_MAX {
        summary.push_str(" ...");
    }
    format!("the object provided is unrecognized (must be of type {}): {why} ({summary})", row.kind)
}

/// A document, and what is said if it has a key twice.
fn of_yaml(text: &str) -> Result<(Value, Option<String>), serde_saphyr::Error> {
    let error = match serde_saphyr::from_str::<Value>(text) {
        Ok(value) => return Ok((value, None)),
        Err(error) => error,
    };
    let serde_saphyr::Error::DuplicateMappingKey { key, location } = error.without_snippet() else { return Err(error) };
    let key = key.as_deref().unwrap_or_default();
    let said = format!("line {}: key {key:?} already set in map", location.line());
    let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::options::DuplicateKeyPolicy::LastWins };
    Ok((serde_saphyr::from_str_with_options(text, options)?, Some(said)))
}

/// Refuses a body that has fields twice, or warns, as the client wants it.
pub fn repeated_fields(row: &Row, call: &Call, repeated: Vec<String>) -> Result<Vec<String>, Failure> {
    let Some(error) = schema::validation::strict_error(&repeated) else { return Ok(repeated) };
    match Strictness::parse(call.options.field_validation.as_deref())? {
        Strictness::Ignore => Ok(Vec::new()),
        Strictness::Warn => Ok(repeated),
        Strictness::Strict if call.options.patch == Some(PatchKind::Apply) => {
            let why = repeated.join(", ");
            Err(Failure::bad_request(format!("error strict decoding YAML: error converting YAML to JSON: {why}")))
        }
        Strictness::Strict => {
            let (kind, version) = (&row.kind, &row.resource.version);
            let message = format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {error}");
            Err(Failure::bad_request(message))
        }
    }
}
