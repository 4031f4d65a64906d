//! The devices of a VM, as the full form of `list` tells them.

use whydown_core::id::DomainId;
use whydown_core::sample::{Devices, Disk, Graphics, Part, Sample, Usage};
use whydown_core::snapshot::DomainPublic;

use crate::profile::Profile;
use crate::running::{apparent_size, made_of, put_machine};
use crate::write::Members;

/// How an alias begins that a user gave. Behind it stands the `deviceId` by which a manager knows the device.
pub(crate) const GIVEN: &str = "ua-";

/// The members that need the VM's document. Without it there are only those that engines insist on.
pub(crate) fn put(s: &mut Members<'_>, domain: &DomainPublic, usage: Option<&Usage>, profile: &Profile) {
    let devices = made_of(domain, usage).map(|(devices, _)| devices);
    put_machine(s, devices, profile);
    // Engines to 3.6 break off where the two are missing; 0 is no VM's, and says that nobody knows.
    s.number_text("smp", devices.map_or(0, |devices| devices.vcpus));
    let memory_mib = devices.map_or(0, |devices| devices.memory_kib / 1024);
    s.int("memSize", i32::try_from(memory_mib).unwrap_or(i32::MAX));
    if let Some(devices) = devices {
        s.text("emulatedMachine", &devices.machine);
        s.number_text("timeOffset", devices.clock_offset_s);
    }
    // Until libvirt has made them nothing has a name of its own; what has neither name nor place then no guest finds.
    let named = |part: &Part| !part.alias.is_empty() && !part.alias.starts_with(GIVEN);
    let planned = devices.is_some_and(|devices| !devices.parts.iter().any(named));
    let sample = usage.and_then(|usage| usage.sample.as_ref());
    let mut screens = devices.map(|devices| devices.graphics.iter()).unwrap_or_default();
    s.array("devices", |items| {
        for part in devices.map(|devices| devices.parts.as_slice()).unwrap_or_default() {
            // libvirt names no screens: they are told apart by their order.
            let screen = if part.kind == "graphics" { screens.next() } else { None };
            if planned || screen.is_some() || !part.alias.is_empty() || !part.address.is_empty() {
                items.item().structure(|s| {
                    put_part(s, part, devices, screen);
                    put_drive(s, part, devices, sample);
                });
            }
        }
    });
}

/// One device. A manager makes up a `deviceId` for one that has none; where it gave one, it is part of the alias.
fn put_part(s: &mut Members<'_>, part: &Part, devices: Option<&Devices>, screen: Option<&Graphics>) {
    let (kind, device) = match part.kind.as_str() {
        "memballoon" => ("balloon", "memballoon"),
        kind => (kind, part.device.as_str()),
    };
    s.text("type", kind);
    s.text("device", device);
    s.structure("specParams", |s| {
        if kind == "balloon" {
            s.text("model", &part.device);
        }
    });
    if !part.alias.is_empty() {
        s.text("alias", &part.alias);
    }
    if let Some(id) = part.alias.strip_prefix(GIVEN).and_then(|id| id.parse::<DomainId>().ok()) {
        s.number_text("deviceId", id);
    }
    if !part.address.is_empty() {
        s.structure("address", |s| part.address.iter().for_each(|(name, value)| s.text(name, value)));
    }
    let of_alias = |alias: &str| !alias.is_empty() && alias == part.alias;
    if part.kind == "disk" {
        s.text("readonly", if part.read_only { "true" } else { "false" });
    }
    if part.kind == "interface"
        && let Some(nic) = devices.and_then(|d| d.nics.iter().find(|nic| of_alias(&nic.alias)))
    {
        s.text("macAddr", &nic.mac);
        s.text("nicModel", &nic.model);
        s.text("name", &nic.host_name);
        s.text("linkActive", if nic.unplugged { "false" } else { "true" });
    }
    for (name, port) in [("port", screen.and_then(|s| s.port)), ("tlsPort", screen.and_then(|s| s.tls_port))]
    {
        if let Some(port) = port {
            s.number_text(name, port);
        }
    }
}

