//! Every resource that discovery names, through every verb that it names, in every form that goes over the wire.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use pki::{Authority, KeyAndRequest, Profile};
use schema::Types;
use schema::protobuf::{Encoder, decode, envelope};
use serde_json::{Value, json};

use crate::testing::{Answer, Fixture};

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// Subresources that a node or another server answers: here it only matters that the path is known.
const ELSEWHERE: [&str; 5] = ["attach", "exec", "log", "portforward", "proxy"];

fn written(value: &Value, media: &str) -> Bytes {
    match media {
        JSON => value.to_string().into(),
        YAML => serde_saphyr::to_string(value).unwrap().into(),
        _ => {
            let text = |name: &str| value[name].as_str().unwrap();
            let ty = Types::builtin().api_version_kind(text("apiVersion"), text("kind")).unwrap();
            let (mut message, mut out) = (Vec::new(), Vec::new());
            Encoder::default().value(value, ty, &mut message).unwrap();
            envelope(text("apiVersion"), text("kind"), &message, &mut out);
            out.into()
        }
    }
}

fn read(answer: &Answer) -> Value {
    match answer.content_type() {
        JSON => answer.json(),
        YAML => serde_saphyr::from_str(std::str::from_utf8(&answer.body).unwrap()).unwrap(),
        PROTOBUF => decode(&answer.body, Types::builtin()).unwrap(),
        other => panic!("{other}"),
    }
}

fn template() -> Value {
    json!({"metadata": {"labels": {"a": "b"}}, "spec": pod_spec()})
}

fn pod_spec() -> Value {
    json!({"containers": [{"name": "c", "image": "busybox"}]})
}

