//! Reading a container's log for `kubectl logs`: selected, limited, followed across rotation.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use k8s_openapi::jiff::Timestamp;
use nix::sys::inotify::AddWatchFlags;
use tokio::sync::mpsc;

use super::parse::{Line, Stream, parse};
use crate::inotify::Watch;

/// `PodLogOptions`, as far as the log itself is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub follow: bool,
    pub tail_lines: Option<usize>,
    pub since: Option<Timestamp>,
    pub timestamps: bool,
    pub limit_bytes: Option<u64>,
    /// Only this stream.
    pub stream: Option<Stream>,
}

/// Sent in pieces of about this size.
const PIECE_BYTES: usize = 32 * 1024;
/// A line is cut into pieces of at most this size, whatever the file holds.
const LINE_BYTES_MAX: u64 = 1024 * 1024;
const BLOCK_BYTES: u64 = 64 * 1024;
/// While following a silent log: how often to ask whether its container still runs.
const STATE_CHECK: Duration = Duration::from_secs(1);

/// Everything that the options select now.
pub fn to_end(path: &Path, options: &Options) -> io::Result<Vec<u8>> {
    let mut reader = open(path, options)?;
    let mut filter = Filter::new(options);
    let mut output = Vec::new();
    let mut line = Vec::new();
    while !filter.is_full && next_line(&mut reader, &mut line)? {
        filter.add(&line, &mut output);
    }
    Ok(output)
}

/// Sends what the options select and, when following, what is written later, until the container does not run any
/// more or the receiver is gone.
pub async fn stream<F, R>(path: PathBuf, options: Options, pieces: mpsc::Sender<io::Result<Bytes>>, is_running: F)
where
    F: Fn() -> R + Send,
    R: Future<Output = bool> + Send,
{
    if let Err(error) = send_all(&path, &options, &pieces, is_running).await {
        // Nobody to tell if the receiver has gone.
        let _ = pieces.send(Err(error)).await;
    }
}

async fn send_all<F, R>(
    path: &Path,
    options: &Options,
    pieces: &mpsc::Sender<io::Result<Bytes>>,
    is_running: F,
) -> io::Result<()>
where
    F: Fn() -> R + Send,
    R: Future<Output = bool> + Send,
{
    // Watched before it is read, so that nothing falls between.
    let watch = if options.follow { Some(watch(path)?) } else { None };
    let mut reader = open(path, options)?;
    let mut filter = Filter::new(options);
    let mut line = Vec::new();
    let mut output = Vec::new();
    let mut was_running = true;
    loop {
        while !filter.is_full && next_line(&mut reader, &mut line)? {
            filter.add(&line, &mut output);
            if output.len() >= PIECE_BYTES && pieces.send(Ok(std::mem::take(&mut output).into())).await.is_err() {
                return Ok(());
            }
        }
        if !output.is_empty() && pieces.send(Ok(std::mem::take(&mut output).into())).await.is_err() {
            return Ok(());
        }
        let Some(watch) = watch.as_ref().filter(|_| !filter.is_full) else { return Ok(()) };
        if let Some(next) = rotated_away(&reader, path)? {
            reader = next;
            continue;
        }
        if !was_running {
            return Ok(());
        }
        let changed = tokio::select! {
            () = pieces.closed() => return Ok(()),
            changed = watch.changed() => {
                changed?;
                true
            }
            () = tokio::time::sleep(STATE_CHECK) => false,
        };
        // One more round after the end: the last lines may have come just before.
        was_running = changed || is_running().await;
    }
}

fn watch(path: &Path) -> io::Result<Watch> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    Watch::new(dir, AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO)
}

/// The new file, when the one that was read to its end has another name now.
fn rotated_away(reader: &BufReader<File>, path: &Path) -> io::Result<Option<BufReader<File>>> {
    use std::os::unix::fs::MetadataExt;
    let Ok(now) = std::fs::metadata(path) else { return Ok(None) };
    let read = reader.get_ref().metadata()?;
    if (now.dev(), now.ino()) == (read.dev(), read.ino()) {
        return Ok(None);
    }
    Ok(Some(BufReader::new(File::open(path)?)))
}

/// Opens the log where the reading begins.
fn open(path: &Path, options: &Options) -> io::Result<BufReader<File>> {
    let mut file = File::open(path)?;
    if let Some(lines) = options.tail_lines {
        let at = tail_start(&mut file, lines)?;
        file.seek(SeekFrom::Start(at))?;
    }
    Ok(BufReader::new(file))
}

/// Where the last `lines` lines begin. A line in several parts counts as several, as upstream.
fn tail_start(file: &mut File, lines: usize) -> io::Result<u64> {
    let end = file.metadata()?.len();
    if lines == 0 {
        return Ok(end);
    }
    let mut at = end;
    let mut found = 0;
    let mut block = Vec::new();
    while at > 0 {
        let from = at.saturating_sub(BLOCK_BYTES);
        block.clear();
        file.seek(SeekFrom::Start(from))?;
        file.take(at - from).read_to_end(&mut block)?;
        for (index, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = from + u64::try_from(index).unwrap_or(0) + 1;
            // The newline at the very end closes the last line.
            if after == end {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok(after);
            }
        }
        at = from;
    }
    Ok(0)
}

