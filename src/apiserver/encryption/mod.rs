//! Encryption at rest: what stands between the objects and the store for resources that are to be encrypted.
//!
//! A resource has providers; the first encrypts, all may decrypt, each known by its prefix in front of the data. What
//! was not made by the first provider's first key is stale: its next update writes it anew, even if nothing changed.
//! The watch cache holds encrypted resources as plain bytes of its own; the bytes of all others stay the store's.

mod at_rest;
mod ciphers;
mod config;
mod figures;
mod kms;
mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::{Failure, Reason};
use arc_swap::ArcSwap;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use task::Shutdown;

pub use at_rest::AtRest;
pub use config::ConfigError;

use ciphers::Cipher;
use config::{Parsed, Pattern};
use figures::{Direction, Figures};

use crate::metrics::Text;
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
    figures: Figures,
}

struct Rules {
    fingerprint: [u8; 32],
    rules: Vec<(Vec<Pattern>, Chain)>,
    plugins: Vec<Arc<kms::Provider>>,
    /// Ends what attends to the plugins.
    ended: Shutdown,
}

/// A resource's providers, the first of which encrypts.
struct Chain(Vec<Provider>);

enum Provider {
    Identity,
    Key {
        prefix: Vec<u8>,
        /// The prefix without the key's name.
        kind: &'static str,
        cipher: Cipher,
    },
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
        let figures = Figures::default();
        let encryption = Arc::new(Encryption { path: path.clone(), rules: ArcSwap::from_pointee(rules), figures });
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
            Some((resource, chain)) => chain.seal(resource, key, value, &self.figures),
        }
    }

    /// What stands behind a stored value. [`Encryption::prepare`] comes first.
    pub fn open(&self, key: &[u8], value: Bytes) -> Result<Opened, EncryptionError> {
        match self.rules.load().chain(key) {
            None => Ok(Opened { value, stale: false }),
            Some((resource, chain)) => chain.open(resource, key, value, &self.figures),
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
            let Some((_, chain)) = rules.chain(key) else { continue };
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

    /// For `/metrics`.
    pub fn write_figures(&self, out: &mut Text) {
        self.figures.write(out);
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
                        let whole = format!("{prefix}{name}:").into_bytes();
                        Provider::Key { prefix: whole, kind: prefix, cipher }
                    })),
                    config::Provider::Kms(kms) => {
                        let provider = Arc::new(kms::Provider::new(&kms));
                        plugins.push(provider.clone());
                        chain.push(Provider::Kms(provider));
                    }
                }
            }
            rules.push((rule.resources, Chain(chain)));
        }
        let fingerprint = Sha256::digest(text.as_bytes()).into();
        Ok(Rules { fingerprint, rules, plugins, ended: shutdown.child_token() })
    }

    fn attend(&self) {
        for plugin in &self.plugins {
            task::spawn("kms-plugin", plugin.clone().attend(self.ended.clone()));
        }
    }

    /// The resource that a storage key belongs to, and its providers.
    fn chain<'k>(&self, key: &'k [u8]) -> Option<((&'k str, &'k str), &Chain)> {
        let (group, plural) = resource_of(key)?;
        let covers = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.covers(group, plural));
        let (_, chain) = self.rules.iter().find(|(patterns, _)| covers(patterns))?;
        Some(((group, plural), chain))
    }
}

impl Provider {
    /// What stands in front of what it encrypts; nothing for plain text.
    fn prefix(&self) -> &[u8] {
        match self {
            Provider::Identity => &[],
            Provider::Key { prefix, .. } => prefix,
            Provider::Kms(plugin) => &plugin.prefix,
        }
    }

    /// The prefix as it is counted: keys are not told apart.
    fn label(&self) -> &str {
        match self {
            Provider::Identity => "",
            Provider::Key { kind, .. } => kind,
            Provider::Kms(plugin) => std::str::from_utf8(&plugin.prefix).unwrap_or_default(),
        }
    }

    fn seal(&self, key: &[u8], value: Bytes) -> Result<Bytes, EncryptionError> {
        /// What ciphers and plugins add at most, to make room for at once.
        const CIPHER_ADDS: usize = 96;
        const PLUGIN_ADDS: usize = 512;
        let room = |adds: usize| {
            let mut out = Vec::with_capacity(self.prefix().len() + value.len() + adds);
            out.extend_from_slice(self.prefix());
            out
        };
        match self {
            Provider::Identity => Ok(value),
            Provider::Key { cipher, .. } => {
                let mut out = room(CIPHER_ADDS);
                cipher.seal(&value, key, &mut out).map_err(|_| EncryptionError::Seal)?;
                Ok(out.into())
            }
            Provider::Kms(plugin) => {
                let mut out = room(PLUGIN_ADDS);
                plugin.seal(&value, key, &mut out)?;
                Ok(out.into())
            }
        }
    }

    /// The value behind the prefix; `None` if it is not this provider's.
    fn open(&self, key: &[u8], value: &Bytes) -> Option<Result<Opened, EncryptionError>> {
        let data = value.strip_prefix(self.prefix())?;
        let plain = |(plain, stale): (Vec<u8>, bool)| Opened { value: plain.into(), stale };
        match self {
            // Plain text passes, what somebody encrypted does not.
            Provider::Identity if data.starts_with(PREFIX.as_bytes()) => None,
            Provider::Identity => Some(Ok(Opened { value: value.clone(), stale: false })),
            Provider::Key { cipher, .. } => {
                let opened = cipher.open(data, key).map_err(|_| EncryptionError::Open);
                Some(opened.map(|opened| plain((opened, false))))
            }
            Provider::Kms(plugin) => Some(plugin.open(data, key).unwrap_or(Err(EncryptionError::Open)).map(plain)),
        }
    }
}

impl Chain {
    fn seal(
        &self,
        resource: (&str, &str),
        key: &[u8],
        value: Bytes,
        figures: &Figures,
    ) -> Result<Bytes, EncryptionError> {
        let provider = self.0.first().ok_or(EncryptionError::NoProvider)?;
        let began = Instant::now();
        let sealed = provider.seal(key, value);
        figures.count(resource, Direction::ToStorage, provider.label(), began, &sealed);
        sealed
    }

    fn open(
        &self,
        resource: (&str, &str),
        key: &[u8],
        value: Bytes,
        figures: &Figures,
    ) -> Result<Opened, EncryptionError> {
        let began = Instant::now();
        let mut prefix = "unknown";
        let mut outcome = Err(EncryptionError::NoProvider);
        for (index, provider) in self.0.iter().enumerate() {
            let Some(opened) = provider.open(key, &value) else { continue };
            prefix = provider.label();
            outcome = opened.map(|opened| Opened { stale: opened.stale || index > 0, ..opened });
            // Another provider may have the same prefix and the right key.
            if outcome.is_ok() {
                break;
            }
        }
        figures.count(resource, Direction::FromStorage, prefix, began, &outcome);
        outcome
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
