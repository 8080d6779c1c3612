//! Answers that were found lately, to questions that come again and again: whose token it is, what a webhook says.
//!
//! They are kept under a keyed hash of the question; no token stays in memory. Two generations make room: when the
//! young one is full or old, it becomes the old one, and what the old one held goes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

/// Answers in one generation; there are two.
const GENERATION_ENTRIES_MAX: usize = 16_384;

pub struct Answers<T> {
    life: Duration,
    salt: [u8; 32],
    generations: Mutex<Generations<T>>,
}

struct Generations<T> {
    young: HashMap<[u8; 32], (Instant, Arc<T>)>,
    old: HashMap<[u8; 32], (Instant, Arc<T>)>,
    since: Instant,
}

pub type Key = [u8; 32];

impl<T> Answers<T> {
    /// Answers live for `life` at most; none does if that is zero.
    pub fn new(life: Duration) -> Answers<T> {
        let generations = Generations { young: HashMap::new(), old: HashMap::new(), since: Instant::now() };
        Answers { life, salt: rand::random(), generations: Mutex::new(generations) }
    }

    pub fn key(&self, first: &str, rest: &[String]) -> Key {
        let mut hash = Sha256::new();
        hash.update(self.salt);
        for part in std::iter::once(first).chain(rest.iter().map(String::as_str)) {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    pub fn get(&self, key: &Key) -> Option<Arc<T>> {
        let generations = self.generations.lock();
        let (until, answer) = generations.young.get(key).or_else(|| generations.old.get(key))?;
        (*until > Instant::now()).then(|| answer.clone())
    }

    pub fn put(&self, key: Key, answer: Arc<T>) {
        self.put_for(key, answer, self.life);
    }

    /// For answers that live shorter or longer than others.
    pub fn put_for(&self, key: Key, answer: Arc<T>, life: Duration) {
        if life.is_zero() {
            return;
        }
        let now = Instant::now();
        let mut generations = self.generations.lock();
        if generations.young.len() >= GENERATION_ENTRIES_MAX || now.duration_since(generations.since) > self.life {
            generations.old = std::mem::take(&mut generations.young);
            generations.since = now;
        }
        generations.young.insert(key, (now + life, answer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn answers_live_their_time_and_no_more_than_two_generations_are_kept() {
        let cache = Answers::new(Duration::from_secs(10));
        let key = cache.key("a", &["x".into()]);
        cache.put(key, Arc::new(1));
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(cache.get(&key).as_deref(), Some(&1));
        assert_eq!(cache.get(&cache.key("a", &["y".into()])), None);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(cache.get(&key), None);
        for number in 0..3 * GENERATION_ENTRIES_MAX {
            cache.put(cache.key(&number.to_string(), &[]), Arc::new(2));
        }
        let generations = cache.generations.lock();
        assert!(generations.young.len() + generations.old.len() <= 2 * GENERATION_ENTRIES_MAX);
    }
}
