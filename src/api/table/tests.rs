use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

#[test]
fn rows_are_found_by_path_and_by_kind() {
    let pods = Row::find("", "v1", "pods").unwrap();
    assert_eq!(pods.kind, "Pod");
    assert_eq!(pods.key(Some("default"), "a"), "/registry/pods/default/a");
    assert_eq!(Row::find("", "v1", "nodes").unwrap().key(None, "n"), "/registry/minions/n");
    assert_eq!(Row::find_kind("apps/v1", "Deployment").unwrap().resource.plural, "deployments");
    assert_eq!(Row::find_kind("v1", "Event").unwrap().list_key(None), "/registry/events/");
    assert!(Row::find("apps", "v1", "pods").is_none());
}

#[test]
fn every_key_prefix_is_one_stored_resource() {
    let mut seen = HashMap::new();
    for row in rows().iter().filter(|row| row.stored) {
        let first = seen.entry(row.key_prefix.clone()).or_insert_with(|| row.storage.clone());
        assert_eq!(*first, row.storage, "{}", row.key_prefix);
    }
}

/// A resource with what discovery says of it, as one comparable line.
fn line(group: &str, version: &str, resource: &Value) -> BTreeSet<String> {
    let verbs = |value: &Value| {
        let mut verbs: Vec<&str> = value["verbs"].as_array().unwrap().iter().map(|v| v.as_str().unwrap()).collect();
        verbs.sort_unstable();
        verbs.join(",")
    };
    let list = |name: &str| resource.get(name).map(ToString::to_string).unwrap_or_default();
    let plural = resource["resource"].as_str().unwrap();
    let mut lines = BTreeSet::new();
    lines.insert(format!(
        "{group}/{version} {plural} {} {} {} [{}] {} {}",
        resource["singularResource"].as_str().unwrap(),
        resource["responseKind"]["kind"].as_str().unwrap(),
        resource["scope"].as_str().unwrap(),
        verbs(resource),
        list("shortNames"),
        list("categories"),
    ));
    for sub in resource.get("subresources").and_then(Value::as_array).into_iter().flatten() {
        lines.insert(format!(
            "{group}/{version} {plural}/{} {} {} {} [{}]",
            sub["subresource"].as_str().unwrap(),
            sub["responseKind"]["group"].as_str().unwrap_or_default(),
            sub["responseKind"]["version"].as_str().unwrap_or_default(),
            sub["responseKind"]["kind"].as_str().unwrap(),
            verbs(sub),
        ));
    }
    lines
}

fn own_line(row: &Row) -> BTreeSet<String> {
    let verbs = |verbs: &[Verb]| {
        let mut verbs: Vec<&str> = verbs.iter().map(|verb| verb.as_str()).collect();
        verbs.sort_unstable();
        verbs.join(",")
    };
    let list = |names: &[Cow<'static, str>]| {
        if names.is_empty() { String::new() } else { serde_json::to_string(names).unwrap() }
    };
    let at = format!("{}/{} {}", row.resource.group, row.resource.version, row.resource.plural);
    let mut lines = BTreeSet::new();
    lines.insert(format!(
        "{at} {} {} {} [{}] {} {}",
        row.singular,
        row.kind,
        if row.namespaced { "Namespaced" } else { "Cluster" },
        verbs(&row.verbs),
        list(&row.short_names),
        list(&row.categories),
    ));
    for sub in &row.subresources {
        lines.insert(format!("{at}/{} {} {} {} [{}]", sub.name, sub.group, sub.version, sub.kind, verbs(&sub.verbs)));
    }
    lines
}

