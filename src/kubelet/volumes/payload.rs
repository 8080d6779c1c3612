//! The files of volumes that have their contents from the API, as pure functions of the objects.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapProjection, ConfigMapVolumeSource, DownwardAPIVolumeFile, KeyToPath, Pod, Secret,
    SecretProjection, SecretVolumeSource,
};

use crate::containers::fields::{self, FieldError, NodeFacts};
use crate::objects::PodExt;

/// Files by their path in the volume.
pub type Payload = BTreeMap<String, File>;

#[derive(Clone, PartialEq, Eq)]
pub struct File {
    pub data: Vec<u8>,
    pub mode: u32,
    pub uid: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    #[error("configmap \"{0}\" not found")]
    NoConfigMap(String),
    #[error("secret \"{0}\" not found")]
    NoSecret(String),
    #[error("configmap references non-existent config key: {0}")]
    NoConfigKey(String),
    #[error("references non-existent secret key: {0}")]
    NoSecretKey(String),
    #[error(transparent)]
    Field(#[from] FieldError),
}

const MODE_DEFAULT: u32 = 0o644;
/// A token that belongs to one user or group is for nobody else.
const TOKEN_MODE_OWNED: u32 = 0o600;
const MODE_BITS: u32 = 0o7777;

fn mode(own: Option<i32>, default: Option<i32>) -> u32 {
    own.or(default).and_then(|mode| u32::try_from(mode).ok()).map_or(MODE_DEFAULT, |mode| mode & MODE_BITS)
}

pub fn config_map(source: &ConfigMapVolumeSource, map: Option<&ConfigMap>) -> Result<Payload, PayloadError> {
    of_config_map(&source.name, source.items.as_deref(), source.optional, map, source.default_mode)
}

pub fn projected_config_map(
    source: &ConfigMapProjection,
    map: Option<&ConfigMap>,
    default_mode: Option<i32>,
) -> Result<Payload, PayloadError> {
    of_config_map(&source.name, source.items.as_deref(), source.optional, map, default_mode)
}

pub fn secret(source: &SecretVolumeSource, secret: Option<&Secret>) -> Result<Payload, PayloadError> {
    let name = source.secret_name.as_deref().unwrap_or_default();
    of_secret(name, source.items.as_deref(), source.optional, secret, source.default_mode)
}

pub fn projected_secret(
    source: &SecretProjection,
    secret: Option<&Secret>,
    default_mode: Option<i32>,
) -> Result<Payload, PayloadError> {
    of_secret(&source.name, source.items.as_deref(), source.optional, secret, default_mode)
}

fn of_config_map(
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    map: Option<&ConfigMap>,
    default_mode: Option<i32>,
) -> Result<Payload, PayloadError> {
    let is_optional = optional == Some(true);
    let Some(map) = map else {
        return if is_optional { Ok(Payload::new()) } else { Err(PayloadError::NoConfigMap(name.to_owned())) };
    };
    let text = map.data.iter().flatten().map(|(key, value)| (key.as_str(), value.as_bytes()));
    let binary = map.binary_data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
    files(text.chain(binary).collect(), items, is_optional, default_mode, PayloadError::NoConfigKey)
}

fn of_secret(
    name: &str,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    secret: Option<&Secret>,
    default_mode: Option<i32>,
) -> Result<Payload, PayloadError> {
    let is_optional = optional == Some(true);
    let Some(secret) = secret else {
        return if is_optional { Ok(Payload::new()) } else { Err(PayloadError::NoSecret(name.to_owned())) };
    };
    let data = secret.data.iter().flatten().map(|(key, value)| (key.as_str(), value.0.as_slice()));
    files(data.collect(), items, is_optional, default_mode, PayloadError::NoSecretKey)
}

/// All keys as files of their names, or those of `items` at their paths.
fn files(
    data: BTreeMap<&str, &[u8]>,
    items: Option<&[KeyToPath]>,
    is_optional: bool,
    default_mode: Option<i32>,
    missing: fn(String) -> PayloadError,
) -> Result<Payload, PayloadError> {
    let file = |data: &[u8], own: Option<i32>| File { data: data.to_vec(), mode: mode(own, default_mode), uid: None };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.iter().map(|(key, value)| ((*key).to_owned(), file(value, None))).collect());
    };
    let mut payload = Payload::new();
    for item in items {
        match data.get(item.key.as_str()) {
            Some(value) => {
                payload.insert(item.path.clone(), file(value, item.mode));
            }
            None if is_optional => {}
            None => return Err(missing(item.key.clone())),
        }
    }
    Ok(payload)
}

