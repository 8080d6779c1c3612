//! How long a refused client is told to stay away: longer the more are refused (upstream: `DroppedRequestsTracker`).

use std::collections::VecDeque;

const RETRY_AFTER_SECONDS_MAX: i64 = 32;

/// Refusals of one level, by second.
#[derive(Debug)]
pub struct RetryAfter {
    seconds: i64,
    raised_at: i64,
    current: (i64, i64),
    history: VecDeque<(i64, i64)>,
}

impl Default for RetryAfter {
    fn default() -> RetryAfter {
        RetryAfter { seconds: 1, raised_at: 0, current: (0, 0), history: VecDeque::new() }
    }
}

impl RetryAfter {
    /// Counts a refusal and says after how many seconds the client may come again.
    pub fn refused(&mut self, now: i64) -> u32 {
        if self.current.0 == now {
            self.current.1 += 1;
        } else {
            self.history.push_back(self.current);
            let kept = (2 * self.seconds).min(RETRY_AFTER_SECONDS_MAX);
            while self.history.front().is_some_and(|(second, _)| now - second > kept) {
                self.history.pop_front();
            }
            self.current = (now, 1);
            self.adapt(now);
        }
        u32::try_from(self.seconds).unwrap_or(1)
    }

    fn adapt(&mut self, now: i64) {
        let recent = self.history.iter().filter(|(second, _)| now - second <= self.seconds && *second < now);
        let refused: i64 = recent.map(|(_, count)| count).sum();
        if now - self.raised_at >= self.seconds && refused >= 3 * self.seconds {
            self.seconds = (2 * self.seconds).min(RETRY_AFTER_SECONDS_MAX);
            self.raised_at = now;
        } else if refused < self.seconds && self.seconds > 1 {
            self.seconds -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_refusals_raise_it_and_few_lower_it() {
        let mut retry = RetryAfter::default();
        let told = (1000..1070).map(|second| (0..200).map(|_| retry.refused(second)).last().unwrap());
        let told: Vec<u32> = told.collect();
        assert_eq!((told[0], told[69]), (1, 32));
        assert!(told.is_sorted());
        let calm: Vec<u32> = (1200..1240).map(|second| retry.refused(second)).collect();
        assert!(calm[39] < 32 && calm.is_sorted_by(|one, next| one >= next));
    }
}
