//! The devices of a VM, as the full form of `list` tells them.

use whydown_core::id::DomainId;
use whydown_core::sample::{Devices, Graphics, Part, Usage};
use whydown_core::snapshot::DomainPublic;

use crate::profile::Profile;
use crate::running::{made_of, put_machine};
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
    let mut screens = devices.map(|devices| devices.graphics.iter()).unwrap_or_default();
    s.array("devices", |items| {
        for part in devices.map(|devices| devices.parts.as_slice()).unwrap_or_default() {
            // libvirt names no screens: they are told apart by their order.
            let screen = if part.kind == "graphics" { screens.next() } else { None };
            if planned || screen.is_some() || !part.alias.is_empty() || !part.address.is_empty() {
                items.item().structure(|s| put_part(s, part, devices, screen));
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
        if let Some(disk) = devices.and_then(|d| d.disks.iter().find(|disk| of_alias(&disk.alias))) {
            s.text("name", &disk.target);
            s.text("path", &disk.path);
        }
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
