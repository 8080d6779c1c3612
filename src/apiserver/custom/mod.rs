//! Custom resources at run time: the rows that definitions make, their status, and the end of their objects.
//!
//! Two tasks follow the definitions. One ([`rows`]) makes the table of rows anew when one changes, gives each resource
//! its place in the watch cache, and then writes the definition's status: whoever sees `Established` is served. The
//! other ([`cleanup`]) deletes the objects of a definition that is being deleted, and then lets it go. Both look at what
//! is there and not at what happened.
//!
//! Invariants: the table is immutable and replaced as a whole; a row is in it only while its resource is in the watch
//! cache; a watch on a version that changed or went is ended.

mod cleanup;
mod conversion;
mod rows;
mod table;

use task::Shutdown;

pub use conversion::convert;
pub use table::CustomResources;

use crate::identity::Identity;
use crate::server::ApiServer;

/// Where definitions lie.
const DEFINITIONS: &[u8] = b"/registry/apiextensions.k8s.io/customresourcedefinitions/";
/// The name under which the server itself writes.
const MANAGER: &str = "kube-apiserver";

/// The server, as which it writes to definitions.
fn identity() -> Identity {
    Identity::master("system:apiserver")
}

/// Makes the rows of the definitions that are there, and begins to follow them.
pub fn start(server: &ApiServer, shutdown: &Shutdown) {
    rows::refresh(server);
    let follower = server.clone();
    task::restarting("custom-resources", shutdown.clone(), move || rows::follow(follower.clone()));
    let follower = server.clone();
    task::restarting("custom-resource-cleanup", shutdown.clone(), move || cleanup::follow(follower.clone()));
}

/// Definitions changed faster than they were followed, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    #[error("definitions changed faster than they were followed, from revision {complete_after}")]
    TooOld { complete_after: u64 },
    #[error("definitions have no cache")]
    NoCache,
}

#[cfg(test)]
mod tests;
