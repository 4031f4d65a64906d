//! What a manager wants to know of the host itself, read from `/proc`, `/sys` and libvirt.
//!
//! Facts are read at the start and with every new link; figures are sampled in the background. A poll never reads
//! anything. What cannot be read is left out, never guessed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use procfs::{Current, CurrentSI};
use tokio::sync::watch;
use tracing::{debug, info, warn};
use whydown_core::snapshot::Link;
use whydown_core::time::Wall;
use whydown_libvirt::{Hypervisor, Versions};
use whydown_wire::{Hardware, HostFacts, HostStats, OperatingSystem, Package, RNG_SOURCES};

use super::abilities::{self, Abilities};
use super::engine::Published;
use super::{clock, network};

/// How often figures are read. Managers poll every two to fifteen seconds.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);

/// Links come and go seldom: they are looked for in each so many samples.
const LINKS_EVERY: u64 = 5;

/// How long until libvirt is asked again what it can do, if it did not say, and how often.
const LEARN_AGAIN: Duration = Duration::from_secs(1);
const LEARN_TRIES: u32 = 30;

const MIB: u64 = 1024 * 1024;

/// The host as it is known now.
#[derive(Debug, Clone)]
pub struct Host {
    inner: Arc<Mutex<Known>>,
}

#[derive(Debug)]
struct Known {
    facts: Arc<HostFacts>,
    /// What else is read while the daemon runs.
    stats: HostStats,
    busy: Option<Busy>,
    /// Whether libvirt was asked.
    learned: bool,
}

/// Clock ticks of all CPUs since boot.
#[derive(Debug, Clone, Copy)]
struct Busy {
    user: u64,
    system: u64,
    idle: u64,
}

impl Host {
    /// Reads everything once.
    pub fn read(state_dir: &Path, started: Wall) -> Self {
        let known = Known {
            facts: Arc::new(facts()),
            stats: HostStats { started, ..stats(state_dir) },
            busy: busy(),
            learned: false,
        };
        Self { inner: Arc::new(Mutex::new(known)) }
    }

    /// Keeps the figures fresh for ever.
    pub async fn sample(self, state_dir: std::path::PathBuf) {
        let mut every = tokio::time::interval(SAMPLE_EVERY);
        let mut round = 0_u64;
        loop {
            every.tick().await;
            let folder = state_dir.clone();
            round += 1;
            let (mut links, before) = (self.facts().links.clone(), self.lock().stats.traffic.clone());
            let read = move || {
                if round.is_multiple_of(LINKS_EVERY) {
                    links = network::links();
                }
                let traffic = network::traffic(&links, &before, clock::wall());
                (HostStats { traffic, ..stats(&folder) }, busy(), links)
            };
            let Ok((fresh, now_busy, links)) = tokio::task::spawn_blocking(read).await else { continue };
            let mut known = self.lock();
            let started = known.stats.started;
            let (before, kept) =
                (known.busy, (known.stats.cpu_user, known.stats.cpu_system, known.stats.cpu_idle));
            let (cpu_user, cpu_system, cpu_idle) = match (before, now_busy) {
                (Some(before), Some(now)) => shares(before, now).unwrap_or(kept),
                _ => kept,
            };
            known.stats = HostStats { started, cpu_user, cpu_system, cpu_idle, ..fresh };
            known.busy = now_busy;
            if known.facts.links != links {
                known.facts = Arc::new(HostFacts { links, ..(*known.facts).clone() });
            }
        }
    }

    /// Asks libvirt with every new link what it is and what it can do, for ever.
    pub async fn learn(self, hypervisor: Hypervisor, mut published: watch::Receiver<Published>) {
        let (mut learned, mut tries) = (false, 0);
        loop {
            let up = matches!(published.borrow_and_update().snapshot.link, Link::Up);
            if up && !learned {
                let asked = hypervisor.clone();
                let ask = move || (asked.versions(), asked.domain_capabilities());
                match tokio::task::spawn_blocking(ask).await {
                    Ok((Ok(versions), domains)) => {
                        if let Err(refusal) = &domains {
                            info!(
                                "libvirt does not say which processors VMs can have; a manager that chooses among them finds none: {refusal}"
                            );
                        }
                        self.set(&versions, domains.ok().as_deref());
                        learned = true;
                    }
                    Ok((Err(refusal), _)) if tries < LEARN_TRIES => {
                        debug!("libvirt does not say what it can do: {refusal}");
                        tries += 1;
                        tokio::time::sleep(LEARN_AGAIN).await;
                        continue;
                    }
                    Ok((Err(refusal), _)) => {
                        warn!("libvirt does not say what it can do, and managers are not told: {refusal}");
                        self.lock().learned = true;
                        learned = true;
                    }
                    Err(_) => return,
                }
            }
            (learned, tries) = if up { (learned, tries) } else { (false, 0) };
            if published.changed().await.is_err() {
                return;
            }
        }
    }

