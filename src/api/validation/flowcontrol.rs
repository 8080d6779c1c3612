//! Priority and fairness: which requests a schema takes, and how a priority level queues them.

use serde_json::Value;

use super::Check;
use crate::{failure::FieldError, fields::Fields, format, path::Path};

const PRECEDENCE_MAX: i64 = 10_000;
const QUEUES_MAX: i64 = 10_000_000;
/// Bits of the hash from which a request's hand of queues is dealt.
const HASH_BITS_MAX: i64 = 60;
const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];

pub fn flow_schema(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    precedence(check, object, &path.field("matchingPrecedence"));
    if let Some(method) = spec.at("distinguisherMethod")
        && !matches!(method.text("type"), "ByNamespace" | "ByUser")
    {
        let path = path.field("distinguisherMethod");
        check.not_supported(&path.field("type"), method, &["ByNamespace", "ByUser"]);
    }
    let reference = path.field("priorityLevelConfiguration");
    match spec.part("priorityLevelConfiguration").text("name") {
        "" => check.required(&reference.field("name"), "must reference a priority level"),
        name => check.found(&reference.field("name"), name, format::dns_subdomain(name)),
    }
    let rules = path.field("rules");
    for (index, rule) in spec.list("rules").iter().enumerate() {
        self::rule(check, rule, &rules.index(index));
    }
    conditions(check, object);
}

fn precedence(check: &mut Check<'_>, object: &Value, path: &Path<'_>) {
    let precedence = object.part("spec").int("matchingPrecedence").unwrap_or_default();
    if precedence <= 0 {
        check.invalid(path, &precedence.into(), "must be a positive value");
    }
    if precedence > PRECEDENCE_MAX {
        check.invalid(path, &precedence.into(), &format!("must not be greater than {PRECEDENCE_MAX}"));
    }
    if precedence == 1 && object.part("metadata").text("name") != "exempt" {
        check.invalid(path, &precedence.into(), "only the schema named 'exempt' may have matchingPrecedence 1");
    }
}