/// Reads a whole line; what is at the end without a newline is left for later.
fn next_line(reader: &mut BufReader<File>, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let start = reader.stream_position()?;
    reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', line)?;
    let is_cut = u64::try_from(line.len()).is_ok_and(|length| length == LINE_BYTES_MAX);
    if line.last() == Some(&b'\n') || is_cut {
        return Ok(true);
    }
    reader.seek(SeekFrom::Start(start))?;
    Ok(false)
}

struct Filter<'a> {
    options: &'a Options,
    left_bytes: u64,
    is_full: bool,
    goes_on: bool,
}

impl<'a> Filter<'a> {
    fn new(options: &'a Options) -> Filter<'a> {
        Filter { options, left_bytes: options.limit_bytes.unwrap_or(u64::MAX), is_full: false, goes_on: false }
    }

    fn add(&mut self, line: &[u8], output: &mut Vec<u8>) {
        let Some(Line { time, stream, is_partial, text }) = parse(line) else {
            tracing::debug!("a line of a container's log is not in CRI's format; it is left out");
            return;
        };
        if self.options.stream.is_some_and(|wanted| wanted != stream) {
            return;
        }
        if let Some(since) = self.options.since
            && time.parse::<Timestamp>().is_ok_and(|time| time < since)
        {
            return;
        }
        let before = output.len();
        if self.options.timestamps && !self.goes_on {
            output.extend_from_slice(time.as_bytes());
            output.push(b' ');
        }
        output.extend_from_slice(text);
        if !is_partial {
            output.push(b'\n');
        }
        self.goes_on = is_partial;
        let added = u64::try_from(output.len() - before).unwrap_or(u64::MAX);
        if added >= self.left_bytes {
            output.truncate(before + usize::try_from(self.left_bytes).unwrap_or(0));
            self.is_full = true;
        }
        self.left_bytes = self.left_bytes.saturating_sub(added);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const LOG: &str = "2026-01-01T00:00:01Z stdout F one\n2026-01-01T00:00:02Z stderr P tw\n\
        2026-01-01T00:00:02Z stderr F o\ngarbage\n2026-01-01T00:00:03Z stdout F three\n2026-01-01T00:00:04Z stdout F unfini";

    fn log(text: &str) -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("0.log");
        std::fs::write(&path, text).unwrap();
        (temp, path)
    }

    #[test]
    fn selections() {
        let (_temp, path) = log(LOG);
        let read = |options: Options| String::from_utf8(to_end(&path, &options).unwrap()).unwrap();
        let all = Options::default;
        assert_eq!(read(all()), "one\ntwo\nthree\n");
        assert_eq!(read(Options { tail_lines: Some(0), ..all() }), "");
        assert_eq!(read(Options { tail_lines: Some(100), ..all() }), "one\ntwo\nthree\n");
        assert_eq!(read(Options { limit_bytes: Some(6), ..all() }), "one\ntw");
        assert_eq!(read(Options { stream: Some(Stream::Stderr), ..all() }), "two\n");
        assert_eq!(read(Options { since: Some("2026-01-01T00:00:03Z".parse().unwrap()), ..all() }), "three\n");
        assert_eq!(
            read(Options { timestamps: true, limit_bytes: Some(49), ..all() }),
            "2026-01-01T00:00:01Z one\n2026-01-01T00:00:02Z two"
        );
    }

    #[test]
    fn the_tail_of_a_long_log() {
        let text: String = (0..20_000).map(|number| format!("2026-01-01T00:00:01Z stdout F line {number}\n")).collect();
        let (_temp, path) = log(&text);
        let read = |lines| to_end(&path, &Options { tail_lines: Some(lines), ..Options::default() }).unwrap();
        assert_eq!(read(2), b"line 19998\nline 19999\n");
        assert_eq!(read(10_000).split(|&byte| byte == b'\n').count(), 10_001);
    }

    #[tokio::test]
    async fn following_goes_on_in_the_next_file_and_ends_with_the_container() {
        let (temp, path) = log("2026-01-01T00:00:01Z stdout F one\n");
        let (sender, mut pieces) = mpsc::channel(8);
        let options = Options { follow: true, ..Options::default() };
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let follower = task::spawn(
            "test",
            stream(path.clone(), options, sender, move || {
                let stopped = stopped.clone();
                async move { !*stopped.borrow() }
            }),
        );
        assert_eq!(pieces.recv().await.unwrap().unwrap(), "one\n");
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"2026-01-01T00:00:02Z stdout F two\n").unwrap();
        assert_eq!(pieces.recv().await.unwrap().unwrap(), "two\n");
        std::fs::rename(&path, temp.path().join("0.log.1")).unwrap();
        std::fs::write(&path, "2026-01-01T00:00:03Z stdout F three\n").unwrap();
        assert_eq!(pieces.recv().await.unwrap().unwrap(), "three\n");
        stop.send(true).unwrap();
        assert!(pieces.recv().await.is_none());
        follower.await.unwrap();
    }
}
