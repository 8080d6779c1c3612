//! What to do next for a pod: the state machine of a pod worker, as a pure function.
//!
//! [`plan`] looks at the pod, at what the runtime has of it and at what the worker remembers, and says what to begin
//! now and when to look again at the latest. It begins nothing twice: work that is under way is in [`Memory::busy`].
//! It is called again after every change, so it never plans more than one step ahead.
//!
//! The stages of a pod:
//!
//! 1. volumes, then the sandbox;
//! 2. init containers one after the other, sidecars among them as soon as the one before has started;
//! 3. main containers, restarted as their policy and their probes say;
//! 4. the end ([`Ending`]): containers stop, sidecars last and in reverse order, then the sandbox, then volumes and
//!    cgroups are cleaned up. The dead containers stay for their logs until the pod itself is gone from the API.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cri::v1::ContainerState;
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::backoff::{Backoff, after, go_seconds};
use super::observed::{Observed, Seen, attempt_of, is_ready};
use crate::objects::{Kind, PodExt, container_hash, should_restart};

/// Everything a decision depends on.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub pod: &'a Pod,
    pub observed: &'a Observed,
    pub memory: &'a Memory,
    pub now: Timestamp,
}

/// What a worker knows that neither the API nor the runtime tells.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    pub volumes: Volumes,
    pub busy: BTreeSet<Work>,
    /// Containers that could not be started, until they could.
    pub trouble: BTreeMap<String, Trouble>,
    pub sandbox_retry_at: Option<Timestamp>,
    /// Restarts after a container ended, by container.
    pub crashes: BTreeMap<String, Backoff>,
    pub probes: BTreeMap<String, ProbeState>,
    pub ending: Option<Ending>,
    pub cleaned_up: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Volumes {
    #[default]
    NotYet,
    Ready,
    Failed {
        retry_at: Timestamp,
    },
}

/// Work under way. A pod's parts are worked on side by side, each by one thing at a time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Work {
    Volumes,
    Sandbox,
    Container(String),
    CleanUp,
    /// Removal of a dead container or sandbox.
    Remove(String),
}

/// A container that could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// `ErrImagePull`, `CreateContainerConfigError`, ...
    pub reason: String,
    pub message: String,
    pub at: Timestamp,
    pub retry_at: Timestamp,
    pub image: String,
}

/// What the probes found out about a container's instance; `None` is not known yet or not probed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeState {
    pub container_id: String,
    pub started: Option<bool>,
    pub ready: Option<bool>,
    pub live: Option<bool>,
}

/// A pod that comes to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    pub cause: Cause,
    pub since: Timestamp,
    pub grace_seconds: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Somebody deleted the pod.
    Deleted,
    /// The pod is not in the API any more.
    Removed,
    /// All containers ended for good.
    Completed,
    /// The node ends the pod, which fails: evicted, past its deadline.
    Failed { reason: String, message: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    SetUpVolumes,
    /// `stop` are the sandboxes that it replaces.
    CreateSandbox {
        attempt: u32,
        stop: Vec<String>,
    },
    /// Pulls the image, creates and starts the container, runs its postStart hook. `replaces` was created and never
    /// started.
    Start {
        container: String,
        kind: Kind,
        sandbox_id: String,
        attempt: u32,
        replaces: Option<String>,
        is_restart: bool,
    },
    Kill {
        id: String,
        container: String,
        why: KillReason,
        grace_seconds: i64,
    },
    StopSandboxes {
        ids: Vec<String>,
    },
    RemoveContainer {
        id: String,
    },
    RemoveSandbox {
        id: String,
    },
    CleanUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    PodEnds,
    SandboxChanged,
    DefinitionChanged,
    LivenessFailed,
    StartupFailed,
    /// The runtime does not know its state.
    StateUnknown,
}

impl KillReason {
    /// The text of the `Killing` event.
    pub fn message(self, container: &str) -> String {
        match self {
            KillReason::PodEnds | KillReason::SandboxChanged => format!("Stopping container {container}"),
            KillReason::DefinitionChanged => format!("Container {container} definition changed, will be restarted"),
            KillReason::LivenessFailed => format!("Container {container} failed liveness probe, will be restarted"),
            KillReason::StartupFailed => format!("Container {container} failed startup probe, will be restarted"),
            KillReason::StateUnknown => {
                format!("Container {container} is in an unknown state and is stopped before it is restarted")
            }
        }
    }
}

