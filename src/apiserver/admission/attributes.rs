//! What admission knows of a request besides the object.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::{Call, Failure, Fields, Row, Verb};
use serde_json::{Value, json};

use crate::identity::Identity;
use crate::notes::{Annotation, Notes};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
    /// A stream is opened: exec, attach, port-forward, proxy.
    Connect,
}

impl Operation {
    /// As webhooks' rules and reviews spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Create => "CREATE",
            Operation::Update => "UPDATE",
            Operation::Delete => "DELETE",
            Operation::Connect => "CONNECT",
        }
    }
}

/// What a plugin knows of the request besides the object (upstream: `admission.Attributes`).
pub struct Attributes<'a> {
    pub user: &'a Identity,
    pub operation: Operation,
    pub row: &'a Arc<Row>,
    pub subresource: Option<&'a str>,
    /// Empty for cluster-scoped resources.
    pub namespace: &'a str,
    pub name: &'a str,
    pub dry_run: bool,
    /// The request that it is about.
    pub call: &'a Call,
    /// The `DeleteOptions` in the body of a deletion.
    pub delete_options: Option<&'a Value>,
    /// Texts for the client's user.
    pub warnings: Vec<String>,
    /// For the request's audit event.
    pub annotations: Vec<Annotation>,
    pub reinvocation: Reinvocation,
    pub notes: &'a Notes,
}

/// What the mutating stages remember of each other within one request.
#[derive(Default)]
pub struct Reinvocation {
    /// It is the second time round.
    pub again: bool,
    /// Somebody changed the object: the chain goes round once more, for those who want to see what became of theirs.
    pub wanted: bool,
    stages: BTreeMap<&'static str, Memory>,
}

/// What one mutating stage remembers.
#[derive(Default)]
pub struct Memory {
    /// The object as the stage left it, where somebody may be called again.
    output: Option<Value>,
    /// Whoever was called and wants to be called again after changes.
    called: BTreeSet<String>,
    due: BTreeSet<String>,
}

impl Reinvocation {
    pub fn of(&mut self, stage: &'static str) -> &mut Memory {
        self.stages.entry(stage).or_default()
    }
}

impl Memory {
    /// `id` was called and is called again if the object changes from here on.
    pub fn note(&mut self, id: &str) {
        self.called.insert(id.to_owned());
    }

    /// The object was changed: all that were called so far are called again.
    pub fn changed(&mut self) {
        self.due.append(&mut self.called);
    }

    /// The stage is through with the object for this round.
    pub fn leave(&mut self, object: Option<&Value>) {
        self.output = object.filter(|_| !self.called.is_empty()).cloned();
    }

    /// The stage has the object again: what others changed since counts as a change.
    pub fn meet_again(&mut self, object: Option<&Value>) {
        if self.output.is_some() && self.output.as_ref() != object {
            self.changed();
        }
    }

    pub fn is_due(&self, id: &str) -> bool {
        self.due.contains(id)
    }
}

impl<'a> Attributes<'a> {
    /// The request is about objects of this kind themselves.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        self.subresource.is_none() && self.row.resource.group == group && self.row.resource.plural == plural
    }

    /// An update, in one of these ways, that changes the spec of a Pod on its node: the Pod as it is to be and as it was,
    /// and the node's name.
    pub fn changed_on_its_node<'v>(
        &self,
        subresources: &[Option<&str>],
        object: Option<&'v Value>,
        old: Option<&'v Value>,
    ) -> Option<(&'v Value, &'v Value, &'v str)> {
        let resource = &self.row.resource;
        let concerns = self.operation == Operation::Update
            && resource.group.is_empty()
            && resource.plural == "pods"
            && subresources.contains(&self.subresource);
        let (pod, old) = (object.filter(|_| concerns)?, old?);
        let node = pod.part("spec").text("nodeName");
        let changed = pod.part("metadata").int("generation") != old.part("metadata").int("generation");
        (!node.is_empty() && changed).then_some((pod, old, node))
    }

    pub fn refuse(&self, why: impl std::fmt::Display) -> Failure {
        Failure::forbidden(&self.row.resource.group, &self.row.resource.plural, self.name, why)
    }

    /// Group, version and kind of the object that is admitted: a subresource may have its own.
    pub fn kind(&self) -> [&'a str; 3] {
        kind_of(self.row, self.subresource)
    }

    /// The namespace as reviews and rules see it: a Namespace is in itself.
    pub fn review_namespace(&self) -> &'a str {
        let namespaces = self.row.resource.group.is_empty() && self.row.resource.plural == "namespaces";
        if namespaces { self.name } else { self.namespace }
    }

    /// The operation's options: `CreateOptions`, `UpdateOptions`, `DeleteOptions`; none for streams.
    pub fn options(&self) -> Option<Value> {
        let kind = match self.operation {
            Operation::Create => "CreateOptions",
            Operation::Update => "UpdateOptions",
            Operation::Delete => "DeleteOptions",
            Operation::Connect => return None,
        };
        let mut options = match self.delete_options {
            Some(given) if self.operation == Operation::Delete => given.clone(),
            _ => json!({}),
        };
        options.set("kind", kind);
        options.set("apiVersion", "meta.k8s.io/v1");
        let given = &self.call.options;
        if self.dry_run {
            options.set("dryRun", json!(["All"]));
        }
        if self.operation == Operation::Delete {
            if let Some(seconds) = given.grace_period_seconds.filter(|_| !options.has("gracePeriodSeconds")) {
                options.set("gracePeriodSeconds", seconds);
            }
            if let Some(policy) = given.propagation_policy.as_deref().filter(|_| !options.has("propagationPolicy")) {
                options.set("propagationPolicy", policy);
            }
            return Some(options);
        }
        if let Some(manager) = given.field_manager.as_deref() {
            options.set("fieldManager", manager);
        }
        if let Some(validation) = given.field_validation.as_deref() {
            options.set("fieldValidation", validation);
        } else if matches!(self.call.verb, Verb::Create | Verb::Update | Verb::Patch) {
            options.set("fieldValidation", "Warn");
        }
        Some(options)
    }

    pub fn annotate(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.annotations.push(Annotation { key: key.into(), value: value.into(), of_body: false });
    }

    /// What was said so far goes to the request's notes, where it outlives a refusal.
    pub(super) fn hand_over(&mut self) {
        if !self.warnings.is_empty() {
            self.notes.warn(self.warnings.drain(..));
        }
        if !self.annotations.is_empty() {
            self.notes.annotate(self.annotations.drain(..));
        }
    }
}

/// Group, version and kind of what a resource or its subresource takes.
pub fn kind_of<'a>(row: &'a Row, subresource: Option<&str>) -> [&'a str; 3] {
    let own = [row.resource.group.as_ref(), row.resource.version.as_ref(), row.kind.as_ref()];
    let Some(subresource) = subresource.and_then(|name| row.subresource(name)) else { return own };
    if subresource.version.is_empty() {
        return [own[0], own[1], &subresource.kind];
    }
    [&subresource.group, &subresource.version, &subresource.kind]
}
