//! Nodes, pods and the overlay.

use network::{Names, Network, NetworkConfig, Peer, PodAttach};

use crate::hosts::Host;

fn config(n: u8) -> NetworkConfig {
    let mut config = NetworkConfig::new(format!("10.42.{n}.0/24").parse().unwrap(), "10.42.0.0/16".parse().unwrap());
    config.service_cidrs = vec!["10.43.0.0/16".parse().unwrap()];
    config
}

fn start(host: &Host, n: u8) -> Network {
    host.block_on(Network::start(config(n))).unwrap()
}

/// A pod on `host`, with its address.
fn pod(host: &Host, network: &Network, id: &str) -> (Host, String) {
    let pod = Host::new();
    let attach = PodAttach { id: id.to_owned(), netns: pod.path(), ifname: "eth0".to_owned() };
    let addresses = host.block_on(network.attach(attach)).unwrap();
    (pod, addresses.ips[0].to_string())
}

#[test]
fn pods_of_a_node_reach_each_other_the_host_and_the_outside() {
    let (host, other) = Host::pair();
    let network = start(&host, 1);
    let (one, one_ip) = pod(&host, &network, "one");
    let (two, two_ip) = pod(&host, &network, "two");
    assert_eq!((one_ip.as_str(), two_ip.as_str()), ("10.42.1.2", "10.42.1.3"));
    two.serve(80, "two");
    host.serve(81, "host");
    other.serve(82, "other");
    assert_eq!(one.ask("10.42.1.3:80").unwrap(), "two to 10.42.1.2");
    assert_eq!(two.ask("10.42.1.3:80").unwrap(), "two to 10.42.1.3");
    assert_eq!(host.ask("10.42.1.3:80").unwrap(), "two to 10.42.1.1");
    assert_eq!(one.ask("192.0.2.1:81").unwrap(), "host to 10.42.1.2");
    assert_eq!(one.ask("192.0.2.2:82").unwrap(), "other to 192.0.2.1");
    assert_eq!(network.mtu(), 1450);
    assert!(one.sh("ip link show eth0").contains("mtu 1450"));
}

#[test]
fn attach_and_detach_may_be_repeated() {
    let (host, _other) = Host::pair();
    let network = start(&host, 1);
    let pod = Host::new();
    let attach = PodAttach { id: "a".to_owned(), netns: pod.path(), ifname: "eth0".to_owned() };
    let first = host.block_on(network.attach(attach.clone())).unwrap();
    let again = host.block_on(network.attach(attach.clone())).unwrap();
    assert_eq!(first, again);
    host.block_on(network.detach("a")).unwrap();
    host.block_on(network.detach("a")).unwrap();
    assert!(host.block_on(network.attached()).unwrap().is_empty());
    // A failed attach leaves nothing, and the address goes round.
    let nowhere = PodAttach { netns: "/nonexistent".into(), ..attach.clone() };
    host.block_on(network.attach(nowhere)).unwrap_err();
    assert!(!host.sh("ip link").contains(&first.host_interface));
    let later = host.block_on(network.attach(attach)).unwrap();
    assert_ne!(later.ips, first.ips);
}

#[test]
fn pods_of_two_nodes_reach_each_other_through_the_overlay() {
    let (host1, host2) = Host::pair();
    let (network1, network2) = (start(&host1, 1), start(&host2, 2));
    let peers = vec![
        Peer { node_ip: network1.node_ip(), pod_cidr: network1.pod_cidr() },
        Peer { node_ip: network2.node_ip(), pod_cidr: network2.pod_cidr() },
    ];
    host1.block_on(network1.set_peers(peers.clone())).unwrap();
    host2.block_on(network2.set_peers(peers.clone())).unwrap();
    let (one, _) = pod(&host1, &network1, "one");
    let (two, _) = pod(&host2, &network2, "two");
    two.serve(80, "two");
    host2.serve(81, "host2");
    assert_eq!(one.ask("10.42.2.2:80").unwrap(), "two to 10.42.1.2");
    assert_eq!(host1.ask("10.42.2.2:80").unwrap(), "two to 10.42.1.0");
    assert_eq!(one.ask("10.42.2.1:81").unwrap(), "host2 to 10.42.1.2");
    // Full-sized packets fit.
    let long: &str = ".".repeat(200_000).leak();
    two.serve(83, long);
    assert!(one.ask("10.42.2.2:83").unwrap().starts_with(long));

    // The same peers again change nothing; without them nothing is left.
    let entries = "ip route show dev cluster-vxlan; ip neigh show dev cluster-vxlan; bridge fdb show dev cluster-vxlan";
    let before = host1.sh(entries);
    assert!(before.contains("10.42.2.0/24 via 10.42.2.0"), "{before}");
    host1.block_on(network1.set_peers(peers)).unwrap();
    assert_eq!(host1.sh(entries), before);
    host1.block_on(network1.set_peers(Vec::new())).unwrap();
    assert_eq!(host1.sh(entries), "");
}

