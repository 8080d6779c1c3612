//! The state against an oracle that keeps every version of everything.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Record, State};
use crate::codec::{Encode, decode_all};
use crate::command::{Command, Refusal, Reply};
use crate::types::{
    Bounds, Compare, Delete, Event, KeyRange, KeyValue, Lease, Op, OpOutcome, Operator, Put, Range, Sort, SortOrder,
    SortTarget, Target, Txn, TxnOutcome,
};

fn key() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["a", "a/a", "a/b", "a/b/c", "b", "b/a", "c"]).prop_map(Bytes::from)
}

fn keys() -> impl Strategy<Value = KeyRange> {
    prop_oneof![
        key().prop_map(KeyRange::key),
        key().prop_map(KeyRange::prefix),
        (key(), key()).prop_map(|(start, end)| KeyRange::between(start, end)),
        Just(KeyRange::prefix("")),
    ]
}

fn put() -> impl Strategy<Value = Op> {
    (key(), any::<u16>(), 0..4i64, 0..12u8, any::<bool>()).prop_map(|(key, value, lease, ignored, prev_kv)| {
        let (ignore_value, ignore_lease) = (ignored == 0, ignored == 1);
        let value = if ignore_value { Bytes::new() } else { Bytes::from((value % 5).to_string()) };
        let lease = if ignore_lease { 0 } else { lease.saturating_sub(1) };
        Op::Put(Put { key, value, lease, ignore_value, ignore_lease, prev_kv })
    })
}

