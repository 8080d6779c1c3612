//! Policies as they are worked with, and what is wrong with them when they are written.

use api::{FieldError, Fields, Row};
use cel::{Decl, Env, Program, Type};
use serde_json::Value;

use super::conditions::Conditions;
use super::declared::{self, Extras, JSON_PATCH, OBJECT, VariableTypes};
use super::matching::Constraints;

/// An expression and what became of it; the error is for clients.
pub struct Compiled {
    pub text: String,
    pub program: Result<Program, String>,
}

pub struct Validation {
    pub condition: Compiled,
    pub message: String,
    pub message_expression: Option<Compiled>,
    /// Empty for `Invalid`.
    pub reason: String,
}

/// `matchConditions` and `variables` have names.
pub struct Named {
    pub name: String,
    pub compiled: Compiled,
}

pub enum Mutation {
    ApplyConfiguration(Compiled),
    JsonPatch(Compiled),
}

/// A policy of either kind.
pub struct Policy {
    pub name: String,
    /// `failurePolicy: Ignore`.
    pub ignores_failures: bool,
    pub constraints: Constraints,
    /// `apiVersion` and `kind` of parameters.
    pub param_kind: Option<(String, String)>,
    pub conditions: Vec<Named>,
    pub variables: Vec<Named>,
    pub validations: Vec<Validation>,
    /// Values of annotations of the audit event.
    pub annotations: Vec<Named>,
    pub mutations: Vec<Mutation>,
    /// `reinvocationPolicy: IfNeeded`.
    pub reinvoked: bool,
}

/// What an expression is for decides the type it must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Condition,
    Message,
    Annotation,
    Variable,
    ApplyConfiguration,
    JsonPatch,
}

/// Compiles an expression for a purpose. The error is upstream's `Detail`.
pub fn compile(env: &Env, text: &str, purpose: Purpose) -> Result<Program, String> {
    let program = env.compile(text).map_err(|errors| format!("compilation failed: {errors}"))?;
    let found = program.result();
    let object = |name: &str| matches!(found, Type::Object(object) if object.name() == name);
    let (fits, wanted) = match purpose {
        Purpose::Condition => (matches!(found, Type::Bool), "bool"),
        Purpose::Message => (matches!(found, Type::String), "string"),
        Purpose::Annotation => {
            if matches!(found, Type::String | Type::Null) {
                return Ok(program);
            }
            return Err(format!("must evaluate to one of [string null_type] but got {found}"));
        }
        Purpose::Variable => (true, ""),
        Purpose::ApplyConfiguration => (object(OBJECT), OBJECT),
        Purpose::JsonPatch => {
            let of_patches = |ty: &Type| matches!(ty, Type::Object(object) if object.name() == JSON_PATCH);
            (matches!(found, Type::List(items) if of_patches(items)), "list(JSONPatch)")
        }
    };
    if fits { Ok(program) } else { Err(format!("must evaluate to {wanted} but got {found}")) }
}

/// Expressions of a policy, compiled one after the other: each sees the variables before it.
pub struct Compiler {
    object: Decl,
    params: Decl,
    extras: Extras,
    variables: VariableTypes,
}

impl Compiler {
    /// For a policy's `spec`; `object` and `params` declare what it is about, as far as it is known.
    pub fn new(spec: &Value, object: Decl, params: Decl) -> Compiler {
        let extras = Extras { params: spec.has("paramKind"), authorizer: true, patches: false };
        Compiler { object, params, extras, variables: VariableTypes::default() }
    }

    fn env(&self, extras: Extras) -> Env {
        let variables = Decl::Object(std::sync::Arc::new(self.variables.clone()));
        declared::environment(self.object.clone(), self.params.clone(), extras).variable("variables", variables)
    }

    pub fn compile(&self, text: &str, purpose: Purpose) -> Compiled {
        let patches = matches!(purpose, Purpose::ApplyConfiguration | Purpose::JsonPatch);
        // Messages and annotations do not ask what others may do.
        let authorizer = purpose != Purpose::Message;
        let env = self.env(Extras { patches, authorizer, ..self.extras });
        Compiled { text: text.to_owned(), program: compile(&env, text, purpose) }
    }

    /// A variable, from here on known by its name.
    pub fn variable(&mut self, variable: &Value) -> Named {
        let name = variable.text("name").to_owned();
        let compiled = self.compile(variable.text("expression"), Purpose::Variable);
        let ty = compiled.program.as_ref().map_or(Type::Dyn, |program| program.result().clone());
        self.variables.known.push((name.clone(), ty));
        Named { name, compiled }
    }
}