/// Why a container waits (`state.waiting`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub waiting: BTreeMap<String, Waiting>,
    /// The pod shall end, although nobody asked: the worker puts it into [`Memory::ending`].
    pub end: Option<Cause>,
    /// Everything that belongs to the end is done.
    pub has_ended: bool,
    pub wake_at: Option<Timestamp>,
}

impl Plan {
    fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |before| before.min(at)));
    }
}

/// How long an image that could not be pulled shows `ErrImagePull` before it shows the back-off.
const PULL_ERROR_SHOWN: Duration = Duration::from_secs(1);
/// Instances of a container that are kept: the last one, and the one before for `logs --previous`.
const INSTANCES_KEPT: usize = 2;
/// What a container that stops last gets at least.
const LAST_GRACE_SECONDS_MIN: i64 = 2;

pub fn plan(view: View<'_>) -> Plan {
    let mut plan = Plan::default();
    match &view.memory.ending {
        Some(ending) => plan_end(view, ending, &mut plan),
        None => {
            if let Some(cause) = past_deadline(view, &mut plan) {
                plan.end = Some(cause);
                return plan;
            }
            plan_run(view, &mut plan);
            collect_garbage(view, &mut plan);
        }
    }
    plan
}

fn past_deadline(view: View<'_>, plan: &mut Plan) -> Option<Cause> {
    let seconds = view.pod.spec().active_deadline_seconds?;
    let started = view.pod.status.as_ref()?.start_time.as_ref()?.0;
    let deadline = started.checked_add(SignedDuration::from_secs(seconds)).ok()?;
    if view.now >= deadline {
        return Some(Cause::Failed {
            reason: "DeadlineExceeded".to_owned(),
            message: "Pod was active on the node longer than the specified deadline".to_owned(),
        });
    }
    plan.wake(deadline);
    None
}

fn plan_run(view: View<'_>, plan: &mut Plan) {
    let View { pod, observed, memory, now } = view;
    if memory.volumes != Volumes::Ready {
        match memory.volumes {
            _ if memory.busy.contains(&Work::Volumes) => {}
            Volumes::Failed { retry_at } if retry_at > now => plan.wake(retry_at),
            _ => plan.actions.push(Action::SetUpVolumes),
        }
        // Containers that survived a restart of this process go on meanwhile; nothing new is started.
        return;
    }
    let Some(sandbox) = observed.sandbox(!pod.host_network()) else {
        return plan_sandbox(view, plan);
    };
    let sandbox_id = sandbox.id.as_str();
    for left in observed.running().filter(|one| one.sandbox_id != sandbox_id) {
        kill(view, plan, left, KillReason::SandboxChanged, pod.grace_seconds());
    }
    let containers = pod.containers();
    for (_, container) in containers.iter().filter(|(kind, _)| *kind == Kind::Ephemeral) {
        if observed.latest(&container.name).is_none() {
            start(view, plan, Kind::Ephemeral, container, sandbox_id);
        }
    }
    match plan_init(view, plan, sandbox_id) {
        Init::Waits => return,
        Init::Failed => {
            plan.end = Some(Cause::Completed);
            return;
        }
        Init::Done => {}
    }
    let mut is_over = true;
    for (_, container) in containers.iter().filter(|(kind, _)| *kind == Kind::Main) {
        is_over &= plan_main(view, plan, container, sandbox_id);
    }
    if is_over {
        plan.actions.clear();
        plan.end = Some(Cause::Completed);
    }
}

fn plan_sandbox(view: View<'_>, plan: &mut Plan) {
    let View { pod, observed, memory, now } = view;
    if memory.busy.contains(&Work::Sandbox) {
        return;
    }
    // Containers of a lost sandbox are stopped first: a new sandbox gives them new addresses and namespaces.
    let mut waits = false;
    for left in observed.running() {
        kill(view, plan, left, KillReason::SandboxChanged, pod.grace_seconds());
        waits = true;
    }
    if waits || memory.busy.iter().any(|work| matches!(work, Work::Container(_))) {
        return;
    }
    let has_run = !observed.sandboxes.is_empty() && !observed.containers.is_empty();
    if has_run && is_over_without_sandbox(pod, observed) {
        plan.end = Some(Cause::Completed);
        return;
    }
    if let Some(retry_at) = memory.sandbox_retry_at.filter(|&at| at > now) {
        plan.wake(retry_at);
        return;
    }
    let attempt = observed.sandboxes.first().map_or(0, |last| attempt_of(last).saturating_add(1));
    let stop = observed.sandboxes.iter().map(|one| one.id.clone()).collect();
    plan.actions.push(Action::CreateSandbox { attempt, stop });
}

