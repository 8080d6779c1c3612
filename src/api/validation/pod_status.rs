//! What may be said of a pod that runs: by its kubelet, and by whoever gives it devices.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Check, IMMUTABLE};
use crate::{fields::Fields, format, path::Path, quantity::Quantity};

const LISTS: [(&str, &str); 3] = [
    ("containerStatuses", "containers"),
    ("initContainerStatuses", "initContainers"),
    ("ephemeralContainerStatuses", "ephemeralContainers"),
];
const ID_MAX: i64 = i32::MAX as i64;
const ENDED: &str = "may not be transitioned to non-terminated state";

pub(crate) fn update(check: &mut Check<'_>, pod: &Value, old: &Value) {
    super::pod_annotations::only_known(check, pod, old);
    let root = Path::Root;
    let path = root.field("status");
    let (status, before) = (pod.part("status"), old.part("status"));
    conditions(check, status, &path.field("conditions"));
    nominated(check, status, old, &path);
    if let Some(generation) = status.int("observedGeneration").filter(|&generation| generation < 0) {
        check.invalid(&path.field("observedGeneration"), &generation.into(), "must be a non-negative integer");
    }
    if status.text("qosClass") != before.text("qosClass") {
        check.invalid(&path.field("qosClass"), &status.text("qosClass").into(), IMMUTABLE);
    }
    for (statuses, containers) in LISTS {
        ended(check, status, old, (statuses, containers), &path.field(statuses));
        of_containers(check, status, pod, (statuses, containers), &path.field(statuses));
    }
    claims(check, status, pod, &path.field("resourceClaimStatuses"));
    extended_claim(check, status, pod, &path.field("extendedResourceClaimStatus"));
    allocatable_claims(check, status, pod, &path.field("nodeAllocatableResourceClaimStatuses"));
    addresses(check, status, before, ("podIPs", "podIP"), &path);
    addresses(check, status, before, ("hostIPs", "hostIP"), &path);
}

fn conditions(check: &mut Check<'_>, status: &Value, path: &Path<'_>) {
    for (index, condition) in status.list("conditions").iter().enumerate() {
        let path = path.index(index);
        if let Some(generation) = condition.int("observedGeneration").filter(|&generation| generation < 0) {
            check.invalid(&path.field("observedGeneration"), &generation.into(), "must be a non-negative integer");
        }
        let kind = condition.text("type");
        if !matches!(kind, "PodScheduled" | "Ready" | "Initialized") {
            check.found(&path.field("Type"), kind, format::label_key(kind));
        }
    }
}

/// The node that a pod waits for: one that it is not bound to yet.
fn nominated(check: &mut Check<'_>, status: &Value, old: &Value, path: &Path<'_>) {
    let (path, name) = (path.field("nominatedNodeName"), status.text("nominatedNodeName"));
    if name.is_empty() || name == old.part("status").text("nominatedNodeName") {
        return;
    }
    check.found(&path, name, format::dns_subdomain(name));
    if !old.part("spec").text("nodeName").is_empty() {
        check.forbidden(&path, "may not be set on pods that are already bound to a node");
    }
}

/// What has ended does not come back, unless the pod restarts it.
fn ended(check: &mut Check<'_>, status: &Value, old: &Value, (statuses, containers): (&str, &str), path: &Path<'_>) {
    let spec = old.part("spec");
    let all_restart = ["containers", "initContainers"].into_iter().flat_map(|list| spec.list(list)).any(|container| {
        container.list("restartPolicyRules").iter().any(|rule| rule.text("action") == "RestartAllContainers")
    });
    if all_restart && containers != "ephemeralContainers" {
        return;
    }
    for (index, then) in old.part("status").list(statuses).iter().enumerate() {
        let Some(end) = then.part("state").at("terminated") else { continue };
        let name = then.text("name");
        let now = status.list(statuses).iter().find(|one| one.text("name") == name);
        if now.is_none_or(|now| now.part("state").has("terminated")) {
            continue;
        }
        let own = spec.list(containers).iter().find(|one| one.text("name") == name);
        let code = end.int("exitCode").unwrap_or_default();
        if containers == "ephemeralContainers" || !own.is_some_and(|own| restarts(own, spec, code)) {
            let path = path.index(index);
            check.forbidden(&path.field("state"), ENDED);
        }
    }
}

