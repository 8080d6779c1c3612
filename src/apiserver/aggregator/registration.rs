//! APIServices for what this server itself serves: which there should be, and what to do about those that are there.

use std::collections::{BTreeMap, BTreeSet};

use api::Fields;
use serde_json::{Value, json};

use super::{GROUP, priorities};

/// Upstream's mark: whoever takes it off keeps the object for themselves.
const MANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";
/// Built-in ones are looked after when the server starts; later they are the administrator's.
const ON_START: &str = "onstart";
/// Those of custom resources are looked after all the time.
const ALWAYS: &str = "true";

/// What has been done since the start.
#[derive(Default)]
pub struct Progress {
    /// Objects that were there when the server started.
    at_start: BTreeSet<String>,
    /// Built-in ones that were looked after once.
    done: BTreeSet<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Create(Value),
    Update(Value),
    Delete { name: String, uid: String },
}

impl Progress {
    pub fn new(current: &[Value]) -> Progress {
        Progress { at_start: current.iter().map(|one| name(one).to_owned()).collect(), done: BTreeSet::new() }
    }

    /// The object is as it should be, or was left alone for a reason.
    pub fn done(&mut self, name: &str) {
        self.done.insert(name.to_owned());
    }
}

fn name(object: &Value) -> &str {
    object.part("metadata").text("name")
}

/// The object for a group version that is served here; `None` for the group that is always there.
pub fn wanted(group: &str, version: &str) -> Option<Value> {
    if group == GROUP {
        return None;
    }
    let (priorities, mode) = match priorities::built_in(group, version) {
        Some(priorities) => (priorities, ON_START),
        None => (priorities::CUSTOM, ALWAYS),
    };
    let mut spec = json!({"version": version, "groupPriorityMinimum": priorities.0, "versionPriority": priorities.1});
    if !group.is_empty() {
        spec.set("group", group);
    }
    Some(json!({
        "kind": "APIService", "apiVersion": "apiregistration.k8s.io/v1",
        "metadata": {"name": format!("{version}.{group}"), "labels": {MANAGED: mode}}, "spec": spec,
    }))
}

/// What brings the objects to what is served (upstream: `checkAPIService`).
pub fn plan(wanted: &BTreeMap<String, Value>, current: &[Value], progress: &Progress) -> Vec<Step> {
    let there: BTreeMap<&str, &Value> = current.iter().map(|one| (name(one), one)).collect();
    let mode = |object: &Value| object.part("metadata").part("labels").text(MANAGED).to_owned();
    let finished = |name: &str, mode: &str| mode == ON_START && progress.done.contains(name);
    let mut steps = Vec::new();
    for (name, wanted) in wanted {
        if finished(name, &mode(wanted)) {
            continue;
        }
        let Some(&current) = there.get(name.as_str()) else {
            steps.push(Step::Create(wanted.clone()));
            continue;
        };
        let kept = mode(current);
        let late = kept == ON_START && !progress.at_start.contains(name);
        let settled = kept.is_empty() || late || finished(name, &kept);
        if settled || current.part("spec") == wanted.part("spec") {
            continue;
        }
        let mut updated = current.clone();
        updated.set("spec", wanted.part("spec").clone());
        steps.push(Step::Update(updated));
    }
    for (name, current) in there {
        let kept = mode(current);
        let late = kept == ON_START && !progress.at_start.contains(name);
        if wanted.contains_key(name) || kept.is_empty() || late || finished(name, &kept) {
            continue;
        }
        let uid = current.part("metadata").text("uid").to_owned();
        steps.push(Step::Delete { name: name.to_owned(), uid });
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(list: &[(&str, &str)]) -> BTreeMap<String, Value> {
        let objects = list.iter().filter_map(|(group, version)| wanted(group, version));
        objects.map(|object| (name(&object).to_owned(), object)).collect()
    }

    fn stored(group: &str, version: &str) -> Value {
        let mut object = wanted(group, version).unwrap();
        object["metadata"]["uid"] = "1".into();
        object
    }

    #[test]
    fn names_and_priorities_are_upstreams() {
        let apps = wanted("apps", "v1").unwrap();
        assert_eq!(name(&apps), "v1.apps");
        assert_eq!(
            apps["spec"],
            json!({"group": "apps", "version": "v1", "groupPriorityMinimum": 17800, "versionPriority": 15})
        );
        assert_eq!(name(&wanted("", "v1").unwrap()), "v1.");
        let custom = wanted("example.com", "v1").unwrap();
        assert_eq!(
            (&custom["spec"]["groupPriorityMinimum"], &custom["metadata"]["labels"][MANAGED]),
            (&json!(1000), &json!("true"))
        );
        assert!(wanted(GROUP, "v1").is_none());
    }

    #[test]
    fn what_is_missing_is_made_and_what_is_gone_is_removed() {
        let wanted = all(&[("apps", "v1"), ("example.com", "v1")]);
        let current = [stored("old.example.com", "v1"), stored("example.com", "v1")];
        let steps = plan(&wanted, &current, &Progress::new(&current));
        assert_eq!(
            steps,
            [
                Step::Create(wanted["v1.apps"].clone()),
                Step::Delete { name: "v1.old.example.com".to_owned(), uid: "1".to_owned() },
            ]
        );
    }

    #[test]
    fn a_built_in_one_is_looked_after_once() {
        let wanted = all(&[("apps", "v1")]);
        let mut changed = stored("apps", "v1");
        changed["spec"]["versionPriority"] = 1.into();
        let current = [changed];
        let mut progress = Progress::new(&current);
        assert!(
            matches!(plan(&wanted, &current, &progress).as_slice(), [Step::Update(object)] if object["spec"]["versionPriority"] == 15)
        );
        progress.done("v1.apps");
        assert!(plan(&wanted, &current, &progress).is_empty());
        assert!(plan(&wanted, &[], &progress).is_empty());
        // One that turned up later is somebody's.
        let late = Progress::default();
        assert!(plan(&wanted, &current, &late).is_empty());
    }

    #[test]
    fn without_the_mark_it_is_left_alone() {
        let mut own = stored("example.com", "v1");
        own["metadata"]["labels"] = json!({});
        own["spec"]["service"] = json!({"namespace": "n", "name": "s"});
        let current = [own];
        assert!(plan(&all(&[("example.com", "v1")]), &current, &Progress::new(&current)).is_empty());
        assert!(plan(&all(&[]), &current, &Progress::new(&current)).is_empty());
    }
}