/// Whether a pod that lost its sandbox has nothing left to run: every main container ended for good, or an init
/// container failed for good.
fn is_over_without_sandbox(pod: &Pod, observed: &Observed) -> bool {
    let ended_for_good = |kind: Kind, container: &Container| {
        observed
            .latest(&container.name)
            .filter(|seen| seen.has_exited())
            .is_some_and(|seen| !should_restart(pod, kind, container, seen.status.exit_code))
    };
    let containers = pod.containers();
    let init_failed = containers.iter().any(|(kind, container)| {
        *kind == Kind::Init
            && ended_for_good(*kind, container)
            && observed.latest(&container.name).is_some_and(|seen| seen.status.exit_code != 0)
    });
    init_failed
        || containers.iter().filter(|(kind, _)| *kind == Kind::Main).all(|(kind, one)| ended_for_good(*kind, one))
}

enum Init {
    Waits,
    Done,
    Failed,
}

fn plan_init(view: View<'_>, plan: &mut Plan, sandbox_id: &str) -> Init {
    let View { pod, observed, .. } = view;
    let containers = pod.containers();
    // Once a main container was there, initialization is over for this sandbox; only sidecars are looked after.
    let is_over =
        containers.iter().any(|(kind, one)| *kind == Kind::Main && observed.latest_in(sandbox_id, &one.name).is_some());
    for (kind, container) in &containers {
        let seen = observed.latest_in(sandbox_id, &container.name);
        match kind {
            Kind::Init if is_over => {}
            Kind::Init => match seen {
                Some(seen) if seen.has_exited() && seen.status.exit_code == 0 => {}
                Some(seen) if seen.has_exited() => {
                    if !should_restart(pod, *kind, container, seen.status.exit_code) {
                        return Init::Failed;
                    }
                    start(view, plan, *kind, container, sandbox_id);
                    return Init::Waits;
                }
                Some(seen) if seen.is_running() => return Init::Waits,
                Some(seen) if seen.may_run() => {
                    kill(view, plan, seen, KillReason::StateUnknown, pod.grace_seconds());
                    return Init::Waits;
                }
                _ => {
                    start(view, plan, *kind, container, sandbox_id);
                    return Init::Waits;
                }
            },
            Kind::Sidecar => {
                match seen {
                    Some(seen) if seen.may_run() => {
                        check_running(view, plan, container, seen);
                    }
                    _ => start(view, plan, *kind, container, sandbox_id),
                }
                if !is_over && !has_started(view, container, seen) {
                    return Init::Waits;
                }
            }
            Kind::Main | Kind::Ephemeral => {}
        }
    }
    Init::Done
}

/// Returns whether the container has ended for good.
fn plan_main(view: View<'_>, plan: &mut Plan, container: &Container, sandbox_id: &str) -> bool {
    let View { pod, observed, memory, .. } = view;
    if memory.busy.contains(&Work::Container(container.name.clone())) {
        return false;
    }
    let latest = observed.latest(&container.name);
    match latest {
        Some(seen) if seen.has_exited() => {
            if !should_restart(pod, Kind::Main, container, seen.status.exit_code) {
                return true;
            }
            start(view, plan, Kind::Main, container, sandbox_id);
        }
        Some(seen) if seen.may_run() => check_running(view, plan, container, seen),
        _ => start(view, plan, Kind::Main, container, sandbox_id),
    }
    false
}

