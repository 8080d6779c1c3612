//! ClusterRoles with an aggregation rule get the rules of those that it selects
//! (upstream: `clusterrole-aggregation-controller`).

use std::sync::Arc;
use std::time::Duration;

use client::{Client, Failure, Informer, Patch, Queue, Scope};
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use serde_json::json;
use task::Shutdown;

use crate::shared::select::compiled;

pub async fn run(client: Client, shutdown: Shutdown) -> Result<(), Failure> {
    let roles: Arc<Informer<ClusterRole>> = client.informer(Scope::all());
    roles.synced().await;
    let queue = Queue::new();
    let known = roles.clone();
    client::run_workers("cluster-role-aggregation", queue.clone(), 1, shutdown.clone(), move |name: String| {
        let (client, known) = (client.clone(), known.clone());
        async move { reconcile(&client, &known, &name).await }
    });
    let mut changes = roles.subscribe();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            _ = changes.next() => {}
        }
        // Any of them may be selected by any that aggregates.
        while changes.try_next().is_some() {}
        for role in roles.list().iter().filter(|role| role.aggregation_rule.is_some()) {
            queue.add(role.metadata.name.clone().unwrap_or_default());
        }
    }
}

async fn reconcile(client: &Client, roles: &Informer<ClusterRole>, name: &str) -> Result<Option<Duration>, Failure> {
    let Some(role) = roles.get("", name) else { return Ok(None) };
    let Some(rules) = aggregated(&role, &roles.list()) else { return Ok(None) };
    if role.rules.as_deref().unwrap_or_default() == rules {
        return Ok(None);
    }
    let config = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules,
    });
    client.patch::<ClusterRole>("", name, Patch::Apply { config, force: true }).await?;
    Ok(None)
}

/// The rules that a role should have; `None` if it aggregates nothing.
fn aggregated(role: &ClusterRole, all: &[Arc<ClusterRole>]) -> Option<Vec<PolicyRule>> {
    let selectors = role.aggregation_rule.as_ref()?.cluster_role_selectors.as_deref().unwrap_or_default();
    let mut others: Vec<&Arc<ClusterRole>> =
        all.iter().filter(|other| other.metadata.name != role.metadata.name).collect();
    others.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
    let mut rules: Vec<PolicyRule> = Vec::new();
    for selector in selectors.iter().map(compiled) {
        for other in others.iter().filter(|other| selector.matches_labels(other.metadata.labels.as_ref())) {
            for rule in other.rules.iter().flatten() {
                if !rules.contains(rule) {
                    rules.push(rule.clone());
                }
            }
        }
    }
    Some(rules)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn role(object: Value) -> Arc<ClusterRole> {
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn rules_come_from_selected_roles_by_name_and_each_once() {
        let rule = |resource: &str| json!({"apiGroups": [""], "resources": [resource], "verbs": ["get"]});
        let selected = json!({"matchLabels": {"to": "admin"}});
        let admin = role(json!({"metadata": {"name": "admin", "labels": {"to": "admin"}},
            "aggregationRule": {"clusterRoleSelectors": [selected, selected]}, "rules": [rule("old")]}));
        let all = [
            admin.clone(),
            role(json!({"metadata": {"name": "z", "labels": {"to": "admin"}}, "rules": [rule("pods"), rule("a")]})),
            role(json!({"metadata": {"name": "b", "labels": {"to": "admin"}}, "rules": [rule("pods"), rule("b")]})),
            role(json!({"metadata": {"name": "c"}, "rules": [rule("c")]})),
        ];
        let rules = aggregated(&admin, &all).unwrap();
        let names: Vec<String> = rules.iter().flat_map(|rule| rule.resources.clone().unwrap()).collect();
        assert_eq!(names, ["pods", "b", "a"]);
        assert_eq!(aggregated(&all[3], &all), None);
    }
}
