//! A queue of keys that need attention (upstream's workqueue).
//!
//! A key is in the queue once, however often it was added, and is never handed to two workers at a time: added while
//! it is worked on, it comes again afterwards. Failed keys come back after a pause that doubles.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use task::Shutdown;
use tokio::sync::Notify;
use tokio::time::Instant;

use api::Failure;

const RETRY_PAUSE_MIN: Duration = Duration::from_millis(5);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(300);

/// Shared by those who add and those who work. Its size is bounded by the number of keys there are.
pub struct Queue<K> {
    state: Arc<Mutex<State<K>>>,
    woken: Arc<Notify>,
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Queue { state: self.state.clone(), woken: self.woken.clone() }
    }
}

struct State<K> {
    ready: VecDeque<K>,
    /// Keys in `ready`, and keys that were added while they were being worked on.
    wanted: HashSet<K>,
    working: HashSet<K>,
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    due_keys: HashMap<u64, K>,
    next_due_id: u64,
    failures: HashMap<K, u32>,
}

impl<K: Clone + Eq + Hash + Debug + Send + 'static> Queue<K> {
    #[expect(clippy::new_without_default, reason = "a queue is made on purpose")]
    pub fn new() -> Queue<K> {
        Queue {
            state: Arc::new(Mutex::new(State {
                ready: VecDeque::new(),
                wanted: HashSet::new(),
                working: HashSet::new(),
                due: BinaryHeap::new(),
                due_keys: HashMap::new(),
                next_due_id: 0,
                failures: HashMap::new(),
            })),
            woken: Arc::new(Notify::new()),
        }
    }

    pub fn add(&self, key: K) {
        let mut state = self.state.lock();
        if state.add(key) {
            drop(state);
            self.woken.notify_one();
        }
    }

    pub fn add_after(&self, key: K, pause: Duration) {
        if pause.is_zero() {
            return self.add(key);
        }
        let mut state = self.state.lock();
        let id = state.next_due_id;
        state.next_due_id += 1;
        state.due.push(Reverse((Instant::now() + pause, id)));
        state.due_keys.insert(id, key);
        drop(state);
        self.woken.notify_one();
    }

    /// Adds a key that failed, after a pause that doubles with each failure in a row.
    pub fn retry(&self, key: K) {
        let failures = {
            let mut state = self.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            *failures += 1;
            *failures
        };
        let pause = RETRY_PAUSE_MIN.saturating_mul(1u32.checked_shl(failures - 1).unwrap_or(u32::MAX));
        self.add_after(key, pause.min(RETRY_PAUSE_MAX));
    }

    /// The key succeeded: its next failure is its first.
    pub fn forget(&self, key: &K) {
        self.state.lock().failures.remove(key);
    }

    /// Waits for a key to work on. Say [`Queue::done`] afterwards.
    pub async fn next(&self) -> K {
        loop {
            let due = {
                let mut state = self.state.lock();
                let due = state.promote(Instant::now());
                if let Some(key) = state.ready.pop_front() {
                    state.wanted.remove(&key);
                    state.working.insert(key.clone());
                    if !state.ready.is_empty() {
                        self.woken.notify_one();
                    }
                    return key;
                }
                due
            };
            match due {
                Some(due) => {
                    tokio::select! {
                        () = self.woken.notified() => {}
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
                None => self.woken.notified().await,
            }
        }
    }

    pub fn done(&self, key: &K) {
        let mut state = self.state.lock();
        state.working.remove(key);
        if state.wanted.contains(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.woken.notify_one();
        }
    }

    pub fn len(&self) -> usize {
        self.state.lock().ready.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    /// True if a worker has to wake up for it.
    fn add(&mut self, key: K) -> bool {
        if !self.wanted.insert(key.clone()) || self.working.contains(&key) {
            return false;
        }
        self.ready.push_back(key);
        true
    }

    /// Moves what is due to `ready`; yields when the next one is.
    fn promote(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse((at, id))) = self.due.peek().copied() {
            if at > now {
                return Some(at);
            }
            self.due.pop();
            if let Some(key) = self.due_keys.remove(&id) {
                self.add(key);
            }
        }
        None
    }
}

/// Runs `workers` tasks that take keys from `queue` and reconcile them until `shutdown`. `reconcile` yields when it
/// wants to see the key again without being told to; a failure is logged and retried with back-off.
pub fn run_workers<K, R, F>(name: &'static str, queue: Queue<K>, workers: usize, shutdown: Shutdown, reconcile: R)
where
    K: Clone + Eq + Hash + Debug + Send + Sync + 'static,
    R: Fn(K) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Option<Duration>, Failure>> + Send + 'static,
{
    for _ in 0..workers {
        let (queue, shutdown, reconcile) = (queue.clone(), shutdown.clone(), reconcile.clone());
        task::spawn(name, async move {
            loop {
                let key = tokio::select! {
                    () = shutdown.cancelled() => return,
                    key = queue.next() => key,
                };
                // In a task of its own: a panic must not leave the key marked as being worked on.
                let outcome = task::spawn(name, reconcile(key.clone())).await;
                match outcome {
                    Ok(Some(Ok(again))) => {
                        queue.forget(&key);
                        if let Some(pause) = again {
                            queue.add_after(key.clone(), pause);
                        }
                    }
                    Ok(Some(Err(failure))) => {
                        if failure.is_conflict() || failure.is_not_found() {
                            tracing::debug!(controller = name, ?key, %failure, "changed meanwhile; looking again");
                        } else {
                            tracing::info!(controller = name, ?key, %failure, "reconcile failed; it is tried again");
                        }
                        queue.retry(key.clone());
                    }
                    Ok(None) | Err(_) => queue.retry(key.clone()),
                }
                queue.done(&key);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_is_there_once_and_with_one_worker() {
        let queue = Queue::new();
        queue.add("a");
        queue.add("a");
        queue.add("b");
        assert_eq!(queue.next().await, "a");
        queue.add("a");
        assert_eq!(queue.next().await, "b");
        assert!(queue.is_empty(), "a is being worked on");
        queue.done(&"a");
        assert_eq!(queue.next().await, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn retries_wait_longer_each_time_until_forgotten() {
        let queue = Queue::new();
        let mut waits = Vec::new();
        for _ in 0..4 {
            let before = Instant::now();
            queue.retry("a");
            let key = queue.next().await;
            waits.push(before.elapsed().as_millis());
            queue.done(&key);
        }
        assert_eq!(waits, [5, 10, 20, 40]);
        queue.forget(&"a");
        let before = Instant::now();
        queue.retry("a");
        queue.next().await;
        assert_eq!(before.elapsed().as_millis(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_in_reconcile_is_a_failure_of_that_key_only() {
        let queue = Queue::new();
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let panicked = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let shutdown = Shutdown::new();
        run_workers("test", queue.clone(), 1, shutdown.clone(), move |key: u32| {
            let (sender, panicked) = (sender.clone(), panicked.clone());
            async move {
                if key == 1 && !panicked.swap(true, std::sync::atomic::Ordering::SeqCst) {
                    panic!("once");
                }
                sender.send(key).ok();
                Ok(None)
            }
        });
        queue.add(1);
        queue.add(2);
        let mut seen = [receiver.recv().await.unwrap(), receiver.recv().await.unwrap()];
        seen.sort_unstable();
        assert_eq!(seen, [1, 2]);
        shutdown.cancel();
    }
}
