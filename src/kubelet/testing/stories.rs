//! A node from end to end: the whole kubelet between a pretended API server and a pretended runtime.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use task::Shutdown;

use super::api::FakeApi;
use super::runtime::FakeRuntime;
use crate::Config;
use crate::cgroups::Cgroups;

struct Node {
    temp: tempfile::TempDir,
    api: FakeApi,
    runtime: FakeRuntime,
    shutdown: Shutdown,
    tasks: crate::Tasks,
}

impl Node {
    async fn start() -> Node {
        let temp = tempfile::tempdir().unwrap();
        let runtime = FakeRuntime::serve(&temp.path().join("cri.sock"));
        let mut node = Node { temp, api: FakeApi::default(), runtime, shutdown: Shutdown::new(), tasks: vec![] };
        node.begin();
        node
    }

    fn config(&self) -> Config {
        let mut config = super::config(self.temp.path());
        config.static_pods_dir = Some(self.temp.path().join("manifests"));
        config
    }

    /// The process starts, for the first time or again.
    fn begin(&mut self) {
        self.shutdown = Shutdown::new();
        let config = Arc::new(self.config());
        for dir in [config.data_dir.join("pods"), config.log_dir.clone()] {
            std::fs::create_dir_all(dir).unwrap();
        }
        let client = self.api.client(self.shutdown.clone());
        (_, _, self.tasks) = crate::start(config, client, Cgroups::none(), &self.shutdown);
    }

    async fn end(&mut self) {
        self.shutdown.cancel();
        for task in std::mem::take(&mut self.tasks) {
            task.await.unwrap();
        }
    }

    fn put_pod(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["nodeName"] = json!("node-1");
        let meta = json!({"name": name, "namespace": "default", "uid": format!("uid-of-{name}")});
        self.api.put("pods", json!({"kind": "Pod", "apiVersion": "v1", "metadata": meta, "spec": spec}));
    }

    fn pod(&self, name: &str) -> Value {
        self.api.get("pods", "default", name).unwrap_or_default()
    }

    /// Waits until something holds; fails with what there is instead.
    async fn until(&self, what: &str, holds: impl Fn(&Node) -> bool) {
        const PATIENCE: Duration = Duration::from_secs(10);
        let waited = tokio::time::timeout(PATIENCE, async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        if waited.await.is_err() {
            let pods = serde_json::to_string_pretty(&self.api.all("pods")).unwrap();
            let events: Vec<Value> = self.api.all("events").into_iter().map(|event| event["message"].clone()).collect();
            panic!("not seen: {what}\n{pods}\ncalls: {:?}\nevents: {events:?}", self.runtime.calls());
        }
    }

    async fn until_phase(&self, name: &str, phase: &str) {
        self.until(&format!("{name} is {phase}"), |node| node.pod(name)["status"]["phase"] == phase).await;
    }

    fn events(&self) -> Vec<String> {
        let events = self.api.all("events");
        events
            .iter()
            .filter_map(|event| Some(format!("{}: {}", event["reason"].as_str()?, event["message"].as_str()?)))
            .collect()
    }
}

fn condition(pod: &Value, name: &str) -> Value {
    let all = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|one| one["type"] == name).map(|one| one["status"].clone()).unwrap_or_default()
}

#[tokio::test]
async fn a_node_registers_and_is_ready() {
    let node = Node::start().await;
    node.until("the node is ready", |node| {
        let object = node.api.get("nodes", "", "node-1").unwrap_or_default();
        condition(&object, "Ready") == "True" && object["status"]["nodeInfo"]["containerRuntimeVersion"] == "fake://1"
    })
    .await;
    node.until("its lease is there", |node| node.api.get("leases", "kube-node-lease", "node-1").is_some()).await;
    node.until("an event", |node| node.events().iter().any(|event| event.starts_with("NodeReady"))).await;
}

