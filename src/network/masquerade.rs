//! The node's own packet-filter table: pods speak to the outside under the node's address.

use ipnet::{IpNet, Ipv4Net};

use crate::nft::{Chain, ChainKind, Field, Fragment, Hook, Rule, Statement, priority};

/// Not the cluster's own, yet not to be translated either.
const MULTICAST: IpNet = IpNet::V4(Ipv4Net::new_assert(std::net::Ipv4Addr::new(224, 0, 0, 0), 4));

/// Packets from a pod of this node that leave for neither a pod nor a multicast group get the node's address. Those
/// to the node itself keep the pod's: they never pass the outgoing hook.
pub(crate) fn rules(pod_cidr: Ipv4Net, cluster_cidr: Ipv4Net) -> Fragment {
    let outside = |net| Statement::InNet { field: Field::DestinationIp, net, not: true };
    let from_pod = Statement::InNet { field: Field::SourceIp, net: IpNet::V4(pod_cidr), not: false };
    // The bridge's address is the host's own; what the host sends has the right address already where it goes to pods.
    let rule = Rule::new([from_pod, outside(IpNet::V4(cluster_cidr)), outside(MULTICAST), Statement::Masquerade]);
    let mut fragment = Fragment::default();
    let chain = Chain::base(ChainKind::Nat, Hook::Postrouting, priority::SRCNAT, [rule]);
    fragment.chains.insert("postrouting".to_owned(), chain);
    fragment
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nft::{Family, Table};
    use std::sync::Arc;

    #[test]
    fn pods_are_masqueraded_outside_only() {
        let rules = rules("10.42.1.0/24".parse().unwrap(), "10.42.0.0/16".parse().unwrap());
        let mut table = Table::new(Family::Ipv4, "cluster");
        table.set("base", Some(Arc::new(rules)));
        assert_eq!(
            table.text(),
            "table ip cluster\n# base\nchain postrouting type nat hook postrouting priority 100\n  \
             ip saddr 10.42.1.0/24 ip daddr != 10.42.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random\n"
        );
    }
}
