//! Names asked over UDP and TCP, the cluster's and others'.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dns::DnsConfig;
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde_json::json;
use task::Shutdown;

use crate::apiserver::ApiServer;
use crate::hosts::Host;

const SERVER: &str = "127.0.0.10:53";
/// More than an answer from memory takes on a busy machine, less than waiting for a name server that hangs.
const SOON: Duration = Duration::from_secs(5);

/// A name server in a host of its own, while `work` runs.
fn serving<T>(api: &ApiServer, upstreams: &[&str], work: impl FnOnce(&Host) -> T) -> T {
    let host = Host::new();
    host.sh("ip link set lo up");
    serving_on(&host, api, upstreams, work)
}

fn serving_on<T>(host: &Host, api: &ApiServer, upstreams: &[&str], work: impl FnOnce(&Host) -> T) -> T {
    let directory = tempfile::tempdir().unwrap();
    let resolv_conf = directory.path().join("resolv.conf");
    let text: String = upstreams.iter().map(|server| format!("nameserver {server}\n")).collect();
    std::fs::write(&resolv_conf, text).unwrap();
    let config =
        DnsConfig { listen: vec![SERVER.parse().unwrap()], cluster_domain: "cluster.local".to_owned(), resolv_conf };
    let shutdown = Shutdown::new();
    std::thread::scope(|scope| {
        let stop = shutdown.clone();
        scope.spawn(move || host.block_on(async { dns::run(config, api.client(stop.clone()), stop).await.unwrap() }));
        let guard = shutdown.drop_guard();
        eventually("the server answers", || {
            let answer = ask(host, "dns-version.cluster.local.", RecordType::TXT);
            answer.is_some_and(|answer| answer.metadata.response_code == ResponseCode::NoError)
        });
        let value = work(host);
        drop(guard);
        value
    })
}

fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came true that {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn question(name: &str, record_type: RecordType) -> Vec<u8> {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), record_type));
    message.to_vec().unwrap()
}

fn ask(host: &Host, name: &str, record_type: RecordType) -> Option<Message> {
    let socket = host.run(|| UdpSocket::bind("127.0.0.1:0").unwrap());
    socket.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    socket.connect(SERVER).unwrap();
    let mut buffer = [0; 4096];
    // A datagram may be lost: resolvers ask again, and so does this one.
    let len = (0..3).find_map(|_| {
        socket.send(&question(name, record_type)).unwrap();
        socket.recv(&mut buffer).ok()
    })?;
    let message = Message::from_vec(&buffer[..len]).unwrap();
    assert_eq!(message.metadata.id, 4711);
    Some(message)
}

fn ask_tcp(host: &Host, names: &[&str]) -> Vec<Message> {
    let mut stream = host.run(|| TcpStream::connect(SERVER).unwrap());
    stream.set_read_timeout(Some(Duration::from_secs(6))).unwrap();
    for name in names {
        let packet = question(name, RecordType::A);
        stream.write_all(&u16::try_from(packet.len()).unwrap().to_be_bytes()).unwrap();
        stream.write_all(&packet).unwrap();
    }
    names.iter().map(|_| read_tcp(&mut stream)).collect()
}

fn read_tcp(stream: &mut TcpStream) -> Message {
    let mut len = [0; 2];
    stream.read_exact(&mut len).unwrap();
    let mut packet = vec![0; usize::from(u16::from_be_bytes(len))];
    stream.read_exact(&mut packet).unwrap();
    Message::from_vec(&packet).unwrap()
}

/// The addresses in an answer.
fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().filter_map(|record| record.data.ip_addr()).map(|ip| ip.to_string()).collect()
}

/// Another name server: answers each question with one address, or truncated, or not at all. Counts questions.
fn upstream(host: &Host, address: &'static str, behaviour: Behaviour) -> Arc<AtomicUsize> {
    let (udp, tcp) = host.run(|| (UdpSocket::bind(address).unwrap(), TcpListener::bind(address).unwrap()));
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((len, peer)) = udp.recv_from(&mut buffer) {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut answer = answer(&buffer[..len], address);
            match behaviour {
                Behaviour::Answers => {}
                Behaviour::Fails => answer.metadata.response_code = ResponseCode::ServFail,
                Behaviour::Truncates => {
                    answer.answers.clear();
                    answer.metadata.truncation = true;
                }
                Behaviour::Hangs => continue,
            }
            udp.send_to(&answer.to_vec().unwrap(), peer).unwrap();
        }
    });
    std::thread::spawn(move || {
        for stream in tcp.incoming() {
            let mut stream = stream.unwrap();
            let question = read_tcp(&mut stream).to_vec().unwrap();
            let packet = answer(&question, address).to_vec().unwrap();
            stream.write_all(&u16::try_from(packet.len()).unwrap().to_be_bytes()).unwrap();
            stream.write_all(&packet).unwrap();
        }
    });
    asked
}

#[derive(Clone, Copy)]
enum Behaviour {
    Answers,
    Fails,
    Truncates,
    Hangs,
}

/// The upstream's own address, as everybody's.
fn answer(question: &[u8], address: &str) -> Message {
    let mut message = Message::from_vec(question).unwrap().into_response();
    let ip = address.split(':').next().unwrap().parse().unwrap();
    message.add_answer(Record::from_rdata(message.queries[0].name().clone(), 60, RData::A(A(ip))));
    message
}

