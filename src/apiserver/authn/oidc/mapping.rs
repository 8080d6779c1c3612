//! From claims to a user: claims as they are, or expressions in CEL that see `claims` and, for rules about the user,
//! `user`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use cel::{Budget, CALL_COST_MAX, Decl, Env, Program, Type, Value as Evaluated, Variables};
use serde_json::{Map, Value, json};

use super::config::{JwtAuthenticator, Mapping};
use crate::declared::{Declared, Field};
use crate::identity::Identity;

/// All expressions of one token.
const EXPRESSIONS_COST_MAX: u64 = 10 * CALL_COST_MAX;
const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

pub type Claims = Map<String, Value>;

/// The mappings and rules of one issuer, compiled.
pub struct Mappings {
    username: Source,
    groups: Source,
    uid: Source,
    extra: Vec<(String, Expression)>,
    required: Vec<(String, String)>,
    rules: Vec<(Expression, String)>,
    user_rules: Vec<(Expression, String)>,
}

enum Source {
    Nothing,
    Claim { name: String, prefix: String },
    Expression(Box<Expression>),
}

struct Expression {
    text: String,
    program: Program,
}

impl Mappings {
    /// The error is a field with what is wrong about it.
    pub fn compile(config: &JwtAuthenticator) -> Result<Mappings, (String, String)> {
        let mappings = &config.claim_mappings;
        let texts = "string or a list of strings";
        let username = Source::compile(&mappings.username, "claimMappings.username", "string", is_string)?;
        let groups = Source::compile(&mappings.groups, "claimMappings.groups", texts, is_string_or_list)?;
        let uid = Source::compile(&mappings.uid, "claimMappings.uid", "string", is_string)?;
        let mut extra = Vec::new();
        for (at, one) in mappings.extra.iter().enumerate() {
            let field = format!("claimMappings.extra[{at}].valueExpression");
            let expression = Expression::compile(&CLAIMS, &one.value_expression, &field, texts, is_string_or_list)?;
            extra.push((one.key.clone(), expression));
        }
        let (mut required, mut rules) = (Vec::new(), Vec::new());
        for (at, rule) in config.claim_validation_rules.iter().enumerate() {
            if rule.expression.is_empty() {
                required.push((rule.claim.clone(), rule.required_value.clone()));
                continue;
            }
            let field = format!("claimValidationRules[{at}].expression");
            rules
                .push((Expression::compile(&CLAIMS, &rule.expression, &field, "bool", is_bool)?, rule.message.clone()));
        }
        let mut user_rules = Vec::new();
        for (at, rule) in config.user_validation_rules.iter().enumerate() {
            let field = format!("userValidationRules[{at}].expression");
            user_rules
                .push((Expression::compile(&USER, &rule.expression, &field, "bool", is_bool)?, rule.message.clone()));
        }
        // Whoever takes the mail address for a name must see to it that it was verified.
        let verified = |text: &str| text.contains("email_verified");
        let mut others = extra.iter().map(|(_, one)| one).chain(rules.iter().map(|(one, _)| one));
        if let Source::Expression(name) = &username
            && mentions_claim(&name.text, "email")
            && !verified(&name.text)
            && !others.any(|one| verified(&one.text))
        {
            let why = "claims.email_verified must be used in claimMappings.username.expression or \
                       claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email \
                       is used in claimMappings.username.expression";
            return Err((
                "claimMappings.username.expression".to_owned(),
                format!("Invalid value: {:?}: {why}", name.text),
            ));
        }
        Ok(Mappings { username, groups, uid, extra, required, rules, user_rules })
    }

