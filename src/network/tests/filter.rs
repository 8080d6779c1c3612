//! The packet filter: rule sets as the kernel takes them.

use std::sync::Arc;
use std::time::Duration;

use network::nft::{
    Chain, ChainKind, Connection, Family, Field, Fragment, Hook, KeyPart, Protocol, Rule, SetSpec, Statement, Table,
    Verdict, priority,
};

use crate::hosts::Host;

fn everything() -> Fragment {
    use Statement as S;
    let mut fragment = Fragment::default();
    let key = vec![Field::DestinationIp, Field::Protocol, Field::DestinationPort];
    fragment.sets.insert("services".into(), SetSpec { key: key.clone(), verdicts: true, timeout: None });
    let clients = SetSpec { key: vec![Field::SourceIp], verdicts: false, timeout: Some(Duration::from_secs(60)) };
    fragment.sets.insert("clients".into(), clients);
    let net = |text: &str, not| S::InNet { field: Field::SourceIp, net: text.parse().unwrap(), not };
    let pre = [
        Rule::new([S::VerdictMap { fields: key, map: "services".into() }]),
        Rule::new([S::LocalDestination, S::LocalSource, net("10.0.0.0/8", true), S::Verdict(Verdict::Return)]),
    ];
    fragment.chains.insert("pre".into(), Chain::base(ChainKind::Nat, Hook::Prerouting, priority::DSTNAT, pre));
    let service = [
        Rule::new([S::Is(Field::Protocol, KeyPart::Protocol(Protocol::Tcp)), S::MarkSet(0x4000)]),
        Rule::new([
            S::InSet { fields: vec![Field::SourceIp], set: "clients".into(), not: false },
            S::Verdict(Verdict::Goto("endpoint".into())),
        ]),
        Rule::new([S::RandomGoto(vec!["endpoint".into(), "endpoint".into()])]),
        Rule::new([S::Dnat(vec!["10.0.0.1:80".parse().unwrap(), "10.0.0.2:81".parse().unwrap()])]),
    ];
    fragment.chains.insert("service".into(), Chain::new(service));
    let endpoint = [Rule::new([
        S::Update { fields: vec![Field::SourceIp], set: "clients".into() },
        S::Dnat(vec!["10.0.0.1:80".parse().unwrap()]),
    ])];
    fragment.chains.insert("endpoint".into(), Chain::new(endpoint));
    let post = [Rule::new([S::Translated, S::MarkHas(0x4000), S::MarkClear(0x4000), S::Masquerade])];
    fragment.chains.insert("post".into(), Chain::base(ChainKind::Nat, Hook::Postrouting, priority::SRCNAT, post));
    let forward = [Rule::new([S::NewConnection, S::Is(Field::DestinationPort, KeyPart::Port(9)), S::Reject])];
    fragment.chains.insert("f".into(), Chain::base(ChainKind::Filter, Hook::Forward, priority::FILTER, forward));
    let key = [KeyPart::Ip("10.43.0.1".parse().unwrap()), KeyPart::Protocol(Protocol::Tcp), KeyPart::Port(443)];
    fragment.element("services", key, Some(Verdict::Goto("service".into())));
    fragment
}

/// As `nft` shows it, every kind of statement is what our own text says.
#[test]
fn the_kernel_has_what_the_text_says() {
    let host = Host::new();
    let mut table = Table::new(Family::Ipv4, "t");
    table.set("all", Some(Arc::new(everything())));
    host.run(|| Connection::open().unwrap().sync(&mut table).unwrap());
    let shown = host.sh("nft -n list table ip t");
    for line in [
        "type ipv4_addr . inet_proto . inet_service : verdict",
        "elements = { 10.43.0.1 . 6 . 443 : goto service }",
        "type nat hook prerouting priority -100; policy accept;",
        "ip daddr . meta l4proto . th dport vmap @services",
        "fib daddr type 2 fib saddr type 2 ip saddr != 10.0.0.0/8 return",
        "meta l4proto 6 meta mark set meta mark | 0x00004000",
        "ip saddr @clients goto endpoint",
        "numgen random mod 2 vmap { 0 : goto endpoint, 1 : goto endpoint }",
        "dnat ip to numgen random mod 2 map { 0 : 10.0.0.1 . 80, 1 : 10.0.0.2 . 81 }",
        "update @clients { ip saddr } dnat to 10.0.0.1:80",
        "ct status 0x20 meta mark & 0x00004000 != 0x00000000 meta mark set meta mark & 0xffffbfff masquerade fully-random",
        "ct state 0x8 th dport 9 reject",
    ] {
        assert!(shown.contains(line), "{line}\nis not in\n{shown}");
    }
}

