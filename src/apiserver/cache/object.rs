//! An object in the bytes in which it is stored and served.
//!
//! Stored: `{"kind":…,"apiVersion":…,"metadata":{…},…}` without `resourceVersion`. Served: the same bytes with
//! `"resourceVersion":"<mod revision>",` right after `"metadata":{`. Items of a list go without kind and apiVersion.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::{BufMut, Bytes};
use serde_json::Value;
use serde_json::value::RawValue;

const METADATA: &[u8] = b"\"metadata\":{";

/// One object at one revision.
pub struct Stored {
    pub key: Bytes,
    /// What the store holds, shared with it.
    pub value: Bytes,
    pub mod_revision: u64,
    /// Length of the resource's prefix in `key`.
    prefix_bytes: u16,
    /// Where `"metadata":{` begins in `value`.
    metadata_at: u16,
    /// Length of the object's protobuf message as it is served; 0 until somebody asked for it.
    protobuf_bytes: AtomicU32,
    /// The store holds it in a form that is no longer made: encrypted with an old key, or not at all.
    stale: bool,
    attributes: OnceLock<Box<Attributes>>,
}

/// What selectors look at.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Attributes {
    pub labels: Vec<(String, String)>,
    pub fields: Vec<(String, String)>,
}

impl Attributes {
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|(one, _)| one == key).map(|(_, value)| value.as_str())
    }

    pub fn field(&self, key: &str) -> Option<&str> {
        self.fields.iter().find(|(one, _)| one == key).map(|(_, value)| value.as_str())
    }
}

impl Stored {
    /// `None` when the bytes have no metadata where it belongs, as nothing that this server wrote.
    pub fn new(key: Bytes, value: Bytes, mod_revision: u64, prefix_bytes: usize) -> Option<Stored> {
        let metadata_at = u16::try_from(find(&value, METADATA)?).ok()?;
        let prefix_bytes = u16::try_from(prefix_bytes).ok()?;
        Some(Stored {
            key,
            value,
            mod_revision,
            prefix_bytes,
            metadata_at,
            stale: false,
            protobuf_bytes: AtomicU32::new(0),
            attributes: OnceLock::new(),
        })
    }

    /// An update writes it even if nothing changes.
    #[must_use]
    pub fn outdated(mut self) -> Stored {
        self.stale = true;
        self
    }

    pub fn is_stale(&self) -> bool {
        self.stale
    }

    /// The same content at another revision: what a deletion shows.
    pub fn at(&self, mod_revision: u64) -> Stored {
        Stored {
            key: self.key.clone(),
            value: self.value.clone(),
            mod_revision,
            prefix_bytes: self.prefix_bytes,
            metadata_at: self.metadata_at,
            protobuf_bytes: AtomicU32::new(0),
            stale: self.stale,
            attributes: OnceLock::new(),
        }
    }

    /// `namespace/name`, or the name alone.
    pub fn path(&self) -> &str {
        self.key.get(usize::from(self.prefix_bytes)..).and_then(|path| std::str::from_utf8(path).ok()).unwrap_or("")
    }

    pub fn name(&self) -> &str {
        self.path().rsplit('/').next().unwrap_or("")
    }

    /// Empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.path().split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The API version in which the object is stored; empty when it does not stand where this server writes it.
    pub fn api_version(&self) -> &str {
        const FIELD: &[u8] = b"\"apiVersion\":\"";
        let head = self.value.get(..usize::from(self.metadata_at)).unwrap_or_default();
        let Some(at) = find(head, FIELD) else { return "" };
        let rest = head.get(at + FIELD.len()..).unwrap_or_default();
        let text = rest.split(|byte| *byte == b'"').next().unwrap_or_default();
        std::str::from_utf8(text).unwrap_or_default()
    }

    /// Bytes that [`Stored::write`] adds at most.
    pub fn served_bytes_max(&self) -> usize {
        self.value.len() + 48
    }

