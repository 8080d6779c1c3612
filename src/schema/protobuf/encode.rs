//! JSON to protobuf in one pass.
//!
//! A message's fields are written as they come; at its end they are put into the order of their numbers, and what Go
//! never leaves out is added. The memory that this takes is the encoder's and is used again.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::scalar::{
    write_base64, write_double, write_int, write_int_or_string, write_quantity, write_time, write_zero,
};
use super::wire::{close, open, write_bytes};
use super::{Alternative, DEPTH_MAX, Leaf, leaf};
use crate::types::{Number, WireFields};
use crate::{FieldRef, Shape, StructType, TypeRef};

/// Writes messages. Keep it for many: its memory is used again.
#[derive(Default)]
pub struct Encoder {
    /// Fields of the messages that are being written.
    segments: Vec<Segment>,
    scratch: Vec<u8>,
}

/// A field's bytes, tag included.
#[derive(Clone, Copy)]
struct Segment {
    number: Number,
    from: usize,
    to: usize,
}

impl Encoder {
    /// Appends the message of a JSON document. A document that is not of the type fails; what was appended by then is
    /// of no use.
    pub fn json(&mut self, json: &[u8], ty: TypeRef<'_>, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        self.message(&mut deserializer, ty, out)?;
        deserializer.end()
    }

    /// Appends the message of a JSON value.
    pub fn value(&mut self, value: &Value, ty: TypeRef<'_>, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        self.message(value, ty, out)
    }

    fn message<'de, D: Deserializer<'de>>(
        &mut self,
        json: D,
        ty: TypeRef<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), D::Error> {
        self.segments.clear();
        self.scratch.clear();
        let ty = ty.as_struct().ok_or_else(|| D::Error::custom("the type is no message"))?;
        Message { walk: &mut Walk { encoder: self, out }, ty, depth: 0 }.deserialize(json)
    }
}

struct Walk<'a> {
    encoder: &'a mut Encoder,
    out: &'a mut Vec<u8>,
}

impl Walk<'_> {
    /// Puts what was written since `start` into order.
    fn assemble(&mut self, ty: StructType<'_>, first: usize, start: usize) {
        let Encoder { segments, scratch } = &mut *self.encoder;
        let own = segments.get_mut(first..).unwrap_or_default();
        own.sort_by_key(|segment| segment.number);
        let from = scratch.len();
        let mut source = Source { segments: own, bytes: self.out };
        source.emit(ty.wire_fields(), 0, scratch);
        self.out.truncate(start);
        self.out.extend_from_slice(scratch.get(from..).unwrap_or_default());
        scratch.truncate(from);
        segments.truncate(first);
    }
}

/// Fields in the order of their numbers, and the bytes that they are in.
struct Source<'a> {
    segments: &'a [Segment],
    bytes: &'a [u8],
}

impl Source<'_> {
    fn emit(&mut self, fields: WireFields<'_>, level: u32, out: &mut Vec<u8>) {
        let mut at = 0;
        while let Some(field) = fields.get(at) {
            if field.number().at(level + 1) != 0 {
                let end = fields.group_end(at, level);
                let start = open(field.number().at(level), out);
                self.emit(fields.range(at, end), level + 1, out);
                close(start, out);
                at = end;
                continue;
            }
            if !self.take(field.number(), out) && !field.pointer() {
                zero(field.number().at(level), field.ty(), out);
            }
            at += 1;
        }
    }

    /// Whether there was anything with this number.
    fn take(&mut self, number: Number, out: &mut Vec<u8>) -> bool {
        let mut found = false;
        while let Some((segment, rest)) = self.segments.split_first()
            && segment.number <= number
        {
            self.segments = rest;
            if segment.number == number {
                out.extend_from_slice(self.bytes.get(segment.from..segment.to).unwrap_or_default());
                found = true;
            }
        }
        found
    }
}

/// What Go writes where nothing is, and no pointer says so. Lists and maps have no zero on the wire.
fn zero(number: u32, ty: TypeRef<'_>, out: &mut Vec<u8>) {
    match (leaf(ty), ty.shape()) {
        (Some(leaf), _) => write_zero(number, leaf, out),
        (None, Shape::Struct(ty)) => {
            let start = open(number, out);
            Source { segments: &[], bytes: &[] }.emit(ty.wire_fields(), 0, out);
            close(start, out);
        }
        _ => {}
    }
}

