//! Keeps APIServices: those of this server there and correct, all of them with their condition `Available`, and what
//! aggregated servers offer at hand.
//!
//! Level-triggered: whatever wakes it, it looks at everything. Without aggregated servers it sleeps until an APIService
//! or a CustomResourceDefinition changes, unless a write failed; with them it asks again every half minute, as upstream
//! does, for a network may fail without anybody's notice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::{Call, Failure, PatchKind, Resource, Verb};
use futures::future::join_all;
use serde_json::{Value, json};

use super::availability::{self, Finding};
use super::front_proxy;
use super::registration::{self, Progress, Step};
use super::{GROUP, PREFIX, Registered, Table};
use crate::cache::{Follower, ResourceCache, TooOld};
use crate::identity::Identity;
use crate::server::ApiServer;

/// Aggregated servers are asked again after this long.
const RECHECK: Duration = Duration::from_secs(30);
/// Changes that come together are looked at together.
const GATHER: Duration = Duration::from_millis(50);
/// Custom resources are served a moment after their definition changed.
const SETTLE: Duration = Duration::from_secs(1);

/// The controller fell behind and begins anew.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    #[error("changes came faster than they were followed, from revision {}", .0.complete_after)]
    TooOld(TooOld),
    #[error("there is no resource {0}")]
    Missing(&'static str),
}

struct Controller {
    server: ApiServer,
    user: Identity,
    progress: Progress,
    /// The ConfigMap is as it should be.
    published: bool,
}

/// Runs as long as the server.
pub async fn run(server: ApiServer) -> Result<(), Ended> {
    let resource = |prefix: &'static str| server.cache().resource(prefix.as_bytes()).ok_or(Ended::Missing(prefix));
    let follow = |resource: Arc<ResourceCache>| resource.snapshot_and_follow(None, server.cache().revision()).1;
    let services = server.cache().resource(PREFIX).ok_or(Ended::Missing(GROUP))?;
    let mut registered = follow(services.clone());
    let mut definitions = follow(resource("/registry/apiextensions.k8s.io/customresourcedefinitions/")?);
    // Only of interest where there are aggregated servers: there are many, and they change often.
    let mut behind: Option<[Follower; 2]> = None;
    let mut controller = Controller {
        progress: Progress::new(&objects(&services)),
        user: Identity::master("system:apiserver"),
        published: false,
        server: server.clone(),
    };
    loop {
        let table = server.aggregator().table();
        if table.remote.is_empty() {
            behind = None;
        } else if behind.is_none() {
            behind =
                Some([follow(resource("/registry/services/specs/")?), follow(resource("/registry/endpointslices/")?)]);
        }
        let complete = controller.reconcile(&services).await;
        let places: BTreeSet<(String, String)> = places(&server.aggregator().table());
        tokio::select! {
            changes = registered.next() => { changes.map_err(Ended::TooOld)?; }
            changes = definitions.next() => {
                changes.map_err(Ended::TooOld)?;
                tokio::time::sleep(SETTLE).await;
            }
            moved = moved(&mut behind, &places) => moved.map_err(Ended::TooOld)?,
            () = tokio::time::sleep(RECHECK), if !complete || !places.is_empty() => {}
        }
        tokio::time::sleep(GATHER).await;
        registered.ready().map_err(Ended::TooOld)?;
        definitions.ready().map_err(Ended::TooOld)?;
    }
}

/// The Services behind which aggregated servers are.
fn places(table: &Table) -> BTreeSet<(String, String)> {
    let remotes = table.remote.values().filter_map(|one| one.remote.as_ref());
    remotes.map(|remote| (remote.namespace.clone(), remote.service.clone())).collect()
}

/// Waits until one of the Services or its endpoints changes.
async fn moved(behind: &mut Option<[Follower; 2]>, places: &BTreeSet<(String, String)>) -> Result<(), TooOld> {
    let Some([services, slices]) = behind else { return std::future::pending().await };
    loop {
        let changes = tokio::select! {
            changes = services.next() => changes?,
            changes = slices.next() => changes?,
        };
        let concerns = changes.iter().any(|change| {
            let (namespace, name) = (change.object.namespace(), change.object.name());
            // An EndpointSlice's name begins with its Service's.
            places.iter().any(|(of, service)| of == namespace && name.starts_with(service.as_str()))
        });
        if concerns {
            return Ok(());
        }
    }
}

fn objects(services: &ResourceCache) -> Vec<Value> {
    services.objects(None).iter().filter_map(|stored| stored.decode().ok()).collect()
}

