//! How what came of commands is written, for members that passed them on.

use bytes::Bytes;

use super::{DELETE, Decode, Encode, PUT, RANGE, Reader, WITHIN, put_u64};
use crate::command::{Refusal, Reply};
use crate::types::{KeyValue, OpOutcome, RangeOutcome, TxnOutcome};

macro_rules! variants {
    ($($name:ident = $value:literal),* $(,)?) => { $(const $name: u8 = $value;)* };
}

variants! { DONE = 1, REFUSED = 2, OUTCOME = 3 }
variants! {
    COMPACTED = 1, FUTURE_REVISION = 2, KEY_NOT_FOUND = 3, LEASE_NOT_FOUND = 4, LEASE_EXISTS = 5, TOO_MANY_LEASES = 6,
}

impl Encode for KeyValue {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.create_revision);
        put_u64(out, self.mod_revision);
        put_u64(out, self.version);
        self.lease.encode(out);
        self.key.encode(out);
        self.value.encode(out);
    }
}

impl Decode for KeyValue {
    fn decode(from: &mut Reader<'_>) -> Option<KeyValue> {
        let (create_revision, mod_revision, version) = (from.u64()?, from.u64()?, from.u64()?);
        let lease = i64::decode(from)?;
        Some(KeyValue {
            key: Bytes::decode(from)?,
            value: Bytes::decode(from)?,
            create_revision,
            mod_revision,
            version,
            lease,
        })
    }
}

impl Encode for Reply {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Reply::Txn(outcome) => {
                out.push(OUTCOME);
                outcome.encode(out);
            }
            Reply::Done { revision } => {
                out.push(DONE);
                put_u64(out, *revision);
            }
            Reply::Refused(refusal) => {
                out.push(REFUSED);
                refusal.encode(out);
            }
        }
    }
}

impl Decode for Reply {
    fn decode(from: &mut Reader<'_>) -> Option<Reply> {
        Some(match from.u8()? {
            OUTCOME => Reply::Txn(TxnOutcome::decode(from)?),
            DONE => Reply::Done { revision: from.u64()? },
            REFUSED => Reply::Refused(Refusal::decode(from)?),
            _ => return None,
        })
    }
}

impl Encode for Refusal {
    fn encode(&self, out: &mut Vec<u8>) {
        let (number, first, second) = match *self {
            Refusal::Compacted { requested, compacted } => (COMPACTED, requested, compacted),
            Refusal::FutureRevision { requested, revision } => (FUTURE_REVISION, requested, revision),
            Refusal::KeyNotFound => (KEY_NOT_FOUND, 0, 0),
            Refusal::LeaseNotFound { id } => (LEASE_NOT_FOUND, id.cast_unsigned(), 0),
            Refusal::LeaseExists { id } => (LEASE_EXISTS, id.cast_unsigned(), 0),
            Refusal::TooManyLeases => (TOO_MANY_LEASES, 0, 0),
        };
        out.push(number);
        put_u64(out, first);
        put_u64(out, second);
    }
}

impl Decode for Refusal {
    fn decode(from: &mut Reader<'_>) -> Option<Refusal> {
        let (number, first, second) = (from.u8()?, from.u64()?, from.u64()?);
        Some(match number {
            COMPACTED => Refusal::Compacted { requested: first, compacted: second },
            FUTURE_REVISION => Refusal::FutureRevision { requested: first, revision: second },
            KEY_NOT_FOUND => Refusal::KeyNotFound,
            LEASE_NOT_FOUND => Refusal::LeaseNotFound { id: first.cast_signed() },
            LEASE_EXISTS => Refusal::LeaseExists { id: first.cast_signed() },
            TOO_MANY_LEASES => Refusal::TooManyLeases,
            _ => return None,
        })
    }
}

impl Encode for TxnOutcome {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.revision);
        out.push(u8::from(self.succeeded));
        self.responses.encode(out);
    }
}

impl Decode for TxnOutcome {
    fn decode(from: &mut Reader<'_>) -> Option<TxnOutcome> {
        Some(TxnOutcome { revision: from.u64()?, succeeded: from.u8()? == 1, responses: Vec::decode(from)? })
    }
}

impl Encode for OpOutcome {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            OpOutcome::Put { prev } => {
                out.push(PUT);
                prev.encode(out);
            }
            OpOutcome::Delete { deleted, prev } => {
                out.push(DELETE);
                put_u64(out, *deleted as u64);
                prev.encode(out);
            }
            OpOutcome::Range(outcome) => {
                out.push(RANGE);
                put_u64(out, outcome.revision);
                outcome.kvs.encode(out);
                out.push(u8::from(outcome.more));
                put_u64(out, outcome.count as u64);
            }
            OpOutcome::Txn(outcome) => {
                out.push(WITHIN);
                outcome.encode(out);
            }
        }
    }
}

impl Decode for OpOutcome {
    fn decode(from: &mut Reader<'_>) -> Option<OpOutcome> {
        Some(match from.u8()? {
            PUT => OpOutcome::Put { prev: Option::decode(from)? },
            DELETE => {
                let deleted = usize::try_from(from.u64()?).ok()?;
                OpOutcome::Delete { deleted, prev: Vec::decode(from)? }
            }
            RANGE => OpOutcome::Range(RangeOutcome {
                revision: from.u64()?,
                kvs: Vec::decode(from)?,
                more: from.u8()? == 1,
                count: usize::try_from(from.u64()?).ok()?,
            }),
            WITHIN => OpOutcome::Txn(from.within(TxnOutcome::decode)?),
            _ => return None,
        })
    }
}
