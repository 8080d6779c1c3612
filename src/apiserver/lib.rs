//! The request path of the Kubernetes API: identify, limit, authorise, admit, store, serve. The only user of `store`.
//!
//! A request over HTTPS and a [`Call`](api::Call) from a component in the same process meet behind the decoding:
//! authorisation, admission, validation and storage are the same code for both.

mod config;
mod identity;

pub use config::{BearerToken, Config, KubeletClient, Limits};
pub use identity::Identity;