fn rule(check: &mut Check<'_>, rule: &Value, path: &Path<'_>) {
    let subjects = path.field("subjects");
    if rule.list("subjects").is_empty() {
        check.required(&subjects, "subjects must contain at least one value");
    }
    for (index, one) in rule.list("subjects").iter().enumerate() {
        subject(check, one, &subjects.index(index));
    }
    if rule.list("resourceRules").is_empty() && rule.list("nonResourceRules").is_empty() {
        check.required(path, "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    let list = path.field("resourceRules");
    for (index, one) in rule.list("resourceRules").iter().enumerate() {
        resource_rule(check, one, &list.index(index));
    }
    let list = path.field("nonResourceRules");
    for (index, one) in rule.list("nonResourceRules").iter().enumerate() {
        path_rule(check, one, &list.index(index));
    }
}

fn subject(check: &mut Check<'_>, subject: &Value, path: &Path<'_>) {
    const KINDS: [(&str, &str); 3] = [("Group", "group"), ("ServiceAccount", "serviceAccount"), ("User", "user")];
    let kind = subject.text("kind");
    let Some((_, own)) = KINDS.into_iter().find(|(name, _)| *name == kind) else {
        return check.not_supported(&path.field("kind"), &kind.into(), &KINDS.map(|(name, _)| name));
    };
    let here = path.field(own);
    match subject.at(own) {
        None => check.required(&here, &format!("{own} is required when subject kind is '{kind}'")),
        Some(account) if own == "serviceAccount" => {
            let name = account.text("name");
            if check.text(account, &here, "name") && name != "*" {
                check.found(&here.field("name"), name, format::dns_subdomain(name));
            }
            match account.text("namespace") {
                "" => check.required(&here.field("namespace"), "must specify namespace for service account"),
                name => check.found(&here.field("namespace"), name, format::dns_label(name)),
            }
        }
        Some(one) => {
            check.text(one, &here, "name");
        }
    }
    // In upstream's order, which depends on the kind.
    let others: [&str; 2] = match own {
        "serviceAccount" => ["user", "group"],
        "user" => ["serviceAccount", "group"],
        _ => ["serviceAccount", "user"],
    };
    for other in others.into_iter().filter(|other| subject.has(other)) {
        let owner = KINDS.into_iter().find(|(_, field)| *field == other).map_or("", |(name, _)| name);
        let text = format!("{other} is forbidden when subject kind is not '{owner}'");
        check.forbidden(&path.field(other), &text);
    }
}

fn has_wildcard(list: &[Value]) -> bool {
    list.iter().any(|one| one == "*")
}

fn verbs(check: &mut Check<'_>, rule: &Value, path: &Path<'_>) {
    let (verbs, here) = (rule.list("verbs"), path.field("verbs"));
    if verbs.is_empty() {
        check.required(&here, "verbs must contain at least one value");
    } else if has_wildcard(verbs) {
        if verbs.len() > 1 {
            check.invalid(&here, rule.part("verbs"), "if '*' is present, must not specify other verbs");
        }
    } else if !verbs.iter().all(|verb| verb.as_str().is_some_and(|verb| VERBS.contains(&verb))) {
        check.not_supported(&here, rule.part("verbs"), VERBS);
    }
}

fn resource_rule(check: &mut Check<'_>, rule: &Value, path: &Path<'_>) {
    verbs(check, rule, path);
    for (name, one, many) in [("apiGroups", "api group", "api groups"), ("resources", "resource", "resources")] {
        let list = rule.list(name);
        if list.is_empty() {
            check.required(&path.field(name), &format!("resource rules must supply at least one {one}"));
        } else if list.len() > 1 && has_wildcard(list) {
            let text = format!("if '*' is present, must not specify other {many}");
            check.invalid(&path.field(name), rule.part(name), &text);
        }
    }
    let (namespaces, here) = (rule.list("namespaces"), path.field("namespaces"));
    if namespaces.is_empty() && !rule.flag("clusterScope") {
        let text = "resource rules that are not cluster scoped must supply at least one namespace";
        check.required(&here, text);
    } else if has_wildcard(namespaces) {
        if namespaces.len() > 1 {
            check.invalid(&here, rule.part("namespaces"), "if '*' is present, must not specify other namespaces");
        }
    } else {
        for (index, namespace) in namespaces.iter().enumerate() {
            for finding in format::dns_label(namespace.as_str().unwrap_or_default()) {
                let text = format!("each member of this list must be '*' or a DNS-1123 label; {finding}");
                check.invalid(&here.index(index), namespace, &text);
            }
        }
    }
}

fn path_rule(check: &mut Check<'_>, rule: &Value, path: &Path<'_>) {
    verbs(check, rule, path);
    let (urls, here) = (rule.list("nonResourceURLs"), path.field("nonResourceURLs"));
    if urls.is_empty() {
        check.required(&here, "nonResourceURLs must contain at least one value");
    } else if has_wildcard(urls) {
        if urls.len() > 1 {
            let text = "if '*' is present, must not specify other non-resource URLs";
            check.invalid(&here, rule.part("nonResourceURLs"), text);
        }
    } else {
        for (index, url) in urls.iter().enumerate() {
            if let Some(text) = url_fault(url.as_str().unwrap_or_default()) {
                check.invalid(&here.index(index), url, text);
            }
        }
    }
}

fn url_fault(url: &str) -> Option<&'static str> {
    match url {
        "" => Some("must not be empty"),
        "/" => None,
        _ if !url.starts_with('/') => Some("must start with slash"),
        _ if url.contains(' ') => Some("must not contain white-space"),
        _ if url.contains("//") => Some("must not contain double slash"),
        _ => match url.matches('*').count() {
            0 => None,
            1 if url.ends_with("/*") => None,
            _ => Some("wildcard can only do suffix matching"),
        },
    }
}

pub fn flow_schema_update(object: &Value, _old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    match subresource {
        Some(_) => conditions(&mut Check { errors }, object),
        None => flow_schema(object, errors),
    }
}

pub fn priority_level_update(object: &Value, _old: &Value, subresource: Option<&str>, errors: &mut Vec<FieldError>) {
    match subresource {
        Some(_) => conditions(&mut Check { errors }, object),
        None => priority_level(object, errors),
    }
}

/// A type of condition is there once, and has a name.
fn conditions(check: &mut Check<'_>, object: &Value) {
    let root = Path::Root;
    let status = root.field("status");
    let list = status.field("conditions");
    let conditions = object.part("status").list("conditions");
    for (index, condition) in conditions.iter().enumerate() {
        let path = list.index(index);
        let known = conditions.iter().take(index).any(|before| before.text("type") == condition.text("type"));
        if known {
            check.duplicate(&path.field("type"), &condition.text("type").into());
        }
        check.text(condition, &path, "type");
    }
}

pub fn priority_level(object: &Value, errors: &mut Vec<FieldError>) {
    let check = &mut Check { errors };
    let root = Path::Root;
    let path = root.field("spec");
    let spec = object.part("spec");
    let kind = spec.text("type");
    if (object.part("metadata").text("name") == "exempt") != (kind == "Exempt") {
        let text = "must be 'Exempt' if and only if `name` is 'exempt'";
        check.invalid(&path.field("type"), &kind.into(), text);
    }
    match kind {
        "Exempt" => {
            if spec.has("limited") {
                check.forbidden(&path.field("limited"), "must be nil if the type is not Limited");
            }
            shares(check, spec.part("exempt"), &path.field("exempt"));
        }
        "Limited" => {
            if spec.has("exempt") {
                check.forbidden(&path.field("exempt"), "must be nil if the type is Limited");
            }
            match spec.at("limited") {
                None => check.required(&path.field("limited"), "must not be empty when type is Limited"),
                Some(limits) => limited(check, limits, &path.field("limited")),
            }
        }
        other => check.not_supported(&path.field("type"), &other.into(), &["Exempt", "Limited"]),
    }
    conditions(check, object);
}

fn shares(check: &mut Check<'_>, level: &Value, path: &Path<'_>) {
    if let Some(shares) = level.int("nominalConcurrencyShares").filter(|&shares| shares < 0) {
        check.invalid(&path.field("nominalConcurrencyShares"), &shares.into(), "must be a non-negative integer");
    }
    check.in_range(level, path, "lendablePercent", 0, 100);
}

fn limited(check: &mut Check<'_>, limits: &Value, path: &Path<'_>) {
    let response = limits.part("limitResponse");
    let here = path.field("limitResponse");
    let queuing = here.field("queuing");
    match response.text("type") {
        "Reject" if response.has("queuing") => {
            check.forbidden(&queuing, "must be nil if limited.limitResponse.type is not Limited");
        }
        "Reject" => {}
        "Queue" => match response.at("queuing") {
            None => check.required(&queuing, "must not be empty if limited.limitResponse.type is Limited"),
            Some(queues) => self::queuing(check, queues, &queuing),
        },
        other => check.not_supported(&here.field("type"), &other.into(), &["Queue", "Reject"]),
    }
    shares(check, limits, path);
    if let Some(percent) = limits.int("borrowingLimitPercent").filter(|&percent| percent < 0) {
        let text = "if specified, must be a non-negative integer";
        check.invalid(&path.field("borrowingLimitPercent"), &percent.into(), text);
    }
}

fn queuing(check: &mut Check<'_>, queuing: &Value, path: &Path<'_>) {
    let number = |name: &str| queuing.int(name).unwrap_or_default();
    let (queues, hand, length) = (number("queues"), number("handSize"), number("queueLengthLimit"));
    if length <= 0 {
        check.invalid(&path.field("queueLengthLimit"), &length.into(), "must be positive");
    }
    if queues <= 0 {
        check.invalid(&path.field("queues"), &queues.into(), "must be positive");
    } else if queues > QUEUES_MAX {
        check.invalid(&path.field("queues"), &queues.into(), &format!("must not be greater than {QUEUES_MAX}"));
    }
    let here = path.field("handSize");
    if hand <= 0 {
        check.invalid(&here, &hand.into(), "must be positive");
    } else if hand > queues {
        check.invalid(&here, &hand.into(), &format!("should not be greater than queues ({queues})"));
    } else if entropy_bits(queues, hand) > HASH_BITS_MAX {
        let text = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS_MAX}"
        );
        check.invalid(&here, &hand.into(), &text);
    }
}

