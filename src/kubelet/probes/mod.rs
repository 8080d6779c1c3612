//! Probes: what they ask ([`handler`]), when ([`schedule`]), and the tasks that do it ([`Probers`]).
//!
//! One task per probe of a running container's instance. It sleeps until the next probe is due and reports only when the
//! verdict changes, so a healthy container causes no work beyond its probes. Startup probes come first: liveness and readiness are
//! probed once the container has started.

pub mod handler;
pub mod schedule;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Involved, Recorder};
use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use k8s_openapi::jiff::Timestamp;
use task::Shutdown;
use tokio::sync::mpsc;

use crate::objects::{Kind, PodExt};
use crate::pods::observed::{Observed, timestamp};
use crate::pods::plan::ProbeState;
use crate::runtime::Runtime;
use handler::{Outcome, Target};
use schedule::Tally;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProbeKind {
    Startup,
    Readiness,
    Liveness,
}

impl ProbeKind {
    fn name(self) -> &'static str {
        match self {
            ProbeKind::Startup => "Startup",
            ProbeKind::Readiness => "Readiness",
            ProbeKind::Liveness => "Liveness",
        }
    }
}

/// A probe's verdict has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub container: String,
    pub container_id: String,
    pub kind: ProbeKind,
    pub success: bool,
}

/// Ends its task when dropped.
struct Running {
    container_id: String,
    stop: Shutdown,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The probe tasks of one pod.
pub struct Probers {
    runtime: Runtime,
    events: Recorder,
    verdicts: mpsc::UnboundedSender<Verdict>,
    running: BTreeMap<(String, ProbeKind), Running>,
}

impl Probers {
    pub fn new(runtime: Runtime, events: Recorder, verdicts: mpsc::UnboundedSender<Verdict>) -> Probers {
        Probers { runtime, events, verdicts, running: BTreeMap::new() }
    }

    /// Starts and ends tasks so that each probe of each running instance has one. `is_starting` names containers whose
    /// postStart hook still runs; they are not probed yet.
    pub fn reconcile(
        &mut self,
        pod: &Arc<Pod>,
        observed: &Observed,
        state: &BTreeMap<String, ProbeState>,
        is_ending: bool,
        is_starting: impl Fn(&str) -> bool,
    ) {
        let mut wanted = BTreeMap::new();
        for (kind, container) in pod.containers() {
            if !matches!(kind, Kind::Main | Kind::Sidecar) || is_starting(&container.name) {
                continue;
            }
            let Some(seen) = observed.latest(&container.name).filter(|seen| seen.is_running()) else { continue };
            let known = state.get(&container.name).filter(|state| state.container_id == seen.status.id);
            let started = container.startup_probe.is_none() || known.and_then(|state| state.started) == Some(true);
            let failed = known.is_some_and(|state| state.started == Some(false) || state.live == Some(false));
            let mut want = |probe: Option<&Probe>, kind: ProbeKind| {
                if let Some(probe) = probe {
                    wanted
                        .insert((container.name.clone(), kind), (seen, probe.clone(), container.clone().into_owned()));
                }
            };
            if !started {
                if !failed && !is_ending {
                    want(container.startup_probe.as_ref(), ProbeKind::Startup);
                }
                continue;
            }
            want(container.readiness_probe.as_ref(), ProbeKind::Readiness);
            if !is_ending && !failed {
                want(container.liveness_probe.as_ref(), ProbeKind::Liveness);
            }
        }
        self.running
            .retain(|key, running| wanted.get(key).is_some_and(|(seen, _, _)| seen.status.id == running.container_id));
        let pod_ip = observed.ips().into_iter().next().unwrap_or_default();
        for (key, (seen, probe, container)) in wanted {
            if self.running.contains_key(&key) {
                continue;
            }
            let stop = Shutdown::new();
            let known = state.get(&key.0).filter(|state| state.container_id == seen.status.id);
            let prober = Prober {
                kind: key.1,
                probe,
                target: Target {
                    pod: pod.clone(),
                    container_id: seen.status.id.clone(),
                    pod_ip: pod_ip.clone(),
                    container,
                },
                started_at: timestamp(seen.status.started_at),
                // After a restart of this process a container that was ready stays so until its probe says otherwise.
                initial: match key.1 {
                    ProbeKind::Startup => None,
                    ProbeKind::Readiness => known.and_then(|state| state.ready),
                    ProbeKind::Liveness => Some(true),
                },
                runtime: self.runtime.clone(),
                events: self.events.clone(),
                verdicts: self.verdicts.clone(),
            };
            self.running.insert(key, Running { container_id: seen.status.id.clone(), stop: stop.clone() });
            task::spawn("probe", async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = prober.run() => {}
                }
            });
        }
    }
}

struct Prober {
    kind: ProbeKind,
    probe: Probe,
    target: Target,
    started_at: Timestamp,
    initial: Option<bool>,
    runtime: Runtime,
    events: Recorder,
    verdicts: mpsc::UnboundedSender<Verdict>,
}

impl Prober {
    async fn run(self) {
        let pause = schedule::initial_pause(&self.probe, self.started_at, Timestamp::now());
        tokio::time::sleep(pause).await;
        let period = schedule::period(&self.probe);
        let mut tally = Tally::new(self.initial);
        let mut due = tokio::time::interval(period);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            due.tick().await;
            let outcome = handler::probe(&self.runtime, &self.probe, &self.target).await;
            let success = match outcome {
                Outcome::Success => true,
                Outcome::Failure(why) => {
                    self.report("Unhealthy", format!("{} probe failed: {why}", self.kind.name()));
                    false
                }
                Outcome::Error(why) => {
                    self.report(
                        "Unhealthy",
                        format!("{} probe errored and resulted in unknown state: {why}", self.kind.name()),
                    );
                    continue;
                }
            };
            let Some(verdict) = tally.add(success, &self.probe) else { continue };
            let told = self.verdicts.send(Verdict {
                container: self.target.container.name.clone(),
                container_id: self.target.container_id.clone(),
                kind: self.kind,
                success: verdict,
            });
            // Startup is decided once; a container that failed its liveness probe is on its way out.
            if told.is_err() || self.kind == ProbeKind::Startup || (self.kind == ProbeKind::Liveness && !verdict) {
                return;
            }
        }
    }

    fn report(&self, reason: &str, message: String) {
        self.events.warning(involved(&self.target.pod, &self.target.container), reason, message);
    }
}

/// The container as the object of an event.
pub fn involved(pod: &Pod, container: &Container) -> Involved {
    let list = match pod.container(&container.name) {
        Some((Kind::Init | Kind::Sidecar, _)) => "initContainers",
        Some((Kind::Ephemeral, _)) => "ephemeralContainers",
        _ => "containers",
    };
    Involved::new(pod).field(format!("spec.{list}{{{}}}", container.name))
}

pub(crate) fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(value.and_then(|seconds| u64::try_from(seconds).ok()).filter(|&s| s > 0).unwrap_or(default))
}
