//! Statements as the kernel's expressions.
//!
//! Expressions hand values on in 32-bit registers, counted from [`REG_FIRST`]; a concatenation lies in consecutive ones.
//! Addresses and ports are in network byte order, marks and numbers in the host's.

use std::net::{IpAddr, SocketAddr};

use super::encode::{
    ANONYMOUS_MAP, CHOICES_MAX, Encoder, NFTA_DATA_VALUE, NFTA_EXPR_DATA, NFTA_EXPR_NAME, NFTA_LIST_ELEM,
};
use super::model::{Field, KeyPart, Statement};
use crate::netlink::wire::Writer;

const REG_VERDICT: u32 = 0;
const REG_FIRST: u32 = 8;

// Values of expressions' attributes. The attributes' own numbers stand in the code beside their meaning.
const CMP_EQ: u32 = 0;
const CMP_NEQ: u32 = 1;
const PAYLOAD_NETWORK: u32 = 1;
const PAYLOAD_TRANSPORT: u32 = 2;
const META_MARK: u32 = 3;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const CT_STATE_NEW: u32 = 1 << 3;
const IPS_DST_NAT: u32 = 1 << 5;
const LOOKUP_INVERTED: u32 = 1;
const NUMGEN_RANDOM: u32 = 1;
const NAT_DNAT: u32 = 1;
const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 1 << 4;
const DYNSET_UPDATE: u32 = 1;
const REJECT_ICMP_UNREACH: u32 = 0;
const ICMP_PORT_UNREACH: u8 = 3;
const ICMPV6_PORT_UNREACH: u8 = 4;

mod libc_fib {
    pub const RESULT_ADDRTYPE: u32 = 3;
    pub const SADDR: u32 = 1;
    pub const DADDR: u32 = 2;
}

