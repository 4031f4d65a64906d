//! libvirt's documents of parts of a running domain: consoles with a password, disks with a snapshot.

use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, Writer};
use whydown_core::operation::{Connected, NewLink, NewNetwork, SnapshotDisk, Ticket};
use whydown_core::time::Wall;

/// Names that are shorter stand in other words by chance.
const WORD: usize = 4;

/// The graphics devices of a domain's document for which this ticket is, each with its password. Empty if it has none.
///
/// # Errors
/// The document cannot be read.
pub fn with_ticket(domain: &str, ticket: &Ticket, now: Wall) -> Result<Vec<String>, quick_xml::Error> {
    let until = ticket.valid_for.map(|life| {
        let at =
            jiff::Timestamp::from_millisecond(now.after(life).as_millis()).unwrap_or(jiff::Timestamp::MAX);
        at.strftime("%Y-%m-%dT%H:%M:%S").to_string()
    });
    let connected = match ticket.connected {
        Connected::Disconnect => "disconnect",
        Connected::Keep => "keep",
        Connected::Fail => "fail",
    };
    let ours = ["passwd", "passwdValidTo", "connected"];
    let is_meant = |start: &BytesStart<'_>| -> Result<bool, quick_xml::Error> {
        let Some(console) = ticket.console else { return Ok(true) };
        Ok(start.try_get_attribute("type")?.is_some_and(|kind| kind.value.as_ref() == console.word()))
    };
    let begin = |start: &BytesStart<'_>| -> Result<BytesStart<'static>, quick_xml::Error> {
        let mut new = BytesStart::new("graphics");
        let spice = start.try_get_attribute("type")?.is_some_and(|kind| kind.value.as_ref() == "spice");
        for attribute in start.attributes() {
            let attribute = attribute?;
            if !ours.contains(&attribute.key.as_ref()) {
                new.push_attribute(attribute);
            }
        }
        new.push_attribute(("passwd", ticket.password.as_str()));
        if let Some(until) = &until {
            new.push_attribute(("passwdValidTo", until.as_str()));
        }
        // Only SPICE has the choice; VNC's passwords are for those who come.
        if spice {
            new.push_attribute(("connected", connected));
        }
        Ok(new.into_owned())
    };
    let mut reader = Reader::from_str(domain);
    let (mut found, mut depth) = (Vec::new(), 0usize);
    let mut open: Option<(usize, Writer<Vec<u8>>)> = None;
    loop {
        let event = reader.read_event()?;
        match &event {
            Event::Eof => return Ok(found),
            Event::Start(start) => {
                depth += 1;
                if depth == 3 && start.name().as_ref() == "graphics" && is_meant(start)? {
                    let mut writer = Writer::new(Vec::new());
                    writer.write_event(Event::Start(begin(start)?))?;
                    open = Some((depth, writer));
                    continue;
                }
            }
            Event::Empty(start) if depth == 2 && start.name().as_ref() == "graphics" && is_meant(start)? => {
                let mut writer = Writer::new(Vec::new());
                writer.write_event(Event::Empty(begin(start)?))?;
                found.push(text_of(writer));
            }
            _ => {}
        }
        if let Some((_, writer)) = &mut open {
            writer.write_event(event.borrow())?;
        }
        if matches!(event, Event::End(_)) {
            if let Some((_, writer)) = open.take_if(|(opened, _)| *opened == depth) {
                found.push(text_of(writer));
            }
            depth = depth.saturating_sub(1);
        }
    }
}

/// The card of a domain's document that has this alias, plugged in as it is wanted; or why that cannot be.
///
/// # Errors
/// The document cannot be read.
pub fn with_link(domain: &str, link: &NewLink) -> Result<Result<String, &'static str>, quick_xml::Error> {
    let mut reader = Reader::from_str(domain);
    let mut depth = 0usize;
    let mut card: Vec<Event<'_>> = Vec::new();
    loop {
        let event = reader.read_event()?;
        match &event {
            Event::Start(start) => {
                depth += 1;
                if depth == 3 && start.name().as_ref() == "interface" {
                    card.clear();
                    card.push(event);
                    continue;
                }
            }
            Event::End(_) if depth == 3 && !card.is_empty() => {
                let found = std::mem::take(&mut card);
                if has_alias(&found, &link.alias)? {
                    return plugged(&found, link);
                }
            }
            Event::Eof => return Ok(Err("the VM has no network card of this alias")),
            _ => {}
        }
        if matches!(event, Event::End(_)) {
            depth = depth.saturating_sub(1);
        }
        if !card.is_empty() {
            card.push(event);
        }
    }
}

