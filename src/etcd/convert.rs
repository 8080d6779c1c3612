//! Between the messages and the store's types.

use bytes::Bytes;
use store::{
    Bounds, Compare, Delete, Durability, Event, KeyRange, KeyValue, Op, OpOutcome, Operator, Put, Range, RangeOutcome,
    Sort, SortOrder, SortTarget, Target, Txn, TxnOutcome,
};
use tonic::Status;

use crate::v3;
use crate::v3::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::v3::request_op::Request;
use crate::v3::response_op::Response;
use crate::{Served, errors};

/// Transactions stand within each other at most so deep; deeper ones are not even looked at.
const DEPTH_MAX: usize = store::TXN_DEPTH_MAX;

/// Revisions and counts never come near the end of their range.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Numbers below 0 mean 0, as in etcd.
fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// No end: the key alone. An end of one zero byte: all keys from the first one on.
pub fn key_range(key: Bytes, range_end: Bytes) -> KeyRange {
    match &range_end[..] {
        [] => KeyRange::key(key),
        [0] => KeyRange::between(key, Bytes::new()),
        _ => KeyRange::between(key, range_end),
    }
}

pub fn range(request: v3::RangeRequest) -> Result<Range, Status> {
    if request.key.is_empty() {
        return Err(errors::of_store(&store::Error::EmptyKey));
    }
    let invalid = || Status::invalid_argument(errors::SORT_OPTION);
    let order = v3::range_request::SortOrder::try_from(request.sort_order).map_err(|_| invalid())?;
    let target = match v3::range_request::SortTarget::try_from(request.sort_target).map_err(|_| invalid())? {
        v3::range_request::SortTarget::Key => SortTarget::Key,
        v3::range_request::SortTarget::Version => SortTarget::Version,
        v3::range_request::SortTarget::Create => SortTarget::CreateRevision,
        v3::range_request::SortTarget::Mod => SortTarget::ModRevision,
        v3::range_request::SortTarget::Value => SortTarget::Value,
    };
    let order = match order {
        // Without an order a target other than the key means an ascending one.
        v3::range_request::SortOrder::None if target == SortTarget::Key => None,
        v3::range_request::SortOrder::Ascend if target == SortTarget::Key => None,
        v3::range_request::SortOrder::None | v3::range_request::SortOrder::Ascend => Some(SortOrder::Ascending),
        v3::range_request::SortOrder::Descend => Some(SortOrder::Descending),
    };
    Ok(Range {
        keys: key_range(request.key, request.range_end),
        revision: (request.revision > 0).then(|| unsigned(request.revision)),
        limit: usize::try_from(request.limit).unwrap_or(0),
        keys_only: request.keys_only,
        count_only: request.count_only,
        sort: order.map(|order| Sort { target, order }),
        bounds: Bounds {
            mod_revision_min: unsigned(request.min_mod_revision),
            mod_revision_max: unsigned(request.max_mod_revision),
            create_revision_min: unsigned(request.min_create_revision),
            create_revision_max: unsigned(request.max_create_revision),
        },
    })
}

pub fn put(request: v3::PutRequest) -> Put {
    Put {
        key: request.key,
        value: request.value,
        lease: request.lease,
        ignore_value: request.ignore_value,
        ignore_lease: request.ignore_lease,
        prev_kv: request.prev_kv,
    }
}

pub fn delete(request: v3::DeleteRangeRequest) -> Result<Delete, Status> {
    if request.key.is_empty() {
        return Err(errors::of_store(&store::Error::EmptyKey));
    }
    Ok(Delete { range: key_range(request.key, request.range_end), prev_kv: request.prev_kv })
}

pub fn txn(request: v3::TxnRequest) -> Result<Txn, Status> {
    within(request, DEPTH_MAX)
}

fn within(request: v3::TxnRequest, depth: usize) -> Result<Txn, Status> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(errors::of_store(&store::Error::TooDeep { max: DEPTH_MAX }));
    };
    let ops = |ops: Vec<v3::RequestOp>| -> Result<Vec<Op>, Status> {
        // One that is empty does nothing, and has no answer in etcd either.
        ops.into_iter().filter_map(|op| op.request).map(|request| op(request, depth)).collect()
    };
    Ok(Txn {
        compare: request.compare.into_iter().map(compare).collect::<Result<_, _>>()?,
        success: ops(request.success)?,
        failure: ops(request.failure)?,
        durability: Durability::Synced,
    })
}

fn op(request: Request, depth: usize) -> Result<Op, Status> {
    Ok(match request {
        Request::RequestRange(request) => Op::Range(Box::new(range(request)?)),
        Request::RequestPut(request) => Op::Put(put(request)),
        Request::RequestDeleteRange(request) => Op::Delete(delete(request)?),
        Request::RequestTxn(request) => Op::Txn(Box::new(within(request, depth)?)),
    })
}

