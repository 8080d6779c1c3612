//! The packet filter: nf_tables over its own netlink protocol.
//!
//! What is wanted is said with the plain values of [`model`]; [`table::Table`] compares it with what was applied and
//! yields the changes; [`encode`] and [`expression`] write these as messages; [`connection::Connection`] sends them as one transaction,
//! which takes effect as a whole or not at all. A packet sees the rules from before or from after, never a mixture.
//!
//! [`Watch`] hears when another program removes a table.
//!
//! Limitations: a base chain's hook and a set's type never change under the same name (delete the table instead), and
//! what others write into a table of ours is noticed only when a transaction fails; the table is then replaced.

mod connection;
mod encode;
mod expression;
mod model;
mod table;
mod text;
mod watch;

pub use connection::Connection;
pub use model::{
    BaseChain, Chain, ChainKind, Element, Family, Field, Fragment, Hook, KeyPart, Protocol, Rule, SetSpec, Statement,
    Verdict, priority,
};
pub use table::{Change, Table};
pub use watch::Watch;
