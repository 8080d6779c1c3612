//! A container's environment.
//!
//! Order and precedence as upstream: variables for Services come first, then `envFrom`, then `env`; a later one
//! replaces an earlier one of the same name. `$(NAME)` in `env` sees what was defined before it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVar, Pod, Secret, Service};

use super::expand::expand;
use super::fields::{self, FieldError, NodeFacts};
use crate::objects::PodExt;

/// The objects that an environment refers to, as they were found: `None` for what does not exist.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub config_maps: BTreeMap<String, Option<ConfigMap>>,
    pub secrets: BTreeMap<String, Option<Secret>>,
}

/// Why there is no environment; the texts are those of `CreateContainerConfigError`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    #[error("configmap \"{0}\" not found")]
    NoConfigMap(String),
    #[error("secret \"{0}\" not found")]
    NoSecret(String),
    #[error("couldn't find key {key} in ConfigMap {namespace}/{name}")]
    NoConfigMapKey { namespace: String, name: String, key: String },
    #[error("couldn't find key {key} in Secret {namespace}/{name}")]
    NoSecretKey { namespace: String, name: String, key: String },
    #[error(transparent)]
    Field(#[from] FieldError),
    #[error("env {0} takes its value from a source that this node does not support")]
    Unsupported(String),
}

/// Names of the ConfigMaps and Secrets that a container's environment needs.
pub fn referenced(container: &Container) -> (Vec<String>, Vec<String>) {
    let mut config_maps = Vec::new();
    let mut secrets = Vec::new();
    for source in container.env_from.iter().flatten() {
        config_maps.extend(source.config_map_ref.as_ref().map(|one| one.name.clone()));
        secrets.extend(source.secret_ref.as_ref().map(|one| one.name.clone()));
    }
    for from in container.env.iter().flatten().filter_map(|var| var.value_from.as_ref()) {
        config_maps.extend(from.config_map_key_ref.as_ref().map(|one| one.name.clone()));
        secrets.extend(from.secret_key_ref.as_ref().map(|one| one.name.clone()));
    }
    for names in [&mut config_maps, &mut secrets] {
        names.sort();
        names.dedup();
    }
    (config_maps, secrets)
}

/// Everything that goes into an environment.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    pub pod: &'a Pod,
    pub pod_ips: &'a [String],
    pub node: &'a NodeFacts,
    pub sources: &'a Sources,
    /// The Services of the pod's namespace and `kubernetes` of the namespace `default`.
    pub services: &'a [std::sync::Arc<Service>],
}

/// The variables in the order of their definition.
pub fn environment(container: &Container, around: Surroundings<'_>) -> Result<Vec<(String, String)>, EnvError> {
    let mut env = Env::default();
    let links = around.pod.spec().enable_service_links.unwrap_or(true);
    service_variables(&mut env, around.pod.ns(), links, around.services);
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(from) = &source.config_map_ref {
            match around.sources.config_maps.get(&from.name).and_then(Option::as_ref) {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        env.set_if_name(format!("{prefix}{key}"), value.clone());
                    }
                }
                None if from.optional == Some(true) => {}
                None => return Err(EnvError::NoConfigMap(from.name.clone())),
            }
        }
        if let Some(from) = &source.secret_ref {
            match around.sources.secrets.get(&from.name).and_then(Option::as_ref) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        env.set_if_name(format!("{prefix}{key}"), String::from_utf8_lossy(&value.0).into_owned());
                    }
                }
                None if from.optional == Some(true) => {}
                None => return Err(EnvError::NoSecret(from.name.clone())),
            }
        }
    }
    for var in container.env.iter().flatten() {
        if let Some(value) = value_of(var, container, &env, around)? {
            env.set(var.name.clone(), value);
        }
    }
    Ok(env.order.into_iter().filter_map(|name| env.values.remove_entry(&name)).collect())
}

#[derive(Default)]
struct Env {
    order: Vec<String>,
    values: BTreeMap<String, String>,
}

impl Env {
    fn set(&mut self, name: String, value: String) {
        if !self.values.contains_key(&name) {
            self.order.push(name.clone());
        }
        self.values.insert(name, value);
    }

