//! Transactions: compare, then do one of two lists of operations at one new revision.

use crate::command::{Refusal, Reply};
use crate::types::{Compare, Event, KeyRange, KeyValue, Op, OpOutcome, Txn, TxnOutcome};

use super::State;

impl State {
    /// Changes nothing if a read in the branch taken is refused.
    pub(super) fn txn(&mut self, txn: &Txn) -> Reply {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        for op in ops {
            if let Op::Range(range) = op
                && let Err(refusal) = self.readable(range.revision)
            {
                return refusal.into();
            }
        }
        let first_change = self.history.len();
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            match self.op(op, self.revision + 1) {
                Ok(response) => responses.push(response),
                // Not reached: what can be refused was looked at above.
                Err(refusal) => return refusal.into(),
            }
        }
        if self.history.len() > first_change {
            self.revision += 1;
            if self.history.len() > first_change + 1 {
                let mut changes: Vec<_> = self.history.drain(first_change..).collect();
                changes.sort_by(|a, b| a.kv.key.cmp(&b.kv.key));
                self.history.extend(changes);
            }
        }
        Reply::Txn(TxnOutcome { revision: self.revision, succeeded, responses })
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::ModRevision(key, want) => self.keys.get(key).map_or(0, |current| current.mod_revision) == *want,
            Compare::CreateRevision(key, want) => {
                self.keys.get(key).map_or(0, |current| current.create_revision) == *want
            }
            Compare::Version(key, want) => self.keys.get(key).map_or(0, |current| current.version) == *want,
            Compare::Value(key, want) => self.keys.get(key).is_some_and(|current| current.value == *want),
        }
    }

    fn op(&mut self, op: &Op, revision: u64) -> Result<OpOutcome, Refusal> {
        match op {
            Op::Put { key, value } => {
                let prev = self.keys.get(key).map(|current| current.with_key(key));
                let kv = KeyValue {
                    key: prev.as_ref().map_or_else(|| key.clone(), |prev| prev.key.clone()),
                    value: value.clone(),
                    create_revision: prev.as_ref().map_or(revision, |prev| prev.create_revision),
                    mod_revision: revision,
                    version: prev.as_ref().map_or(1, |prev| prev.version + 1),
                };
                self.change(Event { kv, deleted: false, prev: prev.clone() });
                Ok(OpOutcome::Put { prev })
            }
            Op::Delete { range } => Ok(OpOutcome::Delete { deleted: self.delete(range, revision) }),
            Op::Range(range) => self.range(range).map(OpOutcome::Range),
        }
    }

    fn delete(&mut self, range: &KeyRange, revision: u64) -> Vec<KeyValue> {
        let deleted: Vec<KeyValue> = self.current(range).map(|(key, current)| current.with_key(key)).collect();
        for prev in &deleted {
            let kv = KeyValue {
                key: prev.key.clone(),
                value: bytes::Bytes::new(),
                create_revision: 0,
                mod_revision: revision,
                version: 0,
            };
            self.change(Event { kv, deleted: true, prev: Some(prev.clone()) });
        }
        deleted
    }
}
