//! Reading and completing JSON objects by field name, the way Go's zero values read: a missing field is an empty
//! string, list or map.

use serde_json::{Map, Value};

pub trait Fields {
    /// The field if it is there and not null.
    fn at(&self, name: &str) -> Option<&Value>;
    fn text(&self, name: &str) -> &str;
    fn list(&self, name: &str) -> &[Value];
    fn map(&self, name: &str) -> Option<&Map<String, Value>>;
    fn int(&self, name: &str) -> Option<i64>;
    fn flag(&self, name: &str) -> bool;
    fn has(&self, name: &str) -> bool;
    /// The field, or null.
    fn part(&self, name: &str) -> &Value;
    fn at_mut(&mut self, name: &str) -> Option<&mut Value>;
    fn list_mut(&mut self, name: &str) -> &mut [Value];
    /// Sets the field if it is missing or null.
    fn fill(&mut self, name: &str, value: impl Into<Value>);
    /// Sets the field if it is missing, null or an empty string.
    fn fill_text(&mut self, name: &str, value: &str);
    /// Sets the field if it is missing, null or zero.
    fn fill_number(&mut self, name: &str, value: i64);
    fn set(&mut self, name: &str, value: impl Into<Value>);
    fn unset(&mut self, name: &str);
    /// The field as an object, made if it is missing. `None` where something else stands there.
    fn object(&mut self, name: &str) -> Option<&mut Value>;
}

static NULL: Value = Value::Null;

impl Fields for Value {
    fn at(&self, name: &str) -> Option<&Value> {
        self.get(name).filter(|value| !value.is_null())
    }

    fn text(&self, name: &str) -> &str {
        self.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn list(&self, name: &str) -> &[Value] {
        self.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    fn map(&self, name: &str) -> Option<&Map<String, Value>> {
        self.get(name).and_then(Value::as_object)
    }

    fn int(&self, name: &str) -> Option<i64> {
        self.get(name).and_then(Value::as_i64)
    }

    fn flag(&self, name: &str) -> bool {
        self.get(name).and_then(Value::as_bool).unwrap_or_default()
    }

    fn has(&self, name: &str) -> bool {
        self.at(name).is_some()
    }

    fn part(&self, name: &str) -> &Value {
        self.get(name).unwrap_or(&NULL)
    }

    fn at_mut(&mut self, name: &str) -> Option<&mut Value> {
        self.get_mut(name).filter(|value| !value.is_null())
    }

    fn list_mut(&mut self, name: &str) -> &mut [Value] {
        self.get_mut(name).and_then(Value::as_array_mut).map(Vec::as_mut_slice).unwrap_or_default()
    }

    fn fill(&mut self, name: &str, value: impl Into<Value>) {
        if !self.has(name) {
            self.set(name, value);
        }
    }

    fn fill_text(&mut self, name: &str, value: &str) {
        match self.get(name) {
            None | Some(Value::Null) => self.set(name, value),
            Some(Value::String(text)) if text.is_empty() => self.set(name, value),
            Some(_) => {}
        }
    }

    fn fill_number(&mut self, name: &str, value: i64) {
        match self.get(name) {
            None | Some(Value::Null) => self.set(name, value),
            Some(number) if number.as_i64() == Some(0) => self.set(name, value),
            Some(_) => {}
        }
    }

    fn set(&mut self, name: &str, value: impl Into<Value>) {
        if let Some(fields) = self.as_object_mut() {
            fields.insert(name.to_owned(), value.into());
        }
    }

    fn unset(&mut self, name: &str) {
        if let Some(fields) = self.as_object_mut() {
            fields.remove(name);
        }
    }

    fn object(&mut self, name: &str) -> Option<&mut Value> {
        let fields = self.as_object_mut()?;
        let value = fields.entry(name).or_insert(Value::Null);
        if value.is_null() {
            *value = Value::Object(Map::new());
        }
        value.is_object().then_some(value)
    }
}
