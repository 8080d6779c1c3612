//! Sealing a stream: pieces of it are encrypted one by one, each with its place and whether it is the last one.

use std::io::{self, Read, Write};
use std::num::NonZeroU32;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::pbkdf2;
use rand::RngExt;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

const KEY_BYTES: usize = 32;
const SALT_BYTES: usize = 16;
const TAG_BYTES: usize = 16;
/// Plain bytes of a chunk; the last one may have fewer.
const CHUNK_BYTES: usize = 64 * 1024;
const LAST: u32 = 1 << 31;
/// What OWASP asks for PBKDF2 with SHA-256.
const ITERATIONS: u32 = 600_000;
/// A file that asks for more is meant to keep us busy.
const ITERATIONS_MAX: u32 = 10_000_000;

type Head = [u8; 32];

/// How the key is made of the passphrase: PBKDF2 with HMAC-SHA256.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SealingOptions {
    iterations: u32,
    /// In hexadecimal.
    salt: String,
}

impl SealingOptions {
    pub fn new() -> SealingOptions {
        let mut salt = [0; SALT_BYTES];
        rand::rng().fill(&mut salt);
        SealingOptions { iterations: ITERATIONS, salt: hex::encode(salt) }
    }

    pub fn is_sound(&self) -> bool {
        (1..=ITERATIONS_MAX).contains(&self.iterations) && self.salt.len() == 2 * SALT_BYTES
    }

    pub fn key(&self, passphrase: &str) -> [u8; KEY_BYTES] {
        let mut key = [0; KEY_BYTES];
        let iterations = NonZeroU32::new(self.iterations).unwrap_or(NonZeroU32::MIN);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, iterations, self.salt.as_bytes(), passphrase.as_bytes(), &mut key);
        key
    }
}

/// Both ends' common ground. Each file has a key of its own, so numbers are nonces enough.
struct Chunks {
    key: LessSafeKey,
    head: Head,
    next: u64,
}

impl Chunks {
    fn new(key: &[u8; KEY_BYTES], head: &[u8]) -> io::Result<Chunks> {
        let key = UnboundKey::new(&AES_256_GCM, key).map_err(|_| io::Error::other("the key does not fit"))?;
        Ok(Chunks { key: LessSafeKey::new(key), head: Sha256::digest(head).into(), next: 0 })
    }

    fn nonce(&mut self, last: bool) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        if let Some((first, number)) = nonce.split_first_mut()
            && let Some(number) = number.last_chunk_mut::<8>()
        {
            *first = u8::from(last);
            *number = self.next.to_be_bytes();
        }
        self.next += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

pub struct Sealing<W> {
    out: W,
    chunks: Chunks,
    plain: Vec<u8>,
}

impl<W: Write> Sealing<W> {
    /// `head` is what comes before in the file, and is sealed against change.
    pub fn new(out: W, key: &[u8; KEY_BYTES], head: &[u8]) -> io::Result<Sealing<W>> {
        Ok(Sealing { out, chunks: Chunks::new(key, head)?, plain: Vec::with_capacity(CHUNK_BYTES + TAG_BYTES) })
    }

    /// Without this what was written is not whole.
    pub fn finish(mut self) -> io::Result<W> {
        self.seal(true)?;
        Ok(self.out)
    }

    fn seal(&mut self, last: bool) -> io::Result<()> {
        let nonce = self.chunks.nonce(last);
        let sealed = self.chunks.key.seal_in_place_append_tag(nonce, Aad::from(self.chunks.head), &mut self.plain);
        sealed.map_err(|_| io::Error::other("a chunk cannot be sealed"))?;
        let length = u32::try_from(self.plain.len()).map_err(io::Error::other)?;
        self.out.write_all(&(length | if last { LAST } else { 0 }).to_le_bytes())?;
        self.out.write_all(&self.plain)?;
        self.plain.clear();
        Ok(())
    }
}

impl<W: Write> Write for Sealing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.plain.len() == CHUNK_BYTES {
            self.seal(false)?;
        }
        let taken = bytes.len().min(CHUNK_BYTES - self.plain.len());
        self.plain.extend(bytes.iter().take(taken));
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

pub struct Opening<R> {
    input: R,
    chunks: Chunks,
    plain: Vec<u8>,
    read: usize,
    ended: bool,
}

impl<R: Read> Opening<R> {
    pub fn new(input: R, key: &[u8; KEY_BYTES], head: &[u8]) -> io::Result<Opening<R>> {
        Ok(Opening { input, chunks: Chunks::new(key, head)?, plain: Vec::new(), read: 0, ended: false })
    }

    fn open(&mut self) -> io::Result<()> {
        let broken = |_| io::Error::from(io::ErrorKind::InvalidData);
        let mut frame = [0; 4];
        self.input.read_exact(&mut frame).map_err(broken)?;
        let frame = u32::from_le_bytes(frame);
        let (last, length) = (frame & LAST != 0, usize::try_from(frame & !LAST).map_err(io::Error::other)?);
        if length > CHUNK_BYTES + TAG_BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.plain.resize(length, 0);
        self.input.read_exact(&mut self.plain).map_err(broken)?;
        let nonce = self.chunks.nonce(last);
        let opened = self.chunks.key.open_in_place(nonce, Aad::from(self.chunks.head), &mut self.plain);
        let plain = opened.map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?.len();
        self.plain.truncate(plain);
        self.read = 0;
        if last {
            self.ended = true;
            if self.input.read(&mut [0])? != 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(())
    }
}

impl<R: Read> Read for Opening<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.read == self.plain.len() && !self.ended {
            self.open()?;
        }
        let rest = self.plain.get(self.read..).unwrap_or_default();
        let taken = rest.len().min(buffer.len());
        buffer.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        self.read += taken;
        Ok(taken)
    }
}
