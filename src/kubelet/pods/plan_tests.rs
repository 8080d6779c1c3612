//! Stories of pods, told step by step.

use cri::v1::{ContainerStatus, PodSandboxMetadata, PodSandboxNetworkStatus, PodSandboxState, PodSandboxStatus};
use serde_json::{Value, json};

use super::*;
use crate::containers::names;
use crate::objects::testing::pod;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A pod on a node with everything that decides about it; times in seconds.
struct Story {
    pod: Pod,
    sandboxes: Vec<PodSandboxStatus>,
    containers: Vec<Seen>,
    memory: Memory,
    now: i64,
}

impl Story {
    /// Volumes are ready.
    fn of(spec: Value) -> Story {
        let memory = Memory { volumes: Volumes::Ready, ..Memory::default() };
        Story { pod: pod(json!({"spec": spec})), sandboxes: vec![], containers: vec![], memory, now: 1000 }
    }

    /// With a sandbox that is ready.
    fn in_sandbox(spec: Value) -> Story {
        let mut story = Story::of(spec);
        story.sandbox("s0", 0, true);
        story
    }

    fn sandbox(&mut self, id: &str, attempt: u32, ready: bool) {
        self.sandboxes.retain(|one| one.id != id);
        let state = if ready { PodSandboxState::SandboxReady } else { PodSandboxState::SandboxNotready };
        self.sandboxes.push(PodSandboxStatus {
            id: id.to_owned(),
            metadata: Some(PodSandboxMetadata { attempt, ..Default::default() }),
            state: state.into(),
            network: Some(PodSandboxNetworkStatus { ip: "10.42.0.5".into(), additional_ips: vec![] }),
            ..PodSandboxStatus::default()
        });
    }

    /// An instance in the newest sandbox, whose id is its name and attempt.
    fn container(
        &mut self,
        name: &str,
        attempt: u32,
        state: ContainerState,
        exit_code: i32,
        finished: i64,
    ) -> &mut Story {
        let id = format!("{name}{attempt}");
        self.containers.retain(|one| one.status.id != id);
        let hash = self.pod.container(name).map(|(_, container)| container_hash(&container)).unwrap_or_default();
        let status = ContainerStatus {
            id,
            state: state.into(),
            exit_code,
            finished_at: finished * 1_000_000_000,
            labels: [(names::CONTAINER_NAME.to_owned(), name.to_owned())].into(),
            annotations: [
                (names::RESTART_COUNT.to_owned(), attempt.to_string()),
                (names::CONTAINER_HASH.to_owned(), hash),
            ]
            .into(),
            ..ContainerStatus::default()
        };
        let sandbox_id = self.sandboxes.last().map(|one| one.id.clone()).unwrap_or_default();
        self.containers.push(Seen { sandbox_id, status });
        self
    }

    fn runs(&mut self, name: &str, attempt: u32) -> &mut Story {
        self.container(name, attempt, ContainerState::ContainerRunning, 0, 0)
    }

    fn exited(&mut self, name: &str, attempt: u32, exit_code: i32, finished: i64) -> &mut Story {
        self.container(name, attempt, ContainerState::ContainerExited, exit_code, finished)
    }

    fn ends(&mut self, cause: Cause) -> &mut Story {
        self.memory.ending = Some(Ending { cause, since: at(self.now), grace_seconds: 30 });
        self
    }

    fn plan(&self) -> Plan {
        let observed = Observed::new(self.sandboxes.clone(), self.containers.clone());
        plan(View { pod: &self.pod, observed: &observed, memory: &self.memory, now: at(self.now) })
    }

    /// The plan in short: what a reader checks.
    fn tell(&self) -> Vec<String> {
        let plan = self.plan();
        let mut told: Vec<String> = plan
            .actions
            .iter()
            .map(|action| match action {
                Action::SetUpVolumes => "volumes".to_owned(),
                Action::CreateSandbox { attempt, stop } => format!("sandbox {attempt} for {stop:?}"),
                Action::Start { container, attempt, .. } => format!("start {container} {attempt}"),
                Action::Kill { id, why, grace_seconds, .. } => format!("kill {id} {why:?} {grace_seconds}"),
                Action::StopSandboxes { ids } => format!("stop {ids:?}"),
                Action::RemoveContainer { id } => format!("remove {id}"),
                Action::RemoveSandbox { id } => format!("remove sandbox {id}"),
                Action::CleanUp => "clean up".to_owned(),
            })
            .collect();
        told.extend(plan.waiting.iter().map(|(name, waiting)| format!("{name} waits: {}", waiting.reason)));
        told.extend(plan.end.iter().map(|cause| format!("end {cause:?}")));
        told.extend(plan.wake_at.iter().map(|time| format!("wake {}", time.as_second() - self.now)));
        told.extend(plan.has_ended.then(|| "ended".to_owned()));
        told
    }
}

