//! What a Pod asks for and is limited to as a whole: the sum of its containers, or as much as its start takes
//! (upstream: `component-helpers/resource`).

use serde_json::Value;

use super::Amounts;
use super::amounts::{add, amounts, raise};
use crate::Fields;

/// Which amounts are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    Requests,
    Limits,
}

/// How they are counted.
#[derive(Clone, Copy, Debug)]
pub struct Counting {
    /// With what the Pod costs besides its containers.
    pub overhead: bool,
    /// A container that is being resized counts with the greater of what it has and what it is to have.
    pub status: bool,
}

impl Amount {
    fn field(self) -> &'static str {
        match self {
            Amount::Requests => "requests",
            Amount::Limits => "limits",
        }
    }
}

/// The sum for the whole Pod.
pub fn total(pod: &Value, amount: Amount, counting: Counting) -> Amounts {
    let spec = pod.part("spec");
    let mut sum = Amounts::new();
    for container in spec.list("containers") {
        add(&mut sum, &of_container(pod, container, "containerStatuses", amount, counting));
    }
    let mut sidecars = Amounts::new();
    let mut start = Amounts::new();
    for container in spec.list("initContainers") {
        let own = of_container(pod, container, "initContainerStatuses", amount, counting);
        if container.text("restartPolicy") == "Always" {
            add(&mut sum, &own);
            add(&mut sidecars, &own);
            raise(&mut start, &sidecars);
        } else {
            let mut during = own;
            add(&mut during, &sidecars);
            raise(&mut start, &during);
        }
    }
    raise(&mut sum, &start);
    for (name, value) in amounts(spec.part("resources").part(amount.field())) {
        if is_pod_level(&name) {
            sum.insert(name, value);
        }
    }
    if counting.overhead {
        let mut overhead = amounts(spec.part("overhead"));
        if amount == Amount::Limits {
            overhead.retain(|name, _| sum.get(name).is_some_and(|limit| !limit.is_zero()));
        }
        add(&mut sum, &overhead);
    }
    sum
}

/// The Pod as a whole has requests or limits of its own.
pub fn has_pod_level(pod: &Value) -> bool {
    let resources = pod.part("spec").part("resources");
    ["requests", "limits"]
        .iter()
        .any(|field| resources.map(field).is_some_and(|map| map.keys().any(|name| is_pod_level(name))))
}

fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || name.starts_with("hugepages-")
}

fn of_container(pod: &Value, container: &Value, statuses: &str, amount: Amount, counting: Counting) -> Amounts {
    let wanted = amounts(container.part("resources").part(amount.field()));
    if !counting.status {
        return wanted;
    }
    let status = pod.part("status");
    let name = container.text("name");
    let Some(has) = status.list(statuses).iter().find(|one| one.text("name") == name) else { return wanted };
    if !has.has("resources") {
        return wanted;
    }
    // What cannot be had is not waited for.
    let infeasible = status
        .list("conditions")
        .iter()
        .any(|one| one.text("type") == "PodResizePending" && one.text("reason") == "Infeasible");
    let mut sum = if infeasible { Amounts::new() } else { wanted };
    raise(&mut sum, &amounts(has.part("resources").part(amount.field())));
    if amount == Amount::Requests {
        raise(&mut sum, &amounts(has.part("allocatedResources")));
    }
    sum
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PLAIN: Counting = Counting { overhead: true, status: true };

    #[test]
    fn a_pod_takes_what_runs_together_or_what_its_start_takes() {
        let with = |name: &str, cpu: &str| json!({"name": name, "resources": {"requests": {"cpu": cpu}}});
        let mut sidecar = with("s", "100m");
        sidecar["restartPolicy"] = json!("Always");
        let pod = json!({"spec": {
            "containers": [with("a", "300m"), with("b", "200m")],
            "initContainers": [with("before", "550m"), sidecar, with("after", "650m")],
            "overhead": {"cpu": "50m", "memory": "1Mi"},
        }});
        let sum = total(&pod, Amount::Requests, PLAIN);
        assert_eq!((sum["cpu"].to_string(), sum["memory"].to_string()), ("800m".to_owned(), "1Mi".to_owned()));
        assert!(total(&pod, Amount::Limits, PLAIN).is_empty(), "overhead limits nothing");
    }

    #[test]
    fn a_container_that_shrinks_counts_until_it_has() {
        let mut pod = json!({
            "spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]},
            "status": {"containerStatuses": [{
                "name": "a", "resources": {"requests": {"cpu": "2"}}, "allocatedResources": {"cpu": "1"},
            }]},
        });
        assert_eq!(total(&pod, Amount::Requests, PLAIN)["cpu"].to_string(), "2");
        pod["spec"]["resources"] = json!({"requests": {"cpu": "5", "example.com/x": "1"}});
        assert_eq!(total(&pod, Amount::Requests, PLAIN)["cpu"].to_string(), "5");
        assert!(has_pod_level(&pod));
    }
}
