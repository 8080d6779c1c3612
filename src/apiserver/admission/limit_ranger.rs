//! LimitRanger: containers that say nothing get a namespace's default requests and limits, and Pods and claims that ask
//! for more or less than it allows are refused.

use std::sync::Arc;

use api::quantity::Quantity;
use api::quota::pod::{Amount, Counting, total};
use api::quota::{Amounts, amounts};
use api::{Failure, Fields};
use serde_json::{Map, Value};

use super::objects::Objects;
use super::{Attributes, Operation, Plugin};
use crate::cache::Cache;

/// Tells which amounts are not the author's.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";
const NO_OVERHEAD: Counting = Counting { overhead: false, status: false };

pub struct LimitRanger {
    ranges: Objects<Range>,
}

/// A LimitRange.
struct Range {
    limits: Map<String, Value>,
    requests: Map<String, Value>,
    items: Vec<Item>,
}

struct Item {
    /// `Container`, `Pod` or `PersistentVolumeClaim`.
    kind: String,
    min: Amounts,
    max: Amounts,
    ratio: Amounts,
}

/// What is measured.
struct Measured {
    requests: Amounts,
    limits: Amounts,
}

impl LimitRanger {
    pub fn new(cache: &Cache) -> LimitRanger {
        LimitRanger { ranges: Objects::new(cache, "/registry/limitranges/", read) }
    }

    /// Those for the object; none for what is on its way out.
    fn ranges(&self, attributes: &Attributes<'_>, old: Option<&Value>) -> Vec<Arc<Range>> {
        if self.ranges.is_empty() || old.is_some_and(|old| old.part("metadata").has("deletionTimestamp")) {
            return Vec::new();
        }
        self.ranges.all(Some(attributes.namespace))
    }
}

fn read(range: &Value) -> Range {
    let mut read = Range { limits: Map::new(), requests: Map::new(), items: Vec::new() };
    for item in range.part("spec").list("limits") {
        if item.text("type") == "Container" {
            read.limits.extend(item.map("default").cloned().unwrap_or_default());
            read.requests.extend(item.map("defaultRequest").cloned().unwrap_or_default());
        }
        read.items.push(Item {
            kind: item.text("type").to_owned(),
            min: amounts(item.part("min")),
            max: amounts(item.part("max")),
            ratio: amounts(item.part("maxLimitRequestRatio")),
        });
    }
    read
}

/// A new Pod, or one that is resized.
fn is_sized_pod(attributes: &Attributes<'_>) -> bool {
    let resource = &attributes.row.resource;
    resource.group.is_empty()
        && resource.plural == "pods"
        && matches!(
            (attributes.operation, attributes.subresource),
            (Operation::Create, None) | (Operation::Update, Some("resize"))
        )
}

impl Plugin for LimitRanger {
    fn mutate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: &mut Value,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        if is_sized_pod(attributes) {
            self.ranges(attributes, old).iter().for_each(|range| fill_in(object, range));
        }
        Ok(())
    }

    fn validate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        let Some(object) = object else { return Ok(()) };
        let pod = is_sized_pod(attributes);
        if !pod && !attributes.is("", "persistentvolumeclaims") {
            return Ok(());
        }
        for range in self.ranges(attributes, old) {
            let problems = if pod { of_pod(&range, object) } else { of_claim(&range, object) };
            match problems.as_slice() {
                [] => {}
                [problem] => return Err(attributes.refuse(problem)),
                _ => return Err(attributes.refuse(format!("[{}]", problems.join(", ")))),
            }
        }
        Ok(())
    }
}

/// Gives containers what they do not say, and notes it.
fn fill_in(pod: &mut Value, range: &Range) {
    let mut notes = Vec::new();
    let Some(spec) = pod.object("spec") else { return };
    for (field, word) in [("containers", "container"), ("initContainers", "init container")] {
        for container in spec.list_mut(field) {
            let requests = fill(container, "requests", &range.requests);
            let limits = fill(container, "limits", &range.limits);
            for (kind, set) in [("request", requests), ("limit", limits)] {
                if !set.is_empty() {
                    notes.push(format!("{} {kind} for {word} {}", set.join(", "), container.text("name")));
                }
            }
        }
    }
    if !notes.is_empty()
        && let Some(annotations) = pod.object("metadata").and_then(|metadata| metadata.object("annotations"))
    {
        annotations.set(ANNOTATION, format!("LimitRanger plugin set: {}", notes.join("; ")));
    }
}

