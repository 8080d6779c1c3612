//! Objects in their bytes, as components in the API server's process share them with its watch cache.

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// An object in JSON. What the API server keeps has no resource version in it: that comes beside the bytes, so that
/// nobody has to copy them.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub json: Bytes,
    /// `metadata.resourceVersion`, where the JSON does not say it.
    pub resource_version: Option<u64>,
}

/// A list, or a page of one.
#[derive(Clone, Debug)]
pub struct Listed {
    pub objects: Vec<Encoded>,
    pub resource_version: String,
    /// Where the next page begins; `None` on the last.
    pub continue_token: Option<String>,
}

#[derive(Deserialize)]
struct Whole<M> {
    metadata: M,
}

impl Encoded {
    /// An object whose JSON says everything.
    pub fn whole(json: impl Into<Bytes>) -> Encoded {
        Encoded { json: json.into(), resource_version: None }
    }

    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.json)
    }

    /// Decodes `metadata` alone. Where the object begins as servers write it, nothing behind it is looked at.
    pub fn metadata<'a, M: Deserialize<'a>>(&'a self) -> Result<M, serde_json::Error> {
        match before_metadata(&self.json) {
            Some(rest) => M::deserialize(&mut serde_json::Deserializer::from_slice(rest)),
            None => serde_json::from_slice::<Whole<M>>(&self.json).map(|whole| whole.metadata),
        }
    }
}

/// What follows `{"kind":"…","apiVersion":"…","metadata":` or, in a list, `{"metadata":`.
fn before_metadata(json: &[u8]) -> Option<&[u8]> {
    let rest = json.strip_prefix(b"{")?;
    let rest = past_text(rest, b"\"kind\":\"").unwrap_or(rest);
    let rest = past_text(rest, b"\"apiVersion\":\"").unwrap_or(rest);
    rest.strip_prefix(b"\"metadata\":")
}

/// What follows a field that holds a text without escapes, and the comma behind it.
fn past_text<'a>(json: &'a [u8], field: &[u8]) -> Option<&'a [u8]> {
    let text = json.strip_prefix(field)?;
    let end = text.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    text.get(end..)?.strip_prefix(b"\",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize, PartialEq, Debug)]
    struct Name {
        name: String,
    }

    fn name(json: &'static str) -> Option<String> {
        Encoded::whole(json).metadata::<Name>().ok().map(|metadata| metadata.name)
    }

    #[test]
    fn metadata_is_found_wherever_it_stands() {
        let a = Some("a".to_owned());
        assert_eq!(name(r#"{"kind":"X","apiVersion":"v1","metadata":{"name":"a"},"spec":not looked at"#), a);
        assert_eq!(name(r#"{"metadata":{"name":"a"},"data":{"metadata":"b"}}"#), a);
        assert_eq!(name(r#"{"data":{"metadata":"b"},"kind":"X","metadata":{"name":"a"}}"#), a);
        assert_eq!(name(r#"{"kind":"\"metadata\":{}","apiVersion":"v1","metadata":{"name":"a"}}"#), a);
        assert_eq!(name(r#"{"kind":"X"}"#), None);
        assert_eq!(name("[]"), None);
        assert_eq!(name(r#"{"kind":"X","#), None);
    }
}
