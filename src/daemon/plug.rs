//! Devices that are plugged into a running domain and out of it, in libvirt's documents: which one is meant, where a new one
//! has its place, and what a drive's document is with another medium.

use quick_xml::escape::escape;
use roxmltree::Node;
use whydown_core::operation::{Drive, NewMedium, OldDevice, Pluggable};
use whydown_libvirt::Refusal;

use super::document::{BadDocument, domain_of, parse};
use super::hands::refused;

/// Letters of targets on one bus.
const LETTERS: std::ops::RangeInclusive<char> = 'a'..='z';

/// The document of the drive that is meant, with this medium in it.
///
/// # Errors
/// There is no such drive, or the domain has ended.
pub fn with_medium(domain: &str, wanted: &NewMedium) -> Result<String, Refusal> {
    in_devices(domain, |_, devices| {
        let drive = drive_of(devices, wanted)?;
        let block = wanted.path.as_deref().is_some_and(is_block);
        let mut document = start_of(drive, "type", if block { "block" } else { "file" });
        document.push('>');
        let (mut source, mut rest) = (String::new(), String::new());
        for part in drive.children().filter(Node::is_element) {
            match part.tag_name().name() {
                // Of the old medium.
                "source" | "backingStore" | "mirror" => {}
                // As it was judged: the image is what it is, and names no other.
                "driver" => source = format!("{}/>", start_of(part, "type", "raw")),
                // An open tray takes none.
                "target" => rest.push_str(&closed(part)),
                _ => rest.push_str(&domain[part.range()]),
            }
        }
        if source.is_empty() {
            source.push_str("<driver name='qemu' type='raw'/>");
        }
        if let Some(path) = &wanted.path {
            source.push_str(&source_of(path));
        }
        Ok(format!("{document}{source}{rest}</disk>"))
    })
}

/// The document of a disk, with the first target in it that is free in this domain and begins so.
///
/// # Errors
/// None is free, or the domain has ended.
pub fn in_its_place(disk: &str, domain: &str, targets: &str) -> Result<String, Refusal> {
    let free = in_devices(domain, |_, devices| {
        let taken: Vec<&str> = of_kind(devices, "disk").filter_map(target_of).collect();
        let free = LETTERS.map(|letter| format!("{targets}{letter}")).find(|name| !taken.contains(&&**name));
        free.ok_or_else(|| refused(format!("all targets that begin with {targets} are taken")))
    })?;
    let tree = parse(disk).map_err(unreadable)?;
    let target = tree.root_element().children().find(|part| part.has_tag_name("target"));
    let Some(target) = target else { return Ok(disk.to_owned()) };
    let (before, after) = (&disk[..target.range().start], &disk[target.range().end..]);
    Ok(format!("{before}{}/>{after}", start_of(target, "dev", &free)))
}

/// A device that the guest of a running domain is asked to give up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaving {
    /// As libvirt calls it.
    pub alias: String,
    /// libvirt's number of the domain, which is another when it is started anew.
    run: String,
}

/// The device that is meant. Of a card its hardware address says which one it is, of a disk its path; what
/// else is known chooses among several, and speaks alone where that is not known.
///
/// # Errors
/// There is none, or several; or the domain has ended.
pub fn leaving(domain: &str, old: &OldDevice) -> Result<Leaving, Refusal> {
    in_devices(domain, |run, devices| {
        let (kind, what) = match old.kind {
            Pluggable::Card => ("interface", "network card"),
            Pluggable::Disk => ("disk", "disk"),
        };
        let mut meant: Vec<Node<'_, '_>> = of_kind(devices, kind).filter(|it| alias(*it).is_some()).collect();
        let mut chosen = false;
        if let Some(place) = &old.place {
            meant.retain(|it| is_at(*it, old.kind, place));
            chosen = true;
        }
        for name in [&old.alias, &old.given].into_iter().flatten() {
            let called: Vec<_> = meant.iter().copied().filter(|it| alias(*it) == Some(name)).collect();
            // A manager's names of devices that it did not name itself are its own.
            if !called.is_empty() {
                (meant, chosen) = (called, true);
            }
        }
        match &meant[..] {
            [one] if chosen => {
                Ok(Leaving { alias: alias(*one).unwrap_or_default().to_owned(), run: run.to_owned() })
            }
            [] | [_] => Err(refused(format!("the VM has no such {what}"))),
            [..] if !chosen => Err(refused(format!("the VM has no such {what}"))),
            [..] => Err(refused(format!("the VM has several such {what}s: name the alias of one"))),
        }
    })
}

