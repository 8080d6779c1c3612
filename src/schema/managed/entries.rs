//! `metadata.managedFields`: reading, ordering, bounding and writing its entries.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::set::Set;

/// How many managers that updated an object are kept apart; the oldest above that become one.
pub const UPDATE_MANAGERS_MAX: usize = 10;

/// The manager that stands for the oldest ones.
const ANCIENT_CHANGES: &str = "ancient-changes";

/// `operation` of an entry. In the order in which entries are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    Apply,
    Update,
}

/// Who owns some fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    pub manager: Cow<'a, str>,
    pub operation: Operation,
    pub api_version: Cow<'a, str>,
    pub subresource: Cow<'a, str>,
    /// RFC 3339 in UTC with whole seconds, so that text order is time order; empty if there is none.
    pub time: Cow<'a, str>,
    pub fields: Set<'a>,
    /// The entry's place among those that it was read from, while it says the same as there.
    pub unchanged: Option<usize>,
}

impl Entry<'_> {
    /// Whether both are one manager's. Of those that apply, the version does not count.
    pub fn is_same_manager(&self, other: &Entry<'_>) -> bool {
        self.operation == other.operation
            && self.manager == other.manager
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    pub fn to_json(&self) -> Value {
        let mut entry = Map::new();
        let mut put = |name: &str, text: &str| {
            if !text.is_empty() {
                entry.insert(name.to_owned(), Value::from(text));
            }
        };
        put("manager", &self.manager);
        put("operation", self.operation.as_str());
        put("apiVersion", &self.api_version);
        put("time", &self.time);
        put("fieldsType", "FieldsV1");
        put("subresource", &self.subresource);
        entry.insert(String::from("fieldsV1"), self.fields.to_json());
        Value::Object(entry)
    }

    /// `"name"`, or `"name" with subresource "status" using apps/v1`, as conflicts are told.
    pub fn describe(&self) -> String {
        let mut text = format!("{:?}", self.manager);
        if !self.subresource.is_empty() {
            text.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if self.operation == Operation::Update {
            text.push_str(&format!(" using {}", self.api_version));
        }
        text
    }
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// Reads all entries. Of two by one manager the later counts.
pub(super) fn decode(entries: &[Value]) -> Result<Vec<Entry<'_>>, String> {
    let mut all = decode_heads(entries)?;
    load_fields(&mut all, entries);
    Ok(all)
}

/// Reads the fields of entries that [`decode_heads`] read.
pub(super) fn load_fields<'a>(all: &mut [Entry<'a>], entries: &'a [Value]) {
    for entry in all {
        let fields = entry.unchanged.and_then(|at| entries.get(at)?.get("fieldsV1"));
        entry.fields = fields.map(Set::from_json).unwrap_or_default();
    }
}

/// Reads all of the entries but their fields.
pub(super) fn decode_heads(entries: &[Value]) -> Result<Vec<Entry<'_>>, String> {
    let mut all: Vec<Entry<'_>> = Vec::with_capacity(entries.len() + 1);
    for (at, entry) in entries.iter().enumerate() {
        let text = |name: &str| entry.get(name).and_then(Value::as_str).unwrap_or_default();
        let operation = match text("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".to_owned()),
        };
        if text("apiVersion").is_empty() {
            return Err("apiVersion must not be empty".to_owned());
        }
        match text("fieldsType") {
            "FieldsV1" => {}
            "" => return Err(format!("missing fieldsType in managed fields entry {at}")),
            other => return Err(format!("invalid fieldsType {other:?} in managed fields entry {at}")),
        }
        let entry = Entry {
            manager: text("manager").into(),
            operation,
            api_version: text("apiVersion").into(),
            subresource: text("subresource").into(),
            time: text("time").into(),
            fields: Set::default(),
            unchanged: Some(at),
        };
        match all.iter_mut().find(|known| known.is_same_manager(&entry)) {
            Some(known) => *known = entry,
            None => all.push(entry),
        }
    }
    Ok(all)
}

/// An object's entries; empty if it has none or they are of no use.
pub(super) fn of(object: Option<&Value>) -> &[Value] {
    object.and_then(|o| o.get("metadata")?.get("managedFields")?.as_array()).map_or(&[], Vec::as_slice)
}

/// Whether a request asks for the entries to be dropped: by an empty list, or a list of one empty entry.
pub(super) fn is_reset(entries: &Value) -> bool {
    match entries.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([Value::Object(entry)]) => entry.values().all(Value::is_null),
        _ => false,
    }
}

