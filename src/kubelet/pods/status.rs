//! A pod's status: phase, conditions, container statuses, as a pure function of what is there.
//!
//! Rules are upstream's kubelet's: how phases follow from containers, which condition has which reason and message,
//! and what stays as others wrote it (conditions of readiness gates, the scheduler's, container statuses of containers
//! that the runtime has forgotten).

use std::collections::BTreeMap;

use cri::v1::ContainerState as State;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    ContainerUser, HostIP, LinuxContainerUser, Pod, PodCondition, PodIP, PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::observed::{Observed, Seen, timestamp};
use super::plan::{Cause, Memory, Plan, Waiting, Work};
use crate::containers::resources::Qos;
use crate::objects::{Kind, PodExt, RestartPolicy, should_restart};

/// What a status depends on.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub pod: &'a Pod,
    /// The status that was last written, which decides what is kept and when conditions last changed.
    pub before: &'a PodStatus,
    pub observed: &'a Observed,
    pub memory: &'a Memory,
    pub plan: &'a Plan,
    pub node_ips: &'a [String],
    /// `containerd`, `cluster`, ...: the scheme of container ids.
    pub runtime_name: &'a str,
    /// Texts of termination messages by container id.
    pub messages: &'a BTreeMap<String, String>,
    pub now: Timestamp,
}

pub fn status(facts: Facts<'_>) -> PodStatus {
    let Facts { pod, before, observed, memory, plan, .. } = facts;
    let mut init = Vec::new();
    let mut main = Vec::new();
    let mut ephemeral = Vec::new();
    let containers = pod.containers();
    let has_init = containers.iter().any(|(kind, _)| matches!(kind, Kind::Init | Kind::Sidecar));
    for (kind, container) in &containers {
        let one = container_status(facts, *kind, container, has_init);
        match kind {
            Kind::Init | Kind::Sidecar => init.push(one),
            Kind::Main => main.push(one),
            Kind::Ephemeral => ephemeral.push(one),
        }
    }
    let is_over = matches!(&memory.ending, Some(ending) if ending.cause == Cause::Completed)
        || plan.has_ended
        || memory.cleaned_up;
    let phase = match memory.ending.as_ref().map(|ending| &ending.cause) {
        Some(Cause::Failed { .. }) => "Failed",
        _ if pod.is_terminal() => before.phase.as_deref().unwrap_or("Failed"),
        _ => phase(pod, &init, &main, is_over && observed.running().next().is_none()),
    };
    let (reason, message) = match memory.ending.as_ref().map(|ending| &ending.cause) {
        Some(Cause::Failed { reason, message }) => (Some(reason.clone()), Some(message.clone())),
        _ => (before.reason.clone(), before.message.clone()),
    };
    let mut pod_ips = observed.ips();
    if pod_ips.is_empty() && observed.sandboxes.first().is_none_or(|sandbox| !super::observed::is_ready(sandbox)) {
        // What is over keeps its last address.
        pod_ips = before.pod_ips.iter().flatten().map(|one| one.ip.clone()).collect();
        if memory.ending.is_none() && !pod.host_network() {
            pod_ips.clear();
        }
    }
    let has_sandbox = observed.sandbox(!pod.host_network()).is_some();
    if pod.host_network() && (has_sandbox || !pod_ips.is_empty()) {
        pod_ips = facts.node_ips.to_vec();
    }
    let conditions = conditions(facts, phase, has_sandbox, &init, &main);
    let filled = |list: Vec<ContainerStatus>| Some(list).filter(|list| !list.is_empty());
    PodStatus {
        phase: Some(phase.to_owned()),
        reason,
        message,
        conditions: Some(conditions),
        host_ip: facts.node_ips.first().cloned(),
        host_ips: Some(facts.node_ips.iter().map(|ip| HostIP { ip: ip.clone() }).collect()),
        pod_ip: pod_ips.first().cloned(),
        pod_ips: Some(pod_ips.into_iter().map(|ip| PodIP { ip }).collect()).filter(|ips: &Vec<PodIP>| !ips.is_empty()),
        start_time: Some(before.start_time.clone().unwrap_or(Time(seconds(facts.now)))),
        qos_class: Some(Qos::of(pod).as_str().to_owned()),
        init_container_statuses: filled(init),
        container_statuses: filled(main),
        ephemeral_container_statuses: filled(ephemeral),
        observed_generation: pod.metadata.generation,
        // What others own stays as it is.
        nominated_node_name: before.nominated_node_name.clone(),
        resource_claim_statuses: before.resource_claim_statuses.clone(),
        extended_resource_claim_status: before.extended_resource_claim_status.clone(),
        ..PodStatus::default()
    }
}

