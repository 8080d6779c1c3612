//! The API server of this process, as one identity sees it: calls enter its pipeline behind the decoding.

use api::{Answer, Call, Failure, Listed, WatchResult};
use apiserver::{ApiServer, Identity};
use client::Backend;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

pub struct InProcess {
    pub server: ApiServer,
    pub identity: Identity,
}

impl Backend for InProcess {
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Answer, Failure>> {
        let (server, identity) = (self.server.clone(), self.identity.clone());
        Box::pin(async move { server.call(&identity, call).await })
    }

    fn list(&self, call: Call) -> BoxFuture<'static, Result<Listed, Failure>> {
        let (server, identity) = (self.server.clone(), self.identity.clone());
        Box::pin(async move { server.list(&identity, call).await })
    }

    fn watch(&self, call: Call) -> BoxStream<'static, WatchResult> {
        self.server.watch(&self.identity, call)
    }
}
