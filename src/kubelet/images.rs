//! Makes sure that a container's image is on the node: pull policies, credentials, events.
//!
//! How long to wait after a failed pull is the pod worker's business (see `pods::plan`).

use std::sync::Arc;
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use client::{Client, Involved, Recorder};
use cri::v1::{AuthConfig, Image, PodSandboxConfig};
use k8s_openapi::api::core::v1::{Container, Pod, Secret};
use serde::Deserialize;
use std::collections::BTreeMap;
use tokio::sync::Semaphore;

use crate::containers::security::ImageUser;
use crate::objects::PodExt;
use crate::runtime::{Runtime, RuntimeError};

/// Pulls at a time; more wait for their turn.
const PULLS_MAX: usize = 5;

#[derive(Clone, Debug)]
pub struct Images {
    runtime: Runtime,
    pulls: Arc<Semaphore>,
}

/// An image that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    pub id: String,
    pub user: ImageUser,
}

/// Why there is no image. `reason` is the container's waiting reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ImageError {
    pub reason: &'static str,
    pub message: String,
}

impl Images {
    pub fn new(runtime: Runtime) -> Images {
        Images { runtime, pulls: Arc::new(Semaphore::new(PULLS_MAX)) }
    }

    /// Finds the image or pulls it, as `imagePullPolicy` says.
    pub async fn ensure(
        &self,
        pod: &Pod,
        container: &Container,
        involved: &Involved,
        sandbox: &PodSandboxConfig,
        client: &Client,
        events: &Recorder,
    ) -> Result<Present, ImageError> {
        let image = with_tag(container.image.as_deref().unwrap_or_default());
        if let Some(why) = invalid(&image) {
            let message =
                format!("Failed to apply default image tag \"{image}\": couldn't parse image name \"{image}\": {why}");
            events.warning(involved.clone(), "InspectFailed", message.clone());
            return Err(ImageError { reason: "InvalidImageName", message });
        }
        let policy = pull_policy(container, &image);
        let present = self.runtime.image_status(&image).await.map_err(|error| {
            let message = format!("Failed to inspect image \"{image}\": {error}");
            events.warning(involved.clone(), "InspectFailed", message.clone());
            ImageError { reason: "ImageInspectError", message }
        })?;
        match (policy, present) {
            ("IfNotPresent" | "Never", Some(found)) => {
                let text = format!("Container image \"{image}\" already present on machine");
                events.normal(involved.clone(), "Pulled", text);
                return Ok(describe(found));
            }
            ("Never", None) => {
                let message = format!("Container image \"{image}\" is not present with pull policy of Never");
                events.warning(involved.clone(), "ErrImageNeverPull", message.clone());
                return Err(ImageError { reason: "ErrImageNeverPull", message });
            }
            _ => {}
        }
        self.pull(pod, &image, involved, sandbox, client, events).await
    }

    async fn pull(
        &self,
        pod: &Pod,
        image: &str,
        involved: &Involved,
        sandbox: &PodSandboxConfig,
        client: &Client,
        events: &Recorder,
    ) -> Result<Present, ImageError> {
        let failed = |error: RuntimeError| {
            let message = format!("Failed to pull image \"{image}\": {error}");
            events.warning(involved.clone(), "Failed", message);
            events.warning(involved.clone(), "Failed", "Error: ErrImagePull");
            ImageError { reason: "ErrImagePull", message: error.to_string() }
        };
        let waiting = Instant::now();
        let _turn = self.pulls.acquire().await;
        events.normal(involved.clone(), "Pulling", format!("Pulling image \"{image}\""));
        let credentials = credentials(pod, image, client).await;
        let started = Instant::now();
        let mut outcome = Err(RuntimeError { code: tonic::Code::Unknown, message: "no credentials to try".into() });
        // Several secrets may hold a login for one registry: the first that works is used.
        let tries = if credentials.is_empty() { vec![None] } else { credentials.into_iter().map(Some).collect() };
        for auth in tries {
            outcome = self.runtime.pull_image(image, auth, sandbox.clone()).await;
            if outcome.is_ok() {
                break;
            }
        }
        let id = outcome.map_err(failed)?;
        let found = self.runtime.image_status(&id).await.map_err(failed)?;
        let size = found.as_ref().map_or(0, |image| image.size);
        events.normal(
            involved.clone(),
            "Pulled",
            format!(
                "Successfully pulled image \"{image}\" in {} ({} including waiting). Image size: {size} bytes.",
                go_duration(started.elapsed()),
                go_duration(waiting.elapsed())
            ),
        );
        Ok(found.map_or_else(|| Present { id: id.clone(), user: ImageUser::default() }, describe))
    }
}

