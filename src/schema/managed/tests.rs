use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::types::Types;

const NOW: &str = "2026-01-02T03:04:05Z";
const LATER: &str = "2026-01-02T03:04:06Z";

fn write(manager: &'static str) -> Write<'static> {
    Write {
        ty: Types::builtin().kind("apps", "v1", "Deployment").unwrap(),
        manager,
        api_version: "apps/v1",
        subresource: "",
        reset_fields: None,
        now: NOW,
    }
}

fn deployment(spec: Value) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "namespace": "n"}, "spec": spec})
}

fn created(object: Value, manager: &'static str) -> Value {
    let mut object = object;
    update(None, &mut object, &write(manager));
    object["metadata"]["uid"] = json!("u");
    object
}

/// The fields of one manager's entry.
fn fields_of<'v>(object: &'v Value, manager: &str) -> Option<&'v Value> {
    entries::of(Some(object)).iter().find(|e| e["manager"] == manager).map(|e| &e["fieldsV1"])
}

#[test]
fn creating_owns_what_upstream_says() {
    // As a cluster answers `kubectl create deployment` with defaults, abridged.
    let object = created(
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "d", "namespace": "n", "uid": "", "labels": {"app": "d"}, "creationTimestamp": NOW},
            "spec": {
                "replicas": 1, "selector": {"matchLabels": {"app": "d"}},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
                "template": {
                    "metadata": {"labels": {"app": "d"}},
                    "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80, "protocol": "TCP"}]}], "dnsPolicy": "ClusterFirst"},
                },
            },
        }),
        "kubectl-create",
    );
    assert_eq!(
        object["metadata"]["managedFields"],
        json!([{
            "manager": "kubectl-create", "operation": "Update", "apiVersion": "apps/v1", "time": NOW, "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                "f:spec": {
                    "f:replicas": {}, "f:selector": {},
                    "f:strategy": {"f:type": {}, "f:rollingUpdate": {".": {}, "f:maxSurge": {}}},
                    "f:template": {
                        "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
                        "f:spec": {
                            "f:dnsPolicy": {},
                            "f:containers": {"k:{\"name\":\"c\"}": {
                                ".": {}, "f:name": {}, "f:image": {}, "f:resources": {},
                                "f:ports": {".": {}, "k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}},
                            }},
                        },
                    },
                },
            },
        }])
    );
}

