//! What the kernel has to have, tried out where it does no harm: in a network namespace that vanishes afterwards.

use std::fmt::{self, Display, Formatter};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use crate::netlink::route::{Rtnetlink, VxlanLink};
use crate::nft::{
    Chain, ChainKind, Connection, Family, Field, Fragment, Hook, Rule, SetSpec, Statement, Table, priority,
};
use crate::{Error, netns};

/// Something that is missing on this machine, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    pub what: &'static str,
    pub cause: String,
    pub mend: &'static str,
}

impl Display for Missing {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be used ({}): {}", self.what, self.cause, self.mend)
    }
}

/// Tries everything that the pod network needs of the kernel. Changes nothing that lasts. Blocks for some milliseconds.
pub fn check() -> Vec<Missing> {
    match netns::within_scratch(|| Ok(check_here())) {
        Ok(missing) => missing,
        Err(error) => vec![Missing {
            what: "network namespaces",
            cause: cause(&error),
            mend: "run as root, on a kernel with CONFIG_NET_NS",
        }],
    }
}

fn check_here() -> Vec<Missing> {
    let mut missing = Vec::new();
    let mut netlink = match Rtnetlink::open() {
        Ok(netlink) => netlink,
        Err(error) => {
            return vec![Missing { what: "rtnetlink", cause: error.to_string(), mend: "a kernel with CONFIG_NET" }];
        }
    };
    let mac = [0x0e, 0, 0, 0, 0, 1];
    let vxlan = VxlanLink { vni: 1, port: 8472, local: Ipv4Addr::LOCALHOST };
    let tried = [
        ("bridges", "load the kernel module bridge (CONFIG_BRIDGE)", netlink.add_bridge("check-br", mac, 1450)),
        ("VXLAN", "load the kernel module vxlan (CONFIG_VXLAN)", netlink.add_vxlan("check-vx", mac, 1450, vxlan)),
        ("veth pairs", "load the kernel module veth (CONFIG_VETH)", add_veth(&mut netlink)),
    ];
    for (what, mend, outcome) in tried {
        if let Err(error) = outcome {
            missing.push(Missing { what, cause: error.to_string(), mend });
        }
    }
    if let Err(error) = check_filter() {
        missing.push(Missing {
            what: "nf_tables",
            cause: cause(&error),
            mend: "load the kernel modules nf_tables, nft_nat, nft_masq, nft_ct, nft_fib_ipv4, nft_reject_inet and \
                   nft_numgen (CONFIG_NF_TABLES, CONFIG_NFT_*)",
        });
    }
    missing
}

fn add_veth(netlink: &mut Rtnetlink) -> std::io::Result<()> {
    use std::os::fd::AsFd;
    let here = std::fs::File::open("/proc/thread-self/ns/net")?;
    let bridge = netlink.link("check-br")?.map_or(0, |link| link.index);
    netlink.add_veth("check-veth", bridge, 1450, "check-peer", here.as_fd())
}

/// One transaction with everything that our rules use.
fn check_filter() -> Result<(), Error> {
    let mut fragment = Fragment::default();
    let set = |timeout| SetSpec { key: vec![Field::SourceIp], verdicts: false, timeout };
    fragment.sets.insert("s".to_owned(), set(Some(Duration::from_secs(1))));
    let target = |text: &str| text.parse().ok();
    let targets: Vec<_> = [target("192.0.2.1:1"), target("192.0.2.2:2")].into_iter().flatten().collect();
    let translate = [
        Rule::new([Statement::LocalDestination, Statement::Update { fields: vec![Field::SourceIp], set: "s".into() }]),
        Rule::new([Statement::Dnat(targets)]),
    ];
    let chains = [
        ("nat", Chain::base(ChainKind::Nat, Hook::Prerouting, priority::DSTNAT, translate)),
        (
            "masq",
            Chain::base(
                ChainKind::Nat,
                Hook::Postrouting,
                priority::SRCNAT,
                [Rule::new([Statement::Translated, Statement::MarkHas(1), Statement::Masquerade])],
            ),
        ),
        (
            "filter",
            Chain::base(
                ChainKind::Filter,
                Hook::Forward,
                priority::FILTER,
                [Rule::new([Statement::NewConnection, Statement::Reject])],
            ),
        ),
    ];
    fragment.chains.extend(chains.map(|(name, chain)| (name.to_owned(), chain)));
    let mut table = Table::new(Family::Ipv4, "check");
    table.set("check", Some(Arc::new(fragment)));
    Connection::open()?.sync(&mut table).map(drop)
}

fn cause(error: &Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
