//! Why another member did not do what it was asked.

use crate::codec::{Decode, Encode, Reader};
use crate::error::Error;
use crate::types::{LeaseId, ReadOnly};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    NotLeader,
    NoQuorum,
    Busy,
    DiskFull,
    QuotaExceeded,
    /// It may or may not have been done.
    Unknown,
    Closed,
    LeaseNotFound(LeaseId),
    /// What was asked makes no sense to this member.
    Misunderstood,
    /// The group is being changed already, or cannot be changed so.
    Unchangeable,
}

impl Fault {
    fn number(self) -> u8 {
        match self {
            Fault::NotLeader => 0,
            Fault::NoQuorum => 1,
            Fault::Busy => 2,
            Fault::DiskFull => 3,
            Fault::QuotaExceeded => 4,
            Fault::Unknown => 5,
            Fault::Closed => 6,
            Fault::LeaseNotFound(_) => 7,
            Fault::Misunderstood => 8,
            Fault::Unchangeable => 9,
        }
    }
}

impl From<&Error> for Fault {
    fn from(error: &Error) -> Fault {
        match error {
            Error::NotLeader => Fault::NotLeader,
            Error::NoQuorum => Fault::NoQuorum,
            Error::Busy => Fault::Busy,
            Error::NoSpace(ReadOnly::DiskFull) => Fault::DiskFull,
            Error::NoSpace(ReadOnly::QuotaExceeded) => Fault::QuotaExceeded,
            Error::LeaseNotFound { id } => Fault::LeaseNotFound(*id),
            Error::Closed => Fault::Closed,
            Error::Unchangeable => Fault::Unchangeable,
            _ => Fault::Unknown,
        }
    }
}

impl From<Fault> for Error {
    fn from(fault: Fault) -> Error {
        match fault {
            Fault::NotLeader => Error::NotLeader,
            Fault::NoQuorum => Error::NoQuorum,
            Fault::Busy => Error::Busy,
            Fault::DiskFull => Error::NoSpace(ReadOnly::DiskFull),
            Fault::QuotaExceeded => Error::NoSpace(ReadOnly::QuotaExceeded),
            Fault::LeaseNotFound(id) => Error::LeaseNotFound { id },
            Fault::Unchangeable => Error::Unchangeable,
            // The other member is closed, not this one.
            Fault::Unknown | Fault::Closed | Fault::Misunderstood => Error::Unknown,
        }
    }
}

impl Encode for Fault {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(self.number());
        if let Fault::LeaseNotFound(id) = self {
            id.encode(out);
        }
    }
}

impl Decode for Fault {
    fn decode(from: &mut Reader<'_>) -> Option<Fault> {
        Some(match from.u8()? {
            0 => Fault::NotLeader,
            1 => Fault::NoQuorum,
            2 => Fault::Busy,
            3 => Fault::DiskFull,
            4 => Fault::QuotaExceeded,
            5 => Fault::Unknown,
            6 => Fault::Closed,
            7 => Fault::LeaseNotFound(i64::decode(from)?),
            8 => Fault::Misunderstood,
            9 => Fault::Unchangeable,
            _ => return None,
        })
    }
}
