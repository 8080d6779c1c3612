//! Rules in the expression language: they must compile, and may not cost too much.

use schema::structural::Structural;
use serde_json::{Value, json};

use crate::custom::rules::{self, Declared};
use crate::failure::FieldError;
use crate::fields::Fields;

/// The most that one rule may cost, as estimated, for all values that it is about.
const RULE_COST_MAX: u64 = 10_000_000;
/// The most that all rules of a version may cost.
const TOTAL_COST_MAX: u64 = 100_000_000;
/// How many rules are named when all together cost too much.
const NAMED_MAX: usize = 4;
const ADVICE: &str = "(try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, \
                      and strings are declared)";

/// What was found in one version, and what its rules cost.
#[derive(Default)]
pub(super) struct Expressions {
    pub errors: Vec<FieldError>,
    /// The schema is what it was: its rules may cost what they do.
    pub costs_are_old: bool,
    total: u64,
    costly: Vec<(String, u64)>,
}

/// A part of a structural schema.
#[derive(Clone, Copy)]
pub(super) struct Node<'s> {
    pub schema: &'s Structural,
    declared: &'s Declared,
    /// How many values of it an object can have; `None` where nothing bounds it.
    cardinality: Option<u64>,
}

impl<'s> Node<'s> {
    pub fn root(schema: &'s Structural, declared: &'s Declared) -> Node<'s> {
        Node { schema, declared, cardinality: Some(1) }
    }

    pub fn field(self, name: &str) -> Option<Node<'s>> {
        self.below(self.schema.properties.get(name), self.declared.fields.get(name))
    }

    pub fn items(self) -> Option<Node<'s>> {
        self.below(self.schema.items.as_deref(), self.declared.items.as_deref())
    }

    pub fn additional(self) -> Option<Node<'s>> {
        self.below(self.schema.additional_schema(), self.declared.additional.as_deref())
    }

    fn below(self, schema: Option<&'s Structural>, declared: Option<&'s Declared>) -> Option<Node<'s>> {
        let cardinality = self.cardinality.and_then(|mine| Some(mine.saturating_mul(self.elements_max()?)));
        Some(Node { schema: schema?, declared: declared?, cardinality })
    }

    fn elements_max(self) -> Option<u64> {
        let values = &self.schema.values;
        let bound = |max: Option<i64>| max.map(|max| u64::try_from(max).unwrap_or_default());
        match self.schema.ty.as_str() {
            "object" if self.schema.additional.is_some() => bound(values.max_properties),
            "array" => bound(values.max_items),
            _ => Some(1),
        }
    }
}

impl Expressions {
    /// Checks the rules of one part. `uncorrelatable` is the list below which older values can't be told.
    pub fn check(&mut self, node: Node<'_>, json: &Value, path: &str, uncorrelatable: Option<&str>) {
        let rules = json.list("x-kubernetes-validations");
        if rules.is_empty() {
            return;
        }
        let path = format!("{path}.x-kubernetes-validations");
        let Some(decl) = &node.declared.decl else {
            let text = "internal error: failed to construct type information for x-kubernetes-validations rules: \
                        unable to convert structural schema to CEL declarations";
            self.errors.push(FieldError::with("InternalError", path, "Internal error", None, text));
            return;
        };
        let times = node.cardinality.unwrap_or_else(|| node.declared.cardinality_max());
        for (index, (compiled, json)) in rules::compile(node.schema, decl).iter().zip(rules).enumerate() {
            let path = format!("{path}[{index}]");
            let rule_path = format!("{path}.rule");
            match &compiled.rule {
                Ok(Some(rule)) => {
                    self.cost("estimated rule cost", rule_path.clone(), rule.cost_max.saturating_mul(times));
                }
                Ok(None) => {}
                Err(why) => self.errors.push(FieldError::invalid(rule_path.as_str(), &shown(json), why)),
            }
            let message_path = format!("{path}.messageExpression");
            match &compiled.message {
                Ok(Some(message)) => self.cost("estimated messageExpression cost", message_path, message.cost_max),
                Ok(None) => {}
                Err(why) => self.errors.push(FieldError::invalid(message_path, &shown(json), why)),
            }
            if compiled.uses_old_self {
                if let Some(list) = uncorrelatable {
                    let text =
                        format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {list}");
                    self.errors.push(FieldError::invalid(rule_path, json.part("rule"), &text));
                }
            } else if let Some(optional) = json.at("optionalOldSelf") {
                let text = "may not be set if oldSelf is not used in rule";
                self.errors.push(FieldError::invalid(format!("{path}.optionalOldSelf"), optional, text));
            }
        }
    }

    fn cost(&mut self, what: &str, path: String, cost: u64) {
        if cost > RULE_COST_MAX && !self.costs_are_old {
            self.errors.push(FieldError::forbidden(path.as_str(), &exceeds(what, cost, RULE_COST_MAX)));
        }
        self.total = self.total.saturating_add(cost);
        if cost >= TOTAL_COST_MAX / 100 {
            self.costly.push((path, cost));
            self.costly.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
            self.costly.truncate(NAMED_MAX);
        }
    }

    /// What is to be said of all rules together.
    pub fn total(&self, path: &str) -> Vec<FieldError> {
        if self.total <= TOTAL_COST_MAX {
            return Vec::new();
        }
        let text = "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
        let costly = self.costly.iter().map(|(path, _)| FieldError::forbidden(path.as_str(), text));
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        costly.chain([FieldError::forbidden(path, &exceeds(what, self.total, TOTAL_COST_MAX))]).collect()
    }
}

fn exceeds(what: &str, cost: u64, max: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "only a few digits are shown")]
    let factor = cost as f64 / max as f64;
    let factor = if factor > 100.0 {
        "more than 100x".to_owned()
    } else if factor < 1.5 {
        format!("{factor:.6}x")
    } else {
        format!("{factor:.1}x")
    };
    format!("{what} exceeds budget by factor of {factor} {ADVICE}")
}

/// A rule as upstream's internal form of it is shown.
fn shown(rule: &Value) -> Value {
    let (text, or_null) = (|name| rule.text(name), |name| rule.part(name).clone());
    json!({
        "Rule": text("rule"), "Message": text("message"), "MessageExpression": text("messageExpression"),
        "Reason": or_null("reason"), "FieldPath": text("fieldPath"), "OptionalOldSelf": or_null("optionalOldSelf"),
    })
}
