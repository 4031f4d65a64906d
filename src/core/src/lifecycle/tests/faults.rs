//! Stories of faults, each of which was told wrongly once.

use super::*;
use crate::evidence::{Deaf, Evidence, OperationKind};
use crate::hypervisor::{DomainState, DomainView, Process, ShutOffReason};
use crate::limits;
use crate::operation::Operation;
use crate::record::{Incarnation, RunStart, When};
use crate::snapshot::Link;
use std::sync::Arc;

pub(super) fn boot() -> BootId {
    BootId("boot".into())
}

fn view(state: DomainState, libvirt_id: Option<u32>) -> DomainView {
    DomainView {
        domain: DomainRef { id: VM, name: "vm".into(), libvirt_id },
        state,
        persistent: true,
        managed_save: Some(false),
        process: libvirt_id.map(|id| Process { pid: 1000 + id, start_ticks: u64::from(id) }),
    }
}

pub(super) fn listing(state: DomainState, libvirt_id: Option<u32>) -> Listing {
    Listing { domains: vec![view(state, libvirt_id)], ..Listing::default() }
}

fn start_of(run: u64, boot: BootId) -> RunStart {
    RunStart {
        run: RunId(run),
        domain: VM,
        name: "vm".into(),
        at: Wall::from_millis(900_000),
        seen: true,
        incarnation: Incarnation {
            libvirt_id: Some(1),
            process: Some(Process { pid: 1001, start_ticks: 1 }),
            boot,
        },
    }
}

/// A world in which the daemon starts where this ledger stands.
pub(super) fn recovered(recovered: Recovered) -> World {
    let engine = Engine::recover(settings(), recovered);
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

pub(super) fn open_run(boot: BootId, facts: &[(i64, Fact)]) -> Recovered {
    let piece = |(millis, fact): &(i64, Fact)| {
        let at = Wall::from_millis(*millis);
        Evidence { first: at, last: at, times: 1, fact: fact.clone() }
    };
    Recovered {
        open: vec![(start_of(1, boot), facts.iter().map(piece).collect())],
        last_run: 1,
        alive: Some(Wall::from_millis(950_000)),
        ..Recovered::default()
    }
}

fn stopped(detail: StopDetail) -> Fact {
    Fact::Host(Happening::Stopped(detail))
}

impl World {
    fn acted(&mut self, run: u64, what: OperationKind, outcome: Outcome) {
        self.tell(Input::Answered(Answer::Performed { run: RunId(run), request: None, what, outcome }));
    }

    fn looked(&mut self, view: Option<Option<DomainView>>) {
        self.tell(Input::Answered(Answer::Looked { domain: VM, view }));
    }

    fn no_remains(&mut self, run: u64) {
        self.tell(Input::Answered(Answer::Remains { run: RunId(run), view: None, facts: vec![] }));
    }

    fn lose_link(&mut self) {
        let at = self.now().wall;
        self.tell(Input::LinkLost { at });
    }

    fn looks(&self) -> usize {
        self.asked.iter().filter(|question| matches!(question, Question::Look { .. })).count()
    }

    pub(super) fn acts(&self, wanted: OperationKind) -> usize {
        let act =
            |question: &&Question| matches!(question, Question::Perform { act, .. } if act.kind() == wanted);
        self.asked.iter().filter(act).count()
    }
}

#[test]
fn a_status_time_does_not_go_back_over_a_restart() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    world.heard(Happening::Stopped(StopDetail::Migrated));
    let shown = world.engine.snapshot().domains[&VM].status_time;
    let ending = Ending { ended: When::At(Wall::from_millis(shown - 5_000)), ..world.endings[0].clone() };
    let unacknowledged = vec![ending];
    let mut next = recovered(Recovered { unacknowledged, last_run: 1, ..Recovered::default() });
    next.ms = world.ms + 1_000;
    assert!(next.engine.snapshot().domains.is_empty(), "the time is not known before the first step");
    assert_eq!(next.engine.wake_at(), Some(Mono(0)), "which comes at once");
    next.tell(Input::Wake);
    assert!(next.engine.snapshot().domains[&VM].status_time >= shown);
}

#[test]
fn a_clock_that_was_set_back_over_a_restart_finds_the_floor_in_the_evidence() {
    let mut world = recovered(open_run(boot(), &[(2_000_000, Fact::Host(Happening::Rebooted))]));
    world.tell(Input::Wake);
    assert_eq!(world.engine.snapshot().domains[&VM].status_time, 2_000_000);
}

