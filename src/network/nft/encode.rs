//! Changes as nf_tables messages.

use std::net::IpAddr;

use super::expression::target_bytes;
use super::model::{BaseChain, ChainKind, Element, Family, Field, Hook, KeyPart, Rule, SetSpec, Statement, Verdict};
use super::table::Change;
use crate::netlink::wire::{self, Writer};

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
pub(super) const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;

const NFT_MSG_NEWTABLE: u16 = 0;
pub(super) const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_DELCHAIN: u16 = 5;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_DELRULE: u16 = 8;
const NFT_MSG_NEWSET: u16 = 9;
const NFT_MSG_DELSET: u16 = 11;
const NFT_MSG_NEWSETELEM: u16 = 12;
const NFT_MSG_DELSETELEM: u16 = 14;

pub(super) const NFTA_TABLE_NAME: u16 = 1;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
pub(super) const NFTA_LIST_ELEM: u16 = 1;
pub(super) const NFTA_EXPR_NAME: u16 = 1;
pub(super) const NFTA_EXPR_DATA: u16 = 2;
const NFTA_SET_TABLE: u16 = 1;
const NFTA_SET_NAME: u16 = 2;
const NFTA_SET_FLAGS: u16 = 3;
const NFTA_SET_KEY_TYPE: u16 = 4;
const NFTA_SET_KEY_LEN: u16 = 5;
const NFTA_SET_DATA_TYPE: u16 = 6;
const NFTA_SET_DATA_LEN: u16 = 7;
const NFTA_SET_DESC: u16 = 9;
const NFTA_SET_ID: u16 = 10;
const NFTA_SET_TIMEOUT: u16 = 11;
const NFTA_SET_USERDATA: u16 = 13;
const NFTA_SET_DESC_SIZE: u16 = 1;
const NFTA_SET_ELEM_LIST_TABLE: u16 = 1;
const NFTA_SET_ELEM_LIST_SET: u16 = 2;
const NFTA_SET_ELEM_LIST_ELEMENTS: u16 = 3;
const NFTA_SET_ELEM_LIST_SET_ID: u16 = 4;
const NFTA_SET_ELEM_KEY: u16 = 1;
const NFTA_SET_ELEM_DATA: u16 = 2;
pub(super) const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;

const NFT_SET_ANONYMOUS: u32 = 0x1;
const NFT_SET_CONSTANT: u32 = 0x2;
const NFT_SET_MAP: u32 = 0x8;
const NFT_SET_TIMEOUT: u32 = 0x10;
const NFT_SET_EVAL: u32 = 0x20;
const NFT_DATA_VERDICT: u32 = 0xffff_ff00;
/// Elements in a set that packets fill. The oldest go by their timeout; beyond this none is added.
const DYNAMIC_ELEMENTS_MAX: u32 = 65_535;

// How `nft` names the types of keys. The kernel keeps the numbers and does not look at them.
const TYPE_INTEGER: u32 = 4;
const TYPE_IPADDR: u32 = 7;
const TYPE_IP6ADDR: u32 = 8;
const TYPE_INET_PROTOCOL: u32 = 12;
const TYPE_INET_SERVICE: u32 = 13;
const TYPE_BITS: u32 = 6;

/// An attribute's length field has 16 bits; lists of elements are split well before.
const ELEMENTS_BYTES_MAX: usize = 48 * 1024;
/// An anonymous map is one message. Endpoints beyond this many get no share of the traffic.
pub(super) const CHOICES_MAX: usize = 512;

/// Tells `nft` how to show the numbers that are a choice's keys. Nothing to the kernel.
const HOST_ORDER_KEYS: [u8; 6] = {
    let [a, b, c, d] = 1_u32.to_ne_bytes();
    [0, 4, a, b, c, d]
};

pub(super) const ANONYMOUS_MAP: &str = "__map%d";

/// A transaction, ready to be sent.
pub(crate) struct Batch {
    pub bytes: Vec<u8>,
    /// Sequence number of the first message: the frame around the others.
    pub first: u32,
    /// Sequence number of the last message in the frame, the one that is acknowledged.
    pub last: u32,
    /// What each message is for, from the one behind `first` on.
    pub about: Vec<String>,
}

