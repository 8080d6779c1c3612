//! Links, addresses, routes and neighbours: the parts of rtnetlink that a node's network needs.
//!
//! Every change is idempotent: what is there already is no error, what is gone already neither.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use ipnet::Ipv4Net;

use super::socket::Socket;
use super::wire::{self, Nested, Writer};

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const VETH_INFO_PEER: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_LEARNING: u16 = 7;
const IFLA_VXLAN_PORT: u16 = 15;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

const AF_INET: u8 = libc::AF_INET as u8;
const AF_BRIDGE: u8 = libc::AF_BRIDGE as u8;
const IFF_UP: u32 = libc::IFF_UP as u32;
const RTNH_F_ONLINK: u32 = 4;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
const RTN_UNICAST: u8 = 1;
const SCOPE_UNIVERSE: u8 = 0;
const SCOPE_LINK: u8 = 253;
const NUD_PERMANENT: u16 = 0x80;
const NTF_SELF: u8 = 2;

/// A device as the kernel describes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Link {
    pub index: u32,
    pub name: String,
    pub mac: Vec<u8>,
    pub mtu: u32,
    /// Index of the bridge it is plugged into.
    pub master: Option<u32>,
    /// The free text kept with it.
    pub alias: String,
    pub kind: String,
    pub up: bool,
    pub vxlan: Option<VxlanLink>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct VxlanLink {
    pub vni: u32,
    pub port: u16,
    pub local: Ipv4Addr,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Route {
    pub destination: Ipv4Net,
    pub gateway: Option<Ipv4Addr>,
    /// The address packets from this host get.
    pub source: Option<Ipv4Addr>,
    pub link: u32,
    /// The gateway is on the link although no address says so.
    pub onlink: bool,
    pub metric: u32,
}

/// An entry of an address table: the neighbour table's, or the forwarding table's of an overlay.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Neighbour {
    pub ip: Ipv4Addr,
    pub mac: [u8; 6],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NeighbourTable {
    /// Which hardware address an IP address on the link has.
    Arp,
    /// To which host an overlay sends frames for a hardware address.
    Forwarding,
}

/// rtnetlink in one network namespace.
#[derive(Debug)]
pub(crate) struct Rtnetlink {
    socket: Socket,
}

impl Rtnetlink {
    /// For the calling thread's namespace.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: Socket::open(libc::NETLINK_ROUTE as isize)? })
    }

    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        self.dump(RTM_GETLINK, &link_header(0, 0), |kind, payload| (kind == RTM_NEWLINK).then(|| read_link(payload))?)
    }

    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        let sequence = self.socket.next_sequence();
        let mut writer = Writer::default();
        writer.message(RTM_GETLINK, wire::NLM_F_REQUEST, sequence);
        writer.raw(&link_header(0, 0));
        writer.attr_str(IFLA_IFNAME, name);
        self.socket.send(&writer.into_bytes())?;
        loop {
            let datagram = self.socket.receive()?;
            for message in wire::messages(&datagram).filter(|message| message.sequence == sequence) {
                match (message.kind, message.errno()) {
                    (RTM_NEWLINK, _) => return Ok(read_link(message.payload)),
                    (wire::NLMSG_ERROR, libc::ENODEV) => return Ok(None),
                    (wire::NLMSG_ERROR, code) => return Err(io::Error::from_raw_os_error(code)),
                    _ => {}
                }
            }
        }
    }

    pub fn add_bridge(&mut self, name: &str, mac: [u8; 6], mtu: u32) -> io::Result<()> {
        self.change(RTM_NEWLINK, wire::NLM_F_CREATE | wire::NLM_F_EXCL, |writer| {
            writer.raw(&link_header(0, 0));
            writer.attr_str(IFLA_IFNAME, name);
            writer.attr(IFLA_ADDRESS, &mac);
            writer.attr(IFLA_MTU, &mtu.to_ne_bytes());
            let info = link_kind(writer, "bridge");
            writer.end(info);
        })
    }

    pub fn add_vxlan(&mut self, name: &str, mac: [u8; 6], mtu: u32, vxlan: VxlanLink) -> io::Result<()> {
        self.change(RTM_NEWLINK, wire::NLM_F_CREATE | wire::NLM_F_EXCL, |writer| {
            writer.raw(&link_header(0, 0));
            writer.attr_str(IFLA_IFNAME, name);
            writer.attr(IFLA_ADDRESS, &mac);
            writer.attr(IFLA_MTU, &mtu.to_ne_bytes());
            let info = link_kind(writer, "vxlan");
            let data = writer.begin(IFLA_INFO_DATA);
            writer.attr(IFLA_VXLAN_ID, &vxlan.vni.to_ne_bytes());
            writer.attr(IFLA_VXLAN_LOCAL, &vxlan.local.octets());
            writer.attr(IFLA_VXLAN_PORT, &vxlan.port.to_be_bytes());
            writer.attr(IFLA_VXLAN_LEARNING, &[0]);
            writer.end(data);
            writer.end(info);
        })
    }

    /// A pair of linked devices: one here, up and plugged into `master`; the other in the namespace `peer_netns`
    /// from the beginning.
    pub fn add_veth(
        &mut self,
        name: &str,
        master: u32,
        mtu: u32,
        peer: &str,
        peer_netns: BorrowedFd<'_>,
    ) -> io::Result<()> {
        self.change(RTM_NEWLINK, wire::NLM_F_CREATE | wire::NLM_F_EXCL, |writer| {
            writer.raw(&link_header(0, IFF_UP));
            writer.attr_str(IFLA_IFNAME, name);
            writer.attr(IFLA_MTU, &mtu.to_ne_bytes());
            writer.attr(IFLA_MASTER, &master.to_ne_bytes());
            let info = link_kind(writer, "veth");
            let data = writer.begin(IFLA_INFO_DATA);
            let other = writer.begin(VETH_INFO_PEER);
            writer.raw(&link_header(0, 0));
            writer.attr_str(IFLA_IFNAME, peer);
            writer.attr(IFLA_MTU, &mtu.to_ne_bytes());
            writer.attr(IFLA_NET_NS_FD, &peer_netns.as_raw_fd().to_ne_bytes());
            writer.end(other);
            writer.end(data);
            writer.end(info);
        })
    }

    /// Labels a bridge port and lets it send back to where a frame came from.
    pub fn set_port(&mut self, name: &str, alias: &str) -> io::Result<()> {
        self.change(RTM_NEWLINK, 0, |writer| {
            writer.raw(&link_header(0, 0));
            writer.attr_str(IFLA_IFNAME, name);
            writer.attr(IFLA_IFALIAS, alias.as_bytes());
            let info = writer.begin(IFLA_LINKINFO);
            writer.attr_str(IFLA_INFO_SLAVE_KIND, "bridge");
            let data = writer.begin(IFLA_INFO_SLAVE_DATA);
            writer.attr(IFLA_BRPORT_MODE, &[1]);
            writer.end(data);
            writer.end(info);
        })
    }

    pub fn set_up(&mut self, index: u32) -> io::Result<()> {
        self.change(RTM_NEWLINK, 0, |writer| writer.raw(&link_header(index, IFF_UP)))
    }

    pub fn set_mtu(&mut self, index: u32, mtu: u32) -> io::Result<()> {
        self.change(RTM_NEWLINK, 0, |writer| {
            writer.raw(&link_header(index, 0));
            writer.attr(IFLA_MTU, &mtu.to_ne_bytes());
        })
    }

    pub fn set_alias(&mut self, index: u32, alias: &str) -> io::Result<()> {
        self.change(RTM_NEWLINK, 0, |writer| {
            writer.raw(&link_header(index, 0));
            writer.attr(IFLA_IFALIAS, alias.as_bytes());
        })
    }

    pub fn set_mac(&mut self, index: u32, mac: [u8; 6]) -> io::Result<()> {
        self.change(RTM_NEWLINK, 0, |writer| {
            writer.raw(&link_header(index, 0));
            writer.attr(IFLA_ADDRESS, &mac);
        })
    }

    pub fn delete_link(&mut self, name: &str) -> io::Result<()> {
        let deleted = self.change(RTM_DELLINK, 0, |writer| {
            writer.raw(&link_header(0, 0));
            writer.attr_str(IFLA_IFNAME, name);
        });
        but(deleted, &[libc::ENODEV])
    }

    /// Addresses of all links: (link index, address with prefix).
    pub fn addresses(&mut self) -> io::Result<Vec<(u32, Ipv4Net)>> {
        self.dump(RTM_GETADDR, &[AF_INET, 0, 0, 0, 0, 0, 0, 0], |kind, payload| {
            let prefix_len = *payload.get(1)?;
            let index = number(payload.get(4..8)?)?;
            let body = payload.get(8..)?;
            let ip = wire::attribute(body, IFA_LOCAL).or_else(|| wire::attribute(body, IFA_ADDRESS))?;
            (kind == RTM_NEWADDR).then_some((index, Ipv4Net::new(ipv4(ip)?, prefix_len).ok()?))
        })
    }

    pub fn add_address(&mut self, index: u32, address: Ipv4Net) -> io::Result<()> {
        self.address(RTM_NEWADDR, wire::NLM_F_CREATE | wire::NLM_F_REPLACE, index, address)
    }

    pub fn delete_address(&mut self, index: u32, address: Ipv4Net) -> io::Result<()> {
        but(self.address(RTM_DELADDR, 0, index, address), &[libc::EADDRNOTAVAIL])
    }

    fn address(&mut self, kind: u16, flags: u16, index: u32, address: Ipv4Net) -> io::Result<()> {
        self.change(kind, flags, |writer| {
            let mut header = [AF_INET, address.prefix_len(), 0, 0, 0, 0, 0, 0];
            header[4..].copy_from_slice(&index.to_ne_bytes());
            writer.raw(&header);
            writer.attr(IFA_LOCAL, &address.addr().octets());
            writer.attr(IFA_ADDRESS, &address.addr().octets());
        })
    }

    /// The unicast routes of the main table.
    pub fn routes(&mut self) -> io::Result<Vec<Route>> {
        let mut header = [0_u8; 12];
        header[0] = AF_INET;
        self.dump(RTM_GETROUTE, &header, |kind, payload| {
            let [_, prefix_len, _, _, table, _, _, route_type] = *payload.first_chunk::<8>()?;
            let flags = number(payload.get(8..12)?)?;
            let body = payload.get(12..)?;
            let address = |kind| wire::attribute(body, kind).and_then(ipv4);
            let route = Route {
                destination: Ipv4Net::new(address(RTA_DST).unwrap_or(Ipv4Addr::UNSPECIFIED), prefix_len).ok()?,
                gateway: address(RTA_GATEWAY),
                source: address(RTA_PREFSRC),
                link: number(wire::attribute(body, RTA_OIF)?)?,
                onlink: flags & RTNH_F_ONLINK != 0,
                metric: wire::attribute(body, RTA_PRIORITY).and_then(number).unwrap_or(0),
            };
            (kind == RTM_NEWROUTE && table == RT_TABLE_MAIN && route_type == RTN_UNICAST).then_some(route)
        })
    }

    /// Adds a route, in place of any other with this destination and metric.
    pub fn set_route(&mut self, route: &Route) -> io::Result<()> {
        self.route(RTM_NEWROUTE, wire::NLM_F_CREATE | wire::NLM_F_REPLACE, route)
    }

    pub fn delete_route(&mut self, route: &Route) -> io::Result<()> {
        but(self.route(RTM_DELROUTE, 0, route), &[libc::ESRCH])
    }

    fn route(&mut self, kind: u16, flags: u16, route: &Route) -> io::Result<()> {
        self.change(kind, flags, |writer| {
            let scope = if route.gateway.is_some() { SCOPE_UNIVERSE } else { SCOPE_LINK };
            let onlink = if route.onlink { RTNH_F_ONLINK } else { 0 };
            let prefix_len = route.destination.prefix_len();
            writer.raw(&[AF_INET, prefix_len, 0, 0, RT_TABLE_MAIN, RTPROT_STATIC, scope, RTN_UNICAST]);
            writer.raw(&onlink.to_ne_bytes());
            writer.attr(RTA_DST, &route.destination.network().octets());
            writer.attr(RTA_OIF, &route.link.to_ne_bytes());
            if let Some(gateway) = route.gateway {
                writer.attr(RTA_GATEWAY, &gateway.octets());
            }
            if let Some(source) = route.source {
                writer.attr(RTA_PREFSRC, &source.octets());
            }
            if route.metric != 0 {
                writer.attr(RTA_PRIORITY, &route.metric.to_ne_bytes());
            }
        })
    }

    /// The permanent entries of one link.
    pub fn neighbours(&mut self, table: NeighbourTable, link: u32) -> io::Result<Vec<Neighbour>> {
        let mut header = [0_u8; 12];
        header[0] = table.family();
        self.dump(RTM_GETNEIGH, &header, |kind, payload| {
            let found = number(payload.get(4..8)?)?;
            let state = u16::from_ne_bytes(payload.get(8..10)?.try_into().ok()?);
            let body = payload.get(12..)?;
            let ip = ipv4(wire::attribute(body, NDA_DST)?)?;
            let mac = wire::attribute(body, NDA_LLADDR)?.try_into().ok()?;
            (kind == RTM_NEWNEIGH && found == link && state & NUD_PERMANENT != 0).then_some(Neighbour { ip, mac })
        })
    }

    pub fn set_neighbour(&mut self, table: NeighbourTable, link: u32, neighbour: &Neighbour) -> io::Result<()> {
        self.neighbour(RTM_NEWNEIGH, wire::NLM_F_CREATE | wire::NLM_F_REPLACE, table, link, neighbour)
    }

    pub fn delete_neighbour(&mut self, table: NeighbourTable, link: u32, neighbour: &Neighbour) -> io::Result<()> {
        but(self.neighbour(RTM_DELNEIGH, 0, table, link, neighbour), &[libc::ENOENT])
    }

    fn neighbour(
        &mut self,
        kind: u16,
        flags: u16,
        table: NeighbourTable,
        link: u32,
        neighbour: &Neighbour,
    ) -> io::Result<()> {
        self.change(kind, flags, |writer| {
            let entry_flags = if table == NeighbourTable::Forwarding { NTF_SELF } else { 0 };
            writer.raw(&[table.family(), 0, 0, 0]);
            writer.raw(&link.to_ne_bytes());
            let [low, high] = NUD_PERMANENT.to_ne_bytes();
            writer.raw(&[low, high, entry_flags, 0]);
            writer.attr(NDA_DST, &neighbour.ip.octets());
            writer.attr(NDA_LLADDR, &neighbour.mac);
        })
    }

    fn change(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Writer)) -> io::Result<()> {
        let sequence = self.socket.next_sequence();
        let mut writer = Writer::default();
        writer.message(kind, wire::NLM_F_REQUEST | wire::NLM_F_ACK | flags, sequence);
        body(&mut writer);
        self.socket.acknowledged(&writer.into_bytes(), sequence)
    }

    fn dump<T>(&mut self, kind: u16, header: &[u8], each: impl FnMut(u16, &[u8]) -> Option<T>) -> io::Result<Vec<T>> {
        let make = |sequence| {
            let mut writer = Writer::default();
            writer.message(kind, wire::NLM_F_REQUEST | wire::NLM_F_DUMP, sequence);
            writer.raw(header);
            writer.into_bytes()
        };
        self.socket.dump(make, each)
    }
}

