//! The worker of one pod: observe, plan, begin, report, wait; again after whatever happens.
//!
//! Work that takes time (pulls, hooks, stopping) runs side by side in [`Worker::works`] and reports back; the worker
//! itself never waits for it, so a deletion is seen while an image is pulled. What is under way stands in
//! [`Memory::busy`], and is taken from there before the runtime is observed again, so that no plan is made from an observation
//! older than the work's end.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use client::Changes;
use futures::StreamExt;
use futures::future::{AbortHandle, Abortable};
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, PodStatus, Secret};
use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use task::Shutdown;
use tokio::sync::{Notify, mpsc};

use super::backoff::{Backoff, WAIT_MIN, after};
use super::observed::Observed;
use super::plan::{Action, Cause, Ending, KillReason, Memory, Plan, ProbeState, Trouble, View, Volumes, Work, plan};
use super::start::{self, Order, StartError};
use super::status::{Facts, status};
use super::{Context, stop};
use crate::containers::config::log_path;
use crate::containers::names;
use crate::containers::sandbox::log_directory;
use crate::logs;
use crate::objects::PodExt;
use crate::probes::{ProbeKind, Probers, Verdict};
use crate::volumes::{SetUp, Tokens, VolumeError, Watched};

/// Before a sandbox, or its removal, is tried again.
const SANDBOX_RETRY: Duration = Duration::from_secs(5);
const CLEAN_UP_RETRY: Duration = Duration::from_secs(1);
/// Before the runtime is asked again after it failed to answer.
const OBSERVE_RETRY: Duration = Duration::from_secs(1);
const VOLUME_RETRY_MIN: Duration = Duration::from_millis(500);
const VOLUME_RETRY_MAX: Duration = Duration::from_secs(120);
/// What upstream reads of a termination message.
const TERMINATION_MESSAGE_BYTES_MAX: usize = 4096;

/// What others tell a worker; only the latest counts.
#[derive(Default)]
pub struct Inbox {
    state: Mutex<News>,
    woken: Notify,
}

#[derive(Default)]
struct News {
    pod: Option<Arc<Pod>>,
    is_removed: bool,
}

impl Inbox {
    pub fn update(&self, pod: Arc<Pod>) {
        self.state.lock().pod = Some(pod);
        self.woken.notify_one();
    }

    /// The pod is not in the API any more.
    pub fn remove(&self) {
        self.state.lock().is_removed = true;
        self.woken.notify_one();
    }

    pub fn wake(&self) {
        self.woken.notify_one();
    }
}

type Running = Pin<Box<dyn Future<Output = (Work, Option<Done>)> + Send>>;

/// How a piece of work ended.
enum Done {
    Volumes(Result<SetUp, VolumeError>),
    Sandbox(Result<(), String>),
    Started(String, Result<(), StartError>),
    Stopped(Result<(), String>),
    CleanedUp(Result<(), String>),
}

pub struct Worker {
    context: Arc<Context>,
    inbox: Arc<Inbox>,
    pod: Arc<Pod>,
    memory: Memory,
    works: FuturesUnordered<Running>,
    /// Stops under way and the grace they give, to be able to shorten it.
    stops: HashMap<String, (AbortHandle, i64)>,
    /// Starts under way give up when the pod ends.
    starts: Shutdown,
    probers: Probers,
    verdicts: mpsc::UnboundedReceiver<Verdict>,
    watched: Watched,
    tokens: Tokens,
    refresh_at: Option<Timestamp>,
    /// Something changed while the volumes were being set up, perhaps after it was read.
    is_stale: bool,
    volume_failures: u32,
    pulls: BTreeMap<String, Backoff>,
    /// Termination messages by container id.
    messages: BTreeMap<String, String>,
    before: PodStatus,
    told_waiting: BTreeMap<String, String>,
}

