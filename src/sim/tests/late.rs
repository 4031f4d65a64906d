//! Proof that comes after an ending was told: it corrects what was probable, never what was certain, and never the exit
//! code.

use std::time::Duration;

use whydown_core::cause::Cause;
use whydown_core::evidence::{ExitStatus, Fact, LogWord, Sender};
use whydown_core::hypervisor::{DomainState, ShutOffReason};
use whydown_core::id::RunId;
use whydown_core::lifecycle::{Answer, Effect, Input, Subject};
use whydown_core::limits;
use whydown_core::record::{Certainty, Ending, Keep};
use whydown_core::snapshot::Status;
use whydown_sim::ledger::Disk;
use whydown_sim::step::{Start, Step, domain};
use whydown_sim::ways::Way;
use whydown_sim::world::{Answers, Trace, World};

const RUN: RunId = RunId(1);

/// A host with a daemon that listens, and one VM that has been up for a while.
fn world() -> World {
    let mut world = World::new();
    world.start_daemon();
    world.regain_link();
    world.take(&Step::Start(0, Start::Booted));
    world.take(&Step::Pass(200_000));
    world
}

fn pid(world: &World) -> u32 {
    world.hypervisor.life(domain(0)).expect("it runs").process.pid
}

fn killed_by_somebody() -> Fact {
    Fact::Signalled {
        signal: 9,
        code: 0,
        pid: 1407,
        program: "bash".into(),
        sender: Sender::Outside,
        audit: None,
    }
}

/// Somebody kills it, and nobody sees who.
fn kill(world: &mut World) {
    world.take(&Step::Befall(0, Way::Killed));
    let life = world.hypervisor.life_mut(domain(0)).expect("it runs");
    life.way = Some(Way::KilledInSight);
}

/// The killer becomes known this long after the kill was told.
fn killer_becomes_known(world: &mut World, pid: u32, after: Duration) {
    let killed = world.now().wall;
    world.pass(after);
    world.tell_as_witness(Subject::Pid(pid), killed, killed_by_somebody());
    world.pass(Duration::from_secs(1));
}

fn libvirt_forgets_why(world: &mut World) {
    let domain = world.hypervisor.domains.get_mut(&domain(0)).expect("it is defined");
    domain.state = DomainState::ShutOff(ShutOffReason::Unknown);
}

fn told(world: &World) -> Ending {
    world.ledger.endings().get(&RUN).expect("it has ended").clone()
}

fn shown(world: &World) -> Option<Ending> {
    let snapshot = world.snapshot().expect("there is a daemon");
    let public = snapshot.domains.get(&domain(0))?;
    assert_eq!(public.status, Status::Down);
    public.ending.as_deref().cloned()
}

fn nothing_broken(world: &mut World) {
    world.heal(Duration::from_secs(200));
    assert_eq!(world.wrong_at_rest(), Vec::<String>::new());
}

#[test]
fn a_sender_that_becomes_known_later_corrects_the_kill_and_both_are_kept() {
    let mut world = world();
    let pid = pid(&world);
    kill(&mut world);
    world.pass(Duration::from_millis(1));
    killer_becomes_known(&mut world, pid, Duration::from_secs(20));
    let ending = told(&world);
    assert_eq!((ending.verdict.cause, ending.verdict.certainty), (Cause::ProcessKilled, Certainty::Certain));
    assert_eq!((ending.revision(), ending.verdict.row.as_str()), (1, "E5"));
    let first = &ending.earlier[0];
    assert_eq!((first.verdict.row.as_str(), first.verdict.certainty), ("F10", Certainty::Probable));
    let told_first: Vec<Ending> = world.ledger.told_of(RUN).cloned().collect();
    assert_eq!(told_first[0].evidence, ending.evidence_of(0));
    assert_eq!(told_first[0].exit_code, ending.exit_code);
    assert_eq!(shown(&world), Some(ending));
    nothing_broken(&mut world);
}

