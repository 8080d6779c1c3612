//! `registries.yaml`, as k3s has it: mirrors, rewrites, credentials and TLS per registry.
//!
//! Limitation: files named under `tls` are read once, when the registry is first used.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use regex::Regex;
use serde::Deserialize;

/// Largest `registries.yaml` that is read.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Stands for every registry that has no entry of its own.
const ANY: &str = "*";

/// How registries are reached. The default reaches each at its own name, over TLS with the system's CA bundle (over
/// plain HTTP on the loopback), anonymously.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistriesConfig {
    /// By registry (`docker.io`), `*` for all others.
    #[serde(default)]
    pub mirrors: BTreeMap<String, Mirror>,
    /// By host, with its port unless it is the scheme's, of a mirror or a registry; `*` for all others.
    #[serde(default)]
    pub configs: BTreeMap<String, HostConfig>,
}

/// Endpoints that are asked before the registry itself.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mirror {
    /// URLs in order. One without a path means the path `/v2`.
    #[serde(default, alias = "endpoints")]
    pub endpoint: Vec<String>,
    /// Regular expression to replacement (`$1`), tried in the expressions' order on the repository path; the first that
    /// matches is applied, at the mirror's endpoints only.
    #[serde(default)]
    pub rewrite: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    #[serde(default)]
    pub auth: Option<HostAuth>,
    #[serde(default)]
    pub tls: Option<HostTls>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostAuth {
    #[serde(default)]
    pub username: String,
    #[serde(default)]
    pub password: String,
    /// base64 of `username:password`.
    #[serde(default)]
    pub auth: String,
    #[serde(default)]
    pub identity_token: String,
    /// A bearer token that is sent as it is.
    #[serde(default)]
    pub token: String,
}

impl std::fmt::Debug for HostAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostAuth").field("username", &self.username).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostTls {
    /// Trusted besides the system's bundle.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    #[serde(default)]
    pub cert_file: Option<PathBuf>,
    #[serde(default)]
    pub key_file: Option<PathBuf>,
    #[serde(default)]
    pub insecure_skip_verify: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    #[error("reading {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// The text names the line and, for an unknown key, the key and those that exist.
    #[error("registries.yaml: {0}")]
    Syntax(String),
    #[error("registries.yaml: mirrors.{mirror}.endpoint {url:?}: {reason}")]
    Endpoint { mirror: String, url: String, reason: &'static str },
    #[error("registries.yaml: mirrors.{mirror}.rewrite")]
    Rewrite { mirror: String, source: regex::Error },
    #[error("registries.yaml: configs.{host}.tls: cert_file and key_file belong together")]
    HalfKeyPair { host: String },
}

/// One place to ask for a registry's images.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    pub tls: bool,
    /// Host, with the port if one was given.
    pub authority: String,
    /// `/v2`, or what the URL said, without a slash at its end.
    pub prefix: String,
    pub rewrites: Vec<(Regex, String)>,
    /// The registry itself, not a mirror of it.
    pub is_origin: bool,
}

impl RegistriesConfig {
    /// Reads the file; a missing one is an empty configuration.
    pub fn load(path: &Path) -> Result<Self, RegistriesError> {
        let fail = |source| RegistriesError::Read { path: path.to_owned(), source };
        let file = match std::fs::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(fail(error)),
        };
        let mut text = String::new();
        io::Read::read_to_string(&mut io::Read::take(file, FILE_BYTES_MAX), &mut text).map_err(fail)?;
        Self::parse(&text)
    }

    pub fn parse(yaml: &str) -> Result<Self, RegistriesError> {
        if yaml.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
            return Ok(Self::default());
        }
        let config: Self = serde_saphyr::from_str(yaml).map_err(|e| RegistriesError::Syntax(e.to_string()))?;
        for (name, mirror) in &config.mirrors {
            mirror.endpoints(name)?;
        }
        for (host, settings) in &config.configs {
            if let Some(tls) = &settings.tls
                && tls.cert_file.is_some() != tls.key_file.is_some()
            {
                return Err(RegistriesError::HalfKeyPair { host: host.clone() });
            }
        }
        Ok(config)
    }

    /// Where to ask for the images of `domain`, in order: its mirrors, then the registry itself.
    pub(crate) fn endpoints(&self, domain: &str) -> Vec<Endpoint> {
        let mut endpoints = Vec::new();
        if let Some((name, mirror)) = self.mirrors.get_key_value(domain).or_else(|| self.mirrors.get_key_value(ANY)) {
            // A configuration that did not come through `parse` may hold what does not parse: it is left out.
            match mirror.endpoints(name) {
                Ok(mirrors) => endpoints = mirrors,
                Err(error) => tracing::warn!(%error, "mirror is left out"),
            }
        }
        let authority = if domain == "docker.io" { "registry-1.docker.io" } else { domain };
        let origin = Endpoint {
            tls: !is_loopback(domain),
            authority: authority.to_owned(),
            prefix: "/v2".to_owned(),
            rewrites: Vec::new(),
            is_origin: true,
        };
        let listed = endpoints
            .iter_mut()
            .find(|e| e.authority == origin.authority && e.prefix == origin.prefix && e.rewrites.is_empty());
        match listed {
            Some(endpoint) => endpoint.is_origin = true,
            None => endpoints.push(origin),
        }
        endpoints
    }

    /// The settings for a host that is about to be reached; `domain` is the registry whose images are wanted.
    pub(crate) fn host(&self, authority: &str, domain: Option<&str>) -> Option<&HostConfig> {
        self.configs
            .get(authority)
            .or_else(|| domain.and_then(|domain| self.configs.get(domain)))
            .or_else(|| self.configs.get(ANY))
    }
}

