//! The parameters of verbs that do something with a VM that is up.

use std::collections::BTreeMap;
use std::time::Duration;

use dxr::Value;
use whydown_core::operation::{Connected, Migration, Operation, SnapshotDisk, Ticket};

use super::{Given, Verb};
use crate::fields::Fields;
use crate::refused::Refused;

pub(crate) fn read_pause(given: &Given<'_>) -> Result<Verb, Refused> {
    Ok(Verb::Do { vm: given.vm(0)?, act: Operation::Pause })
}

pub(crate) fn read_cont(given: &Given<'_>) -> Result<Verb, Refused> {
    Ok(Verb::Do { vm: given.vm(0)?, act: Operation::Resume })
}

pub(crate) fn read_freeze(given: &Given<'_>) -> Result<Verb, Refused> {
    Ok(Verb::Do { vm: given.vm(0)?, act: Operation::Freeze })
}

pub(crate) fn read_thaw(given: &Given<'_>) -> Result<Verb, Refused> {
    Ok(Verb::Do { vm: given.vm(0)?, act: Operation::Thaw })
}

/// libvirt keeps the image of a save itself; a manager that names volumes for it wants it in shared storage.
pub(crate) fn read_hibernate(given: &Given<'_>) -> Result<Verb, Refused> {
    let vm = given.vm(0)?;
    match given.words(1)? {
        None => Ok(Verb::Do { vm, act: Operation::Save }),
        Some(_) => Err(Refused::Unsupported { method: "hibernate", param: "hiberVolHandle".into() }),
    }
}

pub(crate) fn read_migrate_status(given: &Given<'_>) -> Result<Verb, Refused> {
    Ok(Verb::MigrateStatus { vm: given.vm(0)? })
}

pub(crate) fn read_migrate_cancel(given: &Given<'_>) -> Result<Verb, Refused> {
    Ok(Verb::Do { vm: given.vm(0)?, act: Operation::Abort })
}

/// The source's whole configuration comes with it, and libvirt brings its own.
pub(crate) fn read_migration_create(given: &Given<'_>) -> Result<Verb, Refused> {
    let fields = given.fields(0)?;
    let vm = fields.required("vmId")?.parse().map_err(|_| Refused::NotAUuid)?;
    given.number(1)?;
    Ok(Verb::MigrationCreate { vm })
}

/// What later versions of the original do, and change the migration by, and is not done here.
const UNDONE: &[&str] = &[
    "dstparams",
    "hiberVolHandle",
    "convergenceSchedule",
    "encrypted",
    "parallel",
    "zerocopy",
    "cpusets",
    "numaNodesets",
];

pub(crate) fn read_migrate(given: &Given<'_>) -> Result<Verb, Refused> {
    let fields = given.fields(0)?;
    let vm = fields.required("vmId")?.parse().map_err(|_| Refused::NoSuchVm)?;
    if fields.word("mode", &[("remote", false), ("file", true)])?.unwrap_or(false) {
        // VDSM's other name for hibernate; `dst` then names volumes.
        fields.refuse(&["dst", "dstparams", "hiberVolHandle"])?;
        fields.skip(&["method"]);
        fields.ignore_others();
        return Ok(Verb::Do { vm, act: Operation::Save });
    }
    fields.word("method", &[("online", ())])?;
    let destination = libvirt_address(&fields, &fields.required("dst")?)?;
    let memory_uri = fields.text("dstqemu")?;
    let memory_uri = memory_uri
        .map(|host| if host.contains(':') && host.contains("//") { host } else { format!("tcp://{host}") });
    let document = match fields.get("xml") {
        None => None,
        Some(Value::String(xml)) => Some(xml.clone()),
        Some(_) => return Err(fields.bad("xml", "text")),
    };
    let how = Migration {
        destination,
        memory_uri,
        document,
        tunnelled: fields.flag("tunneled")?.unwrap_or(false),
        compressed: fields.flag("compressed")?.unwrap_or(false),
        auto_converge: fields.flag("autoConverge")?.unwrap_or(false),
        abort_on_error: fields.flag("abortOnError")?.unwrap_or(false),
        downtime_ms: fields.number("downtime")?.filter(|&milliseconds| milliseconds > 0),
        bandwidth_mib: fields.number("maxBandwidth")?.filter(|&mib| mib > 0),
        console: fields
            .text("consoleAddress")?
            .map(|host| host_name(&fields, "consoleAddress", &host))
            .transpose()?,
        outgoing_most: fields.number("outgoingLimit")?.filter(|&most| most > 0),
    };
    fields.refuse(UNDONE)?;
    // Whatever else is sent, such as `src`, no version of the original reads.
    fields.ignore_others();
    Ok(Verb::Do { vm, act: Operation::Migrate(how) })
}

