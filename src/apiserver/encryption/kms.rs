//! A KMS v2 provider: a seed that the plugin encrypted once, and from which this server derives a key for every value.
//!
//! The plugin is asked for its status once a minute. While it says the same key id, the seed is used on; when it says
//! another, a new seed is made. What the plugin once decrypted for this server is kept, so reading asks it once for
//! every seed. Writes stop when the plugin has not been well for three minutes (upstream's figures).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::RwLock;
use prost::Message;
use sha2::{Digest, Sha256};
use task::Shutdown;
use tokio::time::Instant;
use tonic::Code;

use super::ciphers::{self, Cipher, SEED_BYTES};
use super::config::Kms;
use super::wire::{
    AES_GCM_KEY, DecryptRequest, EncryptedObject, HKDF_SHA256_XNONCE_AES_GCM_SEED, Plugin, StatusResponse,
};
use super::{EncryptionError, PREFIX};

const WELL_INTERVAL: Duration = Duration::from_secs(60);
const UNWELL_INTERVAL: Duration = Duration::from_secs(10);
const WRITE_LIFE: Duration = Duration::from_secs(180);
const KEY_ID_BYTES_MAX: usize = 1024;
const SOURCE_BYTES_MAX: usize = 1024;
const ANNOTATIONS_BYTES_MAX: usize = 32 * 1024;
/// Seeds that are kept decrypted; beyond this all are forgotten and asked for again.
const SEEDS_MAX: usize = 10_000;

pub struct Provider {
    pub name: String,
    pub prefix: Vec<u8>,
    plugin: Plugin,
    current: ArcSwapOption<Current>,
    seeds: RwLock<HashMap<[u8; 32], Arc<Cipher>>>,
    /// What is wrong with the plugin, if anything is.
    trouble: RwLock<Option<String>>,
}

/// What new values are encrypted with.
struct Current {
    cipher: Arc<Cipher>,
    /// Without data.
    envelope: EncryptedObject,
    usable_until: Instant,
}

impl Provider {
    pub fn new(config: &Kms) -> Provider {
        Provider {
            name: config.name.clone(),
            prefix: format!("{PREFIX}kms:v2:{}:", config.name).into_bytes(),
            plugin: Plugin::new(config.socket.clone(), config.timeout),
            current: ArcSwapOption::empty(),
            seeds: RwLock::default(),
            trouble: RwLock::new(Some("it has not been asked yet".to_owned())),
        }
    }

