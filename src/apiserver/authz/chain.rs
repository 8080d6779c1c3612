//! Which authorizers are asked, from flags or an AuthorizationConfiguration.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::match_conditions::MatchConditions;
use super::webhook::WebhookAuthorizer;
use crate::answers::Answers;
use crate::config::{AuthorizationMode, AuthorizationOptions, Error};
use crate::flags::parse_duration;
use crate::reviewer::Reviewer;
use crate::webhook::{Caller, EndpointError};

/// How long one try of a webhook that flags name may take (upstream: 30 s).
const FLAGS_TIMEOUT: Duration = Duration::from_secs(30);
const TIMEOUT_MAX: Duration = Duration::from_secs(30);
const KIND: &str = "SubjectAccessReview";

pub enum Step {
    AlwaysAllow,
    AlwaysDeny,
    Node,
    Rbac,
    Webhook(Box<WebhookAuthorizer>),
}

/// The authorizers that flags name.
pub fn of_flags(options: &AuthorizationOptions, caller: &Arc<Caller>) -> Result<Vec<Step>, Error> {
    let with_webhook = options.modes.contains(&AuthorizationMode::Webhook);
    let webhook = &options.webhook;
    let path = match (&webhook.config_file, with_webhook) {
        (None, true) => return Err(Error::Flags("authorization-mode Webhook needs authorization-webhook-config-file")),
        (Some(_), false) => {
            return Err(Error::Flags("authorization-webhook-config-file needs authorization-mode Webhook"));
        }
        (path, _) => path.clone().unwrap_or_default(),
    };
    let step = |mode: &AuthorizationMode| {
        Ok(match mode {
            AuthorizationMode::AlwaysAllow => Step::AlwaysAllow,
            AuthorizationMode::AlwaysDeny => Step::AlwaysDeny,
            AuthorizationMode::Node => Step::Node,
            AuthorizationMode::Rbac => Step::Rbac,
            AuthorizationMode::Webhook => {
                let version = format!("authorization.k8s.io/{}", webhook.version);
                let reviewer = Reviewer::new(caller.clone(), &path, version, KIND, FLAGS_TIMEOUT)
                    .map_err(|source| Error::Webhook { path: path.clone(), source })?;
                Step::Webhook(Box::new(WebhookAuthorizer {
                    name: "default".to_owned(),
                    reviewer,
                    conditions: MatchConditions::default(),
                    fails_closed: false,
                    authorized_life: webhook.cache_authorized,
                    unauthorized_life: webhook.cache_unauthorized,
                    answers: Answers::new(webhook.cache_authorized.max(webhook.cache_unauthorized)),
                }))
            }
        })
    };
    options.modes.iter().map(step).collect()
}

/// The authorizers of a file.
pub fn of_file(path: &Path, caller: &Arc<Caller>) -> Result<(Vec<Step>, String), Error> {
    let refused = |reason: String| Error::File { path: path.to_owned(), reason };
    let text = std::fs::read_to_string(path).map_err(|error| refused(error.to_string()))?;
    let steps = of_text(&text, caller).map_err(refused)?;
    Ok((steps, text))
}

/// The authorizers of an AuthorizationConfiguration (`apiserver.config.k8s.io/v1`).
pub fn of_text(text: &str, caller: &Arc<Caller>) -> Result<Vec<Step>, String> {
    let config: Config = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    if config.kind != "AuthorizationConfiguration" || !VERSIONS.contains(&config.api_version.as_str()) {
        return Err(format!("no AuthorizationConfiguration of {}", VERSIONS.join(" or ")));
    }
    if config.authorizers.is_empty() {
        return Err("authorizers: Required value: at least one authorization mode must be defined".to_owned());
    }
    let mut steps = Vec::new();
    let (mut names, mut types): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
    for (at, one) in config.authorizers.iter().enumerate() {
        let field = |field: &str, why: &str| format!("authorizers[{at}].{field}: {why}");
        if types.contains(&one.kind.as_str()) && one.kind != "Webhook" {
            return Err(field("type", &format!("Duplicate value: {:?}", one.kind)));
        }
        if one.name.is_empty() {
            return Err(field("name", "Required value"));
        }
        if names.contains(&one.name.as_str()) {
            return Err(field("name", &format!("Duplicate value: {:?}", one.name)));
        }
        names.push(&one.name);
        types.push(&one.kind);
        let step = match (one.kind.as_str(), &one.webhook) {
            ("Webhook", None) => return Err(field("webhook", "Required value: required when type=Webhook")),
            ("Webhook", Some(webhook)) => {
                let made = webhook.authorizer(&one.name, caller);
                Step::Webhook(Box::new(made.map_err(|(place, why)| field(place, &why))?))
            }
            (_, Some(_)) => {
                let why = "Invalid value: \"non-null\": may only be specified when type=Webhook";
                return Err(field("webhook", why));
            }
            ("AlwaysAllow", None) => Step::AlwaysAllow,
            ("AlwaysDeny", None) => Step::AlwaysDeny,
            ("Node", None) => Step::Node,
            ("RBAC", None) => Step::Rbac,
            (kind, None) => return Err(field("type", &format!("Unsupported value: {kind:?}"))),
        };
        steps.push(step);
    }
    Ok(steps)
}

const VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Config {
    api_version: String,
    kind: String,
    #[serde(default)]
    authorizers: Vec<Authorizer>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Authorizer {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    webhook: Option<Webhook>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Webhook {
    #[serde(rename = "authorizedTTL")]
    authorized_ttl: Option<String>,
    cache_authorized_requests: Option<bool>,
    #[serde(rename = "unauthorizedTTL")]
    unauthorized_ttl: Option<String>,
    cache_unauthorized_requests: Option<bool>,
    #[serde(default)]
    timeout: String,
    #[serde(default)]
    subject_access_review_version: String,
    #[serde(default)]
    match_condition_subject_access_review_version: String,
    #[serde(default)]
    failure_policy: String,
    #[serde(default)]
    connection_info: ConnectionInfo,
    #[serde(default)]
    match_conditions: Vec<MatchCondition>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConnectionInfo {
    #[serde(rename = "type", default)]
    kind: String,
    kube_config_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MatchCondition {
    expression: String,
}

impl Webhook {
    /// The error is a field with what is wrong about it.
    fn authorizer(&self, name: &str, caller: &Arc<Caller>) -> Result<WebhookAuthorizer, (&'static str, String)> {
        let duration = |text: &str, field: &'static str| {
            parse_duration(text).map_err(|error| (field, format!("Invalid value: {text:?}: {error}")))
        };
        let timeout = duration(&self.timeout, "webhook.timeout")?;
        if timeout.is_zero() || timeout > TIMEOUT_MAX {
            let why = format!("Invalid value: {:?}: must be > 0s and <= 30s", self.timeout);
            return Err(("webhook.timeout", why));
        }
        let life = |text: &Option<String>, default: u64, kept: Option<bool>, field: &'static str| {
            let life = match text {
                Some(text) => duration(text, field)?,
                None => Duration::from_secs(default),
            };
            Ok(if kept == Some(false) { Duration::ZERO } else { life })
        };
        let authorized_life = life(&self.authorized_ttl, 300, self.cache_authorized_requests, "webhook.authorizedTTL")?;
        let unauthorized_life =
            life(&self.unauthorized_ttl, 30, self.cache_unauthorized_requests, "webhook.unauthorizedTTL")?;
        let version = match self.subject_access_review_version.as_str() {
            version @ ("v1" | "v1beta1") => format!("authorization.k8s.io/{version}"),
            other => return Err(("webhook.subjectAccessReviewVersion", unsupported(other, "\"v1\", \"v1beta1\""))),
        };
        match self.match_condition_subject_access_review_version.as_str() {
            "v1" => {}
            "" if self.match_conditions.is_empty() => {}
            other => {
                return Err(("webhook.matchConditionSubjectAccessReviewVersion", unsupported(other, "\"v1\"")));
            }
        }
        let fails_closed = match self.failure_policy.as_str() {
            "Deny" => true,
            "NoOpinion" => false,
            other => return Err(("webhook.failurePolicy", unsupported(other, "\"NoOpinion\", \"Deny\""))),
        };
        if self.connection_info.kind != "KubeConfigFile" {
            let why = unsupported(&self.connection_info.kind, "\"KubeConfigFile\"");
            return Err(("webhook.connectionInfo.type", why));
        }
        const FILE: &str = "webhook.connectionInfo.kubeConfigFile";
        let path = self.connection_info.kube_config_file.as_deref().unwrap_or(Path::new(""));
        if !path.is_absolute() {
            return Err((FILE, format!("Invalid value: {path:?}: must be an absolute path")));
        }
        let expressions: Vec<&str> = self.match_conditions.iter().map(|one| one.expression.as_str()).collect();
        let conditions = MatchConditions::compile(&expressions).map_err(|why| ("webhook.matchConditions", why))?;
        let reviewer = Reviewer::new(caller.clone(), path, version, KIND, timeout)
            .map_err(|error: EndpointError| (FILE, format!("Invalid value: {path:?}: {error}")))?;
        Ok(WebhookAuthorizer {
            name: name.to_owned(),
            reviewer,
            conditions,
            fails_closed,
            authorized_life,
            unauthorized_life,
            answers: Answers::new(authorized_life.max(unauthorized_life)),
        })
    }
}

fn unsupported(value: &str, supported: &str) -> String {
    match value {
        "" => "Required value".to_owned(),
        value => format!("Unsupported value: {value:?}: supported values: {supported}"),
    }
}
