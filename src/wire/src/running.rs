//! What a VM that runs uses and is made of, as its profile wants it. What is not known is not made up: the profile says
//! what a generation of managers gets instead.

use std::sync::Arc;

use whydown_core::sample::{
    Devices, Disk, DiskCounters, DiskRates, Graphics, Nic, NicCounters, NicRates, PagingRates, Rates, Sample,
    Usage,
};
use whydown_core::snapshot::{DomainPublic, Status};

use crate::guest;
use crate::profile::{Key, Profile};
use crate::write::Members;

/// Bytes per second in one percent of a megabit per second.
const BYTES_PER_PERCENT_OF_MBIT: f64 = 1_000_000.0 / 8.0 / 100.0;

/// The members of the profile's sections `vm` (as far as they need samples or devices), `started` and `sampled`, but for
/// those that change by the moment.
pub(crate) fn put(s: &mut Members<'_>, domain: &DomainPublic, usage: Option<&Usage>, profile: &Profile) {
    let devices = made_of(domain, usage);
    let started = usage.filter(|_| domain.status != Status::Launching);
    let fingerprint = devices.and_then(|(_, fingerprint)| fingerprint);
    let devices = devices.map(|(devices, _)| devices);
    profile.put(s, Key::TimeOffset, devices.map(|devices| devices.clock_offset_s));
    profile.put(s, Key::ClientIp, None::<&str>);
    put_machine(s, devices, profile);
    profile.put(s, Key::Hash, fingerprint);
    put_network(s, started, profile);
    put_disks(s, started, profile);
    if domain.status == Status::Launching {
        return;
    }
    let sample = started.and_then(|usage| usage.sample.as_ref());
    // As `list` tells them: what is sampled comes later than what a document was just read for.
    let vcpus = devices.map(|devices| devices.vcpus).or(sample.and_then(|sample| sample.vcpus));
    profile.put(s, Key::VcpuCount, vcpus);
    profile.put(s, Key::VcpuPeriod, devices.and_then(|devices| devices.vcpu_period_us));
    profile.put(s, Key::VcpuQuota, devices.and_then(|devices| devices.vcpu_quota_us));
    let memory = sample.and_then(|sample| GuestMemory::of(sample, started?.rates.as_ref()?));
    guest::put(s, started.and_then(|usage| usage.guest.as_deref()), memory.as_ref(), profile);
    put_balloon(s, sample, devices, profile);
    if let (Some(usage), Some(sample)) = (started, sample) {
        put_sampled(s, usage, sample, profile);
    }
}

/// What the VM is made of, and its fingerprint: as the picture has it, to which every reading comes; or else as it was read
/// for its figures.
pub(crate) fn made_of<'a>(
    domain: &'a DomainPublic,
    usage: Option<&'a Usage>,
) -> Option<(&'a Devices, Option<i64>)> {
    let read = usage.and_then(|usage| Some((usage.devices.as_ref()?, usage.fingerprint)));
    match (&domain.made, read) {
        // The same one, of which the number is known.
        (Some(made), Some((read, fingerprint))) if Arc::ptr_eq(made, read) => Some((made, fingerprint)),
        (Some(made), _) => Some((made, Some(made.fingerprint()))),
        (None, read) => read.map(|(read, fingerprint)| (&**read, fingerprint)),
    }
}

fn truth(truth: bool) -> &'static str {
    if truth { "true" } else { "false" }
}

