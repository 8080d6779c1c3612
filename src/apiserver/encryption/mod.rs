//! Encryption at rest: what stands between the objects and the store for resources that are to be encrypted.
//!
//! A resource has providers; the first encrypts, all may decrypt, each known by its prefix in front of the data. What
//! was not made by the first provider's first key is stale: its next update writes it anew, even if nothing changed.
//! The watch cache holds encrypted resources as plain bytes of its own; the bytes of all others stay the store's.

mod at_rest;
mod ciphers;
mod config;
mod kms;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::{Failure, Reason};
use arc_swap::ArcSwap;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use task::Shutdown;

pub use at_rest::AtRest;
pub use config::ConfigError;

use ciphers::Cipher;
use config::{Parsed, Pattern};

use crate::storage::resource_of;

/// In front of everything that is encrypted.
const PREFIX: &str = "k8s:enc:";
/// The configuration file is looked at this often, if it may change (upstream's interval).
const RELOAD_INTERVAL: Duration = Duration::from_secs(60);
/// Attempts at what a KMS plugin is needed for when the server starts, and the pause between them.
const START_ATTEMPTS: usize = 10;
const START_PAUSE: Duration = Duration::from_secs(1);

/// `--encryption-provider-config` and what belongs to it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub config_file: Option<PathBuf>,
    pub automatic_reload: bool,
}

/// A value cannot be encrypted or decrypted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncryptionError {
    #[error("no matching prefix found")]
    NoProvider,
    #[error("the data does not decrypt with any of the configured keys")]
    Open,
    #[error("the data cannot be encrypted")]
    Seal,
    #[error("the KMS provider {provider} is not well; nothing is encrypted with it")]
    NotWell { provider: String },
    #[error("failed to decrypt DEK, error: {why}")]
    Unreachable { why: String },
}

/// Encryption cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("{}: cannot be read", path.display())]
    File { path: PathBuf, source: std::io::Error },
    #[error("{}", path.display())]
    Config { path: PathBuf, source: ConfigError },
}

/// What is encrypted and with what. It may change while the server runs.
pub struct Encryption {
    path: PathBuf,
    rules: ArcSwap<Rules>,
}

struct Rules {
    fingerprint: [u8; 32],
    rules: Vec<(Vec<Pattern>, Arc<Chain>)>,
    plugins: Vec<Arc<kms::Provider>>,
    /// Ends what attends to the plugins.
    ended: Shutdown,
}

/// A resource's providers, the first of which encrypts.
struct Chain(Vec<Provider>);

enum Provider {
    Identity,
    Key { prefix: Vec<u8>, cipher: Cipher },
    Kms(Arc<kms::Provider>),
}

/// A value as it came out of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    pub value: Bytes,
    /// It is to be written again with the current key.
    pub stale: bool,
}

impl Encryption {
    /// `None` when nothing is to be encrypted.
    pub async fn start(options: &Options, shutdown: &Shutdown) -> Result<Option<Arc<Encryption>>, StartError> {
        let Some(path) = &options.config_file else { return Ok(None) };
        let rules = Rules::load(path, shutdown)?;
        // The plugins are needed before anything can be read.
        for plugin in &rules.plugins {
            for _ in 0..START_ATTEMPTS {
                if plugin.check().await {
                    break;
                }
                tokio::time::sleep(START_PAUSE).await;
            }
        }
        rules.attend();
        let encryption = Arc::new(Encryption { path: path.clone(), rules: ArcSwap::from_pointee(rules) });
        if options.automatic_reload {
            task::spawn("encryption-reload", encryption.clone().follow_file(shutdown.clone()));
        }
        Ok(Some(encryption))
    }

    /// Whether values under this storage key are encrypted.
    #[cfg(test)]
    pub fn covers(&self, key: &[u8]) -> bool {
        self.rules.load().chain(key).is_some()
    }

    /// What is stored for `value`.
    pub fn seal(&self, key: &[u8], value: Bytes) -> Result<Bytes, EncryptionError> {
        match self.rules.load().chain(key) {
            None => Ok(value),
            Some(chain) => chain.seal(key, value),
        }
    }

    /// What stands behind a stored value. [`Encryption::prepare`] comes first.
    pub fn open(&self, key: &[u8], value: Bytes) -> Result<Opened, EncryptionError> {
        match self.rules.load().chain(key) {
            None => Ok(Opened { value, stale: false }),
            Some(chain) => chain.open(key, value),
        }
    }

    /// Has the KMS plugins decrypt what they are needed for. Nothing to wait for without any. What they refuse stays
    /// closed; that one cannot be reached is an error.
    pub async fn prepare(&self, values: impl Iterator<Item = (&[u8], &[u8])>) -> Result<(), EncryptionError> {
        let rules = self.rules.load_full();
        if rules.plugins.is_empty() {
            return Ok(());
        }
        for (key, value) in values {
            let Some(chain) = rules.chain(key) else { continue };
            for provider in &chain.0 {
                if let Provider::Kms(plugin) = provider
                    && let Some(data) = value.strip_prefix(plugin.prefix.as_slice())
                {
                    plugin.prepare(data).await?;
                }
            }
        }
        Ok(())
    }

    pub fn has_plugins(&self) -> bool {
        !self.rules.load().plugins.is_empty()
    }

