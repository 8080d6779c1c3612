//! Objects as tables, and answers that are made of values: on demand, for those who ask.

use std::sync::Arc;

use api::{EventKind, Failure, Fields, Row};
use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::negotiate::{Form, Shape};
use crate::cache::Stored;
use crate::verbs::watch::{Item, line, name};
use crate::verbs::{Answered, Listed};

/// What a table's rows carry besides their cells (`includeObject`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    pub fn parse(text: Option<&str>) -> Result<Include, Failure> {
        match text {
            None | Some("" | "Metadata") => Ok(Include::Metadata),
            Some("None") => Ok(Include::None),
            Some("Object") => Ok(Include::Object),
            Some(other) => Err(Failure::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {other:?}: must be 'Metadata', \
                 'Object', 'None', or empty"
            ))),
        }
    }
}

/// An answer in another shape than its own.
pub fn of_answer(row: &Row, answer: &Answered, form: Form, include: Include, now: Timestamp) -> Result<Value, Failure> {
    let (shape, version) = (form.shape, form.meta);
    let table = |objects: &[Value], metadata: Value| table(version, row, objects, metadata, include, now, true);
    match (answer, shape) {
        (Answered::Stored(stored), Shape::Object) => decode(stored),
        (Answered::Value(value), Shape::Object) => Ok(value.clone()),
        (Answered::List(listed), Shape::Object) => {
            let item = if listed.row.custom.is_some() { decode } else { decode_item };
            let items = listed.objects.iter().map(item).collect::<Result<Vec<_>, _>>()?;
            Ok(list(&listed.row.api_version(), &listed.row.list_kind, listed.metadata(), items))
        }
        (Answered::Stored(stored), Shape::Table) => {
            let object = decode(stored)?;
            let metadata = json!({"resourceVersion": object.part("metadata").text("resourceVersion")});
            Ok(table(&[object], metadata))
        }
        (Answered::List(listed), Shape::Table) => {
            let objects = listed.objects.iter().map(decode).collect::<Result<Vec<_>, _>>()?;
            Ok(table(&objects, listed.metadata()))
        }
        (Answered::Stored(stored), Shape::PartialObjectMetadata | Shape::PartialObjectMetadataList) => {
            check_single(shape)?;
            Ok(partial(version, &decode(stored)?))
        }
        (Answered::List(listed), Shape::PartialObjectMetadataList | Shape::PartialObjectMetadata) => {
            check_list(shape)?;
            partial_list(version, listed)
        }
        (Answered::Value(value), Shape::Table) if value.text("kind") == row.list_kind => {
            Ok(table(value.list("items"), value.part("metadata").clone()))
        }
        (Answered::Value(value), Shape::Table) if value.text("kind") == row.kind => {
            Ok(table(std::slice::from_ref(value), json!({})))
        }
        // A Status, or what another kind answers: as it is.
        (Answered::Value(value), _) => Ok(value.clone()),
    }
}

/// A list of metadata is made of a list alone,
pub fn check_single(shape: Shape) -> Result<(), Failure> {
    if shape != Shape::PartialObjectMetadataList {
        return Ok(());
    }
    let text = "you requested PartialObjectMetadataList, but the requested object is not a list";
    Err(Failure::new(api::Reason::NotAcceptable, text))
}

/// and metadata of an object alone.
pub fn check_list(shape: Shape) -> Result<(), Failure> {
    if shape != Shape::PartialObjectMetadata {
        return Ok(());
    }
    let text = "you requested PartialObjectMetadata, but the requested object is a list";
    Err(Failure::new(api::Reason::NotAcceptable, text))
}

/// A watch's event as a table. Only the first one of a watch names its columns.
pub fn of_event(row: &Row, item: Item, version: &str, include: Include, now: Timestamp, first: &mut bool) -> Bytes {
    let metadata = |object: &Value| json!({"resourceVersion": object.part("metadata").text("resourceVersion")});
    let (kind, stored) = match &item {
        Item::Shared(kind, change) => (*kind, change.object.clone()),
        Item::Own(kind, stored) => (*kind, stored.clone()),
        Item::Bookmark(object) => {
            let Ok(object) = serde_json::from_slice::<Value>(object) else { return item.into_frame() };
            let mut table = table(version, row, &[], metadata(&object), include, now, std::mem::take(first));
            table.set("rows", json!([{"cells": [], "object": partial(version, &object)}]));
            return line(name(EventKind::Bookmark), table.to_string().as_bytes());
        }
        Item::Failed(_) => return item.into_frame(),
    };
    let Ok(object) = decode(&stored) else { return item.into_frame() };
    let metadata = metadata(&object);
    let table = table(version, row, &[object], metadata, include, now, std::mem::take(first));
    line(name(kind), table.to_string().as_bytes())
}

fn decode(stored: &Arc<Stored>) -> Result<Value, Failure> {
    stored.decode().map_err(Failure::internal)
}

fn decode_item(stored: &Arc<Stored>) -> Result<Value, Failure> {
    let mut object = decode(stored)?;
    object.unset("kind");
    object.unset("apiVersion");
    Ok(object)
}

fn list(api_version: &str, kind: &str, metadata: Value, items: Vec<Value>) -> Value {
    json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items})
}

fn partial(version: &str, object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": version, "metadata": object.part("metadata")})
}

fn partial_list(version: &str, listed: &Listed) -> Result<Value, Failure> {
    let item = |stored| Ok(partial(version, &decode(stored)?));
    let items = listed.objects.iter().map(item).collect::<Result<Vec<_>, Failure>>()?;
    Ok(list(version, "PartialObjectMetadataList", listed.metadata(), items))
}

fn table(
    version: &str,
    row: &Row,
    objects: &[Value],
    metadata: Value,
    include: Include,
    now: Timestamp,
    with_columns: bool,
) -> Value {
    let columns: Vec<Value> =
        if with_columns { row.columns().iter().map(api::print::Column::to_value).collect() } else { Vec::new() };
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            let mut entry = json!({"cells": row.cells(object, now)});
            match include {
                Include::None => {}
                Include::Metadata => entry.set("object", partial(version, object)),
                Include::Object => entry.set("object", object.clone()),
            }
            entry
        })
        .collect();
    json!({
        "kind": "Table", "apiVersion": version, "metadata": metadata,
        "columnDefinitions": columns, "rows": rows,
    })
}
