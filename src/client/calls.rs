//! Typed calls.

use std::sync::Arc;

use api::{Call, Failure, Options, PatchKind, Resource, Verb};
use k8s_openapi::List;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::Object;
use crate::backend::Backend;
use crate::informer::{Informer, Informers, Scope};

/// The API as one component sees it. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    backend: Arc<dyn Backend>,
    informers: Informers,
    field_manager: Arc<str>,
}

/// What a list is limited to.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
}

/// How an object is deleted. The default leaves grace and propagation to the server.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    pub grace_period_seconds: Option<i64>,
    /// `Orphan`, `Background` or `Foreground`.
    pub propagation_policy: Option<&'static str>,
    /// Deletes only the object with this uid.
    pub uid: Option<String>,
    /// Deletes only this revision of the object.
    pub resource_version: Option<String>,
}

/// A patch and its form.
#[derive(Clone, Debug)]
pub enum Patch {
    Json(Value),
    Merge(Value),
    Strategic(Value),
    /// Server-side apply by this client's field manager.
    Apply {
        config: Value,
        force: bool,
    },
}

impl Client {
    /// `field_manager` names the component as the owner of the fields that it writes, e.g. `kube-controller-manager`.
    pub fn new(backend: Arc<dyn Backend>, informers: Informers, field_manager: &str) -> Client {
        Client { backend, informers, field_manager: field_manager.into() }
    }

    /// The shared informer of a kind: started at the first call, the same one for everybody afterwards.
    pub fn informer<T: Object>(&self, scope: Scope) -> Arc<Informer<T>> {
        self.informers.get::<T>(scope)
    }

    pub async fn get<T: Object>(&self, namespace: &str, name: &str) -> Result<T, Failure> {
        decode(&self.send(self.on::<T>(Verb::Get, namespace, name)).await?)
    }

