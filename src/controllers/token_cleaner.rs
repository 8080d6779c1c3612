//! Deletes bootstrap tokens when they have expired.

use std::sync::Arc;
use std::time::Duration;

use client::{Client, DeleteOptions, Failure, Informer, Key, Queue, Scope};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use task::Shutdown;

use crate::shared::owned::gone_is_fine;

const WORKERS: usize = 1;
const NAMESPACE: &str = "kube-system";
const TYPE: &str = "bootstrap.kubernetes.io/token";
const EXPIRATION: &str = "expiration";

pub async fn run(client: Client, shutdown: Shutdown) -> Result<(), Failure> {
    let scope = Scope { namespace: Some(NAMESPACE.to_owned()), ..Scope::fields(format!("type={TYPE}")) };
    let secrets: Arc<Informer<Secret>> = client.informer(scope);
    secrets.synced().await;
    let queue = Queue::new();
    let known = secrets.clone();
    client::run_workers("tokencleaner", queue.clone(), WORKERS, shutdown.clone(), move |key: Key| {
        let (client, secrets) = (client.clone(), known.clone());
        async move {
            let Some(secret) = secrets.get_key(&key) else { return Ok(None) };
            match time_left(&secret, Timestamp::now()) {
                Some(left) if left.is_zero() => {}
                left => return Ok(left),
            }
            let options = DeleteOptions { uid: secret.metadata.uid.clone(), ..DeleteOptions::default() };
            match client.delete::<Secret>(&key.namespace, &key.name, options).await {
                // Another token under the same name.
                Err(failure) if failure.is_conflict() => Ok(None),
                outcome => gone_is_fine(outcome).map(|()| None),
            }
        }
    });
    let mut changes = secrets.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = changes.next() => queue.add(change.key),
        }
    }
}

/// How long a token lasts from `now` on; `None` if for ever. One whose end nobody can read has ended.
fn time_left(secret: &Secret, now: Timestamp) -> Option<Duration> {
    let text = secret.data.as_ref()?.get(EXPIRATION).filter(|text| !text.0.is_empty())?;
    let end: Option<Timestamp> = std::str::from_utf8(&text.0).ok().and_then(|text| text.parse().ok());
    let left = end.map(|end| end.duration_since(now));
    Some(left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_ends_when_it_says() {
        let left = |end: Option<&str>| {
            let data = end.map(|end| json!({EXPIRATION: k8s_openapi::ByteString(end.as_bytes().to_vec())}));
            let secret = serde_json::from_value(json!({"data": data})).unwrap();
            time_left(&secret, "2026-01-01T00:00:00Z".parse().unwrap()).map(|left| left.as_secs())
        };
        assert_eq!(left(None), None);
        assert_eq!(left(Some("")), None);
        assert_eq!(left(Some("2026-01-01T01:00:00+00:30")), Some(1800));
        assert_eq!(left(Some("2025-01-01T00:00:00Z")), Some(0));
        assert_eq!(left(Some("soon")), Some(0), "it is taken to be over");
    }
}
