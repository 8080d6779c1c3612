//! NamespaceLifecycle: nothing is created in a namespace that is not there or on its way out, and the first ones stay.

use api::{Cause, Failure, Fields, Reason};
use serde_json::Value;

use super::objects::Objects;
use super::{Attributes, Operation, Plugin};
use crate::cache::Cache;

const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

pub struct NamespaceLifecycle {
    /// Whether they are being deleted.
    terminating: Objects<bool>,
}

impl NamespaceLifecycle {
    pub fn new(cache: &Cache) -> NamespaceLifecycle {
        let terminating = |namespace: &Value| namespace.part("metadata").has("deletionTimestamp");
        NamespaceLifecycle { terminating: Objects::new(cache, "/registry/namespaces/", terminating) }
    }
}

impl Plugin for NamespaceLifecycle {
    fn mutate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        _object: &mut Value,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        if attributes.operation != Operation::Create || attributes.namespace.is_empty() {
            return Ok(());
        }
        // Whoever asks whether they may do something is told, whatever the namespace.
        if attributes.row.resource.group == "authorization.k8s.io" {
            return Ok(());
        }
        let Some(terminating) = self.terminating.get(attributes.namespace) else {
            return Err(Failure::not_found("", "namespaces", attributes.namespace));
        };
        if *terminating {
            let name = attributes.namespace;
            let mut failure = attributes
                .refuse(format!("unable to create new content in namespace {name} because it is being terminated"));
            failure.reason = Reason::Forbidden;
            failure.details_mut().causes.push(Cause {
                reason: "NamespaceTerminating".to_owned(),
                message: format!("namespace {name} is being terminated"),
                field: "metadata.namespace".to_owned(),
            });
            return Err(failure);
        }
        Ok(())
    }

    fn validate(
        &self,
        _cache: &Cache,
        attributes: &mut Attributes<'_>,
        _object: Option<&Value>,
        _old: Option<&Value>,
    ) -> Result<(), Failure> {
        let deletion = attributes.operation == Operation::Delete && attributes.is("", "namespaces");
        if deletion && IMMORTAL.contains(&attributes.name) {
            return Err(attributes.refuse("this namespace may not be deleted"));
        }
        Ok(())
    }
}
