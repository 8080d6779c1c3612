//! The API server: what it is made of, how it starts, and its doors.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use api::{Answer, Call, Failure, Row, Verb, WatchEvent, WatchResult};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use jiff::Timestamp;
use rand::rngs::ThreadRng;
use serde_json::Value;
use store::Store;
use task::Shutdown;
use tokio::net::TcpListener;

use crate::admission::Admission;
use crate::aggregator::Aggregator;
use crate::audit::{self, Audit, Recording};
use crate::authn::{self, Authenticator};
use crate::authz::{Action, Attributes, Authorizer, Selector};
use crate::background;
use crate::bootstrap;
use crate::cache::Cache;
use crate::config::{Config, Error, Limits};
use crate::custom::{self, CustomResources};
use crate::encryption::{AtRest, Encryption};
use crate::endpoints::OpenApi;
use crate::failures;
use crate::flowcontrol::FlowControl;
use crate::http::{respond, serve};
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::node::Kubelets;
use crate::notes::Notes;
use crate::services::Services;
use crate::storage::Storage;
use crate::verbs::{self, Answered, Listed, watch};
use crate::webhook::Caller;

/// The API server. A cheap handle; clones are the same server.
#[derive(Clone)]
pub struct ApiServer(Arc<Inner>);

struct Inner {
    config: Config,
    store: Store,
    storage: Storage,
    cache: Arc<Cache>,
    custom: CustomResources,
    openapi: OpenApi,
    authenticator: Authenticator,
    authorizer: Authorizer,
    admission: Admission,
    services: Services,
    kubelets: Kubelets,
    caller: Arc<Caller>,
    audit: Option<Arc<Audit>>,
    metrics: Arc<Metrics>,
    aggregator: Aggregator,
    flow: FlowControl,
    tls: serve::Tls,
    ready: AtomicBool,
    /// Triggered when the server is told to stop, which it does `shutdown_delay` later.
    announced: OnceLock<Shutdown>,
    shutdown: Shutdown,
}

impl ApiServer {
    /// Fills the watch cache and writes what every cluster has: namespaces, roles, priority classes, the Service
    /// `kubernetes`. Afterwards calls are answered; [`ApiServer::serve`] opens it to others.
    pub async fn start(config: Config, store: Store, shutdown: Shutdown) -> Result<ApiServer, Error> {
        let mut prefixes: Vec<Bytes> = api::rows()
            .iter()
            .filter(|row| row.stored && config.runtime_config.serves(row))
            .map(|row| Bytes::from(row.list_key(None)))
            .collect();
        prefixes.sort();
        prefixes.dedup();
        store.read_index().await?;
        let encryption = Encryption::start(&config.protection.encryption, &shutdown).await?;
        let at_rest = AtRest::new(encryption);
        let cache = Cache::fill(store.clone(), at_rest.clone(), prefixes).await?;
        let metrics = Arc::new(Metrics::new());
        let caller = Arc::new(Caller::new(cache.clone(), &config.git_version));
        let authenticator = Authenticator::new(cache.clone(), &config, &caller, &shutdown)?;
        let server = ApiServer(Arc::new(Inner {
            authenticator,
            authorizer: Authorizer::new(cache.clone(), &config.authorization, caller.clone(), &shutdown)?,
            admission: Admission::new(cache.clone(), &config.admission, &caller)?,
            services: Services::new(&config, &cache)?,
            kubelets: Kubelets::new(&config.kubelet_client)?,
            audit: Audit::start(&config.protection.audit, &caller, &shutdown)?,
            caller,
            aggregator: Aggregator::new(&cache, &config.aggregation, &shutdown)?,
            flow: FlowControl::new(&config.limits),
            tls: serve::Tls::new(&config)?,
            storage: Storage::new(store.clone(), at_rest, metrics.clone()),
            metrics,
            custom: CustomResources::default(),
            openapi: OpenApi::default(),
            ready: AtomicBool::new(false),
            announced: OnceLock::new(),
            shutdown: shutdown.clone(),
            cache,
            store,
            config,
        }));
        background::start(&server, &shutdown);
        custom::start(&server, &shutdown);
        bootstrap::run(&server).await?;
        background::follow_flow_control(&server, &shutdown);
        background::aggregate(&server, &shutdown);
        server.0.ready.store(true, Ordering::Release);
        Ok(server)
    }

