//! What runs are made of is told with them from their first moment on, and after a restart.

use std::sync::Arc;

use super::*;
use crate::sample::Devices;
use crate::snapshot::DomainPublic;

fn devices(memory_kib: u64) -> Arc<Devices> {
    Arc::new(Devices { memory_kib, ..Devices::default() })
}

fn shown(engine: &Engine) -> Option<(Status, Option<u64>)> {
    let made = |domain: &Arc<DomainPublic>| domain.made.as_ref().map(|made| made.memory_kib);
    engine.snapshot().domains.get(&VM).map(|domain| (domain.status, made(domain)))
}

fn create(made: Option<Arc<Devices>>) -> Wanted {
    Wanted::Create { domain: VM, name: "vm".into(), xml: "<domain/>".into(), made }
}

#[test]
fn a_vm_that_is_created_is_told_with_what_it_will_be_made_of() {
    let mut world = World::new();
    world.wants(create(Some(devices(1))));
    assert_eq!(shown(&world.engine), Some((Status::Launching, Some(1))));
    world.heard(Happening::Started(StartDetail::Booted));
    assert_eq!(shown(&world.engine), Some((Status::Up, Some(1))));
    world.tell(Input::Made(RunId(1), devices(2)));
    assert_eq!(shown(&world.engine), Some((Status::Up, Some(2))));
    // Of another run it says nothing.
    world.tell(Input::Made(RunId(9), devices(3)));
    world.heard(Happening::Stopped(StopDetail::Destroyed));
    world.pass(10_000);
    assert_eq!(shown(&world.engine), Some((Status::Down, Some(2))));
    world.tell(Input::Made(RunId(1), devices(4)));
    assert_eq!(shown(&world.engine), Some((Status::Down, Some(4))), "it was read late");
    // Until its own is read, the next run is made of the same.
    world.heard(Happening::Started(StartDetail::Booted));
    assert_eq!(shown(&world.engine), Some((Status::Up, Some(4))));
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
