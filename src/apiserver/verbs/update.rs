//! Update and patch: read, change, decide, write if nobody was faster.
//!
//! A write that names a resource version fails when the object has another; one that names none is decided anew on
//! what the other writer left, as often as it takes for an update and up to five times for a patch.

use std::sync::Arc;

use api::{Failure, FieldError, Fields, PatchKind, Reason};
use schema::patch::{JsonPatchError, StrategicError};
use serde_json::Value;

use super::typed::{self, Strictness};
use super::{Outcome, Request, convert, create, decoded, encoded, in_version, ownership, scale, to_stored};
use crate::admission::{Operation, policy};
use crate::authz::{escalation, signers};
use crate::cache::Stored;
use crate::failures;

/// Times a patch is applied anew when others write in between (upstream: 5).
const PATCH_ATTEMPTS: usize = 5;
/// The same for an update without a resource version.
const UPDATE_ATTEMPTS: usize = 100;

/// What is to become of the object.
enum Change<'a> {
    Replace(Value),
    Patch(PatchKind, Value),
    Compute(&'a Compute<'a>),
}

/// Makes the new object from the old one.
pub type Compute<'a> = dyn Fn(&Value) -> Result<Value, Failure> + Send + Sync + 'a;

pub async fn update(mut request: Request<'_>) -> Result<Outcome, Failure> {
    let object = request.call.body.take().ok_or_else(|| Failure::bad_request("the body is empty"))?;
    edit(request, Change::Replace(object), UPDATE_ATTEMPTS).await
}

pub async fn patch(mut request: Request<'_>) -> Result<Outcome, Failure> {
    let kind = request.call.options.patch.ok_or_else(|| Failure::bad_request("the kind of patch is not known"))?;
    let body = request.call.body.take().ok_or_else(|| Failure::bad_request("the body is empty"))?;
    if kind == PatchKind::Apply && request.call.options.field_manager.as_deref().unwrap_or_default().is_empty() {
        return Err(Failure::invalid(
            "meta.k8s.io",
            "PatchOptions",
            "",
            vec![FieldError::required("fieldManager", "is required for apply patch")],
        ));
    }
    edit(request, Change::Patch(kind, body), PATCH_ATTEMPTS).await
}

/// An update of what the caller makes of the object, checked as any other.
pub async fn compute(request: Request<'_>, compute: &Compute<'_>) -> Result<Outcome, Failure> {
    edit(request, Change::Compute(compute), UPDATE_ATTEMPTS).await
}

/// Changes an object beside the rules for its kind, as binding a Pod does.
pub async fn directly(
    request: &Request<'_>,
    name: &str,
    change: &(dyn Fn(&mut Value) -> Result<(), Failure> + Send + Sync),
) -> Result<Arc<Stored>, Failure> {
    let (row, storage) = (&request.row, request.server.storage());
    let key = request.key(name)?;
    for _ in 0..UPDATE_ATTEMPTS {
        let current = storage.read(&key, request.prefix_bytes()).await?.ok_or_else(|| request.not_found(name))?;
        let old = decoded(row, &current)?;
        let mut object = old.clone();
        change(&mut object)?;
        ownership::update(request, Some(&old), &mut object);
        row.to_storage(&mut object);
        let stored = encoded(row, &object, current.key.clone(), current.mod_revision)?;
        if request.call.options.dry_run {
            return Ok(stored);
        }
        let (key, durability) = (current.key.clone(), request.durability());
        let written = storage.replace(key, current.mod_revision, stored.value.clone(), durability).await?;
        if let Some(revision) = written {
            return Ok(Arc::new(stored.at(revision)));
        }
    }
    Err(Failure::modified(request.group(), request.plural(), name))
}