impl Controller {
    /// The ConfigMap from which aggregated servers learn whom to believe; true once it is there.
    async fn publish(&self) -> bool {
        let config = self.server.config();
        let proxy = config.authentication.request_header.as_ref();
        let authorities = match proxy.map(|proxy| std::fs::read_to_string(&proxy.client_ca_file)) {
            None => String::new(),
            Some(Ok(authorities)) => authorities,
            Some(Err(error)) => {
                tracing::warn!(%error, "the authorities of the proxy in front cannot be read");
                return false;
            }
        };
        let wanted = front_proxy::published(config, &authorities);
        let mut call = Call::new(Verb::Create, Resource::new("", "v1", "configmaps"));
        call.namespace = Some("kube-system".to_owned());
        call.options.field_manager = Some("kube-apiserver".to_owned());
        let name = "extension-apiserver-authentication";
        let maps = self.server.cache().resource(b"/registry/configmaps/");
        let current = maps.and_then(|maps| maps.get(&format!("kube-system/{name}")));
        match current.and_then(|stored| stored.decode().ok()) {
            None => call.body = Some(wanted),
            Some(current) => {
                let Some(patch) = front_proxy::outdated(&current, &wanted) else { return true };
                (call.verb, call.name, call.body) = (Verb::Patch, Some(name.to_owned()), Some(patch));
                call.options.patch = Some(PatchKind::Merge);
            }
        }
        !failed(self.server.call(&self.user, call).await.err(), name)
    }

    /// True if everything is as it should be, as far as this server can do something about it.
    async fn reconcile(&mut self, services: &ResourceCache) -> bool {
        if !self.published {
            self.published = self.publish().await;
        }
        let registered = self.register(services).await;
        let table = self.server.aggregator().table();
        let checked = table.all.iter().map(|one| async { (one.clone(), self.find(one).await) });
        let findings: Vec<(Arc<Registered>, Finding)> = join_all(checked).await;
        // What is called available is offered already.
        self.server.aggregator().documents().refresh(&self.server, &findings).await;
        let now = api::meta::time(self.server.now());
        let current: BTreeMap<String, Value> = objects(services)
            .into_iter()
            .filter_map(|object| Some((object["metadata"]["name"].as_str()?.to_owned(), object)))
            .collect();
        let writes = findings.iter().filter_map(|(one, finding)| {
            let object = current.get(&one.name)?;
            Some((one, availability::with_condition(object, finding, &now)?))
        });
        let written = join_all(writes.map(|(one, object)| self.write_status(&one.name, object))).await;
        self.published && registered && written.into_iter().all(|done| done)
    }

    async fn find(&self, registered: &Registered) -> Finding {
        match &registered.remote {
            Some(remote) => availability::check(&self.server, registered, remote).await,
            None => Finding::local(),
        }
    }

    async fn register(&mut self, services: &ResourceCache) -> bool {
        let served: BTreeSet<(String, String)> = self
            .server
            .rows()
            .iter()
            .map(|row| (row.resource.group.to_string(), row.resource.version.to_string()))
            .collect();
        let wanted: BTreeMap<String, Value> = served
            .iter()
            .filter_map(|(group, version)| Some((format!("{version}.{group}"), registration::wanted(group, version)?)))
            .collect();
        let steps = registration::plan(&wanted, &objects(services), &self.progress);
        let failed: BTreeSet<String> =
            join_all(steps.into_iter().map(|step| self.take(step))).await.into_iter().flatten().collect();
        for name in wanted.keys().filter(|name| !failed.contains(*name)) {
            self.progress.done(name);
        }
        let made = wanted.into_keys().filter(|name| !failed.contains(name)).collect();
        if let Err(failure) = self.server.cache().reach(self.server.store().revision()).await {
            tracing::debug!(%failure, "the cache lags");
        }
        self.server.aggregator().made(made);
        failed.is_empty()
    }

    /// Takes a step; the name of the object if that failed.
    async fn take(&self, step: Step) -> Option<String> {
        let named = |object: &Value| object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let (verb, name, body) = match step {
            Step::Create(object) => (Verb::Create, named(&object), object),
            Step::Update(object) => (Verb::Update, named(&object), object),
            Step::Delete { name, uid } => (Verb::Delete, name, json!({"preconditions": {"uid": uid}})),
        };
        let mut call = call(verb, body);
        call.name = (verb != Verb::Create).then(|| name.clone());
        let written = self.server.call(&self.user, call).await;
        failed(written.err(), &name).then_some(name)
    }

    async fn write_status(&self, name: &str, object: Value) -> bool {
        let mut call = call(Verb::Update, object);
        (call.name, call.subresource) = (Some(name.to_owned()), Some("status".into()));
        !failed(self.server.call(&self.user, call).await.err(), name)
    }
}

/// Who was faster is no failure: their write wakes this controller again.
fn failed(failure: Option<Failure>, name: &str) -> bool {
    let failure = failure.filter(|one| !one.is_conflict() && !one.is_not_found() && !one.is_already_exists());
    if let Some(failure) = &failure {
        tracing::warn!(name, %failure, "an object of the aggregator cannot be written");
    }
    failure.is_some()
}

fn call(verb: Verb, body: Value) -> Call {
    let mut call = Call::new(verb, Resource::new(GROUP, "v1", "apiservices"));
    call.body = Some(body);
    call.options.field_manager = Some("kube-apiserver".to_owned());
    call
}
