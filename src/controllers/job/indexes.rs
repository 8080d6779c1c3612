//! Sets of completion indexes, as ordered intervals and as their text: `1,3-5,7`.

use std::fmt;

/// Ordered, disjoint, and with a gap between any two, each with its first and last index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Indexes {
    intervals: Vec<(i32, i32)>,
}

impl Indexes {
    /// What the text says of the indexes below `completions`. Parts that are none are passed over.
    pub fn parse(text: &str, completions: i32) -> Indexes {
        let mut indexes = Indexes::default();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) else { continue };
            if first >= completions {
                break;
            }
            indexes.push(first, last.min(completions - 1));
        }
        indexes
    }

    /// `indexes` need no order.
    pub fn of(indexes: impl IntoIterator<Item = i32>) -> Indexes {
        let mut ordered: Vec<i32> = indexes.into_iter().collect();
        ordered.sort_unstable();
        let mut indexes = Indexes::default();
        for index in ordered {
            indexes.push(index, index);
        }
        indexes
    }

    pub fn union(&self, other: &Indexes) -> Indexes {
        let mut all: Vec<(i32, i32)> = self.intervals.iter().chain(&other.intervals).copied().collect();
        all.sort_unstable();
        let mut union = Indexes::default();
        for (first, last) in all {
            union.push(first, last);
        }
        union
    }

    /// Adds an interval that does not begin before those that are there.
    fn push(&mut self, first: i32, last: i32) {
        match self.intervals.last_mut() {
            Some((_, end)) if first <= end.saturating_add(1) => *end = (*end).max(last),
            _ => self.intervals.push((first, last)),
        }
    }

    pub fn contains(&self, index: i32) -> bool {
        let after = self.intervals.partition_point(|&(_, last)| last < index);
        self.intervals.get(after).is_some_and(|&(first, _)| first <= index)
    }

    pub fn len(&self) -> i32 {
        let len: i64 = self.intervals.iter().map(|&(first, last)| i64::from(last) - i64::from(first) + 1).sum();
        i32::try_from(len.max(0)).unwrap_or(i32::MAX)
    }

    pub fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    /// How many indexes are in both.
    pub fn overlap(&self, other: &Indexes) -> i32 {
        let (mut ours, mut theirs) = (self.intervals.iter().peekable(), other.intervals.iter().peekable());
        let mut overlap = 0;
        while let (Some(&&(first, last)), Some(&&(other_first, other_last))) = (ours.peek(), theirs.peek()) {
            overlap += (last.min(other_last) - first.max(other_first) + 1).max(0);
            if last <= other_last {
                ours.next();
            }
            if other_last <= last {
                theirs.next();
            }
        }
        overlap
    }

    /// The first `count` indexes below `completions` that are not in the set. Costs as much as the set has intervals, and
    /// `count`.
    pub fn first_missing(&self, count: usize, completions: i32) -> Vec<i32> {
        let end = [(completions, completions)];
        let mut missing = Vec::new();
        let mut next = 0;
        for &(first, last) in self.intervals.iter().chain(&end) {
            let gap = next..first.min(completions);
            missing.extend(gap.take(count - missing.len()));
            next = next.max(last.saturating_add(1));
        }
        missing
    }
}

impl fmt::Display for Indexes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (first, last)) in self.intervals.iter().enumerate() {
            if at > 0 {
                f.write_str(",")?;
            }
            match last - first {
                0 => write!(f, "{first}")?,
                1 => write!(f, "{first},{last}")?,
                _ => write!(f, "{first}-{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn texts_are_as_short_as_upstreams() {
        assert_eq!(Indexes::of([7, 1, 3, 4, 5, 1]).to_string(), "1,3-5,7");
        assert_eq!(Indexes::of([0, 1]).to_string(), "0,1");
        assert_eq!(Indexes::default().to_string(), "");
    }

    #[test]
    fn what_is_no_index_is_passed_over() {
        assert_eq!(Indexes::parse("0,x,2-y,3-9,12", 6).to_string(), "0,3-5");
        assert!(Indexes::parse("", 6).is_empty());
    }

    proptest! {
        #[test]
        fn the_set_is_what_a_plain_set_would_be(a in prop::collection::btree_set(0..40, 0..30), b in prop::collection::btree_set(0..40, 0..30)) {
            let (x, y) = (Indexes::of(a.iter().copied()), Indexes::of(b.iter().copied()));
            let union: BTreeSet<i32> = a.union(&b).copied().collect();
            prop_assert_eq!(x.union(&y), Indexes::of(union.iter().copied()));
            prop_assert_eq!(x.overlap(&y), i32::try_from(a.intersection(&b).count()).unwrap());
            prop_assert_eq!(x.len(), i32::try_from(a.len()).unwrap());
            prop_assert_eq!(Indexes::parse(&x.to_string(), 40), x.clone());
            for index in 0..40 {
                prop_assert_eq!(x.contains(index), a.contains(&index));
            }
            let missing: Vec<i32> = (0..35).filter(|index| !a.contains(index)).take(5).collect();
            prop_assert_eq!(x.first_missing(5, 35), missing);
        }
    }
}
