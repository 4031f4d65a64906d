//! The engine by hand: the few stories that everything else stands on. `whydown-sim` tells the rest.

use super::*;
use crate::cause::Cause;
use crate::evidence::Fact;
use crate::hypervisor::{
    DomainRef, Happening, HostEvent, Listing, QemuReason, ResumeDetail, ShutdownDetail, StartDetail,
    StopDetail,
};
use crate::id::{BootId, DomainId, RequestId, RunId};
use crate::operation::Operation;
use crate::record::{Certainty, Ending, Keep, Recovered};
use crate::snapshot::Status;
use crate::time::{Mono, Now, Wall};
use std::sync::Arc;
use std::time::Duration;

mod failed;
mod faults;
mod glances;
mod gone_server;
mod host;
mod made;
mod moments;
mod named;
mod owed;
mod starting;
mod subjects;
mod unanswered;

const VM: DomainId = DomainId::from_bytes([7; 16]);

/// Those of all worlds here, with short times.
fn settings() -> Settings {
    Settings {
        settle: Duration::from_millis(300),
        settle_snapshot: Duration::from_secs(1),
        heartbeat: Duration::from_secs(30),
        unacknowledged_max_age: Duration::from_secs(86_400),
        unacknowledged_max_count: 10,
        boot: BootId("boot".into()),
        booted: None,
        driver_inside: false,
    }
}

struct World {
    engine: Engine,
    ms: u64,
    endings: Vec<Ending>,
    replies: Vec<Reply>,
    asked: Vec<Question>,
    /// How often it was asked whether the host goes down.
    host_asked: usize,
    revisions: Vec<Ending>,
    /// Evidence of runs that go on, as it was handed to the ledger.
    evidence: Vec<(RunId, Fact)>,
    /// What the ledger was handed; and whether it writes by itself.
    handed: u64,
    writes: bool,
}

impl World {
    fn new() -> Self {
        let engine = Engine::recover(settings(), Recovered::default());
        let mut world = Self {
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
        };
        world.tell(Input::LinkUp(Listing::default()));
        world.pass(120_000);
        world
    }

    fn now(&self) -> Now {
        Now { mono: Mono(self.ms * 1_000_000), wall: Wall::from_millis(self.ms as i64) }
    }

    fn tell(&mut self, input: Input) {
        let effects = self.engine.step(self.now(), input);
        let mut kept = vec![];
        let handed = self.handed;
        for effect in effects {
            self.handed += u64::from(matches!(effect, Effect::Keep(_)));
            match effect {
                Effect::Keep(Keep::Revised(ending)) => self.revisions.push(Arc::unwrap_or_clone(ending)),
                Effect::Keep(Keep::Ending(ending)) => {
                    kept.push(ending.run);
                    self.endings.push(Arc::unwrap_or_clone(ending));
                }
                Effect::Keep(Keep::Evidence(run, _, piece)) => self.evidence.push((run, piece.fact)),
                Effect::Reply(_, reply) => self.replies.push(reply),
                // Glances have tests of their own.
                Effect::Ask(Question::Glance { .. }) => {}
                Effect::Ask(Question::Host) => self.host_asked += 1,
                Effect::Ask(question) => self.asked.push(question),
                Effect::Keep(_)
                | Effect::Watch(_)
                | Effect::Publish
                | Effect::Hurry(_)
                | Effect::Corrected(_) => {}
            }
        }
        if self.writes && self.handed > handed {
            self.commit(kept);
        }
    }

    /// All that was handed over is on disk, with the endings among it.
    fn commit(&mut self, kept: Vec<RunId>) {
        let handed = self.handed;
        for run in kept {
            self.tell(Input::Kept(run));
        }
        self.tell(Input::Written(handed));
    }

    fn pass(&mut self, ms: u64) {
        let until = self.ms + ms;
        while let Some(at) = self.engine.wake_at().filter(|at| at.0 <= until * 1_000_000) {
            self.ms = self.ms.max(at.0.div_ceil(1_000_000));
            self.tell(Input::Wake);
        }
        self.ms = until;
    }

    fn heard(&mut self, what: Happening) {
        self.ms += 1;
        let domain = DomainRef { id: VM, name: "vm".into(), libvirt_id: None };
        self.tell(Input::Host(HostEvent { domain, at: self.now().wall, what, process: None }));
    }

