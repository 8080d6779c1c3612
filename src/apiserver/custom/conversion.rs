//! Calls conversion webhooks.

use std::time::Duration;

use api::Failure;
use api::custom::{Conversion, Definition, conversion};
use bytes::Bytes;
use serde_json::Value;

use crate::server::{ApiServer, uid};
use crate::webhook::Endpoint;

/// How long a webhook may take (upstream: 30 s).
const CALL_MAX: Duration = Duration::from_secs(30);

/// Converts objects into another version by the definition's webhook.
pub async fn convert(
    server: &ApiServer,
    definition: &Definition,
    objects: Vec<Value>,
    desired_api_version: &str,
) -> Result<Vec<Value>, Failure> {
    let Conversion::Webhook { client, review_versions } = &definition.conversion else { return Ok(objects) };
    let from = objects.first().and_then(|object| object.get("apiVersion")).and_then(Value::as_str).unwrap_or_default();
    let failed =
        |why: String| Failure::internal(format!("conversion webhook for {from}, Kind={} {why}", definition.kind));
    let uid = uid(&mut server.rng());
    let (version, review) = conversion::review(review_versions, &uid, desired_api_version, &objects)
        .map_err(|why| failed(format!("failed: {why}")))?;
    let endpoint = match server.custom().endpoint_of(&definition.name) {
        Some(endpoint) => endpoint,
        None => Endpoint::from_client_config(client).map_err(|error| failed(format!("failed: {error}")))?,
    };
    let body = Bytes::from(review.to_string());
    let answer = server.caller().post(&endpoint, body, CALL_MAX).await;
    let answer = answer.map_err(|error| failed(format!("failed: {error}")))?;
    let answer: Value = serde_json::from_slice(&answer).map_err(|error| failed(format!("failed: {error}")))?;
    conversion::converted(&answer, &version, &uid, desired_api_version, &objects).map_err(failed)
}
