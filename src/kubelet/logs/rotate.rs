//! Rotation: a log that has grown too large is renamed, the runtime opens a new one, old files go.

use std::io;
use std::path::Path;
use std::time::Duration;

use cri::v1::ContainerState;
use k8s_openapi::jiff::Timestamp;
use task::Shutdown;

use super::rotated;
use crate::runtime::Runtime;

/// Upstream's `containerLogMaxSize` and `containerLogMaxFiles`.
pub const SIZE_BYTES_MAX: u64 = 10 * 1024 * 1024;
pub const FILES_MAX: usize = 5;
const CHECK: Duration = Duration::from_secs(30);

/// Looks at the logs of running containers until shutdown.
pub async fn run(runtime: Runtime, shutdown: Shutdown) {
    let mut tick = tokio::time::interval(CHECK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // Paths do not change: each is asked for once.
    let mut known: std::collections::HashMap<String, std::path::PathBuf> = std::collections::HashMap::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = tick.tick() => {}
        }
        let Ok(containers) = runtime.list_containers(std::collections::HashMap::new()).await else { continue };
        known.retain(|id, _| containers.iter().any(|one| &one.id == id));
        for one in containers.iter().filter(|one| one.state() == ContainerState::ContainerRunning) {
            if !known.contains_key(&one.id)
                && let Ok(status) = runtime.container_status(&one.id).await
                && !status.log_path.is_empty()
            {
                known.insert(one.id.clone(), status.log_path.into());
            }
            if let Some(path) = known.get(&one.id)
                && let Err(error) = rotate(&runtime, &one.id, path).await
            {
                tracing::warn!(path = %path.display(), %error, "log not rotated");
            }
        }
    }
}

async fn rotate(runtime: &Runtime, id: &str, path: &Path) -> io::Result<()> {
    match std::fs::metadata(path) {
        Ok(meta) if meta.len() > SIZE_BYTES_MAX => {}
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    make_room(path)?;
    let aside = format!("{}.{}", path.display(), Timestamp::now().strftime("%Y%m%d-%H%M%S"));
    std::fs::rename(path, &aside)?;
    if let Err(error) = runtime.reopen_log(id).await {
        // The runtime still writes to the old file: it gets its name back.
        std::fs::rename(&aside, path)?;
        return Err(io::Error::other(error));
    }
    Ok(())
}

/// Leaves as many old files as there may be beside the new one and the one that is about to become old.
fn make_room(path: &Path) -> io::Result<()> {
    let old = rotated(path);
    let surplus = (old.len() + 2).saturating_sub(FILES_MAX);
    old.iter().take(surplus).try_for_each(std::fs::remove_file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_files_go() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("0.log");
        for day in 1..=6 {
            std::fs::write(temp.path().join(format!("0.log.2026010{day}-000000")), "").unwrap();
        }
        std::fs::write(temp.path().join("1.log.20260101-000000"), "").unwrap();
        make_room(&path).unwrap();
        let left: Vec<String> =
            rotated(&path).iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
        assert_eq!(left, ["0.log.20260104-000000", "0.log.20260105-000000", "0.log.20260106-000000"]);
    }
}
