//! ConfigMaps, Secrets and tokens for volumes: read, watched while a pod refers to them, renewed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use client::{Changes, Client, Failure, Informer, Scope};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount, ServiceAccountTokenProjection, Volume};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::json;

use super::VolumeCause;
use crate::objects::PodExt;

/// How long a volume waits for an object's first listing before it is tried again.
const SYNC_SECONDS_MAX: u64 = 30;
const TOKEN_SECONDS_DEFAULT: i64 = 3600;
/// A token is renewed at this part of its life, and at the latest after a day.
const RENEW_PERCENT: i64 = 80;
const RENEW_SECONDS_MAX: i64 = 24 * 3600;

/// The objects that a pod's volumes refer to. They are watched as long as this lives; pods that refer to the same
/// object share the watch.
#[derive(Clone, Default)]
pub struct Watched {
    config_maps: BTreeMap<String, Arc<Informer<ConfigMap>>>,
    secrets: BTreeMap<String, Arc<Informer<Secret>>>,
}

impl Watched {
    pub fn of(pod: &Pod, client: &Client) -> Watched {
        let (mut maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
        for volume in pod.spec().volumes.iter().flatten() {
            references(volume, &mut maps, &mut secrets);
        }
        let one = |name: &str| Scope::one(pod.ns(), name);
        Watched {
            config_maps: maps.into_iter().map(|name| (name.to_owned(), client.informer(one(name)))).collect(),
            secrets: secrets.into_iter().map(|name| (name.to_owned(), client.informer(one(name)))).collect(),
        }
    }

    /// Yields at each change of any of them, beginning with what is there.
    pub fn changes(&self) -> (Vec<Changes<ConfigMap>>, Vec<Changes<Secret>>) {
        let maps = self.config_maps.values().map(|informer| informer.subscribe()).collect();
        (maps, self.secrets.values().map(|informer| informer.subscribe()).collect())
    }

    pub async fn config_map(
        &self,
        client: &Client,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<ConfigMap>>, VolumeCause> {
        look_up(self.config_maps.get(name), client, namespace, name).await
    }

    pub async fn secret(
        &self,
        client: &Client,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Secret>>, VolumeCause> {
        look_up(self.secrets.get(name), client, namespace, name).await
    }
}

async fn look_up<T: client::Object>(
    informer: Option<&Arc<Informer<T>>>,
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<Arc<T>>, VolumeCause> {
    if let Some(informer) = informer {
        tokio::time::timeout(Duration::from_secs(SYNC_SECONDS_MAX), informer.synced())
            .await
            .map_err(|_| VolumeCause::Unreachable(SYNC_SECONDS_MAX))?;
        if let Some(object) = informer.get(namespace, name) {
            return Ok(Some(object));
        }
    }
    // A shared watch may lag behind an object that was made just before the pod.
    Ok(client.find::<T>(namespace, name).await?.map(Arc::new))
}

fn references<'a>(volume: &'a Volume, maps: &mut BTreeSet<&'a str>, secrets: &mut BTreeSet<&'a str>) {
    maps.extend(volume.config_map.as_ref().map(|source| source.name.as_str()));
    secrets.extend(volume.secret.as_ref().and_then(|source| source.secret_name.as_deref()));
    let projected = volume.projected.iter().flat_map(|source| source.sources.iter().flatten());
    for source in projected {
        maps.extend(source.config_map.as_ref().map(|source| source.name.as_str()));
        secrets.extend(source.secret.as_ref().map(|source| source.name.as_str()));
    }
}

#[derive(Clone)]
pub struct Token {
    pub value: String,
    pub refresh_at: Timestamp,
}

/// The tokens of one pod. They live in memory and in the pod's tmpfs only.
#[derive(Clone, Default)]
pub struct Tokens {
    known: Arc<Mutex<BTreeMap<(String, i64), Token>>>,
}

impl Tokens {
    /// The token for an audience, requested anew when it is due. A renewal that fails leaves the old one in use.
    pub async fn get(
        &self,
        client: &Client,
        pod: &Pod,
        source: &ServiceAccountTokenProjection,
        now: Timestamp,
    ) -> Result<Token, Failure> {
        let seconds = source.expiration_seconds.unwrap_or(TOKEN_SECONDS_DEFAULT);
        let audience = source.audience.clone().unwrap_or_default();
        let key = (audience.clone(), seconds);
        let known = self.known.lock().get(&key).cloned();
        if let Some(token) = known.as_ref().filter(|token| token.refresh_at > now) {
            return Ok(token.clone());
        }
        let audiences: Vec<&str> = if audience.is_empty() { vec![] } else { vec![&audience] };
        let body = json!({
            "kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "metadata": {},
            "spec": {
                "audiences": audiences,
                "expirationSeconds": seconds,
                "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": pod.name(), "uid": pod.uid()},
            },
        });
        let account = pod.spec().service_account_name.as_deref().filter(|name| !name.is_empty()).unwrap_or("default");
        let answer = client.create_subresource::<ServiceAccount, TokenRequest>(pod.ns(), account, "token", body).await;
        let answer = answer.map(|request| {
            let status = request.status?;
            Some((status.token?, status.expiration_timestamp?.0))
        });
        let (value, expires_at) = match answer {
            Ok(Some(token)) => token,
            Ok(None) => return Err(Failure::internal("the token request was answered without a token")),
            Err(failure) => match known {
                Some(mut token) => {
                    tracing::warn!(pod = %pod.full(), %failure, "service account token not renewed; it is tried again");
                    token.refresh_at = now.checked_add(SignedDuration::from_secs(10)).unwrap_or(now);
                    return Ok(token);
                }
                None => return Err(failure),
            },
        };
        let lifetime = expires_at.duration_since(now).as_secs().max(0);
        let renew = (lifetime * RENEW_PERCENT / 100).clamp(1, RENEW_SECONDS_MAX);
        let refresh_at = now.checked_add(SignedDuration::from_secs(renew)).unwrap_or(now);
        let token = Token { value, refresh_at };
        self.known.lock().insert(key, token.clone());
        Ok(token)
    }
}
