//! What a kind of object does on its way into the store, as upstream's registry strategies have it.
//!
//! Built-in kinds give plain functions ([`Functions`]); kinds made at run time (custom resources) implement
//! [`Strategy`] over their schema. All are pure: what needs the store (allocating cluster addresses, looking up
//! service accounts) is the API server's.

use std::borrow::Cow;

use jiff::Timestamp;
use serde_json::Value;

use crate::{failure::FieldError, print::Column};

pub use crate::canonical::clear_status;

pub mod claims;
pub mod convert;
pub mod devices;
pub mod kinds;
mod label_keys;
pub mod pod;
pub mod previews;
pub mod retired;
pub mod service;
pub mod warnings;

/// How a kind's objects are completed, checked and shown.
pub trait Strategy: Send + Sync + 'static {
    /// Fills in what the author left out. Applying it twice changes nothing.
    fn default(&self, object: &mut Value);
    /// Resets what an author may not set on create (status, for kinds that have one).
    fn prepare_create(&self, object: &mut Value);
    /// Resets what this update may not change: a plain update leaves the status, an update of `status` leaves
    /// everything else.
    fn prepare_update(&self, object: &mut Value, old: &Value, subresource: Option<&str>);
    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>);
    fn validate_update(&self, object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>);
    /// Texts for the `Warning` header.
    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String>;
    /// From the version that is served to the one that is stored, and back. The API version and kind are set
    /// by the caller.
    fn to_storage(&self, object: &mut Value);
    fn to_served(&self, object: &mut Value);
    fn columns(&self) -> Cow<'_, [Column]>;
    /// One cell for each column.
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value>;
}

/// Checks an update: the new object, the old one, the subresource.
pub type UpdateCheck = fn(&Value, &Value, Option<&str>, &mut Vec<FieldError>);

/// The strategy of a built-in kind: a table of functions.
#[derive(Clone, Copy)]
pub struct Functions {
    pub default: fn(&mut Value),
    /// `None` where nothing is reset.
    pub prepare_create: Option<fn(&mut Value)>,
    pub prepare_update: Option<fn(&mut Value, &Value, Option<&str>)>,
    pub validate_create: fn(&Value, &mut Vec<FieldError>),
    /// `None` where an update is checked as a create is.
    pub validate_update: Option<UpdateCheck>,
    pub warnings: fn(&Value, Option<&Value>) -> Vec<String>,
    pub to_storage: fn(&mut Value),
    pub to_served: fn(&mut Value),
    pub columns: &'static [Column],
    pub cells: fn(&Value, Timestamp) -> Vec<Value>,
}

impl Functions {
    /// For kinds that have neither defaults nor a status nor rules of their own.
    pub const PLAIN: Functions = Functions {
        default: |_| {},
        prepare_create: None,
        prepare_update: None,
        validate_create: |_, _| {},
        validate_update: None,
        warnings: |_, _| Vec::new(),
        to_storage: |_| {},
        to_served: |_| {},
        columns: crate::print::NAME_AND_CREATION,
        cells: crate::print::name_and_creation,
    };
}

impl Strategy for Functions {
    fn default(&self, object: &mut Value) {
        (self.default)(object);
    }

    fn prepare_create(&self, object: &mut Value) {
        if let Some(prepare) = self.prepare_create {
            prepare(object);
        }
    }

    fn prepare_update(&self, object: &mut Value, old: &Value, subresource: Option<&str>) {
        if let Some(prepare) = self.prepare_update {
            prepare(object, old, subresource);
        }
    }

    fn validate_create(&self, object: &Value, errors: &mut Vec<FieldError>) {
        (self.validate_create)(object, errors);
    }

    fn validate_update(&self, object: &Value, old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
        match self.validate_update {
            Some(validate) => validate(object, old, subresource, errors),
            None if subresource.is_none() => (self.validate_create)(object, errors),
            None => {}
        }
    }

    fn warnings(&self, object: &Value, old: Option<&Value>) -> Vec<String> {
        (self.warnings)(object, old)
    }

    fn to_storage(&self, object: &mut Value) {
        (self.to_storage)(object);
    }

    fn to_served(&self, object: &mut Value) {
        (self.to_served)(object);
    }

    fn columns(&self) -> Cow<'_, [Column]> {
        Cow::Borrowed(self.columns)
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        (self.cells)(object, now)
    }
}

/// Keeps the status on a plain update, and everything but the status on an update of it.
pub fn isolate_status(object: &mut Value, old: &Value, subresource: Option<&str>) {
    match subresource {
        None => keep(object, old, "status"),
        Some("status") => keep_all_but(object, old, &["status", "metadata"]),
        Some(_) => {}
    }
}

/// The top-level field `name` as the old object has it.
pub fn keep(object: &mut Value, old: &Value, name: &str) {
    let Some(fields) = object.as_object_mut() else { return };
    match old.get(name) {
        Some(value) => {
            if fields.get(name) != Some(value) {
                fields.insert(name.to_owned(), value.clone());
            }
        }
        None => {
            fields.remove(name);
        }
    }
}

/// Every top-level field but `names` (and the type) as the old object has it.
pub fn keep_all_but(object: &mut Value, old: &Value, names: &[&str]) {
    let (Some(fields), Some(before)) = (object.as_object_mut(), old.as_object()) else { return };
    fields.retain(|name, _| before.contains_key(name) || names.contains(&name.as_str()));
    for (name, value) in before {
        let free = names.contains(&name.as_str()) || name == "apiVersion" || name == "kind";
        if !free && fields.get(name) != Some(value) {
            fields.insert(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_status_update_changes_nothing_else() {
        let old = json!({"kind": "X", "metadata": {"name": "a"}, "spec": {"n": 1}, "status": {"s": 1}});
        let mut new = json!({"kind": "X", "metadata": {"name": "a"}, "spec": {"n": 2}, "data": 1, "status": {"s": 2}});
        let mut status = new.clone();
        isolate_status(&mut status, &old, Some("status"));
        assert_eq!(status, json!({"kind": "X", "metadata": {"name": "a"}, "spec": {"n": 1}, "status": {"s": 2}}));
        isolate_status(&mut new, &old, None);
        assert_eq!(new["status"], json!({"s": 1}));
        assert_eq!(new["spec"], json!({"n": 2}));
    }
}
