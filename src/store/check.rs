//! What a transaction must be to be taken: bounded, with keys, and with at most one write for each key.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::error::Error;
use crate::types::{KeyRange, Op, Put, TXN_BYTES_MAX, TXN_DEPTH_MAX, TXN_OPS_MAX, Txn};

pub(crate) fn check(txn: &Txn) -> Result<(), Error> {
    check_parts(txn, TXN_OPS_MAX, TXN_DEPTH_MAX)?;
    let bytes = txn.bytes();
    if bytes > TXN_BYTES_MAX {
        return Err(Error::TooLarge { bytes, max: TXN_BYTES_MAX });
    }
    for branch in [&txn.success, &txn.failure] {
        // One operation alone cannot be in its own way.
        if branch.len() > 1 || branch.iter().any(|op| matches!(op, Op::Txn(_))) {
            Writes::of(branch)?;
        }
    }
    Ok(())
}

fn check_parts(txn: &Txn, ops_max: usize, depth_max: usize) -> Result<(), Error> {
    let ops = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    let left = ops_max.checked_sub(ops).ok_or(Error::TooManyOps { ops, max: TXN_OPS_MAX })?;
    for compare in &txn.compare {
        check_keys(&compare.keys)?;
    }
    for op in txn.ops() {
        match op {
            Op::Put(put) => check_put(put)?,
            Op::Delete(delete) => check_keys(&delete.range)?,
            Op::Range(range) => check_keys(&range.keys)?,
            Op::Txn(txn) => {
                let depth = depth_max.checked_sub(1).ok_or(Error::TooDeep { max: TXN_DEPTH_MAX })?;
                check_parts(txn, left, depth)?;
            }
        }
    }
    Ok(())
}

fn check_put(put: &Put) -> Result<(), Error> {
    if put.key.is_empty() {
        Err(Error::EmptyKey)
    } else if put.ignore_value && !put.value.is_empty() {
        Err(Error::ValueProvided)
    } else if put.ignore_lease && put.has_lease() {
        Err(Error::LeaseProvided)
    } else {
        Ok(())
    }
}

fn check_keys(keys: &KeyRange) -> Result<(), Error> {
    if keys.end.is_none() && keys.start.is_empty() { Err(Error::EmptyKey) } else { Ok(()) }
}

/// What some operations may write.
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a Bytes>,
    deletes: Vec<&'a KeyRange>,
}

impl<'a> Writes<'a> {
    /// Refuses operations of which two may write the same key. Only one of a transaction's branches is taken: they
    /// are not in each other's way.
    fn of(ops: &'a [Op]) -> Result<Writes<'a>, Error> {
        let mut all = Writes::default();
        for op in ops {
            let mut writes = Writes::default();
            match op {
                Op::Put(put) => {
                    writes.puts.insert(&put.key);
                }
                Op::Delete(delete) => writes.deletes.push(&delete.range),
                Op::Range(_) => continue,
                Op::Txn(txn) => {
                    writes = Writes::of(&txn.success)?;
                    writes.absorb(Writes::of(&txn.failure)?);
                }
            }
            if all.meets(&writes) {
                return Err(Error::DuplicateKey);
            }
            all.absorb(writes);
        }
        Ok(all)
    }

    fn absorb(&mut self, other: Writes<'a>) {
        self.puts.extend(other.puts);
        self.deletes.extend(other.deletes);
    }

    /// A key may be put twice, or put and deleted. Deleting twice is deleting once.
    fn meets(&self, other: &Writes<'_>) -> bool {
        let deleted = |puts: &BTreeSet<&Bytes>, deletes: &[&KeyRange]| {
            puts.iter().any(|key| deletes.iter().any(|range| range.contains(key)))
        };
        !self.puts.is_disjoint(&other.puts)
            || deleted(&self.puts, &other.deletes)
            || deleted(&other.puts, &self.deletes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branches(success: Vec<Op>, failure: Vec<Op>) -> Op {
        Op::Txn(Box::new(Txn { success, failure, ..Txn::default() }))
    }

    fn checked(success: Vec<Op>) -> Result<(), Error> {
        check(&Txn { success, ..Txn::default() })
    }

    #[test]
    fn no_two_operations_write_one_key() {
        let put = || Op::put("k", "1");
        let delete = || Op::delete(KeyRange::prefix("k"));
        let duplicates = [
            vec![put(), put()],
            vec![put(), delete()],
            vec![delete(), put()],
            vec![put(), branches(vec![], vec![put()])],
            vec![branches(vec![put()], vec![]), branches(vec![], vec![delete()])],
            vec![branches(vec![branches(vec![put()], vec![])], vec![]), put()],
        ];
        for ops in duplicates {
            assert!(matches!(checked(ops.clone()), Err(Error::DuplicateKey)), "{ops:?}");
        }
        for ops in [vec![branches(vec![put()], vec![put()])], vec![delete(), delete()], vec![put(), Op::put("l", "1")]]
        {
            assert!(checked(ops.clone()).is_ok(), "{ops:?}");
        }
    }

    #[test]
    fn what_stands_within_counts_with_what_it_stands_in() {
        let many = |ops: usize| (0..ops).map(|at| Op::put(format!("k{at}"), "")).collect::<Vec<_>>();
        assert!(checked(many(TXN_OPS_MAX)).is_ok());
        assert!(matches!(checked(many(TXN_OPS_MAX + 1)), Err(Error::TooManyOps { .. })));
        assert!(checked(vec![branches(many(TXN_OPS_MAX - 1), vec![])]).is_ok());
        assert!(matches!(checked(vec![branches(many(TXN_OPS_MAX), vec![])]), Err(Error::TooManyOps { .. })));
        let deep = (0..=TXN_DEPTH_MAX).fold(Op::put("k", ""), |op, _| branches(vec![op], vec![]));
        assert!(matches!(checked(vec![deep]), Err(Error::TooDeep { .. })));
    }

    #[test]
    fn a_put_that_keeps_something_brings_nothing_for_it() {
        let put = Put { key: "k".into(), ..Put::default() };
        let value = Put { value: "1".into(), ignore_value: true, ..put.clone() };
        assert!(matches!(checked(vec![Op::Put(value)]), Err(Error::ValueProvided)));
        let lease = Put { lease: 7, ignore_lease: true, ..put };
        assert!(matches!(checked(vec![Op::Put(lease)]), Err(Error::LeaseProvided)));
    }
}
