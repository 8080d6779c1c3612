//! MutatingAdmissionWebhook: hooks that change the object, one after the other.

use std::sync::Arc;

use api::{Failure, Row};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::call::{self, Stopped};
use super::figures::{Ended, Figures};
use super::hooks::{Hook, Hooks};
use super::matching::{self, Matcher};
use super::review::Patch;
use crate::admission::{Attributes, Stage, kind_of};
use crate::cache::Cache;
use crate::notes::Annotation;
use crate::server::ApiServer;
use crate::verbs::typed::{self, Strictness};
use crate::webhook::Credentials;

const STAGE: &str = "MutatingAdmissionWebhook";

pub struct MutatingAdmissionWebhook {
    hooks: Hooks,
    figures: Arc<Figures>,
}

impl MutatingAdmissionWebhook {
    pub fn new(cache: &Cache, credentials: Option<Credentials>, figures: Arc<Figures>) -> MutatingAdmissionWebhook {
        let hooks = Hooks::new(cache, "/registry/mutatingwebhookconfigurations/", credentials);
        MutatingAdmissionWebhook { hooks, figures }
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
        let hooks = self.hooks.current();
        let matcher = Matcher::new(server);
        let mut called = false;
        for (index, hook) in hooks.iter().enumerate() {
            let invocation = matcher.invocation(hook, attributes, object.as_deref(), old).await?;
            let Some(invocation) = invocation else { continue };
            // The second time round nobody is called who was not called before.
            if again && !attributes.reinvocation.of(STAGE).is_due(&hook.id) {
                continue;
            }
            let place = format!("round_{}_index_{index}", u8::from(again));
            let begun = Instant::now();
            let (ended, changed) =
                one(server, attributes, hook, &invocation.row, object.as_deref_mut(), old, &place).await;
            self.figures.observe(&hook.name, "admit", attributes.operation, ended, begun.elapsed());
            let changed = changed?;
            if changed {
                attributes.reinvocation.of(STAGE).changed();
                attributes.reinvocation.wanted = true;
            }
            if hook.reinvoked {
                attributes.reinvocation.of(STAGE).note(&hook.id);
            }
            called = true;
        }
        if called {
            attributes.reinvocation.of(STAGE).leave(object.as_deref());
        }
        Ok(())
    }
}

impl Stage for MutatingAdmissionWebhook {
    fn is_active(&self) -> bool {
        !self.hooks.is_empty()
    }

    fn asks_others(&self) -> bool {
        true
    }

    fn mutate<'a>(
        &'a self,
        server: &'a ApiServer,
        attributes: &'a mut Attributes<'_>,
        object: Option<&'a mut Value>,
        old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(self.dispatch(server, attributes, object, old))
    }
}

/// Asks one hook and does what it says; true if that changed the object.
async fn one(
    server: &ApiServer,
    attributes: &mut Attributes<'_>,
    hook: &Hook,
    row: &Row,
    object: Option<&mut Value>,
    old: Option<&Value>,
    place: &str,
) -> (Ended, Result<bool, Failure>) {
    let mut stopped = None;
    let changed = ask(server, attributes, hook, row, object, old, place, &mut stopped).await;
    let changed = match changed {
        Ok(changed) => changed,
        Err(failure) => return (Ended::Internal, Err(failure)),
    };
    let note = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": changed});
    attributes.annotate(format!("mutation.webhook.admission.k8s.io/{place}"), note.to_string());
    let ended = stopped.as_ref().map_or(Ended::Passed, |stopped| stopped.ended(hook));
    match stopped {
        None => (ended, Ok(changed)),
        Some(Stopped::Unanswered(why)) if hook.ignores_failures => {
            tracing::warn!(webhook = hook.name, why, "a webhook does not answer; the request passes without it");
            attributes.annotate(format!("failed-open.mutation.webhook.admission.k8s.io/{place}"), &*hook.name);
            (ended, Ok(false))
        }
        Some(stopped) => (ended, Err(stopped.into_failure(hook))),
    }
}

/// The part of it that may fail for reasons of our own. Why the hook does not let it pass goes to `stopped`.
#[expect(clippy::too_many_arguments, reason = "one call's whole situation, used in one place")]
async fn ask(
    server: &ApiServer,
    attributes: &mut Attributes<'_>,
    hook: &Hook,
    row: &Row,
    object: Option<&mut Value>,
    old: Option<&Value>,
    place: &str,
    stopped: &mut Option<Stopped>,
) -> Result<bool, Failure> {
    let own = attributes.row.clone();
    let subresource = attributes.subresource;
    let seen = match object.as_deref() {
        Some(object) => Some(matching::convert_for(server, &own, row, subresource, object).await?),
        None => None,
    };
    let seen_old = match old {
        Some(old) => Some(matching::convert_for(server, &own, row, subresource, old).await?),
        None => None,
    };
    let mut verdict = match call::call(server, hook, true, attributes, row, seen.as_deref(), seen_old.as_deref()).await
    {
        Ok(verdict) => verdict,
        Err((why, verdict)) => {
            *stopped = Some(why);
            verdict
        }
    };
    attributes.warnings.append(&mut verdict.warnings);
    attributes.annotations.extend(call::annotations(hook, &mut verdict));
    let Some(patch) = verdict.patch.take() else { return Ok(false) };
    let Some(before) = seen.as_deref() else {
        return Err(Failure::internal(format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        )));
    };
    let patched = patched(row, subresource, before, &patch)?;
    let changed = patched != *before;
    let note = json!({"configuration": hook.configuration, "webhook": hook.name, "patch": patch.text,
        "patchType": "JSONPatch"});
    attributes.annotations.push(Annotation {
        key: format!("patch.webhook.admission.k8s.io/{place}"),
        value: note.to_string(),
        of_body: true,
    });
    if changed {
        let result = matching::convert_for(server, row, &own, subresource, &patched).await?.into_owned();
        drop(seen);
        if let Some(object) = object {
            *object = result;
        }
    }
    Ok(changed)
}

/// The object with the patch applied, as complete as its kind wants it.
fn patched(row: &Row, subresource: Option<&str>, seen: &Value, patch: &Patch) -> Result<Value, Failure> {
    let mut object = seen.clone();
    patch.operations.apply(&mut object).map_err(Failure::internal)?;
    let kind = kind_of(row, subresource);
    let own = kind[2] == row.kind;
    let checked = if own {
        typed::check_row(&mut object, row, &[], Strictness::Ignore)
    } else {
        typed::check(&mut object, kind, &[], Strictness::Ignore)
    };
    checked.map_err(|failure| Failure::internal(failure.message))?;
    if own {
        row.default(&mut object);
    }
    Ok(object)
}
