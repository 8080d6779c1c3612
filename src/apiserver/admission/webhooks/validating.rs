//! ValidatingAdmissionWebhook: hooks that refuse the object, all asked at the same time.

use std::sync::Arc;

use api::{Failure, Row};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use serde_json::Value;
use tokio::time::Instant;

use super::call::{self, Stopped};
use super::figures::{Ended, Figures};
use super::hooks::{Hook, Hooks};
use super::matching::{self, Matcher};
use super::review::Verdict;
use crate::admission::{Attributes, Stage};
use crate::cache::Cache;
use crate::server::ApiServer;
use crate::webhook::Credentials;

pub struct ValidatingAdmissionWebhook {
    hooks: Hooks,
    figures: Arc<Figures>,
}

impl ValidatingAdmissionWebhook {
    pub fn new(cache: &Cache, credentials: Option<Credentials>, figures: Arc<Figures>) -> ValidatingAdmissionWebhook {
        let hooks = Hooks::new(cache, "/registry/validatingwebhookconfigurations/", credentials);
        ValidatingAdmissionWebhook { hooks, figures }
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
        let hooks = self.hooks.current();
        let matcher = Matcher::new(server);
        let mut concerned = Vec::new();
        for hook in hooks.iter() {
            if let Some(invocation) = matcher.invocation(hook, attributes, object, old).await? {
                concerned.push((hook, invocation.row));
            }
        }
        let begun = Instant::now();
        let mut answers = FuturesUnordered::new();
        for (index, (hook, row)) in concerned.iter().enumerate() {
            answers.push(one(server, attributes, hook, row, object, old, index));
        }
        let mut refused = None;
        let mut said = Vec::new();
        while let Some((index, stopped, verdict)) = answers.next().await {
            let Some((hook, _)) = concerned.get(index) else { continue };
            let ended = stopped.as_ref().map_or(Ended::Passed, |stopped| stopped.ended(hook));
            self.figures.observe(&hook.name, "validating", attributes.operation, ended, begun.elapsed());
            let open = match stopped {
                Some(Stopped::Unanswered(why)) if hook.ignores_failures => {
                    tracing::warn!(
                        webhook = hook.name,
                        why,
                        "a webhook does not answer; the request passes without it"
                    );
                    true
                }
                Some(stopped) => {
                    // Whoever answers first is heard.
                    refused.get_or_insert(stopped.into_failure(hook));
                    false
                }
                None => false,
            };
            said.push((index, open, verdict));
        }
        drop(answers);
        said.sort_by_key(|(index, ..)| *index);
        for (index, open, mut verdict) in said {
            let Some((hook, _)) = concerned.get(index) else { continue };
            attributes.warnings.append(&mut verdict.warnings);
            attributes.annotations.extend(call::annotations(hook, &mut verdict));
            if open {
                let key = format!("failed-open.validating.webhook.admission.k8s.io/round_0_index_{index}");
                attributes.annotate(key, &*hook.name);
            }
        }
        refused.map_or(Ok(()), Err)
    }
}

impl Stage for ValidatingAdmissionWebhook {
    fn is_active(&self) -> bool {
        !self.hooks.is_empty()
    }

    fn asks_others(&self) -> bool {
        true
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

/// An object in the version that a hook wants.
async fn shown(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    row: &Row,
    object: Option<&Value>,
) -> Result<Option<Value>, Failure> {
    let Some(object) = object else { return Ok(None) };
    let shown = matching::convert_for(server, attributes.row, row, attributes.subresource, object).await?;
    Ok(Some(shown.into_owned()))
}

async fn one(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    hook: &Hook,
    row: &Row,
    object: Option<&Value>,
    old: Option<&Value>,
    index: usize,
) -> (usize, Option<Stopped>, Verdict) {
    let (object, old) = match (shown(server, attributes, row, object).await, shown(server, attributes, row, old).await)
    {
        (Ok(object), Ok(old)) => (object, old),
        (Err(failure), _) | (_, Err(failure)) => return (index, Some(Stopped::Refused(failure)), Verdict::default()),
    };
    match call::call(server, hook, false, attributes, row, object.as_ref(), old.as_ref()).await {
        Ok(verdict) => (index, None, verdict),
        Err((stopped, verdict)) => (index, Some(stopped), verdict),
    }
}