/// A struct's fields, without the tag and length around them.
struct Message<'a, 'w, 't> {
    walk: &'a mut Walk<'w>,
    ty: StructType<'t>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Message<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Message<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Message { walk, ty, depth } = self;
        if depth > DEPTH_MAX {
            return Err(A::Error::custom("nested too deeply"));
        }
        let (first, start) = (walk.encoder.segments.len(), walk.out.len());
        while let Some(field) = map.next_key_seed(Key(ty))? {
            let Some(field) = field else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            let number = field.number();
            let from = walk.out.len();
            let value =
                Field { walk, ty: field.ty(), number: number.last(), wrapped: field.wrapped(), depth: depth + 1 };
            map.next_value_seed(value)?;
            let to = walk.out.len();
            if to > from {
                walk.encoder.segments.push(Segment { number, from, to });
            }
        }
        walk.assemble(ty, first, start);
        Ok(())
    }
}

/// A key of an object: the field that it names, if protobuf knows it.
struct Key<'t>(StructType<'t>);

impl<'de, 't> DeserializeSeed<'de> for Key<'t> {
    type Value = Option<FieldRef<'t>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'t> Visitor<'_> for Key<'t> {
    type Value = Option<FieldRef<'t>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.field(name).filter(|field| !field.number().is_none()))
    }
}

/// A value with its tag; nothing for null.
struct Field<'a, 'w, 't> {
    walk: &'a mut Walk<'w>,
    ty: TypeRef<'t>,
    number: u32,
    wrapped: bool,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Field<'_, '_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match leaf(self.ty) {
            Some(Leaf::Json) => {
                let raw = Box::<RawValue>::deserialize(deserializer)?;
                if raw.get() != "null" {
                    let start = open(self.number, self.walk.out);
                    write_bytes(1, raw.get().as_bytes(), self.walk.out);
                    close(start, self.walk.out);
                }
                Ok(())
            }
            Some(Leaf::Empty) => {
                if Option::<IgnoredAny>::deserialize(deserializer)?.is_some() {
                    write_zero(self.number, Leaf::Empty, self.walk.out);
                }
                Ok(())
            }
            Some(Leaf::SchemaOr(alternative)) => {
                let value = Value::deserialize(deserializer)?;
                schema_or(self, alternative, &value).map_err(D::Error::custom)
            }
            _ => deserializer.deserialize_any(self),
        }
    }
}

impl Field<'_, '_, '_> {
    fn checked<E: serde::de::Error>(&self, good: bool) -> Result<(), E> {
        if good { Ok(()) } else { Err(E::custom("the value is not of its field's type")) }
    }
}

impl<'de> Visitor<'de> for Field<'_, '_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of the field's type")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<(), E> {
        let good = leaf(self.ty) == Some(Leaf::Bool);
        if good {
            write_int(self.number, i64::from(value), self.walk.out);
        }
        self.checked(good)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        let out = &mut *self.walk.out;
        match leaf(self.ty) {
            Some(Leaf::Int) => write_int(self.number, value, out),
            Some(Leaf::Double) => write_double(self.number, value as f64, out),
            Some(Leaf::Quantity) => write_quantity(self.number, &value.to_string(), out),
            Some(Leaf::IntOrString) => write_int_or_string(self.number, value, None, out),
            _ => return self.checked(false),
        }
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.visit_i64(value),
            Err(_) => self.visit_f64(value as f64),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        let out = &mut *self.walk.out;
        match leaf(self.ty) {
            Some(Leaf::Double) => write_double(self.number, value, out),
            Some(Leaf::Quantity) => write_quantity(self.number, &value.to_string(), out),
            Some(Leaf::Int) if value.fract() == 0.0 => write_int(self.number, value as i64, out),
            _ => return self.checked(false),
        }
        Ok(())
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        let (number, out) = (self.number, &mut *self.walk.out);
        let good = match leaf(self.ty) {
            Some(Leaf::Text) => {
                write_bytes(number, text.as_bytes(), out);
                true
            }
            Some(Leaf::Bytes) => write_base64(number, text, out),
            Some(Leaf::Time) => write_time(number, text, false, out),
            Some(Leaf::MicroTime) => write_time(number, text, true, out),
            Some(Leaf::Quantity) => {
                write_quantity(number, text, out);
                true
            }
            Some(Leaf::IntOrString) => {
                write_int_or_string(number, 0, Some(text), out);
                true
            }
            _ => false,
        };
        self.checked(good)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Field { walk, ty, number, wrapped, depth } = self;
        let Some(element) = ty.element().filter(|_| ty.list_kind().is_some()) else {
            return Err(A::Error::custom("a list where its field's type is none"));
        };
        let around = wrapped.then(|| open(number, walk.out));
        let number = if wrapped { 1 } else { number };
        loop {
            let from = walk.out.len();
            let value = Field { walk, ty: element, number, wrapped: false, depth };
            if seq.next_element_seed(value)?.is_none() {
                break;
            }
            if walk.out.len() == from {
                zero(number, element, walk.out);
            }
        }
        if let Some(start) = around {
            close(start, walk.out);
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        match self.ty.shape() {
            Shape::Struct(ty) => {
                let start = open(self.number, self.walk.out);
                let walk = &mut *self.walk;
                Message { walk, ty, depth: self.depth }.visit_map(map)?;
                close(start, self.walk.out);
                Ok(())
            }
            Shape::Map(of) => entries(self, of.element, map),
            _ => Err(A::Error::custom("an object where its field's type is none")),
        }
    }
}