/// A running container is stopped when its definition changed or its probes failed.
fn check_running(view: View<'_>, plan: &mut Plan, container: &Container, seen: &Seen) {
    let grace_of = |probe: Option<&Probe>| {
        probe.and_then(|probe| probe.termination_grace_period_seconds).unwrap_or_else(|| view.pod.grace_seconds())
    };
    let probes = probes_of(view, seen);
    if seen.state() == ContainerState::ContainerUnknown {
        kill(view, plan, seen, KillReason::StateUnknown, view.pod.grace_seconds());
    } else if !seen.hash().is_empty() && seen.hash() != container_hash(container) {
        kill(view, plan, seen, KillReason::DefinitionChanged, view.pod.grace_seconds());
    } else if probes.is_some_and(|probes| probes.started == Some(false)) {
        kill(view, plan, seen, KillReason::StartupFailed, grace_of(container.startup_probe.as_ref()));
    } else if probes.is_some_and(|probes| probes.live == Some(false)) {
        kill(view, plan, seen, KillReason::LivenessFailed, grace_of(container.liveness_probe.as_ref()));
    }
}

fn probes_of<'a>(view: View<'a>, seen: &Seen) -> Option<&'a ProbeState> {
    view.memory.probes.get(seen.name()).filter(|probes| probes.container_id == seen.status.id)
}

/// Running, its postStart hook done and its startup probe passed.
fn has_started(view: View<'_>, container: &Container, seen: Option<&Seen>) -> bool {
    let Some(seen) = seen.filter(|seen| seen.is_running()) else { return false };
    !view.memory.busy.contains(&Work::Container(container.name.clone()))
        && (container.startup_probe.is_none() || probes_of(view, seen).and_then(|probes| probes.started) == Some(true))
}

fn start(view: View<'_>, plan: &mut Plan, kind: Kind, container: &Container, sandbox_id: &str) {
    let View { pod, observed, memory, now } = view;
    let name = &container.name;
    if memory.busy.contains(&Work::Container(name.clone())) {
        if let Some(trouble) = memory.trouble.get(name) {
            let waiting = Waiting { reason: trouble.reason.clone(), message: trouble.message.clone() };
            plan.waiting.insert(name.clone(), waiting);
        }
        return;
    }
    if let Some(trouble) = memory.trouble.get(name).filter(|trouble| trouble.retry_at > now) {
        plan.wake(trouble.retry_at);
        let mut waiting = Waiting { reason: trouble.reason.clone(), message: trouble.message.clone() };
        if trouble.reason == "ErrImagePull" {
            let shown_until = after(trouble.at, PULL_ERROR_SHOWN);
            if now < shown_until {
                plan.wake(shown_until);
            } else {
                let message =
                    format!("Back-off pulling image \"{}\": ErrImagePull: {}", trouble.image, trouble.message);
                waiting = Waiting { reason: "ImagePullBackOff".to_owned(), message };
            }
        }
        plan.waiting.insert(name.clone(), waiting);
        return;
    }
    let latest = observed.latest(name);
    let exited = latest.filter(|seen| seen.has_exited());
    if let Some(exited) = exited
        && let Some(wait) = memory.crashes.get(name).and_then(|backoff| backoff.wait(exited.finished_at()))
    {
        let until = after(exited.finished_at(), wait);
        if now < until {
            plan.wake(until);
            let message =
                format!("back-off {} restarting failed container={name} pod={}", go_seconds(wait), pod.full());
            plan.waiting.insert(name.clone(), Waiting { reason: "CrashLoopBackOff".to_owned(), message });
            return;
        }
    }
    let created = latest.filter(|seen| seen.state() == ContainerState::ContainerCreated);
    let attempt = match (created, latest) {
        (Some(created), _) => created.attempt(),
        (None, Some(latest)) => latest.attempt().saturating_add(1),
        (None, None) => attempt_from_status(pod, name),
    };
    plan.actions.push(Action::Start {
        container: name.clone(),
        kind,
        sandbox_id: sandbox_id.to_owned(),
        attempt,
        replaces: created.map(|seen| seen.status.id.clone()),
        is_restart: exited.is_some(),
    });
}

/// The runtime knows no instance: what the API says of earlier ones counts on.
fn attempt_from_status(pod: &Pod, name: &str) -> u32 {
    let Some(status) = &pod.status else { return 0 };
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let known =
        all.into_iter().find(|one| one.name == name && one.container_id.as_ref().is_some_and(|id| !id.is_empty()));
    known.map_or(0, |one| u32::try_from(one.restart_count).unwrap_or(0).saturating_add(1))
}

