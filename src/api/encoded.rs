//! Objects in their bytes, as components in the API server's process share them with its watch cache.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

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

    /// Decodes the object, but for its managed fields: no component looks at them, and they weigh as much as the rest.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        let json = without_managed_fields(&self.json);
        serde_json::from_slice(&json).or_else(|error| {
            // Conditions of a client that did not say since when: Go's types take null for no time, ours do not.
            let mut object: Value = serde_json::from_slice(&json)?;
            if say_times(&mut object) { serde_json::from_value(object) } else { Err(error) }
        })
    }

    /// Decodes `metadata` alone. Where the object begins as servers write it, nothing behind it is looked at.
    pub fn metadata<'a, M: Deserialize<'a>>(&'a self) -> Result<M, serde_json::Error> {
        match before_metadata(&self.json) {
            Some(rest) => M::deserialize(&mut serde_json::Deserializer::from_slice(rest)),
            None => serde_json::from_slice::<Whole<M>>(&self.json).map(|whole| whole.metadata),
        }
    }
}

/// Gives conditions without a time Go's zero time; true if there were any.
fn say_times(value: &mut Value) -> bool {
    let mut said = false;
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                if name == "lastTransitionTime" && member.is_null() {
                    *member = "0001-01-01T00:00:00Z".into();
                    said = true;
                }
                said |= say_times(member);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| said |= say_times(item)),
        _ => {}
    }
    said
}

/// The JSON without `metadata.managedFields`, where it stands as servers write it.
fn without_managed_fields(json: &[u8]) -> Cow<'_, [u8]> {
    let Some((begin, end)) = managed_fields(json) else { return Cow::Borrowed(json) };
    let (before, behind) = (json.get(..begin).unwrap_or_default(), json.get(end..).unwrap_or_default());
    Cow::Owned([before, behind].concat())
}

/// Where `"managedFields":[…],` begins and ends; `None` as well where it is not followed by another field.
fn managed_fields(json: &[u8]) -> Option<(usize, usize)> {
    let mut rest = before_metadata(json)?.strip_prefix(b"{")?;
    loop {
        let name_bytes = text_bytes(rest)?;
        let value = rest.get(name_bytes..)?.strip_prefix(b":")?;
        let value_bytes = value_bytes(value)?;
        let behind = value.get(value_bytes..)?.strip_prefix(b",")?;
        if rest.starts_with(b"\"managedFields\"") {
            return Some((json.len() - rest.len(), json.len() - behind.len()));
        }
        rest = behind;
    }
}

/// The length of the text in quotes at the beginning.
fn text_bytes(json: &[u8]) -> Option<usize> {
    let mut at = json.first().filter(|first| **first == b'"').map(|_| 1)?;
    loop {
        match json.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The length of the value at the beginning, which is taken to be JSON.
fn value_bytes(json: &[u8]) -> Option<usize> {
    let (mut at, mut depth) = (0_usize, 0_usize);
    loop {
        match json.get(at)? {
            b'"' => at += text_bytes(json.get(at..)?)?,
            b'{' | b'[' => (at, depth) = (at + 1, depth + 1),
            b'}' | b']' if depth == 0 => return Some(at),
            b'}' | b']' => (at, depth) = (at + 1, depth - 1),
            b',' if depth == 0 => return Some(at),
            _ => at += 1,
        }
        if depth == 0 && matches!(json.get(at), Some(b',' | b'}' | b']')) {
            return Some(at);
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

    #[test]
    fn conditions_may_say_no_time() {
        let object = r#"{"kind":"Service","apiVersion":"v1","metadata":{"name":"a"},"status":{"conditions":[{"type":"Up",
            "status":"True","reason":"R","message":"","lastTransitionTime":null}],"loadBalancer":{}}}"#;
        let decoded: k8s_openapi::api::core::v1::Service = Encoded::whole(object).decode().unwrap();
        assert_eq!(decoded.status.unwrap().conditions.unwrap()[0].type_, "Up");
        assert!(Encoded::whole(r#"{"metadata":{"name":1}}"#).decode::<k8s_openapi::api::core::v1::Service>().is_err());
    }

    #[test]
    fn managed_fields_are_passed_over() {
        let object = r#"{"kind":"X","apiVersion":"v1","metadata":{"labels":{"a\\":"\",}"},"n":1,"managedFields":[{"fieldsV1":{"f:a":{"k:{\"b\":\"]\"}":{}}}}],"name":"a"},"spec":{"managedFields":[1]}}"#;
        let decoded: serde_json::Value = Encoded::whole(object).decode().unwrap();
        let mut whole: serde_json::Value = serde_json::from_str(object).unwrap();
        whole["metadata"].as_object_mut().unwrap().remove("managedFields").unwrap();
        assert_eq!(decoded, whole);
        for unchanged in [
            r#"{"metadata":{"name":"a","managedFields":[]}}"#,
            r#"{"metadata":{},"spec":{"managedFields":[1],"a":1}}"#,
            r#"{"spec":{},"metadata":{"managedFields":[],"name":"a"}}"#,
        ] {
            assert_eq!(without_managed_fields(unchanged.as_bytes()), unchanged.as_bytes());
        }
        for broken in
            [r#"{"metadata":{"a"#, r#"{"metadata":{"a":[""#, r#"{"metadata":{"a\"#, r#"{"metadata":{"managedFields":["#]
        {
            assert!(Encoded::whole(broken).decode::<serde_json::Value>().is_err());
        }
    }
}
