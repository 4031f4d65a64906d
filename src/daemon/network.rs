//! The host's own network links, read from `/sys/class/net`, `/proc/net` and the kernel's table of addresses.
//!
//! A link of a VM (`vnet0`) is none of the host's; there may be thousands, so each costs one look and no more.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use whydown_core::time::Wall;
use whydown_wire::{LinkKind, LinkTraffic, NetLink};

use super::device::NOWHERE;

/// The host's links at most; a host with more has them made by machines, and no manager looks at them.
const MOST: usize = 512;

/// `ARPHRD_ETHER`.
const ETHERNET: u32 = 1;

const ALL: &str = "/sys/class/net";

/// The links that are the host's, by name.
pub fn links() -> Vec<NetLink> {
    let mut found: Vec<(String, PathBuf)> = std::fs::read_dir(ALL)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .filter(|(name, folder)| is_the_hosts(name, folder))
        .collect();
    found.sort_unstable();
    found.truncate(MOST);
    let vlans = vlans(&std::fs::read_to_string("/proc/net/vlan/config").unwrap_or_default());
    let kinds: BTreeMap<&str, LinkKind> = found
        .iter()
        .filter_map(|(name, folder)| Some((name.as_str(), kind(folder, vlans.get(name))?)))
        .collect();
    let (addresses, gateways) = (addresses(), gateways());
    let link = |(name, folder): &(String, PathBuf)| {
        let mut kind = kinds.get(name.as_str())?.clone();
        if let LinkKind::Bridge { ports, .. } = &mut kind {
            ports.retain(|port| kinds.contains_key(port.as_str()));
        }
        let up = text(folder, "operstate").is_some_and(|state| state == "up");
        Some(NetLink {
            kind,
            mac: text(folder, "address").unwrap_or_default(),
            mtu: number(folder, "mtu").unwrap_or(0),
            up,
            // -1 where the card cannot say, and an error while it is down.
            speed_mbit: number(folder, "speed").filter(|_| up).unwrap_or(0),
            addresses: addresses.get(name).cloned().unwrap_or_default(),
            gateway: gateways.get(name).copied(),
            name: name.clone(),
        })
    };
    found.iter().filter_map(link).collect()
}

/// Neither a VM's end, nor the bridge that leads nowhere: no manager may take that for a network.
fn is_the_hosts(name: &str, folder: &Path) -> bool {
    name != NOWHERE && !folder.join("tun_flags").exists()
}

/// The bridge that leads nowhere, where this host has it.
pub fn nowhere() -> Option<&'static str> {
    Path::new(ALL).join(NOWHERE).join("bridge").exists().then_some(NOWHERE)
}

/// The counters of these links, with rates since `before`.
pub fn traffic(
    links: &[NetLink],
    before: &BTreeMap<String, LinkTraffic>,
    now: Wall,
) -> BTreeMap<String, LinkTraffic> {
    let read = |link: &NetLink| {
        let folder = Path::new(ALL).join(&link.name).join("statistics");
        let count = |name: &str| number::<u64>(&folder, name);
        let (received, sent) = (count("rx_bytes")?, count("tx_bytes")?);
        let rates = before.get(&link.name).and_then(|old| {
            let seconds = now.since(old.taken).as_secs_f64();
            // A counter that goes back is that of another link of this name.
            let moved = (received.checked_sub(old.received)?, sent.checked_sub(old.sent)?);
            (seconds > 0.0).then(|| (moved.0 as f64 / seconds, moved.1 as f64 / seconds))
        });
        let seen = LinkTraffic {
            taken: now,
            received,
            sent,
            receive_errors: count("rx_errors").unwrap_or(0),
            send_errors: count("tx_errors").unwrap_or(0),
            receive_dropped: count("rx_dropped").unwrap_or(0),
            send_dropped: count("tx_dropped").unwrap_or(0),
            rates,
        };
        Some((link.name.clone(), seen))
    };
    links.iter().filter_map(read).collect()
}