fn range() -> impl Strategy<Value = Range> {
    use SortTarget::{CreateRevision, Key, ModRevision, Value, Version};
    let target = prop::sample::select(vec![Key, Version, CreateRevision, ModRevision, Value]);
    let order = prop::sample::select(vec![SortOrder::Ascending, SortOrder::Descending]);
    let sort = prop::option::of((target, order).prop_map(|(target, order)| Sort { target, order }));
    let bound = || prop_oneof![3 => Just(0u64), 1 => 1..30u64];
    let bounds = (bound(), bound(), bound(), bound()).prop_map(|(a, b, c, d)| Bounds {
        mod_revision_min: a,
        mod_revision_max: b,
        create_revision_min: c,
        create_revision_max: d,
    });
    (keys(), 0..4usize, any::<bool>(), 0..8u8, sort, bounds).prop_map(
        |(keys, limit, keys_only, count, sort, bounds)| Range {
            keys,
            revision: None,
            limit,
            keys_only,
            count_only: count == 0,
            sort,
            bounds,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let step = prop_oneof![
        4 => put(),
        2 => (keys(), any::<bool>()).prop_map(|(range, prev_kv)| Op::Delete(Delete { range, prev_kv })),
        1 => range().prop_map(Op::range),
    ];
    step.prop_recursive(2, 8, 3, |op| {
        let ops = || prop::collection::vec(op.clone(), 0..3);
        (prop::collection::vec(compare(), 0..2), ops(), ops()).prop_map(|(compare, success, failure)| {
            Op::Txn(Box::new(Txn { compare, success, failure, ..Txn::default() }))
        })
    })
}

fn compare() -> impl Strategy<Value = Compare> {
    use Operator::{Equal, Greater, Less, NotEqual};
    let target = prop_oneof![
        (0..30u64).prop_map(Target::ModRevision),
        (0..30u64).prop_map(Target::CreateRevision),
        (0..3u64).prop_map(Target::Version),
        (0..5u8).prop_map(|value| Target::Value(Bytes::from(value.to_string()))),
        (0..3i64).prop_map(Target::Lease),
    ];
    let operator = prop::sample::select(vec![Equal, Greater, Less, NotEqual]);
    (keys(), operator, target).prop_map(|(keys, operator, target)| Compare { keys, operator, target })
}

fn step() -> impl Strategy<Value = Command> {
    let ops = |max| prop::collection::vec(op(), 0..max);
    let txn = (prop::collection::vec(compare(), 0..2), ops(4), ops(3))
        .prop_map(|(compare, success, failure)| Txn { compare, success, failure, ..Txn::default() })
        .prop_filter("writes a key twice", |txn| crate::check::check(txn).is_ok());
    prop_oneof![
        12 => txn.prop_map(Command::Txn),
        1 => (0..40u64).prop_map(|revision| Command::Compact { revision }),
        1 => (1..4u64).prop_map(|revisions| Command::Skip { revisions }),
        2 => (1..3i64).prop_map(|id| Command::LeaseGrant(Lease { id, ttl_seconds: 10 })),
        1 => (1..3i64).prop_map(|id| Command::LeaseRevoke { id }),
    ]
}

/// All states there ever were, and all events.
#[derive(Default)]
struct Oracle {
    at: BTreeMap<u64, BTreeMap<Bytes, KeyValue>>,
    events: Vec<Event>,
    leases: Vec<i64>,
}

/// A transaction on its way.
struct Doing<'a> {
    before: &'a BTreeMap<Bytes, KeyValue>,
    leases: &'a [i64],
    now: BTreeMap<Bytes, KeyValue>,
    touched: BTreeMap<Bytes, Event>,
    revision: u64,
}

impl Oracle {
    fn newest(&self) -> BTreeMap<Bytes, KeyValue> {
        self.at.values().next_back().cloned().unwrap_or_default()
    }

    /// Does a transaction; `None` if it is refused.
    fn txn(&mut self, txn: &Txn, revision: u64) -> Option<TxnOutcome> {
        let before = self.newest();
        let mut doing = Doing {
            before: &before,
            leases: &self.leases,
            now: before.clone(),
            touched: BTreeMap::new(),
            revision: revision - 1,
        };
        let mut outcome = doing.txn(txn, revision)?;
        let Doing { now, touched, .. } = doing;
        let at = if touched.is_empty() { revision - 1 } else { revision };
        outcome.seal(at);
        self.events.extend(touched.into_values());
        self.at.insert(at, now);
        Some(outcome)
    }

    fn revoke(&mut self, id: i64, revision: u64) -> Option<u64> {
        self.leases.iter().position(|lease| *lease == id).map(|at| self.leases.remove(at))?;
        let keys = self.newest().into_values().filter(|kv| kv.lease == id).map(|kv| Op::delete(KeyRange::key(kv.key)));
        self.txn(&Txn { success: keys.collect(), ..Txn::default() }, revision).map(|outcome| outcome.revision)
    }
}

impl Doing<'_> {
    fn txn(&mut self, txn: &Txn, revision: u64) -> Option<TxnOutcome> {
        let succeeded = txn.compare.iter().all(|compare| holds(compare, self.before));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let responses = ops.iter().map(|op| self.op(op, revision)).collect::<Option<Vec<_>>>()?;
        Some(TxnOutcome { revision, succeeded, responses })
    }

    fn op(&mut self, op: &Op, revision: u64) -> Option<OpOutcome> {
        Some(match op {
            Op::Put(put) => {
                let prev = self.before.get(&put.key);
                if prev.is_none() && (put.ignore_value || put.ignore_lease) {
                    return None;
                }
                if put.lease != 0 && !self.leases.contains(&put.lease) {
                    return None;
                }
                let kv = KeyValue {
                    key: put.key.clone(),
                    value: if put.ignore_value { prev?.value.clone() } else { put.value.clone() },
                    create_revision: prev.map_or(revision, |kv| kv.create_revision),
                    mod_revision: revision,
                    version: prev.map_or(1, |kv| kv.version + 1),
                    lease: if put.ignore_lease { prev?.lease } else { put.lease },
                };
                self.touched.insert(
                    put.key.clone(),
                    Event { kv: kv.clone(), deleted: false, prev: prev.cloned().map(Box::new) },
                );
                self.now.insert(put.key.clone(), kv);
                OpOutcome::Put { prev: prev.filter(|_| put.prev_kv).cloned() }
            }
            Op::Delete(delete) => {
                let mut gone = Vec::new();
                for (key, prev) in self.before.iter().filter(|(key, _)| delete.range.contains(key)) {
                    if self.now.remove(key).is_some() {
                        let kv = KeyValue { key: key.clone(), mod_revision: revision, ..KeyValue::default() };
                        self.touched
                            .insert(key.clone(), Event { kv, deleted: true, prev: Some(Box::new(prev.clone())) });
                        gone.push(prev.clone());
                    }
                }
                OpOutcome::Delete { deleted: gone.len(), prev: if delete.prev_kv { gone } else { Vec::new() } }
            }
            Op::Range(range) => {
                let mut kvs: Vec<KeyValue> =
                    self.now.values().filter(|kv| range.keys.contains(&kv.key)).cloned().collect();
                let count = kvs.len();
                if range.count_only {
                    kvs.clear();
                }
                let Bounds { mod_revision_min, mod_revision_max, create_revision_min, create_revision_max } =
                    range.bounds;
                kvs.retain(|kv| kv.mod_revision >= mod_revision_min && kv.create_revision >= create_revision_min);
                kvs.retain(|kv| mod_revision_max == 0 || kv.mod_revision <= mod_revision_max);
                kvs.retain(|kv| create_revision_max == 0 || kv.create_revision <= create_revision_max);
                if let Some(Sort { target, order }) = range.sort {
                    match target {
                        SortTarget::Key => {}
                        SortTarget::Version => kvs.sort_by_key(|kv| kv.version),
                        SortTarget::CreateRevision => kvs.sort_by_key(|kv| kv.create_revision),
                        SortTarget::ModRevision => kvs.sort_by_key(|kv| kv.mod_revision),
                        SortTarget::Value => kvs.sort_by_key(|kv| kv.value.clone()),
                    }
                    if order == SortOrder::Descending {
                        // Equal ones stay in the order of their keys.
                        kvs.reverse();
                        let same = |a: &KeyValue, b: &KeyValue| match target {
                            SortTarget::Key => false,
                            SortTarget::Version => a.version == b.version,
                            SortTarget::CreateRevision => a.create_revision == b.create_revision,
                            SortTarget::ModRevision => a.mod_revision == b.mod_revision,
                            SortTarget::Value => a.value == b.value,
                        };
                        kvs.chunk_by_mut(same).for_each(<[KeyValue]>::reverse);
                    }
                }
                let more = range.limit != 0 && kvs.len() > range.limit;
                if more {
                    kvs.truncate(range.limit);
                }
                if range.keys_only {
                    kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
                }
                OpOutcome::Range(crate::types::RangeOutcome { revision: self.revision, kvs, more, count })
            }
            Op::Txn(txn) => OpOutcome::Txn(self.txn(txn, revision)?),
        })
    }
}

