//! Label selectors in both forms: the string of list requests (`a=b,c!=d,e in (x,y),!f`) and the object of specs
//! (`matchLabels`, `matchExpressions`).

use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Value};

use super::SelectorError;
use crate::format;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operator {
    /// Also `=` and `==`.
    In,
    /// Also `!=`; a missing label matches.
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    pub values: Vec<String>,
    /// Written with `=` or `!=`.
    exact: bool,
}

impl Requirement {
    fn matches(&self, value: Option<&str>) -> bool {
        match self.operator {
            Operator::In => value.is_some_and(|value| self.values.iter().any(|one| one == value)),
            Operator::NotIn => value.is_none_or(|value| self.values.iter().all(|one| one != value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan | Operator::LessThan => {
                let limit = self.values.first().and_then(|limit| limit.parse::<i64>().ok());
                match (value.and_then(|value| value.parse::<i64>().ok()), limit) {
                    (Some(number), Some(limit)) if self.operator == Operator::GreaterThan => number > limit,
                    (Some(number), Some(limit)) => number < limit,
                    _ => false,
                }
            }
        }
    }
}

/// Conditions that must all hold. The default one has none and selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    nothing: bool,
}

impl LabelSelector {
    pub fn everything() -> LabelSelector {
        LabelSelector::default()
    }

    pub fn nothing() -> LabelSelector {
        LabelSelector { requirements: Vec::new(), nothing: true }
    }

    /// From the string form. Texts of errors are upstream's, with the prefix `unable to parse requirement` where
    /// it has it.
    pub fn parse(text: &str) -> Result<LabelSelector, SelectorError> {
        Parser { tokens: tokenize(text), position: 0 }.selector()
    }

    /// From the labels themselves, as Services and ReplicationControllers select.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a str, &'a str)>) -> LabelSelector {
        let mut requirements: Vec<Requirement> = labels
            .into_iter()
            .map(|(key, value)| Requirement {
                key: key.to_owned(),
                operator: Operator::In,
                values: vec![value.to_owned()],
                exact: true,
            })
            .collect();
        requirements.sort();
        LabelSelector { requirements, nothing: false }
    }

    /// From the object form (`metav1.LabelSelector`): none selects nothing, an empty one everything.
    pub fn from_value(selector: Option<&Value>) -> Result<LabelSelector, SelectorError> {
        let Some(selector) = selector.filter(|selector| !selector.is_null()) else {
            return Ok(LabelSelector::nothing());
        };
        let mut requirements = Vec::new();
        for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
            requirements.push(Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: vec![value.as_str().unwrap_or_default().to_owned()],
                exact: true,
            });
        }
        for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
            let operator = match expression.get("operator").and_then(Value::as_str).unwrap_or_default() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(SelectorError(format!("\"{other}\" is not a valid label selector operator"))),
            };
            let values = expression.get("values").and_then(Value::as_array);
            requirements.push(Requirement {
                key: expression.get("key").and_then(Value::as_str).unwrap_or_default().to_owned(),
                operator,
                values: values.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect(),
                exact: false,
            });
        }
        for requirement in &requirements {
            check(requirement)?;
        }
        requirements.sort();
        Ok(LabelSelector { requirements, nothing: false })
    }

    /// The same from k8s-openapi's type.
    pub fn from_selector(
        selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    ) -> Result<LabelSelector, SelectorError> {
        match selector {
            None => Ok(LabelSelector::nothing()),
            Some(selector) => {
                let value = serde_json::to_value(selector).map_err(|error| SelectorError(error.to_string()))?;
                LabelSelector::from_value(Some(&value))
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// On `metadata.labels` of k8s-openapi's types.
    pub fn matches_labels(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.matches_with(|key| labels?.get(key).map(String::as_str))
    }

    /// On a JSON map of labels.
    pub fn matches_map(&self, labels: Option<&Map<String, Value>>) -> bool {
        self.matches_with(|key| labels?.get(key)?.as_str())
    }

    /// On an object's own labels.
    pub fn matches_object(&self, object: &Value) -> bool {
        self.is_empty()
            || self.matches_map(object.get("metadata").and_then(|meta| meta.get("labels")).and_then(Value::as_object))
    }

    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(label(&requirement.key)))
    }
}

