//! ValidatingAdmissionPolicy: expressions that must hold for an object to be taken.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use api::{Cause, Failure, Reason};
use cel::{Budget, REQUEST_COST_MAX, Value as Cel};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::super::webhooks::matching::{self, Matcher};
use super::compile::{Named, Policy, Validation};
use super::conditions;
use super::figures::{self, Action, ErrorType};
use super::input::{Input, Stopped};
use super::params;
use super::permissions::Permissions;
use super::policies::{Binding, Policies};
use crate::admission::{Attributes, Stage};
use crate::cache::Cache;
use crate::metrics::Text;
use crate::server::ApiServer;

/// Messages that expressions make are dropped beyond this length (upstream:
/// `MaxEvaluatedMessageExpressionSizeBytes`).
const MESSAGE_BYTES_MAX: usize = 5 * 1024;
const ANNOTATION_BYTES_MAX: usize = 10 * 1024;
/// Failures that the audit event tells of at most.
const FAILURES_MAX: usize = 50;

pub struct ValidatingAdmissionPolicy {
    policies: Policies,
    figures: figures::Validating,
}

/// A validation that did not hold, or could not be evaluated.
struct Refusal {
    index: usize,
    message: String,
    /// Empty for `Invalid`.
    reason: String,
    error: ErrorType,
    took: Duration,
}

/// What one policy with one parameter says.
#[derive(Default)]
struct Outcome {
    refusals: Vec<Refusal>,
    /// Validations that failed, which the policy ignores.
    ignored: Vec<(ErrorType, Duration)>,
    annotations: Vec<(String, String)>,
    /// Annotations that could not be evaluated: these deny, whatever the binding's actions are.
    annotation_errors: Vec<(String, Duration)>,
}

/// What a request gets from all policies.
#[derive(Default)]
struct Verdict {
    denied: Option<(String, String)>,
    failures: Vec<Value>,
}

impl ValidatingAdmissionPolicy {
    pub fn new(cache: &Cache) -> ValidatingAdmissionPolicy {
        let prefixes = ["/registry/validatingadmissionpolicies/", "/registry/validatingadmissionpolicybindings/"];
        let policies = Policies::new(cache, prefixes[0], prefixes[1]);
        ValidatingAdmissionPolicy { policies, figures: figures::Validating::default() }
    }

    async fn dispatch(
        &self,
        server: &ApiServer,
        attributes: &mut Attributes<'_>,
        object: Option<&Value>,
        old: Option<&Value>,
    ) -> Result<(), Failure> {
        if matching::is_exempt(attributes) {
            return Ok(());
        }
        let hooks = self.policies.current();
        let matcher = Matcher::new(server);
        let permissions = Permissions::new(attributes.user);
        let mut namespace = None;
        let mut verdict = Verdict::default();
        for hook in hooks.iter() {
            let policy = &*hook.policy;
            let matched = policy.constraints.matching(server, &matcher, attributes, object, old).await;
            let row = match matched {
                Ok(Some(row)) => row,
                Ok(None) => continue,
                Err(failure) => {
                    verdict.misconfigured(policy, None, &failure.message);
                    continue;
                }
            };
            if let Err(why) = params::check_kind(server, policy.param_kind.as_ref()) {
                verdict.misconfigured(policy, None, &why);
                continue;
            }
            let mut annotations = BTreeMap::new();
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
                let found = match found {
                    Ok(found) => found,
                    Err(why) => {
                        verdict.misconfigured(policy, Some(binding), &why);
                        continue;
                    }
                };
                if hook.needs_namespace && namespace.is_none() {
                    namespace = super::namespace_of(server, attributes).await?;
                }
                let seen = super::shown(server, attributes, &row, object).await?;
                let seen_old = super::shown(server, attributes, &row, old).await?;
                for param in found {
                    let evaluated = permissions.settle(server, || {
                        let mut input = Input::new(attributes, &row, &permissions, &policy.variables);
                        (input.object, input.old) = (seen.as_deref(), seen_old.as_deref());
                        (input.params, input.namespace) = (param.as_deref(), namespace.as_ref());
                        validate(policy, &input)
                    });
                    let outcome = evaluated.await?;
                    self.count(policy, binding, &outcome);
                    verdict.warn(policy, binding, &outcome, &mut attributes.warnings);
                    verdict.take(policy, binding, outcome, &mut annotations);
                }
            }
            for (key, values) in annotations {
                attributes.annotate(format!("{}/{key}", policy.name), values.join(", "));
            }
        }
        verdict.conclude(attributes)
    }

    fn count(&self, policy: &Policy, binding: &Binding, outcome: &Outcome) {
        let observe = |action, error, took| self.figures.observe(&policy.name, &binding.name, action, error, took);
        outcome.ignored.iter().for_each(|(error, took)| observe(Action::Allow, *error, *took));
        for refusal in &outcome.refusals {
            let actions = binding.actions.iter().filter_map(|action| Action::parse(action));
            actions.for_each(|action| observe(action, refusal.error, refusal.took));
        }
        for (why, took) in &outcome.annotation_errors {
            observe(Action::Deny, ErrorType::of(why), *took);
        }
    }
}

