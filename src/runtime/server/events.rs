//! What happens to sandboxes and containers, for whoever listens (`GetContainerEvents`).

use cri::v1;

use super::state::{Container, Sandbox};
use super::{Runtime, views};

impl Runtime {
    pub fn emit_container(&self, container: &Container, event: v1::ContainerEventType) {
        self.emit(&container.id, &container.record.sandbox_id, event);
    }

    /// A sandbox's events bear its own ID, as containerd's do.
    pub fn emit_sandbox(&self, sandbox: &Sandbox, event: v1::ContainerEventType) {
        self.emit(&sandbox.id, &sandbox.id, event);
    }

    fn emit(&self, id: &str, sandbox_id: &str, event: v1::ContainerEventType) {
        if self.events.receiver_count() == 0 {
            return;
        }
        let sandbox = self.sandboxes.read().get(sandbox_id).cloned();
        // It may be that everybody has just stopped listening.
        let _ = self.events.send(v1::ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: event as i32,
            created_at: views::now_ns(),
            pod_sandbox_status: sandbox.map(|sandbox| views::sandbox_status(&sandbox)),
            containers_statuses: self.container_statuses(sandbox_id),
        });
    }
}