fn one(policy: &str) -> Value {
    json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}]})
}

#[test]
fn volumes_then_sandbox_then_container() {
    let mut story = Story::of(one("Always"));
    story.memory.volumes = Volumes::NotYet;
    assert_eq!(story.tell(), ["volumes"]);
    story.memory.busy.insert(Work::Volumes);
    assert_eq!(story.tell(), [""; 0]);
    story.memory.busy.clear();
    story.memory.volumes = Volumes::Failed { retry_at: at(1007) };
    assert_eq!(story.tell(), ["wake 7"]);
    story.memory.volumes = Volumes::Ready;
    assert_eq!(story.tell(), ["sandbox 0 for []"]);
    story.memory.sandbox_retry_at = Some(at(1005));
    assert_eq!(story.tell(), ["wake 5"]);
    story.sandbox("s0", 0, true);
    assert_eq!(story.tell(), ["start a 0"]);
    story.memory.busy.insert(Work::Container("a".into()));
    assert_eq!(story.tell(), [""; 0]);
    story.memory.busy.clear();
    story.runs("a", 0);
    assert_eq!(story.tell(), [""; 0]);
}

#[test]
fn a_sandbox_without_address_is_replaced_unless_the_pod_uses_the_nodes() {
    let mut story = Story::in_sandbox(one("Always"));
    story.sandboxes[0].network = None;
    assert_eq!(story.tell(), ["sandbox 1 for [\"s0\"]"]);
    story.pod.spec.as_mut().unwrap().host_network = Some(true);
    assert_eq!(story.tell(), ["start a 0"]);
}

#[test]
fn init_containers_one_after_the_other() {
    let spec = json!({"containers": [{"name": "a", "image": "i"}],
        "initContainers": [{"name": "i1", "image": "i"}, {"name": "i2", "image": "i"}]});
    let mut story = Story::in_sandbox(spec);
    assert_eq!(story.tell(), ["start i1 0"]);
    story.runs("i1", 0);
    assert_eq!(story.tell(), [""; 0]);
    story.exited("i1", 0, 0, 990);
    assert_eq!(story.tell(), ["start i2 0"]);
    story.exited("i2", 0, 1, 999);
    assert_eq!(story.tell(), ["start i2 1"], "the first restart does not wait");
    story.memory.crashes.insert("i2".into(), Backoff::next(None, at(999)));
    story.exited("i2", 1, 1, 1000);
    assert_eq!(story.tell(), ["i2 waits: CrashLoopBackOff", "wake 10"]);
    story.exited("i2", 2, 0, 1000);
    assert_eq!(story.tell(), ["start a 0", "remove i20"]);
    story.pod.spec.as_mut().unwrap().restart_policy = Some("Never".into());
    story.exited("i2", 2, 1, 1000);
    assert_eq!(story.tell()[0], "remove i20");
    assert_eq!(story.tell()[1], "end Completed");
}

#[test]
fn sidecars_start_before_and_stop_after() {
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}], "initContainers": [
        {"name": "s1", "image": "i", "restartPolicy": "Always", "startupProbe": {"tcpSocket": {"port": 1}}},
        {"name": "s2", "image": "i", "restartPolicy": "Always"}]});
    let mut story = Story::in_sandbox(spec);
    assert_eq!(story.tell(), ["start s1 0"]);
    story.runs("s1", 0);
    assert_eq!(story.tell(), [""; 0], "not started yet");
    let started = ProbeState { container_id: "s10".into(), started: Some(true), ..ProbeState::default() };
    story.memory.probes.insert("s1".into(), started);
    assert_eq!(story.tell(), ["start s2 0"]);
    story.runs("s2", 0);
    assert_eq!(story.tell(), ["start a 0"]);
    story.runs("a", 0).exited("s2", 0, 0, 900);
    assert_eq!(story.tell(), ["start s2 1"], "a sidecar comes back whatever its exit code");
    story.runs("s2", 1).exited("a", 0, 0, 999);
    assert_eq!(story.tell(), ["end Completed"]);
    story.ends(Cause::Completed);
    assert_eq!(story.tell(), ["kill s21 PodEnds 30"], "the last to start is the first to stop");
    story.exited("s2", 1, 137, 999);
    story.now = 1025;
    assert_eq!(story.tell(), ["kill s10 PodEnds 5"]);
}

