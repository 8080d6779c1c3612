//! Field ownership: `metadata.managedFields` for every write.

use std::sync::LazyLock;

use api::{Cause, Failure, Reason};
use schema::managed::{self, ApplyError, Set, Write};
use serde_json::Value;

use super::{Request, typed};

/// The endpoint of an object itself gives nobody its status, that of the status nothing else.
static STATUS: LazyLock<Set<'static>> = LazyLock::new(|| Set::of_fields(&[&["status"]]));
/// That of a custom resource's status takes nothing from the metadata at all.
static CUSTOM_ALL_BUT_STATUS: LazyLock<Set<'static>> = LazyLock::new(|| Set::of_fields(&[&["metadata"], &["spec"]]));
static ALL_BUT_STATUS: LazyLock<Set<'static>> =
    LazyLock::new(|| Set::of_fields(&[&["spec"], &["metadata", "labels"], &["metadata", "ownerReferences"]]));

/// What is asked for in a certificate signing request is nobody's: it never changes.
static SPEC_AND_STATUS: LazyLock<Set<'static>> = LazyLock::new(|| Set::of_fields(&[&["spec"], &["status"]]));
static SPEC_AND_CONDITIONS: LazyLock<Set<'static>> =
    LazyLock::new(|| Set::of_fields(&[&["spec"], &["status", "conditions"]]));
static SPEC_AND_CERTIFICATE: LazyLock<Set<'static>> =
    LazyLock::new(|| Set::of_fields(&[&["spec"], &["status", "certificate"]]));

fn write<T>(request: &Request<'_>, then: impl FnOnce(&Write<'_>) -> T) -> Option<T> {
    let ty = typed::of_row(&request.row)?;
    let api_version = request.row.api_version();
    let now = api::meta::time(request.now);
    let reset_fields = match request.subresource() {
        None | Some("status" | "approval") if request.plural() == "certificatesigningrequests" => {
            Some(match request.subresource() {
                None => &*SPEC_AND_STATUS,
                Some("status") => &*SPEC_AND_CONDITIONS,
                Some(_) => &*SPEC_AND_CERTIFICATE,
            })
        }
        None if request.row.has_status() => Some(&*STATUS),
        Some("status") if request.row.custom.is_some() => Some(&*CUSTOM_ALL_BUT_STATUS),
        Some("status") => Some(&*ALL_BUT_STATUS),
        _ => None,
    };
    Some(then(&Write {
        ty,
        manager: request.manager(),
        api_version: &api_version,
        subresource: request.subresource().unwrap_or_default(),
        reset_fields,
        now: &now,
    }))
}

/// Notes what a create or update changed.
pub fn update(request: &Request<'_>, live: Option<&Value>, object: &mut Value) {
    write(request, |write| managed::update(live, object, write));
}

/// Merges an applied configuration into the live object.
pub fn apply(request: &Request<'_>, live: Option<&Value>, config: &Value) -> Result<Value, Failure> {
    let force = request.call.options.force.unwrap_or(false);
    let applied = write(request, |write| managed::apply(live, config, force, write))
        .ok_or_else(|| Failure::internal("the kind has no fields that could be owned"))?;
    applied.map_err(|error| match &error {
        ApplyError::Conflicts(conflicts) => {
            let mut failure = Failure::new(Reason::Conflict, error.to_string());
            failure.details_mut().causes = conflicts
                .iter()
                .map(|conflict| Cause {
                    reason: "FieldManagerConflict".to_owned(),
                    message: conflict.message(),
                    field: conflict.path.to_string(),
                })
                .collect();
            failure
        }
        ApplyError::Version { .. } | ApplyError::ManagedFieldsGiven => Failure::bad_request(error.to_string()),
        // Upstream does not know whose fault that is.
        ApplyError::Invalid { .. } => Failure::new(Reason::Unknown, error.to_string()),
        ApplyError::ManagedFields(_) => Failure::internal(error),
    })
}
