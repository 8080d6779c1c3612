//! Deletes the objects of a definition that is being deleted, and then lets it go (`controller/finalizer`).

use std::sync::Arc;
use std::time::Duration;

use api::custom::CLEANUP_FINALIZER;
use api::custom::status::{self, Condition};
use api::{Call, Failure, Fields, Row, Verb};
use serde_json::{Value, json};

use super::rows::status_call;
use super::{DEFINITIONS, Lost, identity};
use crate::cache::TooOld;
use crate::failures;
use crate::notes::Notes;
use crate::server::ApiServer;
use crate::verbs;

/// How long to wait before looking whether what was deleted is gone; finalizers take their time.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// Cleans up for as long as the server runs.
pub(super) async fn follow(server: ApiServer) -> Result<(), Lost> {
    let definitions = server.cache().resource(DEFINITIONS).ok_or(Lost::NoCache)?;
    let (_, mut follower) = definitions.snapshot_and_follow(None, 0);
    loop {
        let mut waiting = false;
        for stored in definitions.objects(None) {
            let Ok(object) = stored.decode() else { continue };
            let held = object.part("metadata").list("finalizers").iter().any(|one| one == CLEANUP_FINALIZER);
            if !held || !object.part("metadata").has("deletionTimestamp") {
                continue;
            }
            match clean(&server, object).await {
                Ok(done) => waiting |= !done,
                Err(failure) if failure.is_conflict() || failure.is_not_found() => {}
                Err(failure) => {
                    tracing::warn!(name = stored.name(), %failure, "a definition's objects cannot be deleted");
                    waiting = true;
                }
            }
        }
        let again = async {
            match waiting {
                true => tokio::time::sleep(LOOK_AGAIN).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            changes = follower.next() => {
                changes.map_err(|TooOld { complete_after }| Lost::TooOld { complete_after })?;
            }
            () = again => {}
        }
    }
}

/// Does what can be done now; true if nothing is left to wait for.
async fn clean(server: &ApiServer, mut object: Value) -> Result<bool, Failure> {
    let name = object.part("metadata").text("name").to_owned();
    let last = if status::is_true(&object, status::ESTABLISHED) {
        let Some(row) = server.custom().storage_row(&name) else { return Ok(false) };
        // Nothing may come in any more before what is there is counted.
        if !row.custom.as_ref().is_some_and(|version| version.terminating) {
            return Ok(false);
        }
        let under_way = status::find(&object, status::TERMINATING)
            .is_some_and(|one| one.text("reason") == "InstanceDeletionInProgress");
        if !under_way {
            let why = "CustomResource deletion is in progress";
            let condition = Condition::new(status::TERMINATING, "True", "InstanceDeletionInProgress", why);
            status::set(&mut object, &condition, server.now());
            server.call(&identity(), status_call(&name, object)).await?;
            return Ok(true);
        }
        if !delete_all(server, &row).await? {
            return Ok(false);
        }
        Condition::new(status::TERMINATING, "False", "InstanceDeletionCompleted", "removed all instances")
    } else {
        Condition::new(status::TERMINATING, "False", "NeverEstablished", "resource was never established")
    };
    status::set(&mut object, &last, server.now());
    if let Some(metadata) = object.object("metadata") {
        let left = metadata.list("finalizers").iter().filter(|one| *one != CLEANUP_FINALIZER).cloned();
        let left: Vec<Value> = left.collect();
        metadata.set("finalizers", left);
    }
    server.call(&identity(), status_call(&name, object)).await?;
    Ok(true)
}

/// Deletes all objects; true if none is left.
async fn delete_all(server: &ApiServer, row: &Arc<Row>) -> Result<bool, Failure> {
    let written = server.store().read_index().await.map_err(|error| failures::of_store(&error))?;
    server.cache().reach(written).await?;
    let prefix = row.list_key(None);
    let count = || server.cache().resource(prefix.as_bytes()).map_or(0, |resource| resource.len());
    if count() == 0 {
        return Ok(true);
    }
    let mut call = Call::new(Verb::DeleteCollection, row.resource.clone());
    call.body = Some(json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}));
    verbs::execute(server, &identity(), row.clone(), call, &Notes::default()).await?;
    Ok(false)
}