pub(crate) fn batch(family: Family, table: &str, changes: &[Change], first: u32) -> Batch {
    let mut encoder = Encoder::new(family, table, first);
    encoder.changes(changes);
    encoder.into_batch(first)
}

/// Removes the table, if it is there.
pub(crate) fn delete_table(family: Family, table: &str, first: u32) -> Batch {
    let mut encoder = Encoder::new(family, table, first);
    encoder.frame(NFNL_MSG_BATCH_BEGIN, first);
    encoder.table_message(NFT_MSG_NEWTABLE, wire::NLM_F_CREATE);
    encoder.table_message(NFT_MSG_DELTABLE, wire::NLM_F_ACK);
    encoder.into_batch(first)
}

pub(super) struct Encoder<'a> {
    pub writer: Writer,
    pub family: u8,
    pub ipv6: bool,
    table: &'a str,
    sequence: u32,
    about: Vec<String>,
    set_id: u32,
}

impl<'a> Encoder<'a> {
    fn new(family: Family, table: &'a str, first: u32) -> Self {
        Self {
            writer: Writer::default(),
            family: family.number(),
            ipv6: family == Family::Ipv6,
            table,
            sequence: first,
            about: Vec::new(),
            set_id: 0,
        }
    }

    fn changes(&mut self, changes: &[Change]) {
        self.frame(NFNL_MSG_BATCH_BEGIN, self.sequence);
        let mut rest = changes;
        while let Some((change, after)) = rest.split_first() {
            rest = after;
            match change {
                Change::Replace => {
                    self.table_message(NFT_MSG_NEWTABLE, wire::NLM_F_CREATE);
                    self.table_message(NFT_MSG_DELTABLE, 0);
                    self.table_message(NFT_MSG_NEWTABLE, wire::NLM_F_CREATE);
                }
                Change::AddChain(name, base) => self.add_chain(name, base.as_ref()),
                Change::AddSet(name, set) => self.add_set(name, set),
                Change::Flush(chain) => {
                    self.message(NFT_MSG_DELRULE, 0, || format!("flush chain {chain}"));
                    self.writer.attr_str(NFTA_RULE_TABLE, self.table);
                    self.writer.attr_str(NFTA_RULE_CHAIN, chain);
                }
                Change::AddRule(chain, rule) => self.add_rule(chain, rule),
                Change::DeleteSet(set) => {
                    self.message(NFT_MSG_DELSET, 0, || format!("delete set {set}"));
                    self.writer.attr_str(NFTA_SET_TABLE, self.table);
                    self.writer.attr_str(NFTA_SET_NAME, set);
                }
                Change::DeleteChain(chain) => {
                    self.message(NFT_MSG_DELCHAIN, 0, || format!("delete chain {chain}"));
                    self.writer.attr_str(NFTA_CHAIN_TABLE, self.table);
                    self.writer.attr_str(NFTA_CHAIN_NAME, chain);
                }
                Change::DeleteElement(element) | Change::AddElement(element, _) => {
                    let adding = matches!(change, Change::AddElement(..));
                    rest = self.elements(adding, &element.set, change, rest);
                }
            }
        }
        // The last message is acknowledged, which says that the whole was looked at. It repeats that the table is
        // there, which is harmless. (Acknowledging the frame's end is young in the kernel.)
        self.table_message(NFT_MSG_NEWTABLE, wire::NLM_F_ACK);
    }

    fn into_batch(mut self, first: u32) -> Batch {
        let last = self.sequence;
        self.frame(NFNL_MSG_BATCH_END, last.wrapping_add(1));
        Batch { bytes: self.writer.into_bytes(), first, last, about: self.about }
    }

    fn frame(&mut self, kind: u16, sequence: u32) {
        self.writer.message(kind, wire::NLM_F_REQUEST, sequence);
        let [high, low] = SUBSYSTEM.to_be_bytes();
        self.writer.raw(&[libc::AF_UNSPEC as u8, 0, high, low]);
    }

