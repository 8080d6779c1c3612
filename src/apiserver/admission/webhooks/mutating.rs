//! MutatingAdmissionWebhook: hooks that change the object, one after the other.

use api::{Failure, Fields, Row};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::call::{self, Stopped};
use super::hooks::{Hook, Hooks};
use super::matching::{self, Matcher};
use super::review::Patch;
use crate::admission::{Attributes, Stage, kind_of};
use crate::cache::Cache;
use crate::notes::Annotation;
use crate::server::ApiServer;
use crate::verbs::typed::{self, Strictness};

const STAGE: &str = "MutatingAdmissionWebhook";

pub struct MutatingAdmissionWebhook {
    hooks: Hooks,
}

impl MutatingAdmissionWebhook {
    pub fn new(cache: &Cache) -> MutatingAdmissionWebhook {
        MutatingAdmissionWebhook { hooks: Hooks::new(cache, "/registry/mutatingwebhookconfigurations/") }
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
            let changed = one(server, attributes, hook, &invocation.row, object.as_deref_mut(), old, &place).await?;
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
) -> Result<bool, Failure> {
    let own = attributes.row.clone();
    let subresource = attributes.subresource;
    let shown = match object.as_deref() {
        Some(object) => Some(matching::convert_for(server, &own, row, subresource, object).await?),
        None => None,
    };
    let shown_old = match old {
        Some(old) => Some(matching::convert_for(server, &own, row, subresource, old).await?),
        None => None,
    };
    let (seen, seen_old) = (shown.as_deref(), shown_old.as_deref());
    let mut changed = false;
    let mut stopped = None;
    let mut verdict = match call::call(server, hook, true, attributes, row, seen, seen_old).await {
        Ok(verdict) => verdict,
        Err((why, verdict)) => {
            stopped = Some(why);
            verdict
        }
    };
    attributes.warnings.append(&mut verdict.warnings);
    attributes.annotations.extend(call::annotations(hook, &mut verdict));
    if let Some(patch) = verdict.patch.take() {
        let Some(seen) = seen else {
            return Err(Failure::internal(format!(
                "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
                hook.name
            )));
        };
        let patched = patched(row, attributes.subresource, seen, &patch)?;
        changed = patched != *seen;
        let note = json!({"configuration": hook.configuration, "webhook": hook.name, "patch": patch.text,
            "patchType": "JSONPatch"});
        attributes.annotations.push(Annotation {
            key: format!("patch.webhook.admission.k8s.io/{place}"),
            value: note.to_string(),
            of_body: true,
        });
        if changed {
            let result = matching::convert_for(server, row, &own, subresource, &patched).await?.into_owned();
            drop((shown, patched));
            if let Some(object) = object {
                *object = result;
            }
        }
    }
    let note = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": changed});
    attributes.annotate(format!("mutation.webhook.admission.k8s.io/{place}"), note.to_string());
    match stopped {
        None => Ok(changed),
        Some(Stopped::Unanswered(why)) if hook.ignores_failures => {
            tracing::warn!(webhook = hook.name, why, "a webhook does not answer; the request passes without it");
            attributes.annotate(format!("failed-open.mutation.webhook.admission.k8s.io/{place}"), &*hook.name);
            Ok(false)
        }
        Some(stopped) => Err(stopped.into_failure(hook)),
    }
}

/// The object with the patch applied, as complete as its kind wants it.
fn patched(row: &Row, subresource: Option<&str>, seen: &Value, patch: &Patch) -> Result<Value, Failure> {
    let mut object = seen.clone();
    patch.operations.apply(&mut object).map_err(Failure::internal)?;
    let kind = kind_of(row, subresource);
    typed::check(&mut object, kind, &[], Strictness::Ignore).map_err(|failure| Failure::internal(failure.message))?;
    if kind[2] == row.kind {
        row.default(&mut object);
    }
    // Nobody owns fields by a patch; what a hook makes of the owners' list does not count if it is no list.
    let owners = |value: &Value| value.part("metadata").at("managedFields").cloned();
    if owners(&object).is_some_and(|owners| !owners.is_array())
        && let Some(metadata) = object.object("metadata")
    {
        match owners(seen) {
            Some(before) => metadata.set("managedFields", before),
            None => metadata.unset("managedFields"),
        }
    }
    Ok(object)
}
