//! The node itself: what the machine is ([`machine`]), how it shows in the API ([`object`]), and keeping that true
//! ([`run`]).
//!
//! Heartbeats are two: the Lease in `kube-node-lease` every 10 s, and the node's status when it changes and at the latest
//! every 5 minutes.

pub mod lease;
pub mod machine;
pub mod object;

use std::sync::Arc;
use std::time::Duration;

use client::{Client, Failure, Involved, Patch, Recorder, Scope};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use task::Shutdown;
use tokio::time::Instant;

use crate::Config;
use crate::pods::Context;
use machine::Machine;
use object::{Health, Seen};

/// Between looks at the runtime, which are also the Lease's beats.
const BEAT: Duration = Duration::from_secs(10);
/// Upstream's `nodeStatusReportFrequency`.
const REPORT: Duration = Duration::from_secs(300);
/// While something is missing, looks come faster, ever slower.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// A node that starts is looked at often: pods wait for it.
const RETRY_MAX_AT_START: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// A node that was not reported on yet is not called not ready before this time.
const STARTING_MAX: Duration = Duration::from_secs(5);
/// For so long a node counts as starting.
const START: Duration = Duration::from_secs(60);

/// Registers the node and keeps its status and Lease until shutdown.
pub async fn run(context: Arc<Context>, machine: Machine, shutdown: Shutdown) {
    // Others write to the Node, too: its pod CIDR comes from a controller.
    let scope = Scope::fields(format!("metadata.name={}", context.config.node_name));
    let informer = context.client.informer::<Node>(scope);
    let mut changes = informer.subscribe();
    let mut keeper = Keeper {
        context,
        machine,
        shown: None,
        reported: None,
        node: None,
        was_ready: false,
        pod_cidr: None,
        began: Instant::now(),
    };
    let started = Instant::now();
    let mut pause = RETRY_MIN;
    let mut lease_at: Option<Instant> = None;
    loop {
        let outcome = tokio::select! {
            () = shutdown.cancelled() => return,
            outcome = keeper.beat() => outcome,
        };
        let is_ready = outcome.unwrap_or_else(|failure| {
            tracing::info!(%failure, "node status not written; it is tried again");
            false
        });
        if lease_at.is_none_or(|at| at.elapsed() >= BEAT - Duration::from_millis(500))
            && let Some(node) = &keeper.node
        {
            match lease::renew(&keeper.context.client, node, Timestamp::now()).await {
                Ok(()) => lease_at = Some(Instant::now()),
                Err(failure) => tracing::info!(%failure, "node lease not renewed; it is tried again"),
            }
        }
        let longest = if started.elapsed() < START { RETRY_MAX_AT_START } else { RETRY_MAX };
        let is_well = is_ready && lease_at.is_some();
        let next = tokio::time::sleep(if is_well { BEAT } else { pause });
        pause = if is_well { RETRY_MIN } else { (pause * 2).min(longest) };
        tokio::pin!(next);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = &mut next => break,
                change = changes.next() => {
                    if let Some(node) = change.new && keeper.take_pod_cidr(&node).await {
                        break;
                    }
                }
            }
        }
    }
}

struct Keeper {
    context: Arc<Context>,
    machine: Machine,
    /// What the status was made of when it was last written.
    shown: Option<Seen>,
    reported: Option<Instant>,
    node: Option<Node>,
    was_ready: bool,
    pod_cidr: Option<String>,
    began: Instant,
}