impl fmt::Display for LabelSelector {
    /// The string form, keys in order.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            let first = requirement.values.first().map_or("", String::as_str);
            let mut sorted = requirement.values.clone();
            sorted.sort();
            let list = sorted.join(",");
            let key = &requirement.key;
            match requirement.operator {
                Operator::In if requirement.exact => write!(f, "{key}={first}")?,
                Operator::NotIn if requirement.exact => write!(f, "{key}!={first}")?,
                Operator::In => write!(f, "{key} in ({list})")?,
                Operator::NotIn => write!(f, "{key} notin ({list})")?,
                Operator::Exists => f.write_str(key)?,
                Operator::DoesNotExist => write!(f, "!{key}")?,
                Operator::GreaterThan => write!(f, "{key}>{first}")?,
                Operator::LessThan => write!(f, "{key}<{first}")?,
            }
        }
        Ok(())
    }
}

fn check(requirement: &Requirement) -> Result<(), SelectorError> {
    let quoted = Value::from;
    let key = requirement.key.as_str();
    if let Some(finding) = format::label_key(key).first() {
        return Err(SelectorError(format!("key: Invalid value: {}: {finding}", quoted(key))));
    }
    match requirement.operator {
        Operator::In | Operator::NotIn if requirement.values.is_empty() => {
            let text = "values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty";
            return Err(SelectorError(text.to_owned()));
        }
        Operator::Exists | Operator::DoesNotExist if !requirement.values.is_empty() => {
            let values = Value::from(requirement.values.clone());
            let text = "values set must be empty for exists and does not exist";
            return Err(SelectorError(format!("values: Invalid value: {values}: {text}")));
        }
        Operator::GreaterThan | Operator::LessThan => {
            if let Some(value) = requirement.values.iter().find(|value| value.parse::<i64>().is_err()) {
                let text = "for 'Gt', 'Lt' operators, the value must be an integer";
                return Err(SelectorError(format!("values[0]: Invalid value: {}: {text}", quoted(value.as_str()))));
            }
        }
        _ => {}
    }
    for (index, value) in requirement.values.iter().enumerate() {
        if let Some(finding) = format::label_value(value).first() {
            return Err(SelectorError(format!(
                "values[{index}][{key}]: Invalid value: {}: {finding}",
                quoted(value.as_str())
            )));
        }
    }
    Ok(())
}

/// A word or one of the signs `! = == != , ( ) < >`, in source order.
fn tokenize(text: &str) -> Vec<&str> {
    let sign = |c: char| "!=,()<>".contains(c);
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let end = if sign(first) {
            if ["==", "!="].iter().any(|two| rest.starts_with(two)) { 2 } else { 1 }
        } else {
            rest.find(|c: char| sign(c) || c.is_whitespace()).unwrap_or(rest.len())
        };
        let (token, after) = rest.split_at(end);
        tokens.push(token);
        rest = after.trim_start();
    }
    tokens
}