/// Whether a container that ended with `code` is started again: its own rules first, then its policy, then the pod's.
fn restarts(container: &Value, spec: &Value, code: i64) -> bool {
    for rule in container.list("restartPolicyRules") {
        let codes = rule.part("exitCodes");
        let listed = codes.list("values").iter().any(|one| one.as_i64() == Some(code));
        let applies = match codes.text("operator") {
            "In" => listed,
            "NotIn" => !listed,
            _ => false,
        };
        if applies {
            return rule.text("action") == "Restart";
        }
    }
    let policy = container.at("restartPolicy").and_then(Value::as_str).unwrap_or(spec.text("restartPolicy"));
    match policy {
        "Always" => true,
        "OnFailure" => code != 0,
        _ => false,
    }
}

/// As whom containers run, and how the devices are that they have.
fn of_containers(
    check: &mut Check<'_>,
    status: &Value,
    pod: &Value,
    (statuses, containers): (&str, &str),
    path: &Path<'_>,
) {
    const HEALTH: &[&str] = &["Healthy", "Unhealthy", "Unknown"];
    let windows = pod.part("spec").part("os").text("name") == "windows";
    for (index, one) in status.list(statuses).iter().enumerate() {
        let path = path.index(index);
        if let Some(user) = one.part("user").at("linux") {
            let here = path.field("user");
            let here = here.field("linux");
            if windows {
                check.forbidden(&here, "cannot be set for a windows pod");
            }
            check.in_range(user, &here, "uid", 0, ID_MAX);
            check.in_range(user, &here, "gid", 0, ID_MAX);
            let groups = here.field("supplementalGroups");
            for (index, group) in user.list("supplementalGroups").iter().enumerate() {
                if !group.as_i64().is_some_and(|group| (0..=ID_MAX).contains(&group)) {
                    check.invalid(&groups.index(index), group, &format::range_text(0, ID_MAX));
                }
            }
        }
        let list = path.field("allocatedResourcesStatus");
        let devices = one.list("allocatedResourcesStatus");
        if containers == "ephemeralContainers" {
            if !devices.is_empty() {
                check.forbidden(&list, "must not be specified in container status");
            }
            continue;
        }
        for (index, device) in devices.iter().enumerate() {
            let path = list.index(index);
            let list = path.field("resources");
            for (index, resource) in device.list("resources").iter().enumerate() {
                let path = list.index(index);
                check.choice_or_not_supported(resource, &path, "health", HEALTH);
                if resource.has("message") && resource.text("message").is_empty() {
                    check.required(&path.field("message"), "must be non-empty if specified");
                }
            }
        }
    }
}

fn claims(check: &mut Check<'_>, status: &Value, pod: &Value, path: &Path<'_>) {
    let mut names = BTreeSet::new();
    for (index, claim) in status.list("resourceClaimStatuses").iter().enumerate() {
        let (path, name) = (path.index(index), claim.text("name"));
        if !pod.part("spec").list("resourceClaims").iter().any(|one| one.text("name") == name) {
            let text = "must match the name of an entry in `spec.resourceClaims`";
            check.invalid(&path.field("name"), &name.into(), text);
        }
        if !names.insert(name) {
            check.duplicate(&path.field("name"), &name.into());
        }
        if let Some(name) = claim.at("resourceClaimName").and_then(Value::as_str) {
            check.found(&path.field("resourceClaimName"), name, format::dns_subdomain(name));
        }
    }
}