    /// Adds what libvirt knows. `domains`: its document of what VMs can have here, if it has one.
    fn set(&self, versions: &Versions, domains: Option<&str>) {
        let package = |number: u64| Package {
            version: format!("{}.{}.{}", number / 1_000_000, number / 1_000 % 1_000, number % 1_000),
            release: String::new(),
        };
        let abilities = Abilities::read(&versions.capabilities);
        let mut known = self.lock();
        let mut facts = (*known.facts).clone();
        facts.packages.insert("libvirt".into(), package(versions.libvirt));
        if let Some(hypervisor) = versions.hypervisor {
            facts.packages.insert("qemu-kvm".into(), package(hypervisor));
        }
        facts.cpu_models = domains
            .map(|domains| abilities::models(domains, abilities.vendor.as_deref()))
            .unwrap_or_default();
        facts.kvm = abilities.kvm.unwrap_or(facts.kvm);
        facts.machines = abilities.machines;
        known.facts = Arc::new(facts);
        known.learned = true;
    }

    /// Whether libvirt was asked what it can do here. Before that much of it is missing, and a manager that sees a host
    /// without machine types puts it out of operation.
    pub fn is_learned(&self) -> bool {
        self.lock().learned
    }

    /// What it can do and is made of.
    pub fn facts(&self) -> Arc<HostFacts> {
        Arc::clone(&self.lock().facts)
    }

