//! Statuses of pods in typical situations.

use cri::v1::{
    ContainerState as Cri, ContainerStatus as CriStatus, PodSandboxMetadata, PodSandboxNetworkStatus, PodSandboxState,
    PodSandboxStatus,
};
use serde_json::{Value, json};

use super::super::plan::{Ending, ProbeState};
use super::*;
use crate::containers::names;
use crate::objects::testing::pod;

struct Scene {
    pod: Pod,
    before: PodStatus,
    containers: Vec<Seen>,
    ready: bool,
    memory: Memory,
    plan: Plan,
}

fn scene(spec: Value) -> Scene {
    Scene {
        pod: pod(json!({"metadata": {"generation": 3}, "spec": spec})),
        before: PodStatus::default(),
        containers: vec![],
        ready: true,
        memory: Memory::default(),
        plan: Plan::default(),
    }
}

impl Scene {
    fn add(&mut self, name: &str, attempt: u32, state: Cri, exit_code: i32) -> &mut Scene {
        let status = CriStatus {
            id: format!("{name}{attempt}"),
            state: state.into(),
            exit_code,
            started_at: 5_000_000_000,
            finished_at: if state == Cri::ContainerExited { 6_000_000_000 } else { 0 },
            image_ref: "sha256:1".into(),
            labels: [(names::CONTAINER_NAME.to_owned(), name.to_owned())].into(),
            annotations: [(names::RESTART_COUNT.to_owned(), attempt.to_string())].into(),
            ..CriStatus::default()
        };
        self.containers.push(Seen { sandbox_id: "s".into(), status });
        self
    }

    fn made(&self) -> PodStatus {
        let sandbox = PodSandboxStatus {
            id: "s".into(),
            metadata: Some(PodSandboxMetadata::default()),
            state: if self.ready { PodSandboxState::SandboxReady } else { PodSandboxState::SandboxNotready }.into(),
            network: Some(PodSandboxNetworkStatus { ip: "10.42.0.5".into(), additional_ips: vec![] }),
            ..PodSandboxStatus::default()
        };
        let observed = Observed::new(vec![sandbox], self.containers.clone());
        status(Facts {
            pod: &self.pod,
            before: &self.before,
            observed: &observed,
            memory: &self.memory,
            plan: &self.plan,
            node_ips: &["10.0.0.1".to_owned()],
            runtime_name: "cluster",
            messages: &BTreeMap::new(),
            now: Timestamp::from_second(100).unwrap(),
        })
    }
}

/// `Type=Status(Reason)` of each condition.
fn conditions(status: &PodStatus) -> Vec<String> {
    let show = |one: &PodCondition| match &one.reason {
        Some(reason) => format!("{}={}({reason})", one.type_, one.status),
        None => format!("{}={}", one.type_, one.status),
    };
    status.conditions.iter().flatten().map(show).collect()
}

fn state(status: &PodStatus, index: usize) -> (String, String) {
    let one = &status.container_statuses.as_ref().unwrap()[index];
    let state = one.state.clone().unwrap();
    let last = one.last_state.clone().unwrap_or_default();
    let now = match (state.waiting, state.running, state.terminated) {
        (Some(waiting), _, _) => format!("waiting {}", waiting.reason.unwrap_or_default()),
        (_, Some(_), _) => "running".to_owned(),
        (_, _, Some(end)) => format!("{} {}", end.reason.unwrap_or_default(), end.exit_code),
        _ => "nothing".to_owned(),
    };
    (now, last.terminated.map(|end| end.exit_code.to_string()).unwrap_or_default())
}

#[test]
fn a_new_pod_is_pending() {
    let scene = scene(json!({"containers": [{"name": "a", "image": "i"}]}));
    let made = scene.made();
    assert_eq!(made.phase.as_deref(), Some("Pending"));
    assert_eq!(state(&made, 0).0, "waiting ContainerCreating");
    assert_eq!(
        conditions(&made),
        [
            "PodReadyToStartContainers=True",
            "Initialized=True",
            "Ready=False(ContainersNotReady)",
            "ContainersReady=False(ContainersNotReady)",
            "PodScheduled=True"
        ]
    );
    assert_eq!(made.observed_generation, Some(3));
    assert_eq!((made.pod_ip.as_deref(), made.host_ip.as_deref()), (Some("10.42.0.5"), Some("10.0.0.1")));
    assert_eq!(made.qos_class.as_deref(), Some("BestEffort"));
}

#[test]
fn a_running_pod_is_ready_when_its_probes_say_so() {
    let mut scene =
        scene(json!({"containers": [{"name": "a", "image": "i", "readinessProbe": {"tcpSocket": {"port": 1}}}]}));
    scene.add("a", 0, Cri::ContainerRunning, 0);
    let made = scene.made();
    assert_eq!(made.phase.as_deref(), Some("Running"));
    assert!(conditions(&made).contains(&"Ready=False(ContainersNotReady)".to_owned()));
    let probes = ProbeState { container_id: "a0".into(), ready: Some(true), ..ProbeState::default() };
    scene.memory.probes.insert("a".into(), probes);
    scene.before = made;
    let made = scene.made();
    assert!(conditions(&made).contains(&"Ready=True".to_owned()));
    let one = &made.container_statuses.as_ref().unwrap()[0];
    assert_eq!((one.ready, one.started, one.container_id.as_deref()), (true, Some(true), Some("cluster://a0")));
    scene.pod.spec.as_mut().unwrap().readiness_gates =
        serde_json::from_value(json!([{"conditionType": "example.com/x"}])).unwrap();
    let gated = scene.made();
    assert!(conditions(&gated).contains(&"Ready=False(ReadinessGatesNotReady)".to_owned()));
    assert!(conditions(&gated).contains(&"ContainersReady=True".to_owned()));
}

