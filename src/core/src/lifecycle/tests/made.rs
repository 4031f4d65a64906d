//! What runs are made of is told with them from their first moment on, and after a restart.

use crate::operation::Operation;
use std::sync::Arc;

use super::*;
use crate::sample::Devices;
use crate::snapshot::DomainPublic;

fn devices(memory_kib: u64) -> Arc<Devices> {
    Arc::new(Devices { memory_kib, ..Devices::default() })
}

/// A reading of that run's document, begun at this moment.
fn made_at(run: u64, memory_kib: u64, read: u64) -> Input {
    Input::Made { run: RunId(run), devices: devices(memory_kib), read: Mono(read) }
}

fn shown(engine: &Engine) -> Option<(Status, Option<u64>)> {
    let made = |domain: &Arc<DomainPublic>| domain.made.as_ref().map(|made| made.memory_kib);
    engine.snapshot().domains.get(&VM).map(|domain| (domain.status, made(domain)))
}

fn create(made: Option<Arc<Devices>>) -> Wanted {
    Wanted::Do {
        domain: VM,
        act: Operation::Create { name: "vm".into(), xml: "<domain/>".into(), made, paused: false },
    }
}

#[test]
fn a_vm_that_is_created_is_told_with_what_it_will_be_made_of() {
    let mut world = World::new();
    world.wants(create(Some(devices(1))));
    assert_eq!(shown(&world.engine), Some((Status::Launching, Some(1))));
    world.heard(Happening::Started(StartDetail::Booted));
    assert_eq!(shown(&world.engine), Some((Status::Up, Some(1))));
    world.tell(made_at(1, 2, 1));
    assert_eq!(shown(&world.engine), Some((Status::Up, Some(2))));
    // Of another run it says nothing.
    world.tell(made_at(9, 3, 1));
    world.heard(Happening::Stopped(StopDetail::Destroyed));
    world.pass(10_000);
    assert_eq!(shown(&world.engine), Some((Status::Down, Some(2))));
    world.tell(made_at(1, 4, 1));
    assert_eq!(shown(&world.engine), Some((Status::Down, Some(4))), "it was read late");
    // Until its own is read, the next run is made of the same.
    world.heard(Happening::Started(StartDetail::Booted));
    assert_eq!(shown(&world.engine), Some((Status::Up, Some(4))));
}

#[test]
fn a_reading_that_began_before_another_says_nothing_against_it() {
    let mut world = World::new();
    world.wants(create(Some(devices(1))));
    world.heard(Happening::Started(StartDetail::Booted));
    world.tell(made_at(1, 2, 20));
    world.tell(made_at(1, 3, 10));
    assert_eq!(shown(&world.engine), Some((Status::Up, Some(2))), "it came late");
    world.tell(made_at(1, 3, 20));
    assert_eq!(shown(&world.engine), Some((Status::Up, Some(3))));
    world.tell(made_at(1, 1, 30));
    assert_eq!(shown(&world.engine), Some((Status::Up, Some(1))), "also what was so before");
}

#[test]
fn whoever_begins_after_us_knows_it() {
    let mut world = World::new();
    world.wants(create(Some(devices(1))));
    world.heard(Happening::Started(StartDetail::Booted));
    world.heard(Happening::Stopped(StopDetail::Destroyed));
    world.pass(10_000);
    let made = [(RunId(1), (*devices(1)).clone())].into();
    let recovered =
        Recovered { unacknowledged: world.endings.clone(), last_run: 1, made, ..Recovered::default() };
    let mut next = Engine::recover(settings(), recovered);
    next.step(world.now(), Input::LinkUp(Listing::default()));
    assert_eq!(shown(&next), Some((Status::Down, Some(1))));
}

/// What its definition says of reboots and panics is evidence of an end of which not all was heard, and of no other.
#[test]
fn an_unheard_end_is_told_with_what_a_reboot_or_a_panic_makes_of_it() {
    use crate::sample::Fate;
    for (reboot, crash, told) in [
        (Some(Fate::Ends), Some(Fate::Stays), [true, true]),
        (Some(Fate::Stays), Some(Fate::Ends), [false, false]),
        (None, None, [false, false]),
    ] {
        for (deaf, panics) in [(true, false), (false, false), (false, true)] {
            let mut world = World::new();
            world.heard(Happening::Started(StartDetail::Booted));
            let made = Devices { on_reboot: reboot, on_crash: crash, ..Devices::default() };
            world.tell(Input::Made { run: RunId(1), devices: Arc::new(made), read: Mono(1) });
            if deaf {
                let at = world.now().wall;
                world.tell(Input::LinkLost { at });
                world.tell(Input::LinkUp(Listing { changing: vec![VM], ..Listing::default() }));
            }
            if panics {
                world.heard(Happening::QemuPanicked);
            }
            world.heard(Happening::Stopped(StopDetail::Shutdown));
            world.pass(10_000);
            let ending = &world.endings[0];
            let seen = |fact: &Fact| ending.evidence.iter().any(|e| e.fact == *fact);
            let seen = [seen(&Fact::RebootEnds), seen(&Fact::PanicStays)];
            assert_eq!(seen, told.map(|told| told && (deaf || panics)), "{reboot:?} {crash:?} {deaf}");
        }
    }
}

/// Of many that are destroyed at once nobody reads the definitions: they say nothing of those that had not panicked.
#[test]
fn the_definition_is_read_where_it_can_say_something_of_the_end() {
    use Definition::{IfPanicked, Unwanted, Wanted as Read};
    let (destroyed, shut_down) = (StopDetail::Destroyed, StopDetail::Shutdown);
    for (deaf, panics, asked, how, wanted) in [
        (true, false, false, destroyed, IfPanicked),
        (true, true, false, destroyed, Read),
        (true, false, false, shut_down, Read),
        (true, false, true, shut_down, IfPanicked),
        (true, true, true, shut_down, Read),
        (false, false, false, shut_down, Unwanted),
    ] {
        let mut world = World::new();
        world.heard(Happening::Started(StartDetail::Booted));
        if deaf {
            let at = world.now().wall;
            world.tell(Input::LinkLost { at });
            world.tell(Input::LinkUp(Listing { changing: vec![VM], ..Listing::default() }));
        }
        if panics {
            world.heard(Happening::QemuPanicked);
        }
        if asked {
            world.wants(Wanted::Shutdown { domain: VM, again: false, agent_first: None, force_after: None });
        }
        world.heard(Happening::Stopped(how));
        let put = world.asked.iter().find_map(|question| match question {
            Question::Remains { definition, .. } => Some(*definition),
            _ => None,
        });
        assert_eq!(put, Some(wanted), "{deaf} {panics} {asked} {how:?}");
    }
}
