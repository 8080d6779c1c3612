use serde_json::{Value, json};

use crate::{failure::FieldError, table::Row};

/// Completed, prepared and checked as the API server does it.
fn create(mut object: Value) -> Vec<String> {
    let row = Row::find_kind(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap()).unwrap();
    if row.namespaced {
        object["metadata"]["namespace"] = json!("default");
    }
    object["metadata"]["uid"] = json!("u");
    row.default(&mut object);
    row.prepare_create(&mut object);
    row.validate_create(&object).iter().map(ToString::to_string).collect()
}

fn update(object: &Value, change: impl FnOnce(&mut Value)) -> Vec<String> {
    let row = Row::find_kind(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap()).unwrap();
    let mut old = object.clone();
    old["metadata"]["namespace"] = json!("default");
    row.default(&mut old);
    row.prepare_create(&mut old);
    let mut new = old.clone();
    change(&mut new);
    row.prepare_update(&mut new, &old, None);
    row.validate_update(&new, &old, None).iter().map(ToString::to_string).collect()
}

fn pod(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec})
}

fn deployment() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [{
                        "name": "nginx", "image": "registry:5000/nginx:1.27",
                        "ports": [{"name": "http", "containerPort": 80}],
                        "readinessProbe": {"httpGet": {"path": "/", "port": "http"}},
                        "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                        "volumeMounts": [{"name": "conf", "mountPath": "/etc/nginx/conf.d"}],
                        "envFrom": [{"configMapRef": {"name": "env"}}],
                        "env": [
                            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
                            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
                            {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
                        ],
                        "securityContext": {"runAsNonRoot": true, "allowPrivilegeEscalation": false,
                            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}},
                        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "1"]}}},
                    }],
                    "initContainers": [
                        {"name": "wait", "image": "busybox:1", "command": ["true"]},
                        {"name": "side", "image": "busybox:1", "restartPolicy": "Always",
                            "startupProbe": {"tcpSocket": {"port": 1}}},
                    ],
                    "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 3}],
                    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{
                        "weight": 1, "podAffinityTerm": {"topologyKey": "kubernetes.io/hostname",
                            "labelSelector": {"matchLabels": {"app": "web"}}}}]}},
                    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone",
                        "whenUnsatisfiable": "ScheduleAnyway"}],
                    "volumes": [{"name": "conf", "configMap": {"name": "conf", "items": [{"key": "a", "path": "b/c"}]}}],
                },
            },
        },
    })
}

