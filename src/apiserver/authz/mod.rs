//! May they: `system:masters`, then the Node authorizer, then RBAC. Whoever says yes first decides.

pub mod escalation;
mod node;
mod policy;
mod rbac;

use std::sync::Arc;

use api::Failure;

pub use policy::{Rule, covers};
pub use rbac::Rbac;

use crate::cache::Cache;
use crate::identity::Identity;

/// What is about to be done, as RBAC sees it (upstream: `authorizer.Attributes`).
#[derive(Clone, Debug)]
pub enum Action<'a> {
    Resource {
        verb: &'a str,
        group: &'a str,
        resource: &'a str,
        subresource: &'a str,
        namespace: &'a str,
        name: &'a str,
    },
    /// A path that is no resource, such as `/healthz`.
    Path { verb: &'a str, path: &'a str },
}

pub enum Decision {
    Allow { reason: String },
    NoOpinion { reason: String },
}

pub struct Authorizer {
    node: node::NodeAuthorizer,
    rbac: Rbac,
}

impl Authorizer {
    pub fn new(cache: Arc<Cache>) -> Authorizer {
        Authorizer { node: node::NodeAuthorizer::new(cache.clone()), rbac: Rbac::new(cache) }
    }

    pub fn rbac(&self) -> &Rbac {
        &self.rbac
    }

    pub fn decide(&self, user: &Identity, action: &Action<'_>) -> Decision {
        if user.is_in(Identity::MASTERS) {
            return Decision::Allow { reason: String::new() };
        }
        let mut reason = String::new();
        if let Some(node) = user.node_name() {
            match self.node.decide(node, action) {
                Ok(()) => return Decision::Allow { reason: String::new() },
                Err(why) => reason = why,
            }
        }
        match self.rbac.decide(user, action) {
            Some(reason) => Decision::Allow { reason },
            None => Decision::NoOpinion { reason },
        }
    }

    /// Upstream's 403.
    pub fn require(&self, user: &Identity, action: &Action<'_>) -> Result<(), Failure> {
        match self.decide(user, action) {
            Decision::Allow { .. } => Ok(()),
            Decision::NoOpinion { reason } => Err(forbidden(user, action, &reason)),
        }
    }
}

fn forbidden(user: &Identity, action: &Action<'_>, reason: &str) -> Failure {
    let mut text;
    let (group, resource, name) = match action {
        Action::Path { verb, path } => {
            text = format!("User \"{}\" cannot {verb} path \"{path}\"", user.name);
            ("", "", "")
        }
        Action::Resource { verb, group, resource, subresource, namespace, name, .. } => {
            let full =
                if subresource.is_empty() { (*resource).to_owned() } else { format!("{resource}/{subresource}") };
            text = format!("User \"{}\" cannot {verb} resource \"{full}\" in API group \"{group}\"", user.name);
            if namespace.is_empty() {
                text.push_str(" at the cluster scope");
            } else {
                text.push_str(&format!(" in the namespace \"{namespace}\""));
            }
            (*group, *resource, *name)
        }
    };
    if !reason.is_empty() {
        text.push_str(": ");
        text.push_str(reason);
    }
    if resource.is_empty() {
        return Failure::new(api::Reason::Forbidden, format!("forbidden: {text}"));
    }
    Failure::forbidden(group, resource, name, text)
}
