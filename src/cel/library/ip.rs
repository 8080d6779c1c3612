//! Addresses and networks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Function, bad, function, library, text};
use crate::cost::Cost;
use crate::error::EvalError;
use crate::value::{Library, Value};

pub const FUNCTIONS: &[Function] = &[
    function("ip", "(string) -> net.IP", Cost::Text, |args| {
        Ok(Value::Library(Library::Ip(parse(text(args, 0)?).map_err(EvalError::Failed)?)))
    }),
    function("ip", "net.CIDR.() -> net.IP", Cost::One, |args| Ok(Value::Library(Library::Ip(cidr(args, 0)?.address)))),
    function("isIP", "(string) -> bool", Cost::Text, |args| Ok(Value::Bool(parse(text(args, 0)?).is_ok()))),
    function("ip.isCanonical", "(string) -> bool", Cost::TextTwice, |args| {
        let given = text(args, 0)?;
        Ok(Value::Bool(show(&parse(given).map_err(EvalError::Failed)?) == given))
    }),
    function("family", "net.IP.() -> int", Cost::One, |args| {
        Ok(Value::Int(if address(args, 0)?.is_ipv4() { 4 } else { 6 }))
    }),
    function("isUnspecified", "net.IP.() -> bool", Cost::One, |args| test(args, IpAddr::is_unspecified)),
    function("isLoopback", "net.IP.() -> bool", Cost::One, |args| test(args, IpAddr::is_loopback)),
    function("isLinkLocalMulticast", "net.IP.() -> bool", Cost::One, |args| test(args, is_link_local_multicast)),
    function("isLinkLocalUnicast", "net.IP.() -> bool", Cost::One, |args| test(args, is_link_local_unicast)),
    function("isGlobalUnicast", "net.IP.() -> bool", Cost::One, |args| {
        test(args, |address| {
            !(address.is_unspecified()
                || address.is_loopback()
                || address.is_multicast()
                || is_link_local_unicast(address)
                || matches!(address, IpAddr::V4(address) if address.is_broadcast()))
        })
    }),
    function("cidr", "(string) -> net.CIDR", Cost::Text, |args| {
        Ok(Value::Library(Library::Cidr(parse_cidr(text(args, 0)?).map_err(EvalError::Failed)?)))
    }),
    function("isCIDR", "(string) -> bool", Cost::Text, |args| Ok(Value::Bool(parse_cidr(text(args, 0)?).is_ok()))),
    function("containsIP", "net.CIDR.(string) -> bool; net.CIDR.(net.IP) -> bool", Cost::ContainsIp, |args| {
        let inner = match args.get(1) {
            Some(Value::String(text)) => parse(text).map_err(EvalError::Failed)?,
            _ => address(args, 1)?,
        };
        Ok(Value::Bool(cidr(args, 0)?.contains(&inner)))
    }),
    function("containsCIDR", "net.CIDR.(string) -> bool; net.CIDR.(net.CIDR) -> bool", Cost::ContainsCidr, |args| {
        let inner = match args.get(1) {
            Some(Value::String(text)) => parse_cidr(text).map_err(EvalError::Failed)?,
            _ => cidr(args, 1)?,
        };
        let outer = cidr(args, 0)?;
        Ok(Value::Bool(inner.prefix >= outer.prefix && outer.contains(&inner.address)))
    }),
    function("prefixLength", "net.CIDR.() -> int", Cost::One, |args| Ok(Value::Int(i64::from(cidr(args, 0)?.prefix)))),
    function("masked", "net.CIDR.() -> net.CIDR", Cost::One, |args| {
        let cidr = cidr(args, 0)?;
        Ok(Value::Library(Library::Cidr(Cidr { address: cidr.network(), prefix: cidr.prefix })))
    }),
];

fn address(args: &[Value<'_>], index: usize) -> Result<IpAddr, EvalError> {
    match library(args, index)? {
        Library::Ip(address) => Ok(*address),
        _ => bad(),
    }
}

fn cidr(args: &[Value<'_>], index: usize) -> Result<Cidr, EvalError> {
    match library(args, index)? {
        Library::Cidr(cidr) => Ok(*cidr),
        _ => bad(),
    }
}

fn test<'a>(args: &[Value<'a>], holds: fn(&IpAddr) -> bool) -> Result<Value<'a>, EvalError> {
    Ok(Value::Bool(holds(&address(args, 0)?)))
}

fn is_link_local_unicast(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.segments()[0] & 0xffc0 == 0xfe80,
    }
}

fn is_link_local_multicast(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets()[..3] == [224, 0, 0],
        IpAddr::V6(address) => address.segments()[0] & 0xff0f == 0xff02,
    }
}

/// No zone, and no IPv4 in IPv6's clothes.
fn parse(text: &str) -> Result<IpAddr, String> {
    if text.contains('%') {
        return Err(format!("IP address {text:?} with zone value is not allowed"));
    }
    let address: IpAddr = text.parse().map_err(|_| {
        format!(
            "IP Address {text:?} parse error during conversion from string: ParseAddr({text:?}): unable to parse IP"
        )
    })?;
    if matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
        return Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"));
    }
    Ok(address)
}

fn parse_cidr(text: &str) -> Result<Cidr, String> {
    let fail = |why: &str| {
        Err(format!("network address parse error during conversion from string: netip.ParsePrefix({text:?}): {why}"))
    };
    let Some((address, prefix)) = text.rsplit_once('/') else { return fail("no '/'") };
    let Ok(address) = address.parse::<IpAddr>() else {
        return fail(&format!("ParseAddr({address:?}): unable to parse IP"));
    };
    if matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some()) {
        return Err(format!("IPv4-mapped IPv6 address {text:?} is not allowed"));
    }
    let formed = prefix == "0" || (prefix.starts_with(|c: char| ('1'..='9').contains(&c)) && prefix.len() <= 3);
    match prefix.parse::<u8>() {
        Ok(bits) if formed && bits <= if address.is_ipv4() { 32 } else { 128 } => Ok(Cidr { address, prefix: bits }),
        Ok(_) if formed => fail("prefix length out of range"),
        _ => fail(&format!("bad bits after slash: {prefix:?}")),
    }
}

pub fn show(address: &IpAddr) -> String {
    address.to_string()
}

/// Bytes of the address.
pub fn cost_size(address: &IpAddr) -> u64 {
    if address.is_ipv4() { 4 } else { 16 }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    address: IpAddr,
    prefix: u8,
}

impl Cidr {
    pub fn cost_size(&self) -> u64 {
        u64::from(self.prefix).div_ceil(8)
    }

    fn network(&self) -> IpAddr {
        mask(&self.address, self.prefix)
    }

    fn contains(&self, address: &IpAddr) -> bool {
        self.address.is_ipv4() == address.is_ipv4() && mask(address, self.prefix) == self.network()
    }
}

fn mask(address: &IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let kept = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from(u32::from(*address) & kept))
        }
        IpAddr::V6(address) => {
            let kept = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from(u128::from(*address) & kept))
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.address, self.prefix)
    }
}
