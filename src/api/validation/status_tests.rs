//! What is written to the subresource `status` of kinds that do little else with it.

use serde_json::{Value, json};

use crate::table::Row;

/// Findings about `status` as it is written over an empty one: field and reason.
fn found(api_version: &str, kind: &str, status: Value) -> Vec<String> {
    let row = Row::find_kind(api_version, kind).unwrap();
    let mut old = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "a", "uid": "u"}});
    if row.namespaced {
        old["metadata"]["namespace"] = json!("default");
    }
    let mut new = old.clone();
    new["status"] = status;
    let errors = row.validate_update(&new, &old, Some("status"));
    errors.iter().map(|error| format!("{} {}", error.field, error.reason.trim_start_matches("FieldValue"))).collect()
}

#[test]
fn a_status_counts_from_zero_and_no_more_than_there_are() {
    let below = json!({"observedGeneration": -1, "numberReady": -1});
    assert_eq!(
        found("apps/v1", "DaemonSet", below),
        ["status.numberReady Invalid", "status.observedGeneration Invalid"]
    );
    for (api_version, kind) in [("apps/v1", "ReplicaSet"), ("v1", "ReplicationController")] {
        assert_eq!(
            found(api_version, kind, json!({"replicas": 2, "readyReplicas": 2, "availableReplicas": 1})),
            [""; 0]
        );
        assert_eq!(
            found(api_version, kind, json!({"replicas": 1, "observedGeneration": -1, "availableReplicas": 1})),
            ["status.observedGeneration Invalid", "status.availableReplicas Invalid"],
            "{kind}"
        );
    }
    assert_eq!(found("apps/v1", "StatefulSet", json!({"collisionCount": -1})), ["status.collisionCount Invalid"]);
    assert_eq!(found("apps/v1", "Deployment", json!({"collisionCount": -1})), ["status.collisionCount Invalid"]);
}

#[test]
fn conditions_of_a_status_are_complete() {
    let whole =
        json!([{"type": "Ready", "status": "True", "reason": "R", "lastTransitionTime": "2026-01-02T03:04:05Z"}]);
    for (api_version, kind) in
        [("policy/v1", "PodDisruptionBudget"), ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy")]
    {
        assert_eq!(found(api_version, kind, json!({"conditions": whole})), [""; 0], "{kind}");
        let half = found(api_version, kind, json!({"conditions": [{"type": "Ready"}]}));
        assert_eq!(
            half,
            [
                "status.conditions[0].status NotSupported",
                "status.conditions[0].lastTransitionTime Required",
                "status.conditions[0].reason Required",
            ],
            "{kind}"
        );
    }
    for kind in ["FlowSchema", "PriorityLevelConfiguration"] {
        let found = found("flowcontrol.apiserver.k8s.io/v1", kind, json!({"conditions": [{}]}));
        assert_eq!(found, ["status.conditions[0].type Required"], "{kind}");
    }
    assert_eq!(
        found(
            "certificates.k8s.io/v1",
            "CertificateSigningRequest",
            json!({"conditions": [
                {"type": "Approved", "status": "False"}, {"type": "Other"},
            ]})
        ),
        ["status.conditions[0].status NotSupported", "status.conditions[1].status Required"]
    );
}

#[test]
fn a_claim_has_storage_and_grows_by_known_steps() {
    assert_eq!(
        found(
            "v1",
            "PersistentVolumeClaim",
            json!({
                "capacity": {"storage": "-1"}, "allocatedResources": {"storage": "1Gi", "cpu": "1"},
                "allocatedResourceStatuses": {"storage": "NodeResizePending", "example.com/x": "Done"},
            })
        ),
        [
            "status.capacity[storage] Invalid",
            "status.allocatedResourceStatuses NotSupported",
            "status.allocatedResources NotSupported",
        ]
    );
}

#[test]
fn drivers_speak_of_devices_that_a_claim_has() {
    let device = json!({"driver": "d.example.com", "pool": "p", "device": "d0"});
    let has =
        json!({"devices": {"results": [{"request": "r", "driver": "d.example.com", "pool": "p", "device": "d0"}]}});
    let found = |devices: Value| {
        let all = found("resource.k8s.io/v1", "ResourceClaim", json!({"allocation": has, "devices": devices}));
        all.into_iter().filter(|one| one.starts_with("status.devices")).collect::<Vec<_>>()
    };
    assert_eq!(found(json!([device])), [""; 0]);
    assert_eq!(found(json!([device, device])), ["status.devices[1] Duplicate"]);
    assert_eq!(
        found(json!([{"driver": "d.example.com", "pool": "q", "device": "d0", "shareID": "x", "data": 1,
            "networkData": {"ips": ["10.0.0.1"]}, "conditions": [{"type": "a"}]}]))[..2],
        ["status.devices[0].shareID Invalid", "status.devices[0] Invalid"]
    );
}
