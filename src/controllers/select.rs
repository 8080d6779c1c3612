//! Label selectors as controllers use them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// True if the labels satisfy every requirement. A selector without requirements matches everything.
pub fn matches(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let value = |key: &str| labels.and_then(|labels| labels.get(key));
    let exact = selector.match_labels.iter().flatten().all(|(key, wanted)| value(key) == Some(wanted));
    exact
        && selector.match_expressions.iter().flatten().all(|requirement| {
            let among = |found: &String| requirement.values.iter().flatten().any(|wanted| wanted == found);
            match (requirement.operator.as_str(), value(&requirement.key)) {
                ("In", Some(found)) => among(found),
                ("NotIn", Some(found)) => !among(found),
                ("NotIn" | "DoesNotExist", None) | ("Exists", Some(_)) => true,
                _ => false,
            }
        })
}

pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requirements() {
        let selector = |value| serde_json::from_value::<LabelSelector>(value).unwrap();
        let labels: BTreeMap<String, String> = [("app".to_owned(), "web".to_owned())].into();
        let one = |operator: &str, key: &str, values: &[&str]| {
            selector(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
        };
        for (selector, expected) in [
            (selector(json!({})), true),
            (selector(json!({"matchLabels": {"app": "web"}})), true),
            (selector(json!({"matchLabels": {"app": "db"}})), false),
            (one("In", "app", &["web", "db"]), true),
            (one("In", "tier", &["web"]), false),
            (one("NotIn", "app", &["web"]), false),
            (one("NotIn", "tier", &["web"]), true),
            (one("Exists", "app", &[]), true),
            (one("DoesNotExist", "app", &[]), false),
            (one("DoesNotExist", "tier", &[]), true),
        ] {
            assert_eq!(matches(&selector, Some(&labels)), expected, "{selector:?}");
        }
    }
}
