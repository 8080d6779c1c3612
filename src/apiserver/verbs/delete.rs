//! Delete and deletecollection: preconditions, grace, propagation, finalizers.
//!
//! Pods on a node are marked and go when their kubelet deletes them with a grace of 0; Namespaces go when nothing
//! finalizes them any more; whatever has finalizers is marked and goes with the last of them.

use std::sync::Arc;

use api::custom::CLEANUP_FINALIZER;
use api::custom::status::{self, Condition};
use api::{Failure, Fields};
use serde_json::{Value, json};

use super::{Answered, Outcome, Request, Selection, encoded, in_version, read, to_stored, typed};
use crate::admission::Operation;
use crate::cache::Stored;

const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
/// A Pod that does not say how long it may take to stop.
const POD_GRACE_SECONDS: i64 = 30;
/// Decided anew so often when others write in between.
const ATTEMPTS: usize = 100;
/// Deletions of a collection under way at the same time: they share the store's syncs.
const COLLECTION_PARALLEL: usize = 32;

/// `metav1.DeleteOptions`, from body and query together.
#[derive(Default, Clone)]
struct Options {
    grace_seconds: Option<i64>,
    propagation: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    dry_run: bool,
    /// `orphanDependents` was said to be false, which old clients know to be answered with 202.
    dependents_go: bool,
    /// As they came in the body, for admission.
    given: Option<Value>,
    /// Admission is behind it, as of an eviction.
    admitted: bool,
}

enum Step {
    Gone(Value),
    Marked(Arc<Stored>),
    Again,
}

pub async fn delete(mut request: Request<'_>) -> Result<Outcome, Failure> {
    let options = options(&mut request)?;
    let name = request.name()?.to_owned();
    one(&request, &name, &options).await
}

/// The same for what was admitted under another name: an eviction.
pub async fn admitted(mut request: Request<'_>) -> Result<Outcome, Failure> {
    let options = Options { admitted: true, ..options(&mut request)? };
    let name = request.name()?.to_owned();
    one(&request, &name, &options).await
}

pub async fn collection(mut request: Request<'_>) -> Result<Outcome, Failure> {
    use futures::StreamExt;
    let options = options(&mut request)?;
    let Answered::List(listed) = read::list(&request).await?.body else {
        return Err(Failure::internal("a list is no list"));
    };
    let row = &request.row;
    Selection::new(row, request.namespace(), &request.call.options)?;
    let results: Vec<Result<(), Failure>> = futures::stream::iter(listed.objects.clone())
        .map(|stored| {
            let (request, options) = (&request, &options);
            async move {
                let mut call = request.call.clone();
                if row.namespaced {
                    call.namespace = Some(stored.namespace().to_owned());
                }
                let Request { server, user, now, notes, .. } = *request;
                let request = Request { server, user, row: row.clone(), call, now, notes };
                match one(&request, stored.name(), options).await {
                    Ok(_) => Ok(()),
                    Err(failure) if failure.is_not_found() => Ok(()),
                    Err(failure) => Err(failure),
                }
            }
        })
        .buffer_unordered(COLLECTION_PARALLEL)
        .collect()
        .await;
    results.into_iter().collect::<Result<(), Failure>>()?;
    Ok(Outcome { code: 200, body: Answered::List(listed), warnings: Vec::new() })
}

async fn one(request: &Request<'_>, name: &str, options: &Options) -> Result<Outcome, Failure> {
    let key = request.key(name)?;
    for _ in 0..ATTEMPTS {
        let current = request.server.storage().read(&key, request.prefix_bytes()).await?;
        let current = current.ok_or_else(|| request.not_found(name))?;
        match step(request, name, &current, options).await? {
            Step::Again => {}
            Step::Marked(stored) => {
                let code = if options.dependents_go { 202 } else { 200 };
                return Ok(Outcome::stored(code, stored));
            }
            Step::Gone(object) => {
                return Ok(if shows_object(request) {
                    let shown = encoded(&request.row, &object, current.key.clone(), current.mod_revision)?;
                    Outcome::stored(200, shown)
                } else {
                    Outcome::value(200, success(request, name, &object))
                });
            }
        }
    }
    Err(Failure::modified(request.group(), request.plural(), name))
}

