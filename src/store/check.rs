//! What a transaction must be to be taken: bounded, with keys, and with at most one write for each key.

use std::collections::BTreeSet;

use bytes::Bytes;

use crate::error::Error;
use crate::types::{Compare, KeyRange, Op, Range, TXN_BYTES_MAX, TXN_OPS_MAX, Txn};

pub(crate) fn check(txn: &Txn) -> Result<(), Error> {
    let ops = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    if ops > TXN_OPS_MAX {
        return Err(Error::TooManyOps { ops, max: TXN_OPS_MAX });
    }
    let bytes = txn.bytes();
    if bytes > TXN_BYTES_MAX {
        return Err(Error::TooLarge { bytes, max: TXN_BYTES_MAX });
    }
    let compared = txn.compare.iter().map(|compare| match compare {
        Compare::ModRevision(key, _)
        | Compare::CreateRevision(key, _)
        | Compare::Version(key, _)
        | Compare::Value(key, _) => key,
    });
    if compared.into_iter().any(Bytes::is_empty) {
        return Err(Error::EmptyKey);
    }
    check_writes(&txn.success)?;
    check_writes(&txn.failure)
}

fn check_writes(ops: &[Op]) -> Result<(), Error> {
    let mut put = BTreeSet::new();
    let mut deleted: Vec<&KeyRange> = Vec::new();
    for op in ops {
        match op {
            Op::Put { key, .. } if key.is_empty() => return Err(Error::EmptyKey),
            Op::Put { key, .. } => {
                if !put.insert(key) {
                    return Err(Error::DuplicateKey);
                }
            }
            Op::Delete { range } => deleted.push(range),
            Op::Range(_) => {}
        }
        if let Op::Delete { range } | Op::Range(Range { keys: range, .. }) = op
            && range.end.is_none()
            && range.start.is_empty()
        {
            return Err(Error::EmptyKey);
        }
    }
    if put.iter().any(|key| deleted.iter().any(|range| range.contains(key))) {
        return Err(Error::DuplicateKey);
    }
    Ok(())
}
