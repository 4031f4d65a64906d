//! Live migration between two libvirtd, each with its whydownd: told on both sides, and given up in flight.

use std::path::PathBuf;

use whydown_lab::{Guest, Result, wait_until};

use crate::verbs::{ask, polled};
use whydown_lab::engine::{Param, call};
use whydown_lab::host::{Host, PATIENCE, says, told};
use whydown_lab::requests;

/// The guest's document for the other host, where its serial line has another socket.
fn document_there(there: &Host, guest: &Guest) -> PathBuf {
    let serial = there.folder.path().join("m.ser");
    let here = guest.serial_path();
    let xml = guest.xml().replace(&here.display().to_string(), &serial.display().to_string());
    assert_ne!(xml, guest.xml());
    let path = there.folder.path().join("m.xml");
    std::fs::write(&path, xml).expect("a file can be written");
    path
}

fn migrate(from: &Host, to: &Host, guest: &Guest, more: &str) -> Result<String> {
    let socket = to.folder.path().join("memory");
    let call = format!(
        "server.migrate({{'vmId': '{}', 'mode': 'remote', 'method': 'online', 'dst': '{}', 'dstqemu': 'unix://{}', \
         'xml': open('{}').read(), {more}}})",
        guest.uuid_text(),
        to.libvirtd.uri(),
        socket.display(),
        document_there(to, guest).display(),
    );
    ask(
        from,
        &format!("(lambda r: (r['status']['code'], r['status']['message'], r.get('progress')))({call})"),
    )
}

fn work(host: &Host, guest: &Guest) -> Result<String> {
    ask(
        host,
        &format!(
            "(lambda r: (r['status']['code'], r['status']['message']))(server.migrateStatus('{}'))",
            guest.uuid_text()
        ),
    )
}

#[test]
fn a_vm_that_migrates_is_down_by_success_here_and_up_there() -> Result<()> {
    let (here, there) = (Host::start("here")?, Host::start("there")?);
    let guest = here.guest("m")?;
    drop(here.up(&guest)?);
    let id = guest.uuid_text();
    assert_eq!(
        ask(&there, &format!("server.migrationCreate({{'vmId': '{id}', 'memSize': 2}})['migrationPort']"))?,
        "0"
    );
    assert_eq!(here.call(&format!("migrationCreate({{'vmId': '{id}'}})"))?, 4, "it is here already");
    assert_eq!(work(&here, &guest)?, "(0, 'The VM has not been migrated')", "nothing is in progress");
    assert_eq!(migrate(&here, &there, &guest, "")?, "(0, 'Migration in progress', 0)");
    let ending = here.check(&guest, &told("migrated-away", 0, 4), "certain")?;
    assert!(says(&ending["because"], "asked whydown to migrate it"), "{ending:#}");
    assert_eq!(work(&here, &guest)?, "(0, 'Migration done')");
    there.wait_status(&guest, "up");
    assert_eq!(polled(&there, &guest, "status")?, "Up");
    assert_eq!(there.history(&guest)?, []);
    Ok(())
}

/// Each is sent as its engine sends it, but for the addresses: these hosts are libvirtds on one machine.
#[test]
fn what_every_engine_sends_moves_a_vm_and_what_has_no_effect_is_said_once() -> Result<()> {
    let hosts = [Host::start("e0")?, Host::start("e1")?];
    let screen = "<graphics type='vnc' autoport='yes' listen='127.0.0.1'/><video><model type='vga'/></video>";
    let guest = hosts[0].guest("m")?.device_xml(screen);
    drop(hosts[0].up(&guest)?);
    let id = guest.uuid_text();
    let documents = [guest.write_xml()?, document_there(&hosts[1], &guest)];
    for (round, request) in requests::of("migrate").enumerate() {
        let (here, there, document) =
            (&hosts[round % 2], &hosts[(round + 1) % 2], &documents[(round + 1) % 2]);
        let memory = format!("unix://{}", there.folder.path().join("memory").display());
        let document = std::fs::read_to_string(document).expect("it was written");
        // The record of a VM that moved away stands until it is acknowledged.
        if round > 0 {
            assert_eq!(there.call(&format!("destroy('{id}')"))?, 0);
        }
        let words = [("vm", id), ("src", "192.0.2.1"), ("dst", &there.libvirtd.uri())];
        let params = request.params(&words, &[("dstqemu", &memory), ("xml", &document)]);
        let reply = call(here.daemon.port()?, None, "migrate", &[Param::Written(&params[0])]);
        assert!(reply.contains("Migration in progress"), "{request:?}: {reply}");
        here.check(&guest, &told("migrated-away", 0, 4), "certain")?;
        there.wait_status(&guest, "up");
    }
    let said = std::fs::read_to_string(hosts[0].daemon.output_path()).expect("it can be read");
    assert_eq!(said.matches("migrate: without effect here").count(), 1, "{said}");
    assert!(said.contains("not said again: src"), "{said}");
    Ok(())
}

