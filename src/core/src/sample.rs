//! What a running domain uses and what it is made of: plain values, beside the snapshot and never in it.
//!
//! Nothing here takes part in telling why a domain ended. Every value that the hypervisor may not give is an `Option`:
//! what was not measured is absent, never zero.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::evidence::Fact;
use crate::guest::GuestAccount;
use crate::id::{DomainId, RunId};
use crate::snapshot::DomainPublic;
use crate::time::Wall;

/// Counters of one domain, read at one moment. They rise within a run and begin again with the next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sample {
    /// Whether the domain's monitor took part. Without it only some counters are there, and the domain may hang.
    pub answered: bool,
    /// Processor time.
    pub cpu: Option<CpuTime>,
    /// Virtual processors that the guest has now.
    pub vcpus: Option<u32>,
    /// Memory.
    pub memory: Memory,
    /// Network interfaces that the host sees.
    pub nics: Vec<NicCounters>,
    /// Disks.
    pub disks: Vec<DiskCounters>,
}

/// Processor time used since the start, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuTime {
    /// All of it.
    pub total_ns: u64,
    /// In user mode.
    pub user_ns: u64,
    /// In the kernel.
    pub system_ns: u64,
}

/// Memory in KiB. The last two come from the guest's balloon driver, where it reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// What the balloon leaves to the guest.
    pub balloon_kib: Option<u64>,
    /// The most that it may leave.
    pub maximum_kib: Option<u64>,
    /// What the guest's kernel manages.
    pub available_kib: Option<u64>,
    /// What the guest could still use without swapping.
    pub usable_kib: Option<u64>,
    /// What the guest uses for nothing, caches neither.
    pub unused_kib: Option<u64>,
    /// What the guest moves between its memory and its disks.
    pub paging: Paging,
}

/// A guest's paging since its start, as its balloon's driver counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Paging {
    /// Read back from swap, KiB.
    pub swapped_in_kib: Option<u64>,
    /// Written to swap, KiB.
    pub swapped_out_kib: Option<u64>,
    /// Page faults for which a disk was read.
    pub major_faults: Option<u64>,
    /// Page faults for which none was.
    pub minor_faults: Option<u64>,
}

/// One network interface.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NicCounters {
    /// The host's name of its other end, such as `vnet0`.
    pub name: String,
    /// Towards the guest.
    pub received: Traffic,
    /// From the guest.
    pub sent: Traffic,
}

/// One direction of a network interface, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Bytes.
    pub bytes: u64,
    /// Packets with errors.
    pub errors: u64,
    /// Packets dropped.
    pub dropped: u64,
}

/// One disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiskCounters {
    /// The guest's name of it, such as `vda`.
    pub target: String,
    /// The file or device behind it; empty for a drive without a medium.
    pub path: String,
    /// Reads.
    pub reads: Option<Operations>,
    /// Writes.
    pub writes: Option<Operations>,
    /// Flushes; their bytes are 0.
    pub flushes: Option<Operations>,
    /// Bytes that the guest sees.
    pub capacity: Option<u64>,
    /// Bytes of the image up to the end of what was written since the start.
    pub allocation: Option<u64>,
    /// Bytes that the host keeps for the image.
    pub physical: Option<u64>,
}

/// Operations of one kind on a disk, since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Operations {
    /// How many.
    pub count: u64,
    /// Bytes moved.
    pub bytes: u64,
    /// Nanoseconds that they took, all together.
    pub time_ns: u64,
}

/// What libvirt does with a domain whose guest began anew or panicked, as its document says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// It ends, with or without a dump of its memory.
    Ends,
    /// It goes on, or stays as it is.
    Stays,
}

