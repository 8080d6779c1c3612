//! The log file and its rotation: a full file is renamed with the time in its name, old ones go by number and age
//! (upstream: lumberjack).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;

/// Where events are written, and how long old files stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFile {
    /// `-` is standard output.
    pub path: PathBuf,
    /// Nothing is rotated at 0.
    pub megabytes_max: u64,
    /// Days that rotated files stay; for ever at 0.
    pub days_max: u32,
    /// Rotated files that stay; all at 0.
    pub backups_max: usize,
    pub compress: bool,
}

pub struct Writer {
    config: LogFile,
    out: Out,
}

enum Out {
    Standard,
    File { file: File, bytes: u64 },
}

const TIME_IN_NAME: &str = "%Y-%m-%dT%H-%M-%S%.3f";
const DAY_SECONDS: i64 = 24 * 3600;

impl Writer {
    pub fn open(config: LogFile) -> std::io::Result<Writer> {
        let out = if config.path == Path::new("-") { Out::Standard } else { open(&config.path)? };
        Ok(Writer { config, out })
    }

    /// Appends a line. What is in the file may be lost with the machine's power, not with the process.
    pub fn line(&mut self, line: &[u8], now: Timestamp) -> std::io::Result<()> {
        let size = line.len() as u64 + 1;
        let megabytes_max = self.config.megabytes_max;
        if let Out::File { bytes, .. } = &self.out
            && megabytes_max > 0
            && *bytes > 0
            && *bytes + size > megabytes_max << 20
        {
            self.rotate(now)?;
        }
        let mut whole = Vec::with_capacity(line.len() + 1);
        whole.extend_from_slice(line);
        whole.push(b'\n');
        match &mut self.out {
            Out::Standard => std::io::stdout().lock().write_all(&whole),
            Out::File { file, bytes } => {
                *bytes += size;
                file.write_all(&whole)
            }
        }
    }

    fn rotate(&mut self, now: Timestamp) -> std::io::Result<()> {
        let rotated = backup(&self.config.path, now);
        std::fs::rename(&self.config.path, &rotated)?;
        self.out = open(&self.config.path)?;
        if self.config.compress {
            compress(&rotated)?;
        }
        self.tidy(now)
    }

    fn tidy(&self, now: Timestamp) -> std::io::Result<()> {
        let mut backups = backups(&self.config.path)?;
        // The newest first.
        backups.sort_by(|(one, _), (other, _)| other.cmp(one));
        let kept = if self.config.backups_max == 0 { usize::MAX } else { self.config.backups_max };
        let oldest = match self.config.days_max {
            0 => i64::MIN,
            days => now.as_second() - i64::from(days) * DAY_SECONDS,
        };
        for (index, (at, path)) in backups.into_iter().enumerate() {
            if index >= kept || at.as_second() < oldest {
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> std::io::Result<Out> {
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory)?;
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    Ok(Out::File { file, bytes })
}

/// `audit-2026-11-30T18-00-00.000.log` for `audit.log`.
fn backup(path: &Path, at: Timestamp) -> PathBuf {
    let (prefix, extension) = parts(path);
    path.with_file_name(format!("{prefix}-{}{extension}", at.strftime(TIME_IN_NAME)))
}

fn parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let extension = text(path.extension());
    (text(path.file_stem()), if extension.is_empty() { extension } else { format!(".{extension}") })
}

fn backups(path: &Path) -> std::io::Result<Vec<(Timestamp, PathBuf)>> {
    let (prefix, extension) = parts(path);
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        let time = name.strip_prefix(&format!("{prefix}-")).and_then(|rest| rest.strip_suffix(extension.as_str()));
        let time = time.and_then(|time| jiff::civil::DateTime::strptime(TIME_IN_NAME, time).ok());
        if let Some(at) = time.and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC).ok()) {
            found.push((at.timestamp(), entry.path()));
        }
    }
    Ok(found)
}

fn compress(path: &Path) -> std::io::Result<()> {
    let mut packed = path.as_os_str().to_owned();
    packed.push(".gz");
    let mut encoder = GzEncoder::new(File::create(&packed)?, Compression::default());
    std::io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?;
    std::fs::remove_file(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_files_are_rotated_and_old_ones_go() {
        let directory = tempfile::tempdir().unwrap();
        let config = LogFile {
            path: directory.path().join("logs/audit.log"),
            megabytes_max: 1,
            days_max: 3,
            backups_max: 2,
            compress: true,
        };
        let mut writer = Writer::open(config.clone()).unwrap();
        let line = vec![b'x'; 700 << 10];
        let at = |hours: i64| Timestamp::from_second(1_800_000_000 + hours * 3600).unwrap();
        for hours in [0, 1, 2, 3] {
            writer.line(&line, at(hours)).unwrap();
        }
        let names = |config: &LogFile| {
            let mut names: Vec<String> = std::fs::read_dir(config.path.parent().unwrap())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        };
        let expected = ["audit-2027-01-15T10-00-00.000.log.gz", "audit-2027-01-15T11-00-00.000.log.gz", "audit.log"];
        assert_eq!(names(&config), expected);
        // A restart goes on in the same file.
        let mut writer = Writer::open(config.clone()).unwrap();
        writer.line(&line, at(100)).unwrap();
        assert_eq!(names(&config), ["audit-2027-01-19T12-00-00.000.log.gz", "audit.log"]);
    }
}