/// The names of what was set, sorted.
fn fill(container: &mut Value, kind: &str, defaults: &Map<String, Value>) -> Vec<String> {
    if defaults.is_empty() {
        return Vec::new();
    }
    let Some(amounts) = container.object("resources").and_then(|resources| resources.object(kind)) else {
        return Vec::new();
    };
    let mut set = Vec::new();
    for (name, amount) in defaults {
        if !amounts.has(name) {
            amounts.set(name, amount.clone());
            set.push(name.clone());
        }
    }
    set.sort();
    set
}

fn of_pod(range: &Range, pod: &Value) -> Vec<String> {
    let mut problems = Vec::new();
    let spec = pod.part("spec");
    for item in &range.items {
        match item.kind.as_str() {
            "Container" => {
                for container in spec.list("containers").iter().chain(spec.list("initContainers")) {
                    let resources = container.part("resources");
                    let measured = Measured {
                        requests: amounts(resources.part("requests")),
                        limits: amounts(resources.part("limits")),
                    };
                    item.measure(&measured, &mut problems);
                }
            }
            "Pod" => {
                let measured = Measured {
                    requests: total(pod, Amount::Requests, NO_OVERHEAD),
                    limits: total(pod, Amount::Limits, NO_OVERHEAD),
                };
                item.measure(&measured, &mut problems);
            }
            _ => {}
        }
    }
    problems
}

fn of_claim(range: &Range, claim: &Value) -> Vec<String> {
    let requests = amounts(claim.part("spec").part("resources").part("requests"));
    let mut problems = Vec::new();
    for item in range.items.iter().filter(|item| item.kind == "PersistentVolumeClaim") {
        for (name, min) in &item.min {
            problems.extend(too_little(&item.kind, name, *min, requests.get(name), None));
        }
        for (name, max) in &item.max {
            let word = format!("maximum {name} usage per {} is {max}", item.kind);
            match requests.get(name) {
                None => problems.push(format!("{word}.  No request is specified")),
                Some(request) if request > max => problems.push(format!("{word}, but request is {request}")),
                Some(_) => {}
            }
        }
    }
    problems
}

impl Item {
    fn measure(&self, measured: &Measured, problems: &mut Vec<String>) {
        let (requests, limits) = (&measured.requests, &measured.limits);
        for (name, min) in &self.min {
            problems.extend(too_little(&self.kind, name, *min, requests.get(name), limits.get(name)));
        }
        for (name, max) in &self.max {
            problems.extend(too_much(&self.kind, name, *max, requests.get(name), limits.get(name)));
        }
        for (name, ratio) in &self.ratio {
            problems.extend(too_far_apart(&self.kind, name, *ratio, requests.get(name), limits.get(name)));
        }
    }
}

fn too_little(
    kind: &str,
    name: &str,
    min: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let word = format!("minimum {name} usage per {kind} is {min}");
    match (request, limit) {
        (None, _) => Some(format!("{word}.  No request is specified")),
        (Some(request), _) if *request < min => Some(format!("{word}, but request is {request}")),
        (_, Some(limit)) if *limit < min => Some(format!("{word}, but limit is {limit}")),
        _ => None,
    }
}

fn too_much(
    kind: &str,
    name: &str,
    max: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let word = format!("maximum {name} usage per {kind} is {max}");
    match (request, limit) {
        (_, None) => Some(format!("{word}.  No limit is specified")),
        (_, Some(limit)) if *limit > max => Some(format!("{word}, but limit is {limit}")),
        (Some(request), _) if *request > max => Some(format!("{word}, but request is {request}")),
        _ => None,
    }
}

