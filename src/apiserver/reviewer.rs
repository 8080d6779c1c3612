//! Asks a program for a review: authentication's TokenReview, authorisation's SubjectAccessReview.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::Fields;
use bytes::Bytes;
use serde_json::Value;

use crate::webhook::{Caller, Endpoint, EndpointError};

/// Upstream's backoff for these webhooks: tries, the first pause, and what the next ones are multiplied by.
const TRIES_MAX: u32 = 5;
const PAUSE_FIRST: Duration = Duration::from_millis(500);
const PAUSE_FACTOR: f64 = 1.5;

/// One program that answers reviews of one kind.
pub struct Reviewer {
    caller: Arc<Caller>,
    endpoint: Endpoint,
    api_version: String,
    kind: &'static str,
    /// For one try.
    timeout: Duration,
    pause_first: Duration,
}

impl Reviewer {
    /// `kubeconfig` says where the program is; `api_version` is of the reviews, such as `authentication.k8s.io/v1`.
    pub fn new(
        caller: Arc<Caller>,
        kubeconfig: &Path,
        api_version: String,
        kind: &'static str,
        timeout: Duration,
    ) -> Result<Reviewer, EndpointError> {
        let endpoint = Endpoint::from_kubeconfig(kubeconfig)?;
        Ok(Reviewer { caller, endpoint, api_version, kind, timeout, pause_first: PAUSE_FIRST })
    }

    /// With another pause before the second try.
    pub fn with_first_pause(self, pause_first: Duration) -> Reviewer {
        Reviewer { pause_first, ..self }
    }

    /// The status of the review of `spec`.
    pub async fn ask(&self, spec: &Value) -> Result<Value, String> {
        let (version, kind) = (&self.api_version, self.kind);
        let review = serde_json::json!({"apiVersion": version, "kind": kind, "metadata": {}, "spec": spec});
        let body = Bytes::from(review.to_string());
        let mut pause = self.pause_first;
        let mut tries = 0;
        let answer = loop {
            tries += 1;
            match self.caller.post(&self.endpoint, body.clone(), self.timeout).await {
                Ok(answer) => break answer,
                Err(error) if error.is_transient() && tries < TRIES_MAX => {
                    tracing::debug!(%error, kind, "a webhook is asked again");
                    tokio::time::sleep(pause).await;
                    pause = pause.mul_f64(PAUSE_FACTOR);
                }
                Err(error) => {
                    tracing::warn!(%error, kind, "a webhook does not answer");
                    return Err(error.to_string());
                }
            }
        };
        let mut answer: Value = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
        if answer.text("kind") != kind || answer.text("apiVersion") != version {
            return Err(format!("the webhook answered no {kind} of {version}"));
        }
        Ok(answer.get_mut("status").map(Value::take).unwrap_or_default())
    }
}
