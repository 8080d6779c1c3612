//! Auditing: what is done with the API, by whom, and how it ended, written to a log file and sent to a webhook.
//!
//! The policy says how much of a request is recorded. A [`Recording`] gathers it while the request is on its way;
//! whoever decides something on that way adds to it with [`annotate`], which costs nothing where nothing is recorded.
//! Requests over HTTPS and calls of components in this process are recorded alike.

mod backend;
mod event;
mod log;
mod options;
mod policy;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::{Call, Failure, Fields};
use bytes::Bytes;
use http::HeaderMap;
use http::header::USER_AGENT;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::Value;
use serde_json::value::RawValue;
use task::Shutdown;

use crate::identity::Identity;
use crate::metrics::{Counter, Kind, Text};
use crate::webhook::{Caller, Endpoint};

pub use options::{Delivery, Format, Mode, Options, OptionsError};
pub use policy::Level;

use backend::Backend;
use event::{Facts, ObjectRef, Status, User};
use policy::{About, Attributes, Policy, Stage, Verdict};

const USER_AGENT_BYTES_MAX: usize = 1024;
/// Annotations of one event, and the bytes of a value.
const ANNOTATIONS_MAX: usize = 64;
const ANNOTATION_BYTES_MAX: usize = 16 * 1024;

tokio::task_local! {
    static CURRENT: Recording;
}

/// A policy and where events go.
pub struct Audit {
    policy: Policy,
    backends: Vec<Backend>,
    events: Counter,
    levels: [Counter; 4],
    rejected: Counter,
}

/// One request on its way. Clones are the same recording; when the last one goes, it ends.
#[derive(Clone)]
pub struct Recording(Arc<Inner>);

struct Inner {
    audit: Arc<Audit>,
    verdict: Verdict,
    facts: Mutex<Facts>,
    long_running: bool,
    started: AtomicBool,
    complete: AtomicBool,
}

/// What a recording begins with.
pub struct Opening<'a> {
    pub user: Option<&'a Identity>,
    pub verb: &'a str,
    pub call: Option<&'a Call>,
    pub path: &'a str,
    pub audit_id: String,
    pub request_uri: String,
    pub source_ips: Vec<String>,
    pub user_agent: &'a str,
    pub received: Timestamp,
    pub long_running: bool,
}

/// Something is recorded of the request that this task works on.
pub fn is_recording() -> bool {
    CURRENT.try_with(|_| ()).is_ok()
}

/// Adds to what is recorded of the request that this task works on; the first value of a key stays.
pub fn annotate(key: &str, value: impl FnOnce() -> String) {
    annotate_at(Level::Metadata, key, value);
}

/// The same for what is shown from a level on only.
pub fn annotate_at(level: Level, key: &str, value: impl FnOnce() -> String) {
    let _ = CURRENT.try_with(|recording| {
        if recording.0.verdict.level < level {
            return;
        }
        let mut facts = recording.0.facts.lock();
        if facts.annotations.len() < ANNOTATIONS_MAX && !facts.annotations.contains_key(key) {
            let mut value = value();
            value.truncate(value.floor_char_boundary(ANNOTATION_BYTES_MAX));
            facts.annotations.insert(key.to_owned(), value);
        }
    });
}