fn describe(image: Image) -> Present {
    Present { id: image.id, user: ImageUser { uid: image.uid.map(|uid| uid.value), name: image.username } }
}

fn go_duration(duration: std::time::Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds < 1000 {
        format!("{milliseconds}ms")
    } else {
        format!("{}.{:03}s", milliseconds / 1000, milliseconds % 1000)
    }
}

/// A name without tag and digest means the tag `latest`.
fn with_tag(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or_default();
    if image.is_empty() || last.contains(':') || image.contains('@') {
        image.to_owned()
    } else {
        format!("{image}:latest")
    }
}

fn invalid(image: &str) -> Option<&'static str> {
    let name = image.split('@').next().unwrap_or_default();
    let last = name.rsplit('/').next().unwrap_or_default();
    let (name_part, tag) = match last.split_once(':') {
        Some((_, tag)) => (name.strip_suffix(tag).map_or(name, |rest| rest.trim_end_matches(':')), Some(tag)),
        None => (name, None),
    };
    let path = name_part.split_once('/').map_or(name_part, |(first, rest)| {
        let is_host = first.contains(['.', ':']) || first == "localhost";
        if is_host { rest } else { name_part }
    });
    if name_part.is_empty() || path.is_empty() {
        return Some("invalid reference format");
    }
    if path.chars().any(|char| char.is_ascii_uppercase()) {
        return Some("invalid reference format: repository name must be lowercase");
    }
    let allowed =
        |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || matches!(char, '.' | '_' | '-' | '/');
    let tag_allowed = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '_' | '-');
    if !path.chars().all(allowed)
        || path.split('/').any(str::is_empty)
        || tag.is_some_and(|tag| tag.is_empty() || tag.len() > 128 || !tag.chars().all(tag_allowed))
    {
        return Some("invalid reference format");
    }
    None
}

fn pull_policy<'a>(container: &'a Container, image: &str) -> &'a str {
    match container.image_pull_policy.as_deref() {
        Some(policy) if !policy.is_empty() => policy,
        _ if image.ends_with(":latest") => "Always",
        _ => "IfNotPresent",
    }
}

/// The logins for an image's registry from the pod's `imagePullSecrets`, the most specific first.
async fn credentials(pod: &Pod, image: &str, client: &Client) -> Vec<AuthConfig> {
    let mut found = Vec::new();
    for reference in pod.spec().image_pull_secrets.iter().flatten() {
        match client.get::<Secret>(pod.ns(), &reference.name).await {
            Ok(secret) => found.extend(logins(&secret, image)),
            Err(error) => {
                tracing::info!(pod = %pod.full(), secret = reference.name, %error, "image pull secret not read");
            }
        }
    }
    // Longest path first; equally specific ones in the order of the secrets.
    found.sort_by_key(|(specific, _)| std::cmp::Reverse(*specific));
    found.into_iter().map(|(_, auth)| auth).collect()
}

#[derive(Deserialize, Default)]
struct Login {
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    auth: String,
    #[serde(default)]
    identitytoken: String,
    #[serde(default)]
    registrytoken: String,
}

#[derive(Deserialize)]
struct DockerConfigJson {
    #[serde(default)]
    auths: BTreeMap<String, Login>,
}

/// The logins in a secret that fit the image, with how specific their pattern is.
fn logins(secret: &Secret, image: &str) -> Vec<(usize, AuthConfig)> {
    let data = |key: &str| secret.data.as_ref().and_then(|data| data.get(key)).map(|bytes| bytes.0.as_slice());
    let auths = if let Some(bytes) = data(".dockerconfigjson") {
        serde_json::from_slice::<DockerConfigJson>(bytes).map(|config| config.auths)
    } else if let Some(bytes) = data(".dockercfg") {
        serde_json::from_slice::<BTreeMap<String, Login>>(bytes)
    } else {
        return vec![];
    };
    // The parser's message could quote the secret, so it is not logged.
    let Ok(auths) = auths else { return vec![] };
    let mut found = Vec::new();
    for (pattern, login) in auths {
        let pattern = pattern.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
        if !matches(pattern, image) {
            continue;
        }
        let mut auth = AuthConfig {
            username: login.username,
            password: login.password,
            identity_token: login.identitytoken,
            registry_token: login.registrytoken,
            server_address: pattern.to_owned(),
            auth: String::new(),
        };
        if let Some((username, password)) = decode_auth(&login.auth).filter(|_| auth.username.is_empty()) {
            auth.username = username;
            auth.password = password;
        }
        found.push((pattern.len(), auth));
    }
    found
}

