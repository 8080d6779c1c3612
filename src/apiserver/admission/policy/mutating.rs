//! MutatingAdmissionPolicy: expressions that change the object, one policy after the other.

use std::sync::Arc;
use std::time::Instant;

use api::{Cause, Failure, Reason, Row};
use cel::{Budget, REQUEST_COST_MAX};
use futures::future::BoxFuture;
use serde_json::Value;

use super::super::webhooks::matching::{self, Matcher};
use super::compile::{Mutation, Policy};
use super::conditions;
use super::figures::{self, ErrorType};
use super::input::{Input, Stopped};
use super::params;
use super::patch;
use super::permissions::Permissions;
use super::policies::{Binding, Hook, Policies};
use crate::admission::{Attributes, Stage, kind_of};
use crate::cache::Cache;
use crate::metrics::Text;
use crate::server::ApiServer;
use crate::verbs::typed::{self, Strictness};

const STAGE: &str = "MutatingAdmissionPolicy";

pub struct MutatingAdmissionPolicy {
    policies: Policies,
    figures: figures::Mutating,
}

/// A policy to be evaluated with a parameter.
struct Invocation<'h> {
    hook: &'h Hook,
    binding: &'h Binding,
    row: Arc<Row>,
    param: Option<Arc<Value>>,
}

/// A policy that could not do its work: what clients are told, and whether the object was at fault.
struct Denial {
    message: String,
    reason: Reason,
}

impl MutatingAdmissionPolicy {
    pub fn new(cache: &Cache) -> MutatingAdmissionPolicy {
        let prefixes = ["/registry/mutatingadmissionpolicies/", "/registry/mutatingadmissionpolicybindings/"];
        let policies = Policies::new(cache, prefixes[0], prefixes[1]);
        MutatingAdmissionPolicy { policies, figures: figures::Mutating::default() }
    }

    async fn dispatch(
        &self,
        server: &ApiServer,
        attributes: &mut Attributes<'_>,
        mut object: Option<&mut Value>,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        if matching::is_exempt(attributes) {
            return Ok(());
        }
        let again = attributes.reinvocation.again;
        if again {
            attributes.reinvocation.of(STAGE).meet_again(object.as_deref());
        }
        let hooks = self.policies.current();
        let mut denials = Vec::new();
        let invocations = collect(server, &hooks, attributes, object.as_deref(), old, &mut denials).await?;
        let permissions = Permissions::new(attributes.user);
        let mut namespace = None;
        for invocation in &invocations {
            let Invocation { hook, binding, .. } = invocation;
            if hook.needs_namespace && namespace.is_none() {
                namespace = super::namespace_of(server, attributes).await?;
            }
            let Some(seen) = object.as_deref() else { continue };
            let id = invocation.id();
            if again && !attributes.reinvocation.of(STAGE).is_due(&id) {
                continue;
            }
            let setting = Around { permissions: &permissions, namespace: namespace.as_ref(), figures: &self.figures };
            match one(server, attributes, invocation, &setting, seen, old).await? {
                Ok(None) => continue,
                Ok(Some(changed)) if changed != *seen => {
                    attributes.reinvocation.of(STAGE).changed();
                    attributes.reinvocation.wanted = true;
                    if let Some(object) = object.as_deref_mut() {
                        *object = changed;
                    }
                }
                Ok(Some(_)) => {}
                Err(why) => denials.extend(denial(&hook.policy, Some(binding), &why, Reason::Invalid)),
            }
            if hook.policy.reinvoked {
                attributes.reinvocation.of(STAGE).note(&id);
            }
        }
        attributes.reinvocation.of(STAGE).leave(object.as_deref());
        conclude(attributes, denials)
    }
}

impl Stage for MutatingAdmissionPolicy {
    fn is_active(&self) -> bool {
        !self.policies.is_empty()
    }

    fn write_figures(&self, out: &mut Text) {
        self.figures.write(out);
    }