fn too_far_apart(
    kind: &str,
    name: &str,
    max: Quantity,
    request: Option<&Quantity>,
    limit: Option<&Quantity>,
) -> Option<String> {
    let word = format!("{name} max limit to request ratio per {kind} is {max}");
    let there = |amount: Option<&Quantity>| amount.copied().filter(|amount| !amount.is_zero());
    let Some(request) = there(request) else {
        return Some(format!("{word}, but no request is specified or request is 0"));
    };
    let Some(limit) = there(limit) else {
        return Some(format!("{word}, but no limit is specified or limit is 0"));
    };
    let ratio = limit.as_f64() / request.as_f64();
    (ratio > max.as_f64()).then(|| format!("{word}, but provided ratio is {ratio:.6}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::Fixture;

    fn pod(requests: Value, limits: Value) -> Value {
        let container = json!({"name": "c", "image": "i", "resources": {"requests": requests, "limits": limits}});
        json!({"metadata": {"name": "p"}, "spec": {"containers": [container]}})
    }

    #[test]
    fn what_is_filled_in_is_noted() {
        let range = read(&json!({"spec": {"limits": [{
            "type": "Container", "default": {"cpu": "500m", "memory": "2Mi"}, "defaultRequest": {"cpu": "100m"},
        }]}}));
        let mut pod = pod(json!({}), json!({"memory": "1Mi"}));
        fill_in(&mut pod, &range);
        assert_eq!(
            pod["spec"]["containers"][0]["resources"],
            json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "500m", "memory": "1Mi"}})
        );
        assert_eq!(
            pod["metadata"]["annotations"][ANNOTATION],
            "LimitRanger plugin set: cpu request for container c; cpu limit for container c"
        );
    }

    #[test]
    fn bounds_are_those_of_containers_pods_and_claims() {
        let range = read(&json!({"spec": {"limits": [
            {"type": "Container", "min": {"cpu": "50m"}, "max": {"cpu": "1"}, "maxLimitRequestRatio": {"cpu": "2"}},
            {"type": "Pod", "max": {"memory": "1Gi"}},
            {"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}},
        ]}}));
        let said = |requests, limits| of_pod(&range, &pod(requests, limits));
        let fine = json!({"cpu": "100m", "memory": "1Mi"});
        assert!(said(fine.clone(), json!({"cpu": "200m", "memory": "1Gi"})).is_empty());
        assert_eq!(
            said(json!({"cpu": "10m"}), json!({"cpu": "2", "memory": "2Gi"})),
            [
                "minimum cpu usage per Container is 50m, but request is 10m",
                "maximum cpu usage per Container is 1, but limit is 2",
                "cpu max limit to request ratio per Container is 2, but provided ratio is 200.000000",
                "maximum memory usage per Pod is 1Gi, but limit is 2Gi",
            ]
        );
        assert_eq!(said(fine, json!({"cpu": "200m"})), ["maximum memory usage per Pod is 1Gi.  No limit is specified"]);
        let claim = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
        assert!(of_claim(&range, &claim("2Gi")).is_empty());
        assert_eq!(
            of_claim(&range, &claim("3Gi")),
            ["maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"]
        );
    }

    #[tokio::test]
    async fn a_range_holds_once_it_is_seen() {
        let t = Fixture::start().await.with_account().await;
        let limits = json!([{"type": "Container", "max": {"cpu": "1"}, "default": {"cpu": "1"}}]);
        let range = json!({"metadata": {"name": "r"}, "spec": {"limits": limits}});
        t.create("", "limitranges", range).await.unwrap();
        t.catch_up().await;
        let failure = t.create("", "pods", pod(json!({}), json!({"cpu": "2"}))).await.unwrap_err();
        assert_eq!(failure.message, "pods \"p\" is forbidden: maximum cpu usage per Container is 1, but limit is 2");
        let made = t.create("", "pods", pod(json!({}), json!({}))).await.unwrap();
        assert_eq!(made["spec"]["containers"][0]["resources"]["limits"]["cpu"], "1");
    }
}