#[test]
fn what_upstream_accepts_is_accepted() {
    let objects = [
        deployment(),
        pod(json!({"containers": [{"name": "a", "image": "a"}], "hostNetwork": true, "dnsPolicy": "None",
            "dnsConfig": {"nameservers": ["10.0.0.1"], "searches": ["a.b.", "_tcp.c"]}})),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "1-headless"},
            "spec": {"clusterIP": "None", "selector": {"app": "web"}}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ext"},
            "spec": {"type": "ExternalName", "externalName": "a.example.com."}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "prod"}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"nginx.conf": "x"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"p": "x"}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}}),
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": {"template": {
            "spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "a"}]}}}}),
        json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "often"}, "spec": {
            "schedule": "*/5 * * * *", "jobTemplate": {"spec": {"template": {
                "spec": {"restartPolicy": "OnFailure", "containers": [{"name": "a", "image": "a"}]}}}}}}),
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": {
            "serviceName": "db", "selector": {"matchLabels": {"a": "b"}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}}],
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "a",
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}}}}),
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "agent"}, "spec": {
            "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}},
                "spec": {"containers": [{"name": "a", "image": "a"}]}}}}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "system:a:b"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
                {"nonResourceURLs": ["/healthz"], "verbs": ["get"]}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "x"},
            "roleRef": {"kind": "ClusterRole", "name": "a"}, "subjects": [{"kind": "User", "name": "u"},
                {"kind": "ServiceAccount", "name": "d", "namespace": "n"}]}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i"}, "spec": {"rules": [
            {"host": "*.example.com", "http": {"paths": [{"path": "/", "pathType": "Prefix",
                "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}}),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "n"}, "spec": {
            "podSelector": {}, "ingress": [{"from": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8",
                "except": ["10.1.0.0/16"]}}], "ports": [{"port": 80, "endPort": 90}]}]}}),
        json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "p"},
            "spec": {"minAvailable": "50%", "selector": {"matchLabels": {"a": "b"}}}}),
        json!({"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}, "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 3}}),
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv"}, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"}}}),
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}),
        json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "s"},
            "provisioner": "rancher.io/local-path"}),
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata":
            {"name": "system-node-critical"}, "value": 2_000_001_000}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "l"},
            "spec": {"leaseDurationSeconds": 40}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": "e"},
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.42.0.3"]}], "ports": [{"port": 80}]}),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.42.0.0/24"],
            "taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]},
            "status": {"capacity": {"cpu": "2", "memory": "4Gi", "pods": "110"}}}),
        json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e.1"},
            "involvedObject": {"kind": "Pod", "namespace": "default", "name": "a"}}),
        json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": [
            {"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "10m"}}]}}),
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"},
            "spec": {"hard": {"pods": "10", "requests.cpu": "4"}}}),
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "c"},
            "spec": {"request": "eA==", "signerName": "kubernetes.io/kube-apiserver-client",
                "usages": ["client auth"]}}),
        json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1."},
            "spec": {"version": "v1", "groupPriorityMinimum": 18000, "versionPriority": 1}}),
    ];
    for object in objects {
        let name = format!("{} {}", object["kind"], object["metadata"]["name"]);
        assert_eq!(create(object), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn pods_are_refused_with_the_field_and_the_reason() {
    let cases = [
        (json!({"containers": []}), "spec.containers: Required value"),
        (json!({"containers": [{"name": "a"}]}), "spec.containers[0].image: Required value"),
        (
            json!({"containers": [{"name": "a", "image": "a"}, {"name": "a", "image": "b"}]}),
            "spec.containers[1].name: Duplicate value: \"a\"",
        ),
        (
            json!({"containers": [{"name": "a", "image": "a", "volumeMounts": [{"name": "x", "mountPath": "/x"}]}]}),
            "spec.containers[0].volumeMounts[0].name: Not found: \"x\"",
        ),
        (
            json!({"containers": [{"name": "a", "image": "a"}], "restartPolicy": "Sometimes"}),
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Never\", \
             \"OnFailure\"",
        ),
        (
            json!({"containers": [{"name": "a", "image": "a", "resources": {"requests": {"cpu": "2"},
                "limits": {"cpu": "1"}}}]}),
            "spec.containers[0].resources.requests: Invalid value: \"2\": must be less than or equal to cpu limit of 1",
        ),
        (
            json!({"containers": [{"name": "a", "image": "a", "ports": [{"containerPort": 70000}]}]}),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            json!({"containers": [{"name": "a", "image": "a", "livenessProbe": {}}]}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler type",
        ),
        (
            json!({"containers": [{"name": "a", "image": "a"}], "volumes": [{"name": "v", "emptyDir": {},
                "hostPath": {"path": "/"}}]}),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (
            json!({"containers": [{"name": "a", "image": "a"}], "initContainers": [{"name": "i", "image": "a",
                "livenessProbe": {"exec": {"command": ["a"]}}}]}),
            "spec.initContainers[0].livenessProbe: Forbidden: may not be set for init containers without \
             restartPolicy=Always",
        ),
        (
            json!({"containers": [{"name": "a", "image": "a"}], "tolerations": [{"value": "x"}]}),
            "spec.tolerations[0].operator: Invalid value: \"\": operator must be Exists when `key` is empty, which \
             means \"match all values and all keys\"",
        ),
        (
            json!({"containers": [{"name": "a", "image": "a", "env": [{"name": "A", "valueFrom":
                {"fieldRef": {"fieldPath": "spec.x"}}}]}]}),
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec.x\": error converting \
             fieldPath: field label not supported: spec.x",
        ),
    ];
    for (spec, expected) in cases {
        assert_eq!(create(pod(spec)), [expected]);
    }
}

#[test]
fn workloads_are_refused_with_the_field_and_the_reason() {
    let mut object = deployment();
    object["spec"]["template"]["metadata"]["labels"]["app"] = json!("other");
    assert_eq!(
        create(object),
        ["spec.template.metadata.labels: Invalid value: {\"app\":\"other\"}: `selector` does not match template \
          `labels`"]
    );
    let mut object = deployment();
    object["spec"]["replicas"] = json!(-1);
    assert_eq!(create(object), ["spec.replicas: Invalid value: -1: must be greater than or equal to 0"]);
    let mut object = deployment();
    object["spec"].as_object_mut().unwrap().remove("selector");
    assert_eq!(create(object), ["spec.selector: Required value"]);
    let errors = update(&deployment(), |new| {
        new["spec"]["selector"]["matchLabels"]["app"] = json!("x");
        new["spec"]["template"]["metadata"]["labels"]["app"] = json!("x");
    });
    assert_eq!(errors, ["spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"x\"}}: field is immutable"]);
}

#[test]
fn of_a_pod_only_some_fields_change() {
    let pod = pod(json!({"containers": [{"name": "a", "image": "a:1"}]}));
    assert_eq!(update(&pod, |new| new["spec"]["containers"][0]["image"] = json!("a:2")), Vec::<String>::new());
    assert_eq!(
        update(&pod, |new| new["spec"]["tolerations"] = json!([{"key": "a", "operator": "Exists"}])),
        Vec::<String>::new()
    );
    let errors = update(&pod, |new| new["spec"]["containers"][0]["command"] = json!(["x"]));
    assert!(errors[0].starts_with("spec: Forbidden: pod updates may not change fields other than `spec.containers[*]"));
    let errors = update(&pod, |new| new["spec"]["containers"] = json!([]));
    assert!(errors.contains(&"spec.containers: Forbidden: pod updates may not add or remove containers".to_owned()));
}

#[test]
fn configuration_is_refused_with_the_field_and_the_reason() {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a/b": "x"}});
    assert!(create(map)[0].starts_with("data[a/b]: Invalid value: \"a/b\": a valid config key must consist of"));
    let big = "x".repeat(1024 * 1024 + 1);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": big}});
    assert_eq!(create(map), [": Too long: may not be more than 1048576 bytes"]);
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "immutable": true,
        "data": {"a": "1"}});
    assert_eq!(
        update(&map, |new| new["data"]["a"] = json!("2")),
        ["data: Forbidden: field is immutable when `immutable` is set"]
    );
    let tls = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "type": "kubernetes.io/tls"});
    assert_eq!(create(tls), ["data[tls.crt]: Required value", "data[tls.key]: Required value"]);
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "Web"}, "spec": {}});
    let errors = create(service);
    assert!(errors[0].starts_with("metadata.name: Invalid value: \"Web\": a lowercase RFC 1123 label"));
    assert_eq!(errors[1], "spec.ports: Required value");
}

