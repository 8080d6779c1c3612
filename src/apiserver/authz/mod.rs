//! May they: `system:masters` first, then the authorizers of `--authorization-mode` or of an AuthorizationConfiguration
//! in their order. Whoever says yes or no decides; who has no opinion passes the question on; at the end it is no.

mod attributes;
mod chain;
pub mod escalation;
mod figures;
mod match_conditions;
mod node;
mod policy;
mod rbac;
pub mod signers;
#[cfg(test)]
mod tests;
mod webhook;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use api::Failure;
use arc_swap::ArcSwap;
use task::Shutdown;

pub use attributes::{Action, Attributes, Requirement, Selector};
pub use policy::{Rule, covers};
pub use rbac::Rbac;

use crate::audit;
use crate::cache::Cache;
use crate::config::{AuthorizationOptions, Error};
use crate::identity::Identity;
use crate::metrics::Text;
use crate::reload;
use crate::webhook::Caller;
use chain::Step;
use figures::{Figures, Link};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Allow {
        reason: String,
    },
    /// Nobody else is asked.
    Deny {
        reason: String,
    },
    NoOpinion {
        reason: String,
    },
}

pub struct Authorizer {
    node: node::NodeAuthorizer,
    rbac: Rbac,
    chain: Arc<ArcSwap<Vec<Link>>>,
    figures: Arc<Figures>,
}

/// What somebody may do in a namespace, as far as it can be enumerated.
#[derive(Default)]
pub struct Enumerated {
    pub rules: Vec<Rule>,
    /// Why there may be more.
    pub incomplete: Vec<&'static str>,
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allow { .. })
    }

    pub fn reason(&self) -> &str {
        match self {
            Decision::Allow { reason } | Decision::Deny { reason } | Decision::NoOpinion { reason } => reason,
        }
    }

    fn no_opinion() -> Decision {
        Decision::NoOpinion { reason: String::new() }
    }
}

impl Authorizer {
    /// Reads the files that the options name. One of authorizers is followed until shutdown.
    pub fn new(
        cache: Arc<Cache>,
        options: &AuthorizationOptions,
        caller: Arc<Caller>,
        shutdown: &Shutdown,
    ) -> Result<Authorizer, Error> {
        let node = node::NodeAuthorizer::new(cache.clone());
        let figures = Arc::new(Figures::default());
        let counted = figures.clone();
        let links = move |steps: Vec<Step>| -> Vec<Link> { steps.into_iter().map(|step| counted.link(step)).collect() };
        let chain = match &options.config_file {
            None => Arc::new(ArcSwap::from_pointee(links(chain::of_flags(options, &caller)?))),
            Some(_) if options.chosen => {
                let why = "authorization-config cannot be used with authorization-mode or authorization-webhook flags";
                return Err(Error::Flags(why));
            }
            Some(path) => {
                let (steps, text) = chain::of_file(path, &caller)?;
                let chain = Arc::new(ArcSwap::from_pointee(links(steps)));
                let (path, shutdown, current) = (path.clone(), shutdown.clone(), chain.clone());
                task::spawn("authorization-config", async move {
                    reload::follow(path, text, shutdown, |text| {
                        match chain::of_text(&text, &caller) {
                            Ok(steps) => {
                                current.store(Arc::new(links(steps)));
                                tracing::info!("the authorizers were read anew");
                            }
                            Err(error) => tracing::error!(error, "the changed authorizers are not taken over"),
                        }
                        std::future::ready(true)
                    })
                    .await;
                });
                chain
            }
        };
        Ok(Authorizer { node, rbac: Rbac::new(cache), chain, figures })
    }

    pub fn rbac(&self) -> &Rbac {
        &self.rbac
    }

