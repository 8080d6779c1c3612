//! Request bodies in protobuf, which typed clients such as `kubectl create` send: decoded to the same JSON value that
//! the JSON form would give, by a table of field numbers.
//!
//! Limitation: requests only; answers are JSON, which every client that sends protobuf takes too.

use std::collections::HashMap;
use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

const TABLE: &str = include_str!("../../../embedded/apiserver/protobuf.txt");
/// What every body begins with, before `runtime.Unknown`.
const MAGIC: &[u8] = b"k8s\0";
const DEPTH_MAX: usize = 64;

/// Why a body cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    #[error("the body does not begin as Kubernetes' protobuf does")]
    Magic,
    #[error("the body ends in the middle of a field")]
    Truncated,
    #[error("a field has another wire type than its type has")]
    WireType,
    #[error("the body holds text that is not UTF-8")]
    Utf8,
    #[error("the body is nested too deeply")]
    Depth,
    #[error("an embedded document is not JSON")]
    Embedded,
    #[error("the body is of a kind that is not known in protobuf")]
    Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Text,
    Bool,
    Int,
    Double,
    Bytes,
    Time,
    MicroTime,
    Duration,
    Quantity,
    IntOrString,
    Raw,
    Message(u16),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Many {
    One,
    List,
    Map,
    /// A map of lists.
    MapOfWrapped,
    /// A list behind a message of its own.
    Wrapped,
}

struct Field {
    number: u32,
    /// Empty for a message whose fields stand in the one around it.
    name: &'static str,
    many: Many,
    of: Type,
    /// A zero is left out, as Go's `omitempty` leaves it out.
    omits_zero: bool,
}

struct Table {
    messages: Vec<Vec<Field>>,
    by_name: HashMap<&'static str, u16>,
}

static PARSED: LazyLock<Table> = LazyLock::new(|| {
    let names = TABLE.lines().filter(|line| !line.starts_with(['#', '\t']) && !line.is_empty());
    let by_name: HashMap<&'static str, u16> = names.zip(0..).collect();
    let mut messages: Vec<Vec<Field>> = Vec::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let Some(text) = line.strip_prefix('\t') else {
            messages.push(Vec::new());
            continue;
        };
        let mut parts = text.split(' ');
        let (Some(number), Some(name), Some(of)) = (parts.next(), parts.next(), parts.next()) else { continue };
        let (always, of) = match of.strip_prefix(['*', '!']) {
            Some(rest) => (true, rest),
            None => (false, of),
        };
        let shapes =
            [("{}wrap[]", Many::MapOfWrapped), ("wrap[]", Many::Wrapped), ("[]", Many::List), ("{}", Many::Map)];
        let (many, of) = shapes
            .into_iter()
            .find_map(|(prefix, many)| Some((many, of.strip_prefix(prefix)?)))
            .unwrap_or((Many::One, of));
        let of = match of {
            "s" => Type::Text,
            "b" => Type::Bool,
            "i" => Type::Int,
            "d" => Type::Double,
            "y" => Type::Bytes,
            "time" => Type::Time,
            "microtime" => Type::MicroTime,
            "duration" => Type::Duration,
            "quantity" => Type::Quantity,
            "intorstring" => Type::IntOrString,
            "raw" => Type::Raw,
            name => match by_name.get(name) {
                Some(index) => Type::Message(*index),
                None => continue,
            },
        };
        let name = if name == "~" { "" } else { name };
        if let (Some(message), Ok(number)) = (messages.last_mut(), number.parse()) {
            message.push(Field { number, name, many, of, omits_zero: !always });
        }
    }
    Table { messages, by_name }
});

/// A body's object, with its `apiVersion` and `kind`.
pub fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let unknown = body.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
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
    let index = index_of(&api_version, &kind).ok_or(ProtobufError::Kind)?;
    let mut object = Map::new();
    object.insert("kind".to_owned(), kind.into());
    object.insert("apiVersion".to_owned(), api_version.into());
    message(index, raw, &mut object, 0)?;
    Ok(Value::Object(object))
}

fn index_of(api_version: &str, kind: &str) -> Option<u16> {
    let (group, version) = api_version.split_once('/').unwrap_or(("core", api_version));
    let package = match group.split('.').next() {
        Some("rbac") => "rbac",
        Some(first) => first,
        None => group,
    };
    let by_name = &PARSED.by_name;
    let own = by_name.get(format!("{package}/{version}.{kind}").as_str());
    // Options belong to every group.
    own.or_else(|| by_name.get(format!("meta/v1.{kind}").as_str())).copied()
}