#[test]
fn what_says_nothing_is_no_difference() {
    use super::same;
    assert!(same(&json!({"a": null, "labels": {}, "args": []}), &json!({})));
    assert!(same(&json!({}), &json!({"labels": {}, "b": ""})));
    assert!(!same(&json!({"podSelector": {}}), &json!({"namespaceSelector": {}})));
    assert!(!same(&json!({"emptyDir": {}}), &json!({})));
    assert!(!same(&json!({"n": 0}), &json!({})));
    assert!(!same(&json!([1, 2]), &json!([2, 1])));
}

/// Hostile shapes: anything may stand where an object is expected.
#[test]
fn nothing_panics() {
    let odd = [Value::Null, json!([]), json!("x"), json!(1), json!({"spec": []}), json!({"metadata": 1, "spec": "x"})];
    for row in crate::rows() {
        for object in &odd {
            let mut new = object.clone();
            row.default(&mut new);
            row.prepare_create(&mut new);
            row.validate_create(&new);
            for old in &odd {
                for subresource in [None, Some("status"), Some("scale"), Some("approval")] {
                    let mut new = object.clone();
                    row.prepare_update(&mut new, old, subresource);
                    row.validate_update(&new, old, subresource);
                }
            }
            row.cells(&new, jiff::Timestamp::UNIX_EPOCH);
        }
    }
    let _ = FieldError::required("", "");
}