/// Upstream's discovery of the core group, in the aggregated form.
fn core_lines(document: &Value) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let text = |value: &Value, name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    for one in document["resources"].as_array().unwrap() {
        let name = text(one, "name");
        let mut as_aggregated = one.clone();
        as_aggregated["responseKind"] = serde_json::json!({
            "group": text(one, "group"), "version": text(one, "version"), "kind": text(one, "kind")
        });
        if let Some((_, sub)) = name.split_once('/') {
            let parent = name.split_once('/').unwrap().0;
            as_aggregated["subresource"] = Value::from(sub);
            let holder = serde_json::json!({
                "resource": parent, "singularResource": "", "responseKind": {"kind": ""}, "scope": "", "verbs": [],
                "subresources": [as_aggregated],
            });
            lines.extend(line("", "v1", &holder).into_iter().filter(|line| line.contains('/') && line.contains(&name)));
        } else {
            as_aggregated["resource"] = Value::from(name);
            as_aggregated["singularResource"] = one["singularName"].clone();
            as_aggregated["scope"] = Value::from(if one["namespaced"] == true { "Namespaced" } else { "Cluster" });
            lines.extend(line("", "v1", &as_aggregated));
        }
    }
    lines
}

#[test]
fn the_table_agrees_with_upstreams_discovery() {
    let directory = std::path::Path::new("/work/shared/kubernetes-1.36/discovery");
    let read =
        |name: &str| -> Option<Value> { serde_json::from_slice(&std::fs::read(directory.join(name)).ok()?).ok() };
    let (Some(groups), Some(core)) = (read("aggregated_v2.json"), read("api__v1.json")) else {
        eprintln!("upstream's discovery documents are not here: nothing compared");
        return;
    };
    let mut theirs = core_lines(&core);
    let mut stable = BTreeSet::from([("".to_owned(), "v1".to_owned())]);
    for group in groups["items"].as_array().unwrap() {
        let name = group["metadata"]["name"].as_str().unwrap();
        for version in group["versions"].as_array().unwrap() {
            let number = version["version"].as_str().unwrap();
            if !number.contains("alpha") && !number.contains("beta") {
                stable.insert((name.to_owned(), number.to_owned()));
            }
            for resource in version["resources"].as_array().unwrap() {
                theirs.extend(line(name, number, resource));
            }
        }
    }
    let mut ours = BTreeSet::new();
    for row in rows() {
        let at = (row.resource.group.to_string(), row.resource.version.to_string());
        assert_eq!(row.enabled, stable.contains(&at), "{}", row.resource);
        ours.extend(own_line(row));
    }
    let unknown: Vec<_> = ours.difference(&theirs).collect();
    assert!(unknown.is_empty(), "upstream does not serve: {unknown:#?}");
    let missing: Vec<_> = theirs.difference(&ours).collect();
    assert!(missing.is_empty(), "upstream serves: {missing:#?}");
}

/// Upstream's filled-in objects, of kinds that are served in a version in which they are not stored.
#[test]
fn what_is_converted_comes_back_whole() {
    let directory = std::path::Path::new("/work/shared/kubernetes-1.36/roundtrip");
    let mut compared = 0;
    // Autoscalers and events say things twice, or lose what only one version can say.
    let plain = |row: &&Arc<Row>| !matches!(row.resource.group.as_ref(), "autoscaling" | "events.k8s.io");
    for row in rows().iter().filter(|row| row.storage != row.resource).filter(plain) {
        let file = format!("{}.{}.{}.json", row.resource.group, row.resource.version, row.kind);
        let Ok(bytes) = std::fs::read(directory.join(&file)) else {
            eprintln!("upstream's {file} is not here: not compared");
            continue;
        };
        let filled: Value = serde_json::from_slice(&bytes).unwrap();
        let mut object = filled.clone();
        row.to_storage(&mut object);
        assert_eq!(object["apiVersion"], row.storage.api_version(), "{file}");
        let stored = schema::Types::builtin().api_version_kind(&row.storage.api_version(), &row.storage_kind).unwrap();
        assert_eq!(schema::validation::unknown_fields(&object, stored), Vec::<String>::new(), "{file}");
        row.to_served(&mut object);
        assert_eq!(object, filled, "{file}");
        compared += 1;
    }
    assert!(compared == 0 || compared > 15, "{compared}");
}
