//! What the zone answers to a question. Pure.

use std::net::{IpAddr, Ipv6Addr};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::zone::{Host, Owner, Port, Records, Zone};

/// How long a client may believe us, in seconds (CoreDNS' default).
pub(crate) const TTL_SECONDS: u32 = 5;
/// The version of the specification that is followed.
const DNS_VERSION: &str = "1.1.0";
/// What fits into a UDP packet nearly everywhere without fragments.
pub(crate) const UDP_BYTES_MAX: u16 = 1232;
const UDP_BYTES_MIN: u16 = 512;

/// A question, as far as it matters to its answer.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub id: u16,
    pub query: Query,
    pub recursion_desired: bool,
    pub checking_disabled: bool,
    /// How large a UDP answer may be and whether DNSSEC records are wanted, from a client that speaks EDNS.
    pub edns: Option<(u16, bool)>,
}

/// What became of a packet.
#[derive(Debug)]
pub(crate) enum Parsed {
    Request(Box<Request>),
    /// To be sent back as it is.
    Refused(Box<Message>),
    /// Not worth an answer.
    Ignored,
}

/// What the zone says to a question.
#[derive(Debug, PartialEq)]
pub(crate) enum Resolution {
    /// It is not ours to answer.
    Elsewhere,
    NoSuchName,
    /// The name is there, nothing of this type is.
    NoData,
    Records {
        answers: Vec<Record>,
        additionals: Vec<Record>,
    },
    /// Another name's records are wanted behind this one.
    Alias {
        record: Box<Record>,
        target: Name,
    },
}

/// The part of the answer that does not change: what the cluster is called and where its name server is.
#[derive(Debug, Clone)]
pub(crate) struct Domain {
    pub name: Name,
    /// In lower case.
    labels: Vec<String>,
    pub servers: Vec<IpAddr>,
}

impl Domain {
    pub fn new(name: &str, servers: Vec<IpAddr>) -> Option<Self> {
        let mut name = Name::from_ascii(name).ok()?.to_lowercase();
        name.set_fqdn(true);
        let labels = labels(&name)?;
        Some(Self { name, labels, servers })
    }

    fn below(&self, labels: &[&str]) -> Option<Name> {
        Name::from_labels(labels.iter().map(|label| label.as_bytes())).ok()?.append_domain(&self.name).ok()
    }

    fn service_name(&self, namespace: &str, service: &str, host: Option<&str>) -> Option<Name> {
        match host {
            Some(host) => self.below(&[host, service, namespace, "svc"]),
            None => self.below(&[service, namespace, "svc"]),
        }
    }
}

/// Reads a packet. Nothing in it makes this panic.
pub(crate) fn parse(packet: &[u8]) -> Parsed {
    let message = match Message::from_vec(packet) {
        Ok(message) => message,
        Err(_) => return malformed(packet),
    };
    if message.metadata.message_type != MessageType::Query {
        return Parsed::Ignored;
    }
    let refuse = |code| {
        let mut response = Message::error_msg(message.metadata.id, message.metadata.op_code, code);
        response.queries = message.queries.clone();
        response.metadata.recursion_desired = message.metadata.recursion_desired;
        Parsed::Refused(Box::new(response))
    };
    if message.metadata.op_code != OpCode::Query {
        return refuse(ResponseCode::NotImp);
    }
    let [query] = message.queries.as_slice() else { return refuse(ResponseCode::FormErr) };
    if message.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
        return refuse(ResponseCode::BADVERS);
    }
    if query.query_class() != DNSClass::IN || matches!(query.query_type(), RecordType::AXFR | RecordType::IXFR) {
        return refuse(ResponseCode::Refused);
    }
    let edns = message.edns.as_ref().map(|edns| (edns.max_payload(), edns.flags().dnssec_ok));
    Parsed::Request(Box::new(Request {
        id: message.metadata.id,
        query: query.clone(),
        recursion_desired: message.metadata.recursion_desired,
        checking_disabled: message.metadata.checking_disabled,
        edns,
    }))
}