#[test]
fn what_was_certain_is_never_corrected() {
    let mut world = world();
    let pid = pid(&world);
    world.take(&Step::Befall(0, Way::KilledInSight));
    world.pass(Duration::from_secs(2));
    let certain = told(&world);
    assert_eq!(certain.verdict.certainty, Certainty::Certain);
    let line = format!("oom-kill: task=qemu-system-x86, pid={pid}");
    world.tell_as_witness(Subject::Pid(pid), certain.ended.latest(), Fact::OomKilled { line });
    world.pass(Duration::from_secs(2));
    assert_eq!(told(&world), certain);
    nothing_broken(&mut world);
}

#[test]
fn a_kernels_line_about_the_next_owner_of_the_number_is_not_about_the_ended_run() {
    let mut world = world();
    let pid = pid(&world);
    kill(&mut world);
    world.pass(Duration::from_secs(20));
    let line = format!("oom-kill: task=somebody-else, pid={pid}");
    let now = world.now().wall;
    world.tell_as_witness(Subject::Pid(pid), now, Fact::OomKilled { line });
    world.pass(Duration::from_secs(2));
    assert_eq!((told(&world).revision(), told(&world).verdict.cause), (0, Cause::ProcessKilled));
    nothing_broken(&mut world);
}

#[test]
fn a_log_that_could_not_be_read_is_read_again_and_the_exit_code_stays() {
    let mut world = world();
    world.take(&Step::Crash);
    // The guest goes off while nobody listens, and libvirt forgets why.
    world.take(&Step::Befall(0, Way::Terminated));
    world.pass(Duration::from_secs(5));
    libvirt_forgets_why(&mut world);
    world.answers = Answers::None(Duration::from_millis(3));
    world.start_daemon();
    world.regain_link();
    world.pass(Duration::from_secs(6));
    let first = told(&world);
    assert_eq!(first.verdict.certainty, Certainty::Unknown, "{first:?}");
    world.answers = Answers::After(Duration::from_millis(3));
    world.pass(Duration::from_secs(60));
    let ending = told(&world);
    assert_eq!(ending.verdict.cause, Cause::ProcessTerminated);
    assert_eq!((ending.revision(), ending.exit_code), (1, first.exit_code));
    assert!(ending.evidence.iter().any(|e| matches!(e.fact, Fact::LogEnd { word: LogWord::Shutdown, .. })));
    nothing_broken(&mut world);
}

#[test]
fn where_the_true_cause_has_another_exit_code_managers_keep_the_numbers_that_they_were_told() {
    let mut world = world();
    world.take(&Step::Crash);
    world.take(&Step::Befall(0, Way::GuestPoweroff));
    world.pass(Duration::from_secs(5));
    libvirt_forgets_why(&mut world);
    world.answers = Answers::None(Duration::from_millis(3));
    world.start_daemon();
    world.regain_link();
    world.pass(Duration::from_secs(6));
    let first = told(&world);
    assert_eq!((first.verdict.cause, first.exit_code), (Cause::UnknownEnded, 1));
    world.answers = Answers::After(Duration::from_millis(3));
    world.pass(Duration::from_secs(60));
    let ending = told(&world);
    assert_eq!(ending.verdict.cause, Cause::GuestPoweroff, "{ending:?}");
    assert_eq!((ending.exit_code, ending.exit_reason), (1, first.exit_reason));
    assert_eq!(ending.numbers_of(), Cause::UnknownEnded);
    assert_eq!(ending.message, Cause::GuestPoweroff.row().message);
    nothing_broken(&mut world);
}

