//! Configuration files that may change while the server runs.

use std::path::PathBuf;
use std::time::Duration;

use task::Shutdown;

/// How often a file is looked at (upstream: once a minute as well, beside its notifications).
const INTERVAL: Duration = Duration::from_secs(60);

/// Calls `changed` with a file's text when it is another one than `known`, until shutdown. `false` means that the text
/// could not be taken over for now, and is tried again.
pub async fn follow<F>(path: PathBuf, mut known: String, shutdown: Shutdown, mut changed: impl FnMut(String) -> F)
where
    F: Future<Output = bool>,
{
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        match tokio::fs::read_to_string(&path).await {
            Ok(text) if text == known => {}
            Ok(text) => {
                if changed(text.clone()).await {
                    known = text;
                }
            }
            Err(error) => tracing::error!(path = %path.display(), %error, "a configuration file cannot be read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::sync::Arc;

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_taken_over_and_a_refused_one_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        std::fs::write(&path, "a").unwrap();
        let (seen, shutdown) = (Arc::new(Mutex::new(Vec::new())), Shutdown::new());
        let (noted, stop) = (seen.clone(), shutdown.clone());
        let following = follow(path.clone(), "a".to_owned(), shutdown, move |text| {
            let mut noted = noted.lock();
            noted.push(text);
            let taken = noted.len() > 1;
            if noted.len() == 2 {
                stop.cancel();
            }
            async move { taken }
        });
        std::fs::write(&path, "b").unwrap();
        following.await;
        assert_eq!(*seen.lock(), ["b", "b"]);
    }
}