/// API times have whole seconds.
fn seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn time(nanoseconds: i64) -> Option<Time> {
    (nanoseconds > 0).then(|| Time(seconds(timestamp(nanoseconds))))
}

fn container_status(facts: Facts<'_>, kind: Kind, container: &Container, has_init: bool) -> ContainerStatus {
    let Facts { before, observed, memory, plan, .. } = facts;
    let name = &container.name;
    let all_before = before.init_container_statuses.iter().chain(&before.container_statuses);
    let old = all_before.chain(&before.ephemeral_container_statuses).flatten().find(|one| &one.name == name);
    let latest = observed.latest(name).filter(|seen| seen.state() != State::ContainerCreated);
    let is_ending = memory.ending.is_some();
    let waiting = plan.waiting.get(name).cloned();
    let default_waiting = || {
        let reason = if has_init { "PodInitializing" } else { "ContainerCreating" };
        ContainerState {
            waiting: Some(ContainerStateWaiting { reason: Some(reason.to_owned()), message: None }),
            ..ContainerState::default()
        }
    };
    let mut status = ContainerStatus {
        name: name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(default_waiting()),
        last_state: Some(ContainerState::default()),
        started: Some(false),
        resources: container.resources.clone().filter(|one| one.limits.is_some() || one.requests.is_some()),
        allocated_resources: container.resources.as_ref().and_then(|one| one.requests.clone()),
        volume_mounts: mounts(container),
        ..ContainerStatus::default()
    };
    match latest {
        Some(seen) => fill(&mut status, facts, seen),
        None => {
            if let Some(old) = old {
                forgotten(&mut status, old, is_ending, memory.busy.contains(&Work::Container(name.clone())));
            } else if is_ending && plan.has_ended {
                status.state = Some(terminated(lost("The container could not be located when the pod was terminated")));
            }
        }
    }
    let exited = status.state.as_ref().and_then(|state| state.terminated.clone());
    if let Some(Waiting { reason, message }) = waiting
        && status.state.as_ref().is_none_or(|state| state.running.is_none())
    {
        if let Some(exited) = exited {
            status.last_state = Some(terminated(exited));
        }
        let waiting =
            ContainerStateWaiting { reason: Some(reason), message: Some(message).filter(|text| !text.is_empty()) };
        status.state = Some(ContainerState { waiting: Some(waiting), ..ContainerState::default() });
    }
    let running = status.state.as_ref().is_some_and(|state| state.running.is_some());
    let probes =
        latest.and_then(|seen| memory.probes.get(seen.name()).filter(|probes| probes.container_id == seen.status.id));
    let is_starting = memory.busy.contains(&Work::Container(name.clone())) && !is_ending && {
        // Being stopped for a restart is not being started.
        latest.is_some_and(|seen| seen.is_running())
            && !plan.waiting.contains_key(name)
            && probes.is_none()
            && container.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some())
    };
    let started = running
        && !is_starting
        && (container.startup_probe.is_none() || probes.and_then(|probes| probes.started) == Some(true));
    status.started = Some(started);
    status.ready = match kind {
        Kind::Init => {
            let exit = status.state.as_ref().and_then(|state| state.terminated.as_ref());
            exit.is_some_and(|exit| exit.exit_code == 0)
        }
        Kind::Ephemeral => false,
        Kind::Main | Kind::Sidecar => {
            started && (container.readiness_probe.is_none() || probes.and_then(|probes| probes.ready) == Some(true))
        }
    };
    if kind == Kind::Init && !running {
        status.started = Some(false);
    }
    status
}

