//! Starts by others that fail.

use super::*;
use crate::hypervisor::{DomainState, DomainView, PauseReason, ShutOffReason};
use crate::operation::Operation;

fn domain() -> DomainRef {
    DomainRef { id: VM, name: "vm".into(), libvirt_id: None }
}

fn view(state: DomainState) -> DomainView {
    DomainView { domain: domain(), state, persistent: true, managed_save: Some(false), process: None }
}

impl World {
    fn start_failed(&mut self, before_ms: u64, why: &str) {
        let at = Wall::from_millis((self.ms - before_ms) as i64);
        let facts =
            vec![(at, Fact::StartFailed { told_by: "libvirt".into() }), (at, Fact::StartTrouble(why.into()))];
        self.tell(Input::StartFailed(FailedStart { domain: domain(), at, began: None, facts }));
    }
}

#[test]
fn each_failed_start_is_told_once_however_often_it_is_heard_of() {
    let mut world = World::new();
    world.start_failed(2_000, "no disk");
    let ending = &world.endings[0];
    assert_eq!((ending.verdict.cause, ending.message.as_str()), (Cause::StartFailed, "no disk"));
    assert_eq!(ending.ended, crate::record::When::At(Wall::from_millis(world.ms as i64 - 2_000)));
    world.pass(10_000);
    world.start_failed(12_000, "no disk");
    world.start_failed(11_500, "the same, as another witness dates it");
    assert_eq!(world.endings.len(), 1);
    world.start_failed(500, "no network");
    assert_eq!(world.endings.len(), 2);
    assert_eq!(world.status(), Some(Status::Down));
}

#[test]
fn a_start_through_us_that_is_refused_is_no_failed_start_of_others() {
    let mut world = World::new();
    world.wants(Wanted::Do {
        domain: VM,
        act: Operation::Create { name: "vm".into(), xml: "<domain/>".into(), made: None, paused: false },
    });
    world.start_failed(0, "no disk");
    assert_eq!((world.endings.len(), world.status()), (0, Some(Status::Launching)));
    world.pass(300);
    let outcome = Outcome::Refused("no disk".into());
    let what = crate::operation::OperationKind::Create;
    world.tell(Input::Answered(Answer::Performed { run: RunId(1), request: None, what, outcome }));
    world.tell(Input::Answered(Answer::Remains { run: RunId(1), view: Some(None), facts: vec![] }));
    world.pass(3_000);
    world.start_failed(3_100, "no disk");
    assert_eq!(world.endings.len(), 1);
}

#[test]
fn a_run_that_goes_on_has_no_failed_start() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    world.start_failed(0, "it was a moment ago");
    assert_eq!((world.endings.len(), world.status()), (0, Some(Status::Up)));
}

#[test]
fn a_start_that_libvirt_still_clears_up_after_ends_all_the_same() {
    for told in [false, true] {
        let mut world = World::new();
        world.heard(Happening::ControlError);
        let starting = view(DomainState::Paused(PauseReason::StartingUp));
        let starting = DomainView { domain: DomainRef { libvirt_id: Some(4), ..domain() }, ..starting };
        world.tell(Input::Answered(Answer::Remains {
            run: RunId(1),
            view: Some(Some(starting)),
            facts: vec![],
        }));
        assert_eq!(world.endings.len(), 0);
        let off = view(DomainState::ShutOff(ShutOffReason::Failed));
        if told {
            world.pass(1_000);
            world.start_failed(900, "no port");
        } else {
            world.pass(2_500);
            assert!(world.asked.contains(&Question::Look { domain: VM }));
            world.tell(Input::Answered(Answer::Looked { domain: VM, view: Some(Some(off.clone())) }));
            world.tell(Input::Answered(Answer::Remains {
                run: RunId(1),
                view: Some(Some(off)),
                facts: vec![],
            }));
        }
        let cause = if told { Cause::StartFailed } else { Cause::StartFailedSilent };
        assert_eq!(world.endings.iter().map(|e| e.verdict.cause).collect::<Vec<_>>(), [cause]);
    }
}

