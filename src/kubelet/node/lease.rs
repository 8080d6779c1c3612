//! The node's Lease in `kube-node-lease`: its heartbeat.

use client::{Client, Failure, Patch};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use serde_json::json;

pub const NAMESPACE: &str = "kube-node-lease";
/// After this long without renewal the node counts as lost.
const DURATION_SECONDS: i32 = 40;

/// Renews the Lease, or makes it.
pub async fn renew(client: &Client, node: &Node, now: Timestamp) -> Result<(), Failure> {
    let name = node.metadata.name.clone().unwrap_or_default();
    let renew_time = MicroTime(now);
    let patch = Patch::Merge(json!({"spec": {
        "holderIdentity": name, "leaseDurationSeconds": DURATION_SECONDS, "renewTime": renew_time,
    }}));
    match client.patch::<Lease>(NAMESPACE, &name, patch).await {
        Err(failure) if failure.is_not_found() => {}
        outcome => return outcome.map(drop),
    }
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(NAMESPACE.to_owned()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Node".to_owned(),
                name: name.clone(),
                uid: node.metadata.uid.clone().unwrap_or_default(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name),
            lease_duration_seconds: Some(DURATION_SECONDS),
            renew_time: Some(renew_time),
            ..LeaseSpec::default()
        }),
    };
    client.create(&lease).await.map(drop)
}