    /// Keys that cannot be variables are left out: anything printable but `=`.
    fn set_if_name(&mut self, name: String, value: String) {
        if !name.is_empty() && name.chars().all(|char| char.is_ascii_graphic() && char != '=') {
            self.set(name, value);
        }
    }
}

fn value_of(
    var: &EnvVar,
    container: &Container,
    env: &Env,
    around: Surroundings<'_>,
) -> Result<Option<String>, EnvError> {
    let namespace = around.pod.ns();
    let Some(from) = &var.value_from else {
        let text = var.value.as_deref().unwrap_or_default();
        return Ok(Some(expand(text, |name| env.values.get(name).map(String::as_str))));
    };
    if let Some(field) = &from.field_ref {
        return Ok(Some(fields::field(around.pod, &field.field_path, around.node, around.pod_ips)?));
    }
    if let Some(selector) = &from.resource_field_ref {
        return Ok(Some(fields::resource(around.pod, Some(container), selector, around.node)?));
    }
    if let Some(key) = &from.config_map_key_ref {
        let optional = key.optional == Some(true);
        let Some(map) = around.sources.config_maps.get(&key.name).and_then(Option::as_ref) else {
            return if optional { Ok(None) } else { Err(EnvError::NoConfigMap(key.name.clone())) };
        };
        let value = map.data.as_ref().and_then(|data| data.get(&key.key)).cloned();
        return match value {
            None if !optional => Err(EnvError::NoConfigMapKey {
                namespace: namespace.to_owned(),
                name: key.name.clone(),
                key: key.key.clone(),
            }),
            value => Ok(value),
        };
    }
    if let Some(key) = &from.secret_key_ref {
        let optional = key.optional == Some(true);
        let Some(secret) = around.sources.secrets.get(&key.name).and_then(Option::as_ref) else {
            return if optional { Ok(None) } else { Err(EnvError::NoSecret(key.name.clone())) };
        };
        let value = secret.data.as_ref().and_then(|data| data.get(&key.key));
        return match value {
            None if !optional => Err(EnvError::NoSecretKey {
                namespace: namespace.to_owned(),
                name: key.name.clone(),
                key: key.key.clone(),
            }),
            value => Ok(value.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned())),
        };
    }
    Err(EnvError::Unsupported(var.name.clone()))
}

