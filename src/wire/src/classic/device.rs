//! The devices of a classic VM: those of `devices` by their `type`, the older `drives`, and what `display` stands for.

use whydown_core::id::DomainId;
use whydown_core::operation::{Drive, Pluggable};

use super::document::{Element, element};
use super::screen::{self, screen};
use crate::devices::GIVEN;
use crate::fields::Fields;
use crate::refused::{Refused, shown};

/// What was read, and what the rest of the document must know of it.
#[derive(Debug, Default)]
pub(super) struct Devices {
    pub elements: Vec<Element>,
    pub has_disk: bool,
    /// Whether one of them has a place of its own in the order of boot.
    pub orders_boot: bool,
}

/// Members by which the original named devices to itself.
const OWN: &[&str] = &["alias", "optional"];

/// Parts of a device's `address`, as libvirt names them.
const ADDRESS: &[&str] =
    &["type", "domain", "bus", "slot", "function", "multifunction", "controller", "target", "unit", "port"];

/// Members of a disk that name a volume in storage of VDSM's own.
pub(crate) const VOLUME: &[&str] =
    &["poolID", "domainID", "imageID", "volumeID", "GUID", "UUID", "volumeInfo", "volumeChain"];

pub(super) fn read(fields: &Fields<'_>) -> Result<Devices, Refused> {
    let mut devices = Devices::default();
    let mut targets = Targets::default();
    let (mut usb, mut balloon, mut graphics, mut spice) = (false, false, false, false);
    let read_one = |_, device: &Fields<'_>| {
        device.ignore(OWN);
        let kind = device.required("type")?;
        usb |= kind == "controller" && device.text("device")?.as_deref() == Some("usb");
        balloon |= kind == "balloon";
        graphics |= kind == "graphics";
        // Left to libvirt, which has one then.
        usb |= kind == "redir";
        let order = device.number("bootOrder")?;
        devices.orders_boot |= order.is_some();
        let made = match kind.as_str() {
            "disk" => disk(device, &mut targets, &mut devices.has_disk)?.children(order.map(boots_as)),
            "interface" => interface(device, fields.text("nicModel")?)?.children(order.map(boots_as)),
            _ if order.is_some() => return Err(device.unsupported("bootOrder")),
            "video" => video(device)?,
            "graphics" => {
                let named = device.required("device")?;
                spice |= named != "vnc";
                screen(&named, fields, Some(device))
                    .and_then(|made| made.ok_or_else(|| device.bad("device", "vnc or spice")))?
            }
            "console" => console(device)?,
            "channel" => channel(device)?,
            "watchdog" => watchdog(device)?,
            "rng" => rng(device)?,
            "balloon" => balloon_of(device)?,
            "controller" => controller(device)?,
            "sound" => element("sound").with("model", device.required("device")?),
            "smartcard" => smartcard(device)?,
            "redir" => redirection(device)?,
            _ => return Err(device.bad("type", KINDS)),
        };
        let name = if CAN_BE_NAMED.contains(&kind.as_str()) {
            name_of(device)?
        } else {
            device.ignore(&["deviceId"]);
            None
        };
        let address = device.structure("address", address)?;
        Ok(made.children(name).children(address.flatten()))
    };
    devices.elements = fields.structures("devices", read_one)?;
    let drives = fields.structures("drives", |_, drive| {
        drive.ignore(OWN);
        let name = name_of(drive)?;
        Ok(disk(drive, &mut targets, &mut devices.has_disk)?.children(name))
    })?;
    devices.elements.extend(drives);
    for name in ["hda", "hdb", "hdc", "hdd"] {
        if let Some(path) = fields.text(name)? {
            targets.take(name).ok_or_else(|| fields.bad(name, "the only device at its place"))?;
            devices.elements.push(image("disk", &path, "raw", name, "ide"));
            devices.has_disk = true;
        }
    }
    for (name, device, first) in [("cdrom", "cdrom", "hdc"), ("floppy", "floppy", "fda")] {
        if let Some(path) = fields.text(name)? {
            let bus = if device == "floppy" { "fdc" } else { "ide" };
            targets.take(first).ok_or_else(|| fields.bad(name, "the only device at its place"))?;
            devices.elements.push(image(device, &path, "raw", first, bus).child(element("readonly")));
        }
    }
    if fields.has("devices") {
        // As in the original, the older form counts where there is no newer one.
        fields.ignore(OLDER);
    } else {
        devices.elements.extend(cards(fields)?);
        devices
            .elements
            .extend(fields.text("soundDevice")?.map(|model| element("sound").with("model", model)));
    }
    if let Some(display) = fields.text("display")? {
        spice |= display != "vnc";
        if !graphics {
            let made = screen(&display, fields, None)?;
            devices.elements.push(made.ok_or_else(|| Refused::Display(shown(&display)))?);
        } else if !matches!(display.as_str(), "vnc" | "qxl" | "qxlnc") {
            return Err(Refused::Display(shown(&display)));
        }
    }
    if !spice {
        fields.ignore(screen::OF_SPICE);
    }
    // The flag is the older form: where there are devices, they say it.
    if fields.flag("smartcardEnable")?.unwrap_or(false) {
        if fields.has("devices") {
            fields.ignore(&["smartcardEnable"]);
        } else {
            devices.elements.push(element("smartcard").with("mode", "passthrough").with("type", "spicevmc"));
        }
    }
    // What nobody asked for and libvirt would add.
    if !usb && !fields.flag("tabletEnable")?.unwrap_or(false) {
        devices.elements.push(element("controller").with("type", "usb").with("model", "none"));
    }
    if !balloon {
        devices.elements.push(element("memballoon").with("model", "none"));
    }
    Ok(devices)
}

