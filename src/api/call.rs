//! A request to the API with its body already decoded: what the API server's pipeline works on, and what the
//! components' client makes.
//!
//! HTTP requests become a [`Call`] when the API server has decoded them; components in the same process hand
//! theirs in directly, and `client` turns a [`Call`] into HTTP when the API server is on another machine. So both
//! ways in lead through the same authorisation, admission and validation.

use std::borrow::Cow;

use serde_json::Value;

use crate::encoded::Encoded;
use crate::failure::Failure;

/// What is asked of a resource, in the words that authorisation uses (upstream's `RequestInfo.Verb`).
/// A watch is not a [`Call`]: it is opened with the same fields and yields [`WatchEvent`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    Get,
    List,
    Watch,
    Create,
    Update,
    Patch,
    Delete,
    DeleteCollection,
    /// HTTP's OPTIONS, which only what is proxied to may know. Rules have no word for it: who may do everything may do
    /// this.
    Options,
}

impl Verb {
    /// As RBAC rules and audit events spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "get",
            Verb::List => "list",
            Verb::Watch => "watch",
            Verb::Create => "create",
            Verb::Update => "update",
            Verb::Patch => "patch",
            Verb::Delete => "delete",
            Verb::DeleteCollection => "deletecollection",
            Verb::Options => "",
        }
    }
}

/// The form of a patch body, named by its media type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// RFC 6902, `application/json-patch+json`.
    Json,
    /// RFC 7386, `application/merge-patch+json`.
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
    /// Server-side apply, `application/apply-patch+yaml`.
    Apply,
}

impl PatchKind {
    pub fn media_type(self) -> &'static str {
        match self {
            PatchKind::Json => "application/json-patch+json",
            PatchKind::Merge => "application/merge-patch+json",
            PatchKind::Strategic => "application/strategic-merge-patch+json",
            PatchKind::Apply => "application/apply-patch+yaml",
        }
    }

    pub fn from_media_type(media_type: &str) -> Option<PatchKind> {
        [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic, PatchKind::Apply]
            .into_iter()
            .find(|kind| kind.media_type() == media_type)
    }
}

/// A resource by its group, version and plural name (upstream's `GroupVersionResource`). The core group is `""`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Resource {
    pub group: Cow<'static, str>,
    pub version: Cow<'static, str>,
    pub plural: Cow<'static, str>,
}

impl Resource {
    pub const fn new(group: &'static str, version: &'static str, plural: &'static str) -> Resource {
        Resource { group: Cow::Borrowed(group), version: Cow::Borrowed(version), plural: Cow::Borrowed(plural) }
    }

    /// The resource of a type that k8s-openapi knows.
    pub fn of<T: k8s_openapi::Resource>() -> Resource {
        Resource::new(T::GROUP, T::VERSION, T::URL_PATH_SEGMENT)
    }

    /// `v1` or `apps/v1`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }
}

impl std::fmt::Display for Resource {
    /// `pods` or `deployments.apps`, as messages name it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.group.is_empty() { f.write_str(&self.plural) } else { write!(f, "{}.{}", self.plural, self.group) }
    }
}

/// One request. Fields that do not belong to the verb are ignored.
#[derive(Clone, Debug)]
pub struct Call {
    pub verb: Verb,
    pub resource: Resource,
    pub subresource: Option<Cow<'static, str>>,
    /// `None` for cluster-scoped resources, and for lists and watches over all namespaces.
    pub namespace: Option<String>,
    pub name: Option<String>,
    /// The object, the patch, or the `DeleteOptions`.
    pub body: Option<Value>,
    /// What the body had twice, as findings say it; the last counts.
    pub repeated: Vec<String>,
    pub options: Options,
}

impl Call {
    pub fn new(verb: Verb, resource: Resource) -> Call {
        Call {
            verb,
            resource,
            subresource: None,
            namespace: None,
            name: None,
            body: None,
            repeated: Vec::new(),
            options: Options::default(),
        }
    }
}

/// The query parameters of every verb, under their names on the wire in camel case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub label_selector: Option<String>,
    pub field_selector: Option<String>,
    pub resource_version: Option<String>,
    pub resource_version_match: Option<String>,
    pub limit: Option<u64>,
    pub continue_token: Option<String>,
    pub timeout_seconds: Option<u64>,
    pub allow_watch_bookmarks: bool,
    pub send_initial_events: Option<bool>,
    /// `dryRun=All`.
    pub dry_run: bool,
    pub field_manager: Option<String>,
    /// `Ignore`, `Warn` or `Strict`.
    pub field_validation: Option<String>,
    pub force: Option<bool>,
    pub patch: Option<PatchKind>,
    pub grace_period_seconds: Option<i64>,
    pub propagation_policy: Option<String>,
}

/// What a call that succeeded yields.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status: 200, 201 or 202.
    pub code: u16,
    /// The object, list or `Status` as JSON.
    pub body: bytes::Bytes,
    /// Texts for the `Warning` header.
    pub warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    Added,
    Modified,
    Deleted,
    /// The object holds nothing but its `metadata.resourceVersion`; with the annotation
    /// `k8s.io/initial-events-end` it ends the initial events.
    Bookmark,
}

/// One event of a watch. A watch that must end early ends with an `Err` in the stream, as upstream's `ERROR` event.
#[derive(Clone, Debug)]
pub struct WatchEvent {
    pub kind: EventKind,
    pub object: Encoded,
}

/// What a watch yields.
pub type WatchResult = Result<WatchEvent, Failure>;
