//! VMs that were to come from another host and did not, with everything away in turn where they were to arrive: they run on
//! where they were, and a manager that took them for lost would start them twice.

use std::process::{Child, Command, Stdio};

use whydown_lab::{Guest, Result, wait_until};

use crate::host::{Host, PATIENCE, says, told};

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
