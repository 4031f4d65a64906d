//! When an end was: by what ended, not by who noticed it last.

use super::*;
use crate::evidence::ExitStatus;
use crate::hypervisor::{DomainState, DomainView, Process, ShutOffReason};
use crate::record::{Incarnation, RunStart, When};

const PROCESS: Process = Process { pid: 1001, start_ticks: 1 };

/// The daemon starts at 1000 s with a run of this boot, which it had last heard at 950 s.
fn world(boot: &str, booted: Option<i64>) -> World {
    let booted = booted.map(Wall::from_millis);
    let settings = Settings { boot: BootId("now".into()), booted, ..settings() };
    let incarnation = Incarnation { libvirt_id: Some(1), process: Some(PROCESS), boot: BootId(boot.into()) };
    let (name, at) = ("vm".into(), Wall::from_millis(900_000));
    let start = RunStart { run: RunId(1), domain: VM, name, at, seen: true, incarnation };
    let recovered = Recovered {
        open: vec![(start, Vec::new())],
        last_run: 1,
        alive: Some(Wall::from_millis(950_000)),
        ..Recovered::default()
    };
    let engine = Engine::recover(settings, recovered);
    World {
        engine,
        ms: 1_000_000,
        endings: vec![],
        replies: vec![],
        asked: vec![],
        host_asked: 0,
        revisions: vec![],
        evidence: vec![],
        handed: 0,
        writes: true,
    }
}

fn shown(state: DomainState, libvirt_id: Option<u32>) -> Input {
    let domain = DomainRef { id: VM, name: "vm".into(), libvirt_id };
    let process = libvirt_id.map(|_| PROCESS);
    let view = DomainView { domain, state, persistent: true, managed_save: Some(false), process };
    Input::LinkUp(Listing { domains: vec![view], ..Listing::default() })
}

#[test]
fn a_qemu_that_nobody_reaps_has_ended_when_it_exited_and_is_not_shown_as_up() {
    let mut world = world("now", None);
    world.tell(shown(DomainState::Running, Some(1)));
    assert_eq!(world.status(), Some(Status::Up));
    world.pass(10_000);
    let exited = world.now().wall;
    let (subject, fact) = (Subject::Process(PROCESS), Fact::Exit(ExitStatus::Signal(9)));
    world.tell(Input::Observed { subject, at: exited, fact });
    assert_eq!(world.status(), Some(Status::Ending));
    world.pass(20_000);
    world.heard(Happening::Stopped(StopDetail::Failed));
    world.pass(10_000);
    assert_eq!((world.endings.len(), world.endings[0].ended), (1, When::At(exited)));
}

#[test]
fn a_host_that_was_lost_was_lost_before_it_booted_anew() {
    for (booted, until) in [(Some(970_000), 970_000), (None, 1_000_000)] {
        let mut world = world("before", booted);
        world.tell(shown(DomainState::ShutOff(ShutOffReason::Unknown), None));
        world.pass(10_000);
        let [ending] = &world.endings[..] else { panic!("{:?}", world.endings) };
        assert_eq!(ending.verdict.cause, crate::cause::Cause::HostLost);
        let (from, to) = (Wall::from_millis(950_000), Wall::from_millis(until));
        assert_eq!(ending.ended, When::Between(from, to));
    }
}