#[test]
fn a_correction_is_shown_when_it_is_on_disk_and_a_crash_before_that_leaves_the_first_answer() {
    let mut world = world();
    let pid = pid(&world);
    kill(&mut world);
    world.pass(Duration::from_secs(2));
    let (first, at) = (told(&world), world.now().wall);
    world.disk = Disk::Fails;
    world.tell_as_witness(Subject::Pid(pid), first.ended.latest(), killed_by_somebody());
    world.pass(Duration::from_secs(3));
    let wanted = |t: &Trace| matches!(t, Trace::Wanted(Effect::Keep(Keep::Revised(_))));
    assert!(world.trace().iter().any(wanted), "the proof was taken in");
    assert_eq!((shown(&world), told(&world)), (Some(first.clone()), first.clone()), "{at:?}");
    world.take(&Step::Crash);
    world.disk = Disk::Works(Duration::from_millis(2));
    world.start_daemon();
    world.regain_link();
    world.pass(Duration::from_secs(1));
    assert_eq!((shown(&world), told(&world)), (Some(first.clone()), first.clone()));
    // Said again, as a log that is read again says it: the daemon after the crash still knows the run.
    world.tell_as_witness(Subject::Pid(pid), first.ended.latest(), killed_by_somebody());
    world.pass(Duration::from_secs(1));
    assert_eq!((told(&world).revision(), told(&world).verdict.row.as_str()), (1, "E5"));
    nothing_broken(&mut world);
}

#[test]
fn an_acknowledged_ending_is_corrected_in_history_and_stays_acknowledged() {
    let mut world = world();
    let pid = pid(&world);
    kill(&mut world);
    world.pass(Duration::from_secs(2));
    world.take(&Step::Destroy(0));
    world.pass(Duration::from_secs(1));
    assert_eq!(shown(&world), None);
    let at = told(&world).ended.latest();
    world.tell_as_witness(Subject::Pid(pid), at, killed_by_somebody());
    world.pass(Duration::from_secs(1));
    assert_eq!((told(&world).revision(), shown(&world)), (1, None));
    let corrected = |t: &Trace| matches!(t, Trace::Wanted(Effect::Corrected(ending)) if ending.run == RUN);
    assert!(world.trace().iter().any(corrected), "readers of the stream hear of it");
    nothing_broken(&mut world);
}

#[test]
fn proof_is_taken_in_for_a_while_and_so_often_only() {
    let mut world = world();
    let pid = pid(&world);
    kill(&mut world);
    world.pass(Duration::from_secs(2));
    let first = told(&world);
    world.pass(limits::LATE_PROOF + Duration::from_secs(60));
    world.tell_as_witness(Subject::Pid(pid), first.ended.latest(), killed_by_somebody());
    world.pass(Duration::from_secs(1));
    assert_eq!(told(&world), first);
    nothing_broken(&mut world);
}

#[test]
fn an_exit_status_that_comes_after_the_answer_corrects_it() {
    let mut world = world();
    let process = world.hypervisor.life(domain(0)).expect("it runs").process;
    world.witness_delay = Duration::from_secs(3);
    kill(&mut world);
    world.pass(Duration::from_secs(2));
    let first = told(&world);
    assert_eq!(first.verdict.cause, Cause::ProcessLost, "{first:?}");
    world.pass(Duration::from_secs(2));
    let ending = told(&world);
    assert_eq!((ending.verdict.cause, ending.revision()), (Cause::ProcessKilled, 1));
    assert_eq!((ending.exit_code, ending.ended), (first.exit_code, first.ended));
    // A process ends once.
    let at = world.now().wall;
    world.tell_as_witness(Subject::Process(process), at, Fact::Exit(ExitStatus::Code(0)));
    world.pass(Duration::from_secs(1));
    assert_eq!(told(&world), ending);
    nothing_broken(&mut world);
}

#[test]
fn what_the_remains_say_after_the_patience_for_them_is_over_still_counts() {
    let mut world = world();
    world.take(&Step::Crash);
    world.take(&Step::Befall(0, Way::Terminated));
    world.pass(Duration::from_secs(5));
    libvirt_forgets_why(&mut world);
    world.answers = Answers::After(Duration::from_secs(4));
    world.start_daemon();
    world.regain_link();
    world.pass(Duration::from_secs(60));
    let late = |t: &Trace| matches!(t, Trace::Told(_, Input::Answered(Answer::Remains { run: RUN, .. })));
    assert!(world.trace().iter().any(late));
    let ending = told(&world);
    assert_eq!((ending.verdict.cause, ending.revision()), (Cause::ProcessTerminated, 1), "{ending:?}");
    nothing_broken(&mut world);
}
