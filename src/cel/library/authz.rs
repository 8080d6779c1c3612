//! `authorizer.group('apps').resource('deployments').check('create').allowed()`.

use std::sync::Arc;

use super::{Function, bad, failed, function, library, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::types;
use crate::value::{Library, Value};

/// Answers whether somebody may do something. It does not wait: what it needs is at hand.
pub trait Authorizer: Sync {
    /// `service_account` replaces the user of the request: namespace and name.
    fn check(&self, service_account: Option<(&str, &str)>, what: &What, verb: &str) -> Decided;
}

/// What is asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum What {
    #[default]
    Nothing,
    Path(String),
    Group(String),
    Resource(Resource),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    pub group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// As written, empty for none.
    pub field_selector: String,
    pub label_selector: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    pub allowed: bool,
    pub reason: String,
    pub error: Option<String>,
}

/// An authorizer with what was said so far about what to check.
#[derive(Clone)]
pub struct Check<'a> {
    authorizer: &'a (dyn Authorizer + 'a),
    service_account: Option<Arc<(String, String)>>,
    what: Arc<What>,
}

impl<'a> Check<'a> {
    /// The variable `authorizer`.
    pub fn new(authorizer: &'a (dyn Authorizer + 'a)) -> Check<'a> {
        Check { authorizer, service_account: None, what: Arc::new(What::Nothing) }
    }

    /// The variable `authorizer.requestResource`.
    pub fn of_resource(authorizer: &'a (dyn Authorizer + 'a), resource: Resource) -> Check<'a> {
        Check { authorizer, service_account: None, what: Arc::new(What::Resource(resource)) }
    }

    pub fn type_name(&self) -> &'static str {
        match &*self.what {
            What::Nothing => types::AUTHORIZER,
            What::Path(_) => types::PATH_CHECK,
            What::Group(_) => types::GROUP_CHECK,
            What::Resource(_) => types::RESOURCE_CHECK,
        }
    }
}

const NARROWED: &str = "kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.ResourceCheck";

pub const FUNCTIONS: &[Function] = &[
    function(
        "path",
        "kubernetes.authorization.Authorizer.(string) -> kubernetes.authorization.PathCheck",
        Cost::One,
        |args| narrow(args, |_, path| if path.trim().is_empty() { None } else { Some(What::Path(path)) }, "path"),
    ),
    function(
        "group",
        "kubernetes.authorization.Authorizer.(string) -> kubernetes.authorization.GroupCheck",
        Cost::One,
        |args| narrow(args, |_, group| Some(What::Group(group)), "group"),
    ),
    function(
        "serviceAccount",
        "kubernetes.authorization.Authorizer.(string, string) -> kubernetes.authorization.Authorizer",
        Cost::One,
        service_account,
    ),
    function(
        "resource",
        "kubernetes.authorization.GroupCheck.(string) -> kubernetes.authorization.ResourceCheck",
        Cost::One,
        |args| {
            narrow(
                args,
                |what, resource| match what {
                    What::Group(group) if !resource.trim().is_empty() => {
                        Some(What::Resource(Resource { group: group.clone(), resource, ..Resource::default() }))
                    }
                    _ => None,
                },
                "resource",
            )
        },
    ),
    function("subresource", NARROWED, Cost::One, |args| field(args, |resource| &mut resource.subresource)),
    function("namespace", NARROWED, Cost::One, |args| field(args, |resource| &mut resource.namespace)),
    function("name", NARROWED, Cost::One, |args| field(args, |resource| &mut resource.name)),
    function("fieldSelector", NARROWED, Cost::Selector, |args| field(args, |resource| &mut resource.field_selector)),
    function("labelSelector", NARROWED, Cost::Selector, |args| field(args, |resource| &mut resource.label_selector)),
    function(
        "check",
        "kubernetes.authorization.PathCheck.(string) -> kubernetes.authorization.Decision; \
         kubernetes.authorization.ResourceCheck.(string) -> kubernetes.authorization.Decision",
        Cost::Check,
        |args| {
            let check = subject(args)?;
            let account = check.service_account.as_deref().map(|(namespace, name)| (&**namespace, &**name));
            let decided = check.authorizer.check(account, &check.what, text(args, 1)?);
            Ok(Value::Library(Library::Decision(Arc::new(decided))))
        },
    ),
    function("allowed", "kubernetes.authorization.Decision.() -> bool", Cost::One, |args| {
        Ok(Value::Bool(decision(args)?.allowed))
    }),
    function("reason", "kubernetes.authorization.Decision.() -> string", Cost::One, |args| {
        Ok(Value::string(&*decision(args)?.reason))
    }),
    function("errored", "kubernetes.authorization.Decision.() -> bool", Cost::One, |args| {
        Ok(Value::Bool(decision(args)?.error.is_some()))
    }),
    function("error", "kubernetes.authorization.Decision.() -> string", Cost::One, |args| {
        Ok(Value::string(decision(args)?.error.as_deref().unwrap_or_default()))
    }),
];

fn subject<'v, 'a>(args: &'v [Value<'a>]) -> Result<&'v Check<'a>, EvalError> {
    match library(args, 0)? {
        Library::Authorizer(check) => Ok(check),
        _ => bad(),
    }
}

fn decision<'v>(args: &'v [Value<'_>]) -> Result<&'v Decided, EvalError> {
    match library(args, 0)? {
        Library::Decision(decided) => Ok(decided),
        _ => bad(),
    }
}

fn with<'a>(check: &Check<'a>, what: What) -> Value<'a> {
    Value::Library(Library::Authorizer(Check { what: Arc::new(what), ..check.clone() }))
}

fn narrow<'a>(args: &[Value<'a>], to: fn(&What, String) -> Option<What>, name: &str) -> Result<Value<'a>, EvalError> {
    let check = subject(args)?;
    match to(&check.what, text(args, 1)?.to_owned()) {
        Some(what) => Ok(with(check, what)),
        None => failed(format!("{name} must not be empty")),
    }
}

fn field<'a>(args: &[Value<'a>], of: fn(&mut Resource) -> &mut String) -> Result<Value<'a>, EvalError> {
    let check = subject(args)?;
    let What::Resource(resource) = &*check.what else { return bad() };
    let mut resource = resource.clone();
    text(args, 1)?.clone_into(of(&mut resource));
    Ok(with(check, What::Resource(resource)))
}

fn service_account<'a>(args: &[Value<'a>]) -> Result<Value<'a>, EvalError> {
    let check = subject(args)?;
    let (namespace, name) = (text(args, 1)?, text(args, 2)?);
    let valid = |text: &str, dots: bool| {
        let part = |part: &str| {
            let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            !part.is_empty() && part.bytes().all(inner) && !part.starts_with('-') && !part.ends_with('-')
        };
        if dots { text.len() <= 253 && text.split('.').all(part) } else { text.len() <= 63 && part(text) }
    };
    if !valid(name, true) {
        return failed("Invalid service account name");
    }
    if !valid(namespace, false) {
        return failed("Invalid service account namespace");
    }
    let service_account = Some(Arc::new((namespace.to_owned(), name.to_owned())));
    Ok(Value::Library(Library::Authorizer(Check { service_account, ..check.clone() })))
}
