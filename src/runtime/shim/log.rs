//! Container logs in the CRI's format: `<RFC 3339 with nanoseconds> <stdout|stderr> <F|P> <text>`.
//!
//! A line ends with `F`; one that is longer than [`LINE_BYTES_MAX`] is cut into pieces marked `P`, the last of
//! which is `F`. What a process wrote without a newline waits for one, or for the end of the stream.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use jiff::Timestamp;

/// Longest piece of a line in one entry.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
}

/// The log of one container. Without a file everything is dropped; a disk that is full loses lines, and never
/// stops the container.
#[derive(Debug)]
pub struct Log {
    path: Option<PathBuf>,
    file: Option<File>,
    rests: [Vec<u8>; 2],
    entries: Vec<u8>,
}

impl Log {
    pub fn open(path: Option<PathBuf>) -> io::Result<Self> {
        let mut log = Self { path, file: None, rests: [Vec::new(), Vec::new()], entries: Vec::new() };
        log.reopen()?;
        Ok(log)
    }

    /// Opens the file by its path again, after it was rotated away.
    pub fn reopen(&mut self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        self.file = Some(OpenOptions::new().create(true).append(true).mode(0o640).open(path)?);
        Ok(())
    }

    pub fn write(&mut self, stream: Stream, bytes: &[u8], now: Timestamp) {
        if self.file.is_none() {
            return;
        }
        split(&mut self.rests[stream as usize], bytes, stream, now, &mut self.entries);
        self.flush();
    }

    /// Writes what waited for a newline.
    pub fn finish(&mut self, now: Timestamp) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(&mut self.rests[stream as usize]);
            if !rest.is_empty() && self.file.is_some() {
                entry(&rest, true, stream, now, &mut self.entries);
            }
        }
        self.flush();
    }

    fn flush(&mut self) {
        if let Some(file) = &mut self.file {
            // Lost lines are the reader's only sign of a full disk: there is nobody here to tell.
            let _ = file.write_all(&self.entries);
        }
        self.entries.clear();
        self.entries.shrink_to(4 * LINE_BYTES_MAX);
    }
}

/// Appends the entries that `rest` and `bytes` complete; what does not end in a newline stays in `rest`.
fn split(rest: &mut Vec<u8>, bytes: &[u8], stream: Stream, now: Timestamp, entries: &mut Vec<u8>) {
    let mut bytes = bytes;
    while !bytes.is_empty() {
        let room = LINE_BYTES_MAX - rest.len();
        let newline = bytes.iter().take(room + 1).position(|byte| *byte == b'\n');
        match newline {
            Some(at) => {
                let (line, after) = bytes.split_at(at);
                if rest.is_empty() {
                    entry(line, true, stream, now, entries);
                } else {
                    rest.extend_from_slice(line);
                    entry(rest, true, stream, now, entries);
                    rest.clear();
                }
                bytes = after.get(1..).unwrap_or_default();
            }
            None if bytes.len() > room => {
                let (piece, after) = bytes.split_at(room);
                rest.extend_from_slice(piece);
                entry(rest, false, stream, now, entries);
                rest.clear();
                bytes = after;
            }
            None => {
                rest.extend_from_slice(bytes);
                return;
            }
        }
    }
}

fn entry(text: &[u8], full: bool, stream: Stream, now: Timestamp, entries: &mut Vec<u8>) {
    let name = match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
    };
    let tag = if full { 'F' } else { 'P' };
    // Writing to memory cannot fail.
    let _ = write!(entries, "{now:.9} {name} {tag} ");
    entries.extend_from_slice(text);
    entries.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(chunks: &[&[u8]]) -> (String, Vec<u8>) {
        let (mut rest, mut out) = (Vec::new(), Vec::new());
        let now = Timestamp::from_second(1_767_225_600).unwrap();
        for chunk in chunks {
            split(&mut rest, chunk, Stream::Stdout, now, &mut out);
        }
        (String::from_utf8(out).unwrap(), rest)
    }

    #[test]
    fn lines_are_stamped_and_rests_wait() {
        let (out, rest) = entries(&[b"a", b"b\nc\n\nd"]);
        let stamp = "2026-01-01T00:00:00.000000000Z stdout F";
        assert_eq!(out, format!("{stamp} ab\n{stamp} c\n{stamp} \n"));
        assert_eq!(rest, b"d");
    }

    #[test]
    fn long_lines_come_in_pieces() {
        let long = vec![b'x'; 2 * LINE_BYTES_MAX + 5];
        let (out, rest) = entries(&[&long, b"\n"]);
        let tags: Vec<&str> = out.lines().map(|line| line.split(' ').nth(2).unwrap()).collect();
        assert_eq!(tags, ["P", "P", "F"]);
        assert!(rest.is_empty());
        let exact = [vec![b'y'; LINE_BYTES_MAX], b"\n".to_vec()].concat();
        assert_eq!(entries(&[&exact]).0.lines().count(), 1, "a newline right after a full piece ends it");
    }
}