impl Worker {
    pub fn new(context: Arc<Context>, pod: Arc<Pod>, inbox: Arc<Inbox>) -> Worker {
        let (sender, verdicts) = mpsc::unbounded_channel();
        let probers = Probers::new(context.runtime.clone(), context.events.clone(), sender);
        // Another worker may have been here before (it panicked): its status is newer than the API's.
        let before = context.statuses.wanted(pod.uid()).or_else(|| pod.status.clone()).unwrap_or_default();
        let mut memory = Memory::default();
        if pod.is_terminal() {
            memory.ending = Some(ending(Cause::Completed, &pod));
        }
        Worker {
            watched: Watched::of(&pod, &context.client),
            context,
            inbox,
            pod,
            memory,
            works: FuturesUnordered::new(),
            stops: HashMap::new(),
            starts: Shutdown::new(),
            probers,
            verdicts,
            tokens: Tokens::default(),
            refresh_at: None,
            is_stale: false,
            volume_failures: 0,
            pulls: BTreeMap::new(),
            messages: BTreeMap::new(),
            before,
            told_waiting: BTreeMap::new(),
        }
    }

    /// Runs until nothing of the pod is left, neither in the API nor on the node.
    pub async fn run(mut self) {
        let mut changes = self.watched.changes();
        let mut is_first = true;
        loop {
            self.read_inbox();
            let observed = match self.context.runtime.observe(self.pod.uid()).await {
                Ok(observed) => observed,
                Err(error) => {
                    tracing::debug!(pod = %self.pod.full(), %error, "runtime not observed; it is asked again");
                    tokio::select! {
                        () = tokio::time::sleep(OBSERVE_RETRY) => {}
                        () = self.inbox.woken.notified() => {}
                    }
                    continue;
                }
            };
            if std::mem::take(&mut is_first) {
                self.adopt(&observed);
            }
            self.forget_old(&observed);
            self.read_messages(&observed).await;
            let now = Timestamp::now();
            let plan = plan(View { pod: &self.pod, observed: &observed, memory: &self.memory, now });
            if let Some(cause) = plan.end {
                self.end(cause);
                continue;
            }
            let is_ending = self.memory.ending.is_some();
            let busy = &self.memory.busy;
            self.probers.reconcile(&self.pod, &observed, &self.memory.probes, is_ending, |name| {
                busy.contains(&Work::Container(name.to_owned()))
            });
            self.tell_waiting(&plan);
            self.report(&observed, &plan, now);
            let wake_at = plan.wake_at;
            let is_gone =
                plan.has_ended && matches!(&self.memory.ending, Some(ending) if ending.cause == Cause::Removed);
            if is_gone && self.works.is_empty() {
                return self.forget().await;
            }
            for action in plan.actions {
                self.begin(action, &observed);
            }
            self.wait(wake_at, &mut changes).await;
        }
    }

