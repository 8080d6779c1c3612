//! Create.

use api::{Failure, Fields, Row};
use bytes::Bytes;
use serde_json::Value;

use super::typed::{self, Strictness};
use super::{Outcome, Request, encoded, in_version, ownership, requester, to_stored};
use crate::admission::{Operation, policy};
use crate::authz::escalation;
use crate::server;

/// Names that are tried for `generateName` before the client is told.
const GENERATE_ATTEMPTS: usize = 8;

pub async fn create(mut request: Request<'_>) -> Result<Outcome, Failure> {
    let mut object = request.call.body.take().ok_or_else(|| Failure::bad_request("the body is empty"))?;
    let strictness = Strictness::parse(request.call.options.field_validation.as_deref())?;
    let row = request.row.clone();
    let warnings = typed::check_row(&mut object, &row, &request.call.repeated, strictness)?;
    request.notes.warn(warnings.iter().cloned());
    check_place(&request, &mut object)?;
    api::meta::wipe(&mut object);
    request.notes.warn(api::meta::dedup_owners(&mut object));
    row.default(&mut object);
    // It is the store that refuses it, and that is not asked in a dry run.
    if !object.part("metadata").text("resourceVersion").is_empty() && !request.call.options.dry_run {
        return Err(Failure::bad_request("resourceVersion should not be set on objects to be created"));
    }
    ownership::update(&request, None, &mut object);
    new(&request, object, warnings).await
}

/// Takes a complete object from admission to the store.
pub async fn new(request: &Request<'_>, mut object: Value, mut warnings: Vec<String>) -> Result<Outcome, Failure> {
    let (server, row) = (request.server, &request.row);
    let generated = object.part("metadata").text("name").is_empty();
    if row.custom.as_ref().is_some_and(|version| version.terminating) {
        let why = "create not allowed while custom resource definition is terminating";
        let name = object.part("metadata").text("name");
        return Err(Failure::forbidden(&row.resource.group, &row.resource.plural, name, why));
    }
    let name = object.part("metadata").text("name").to_owned();
    let mut attributes = request.attributes(Operation::Create, &name);
    server.admission().mutate(server, &mut attributes, Some(&mut object), None).await?;
    requester::record(request.user, row, &mut object);
    row.default(&mut object);
    // Kinds may derive things from their uid, as Jobs their selector.
    let uid = server::uid(&mut server.rng());
    api::meta::begin(&mut object, uid, request.now, &mut server.rng());
    row.prepare_create(&mut object);
    let mut errors = row.validate_create(&object);
    errors.extend(policy::check(row, &object, None));
    if !errors.is_empty() {
        let name = object.part("metadata").text("name");
        return Err(Failure::invalid(&row.resource.group, &row.kind, name, errors));
    }
    let name = object.part("metadata").text("name").to_owned();
    attributes.name = &name;
    server.admission().validate(server, &mut attributes, Some(&object), None).await?;
    escalation::check(server.authorizer(), request.user, row, &object, None).await?;
    let allocated = server.services().allocate(row, &mut object, None)?;
    warnings.extend(row.warnings(&object, None));
    let stored = write(request, row, object, generated).await?;
    allocated.keep();
    Ok(Outcome::stored(201, stored).warning(warnings))
}

async fn write(
    request: &Request<'_>,
    row: &Row,
    mut object: Value,
    generated: bool,
) -> Result<std::sync::Arc<crate::cache::Stored>, Failure> {
    let storage = request.server.storage();
    let mut name = object.part("metadata").text("name").to_owned();
    to_stored(request.server, row, &mut object).await?;
    for _ in 0..GENERATE_ATTEMPTS {
        let key = Bytes::from(request.key(&name)?);
        let stored = encoded(row, &object, key.clone(), 0)?;
        if request.call.options.dry_run {
            return match storage.peek(&request.key(&name)?, request.prefix_bytes()).await? {
                None => in_version(request.server, row, stored).await,
                Some(_) => Err(Failure::already_exists(&row.resource.group, &row.resource.plural, &name)),
            };
        }
        if let Some(revision) = storage.create(key, stored.value.clone(), request.durability()).await? {
            return in_version(request.server, row, std::sync::Arc::new(stored.at(revision))).await;
        }
        if !generated {
            return Err(Failure::already_exists(&row.resource.group, &row.resource.plural, &name));
        }
        name = api::names::generate(object.part("metadata").text("generateName"), &mut request.server.rng());
        if let Some(metadata) = object.object("metadata") {
            metadata.set("name", name.as_str());
        }
    }
    let mut failure = Failure::already_exists(&row.resource.group, &row.resource.plural, &name);
    failure.message.push_str(", the server was not able to generate a unique name for the object");
    failure.details_mut().retry_after_seconds = 1;
    Err(failure)
}

/// Namespace and name must agree with the path.
pub fn check_place(request: &Request<'_>, object: &mut Value) -> Result<(), Failure> {
    let namespace = request.namespace().map(str::to_owned);
    let metadata =
        object.object("metadata").ok_or_else(|| Failure::bad_request("metadata: the field must be an object"))?;
    match namespace {
        Some(namespace) => {
            let given = metadata.text("namespace");
            if !given.is_empty() && given != namespace {
                return Err(Failure::bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request",
                ));
            }
            metadata.set("namespace", namespace);
        }
        None if request.row.namespaced => {
            return Err(Failure::bad_request("an empty namespace may not be set during creation"));
        }
        None => metadata.unset("namespace"),
    }
    if let (Some(name), None) = (&request.call.name, request.subresource()) {
        let given = metadata.text("name");
        if given.is_empty() {
            metadata.set("name", name.as_str());
        } else if given != name {
            return Err(Failure::bad_request(format!(
                "the name of the object ({given}) does not match the name on the URL ({name})"
            )));
        }
    }
    Ok(())
}