    fn mutate<'a>(
        &'a self,
        server: &'a ApiServer,
        attributes: &'a mut Attributes<'_>,
        object: Option<&'a mut Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        if !self.is_active() {
            return Box::pin(std::future::ready(Ok(())));
        }
        Box::pin(self.dispatch(server, attributes, object, old))
    }
}

impl Invocation<'_> {
    /// Stays the same while the request lasts.
    fn id(&self) -> String {
        let param = self.param.as_deref().and_then(|param| param.get("metadata"));
        let text =
            |name: &str| param.and_then(|metadata| metadata.get(name)).and_then(Value::as_str).unwrap_or_default();
        format!("{}/{}/{}/{}", self.hook.policy.name, self.binding.name, text("namespace"), text("name"))
    }
}

/// Which policies are evaluated, and with what.
async fn collect<'h>(
    server: &ApiServer,
    hooks: &'h [Hook],
    attributes: &Attributes<'_>,
    object: Option<&Value>,
    old: Option<&Value>,
    denials: &mut Vec<Denial>,
) -> Result<Vec<Invocation<'h>>, Failure> {
    let matcher = Matcher::new(server);
    let mut invocations = Vec::new();
    for hook in hooks {
        let policy = &*hook.policy;
        let row = match policy.constraints.matching(server, &matcher, attributes, object, old).await {
            Ok(Some(row)) => row,
            Ok(None) => continue,
            Err(failure) => {
                let why = format!("failed to configure policy: {}", failure.message);
                denials.extend(denial(policy, None, &why, Reason::Forbidden));
                continue;
            }
        };
        if let Err(why) = params::check_kind(server, policy.param_kind.as_ref()) {
            let why = format!("failed to configure policy: {why}");
            denials.extend(denial(policy, None, &why, Reason::Forbidden));
            continue;
        }
        for binding in &hook.bindings {
            let concerned = match &binding.constraints {
                Some(constraints) => constraints.matching(server, &matcher, attributes, object, old).await,
                None => Ok(Some(row.clone())),
            };
            let found = match concerned {
                Ok(None) => continue,
                Ok(Some(_)) => {
                    let (kind, reference) = (policy.param_kind.as_ref(), binding.params.as_ref());
                    params::collect(server, kind, reference, attributes.namespace).await
                }
                Err(failure) => Err(failure.message),
            };
            match found {
                Ok(found) => invocations.extend(found.into_iter().map(|param| Invocation {
                    hook,
                    binding,
                    row: row.clone(),
                    param,
                })),
                Err(why) => {
                    let why = format!("failed to configure binding: {why}");
                    denials.extend(denial(policy, Some(binding), &why, Reason::Forbidden));
                }
            }
        }
    }
    Ok(invocations)
}

/// What stays the same for all invocations of a request.
struct Around<'s> {
    permissions: &'s Permissions<'s>,
    namespace: Option<&'s Value>,
    figures: &'s figures::Mutating,
}