/// A query that cannot be read is answered, if its header can be.
fn malformed(packet: &[u8]) -> Parsed {
    match packet {
        [high, low, flags, _, ..] if packet.len() >= 12 && flags & 0x80 == 0 => {
            let id = u16::from_be_bytes([*high, *low]);
            Parsed::Refused(Box::new(Message::error_msg(id, OpCode::Query, ResponseCode::FormErr)))
        }
        _ => Parsed::Ignored,
    }
}

impl Request {
    /// A response that says nothing yet.
    pub fn response(&self, code: ResponseCode) -> Message {
        let mut response = Message::response(self.id, OpCode::Query);
        response.metadata.response_code = code;
        response.metadata.recursion_desired = self.recursion_desired;
        response.metadata.recursion_available = true;
        response.metadata.checking_disabled = self.checking_disabled;
        response.queries = vec![self.query.clone()];
        if let Some((_, dnssec_ok)) = self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_BYTES_MAX);
            edns.set_dnssec_ok(dnssec_ok);
            response.edns = Some(edns);
        }
        response
    }

    /// The most that this client takes in one UDP packet.
    pub fn udp_bytes_max(&self) -> usize {
        usize::from(self.edns.map_or(UDP_BYTES_MIN, |(bytes, _)| bytes.clamp(UDP_BYTES_MIN, UDP_BYTES_MAX)))
    }
}

/// The response to what is known without asking anybody: everything but [`Resolution::Elsewhere`], and an alias without
/// the records behind it.
pub(crate) fn respond(request: &Request, resolution: Resolution, domain: &Domain, zone: &Zone) -> Message {
    let mut response = request.response(ResponseCode::NoError);
    response.metadata.authoritative = true;
    match resolution {
        Resolution::Elsewhere => response.metadata.response_code = ResponseCode::ServFail,
        Resolution::NoSuchName => {
            response.metadata.response_code = ResponseCode::NXDomain;
            response.authorities.extend(soa(domain, zone));
        }
        Resolution::NoData => response.authorities.extend(soa(domain, zone)),
        Resolution::Records { answers, additionals } => {
            response.answers = answers;
            response.additionals = additionals;
        }
        Resolution::Alias { record, .. } => response.answers.push(*record),
    }
    response
}

/// Bytes for a UDP packet of this size; cut short with the flag that makes the client ask again over TCP.
pub(crate) fn encode(message: &Message, bytes_max: usize) -> Option<Vec<u8>> {
    let bytes = message.to_vec().ok()?;
    if bytes.len() <= bytes_max { Some(bytes) } else { message.truncate().to_vec().ok() }
}

/// Answers from the zone. `turn` says with which of several addresses an answer begins, so that clients spread.
pub(crate) fn resolve(query: &Query, domain: &Domain, zone: &Zone, turn: usize) -> Resolution {
    if let Ok(net) = query.name().parse_arpa_name() {
        return reverse(query, net.addr(), net.prefix_len() == net.max_prefix_len(), domain, zone);
    }
    let Some(labels) = labels(query.name()) else { return Resolution::Elsewhere };
    let Some(rest) = labels.strip_suffix(domain.labels.as_slice()) else { return Resolution::Elsewhere };
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let reply = Reply { query, domain, turn };
    match rest.as_slice() {
        [] => apex(&reply, zone),
        ["dns-version"] => reply.one(RecordType::TXT, RData::TXT(TXT::new(vec![DNS_VERSION.to_owned()]))),
        ["dns" | "svc" | "pod"] | [_, "pod"] => Resolution::NoData,
        ["ns", "dns"] => reply.addresses(&domain.servers),
        [address, _, "pod"] => match undashed(address) {
            Some(ip) => reply.addresses(&[ip]),
            None => Resolution::NoSuchName,
        },
        [namespace, "svc"] => if_there(zone.has_namespace(namespace)),
        [service, namespace, "svc"] => match zone.get(namespace, service) {
            Some(records) => reply.service(records, namespace, service),
            None => Resolution::NoSuchName,
        },
        [protocol, service, namespace, "svc"] if protocol.starts_with('_') => {
            let records = zone.get(namespace, service);
            if_there(records.is_some_and(|records| !reply.srv_targets(records, None, Some(protocol)).is_empty()))
        }
        [host, service, namespace, "svc"] => {
            match zone.get(namespace, service).and_then(|records| records.hosts.get(*host)) {
                Some(found) => reply.host(found),
                None => Resolution::NoSuchName,
            }
        }
        [port, protocol, service, namespace, "svc"] => match zone.get(namespace, service) {
            Some(records) => {
                let targets = reply.srv_targets(records, Some(port), Some(protocol));
                if targets.is_empty() {
                    Resolution::NoSuchName
                } else {
                    reply.srv(targets, records, namespace, service)
                }
            }
            None => Resolution::NoSuchName,
        },
        _ => Resolution::NoSuchName,
    }
}