/// A map's entry as it was written.
struct Entry {
    from: usize,
    to: usize,
    key_from: usize,
    key_to: usize,
}

/// A map's entries, in the order of their keys.
fn entries<'de, A: MapAccess<'de>>(field: Field<'_, '_, '_>, of: TypeRef<'_>, mut map: A) -> Result<(), A::Error> {
    let Field { walk, number, wrapped, depth, .. } = field;
    let begin = walk.out.len();
    let mut written: Vec<Entry> = Vec::new();
    let mut sorted = true;
    loop {
        let from = walk.out.len();
        let start = open(number, walk.out);
        let Some(key_bytes) = map.next_key_seed(MapKey(walk.out))? else {
            walk.out.truncate(from);
            break;
        };
        let key_to = walk.out.len();
        map.next_value_seed(Field { walk, ty: of, number: 2, wrapped, depth })?;
        if walk.out.len() == key_to {
            zero(2, of, walk.out);
        }
        let before = walk.out.len();
        close(start, walk.out);
        let key_to = key_to + walk.out.len() - before;
        let entry = Entry { from, to: walk.out.len(), key_from: key_to - key_bytes, key_to };
        let key = |entry: &Entry| walk.out.get(entry.key_from..entry.key_to);
        sorted &= written.last().is_none_or(|last| key(last) < key(&entry));
        written.push(entry);
    }
    if !sorted {
        let out = &*walk.out;
        written.sort_by_key(|entry| out.get(entry.key_from..entry.key_to));
        let mut ordered = Vec::with_capacity(out.len() - begin);
        for entry in &written {
            ordered.extend_from_slice(out.get(entry.from..entry.to).unwrap_or_default());
        }
        walk.out.truncate(begin);
        walk.out.extend_from_slice(&ordered);
    }
    Ok(())
}

/// Writes a map's key and says how long it is.
struct MapKey<'a>(&'a mut Vec<u8>);

impl<'de> DeserializeSeed<'de> for MapKey<'_> {
    type Value = usize;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for MapKey<'_> {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<usize, E> {
        write_bytes(1, key.as_bytes(), self.0);
        Ok(key.len())
    }
}

/// A JSON schema, or what may stand instead of one.
fn schema_or(field: Field<'_, '_, '_>, alternative: Alternative, value: &Value) -> Result<(), serde_json::Error> {
    let Field { walk, ty, number, depth, .. } = field;
    if value.is_null() {
        return Ok(());
    }
    let schema = ty.types().named(super::JSON_SCHEMA).ok_or_else(|| serde_json::Error::custom("unknown schema"))?;
    let start = open(number, walk.out);
    if alternative == Alternative::Bool {
        write_int(1, i64::from(value != &Value::Bool(false)), walk.out);
    }
    let of_schema = if alternative == Alternative::Bool { 2 } else { 1 };
    match value {
        Value::Object(_) => {
            Field { walk, ty: schema, number: of_schema, wrapped: false, depth: depth + 1 }.deserialize(value)?;
        }
        Value::Array(items) => {
            for item in items {
                match item.as_str() {
                    Some(text) => write_bytes(2, text.as_bytes(), walk.out),
                    None => {
                        Field { walk, ty: schema, number: 2, wrapped: false, depth: depth + 1 }.deserialize(item)?;
                    }
                }
            }
        }
        _ => {}
    }
    close(start, walk.out);
    Ok(())
}