/// VDSM's bridge without a way out, which it made on each of its hosts, for cards that are to lead nowhere. A card that runs
/// cannot be taken off all bridges, and libvirt refuses where there is no such bridge.
pub(super) const NOWHERE: &str = ";vdsmdummy;";

/// A tag of the card itself, and not of what is deeper in it.
fn own_tags<'a, 'b>(card: &'a [Event<'b>]) -> impl Iterator<Item = (usize, &'a BytesStart<'b>)> {
    let mut depth = 0usize;
    card.iter().enumerate().filter_map(move |(index, event)| match event {
        Event::Start(start) => {
            depth += 1;
            (depth == 2).then_some((index, start))
        }
        Event::Empty(start) => (depth == 1).then_some((index, start)),
        Event::End(_) => {
            depth = depth.saturating_sub(1);
            None
        }
        _ => None,
    })
}

fn has_alias(card: &[Event<'_>], alias: &str) -> Result<bool, quick_xml::Error> {
    for (_, tag) in own_tags(card).filter(|(_, tag)| tag.name().as_ref() == "alias") {
        if value(tag, "name")?.as_deref() == Some(alias) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn plugged(card: &[Event<'_>], link: &NewLink) -> Result<Result<String, &'static str>, quick_xml::Error> {
    let Some(Event::Start(first)) = card.first() else { return Ok(Err("it cannot be read")) };
    let kind = value(first, "type")?.unwrap_or_default();
    let up = if link.network == Some(NewNetwork::Nowhere) { Some(false) } else { link.up };
    if kind == "ethernet" && up == Some(true) {
        // As `create` makes a card without a network: at its other end is this host alone.
        return Ok(Err("this network card leads to no network"));
    }
    let source = match (&link.network, kind.as_str()) {
        (None, _) | (Some(NewNetwork::Nowhere), "ethernet") => None,
        (Some(NewNetwork::Named(network)), "bridge" | "network") => Some(network.as_str()),
        (Some(NewNetwork::Nowhere), "bridge") => Some(NOWHERE),
        (Some(NewNetwork::Nowhere), "network") => {
            // libvirt would take the bridge for it, and nobody could say then to which network it belongs.
            return Ok(Err(
                "a card on a network of libvirt's stays on one: its cable can be out (linkActive)",
            ));
        }
        _ => return Ok(Err("its kind of network card cannot be plugged elsewhere")),
    };
    let source = source.map(|name| BytesStart::new("source").with_attributes([(kind.as_str(), name)]));
    let state = up.map(|up| if up { "up" } else { "down" });
    let own: Vec<(usize, &str)> =
        own_tags(card).map(|(index, tag)| (index, tag.name().into_inner())).collect();
    let mut writer = Writer::new(Vec::new());
    let mut left_out = None;
    for (index, event) in card.iter().enumerate() {
        let name = own.iter().find(|(at, _)| *at == index).map(|(_, name)| *name);
        let replaced = match name {
            Some("link") => state.is_some(),
            // With what libvirt has noted of the old one.
            Some("source") => source.is_some(),
            _ => false,
        };
        if replaced && matches!(event, Event::Start(_)) {
            left_out = name;
        }
        if !replaced && left_out.is_none() {
            writer.write_event(event.borrow())?;
        }
        if let (Event::End(end), Some(name)) = (event, left_out)
            && end.name().as_ref() == name
        {
            left_out = None;
        }
        if index == 0 {
            if let Some(source) = &source {
                writer.write_event(Event::Empty(source.borrow()))?;
            }
            if let Some(state) = state {
                let link = BytesStart::new("link").with_attributes([("state", state)]);
                writer.write_event(Event::Empty(link))?;
            }
        }
    }
    writer.write_event(Event::End(first.to_end()))?;
    Ok(Ok(text_of(writer)))
}

/// The address of a domain's screen on another host; `None` for a domain without one.
///
/// # Errors
/// The document cannot be read.
pub fn screen_at(domain: &str, host: &str) -> Result<Option<String>, quick_xml::Error> {
    let kinds = attributes(domain, &["domain", "devices", "graphics"], "type")?;
    // Viewers of SPICE alone can be sent on: where there are both it is meant.
    let kind = ["spice", "vnc"].into_iter().find(|known| kinds.iter().any(|kind| kind == known));
    Ok(kind.map(|kind| format!("{kind}://{host}")))
}

/// A snapshot of these disks and no others; `all` are the targets of all disks of the domain.
pub fn snapshot(disks: &[SnapshotDisk], all: &[String]) -> String {
    let mut writer = Writer::new(Vec::new());
    let written = writer.create_element("domainsnapshot").write_inner_content(|writer| {
        writer.create_element("disks").write_inner_content(|writer| {
            for disk in disks {
                let element = writer.create_element("disk");
                let element =
                    element.with_attributes([("name", disk.target.as_str()), ("snapshot", "external")]);
                element.write_inner_content(|writer| {
                    writer.create_element("driver").with_attribute(("type", "qcow2")).write_empty()?;
                    writer
                        .create_element("source")
                        .with_attribute(("file", disk.file.as_str()))
                        .write_empty()?;
                    Ok(())
                })?;
            }
            for target in all.iter().filter(|target| !disks.iter().any(|disk| disk.target == **target)) {
                let element = writer.create_element("disk");
                element.with_attributes([("name", target.as_str()), ("snapshot", "no")]).write_empty()?;
            }
            Ok(())
        })?;
        Ok(())
    });
    written.expect("writing to memory does not fail");
    text_of(writer)
}

/// The names of the networks that a domain's document connects it to.
///
/// # Errors
/// The document cannot be read.
pub fn networks(domain: &str) -> Result<Vec<String>, quick_xml::Error> {
    named(domain, "interface", "source", "network")
}

/// Paths of files and devices of the host, and names of networks, that a domain's document names anywhere.
///
/// # Errors
/// The document cannot be read.
pub fn sources(domain: &str) -> Result<Vec<String>, quick_xml::Error> {
    let mut reader = Reader::from_str(domain);
    let mut found = Vec::new();
    loop {
        match reader.read_event()? {
            Event::Start(start) | Event::Empty(start) if start.name().as_ref() == "source" => {
                for name in ["file", "dev", "dir", "network", "bridge"] {
                    found.extend(value(&start, name)?.filter(|text| text.len() >= WORD));
                }
            }
            Event::Eof => return Ok(found),
            _ => {}
        }
    }
}

/// The disks of a running domain's document that are files or devices of the host: libvirt's alias of each, and its path.
///
/// # Errors
/// The document cannot be read.
pub fn disk_places(domain: &str) -> Result<Vec<(String, String)>, quick_xml::Error> {
    let mut reader = Reader::from_str(domain);
    let (mut places, mut path) = (Vec::new(), Vec::<String>::new());
    let (mut alias, mut place) = (None, None);
    loop {
        let event = reader.read_event()?;
        if let Event::Start(start) | Event::Empty(start) = &event {
            let in_disk = path.len() == 3 && path[1] == "devices" && path[2] == "disk";
            match start.name().as_ref() {
                "source" if in_disk => place = value(start, "file")?.or(value(start, "dev")?),
                "alias" if in_disk => alias = value(start, "name")?,
                _ => {}
            }
        }
        match event {
            Event::Start(start) => path.push(start.name().as_ref().to_owned()),
            Event::End(_) => {
                path.pop();
                if path.len() == 2 {
                    places.extend(alias.take().zip(place.take()));
                }
            }
            Event::Eof => return Ok(places),
            _ => {}
        }
    }
}

/// This attribute of this part of all devices of a kind.
fn named(domain: &str, kind: &str, part: &str, attribute: &str) -> Result<Vec<String>, quick_xml::Error> {
    attributes(domain, &["domain", "devices", kind, part], attribute)
}

/// This attribute of all elements at this place.
fn attributes(domain: &str, place: &[&str], attribute: &str) -> Result<Vec<String>, quick_xml::Error> {
    let mut reader = Reader::from_str(domain);
    let (mut targets, mut path) = (Vec::new(), Vec::<String>::new());
    loop {
        let event = reader.read_event()?;
        if let Event::Start(start) | Event::Empty(start) = &event {
            let around = path.iter().map(String::as_str).chain([start.name().into_inner()]);
            if around.eq(place.iter().copied())
                && let Some(dev) = value(start, attribute)?
            {
                targets.push(dev);
            }
        }
        match event {
            Event::Start(start) => path.push(start.name().as_ref().to_owned()),
            Event::End(_) => {
                path.pop();
            }
            Event::Eof => return Ok(targets),
            _ => {}
        }
    }
}

/// An attribute as it is meant.
fn value(start: &BytesStart<'_>, name: &str) -> Result<Option<String>, quick_xml::Error> {
    let Some(attribute) = start.try_get_attribute(name)? else { return Ok(None) };
    Ok(Some(attribute.normalized_value(quick_xml::XmlVersion::Explicit1_0)?.into_owned()))
}

fn text_of(writer: Writer<Vec<u8>>) -> String {
    String::from_utf8(writer.into_inner()).expect("only text was written")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use whydown_core::operation::Console;

    const DOMAIN: &str = "<domain><name>graphics</name><devices>\
        <disk><source file='a'/><target dev='vda' bus='virtio'/></disk>\
        <disk><target dev='vdb'/></disk><interface><target dev='vnet0'/></interface>\
        <graphics type='vnc' port='5900' passwd='old'><listen type='address' address='127.0.0.1'/></graphics>\
        <graphics type='spice' autoport='yes' connected='keep'/></devices></domain>";

    fn ticket() -> Ticket {
        Ticket {
            password: "a<b>\"&'".into(),
            valid_for: Some(Duration::from_secs(120)),
            connected: Connected::Fail,
            console: None,
        }
    }

    #[test]
    fn each_console_gets_the_password_and_keeps_the_rest() {
        let made = with_ticket(DOMAIN, &ticket(), Wall(1_456_747_200_000_000_000)).unwrap();
        let secret = "passwd=\"a&lt;b&gt;&quot;&amp;&apos;\" passwdValidTo=\"2016-02-29T12:02:00\"";
        assert_eq!(made.len(), 2);
        assert!(
            made[0].starts_with(&format!("<graphics type=\"vnc\" port=\"5900\" {secret}>")),
            "{}",
            made[0]
        );
        assert!(made[0].ends_with("<listen type='address' address='127.0.0.1'/></graphics>"), "{}", made[0]);
        assert_eq!(
            made[1],
            format!("<graphics type=\"spice\" autoport=\"yes\" {secret} connected=\"fail\"/>")
        );
        for (console, number) in [(Console::Vnc, 0), (Console::Spice, 1)] {
            let one = Ticket { console: Some(console), ..ticket() };
            let alone = with_ticket(DOMAIN, &one, Wall(1_456_747_200_000_000_000)).unwrap();
            assert_eq!(alone, [made[number].clone()], "{console:?}");
        }
        assert!(with_ticket("<domain><devices/></domain>", &ticket(), Wall(0)).unwrap().is_empty());
    }

    #[test]
    fn a_snapshot_leaves_the_other_disks_alone() {
        let all = ["vda", "vdb"].map(str::to_owned);
        let disks = [SnapshotDisk { target: "vdb".into(), file: "/a & b".into() }];
        assert_eq!(
            snapshot(&disks, &all),
            "<domainsnapshot><disks><disk name=\"vdb\" snapshot=\"external\"><driver type=\"qcow2\"/>\
             <source file=\"/a &amp; b\"/></disk><disk name=\"vda\" snapshot=\"no\"/></disks></domainsnapshot>"
        );
    }

    #[test]
    fn one_card_is_plugged_elsewhere_and_keeps_the_rest() {
        let document = "<domain><devices>\
            <interface type='bridge'><mac address='a'/><source bridge='b0'><x/></source><alias name='net0'/></interface>\
            <interface type='network'><source network='n' portid='1' bridge='b1'/><target dev='vnet1'/>\
            <link state='up'/><tune><link state='x'/></tune><alias name='net1'/></interface>\
            <interface type='user'><alias name='net2'/></interface>\
            <interface type='ethernet'><link state='down'/><alias name='net3'/></interface></devices></domain>";
        let with = |alias: &str, up, network: Option<&str>| {
            let named = |name: &str| match name {
                "" => NewNetwork::Nowhere,
                name => NewNetwork::Named(name.to_owned()),
            };
            let link = NewLink { alias: alias.into(), up, network: network.map(named) };
            with_link(document, &link).unwrap()
        };
        assert_eq!(
            with("net0", None, Some("b&2")).unwrap(),
            "<interface type='bridge'><source bridge=\"b&amp;2\"/><mac address='a'/><alias name='net0'/></interface>"
        );
        assert_eq!(
            with("net1", Some(false), Some("m")).unwrap(),
            "<interface type='network'><source network=\"m\"/><link state=\"down\"/><target dev='vnet1'/>\
             <tune><link state='x'/></tune><alias name='net1'/></interface>"
        );
        assert_eq!(
            with("net2", Some(true), None).unwrap(),
            "<interface type='user'><link state=\"up\"/><alias name='net2'/></interface>"
        );
        assert!(with("net2", None, Some("b")).is_err_and(|why| why.contains("kind")));
        assert!(with("net3", Some(true), None).is_err_and(|why| why.contains("no network")));
        assert!(with("net3", Some(false), None).is_ok());
        assert!(with("net9", Some(true), None).is_err_and(|why| why.contains("alias")));
        // Whatever is said of its cable.
        for up in [None, Some(true), Some(false)] {
            assert_eq!(
                with("net0", up, Some("")).unwrap(),
                "<interface type='bridge'><source bridge=\";vdsmdummy;\"/><link state=\"down\"/><mac address='a'/>\
                 <alias name='net0'/></interface>"
            );
            assert_eq!(
                with("net3", up, Some("")).unwrap(),
                "<interface type='ethernet'><link state=\"down\"/><alias name='net3'/></interface>"
            );
            assert!(with("net1", up, Some("")).is_err_and(|why| why.contains("libvirt")));
            assert!(with("net2", up, Some("")).is_err_and(|why| why.contains("kind")));
        }
    }

    #[test]
    fn a_screen_elsewhere_is_spices_where_there_are_both() {
        let at = |document: &str| screen_at(document, "[::1]").unwrap();
        assert_eq!(at(DOMAIN).as_deref(), Some("spice://[::1]"));
        let vnc = "<domain><devices><graphics type='vnc'><listen/></graphics><x><graphics type='spice'/></x></devices></domain>";
        assert_eq!(at(vnc).as_deref(), Some("vnc://[::1]"));
        assert_eq!(at("<domain><devices/></domain>"), None);
    }

    #[test]
    fn disks_have_their_own_files_and_names_are_read_as_they_are_meant() {
        let document = "<domain><devices>\
            <disk><source file='/a &amp; b' index='1'><x/></source><backingStore><source file='/base'/></backingStore>\
            <alias name='virtio-disk0'/></disk>\
            <disk><source protocol='rbd' name='x'/><alias name='virtio-disk1'/></disk>\
            <disk><source dev='/dev/vg/lv'/><alias name='ua-c'/></disk>\
            <interface><source network='a &lt; b'/></interface></devices></domain>";
        let place = |disk: &str, path: &str| (disk.to_owned(), path.to_owned());
        let places = [place("virtio-disk0", "/a & b"), place("ua-c", "/dev/vg/lv")];
        assert_eq!(disk_places(document).unwrap(), places);
        assert_eq!(networks(document).unwrap(), ["a < b"]);
    }

    #[test]
    fn a_password_is_never_shown() {
        assert!(!format!("{:?}", ticket()).contains("a<b"));
    }
}
