//! Every namespace has a ServiceAccount `default`, and a ConfigMap with the cluster's CA for the pods to trust.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Failure, Informer, Key, Patch, Queue, Scope};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::json;
use task::Shutdown;

const CA_CONFIG_MAP: &str = "kube-root-ca.crt";
const CA_KEY: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";

struct Accounts {
    client: Client,
    /// Publishes the CA as another identity, as upstream's two controllers do.
    publisher: Client,
    namespaces: Arc<Informer<Namespace>>,
    accounts: Arc<Informer<ServiceAccount>>,
    maps: Arc<Informer<ConfigMap>>,
    ca_pem: String,
}

/// `ca_pem` is the bundle that pods verify the API server with.
pub async fn run(client: Client, publisher: Client, ca_pem: String, shutdown: Shutdown) -> Result<(), Failure> {
    let controller = Arc::new(Accounts {
        namespaces: client.informer(Scope::all()),
        accounts: client.informer(Scope::fields("metadata.name=default")),
        maps: client.informer(Scope::fields(format!("metadata.name={CA_CONFIG_MAP}"))),
        client,
        publisher,
        ca_pem,
    });
    controller.namespaces.synced().await;
    controller.accounts.synced().await;
    controller.maps.synced().await;
    let queue = Queue::new();
    let reconciler = controller.clone();
    client::run_workers("serviceaccount", queue.clone(), 2, shutdown.clone(), move |namespace: String| {
        let controller = reconciler.clone();
        async move { controller.reconcile(&namespace).await }
    });
    let mut namespaces = controller.namespaces.subscribe();
    let mut accounts = controller.accounts.subscribe();
    let mut maps = controller.maps.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            change = namespaces.next() => queue.add(change.key.name),
            change = accounts.next() => queue.add(change.key.namespace),
            change = maps.next() => queue.add(change.key.namespace),
        }
    }
}

impl Accounts {
    async fn reconcile(&self, namespace: &str) -> Result<Option<Duration>, Failure> {
        let living = self.namespaces.get("", namespace).is_some_and(|one| one.metadata.deletion_timestamp.is_none());
        if !living {
            return Ok(None);
        }
        let meta = |name: &str| ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        };
        if self.accounts.get_key(&Key::new(namespace, "default")).is_none() {
            let account = ServiceAccount { metadata: meta("default"), ..ServiceAccount::default() };
            there_is_fine(self.client.create(&account).await)?;
        }
        let data = BTreeMap::from([(CA_KEY.to_owned(), self.ca_pem.clone())]);
        match self.maps.get_key(&Key::new(namespace, CA_CONFIG_MAP)) {
            None => {
                let mut metadata = meta(CA_CONFIG_MAP);
                let description = "Contains a CA bundle that can be used to verify the kube-apiserver when using \
                                   internal endpoints such as the internal service IP or kubernetes.default.svc.";
                metadata.annotations = Some(BTreeMap::from([(DESCRIPTION.to_owned(), description.to_owned())]));
                let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
                there_is_fine(self.publisher.create(&map).await)?;
            }
            Some(map) if map.data.as_ref() != Some(&data) => {
                let patch = json!([{"op": "add", "path": "/data", "value": data}]);
                self.publisher.patch::<ConfigMap>(namespace, CA_CONFIG_MAP, Patch::Json(patch)).await?;
            }
            Some(_) => {}
        }
        Ok(None)
    }
}

/// Somebody else may have been faster, and the namespace may have begun to go.
fn there_is_fine<T>(outcome: Result<T, Failure>) -> Result<(), Failure> {
    match outcome {
        Err(failure) if failure.is_already_exists() => Ok(()),
        outcome => outcome.map(drop),
    }
}
