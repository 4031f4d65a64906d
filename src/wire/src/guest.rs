//! What a guest tells of itself, as its profile wants it. All of it is the guest's word, bounded by whoever asked it;
//! what it does not tell is as it was before an agent spoke.

use std::net::IpAddr;

use whydown_core::guest::{GuestAccount, GuestFileSystem, GuestInterface, GuestSystem, GuestUser};

use crate::profile::{Key, Profile};
use crate::running::GuestMemory;
use crate::write::{Items, Members};

/// Bytes of one text. Managers keep names and addresses in columns of this length, and one that is longer costs them
/// the whole host's VMs.
const TEXT: usize = 255;

/// The members that a guest brings; `memory` is what its balloon's driver tells.
pub(crate) fn put(
    s: &mut Members<'_>,
    account: Option<&GuestAccount>,
    memory: Option<&GuestMemory>,
    profile: &Profile,
) {
    let users = account.and_then(|account| account.users.as_deref());
    let name = account.and_then(|account| account.host_name.as_deref());
    let interfaces = account.and_then(|account| account.interfaces.as_deref());
    profile.put(s, Key::Username, users.map(|users| joined(users.iter().map(full_name), ", ")));
    profile.put(s, Key::Session, users.map(session));
    profile.put(s, Key::MemUsage, memory.map(GuestMemory::percent));
    profile.put_struct(s, Key::MemoryStats, memory.map(|memory| fill_memory(memory, profile)));
    profile.put(s, Key::GuestCpuCount, None::<&str>);
    profile.put_array(s, Key::AppsList, None::<fn(&mut Items<'_>)>);
    profile.put(s, Key::GuestIps, interfaces.map(public_addresses));
    profile.put(s, Key::GuestFqdn, name);
    profile.put(s, Key::GuestName, name);
    let system = account.and_then(|account| account.system.as_ref());
    profile.put(s, Key::GuestOs, system.map(system_name).filter(|name| !name.is_empty()));
    profile.put_array(s, Key::NetIfaces, interfaces.map(|interfaces| fill_interfaces(interfaces, profile)));
    let file_systems = account.and_then(|account| account.file_systems.as_deref());
    profile.put_array(s, Key::DisksUsage, file_systems.map(|systems| fill_usage(systems, profile)));
    let last = users.and_then(|users| users.iter().filter_map(|user| user.since).max());
    profile.put(s, Key::LastLogin, last.map(|since| since.as_millis() as f64 / 1000.0));
    let zone = account.and_then(|account| account.time_zone.as_ref());
    let fill = zone.map(|zone| {
        |s: &mut Members<'_>| {
            profile.put(s, Key::ZoneName, Some(&zone.name));
            profile.put(s, Key::ZoneOffset, Some(zone.offset_s.div_euclid(60)));
        }
    });
    profile.put_struct(s, Key::GuestTimezone, fill);
    put_system(s, system, profile);
}

fn fill_memory<'a>(memory: &'a GuestMemory, profile: &'a Profile) -> impl FnOnce(&mut Members<'_>) + 'a {
    move |s| {
        let paging = memory.paging;
        profile.put(s, Key::MemTotal, Some(memory.total_kib));
        profile.put(s, Key::MemFree, Some(memory.free_kib));
        profile.put(s, Key::MemUnused, Some(memory.unused_kib));
        // Whole numbers: MOM reads no others.
        for (key, rate) in [
            (Key::SwapIn, paging.swapped_in_kib),
            (Key::SwapOut, paging.swapped_out_kib),
            (Key::PageFaults, paging.faults),
            (Key::MajorFaults, paging.major_faults),
        ] {
            profile.put(s, key, Some(rate.clamp(0.0, f64::from(i32::MAX)) as i32));
        }
    }
}

/// `user@domain`, or the name alone.
fn full_name(user: &GuestUser) -> String {
    if user.domain.is_empty() { user.name.clone() } else { format!("{}@{}", user.name, user.domain) }
}

/// What managers know of sessions, as far as the agent can tell: it does not see locked screens.
fn session(users: &[GuestUser]) -> &'static str {
    if users.is_empty() { "LoggedOff" } else { "UserLoggedOn" }
}

/// Those by which others may reach it, IPv4 first.
fn public_addresses(interfaces: &[GuestInterface]) -> String {
    let all = interfaces.iter().flat_map(|interface| &interface.addresses);
    let mut public: Vec<&IpAddr> = all.filter(|address| is_public(address)).collect();
    public.sort_by_key(|address| address.is_ipv6());
    public.dedup();
    joined(public.iter().map(ToString::to_string), " ")
}