/// Members that are about devices, from before there was `devices`.
const OLDER: &[&str] = &["macAddr", "bridge", "soundDevice"];

/// The older form of network cards: hardware addresses, models and bridges, with commas between. There are as many cards as
/// there is most of; the last bridge and the last model are those of all others. Who has no address gets one of libvirt's.
fn cards(fields: &Fields<'_>) -> Result<Vec<Element>, Refused> {
    let list = |name: &str| -> Result<Vec<String>, Refused> {
        let text = fields.text(name)?.unwrap_or_default();
        Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
    };
    let (addresses, bridges, models) = (list("macAddr")?, list("bridge")?, list("nicModel")?);
    if bridges.is_empty() && !addresses.is_empty() {
        return Err(fields.missing("bridge"));
    }
    let count = addresses.len().max(bridges.len());
    if count > CARDS {
        return Err(fields.bad("macAddr", &format!("of at most {CARDS} network cards")));
    }
    let of = |list: &[String], number: usize| list.get(number).or(list.last()).cloned();
    let card = |number: usize| {
        let address = addresses.get(number).map(|address| element("mac").with("address", address));
        let source = of(&bridges, number).map(|bridge| element("source").with("bridge", bridge));
        let model = element("model").with("type", model_of(of(&models, number)));
        element("interface").with("type", "bridge").children(address).children(source).child(model)
    };
    Ok((0..count).map(card).collect())
}

/// Network cards of the older form; a machine has room for fewer.
const CARDS: usize = 32;

/// What libvirt calls the model that managers call `pv`.
fn model_of(named: Option<String>) -> String {
    named.filter(|model| model != "pv").unwrap_or_else(|| "virtio".into())
}

fn boots_as(order: u64) -> Element {
    element("boot").with("order", order)
}

/// A disk or a network card beside those that a VM has.
#[derive(Debug)]
pub(crate) struct OneMore {
    /// For libvirt.
    pub document: String,
    /// In a domain of its own, as a manager may send it: to be judged.
    pub judged: String,
    /// Of a disk whose place on its bus is left open: how the names there begin. The document has one of them.
    pub targets: Option<String>,
}

/// Reads one.
pub(crate) fn one_more(device: &Fields<'_>, kind: Pluggable) -> Result<OneMore, Refused> {
    device.ignore(OWN);
    let (word, mut targets, mut has_disk) = (kind_word(kind), Targets::default(), false);
    // A device of the host itself has another one, or names it beside.
    if device.text("type")?.is_some_and(|kind| kind != word) {
        return Err(device.unsupported("type"));
    }
    device.refuse(&["hostdev"])?;
    let made = match kind {
        Pluggable::Disk => disk(device, &mut targets, &mut has_disk)?,
        Pluggable::Card => interface(device, None)?,
    };
    let order = device.number("bootOrder")?.map(boots_as);
    let made = made.children(order).children(name_of(device)?);
    let made = made.children(device.structure("address", address)?.flatten());
    let judged = made.replaced("interface", "type", UNPLUGGED, "bridge");
    let judged = element("domain").child(element("devices").child(judged)).to_xml();
    let is_open =
        kind == Pluggable::Disk && device.text("name")?.is_none() && device.text("index")?.is_none();
    let place = targets.0.pop_first().filter(|_| is_open);
    let targets = place.map(|place| place[..place.len() - 1].to_owned());
    Ok(OneMore { document: made.to_xml(), judged, targets })
}

