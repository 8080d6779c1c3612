//! How commands, log entries and records are written: little-endian integers, length before bytes, one byte for
//! which variant. Reading is checked at every step; what does not fit is `None`, never a panic.

use bytes::Bytes;
use openraft::{EntryPayload, LogId, Vote};

use crate::command::{Batch, Command};
use crate::raft::{Entry, Id};
use crate::state::Record;
use crate::types::{Compare, Durability, KeyRange, KeyValue, Op, Range, Txn};

/// Writes into a growing buffer.
pub(crate) trait Encode {
    fn encode(&self, out: &mut Vec<u8>);
}

/// Takes values off the front of a buffer. Byte strings are copied out, so that nothing keeps the buffer alive.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

pub(crate) trait Decode: Sized {
    fn decode(from: &mut Reader<'_>) -> Option<Self>;
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let (front, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(front)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    pub(crate) fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.u32()?;
        self.take(usize::try_from(length).ok()?)
    }
}

/// Everything in `bytes` as one value.
pub(crate) fn decode_all<T: Decode>(bytes: &[u8]) -> Option<T> {
    let mut reader = Reader::new(bytes);
    let value = T::decode(&mut reader)?;
    reader.is_empty().then_some(value)
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(bytes);
}

pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

macro_rules! variants {
    ($($name:ident = $value:literal),* $(,)?) => { $(const $name: u8 = $value;)* };
}

variants! {
    BLANK = 0, BATCH = 1, MEMBERSHIP = 2,
    TXN = 0, COMPACT = 1, SKIP = 2,
    MOD_REVISION = 0, CREATE_REVISION = 1, VERSION = 2, VALUE = 3,
    PUT = 0, DELETE = 1, RANGE = 2,
}

impl Encode for u64 {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, *self);
    }
}

impl Decode for u64 {
    fn decode(from: &mut Reader<'_>) -> Option<u64> {
        from.u64()
    }
}

impl Encode for Bytes {
    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self);
    }
}

impl Decode for Bytes {
    fn decode(from: &mut Reader<'_>) -> Option<Bytes> {
        from.bytes().map(Bytes::copy_from_slice)
    }
}

impl<T: Encode> Encode for Option<T> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.is_some()));
        if let Some(value) = self {
            value.encode(out);
        }
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(from: &mut Reader<'_>) -> Option<Option<T>> {
        match from.u8()? {
            0 => Some(None),
            1 => T::decode(from).map(Some),
            _ => None,
        }
    }
}

impl<T: Encode> Encode for [T] {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&u32::try_from(self.len()).unwrap_or(u32::MAX).to_le_bytes());
        self.iter().for_each(|item| item.encode(out));
    }
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(from: &mut Reader<'_>) -> Option<Vec<T>> {
        let length = from.u32()?;
        (0..length).map(|_| T::decode(from)).collect()
    }
}

impl Encode for Vote<Id> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.leader_id.term);
        put_u64(out, self.leader_id.node_id);
        out.push(u8::from(self.committed));
    }
}

impl Decode for Vote<Id> {
    fn decode(from: &mut Reader<'_>) -> Option<Vote<Id>> {
        let mut vote = Vote::new(from.u64()?, from.u64()?);
        vote.committed = from.u8()? == 1;
        Some(vote)
    }
}

impl Encode for LogId<Id> {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.leader_id.term);
        put_u64(out, self.leader_id.node_id);
        put_u64(out, self.index);
    }
}

impl Decode for LogId<Id> {
    fn decode(from: &mut Reader<'_>) -> Option<LogId<Id>> {
        let leader = openraft::CommittedLeaderId::new(from.u64()?, from.u64()?);
        Some(LogId::new(leader, from.u64()?))
    }
}

impl Encode for Entry {
    fn encode(&self, out: &mut Vec<u8>) {
        self.log_id.encode(out);
        match &self.payload {
            EntryPayload::Blank => out.push(BLANK),
            EntryPayload::Normal(batch) => {
                out.push(BATCH);
                batch.commands.encode(out);
            }
            EntryPayload::Membership(membership) => {
                out.push(MEMBERSHIP);
                // A map of numbers to strings: it has a JSON form.
                put_bytes(out, &serde_json::to_vec(membership).unwrap_or_default());
            }
        }
    }
}

impl Decode for Entry {
    fn decode(from: &mut Reader<'_>) -> Option<Entry> {
        let log_id = LogId::decode(from)?;
        let payload = match from.u8()? {
            BLANK => EntryPayload::Blank,
            BATCH => EntryPayload::Normal(Batch::new(Vec::decode(from)?)),
            MEMBERSHIP => EntryPayload::Membership(serde_json::from_slice(from.bytes()?).ok()?),
            _ => return None,
        };
        Some(Entry { log_id, payload })
    }
}

