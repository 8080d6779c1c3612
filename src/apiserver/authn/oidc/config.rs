//! AuthenticationConfiguration (`apiserver.config.k8s.io/v1`), and the same from `--oidc-*` flags.

use serde::Deserialize;

use crate::config::OidcOptions;

const VERSIONS: [&str; 2] = ["apiserver.config.k8s.io/v1", "apiserver.config.k8s.io/v1beta1"];
const ISSUERS_MAX: usize = 64;

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AuthenticationConfiguration {
    api_version: String,
    kind: String,
    #[serde(default)]
    pub jwt: Vec<JwtAuthenticator>,
    pub anonymous: Option<AnonymousConfig>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnonymousConfig {
    pub enabled: bool,
    #[serde(default)]
    pub conditions: Vec<AnonymousCondition>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnonymousCondition {
    pub path: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtAuthenticator {
    pub issuer: Issuer,
    #[serde(default)]
    pub claim_validation_rules: Vec<ClaimValidationRule>,
    pub claim_mappings: ClaimMappings,
    #[serde(default)]
    pub user_validation_rules: Vec<UserValidationRule>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Issuer {
    #[serde(default)]
    pub url: String,
    #[serde(rename = "discoveryURL", default)]
    pub discovery_url: String,
    /// PEM; empty means what the machine trusts.
    #[serde(default)]
    pub certificate_authority: String,
    #[serde(default)]
    pub audiences: Vec<String>,
    #[serde(default)]
    audience_match_policy: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimValidationRule {
    pub claim: String,
    pub required_value: String,
    pub expression: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ClaimMappings {
    pub username: Mapping,
    pub groups: Mapping,
    pub uid: Mapping,
    pub extra: Vec<ExtraMapping>,
}

/// A claim, or an expression.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mapping {
    pub claim: String,
    pub prefix: Option<String>,
    pub expression: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct ExtraMapping {
    pub key: String,
    pub value_expression: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct UserValidationRule {
    pub expression: String,
    pub message: String,
}

impl AuthenticationConfiguration {
    /// Parses and checks what needs no compiler of expressions. `disallowed` are the issuers of ServiceAccount tokens.
    pub fn parse(text: &str, disallowed: &[String]) -> Result<AuthenticationConfiguration, String> {
        let config: AuthenticationConfiguration = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        if config.kind != "AuthenticationConfiguration" || !VERSIONS.contains(&config.api_version.as_str()) {
            return Err(format!("no AuthenticationConfiguration of {}", VERSIONS.join(" or ")));
        }
        if config.jwt.len() > ISSUERS_MAX {
            return Err(format!("jwt: Too many: {}: must have at most {ISSUERS_MAX} items", config.jwt.len()));
        }
        for (at, one) in config.jwt.iter().enumerate() {
            let before = config.jwt.get(..at).unwrap_or_default();
            one.check(before, disallowed).map_err(|(field, why)| format!("jwt[{at}].{field}: {why}"))?;
        }
        if let Some(anonymous) = &config.anonymous
            && !anonymous.enabled
            && !anonymous.conditions.is_empty()
        {
            let why = "Invalid value: enabled should be set to true when conditions are defined";
            return Err(format!("anonymous.conditions: {why}"));
        }
        Ok(config)
    }
}

impl JwtAuthenticator {
    /// As flags say it; `certificate_authority` is the text of the file that they name.
    pub fn of_flags(options: &OidcOptions, certificate_authority: String) -> JwtAuthenticator {
        let claim = |claim: &str, prefix: String| Mapping {
            claim: claim.to_owned(),
            prefix: Some(prefix),
            expression: String::new(),
        };
        // Names from other claims than the mail address could be anybody's.
        let prefix = match options.username_prefix.as_str() {
            "" if options.username_claim != "email" => format!("{}#", options.issuer_url),
            "-" => String::new(),
            prefix => prefix.to_owned(),
        };
        let groups = match options.groups_claim.as_str() {
            "" => Mapping::default(),
            name => claim(name, options.groups_prefix.clone()),
        };
        let rules = options.required_claims.iter().map(|(name, value)| ClaimValidationRule {
            claim: name.clone(),
            required_value: value.clone(),
            ..ClaimValidationRule::default()
        });
        JwtAuthenticator {
            issuer: Issuer {
                url: options.issuer_url.clone(),
                certificate_authority,
                audiences: vec![options.client_id.clone()],
                ..Issuer::default()
            },
            claim_validation_rules: rules.collect(),
            claim_mappings: ClaimMappings {
                username: claim(&options.username_claim, prefix),
                groups,
                ..ClaimMappings::default()
            },
            user_validation_rules: Vec::new(),
        }
    }

    /// The error is a field with what is wrong about it.
    pub fn check(&self, before: &[JwtAuthenticator], disallowed: &[String]) -> Result<(), (String, String)> {
        let issuer = &self.issuer;
        let refused = |field: &str, why: &str| Err((field.to_owned(), why.to_owned()));
        if issuer.url.is_empty() {
            return refused("issuer.url", "Required value");
        }
        check_url("issuer.url", &issuer.url)?;
        if disallowed.contains(&issuer.url) {
            let why = format!(
                "Invalid value: {:?}: URL must not overlap with disallowed issuers: {disallowed:?}",
                issuer.url
            );
            return refused("issuer.url", &why);
        }
        if before.iter().any(|other| other.issuer.url == issuer.url) {
            return refused("issuer.url", &format!("Duplicate value: {:?}", issuer.url));
        }
        if !issuer.discovery_url.is_empty() {
            let url = &issuer.discovery_url;
            if url.trim_end_matches('/') == issuer.url.trim_end_matches('/') {
                let why = format!("Invalid value: {url:?}: discoveryURL must be different from URL");
                return refused("issuer.discoveryURL", &why);
            }
            check_url("issuer.discoveryURL", url)?;
            if before.iter().any(|other| other.issuer.discovery_url == *url) {
                return refused("issuer.discoveryURL", &format!("Duplicate value: {url:?}"));
            }
        }
        if issuer.audiences.is_empty() {
            return refused("issuer.audiences", "Required value: at least one issuer.audiences is required");
        }
        if issuer.audiences.iter().any(String::is_empty) {
            return refused("issuer.audiences", "Required value");
        }
        match (issuer.audience_match_policy.as_str(), issuer.audiences.len()) {
            ("MatchAny", _) | ("", 1) => {}
            (policy, _) => {
                let why =
                    format!("Invalid value: {policy:?}: audienceMatchPolicy must be MatchAny for multiple audiences");
                return refused("issuer.audienceMatchPolicy", &why);
            }
        }
        for (at, rule) in self.claim_validation_rules.iter().enumerate() {
            let field = format!("claimValidationRules[{at}]");
            match (rule.claim.as_str(), rule.expression.as_str()) {
                ("", "") => return refused(&field, "Required value: claim or expression is required"),
                ("", _) if !rule.required_value.is_empty() => {
                    let why = "Invalid value: may not be specified when expression is set";
                    return refused(&format!("{field}.requiredValue"), why);
                }
                (_, "") if !rule.message.is_empty() => {
                    return refused(
                        &format!("{field}.message"),
                        "Invalid value: may not be specified when claim is set",
                    );
                }
                ("", _) | (_, "") => {}
                _ => return refused(&field, "Invalid value: claim and expression can't both be set"),
            }
        }
        let mappings = &self.claim_mappings;
        mappings.username.check("claimMappings.username", true)?;
        mappings.groups.check("claimMappings.groups", true)?;
        mappings.uid.check("claimMappings.uid", false)?;
        if mappings.username.claim.is_empty() && mappings.username.expression.is_empty() {
            return refused("claimMappings.username", "Required value: claim or expression is required");
        }
        let mut keys: Vec<&str> = Vec::new();
        for (at, extra) in mappings.extra.iter().enumerate() {
            let field = format!("claimMappings.extra[{at}].key");
            let invalid = |why: &str| Err((field.clone(), format!("Invalid value: {:?}: {why}", extra.key)));
            let Some((domain, _)) =
                extra.key.split_once('/').filter(|(domain, path)| !domain.is_empty() && !path.is_empty())
            else {
                return invalid("must be a domain-prefixed path (such as \"acme.io/foo\")");
            };
            if extra.key.chars().any(char::is_uppercase) {
                return invalid("must be lowercase");
            }
            if ["k8s.io", "kubernetes.io"].iter().any(|own| domain == *own || domain.ends_with(&format!(".{own}"))) {
                return invalid("k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use");
            }
            if keys.contains(&extra.key.as_str()) {
                return refused(&field, &format!("Duplicate value: {:?}", extra.key));
            }
            keys.push(&extra.key);
            if extra.value_expression.is_empty() {
                return refused(&format!("claimMappings.extra[{at}].valueExpression"), "Required value");
            }
        }
        Ok(())
    }
}

impl Mapping {
    fn check(&self, field: &str, with_prefix: bool) -> Result<(), (String, String)> {
        match (self.claim.is_empty(), self.expression.is_empty(), &self.prefix) {
            (false, false, _) => {
                Err((field.to_owned(), "Invalid value: claim and expression can't both be set".to_owned()))
            }
            (true, false, Some(_)) => Err((
                format!("{field}.prefix"),
                "Invalid value: may not be specified when expression is set".to_owned(),
            )),
            (false, true, None) if with_prefix => {
                let why = "Required value: prefix is required when claim is set. It can be set to an empty string to \
                           disable prefixing";
                Err((format!("{field}.prefix"), why.to_owned()))
            }
            _ => Ok(()),
        }
    }
}

fn check_url(field: &str, url: &str) -> Result<(), (String, String)> {
    let invalid = |why: &str| Err((field.to_owned(), format!("Invalid value: {url:?}: {why}")));
    let Some(rest) = url.strip_prefix("https://") else { return invalid("URL scheme must be https") };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.contains('@') {
        return invalid("URL must not contain a username or password");
    }
    if rest.contains('?') {
        return invalid("URL must not contain a query");
    }
    if rest.contains('#') {
        return invalid("URL must not contain a fragment");
    }
    if host.is_empty() { invalid("URL has no host") } else { Ok(()) }
}