    /// The user whom verified claims describe.
    pub fn identity(&self, claims: Claims) -> Result<Identity, String> {
        let claims = Value::Object(claims);
        let mut budget = Budget::new(EXPRESSIONS_COST_MAX);
        let name = self.username(&claims, &mut budget)?;
        let groups = match &self.groups {
            Source::Nothing => Vec::new(),
            Source::Claim { name, prefix } => match claims.get(name) {
                None => Vec::new(),
                Some(claim) => {
                    let groups = texts(claim).ok_or_else(|| format!("oidc: parse groups claim {name:?}"))?;
                    groups.into_iter().map(|group| format!("{prefix}{group}")).collect()
                }
            },
            Source::Expression(expression) => expression
                .texts(&claims, &mut budget)
                .map_err(|why| format!("oidc: error evaluating group claim expression: {why}"))?,
        };
        let uid = match &self.uid {
            Source::Nothing => String::new(),
            Source::Claim { name, .. } => {
                text(claims.get(name)).map_err(|why| format!("oidc: parse uid claim {name:?}: {why}"))?
            }
            Source::Expression(expression) => expression
                .text(&claims, &mut budget)
                .map_err(|why| format!("oidc: error evaluating uid claim expression: {why}"))?,
        };
        let mut extra = BTreeMap::new();
        if let Some(id) = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]);
        }
        for (key, expression) in &self.extra {
            let values = expression
                .texts(&claims, &mut budget)
                .map_err(|why| format!("oidc: error evaluating extra claim expression: {}: {why}", expression.text))?;
            if !values.is_empty() {
                extra.insert(key.clone(), values);
            }
        }
        for (claim, wanted) in &self.required {
            if claims.get(claim).is_none() {
                return Err(format!("oidc: required claim {claim} not present in ID token"));
            }
            let value = text(claims.get(claim)).map_err(|why| format!("oidc: parse claim {claim}: {why}"))?;
            if value != *wanted {
                return Err(format!(
                    "oidc: required claim {claim} value does not match. Got = {value}, want = {wanted}"
                ));
            }
        }
        for (rule, message) in &self.rules {
            rule.must_hold("claims", &claims, &claims_type(), message, &mut budget)
                .map_err(|why| format!("oidc: error evaluating claim validation expression: {why}"))?;
        }
        let identity = Identity { name, uid, groups, extra };
        if !self.user_rules.is_empty() {
            let user = json!({
                "username": identity.name, "uid": identity.uid, "groups": identity.groups, "extra": identity.extra,
            });
            for (rule, message) in &self.user_rules {
                rule.must_hold("user", &user, &user_type(), message, &mut budget)
                    .map_err(|why| format!("oidc: error evaluating user info validation rule: {why}"))?;
            }
        }
        Ok(identity)
    }

    fn username(&self, claims: &Value, budget: &mut Budget) -> Result<String, String> {
        match &self.username {
            Source::Nothing => Err("oidc: no claim for the username".to_owned()),
            Source::Claim { name, prefix } => {
                let username =
                    text(claims.get(name)).map_err(|why| format!("oidc: parse username claims {name:?}: {why}"))?;
                if name == "email"
                    && claims.get("email_verified").is_some_and(|verified| *verified != Value::Bool(true))
                {
                    return Err("oidc: email not verified".to_owned());
                }
                Ok(format!("{prefix}{username}"))
            }
            Source::Expression(expression) => {
                let username = expression
                    .text(claims, budget)
                    .map_err(|why| format!("oidc: error evaluating username claim expression: {why}"))?;
                if username.is_empty() {
                    return Err("oidc: empty username via CEL expression is not allowed".to_owned());
                }
                Ok(username)
            }
        }
    }
}

impl Source {
    fn compile(
        mapping: &Mapping,
        field: &str,
        what: &str,
        fits: fn(&Type) -> bool,
    ) -> Result<Source, (String, String)> {
        if !mapping.expression.is_empty() {
            let field = format!("{field}.expression");
            let expression = Expression::compile(&CLAIMS, &mapping.expression, &field, what, fits)?;
            return Ok(Source::Expression(Box::new(expression)));
        }
        if mapping.claim.is_empty() {
            return Ok(Source::Nothing);
        }
        Ok(Source::Claim { name: mapping.claim.clone(), prefix: mapping.prefix.clone().unwrap_or_default() })
    }
}