#[test]
fn a_crash_loop_shows_the_last_end() {
    let mut scene = scene(json!({"containers": [{"name": "a", "image": "i"}]}));
    scene.add("a", 0, Cri::ContainerExited, 1).add("a", 1, Cri::ContainerExited, 2);
    assert_eq!(state(&scene.made(), 0), ("Error 2".to_owned(), "1".to_owned()));
    let waiting = Waiting { reason: "CrashLoopBackOff".into(), message: "m".into() };
    scene.plan.waiting.insert("a".into(), waiting);
    let made = scene.made();
    assert_eq!(state(&made, 0), ("waiting CrashLoopBackOff".to_owned(), "2".to_owned()));
    assert_eq!(made.phase.as_deref(), Some("Running"));
    assert_eq!(made.container_statuses.unwrap()[0].restart_count, 1);
}

#[test]
fn phases_at_the_end() {
    for (policy, exits, phase) in [
        ("Never", [0, 0], "Succeeded"),
        ("Never", [0, 3], "Failed"),
        ("OnFailure", [0, 0], "Succeeded"),
        ("Always", [0, 1], "Failed"),
    ] {
        let mut scene = scene(
            json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "i"}, {"name": "b", "image": "i"}]}),
        );
        scene.add("a", 0, Cri::ContainerExited, exits[0]).add("b", 0, Cri::ContainerExited, exits[1]);
        scene.ready = false;
        scene.memory.ending = Some(Ending {
            cause: if policy == "Always" { Cause::Deleted } else { Cause::Completed },
            since: Timestamp::UNIX_EPOCH,
            grace_seconds: 1,
        });
        scene.memory.cleaned_up = true;
        scene.plan.has_ended = true;
        let made = scene.made();
        assert_eq!(made.phase.as_deref(), Some(phase), "{policy} {exits:?}");
        let reason = if phase == "Succeeded" { "PodCompleted" } else { "PodFailed" };
        assert!(conditions(&made).contains(&format!("Ready=False({reason})")));
    }
}

#[test]
fn initialization_shows() {
    let spec = json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}],
        "initContainers": [{"name": "i", "image": "i"}]});
    let mut scene = scene(spec);
    scene.add("i", 0, Cri::ContainerRunning, 0);
    let made = scene.made();
    assert_eq!(made.phase.as_deref(), Some("Pending"));
    assert_eq!(state(&made, 0).0, "waiting PodInitializing");
    assert!(conditions(&made).contains(&"Initialized=False(ContainersNotInitialized)".to_owned()));
    scene.containers.clear();
    scene.add("i", 0, Cri::ContainerExited, 1);
    assert_eq!(scene.made().phase.as_deref(), Some("Failed"));
    scene.pod.spec.as_mut().unwrap().restart_policy = Some("Always".into());
    assert_eq!(scene.made().phase.as_deref(), Some("Pending"));
    scene.containers.clear();
    scene.add("i", 0, Cri::ContainerExited, 0).add("a", 0, Cri::ContainerRunning, 0);
    let made = scene.made();
    assert_eq!(made.phase.as_deref(), Some("Running"));
    assert!(conditions(&made).contains(&"Initialized=True".to_owned()));
}

#[test]
fn conditions_keep_their_time_and_others_theirs() {
    let mut scene = scene(json!({"containers": [{"name": "a", "image": "i"}]}));
    scene.before = serde_json::from_value(json!({"conditions": [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": "1970-01-01T00:00:07Z"},
        {"type": "example.com/x", "status": "Unknown"}]}))
    .unwrap();
    let made = scene.made();
    let scheduled = made.conditions.as_ref().unwrap().iter().find(|one| one.type_ == "PodScheduled").unwrap();
    assert_eq!(scheduled.last_transition_time.as_ref().unwrap().0.as_second(), 7);
    assert!(conditions(&made).contains(&"example.com/x=Unknown".to_owned()));
}

#[test]
fn what_the_runtime_forgot_is_kept() {
    let mut scene = scene(json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}]}));
    scene.before =
        serde_json::from_value(json!({"phase": "Succeeded", "containerStatuses": [{"name": "a", "image": "i",
        "imageID": "x", "ready": false, "restartCount": 0, "containerID": "cluster://gone",
        "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}))
        .unwrap();
    scene.pod.status = Some(scene.before.clone());
    let made = scene.made();
    assert_eq!(state(&made, 0).0, "Completed 0");
    assert_eq!(made.phase.as_deref(), Some("Succeeded"));
}

#[test]
fn a_pod_past_its_deadline_failed() {
    let mut scene = scene(json!({"containers": [{"name": "a", "image": "i"}]}));
    scene.add("a", 0, Cri::ContainerRunning, 0);
    let cause = Cause::Failed { reason: "DeadlineExceeded".into(), message: "late".into() };
    scene.memory.ending = Some(Ending { cause, since: Timestamp::UNIX_EPOCH, grace_seconds: 1 });
    let made = scene.made();
    assert_eq!((made.phase.as_deref(), made.reason.as_deref()), (Some("Failed"), Some("DeadlineExceeded")));
}
