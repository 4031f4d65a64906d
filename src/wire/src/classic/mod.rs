//! `create` as managers before libvirt documents had it: a plain VM from VDSM's own parameters, made into a document.
//!
//! Every parameter is honoured, or has no meaning on a host of its own (`HINTS`), or is refused by its name: a VM must
//! never run otherwise than its manager believes. Images are named by their paths; volumes of VDSM's own storage are not
//! known here.

mod device;
mod document;
mod pinning;
mod screen;

use std::net::IpAddr;

use whydown_core::id::DomainId;
use whydown_core::limits;
use whydown_core::time::Wall;

pub use self::device::led_to;
pub(crate) use self::device::{DRIVE_NAMES, OneMore, VOLUME, medium, one_more};
use self::document::{Element, element};
use self::pinning::Pin;
use crate::fields::Fields;
use crate::refused::{Refused, shown};

/// Members that say something about the manager's own bookkeeping, or ask for what a host does anyway. The original read
/// them no more.
const HINTS: &[&str] = &[
    "memGuaranteedSize",
    "pitReinjection",
    "spiceSslCipherSuite",
    "transparentHugePages",
    "guestDiskMapping",
    "clientIp",
    "agentChannelName",
    "guestFQDN",
    "pid",
    "status",
    "statusTime",
    "exitCode",
    "exitMessage",
    "exitReason",
    // Words of VDSM's command line, which says the same once more by `kvmEnable` and `hda` to `hdd`.
    "vt",
    "imageFile",
    "moreImages",
];

/// Words of `cpuType` that are no model.
const CPU_MODES: &[(&str, &str)] = &[("hostPassthrough", "host-passthrough"), ("hostModel", "host-model")];

/// Letters of `boot`.
const BOOT: &[(char, &str)] = &[('c', "hd"), ('d', "cdrom"), ('n', "network"), ('a', "fd")];

/// A document that was made of classic parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// For libvirt.
    pub xml: String,
    /// The same as a manager may send it: cards that are plugged into nothing are made in a way that no manager may
    /// choose. Everything else in it is the manager's, and to be judged.
    pub judged: String,
}

/// What the host of a VM is like, as far as its document says so or must fit it.
pub struct OnHost<'a> {
    /// Whether it has KVM, for a manager that does not say.
    pub kvm: bool,
    /// Its processors, as the kernel lists them: `0-3`. Empty where it does not.
    pub processors: &'a str,
    /// What time it is there.
    pub now: Wall,
    /// Its address on one of its networks.
    pub address_on: &'a dyn Fn(&str) -> Option<IpAddr>,
}

/// A VM from classic parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicVm {
    /// `vmId`.
    pub domain: DomainId,
    /// What `kvmEnable` says.
    kvm: Option<bool>,
    /// `launchPaused`: its CPUs stand still until `cont`.
    pub paused: bool,
    pins: Vec<Pin>,
    /// Seconds by which its clock is ahead.
    clock_offset_s: i64,
    domain_children: Vec<Element>,
}

impl ClassicVm {
    /// Its document.
    ///
    /// # Errors
    /// [`Refused`] names what this host cannot do: the screen's network where it has no address, processors that it does not
    /// have, a time that no clock here can show.
    pub fn document(&self, host: &OnHost<'_>) -> Result<Documents, Refused> {
        let OnHost { kvm, processors, now, address_on } = *host;
        let bad = |param: String, wanted: String| Refused::Bad { method: "create", param, wanted };
        if let Some(pin) = self.pins.iter().find(|pin| !pin.is_within(processors)) {
            let wanted = format!("of this host's processors, which are {}", processors.trim());
            return Err(bad(format!("cpuPinning.{}", shown(&pin.vcpu)), wanted));
        }
        let clock = (now.as_millis() / 1000).checked_add(self.clock_offset_s);
        if clock.is_none_or(|clock| !CLOCKS.contains(&clock)) {
            return Err(bad("timeOffset".into(), "such that the clock shows a year from 1 to 9999".into()));
        }
        let kind = if self.kvm.unwrap_or(kvm) { "kvm" } else { "qemu" };
        let mut document = element("domain").with("type", kind).children(self.domain_children.clone());
        document.settle(screen::NETWORK, "listen", &|network| {
            let address = address_on(network).map(|address| address.to_string());
            let wanted =
                || format!("a network on which this host has an address, which {} is not", shown(network));
            address.ok_or_else(|| bad("displayNetwork".into(), wanted()))
        })?;
        let judged = document.replaced("interface", "type", device::UNPLUGGED, "bridge");
        Ok(Documents { xml: document.to_xml(), judged: judged.to_xml() })
    }