fn compare(request: v3::Compare) -> Result<Compare, Status> {
    let unknown = || Status::invalid_argument("etcdserver: the comparison is malformed");
    if request.key.is_empty() {
        return Err(errors::of_store(&store::Error::EmptyKey));
    }
    let operator = match CompareResult::try_from(request.result).map_err(|_| unknown())? {
        CompareResult::Equal => Operator::Equal,
        CompareResult::Greater => Operator::Greater,
        CompareResult::Less => Operator::Less,
        CompareResult::NotEqual => Operator::NotEqual,
    };
    let target = CompareTarget::try_from(request.target).map_err(|_| unknown())?;
    // What is missing is 0 or empty.
    let target = match (target, request.target_union) {
        (CompareTarget::Version, Some(TargetUnion::Version(number))) => Target::Version(unsigned(number)),
        (CompareTarget::Version, None) => Target::Version(0),
        (CompareTarget::Create, Some(TargetUnion::CreateRevision(number))) => Target::CreateRevision(unsigned(number)),
        (CompareTarget::Create, None) => Target::CreateRevision(0),
        (CompareTarget::Mod, Some(TargetUnion::ModRevision(number))) => Target::ModRevision(unsigned(number)),
        (CompareTarget::Mod, None) => Target::ModRevision(0),
        (CompareTarget::Value, Some(TargetUnion::Value(value))) => Target::Value(value),
        (CompareTarget::Value, None) => Target::Value(Bytes::new()),
        (CompareTarget::Lease, Some(TargetUnion::Lease(id))) => Target::Lease(id),
        (CompareTarget::Lease, None) => Target::Lease(0),
        _ => return Err(unknown()),
    };
    Ok(Compare { keys: key_range(request.key, request.range_end), operator, target })
}

pub fn key_value(kv: KeyValue) -> v3::KeyValue {
    v3::KeyValue {
        key: kv.key,
        value: kv.value,
        create_revision: signed(kv.create_revision),
        mod_revision: signed(kv.mod_revision),
        version: signed(kv.version),
        lease: kv.lease,
    }
}

pub fn event(event: &Event, prev_kv: bool) -> v3::Event {
    let kind = if event.deleted { v3::event::EventType::Delete } else { v3::event::EventType::Put };
    v3::Event {
        r#type: kind.into(),
        kv: Some(key_value(event.kv.clone())),
        prev_kv: event.prev.as_deref().filter(|_| prev_kv).cloned().map(key_value),
    }
}

impl Served {
    /// `revision` is the answer's: of the whole transaction, where it is part of one.
    pub fn range_response(&self, outcome: RangeOutcome, revision: u64) -> v3::RangeResponse {
        v3::RangeResponse {
            header: self.header(revision),
            kvs: outcome.kvs.into_iter().map(key_value).collect(),
            more: outcome.more,
            count: count(outcome.count),
        }
    }

    pub fn txn_response(&self, outcome: TxnOutcome) -> v3::TxnResponse {
        let revision = outcome.revision;
        let responses = outcome.responses.into_iter().map(|outcome| {
            let response = match outcome {
                OpOutcome::Put { prev } => Response::ResponsePut(self.put_response(prev, revision)),
                OpOutcome::Delete { deleted, prev } => {
                    Response::ResponseDeleteRange(self.delete_response(deleted, prev, revision))
                }
                OpOutcome::Range(outcome) => Response::ResponseRange(self.range_response(outcome, revision)),
                OpOutcome::Txn(outcome) => Response::ResponseTxn(self.txn_response(outcome)),
            };
            v3::ResponseOp { response: Some(response) }
        });
        v3::TxnResponse { header: self.header(revision), succeeded: outcome.succeeded, responses: responses.collect() }
    }

    pub fn put_response(&self, prev: Option<KeyValue>, revision: u64) -> v3::PutResponse {
        v3::PutResponse { header: self.header(revision), prev_kv: prev.map(key_value) }
    }

    pub fn delete_response(&self, deleted: usize, prev: Vec<KeyValue>, revision: u64) -> v3::DeleteRangeResponse {
        v3::DeleteRangeResponse {
            header: self.header(revision),
            deleted: count(deleted),
            prev_kvs: prev.into_iter().map(key_value).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_ranges() {
        let range = |end: &'static [u8]| key_range(Bytes::from_static(b"a"), Bytes::from_static(end));
        assert_eq!(range(b""), KeyRange::key("a"));
        assert_eq!(range(b"c"), KeyRange::between("a", "c"));
        assert_eq!(range(b"\0"), KeyRange::between("a", ""));
        assert_eq!(range(b"b"), KeyRange::prefix("a"), "as clients ask for a prefix");
    }

    #[test]
    fn transactions_within_each_other_end_somewhere() {
        let nested = |depth: usize| {
            (1..depth).fold(v3::TxnRequest::default(), |txn, _| v3::TxnRequest {
                success: vec![v3::RequestOp { request: Some(Request::RequestTxn(txn)) }],
                ..v3::TxnRequest::default()
            })
        };
        assert!(txn(nested(DEPTH_MAX)).is_ok());
        assert_eq!(txn(nested(DEPTH_MAX + 1)).unwrap_err().code(), tonic::Code::InvalidArgument);
    }

    #[test]
    fn a_comparison_is_with_what_it_names() {
        let given = |target: CompareTarget, union| v3::Compare {
            key: Bytes::from_static(b"k"),
            target: target.into(),
            target_union: union,
            ..v3::Compare::default()
        };
        let made = compare(given(CompareTarget::Mod, Some(TargetUnion::ModRevision(7)))).unwrap();
        assert_eq!(made, Compare::mod_revision("k", 7));
        assert_eq!(compare(given(CompareTarget::Create, None)).unwrap(), Compare::create_revision("k", 0));
        assert!(compare(given(CompareTarget::Mod, Some(TargetUnion::Version(7)))).is_err());
        assert!(compare(v3::Compare { target: 9, ..given(CompareTarget::Mod, None) }).is_err());
        assert!(compare(v3::Compare { key: Bytes::new(), ..given(CompareTarget::Mod, None) }).is_err());
    }
}
