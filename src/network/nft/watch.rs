//! Hears when somebody else removes a table of ours: `nft flush ruleset`, a restarted firewall.

use std::io;
use std::os::fd::AsFd;

use netlink_sys::{AsyncSocket, AsyncSocketExt, SocketAddr, TokioSocket};
use nix::sys::socket::{setsockopt, sockopt};

use super::connection::Connection;
use super::encode::{NFT_MSG_DELTABLE, NFTA_TABLE_NAME, SUBSYSTEM};
use crate::Error;
use crate::netlink::wire;

/// `NFNLGRP_NFTABLES`: every change of the packet filter.
const GROUP: u32 = 7;
const RECEIVE_BYTES: usize = 64 * 1024;
/// Room for the notices of our own large transactions, which are all that comes in numbers.
const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// `struct nfgenmsg` before the attributes.
const FAMILY_HEADER_LEN: usize = 4;

/// Hears of removals in the network namespace that it was opened in.
///
/// When more changes at once than the kernel keeps for us, removals among them are assumed not to have been.
pub struct Watch {
    socket: TokioSocket,
    table: String,
    buffer: Vec<u8>,
}

impl Watch {
    /// For tables of this name, of any family. Has to be called on the runtime.
    pub fn open(table: &str) -> Result<Self, Error> {
        let open = || -> io::Result<_> {
            let mut socket = TokioSocket::new(libc::NETLINK_NETFILTER as isize)?;
            let raw = socket.socket_mut();
            raw.bind(&SocketAddr::new(0, 0))?;
            setsockopt(&raw.as_fd(), sockopt::RcvBufForce, &QUEUE_BYTES)?;
            raw.add_membership(GROUP)?;
            Ok(socket)
        };
        let socket = open().map_err(failed)?;
        Ok(Self { socket, table: table.to_owned(), buffer: Vec::with_capacity(RECEIVE_BYTES) })
    }

    /// Waits until somebody other than `own` removes the table. Cancel-safe.
    pub async fn removed(&mut self, own: u32) -> Result<(), Error> {
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer).await {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => continue,
                Err(error) => return Err(failed(error)),
            }
            if wire::messages(&self.buffer).any(|message| message.port != own && removes(&message, &self.table)) {
                return Ok(());
            }
        }
    }
}

impl Connection {
    /// Who this connection is in [`Watch::removed`].
    pub fn port(&self) -> Result<u32, Error> {
        self.socket.port().map_err(failed)
    }
}

fn removes(message: &wire::Received<'_>, table: &str) -> bool {
    let attributes = message.payload.get(FAMILY_HEADER_LEN..).unwrap_or_default();
    let name = wire::attribute(attributes, NFTA_TABLE_NAME).and_then(|name| name.strip_suffix(&[0]));
    message.kind == SUBSYSTEM << 8 | NFT_MSG_DELTABLE && name == Some(table.as_bytes())
}

fn failed(source: io::Error) -> Error {
    Error::Netlink { action: "watching the packet filter".to_owned(), source }
}