async fn edit(request: Request<'_>, mut change: Change<'_>, attempts: usize) -> Result<Outcome, Failure> {
    let name = request.name()?.to_owned();
    let strictness = Strictness::parse(request.call.options.field_validation.as_deref())?;
    let mut warnings = Vec::new();
    if let Change::Replace(object) = &mut change {
        warnings = typed::check_row(object, &request.row, &request.call.repeated, strictness)?;
        request.notes.warn(warnings.iter().cloned());
        place(&request, &name, object)?;
        request.notes.warn(api::meta::dedup_owners(object));
        request.row.default(object);
    }
    let key = request.key(&name)?;
    for _ in 0..attempts {
        let Some(current) = request.server.storage().read(&key, request.prefix_bytes()).await? else {
            return create_instead(&request, &name, change, warnings).await;
        };
        let old = super::object(request.server, &request.row, &current).await?;
        let mut warnings = warnings.clone();
        let replaces = matches!(change, Change::Replace(_));
        let object = match &change {
            Change::Replace(object) => {
                let mut object = object.clone();
                ownership::update(&request, Some(&old), &mut object);
                object
            }
            Change::Compute(compute) => {
                let mut object = compute(&old)?;
                ownership::update(&request, Some(&old), &mut object);
                object
            }
            Change::Patch(kind, body) => {
                let mut object = patched(&request, &old, *kind, body)?;
                let shown = (*kind != PatchKind::Apply).then(|| object.clone());
                let checked = typed::check_row(&mut object, &request.row, &[], strictness);
                warnings.extend(checked.map_err(|failure| match shown {
                    Some(object) => not_an_object(&request, &object, &failure),
                    None => failure,
                })?);
                place(&request, &name, &mut object)?;
                request.row.default(&mut object);
                if *kind != PatchKind::Apply {
                    ownership::update(&request, Some(&old), &mut object);
                }
                object
            }
        };
        if let Some(outcome) = decide(&request, &current, &old, object, replaces, warnings).await? {
            return Ok(outcome);
        }
    }
    Err(Failure::modified(request.group(), request.plural(), &name))
}

/// One attempt; `None` when somebody else was faster and the caller did not say which version is meant. `replaces`
/// says that the object is as the caller sent it, not made from the old one.
async fn decide(
    request: &Request<'_>,
    current: &Arc<Stored>,
    old: &Value,
    mut object: Value,
    replaces: bool,
    mut warnings: Vec<String>,
) -> Result<Option<Outcome>, Failure> {
    let (server, row, name) = (request.server, &request.row, request.name()?);
    let wanted = check_version(request, &mut object, old, replaces)?;
    let mut attributes = request.attributes(Operation::Update, name);
    // What is admitted is what was sent: of a scale the Scale, not the object that has it.
    let scaled = if request.subresource() == Some("scale") { Some(scale::before(row, old)?) } else { None };
    match &scaled {
        Some(before) => {
            let mut wanted = scale::before(row, &object)?;
            server.admission().mutate(server, &mut attributes, Some(&mut wanted), Some(before)).await?;
            scale::put(row, &mut object, &wanted)?;
        }
        None => server.admission().mutate(server, &mut attributes, Some(&mut object), Some(old)).await?,
    }
    row.default(&mut object);
    row.prepare_update(&mut object, old, request.subresource());
    api::meta::updated(&mut object, old, request.now);
    let mut errors = row.validate_update(&object, old, request.subresource());
    errors.extend(policy::check(row, &object, Some(old)));
    if !errors.is_empty() {
        return Err(Failure::invalid(&row.resource.group, &row.kind, name, errors));
    }
    signers::check(server.authorizer(), request.user, row, request.subresource(), [&object, old], request.now).await?;
    match &scaled {
        Some(before) => {
            let wanted = scale::before(row, &object)?;
            server.admission().validate(server, &mut attributes, Some(&wanted), Some(before)).await?;
        }
        None => server.admission().validate(server, &mut attributes, Some(&object), Some(old)).await?,
    }
    escalation::check(server.authorizer(), request.user, row, &object, Some(old)).await?;
    let allocated = server.services().allocate(row, &mut object, Some(old))?;
    warnings.extend(row.warnings(&object, Some(old)));

    if may_go(&object, request) {
        if !request.call.options.dry_run {
            let durability = request.durability();
            if server.storage().delete(current.key.clone(), current.mod_revision, durability).await?.is_none() {
                return lost(request, wanted, name);
            }
            server.services().release(row, old);
        }
        let shown = encoded(row, &object, current.key.clone(), current.mod_revision)?;
        return Ok(Some(Outcome::stored(200, shown).warning(warnings)));
    }
    if same(&object, old) && convert::is_in_storage_version(row, current) && !current.is_stale() {
        let unchanged = in_version(server, row, current.clone()).await?;
        return Ok(Some(Outcome::stored(200, unchanged).warning(warnings)));
    }
    to_stored(server, row, &mut object).await?;
    let stored = encoded(row, &object, current.key.clone(), current.mod_revision)?;
    if request.call.options.dry_run {
        return Ok(Some(Outcome::stored(200, in_version(server, row, stored).await?).warning(warnings)));
    }
    let (key, durability) = (current.key.clone(), request.durability());
    let written = server.storage().replace(key, current.mod_revision, stored.value.clone(), durability).await?;
    let Some(revision) = written else { return lost(request, wanted, name) };
    allocated.keep();
    let stored = in_version(server, row, Arc::new(stored.at(revision))).await?;
    Ok(Some(Outcome::stored(200, stored).warning(warnings)))
}