impl Mirror {
    fn endpoints(&self, name: &str) -> Result<Vec<Endpoint>, RegistriesError> {
        let rewrites = self
            .rewrite
            .iter()
            .map(|(expression, to)| Ok((Regex::new(expression)?, to.clone())))
            .collect::<Result<Vec<_>, regex::Error>>()
            .map_err(|source| RegistriesError::Rewrite { mirror: name.to_owned(), source })?;
        self.endpoint
            .iter()
            .map(|url| {
                let fail = |reason| RegistriesError::Endpoint { mirror: name.to_owned(), url: url.clone(), reason };
                let full = if url.contains("://") { url.clone() } else { format!("https://{url}") };
                let uri: http::Uri = full.parse().map_err(|_| fail("is not a URL"))?;
                let tls = match uri.scheme_str() {
                    Some("https") => true,
                    Some("http") => false,
                    _ => return Err(fail("must begin with http:// or https://")),
                };
                let authority = uri.authority().ok_or_else(|| fail("has no host"))?.as_str();
                if authority.contains('@') {
                    return Err(fail("credentials belong under configs"));
                }
                let path = uri.path().trim_end_matches('/');
                Ok(Endpoint {
                    tls,
                    authority: authority.to_owned(),
                    prefix: if path.is_empty() { "/v2".to_owned() } else { path.to_owned() },
                    rewrites: rewrites.clone(),
                    is_origin: false,
                })
            })
            .collect()
    }
}

impl Endpoint {
    /// The repository path as this endpoint knows it.
    pub(crate) fn repository(&self, path: &str) -> String {
        for (expression, to) in &self.rewrites {
            if expression.is_match(path) {
                return expression.replace_all(path, to.as_str()).into_owned();
            }
        }
        path.to_owned()
    }

    pub(crate) fn scheme(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

fn is_loopback(domain: &str) -> bool {
    let host = match domain.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => domain.split(':').next().unwrap_or(domain),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = r#"
mirrors:
  docker.io:
    endpoint: ["https://mirror.example:5000", "http://other.example/hub/v2/"]
    rewrite:
      "^library/(.*)": "mirrored/$1"
  "*":
    endpoint: [https://all.example]
configs:
  mirror.example:5000:
    auth: {username: u, password: p}
    tls: {ca_file: /ca.pem, insecure_skip_verify: false}
"#;

    #[test]
    fn mirrors_come_first_and_the_registry_last() {
        let config = RegistriesConfig::parse(YAML).unwrap();
        let urls = |domain| {
            config
                .endpoints(domain)
                .iter()
                .map(|e| format!("{}://{}{}", e.scheme(), e.authority, e.prefix))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            urls("docker.io"),
            ["https://mirror.example:5000/v2", "http://other.example/hub/v2", "https://registry-1.docker.io/v2"]
        );
        assert_eq!(urls("quay.io"), ["https://all.example/v2", "https://quay.io/v2"]);
        assert_eq!(urls("127.0.0.1:5000").last().unwrap(), "http://127.0.0.1:5000/v2");
        let hub = config.endpoints("docker.io");
        assert_eq!(hub[0].repository("library/nginx"), "mirrored/nginx");
        assert_eq!(hub[0].repository("grafana/loki"), "grafana/loki");
        assert_eq!(hub[2].repository("library/nginx"), "library/nginx");
        assert_eq!(config.host("mirror.example:5000", None).unwrap().auth.as_ref().unwrap().username, "u");
        assert!(config.host("quay.io", None).is_none());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let error = |yaml| RegistriesConfig::parse(yaml).unwrap_err().to_string();
        assert!(error("mirors: {}").contains("mirors"), "{}", error("mirors: {}"));
        assert!(error("configs: {h: {tls: {ca: /x}}}").contains("ca"), "{}", error("configs: {h: {tls: {ca: /x}}}"));
        assert!(error("mirrors: {a: {endpoint: ['ftp://x']}}").contains("ftp://x"));
        assert!(error("mirrors: {a: {rewrite: {'(': b}}}").contains("mirrors.a.rewrite"));
        assert!(error("configs: {h: {tls: {cert_file: /x}}}").contains("configs.h.tls"));
        assert!(RegistriesConfig::parse("# nothing\n").unwrap().mirrors.is_empty());
    }
}
