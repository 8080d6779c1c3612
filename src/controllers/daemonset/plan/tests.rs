//! Rolling updates over a few nodes, played to their end.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::daemonset::nodes::pod_on;

struct World {
    set: DaemonSet,
    nodes: Vec<Arc<Node>>,
    pods: Vec<Arc<Pod>>,
    hash: &'static str,
    failed: FailedPods,
    made: usize,
    second: i64,
    said: Vec<String>,
}

impl World {
    fn new(strategy: Value, nodes: usize) -> World {
        let set = json!({"metadata": {"name": "d", "namespace": "n", "uid": "d", "generation": 1},
            "spec": {"selector": {}, "updateStrategy": strategy,
                     "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}}}});
        let mut world = World {
            set: serde_json::from_value(set).unwrap(),
            nodes: vec![],
            pods: vec![],
            hash: "one",
            failed: FailedPods::default(),
            made: 0,
            second: 0,
            said: vec![],
        };
        (1..=nodes).for_each(|number| world.node(number, json!([])));
        world
    }

    fn node(&mut self, number: usize, taints: Value) {
        let node = json!({"metadata": {"name": format!("n{number}")}, "spec": {"taints": taints}});
        self.nodes.retain(|known| known.metadata.name.as_deref() != node["metadata"]["name"].as_str());
        self.nodes.push(Arc::new(serde_json::from_value(node).unwrap()));
    }

    fn view(&self) -> View<'_> {
        let now = Timestamp::from_second(self.second).unwrap();
        View { set: &self.set, hash: self.hash, nodes: &self.nodes, pods: by_node(&self.pods), now }
    }

    /// One look, in lines.
    fn step(&mut self) -> Vec<String> {
        let mut failed = std::mem::take(&mut self.failed);
        let plan = plan(&self.view(), &mut failed);
        self.failed = failed;
        self.said.extend(plan.said.into_iter().map(|(_, _, message)| message));
        let mut lines = Vec::new();
        for pod in plan.delete {
            lines.push(format!("-{}", node_of(&pod).unwrap()));
            self.pods.retain(|known| known.metadata.name != pod.metadata.name);
        }
        for node in plan.create {
            self.made += 1;
            let mut pod = pod_on(&self.set, &node, self.hash).unwrap();
            pod.metadata.name = Some(format!("p{}", self.made));
            pod.spec.as_mut().unwrap().node_name = Some(node.clone());
            lines.push(format!("+{node}"));
            self.pods.push(Arc::new(pod));
        }
        lines
    }

    fn phase(&mut self, node: &str, phase: &str, ready: bool) {
        for pod in self.pods.iter_mut().filter(|pod| node_of(pod) == Some(node)) {
            let status = json!({"phase": phase, "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]});
            Arc::make_mut(pod).status = serde_json::from_value(status).unwrap();
        }
    }

    fn all_ready(&mut self) {
        let nodes: Vec<String> = self.nodes.iter().filter_map(|node| node.metadata.name.clone()).collect();
        nodes.iter().for_each(|node| self.phase(node, "Running", true));
    }

    fn ready(&self) -> usize {
        let ready = |node: &&Arc<Node>| {
            self.pods.iter().any(|pod| node_of(pod) == node.metadata.name.as_deref() && pods::is_ready(pod))
        };
        self.nodes.iter().filter(ready).count()
    }
}

fn rolling(surge: Value, unavailable: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}})
}

#[test]
fn every_node_gets_a_pod_and_is_rid_of_it() {
    let mut world = World::new(rolling(json!(0), json!(1)), 2);
    assert_eq!(world.step(), ["+n1", "+n2"]);
    world.node(2, json!([{"key": "k", "effect": "NoSchedule"}]));
    world.node(3, json!([{"key": "k", "effect": "NoSchedule"}]));
    assert!(world.step().is_empty(), "what is there stays, what is not does not begin");
    let (status, _) = status(&world.view(), true);
    let counts = (status.desired_number_scheduled, status.current_number_scheduled, status.number_misscheduled);
    assert_eq!((counts, status.number_unavailable), ((1, 1, 1), Some(1)));
    world.node(2, json!([{"key": "k", "effect": "NoExecute"}]));
    assert_eq!(world.step(), ["-n2"]);
}

#[test]
fn an_update_takes_one_node_after_the_other() {
    let mut world = World::new(rolling(json!(0), json!(1)), 3);
    world.step();
    world.all_ready();
    world.hash = "two";
    let mut story = Vec::new();
    for _ in 0..9 {
        story.extend(world.step());
        world.all_ready();
    }
    assert_eq!(story, ["-n1", "+n1", "-n2", "+n2", "-n3", "+n3"]);
}

#[test]
fn an_update_with_surge_keeps_the_old_pod_until_the_new_one_is_ready() {
    let mut world = World::new(rolling(json!(1), json!(0)), 2);
    world.step();
    world.all_ready();
    world.hash = "two";
    assert_eq!(world.step(), ["+n1"]);
    assert!(world.step().is_empty(), "not ready yet");
    world.all_ready();
    assert_eq!(world.step(), ["-n1"]);
    assert_eq!(world.step(), ["+n2"]);
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    let mut world = World::new(json!({"type": "OnDelete"}), 1);
    world.step();
    world.all_ready();
    world.hash = "two";
    assert!(world.step().is_empty());
    world.pods.clear();
    assert_eq!(world.step(), ["+n1"]);
}

#[test]
fn pods_that_keep_failing_are_replaced_ever_more_slowly() {
    let mut world = World::new(rolling(json!(0), json!(1)), 1);
    let mut kills = Vec::new();
    for second in 0..40 {
        world.second = second;
        if world.step().contains(&"-n1".to_owned()) {
            kills.push(second);
            world.step();
        }
        world.phase("n1", "Failed", false);
    }
    assert_eq!(kills, [1, 2, 4, 8, 16, 32]);
    assert_eq!(world.said[0], "Found failed daemon pod n/p1 on node n1, will try to kill it");
}

#[test]
fn a_pod_for_a_node_that_is_gone_goes_too() {
    let mut world = World::new(rolling(json!(0), json!(1)), 2);
    world.step();
    Arc::make_mut(&mut world.pods[1]).spec.as_mut().unwrap().node_name = None;
    world.nodes.retain(|node| node.metadata.name.as_deref() == Some("n1"));
    assert_eq!(world.step(), ["-n2"]);
}

proptest! {
    /// However large the steps may be: never more nodes are without a ready pod than may be, and the update ends.
    #[test]
    fn budgets_hold_and_updates_end(nodes in 1..7_usize, surge in 0..4_usize, unavailable in 0..4_usize) {
        let mut world = World::new(rolling(json!(surge), json!(unavailable)), nodes);
        let may_miss = unavailable.max(1);
        world.step();
        world.all_ready();
        world.hash = "two";
        for _ in 0..40 {
            world.step();
            // With a surge no old pod goes before its successor is ready.
            let missing = nodes - world.ready();
            let most = if surge == 0 { may_miss } else { 0 };
            prop_assert!(missing <= most, "{} nodes without", missing);
            prop_assert!(world.pods.len() <= nodes + surge);
            world.all_ready();
        }
        prop_assert_eq!(world.pods.len(), nodes);
        prop_assert!(world.pods.iter().all(|pod| is_updated(&world.set, pod, "two")));
    }
}