fn kill(view: View<'_>, plan: &mut Plan, seen: &Seen, why: KillReason, grace_seconds: i64) {
    let container = seen.name().to_owned();
    if !view.memory.busy.contains(&Work::Container(container.clone())) {
        plan.actions.push(Action::Kill { id: seen.status.id.clone(), container, why, grace_seconds });
    }
}

fn plan_end(view: View<'_>, ending: &Ending, plan: &mut Plan) {
    let View { pod, observed, memory, now } = view;
    let is_sidecar = |seen: &&Seen| matches!(pod.container(seen.name()), Some((Kind::Sidecar, _)));
    let first: Vec<&Seen> = observed.running().filter(|seen| !is_sidecar(seen)).collect();
    if !first.is_empty() {
        for seen in first {
            kill(view, plan, seen, KillReason::PodEnds, ending.grace_seconds);
        }
        return;
    }
    let is_busy = |work: &Work| matches!(work, Work::Container(_) | Work::Sandbox | Work::Volumes);
    if memory.busy.iter().any(is_busy) {
        return;
    }
    // The last sidecar to start is the first to stop.
    let sidecars: Vec<_> = pod.containers().into_iter().filter(|(kind, _)| *kind == Kind::Sidecar).collect();
    let last =
        sidecars.iter().rev().find_map(|(_, container)| observed.running().find(|one| one.name() == container.name));
    if let Some(seen) = last.or_else(|| observed.running().next()) {
        let gone = now.duration_since(ending.since).as_secs();
        let left = ending.grace_seconds.saturating_sub(gone).max(LAST_GRACE_SECONDS_MIN.min(ending.grace_seconds));
        kill(view, plan, seen, KillReason::PodEnds, left);
        return;
    }
    let ready: Vec<String> = observed.sandboxes.iter().filter(|one| is_ready(one)).map(|one| one.id.clone()).collect();
    if !ready.is_empty() {
        if let Some(retry_at) = memory.sandbox_retry_at.filter(|&at| at > now) {
            plan.wake(retry_at);
        } else {
            plan.actions.push(Action::StopSandboxes { ids: ready });
        }
        return;
    }
    if !memory.cleaned_up {
        if memory.busy.contains(&Work::CleanUp) {
            return;
        }
        if let Some(retry_at) = memory.sandbox_retry_at.filter(|&at| at > now) {
            plan.wake(retry_at);
        } else {
            plan.actions.push(Action::CleanUp);
        }
        return;
    }
    if ending.cause == Cause::Removed {
        remove_all(view, plan);
        plan.has_ended = observed.containers.is_empty() && observed.sandboxes.is_empty();
    } else {
        plan.has_ended = true;
    }
}

/// The pod is gone: so are its containers, then its sandboxes.
fn remove_all(view: View<'_>, plan: &mut Plan) {
    let View { observed, memory, now, .. } = view;
    if let Some(retry_at) = memory.sandbox_retry_at.filter(|&at| at > now) {
        plan.wake(retry_at);
        return;
    }
    for seen in &observed.containers {
        remove_container(view, plan, seen);
    }
    if observed.containers.is_empty() {
        for sandbox in &observed.sandboxes {
            remove_sandbox(view, plan, &sandbox.id);
        }
    }
}

/// Of every container the last instances stay; sandboxes go when they are replaced and empty.
fn collect_garbage(view: View<'_>, plan: &mut Plan) {
    let observed = view.observed;
    let mut kept: BTreeMap<&str, usize> = BTreeMap::new();
    for seen in &observed.containers {
        let count = kept.entry(seen.name()).or_default();
        *count += 1;
        if *count > INSTANCES_KEPT && !seen.may_run() {
            remove_container(view, plan, seen);
        }
    }
    for old in observed.sandboxes.iter().skip(1) {
        if !is_ready(old) && !observed.containers.iter().any(|one| one.sandbox_id == old.id) {
            remove_sandbox(view, plan, &old.id);
        }
    }
}

fn remove_container(view: View<'_>, plan: &mut Plan, seen: &Seen) {
    if !view.memory.busy.contains(&Work::Remove(seen.status.id.clone())) {
        plan.actions.push(Action::RemoveContainer { id: seen.status.id.clone() });
    }
}

fn remove_sandbox(view: View<'_>, plan: &mut Plan, id: &str) {
    if !view.memory.busy.contains(&Work::Remove(id.to_owned())) {
        plan.actions.push(Action::RemoveSandbox { id: id.to_owned() });
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
