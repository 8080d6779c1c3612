//! Which hooks a request concerns.

use std::borrow::Cow;
use std::sync::Arc;

use api::{Failure, Fields, LabelSelector, Row};
use serde_json::{Map, Value};
use tokio::sync::OnceCell;

use super::hooks::{Hook, Rule, Scope};
use crate::admission::{Attributes, Operation, kind_of};
use crate::server::ApiServer;
use crate::verbs;

/// Requests about these are nobody's business but the API server's: what governs admission can always be repaired.
const EXEMPT_GROUP: &str = "admissionregistration.k8s.io";
const EXEMPT_KINDS: [&str; 6] = [
    "ValidatingWebhookConfiguration",
    "MutatingWebhookConfiguration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
];

/// A request as rules look at it.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    pub operation: &'a str,
    pub group: &'a str,
    pub version: &'a str,
    pub plural: &'a str,
    /// Empty for the object itself.
    pub subresource: &'a str,
    /// It is about something in a namespace; a Namespace is not.
    pub namespaced: bool,
}

/// A resource in whose version a hook is asked.
pub struct Invocation {
    pub row: Arc<Row>,
}

/// One request's side of the matching; what takes a look-up is looked up once.
pub struct Matcher<'a> {
    server: &'a ApiServer,
    namespace: OnceCell<Result<Map<String, Value>, Failure>>,
}

pub fn is_exempt(attributes: &Attributes<'_>) -> bool {
    let [group, _, kind] = attributes.kind();
    group == EXEMPT_GROUP && EXEMPT_KINDS.contains(&kind)
}

impl Rule {
    pub fn matches(&self, asked: &Asked<'_>) -> bool {
        fn any(list: &[String], wanted: &str) -> bool {
            list.iter().any(|one| one == "*" || one == wanted)
        }
        let in_scope = match self.scope {
            Scope::All => true,
            Scope::Cluster => !asked.namespaced,
            Scope::Namespaced => asked.namespaced,
        };
        in_scope
            && any(&self.operations, asked.operation)
            && any(&self.groups, asked.group)
            && any(&self.versions, asked.version)
            && self.resources.iter().any(|(plural, subresource)| {
                (plural == "*" || plural == asked.plural) && (subresource == "*" || subresource == asked.subresource)
            })
    }
}

impl<'a> Matcher<'a> {
    pub fn new(server: &'a ApiServer) -> Matcher<'a> {
        Matcher { server, namespace: OnceCell::new() }
    }

    /// How the hook is asked about the request; `None` if it is not.
    pub async fn invocation(
        &self,
        hook: &Hook,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<Option<Invocation>, Failure> {
        let Some(row) = self.matching_row(hook, attributes) else { return Ok(None) };
        let selected = |object: Option<&Value>| object.is_some_and(|object| hook.objects.matches_object(object));
        if !hook.objects.is_empty() && !selected(object) && !selected(old) {
            return Ok(None);
        }
        if !self.in_namespace(&hook.namespaces, attributes, object).await? {
            return Ok(None);
        }
        let conditions = &hook.conditions;
        if !conditions.hold(self.server, attributes, &row, object, old, hook.ignores_failures).await? {
            return Ok(None);
        }
        Ok(Some(Invocation { row }))
    }

    /// The resource itself if a rule names it, or another version of the same objects that a rule names.
    fn matching_row(&self, hook: &Hook, attributes: &Attributes<'_>) -> Option<Arc<Row>> {
        let of = |row: &Row, rule: &Rule| rule.matches(&asked(row, attributes));
        if hook.rules.iter().any(|rule| of(attributes.row, rule)) {
            return Some(attributes.row.clone());
        }
        if !hook.equivalent {
            return None;
        }
        let others: Vec<Arc<Row>> = equivalents(self.server, attributes.row, attributes.subresource);
        // Earlier rules first.
        hook.rules.iter().find_map(|rule| others.iter().find(|row| of(row, rule))).cloned()
    }

    pub async fn in_namespace(
        &self,
        selector: &LabelSelector,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
    ) -> Result<bool, Failure> {
        if selector.is_empty() {
            return Ok(true);
        }
        let is_namespace = attributes.row.resource.group.is_empty() && attributes.row.resource.plural == "namespaces";
        if is_namespace
            && attributes.subresource.is_none()
            && matches!(attributes.operation, Operation::Create | Operation::Update)
        {
            return Ok(object.is_some_and(|object| selector.matches_object(object)));
        }
        let name = attributes.review_namespace();
        if name.is_empty() {
            // What is in no namespace is not exempted by any.
            return Ok(true);
        }
        let labels = self.namespace.get_or_init(|| labels_of(self.server, name)).await;
        labels.as_ref().map(|labels| selector.matches_map(Some(labels))).map_err(Clone::clone)
    }
}

pub fn asked<'a>(row: &'a Row, attributes: &'a Attributes<'_>) -> Asked<'a> {
    Asked {
        operation: attributes.operation.as_str(),
        group: &row.resource.group,
        version: &row.resource.version,
        plural: &row.resource.plural,
        subresource: attributes.subresource.unwrap_or_default(),
        namespaced: !attributes.namespace.is_empty(),
    }
}

