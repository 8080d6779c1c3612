//! A client's connection, as bytes and descriptors.

use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use super::poller::Poller;
use super::protocol::{self, FDS_MAX, Reply, Request};
use crate::sys;

const READ_BYTES: usize = 64 * 1024;
/// What a client may leave unread before it is let go.
const UNREAD_BYTES_MAX: usize = 8 << 20;

#[derive(Debug)]
pub struct Conn {
    stream: UnixStream,
    token: u64,
    received: Vec<u8>,
    fds: Vec<OwnedFd>,
    unsent: Vec<u8>,
    /// Hears of every change.
    pub watches: bool,
}

impl Conn {
    pub fn new(stream: UnixStream, token: u64) -> Self {
        Self { stream, token, received: Vec::new(), fds: Vec::new(), unsent: Vec::new(), watches: false }
    }

    /// Reads what is there. False when the client is gone.
    pub fn receive(&mut self) -> bool {
        let mut buffer = [0; READ_BYTES];
        let mut space = nix::cmsg_space!([RawFd; FDS_MAX]);
        let mut slices = [IoSliceMut::new(&mut buffer)];
        let (count, fds) = match recvmsg::<()>(
            self.stream.as_raw_fd(),
            &mut slices,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT,
        ) {
            Ok(message) => (message.bytes, received_fds(&message)),
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return true,
            Err(_) => return false,
        };
        self.fds.extend(sys::adopt_fds(fds));
        self.fds.truncate(FDS_MAX);
        self.received.extend_from_slice(buffer.get(..count).unwrap_or_default());
        count > 0
    }

    /// The next whole request with its descriptors.
    pub fn request(&mut self) -> io::Result<Option<(Request, Vec<OwnedFd>)>> {
        Ok(protocol::decode(&mut self.received)?.map(|request| (request, std::mem::take(&mut self.fds))))
    }

    /// False when the client is gone or does not read.
    pub fn send(&mut self, reply: &Reply, fd: Option<BorrowedFd>, poller: &Poller) -> bool {
        let Ok(frame) = protocol::encode(reply) else { return false };
        if let (Some(fd), true) = (fd, self.unsent.is_empty()) {
            return send_with_fd(self.stream.as_fd(), &frame, fd).is_ok();
        }
        self.unsent.extend_from_slice(&frame);
        self.flush(poller)
    }

    pub fn flush(&mut self, poller: &Poller) -> bool {
        let had = !self.unsent.is_empty();
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(0) => return false,
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return false,
            }
        }
        if had {
            let mut flags = EpollFlags::EPOLLIN;
            flags.set(EpollFlags::EPOLLOUT, !self.unsent.is_empty());
            poller.change(&self.stream, self.token, flags);
        }
        self.unsent.len() <= UNREAD_BYTES_MAX
    }

    pub fn close(self, poller: &mut Poller) {
        poller.remove(&self.stream, self.token);
    }
}

fn received_fds(message: &nix::sys::socket::RecvMsg<'_, '_, ()>) -> Vec<RawFd> {
    let messages = message.cmsgs().into_iter().flatten();
    messages
        .filter_map(|message| match message {
            ControlMessageOwned::ScmRights(fds) => Some(fds),
            _ => None,
        })
        .flatten()
        .collect()
}

fn send_with_fd(socket: BorrowedFd, bytes: &[u8], fd: BorrowedFd) -> io::Result<()> {
    let fds = [fd.as_raw_fd()];
    let sent = sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        &[ControlMessage::ScmRights(&fds)],
        MsgFlags::MSG_NOSIGNAL,
        None,
    )?;
    if sent == bytes.len() { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
}

/// Sends a descriptor with one byte.
pub fn send_fd(socket: BorrowedFd, fd: BorrowedFd) -> io::Result<()> {
    send_with_fd(socket, &[0], fd)
}

/// Takes a descriptor that [`send_fd`] sent; waits for it if the socket does. `None` if the other side closed.
pub fn receive_fd(socket: BorrowedFd) -> io::Result<Option<OwnedFd>> {
    receive_fd_with(socket, &mut [0]).map(|(_, fd)| fd)
}

/// Receives bytes and, if one came with them, a descriptor.
pub fn receive_fd_with(socket: BorrowedFd, bytes: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut slices = [IoSliceMut::new(bytes)];
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let (count, fds) = (message.bytes, received_fds(&message));
    Ok((count, sys::adopt_fds(fds).pop()))
}

/// Reads all that a pipe has. True at its end.
pub fn read_all(mut pipe: impl Read, into: &mut Vec<u8>, bytes_max: usize) -> bool {
    let mut buffer = [0; 4096];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return true,
            Ok(count) => {
                into.extend_from_slice(buffer.get(..count).unwrap_or_default());
                if into.len() > bytes_max {
                    return true;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return error.kind() != ErrorKind::WouldBlock,
        }
    }
}
