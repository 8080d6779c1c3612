//! A tar reader for untrusted archives: ustar, PAX and GNU long names, with a bound on everything it keeps.
//!
//! Global PAX headers are skipped. Sparse files are refused.

use std::io::{self, Read};

use crate::error::LayerError;

const BLOCK: usize = 512;
/// Longest extension (PAX records, long names) of one entry.
const EXTENSION_BYTES_MAX: u64 = 1 << 20;

pub(crate) struct Untar<R> {
    inner: R,
    /// What is left of the current entry's content, and of the padding behind it.
    content_left: u64,
    padding_left: u64,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub kind: Kind,
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub size: u64,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    pub mtime_s: i64,
    pub mtime_ns: u32,
    pub device: (u32, u32),
    pub xattrs: Vec<(String, Vec<u8>)>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    #[default]
    File,
    Directory,
    Symlink,
    HardLink,
    CharDevice,
    BlockDevice,
    Fifo,
}

#[derive(Default)]
struct Extensions {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(String, Vec<u8>)>,
}

impl<R: Read> Untar<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, content_left: 0, padding_left: 0 }
    }

    /// What is read from; after [`next`](Self::next) it stands at the entry's content.
    pub(crate) fn get_ref(&self) -> &R {
        &self.inner
    }

    /// The next entry; its content is then read from `self`. `None` at the archive's end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, LayerError> {
        let mut extensions = Extensions::default();
        loop {
            self.skip()?;
            let Some(block) = self.block()? else { return Ok(None) };
            let header = tar::Header::from_byte_slice(&block);
            check_sum(&block, header)?;
            let size = header.entry_size().map_err(|_| LayerError::Malformed("tar header with a bad size"))?;
            let kind = match header.entry_type().as_byte() {
                b'x' => {
                    pax(&self.extension(size)?, &mut extensions)?;
                    continue;
                }
                b'L' => {
                    extensions.path = Some(until_nul(self.extension(size)?));
                    continue;
                }
                b'K' => {
                    extensions.link = Some(until_nul(self.extension(size)?));
                    continue;
                }
                b'g' => {
                    self.extension(size)?;
                    continue;
                }
                0 | b'0' | b'7' if header.path_bytes().ends_with(b"/") => Kind::Directory,
                0 | b'0' | b'7' => Kind::File,
                b'1' => Kind::HardLink,
                b'2' => Kind::Symlink,
                b'3' => Kind::CharDevice,
                b'4' => Kind::BlockDevice,
                b'5' => Kind::Directory,
                b'6' => Kind::Fifo,
                b'S' => return Err(LayerError::Malformed("sparse files are not supported")),
                _ => return Err(LayerError::Malformed("tar entry of an unknown type")),
            };
            return self.entry(kind, size, header, extensions).map(Some);
        }
    }

    fn entry(
        &mut self,
        kind: Kind,
        header_size: u64,
        header: &tar::Header,
        extensions: Extensions,
    ) -> Result<Entry, LayerError> {
        let number = |field: io::Result<u64>, extension: Option<u64>| {
            let value = match extension {
                Some(value) => value,
                None => field.map_err(|_| LayerError::Malformed("tar header with a bad number"))?,
            };
            // The highest value means "leave it" to the kernel.
            u32::try_from(value)
                .ok()
                .filter(|value| *value != u32::MAX)
                .ok_or(LayerError::Malformed("tar header with an owner that is too large"))
        };
        let size = extensions.size.unwrap_or(header_size);
        // Links have no content, whatever their size says.
        let content = if matches!(kind, Kind::File) { size } else { 0 };
        let skipped = if matches!(kind, Kind::HardLink | Kind::Symlink) { 0 } else { size };
        self.content_left = skipped;
        self.padding_left = (BLOCK as u64 - skipped % BLOCK as u64) % BLOCK as u64;
        let device = |field: io::Result<Option<u32>>| field.ok().flatten().unwrap_or(0);
        let header_mtime = header.mtime().ok().and_then(|seconds| i64::try_from(seconds).ok()).unwrap_or(0);
        let (mtime_s, mtime_ns) = extensions.mtime.unwrap_or((header_mtime, 0));
        Ok(Entry {
            kind,
            path: extensions.path.unwrap_or_else(|| header.path_bytes().into_owned()),
            link: extensions
                .link
                .or_else(|| header.link_name_bytes().map(|link| link.into_owned()))
                .unwrap_or_default(),
            size: content,
            uid: number(header.uid(), extensions.uid)?,
            gid: number(header.gid(), extensions.gid)?,
            mode: header.mode().map_err(|_| LayerError::Malformed("tar header with a bad mode"))? & 0o7777,
            mtime_s,
            mtime_ns,
            device: (device(header.device_major()), device(header.device_minor())),
            xattrs: extensions.xattrs,
        })
    }

    fn skip(&mut self) -> Result<(), LayerError> {
        let left = self.content_left.saturating_add(self.padding_left);
        (self.content_left, self.padding_left) = (0, 0);
        let skipped = io::copy(&mut (&mut self.inner).take(left), &mut io::sink()).map_err(LayerError::Read)?;
        if skipped < left { Err(LayerError::Malformed("tar archive ends inside an entry")) } else { Ok(()) }
    }

    /// The next header block, or `None` at the end: a block of zeros or no more bytes.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, LayerError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.inner.read(rest) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(LayerError::Malformed("tar archive ends inside a header")),
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(LayerError::Read(error)),
            }
        }
        Ok(block.iter().any(|byte| *byte != 0).then_some(block))
    }

    fn extension(&mut self, size: u64) -> Result<Vec<u8>, LayerError> {
        if size > EXTENSION_BYTES_MAX {
            return Err(LayerError::Malformed("tar extension header of more than 1 MiB"));
        }
        self.content_left = size;
        self.padding_left = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(LayerError::Read)?;
        Ok(bytes)
    }
}

