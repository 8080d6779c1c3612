//! Reads of the keys in a range.

use serde::{Deserialize, Serialize};

use super::{KeyRange, KeyValue};

/// A read of the keys in a range (etcd: `RangeRequest`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub keys: KeyRange,
    /// `None` reads the newest state.
    pub revision: Option<u64>,
    /// At most this many keys are returned; 0 is all.
    pub limit: usize,
    /// Values are left empty.
    pub keys_only: bool,
    /// No keys are returned, only their number.
    pub count_only: bool,
    /// In another order than that of the keys. All keys in the range are gone through, whatever the limit.
    pub sort: Option<Sort>,
    /// Only keys with revisions within these bounds are returned. All keys in the range are gone through.
    pub bounds: Bounds,
}

impl Range {
    /// Everything in `keys`, newest state.
    pub fn all(keys: KeyRange) -> Range {
        Range {
            keys,
            revision: None,
            limit: 0,
            keys_only: false,
            count_only: false,
            sort: None,
            bounds: Bounds::default(),
        }
    }
}

impl From<KeyRange> for Range {
    fn from(keys: KeyRange) -> Range {
        Range::all(keys)
    }
}

/// An order of results. Keys that are equal in it stay in their own order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sort {
    pub target: SortTarget,
    pub order: SortOrder,
}

/// By what results are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SortTarget {
    Key,
    Version,
    CreateRevision,
    ModRevision,
    Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SortOrder {
    Ascending,
    Descending,
}

/// Inclusive bounds of revisions; 0 is no bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    pub mod_revision_min: u64,
    pub mod_revision_max: u64,
    pub create_revision_min: u64,
    pub create_revision_max: u64,
}

impl Bounds {
    pub(crate) fn is_none(&self) -> bool {
        *self == Bounds::default()
    }

    pub(crate) fn admit(&self, kv: &KeyValue) -> bool {
        let within = |value: u64, min: u64, max: u64| value >= min && (max == 0 || value <= max);
        within(kv.mod_revision, self.mod_revision_min, self.mod_revision_max)
            && within(kv.create_revision, self.create_revision_min, self.create_revision_max)
    }
}

/// What a range read found, in key order unless another one was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RangeOutcome {
    /// The store's newest revision at the time of the read, even when an older one was read.
    pub revision: u64,
    pub kvs: Vec<KeyValue>,
    /// The limit left keys out.
    pub more: bool,
    /// Keys in the range regardless of limit and bounds.
    pub count: usize,
}
