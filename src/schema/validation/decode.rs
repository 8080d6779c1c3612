//! Reads JSON and finds the fields that occur twice, in one pass.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{FINDINGS_MAX, Path};

/// Up to this many keys an object's keys are compared one by one, above it in a hash set.
const LINEAR_KEYS_MAX: usize = 16;

/// A request body, read.
#[derive(Debug)]
pub struct Decoded {
    /// Of fields that occur twice it has the last.
    pub value: Value,
    /// Their paths, at most [`FINDINGS_MAX`].
    pub duplicates: Vec<String>,
}

/// Reads a JSON document. Nesting deeper than 128 is an error of the parser.
pub fn decode(json: &[u8]) -> Result<Decoded, serde_json::Error> {
    let mut found = Found::default();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let value = Build(&mut found).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Decoded { value, duplicates: found.duplicates })
}

/// Paths of the fields that occur twice, without building the document.
pub fn duplicate_fields(json: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    let mut found = Found::default();
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    Scan(&mut found).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(found.duplicates)
}

#[derive(Default)]
struct Found {
    path: Path,
    duplicates: Vec<String>,
}

impl Found {
    fn record(&mut self) {
        if self.duplicates.len() < FINDINGS_MAX && !self.duplicates.contains(&self.path.text) {
            self.duplicates.push(self.path.text.clone());
        }
    }
}

struct Build<'f>(&'f mut Found);

impl<'de> DeserializeSeed<'de> for Build<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Build<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_f64<E: Error>(self, v: f64) -> Result<Value, E> {
        Number::from_f64(v).map(Value::Number).ok_or_else(|| E::custom("not a JSON number"))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::from(v))
    }

    fn visit_string<E>(self, v: String) -> Result<Value, E> {
        Ok(Value::String(v))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        loop {
            let mark = self.0.path.index(items.len());
            let item = seq.next_element_seed(Build(self.0))?;
            self.0.path.leave(mark);
            match item {
                Some(item) => items.push(item),
                None => return Ok(Value::Array(items)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let mark = self.0.path.field(&key);
            let value = access.next_value_seed(Build(self.0))?;
            if map.insert(key, value).is_some() {
                self.0.record();
            }
            self.0.path.leave(mark);
        }
        Ok(Value::Object(map))
    }
}

struct Scan<'f>(&'f mut Found);

impl<'de> DeserializeSeed<'de> for Scan<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Scan<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        for index in 0.. {
            let mark = self.0.path.index(index);
            let item = seq.next_element_seed(Scan(self.0))?;
            self.0.path.leave(mark);
            if item.is_none() {
                return Ok(());
            }
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<(), A::Error> {
        let mut keys = Keys::Few(Vec::new());
        while let Some(Key(key)) = access.next_key::<Key<'de>>()? {
            let mark = self.0.path.field(&key);
            if !keys.insert(key) {
                self.0.record();
            }
            access.next_value_seed(Scan(self.0))?;
            self.0.path.leave(mark);
        }
        Ok(())
    }
}

/// A key that is borrowed from the document unless it is written with escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Key<'k>(#[serde(borrow)] Cow<'k, str>);

enum Keys<'de> {
    Few(Vec<Cow<'de, str>>),
    Many(HashSet<Cow<'de, str>>),
}

impl<'de> Keys<'de> {
    /// Whether the key is new.
    fn insert(&mut self, key: Cow<'de, str>) -> bool {
        match self {
            Keys::Many(keys) => keys.insert(key),
            Keys::Few(keys) if keys.contains(&key) => false,
            Keys::Few(keys) => {
                keys.push(key);
                if keys.len() > LINEAR_KEYS_MAX {
                    *self = Keys::Many(std::mem::take(keys).into_iter().collect());
                }
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicates_are_found_with_their_paths() {
        let json =
            br#"{"kind":"Pod","spec":{"a":1,"c":[{"x":1},{"x":1,"y":{},"x":2}],"\u0061":3},"kind":"Pod","kind":"Pod"}"#;
        let expected = ["spec.c[1].x", "spec.a", "kind"];
        assert_eq!(duplicate_fields(json).unwrap(), expected);
        let decoded = decode(json).unwrap();
        assert_eq!(decoded.duplicates, expected);
        assert_eq!(decoded.value["spec"]["a"], 3);
        assert_eq!(decoded.value["spec"]["c"][1]["x"], 2);
    }

    #[test]
    fn values_are_those_of_the_plain_parser() {
        let json = r#"{"a":[1,-1,1.5,18446744073709551615,true,null,"x\ny",{}],"b":{"c":[[]]}}"#;
        assert_eq!(decode(json.as_bytes()).unwrap().value, serde_json::from_str::<Value>(json).unwrap());
        assert!(duplicate_fields(json.as_bytes()).unwrap().is_empty());
        for bad in ["", "{", "{} x", "[1,]"] {
            assert!(decode(bad.as_bytes()).is_err(), "{bad}");
            assert!(duplicate_fields(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn many_keys_and_deep_nesting() {
        let keys: Vec<String> = (0..200).map(|i| format!("\"k{}\":0", i % 150)).collect();
        let json = format!("{{{}}}", keys.join(","));
        assert_eq!(duplicate_fields(json.as_bytes()).unwrap().len(), 50);
        assert_eq!(decode(json.as_bytes()).unwrap().duplicates.len(), 50);
        let bomb = "[".repeat(100_000);
        assert!(decode(bomb.as_bytes()).is_err());
        assert!(duplicate_fields(bomb.as_bytes()).is_err());
    }
}
