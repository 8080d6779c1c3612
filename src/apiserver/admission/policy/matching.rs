//! Which requests a policy or a binding is about (`matchConstraints`, `matchResources`).

use std::sync::Arc;

use api::{Failure, Fields, LabelSelector, Row};
use serde_json::Value;

use super::super::webhooks::hooks::{Rule, compile_rule};
use super::super::webhooks::matching::{Matcher, asked, equivalents};
use crate::admission::Attributes;
use crate::server::ApiServer;

/// A rule that may be only about some names (`NamedRuleWithOperations`).
struct NamedRule {
    rule: Rule,
    names: Vec<String>,
}

/// `MatchResources`.
pub struct Constraints {
    rules: Vec<NamedRule>,
    excluded: Vec<NamedRule>,
    equivalent: bool,
    namespaces: LabelSelector,
    objects: LabelSelector,
}

impl Constraints {
    pub fn compile(constraints: &Value) -> Constraints {
        let rules = |field: &str| {
            let one = |rule: &Value| NamedRule {
                rule: compile_rule(rule),
                names: rule.list("resourceNames").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            };
            constraints.list(field).iter().map(one).collect()
        };
        // What cannot be read was refused when it was written; should it be there all the same, it selects nothing.
        let selector = |field| match constraints.at(field) {
            Some(selector) => LabelSelector::from_value(Some(selector)).unwrap_or_else(|_| LabelSelector::nothing()),
            None => LabelSelector::everything(),
        };
        Constraints {
            rules: rules("resourceRules"),
            excluded: rules("excludeResourceRules"),
            equivalent: constraints.text("matchPolicy") != "Exact",
            namespaces: selector("namespaceSelector"),
            objects: selector("objectSelector"),
        }
    }

    /// The resource in whose version the request counts; `None` if it does not.
    pub async fn matching(
        &self,
        server: &ApiServer,
        matcher: &Matcher<'_>,
        attributes: &Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<Option<Arc<Row>>, Failure> {
        let selected = |object: Option<&Value>| object.is_some_and(|object| self.objects.matches_object(object));
        if !self.objects.is_empty() && !selected(object) && !selected(old) {
            return Ok(None);
        }
        if self.row(server, &self.excluded, attributes).is_some() {
            return Ok(None);
        }
        let row = match self.rules.as_slice() {
            [] => Some(attributes.row.clone()),
            rules => self.row(server, rules, attributes),
        };
        match row {
            Some(row) if matcher.in_namespace(&self.namespaces, attributes, object).await? => Ok(Some(row)),
            _ => Ok(None),
        }
    }

    fn row(&self, server: &ApiServer, rules: &[NamedRule], attributes: &Attributes<'_>) -> Option<Arc<Row>> {
        let of = |row: &Row, one: &NamedRule| {
            let named = one.names.is_empty() || one.names.iter().any(|name| name == attributes.name);
            named && one.rule.matches(&asked(row, attributes))
        };
        if rules.iter().any(|one| of(attributes.row, one)) {
            return Some(attributes.row.clone());
        }
        if !self.equivalent || rules.is_empty() {
            return None;
        }
        let others = equivalents(server, attributes.row, attributes.subresource);
        rules.iter().find_map(|one| others.iter().find(|row| of(row, one))).cloned()
    }
}