fn lost(request: &Request<'_>, wanted: bool, name: &str) -> Result<Option<Outcome>, Failure> {
    if wanted { Err(Failure::modified(request.group(), request.plural(), name)) } else { Ok(None) }
}

/// The optimistic lock. True when the caller named the version.
fn check_version(request: &Request<'_>, object: &mut Value, old: &Value, replaces: bool) -> Result<bool, Failure> {
    let name = request.name()?;
    let (group, plural) = (request.group().to_owned(), request.plural().to_owned());
    let (row, before) = (request.row.clone(), old.part("metadata"));
    let Some(metadata) = object.object("metadata") else {
        return Err(Failure::bad_request("metadata: the field must be an object"));
    };
    let (uid, was) = (metadata.text("uid"), before.text("uid"));
    if !uid.is_empty() && uid != was {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {was}");
        return Err(Failure::conflict(&group, &plural, name, why));
    }
    let version = metadata.text("resourceVersion");
    if version.is_empty() || version == "0" {
        if !row.unconditional_update && replaces {
            let error =
                FieldError::invalid("metadata.resourceVersion", &Value::from(0), "must be specified for an update");
            return Err(Failure::invalid(&group, &row.kind, name, vec![error]));
        }
        metadata.set("resourceVersion", before.text("resourceVersion"));
        return Ok(false);
    }
    if version != before.text("resourceVersion") {
        return Err(Failure::modified(&group, &plural, name));
    }
    // What is made from the old object carries its version: made anew, it meets a version that the caller named.
    Ok(replaces)
}

/// The object was only waiting for this: it is being deleted, nothing holds it, and its grace is over.
fn may_go(object: &Value, request: &Request<'_>) -> bool {
    let metadata = object.part("metadata");
    if !metadata.has("deletionTimestamp") || !metadata.list("finalizers").is_empty() {
        return false;
    }
    if request.group().is_empty() && request.plural() == "namespaces" {
        return object.part("spec").list("finalizers").is_empty();
    }
    metadata.int("deletionGracePeriodSeconds").unwrap_or_default() == 0
}

/// Nothing changed but times of ownership.
fn same(object: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (object.as_object(), old.as_object()) else { return object == old };
    if new.len() != old.len() || new.iter().any(|(name, value)| name != "metadata" && old.get(name) != Some(value)) {
        return false;
    }
    let (Some(Value::Object(new)), Some(Value::Object(old))) = (new.get("metadata"), old.get("metadata")) else {
        return false;
    };
    new.len() == old.len()
        && new.iter().all(|(name, value)| match old.get(name) {
            Some(before) if name == "managedFields" => same_owners(value, before),
            Some(before) => before == value,
            None => false,
        })
}

fn same_owners(new: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (new.as_array(), old.as_array()) else { return new == old };
    new.len() == old.len()
        && new.iter().zip(old).all(|(new, old)| {
            ["manager", "operation", "apiVersion", "fieldsV1", "subresource"]
                .iter()
                .all(|field| new.get(field) == old.get(field))
        })
}

/// PUT or apply of a name that does not exist.
async fn create_instead(
    request: &Request<'_>,
    name: &str,
    change: Change<'_>,
    mut warnings: Vec<String>,
) -> Result<Outcome, Failure> {
    if request.subresource().is_some() {
        return Err(request.not_found(name));
    }
    let mut object = match change {
        Change::Replace(mut object) if request.row.create_on_update => {
            if !object.part("metadata").text("uid").is_empty() {
                let why = "Precondition failed: UID in precondition, but no object";
                return Err(Failure::conflict(request.group(), request.plural(), name, why));
            }
            ownership::update(request, None, &mut object);
            object
        }
        Change::Patch(PatchKind::Apply, body) => {
            let mut object = ownership::apply(request, None, &complete(request, body)?)?;
            let strictness = Strictness::parse(request.call.options.field_validation.as_deref())?;
            warnings.extend(typed::check_row(&mut object, &request.row, &[], strictness)?);
            request.row.default(&mut object);
            object
        }
        Change::Replace(_) | Change::Patch(..) | Change::Compute(_) => return Err(request.not_found(name)),
    };
    // Whoever may change may not create for that reason alone.
    let call = api::Call { verb: api::Verb::Create, body: None, ..request.call.clone() };
    request.server.authorize(request.user, &call).await?;
    create::check_place(request, &mut object)?;
    if let Some(metadata) = object.object("metadata") {
        metadata.unset("resourceVersion");
    }
    create::new(request, object, warnings).await
}