fn holds(compare: &Compare, state: &BTreeMap<Bytes, KeyValue>) -> bool {
    let none = KeyValue::default();
    let mut found: Vec<&KeyValue> = state.values().filter(|kv| compare.keys.contains(&kv.key)).collect();
    if found.is_empty() {
        if matches!(compare.target, Target::Value(_)) {
            return false;
        }
        found.push(&none);
    }
    found.iter().all(|kv| {
        let order = match &compare.target {
            Target::Version(want) => kv.version.cmp(want),
            Target::CreateRevision(want) => kv.create_revision.cmp(want),
            Target::ModRevision(want) => kv.mod_revision.cmp(want),
            Target::Value(want) => kv.value.cmp(want),
            Target::Lease(want) => kv.lease.cmp(want),
        };
        match compare.operator {
            Operator::Equal => order == Ordering::Equal,
            Operator::Greater => order == Ordering::Greater,
            Operator::Less => order == Ordering::Less,
            Operator::NotEqual => order != Ordering::Equal,
        }
    })
}

fn agree(state: &State, oracle: &Oracle, keys: &KeyRange) {
    for revision in 1..=state.revision() + 1 {
        let range = Range { revision: Some(revision), ..Range::all(keys.clone()) };
        let got = state.range(&range);
        if revision > state.revision() || revision < state.compacted() {
            assert!(got.is_err(), "revision {revision} is readable");
            continue;
        }
        let got = got.unwrap();
        let empty = BTreeMap::new();
        let then = oracle.at.range(..=revision).next_back().map_or(&empty, |(_, then)| then);
        let want: Vec<KeyValue> = then.values().filter(|kv| keys.contains(&kv.key)).cloned().collect();
        assert_eq!(got.count, want.len());
        assert_eq!(got.kvs, want, "at {revision}");
        let limited = state.range(&Range { limit: 1, ..range }).unwrap();
        assert_eq!((limited.kvs.as_slice(), limited.more), (&want[..want.len().min(1)], want.len() > 1));
    }
    for from in state.compacted()..=state.revision() {
        let got: Vec<Event> = state.history_from(from).map(|event| Event::clone(event)).collect();
        let want: Vec<Event> = oracle.events.iter().filter(|event| event.kv.mod_revision >= from).cloned().collect();
        assert_eq!(got, want, "changes from {from}");
    }
}

