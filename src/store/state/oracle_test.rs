//! The state against an oracle that keeps every version of everything.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::{Record, State};
use crate::command::{Command, Reply};
use crate::types::{Compare, Event, KeyRange, KeyValue, Op, Range, Txn};

#[derive(Clone, Debug)]
enum Step {
    Txn(Txn),
    Compact(u8),
    Skip(u8),
}

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

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (key(), any::<u16>()).prop_map(|(key, value)| Op::Put { key, value: Bytes::from(value.to_string()) }),
        2 => keys().prop_map(|range| Op::Delete { range }),
        1 => keys().prop_map(|keys| Op::Range(keys.into())),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let compare = prop_oneof![
        (key(), 0..30u64).prop_map(|(key, revision)| Compare::ModRevision(key, revision)),
        (key(), 0..2u64).prop_map(|(key, version)| Compare::Version(key, version)),
    ];
    let txn =
        (prop::collection::vec(compare, 0..2), prop::collection::vec(op(), 0..4), prop::collection::vec(op(), 0..3))
            .prop_map(|(compare, success, failure)| Txn { compare, success, failure, ..Txn::default() })
            .prop_filter("writes a key twice", |txn| crate::check::check(txn).is_ok());
    prop_oneof![12 => txn.prop_map(Step::Txn), 1 => any::<u8>().prop_map(Step::Compact), 1 => (1..4u8).prop_map(Step::Skip)]
}

/// All states there ever were, and all events.
#[derive(Default)]
struct Oracle {
    at: BTreeMap<u64, BTreeMap<Bytes, KeyValue>>,
    events: Vec<Event>,
}

impl Oracle {
    fn newest(&self) -> BTreeMap<Bytes, KeyValue> {
        self.at.values().next_back().cloned().unwrap_or_default()
    }

    fn txn(&mut self, txn: &Txn, revision: u64) -> bool {
        let before = self.newest();
        let mut now = before.clone();
        let holds = txn.compare.iter().all(|compare| match compare {
            Compare::ModRevision(key, want) => before.get(key).map_or(0, |kv| kv.mod_revision) == *want,
            Compare::Version(key, want) => before.get(key).map_or(0, |kv| kv.version) == *want,
            _ => unreachable!("not generated"),
        });
        let mut touched = BTreeMap::new();
        for op in if holds { &txn.success } else { &txn.failure } {
            match op {
                Op::Put { key, value } => {
                    let prev = before.get(key);
                    let kv = KeyValue {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision: prev.map_or(revision, |kv| kv.create_revision),
                        mod_revision: revision,
                        version: prev.map_or(1, |kv| kv.version + 1),
                    };
                    touched.insert(key.clone(), Event { kv: kv.clone(), deleted: false, prev: prev.cloned() });
                    now.insert(key.clone(), kv);
                }
                Op::Delete { range } => {
                    for (key, prev) in before.iter().filter(|(key, _)| range.contains(key)) {
                        if now.remove(key).is_some() {
                            let kv = KeyValue {
                                key: key.clone(),
                                value: Bytes::new(),
                                create_revision: 0,
                                mod_revision: revision,
                                version: 0,
                            };
                            touched.insert(key.clone(), Event { kv, deleted: true, prev: Some(prev.clone()) });
                        }
                    }
                }
                Op::Range(_) => {}
            }
        }
        let changed = !touched.is_empty();
        self.events.extend(touched.into_values());
        self.at.insert(if changed { revision } else { revision - 1 }, now);
        changed
    }
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
    let mut loaded = State::restored(state.revision(), state.compacted());
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
            match step {
                Step::Txn(txn) => {
                    let revision = state.revision() + 1;
                    let changed = oracle.txn(&txn, revision);
                    let Reply::Txn(outcome) = state.apply(&Command::Txn(txn)) else { panic!("refused") };
                    prop_assert_eq!(outcome.revision, if changed { revision } else { revision - 1 });
                }
                Step::Compact(at) => {
                    let revision = u64::from(at) % (state.revision() + 2);
                    let fits = revision > state.compacted() && revision <= state.revision();
                    let done = matches!(state.apply(&Command::Compact { revision }), Reply::Done { .. });
                    prop_assert_eq!(done, fits);
                }
                Step::Skip(revisions) => {
                    state.apply(&Command::Skip { revisions: u64::from(revisions) });
                }
            }
        }
        agree(&state, &oracle, &keys);
        let newest = oracle.newest();
        prop_assert_eq!(state.len(), newest.len());
        prop_assert_eq!(state.bytes(), newest.values().map(|kv| (kv.key.len() + kv.value.len()) as u64).sum::<u64>());

        let loaded = reloaded(&state);
        agree(&loaded, &oracle, &keys);
        prop_assert_eq!(loaded.hash(), state.hash());
        prop_assert_eq!(loaded.bytes(), state.bytes());
        prop_assert_eq!(loaded.history_bytes(), state.history_bytes());
        prop_assert_eq!(state.hash(), state.records().iter().map(Record::hash).fold(0, u64::wrapping_add));
    }
}
