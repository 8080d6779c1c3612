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
    if row.namespaced {
        old["metadata"]["namespace"] = json!("default");
    }
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
            "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \
             \"Never\"",
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

#[test]
fn devices_and_classes_are_refused_with_the_field_and_the_reason() {
    let claim = |devices: Value| {
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "c"},
            "spec": {"devices": devices}})
    };
    let request = json!({"name": "gpu", "exactly": {"deviceClassName": "gpu.example.com"}});
    let good = claim(json!({"requests": [request], "constraints": [{"matchAttribute": "example.com/numa"}]}));
    assert_eq!(create(good.clone()), [""; 0]);
    let bad = claim(json!({
        "requests": [{"name": "A"}, {"name": "b", "exactly": {"deviceClassName": "", "count": 0,
            "allocationMode": "Some", "selectors": [{}], "tolerations": [{"operator": "Exists", "value": "x"}]}}],
        "constraints": [{"requests": ["c", "b/d/e"]}], "config": [{"opaque": {"driver": "D_", "parameters": [1]}}],
    }));
    let texts = create(bad);
    for expected in [
        "spec.devices.requests[0].name: Invalid value: \"A\": a lowercase RFC 1123 label",
        "spec.devices.requests[0]: Required value: exactly one of `exactly` or `firstAvailable` is required",
        "spec.devices.requests[1].exactly.deviceClassName: Required value",
        "spec.devices.requests[1].exactly.allocationMode: Unsupported value: \"Some\": supported values: \"All\"",
        "spec.devices.requests[1].exactly.selectors[0].cel: Required value",
        "spec.devices.requests[1].exactly.tolerations[0].value: Invalid value: \"x\": must be empty for operator",
        "spec.devices.constraints[0].requests[0]: Invalid value: \"c\": must be the name of a request in the claim",
        "spec.devices.constraints[0].requests[1]: Invalid value: \"b/d/e\": must be the name of a request",
        "spec.devices.constraints[0]: Required value: exactly one of \"matchAttribute\" or \"distinctAttribute\"",
        "spec.devices.config[0].opaque.driver: Invalid value: \"D_\": a lowercase RFC 1123 subdomain",
        "spec.devices.config[0].opaque.parameters: Invalid value: \"<value omitted>\": must be a valid JSON object",
    ] {
        assert!(texts.iter().any(|text| text.starts_with(expected)), "{expected}\n{texts:#?}");
    }
    let texts = update(&good, |claim| claim["spec"]["devices"]["requests"][0]["name"] = json!("other"));
    assert!(texts[0].starts_with("spec: Invalid value: ") && texts[0].ends_with("field is immutable"), "{texts:?}");

    let slice = |spec: Value| json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "s"}, "spec": spec});
    let pool = json!({"name": "n1", "resourceSliceCount": 1, "generation": 1});
    let device = json!({"name": "d", "attributes": {"numa": {"int": 0}, "example.com/v": {"version": "1.2.3-rc.1"}},
        "capacity": {"memory": {"value": "1Gi"}}});
    let good = slice(json!({"driver": "d.example.com", "pool": pool, "nodeName": "n1", "devices": [device]}));
    assert_eq!(create(good.clone()), [""; 0]);
    let bad = slice(json!({
        "driver": "d.example.com", "pool": {"name": "n1"}, "nodeName": "n1", "allNodes": false,
        "perDeviceNodeSelection": true,
        "devices": [{"name": "d", "attributes": {"a-b": {"int": 1, "bool": true}, "v": {"version": "1.02.3"}},
            "bindingConditions": ["x"]}, {"name": "d", "nodeName": "n1"}],
    }));
    let texts = create(bad);
    for expected in [
        "spec.pool.resourceSliceCount: Invalid value: 0: must be greater than zero",
        "spec.allNodes: Invalid value: false: must be either unset or set to true",
        "spec: Invalid value: \"{`nodeName`, `perDeviceNodeSelection`}\": exactly one of `nodeName`, `nodeSelector`",
        "spec.devices[0].attributes[a-b]: Invalid value: \"a-b\": a valid C identifier must start with",
        "spec.devices[0].attributes[a-b]: Invalid value: {\"bool\":true,\"int\":1}: exactly one value must be specified",
        "spec.devices[0].attributes[v].version: Invalid value: \"1.02.3\": must be a string compatible with semver.org",
        "spec.devices[0]: Required value: exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when",
        "spec.devices[0].bindingFailureConditions: Invalid value: null: bindingFailureConditions are required to use",
        "spec.devices[1]: Duplicate value: \"d\"",
    ] {
        assert!(texts.iter().any(|text| text.starts_with(expected)), "{expected}\n{texts:#?}");
    }
    let texts = update(&good, |slice| slice["spec"]["driver"] = json!("e.example.com"));
    assert_eq!(texts, ["spec.driver: Invalid value: \"e.example.com\": field is immutable"]);
}