/// Whether the domain still has this device.
///
/// # Errors
/// The domain has ended, or has been started anew: with such a device or without, it was not given up.
pub fn has(domain: &str, leaving: &Leaving) -> Result<bool, Refusal> {
    in_devices(domain, |run, devices| {
        if run != leaving.run {
            return Err(Refusal::NoDomain);
        }
        Ok(devices.children().filter(Node::is_element).any(|it| alias(it) == Some(&leaving.alias)))
    })
}

/// Reads the devices of a domain that runs: the document of one that has ended, and is defined, is about the next time.
/// `read` gets libvirt's number of it as well.
fn in_devices<T>(
    domain: &str,
    read: impl FnOnce(&str, Node<'_, '_>) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    let tree = parse(domain).map_err(unreadable)?;
    let root = domain_of(&tree).map_err(unreadable)?;
    let Some(run) = root.attribute("id") else { return Err(Refusal::NoDomain) };
    let devices = root.children().find(|part| part.has_tag_name("devices"));
    read(run, devices.ok_or_else(|| refused("libvirt's document has no devices"))?)
}

fn drive_of<'a, 'b>(devices: Node<'a, 'b>, wanted: &NewMedium) -> Result<Node<'a, 'b>, Refusal> {
    let word = word_of(wanted.drive);
    let drives: Vec<_> =
        of_kind(devices, "disk").filter(|drive| drive.attribute("device") == Some(word)).collect();
    let at = |target: &str| drives.iter().copied().find(|drive| target_of(*drive) == Some(target));
    let kind = match wanted.drive {
        Drive::Disc => "drive for compact discs",
        Drive::Floppy => "floppy drive",
    };
    if let Some(target) = &wanted.target {
        return at(target).ok_or_else(|| refused(format!("the VM has no {kind} {target}")));
    }
    let usual = match wanted.drive {
        Drive::Disc => "hdc",
        Drive::Floppy => "fda",
    };
    match (at(usual), &drives[..]) {
        (Some(drive), _) => Ok(drive),
        (None, [drive]) => Ok(*drive),
        (None, []) => Err(refused(format!("the VM has no {kind}"))),
        (None, _) => Err(refused(format!("the VM has several, and no {kind} {usual}"))),
    }
}

const fn word_of(drive: Drive) -> &'static str {
    match drive {
        Drive::Disc => "cdrom",
        Drive::Floppy => "floppy",
    }
}

fn is_block(path: &str) -> bool {
    path.starts_with("/dev/")
}

fn source_of(path: &str) -> String {
    format!("<source {}='{}'/>", if is_block(path) { "dev" } else { "file" }, escape(path))
}

/// The beginning of an element with all its attributes, this one with this value, up to its end.
fn start_of(element: Node<'_, '_>, name: &str, value: &str) -> String {
    let others = element.attributes().filter(|attribute| attribute.name() != name);
    let others: String =
        others.map(|attribute| format!(" {}='{}'", attribute.name(), escape(attribute.value()))).collect();
    format!("<{} {name}='{}'{others}", element.tag_name().name(), escape(value))
}

fn closed(target: Node<'_, '_>) -> String {
    let others = target.attributes().filter(|attribute| attribute.name() != "tray");
    let others: String =
        others.map(|attribute| format!(" {}='{}'", attribute.name(), escape(attribute.value()))).collect();
    format!("<target{others}/>")
}