/// `None` if it is no link that managers know: the loopback, one end of a pair, a tunnel.
fn kind(folder: &Path, vlan: Option<&(u16, String)>) -> Option<LinkKind> {
    if let Some((id, over)) = vlan {
        return Some(LinkKind::Vlan { over: over.clone(), id: *id });
    }
    if folder.join("bridge").is_dir() {
        let ports = std::fs::read_dir(folder.join("brif")).into_iter().flatten().flatten();
        let mut ports: Vec<String> = ports.filter_map(|port| port.file_name().into_string().ok()).collect();
        ports.sort_unstable();
        let stp = number::<u32>(&folder.join("bridge"), "stp_state").is_some_and(|state| state != 0);
        return Some(LinkKind::Bridge { ports, stp });
    }
    let bond = folder.join("bonding");
    if bond.is_dir() {
        let words = |name: &str| text(&bond, name).unwrap_or_default();
        let options = ["mode", "miimon"].map(|name| {
            // The mode is told by name and number, and managers want the number.
            (name.to_owned(), words(name).split_whitespace().last().unwrap_or_default().to_owned())
        });
        return Some(LinkKind::Bond {
            slaves: words("slaves").split_whitespace().map(str::to_owned).collect(),
            active: text(&bond, "active_slave").filter(|name| !name.is_empty()),
            options: options.into(),
        });
    }
    let (index, over) = (number::<u32>(folder, "ifindex")?, number::<u32>(folder, "iflink"));
    let ethernet = number(folder, "type") == Some(ETHERNET);
    (ethernet && over == Some(index)).then_some(LinkKind::Nic)
}

/// Lines such as `eth0.100  | 100  | eth0`, behind two of headings.
fn vlans(table: &str) -> BTreeMap<String, (u16, String)> {
    let row = |line: &str| {
        let mut fields = line.split('|').map(str::trim);
        let (name, id, over) = (fields.next()?, fields.next()?.parse().ok()?, fields.next()?);
        Some((name.to_owned(), (id, over.to_owned())))
    };
    table.lines().filter_map(row).collect()
}

fn addresses() -> BTreeMap<String, Vec<(IpAddr, u8)>> {
    let mut all: BTreeMap<String, Vec<(IpAddr, u8)>> = BTreeMap::new();
    for interface in if_addrs::get_if_addrs().unwrap_or_default() {
        let address = match &interface.addr {
            if_addrs::IfAddr::V4(v4) => (IpAddr::V4(v4.ip), v4.prefixlen),
            if_addrs::IfAddr::V6(v6) => (IpAddr::V6(v6.ip), v6.prefixlen),
        };
        all.entry(interface.name).or_default().push(address);
    }
    all.values_mut().for_each(|addresses| addresses.sort_by_key(|(address, _)| address.is_ipv6()));
    all
}

/// The gateways of the default routes of IPv4.
fn gateways() -> BTreeMap<String, IpAddr> {
    let routes = procfs::net::route().unwrap_or_default();
    let default = routes.into_iter().filter(|route| {
        route.destination.is_unspecified() && route.mask.is_unspecified() && !route.gateway.is_unspecified()
    });
    default.map(|route| (route.iface, IpAddr::V4(route.gateway))).collect()
}

fn text(folder: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(folder.join(name)).ok().map(|text| text.trim().to_owned())
}

fn number<T: std::str::FromStr>(folder: &Path, name: &str) -> Option<T> {
    text(folder, name)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_table_of_vlans_is_read() {
        let table = "VLAN Dev name    | VLAN ID\nName-Type: VLAN_NAME_TYPE_RAW_PLUS_VID_NO_PAD\n\
                     eth0.100       | 100  | eth0\nstorage | 7 | bond0\n";
        let read = vlans(table);
        assert_eq!(read["eth0.100"], (100, "eth0".into()));
        assert_eq!((read.len(), &read["storage"]), (2, &(7, "bond0".into())));
    }

    #[test]
    fn what_vms_alone_have_is_no_link_of_the_host() {
        let folder = tempfile::tempdir().unwrap();
        assert!(is_the_hosts("ovirtmgmt", folder.path()));
        assert!(!is_the_hosts(";vdsmdummy;", folder.path()), "a manager would take it for a network");
        std::fs::write(folder.path().join("tun_flags"), "0x1002").unwrap();
        assert!(!is_the_hosts("vnet0", folder.path()));
    }

    #[test]
    fn the_loopback_is_no_link_of_the_host_and_rates_need_two_readings() {
        let links = links();
        assert!(links.iter().all(|link| link.name != "lo"), "{links:?}");
        let first = traffic(&links, &BTreeMap::new(), Wall(1_000_000_000));
        assert!(first.values().all(|seen| seen.rates.is_none()));
        let second = traffic(&links, &first, Wall(3_000_000_000));
        assert!(second.values().all(|seen| seen.rates.is_some()), "{second:?}");
    }
}
