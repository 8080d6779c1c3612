//! `EncryptionConfiguration`: which resources are encrypted, by whom, with which keys.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::ciphers::Cipher;
use crate::flags::parse_duration;

const VERSION: &str = "apiserver.config.k8s.io/v1";
/// A call of a KMS plugin may take this long unless another time is set.
const KMS_TIMEOUT_DEFAULT: Duration = Duration::from_secs(3);

/// The configuration is of no use; the text is made to be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    resources: Vec<ResourceFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResourceFile {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<ProviderFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ProviderFile {
    aesgcm: Option<KeysFile>,
    aescbc: Option<KeysFile>,
    secretbox: Option<KeysFile>,
    identity: Option<Empty>,
    kms: Option<KmsFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Empty {}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysFile {
    #[serde(default)]
    keys: Vec<KeyFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct KeyFile {
    name: String,
    secret: String,
}

impl std::fmt::Debug for KeyFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Name: {}, Secret: [REDACTED]", self.name)
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct KmsFile {
    api_version: String,
    name: String,
    endpoint: String,
    timeout: Option<String>,
    cachesize: Option<i32>,
}

/// What is configured, checked.
pub struct Parsed {
    /// In the order of the file, which is that of precedence.
    pub rules: Vec<Rule>,
}

pub struct Rule {
    pub resources: Vec<Pattern>,
    pub providers: Vec<Provider>,
}

/// A resource, `*.group` or `*.*`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pattern {
    Resource { group: String, plural: String },
    Group(String),
    Everything,
}

pub enum Provider {
    Identity,
    /// The prefix without the key's name, and the keys, the first of which encrypts.
    Keys {
        prefix: &'static str,
        keys: Vec<(String, Cipher)>,
    },
    Kms(Kms),
}

/// Where a KMS plugin listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kms {
    pub name: String,
    pub socket: std::path::PathBuf,
    pub timeout: Duration,
}

impl Pattern {
    fn parse(text: &str) -> Pattern {
        match text.split_once('.') {
            Some(("*", "*")) => Pattern::Everything,
            Some(("*", group)) => Pattern::Group(group.to_owned()),
            Some((plural, group)) => Pattern::Resource { group: group.to_owned(), plural: plural.to_owned() },
            None => Pattern::Resource { group: String::new(), plural: text.to_owned() },
        }
    }

    pub fn covers(&self, group: &str, plural: &str) -> bool {
        match self {
            Pattern::Everything => true,
            Pattern::Group(of) => of == group,
            Pattern::Resource { group: of, plural: named } => of == group && named == plural,
        }
    }

    /// Whether everything that `other` means is meant here too.
    fn masks(&self, other: &Pattern) -> bool {
        match (self, other) {
            (Pattern::Everything, _) => true,
            (Pattern::Group(of), Pattern::Resource { group, .. } | Pattern::Group(group)) => of == group,
            _ => false,
        }
    }
}

impl Parsed {
    pub fn parse(text: &str) -> Result<Parsed, ConfigError> {
        let wrong = |why: String| ConfigError(format!("error decoding encryption provider configuration file: {why}"));
        let file: File = serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if (file.api_version.as_str(), file.kind.as_str()) != (VERSION, "EncryptionConfiguration") {
            return Err(wrong(format!("no kind \"{}\" is registered for version \"{}\"", file.kind, file.api_version)));
        }
        if file.resources.is_empty() {
            return Err(ConfigError("resources: Required value: at least one resource is required".to_owned()));
        }
        let mut seen: Vec<Pattern> = Vec::new();
        let mut plugins = BTreeSet::new();
        let mut rules = Vec::new();
        for (index, rule) in file.resources.into_iter().enumerate() {
            let path = format!("resources[{index}]");
            rules.push(checked(&path, rule, &mut seen, &mut plugins)?);
        }
        Ok(Parsed { rules })
    }
}

