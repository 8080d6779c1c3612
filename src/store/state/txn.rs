//! Transactions: compare, then do one of two lists of operations at one new revision.
//!
//! All comparisons, also those of transactions within, are made before anything is changed; so is what may be refused.

use std::vec::IntoIter;

use bytes::Bytes;

use crate::command::{Refusal, Reply};
use crate::types::{Compare, Delete, Event, KeyValue, NO_LEASE, Op, OpOutcome, Operator, Put, Target, Txn, TxnOutcome};

use super::State;

impl State {
    /// Changes nothing if a step of the branch taken is refused.
    pub(super) fn txn(&mut self, txn: &Txn) -> Reply {
        let mut within = Vec::new();
        let succeeded = self.decide(txn, &mut within);
        if let Err(refusal) = self.check(txn, succeeded, &mut within.clone().into_iter()) {
            return refusal.into();
        }
        let first_change = self.history.len();
        match self.run(txn, succeeded, &mut within.into_iter(), self.revision + 1) {
            Ok(mut outcome) => {
                self.end_revision(first_change);
                outcome.seal(self.revision);
                Reply::Txn(outcome)
            }
            // Not reached: what can be refused was looked at above.
            Err(refusal) => refusal.into(),
        }
    }

    /// Whether the comparisons hold; and the same for the transactions within the branch that is taken, in the
    /// order in which they are come across.
    fn decide(&self, txn: &Txn, within: &mut Vec<bool>) -> bool {
        let succeeded = txn.compare.iter().all(|compare| self.holds(compare));
        for op in branch(txn, succeeded) {
            if let Op::Txn(txn) = op {
                let at = within.len();
                within.push(false);
                let succeeded = self.decide(txn, within);
                if let Some(place) = within.get_mut(at) {
                    *place = succeeded;
                }
            }
        }
        succeeded
    }

    fn holds(&self, compare: &Compare) -> bool {
        if compare.keys.end.is_none() {
            return match self.keys.get(&compare.keys.start) {
                Some(current) => compare.holds(&self.kv(&compare.keys.start, current)),
                None => compare.holds_for_none(),
            };
        }
        let mut found = self.current(&compare.keys).peekable();
        if found.peek().is_none() {
            return compare.holds_for_none();
        }
        found.all(|(key, current)| compare.holds(&self.kv(key, current)))
    }

    fn check(&self, txn: &Txn, succeeded: bool, within: &mut IntoIter<bool>) -> Result<(), Refusal> {
        for op in branch(txn, succeeded) {
            match op {
                Op::Put(put) => {
                    if (put.ignore_value || put.ignore_lease) && !self.keys.contains_key(&put.key) {
                        return Err(Refusal::KeyNotFound);
                    }
                    if put.has_lease() && !self.leases.exists(put.lease) {
                        return Err(Refusal::LeaseNotFound { id: put.lease });
                    }
                }
                Op::Delete(_) => {}
                Op::Range(range) => self.readable(range.revision)?,
                Op::Txn(txn) => {
                    let succeeded = within.next().unwrap_or(false);
                    self.check(txn, succeeded, within)?;
                }
            }
        }
        Ok(())
    }

    fn run(
        &mut self,
        txn: &Txn,
        succeeded: bool,
        within: &mut IntoIter<bool>,
        revision: u64,
    ) -> Result<TxnOutcome, Refusal> {
        let ops = branch(txn, succeeded);
        let mut responses = Vec::with_capacity(ops.len());
        for op in ops {
            responses.push(match op {
                Op::Put(put) => OpOutcome::Put { prev: self.put(put, revision) },
                Op::Delete(delete) => self.delete(delete, revision),
                Op::Range(range) => OpOutcome::Range(self.range(range)?),
                Op::Txn(txn) => {
                    let succeeded = within.next().unwrap_or(false);
                    OpOutcome::Txn(self.run(txn, succeeded, within, revision)?)
                }
            });
        }
        Ok(TxnOutcome { revision, succeeded, responses })
    }

    fn put(&mut self, put: &Put, revision: u64) -> Option<KeyValue> {
        let prev = self.keys.get_key_value(&put.key).map(|(key, current)| self.kv(key, current));
        let kept = |keep: bool| prev.as_ref().filter(|_| keep);
        let kv = KeyValue {
            key: prev.as_ref().map_or(&put.key, |prev| &prev.key).clone(),
            value: kept(put.ignore_value).map_or(&put.value, |prev| &prev.value).clone(),
            create_revision: prev.as_ref().map_or(revision, |prev| prev.create_revision),
            mod_revision: revision,
            version: prev.as_ref().map_or(1, |prev| prev.version + 1),
            lease: kept(put.ignore_lease).map_or(put.lease, |prev| prev.lease),
        };
        let returned = if put.prev_kv { prev.clone() } else { None };
        self.change(Event { kv, deleted: false, prev: prev.map(Box::new) });
        returned
    }

    fn delete(&mut self, delete: &Delete, revision: u64) -> OpOutcome {
        let keys: Vec<Bytes> = self.current(&delete.range).map(|(key, _)| key.clone()).collect();
        let deleted = keys.iter().filter_map(|key| self.delete_key(key, revision));
        if delete.prev_kv {
            let prev: Vec<KeyValue> = deleted.collect();
            return OpOutcome::Delete { deleted: prev.len(), prev };
        }
        OpOutcome::Delete { deleted: deleted.count(), prev: Vec::new() }
    }

    /// Deletes a key; returns it as it was.
    pub(super) fn delete_key(&mut self, key: &Bytes, revision: u64) -> Option<KeyValue> {
        let prev = self.keys.get_key_value(key).map(|(key, current)| self.kv(key, current))?;
        let kv = KeyValue { key: prev.key.clone(), mod_revision: revision, lease: NO_LEASE, ..KeyValue::default() };
        self.change(Event { kv, deleted: true, prev: Some(Box::new(prev.clone())) });
        Some(prev)
    }

    /// The changes since `first_change` are a revision, if there are any.
    fn end_revision(&mut self, first_change: usize) {
        if self.history.len() > first_change {
            self.revision += 1;
            if self.history.len() > first_change + 1 {
                let mut changes: Vec<_> = self.history.drain(first_change..).collect();
                changes.sort_by(|a, b| a.kv.key.cmp(&b.kv.key));
                self.history.extend(changes);
            }
        }
    }
}

fn branch(txn: &Txn, succeeded: bool) -> &[Op] {
    if succeeded { &txn.success } else { &txn.failure }
}

impl Compare {
    /// It holds for a key as it is.
    fn holds(&self, kv: &KeyValue) -> bool {
        let order = match &self.target {
            Target::Version(want) => kv.version.cmp(want),
            Target::CreateRevision(want) => kv.create_revision.cmp(want),
            Target::ModRevision(want) => kv.mod_revision.cmp(want),
            Target::Value(want) => kv.value.cmp(want),
            Target::Lease(want) => kv.lease.cmp(want),
        };
        match self.operator {
            Operator::Equal => order.is_eq(),
            Operator::Greater => order.is_gt(),
            Operator::Less => order.is_lt(),
            Operator::NotEqual => order.is_ne(),
        }
    }

    /// It holds where there is no key.
    fn holds_for_none(&self) -> bool {
        !matches!(self.target, Target::Value(_)) && self.holds(&KeyValue::default())
    }
}

impl TxnOutcome {
    /// Says at which revision all of it took place.
    pub(super) fn seal(&mut self, revision: u64) {
        self.revision = revision;
        for response in &mut self.responses {
            if let OpOutcome::Txn(outcome) = response {
                outcome.seal(revision);
            }
        }
    }
}