    /// Serves HTTPS until `shutdown`.
    pub async fn serve(&self, listener: TcpListener, shutdown: Shutdown) {
        serve::serve(self.clone(), listener, shutdown).await;
    }

    /// Calls are answered from complete data.
    pub fn ready(&self) -> bool {
        self.started() && !self.stops()
    }

    /// From when this token is triggered, the server says that it is not ready, while it goes on until its own token
    /// is (upstream: `--shutdown-delay-duration`).
    pub fn stop_is_announced_by(&self, shutdown: Shutdown) {
        let _ = self.0.announced.set(shutdown);
    }

    /// It stops or is about to.
    pub(crate) fn stops(&self) -> bool {
        self.0.shutdown.is_cancelled() || self.0.announced.get().is_some_and(Shutdown::is_cancelled)
    }

    /// What every cluster has is there. Until then the server writes that by itself, and asks nobody.
    pub(crate) fn started(&self) -> bool {
        self.0.ready.load(Ordering::Acquire)
    }

    /// A call by a component in this process: authorised, admitted and validated as one that came by HTTP. The
    /// answer's bytes carry their resource versions.
    pub async fn call(&self, user: &Identity, call: Call) -> Result<Answer, Failure> {
        if let Some(recording) = self.begin_recording(user, &call, false) {
            let (body, verb) = (call.body.clone(), call.verb);
            let work = self.plain_call(user, call);
            let (code, shown) = (|answer: &Answer| answer.code, |answer: &Answer| answer.body.clone());
            return Box::pin(ApiServer::recorded(recording, body.as_ref(), verb, work, code, shown)).await;
        }
        self.plain_call(user, call).await
    }

    async fn plain_call(&self, user: &Identity, call: Call) -> Result<Answer, Failure> {
        let row = self.row(&call)?;
        self.authorize(user, &call).await?;
        let notes = Notes::default();
        let mut outcome = verbs::execute(self, user, row, call, &notes).await?;
        outcome.warnings.append(&mut notes.take_warnings());
        let body = match outcome.body {
            Answered::Stored(stored) => stored.served(),
            Answered::Value(value) => Bytes::from(value.to_string()),
            Answered::List(list) => respond::whole_list(list),
        };
        Ok(Answer { code: outcome.code, body, warnings: outcome.warnings })
    }

    /// A list by a component in this process: the bytes of the cache, not a copy.
    pub async fn list(&self, user: &Identity, call: Call) -> Result<api::Listed, Failure> {
        let call = Call { verb: Verb::List, ..call };
        let listed = match self.begin_recording(user, &call, false) {
            None => self.plain_list(user, call).await?,
            Some(recording) => {
                let shown = |listed: &Listed| respond::whole_list(listed.clone());
                let work = self.plain_list(user, call);
                Box::pin(ApiServer::recorded(recording, None, Verb::List, work, |_| 200, shown)).await?
            }
        };
        Ok(listed.into_encoded())
    }

    async fn plain_list(&self, user: &Identity, call: Call) -> Result<Listed, Failure> {
        let row = self.row(&call)?;
        self.authorize(user, &call).await?;
        match verbs::execute(self, user, row, call, &Notes::default()).await?.body {
            Answered::List(listed) => Ok(listed),
            Answered::Stored(_) | Answered::Value(_) => Err(Failure::internal("a list was asked for")),
        }
    }

    /// Does a call with what is recorded of it around; `shown` are the bytes of its answer.
    async fn recorded<T>(
        recording: Recording,
        body: Option<&Value>,
        verb: Verb,
        work: impl Future<Output = Result<T, Failure>>,
        code: impl FnOnce(&T) -> u16,
        shown: impl FnOnce(&T) -> Bytes,
    ) -> Result<T, Failure> {
        recording.received().await?;
        if let Some(body) = body {
            recording.request(body, matches!(verb, Verb::Create | Verb::Update));
        }
        let answered = recording.on_the_way(work).await;
        match &answered {
            Ok(answer) => {
                if recording.wants_response() {
                    recording.response(&shown(answer));
                }
                recording.status(code(answer), None);
            }
            Err(failure) => recording.status(failure.code, Some(failure)),
        }
        recording.answered().await;
        answered
    }