/// Bits that it takes to deal a hand from a deck. Both are positive and below 2^31.
fn entropy_bits(deck: i64, hand: i64) -> i64 {
    let [deck, hand] = [deck, hand].map(|number| i32::try_from(number).map_or(f64::MAX, f64::from));
    (deck.log2() * hand).ceil() as i64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(found: impl FnOnce(&mut Vec<FieldError>)) -> Vec<String> {
        let mut errors = Vec::new();
        found(&mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_schema_says_whom_it_takes() {
        let good = json!({"metadata": {"name": "a"}, "spec": {"matchingPrecedence": 900,
            "priorityLevelConfiguration": {"name": "x"}, "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "u"}},
                    {"kind": "ServiceAccount", "serviceAccount": {"namespace": "n", "name": "*"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": [""], "resources": ["pods"], "clusterScope": true}],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/a/*"]}]}]}});
        assert_eq!(texts(|errors| flow_schema(&good, errors)), [""; 0]);
        for (path, value, text) in [
            (
                "/spec/matchingPrecedence",
                json!(1),
                "spec.matchingPrecedence: Invalid value: 1: only the schema named 'exempt' may have matchingPrecedence 1",
            ),
            (
                "/spec/priorityLevelConfiguration/name",
                json!(""),
                "spec.priorityLevelConfiguration.name: Required value: must reference a priority level",
            ),
            (
                "/spec/rules/0/subjects/0/kind",
                json!("Robot"),
                "spec.rules[0].subjects[0].kind: Unsupported value: \"Robot\": supported values: \"Group\", \"ServiceAccount\", \"User\"",
            ),
            ("/spec/rules/0/subjects/0/user/name", json!(""), "spec.rules[0].subjects[0].user.name: Required value"),
            (
                "/spec/rules/0/subjects/0/user",
                json!(null),
                "spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'",
            ),
            (
                "/spec/rules/0/resourceRules/0/verbs",
                json!(["*", "get"]),
                "spec.rules[0].resourceRules[0].verbs: Invalid value: [\"*\",\"get\"]: if '*' is present, must not specify other verbs",
            ),
            (
                "/spec/rules/0/resourceRules/0/clusterScope",
                json!(false),
                "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped must supply at least one namespace",
            ),
            (
                "/spec/rules/0/nonResourceRules/0/nonResourceURLs/0",
                json!("/a*"),
                "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"/a*\": wildcard can only do suffix matching",
            ),
        ] {
            let mut bad = good.clone();
            *bad.pointer_mut(path).unwrap() = value;
            assert_eq!(texts(|errors| flow_schema(&bad, errors)), [text]);
        }
    }

    #[test]
    fn a_level_deals_hands_that_its_hash_suffices_for() {
        let level = |queues: i64, hand: i64| {
            json!({"metadata": {"name": "a"}, "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 1,
                "limitResponse": {"type": "Queue",
                    "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 1}}}}})
        };
        assert_eq!(texts(|errors| priority_level(&level(64, 6), errors)), [""; 0]);
        for (queues, hand, text) in [
            (-1, 1, "handSize: Invalid value: 1: should not be greater than queues (-1)"),
            (8, 9, "handSize: Invalid value: 9: should not be greater than queues (8)"),
            (
                70000,
                6,
                "handSize: Invalid value: 6: required entropy bits of deckSize 70000 and handSize 6 should not be greater than 60",
            ),
        ] {
            let found = texts(|errors| priority_level(&level(queues, hand), errors));
            assert_eq!(found.last().unwrap(), &format!("spec.limited.limitResponse.queuing.{text}"));
        }
    }
}
