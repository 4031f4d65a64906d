//! Media, network cards and disks are changed while the guest runs, and `list` tells it at once and over restarts.

use std::path::PathBuf;

use tempfile::TempDir;
use whydown_lab::{Guest, Result, Serial, Signal, lab_dir, wait_until};

use crate::verbs::ask;
use whydown_lab::host::{Host, PATIENCE, says, told};

/// A bridge in the network of the test's own.
const BRIDGE: &str = "lab0";

const CARD: &str = "52:54:00:12:34:99";

const CARD_ID: &str = "0d0d0d0d-0000-4000-8000-0000000000c1";

const DISK_ID: &str = "0d0d0d0d-0000-4000-8000-0000000000d1";

/// What engines send of a card that is plugged in and out.
fn card() -> String {
    format!(
        "{{'type': 'interface', 'device': 'bridge', 'macAddr': '{CARD}', 'network': '{BRIDGE}', 'nicModel': 'pv', \
         'linkActive': 'true', 'specParams': {{'inbound': {{}}, 'outbound': {{}}}}, 'portMirroring': [], \
         'deviceId': '{CARD_ID}'}}"
    )
}

/// The code, and of the VM that is shown then the hash that is polled.
fn call(host: &Host, call: &str) -> Result<String> {
    ask(host, &format!("(lambda r: (r['status']['code'], r.get('vmList', {{}}).get('vmId')))(server.{call})"))
}

fn plug(host: &Host, verb: &str, guest: &Guest, name: &str, device: &str) -> Result<String> {
    call(host, &format!("{verb}({{'vmId': '{}', '{name}': {device}}})", guest.uuid_text()))
}

fn hash(host: &Host, guest: &Guest) -> Result<String> {
    crate::verbs::polled(host, guest, "hash")
}

/// A member of those devices of `list` that have this value of another.
fn listed(host: &Host, guest: &Guest, name: &str, value: &str, member: &str) -> Result<String> {
    let devices = format!("server.list('true', ['{}'])['vmList'][0]['devices']", guest.uuid_text());
    ask(host, &format!("[d.get('{member}') for d in {devices} if d.get('{name}') == '{value}']"))
}

fn file(folder: &TempDir, name: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::File::create(&path).and_then(|file| file.set_len(1 << 20)).expect("a file can be made");
    path
}

/// Up, and libvirt's own document was read.
fn up(host: &Host, guest: &Guest) -> Result<Serial> {
    let serial = host.up(guest)?;
    wait_until("its document was read", PATIENCE, || {
        listed(host, guest, "type", "disk", "alias").is_ok_and(|aliases| aliases.contains("virtio-disk0"))
    });
    Ok(serial)
}

