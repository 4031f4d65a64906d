//! A domain that is off may be given another name: it is shown with that, and its ending keeps the one of its time.

use super::faults::listing;
use super::*;
use crate::hypervisor::{DomainState, ShutOffReason};

impl World {
    fn heard_of(&mut self, name: &str, what: Happening) {
        let domain = DomainRef { id: VM, name: name.into(), libvirt_id: None };
        self.tell(Input::Host(HostEvent { domain, at: self.now().wall, what, process: None }));
    }

    fn renamed(&mut self, name: &str) {
        self.heard_of("vm", Happening::Undefined { renamed: true });
        self.heard_of(name, Happening::Defined);
    }
}

fn names(engine: &Engine) -> Option<(String, Option<String>)> {
    let snapshot = engine.snapshot();
    let domain = snapshot.domains.get(&VM)?;
    Some((domain.name.clone(), domain.ending.as_ref().map(|ending| ending.name.clone())))
}

fn told(name: &str) -> Option<(String, Option<String>)> {
    Some((name.into(), Some("vm".into())))
}

fn listed_as(name: &str) -> Input {
    let mut listing = listing(DomainState::ShutOff(ShutOffReason::Shutdown), None);
    listing.domains[0].domain.name = name.into();
    Input::LinkUp(listing)
}

#[test]
fn a_vm_that_is_renamed_while_it_is_off_is_shown_by_its_new_name() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    world.heard(Happening::Stopped(StopDetail::Destroyed));
    world.pass(10_000);
    assert_eq!(names(&world.engine), told("vm"));
    world.renamed("new");
    assert_eq!(names(&world.engine), told("new"));
    world.renamed("vm");
    assert_eq!(names(&world.engine), told("vm"));
    // Nobody heard of it, as the link was lost.
    world.tell(Input::LinkLost { at: world.now().wall });
    world.tell(listed_as("other"));
    assert_eq!(names(&world.engine), told("other"));
    // Its next run has the name that libvirt tells.
    world.heard(Happening::Started(StartDetail::Booted));
    assert_eq!(names(&world.engine), Some(("vm".into(), None)));
    world.heard(Happening::Stopped(StopDetail::Destroyed));
    world.pass(10_000);
    assert_eq!(names(&world.engine), told("vm"));
}

#[test]
fn a_name_that_it_is_given_before_its_ending_is_on_disk_is_no_name_of_its_run() {
    let mut world = World::new();
    world.writes = false;
    world.heard(Happening::Started(StartDetail::Booted));
    world.heard(Happening::Stopped(StopDetail::Destroyed));
    world.pass(10_000);
    world.renamed("new");
    let kept = world.endings.iter().map(|ending| ending.run).collect();
    world.commit(kept);
    assert_eq!(names(&world.engine), told("new"));
}
