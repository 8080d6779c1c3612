//! How commands, log entries and records are written: little-endian integers, length before bytes, one byte for
//! which variant. Reading is checked at every step; what does not fit is `None`, never a panic.

mod reply;

use bytes::Bytes;
use openraft::{EntryPayload, LogId, Vote};

use crate::command::{Batch, Command, Remaining};
use crate::raft::{Entry, Id};
use crate::state::Record;
use crate::types::{
    Bounds, Compare, Delete, Durability, KeyRange, KeyValue, Lease, NO_LEASE, Op, Operator, Put, Range, Sort,
    SortOrder, SortTarget, TXN_DEPTH_MAX, Target, Txn,
};

/// Writes into a growing buffer.
pub(crate) trait Encode {
    fn encode(&self, out: &mut Vec<u8>);
}

/// Takes values off the front of a buffer. Byte strings are copied out, so that nothing keeps the buffer alive.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// Transactions that what is read stands in.
    depth: usize,
}

pub(crate) trait Decode: Sized {
    fn decode(from: &mut Reader<'_>) -> Option<Self>;
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes, depth: 0 }
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

    /// Reads what stands within a transaction, which does not go on without end.
    fn within<T>(&mut self, read: impl FnOnce(&mut Reader<'a>) -> Option<T>) -> Option<T> {
        self.depth += 1;
        let value = if self.depth > TXN_DEPTH_MAX { None } else { read(self) };
        self.depth -= 1;
        value
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
    TXN = 0, COMPACT = 1, SKIP = 2, LEASE_GRANT = 3, LEASE_REVOKE = 4, LEASE_CHECKPOINT = 5,
    MOD_REVISION = 0, CREATE_REVISION = 1, VERSION = 2, VALUE = 3, LEASE = 4, COMPARE_WITH = 5,
    PUT = 0, DELETE = 1, RANGE = 2, PUT_WITH = 3, DELETE_WITH = 4, RANGE_WITH = 5, WITHIN = 6,
}

// What has no options is written without them: it is nearly everything there is.
variants! { IGNORE_VALUE = 1, IGNORE_LEASE = 2, PREV_KV = 4 }
variants! { DELETED = 1, LEASED = 2 }

const OPERATORS: [Operator; 4] = [Operator::Equal, Operator::Greater, Operator::Less, Operator::NotEqual];
const SORT_TARGETS: [SortTarget; 5] =
    [SortTarget::Key, SortTarget::Version, SortTarget::CreateRevision, SortTarget::ModRevision, SortTarget::Value];

/// A value's place in a list of all of its kind.
fn place<T: PartialEq>(all: &[T], value: &T) -> u8 {
    all.iter().position(|one| one == value).and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
}

fn at_place<T: Copy>(all: &[T], place: u8) -> Option<T> {
    all.get(usize::from(place)).copied()
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

impl Encode for i64 {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_le_bytes());
    }
}

impl Decode for i64 {
    fn decode(from: &mut Reader<'_>) -> Option<i64> {
        Some(i64::from_le_bytes(from.take(8)?.try_into().ok()?))
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
            Command::LeaseGrant(lease) => {
                out.push(LEASE_GRANT);
                lease.id.encode(out);
                lease.ttl_seconds.encode(out);
            }
            Command::LeaseRevoke { id } => {
                out.push(LEASE_REVOKE);
                id.encode(out);
            }
            Command::LeaseCheckpoint { remaining } => {
                out.push(LEASE_CHECKPOINT);
                remaining.encode(out);
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
            LEASE_GRANT => Command::LeaseGrant(Lease { id: i64::decode(from)?, ttl_seconds: i64::decode(from)? }),
            LEASE_REVOKE => Command::LeaseRevoke { id: i64::decode(from)? },
            LEASE_CHECKPOINT => Command::LeaseCheckpoint { remaining: Vec::decode(from)? },
            _ => return None,
        })
    }
}

impl Encode for Remaining {
    fn encode(&self, out: &mut Vec<u8>) {
        self.id.encode(out);
        self.seconds.encode(out);
    }
}

impl Decode for Remaining {
    fn decode(from: &mut Reader<'_>) -> Option<Remaining> {
        Some(Remaining { id: i64::decode(from)?, seconds: i64::decode(from)? })
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
        let plain = self.operator == Operator::Equal && self.keys.end.is_none();
        if !plain {
            out.push(COMPARE_WITH);
            out.push(place(&OPERATORS, &self.operator));
        }
        out.push(match &self.target {
            Target::ModRevision(_) => MOD_REVISION,
            Target::CreateRevision(_) => CREATE_REVISION,
            Target::Version(_) => VERSION,
            Target::Value(_) => VALUE,
            Target::Lease(_) => LEASE,
        });
        self.keys.start.encode(out);
        match &self.target {
            Target::ModRevision(want) | Target::CreateRevision(want) | Target::Version(want) => want.encode(out),
            Target::Value(want) => want.encode(out),
            Target::Lease(want) => want.encode(out),
        }
        if !plain {
            self.keys.end.encode(out);
        }
    }
}

impl Decode for Compare {
    fn decode(from: &mut Reader<'_>) -> Option<Compare> {
        let mut variant = from.u8()?;
        let plain = variant != COMPARE_WITH;
        let mut operator = Operator::Equal;
        if !plain {
            operator = at_place(&OPERATORS, from.u8()?)?;
            variant = from.u8()?;
        }
        let start = Bytes::decode(from)?;
        let target = match variant {
            MOD_REVISION => Target::ModRevision(from.u64()?),
            CREATE_REVISION => Target::CreateRevision(from.u64()?),
            VERSION => Target::Version(from.u64()?),
            VALUE => Target::Value(Bytes::decode(from)?),
            LEASE => Target::Lease(i64::decode(from)?),
            _ => return None,
        };
        let end = if plain { None } else { Option::decode(from)? };
        Some(Compare { keys: KeyRange { start, end }, operator, target })
    }
}