/// A small object of a kind that is valid, with a name that goes with `n`.
fn manifest([group, version, plural]: [&str; 3], n: usize) -> Option<Value> {
    let workload = || json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template()}});
    let job = || json!({"template": {"spec": {"restartPolicy": "Never", "containers": pod_spec()["containers"]}}});
    let rules = json!([{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]);
    let name = format!("walk-{n}");
    let mut object = match (group, plural) {
        ("", "configmaps") => json!({"data": {"a": "1"}}),
        ("", "endpoints") => json!({"subsets": [{"addresses": [{"ip": "10.1.0.1"}], "ports": [{"port": 80}]}]}),
        ("", "events") => json!({"involvedObject": {"namespace": "default"}, "reason": "R", "type": "Normal"}),
        ("events.k8s.io", "events") => json!({
            "eventTime": "2026-01-02T03:04:05.000006Z", "reportingController": "a.example/b", "action": "A",
            "reportingInstance": "i", "reason": "R", "regarding": {"namespace": "default"}, "type": "Normal",
        }),
        ("", "limitranges") => {
            json!({"spec": {"limits": [{"type": "Container", "max": {"ephemeral-storage": "9Ti"}}]}})
        }
        ("", "namespaces" | "nodes" | "serviceaccounts") => json!({}),
        ("", "persistentvolumeclaims") => json!({"spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        }}),
        ("", "persistentvolumes") => json!({"spec": {
            "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"},
        }}),
        ("", "pods") => json!({"spec": pod_spec()}),
        ("", "podtemplates") => json!({"template": template()}),
        ("", "replicationcontrollers") => json!({"spec": {"selector": {"a": "b"}, "template": template()}}),
        ("", "resourcequotas") => json!({"spec": {"hard": {"services": "100"}}}),
        ("", "secrets") => json!({"data": {"a": "Yg=="}}),
        ("", "services") => json!({"spec": {"ports": [{"port": 80}]}}),
        ("apps", "controllerrevisions") => json!({"revision": 1, "data": {"a": 1}}),
        ("apps", "daemonsets" | "deployments" | "replicasets") => workload(),
        ("apps", "statefulsets") => {
            let mut set = workload();
            set["spec"]["serviceName"] = "s".into();
            set
        }
        ("autoscaling", _) => json!({"spec": {
            "maxReplicas": 3, "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x"},
        }}),
        ("batch", "cronjobs") => json!({"spec": {"schedule": "0 * * * *", "jobTemplate": {"spec": job()}}}),
        ("batch", "jobs") => json!({"spec": job()}),
        ("policy", _) => json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}}),
        ("rbac.authorization.k8s.io", "clusterroles" | "roles") => {
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]})
        }
        ("rbac.authorization.k8s.io", _) => json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "u"}],
        }),
        ("certificates.k8s.io", "certificatesigningrequests") => {
            let request = KeyAndRequest::new(&Profile::client("u", &[])).unwrap();
            json!({"spec": {
                "request": STANDARD.encode(request.request_pem), "usages": ["client auth"],
                "signerName": "example.com/signer",
            }})
        }
        ("certificates.k8s.io", "clustertrustbundles") => {
            let authority = Authority::create("walk").unwrap();
            json!({"spec": {"trustBundle": authority.cert_pem()}})
        }
        ("certificates.k8s.io", "podcertificaterequests") => {
            let request = KeyAndRequest::new(&Profile::client("u", &[])).unwrap().request_pem;
            let stub: String = request.lines().filter(|line| !line.starts_with('-')).collect();
            json!({"spec": {
                "signerName": "example.com/signer", "podName": "p", "podUID": "1", "serviceAccountName": "s",
                "serviceAccountUID": "2", "nodeName": "n", "nodeUID": "3", "stubPKCS10Request": stub,
            }})
        }
        ("coordination.k8s.io", "leasecandidates") => json!({"spec": {
            "leaseName": "l", "binaryVersion": "1.36.0", "emulationVersion": "1.36.0",
            "strategy": "OldestEmulationVersion",
        }}),
        ("coordination.k8s.io", "leases") => json!({"spec": {"holderIdentity": "h", "leaseDurationSeconds": 15}}),
        ("discovery.k8s.io", _) => json!({
            "addressType": "IPv4", "endpoints": [{"addresses": ["10.1.0.1"]}], "ports": [{"port": 80}],
        }),
        ("networking.k8s.io", "ingressclasses") => json!({"spec": {"controller": "example.com/c"}}),
        ("networking.k8s.io", "ingresses") => {
            json!({"spec": {"defaultBackend": {"service": {"name": "s", "port": {"number": 80}}}}})
        }
        ("networking.k8s.io", "ipaddresses") => json!({
            "metadata": {"name": format!("10.44.0.{n}")},
            "spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "s"}},
        }),
        ("networking.k8s.io", "networkpolicies") => json!({"spec": {"podSelector": {}}}),
        ("networking.k8s.io", "servicecidrs") => json!({"spec": {"cidrs": [format!("10.{n}.0.0/16")]}}),
        ("node.k8s.io", _) => json!({"handler": "h"}),
        ("scheduling.k8s.io", "podgroups") => json!({"spec": {"schedulingPolicy": {"gang": {"minCount": 2}}}}),
        ("scheduling.k8s.io", "workloads") => {
            json!({"spec": {"podGroupTemplates": [{"name": "a", "schedulingPolicy": {"basic": {}}}]}})
        }
        ("scheduling.k8s.io", _) => json!({"value": 7}),
        ("storagemigration.k8s.io", _) => json!({"spec": {"resource": {"group": "apps", "resource": "deployments"}}}),
        ("internal.apiserver.k8s.io", _) => json!({"metadata": {"name": format!("example.com.things{n}")}}),
        ("storage.k8s.io", "csidrivers") => json!({"spec": {}}),
        ("storage.k8s.io", "csinodes") => json!({"spec": {"drivers": []}}),
        ("storage.k8s.io", "csistoragecapacities") => json!({"storageClassName": "fast"}),
        ("storage.k8s.io", "storageclasses") => json!({"provisioner": "example.com/p"}),
        ("storage.k8s.io", "volumeattachments") => {
            json!({"spec": {"attacher": "a", "nodeName": "n", "source": {"persistentVolumeName": "p"}}})
        }
        ("storage.k8s.io", "volumeattributesclasses") => json!({"driverName": "d", "parameters": {"a": "b"}}),
        ("resource.k8s.io", "deviceclasses") => json!({"spec": {}}),
        ("resource.k8s.io", "devicetaintrules") => {
            json!({"spec": {"taint": {"key": "example.com/broken", "effect": "NoSchedule"}}})
        }
        ("resource.k8s.io", "resourceclaims") => json!({"spec": claim(version)}),
        ("resource.k8s.io", "resourceclaimtemplates") => json!({"spec": {"spec": claim(version)}}),
        ("resource.k8s.io", "resourcepoolstatusrequests") => json!({"spec": {"driver": "d.example.com"}}),
        ("resource.k8s.io", "resourceslices") => json!({"spec": {
            "driver": "d.example.com", "nodeName": "n", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
        }}),
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations" | "validatingwebhookconfigurations") => {
            json!({"webhooks": []})
        }
        ("admissionregistration.k8s.io", "mutatingadmissionpolicies") => json!({"spec": {
            "matchConstraints": {"resourceRules": rules}, "reinvocationPolicy": "Never",
            "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{op: 'remove', path: '/x'}]"}}],
        }}),
        ("admissionregistration.k8s.io", "validatingadmissionpolicies") => json!({"spec": {
            "matchConstraints": {"resourceRules": rules}, "validations": [{"expression": "true"}],
        }}),
        ("admissionregistration.k8s.io", "mutatingadmissionpolicybindings") => json!({"spec": {"policyName": "p"}}),
        ("admissionregistration.k8s.io", "validatingadmissionpolicybindings") => {
            json!({"spec": {"policyName": "p", "validationActions": ["Deny"]}})
        }
        ("flowcontrol.apiserver.k8s.io", "flowschemas") => json!({"spec": {
            "matchingPrecedence": 500, "priorityLevelConfiguration": {"name": "global-default"},
        }}),
        ("flowcontrol.apiserver.k8s.io", "prioritylevelconfigurations") => json!({"spec": {
            "type": "Limited", "limited": {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}},
        }}),
        ("apiextensions.k8s.io", _) => json!({
            "metadata": {"name": format!("things{n}.example.com")},
            "spec": {
                "group": "example.com", "scope": "Cluster",
                "names": {"plural": format!("things{n}"), "singular": format!("thing{n}"),
                    "kind": format!("Thing{n}"), "listKind": format!("Thing{n}List")},
                "versions": [{"name": "v1", "served": true, "storage": true,
                    "schema": {"openAPIV3Schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}}],
            },
        }),
        ("apiregistration.k8s.io", _) => json!({
            "metadata": {"name": format!("v1.walk{n}.example.com")},
            "spec": {"group": format!("walk{n}.example.com"), "version": "v1", "groupPriorityMinimum": 100,
                "versionPriority": 1, "insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "s"}},
        }),
        _ => return None,
    };
    if object["metadata"]["name"].is_null() {
        object["metadata"]["name"] = name.into();
    }
    Some(object)
}

fn claim(version: &str) -> Value {
    let request = match version {
        "v1beta1" => json!({"name": "r", "deviceClassName": "c.example.com"}),
        _ => json!({"name": "r", "exactly": {"deviceClassName": "c.example.com"}}),
    };
    json!({"devices": {"requests": [request]}})
}

/// Without what says no more than its absence: a field that Go has no pointer for is zero in protobuf and may be
/// missing in JSON.
fn said(mut value: Value) -> Value {
    fn clear(value: &mut Value) {
        let nothing =
            |value: &Value| [json!(null), json!({}), json!(""), json!(0), json!(false), json!([])].contains(value);
        match value {
            Value::Object(fields) => {
                fields.values_mut().for_each(clear);
                fields.retain(|_, value| !nothing(value));
            }
            Value::Array(items) => items.iter_mut().for_each(clear),
            _ => {}
        }
    }
    clear(&mut value);
    value
}

/// Some kinds are written again by the server itself before they rest; `None` for the others.
fn rests(plural: &str, object: &Value) -> Option<bool> {
    let status = &object["status"];
    let condition = |kind: &str| {
        let conditions = status["conditions"].as_array();
        conditions.and_then(|all| all.iter().find(|one| one["type"] == kind)).map(|one| one["status"] == "True")
    };
    match plural {
        "customresourcedefinitions" => Some(condition("Established") == Some(true)),
        "validatingadmissionpolicies" => Some(status["observedGeneration"] == object["metadata"]["generation"]),
        "apiservices" => Some(condition("Available").is_some()),
        _ => None,
    }
}

fn assert_answer(answer: &Answer, code: u16, what: &str) {
    assert_eq!(answer.code, code, "{what}: {}", String::from_utf8_lossy(&answer.body));
}

#[tokio::test]
async fn every_kind_lives_through_every_verb_in_every_form() {
    let t = Fixture::with_flags(&["--runtime-config=api/all=true"]).await.with_account().await;
    let mut http = t.http().await;
    let mut walked = 0;
    for row in t.server.rows().into_iter().filter(|row| row.stored) {
        let (group, version, plural) = (&row.resource.group, &row.resource.version, &row.resource.plural);
        let base = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let all =
            if row.namespaced { format!("{base}/namespaces/default/{plural}") } else { format!("{base}/{plural}") };
        for (n, media) in [JSON, YAML, PROTOBUF].into_iter().enumerate() {
            let n = n + 101 + 3 * walked % 90;
            let Some(mut object) = manifest([group, version, plural], n) else {
                panic!("nothing to make of {}", row.resource)
            };
            object["apiVersion"] = row.api_version().into();
            object["kind"] = row.kind.as_ref().into();
            let name = object["metadata"]["name"].as_str().unwrap().to_owned();
            let (what, one) = (format!("{} in {media}", row.resource), format!("{all}/{name}"));
            let created = http.write("POST", &all, media, written(&object, media)).await;
            assert_answer(&created, 201, &what);
            t.catch_up().await;

            let mut got = http.get(&one, media).await;
            while rests(plural, &read(&got)) == Some(false) {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                got = http.get(&one, media).await;
            }
            if rests(plural, &read(&got)).is_none() {
                assert_eq!(read(&got), read(&created), "{what}");
            }
            assert_answer(&got, 200, &what);
            let mut current = read(&got);
            assert_eq!(said(read(&http.get(&one, JSON).await)), said(current.clone()), "{what}");
            let listed = read(&http.get(&all, media).await);
            let items = listed["items"].as_array().unwrap();
            assert!(items.iter().any(|item| item["metadata"]["name"] == name.as_str()), "{what}");
            let table = format!("{JSON};as=Table;v=v1;g=meta.k8s.io");
            let rows = http.get(&one, &table).await.json();
            assert_eq!(rows["rows"][0]["cells"].as_array().map(Vec::len), Some(row.columns().len()), "{what}");

            current["metadata"]["labels"]["put"] = "1".into();
            let updated = http.write("PUT", &one, media, written(&current, media)).await;
            assert_answer(&updated, 200, &what);
            assert_eq!(read(&updated)["metadata"]["labels"]["put"], "1", "{what}");
            let patch = json!({"metadata": {"labels": {"patched": "1"}}}).to_string();
            let headers = [("content-type", "application/merge-patch+json"), ("accept", media)];
            let patched = http.send("PATCH", &one, &headers, patch.into()).await;
            assert_answer(&patched, 200, &what);
            assert_eq!(read(&patched)["metadata"]["labels"]["patched"], "1", "{what}");

            for subresource in row.subresources.iter().map(|one| one.name.as_ref()) {
                let path = format!("{one}/{subresource}");
                if ELSEWHERE.contains(&subresource) || matches!(subresource, "binding" | "eviction" | "token") {
                    continue;
                }
                let what = format!("{what}/{subresource}");
                let put = loop {
                    let viewed = if subresource == "finalize" {
                        patched.body.clone()
                    } else {
                        let viewed = http.get(&path, media).await;
                        assert_answer(&viewed, 200, &what);
                        viewed.body
                    };
                    let put = http.write("PUT", &path, media, viewed).await;
                    // The server itself may write in between, as it does to what priority and fairness is made of.
                    if put.code != 409 || subresource == "finalize" {
                        break put;
                    }
                };
                assert_answer(&put, 200, &what);
            }

            let deleted = http.write("DELETE", &one, media, Bytes::new()).await;
            assert!(matches!(deleted.code, 200 | 202), "{what}: {}", String::from_utf8_lossy(&deleted.body));
            let after = http.get(&one, media).await;
            assert!(after.code == 404 || read(&after)["metadata"]["deletionTimestamp"].is_string(), "{what}");
        }
        walked += 1;
    }
    assert!(walked > 80, "{walked}");
}

#[tokio::test]
async fn every_path_that_discovery_names_is_known() {
    let t = Fixture::with_flags(&["--runtime-config=api/all=true"]).await.with_account().await;
    let mut http = t.http().await;
    t.create("", "pods", json!({"metadata": {"name": "x"}, "spec": pod_spec()})).await.unwrap();
    t.create("", "services", json!({"metadata": {"name": "x"}, "spec": {"ports": [{"port": 80}]}})).await.unwrap();
    t.create("", "nodes", json!({"metadata": {"name": "x"}})).await.unwrap();
    t.catch_up().await;
    let mut asked = 0;
    for row in t.server.rows() {
        let (group, version, plural) = (&row.resource.group, &row.resource.version, &row.resource.plural);
        let base = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let all =
            if row.namespaced { format!("{base}/namespaces/default/{plural}") } else { format!("{base}/{plural}") };
        for subresource in row.subresources.iter().filter(|one| ELSEWHERE.contains(&one.name.as_ref())) {
            for method in ["GET", "POST"] {
                let verb = if method == "GET" { api::Verb::Get } else { api::Verb::Create };
                if !subresource.verbs.contains(&verb) {
                    continue;
                }
                let path = format!("{all}/x/{}", subresource.name);
                let answer = http.send(method, &path, &[], Bytes::new()).await;
                let unknown = "the server could not find the requested resource";
                assert!(!String::from_utf8_lossy(&answer.body).contains(unknown), "{method} {path}: {}", answer.code);
                assert_ne!(answer.code, 405, "{method} {path}");
                asked += 1;
            }
        }
        if !row.stored {
            for verb in row.verbs.iter() {
                let answer = match verb {
                    api::Verb::Create => http.write("POST", &all, JSON, Bytes::from_static(b"{}")).await,
                    _ => http.get(&all, JSON).await,
                };
                assert!(!matches!(answer.code, 404 | 405 | 500..), "{all}: {}", answer.code);
                asked += 1;
            }
        }
    }
    assert!(asked > 20, "{asked}");
}
