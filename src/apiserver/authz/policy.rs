//! RBAC's rules and which of them cover what.

use serde::{Deserialize, Serialize};

use super::Action;

/// `rbac.authorization.k8s.io/v1 PolicyRule`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub verbs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub api_groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub resource_names: Vec<String>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty", deserialize_with = "list")]
    pub non_resource_urls: Vec<String>,
}

fn list<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default())
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|one| one == "*" || one == wanted)
}

impl Rule {
    pub fn allows(&self, action: &Action<'_>) -> bool {
        match *action {
            Action::Path { verb, path } => {
                has(&self.verbs, verb) && self.non_resource_urls.iter().any(|url| url_covers(url, path))
            }
            Action::Resource { verb, group, resource, subresource, name, .. } => {
                has(&self.verbs, verb)
                    && has(&self.api_groups, group)
                    && self.resources.iter().any(|one| resource_covers(one, resource, subresource))
                    && (self.resource_names.is_empty() || self.resource_names.iter().any(|one| one == name))
            }
        }
    }
}

/// `*` is everything, `pods` is pods, `pods/log` that subresource, `*/scale` that subresource of all.
fn resource_covers(granted: &str, resource: &str, subresource: &str) -> bool {
    if granted == "*" {
        return true;
    }
    match granted.split_once('/') {
        None => subresource.is_empty() && granted == resource,
        Some((one, sub)) => !subresource.is_empty() && sub == subresource && (one == "*" || one == resource),
    }
}

fn url_covers(granted: &str, path: &str) -> bool {
    granted == "*" || granted == path || granted.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

/// The parts of `wanted` that `granted` does not cover: what somebody would gain by handing it out.
pub fn covers(granted: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    wanted.iter().flat_map(break_down).filter(|one| !granted.iter().any(|rule| rule_covers(rule, one))).collect()
}

/// One rule for each verb, group, resource and name.
fn break_down(rule: &Rule) -> Vec<Rule> {
    let mut parts = Vec::new();
    for verb in &rule.verbs {
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let part = |names: Vec<String>| Rule {
                    verbs: vec![verb.clone()],
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    resource_names: names,
                    non_resource_urls: Vec::new(),
                };
                if rule.resource_names.is_empty() {
                    parts.push(part(Vec::new()));
                }
                parts.extend(rule.resource_names.iter().map(|name| part(vec![name.clone()])));
            }
        }
        parts.extend(rule.non_resource_urls.iter().map(|url| Rule {
            verbs: vec![verb.clone()],
            non_resource_urls: vec![url.clone()],
            ..Rule::default()
        }));
    }
    parts
}

fn rule_covers(granted: &Rule, part: &Rule) -> bool {
    if !part.verbs.iter().all(|verb| has(&granted.verbs, verb)) {
        return false;
    }
    if let Some(url) = part.non_resource_urls.first() {
        return granted.non_resource_urls.iter().any(|one| url_covers(one, url));
    }
    part.api_groups.iter().all(|group| has(&granted.api_groups, group))
        && part.resources.iter().all(|wanted| {
            granted.resources.iter().any(|one| {
                one == "*"
                    || one == wanted
                    || matches!((one.strip_prefix("*/"), wanted.split_once('/')), (Some(sub), Some((_, s))) if sub == s)
            })
        })
        && (granted.resource_names.is_empty()
            || (!part.resource_names.is_empty()
                && part.resource_names.iter().all(|name| granted.resource_names.contains(name))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str], names: &[&str]) -> Rule {
        let owned = |list: &[&str]| list.iter().map(|one| (*one).to_owned()).collect();
        Rule {
            verbs: owned(verbs),
            api_groups: owned(groups),
            resources: owned(resources),
            resource_names: owned(names),
            non_resource_urls: Vec::new(),
        }
    }

    fn may(rule: &Rule, verb: &str, group: &str, resource: &str, subresource: &str, name: &str) -> bool {
        rule.allows(&Action::Resource { verb, group, resource, subresource, namespace: "n", name })
    }

    #[test]
    fn rules_cover_what_upstream_says_they_cover() {
        let read = rule(&["get", "list"], &[""], &["pods", "*/scale", "pods/log"], &[]);
        assert!(may(&read, "get", "", "pods", "", "a"));
        assert!(may(&read, "get", "", "pods", "log", "a"));
        assert!(may(&read, "get", "", "replicationcontrollers", "scale", "a"));
        assert!(!may(&read, "get", "", "pods", "exec", "a"));
        assert!(!may(&read, "delete", "", "pods", "", "a"));
        assert!(!may(&read, "get", "apps", "pods", "", "a"));
        let named = rule(&["*"], &["*"], &["*"], &["a"]);
        assert!(may(&named, "update", "x", "y", "z", "a"));
        assert!(!may(&named, "update", "x", "y", "z", "b"));
        assert!(!may(&named, "list", "x", "y", "", ""));
        let url = Rule { verbs: vec!["get".into()], non_resource_urls: vec!["/healthz/*".into()], ..Rule::default() };
        assert!(url.allows(&Action::Path { verb: "get", path: "/healthz/ping" }));
        assert!(!url.allows(&Action::Path { verb: "get", path: "/healthz" }));
    }

    #[test]
    fn nobody_hands_out_more_than_they_have() {
        let mine = [rule(&["get", "list"], &[""], &["pods"], &[]), rule(&["get"], &["apps"], &["*"], &[])];
        assert!(covers(&mine, &[rule(&["get"], &["", "apps"], &["pods"], &[])]).is_empty());
        assert!(covers(&mine, &[rule(&["get"], &[""], &["pods"], &["a"])]).is_empty());
        let missing = covers(&mine, &[rule(&["get", "delete"], &[""], &["pods", "secrets"], &[])]);
        assert_eq!(missing.len(), 3, "{missing:?}");
        assert_eq!(
            covers(&[rule(&["get"], &[""], &["pods"], &["a"])], &[rule(&["get"], &[""], &["pods"], &[])]).len(),
            1
        );
    }
}
