//! Where calls go.

use api::{Answer, Call, Failure, WatchResult};
use futures::future::BoxFuture;
use futures::stream::BoxStream;

/// An API server, wherever it is, as one identity sees it.
pub trait Backend: Send + Sync + 'static {
    /// Makes one call. Not retried here: the caller knows whether it may be made twice.
    fn call(&self, call: Call) -> BoxFuture<'static, Result<Answer, Failure>>;

    /// Opens a watch (`call.verb` is `Watch`). The stream ends when the server ends the watch; an `Err` in it, such as
    /// 410 Expired, is its last item.
    fn watch(&self, call: Call) -> BoxStream<'static, WatchResult>;
}
