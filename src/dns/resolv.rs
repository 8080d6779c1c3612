//! Reading `/etc/resolv.conf`: which name servers this machine uses.

use std::net::{IpAddr, SocketAddr};

const PORT: u16 = 53;
/// As many as resolvers look at.
const SERVERS_MAX: usize = 3;

/// The name servers in a `resolv.conf`, in order, without those of `own`: asking them would be asking ourselves.
pub(crate) fn servers(text: &str, own: &[IpAddr]) -> Vec<SocketAddr> {
    let lines = text.lines().map(|line| line.split(['#', ';']).next().unwrap_or_default());
    let servers = lines.filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next())?
    });
    // A zone (`fe80::1%eth0`) cannot be expressed as an address alone; such servers are passed over.
    let addresses = servers.filter_map(|server| server.parse::<IpAddr>().ok());
    addresses.filter(|ip| !own.contains(ip)).map(|ip| SocketAddr::new(ip, PORT)).take(SERVERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_and_we_are_not_among_them() {
        let text = "# nameserver 1.1.1.1\nsearch example.com\n nameserver\t192.0.2.1 # first\nnameserver 10.43.0.10\n\
                    nameserver fe80::1%eth0\nnameserver\nnameserver 2001:db8::1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
        let found = servers(text, &["10.43.0.10".parse().unwrap()]);
        let found: Vec<_> = found.iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:53", "[2001:db8::1]:53", "192.0.2.2:53"]);
    }
}
