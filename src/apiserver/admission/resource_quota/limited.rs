//! What nobody uses without a quota that covers it (upstream: `limitedResources`).

use api::Resource;
use api::quota::{Ask, Facts, Quota, Scope};

use crate::config::LimitedResource;

/// Why a request may not use what it wants to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uncovered {
    /// No quota is about it.
    Names(String),
    /// No quota has such a scope.
    Scopes(String),
}

/// What of the configuration is about a request.
#[derive(Clone, Debug, Default)]
pub struct Limits {
    /// Names under which quotas would count what is limited.
    names: Vec<String>,
    scopes: Vec<Scope>,
}

impl Limits {
    /// Scopes count for all kinds that have them, names for their resource.
    pub fn of(limited: &[LimitedResource], resource: &Resource, new: &Facts) -> Limits {
        let used = new.usage.iter().filter(|(_, amount)| !amount.is_zero() && !amount.is_negative());
        let of_resource = |one: &&LimitedResource| resource.group == one.group && resource.plural == one.plural;
        let limits = |name: &str| {
            let mut concerned = limited.iter().filter(of_resource);
            concerned.any(|one| one.contains.iter().any(|part| name.contains(part.as_str())))
        };
        let names = used.map(|(name, _)| name.clone()).filter(|name| limits(name)).collect();
        let scopes = limited.iter().flat_map(|one| &one.scopes).filter(|scope| new.is_in(scope)).cloned().collect();
        Limits { names, scopes }
    }

    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.scopes.is_empty()
    }

    /// Whether the quotas cover what is limited.
    pub fn check(&self, quotas: &[Quota], ask: &Ask) -> Result<(), Uncovered> {
        if self.is_empty() || !uses_more(quotas, ask) {
            return Ok(());
        }
        let covers = |name: &str| {
            let concerned = quotas.iter().filter(|quota| ask.concerns(quota));
            ask.evaluator.covers(name) && concerned.into_iter().any(|quota| quota.hard.contains_key(name))
        };
        let mut names: Vec<&str> = self.names.iter().map(String::as_str).filter(|name| !covers(name)).collect();
        if !names.is_empty() {
            names.sort_unstable();
            return Err(Uncovered::Names(format!("insufficient quota to consume: {}", names.join(","))));
        }
        let has = |wanted: &Scope| {
            let mut scopes = quotas.iter().flat_map(|quota| &quota.scopes);
            scopes.any(|scope| scope.name == wanted.name && ask.new.is_in(scope))
        };
        let scopes: Vec<String> = self.scopes.iter().filter(|scope| !has(scope)).map(print).collect();
        if scopes.is_empty() {
            return Ok(());
        }
        Err(Uncovered::Scopes(format!("insufficient quota to match these scopes: [{}]", scopes.join(" "))))
    }
}

/// An update that adds nothing needs no quota.
fn uses_more(quotas: &[Quota], ask: &Ask) -> bool {
    let grows = |old: Option<&Facts>| {
        let mut usage = ask.new.usage.iter().filter(|(_, amount)| !amount.is_zero());
        usage.any(|(name, amount)| old.and_then(|old| old.usage.get(name)).is_none_or(|before| amount > before))
    };
    let mut concerned = quotas.iter().filter(|quota| ask.concerns(quota)).peekable();
    if concerned.peek().is_none() {
        return grows(ask.old.as_ref());
    }
    // An object that comes into a quota's scope is new to it.
    concerned.any(|quota| grows(ask.old.as_ref().filter(|old| quota.concerns(&ask.evaluator, old))))
}

/// As Go writes the structure.
fn print(scope: &Scope) -> String {
    format!("{{{} {} [{}]}}", scope.name, scope.operator, scope.values.join(" "))
}

#[cfg(test)]
mod tests {
    use api::quota::Evaluator;
    use jiff::Timestamp;
    use serde_json::{Value, json};

    use super::*;

    fn facts(object: &Value) -> Facts {
        Evaluator::of("", "pods").unwrap().facts(object, Timestamp::UNIX_EPOCH)
    }

    fn ask(new: &Value, old: Option<&Value>) -> Ask {
        let evaluator = Evaluator::of("", "pods").unwrap();
        Ask { evaluator, new: facts(new), old: old.map(facts), is_status: false }
    }

    fn pod(class: &str, cpu: &str) -> Value {
        let resources = json!({"requests": {"cpu": cpu}});
        json!({"spec": {"priorityClassName": class, "containers": [{"name": "c", "resources": resources}]}})
    }

    fn quota(spec: Value, hard: Value) -> Quota {
        Quota::read(&json!({"metadata": {"name": "q"}, "spec": spec, "status": {"hard": hard, "used": hard}}))
    }

    fn limited() -> Vec<LimitedResource> {
        let scope = Scope { name: "PriorityClass".into(), operator: "In".into(), values: vec!["high".into()] };
        let (group, plural) = (String::new(), "pods".to_owned());
        vec![LimitedResource { group, plural, contains: vec!["requests.cpu".into()], scopes: vec![scope] }]
    }

    #[test]
    fn what_is_limited_needs_a_quota() {
        let pods = Resource::new("", "v1", "pods");
        let check = |quotas: &[Quota], ask: &Ask| Limits::of(&limited(), &pods, &ask.new).check(quotas, ask);
        let uncovered = Err(Uncovered::Names("insufficient quota to consume: requests.cpu".to_owned()));
        assert_eq!(check(&[], &ask(&pod("", "1"), None)), uncovered);
        assert_eq!(check(&[quota(json!({}), json!({"pods": "9"}))], &ask(&pod("", "1"), None)), uncovered);
        assert_eq!(check(&[quota(json!({}), json!({"requests.cpu": "9"}))], &ask(&pod("", "1"), None)), Ok(()));
        assert_eq!(check(&[], &ask(&json!({"spec": {"containers": [{"name": "c"}]}}), None)), Ok(()));
        let grown = ask(&pod("", "2"), Some(&pod("", "1")));
        assert_eq!(check(&[], &grown), uncovered);
        assert_eq!(check(&[], &ask(&pod("", "1"), Some(&pod("", "1")))), Ok(()), "nothing more is used");
        let maps = Resource::new("", "v1", "configmaps");
        assert!(Limits::of(&limited(), &maps, &Facts::default()).is_empty());
    }

    #[test]
    fn a_scope_that_is_limited_needs_a_quota_with_it() {
        let pods = Resource::new("", "v1", "pods");
        let asked = ask(&pod("high", "1"), None);
        let check = |quotas: &[Quota]| Limits::of(&limited(), &pods, &asked.new).check(quotas, &asked);
        let any = quota(json!({}), json!({"requests.cpu": "9"}));
        let text = "insufficient quota to match these scopes: [{PriorityClass In [high]}]".to_owned();
        assert_eq!(check(std::slice::from_ref(&any)), Err(Uncovered::Scopes(text)));
        let selector = json!([{"scopeName": "PriorityClass", "operator": "In", "values": ["high", "low"]}]);
        let scoped = quota(json!({"scopeSelector": {"matchExpressions": selector}}), json!({"pods": "9"}));
        assert_eq!(check(&[any, scoped]), Ok(()));
    }
}
