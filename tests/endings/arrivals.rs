//! VMs that were to come from another host and did not, with everything away in turn where they were to arrive: they run on
//! where they were, and a manager that took them for lost would start them twice.

use std::process::{Child, Command, Stdio};

use whydown_lab::{Guest, Result, wait_until};

use whydown_lab::host::{Host, PATIENCE, says, told};

/// Memory that takes long to send at one megabyte a second: the ROM of a network card.
fn large(guest: Guest) -> Guest {
    let rom = guest.image_path().with_extension("rom");
    std::fs::write(&rom, vec![0x5a; 32 << 20]).expect("written");
    guest.device_xml(&format!(
        "<interface type='user'><mac address='52:54:00:12:34:56'/><model type='e1000'/><rom file='{}'/></interface>",
        rom.display()
    ))
}

/// Begins to move it, and waits until it is on its way.
fn on_its_way(here: &Host, there: &Host, guest: &Guest) -> Result<Child> {
    // Both ends are on one machine, so the other end needs a socket path of its own.
    let document = there.folder.path().join(format!("{}.xml", guest.name()));
    let serial = there.folder.path().join(format!("{}.ser", guest.name()));
    let changed = guest.xml().replace(&*guest.serial_path().to_string_lossy(), &serial.to_string_lossy());
    std::fs::write(&document, changed).expect("written");
    let by = format!("unix://{}/{}.mig", there.folder.path().display(), guest.name());
    let moving = Command::new("virsh")
        .args(["-q", "-c", &here.libvirtd.uri(), "migrate", guest.name(), "--live", "--bandwidth", "1"])
        .args(["--desturi", &there.libvirtd.uri(), "--migrateuri", &by, "--xml"])
        .arg(document)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("virsh");
    wait_until(&format!("{} is on its way", guest.name()), PATIENCE, || {
        let said = here.libvirtd.virsh(&["domjobinfo", guest.name()]);
        let said = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned()).unwrap_or_default();
        let sent = said.lines().find_map(|line| line.strip_prefix("Data processed:"));
        sent.is_some_and(|sent| !sent.trim().starts_with("0.000"))
    });
    Ok(moving)
}

/// What goes wrong with an arrival, as `act` does it.
fn does_not_arrive(name: &str, act: impl Fn(&mut Host, &Host, &Guest) -> Result<()>) -> Result<()> {
    does_not_arrive_where(|_| Ok(()), name, act)
}

/// The same where something is done before it is on its way.
fn does_not_arrive_where(
    before: impl Fn(&mut Host) -> Result<()>,
    name: &str,
    act: impl Fn(&mut Host, &Host, &Guest) -> Result<()>,
) -> Result<()> {
    let (here, mut there) = (Host::start("from")?, Host::start("to")?);
    let guest = large(here.guest(name)?);
    let mut serial = here.up(&guest)?;
    let run = here.run(&guest);
    before(&mut there)?;
    let mut moving = on_its_way(&here, &there, &guest)?;
    act(&mut there, &here, &guest)?;
    assert!(!moving.wait().expect("it is ours").success(), "{name}: it arrived");
    let ending = there.check(&guest, &told("incoming-migration-failed", 1, 8), "certain|probable")?;
    assert!(says(&ending["because"], "migrat"), "{ending:#}");
    serial.answer(PATIENCE)?;
    assert_eq!(
        (here.status(&guest).as_deref(), here.run(&guest)),
        (Some("up"), run),
        "{name}: it never left"
    );
    Ok(())
}

fn cancel(here: &Host, guest: &Guest) -> Result<()> {
    here.libvirtd.virsh(&["domjobabort", guest.name()]).map(drop)
}

#[test]
fn an_arrival_that_somebody_destroys_is_no_loss_of_the_vm() -> Result<()> {
    does_not_arrive("destroyed", |there, _, guest| {
        there.wait_status(guest, "migration-destination");
        there.libvirtd.destroy(guest.name())
    })
}