#[test]
fn updates_move_ownership() {
    let live = created(deployment(json!({"replicas": 1, "paused": true})), "a");
    let mut new = live.clone();
    new["spec"]["replicas"] = json!(2);
    update(Some(&live), &mut new, &Write { now: LATER, ..write("b") });
    assert_eq!(fields_of(&new, "a").unwrap(), &json!({"f:spec": {"f:paused": {}}}));
    assert_eq!(fields_of(&new, "b").unwrap(), &json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(new["metadata"]["managedFields"][1]["time"], LATER);
    assert_eq!(new["metadata"]["managedFields"][0]["time"], NOW);

    // Without a change nothing is noted.
    let mut same = new.clone();
    update(Some(&new), &mut same, &Write { now: "2027-01-01T00:00:00Z", ..write("c") });
    assert_eq!(same, new);

    // A field that goes away belongs to nobody; who has nothing left is gone.
    let mut less = new.clone();
    less["spec"].as_object_mut().unwrap().remove("replicas");
    update(Some(&new), &mut less, &write("c"));
    assert!(fields_of(&less, "b").is_none() && fields_of(&less, "c").is_none());

    // The status endpoint is a manager of its own.
    let mut status = new.clone();
    status["status"] = json!({"replicas": 1});
    update(Some(&new), &mut status, &Write { subresource: "status", ..write("b") });
    assert_eq!(entries::of(Some(&status)).len(), 3);
    let entry = entries::of(Some(&status)).iter().find(|e| e["subresource"] == "status").unwrap();
    assert_eq!(entry["fieldsV1"], json!({"f:status": {"f:replicas": {}}}));
}

#[test]
fn what_clients_send_as_managed_fields() {
    let live = created(deployment(json!({"replicas": 1})), "a");
    // A client that does not know of them.
    let mut new = live.clone();
    new["metadata"].as_object_mut().unwrap().remove("managedFields");
    update(Some(&live), &mut new, &write("b"));
    assert_eq!(new, live);
    // An empty list resets, and an object without is not tracked any more.
    for reset in [json!([]), json!([{}])] {
        let mut new = live.clone();
        new["metadata"]["managedFields"] = reset.clone();
        new["spec"]["replicas"] = json!(3);
        update(Some(&live), &mut new, &write("b"));
        assert!(new["metadata"].get("managedFields").is_none());
        let mut next = new.clone();
        next["spec"]["replicas"] = json!(4);
        update(Some(&new), &mut next, &write("b"));
        assert!(next["metadata"].get("managedFields").is_none());
        // Not so through a subresource.
        let mut status = live.clone();
        status["metadata"]["managedFields"] = reset;
        update(Some(&live), &mut status, &Write { subresource: "status", ..write("b") });
        assert_eq!(status, live);
    }
    // Nonsense is ignored.
    let mut new = live.clone();
    new["metadata"]["managedFields"] = json!([{"operation": "X"}]);
    update(Some(&live), &mut new, &write("b"));
    assert_eq!(new, live);
}

#[test]
fn reset_fields_are_given_to_nobody() {
    let reset = Set::of_fields(&[&["status"]]);
    let live = created(deployment(json!({"replicas": 1})), "a");
    let mut new = live.clone();
    new["status"] = json!({"replicas": 1});
    update(Some(&live), &mut new, &Write { reset_fields: Some(&reset), ..write("b") });
    assert!(fields_of(&new, "b").is_none());
    let mut config = deployment(json!({"paused": true}));
    config["status"] = json!({"replicas": 1});
    let applied = apply(Some(&live), &config, false, &Write { reset_fields: Some(&reset), ..write("c") }).unwrap();
    assert_eq!(fields_of(&applied, "c").unwrap(), &json!({"f:spec": {"f:paused": {}}}));
}

#[test]
fn applying_creates_changes_and_prunes() {
    let config = deployment(json!({"replicas": 1, "template": {"spec": {"containers": [
        {"name": "a", "image": "x", "env": [{"name": "E", "value": "1"}]}, {"name": "b", "image": "y"},
    ]}}}));
    let live = apply(None, &config, false, &write("k")).unwrap();
    assert_eq!(live["spec"], config["spec"]);
    assert_eq!(
        live["metadata"]["managedFields"],
        json!([{
            "manager": "k", "operation": "Apply", "apiVersion": "apps/v1", "time": NOW, "fieldsType": "FieldsV1",
            "fieldsV1": {"f:spec": {"f:replicas": {}, "f:template": {"f:spec": {"f:containers": {
                "k:{\"name\":\"a\"}": {".": {}, "f:name": {}, "f:image": {}, "f:env": {"k:{\"name\":\"E\"}": {".": {}, "f:name": {}, "f:value": {}}}},
                "k:{\"name\":\"b\"}": {".": {}, "f:name": {}, "f:image": {}},
            }}}}},
        }])
    );
    // Again, later: nothing changes, not even the time.
    let again = apply(Some(&live), &config, false, &Write { now: LATER, ..write("k") }).unwrap();
    assert_eq!(again, live);

    // What is not applied any more goes, but not what defaulting added beside it.
    let mut defaulted = live.clone();
    defaulted["spec"]["template"]["spec"]["containers"][0]["imagePullPolicy"] = json!("Always");
    let config = deployment(json!({"template": {"spec": {"containers": [{"name": "a", "image": "x"}]}}}));
    let less = apply(Some(&defaulted), &config, false, &Write { now: LATER, ..write("k") }).unwrap();
    assert_eq!(
        less["spec"],
        json!({"template": {"spec": {"containers": [{"name": "a", "image": "x", "imagePullPolicy": "Always"}]}}})
    );
    assert_eq!(less["metadata"]["managedFields"][0]["time"], LATER);
}

#[test]
fn what_others_own_stays_and_conflicts() {
    let live = created(deployment(json!({"replicas": 1, "minReadySeconds": 5})), "kubectl-client-side-apply");
    let config = deployment(json!({"replicas": 3}));
    let error = apply(Some(&live), &config, false, &write("me")).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"Apply failed with 1 conflict: conflict with "kubectl-client-side-apply" using apps/v1: .spec.replicas"#
    );
    let ApplyError::Conflicts(conflicts) = error else { panic!("conflicts") };
    assert_eq!(conflicts[0].message(), r#"conflict with "kubectl-client-side-apply" using apps/v1"#);
    assert_eq!(conflicts[0].path.to_string(), ".spec.replicas");

    let two = deployment(json!({"replicas": 3, "minReadySeconds": 6}));
    assert_eq!(
        apply(Some(&live), &two, false, &write("me")).unwrap_err().to_string(),
        "Apply failed with 2 conflicts: conflicts with \"kubectl-client-side-apply\" using apps/v1:\n- .spec.minReadySeconds\n- .spec.replicas"
    );

    let forced = apply(Some(&live), &config, true, &write("me")).unwrap();
    assert_eq!(forced["spec"]["replicas"], 3);
    assert_eq!(fields_of(&forced, "me").unwrap(), &json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(fields_of(&forced, "kubectl-client-side-apply").unwrap(), &json!({"f:spec": {"f:minReadySeconds": {}}}));

    // The same value is shared; then each may leave it, and it goes with the last.
    let shared = apply(Some(&forced), &config, false, &write("you")).unwrap();
    let bare = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}});
    let left = apply(Some(&shared), &bare, false, &write("me")).unwrap();
    assert_eq!(left["spec"]["replicas"], 3);
    assert!(fields_of(&left, "me").is_none());
    let gone = apply(Some(&left), &bare, false, &write("you")).unwrap();
    assert!(gone["spec"].get("replicas").is_none());
    assert_eq!(gone["spec"]["minReadySeconds"], 5);
}