impl Policy {
    pub fn compile(policy: &Value) -> Policy {
        let spec = policy.part("spec");
        let mut compiler = Compiler::new(spec, Decl::dynamic(), Decl::dynamic());
        let variables = spec.list("variables").iter().map(|variable| compiler.variable(variable)).collect();
        let named = |list: &str, name: &str, expression: &str, purpose: Purpose| {
            let one = |item: &Value| Named {
                name: item.text(name).to_owned(),
                compiled: compiler.compile(item.text(expression), purpose),
            };
            spec.list(list).iter().map(one).collect::<Vec<Named>>()
        };
        let validation = |item: &Value| Validation {
            condition: compiler.compile(item.text("expression"), Purpose::Condition),
            message: item.text("message").trim().to_owned(),
            message_expression: Some(item.text("messageExpression"))
                .filter(|text| !text.is_empty())
                .map(|text| compiler.compile(text, Purpose::Message)),
            reason: item.text("reason").to_owned(),
        };
        let mutation = |item: &Value| {
            if item.text("patchType") == "JSONPatch" {
                let text = item.part("jsonPatch").text("expression");
                return Mutation::JsonPatch(compiler.compile(text, Purpose::JsonPatch));
            }
            let text = item.part("applyConfiguration").text("expression");
            Mutation::ApplyConfiguration(compiler.compile(text, Purpose::ApplyConfiguration))
        };
        let kind = spec.at("paramKind").map(|kind| (kind.text("apiVersion").to_owned(), kind.text("kind").to_owned()));
        Policy {
            name: policy.part("metadata").text("name").to_owned(),
            ignores_failures: spec.text("failurePolicy") == "Ignore",
            constraints: Constraints::compile(spec.part("matchConstraints")),
            param_kind: kind,
            conditions: named("matchConditions", "name", "expression", Purpose::Condition),
            validations: spec.list("validations").iter().map(validation).collect(),
            annotations: named("auditAnnotations", "key", "valueExpression", Purpose::Annotation),
            mutations: spec.list("mutations").iter().map(mutation).collect(),
            variables,
            reinvoked: spec.text("reinvocationPolicy") == "IfNeeded",
        }
    }

    /// Some expression needs the namespace's object.
    pub fn mentions(&self, variable: &str) -> bool {
        let in_one = |compiled: &Compiled| compiled.program.as_ref().is_ok_and(|program| program.mentions(variable));
        let in_named = |named: &[Named]| named.iter().any(|one| in_one(&one.compiled));
        let in_validation = |validation: &Validation| {
            in_one(&validation.condition) || validation.message_expression.as_ref().is_some_and(in_one)
        };
        let in_mutation = |mutation: &Mutation| match mutation {
            Mutation::ApplyConfiguration(compiled) | Mutation::JsonPatch(compiled) => in_one(compiled),
        };
        in_named(&self.conditions)
            || in_named(&self.variables)
            || in_named(&self.annotations)
            || self.validations.iter().any(in_validation)
            || self.mutations.iter().any(in_mutation)
    }
}

const GROUP: &str = "admissionregistration.k8s.io";

/// Expressions of a policy or webhook configuration that do not compile, as upstream's validation names them. Anything
/// else has none, and what an update leaves as it was is not looked at again.
pub fn check(row: &Row, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    if row.resource.group != GROUP {
        return Vec::new();
    }
    match &*row.resource.plural {
        "mutatingwebhookconfigurations" | "validatingwebhookconfigurations" => check_webhooks(object, old),
        "mutatingadmissionpolicies" | "validatingadmissionpolicies" => check_policy(object, old),
        _ => Vec::new(),
    }
}

fn check_webhooks(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    for (index, hook) in object.list("webhooks").iter().enumerate() {
        let written = hook.list("matchConditions");
        let before = old.and_then(|old| old.list("webhooks").get(index));
        if before.is_some_and(|before| before.list("matchConditions") == written) {
            continue;
        }
        for (condition, text, why) in Conditions::compile(written).errors() {
            let field = format!("webhooks[{index}].matchConditions[{condition}].expression");
            errors.push(FieldError::invalid(field, &Value::from(text), why));
        }
    }
    errors
}

fn check_policy(object: &Value, old: Option<&Value>) -> Vec<FieldError> {
    let spec = object.part("spec");
    if old.is_some_and(|old| old.part("spec") == spec) {
        return Vec::new();
    }
    let mut errors = Vec::new();
    let mut note = |field: String, compiled: &Compiled| {
        if let Err(why) = &compiled.program {
            errors.push(FieldError::invalid(field, &Value::from(compiled.text.as_str()), why));
        }
    };
    let mut compiler = Compiler::new(spec, Decl::dynamic(), Decl::dynamic());
    for (index, variable) in spec.list("variables").iter().enumerate() {
        note(format!("spec.variables[{index}].expression"), &compiler.variable(variable).compiled);
    }
    for (list, field, purpose) in [
        ("matchConditions", "expression", Purpose::Condition),
        ("validations", "expression", Purpose::Condition),
        ("validations", "messageExpression", Purpose::Message),
        ("auditAnnotations", "valueExpression", Purpose::Annotation),
    ] {
        for (index, item) in spec.list(list).iter().enumerate() {
            let text = item.text(field);
            if !text.is_empty() {
                note(format!("spec.{list}[{index}].{field}"), &compiler.compile(text, purpose));
            }
        }
    }
    for (index, item) in spec.list("mutations").iter().enumerate() {
        for (field, purpose) in [("applyConfiguration", Purpose::ApplyConfiguration), ("jsonPatch", Purpose::JsonPatch)]
        {
            let text = item.part(field).text("expression");
            if !text.is_empty() {
                note(format!("spec.mutations[{index}].{field}.expression"), &compiler.compile(text, purpose));
            }
        }
    }
    errors
}
