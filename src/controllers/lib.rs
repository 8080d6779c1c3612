//! One file per controller: what it watches, its pure decisions, its writes.
//!
//! A controller is level-triggered: events only wake it, and each reconcile begins with what is there now. They are
//! started together by [`start`], each under its own identity and each begun again when it fails.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use api::Resource;
use client::{Client, Failure};
use ipnet::Ipv4Net;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use task::Shutdown;

mod certificates;
mod cluster_role_aggregation;
mod cronjob;
mod daemonset;
mod deployment;
mod disruption;
mod endpoints;
mod endpointslice;
mod endpointslice_mirroring;
mod ephemeral_volume;
mod garbage;
mod job;
mod namespace;
mod node_ipam;
mod node_lifecycle;
mod pod_gc;
mod replicaset;
mod resourcequota;
mod serviceaccount;
mod shared;
mod statefulset;
mod token_cleaner;
mod tokens;
mod ttl_after_finished;
mod volume_protection;

pub use certificates::{Signer, Subject};
pub use tokens::TokenSigner;

/// What the controllers need to know of the cluster.
#[derive(Clone)]
pub struct Config {
    /// Network of all pods, of which each node gets a part.
    pub cluster_cidr: Ipv4Net,
    /// The bundle that pods verify the API server with.
    pub ca_pem: String,
    /// Addresses of the API server, which no node may serve under.
    pub reserved_addresses: Vec<IpAddr>,
    /// Signs tokens that Secrets hold.
    pub token_signer: Arc<dyn TokenSigner>,
    /// Built-in resources that can be listed, watched and deleted; custom ones are found.
    pub resources: Vec<Served>,
}

/// A resource as the namespace controller and the garbage collector need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    pub resource: Resource,
    pub kind: Cow<'static, str>,
    pub namespaced: bool,
}

/// Starts all controllers. `client` makes the client of the controller with a name such as `replicaset-controller`,
/// which acts as the ServiceAccount of that name in `kube-system`.
pub fn start(config: Config, client: impl Fn(&str) -> Client, signer: Arc<dyn Signer>, shutdown: &Shutdown) {
    let resources = config.resources.clone();
    let collected: Vec<Served> =
        config.resources.iter().filter(|served| served.resource.plural != "events").cloned().collect();
    begin("replicaset", client("replicaset-controller"), shutdown, replicaset::run::<ReplicaSet>);
    let replication = client("replication-controller");
    begin("replicationcontroller", replication, shutdown, replicaset::run::<ReplicationController>);
    begin("deployment", client("deployment-controller"), shutdown, deployment::run);
    begin("job", client("job-controller"), shutdown, job::run);
    begin("cronjob", client("cronjob-controller"), shutdown, cronjob::run);
    begin("daemonset", client("daemon-set-controller"), shutdown, daemonset::run);
    begin("statefulset", client("statefulset-controller"), shutdown, statefulset::run);
    let scaled = config.resources.clone();
    begin("disruption", client("disruption-controller"), shutdown, move |client, stop| {
        disruption::run(client, scaled.clone(), stop)
    });
    begin("ttlafterfinished", client("ttl-after-finished-controller"), shutdown, ttl_after_finished::run);
    begin("endpointslice", client("endpointslice-controller"), shutdown, endpointslice::run);
    begin("endpoints", client("endpoint-controller"), shutdown, endpoints::run);
    let mirroring = client("endpointslicemirroring-controller");
    begin("endpointslicemirroring", mirroring, shutdown, endpointslice_mirroring::run);
    begin("pvcprotection", client("pvc-protection-controller"), shutdown, volume_protection::run_claims);
    begin("pvprotection", client("pv-protection-controller"), shutdown, volume_protection::run_volumes);
    begin("ephemeralvolume", client("ephemeral-volume-controller"), shutdown, ephemeral_volume::run);
    begin("tokencleaner", client("token-cleaner"), shutdown, token_cleaner::run);
    begin("nodelifecycle", client("node-controller"), shutdown, node_lifecycle::run);
    begin("podgc", client("pod-garbage-collector"), shutdown, pod_gc::run);
    let cidr = config.cluster_cidr;
    begin("nodeipam", client("node-controller"), shutdown, move |client, stop| node_ipam::run(client, cidr, stop));
    begin("namespace", client("namespace-controller"), shutdown, move |client, stop| {
        namespace::run(client, resources.clone(), stop)
    });
    begin("garbage", client("generic-garbage-collector"), shutdown, move |client, stop| {
        garbage::run(client, collected.clone(), stop)
    });
    let counted = config.resources.clone();
    begin("resourcequota", client("resourcequota-controller"), shutdown, move |client, stop| {
        resourcequota::run(client, counted.clone(), stop)
    });
    begin(
        "clusterroleaggregation",
        client("clusterrole-aggregation-controller"),
        shutdown,
        cluster_role_aggregation::run,
    );
    let (token_signer, ca_pem) = (config.token_signer, config.ca_pem.clone());
    begin("tokens", client("tokens-controller"), shutdown, move |client, stop| {
        tokens::run(client, token_signer.clone(), ca_pem.clone(), stop)
    });
    let (ca_pem, publisher) = (config.ca_pem, client("root-ca-cert-publisher"));
    begin("serviceaccount", client("service-account-controller"), shutdown, move |client, stop| {
        serviceaccount::run(client, publisher.clone(), ca_pem.clone(), stop)
    });
    let reserved = config.reserved_addresses;
    begin("certificates", client("certificate-controller"), shutdown, move |client, stop| {
        certificates::run(client, signer.clone(), reserved.clone(), stop)
    });
}

fn begin<R, F>(name: &'static str, client: Client, shutdown: &Shutdown, run: R)
where
    R: Fn(Client, Shutdown) -> F + Send + 'static,
    F: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let stop = shutdown.clone();
    task::restarting(name, shutdown.clone(), move || {
        // What a failed run has started ends with it.
        let run_stop = stop.child_token();
        let guard = run_stop.clone().drop_guard();
        let running = run(client.clone(), run_stop);
        async move {
            let _guard = guard;
            running.await
        }
    });
}