    /// What it was doing when last read.
    pub fn stats(&self) -> HostStats {
        HostStats { now: clock::wall(), ..self.lock().stats.clone() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn shares(before: Busy, now: Busy) -> Option<(f64, f64, f64)> {
    let (user, system) = (now.user.saturating_sub(before.user), now.system.saturating_sub(before.system));
    let idle = now.idle.saturating_sub(before.idle);
    let all = user + system + idle;
    let percent = |part: u64| part as f64 * 100.0 / all as f64;
    (all > 0).then(|| (percent(user), percent(system), percent(idle)))
}

fn busy() -> Option<Busy> {
    let total = procfs::KernelStats::current().ok()?.total;
    Some(Busy {
        user: total.user + total.nice,
        system: total.system + total.irq.unwrap_or(0) + total.softirq.unwrap_or(0),
        idle: total.idle + total.iowait.unwrap_or(0),
    })
}

fn stats(state_dir: &Path) -> HostStats {
    let memory = procfs::Meminfo::current().ok();
    let of = |read: fn(&procfs::Meminfo) -> u64| memory.as_ref().map_or(0, read);
    let total = of(|m| m.mem_total);
    let free = of(|m| m.mem_free);
    let available = of(|m| m.mem_available.unwrap_or(m.mem_free));
    let uptime = procfs::Uptime::current().ok().map(|up| up.uptime_duration());
    let now = clock::wall();
    HostStats {
        now,
        booted: uptime.map(|up| Wall(now.0.saturating_sub(i64::try_from(up.as_nanos()).unwrap_or(0)))),
        cpu_idle: 100.0,
        load: procfs::LoadAverage::current().map_or(0.0, |load| f64::from(load.five)),
        memory_used_percent: (total - available.min(total))
            .checked_mul(100)
            .and_then(|used| used.checked_div(total))
            .and_then(|percent| u32::try_from(percent).ok())
            .unwrap_or(0),
        memory_available_mib: available / MIB,
        memory_free_mib: free / MIB,
        memory_committed_mib: None,
        swap_total_mib: of(|m| m.swap_total) / MIB,
        swap_free_mib: of(|m| m.swap_free) / MIB,
        anon_huge_mib: memory.as_ref().and_then(|m| m.anon_hugepages).map(|bytes| bytes / MIB),
        thp: chosen("/sys/kernel/mm/transparent_hugepage/enabled"),
        disk_free_mib: disk_free(state_dir),
        ..HostStats::default()
    }
}

fn disk_free(state_dir: &Path) -> BTreeMap<String, u64> {
    ["/tmp", "/var/log"]
        .iter()
        .map(Path::new)
        .chain([state_dir])
        .filter_map(|path| {
            let on = rustix::fs::statvfs(path).ok()?;
            Some((path.display().to_string(), on.f_bavail.saturating_mul(on.f_frsize) / MIB))
        })
        .collect()
}

/// The word in brackets of a kernel switch: `always [madvise] never`.
fn chosen(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.split_whitespace().find_map(|word| Some(word.strip_prefix('[')?.strip_suffix(']')?.to_owned()))
}

fn facts() -> HostFacts {
    let cpus = procfs::CpuInfo::current().ok();
    let field = |name: &str| cpus.as_ref().and_then(|c| c.get_field(0, name)).map(str::to_owned);
    let threads = cpus.as_ref().map_or(1, |c| c.num_cores().max(1));
    let sockets = cpus.as_ref().map_or(1, |c| {
        let ids: std::collections::BTreeSet<_> =
            (0..c.num_cores()).filter_map(|n| c.physical_id(n)).collect();
        ids.len().max(1)
    });
    let cores = field("cpu cores").and_then(|n| n.parse::<usize>().ok()).map_or(threads, |n| n * sockets);
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let release = os_release();
    let hardware = Hardware {
        manufacturer: dmi("sys_vendor"),
        product: dmi("product_name"),
        version: dmi("product_version"),
        serial: dmi("product_serial"),
        uuid: dmi("product_uuid"),
        family: dmi("product_family"),
    };
    HostFacts {
        uuid: hardware.uuid.clone().or_else(machine_id),
        kvm: Path::new("/dev/kvm").exists(),
        cpu_model: field("model name"),
        cpu_mhz: field("cpu MHz").and_then(|mhz| mhz.parse().ok()).unwrap_or(0.0),
        cpu_cores: number(cores),
        cpu_threads: number(threads),
        cpu_sockets: number(sockets),
        cpu_flags: field("flags")
            .map(|f| f.split_whitespace().map(str::to_owned).collect())
            .unwrap_or_default(),
        rng_sources: RNG_SOURCES
            .into_iter()
            .filter(|(_, file)| Path::new(file).exists())
            .map(|(name, _)| name)
            .collect(),
        memory_mib: procfs::Meminfo::current().map_or(0, |m| m.mem_total / MIB),
        system: OperatingSystem {
            name: release.get("ID").cloned().unwrap_or_default(),
            version: release.get("VERSION_ID").cloned().unwrap_or_default(),
            release: String::new(),
        },
        packages: packages(),
        selinux_mode: std::fs::read_to_string("/sys/fs/selinux/enforce")
            .map(|mode| mode.trim().to_owned())
            .ok()
            .or_else(|| Some("-1".into())),
        hardware,
        links: network::links(),
        ..HostFacts::default()
    }
}

/// The host's processors as the kernel lists them, such as `0-3`; empty where it does not. They may come and go.
pub fn processors() -> String {
    std::fs::read_to_string("/sys/devices/system/cpu/present").unwrap_or_default()
}

fn packages() -> BTreeMap<String, Package> {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    let (version, release) = kernel.split_once('-').unwrap_or((&kernel, ""));
    let package = |version: &str, release: &str| Package { version: version.into(), release: release.into() };
    BTreeMap::from([
        ("kernel".to_owned(), package(version, release)),
        // Managers look for the agent under the name of the original.
        ("vdsm".to_owned(), package(env!("CARGO_PKG_VERSION"), "whydown")),
    ])
}

fn os_release() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()))
        .collect()
}

fn dmi(file: &str) -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/sys/class/dmi/id").join(file)).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn machine_id() -> Option<String> {
    let text = std::fs::read_to_string("/etc/machine-id").ok()?;
    let id: whydown_core::id::DomainId = text.trim().parse().ok()?;
    Some(id.to_string())
}
