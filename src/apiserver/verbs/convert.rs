//! Between the version in which an object is stored and the one that is served.
//!
//! Of built-in kinds all objects lie in one version. Of a custom resource each lies in the version, and by the schema,
//! that held when it was written: it is pruned and defaulted when it is read, and may have to go through the
//! definition's webhook. Where neither can be, the stored bytes are served as they are.

use std::sync::Arc;

use api::custom::{Conversion, Version};
use api::{Failure, Fields, Row};
use serde_json::Value;

use super::encoded;
use crate::cache::Stored;
use crate::custom;
use crate::server::ApiServer;

/// Whether objects are served in the very bytes in which they are stored.
pub fn is_native(row: &Row) -> bool {
    row.storage == row.resource && row.custom.as_ref().is_none_or(|version| version.definition.steady)
}

/// Whether an object need not be written again to be in the storage version.
pub fn is_in_storage_version(row: &Row, stored: &Stored) -> bool {
    row.custom
        .as_ref()
        .is_none_or(|version| version.definition.steady || stored.api_version() == row.storage.api_version())
}

/// The object in the version that the row serves; the very same bytes where that is the stored one.
pub async fn in_version(server: &ApiServer, row: &Row, stored: Arc<Stored>) -> Result<Arc<Stored>, Failure> {
    if is_native(row) {
        return Ok(stored);
    }
    let converted = all_in_version(server, row, vec![stored]).await?;
    converted.into_iter().next().ok_or_else(|| Failure::internal("a conversion lost its object"))
}

/// The same for many objects, which a webhook converts in one call.
pub async fn all_in_version(
    server: &ApiServer,
    row: &Row,
    stored: Vec<Arc<Stored>>,
) -> Result<Vec<Arc<Stored>>, Failure> {
    if is_native(row) {
        return Ok(stored);
    }
    let objects = stored
        .iter()
        .map(|stored| serde_json::from_slice(&stored.value))
        .collect::<Result<Vec<Value>, _>>()
        .map_err(Failure::internal)?;
    let before = row.custom.is_some().then(|| objects.clone());
    let objects = served(server, row, objects).await?;
    let encode = |(at, (object, stored)): (usize, (Value, Arc<Stored>))| {
        if before.as_ref().and_then(|before| before.get(at)) == Some(&object) {
            return Ok(stored);
        }
        encoded(row, &object, stored.key.clone(), stored.mod_revision)
    };
    objects.into_iter().zip(stored).enumerate().map(encode).collect()
}

/// An object decoded in the version that the row serves, with its resource version.
pub async fn object(server: &ApiServer, row: &Row, stored: &Stored) -> Result<Value, Failure> {
    let object = serde_json::from_slice(&stored.value).map_err(Failure::internal)?;
    let mut object = if is_native(row) {
        object
    } else {
        let converted = served(server, row, vec![object]).await?;
        converted.into_iter().next().ok_or_else(|| Failure::internal("a conversion lost its object"))?
    };
    if let Some(metadata) = object.object("metadata").filter(|_| stored.mod_revision > 0) {
        metadata.set("resourceVersion", stored.mod_revision.to_string());
    }
    Ok(object)
}

/// Brings an object that is in the row's version into the one that is stored.
pub async fn to_stored(server: &ApiServer, row: &Row, object: &mut Value) -> Result<(), Failure> {
    if let Some(version) = &row.custom
        && row.storage != row.resource
        && version.definition.conversion != Conversion::None
    {
        let target = &version.definition.storage_version;
        let converted = by_webhook(server, version, vec![object.take()], target).await?;
        *object = converted.into_iter().next().ok_or_else(|| Failure::internal("a conversion lost its object"))?;
        version.definition.prune(object, target);
        return Ok(());
    }
    row.to_storage(object);
    Ok(())
}

/// Whether other versions of the row's objects come from a webhook.
pub fn needs_webhook(row: &Row) -> bool {
    row.custom.as_ref().is_some_and(|version| version.definition.conversion != Conversion::None)
}

/// An object of another version in the row's, by the webhook.
pub async fn through_webhook(server: &ApiServer, row: &Row, object: Value) -> Result<Value, Failure> {
    let Some(version) = &row.custom else { return Ok(object) };
    let converted = by_webhook(server, version, vec![object], &version.name).await?;
    let mut object = converted.into_iter().next().ok_or_else(|| Failure::internal("a conversion lost its object"))?;
    version.definition.prune(&mut object, &version.name);
    Ok(object)
}

/// Stored objects in the version that the row serves.
async fn served(server: &ApiServer, row: &Row, mut objects: Vec<Value>) -> Result<Vec<Value>, Failure> {
    let Some(version) = &row.custom else {
        objects.iter_mut().for_each(|object| row.to_served(object));
        return Ok(objects);
    };
    objects.iter_mut().for_each(|object| version.definition.as_read(object));
    if version.definition.conversion != Conversion::None {
        objects = by_webhook(server, version, objects, &version.name).await?;
    }
    let api_version = row.api_version();
    for object in &mut objects {
        if object.text("apiVersion") != api_version || version.definition.conversion != Conversion::None {
            object.set("apiVersion", api_version.as_str());
            version.definition.prune(object, &version.name);
        }
    }
    Ok(objects)
}

/// Sends those objects that are in another version than `target` to the webhook.
async fn by_webhook(
    server: &ApiServer,
    version: &Version,
    mut objects: Vec<Value>,
    target: &str,
) -> Result<Vec<Value>, Failure> {
    let desired = version.definition.api_version(target);
    let others: Vec<usize> =
        objects.iter().enumerate().filter(|(_, one)| one.text("apiVersion") != desired).map(|(at, _)| at).collect();
    if others.is_empty() {
        return Ok(objects);
    }
    let mut asked = Vec::with_capacity(others.len());
    for at in &others {
        asked.extend(objects.get_mut(*at).map(Value::take));
    }
    let answered = custom::convert(server, &version.definition, asked, &desired).await?;
    for (at, object) in others.into_iter().zip(answered) {
        if let Some(place) = objects.get_mut(at) {
            *place = object;
        }
    }
    Ok(objects)
}
