//! IP networks. Pure values: nothing here resolves a name.

use std::fmt;
use std::net::IpAddr;

/// An IP network, `address/bits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Any address in it.
    pub address: IpAddr,
    /// How many leading bits count.
    pub bits: u8,
}

impl Network {
    /// A network written `10.0.0.0/8`, `fc00::/7`, or as a single address. The error says what is
    /// wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a network; write `10.0.0.0/8`, `fc00::/7` or a single address");
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            Some(bits) => bits.parse().map_err(|_| wrong())?,
            None => width,
        };
        if bits > width {
            return Err(format!("`{text}` is not a network: an address of this kind has {width} bits"));
        }
        // `::ffff:10.0.0.0/104` is `10.0.0.0/8`.
        match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(inner)) if bits >= 96 => Ok(Network { address: inner.into(), bits: bits - 96 }),
            _ => Ok(Network { address, bits }),
        }
    }

    /// Whether `address` lies in this network. An IPv4 address inside IPv6 (`::ffff:a.b.c.d`) counts
    /// as the IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                same_prefix(u128::from(net.to_bits()) << 96, u128::from(ip.to_bits()) << 96, self.bits)
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => same_prefix(net.to_bits(), ip.to_bits(), self.bits),
            _ => false,
        }
    }
}

/// Whether the first `bits` of both are equal.
fn same_prefix(a: u128, b: u128, bits: u8) -> bool {
    bits == 0 || (a ^ b).leading_zeros() >= u32::from(bits)
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn assert_contains(network: &str, address: &str, expected: bool) {
        let contains = Network::parse(network).unwrap().contains(address.parse().unwrap());
        assert_eq!(contains, expected, "{address} in {network}");
    }

    #[test]
    fn a_network_contains_exactly_the_addresses_with_its_prefix() {
        assert_contains("172.16.0.0/12", "172.31.255.255", true);
        assert_contains("172.16.0.0/12", "172.32.0.0", false);
        assert_contains("fc00::/7", "fd12::1", true);
        assert_contains("fc00::/7", "fe80::1", false);
        assert_contains("0.0.0.0/0", "8.8.8.8", true);
        assert_contains("192.0.2.7", "192.0.2.7", true);
        assert_contains("192.0.2.7", "192.0.2.6", false);
    }

    #[test]
    fn an_ipv4_address_inside_ipv6_is_the_ipv4_address() {
        assert_contains("127.0.0.0/8", "::ffff:127.0.0.1", true);
        assert_contains("::/0", "::ffff:127.0.0.1", false);
        assert_contains("::ffff:10.0.0.0/104", "10.1.2.3", true);
        assert_contains("::ffff:10.0.0.0/104", "11.1.2.3", false);
    }

    #[test]
    fn what_is_not_a_network_is_refused() {
        for text in ["", "localhost", "10.0.0.0/33", "::/129", "10.0.0.0/x", "10.0.0/8"] {
            assert!(Network::parse(text).is_err(), "{text}");
        }
    }
}