pub fn downward(
    pod: &Pod,
    items: Option<&[DownwardAPIVolumeFile]>,
    default_mode: Option<i32>,
    node: &NodeFacts,
) -> Result<Payload, PayloadError> {
    let mut payload = Payload::new();
    for item in items.into_iter().flatten() {
        let value = if let Some(field) = &item.field_ref {
            fields::field(pod, &field.field_path, node, &[])?
        } else if let Some(selector) = &item.resource_field_ref {
            fields::resource(pod, None, selector, node)?
        } else {
            continue;
        };
        let file = File { data: value.into_bytes(), mode: mode(item.mode, default_mode), uid: None };
        payload.insert(item.path.clone(), file);
    }
    Ok(payload)
}

/// A service account token, readable for the pod's only user if all its containers run as one.
pub fn token(pod: &Pod, value: String, default_mode: Option<i32>) -> File {
    let context = pod.spec().security_context.as_ref();
    let mut users = pod.containers().into_iter().map(|(_, container)| {
        let own = container.security_context.as_ref().and_then(|own| own.run_as_user);
        own.or(context.and_then(|context| context.run_as_user))
    });
    let first = users.next().flatten();
    let only = first.filter(|first| users.all(|user| user == Some(*first))).and_then(|uid| u32::try_from(uid).ok());
    let is_owned = only.is_some() || context.is_some_and(|context| context.fs_group.is_some());
    let mode = if is_owned { TOKEN_MODE_OWNED } else { mode(None, default_mode) };
    File { data: value.into_bytes(), mode, uid: only }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::testing::pod;
    use serde_json::json;

    fn show(payload: Payload) -> Vec<String> {
        let show =
            |(path, file): (String, File)| format!("{path} {:o} {}", file.mode, String::from_utf8_lossy(&file.data));
        payload.into_iter().map(show).collect()
    }

    #[test]
    fn keys_become_files() {
        let map: ConfigMap = serde_json::from_value(json!({"data": {"a": "1"}, "binaryData": {"b": "Mg=="}})).unwrap();
        let source = |value| serde_json::from_value::<ConfigMapVolumeSource>(value).unwrap();
        let all = config_map(&source(json!({"name": "m", "defaultMode": 0o400})), Some(&map)).unwrap();
        assert_eq!(show(all), ["a 400 1", "b 400 2"]);
        let items = json!({"name": "m", "items": [{"key": "a", "path": "x/y", "mode": 0o755}]});
        assert_eq!(show(config_map(&source(items), Some(&map)).unwrap()), ["x/y 755 1"]);
        let missing = json!({"name": "m", "items": [{"key": "no", "path": "x"}]});
        let error = config_map(&source(missing), Some(&map)).err().unwrap();
        assert_eq!(error.to_string(), "configmap references non-existent config key: no");
        assert!(config_map(&source(json!({"name": "m"})), None).is_err());
        assert!(config_map(&source(json!({"name": "m", "optional": true})), None).unwrap().is_empty());
    }

    #[test]
    fn a_token_belongs_to_the_only_user() {
        let file = |spec| {
            let file = token(&pod(json!({"spec": spec})), "t".into(), Some(0o644));
            (file.mode, file.uid)
        };
        assert_eq!(file(json!({"containers": [{"name": "a"}]})), (0o644, None));
        assert_eq!(
            file(json!({"securityContext": {"runAsUser": 5}, "containers": [{"name": "a"}, {"name": "b"}]})),
            (0o600, Some(5))
        );
        assert_eq!(
            file(json!({"containers": [{"name": "a", "securityContext": {"runAsUser": 5}}, {"name": "b"}]})),
            (0o644, None)
        );
    }
}
