//! What is answered binds the daemons that follow: force that is to follow a shutdown, and a destroy that is done.

use super::faults::{boot, listing, open_run, recovered};
use super::*;
use crate::evidence::OperationKind;
use crate::hypervisor::DomainState;

const ASKED_MS: i64 = 999_000;

fn asked(within_ms: Option<u64>) -> Vec<(i64, Fact)> {
    let who = || "tester".to_owned();
    let mut facts = vec![(ASKED_MS, Fact::Requested { what: OperationKind::Shutdown, who: who() })];
    facts.push((ASKED_MS, Fact::ForceFollows { within_ms: Some(3_000), who: who() }));
    if within_ms.is_none() {
        facts.push((ASKED_MS + 10, Fact::ForceFollows { within_ms: None, who: who() }));
    }
    facts
}

/// When it is forced off after a restart a second later, in milliseconds; it is up all the time.
fn forced_after(facts: &[(i64, Fact)]) -> Option<u64> {
    let mut world = recovered(open_run(boot(), facts));
    world.tell(Input::LinkUp(listing(DomainState::Running, Some(1))));
    (0..100).find_map(|tenth| {
        world.pass(100);
        (world.acts(OperationKind::ForceOff) > 0).then_some((tenth + 1) * 100)
    })
}

#[test]
fn force_that_was_answered_follows_after_a_restart_and_what_was_called_off_does_not() {
    assert_eq!(forced_after(&asked(Some(3_000))), Some(2_000), "a second had passed");
    assert_eq!(forced_after(&asked(None)), None);
    assert_eq!(forced_after(&asked(Some(3_000))[..1]), None, "without force");
    // The clock was set back since: later than it was to, and no later than its whole time.
    let ahead: Vec<_> = asked(Some(3_000)).into_iter().map(|(at, fact)| (at + 9_000_000, fact)).collect();
    assert_eq!(forced_after(&ahead), Some(3_000));
}

#[test]
fn what_is_answered_as_shutting_down_has_its_force_on_record() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    let force_after = Some(Duration::from_millis(3_000));
    world.wants(Wanted::Shutdown { domain: VM, again: false, agent_first: None, force_after });
    let record = |world: &World| -> Vec<Option<u64>> {
        let run = world.engine.runs.values().next().expect("it runs");
        let of_it = run.dossier.items().iter().filter_map(|e| match e.fact {
            Fact::ForceFollows { within_ms, .. } => Some(within_ms),
            _ => None,
        });
        of_it.collect()
    };
    assert_eq!(record(&world), [Some(3_000)]);
    // Who asked is told that nobody knows: nothing is owed.
    world.tell(Input::Answered(Answer::Performed {
        run: RunId(1),
        request: None,
        what: OperationKind::Shutdown,
        outcome: Outcome::NoLink,
    }));
    assert_eq!(record(&world), [Some(3_000), None]);
}

/// Taken back once: the refusal was on disk, and the daemon that followed showed the VM as Down.
#[test]
fn a_destroy_that_libvirt_refused_is_answered_when_the_run_is_acknowledged_on_disk() {
    let refused = || {
        let mut world = World::new();
        world.tell(Input::LinkUp(listing(DomainState::Running, Some(8))));
        world.wants(Wanted::Do { domain: VM, act: Operation::Destroy });
        let (run, what, outcome) = (RunId(1), OperationKind::Destroy, Outcome::NoDomain);
        world.tell(Input::Answered(Answer::Performed { run, request: None, what, outcome }));
        world
    };
    let looked = |view| Input::Answered(Answer::Looked { domain: VM, view: Some(view) });
    let told = |world: &World| (world.replies.clone(), world.endings.len(), world.status());
    // Its end comes by an event, or is found.
    for heard in [true, false] {
        let mut world = refused();
        if heard {
            world.heard(Happening::Stopped(StopDetail::Failed));
        } else {
            world.pass(3_000);
            assert_eq!(told(&world), (vec![], 0, Some(Status::Up)), "nobody knows whether it is gone");
            world.tell(looked(None));
        }
        assert_eq!(world.replies, [], "a daemon that begins now would show it");
        world.absent(10_000);
        assert_eq!(told(&world), (vec![Reply::Done], 1, None));
    }
    // It is there after all.
    let mut world = refused();
    world.pass(3_000);
    world.tell(looked(listing(DomainState::Running, Some(8)).domains.pop()));
    assert_eq!((world.acts(OperationKind::Destroy), told(&world)), (2, (vec![], 0, Some(Status::Up))));
}
