//! The host goes down and comes up again: each VM that ran has one ending, told truly.

use whydown_lab::{GoDown, Result};

use super::world::{PATIENCE, World};

/// What libvirt-guests does is in its configuration.
fn libvirt_guests(world: &World, on_shutdown: &str) -> Result<()> {
    let text = format!("ON_BOOT=ignore\nON_SHUTDOWN={on_shutdown}\nSHUTDOWN_TIMEOUT=3\n");
    world.host.write_inside("/etc/default/libvirt-guests", &text)
}

#[test]
fn vms_that_end_with_their_host_are_told_so_once_each() -> Result<()> {
    let mut world = World::start()?;

    // libvirt-guests presses the power button of all; one of them ignores it, and is ended with its scope.
    libvirt_guests(&world, "shutdown")?;
    let (obeys, _a) = world.up("obeys", true)?;
    let (fleeting, _b) = world.up("fleeting", false)?;
    let (stubborn, mut line) = world.up("stubborn", true)?;
    line.ignore_button()?;
    line.answer(PATIENCE)?;
    println!("down in {:?}", world.host.go_down(GoDown::PowerOff)?);
    world.host.boot()?;
    world.wait_settled(&[&obeys, &fleeting, &stubborn]);
    world.expect(&obeys, 1, ["host-shutdown", "probable", "G6"]);
    world.expect(&fleeting, 1, ["host-shutdown", "probable", "G6"]);
    show(&world, &stubborn);

    // It saves what is persistent; the rest is ended with its scope.
    libvirt_guests(&world, "suspend")?;
    let _a = world.up_again(&obeys)?;
    let (passing, _b) = world.up("passing", false)?;
    println!("down in {:?}", world.host.go_down(GoDown::Signal)?);
    world.host.boot()?;
    world.wait_settled(&[&obeys, &passing]);
    show(&world, &obeys);
    show(&world, &passing);

    // By hand, while the host stays up: to whydown it is a client of libvirt like any other.
    libvirt_guests(&world, "shutdown")?;
    let _a = world.up_again(&obeys)?;
    world.host.run(&["/usr/lib/libvirt/libvirt-guests.sh", "stop"])?;
    world.wait_settled(&[&obeys]);
    show(&world, &obeys);

    // Nobody shuts the guests down.
    world.host.run(&["systemctl", "disable", "--now", "libvirt-guests"])?;
    let _a = world.up_again(&obeys)?;
    let _b = world.up_again(&stubborn)?;
    println!("down in {:?}", world.host.go_down(GoDown::Halt)?);
    world.host.boot()?;
    world.wait_settled(&[&obeys, &stubborn]);
    show(&world, &obeys);
    show(&world, &stubborn);

    // Nobody shuts anything down.
    let _a = world.up_again(&obeys)?;
    let (last, _b) = world.up("last", false)?;
    world.host.cut_power()?;
    world.host.boot()?;
    world.wait_settled(&[&obeys, &last]);
    show(&world, &obeys);
    show(&world, &last);
    println!("{}", world.host.journal(1500));
    Ok(())
}

fn show(world: &World, guest: &whydown_lab::Guest) {
    println!("{}", world.host.run(&["whydown", "why", guest.uuid_text()]).unwrap());
    let past = world.past(guest);
    println!("{} endings", past.len());
    for e in past[0]["evidence"].as_array().unwrap() {
        println!("    {} {} x{}", e["first"], e["what"], e["times"]);
    }
}