fn message(index: u16, bytes: &[u8], object: &mut Map<String, Value>, depth: usize) -> Result<(), ProtobufError> {
    if depth > DEPTH_MAX {
        return Err(ProtobufError::Depth);
    }
    let Some(fields) = PARSED.messages.get(usize::from(index)) else { return Err(ProtobufError::Kind) };
    for field in Reader(bytes) {
        let (number, wire) = field?;
        let Some(field) = fields.iter().find(|field| field.number == number) else { continue };
        if field.name.is_empty() {
            if let (Type::Message(inner), Wire::Bytes(bytes)) = (field.of, wire) {
                message(inner, bytes, object, depth + 1)?;
            }
            continue;
        }
        match field.many {
            Many::One => {
                let value = value(field.of, wire, depth)?;
                if !(field.omits_zero && is_zero(&value)) {
                    object.insert(field.name.to_owned(), value);
                }
            }
            Many::List => {
                // Numbers may come packed.
                let list = object.entry(field.name).or_insert_with(|| json!([]));
                let Some(list) = list.as_array_mut() else { continue };
                match (field.of, wire) {
                    (Type::Int, Wire::Bytes(mut packed)) => {
                        while !packed.is_empty() {
                            list.push(int(varint(&mut packed)?));
                        }
                    }
                    (of, wire) => list.push(value(of, wire, depth)?),
                }
            }
            Many::Wrapped => {
                object.insert(field.name.to_owned(), wrapped(field.of, wire, depth)?);
            }
            Many::Map | Many::MapOfWrapped => {
                let Wire::Bytes(entry) = wire else { return Err(ProtobufError::WireType) };
                let (mut key, mut found) = (String::new(), None);
                for part in Reader(entry) {
                    match part? {
                        (1, Wire::Bytes(text)) => key = utf8(text)?,
                        (2, wire) if field.many == Many::MapOfWrapped => {
                            found = Some(wrapped(field.of, wire, depth)?);
                        }
                        (2, wire) => found = Some(value(field.of, wire, depth)?),
                        _ => {}
                    }
                }
                let found = found.unwrap_or_else(|| json!(""));
                let map = object.entry(field.name).or_insert_with(|| json!({}));
                if let Some(map) = map.as_object_mut() {
                    map.insert(key, found);
                }
            }
        }
    }
    Ok(())
}

fn wrapped(of: Type, wire: Wire<'_>, depth: usize) -> Result<Value, ProtobufError> {
    let Wire::Bytes(bytes) = wire else { return Err(ProtobufError::WireType) };
    let mut items = Vec::new();
    for field in Reader(bytes) {
        if let (1, wire) = field? {
            items.push(value(of, wire, depth + 1)?);
        }
    }
    Ok(Value::Array(items))
}

