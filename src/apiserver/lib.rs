//! The request path of the Kubernetes API: identify, limit, authorise, admit, store, serve. The only user of `store`.
//!
//! A request over HTTPS and a [`Call`](api::Call) from a component in the same process meet behind the decoding:
//! authorisation, admission, validation and storage are the same code for both. [`pipeline`] is a request's way from
//! top to bottom; [`verbs`] is what happens at its end.
//!
//! Invariants: an object is encoded when it is written, and every get, list and watch sends those bytes; a write is
//! one transaction on the revision that it was decided on; a watch misses nothing or is ended.

mod admission;
mod aggregator;
mod answers;
mod audit;
mod authn;
mod authz;
mod background;
mod bootstrap;
mod cache;
mod config;
mod custom;
mod declared;
mod encryption;
mod endpoints;
mod failures;
mod flags;
mod flowcontrol;
mod http;
mod identity;
mod impersonation;
mod metrics;
mod node;
mod notes;
mod options;
mod pipeline;
mod reload;
mod request;
mod reviewer;
mod server;
mod services;
mod storage;
#[cfg(test)]
mod testing;
mod verbs;
mod webhook;

pub use authn::TokenFileError;
pub use config::{
    AdmissionOptions, AggregationOptions, AuthenticationOptions, AuthorizationMode, AuthorizationOptions, BearerToken,
    Config, Error, KubeletClient, Limits, PodSecurityOptions, ProtectionOptions, ProxyClientFiles,
    RequestHeaderOptions, RuntimeConfig, ServiceAccountOptions,
};
pub use flags::FlagError;
pub use identity::Identity;
pub use server::ApiServer;