    fn status(&self) -> Option<Status> {
        self.engine.snapshot().domains.get(&VM).map(|d| d.status)
    }

    fn wants(&mut self, what: Wanted) {
        self.tell(Input::Asked(Request { id: RequestId(1), who: "tester".into(), what }));
    }
}

#[test]
fn a_guest_that_powers_itself_off_is_down_with_its_reason_at_once() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    assert_eq!(world.status(), Some(Status::Up));
    world.heard(Happening::QemuShutdown { guest: true, reason: QemuReason::GuestShutdown });
    world.heard(Happening::ShutdownBegan(ShutdownDetail::Guest));
    assert_eq!(world.status(), Some(Status::PoweringDown));
    world.heard(Happening::Stopped(StopDetail::Shutdown));
    assert_eq!(world.status(), Some(Status::Down));
    let ending = &world.endings[0];
    assert_eq!((ending.exit_code, ending.exit_reason), (0, 7));
    assert_eq!(ending.verdict.cause, Cause::GuestPoweroff);
    assert_eq!(ending.verdict.certainty, Certainty::Certain);
    assert!(!ending.verdict.because.is_empty());
}

#[test]
fn a_destroy_through_us_is_answered_when_the_vm_is_gone_and_leaves_no_down_record() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    world.wants(Wanted::Do { domain: VM, act: Operation::Destroy });
    let run = RunId(1);
    assert_eq!(world.replies, vec![]);
    world.tell(Input::Answered(Answer::Performed {
        run,
        request: None,
        what: crate::operation::OperationKind::Destroy,
        outcome: Outcome::Done,
    }));
    assert_eq!(world.replies, vec![], "STOPPED is still to come");
    world.heard(Happening::Stopped(StopDetail::Destroyed));
    assert_eq!(world.replies, vec![Reply::Done]);
    assert_eq!(world.status(), None);
    // Whether another client's destroy came first may stand in QEMU's log.
    world.tell(Input::Answered(Answer::Remains { run, view: Some(None), facts: vec![] }));
    assert_eq!(world.endings[0].verdict.cause, Cause::AdminDestroyed);
    world.wants(Wanted::Do { domain: VM, act: Operation::Destroy });
    assert_eq!(world.replies, vec![Reply::Done, Reply::NoSuchVm]);
}

/// libvirt is asked when the request is on disk, and that may take a slow disk long enough for another client's destroy.
#[test]
fn a_destroy_is_certainly_ours_only_where_libvirts_signal_came_after_it_was_asked() {
    use crate::evidence::Sender;
    for (signalled_at_ms, certainty) in [(1, Certainty::Probable), (400, Certainty::Certain)] {
        let mut world = World::new();
        world.heard(Happening::Started(StartDetail::Booted));
        world.pass(1000);
        world.writes = false;
        let asked = world.now().wall;
        world.wants(Wanted::Do { domain: VM, act: Operation::Destroy });
        world.pass(300);
        let handed = world.handed;
        world.tell(Input::Written(handed));
        let signalled = Wall(asked.0 + signalled_at_ms * 1_000_000);
        world.pass(200);
        world.writes = true;
        world.heard(Happening::Stopped(StopDetail::Destroyed));
        let program = "/usr/sbin/libvirtd".into();
        let at = Some(signalled);
        let log = Fact::LogSignal { signal: 15, pid: 7, program, sender: Sender::Libvirt, at };
        let facts = vec![(signalled, log)];
        world.tell(Input::Answered(Answer::Remains { run: RunId(1), view: Some(None), facts }));
        world.pass(1000);
        let verdict = &world.endings[0].verdict;
        assert_eq!((verdict.cause, verdict.certainty), (Cause::AdminDestroyed, certainty), "{verdict:?}");
    }
}

#[test]
fn a_destroy_overtaken_by_its_stopped_event_is_answered_too() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    world.wants(Wanted::Do { domain: VM, act: Operation::Destroy });
    world.heard(Happening::Stopped(StopDetail::Destroyed));
    assert_eq!((world.replies.clone(), world.status()), (vec![Reply::Done], None));
}