#[test]
fn why_a_start_failed_may_be_read_later_and_corrects_what_was_told_once() {
    let mut world = World::new();
    let failed = |world: &mut World, before_ms: u64, why: Option<&str>| {
        let at = Wall::from_millis((world.ms - before_ms) as i64);
        let mut facts = vec![(at, Fact::StartFailed { told_by: "libvirt".into() })];
        facts.extend(why.map(|why| (at, Fact::StartTrouble(why.into()))));
        world.tell(Input::StartFailed(FailedStart { domain: domain(), at, began: None, facts }));
    };
    failed(&mut world, 0, None);
    let told = world.endings.last().expect("it is told").clone();
    assert_eq!((told.verdict.cause, told.exit_code), (Cause::StartFailedSilent, 1));
    world.pass(30_000);
    // Of a start at another moment it says nothing.
    failed(&mut world, 45_000, Some("another"));
    assert_eq!((world.revisions.len(), world.endings.len()), (0, 2));
    failed(&mut world, 30_000, Some("no disk"));
    let [revised] = &world.revisions[..] else { panic!("{:?}", world.revisions) };
    assert_eq!((revised.verdict.cause, revised.message.as_str()), (Cause::StartFailed, "no disk"));
    assert_eq!((revised.exit_code, revised.run, revised.revision()), (1, told.run, 1));
    // Once.
    failed(&mut world, 30_000, Some("no network"));
    assert_eq!((world.revisions.len(), world.endings.len()), (1, 2));
    // That and nothing else is why of a start that nobody remembers is nobody's.
    let facts = vec![(Wall::from_millis(1_000), Fact::StartTrouble("no port".into()))];
    let at = Wall::from_millis(1_000);
    world.tell(Input::StartFailed(FailedStart { domain: domain(), at, began: None, facts }));
    assert_eq!((world.revisions.len(), world.endings.len()), (1, 2));
}

/// As QEMU's log tells of a start: when QEMU began, if it did, and when libvirt gave it up.
fn in_the_log(world: &World, began_ago: Option<u64>, ago: u64, why: &str) -> Input {
    let moment = |ago: u64| Wall::from_millis((world.ms - ago) as i64);
    let at = moment(ago);
    let facts = vec![
        (at, Fact::StartFailed { told_by: "libvirt's farewell".into() }),
        (at, Fact::LogEnd { word: crate::evidence::LogWord::Failed, at: Some(at) }),
        (at, Fact::LogText(why.into())),
    ];
    Input::StartFailed(FailedStart { domain: domain(), at, began: began_ago.map(moment), facts })
}

fn moments(world: &World) -> Vec<(i64, &str)> {
    let now = world.ms as i64;
    world.endings.iter().map(|e| (now - e.ended.latest().as_millis(), e.message.as_str())).collect()
}

#[test]
fn several_starts_that_failed_in_a_row_are_told_each_with_its_own_moment_and_words() {
    let mut world = World::new();
    for (ago, why) in [(2_500, "first"), (2_400, "second"), (900, "third")] {
        let input = in_the_log(&world, Some(ago + 50), ago, why);
        world.tell(input);
    }
    assert_eq!(moments(&world), [(2_500, "first"), (2_400, "second"), (900, "third")]);
    // However often.
    for (ago, why) in [(2_500, "first"), (2_400, "second"), (900, "third")] {
        let input = in_the_log(&world, Some(ago + 50), ago, why);
        world.tell(input);
    }
    assert_eq!((world.endings.len(), world.status()), (3, Some(Status::Down)));
    let shown = world.engine.snapshot().domains[&VM].clone();
    assert_eq!(shown.ending.as_ref().map(|ending| ending.message.as_str()), Some("third"));
}