const fn kind_word(kind: Pluggable) -> &'static str {
    match kind {
        Pluggable::Card => "interface",
        Pluggable::Disk => "disk",
    }
}

/// A drive with this medium in a domain of its own, as a manager may send it: to be judged. It is read as it is.
pub(crate) fn medium(drive: Drive, path: &str) -> String {
    let (device, target, bus) = match drive {
        Drive::Disc => ("cdrom", "hdc", "ide"),
        Drive::Floppy => ("floppy", "fda", "fdc"),
    };
    element("domain").child(element("devices").child(image(device, path, "raw", target, bus))).to_xml()
}

/// Kinds of devices that libvirt lets have names of their users'.
const CAN_BE_NAMED: &[&str] = &[
    "disk",
    "interface",
    "video",
    "console",
    "channel",
    "watchdog",
    "rng",
    "balloon",
    "controller",
    "sound",
    "smartcard",
    "redir",
];

/// The alias that says by which `deviceId` the manager knows this device. One that is no UUID is no engine's; the VM is
/// the same without it.
fn name_of(device: &Fields<'_>) -> Result<Option<Element>, Refused> {
    let id = device.text("deviceId")?.and_then(|id| id.parse::<DomainId>().ok());
    if id.is_none() {
        device.ignore(&["deviceId"]);
    }
    Ok(id.map(|id| element("alias").with("name", format!("{GIVEN}{id}"))))
}

const KINDS: &str = "one of disk, interface, video, graphics, console, channel, watchdog, rng, balloon, controller, sound, smartcard, redir";

fn address(fields: &Fields<'_>) -> Result<Option<Element>, Refused> {
    let mut made = element("address");
    let mut any = false;
    for name in ADDRESS {
        if let Some(value) = fields.text(name)? {
            made = made.with(name, value);
            any = true;
        }
    }
    Ok(any.then_some(made))
}

/// The targets that are taken.
#[derive(Default)]
struct Targets(std::collections::BTreeSet<String>);

impl Targets {
    /// `None` if it is taken already.
    fn take(&mut self, name: &str) -> Option<String> {
        self.0.insert(name.to_owned()).then(|| name.to_owned())
    }

    fn next(&mut self, prefix: &str) -> Option<String> {
        ('a'..='z').find_map(|letter| self.take(&format!("{prefix}{letter}")))
    }
}

fn image(device: &str, path: &str, format: &str, target: &str, bus: &str) -> Element {
    let block = path.starts_with("/dev/");
    let (kind, attribute) = if block { ("block", "dev") } else { ("file", "file") };
    element("disk")
        .with("type", kind)
        .with("device", device)
        .child(element("driver").with("name", "qemu").with("type", format))
        .child(element("source").with(attribute, path))
        .child(element("target").with("dev", target).with("bus", bus))
}

/// Buses as managers call them, with libvirt's words for them and how the names of targets on them begin.
pub(crate) const DRIVE_NAMES: &[(&str, (&str, &str))] = &[
    ("virtio", ("virtio", "vd")),
    ("ide", ("ide", "hd")),
    ("scsi", ("scsi", "sd")),
    ("virtio-scsi", ("scsi", "sd")),
    ("sata", ("sata", "sd")),
    ("usb", ("usb", "sd")),
    ("fdc", ("fdc", "fd")),
];

