//! What is about to be done, as authorizers see it (upstream: `authorizer.Attributes`).

use std::borrow::Cow;

use api::LabelSelector;
use api::selector::{Operator, SelectorError};
use serde::{Deserialize, Serialize};

/// What RBAC looks at.
#[derive(Clone, Copy, Debug)]
pub enum Action<'a> {
    Resource {
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        subresource: &'a str,
        namespace: &'a str,
        name: &'a str,
    },
    /// A path that is no resource, such as `/healthz`.
    Path { verb: &'a str, path: &'a str },
}

/// An action with what only some authorizers look at.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    pub action: Action<'a>,
    /// Of the API; `*` stands for any.
    pub version: &'a str,
    pub fields: Selector<'a>,
    pub labels: Selector<'a>,
}

/// A selector as it came. It is taken apart when somebody asks.
#[derive(Clone, Debug, Default)]
pub enum Selector<'a> {
    #[default]
    None,
    Raw(&'a str),
    Requirements(Vec<Requirement>),
}

impl<'a> Selector<'a> {
    /// An empty text is no selector.
    pub fn of(text: &'a str) -> Selector<'a> {
        if text.is_empty() { Selector::None } else { Selector::Raw(text) }
    }
}

/// `FieldSelectorRequirement` and `LabelSelectorRequirement` of `authorization.k8s.io`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    pub key: String,
    pub operator: Cow<'static, str>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<String>,
}

/// What of a selector is understood. The rest is left out: conditions that must all hold are only widened by that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requirements {
    pub known: Vec<Requirement>,
    /// Something was left out.
    pub partial: bool,
}

impl<'a> Action<'a> {
    /// Empty for the cluster's own.
    pub fn namespace(&self) -> &'a str {
        match self {
            Action::Resource { namespace, .. } => namespace,
            Action::Path { .. } => "",
        }
    }
}

impl<'a> From<Action<'a>> for Attributes<'a> {
    fn from(action: Action<'a>) -> Attributes<'a> {
        Attributes { action, version: "*", fields: Selector::None, labels: Selector::None }
    }
}

impl Attributes<'_> {
    pub fn field_requirements(&self) -> Requirements {
        match &self.fields {
            Selector::None => Requirements::default(),
            Selector::Raw(text) => fields(text),
            Selector::Requirements(all) => {
                split(all, |one| matches!(one.operator.as_ref(), "In" | "NotIn") && one.values.len() == 1)
            }
        }
    }

    pub fn label_requirements(&self) -> Requirements {
        match &self.labels {
            Selector::None => Requirements::default(),
            Selector::Raw(text) => labels(text).unwrap_or(Requirements { known: Vec::new(), partial: true }),
            Selector::Requirements(all) => split(all, |one| match one.operator.as_ref() {
                "In" | "NotIn" => !one.values.is_empty(),
                "Exists" | "DoesNotExist" => one.values.is_empty(),
                _ => false,
            }),
        }
    }
}

fn split(all: &[Requirement], understood: impl Fn(&Requirement) -> bool) -> Requirements {
    let known: Vec<Requirement> = all.iter().filter(|one| understood(one)).cloned().collect();
    let partial = known.len() < all.len();
    Requirements { known, partial }
}

/// `a=b,c!=d`, with `\` before a character that would mean something.
fn fields(text: &str) -> Requirements {
    let mut known = Vec::new();
    for term in terms(text).iter().filter(|term| !term.is_empty()) {
        let (key, operator, value) = match (term.split_once("!="), term.split_once("=="), term.split_once('=')) {
            (Some((key, value)), ..) => (key, "NotIn", value),
            (_, Some((key, value)), _) | (_, _, Some((key, value))) => (key, "In", value),
            _ => return Requirements { known: Vec::new(), partial: true },
        };
        let Some(value) = unescape(value) else { return Requirements { known: Vec::new(), partial: true } };
        known.push(Requirement { key: key.to_owned(), operator: operator.into(), values: vec![value] });
    }
    Requirements { known, partial: false }
}

fn terms(text: &str) -> Vec<&str> {
    let (mut terms, mut start, mut escaped) = (Vec::new(), 0, false);
    for (at, one) in text.char_indices() {
        match one {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(text.get(start..at).unwrap_or_default());
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(text.get(start..).unwrap_or_default());
    terms
}

fn unescape(value: &str) -> Option<String> {
    let mut out = String::with_capacity(value.len());
    let mut rest = value.chars();
    while let Some(one) = rest.next() {
        match one {
            '\\' => out.push(rest.next().filter(|next| matches!(next, '\\' | ',' | '='))?),
            ',' | '=' => return None,
            one => out.push(one),
        }
    }
    Some(out)
}

fn labels(text: &str) -> Result<Requirements, SelectorError> {
    let selector = LabelSelector::parse(text)?;
    let known = selector.requirements().iter().filter_map(|one| {
        let operator = match one.operator {
            Operator::In => "In",
            Operator::NotIn => "NotIn",
            Operator::Exists => "Exists",
            Operator::DoesNotExist => "DoesNotExist",
            Operator::GreaterThan | Operator::LessThan => return None,
        };
        Some(Requirement { key: one.key.clone(), operator: operator.into(), values: one.values.clone() })
    });
    Ok(Requirements { known: known.collect(), partial: false })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(requirements: &Requirements) -> String {
        let all: Vec<String> = requirements
            .known
            .iter()
            .map(|one| format!("{} {} {}", one.key, one.operator, one.values.join("|")))
            .collect();
        format!("{}{}", all.join(", "), if requirements.partial { " ..." } else { "" })
    }

    #[test]
    fn field_selectors_become_requirements() {
        for (text, expected) in [
            ("spec.nodeName=a", "spec.nodeName In a"),
            ("a==b,c!=d", "a In b, c NotIn d"),
            (r"a=b\,c\=d", "a In b,c=d"),
            ("a", " ..."),
            (r"a=\x", " ..."),
            ("", ""),
        ] {
            assert_eq!(shown(&fields(text)), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_left_out() {
        let of = |operator: &'static str, values: &[&str]| Requirement {
            key: "k".into(),
            operator: operator.into(),
            values: values.iter().map(|one| (*one).to_owned()).collect(),
        };
        let action = Action::Path { verb: "get", path: "/" };
        let mut attributes = Attributes::from(action);
        attributes.fields = Selector::Requirements(vec![of("In", &["a"]), of("In", &["a", "b"]), of("Exists", &[])]);
        attributes.labels = Selector::Requirements(vec![of("Exists", &[]), of("Near", &["a"])]);
        assert_eq!(shown(&attributes.field_requirements()), "k In a ...");
        assert_eq!(shown(&attributes.label_requirements()), "k Exists  ...");
        attributes.labels = Selector::Raw("a in (b,c),!d");
        assert_eq!(shown(&attributes.label_requirements()), "a In b|c, d DoesNotExist ");
    }
}
