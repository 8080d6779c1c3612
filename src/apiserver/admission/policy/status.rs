//! Keeps `status` of ValidatingAdmissionPolicies: what type checking finds, for each generation.

use std::convert::Infallible;

use api::{Call, Failure, Fields, PatchKind, Resource, Verb};
use serde_json::{Value, json};

use super::typecheck;
use crate::identity::Identity;
use crate::server::ApiServer;

const PREFIX: &[u8] = b"/registry/validatingadmissionpolicies/";
/// The name that upstream's controller writes under.
const MANAGER: &str = "validatingadmissionpolicy-status";

/// Until the server stops.
pub async fn run(server: ApiServer) -> Result<(), Infallible> {
    let Some(policies) = server.cache().resource(PREFIX) else { return Ok(()) };
    loop {
        let (snapshot, mut follower) = policies.snapshot_and_follow(None, server.cache().revision());
        for stored in &snapshot.objects {
            keep(&server, &stored.value).await;
        }
        // One who falls behind looks at all of them again.
        while let Ok(changes) = follower.next().await {
            for change in changes.iter().filter(|change| !change.deleted) {
                keep(&server, &change.object.value).await;
            }
        }
    }
}

async fn keep(server: &ApiServer, stored: &[u8]) {
    let Ok(policy) = serde_json::from_slice::<Value>(stored) else { return };
    let generation = policy.part("metadata").int("generation").unwrap_or_default();
    if policy.part("status").int("observedGeneration").unwrap_or_default() >= generation {
        return;
    }
    if let Err(failure) = write(server, &policy, generation).await
        && !failure.is_not_found()
    {
        tracing::warn!(%failure, "the status of an admission policy is not written");
    }
}

async fn write(server: &ApiServer, policy: &Value, generation: i64) -> Result<(), Failure> {
    let warnings = typecheck::warnings(policy, &server.rows());
    let checked = if warnings.is_empty() { json!({}) } else { json!({"expressionWarnings": warnings}) };
    let resource = Resource {
        group: "admissionregistration.k8s.io".into(),
        version: "v1".into(),
        plural: "validatingadmissionpolicies".into(),
    };
    let mut call = Call::new(Verb::Patch, resource);
    call.name = Some(policy.part("metadata").text("name").to_owned());
    call.subresource = Some("status".into());
    call.options.patch = Some(PatchKind::Merge);
    call.options.field_manager = Some(MANAGER.to_owned());
    call.body = Some(json!({"status": {"observedGeneration": generation, "typeChecking": checked}}));
    server.call(&Identity::master("system:apiserver"), call).await?;
    Ok(())
}