struct Reply<'a> {
    query: &'a Query,
    domain: &'a Domain,
    turn: usize,
}

impl Reply<'_> {
    fn service(&self, records: &Records, namespace: &str, service: &str) -> Resolution {
        if let Some(alias) = &records.alias {
            let record = Box::new(self.record(RData::CNAME(CNAME(alias.clone()))));
            return Resolution::Alias { record, target: alias.clone() };
        }
        if self.query.query_type() == RecordType::SRV {
            let targets = self.srv_targets(records, None, None);
            return self.srv(targets, records, namespace, service);
        }
        self.addresses(&records.addresses)
    }

    fn host(&self, host: &Host) -> Resolution {
        self.addresses(&host.addresses)
    }

    fn addresses(&self, addresses: &[IpAddr]) -> Resolution {
        let wanted = self.query.query_type();
        let of_type: Vec<RData> =
            addresses.iter().map(|ip| address_data(*ip)).filter(|data| data.record_type() == wanted).collect();
        let mut answers: Vec<Record> = of_type.into_iter().map(|data| self.record(data)).collect();
        if answers.is_empty() {
            return Resolution::NoData;
        }
        let first = self.turn % answers.len();
        answers.rotate_left(first);
        Resolution::Records { answers, additionals: Vec::new() }
    }

    /// Ports that are asked for, with their hosts; `None` for the Service itself. `port` and `protocol` begin with `_`.
    fn srv_targets<'r>(
        &self,
        records: &'r Records,
        port: Option<&str>,
        protocol: Option<&str>,
    ) -> Vec<(Option<&'r str>, &'r Port)> {
        let fits = |wanted: Option<&str>, is: &str| wanted.is_none_or(|wanted| wanted.strip_prefix('_') == Some(is));
        let wanted =
            |found: &&Port| !found.name.is_empty() && fits(port, &found.name) && fits(protocol, &found.protocol);
        if records.headless {
            let hosts = records.hosts.iter();
            hosts
                .flat_map(|(name, host)| host.ports.iter().filter(wanted).map(|port| (Some(name.as_str()), port)))
                .collect()
        } else {
            records.ports.iter().filter(wanted).map(|port| (None, port)).collect()
        }
    }

    fn srv(
        &self,
        targets: Vec<(Option<&str>, &Port)>,
        records: &Records,
        namespace: &str,
        service: &str,
    ) -> Resolution {
        if targets.is_empty() || self.query.query_type() != RecordType::SRV {
            return Resolution::NoData;
        }
        let weight = u16::try_from(100 / targets.len()).unwrap_or(1).max(1);
        let (mut answers, mut additionals) = (Vec::new(), Vec::new());
        for (host, port) in targets {
            let Some(target) = self.domain.service_name(namespace, service, host) else { continue };
            let addresses = match host {
                Some(host) => records.hosts.get(host).map(|host| host.addresses.as_slice()).unwrap_or_default(),
                None => &records.addresses,
            };
            for ip in addresses {
                let record = Record::from_rdata(target.clone(), TTL_SECONDS, address_data(*ip));
                if !additionals.contains(&record) {
                    additionals.push(record);
                }
            }
            answers.push(self.record(RData::SRV(SRV::new(0, weight, port.number, target))));
        }
        Resolution::Records { answers, additionals }
    }

    fn one(&self, of_type: RecordType, data: RData) -> Resolution {
        if self.query.query_type() != of_type {
            return Resolution::NoData;
        }
        Resolution::Records { answers: vec![self.record(data)], additionals: Vec::new() }
    }

    /// The name is as it was asked for, upper case included.
    fn record(&self, data: RData) -> Record {
        Record::from_rdata(self.query.name().clone(), TTL_SECONDS, data)
    }
}

