//! The rows of custom resources, for everybody to look up.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::custom::Definition;
use api::{Resource, Row};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde_json::Value;
use task::Shutdown;

use crate::webhook::Endpoint;

/// The table, and what it is made from. Reading never waits.
#[derive(Default)]
pub struct CustomResources {
    table: ArcSwap<Table>,
    /// Held while the table is made anew.
    pub(super) known: Mutex<BTreeMap<String, Known>>,
}

/// Rows by group, plural name and version.
#[derive(Default)]
struct Table {
    served: Vec<Arc<Row>>,
    definitions: HashMap<String, Entry>,
    /// Changes with every change of the table.
    generation: u64,
}

/// What there is for a definition besides its served rows.
struct Entry {
    /// The row in whose version objects are stored, served or not.
    storage: Arc<Row>,
    /// Cancelled when the definition's rows go.
    ended: Shutdown,
    /// Its conversion webhook.
    endpoint: Option<Endpoint>,
}

/// A definition as it was when its rows were made.
pub(super) struct Known {
    pub mod_revision: u64,
    pub object: Arc<Value>,
    pub rows: Option<KnownRows>,
}

pub(super) struct KnownRows {
    pub uid: String,
    pub generation: i64,
    pub names: Value,
    pub definition: Arc<Definition>,
    pub rows: Vec<Arc<Row>>,
    pub ended: Shutdown,
    pub endpoint: Option<Endpoint>,
}

impl CustomResources {
    /// A served version of a custom resource.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Row>> {
        let table = self.table.load();
        let wanted = (group, plural, version);
        let at = table.served.binary_search_by(|row| order(&row.resource).cmp(&wanted)).ok()?;
        table.served.get(at).cloned()
    }

    /// Every served version.
    pub fn rows(&self) -> Vec<Arc<Row>> {
        self.table.load().served.clone()
    }

    /// The row of a definition's storage version.
    pub fn storage_row(&self, definition: &str) -> Option<Arc<Row>> {
        self.table.load().definitions.get(definition).map(|entry| entry.storage.clone())
    }

    /// The conversion webhook of a definition.
    pub fn endpoint_of(&self, definition: &str) -> Option<Endpoint> {
        self.table.load().definitions.get(definition)?.endpoint.clone()
    }

    /// Cancelled when a custom resource's rows go or are replaced.
    pub fn end_of(&self, row: &Row) -> Option<Shutdown> {
        let version = row.custom.as_ref()?;
        let table = self.table.load();
        let is_of =
            |row: &Row| row.custom.as_ref().is_some_and(|one| Arc::ptr_eq(&one.definition, &version.definition));
        let current = table.definitions.get(&version.definition.name).filter(|entry| is_of(&entry.storage));
        if let Some(entry) = current {
            return Some(entry.ended.clone());
        }
        let over = Shutdown::new();
        over.cancel();
        Some(over)
    }

    /// A number that is another whenever the rows are others.
    pub fn generation(&self) -> u64 {
        self.table.load().generation
    }

    pub(super) fn replace(&self, known: &BTreeMap<String, Known>) {
        let mut served = Vec::new();
        let mut definitions = HashMap::new();
        for (name, known) in known {
            let Some(rows) = &known.rows else { continue };
            served.extend(rows.rows.iter().filter(|row| row.enabled).cloned());
            if let Some(row) = rows.rows.iter().find(|row| row.resource == row.storage) {
                let (ended, endpoint) = (rows.ended.clone(), rows.endpoint.clone());
                definitions.insert(name.clone(), Entry { storage: row.clone(), ended, endpoint });
            }
        }
        served.sort_by(|a, b| order(&a.resource).cmp(&order(&b.resource)));
        let generation = self.table.load().generation + 1;
        self.table.store(Arc::new(Table { served, definitions, generation }));
    }
}

fn order(resource: &Resource) -> (&str, &str, &str) {
    (&resource.group, &resource.plural, &resource.version)
}