impl Audit {
    /// `None` when nothing is to be recorded.
    pub fn start(
        options: &Options,
        caller: &Arc<Caller>,
        shutdown: &Shutdown,
    ) -> Result<Option<Arc<Audit>>, OptionsError> {
        let Some(path) = &options.policy_file else { return Ok(None) };
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|source| OptionsError::File { path: path.clone(), source })?;
        let policy = Policy::parse(&text)?;
        let mut backends = Vec::new();
        if !options.log.file.path.as_os_str().is_empty() {
            backends.push(Backend::log(&options.log, shutdown)?);
        }
        if let Some(config) = &options.webhook.config_file {
            let endpoint = Endpoint::from_kubeconfig(config).map_err(OptionsError::Webhook)?;
            let webhook = &options.webhook;
            let made = Backend::webhook(endpoint, caller.clone(), webhook.initial_backoff, webhook.delivery, shutdown)?;
            backends.push(made);
        }
        if backends.is_empty() {
            return Ok(None);
        }
        let levels = Default::default();
        let (events, rejected) = Default::default();
        Ok(Some(Arc::new(Audit { policy, backends, events, levels, rejected })))
    }

    /// `None` when the policy says that nothing is recorded of this request.
    pub fn begin(self: &Arc<Self>, opening: Opening<'_>) -> Option<Recording> {
        let about = match opening.call {
            Some(call) => About::Resource {
                group: &call.resource.group,
                resource: &call.resource.plural,
                subresource: call.subresource.as_deref().unwrap_or_default(),
                namespace: crate::server::namespace_of(call),
                name: call.name.as_deref().unwrap_or_default(),
            },
            None => About::Path(opening.path),
        };
        let verdict = self.policy.evaluate(&Attributes { user: opening.user, verb: opening.verb, about });
        let [none, metadata, request, response] = &self.levels;
        match verdict.level {
            Level::None => none,
            Level::Metadata => metadata,
            Level::Request => request,
            Level::RequestResponse => response,
        }
        .inc();
        if verdict.level == Level::None {
            return None;
        }
        let facts = Facts {
            level: verdict.level,
            audit_id: opening.audit_id,
            request_uri: opening.request_uri,
            verb: opening.verb.to_owned(),
            user: opening.user.map(User::new).unwrap_or_default(),
            source_ips: opening.source_ips,
            user_agent: agent(opening.user_agent),
            object_ref: opening.call.map(reference),
            received: opening.received,
            ..Facts::default()
        };
        Some(Recording(Arc::new(Inner {
            audit: self.clone(),
            verdict,
            facts: Mutex::new(facts),
            long_running: opening.long_running,
            started: AtomicBool::new(false),
            complete: AtomicBool::new(false),
        })))
    }

    pub fn write_figures(&self, out: &mut Text) {
        let help = "[ALPHA] Counter of audit events generated and sent to the audit backend.";
        out.single("apiserver_audit_event_total", Kind::Counter, help, self.events.get());
        let help = "[ALPHA] Counter of audit events that failed to be audited properly. Plugin identifies the plugin \
                    affected by the error.";
        out.family("apiserver_audit_error_total", Kind::Counter, help);
        for backend in &self.backends {
            out.sample("apiserver_audit_error_total", &[("plugin", backend.name)], backend.errors.get());
        }
        let help = "[ALPHA] Counter of policy levels for audit events (1 per request).";
        out.family("apiserver_audit_level_total", Kind::Counter, help);
        for (level, count) in ["None", "Metadata", "Request", "RequestResponse"].iter().zip(&self.levels) {
            out.sample("apiserver_audit_level_total", &[("level", level)], count.get());
        }
        let help = "[ALPHA] Counter of apiserver requests rejected due to an error in audit logging backend.";
        out.single("apiserver_audit_requests_rejected_total", Kind::Counter, help, self.rejected.get());
    }

    /// False when a backend that must have the event does not.
    async fn process(&self, facts: &Facts, stage: Stage, at: Timestamp) -> bool {
        self.events.inc();
        let mut stored = true;
        for backend in &self.backends {
            let taken = backend.process(facts, stage, at).await;
            stored &= taken || backend.mode != Mode::BlockingStrict;
        }
        stored
    }
}

impl Recording {
    /// The request is there. A failure refuses it.
    pub async fn received(&self) -> Result<(), Failure> {
        if self.stage(Stage::RequestReceived).await {
            return Ok(());
        }
        self.0.audit.rejected.inc();
        self.0.complete.store(true, Ordering::Relaxed);
        Err(Failure::internal("failed to store audit event"))
    }