#[test]
fn storage_that_drivers_tell_of_is_checked() {
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttributesClass", "metadata": {"name": "gold"},
        "driverName": "d.example.com", "parameters": {"iops": "100"}});
    assert_eq!(create(class.clone()), [""; 0]);
    let texts = update(&class, |class| class["parameters"] = json!({}));
    assert_eq!(
        texts,
        [
            "parameters: Forbidden: updates to parameters are forbidden.",
            "parameters: Required value: must contain at least one key/value pair",
        ]
    );
    let capacity = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSIStorageCapacity", "metadata": {"name": "a"},
        "storageClassName": "fast", "capacity": "1Gi", "nodeTopology": {"matchLabels": {"zone": "a"}}});
    assert_eq!(create(capacity.clone()), [""; 0]);
    let texts = update(&capacity, |capacity| capacity["storageClassName"] = json!("slow"));
    assert_eq!(texts, ["storageClassName: Invalid value: \"slow\": field is immutable"]);
    let node = json!({"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": "n1"},
        "spec": {"drivers": [{"name": "d", "nodeID": "1", "topologyKeys": ["zone"]}]}});
    assert_eq!(update(&node, |node| node["spec"]["drivers"][0]["allocatable"] = json!({"count": 3})), [""; 0]);
    let texts = update(&node, |node| node["spec"]["drivers"][0]["nodeID"] = json!("2"));
    assert!(texts[0].starts_with("spec.drivers: Invalid value: {"), "{texts:?}");
}

