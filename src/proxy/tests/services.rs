//! Services reached from pods, from their node and from another host.

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use network::{Network, NetworkConfig, Peer, PodAttach};
use proxy::ProxyConfig;
use serde_json::{Value, json};
use task::Shutdown;

use crate::apiserver::ApiServer;
use crate::hosts::Host;

/// How long a change may take to reach the kernel.
const PATIENCE: Duration = Duration::from_secs(5);

struct Node {
    host: Host,
    other: Host,
    network: Network,
    api: ApiServer,
}

impl Node {
    fn new() -> Self {
        let (host, other) = Host::pair();
        let mut config = NetworkConfig::new("10.42.1.0/24".parse().unwrap(), "10.42.0.0/16".parse().unwrap());
        config.service_cidrs = vec!["10.43.0.0/16".parse().unwrap()];
        let network = host.block_on(Network::start(config)).unwrap();
        Self { host, other, network, api: ApiServer::default() }
    }

    /// A pod that answers with its name, on port 80.
    fn pod(&self, name: &'static str) -> (Host, String) {
        let pod = Host::new();
        let attach = PodAttach { id: name.to_owned(), netns: pod.path(), ifname: "eth0".to_owned() };
        let addresses = self.host.block_on(self.network.attach(attach)).unwrap();
        pod.serve(80, name);
        (pod, addresses.ips[0].to_string())
    }

    /// Runs a proxy on the node while `work` runs.
    fn proxied<T>(&self, work: impl FnOnce() -> T) -> T {
        let shutdown = Shutdown::new();
        let config = ProxyConfig {
            node_name: "node-1".to_owned(),
            cluster_cidrs: vec!["10.42.0.0/16".parse().unwrap()],
            table: self.network.names().service_table.clone(),
            served_here: vec!["10.43.0.10".parse().unwrap()],
        };
        let client_of = || self.api.client(shutdown.clone());
        std::thread::scope(|scope| {
            let stop = shutdown.clone();
            scope.spawn(|| self.host.block_on(async { proxy::run(config, client_of(), stop).await.unwrap() }));
            let guard = shutdown.clone().drop_guard();
            let value = work();
            drop(guard);
            value
        })
    }

    fn service(&self, name: &str, spec: Value) {
        self.api.put("services", json!({"metadata": {"namespace": "default", "name": name}, "spec": spec}));
    }

    fn endpoints(&self, name: &str, port: &Value, addresses: &[&str]) {
        let endpoints: Vec<_> =
            addresses.iter().map(|ip| json!({"addresses": [ip], "nodeName": "node-1", "conditions": {}})).collect();
        self.api.put(
            "endpointslices",
            json!({"metadata": {"namespace": "default", "name": format!("{name}-1"),
                                "labels": {"kubernetes.io/service-name": name}},
                   "addressType": "IPv4", "ports": [port], "endpoints": endpoints}),
        );
    }
}

/// Asks until the answer is as wanted.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came true that {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_service_is_reached_from_everywhere() {
    reached_from_everywhere("0");
}

/// Other programs, Docker for one, have bridged packets pass the rules for routed ones.
#[test]
fn a_service_is_reached_from_everywhere_where_bridged_packets_are_filtered_too() {
    reached_from_everywhere("1");
}

