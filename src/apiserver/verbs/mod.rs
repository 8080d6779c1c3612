//! The verbs, behind authorisation: each file is one of them or one subresource.

mod access_review;
mod binding;
mod computed;
mod convert;
mod create;
mod delete;
mod eviction;
mod ownership;
mod read;
mod requester;
mod scale;
mod select;
mod token;
pub mod typed;
mod update;
pub mod watch;

use std::sync::Arc;

use api::{Call, Failure, Row, Verb};
use jiff::Timestamp;
use serde_json::{Value, json};
use store::Durability;

pub use convert::{in_version, needs_webhook, object, through_webhook, to_stored};
pub use read::path;
pub use select::Selection;
pub use update::cannot_unmarshal;

use crate::admission::{Attributes, Operation, Reinvocation};
use crate::cache::{ResourceCache, Stored};
use crate::failures;
use crate::identity::Identity;
use crate::notes::Notes;
use crate::server::ApiServer;

/// One request on its way.
pub struct Request<'a> {
    pub server: &'a ApiServer,
    pub user: &'a Identity,
    pub row: Arc<Row>,
    pub call: Call,
    pub now: Timestamp,
    pub notes: &'a Notes,
}

/// What came of it.
pub struct Outcome {
    pub code: u16,
    pub body: Answered,
    pub warnings: Vec<String>,
}

pub enum Answered {
    Stored(Arc<Stored>),
    Value(Value),
    List(Listed),
}

/// A list before it is written out.
#[derive(Clone)]
pub struct Listed {
    pub row: Arc<Row>,
    pub objects: Vec<Arc<Stored>>,
    pub revision: u64,
    pub continue_token: Option<String>,
    pub remaining: Option<u64>,
}

impl Outcome {
    pub fn stored(code: u16, stored: Arc<Stored>) -> Outcome {
        Outcome { code, body: Answered::Stored(stored), warnings: Vec::new() }
    }

    pub fn value(code: u16, value: Value) -> Outcome {
        Outcome { code, body: Answered::Value(value), warnings: Vec::new() }
    }

    /// What was asked for is done, and there is nothing to show: `metav1.Status`.
    fn done() -> Outcome {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201});
        Outcome::value(201, status)
    }

    fn warning(mut self, warnings: Vec<String>) -> Outcome {
        self.warnings = warnings;
        self
    }
}

impl Listed {
    /// Everything up to the first item, as JSON.
    pub fn head(&self, api_version: &str, kind: &str) -> String {
        let metadata = self.metadata();
        format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{metadata},"items":["#)
    }

    /// Object by object, sharing their bytes.
    pub fn into_encoded(self) -> api::Listed {
        api::Listed {
            objects: self.objects.iter().map(|stored| stored.encoded()).collect(),
            resource_version: self.revision.to_string(),
            continue_token: self.continue_token,
        }
    }

    /// `metav1.ListMeta`.
    pub fn metadata(&self) -> Value {
        let mut metadata = serde_json::Map::new();
        metadata.insert("resourceVersion".to_owned(), self.revision.to_string().into());
        if let Some(token) = &self.continue_token {
            metadata.insert("continue".to_owned(), token.as_str().into());
        }
        if let Some(remaining) = self.remaining {
            metadata.insert("remainingItemCount".to_owned(), remaining.into());
        }
        Value::Object(metadata)
    }
}

/// Does what the call says. Authorisation is behind it. What admission says besides stands in the notes.
pub async fn execute(
    server: &ApiServer,
    user: &Identity,
    row: Arc<Row>,
    call: Call,
    notes: &Notes,
) -> Result<Outcome, Failure> {
    notes.warn(row.custom.as_ref().and_then(|version| version.compiled()?.deprecation.clone()));
    let request = Request { server, user, row, call, now: server.now(), notes };
    if let Some(text) = request.row.deprecation.as_deref() {
        notes.warn(Some(text.to_owned()));
        server.metrics().asked_for_deprecated(&request.row, request.call.subresource.as_deref());
    }
    let subresource = request.call.subresource.clone();
    match (subresource.as_deref(), request.call.verb) {
        (None, _) if !request.row.stored => computed::answer(request).await,
        (None, Verb::Get) => read::get(&request).await,
        (None, Verb::List) => read::list(&request).await,
        (None, Verb::Create) => create::create(request).await,
        (None, Verb::Update) => update::update(request).await,
        (None, Verb::Patch) => update::patch(request).await,
        (None, Verb::Delete) => delete::delete(request).await,
        (None, Verb::DeleteCollection) => delete::collection(request).await,
        (Some("scale"), _) => scale::scale(request).await,
        (Some("binding"), Verb::Create) => binding::bind(request).await,
        (Some("eviction"), Verb::Create) => eviction::evict(request).await,
        (Some("token"), Verb::Create) => token::create(request).await,
        (Some("status" | "approval" | "ephemeralcontainers" | "resize" | "finalize"), Verb::Get) => {
            read::get(&request).await
        }
        (Some("status" | "approval" | "ephemeralcontainers" | "resize" | "finalize"), Verb::Update) => {
            update::update(request).await
        }
        (Some("status" | "approval" | "ephemeralcontainers" | "resize" | "finalize"), Verb::Patch) => {
            update::patch(request).await
        }
        _ => Err(failures::no_such_verb()),
    }
}

impl Request<'_> {
    pub fn group(&self) -> &str {
        &self.row.resource.group
    }