fn disk(fields: &Fields<'_>, targets: &mut Targets, has_disk: &mut bool) -> Result<Element, Refused> {
    fields.refuse(VOLUME)?;
    let devices = [("disk", "disk"), ("cdrom", "cdrom"), ("floppy", "floppy"), ("lun", "lun")];
    let device = fields.word("device", &devices)?.unwrap_or("disk");
    let path = fields.text("path")?;
    let removable = matches!(device, "cdrom" | "floppy");
    if path.is_none() && !removable {
        return Err(fields.missing("path"));
    }
    let formats = [("raw", "raw"), ("cow", "qcow2"), ("qcow2", "qcow2")];
    let format = fields.word("format", &formats)?.unwrap_or("raw");
    let buses = DRIVE_NAMES;
    let usual = match device {
        "floppy" => ("fdc", "fd"),
        "cdrom" => ("ide", "hd"),
        _ => ("virtio", "vd"),
    };
    let iface = fields.word("iface", buses)?;
    let older = fields.word("if", buses)?;
    let name = fields.text("name")?;
    // A name says its bus, where nothing else does.
    let by_name =
        name.as_deref().and_then(|name| buses.iter().find(|(_, (_, prefix))| name.starts_with(prefix)));
    let (bus, prefix) = iface.or(older).or(by_name.map(|(_, bus)| *bus)).unwrap_or(usual);
    let target = match (name, fields.number("index")?) {
        (name, Some(index)) => {
            let letter =
                u8::try_from(index).ok().filter(|index| *index < 26).map(|index| char::from(b'a' + index));
            let letter = letter.ok_or_else(|| fields.bad("index", "below 26"))?;
            let target = format!("{prefix}{letter}");
            // The original made the name from the index, whatever name it was given.
            if name.is_some_and(|name| name != target) {
                fields.ignore(&["name"]);
            }
            targets.take(&target).ok_or_else(|| fields.bad("index", "free"))?
        }
        (Some(name), None) => targets.take(&name).ok_or_else(|| fields.bad("name", "free"))?,
        (None, None) => targets.next(prefix).ok_or_else(|| fields.bad("index", "below 26"))?,
    };
    let policies =
        [("on", "report"), ("off", "stop"), ("report", "report"), ("stop", "stop"), ("enospace", "enospace")];
    let policy = fields.word("propagateErrors", &policies)?.unwrap_or("stop");
    let cache = fields.text("cache")?;
    let spec = fields.structure("specParams", |spec| {
        // Where engines keep what the manager's user put into the drive; the original never read it there.
        spec.ignore(&["path"]);
        Ok((spec.structure("ioTune", io_tune)?.flatten(), thread(spec, "pinToIoThread")?))
    })?;
    let (tune, thread) = spec.unwrap_or_default();
    let shared = fields.word(
        "shared",
        &[("none", false), ("exclusive", false), ("shared", true), ("false", false), ("true", true)],
    )?;
    let read_only = fields.flag("readonly")?.unwrap_or(device == "cdrom");
    *has_disk |= matches!(device, "disk" | "lun");
    let block = path.as_deref().is_some_and(|path| path.starts_with("/dev/"));
    let made = element("disk").with("type", if block { "block" } else { "file" }).with("device", device);
    let driver = element("driver").with("name", "qemu").with("type", format).maybe("cache", cache);
    let driver = driver.maybe("iothread", thread);
    let driver = if removable { driver } else { driver.with("error_policy", policy) };
    let source = path.map(|path| element("source").with(if block { "dev" } else { "file" }, path));
    Ok(made
        .child(driver)
        .children(source)
        .child(element("target").with("dev", target).with("bus", bus))
        .children(tune)
        .children(shared.unwrap_or(false).then(|| element("shareable")))
        .children(read_only.then(|| element("readonly")))
        .children(fields.text("serial")?.map(|serial| element("serial").text(serial))))
}