#[tokio::test]
async fn a_pod_from_its_first_second_to_its_last() {
    let node = Node::start().await;
    node.api.put("configmaps", json!({"metadata": {"name": "m", "namespace": "default"}, "data": {"k": "v1"}}));
    node.put_pod(
        "web",
        json!({"terminationGracePeriodSeconds": 7,
        "volumes": [{"name": "m", "configMap": {"name": "m"}}, {"name": "scratch", "emptyDir": {}}],
        "initContainers": [{"name": "init", "image": "exit0"}],
        "containers": [{"name": "a", "image": "nginx", "env": [{"name": "K", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "k"}}}],
            "lifecycle": {"preStop": {"exec": {"command": ["bye"]}}, "postStart": {"exec": {"command": ["hello"]}}},
            "readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1},
            "volumeMounts": [{"name": "m", "mountPath": "/m"}, {"name": "scratch", "mountPath": "/scratch"}]}]}),
    );
    node.until_phase("web", "Running").await;
    node.until("it is ready", |node| condition(&node.pod("web"), "Ready") == "True").await;
    let mut calls = node.runtime.calls();
    calls.retain(|call| !call.starts_with("pull"));
    assert_eq!(calls[..4], ["run s0", "start init", "start a", "exec hello"]);
    let pod = node.pod("web");
    assert_eq!(pod["status"]["podIP"], "127.0.0.1");
    assert_eq!(pod["status"]["initContainerStatuses"][0]["state"]["terminated"]["reason"], "Completed");
    let (_, config) = node.runtime.configs().pop().unwrap();
    assert!(config.envs.iter().any(|env| env.key == "K" && env.value == b"v1"));
    let mount = config.mounts.iter().find(|mount| mount.container_path == "/m").unwrap();
    let file = std::path::Path::new(&mount.host_path).join("k");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "v1");
    assert!(config.mounts.iter().any(|mount| mount.container_path == "/etc/hosts"));

    node.api.put("configmaps", json!({"metadata": {"name": "m", "namespace": "default"}, "data": {"k": "v2"}}));
    node.until("the file changes", |_| std::fs::read_to_string(&file).unwrap_or_default() == "v2").await;

    node.api.delete("pods", "default", "web", 7);
    node.until("the pod is gone", |node| node.pod("web").is_null()).await;
    node.until("nothing is left", |node| node.runtime.is_empty()).await;
    let calls = node.runtime.calls();
    let at = |what: &str| calls.iter().position(|call| call.starts_with(what)).unwrap();
    assert!(at("exec bye") < at("kill a") && at("kill a") < at("stop s0") && at("stop s0") < at("remove s0"));
    node.until("its directory is gone", |node| !node.temp.path().join("kubelet/pods/uid-of-web").exists()).await;
    let events = node.events();
    for event in ["Started: Container started", "Created: Container created", "Killing: Stopping container a"] {
        assert!(events.iter().any(|seen| seen == event), "{event} not in {events:?}");
    }
}

#[tokio::test]
async fn a_crash_is_followed_by_a_restart_and_then_by_a_back_off() {
    let node = Node::start().await;
    node.put_pod("web", json!({"containers": [{"name": "a", "image": "nginx"}]}));
    node.until_phase("web", "Running").await;
    node.runtime.crash("a", 3);
    node.until("it was restarted", |node| {
        let one = &node.pod("web")["status"]["containerStatuses"][0];
        one["restartCount"] == 1
            && one["state"]["running"].is_object()
            && one["lastState"]["terminated"]["exitCode"] == 3
    })
    .await;
    node.runtime.crash("a", 4);
    node.until("it waits", |node| {
        let one = &node.pod("web")["status"]["containerStatuses"][0];
        one["state"]["waiting"]["reason"] == "CrashLoopBackOff" && one["lastState"]["terminated"]["exitCode"] == 4
    })
    .await;
    let text = "BackOff: Back-off restarting failed container a in pod web_default(uid-of-web)";
    node.until("an event", |node| node.events().iter().any(|event| event == text)).await;
}