#[test]
fn an_end_that_was_heard_and_not_told_before_a_crash_is_told_at_its_time() {
    for shown in
        [listing(DomainState::ShutOff(ShutOffReason::Crashed), None), listing(DomainState::Running, None)]
    {
        let runs_again = shown.domains[0].state.is_active();
        let mut world = recovered(open_run(boot(), &[(940_000, stopped(StopDetail::Failed))]));
        world.tell(Input::LinkUp(shown));
        world.no_remains(1);
        world.pass(1_000);
        assert_eq!(world.endings.len(), 1);
        assert_eq!(world.endings[0].ended, When::At(Wall::from_millis(940_000)));
        assert_eq!(world.endings[0].verdict.row, "F14");
        assert_eq!(world.status(), Some(if runs_again { Status::Up } else { Status::Down }));
    }
}

#[test]
fn an_older_run_that_was_left_open_never_takes_the_place_of_a_newer_ending() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    world.heard(Happening::Stopped(StopDetail::Migrated));
    let newer = Ending { run: RunId(2), ..world.endings[0].clone() };
    let mut next = recovered(Recovered { unacknowledged: vec![newer], ..open_run(boot(), &[]) });
    next.tell(Input::LinkUp(listing(DomainState::ShutOff(ShutOffReason::Migrated), None)));
    next.no_remains(1);
    assert_eq!((next.endings.len(), next.endings[0].run), (1, RunId(1)));
    assert_eq!(next.engine.snapshot().domains[&VM].run, RunId(2));
}

#[test]
fn a_create_that_finds_the_vm_up_did_not_hear_it_begin() {
    let mut world = World::new();
    world.tell(Input::LinkUp(Listing { changing: vec![VM], ..Listing::default() }));
    world.wants(Wanted::Do {
        domain: VM,
        act: Operation::Create { name: "vm".into(), xml: "<domain/>".into(), made: None, paused: false },
    });
    world.looked(Some(Some(view(DomainState::Running, Some(8)))));
    world.heard(Happening::Stopped(StopDetail::Migrated));
    world.no_remains(1);
    assert_eq!(world.endings[0].verdict.certainty, Certainty::Probable);
}

#[test]
fn a_run_of_an_earlier_boot_is_over_even_if_its_domain_is_changing() {
    let mut world = recovered(open_run(BootId("before".into()), &[]));
    world.tell(Input::LinkUp(Listing { changing: vec![VM], ..Listing::default() }));
    // libvirt's numbers begin anew with every boot: this start bears the old run's.
    let domain = DomainRef { id: VM, name: "vm".into(), libvirt_id: Some(1) };
    let what = Happening::Started(StartDetail::Booted);
    world.tell(Input::Host(HostEvent { domain, at: world.now().wall, what, process: None }));
    world.no_remains(1);
    assert_eq!(world.endings[0].verdict.cause, Cause::HostLost);
    let public = &world.engine.snapshot().domains[&VM];
    assert_eq!((public.run, public.status), (RunId(2), Status::Up));
}

#[test]
fn a_start_of_another_process_is_another_run_even_without_libvirts_number() {
    let mut world = recovered(open_run(boot(), &[]));
    world.tell(Input::LinkUp(Listing { changing: vec![VM], ..Listing::default() }));
    let domain = DomainRef { id: VM, name: "vm".into(), libvirt_id: None };
    let process = Some(Process { pid: 2000, start_ticks: 9 });
    let what = Happening::Started(StartDetail::Booted);
    world.tell(Input::Host(HostEvent { domain, at: world.now().wall, what, process }));
    assert_eq!(world.engine.snapshot().domains[&VM].run, RunId(2));
}

#[test]
fn an_answer_from_before_a_lost_link_is_not_taken_for_one_of_now() {
    let mut world = World::new();
    world.tell(Input::LinkUp(Listing {
        domains: vec![view(DomainState::Running, Some(1))],
        changing: vec![VM],
        ..Listing::default()
    }));
    assert_eq!(world.looks(), 1);
    world.lose_link();
    world.tell(Input::LinkUp(Listing { changing: vec![VM], ..Listing::default() }));
    world.looked(Some(Some(view(DomainState::Running, Some(1)))));
    assert_eq!(world.status(), None, "that was asked before");
    assert_eq!(world.looks(), 2, "it is asked again");
    world.looked(Some(None));
    assert_eq!(world.status(), None);
}