/// What the machine is, without its counters.
pub(crate) fn put_machine(s: &mut Members<'_>, devices: Option<&Devices>, profile: &Profile) {
    profile.put(s, Key::KvmEnable, devices.map(|devices| truth(devices.kvm)));
    profile.put(s, Key::AcpiEnable, devices.map(|devices| truth(devices.acpi)));
    let screens: Vec<&Graphics> = devices
        .map(|devices| devices.graphics.iter().filter(|screen| type_of(screen).is_some()).collect())
        .unwrap_or_default();
    let first = screens.first();
    profile.put(s, Key::DisplayType, first.and_then(|screen| type_of(screen)));
    profile.put(s, Key::DisplayPort, first.map(|screen| port(screen.port)));
    profile.put(s, Key::DisplaySecurePort, first.map(|screen| port(screen.tls_port)));
    profile.put(s, Key::DisplayIp, first.map(|screen| address(screen).unwrap_or("0")));
    let shown = (!screens.is_empty()).then_some(|items: &mut crate::write::Items<'_>| {
        for screen in &screens {
            items.item().structure(|s| {
                profile.put(s, Key::ScreenType, Some(&screen.kind));
                profile.put(s, Key::ScreenPort, screen.port);
                profile.put(s, Key::ScreenTlsPort, screen.tls_port);
                profile.put(s, Key::ScreenIp, address(screen));
            });
        }
    });
    profile.put_array(s, Key::DisplayInfo, shown);
    let medium =
        devices.and_then(|d| d.disks.iter().find(|disk| disk.kind == "cdrom" && !disk.path.is_empty()));
    profile.put(s, Key::Cdrom, medium.map(|disk| &disk.path));
    let order = devices.map(|devices| boot_letters(&devices.boot)).filter(|letters| !letters.is_empty());
    profile.put(s, Key::Boot, order);
}

/// `qxl` stands for SPICE, as in the original. Managers know no other screens.
fn type_of(screen: &Graphics) -> Option<&'static str> {
    match screen.kind.as_str() {
        "spice" => Some("qxl"),
        "vnc" => Some("vnc"),
        _ => None,
    }
}

fn port(port: Option<u16>) -> i32 {
    port.map_or(-1, i32::from)
}

fn address(screen: &Graphics) -> Option<&str> {
    screen.listen.as_deref().filter(|listen| !listen.is_empty() && *listen != "0.0.0.0")
}

fn boot_letters(boot: &[String]) -> String {
    let letter = |kind: &String| match kind.as_str() {
        "hd" => Some('c'),
        "cdrom" => Some('d'),
        "network" => Some('n'),
        "fd" => Some('a'),
        _ => None,
    };
    boot.iter().filter_map(letter).collect()
}

/// What a guest makes of its memory.
pub(crate) struct GuestMemory {
    pub(crate) total_kib: u64,
    /// Caches count as free.
    pub(crate) free_kib: u64,
    pub(crate) unused_kib: u64,
    pub(crate) paging: PagingRates,
}

impl GuestMemory {
    /// Where its balloon's driver tells all of it: managers that read a part break off without the rest.
    fn of(sample: &Sample, rates: &Rates) -> Option<Self> {
        let memory = &sample.memory;
        Some(Self {
            total_kib: memory.available_kib.filter(|total| *total > 0)?,
            free_kib: memory.usable_kib?,
            unused_kib: memory.unused_kib?,
            paging: rates.paging?,
        })
    }

    /// How much of it the guest uses.
    pub(crate) fn percent(&self) -> u64 {
        self.total_kib.saturating_sub(self.free_kib).saturating_mul(100) / self.total_kib
    }
}

fn put_sampled(s: &mut Members<'_>, usage: &Usage, sample: &Sample, profile: &Profile) {
    let rates = usage.rates.as_ref();
    let percent =
        |of: fn(&Rates) -> f64| rates.filter(|_| sample.cpu.is_some()).map(|r| format!("{:.2}", of(r)));
    profile.put(s, Key::CpuUser, percent(|rates| rates.cpu_guest));
    profile.put(s, Key::CpuSys, percent(|rates| rates.cpu_user_and_system));
    profile.put(s, Key::CpuUsage, sample.cpu.map(|cpu| cpu.total_ns));
    let devices = usage.devices.as_deref();
    let tuned: Vec<&Disk> =
        devices.map(|d| d.disks.iter().filter(|disk| !disk.io_tune.is_empty()).collect()).unwrap_or_default();
    let fill = (!tuned.is_empty()).then_some(|items: &mut crate::write::Items<'_>| {
        for disk in &tuned {
            items.item().structure(|s| {
                profile.put(s, Key::TunedName, Some(&disk.target));
                profile.put(s, Key::TunedPath, Some(&disk.path));
                let bounds = |s: &mut Members<'_>| {
                    for (bound, value) in &disk.io_tune {
                        s.number_text(bound, value);
                    }
                };
                profile.put_struct(s, Key::Tuned, Some(bounds));
            });
        }
    });
    profile.put_array(s, Key::IoTune, fill);
}

