//! States shown are libvirt's: what is seen when it is looked at, and how often that is.

use super::*;
use crate::evidence::ExitStatus;
use crate::hypervisor::{
    CrashDetail, DomainState, DomainView, IoErrorAction, PauseReason, Process, ResumeDetail, SuspendDetail,
};
use crate::lifecycle::internal_error;
use std::sync::Arc;

const PROCESS: Process = Process { pid: 42, start_ticks: 7 };

/// A world whose glances are counted and answered with one state of libvirt.
struct Shown {
    world: World,
    state: DomainState,
    answered: bool,
    glances: u32,
    waiting: Vec<RunId>,
    facts: Vec<(Wall, Fact)>,
}

impl Shown {
    fn started() -> Self {
        let mut shown = Self {
            world: World::new(),
            state: DomainState::Running,
            answered: true,
            glances: 0,
            waiting: vec![],
            facts: vec![],
        };
        let domain = DomainRef { id: VM, name: "vm".into(), libvirt_id: Some(3) };
        let what = Happening::Started(StartDetail::Booted);
        let at = shown.world.now().wall;
        shown.tell(Input::Host(HostEvent { domain, at, what, process: Some(PROCESS) }));
        shown.pass(1_000);
        shown
    }

    fn view(&self) -> DomainView {
        DomainView {
            domain: DomainRef { id: VM, name: "vm".into(), libvirt_id: Some(3) },
            state: self.state,
            persistent: true,
            managed_save: Some(false),
            process: None,
        }
    }

    fn tell(&mut self, input: Input) {
        let (now, handed) = (self.world.now(), self.world.handed);
        for effect in self.world.engine.step(now, input) {
            self.world.handed += u64::from(matches!(effect, Effect::Keep(_)));
            match effect {
                Effect::Ask(Question::Glance { run, .. }) => {
                    self.glances += 1;
                    self.waiting.push(run);
                }
                Effect::Ask(Question::Look { domain }) => {
                    let view = Some(Some(self.view()));
                    self.tell(Input::Answered(Answer::Looked { domain, view }));
                }
                Effect::Ask(Question::Remains { run, .. }) => {
                    let view = Some(Some(self.view()));
                    self.tell(Input::Answered(Answer::Remains { run, view, facts: vec![] }));
                }
                Effect::Keep(Keep::Ending(ending)) => {
                    let run = ending.run;
                    self.world.endings.push(Arc::unwrap_or_clone(ending));
                    self.tell(Input::Kept(run));
                }
                _ => {}
            }
        }
        if self.world.handed > handed {
            self.tell(Input::Written(self.world.handed));
        }
        while self.answered && !self.waiting.is_empty() {
            let run = self.waiting.remove(0);
            let (view, facts) = (Some(Some(self.view())), self.facts.clone());
            self.tell(Input::Answered(Answer::Glanced { run, view, facts }));
        }
    }

    fn pass(&mut self, ms: u64) {
        let until = self.world.ms + ms;
        while let Some(at) = self.world.engine.wake_at().filter(|at| at.0 <= until * 1_000_000) {
            self.world.ms = self.world.ms.max(at.0.div_ceil(1_000_000));
            self.tell(Input::Wake);
        }
        self.world.ms = until;
    }

    fn heard(&mut self, what: Happening) {
        self.world.ms += 1;
        let domain = DomainRef { id: VM, name: "vm".into(), libvirt_id: Some(3) };
        let at = self.world.now().wall;
        self.tell(Input::Host(HostEvent { domain, at, what, process: None }));
    }

    fn domain(&self) -> crate::snapshot::DomainPublic {
        (*self.world.engine.snapshot().domains[&VM]).clone()
    }
}

