//! StatefulSets that grow, shrink and roll, told in lines.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::shared::history;

struct World {
    set: StatefulSet,
    current: ControllerRevision,
    update: ControllerRevision,
    pods: Vec<Arc<Pod>>,
    claims: HashMap<String, Arc<PersistentVolumeClaim>>,
}

fn revision_of(name: &str, image: &str) -> ControllerRevision {
    let template =
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": image}]}});
    let data = history::patch_of(&template).unwrap();
    serde_json::from_value(json!({"metadata": {"name": name}, "revision": 1, "data": data})).unwrap()
}

impl World {
    fn new(spec: Value) -> World {
        let mut base = json!({"replicas": 3, "podManagementPolicy": "OrderedReady", "selector": {"matchLabels": {"app": "web"}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}, "template": {}});
        base.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let set = json!({"metadata": {"name": "web", "namespace": "n", "uid": "s", "generation": 1}, "spec": base});
        let first = revision_of("web-one", "1");
        let set = serde_json::from_value(set).unwrap();
        World { set, current: first.clone(), update: first, pods: vec![], claims: HashMap::new() }
    }

    fn look<T>(&mut self, what: impl Fn(&View<'_>) -> T) -> T {
        what(&View {
            set: &self.set,
            current: &self.current,
            update: &self.update,
            pods: &self.pods,
            claims: &self.claims,
            collisions: 0,
            now: Timestamp::UNIX_EPOCH,
        })
    }

    /// One look, and what it led to.
    fn step(&mut self) -> String {
        let (steps, status) = self.look(|view| {
            let steps = plan(view);
            let status = status(view, &steps).0;
            (steps, status)
        });
        let mut lines = Vec::new();
        for step in steps {
            match step {
                Step::Create(pod, ordinal) => {
                    lines.push(format!("+{ordinal} {}", revision(&pod).unwrap()));
                    for claim in claims_at(&self.set, ordinal) {
                        self.claims.entry(claim.metadata.name.clone().unwrap()).or_insert(Arc::new(claim));
                    }
                    self.pods.push(Arc::from(pod));
                }
                Step::Delete(pod) => {
                    lines.push(format!("-{}", ordinal(&self.set, &pod).unwrap()));
                    self.pods.retain(|known| known.metadata.name != pod.metadata.name);
                }
                Step::Claims(_, ordinal) => lines.push(format!("claims {ordinal}")),
                Step::PutRight(_, ordinal) => lines.push(format!("right {ordinal}")),
            }
        }
        if status.current_revision == status.update_revision {
            self.current = self.update.clone();
        }
        self.set.status = Some(status);
        lines.join(", ")
    }

    fn ready(&mut self, at: i32, ready: bool) {
        let name = format!("web-{at}");
        for pod in self.pods.iter_mut().filter(|pod| pod.metadata.name.as_ref() == Some(&name)) {
            let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]});
            Arc::make_mut(pod).status = serde_json::from_value(status).unwrap();
        }
    }

    fn all_ready(&mut self) {
        (0..20).for_each(|ordinal| self.ready(ordinal, true));
    }

    /// Steps with everything ready at once, until nothing happens.
    fn run(&mut self) -> Vec<String> {
        let mut story = Vec::new();
        for _ in 0..60 {
            story.push(self.step());
            self.all_ready();
        }
        story.retain(|line| !line.is_empty());
        story
    }
}

#[test]
fn pods_come_one_after_the_other_and_go_in_reverse() {
    let mut world = World::new(json!({}));
    assert_eq!(world.step(), "+0 web-one");
    assert_eq!(world.step(), "", "the first is not ready");
    assert_eq!(world.run(), ["+1 web-one", "+2 web-one"]);
    world.set.spec.as_mut().unwrap().replicas = Some(1);
    assert_eq!(world.run(), ["-2", "-1"]);
}

#[test]
fn parallel_pods_come_and_go_at_once() {
    let mut world = World::new(json!({"podManagementPolicy": "Parallel"}));
    assert_eq!(world.step(), "+0 web-one, +1 web-one, +2 web-one");
    world.set.spec.as_mut().unwrap().replicas = Some(1);
    assert_eq!(world.step(), "-2, -1");
}

