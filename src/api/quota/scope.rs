//! The scopes of a quota: which objects it is about.

use serde_json::Value;

use crate::Fields;

/// One condition (upstream: `v1.ScopedResourceSelectorRequirement`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub name: String,
    /// `In`, `NotIn`, `Exists` or `DoesNotExist`.
    pub operator: String,
    pub values: Vec<String>,
}

impl Scope {
    /// Those of `scopes` and those of `scopeSelector`, which must all hold.
    pub fn all(spec: &Value) -> Vec<Scope> {
        let plain = spec.list("scopes").iter().filter_map(Value::as_str);
        let plain =
            plain.map(|name| Scope { name: name.to_owned(), operator: "Exists".to_owned(), values: Vec::new() });
        let selected = spec.part("scopeSelector").list("matchExpressions").iter().map(|one| Scope {
            name: one.text("scopeName").to_owned(),
            operator: one.text("operator").to_owned(),
            values: one.list("values").iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        });
        plain.chain(selected).collect()
    }

    /// Whether one of the names that an object has is selected.
    pub(super) fn selects(&self, names: &[String]) -> bool {
        let listed = |name: &String| self.values.contains(name);
        match self.operator.as_str() {
            "Exists" => !names.is_empty(),
            "DoesNotExist" => names.is_empty(),
            "In" => names.iter().any(listed),
            "NotIn" => names.is_empty() || names.iter().any(|name| !listed(name)),
            _ => false,
        }
    }
}