#[test]
fn a_disc_is_put_in_and_taken_out_and_may_be_what_a_document_may_name() -> Result<()> {
    let media = lab_dir()?;
    let folder = media.path().display();
    let config = format!("[create]\nfolders = ['{folder}']\n[xmlrpc]\nplain_may_act = true\n");
    let host = Host::start_as("disc", &config, |launch| launch.as_delivered())?;
    let guest = host.guest("disc")?.device_xml(
        "<disk type='file' device='cdrom'><driver name='qemu' type='raw' cache='none'/><target dev='hdc' bus='ide'/>\
         <readonly/></disk><disk type='file' device='cdrom'><target dev='hdd' bus='ide'/><readonly/></disk>",
    );
    let _serial = up(&host, &guest)?;
    let id = guest.uuid_text();
    let (first, second) = (file(&media, "a 'first' & <one>.iso"), file(&media, "second.iso"));
    let (first, second) = (first.display().to_string(), second.display().to_string());
    let inside = |target: &str| listed(&host, &guest, "name", target, "path");
    let empty = hash(&host, &guest)?;
    assert_eq!(call(&host, &format!("changeCD('{id}', \"{first}\")"))?, format!("(0, '{id}')"));
    assert_eq!(inside("hdc")?, format!("[\"{first}\"]"));
    assert_eq!(crate::verbs::polled(&host, &guest, "cdrom")?, first);
    let full = hash(&host, &guest)?;
    assert_ne!(full, empty);

    // As engines from 4.0 on say it.
    let spec = |path: &str, index: u8| {
        format!("changeCD('{id}', {{'path': '{path}', 'iface': 'ide', 'index': '{index}'}})")
    };
    assert_eq!(call(&host, &spec(&second, 3))?, format!("(0, '{id}')"));
    assert_eq!((inside("hdc")?, inside("hdd")?), (format!("[\"{first}\"]"), format!("['{second}']")));
    assert_eq!(call(&host, &spec("", 3))?, format!("(0, '{id}')"));
    assert_eq!(inside("hdd")?, "['']");
    assert_eq!(hash(&host, &guest)?, full, "the hash is of what is there");

    let status = |call: &str| {
        let told = ask(&host, &format!("(lambda s: (s['code'], s['message']))(server.{call}['status'])"));
        told.unwrap_or_else(|error| panic!("{call}: {error}"))
    };
    for (call, code, word) in [
        (format!("changeCD('{id}', '/etc/shadow')"), 75, "create.folders"),
        (format!("changeCD('{id}', '{folder}/../x')"), 75, "create.folders"),
        (format!("changeCD('{id}', '{folder}/nothing.iso')"), 13, "nothing.iso"),
        (spec(&second, 1), 41, "hdb"),
        (spec("/etc/shadow", 3), 75, "create.folders"),
        (format!("changeFloppy('{id}', '{second}')"), 41, "floppy"),
        (
            format!("hotplugDisk({{'vmId': '{id}', 'drive': {{'path': '/etc/shadow'}}}})"),
            75,
            "create.folders",
        ),
    ] {
        let said = status(&call);
        assert!(said.starts_with(&format!("({code}, ")) && said.contains(word), "{call}: {said}");
    }
    assert_eq!(hash(&host, &guest)?, full, "nothing that was refused has changed anything");
    assert_eq!(call(&host, &format!("changeCD('{id}', '')"))?, format!("(0, '{id}')"));
    assert_eq!((inside("hdc")?.as_str(), hash(&host, &guest)?), ("['']", empty));
    assert_eq!(host.call(&format!("destroy('{id}')"))?, 0);
    let past = host.past(&guest)?;
    assert!(
        says(&past[0]["evidence"], "asked whydown to change the medium in one of its drives"),
        "{past:#?}"
    );
    assert!(says(&past[0]["evidence"], "refused to change the medium"), "{past:#?}");
    Ok(())
}