#[test]
fn a_domain_of_which_libvirt_cannot_tell_is_asked_for_again() {
    let mut world = recovered(open_run(boot(), &[]));
    world.tell(Input::LinkUp(Listing { changing: vec![VM], ..Listing::default() }));
    world.looked(None);
    assert_eq!(world.looks(), 1);
    world.pass(31_000);
    assert_eq!(world.looks(), 2);
    world.looked(Some(None));
    world.no_remains(1);
    assert_eq!(world.status(), Some(Status::Down));
}

#[test]
fn a_failed_start_of_which_libvirt_cannot_tell_is_asked_for_again() {
    let mut world = World::new();
    world.heard(Happening::ControlError);
    world.no_remains(1);
    assert_eq!(world.status(), Some(Status::Launching));
    world.pass(31_000);
    world.looked(Some(None));
    world.no_remains(1);
    assert_eq!(world.endings[0].verdict.cause, Cause::StartFailedSilent);
}

#[test]
fn what_was_found_before_a_start_came_up_is_not_evidence_of_its_end() {
    let mut world = World::new();
    world.heard(Happening::ControlError);
    world.heard(Happening::Started(StartDetail::Booted));
    let off = view(DomainState::ShutOff(ShutOffReason::Failed), None);
    let remains =
        |view| Input::Answered(Answer::Remains { run: RunId(1), view: Some(Some(view)), facts: vec![] });
    world.tell(remains(off));
    assert_eq!(world.status(), Some(Status::Up));
    world.heard(Happening::Stopped(StopDetail::Saved));
    world.no_remains(1);
    assert_eq!(world.endings[0].verdict.row, "V3", "nobody looked for an image");
}

#[test]
fn a_late_stopped_of_a_run_that_was_found_ended_makes_no_new_run() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    world.wants(Wanted::Do { domain: VM, act: Operation::Destroy });
    world.acted(1, OperationKind::Destroy, Outcome::Done);
    world.pass(2_500);
    world.looked(Some(None));
    world.no_remains(1);
    assert_eq!((world.status(), world.endings.len()), (None, 1));
    world.heard(Happening::Stopped(StopDetail::Destroyed));
    assert_eq!((world.status(), world.endings.len()), (None, 1));
}

#[test]
fn a_late_stopped_of_the_run_before_does_not_end_a_new_one() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    world.wants(Wanted::Do { domain: VM, act: Operation::Destroy });
    world.acted(1, OperationKind::Destroy, Outcome::Done);
    world.pass(2_500);
    world.looked(Some(None));
    world.no_remains(1);
    world.wants(Wanted::Do {
        domain: VM,
        act: Operation::Create { name: "vm".into(), xml: "<domain/>".into(), made: None, paused: false },
    });
    world.heard(Happening::Stopped(StopDetail::Destroyed));
    assert_eq!(world.status(), Some(Status::Launching));
    world.heard(Happening::Started(StartDetail::Booted));
    assert_eq!((world.status(), world.endings.len()), (Some(Status::Up), 1));
}

#[test]
fn late_words_of_a_run_that_was_found_ended_are_not_a_failed_start() {
    let mut world = World::new();
    world.tell(Input::LinkUp(listing(DomainState::Running, Some(8))));
    world.lose_link();
    world.tell(Input::LinkUp(listing(DomainState::ShutOff(ShutOffReason::Shutdown), None)));
    world.no_remains(1);
    assert_eq!(world.status(), Some(Status::Down));
    let say = |world: &mut World, libvirt_id| {
        let domain = DomainRef { id: VM, name: "vm".into(), libvirt_id: Some(libvirt_id) };
        let at = world.now().wall;
        world.tell(Input::Host(HostEvent { domain, at, what: Happening::ControlError, process: None }));
    };
    say(&mut world, 8);
    assert_eq!(world.status(), Some(Status::Down));
    say(&mut world, 9);
    assert_eq!(world.status(), Some(Status::Launching), "that is another start");
}