fn value(of: Type, wire: Wire<'_>, depth: usize) -> Result<Value, ProtobufError> {
    Ok(match (of, wire) {
        (Type::Text, Wire::Bytes(text)) => Value::String(utf8(text)?),
        (Type::Bool, Wire::Varint(number)) => Value::Bool(number != 0),
        (Type::Int, Wire::Varint(number)) => int(number),
        (Type::Double, Wire::Fixed64(bits)) => json!(f64::from_bits(bits)),
        (Type::Bytes, Wire::Bytes(bytes)) => Value::String(STANDARD.encode(bytes)),
        (Type::Time, Wire::Bytes(bytes)) => time(bytes, false)?,
        (Type::MicroTime, Wire::Bytes(bytes)) => time(bytes, true)?,
        (Type::Duration, Wire::Bytes(bytes)) => {
            let nanos = Reader(bytes).find_map(|field| match field {
                Ok((1, Wire::Varint(number))) => Some(number.cast_signed()),
                _ => None,
            });
            Value::String(duration(nanos.unwrap_or_default()))
        }
        (Type::Quantity, Wire::Bytes(bytes)) => {
            let mut text = "0".to_owned();
            for field in Reader(bytes) {
                if let (1, Wire::Bytes(found)) = field? {
                    text = utf8(found)?;
                }
            }
            Value::String(text)
        }
        (Type::IntOrString, Wire::Bytes(bytes)) => {
            let (mut is_text, mut number, mut text) = (false, 0, String::new());
            for field in Reader(bytes) {
                match field? {
                    (1, Wire::Varint(kind)) => is_text = kind == 1,
                    (2, Wire::Varint(found)) => number = found,
                    (3, Wire::Bytes(found)) => text = utf8(found)?,
                    _ => {}
                }
            }
            if is_text { Value::String(text) } else { int(number) }
        }
        (Type::Raw, Wire::Bytes(bytes)) => {
            let mut document = Value::Null;
            for field in Reader(bytes) {
                if let (1, Wire::Bytes(raw)) = field? {
                    document = serde_json::from_slice(raw).map_err(|_| ProtobufError::Embedded)?;
                }
            }
            document
        }
        (Type::Message(index), Wire::Bytes(bytes)) => {
            let mut object = Map::new();
            message(index, bytes, &mut object, depth + 1)?;
            Value::Object(object)
        }
        _ => return Err(ProtobufError::WireType),
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

fn utf8(bytes: &[u8]) -> Result<String, ProtobufError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| ProtobufError::Utf8)
}

/// `seconds` and `nanos`; Go's zero time is null.
fn time(bytes: &[u8], micro: bool) -> Result<Value, ProtobufError> {
    let (mut seconds, mut nanos) = (None, 0);
    for field in Reader(bytes) {
        match field? {
            (1, Wire::Varint(number)) => seconds = Some(number.cast_signed()),
            (2, Wire::Varint(number)) => nanos = i32::try_from(number.cast_signed()).unwrap_or_default(),
            _ => {}
        }
    }
    let at = seconds.and_then(|seconds| jiff::Timestamp::new(seconds, if micro { nanos } else { 0 }).ok());
    Ok(match at {
        None => Value::Null,
        Some(at) if micro => Value::String(api::meta::micro_time(at)),
        Some(at) => Value::String(api::meta::time(at)),
    })
}

/// As Go prints a duration: `1h0m5s`, `1.5s`.
fn duration(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let (seconds, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let fraction = if rest == 0 { String::new() } else { format!(".{rest:09}").trim_end_matches('0').to_owned() };
    if hours > 0 {
        format!("{sign}{hours}h{minutes}m{seconds}{fraction}s")
    } else if minutes > 0 {
        format!("{sign}{minutes}m{seconds}{fraction}s")
    } else {
        format!("{sign}{seconds}{fraction}s")
    }
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
    type Item = Result<(u32, Wire<'a>), ProtobufError>;

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
    fn field(&mut self) -> Result<(u32, Wire<'a>), ProtobufError> {
        let tag = varint(&mut self.0)?;
        let number = u32::try_from(tag >> 3).map_err(|_| ProtobufError::WireType)?;
        let wire = match tag & 7 {
            0 => Wire::Varint(varint(&mut self.0)?),
            1 => {
                let (bytes, rest) = self.0.split_first_chunk::<8>().ok_or(ProtobufError::Truncated)?;
                self.0 = rest;
                Wire::Fixed64(u64::from_le_bytes(*bytes))
            }
            2 => {
                let length = usize::try_from(varint(&mut self.0)?).map_err(|_| ProtobufError::Truncated)?;
                let (bytes, rest) = self.0.split_at_checked(length).ok_or(ProtobufError::Truncated)?;
                self.0 = rest;
                Wire::Bytes(bytes)
            }
            5 => {
                let (_, rest) = self.0.split_first_chunk::<4>().ok_or(ProtobufError::Truncated)?;
                self.0 = rest;
                Wire::Fixed32
            }
            _ => return Err(ProtobufError::WireType),
        };
        Ok((number, wire))
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64, ProtobufError> {
    let mut number = 0u64;
    for shift in (0..70).step_by(7) {
        let (first, rest) = bytes.split_first().ok_or(ProtobufError::Truncated)?;
        *bytes = rest;
        number |= u64::from(first & 0x7f).checked_shl(shift).unwrap_or(0);
        if first & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(ProtobufError::Truncated)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUNDTRIP: &str = "/work/shared/kubernetes-1.36/roundtrip";

    /// Empty lists, maps and nulls say nothing.
    fn without_nothing(value: &mut Value) {
        if let Value::Object(map) = value {
            map.values_mut().for_each(without_nothing);
            map.retain(|_, value| !value.is_null());
        } else if let Value::Array(list) = value {
            list.iter_mut().for_each(without_nothing);
        }
    }

    #[test]
    fn upstreams_files_decode_to_their_json() {
        let Ok(directory) = std::fs::read_dir(ROUNDTRIP) else {
            println!("{ROUNDTRIP} is not here; nothing compared");
            return;
        };
        let (mut compared, mut wrong) = (0, Vec::new());
        for entry in directory {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|extension| extension != "pb") {
                continue;
            }
            let Ok(mut ours) = decode(&std::fs::read(&path).unwrap()) else { continue };
            let mut theirs: Value =
                serde_json::from_slice(&std::fs::read(path.with_extension("json")).unwrap()).unwrap();
            without_nothing(&mut ours);
            without_nothing(&mut theirs);
            compared += 1;
            if ours != theirs {
                wrong.push(path.file_name().unwrap().to_string_lossy().into_owned());
            }
        }
        assert!(wrong.is_empty(), "{wrong:?}");
        assert!(compared > 70, "{compared}");
    }

    #[test]
    fn a_broken_body_is_refused() {
        assert_eq!(decode(b"{}"), Err(ProtobufError::Magic));
        assert_eq!(decode(b"k8s\0\x0a\xff"), Err(ProtobufError::Truncated));
        let pod = b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12\x04\x0a\x7fxx";
        assert_eq!(decode(pod), Err(ProtobufError::Truncated));
        assert_eq!(decode(b"k8s\0\x0a\x0b\x0a\x02v1\x12\x05Chair"), Err(ProtobufError::Kind));
    }
}
