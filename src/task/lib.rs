//! Supervised tasks and orderly shutdown.
//!
//! Every task in the process is started here, under a name. A panic in a task is a bug that stays in
//! that task: it is logged, counted in [`panics`], and a task that was started with [`restarting`] begins
//! again after a pause. Nothing here knows what the tasks do.
//!
//! Shutdown is a [`Shutdown`] token: cloned into every task, triggered once, and awaited by each of them
//! at the points where it may stop.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use tokio::task::JoinHandle;
use tracing::Instrument;

/// The token that tells tasks to stop. Clones share one state; a child stops with its parent.
pub type Shutdown = tokio_util::sync::CancellationToken;

/// A token that is triggered `delay` after `shutdown`.
pub fn delayed(shutdown: &Shutdown, delay: Duration) -> Shutdown {
    if delay.is_zero() {
        return shutdown.clone();
    }
    let (later, first) = (Shutdown::new(), shutdown.clone());
    let triggered = later.clone();
    spawn("shutdown-delay", async move {
        first.cancelled().await;
        tokio::time::sleep(delay).await;
        triggered.cancel();
    });
    later
}

/// First and longest pause before a task that ended is started again.
const RESTART_PAUSE_MIN: Duration = Duration::from_millis(100);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);
/// A task that ran this long is considered healthy: its next restart waits the shortest pause again.
const HEALTHY_AFTER: Duration = Duration::from_secs(60);

static PANICS: AtomicU64 = AtomicU64::new(0);

/// How many tasks have panicked since the process started.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Starts `future` as a task called `name`. A panic is logged and counted; the handle then yields `None`.
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "the one place that starts tasks")]
    tokio::spawn(caught(name, future).instrument(tracing::info_span!("task", name)))
}

/// Starts a task that runs until `shutdown`, whatever happens to it: when the future that `make` returns
/// ends, by an error or a panic, it is made again after a pause that doubles up to 30 s.
/// Ending with `Ok` is ending for good.
pub fn restarting<M, F, E>(name: &'static str, shutdown: Shutdown, mut make: M) -> JoinHandle<Option<()>>
where
    M: FnMut() -> F + Send + 'static,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: std::fmt::Display + Send + 'static,
{
    spawn(name, async move {
        let mut pause = RESTART_PAUSE_MIN;
        loop {
            let started = tokio::time::Instant::now();
            let ended = tokio::select! {
                () = shutdown.cancelled() => return,
                ended = caught(name, make()) => ended,
            };
            match ended {
                Some(Ok(())) => return,
                Some(Err(error)) => tracing::error!(task = name, %error, "task failed; it is started again"),
                None => tracing::error!(task = name, "task panicked; it is started again"),
            }
            if started.elapsed() > HEALTHY_AFTER {
                pause = RESTART_PAUSE_MIN;
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(RESTART_PAUSE_MAX);
        }
    })
}

async fn caught<F: Future>(name: &'static str, future: F) -> Option<F::Output> {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(output) => Some(output),
        Err(panic) => {
            PANICS.fetch_add(1, Ordering::Relaxed);
            let message = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no message".to_owned());
            tracing::error!(task = name, panic = %message, "panic");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    #[tokio::test(start_paused = true)]
    async fn a_panicking_task_begins_again_and_ends_for_good_with_ok() {
        let runs = Arc::new(AtomicU32::new(0));
        let counted = runs.clone();
        let handle = restarting("test", Shutdown::new(), move || {
            let run = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                match run {
                    0 => panic!("first"),
                    1 => Err("second"),
                    _ => Ok(()),
                }
            }
        });
        assert_eq!(handle.await.unwrap(), Some(()));
        assert_eq!(runs.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_delayed_token_follows_the_first() {
        let shutdown = Shutdown::new();
        let later = delayed(&shutdown, Duration::from_secs(5));
        let began = tokio::time::Instant::now();
        shutdown.cancel();
        assert!(!later.is_cancelled());
        later.cancelled().await;
        assert_eq!(began.elapsed(), Duration::from_secs(5));
        assert!(delayed(&shutdown, Duration::ZERO).is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_ends_a_task_that_keeps_failing() {
        let shutdown = Shutdown::new();
        let handle = restarting("test", shutdown.clone(), || async { Err("always") });
        shutdown.cancel();
        assert_eq!(handle.await.unwrap(), Some(()));
    }
}
