//! The host goes down and comes up again: each VM that ran has one ending, told truly.

use whydown_lab::{GoDown, Result};

use super::world::World;

/// What libvirt-guests does is in its configuration.
fn libvirt_guests(world: &World, on_shutdown: &str) -> Result<()> {
    let text = format!("ON_BOOT=ignore\nON_SHUTDOWN={on_shutdown}\nSHUTDOWN_TIMEOUT=3\n");
    world.host.write_inside("/etc/default/libvirt-guests", &text)
}

#[test]
fn vms_that_end_with_their_host_are_told_so_once_each() -> Result<()> {
    let mut world = World::start()?;
    libvirt_guests(&world, "shutdown")?;
    let (obeys, _a) = world.up("obeys", true)?;
    let (fleeting, _b) = world.up("fleeting", false)?;
    let (deaf, mut line) = world.up("deaf", true)?;
    line.ignore_button()?;
    line.answer(super::world::PATIENCE)?;

    let all = [&obeys, &fleeting, &deaf];
    println!("down in {:?}", world.host.go_down(GoDown::PowerOff)?);
    world.host.boot()?;
    world.wait_settled(&all);
    for guest in all {
        println!("{}", world.host.run(&["whydown", "why", guest.uuid_text()])?);
        println!("{:#}", world.past(guest)[0]);
    }
    println!("{}", world.host.journal(400));
    Ok(())
}