#[test]
fn a_migration_that_is_given_up_leaves_the_vm_up() -> Result<()> {
    let (here, there) = (Host::start("here2")?, Host::start("there2")?);
    // A network card with a large ROM is memory to be copied, at one megabyte a second.
    let rom = here.folder.path().join("rom");
    std::fs::write(&rom, vec![0x5a; 32 << 20]).expect("a file can be written");
    let card = format!(
        "<interface type='user'><mac address='52:54:00:12:34:56'/><model type='e1000'/><rom file='{}'/></interface>",
        rom.display()
    );
    let guest = here.guest("m")?.device_xml(&card);
    let mut serial = here.up(&guest)?;
    let id = guest.uuid_text().to_owned();
    assert_eq!(migrate(&here, &there, &guest, "'maxBandwidth': '1'")?, "(0, 'Migration in progress', 0)");
    assert_eq!(polled(&here, &guest, "status")?, "Migration Source", "{}", work(&here, &guest)?);
    wait_until("it says how far it is", PATIENCE, || {
        let call = format!("server.migrateStatus('{id}')['progress']");
        ask(&here, &call).is_ok_and(|percent| (1..100).contains(&percent.parse().unwrap_or(0)))
    });
    wait_until("its stats say so too", PATIENCE, || {
        polled(&here, &guest, "migrationProgress")
            .is_ok_and(|percent| (0..100).contains(&percent.parse().unwrap_or(-1)))
    });
    // Others ask meanwhile, and are answered at once.
    assert_eq!(here.call(&format!("pause('{id}')"))?, 16);
    assert_eq!(here.call(&format!("migrate({{'vmId': '{id}', 'dst': 'elsewhere'}})"))?, 4);
    let cancelled = || here.call(&format!("migrateCancel('{id}')")).ok() == Some(0);
    wait_until("the migration is given up", PATIENCE, cancelled);
    wait_until("it says so", PATIENCE, || {
        work(&here, &guest).is_ok_and(|w| w == "(47, 'Migration canceled')")
    });
    here.wait_status(&guest, "up");
    serial.answer(PATIENCE)?;
    assert_eq!(
        (polled(&here, &guest, "migrationProgress")?.as_str(), here.history(&guest)?),
        ("None", vec![])
    );
    Ok(())
}

#[test]
fn a_migration_that_hangs_holds_up_nobody() -> Result<()> {
    let host = Host::start("hangs")?;
    let (guest, other) = (host.guest("m")?, host.guest("o")?);
    let mut serial = host.up(&guest)?;
    drop(host.up(&other)?);
    // Somebody takes the connection and never says a word.
    let silent = host.folder.path().join("silent");
    let listener = std::os::unix::net::UnixListener::bind(&silent).expect("a socket can be made");
    let call = format!(
        "migrate({{'vmId': '{}', 'dst': 'qemu+unix:///system?socket={}'}})",
        guest.uuid_text(),
        silent.display()
    );
    assert_eq!(host.call(&call)?, 0);
    let (held, _) = listener.accept().expect("libvirt comes");
    let begun = std::time::Instant::now();
    assert_eq!(polled(&host, &guest, "status")?, "Migration Source");
    assert_eq!(work(&host, &guest)?, "(0, 'Migration in progress')");
    assert_eq!(host.call(&format!("pause('{}')", guest.uuid_text()))?, 16);
    assert_eq!(host.call(&format!("pause('{}')", other.uuid_text()))?, 0);
    assert_eq!(host.call(&format!("cont('{}')", other.uuid_text()))?, 0);
    assert!(begun.elapsed() < PATIENCE / 3, "{:?}", begun.elapsed());
    drop((held, listener));
    wait_until("it has failed", PATIENCE, || work(&host, &guest).is_ok_and(|told| told.starts_with("(12, ")));
    host.wait_status(&guest, "up");
    serial.answer(PATIENCE)?;
    Ok(())
}

#[test]
fn a_migration_that_fails_says_why_and_leaves_the_vm_up() -> Result<()> {
    let host = Host::start("alone")?;
    let guest = host.guest("m")?;
    let mut serial = host.up(&guest)?;
    let nowhere = host.folder.path().join("nobody");
    let call = format!(
        "migrate({{'vmId': '{}', 'dst': 'qemu+unix:///system?socket={}'}})",
        guest.uuid_text(),
        nowhere.display()
    );
    assert_eq!(host.call(&call)?, 0);
    let failed = |told: String| {
        told.starts_with("(12, 'Fatal error during migration: ") || told.starts_with("(12, \"")
    };
    wait_until("it says so", PATIENCE, || work(&host, &guest).is_ok_and(failed));
    assert!(work(&host, &guest)?.contains("nobody"), "libvirt's own text: {}", work(&host, &guest)?);
    host.wait_status(&guest, "up");
    serial.answer(PATIENCE)?;
    Ok(())
}