    /// Runs a part of the request's way, on which [`annotate`] adds to this recording.
    pub async fn on_the_way<F: Future>(&self, work: F) -> F::Output {
        CURRENT.scope(self.clone(), work).await
    }

    pub fn impersonated(&self, user: &Identity) {
        self.0.facts.lock().impersonated_user = Some(User::new(user));
    }

    pub fn wants_request(&self) -> bool {
        self.0.verdict.level >= Level::Request
    }

    pub fn wants_response(&self) -> bool {
        self.0.verdict.level >= Level::RequestResponse
    }

    /// The decoded body: an object, or a patch.
    pub fn request(&self, body: &Value, is_object: bool) {
        let mut facts = self.0.facts.lock();
        if is_object && let Some(object) = &mut facts.object_ref {
            let metadata = body.part("metadata");
            let fill = |field: &mut String, name: &str| {
                if field.is_empty() {
                    metadata.text(name).clone_into(field);
                }
            };
            fill(&mut object.namespace, "namespace");
            fill(&mut object.name, "name");
            fill(&mut object.uid, "uid");
            fill(&mut object.resource_version, "resourceVersion");
        }
        if self.wants_request() {
            facts.request_object = self.raw(body);
        }
    }

    /// The body of the answer, as JSON.
    pub fn response(&self, body: &[u8]) {
        if !self.wants_response() {
            return;
        }
        let raw = if self.0.verdict.omit_managed_fields {
            serde_json::from_slice(body).ok().and_then(|body: Value| self.raw(&body))
        } else {
            serde_json::from_slice(body).ok()
        };
        self.0.facts.lock().response_object = raw;
    }

    /// How it ended. A failure that is known already stays.
    pub fn status(&self, code: u16, failure: Option<&Failure>) {
        if failure.is_none() && self.0.facts.lock().response_status.is_some() {
            return;
        }
        let mut status = Status { code, ..Status::default() };
        if let Some(failure) = failure {
            let whole = failure.to_status();
            status.status = "Failure";
            whole.text("message").clone_into(&mut status.message);
            whole.text("reason").clone_into(&mut status.reason);
            status.details = whole.at("details").cloned().unwrap_or_default();
            if self.wants_response() {
                self.0.facts.lock().response_object = self.raw(&whole);
            }
        }
        self.0.facts.lock().response_status = Some(status);
    }

    /// The answer is there: what lasts has begun, what does not is complete.
    pub async fn answered(&self) {
        if self.0.long_running {
            self.0.started.store(true, Ordering::Relaxed);
            self.stage(Stage::ResponseStarted).await;
        } else {
            self.0.complete.store(true, Ordering::Relaxed);
            self.stage(Stage::ResponseComplete).await;
        }
    }

    pub async fn panicked(&self, failure: &Failure) {
        self.status(failure.code, Some(failure));
        self.0.complete.store(true, Ordering::Relaxed);
        self.stage(Stage::Panic).await;
    }

    /// Nobody could be identified (upstream records the start of the answer only).
    pub async fn unidentified(&self, failure: &Failure) {
        self.status(failure.code, Some(failure));
        if let Some(status) = &mut self.0.facts.lock().response_status {
            "Authentication failed, attempted: bearer".clone_into(&mut status.message);
        }
        self.0.complete.store(true, Ordering::Relaxed);
        self.stage(Stage::ResponseStarted).await;
    }

    async fn stage(&self, stage: Stage) -> bool {
        if self.0.verdict.omit_stages.contains(&stage) {
            return true;
        }
        let facts = self.0.facts.lock().clone();
        self.0.audit.process(&facts, stage, Timestamp::now()).await
    }

    fn raw(&self, body: &Value) -> Option<Box<RawValue>> {
        if !self.0.verdict.omit_managed_fields {
            return serde_json::value::to_raw_value(body).ok();
        }
        let mut body = body.clone();
        let drop_fields = |object: &mut Value| {
            if let Some(metadata) = object.at_mut("metadata") {
                metadata.unset("managedFields");
            }
        };
        body.list_mut("items").iter_mut().for_each(drop_fields);
        drop_fields(&mut body);
        serde_json::value::to_raw_value(&body).ok()
    }
}

