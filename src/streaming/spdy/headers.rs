//! Header blocks: name and value pairs, compressed with one zlib stream per direction and connection.

use std::io;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Largest header block, compressed and not.
pub(super) const BLOCK_BYTES_MAX: usize = 64 << 10;

/// Names in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers(pub(super) Vec<(String, String)>);

impl Headers {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn parse(mut block: &[u8]) -> Option<Self> {
        let count = number(&mut block)?;
        let mut headers = Vec::new();
        for _ in 0..count {
            let name = text(&mut block)?.to_ascii_lowercase();
            headers.push((name, text(&mut block)?));
        }
        Some(Self(headers))
    }

    fn encoded(&self) -> Vec<u8> {
        let length = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes();
        let mut block = u32::try_from(self.0.len()).unwrap_or(u32::MAX).to_be_bytes().to_vec();
        for text in self.0.iter().flat_map(|(name, value)| [name, value]) {
            block.extend_from_slice(&length(text));
            block.extend_from_slice(text.as_bytes());
        }
        block
    }
}

fn number(block: &mut &[u8]) -> Option<u32> {
    let (number, rest) = block.split_first_chunk::<4>()?;
    *block = rest;
    Some(u32::from_be_bytes(*number))
}

fn text(block: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(number(block)?).ok()?;
    let (text, rest) = block.split_at_checked(length)?;
    *block = rest;
    String::from_utf8(text.to_vec()).ok()
}

pub(super) struct Decoder {
    zlib: Decompress,
    dictionary: Vec<u8>,
}

impl Decoder {
    pub(super) fn new() -> Self {
        Self { zlib: Decompress::new(true), dictionary: dictionary() }
    }

    /// Decodes a block. Every block must come here, also one that nobody wants: the next builds on it. After an error
    /// the connection is of no more use.
    pub(super) fn decode(&mut self, block: &[u8]) -> io::Result<Headers> {
        let bad = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let mut plain = Vec::with_capacity(1024);
        let mut rest = block;
        loop {
            let (in_before, out_before) = (self.zlib.total_in(), self.zlib.total_out());
            let result = self.zlib.decompress_vec(rest, &mut plain, FlushDecompress::Sync);
            let used = usize::try_from(self.zlib.total_in() - in_before).unwrap_or(usize::MAX);
            rest = rest.get(used..).unwrap_or_default();
            match result {
                Ok(Status::StreamEnd) => break,
                Ok(_) => {}
                Err(error) if error.needs_dictionary().is_some() => {
                    self.zlib
                        .set_dictionary(&self.dictionary)
                        .map_err(|_| bad("header block with another dictionary"))?;
                    continue;
                }
                Err(_) => return Err(bad("header block that does not decompress")),
            }
            if plain.len() == plain.capacity() {
                if plain.len() >= BLOCK_BYTES_MAX {
                    return Err(bad("header block that is too large"));
                }
                plain.reserve(plain.len());
            } else if rest.is_empty() || (used == 0 && self.zlib.total_out() == out_before) {
                break;
            }
        }
        Headers::parse(&plain).ok_or_else(|| bad("malformed header block"))
    }
}

pub(super) struct Encoder {
    zlib: Compress,
}

impl Encoder {
    pub(super) fn new() -> io::Result<Self> {
        let mut zlib = Compress::new(Compression::fast(), true);
        zlib.set_dictionary(&dictionary()).map_err(io::Error::other)?;
        Ok(Self { zlib })
    }

    pub(super) fn encode(&mut self, headers: &Headers) -> io::Result<Vec<u8>> {
        let plain = headers.encoded();
        let mut block = Vec::with_capacity(plain.len() + 128);
        let begin = self.zlib.total_in();
        loop {
            let used = usize::try_from(self.zlib.total_in() - begin).unwrap_or(usize::MAX);
            let rest = plain.get(used..).unwrap_or_default();
            self.zlib.compress_vec(rest, &mut block, FlushCompress::Sync).map_err(io::Error::other)?;
            if block.len() < block.capacity() {
                return Ok(block);
            }
            block.reserve(block.len().max(128));
        }
    }
}

/// The dictionary that both sides begin with: words with their lengths, then a text.
fn dictionary() -> Vec<u8> {
    const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
        accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
        content-length content-location content-md5 content-range content-type date etag expect expires from host \
        if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards \
        pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding \
        upgrade user-agent vary via warning www-authenticate method get status";
    const MORE: [&str; 8] = ["200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"];
    const TEXT: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
        203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
        403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr \
        May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,\
        image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=\
        gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
    let mut bytes = Vec::with_capacity(1500);
    for word in WORDS.split_ascii_whitespace().chain(MORE) {
        bytes.extend_from_slice(&[0, 0, 0, u8::try_from(word.len()).unwrap_or(u8::MAX)]);
        bytes.extend_from_slice(word.as_bytes());
    }
    bytes.extend_from_slice(TEXT.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        Headers(pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect())
    }

    #[test]
    fn the_dictionary_is_spdys() {
        let (mut a, mut b) = (1u32, 0u32);
        for byte in dictionary() {
            a = (a + u32::from(byte)) % 65521;
            b = (b + a) % 65521;
        }
        // The identifier at the head of every SPDY/3 header stream.
        assert_eq!((dictionary().len(), (b << 16) | a), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn blocks_build_on_each_other() {
        let (mut encoder, mut decoder) = (Encoder::new().unwrap(), Decoder::new());
        let long = "x".repeat(5000);
        for pairs in [
            headers(&[("streamtype", "error"), ("port", "80"), ("requestid", "0")]),
            headers(&[]),
            headers(&[("streamtype", "data"), ("port", "80"), ("long", &long)]),
        ] {
            let block = encoder.encode(&pairs).unwrap();
            assert_eq!(decoder.decode(&block).unwrap(), pairs);
        }
    }

    #[test]
    fn bombs_and_nonsense_are_errors() {
        let mut encoder = Encoder::new().unwrap();
        let bomb = encoder.encode(&headers(&[("a", &"x".repeat(1 << 20))])).unwrap();
        assert!(bomb.len() < BLOCK_BYTES_MAX);
        assert!(Decoder::new().decode(&bomb).unwrap_err().to_string().contains("too large"));
        for nonsense in [&b""[..], b"x", b"\x78\xbb\0\0\0\0", &[0xff; 100]] {
            assert!(Decoder::new().decode(nonsense).is_err());
        }
        let mut encoder = Encoder::new().unwrap();
        let mut block = encoder.encode(&headers(&[("a", "b")])).unwrap();
        block.truncate(block.len() - 6);
        assert!(Decoder::new().decode(&block).is_err());
    }
}