#[test]
fn an_arrival_that_fails_after_a_restart_of_the_daemon_is_told_as_that() -> Result<()> {
    does_not_arrive("restarted", |there, here, guest| {
        there.wait_status(guest, "migration-destination");
        let links = there.links();
        there.daemon.restart()?;
        there.wait_link(links);
        cancel(here, guest)
    })
}

#[test]
fn an_arrival_that_fails_while_the_daemon_is_away_is_told_as_that() -> Result<()> {
    does_not_arrive("away", |there, here, guest| {
        there.wait_status(guest, "migration-destination");
        there.daemon.terminate()?;
        cancel(here, guest)?;
        there.libvirtd.wait_state(guest.name(), None, PATIENCE)?;
        let links = there.links();
        there.daemon.start_again()?;
        there.wait_link(links);
        Ok(())
    })
}

#[test]
fn an_arrival_that_a_libvirtd_which_comes_back_gives_up_is_told_as_that() -> Result<()> {
    does_not_arrive("given-up", |there, _, guest| {
        there.wait_status(guest, "migration-destination");
        there.libvirtd.kill_9()?;
        let links = there.links();
        there.libvirtd.start_again()?;
        there.wait_link(links);
        Ok(())
    })
}

#[test]
fn an_arrival_whose_beginning_nobody_heard_is_told_as_that() -> Result<()> {
    let away = |there: &mut Host| there.daemon.terminate().map(drop);
    does_not_arrive_where(away, "unheard", |there, here, guest| {
        let links = there.links();
        there.daemon.start_again()?;
        there.wait_link(links);
        wait_until("it is known", PATIENCE, || there.status(guest).is_some());
        cancel(here, guest)
    })
}

/// Its QEMU gives up before it waits for anything: the port of its screen is taken here, and libvirt tells of no start at all.
#[test]
fn an_arrival_whose_qemu_does_not_come_up_is_told_as_that_and_no_failed_start() -> Result<()> {
    let (here, mut there) = (Host::start("from")?, Host::start("to")?);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().max(5900);
    let screen = |port: u16| format!("<graphics type='vnc' port='{port}' autoport='no' listen='127.0.0.1'/>");
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let other = free.local_addr().expect("an address").port().max(5900);
    drop(free);
    let guest = here.guest("noway")?.device_xml(&screen(other));
    let mut serial = here.up(&guest)?;
    let run = here.run(&guest);
    let document = there.folder.path().join("noway.xml");
    let there_serial = there.folder.path().join("noway.ser");
    let changed =
        guest.xml().replace(&*guest.serial_path().to_string_lossy(), &there_serial.to_string_lossy());
    std::fs::write(&document, changed.replace(&screen(other), &screen(port))).expect("written");
    let migrate = |there: &Host| {
        let by = format!("unix://{}/noway.mig", there.folder.path().display());
        let moved = Command::new("virsh")
            .args(["-q", "-c", &here.libvirtd.uri(), "migrate", "noway", "--live"])
            .args(["--desturi", &there.libvirtd.uri(), "--migrateuri", &by, "--xml"])
            .arg(&document)
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .status();
        assert!(!moved.expect("virsh").success(), "it arrived");
    };
    migrate(&there);
    let ending = there.check(&guest, &told("incoming-migration-failed", 1, 8), "probable")?;
    assert!(says(&ending["because"], "for a VM that is restored or migrates here"), "{ending:#}");
    assert!(says(&ending["because"], "Address already in use"), "{ending:#}");

    // And when whydown was away.
    there.daemon.terminate()?;
    migrate(&there);
    there.daemon.start_again()?;
    wait_until("it is told", PATIENCE, || there.history(&guest).is_ok_and(|past| past.len() >= 2));
    let past = there.history(&guest)?;
    assert!(past.iter().all(|(cause, _)| cause == "incoming-migration-failed"), "{past:?}");
    serial.answer(PATIENCE)?;
    assert_eq!((here.status(&guest).as_deref(), here.run(&guest)), (Some("up"), run), "it never left");
    Ok(())
}