/// What a domain is made of, from its document.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Devices {
    /// Whether the processor runs the guest itself (KVM); else QEMU emulates one.
    pub kvm: bool,
    /// Whether the guest has ACPI.
    pub acpi: bool,
    /// The machine type, such as `pc-i440fx-7.2`.
    pub machine: String,
    /// Memory in KiB.
    pub memory_kib: u64,
    /// Memory that the guest is never to go below, in KiB.
    pub memory_min_kib: u64,
    /// Virtual processors that it has now; it may be given more, or less, while it runs.
    pub vcpus: u32,
    /// Period of the processor bound, in microseconds.
    pub vcpu_period_us: Option<u64>,
    /// Processor time per period, in microseconds; negative for no bound.
    pub vcpu_quota_us: Option<i64>,
    /// Seconds between the guest's clock and UTC.
    pub clock_offset_s: i64,
    /// Kinds of devices to boot from, in order: `hd`, `cdrom`, `network`, `fd`.
    pub boot: Vec<String>,
    /// Screens.
    pub graphics: Vec<Graphics>,
    /// Network interfaces.
    pub nics: Vec<Nic>,
    /// Disks and drives.
    pub disks: Vec<Disk>,
    /// What is said of the images behind disks and drives, by the guest's names of them. The fingerprint needs none of it: an
    /// image is known by its path.
    pub images: BTreeMap<String, Image>,
    /// Every device with its address, these three kinds too.
    pub parts: Vec<Part>,
    /// Whether a guest agent listens on its channel just now.
    pub agent: bool,
    /// What becomes of it when its guest reboots (`on_reboot`); `None` if that was not read.
    pub on_reboot: Option<Fate>,
    /// What becomes of it when its guest panics (`on_crash`); `None` if that was not read.
    pub on_crash: Option<Fate>,
}

impl Devices {
    /// What a reboot or a panic makes of it, as far as that is not the rule.
    pub fn fate(&self) -> impl Iterator<Item = Fact> + use<> {
        let reboot = (self.on_reboot == Some(Fate::Ends)).then_some(Fact::RebootEnds);
        let panic = (self.on_crash == Some(Fate::Stays)).then_some(Fact::PanicStays);
        reboot.into_iter().chain(panic)
    }

    /// A number that is the same exactly as long as the devices are: those of the machine, not its memory, processors,
    /// clock, boot order or agent. It is the same in every process and on every host.
    pub fn fingerprint(&self) -> i64 {
        use std::hash::{Hash, Hasher};
        let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
        (&self.graphics, &self.nics, &self.disks, &self.parts).hash(&mut hasher);
        hasher.finish().cast_signed()
    }
}

/// FNV-1a: the standard library's own hashers may change with its version.
struct Fnv(u64);

impl std::hash::Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A screen that somebody may connect to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Graphics {
    /// `vnc`, `spice` and others.
    pub kind: String,
    /// The port without encryption.
    pub port: Option<u16>,
    /// The port with TLS.
    pub tls_port: Option<u16>,
    /// The address at which it listens, where one is said.
    pub listen: Option<String>,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Nic {
    /// Its hardware address.
    pub mac: String,
    /// The model that the guest sees, such as `virtio`.
    pub model: String,
    /// The host's name of its other end; empty if it has none.
    pub host_name: String,
    /// libvirt's name of it, as in its [`Part`].
    pub alias: String,
    /// Whether its cable is plugged out.
    pub unplugged: bool,
}

/// A disk or drive.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// The guest's name of it, such as `vda`.
    pub target: String,
    /// `disk`, `cdrom`, `floppy` or `lun`.
    pub kind: String,
    /// The file or device behind it; empty for a drive without a medium.
    pub path: String,
    /// Its serial number; empty if none is set.
    pub serial: String,
    /// libvirt's name of it, as in its [`Part`].
    pub alias: String,
    /// The bounds on its throughput, by libvirt's names.
    pub io_tune: BTreeMap<String, u64>,
}

/// How a disk's image is read, and where the guest finds the disk.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Image {
    /// libvirt's word for its format, such as `raw` and `qcow2`; empty if none is said.
    pub format: String,
    /// The bus, such as `virtio` and `ide`.
    pub bus: String,
}

