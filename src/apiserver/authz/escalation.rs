//! Nobody hands out more than they have: roles and bindings are checked against what their author may do, unless the
//! author may `escalate` or `bind`.

use api::{Failure, Fields, Row};
use serde_json::Value;

use super::{Action, Authorizer, Decision, Rule, covers};
use crate::identity::Identity;

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn check(
    authorizer: &Authorizer,
    user: &Identity,
    row: &Row,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Failure> {
    if row.resource.group != GROUP || user.is_in(Identity::MASTERS) {
        return Ok(());
    }
    match row.resource.plural.as_ref() {
        "roles" | "clusterroles" => {
            let unchanged = old.is_some_and(|old| {
                old.get("rules") == object.get("rules") && old.get("aggregationRule") == object.get("aggregationRule")
            });
            if unchanged || may(authorizer, user, "escalate", row, object, row.resource.plural.as_ref(), None) {
                return Ok(());
            }
            let mut wanted = rules(object);
            if object.has("aggregationRule") {
                let all = || vec!["*".to_owned()];
                wanted = vec![Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() }];
            }
            refuse_excess(authorizer, user, row, object, &wanted)
        }
        "rolebindings" | "clusterrolebindings" => {
            let unchanged = old.is_some_and(|old| {
                old.get("subjects") == object.get("subjects") && old.get("roleRef") == object.get("roleRef")
            });
            if unchanged {
                return Ok(());
            }
            let role = object.part("roleRef");
            let (plural, namespace) = match role.text("kind") {
                "ClusterRole" => ("clusterroles", ""),
                _ => ("roles", object.part("metadata").text("namespace")),
            };
            if may(authorizer, user, "bind", row, object, plural, Some(role.text("name"))) {
                return Ok(());
            }
            let wanted = authorizer
                .rbac()
                .role(namespace, role.text("name"))
                .ok_or_else(|| Failure::not_found(GROUP, plural, role.text("name")))?;
            refuse_excess(authorizer, user, row, object, &wanted)
        }
        _ => Ok(()),
    }
}

fn may(
    authorizer: &Authorizer,
    user: &Identity,
    verb: &str,
    _row: &Row,
    object: &Value,
    resource: &str,
    name: Option<&str>,
) -> bool {
    let metadata = object.part("metadata");
    let action = Action::Resource {
        verb,
        group: GROUP,
        resource,
        subresource: "",
        namespace: metadata.text("namespace"),
        name: name.unwrap_or_else(|| metadata.text("name")),
    };
    matches!(authorizer.decide(user, &action), Decision::Allow { .. })
}

fn rules(object: &Value) -> Vec<Rule> {
    object.list("rules").iter().filter_map(|rule| serde_json::from_value(rule.clone()).ok()).collect()
}

fn refuse_excess(
    authorizer: &Authorizer,
    user: &Identity,
    row: &Row,
    object: &Value,
    wanted: &[Rule],
) -> Result<(), Failure> {
    let metadata = object.part("metadata");
    let mine = authorizer.rbac().rules(user, metadata.text("namespace"));
    let excess = covers(&mine, wanted);
    if excess.is_empty() {
        return Ok(());
    }
    let listed: Vec<String> = excess
        .iter()
        .map(|rule| {
            if let Some(url) = rule.non_resource_urls.first() {
                return format!("{{NonResourceURLs:[{url:?}], Verbs:{:?}}}", rule.verbs);
            }
            format!("{{APIGroups:{:?}, Resources:{:?}, Verbs:{:?}}}", rule.api_groups, rule.resources, rule.verbs)
        })
        .collect();
    let why = format!(
        "user {:?} (groups={:?}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        user.groups,
        listed.join("\n")
    );
    Err(Failure::forbidden(GROUP, &row.resource.plural, metadata.text("name"), why))
}
