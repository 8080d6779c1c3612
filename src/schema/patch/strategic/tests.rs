use serde_json::json;

use super::*;
use crate::types::Types;

fn merged(spec: &Value, patch: &Value) -> Result<Value, String> {
    let ty = Types::builtin().named("io.k8s.api.core.v1.PodSpec").unwrap();
    let mut value = spec.clone();
    strategic_merge(&mut value, patch.clone(), ty).map_err(|e| e.to_string())?;
    Ok(value)
}

fn check(spec: &Value, patch: &Value, expected: &Value) {
    assert_eq!(merged(spec, patch).as_ref(), Ok(expected), "{patch}");
}

#[test]
fn lists_merge_by_key() {
    let spec = json!({"containers": [{"name": "a", "image": "x", "args": ["1"]}, {"name": "b", "image": "y"}]});
    check(
        &spec,
        &json!({"containers": [{"name": "b", "image": "z"}, {"name": "c", "image": "w", "env": null}]}),
        &json!({"containers": [
            {"name": "a", "image": "x", "args": ["1"]}, {"name": "b", "image": "z"}, {"name": "c", "image": "w"},
        ]}),
    );
    // Lists without a strategy are replaced.
    check(
        &spec,
        &json!({"containers": [{"name": "a", "args": ["2", "3"]}]}),
        &json!({"containers": [{"name": "a", "image": "x", "args": ["2", "3"]}, {"name": "b", "image": "y"}]}),
    );
    // null removes, also inside elements.
    check(
        &spec,
        &json!({"containers": [{"name": "a", "args": null}], "hostname": null}),
        &json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]}),
    );
    // What is new takes no nulls along.
    check(
        &json!({}),
        &json!({"securityContext": {"runAsUser": 1, "runAsGroup": null}}),
        &json!({"securityContext": {"runAsUser": 1}}),
    );
}

#[test]
fn directives_on_elements() {
    let spec = json!({"containers": [{"name": "a", "image": "x"}, {"name": "b", "image": "y"}]});
    check(
        &spec,
        &json!({"containers": [{"name": "a", "$patch": "delete"}]}),
        &json!({"containers": [{"name": "b", "image": "y"}]}),
    );
    check(
        &spec,
        &json!({"containers": [{"name": "c"}, {"$patch": "replace"}]}),
        &json!({"containers": [{"name": "c"}]}),
    );
    assert_eq!(
        merged(&spec, &json!({"containers": [{"name": "c", "$patch": "merge"}]})).unwrap_err(),
        "merging lists cannot yet be specified in the patch"
    );
    assert_eq!(
        merged(&spec, &json!({"containers": [{"name": "c", "$patch": "bogus"}]})).unwrap_err(),
        "unknown patch type: bogus in map: map[$patch:bogus name:c]"
    );
    assert_eq!(
        merged(&spec, &json!({"containers": [{"image": "c"}]})).unwrap_err(),
        "map: map[image:c] does not contain declared merge key: name"
    );
    check(
        &json!({}),
        &json!({"containers": [{"name": "a", "$patch": "delete"}, {"name": "b"}]}),
        &json!({"containers": [{"name": "b"}]}),
    );
}

#[test]
fn directives_on_maps() {
    let spec = json!({"securityContext": {"runAsUser": 1, "fsGroup": 2}, "nodeSelector": {"a": "b"}});
    check(
        &spec,
        &json!({"securityContext": {"$patch": "replace", "runAsGroup": 3}}),
        &json!({"securityContext": {"runAsGroup": 3}, "nodeSelector": {"a": "b"}}),
    );
    check(
        &spec,
        &json!({"securityContext": {"$patch": "delete"}, "nodeSelector": {"c": "d"}}),
        &json!({"securityContext": {}, "nodeSelector": {"a": "b", "c": "d"}}),
    );
}

#[test]
fn retain_keys_clears_the_others() {
    let spec = json!({"volumes": [{"name": "v", "emptyDir": {}}]});
    check(
        &spec,
        &json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}, "$retainKeys": ["name", "hostPath"]}]}),
        &json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}),
    );
    assert_eq!(
        merged(&spec, &json!({"volumes": [{"name": "v", "hostPath": {}, "$retainKeys": ["name"]}]})).unwrap_err(),
        "invalid patch format of retainKeys"
    );
    let ty = Types::builtin().named("io.k8s.api.apps.v1.DeploymentSpec").unwrap();
    let mut deployment = json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}});
    let patch = json!({"strategy": {"$retainKeys": ["type"], "type": "Recreate"}});
    strategic_merge(&mut deployment, patch, ty).unwrap();
    assert_eq!(deployment, json!({"strategy": {"type": "Recreate"}}));
}