/// A device as `list` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Part {
    /// The kind, as libvirt's element is called: `disk`, `interface`, `controller` and so on.
    pub kind: String,
    /// What it is more closely: `cdrom`, `bridge`, `usb` and so on.
    pub device: String,
    /// libvirt's name of it, such as `virtio-disk0`.
    pub alias: String,
    /// Where the guest finds it, by libvirt's names; empty if it has no place.
    pub address: BTreeMap<String, String>,
    /// Whether the guest may only read.
    pub read_only: bool,
}

/// How much per second, over the time between two samples.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rates {
    /// Processor time outside of user and system mode, in percent of one processor.
    pub cpu_guest: f64,
    /// Processor time in user and system mode, in percent of one processor.
    pub cpu_user_and_system: f64,
    /// Of the guest's memory; absent where its balloon's driver does not count all of it.
    pub paging: Option<PagingRates>,
    /// By the interface's host name; those without two samples are missing.
    pub nics: BTreeMap<String, NicRates>,
    /// By the disk's target; those without two samples are missing.
    pub disks: BTreeMap<String, DiskRates>,
}

/// Of a guest's paging, per second.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PagingRates {
    /// KiB read back from swap.
    pub swapped_in_kib: f64,
    /// KiB written to swap.
    pub swapped_out_kib: f64,
    /// Page faults for which a disk was read.
    pub major_faults: f64,
    /// All page faults.
    pub faults: f64,
}

/// Of one network interface.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct NicRates {
    /// Bytes per second towards the guest.
    pub received: f64,
    /// Bytes per second from the guest.
    pub sent: f64,
}

/// Of one disk.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct DiskRates {
    /// Bytes per second.
    pub read: f64,
    /// Bytes per second.
    pub written: f64,
    /// Nanoseconds that each read of the time took; 0 if there was none.
    pub read_latency_ns: u64,
    /// As for reads.
    pub write_latency_ns: u64,
    /// As for reads.
    pub flush_latency_ns: u64,
}

/// What is known of one run of a domain beyond its snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct Usage {
    /// Which run. It says nothing about another.
    pub run: RunId,
    /// What it is made of, once that was read.
    pub devices: Option<Arc<Devices>>,
    /// The fingerprint of the devices.
    pub fingerprint: Option<i64>,
    /// The latest sample in which the domain took part.
    pub sample: Option<Sample>,
    /// When that was taken.
    pub taken: Wall,
    /// Between that and the one before.
    pub rates: Option<Rates>,
    /// Whether it has taken part in sampling lately.
    pub responds: bool,
    /// Whether nobody waits any more for what it is made of: its document could not be read for long.
    pub unreadable: bool,
    /// How far its migration or its save is that was asked for here: percent.
    pub progress: Option<u8>,
    /// What the guest tells of itself, as long as its agent does.
    pub guest: Option<Arc<GuestAccount>>,
}

/// The latest of all domains. Cloning shares them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Samples {
    /// By domain. A domain may be missing, or be of an earlier run.
    pub domains: BTreeMap<DomainId, Arc<Usage>>,
    /// What managers are to be told first is still being read: what the VMs that were found are made of.
    pub awaited: bool,
    /// Whether it is read at all what VMs are made of.
    pub reads_documents: bool,
}

impl Samples {
    /// Whether managers can be told of this domain: it ended, or what it is made of is known, or will not be soon. A VM that
    /// is told without its devices is taken for one that lost them.
    pub fn can_tell(&self, domain: &DomainPublic) -> bool {
        let read =
            |usage: &Arc<Usage>| usage.run == domain.run && (usage.devices.is_some() || usage.unreadable);
        !self.reads_documents
            || domain.ending.is_some()
            || domain.made.is_some()
            || self.domains.get(&domain.domain).is_some_and(read)
    }
}