/// The claim that stands for extended resources of the pod's containers.
fn extended_claim(check: &mut Check<'_>, status: &Value, pod: &Value, path: &Path<'_>) {
    let Some(claim) = status.at("extendedResourceClaimStatus") else { return };
    let list = path.field("requestMappings");
    if claim.list("requestMappings").is_empty() {
        check.required(&list, "at least one request mapping is required");
    }
    let spec = pod.part("spec");
    let mut seen = BTreeSet::new();
    for (index, mapping) in claim.list("requestMappings").iter().enumerate() {
        let here = list.index(index);
        let parts = ["containerName", "resourceName", "requestName"].map(|name| mapping.text(name));
        let [container, resource, request] = parts;
        let mut containers = spec.list("containers").iter().chain(spec.list("initContainers"));
        match containers.find(|one| one.text("name") == container) {
            None => {
                let text = "must match the name of an entry in spec.initContainers.name or spec.containers.name";
                check.invalid(&here.field("containerName"), &container.into(), text);
            }
            Some(one) if !one.part("resources").part("requests").has(resource) => {
                let text = "must match the extended resource name of an entry in \
                            spec.initContainers.resources.requests or spec.containers.resources.requests";
                check.invalid(&here.field("resourceName"), &resource.into(), text);
            }
            Some(_) => {}
        }
        check.found(&path.field("requestName"), request, format::dns_label(request));
        if !seen.insert(parts) {
            for name in ["containerName", "resourceName", "requestName"] {
                check.duplicate(&here.field(name), &mapping.text(name).into());
            }
        }
    }
    if check.text(claim, path, "resourceClaimName") {
        let name = claim.text("resourceClaimName");
        check.found(&path.field("resourceClaimName"), name, format::dns_subdomain(name));
    }
}

/// Claims that take of what the node itself has to give.
fn allocatable_claims(check: &mut Check<'_>, status: &Value, pod: &Value, path: &Path<'_>) {
    for (index, claim) in status.list("nodeAllocatableResourceClaimStatuses").iter().enumerate() {
        let (path, name) = (path.index(index), claim.text("resourceClaimName"));
        if name.is_empty() {
            check.required(&path.field("resourceClaimName"), "must not be empty");
        }
        let mut known = pod.part("spec").list("resourceClaims").iter().chain(status.list("resourceClaimStatuses"));
        if !known.any(|one| one.has("resourceClaimName") && one.text("resourceClaimName") == name) {
            let text = "no mapping found in pod reference";
            check.invalid(&path.field("resourceClaimName"), &name.into(), text);
        }
        if claim.list("containers").is_empty() {
            check.required(&path.field("containers"), "must not be empty");
        }
        let resources = path.field("resources");
        if claim.map("resources").is_none_or(serde_json::Map::is_empty) {
            check.required(&resources, "must not be empty");
        }
        for (name, amount) in claim.map("resources").into_iter().flatten() {
            if !super::resources::is_native(name) {
                let text = "must be a node allocatable resource name";
                check.invalid(&resources.key(name), &name.as_str().into(), text);
            }
            if Quantity::from_value(amount).is_ok_and(Quantity::is_negative) {
                check.invalid(&resources.key(name), amount, "must be non-negative");
            }
        }
    }
}

