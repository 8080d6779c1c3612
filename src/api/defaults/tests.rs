use serde_json::{Value, json};

use crate::table::{Row, rows};

fn defaulted(mut object: Value) -> Value {
    let row = Row::find_kind(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap()).unwrap();
    row.default(&mut object);
    object
}

#[test]
fn a_bare_pod_becomes_what_kubectl_shows() {
    let pod = defaulted(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
        "spec": {
            "containers": [{
                "name": "web", "image": "nginx:1.27",
                "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1000m", "memory": "0.5Gi"}},
                "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "livenessProbe": {"httpGet": {"port": 80}},
            }],
            "volumes": [
                {"name": "scratch"},
                {"name": "conf", "configMap": {"name": "c"}},
                {"name": "host", "hostPath": {"path": "/tmp"}},
                {"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}},
            ],
            "serviceAccountName": "robot",
        },
    }));
    let container = json!({
        "name": "web", "image": "nginx:1.27", "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": 80, "protocol": "TCP"}],
        "resources": {"limits": {"cpu": "1", "memory": "512Mi"}, "requests": {"cpu": "1", "memory": "512Mi"}},
        "env": [{"name": "IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}],
        "livenessProbe": {
            "httpGet": {"port": 80, "path": "/", "scheme": "HTTP"},
            "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
        },
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
    });
    let spec = json!({
        "containers": [container],
        "volumes": [
            {"name": "scratch", "emptyDir": {}},
            {"name": "conf", "configMap": {"name": "c", "defaultMode": 420}},
            {"name": "host", "hostPath": {"path": "/tmp", "type": ""}},
            {"name": "token", "projected": {
                "sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}], "defaultMode": 420,
            }},
        ],
        "serviceAccountName": "robot", "serviceAccount": "robot",
        "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {},
        "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler", "enableServiceLinks": true,
    });
    assert_eq!(pod["spec"], spec, "{pod:#}");
}

#[test]
fn workloads_are_completed() {
    let deployment = defaulted(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
        "spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "a", "image": "a"}]}}},
    }));
    let spec = &deployment["spec"];
    assert_eq!(spec["strategy"]["rollingUpdate"], json!({"maxSurge": "25%", "maxUnavailable": "25%"}));
    assert_eq!((&spec["replicas"], &spec["progressDeadlineSeconds"]), (&json!(1), &json!(600)));
    // What only pods get, templates do not.
    assert_eq!(spec["template"]["spec"]["enableServiceLinks"], Value::Null);
    assert_eq!(spec["template"]["spec"]["containers"][0]["imagePullPolicy"], "Always");
    let job = defaulted(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "a"},
        "spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}}}}));
    assert_eq!(job["metadata"]["labels"], json!({"a": "b"}));
    assert_eq!((&job["spec"]["completions"], &job["spec"]["backoffLimit"]), (&json!(1), &json!(6)));
}

#[test]
fn services_and_secrets_are_completed() {
    let service = defaulted(json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"},
        "spec": {"ports": [{"port": 80}]}}));
    assert_eq!(
        service["spec"],
        json!({"ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "type": "ClusterIP",
            "sessionAffinity": "None", "internalTrafficPolicy": "Cluster"})
    );
    let secret = defaulted(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"},
        "data": {"a": "eA=="}, "stringData": {"b": "x", "a": "y"}}));
    assert_eq!(secret["data"], json!({"a": "eQ==", "b": "eA=="}));
    assert_eq!(secret.get("stringData"), None);
    let namespace = defaulted(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}));
    assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "a");
    assert_eq!(namespace["status"]["phase"], "Active");
}

#[test]
fn limits_give_pod_level_requests() {
    let pod = defaulted(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {
        "resources": {"limits": {"cpu": "2", "memory": "1Gi"}},
        "containers": [{"name": "a", "image": "a:1", "resources": {"requests": {"cpu": "100m"}}},
            {"name": "b", "image": "a:1", "resources": {"requests": {"cpu": "200m"}}}],
    }}));
    assert_eq!(pod["spec"]["resources"]["requests"], json!({"cpu": "300m", "memory": "1Gi"}));
}

/// Objects of every kind with every field filled in, and with none.
#[test]
fn defaulting_again_changes_nothing() {
    let directory = std::path::Path::new("/work/shared/kubernetes-1.36/roundtrip");
    let mut compared = 0;
    for row in rows() {
        let mut objects = vec![json!({"metadata": {}}), json!({}), json!({"spec": {}}), Value::Null];
        let group = if row.resource.group.is_empty() { "core" } else { &row.resource.group };
        let file = directory.join(format!("{group}.{}.{}.json", row.resource.version, row.kind));
        if let Ok(bytes) = std::fs::read(&file) {
            objects.push(serde_json::from_slice(&bytes).unwrap());
            compared += 1;
        }
        for mut object in objects {
            row.default(&mut object);
            let once = object.clone();
            row.default(&mut object);
            assert_eq!(object, once, "{}", row.kind);
        }
    }
    if compared == 0 {
        eprintln!("upstream's round-trip objects are not here: only empty ones were tried");
    }
}