/// What managers want of a disk that they take over with its VM: how it is read, how large it is, and which volume of VDSM's
/// storage. What nobody has said or measured is left out.
fn put_drive(s: &mut Members<'_>, part: &Part, devices: Option<&Devices>, sample: Option<&Sample>) {
    let Some(devices) = devices.filter(|_| part.kind == "disk" && !part.alias.is_empty()) else { return };
    let Some(disk) = devices.disks.iter().find(|disk| disk.alias == part.alias) else { return };
    s.text("name", &disk.target);
    s.text("path", &disk.path);
    if let Some(image) = devices.images.get(&disk.target) {
        if !image.bus.is_empty() {
            s.text("iface", &image.bus);
        }
        // VDSM's word for QEMU's own format.
        let format = if image.format == "qcow2" { "cow" } else { image.format.as_str() };
        if !format.is_empty() {
            s.text("format", format);
        }
    }
    if let Some(index) = index_of(&disk.target) {
        s.number_text("index", index);
    }
    if matches!(disk.kind.as_str(), "disk" | "lun") {
        let counted = sample.and_then(|s| s.disks.iter().find(|counted| counted.target == disk.target));
        // Of another image while it is changed.
        let counted = counted.filter(|counted| counted.path == disk.path);
        for (name, bytes) in [
            ("apparentsize", counted.and_then(|counted| apparent_size(counted, Some(devices)))),
            ("truesize", counted.and_then(|counted| counted.physical)),
        ] {
            if let Some(bytes) = bytes {
                s.number_text(name, bytes);
            }
        }
    }
    for (name, id) in volume(disk) {
        s.number_text(name, id);
    }
}

/// Which place on its bus a target is: `vda` the first.
fn index_of(target: &str) -> Option<u32> {
    let letters = target.get(2..).filter(|letters| (1..=3).contains(&letters.len()))?;
    let place = |place: u32, letter: char| {
        letter.is_ascii_lowercase().then(|| place * 26 + 1 + (u32::from(letter) - u32::from('a')))
    };
    letters.chars().try_fold(0, place).map(|place| place - 1)
}

/// Where VDSM's storage is found on a host. Below a pool, or below a server or `blockSD`, an image has its folder in
/// `DOMAIN/images`; for VMs that run it is linked to from the third.
const VDSM_POOLS: &str = "/rhev/data-center/";
const VDSM_LINKS: [&str; 2] = ["/run/vdsm/storage/", "/var/run/vdsm/storage/"];

/// The ids of a volume in VDSM's storage, which its path is made of. The serial number is the image's, as VDSM sets it.
fn volume(disk: &Disk) -> Vec<(&'static str, DomainId)> {
    let id = |part: &str| part.parse::<DomainId>().ok();
    let linked = VDSM_LINKS.iter().find_map(|folder| disk.path.strip_prefix(folder));
    let parts: Vec<&str> =
        linked.or_else(|| disk.path.strip_prefix(VDSM_POOLS)).unwrap_or_default().split('/').collect();
    let (pool, domain, image, volume) = match parts[..] {
        [domain, image, volume] if linked.is_some() => (None, domain, image, volume),
        [pool, domain, "images", image, volume] if linked.is_none() => (id(pool), domain, image, volume),
        [.., domain, "images", image, volume] if linked.is_none() => (None, domain, image, volume),
        _ => return id(&disk.serial).map(|image| ("imageID", image)).into_iter().collect(),
    };
    let found =
        [("poolID", pool), ("domainID", id(domain)), ("imageID", id(image)), ("volumeID", id(volume))];
    found.into_iter().filter_map(|(name, id)| Some((name, id?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> DomainId {
        DomainId::from_bytes([number; 16])
    }

    #[test]
    fn a_volume_of_vdsms_storage_is_known_by_its_path_and_any_image_by_its_serial_number() {
        let of =
            |path: String, serial: &str| volume(&Disk { path, serial: serial.into(), ..Disk::default() });
        let ids = |first: &'static str, from: u8| {
            let names = ["poolID", "domainID", "imageID", "volumeID"];
            let at = names.iter().position(|name| *name == first).unwrap();
            names[at..].iter().zip(from..).map(|(name, number)| (*name, id(number))).collect::<Vec<_>>()
        };
        let (pool, domain, image, volume) = (id(1), id(2), id(3), id(4));
        let below = format!("{domain}/images/{image}/{volume}");
        assert_eq!(of(format!("/rhev/data-center/{pool}/{below}"), ""), ids("poolID", 1));
        assert_eq!(of(format!("/rhev/data-center/mnt/server:_export/{below}"), ""), ids("domainID", 2));
        assert_eq!(of(format!("/rhev/data-center/mnt/blockSD/{below}"), ""), ids("domainID", 2));
        assert_eq!(of(format!("/var/run/vdsm/storage/{domain}/{image}/{volume}"), ""), ids("domainID", 2));
        assert_eq!(of("/a.img".into(), &image.to_string()), [("imageID", image)]);
        for other in ["", "/a.img", "/rhev/data-center/x", "/run/vdsm/storage/a/b/c/d"] {
            assert_eq!(of(other.into(), "WD-1"), [], "{other}");
        }
    }

    #[test]
    fn the_place_of_a_disk_on_its_bus_is_counted_from_its_name() {
        let places = ["vda", "hdc", "sdz", "sdaa", "vdzz", "vd", "vd1", "v\u{e4}", "vdabcd"].map(index_of);
        assert_eq!(places, [Some(0), Some(2), Some(25), Some(26), Some(701), None, None, None, None]);
    }
}
