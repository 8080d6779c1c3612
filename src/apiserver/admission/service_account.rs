//! ServiceAccount: every Pod runs as one, and gets a token that lives as long as the Pod.

use api::{Failure, Fields};
use serde_json::{Value, json};

use super::objects::Objects;
use super::service_account_secrets::{Allowed, ENFORCE, names_any};
use super::{Attributes, Operation, Plugin};
use crate::cache::Cache;

const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const VOLUME_PREFIX: &str = "kube-api-access-";
const SUFFIX_CHARS: usize = 5;
/// The kubelet asks for a new token long before this (upstream: an hour and seven seconds tell the volume apart).
const TOKEN_SECONDS: i64 = 3607;
const MIRROR: &str = "kubernetes.io/config.mirror";

pub struct ServiceAccount {
    accounts: Objects<Account>,
}

/// What of an account its Pods get.
struct Account {
    automount: Option<bool>,
    pull_secrets: Vec<Value>,
    /// Names of the Secrets that its Pods may have, where it asks for that.
    allowed: Option<[Vec<String>; 2]>,
}

impl ServiceAccount {
    pub fn new(cache: &Cache) -> ServiceAccount {
        ServiceAccount { accounts: Objects::new(cache, "/registry/serviceaccounts/", read) }
    }

    fn account(&self, attributes: &Attributes<'_>, name: &str) -> Result<std::sync::Arc<Account>, Failure> {
        let path = format!("{}/{name}", attributes.namespace);
        self.accounts.get(&path).ok_or_else(|| {
            attributes.refuse(format!("error looking up service account {path}: serviceaccount \"{name}\" not found"))
        })
    }
}

fn read(account: &Value) -> Account {
    let names = |field| -> Vec<String> {
        account.list(field).iter().map(|reference| reference.text("name").to_owned()).collect()
    };
    let enforce = account.part("metadata").part("annotations").text(ENFORCE);
    let enforces = matches!(enforce, "1" | "t" | "T" | "TRUE" | "true" | "True");
    Account {
        automount: account.at("automountServiceAccountToken").and_then(Value::as_bool),
        pull_secrets: account.list("imagePullSecrets").to_vec(),
        allowed: enforces.then(|| [names("secrets"), names("imagePullSecrets")]),
    }
}

impl Plugin for ServiceAccount {
    fn mutate(
        &self,
        _cache: &Cache,
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
        let account = self.account(attributes, &name)?;
        let own = spec.at("automountServiceAccountToken").and_then(Value::as_bool);
        let wants_token = own.or(account.automount).unwrap_or(true);
        if wants_token {
            mount_token(spec);
        }
        if spec.list("imagePullSecrets").is_empty() && !account.pull_secrets.is_empty() {
            spec.set("imagePullSecrets", account.pull_secrets.clone());
        }
        Ok(())
    }

    fn validate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        let resource = &attributes.row.resource;
        let added = match (attributes.operation, attributes.subresource) {
            (Operation::Create, None) => false,
            (Operation::Update, Some("ephemeralcontainers")) => true,
            _ => return Ok(()),
        };
        let (Some(pod), "", "pods") = (object, resource.group.as_ref(), resource.plural.as_ref()) else {
            return Ok(());
        };
        if !added && pod.part("metadata").map("annotations").is_some_and(|all| all.contains_key(MIRROR)) {
            return check_mirror(attributes, pod);
        }
        let name = pod.part("spec").text("serviceAccountName");
        if name.is_empty() {
            let (namespace, pod) = (attributes.namespace, pod.part("metadata").text("name"));
            return Err(attributes.refuse(format!("no service account specified for pod {namespace}/{pod}")));
        }
        let account = self.account(attributes, name)?;
        let Some([secrets, pull_secrets]) = &account.allowed else { return Ok(()) };
        let allowed = Allowed { account: name, secrets, pull_secrets };
        let checked = if added {
            allowed.check_containers("ephemeral container", pod.part("spec").list("ephemeralContainers"))
        } else {
            allowed.check(pod)
        };
        checked.map_err(|why| attributes.refuse(why))
    }
}

/// Mirror pods show what a node runs anyway; they get no identity.
fn check_mirror(attributes: &Attributes<'_>, object: &Value) -> Result<(), Failure> {
    let spec = object.part("spec");
    if !spec.text("serviceAccountName").is_empty() {
        return Err(attributes.refuse("a mirror pod may not reference service accounts"));
    }
    if names_any(object) {
        return Err(attributes.refuse("a mirror pod may not reference secrets"));
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