#[test]
fn a_reset_leaves_a_paused_machine_paused_and_its_io_error_known() {
    let mut shown = Shown::started();
    shown.state = DomainState::Paused(PauseReason::User);
    shown.heard(Happening::Suspended(SuspendDetail::Paused));
    shown.heard(Happening::Rebooted);
    assert_eq!(shown.domain().status, Status::Paused, "not even for a moment");
    shown.pass(1_000);
    assert_eq!(shown.domain().status, Status::Paused);

    shown.state = DomainState::Paused(PauseReason::IoError);
    let (disk, reason) = ("virtio-disk0".into(), "enospc".into());
    shown.heard(Happening::IoError { disk, action: IoErrorAction::Pause, reason });
    shown.heard(Happening::Suspended(SuspendDetail::IoError));
    shown.heard(Happening::Rebooted);
    shown.pass(1_000);
    let domain = shown.domain();
    assert_eq!((domain.status, domain.io_error.as_deref()), (Status::PausedIoError, Some("enospc")));
    assert_eq!(domain.paused_by.as_deref(), Some("an I/O error: enospc"));
}

#[test]
fn a_state_that_no_event_told_is_shown_within_a_second_of_quiet() {
    for (state, status) in [
        (DomainState::Crashed, Status::Paused),
        (DomainState::Paused(PauseReason::Save), Status::Saving),
        // As what was restored and not let run.
        (DomainState::Paused(PauseReason::Migration), Status::Paused),
        (DomainState::PmSuspended, Status::Paused),
        (DomainState::ShuttingDown, Status::PoweringDown),
    ] {
        let mut shown = Shown::started();
        shown.state = state;
        // A panic without SUSPENDED; whatever it is, something was heard.
        shown.heard(Happening::GuestCrashed(CrashDetail::Panicked));
        shown.pass(999);
        assert_eq!(shown.domain().status, status, "{state:?}");
        shown.state = DomainState::Running;
        shown.heard(Happening::Rebooted);
        shown.pass(999);
        assert_eq!(shown.domain().status, Status::Up, "after {state:?}");
    }
}

#[test]
fn a_migration_is_told_from_its_two_ends() {
    let mut shown = Shown::started();
    shown.state = DomainState::Paused(PauseReason::Migration);
    shown.heard(Happening::Suspended(SuspendDetail::Migrated));
    shown.pass(1_000);
    assert_eq!(shown.domain().status, Status::MigrationSource);

    let mut shown = Shown::started();
    shown.heard(Happening::Stopped(StopDetail::Destroyed));
    shown.state = DomainState::Paused(PauseReason::Migration);
    shown.heard(Happening::Started(StartDetail::Migrated));
    shown.pass(1_000);
    assert_eq!(shown.domain().status, Status::MigrationDestination);
    shown.state = DomainState::Running;
    shown.heard(Happening::Resumed(ResumeDetail::Migrated));
    shown.pass(1_000);
    assert_eq!(shown.domain().status, Status::Up);
}

#[test]
fn a_storm_costs_five_glances_a_second_and_its_last_word_is_seen() {
    let mut shown = Shown::started();
    let before = shown.glances;
    for n in 0..2_000 {
        let paused = n % 2 == 0;
        shown.state = if paused { DomainState::Paused(PauseReason::User) } else { DomainState::Running };
        shown.heard(if paused {
            Happening::Suspended(SuspendDetail::Paused)
        } else {
            Happening::Resumed(ResumeDetail::Unpaused)
        });
        shown.pass(1);
    }
    shown.state = DomainState::Paused(PauseReason::Watchdog);
    shown.pass(999);
    let glances = shown.glances - before;
    assert!((10..=21).contains(&glances), "{glances} glances for 2,000 events in 4 s");
    assert_eq!(shown.domain().paused_by.as_deref(), Some("its watchdog"));
}

#[test]
fn a_glance_that_was_overtaken_or_could_not_be_had_is_made_again() {
    let mut shown = Shown::started();
    shown.answered = false;
    shown.heard(Happening::Suspended(SuspendDetail::Paused));
    shown.pass(1_000);
    let run = shown.waiting.remove(0);
    shown.heard(Happening::Resumed(ResumeDetail::Unpaused));
    shown.state = DomainState::Paused(PauseReason::User);
    let view = Some(Some(shown.view()));
    shown.tell(Input::Answered(Answer::Glanced { run, view, facts: vec![] }));
    assert_eq!(shown.domain().status, Status::Up, "it was looked at before it was resumed");
    shown.pass(1_000);
    let run = shown.waiting.remove(0);
    shown.tell(Input::Answered(Answer::Glanced { run, view: None, facts: vec![] }));
    shown.answered = true;
    shown.pass(3_000);
    assert_eq!(shown.domain().status, Status::Paused);
}

