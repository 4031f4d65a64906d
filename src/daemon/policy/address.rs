//! Addresses that documents and migrations name.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether it is `[USER@]HOST[:PORT]` with no more behind it than the name of a driver's instance. libvirt decodes what is
/// percent-encoded, and gives a host that begins with `-` to ssh as an option: nothing is encoded here but an IPv6 zone.
pub(super) fn is_plain(rest: &str) -> bool {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host) = authority.split_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    matches!(path, "" | "system" | "session") && user.is_none_or(is_name) && is_host_and_port(host)
}

fn is_host_and_port(text: &str) -> bool {
    let is_port = |port: &str| {
        port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
    };
    if let Some((inside, behind)) = text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        let (address, zone) =
            inside.split_once("%25").map_or((inside, None), |(address, zone)| (address, Some(zone)));
        let is_address = address.parse::<Ipv6Addr>().is_ok() && zone.is_none_or(is_name);
        return is_address && (behind.is_empty() || is_port(behind));
    }
    let split = text.find(':').unwrap_or(text.len());
    let (host, behind) = text.split_at(split);
    is_name(host) && (behind.is_empty() || is_port(behind))
}

fn is_name(name: &str) -> bool {
    !name.is_empty()
        && !name.starts_with(['-', '.'])
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

/// Whether a name leads to this host alone, as far as the name says it: loopback, any address, the link, or no name.
pub(super) fn is_here(name: &str) -> bool {
    let name = bare(name);
    match address(name) {
        Some(IpAddr::V4(address)) => is_here_v4(address),
        Some(IpAddr::V6(address)) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_unicast_link_local()
                || address.to_ipv4().is_some_and(is_here_v4)
        }
        // Other ways to write an address: 127.1, 0x7f000001, 2130706433.
        None => {
            name.is_empty()
                || name.starts_with(|c: char| c.is_ascii_digit()) && is_a_number(name)
                || is_local(name)
        }
    }
}

fn is_here_v4(address: Ipv4Addr) -> bool {
    address.is_loopback() || address.is_unspecified() || address.is_link_local()
}

/// Whether only this host reaches what listens there; without a name it is libvirt's own choice, which is that.
pub(super) fn is_loopback(name: &str) -> bool {
    let name = bare(name);
    match address(name) {
        Some(address) => address.is_loopback(),
        None => name.is_empty() || LOOPBACK.contains(&name.to_ascii_lowercase().as_str()),
    }
}

fn bare(name: &str) -> &str {
    let name = name.trim();
    name.strip_prefix('[').and_then(|inside| inside.strip_suffix(']')).unwrap_or(name)
}

fn address(name: &str) -> Option<IpAddr> {
    name.split('%').next().unwrap_or_default().parse().ok()
}

fn is_a_number(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_hexdigit() || b"xX.".contains(&byte))
}

/// The names that loopback has in `/etc/hosts`; every other may lead anywhere.
const LOOPBACK: &[&str] = &[
    "localhost",
    "localhost.localdomain",
    "localhost4",
    "localhost4.localdomain4",
    "localhost6",
    "localhost6.localdomain6",
    "ip6-localhost",
    "ip6-loopback",
];

fn is_local(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let first = name.split('.').next().unwrap_or_default();
    matches!(first, "localhost" | "localhost4" | "localhost6" | "ip6-localhost" | "ip6-loopback")
        || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_address_has_a_name_and_a_port() {
        for rest in [
            "h",
            "h/",
            "h/system",
            "root@h-2.x:22/session",
            "[::1]:1",
            "[fe80::1%25eth0]/system",
            "10.0.0.1:49152",
        ] {
            assert!(is_plain(rest), "{rest}");
        }
        for rest in [
            "",
            "/system",
            "-oProxyCommand=x",
            "%2DoProxyCommand%3Dx/system",
            "-x@h/",
            "a@b@h",
            "h%20",
            "h?x",
            "h#x",
            "h/system?x",
            "h/%3Fcommand=x",
            "h/../x",
            "h:0",
            "h:x",
            "h:1:2",
            "[%2DoProxy]",
            "[::1%25-x]",
            "[::1%eth0]",
            "[::1]x",
            "h x",
        ] {
            assert!(!is_plain(rest), "{rest}");
        }
    }

    #[test]
    fn this_host_is_known_by_each_of_its_names() {
        for name in [
            "",
            "localhost",
            "LOCALHOST.",
            "x.localhost",
            "localhost.localdomain",
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "[::1]",
            "0.0.0.0",
            "::",
            "169.254.169.254",
            "fe80::1%eth0",
            "::ffff:127.0.0.1",
            "127.1",
            "0x7f000001",
            "2130706433",
            "0",
        ] {
            assert!(is_here(name), "{name}");
        }
        for name in ["10.0.0.1", "storage", "2001:db8::1", "1-storage", "localhosts"] {
            assert!(!is_here(name) && !is_loopback(name), "{name}");
        }
        assert!(is_loopback("") && is_loopback("127.0.0.1") && is_loopback("localhost"));
        for name in ["localhost.evil.example", "ip6-localhost.x", "x.localhost", "localhost.localdomain.x"] {
            assert!(!is_loopback(name), "{name}");
        }
        assert!(is_here("localhost.evil.example"), "and what may lead here is no address beyond");
        assert!(is_loopback("LOCALHOST") && is_loopback("localhost.localdomain"));
        assert!(!is_loopback("0.0.0.0") && !is_loopback("::") && !is_loopback("0"));
    }
}
