//! What the Raft log carries: batches of commands, and what each of them came to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::types::{Durability, LEASES_MAX, Lease, LeaseId, Txn, TxnOutcome};

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
    LeaseGrant(Lease),
    /// End a lease and delete its keys: because it was asked for, or because nobody kept it alive.
    LeaseRevoke {
        id: LeaseId,
    },
    /// What is left of leases, for those who lead after this.
    LeaseCheckpoint {
        remaining: Vec<Remaining>,
    },
}

/// What was left of a lease; 0 seconds say that it is as good as new.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remaining {
    pub(crate) id: LeaseId,
    pub(crate) seconds: i64,
}

impl Command {
    /// It frees room, or keeps what was promised: it is taken when the disk or the quota is full.
    pub(crate) fn is_needed(&self) -> bool {
        matches!(self, Command::Compact { .. } | Command::Skip { .. } | Command::LeaseRevoke { .. })
    }
}

/// The commands that share one log entry, and with it one sync. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Batch {
    pub(crate) commands: Arc<Vec<Command>>,
    #[serde(skip)]
    taken: Taken,
}

/// Whether a batch has come into this member's log. All batches are equal in this.
#[derive(Clone, Debug, Default)]
struct Taken(Option<Arc<AtomicBool>>);

impl PartialEq for Taken {
    fn eq(&self, _: &Taken) -> bool {
        true
    }
}

impl Eq for Taken {}

impl Batch {
    pub(crate) fn new(commands: Vec<Command>) -> Batch {
        Batch { commands: Arc::new(commands), taken: Taken(None) }
    }

    /// One that can be asked whether it has come into the log.
    pub(crate) fn proposed(commands: Vec<Command>) -> Batch {
        Batch { commands: Arc::new(commands), taken: Taken(Some(Arc::default())) }
    }

    /// It is in the log from now on; what becomes of it there is not known before it is applied.
    pub(crate) fn take(&self) {
        if let Taken(Some(taken)) = &self.taken {
            taken.store(true, Ordering::Release);
        }
    }

    pub(crate) fn is_taken(&self) -> bool {
        matches!(&self.taken, Taken(Some(taken)) if taken.load(Ordering::Acquire))
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
    Refused(Refusal),
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Reply {
        Reply::Refused(refusal)
    }
}

/// Why the state refused a read or a command. It changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Refusal {
    Compacted {
        requested: u64,
        compacted: u64,
    },
    FutureRevision {
        requested: u64,
        revision: u64,
    },
    /// A put keeps the value or the lease of a key that does not exist.
    KeyNotFound,
    LeaseNotFound {
        id: LeaseId,
    },
    LeaseExists {
        id: LeaseId,
    },
    TooManyLeases,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        match refusal {
            Refusal::Compacted { requested, compacted } => Error::Compacted { requested, compacted },
            Refusal::FutureRevision { requested, revision } => Error::FutureRevision { requested, revision },
            Refusal::KeyNotFound => Error::KeyNotFound,
            Refusal::LeaseNotFound { id } => Error::LeaseNotFound { id },
            Refusal::LeaseExists { id } => Error::LeaseExists { id },
            Refusal::TooManyLeases => Error::TooManyLeases { max: LEASES_MAX },
        }
    }
}

/// The replies to one batch, in its order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replies(pub(crate) Vec<Reply>);