/// The current entry's content.
impl<R: Read> Read for Untar<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.content_left == 0 {
            return Ok(0);
        }
        let count = (&mut self.inner).take(self.content_left).read(into)?;
        if count == 0 && !into.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "tar archive ends inside an entry"));
        }
        self.content_left -= count as u64;
        Ok(count)
    }
}

fn check_sum(block: &[u8; BLOCK], header: &tar::Header) -> Result<(), LayerError> {
    // The sum is over the header with blanks in the sum's own field.
    let sum: u32 =
        block.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
    match header.cksum() {
        Ok(stated) if stated == sum => Ok(()),
        _ => Err(LayerError::Malformed("tar header with a wrong checksum")),
    }
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    bytes
}

/// Records of the form `<length> <key>=<value>\n`, where the length counts the whole record.
fn pax(mut bytes: &[u8], extensions: &mut Extensions) -> Result<(), LayerError> {
    const BAD: LayerError = LayerError::Malformed("malformed PAX record");
    while !bytes.is_empty() {
        let blank = bytes.iter().position(|byte| *byte == b' ').ok_or(BAD)?;
        let length: usize = text(bytes.get(..blank)).and_then(|text| text.parse().ok()).ok_or(BAD)?;
        let record = bytes.get(blank + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or(BAD)?;
        bytes = bytes.get(length..).ok_or(BAD)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or(BAD)?;
        let (key, value) = (text(record.get(..equals)).ok_or(BAD)?, record.get(equals + 1..).ok_or(BAD)?);
        let number = || text(Some(value)).and_then(|text| text.parse().ok()).ok_or(BAD);
        match key {
            "path" | "linkpath" if value.contains(&0) => return Err(BAD),
            "path" => extensions.path = Some(value.to_vec()),
            "linkpath" => extensions.link = Some(value.to_vec()),
            "size" => extensions.size = Some(number()?),
            "uid" => extensions.uid = Some(number()?),
            "gid" => extensions.gid = Some(number()?),
            "mtime" => extensions.mtime = Some(text(Some(value)).and_then(time).ok_or(BAD)?),
            _ if key.starts_with("GNU.sparse.") => return Err(LayerError::Malformed("sparse files are not supported")),
            _ => {
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    extensions.xattrs.push((name.to_owned(), value.to_vec()));
                }
            }
        }
    }
    Ok(())
}

fn text(bytes: Option<&[u8]>) -> Option<&str> {
    std::str::from_utf8(bytes?).ok()
}

/// Seconds with an optional fraction, maybe before 1970.
fn time(text: &str) -> Option<(i64, u32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().take(9).collect();
    let nanos: u32 = if digits.is_empty() { 0 } else { format!("{digits:0<9}").parse().ok()? };
    if whole.starts_with('-') && nanos > 0 {
        return Some((seconds.checked_sub(1)?, 1_000_000_000 - nanos));
    }
    Some((seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pax_records_override_the_header() {
        let mut builder = tar::Builder::new(Vec::new());
        let long = "d/".repeat(120) + "file";
        builder
            .append_pax_extensions([
                ("mtime", b"-1.25".as_slice()),
                ("uid", b"4000000"),
                ("SCHILY.xattr.user.x", b"a\nb"),
            ])
            .unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(3);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(7);
        builder.append_data(&mut header, &long, b"abc".as_slice()).unwrap();
        let bytes = builder.into_inner().unwrap();
        let mut untar = Untar::new(bytes.as_slice());
        let entry = untar.next().unwrap().unwrap();
        assert_eq!(entry.path, long.as_bytes());
        assert_eq!((entry.uid, entry.gid, entry.mtime_s, entry.mtime_ns), (4_000_000, 7, -2, 750_000_000));
        assert_eq!(entry.xattrs, [("user.x".to_owned(), b"a\nb".to_vec())]);
        let mut content = String::new();
        untar.read_to_string(&mut content).unwrap();
        assert_eq!(content, "abc");
        assert_eq!(untar.next().unwrap(), None);
    }

    #[test]
    fn an_extension_that_would_fill_memory_is_refused() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(1 << 40);
        header.set_cksum();
        let error = Untar::new(header.as_bytes().as_slice()).next().unwrap_err();
        assert!(error.to_string().contains("1 MiB"), "{error}");
    }

    proptest! {
        #[test]
        fn damage_gives_errors_and_no_panic(mut damage in proptest::collection::vec((0usize..2048, any::<u8>()), 1..20)) {
            let mut builder = tar::Builder::new(Vec::new());
            builder.append_pax_extensions([("path", b"some/where".as_slice())]).unwrap();
            let mut header = tar::Header::new_ustar();
            header.set_size(5);
            header.set_cksum();
            builder.append(&header, b"hello".as_slice()).unwrap();
            let mut bytes = builder.into_inner().unwrap();
            for (at, byte) in damage.drain(..) {
                if let Some(target) = bytes.get_mut(at) { *target = byte; }
            }
            let mut untar = Untar::new(bytes.as_slice());
            while let Ok(Some(_)) = untar.next() {}
        }

        #[test]
        fn pax_takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = pax(&bytes, &mut Extensions::default());
        }
    }
}