impl Drop for Inner {
    /// What lasted is over; or the client went away before its answer was there.
    fn drop(&mut self) {
        if self.complete.load(Ordering::Relaxed) || tokio::runtime::Handle::try_current().is_err() {
            return;
        }
        let mut facts = std::mem::take(self.facts.get_mut());
        let mut stages = Vec::new();
        if self.long_running && !self.started.load(Ordering::Relaxed) {
            stages.push(Stage::ResponseStarted);
        }
        stages.push(Stage::ResponseComplete);
        stages.retain(|stage| !self.verdict.omit_stages.contains(stage));
        facts.response_status.get_or_insert_with(|| Status {
            status: "Success",
            message: "Connection closed early".to_owned(),
            code: 200,
            ..Status::default()
        });
        let audit = self.audit.clone();
        task::spawn("audit-end", async move {
            for stage in stages {
                audit.process(&facts, stage, Timestamp::now()).await;
            }
        });
    }
}

/// A path and query that would ask for the same over HTTP: what a component's call is recorded under.
pub fn uri(call: &Call) -> String {
    let resource = &call.resource;
    let mut uri = if resource.group.is_empty() { "/api/".to_owned() } else { format!("/apis/{}/", resource.group) };
    uri.push_str(&resource.version);
    if let Some(namespace) = &call.namespace {
        uri.push_str(&format!("/namespaces/{namespace}"));
    }
    uri.push('/');
    uri.push_str(&resource.plural);
    for part in [call.name.as_deref(), call.subresource.as_deref()].into_iter().flatten() {
        uri.push('/');
        uri.push_str(part);
    }
    uri
}

/// Where a request came from, as it says and as the connection says.
pub fn source_ips(headers: &HeaderMap, remote: std::net::IpAddr) -> Vec<String> {
    const SOURCES_MAX: usize = 32;
    let texts = |name: &str| headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>();
    let address = |text: &str| text.trim().parse::<std::net::IpAddr>().ok();
    let mut ips: Vec<std::net::IpAddr> = texts("x-forwarded-for")
        .iter()
        .flat_map(|list| list.split(','))
        .filter_map(address)
        .take(SOURCES_MAX)
        .collect();
    if let Some(real) = texts("x-real-ip").first().and_then(|text| address(text)).filter(|real| !ips.contains(real)) {
        ips.push(real);
    }
    let remote = remote.to_canonical();
    if ips.last() != Some(&remote) {
        ips.push(remote);
    }
    ips.iter().map(ToString::to_string).collect()
}

pub fn user_agent(headers: &HeaderMap) -> &str {
    headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

fn agent(text: &str) -> String {
    if text.len() <= USER_AGENT_BYTES_MAX {
        return text.to_owned();
    }
    format!("{}...TRUNCATED", text.get(..text.floor_char_boundary(USER_AGENT_BYTES_MAX)).unwrap_or_default())
}

fn reference(call: &Call) -> ObjectRef {
    ObjectRef {
        resource: call.resource.plural.to_string(),
        namespace: crate::server::namespace_of(call).to_owned(),
        name: call.name.clone().unwrap_or_default(),
        api_group: call.resource.group.to_string(),
        api_version: call.resource.version.to_string(),
        subresource: call.subresource.clone().unwrap_or_default().into_owned(),
        ..ObjectRef::default()
    }
}

/// The bytes of a decided answer, for those who record it.
pub fn body_of(answered: &crate::verbs::Answered) -> Bytes {
    use crate::verbs::Answered;
    match answered {
        Answered::Stored(stored) => stored.served(),
        Answered::Value(value) => Bytes::from(value.to_string()),
        Answered::List(list) => crate::http::respond::whole_list(list.clone()),
    }
}

#[cfg(test)]
mod tests;
