//! What of ServiceAccount is about Secrets: which Secrets a Pod names, and those that its account lets it name where the
//! account asks for that.

use api::Fields;
use serde_json::Value;

/// An account that only lets its Pods have Secrets that it lists.
pub const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

/// What an account lets its Pods have.
pub struct Allowed<'a> {
    pub account: &'a str,
    pub secrets: &'a [String],
    pub pull_secrets: &'a [String],
}

impl Allowed<'_> {
    /// The first Secret of a new Pod that is not allowed, in upstream's words.
    pub fn check(&self, pod: &Value) -> Result<(), String> {
        let account = self.account;
        let spec = pod.part("spec");
        for volume in spec.list("volumes") {
            let Some(secret) = volume.at("secret").map(|secret| secret.text("secretName")) else { continue };
            if !self.has(secret) {
                return Err(format!(
                    "volume with secret.secretName=\"{secret}\" is not allowed because service account {account} does \
                     not reference that secret"
                ));
            }
        }
        self.check_containers("init container", spec.list("initContainers"))?;
        self.check_containers("container", spec.list("containers"))?;
        for (index, reference) in spec.list("imagePullSecrets").iter().enumerate() {
            let name = reference.text("name");
            if !self.pull_secrets.iter().any(|one| one == name) {
                return Err(format!(
                    "imagePullSecrets[{index}].name=\"{name}\" is not allowed because service account {account} does \
                     not reference that imagePullSecret"
                ));
            }
        }
        Ok(())
    }

    /// The same for containers alone; `word` is what they are called.
    pub fn check_containers(&self, word: &str, containers: &[Value]) -> Result<(), String> {
        let account = self.account;
        for container in containers {
            let name = container.text("name");
            for env in container.list("env") {
                let Some(secret) = env.part("valueFrom").at("secretKeyRef").map(|one| one.text("name")) else {
                    continue;
                };
                if !self.has(secret) {
                    return Err(format!(
                        "{word} {name} with envVar {} referencing secret.secretName=\"{secret}\" is not allowed because \
                         service account {account} does not reference that secret",
                        env.text("name")
                    ));
                }
            }
            for source in container.list("envFrom") {
                let Some(secret) = source.at("secretRef").map(|one| one.text("name")) else { continue };
                if !self.has(secret) {
                    return Err(format!(
                        "{word} {name} with envFrom referencing secret.secretName=\"{secret}\" is not allowed because \
                         service account {account} does not reference that secret"
                    ));
                }
            }
        }
        Ok(())
    }

    fn has(&self, secret: &str) -> bool {
        self.secrets.iter().any(|one| one == secret)
    }
}

/// The Pod names some Secret: to pull its images, as a volume, or in its environment.
pub fn names_any(pod: &Value) -> bool {
    let spec = pod.part("spec");
    let in_environment = |container: &Value| {
        container.list("env").iter().any(|env| env.part("valueFrom").has("secretKeyRef"))
            || container.list("envFrom").iter().any(|source| source.has("secretRef"))
    };
    let containers = ["initContainers", "containers", "ephemeralContainers"];
    !spec.list("imagePullSecrets").is_empty()
        || containers.iter().any(|field| spec.list(field).iter().any(in_environment))
        || spec.list("volumes").iter().any(in_volume)
}

fn in_volume(volume: &Value) -> bool {
    const WITH_REFERENCE: [(&str, &str); 8] = [
        ("azureFile", "secretName"),
        ("cephfs", "secretRef"),
        ("cinder", "secretRef"),
        ("flexVolume", "secretRef"),
        ("rbd", "secretRef"),
        ("scaleIO", "secretRef"),
        ("iscsi", "secretRef"),
        ("storageos", "secretRef"),
    ];
    volume.has("secret")
        || volume.part("csi").has("nodePublishSecretRef")
        || WITH_REFERENCE.iter().any(|(kind, field)| volume.part(kind).has(field))
        || volume.part("projected").list("sources").iter().any(|source| source.has("secret"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_account_lets_its_pods_have_what_it_lists() {
        let secrets = ["mine".to_owned()];
        let allowed = Allowed { account: "sa", secrets: &secrets, pull_secrets: &[] };
        let container = |secret: &str| json!({"name": "c", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": secret}}}]});
        let pod = |secret: &str| json!({"spec": {"containers": [container(secret)]}});
        assert!(allowed.check(&pod("mine")).is_ok());
        assert_eq!(
            allowed.check(&pod("other")).unwrap_err(),
            "container c with envVar E referencing secret.secretName=\"other\" is not allowed because service account \
             sa does not reference that secret"
        );
        let volume = json!({"spec": {"volumes": [{"name": "v", "secret": {"secretName": "other"}}]}});
        assert!(allowed.check(&volume).unwrap_err().starts_with("volume with secret.secretName=\"other\""));
        assert!(names_any(&volume) && names_any(&pod("x")) && !names_any(&json!({"spec": {"volumes": [{}]}})));
    }
}
