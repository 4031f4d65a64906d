//! The host verbs: what a manager wants to know of a host before it trusts it with VMs.
//!
//! The caller reads the facts; this file knows under which name and type each goes out. `cpuSpeed`, `HBAInventory` and
//! the three CPU loads are always sent, for engines give the host up without them; what is not known is left out.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;
use jiff::Timestamp;
use whydown_core::time::Wall;

use crate::board::VmCounts;
use crate::codes::{Code, put_status};
use crate::network::{self, LinkTraffic, NetLink};
use crate::profile::{Generation, Profile};
use crate::write::{self, Members};

/// What a host can do and what it is made of. It changes with a reboot or an installation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostFacts {
    /// The host's UUID, from its firmware or its machine id.
    pub uuid: Option<String>,
    /// Whether KVM can be used; a host without is set non-operational.
    pub kvm: bool,
    /// Machine types that the emulator knows.
    pub machines: Vec<String>,
    /// CPU model as the kernel names it.
    pub cpu_model: Option<String>,
    /// CPU clock in MHz.
    pub cpu_mhz: f64,
    /// Cores of all sockets.
    pub cpu_cores: u32,
    /// Threads of all cores.
    pub cpu_threads: u32,
    /// Sockets.
    pub cpu_sockets: u32,
    /// CPU flags, as the kernel names them.
    pub cpu_flags: Vec<String>,
    /// The processor models that VMs can have here, as `Nehalem`; managers choose among those that they know.
    pub cpu_models: Vec<String>,
    /// Where a VM's random numbers can come from, as [`RNG_SOURCES`] names them.
    pub rng_sources: Vec<&'static str>,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The operating system.
    pub system: OperatingSystem,
    /// Packages that managers look at (`vdsm`, `libvirt`, `qemu-kvm`, `kernel`).
    pub packages: BTreeMap<String, Package>,
    /// iSCSI initiator name.
    pub iscsi_initiator: Option<String>,
    /// What SELinux does: `1` enforcing, `0` permissive, `-1` disabled.
    pub selinux_mode: Option<String>,
    /// From the firmware.
    pub hardware: Hardware,
    /// The host's own network links.
    pub links: Vec<NetLink>,
}

/// Sources of random numbers, by the name that managers have for each, with the host's file. `urandom` is taken by `create`
/// and not named here: engines up to 4.0 lose the whole reply over a name that they do not know, and later ones take
/// `random` for it.
pub const RNG_SOURCES: [(&str, &str); 2] = [("random", "/dev/random"), ("hwrng", "/dev/hwrng")];

impl HostFacts {
    /// The first address that it has on the network of this name: a bridge, or the link itself.
    pub fn address_on(&self, network: &str) -> Option<IpAddr> {
        let link = self.links.iter().find(|link| link.name == network)?;
        link.addresses.first().map(|(address, _)| *address)
    }
}

/// Name, version and release of an operating system.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OperatingSystem {
    /// Such as `RHEL`.
    pub name: String,
    /// Such as `7`.
    pub version: String,
    /// Such as `2.1511.el7`.
    pub release: String,
}

/// Version and release of a package.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Package {
    /// Such as `4.16.38`.
    pub version: String,
    /// Such as `1.el7`.
    pub release: String,
}

/// The six texts of `getVdsHardwareInfo`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Hardware {
    /// Who made it.
    pub manufacturer: Option<String>,
    /// What it is called.
    pub product: Option<String>,
    /// Its version.
    pub version: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its UUID.
    pub uuid: Option<String>,
    /// Its family.
    pub family: Option<String>,
}