/// `usual` is the model of cards that say nothing themselves.
fn interface(fields: &Fields<'_>, usual: Option<String>) -> Result<Element, Refused> {
    let kinds = [("bridge", "bridge"), ("network", "network")];
    let kind = fields.word("device", &kinds)?.unwrap_or("bridge");
    let network = match fields.text("network")? {
        // A card that is plugged into nothing; the original gave it a bridge without a way out.
        None if fields.has("network") => None,
        None => return Err(fields.missing("network")),
        network => network,
    };
    let model = model_of(fields.text("nicModel")?.or(usual));
    let link = fields.flag("linkActive")?.map(|up| if up { "up" } else { "down" });
    let mac = fields.text("macAddr")?.map(|address| element("mac").with("address", address));
    let model = element("model").with("type", model);
    let bounds = fields.structure("specParams", |spec| {
        let way = |name: &'static str| spec.structure(name, |way| bound(name, way)).map(Option::flatten);
        let (inwards, outwards) = (way("inbound")?, way("outbound")?);
        Ok(element("bandwidth").children(inwards).children(outwards))
    })?;
    let filter = fields.text("filter")?;
    let Some(network) = network else {
        // Nothing goes through it that could be filtered or bounded.
        fields.ignore(&["filter", "specParams"]);
        let made = element("interface").with("type", UNPLUGGED).children(mac).child(model);
        return Ok(made.child(element("link").with("state", "down")));
    };
    Ok(element("interface")
        .with("type", kind)
        .children(mac)
        .child(element("source").with(kind, network))
        .child(model)
        .children(link.map(|state| element("link").with("state", state)))
        .children(bounds.filter(|bounds| *bounds != element("bandwidth")))
        .children(filter.map(|filter| element("filterref").with("filter", filter))))
}

/// The kind of a card that is plugged into nothing: libvirt makes its end on the host and connects that to nothing, and
/// its link is down. A manager can ask for no other of this kind.
pub(super) const UNPLUGGED: &str = "ethernet";

/// A document that was made here, with its cards that are plugged into nothing on this bridge: from one of no kind libvirt
/// lets none be plugged elsewhere while its VM is up. Texts of managers have no such tag, as they are escaped.
pub fn led_to(bridge: &str, document: &str) -> String {
    let source = element("source").with("bridge", bridge).to_xml();
    document.replace(
        &format!("<interface type=\"{UNPLUGGED}\">"),
        &format!("<interface type=\"bridge\">{source}"),
    )
}

/// How much a card may send or take in one direction: KiB a second, and KiB of a burst.
fn bound(name: &'static str, fields: &Fields<'_>) -> Result<Option<Element>, Refused> {
    let Some(average) = fields.number("average")? else { return Ok(None) };
    let made = element(name).with("average", average);
    Ok(Some(made.maybe("peak", fields.number("peak")?).maybe("burst", fields.number("burst")?)))
}

/// Bounds of a disk, as libvirt names them.
const IO_BOUNDS: &[&str] = &[
    "total_bytes_sec",
    "read_bytes_sec",
    "write_bytes_sec",
    "total_iops_sec",
    "read_iops_sec",
    "write_iops_sec",
];

fn io_tune(fields: &Fields<'_>) -> Result<Option<Element>, Refused> {
    let mut made = element("iotune");
    for name in IO_BOUNDS {
        if let Some(text) = fields.text(name)? {
            let most: u64 = text
                .parse()
                .map_err(|_| fields.bad(name, "a whole number from 0 to 18446744073709551615"))?;
            made = made.child(element(name).text(most));
        }
    }
    Ok(Some(made).filter(|made| *made != element("iotune")))
}

fn smartcard(fields: &Fields<'_>) -> Result<Element, Refused> {
    fields.skip(&["device"]);
    let spec = fields.structure("specParams", |spec| Ok((spec.text("mode")?, spec.text("type")?)))?;
    let (mode, kind) = spec.unwrap_or_default();
    let mode = mode.unwrap_or_else(|| "passthrough".into());
    let kind = kind.or_else(|| Some("spicevmc".into())).filter(|_| mode == "passthrough");
    Ok(element("smartcard").with("mode", mode).maybe("type", kind))
}

fn redirection(fields: &Fields<'_>) -> Result<Element, Refused> {
    let kind = fields.word("device", &[("spicevmc", "spicevmc")])?.unwrap_or("spicevmc");
    let bus = fields.word("bus", &[("usb", "usb")])?.unwrap_or("usb");
    Ok(element("redirdev").with("bus", bus).with("type", kind))
}

fn video(fields: &Fields<'_>) -> Result<Element, Refused> {
    let model = element("model").with("type", fields.required("device")?);
    let parts = fields.structure("specParams", |spec| {
        Ok((spec.number("vram")?, spec.number("ram")?, spec.number("vgamem")?, spec.number("heads")?))
    })?;
    let (vram, ram, vga, heads) = parts.unwrap_or_default();
    let model = model.maybe("ram", ram).maybe("vram", vram).maybe("vgamem", vga).maybe("heads", heads);
    Ok(element("video").child(model))
}

