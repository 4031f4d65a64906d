//! The host was shut down in good order while whydown was stopped: what that boot left behind tells it.

use std::time::{Duration, Instant};

use whydown_lab::{GoDown, Guest, Result, wait_until};

use super::down::{libvirt_guests, says};
use super::world::{PATIENCE, World};

const BY_JOURNAL: &str = "the host was shut down in good order: the journal of that boot says so";
const BY_RECORDS: &str = "the host was shut down in good order: its record in /var/log/wtmp says so";

/// Down and up again without whydown, which is there again after the boot.
fn without_whydown(world: &mut World, how: GoDown, guests: &[&Guest]) -> Result<()> {
    world.host.go_down(how)?;
    // A real host boots for longer than its clocks may disagree, and this one would not.
    let until = Instant::now() + Duration::from_secs(6);
    wait_until("the host is off for some seconds", PATIENCE, || Instant::now() >= until);
    world.host.boot()?;
    world.wait_settled(guests);
    Ok(())
}

#[test]
fn an_orderly_shutdown_while_whydown_was_stopped_is_told_by_what_that_boot_left() -> Result<()> {
    let mut world = World::start()?;
    libvirt_guests(&world, "shutdown")?;
    let (obeys, _line) = world.up("obeys", true)?;
    let (passing, _line) = world.up("passing", false)?;
    let (stubborn, mut line) = world.up("stubborn", true)?;
    line.ignore_button()?;
    line.answer(PATIENCE)?;
    let (earlier, mut line) = world.up("earlier", true)?;
    world.host.run(&["systemctl", "stop", "whydown"])?;
    // Its user powers it off, some seconds before anybody thinks of the host.
    line.power_off()?;
    wait_until("it is off", PATIENCE, || {
        world.host.run(&["virsh", "-q", "domstate", "earlier"]).is_ok_and(|state| state == "shut off")
    });
    world.host.run(&["sleep", "4"])?;
    without_whydown(&mut world, GoDown::PowerOff, &[&obeys, &passing, &stubborn, &earlier])?;
    for guest in [&obeys, &passing] {
        let ending = world.expect(guest, 1, ["host-shutdown", "probable", "U7"]);
        says(&ending, "because", BY_JOURNAL);
    }
    let ending = world.expect(&stubborn, 1, ["host-shutdown", "probable", "E12"]);
    says(&ending, "evidence", BY_JOURNAL);
    // Where its log has lost the line of the signal by which libvirt ends it, nobody can know.
    let past = world.past(&earlier);
    let lost_line = past.first().is_some_and(|ending| ending["row"] == "U14");
    let wanted =
        if lost_line { ["unknown-ended", "unknown", "U14"] } else { ["guest-poweroff", "probable", "U9"] };
    world.expect(&earlier, 1, wanted);

    // Whatever way it goes down, and where nobody shuts the guests down.
    world.host.run(&["systemctl", "disable", "--now", "libvirt-guests"])?;
    let _line = world.up_again(&obeys)?;
    let _line = world.up_again(&stubborn)?;
    world.host.run(&["systemctl", "stop", "whydown"])?;
    without_whydown(&mut world, GoDown::Signal, &[&obeys, &stubborn])?;
    for guest in [&obeys, &stubborn] {
        let ending = world.past(guest)[0].clone();
        assert_eq!((&ending["cause"], world.past(guest).len()), (&"host-shutdown".into(), 2), "{ending:#}");
        says(&ending, "evidence", BY_JOURNAL);
    }

    // A host that keeps no journal over its boots.
    world.host.run(&["systemctl", "enable", "--now", "libvirt-guests"])?;
    libvirt_guests(&world, "shutdown")?;
    let no_journal = "[Journal]\nStorage=volatile\n";
    world.host.write_inside("/etc/systemd/journald.conf.d/zz-volatile.conf", no_journal)?;
    world.host.run(&["systemctl", "restart", "systemd-journald"])?;
    let _line = world.up_again(&obeys)?;
    world.host.run(&["systemctl", "stop", "whydown"])?;
    without_whydown(&mut world, GoDown::Reboot, &[&obeys])?;
    let ending = world.expect(&obeys, 3, ["host-shutdown", "probable", "U7"]);
    says(&ending, "because", BY_RECORDS);

    // Its power is cut: nothing was shut down.
    let _line = world.up_again(&obeys)?;
    world.host.run(&["systemctl", "stop", "whydown"])?;
    world.host.cut_power()?;
    world.host.boot()?;
    world.wait_settled(&[&obeys]);
    world.expect(&obeys, 4, ["host-lost", "probable", "N6"]);

    // And once more, under a run that nobody heard begin.
    world.host.run(&["systemctl", "stop", "whydown"])?;
    world.host.run(&["virsh", "-q", "start", obeys.name()])?;
    obeys.serial(PATIENCE)?.answer(PATIENCE)?;
    let until = Instant::now() + Duration::from_secs(6);
    wait_until("it has run for some seconds", PATIENCE, || Instant::now() >= until);
    world.host.cut_power()?;
    world.host.boot()?;
    world.wait_settled(&[&obeys]);
    world.expect(&obeys, 5, ["host-lost", "probable", "N6"]);
    Ok(())
}