    fn message(&mut self, kind: u16, flags: u16, about: impl FnOnce() -> String) {
        self.sequence = self.sequence.wrapping_add(1);
        self.about.push(about());
        self.writer.message(SUBSYSTEM << 8 | kind, wire::NLM_F_REQUEST | flags, self.sequence);
        self.writer.raw(&[self.family, 0, 0, 0]);
    }

    fn table_message(&mut self, kind: u16, flags: u16) {
        let table = self.table;
        let verb = if kind == NFT_MSG_DELTABLE { "delete" } else { "add" };
        self.message(kind, flags, || format!("{verb} table {table}"));
        self.writer.attr_str(NFTA_TABLE_NAME, table);
    }

    fn add_chain(&mut self, name: &str, base: Option<&BaseChain>) {
        self.message(NFT_MSG_NEWCHAIN, wire::NLM_F_CREATE, || format!("add chain {name}"));
        self.writer.attr_str(NFTA_CHAIN_TABLE, self.table);
        self.writer.attr_str(NFTA_CHAIN_NAME, name);
        if let Some(base) = base {
            let hook = self.writer.begin(NFTA_CHAIN_HOOK);
            self.writer.attr_be32(NFTA_HOOK_HOOKNUM, base.hook.number());
            self.writer.attr(NFTA_HOOK_PRIORITY, &base.priority.to_be_bytes());
            self.writer.end(hook);
            self.writer.attr_be32(NFTA_CHAIN_POLICY, libc::NF_ACCEPT as u32);
            let kind = match base.kind {
                ChainKind::Filter => "filter",
                ChainKind::Nat => "nat",
            };
            self.writer.attr_str(NFTA_CHAIN_TYPE, kind);
        }
    }