#[test]
fn an_internal_error_of_qemu_is_named_and_stays_in_the_evidence() {
    let mut shown = Shown::started();
    shown.state = DomainState::Paused(PauseReason::Unknown);
    let text = "KVM internal error. Suberror: 1\nextra data[0]: 0x0";
    shown.facts = vec![(shown.world.now().wall, Fact::LogText(text.into()))];
    shown.heard(Happening::Suspended(SuspendDetail::Paused));
    shown.pass(1_000);
    assert_eq!(shown.domain().paused_by.as_deref(), internal_error(text));
    shown.heard(Happening::Stopped(StopDetail::Destroyed));
    let ending = &shown.world.endings[0];
    assert_eq!(ending.verdict.cause, Cause::OutsideDestroyed);
    let has = |wanted: &Fact| ending.evidence.iter().any(|e| e.fact == *wanted);
    assert!(has(&Fact::LogText(text.into())));
    assert!(has(&Fact::Found { state: shown.state, managed_save: Some(false) }), "{ending:?}");
}

#[test]
fn a_vm_whose_process_is_gone_is_not_up_and_ends_by_what_was_seen_where_libvirt_is_silent() {
    let mut shown = Shown::started();
    shown.heard(Happening::QemuShutdown { guest: true, reason: QemuReason::GuestShutdown });
    let at = shown.world.now().wall;
    let fact = Fact::Exit(ExitStatus::Code(0));
    shown.tell(Input::Observed { subject: Subject::Process(PROCESS), at, fact });
    assert_eq!(shown.domain().status, Status::Ending);
    shown.pass(40_000);
    assert_eq!(shown.domain().status, Status::Ending, "libvirt goes on saying that it runs");
    shown.pass(10_000);
    let domain = shown.domain();
    assert_eq!(domain.status, Status::Down);
    let ending = domain.ending.expect("it is there");
    assert_eq!(ending.ended, crate::record::When::At(at), "not when libvirt was given up");
    assert_eq!(ending.verdict.cause, Cause::GuestPoweroff);

    // libvirt's listing still has it, much later somebody tidies up, and that is no other run.
    shown.pass(100_000);
    let listing = Listing { domains: vec![shown.view()], ..Listing::default() };
    let at = shown.world.now().wall;
    shown.tell(Input::LinkLost { at });
    shown.tell(Input::LinkUp(listing));
    assert_eq!(shown.domain().status, Status::Down);
    shown.pass(100_000);
    shown.heard(Happening::Stopped(StopDetail::Destroyed));
    shown.pass(100_000);
    assert_eq!(shown.world.endings.len(), 1);
    let at = shown.world.now().wall;
    let domain = DomainRef { id: VM, name: "vm".into(), libvirt_id: Some(4) };
    let what = Happening::Started(StartDetail::Booted);
    shown.tell(Input::Host(HostEvent { domain, at, what, process: None }));
    assert_eq!((shown.domain().status, shown.domain().run), (Status::Up, RunId(2)));
}

#[test]
fn a_stopped_that_comes_in_time_tells_of_the_end_as_ever() {
    let mut shown = Shown::started();
    let at = shown.world.now().wall;
    shown.tell(Input::Observed {
        subject: Subject::Process(PROCESS),
        at,
        fact: Fact::Exit(ExitStatus::Signal(9)),
    });
    shown.pass(35_000);
    shown.heard(Happening::Stopped(StopDetail::Failed));
    shown.pass(6_000);
    assert_eq!(shown.world.endings[0].verdict.cause, Cause::ProcessKilled);
}