    /// Appends the object as it is served.
    pub fn write(&self, out: &mut Vec<u8>) {
        let (head, tail) = self.split();
        out.put_slice(head);
        write_resource_version(self.mod_revision, tail, out);
    }

    /// Appends the object as an item of a list of its kind: kind and apiVersion are the list's matter.
    pub fn write_item(&self, out: &mut Vec<u8>) {
        let (_, tail) = self.split();
        out.put_slice(b"{");
        out.put_slice(METADATA);
        write_resource_version(self.mod_revision, tail, out);
    }

    /// The object for components in this process: the very bytes that the store holds.
    pub fn encoded(&self) -> api::Encoded {
        let resource_version = Some(self.mod_revision).filter(|&revision| revision > 0);
        api::Encoded { json: self.value.clone(), resource_version }
    }

    /// The object as it is served.
    pub fn served(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.served_bytes_max());
        self.write(&mut out);
        Bytes::from(out)
    }

    /// Appends the object's metadata as it is served.
    pub fn write_metadata(&self, out: &mut Vec<u8>) {
        let (_, tail) = self.split();
        let from = usize::from(self.metadata_at) + METADATA.len() - 1;
        let metadata = self.value.get(from..).unwrap_or_default();
        let mut values = serde_json::Deserializer::from_slice(metadata).into_iter::<&RawValue>();
        let bytes = values.next().and_then(Result::ok).map_or(0, |metadata| metadata.get().len());
        out.put_u8(b'{');
        write_resource_version(self.mod_revision, tail.get(..bytes.saturating_sub(1)).unwrap_or(b"}"), out);
    }

    /// Length of the object's protobuf message, if it is known.
    pub fn protobuf_bytes(&self) -> Option<usize> {
        let bytes = self.protobuf_bytes.load(Ordering::Relaxed);
        (bytes > 0).then_some(bytes as usize)
    }

    pub fn set_protobuf_bytes(&self, bytes: usize) {
        self.protobuf_bytes.store(u32::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
    }

    /// Decoded, with its resource version.
    pub fn decode(&self) -> Result<Value, serde_json::Error> {
        let mut value: Value = serde_json::from_slice(&self.value)?;
        if self.mod_revision > 0
            && let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut)
        {
            metadata.insert("resourceVersion".to_owned(), Value::String(self.mod_revision.to_string()));
        }
        Ok(value)
    }

    /// Labels and selectable fields; made when first asked for and kept. `fields` gives those that are not in the
    /// metadata.
    pub fn attributes(&self, fields: impl FnOnce(&Value) -> Vec<(String, String)>) -> &Attributes {
        self.attributes.get_or_init(|| {
            let Ok(value) = serde_json::from_slice::<Value>(&self.value) else { return Box::default() };
            let mut all = vec![("metadata.name".to_owned(), self.name().to_owned())];
            if !self.namespace().is_empty() {
                all.push(("metadata.namespace".to_owned(), self.namespace().to_owned()));
            }
            all.extend(fields(&value));
            Box::new(Attributes { labels: labels_of(&value), fields: all })
        })
    }

    fn split(&self) -> (&[u8], &[u8]) {
        let at = (usize::from(self.metadata_at) + METADATA.len()).min(self.value.len());
        self.value.split_at(at)
    }
}

/// `metadata.labels` of a decoded object.
fn labels_of(object: &Value) -> Vec<(String, String)> {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    labels
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect()
}

/// Puts the resource version in front of what follows `"metadata":{` in the stored bytes. What was never stored, as
/// the result of a dry run, has none.
fn write_resource_version(revision: u64, tail: &[u8], out: &mut Vec<u8>) {
    if revision == 0 {
        return out.put_slice(tail);
    }
    out.put_slice(b"\"resourceVersion\":\"");
    let mut digits = [0; 20];
    out.put_slice(decimal(revision, &mut digits));
    out.put_slice(if tail.first() == Some(&b'}') { b"\"" } else { b"\"," });
    out.put_slice(tail);
}

fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + u8::try_from(number % 10).unwrap_or(0);
        number /= 10;
        at -= 1;
        if number == 0 {
            break;
        }
    }
    digits.get(at..).unwrap_or(b"0")
}

/// Encodes an object for the store: kind, apiVersion, metadata first, no resource version.
pub fn encode(object: &Value) -> Result<Vec<u8>, serde_json::Error> {
    let mut out = Vec::with_capacity(1024);
    let empty = serde_json::Map::new();
    let fields = object.as_object().unwrap_or(&empty);
    out.push(b'{');
    for (at, name) in ["kind", "apiVersion", "metadata"].into_iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        serde_json::to_writer(&mut out, name)?;
        out.push(b':');
        match fields.get(name) {
            Some(Value::Object(metadata)) if name == "metadata" => {
                out.push(b'{');
                let mut first = true;
                for (key, value) in metadata.iter().filter(|(key, _)| *key != "resourceVersion") {
                    if !first {
                        out.push(b',');
                    }
                    first = false;
                    serde_json::to_writer(&mut out, key)?;
                    out.push(b':');
                    serde_json::to_writer(&mut out, value)?;
                }
                out.push(b'}');
            }
            Some(value) => serde_json::to_writer(&mut out, value)?,
            None if name == "metadata" => out.extend_from_slice(b"{}"),
            None => out.extend_from_slice(b"\"\""),
        }
    }
    for (key, value) in fields.iter().filter(|(key, _)| !matches!(key.as_str(), "kind" | "apiVersion" | "metadata")) {
        out.push(b',');
        serde_json::to_writer(&mut out, key)?;
        out.push(b':');
        serde_json::to_writer(&mut out, value)?;
    }
    out.push(b'}');
    Ok(out)
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stored(object: &Value) -> Stored {
        let bytes = Bytes::from(encode(object).unwrap());
        Stored::new(Bytes::from_static(b"/registry/pods/shop/web"), bytes, 1789, "/registry/pods/".len()).unwrap()
    }

    #[test]
    fn the_resource_version_is_spliced_into_the_stored_bytes() {
        let object = json!({
            "spec": {"a": 1}, "metadata": {"name": "web", "resourceVersion": "3"}, "apiVersion": "v1", "kind": "Pod",
        });
        let stored = stored(&object);
        assert_eq!(
            std::str::from_utf8(&stored.value).unwrap(),
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web"},"spec":{"a":1}}"#
        );
        assert_eq!(
            std::str::from_utf8(&stored.served()).unwrap(),
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"1789","name":"web"},"spec":{"a":1}}"#
        );
        let mut item = Vec::new();
        stored.write_item(&mut item);
        assert_eq!(
            String::from_utf8(item).unwrap(),
            r#"{"metadata":{"resourceVersion":"1789","name":"web"},"spec":{"a":1}}"#
        );
        let mut metadata = Vec::new();
        stored.write_metadata(&mut metadata);
        assert_eq!(String::from_utf8(metadata).unwrap(), r#"{"resourceVersion":"1789","name":"web"}"#);
        assert_eq!((stored.namespace(), stored.name()), ("shop", "web"));
        assert_eq!(stored.api_version(), "v1");
    }

    #[test]
    fn metadata_without_fields_stays_json() {
        let stored = stored(&json!({"kind": "Pod", "apiVersion": "v1", "metadata": {}}));
        let served: Value = serde_json::from_slice(&stored.served()).unwrap();
        assert_eq!(served["metadata"], json!({"resourceVersion": "1789"}));
    }

    #[test]
    fn every_number_is_written() {
        for number in [0, 7, 10, 99, 100, u64::MAX] {
            assert_eq!(std::str::from_utf8(decimal(number, &mut [0; 20])).unwrap(), number.to_string());
        }
    }
}
