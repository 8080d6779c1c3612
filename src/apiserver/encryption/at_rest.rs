//! The door between objects and the store: values go in encrypted and come out plain, where they are to be.

use std::sync::Arc;

use bytes::Bytes;
use store::KeyValue;

use super::{Encryption, EncryptionError};
use crate::cache::Stored;
use crate::metrics::Text;

/// A cheap handle; without encryption it does nothing.
#[derive(Clone, Default)]
pub struct AtRest(Option<Arc<Encryption>>);

impl AtRest {
    pub fn new(encryption: Option<Arc<Encryption>>) -> AtRest {
        AtRest(encryption)
    }

    /// There are KMS plugins.
    pub fn asks_others(&self) -> bool {
        self.0.as_ref().is_some_and(|encryption| encryption.has_plugins())
    }

    /// To be awaited before values are opened: a KMS plugin may have to be asked.
    pub async fn prepare<'a>(&self, values: impl Iterator<Item = &'a KeyValue>) -> Result<(), EncryptionError> {
        match &self.0 {
            None => Ok(()),
            Some(encryption) => encryption.prepare(values.map(|kv| (kv.key.as_ref(), kv.value.as_ref()))).await,
        }
    }

    /// The object that a value is; `None` when it is none.
    pub fn open(&self, kv: KeyValue, prefix_bytes: usize) -> Result<Option<Stored>, EncryptionError> {
        let Some(encryption) = &self.0 else {
            return Ok(Stored::new(kv.key, kv.value, kv.mod_revision, prefix_bytes));
        };
        let opened = encryption.open(&kv.key, kv.value)?;
        let stored = Stored::new(kv.key, opened.value, kv.mod_revision, prefix_bytes);
        Ok(stored.map(|stored| if opened.stale { stored.outdated() } else { stored }))
    }

    /// What is stored for an object's bytes.
    pub fn seal(&self, key: &Bytes, value: Bytes) -> Result<Bytes, EncryptionError> {
        match &self.0 {
            None => Ok(value),
            Some(encryption) => encryption.seal(key, value),
        }
    }

    /// For `/metrics`.
    pub fn write_figures(&self, out: &mut Text) {
        if let Some(encryption) = &self.0 {
            encryption.write_figures(out);
        }
    }

    #[cfg(test)]
    pub fn encryption(&self) -> Option<&Arc<Encryption>> {
        self.0.as_ref()
    }

    /// What is wrong with the KMS plugins; `None` when there are none.
    pub fn health(&self) -> Option<Vec<String>> {
        self.0.as_ref()?.health()
    }
}