#[test]
fn the_clusters_names_follow_its_services() {
    let api = ApiServer::default();
    let web = |ip: &str| json!({"metadata": {"namespace": "default", "name": "web"}, "spec": {"clusterIP": ip}});
    api.put("services", web("10.43.0.7"));
    serving(&api, &[], |host| {
        let answer = ask(host, "WEB.default.svc.Cluster.local.", RecordType::A).unwrap();
        assert_eq!(addresses(&answer), ["10.43.0.7"]);
        assert!(answer.metadata.authoritative && answer.queries[0].name().to_ascii().starts_with("WEB."));
        assert!(answer.answers[0].name.to_ascii().starts_with("WEB.default.svc.Cluster"));
        let answers = ask_tcp(host, &["web.default.svc.cluster.local.", "none.default.svc.cluster.local."]);
        assert_eq!(addresses(&answers[0]), ["10.43.0.7"]);
        assert_eq!(answers[1].metadata.response_code, ResponseCode::NXDomain);
        api.put("services", web("10.43.0.8"));
        let now = || addresses(&ask(host, "web.default.svc.cluster.local.", RecordType::A).unwrap());
        eventually("the new address is known", || now() == ["10.43.0.8"]);
        api.delete("services", "default", "web");
        eventually("the name is gone", || now().is_empty());
        // Nobody to ask, and ourselves we do not ask.
        let begin = Instant::now();
        let answer = ask(host, "www.example.com.", RecordType::A).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
        assert!(begin.elapsed() < SOON);
    });
}

#[test]
fn other_names_are_asked_elsewhere_and_remembered() {
    let api = ApiServer::default();
    api.put(
        "services",
        json!({"metadata": {"namespace": "default", "name": "away"},
               "spec": {"type": "ExternalName", "externalName": "www.example.com"}}),
    );
    let host = Host::new();
    host.sh("ip link set lo up");
    let asked = upstream(&host, "127.0.0.2:53", Behaviour::Answers);
    serving_on(&host, &api, &["127.0.0.10", "127.0.0.2"], |host| {
        for name in ["www.example.com.", "WWW.example.com."] {
            let answer = ask(host, name, RecordType::A).unwrap();
            assert_eq!(addresses(&answer), ["127.0.0.2"]);
            assert!(answer.answers[0].ttl > 25 && answer.metadata.recursion_available);
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        let answer = ask(host, "away.default.svc.cluster.local.", RecordType::A).unwrap();
        assert_eq!(answer.answers[0].data.to_string(), "www.example.com.");
        assert_eq!(addresses(&answer), ["127.0.0.2"]);
        assert_eq!(addresses(&ask_tcp(host, &["other.example.com."])[0]), ["127.0.0.2"]);
    });
}

#[test]
fn a_server_that_fails_hangs_or_cuts_short_is_worked_around() {
    let host = Host::new();
    host.sh("ip link set lo up");
    let hanging = upstream(&host, "127.0.0.2:53", Behaviour::Hangs);
    upstream(&host, "127.0.0.3:53", Behaviour::Fails);
    upstream(&host, "127.0.0.4:53", Behaviour::Truncates);
    serving_on(&host, &ApiServer::default(), &["127.0.0.2", "127.0.0.3", "127.0.0.4"], |host| {
        let begin = Instant::now();
        assert_eq!(addresses(&ask(host, "a.example.com.", RecordType::A).unwrap()), ["127.0.0.4"]);
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
        assert_eq!(hanging.load(Ordering::SeqCst), 1);
        // The others are asked first from now on.
        assert_eq!(addresses(&ask(host, "b.example.com.", RecordType::A).unwrap()), ["127.0.0.4"]);
        assert_eq!(hanging.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn a_hanging_upstream_and_a_greedy_client_delay_nobody() {
    let api = ApiServer::default();
    api.put(
        "services",
        json!({"metadata": {"namespace": "default", "name": "web"}, "spec": {"clusterIP": "10.43.0.7"}}),
    );
    let host = Host::new();
    host.sh("ip link set lo up");
    upstream(&host, "127.0.0.2:53", Behaviour::Hangs);
    serving_on(&host, &api, &["127.0.0.2"], |host| {
        let greedy = host.run(|| UdpSocket::bind("127.0.0.66:0").unwrap());
        greedy.connect(SERVER).unwrap();
        for n in 0..300 {
            greedy.send(&question(&format!("{n}.example.com."), RecordType::A)).unwrap();
            greedy.send(b"garbage that is long enough to have a header").unwrap();
        }
        for _ in 0..20 {
            let begin = Instant::now();
            assert_eq!(addresses(&ask(host, "web.default.svc.cluster.local.", RecordType::A).unwrap()), ["10.43.0.7"]);
            assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
        }
        // On one connection as well, the question behind a slow one is answered first.
        let answers = ask_tcp(host, &["slow.example.com.", "web.default.svc.cluster.local."]);
        assert_eq!(addresses(&answers[0]), ["10.43.0.7"]);
        assert_eq!(answers[1].metadata.response_code, ResponseCode::ServFail);
    });
}