#[tokio::test]
async fn a_job_succeeds_and_keeps_its_container_for_the_log() {
    let node = Node::start().await;
    node.put_pod("job", json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "exit0"}]}));
    node.until_phase("job", "Succeeded").await;
    node.until("its sandbox is stopped", |node| node.runtime.calls().contains(&"stop s0".to_owned())).await;
    assert!(!node.runtime.is_empty());
    node.put_pod("bad", json!({"restartPolicy": "Never", "containers": [{"name": "a", "image": "exit5"}]}));
    node.until_phase("bad", "Failed").await;
    assert_eq!(node.pod("bad")["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], 5);
    node.api.delete("pods", "default", "job", 0);
    node.api.delete("pods", "default", "bad", 0);
    node.until("nothing is left", |node| node.runtime.is_empty()).await;
}

#[tokio::test]
async fn an_image_that_is_missing_is_told_and_does_not_hold_up_deletion() {
    let node = Node::start().await;
    node.put_pod("web", json!({"containers": [{"name": "a", "image": "missing:1"}]}));
    let waits = |node: &Node, reason: &str| {
        node.pod("web")["status"]["containerStatuses"][0]["state"]["waiting"]["reason"] == reason
    };
    node.until("the error", |node| waits(node, "ErrImagePull")).await;
    node.until("the back-off", |node| waits(node, "ImagePullBackOff")).await;
    assert_eq!(node.pod("web")["status"]["phase"], "Pending");
    node.api.delete("pods", "default", "web", 30);
    node.until("the pod is gone", |node| node.pod("web").is_null()).await;
    node.until("nothing is left", |node| node.runtime.is_empty()).await;
}

#[tokio::test]
async fn a_restart_of_the_process_leaves_containers_alone_and_cleans_up_what_was_deleted() {
    let mut node = Node::start().await;
    node.put_pod("stays", json!({"containers": [{"name": "a", "image": "nginx"}]}));
    node.put_pod("goes", json!({"containers": [{"name": "b", "image": "nginx"}]}));
    node.until_phase("stays", "Running").await;
    node.until_phase("goes", "Running").await;
    node.end().await;
    let before = node.runtime.calls();
    assert!(!before.iter().any(|call| call.starts_with("kill")));
    node.api.delete("pods", "default", "goes", 0);
    node.begin();
    node.until("the deleted one is stopped", |node| node.runtime.calls().iter().any(|call| call.starts_with("kill b")))
        .await;
    node.until("its sandbox is removed", |node| node.runtime.calls().iter().any(|call| call.starts_with("remove ")))
        .await;
    let calls = node.runtime.calls();
    assert!(
        !calls[before.len()..].iter().any(|call| call.starts_with("start") || call.starts_with("kill a")),
        "{calls:?}"
    );
    assert_eq!(node.pod("stays")["status"]["containerStatuses"][0]["restartCount"], 0);
    assert_eq!(condition(&node.pod("stays"), "Ready"), "True");
    node.runtime.crash("a", 1);
    node.until("it is looked after", |node| node.pod("stays")["status"]["containerStatuses"][0]["restartCount"] == 1)
        .await;
}

#[tokio::test]
async fn a_liveness_probe_restarts_its_container() {
    let node = Node::start().await;
    node.put_pod(
        "web",
        json!({"containers": [{"name": "a", "image": "nginx",
            "livenessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}}]}),
    );
    node.until("it was restarted", |node| node.pod("web")["status"]["containerStatuses"][0]["restartCount"] == 1).await;
    node.until("an event", |node| {
        node.events().iter().any(|event| event == "Killing: Container a failed liveness probe, will be restarted")
    })
    .await;
}

#[tokio::test]
async fn what_is_missing_for_a_container_is_told_and_waited_for() {
    let node = Node::start().await;
    node.put_pod(
        "web",
        json!({"volumes": [{"name": "m", "configMap": {"name": "late"}}], "containers": [{"name": "a", "image": "nginx"}]}),
    );
    let text = "FailedMount: MountVolume.SetUp failed for volume \"m\" : configmap \"late\" not found";
    node.until("an event", |node| node.events().iter().any(|event| event == text)).await;
    node.api.put("configmaps", json!({"metadata": {"name": "late", "namespace": "default"}, "data": {}}));
    node.until_phase("web", "Running").await;
    node.put_pod(
        "env",
        json!({"containers": [{"name": "a", "image": "nginx", "envFrom": [{"secretRef": {"name": "none"}}]}]}),
    );
    node.until("the reason", |node| {
        let waiting = &node.pod("env")["status"]["containerStatuses"][0]["state"]["waiting"];
        waiting["reason"] == "CreateContainerConfigError" && waiting["message"] == "secret \"none\" not found"
    })
    .await;
}

#[tokio::test]
async fn a_static_pod_runs_as_long_as_its_file_is_there() {
    let node = Node::start().await;
    let file = node.temp.path().join("manifests/a.yaml");
    node.until("the directory", |node| node.temp.path().join("manifests").exists()).await;
    std::fs::write(&file, "kind: Pod\nmetadata: {name: s}\nspec: {containers: [{name: st, image: nginx}]}\n").unwrap();
    node.until("it runs", |node| node.runtime.calls().contains(&"start st".to_owned())).await;
    std::fs::remove_file(&file).unwrap();
    node.until("it is gone", |node| node.runtime.is_empty()).await;
}
