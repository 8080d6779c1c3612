//! Endpoints from kubeconfig files: the form in which webhooks for authentication, authorisation and audit are given.
//!
//! The file is read once; a token in a file of its own is read again while the server runs. Not taken: plugins
//! (`exec`, `auth-provider`), proxies and impersonation.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use pki::{Issued, Live, Trust};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::endpoint::{self, ClientCertificate, Endpoint, EndpointError, Parts, Token};

#[derive(Deserialize)]
pub(super) struct Config {
    #[serde(default, rename = "current-context")]
    pub current_context: String,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    pub contexts: Vec<NamedContext>,
    #[serde(default)]
    pub users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
pub(super) struct NamedContext {
    pub name: String,
    pub context: Context,
}

#[derive(Deserialize)]
pub(super) struct NamedUser {
    pub name: String,
    pub user: User,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Context {
    cluster: String,
    pub user: String,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub(super) struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<String>,
    password: Option<String>,
    #[serde(flatten)]
    others: BTreeMap<String, serde_json::Value>,
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Config, EndpointError> {
    let text = std::fs::read_to_string(path).map_err(|error| broken("file", format!("{path:?}: {error}")))?;
    parse(&text)
}

pub(super) fn parse(text: &str) -> Result<Config, EndpointError> {
    serde_saphyr::from_str(text).map_err(|error| broken("text", error.to_string()))
}

impl Endpoint {
    /// The server of the current context, with the credentials of its user. Paths in the file are relative to it.
    /// Reads files: for the start of a server.
    pub fn from_kubeconfig(path: &Path) -> Result<Endpoint, EndpointError> {
        endpoint_of(&read(path)?, path.parent().unwrap_or(Path::new(".")))
    }
}

#[cfg(test)]
fn from_text(text: &str, base: &Path) -> Result<Endpoint, EndpointError> {
    endpoint_of(&parse(text)?, base)
}

fn endpoint_of(config: &Config, base: &Path) -> Result<Endpoint, EndpointError> {
    let context = if config.current_context.is_empty() {
        config.contexts.first()
    } else {
        config.contexts.iter().find(|one| one.name == config.current_context)
    };
    let context = context.map(|one| &one.context).ok_or_else(|| broken("current-context", "there is none".into()))?;
    let cluster = config.clusters.iter().find(|one| one.name == context.cluster).map(|one| one.cluster.clone());
    let cluster = cluster.ok_or_else(|| broken("cluster", format!("{:?} is not there", context.cluster)))?;
    let user = config.users.iter().find(|one| one.name == context.user).map(|one| one.user.clone());
    let user = match user {
        Some(user) => user,
        None if context.user.is_empty() => User::default(),
        None => return Err(broken("user", format!("{:?} is not there", context.user))),
    };
    check(&user)?;
    let (place, path, encrypted) = endpoint::split(&cluster.server)?;
    let bundle = data(
        "certificate-authority",
        base,
        cluster.certificate_authority_data.as_deref(),
        cluster.certificate_authority.as_deref(),
    )?;
    let trust = match bundle {
        _ if cluster.insecure_skip_tls_verify => Trust::Anybody,
        Some(pem) => Trust::Bundle(pem),
        None => Trust::System,
    };
    let certificate = certificate(&user, base)?;
    let server_name = cluster.tls_server_name.filter(|name| !name.is_empty());
    Endpoint::new(Parts { place, path, encrypted, trust, server_name, certificate, token: token(&user, base)? })
}

/// Refuses what is not supported.
pub(super) fn check(user: &User) -> Result<(), EndpointError> {
    match user.others.keys().find(|key| matches!(key.as_str(), "exec" | "auth-provider")) {
        Some(plugin) => Err(broken("user", format!("{plugin} is not supported"))),
        None => Ok(()),
    }
}

pub(super) fn certificate(user: &User, base: &Path) -> Result<Option<ClientCertificate>, EndpointError> {
    let certificate = user.client_certificate_data.as_deref();
    let certificate = data("client-certificate", base, certificate, user.client_certificate.as_deref())?;
    let key = data("client-key", base, user.client_key_data.as_deref(), user.client_key.as_deref())?;
    let (certificate, key) = match (certificate, key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) => return Ok(None),
        _ => return Err(broken("user", "client-certificate and client-key go together".to_owned())),
    };
    let text = |pem: Vec<u8>| String::from_utf8(pem).map_err(|_| broken("client-certificate", "not PEM".to_owned()));
    let issued = Issued { cert_pem: text(certificate)?, key_pem: text(key)? };
    let live = Live::new(&issued).map_err(|error| broken("client-certificate", error.to_string()))?;
    Ok(Some(ClientCertificate::new(&issued.cert_pem, Arc::new(live))))
}

pub(super) fn token(user: &User, base: &Path) -> Result<Option<Token>, EndpointError> {
    if let Some(path) = &user.token_file {
        return Ok(Some(Token::File { path: base.join(path), read: Mutex::new(None) }));
    }
    let unfit = |what| broken(what, "it does not fit into a header".to_owned());
    if let Some(token) = user.token.as_deref().filter(|token| !token.is_empty()) {
        return Ok(Some(Token::Fixed(endpoint::bearer(token).ok_or_else(|| unfit("token"))?)));
    }
    let Some(name) = user.username.as_deref().filter(|name| !name.is_empty()) else { return Ok(None) };
    let pair = STANDARD.encode(format!("{name}:{}", user.password.as_deref().unwrap_or_default()));
    let mut value = HeaderValue::from_str(&format!("Basic {pair}")).map_err(|_| unfit("username"))?;
    value.set_sensitive(true);
    Ok(Some(Token::Fixed(value)))
}

/// What is given in base64, or else in a file.
fn data(
    what: &'static str,
    base: &Path,
    encoded: Option<&str>,
    path: Option<&Path>,
) -> Result<Option<Vec<u8>>, EndpointError> {
    match (encoded.filter(|encoded| !encoded.is_empty()), path.filter(|path| !path.as_os_str().is_empty())) {
        (Some(encoded), _) => STANDARD.decode(encoded).map(Some).map_err(|error| broken(what, error.to_string())),
        (None, Some(path)) => {
            let path = base.join(path);
            std::fs::read(&path).map(Some).map_err(|error| broken(what, format!("{path:?}: {error}")))
        }
        (None, None) => Ok(None),
    }
}

fn broken(what: &'static str, why: String) -> EndpointError {
    EndpointError::Kubeconfig { what, why }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(server: &str, cluster: &str, user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: k, cluster: {{server: '{server}', {cluster}}}}}]\n\
             users: [{{name: u, user: {{{user}}}}}]\n\
             contexts: [{{name: other, context: {{cluster: x, user: y}}}}, {{name: c, context: {{cluster: k, user: u}}}}]\n"
        )
    }

    #[tokio::test]
    async fn the_current_context_says_where_and_who() {
        let directory = tempfile::tempdir().unwrap();
        let authority = pki::Authority::create("ca").unwrap();
        let client = authority.issue(&pki::Profile::client("webhook", &[])).unwrap();
        std::fs::write(directory.path().join("ca.crt"), authority.cert_pem()).unwrap();
        let user = format!(
            "client-certificate-data: {}, client-key-data: {}, token: secret",
            STANDARD.encode(&client.cert_pem),
            STANDARD.encode(&client.key_pem)
        );
        let path = directory.path().join("config");
        std::fs::write(&path, text("https://authz.example/check", "certificate-authority: ca.crt", &user)).unwrap();
        let endpoint = Endpoint::from_kubeconfig(&path).unwrap();
        assert_eq!((endpoint.base().as_str(), endpoint.path()), ("https://authz.example", "/check"));
        assert_eq!(endpoint.authorization().await.unwrap().unwrap(), "Bearer secret");
    }

    #[tokio::test]
    async fn tokens_come_from_files_and_names_with_passwords() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("token"), "from-file\n").unwrap();
        let of = |user: &str| from_text(&text("https://x", "insecure-skip-tls-verify: true", user), directory.path());
        let file = of("tokenFile: token").unwrap();
        assert_eq!(file.authorization().await.unwrap().unwrap(), "Bearer from-file");
        let basic = of("username: me, password: pw").unwrap();
        assert_eq!(basic.authorization().await.unwrap().unwrap(), "Basic bWU6cHc=");
        let missing = of("tokenFile: nowhere").unwrap();
        assert!(missing.authorization().await.is_err());
        assert!(of("client-key: key").is_err());
        assert!(of("exec: {command: x}").is_err());
    }
}
