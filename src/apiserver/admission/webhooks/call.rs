//! One call of one hook.

use api::{Failure, Row};
use serde_json::Value;

use super::figures::Ended;
use super::hooks::Hook;
use super::review::{self, Verdict};
use crate::admission::Attributes;
use crate::notes::Annotation;
use crate::server::{self, ApiServer};

/// Why a hook did not let the request pass.
pub enum Stopped {
    /// It could not be asked, or its answer makes no sense: its failure policy says what becomes of the request.
    Unanswered(String),
    /// It refuses, or the request cannot be put to it at all.
    Refused(Failure),
}

impl Stopped {
    /// For the figures.
    pub fn ended(&self, hook: &Hook) -> Ended {
        match self {
            Stopped::Unanswered(_) => Ended::Unanswered { rejected: !hook.ignores_failures },
            Stopped::Refused(failure) => Ended::Refused(failure.code),
        }
    }

    /// What the client learns.
    pub fn into_failure(self, hook: &Hook) -> Failure {
        match self {
            Stopped::Unanswered(why) => Failure::internal(format!("failed calling webhook {:?}: {why}", hook.name)),
            Stopped::Refused(failure) => failure,
        }
    }
}

/// Asks one hook. What it says besides is heard in any case. `row` is the resource in whose version the objects are.
pub async fn call(
    server: &ApiServer,
    hook: &Hook,
    mutating: bool,
    attributes: &Attributes<'_>,
    row: &Row,
    object: Option<&Value>,
    old: Option<&Value>,
) -> Result<Verdict, (Stopped, Verdict)> {
    let unanswered = |why: String| (Stopped::Unanswered(why), Verdict::default());
    if attributes.dry_run && !hook.takes_dry_run {
        let why = format!("admission webhook {:?} does not support dry run", hook.name);
        return Err((Stopped::Refused(Failure::bad_request(why)), Verdict::default()));
    }
    let version = hook.version.ok_or_else(|| {
        let why = "webhook does not accept known AdmissionReview versions (v1, v1beta1)";
        unanswered(format!("could not create admission objects: {why}"))
    })?;
    let endpoint = hook.endpoint.as_ref().map_err(|error| unanswered(format!("could not get REST client: {error}")))?;
    let uid = server::uid(&mut server.rng());
    let question = review::question(version, &uid, attributes, row, object, old)
        .map_err(|error| unanswered(format!("could not create admission objects: {error}")))?;
    let answer = server.caller().post(endpoint, question, hook.timeout).await;
    let answer = answer.map_err(|error| unanswered(format!("failed to call webhook: {error}")))?;
    let mut verdict =
        review::verdict(version, &uid, mutating, &answer).map_err(|error| unanswered(error.to_string()))?;
    if !verdict.allowed {
        let refused = Stopped::Refused(review::refusal(&hook.name, verdict.status.take().as_ref()));
        return Err((refused, verdict));
    }
    Ok(verdict)
}

/// What a hook wants to have noted, under its name.
pub fn annotations(hook: &Hook, verdict: &mut Verdict) -> Vec<Annotation> {
    let given = std::mem::take(&mut verdict.annotations).into_iter();
    given.map(|(key, value)| Annotation { key: format!("{}/{key}", hook.name), value, of_body: false }).collect()
}
