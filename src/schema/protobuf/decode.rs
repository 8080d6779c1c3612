//! Protobuf to JSON values.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::{Alternative, DEPTH_MAX, JSON_SCHEMA, Leaf, MAGIC, leaf};
use crate::types::{Number, WireFields};
use crate::{FieldRef, Shape, TypeRef, Types};

/// Why a body cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Magic,
    #[error("unexpected EOF")]
    Truncated,
    #[error("a field has another wire type than its type has")]
    WireType,
    #[error("a text is not UTF-8")]
    Utf8,
    #[error("the message is nested too deeply")]
    Depth,
    #[error("an embedded document is not JSON")]
    Embedded,
    #[error("no such kind in protobuf")]
    Kind,
}

/// A body's object, with its `apiVersion` and `kind`.
pub fn decode(body: &[u8], types: &Types) -> Result<Value, DecodeError> {
    let (api_version, kind, raw) = opened(body)?;
    let of_options =
        || types.api_version_kind("v1", kind).filter(|ty| ty.as_struct().is_some_and(|s| s.is_in_every_group()));
    let ty = types.api_version_kind(api_version, kind).or_else(of_options).ok_or(DecodeError::Kind)?;
    let mut object = Map::new();
    object.insert("kind".to_owned(), kind.into());
    object.insert("apiVersion".to_owned(), api_version.into());
    decode_message(raw, ty, &mut object)?;
    Ok(Value::Object(object))
}

