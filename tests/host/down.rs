//! The host goes down and comes up again: each VM that ran has one ending, told truly.
//!
//! libvirt-guests and systemd do all of it; whydown only listens, is stopped with the others, and looks when it is back.

use whydown_lab::{GoDown, Guest, Result};

use super::world::{PATIENCE, World};

/// Its configuration, and how long it waits for a guest.
fn libvirt_guests(world: &World, on_shutdown: &str) -> Result<()> {
    let text = format!("ON_BOOT=ignore\nON_SHUTDOWN={on_shutdown}\nSHUTDOWN_TIMEOUT=3\n");
    world.host.write_inside("/etc/default/libvirt-guests", &text)
}

/// Down, up again, and all that these guests left is closed.
fn down_and_up(world: &mut World, how: GoDown, guests: &[&Guest]) -> Result<()> {
    world.host.go_down(how)?;
    world.host.boot()?;
    world.wait_settled(guests);
    Ok(())
}

#[test]
fn vms_that_end_with_their_host_are_told_so_once_each() -> Result<()> {
    let mut world = World::start()?;

    // libvirt-guests presses the power button of one after the other; who ignores it is ended with its scope.
    libvirt_guests(&world, "shutdown")?;
    let (obeys, _line) = world.up("obeys", true)?;
    let (fleeting, _line) = world.up("fleeting", false)?;
    let (stubborn, mut line) = world.up("stubborn", true)?;
    line.ignore_button()?;
    line.answer(PATIENCE)?;
    down_and_up(&mut world, GoDown::PowerOff, &[&obeys, &fleeting, &stubborn])?;
    for guest in [&obeys, &fleeting] {
        let ending = world.expect(guest, 1, ["host-shutdown", "probable", "G6"]);
        says(&ending, "despite", "QEMU: the power button was pressed");
    }
    let ending = world.expect(&stubborn, 1, ["host-shutdown", "probable", "H2"]);
    says(&ending, "evidence", "ended by signal 15 from process 1, \"/lib/systemd/systemd\": the host's init");
    assert_eq!(ending["ended_not_before"], serde_json::Value::Null, "its end was heard: {ending:#}");

    // It saves what is persistent; the rest is ended with its scope.
    libvirt_guests(&world, "suspend")?;
    let _line = world.up_again(&obeys)?;
    let (passing, _line) = world.up("passing", false)?;
    down_and_up(&mut world, GoDown::Signal, &[&obeys, &passing])?;
    world.expect(&obeys, 2, ["managed-saved", "certain", "V1"]);
    world.expect(&passing, 1, ["host-shutdown", "probable", "H2"]);

    // By hand, while the host stays up: a client of libvirt like any other.
    libvirt_guests(&world, "shutdown")?;
    let _line = world.up_again(&obeys)?;
    world.host.run(&["/usr/lib/libvirt/libvirt-guests.sh", "stop"])?;
    world.wait_settled(&[&obeys]);
    world.expect(&obeys, 3, ["other-shutdown", "probable", "G7"]);

    // Its list of guests is left, so that it takes its work for done when the host does go down.
    assert!(world.host.path("/var/lib/libvirt/libvirt-guests").exists());
    let _line = world.up_again(&obeys)?;
    down_and_up(&mut world, GoDown::Halt, &[&obeys])?;
    world.expect(&obeys, 4, ["host-shutdown", "probable", "H2"]);

    // Nobody shuts the guests down.
    world.host.run(&["systemctl", "disable", "--now", "libvirt-guests"])?;
    let _line = world.up_again(&obeys)?;
    let _line = world.up_again(&stubborn)?;
    down_and_up(&mut world, GoDown::Reboot, &[&obeys, &stubborn])?;
    world.expect(&obeys, 5, ["host-shutdown", "probable", "H2"]);
    world.expect(&stubborn, 2, ["host-shutdown", "probable", "H2"]);

    // Nobody shuts anything down.
    let _line = world.up_again(&obeys)?;
    let (last, _line) = world.up("last", false)?;
    world.host.cut_power()?;
    world.host.boot()?;
    world.wait_settled(&[&obeys, &last]);
    for (guest, count) in [(&obeys, 6), (&last, 1)] {
        let ending = world.expect(guest, count, ["host-lost", "probable", "N6"]);
        says(&ending, "because", "the host has booted anew since");
    }
    // What was told before the power cut is still there, and nothing was told twice.
    for (guest, count) in [(&fleeting, 1), (&stubborn, 2), (&passing, 1)] {
        assert_eq!(world.past(guest).len(), count, "{}", guest.name());
    }
    Ok(())
}

/// Fails unless a piece of this list has these words in it.
#[track_caller]
fn says(ending: &serde_json::Value, list: &str, words: &str) {
    let pieces = ending[list].as_array().expect("a list");
    let said = pieces.iter().any(|piece| piece["what"].as_str().is_some_and(|what| what.contains(words)));
    assert!(said, "no {words:?} in {list}: {ending:#}");
}
