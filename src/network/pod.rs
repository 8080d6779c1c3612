//! A pod's link: a pair of devices, one end on the node's bridge, the other in the pod.
//!
//! A pod has its address with a prefix of 32 bits and sends everything to the bridge's address, pods of its own node
//! included. All its traffic is thus routed by the host, where packet-filter rules see both directions, whether or
//! not the kernel passes bridged packets to them.
//!
//! The host's end carries the pod's id and address as its alias. That is all the state there is: it is there exactly as
//! long as the link, so a restart reads back what is true, and nothing is written to disk.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use ipnet::Ipv4Net;

use crate::config::PodAttach;
use crate::netlink::route::{Link, Route, Rtnetlink};
use crate::overlay::host;
use crate::{Error, netns};

/// Interface names have at most 15 bytes.
const HOST_PREFIX: &str = "veth";
const ALIAS_PREFIX: &str = "cluster-pod";
/// The kernel's limit for an alias is 255 bytes.
const ID_BYTES_MAX: usize = 128;
const LOOPBACK_INDEX: u32 = 1;

/// What an alias says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    pub id: String,
    pub ip: Ipv4Addr,
}

impl Label {
    pub fn text(&self) -> String {
        format!("{ALIAS_PREFIX} {} {}", self.id, self.ip)
    }

    pub fn parse(alias: &str) -> Option<Self> {
        let mut words = alias.split(' ');
        let (prefix, id, ip) = (words.next()?, words.next()?, words.next()?);
        let label = Self { id: id.to_owned(), ip: ip.parse().ok()? };
        (prefix == ALIAS_PREFIX && words.next().is_none()).then_some(label)
    }
}

/// The name of the host's end of a pod's link.
pub(crate) fn host_name(id: &str) -> String {
    // FNV-1a: stable for ever, as the name has to be found again by later versions of us.
    let hash =
        id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{HOST_PREFIX}{:011x}", hash >> 20)
}

/// Whether a link on the bridge was made by us.
pub(crate) fn is_ours(link: &Link, bridge: u32) -> bool {
    link.master == Some(bridge) && link.kind == "veth" && link.name.starts_with(HOST_PREFIX)
}

pub(crate) fn check(pod: &PodAttach) -> Result<(), Error> {
    let acceptable =
        !pod.id.is_empty() && pod.id.len() <= ID_BYTES_MAX && pod.id.bytes().all(|byte| byte.is_ascii_graphic());
    if !acceptable {
        return Err(Error::Config { what: "the pod's id", reason: "has to be 1 to 128 visible characters".to_owned() });
    }
    if pod.ifname.is_empty() || pod.ifname.len() > 15 {
        return Err(Error::Config {
            what: "the interface's name",
            reason: "has to have 1 to 15 characters".to_owned(),
        });
    }
    Ok(())
}

/// What a pod's link is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plug {
    pub bridge: u32,
    pub mtu: u32,
    pub ip: Ipv4Addr,
    pub gateway: Ipv4Addr,
}

/// Makes the link and configures the pod's end. What is left of an earlier attempt is replaced; a link that is
/// complete stays. Blocks.
pub(crate) fn plug(netlink: &mut Rtnetlink, pod: &PodAttach, plug: Plug) -> Result<(), Error> {
    let name = host_name(&pod.id);
    let namespace = netns::open(&pod.netns)?;
    let failed = |action: &str| {
        let action = format!("{action} link {name} of pod {}", pod.id);
        move |source: io::Error| Error::Netlink { action, source }
    };
    let label = Label { id: pod.id.clone(), ip: plug.ip };
    let exists = netlink.link(&name).map_err(failed("looking for"))?;
    let complete = exists.is_some_and(|link| link.alias == label.text() && link.master == Some(plug.bridge));
    let configure = || configure(&pod.ifname, plug).map_err(failed("configuring"));
    if complete && netns::within(&pod.netns, &namespace, configure).is_ok() {
        return Ok(());
    }
    netlink.delete_link(&name).map_err(failed("replacing"))?;
    netlink.add_veth(&name, plug.bridge, plug.mtu, &pod.ifname, namespace.as_fd()).map_err(failed("making"))?;
    let finished = netlink
        .set_port(&name, &label.text())
        .map_err(failed("labelling"))
        .and_then(|()| netns::within(&pod.netns, &namespace, configure));
    if finished.is_err() {
        // The first error is the one to report.
        let _ = netlink.delete_link(&name);
    }
    finished
}

/// In the pod's namespace: loopback, address, and the way out.
fn configure(ifname: &str, plug: Plug) -> io::Result<()> {
    let mut netlink = Rtnetlink::open()?;
    netlink.set_up(LOOPBACK_INDEX)?;
    let link = netlink.link(ifname)?.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))?.index;
    netlink.add_address(link, host(plug.ip))?;
    netlink.set_up(link)?;
    let route =
        |destination: Ipv4Net, gateway| Route { destination, gateway, source: None, link, onlink: false, metric: 0 };
    netlink.set_route(&route(host(plug.gateway), None))?;
    netlink.set_route(&route(Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 0), Some(plug.gateway)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_says_whose_link_it_is() {
        let label = Label { id: "a1".to_owned(), ip: "10.42.0.2".parse().unwrap() };
        assert_eq!(Label::parse(&label.text()), Some(label));
        for other in ["", "eth0 of a container", "cluster-pod a1 here", "cluster-pod a1 10.42.0.2 x", "x a1 10.42.0.2"]
        {
            assert_eq!(Label::parse(other), None, "{other}");
        }
    }

    #[test]
    fn link_names_fit_and_differ() {
        let (a, b) = (host_name("a"), host_name("b"));
        assert!(a.len() <= 15 && a != b);
        assert_eq!(host_name("a"), "vethaf63dc4c860"); // It has to stay the same from version to version.
    }
}