#[test]
fn a_card_is_plugged_in_is_there_after_restarts_and_leaves_when_the_guest_gives_it_up() -> Result<()> {
    let mut host = Host::start_with_bridges("card", &[BRIDGE])?;
    let guest = host.guest("card")?;
    let mut serial = up(&host, &guest)?;
    let id = guest.uuid_text().to_owned();
    let done = format!("(0, '{id}')");
    let without = hash(&host, &guest)?;
    let mine = |host: &Host, member: &str| listed(host, &guest, "macAddr", CARD, member);
    assert_eq!(plug(&host, "hotplugNic", &guest, "nic", &card().replace(BRIDGE, "lab9"))?, "(49, None)");
    assert_eq!((mine(&host, "alias")?.as_str(), hash(&host, &guest)?), ("[]", without.clone()));

    assert_eq!(plug(&host, "hotplugNic", &guest, "nic", &card())?, done);
    let with = hash(&host, &guest)?;
    assert_ne!(with, without);
    let shown = |host: &Host| -> Result<String> {
        Ok([mine(host, "deviceId")?, mine(host, "alias")?, mine(host, "linkActive")?].join(" "))
    };
    let named = format!("['{CARD_ID}'] ['ua-{CARD_ID}'] ['true']");
    assert_eq!(shown(&host)?, named);
    assert!(mine(&host, "address")?.contains("'slot'"));
    for _ in 0..2 {
        host.daemon.kill_9()?;
        host.daemon.start_again()?;
        wait_until("it answers", PATIENCE, || hash(&host, &guest).is_ok_and(|now| now == with));
        assert_eq!(shown(&host)?, named);
    }
    let links = host.links();
    host.libvirtd.kill_9()?;
    assert_eq!((shown(&host)?, hash(&host, &guest)?), (named.clone(), with.clone()), "without libvirtd");
    host.libvirtd.start_again()?;
    host.wait_link(links);
    assert_eq!((shown(&host)?, hash(&host, &guest)?), (named.clone(), with.clone()));

    // By its alias a manager plugs its cable out.
    let cable = |up: &str| {
        let link = format!("{{'deviceType': 'interface', 'alias': 'ua-{CARD_ID}', 'linkActive': '{up}'}}");
        call(&host, &format!("vmUpdateDevice('{id}', {link})"))
    };
    assert_eq!(cable("false")?, done);
    assert_eq!(mine(&host, "linkActive")?, "['false']");
    assert_ne!(hash(&host, &guest)?, with);
    assert_eq!(cable("true")?, done);
    assert_eq!(hash(&host, &guest)?, with);
    // This host has no bridge without a way out, and the card stays as it is.
    let nowhere = format!("{{'deviceType': 'interface', 'alias': 'ua-{CARD_ID}', 'network': ''}}");
    assert_eq!(call(&host, &format!("vmUpdateDevice('{id}', {nowhere})"))?, "(56, None)");
    assert_eq!((mine(&host, "linkActive")?.as_str(), hash(&host, &guest)?), ("['true']", with.clone()));

    assert_eq!(
        plug(&host, "hotunplugNic", &guest, "nic", "{'macAddr': '52:54:00:00:00:77'}")?,
        "(50, None)",
        "it has no such card"
    );
    // A guest that does not obey keeps it.
    let refused = format!("server.hotunplugNic({{'vmId': '{id}', 'nic': {}}})['status']", card());
    let refused = ask(&host, &refused)?;
    assert!(refused.contains("'code': 50") && refused.contains("has not given"), "{refused}");
    assert_eq!((shown(&host)?, hash(&host, &guest)?), (named, with));
    // And may yet give it up, which is told then.
    serial.eject()?;
    wait_until("the card is no longer told", PATIENCE, || mine(&host, "alias").is_ok_and(|all| all == "[]"));
    assert_eq!(hash(&host, &guest)?, without);

    assert_eq!(plug(&host, "hotplugNic", &guest, "nic", &card())?, done);
    let gone = while_it_ejects(&mut serial, || plug(&host, "hotunplugNic", &guest, "nic", &card()))?;
    assert_eq!((gone, mine(&host, "alias")?.as_str(), hash(&host, &guest)?), (done, "[]", without));
    serial.answer(PATIENCE)?;
    serial.power_off()?;
    // While nobody listened another client may have asked for it.
    let ending = host.check(&guest, &told("guest-poweroff", 0, 7), "probable")?;
    for step in ["asked whydown to plug a network card in", "asked whydown to plug a network card out"] {
        assert!(says(&ending["evidence"], step), "{step}: {ending:#}");
    }
    assert_eq!(plug(&host, "hotplugNic", &guest, "nic", &card())?, "(1, None)", "it is down");
    Ok(())
}

#[test]
fn a_card_that_is_to_lead_nowhere_is_taken_off_its_bridge_and_put_back() -> Result<()> {
    const NOWHERE: &str = ";vdsmdummy;";
    let host = Host::start_with_bridges("nowhere", &[BRIDGE, NOWHERE])?;
    let guest = host.guest("nowhere")?;
    let _serial = up(&host, &guest)?;
    let id = guest.uuid_text();
    let done = format!("(0, '{id}')");
    assert_eq!(plug(&host, "hotplugNic", &guest, "nic", &card())?, done);
    let with = hash(&host, &guest)?;
    let alias = format!("ua-{CARD_ID}");
    let update = |rest: &str| {
        let link = format!("{{'deviceType': 'interface', 'alias': '{alias}', {rest}}}");
        call(&host, &format!("vmUpdateDevice('{id}', {link})"))
    };
    let leads = |bridge: &str, up: &str| -> Result<()> {
        let document = host.libvirtd.virsh(&["dumpxml", "nowhere"])?;
        let document = String::from_utf8_lossy(&document.stdout).into_owned();
        assert!(document.contains(&format!("<source bridge='{bridge}'/>")), "{document}");
        assert_eq!(listed(&host, &guest, "macAddr", CARD, "linkActive")?, format!("['{up}']"));
        Ok(())
    };
    leads(BRIDGE, "true")?;
    // As engines say it of a card without a profile.
    let rest = "'specParams': {'inbound': {}, 'outbound': {}}, 'portMirroring': [], 'custom': {}";
    assert_eq!(update(&format!("'linkActive': 'true', 'network': '', {rest}"))?, done);
    leads(NOWHERE, "false")?;
    assert_ne!(hash(&host, &guest)?, with);
    assert_eq!(update("'linkActive': 'true'")?, done);
    leads(NOWHERE, "true")?;
    assert_eq!(update(&format!("'linkActive': 'true', 'network': '{BRIDGE}', {rest}"))?, done);
    leads(BRIDGE, "true")?;
    assert_eq!(hash(&host, &guest)?, with);
    Ok(())
}