impl Encode for Command {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Command::Txn(txn) => {
                out.push(TXN);
                txn.encode(out);
            }
            Command::Compact { revision } => {
                out.push(COMPACT);
                put_u64(out, *revision);
            }
            Command::Skip { revisions } => {
                out.push(SKIP);
                put_u64(out, *revisions);
            }
        }
    }
}

impl Decode for Command {
    fn decode(from: &mut Reader<'_>) -> Option<Command> {
        Some(match from.u8()? {
            TXN => Command::Txn(Txn::decode(from)?),
            COMPACT => Command::Compact { revision: from.u64()? },
            SKIP => Command::Skip { revisions: from.u64()? },
            _ => return None,
        })
    }
}

impl Encode for Txn {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.durability == Durability::Relaxed));
        self.compare.encode(out);
        self.success.encode(out);
        self.failure.encode(out);
    }
}

impl Decode for Txn {
    fn decode(from: &mut Reader<'_>) -> Option<Txn> {
        let durability = if from.u8()? == 1 { Durability::Relaxed } else { Durability::Synced };
        Some(Txn { compare: Vec::decode(from)?, success: Vec::decode(from)?, failure: Vec::decode(from)?, durability })
    }
}

impl Encode for Compare {
    fn encode(&self, out: &mut Vec<u8>) {
        let (variant, key) = match self {
            Compare::ModRevision(key, _) => (MOD_REVISION, key),
            Compare::CreateRevision(key, _) => (CREATE_REVISION, key),
            Compare::Version(key, _) => (VERSION, key),
            Compare::Value(key, _) => (VALUE, key),
        };
        out.push(variant);
        key.encode(out);
        match self {
            Compare::ModRevision(_, want) | Compare::CreateRevision(_, want) | Compare::Version(_, want) => {
                want.encode(out);
            }
            Compare::Value(_, want) => want.encode(out),
        }
    }
}

impl Decode for Compare {
    fn decode(from: &mut Reader<'_>) -> Option<Compare> {
        let variant = from.u8()?;
        let key = Bytes::decode(from)?;
        Some(match variant {
            MOD_REVISION => Compare::ModRevision(key, from.u64()?),
            CREATE_REVISION => Compare::CreateRevision(key, from.u64()?),
            VERSION => Compare::Version(key, from.u64()?),
            VALUE => Compare::Value(key, Bytes::decode(from)?),
            _ => return None,
        })
    }
}

impl Encode for Op {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Op::Put { key, value } => {
                out.push(PUT);
                key.encode(out);
                value.encode(out);
            }
            Op::Delete { range } => {
                out.push(DELETE);
                range.encode(out);
            }
            Op::Range(range) => {
                out.push(RANGE);
                range.keys.encode(out);
                range.revision.encode(out);
                put_u64(out, range.limit as u64);
                out.push(u8::from(range.keys_only));
                out.push(u8::from(range.count_only));
            }
        }
    }
}

impl Decode for Op {
    fn decode(from: &mut Reader<'_>) -> Option<Op> {
        Some(match from.u8()? {
            PUT => Op::Put { key: Bytes::decode(from)?, value: Bytes::decode(from)? },
            DELETE => Op::Delete { range: KeyRange::decode(from)? },
            RANGE => Op::Range(Range {
                keys: KeyRange::decode(from)?,
                revision: Option::decode(from)?,
                limit: usize::try_from(from.u64()?).ok()?,
                keys_only: from.u8()? == 1,
                count_only: from.u8()? == 1,
            }),
            _ => return None,
        })
    }
}

impl Encode for KeyRange {
    fn encode(&self, out: &mut Vec<u8>) {
        self.start.encode(out);
        self.end.encode(out);
    }
}

impl Decode for KeyRange {
    fn decode(from: &mut Reader<'_>) -> Option<KeyRange> {
        Some(KeyRange { start: Bytes::decode(from)?, end: Option::decode(from)? })
    }
}

impl Encode for Record {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(u8::from(self.deleted));
        put_u64(out, self.kv.create_revision);
        put_u64(out, self.kv.mod_revision);
        put_u64(out, self.kv.version);
        self.kv.key.encode(out);
        self.kv.value.encode(out);
    }
}

impl Decode for Record {
    fn decode(from: &mut Reader<'_>) -> Option<Record> {
        let deleted = from.u8()? == 1;
        let (create_revision, mod_revision, version) = (from.u64()?, from.u64()?, from.u64()?);
        let (key, value) = (Bytes::decode(from)?, Bytes::decode(from)?);
        Some(Record { kv: KeyValue { key, value, create_revision, mod_revision, version }, deleted })
    }
}
