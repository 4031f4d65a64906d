//! The host's network in VDSM's form: links by kind in `getVdsCapabilities`, and their traffic in `getVdsStats`.
//!
//! Managers lose the whole reply over a type: of a network card `speed` is an int and `mtu` a text; addresses are texts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use whydown_core::time::Wall;

use crate::host::sound;
use crate::write::Members;

/// One link of the host that is not a VM's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetLink {
    /// Such as `eth0`.
    pub name: String,
    /// What it is.
    pub kind: LinkKind,
    /// Its hardware address; may be empty.
    pub mac: String,
    /// Bytes.
    pub mtu: u32,
    /// Whether it carries traffic.
    pub up: bool,
    /// Megabits per second; 0 if unknown.
    pub speed_mbit: u32,
    /// Its addresses with the lengths of their prefixes, IPv4 first.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The IPv4 gateway that is reached over it.
    pub gateway: Option<IpAddr>,
}

/// Kinds of links that VDSM told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// A network card.
    Nic,
    /// A bridge.
    Bridge {
        /// Those of its ports that are the host's.
        ports: Vec<String>,
        /// Whether it speaks the spanning tree protocol.
        stp: bool,
    },
    /// Several links taken together.
    Bond {
        /// Of these.
        slaves: Vec<String>,
        /// Over which the traffic goes, where it is one.
        active: Option<String>,
        /// The kernel's options by name.
        options: BTreeMap<String, String>,
    },
    /// A virtual LAN.
    Vlan {
        /// Over which link.
        over: String,
        /// Its number.
        id: u16,
    },
}

/// A link's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LinkTraffic {
    /// When it was read.
    pub taken: Wall,
    /// Bytes received since boot.
    pub received: u64,
    /// Bytes sent since boot.
    pub sent: u64,
    /// Packets.
    pub receive_errors: u64,
    /// Packets.
    pub send_errors: u64,
    /// Packets.
    pub receive_dropped: u64,
    /// Packets.
    pub send_dropped: u64,
    /// Bytes per second received and sent, between two readings.
    pub rates: Option<(f64, f64)>,
}

/// The members `nics`, `bridges`, `bondings`, `vlans` and `networks`.
pub(crate) fn put_links(s: &mut Members<'_>, links: &[NetLink], switch: Option<&str>) {
    let of = |wanted: fn(&LinkKind) -> bool| links.iter().filter(move |link| wanted(&link.kind));
    s.structure("nics", |s| {
        for link in of(|kind| matches!(kind, LinkKind::Nic)) {
            s.structure(&link.name, |s| {
                put_device(s, link);
                s.text("hwaddr", &link.mac);
                s.int("speed", i32::try_from(link.speed_mbit).unwrap_or(i32::MAX));
            });
        }
    });
    s.structure("bridges", |s| {
        for link in of(|kind| matches!(kind, LinkKind::Bridge { .. })) {
            s.structure(&link.name, |s| {
                put_device(s, link);
                put_bridge(s, link);
                s.structure("opts", |_| {});
            });
        }
    });
    s.structure("bondings", |s| {
        for link in links {
            let LinkKind::Bond { slaves, active, options } = &link.kind else { continue };
            s.structure(&link.name, |s| {
                put_device(s, link);
                s.text("hwaddr", &link.mac);
                s.texts("slaves", slaves);
                s.text("active_slave", active.as_deref().unwrap_or_default());
                s.structure("opts", |s| options.iter().for_each(|(name, value)| s.text(name, value)));
            });
        }
    });
    s.structure("vlans", |s| {
        for link in links {
            let LinkKind::Vlan { over, id } = &link.kind else { continue };
            s.structure(&link.name, |s| {
                put_device(s, link);
                s.text("iface", over);
                s.int("vlanid", i32::from(*id));
            });
        }
    });
    // A bridge that leads out of the host is a network, and its name is the network's.
    s.structure("networks", |s| {
        for link in links {
            let LinkKind::Bridge { ports, .. } = &link.kind else { continue };
            if ports.is_empty() {
                continue;
            }
            s.structure(&link.name, |s| {
                put_addresses(s, link);
                put_bridge(s, link);
                s.text("iface", &link.name);
                s.boolean("bridged", true);
                if let Some(switch) = switch {
                    s.text("switch", switch);
                }
            });
        }
    });
}

fn put_device(s: &mut Members<'_>, link: &NetLink) {
    put_addresses(s, link);
    s.structure("cfg", |_| {});
}

fn put_bridge(s: &mut Members<'_>, link: &NetLink) {
    if let LinkKind::Bridge { ports, stp } = &link.kind {
        s.texts("ports", ports);
        s.text("stp", if *stp { "on" } else { "off" });
        s.text("gateway", &link.gateway.map(|gateway| gateway.to_string()).unwrap_or_default());
    }
}