/// One address, or one of each family. What was there before may stay as it is.
fn addresses(check: &mut Check<'_>, status: &Value, before: &Value, (name, first): (&str, &str), path: &Path<'_>) {
    let list = path.field(name);
    let ips: Vec<&str> = status.list(name).iter().map(|one| one.text("ip")).collect();
    if let Some(&ip) = ips.first().filter(|_| first == "hostIP")
        && ip != status.text(first)
    {
        let path = list.index(0);
        check.invalid(&path.field("ip"), &ip.into(), "must be equal to `hostIP`");
    }
    for (index, ip) in ips.iter().enumerate() {
        if !before.list(name).iter().any(|one| one.text("ip") == *ip) {
            check.found(&list.index(index), ip, format::ip(ip));
        }
    }
    if ips.len() > 1 {
        let of_two_families = matches!(ips[..], [one, other] if one.contains(':') != other.contains(':'));
        if !of_two_families {
            let text = "may specify no more than one IP for each IP family";
            check.invalid(&list, status.part(name), text);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(spec: Value, before: Value, now: Value) -> Vec<String> {
        let mut errors = Vec::new();
        let old = json!({"spec": spec, "status": before});
        update(&mut Check { errors: &mut errors }, &json!({"spec": spec, "status": now}), &old);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_has_ended_stays_so_but_by_the_rules_of_its_container() {
        let ended =
            |code: i64| json!({"containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": code}}}]});
        let running = json!({"containerStatuses": [{"name": "c", "state": {"running": {}}}]});
        let forbidden = format!("status.containerStatuses[0].state: Forbidden: {ENDED}");
        let rule = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [7]}}]);
        let cases = [
            (json!({"restartPolicy": "Never", "containers": [{"name": "c"}]}), 1, false),
            (json!({"restartPolicy": "OnFailure", "containers": [{"name": "c"}]}), 1, true),
            (json!({"restartPolicy": "OnFailure", "containers": [{"name": "c"}]}), 0, false),
            (json!({"restartPolicy": "Never", "containers": [{"name": "c", "restartPolicyRules": rule}]}), 7, true),
            (json!({"restartPolicy": "Always", "containers": [{"name": "c", "restartPolicy": "Never"}]}), 7, false),
        ];
        for (spec, code, fine) in cases {
            let findings = found(spec.clone(), ended(code), running.clone());
            assert_eq!(findings, if fine { vec![] } else { vec![forbidden.clone()] }, "{spec} {code}");
        }
    }

    #[test]
    fn addresses_are_one_of_each_family() {
        let status = |ips: &[&str]| json!({"podIPs": ips.iter().map(|ip| json!({"ip": ip})).collect::<Vec<_>>()});
        assert_eq!(found(json!({}), json!({}), status(&["10.0.0.1", "fd00::1"])), [""; 0]);
        let findings = found(json!({}), json!({}), status(&["10.0.0.1", "10.0.0.2"]));
        assert!(findings.len() == 1 && findings[0].ends_with("may specify no more than one IP for each IP family"));
        assert_eq!(
            found(json!({}), json!({}), json!({"hostIP": "10.0.0.1", "hostIPs": [{"ip": "10.0.0.2"}]})),
            ["status.hostIPs[0].ip: Invalid value: \"10.0.0.2\": must be equal to `hostIP`"]
        );
    }

    #[test]
    fn only_claims_of_the_pod_have_a_status() {
        let spec = json!({"nodeName": "n", "resourceClaims": [{"name": "a"}], "containers": [{"name": "c"}]});
        assert_eq!(
            found(spec, json!({}), json!({
                "nominatedNodeName": "m", "conditions": [{"type": "a/b/c", "observedGeneration": -1}],
                "resourceClaimStatuses": [{"name": "a"}, {"name": "a"}, {"name": "b"}],
                "extendedResourceClaimStatus": {"requestMappings": [{"containerName": "c", "resourceName": "r", "requestName": "q"}]},
            }))
            .iter()
            .map(|text| text.split(": ").take(2).collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>(),
            [
                "status.conditions[0].observedGeneration Invalid value",
                "status.conditions[0].Type Invalid value",
                "status.nominatedNodeName Forbidden",
                "status.resourceClaimStatuses[1].name Duplicate value",
                "status.resourceClaimStatuses[2].name Invalid value",
                "status.extendedResourceClaimStatus.requestMappings[0].resourceName Invalid value",
                "status.extendedResourceClaimStatus.resourceClaimName Required value",
            ]
        );
    }
}