impl Encode for Op {
    fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Op::Put(put) => put.encode(out),
            Op::Delete(delete) => {
                out.push(if delete.prev_kv { DELETE_WITH } else { DELETE });
                delete.range.encode(out);
            }
            Op::Range(range) => range.encode(out),
            Op::Txn(txn) => {
                out.push(WITHIN);
                txn.encode(out);
            }
        }
    }
}

impl Decode for Op {
    fn decode(from: &mut Reader<'_>) -> Option<Op> {
        Some(match from.u8()? {
            PUT => Op::put(Bytes::decode(from)?, Bytes::decode(from)?),
            PUT_WITH => {
                let flags = from.u8()?;
                Op::Put(Put {
                    lease: i64::decode(from)?,
                    key: Bytes::decode(from)?,
                    value: Bytes::decode(from)?,
                    ignore_value: flags & IGNORE_VALUE != 0,
                    ignore_lease: flags & IGNORE_LEASE != 0,
                    prev_kv: flags & PREV_KV != 0,
                })
            }
            DELETE => Op::delete(KeyRange::decode(from)?),
            DELETE_WITH => Op::Delete(Delete { range: KeyRange::decode(from)?, prev_kv: true }),
            RANGE => Op::Range(Box::new(Range::decode(from)?)),
            RANGE_WITH => {
                let mut range = Box::new(Range::decode(from)?);
                (range.sort, range.bounds) = (Option::decode(from)?, Bounds::decode(from)?);
                Op::Range(range)
            }
            WITHIN => Op::Txn(Box::new(from.within(Txn::decode)?)),
            _ => return None,
        })
    }
}

impl Encode for Put {
    fn encode(&self, out: &mut Vec<u8>) {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        let flags =
            flag(self.ignore_value, IGNORE_VALUE) | flag(self.ignore_lease, IGNORE_LEASE) | flag(self.prev_kv, PREV_KV);
        if flags == 0 && self.lease == NO_LEASE {
            out.push(PUT);
        } else {
            out.push(PUT_WITH);
            out.push(flags);
            self.lease.encode(out);
        }
        self.key.encode(out);
        self.value.encode(out);
    }
}

impl Encode for Range {
    fn encode(&self, out: &mut Vec<u8>) {
        let plain = self.sort.is_none() && self.bounds.is_none();
        out.push(if plain { RANGE } else { RANGE_WITH });
        self.keys.encode(out);
        self.revision.encode(out);
        put_u64(out, self.limit as u64);
        out.push(u8::from(self.keys_only));
        out.push(u8::from(self.count_only));
        if !plain {
            self.sort.encode(out);
            self.bounds.encode(out);
        }
    }
}

/// Without what follows in a range with options.
impl Decode for Range {
    fn decode(from: &mut Reader<'_>) -> Option<Range> {
        Some(Range {
            keys: KeyRange::decode(from)?,
            revision: Option::decode(from)?,
            limit: usize::try_from(from.u64()?).ok()?,
            keys_only: from.u8()? == 1,
            count_only: from.u8()? == 1,
            sort: None,
            bounds: Bounds::default(),
        })
    }
}

impl Encode for Sort {
    fn encode(&self, out: &mut Vec<u8>) {
        out.push(place(&SORT_TARGETS, &self.target));
        out.push(u8::from(self.order == SortOrder::Descending));
    }
}

impl Decode for Sort {
    fn decode(from: &mut Reader<'_>) -> Option<Sort> {
        let target = at_place(&SORT_TARGETS, from.u8()?)?;
        let order = if from.u8()? == 1 { SortOrder::Descending } else { SortOrder::Ascending };
        Some(Sort { target, order })
    }
}

impl Encode for Bounds {
    fn encode(&self, out: &mut Vec<u8>) {
        put_u64(out, self.mod_revision_min);
        put_u64(out, self.mod_revision_max);
        put_u64(out, self.create_revision_min);
        put_u64(out, self.create_revision_max);
    }
}

impl Decode for Bounds {
    fn decode(from: &mut Reader<'_>) -> Option<Bounds> {
        Some(Bounds {
            mod_revision_min: from.u64()?,
            mod_revision_max: from.u64()?,
            create_revision_min: from.u64()?,
            create_revision_max: from.u64()?,
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
        let leased = self.kv.lease != NO_LEASE;
        out.push(if self.deleted { DELETED } else { 0 } | if leased { LEASED } else { 0 });
        put_u64(out, self.kv.create_revision);
        put_u64(out, self.kv.mod_revision);
        put_u64(out, self.kv.version);
        self.kv.key.encode(out);
        self.kv.value.encode(out);
        if leased {
            self.kv.lease.encode(out);
        }
    }
}

impl Decode for Record {
    fn decode(from: &mut Reader<'_>) -> Option<Record> {
        let flags = from.u8()?;
        let (create_revision, mod_revision, version) = (from.u64()?, from.u64()?, from.u64()?);
        let (key, value) = (Bytes::decode(from)?, Bytes::decode(from)?);
        let lease = if flags & LEASED != 0 { i64::decode(from)? } else { NO_LEASE };
        let kv = KeyValue { key, value, create_revision, mod_revision, version, lease };
        Some(Record { kv, deleted: flags & DELETED != 0 })
    }
}