fn fill(status: &mut ContainerStatus, facts: Facts<'_>, seen: &Seen) {
    status.restart_count = i32::try_from(seen.attempt()).unwrap_or(i32::MAX);
    status.container_id = Some(container_id(facts, &seen.status.id));
    status.image_id =
        if seen.status.image_ref.is_empty() { seen.status.image_id.clone() } else { seen.status.image_ref.clone() };
    if let Some(image) = seen.status.image.as_ref() {
        let shown = if image.user_specified_image.is_empty() { &image.image } else { &image.user_specified_image };
        if !shown.is_empty() && !shown.starts_with("sha256:") {
            status.image = shown.clone();
        }
    }
    status.user = seen.status.user.as_ref().and_then(|user| user.linux.as_ref()).map(|user| ContainerUser {
        linux: Some(LinuxContainerUser {
            uid: user.uid,
            gid: user.gid,
            supplemental_groups: Some(user.supplemental_groups.clone()).filter(|groups| !groups.is_empty()),
        }),
    });
    status.state = Some(match seen.state() {
        State::ContainerRunning => ContainerState {
            running: Some(ContainerStateRunning { started_at: time(seen.status.started_at) }),
            ..ContainerState::default()
        },
        State::ContainerExited => terminated(end_of(facts, seen)),
        State::ContainerCreated | State::ContainerUnknown => ContainerState {
            waiting: Some(ContainerStateWaiting { reason: Some("ContainerStatusUnknown".to_owned()), message: None }),
            ..ContainerState::default()
        },
    });
    let name = seen.name();
    let previous = facts.observed.containers.iter().filter(|one| one.name() == name && one.has_exited());
    if let Some(previous) = previous.into_iter().find(|one| one.status.id != seen.status.id) {
        status.last_state = Some(terminated(end_of(facts, previous)));
    }
}

fn end_of(facts: Facts<'_>, seen: &Seen) -> ContainerStateTerminated {
    let one = &seen.status;
    let reason = match one.reason.as_str() {
        "" if one.exit_code == 0 => "Completed",
        "" => "Error",
        reason => reason,
    };
    let message = facts.messages.get(&one.id).cloned().or_else(|| Some(one.message.clone()));
    ContainerStateTerminated {
        container_id: Some(container_id(facts, &one.id)),
        exit_code: one.exit_code,
        reason: Some(reason.to_owned()),
        message: message.filter(|message| !message.is_empty()),
        started_at: time(one.started_at).or(Some(Time(Timestamp::UNIX_EPOCH))),
        finished_at: time(one.finished_at).or(Some(Time(Timestamp::UNIX_EPOCH))),
        signal: None,
    }
}

/// The runtime has no trace of the container that the API knows.
fn forgotten(status: &mut ContainerStatus, old: &ContainerStatus, is_ending: bool, is_busy: bool) {
    status.restart_count = old.restart_count;
    status.image_id = old.image_id.clone();
    status.container_id = old.container_id.clone();
    status.last_state = old.last_state.clone();
    let was = old.state.clone().unwrap_or_default();
    if was.terminated.is_some() {
        // It ended and its remains were removed.
        status.state = Some(was);
    } else if was.running.is_some() && !is_busy {
        let end = ContainerStateTerminated {
            container_id: old.container_id.clone(),
            ..lost("The container could not be located when the pod was deleted.  The container used to be Running")
        };
        if is_ending {
            status.state = Some(terminated(end));
        } else {
            status.last_state = Some(terminated(end));
        }
    } else if is_ending && !is_busy {
        status.state = Some(terminated(lost("The container could not be located when the pod was terminated")));
    }
}