#[test]
fn a_pod_asks_for_what_goes_together() {
    let container = |more: Value| {
        let mut container = json!({"name": "c", "image": "i"});
        for (name, value) in more.as_object().unwrap() {
            container[name] = value.clone();
        }
        json!([container])
    };
    let refused = |spec: Value, expected: &[&str]| {
        let texts = create(pod(spec));
        for (text, expected) in texts.iter().zip(expected) {
            assert!(text.starts_with(expected), "{expected}\n{texts:#?}");
        }
        assert_eq!(texts.len(), expected.len(), "{texts:#?}");
    };
    refused(
        json!({"containers": container(json!({"resources": {"claims": [{"name": "a"}, {"name": "b"}, {"name": "a"}]}})),
            "resourceClaims": [{"name": "a", "resourceClaimName": "x"}, {"name": "A"}]}),
        &[
            "spec.resourceClaims[1].name: Invalid value: \"A\": a lowercase RFC 1123 label",
            "spec.resourceClaims[1]: Invalid value: {\"name\":\"A\"}: must specify one of: `resourceClaimName`",
            "spec.containers[0].resources.claims[1]: Not found: \"b\": must be one of the names in \
             pod.spec.resourceClaims: A, a",
            "spec.containers[0].resources.claims[2]: Duplicate value: \"a\"",
        ],
    );
    refused(
        json!({"os": {"name": "windows"}, "hostPID": true, "securityContext": {"runAsUser": 1},
            "containers": container(json!({"securityContext": {"privileged": false}}))}),
        &[
            "spec.hostPID: Forbidden: cannot be set for a windows pod",
            "spec.securityContext.runAsUser: Forbidden: cannot be set for a windows pod",
            "spec.containers[0].securityContext.privileged: Forbidden: cannot be set for a windows pod",
        ],
    );
    refused(
        json!({"os": {"name": "linux"}, "securityContext": {"windowsOptions": {}},
            "hostnameOverride": "a.b", "hostNetwork": true, "containers": container(json!({}))}),
        &[
            "spec.hostnameOverride: Forbidden: may not be specified when hostNetwork is true",
            "spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
        ],
    );
    refused(
        json!({"containers": container(json!({"restartPolicy": "Never", "restartPolicyRules": [
            {"action": "Restart", "exitCodes": {"operator": "In", "values": [3]}}, {"action": "Stop"},
        ]}))}),
        &[
            "spec.containers[0].restartPolicyRules[1].action: Unsupported value: \"Stop\": supported values: \"Restart\"",
            "spec.containers[0].restartPolicyRules[1].exitCodes: Required value: must be specified",
        ],
    );
    let file = |volume: &str| json!({"name": "A", "valueFrom": {"fileKeyRef": {"key": "A", "path": "e", "volumeName": volume}}});
    refused(
        json!({"volumes": [{"name": "v", "emptyDir": {}}, {"name": "h", "hostPath": {"path": "/x"}}],
            "containers": container(json!({"env": [file("v"), file("h"), file("x")]}))}),
        &[
            "spec.containers[0].env[1].valueFrom.fileKeyRef.volumeName: Invalid value: \"h\": referenced volume must be",
            "spec.containers[0].env[2].valueFrom.fileKeyRef.volumeName: Not found: \"x\"",
        ],
    );
}

#[test]
fn annotations_of_pods_are_kept() {
    let mut object = pod(json!({"containers": [{"name": "c", "image": "i"}]}));
    object["metadata"]["annotations"] = json!({
        "kubernetes.io/config.mirror": "h", "controller.kubernetes.io/pod-deletion-cost": "+1",
    });
    assert_eq!(
        create(object.clone()),
        [
            "metadata.annotations[kubernetes.io/config.mirror]: Invalid value: \"h\": must set spec.nodeName if mirror \
             pod annotation is set",
            "metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: \"+1\": must be a 32bit \
             integer",
        ]
    );
    object["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "h"});
    object["spec"]["nodeName"] = json!("n1");
    assert_eq!(create(object.clone()), [""; 0]);
    assert_eq!(
        update(&object, |pod| pod["metadata"]["annotations"] = json!({})),
        [
            "metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not remove or update mirror pod annotation"
        ]
    );
}

#[test]
fn load_balancers_say_where_they_are() {
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}});
    let status = |object: &Value, points: Value| -> Vec<String> {
        let row = Row::find_kind(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap()).unwrap();
        let mut new = object.clone();
        new["metadata"]["namespace"] = json!("default");
        let old = new.clone();
        new["status"] = json!({"loadBalancer": {"ingress": points}});
        row.validate_update(&new, &old, Some("status")).iter().map(ToString::to_string).collect()
    };
    assert_eq!(status(&service, json!([{"ip": "192.0.2.1", "ipMode": "VIP"}, {"hostname": "a.example"}])), [""; 0]);
    assert_eq!(
        status(&service, json!([{"ip": "192.0.2.1"}, {"ipMode": "VIP"}, {"ip": "x", "ipMode": "Some"}])),
        [
            "status.loadBalancer.ingress[0].ipMode: Required value: must be specified when `ip` is set",
            "status.loadBalancer.ingress[1].ipMode: Forbidden: may not be specified when `ip` is not set",
            "status.loadBalancer.ingress[2].ipMode: Unsupported value: \"Some\": supported values: \"Proxy\", \"VIP\"",
            "status.loadBalancer.ingress[2].ip: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or \
             2001:db8::ffff)",
        ]
    );
    let mut inside = service;
    inside["spec"]["type"] = json!("ClusterIP");
    assert_eq!(
        status(&inside, json!([{"hostname": "a"}])),
        ["status.loadBalancer.ingress: Forbidden: may only be used when `spec.type` is 'LoadBalancer'"]
    );
    let ingress = json!({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "i"},
        "spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}});
    assert_eq!(
        status(&ingress, json!([{"hostname": "192.0.2.1"}])),
        [
            "status.loadBalancer.ingress[0].hostname: Invalid value: \"192.0.2.1\": must be a DNS name, not an IP address"
        ]
    );
}