    pub(crate) fn read(fields: &Fields<'_>) -> Result<Self, Refused> {
        let domain: DomainId = fields.required("vmId")?.parse().map_err(|_| Refused::NotAUuid)?;
        let memory = fields.number("memSize")?.ok_or_else(|| fields.missing("memSize"))?;
        if memory == 0 {
            return Err(Refused::NoMemory);
        }
        // `list` says it in 31 bits. No machine has so much.
        if i32::try_from(memory).is_err() {
            return Err(fields.bad("memSize", "at most 2147483647"));
        }
        if fields.text("vmType")?.is_some_and(|kind| kind != "kvm") {
            return Err(Refused::VmType);
        }
        room_for_more(fields, memory)?;
        let threads = up_to(fields, "numOfIoThreads", limits::IO_THREADS, "at most 1024")?;
        let threads = threads.filter(|&threads| threads > 0);
        fields.ignore(HINTS);
        // Properties that administrators made up for hooks, which would do something; and the engine's own notes.
        fields.structure("custom", |custom| {
            custom.ignore_all("device_");
            Ok(())
        })?;
        let name = fields.text("vmName")?.unwrap_or_else(|| format!("n{domain}"));
        let mut devices = device::read(fields)?;
        let mut children = vec![
            element("name").text(name),
            element("uuid").text(domain),
            element("memory").with("unit", "MiB").text(memory),
        ];
        children.extend(threads.map(|threads| element("iothreads").text(threads)));
        let (made, pins) = processors(fields, memory)?;
        children.extend(made);
        let serial = fields.text("serial")?;
        children.push(boot(fields, &devices, serial.is_some())?);
        if let Some(serial) = serial {
            let entry = element("entry").with("name", "serial").text(serial);
            children.push(element("sysinfo").with("type", "smbios").child(element("system").child(entry)));
        }
        let windows = fields.flag("hypervEnable")?.unwrap_or(false);
        let acpi = fields.flag("acpiEnable")?.unwrap_or(true).then(|| element("acpi"));
        let features = element("features").children(acpi).children(windows.then(enlightenments));
        if features != element("features") {
            children.push(features);
        }
        let (made, clock_offset_s) = clock(fields, windows)?;
        children.extend(made);
        if fields.flag("tabletEnable")?.unwrap_or(false) {
            devices.elements.push(element("input").with("type", "tablet").with("bus", "usb"));
        }
        children.push(element("devices").children(devices.elements));
        let paused = fields.flag("launchPaused")?.unwrap_or(false);
        let kvm = fields.flag("kvmEnable")?;
        Ok(Self { domain, kvm, paused, pins, clock_offset_s, domain_children: children })
    }
}

/// Up to where memory may be added while it runs. No verb here adds any, and who asks for it is told so then: the machine is
/// as large as it was wished. Engines of clusters from 3.6 on ask for up to 4 TiB for every VM, for which most models of
/// processors have not enough address lines in QEMU.
fn room_for_more(fields: &Fields<'_>, memory: u64) -> Result<(), Refused> {
    fields.number("maxMemSlots")?;
    match fields.number("maxMemSize")? {
        Some(most) if most > 0 && most < memory => Err(fields.bad("maxMemSize", "at least memSize")),
        _ => Ok(()),
    }
}