    /// `None` when nothing is recorded of this call.
    fn begin_recording(&self, user: &Identity, call: &Call, long_running: bool) -> Option<Recording> {
        let audit = self.audit()?;
        audit.begin(audit::Opening {
            user: Some(user),
            verb: if long_running { Verb::Watch.as_str() } else { call.verb.as_str() },
            call: Some(call),
            path: "",
            audit_id: uid(&mut self.rng()),
            request_uri: audit::uri(call),
            source_ips: vec![std::net::Ipv4Addr::LOCALHOST.to_string()],
            user_agent: call.options.field_manager.as_deref().unwrap_or("cluster"),
            received: self.now(),
            long_running,
        })
    }

    async fn open_watch(&self, user: &Identity, call: Call) -> Result<watch::Watch, Failure> {
        let call = Call { verb: Verb::Watch, ..call };
        let row = self.row(&call)?;
        self.authorize(user, &call).await?;
        watch::open(self, row, call).await
    }

    /// A watch by a component in this process. Every watcher of an event shares the bytes of the cache.
    pub fn watch(&self, user: &Identity, call: Call) -> BoxStream<'static, WatchResult> {
        let recording = self.begin_recording(user, &call, true);
        let (server, user, held) = (self.clone(), user.clone(), recording.clone());
        futures::stream::once(async move {
            if let Some(recording) = &recording {
                recording.received().await?;
            }
            let opened = server.open_watch(&user, call).await;
            if let Some(recording) = &recording {
                match &opened {
                    Ok(_) => recording.status(200, None),
                    Err(failure) => recording.status(failure.code, Some(failure)),
                }
                recording.answered().await;
            }
            opened
        })
        .flat_map(|opened| match opened {
            Ok(watch) => watch
                .into_batches()
                .flat_map(|batch| futures::stream::iter(batch).map(|item| item.into_event()))
                .boxed(),
            Err(failure) => futures::stream::iter([Err::<WatchEvent, Failure>(failure)]).boxed(),
        })
        .inspect(move |_| {
            let _held = &held;
        })
        .boxed()
    }

    /// A token without an end for a Secret of type `kubernetes.io/service-account-token` (upstream: the token
    /// controller's generator). The error is a text for the log.
    pub fn legacy_token(
        &self,
        namespace: &str,
        account: &str,
        account_uid: &str,
        secret: &str,
    ) -> Result<String, String> {
        let keys = self.0.authenticator.tokens().keys();
        let signed = authn::sign_legacy(keys, namespace, account, account_uid, secret);
        signed.map_err(|error| error.to_string())
    }

    /// The row that a call is about.
    pub(crate) fn row(&self, call: &Call) -> Result<Arc<Row>, Failure> {
        let resource = &call.resource;
        let row = self.find_row(&resource.group, &resource.version, &resource.plural);
        let row = row.ok_or_else(failures::no_such_path)?;
        if let Some(name) = &call.subresource {
            let subresource = row.subresource(name).ok_or_else(failures::no_such_path)?;
            // Discovery does not name it, but what is proxied to gets it (see `request::verb`).
            if !subresource.verbs.contains(&call.verb) && call.verb != Verb::Options {
                return Err(failures::no_such_verb());
            }
        } else if !row.has_verb(call.verb) {
            return Err(failures::no_such_verb());
        }
        Ok(row)
    }

    /// A served resource.
    pub(crate) fn find_row(&self, group: &str, version: &str, plural: &str) -> Option<Arc<Row>> {
        match Row::find(group, version, plural).filter(|row| self.config().runtime_config.serves(row)) {
            Some(row) => Some(row.clone()),
            None => self.0.custom.find(group, version, plural),
        }
    }

    /// Everything that is served: built-in kinds by group and name, then custom resources.
    pub(crate) fn rows(&self) -> Vec<Arc<Row>> {
        let built_in = api::rows().iter().filter(|row| self.config().runtime_config.serves(row)).cloned();
        built_in.chain(self.0.custom.rows()).collect()
    }

    pub(crate) fn openapi(&self) -> &OpenApi {
        &self.0.openapi
    }

    pub(crate) fn custom(&self) -> &CustomResources {
        &self.0.custom
    }

    /// A list or watch of one name is allowed to whoever may have the object of that name.
    pub(crate) async fn authorize(&self, user: &Identity, call: &Call) -> Result<(), Failure> {
        self.authorize_verb(user, call, call.verb.as_str()).await
    }

    /// The same for another verb than the call's own.
    pub(crate) async fn authorize_verb(&self, user: &Identity, call: &Call, verb: &str) -> Result<(), Failure> {
        let selected = self.selected_name(call);
        let action = Action::Resource {
            verb,
            group: &call.resource.group,
            resource: &call.resource.plural,
            subresource: call.subresource.as_deref().unwrap_or_default(),
            namespace: namespace_of(call),
            name: call.name.as_deref().or(selected.as_deref()).unwrap_or_default(),
        };
        let selects = matches!(call.verb, Verb::List | Verb::Watch | Verb::DeleteCollection);
        let attributes = Attributes {
            action,
            version: &call.resource.version,
            fields: selector(&call.options.field_selector, selects),
            labels: selector(&call.options.label_selector, selects),
        };
        self.0.authorizer.require(user, &attributes).await
    }

    /// The name that a list's or watch's field selector demands.
    pub(crate) fn selected_name(&self, call: &Call) -> Option<String> {
        if !matches!(call.verb, Verb::List | Verb::Watch) {
            return None;
        }
        let text = call.options.field_selector.as_deref()?;
        let row = self.find_row(&call.resource.group, &call.resource.version, &call.resource.plural)?;
        let selector = api::FieldSelector::parse(text, &row).ok()?;
        selector.requires("metadata.name").map(str::to_owned)
    }

    pub(crate) fn config(&self) -> &Config {
        &self.0.config
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.config.limits
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.0.storage
    }

    pub(crate) fn cache(&self) -> &Arc<Cache> {
        &self.0.cache
    }

    pub(crate) fn authenticator(&self) -> &Authenticator {
        &self.0.authenticator
    }

    pub(crate) fn authorizer(&self) -> &Authorizer {
        &self.0.authorizer
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.0.admission
    }

    pub(crate) fn services(&self) -> &Services {
        &self.0.services
    }

    pub(crate) fn kubelets(&self) -> &Kubelets {
        &self.0.kubelets
    }

    pub(crate) fn aggregator(&self) -> &Aggregator {
        &self.0.aggregator
    }

    /// The way to other programs: webhooks, aggregated API servers.
    pub(crate) fn caller(&self) -> &Caller {
        &self.0.caller
    }

    pub(crate) fn audit(&self) -> Option<&Arc<Audit>> {
        self.0.audit.as_ref()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn flow(&self) -> &FlowControl {
        &self.0.flow
    }

    pub(crate) fn tls(&self) -> &serve::Tls {
        &self.0.tls
    }

    pub(crate) fn shutdown(&self) -> &Shutdown {
        &self.0.shutdown
    }

    /// The clock and the dice, in one place.
    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    pub(crate) fn rng(&self) -> ThreadRng {
        rand::rng()
    }
}

fn selector(text: &Option<String>, selects: bool) -> Selector<'_> {
    text.as_deref().filter(|_| selects).map_or(Selector::None, Selector::Raw)
}

/// What RBAC takes for a call's namespace: of a Namespace it is the object itself.
pub(crate) fn namespace_of(call: &Call) -> &str {
    match &call.namespace {
        Some(namespace) => namespace,
        None if call.resource.group.is_empty() && call.resource.plural == "namespaces" => {
            call.name.as_deref().unwrap_or_default()
        }
        None => "",
    }
}

/// A random UUID, version 4.
pub(crate) fn uid(rng: &mut impl rand::Rng) -> String {
    use rand::RngExt;
    let mut bytes: [u8; 16] = rng.random();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let text = hex::encode(bytes);
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}