fn reached_from_everywhere(bridge_filter: &str) {
    let node = Node::new();
    // Kernels that have no such thing have no such trouble.
    let setting = "/proc/sys/net/bridge/bridge-nf-call-iptables";
    node.host.sh(&format!("[ ! -e {setting} ] || echo {bridge_filter} > {setting}"));
    let ((one, one_ip), (_two, two_ip)) = (node.pod("one"), node.pod("two"));
    node.service(
        "web",
        json!({"type": "NodePort", "clusterIP": "10.43.0.7", "externalIPs": ["192.0.2.77"],
               "ports": [{"port": 8080, "nodePort": 30080, "protocol": "TCP"}]}),
    );
    node.endpoints("web", &json!({"port": 80, "protocol": "TCP"}), &[&one_ip, &two_ip]);
    node.other.sh("ip route add 192.0.2.77 via 192.0.2.1; ip route add 10.43.0.0/16 via 192.0.2.1");
    node.proxied(|| {
        eventually("the Service is routed", || node.host.ask("10.43.0.7:8080").is_ok());
        let places = [
            (&one, "10.43.0.7:8080"),
            (&one, "192.0.2.1:30080"),
            (&one, "10.42.1.1:30080"),
            (&one, "192.0.2.77:8080"),
            (&node.host, "10.43.0.7:8080"),
            (&node.host, "192.0.2.1:30080"),
            (&node.host, "192.0.2.77:8080"),
            (&node.other, "192.0.2.1:30080"),
            (&node.other, "192.0.2.77:8080"),
            (&node.other, "10.43.0.7:8080"),
        ];
        for (from, to) in places {
            let answers: BTreeSet<_> = (0..40).map(|_| from.ask(to).unwrap()).collect();
            let names: BTreeSet<_> = answers.iter().map(|answer| answer.split(' ').next().unwrap()).collect();
            assert_eq!(names, BTreeSet::from(["one", "two"]), "at {to}");
        }
        // A pod keeps its address towards another, and gets the node's towards itself.
        let answers: BTreeSet<_> = (0..40).map(|_| one.ask("10.43.0.7:8080").unwrap()).collect();
        assert_eq!(answers, BTreeSet::from(["one to 10.42.1.1".to_owned(), format!("two to {one_ip}")]));
        // Another port of the same address is refused at once.
        let refused = one.ask("10.43.0.7:81").unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        assert!(node.host.ask("127.0.0.1:30080").is_err());
    });
    // Rules outlive the proxy; the next one takes over, and a deleted Service goes.
    assert!(one.ask("10.43.0.7:8080").is_ok());
    node.proxied(|| {
        node.api.delete("services", "default", "web");
        eventually("the Service is gone", || one.ask("10.43.0.7:8080").is_err());
        let table = node.host.sh("nft list table ip cluster-services");
        assert!(!table.contains("web"), "{table}");
    });
}

#[test]
fn rules_that_another_program_removed_come_back() {
    let node = Node::new();
    let (_one, one_ip) = node.pod("one");
    node.service("web", json!({"clusterIP": "10.43.0.7", "ports": [{"port": 80}]}));
    node.endpoints("web", &json!({"port": 80}), &[&one_ip]);
    node.proxied(|| {
        for _ in 0..3 {
            eventually("the Service is routed", || node.host.ask("10.43.0.7:80").is_ok());
            node.host.sh("nft flush ruleset");
        }
        eventually("the Service is routed", || node.host.ask("10.43.0.7:80").is_ok());
    });
}

#[test]
fn without_endpoints_it_is_refused_until_there_are_some() {
    let node = Node::new();
    let (one, one_ip) = node.pod("one");
    let (two, _) = node.pod("two");
    node.service(
        "web",
        json!({"type": "NodePort", "clusterIP": "10.43.0.7", "ports": [{"port": 80, "nodePort": 30080}]}),
    );
    node.proxied(|| {
        for (from, to) in [
            (&two, "10.43.0.7:80"),
            (&node.host, "10.43.0.7:80"),
            (&two, "192.0.2.1:30080"),
            (&node.other, "192.0.2.1:30080"),
        ] {
            let refused = || from.ask(to).is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
            eventually("it is refused", refused);
        }
        node.endpoints("web", &json!({"port": 80}), &[&one_ip]);
        eventually("it is served", || two.ask("10.43.0.7:80").is_ok());
        node.endpoints("web", &json!({"port": 80}), &[]);
        eventually("it is refused again", || two.ask("10.43.0.7:80").is_err());
    });
    drop(one);
}

#[test]
fn a_client_stays_with_its_endpoint_where_it_is_asked_to() {
    let node = Node::new();
    let ((_one, one_ip), (_two, two_ip)) = (node.pod("one"), node.pod("two"));
    let (asker, _) = node.pod("asker");
    node.service("web", json!({"clusterIP": "10.43.0.7", "sessionAffinity": "ClientIP", "ports": [{"port": 80}]}));
    node.endpoints("web", &json!({"port": 80}), &[&one_ip, &two_ip]);
    node.proxied(|| {
        eventually("it is served", || asker.ask("10.43.0.7:80").is_ok());
        let answers: BTreeSet<_> = (0..30).map(|_| asker.ask("10.43.0.7:80").unwrap()).collect();
        assert_eq!(answers.len(), 1);
        let (kept, left) =
            if answers.iter().any(|answer| answer.starts_with("one")) { (&two_ip, "two") } else { (&one_ip, "one") };
        node.endpoints("web", &json!({"port": 80}), &[kept]);
        eventually("it goes elsewhere", || asker.ask("10.43.0.7:80").is_ok_and(|answer| answer.starts_with(left)));
    });
}