impl Stage for ValidatingAdmissionPolicy {
    fn is_active(&self) -> bool {
        !self.policies.is_empty()
    }

    fn write_figures(&self, out: &mut Text) {
        self.figures.write(out);
    }

    fn validate<'a>(
        &'a self,
        server: &'a ApiServer,
        attributes: &'a mut Attributes<'_>,
        object: Option<&'a Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(self.dispatch(server, attributes, object, old))
    }
}

impl Verdict {
    fn deny(&mut self, message: String, reason: &str) {
        self.denied.get_or_insert_with(|| (message, reason.to_owned()));
    }

    fn misconfigured(&mut self, policy: &Policy, binding: Option<&Binding>, why: &str) {
        if policy.ignores_failures {
            return;
        }
        let what = if binding.is_some() { "binding" } else { "policy" };
        self.deny(denial(policy, binding, &format!("failed to configure {what}: {why}")), "");
    }

    fn warn(&self, policy: &Policy, binding: &Binding, outcome: &Outcome, warnings: &mut Vec<String>) {
        if !binding.actions.iter().any(|action| action == "Warn") {
            return;
        }
        for refusal in &outcome.refusals {
            warnings.push(format!(
                "Validation failed for ValidatingAdmissionPolicy '{}' with binding '{}': {}",
                policy.name, binding.name, refusal.message
            ));
        }
    }

    fn take(
        &mut self,
        policy: &Policy,
        binding: &Binding,
        outcome: Outcome,
        annotations: &mut BTreeMap<String, Vec<String>>,
    ) {
        for refusal in outcome.refusals {
            if binding.actions.iter().any(|action| action == "Deny") {
                self.deny(denial(policy, Some(binding), &refusal.message), &refusal.reason);
            }
            if binding.actions.iter().any(|action| action == "Audit") && self.failures.len() < FAILURES_MAX {
                self.failures.push(json!({
                    "message": refusal.message, "policy": policy.name, "binding": binding.name,
                    "expressionIndex": refusal.index, "validationActions": binding.actions,
                }));
            }
        }
        for (key, value) in outcome.annotations {
            let values = annotations.entry(key).or_default();
            if !values.contains(&value) {
                values.push(value);
            }
        }
        for (why, _) in outcome.annotation_errors {
            self.deny(denial(policy, Some(binding), &why), "");
        }
    }

    fn conclude(self, attributes: &mut Attributes<'_>) -> Result<(), Failure> {
        if !self.failures.is_empty() {
            let failures = Value::Array(self.failures);
            attributes.annotate("validation.policy.admission.k8s.io/validation_failure", failures.to_string());
        }
        let Some((message, reason)) = self.denied else { return Ok(()) };
        let mut failure = attributes.refuse(&message);
        failure.reason = match reason.as_str() {
            "Forbidden" => Reason::Forbidden,
            "Unauthorized" => Reason::Unauthorized,
            "RequestEntityTooLarge" => Reason::RequestEntityTooLarge,
            _ => Reason::Invalid,
        };
        failure.code = failure.reason.code();
        failure.details_mut().causes.push(Cause { reason: String::new(), message, field: String::new() });
        Err(failure)
    }
}

