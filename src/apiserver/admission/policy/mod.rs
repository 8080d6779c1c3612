//! ValidatingAdmissionPolicy and MutatingAdmissionPolicy: rules that an administrator writes as expressions.
//!
//! Policies are compiled when they change ([`policies`]); for a request [`matching`] says which of them and of their
//! bindings count, [`params`] which parameters they are evaluated with, [`input`] what expressions see. Evaluation
//! never waits: what it asks the authorizer is looked up in between ([`permissions`]).

mod compile;
mod conditions;
mod declared;
mod figures;
mod input;
mod matching;
mod mutating;
mod params;
mod patch;
mod permissions;
mod policies;
pub mod status;
#[cfg(test)]
mod tests;
mod typecheck;
mod validating;

use std::borrow::Cow;

use api::{Failure, Fields, Row};
use serde_json::Value;

use super::Attributes;
use super::webhooks::matching::convert_for;
use crate::server::ApiServer;

pub use compile::check;
pub use conditions::Conditions;
pub use mutating::MutatingAdmissionPolicy;
pub use validating::ValidatingAdmissionPolicy;

/// The namespace that the request is in, from the store if the cache does not have it yet. A Namespace is in none.
async fn namespace_of(server: &ApiServer, attributes: &Attributes<'_>) -> Result<Option<Value>, Failure> {
    const PREFIX: &str = "/registry/namespaces/";
    let name = attributes.namespace;
    if name.is_empty() || attributes.kind() == ["", "v1", "Namespace"] {
        return Ok(None);
    }
    let cached = server.cache().resource(PREFIX.as_bytes()).and_then(|namespaces| namespaces.get(name));
    let stored = match cached {
        Some(stored) => stored,
        None => {
            let stored = server.storage().read(&format!("{PREFIX}{name}"), PREFIX.len()).await?;
            stored.ok_or_else(|| Failure::not_found("", "namespaces", name))?
        }
    };
    let mut namespace: Value = serde_json::from_slice(&stored.value).map_err(Failure::internal)?;
    if let Some(metadata) = namespace.object("metadata") {
        // Upstream shows the uid under this name.
        let uid = metadata.text("uid").to_owned();
        metadata.set("UID", uid);
    }
    Ok(Some(namespace))
}

/// An object as a policy for `row` sees it.
async fn shown<'a>(
    server: &ApiServer,
    attributes: &Attributes<'_>,
    row: &Row,
    object: Option<&'a Value>,
) -> Result<Option<Cow<'a, Value>>, Failure> {
    match object {
        Some(object) => convert_for(server, attributes.row, row, attributes.subresource, object).await.map(Some),
        None => Ok(None),
    }
}
