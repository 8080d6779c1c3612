//! NamespaceAutoProvision makes the namespace that somebody writes into; NamespaceExists demands it of every change.

use api::{Call, Failure, Resource, Verb};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::{Attributes, Operation, Plugin};
use crate::identity::Identity;
use crate::server::ApiServer;

const PREFIX: &str = "/registry/namespaces/";

fn is_there(server: &ApiServer, name: &str) -> bool {
    server.cache().resource(PREFIX.as_bytes()).is_some_and(|namespaces| namespaces.get(name).is_some())
}

/// Makes the namespace of what is to be created, if it is not there (NamespaceAutoProvision).
pub async fn provide(server: &ApiServer, attributes: &Attributes<'_>) -> Result<(), Failure> {
    let name = attributes.namespace;
    if attributes.operation != Operation::Create || attributes.dry_run || name.is_empty() || is_there(server, name) {
        return Ok(());
    }
    let mut call = Call::new(Verb::Create, Resource::new("", "v1", "namespaces"));
    call.body = Some(json!({"metadata": {"name": name}}));
    match Box::pin(server.call(&Identity::master("system:apiserver"), call)).await {
        Ok(_) => Ok(()),
        Err(failure) if failure.is_already_exists() => Ok(()),
        Err(failure) => Err(attributes.refuse(failure.message)),
    }
}

pub struct NamespaceExists;

impl Plugin for NamespaceExists {
    fn asks(&self, attributes: &Attributes<'_>) -> bool {
        !attributes.namespace.is_empty() && attributes.operation != Operation::Connect
    }

    fn ask<'a>(
        &'a self,
        server: &'a ApiServer,
        attributes: &'a mut Attributes<'_>,
        _object: Option<&'a Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let name = attributes.namespace;
            if is_there(server, name) {
                return Ok(());
            }
            // The cache may be a moment behind.
            match server.storage().read(&format!("{PREFIX}{name}"), PREFIX.len()).await? {
                Some(_) => Ok(()),
                None => Err(Failure::not_found("", "namespaces", name)),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Fixture;

    async fn create(t: &Fixture, namespace: &str, name: &str) -> Result<Value, Failure> {
        let mut call = t.ask(Verb::Create, "", "configmaps", Some(json!({"metadata": {"name": name}})));
        call.namespace = Some(namespace.to_owned());
        t.call(call).await
    }

    #[tokio::test]
    async fn a_namespace_is_made_for_what_comes_into_it() {
        let t = Fixture::with_flags(&["enable-admission-plugins=NamespaceAutoProvision,NamespaceExists"]).await;
        let (one, other) = futures::join!(create(&t, "new", "a"), create(&t, "new", "b"));
        one.unwrap();
        other.unwrap();
        assert_eq!(t.get("", "namespaces/new").await.unwrap()["status"]["phase"], "Active");
    }

    #[tokio::test]
    async fn nothing_is_changed_where_there_is_no_namespace() {
        let flags = ["enable-admission-plugins=NamespaceExists", "disable-admission-plugins=NamespaceLifecycle"];
        let t = Fixture::with_flags(&flags).await;
        let failure = create(&t, "none", "a").await.unwrap_err();
        assert_eq!((failure.code, failure.message.as_str()), (404, "namespaces \"none\" not found"));
        create(&t, "default", "a").await.unwrap();
    }
}
