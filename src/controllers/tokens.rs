//! Secrets of type `kubernetes.io/service-account-token` get a token for the ServiceAccount that they name, and go when
//! it goes (upstream: the tokens controller).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, DeleteOptions, Failure, Informer, Key, Queue, Scope};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use task::Shutdown;

use crate::shared::owned::{gone_is_fine, uid};

const TYPE: &str = "kubernetes.io/service-account-token";
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// Signs tokens that last as long as their Secret.
pub trait TokenSigner: Send + Sync {
    /// The error is a text for the log.
    fn sign(&self, namespace: &str, account: &str, account_uid: &str, secret: &str) -> Result<String, String>;
}

struct Tokens {
    client: Client,
    secrets: Arc<Informer<Secret>>,
    signer: Arc<dyn TokenSigner>,
    ca_pem: String,
}

/// What has to be done about a Secret.
#[derive(Debug, PartialEq)]
enum Plan {
    Nothing,
    /// Its ServiceAccount is not there, or is another one by now.
    Delete,
    /// What it should be; the token is to be signed where there is none.
    Fill {
        secret: Box<Secret>,
        token: bool,
    },
}

pub async fn run(
    client: Client,
    signer: Arc<dyn TokenSigner>,
    ca_pem: String,
    shutdown: Shutdown,
) -> Result<(), Failure> {
    let secrets: Arc<Informer<Secret>> = client.informer(Scope::fields(format!("type={TYPE}")));
    let accounts: Arc<Informer<ServiceAccount>> = client.informer(Scope::all());
    secrets.synced().await;
    accounts.synced().await;
    let controller = Arc::new(Tokens { client, secrets: secrets.clone(), signer, ca_pem });
    let queue = Queue::new();
    let reconciler = controller.clone();
    client::run_workers("tokens", queue.clone(), 2, shutdown.clone(), move |key: Key| {
        let controller = reconciler.clone();
        async move { controller.reconcile(&key).await }
    });
    let (mut changed_secrets, mut changed_accounts) = (secrets.subscribe(), accounts.subscribe());
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = changed_secrets.next() => {
                if let (Some(old), None) = (&change.old, &change.new) {
                    controller.forget(old).await?;
                }
                queue.add(change.key);
            }
            change = changed_accounts.next() => {
                let name = Some(change.key.name.as_str());
                for secret in secrets.list_in(&change.key.namespace) {
                    if annotation(&secret, ACCOUNT_NAME) == name {
                        queue.add(Key::of(secret.as_ref()));
                    }
                }
            }
        }
    }
}

impl Tokens {
    async fn reconcile(&self, key: &Key) -> Result<Option<Duration>, Failure> {
        let Some(secret) = self.secrets.get_key(key) else { return Ok(None) };
        let Some(name) = annotation(&secret, ACCOUNT_NAME).filter(|name| !name.is_empty()) else { return Ok(None) };
        // Asked for and not looked up: nothing is deleted for a cache that is behind.
        let account = self.client.find::<ServiceAccount>(&key.namespace, name).await?;
        match plan(&secret, account.as_ref(), &self.ca_pem) {
            Plan::Nothing => {}
            Plan::Delete => {
                let uid = secret.metadata.uid.clone();
                let options = DeleteOptions { uid, ..DeleteOptions::default() };
                gone_is_fine(self.client.delete::<Secret>(&key.namespace, &key.name, options).await)?;
            }
            Plan::Fill { mut secret, token } => {
                if token {
                    let uid = annotation(&secret, ACCOUNT_UID).unwrap_or_default();
                    let signed = self.signer.sign(&key.namespace, name, uid, &key.name).map_err(Failure::internal)?;
                    let data = secret.data.get_or_insert_default();
                    data.insert("token".to_owned(), ByteString(signed.into_bytes()));
                }
                gone_is_fine(self.client.update(secret.as_ref()).await)?;
            }
        }
        Ok(None)
    }

