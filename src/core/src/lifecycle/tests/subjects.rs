//! What is observed belongs to one run, whatever it is observed of.

use super::*;
use crate::id::DomainId;

fn oom() -> Fact {
    Fact::OomKilled { line: "x".into() }
}

/// The runs of the facts that were handed to the ledger as evidence.
fn runs_told(world: &World) -> Vec<RunId> {
    world.evidence.iter().filter(|(_, fact)| *fact == oom()).map(|(run, _)| *run).collect()
}

#[test]
fn what_is_observed_of_a_domain_belongs_to_the_run_of_that_moment() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    let first = world.now().wall;
    world.pass(60_000);
    world.heard(Happening::Stopped(StopDetail::Migrated));
    world.pass(60_000);
    let between = world.now().wall;
    world.pass(60_000);
    world.heard(Happening::Started(StartDetail::Booted));
    let before_all = first.before(std::time::Duration::from_secs(3600));
    for (of, at, told) in [
        (VM, world.now().wall, vec![RunId(2)]),
        // The ending of the first is certain: it is told, and needs no more.
        (VM, first, vec![]),
        (VM, between, vec![]),
        (VM, before_all, vec![]),
        (DomainId::from_bytes([9; 16]), world.now().wall, vec![]),
    ] {
        world.evidence.clear();
        world.tell(Input::Observed { subject: Subject::Domain(of), at, fact: oom() });
        assert_eq!(runs_told(&world), told, "{of} at {at:?}");
    }
    world.evidence.clear();
    let at = world.now().wall;
    world.tell(Input::Observed { subject: Subject::Run(RunId(1)), at, fact: oom() });
    assert_eq!(runs_told(&world), [], "it is over");
    world.tell(Input::Observed { subject: Subject::Run(RunId(3)), at, fact: oom() });
    assert_eq!(runs_told(&world), [], "there is none");
}

#[test]
fn what_is_observed_late_of_a_domain_corrects_the_run_that_it_is_about() {
    let mut world = World::new();
    world.heard(Happening::Started(StartDetail::Booted));
    world.pass(60_000);
    let died = world.now().wall;
    world.heard(Happening::Stopped(StopDetail::Failed));
    world.tell(Input::Answered(Answer::Remains { run: RunId(1), view: Some(None), facts: vec![] }));
    world.pass(10_000);
    assert_eq!(world.endings[0].verdict.cause, Cause::ProcessLost);
    world.heard(Happening::Started(StartDetail::Booted));
    world.tell(Input::Observed { subject: Subject::Domain(VM), at: died, fact: oom() });
    let corrected = world.revisions.last().expect("it is corrected");
    assert_eq!((corrected.run, corrected.verdict.cause), (RunId(1), Cause::OomKilled));
    assert_eq!(runs_told(&world), [], "the run that goes on knows nothing of it");
}