fn checked(
    path: &str,
    rule: ResourceFile,
    seen: &mut Vec<Pattern>,
    plugins: &mut BTreeSet<String>,
) -> Result<Rule, ConfigError> {
    if rule.resources.is_empty() {
        return Err(ConfigError(format!("{path}.resources: Required value: at least one resource is required")));
    }
    if rule.providers.is_empty() {
        return Err(ConfigError(format!("{path}.providers: Required value: at least one provider is required")));
    }
    let mut resources = Vec::new();
    for text in &rule.resources {
        if text == "*" || text.is_empty() {
            let why = "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources";
            return Err(ConfigError(format!("{path}.resources: Invalid value: \"{text}\": {why}")));
        }
        let pattern = Pattern::parse(text);
        if let Some(earlier) = seen.iter().find(|earlier| earlier.masks(&pattern)) {
            return Err(ConfigError(format!("resource \"{text}\" is masked by earlier rule {earlier:?}")));
        }
        resources.push(pattern);
    }
    if resources.iter().any(|one| resources.iter().any(|other| one != other && one.masks(other))) {
        return Err(ConfigError(format!(
            "{path}.resources: Invalid value: using overlapping resources is not allowed"
        )));
    }
    seen.extend(resources.iter().cloned());
    let mut providers = Vec::new();
    for (index, provider) in rule.providers.into_iter().enumerate() {
        providers.push(self::provider(&format!("{path}.providers[{index}]"), provider, plugins)?);
    }
    Ok(Rule { resources, providers })
}

fn provider(path: &str, file: ProviderFile, plugins: &mut BTreeSet<String>) -> Result<Provider, ConfigError> {
    match file {
        ProviderFile { aesgcm: Some(file), aescbc: None, secretbox: None, identity: None, kms: None } => {
            keys(path, "k8s:enc:aesgcm:v1:", file, Cipher::gcm, "16, 24 or 32")
        }
        ProviderFile { aesgcm: None, aescbc: Some(file), secretbox: None, identity: None, kms: None } => {
            keys(path, "k8s:enc:aescbc:v1:", file, Cipher::cbc, "16, 24 or 32")
        }
        ProviderFile { aesgcm: None, aescbc: None, secretbox: Some(file), identity: None, kms: None } => {
            keys(path, "k8s:enc:secretbox:v1:", file, Cipher::secretbox, "32")
        }
        ProviderFile { aesgcm: None, aescbc: None, secretbox: None, identity: Some(Empty {}), kms: None } => {
            Ok(Provider::Identity)
        }
        ProviderFile { aesgcm: None, aescbc: None, secretbox: None, identity: None, kms: Some(file) } => {
            kms(path, file, plugins)
        }
        _ => Err(ConfigError(format!(
            "{path}: provider does not contain exactly one of the expected providers: KMS, AESGCM, AESCBC, Secretbox, \
             Identity"
        ))),
    }
}

fn keys(
    path: &str,
    prefix: &'static str,
    file: KeysFile,
    make: fn(&[u8]) -> Option<Cipher>,
    sizes: &str,
) -> Result<Provider, ConfigError> {
    if file.keys.is_empty() {
        return Err(ConfigError(format!("{path}.keys: Required value: at least one key is required")));
    }
    let mut keys = Vec::new();
    for (index, key) in file.keys.into_iter().enumerate() {
        let path = format!("{path}.keys[{index}]");
        if key.name.is_empty() || key.name.contains(':') {
            return Err(ConfigError(format!("{path}.name: Required value: a name without colon is required")));
        }
        if key.secret.is_empty() {
            return Err(ConfigError(format!("{path}.secret: Required value: secret is required")));
        }
        let secret = STANDARD
            .decode(&key.secret)
            .map_err(|_| ConfigError(format!("{path}.secret: Invalid value: \"REDACTED\": must be base64 encoded")))?;
        let cipher = make(&secret).ok_or_else(|| {
            let why = format!("secret is not of the expected length, got {}, expected {sizes}", secret.len());
            ConfigError(format!("{path}.secret: Invalid value: \"REDACTED\": {why}"))
        })?;
        keys.push((key.name, cipher));
    }
    Ok(Provider::Keys { prefix, keys })
}

