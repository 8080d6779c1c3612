//! Leaves: their zero values, and the messages that times, quantities and the like are.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;

use super::Leaf;
use super::wire::{BYTES, FIXED64, VARINT, close, open, write_bytes, write_tag, write_varint};

pub fn write_int(number: u32, value: i64, out: &mut Vec<u8>) {
    write_tag(number, VARINT, out);
    write_varint(value.cast_unsigned(), out);
}

pub fn write_double(number: u32, value: f64, out: &mut Vec<u8>) {
    write_tag(number, FIXED64, out);
    out.extend_from_slice(&value.to_le_bytes());
}

pub fn write_quantity(number: u32, text: &str, out: &mut Vec<u8>) {
    let start = open(number, out);
    write_bytes(1, text.as_bytes(), out);
    close(start, out);
}

/// A type, a number and a text, whichever of them counts.
pub fn write_int_or_string(number: u32, int: i64, text: Option<&str>, out: &mut Vec<u8>) {
    let start = open(number, out);
    write_int(1, i64::from(text.is_some()), out);
    write_int(2, int, out);
    write_bytes(3, text.unwrap_or_default().as_bytes(), out);
    close(start, out);
}

/// `seconds` and `nanos`; false when the text is no time.
pub fn write_time(number: u32, text: &str, micro: bool, out: &mut Vec<u8>) -> bool {
    let Ok(at) = text.parse::<Timestamp>() else { return false };
    let start = open(number, out);
    // A time before the epoch counts its fraction forward from the second before it.
    let (mut seconds, mut nanos) = (at.as_second(), at.subsec_nanosecond());
    if nanos < 0 {
        (seconds, nanos) = (seconds - 1, nanos + 1_000_000_000);
    }
    write_int(1, seconds, out);
    write_int(2, if micro { i64::from(nanos / 1000 * 1000) } else { 0 }, out);
    close(start, out);
    true
}

/// base64 as the bytes that it stands for; false when it is none.
pub fn write_base64(number: u32, text: &str, out: &mut Vec<u8>) -> bool {
    let start = open(number, out);
    let good = STANDARD.decode_vec(text, out).is_ok();
    close(start, out);
    good
}

/// What Go writes for a value that was never set and is no pointer.
pub fn write_zero(number: u32, leaf: Leaf, out: &mut Vec<u8>) {
    match leaf {
        Leaf::Text => write_bytes(number, b"", out),
        Leaf::Bool | Leaf::Int => write_int(number, 0, out),
        Leaf::Double => write_double(number, 0.0, out),
        Leaf::Bytes => {}
        Leaf::Time | Leaf::MicroTime | Leaf::Json | Leaf::Empty | Leaf::SchemaOr(_) => {
            write_tag(number, BYTES, out);
            out.push(0);
        }
        Leaf::Quantity => write_quantity(number, "0", out),
        Leaf::IntOrString => write_int_or_string(number, 0, None, out),
    }
}
