//! What expressions see of a request.

use std::sync::OnceLock;

use api::{Fields, Row};
use cel::{Activation, AuthorizerCheck, AuthorizerResource, Budget, EvalError, Fields as Computed, Value as Cel};
use serde_json::{Value, json};

use super::compile::{Compiled, Named};
use super::declared::{NAMESPACE, REQUEST};
use super::permissions::Permissions;
use crate::admission::{Attributes, kind_of};

/// The objects of one evaluation.
pub struct Input<'a> {
    pub attributes: &'a Attributes<'a>,
    /// In whose version the objects are.
    pub row: &'a Row,
    pub object: Option<&'a Value>,
    pub old: Option<&'a Value>,
    pub params: Option<&'a Value>,
    pub namespace: Option<&'a Value>,
    pub permissions: &'a Permissions<'a>,
    pub variables: &'a [Named],
    request: OnceLock<Value>,
    /// Values of the variables that were asked for, in their order.
    values: Vec<OnceLock<Result<Cel<'static>, EvalError>>>,
}

impl<'a> Input<'a> {
    pub fn new(
        attributes: &'a Attributes<'a>,
        row: &'a Row,
        permissions: &'a Permissions<'a>,
        variables: &'a [Named],
    ) -> Input<'a> {
        Input {
            attributes,
            row,
            object: None,
            old: None,
            params: None,
            namespace: None,
            permissions,
            variables,
            request: OnceLock::new(),
            values: variables.iter().map(|_| OnceLock::new()).collect(),
        }
    }

    /// The value of a policy's expression. The error is upstream's text.
    pub fn evaluate<'s>(&'s self, compiled: &'s Compiled, budget: &mut Budget) -> Result<Cel<'s>, Stopped> {
        let program = match &compiled.program {
            Ok(program) => program,
            Err(why) => return Err(Stopped::Failed(format!("compilation error: {why}"))),
        };
        program.eval(self, budget).map_err(|error| match error {
            EvalError::Budget => Stopped::Budget,
            error => Stopped::Failed(format!("expression '{}' resulted in error: {error}", compiled.text)),
        })
    }

    fn request(&self) -> &Value {
        self.request.get_or_init(|| {
            let (attributes, user) = (self.attributes, self.attributes.user);
            let kind = |row: &Row| {
                let [group, version, kind] = kind_of(row, attributes.subresource);
                json!({"group": group, "version": version, "kind": kind})
            };
            let resource = |row: &Row| {
                let of = &row.resource;
                json!({"group": &*of.group, "version": &*of.version, "resource": &*of.plural})
            };
            let mut request = json!({
                "kind": kind(self.row), "resource": resource(self.row),
                "requestKind": kind(attributes.row), "requestResource": resource(attributes.row),
                "name": attributes.name, "namespace": attributes.review_namespace(),
                "operation": attributes.operation.as_str(), "dryRun": attributes.dry_run,
                "userInfo": {"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra},
                "options": attributes.options(),
            });
            if let Some(subresource) = attributes.subresource {
                request.set("subResource", subresource);
                request.set("requestSubResource", subresource);
            }
            request
        })
    }

    fn asked(&self) -> AuthorizerResource {
        let (attributes, resource) = (self.attributes, &self.attributes.row.resource);
        AuthorizerResource {
            group: resource.group.to_string(),
            resource: resource.plural.to_string(),
            subresource: attributes.subresource.unwrap_or_default().to_owned(),
            namespace: attributes.review_namespace().to_owned(),
            name: attributes.name.to_owned(),
            ..AuthorizerResource::default()
        }
    }
}

/// Why an expression has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    Failed(String),
    /// Nothing further is evaluated.
    Budget,
}

impl Stopped {
    pub fn text(self) -> String {
        match self {
            Stopped::Failed(text) => text,
            Stopped::Budget => EvalError::Budget.to_string(),
        }
    }
}

fn plain(value: Option<&Value>) -> Cel<'_> {
    value.map_or(Cel::Null, Cel::of_plain_json)
}

impl Activation for Input<'_> {
    fn variable<'s>(&'s self, name: &str, _: &mut Budget) -> Option<Result<Cel<'s>, EvalError>> {
        let check = |check| Cel::Library(cel::Library::Authorizer(check));
        Some(Ok(match name {
            "object" => plain(self.object),
            "oldObject" => plain(self.old),
            "params" => plain(self.params),
            "request" => return Some(Cel::of_json(self.request(), &REQUEST)),
            "namespaceObject" => match self.namespace {
                Some(namespace) => return Some(Cel::of_json(namespace, &NAMESPACE)),
                None => Cel::Null,
            },
            "variables" => Cel::Lazy(self),
            "authorizer" => check(AuthorizerCheck::new(self.permissions)),
            "authorizer.requestResource" => check(AuthorizerCheck::of_resource(self.permissions, self.asked())),
            _ => return None,
        }))
    }
}

/// `variables.name`: each is evaluated when it is first asked for.
impl Computed for Input<'_> {
    fn field<'s>(&'s self, name: &str, budget: &mut Budget) -> Option<Result<Cel<'s>, EvalError>> {
        // Of two variables of one name the later counts, which is the one that the compiler saw last.
        let index = self.variables.iter().rposition(|variable| variable.name == name)?;
        let (variable, cell) = (self.variables.get(index)?, self.values.get(index)?);
        if let Some(known) = cell.get() {
            return Some(known.clone());
        }
        let program = match &variable.compiled.program {
            Ok(program) => program,
            Err(why) => {
                return Some(Err(EvalError::failed(format!("composited variable {name:?} fails to compile: {why}"))));
            }
        };
        let value = program.eval(self, budget).map_err(|error| match error {
            EvalError::Failed(why) => {
                EvalError::failed(format!("composited variable {name:?} fails to evaluate: {why}"))
            }
            error => error,
        });
        match &value {
            Ok(value) => {
                if let Some(kept) = value.to_static() {
                    let _ = cell.set(Ok(kept));
                }
            }
            Err(error) => {
                let _ = cell.set(Err(error.clone()));
            }
        }
        Some(value)
    }
}