fn put_balloon(s: &mut Members<'_>, sample: Option<&Sample>, devices: Option<&Devices>, profile: &Profile) {
    let has = devices.is_some_and(|devices| {
        devices.parts.iter().any(|part| part.kind == "memballoon" && part.device != "none")
    });
    let memory = sample.map(|sample| sample.memory).unwrap_or_default();
    let (current, maximum) = (memory.balloon_kib.filter(|_| has), memory.maximum_kib.filter(|_| has));
    let known = current.is_some() && maximum.is_some();
    let least = devices.map(|devices| devices.memory_min_kib).filter(|_| known);
    let (current, maximum) = (current.filter(|_| known), maximum.filter(|_| known));
    let fill = |s: &mut Members<'_>| {
        profile.put(s, Key::BalloonMax, maximum);
        profile.put(s, Key::BalloonMin, least);
        profile.put(s, Key::BalloonCur, current);
        // Nobody but libvirt's own clients sets a target here, and the guest has long reached it.
        profile.put(s, Key::BalloonTarget, current);
    };
    profile.put_struct(s, Key::BalloonInfo, (known || profile.sends_empty(Key::BalloonInfo)).then_some(fill));
}

fn put_network(s: &mut Members<'_>, usage: Option<&Usage>, profile: &Profile) {
    let mut shown: Vec<(&Nic, Option<(&NicCounters, NicRates)>)> = Vec::new();
    if let Some(devices) = usage.and_then(|usage| usage.devices.as_deref()) {
        for nic in devices.nics.iter().filter(|nic| !nic.host_name.is_empty()) {
            let counted = usage.and_then(|usage| {
                let counters =
                    usage.sample.as_ref()?.nics.iter().find(|known| known.name == nic.host_name)?;
                Some((counters, *usage.rates.as_ref()?.nics.get(&nic.host_name)?))
            });
            // A name twice would cost the manager the whole reply.
            let known = shown.iter().any(|(other, _)| other.host_name == nic.host_name);
            if !known && (counted.is_some() || profile.nics_before_rates) {
                shown.push((nic, counted));
            }
        }
    }
    let fill = (!shown.is_empty()).then_some(|s: &mut Members<'_>| {
        for (nic, counted) in &shown {
            s.structure(&nic.host_name, |s| put_nic(s, nic, *counted, usage, profile));
        }
    });
    profile.put_struct(s, Key::Network, fill);
}

