//! Makes rows of definitions, and writes the status that follows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::custom::{Conversion, Definition, status};
use api::{Call, Fields, Resource, Verb};
use bytes::Bytes;
use serde_json::Value;
use task::Shutdown;

use super::table::{Known, KnownRows};
use super::{DEFINITIONS, Lost, MANAGER, identity};
use crate::cache::{Stored, TooOld};
use crate::server::ApiServer;
use crate::webhook::Endpoint;

/// After a status could not be written.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Keeps rows and statuses right for as long as the server runs.
pub(super) async fn follow(server: ApiServer) -> Result<(), Lost> {
    let definitions = server.cache().resource(DEFINITIONS).ok_or(Lost::NoCache)?;
    let (_, mut follower) = definitions.snapshot_and_follow(None, 0);
    loop {
        let statuses = refresh(&server);
        let mut failed = false;
        for object in statuses {
            failed |= !write(&server, object).await;
        }
        let again = async {
            match failed {
                true => tokio::time::sleep(TRY_AGAIN).await,
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

/// Makes the table anew if a definition changed. Returns the definitions whose status is to be another.
pub(super) fn refresh(server: &ApiServer) -> Vec<Value> {
    let Some(definitions) = server.cache().resource(DEFINITIONS) else { return Vec::new() };
    let custom = server.custom();
    let mut known = custom.known.lock();
    let there = definitions.objects(None);
    let mut changed = read(&mut known, &there);
    let mut statuses = Vec::new();
    let names: Vec<String> = known.keys().cloned().collect();
    for name in names {
        let Some(object) = known.get(&name).map(|one| one.object.clone()) else { continue };
        let group = object.part("spec").text("group");
        let others: Vec<Arc<Value>> = known
            .iter()
            .filter(|(other, one)| **other != name && one.object.part("spec").text("group") == group)
            .map(|(_, one)| one.object.clone())
            .collect();
        let others: Vec<&Value> = others.iter().map(Arc::as_ref).collect();
        let next = status::next(&object, &others, server.now());
        if let Some(known) = known.get_mut(&name) {
            changed |= make_rows(server, known, &next);
            if next != *object {
                // The others of the group are to see the names that this one has got.
                known.object = Arc::new(next.clone());
                statuses.push(next);
            }
        }
    }
    if changed {
        custom.replace(&known);
    }
    statuses
}

/// Takes over what is there; true if a definition with rows went.
fn read(known: &mut BTreeMap<String, Known>, there: &[Arc<Stored>]) -> bool {
    let mut went = false;
    known.retain(|name, one| {
        let stays = there.iter().any(|stored| stored.name() == name);
        if !stays && let Some(rows) = &one.rows {
            rows.ended.cancel();
            went = true;
        }
        stays
    });
    for stored in there {
        let same = known.get(stored.name()).is_some_and(|one| one.mod_revision == stored.mod_revision);
        if same {
            continue;
        }
        match stored.decode() {
            Ok(object) => {
                let rows = known.remove(stored.name()).and_then(|one| one.rows);
                let one = Known { mod_revision: stored.mod_revision, object: Arc::new(object), rows };
                known.insert(stored.name().to_owned(), one);
            }
            Err(error) => tracing::error!(name = stored.name(), %error, "a definition cannot be read"),
        }
    }
    went
}

/// Makes a definition's rows, if they are not the ones that it has; true if something changed.
fn make_rows(server: &ApiServer, known: &mut Known, object: &Value) -> bool {
    let metadata = object.part("metadata");
    let accepted = status::is_true(object, status::NAMES_ACCEPTED) || status::is_true(object, status::ESTABLISHED);
    if !accepted {
        return drop_rows(server, known);
    }
    let names = object.part("status").part("acceptedNames");
    let (uid, generation) = (metadata.text("uid"), metadata.int("generation").unwrap_or_default());
    let terminating = metadata.has("deletionTimestamp") || status::is_true(object, status::TERMINATING);
    if let Some(rows) = &mut known.rows
        && rows.uid == uid
        && rows.names == *names
    {
        let was_terminating = rows.rows.iter().any(|row| row.custom.as_ref().is_some_and(|one| one.terminating));
        if rows.generation == generation && was_terminating == terminating {
            return false;
        }
        // A deletion counts as a generation, but changes no schema.
        if terminating && !was_terminating {
            rows.generation = generation;
            rows.rows = api::custom::rows(&rows.definition, object);
            return true;
        }
    }
    let compiled = match Definition::compile(object) {
        Ok(compiled) => Arc::new(compiled),
        Err(error) => {
            tracing::error!(name = metadata.text("name"), error, "a definition cannot be served");
            return drop_rows(server, known);
        }
    };
    let rows = api::custom::rows(&compiled, object);
    if let Some(row) = rows.first()
        && let Err(error) = server.cache().add(Bytes::from(row.list_key(None)))
    {
        tracing::warn!(name = metadata.text("name"), %error, "a custom resource is not served for now");
        return false;
    }
    let endpoint = match &compiled.conversion {
        Conversion::None => None,
        Conversion::Webhook { client, .. } => match Endpoint::from_client_config(client) {
            Ok(endpoint) => Some(endpoint),
            Err(error) => {
                tracing::warn!(name = metadata.text("name"), %error, "a conversion webhook cannot be called");
                None
            }
        },
    };
    if let Some(before) = &known.rows {
        before.ended.cancel();
    }
    known.rows = Some(KnownRows {
        uid: uid.to_owned(),
        generation,
        names: names.clone(),
        definition: compiled,
        rows,
        ended: Shutdown::new(),
        endpoint,
    });
    true
}

fn drop_rows(server: &ApiServer, known: &mut Known) -> bool {
    let Some(rows) = known.rows.take() else { return false };
    rows.ended.cancel();
    if let Some(row) = rows.rows.first() {
        server.cache().remove(row.list_key(None).as_bytes());
    }
    true
}

/// Writes a status; false if it is to be tried again. What somebody else changed meanwhile comes again by itself.
async fn write(server: &ApiServer, object: Value) -> bool {
    let name = object.part("metadata").text("name").to_owned();
    match server.call(&identity(), status_call(&name, object)).await {
        Ok(_) => true,
        Err(failure) if failure.is_conflict() || failure.is_not_found() => true,
        Err(failure) => {
            tracing::warn!(name, %failure, "the status of a definition cannot be written");
            false
        }
    }
}

/// An update of a definition's status.
pub(super) fn status_call(name: &str, object: Value) -> Call {
    let resource = Resource::new("apiextensions.k8s.io", "v1", "customresourcedefinitions");
    let mut call = Call::new(Verb::Update, resource);
    call.subresource = Some("status".into());
    call.name = Some(name.to_owned());
    call.body = Some(object);
    call.options.field_manager = Some(MANAGER.to_owned());
    call
}
