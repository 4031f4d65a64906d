//! Whether the host goes down is asked when guests begin to shut down, and not for each of them.

use super::*;

fn answer(world: &mut World, going_down: Option<&str>) {
    let at = world.now().wall;
    world.tell(Input::Answered(Answer::Host { going_down: going_down.map(|by| (at, by.to_owned())) }));
}

#[test]
fn it_is_asked_once_a_second_and_always_after_the_last_guest_began() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    assert_eq!(world.host_asked, 0);
    world.heard(Happening::QemuPowerdown);
    assert_eq!(world.host_asked, 1, "at once");
    world.heard(Happening::ShutdownBegan(ShutdownDetail::Guest));
    world.pass(30_000);
    assert_eq!(world.host_asked, 1, "one at a time");
    answer(&mut world, None);
    world.pass(900);
    assert_eq!(world.host_asked, 1);
    world.pass(200);
    assert_eq!(world.host_asked, 2, "the second guest began after the first question");
    answer(&mut world, None);
    world.pass(60_000);
    assert_eq!(world.host_asked, 2, "nobody has begun since");
    world.heard(Happening::QemuPowerdown);
    assert_eq!(world.host_asked, 3, "the rest is long over");
}

#[test]
fn the_answer_is_evidence_of_the_guests_that_run() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    world.heard(Happening::QemuPowerdown);
    answer(&mut world, Some("systemd is stopping the system"));
    let by = "systemd is stopping the system".to_owned();
    assert!(world.evidence.contains(&(RunId(1), Fact::HostGoingDown { by })), "{:?}", world.evidence);
}