async fn step(request: &Request<'_>, name: &str, current: &Arc<Stored>, options: &Options) -> Result<Step, Failure> {
    let (server, row) = (request.server, &request.row);
    let old = super::object(server, row, current).await?;
    check_preconditions(request, name, &old, options)?;
    if !options.admitted {
        let mut attributes = request.attributes(Operation::Delete, name);
        attributes.dry_run = options.dry_run;
        attributes.delete_options = options.given.as_ref();
        server.admission().mutate(server, &mut attributes, None, Some(&old)).await?;
        server.admission().validate(server, &mut attributes, None, Some(&old)).await?;
    }

    let mut object = old.clone();
    let was_deleting = old.part("metadata").has("deletionTimestamp");
    let grace_before = old.part("metadata").int("deletionGracePeriodSeconds");
    let mut finalizers: Vec<Value> = old.part("metadata").list("finalizers").to_vec();
    propagate(request, options, was_deleting, &mut finalizers);
    // A definition stays until its objects are gone.
    let definition = request.group() == "apiextensions.k8s.io" && request.plural() == "customresourcedefinitions";
    if definition && !was_deleting && !finalizers.iter().any(|one| one == CLEANUP_FINALIZER) {
        finalizers.push(CLEANUP_FINALIZER.into());
    }
    let grace = grace(request, &old, options.grace_seconds);
    let namespace = row.resource.group.is_empty() && row.resource.plural == "namespaces";
    let held = !finalizers.is_empty() || (namespace && !old.part("spec").list("finalizers").is_empty());
    if !held && (grace == 0 || (was_deleting && grace_before == Some(0))) {
        if options.dry_run {
            return Ok(Step::Gone(old));
        }
        let (key, durability) = (current.key.clone(), request.durability());
        let deleted = server.storage().delete(key, current.mod_revision, durability).await?;
        if deleted.is_none() {
            return Ok(Step::Again);
        }
        server.services().release(row, &old);
        return Ok(Step::Gone(old));
    }
    if definition && !was_deleting {
        let why = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
        let condition = Condition::new(status::TERMINATING, "True", "InstanceDeletionPending", why);
        status::set(&mut object, &condition, request.now);
    }
    if let Some(metadata) = object.object("metadata") {
        if finalizers.is_empty() {
            metadata.unset("finalizers");
        } else {
            metadata.set("finalizers", finalizers);
        }
    }
    // Grace can be shortened, never lengthened.
    let grace = grace_before.map_or(grace, |before| before.min(grace));
    api::meta::begin_deletion(&mut object, request.now, grace);
    if namespace && let Some(status) = object.object("status") {
        status.set("phase", "Terminating");
    }
    if object == old || options.dry_run {
        return Ok(Step::Marked(encoded(row, &object, current.key.clone(), current.mod_revision)?));
    }
    let mut storage_form = object;
    to_stored(server, row, &mut storage_form).await?;
    let stored = encoded(row, &storage_form, current.key.clone(), current.mod_revision)?;
    let (key, durability) = (current.key.clone(), request.durability());
    match server.storage().replace(key, current.mod_revision, stored.value.clone(), durability).await? {
        Some(revision) => Ok(Step::Marked(in_version(server, row, Arc::new(stored.at(revision))).await?)),
        None => Ok(Step::Again),
    }
}

fn check_preconditions(request: &Request<'_>, name: &str, old: &Value, options: &Options) -> Result<(), Failure> {
    let metadata = old.part("metadata");
    let conflict = |what: &str, wanted: &str, found: &str| {
        let why = format!("Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}");
        Err(Failure::conflict(request.group(), request.plural(), name, why))
    };
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != metadata.text("uid")) {
        return conflict("UID", uid, metadata.text("uid"));
    }
    let version = options.resource_version.as_deref();
    if let Some(version) = version.filter(|version| *version != metadata.text("resourceVersion")) {
        return conflict("ResourceVersion", version, metadata.text("resourceVersion"));
    }
    Ok(())
}

/// Seconds that the object may take to go.
fn grace(request: &Request<'_>, old: &Value, asked: Option<i64>) -> i64 {
    if !request.group().is_empty() || request.plural() != "pods" {
        return 0;
    }
    let (spec, phase) = (old.part("spec"), old.part("status").text("phase"));
    if spec.text("nodeName").is_empty() || matches!(phase, "Succeeded" | "Failed") {
        return 0;
    }
    let own = spec.int("terminationGracePeriodSeconds").unwrap_or(POD_GRACE_SECONDS);
    // A negative grace is one second, as upstream has it.
    let grace = asked.unwrap_or(own);
    if grace < 0 { 1 } else { grace }
}