    fn add_set(&mut self, name: &str, set: &SetSpec) {
        self.set_id += 1;
        self.message(NFT_MSG_NEWSET, wire::NLM_F_CREATE, || format!("add set {name}"));
        self.writer.attr_str(NFTA_SET_TABLE, self.table);
        self.writer.attr_str(NFTA_SET_NAME, name);
        let mut flags = 0;
        if set.verdicts {
            flags |= NFT_SET_MAP;
        }
        if set.timeout.is_some() {
            flags |= NFT_SET_TIMEOUT | NFT_SET_EVAL;
        }
        self.writer.attr_be32(NFTA_SET_FLAGS, flags);
        let key_type = set.key.iter().fold(0, |all, field| all << TYPE_BITS | field.type_number(self.ipv6));
        let key_len: u32 = set.key.iter().map(|field| 4 * field.registers(self.ipv6)).sum();
        self.writer.attr_be32(NFTA_SET_KEY_TYPE, key_type);
        // A single field keeps its own length; in a concatenation each is filled up to whole registers.
        let alone = (set.key.len() == 1).then(|| set.key.first().map(|field| field.bytes(self.ipv6))).flatten();
        self.writer.attr_be32(NFTA_SET_KEY_LEN, alone.unwrap_or(key_len));
        if set.verdicts {
            self.writer.attr_be32(NFTA_SET_DATA_TYPE, NFT_DATA_VERDICT);
        }
        self.writer.attr_be32(NFTA_SET_ID, self.set_id);
        if let Some(timeout) = set.timeout {
            self.writer.attr_be64(NFTA_SET_TIMEOUT, u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX));
            let desc = self.writer.begin(NFTA_SET_DESC);
            self.writer.attr_be32(NFTA_SET_DESC_SIZE, DYNAMIC_ELEMENTS_MAX);
            self.writer.end(desc);
        }
    }

    /// Writes `first` and as many of those that follow as belong to the same set, in one message. Returns the others.
    fn elements<'c>(&mut self, adding: bool, set: &str, first: &Change, rest: &'c [Change]) -> &'c [Change] {
        let (kind, flags, verb) =
            if adding { (NFT_MSG_NEWSETELEM, wire::NLM_F_CREATE, "add") } else { (NFT_MSG_DELSETELEM, 0, "delete") };
        self.message(kind, flags, || match first {
            Change::AddElement(element, _) | Change::DeleteElement(element) => {
                format!("{verb} elements of {set} from {:?}", element.key)
            }
            _ => String::new(),
        });
        self.writer.attr_str(NFTA_SET_ELEM_LIST_TABLE, self.table);
        self.writer.attr_str(NFTA_SET_ELEM_LIST_SET, set);
        let list = self.writer.begin(NFTA_SET_ELEM_LIST_ELEMENTS);
        self.element(first);
        let mut remaining = rest;
        while let Some((next, after)) = remaining.split_first() {
            let same = match next {
                Change::AddElement(element, _) => adding && element.set == set,
                Change::DeleteElement(element) => !adding && element.set == set,
                _ => false,
            };
            if !same || self.writer.len_of(&list) > ELEMENTS_BYTES_MAX {
                break;
            }
            self.element(next);
            remaining = after;
        }
        self.writer.end(list);
        remaining
    }

    fn element(&mut self, change: &Change) {
        let (element, verdict): (&Element, Option<&Verdict>) = match change {
            Change::AddElement(element, verdict) => (element, verdict.as_ref()),
            Change::DeleteElement(element) => (element, None),
            _ => return,
        };
        let alone = element.key.len() == 1;
        let mut key = Vec::with_capacity(24);
        for part in &element.key {
            match part {
                KeyPart::Ip(IpAddr::V4(ip)) => key.extend_from_slice(&ip.octets()),
                KeyPart::Ip(IpAddr::V6(ip)) => key.extend_from_slice(&ip.octets()),
                KeyPart::Protocol(protocol) => key.push(protocol.number()),
                KeyPart::Port(port) => key.extend_from_slice(&port.to_be_bytes()),
            }
            while !alone && !key.len().is_multiple_of(4) {
                key.push(0);
            }
        }
        let item = self.writer.begin(NFTA_LIST_ELEM);
        self.value(NFTA_SET_ELEM_KEY, &key);
        if let Some(verdict) = verdict {
            self.verdict(NFTA_SET_ELEM_DATA, verdict);
        }
        self.writer.end(item);
    }

    fn value(&mut self, kind: u16, value: &[u8]) {
        let data = self.writer.begin(kind);
        self.writer.attr(NFTA_DATA_VALUE, value);
        self.writer.end(data);
    }

    pub(super) fn verdict(&mut self, kind: u16, verdict: &Verdict) {
        let code: i32 = match verdict {
            Verdict::Accept => libc::NF_ACCEPT,
            Verdict::Drop => libc::NF_DROP,
            Verdict::Jump(_) => libc::NFT_JUMP,
            Verdict::Goto(_) => libc::NFT_GOTO,
            Verdict::Return => libc::NFT_RETURN,
        };
        let data = self.writer.begin(kind);
        let inner = self.writer.begin(NFTA_DATA_VERDICT);
        self.writer.attr(NFTA_VERDICT_CODE, &code.to_be_bytes());
        if let Some(chain) = verdict.target() {
            self.writer.attr_str(NFTA_VERDICT_CHAIN, chain);
        }
        self.writer.end(inner);
        self.writer.end(data);
    }

    fn add_rule(&mut self, chain: &str, rule: &Rule) {
        // Anonymous maps come before the rule that uses them.
        let maps: Vec<Option<u32>> = rule.statements.iter().map(|statement| self.anonymous_map(statement)).collect();
        self.message(NFT_MSG_NEWRULE, wire::NLM_F_CREATE | wire::NLM_F_APPEND, || format!("add rule to {chain}"));
        self.writer.attr_str(NFTA_RULE_TABLE, self.table);
        self.writer.attr_str(NFTA_RULE_CHAIN, chain);
        let list = self.writer.begin(NFTA_RULE_EXPRESSIONS);
        for (statement, map) in rule.statements.iter().zip(maps) {
            self.statement(statement, map);
        }
        self.writer.end(list);
    }

    /// The map behind a random choice, if the statement is one. Returns its id within this batch.
    fn anonymous_map(&mut self, statement: &Statement) -> Option<u32> {
        let ip_registers = if self.ipv6 { 4 } else { 1 };
        let ip_type = if self.ipv6 { TYPE_IP6ADDR } else { TYPE_IPADDR };
        let (data_type, data_len, count) = match statement {
            Statement::Dnat(targets) if targets.len() > 1 => {
                (ip_type << TYPE_BITS | TYPE_INET_SERVICE, 4 * ip_registers + 4, targets.len())
            }
            Statement::RandomGoto(chains) => (NFT_DATA_VERDICT, 0, chains.len()),
            _ => return None,
        };
        self.set_id += 1;
        let id = self.set_id;
        self.message(NFT_MSG_NEWSET, wire::NLM_F_CREATE, || "add anonymous map".to_owned());
        self.writer.attr_str(NFTA_SET_TABLE, self.table);
        self.writer.attr_str(NFTA_SET_NAME, ANONYMOUS_MAP);
        self.writer.attr_be32(NFTA_SET_FLAGS, NFT_SET_ANONYMOUS | NFT_SET_CONSTANT | NFT_SET_MAP);
        self.writer.attr_be32(NFTA_SET_KEY_TYPE, TYPE_INTEGER);
        self.writer.attr_be32(NFTA_SET_KEY_LEN, 4);
        self.writer.attr_be32(NFTA_SET_DATA_TYPE, data_type);
        if data_len > 0 {
            self.writer.attr_be32(NFTA_SET_DATA_LEN, data_len);
        }
        self.writer.attr_be32(NFTA_SET_ID, id);
        self.writer.attr(NFTA_SET_USERDATA, &HOST_ORDER_KEYS);
        let desc = self.writer.begin(NFTA_SET_DESC);
        self.writer.attr_be32(NFTA_SET_DESC_SIZE, u32::try_from(count.min(CHOICES_MAX)).unwrap_or(u32::MAX));
        self.writer.end(desc);

        self.message(NFT_MSG_NEWSETELEM, wire::NLM_F_CREATE, || "add elements of an anonymous map".to_owned());
        self.writer.attr_str(NFTA_SET_ELEM_LIST_TABLE, self.table);
        self.writer.attr_str(NFTA_SET_ELEM_LIST_SET, ANONYMOUS_MAP);
        self.writer.attr_be32(NFTA_SET_ELEM_LIST_SET_ID, id);
        let list = self.writer.begin(NFTA_SET_ELEM_LIST_ELEMENTS);
        for number in 0..count.min(CHOICES_MAX) {
            let item = self.writer.begin(NFTA_LIST_ELEM);
            self.value(NFTA_SET_ELEM_KEY, &u32::try_from(number).unwrap_or(0).to_ne_bytes());
            match statement {
                Statement::Dnat(targets) => {
                    let data = targets.get(number).map(target_bytes).unwrap_or_default();
                    self.value(NFTA_SET_ELEM_DATA, &data);
                }
                Statement::RandomGoto(chains) => {
                    let chain = chains.get(number).cloned().unwrap_or_default();
                    self.verdict(NFTA_SET_ELEM_DATA, &Verdict::Goto(chain));
                }
                _ => {}
            }
            self.writer.end(item);
        }
        self.writer.end(list);
        Some(id)
    }
}