#[test]
fn a_start_that_failed_before_one_that_works_is_told_in_history_and_leaves_that_run_alone() {
    let mut world = World::new();
    world.pass(5_000);
    world.heard(Happening::Started(StartDetail::Booted));
    world.pass(2_000);
    let shown = world.engine.snapshot().domains[&VM].clone();
    let input = in_the_log(&world, None, 2_600, "no disk");
    world.tell(input.clone());
    world.tell(input);
    let [ending] = &world.endings[..] else { panic!("{:?}", world.endings) };
    assert_eq!((ending.verdict.cause, ending.was_told_later()), (Cause::StartFailed, true));
    assert!(ending.started <= ending.ended.earliest() && ending.run != shown.run);
    assert_eq!(world.engine.snapshot().domains[&VM], shown);
    // What becomes of the run, and its own words in the log, are about itself.
    world.heard(Happening::Stopped(StopDetail::Failed));
    world.tell(Input::Answered(Answer::Remains { run: shown.run, view: Some(None), facts: vec![] }));
    world.pass(1_000);
    let input = in_the_log(&world, Some(4_000), 990, "of the run");
    world.tell(input);
    assert_eq!(world.endings.len(), 2);
    assert_eq!(world.endings[1].run, shown.run);
    // And one that is found when that run is over takes nothing from what is shown of it.
    let input = in_the_log(&world, None, 3_900, "no network");
    world.tell(input);
    assert_eq!(world.endings.len(), 3);
    assert!(world.endings[2].was_told_later());
    assert_eq!(world.engine.snapshot().domains[&VM].run, shown.run);
}

#[test]
fn a_start_of_which_the_monitors_error_was_heard_is_over_when_another_one_is_heard_of() {
    for comes_up in [false, true] {
        let mut world = World::new();
        let numbered = |world: &mut World, libvirt_id, what| {
            world.ms += 1;
            let domain = DomainRef { libvirt_id: Some(libvirt_id), ..domain() };
            world.tell(Input::Host(HostEvent { domain, at: world.now().wall, what, process: None }));
        };
        numbered(&mut world, 4, Happening::ControlError);
        let second = if comes_up { Happening::Started(StartDetail::Booted) } else { Happening::ControlError };
        numbered(&mut world, 5, second);
        world.tell(Input::Answered(Answer::Remains { run: RunId(1), view: Some(None), facts: vec![] }));
        let off = view(DomainState::ShutOff(ShutOffReason::Failed));
        if !comes_up {
            world.tell(Input::Answered(Answer::Remains {
                run: RunId(2),
                view: Some(Some(off)),
                facts: vec![],
            }));
        }
        let causes: Vec<_> = world.endings.iter().map(|e| (e.run, e.verdict.cause)).collect();
        let failed = |run| (RunId(run), Cause::StartFailedSilent);
        match comes_up {
            true => assert_eq!((causes, world.status()), (vec![failed(1)], Some(Status::Up))),
            false => assert_eq!((causes, world.status()), (vec![failed(1), failed(2)], Some(Status::Down))),
        }
    }
}

#[test]
fn a_domain_that_is_started_in_vain_for_ever_fills_no_memory() {
    let mut world = World::new();
    for _ in 0..3_000 {
        world.pass(100);
        let input = in_the_log(&world, None, 10, "no disk");
        world.tell(input);
    }
    assert_eq!(world.endings.len(), 3_000);
    assert!(world.engine.remembers_failed_starts() <= 64);
    assert!(world.endings.iter().all(|ending| !ending.was_told_later()));
}

#[test]
fn no_run_begins_after_its_end() {
    let mut world = World::new();
    let process = crate::hypervisor::Process { pid: 9, start_ticks: 1 };
    let at = world.now().wall;
    let fact = Fact::Exit(crate::evidence::ExitStatus::Signal(15));
    world.tell(Input::Observed { subject: Subject::Starting(VM, process), at, fact });
    world.ms += 40;
    world.heard(Happening::ControlError);
    let off = view(DomainState::ShutOff(ShutOffReason::Failed));
    world.tell(Input::Answered(Answer::Remains { run: RunId(1), view: Some(Some(off)), facts: vec![] }));
    world.pass(10_000);
    let [ending] = &world.endings[..] else { panic!("{:?}", world.endings) };
    assert!(ending.started <= ending.ended.earliest(), "{ending:?}");
    assert_eq!((ending.verdict.row.as_str(), ending.exit_code), ("B12", 1));
    assert_eq!(ending.message, "QEMU was ended while it started: the process was killed by signal 15");
}