/// What Windows is told of the machine that it runs on, as the original had it.
fn enlightenments() -> Element {
    let on = |name| element(name).with("state", "on");
    element("hyperv").child(on("relaxed")).child(on("vapic")).child(on("spinlocks").with("retries", 8191))
}

/// The times, in seconds since 1970, that libvirt can have a machine's clock begin with: the years 1 to 9999.
const CLOCKS: std::ops::Range<i64> = -62_135_596_800..253_402_300_800;

/// And how far it is ahead.
fn clock(fields: &Fields<'_>, windows: bool) -> Result<(Option<Element>, i64), Refused> {
    let offset = fields.text("timeOffset")?;
    if offset.is_none() && !windows {
        return Ok((None, 0));
    }
    let seconds: i64 =
        offset.as_deref().unwrap_or("0").parse().map_err(|_| fields.bad("timeOffset", "seconds"))?;
    let timer = windows.then(|| element("timer").with("name", "hypervclock").with("present", "yes"));
    let made = element("clock").with("offset", "variable").with("adjustment", seconds).children(timer);
    Ok((Some(made), seconds))
}

/// The weight among others when processors are short: `cpuShares`, or what VDSM made of `nice`.
fn shares(fields: &Fields<'_>) -> Result<Option<u64>, Refused> {
    let nice = match fields.text("nice")? {
        None => 0,
        Some(text) => {
            let read: Option<i64> = text.parse().ok().filter(|nice| (-20..=19).contains(nice));
            read.ok_or_else(|| fields.bad("nice", "a whole number from -20 to 19"))?
        }
    };
    let own = fields.number("cpuShares")?.filter(|&shares| shares > 0);
    // Without a wish it is left to libvirt, which needs no control group for it then.
    Ok(own.or_else(|| (nice != 0).then(|| u64::try_from((20 - nice) * 51).unwrap_or_default())))
}

/// Parts of the machine with memory and processors of their own, which must be the whole memory.
fn nodes(fields: &Fields<'_>, memory: u64) -> Result<Option<Element>, Refused> {
    let mut cells = fields.structures("guestNumaNodes", |_, node| {
        let mib = node.number("memory")?.ok_or_else(|| node.missing("memory"))?;
        let cell =
            element("cell").with("cpus", node.required("cpus")?).with("memory", mib).with("unit", "MiB");
        Ok((node.number("nodeIndex")?.ok_or_else(|| node.missing("nodeIndex"))?, mib, cell))
    })?;
    if cells.is_empty() {
        return Ok(None);
    }
    if cells.iter().map(|(_, mib, _)| mib).sum::<u64>() != memory {
        return Err(fields.bad("guestNumaNodes", "such that their memory is memSize"));
    }
    cells.sort_by_key(|(index, ..)| *index);
    Ok(Some(element("numa").children(cells.into_iter().map(|(.., cell)| cell))))
}

/// From which of the host's nodes the memory is to come. Without them nothing follows from it, as in the original.
fn node_tuning(fields: &Fields<'_>) -> Result<Option<Element>, Refused> {
    let tuning = fields.structure("numaTune", |tune| {
        let modes = ["strict", "preferred", "interleave"].map(|mode| (mode, mode));
        Ok((tune.word("mode", &modes)?, tune.text("nodeset")?))
    })?;
    let Some((mode, Some(nodes))) = tuning else { return Ok(None) };
    let memory = element("memory").with("mode", mode.unwrap_or("strict")).with("nodeset", nodes);
    Ok(Some(element("numatune").child(memory)))
}

/// A number up to a bound that no VM comes near: libvirt would try to make so many.
fn up_to(
    fields: &Fields<'_>,
    name: &'static str,
    most: u64,
    wanted: &'static str,
) -> Result<Option<u64>, Refused> {
    match fields.number(name)? {
        Some(number) if number > most => Err(fields.bad(name, wanted)),
        number => Ok(number),
    }
}