impl Family {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Ipv4 => libc::NFPROTO_IPV4 as u8,
            Self::Ipv6 => libc::NFPROTO_IPV6 as u8,
        }
    }

    /// The socket family of the same packets.
    pub(crate) fn address_family(self) -> u8 {
        match self {
            Self::Ipv4 => libc::AF_INET as u8,
            Self::Ipv6 => libc::AF_INET6 as u8,
        }
    }
}

impl Hook {
    fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
        }
    }
}

impl Field {
    /// How many bytes it has on the wire.
    fn bytes(self, ipv6: bool) -> u32 {
        match self {
            Self::SourceIp | Self::DestinationIp => {
                if ipv6 {
                    16
                } else {
                    4
                }
            }
            Self::Protocol => 1,
            Self::DestinationPort => 2,
        }
    }

    pub(super) fn registers(self, ipv6: bool) -> u32 {
        self.bytes(ipv6).div_ceil(4)
    }

    fn type_number(self, ipv6: bool) -> u32 {
        match self {
            Self::SourceIp | Self::DestinationIp if ipv6 => TYPE_IP6ADDR,
            Self::SourceIp | Self::DestinationIp => TYPE_IPADDR,
            Self::Protocol => TYPE_INET_PROTOCOL,
            Self::DestinationPort => TYPE_INET_SERVICE,
        }
    }
}
