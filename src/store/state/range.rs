//! Reads of a range of keys, now or at a past revision.

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

use crate::command::Refusal;
use crate::types::{Event, KeyRange, KeyValue, Range, RangeOutcome};

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
        let mut found = Found { range, kvs: Vec::new(), count: 0 };
        match range.revision {
            Some(revision) if revision < self.revision => self.past(&range.keys, revision, &mut found),
            _ => self.current(&range.keys).for_each(|(key, current)| found.add(key, current)),
        }
        Ok(RangeOutcome {
            revision: self.revision,
            more: !range.count_only && found.count > found.kvs.len(),
            kvs: found.kvs,
            count: found.count,
        })
    }

    /// The keys of a range that exist now, in order.
    pub(super) fn current<'a>(&'a self, keys: &KeyRange) -> impl Iterator<Item = (&'a Bytes, &'a Current)> + use<'a> {
        within(&self.keys, keys)
    }

    /// The keys of a range that existed at `revision`, in order: two ordered walks, the keys that exist now and
    /// those that changed since compaction, merged.
    fn past(&self, keys: &KeyRange, revision: u64, found: &mut Found<'_>) {
        let mut now = self.current(keys).peekable();
        let mut changed = within(&self.changes, keys).peekable();
        loop {
            let order = match (now.peek(), changed.peek()) {
                (None, None) => return,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((key, _)), Some((changed_key, _))) => key.cmp(changed_key),
            };
            let current = if order == Ordering::Greater { None } else { now.next() };
            let chain = if order == Ordering::Less { None } else { changed.next() };
            match chain.and_then(|(_, chain)| first_after(chain, revision)) {
                Some(event) => {
                    if let Some(prev) = &event.prev {
                        found.add_kv(prev);
                    }
                }
                // No change since: it is now as it was then.
                None => {
                    if let Some((key, current)) = current {
                        found.add(key, current);
                    }
                }
            }
        }
    }
}

/// What a read has collected.
struct Found<'a> {
    range: &'a Range,
    kvs: Vec<KeyValue>,
    count: usize,
}

impl Found<'_> {
    fn wanted(&mut self) -> bool {
        self.count += 1;
        !self.range.count_only && (self.range.limit == 0 || self.kvs.len() < self.range.limit)
    }

    fn add(&mut self, key: &Bytes, current: &Current) {
        if self.wanted() {
            let mut kv = current.with_key(key);
            self.strip(&mut kv);
            self.kvs.push(kv);
        }
    }

    fn add_kv(&mut self, kv: &KeyValue) {
        if self.wanted() {
            let mut kv = kv.clone();
            self.strip(&mut kv);
            self.kvs.push(kv);
        }
    }

    fn strip(&self, kv: &mut KeyValue) {
        if self.range.keys_only {
            kv.value = Bytes::new();
        }
    }
}

fn first_after(chain: &VecDeque<Arc<Event>>, revision: u64) -> Option<&Arc<Event>> {
    chain.get(chain.partition_point(|event| event.kv.mod_revision <= revision))
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
