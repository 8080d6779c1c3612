//! Objects in the form that a client takes, made from the stored bytes without decoding them: JSON and protobuf,
//! whole or their metadata alone.

use std::sync::Arc;

use api::{EventKind, Failure, Row};
use bytes::Bytes;
use schema::protobuf::{ENVELOPE_TAIL, Encoder, envelope, envelope_head, write_bytes};
use schema::{TypeRef, Types};
use serde_json::Value;

use super::negotiate::{Form, META, Media, Shape};
use crate::cache::{Stored, frame};
use crate::failures;
use crate::verbs::Listed;
use crate::verbs::watch::{Item, line, name};

const PARTIAL: &str = "PartialObjectMetadata";
const PARTIAL_LIST: &str = "PartialObjectMetadataList";
const META_TYPES: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// What protobuf counts a list's fields as, whatever the list's kind.
const LIST_METADATA: u32 = 1;
const LIST_ITEMS: u32 = 2;

/// Writes objects of one row in one form.
pub struct Writer {
    row: Arc<Row>,
    /// Metadata alone, and in which version.
    partial: Option<&'static str>,
    protobuf: Option<Protobuf>,
}

struct Protobuf {
    ty: TypeRef<'static>,
    encoder: Encoder,
    /// The object as JSON, then as a message; kept for the next.
    json: Vec<u8>,
    message: Vec<u8>,
}

/// The type in protobuf of a row's objects; custom resources have none.
pub fn of_row(row: &Row) -> Option<TypeRef<'static>> {
    let resource = &row.resource;
    row.custom.is_none().then(|| Types::builtin().kind(&resource.group, &resource.version, &row.kind)).flatten()
}

/// The type in protobuf of what a value says it is.
pub fn type_of(value: &Value) -> Option<TypeRef<'static>> {
    let (api_version, kind) = (value.get("apiVersion")?.as_str()?, value.get("kind")?.as_str()?);
    if META.contains(&api_version) { meta(kind) } else { Types::builtin().api_version_kind(api_version, kind) }
}

fn meta(kind: &str) -> Option<TypeRef<'static>> {
    Types::builtin().named(&format!("{META_TYPES}{kind}"))
}

/// A value as a protobuf body.
pub fn protobuf_body(value: &Value) -> Result<Bytes, Failure> {
    let Some(ty) = type_of(value) else { return Err(failures::not_acceptable("application/json, application/yaml")) };
    let (mut message, mut body) = (Vec::with_capacity(512), Vec::with_capacity(640));
    Encoder::default().value(value, ty, &mut message).map_err(Failure::internal)?;
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    envelope(text("apiVersion"), text("kind"), &message, &mut body);
    Ok(body.into())
}

impl Writer {
    /// None for forms that are made of values: YAML and tables.
    pub fn new(row: &Arc<Row>, form: Form) -> Result<Option<Writer>, Failure> {
        let partial = match form.shape {
            Shape::Object => None,
            Shape::PartialObjectMetadata | Shape::PartialObjectMetadataList => Some(form.meta),
            Shape::Table => return Ok(None),
        };
        let protobuf = match form.media {
            Media::Json => None,
            Media::Yaml => return Ok(None),
            Media::Protobuf => {
                let ty = if partial.is_some() { meta(PARTIAL) } else { of_row(row) };
                let ty = ty.ok_or_else(|| failures::not_acceptable("application/json, application/yaml"))?;
                Some(Protobuf { ty, encoder: Encoder::default(), json: Vec::new(), message: Vec::new() })
            }
        };
        Ok(Some(Writer { row: row.clone(), partial, protobuf }))
    }

    pub fn media(&self) -> Media {
        if self.protobuf.is_some() { Media::Protobuf } else { Media::Json }
    }

    /// One object as a body.
    pub fn body(&mut self, stored: &Stored) -> Result<Bytes, Failure> {
        if self.protobuf.is_none() {
            return Ok(self.partial.map_or_else(|| stored.served(), |version| partial_json(version, stored)));
        }
        let (row, partial) = (self.row.clone(), self.partial);
        let message = self.message(stored)?;
        let mut out = Vec::with_capacity(message.len() + 64);
        match partial {
            Some(version) => envelope(version, PARTIAL, message, &mut out),
            None => envelope(&row.api_version(), &row.kind, message, &mut out),
        }
        Ok(out.into())
    }

    /// Everything of a list that stands before its items, which take `items_bytes` in protobuf.
    pub fn list_head(&mut self, listed: &Listed, items_bytes: usize) -> Result<Vec<u8>, Failure> {
        let api_version = self.partial.map_or_else(|| self.row.api_version(), str::to_owned);
        let kind = if self.partial.is_some() { PARTIAL_LIST } else { self.row.list_kind.as_ref() };
        let Some(protobuf) = &mut self.protobuf else { return Ok(listed.head(&api_version, kind).into_bytes()) };
        let ty = meta("ListMeta").ok_or_else(|| Failure::internal("ListMeta has no type"))?;
        let (mut message, mut metadata, mut head) = (Vec::new(), Vec::new(), Vec::new());
        protobuf.encoder.value(&listed.metadata(), ty, &mut message).map_err(Failure::internal)?;
        write_bytes(LIST_METADATA, &message, &mut metadata);
        envelope_head(&api_version, kind, metadata.len() + items_bytes, &mut head);
        head.extend_from_slice(&metadata);
        Ok(head)
    }

