//! `create` as managers before libvirt documents had it: a plain VM from VDSM's own parameters, made into a document.
//!
//! Every parameter is honoured, or has no meaning on a host of its own (`HINTS`), or is refused by its name: a VM must
//! never run otherwise than its manager believes. Images are named by their paths; volumes of VDSM's own storage are not
//! known here.

mod device;
mod document;

use whydown_core::id::DomainId;

use self::document::{Element, element};
use crate::fields::Fields;
use crate::refused::Refused;

/// Members that say something about the manager's own bookkeeping, or ask for what a host does anyway.
const HINTS: &[&str] = &[
    "memGuaranteedSize",
    "transparentHugePages",
    "clientIp",
    "agentChannelName",
    "guestFQDN",
    "pid",
    "status",
    "statusTime",
    "exitCode",
    "exitMessage",
    "exitReason",
];

/// Letters of `boot`.
const BOOT: &[(char, &str)] = &[('c', "hd"), ('d', "cdrom"), ('n', "network"), ('a', "fd")];

/// A VM from classic parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicVm {
    /// `vmId`.
    pub domain: DomainId,
    /// What `kvmEnable` says.
    kvm: Option<bool>,
    domain_children: Vec<Element>,
}

impl ClassicVm {
    /// libvirt's document. `kvm`: whether this host has it, for a manager that does not say.
    pub fn document(&self, kvm: bool) -> String {
        let kind = if self.kvm.unwrap_or(kvm) { "kvm" } else { "qemu" };
        element("domain").with("type", kind).children(self.domain_children.clone()).to_xml()
    }

    pub(crate) fn read(fields: &Fields<'_>) -> Result<Self, Refused> {
        let domain: DomainId = fields.required("vmId")?.parse().map_err(|_| Refused::NotAUuid)?;
        let memory = fields.number("memSize")?.ok_or_else(|| fields.missing("memSize"))?;
        if memory == 0 {
            return Err(Refused::NoMemory);
        }
        if fields.text("vmType")?.is_some_and(|kind| kind != "kvm") {
            return Err(Refused::VmType);
        }
        fields.ignore(HINTS);
        if fields.text("spiceSslCipherSuite")?.is_some_and(|suite| suite != "DEFAULT") {
            return Err(fields.unsupported("spiceSslCipherSuite"));
        }
        let name = fields.text("vmName")?.unwrap_or_else(|| format!("n{domain}"));
        let mut devices = device::read(fields)?;
        let mut children = vec![
            element("name").text(name),
            element("uuid").text(domain),
            element("memory").with("unit", "MiB").text(memory),
        ];
        children.extend(processors(fields)?);
        children.push(boot(fields, &devices)?);
        if fields.flag("acpiEnable")?.unwrap_or(true) {
            children.push(element("features").child(element("acpi")));
        }
        if let Some(offset) = fields.text("timeOffset")? {
            let seconds: i64 = offset.parse().map_err(|_| fields.bad("timeOffset", "seconds"))?;
            children.push(element("clock").with("offset", "variable").with("adjustment", seconds));
        }
        if fields.flag("tabletEnable")?.unwrap_or(false) {
            devices.elements.push(element("input").with("type", "tablet").with("bus", "usb"));
        }
        children.push(element("devices").children(devices.elements));
        Ok(Self { domain, kvm: fields.flag("kvmEnable")?, domain_children: children })
    }
}

fn processors(fields: &Fields<'_>) -> Result<Vec<Element>, Refused> {
    let present = fields.number("smp")?.unwrap_or(1).max(1);
    let most = fields.number("maxVCpus")?.unwrap_or(present);
    if most < present {
        return Err(fields.bad("maxVCpus", "at least smp"));
    }
    let mut vcpu = element("vcpu").text(most);
    if most > present {
        vcpu = vcpu.with("current", present);
    }
    let mut parts = vec![vcpu];
    let pins = fields.structure("cpuPinning", Fields::texts)?.unwrap_or_default();
    if !pins.is_empty() {
        let pin = |(vcpu, cpus): (&str, String)| element("vcpupin").with("vcpu", vcpu).with("cpuset", cpus);
        parts.push(element("cputune").children(pins.into_iter().map(pin)));
    }
    let (cores, threads) = (fields.number("smpCoresPerSocket")?, fields.number("smpThreadsPerCore")?);
    let mut cpu = element("cpu");
    let model = fields.text("cpuType")?;
    if let Some(model) = &model {
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
    if cpu != element("cpu") {
        parts.push(cpu);
    }
    Ok(parts)
}

fn boot(fields: &Fields<'_>, devices: &device::Devices) -> Result<Element, Refused> {
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
    Ok(os)
}