#[test]
fn a_stopped_with_another_runs_number_ends_nothing() {
    let mut world = World::new();
    world.tell(Input::LinkUp(listing(DomainState::Running, Some(8))));
    let domain = DomainRef { id: VM, name: "vm".into(), libvirt_id: Some(7) };
    let what = Happening::Stopped(StopDetail::Failed);
    world.tell(Input::Host(HostEvent { domain, at: world.now().wall, what, process: None }));
    assert_eq!(world.status(), Some(Status::Up));
}

#[test]
fn a_wakeup_begins_no_run_and_ends_the_pause() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    world.heard(Happening::PmSuspended(crate::hypervisor::PmDetail::Memory));
    assert_eq!(world.status(), Some(Status::Paused));
    world.heard(Happening::Started(StartDetail::Wakeup));
    let public = &world.engine.snapshot().domains[&VM];
    assert_eq!((public.run, public.status), (RunId(1), Status::Up));
}

#[test]
fn what_is_woken_and_was_not_known_had_begun_unheard() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Wakeup));
    world.heard(Happening::Stopped(StopDetail::Migrated));
    world.no_remains(1);
    assert_eq!(world.endings[0].verdict.certainty, Certainty::Probable);
}

#[test]
fn a_refusal_of_a_second_destroy_is_not_an_answer_to_the_first() {
    for outcome in [Outcome::Refused("domain is not running".into()), Outcome::NoDomain] {
        let mut world = World::new();
        world.heard(Happening::Started(StartDetail::Booted));
        world.wants(Wanted::Do { domain: VM, act: Operation::Destroy });
        world.wants(Wanted::Do { domain: VM, act: Operation::Destroy });
        world.acted(1, OperationKind::Destroy, outcome);
        assert_eq!(world.replies, vec![], "the other one may still be done");
        world.acted(1, OperationKind::Destroy, Outcome::Done);
        world.heard(Happening::Stopped(StopDetail::Destroyed));
        assert_eq!(world.replies, vec![Reply::Done, Reply::Done]);
        world.tell(Input::Answered(Answer::Remains { run: RunId(1), view: Some(None), facts: vec![] }));
        assert_eq!(world.endings[0].verdict.cause, Cause::AdminDestroyed);
        assert_eq!(world.status(), None);
    }
}

#[test]
fn the_last_refusal_of_all_destroys_answers_all() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    world.wants(Wanted::Do { domain: VM, act: Operation::Destroy });
    world.wants(Wanted::Do { domain: VM, act: Operation::Destroy });
    for _ in 0..2 {
        world.acted(1, OperationKind::Destroy, Outcome::Refused("no".into()));
    }
    assert_eq!(world.replies, vec![Reply::Refused("no".into()), Reply::Refused("no".into())]);
}

#[test]
fn a_destroy_that_comes_before_libvirt_knows_the_vm_is_done_when_it_is_up() {
    let mut world = World::new();
    world.wants(Wanted::Do {
        domain: VM,
        act: Operation::Create { name: "vm".into(), xml: "<domain/>".into(), made: None, paused: false },
    });
    world.wants(Wanted::Do { domain: VM, act: Operation::Destroy });
    world.acted(1, OperationKind::Destroy, Outcome::NoDomain);
    world.acted(1, OperationKind::Create, Outcome::Done);
    world.pass(3_000);
    assert_eq!((world.replies.len(), world.acts(OperationKind::Destroy)), (1, 1));
    world.heard(Happening::Started(StartDetail::Booted));
    assert_eq!(world.acts(OperationKind::Destroy), 2);
    world.acted(1, OperationKind::Destroy, Outcome::Done);
    world.heard(Happening::Stopped(StopDetail::Destroyed));
    assert_eq!((world.replies.len(), world.status()), (2, None));
}

#[test]
fn a_running_vm_is_never_hidden() {
    let mut world = World::new();
    world.tell(Input::LinkUp(listing(DomainState::Running, Some(8))));
    world.wants(Wanted::Do { domain: VM, act: Operation::Destroy });
    world.acted(1, OperationKind::Destroy, Outcome::Done);
    world.pass(2_500);
    assert_eq!(world.status(), None);
    world.looked(Some(Some(view(DomainState::Running, Some(8)))));
    assert_eq!(world.status(), Some(Status::Up));
}

