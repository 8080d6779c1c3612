//! Pods: the one word that says how a pod is.

use jiff::Timestamp;
use serde_json::Value;

use super::{Column, NONE, age, holds, name, or_else, since};
use crate::fields::Fields;

pub(crate) const PODS: &[Column] = &[
    Column::name(),
    Column::string("Ready", "How many of the pod's containers are ready."),
    Column::string("Status", "How the pod's containers are, in a word."),
    Column::string("Restarts", "How often its containers were restarted, and when last."),
    Column::age(),
    Column::string("IP", "The address of the pod.").wide(),
    Column::string("Node", "The node that the pod runs on.").wide(),
    Column::string("Nominated Node", "The node that is being cleared for the pod.").wide(),
    Column::string("Readiness Gates", "How many of the pod's readiness gates are open.").wide(),
];

pub(crate) fn pod(object: &Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (object.part("spec"), object.part("status"));
    let state = State::of(object);
    let restarts = match state.restarted {
        Some(time) if state.restarts > 0 => format!("{} ({} ago)", state.restarts, age(Some(time), now)),
        _ => state.restarts.to_string(),
    };
    let gates = spec.list("readinessGates");
    let open = gates.iter().filter(|gate| holds(object, gate.text("conditionType"))).count();
    let gates = if gates.is_empty() { NONE.to_owned() } else { format!("{open}/{}", gates.len()) };
    vec![
        name(object),
        format!("{}/{}", state.ready, state.containers).into(),
        state.reason.into(),
        restarts.into(),
        since(object, now),
        or_else(status.list("podIPs").first().map_or("", |ip| ip.text("ip")), NONE),
        or_else(spec.text("nodeName"), NONE),
        or_else(status.text("nominatedNodeName"), NONE),
        gates.into(),
    ]
}

/// What a pod's statuses come to.
struct State<'a> {
    reason: String,
    ready: usize,
    containers: usize,
    restarts: i64,
    /// When a container last ended before it was restarted.
    restarted: Option<&'a str>,
}

fn ended_before(status: &Value) -> Option<&str> {
    status.part("lastState").part("terminated").at("finishedAt").and_then(Value::as_str)
}

/// Why a container ended: its reason, else its signal, else its code.
fn why(ended: &Value) -> String {
    let (reason, signal) = (ended.text("reason"), ended.int("signal").unwrap_or_default());
    if !reason.is_empty() {
        reason.to_owned()
    } else if signal != 0 {
        format!("Signal:{signal}")
    } else {
        format!("ExitCode:{}", ended.int("exitCode").unwrap_or_default())
    }
}

impl<'a> State<'a> {
    fn of(object: &'a Value) -> State<'a> {
        let (spec, status) = (object.part("spec"), object.part("status"));
        let mut reason = if status.text("reason").is_empty() { status.text("phase") } else { status.text("reason") };
        if status
            .list("conditions")
            .iter()
            .any(|one| one.text("reason") == "SchedulingGated" && one.text("type") == "PodScheduled")
        {
            reason = "SchedulingGated";
        }
        let mut state = State { reason: reason.to_owned(), ready: 0, containers: 0, restarts: 0, restarted: None };
        let init = spec.list("initContainers");
        let sidecar =
            |name: &str| init.iter().any(|one| one.text("name") == name && one.text("restartPolicy") == "Always");
        state.containers =
            spec.list("containers").len() + init.iter().filter(|one| one.text("restartPolicy") == "Always").count();
        let initializing = state.initialize(status, init.len(), &sidecar);
        if !initializing || holds(object, "Initialized") {
            let sidecars = status.list("initContainerStatuses").iter().filter(|one| sidecar(one.text("name")));
            state.restarts = 0;
            state.restarted = None;
            for one in sidecars {
                state.restart(one);
            }
            state.run(status, holds(object, "Ready"));
        }
        if object.part("metadata").has("deletionTimestamp") {
            if status.text("reason") == "NodeLost" {
                state.reason = "Unknown".to_owned();
            } else if !matches!(status.text("phase"), "Failed" | "Succeeded") {
                state.reason = "Terminating".to_owned();
            }
        }
        state
    }

    fn restart(&mut self, status: &'a Value) {
        self.restarts += status.int("restartCount").unwrap_or_default();
        // RFC 3339 in UTC sorts as text.
        self.restarted = self.restarted.max(ended_before(status));
    }

    /// True while an init container keeps the others waiting.
    fn initialize(&mut self, status: &'a Value, count: usize, sidecar: &dyn Fn(&str) -> bool) -> bool {
        for (index, one) in status.list("initContainerStatuses").iter().enumerate() {
            self.restart(one);
            let now = one.part("state");
            let waiting = now.part("waiting").text("reason");
            match now.at("terminated") {
                Some(ended) if ended.int("exitCode").unwrap_or_default() == 0 => continue,
                _ if sidecar(one.text("name")) && one.flag("started") => {
                    self.ready += usize::from(one.flag("ready"));
                    continue;
                }
                Some(ended) => self.reason = format!("Init:{}", why(ended)),
                None if !waiting.is_empty() && waiting != "PodInitializing" => self.reason = format!("Init:{waiting}"),
                None => self.reason = format!("Init:{index}/{count}"),
            }
            return true;
        }
        false
    }

    fn run(&mut self, status: &'a Value, pod_ready: bool) {
        let mut running = false;
        let mut failure = None;
        for one in status.list("containerStatuses").iter().rev() {
            self.restart(one);
            let now = one.part("state");
            let waiting = now.part("waiting").text("reason");
            if !waiting.is_empty() {
                self.reason = waiting.to_owned();
            } else if let Some(ended) = now.at("terminated") {
                self.reason = why(ended);
                if ended.int("exitCode").unwrap_or_default() != 0 {
                    failure = Some(self.reason.clone());
                }
            } else if one.flag("ready") && now.has("running") {
                running = true;
                self.ready += 1;
            }
        }
        // One that completed does not speak for those that still run or that failed.
        if self.reason == "Completed" {
            if running && pod_ready {
                self.reason = "Running".to_owned();
            } else if let Some(failure) = failure {
                self.reason = failure;
            } else if running {
                self.reason = "NotReady".to_owned();
            }
        }
    }
}
