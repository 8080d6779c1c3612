//! Connections that the kernel remembers.
//!
//! A translated UDP "connection" lives as long as somebody sends. When its endpoint goes, it has to be forgotten, or
//! the sender goes on talking to nobody.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::Error;
use crate::netlink::socket::Socket;
use crate::netlink::wire::{self, Writer};
use crate::nft::Family;

const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_CTNETLINK as u16;
const IPCTNL_MSG_CT_NEW: u16 = 0;
const IPCTNL_MSG_CT_GET: u16 = 1;
const IPCTNL_MSG_CT_DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;
const NESTED: u16 = 0x8000;

/// One UDP flow as the kernel remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpFlow {
    /// Where its sender thinks it goes.
    pub destination: SocketAddr,
    /// Who answers: the same, unless the destination was translated.
    pub answered_by: SocketAddr,
}

/// Makes the kernel forget those UDP flows of this network namespace that `stale` says. Returns how many. Blocks.
pub fn forget_udp(family: Family, stale: impl Fn(&UdpFlow) -> bool) -> Result<usize, Error> {
    let failed = |source| Error::Netlink { action: "forgetting UDP flows".to_owned(), source };
    let mut socket = Socket::open(libc::NETLINK_NETFILTER as isize).map_err(failed)?;
    let header = [family.address_family(), 0, 0, 0];
    let make = |sequence| {
        let mut writer = Writer::default();
        writer.message(SUBSYSTEM << 8 | IPCTNL_MSG_CT_GET, wire::NLM_F_REQUEST | wire::NLM_F_DUMP, sequence);
        writer.raw(&header);
        writer.into_bytes()
    };
    let doomed = socket
        .dump(make, |kind, payload| {
            let body = payload.get(4..)?;
            let flow = read(body)?;
            (kind == SUBSYSTEM << 8 | IPCTNL_MSG_CT_NEW && stale(&flow)).then(|| body.to_vec())
        })
        .map_err(failed)?;
    for entry in &doomed {
        let sequence = socket.next_sequence();
        let mut writer = Writer::default();
        writer.message(SUBSYSTEM << 8 | IPCTNL_MSG_CT_DELETE, wire::NLM_F_REQUEST | wire::NLM_F_ACK, sequence);
        writer.raw(&header);
        for (kind, value) in wire::attributes(entry) {
            match kind {
                CTA_TUPLE_ORIG => writer.attr(CTA_TUPLE_ORIG | NESTED, value),
                CTA_ID | CTA_ZONE => writer.attr(kind, value),
                _ => {}
            }
        }
        match socket.acknowledged(&writer.into_bytes(), sequence) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            other => other.map_err(failed)?,
        }
    }
    Ok(doomed.len())
}

/// The flow an entry describes, if it is UDP.
fn read(entry: &[u8]) -> Option<UdpFlow> {
    let (_, destination) = tuple(wire::attribute(entry, CTA_TUPLE_ORIG)?)?;
    let (answered_by, _) = tuple(wire::attribute(entry, CTA_TUPLE_REPLY)?)?;
    Some(UdpFlow { destination, answered_by })
}

/// Source and destination of a UDP tuple.
fn tuple(tuple: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let ip = wire::attribute(tuple, CTA_TUPLE_IP)?;
    let proto = wire::attribute(tuple, CTA_TUPLE_PROTO)?;
    if wire::attribute(proto, CTA_PROTO_NUM)? != [libc::IPPROTO_UDP as u8] {
        return None;
    }
    let address = |v4, v6| {
        let v4 = wire::attribute(ip, v4).and_then(|value| <[u8; 4]>::try_from(value).ok());
        let v6 = || wire::attribute(ip, v6).and_then(|value| <[u8; 16]>::try_from(value).ok());
        v4.map(|octets| IpAddr::V4(Ipv4Addr::from(octets))).or_else(|| v6().map(|o| IpAddr::V6(Ipv6Addr::from(o))))
    };
    let port = |kind| wire::attribute(proto, kind)?.try_into().ok().map(u16::from_be_bytes);
    let source = SocketAddr::new(address(CTA_IP_V4_SRC, CTA_IP_V6_SRC)?, port(CTA_PROTO_SRC_PORT)?);
    let destination = SocketAddr::new(address(CTA_IP_V4_DST, CTA_IP_V6_DST)?, port(CTA_PROTO_DST_PORT)?);
    Some((source, destination))
}
