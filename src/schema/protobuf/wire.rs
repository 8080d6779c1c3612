//! Tags, lengths and numbers.

use super::{ENVELOPE_TAIL, MAGIC};

pub const VARINT: u32 = 0;
pub const FIXED64: u32 = 1;
pub const BYTES: u32 = 2;

pub fn write_varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Bytes that a varint takes.
pub fn varint_bytes(number: u64) -> usize {
    let bits = 64 - (number | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

pub fn write_tag(number: u32, wire: u32, out: &mut Vec<u8>) {
    write_varint(u64::from(number << 3 | wire), out);
}

/// Appends a field of bytes: text, or a message.
pub fn write_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    write_tag(number, BYTES, out);
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Leaves room for a length of one byte; [`close`] sets it right.
pub fn open(number: u32, out: &mut Vec<u8>) -> usize {
    write_tag(number, BYTES, out);
    out.push(0);
    out.len()
}

/// Writes the length of what was appended since [`open`].
pub fn close(start: usize, out: &mut Vec<u8>) {
    let length = out.len() - start;
    let more = varint_bytes(length as u64) - 1;
    if more > 0 {
        out.resize(out.len() + more, 0);
        out.copy_within(start..start + length, start + more);
    }
    let mut rest = length;
    for byte in out.iter_mut().skip(start - 1).take(more) {
        *byte = (rest & 0x7f) as u8 | 0x80;
        rest >>= 7;
    }
    if let Some(last) = out.get_mut(start - 1 + more) {
        *last = rest as u8;
    }
}

/// The beginning of an envelope, up to where the object's `raw_bytes` bytes follow.
pub fn envelope_head(api_version: &str, kind: &str, raw_bytes: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
    let start = open(1, out);
    write_bytes(1, api_version.as_bytes(), out);
    write_bytes(2, kind.as_bytes(), out);
    close(start, out);
    write_tag(2, BYTES, out);
    write_varint(raw_bytes as u64, out);
}

/// An object's message with its type, as bodies and events carry it.
pub fn envelope(api_version: &str, kind: &str, raw: &[u8], out: &mut Vec<u8>) {
    envelope_head(api_version, kind, raw.len(), out);
    out.extend_from_slice(raw);
    out.extend_from_slice(ENVELOPE_TAIL);
}