fn reloaded(state: &State) -> State {
    let mut loaded = State::restored(state.revision(), state.compacted(), &state.leases());
    for record in state.records() {
        loaded.load(record);
    }
    loaded
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_revision_reads_as_the_oracle_says(steps in prop::collection::vec(step(), 1..40), keys in keys()) {
        let mut state = State::default();
        let mut oracle = Oracle::default();
        for step in steps {
            let mut encoded = Vec::new();
            step.encode(&mut encoded);
            let decoded: Option<Command> = decode_all(&encoded);
            prop_assert_eq!(decoded.as_ref(), Some(&step));
            let revision = state.revision() + 1;
            let fits = |at: u64| at > state.compacted() && at <= state.revision();
            match &step {
                Command::Txn(txn) => match oracle.txn(txn, revision) {
                    Some(want) => prop_assert_eq!(state.apply(&step), Reply::Txn(want)),
                    None => {
                        let reply = state.apply(&step);
                        let refused = matches!(reply, Reply::Refused(Refusal::KeyNotFound | Refusal::LeaseNotFound { .. }));
                        prop_assert!(refused, "{reply:?}");
                    }
                },
                Command::Compact { revision } => {
                    let fits = fits(*revision);
                    prop_assert_eq!(matches!(state.apply(&step), Reply::Done { .. }), fits);
                }
                Command::LeaseGrant(lease) => {
                    let fresh = !oracle.leases.contains(&lease.id);
                    if fresh {
                        oracle.leases.push(lease.id);
                    }
                    prop_assert_eq!(matches!(state.apply(&step), Reply::Done { .. }), fresh);
                }
                Command::LeaseRevoke { id } => {
                    let want = oracle.revoke(*id, revision);
                    let want = want.map_or(Refusal::LeaseNotFound { id: *id }.into(), |revision| Reply::Done { revision });
                    prop_assert_eq!(state.apply(&step), want);
                }
                _ => {
                    state.apply(&step);
                }
            }
        }
        agree(&state, &oracle, &keys);
        let newest = oracle.newest();
        prop_assert_eq!(state.len(), newest.len());
        prop_assert_eq!(state.bytes(), newest.values().map(|kv| (kv.key.len() + kv.value.len()) as u64).sum::<u64>());

        for id in 1..3 {
            let want: Vec<&Bytes> = newest.values().filter(|kv| kv.lease == id).map(|kv| &kv.key).collect();
            prop_assert_eq!(state.lease_keys(id).collect::<Vec<_>>(), want);
        }

        let loaded = reloaded(&state);
        prop_assert_eq!(loaded.leases(), state.leases());
        agree(&loaded, &oracle, &keys);
        prop_assert_eq!(loaded.hash(), state.hash());
        prop_assert_eq!(loaded.bytes(), state.bytes());
        prop_assert_eq!(loaded.history_bytes(), state.history_bytes());
        prop_assert_eq!(state.hash(), state.records().iter().map(Record::hash).fold(0, u64::wrapping_add));
    }
}