fn denial(policy: &Policy, binding: Option<&Binding>, why: &str) -> String {
    match binding {
        Some(binding) => {
            let (policy, binding) = (&policy.name, &binding.name);
            format!("ValidatingAdmissionPolicy '{policy}' with binding '{binding}' denied request: {why}")
        }
        None => format!("ValidatingAdmissionPolicy '{}' denied request: {why}", policy.name),
    }
}

/// All validations and annotations of a policy.
fn validate(policy: &Policy, input: &Input<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut began = Instant::now();
    // From one to the next, so that one reading of the clock serves two.
    let mut lap = || {
        let now = Instant::now();
        now - std::mem::replace(&mut began, now)
    };
    if !policy.conditions.is_empty() {
        match conditions::hold(&policy.conditions, input) {
            Ok(true) => {}
            Ok(false) => return outcome,
            Err(why) => {
                outcome.fail(policy, 0, why, lap());
                return outcome;
            }
        }
        lap();
    }
    let mut budget = Budget::new(REQUEST_COST_MAX);
    for (index, validation) in policy.validations.iter().enumerate() {
        match input.evaluate(&validation.condition, &mut budget) {
            Ok(Cel::Bool(true)) => {}
            Ok(_) => match message(validation, input, &mut budget) {
                Ok(message) => {
                    let (reason, error) = (validation.reason.clone(), ErrorType::None);
                    outcome.refusals.push(Refusal { index, message, reason, error, took: lap() });
                }
                Err(why) => outcome.fail(policy, index, format!("failed messageExpression: {why}"), lap()),
            },
            // What follows could not be evaluated either.
            Err(Stopped::Budget) => {
                let mut outcome = Outcome::default();
                outcome.fail(policy, 0, Stopped::Budget.text(), lap());
                return outcome;
            }
            Err(Stopped::Failed(why)) => outcome.fail(policy, index, why, lap()),
        }
    }
    lap();
    let mut budget = Budget::new(REQUEST_COST_MAX);
    for annotation in &policy.annotations {
        match annotate(annotation, input, &mut budget) {
            Ok(Some(value)) => outcome.annotations.push((annotation.name.clone(), value)),
            Ok(None) => {}
            Err(_) if policy.ignores_failures => {}
            Err(why) => outcome.annotation_errors.push((why, lap())),
        }
    }
    outcome
}

impl Outcome {
    /// A validation, or what comes before all of them, could not be evaluated.
    fn fail(&mut self, policy: &Policy, index: usize, message: String, took: Duration) {
        let error = ErrorType::of(&message);
        if policy.ignores_failures {
            self.ignored.push((error, took));
        } else {
            self.refusals.push(Refusal { index, message, reason: String::new(), error, took });
        }
    }
}

/// The message for a validation that does not hold: the expression's if it makes a good one, or the one written, or
/// the validation itself. The error is that the budget is used up.
fn message(validation: &Validation, input: &Input<'_>, budget: &mut Budget) -> Result<String, String> {
    if let Some(expression) = &validation.message_expression {
        match input.evaluate(expression, budget) {
            Ok(Cel::String(text)) => {
                let text = text.trim();
                if !text.is_empty() && text.len() <= MESSAGE_BYTES_MAX && !text.contains('\n') {
                    return Ok(text.to_owned());
                }
            }
            Ok(_) => {}
            Err(Stopped::Budget) => return Err(Stopped::Budget.text()),
            Err(Stopped::Failed(why)) => tracing::debug!(why, "a messageExpression fails"),
        }
    }
    if !validation.message.is_empty() {
        return Ok(validation.message.clone());
    }
    Ok(format!("failed expression: {}", validation.condition.text.trim()))
}

fn annotate(annotation: &Named, input: &Input<'_>, budget: &mut Budget) -> Result<Option<String>, String> {
    let value = input.evaluate(&annotation.compiled, budget).map_err(Stopped::text)?;
    match &value {
        Cel::Null => Ok(None),
        Cel::String(text) => {
            let text = text.trim();
            let end = (0..=text.len().min(ANNOTATION_BYTES_MAX)).rev().find(|end| text.is_char_boundary(*end));
            Ok(text.get(..end.unwrap_or(0)).filter(|text| !text.is_empty()).map(str::to_owned))
        }
        other => Err(format!(
            "valueExpression '{}' resulted in unsupported return type: {}. Return type must be either string or null.",
            annotation.compiled.text,
            other.type_name()
        )),
    }
}
