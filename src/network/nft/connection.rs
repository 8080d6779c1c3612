//! Sends transactions.

use std::io;

use super::encode::{self, Batch};
use super::model::Family;
use super::table::Table;
use crate::Error;
use crate::netlink::socket::Socket;
use crate::netlink::wire;

/// The kernel asks to repeat a transaction when another one came between.
const ATTEMPTS: usize = 5;

/// nf_tables in the network namespace of the thread that opened it. Blocking: a transaction takes from some
/// microseconds to (ten thousand Services at once) a few hundred milliseconds.
#[derive(Debug)]
pub struct Connection {
    pub(super) socket: Socket,
}

impl Connection {
    pub fn open() -> Result<Self, Error> {
        let socket = Socket::open(libc::NETLINK_NETFILTER as isize)
            .map_err(|source| Error::Netlink { action: "opening the packet filter".to_owned(), source })?;
        Ok(Self { socket })
    }

    /// Makes the kernel's table what is wanted of it, in one transaction. Returns how many changes that took.
    ///
    /// After an error the table is as before, and the next call replaces it as a whole.
    pub fn sync(&mut self, table: &mut Table) -> Result<usize, Error> {
        let changes = table.plan();
        if changes.is_empty() {
            return Ok(0);
        }
        let (family, name) = (table.family(), table.name().to_owned());
        let sent = self.transact(|first| encode::batch(family, &name, &changes, first), &name);
        if sent.is_err() {
            table.doubt();
        }
        sent.map(|()| changes.len())
    }

    /// Removes a table with all that is in it. One that is not there is no error.
    pub fn delete_table(&mut self, family: Family, name: &str) -> Result<(), Error> {
        self.transact(|first| encode::delete_table(family, name, first), name)
    }

    fn transact(&mut self, make: impl Fn(u32) -> Batch, table: &str) -> Result<(), Error> {
        let action = || format!("changing packet-filter table {table}");
        let mut outcome = Ok(());
        for _ in 0..ATTEMPTS {
            let batch = make(self.socket.next_sequence());
            self.socket.skip_to(batch.last.wrapping_add(1));
            let sent = self.socket.send(&batch.bytes).and_then(|()| self.outcome(&batch));
            outcome = sent.map_err(|source| Error::Netlink { action: action(), source })?;
            match &outcome {
                Err((_, code)) if [libc::EAGAIN, libc::EINTR].contains(code) => {}
                _ => break,
            }
        }
        outcome.map_err(|(message, code)| Error::Netfilter {
            action: action(),
            message,
            source: io::Error::from_raw_os_error(code),
        })
    }

    /// Reads until the last message's acknowledgement. The inner error: what was refused, and why.
    fn outcome(&mut self, batch: &Batch) -> io::Result<Result<(), (String, i32)>> {
        let mut refused = None;
        loop {
            let datagram = self.socket.receive()?;
            for message in wire::messages(&datagram).filter(|message| message.kind == wire::NLMSG_ERROR) {
                let offset = message.sequence.wrapping_sub(batch.first);
                if offset > batch.last.wrapping_sub(batch.first) {
                    continue;
                }
                let code = message.errno();
                if code != 0 && refused.is_none() {
                    let about = offset.checked_sub(1).and_then(|index| batch.about.get(index as usize));
                    refused = Some((about.cloned().unwrap_or_else(|| "the transaction".to_owned()), code));
                }
                // An error of the frame itself ends the transaction without further answers.
                if message.sequence == batch.last || (offset == 0 && code != 0) {
                    return Ok(refused.map_or(Ok(()), Err));
                }
            }
        }
    }
}
