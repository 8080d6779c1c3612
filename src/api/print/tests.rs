use serde_json::{Value, json};

use crate::{Row, rows};

fn cells(object: &Value) -> String {
    let now = "2026-01-02T00:00:00Z".parse().unwrap();
    let row = Row::find_kind(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap()).unwrap();
    let cells = row.cells(object, now);
    cells.iter().map(|cell| cell.as_str().map_or_else(|| cell.to_string(), str::to_owned)).collect::<Vec<_>>().join("|")
}

fn pod(status: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "creationTimestamp": "2026-01-01T23:59:00Z"},
        "spec": {"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}], "nodeName": "n"},
        "status": status,
    })
}

#[test]
fn a_pod_is_told_in_a_word() {
    for (status, expected) in [
        (json!({"phase": "Pending"}), "a|0/1|Pending|0|60s|<none>|n|<none>|<none>"),
        (
            json!({"phase": "Running", "podIPs": [{"ip": "10.42.0.2"}], "containerStatuses":
                [{"name": "a", "ready": true, "restartCount": 0, "state": {"running": {}}}]}),
            "a|1/1|Running|0|60s|10.42.0.2|n|<none>|<none>",
        ),
        (
            json!({"phase": "Running", "containerStatuses": [{"name": "a", "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": {"finishedAt": "2026-01-01T23:59:50Z"}}}]}),
            "a|0/1|CrashLoopBackOff|3 (10s ago)|60s|<none>|n|<none>|<none>",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [
                {"name": "i", "state": {"terminated": {"exitCode": 0}}}, {"name": "j", "state": {"running": {}}}]}),
            "a|0/1|Init:1/2|0|60s|<none>|n|<none>|<none>",
        ),
        (
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 1,
                "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
            "a|0/1|Init:Error|1|60s|<none>|n|<none>|<none>",
        ),
        (
            json!({"phase": "Succeeded", "containerStatuses": [{"name": "a",
                "state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}]}),
            "a|0/1|Completed|0|60s|<none>|n|<none>|<none>",
        ),
        (
            json!({"phase": "Failed", "containerStatuses": [{"name": "a", "state": {"terminated": {"exitCode": 7}}}]}),
            "a|0/1|ExitCode:7|0|60s|<none>|n|<none>|<none>",
        ),
        (json!({"phase": "Failed", "reason": "Evicted"}), "a|0/1|Evicted|0|60s|<none>|n|<none>|<none>"),
    ] {
        assert_eq!(cells(&pod(status)), expected);
    }
    let mut going = pod(json!({"phase": "Running"}));
    going["metadata"]["deletionTimestamp"] = json!("2026-01-01T23:59:00Z");
    assert_eq!(cells(&going), "a|0/1|Terminating|0|60s|<none>|n|<none>|<none>");
}

#[test]
fn other_kinds_are_shown_as_upstream_shows_them() {
    let metadata = json!({"name": "a", "creationTimestamp": "2026-01-01T00:00:00Z"});
    let template = json!({"spec": {"containers": [{"name": "c", "image": "i:1"}, {"name": "d", "image": "j:2"}]}});
    for (mut object, expected) in [
        (
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 3, "template": template,
                "selector": {"matchLabels": {"app": "web"}}}, "status": {"readyReplicas": 2, "updatedReplicas": 3}}),
            "a|2/3|3|0|24h|c,d|i:1,j:2|app=web",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Service", "spec": {"type": "NodePort", "clusterIPs": ["10.43.0.9"],
                "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}],
                "selector": {"app": "web"}}}),
            "a|NodePort|10.43.0.9|<none>|80:30080/TCP,53/UDP|24h|app=web",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Service", "spec": {"type": "LoadBalancer"}}),
            "a|LoadBalancer|<none>|<pending>|<none>|24h|<none>",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Node", "spec": {"unschedulable": true}, "status": {
                "conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.36.2",
                "kernelVersion": "6.1", "architecture": "amd64"},
                "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}}),
            "a|Ready,SchedulingDisabled|<none>|24h|v1.36.2|10.0.0.1|<none>|<unknown>|6.1 (amd64)|<unknown>",
        ),
        (
            json!({"apiVersion": "batch/v1", "kind": "Job", "spec": {"completions": 1, "selector": {}}, "status": {
                "succeeded": 1, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:05Z",
                "conditions": [{"type": "Complete", "status": "True"}]}}),
            "a|Complete|1/1|5s|24h|||<none>",
        ),
        (
            json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {"kind": "Pod", "name": "p"}, "type": "Normal",
                "reason": "Pulled", "message": "m ", "count": 2, "source": {"component": "kubelet", "host": "n"},
                "firstTimestamp": "2026-01-01T23:58:00Z", "lastTimestamp": "2026-01-01T23:59:58Z"}),
            "2s|Normal|Pulled|pod/p||kubelet, n|m|2m|2|a",
        ),
        (
            json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
                "ports": [{"port": 80}], "endpoints": [{"addresses": ["1", "2"]}, {"addresses": ["3", "4"]}]}),
            "a|IPv4|80|1,2,3 + 1 more...|24h",
        ),
        (
            json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": {"minReplicas": 1,
                "maxReplicas": 3, "scaleTargetRef": {"kind": "Deployment", "name": "d"}, "metrics": [{
                "type": "Resource", "resource": {"name": "cpu", "target": {"averageUtilization": 80}}}]}}),
            "a|Deployment/d|cpu: <unknown>/80%|1|3|0|24h",
        ),
        (
            json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "spec": {
                "signerName": "s", "username": "u", "expirationSeconds": 3600}, "status": {"certificate": "x",
                "conditions": [{"type": "Approved"}]}}),
            "a|24h|s|u|60m|Approved,Issued",
        ),
        (json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "", "b": ""}}), "a|2|24h"),
        (json!({"apiVersion": "v1", "kind": "LimitRange"}), "a|2026-01-01T00:00:00Z"),
    ] {
        object["metadata"] = metadata.clone();
        assert_eq!(cells(&object), expected);
    }
}

#[test]
fn every_row_has_a_cell_for_each_column() {
    for row in rows() {
        let columns = row.columns();
        assert_eq!(columns.len(), row.cells(&json!({}), jiff::Timestamp::UNIX_EPOCH).len(), "{}", row.kind);
        // Migrations are upstream's exception.
        let named = columns.iter().any(|column| column.format == "name");
        assert!(named || row.kind == "StorageVersionMigration", "{}", row.kind);
    }
}