/// What `ask` gives while the guest ejects whatever it is asked to.
fn while_it_ejects(serial: &mut Serial, ask: impl FnOnce() -> Result<String> + Send) -> Result<String> {
    std::thread::scope(|scope| {
        let asking = scope.spawn(ask);
        wait_until("who asks is answered", PATIENCE, || {
            serial.eject().expect("the guest obeys");
            asking.is_finished()
        });
        asking.join().expect("it does not panic")
    })
}

#[test]
fn a_device_may_be_asked_for_twice_and_leave_when_who_asked_is_gone() -> Result<()> {
    let mut host = Host::start_with_bridges("twice", &[BRIDGE])?;
    let guest = host.guest("twice")?;
    let mut serial = up(&host, &guest)?;
    let id = guest.uuid_text();
    let done = format!("(0, '{id}')");
    let without = hash(&host, &guest)?;
    let asked = |host: &Host, times: usize| {
        let said = std::fs::read_to_string(host.daemon.output_path()).unwrap_or_default();
        said.matches("UnplugCard of").count() >= times
    };
    let unplug = |host: &Host| plug(host, "hotunplugNic", &guest, "nic", &card());

    assert_eq!(plug(&host, "hotplugNic", &guest, "nic", &card())?, done);
    std::thread::scope(|scope| {
        let both = [(); 2].map(|()| scope.spawn(|| unplug(&host)));
        wait_until("both are asked for", PATIENCE, || asked(&host, 2));
        wait_until("both are answered", PATIENCE, || {
            serial.eject().expect("the guest obeys");
            both.iter().all(|one| one.is_finished())
        });
        for one in both {
            assert_eq!(one.join().expect("it does not panic")?, done);
        }
        Ok::<_, whydown_lab::Error>(())
    })?;
    assert_eq!(hash(&host, &guest)?, without);

    // Whoever asked first is not there any more when the guest gives it up.
    assert_eq!(plug(&host, "hotplugNic", &guest, "nic", &card())?, done);
    host.libvirtd.virsh(&["detach-device-alias", "twice", &format!("ua-{CARD_ID}")])?;
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| unplug(&host));
        wait_until("it is asked for", PATIENCE, || asked(&host, 3));
        host.daemon.signal(Signal::KILL)?;
        assert!(asking.join().expect("it does not panic").is_err(), "nobody answers");
        Ok::<_, whydown_lab::Error>(())
    })?;
    host.daemon.kill_9()?;
    host.daemon.start_again()?;
    wait_until("it answers", PATIENCE, || hash(&host, &guest).is_ok());
    assert_ne!(hash(&host, &guest)?, without, "it is still there");
    serial.eject()?;
    wait_until("it is told", PATIENCE, || hash(&host, &guest).is_ok_and(|now| now == without));
    serial.power_off()?;
    // While nobody listened another client may have asked for it.
    let ending = host.check(&guest, &told("guest-poweroff", 0, 7), "probable")?;
    assert!(says(&ending["evidence"], "asked whydown to plug a network card out"), "{ending:#}");
    Ok(())
}