/// The finalizers by which the garbage collector learns what to do with dependents.
fn propagate(request: &Request<'_>, options: &Options, was_deleting: bool, finalizers: &mut Vec<Value>) {
    // Nothing belongs to an event.
    if request.plural() == "events" && matches!(request.group(), "" | "events.k8s.io") {
        return;
    }
    let keeps_dependents =
        matches!((request.group(), request.plural()), ("batch", "jobs") | ("", "replicationcontrollers"));
    let policy = match options.propagation.as_deref() {
        Some(policy) => policy,
        None if was_deleting || finalizers.iter().any(|one| one == ORPHAN || one == FOREGROUND) => return,
        None if keeps_dependents => "Orphan",
        None => "Background",
    };
    let wanted = match policy {
        "Orphan" => Some(ORPHAN),
        "Foreground" => Some(FOREGROUND),
        _ => None,
    };
    finalizers.retain(|one| (one != ORPHAN && one != FOREGROUND) || wanted.is_some_and(|wanted| one == wanted));
    if let Some(wanted) = wanted.filter(|wanted| !finalizers.iter().any(|one| one == wanted)) {
        finalizers.push(wanted.into());
    }
}

/// Kinds whose deletion answers with the object.
fn shows_object(request: &Request<'_>) -> bool {
    matches!(
        (request.group(), request.plural()),
        (
            "",
            "pods"
                | "services"
                | "persistentvolumeclaims"
                | "persistentvolumes"
                | "podtemplates"
                | "resourcequotas"
                | "serviceaccounts"
        ) | ("resource.k8s.io", _)
    ) || (request.group() == "storage.k8s.io" && request.plural() != "csistoragecapacities")
}

fn success(request: &Request<'_>, name: &str, object: &Value) -> Value {
    let mut details = json!({"name": name, "kind": request.plural(), "uid": object.part("metadata").text("uid")});
    if !request.group().is_empty() {
        details.set("group", request.group());
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

fn options(request: &mut Request<'_>) -> Result<Options, Failure> {
    let query = &request.call.options;
    let mut options = Options {
        grace_seconds: query.grace_period_seconds,
        propagation: query.propagation_policy.clone(),
        dry_run: query.dry_run,
        ..Options::default()
    };
    let mut errors = Vec::new();
    if let Some(mut body) = request.call.body.take().filter(|body| !body.is_null()) {
        if !body.is_object() {
            return Err(Failure::bad_request("the body is not DeleteOptions"));
        }
        body.unset("apiVersion");
        typed::check(&mut body, ["", "v1", "DeleteOptions"], &[], typed::Strictness::Ignore)?;
        options.grace_seconds = body.int("gracePeriodSeconds").or(options.grace_seconds);
        if body.has("propagationPolicy") {
            options.propagation = Some(body.text("propagationPolicy").to_owned());
        } else if body.has("orphanDependents") {
            options.dependents_go = !body.flag("orphanDependents");
            let policy = if body.flag("orphanDependents") { "Orphan" } else { "Background" };
            options.propagation = Some(policy.to_owned());
        }
        let preconditions = body.part("preconditions");
        let text = |name: &str| preconditions.at(name).and_then(Value::as_str).map(str::to_owned);
        options.uid = text("uid");
        options.resource_version = text("resourceVersion");
        let dry_run = body.list("dryRun");
        if body.has("propagationPolicy") && body.has("orphanDependents") {
            let text = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(api::FieldError::invalid("propagationPolicy", body.part("propagationPolicy"), text));
        }
        if dry_run.iter().any(|one| one != "All") {
            errors.push(api::FieldError::not_supported("dryRun", body.part("dryRun"), &["All"]));
        }
        options.dry_run |= !dry_run.is_empty();
        options.given = Some(body);
    }
    if let Some(policy) = options.propagation.as_deref()
        && !matches!(policy, "Orphan" | "Background" | "Foreground")
    {
        let supported = ["Foreground", "Background", "Orphan", "nil"];
        errors.push(api::FieldError::not_supported("propagationPolicy", &policy.into(), &supported));
    }
    if errors.is_empty() { Ok(options) } else { Err(Failure::invalid("meta.k8s.io", "DeleteOptions", "", errors)) }
}
