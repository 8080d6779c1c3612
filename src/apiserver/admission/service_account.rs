//! ServiceAccount: every Pod runs as one, and gets a token that lives as long as the Pod.

use api::{Failure, Fields};
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin, look_up};
use crate::cache::Cache;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const SUFFIX_CHARS: usize = 5;
/// The kubelet asks for a new token long before this (upstream: an hour and seven seconds tell the volume apart).
const TOKEN_SECONDS: i64 = 3607;
const MIRROR: &str = "kubernetes.io/config.mirror";

pub struct ServiceAccount;

impl Plugin for ServiceAccount {
    fn mutate(
        &self,
        cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        if !attributes.is("", "pods") || attributes.operation != Operation::Create {
            return Ok(());
        }
        if object.part("metadata").map("annotations").is_some_and(|all| all.contains_key(MIRROR)) {
            return check_mirror(attributes, object);
        }
        let Some(spec) = object.object("spec") else { return Ok(()) };
        if spec.text("serviceAccountName").is_empty() {
            spec.set("serviceAccountName", "default");
        }
        let name = spec.text("serviceAccountName").to_owned();
        spec.set("serviceAccount", name.as_str());
        let path = format!("{}/{name}", attributes.namespace);
        let account = look_up(cache, "/registry/serviceaccounts/", &path).ok_or_else(|| {
            attributes.refuse(format!("error looking up service account {path}: serviceaccount \"{name}\" not found"))
        })?;
        let wants_token = spec
            .at("automountServiceAccountToken")
            .or_else(|| account.at("automountServiceAccountToken"))
            .and_then(Value::as_bool)
            .unwrap_or(true);
        if wants_token {
            mount_token(spec);
        }
        if spec.list("imagePullSecrets").is_empty() && !account.list("imagePullSecrets").is_empty() {
            spec.set("imagePullSecrets", account.list("imagePullSecrets").to_vec());
        }
        Ok(())
    }
}

/// Mirror pods show what a node runs anyway; they get no identity.
fn check_mirror(attributes: &Attributes<'_>, object: &Value) -> Result<(), Failure> {
    let spec = object.part("spec");
    if !spec.text("serviceAccountName").is_empty() {
        return Err(attributes.refuse("a mirror pod may not reference service accounts"));
    }
    let token = spec
        .list("volumes")
        .iter()
        .any(|volume| volume.part("projected").list("sources").iter().any(|source| source.has("serviceAccountToken")));
    if token {
        Err(attributes.refuse("a mirror pod may not use ServiceAccountToken volume projections"))
    } else {
        Ok(())
    }
}

fn mount_token(spec: &mut Value) {
    let existing = spec.list("volumes").iter().find(|volume| volume.text("name").starts_with(VOLUME_PREFIX));
    let known = existing.map(|volume| volume.text("name").to_owned());
    let name = known
        .clone()
        .unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", api::names::suffix(SUFFIX_CHARS, &mut rand::rng())));
    let mut mounted = false;
    for field in ["initContainers", "containers"] {
        for container in spec.list_mut(field) {
            let mut mounts = container.list("volumeMounts").to_vec();
            if mounts.iter().any(|mount| mount.text("mountPath") == MOUNT_PATH) {
                continue;
            }
            mounts.push(json!({"name": name, "readOnly": true, "mountPath": MOUNT_PATH}));
            container.set("volumeMounts", mounts);
            mounted = true;
        }
    }
    if !mounted || known.is_some() {
        return;
    }
    let mut volumes = spec.list("volumes").to_vec();
    volumes.push(json!({"name": name, "projected": {"defaultMode": 0o644, "sources": [
        {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
        {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
        {"downwardAPI": {"items": [{
            "path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
        }]}},
    ]}}));
    spec.set("volumes", volumes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_that_mount_their_own_token_keep_it() {
        let mut spec = json!({"containers": [
            {"name": "a"},
            {"name": "b", "volumeMounts": [{"name": "own", "mountPath": MOUNT_PATH}]},
        ]});
        mount_token(&mut spec);
        let name = spec["volumes"][0]["name"].as_str().unwrap().to_owned();
        assert!(name.starts_with("kube-api-access-") && name.len() == 21, "{name}");
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], json!(name));
        assert_eq!(spec["containers"][1]["volumeMounts"].as_array().unwrap().len(), 1);
        let once = spec.clone();
        mount_token(&mut spec);
        assert_eq!(spec, once, "a second time changes nothing");
    }
}