fn put_nic(
    s: &mut Members<'_>,
    nic: &Nic,
    counted: Option<(&NicCounters, NicRates)>,
    usage: Option<&Usage>,
    profile: &Profile,
) {
    // No virtual line has a speed; these are the original's.
    let speed_mbit = if matches!(nic.model.as_str(), "virtio" | "e1000") { 1000 } else { 100 };
    let percent = |bytes: f64| format!("{:.1}", bytes / (f64::from(speed_mbit) * BYTES_PER_PERCENT_OF_MBIT));
    let counters = counted.map(|(counters, _)| counters);
    profile.put(s, Key::NicName, Some(&nic.host_name));
    profile.put(s, Key::MacAddr, Some(&nic.mac));
    profile.put(s, Key::Speed, Some(speed_mbit));
    profile.put(s, Key::State, Some("unknown"));
    // The counters are the host's, the directions the guest's.
    profile.put(s, Key::RxRate, counted.map(|(_, rates)| percent(rates.received)));
    profile.put(s, Key::TxRate, counted.map(|(_, rates)| percent(rates.sent)));
    profile.put(s, Key::RxErrors, counters.map(|counters| counters.received.errors));
    profile.put(s, Key::RxDropped, counters.map(|counters| counters.received.dropped));
    profile.put(s, Key::TxErrors, counters.map(|counters| counters.sent.errors));
    profile.put(s, Key::TxDropped, counters.map(|counters| counters.sent.dropped));
    profile.put(s, Key::Rx, counters.map(|counters| counters.received.bytes));
    profile.put(s, Key::Tx, counters.map(|counters| counters.sent.bytes));
    let taken = usage.filter(|_| counters.is_some()).map(|usage| usage.taken.as_millis() as f64 / 1000.0);
    profile.put(s, Key::SampleTime, taken);
}

fn put_disks(s: &mut Members<'_>, usage: Option<&Usage>, profile: &Profile) {
    let sample = usage.and_then(|usage| usage.sample.as_ref());
    let mut shown: Vec<&DiskCounters> = Vec::new();
    for disk in sample.map(|sample| sample.disks.as_slice()).unwrap_or_default() {
        if !shown.iter().any(|other| other.target == disk.target) {
            shown.push(disk);
        }
    }
    let fill = (!shown.is_empty()).then_some(|s: &mut Members<'_>| {
        for disk in &shown {
            let rates = usage.and_then(|usage| usage.rates.as_ref()?.disks.get(&disk.target));
            let devices = usage.and_then(|usage| usage.devices.as_deref());
            s.structure(&disk.target, |s| put_disk(s, disk, rates, devices, profile));
        }
    });
    profile.put_struct(s, Key::Disks, fill);
}

/// Bytes of its image as a file or device. A raw one is as large as what the guest sees; of another nobody says it, and it has
/// at least what the host keeps for it and what was written to.
pub(crate) fn apparent_size(disk: &DiskCounters, devices: Option<&Devices>) -> Option<u64> {
    let image = devices.and_then(|devices| devices.images.get(&disk.target));
    if image.is_some_and(|image| image.format == "raw") {
        disk.capacity
    } else {
        disk.physical.max(disk.allocation)
    }
}

fn put_disk(
    s: &mut Members<'_>,
    disk: &DiskCounters,
    rates: Option<&DiskRates>,
    devices: Option<&Devices>,
    profile: &Profile,
) {
    let made_of = devices.and_then(|d| d.disks.iter().find(|known| known.target == disk.target));
    profile.put(s, Key::TrueSize, disk.physical);
    profile.put(s, Key::ApparentSize, apparent_size(disk, devices));
    let image = made_of.and_then(|disk| disk.serial.parse::<whydown_core::id::DomainId>().ok());
    profile.put(s, Key::ImageId, image);
    profile.put(s, Key::ReadRate, rates.map(|rates| format!("{:.2}", rates.read)));
    profile.put(s, Key::WriteRate, rates.map(|rates| format!("{:.2}", rates.written)));
    profile.put(s, Key::ReadLatency, rates.map(|rates| rates.read_latency_ns));
    profile.put(s, Key::WriteLatency, rates.map(|rates| rates.write_latency_ns));
    profile.put(s, Key::FlushLatency, rates.map(|rates| rates.flush_latency_ns));
    profile.put(s, Key::ReadOps, disk.reads.map(|reads| reads.count));
    profile.put(s, Key::WriteOps, disk.writes.map(|writes| writes.count));
    profile.put(s, Key::ReadBytes, disk.reads.map(|reads| reads.bytes));
    profile.put(s, Key::WrittenBytes, disk.writes.map(|writes| writes.bytes));
}
