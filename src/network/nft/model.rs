//! What a rule set is made of. Plain values: compared, rendered as text, and encoded elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

/// Which packets a table sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    Ipv4,
    Ipv6,
}

/// Priorities of base chains, by nft's names.
pub mod priority {
    pub const DSTNAT: i32 = -100;
    pub const FILTER: i32 = 0;
    pub const SRCNAT: i32 = 100;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hook {
    Prerouting,
    Input,
    Forward,
    Output,
    Postrouting,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChainKind {
    Filter,
    Nat,
}

/// Where the kernel enters a table. The policy is always accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BaseChain {
    pub kind: ChainKind,
    pub hook: Hook,
    pub priority: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    pub base: Option<BaseChain>,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// One after the other; the first that does not match ends the rule.
    pub statements: Vec<Statement>,
}

/// What a packet is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Field {
    SourceIp,
    DestinationIp,
    /// The transport protocol.
    Protocol,
    DestinationPort,
}

/// One part of a set's key, as its [`Field`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyPart {
    Ip(IpAddr),
    Protocol(Protocol),
    Port(u16),
}

/// Where a packet goes next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// `ip daddr 10.43.0.1`
    Is(Field, KeyPart),
    /// `ip saddr 10.42.0.0/16`; with `not`: `!=`.
    InNet {
        field: Field,
        net: IpNet,
        not: bool,
    },
    /// `ip saddr . ip daddr @hairpin`
    InSet {
        fields: Vec<Field>,
        set: String,
        not: bool,
    },
    /// `ip daddr . meta l4proto . th dport vmap @service-ips`; no match if there is no such element.
    VerdictMap {
        fields: Vec<Field>,
        map: String,
    },
    /// The destination is an address of this host: `fib daddr type local`.
    LocalDestination,
    /// The source is an address of this host: `fib saddr type local`.
    LocalSource,
    /// `ct state new`
    NewConnection,
    /// The connection's destination was translated: `ct status dnat`.
    Translated,
    /// Any of these bits of the packet's mark are set.
    MarkHas(u32),
    /// Sets these bits of the packet's mark.
    MarkSet(u32),
    /// Clears these bits of the packet's mark.
    MarkClear(u32),
    /// Adds the packet's value to a set that has a timeout, or starts that anew: `update @set { ip saddr }`.
    Update {
        fields: Vec<Field>,
        set: String,
    },
    /// Translates the destination to one of these, each as likely.
    Dnat(Vec<SocketAddr>),
    /// Goes to one of these chains, each as likely.
    RandomGoto(Vec<String>),
    /// Translates the source to the outgoing link's address, with random ports.
    Masquerade,
    /// Answers that nobody is there: ICMP port unreachable.
    Reject,
    Verdict(Verdict),
}

/// A set, or a map from keys to verdicts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetSpec {
    pub key: Vec<Field>,
    pub verdicts: bool,
    /// Elements are added by packets ([`Statement::Update`]) and vanish after this long.
    pub timeout: Option<Duration>,
}

/// An element's place.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Element {
    pub set: String,
    pub key: Vec<KeyPart>,
}

/// A part of a table that comes and goes as one: the base, or what one Service needs. Elements may belong to sets of
/// other fragments, chains and sets are this fragment's own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fragment {
    pub chains: BTreeMap<String, Chain>,
    pub sets: BTreeMap<String, SetSpec>,
    /// With the verdict where the set is a map.
    pub elements: BTreeMap<Element, Option<Verdict>>,
}

impl Rule {
    pub fn new(statements: impl IntoIterator<Item = Statement>) -> Self {
        Self { statements: statements.into_iter().collect() }
    }
}

impl Chain {
    pub fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        Self { base: None, rules: rules.into_iter().collect() }
    }

    pub fn base(kind: ChainKind, hook: Hook, priority: i32, rules: impl IntoIterator<Item = Rule>) -> Self {
        Self { base: Some(BaseChain { kind, hook, priority }), rules: rules.into_iter().collect() }
    }
}

impl Fragment {
    /// Adds an element to a set or map.
    pub fn element(&mut self, set: &str, key: impl IntoIterator<Item = KeyPart>, verdict: Option<Verdict>) {
        self.elements.insert(Element { set: set.to_owned(), key: key.into_iter().collect() }, verdict);
    }

    /// Everything that the fragment's verdicts lead to, for checking that it exists.
    pub fn targets(&self) -> BTreeSet<&str> {
        let rules = self.chains.values().flat_map(|chain| &chain.rules).flat_map(|rule| &rule.statements);
        let mut targets: BTreeSet<&str> = self.elements.values().flatten().filter_map(Verdict::target).collect();
        for statement in rules {
            match statement {
                Statement::Verdict(verdict) => targets.extend(verdict.target()),
                Statement::RandomGoto(chains) => targets.extend(chains.iter().map(String::as_str)),
                _ => {}
            }
        }
        targets
    }
}

impl Verdict {
    pub fn target(&self) -> Option<&str> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            Self::Accept | Self::Drop | Self::Return => None,
        }
    }
}

impl Protocol {
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

// In the kernel's order, so that text and elements sort as `nft` shows them.
impl Ord for Protocol {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.number().cmp(&other.number())
    }
}

impl PartialOrd for Protocol {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