/// What a host is doing at `now`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HostStats {
    /// When this was read.
    pub now: Wall,
    /// When the host booted.
    pub booted: Option<Wall>,
    /// When this daemon started.
    pub started: Wall,
    /// Percent of all CPUs in user mode.
    pub cpu_user: f64,
    /// Percent in the kernel.
    pub cpu_system: f64,
    /// Percent idle.
    pub cpu_idle: f64,
    /// Load average over five minutes.
    pub load: f64,
    /// Memory in use, percent.
    pub memory_used_percent: u32,
    /// Memory that guests may still get, MiB.
    pub memory_available_mib: u64,
    /// Memory that is free, MiB.
    pub memory_free_mib: u64,
    /// Memory promised to guests, MiB.
    pub memory_committed_mib: Option<u64>,
    /// Swap, MiB.
    pub swap_total_mib: u64,
    /// Swap that is free, MiB.
    pub swap_free_mib: u64,
    /// Huge pages given out transparently, MiB.
    pub anon_huge_mib: Option<u64>,
    /// `always`, `madvise` or `never`.
    pub thp: Option<String>,
    /// Kernel same-page merging.
    pub ksm: Option<Ksm>,
    /// Free space by path, MiB.
    pub disk_free_mib: BTreeMap<String, u64>,
    /// What goes over its links, by name.
    pub traffic: BTreeMap<String, LinkTraffic>,
    /// A UUID of this start of the daemon.
    pub generation: Option<String>,
}

/// Kernel same-page merging.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ksm {
    /// Whether it runs.
    pub running: bool,
    /// Pages that it scans at a time.
    pub pages: u64,
    /// Percent of a CPU that it takes.
    pub cpu: u32,
    /// Memory that it shares, MiB.
    pub shared_mib: u64,
}

/// The reply to `getVdsCapabilities`. `client`: who asks, where that has an address.
pub fn capabilities(host: &HostFacts, generation: Generation, client: Option<IpAddr>) -> Bytes {
    let profile = Profile::of(generation);
    info_reply(4096, |s| {
        s.text("kvmEnabled", if host.kvm { "true" } else { "false" });
        s.texts("emulatedMachines", &host.machines);
        put_optional(s, "uuid", &host.uuid);
        put_optional(s, "cpuModel", &host.cpu_model);
        s.number_text("cpuSpeed", format_args!("{:.3}", sound(host.cpu_mhz)));
        s.number_text("cpuCores", host.cpu_cores);
        s.number_text("cpuThreads", host.cpu_threads);
        s.number_text("cpuSockets", host.cpu_sockets);
        s.text("cpuFlags", &cpu_flags(host));
        s.number_text("memSize", host.memory_mib);
        s.text("reservedMem", "321");
        s.text("guestOverhead", "65");
        s.structure("operatingSystem", |s| {
            s.text("name", &host.system.name);
            s.text("version", &host.system.version);
            s.text("release", &host.system.release);
        });
        s.structure("packages2", |s| {
            for (name, package) in &host.packages {
                s.structure(name, |s| {
                    s.text("version", &package.version);
                    s.text("release", &package.release);
                });
            }
        });
        let vdsm = host.packages.get("vdsm");
        s.text("software_version", vdsm.map_or("", |package| &package.version));
        s.text("software_revision", vdsm.map_or("", |package| &package.release));
        s.text("version_name", "whydown");
        s.texts("clusterLevels", &profile.cluster_levels);
        s.texts("supportedENGINEs", &profile.engines);
        s.texts("vmTypes", ["kvm"]);
        s.texts("rngSources", &host.rng_sources);
        s.structure("HBAInventory", |s| {
            s.array("iSCSI", |items| {
                if let Some(name) = &host.iscsi_initiator {
                    items.item().structure(|s| s.text("InitiatorName", name));
                }
            });
            s.array("FC", |_| {});
        });
        put_optional(s, "ISCSIInitiatorName", &host.iscsi_initiator);
        if let Some(mode) = &host.selinux_mode {
            s.structure("selinux", |s| s.text("mode", mode));
        }
        network::put_links(s, &host.links, profile.switch.as_deref());
        s.structure("hooks", |_| {});
        if let Some(client) = client {
            s.number_text("lastClient", client.to_canonical());
            if let Some(link) = network::towards(&host.links, client) {
                s.text("lastClientIface", &link.name);
            }
        }
        s.text("netConfigDirty", "False");
        s.text("liveSnapshot", "false");
        s.text("liveMerge", "false");
    })
}