/// Where a character device leads: a socket of this name, or one that libvirt chooses.
fn character(fields: &Fields<'_>, made: Element, without: &str) -> Result<Element, Refused> {
    Ok(match fields.text("path")? {
        Some(path) => {
            made.with("type", "unix").child(element("source").with("mode", "bind").with("path", path))
        }
        None => made.with("type", without),
    })
}

fn console(fields: &Fields<'_>) -> Result<Element, Refused> {
    fields.skip(&["device"]);
    let kinds = [("virtio", true), ("serial", false)];
    let virtio = fields.structure("specParams", |spec| spec.word("consoleType", &kinds))?;
    if virtio.flatten().unwrap_or(true) {
        let made = character(fields, element("console"), "pty")?;
        return Ok(made.child(element("target").with("type", "virtio")));
    }
    character(fields, element("serial"), "pty")
}

fn channel(fields: &Fields<'_>) -> Result<Element, Refused> {
    let kinds = [("unix", false), ("spicevmc", true), ("spice", true)];
    let spice = fields.word("device", &kinds)?.unwrap_or(false);
    let name = fields.text("name")?;
    let target = |name: String| element("target").with("type", "virtio").with("name", name);
    if spice {
        let name = name.unwrap_or_else(|| "com.redhat.spice.0".into());
        return Ok(element("channel").with("type", "spicevmc").child(target(name)));
    }
    let name = name.ok_or_else(|| fields.missing("name"))?;
    Ok(character(fields, element("channel"), "unix")?.child(target(name)))
}

fn watchdog(fields: &Fields<'_>) -> Result<Element, Refused> {
    fields.skip(&["device"]);
    let spec = fields.structure("specParams", |spec| Ok((spec.text("model")?, spec.text("action")?)))?;
    let (model, action) = spec.unwrap_or_default();
    let model = model.unwrap_or_else(|| "i6300esb".into());
    Ok(element("watchdog").with("model", model).with("action", action.unwrap_or_else(|| "none".into())))
}

fn rng(fields: &Fields<'_>) -> Result<Element, Refused> {
    fields.skip(&["device"]);
    let model = fields.text("model")?.unwrap_or_else(|| "virtio".into());
    let sources = [("random", "/dev/random"), ("urandom", "/dev/urandom"), ("hwrng", "/dev/hwrng")];
    let spec = fields.structure("specParams", |spec| {
        Ok((spec.word("source", &sources)?, spec.number("bytes")?, spec.number("period")?))
    })?;
    let (source, bytes, period) = spec.unwrap_or_default();
    let rate = bytes.map(|bytes| element("rate").with("bytes", bytes).maybe("period", period));
    let backend = element("backend").with("model", "random").text(source.unwrap_or("/dev/urandom"));
    Ok(element("rng").with("model", model).children(rate).child(backend))
}

fn balloon_of(fields: &Fields<'_>) -> Result<Element, Refused> {
    fields.skip(&["device"]);
    let model = fields.structure("specParams", |spec| spec.text("model"))?.flatten();
    Ok(element("memballoon").with("model", model.unwrap_or_else(|| "virtio".into())))
}

fn controller(fields: &Fields<'_>) -> Result<Element, Refused> {
    let kinds = [
        ("usb", "usb"),
        ("scsi", "scsi"),
        ("virtio-serial", "virtio-serial"),
        ("ide", "ide"),
        ("sata", "sata"),
    ];
    let kind = fields.word("device", &kinds)?.ok_or_else(|| fields.missing("device"))?;
    let master = fields.structure("master", |master| master.number("startport"))?.flatten();
    let thread = fields.structure("specParams", |spec| thread(spec, "ioThreadId"))?.flatten();
    Ok(element("controller")
        .with("type", kind)
        .maybe("index", fields.text("index")?)
        .maybe("model", fields.text("model")?)
        .children(master.map(|port| element("master").with("startport", port)))
        .children(thread.map(|thread| element("driver").with("iothread", thread))))
}

/// One of the threads of `numOfIoThreads`, which count from 1.
fn thread(spec: &Fields<'_>, name: &'static str) -> Result<Option<u64>, Refused> {
    Ok(spec.number(name)?.filter(|&thread| thread > 0))
}