#[test]
fn traffic_that_is_to_stay_local_keeps_the_clients_address() {
    let node = Node::new();
    let (one, one_ip) = node.pod("one");
    let ports = json!([{"port": 80, "nodePort": 30080}]);
    node.service(
        "web",
        json!({"type": "NodePort", "clusterIP": "10.43.0.7", "externalTrafficPolicy": "Local", "ports": ports}),
    );
    node.endpoints("web", &json!({"port": 80}), &[&one_ip]);
    node.proxied(|| {
        eventually("it is served", || node.host.ask("10.43.0.7:80").is_ok());
        assert_eq!(node.other.ask("192.0.2.1:30080").unwrap(), "one to 192.0.2.2");
        assert!(one.ask("192.0.2.1:30080").is_ok());
        assert!(node.host.ask("192.0.2.1:30080").is_ok());
    });
}

#[test]
fn udp_flows_follow_their_service() {
    let node = Node::new();
    let ((one, one_ip), (two, two_ip)) = (node.pod("one"), node.pod("two"));
    let (asker, _) = node.pod("asker");
    for (pod, name) in [(&one, "one"), (&two, "two")] {
        let socket = pod.run(|| UdpSocket::bind("0.0.0.0:53").unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 16];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                socket.send_to(name.as_bytes(), peer).unwrap();
            }
        });
    }
    node.service(
        "names",
        json!({"clusterIP": "10.43.0.53", "ports": [{"port": 53, "protocol": "UDP", "name": "dns"}]}),
    );
    let port = json!({"port": 53, "protocol": "UDP", "name": "dns"});
    node.endpoints("names", &port, &[&one_ip]);
    node.proxied(|| {
        let socket = asker.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let ask = || {
            let mut buffer = [0; 16];
            let sent = socket.send_to(b"?", "10.43.0.53:53");
            let answer = sent.and_then(|_| socket.recv(&mut buffer));
            answer.map(|len| String::from_utf8_lossy(&buffer[..len]).into_owned()).unwrap_or_default()
        };
        eventually("one answers", || ask() == "one");
        node.endpoints("names", &port, &[&two_ip]);
        // The same socket, so the kernel knows the flow.
        eventually("two answers", || ask() == "two");
    });
}

#[test]
fn endpoints_on_another_node_are_reached_through_the_overlay() {
    let node = Node::new();
    let config = NetworkConfig::new("10.42.2.0/24".parse().unwrap(), "10.42.0.0/16".parse().unwrap());
    let far = node.other.block_on(Network::start(config)).unwrap();
    let peer = |network: &Network| Peer { node_ip: network.node_ip(), pod_cidr: network.pod_cidr() };
    let peers = vec![peer(&node.network), peer(&far)];
    node.host.block_on(node.network.set_peers(peers.clone())).unwrap();
    node.other.block_on(far.set_peers(peers)).unwrap();
    let (asker, asker_ip) = node.pod("asker");
    let pod = Host::new();
    let attach = PodAttach { id: "far".to_owned(), netns: pod.path(), ifname: "eth0".to_owned() };
    node.other.block_on(far.attach(attach)).unwrap();
    pod.serve(80, "far");
    let ports = json!([{"port": 80, "nodePort": 30080}]);
    node.service("web", json!({"type": "NodePort", "clusterIP": "10.43.0.7", "ports": ports}));
    node.endpoints("web", &json!({"port": 80}), &["10.42.2.2"]);
    node.proxied(|| {
        eventually("the Service is routed", || asker.ask("10.43.0.7:80").is_ok());
        assert_eq!(asker.ask("10.43.0.7:80").unwrap(), format!("far to {asker_ip}"));
        assert!(node.host.ask("10.43.0.7:80").is_ok());
        // The answer comes back through the node that was asked.
        assert_eq!(node.other.ask("192.0.2.1:30080").unwrap(), "far to 10.42.1.0");
    });
}

#[test]
fn what_this_node_serves_itself_is_left_alone() {
    let node = Node::new();
    let (one, one_ip) = node.pod("one");
    node.host.block_on(node.network.add_local_address("10.43.0.10".parse().unwrap())).unwrap();
    node.host.serve(80, "host");
    node.service("kube-dns", json!({"clusterIP": "10.43.0.10", "ports": [{"port": 80}]}));
    node.service("web", json!({"clusterIP": "10.43.0.7", "ports": [{"port": 80}]}));
    node.endpoints("web", &json!({"port": 80}), &[&one_ip]);
    node.proxied(|| {
        eventually("Services are routed", || one.ask("10.43.0.7:80").is_ok());
        assert_eq!(one.ask("10.43.0.10:80").unwrap(), format!("host to {one_ip}"));
    });
}