/// The reply to `getVdsStats`.
pub fn host_stats(host: &HostFacts, stats: &HostStats, vms: VmCounts) -> Bytes {
    info_reply(4096, |s| {
        for (name, percent) in [
            ("cpuUser", stats.cpu_user),
            ("cpuSys", stats.cpu_system),
            ("cpuIdle", stats.cpu_idle),
            ("cpuLoad", stats.load),
        ] {
            s.number_text(name, format_args!("{:.2}", sound(percent)));
        }
        s.number_text("elapsedTime", stats.now.since(stats.started).as_secs());
        if let Some(booted) = stats.booted {
            s.number_text("bootTime", booted.as_secs());
        }
        s.text("dateTime", &date_time(stats.now));
        s.number_text("memUsed", stats.memory_used_percent);
        s.int("memAvailable", int(stats.memory_available_mib));
        s.int("memFree", int(stats.memory_free_mib));
        if let Some(committed) = stats.memory_committed_mib {
            s.int("memCommitted", int(committed));
        }
        s.int("swapTotal", int(stats.swap_total_mib));
        s.int("swapFree", int(stats.swap_free_mib));
        if let Some(huge) = stats.anon_huge_mib {
            s.number_text("anonHugePages", huge);
        }
        put_optional(s, "thpState", &stats.thp);
        if let Some(ksm) = stats.ksm {
            s.boolean("ksmState", ksm.running);
            s.int("ksmPages", int(ksm.pages));
            s.int("ksmCpu", int(ksm.cpu.into()));
            s.int("memShared", int(ksm.shared_mib));
        }
        s.structure("diskStats", |s| {
            for (path, free) in &stats.disk_free_mib {
                s.structure(path, |s| s.number_text("free", free));
            }
        });
        network::put_traffic(s, &host.links, &stats.traffic);
        s.int("vmCount", int(vms.all as u64));
        s.int("vmActive", int(vms.active as u64));
        s.int("vmMigrating", int(vms.migrating as u64));
        s.structure("storageDomains", |_| {});
        s.text("netConfigDirty", "False");
        s.text("momStatus", "inactive");
        put_optional(s, "generationID", &stats.generation);
    })
}

/// The reply to `getVdsHardwareInfo`.
pub fn hardware(hardware: &Hardware) -> Bytes {
    info_reply(1024, |s| {
        put_optional(s, "systemManufacturer", &hardware.manufacturer);
        put_optional(s, "systemProductName", &hardware.product);
        put_optional(s, "systemVersion", &hardware.version);
        put_optional(s, "systemSerialNumber", &hardware.serial);
        put_optional(s, "systemUUID", &hardware.uuid);
        put_optional(s, "systemFamily", &hardware.family);
    })
}

/// The flags, and behind them the models as VDSM marked them: an engine's list of processors asks for both.
fn cpu_flags(host: &HostFacts) -> String {
    let models = host.cpu_models.iter().map(|model| format!("model_{model}"));
    host.cpu_flags.iter().cloned().chain(models).collect::<Vec<_>>().join(",")
}

fn info_reply(capacity: usize, fill: impl FnOnce(&mut Members<'_>)) -> Bytes {
    write::reply(capacity, |slot| {
        slot.structure(|s| {
            put_status(s, Code::Done, "");
            s.structure("info", fill);
        });
    })
    .into()
}

fn put_optional(s: &mut Members<'_>, name: &str, text: &Option<String>) {
    if let Some(text) = text {
        s.text(name, text);
    }
}

/// A number that every manager can read as one: neither negative nor "NaN".
pub(crate) fn sound(number: f64) -> f64 {
    if number.is_finite() { number.max(0.0) } else { 0.0 }
}

/// The wire's integers have 32 bits; more MiB than that is no host.
fn int(number: u64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// As VDSM wrote it: `2016-02-29T12:00:00 GMT`.
fn date_time(at: Wall) -> String {
    let at = Timestamp::from_second(at.as_secs()).unwrap_or(Timestamp::UNIX_EPOCH);
    at.strftime("%Y-%m-%dT%H:%M:%S GMT").to_string()
}