fn decode_auth(text: &str) -> Option<(String, String)> {
    let decoded = String::from_utf8(STANDARD.decode(text).ok()?).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some((username.to_owned(), password.trim_end_matches('\0').to_owned()))
}

/// Whether the login for `pattern` (`registry`, `*.example.com`, `registry/path`) is for the image's repository.
fn matches(pattern: &str, image: &str) -> bool {
    let repository = normalized(image);
    let pattern = match pattern {
        "index.docker.io" | "index.docker.io/v1" | "docker.io" | "registry-1.docker.io" => "docker.io",
        // Old clients wrote the version of the API behind the host.
        other => other.trim_end_matches("/v1").trim_end_matches("/v2"),
    };
    let (host, path) = pattern.split_once('/').unwrap_or((pattern, ""));
    let (image_host, image_path) = repository.split_once('/').unwrap_or((&repository, ""));
    let same_host = {
        let (wanted, has) = (host.split('.').collect::<Vec<_>>(), image_host.split('.').collect::<Vec<_>>());
        let with_port = |a: &str, b: &str| a == b || (a == "*" && !b.contains(':'));
        wanted.len() == has.len() && wanted.iter().zip(&has).all(|(a, b)| with_port(a, b))
    };
    same_host
        && (path.is_empty()
            || image_path == path
            || image_path.starts_with(&format!("{path}/"))
            || image_path.starts_with(path))
}

/// `host/path` without tag and digest, Docker Hub's host filled in.
fn normalized(image: &str) -> String {
    let name = image.split('@').next().unwrap_or_default();
    let last = name.rfind('/').map_or(0, |at| at + 1);
    let name = match name.get(last..).and_then(|last| last.find(':')) {
        Some(colon) => name.get(..last + colon).unwrap_or(name),
        None => name,
    };
    match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_get_tags_and_wrong_ones_are_refused() {
        assert_eq!(with_tag("nginx"), "nginx:latest");
        assert_eq!(with_tag("r:5000/nginx"), "r:5000/nginx:latest");
        assert_eq!(with_tag("nginx@sha256:ab"), "nginx@sha256:ab");
        for good in ["nginx:latest", "r:5000/a/b:1.2_x", "localhost/x:1", "docker.io/library/nginx:1", "a@sha256:00"] {
            assert_eq!(invalid(good), None, "{good}");
        }
        for bad in ["", ":latest", "Nginx:1", "a b:1", "nginx:", "a//b:1", "x:!"] {
            assert!(invalid(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn policies_follow_the_tag() {
        let policy = |value| pull_policy(&serde_json::from_value::<Container>(value).unwrap(), "a:latest").to_owned();
        assert_eq!(policy(json!({"name": "a"})), "Always");
        assert_eq!(policy(json!({"name": "a", "imagePullPolicy": "Never"})), "Never");
        assert_eq!(pull_policy(&Container::default(), "a:1"), "IfNotPresent");
    }

    #[test]
    fn logins_fit_their_registry() {
        assert!(matches("r.example.com:5000", "r.example.com:5000/a:1"));
        assert!(!matches("r.example.com", "r.example.com:5000/a:1"));
        assert!(matches("*.example.com", "r.example.com/a"));
        assert!(matches("index.docker.io/v1", "nginx"));
        assert!(!matches("r.example.com/team", "r.example.com/other/a"));
        let config = json!({"auths": {"https://r.example.com/v1/": {"auth": STANDARD.encode("me:pass:word")}}});
        let secret: Secret =
            serde_json::from_value(json!({"data": {".dockerconfigjson": STANDARD.encode(config.to_string())}}))
                .unwrap();
        let found = logins(&secret, "r.example.com/a:1");
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].1.username.as_str(), found[0].1.password.as_str()), ("me", "pass:word"));
        assert!(logins(&secret, "other.example.com/a").is_empty());
    }
}