    /// What is wrong with the KMS plugins; `None` when there are none.
    pub fn health(&self) -> Option<Vec<String>> {
        let rules = self.rules.load();
        (!rules.plugins.is_empty()).then(|| rules.plugins.iter().filter_map(|plugin| plugin.trouble()).collect())
    }

    async fn follow_file(self: Arc<Self>, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RELOAD_INTERVAL) => {}
            }
            self.reload(&shutdown).await;
        }
    }

    /// Takes over the file if it changed and is sound, and its plugins are well.
    pub(crate) async fn reload(&self, shutdown: &Shutdown) {
        let rules = match Rules::load(&self.path, shutdown) {
            Ok(rules) => rules,
            Err(error) => {
                let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                tracing::error!(%error, source, "the encryption configuration stays as it was");
                return;
            }
        };
        if rules.fingerprint == self.rules.load().fingerprint {
            return;
        }
        for plugin in &rules.plugins {
            if !plugin.check().await {
                tracing::error!(plugin = plugin.name, "the encryption configuration stays as it was");
                return;
            }
        }
        rules.attend();
        self.rules.swap(Arc::new(rules)).ended.cancel();
        tracing::info!("the encryption configuration was read anew");
    }
}

impl Rules {
    fn load(path: &Path, shutdown: &Shutdown) -> Result<Rules, StartError> {
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| StartError::File { path: path.to_owned(), source })?;
        let parsed = Parsed::parse(&text).map_err(|source| StartError::Config { path: path.to_owned(), source })?;
        let mut plugins = Vec::new();
        let mut rules = Vec::new();
        for rule in parsed.rules {
            let mut chain = Vec::new();
            for provider in rule.providers {
                match provider {
                    config::Provider::Identity => chain.push(Provider::Identity),
                    config::Provider::Keys { prefix, keys } => chain.extend(keys.into_iter().map(|(name, cipher)| {
                        Provider::Key { prefix: format!("{prefix}{name}:").into_bytes(), cipher }
                    })),
                    config::Provider::Kms(kms) => {
                        let provider = Arc::new(kms::Provider::new(&kms));
                        plugins.push(provider.clone());
                        chain.push(Provider::Kms(provider));
                    }
                }
            }
            rules.push((rule.resources, Arc::new(Chain(chain))));
        }
        let fingerprint = Sha256::digest(text.as_bytes()).into();
        Ok(Rules { fingerprint, rules, plugins, ended: shutdown.child_token() })
    }

    fn attend(&self) {
        for plugin in &self.plugins {
            task::spawn("kms-plugin", plugin.clone().attend(self.ended.clone()));
        }
    }

    /// The providers of the resource that a storage key belongs to.
    fn chain(&self, key: &[u8]) -> Option<&Arc<Chain>> {
        let (group, plural) = resource_of(key)?;
        let covers = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.covers(group, plural));
        self.rules.iter().find(|(patterns, _)| covers(patterns)).map(|(_, chain)| chain)
    }
}

impl Chain {
    fn seal(&self, key: &[u8], value: Bytes) -> Result<Bytes, EncryptionError> {
        match self.0.first() {
            None => Err(EncryptionError::NoProvider),
            Some(Provider::Identity) => Ok(value),
            Some(Provider::Key { prefix, cipher }) => {
                let mut out = Vec::with_capacity(prefix.len() + value.len() + 96);
                out.extend_from_slice(prefix);
                cipher.seal(&value, key, &mut out).map_err(|_| EncryptionError::Seal)?;
                Ok(out.into())
            }
            Some(Provider::Kms(plugin)) => {
                let mut out = Vec::with_capacity(plugin.prefix.len() + value.len() + 512);
                out.extend_from_slice(&plugin.prefix);
                plugin.seal(&value, key, &mut out)?;
                Ok(out.into())
            }
        }
    }

    fn open(&self, key: &[u8], value: Bytes) -> Result<Opened, EncryptionError> {
        let mut failed = EncryptionError::NoProvider;
        for (index, provider) in self.0.iter().enumerate() {
            let opened = match provider {
                // Plain text passes, what somebody encrypted does not.
                Provider::Identity if value.starts_with(PREFIX.as_bytes()) => continue,
                Provider::Identity => return Ok(Opened { value, stale: index > 0 }),
                Provider::Key { prefix, cipher } => match value.strip_prefix(prefix.as_slice()) {
                    Some(data) => cipher.open(data, key).map(|plain| (plain, false)).map_err(|_| EncryptionError::Open),
                    None => continue,
                },
                Provider::Kms(plugin) => match value.strip_prefix(plugin.prefix.as_slice()) {
                    Some(data) => plugin.open(data, key).unwrap_or(Err(EncryptionError::Open)),
                    None => continue,
                },
            };
            match opened {
                Ok((plain, stale)) => return Ok(Opened { value: plain.into(), stale: stale || index > 0 }),
                // Another provider may have the same prefix and the right key.
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

/// What the client of a request gets that fails for this.
pub fn failure(error: &EncryptionError) -> Failure {
    match error {
        EncryptionError::NotWell { .. } | EncryptionError::Unreachable { .. } => {
            Failure::new(Reason::InternalError, format!("Internal error occurred: {error}"))
        }
        _ => Failure::internal(error),
    }
}

#[cfg(test)]
mod tests;
