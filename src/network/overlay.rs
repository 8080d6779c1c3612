//! Which entries the overlay needs for its peers, and which it has.
//!
//! Each peer is three entries: its pods are behind its overlay address (route, on-link), that address has its derived
//! hardware address (neighbour), and that hardware address is at the peer's node (forwarding table). Nothing is
//! learned or flooded.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

use crate::config::{Peer, vtep_address, vtep_mac};
use crate::netlink::route::{Neighbour, NeighbourTable, Route, Rtnetlink};

#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Entries {
    pub routes: BTreeSet<Route>,
    pub neighbours: BTreeSet<Neighbour>,
    pub forwarding: BTreeSet<Neighbour>,
}

impl Entries {
    /// What these peers need on overlay device `link`. The node's own network and other families' are passed over.
    pub fn wanted(peers: &[Peer], link: u32, own: Ipv4Net) -> Self {
        let mut entries = Self::default();
        for peer in peers {
            let (IpAddr::V4(node_ip), IpNet::V4(pod_cidr)) = (peer.node_ip, peer.pod_cidr) else { continue };
            if pod_cidr.trunc() == own.trunc() {
                continue;
            }
            let (ip, mac) = (vtep_address(pod_cidr), vtep_mac(pod_cidr));
            entries.routes.insert(Route {
                destination: pod_cidr.trunc(),
                gateway: Some(ip),
                source: None,
                link,
                onlink: true,
                metric: 0,
            });
            entries.neighbours.insert(Neighbour { ip, mac });
            entries.forwarding.insert(Neighbour { ip: node_ip, mac });
        }
        entries
    }

    /// What the kernel has.
    pub fn present(netlink: &mut Rtnetlink, link: u32) -> io::Result<Self> {
        let routes = netlink.routes()?.into_iter().filter(|route| route.link == link);
        Ok(Self {
            // The kernel gives a route that was added without one a preferred source of none.
            routes: routes.collect(),
            neighbours: netlink.neighbours(NeighbourTable::Arp, link)?.into_iter().collect(),
            forwarding: netlink.neighbours(NeighbourTable::Forwarding, link)?.into_iter().collect(),
        })
    }

    /// Makes the kernel's entries these. What is right already is not touched.
    pub fn apply(&self, netlink: &mut Rtnetlink, link: u32) -> io::Result<()> {
        let present = Self::present(netlink, link)?;
        // A route goes first and comes last, so that no packet is sent that cannot be delivered.
        for route in present.routes.difference(&self.routes) {
            netlink.delete_route(route)?;
        }
        for (table, present, wanted) in [
            (NeighbourTable::Arp, &present.neighbours, &self.neighbours),
            (NeighbourTable::Forwarding, &present.forwarding, &self.forwarding),
        ] {
            for neighbour in present.difference(wanted) {
                netlink.delete_neighbour(table, link, neighbour)?;
            }
            for neighbour in wanted.difference(present) {
                netlink.set_neighbour(table, link, neighbour)?;
            }
        }
        for route in self.routes.difference(&present.routes) {
            netlink.set_route(route)?;
        }
        Ok(())
    }
}

/// The overlay's own address as it is put on the device.
pub(crate) fn own_address(pod_cidr: Ipv4Net) -> Ipv4Net {
    host(vtep_address(pod_cidr))
}

pub(crate) fn host(ip: Ipv4Addr) -> Ipv4Net {
    Ipv4Net::new_assert(ip, 32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_route_a_neighbour_and_a_forwarding_entry() {
        let peer = |ip: &str, cidr: &str| Peer { node_ip: ip.parse().unwrap(), pod_cidr: cidr.parse().unwrap() };
        let peers = [peer("192.0.2.1", "10.42.0.0/24"), peer("192.0.2.2", "10.42.1.0/24")];
        let entries = Entries::wanted(&peers, 7, "10.42.0.0/24".parse().unwrap());
        let route = entries.routes.first().unwrap();
        assert_eq!((route.destination.to_string(), route.onlink), ("10.42.1.0/24".to_owned(), true));
        assert_eq!(route.gateway, Some("10.42.1.0".parse().unwrap()));
        let mac = [0x0e, 0x2a, 10, 42, 1, 0];
        assert_eq!(entries.neighbours.first(), Some(&Neighbour { ip: "10.42.1.0".parse().unwrap(), mac }));
        assert_eq!(entries.forwarding.first(), Some(&Neighbour { ip: "192.0.2.2".parse().unwrap(), mac }));
        assert_eq!(entries.routes.len() + entries.neighbours.len() + entries.forwarding.len(), 3);
    }
}
