//! The audit policy (`audit.k8s.io/v1 Policy`): what is recorded of which request, and at which stages.

use serde::{Deserialize, Serialize};

use super::OptionsError;
use crate::identity::Identity;

/// How much of a request is recorded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
pub enum Level {
    #[default]
    None,
    Metadata,
    Request,
    RequestResponse,
}

/// When an event is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

/// What the policy says of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    pub level: Level,
    pub omit_stages: Vec<Stage>,
    pub omit_managed_fields: bool,
}

/// What a rule looks at.
#[derive(Clone, Copy, Debug)]
pub struct Attributes<'a> {
    /// `None` where nobody could be identified.
    pub user: Option<&'a Identity>,
    pub verb: &'a str,
    pub about: About<'a>,
}

#[derive(Clone, Copy, Debug)]
pub enum About<'a> {
    Resource { group: &'a str, resource: &'a str, subresource: &'a str, namespace: &'a str, name: &'a str },
    Path(&'a str),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Policy {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    level: Option<Level>,
    users: Vec<String>,
    user_groups: Vec<String>,
    verbs: Vec<String>,
    resources: Vec<GroupResources>,
    namespaces: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    paths: Vec<String>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

impl Policy {
    /// From YAML or JSON.
    pub fn parse(text: &str) -> Result<Policy, OptionsError> {
        let wrong = |why: String| OptionsError::Policy { why };
        let policy: Policy = serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if (policy.api_version.as_str(), policy.kind.as_str()) != ("audit.k8s.io/v1", "Policy") {
            let (version, kind) = (&policy.api_version, &policy.kind);
            return Err(wrong(format!("unknown group version field {version}, Kind={kind} in policy")));
        }
        if policy.rules.is_empty() {
            return Err(wrong("loaded illegal policy with 0 rules".to_owned()));
        }
        let check = |(index, rule): (usize, &Rule)| rule.check().map_err(|why| wrong(format!("rules[{index}].{why}")));
        policy.rules.iter().enumerate().try_for_each(check)?;
        Ok(policy)
    }

    /// The first rule that matches decides.
    pub fn evaluate(&self, attributes: &Attributes<'_>) -> Verdict {
        let rule = self.rules.iter().find(|rule| rule.matches(attributes));
        let Some(rule) = rule else { return Verdict::default() };
        Verdict {
            level: rule.level.unwrap_or_default(),
            omit_stages: self.omit_stages.iter().chain(&rule.omit_stages).copied().collect(),
            omit_managed_fields: rule.omit_managed_fields.unwrap_or(self.omit_managed_fields),
        }
    }
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        if self.level.is_none() {
            return Err("level: Required value".to_owned());
        }
        for (index, path) in self.paths.iter().enumerate().filter(|(_, path)| *path != "*") {
            if !path.starts_with('/') {
                let why = "non-resource URL rules must begin with a '/' character";
                return Err(format!("nonResourceURLs[{index}]: Invalid value: \"{path}\": {why}"));
            }
            if path.strip_suffix('*').unwrap_or(path).contains('*') {
                let why = "non-resource URL wildcards '*' must be the final character of the rule";
                return Err(format!("nonResourceURLs[{index}]: Invalid value: \"{path}\": {why}"));
            }
        }
        if !self.paths.is_empty() && (!self.resources.is_empty() || !self.namespaces.is_empty()) {
            let why = "rules cannot apply to both regular resources and non-resource URLs";
            return Err(format!("nonResourceURLs: Invalid value: {:?}: {why}", self.paths));
        }
        for one in &self.resources {
            if one.group.contains('/') {
                return Err(format!("resources.group: Invalid value: \"{}\"", one.group));
            }
            if !one.resource_names.is_empty() && one.resources.is_empty() {
                let why = "using resourceNames requires at least one resource";
                return Err(format!("resources.resourceNames: Invalid value: {:?}: {why}", one.resource_names));
            }
        }
        Ok(())
    }

    fn matches(&self, attributes: &Attributes<'_>) -> bool {
        let among = |list: &[String], one: &str| list.is_empty() || list.iter().any(|listed| listed == one);
        let user = attributes.user;
        if !self.users.is_empty() && !user.is_some_and(|user| among(&self.users, &user.name)) {
            return false;
        }
        let in_group = |user: &Identity| self.user_groups.iter().any(|group| user.is_in(group));
        if !self.user_groups.is_empty() && !user.is_some_and(in_group) {
            return false;
        }
        if !among(&self.verbs, attributes.verb) {
            return false;
        }
        let about_resources = !self.namespaces.is_empty() || !self.resources.is_empty();
        match attributes.about {
            About::Resource { namespace, .. } if about_resources => {
                among(&self.namespaces, namespace)
                    && (self.resources.is_empty() || self.resources.iter().any(|one| one.covers(attributes.about)))
            }
            About::Resource { .. } => self.paths.is_empty(),
            About::Path(path) => {
                !about_resources && (self.paths.is_empty() || self.paths.iter().any(|pattern| fits(pattern, path)))
            }
        }
    }
}

impl GroupResources {
    fn covers(&self, about: About<'_>) -> bool {
        let About::Resource { group, resource, subresource, name, .. } = about else { return false };
        if self.group != group && self.group != "*" {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !self.resource_names.iter().any(|one| one == name) {
            return false;
        }
        self.resources.iter().any(|pattern| match pattern.split_once('/') {
            None => pattern == "*" || (subresource.is_empty() && pattern == resource),
            Some((of, "*")) => of == resource,
            Some(("*", sub)) => !subresource.is_empty() && sub == subresource,
            Some(pair) => pair == (resource, subresource),
        })
    }
}

fn fits(pattern: &str, path: &str) -> bool {
    pattern == path || pattern.strip_suffix('*').is_some_and(|prefix| path.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
omitManagedFields: true
rules:
- {level: None, users: ["system:kube-proxy"], verbs: [watch], resources: [{group: "", resources: [endpoints, services]}]}
- {level: None, nonResourceURLs: ["/healthz*", "/version"]}
- {level: RequestResponse, userGroups: ["system:masters"], resources: [{group: "*", resources: ["*/scale", "pods/*"]}], omitManagedFields: false}
- {level: Metadata, resources: [{group: "", resources: [secrets]}], omitStages: [Panic]}
- {level: Request, namespaces: [kube-system], resources: [{group: apps}]}
- {level: Request, resources: [{group: "", resources: [configmaps], resourceNames: [leader]}]}
- {level: Metadata, namespaces: [""]}
"#;

    fn level(user: &Identity, verb: &str, path: &str) -> Level {
        let parts: Vec<&str> = path.split('|').collect();
        let about = match parts.as_slice() {
            [group, resource, subresource, namespace, name] => {
                About::Resource { group, resource, subresource, namespace, name }
            }
            _ => About::Path(path),
        };
        Policy::parse(POLICY).unwrap().evaluate(&Attributes { user: Some(user), verb, about }).level
    }

    #[test]
    fn the_first_rule_that_matches_decides() {
        let (jane, admin) = (Identity::user("jane", [""; 0]), Identity::master("admin"));
        let proxy = Identity::user("system:kube-proxy", [""; 0]);
        assert_eq!(level(&proxy, "watch", "|services||a|"), Level::None);
        assert_eq!(level(&jane, "get", "/healthz/ping"), Level::None);
        assert_eq!(level(&admin, "update", "apps|deployments|scale|a|b"), Level::RequestResponse);
        assert_eq!(level(&admin, "get", "|pods||a|b"), Level::RequestResponse, "as upstream has it");
        assert_eq!(level(&jane, "get", "|secrets||a|b"), Level::Metadata);
        assert_eq!(level(&jane, "get", "|secrets|x|a|b"), Level::None);
        assert_eq!(level(&jane, "get", "apps|deployments||kube-system|b"), Level::Request);
        assert_eq!(level(&jane, "get", "|configmaps||a|leader"), Level::Request);
        assert_eq!(level(&jane, "get", "|configmaps||a|other"), Level::None);
        assert_eq!(level(&jane, "get", "|nodes|||n1"), Level::Metadata);
        assert_eq!(level(&jane, "get", "/metrics"), Level::None);
        let about = About::Resource { group: "", resource: "secrets", subresource: "", namespace: "a", name: "" };
        let verdict = Policy::parse(POLICY).unwrap().evaluate(&Attributes { user: None, verb: "list", about });
        assert_eq!(verdict.omit_stages, [Stage::RequestReceived, Stage::Panic]);
        assert!(verdict.omit_managed_fields);
    }

    #[test]
    fn broken_policies_are_refused() {
        for (rules, expected) in [
            ("[]", "loaded illegal policy with 0 rules"),
            ("[{users: [a]}]", "rules[0].level: Required value"),
            ("[{level: Metadata, nonResourceURLs: [x]}]", "must begin with a '/'"),
            ("[{level: Metadata, nonResourceURLs: ['/a*b']}]", "must be the final character"),
            ("[{level: Metadata, nonResourceURLs: ['/a'], namespaces: [b]}]", "both regular resources and"),
            ("[{level: Loud}]", "Loud"),
        ] {
            let text = format!("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: {rules}\n");
            let error = Policy::parse(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let old = Policy::parse("apiVersion: audit.k8s.io/v1beta1\nkind: Policy\nrules: [{level: None}]").unwrap_err();
        assert!(old.to_string().contains("unknown group version field"));
    }
}
