//! What the Raft log carries: batches of commands, and what each of them came to.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::types::{Durability, Txn, TxnOutcome};

/// One change of the replicated state. Its effect is a function of the state before it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Command {
    Txn(Txn),
    /// Drop history before `revision`.
    Compact {
        revision: u64,
    },
    /// Leave out revisions that may have been handed out before a power cut and lost with it.
    Skip {
        revisions: u64,
    },
}

/// The commands that share one log entry, and with it one sync. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch {
    pub(crate) commands: Arc<Vec<Command>>,
}

impl Batch {
    pub(crate) fn new(commands: Vec<Command>) -> Batch {
        Batch { commands: Arc::new(commands) }
    }

    /// No command in it needs a sync before it is acknowledged.
    pub(crate) fn relaxed(&self) -> bool {
        self.commands.iter().all(|command| matches!(command, Command::Txn(Txn { durability: Durability::Relaxed, .. })))
    }
}

/// What a command came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Reply {
    Txn(TxnOutcome),
    Done { revision: u64 },
    Compacted { requested: u64, compacted: u64 },
    FutureRevision { requested: u64, revision: u64 },
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Reply {
        match refusal {
            Refusal::Compacted { requested, compacted } => Reply::Compacted { requested, compacted },
            Refusal::FutureRevision { requested, revision } => Reply::FutureRevision { requested, revision },
        }
    }
}

/// Why the state refused a read or a command: the revision named is outside of what it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Compacted { requested: u64, compacted: u64 },
    FutureRevision { requested: u64, revision: u64 },
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        match refusal {
            Refusal::Compacted { requested, compacted } => Error::Compacted { requested, compacted },
            Refusal::FutureRevision { requested, revision } => Error::FutureRevision { requested, revision },
        }
    }
}

/// The replies to one batch, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replies(pub(crate) Vec<Reply>);
