//! What a domain is made of, read out of libvirt's document. Only libvirt's own documents are read here, but parts of
//! them came from managers: sizes are bounded, and what cannot be read is left out.

use std::collections::BTreeMap;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use whydown_core::evidence::tame;
use whydown_core::sample::{Devices, Disk, Fate, Graphics, Image, Nic, Part};

/// Bytes of one document. Metadata may be large; a machine of hundreds of devices takes some hundred KiB.
const DOCUMENT_BYTES: usize = 4 << 20;

/// Devices of one domain; QEMU's buses end far below.
const PARTS: usize = 4096;

/// Bytes of any one text that is kept.
const TEXT: usize = 1024;

/// The channel on which QEMU's guest agent speaks.
const AGENT_CHANNEL: &str = "org.qemu.guest_agent.0";

/// Elements within one another.
const DEPTH: usize = 64;

/// Why a document says nothing.
#[derive(Debug, thiserror::Error)]
pub enum Unread {
    /// It has too many bytes.
    #[error("the domain's document is larger than {DOCUMENT_BYTES} bytes")]
    Large,
    /// Its elements stand too deep in one another.
    #[error("the domain's document is too deep")]
    Deep,
    /// It is of a domain that does not run.
    #[error("the domain has ended")]
    Ended,
    /// It is not XML.
    #[error("the domain's document: {0}")]
    NotXml(#[from] quick_xml::Error),
}

/// Reads the document of a domain that runs. One that has ended, and is defined, has a document too: of what it would
/// be made of the next time, without addresses, ports and disks as they are now.
pub(crate) fn read(xml: &str) -> Result<Devices, Unread> {
    let scan = scan(xml)?;
    if scan.runs { Ok(scan.devices) } else { Err(Unread::Ended) }
}

/// Reads a document from which a domain is to be started: what libvirt will give it, as addresses and ports, is not there.
///
/// # Errors
///
/// [`Unread`] if it is no XML, or too large or deep.
pub fn read_planned(xml: &str) -> Result<Devices, Unread> {
    let mut devices = scan(xml)?.devices;
    // libvirt's own documents say it always.
    devices.vcpus = devices.vcpus.max(1);
    Ok(devices)
}

fn scan(xml: &str) -> Result<Scan, Unread> {
    if xml.len() > DOCUMENT_BYTES {
        return Err(Unread::Large);
    }
    let mut reader = Reader::from_str(xml);
    let mut scan = Scan::default();
    loop {
        match reader.read_event()? {
            Event::Start(start) => {
                scan.path.push(start.name().as_ref().to_owned());
                if scan.path.len() > DEPTH {
                    return Err(Unread::Deep);
                }
                scan.text.clear();
                scan.open(&attributes(&start));
            }
            Event::Empty(start) => {
                scan.path.push(start.name().as_ref().to_owned());
                scan.text.clear();
                scan.open(&attributes(&start));
                scan.close();
            }
            Event::End(_) => scan.close(),
            Event::Text(text) => scan.add(&text.xml10_content()),
            Event::CData(text) => scan.add(&text.xml10_content()),
            Event::GeneralRef(reference) => {
                let text = match reference.resolve_char_ref()? {
                    Some(character) => character.to_string(),
                    None => quick_xml::escape::resolve_predefined_entity(reference.as_ref())
                        .unwrap_or_default()
                        .to_owned(),
                };
                scan.add(&text);
            }
            Event::Eof => return Ok(scan),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
}

type Attributes = BTreeMap<String, String>;

fn attributes(start: &BytesStart<'_>) -> Attributes {
    let read = |attribute: quick_xml::events::attributes::Attribute<'_>| {
        let value = attribute.normalized_value(quick_xml::XmlVersion::Explicit1_0).ok()?;
        Some((attribute.key.as_ref().to_owned(), bounded(&value)))
    };
    start.attributes().flatten().filter_map(read).collect()
}

fn bounded(text: &str) -> String {
    let mut end = text.len().min(TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    tame(&text[..end])
}

#[derive(Default)]
struct Scan {
    path: Vec<String>,
    text: String,
    unit: String,
    /// It has libvirt's number, which only a domain that runs has.
    runs: bool,
    devices: Devices,
    part: Part,
    /// It says that there is no such device. libvirt forgets some of what it had written there when it is started anew.
    none: bool,
    disk: Disk,
    image: Image,
    /// How many of its processors it has now, where these are not all.
    present: Option<u32>,
    nic: Nic,
    graphics: Graphics,
}

impl Scan {
    fn add(&mut self, text: &str) {
        if self.text.len() + text.len() <= TEXT {
            self.text.push_str(text);
        }
    }

    fn open(&mut self, given: &Attributes) {
        let of = |name: &str| given.get(name).cloned().unwrap_or_default();
        let whole = std::mem::take(&mut self.path);
        let path: Vec<&str> = whole.iter().map(String::as_str).collect();
        match path[..] {
            ["domain"] => {
                self.runs = given.contains_key("id");
                self.devices.kvm = of("type") == "kvm";
            }
            ["domain", "vcpu"] => self.present = of("current").parse().ok(),
            ["domain", "memory" | "memtune", ..] => self.unit = of("unit"),
            ["domain", "os", "type"] => self.devices.machine = of("machine"),
            ["domain", "os", "boot"] => self.devices.boot.push(of("dev")),
            ["domain", "features", "acpi"] => self.devices.acpi = true,
            ["domain", "clock"] => {
                self.devices.clock_offset_s = of("adjustment").parse().unwrap_or(0);
            }
            ["domain", "devices", kind] => {
                self.part = Part { kind: kind.into(), device: closer(kind, given), ..Part::default() };
                self.none = kind == "controller" && of("model") == "none";
                self.disk = Disk { kind: of("device"), ..Disk::default() };
                self.image = Image::default();
                self.nic = Nic::default();
                self.graphics = Graphics {
                    kind: of("type"),
                    port: port(&of("port")),
                    tls_port: port(&of("tlsPort")),
                    listen: given.get("listen").cloned(),
                };
            }
            ["domain", "devices", kind, inner] => self.open_inner(kind, inner, given),
            _ => {}
        }
        self.path = whole;
    }

    fn open_inner(&mut self, kind: &str, inner: &str, given: &Attributes) {
        let of = |name: &str| given.get(name).cloned().unwrap_or_default();
        match (kind, inner) {
            (_, "alias") => self.part.alias = of("name"),
            (_, "address") => self.part.address = given.clone(),
            (_, "readonly") => self.part.read_only = true,
            ("disk", "source") => {
                let known = ["file", "dev", "name", "volume", "dir"];
                self.disk.path = known.iter().find_map(|name| given.get(*name)).cloned().unwrap_or_default();
            }
            ("disk", "target") => {
                self.disk.target = of("dev");
                self.image.bus = of("bus");
            }
            ("disk", "driver") => self.image.format = of("type"),
            ("interface", "mac") => self.nic.mac = of("address"),
            ("interface", "model") => self.nic.model = of("type"),
            ("interface", "target") => self.nic.host_name = of("dev"),
            ("interface", "link") => self.nic.unplugged = of("state") == "down",
            ("graphics", "listen") if self.graphics.listen.is_none() => {
                self.graphics.listen = given.get("address").cloned();
            }
            ("video", "model") => self.part.device = of("type"),
            ("channel", "target") if of("name") == AGENT_CHANNEL => {
                self.devices.agent |= of("state") == "connected";
            }
            _ => {}
        }
    }

    fn close(&mut self) {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let text = self.text.trim();
        let devices = &mut self.devices;
        match path[..] {
            ["domain", "memory"] => devices.memory_kib = kib(text, &self.unit),
            ["domain", "memtune", "min_guarantee"] => devices.memory_min_kib = kib(text, &self.unit),
            // QEMU's driver takes a reboot to be preserved for one that ends it.
            ["domain", "on_reboot"] => devices.on_reboot = fate(text, &["destroy", "preserve"]),
            ["domain", "on_crash"] => devices.on_crash = fate(text, &["destroy", "coredump-destroy"]),
            ["domain", "vcpu"] => {
                devices.vcpus = self.present.take().unwrap_or_else(|| text.parse().unwrap_or(0));
            }
            ["domain", "cputune", "period"] => devices.vcpu_period_us = text.parse().ok(),
            ["domain", "cputune", "quota"] => devices.vcpu_quota_us = text.parse().ok(),
            ["domain", "devices", "disk", "serial"] => self.disk.serial = bounded(text),
            ["domain", "devices", "disk", "iotune", bound] => {
                if let Ok(value) = text.parse() {
                    self.disk.io_tune.insert(bound.to_owned(), value);
                }
            }
            ["domain", "devices", kind] if devices.parts.len() < PARTS => {
                self.disk.alias.clone_from(&self.part.alias);
                self.nic.alias.clone_from(&self.part.alias);
                match kind {
                    "disk" => {
                        devices.images.insert(self.disk.target.clone(), std::mem::take(&mut self.image));
                        devices.disks.push(std::mem::take(&mut self.disk));
                    }
                    "interface" => devices.nics.push(std::mem::take(&mut self.nic)),
                    "graphics" => devices.graphics.push(std::mem::take(&mut self.graphics)),
                    _ => {}
                }
                // The path of the emulator stands among the devices and is none.
                if kind != "emulator" && !self.none {
                    devices.parts.push(std::mem::take(&mut self.part));
                }
            }
            _ => {}
        }
        self.path.pop();
        self.text.clear();
    }
}

/// What a device is more closely. libvirt says it in another attribute for each kind.
fn closer(kind: &str, given: &Attributes) -> String {
    let name = match kind {
        "disk" => "device",
        "memballoon" | "watchdog" | "sound" | "rng" | "tpm" | "panic" => "model",
        _ => "type",
    };
    given.get(name).cloned().unwrap_or_default()
}

/// What becomes of it by this word, where these end it.
fn fate(word: &str, ends: &[&str]) -> Option<Fate> {
    const STAYS: [&str; 4] = ["restart", "rename-restart", "coredump-restart", "preserve"];
    match word {
        word if ends.contains(&word) => Some(Fate::Ends),
        word if STAYS.contains(&word) => Some(Fate::Stays),
        _ => None,
    }
}

/// Ports that are not given out yet are written as -1.
fn port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

fn kib(text: &str, unit: &str) -> u64 {
    let number: u64 = text.parse().unwrap_or(0);
    match unit {
        "b" | "bytes" => number / 1024,
        "MiB" | "M" => number.saturating_mul(1 << 10),
        "GiB" | "G" => number.saturating_mul(1 << 20),
        "TiB" | "T" => number.saturating_mul(1 << 30),
        // libvirt itself writes KiB.
        _ => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: &str = "<domain type='kvm' id='1'><memory unit='KiB'>16384</memory>
        <currentMemory unit='KiB'>8192</currentMemory><memtune><min_guarantee unit='MiB'>4</min_guarantee></memtune>
        <vcpu placement='static'>2</vcpu><cputune><period>100000</period><quota>-1</quota></cputune>
        <os><type arch='x86_64' machine='pc-i440fx-7.2'>hvm</type><boot dev='hd'/><boot dev='network'/></os>
        <features><acpi/></features><clock offset='variable' adjustment='-3600' basis='utc'/>
        <metadata><x xmlns='u:x'><devices><disk device='y'/></devices></x></metadata>
        <devices><emulator>/usr/bin/qemu</emulator>
        <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/a &amp; b.img' index='1'/><target dev='vda' bus='virtio'/>
          <backingStore type='file'><source file='/below.img'/></backingStore>
          <iotune><total_iops_sec>100</total_iops_sec></iotune><serial>abc</serial><readonly/><alias name='virtio-disk0'/>
          <address type='pci' domain='0x0000' slot='0x04'/></disk>
        <disk type='file' device='cdrom'><target dev='hdc' bus='ide'/><alias name='ide0-1-0'/></disk>
        <interface type='bridge'><mac address='52:54:00:00:00:01'/><target dev='vnet3'/><model type='virtio'/>
          <link state='down'/>
          <alias name='net0'/></interface>
        <controller type='usb' index='0' model='none'><alias name='usb'/></controller>
        <graphics type='spice' port='5900' tlsPort='-1' autoport='yes' listen='127.0.0.1'>
          <listen type='address' address='127.0.0.1'/></graphics>
        <graphics type='vnc' port='-1'><listen type='none'/></graphics>
        <video><model type='qxl' ram='65536'/><alias name='video0'/></video>
        </devices></domain>";

    #[test]
    fn the_document_of_a_domain_that_has_ended_does_not_tell_what_it_was() {
        let defined = MACHINE.replace(" id='1'", "");
        assert!(matches!(read(&defined), Err(Unread::Ended)));
    }

    #[test]
    fn a_document_tells_what_the_machine_is_made_of() {
        let devices = read(MACHINE).unwrap();
        assert!(devices.kvm && devices.acpi);
        assert_eq!((devices.memory_kib, devices.memory_min_kib, devices.vcpus), (16384, 4096, 2));
        assert_eq!((devices.vcpu_period_us, devices.vcpu_quota_us), (Some(100_000), Some(-1)));
        assert_eq!((devices.machine.as_str(), devices.clock_offset_s), ("pc-i440fx-7.2", -3600));
        assert_eq!(devices.boot, ["hd", "network"]);
        let disk = &devices.disks[0];
        assert_eq!(
            (disk.target.as_str(), disk.path.as_str(), disk.serial.as_str()),
            ("vda", "/a & b.img", "abc")
        );
        assert_eq!(disk.io_tune, BTreeMap::from([("total_iops_sec".into(), 100)]));
        let image = |format: &str, bus: &str| Image { format: format.into(), bus: bus.into() };
        let images = [("hdc".to_owned(), image("", "ide")), ("vda".to_owned(), image("qcow2", "virtio"))];
        assert_eq!(devices.images, BTreeMap::from(images));
        assert_eq!((devices.disks[1].kind.as_str(), devices.disks[1].path.as_str()), ("cdrom", ""));
        let nic = Nic {
            mac: "52:54:00:00:00:01".into(),
            model: "virtio".into(),
            host_name: "vnet3".into(),
            alias: "net0".into(),
            unplugged: true,
        };
        assert_eq!(devices.nics, [nic]);
        let ports: Vec<_> = devices.graphics.iter().map(|g| (g.kind.as_str(), g.port, g.tls_port)).collect();
        assert_eq!(ports, [("spice", Some(5900), None), ("vnc", None, None)]);
        assert_eq!(devices.graphics[0].listen.as_deref(), Some("127.0.0.1"));
        let kinds: Vec<_> = devices.parts.iter().map(|p| (p.kind.as_str(), p.device.as_str())).collect();
        let expected = [
            ("disk", "disk"),
            ("disk", "cdrom"),
            ("interface", "bridge"),
            ("graphics", "spice"),
            ("graphics", "vnc"),
            ("video", "qxl"),
        ];
        assert_eq!(kinds, expected);
        assert!(devices.parts[0].read_only && devices.parts[0].address["slot"] == "0x04");
    }

    #[test]
    fn a_document_tells_what_becomes_of_it_when_its_guest_reboots_or_panics() {
        let of = |words: &str| {
            let devices = read(&format!("<domain id='1'>{words}</domain>")).unwrap();
            (devices.on_reboot, devices.on_crash)
        };
        let (ends, stays) = (Some(Fate::Ends), Some(Fate::Stays));
        assert_eq!(of(""), (None, None));
        for (word, reboot, crash) in [
            ("destroy", ends, ends),
            ("restart", stays, stays),
            ("preserve", ends, stays),
            ("rename-restart", stays, stays),
            ("coredump-destroy", None, ends),
            ("coredump-restart", stays, stays),
            ("another", None, None),
        ] {
            let words = format!("<on_reboot>{word}</on_reboot><on_crash>{word}</on_crash>");
            assert_eq!(of(&words), (reboot, crash), "{word}");
        }
    }

    #[test]
    fn the_fingerprint_changes_with_the_devices_and_with_nothing_else() {
        let one = read(MACHINE).unwrap().fingerprint();
        let same = [
            ("<currentMemory unit='KiB'>8192", "<currentMemory unit='KiB'>1"),
            ("'-3600'", "'7'"),
            ("<alias name='usb'/>", ""),
            ("<vcpu placement='static'>2", "<vcpu placement='static' current='1'>2"),
        ];
        for (old, new) in same {
            assert_eq!(read(&MACHINE.replace(old, new)).unwrap().fingerprint(), one, "{new}");
        }
        for (old, new) in [
            ("/a &amp; b.img", "/c.img"),
            ("vnet3", "vnet4"),
            ("state='down'", "state='up'"),
            ("5900", "5901"),
            ("qxl", "vga"),
        ] {
            assert_ne!(read(&MACHINE.replace(old, new)).unwrap().fingerprint(), one, "{new}");
        }
    }

    #[test]
    fn processors_are_those_that_it_has_now() {
        let of = |vcpu: &str| {
            let document =
                format!("<domain id='1'>{vcpu}<vcpus><vcpu id='0' enabled='yes'/></vcpus></domain>");
            let planned = read_planned(&document).unwrap();
            (read(&document).unwrap().vcpus, planned.vcpus)
        };
        assert_eq!(of("<vcpu placement='static' current='2'>8</vcpu>"), (2, 2));
        assert_eq!(of("<vcpu current='many'>8</vcpu>"), (8, 8));
        assert_eq!((of("<vcpu>8</vcpu>"), of("")), ((8, 8), (0, 1)));
    }

    #[test]
    fn a_document_that_is_none_is_refused_and_an_odd_one_is_read_as_far_as_it_goes() {
        assert!(read("<domain><a></domain>").is_err());
        assert!(read(&"<a>".repeat(DEPTH + 1)).is_err());
        assert!(read(&" ".repeat(DOCUMENT_BYTES + 1)).is_err());
        let odd = read(
            "<domain id='1'><vcpu>many</vcpu><devices><disk/><graphics port='99999'/></devices></domain>",
        )
        .unwrap();
        assert_eq!((odd.vcpus, odd.disks.len(), odd.graphics[0].port), (0, 1, None));
        let many = format!("<domain id='1'><devices>{}</devices></domain>", "<disk/>".repeat(PARTS + 1));
        assert_eq!(read(&many).unwrap().disks.len(), PARTS);
    }
}