fn apex(reply: &Reply<'_>, zone: &Zone) -> Resolution {
    match reply.query.query_type() {
        RecordType::SOA => match soa(reply.domain, zone) {
            Some(record) => reply.one(RecordType::SOA, record.data),
            None => Resolution::NoData,
        },
        RecordType::NS => match reply.domain.below(&["ns", "dns"]) {
            Some(name) => reply.one(RecordType::NS, RData::NS(NS(name))),
            None => Resolution::NoData,
        },
        _ => Resolution::NoData,
    }
}

fn reverse(query: &Query, ip: IpAddr, whole: bool, domain: &Domain, zone: &Zone) -> Resolution {
    let Some(owners) = zone.owners(ip).filter(|_| whole) else { return Resolution::Elsewhere };
    if query.query_type() != RecordType::PTR {
        return Resolution::NoData;
    }
    let name = |owner: &Owner| domain.service_name(&owner.namespace, &owner.service, owner.host.as_deref());
    let names = owners.iter().filter_map(name);
    let answers: Vec<Record> =
        names.map(|name| Record::from_rdata(query.name().clone(), TTL_SECONDS, RData::PTR(PTR(name)))).collect();
    Resolution::Records { answers, additionals: Vec::new() }
}

fn soa(domain: &Domain, zone: &Zone) -> Option<Record> {
    let (server, mailbox) = (domain.below(&["ns", "dns"])?, domain.below(&["hostmaster"])?);
    let soa = SOA::new(server, mailbox, zone.serial(), 7200, 1800, 86_400, TTL_SECONDS);
    Some(Record::from_rdata(domain.name.clone(), TTL_SECONDS, RData::SOA(soa)))
}