#[test]
fn a_vanished_process_waits_for_late_evidence_and_no_longer() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    world.heard(Happening::Stopped(StopDetail::Failed));
    assert!(world.endings.is_empty());
    let run = RunId(1);
    world.tell(Input::Answered(Answer::Remains { run, view: Some(None), facts: vec![] }));
    assert_eq!(world.status(), Some(Status::Ending));
    let at = world.now().wall;
    world.tell(Input::Observed { subject: Subject::Host, at, fact: Fact::OomKilled { line: "x".into() } });
    assert_eq!(world.endings[0].verdict.cause, Cause::OomKilled);
}

#[test]
fn what_nobody_explains_is_decided_when_its_time_is_up() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    world.heard(Happening::Stopped(StopDetail::Failed));
    world.pass(4_000);
    assert!(world.endings.is_empty(), "the remains are waited for");
    world.pass(2_000);
    assert_eq!(world.endings[0].verdict.cause, Cause::ProcessLost);
    assert_eq!(world.endings[0].verdict.certainty, Certainty::Probable);
}

#[test]
fn a_refused_start_is_down_with_libvirts_own_text() {
    let mut world = World::new();
    world.wants(Wanted::Do {
        domain: VM,
        act: Operation::Create { name: "vm".into(), xml: "<domain/>".into(), made: None, paused: false },
    });
    assert_eq!((world.replies.clone(), world.status()), (vec![Reply::Done], Some(Status::Launching)));
    world.tell(Input::Answered(Answer::Performed {
        run: RunId(1),
        request: None,
        what: crate::operation::OperationKind::Create,
        outcome: Outcome::Refused("no such disk".into()),
    }));
    // Whether it was a restore, only the remains tell.
    assert_eq!(world.endings, vec![]);
    world.tell(Input::Answered(Answer::Remains { run: RunId(1), view: Some(None), facts: vec![] }));
    let ending = &world.endings[0];
    assert_eq!((ending.exit_code, ending.exit_reason, ending.message.as_str()), (1, 1, "no such disk"));
    assert_eq!(world.status(), Some(Status::Down));
}

/// QEMU's word that the CPUs run may come before libvirt's that it started.
#[test]
fn a_run_is_launching_until_its_start_is_heard_and_its_time_stays() {
    let mut world = World::new();
    world.wants(Wanted::Do {
        domain: VM,
        act: Operation::Create { name: "vm".into(), xml: "<domain/>".into(), made: None, paused: false },
    });
    world.heard(Happening::Resumed(ResumeDetail::Unpaused));
    assert_eq!(world.status(), Some(Status::Launching));
    world.heard(Happening::Started(StartDetail::Booted));
    assert_eq!(world.status(), Some(Status::Up));
}

#[test]
fn an_end_that_libvirt_never_reports_is_found_by_asking() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    world.heard(Happening::ShutdownBegan(ShutdownDetail::Host));
    world.heard(Happening::ControlError);
    assert_eq!(world.asked, vec![]);
    world.pass(3_000);
    assert_eq!(world.asked, vec![Question::Look { domain: VM }]);
    world.tell(Input::Answered(Answer::Looked { domain: VM, view: Some(None) }));
    world.tell(Input::Answered(Answer::Remains { run: RunId(1), view: Some(None), facts: vec![] }));
    assert_eq!(world.status(), Some(Status::Down));
}

#[test]
fn a_new_run_is_shown_and_the_old_ending_is_kept() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    world.heard(Happening::Stopped(StopDetail::Migrated));
    assert_eq!(world.status(), Some(Status::Down));
    world.heard(Happening::Started(StartDetail::Booted));
    assert_eq!(world.status(), Some(Status::Up));
    assert_eq!(world.endings.len(), 1);
}

#[test]
fn a_vm_that_libvirt_lost_without_a_word_is_looked_for_when_somebody_misses_it() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    world.tell(Input::Missed(VM));
    assert_eq!(world.asked, vec![Question::Look { domain: VM }]);
    world.tell(Input::Answered(Answer::Looked { domain: VM, view: Some(None) }));
    world.tell(Input::Answered(Answer::Remains { run: RunId(1), view: Some(None), facts: vec![] }));
    world.pass(10_000);
    assert_eq!(world.status(), Some(Status::Down));
    assert_ne!(world.endings[0].verdict.certainty, Certainty::Certain);
    // What is over, or never was, is looked for by nobody.
    let asked = world.asked.len();
    world.tell(Input::Missed(VM));
    world.tell(Input::Missed(DomainId::from_bytes([9; 16])));
    assert_eq!(world.asked.len(), asked);
}
