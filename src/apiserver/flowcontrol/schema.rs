//! FlowSchemas, compiled: which requests they are about, and what tells their flows apart.

use std::sync::Arc;

use api::Fields;
use http::HeaderValue;
use serde_json::Value;

use super::figures::SchemaFigures;
use super::level::Level;
use crate::identity::Identity;

/// What classification looks at (upstream: `RequestDigest`).
#[derive(Clone, Copy, Debug)]
pub struct Digest<'a> {
    pub user: &'a Identity,
    pub verb: &'a str,
    pub about: About<'a>,
}

#[derive(Clone, Copy, Debug)]
pub enum About<'a> {
    Resource { group: &'a str, resource: &'a str, subresource: &'a str, namespace: &'a str },
    Path(&'a str),
}

pub struct Schema {
    pub name: String,
    pub level: Arc<Level>,
    pub uid: HeaderValue,
    pub level_uid: HeaderValue,
    pub figures: Arc<SchemaFigures>,
    distinguisher: Option<Distinguisher>,
    rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Distinguisher {
    User,
    Namespace,
}

struct Rule {
    subjects: Vec<Subject>,
    resources: Vec<ResourceRule>,
    paths: Vec<PathRule>,
}

enum Subject {
    User(Names),
    Group(Names),
    /// `system:serviceaccount:NAMESPACE:`, and the name unless any will do.
    Account(String, Option<String>),
}

/// One name, or `*`.
enum Names {
    Any,
    One(String),
}

struct ResourceRule {
    verbs: Set,
    groups: Set,
    resources: Set,
    namespaces: Set,
    cluster_scope: bool,
}

struct PathRule {
    verbs: Set,
    paths: Vec<String>,
}

/// Some names, or all.
enum Set {
    All,
    Some(Vec<String>),
}

impl Schema {
    /// Compiles a FlowSchema object for the level that it names.
    pub fn new(object: &Value, level: Arc<Level>, level_uid: HeaderValue, figures: Arc<SchemaFigures>) -> Schema {
        let (metadata, spec) = (object.part("metadata"), object.part("spec"));
        let distinguisher = match spec.part("distinguisherMethod").text("type") {
            "ByUser" => Some(Distinguisher::User),
            "ByNamespace" => Some(Distinguisher::Namespace),
            _ => None,
        };
        Schema {
            name: metadata.text("name").to_owned(),
            level,
            uid: uid(object),
            level_uid,
            figures,
            distinguisher,
            rules: spec.list("rules").iter().map(Rule::new).collect(),
        }
    }

    pub fn matches(&self, digest: &Digest<'_>) -> bool {
        self.rules.iter().any(|rule| rule.matches(digest))
    }

    /// What tells this request's flow from others of the same schema.
    pub fn flow<'a>(&self, digest: &Digest<'a>) -> &'a str {
        match (self.distinguisher, digest.about) {
            (Some(Distinguisher::User), _) => &digest.user.name,
            (Some(Distinguisher::Namespace), About::Resource { namespace, .. }) => namespace,
            _ => "",
        }
    }
}

/// An object's uid as a header; empty for one that exists in the server's head only.
pub fn uid(object: &Value) -> HeaderValue {
    HeaderValue::from_str(object.part("metadata").text("uid")).unwrap_or(HeaderValue::from_static(""))
}

impl Rule {
    fn new(rule: &Value) -> Rule {
        let resource = |one: &Value| ResourceRule {
            verbs: Set::new(one, "verbs"),
            groups: Set::new(one, "apiGroups"),
            resources: Set::new(one, "resources"),
            namespaces: Set::new(one, "namespaces"),
            cluster_scope: one.flag("clusterScope"),
        };
        let path = |one: &Value| PathRule { verbs: Set::new(one, "verbs"), paths: texts(one, "nonResourceURLs") };
        Rule {
            subjects: rule.list("subjects").iter().filter_map(Subject::new).collect(),
            resources: rule.list("resourceRules").iter().map(resource).collect(),
            paths: rule.list("nonResourceRules").iter().map(path).collect(),
        }
    }

    fn matches(&self, digest: &Digest<'_>) -> bool {
        if !self.subjects.iter().any(|subject| subject.is(digest.user)) {
            return false;
        }
        match digest.about {
            About::Resource { group, resource, subresource, namespace } => self.resources.iter().any(|rule| {
                rule.verbs.has(digest.verb)
                    && rule.groups.has(group)
                    && rule.resources.has_resource(resource, subresource)
                    && if namespace.is_empty() { rule.cluster_scope } else { rule.namespaces.has(namespace) }
            }),
            About::Path(path) => self
                .paths
                .iter()
                .any(|rule| rule.verbs.has(digest.verb) && rule.paths.iter().any(|pattern| covers(pattern, path))),
        }
    }
}

impl Subject {
    fn new(subject: &Value) -> Option<Subject> {
        Some(match subject.text("kind") {
            "User" => Subject::User(Names::new(subject.at("user")?.text("name"))),
            "Group" => Subject::Group(Names::new(subject.at("group")?.text("name"))),
            "ServiceAccount" => {
                let account = subject.at("serviceAccount")?;
                let prefix = format!("{}{}:", Identity::SERVICE_ACCOUNT_PREFIX, account.text("namespace"));
                let name = account.text("name");
                Subject::Account(prefix, (name != "*").then(|| name.to_owned()))
            }
            _ => return None,
        })
    }

    fn is(&self, user: &Identity) -> bool {
        match self {
            Subject::User(Names::Any) | Subject::Group(Names::Any) => true,
            Subject::User(Names::One(name)) => *name == user.name,
            Subject::Group(Names::One(group)) => user.is_in(group),
            Subject::Account(prefix, name) => user
                .name
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| name.as_ref().is_none_or(|name| name == rest)),
        }
    }
}

impl Names {
    fn new(name: &str) -> Names {
        if name == "*" { Names::Any } else { Names::One(name.to_owned()) }
    }
}

impl Set {
    fn new(rule: &Value, field: &str) -> Set {
        let names = texts(rule, field);
        if names == ["*"] { Set::All } else { Set::Some(names) }
    }

    fn has(&self, name: &str) -> bool {
        match self {
            Set::All => true,
            Set::Some(names) => names.iter().any(|one| one == name),
        }
    }

    fn has_resource(&self, resource: &str, subresource: &str) -> bool {
        match self {
            Set::All => true,
            Set::Some(names) if subresource.is_empty() => names.iter().any(|one| one == resource),
            Set::Some(names) => {
                names.iter().any(|one| one.split_once('/').is_some_and(|pair| pair == (resource, subresource)))
            }
        }
    }
}

/// `/healthz` covers what is below it too, as upstream has it.
fn covers(pattern: &str, path: &str) -> bool {
    if pattern == "*" || pattern == path {
        return true;
    }
    let prefix = pattern.strip_suffix('*').unwrap_or(pattern);
    let Some(rest) = path.strip_prefix(prefix) else { return false };
    prefix.ends_with('/') || rest.starts_with('/')
}

fn texts(object: &Value, field: &str) -> Vec<String> {
    object.list(field).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}
