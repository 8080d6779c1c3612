//! AlwaysDeny: nothing is admitted, streams neither.

use api::Failure;
use futures::future::BoxFuture;
use serde_json::Value;

use super::{Attributes, Stage};
use crate::server::ApiServer;

pub struct AlwaysDeny;

impl AlwaysDeny {
    fn deny<'a>(attributes: &Attributes<'_>) -> BoxFuture<'a, Result<(), Failure>> {
        let denied = attributes.refuse("admission control is denying all modifications");
        Box::pin(std::future::ready(Err(denied)))
    }
}

impl Stage for AlwaysDeny {
    fn is_active(&self) -> bool {
        true
    }

    fn mutate<'a>(
        &'a self,
        _server: &'a ApiServer,
        attributes: &'a mut Attributes<'_>,
        _object: Option<&'a mut Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        AlwaysDeny::deny(attributes)
    }

    fn validate<'a>(
        &'a self,
        _server: &'a ApiServer,
        attributes: &'a mut Attributes<'_>,
        _object: Option<&'a Value>,
        _old: Option<&'a Value>,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        AlwaysDeny::deny(attributes)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::Fixture;

    #[tokio::test]
    async fn a_server_that_denies_everything_starts_and_can_be_read() {
        let t = Fixture::with_flags(&["enable-admission-plugins=AlwaysDeny"]).await;
        t.get("", "namespaces/default").await.unwrap();
        let failure = t.create("", "configmaps", json!({"metadata": {"name": "a"}})).await.unwrap_err();
        assert_eq!(failure.message, "configmaps \"a\" is forbidden: admission control is denying all modifications");
        assert_eq!(t.delete("", "namespaces/default", None).await.unwrap_err().code, 403);
    }
}
