//! What was asked of a libvirt that is gone: it has done what it will ever do, and the next one shows what that was.

use super::faults::{listing, open_run, recovered};
use super::*;
use crate::evidence::ExitStatus;
use crate::hypervisor::{DomainState, Process, Server};
use crate::log::{Log, LogBlock};
use crate::operation::{Operation, OperationKind};

/// The first libvirt, and one that follows it a moment after `since`.
const FIRST: u32 = 10;
const NEXT: u32 = 20;

impl World {
    fn linked_to(&mut self, pid: u32, since: Wall, mut shown: Listing) {
        shown.server = Some(Server { process: Process { pid, start_ticks: 1 }, since });
        self.tell(Input::LinkUp(shown));
    }

    fn unanswered(&mut self, what: OperationKind) {
        let at = self.now().wall;
        self.tell(Input::LinkLost { at });
        let (run, outcome) = (RunId(1), Outcome::NoLink);
        self.tell(Input::Answered(Answer::Performed { run, request: None, what, outcome }));
    }

    /// The VM is killed with SIGKILL, and libvirt lost it.
    fn killed(&mut self) {
        let process = self.engine.runs[&RunId(1)].start.incarnation.process.expect("a process");
        let (subject, at) = (Subject::Process(process), self.now().wall);
        self.tell(Input::Observed { subject, at, fact: Fact::Exit(ExitStatus::Signal(9)) });
        self.heard(Happening::Stopped(StopDetail::Failed));
        self.pass(10_000);
    }

    fn refused(&self, what: OperationKind) -> bool {
        let of = |fact: &Fact| matches!(fact, Fact::Refused { what: w, .. } if *w == what);
        self.engine.runs[&RunId(1)].dossier.find(of).is_some()
    }
}

fn running() -> Listing {
    listing(DomainState::Running, Some(1))
}

/// A VM that runs, and a destroy that went out to the first libvirt.
fn destroyed_through_the_first() -> World {
    let mut world = World::new();
    let since = world.now().wall;
    world.linked_to(FIRST, since, running());
    world.wants(Wanted::Do { domain: VM, act: Operation::Destroy });
    world
}

#[test]
fn a_destroy_that_died_with_its_libvirt_is_no_cause_of_what_comes_later() {
    let mut world = destroyed_through_the_first();
    world.unanswered(OperationKind::Destroy);
    world.pass(500);
    let since = world.now().wall;
    world.linked_to(NEXT, since, running());
    assert!(world.refused(OperationKind::Destroy), "it runs, and nobody is at it any more");
    world.killed();
    assert_eq!(world.endings[0].verdict.cause, Cause::ProcessKilled);
}

#[test]
fn the_answer_may_come_after_the_next_libvirt_has_shown_the_vm() {
    let mut world = destroyed_through_the_first();
    let at = world.now().wall;
    world.tell(Input::LinkLost { at });
    world.linked_to(NEXT, at, running());
    let (run, what, outcome) = (RunId(1), OperationKind::Destroy, Outcome::NoLink);
    world.tell(Input::Answered(Answer::Performed { run, request: None, what, outcome }));
    let view = Some(Some(running().domains.remove(0)));
    world.tell(Input::Answered(Answer::Looked { domain: VM, view }));
    assert!(world.refused(OperationKind::Destroy));
}

#[test]
fn the_same_libvirt_may_still_be_at_it() {
    let mut world = destroyed_through_the_first();
    world.unanswered(OperationKind::Destroy);
    world.pass(500);
    world.linked_to(FIRST, Wall::from_millis(0), running());
    assert!(!world.refused(OperationKind::Destroy), "only the connection broke");
}

#[test]
fn a_destroy_that_a_daemon_before_asked_for_died_with_the_libvirt_of_that_time() {
    let asked = Fact::Requested { what: OperationKind::Destroy, who: "manager".into() };
    for (since, refuted) in [(999_900, true), (990_000, false)] {
        let mut world = recovered(open_run(settings().boot, &[(998_000, asked.clone())]));
        world.linked_to(NEXT, Wall::from_millis(since), running());
        assert_eq!(world.refused(OperationKind::Destroy), refuted, "{since}");
    }
}

#[test]
fn a_start_that_died_with_its_libvirt_is_over_as_soon_as_the_next_one_does_not_know_it() {
    let mut world = World::new();
    let since = world.now().wall;
    world.linked_to(FIRST, since, Listing::default());
    let (name, xml) = ("vm".into(), "<domain/>".into());
    world.wants(Wanted::Do { domain: VM, act: Operation::Create { name, xml, made: None, paused: false } });
    world.unanswered(OperationKind::Create);
    world.pass(500);
    let since = world.now().wall;
    world.linked_to(NEXT, since, Listing::default());
    world.absent(6_000);
    assert_eq!(world.endings.len(), 1);
}

/// Told as ended once, while it ran: its part of QEMU's log is dated by a clock that was set back before libvirt told of it.
#[test]
fn a_number_is_that_of_the_same_run_for_as_long_as_libvirt_is_the_same() {
    for (next, endings) in [(FIRST, 0), (NEXT, 1)] {
        let mut world = World::new();
        let since = world.now().wall;
        world.linked_to(FIRST, since, Listing::default());
        let domain = DomainRef { id: VM, name: "vm".into(), libvirt_id: Some(1) };
        let (at, what) = (world.now().wall, Happening::Started(StartDetail::Booted));
        world.tell(Input::Host(HostEvent { domain, at, what, process: None }));
        world.tell(Input::LinkLost { at });
        let began = Some(at.after(Duration::from_secs(315_576_000)));
        let block = LogBlock { name: "vm".into(), domain: Some(VM), began, ..LogBlock::default() };
        world.tell(Input::Past(vec![Log { name: "vm".into(), blocks: vec![block], unread: None }]));
        world.linked_to(next, since, running());
        world.pass(10_000);
        assert_eq!(world.endings.len(), endings, "a new libvirt may give a number again");
        assert_eq!(world.engine.runs[&RunId(1 + endings as u64)].start.incarnation.libvirt_id, Some(1));
    }
}
