//! Whose share of what is scarce a peer takes.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use super::Peer;

/// Bits of an IPv6 address that one host may fill as it likes.
const HOST_BITS: u32 = 64;

/// One that gets one share, by however many connections it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Share {
    /// A user of this host.
    User(u32),
    /// This host's own addresses, where nobody knows which user it is: there are sixteen million of them.
    ThisHost,
    /// An address; of IPv6 the network, as a host may choose among 2^64.
    Address(IpAddr),
}

impl Share {
    /// Of an address.
    pub fn of_address(address: IpAddr) -> Self {
        match address.to_canonical() {
            address if address.is_loopback() => Self::ThisHost,
            IpAddr::V6(v6) => {
                let network = v6.to_bits() >> HOST_BITS << HOST_BITS;
                Self::Address(IpAddr::V6(Ipv6Addr::from_bits(network)))
            }
            v4 => Self::Address(v4),
        }
    }
}

impl Peer {
    /// Whose share of what is scarce it takes.
    pub fn share(&self) -> Share {
        match self {
            Self::Tcp { user: Some(user), .. } | Self::Unix { user, .. } => Share::User(user.uid),
            Self::Tcp { address, user: None } | Self::Tls { address, .. } => Share::of_address(address.ip()),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => write!(f, "uid {uid}"),
            Self::ThisHost => f.write_str("this host"),
            Self::Address(IpAddr::V6(network)) => write!(f, "{network}/{HOST_BITS}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_one_share_however_many_addresses_it_has() {
        let of = |text: &str| Share::of_address(text.parse().unwrap());
        assert_eq!(of("127.0.0.1"), of("127.9.9.9"));
        assert_eq!(of("127.0.0.1"), of("::1"));
        assert_eq!(of("::ffff:127.0.0.1"), of("::1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_eq!(of("2001:db8::1").to_string(), "2001:db8::/64");
    }
}