impl Expression {
    fn compile(
        env: &Env,
        text: &str,
        field: &str,
        what: &str,
        fits: fn(&Type) -> bool,
    ) -> Result<Expression, (String, String)> {
        let invalid = |why: String| (field.to_owned(), format!("Invalid value: {text:?}: {why}"));
        if text.trim().is_empty() {
            return Err((field.to_owned(), "Required value".to_owned()));
        }
        let program = env.compile(text).map_err(|errors| invalid(format!("compilation failed: {errors}")))?;
        if !fits(program.result()) && !program.result().is_dyn() {
            return Err(invalid(format!("must evaluate to {what}")));
        }
        Ok(Expression { text: text.to_owned(), program })
    }

    fn value(&self, claims: &Value, budget: &mut Budget) -> Result<Value, String> {
        let value = Evaluated::of_json(claims, &claims_type()).map_err(|error| error.to_string())?;
        let variables = Variables::new().with("claims", value);
        let result = self.program.eval(&variables, budget).map_err(|error| error.to_string())?;
        result.to_json().map_err(|error| error.to_string())
    }

    fn text(&self, claims: &Value, budget: &mut Budget) -> Result<String, String> {
        match self.value(claims, budget)? {
            Value::String(text) => Ok(text),
            _ => Err("claim expression must return a string".to_owned()),
        }
    }

    /// A text or a list of them; empty ones and null are nothing.
    fn texts(&self, claims: &Value, budget: &mut Budget) -> Result<Vec<String>, String> {
        let value = self.value(claims, budget)?;
        let found = if value.is_null() { Some(Vec::new()) } else { texts(&value) };
        let found = found.ok_or_else(|| "expression must return a string or a list of strings".to_owned())?;
        Ok(found.into_iter().filter(|text| !text.is_empty()).collect())
    }

    fn must_hold(
        &self,
        name: &str,
        value: &Value,
        of: &Decl,
        message: &str,
        budget: &mut Budget,
    ) -> Result<(), String> {
        let value = Evaluated::of_json(value, of).map_err(|error| error.to_string())?;
        let variables = Variables::new().with(name, value);
        let result = self.program.eval(&variables, budget).map_err(|error| error.to_string())?;
        match result.as_bool() {
            Some(true) => Ok(()),
            Some(false) => Err(format!("validation expression '{}' failed: {message}", self.text)),
            None => Err("validation expression must return a boolean".to_owned()),
        }
    }
}

static CLAIMS: LazyLock<Env> = LazyLock::new(|| Env::new().variable("claims", claims_type()));
static USER: LazyLock<Env> = LazyLock::new(|| Env::new().variable("user", user_type()));

fn claims_type() -> Decl {
    Decl::Plain(Type::map(Type::String, Type::Dyn))
}

fn user_type() -> Decl {
    Declared::decl(
        "kubernetes.UserInfo",
        &[("username", Field::Text), ("uid", Field::Text), ("groups", Field::Texts), ("extra", Field::TextsByName)],
    )
}

fn is_bool(of: &Type) -> bool {
    matches!(of, Type::Bool)
}

fn is_string(of: &Type) -> bool {
    matches!(of, Type::String)
}

fn is_string_or_list(of: &Type) -> bool {
    matches!(of, Type::String | Type::List(_))
}

fn text(claim: Option<&Value>) -> Result<String, &'static str> {
    match claim {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err("the claim is no string"),
        None => Err("claim not present"),
    }
}

fn texts(claim: &Value) -> Option<Vec<String>> {
    match claim {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(list) => list.iter().map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// The expression reads this claim by name; longer names do not count.
fn mentions_claim(text: &str, claim: &str) -> bool {
    [".", ".?"].iter().any(|select| {
        let wanted = format!("claims{select}{claim}");
        text.match_indices(&wanted).any(|(at, found)| {
            let next = text.get(at + found.len()..).and_then(|rest| rest.chars().next());
            !next.is_some_and(|next| next.is_alphanumeric() || next == '_')
        })
    })
}