fn processors(fields: &Fields<'_>, memory: u64) -> Result<(Vec<Element>, Vec<Pin>), Refused> {
    let vcpus = |name| up_to(fields, name, limits::VCPUS, "at most 4096");
    let present = vcpus("smp")?.unwrap_or(1).max(1);
    let most = vcpus("maxVCpus")?.unwrap_or(present);
    if most < present {
        return Err(fields.bad("maxVCpus", "at least smp"));
    }
    let mut vcpu = element("vcpu").text(most);
    if most > present {
        vcpu = vcpu.with("current", present);
    }
    let mut parts = vec![vcpu];
    let pins = pinning::read(fields, most)?;
    let share = shares(fields)?.map(|shares| element("shares").text(shares));
    let tune = element("cputune").children(share).children(pins.iter().map(Pin::element));
    if tune != element("cputune") {
        parts.push(tune);
    }
    let (cores, threads) = (fields.number("smpCoresPerSocket")?, fields.number("smpThreadsPerCore")?);
    let mut cpu = element("cpu");
    let model = fields.text("cpuType")?;
    if let Some(mode) = CPU_MODES.iter().find(|(word, _)| model.as_deref() == Some(*word)) {
        cpu = cpu.with("mode", mode.1);
    } else if let Some(model) = &model {
        // VDSM's form: a model, then features, such as `SandyBridge,+pcid`.
        let mut words = model.split(',');
        cpu = cpu.with("match", "exact").child(element("model").text(words.next().unwrap_or_default()));
        for word in words {
            let (policy, feature) = match word.split_at_checked(1) {
                Some(("+", feature)) => ("require", feature),
                Some(("-", feature)) => ("disable", feature),
                _ => return Err(fields.bad("cpuType", "a model with +feature or -feature behind it")),
            };
            cpu = cpu.child(element("feature").with("policy", policy).with("name", feature));
        }
    }
    if cores.is_some() || threads.is_some() {
        let (cores, threads) = (cores.unwrap_or(1).max(1), threads.unwrap_or(1).max(1));
        if most % (cores * threads) != 0 {
            return Err(fields.bad("smpCoresPerSocket", "such that sockets come out whole"));
        }
        let sockets = most / (cores * threads);
        let topology = element("topology");
        cpu = cpu.child(topology.with("sockets", sockets).with("cores", cores).with("threads", threads));
    }
    let cpu = cpu.children(nodes(fields, memory)?);
    if cpu != element("cpu") {
        parts.push(cpu);
    }
    parts.extend(node_tuning(fields)?);
    Ok((parts, pins))
}

fn boot(fields: &Fields<'_>, devices: &device::Devices, has_serial: bool) -> Result<Element, Refused> {
    let machine = fields.text("emulatedMachine")?;
    let mut os = element("os").child(element("type").maybe("machine", machine).text("hvm"));
    for (name, part) in [("kernel", "kernel"), ("initrd", "initrd"), ("kernelArgs", "cmdline")] {
        if let Some(text) = fields.text(name)? {
            os = os.child(element(part).text(text));
        }
    }
    let letters = fields.text("boot")?;
    if let Some(letters) = &letters {
        if letters.contains('c') && !devices.has_disk {
            return Err(Refused::NoBootDisk);
        }
        if devices.orders_boot {
            return Err(fields.bad("boot", "absent where a device has bootOrder"));
        }
        for letter in letters.chars() {
            let known = BOOT.iter().find(|(known, _)| *known == letter);
            let (_, dev) = known.ok_or_else(|| fields.bad("boot", "made of the letters c, d, n and a"))?;
            os = os.child(element("boot").with("dev", dev));
        }
    } else if !devices.orders_boot && devices.has_disk {
        os = os.child(element("boot").with("dev", "hd"));
    }
    if let Some(menu) = fields.flag("bootMenuEnable")? {
        os = os.child(element("bootmenu").with("enable", if menu { "yes" } else { "no" }));
    }
    Ok(os.children(has_serial.then(|| element("smbios").with("mode", "sysinfo"))))
}