/// `KUBERNETES_SERVICE_HOST` and its like. The master Service is always there, the namespace's own with
/// `enableServiceLinks`.
fn service_variables(env: &mut Env, namespace: &str, links: bool, services: &[std::sync::Arc<Service>]) {
    let mut chosen: BTreeMap<&str, &Service> = BTreeMap::new();
    for service in services {
        let name = service.metadata.name.as_deref().unwrap_or_default();
        let in_namespace = service.metadata.namespace.as_deref().unwrap_or_default();
        let is_master = name == "kubernetes" && in_namespace == "default";
        if is_master {
            chosen.entry(name).or_insert(service);
        } else if links && in_namespace == namespace {
            chosen.insert(name, service);
        }
    }
    for (name, service) in chosen {
        let Some(spec) = &service.spec else { continue };
        let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !matches!(*ip, "" | "None")) else { continue };
        let Some(ports) = spec.ports.as_ref().filter(|ports| !ports.is_empty()) else { continue };
        let prefix = name.to_uppercase().replace('-', "_");
        let host = if ip.contains(':') { format!("[{ip}]") } else { ip.to_owned() };
        env.set(format!("{prefix}_SERVICE_HOST"), ip.to_owned());
        for (index, port) in ports.iter().enumerate() {
            if index == 0 {
                env.set(format!("{prefix}_SERVICE_PORT"), port.port.to_string());
            }
            if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
                let port_name = port_name.to_uppercase().replace('-', "_");
                env.set(format!("{prefix}_SERVICE_PORT_{port_name}"), port.port.to_string());
            }
        }
        for (index, port) in ports.iter().enumerate() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
            if index == 0 {
                env.set(format!("{prefix}_PORT"), url.clone());
            }
            let of_port = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
            env.set(of_port.clone(), url);
            env.set(format!("{of_port}_PROTO"), protocol.to_lowercase());
            env.set(format!("{of_port}_PORT"), port.port.to_string());
            env.set(format!("{of_port}_ADDR"), ip.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::testing::pod;
    use serde_json::json;
    use std::sync::Arc;

    fn variables(spec: serde_json::Value, sources: &Sources) -> Result<Vec<(String, String)>, EnvError> {
        let pod = pod(json!({"spec": {"enableServiceLinks": false, "containers": [spec]}}));
        let node = NodeFacts { name: "n1".into(), ..NodeFacts::default() };
        let around = Surroundings { pod: &pod, pod_ips: &[], node: &node, sources, services: &[] };
        environment(&pod.spec().containers[0], around)
    }

    fn sources() -> Sources {
        let map = json!({"data": {"a": "from map", "bad=key": "x", "n": "1"}});
        let secret = json!({"data": {"p": "czNjcmV0"}});
        Sources {
            config_maps: [("m".to_owned(), Some(serde_json::from_value(map).unwrap())), ("gone".to_owned(), None)]
                .into(),
            secrets: [("s".to_owned(), Some(serde_json::from_value(secret).unwrap()))].into(),
        }
    }

    #[test]
    fn later_definitions_win_and_see_earlier_ones() {
        let env = variables(
            json!({"name": "c", "envFrom": [{"configMapRef": {"name": "m"}, "prefix": "X_"}, {"secretRef": {"name": "s"}}],
            "env": [{"name": "B", "value": "$(X_a) and $(A)"}, {"name": "A", "value": "$$(B)"}, {"name": "X_n", "value": "2"},
                {"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}]}),
            &sources(),
        );
        let env: Vec<String> = env.unwrap().into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(env, ["X_a=from map", "X_n=2", "p=s3cret", "B=from map and $(A)", "A=$(B)", "N=n1"]);
    }

    #[test]
    fn what_is_missing_is_named_unless_optional() {
        let of = |from: serde_json::Value| {
            variables(json!({"name": "c", "env": [{"name": "A", "valueFrom": from}]}), &sources())
                .map_err(|error| error.to_string())
        };
        assert_eq!(
            of(json!({"configMapKeyRef": {"name": "gone", "key": "k"}})).unwrap_err(),
            "configmap \"gone\" not found"
        );
        assert_eq!(
            of(json!({"secretKeyRef": {"name": "s", "key": "k"}})).unwrap_err(),
            "couldn't find key k in Secret default/s"
        );
        assert_eq!(of(json!({"secretKeyRef": {"name": "t", "key": "k", "optional": true}})).unwrap(), []);
    }

    #[test]
    fn services_as_variables() {
        let service = |namespace: &str, name: &str, ip: &str| -> Arc<Service> {
            Arc::new(
                serde_json::from_value(json!({"metadata": {"name": name, "namespace": namespace},
                "spec": {"clusterIP": ip, "ports": [{"name": "https", "port": 443}]}}))
                .unwrap(),
            )
        };
        let services = [
            service("default", "kubernetes", "10.43.0.1"),
            service("x", "my-db", "10.43.0.9"),
            service("x", "none", "None"),
        ];
        let node = NodeFacts::default();
        let sources = Sources::default();
        let names = |links: bool| {
            let pod = pod(json!({"metadata": {"namespace": "x"},
                "spec": {"enableServiceLinks": links, "containers": [{"name": "c"}]}}));
            let around = Surroundings { pod: &pod, pod_ips: &[], node: &node, sources: &sources, services: &services };
            environment(&pod.spec().containers[0], around).unwrap()
        };
        assert!(names(false).contains(&("KUBERNETES_SERVICE_HOST".to_owned(), "10.43.0.1".to_owned())));
        assert!(names(false).contains(&("KUBERNETES_PORT_443_TCP".to_owned(), "tcp://10.43.0.1:443".to_owned())));
        assert_eq!(names(false).len(), 8);
        assert!(names(true).contains(&("MY_DB_SERVICE_PORT_HTTPS".to_owned(), "443".to_owned())));
        assert_eq!(names(true).len(), 16);
    }
}
