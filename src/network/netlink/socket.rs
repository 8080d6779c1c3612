//! One blocking netlink socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use netlink_sys::{Socket as Raw, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::wire;

/// The kernel answers while we are in `send`; a missing answer is a bug, and must not block a thread for good.
const ANSWER_SECONDS_MAX: i64 = 10;
/// Room for the kernel's answers; a dump's part is at most 32 KiB.
const RECEIVE_BYTES: usize = 64 * 1024;
/// How often a dump is repeated that the kernel says was disturbed.
const DUMP_ATTEMPTS: usize = 8;

#[derive(Debug)]
pub(crate) struct Socket {
    raw: Raw,
    sequence: u32,
    send_buffer_bytes: usize,
}

impl Socket {
    /// Opens a socket of this netlink protocol in the calling thread's network namespace.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut raw = Raw::new(protocol)?;
        raw.bind_auto()?;
        raw.connect(&SocketAddr::new(0, 0))?;
        let socket = Self { raw, sequence: 0, send_buffer_bytes: 0 };
        setsockopt(&socket.fd(), sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_SECONDS_MAX))?;
        Ok(socket)
    }

    pub fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    /// The kernel's name for this socket.
    pub fn port(&self) -> io::Result<u32> {
        let mut address = SocketAddr::new(0, 0);
        self.raw.get_address(&mut address)?;
        Ok(address.port_number())
    }

    /// The next sequence number is the one behind `sequence`.
    pub fn skip_to(&mut self, sequence: u32) {
        self.sequence = sequence;
    }

    /// Sends all `bytes` as one datagram, however long.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        // A datagram has to fit the socket's buffer as a whole, overhead included.
        let needed = bytes.len() + bytes.len() / 8 + 4096;
        if needed > self.send_buffer_bytes {
            let asked = needed.max(256 * 1024);
            setsockopt(&self.fd(), sockopt::SndBufForce, &asked)
                .or_else(|_| setsockopt(&self.fd(), sockopt::SndBuf, &asked))?;
            self.send_buffer_bytes = asked;
        }
        let sent = self.raw.send(bytes, 0)?;
        if sent == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(RECEIVE_BYTES);
        self.raw.recv(&mut buffer, 0)?;
        Ok(buffer)
    }

    /// Sends one message that asks for an acknowledgement, and waits for it.
    pub fn acknowledged(&mut self, bytes: &[u8], sequence: u32) -> io::Result<()> {
        self.send(bytes)?;
        loop {
            let datagram = self.receive()?;
            for message in wire::messages(&datagram) {
                if message.sequence == sequence && message.kind == wire::NLMSG_ERROR {
                    return match message.errno() {
                        0 => Ok(()),
                        code => Err(io::Error::from_raw_os_error(code)),
                    };
                }
            }
        }
    }

    /// Sends one dump request and gives every answer's type and payload to `each`. Starts over when what is dumped
    /// changed meanwhile.
    pub fn dump<T>(
        &mut self,
        make: impl Fn(u32) -> Vec<u8>,
        mut each: impl FnMut(u16, &[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            let sequence = self.next_sequence();
            self.send(&make(sequence))?;
            let mut found = Vec::new();
            if self.dumped(sequence, &mut each, &mut found)? {
                return Ok(found);
            }
        }
        Err(io::Error::from_raw_os_error(libc::EINTR))
    }

    /// Reads a dump to its end. False if it was disturbed.
    fn dumped<T>(
        &mut self,
        sequence: u32,
        each: &mut impl FnMut(u16, &[u8]) -> Option<T>,
        found: &mut Vec<T>,
    ) -> io::Result<bool> {
        let mut whole = true;
        loop {
            let datagram = self.receive()?;
            for message in wire::messages(&datagram).filter(|message| message.sequence == sequence) {
                whole &= message.flags & wire::NLM_F_DUMP_INTR == 0;
                match message.kind {
                    wire::NLMSG_DONE => return Ok(whole),
                    wire::NLMSG_ERROR => {
                        return match message.errno() {
                            0 => Ok(whole),
                            code => Err(io::Error::from_raw_os_error(code)),
                        };
                    }
                    kind => found.extend(each(kind, message.payload)),
                }
            }
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }
}