/// Whether [`cap`] has something to do.
pub(super) fn are_too_many(entries: &[Entry<'_>]) -> bool {
    entries.iter().filter(|e| e.operation == Operation::Update).count() > UPDATE_MANAGERS_MAX
}

/// Makes one of the oldest managers that updated, per version, until there are at most
/// [`UPDATE_MANAGERS_MAX`].
pub(super) fn cap(entries: &mut Vec<Entry<'_>>) {
    let mut excess =
        entries.iter().filter(|e| e.operation == Operation::Update).count().saturating_sub(UPDATE_MANAGERS_MAX);
    if excess == 0 {
        return;
    }
    sort(entries);
    let all = std::mem::take(entries);
    // Sorted by time, those that apply first; of each version the oldest is where the others go.
    for mut entry in all {
        if excess > 0 && entry.operation == Operation::Update {
            let bucket =
                entries.iter_mut().find(|e| e.operation == Operation::Update && e.api_version == entry.api_version);
            if let Some(bucket) = bucket {
                entry.fields.union(&bucket.fields);
                bucket.fields = entry.fields;
                bucket.manager = ANCIENT_CHANGES.into();
                bucket.subresource = Cow::Borrowed("");
                bucket.time = entry.time;
                bucket.unchanged = None;
                excess -= 1;
                continue;
            }
        }
        entries.push(entry);
    }
}

/// The order in which entries are written.
pub(super) fn sort(entries: &mut [Entry<'_>]) {
    entries.sort_by(|a, b| {
        (a.operation, &a.time, &a.manager, &a.api_version, &a.subresource).cmp(&(
            b.operation,
            &b.time,
            &b.manager,
            &b.api_version,
            &b.subresource,
        ))
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn entries_are_read_and_written() {
        let entries = json!([
            {"manager": "a", "operation": "Apply", "apiVersion": "v1", "time": "2024-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": {"f:x": {}}},
            {"manager": "b", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:y": {}}, "subresource": "status"},
        ]);
        let decoded = decode(entries.as_array().unwrap()).unwrap();
        assert_eq!(Value::Array(decoded.iter().map(Entry::to_json).collect()), entries);
        assert_eq!(decoded[0].describe(), "\"a\"");
        assert_eq!(decoded[1].describe(), "\"b\" with subresource \"status\" using v1");
        for bad in [
            json!([{"operation": "X", "apiVersion": "v1", "fieldsType": "FieldsV1"}]),
            json!([{"operation": "Apply", "fieldsType": "FieldsV1"}]),
            json!([{"operation": "Apply", "apiVersion": "v1"}]),
            json!([1]),
        ] {
            assert!(decode(bad.as_array().unwrap()).is_err());
        }
    }

    #[test]
    fn the_oldest_become_one() {
        let entries: Vec<Value> = (0..13)
            .map(|i| {
                json!({"manager": format!("m{i:02}"), "operation": "Update", "apiVersion": if i == 1 { "v2" } else { "v1" },
                    "time": format!("2024-01-01T00:00:{i:02}Z"), "fieldsType": "FieldsV1", "fieldsV1": {format!("f:f{i}"): {}}})
            })
            .collect();
        let mut decoded = decode(&entries).unwrap();
        cap(&mut decoded);
        assert_eq!(decoded.len(), 10);
        let ancient: Vec<_> = decoded.iter().filter(|e| e.manager == ANCIENT_CHANGES).collect();
        assert_eq!(ancient.len(), 1);
        assert_eq!(ancient[0].fields.to_json(), json!({"f:f0": {}, "f:f2": {}, "f:f3": {}, "f:f4": {}}));
        assert_eq!(ancient[0].time, "2024-01-01T00:00:04Z");
        // The next one goes into it, too.
        let json: Vec<Value> = decoded.iter().map(Entry::to_json).collect();
        let more = json!({"manager": "n", "operation": "Update", "apiVersion": "v1", "time": "2025-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:n": {}}});
        let all: Vec<Value> = json.into_iter().chain([more]).collect();
        let mut decoded = decode(&all).unwrap();
        cap(&mut decoded);
        assert_eq!(decoded.len(), 10);
        assert_eq!(decoded.iter().filter(|e| e.manager == ANCIENT_CHANGES).count(), 1);
    }
}