#[test]
fn disks_find_their_places_and_are_found_again_by_path_and_by_name() -> Result<()> {
    let host = Host::start("disks")?;
    let guest = host.guest("disks")?;
    let mut serial = up(&host, &guest)?;
    let id = guest.uuid_text();
    let done = format!("(0, '{id}')");
    let without = hash(&host, &guest)?;
    let path = |name: &str| file(&host.folder, name).display().to_string();
    let (first, second) = (path("first.img"), path("second & more.img"));
    let drive = |path: &str, more: &str| {
        format!(
            "{{'type': 'disk', 'device': 'disk', 'iface': 'virtio', 'format': 'raw', 'path': '{path}', 'address': '', \
             'shared': 'false', 'optional': 'false', 'readonly': 'false', 'propagateErrors': 'off'{more}}}"
        )
    };
    let at = |path: &str, member: &str| listed(&host, &guest, "path", path, member);
    let named = format!(", 'deviceId': '{DISK_ID}'");
    assert_eq!(plug(&host, "hotplugDisk", &guest, "drive", &drive(&first, &named))?, done);
    assert_eq!(
        (at(&first, "name")?.as_str(), at(&first, "deviceId")?),
        ("['vdb']", format!("['{DISK_ID}']"))
    );
    let one = hash(&host, &guest)?;
    assert_eq!(plug(&host, "hotplugDisk", &guest, "drive", &drive(&second, ""))?, done);
    assert_eq!(at(&second, "name")?, "['vdc']");
    for (verb, device, code) in [
        ("hotplugDisk", drive(&format!("{first}-not"), ""), 45),
        ("hotplugDisk", drive(&first, ", 'name': 'vdb'"), 45),
        ("hotunplugDisk", drive(&format!("{first}-not"), ""), 46),
        ("hotunplugDisk", "{'deviceId': '0d0d0d0d-0000-4000-8000-0000000000d2'}".into(), 46),
        ("hotunplugDisk", drive(&first, ", 'imageID': 'i', 'volumeID': 'v'"), 75),
    ] {
        assert_eq!(
            plug(&host, verb, &guest, "drive", &device)?,
            format!("({code}, None)"),
            "{verb} {device}"
        );
    }
    let gone = while_it_ejects(&mut serial, || {
        plug(&host, "hotunplugDisk", &guest, "drive", &drive(&second, ", 'deviceId': 'no-uuid'"))
    })?;
    assert_eq!((gone, hash(&host, &guest)?), (done.clone(), one));
    let by_name = format!("{{'deviceId': '{DISK_ID}'}}");
    let gone = while_it_ejects(&mut serial, || plug(&host, "hotunplugDisk", &guest, "drive", &by_name))?;
    assert_eq!((gone, hash(&host, &guest)?), (done, without.clone()));

    // What others plug in is told as well.
    let target = ["attach-disk", "disks", &first, "vdd", "--subdriver", "raw"];
    host.libvirtd.virsh(&target)?;
    wait_until("it is told", PATIENCE, || at(&first, "name").is_ok_and(|names| names == "['vdd']"));
    assert_ne!(hash(&host, &guest)?, without);
    Ok(())
}

#[test]
fn a_vm_that_is_killed_while_its_guest_keeps_a_device_was_not_ended_by_us() -> Result<()> {
    let host = Host::start_with_bridges("foreign", &[BRIDGE])?;
    let guest = host.guest("foreign")?;
    let _serial = up(&host, &guest)?;
    assert!(plug(&host, "hotplugNic", &guest, "nic", &card())?.starts_with("(0, "));
    let reply = std::thread::scope(|scope| {
        let asking = scope.spawn(|| plug(&host, "hotunplugNic", &guest, "nic", &card()));
        wait_until("it is asked for", PATIENCE, || {
            std::fs::read_to_string(host.daemon.output_path())
                .is_ok_and(|said| said.contains("UnplugCard of"))
        });
        host.libvirtd.qemu(guest.name())?.signal(Signal::KILL)?;
        asking.join().expect("it does not panic")
    })?;
    // There is no such VM any more, or libvirt says that its monitor broke off.
    assert!(["(1, None)", "(50, None)"].contains(&reply.as_str()), "{reply}");
    let ending = host.check(&guest, &told("process-killed", 1, 2), "certain|probable")?;
    assert!(says(&ending["evidence"], "asked whydown to plug a network card out"), "{ending:#}");
    assert!(!ending["because"].to_string().contains("network card"), "{ending:#}");
    Ok(())
}