fn of_kind<'a, 'b>(devices: Node<'a, 'b>, kind: &str) -> impl Iterator<Item = Node<'a, 'b>> {
    devices.children().filter(move |device| device.has_tag_name(kind))
}

fn part<'a>(device: Node<'a, '_>, name: &str, attribute: &str) -> Option<&'a str> {
    device.children().find(|part| part.has_tag_name(name))?.attribute(attribute)
}

fn alias<'a>(device: Node<'a, '_>) -> Option<&'a str> {
    part(device, "alias", "name")
}

fn target_of<'a>(disk: Node<'a, '_>) -> Option<&'a str> {
    part(disk, "target", "dev")
}

fn is_at(device: Node<'_, '_>, kind: Pluggable, place: &str) -> bool {
    match kind {
        Pluggable::Card => part(device, "mac", "address").is_some_and(|mac| mac.eq_ignore_ascii_case(place)),
        Pluggable::Disk => {
            ["file", "dev"].iter().any(|attribute| part(device, "source", attribute) == Some(place))
        }
    }
}

fn unreadable(bad: BadDocument) -> Refusal {
    refused(format!("a document cannot be read: {bad}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOMAIN: &str = "<domain type='qemu' id='3'><name>n</name><devices>\
        <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/a &amp; b.img'/>\
          <backingStore/><target dev='vda' bus='virtio'/><alias name='virtio-disk0'/></disk>\
        <disk type='file' device='disk'><source file='/a &amp; b.img'/><target dev='vdc' bus='virtio'/>\
          <alias name='ua-1'/></disk>\
        <disk type='block' device='cdrom'><driver name='qemu' type='raw' cache='none'/><source dev='/dev/sr0' index='2'/>\
          <backingStore/><target dev='hdc' bus='ide' tray='open'/><readonly/><alias name='ide0-1-0'/>\
          <address type='drive' controller='0'/></disk>\
        <interface type='bridge'><mac address='52:54:00:00:00:0a'/><alias name='net0'/></interface>\
        <interface type='bridge'><mac address='52:54:00:00:00:0b'/><alias name='ua-2'/></interface>\
        </devices></domain>";

    fn medium(target: Option<&str>, path: Option<&str>) -> NewMedium {
        NewMedium { drive: Drive::Disc, target: target.map(str::to_owned), path: path.map(str::to_owned) }
    }

    fn said<T: std::fmt::Debug>(outcome: Result<T, Refusal>) -> String {
        outcome.expect_err("it is refused").to_string()
    }

    #[test]
    fn a_drive_keeps_everything_but_its_medium() {
        let rest = "<target dev='hdc' bus='ide'/><readonly/><alias name='ide0-1-0'/>\
                    <address type='drive' controller='0'/></disk>";
        assert_eq!(
            with_medium(DOMAIN, &medium(None, Some("/c'<.iso"))).unwrap(),
            format!(
                "<disk type='file' device='cdrom'><driver type='raw' name='qemu' cache='none'/>\
                 <source file='/c&apos;&lt;.iso'/>{rest}"
            )
        );
        let block = with_medium(DOMAIN, &medium(Some("hdc"), Some("/dev/sr1"))).unwrap();
        assert!(block.starts_with("<disk type='block'") && block.contains("<source dev='/dev/sr1'/>"));
        let empty = with_medium(DOMAIN, &medium(None, None)).unwrap();
        assert!(empty.starts_with("<disk type='file'") && !empty.contains("<source"), "{empty}");
    }

    #[test]
    fn a_drive_is_the_usual_one_or_the_only_one_or_the_one_that_is_named() {
        let elsewhere = DOMAIN.replace("hdc", "sda");
        assert!(with_medium(&elsewhere, &medium(None, None)).unwrap().contains("dev='sda'"));
        assert!(said(with_medium(DOMAIN, &medium(Some("hdd"), None))).contains("hdd"));
        assert!(said(with_medium(DOMAIN, &medium(Some("vda"), None))).contains("no drive"), "it is a disk");
        let none = DOMAIN.replace("device='cdrom'", "device='lun'");
        assert!(said(with_medium(&none, &medium(None, None))).contains("no drive"));
        let two = DOMAIN
            .replace("'vdc'", "'sdb'")
            .replace("hdc", "sda")
            .replace("device='disk'><source", "device='cdrom'><source");
        assert!(said(with_medium(&two, &medium(None, None))).contains("several"));
        let floppy = NewMedium { drive: Drive::Floppy, ..medium(None, None) };
        assert!(said(with_medium(DOMAIN, &floppy)).contains("floppy"));
        let ended = DOMAIN.replace(" id='3'", "");
        assert_eq!(with_medium(&ended, &medium(None, None)), Err(Refusal::NoDomain));
    }

    #[test]
    fn a_new_disk_has_the_first_free_place_on_its_bus() {
        let disk = "<disk type='file'><target dev='vda' bus='virtio'/><serial>s</serial></disk>";
        assert_eq!(
            in_its_place(disk, DOMAIN, "vd").unwrap(),
            "<disk type='file'><target dev='vdb' bus='virtio'/><serial>s</serial></disk>"
        );
        let full: String = LETTERS.map(|letter| format!("<disk><target dev='vd{letter}'/></disk>")).collect();
        let full = format!("<domain id='1'><devices>{full}</devices></domain>");
        assert!(said(in_its_place(disk, &full, "vd")).contains("taken"));
    }

    #[test]
    fn a_device_is_found_by_what_it_is_and_names_choose_among_several() {
        let old = |kind, place: &str, alias: &str, given: &str| {
            let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
            let old = OldDevice { kind, place: some(place), alias: some(alias), given: some(given) };
            leaving(DOMAIN, &old).map(|it| it.alias)
        };
        let (card, disk) = (Pluggable::Card, Pluggable::Disk);
        for (kind, place, alias, given, found) in [
            (card, "52:54:00:00:00:0A", "", "", "net0"),
            (card, "52:54:00:00:00:0b", "", "ua-2", "ua-2"),
            // The manager's own name of a card that somebody else named.
            (card, "52:54:00:00:00:0a", "", "ua-9", "net0"),
            (card, "", "net0", "", "net0"),
            (card, "", "", "ua-2", "ua-2"),
            (disk, "/a & b.img", "", "ua-1", "ua-1"),
            (disk, "/a & b.img", "virtio-disk0", "", "virtio-disk0"),
            (disk, "/dev/sr0", "", "", "ide0-1-0"),
        ] {
            assert_eq!(old(kind, place, alias, given).as_deref(), Ok(found), "{place} {alias} {given}");
        }
        for (kind, place, alias, given, why) in [
            (card, "52:54:00:00:00:0c", "net0", "", "no such network card"),
            (card, "", "net7", "", "no such network card"),
            (card, "", "virtio-disk0", "", "no such network card"),
            (disk, "/a & b.img", "", "ua-9", "several such disks"),
            (disk, "/b", "", "", "no such disk"),
        ] {
            let refusal = said(old(kind, place, alias, given));
            assert!(refusal.contains(why), "{refusal}");
        }
        let of = |alias: &str| Leaving { alias: alias.into(), run: "3".into() };
        assert_eq!((has(DOMAIN, &of("net0")), has(DOMAIN, &of("net1"))), (Ok(true), Ok(false)));
        for number in ["", " id='4'"] {
            let later = DOMAIN.replace(" id='3'", number);
            assert_eq!(has(&later, &of("net0")), Err(Refusal::NoDomain), "it was asked of an earlier run");
            assert_eq!(has(&later, &of("net1")), Err(Refusal::NoDomain), "{number}");
        }
    }
}