    /// Bytes of an item with its tag and length, which a list in protobuf says before its items; 0 for JSON. Those of
    /// whole objects are kept with them.
    pub fn item_bytes(&mut self, stored: &Stored) -> Result<usize, Failure> {
        if self.protobuf.is_none() {
            return Ok(0);
        }
        let known = if self.partial.is_some() { None } else { stored.protobuf_bytes() };
        let message_bytes = match known {
            Some(known) => known,
            None => self.message(stored)?.len(),
        };
        Ok(1 + schema::protobuf::varint_bytes(message_bytes as u64) + message_bytes)
    }

    /// Appends an item of a list. The head was written by then, and with it how long the item is.
    pub fn item(&mut self, stored: &Stored, first: bool, out: &mut Vec<u8>) {
        if self.protobuf.is_some() {
            match self.message(stored) {
                Ok(message) => write_bytes(LIST_ITEMS, message, out),
                Err(error) => tracing::error!(%error, "an object of a list cannot be written"),
            }
            return;
        }
        if !first {
            out.push(b',');
        }
        match self.partial {
            Some(version) => write_partial(version, stored, out),
            None => write_item(&self.row, stored, out),
        }
    }

    /// What stands behind a list's items.
    pub fn list_tail(&self) -> &'static [u8] {
        if self.protobuf.is_some() { ENVELOPE_TAIL } else { b"]}" }
    }

    /// A watch's event.
    pub fn frame(&mut self, item: Item) -> Bytes {
        if self.protobuf.is_none() && self.partial.is_none() {
            return item.into_frame();
        }
        let framed = match &item {
            Item::Shared(kind, change) if self.partial.is_none() => {
                return change.protobuf_frame(*kind, || self.event(*kind, &change.object).unwrap_or_default());
            }
            Item::Shared(kind, change) => self.event(*kind, &change.object),
            Item::Own(kind, stored) => self.event(*kind, stored),
            Item::Bookmark(object) => self.bookmark(object),
            Item::Failed(failure) => self.failed(failure),
        };
        framed.unwrap_or_else(|error| {
            tracing::error!(%error, "an event cannot be written");
            Bytes::new()
        })
    }

    fn event(&mut self, kind: EventKind, stored: &Stored) -> Result<Bytes, Failure> {
        if self.protobuf.is_none() {
            return Ok(match self.partial {
                Some(version) => line(name(kind), &partial_json(version, stored)),
                None => frame(name(kind), stored),
            });
        }
        Ok(delimited(name(kind), &self.body(stored)?))
    }

    fn bookmark(&mut self, object: &[u8]) -> Result<Bytes, Failure> {
        let kind = name(EventKind::Bookmark);
        let mut object: Value = serde_json::from_slice(object).map_err(Failure::internal)?;
        if let Some(version) = self.partial {
            api::meta::set_type(&mut object, version, PARTIAL);
        }
        match self.media() {
            Media::Protobuf => Ok(delimited(kind, &protobuf_body(&object)?)),
            Media::Json | Media::Yaml => Ok(line(kind, object.to_string().as_bytes())),
        }
    }

    fn failed(&mut self, failure: &Failure) -> Result<Bytes, Failure> {
        let status = failure.to_status();
        match self.media() {
            Media::Protobuf => Ok(delimited("ERROR", &protobuf_body(&status)?)),
            Media::Json | Media::Yaml => Ok(line("ERROR", status.to_string().as_bytes())),
        }
    }

    /// The object's message, for as long as no other is asked for.
    fn message(&mut self, stored: &Stored) -> Result<&[u8], Failure> {
        let Some(Protobuf { ty, encoder, json, message }) = &mut self.protobuf else { return Ok(&[]) };
        json.clear();
        message.clear();
        match self.partial {
            Some(version) => write_partial(version, stored, json),
            None => stored.write(json),
        }
        encoder.json(json, *ty, message).map_err(Failure::internal)?;
        if self.partial.is_none() {
            stored.set_protobuf_bytes(message.len());
        }
        Ok(message)
    }
}

/// Appends an item of a list in JSON. Those of custom resources say their kind.
pub fn write_item(row: &Row, stored: &Stored, out: &mut Vec<u8>) {
    if row.custom.is_some() { stored.write(out) } else { stored.write_item(out) }
}

fn partial_json(version: &str, stored: &Stored) -> Bytes {
    let mut out = Vec::with_capacity(1024);
    write_partial(version, stored, &mut out);
    out.into()
}

fn write_partial(version: &str, stored: &Stored, out: &mut Vec<u8>) {
    out.extend_from_slice(br#"{"kind":"PartialObjectMetadata","apiVersion":""#);
    out.extend_from_slice(version.as_bytes());
    out.extend_from_slice(br#"","metadata":"#);
    stored.write_metadata(out);
    out.push(b'}');
}

/// A `WatchEvent` behind its length, as a stream of protobuf has it. `object` is a body with its envelope.
fn delimited(kind: &str, object: &[u8]) -> Bytes {
    const EVENT_TYPE: u32 = 1;
    const EVENT_OBJECT: u32 = 2;
    const RAW_EXTENSION_RAW: u32 = 1;
    let mut raw = Vec::with_capacity(object.len() + 8);
    write_bytes(RAW_EXTENSION_RAW, object, &mut raw);
    let mut out = Vec::with_capacity(raw.len() + 32);
    out.extend_from_slice(&[0; 4]);
    write_bytes(EVENT_TYPE, kind.as_bytes(), &mut out);
    write_bytes(EVENT_OBJECT, &raw, &mut out);
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX).to_be_bytes();
    out.iter_mut().zip(length).for_each(|(byte, length)| *byte = length);
    out.into()
}
