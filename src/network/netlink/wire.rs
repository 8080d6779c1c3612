//! Netlink's framing: messages, and attributes inside them. Writing cannot fail; reading checks every length, since
//! what the kernel sends is still input.

pub(crate) const HEADER_LEN: usize = 16;
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_DUMP: u16 = 0x300;
pub(crate) const NLM_F_DUMP_INTR: u16 = 0x10;
pub(crate) const NLM_F_REPLACE: u16 = 0x100;
pub(crate) const NLM_F_EXCL: u16 = 0x200;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLM_F_APPEND: u16 = 0x800;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

/// Messages one behind the other, as they go into one `send`.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    /// Where the current message begins.
    start: usize,
}

/// An attribute that is still being filled. Nested ones end when they are given back to [`Writer::end`].
#[must_use]
pub(crate) struct Nested(usize);

impl Writer {
    pub fn into_bytes(mut self) -> Vec<u8> {
        self.finish();
        self.bytes
    }

    /// Begins a message; the one before is complete.
    pub fn message(&mut self, kind: u16, flags: u16, sequence: u32) {
        self.finish();
        self.start = self.bytes.len();
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&0_u32.to_ne_bytes());
    }

    /// Bytes of a family's own header, or a body made elsewhere.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    pub fn attr(&mut self, kind: u16, value: &[u8]) {
        let len = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&len.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.get(..usize::from(len) - 4).unwrap_or(value));
        self.pad();
    }

    pub fn attr_str(&mut self, kind: u16, value: &str) {
        let mut bytes = Vec::with_capacity(value.len() + 1);
        bytes.extend_from_slice(value.as_bytes());
        bytes.push(0);
        self.attr(kind, &bytes);
    }

    /// Netfilter's numbers are in network byte order.
    pub fn attr_be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    pub fn attr_be64(&mut self, kind: u16, value: u64) {
        self.attr(kind, &value.to_be_bytes());
    }

    pub fn begin(&mut self, kind: u16) -> Nested {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&0_u16.to_ne_bytes());
        self.bytes.extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        Nested(at)
    }

    pub fn end(&mut self, nested: Nested) {
        let len = u16::try_from(self.bytes.len() - nested.0).unwrap_or(u16::MAX);
        if let Some(field) = self.bytes.get_mut(nested.0..nested.0 + 2) {
            field.copy_from_slice(&len.to_ne_bytes());
        }
    }

    /// How many bytes the attribute has so far, header included. The kernel's limit is 65535.
    pub fn len_of(&self, nested: &Nested) -> usize {
        self.bytes.len() - nested.0
    }

    fn finish(&mut self) {
        let len = u32::try_from(self.bytes.len() - self.start).unwrap_or(u32::MAX);
        if let Some(field) = self.bytes.get_mut(self.start..self.start + 4) {
            field.copy_from_slice(&len.to_ne_bytes());
        }
    }

    fn pad(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

/// One received message.
#[derive(Debug)]
pub(crate) struct Received<'a> {
    pub kind: u16,
    pub flags: u16,
    pub sequence: u32,
    /// The socket whose request this answers, or tells others of.
    pub port: u32,
    pub payload: &'a [u8],
}

impl Received<'_> {
    /// For `NLMSG_ERROR`: the errno, 0 for an acknowledgement.
    pub fn errno(&self) -> i32 {
        u32_at(self.payload, 0).map_or(libc::EBADMSG, |code| (code as i32).wrapping_neg())
    }
}

/// The messages in one datagram. Ends at the first that is malformed.
pub(crate) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Received<'_>> {
    std::iter::from_fn(move || {
        let len = u32_at(bytes, 0)? as usize;
        let payload = bytes.get(HEADER_LEN..len)?;
        let message = Received {
            kind: u16_at(bytes, 4)?,
            flags: u16_at(bytes, 6)?,
            sequence: u32_at(bytes, 8)?,
            port: u32_at(bytes, 12)?,
            payload,
        };
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// The attributes in a payload, flags removed from their types. Ends at the first that is malformed.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)? & NLA_TYPE_MASK;
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of this type.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::default();
        writer.message(7, NLM_F_REQUEST, 1);
        writer.raw(&[1, 0, 0, 0]);
        writer.attr_str(1, "ab");
        let nested = writer.begin(2);
        writer.attr_be32(3, 4);
        writer.end(nested);
        writer.message(8, 0, 2);
        let bytes = writer.into_bytes();
        let read: Vec<_> = messages(&bytes).collect();
        assert_eq!(read.iter().map(|m| (m.kind, m.sequence)).collect::<Vec<_>>(), [(7, 1), (8, 2)]);
        let body = read[0].payload.get(4..).unwrap();
        assert_eq!(attribute(body, 1), Some(&b"ab\0"[..]));
        assert_eq!(attribute(attribute(body, 2).unwrap(), 3), Some(&[0, 0, 0, 4][..]));
    }

    #[test]
    fn malformed_input_ends_the_reading() {
        for len in 0..40_u8 {
            let mut bytes = vec![0xff_u8; 36];
            bytes[..4].copy_from_slice(&u32::from(len).to_ne_bytes());
            for message in messages(&bytes).take(100) {
                assert_eq!(attributes(message.payload).count(), 0);
            }
        }
        assert_eq!(messages(&[0; 64]).count(), 0);
    }
}