/// VDSM names the other host; libvirt wants its own address there. One that is given is taken.
fn libvirt_address(fields: &Fields<'_>, dst: &str) -> Result<String, Refused> {
    const WANTED: &str = "a host, a host and a port, or libvirt's address of one (qemu+...)";
    if dst.contains("//") {
        let ours = dst.starts_with("qemu+") || dst.starts_with("qemu://");
        return if ours { Ok(dst.into()) } else { Err(fields.bad("dst", WANTED)) };
    }
    let host = match dst.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|b| b.is_ascii_digit()) && (!host.contains(':') || host.ends_with(']')) =>
        {
            host
        }
        _ => dst,
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]%".contains(&b);
    if host.is_empty() || !host.bytes().all(plain) {
        return Err(fields.bad("dst", WANTED));
    }
    Ok(format!("qemu+tls://{}/system", bracketed(host)))
}

fn bracketed(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host.into() }
}

/// A host's name or address, and nothing besides.
fn host_name(fields: &Fields<'_>, name: &str, host: &str) -> Result<String, Refused> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_address = bare.parse::<std::net::IpAddr>().is_ok();
    let is_name = !host.starts_with(['-', '.'])
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
    if is_address || is_name {
        Ok(bracketed(host))
    } else {
        Err(fields.bad(name, "a host's name or address"))
    }
}

pub(crate) fn read_ticket(given: &Given<'_>) -> Result<Verb, Refused> {
    let vm = given.vm(0)?;
    let password = given.text(1)?.to_owned();
    let seconds = given.number(2)?.ok_or_else(|| given.missing(2))?;
    let connected = match given.words(3)?.as_deref() {
        None | Some("disconnect") => Connected::Disconnect,
        Some("keep") => Connected::Keep,
        Some("fail") => Connected::Fail,
        Some(_) => return Err(given.wrong(3, "disconnect, keep or fail")),
    };
    // Who the ticket is for, which only hooks of the original read.
    if given.get(4).is_some() {
        given.members(4)?;
    }
    let valid_for = Some(Duration::from_secs(u64::from(seconds)));
    Ok(Verb::Do { vm, act: Operation::SetTicket(Ticket { password, valid_for, connected, console: None }) })
}

pub(crate) fn read_balloon(given: &Given<'_>) -> Result<Verb, Refused> {
    let vm = given.vm(0)?;
    let kib = given.number(1)?.ok_or_else(|| given.missing(1))?;
    Ok(Verb::Do { vm, act: Operation::SetMemory { kib: u64::from(kib) } })
}

pub(crate) fn read_vcpus(given: &Given<'_>) -> Result<Verb, Refused> {
    let vm = given.vm(0)?;
    let count = given.number(1)?.ok_or_else(|| given.missing(1))?;
    if count == 0 {
        return Err(given.wrong(1, "at least 1"));
    }
    Ok(Verb::Do { vm, act: Operation::SetVcpus { count } })
}

/// Disks are named by their targets and new images by their paths; volumes of VDSM's own storage are not known here.
pub(crate) fn read_snapshot(given: &Given<'_>) -> Result<Verb, Refused> {
    let vm = given.vm(0)?;
    let drives =
        BTreeMap::from([("snapDrives".to_owned(), given.get(1).ok_or_else(|| given.missing(1))?.clone())]);
    let fields = Fields::new("snapshot", &drives, given.ignored.clone());
    let disks = fields.structures("snapDrives", |_, drive| {
        drive.refuse(&["poolID", "domainID", "imageID", "volumeID", "baseVolumeID"])?;
        drive.word("format", &[("cow", ()), ("qcow2", ())])?;
        Ok(SnapshotDisk { target: drive.required("name")?, file: drive.required("path")? })
    })?;
    if disks.is_empty() {
        return Err(Refused::Lacks { param: "snapDrives[0]".into() });
    }
    if given.words(2)?.is_some() {
        return Err(Refused::Unsupported { method: "snapshot", param: "snapMemVolHandle".into() });
    }
    Ok(Verb::Snapshot { vm, disks, frozen: given.flag(3)? })
}