impl NeighbourTable {
    fn family(self) -> u8 {
        match self {
            Self::Arp => AF_INET,
            Self::Forwarding => AF_BRIDGE,
        }
    }
}

/// `ifinfomsg`: which link, and the flags that are to be set (none is ever cleared).
fn link_header(index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

fn link_kind(writer: &mut Writer, kind: &str) -> Nested {
    let info = writer.begin(IFLA_LINKINFO);
    writer.attr_str(IFLA_INFO_KIND, kind);
    info
}

fn read_link(payload: &[u8]) -> Option<Link> {
    let mut link =
        Link { index: number(payload.get(4..8)?)?, up: number(payload.get(8..12)?)? & IFF_UP != 0, ..Link::default() };
    for (kind, value) in wire::attributes(payload.get(16..)?) {
        match kind {
            IFLA_ADDRESS => link.mac = value.to_vec(),
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = number(value)?,
            IFLA_MASTER => link.master = number(value),
            IFLA_IFALIAS => link.alias = text(value),
            IFLA_LINKINFO => {
                link.kind = wire::attribute(value, IFLA_INFO_KIND).map(text).unwrap_or_default();
                if link.kind == "vxlan" {
                    link.vxlan = wire::attribute(value, IFLA_INFO_DATA).and_then(read_vxlan);
                }
            }
            _ => {}
        }
    }
    Some(link)
}

fn read_vxlan(data: &[u8]) -> Option<VxlanLink> {
    Some(VxlanLink {
        vni: number(wire::attribute(data, IFLA_VXLAN_ID)?)?,
        port: u16::from_be_bytes(wire::attribute(data, IFLA_VXLAN_PORT)?.try_into().ok()?),
        local: ipv4(wire::attribute(data, IFLA_VXLAN_LOCAL)?)?,
    })
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn number(value: &[u8]) -> Option<u32> {
    value.try_into().ok().map(u32::from_ne_bytes)
}

fn ipv4(value: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from)
}

/// Success also where the kernel says one of `harmless`.
fn but(result: io::Result<()>, harmless: &[i32]) -> io::Result<()> {
    match result {
        Err(error) if error.raw_os_error().is_some_and(|code| harmless.contains(&code)) => Ok(()),
        other => other,
    }
}