#[test]
fn an_update_goes_from_the_highest_to_the_partition() {
    let mut world = World::new(json!({"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}}));
    world.run();
    world.update = revision_of("web-two", "2");
    assert_eq!(world.run(), ["-2", "+2 web-two", "-1", "+1 web-two"]);
    let status = world.set.status.clone().unwrap();
    assert_eq!((status.current_replicas, status.updated_replicas), (Some(1), Some(2)));
    assert_eq!(
        (status.current_revision.as_deref(), status.update_revision.as_deref()),
        (Some("web-one"), Some("web-two"))
    );
    world.pods.retain(|pod| pod.metadata.name.as_deref() != Some("web-0"));
    assert_eq!(world.run(), ["+0 web-one"], "below the partition it is as it was");
    world.set.spec.as_mut().unwrap().update_strategy.as_mut().unwrap().rolling_update.as_mut().unwrap().partition =
        Some(0);
    assert_eq!(world.run(), ["-0", "+0 web-two"]);
    let status = world.set.status.unwrap();
    assert_eq!((status.current_revision.as_deref(), status.current_replicas), (Some("web-two"), Some(3)));
}

#[test]
fn an_update_waits_for_a_pod_that_is_not_well() {
    let mut world = World::new(json!({}));
    world.run();
    world.update = revision_of("web-two", "2");
    assert_eq!((world.step().as_str(), world.step().as_str()), ("-2", "+2 web-two"));
    assert_eq!(world.step(), "", "the new one is not ready");
    world.ready(2, true);
    world.ready(0, false);
    assert_eq!(world.step(), "", "an older one is not either");
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    let mut world = World::new(json!({"updateStrategy": {"type": "OnDelete"}}));
    world.run();
    world.update = revision_of("web-two", "2");
    assert!(world.run().is_empty());
    world.pods.remove(1);
    assert_eq!(world.run(), ["+1 web-two"]);
}

#[test]
fn a_pod_that_failed_is_made_anew() {
    let mut world = World::new(json!({"replicas": 1}));
    world.run();
    Arc::make_mut(&mut world.pods[0]).status = serde_json::from_value(json!({"phase": "Failed"})).unwrap();
    assert_eq!((world.step().as_str(), world.step().as_str()), ("-0", "+0 web-one"));
}

#[test]
fn an_unready_pod_that_is_condemned_does_not_block_its_own_end() {
    let mut world = World::new(json!({}));
    world.run();
    world.ready(2, false);
    world.set.spec.as_mut().unwrap().replicas = Some(1);
    assert_eq!(world.step(), "-2");
    world.ready(1, false);
    assert_eq!(world.step(), "-1");
}

#[test]
fn labels_and_claims_are_put_right() {
    let mut world = World::new(json!({"replicas": 1, "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Delete", "whenScaled": "Retain"}}));
    assert_eq!(world.step(), "+0 web-one");
    assert_eq!(world.step(), "claims 0", "a pending pod may wait for its claim's owner");
    world.all_ready();
    assert_eq!(world.step(), "right 0");
    let claim = Arc::make_mut(world.claims.get_mut("data-web-0").unwrap());
    claim.metadata.owner_references = Some(vec![controller_reference(&world.set)]);
    assert_eq!(world.step(), "");
    Arc::make_mut(&mut world.pods[0]).metadata.labels.as_mut().unwrap().remove("statefulset.kubernetes.io/pod-name");
    assert_eq!(world.step(), "right 0");
}

proptest! {
    /// Ordered sets never miss more than one pod that is wanted, whatever they are told to be, and get there.
    #[test]
    fn ordered_sets_converge(sizes in prop::collection::vec((0..6_i32, any::<bool>()), 1..6), start in 0..3_i32) {
        let mut world = World::new(json!({"ordinals": {"start": start}}));
        let mut number = 0;
        for (size, updates) in sizes {
            world.set.spec.as_mut().unwrap().replicas = Some(size);
            if updates {
                number += 1;
                world.update = revision_of(&format!("web-{number}"), &number.to_string());
            }
            let story = world.run();
            prop_assert!(story.iter().all(|line| !line.contains(',')), "one step at a time");
            let mut ordinals: Vec<i32> = world.pods.iter().filter_map(|pod| ordinal(&world.set, pod)).collect();
            ordinals.sort_unstable();
            prop_assert_eq!(ordinals, (start..start + size).collect::<Vec<_>>());
            let update = world.update.metadata.name.clone();
            prop_assert!(world.pods.iter().all(|pod| revision(pod) == update.as_deref()));
        }
    }
}
