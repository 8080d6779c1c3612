//! Which address a pod gets. Pure: who holds what is given in and kept by the caller.
//!
//! Addresses go round: a released one is used again only after all others had their turn, so that a connection to
//! a pod that just left does not reach the next one. The network's own address (the overlay's), the first (the
//! bridge's) and the last (broadcast) are never given out.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::Error;

/// The addresses of one node.
#[derive(Debug)]
pub(crate) struct Addresses {
    cidr: Ipv4Net,
    /// Who holds which.
    holders: BTreeMap<Ipv4Addr, String>,
    /// Where the search for a free one begins.
    next: u32,
}

impl Addresses {
    /// Starts with what is `held`. The search begins behind the highest address in use: most likely the latest.
    pub fn new(cidr: Ipv4Net, held: impl IntoIterator<Item = (Ipv4Addr, String)>) -> Self {
        let holders: BTreeMap<_, _> = held.into_iter().filter(|(ip, _)| cidr.contains(ip)).collect();
        let mut addresses = Self { cidr, holders, next: 0 };
        addresses.next =
            addresses.holders.last_key_value().map_or(addresses.first(), |(ip, _)| u32::from(*ip).wrapping_add(1));
        addresses
    }

    /// An address for `holder`; the one it has, if it has one.
    pub fn allocate(&mut self, holder: &str) -> Result<Ipv4Addr, Error> {
        if let Some((held, _)) = self.holders.iter().find(|(_, by)| *by == holder) {
            return Ok(*held);
        }
        let capacity = self.capacity();
        if self.holders.len() >= capacity {
            return Err(Error::AddressesExhausted { cidr: self.cidr, capacity });
        }
        for _ in 0..capacity {
            if self.next < self.first() || self.next > self.last() {
                self.next = self.first();
            }
            let candidate = Ipv4Addr::from(self.next);
            self.next = self.next.wrapping_add(1);
            if let std::collections::btree_map::Entry::Vacant(free) = self.holders.entry(candidate) {
                free.insert(holder.to_owned());
                return Ok(candidate);
            }
        }
        Err(Error::AddressesExhausted { cidr: self.cidr, capacity })
    }

    /// Gives back what `holder` has, if anything.
    pub fn release(&mut self, holder: &str) {
        self.holders.retain(|_, by| by != holder);
    }

    /// Forgets everybody that is not among `present`.
    pub fn retain(&mut self, mut present: impl FnMut(&str) -> bool) {
        self.holders.retain(|_, by| present(by));
    }

    fn first(&self) -> u32 {
        u32::from(self.cidr.network()).saturating_add(2)
    }

    fn last(&self) -> u32 {
        u32::from(self.cidr.broadcast()).saturating_sub(1)
    }

    fn capacity(&self) -> usize {
        (i64::from(self.last()) - i64::from(self.first()) + 1).max(0) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(cidr: &str, held: &[(&str, &str)]) -> Addresses {
        let held = held.iter().map(|(ip, by)| (ip.parse().unwrap(), (*by).to_owned()));
        Addresses::new(cidr.parse().unwrap(), held)
    }

    #[test]
    fn a_released_address_is_the_last_to_be_used_again() {
        let mut pool = addresses("10.42.0.0/29", &[]);
        let given: Vec<_> = (0..5).map(|n| pool.allocate(&n.to_string()).unwrap().to_string()).collect();
        assert_eq!(given, ["10.42.0.2", "10.42.0.3", "10.42.0.4", "10.42.0.5", "10.42.0.6"]);
        pool.release("0");
        pool.release("3");
        pool.next = u32::from(Ipv4Addr::new(10, 42, 0, 4));
        assert_eq!(pool.allocate("a").unwrap().to_string(), "10.42.0.5");
        assert_eq!(pool.allocate("b").unwrap().to_string(), "10.42.0.2");
        let full = pool.allocate("c").unwrap_err();
        assert_eq!(full.to_string(), "no more addresses for pods: all 5 of 10.42.0.0/29 are taken");
    }

    #[test]
    fn who_asks_twice_gets_the_same() {
        let mut pool = addresses("10.42.0.0/24", &[]);
        assert_eq!(pool.allocate("a").unwrap(), pool.allocate("a").unwrap());
    }

    #[test]
    fn what_is_held_at_the_start_stays_held_and_strangers_are_ignored() {
        let mut pool = addresses("10.42.0.0/24", &[("10.42.0.9", "a"), ("10.42.7.1", "b")]);
        assert_eq!(pool.allocate("a").unwrap().to_string(), "10.42.0.9");
        assert_eq!(pool.allocate("b").unwrap().to_string(), "10.42.0.10");
    }

    #[test]
    fn a_network_without_room_for_pods_is_full_at_once() {
        assert!(addresses("10.42.0.0/32", &[]).allocate("a").is_err());
        assert!(addresses("10.42.0.0/31", &[]).allocate("a").is_err());
    }
}