impl Encoder<'_> {
    pub(super) fn statement(&mut self, statement: &Statement, map: Option<u32>) {
        let here = REG_FIRST;
        match statement {
            Statement::Is(field, value) => {
                self.load(*field, here);
                let bytes = match value {
                    KeyPart::Ip(IpAddr::V4(ip)) => ip.octets().to_vec(),
                    KeyPart::Ip(IpAddr::V6(ip)) => ip.octets().to_vec(),
                    KeyPart::Protocol(protocol) => vec![protocol.number()],
                    KeyPart::Port(port) => port.to_be_bytes().to_vec(),
                };
                self.compare(here, CMP_EQ, &bytes);
            }
            Statement::InNet { field, net, not } => {
                self.load(*field, here);
                let (mask, network) = match net {
                    ipnet::IpNet::V4(net) => (net.netmask().octets().to_vec(), net.network().octets().to_vec()),
                    ipnet::IpNet::V6(net) => (net.netmask().octets().to_vec(), net.network().octets().to_vec()),
                };
                self.bitwise(here, &mask, &vec![0; mask.len()]);
                self.compare(here, if *not { CMP_NEQ } else { CMP_EQ }, &network);
            }
            Statement::InSet { fields, set, not } => {
                self.load_all(fields);
                self.lookup(set, None, None, *not);
            }
            Statement::VerdictMap { fields, map } => {
                self.load_all(fields);
                self.lookup(map, None, Some(REG_VERDICT), false);
            }
            Statement::LocalDestination => self.is_local(libc_fib::DADDR),
            Statement::LocalSource => self.is_local(libc_fib::SADDR),
            Statement::NewConnection => {
                self.expression("ct", |w| {
                    w.attr_be32(1, here);
                    w.attr_be32(2, CT_STATE);
                });
                self.bitwise(here, &CT_STATE_NEW.to_ne_bytes(), &[0; 4]);
                self.compare(here, CMP_NEQ, &[0; 4]);
            }
            Statement::Translated => {
                self.expression("ct", |w| {
                    w.attr_be32(1, here);
                    w.attr_be32(2, CT_STATUS);
                });
                self.bitwise(here, &IPS_DST_NAT.to_ne_bytes(), &[0; 4]);
                self.compare(here, CMP_NEQ, &[0; 4]);
            }
            Statement::MarkHas(bits) => {
                self.meta(META_MARK, here);
                self.bitwise(here, &bits.to_ne_bytes(), &[0; 4]);
                self.compare(here, CMP_NEQ, &[0; 4]);
            }
            Statement::MarkSet(bits) => self.change_mark(!bits, *bits),
            Statement::MarkClear(bits) => self.change_mark(!bits, 0),
            Statement::Update { fields, set } => {
                self.load_all(fields);
                self.expression("dynset", |w| {
                    w.attr_str(1, set);
                    w.attr_be32(3, DYNSET_UPDATE);
                    w.attr_be32(4, here);
                });
            }
            Statement::Dnat(targets) => {
                match (targets.as_slice(), map) {
                    ([target], _) => {
                        let bytes = target_bytes(target);
                        let address_len = if self.ipv6 { 16 } else { 4 };
                        let (address, port) = bytes.split_at_checked(address_len).unwrap_or((&bytes, &[]));
                        self.immediate(here, address);
                        self.immediate(here + self.ip_registers(), port.get(..2).unwrap_or_default());
                    }
                    (_, Some(id)) => {
                        self.random(here, targets.len());
                        self.lookup(ANONYMOUS_MAP, Some(id), Some(here), false);
                    }
                    _ => return,
                }
                let (family, port) = (u32::from(self.family), here + self.ip_registers());
                self.expression("nat", |w| {
                    w.attr_be32(1, NAT_DNAT);
                    w.attr_be32(2, family);
                    w.attr_be32(3, here);
                    w.attr_be32(5, port);
                });
            }
            Statement::RandomGoto(chains) => {
                self.random(here, chains.len());
                self.lookup(ANONYMOUS_MAP, map, Some(REG_VERDICT), false);
            }
            Statement::Masquerade => self.expression("masq", |w| w.attr_be32(1, NF_NAT_RANGE_PROTO_RANDOM_FULLY)),
            Statement::Reject => {
                let code = if self.ipv6 { ICMPV6_PORT_UNREACH } else { ICMP_PORT_UNREACH };
                self.expression("reject", |w| {
                    w.attr_be32(1, REJECT_ICMP_UNREACH);
                    w.attr(2, &[code]);
                });
            }
            Statement::Verdict(verdict) => {
                let element = self.writer.begin(NFTA_LIST_ELEM);
                self.writer.attr_str(NFTA_EXPR_NAME, "immediate");
                let data = self.writer.begin(NFTA_EXPR_DATA);
                self.writer.attr_be32(1, REG_VERDICT);
                self.verdict(2, verdict);
                self.writer.end(data);
                self.writer.end(element);
            }
        }
    }

    fn ip_registers(&self) -> u32 {
        if self.ipv6 { 4 } else { 1 }
    }

    fn expression(&mut self, name: &str, body: impl FnOnce(&mut Writer)) {
        let element = self.writer.begin(NFTA_LIST_ELEM);
        self.writer.attr_str(NFTA_EXPR_NAME, name);
        let data = self.writer.begin(NFTA_EXPR_DATA);
        body(&mut self.writer);
        self.writer.end(data);
        self.writer.end(element);
    }

    fn load_all(&mut self, fields: &[Field]) {
        let mut register = REG_FIRST;
        for field in fields {
            self.load(*field, register);
            register += field.registers(self.ipv6);
        }
    }

    fn load(&mut self, field: Field, register: u32) {
        let (base, offset, len) = match (field, self.ipv6) {
            (Field::Protocol, _) => return self.meta(META_L4PROTO, register),
            (Field::SourceIp, false) => (PAYLOAD_NETWORK, 12, 4),
            (Field::DestinationIp, false) => (PAYLOAD_NETWORK, 16, 4),
            (Field::SourceIp, true) => (PAYLOAD_NETWORK, 8, 16),
            (Field::DestinationIp, true) => (PAYLOAD_NETWORK, 24, 16),
            (Field::DestinationPort, _) => (PAYLOAD_TRANSPORT, 2, 2),
        };
        self.expression("payload", |w| {
            w.attr_be32(1, register);
            w.attr_be32(2, base);
            w.attr_be32(3, offset);
            w.attr_be32(4, len);
        });
    }

    fn meta(&mut self, key: u32, register: u32) {
        self.expression("meta", |w| {
            w.attr_be32(1, register);
            w.attr_be32(2, key);
        });
    }

    fn change_mark(&mut self, mask: u32, xor: u32) {
        self.meta(META_MARK, REG_FIRST);
        self.bitwise(REG_FIRST, &mask.to_ne_bytes(), &xor.to_ne_bytes());
        self.expression("meta", |w| {
            w.attr_be32(3, REG_FIRST);
            w.attr_be32(2, META_MARK);
        });
    }

    fn compare(&mut self, register: u32, op: u32, value: &[u8]) {
        self.expression("cmp", |w| {
            w.attr_be32(1, register);
            w.attr_be32(2, op);
            let data = w.begin(3);
            w.attr(NFTA_DATA_VALUE, value);
            w.end(data);
        });
    }

    fn bitwise(&mut self, register: u32, mask: &[u8], xor: &[u8]) {
        let len = u32::try_from(mask.len()).unwrap_or(0);
        self.expression("bitwise", |w| {
            w.attr_be32(1, register);
            w.attr_be32(2, register);
            w.attr_be32(3, len);
            let data = w.begin(4);
            w.attr(NFTA_DATA_VALUE, mask);
            w.end(data);
            let data = w.begin(5);
            w.attr(NFTA_DATA_VALUE, xor);
            w.end(data);
        });
    }

    fn immediate(&mut self, register: u32, value: &[u8]) {
        self.expression("immediate", |w| {
            w.attr_be32(1, register);
            let data = w.begin(2);
            w.attr(NFTA_DATA_VALUE, value);
            w.end(data);
        });
    }

    fn lookup(&mut self, set: &str, id: Option<u32>, into: Option<u32>, not: bool) {
        self.expression("lookup", |w| {
            w.attr_str(1, set);
            w.attr_be32(2, REG_FIRST);
            if let Some(register) = into {
                w.attr_be32(3, register);
            }
            if let Some(id) = id {
                w.attr_be32(4, id);
            }
            if not {
                w.attr_be32(5, LOOKUP_INVERTED);
            }
        });
    }

    fn random(&mut self, register: u32, choices: usize) {
        let modulus = u32::try_from(choices.min(CHOICES_MAX)).unwrap_or(1);
        self.expression("numgen", |w| {
            w.attr_be32(1, register);
            w.attr_be32(2, modulus);
            w.attr_be32(3, NUMGEN_RANDOM);
        });
    }

    fn is_local(&mut self, which: u32) {
        self.expression("fib", |w| {
            w.attr_be32(1, REG_FIRST);
            w.attr_be32(2, libc_fib::RESULT_ADDRTYPE);
            w.attr_be32(3, which);
        });
        self.compare(REG_FIRST, CMP_EQ, &u32::from(libc::RTN_LOCAL).to_ne_bytes());
    }
}

/// Address and port as they lie in registers.
pub(super) fn target_bytes(target: &SocketAddr) -> Vec<u8> {
    let mut bytes = match target.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    bytes.extend_from_slice(&target.port().to_be_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes
}