fn put_addresses(s: &mut Members<'_>, link: &NetLink) {
    let v4 = link.addresses.iter().find_map(|(address, length)| match address {
        IpAddr::V4(address) => Some((address.to_string(), mask(*length))),
        IpAddr::V6(_) => None,
    });
    let (address, mask) = v4.unwrap_or_default();
    s.text("addr", &address);
    s.text("netmask", &mask);
    let of = |wanted: fn(&IpAddr) -> bool| {
        let chosen = link.addresses.iter().filter(move |(address, _)| wanted(address));
        chosen.map(|(address, length)| format!("{address}/{length}")).collect::<Vec<_>>()
    };
    s.texts("ipv4addrs", of(IpAddr::is_ipv4));
    s.texts("ipv6addrs", of(IpAddr::is_ipv6));
    s.number_text("mtu", link.mtu);
}

fn mask(length: u8) -> String {
    let bits = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
    std::net::Ipv4Addr::from_bits(bits).to_string()
}

/// The member `network`: links of which two readings are known.
pub(crate) fn put_traffic(s: &mut Members<'_>, links: &[NetLink], traffic: &BTreeMap<String, LinkTraffic>) {
    s.structure("network", |s| {
        for link in links.iter().filter(|link| !matches!(link.kind, LinkKind::Bridge { .. })) {
            let Some(seen) = traffic.get(&link.name) else { continue };
            let Some((received, sent)) = seen.rates else { continue };
            // Percent of the line; VDSM took an unknown one for a gigabit.
            let line = f64::from(if link.speed_mbit == 0 { 1000 } else { link.speed_mbit });
            let percent = |bytes: f64| sound(bytes * 8.0 / (line * 10_000.0)).min(100.0);
            s.structure(&link.name, |s| {
                s.text("name", &link.name);
                s.number_text("speed", line as u32);
                s.text("state", if link.up { "up" } else { "down" });
                s.number_text("rxRate", format_args!("{:.1}", percent(received)));
                s.number_text("txRate", format_args!("{:.1}", percent(sent)));
                for (name, count) in [
                    ("rxErrors", seen.receive_errors),
                    ("txErrors", seen.send_errors),
                    ("rxDropped", seen.receive_dropped),
                    ("txDropped", seen.send_dropped),
                    ("rx", seen.received),
                    ("tx", seen.sent),
                ] {
                    s.number_text(name, count);
                }
            });
        }
    });
}

/// The link over which `client` is reached: the one whose network it is in, else the one with the gateway; none for
/// one on this host.
pub(crate) fn towards(links: &[NetLink], client: IpAddr) -> Option<&NetLink> {
    if client.to_canonical().is_loopback() {
        return None;
    }
    let within = |(address, length): &(IpAddr, u8)| match (*address, client.to_canonical()) {
        (IpAddr::V4(own), IpAddr::V4(client)) => {
            let shift = 32 - u32::from((*length).min(32));
            u32::MAX.checked_shl(shift).is_some_and(|mask| own.to_bits() & mask == client.to_bits() & mask)
        }
        (IpAddr::V6(own), IpAddr::V6(client)) => {
            let shift = 128 - u32::from((*length).min(128));
            u128::MAX.checked_shl(shift).is_some_and(|mask| own.to_bits() & mask == client.to_bits() & mask)
        }
        _ => false,
    };
    let direct = links.iter().find(|link| link.addresses.iter().any(within));
    direct.or_else(|| links.iter().find(|link| link.gateway.is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, address: &str, length: u8, gateway: Option<&str>) -> NetLink {
        NetLink {
            name: name.into(),
            kind: LinkKind::Nic,
            mac: String::new(),
            mtu: 1500,
            up: true,
            speed_mbit: 0,
            addresses: vec![(address.parse().unwrap(), length)],
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        }
    }

    #[test]
    fn a_mask_is_written_out() {
        assert_eq!([0, 8, 23, 32].map(mask), ["0.0.0.0", "255.0.0.0", "255.255.254.0", "255.255.255.255"]);
    }

    #[test]
    fn a_client_is_reached_over_its_own_network_or_the_gateway() {
        let links = [
            link("eth0", "192.0.2.7", 24, Some("192.0.2.1")),
            link("eth1", "198.51.100.7", 25, None),
            link("eth2", "2001:db8::7", 64, None),
        ];
        let over = |client: &str| towards(&links, client.parse().unwrap()).map(|link| link.name.as_str());
        assert_eq!(over("198.51.100.100"), Some("eth1"));
        assert_eq!(over("198.51.100.200"), Some("eth0"));
        assert_eq!(over("::ffff:192.0.2.9"), Some("eth0"));
        assert_eq!(over("2001:db8::ff:1"), Some("eth2"));
        assert_eq!((over("127.0.0.1"), over("::1")), (None, None));
        assert_eq!(towards(&links[1..2], "203.0.113.1".parse().unwrap()), None);
    }
}