#[test]
fn primitive_lists_merge_and_lose_elements() {
    let ty = Types::builtin().named("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").unwrap();
    let run = |list: Value, patch: Value| {
        let mut value = json!({"finalizers": list});
        strategic_merge(&mut value, patch, ty).unwrap();
        value["finalizers"].clone()
    };
    assert_eq!(run(json!(["a", "b"]), json!({"finalizers": ["c", "a"]})), json!(["c", "a", "b"]));
    assert_eq!(run(json!(["a", "b", "c"]), json!({"$deleteFromPrimitiveList/finalizers": ["b"]})), json!(["a", "c"]));
    assert_eq!(
        run(
            json!(["a", "b"]),
            json!({"$setElementOrder/finalizers": ["c", "a"], "finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["b"]})
        ),
        json!(["c", "a"])
    );
}

#[test]
fn element_order_is_kept() {
    let spec = json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "s"}]});
    check(
        &spec,
        &json!({"$setElementOrder/containers": [{"name": "b"}, {"name": "n"}, {"name": "a"}], "containers": [{"name": "n", "image": "i"}]}),
        &json!({"containers": [{"name": "b"}, {"name": "n", "image": "i"}, {"name": "a"}, {"name": "s"}]}),
    );
    check(
        &spec,
        &json!({"$setElementOrder/containers": [{"name": "s"}, {"name": "a"}]}),
        &json!({"containers": [{"name": "b"}, {"name": "s"}, {"name": "a"}]}),
    );
    let error = merged(&spec, &json!({"$setElementOrder/containers": [{"name": "a"}], "containers": [{"name": "n"}]}));
    assert!(error.unwrap_err().starts_with("The order in patch list:"));
}

#[test]
fn deleting_makes_room_for_what_is_new() {
    let spec = json!({"containers": [{"name": "a"}, {"name": "b"}, {"name": "d"}]});
    check(
        &spec,
        &json!({
            "$setElementOrder/containers": [{"name": "b"}, {"name": "c"}],
            "containers": [{"name": "c"}, {"name": "a", "$patch": "delete"}],
        }),
        &json!({"containers": [{"name": "b"}, {"name": "d"}, {"name": "c"}]}),
    );
}

#[test]
fn strange_patches_are_refused_or_harmless() {
    let spec = json!({"containers": [{"name": "a"}], "hostname": "h", "tolerations": [{"key": "k"}]});
    assert!(merged(&spec, &json!({"containers": ["a"]})).unwrap_err().starts_with("list element types"));
    assert!(merged(&spec, &json!([])).is_err());
    check(
        &spec,
        &json!({"hostname": {"x": 1}}),
        &json!({"containers": [{"name": "a"}], "hostname": {"x": 1}, "tolerations": [{"key": "k"}]}),
    );
    check(
        &spec,
        &json!({"tolerations": []}),
        &json!({"containers": [{"name": "a"}], "hostname": "h", "tolerations": []}),
    );
    let mut odd = spec.clone();
    odd["odd"] = json!({"a": 1});
    assert_eq!(
        merged(&odd, &json!({"odd": {"b": 1}})).unwrap_err(),
        "unable to find api field in struct PodSpec for the json field \"odd\""
    );
}

#[test]
fn long_lists_take_no_square_of_time() {
    let containers =
        |n: usize, image: &str| -> Value { (0..n).map(|i| json!({"name": format!("c{i}"), "image": image})).collect() };
    let n = 20_000;
    let patch = json!({"containers": containers(n, "new"), "$setElementOrder/containers": containers(n, "new")});
    let merged = merged(&json!({"containers": containers(n, "old")}), &patch).unwrap();
    assert_eq!(merged["containers"], containers(n, "new"));
}

#[test]
fn identities_tell_strings_from_numbers() {
    assert_eq!(identity(&json!("a"), None).unwrap(), "a");
    assert_ne!(identity(&json!("1"), None), identity(&json!(1), None));
    assert_ne!(identity(&json!("true"), None), identity(&json!(true), None));
    assert_ne!(identity(&json!("null"), None), identity(&json!(null), None));
    assert_eq!(identity(&json!({"name": 1}), Some("name")).unwrap(), "1");
    assert_eq!(identity(&json!({}), Some("name")), None);
}