    pub async fn decide(&self, user: &Identity, attributes: &Attributes<'_>) -> Decision {
        if user.is_in(Identity::MASTERS) {
            return Decision::Allow { reason: String::new() };
        }
        let mut reasons: Vec<String> = Vec::new();
        // The guard may not be held while a webhook is asked.
        for link in self.chain.load_full().iter() {
            let decision = match &link.step {
                Step::AlwaysAllow => Decision::Allow { reason: String::new() },
                Step::AlwaysDeny => Decision::NoOpinion { reason: "Everything is forbidden.".to_owned() },
                Step::Webhook(webhook) => webhook.decide(user, attributes).await,
                Step::Node => match user.node_name().map(|node| self.node.decide(node, attributes)) {
                    None => Decision::no_opinion(),
                    Some(Ok(())) => Decision::Allow { reason: String::new() },
                    Some(Err(reason)) => Decision::NoOpinion { reason },
                },
                Step::Rbac => self.rbac.decide(user, &attributes.action),
            };
            match decision {
                Decision::NoOpinion { reason } if reason.is_empty() => {}
                Decision::NoOpinion { reason } => reasons.push(reason),
                decision => {
                    if decision.is_allowed() {
                        link.allows()
                    } else {
                        link.denies()
                    }
                    return decision;
                }
            }
        }
        Decision::NoOpinion { reason: reasons.join("\n") }
    }

    /// Somebody who needs no question to another program says yes. Nobody is told why, which spares making the text.
    fn is_allowed_here(&self, user: &Identity, attributes: &Attributes<'_>) -> bool {
        if user.is_in(Identity::MASTERS) {
            return true;
        }
        for link in self.chain.load().iter() {
            let allowed = match &link.step {
                Step::AlwaysAllow => true,
                Step::AlwaysDeny => false,
                Step::Webhook(_) => return false,
                Step::Node => user.node_name().is_some_and(|node| self.node.decide(node, attributes).is_ok()),
                Step::Rbac => self.rbac.allows(user, &attributes.action),
            };
            if allowed {
                link.allows();
                return true;
            }
        }
        false
    }

    /// Upstream's 403.
    pub async fn require(&self, user: &Identity, attributes: &Attributes<'_>) -> Result<(), Failure> {
        let began = Instant::now();
        // Reasons are made for those who read them: the recording, or whoever is refused.
        if !audit::is_recording() && self.is_allowed_here(user, attributes) {
            self.figures.allowed(began.elapsed());
            return Ok(());
        }
        let decision = self.decide(user, attributes).await;
        self.figures.settled(&decision, began.elapsed());
        match decision {
            Decision::Allow { reason } => {
                audit::annotate("authorization.k8s.io/decision", || "allow".to_owned());
                audit::annotate("authorization.k8s.io/reason", || reason);
                Ok(())
            }
            Decision::Deny { reason } | Decision::NoOpinion { reason } => {
                audit::annotate("authorization.k8s.io/decision", || "forbid".to_owned());
                audit::annotate("authorization.k8s.io/reason", || reason.clone());
                Err(forbidden(user, &attributes.action, &reason))
            }
        }
    }

    /// For `/metrics`.
    pub fn write_figures(&self, out: &mut Text) {
        self.figures.write(out);
    }

    /// What can be said of everything that somebody may do (upstream: `RuleResolver`).
    pub fn rules(&self, user: &Identity, namespace: &str) -> Enumerated {
        let mut all = Enumerated::default();
        for link in self.chain.load().iter() {
            match &link.step {
                Step::Node if user.node_name().is_some() => {
                    all.incomplete.push("node authorizer does not support user rule resolution");
                }
                Step::AlwaysAllow => {
                    let any = || vec!["*".to_owned()];
                    let resources = Rule { verbs: any(), api_groups: any(), resources: any(), ..Rule::default() };
                    all.rules.push(resources);
                    all.rules.push(Rule { verbs: any(), non_resource_urls: any(), ..Rule::default() });
                }
                Step::Node | Step::AlwaysDeny => {}
                Step::Webhook(_) => all.incomplete.push("webhook authorizer does not support user rule resolution"),
                Step::Rbac => all.rules.append(&mut self.rbac.rules(user, namespace)),
            }
        }
        all
    }
}

/// Upstream's 403 for an action.
pub fn forbidden(user: &Identity, action: &Action<'_>, reason: &str) -> Failure {
    let mut text;
    let (group, resource, name) = match action {
        Action::Path { verb, path } => {
            text = format!("User \"{}\" cannot {verb} path \"{path}\"", user.name);
            ("", "", "")
        }
        Action::Resource { verb, group, resource, subresource, namespace, name, .. } => {
            let full: Cow<'_, str> =
                if subresource.is_empty() { (*resource).into() } else { format!("{resource}/{subresource}").into() };
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