#[test]
fn list_elements_have_owners_of_their_own() {
    let containers = |c: Value| deployment(json!({"template": {"spec": {"containers": c}}}));
    let live = apply(None, &containers(json!([{"name": "a", "image": "x"}])), false, &write("one")).unwrap();
    let live = apply(Some(&live), &containers(json!([{"name": "b", "image": "y"}])), false, &write("two")).unwrap();
    let names = |o: &Value| -> Vec<String> {
        let list = o["spec"]["template"]["spec"]["containers"].as_array().unwrap();
        list.iter().map(|c| c["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&live), ["a", "b"]);
    let live = apply(Some(&live), &containers(json!([])), false, &write("one")).unwrap();
    assert_eq!(names(&live), ["b"]);
    // The configuration's order goes before the object's.
    let live =
        apply(None, &containers(json!([{"name": "a"}, {"name": "b"}, {"name": "c"}])), false, &write("one")).unwrap();
    let live =
        apply(Some(&live), &containers(json!([{"name": "c"}, {"name": "x"}, {"name": "a"}])), false, &write("two"))
            .unwrap();
    assert_eq!(names(&live), ["b", "c", "x", "a"]);
}

#[test]
fn keys_may_be_defaulted_and_atomics_are_one() {
    let ports = |p: Value| deployment(json!({"template": {"spec": {"containers": [{"name": "a", "ports": p}]}}}));
    let live = apply(None, &ports(json!([{"containerPort": 80}])), false, &write("one")).unwrap();
    let live = apply(
        Some(&live),
        &ports(json!([{"containerPort": 80, "protocol": "TCP", "name": "http"}])),
        false,
        &write("two"),
    )
    .unwrap();
    assert_eq!(
        live["spec"]["template"]["spec"]["containers"][0]["ports"],
        json!([{"containerPort": 80, "protocol": "TCP", "name": "http"}])
    );
    let selector = |s: Value| deployment(json!({"selector": {"matchLabels": s}}));
    let live = apply(None, &selector(json!({"a": "b"})), false, &write("one")).unwrap();
    let error = apply(Some(&live), &selector(json!({"c": "d"})), false, &write("two")).unwrap_err();
    assert_eq!(error.to_string(), r#"Apply failed with 1 conflict: conflict with "one": .spec.selector"#);
    let forced = apply(Some(&live), &selector(json!({"c": "d"})), true, &write("two")).unwrap();
    assert_eq!(forced["spec"]["selector"], json!({"matchLabels": {"c": "d"}}));
    assert!(fields_of(&forced, "one").is_none());
}

#[test]
fn objects_from_before_are_owned_by_before_first_apply() {
    let mut live = deployment(json!({"replicas": 1}));
    live["metadata"]["uid"] = json!("u");
    let error = apply(Some(&live), &deployment(json!({"replicas": 2})), false, &write("me")).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"Apply failed with 1 conflict: conflict with "before-first-apply" using apps/v1: .spec.replicas"#
    );
    let applied = apply(Some(&live), &deployment(json!({"replicas": 1, "paused": true})), false, &write("me")).unwrap();
    assert_eq!(fields_of(&applied, "before-first-apply").unwrap(), &json!({"f:spec": {"f:replicas": {}}}));
}

#[test]
fn kubectl_takes_over_from_client_side_apply() {
    let config = deployment(json!({"replicas": 1, "minReadySeconds": 1}));
    let mut object = config.clone();
    object["metadata"]["annotations"] = json!({LAST_APPLIED_ANNOTATION: config.to_string()});
    let live = created(object, "kubectl-client-side-apply");
    let changed = deployment(json!({"replicas": 2}));
    let applied = apply(Some(&live), &changed, false, &write("kubectl")).unwrap();
    assert_eq!(applied["spec"]["replicas"], 2);
    let annotation = applied["metadata"]["annotations"][LAST_APPLIED_ANNOTATION].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(annotation).unwrap(), changed);
    assert!(annotation.ends_with('\n'));
    // Not for others, and not for what was changed since.
    assert!(apply(Some(&live), &changed, false, &write("me")).is_err());
    let mut scaled = live.clone();
    scaled["spec"]["replicas"] = json!(5);
    update(Some(&live), &mut scaled, &write("scaler"));
    assert!(apply(Some(&scaled), &changed, false, &write("kubectl")).is_err());
}

#[test]
fn configurations_that_are_refused() {
    let refused = |config: Value| apply(None, &config, false, &write("me")).unwrap_err().to_string();
    let prefix = "failed to create typed patch object (n/d; apps/v1, Kind=Deployment): ";
    assert_eq!(refused(deployment(json!({"foo": 1}))), format!("{prefix}.spec.foo: field not declared in schema"));
    assert_eq!(
        refused(deployment(json!({"replicas": "1"}))),
        format!("{prefix}.spec.replicas: expected numeric (int or float), got string")
    );
    assert_eq!(
        refused(deployment(json!({"template": {"spec": {"containers": [{"name": "a"}, {"name": "a"}]}}}))),
        format!("{prefix}.spec.template.spec.containers: duplicate entries for key [name=\"a\"]")
    );
    let odd = deployment(json!({"template": {"spec": {"topologySpreadConstraints": [1]}}}));
    assert_eq!(
        refused(odd),
        format!(
            "{prefix}.spec.template.spec.topologySpreadConstraints: element 0: associative list with keys may not have non-map elements"
        )
    );
    let mut config = deployment(json!({}));
    config["metadata"]["managedFields"] = json!([]);
    assert_eq!(refused(config), "metadata.managedFields must be nil");
    let mut config = deployment(json!({}));
    config["apiVersion"] = json!("apps/v1beta1");
    assert_eq!(
        refused(config),
        "Incorrect version specified in apply patch. Specified patch version: apps/v1beta1, expected: apps/v1"
    );
}

#[test]
fn sets_and_maps_merge() {
    let meta = |m: Value| json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": m});
    let live =
        apply(None, &meta(json!({"name": "d", "labels": {"a": "1"}, "finalizers": ["x/y"]})), false, &write("one"))
            .unwrap();
    let live = apply(
        Some(&live),
        &meta(json!({"name": "d", "labels": {"b": "2"}, "finalizers": ["z/w"]})),
        false,
        &write("two"),
    )
    .unwrap();
    assert_eq!(live["metadata"]["labels"], json!({"a": "1", "b": "2"}));
    assert_eq!(live["metadata"]["finalizers"], json!(["x/y", "z/w"]));
    assert_eq!(
        fields_of(&live, "two").unwrap(),
        &json!({"f:metadata": {"f:labels": {"f:b": {}}, "f:finalizers": {"v:\"z/w\"": {}}}})
    );
    let live = apply(Some(&live), &meta(json!({"name": "d"})), false, &write("one")).unwrap();
    assert_eq!(live["metadata"]["labels"], json!({"b": "2"}));
    assert_eq!(live["metadata"]["finalizers"], json!(["z/w"]));
}

#[test]
fn times_alone_are_no_change() {
    let live = created(deployment(json!({"replicas": 1})), "a");
    let mut new = live.clone();
    new["metadata"]["managedFields"][0]["time"] = json!(LATER);
    assert!(keep_times_if_unchanged(&live, &mut new));
    assert_eq!(new, live);
    new["metadata"]["managedFields"][0]["time"] = json!(LATER);
    new["spec"]["replicas"] = json!(2);
    assert!(!keep_times_if_unchanged(&live, &mut new));
    assert_eq!(new["metadata"]["managedFields"][0]["time"], LATER);
}

#[test]
fn long_lists_take_no_square_of_time() {
    let config = |from: usize| {
        let env: Value = (from..from + 10_000).map(|i| json!({"name": format!("E{i}"), "value": "x"})).collect();
        deployment(json!({"template": {"spec": {"containers": [{"name": "c", "env": env}]}}}))
    };
    let live = apply(None, &config(0), false, &write("one")).unwrap();
    let applied = apply(Some(&live), &config(5_000), false, &write("one")).unwrap();
    assert_eq!(applied["spec"], config(5_000)["spec"]);
}

fn specs() -> impl Strategy<Value = Value> {
    let container = ("[a-c]", prop::option::of("[x-z]"), prop::option::of(prop::collection::vec("[0-9]", 0..3)));
    let containers = prop::collection::vec(container, 0..4).prop_map(|containers| {
        let mut seen: Vec<String> = Vec::new();
        let mut list = Vec::new();
        for (name, image, args) in containers {
            if !seen.contains(&name) {
                let mut c = json!({"name": name});
                if let Some(image) = image {
                    c["image"] = json!(image);
                }
                if let Some(args) = args {
                    c["args"] = json!(args);
                }
                seen.push(name);
                list.push(c);
            }
        }
        list
    });
    (prop::option::of(0..3), containers, prop::option::of("[a-b]")).prop_map(|(replicas, containers, label)| {
        let mut spec = json!({});
        if !containers.is_empty() {
            spec["template"] = json!({"spec": {"containers": containers}});
        }
        if let Some(replicas) = replicas {
            spec["replicas"] = json!(replicas);
        }
        if let Some(label) = label {
            spec["template"]["metadata"] = json!({"labels": {label: "1"}});
        }
        spec
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn applying_twice_is_applying_once(first in specs(), second in specs(), other in specs()) {
        let live = apply(None, &deployment(first), false, &write("one")).unwrap();
        let live = apply(Some(&live), &deployment(other), true, &write("two")).unwrap();
        let config = deployment(second);
        let once = apply(Some(&live), &config, true, &write("one")).unwrap();
        let twice = apply(Some(&once), &config, true, &Write { now: LATER, ..write("one") }).unwrap();
        prop_assert_eq!(&once, &twice);
        // What was applied is there.
        let ty = write("one").ty;
        prop_assert_eq!(&merge(&once, &config, ty), &once);
    }

    #[test]
    fn comparisons_mirror(a in specs(), b in specs()) {
        let ty = write("x").ty;
        let (a, b) = (deployment(a), deployment(b));
        let (there, back) = (compare(&a, &b, ty), compare(&b, &a, ty));
        prop_assert_eq!(&there.added, &back.removed);
        prop_assert_eq!(&there.removed, &back.added);
        prop_assert_eq!(&there.modified, &back.modified);
        prop_assert!(compare(&a, &a, ty).is_empty());
    }

    #[test]
    fn sole_appliers_get_what_they_apply(a in specs(), b in specs()) {
        let live = apply(None, &deployment(a), false, &write("one")).unwrap();
        let b = deployment(b);
        let applied = apply(Some(&live), &b, false, &write("one")).unwrap();
        let ty = write("one").ty;
        prop_assert!(compare(&b, &applied, ty).is_empty(), "{} {}", b, applied);
    }
}
