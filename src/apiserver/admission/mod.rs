//! Admission: what the cluster adds to an object and whether it takes it, after authorisation and before the store.
//!
//! A chain of plugins in upstream's order. First each may change the object, then, when it is complete and valid,
//! each may refuse it. Plugins are decisions on the request and the watch cache; they write nothing.

mod default_storage_class;
mod default_toleration_seconds;
mod limit_ranger;
mod namespace_lifecycle;
mod node_restriction;
mod priority;
mod service_account;
mod storage_in_use_protection;
mod taint_nodes;

use std::sync::Arc;

use api::{Failure, Row};
use serde_json::Value;

use crate::cache::Cache;
use crate::failures;
use crate::identity::Identity;
use crate::server::ApiServer;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// What a plugin knows of the request besides the object (upstream: `admission.Attributes`).
pub struct Attributes<'a> {
    pub user: &'a Identity,
    pub operation: Operation,
    pub row: &'a Arc<Row>,
    pub subresource: Option<&'a str>,
    /// Empty for cluster-scoped resources.
    pub namespace: &'a str,
    pub name: &'a str,
    /// Texts for the client's user.
    pub warnings: Vec<String>,
}

impl Attributes<'_> {
    /// The request is about objects of this kind themselves.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.subresource.is_none() && self.row.resource.group == group && self.row.resource.plural == plural
    }

    pub fn refuse(&self, why: impl std::fmt::Display) -> Failure {
        Failure::forbidden(&self.row.resource.group, &self.row.resource.plural, self.name, why)
    }
}

/// One admission plugin.
pub trait Plugin: Send + Sync {
    /// Changes the object.
    fn mutate(
        &self,
        _cache: &Cache,
        _attributes: &mut Attributes<'_>,
        _object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        Ok(())
    }

    /// Refuses the object; it is `None` for a deletion.
    fn validate(
        &self,
        _cache: &Cache,
        _attributes: &mut Attributes<'_>,
        _object: Option<&Value>,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        Ok(())
    }
}

/// The chain.
pub struct Admission {
    cache: Arc<Cache>,
    plugins: Vec<Box<dyn Plugin>>,
}

impl Admission {
    pub fn new(cache: Arc<Cache>) -> Admission {
        let plugins: Vec<Box<dyn Plugin>> = vec![
            Box::new(namespace_lifecycle::NamespaceLifecycle),
            Box::new(node_restriction::NodeRestriction),
            Box::new(taint_nodes::TaintNodesByCondition),
            Box::new(limit_ranger::LimitRanger),
            Box::new(service_account::ServiceAccount),
            Box::new(default_toleration_seconds::DefaultTolerationSeconds),
            Box::new(priority::Priority),
            Box::new(default_storage_class::DefaultStorageClass),
            Box::new(storage_in_use_protection::StorageObjectInUseProtection),
        ];
        Admission { cache, plugins }
    }

    /// A refusal may be due to something that was written a moment ago and is not in the cache yet, such as the
    /// namespace; it counts once the cache has all that was acknowledged before.
    pub async fn mutate(
        &self,
        server: &ApiServer,
        attributes: &mut Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        let seen = self.cache.revision();
        let Err(refused) = self.mutate_once(attributes, object, old) else { return Ok(()) };
        let written = server.store().read_index().await.map_err(|error| failures::of_store(&error))?;
        if seen >= written {
            return Err(refused);
        }
        self.cache.reach(written).await?;
        self.mutate_once(attributes, object, old)
    }

    fn mutate_once(
        &self,
        attributes: &mut Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        for plugin in &self.plugins {
            plugin.mutate(&self.cache, attributes, object, old)?;
        }
        Ok(())
    }

    #[expect(clippy::unused_async, reason = "webhooks and policies wait for answers")]
    pub async fn validate(
        &self,
        _server: &ApiServer,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        for plugin in &self.plugins {
            plugin.validate(&self.cache, attributes, object, old)?;
        }
        Ok(())
    }
}

/// An object of the watch cache, decoded. `prefix` is the resource's, as `/registry/namespaces/`.
fn look_up(cache: &Cache, prefix: &str, path: &str) -> Option<Value> {
    let stored = cache.resource(prefix.as_bytes())?.get(path)?;
    serde_json::from_slice(&stored.value).ok()
}

/// All objects of a resource, or those in a namespace, decoded.
fn all(cache: &Cache, prefix: &str, namespace: Option<&str>) -> Vec<Value> {
    let Some(resource) = cache.resource(prefix.as_bytes()) else { return Vec::new() };
    let objects = resource.objects(namespace);
    objects.iter().filter_map(|stored| serde_json::from_slice(&stored.value).ok()).collect()
}