/// How an end is shown that nobody saw.
fn lost(message: &str) -> ContainerStateTerminated {
    const EXIT_CODE: i32 = 137;
    ContainerStateTerminated {
        exit_code: EXIT_CODE,
        reason: Some("ContainerStatusUnknown".to_owned()),
        message: Some(message.to_owned()),
        started_at: None,
        finished_at: None,
        ..ContainerStateTerminated::default()
    }
}

fn terminated(end: ContainerStateTerminated) -> ContainerState {
    ContainerState { terminated: Some(end), ..ContainerState::default() }
}

fn container_id(facts: Facts<'_>, id: &str) -> String {
    format!("{}://{id}", facts.runtime_name)
}

fn mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref()?.iter().map(|mount| VolumeMountStatus {
        name: mount.name.clone(),
        mount_path: mount.mount_path.clone(),
        read_only: mount.read_only,
        recursive_read_only: mount.read_only.filter(|&only| only).map(|_| "Disabled".to_owned()),
        volume_status: None,
    });
    Some(mounts.collect())
}

/// `status.phase`. `is_over`: nothing runs and nothing will be started.
fn phase(pod: &Pod, init: &[ContainerStatus], main: &[ContainerStatus], is_over: bool) -> &'static str {
    let policy = pod.restart_policy();
    let containers = pod.containers();
    let any_main_ran = main.iter().any(|one| {
        let state = one.state.as_ref();
        state.is_some_and(|state| state.running.is_some() || state.terminated.is_some())
            || one.last_state.as_ref().is_some_and(|last| last.terminated.is_some())
    });
    let mut init_pending = false;
    let mut init_failed = false;
    let mut sidecars_run = false;
    for one in init {
        let Some((kind, spec)) = containers.iter().find(|(_, spec)| spec.name == one.name) else { continue };
        let state = one.state.clone().unwrap_or_default();
        if *kind == Kind::Sidecar {
            sidecars_run |= state.running.is_some();
            init_pending |= one.started != Some(true) && !any_main_ran;
            continue;
        }
        match (&state.terminated, &state.running) {
            (Some(end), _) if end.exit_code == 0 => {}
            (Some(end), _) => {
                let for_good = !should_restart(pod, *kind, spec, end.exit_code);
                init_failed |= for_good;
                init_pending |= !for_good;
            }
            (None, Some(_)) => init_pending = true,
            (None, None) => init_pending |= !any_main_ran,
        }
    }
    if init_failed {
        return "Failed";
    }
    let (mut running, mut waiting, mut stopped, mut succeeded, mut will_restart) = (0, 0, 0, 0, false);
    for one in main {
        let state = one.state.clone().unwrap_or_default();
        if state.running.is_some() {
            running += 1;
        } else if let Some(end) = &state.terminated {
            stopped += 1;
            succeeded += i32::from(end.exit_code == 0);
            if let Some((kind, spec)) = containers.iter().find(|(_, spec)| spec.name == one.name) {
                will_restart |= should_restart(pod, *kind, spec, end.exit_code);
            }
        } else if one.last_state.as_ref().is_some_and(|last| last.terminated.is_some()) {
            stopped += 1;
            will_restart = true;
        } else {
            waiting += 1;
        }
    }
    if is_over && stopped > 0 && waiting == 0 && running == 0 {
        return if stopped == succeeded { "Succeeded" } else { "Failed" };
    }
    if init_pending || waiting > 0 {
        return if is_over && running == 0 { "Failed" } else { "Pending" };
    }
    if running > 0 {
        return "Running";
    }
    if stopped == 0 {
        return "Pending";
    }
    match policy {
        _ if sidecars_run || will_restart => "Running",
        RestartPolicy::Always => "Running",
        _ if stopped == succeeded => "Succeeded",
        _ => "Failed",
    }
}

