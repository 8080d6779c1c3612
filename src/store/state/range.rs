//! Reads of a range of keys, now or at a past revision.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use crate::command::Refusal;
use crate::types::{KeyRange, KeyValue, Range, RangeOutcome, Sort, SortOrder, SortTarget};

use super::{Current, State};

impl State {
    /// A read at this revision is possible.
    pub(super) fn readable(&self, revision: Option<u64>) -> Result<(), Refusal> {
        match revision {
            Some(requested) if requested > self.revision => {
                Err(Refusal::FutureRevision { requested, revision: self.revision })
            }
            Some(requested) if requested < self.compacted => {
                Err(Refusal::Compacted { requested, compacted: self.compacted })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn range(&self, range: &Range) -> Result<RangeOutcome, Refusal> {
        self.readable(range.revision)?;
        let mut found = Found::new(range);
        match range.revision {
            Some(revision) if revision < self.revision => self.past(&range.keys, revision, &mut found),
            _ => self.current(&range.keys).for_each(|(key, current)| found.add(|| self.kv(key, current))),
        }
        Ok(found.outcome(self.revision))
    }

    /// The keys of a range that exist now, in order.
    pub(super) fn current<'a>(&'a self, keys: &KeyRange) -> impl Iterator<Item = (&'a Bytes, &'a Current)> + use<'a> {
        within(&self.keys, keys)
    }

    /// The keys of a range that existed at `revision`, in order: two ordered walks, the keys that exist now and those
    /// that were deleted since compaction, merged.
    fn past(&self, keys: &KeyRange, revision: u64, found: &mut Found<'_>) {
        let mut now = self.current(keys).peekable();
        let mut deleted = within(&self.deletions, keys).map(|(key, _)| key).peekable();
        loop {
            let current = now.next_if(|(key, _)| deleted.peek().is_none_or(|deleted| key <= deleted));
            let key = match current {
                Some((key, _)) => deleted.next_if_eq(&key).unwrap_or(key),
                None => match deleted.next() {
                    Some(key) => key,
                    None => return,
                },
            };
            if let Some(kv) = self.version_at(key, current.map(|(_, current)| current), revision) {
                found.add(|| kv);
            }
        }
    }
}

/// What a read has collected.
struct Found<'a> {
    range: &'a Range,
    kvs: Vec<KeyValue>,
    count: usize,
    /// Keys that the bounds admit; the limit may have left some of them out.
    admitted: usize,
}

impl Found<'_> {
    fn new(range: &Range) -> Found<'_> {
        Found { range, kvs: Vec::new(), count: 0, admitted: 0 }
    }

    fn add(&mut self, kv: impl FnOnce() -> KeyValue) {
        let range = self.range;
        self.count += 1;
        if range.count_only {
            return;
        }
        // What is sorted must be there as a whole.
        let full = range.sort.is_none() && range.limit != 0 && self.kvs.len() >= range.limit;
        if full && range.bounds.is_none() {
            self.admitted += 1;
            return;
        }
        let mut kv = kv();
        if !range.bounds.admit(&kv) {
            return;
        }
        self.admitted += 1;
        if full {
            return;
        }
        // A value that is ordered by is needed until then.
        if range.keys_only && range.sort.is_none() {
            kv.value = Bytes::new();
        }
        self.kvs.push(kv);
    }

    fn outcome(mut self, revision: u64) -> RangeOutcome {
        if let Some(sort) = self.range.sort {
            self.kvs.sort_by(|a, b| sort.compare(a, b));
            if self.range.limit != 0 {
                self.kvs.truncate(self.range.limit);
            }
            if self.range.keys_only {
                self.kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
            }
        }
        let more = self.admitted > self.kvs.len();
        RangeOutcome { revision, kvs: self.kvs, more, count: self.count }
    }
}

impl Sort {
    fn compare(&self, a: &KeyValue, b: &KeyValue) -> Ordering {
        let order = match self.target {
            SortTarget::Key => a.key.cmp(&b.key),
            SortTarget::Version => a.version.cmp(&b.version),
            SortTarget::CreateRevision => a.create_revision.cmp(&b.create_revision),
            SortTarget::ModRevision => a.mod_revision.cmp(&b.mod_revision),
            SortTarget::Value => a.value.cmp(&b.value),
        };
        match self.order {
            SortOrder::Ascending => order,
            SortOrder::Descending => order.reverse(),
        }
    }
}

fn within<'a, V>(
    map: &'a BTreeMap<Bytes, V>,
    keys: &KeyRange,
) -> impl Iterator<Item = (&'a Bytes, &'a V)> + use<'a, V> {
    let start = keys.start.clone();
    let (lower, upper) = match &keys.end {
        None => (Bound::Included(start.clone()), Bound::Included(start)),
        Some(end) if end.is_empty() => (Bound::Included(start), Bound::Unbounded),
        // An inverted range is empty; the map would panic on it.
        Some(end) if *end <= start => (Bound::Included(start.clone()), Bound::Excluded(start)),
        Some(end) => (Bound::Included(start), Bound::Excluded(end.clone())),
    };
    map.range((lower, upper))
}
