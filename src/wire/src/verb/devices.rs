//! The parameters of verbs that change what a VM is made of while it is up.

use dxr::Value;
use whydown_core::id::DomainId;
use whydown_core::operation::{
    Connected, Console, Drive, NewDevice, NewLink, NewMedium, NewNetwork, OldDevice, Operation, Pluggable,
    Ticket,
};

use super::{Given, Verb};
use crate::classic::{self, DRIVE_NAMES, VOLUME};
use crate::devices::GIVEN;
use crate::fields::Fields;
use crate::refused::Refused;

pub(crate) fn read_update_device(given: &Given<'_>) -> Result<Verb, Refused> {
    let vm = given.vm(0)?;
    let fields = given.fields(1)?;
    match fields.required("deviceType")?.as_str() {
        "graphics" => read_screen(vm, &fields),
        "interface" => read_link(vm, &fields),
        _ => Err(fields.unsupported("deviceType")),
    }
}

/// A network card, plugged in, out or elsewhere.
fn read_link(vm: DomainId, fields: &Fields<'_>) -> Result<Verb, Refused> {
    let alias = fields.required("alias")?;
    let up = fields.flag("linkActive")?;
    let network = fields.text("network")?;
    let nowhere = network.is_none() && fields.has("network");
    let is_name = |name: &String| {
        !name.starts_with(['-', '.'])
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    };
    if network.as_ref().is_some_and(|name| !is_name(name)) {
        return Err(fields.bad("network", "the name of a bridge or of a network of libvirt's"));
    }
    if up.is_none() && network.is_none() && !nowhere {
        return Err(fields.missing("linkActive"));
    }
    fields.finish()?;
    let network = if nowhere { Some(NewNetwork::Nowhere) } else { network.map(NewNetwork::Named) };
    Ok(Verb::Device { vm, act: Operation::SetLink(NewLink { alias, up, network }), judged: None })
}

/// The password of screens, as by `setVmTicket`, but for those of one kind.
fn read_screen(vm: DomainId, fields: &Fields<'_>) -> Result<Verb, Refused> {
    let kinds = [("vnc", Console::Vnc), ("spice", Console::Spice)];
    let console = fields.word("graphicsType", &kinds)?.ok_or_else(|| fields.missing("graphicsType"))?;
    let password = match fields.get("password") {
        Some(Value::String(text)) => text.clone(),
        Some(_) => return Err(fields.bad("password", "text")),
        None => return Err(fields.missing("password")),
    };
    let seconds = fields.number("ttl")?.ok_or_else(|| fields.missing("ttl"))?;
    let choices =
        [("disconnect", Connected::Disconnect), ("keep", Connected::Keep), ("fail", Connected::Fail)];
    let connected = fields.word("existingConnAction", &choices)?.unwrap_or(Connected::Disconnect);
    // Who the ticket is for, which only hooks of the original read; and what becomes of the guest's session when the client
    // goes, which the original asks of an agent of its own in the guest.
    fields.ignore(&["params", "disconnectAction"]);
    fields.finish()?;
    let valid_for = Some(std::time::Duration::from_secs(seconds));
    let ticket = Ticket { password, valid_for, connected, console: Some(console) };
    Ok(Verb::Device { vm, act: Operation::SetTicket(ticket), judged: None })
}

pub(crate) fn read_change_disc(given: &Given<'_>) -> Result<Verb, Refused> {
    read_medium(given, Drive::Disc)
}

pub(crate) fn read_change_floppy(given: &Given<'_>) -> Result<Verb, Refused> {
    read_medium(given, Drive::Floppy)
}

/// A path, or as engines from 4.0 on have it a struct that says in which drive it is to be.
fn read_medium(given: &Given<'_>, drive: Drive) -> Result<Verb, Refused> {
    let vm = given.vm(0)?;
    let medium = match given.get(1).ok_or_else(|| given.missing(1))? {
        Value::String(path) => {
            let path = path.trim();
            if path.len() > 4096 || path.chars().any(char::is_control) {
                return Err(given.wrong(1, "a line of at most 4096 bytes"));
            }
            NewMedium { drive, target: None, path: Some(path.to_owned()).filter(|path| !path.is_empty()) }
        }
        _ => {
            let fields = given.fields(1)?;
            fields.refuse(VOLUME)?;
            let path = fields.text("path")?;
            if path.is_none() && !fields.has("path") {
                return Err(fields.missing("path"));
            }
            let names = fields.word("iface", DRIVE_NAMES)?.ok_or_else(|| fields.missing("iface"))?;
            let index = fields.number("index")?.ok_or_else(|| fields.missing("index"))?;
            let letter = u8::try_from(index).ok().filter(|index| *index < 26);
            let letter = char::from(b'a' + letter.ok_or_else(|| fields.bad("index", "below 26"))?);
            fields.finish()?;
            NewMedium { drive, target: Some(format!("{}{letter}", names.1)), path }
        }
    };
    let judged = medium.path.as_ref().map(|path| classic::medium(drive, path));
    Ok(Verb::Device { vm, act: Operation::ChangeMedium(medium), judged })
}

pub(crate) fn read_plug_card(given: &Given<'_>) -> Result<Verb, Refused> {
    read_plug(given, Pluggable::Card, "nic")
}

pub(crate) fn read_plug_disk(given: &Given<'_>) -> Result<Verb, Refused> {
    read_plug(given, Pluggable::Disk, "drive")
}

pub(crate) fn read_unplug_card(given: &Given<'_>) -> Result<Verb, Refused> {
    read_unplug(given, Pluggable::Card, "nic")
}

pub(crate) fn read_unplug_disk(given: &Given<'_>) -> Result<Verb, Refused> {
    read_unplug(given, Pluggable::Disk, "drive")
}

fn read_plug(given: &Given<'_>, kind: Pluggable, name: &'static str) -> Result<Verb, Refused> {
    let fields = given.fields(0)?;
    let vm = fields.required("vmId")?.parse().map_err(|_| Refused::NoSuchVm)?;
    let made = fields.structure(name, |device| classic::one_more(device, kind))?;
    let classic::OneMore { document, judged, targets } = made.ok_or_else(|| fields.missing(name))?;
    fields.finish()?;
    let act = Operation::Plug(NewDevice { kind, document, targets });
    Ok(Verb::Device { vm, act, judged: Some(judged) })
}

/// Engines send the whole device again; which one it is says a part of it.
fn read_unplug(given: &Given<'_>, kind: Pluggable, name: &'static str) -> Result<Verb, Refused> {
    let fields = given.fields(0)?;
    let vm = fields.required("vmId")?.parse().map_err(|_| Refused::NoSuchVm)?;
    let old = fields.structure(name, |device| {
        let place = match kind {
            Pluggable::Card => "macAddr",
            Pluggable::Disk => {
                device.refuse(VOLUME)?;
                "path"
            }
        };
        let given = device.text("deviceId")?.and_then(|id| id.parse::<DomainId>().ok());
        let old = OldDevice {
            kind,
            place: device.text(place)?,
            alias: device.text("alias")?,
            given: given.map(|id| format!("{GIVEN}{id}")),
        };
        if old.place.is_none() && old.alias.is_none() && old.given.is_none() {
            return Err(device.missing(place));
        }
        device.ignore_others();
        Ok(old)
    })?;
    let old = old.ok_or_else(|| fields.missing(name))?;
    fields.finish()?;
    Ok(Verb::Device { vm, act: Operation::Unplug(old), judged: None })
}