/// What an envelope holds: `apiVersion`, `kind` and the object's message.
pub fn opened(body: &[u8]) -> Result<(&str, &str, &[u8]), DecodeError> {
    let unknown = body.strip_prefix(MAGIC).ok_or(DecodeError::Magic)?;
    let (mut api_version, mut kind, mut raw) = ("", "", &[][..]);
    for field in Reader(unknown) {
        match field? {
            (1, Wire::Bytes(type_meta)) => {
                for field in Reader(type_meta) {
                    match field? {
                        (1, Wire::Bytes(text)) => api_version = utf8(text)?,
                        (2, Wire::Bytes(text)) => kind = utf8(text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    Ok((api_version, kind, raw))
}

/// Adds a message's fields to an object.
pub fn decode_message(bytes: &[u8], ty: TypeRef<'_>, object: &mut Map<String, Value>) -> Result<(), DecodeError> {
    let ty = ty.as_struct().ok_or(DecodeError::Kind)?;
    message(ty.wire_fields(), Number::NONE, 0, bytes, object, 0)
}

/// `within` are the numbers of the inlined messages that this one stands in.
fn message(
    fields: WireFields<'_>,
    within: Number,
    level: u32,
    bytes: &[u8],
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    if depth > DEPTH_MAX {
        return Err(DecodeError::Depth);
    }
    for part in Reader(bytes) {
        let (number, wire) = part?;
        if number > 255 {
            continue;
        }
        let number = within.with(level, number);
        let at = fields.first_from(number);
        let Some(field) = fields.get(at) else { continue };
        if field.number() == number {
            of_field(field, wire, object, depth)?;
        } else if field.number().with(level, field.number().at(level)) == number {
            let Wire::Bytes(bytes) = wire else { return Err(DecodeError::WireType) };
            let group = fields.range(at, fields.group_end(at, level));
            message(group, number, level + 1, bytes, object, depth + 1)?;
        }
    }
    Ok(())
}

fn of_field(
    field: FieldRef<'_>,
    wire: Wire<'_>,
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), DecodeError> {
    let ty = field.ty();
    match ty.shape() {
        Shape::List(list) if field.wrapped() => {
            object.insert(field.name().to_owned(), wrapped(list.element, wire, depth)?);
        }
        Shape::List(list) => {
            let items = object.entry(field.name()).or_insert_with(|| json!([]));
            let Some(items) = items.as_array_mut() else { return Ok(()) };
            match (leaf(list.element), wire) {
                // Numbers may come packed.
                (Some(Leaf::Int), Wire::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        items.push(int(varint(&mut packed)?));
                    }
                }
                (_, wire) => items.push(value(list.element, wire, depth)?),
            }
        }
        Shape::Map(map) => {
            let Wire::Bytes(entry) = wire else { return Err(DecodeError::WireType) };
            let (mut key, mut found) = (String::new(), None);
            for part in Reader(entry) {
                match part? {
                    (1, Wire::Bytes(text)) => key = utf8(text)?.to_owned(),
                    (2, wire) if field.wrapped() => {
                        found = Some(wrapped(map.element.element().unwrap_or(map.element), wire, depth)?);
                    }
                    (2, wire) => found = Some(value(map.element, wire, depth)?),
                    _ => {}
                }
            }
            let entries = object.entry(field.name()).or_insert_with(|| json!({}));
            if let Some(entries) = entries.as_object_mut() {
                entries.insert(key, found.unwrap_or_else(|| json!("")));
            }
        }
        _ => {
            let value = value(ty, wire, depth)?;
            // Go's `omitempty`: such a field has no default that is its zero value.
            let omitted = !field.pointer() && !field.default().is_some_and(is_zero);
            if !(omitted && is_zero(&value)) {
                object.insert(field.name().to_owned(), value);
            }
        }
    }
    Ok(())
}

fn wrapped(of: TypeRef<'_>, wire: Wire<'_>, depth: usize) -> Result<Value, DecodeError> {
    let Wire::Bytes(bytes) = wire else { return Err(DecodeError::WireType) };
    let mut items = Vec::new();
    for field in Reader(bytes) {
        if let (1, wire) = field? {
            items.push(value(of, wire, depth + 1)?);
        }
    }
    Ok(Value::Array(items))
}

fn value(ty: TypeRef<'_>, wire: Wire<'_>, depth: usize) -> Result<Value, DecodeError> {
    let Some(leaf) = leaf(ty) else {
        let (Shape::Struct(ty), Wire::Bytes(bytes)) = (ty.shape(), wire) else { return Err(DecodeError::WireType) };
        let mut object = Map::new();
        message(ty.wire_fields(), Number::NONE, 0, bytes, &mut object, depth + 1)?;
        return Ok(Value::Object(object));
    };
    Ok(match (leaf, wire) {
        (Leaf::Text, Wire::Bytes(text)) => utf8(text)?.into(),
        (Leaf::Bool, Wire::Varint(number)) => Value::Bool(number != 0),
        (Leaf::Int, Wire::Varint(number)) => int(number),
        (Leaf::Double, Wire::Fixed64(bits)) => json!(f64::from_bits(bits)),
        (Leaf::Bytes, Wire::Bytes(bytes)) => Value::String(STANDARD.encode(bytes)),
        (Leaf::Time, Wire::Bytes(bytes)) => time(bytes, false)?,
        (Leaf::MicroTime, Wire::Bytes(bytes)) => time(bytes, true)?,
        (Leaf::Quantity, Wire::Bytes(bytes)) => {
            let mut text = "0";
            for field in Reader(bytes) {
                if let (1, Wire::Bytes(found)) = field? {
                    text = utf8(found)?;
                }
            }
            text.into()
        }
        (Leaf::IntOrString, Wire::Bytes(bytes)) => {
            let (mut is_text, mut number, mut text) = (false, 0, "");
            for field in Reader(bytes) {
                match field? {
                    (1, Wire::Varint(kind)) => is_text = kind == 1,
                    (2, Wire::Varint(found)) => number = found,
                    (3, Wire::Bytes(found)) => text = utf8(found)?,
                    _ => {}
                }
            }
            if is_text { text.into() } else { int(number) }
        }
        (Leaf::Json, Wire::Bytes(bytes)) => {
            let mut document = Value::Null;
            for field in Reader(bytes) {
                if let (1, Wire::Bytes(raw)) = field? {
                    document = serde_json::from_slice(raw).map_err(|_| DecodeError::Embedded)?;
                }
            }
            document
        }
        (Leaf::Empty, Wire::Bytes(_)) => json!({}),
        (Leaf::SchemaOr(alternative), Wire::Bytes(bytes)) => schema_or(alternative, ty, bytes, depth)?,
        _ => return Err(DecodeError::WireType),
    })
}

fn schema_or(alternative: Alternative, ty: TypeRef<'_>, bytes: &[u8], depth: usize) -> Result<Value, DecodeError> {
    let schema = ty.types().named(JSON_SCHEMA).ok_or(DecodeError::Kind)?;
    let (mut one, mut many, mut allows) = (None, Vec::new(), false);
    for field in Reader(bytes) {
        match (alternative, field?) {
            (Alternative::Bool, (1, Wire::Varint(number))) => allows = number != 0,
            (Alternative::Bool, (2, wire)) | (Alternative::Schemas | Alternative::Texts, (1, wire)) => {
                one = Some(value(schema, wire, depth + 1)?);
            }
            (Alternative::Schemas, (2, wire)) => many.push(value(schema, wire, depth + 1)?),
            (Alternative::Texts, (2, Wire::Bytes(text))) => many.push(utf8(text)?.into()),
            _ => {}
        }
    }
    Ok(match (one, alternative) {
        (Some(schema), _) => schema,
        (None, Alternative::Bool) => Value::Bool(allows),
        (None, Alternative::Schemas | Alternative::Texts) => Value::Array(many),
    })
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Bool(truth) => !truth,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::Null => true,
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn int(bits: u64) -> Value {
    Value::from(bits.cast_signed())
}

fn utf8(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Utf8)
}

/// `seconds` and `nanos`; Go's zero time is null.
fn time(bytes: &[u8], micro: bool) -> Result<Value, DecodeError> {
    let (mut seconds, mut nanos) = (None, 0);
    for field in Reader(bytes) {
        match field? {
            (1, Wire::Varint(number)) => seconds = Some(number.cast_signed()),
            (2, Wire::Varint(number)) => nanos = i32::try_from(number.cast_signed()).unwrap_or_default(),
            _ => {}
        }
    }
    let at = seconds.and_then(|seconds| jiff::Timestamp::new(seconds, if micro { nanos } else { 0 }).ok());
    Ok(at.map_or(Value::Null, |at| if micro { format!("{at:.6}") } else { format!("{at:.0}") }.into()))
}

#[derive(Clone, Copy)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32,
    Bytes(&'a [u8]),
}

/// The fields of a message.
struct Reader<'a>(&'a [u8]);

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u32, Wire<'a>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Reader<'a> {
    fn field(&mut self) -> Result<(u32, Wire<'a>), DecodeError> {
        let tag = varint(&mut self.0)?;
        let number = u32::try_from(tag >> 3).map_err(|_| DecodeError::WireType)?;
        let wire = match tag & 7 {
            0 => Wire::Varint(varint(&mut self.0)?),
            1 => {
                let (bytes, rest) = self.0.split_first_chunk::<8>().ok_or(DecodeError::Truncated)?;
                self.0 = rest;
                Wire::Fixed64(u64::from_le_bytes(*bytes))
            }
            2 => {
                let length = usize::try_from(varint(&mut self.0)?).map_err(|_| DecodeError::Truncated)?;
                let (bytes, rest) = self.0.split_at_checked(length).ok_or(DecodeError::Truncated)?;
                self.0 = rest;
                Wire::Bytes(bytes)
            }
            5 => {
                let (_, rest) = self.0.split_first_chunk::<4>().ok_or(DecodeError::Truncated)?;
                self.0 = rest;
                Wire::Fixed32
            }
            _ => return Err(DecodeError::WireType),
        };
        Ok((number, wire))
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut number = 0u64;
    for shift in (0..70).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or(DecodeError::Truncated)?;
        *bytes = rest;
        number |= u64::from(first & 0x7f).checked_shl(shift).unwrap_or(0);
        if first & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(DecodeError::Truncated)
}