    pub fn plural(&self) -> &str {
        &self.row.resource.plural
    }

    pub fn namespace(&self) -> Option<&str> {
        self.call.namespace.as_deref().filter(|_| self.row.namespaced)
    }

    pub fn subresource(&self) -> Option<&str> {
        self.call.subresource.as_deref()
    }

    pub fn name(&self) -> Result<&str, Failure> {
        self.call.name.as_deref().ok_or_else(|| Failure::bad_request("name is required"))
    }

    /// Who is said to own what this request writes.
    pub fn manager(&self) -> &str {
        match self.call.options.field_manager.as_deref() {
            Some(manager) if !manager.is_empty() => manager,
            _ => self.user.name.rsplit(':').next().unwrap_or_default(),
        }
    }

    pub fn key(&self, name: &str) -> Result<String, Failure> {
        key(&self.row, self.namespace(), name)
    }

    pub fn prefix_bytes(&self) -> usize {
        self.row.list_key(None).len()
    }

    pub fn not_found(&self, name: &str) -> Failure {
        Failure::not_found(self.group(), self.plural(), name)
    }

    pub fn cache(&self) -> Result<Arc<ResourceCache>, Failure> {
        cache_of(self.server, &self.row)
    }

    /// What admission is told.
    pub fn attributes<'a>(&'a self, operation: Operation, name: &'a str) -> Attributes<'a> {
        Attributes {
            user: self.user,
            operation,
            row: &self.row,
            subresource: self.subresource(),
            namespace: self.namespace().unwrap_or_default(),
            name,
            dry_run: self.call.options.dry_run,
            call: &self.call,
            delete_options: None,
            warnings: Vec::new(),
            annotations: Vec::new(),
            reinvocation: Reinvocation::default(),
            notes: self.notes,
        }
    }

    /// Admission of what is created and not kept: reviews, bindings, evictions, requests for tokens.
    pub async fn admit(&self, name: &str, object: &mut Value) -> Result<(), Failure> {
        let mut attributes = self.attributes(Operation::Create, name);
        let admission = self.server.admission();
        admission.mutate(self.server, &mut attributes, Some(object), None).await?;
        admission.validate(self.server, &mut attributes, Some(object), None).await
    }

    /// The object as it is now.
    pub async fn read(&self, name: &str) -> Result<Arc<Stored>, Failure> {
        let stored = self.server.storage().read(&self.key(name)?, self.prefix_bytes()).await?;
        stored.ok_or_else(|| self.not_found(name))
    }

    /// Heartbeats may be acknowledged before they are synced: they are written again in seconds.
    pub fn durability(&self) -> Durability {
        let heartbeat = match (self.group(), self.plural()) {
            ("" | "events.k8s.io", "events") => true,
            ("coordination.k8s.io", "leases") => self.namespace() == Some("kube-node-lease"),
            _ => false,
        };
        if heartbeat { Durability::Relaxed } else { Durability::Synced }
    }
}

/// The key of an object; names that would lead out of their place are refused.
pub fn key(row: &Row, namespace: Option<&str>, name: &str) -> Result<String, Failure> {
    let fits = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('/');
    if !fits(name) || (row.namespaced && !namespace.is_some_and(fits)) {
        let text = match name {
            "." | ".." => format!("Name parameter invalid: {name:?}: may not be '{name}'"),
            _ => format!("invalid name or namespace for {}", row.resource),
        };
        return Err(Failure::bad_request(text));
    }
    Ok(row.key(namespace, name))
}

pub fn cache_of(server: &ApiServer, row: &Row) -> Result<Arc<ResourceCache>, Failure> {
    server
        .cache()
        .resource(row.list_key(None).as_bytes())
        .ok_or_else(|| Failure::internal(format!("{} has no cache", row.resource)))
}

/// An object as bytes, in the version that it is in.
pub fn encoded(row: &Row, object: &Value, key: bytes::Bytes, revision: u64) -> Result<Arc<Stored>, Failure> {
    let bytes = crate::cache::encode(object).map_err(Failure::internal)?;
    Stored::new(key, bytes.into(), revision, row.list_key(None).len())
        .map(Arc::new)
        .ok_or_else(|| Failure::internal("an object without metadata"))
}

/// An object of a built-in kind decoded in the version that the row serves, with its resource version.
pub fn decoded(row: &Row, stored: &Stored) -> Result<Value, Failure> {
    let mut object = stored.decode().map_err(Failure::internal)?;
    row.to_served(&mut object);
    Ok(object)
}

#[cfg(test)]
mod tests;