#[test]
fn crashes_wait_longer_and_longer() {
    let mut story = Story::in_sandbox(one("Always"));
    story.exited("a", 0, 1, 1000);
    let plan = story.plan();
    assert!(matches!(&plan.actions[0], Action::Start { attempt: 1, is_restart: true, .. }));
    story.memory.crashes.insert("a".into(), Backoff::next(None, at(1000)));
    story.exited("a", 1, 1, 1001);
    story.now = 1003;
    assert_eq!(story.tell(), ["a waits: CrashLoopBackOff", "wake 8"]);
    let message = &story.plan().waiting["a"].message;
    assert_eq!(message, "back-off 10s restarting failed container=a pod=web_default(uid-1)");
    story.now = 1011;
    assert_eq!(story.tell(), ["start a 2"]);
}

#[test]
fn policies_decide_about_the_end() {
    for (policy, exit_code, told) in [
        ("Always", 0, "start a 1"),
        ("OnFailure", 1, "start a 1"),
        ("OnFailure", 0, "end Completed"),
        ("Never", 1, "end Completed"),
    ] {
        let mut story = Story::in_sandbox(one(policy));
        story.exited("a", 0, exit_code, 900);
        assert_eq!(story.tell(), [told], "{policy} {exit_code}");
    }
}

#[test]
fn trouble_is_shown_and_tried_again() {
    let mut story = Story::in_sandbox(one("Always"));
    let trouble = |reason: &str| Trouble {
        reason: reason.into(),
        message: "why".into(),
        at: at(1000),
        retry_at: at(1010),
        image: "i".into(),
    };
    story.memory.trouble.insert("a".into(), trouble("ErrImagePull"));
    assert_eq!(story.tell(), ["a waits: ErrImagePull", "wake 1"]);
    story.now = 1002;
    assert_eq!(story.tell(), ["a waits: ImagePullBackOff", "wake 8"]);
    assert_eq!(story.plan().waiting["a"].message, "Back-off pulling image \"i\": ErrImagePull: why");
    story.now = 1010;
    assert_eq!(story.tell(), ["start a 0"]);
    story.now = 1002;
    story.memory.trouble.insert("a".into(), trouble("CreateContainerConfigError"));
    assert_eq!(story.tell(), ["a waits: CreateContainerConfigError", "wake 8"]);
}

#[test]
fn probes_and_changes_stop_a_container() {
    let spec = json!({"containers": [{"name": "a", "image": "i",
        "livenessProbe": {"terminationGracePeriodSeconds": 3, "tcpSocket": {"port": 1}}, "startupProbe": {"tcpSocket": {"port": 1}}}]});
    let mut story = Story::in_sandbox(spec);
    story.runs("a", 0);
    let mut state = ProbeState { container_id: "a0".into(), live: Some(false), ..ProbeState::default() };
    story.memory.probes.insert("a".into(), state.clone());
    assert_eq!(story.tell(), ["kill a0 LivenessFailed 3"]);
    state.started = Some(false);
    story.memory.probes.insert("a".into(), state.clone());
    assert_eq!(story.tell(), ["kill a0 StartupFailed 30"]);
    state.container_id = "other".into();
    story.memory.probes.insert("a".into(), state);
    assert_eq!(story.tell(), [""; 0], "another instance's probes");
    story.pod.spec.as_mut().unwrap().containers[0].image = Some("new".into());
    assert_eq!(story.tell(), ["kill a0 DefinitionChanged 30"]);
    story.memory.busy.insert(Work::Container("a".into()));
    assert_eq!(story.tell(), [""; 0]);
}

