//! Shuffle sharding: which few of a level's queues are open to a flow.

use sha2::{Digest, Sha256};

/// Hands of more queues than this would hold more possibilities than the hash has bits (upstream limits the entropy
/// to 60 bits).
const ENTROPY_BITS_MAX: f64 = 60.0;

/// The number from which a flow's hand is dealt.
pub fn hash(schema: &str, flow: &str) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update(schema.as_bytes());
    hasher.update([0]);
    hasher.update(flow.as_bytes());
    let digest = hasher.finalize();
    digest.iter().take(8).fold(0, |number, byte| (number << 8) | u64::from(*byte))
}

/// Whether a hash has enough bits to deal `hand` of `deck` queues.
pub fn fits(deck: usize, hand: usize) -> bool {
    let bits = (0..hand).map(|dealt| (deck.saturating_sub(dealt).max(1) as f64).log2()).sum::<f64>();
    (1..=deck).contains(&hand) && bits <= ENTROPY_BITS_MAX
}

/// `hand` different numbers below `deck`, all hands equally likely.
pub fn deal(mut hash: u64, deck: usize, hand: usize) -> impl Iterator<Item = usize> {
    let mut left: Vec<usize> = Vec::with_capacity(hand);
    (0..hand.min(deck)).map(move |dealt| {
        let remaining = (deck - dealt) as u64;
        let draw = usize::try_from(hash % remaining).unwrap_or(0);
        hash /= remaining;
        // The draw counts only cards that are still there.
        let mut card = draw;
        left.sort_unstable();
        for taken in &left {
            if card >= *taken {
                card += 1;
            }
        }
        left.push(card);
        card
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn hands_are_of_different_queues_and_all_hands_come_up() {
        let mut hands: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
        for hash in 0..6 * 5 * 4 * 3 {
            let hand: Vec<usize> = deal(hash, 6, 3).collect();
            assert_eq!(hand.iter().collect::<BTreeSet<_>>().len(), 3);
            assert!(hand.iter().all(|card| *card < 6));
            *hands.entry(hand).or_default() += 1;
        }
        assert_eq!(hands.len(), 6 * 5 * 4);
        assert!(hands.values().all(|times| *times == 3));
    }

    #[test]
    fn flows_hash_apart() {
        assert_ne!(hash("a", "bc"), hash("ab", "c"));
        assert!(fits(128, 6) && !fits(512, 10) && !fits(3, 4) && !fits(3, 0));
    }
}
