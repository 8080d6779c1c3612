//! Rule sets as text, in nft's own language: for golden files, logs and people.

use std::fmt::{self, Display, Formatter, Write};

use super::model::{
    Chain, ChainKind, Family, Field, Fragment, Hook, KeyPart, Protocol, Rule, SetSpec, Statement, Verdict,
};

/// Writes a fragment's chains, sets and elements, one per line, in order of their names.
pub(crate) fn fragment(out: &mut String, family: Family, fragment: &Fragment) {
    for (name, set) in &fragment.sets {
        line(out, format_args!("{} {name} {{ {} }}", if set.verdicts { "map" } else { "set" }, SetText(family, set)));
    }
    for (name, chain) in &fragment.chains {
        line(out, format_args!("chain {name} {}", ChainText(chain)));
        for rule in &chain.rules {
            line(out, format_args!("  {}", RuleText(family, rule)));
        }
    }
    for (element, verdict) in &fragment.elements {
        let key = Joined(&element.key, " . ");
        match verdict {
            Some(verdict) => line(out, format_args!("element {} {{ {key} : {verdict} }}", element.set)),
            None => line(out, format_args!("element {} {{ {key} }}", element.set)),
        }
    }
}

fn line(out: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{}", text.to_string().trim_end());
}

struct Joined<'a, T>(&'a [T], &'static str);

impl<T: Display> Display for Joined<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(self.1)?;
            }
            item.fmt(f)?;
        }
        Ok(())
    }
}

struct SetText<'a>(Family, &'a SetSpec);

impl Display for SetText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let types: Vec<&str> = self.1.key.iter().map(|field| field.type_name(self.0)).collect();
        write!(f, "type {}{};", types.join(" . "), if self.1.verdicts { " : verdict" } else { "" })?;
        match self.1.timeout {
            Some(timeout) => write!(f, " flags dynamic,timeout; timeout {}s;", timeout.as_secs()),
            None => Ok(()),
        }
    }
}

struct ChainText<'a>(&'a Chain);

impl Display for ChainText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(base) = self.0.base else { return Ok(()) };
        let kind = match base.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
        };
        write!(f, "type {kind} hook {} priority {}", base.hook, base.priority)
    }
}

impl Display for Hook {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        })
    }
}

struct RuleText<'a>(Family, &'a Rule);

impl Display for RuleText<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, statement) in self.1.statements.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            write_statement(f, self.0, statement)?;
        }
        Ok(())
    }
}

fn write_statement(f: &mut Formatter<'_>, family: Family, statement: &Statement) -> fmt::Result {
    let names = |fields: &[Field]| fields.iter().map(|field| field.name(family)).collect::<Vec<_>>().join(" . ");
    match statement {
        Statement::Is(field, value) => write!(f, "{} {value}", field.name(family)),
        Statement::InNet { field, net, not } => write!(f, "{} {}{net}", field.name(family), negation(*not)),
        Statement::InSet { fields, set, not } => write!(f, "{} {}@{set}", names(fields), negation(*not)),
        Statement::VerdictMap { fields, map } => write!(f, "{} vmap @{map}", names(fields)),
        Statement::LocalDestination => f.write_str("fib daddr type local"),
        Statement::LocalSource => f.write_str("fib saddr type local"),
        Statement::NewConnection => f.write_str("ct state new"),
        Statement::Translated => f.write_str("ct status dnat"),
        Statement::MarkHas(bits) => write!(f, "meta mark & {bits:#x} != 0"),
        Statement::MarkSet(bits) => write!(f, "meta mark set meta mark or {bits:#x}"),
        Statement::MarkClear(bits) => write!(f, "meta mark set meta mark and {:#x}", !bits),
        Statement::Update { fields, set } => write!(f, "update @{set} {{ {} }}", names(fields)),
        Statement::Dnat(targets) => match targets.as_slice() {
            [target] => write!(f, "dnat to {target}"),
            targets => {
                write!(f, "dnat to numgen random mod {} map {{ {} }}", targets.len(), Joined(&numbered(targets), ", "))
            }
        },
        Statement::RandomGoto(chains) => {
            let chains: Vec<_> = chains.iter().map(|chain| format!("goto {chain}")).collect();
            write!(f, "numgen random mod {} vmap {{ {} }}", chains.len(), Joined(&numbered(&chains), ", "))
        }
        Statement::Masquerade => f.write_str("masquerade fully-random"),
        Statement::Reject => f.write_str("reject"),
        Statement::Verdict(verdict) => verdict.fmt(f),
    }
}

fn numbered<T: Display>(items: &[T]) -> Vec<String> {
    items.iter().enumerate().map(|(index, item)| format!("{index} : {item}")).collect()
}

fn negation(not: bool) -> &'static str {
    if not { "!= " } else { "" }
}

impl Field {
    fn name(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::SourceIp, Family::Ipv4) => "ip saddr",
            (Self::SourceIp, Family::Ipv6) => "ip6 saddr",
            (Self::DestinationIp, Family::Ipv4) => "ip daddr",
            (Self::DestinationIp, Family::Ipv6) => "ip6 daddr",
            (Self::Protocol, _) => "meta l4proto",
            (Self::DestinationPort, _) => "th dport",
        }
    }

    fn type_name(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::SourceIp | Self::DestinationIp, Family::Ipv4) => "ipv4_addr",
            (Self::SourceIp | Self::DestinationIp, Family::Ipv6) => "ipv6_addr",
            (Self::Protocol, _) => "inet_proto",
            (Self::DestinationPort, _) => "inet_service",
        }
    }
}

impl Display for KeyPart {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Protocol(protocol) => protocol.fmt(f),
            Self::Port(port) => port.fmt(f),
        }
    }
}

impl Display for Protocol {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

impl Display for Verdict {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept => f.write_str("accept"),
            Self::Drop => f.write_str("drop"),
            Self::Return => f.write_str("return"),
            Self::Jump(chain) => write!(f, "jump {chain}"),
            Self::Goto(chain) => write!(f, "goto {chain}"),
        }
    }
}

impl Display for Family {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4 => "ip",
            Self::Ipv6 => "ip6",
        })
    }
}