    /// Asks the plugin how it is, again and again.
    pub async fn attend(self: Arc<Self>, shutdown: Shutdown) {
        loop {
            let well = self.check().await;
            let pause = if well { WELL_INTERVAL } else { UNWELL_INTERVAL };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    pub fn trouble(&self) -> Option<String> {
        self.trouble.read().clone()
    }

    /// True when the plugin is well and new values can be encrypted.
    pub async fn check(&self) -> bool {
        let usable_until = Instant::now() + WRITE_LIFE;
        let checked = match self.plugin.status().await {
            Ok(status) => self.renew(&status, usable_until).await,
            Err(status) => {
                let name = &self.name;
                Err(format!(
                    "failed to perform status section of the healthz check for KMS Provider {name}, error: {status}"
                ))
            }
        };
        let well = checked.is_ok();
        let mut trouble = self.trouble.write();
        if let Err(why) = &checked
            && trouble.as_ref() != Some(why)
        {
            tracing::error!(provider = self.name, why, "a KMS plugin is not well");
        }
        *trouble = checked.err();
        well
    }

    async fn renew(&self, status: &StatusResponse, usable_until: Instant) -> Result<(), String> {
        let name = &self.name;
        if status.healthz != "ok" {
            let healthz = &status.healthz;
            return Err(format!(
                "kmsv2 Provider {name} is not healthy, error: got unexpected healthz status: {healthz}"
            ));
        }
        if !matches!(status.version.as_str(), "v2" | "v2beta1") {
            let version = &status.version;
            return Err(format!(
                "kmsv2 Provider {name} is not healthy, error: expected KMSv2 API version v2, got {version}"
            ));
        }
        if let Some(current) = self.current.load_full().filter(|current| current.envelope.key_id == status.key_id) {
            let (cipher, envelope) = (current.cipher.clone(), current.envelope.clone());
            self.current.store(Some(Arc::new(Current { cipher, envelope, usable_until })));
            return Ok(());
        }
        let failed = |why: &dyn std::fmt::Display| format!("failed to rotate DEK of KMS Provider {name}: {why}");
        let seed: [u8; SEED_BYTES] = ciphers::random().map_err(|error| failed(&error))?;
        let cipher = Arc::new(Cipher::derived(&seed).ok_or_else(|| failed(&"the seed is of no use"))?);
        let answer = self.plugin.encrypt(seed.to_vec(), uid()).await.map_err(|status| failed(&status))?;
        let envelope = EncryptedObject {
            encrypted_data: Vec::new(),
            key_id: answer.key_id,
            encrypted_dek_source: answer.ciphertext,
            annotations: answer.annotations.into_iter().collect(),
            encrypted_dek_source_type: HKDF_SHA256_XNONCE_AES_GCM_SEED,
        };
        check(&envelope).map_err(|why| failed(&why))?;
        if envelope.key_id != status.key_id {
            return Err(failed(&"it encrypts with another key than its status says"));
        }
        self.keep(fingerprint(&envelope), cipher.clone());
        tracing::info!(provider = self.name, "new values are encrypted with a new seed");
        self.current.store(Some(Arc::new(Current { cipher, envelope, usable_until })));
        Ok(())
    }

    /// Appends what is stored behind the prefix.
    pub fn seal(&self, plain: &[u8], place: &[u8], out: &mut Vec<u8>) -> Result<(), EncryptionError> {
        let current = self.current.load();
        let current = current.as_ref().filter(|current| Instant::now() <= current.usable_until);
        let current = current.ok_or_else(|| EncryptionError::NotWell { provider: self.name.clone() })?;
        let mut data = Vec::with_capacity(plain.len() + 64);
        current.cipher.seal(plain, place, &mut data).map_err(|_| EncryptionError::Seal)?;
        let object = EncryptedObject { encrypted_data: data, ..current.envelope.clone() };
        object.encode(out).map_err(|_| EncryptionError::Seal)
    }

    /// `None` when the plugin has to be asked first, which [`Provider::prepare`] does. True with a value that is to be
    /// written again with the current key.
    pub fn open(&self, data: &[u8], place: &[u8]) -> Option<Result<(Vec<u8>, bool), EncryptionError>> {
        let object = match decoded(data) {
            Ok(object) => object,
            Err(error) => return Some(Err(error)),
        };
        let cipher = self.seeds.read().get(&fingerprint(&object)).cloned()?;
        let current = self.current.load();
        let stale = current.as_ref().is_some_and(|current| {
            current.envelope.key_id != object.key_id
                || current.envelope.encrypted_dek_source_type != object.encrypted_dek_source_type
        });
        let opened = cipher.open(&object.encrypted_data, place).map_err(|_| EncryptionError::Open);
        Some(opened.map(|plain| (plain, stale)))
    }

    /// Has the plugin decrypt what this value's key is derived from, unless that is known or the plugin refuses.
    pub async fn prepare(&self, data: &[u8]) -> Result<(), EncryptionError> {
        let Ok(object) = decoded(data) else { return Ok(()) };
        let fingerprint = fingerprint(&object);
        if self.seeds.read().contains_key(&fingerprint) {
            return Ok(());
        }
        let request = DecryptRequest {
            ciphertext: object.encrypted_dek_source,
            uid: uid(),
            key_id: object.key_id,
            annotations: object.annotations.into_iter().collect(),
        };
        let source = match self.plugin.decrypt(request).await {
            Ok(answer) => answer.plaintext,
            Err(status) if matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled) => {
                return Err(EncryptionError::Unreachable { why: status.to_string() });
            }
            Err(status) => {
                tracing::error!(provider = self.name, %status, "failed to decrypt DEK");
                return Ok(());
            }
        };
        let cipher = match object.encrypted_dek_source_type {
            HKDF_SHA256_XNONCE_AES_GCM_SEED => Cipher::derived(&source),
            _ => Cipher::gcm(&source),
        };
        if let Some(cipher) = cipher {
            self.keep(fingerprint, Arc::new(cipher));
        }
        Ok(())
    }

    fn keep(&self, fingerprint: [u8; 32], cipher: Arc<Cipher>) {
        let mut seeds = self.seeds.write();
        if seeds.len() >= SEEDS_MAX {
            seeds.clear();
        }
        seeds.insert(fingerprint, cipher);
    }
}

fn decoded(data: &[u8]) -> Result<EncryptedObject, EncryptionError> {
    let object = EncryptedObject::decode(data).map_err(|_| EncryptionError::Open)?;
    check(&object).map_err(|_| EncryptionError::Open)?;
    Ok(object)
}

fn check(object: &EncryptedObject) -> Result<(), &'static str> {
    let annotations: usize = object.annotations.iter().map(|(key, value)| key.len() + value.len()).sum();
    if object.key_id.is_empty() || object.key_id.len() > KEY_ID_BYTES_MAX {
        return Err("the key id is empty or too long");
    }
    if object.encrypted_dek_source.is_empty() || object.encrypted_dek_source.len() > SOURCE_BYTES_MAX {
        return Err("the encrypted DEK source is empty or too long");
    }
    if annotations > ANNOTATIONS_BYTES_MAX {
        return Err("the annotations are too long");
    }
    if !matches!(object.encrypted_dek_source_type, AES_GCM_KEY | HKDF_SHA256_XNONCE_AES_GCM_SEED) {
        return Err("the type of the encrypted DEK source is not known");
    }
    Ok(())
}

/// Stands for an encrypted seed.
fn fingerprint(object: &EncryptedObject) -> [u8; 32] {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    add(&object.encrypted_dek_source_type.to_be_bytes());
    add(&object.encrypted_dek_source);
    add(object.key_id.as_bytes());
    for (key, value) in &object.annotations {
        add(key.as_bytes());
        add(value);
    }
    hash.finalize().into()
}

fn uid() -> String {
    crate::server::uid(&mut rand::rng())
}