#[test]
fn a_start_whose_answer_was_lost_with_the_link_is_not_a_failed_start() {
    let mut world = World::new();
    world.wants(Wanted::Do {
        domain: VM,
        act: Operation::Create { name: "vm".into(), xml: "<domain/>".into(), made: None, paused: false },
    });
    world.lose_link();
    world.acted(1, OperationKind::Create, Outcome::NoLink);
    world.tell(Input::LinkUp(listing(DomainState::Running, Some(8))));
    assert_eq!((world.status(), world.endings.len()), (Some(Status::Up), 0));
}

#[test]
fn a_start_that_libvirt_is_still_at_is_not_missing_from_a_listing() {
    let mut world = World::new();
    world.wants(Wanted::Do {
        domain: VM,
        act: Operation::Create { name: "vm".into(), xml: "<domain/>".into(), made: None, paused: false },
    });
    world.lose_link();
    world.tell(Input::LinkUp(Listing::default()));
    assert_eq!(world.status(), Some(Status::Launching));
    world.acted(1, OperationKind::Create, Outcome::Done);
    // It ran and was gone in the gap: nobody will say so, and it is asked for.
    world.pass(31_000);
    world.looked(Some(None));
    world.no_remains(1);
    assert_eq!(world.status(), Some(Status::Down));
}

#[test]
fn a_force_that_comes_due_without_a_link_waits_for_it_and_is_not_asked_for_before() {
    let mut world = World::new();
    world.tell(Input::LinkUp(listing(DomainState::Running, Some(8))));
    world.wants(Wanted::Shutdown {
        domain: VM,
        again: false,
        agent_first: None,
        force_after: Some(Duration::from_secs(5)),
    });
    world.acted(1, OperationKind::Shutdown, Outcome::Done);
    world.lose_link();
    world.pass(60_000);
    assert_eq!(world.acts(OperationKind::ForceOff), 0);
    world.tell(Input::LinkUp(listing(DomainState::Running, Some(8))));
    assert_eq!(world.acts(OperationKind::ForceOff), 1);
}

#[test]
fn an_agent_that_hangs_keeps_neither_the_button_nor_whoever_asked_waiting_for_longer_than_its_time() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    let (agent_first, force_after) = (Some(Duration::from_secs(10)), Some(Duration::from_secs(5)));
    world.wants(Wanted::Shutdown { domain: VM, again: false, agent_first, force_after });
    assert_eq!((world.acts(OperationKind::AgentShutdown), world.acts(OperationKind::Shutdown)), (1, 0));
    world.pass(9_900);
    assert_eq!(world.acts(OperationKind::Shutdown), 0);
    world.pass(200);
    assert_eq!(world.acts(OperationKind::Shutdown), 1);
    world.acted(1, OperationKind::Shutdown, Outcome::Done);
    world.pass(5_100);
    assert_eq!(world.acts(OperationKind::ForceOff), 1);
    // libvirt gives the agent up at last, when all of that has long been done.
    world.acted(
        1,
        OperationKind::AgentShutdown,
        Outcome::Refused("the guest agent is not responding".into()),
    );
    world.pass(60_000);
    assert_eq!((world.acts(OperationKind::Shutdown), world.acts(OperationKind::ForceOff)), (1, 1));
}

#[test]
fn an_agent_that_refuses_leaves_it_to_the_button_which_is_pressed_once() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    let agent_first = Some(Duration::from_secs(10));
    world.wants(Wanted::Shutdown { domain: VM, again: false, agent_first, force_after: None });
    world.acted(1, OperationKind::AgentShutdown, Outcome::Refused("it has none".into()));
    assert_eq!(world.acts(OperationKind::Shutdown), 1);
    world.acted(1, OperationKind::Shutdown, Outcome::Done);
    world.pass(60_000);
    assert_eq!(world.acts(OperationKind::Shutdown), 1);
}

#[test]
fn nobody_puts_off_anothers_force_and_an_unavailable_shutdown_brings_none() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    for (seconds, outcome) in [(10, Outcome::Done), (600, Outcome::Done), (1, Outcome::NoLink)] {
        let force_after = Some(Duration::from_secs(seconds));
        world.wants(Wanted::Shutdown { domain: VM, again: false, agent_first: None, force_after });
        world.acted(1, OperationKind::Shutdown, outcome);
    }
    world.pass(9_000);
    assert_eq!(world.acts(OperationKind::ForceOff), 0);
    world.pass(1_100);
    assert_eq!(world.acts(OperationKind::ForceOff), 1);
}

