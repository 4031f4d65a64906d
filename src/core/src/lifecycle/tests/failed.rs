//! Starts by others that fail.

use super::*;
use crate::hypervisor::{DomainState, DomainView, PauseReason, ShutOffReason};

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
        self.tell(Input::StartFailed { domain: domain(), at, facts });
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
    world.wants(Wanted::Create {
        domain: VM,
        name: "vm".into(),
        xml: "<domain/>".into(),
        made: None,
        paused: false,
    });
    world.start_failed(0, "no disk");
    assert_eq!((world.endings.len(), world.status()), (0, Some(Status::Launching)));
    world.pass(300);
    let outcome = Outcome::Refused("no disk".into());
    let what = crate::evidence::Asked::Create;
    world.tell(Input::Answered(Answer::Acted { run: RunId(1), what, outcome }));
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
        world.tell(Input::StartFailed { domain: domain(), at, facts });
    };
    failed(&mut world, 0, None);
    let told = world.endings.last().expect("it is told").clone();
    assert_eq!((told.verdict.cause, told.exit_code), (Cause::StartFailedSilent, 1));
    world.pass(30_000);
    // Of a start at another moment it says nothing.
    failed(&mut world, 45_000, Some("another"));
    assert_eq!(world.revisions.len(), 0);
    failed(&mut world, 30_000, Some("no disk"));
    let [revised] = &world.revisions[..] else { panic!("{:?}", world.revisions) };
    assert_eq!((revised.verdict.cause, revised.message.as_str()), (Cause::StartFailed, "no disk"));
    assert_eq!((revised.exit_code, revised.run, revised.revision()), (1, told.run, 1));
    // Once.
    failed(&mut world, 30_000, Some("no network"));
    assert_eq!((world.revisions.len(), world.endings.len()), (1, 1));
}
