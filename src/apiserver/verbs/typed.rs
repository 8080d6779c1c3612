//! Request bodies against their type: wrong JSON types are refused, unknown and duplicate fields pruned and reported
//! as `fieldValidation` says.

use api::{Failure, Fields, Row};
use schema::validation;
use schema::{TypeRef, Types};
use serde_json::Value;

/// What happens to fields that the type does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    Ignore,
    Warn,
    Strict,
}

impl Strictness {
    /// `fieldValidation`; without it upstream warns.
    pub fn parse(text: Option<&str>) -> Result<Strictness, Failure> {
        match text {
            None | Some("" | "Warn") => Ok(Strictness::Warn),
            Some("Ignore") => Ok(Strictness::Ignore),
            Some("Strict") => Ok(Strictness::Strict),
            Some(other) => Err(Failure::bad_request(format!(
                "fieldValidation: Unsupported value: \"{other}\": supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }
}

/// The type of a row's objects; none for kinds without a table of fields.
pub fn of_row(row: &Row) -> Option<TypeRef<'static>> {
    Types::builtin().kind(&row.resource.group, &row.resource.version, &row.kind)
}

/// Completes `kind` and `apiVersion`, refuses others than the expected, then checks the fields. Returns warnings.
pub fn check(
    object: &mut Value,
    [group, version, kind]: [&str; 3],
    duplicates: &[String],
    strictness: Strictness,
) -> Result<Vec<String>, Failure> {
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    if !object.is_object() {
        return Err(Failure::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {kind}: the body is not an object"
        )));
    }
    let (found_version, found_kind) = (object.text("apiVersion"), object.text("kind"));
    if !found_version.is_empty() && found_version != api_version {
        return Err(Failure::bad_request(format!(
            "the API version in the data ({found_version}) does not match the expected API version ({api_version})"
        )));
    }
    if !found_kind.is_empty() && found_kind != kind {
        return Err(Failure::bad_request(format!(
            "the object provided is unrecognized (must be of type {kind}): a {found_kind} was sent"
        )));
    }
    api::meta::set_type(object, &api_version, kind);
    let Some(ty) = Types::builtin().kind(group, version, kind) else { return Ok(Vec::new()) };
    let cannot = |why: &str| {
        Failure::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
    };
    validation::check_types(object, ty).map_err(|error| cannot(&error.to_string()))?;
    let unknown = validation::prune_unknown(object, ty);
    drop_nulls(object);
    match strictness {
        Strictness::Ignore => Ok(Vec::new()),
        Strictness::Strict => match validation::strict_error(duplicates, &unknown) {
            Some(error) => Err(cannot(&error)),
            None => Ok(Vec::new()),
        },
        Strictness::Warn => {
            let unknown = unknown.iter().map(|path| validation::unknown_field(path));
            Ok(duplicates.iter().map(|path| validation::duplicate_field(path)).chain(unknown).collect())
        }
    }
}

/// A field that is null is a field that is not there, as Go's decoder has it.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
