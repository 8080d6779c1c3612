//! The way to the API for every component: calls, shared informers, work queues, event recorder.
//!
//! A component holds a [`Client`] and cannot tell where the API server is. Behind it stands a [`Backend`]: in a
//! server's process the API server's own pipeline, on another machine [`Remote`], HTTPS to one of the servers.
//!
//! - [`Client`] makes typed calls: `client.get::<Pod>("default", "web-0")`. Cluster-scoped objects have the namespace `""`.
//! - [`Informer`] keeps all objects of a kind, decoded once per process and shared by everybody in it; see [`Informers`].
//! - [`Follow`] is the list and watch beneath it, for resources that are only known at run time.
//! - [`Changes`] says what changed since the subscriber last looked, one entry per object however often it changed.
//! - [`Queue`] holds the keys that a controller has to look at, each once, with back-off for those that failed.
//! - [`Recorder`] writes Events.

mod backend;
mod calls;
mod follow;
mod informer;
mod queue;
mod recorder;
mod remote;

pub use api::{Failure, PatchKind};
pub use backend::Backend;
pub use calls::{Client, DeleteOptions, ListOptions, Patch};
pub use follow::{Follow, Step};
pub use informer::{Change, Changes, Informer, Informers, Key, Meta, Scope};
pub use queue::{Queue, run_workers};
pub use recorder::{Involved, Recorder};
pub use remote::{Remote, RemoteConfig, RemoteError, fetch_unverified};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// A Kubernetes object type that can be asked for: all of k8s-openapi's kinds.
pub trait Object:
    k8s_openapi::Resource
    + k8s_openapi::Metadata<Ty = ObjectMeta>
    + serde::Serialize
    + serde::de::DeserializeOwned
    + Send
    + Sync
    + 'static
{
}

impl<T> Object for T where
    T: k8s_openapi::Resource
        + k8s_openapi::Metadata<Ty = ObjectMeta>
        + serde::Serialize
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static
{
}
