//! Where calls go.

use api::{Answer, Call, Encoded, Failure, Listed, WatchResult};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde_json::value::RawValue;

/// An API server, wherever it is, as one identity sees it.
pub trait Backend: Send + Sync + 'static {
    /// Makes one call. Not retried here: the caller knows whether it may be made twice.
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Answer, Failure>>;

    /// Opens a watch (`call.verb` is `Watch`). The stream ends when the server ends the watch; an `Err` in it, such as
    /// 410 Expired, is its last item.
    fn watch(&self, call: Call) -> BoxStream<'static, WatchResult>;

    /// Lists (`call.verb` is `List`), object by object. A server in the same process shares its bytes instead of
    /// writing a list.
    fn list(&self, call: Call) -> BoxFuture<'static, Result<Listed, Failure>> {
        let answer = self.call(call);
        Box::pin(async move { split(&answer.await?) })
    }
}

#[derive(serde::Deserialize)]
struct Page<'a> {
    metadata: Meta,
    #[serde(borrow, default)]
    items: Vec<&'a RawValue>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Meta {
    #[serde(default)]
    resource_version: String,
    #[serde(default, rename = "continue")]
    next: String,
}

/// The objects of a list. They share its bytes.
fn split(answer: &Answer) -> Result<Listed, Failure> {
    let page: Page<'_> = serde_json::from_slice(&answer.body).map_err(Failure::internal)?;
    Ok(Listed {
        objects: page.items.iter().map(|item| Encoded::whole(answer.body.slice_ref(item.get().as_bytes()))).collect(),
        resource_version: page.metadata.resource_version,
        continue_token: Some(page.metadata.next).filter(|next| !next.is_empty()),
    })
}