fn is_public(address: &IpAddr) -> bool {
    let local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    !(local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

/// As many whole pieces as fit.
fn joined(pieces: impl Iterator<Item = String>, between: &str) -> String {
    let mut all = String::new();
    for piece in pieces {
        let more = if all.is_empty() { piece.len() } else { between.len() + piece.len() };
        if all.len() + more > TEXT {
            break;
        }
        if !all.is_empty() {
            all.push_str(between);
        }
        all.push_str(&piece);
    }
    all
}

fn fill_interfaces(interfaces: &[GuestInterface], profile: &Profile) -> impl FnOnce(&mut Items<'_>) {
    move |items| {
        for interface in interfaces {
            let of = |v6: bool| {
                let those = interface.addresses.iter().filter(move |address| address.is_ipv6() == v6);
                let texts: Vec<String> = those.map(ToString::to_string).collect();
                move |items: &mut Items<'_>| texts.iter().for_each(|text| items.item().text(text))
            };
            items.item().structure(|s| {
                profile.put(s, Key::IfaceName, Some(&interface.name));
                profile.put(s, Key::IfaceHw, Some(&interface.mac));
                profile.put_array(s, Key::IfaceInet, Some(of(false)));
                profile.put_array(s, Key::IfaceInet6, Some(of(true)));
            });
        }
    }
}

fn fill_usage(systems: &[GuestFileSystem], profile: &Profile) -> impl FnOnce(&mut Items<'_>) {
    move |items| {
        for system in systems {
            let (Some(total), Some(used)) = (system.total, system.used) else { continue };
            items.item().structure(|s| {
                profile.put(s, Key::UsagePath, Some(&system.mount));
                profile.put(s, Key::UsageFs, Some(&system.kind));
                profile.put(s, Key::UsageTotal, Some(total));
                profile.put(s, Key::UsageUsed, Some(used));
            });
        }
    }
}

/// The kernel of Linux, as the original had it; otherwise what the system calls itself.
fn system_name(system: &GuestSystem) -> &str {
    let names = match kind(system) {
        Some("linux") => [&system.kernel_release, &system.pretty_name, &system.name],
        _ => [&system.pretty_name, &system.name, &system.kernel_release],
    };
    names.into_iter().find(|name| !name.is_empty()).map_or("", String::as_str)
}

/// The two kinds that managers know. The agent runs on some others, which have names of their own.
fn kind(system: &GuestSystem) -> Option<&'static str> {
    match system.id.as_str() {
        "mswindows" => Some("windows"),
        id if id.ends_with("bsd")
            || matches!(id, "dragonfly" | "solaris" | "illumos" | "darwin" | "macos") =>
        {
            None
        }
        _ => Some("linux"),
    }
}

fn put_system(s: &mut Members<'_>, system: Option<&GuestSystem>, profile: &Profile) {
    let known = system.and_then(|system| Some((system, kind(system)?)));
    let fill = known.map(|(system, kind)| {
        move |s: &mut Members<'_>| {
            let version = if system.version_id.is_empty() { &system.version } else { &system.version_id };
            profile.put(s, Key::OsType, Some(kind));
            profile.put(s, Key::OsArch, Some(&system.machine));
            profile.put(s, Key::OsDistribution, Some(&system.name));
            profile.put(s, Key::OsVersion, Some(version));
            profile.put(s, Key::OsCodename, Some(code_name(system)));
            profile.put(s, Key::OsKernel, Some(&system.kernel_release));
        }
    });
    profile.put_struct(s, Key::GuestOsInfo, fill);
}

/// The edition, or the name in brackets behind the version.
fn code_name(system: &GuestSystem) -> &str {
    if !system.variant.is_empty() {
        return &system.variant;
    }
    let bracketed = system.version.split_once('(').and_then(|(_, rest)| rest.split_once(')'));
    bracketed.map_or("", |(name, _)| name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(id: &str, version: &str) -> GuestSystem {
        GuestSystem { id: id.into(), version: version.into(), ..GuestSystem::default() }
    }

    #[test]
    fn only_systems_that_managers_know_are_described_to_them() {
        assert_eq!(kind(&system("debian", "")), Some("linux"));
        assert_eq!(kind(&system("", "")), Some("linux"), "an agent on Linux need not find a name");
        assert_eq!(kind(&system("mswindows", "")), Some("windows"));
        assert_eq!(kind(&system("freebsd", "")), None);
        assert_eq!(code_name(&system("debian", "12 (bookworm)")), "bookworm");
        assert_eq!(code_name(&system("x", "(")), "");
    }

    #[test]
    fn addresses_that_reach_nobody_else_are_left_out_and_the_rest_fits_into_a_column() {
        let addresses = |texts: &[&str]| GuestInterface {
            addresses: texts.iter().map(|text| text.parse().unwrap()).collect(),
            ..GuestInterface::default()
        };
        let texts =
            ["fe80::1", "2001:db8::1", "127.0.0.1", "::1", "169.254.1.1", "10.0.0.1", "0.0.0.0", "224.0.0.1"];
        assert_eq!(public_addresses(&[addresses(&texts)]), "10.0.0.1 2001:db8::1");
        let many: Vec<String> = (0..=255).map(|byte| format!("10.0.1.{byte}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let joined = public_addresses(&[addresses(&many)]);
        assert!(
            joined.len() <= TEXT && joined.len() > TEXT - 20 && joined.ends_with(" 10.0.1.25"),
            "{joined}"
        );
    }
}