#[test]
fn a_second_start_takes_over_what_the_first_left() {
    let (host, _other) = Host::pair();
    let network = start(&host, 1);
    host.block_on(network.add_local_address("10.43.0.10".parse().unwrap())).unwrap();
    let (one, _) = pod(&host, &network, "one");
    let (two, _) = pod(&host, &network, "two");
    two.serve(80, "two");
    let state = "ip -o link | sed 's/<[^>]*>//; s/ state [A-Z]* / /; s/ qdisc [a-z]* / /'; ip -o -4 addr; ip route; nft list ruleset";
    let before = host.sh(state);
    drop(network);
    // Left behind between two steps of an attach.
    host.sh("ip link add vethffffffffff type veth peer name left; ip link set vethffffffffff master cluster0");
    let network = start(&host, 1);
    assert_eq!(host.sh(state), before);
    let mut attached = host.block_on(network.attached()).unwrap();
    attached.sort();
    assert_eq!(
        attached,
        [("one".to_owned(), "10.42.1.2".parse().unwrap()), ("two".into(), "10.42.1.3".parse().unwrap())]
    );
    assert_eq!(one.ask("10.42.1.3:80").unwrap(), "two to 10.42.1.2");
    let (_three, three_ip) = pod(&host, &network, "three");
    assert_eq!(three_ip, "10.42.1.4");
}

#[test]
fn a_start_with_another_pod_network_replaces_the_old_one() {
    let (host, _other) = Host::pair();
    start(&host, 1);
    start(&host, 7);
    let addresses = host.sh("ip -o -4 addr");
    assert!(addresses.contains("10.42.7.1/24") && !addresses.contains("10.42.1."), "{addresses}");
}

#[test]
fn the_nodes_table_comes_back_when_another_program_removes_it() {
    let (host, _other) = Host::pair();
    let network = start(&host, 1);
    let before = host.sh("nft list ruleset");
    let shutdown = task::Shutdown::new();
    std::thread::scope(|scope| {
        let stop = shutdown.clone();
        scope.spawn(|| host.block_on(network.keep(stop)).unwrap());
        let guard = shutdown.drop_guard();
        for _ in 0..3 {
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
            while host.sh("nft list ruleset") != before {
                assert!(std::time::Instant::now() < deadline, "it never came back");
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            host.sh("nft flush ruleset");
        }
        drop(guard);
    });
}

#[test]
fn teardown_leaves_nothing() {
    let (host, _other) = Host::pair();
    host.sh("echo 0 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv4/conf/all/send_redirects");
    let settings = "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/conf/all/send_redirects";
    let state = "ip -o link | sed 's/<[^>]*>//; s/ state [A-Z]* / /; s/ qdisc [a-z]* / /'; ip -o -4 addr; ip route; nft list ruleset";
    let state = &format!("{settings}; {state}");
    let before = host.sh(state);
    drop(start(&host, 1));
    // The second finds the settings changed by the first.
    let network = start(&host, 1);
    assert_eq!(host.sh(settings), "1\n0\n");
    let (_pod, _) = pod(&host, &network, "one");
    assert_ne!(host.sh(state), before);
    host.block_on(network::teardown(Names::default())).unwrap();
    assert_eq!(host.sh(state), before);
    host.block_on(network::teardown(Names::default())).unwrap();
}

#[test]
fn exhaustion_is_a_clear_error_and_dead_pods_make_room() {
    let (host, _other) = Host::pair();
    let mut small = config(1);
    small.pod_cidrs = vec!["10.42.1.0/29".parse().unwrap()];
    let network = host.block_on(Network::start(small)).unwrap();
    let mut pods: Vec<_> = (0..5).map(|n| pod(&host, &network, &n.to_string())).collect();
    let late = Host::new();
    let attach = PodAttach { id: "late".to_owned(), netns: late.path(), ifname: "eth0".to_owned() };
    let error = host.block_on(network.attach(attach.clone())).unwrap_err();
    assert_eq!(error.to_string(), "no more addresses for pods: all 5 of 10.42.1.0/29 are taken");
    // The kernel takes a dead namespace apart in its own time.
    pods.pop();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while host.block_on(network.attach(attach.clone())).is_err() {
        assert!(std::time::Instant::now() < deadline, "the dead pod's address never became free");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn what_is_missing_is_said_and_nothing_is_missing_here() {
    assert_eq!(network::check(), []);
    let lonely = Host::new();
    let error = lonely.block_on(Network::start(config(1))).unwrap_err();
    assert!(error.to_string().contains("no default route"), "{error}");
    assert_eq!(lonely.sh("ip -o link").lines().count(), 1);
}