/// The object as a policy makes it; `None` if its conditions do not hold. The inner error is the policy's.
async fn one(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    invocation: &Invocation<'_>,
    around: &Around<'_>,
    seen: &Value,
    old: Option<&Value>,
) -> Result<Result<Option<Value>, String>, Failure> {
    let Around { permissions, namespace, figures } = *around;
    let (policy, row, own) = (&*invocation.hook.policy, &invocation.row, attributes.row);
    let subresource = attributes.subresource;
    let old = super::shown(server, attributes, row, old).await?;
    let mut object = matching::convert_for(server, own, row, subresource, seen).await?.into_owned();
    let param = invocation.param.as_deref();
    let setting = Setting { attributes, row, policy, old: old.as_deref(), param, namespace, permissions };
    if !policy.conditions.is_empty() {
        let held = permissions.settle(server, || conditions::hold(&policy.conditions, &setting.input(&object)));
        match held.await? {
            Ok(true) => {}
            Ok(false) => return Ok(Ok(None)),
            Err(_) if policy.ignores_failures => return Ok(Ok(None)),
            Err(why) => return Ok(Err(why)),
        }
    }
    let mut failed = None;
    for mutation in &policy.mutations {
        let began = Instant::now();
        let made = permissions.settle(server, || mutate(mutation, &setting.input(&object), &object, row, subresource));
        let made = made.await?;
        let made = made.and_then(|made| completed(made, row, subresource));
        let error = made.as_ref().err().map_or(ErrorType::None, |why| ErrorType::of(why));
        figures.observe(&policy.name, &invocation.binding.name, error, began.elapsed());
        match made {
            Ok(made) => object = made,
            // The others are evaluated all the same; the first failure counts.
            Err(why) => failed = failed.or(Some(why)),
        }
    }
    if let Some(why) = failed {
        if !policy.ignores_failures {
            return Ok(Err(why));
        }
        tracing::debug!(policy = policy.name, why, "a mutation fails; the request passes without it");
    }
    let object = matching::convert_for(server, row, own, subresource, &object).await?.into_owned();
    Ok(Ok(Some(object)))
}

/// What stays the same for all mutations of an invocation.
struct Setting<'s> {
    attributes: &'s Attributes<'s>,
    row: &'s Row,
    policy: &'s Policy,
    old: Option<&'s Value>,
    param: Option<&'s Value>,
    namespace: Option<&'s Value>,
    permissions: &'s Permissions<'s>,
}

impl Setting<'_> {
    fn input<'a>(&'a self, object: &'a Value) -> Input<'a> {
        let mut input = Input::new(self.attributes, self.row, self.permissions, &self.policy.variables);
        (input.object, input.old) = (Some(object), self.old);
        (input.params, input.namespace) = (self.param, self.namespace);
        input
    }
}

fn mutate(
    mutation: &Mutation,
    input: &Input<'_>,
    object: &Value,
    row: &Row,
    subresource: Option<&str>,
) -> Result<Value, String> {
    let mut budget = Budget::new(REQUEST_COST_MAX);
    match mutation {
        Mutation::ApplyConfiguration(compiled) => {
            let made = input.evaluate(compiled, &mut budget).map_err(Stopped::text)?;
            patch::apply_configuration(&made, object, row, subresource)
        }
        Mutation::JsonPatch(compiled) => {
            let made = input.evaluate(compiled, &mut budget).map_err(Stopped::text)?;
            patch::json_patch(&made, object)
        }
    }
}

/// As complete as the kind wants it.
fn completed(mut object: Value, row: &Row, subresource: Option<&str>) -> Result<Value, String> {
    let kind = kind_of(row, subresource);
    if kind[2] == row.kind {
        typed::check_row(&mut object, row, &[], Strictness::Strict).map_err(|failure| failure.message)?;
        row.default(&mut object);
    } else {
        typed::check(&mut object, kind, &[], Strictness::Strict).map_err(|failure| failure.message)?;
    }
    Ok(object)
}

fn denial(policy: &Policy, binding: Option<&Binding>, why: &str, reason: Reason) -> Option<Denial> {
    if policy.ignores_failures {
        return None;
    }
    let message = match binding {
        Some(binding) => format!("policy '{}' with binding '{}' denied request: {why}", policy.name, binding.name),
        None => format!("policy {:?} denied request: {why}", policy.name),
    };
    Some(Denial { message, reason })
}

/// The first denial's message and reason, all of them as causes.
fn conclude(attributes: &Attributes<'_>, denials: Vec<Denial>) -> Result<(), Failure> {
    let Some(first) = denials.first() else { return Ok(()) };
    let mut failure = attributes.refuse("admission request denied by policy");
    failure.message.clone_from(&first.message);
    failure.reason = first.reason;
    for denial in denials {
        failure.details_mut().causes.push(Cause {
            reason: String::new(),
            message: denial.message,
            field: String::new(),
        });
    }
    Err(failure)
}