fn patched(request: &Request<'_>, old: &Value, kind: PatchKind, body: &Value) -> Result<Value, Failure> {
    let row = &request.row;
    let mut object = old.clone();
    match kind {
        PatchKind::Json => {
            let of_op = |value: &Value| value.is_object() || value.is_null();
            let malformed = match body {
                Value::Null => None,
                Value::Array(items) => {
                    items.iter().find(|item| !of_op(item)).map(|item| (item, "handlers.jsonPatchOp"))
                }
                other => Some((other, "[]handlers.jsonPatchOp")),
            };
            if let Some((value, ty)) = malformed {
                return Err(Failure::bad_request(format!("error decoding patch: {}", cannot_unmarshal(value, ty))));
            }
            let rejected = |error: JsonPatchError| {
                tracing::debug!(%error, "a JSON patch does not apply");
                Failure::new(Reason::Invalid, "the server rejected our request due to an error in our request")
                    .about("", "", "")
            };
            let bytes = serde_json::to_vec(body).map_err(Failure::internal)?;
            let patch = schema::patch::JsonPatch::parse(&bytes).map_err(|error| match error {
                JsonPatchError::TooMany(_) => {
                    Failure::new(Reason::RequestEntityTooLarge, format!("Request entity too large: {error}"))
                }
                JsonPatchError::Malformed(_) => Failure::bad_request(error.to_string()),
                error => rejected(error),
            })?;
            patch.apply(&mut object).map_err(rejected)?;
        }
        PatchKind::Merge => {
            if body.is_null() {
                return Err(Failure::bad_request("Invalid JSON Patch"));
            }
            if !body.is_object() {
                return Err(Failure::bad_request(format!("error decoding patch: {}", no_object(body))));
            }
            schema::patch::merge(&mut object, body.clone());
        }
        PatchKind::Strategic => {
            let ty = typed::of_row(row).filter(|_| row.custom.is_none()).ok_or_else(|| {
                failures::unsupported_media_type(
                    "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
                )
            })?;
            if body.is_null() {
                return Ok(object);
            }
            if !body.is_object() {
                return Err(Failure::bad_request(no_object(body)));
            }
            schema::patch::strategic_merge(&mut object, body.clone(), ty).map_err(|error| match error {
                // Upstream does not know whose fault that is.
                StrategicError::NoMergeKey { .. } => Failure::new(Reason::Unknown, error.to_string()),
                error => Failure::bad_request(error.to_string()),
            })?;
        }
        PatchKind::Apply => {
            return ownership::apply(request, Some(old), &complete(request, body.clone())?);
        }
    }
    // A patch that names a version means that one; otherwise it is for whatever is there.
    Ok(object)
}

/// What Go's decoder says of a body that is no object.
fn no_object(body: &Value) -> String {
    cannot_unmarshal(body, "map[string]interface {}")
}

/// What Go's decoder says of a value of another type.
pub fn cannot_unmarshal(value: &Value, ty: &str) -> String {
    let found = match value {
        Value::Array(_) => "array",
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Object(_) => "object",
        Value::Null | Value::Number(_) => "number",
    };
    format!("json: cannot unmarshal {found} into Go value of type {ty}")
}

/// The result of a patch does not decode into its type: the patch is to blame.
fn not_an_object(request: &Request<'_>, object: &Value, failure: &Failure) -> Failure {
    let (kind, version) = (&request.row.kind, &request.row.resource.version);
    let prefix = format!("{kind} in version \"{version}\" cannot be handled as a {kind}: ");
    let why = failure.message.strip_prefix(&prefix).unwrap_or(&failure.message);
    let error = FieldError::invalid("patch", &Value::from(object.to_string()), why);
    Failure::invalid("", "", "", vec![error])
}

/// An applied configuration of the kind and version of its path.
fn complete(request: &Request<'_>, mut config: Value) -> Result<Value, Failure> {
    if config.is_null() {
        config = serde_json::json!({});
    }
    if !config.is_object() {
        let why = format!("error unmarshaling JSON: while decoding JSON: {}", no_object(&config));
        return Err(Failure::bad_request(format!("error decoding YAML: {why}")));
    }
    let (kind, version) = (config.text("kind"), config.text("apiVersion"));
    if kind != request.row.kind || version != request.row.api_version() {
        let slash = if version.contains('/') { "" } else { "/" };
        return Err(Failure::bad_request(format!("invalid object type: {slash}{version}, Kind={kind}")));
    }
    Ok(config)
}

/// Name and namespace must be those of the path.
fn place(request: &Request<'_>, name: &str, object: &mut Value) -> Result<(), Failure> {
    if object.part("metadata").text("name").is_empty() {
        let why = "was undeterminable: name must be provided";
        return Err(Failure::bad_request(format!("the name of the object ({name} based on URL) {why}")));
    }
    create::check_place(request, object)?;
    let given = object.part("metadata").text("name");
    if given != name {
        return Err(Failure::bad_request(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    Ok(())
}