impl Keeper {
    /// Looks and writes what changed. Yields whether the node is ready.
    async fn beat(&mut self) -> Result<bool, Failure> {
        let runtime = &self.context.runtime;
        if self.context.runtime_name.load().is_empty()
            && let Ok(version) = runtime.version().await
        {
            self.context.runtime_name.store(Arc::new(version.runtime_name.clone()));
            self.machine.runtime_version = format!("{}://{}", version.runtime_name, version.runtime_version);
        }
        let health = match runtime.status().await {
            Ok(status) => Health::of(&status),
            Err(error) => Health { problems: vec![format!("container runtime is down: {error}")], handlers: vec![] },
        };
        let is_ready = health.problems.is_empty();
        if self.node.is_none() {
            self.node = Some(register(&self.context.client, &self.context.config, &self.machine).await?);
        }
        // A runtime that starts together with the kubelet: what the Node says of before is truer than "not ready".
        if !is_ready && self.reported.is_none() && self.began.elapsed() < STARTING_MAX {
            return Ok(false);
        }
        let is_due = self.reported.is_none_or(|at| at.elapsed() >= REPORT);
        let images = match &self.shown {
            Some(shown) if !is_due => shown.images.clone(),
            _ => runtime.images().await.unwrap_or_default(),
        };
        let seen = Seen { health, images };
        if is_due || self.shown.as_ref() != Some(&seen) {
            self.write(seen).await?;
        }
        if is_ready != self.was_ready {
            let (reason, text) = if is_ready { ("NodeReady", "NodeReady") } else { ("NodeNotReady", "NodeNotReady") };
            tell(&self.context.events, &self.context.config, reason, text);
            tracing::info!(ready = is_ready, "node status");
            self.was_ready = is_ready;
        }
        Ok(is_ready)
    }

    async fn write(&mut self, seen: Seen) -> Result<(), Failure> {
        let Some(node) = &self.node else { return Ok(()) };
        let config = &self.context.config;
        let status = object::status(config, &self.machine, &seen, node.status.as_ref(), Timestamp::now());
        let patch = Patch::Strategic(json!({"status": object::patch(node.status.as_ref(), &status)}));
        match self.context.client.patch_status::<Node>("", &config.node_name, patch).await {
            Ok(written) => {
                self.take_pod_cidr(&written).await;
                self.node = Some(written);
                self.shown = Some(seen);
                self.reported = Some(Instant::now());
                Ok(())
            }
            // Also when somebody deleted the Node: as upstream, it comes back with the next start of this process.
            Err(failure) => Err(failure),
        }
    }

    /// Tells the runtime which addresses pods get. Yields whether that is new.
    async fn take_pod_cidr(&mut self, node: &Node) -> bool {
        let cidr = node.spec.as_ref().and_then(|spec| spec.pod_cidr.clone());
        let Some(text) = cidr.filter(|cidr| !cidr.is_empty() && self.pod_cidr.as_ref() != Some(cidr)) else {
            return false;
        };
        // Runtimes without a use for it may say so.
        if let Err(error) = self.context.runtime.set_pod_cidr(&text).await {
            tracing::debug!(%error, "pod CIDR not taken by the runtime");
        }
        self.pod_cidr = Some(text);
        true
    }
}

/// Creates the Node, or takes over the one that is there with its labels brought up to date.
async fn register(client: &Client, config: &Config, machine: &Machine) -> Result<Node, Failure> {
    let wanted = object::node(config, machine);
    match client.create(&wanted).await {
        Ok(node) => {
            tracing::info!(node = config.node_name, "node registered");
            Ok(node)
        }
        Err(failure) if failure.is_already_exists() => {
            let node = client.get::<Node>("", &config.node_name).await?;
            let labels = wanted.metadata.labels.unwrap_or_default();
            let is_same = |(key, value): (&String, &String)| {
                node.metadata.labels.as_ref().and_then(|all| all.get(key)) == Some(value)
            };
            if labels.iter().all(is_same) {
                return Ok(node);
            }
            let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
            client.patch::<Node>("", &config.node_name, patch).await
        }
        Err(failure) => Err(failure),
    }
}

/// An event about the node. Upstream's kubelet puts the node's name where the uid would be.
pub fn tell(events: &Recorder, config: &Config, reason: &str, text: &str) {
    let mut about = Node::default();
    about.metadata.name = Some(config.node_name.clone());
    about.metadata.uid = Some(config.node_name.clone());
    events.normal(Involved::new(&about), reason, format!("Node {} status is now: {text}", config.node_name));
}