#[test]
fn a_refused_transaction_changes_nothing_and_says_what_was_refused() {
    let host = Host::new();
    host.run(|| {
        let mut connection = Connection::open().unwrap();
        let mut table = Table::new(Family::Ipv4, "t");
        table.set("all", Some(Arc::new(everything())));
        connection.sync(&mut table).unwrap();
        let mut bad = Fragment::default();
        bad.chains.insert("x".into(), Chain::new([Rule::new([Statement::Verdict(Verdict::Jump("nowhere".into()))])]));
        table.set("bad", Some(Arc::new(bad)));
        let error = connection.sync(&mut table).unwrap_err();
        assert_eq!(error.to_string(), "changing packet-filter table t: the kernel refuses message add rule to x");
        assert_eq!(error.errno(), Some(2));
        table.set("bad", None);
        assert!(connection.sync(&mut table).unwrap() > 1, "in doubt, all is replaced");
        assert_eq!(connection.sync(&mut table).unwrap(), 0);
    });
    assert!(!host.sh("nft list ruleset").contains("chain x"));
}

#[test]
fn fragments_come_and_go_in_a_live_table() {
    let host = Host::new();
    let service = |n: u16, port: u16| {
        let mut fragment = Fragment::default();
        let targets = vec![format!("10.1.0.1:{port}").parse().unwrap(), format!("10.1.0.2:{port}").parse().unwrap()];
        let name = format!("svc-{n}");
        fragment.chains.insert(name.clone(), Chain::new([Rule::new([Statement::Dnat(targets)])]));
        let key = [KeyPart::Ip("10.43.1.1".parse().unwrap()), KeyPart::Protocol(Protocol::Udp), KeyPart::Port(n)];
        fragment.element("services", key, Some(Verdict::Goto(name)));
        Some(Arc::new(fragment))
    };
    host.run(|| {
        let mut connection = Connection::open().unwrap();
        let mut table = Table::new(Family::Ipv4, "t");
        table.set("base", Some(Arc::new(everything())));
        for n in 1..2000 {
            table.set(&n.to_string(), service(n, 80));
        }
        connection.sync(&mut table).unwrap();
        table.set("7", None);
        table.set("8", service(8, 81));
        table.set("2000", service(2000, 80));
        // One goes (3), one changes (2: flush, rule), one comes (3).
        assert_eq!(connection.sync(&mut table).unwrap(), 8);
    });
    let shown = host.sh("nft -n list table ip t");
    assert_eq!(shown.matches("chain svc-").count(), 1999);
    assert_eq!(shown.matches("10.43.1.1 . 17 . ").count(), 1999);
    assert!(shown.contains("10.1.0.2 . 81") && !shown.contains("svc-7 "));
    host.run(|| Connection::open().unwrap().delete_table(Family::Ipv4, "t").unwrap());
    assert_eq!(host.sh("nft list ruleset"), "");
}

#[test]
fn ipv6_addresses_fit_where_ipv4_ones_do() {
    let host = Host::new();
    let mut fragment = Fragment::default();
    let key = vec![Field::DestinationIp, Field::Protocol, Field::DestinationPort];
    fragment.sets.insert("services".into(), SetSpec { key: key.clone(), verdicts: true, timeout: None });
    let look = Rule::new([Statement::VerdictMap { fields: key, map: "services".into() }]);
    fragment.chains.insert("pre".into(), Chain::base(ChainKind::Nat, Hook::Prerouting, priority::DSTNAT, [look]));
    let targets = ["[fd42::1]:80", "[fd42::2]:81"].map(|target| target.parse().unwrap()).to_vec();
    let one = vec![targets[0]];
    let net = Statement::InNet { field: Field::SourceIp, net: "fd42::/48".parse().unwrap(), not: true };
    let rules = [Rule::new([net, Statement::Dnat(targets)]), Rule::new([Statement::Dnat(one)])];
    fragment.chains.insert("service".into(), Chain::new(rules));
    let forward = [Rule::new([Statement::Reject])];
    fragment.chains.insert("f".into(), Chain::base(ChainKind::Filter, Hook::Forward, priority::FILTER, forward));
    let key = [KeyPart::Ip("fd43::1".parse().unwrap()), KeyPart::Protocol(Protocol::Sctp), KeyPart::Port(443)];
    fragment.element("services", key, Some(Verdict::Goto("service".into())));
    let mut table = Table::new(Family::Ipv6, "t");
    table.set("all", Some(Arc::new(fragment)));
    host.run(|| Connection::open().unwrap().sync(&mut table).unwrap());
    let shown = host.sh("nft -n list table ip6 t");
    for line in [
        "elements = { fd43::1 . 132 . 443 : goto service }",
        "ip6 saddr != fd42::/48 dnat ip6 to numgen random mod 2 map { 0 : fd42::1 . 80, 1 : fd42::2 . 81 }",
        "dnat to [fd42::1]:80",
        "reject",
    ] {
        assert!(shown.contains(line), "{line}\nis not in\n{shown}");
    }
}