    /// A ServiceAccount names no Secret that is gone.
    async fn forget(&self, secret: &Secret) -> Result<(), Failure> {
        let Some(name) = annotation(secret, ACCOUNT_NAME) else { return Ok(()) };
        let namespace = secret.metadata.namespace.as_deref().unwrap_or_default();
        let Some(mut account) = self.client.find::<ServiceAccount>(namespace, name).await? else { return Ok(()) };
        let same = annotation(secret, ACCOUNT_UID).is_none_or(|wanted| wanted == uid(&account.metadata));
        let Some(named) = account.secrets.as_mut().filter(|_| same) else { return Ok(()) };
        let before = named.len();
        named.retain(|reference| reference.name != secret.metadata.name);
        if named.len() == before {
            return Ok(());
        }
        match self.client.update(&account).await {
            // Whoever changed it meanwhile wakes us again, or has taken it out.
            Err(failure) if failure.is_conflict() => Ok(()),
            outcome => gone_is_fine(outcome),
        }
    }
}

fn plan(secret: &Secret, account: Option<&ServiceAccount>, ca_pem: &str) -> Plan {
    let Some(account) = account else { return Plan::Delete };
    let account_uid = uid(&account.metadata);
    if annotation(secret, ACCOUNT_UID).is_some_and(|named| named != account_uid) {
        return Plan::Delete;
    }
    let data = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
    let missing = |key: &str| data(key).is_none_or(<[u8]>::is_empty);
    let stale_ca = data("ca.crt") != Some(ca_pem.as_bytes());
    let token = missing("token");
    if !stale_ca && !missing("namespace") && !token {
        return Plan::Nothing;
    }
    let mut secret = secret.clone();
    let named =
        [(ACCOUNT_NAME, account.metadata.name.clone().unwrap_or_default()), (ACCOUNT_UID, account_uid.to_owned())];
    let annotations: &mut BTreeMap<String, String> = secret.metadata.annotations.get_or_insert_default();
    annotations.extend(named.map(|(key, value)| (key.to_owned(), value)));
    let namespace = secret.metadata.namespace.clone().unwrap_or_default();
    let data = secret.data.get_or_insert_default();
    data.insert("ca.crt".to_owned(), ByteString(ca_pem.as_bytes().to_vec()));
    if data.get("namespace").is_none_or(|bytes| bytes.0.is_empty()) {
        data.insert("namespace".to_owned(), ByteString(namespace.into_bytes()));
    }
    Plan::Fill { secret: Box::new(secret), token }
}

fn annotation<'a>(secret: &'a Secret, key: &str) -> Option<&'a str> {
    secret.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn secret(annotations: Value, data: Value) -> Secret {
        let metadata = json!({"name": "robot-token", "namespace": "shop", "annotations": annotations});
        serde_json::from_value(json!({"metadata": metadata, "type": TYPE, "data": data})).unwrap()
    }

    fn account(uid: &str) -> ServiceAccount {
        serde_json::from_value(json!({"metadata": {"name": "robot", "namespace": "shop", "uid": uid}})).unwrap()
    }

    #[test]
    fn a_secret_is_filled_once_and_goes_with_its_account() {
        let empty = secret(json!({ACCOUNT_NAME: "robot"}), json!({}));
        assert_eq!(plan(&empty, None, "CA"), Plan::Delete);
        let Plan::Fill { secret: mut filled, token: true } = plan(&empty, Some(&account("1")), "CA") else {
            panic!("it is filled")
        };
        assert_eq!(annotation(&filled, ACCOUNT_UID), Some("1"));
        let text =
            |secret: &Secret, key: &str| String::from_utf8(secret.data.as_ref().unwrap()[key].0.clone()).unwrap();
        assert_eq!((text(&filled, "ca.crt"), text(&filled, "namespace")), ("CA".to_owned(), "shop".to_owned()));
        filled.data.as_mut().unwrap().insert("token".into(), ByteString(b"t".to_vec()));
        assert_eq!(plan(&filled, Some(&account("1")), "CA"), Plan::Nothing);
        assert_eq!(plan(&filled, Some(&account("2")), "CA"), Plan::Delete, "another account of the same name");
        let Plan::Fill { token, .. } = plan(&filled, Some(&account("1")), "new CA") else { panic!("the CA is new") };
        assert!(!token, "the token stays");
    }
}