    async fn wait(
        &mut self,
        wake_at: Option<Timestamp>,
        (maps, secrets): &mut (Vec<Changes<ConfigMap>>, Vec<Changes<Secret>>),
    ) {
        let due = match (wake_at, self.refresh_at) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let sleep = async {
            match due {
                // A moment late rather than early: early would mean to come back for nothing.
                Some(at) => {
                    let pause = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
                    tokio::time::sleep(pause + Duration::from_millis(1)).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.inbox.woken.notified() => {}
            Some((work, done)) = self.works.next(), if !self.works.is_empty() => self.finish(work, done),
            Some(verdict) = self.verdicts.recv() => self.take_verdict(verdict),
            () = next_of(maps) => self.refresh_volumes(),
            () = next_of(secrets) => self.refresh_volumes(),
            () = sleep => {
                if self.refresh_at.is_some_and(|at| at <= Timestamp::now()) {
                    self.refresh_volumes();
                }
            }
        }
        // Whatever else is there already comes into the same round.
        while let Ok(verdict) = self.verdicts.try_recv() {
            self.take_verdict(verdict);
        }
        while let Some(Some((work, done))) = futures::FutureExt::now_or_never(self.works.next()) {
            self.finish(work, done);
        }
    }

    fn read_inbox(&mut self) {
        let news = std::mem::take(&mut *self.inbox.state.lock());
        if let Some(pod) = news.pod {
            self.pod = pod;
        }
        if news.is_removed {
            self.end(Cause::Removed);
        } else if self.pod.deleted_at().is_some() {
            self.end(Cause::Deleted);
        } else if self.pod.is_terminal() && self.memory.ending.is_none() {
            self.end(Cause::Completed);
        }
    }

    /// The pod ends. A second reason to end overrides the first where it goes further, and may shorten the grace.
    fn end(&mut self, cause: Cause) {
        let grace_seconds = self.pod.grace_seconds();
        match &mut self.memory.ending {
            None => {
                tracing::info!(pod = %self.pod.full(), ?cause, "pod ends");
                if let Cause::Failed { reason, message } = &cause {
                    let about = start::about(&self.pod);
                    self.context.events.warning(about, reason, message.clone());
                }
                self.memory.ending = Some(ending(cause, &self.pod));
                self.starts.cancel();
            }
            Some(ending) => {
                let overrides = match (&ending.cause, &cause) {
                    (Cause::Removed, _) | (_, Cause::Completed) => false,
                    (_, Cause::Removed) | (Cause::Completed, Cause::Deleted) => true,
                    _ => false,
                };
                if overrides {
                    ending.cause = cause;
                }
                ending.grace_seconds = ending.grace_seconds.min(grace_seconds);
            }
        }
        let left = self.memory.ending.as_ref().map_or(grace_seconds, |ending| ending.grace_seconds);
        for (stop, grace) in self.stops.values() {
            if *grace > left {
                stop.abort();
            }
        }
    }

    /// Containers that were ready before this process started are taken as ready until their probes say otherwise.
    fn adopt(&mut self, observed: &Observed) {
        let old = self.before.init_container_statuses.iter().chain(&self.before.container_statuses).flatten();
        for one in old {
            let Some(seen) = observed.latest(&one.name).filter(|seen| seen.is_running()) else { continue };
            if one.container_id.as_deref().is_some_and(|id| id.ends_with(&seen.status.id)) {
                let state = ProbeState {
                    container_id: seen.status.id.clone(),
                    started: one.started.filter(|&started| started),
                    ready: Some(one.ready),
                    live: None,
                };
                self.memory.probes.insert(one.name.clone(), state);
            }
        }
    }

    /// Drops what was remembered about containers that are not there any more.
    fn forget_old(&mut self, observed: &Observed) {
        self.memory
            .probes
            .retain(|name, state| observed.latest(name).is_none_or(|seen| seen.status.id == state.container_id));
        self.messages.retain(|id, _| observed.by_id(id).is_some());
    }

    async fn read_messages(&mut self, observed: &Observed) {
        for seen in observed.containers.iter().filter(|seen| seen.has_exited()) {
            if self.messages.contains_key(&seen.status.id) {
                continue;
            }
            let file = self.context.volumes.termination_log(self.pod.uid(), seen.name(), seen.attempt());
            let mut message = logs::read_head(&file, TERMINATION_MESSAGE_BYTES_MAX).unwrap_or_default();
            let policy = seen.status.annotations.get(names::TERMINATION_MESSAGE_POLICY).map(String::as_str);
            if message.is_empty() && policy == Some("FallbackToLogsOnError") && seen.status.exit_code != 0 {
                let log =
                    log_directory(&self.context.config.log_dir, &self.pod).join(log_path(seen.name(), seen.attempt()));
                message = logs::last_words(&log).await;
            }
            self.messages.insert(seen.status.id.clone(), message);
        }
    }

    fn report(&mut self, observed: &Observed, plan: &Plan, now: Timestamp) {
        // Conditions of others come from the API, everything of our own from what we wrote last.
        if let Some(theirs) = self.pod.status.as_ref().and_then(|status| status.conditions.as_ref()) {
            let own = self.before.conditions.get_or_insert_default();
            let is_own = |kind: &str| {
                ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"].contains(&kind)
            };
            own.retain(|one| is_own(&one.type_) || theirs.iter().any(|their| their.type_ == one.type_));
            for their in theirs.iter().filter(|one| !is_own(&one.type_)) {
                match own.iter_mut().find(|one| one.type_ == their.type_) {
                    Some(one) => *one = their.clone(),
                    None => own.push(their.clone()),
                }
            }
            for their in theirs {
                if !own.iter().any(|one| one.type_ == their.type_) {
                    own.push(their.clone());
                }
            }
        }
        let made = status(Facts {
            pod: &self.pod,
            before: &self.before,
            observed,
            memory: &self.memory,
            plan,
            node_ips: &self.context.node.ips,
            runtime_name: &self.context.runtime_name.load(),
            messages: &self.messages,
            now,
        });
        let is_removed = matches!(&self.memory.ending, Some(ending) if ending.cause == Cause::Removed);
        if !is_removed {
            let delete = plan.has_ended && self.pod.deleted_at().is_some();
            self.context.statuses.set(&self.pod, made.clone(), delete);
        }
        self.before = made;
    }

    /// Events for containers that begin to wait out a back-off.
    fn tell_waiting(&mut self, plan: &Plan) {
        let mut told = BTreeMap::new();
        for (name, waiting) in &plan.waiting {
            let is_new = self.told_waiting.get(name) != Some(&waiting.message);
            told.insert(name.clone(), waiting.message.clone());
            let Some((_, container)) = self.pod.container(name).filter(|_| is_new) else { continue };
            let about = crate::probes::involved(&self.pod, &container);
            match waiting.reason.as_str() {
                "CrashLoopBackOff" => {
                    let text = format!("Back-off restarting failed container {name} in pod {}", self.pod.full());
                    self.context.events.warning(about, "BackOff", text);
                }
                "ImagePullBackOff" => {
                    self.context.events.normal(about.clone(), "BackOff", waiting.message.clone());
                    self.context.events.warning(about, "Failed", "Error: ImagePullBackOff");
                }
                _ => {}
            }
        }
        self.told_waiting = told;
    }

    fn take_verdict(&mut self, verdict: Verdict) {
        let state = self.memory.probes.entry(verdict.container).or_default();
        if state.container_id != verdict.container_id {
            *state = ProbeState { container_id: verdict.container_id, ..ProbeState::default() };
        }
        let known = match verdict.kind {
            ProbeKind::Startup => &mut state.started,
            ProbeKind::Readiness => &mut state.ready,
            ProbeKind::Liveness => &mut state.live,
        };
        *known = Some(verdict.success);
    }

    /// Sets the volumes up once more, which changes only what is different.
    fn refresh_volumes(&mut self) {
        if self.memory.ending.is_some() {
            return;
        }
        if self.memory.busy.contains(&Work::Volumes) {
            self.is_stale = true;
            return;
        }
        match self.memory.volumes {
            Volumes::Ready => self.set_up_volumes(),
            // What was missing may be there now.
            Volumes::Failed { .. } => self.memory.volumes = Volumes::NotYet,
            Volumes::NotYet => {}
        }
    }

    fn set_up_volumes(&mut self) {
        self.refresh_at = None;
        self.is_stale = false;
        let (context, pod) = (self.context.clone(), self.pod.clone());
        let (watched, tokens) = (self.watched.clone(), self.tokens.clone());
        self.work(Work::Volumes, async move {
            let now = Timestamp::now();
            Done::Volumes(context.volumes.set_up(&pod, &context.node, &watched, &tokens, now).await)
        });
    }

    fn work(&mut self, work: Work, future: impl Future<Output = Done> + Send + 'static) -> AbortHandle {
        let (handle, registration) = AbortHandle::new_pair();
        self.memory.busy.insert(work.clone());
        let future = Abortable::new(future, registration);
        self.works.push(Box::pin(async move { (work, future.await.ok()) }));
        handle
    }

    fn begin(&mut self, action: Action, observed: &Observed) {
        tracing::debug!(pod = %self.pod.full(), ?action, "begins");
        let (context, pod) = (self.context.clone(), self.pod.clone());
        match action {
            Action::SetUpVolumes => self.set_up_volumes(),
            Action::CreateSandbox { attempt, stop } => {
                if attempt > 0 {
                    let text = "Pod sandbox changed, it will be killed and re-created.";
                    context.events.normal(start::about(&pod), "SandboxChanged", text);
                }
                self.work(
                    Work::Sandbox,
                    async move { Done::Sandbox(start::sandbox(&context, &pod, attempt, stop).await) },
                );
            }
            Action::Start { container, kind, sandbox_id, attempt, replaces, is_restart } => {
                if is_restart {
                    let next = Backoff::next(self.memory.crashes.get(&container), Timestamp::now());
                    self.memory.crashes.insert(container.clone(), next);
                }
                let Some((_, spec)) = pod.container(&container) else { return };
                let target = pod.spec().ephemeral_containers.iter().flatten().find(|one| one.name == container);
                let target = target.and_then(|one| one.target_container_name.as_deref());
                let order = Order {
                    kind,
                    container: spec.into_owned(),
                    sandbox_attempt: observed.sandboxes.first().map_or(0, super::observed::attempt_of),
                    sandbox_id,
                    attempt,
                    replaces,
                    pod_ips: observed.ips(),
                    target_id: target.and_then(|name| observed.latest(name)).map(|seen| seen.status.id.clone()),
                };
                let cancelled = self.starts.clone();
                self.work(Work::Container(container.clone()), async move {
                    Done::Started(container, start::container(&context, &pod, order, cancelled).await)
                });
            }
            Action::Kill { id, container, why, grace_seconds } => {
                self.kill(id, container, why, grace_seconds, observed)
            }
            Action::StopSandboxes { ids } => {
                self.work(Work::Sandbox, async move {
                    for id in ids {
                        if let Err(error) = context.runtime.stop_sandbox(&id).await {
                            return Done::Stopped(Err(format!("Failed to stop sandbox {id}: {error}")));
                        }
                    }
                    Done::Stopped(Ok(()))
                });
            }
            Action::RemoveContainer { id } => {
                let log = observed.by_id(&id).map(|seen| {
                    log_directory(&context.config.log_dir, &pod).join(log_path(seen.name(), seen.attempt()))
                });
                self.work(Work::Remove(id.clone()), async move {
                    let outcome = context.runtime.remove_container(&id).await.map_err(|error| error.to_string());
                    if let Some(log) = log.filter(|_| outcome.is_ok()) {
                        logs::remove(&log);
                    }
                    Done::Stopped(outcome)
                });
            }
            Action::RemoveSandbox { id } => {
                self.work(Work::Remove(id.clone()), async move {
                    Done::Stopped(context.runtime.remove_sandbox(&id).await.map_err(|error| error.to_string()))
                });
            }
            Action::CleanUp => {
                self.work(Work::CleanUp, async move {
                    let outcome = async {
                        context.volumes.tear_down(pod.uid()).await.map_err(|error| error.to_string())?;
                        context.cgroups.remove(&pod).map_err(|error| error.to_string())
                    };
                    Done::CleanedUp(outcome.await)
                });
            }
        }
    }

    fn kill(&mut self, id: String, container: String, why: KillReason, grace_seconds: i64, observed: &Observed) {
        let (context, pod) = (self.context.clone(), self.pod.clone());
        // A container that its pod does not know any more still has its name.
        let spec = pod.container(&container).map_or_else(
            || k8s_openapi::api::core::v1::Container { name: container.clone(), ..Default::default() },
            |(_, spec)| spec.into_owned(),
        );
        let pod_ip = observed.ips().into_iter().next().unwrap_or_default();
        let handle = self.work(Work::Container(container.clone()), async move {
            let outcome = stop::container(&context, &pod, &spec, &id, why, grace_seconds, pod_ip).await;
            Done::Stopped(outcome.map_err(|error| error.to_string()))
        });
        self.stops.insert(container, (handle, grace_seconds));
    }

    fn finish(&mut self, work: Work, done: Option<Done>) {
        self.memory.busy.remove(&work);
        if let Work::Container(name) = &work {
            self.stops.remove(name);
        }
        let now = Timestamp::now();
        match done {
            // Given up, to be begun again with less time.
            None => {}
            Some(Done::Volumes(Ok(done))) => {
                self.memory.volumes = Volumes::Ready;
                self.volume_failures = 0;
                self.refresh_at = done.refresh_at;
                if self.is_stale && self.memory.ending.is_none() {
                    self.set_up_volumes();
                }
            }
            Some(Done::Volumes(Err(error))) => {
                self.context.events.warning(start::about(&self.pod), "FailedMount", error.to_string());
                let wait = VOLUME_RETRY_MIN * 2u32.saturating_pow(self.volume_failures.min(10));
                self.volume_failures = self.volume_failures.saturating_add(1);
                let retry_at = after(now, wait.min(VOLUME_RETRY_MAX));
                // Volumes that are there stay in use even if they cannot be refreshed.
                if self.memory.volumes == Volumes::Ready {
                    self.refresh_at = Some(retry_at);
                } else if self.is_stale {
                    self.memory.volumes = Volumes::NotYet;
                } else {
                    self.memory.volumes = Volumes::Failed { retry_at };
                }
            }
            Some(Done::Sandbox(Ok(()))) => self.memory.sandbox_retry_at = None,
            Some(Done::Sandbox(Err(message))) => {
                tracing::warn!(pod = %self.pod.full(), message, "no sandbox; it is tried again");
                self.context.events.warning(start::about(&self.pod), "FailedCreatePodSandBox", message);
                self.memory.sandbox_retry_at = Some(after(now, SANDBOX_RETRY));
            }
            Some(Done::Started(name, outcome)) => self.started(name, outcome, now),
            Some(Done::Stopped(Ok(()))) => {}
            Some(Done::Stopped(Err(message))) => {
                tracing::warn!(pod = %self.pod.full(), ?work, message, "not stopped; it is tried again");
                if matches!(work, Work::Container(_)) {
                    self.context.events.warning(start::about(&self.pod), "FailedKillPod", message);
                }
                self.memory.sandbox_retry_at = Some(after(now, CLEAN_UP_RETRY));
            }
            Some(Done::CleanedUp(Ok(()))) => self.memory.cleaned_up = true,
            Some(Done::CleanedUp(Err(message))) => {
                tracing::info!(pod = %self.pod.full(), message, "not cleaned up; it is tried again");
                self.memory.sandbox_retry_at = Some(after(now, CLEAN_UP_RETRY));
            }
        }
    }

    fn started(&mut self, name: String, outcome: Result<(), StartError>, now: Timestamp) {
        match outcome {
            Ok(()) => {
                self.memory.trouble.remove(&name);
                if let Some((_, container)) = self.pod.container(&name) {
                    self.pulls.remove(container.image.as_deref().unwrap_or_default());
                }
            }
            Err(_) if self.memory.ending.is_some() => {}
            Err(error) => {
                tracing::info!(pod = %self.pod.full(), container = name, reason = error.reason, error = error.message, "container not started");
                let mut wait = WAIT_MIN;
                if let Some(image) = &error.image {
                    let next = Backoff::next(self.pulls.get(image), now);
                    self.pulls.insert(image.clone(), next);
                    wait = next.wait(now).unwrap_or(WAIT_MIN);
                }
                let trouble = Trouble {
                    reason: error.reason,
                    message: error.message,
                    at: now,
                    retry_at: after(now, wait),
                    image: error.image.unwrap_or_default(),
                };
                self.memory.trouble.insert(name, trouble);
            }
        }
    }

    /// Nothing of the pod is left but its files.
    async fn forget(self) {
        let context = &self.context;
        context.statuses.forget(self.pod.uid());
        if let Err(error) = context.volumes.forget(self.pod.uid()).await {
            tracing::warn!(pod = %self.pod.full(), %error, "pod directory not removed");
        }
        let logs = log_directory(&context.config.log_dir, &self.pod);
        if let Err(error) = std::fs::remove_dir_all(&logs)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(pod = %self.pod.full(), %error, "pod logs not removed");
        }
        tracing::info!(pod = %self.pod.full(), "pod is gone");
    }
}

fn ending(cause: Cause, pod: &Pod) -> Ending {
    Ending { cause, since: Timestamp::now(), grace_seconds: pod.grace_seconds() }
}

/// Waits for a change of any of them; for ever if there are none.
async fn next_of<T: client::Object>(changes: &mut [Changes<T>]) {
    if changes.is_empty() {
        return std::future::pending().await;
    }
    let next = changes.iter_mut().map(|one| Box::pin(one.next()));
    futures::future::select_all(next).await;
}
