//! Pods that wait for a node: those to try now, those that failed and wait for something to happen, and those that failed
//! a moment ago and wait a little. Pure but for the clock that is passed in.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use client::Key;
use tokio::time::Instant;

use crate::node::PodInfo;

const BACKOFF_MIN: Duration = Duration::from_secs(1);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// A pod that nothing seems to help is tried again after this long anyway.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// What happened in the cluster that may make room for a pod.
#[derive(Debug)]
pub enum Happening {
    /// A node came or changed.
    Node,
    /// A pod has left its node.
    PodGone(Arc<PodInfo>),
}

/// Higher priority first, then who waits longest.
type Order = (Reverse<i32>, u64);

#[derive(Default)]
pub struct Queue {
    pods: HashMap<Key, Waiting>,
    active: BTreeSet<(Order, Key)>,
    /// Times at which pods become active again.
    due: BTreeSet<(Instant, Key)>,
    next_number: u64,
}

struct Waiting {
    pod: Arc<PodInfo>,
    order: Order,
    attempts: u32,
    place: Place,
}

enum Place {
    Active,
    /// Handed out; its fate is being decided.
    InFlight,
    BackingOff(Instant),
    Unschedulable {
        filters: Vec<&'static str>,
        since: Instant,
        until: Instant,
    },
}

impl Queue {
    /// A pod that has no node, new or changed.
    pub fn put(&mut self, pod: Arc<PodInfo>) {
        let key = pod.key.clone();
        let order = match self.take_out(&key) {
            Some(Waiting { order, .. }) => order,
            None => {
                self.next_number += 1;
                (Reverse(pod.pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)), self.next_number)
            }
        };
        self.active.insert((order, key.clone()));
        self.pods.insert(key, Waiting { pod, order, attempts: 0, place: Place::Active });
    }

    /// The pod is gone or has a node.
    pub fn remove(&mut self, key: &Key) {
        self.take_out(key);
    }

    pub fn get(&self, key: &Key) -> Option<&Arc<PodInfo>> {
        self.pods.get(key).map(|waiting| &waiting.pod)
    }

    /// The next pod to decide on.
    pub fn pop(&mut self, now: Instant) -> Option<Arc<PodInfo>> {
        while let Some((at, _)) = self.due.first()
            && *at <= now
            && let Some((_, key)) = self.due.pop_first()
        {
            self.activate(&key);
        }
        let (_, key) = self.active.pop_first()?;
        let waiting = self.pods.get_mut(&key)?;
        waiting.place = Place::InFlight;
        waiting.attempts += 1;
        Some(waiting.pod.clone())
    }

    /// When there will be something to pop without anything happening.
    pub fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// No node would do, because of these filters.
    pub fn unschedulable(&mut self, key: &Key, filters: Vec<&'static str>, now: Instant) {
        if let Some(waiting) = self.pods.get_mut(key) {
            let until = now + PATIENCE;
            waiting.place = Place::Unschedulable { filters, since: now, until };
            self.due.insert((until, key.clone()));
        }
    }

    /// It went wrong for another reason: try again in a while.
    pub fn retry(&mut self, key: &Key, now: Instant) {
        if let Some(waiting) = self.pods.get_mut(key) {
            let at = now + backoff(waiting.attempts);
            waiting.place = Place::BackingOff(at);
            self.due.insert((at, key.clone()));
        }
    }

    /// Wakes the pods that this may help; `helps` asks the filters.
    pub fn happened(
        &mut self,
        happening: &Happening,
        now: Instant,
        helps: impl Fn(&str, &PodInfo, &Happening) -> bool,
    ) {
        let mut woken = Vec::new();
        for (key, waiting) in &self.pods {
            if let Place::Unschedulable { filters, since, until } = &waiting.place
                && (filters.is_empty() || filters.iter().any(|filter| helps(filter, &waiting.pod, happening)))
            {
                woken.push((key.clone(), *until, *since + backoff(waiting.attempts)));
            }
        }
        for (key, until, at) in woken {
            self.due.remove(&(until, key.clone()));
            if at <= now {
                self.activate(&key);
            } else if let Some(waiting) = self.pods.get_mut(&key) {
                waiting.place = Place::BackingOff(at);
                self.due.insert((at, key));
            }
        }
    }

    fn activate(&mut self, key: &Key) {
        if let Some(waiting) = self.pods.get_mut(key) {
            waiting.place = Place::Active;
            self.active.insert((waiting.order, key.clone()));
        }
    }

    fn take_out(&mut self, key: &Key) -> Option<Waiting> {
        let waiting = self.pods.remove(key)?;
        match &waiting.place {
            Place::Active => drop(self.active.remove(&(waiting.order, key.clone()))),
            Place::BackingOff(at) => drop(self.due.remove(&(*at, key.clone()))),
            Place::Unschedulable { until, .. } => drop(self.due.remove(&(*until, key.clone()))),
            Place::InFlight => {}
        }
        Some(waiting)
    }
}

fn backoff(attempts: u32) -> Duration {
    let doubled = 1_u32.checked_shl(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    BACKOFF_MIN.saturating_mul(doubled).min(BACKOFF_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(name: &str, priority: i32) -> Arc<PodInfo> {
        let pod = json!({"metadata": {"name": name, "uid": name}, "spec": {"priority": priority, "containers": []}});
        Arc::new(PodInfo::new(Arc::new(serde_json::from_value(pod).unwrap())))
    }

    fn name(pod: Option<Arc<PodInfo>>) -> String {
        pod.map(|pod| pod.key.name.clone()).unwrap_or_default()
    }

    #[tokio::test(start_paused = true)]
    async fn by_priority_and_then_by_age() {
        let mut queue = Queue::default();
        for (name, priority) in [("old", 0), ("new", 0), ("vital", 1000)] {
            queue.put(pod(name, priority));
        }
        queue.put(pod("old", 0));
        let now = Instant::now();
        assert_eq!(["vital", "old", "new", ""].map(|_| name(queue.pop(now))), ["vital", "old", "new", ""]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_unschedulable_wait_for_what_helps_them() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.put(pod("a", 0));
        queue.pop(now);
        queue.unschedulable(&Key::new("", "a"), vec!["TaintToleration"], now);
        let helps = |filter: &str, _: &PodInfo, happening: &Happening| {
            filter == "TaintToleration" && matches!(happening, Happening::Node)
        };
        queue.happened(&Happening::PodGone(pod("b", 0)), now, helps);
        assert_eq!(name(queue.pop(now + Duration::from_secs(60))), "");
        queue.happened(&Happening::Node, now, helps);
        assert_eq!(name(queue.pop(now)), "", "not before its back-off");
        assert_eq!(queue.next_due(), Some(now + Duration::from_secs(1)));
        assert_eq!(name(queue.pop(now + Duration::from_secs(1))), "a");
        queue.unschedulable(&Key::new("", "a"), vec!["TaintToleration"], now);
        assert_eq!(name(queue.pop(now + PATIENCE)), "a", "in the end it is tried anyway");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_left_does_not_come_back() {
        let mut queue = Queue::default();
        let now = Instant::now();
        queue.put(pod("a", 0));
        queue.pop(now);
        queue.remove(&Key::new("", "a"));
        queue.retry(&Key::new("", "a"), now);
        assert_eq!(queue.next_due(), None);
        assert_eq!([1, 2, 4, 10].map(|attempts| backoff(attempts).as_secs()), [1, 2, 8, 10]);
    }
}
