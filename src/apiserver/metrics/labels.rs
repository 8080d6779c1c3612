//! Figures by label values: found without a lock and without allocation once they are there.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

/// Sets of label values; what comes later is counted together.
const SETS_MAX: usize = 10_000;

pub struct ByLabels<const N: usize, T> {
    sets: ArcSwap<HashMap<u64, Arc<Set<N, T>>>>,
    hasher: RandomState,
    adding: Mutex<()>,
    make: fn() -> T,
}

pub struct Set<const N: usize, T> {
    pub values: [Box<str>; N],
    pub figures: T,
}

impl<const N: usize, T> Set<N, T> {
    /// The values with the labels' names, in the same order.
    pub fn labels<'a>(&'a self, names: [&'static str; N]) -> Vec<(&'static str, &'a str)> {
        names.into_iter().zip(self.values.iter().map(AsRef::as_ref)).collect()
    }
}

impl<const N: usize, T> ByLabels<N, T> {
    pub fn new(make: fn() -> T) -> ByLabels<N, T> {
        ByLabels { sets: ArcSwap::default(), hasher: RandomState::new(), adding: Mutex::new(()), make }
    }

    pub fn get(&self, values: [&str; N]) -> Arc<Set<N, T>> {
        // 64 bits of a keyed hash: that two of ten thousand sets meet is not to be expected.
        let hash = self.hasher.hash_one(values);
        if let Some(set) = self.sets.load().get(&hash) {
            return set.clone();
        }
        let _adding = self.adding.lock();
        let sets = self.sets.load_full();
        let (hash, values) = match sets.len() < SETS_MAX || sets.contains_key(&hash) {
            true => (hash, values),
            false => (0, ["other"; N]),
        };
        if let Some(set) = sets.get(&hash) {
            return set.clone();
        }
        let set = Arc::new(Set { values: values.map(Box::from), figures: (self.make)() });
        let mut more = HashMap::clone(&sets);
        more.insert(hash, set.clone());
        self.sets.store(Arc::new(more));
        set
    }

    /// All sets, in the order of their values.
    pub fn all(&self) -> Vec<Arc<Set<N, T>>> {
        let mut all: Vec<_> = self.sets.load().values().cloned().collect();
        all.sort_by(|one, other| one.values.cmp(&other.values));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Counter;

    #[test]
    fn sets_are_kept_and_bounded() {
        let counters: ByLabels<2, Counter> = ByLabels::new(Counter::default);
        counters.get(["a", "b"]).figures.inc();
        counters.get(["a", "b"]).figures.inc();
        counters.get(["ab", ""]).figures.inc();
        let shown: Vec<(String, u64)> =
            counters.all().iter().map(|set| (set.values.join("/"), set.figures.get())).collect();
        assert_eq!(shown, [("a/b".to_owned(), 2), ("ab/".to_owned(), 1)]);
        for number in 0..SETS_MAX {
            counters.get([&number.to_string(), ""]).figures.inc();
        }
        assert_eq!(counters.all().len(), SETS_MAX + 1);
        assert_eq!(counters.get(["other", "other"]).figures.get(), 2);
    }
}