struct Parser<'a> {
    tokens: Vec<&'a str>,
    position: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> &'a str {
        self.tokens.get(self.position).copied().unwrap_or_default()
    }

    fn next(&mut self) -> &'a str {
        let token = self.peek();
        self.position += 1;
        token
    }

    fn is_word(token: &str) -> bool {
        !token.is_empty() && !token.starts_with(['!', '=', ',', '(', ')', '<', '>'])
    }

    fn selector(mut self) -> Result<LabelSelector, SelectorError> {
        let mut requirements = Vec::new();
        loop {
            let token = self.peek();
            if token.is_empty() {
                break;
            }
            if !Self::is_word(token) && token != "!" {
                return Err(SelectorError(format!("found '{token}', expected: !, identifier, or 'end of string'")));
            }
            let requirement = self
                .requirement()
                .map_err(|SelectorError(text)| SelectorError(format!("unable to parse requirement: {text}")))?;
            requirements.push(requirement);
            match self.next() {
                "" => break,
                "," => {
                    let after = self.peek();
                    if !Self::is_word(after) && after != "!" {
                        return Err(SelectorError(format!("found '{after}', expected: identifier after ','")));
                    }
                }
                other => {
                    return Err(SelectorError(format!("found '{other}', expected: ',' or 'end of string'")));
                }
            }
        }
        requirements.sort();
        Ok(LabelSelector { requirements, nothing: false })
    }

    fn requirement(&mut self) -> Result<Requirement, SelectorError> {
        let negated = self.peek() == "!";
        if negated {
            self.next();
        }
        let key = self.next();
        if !Self::is_word(key) {
            return Err(SelectorError(format!("found '{key}', expected: identifier")));
        }
        let done = |operator, values, exact| {
            let requirement = Requirement { key: key.to_owned(), operator, values, exact };
            check(&requirement).map(|()| requirement)
        };
        if negated {
            return done(Operator::DoesNotExist, Vec::new(), false);
        }
        let (operator, exact) = match self.peek() {
            "" | "," => return done(Operator::Exists, Vec::new(), false),
            "in" => (Operator::In, false),
            "notin" => (Operator::NotIn, false),
            "=" | "==" => (Operator::In, true),
            "!=" => (Operator::NotIn, true),
            ">" => (Operator::GreaterThan, true),
            "<" => (Operator::LessThan, true),
            other => {
                let expected = "in, notin, =, ==, !=, gt, lt";
                return Err(SelectorError(format!("found '{other}', expected: {expected}")));
            }
        };
        self.next();
        let values = if exact { vec![self.exact_value()?] } else { self.values()? };
        done(operator, values, exact)
    }

    fn exact_value(&mut self) -> Result<String, SelectorError> {
        match self.peek() {
            "" | "," => Ok(String::new()),
            word if Self::is_word(word) => Ok(self.next().to_owned()),
            other => Err(SelectorError(format!("found '{other}', expected: identifier"))),
        }
    }

    fn values(&mut self) -> Result<Vec<String>, SelectorError> {
        let open = self.next();
        if open != "(" {
            return Err(SelectorError(format!("found '{open}' expected: '('")));
        }
        let mut values = Vec::new();
        loop {
            let word = if Self::is_word(self.peek()) { self.next() } else { "" };
            values.push(word.to_owned());
            match self.next() {
                "," => {}
                ")" => break,
                other => return Err(SelectorError(format!("found '{other}', expected: ',' or ')'"))),
            }
        }
        values.sort();
        values.dedup();
        Ok(values)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_string_form_selects() {
        let web = labels(&[("app", "web"), ("tier", "front"), ("n", "5")]);
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (web, db)", true),
            ("app notin (web)", false),
            ("app", true),
            ("!app", false),
            ("!other , app", true),
            ("n>4,n<6", true),
            ("n>5", false),
            ("app=", false),
            ("in in (in)", false),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap().matches(&web), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_told_as_upstream_tells_it() {
        for (text, message) in [
            ("a in x", "unable to parse requirement: found 'x' expected: '('"),
            ("=a", "found '=', expected: !, identifier, or 'end of string'"),
            ("a,", "found '', expected: identifier after ','"),
            ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("a=b=c", "found '=', expected: ',' or 'end of string'"),
        ] {
            assert_eq!(LabelSelector::parse(text).unwrap_err().to_string(), message);
        }
        let error = LabelSelector::parse("a=b b").unwrap_err();
        assert!(error.to_string().starts_with("found 'b'"), "{error}");
        let error = LabelSelector::parse("a=_b").unwrap_err().to_string();
        assert!(
            error.starts_with("unable to parse requirement: values[0][a]: Invalid value: \"_b\": a valid label must")
        );
    }

    #[test]
    fn the_object_form_selects() {
        let selector = json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["back", "a"]}]
        });
        let selector = LabelSelector::from_value(Some(&selector)).unwrap();
        assert_eq!(selector.to_string(), "app=web,tier notin (a,back)");
        assert!(selector.matches_object(&json!({"metadata": {"labels": {"app": "web"}}})));
        assert!(!selector.matches_object(&json!({"metadata": {"labels": {"app": "web", "tier": "back"}}})));
        assert!(!LabelSelector::from_value(None).unwrap().matches_object(&json!({})));
        assert!(LabelSelector::from_value(Some(&json!({}))).unwrap().matches_object(&json!({})));
        let bad = json!({"matchExpressions": [{"key": "a", "operator": "Is"}]});
        assert_eq!(
            LabelSelector::from_value(Some(&bad)).unwrap_err().to_string(),
            "\"Is\" is not a valid label selector operator"
        );
    }
}
