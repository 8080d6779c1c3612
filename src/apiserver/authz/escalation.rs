//! Nobody hands out more than they have: roles and bindings are checked against what their author may do, unless the
//! author may `escalate` or `bind`.

use api::{Failure, Fields, Row};
use serde_json::Value;

use super::{Action, Authorizer, Rule, covers};
use crate::identity::Identity;

const GROUP: &str = "rbac.authorization.k8s.io";

pub async fn check(
    authorizer: &Authorizer,
    user: &Identity,
    row: &Row,
    object: &Value,
    old: Option<&Value>,
) -> Result<(), Failure> {
    if row.resource.group != GROUP || user.is_in(Identity::MASTERS) {
        return Ok(());
    }
    if old.is_some_and(|old| is_for_collection_only(old, object)) {
        return Ok(());
    }
    match row.resource.plural.as_ref() {
        plural @ ("roles" | "clusterroles") => {
            // A name that is only to be is not looked at: the path of a creation has none.
            let name = old.map(|old| old.part("metadata").text("name")).unwrap_or_default();
            if may(authorizer, user, "escalate", object, plural, name).await {
                return Ok(());
            }
            refuse_excess(authorizer, user, row, object, &rules(object))?;
            let aggregates = |role: &Value| !role.part("aggregationRule").list("clusterRoleSelectors").is_empty();
            if (aggregates(object) || old.is_some_and(aggregates)) && !holds_everything(authorizer, user) {
                let why = "must have cluster-admin privileges to use the aggregationRule";
                return Err(Failure::forbidden(GROUP, plural, object.part("metadata").text("name"), why));
            }
            Ok(())
        }
        "rolebindings" | "clusterrolebindings" => {
            let role = object.part("roleRef");
            let (plural, namespace) = match role.text("kind") {
                "ClusterRole" => ("clusterroles", ""),
                _ => ("roles", object.part("metadata").text("namespace")),
            };
            if may(authorizer, user, "bind", object, plural, role.text("name")).await {
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

async fn may(authorizer: &Authorizer, user: &Identity, verb: &str, object: &Value, resource: &str, name: &str) -> bool {
    let namespace = object.part("metadata").text("namespace");
    let action = Action::Resource { verb, group: GROUP, resource, subresource: "", namespace, name };
    authorizer.decide(user, &action.into()).await.is_allowed()
}

/// Nothing is changed but what the garbage collector needs.
fn is_for_collection_only(old: &Value, object: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in ["ownerReferences", "finalizers", "managedFields", "resourceVersion", "generation"] {
                metadata.remove(field);
            }
        }
        object
    };
    rest(old) == rest(object)
}

fn holds_everything(authorizer: &Authorizer, user: &Identity) -> bool {
    let all = || vec!["*".to_owned()];
    let everything = [
        Rule { verbs: all(), api_groups: all(), resources: all(), ..Rule::default() },
        Rule { verbs: all(), non_resource_urls: all(), ..Rule::default() },
    ];
    covers(&authorizer.rbac().rules(user, ""), &everything).is_empty()
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
    let mut listed: Vec<String> = compacted(excess).iter().map(described).collect();
    listed.sort();
    listed.dedup();
    let why = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted(&user.groups),
        listed.join("\n")
    );
    Err(Failure::forbidden(GROUP, &row.resource.plural, metadata.text("name"), why))
}

/// Rules that differ in nothing but the verb as one, for people to read (upstream: `CompactRules`).
fn compacted(rules: Vec<Rule>) -> Vec<Rule> {
    let mut compact: Vec<Rule> = Vec::new();
    for mut rule in rules {
        let same = |one: &&mut Rule| {
            one.non_resource_urls.is_empty()
                && rule.non_resource_urls.is_empty()
                && one.api_groups == rule.api_groups
                && one.resources == rule.resources
                && one.resource_names == rule.resource_names
        };
        match compact.iter_mut().find(same) {
            Some(one) => one.verbs.append(&mut rule.verbs),
            None => compact.push(rule),
        }
    }
    compact
}

fn described(rule: &Rule) -> String {
    let parts = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let parts = parts.iter().filter(|(_, list)| !list.is_empty());
    let parts: Vec<String> = parts.map(|(name, list)| format!("{name}:{}", quoted(list))).collect();
    format!("{{{}}}", parts.join(", "))
}

/// A list as Go prints it with `%q`.
fn quoted(list: &[String]) -> String {
    let list: Vec<String> = list.iter().map(|one| format!("{one:?}")).collect();
    format!("[{}]", list.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;
    use api::Verb;
    use serde_json::json;

    #[tokio::test]
    async fn nobody_hands_out_more_than_they_have_unless_they_may() {
        let t = Fixture::start().await;
        let rule = |groups: &[&str], resources: &[&str], verbs: &[&str]| json!({"apiGroups": groups, "resources": resources, "verbs": verbs});
        let role = json!({"metadata": {"name": "author"}, "rules": [
            rule(&["rbac.authorization.k8s.io"], &["clusterroles", "clusterrolebindings"], &["create", "update"]),
            rule(&[""], &["pods"], &["get"]),
        ]});
        t.create("rbac.authorization.k8s.io", "clusterroles", role).await.unwrap();
        let binding = json!({"metadata": {"name": "author"}, "subjects": [{"kind": "User", "name": "eve",
            "apiGroup": "rbac.authorization.k8s.io"}],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "author"}});
        t.create("rbac.authorization.k8s.io", "clusterrolebindings", binding).await.unwrap();
        t.catch_up().await;
        let eve = Identity::user("eve", ["dev"]);
        let create = async |path: &str, body: Value| {
            let answer = t.server.call(&eve, t.ask(Verb::Create, GROUP, path, Some(body))).await;
            answer.map(drop).map_err(|failure| failure.to_string())
        };
        let role = |name: &str, rule: Value| json!({"metadata": {"name": name}, "rules": [rule]});
        create("clusterroles", role("a", rule(&[""], &["pods"], &["get"]))).await.unwrap();
        let refused = create("clusterroles", role("b", rule(&[""], &["pods"], &["get", "list", "watch"]))).await;
        let expected = "clusterroles.rbac.authorization.k8s.io \"b\" is forbidden: user \"eve\" \
                        (groups=[\"dev\" \"system:authenticated\"]) is attempting to grant RBAC permissions not \
                        currently held:\n{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"list\" \"watch\"]}";
        assert_eq!(refused.unwrap_err(), expected);
        let aggregated = json!({"metadata": {"name": "c"}, "aggregationRule": {"clusterRoleSelectors": [{}]}});
        let refused = create("clusterroles", aggregated).await.unwrap_err();
        assert!(refused.contains("must have cluster-admin privileges to use the aggregationRule"), "{refused}");
        let bind = |role: &str| {
            json!({"metadata": {"name": format!("to-{role}")}, "subjects": [],
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}})
        };
        create("clusterrolebindings", bind("a")).await.unwrap();
        assert!(
            create("clusterrolebindings", bind("cluster-admin")).await.unwrap_err().contains("attempting to grant")
        );
    }
}
