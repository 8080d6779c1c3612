//! Whether an object still lives, as the watch cache has it.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;

use crate::cache::{Cache, ResourceCache, Stored};

pub const SERVICE_ACCOUNTS: &str = "/registry/serviceaccounts/";
pub const SECRETS: &str = "/registry/secrets/";
pub const PODS: &str = "/registry/pods/";
pub const NODES: &str = "/registry/minions/";

/// An object as it was when something was found out that follows from it.
#[derive(Clone)]
pub struct Witness {
    resource: Arc<ResourceCache>,
    path: String,
    revision: u64,
}

impl std::fmt::Debug for Witness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.path, self.revision)
    }
}

impl Witness {
    pub fn new(resource: Arc<ResourceCache>, path: String, revision: u64) -> Witness {
        Witness { resource, path, revision }
    }

    /// Nothing has changed it.
    pub fn holds(&self) -> bool {
        self.resource.get(&self.path).is_some_and(|stored| stored.mod_revision == self.revision)
    }
}

/// The part of an object that says whether it lives; the rest is not decoded.
pub struct Living {
    pub stored: Arc<Stored>,
    resource: Arc<ResourceCache>,
    path: String,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    deletion_timestamp: Option<Timestamp>,
}

/// `namespace` is empty for nodes.
pub fn find(cache: &Cache, prefix: &str, namespace: &str, name: &str) -> Option<Living> {
    let path = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
    let resource = cache.resource(prefix.as_bytes())?;
    let stored = resource.get(&path)?;
    let object: Object = serde_json::from_slice(&stored.value).ok()?;
    Some(Living { stored, resource, path, metadata: object.metadata })
}

impl Living {
    pub fn uid(&self) -> &str {
        &self.metadata.uid
    }

    pub fn witness(self) -> Witness {
        Witness::new(self.resource, self.path, self.stored.mod_revision)
    }

    pub fn is_deleted(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }

    pub fn deleted_before(&self, seconds: i64) -> bool {
        self.metadata.deletion_timestamp.is_some_and(|at| at.as_second() < seconds)
    }
}