fn address_data(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

fn if_there(there: bool) -> Resolution {
    if there { Resolution::NoData } else { Resolution::NoSuchName }
}

/// The address in a pod's name.
fn undashed(label: &str) -> Option<IpAddr> {
    let v4 = || label.replace('-', ".").parse().ok().map(IpAddr::V4);
    let v6 = || label.replace('-', ":").parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    v4().or_else(v6)
}

/// A name's labels in lower case. `None` if one of them is no text: no name of ours.
fn labels(name: &Name) -> Option<Vec<String>> {
    name.iter().map(|label| std::str::from_utf8(label).ok().map(str::to_ascii_lowercase)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use client::Key;
    use k8s_openapi::api::core::v1::Service;
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn domain() -> Domain {
        Domain::new("cluster.local", vec!["10.43.0.10".parse().unwrap()]).unwrap()
    }

    fn put_service(zone: &mut Zone, namespace: &str, name: &str, spec: Value) {
        let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
        let service: Service = serde_json::from_value(object).unwrap();
        zone.service_changed(&Key::new(namespace, name), Some(Arc::new(service)));
    }

    fn slice(namespace: &str, service: &str, kind: &str, ports: Value, endpoints: Value) -> EndpointSlice {
        let labels = json!({"kubernetes.io/service-name": service});
        let meta = json!({"namespace": namespace, "name": format!("{service}-{kind}"), "labels": labels});
        serde_json::from_value(json!({"metadata": meta, "addressType": kind, "ports": ports, "endpoints": endpoints}))
            .unwrap()
    }

    fn put_slice(zone: &mut Zone, slice: EndpointSlice) {
        let key = Key::of(&slice);
        zone.slice_changed(&key, None, Some(Arc::new(slice)));
    }

    fn zone() -> Zone {
        let mut zone = Zone::new(1);
        let ports = json!([{"name": "http", "port": 80, "protocol": "TCP"}, {"name": "", "port": 9}]);
        put_service(
            &mut zone,
            "default",
            "web",
            json!({"clusterIP": "10.43.0.7", "clusterIPs": ["10.43.0.7", "fd43::7"], "ports": ports}),
        );
        let endpoints =
            json!([{"addresses": ["10.42.0.2"]}, {"addresses": ["10.42.0.9"], "conditions": {"ready": false}}]);
        put_slice(&mut zone, slice("default", "web", "IPv4", json!([{"name": "http", "port": 8080}]), endpoints));
        put_service(&mut zone, "default", "db", json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]}));
        let endpoints = json!([
            {"addresses": ["10.42.0.3"], "hostname": "db-0"},
            {"addresses": ["10.42.1.3"], "hostname": "db-1"},
            {"addresses": ["10.42.1.4"]},
            {"addresses": ["10.42.1.5"], "hostname": "db-2", "conditions": {"ready": false}}
        ]);
        put_slice(&mut zone, slice("default", "db", "IPv4", json!([{"name": "sql", "port": 15432}]), endpoints));
        let six = json!([{"addresses": ["fd42::3"], "hostname": "db-0"}]);
        put_slice(&mut zone, slice("default", "db", "IPv6", json!([{"name": "sql", "port": 15432}]), six));
        put_service(&mut zone, "default", "peers", json!({"clusterIP": "None", "publishNotReadyAddresses": true}));
        let endpoints = json!([{"addresses": ["10.42.2.2"], "conditions": {"ready": false}}]);
        put_slice(&mut zone, slice("default", "peers", "IPv4", json!([]), endpoints));
        put_service(&mut zone, "other", "away", json!({"type": "ExternalName", "externalName": "www.example.com"}));
        zone
    }

    fn ask(zone: &Zone, name: &str, record_type: RecordType) -> String {
        let query = Query::query(Name::from_ascii(name).unwrap(), record_type);
        let edns = Some((4096, false));
        let request = Request { id: 1, query: query.clone(), recursion_desired: true, checking_disabled: false, edns };
        let resolution = resolve(&query, &domain(), zone, 0);
        let mut out = format!("{name} {record_type}\n");
        if resolution == Resolution::Elsewhere {
            return out + "  elsewhere\n";
        }
        let response = respond(&request, resolution, &domain(), zone);
        // What is said fits on the wire, and reads back the same.
        let read = Message::from_vec(&response.to_vec().unwrap()).unwrap();
        assert_eq!(read.answers, response.answers);
        out += &format!("  {:?}\n", response.metadata.response_code);
        let sections =
            [("", &response.answers), ("authority: ", &response.authorities), ("additional: ", &response.additionals)];
        for (section, records) in sections {
            for record in records {
                // The serial counts changes.
                let text = record.to_string().replace(&format!(" {} ", zone.serial()), " SERIAL ");
                out += &format!("  {section}{text}\n");
            }
        }
        out
    }

    /// Compares with a file beside this one. `GOLDEN=write` writes it anew.
    #[test]
    fn answers_are_those_of_the_specification() {
        use RecordType as T;
        let zone = zone();
        let text: String = [
            ("web.default.svc.cluster.local.", T::A),
            ("WeB.deFault.svc.CLUSTER.local.", T::A),
            ("web.default.svc.cluster.local.", T::AAAA),
            ("web.default.svc.cluster.local.", T::MX),
            ("web.default.svc.cluster.local.", T::SRV),
            ("_http._tcp.web.default.svc.cluster.local.", T::SRV),
            ("_http._udp.web.default.svc.cluster.local.", T::SRV),
            ("_http._tcp.web.default.svc.cluster.local.", T::A),
            ("_tcp.web.default.svc.cluster.local.", T::A),
            ("_udp.web.default.svc.cluster.local.", T::A),
            ("10-42-0-2.web.default.svc.cluster.local.", T::A),
            ("db.default.svc.cluster.local.", T::A),
            ("db.default.svc.cluster.local.", T::AAAA),
            ("db-0.db.default.svc.cluster.local.", T::A),
            ("db-0.db.default.svc.cluster.local.", T::AAAA),
            ("db-1.db.default.svc.cluster.local.", T::AAAA),
            ("db-2.db.default.svc.cluster.local.", T::A),
            ("_sql._tcp.db.default.svc.cluster.local.", T::SRV),
            ("peers.default.svc.cluster.local.", T::A),
            ("away.other.svc.cluster.local.", T::A),
            ("away.other.svc.cluster.local.", T::CNAME),
            ("nobody.default.svc.cluster.local.", T::A),
            ("web.nowhere.svc.cluster.local.", T::A),
            ("default.svc.cluster.local.", T::A),
            ("nowhere.svc.cluster.local.", T::A),
            ("svc.cluster.local.", T::A),
            ("cluster.local.", T::SOA),
            ("cluster.local.", T::NS),
            ("cluster.local.", T::A),
            ("ns.dns.cluster.local.", T::A),
            ("dns-version.cluster.local.", T::TXT),
            ("10-42-0-7.default.pod.cluster.local.", T::A),
            ("fd42--7.default.pod.cluster.local.", T::AAAA),
            ("10-42-0-777.default.pod.cluster.local.", T::A),
            ("www.example.com.default.svc.cluster.local.", T::A),
            ("www.example.com.", T::A),
            ("local.", T::A),
            (".", T::NS),
            ("7.0.43.10.in-addr.arpa.", T::PTR),
            ("3.0.42.10.in-addr.arpa.", T::PTR),
            ("4.1.42.10.in-addr.arpa.", T::PTR),
            ("2.0.42.10.in-addr.arpa.", T::PTR),
            ("0.42.10.in-addr.arpa.", T::PTR),
            ("7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.4.d.f.ip6.arpa.", T::PTR),
        ]
        .map(|(name, record_type)| ask(&zone, name, record_type))
        .concat();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/golden/answers.txt");
        if std::env::var_os("GOLDEN").is_some() {
            std::fs::write(path, &text).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), text);
    }

    #[test]
    fn what_changes_is_seen_and_what_goes_is_gone() {
        let mut zone = zone();
        let key = Key::new("default", "web");
        put_service(&mut zone, "default", "web", json!({"clusterIP": "10.43.0.8"}));
        assert!(ask(&zone, "web.default.svc.cluster.local.", RecordType::A).contains("10.43.0.8"));
        assert!(ask(&zone, "7.0.43.10.in-addr.arpa.", RecordType::PTR).contains("elsewhere"));
        assert!(ask(&zone, "8.0.43.10.in-addr.arpa.", RecordType::PTR).contains("web.default.svc"));
        zone.service_changed(&key, None);
        assert!(ask(&zone, "web.default.svc.cluster.local.", RecordType::A).contains("NXDomain"));
        assert!(ask(&zone, "8.0.43.10.in-addr.arpa.", RecordType::PTR).contains("elsewhere"));
        // A slice may come before its Service, and go to another one.
        let endpoints = json!([{"addresses": ["10.42.3.3"]}]);
        let early = slice("late", "svc", "IPv4", json!([]), endpoints.clone());
        put_slice(&mut zone, early.clone());
        assert!(ask(&zone, "late.svc.cluster.local.", RecordType::A).contains("NXDomain"));
        put_service(&mut zone, "late", "svc", json!({"clusterIP": "None"}));
        assert!(ask(&zone, "svc.late.svc.cluster.local.", RecordType::A).contains("10.42.3.3"));
        let mut moved = early.clone();
        moved.metadata.labels = slice("late", "elsewhere", "IPv4", json!([]), endpoints).metadata.labels;
        zone.slice_changed(&Key::of(&early), Some(&early), Some(Arc::new(moved)));
        assert!(ask(&zone, "svc.late.svc.cluster.local.", RecordType::A).contains("SOA"));
    }

    #[test]
    fn answers_begin_with_each_address_in_turn() {
        let zone = zone();
        let query = Query::query(Name::from_ascii("db.default.svc.cluster.local.").unwrap(), RecordType::A);
        let firsts: std::collections::BTreeSet<String> = (0..3)
            .map(|turn| match resolve(&query, &domain(), &zone, turn) {
                Resolution::Records { answers, .. } => answers[0].data.to_string(),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(firsts.len(), 3);
    }

    #[test]
    fn long_answers_are_cut_short_and_say_so() {
        let mut zone = Zone::new(1);
        put_service(&mut zone, "default", "many", json!({"clusterIP": "None"}));
        let endpoints: Vec<Value> = (0..200).map(|n| json!({"addresses": [format!("10.42.7.{n}")]})).collect();
        put_slice(&mut zone, slice("default", "many", "IPv4", json!([]), json!(endpoints)));
        let query = Query::query(Name::from_ascii("many.default.svc.cluster.local.").unwrap(), RecordType::A);
        for (edns, max) in [(None, 512), (Some((100, false)), 512), (Some((65_000, false)), 1232)] {
            let request =
                Request { id: 9, query: query.clone(), recursion_desired: true, checking_disabled: false, edns };
            let message = respond(&request, resolve(&query, &domain(), &zone, 0), &domain(), &zone);
            let bytes = encode(&message, request.udp_bytes_max()).unwrap();
            assert!(bytes.len() <= max);
            assert!(Message::from_vec(&bytes).unwrap().metadata.truncation);
            let whole = encode(&message, usize::from(u16::MAX)).unwrap();
            assert_eq!(Message::from_vec(&whole).unwrap().answers.len(), 200);
        }
    }

    fn packet(change: impl FnOnce(&mut Message)) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.add_query(Query::query(Name::from_ascii("a.b.").unwrap(), RecordType::A));
        change(&mut message);
        message.to_vec().unwrap()
    }

    #[test]
    fn what_is_no_plain_question_is_refused_or_ignored() {
        let code = |packet: &[u8]| match parse(packet) {
            Parsed::Refused(message) => format!("{:?}", message.metadata.response_code),
            Parsed::Request(_) => "request".to_owned(),
            Parsed::Ignored => "ignored".to_owned(),
        };
        assert_eq!(code(&packet(|_| {})), "request");
        assert_eq!(code(&packet(|message| message.metadata.message_type = MessageType::Response)), "ignored");
        assert_eq!(code(&packet(|message| message.metadata.op_code = OpCode::Update)), "NotImp");
        assert_eq!(code(&packet(|message| message.queries.clear())), "FormErr");
        let chaos = |message: &mut Message| message.queries[0].query_class = DNSClass::CH;
        assert_eq!(code(&packet(chaos)), "Refused");
        let transfer = |message: &mut Message| message.queries[0].query_type = RecordType::AXFR;
        assert_eq!(code(&packet(transfer)), "Refused");
        assert_eq!(code(&packet(|_| {})[..14]), "FormErr");
        assert_eq!(code(b"short"), "ignored");
        assert_eq!(code(&[]), "ignored");
    }

    proptest! {
        #[test]
        fn garbage_is_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            survive(&bytes);
        }

        #[test]
        fn damaged_questions_are_survived(at in 0_usize..60, byte: u8, cut in 0_usize..60) {
            let mut bytes = packet(|message| {
                message.queries[0].set_name(Name::from_ascii("_sql._tcp.db.default.svc.cluster.local.").unwrap());
                message.set_edns(Edns::new());
            });
            if let Some(target) = bytes.get_mut(at) {
                *target = byte;
            }
            bytes.truncate(bytes.len().saturating_sub(cut));
            survive(&bytes);
        }
    }

    fn survive(bytes: &[u8]) {
        if let Parsed::Request(request) = parse(bytes) {
            let zone = zone();
            let message = respond(&request, resolve(&request.query, &domain(), &zone, 1), &domain(), &zone);
            if let Some(encoded) = encode(&message, request.udp_bytes_max()) {
                assert!(encoded.len() <= request.udp_bytes_max());
            }
        }
    }
}
