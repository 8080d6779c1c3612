//! StorageObjectInUseProtection: volumes, claims and classes of attributes go only when nobody uses them, for which they get a finalizer.

use api::{Failure, Fields};
use serde_json::Value;

use super::{Attributes, Operation, Plugin};
use crate::cache::Cache;

pub struct StorageObjectInUseProtection;

impl Plugin for StorageObjectInUseProtection {
    fn mutate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        let finalizer = match attributes.row.resource.plural.as_ref() {
            "persistentvolumes" => "kubernetes.io/pv-protection",
            "persistentvolumeclaims" => "kubernetes.io/pvc-protection",
            "volumeattributesclasses" => "kubernetes.io/vac-protection",
            _ => return Ok(()),
        };
        if attributes.operation != Operation::Create || attributes.subresource.is_some() {
            return Ok(());
        }
        let Some(metadata) = object.object("metadata") else { return Ok(()) };
        let mut finalizers = metadata.list("finalizers").to_vec();
        if !finalizers.iter().any(|one| one == finalizer) {
            finalizers.push(finalizer.into());
            metadata.set("finalizers", finalizers);
        }
        Ok(())
    }
}
