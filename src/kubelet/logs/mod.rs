//! Container logs in CRI's format: parsed, read and followed, rotated, removed.

pub mod parse;
pub mod read;
pub mod rotate;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The beginning of a small file, as text. What is no UTF-8 is replaced.
pub fn read_head(path: &Path, bytes_max: usize) -> io::Result<String> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    std::fs::File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The end of a container's log, for `terminationMessagePolicy: FallbackToLogsOnError`.
pub async fn last_words(path: &Path) -> String {
    const LINES: usize = 80;
    const BYTES_MAX: usize = 2048;
    let options = read::Options { tail_lines: Some(LINES), ..read::Options::default() };
    let Ok(output) = read::to_end(path, &options) else { return String::new() };
    let from = output.len().saturating_sub(BYTES_MAX);
    String::from_utf8_lossy(output.get(from..).unwrap_or_default()).into_owned()
}

/// Files of a log that were rotated away, oldest first: their names end in the time.
pub fn rotated(log: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name().and_then(|name| name.to_str())) else { return vec![] };
    let prefix = format!("{name}.");
    let mut found: Vec<PathBuf> = std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(|other| other.starts_with(&prefix)))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Removes a log with its rotated files.
pub fn remove(log: &Path) {
    for path in rotated(log).into_iter().chain([log.to_owned()]) {
        if let Err(error) = std::fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "log not removed");
        }
    }
}