#[test]
fn jobs_end_by_policies_that_can_be_followed() {
    let job = |more: Value| {
        let mut spec = json!({"completions": 10, "completionMode": "Indexed", "template": {"spec": {
            "restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}});
        for (name, value) in more.as_object().unwrap() {
            spec[name] = value.clone();
        }
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": spec})
    };
    let good = job(json!({
        "backoffLimitPerIndex": 1, "maxFailedIndexes": 3, "managedBy": "example.com/manager",
        "podFailurePolicy": {"rules": [
            {"action": "FailIndex", "onExitCodes": {"containerName": "c", "operator": "In", "values": [1, 2]}},
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]},
        ]},
        "successPolicy": {"rules": [{"succeededIndexes": "0,2-4", "succeededCount": 2}]},
    }));
    assert_eq!(create(good), [""; 0]);
    let texts = create(job(json!({
        "maxFailedIndexes": 11, "managedBy": "manager",
        "podFailurePolicy": {"rules": [
            {"action": "FailIndex", "onExitCodes": {"containerName": "x", "operator": "In", "values": [2, 0, 2]}},
            {"onExitCodes": {"operator": "Is", "values": []}, "onPodConditions": [{"type": "", "status": "Yes"}]},
            {"action": "Count"},
        ]},
        "successPolicy": {"rules": [{}, {"succeededIndexes": "1,0", "succeededCount": 12}]},
    })));
    for expected in [
        "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
        "spec.maxFailedIndexes: Invalid value: 11: must be less than or equal to completions",
        "spec.managedBy: Invalid value: \"manager\": must be a domain-prefixed path (such as \"acme.io/foo\")",
        "spec.podFailurePolicy.rules[0].action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
        "spec.podFailurePolicy.rules[0].onExitCodes.containerName: Invalid value: \"x\": must be one of the container",
        "spec.podFailurePolicy.rules[0].onExitCodes.values[1]: Invalid value: 0: must not be 0 for the In operator",
        "spec.podFailurePolicy.rules[0].onExitCodes.values[2]: Duplicate value: 2",
        "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [2,0,2]: must be ordered",
        "spec.podFailurePolicy.rules[1].action: Required value: valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]",
        "spec.podFailurePolicy.rules[1].onExitCodes.operator: Unsupported value: \"Is\": supported values: \"In\", \"NotIn\"",
        "spec.podFailurePolicy.rules[1].onExitCodes.values: Invalid value: []: at least one value is required",
        "spec.podFailurePolicy.rules[1].onPodConditions[0].type: Invalid value: \"\": name part must be non-empty",
        "spec.podFailurePolicy.rules[1].onPodConditions[0].status: Unsupported value: \"Yes\": supported values: \"False\"",
        "spec.podFailurePolicy.rules[1]: Invalid value: specifying both OnExitCodes and OnPodConditions is not supported",
        "spec.podFailurePolicy.rules[2]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
        "spec.successPolicy.rules[0]: Required value: at least one of succeededCount or succeededIndexes must be",
        "spec.successPolicy.rules[1].succeededIndexes: Invalid value: \"1,0\": error parsing succeededIndexes: \
         non-increasing order, previous: 1, current: 0",
        "spec.successPolicy.rules[1].succeededCount: Invalid value: 12: must be less than or equal to 10 (the number of",
    ] {
        assert!(texts.iter().any(|text| text.starts_with(expected)), "{expected}\n{texts:#?}");
    }
}
