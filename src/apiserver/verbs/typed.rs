//! Request bodies against their type: wrong JSON types are refused, unknown and duplicate fields pruned and reported
//! as `fieldValidation` says.

use api::canonical::canonical;
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
pub fn of_row(row: &Row) -> Option<TypeRef<'_>> {
    let types = match &row.custom {
        Some(version) => &version.compiled()?.types,
        None => Types::builtin(),
    };
    types.kind(&row.resource.group, &row.resource.version, &row.kind)
}

/// An object of a row: [`check`], or by the schema of a custom resource.
pub fn check_row(
    object: &mut Value,
    row: &Row,
    repeated: &[String],
    strictness: Strictness,
) -> Result<Vec<String>, Failure> {
    let gvk = [row.resource.group.as_ref(), row.resource.version.as_ref(), row.kind.as_ref()];
    let Some(custom) = &row.custom else { return check(object, gvk, repeated, strictness) };
    complete_type(object, gvk)?;
    let [_, version, kind] = gvk;
    let mut unknown = Vec::new();
    if let Some(metadata) = object.get_mut("metadata")
        && let Some(ty) = Types::builtin().named(OBJECT_META)
    {
        validation::check_types(metadata, ty).map_err(|error| cannot(kind, version, &error.to_string()))?;
        let fields = validation::prune_unknown(metadata, ty);
        unknown.extend(fields.into_iter().map(|field| format!("metadata.{field}")));
        canonical(metadata, ty);
    }
    unknown.extend(custom.coerce(object).map_err(|error| cannot(kind, version, &error.to_string()))?);
    // Objects without a type in the program are decoded first and looked at then.
    report(gvk, repeated.iter().cloned().chain(texts(&unknown)).collect(), strictness)
}

const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";

fn cannot(kind: &str, version: &str, why: &str) -> Failure {
    Failure::bad_request(format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
}

/// Completes `kind` and `apiVersion`, refuses others than the expected, then checks the fields. Returns warnings.
pub fn check(
    object: &mut Value,
    gvk: [&str; 3],
    repeated: &[String],
    strictness: Strictness,
) -> Result<Vec<String>, Failure> {
    complete_type(object, gvk)?;
    let [group, version, kind] = gvk;
    let Some(ty) = Types::builtin().kind(group, version, kind) else { return Ok(Vec::new()) };
    validation::check_types(object, ty).map_err(|error| cannot(kind, version, &error.to_string()))?;
    let unknown = validation::prune_unknown(object, ty);
    canonical(object, ty);
    report(gvk, texts(&unknown).chain(repeated.iter().cloned()).collect(), strictness)
}

fn texts(unknown: &[String]) -> impl Iterator<Item = String> {
    unknown.iter().map(|path| validation::unknown_field(path))
}

/// Completes `kind` and `apiVersion` and refuses others than the expected.
fn complete_type(object: &mut Value, [group, version, kind]: [&str; 3]) -> Result<(), Failure> {
    let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    if object.is_null() {
        *object = serde_json::json!({});
    }
    if !object.is_object() {
        return Err(cannot(kind, version, "the body is not an object"));
    }
    let (found_version, found_kind) = (object.text("apiVersion"), object.text("kind"));
    let found_version = if found_version.is_empty() { api_version.as_str() } else { found_version };
    let found_kind = if found_kind.is_empty() { kind } else { found_kind };
    if found_version != api_version || found_kind != kind {
        return Err(another(found_version, found_kind, [group, kind]));
    }
    api::meta::set_type(object, &api_version, kind);
    Ok(())
}

/// An object of another kind or version, as upstream fails to make the expected one of it.
fn another(found_version: &str, found_kind: &str, [group, kind]: [&str; 2]) -> Failure {
    let (_, version) = found_version.rsplit_once('/').unwrap_or(("", found_version));
    let why = if Row::find_kind(found_version, found_kind).is_some() {
        let internal = if group.is_empty() { "core" } else { group.split('.').next().unwrap_or(group) };
        format!("converting ({version}.{found_kind}) to ({internal}.{kind}): unknown conversion")
    } else {
        format!(
            "no kind {found_kind:?} is registered for version {found_version:?} in scheme \
             \"pkg/api/legacyscheme/scheme.go:30\""
        )
    };
    Failure::bad_request(format!("{found_kind} in version \"{version}\" cannot be handled as a {kind}: {why}"))
}

/// What is said about fields that are there twice or not known.
fn report(
    [_, version, kind]: [&str; 3],
    findings: Vec<String>,
    strictness: Strictness,
) -> Result<Vec<String>, Failure> {
    match strictness {
        Strictness::Ignore => Ok(Vec::new()),
        Strictness::Strict => match validation::strict_error(&findings) {
            Some(error) => Err(cannot(kind, version, &error)),
            None => Ok(Vec::new()),
        },
        Strictness::Warn => Ok(findings),
    }
}