/// Other resources under which the same objects are served.
pub fn equivalents(server: &ApiServer, row: &Row, subresource: Option<&str>) -> Vec<Arc<Row>> {
    let same = |other: &&Arc<Row>| {
        other.stored
            && row.stored
            && other.key_prefix == row.key_prefix
            && other.resource != row.resource
            && subresource.is_none_or(|name| other.subresource(name).is_some())
    };
    server.rows().iter().filter(same).cloned().collect()
}

/// A namespace's labels, from the store if the cache does not have it yet.
async fn labels_of(server: &ApiServer, name: &str) -> Result<Map<String, Value>, Failure> {
    const PREFIX: &str = "/registry/namespaces/";
    let cached = server.cache().resource(PREFIX.as_bytes()).and_then(|namespaces| namespaces.get(name));
    let stored = match cached {
        Some(stored) => stored,
        None => {
            let stored = server.storage().read(&format!("{PREFIX}{name}"), PREFIX.len()).await?;
            stored.ok_or_else(|| Failure::not_found("", "namespaces", name))?
        }
    };
    let namespace: Value = serde_json::from_slice(&stored.value).map_err(Failure::internal)?;
    Ok(namespace.part("metadata").map("labels").cloned().unwrap_or_default())
}

/// An object in the version of another resource for the same objects; what has a kind of its own, as a Scale, stays.
pub async fn convert_for<'a>(
    server: &ApiServer,
    from: &Row,
    to: &Row,
    subresource: Option<&str>,
    object: &'a Value,
) -> Result<Cow<'a, Value>, Failure> {
    if verbs::needs_webhook(to) && kind_of(from, subresource) != kind_of(to, subresource) {
        return verbs::through_webhook(server, to, object.clone()).await.map(Cow::Owned);
    }
    convert_plainly(from, to, subresource, object)
}

fn convert_plainly<'a>(
    from: &Row,
    to: &Row,
    subresource: Option<&str>,
    object: &'a Value,
) -> Result<Cow<'a, Value>, Failure> {
    if kind_of(from, subresource) == kind_of(to, subresource) {
        return Ok(Cow::Borrowed(object));
    }
    if from.storage != to.storage {
        let [group, version, kind] = kind_of(to, subresource);
        return Err(Failure::internal(format!("unable to convert to {group}/{version}, Kind={kind}")));
    }
    let mut object = object.clone();
    from.to_storage(&mut object);
    to.to_served(&mut object);
    Ok(Cow::Owned(object))
}

#[cfg(test)]
mod tests {
    use super::super::hooks::compile_rule;
    use super::*;
    use serde_json::json;

    fn rule(operations: &[&str], groups: &[&str], resources: &[&str], scope: &str) -> Rule {
        compile_rule(&json!({
            "operations": operations, "apiGroups": groups, "apiVersions": ["v1"], "resources": resources,
            "scope": scope,
        }))
    }

    fn pods(subresource: &str) -> Asked<'_> {
        Asked { operation: "CREATE", group: "", version: "v1", plural: "pods", subresource, namespaced: true }
    }

    #[test]
    fn rules_take_stars_where_upstream_does() {
        let on = |resources: &[&str]| rule(&["CREATE"], &[""], resources, "*");
        for (resources, plain, exec) in [
            (&["pods"][..], true, false),
            (&["*"], true, false),
            (&["*/*"], true, true),
            (&["pods/*"], true, true),
            (&["pods/exec"], false, true),
            (&["*/exec"], false, true),
            (&["services", "pods"], true, false),
        ] {
            assert_eq!(on(resources).matches(&pods("")), plain, "{resources:?}");
            assert_eq!(on(resources).matches(&pods("exec")), exec, "{resources:?}");
        }
    }

    #[test]
    fn operation_group_version_and_scope_must_all_match() {
        let rule_on_pods = |operations: &[&str], groups: &[&str], scope| rule(operations, groups, &["pods"], scope);
        assert!(rule_on_pods(&["*"], &["*"], "Namespaced").matches(&pods("")));
        assert!(!rule_on_pods(&["UPDATE"], &[""], "*").matches(&pods("")));
        assert!(!rule_on_pods(&["CREATE"], &["apps"], "*").matches(&pods("")));
        assert!(!rule_on_pods(&["CREATE"], &[""], "Cluster").matches(&pods("")));
        let other_version = Asked { version: "v2", ..pods("") };
        assert!(!rule_on_pods(&["CREATE"], &[""], "*").matches(&other_version));
        let namespaces = Asked { plural: "namespaces", namespaced: false, ..pods("") };
        assert!(rule(&["CREATE"], &[""], &["namespaces"], "Cluster").matches(&namespaces));
        assert!(!rule(&["CREATE"], &[""], &["namespaces"], "Namespaced").matches(&namespaces));
    }

    #[test]
    fn an_object_is_shown_in_another_version() {
        let row = |group| Row::find(group, "v1", "events").unwrap();
        let event = json!({"kind": "Event", "apiVersion": "events.k8s.io/v1", "metadata": {"name": "a"},
            "regarding": {"kind": "Pod"}, "note": "x"});
        let core = convert_plainly(row("events.k8s.io"), row(""), None, &event).unwrap();
        assert_eq!((core.text("apiVersion"), core["message"].as_str()), ("v1", Some("x")));
        assert_eq!(convert_plainly(row(""), row("events.k8s.io"), None, &core).unwrap()["note"], "x");
    }
}