#[test]
fn a_lost_sandbox_is_replaced_after_its_containers_stopped() {
    let mut story = Story::in_sandbox(one("Always"));
    story.runs("a", 0).sandbox("s0", 0, false);
    assert_eq!(story.tell(), ["kill a0 SandboxChanged 30"]);
    story.exited("a", 0, 137, 990);
    assert_eq!(story.tell(), ["sandbox 1 for [\"s0\"]"]);
    story.sandbox("s1", 1, true);
    assert_eq!(story.tell(), ["start a 1"]);
    story.runs("a", 1);
    assert_eq!(story.tell(), [""; 0], "the old sandbox stays as long as it has a container");
    story.containers.retain(|one| one.status.id != "a0");
    assert_eq!(story.tell(), ["remove sandbox s0"]);
    let mut done = Story::in_sandbox(one("OnFailure"));
    done.exited("a", 0, 0, 900).sandbox("s0", 0, false);
    assert_eq!(done.tell(), ["end Completed"], "what has succeeded needs no new sandbox");
}

#[test]
fn a_container_that_was_never_started_is_replaced() {
    let mut story = Story::in_sandbox(one("Always"));
    story.container("a", 2, ContainerState::ContainerCreated, 0, 0);
    let plan = story.plan();
    assert!(matches!(&plan.actions[..], [Action::Start { attempt: 2, replaces: Some(id), .. }] if id == "a2"));
}

#[test]
fn restarts_count_on_from_what_the_api_knows() {
    let mut story = Story::in_sandbox(one("Always"));
    story.pod.status = serde_json::from_value(json!({"containerStatuses": [
        {"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 4, "containerID": "x://y"}]}))
    .unwrap();
    assert_eq!(story.tell(), ["start a 5"]);
}

#[test]
fn the_deadline_ends_a_pod() {
    let mut story =
        Story::in_sandbox(json!({"activeDeadlineSeconds": 60, "containers": [{"name": "a", "image": "i"}]}));
    story.pod.status = serde_json::from_value(json!({"startTime": "1970-01-01T00:16:00Z"})).unwrap();
    story.runs("a", 0);
    assert_eq!(story.tell(), ["wake 20"]);
    story.now = 1020;
    assert!(matches!(story.plan().end, Some(Cause::Failed { reason, .. }) if reason == "DeadlineExceeded"));
}

#[test]
fn the_end_step_by_step() {
    let mut story = Story::in_sandbox(one("Always"));
    story.runs("a", 0).ends(Cause::Deleted);
    assert_eq!(story.tell(), ["kill a0 PodEnds 30"]);
    story.memory.busy.insert(Work::Container("a".into()));
    assert_eq!(story.tell(), [""; 0]);
    story.memory.busy.clear();
    story.exited("a", 0, 0, 1001);
    assert_eq!(story.tell(), ["stop [\"s0\"]"]);
    story.sandbox("s0", 0, false);
    assert_eq!(story.tell(), ["clean up"]);
    story.memory.cleaned_up = true;
    assert_eq!(story.tell(), ["ended"], "containers stay for their logs until the pod is gone");
    story.ends(Cause::Removed);
    assert_eq!(story.tell(), ["remove a0"]);
    story.containers.clear();
    assert_eq!(story.tell(), ["remove sandbox s0"]);
    story.sandboxes.clear();
    assert_eq!(story.tell(), ["ended"]);
}

#[test]
fn a_pod_that_ends_waits_for_what_is_under_way() {
    let mut story = Story::of(one("Always"));
    story.memory.busy.insert(Work::Sandbox);
    story.ends(Cause::Deleted);
    assert_eq!(story.tell(), [""; 0]);
    story.memory.busy.clear();
    assert_eq!(story.tell(), ["clean up"]);
}

#[test]
fn ephemeral_containers_start_once() {
    let mut story = Story::in_sandbox(json!({"containers": [{"name": "a", "image": "i"}],
        "ephemeralContainers": [{"name": "debug", "image": "i"}]}));
    story.runs("a", 0);
    assert_eq!(story.tell(), ["start debug 0"]);
    story.exited("debug", 0, 1, 900);
    assert_eq!(story.tell(), [""; 0]);
}