fn conditions(
    facts: Facts<'_>,
    phase: &str,
    has_sandbox: bool,
    init: &[ContainerStatus],
    main: &[ContainerStatus],
) -> Vec<PodCondition> {
    let pod = facts.pod;
    let containers = pod.containers();
    let kind_of = |name: &str| containers.iter().find(|(_, one)| one.name == name).map(|(kind, _)| *kind);
    let none: Finding = (true, None, None);
    let to_start = (has_sandbox, None, None);

    let unfinished: Vec<&str> = init
        .iter()
        .filter(|one| match kind_of(&one.name) {
            Some(Kind::Sidecar) => one.started != Some(true),
            _ => !one.ready,
        })
        .map(|one| one.name.as_str())
        .collect();
    let main_ran = main.iter().any(|one| one.state.as_ref().is_some_and(|state| state.waiting.is_none()));
    let initialized = if phase == "Succeeded" {
        (true, Some("PodCompleted"), None)
    } else if unfinished.is_empty() || (main_ran && phase == "Running") {
        none.clone()
    } else {
        let message = format!("containers with incomplete status: [{}]", unfinished.join(" "));
        (false, Some("ContainersNotInitialized"), Some(message))
    };

    let unready: Vec<&str> = init
        .iter()
        .filter(|one| kind_of(&one.name) == Some(Kind::Sidecar))
        .chain(main)
        .filter(|one| !one.ready)
        .map(|one| one.name.as_str())
        .collect();
    let containers_ready = match phase {
        "Succeeded" => (false, Some("PodCompleted"), None),
        "Failed" => (false, Some("PodFailed"), None),
        _ if unready.is_empty() => none,
        _ => {
            let message = format!("containers with unready status: [{}]", unready.join(" "));
            (false, Some("ContainersNotReady"), Some(message))
        }
    };
    let ready = if containers_ready.0 { gates(pod, facts.before) } else { containers_ready.clone() };

    let mut conditions: Vec<PodCondition> = [
        ("PodReadyToStartContainers", to_start),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", (true, None, None)),
    ]
    .into_iter()
    .map(|(name, (holds, reason, message))| condition(facts, name, holds, reason, message))
    .collect();
    if let Some(super::plan::Ending { cause: Cause::Failed { reason, message }, .. }) = &facts.memory.ending
        && reason == "Evicted"
    {
        let text = Some(message.clone());
        conditions.push(condition(facts, "DisruptionTarget", true, Some("TerminationByKubelet"), text));
    }
    let known: Vec<String> = conditions.iter().map(|one| one.type_.clone()).collect();
    conditions.extend(facts.before.conditions.iter().flatten().filter(|one| !known.contains(&one.type_)).cloned());
    conditions
}

type Finding = (bool, Option<&'static str>, Option<String>);

/// Readiness gates: conditions that others write.
fn gates(pod: &Pod, before: &PodStatus) -> Finding {
    let mut texts = Vec::new();
    for gate in pod.spec().readiness_gates.iter().flatten() {
        let wanted = &gate.condition_type;
        let found = before.conditions.iter().flatten().find(|one| &one.type_ == wanted);
        match found {
            None => texts.push(format!("corresponding condition of pod readiness gate \"{wanted}\" does not exist.")),
            Some(one) if one.status != "True" => {
                texts
                    .push(format!("the status of pod readiness gate \"{wanted}\" is not \"True\", but {}", one.status));
            }
            Some(_) => {}
        }
    }
    if texts.is_empty() { (true, None, None) } else { (false, Some("ReadinessGatesNotReady"), Some(texts.join(", "))) }
}

fn condition(facts: Facts<'_>, name: &str, holds: bool, reason: Option<&str>, message: Option<String>) -> PodCondition {
    let status = if holds { "True" } else { "False" };
    let old = facts.before.conditions.iter().flatten().find(|one| one.type_ == name && one.status == status);
    PodCondition {
        type_: name.to_owned(),
        status: status.to_owned(),
        reason: reason.map(str::to_owned),
        message,
        last_probe_time: None,
        last_transition_time: old.and_then(|one| one.last_transition_time.clone()).or(Some(Time(seconds(facts.now)))),
        observed_generation: facts.pod.metadata.generation,
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
