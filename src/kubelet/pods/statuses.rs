//! Writes pods' statuses to the API (upstream's status manager).
//!
//! Each pod has one wanted status, the latest; it is written when it differs from what was last
//! written, or from what the API shows because somebody else wrote since. Writes of one pod
//! are in order, a failed one is retried with back-off and always sends the then latest status. A pod that has ended and was
//! deleted is removed from the API once its last status is written.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use client::{Client, DeleteOptions, Failure, Patch, Queue, run_workers};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use task::Shutdown;

use crate::objects::PodExt;

const WRITERS: usize = 4;

#[derive(Clone)]
pub struct Statuses {
    client: Client,
    queue: Queue<String>,
    entries: Arc<Mutex<HashMap<String, Entry>>>,
}

struct Entry {
    namespace: String,
    name: String,
    wanted: PodStatus,
    written: PodStatus,
    /// The revision at which the API had `written`. A pod at a later one shows what others wrote since.
    version: u64,
    /// The pod has ended and was deleted: nothing of it is left on the node.
    delete: bool,
}

/// Conditions of these types are ours; others belong to others.
const OWN_CONDITIONS: [&str; 6] =
    ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled", "DisruptionTarget"];

impl Statuses {
    /// Starts writing until `shutdown`.
    pub fn new(client: Client, shutdown: Shutdown) -> Statuses {
        let statuses = Statuses { client, queue: Queue::new(), entries: Arc::default() };
        let writer = statuses.clone();
        run_workers("pod-status", statuses.queue.clone(), WRITERS, shutdown, move |uid| {
            let writer = writer.clone();
            async move { writer.write(&uid).await }
        });
        statuses
    }

    /// Sets what shall be written. `delete` when the pod has ended and its API object may go.
    pub fn set(&self, pod: &Pod, status: PodStatus, delete: bool) {
        if pod.is_static() {
            return;
        }
        let mut entries = self.entries.lock();
        let entry = entries.entry(pod.uid().to_owned()).or_insert_with(|| Entry {
            namespace: pod.ns().to_owned(),
            name: pod.name().to_owned(),
            wanted: PodStatus::default(),
            written: PodStatus::default(),
            version: 0,
            delete: false,
        });
        let shown = version(pod);
        let mut is_new = entry.wanted != status || entry.delete != delete;
        if shown > entry.version {
            entry.version = shown;
            entry.written = pod.status.clone().unwrap_or_default();
            is_new |= changes(&entry.written, &status).is_some();
        }
        entry.wanted = status;
        entry.delete = delete;
        drop(entries);
        if is_new {
            self.queue.add(pod.uid().to_owned());
        }
    }

    /// The status that was last set: newer than what the API may show.
    pub fn wanted(&self, uid: &str) -> Option<PodStatus> {
        self.entries.lock().get(uid).map(|entry| entry.wanted.clone())
    }

    pub fn forget(&self, uid: &str) {
        self.entries.lock().remove(uid);
    }

    async fn write(&self, uid: &str) -> Result<Option<Duration>, Failure> {
        let (namespace, name, wanted, change, delete) = {
            let entries = self.entries.lock();
            let Some(entry) = entries.get(uid) else { return Ok(None) };
            let change = changes(&entry.written, &entry.wanted);
            (entry.namespace.clone(), entry.name.clone(), entry.wanted.clone(), change, entry.delete)
        };
        if let Some(status) = change {
            let patch = Patch::Strategic(json!({"metadata": {"uid": uid}, "status": status}));
            match self.client.patch_status::<Pod>(&namespace, &name, patch).await {
                Ok(answer) => {
                    if let Some(entry) = self.entries.lock().get_mut(uid) {
                        entry.written = wanted;
                        entry.version = version(&answer);
                    }
                }
                // The pod is gone, or another one has its name.
                Err(failure) if failure.is_not_found() => return Ok(None),
                Err(failure) if failure.is_conflict() && failure.message.contains("UID") => return Ok(None),
                Err(failure) => return Err(failure),
            }
        }
        if delete {
            let options =
                DeleteOptions { grace_period_seconds: Some(0), uid: Some(uid.to_owned()), ..DeleteOptions::default() };
            match self.client.delete::<Pod>(&namespace, &name, options).await {
                Err(failure) if !failure.is_not_found() && !failure.is_conflict() => return Err(failure),
                _ => {}
            }
        }
        Ok(None)
    }
}

/// Revisions of one kind are numbers that grow (KEP-5504). 0 for a pod that is in no API.
fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or(0)
}

/// The strategic merge patch from one status to another; `None` when there is nothing to write.
fn changes(old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let (Ok(Value::Object(old)), Ok(Value::Object(new))) = (serde_json::to_value(old), serde_json::to_value(new))
    else {
        return None;
    };
    let mut patch = Map::new();
    for (key, value) in &new {
        if old.get(key) == Some(value) {
            continue;
        }
        match key.as_str() {
            "conditions" => {
                let known = old.get(key).and_then(Value::as_array);
                let changed: Vec<Value> = value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|one| one["type"].as_str().is_some_and(|kind| OWN_CONDITIONS.contains(&kind)))
                    .filter(|one| !known.is_some_and(|known| known.contains(one)))
                    .map(|one| cleared(one, known))
                    .collect();
                if !changed.is_empty() {
                    patch.insert(key.clone(), Value::Array(changed));
                }
            }
            // Lists that are merged by address: the old addresses must go.
            "podIPs" | "hostIPs" if old.contains_key(key) => {
                let mut list = value.as_array().cloned().unwrap_or_default();
                list.push(json!({"$patch": "replace"}));
                patch.insert(key.clone(), Value::Array(list));
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in old.keys().filter(|key| !new.contains_key(*key)) {
        patch.insert(key.clone(), Value::Null);
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// Reason and message that are gone must be named to go.
fn cleared(condition: &Value, known: Option<&Vec<Value>>) -> Value {
    let mut condition = condition.clone();
    let old = known.and_then(|known| known.iter().find(|one| one["type"] == condition["type"]));
    for key in ["reason", "message"] {
        if old.is_some_and(|old| old.get(key).is_some()) && condition.get(key).is_none() {
            condition[key] = Value::Null;
        }
    }
    condition
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(value: Value) -> PodStatus {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_what_changed_is_written_and_others_conditions_are_left_alone() {
        let old =
            status(json!({"phase": "Pending", "podIPs": [{"ip": "1"}], "podIP": "1", "reason": "x", "conditions": [
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady"},
            {"type": "PodScheduled", "status": "True"}]}));
        let new = status(json!({"phase": "Running", "podIPs": [{"ip": "2"}], "podIP": "2", "conditions": [
            {"type": "Ready", "status": "True"}, {"type": "PodScheduled", "status": "True"},
            {"type": "example.com/gate", "status": "True"}]}));
        assert_eq!(
            changes(&old, &new).unwrap(),
            json!({"phase": "Running", "podIP": "2", "podIPs": [{"ip": "2"}, {"$patch": "replace"}], "reason": null,
                "conditions": [{"type": "Ready", "status": "True", "reason": null}]})
        );
        assert_eq!(changes(&new, &new), None);
    }
}