    /// `None` when there is no such object.
    pub async fn find<T: Object>(&self, namespace: &str, name: &str) -> Result<Option<T>, Failure> {
        match self.get::<T>(namespace, name).await {
            Ok(object) => Ok(Some(object)),
            Err(failure) if failure.is_not_found() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// All objects of a kind in a namespace, or in all of them for `""`.
    pub async fn list<T: Object + k8s_openapi::ListableResource>(
        &self,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<Vec<T>, Failure> {
        let mut call = self.on::<T>(Verb::List, namespace, "");
        call.options.label_selector = options.label_selector.clone();
        call.options.field_selector = options.field_selector.clone();
        let list: List<T> = decode(&self.send(call).await?)?;
        Ok(list.items)
    }

    pub async fn create<T: Object>(&self, object: &T) -> Result<T, Failure> {
        let mut call = self.on::<T>(Verb::Create, namespace_of(object), "");
        call.body = Some(encode(object)?);
        decode(&self.send(call).await?)
    }

    /// Creates the subresource `subresource` of an object: `binding`, `eviction`, `token`. Answers with what the server does.
    pub async fn create_subresource<T: Object, A: DeserializeOwned>(
        &self,
        namespace: &str,
        name: &str,
        subresource: &'static str,
        body: Value,
    ) -> Result<A, Failure> {
        let mut call = self.on::<T>(Verb::Create, namespace, name);
        call.subresource = Some(subresource.into());
        call.body = Some(body);
        decode(&self.send(call).await?)
    }

    /// Replaces an object; its `metadata.resourceVersion`, if set, is the optimistic lock.
    pub async fn update<T: Object>(&self, object: &T) -> Result<T, Failure> {
        self.replace(object, None).await
    }

    pub async fn update_status<T: Object>(&self, object: &T) -> Result<T, Failure> {
        self.replace(object, Some("status")).await
    }

    pub async fn update_subresource<T: Object>(&self, object: &T, subresource: &'static str) -> Result<T, Failure> {
        self.replace(object, Some(subresource)).await
    }

    pub async fn patch<T: Object>(&self, namespace: &str, name: &str, patch: Patch) -> Result<T, Failure> {
        self.patch_at::<T>(namespace, name, None, patch).await
    }

    pub async fn patch_status<T: Object>(&self, namespace: &str, name: &str, patch: Patch) -> Result<T, Failure> {
        self.patch_at::<T>(namespace, name, Some("status"), patch).await
    }

    /// Succeeds when the object is gone or is going; not found is an error that the caller may expect.
    pub async fn delete<T: Object>(&self, namespace: &str, name: &str, options: DeleteOptions) -> Result<(), Failure> {
        let mut call = self.on::<T>(Verb::Delete, namespace, name);
        let mut body = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        if let Some(seconds) = options.grace_period_seconds {
            body["gracePeriodSeconds"] = json!(seconds);
        }
        if let Some(policy) = options.propagation_policy {
            body["propagationPolicy"] = json!(policy);
        }
        if let Some(uid) = options.uid {
            body["preconditions"]["uid"] = json!(uid);
        }
        if let Some(version) = options.resource_version {
            body["preconditions"]["resourceVersion"] = json!(version);
        }
        call.body = Some(body);
        self.send(call).await.map(drop)
    }

    /// Makes a call that has no types of its own, such as one on a resource that is only known at run time.
    pub async fn raw(&self, call: Call) -> Result<Value, Failure> {
        let body = self.send(call).await?;
        serde_json::from_slice(&body).map_err(Failure::internal)
    }

    /// The backend, for what needs watches of its own.
    pub fn backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    async fn replace<T: Object>(&self, object: &T, subresource: Option<&'static str>) -> Result<T, Failure> {
        let name = object.metadata().name.as_deref().unwrap_or_default();
        let mut call = self.on::<T>(Verb::Update, namespace_of(object), name);
        call.subresource = subresource.map(Into::into);
        call.body = Some(encode(object)?);
        decode(&self.send(call).await?)
    }

    async fn patch_at<T: Object>(
        &self,
        namespace: &str,
        name: &str,
        subresource: Option<&'static str>,
        patch: Patch,
    ) -> Result<T, Failure> {
        let mut call = self.on::<T>(Verb::Patch, namespace, name);
        call.subresource = subresource.map(Into::into);
        let (kind, body) = match patch {
            Patch::Json(body) => (PatchKind::Json, body),
            Patch::Merge(body) => (PatchKind::Merge, body),
            Patch::Strategic(body) => (PatchKind::Strategic, body),
            Patch::Apply { config, force } => {
                call.options.force = Some(force);
                (PatchKind::Apply, config)
            }
        };
        call.options.patch = Some(kind);
        call.body = Some(body);
        decode(&self.send(call).await?)
    }

    fn on<T: Object>(&self, verb: Verb, namespace: &str, name: &str) -> Call {
        let some = |text: &str| if text.is_empty() { None } else { Some(text.to_owned()) };
        Call {
            namespace: some(namespace),
            name: some(name),
            options: Options::default(),
            ..Call::new(verb, Resource::of::<T>())
        }
    }

    async fn send(&self, mut call: Call) -> Result<bytes::Bytes, Failure> {
        if matches!(call.verb, Verb::Create | Verb::Update | Verb::Patch) && call.options.field_manager.is_none() {
            call.options.field_manager = Some(self.field_manager.to_string());
        }
        Ok(self.backend.call(call).await?.body)
    }
}

fn namespace_of<T: Object>(object: &T) -> &str {
    object.metadata().namespace.as_deref().unwrap_or_default()
}

fn encode<T: Object>(object: &T) -> Result<Value, Failure> {
    serde_json::to_value(object).map_err(Failure::internal)
}

fn decode<A: DeserializeOwned>(body: &[u8]) -> Result<A, Failure> {
    serde_json::from_slice(body).map_err(Failure::internal)
}