#[test]
fn a_destroy_that_broke_off_is_not_ours_when_the_vm_still_runs_a_minute_later() {
    let mut world = World::new();
    world.tell(Input::LinkUp(listing(DomainState::Running, Some(8))));
    world.pass(70_000);
    world.wants(Wanted::Do { domain: VM, act: Operation::Destroy });
    world.acted(1, OperationKind::Destroy, Outcome::NoLink);
    let looks = world.looks();
    world.pass(100_000);
    assert!(world.looks() > looks, "libvirt is asked when it must be done with it");
    world.looked(Some(Some(view(DomainState::Running, Some(8)))));
    world.heard(Happening::Stopped(StopDetail::Destroyed));
    assert_eq!(world.endings[0].verdict.cause, Cause::OutsideDestroyed);
}

#[test]
fn a_state_that_nobody_knows_is_no_end_while_libvirt_has_a_number_for_it() {
    let mut world = World::new();
    world.tell(Input::LinkUp(listing(DomainState::Running, Some(8))));
    world.lose_link();
    world.tell(Input::LinkUp(listing(DomainState::Other(8, 0), Some(8))));
    assert_eq!((world.status(), world.endings.len()), (Some(Status::Up), 0));
}

#[test]
fn a_clock_that_is_set_back_does_not_turn_the_window_of_an_unheard_end_round() {
    let mut world = World::new();
    world.tell(Input::LinkUp(listing(DomainState::Running, Some(8))));
    world.lose_link();
    let back = Now { wall: Wall::from_millis(5_000), ..world.now() };
    let shown = listing(DomainState::ShutOff(ShutOffReason::Unknown), None);
    for input in
        [Input::LinkUp(shown), Input::Answered(Answer::Remains { run: RunId(1), view: None, facts: vec![] })]
    {
        for effect in world.engine.step(back, input) {
            if let Effect::Keep(Keep::Ending(ending)) = effect {
                world.endings.push(Arc::unwrap_or_clone(ending));
            }
        }
    }
    let When::Between(from, to) = world.endings[0].ended else { panic!("{:?}", world.endings) };
    assert!(from <= to, "{from:?} {to:?}");
}

#[test]
fn years_of_gaps_and_ever_new_texts_leave_room_for_the_end() {
    let mut world = World::new();
    world.tell(Input::LinkUp(listing(DomainState::Running, Some(8))));
    for round in 0..300 {
        world.lose_link();
        world.pass(1_000);
        world.tell(Input::LinkUp(listing(DomainState::Running, Some(8))));
        world.wants(Wanted::Shutdown { domain: VM, again: false, agent_first: None, force_after: None });
        world.acted(1, OperationKind::Shutdown, Outcome::Refused(format!("refused for the {round}th time")));
    }
    assert!(matches!(world.engine.snapshot().link, Link::Up));
    world.heard(Happening::QemuPanicked);
    world.heard(Happening::Stopped(StopDetail::Crashed));
    world.no_remains(1);
    let ending = &world.endings[0];
    assert_eq!(ending.verdict.cause, Cause::GuestPanic);
    assert!(ending.evidence.len() < limits::FACTS_PER_RUN, "{}", ending.evidence.len());
    let last = ending.evidence.iter().filter_map(|piece| match piece.fact {
        Fact::Gap { to, why: Deaf::LinkLost, .. } => Some(to),
        _ => None,
    });
    assert!(
        world.now().wall.since(last.max().unwrap_or_default()) < Duration::from_secs(1),
        "the last gap is there"
    );
}

#[test]
fn what_is_found_starting_is_looked_at_again_and_ends_where_its_start_was_given_up() {
    let mut world = recovered(Recovered::default());
    let starting = DomainState::Paused(crate::hypervisor::PauseReason::StartingUp);
    world.tell(Input::LinkUp(listing(starting, Some(1))));
    assert_eq!(world.status(), Some(Status::Launching));
    world.pass(31_000);
    assert!(
        matches!(world.asked.last(), Some(Question::Look { domain }) if *domain == VM),
        "{:?}",
        world.asked
    );
    let view = Some(Some(view(DomainState::ShutOff(ShutOffReason::Unknown), None)));
    world.tell(Input::Answered(Answer::Looked { domain: VM, view }));
    world.pass(6_000);
    assert_eq!(world.endings.len(), 1);
    assert_eq!(world.status(), Some(Status::Down));
}