fn kms(path: &str, file: KmsFile, plugins: &mut BTreeSet<String>) -> Result<Provider, ConfigError> {
    let invalid = |field: &str, value: &str, why: &str| {
        Err(ConfigError(format!("{path}.kms.{field}: Invalid value: \"{value}\": {why}")))
    };
    if file.api_version != "v2" {
        return invalid("apiVersion", &file.api_version, "only v2 is served; KMSv1 is deprecated and off by default");
    }
    if file.cachesize.is_some() {
        return invalid("cachesize", "", "cachesize is not supported in v2");
    }
    if file.name.is_empty() || file.name.contains(':') {
        return invalid("name", &file.name, "the name must not be empty and not contain a colon");
    }
    if !plugins.insert(file.name.clone()) {
        return invalid("name", &file.name, "duplicate KMS provider name, names must be unique");
    }
    let Some(socket) = file.endpoint.strip_prefix("unix://").filter(|socket| !socket.is_empty()) else {
        return invalid("endpoint", &file.endpoint, "unsupported scheme for KMS provider, only unix is supported");
    };
    let timeout = match file.timeout.as_deref().map(parse_duration) {
        None => KMS_TIMEOUT_DEFAULT,
        Some(Ok(timeout)) if !timeout.is_zero() => timeout,
        Some(_) => {
            return invalid(
                "timeout",
                file.timeout.as_deref().unwrap_or_default(),
                "timeout should be a positive value",
            );
        }
    };
    // `@name` is a socket without a file, which upstream takes too.
    Ok(Provider::Kms(Kms { name: file.name, socket: socket.into(), timeout }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(resources: &str) -> Result<Parsed, ConfigError> {
        Parsed::parse(&format!("apiVersion: {VERSION}\nkind: EncryptionConfiguration\nresources: {resources}\n"))
    }

    #[test]
    fn broken_configurations_are_refused() {
        let secret = STANDARD.encode([7; 32]);
        let key = format!("aescbc: {{keys: [{{name: a, secret: {secret}}}]}}");
        for (resources, expected) in [
            ("[]".to_owned(), "at least one resource is required"),
            ("[{resources: [secrets], providers: []}]".to_owned(), "at least one provider is required"),
            ("[{resources: [secrets], providers: [{}]}]".to_owned(), "exactly one of the expected providers"),
            (format!("[{{resources: [secrets], providers: [{{identity: {{}}, {key}}}]}}]"), "exactly one"),
            ("[{resources: [secrets], providers: [{aesgcm: {keys: []}}]}]".to_owned(), "at least one key is required"),
            ("[{resources: [a], providers: [{aescbc: {keys: [{name: a, secret: AAAA}]}}]}]".to_owned(), "got 3, expected 16"),
            ("[{resources: [a], providers: [{aescbc: {keys: [{name: a, secret: '?'}]}}]}]".to_owned(), "must be base64"),
            ("[{resources: ['*'], providers: [{identity: {}}]}]".to_owned(), "use '*.' to encrypt"),
            ("[{resources: ['*.*', secrets], providers: [{identity: {}}]}]".to_owned(), "overlapping"),
            (
                "[{resources: ['*.apps'], providers: [{identity: {}}]}, {resources: [deployments.apps], providers: [{identity: {}}]}]".to_owned(),
                "is masked by earlier rule",
            ),
            ("[{resources: [a], providers: [{kms: {apiVersion: v1, name: a, endpoint: 'unix:///x'}}]}]".to_owned(), "only v2"),
            ("[{resources: [a], providers: [{kms: {apiVersion: v2, name: a, endpoint: 'tcp://x'}}]}]".to_owned(), "only unix"),
            ("[{resources: [a], providers: [{rot13: {}}]}]".to_owned(), "rot13"),
        ] {
            let error = parse(&resources).err().unwrap_or_else(|| panic!("{resources} is taken")).to_string();
            assert!(error.contains(expected) && !error.contains(&secret), "{error}");
        }
        assert!(Parsed::parse("kind: Pod\napiVersion: v1\n").is_err());
    }

    #[test]
    fn resources_are_named_as_upstream_names_them() {
        let parsed = parse("[{resources: ['*.', secrets.x.y], providers: [{kms: {apiVersion: v2, name: a, endpoint: 'unix:///run/kms.sock', timeout: 5s}}]}]").unwrap();
        let [core, named] = parsed.rules[0].resources.as_slice() else { panic!("two") };
        assert!(core.covers("", "pods") && !core.covers("apps", "deployments"));
        assert!(named.covers("x.y", "secrets") && !named.covers("", "secrets"));
        let Provider::Kms(kms) = &parsed.rules[0].providers[0] else { panic!("kms") };
        assert_eq!((kms.socket.to_str(), kms.timeout), (Some("/run/kms.sock"), Duration::from_secs(5)));
    }
}
