//! Starts of which libvirt's answer is lost: with a daemon before this one, or with the link. libvirt goes on with them.

use super::*;
use crate::evidence::{Evidence, OperationKind};
use crate::log::{Log, LogBlock};
use crate::operation::Operation;
use crate::record::{Incarnation, RunStart};

const ASKED_MS: i64 = 999_000;

/// The daemon before was asked to create it and answered, and was killed a second ago.
fn asked_for(driver_inside: bool) -> World {
    begun_by(&[OperationKind::Create], driver_inside)
}

/// The same with all that it was asked for.
fn begun_by(operations: &[OperationKind], driver_inside: bool) -> World {
    let at = Wall::from_millis(ASKED_MS);
    let requested = |what: &OperationKind| {
        let fact = Fact::Requested { what: *what, who: "tester".into() };
        Evidence { first: at, last: at, times: 1, fact }
    };
    let start = RunStart {
        run: RunId(1),
        domain: VM,
        name: "vm".into(),
        at,
        seen: true,
        incarnation: Incarnation { libvirt_id: None, process: None, boot: settings().boot },
    };
    let recovered = Recovered {
        open: vec![(start, operations.iter().map(requested).collect())],
        last_run: 1,
        alive: Some(at),
        ..Recovered::default()
    };
    let settings = Settings { driver_inside, ..settings() };
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

impl World {
    fn listed_without_it(&mut self) {
        self.tell(Input::LinkUp(Listing::default()));
    }

    /// Whoever looks for it does not find it; so it goes on for a while.
    pub(super) fn absent(&mut self, ms: u64) {
        for _ in 0..ms / 1000 {
            self.pass(1000);
            for question in std::mem::take(&mut self.asked) {
                match question {
                    Question::Look { domain } => {
                        self.tell(Input::Answered(Answer::Looked { domain, view: Some(None) }));
                    }
                    Question::Remains { run, .. } => {
                        self.tell(Input::Answered(Answer::Remains { run, view: Some(None), facts: vec![] }));
                    }
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn a_start_that_libvirt_is_still_at_when_the_daemon_comes_back_is_no_end() {
    let mut world = asked_for(false);
    world.listed_without_it();
    assert_eq!(world.status(), Some(Status::Launching));
    world.absent(40_000);
    assert_eq!((world.status(), world.endings.len()), (Some(Status::Launching), 0));
    world.heard(Happening::Started(StartDetail::Booted));
    assert_eq!(world.status(), Some(Status::Up));
    world.heard(Happening::QemuShutdown { guest: true, reason: QemuReason::GuestShutdown });
    world.heard(Happening::ShutdownBegan(ShutdownDetail::Guest));
    world.heard(Happening::Stopped(StopDetail::Shutdown));
    world.absent(2_000);
    let told: Vec<_> = world.endings.iter().map(|ending| (ending.run, ending.verdict.cause)).collect();
    assert_eq!(told, [(RunId(1), Cause::GuestPoweroff)], "it is the run that was asked for");
}

#[test]
fn a_start_that_never_comes_is_over_when_libvirt_has_had_its_time() {
    let mut world = asked_for(false);
    world.listed_without_it();
    world.absent(80_000);
    assert_eq!(world.endings.len(), 1);
    assert_ne!(world.endings[0].verdict.certainty, Certainty::Certain);
    assert_eq!(world.status(), Some(Status::Down));
}

#[test]
fn a_start_that_came_up_and_ended_meanwhile_is_over_at_once() {
    let mut world = asked_for(false);
    let at = Wall::from_millis(ASKED_MS + 200);
    let end = Fact::LogEnd { word: crate::evidence::LogWord::Shutdown, at: Some(at) };
    let block = LogBlock {
        name: "vm".into(),
        domain: Some(VM),
        began: Some(at),
        incoming: false,
        from_snapshot: false,
        first: Some(at),
        last: Some(at),
        ended: Some(at),
        facts: vec![(at, end)],
    };
    world.tell(Input::Past(vec![Log { name: "vm".into(), blocks: vec![block], unread: None }]));
    world.listed_without_it();
    world.absent(6_000);
    assert_eq!(world.endings.len(), 1);
}

#[test]
fn a_start_that_was_asked_of_a_driver_inside_a_dead_daemon_is_over_at_once() {
    let mut world = asked_for(true);
    world.listed_without_it();
    world.absent(6_000);
    assert_eq!(world.endings.len(), 1);
}

#[test]
fn a_start_outlives_the_link_by_which_it_was_asked_for() {
    let mut world = World::new();
    world.wants(Wanted::Do {
        domain: VM,
        act: Operation::Create { name: "vm".into(), xml: "<domain/>".into(), made: None, paused: false },
    });
    let at = world.now().wall;
    world.tell(Input::LinkLost { at });
    let (run, what, outcome) = (RunId(1), OperationKind::Create, Outcome::NoLink);
    world.tell(Input::Answered(Answer::Performed { run, request: None, what, outcome }));
    world.listed_without_it();
    world.absent(40_000);
    assert_eq!((world.status(), world.endings.len()), (Some(Status::Launching), 0));
    world.heard(Happening::Started(StartDetail::Booted));
    world.heard(Happening::Stopped(StopDetail::Failed));
    world.absent(10_000);
    assert_eq!(world.endings.len(), 1);
    assert_eq!(world.endings[0].run, RunId(1));
}

/// Answered as done once, while it ran.
#[test]
fn a_destroy_that_libvirt_was_asked_for_too_early_is_asked_for_again() {
    let mut world = World::new();
    world.wants(Wanted::Do {
        domain: VM,
        act: Operation::Create { name: "vm".into(), xml: "<domain/>".into(), made: None, paused: false },
    });
    world.wants(Wanted::Do { domain: VM, act: Operation::Destroy });
    // It came up, and then libvirt's answer from before that comes.
    world.heard(Happening::Started(StartDetail::Booted));
    world.asked.clear();
    let acted = |outcome| {
        Input::Answered(Answer::Performed {
            run: RunId(1),
            request: None,
            what: OperationKind::Destroy,
            outcome,
        })
    };
    world.tell(acted(Outcome::NoDomain));
    let again = Question::Perform { run: RunId(1), domain: VM, request: None, act: Operation::Destroy };
    assert_eq!(world.asked, [again]);
    world.absent(10_000);
    assert_eq!(world.replies, [Reply::Done], "the start alone is answered");
    world.heard(Happening::Stopped(StopDetail::Destroyed));
    world.tell(acted(Outcome::Done));
    world.pass(10_000);
    assert_eq!(world.replies, [Reply::Done, Reply::Done]);
    assert_eq!(world.endings.len(), 1);
}

/// Never answered once: the run was taken for over, and came up.
#[test]
fn who_wants_a_run_destroyed_that_was_taken_for_over_and_is_not_has_it_destroyed() {
    for heard in [true, false] {
        let mut left = begun_by(&[OperationKind::Create, OperationKind::Destroy], false);
        left.listed_without_it();
        left.wants(Wanted::Do { domain: VM, act: Operation::Destroy });
        let destroys = |asked: &[Question]| {
            let acts =
                asked.iter().filter(|q| matches!(q, Question::Perform { act: Operation::Destroy, .. }));
            acts.count()
        };
        assert_eq!((destroys(&left.asked), left.replies.len()), (0, 0), "nobody knows whether it comes up");
        if heard {
            left.heard(Happening::Started(StartDetail::Booted));
        } else {
            let mut shown = super::faults::listing(crate::hypervisor::DomainState::Running, Some(1));
            let view = Some(Some(shown.domains.remove(0)));
            left.tell(Input::Answered(Answer::Looked { domain: VM, view }));
        }
        assert_eq!(left.status(), Some(Status::Up));
        assert_eq!(destroys(&left.asked), 1);
        let (run, what, outcome) = (RunId(1), OperationKind::Destroy, Outcome::Done);
        left.tell(Input::Answered(Answer::Performed { run, request: None, what, outcome }));
        left.heard(Happening::Stopped(StopDetail::Destroyed));
        assert_eq!((left.replies.as_slice(), left.status()), (&[Reply::Done][..], None));
    }
}

/// A part of QEMU's log in which a VM was to arrive and did not.
fn failed_arrival(began: Wall) -> LogBlock {
    let at = began.after(Duration::from_millis(280));
    let facts = vec![(at, Fact::LogEnd { word: crate::evidence::LogWord::Failed, at: Some(at) })];
    let (name, domain, began) = ("vm".into(), Some(VM), Some(began));
    LogBlock { name, domain, began, incoming: true, last: Some(at), facts, ..LogBlock::default() }
}

/// Told by nobody once: the log was read while libvirt's answer was still to come, and never again.
#[test]
fn what_others_began_and_lost_before_a_start_of_ours_came_up_is_told_in_history() {
    for comes_up in [true, false] {
        let mut world = World::new();
        let (name, xml) = ("vm".into(), "<domain/>".into());
        world.wants(Wanted::Do {
            domain: VM,
            act: Operation::Create { name, xml, made: None, paused: false },
        });
        let at = world.now().wall;
        world.tell(Input::LinkLost { at });
        world.pass(400);
        let its_own = LogBlock {
            began: Some(world.now().wall),
            incoming: false,
            last: None,
            facts: Vec::new(),
            ..failed_arrival(at)
        };
        for _ in 0..2 {
            let blocks = vec![failed_arrival(at), its_own.clone()];
            world.tell(Input::Past(vec![Log { name: "vm".into(), blocks, unread: None }]));
            world.listed_without_it();
        }
        assert_eq!(world.endings.len(), 0, "it may be its own part");
        if comes_up {
            world.heard(Happening::Started(StartDetail::Booted));
            let told = &world.endings[0];
            assert_eq!((told.run, told.started, told.was_told_later()), (RunId(2), at, true));
            assert_eq!(told.verdict.cause, Cause::IncomingMigrationFailed);
            assert_eq!(world.status(), Some(Status::Up));
        } else {
            let (run, what) = (RunId(1), OperationKind::Create);
            let outcome = Outcome::Refused("no disk".into());
            world.tell(Input::Answered(Answer::Performed { run, request: None, what, outcome }));
            world.absent(6_000);
            assert_eq!(world.endings[0].run, RunId(1));
        }
        assert_eq!(world.endings.len(), 1);
    }
}

/// One run once: the start that is heard was taken for that of the run before, of which nothing else was known.
#[test]
fn a_start_that_is_heard_is_not_that_of_a_run_whose_part_of_the_log_is_over() {
    let mut world = asked_for(false);
    let (asked, now) = (Wall::from_millis(ASKED_MS), world.now().wall);
    let next = LogBlock { began: Some(now), last: None, facts: Vec::new(), ..failed_arrival(asked) };
    let blocks = vec![failed_arrival(asked), next];
    world.tell(Input::Past(vec![Log { name: "vm".into(), blocks, unread: None }]));
    world.tell(Input::LinkUp(Listing { changing: vec![VM], heard_from: now, ..Listing::default() }));
    let domain = DomainRef { id: VM, name: "vm".into(), libvirt_id: Some(2) };
    let what = Happening::Started(StartDetail::Booted);
    world.tell(Input::Host(HostEvent { domain, at: now, what, process: None }));
    world.tell(Input::Answered(Answer::Remains { run: RunId(1), view: None, facts: vec![] }));
    assert_eq!(world.endings.iter().map(|ending| ending.run).collect::<Vec<_>>(), [RunId(1)]);
    assert_eq!(world.engine.snapshot().domains[&VM].run, RunId(2));
}

/// A start through us whose answer was lost with the link, after a destroy of it that came too early.
fn lost_start() -> World {
    let mut world = World::new();
    world.wants(Wanted::Do {
        domain: VM,
        act: Operation::Create { name: "vm".into(), xml: "<domain/>".into(), made: None, paused: false },
    });
    world.wants(Wanted::Do { domain: VM, act: Operation::Destroy });
    let at = world.now().wall;
    world.tell(Input::LinkLost { at });
    for (what, outcome) in
        [(OperationKind::Create, Outcome::NoLink), (OperationKind::Destroy, Outcome::NoDomain)]
    {
        world.tell(Input::Answered(Answer::Performed { run: RunId(1), request: None, what, outcome }));
    }
    world.asked.clear();
    world
}

/// Never answered once: a start that had begun was followed without anybody having seen it come up.
#[test]
fn a_lost_start_that_is_found_begun_comes_up_when_it_is_seen() {
    let shown = super::faults::listing(crate::hypervisor::DomainState::Running, Some(1));
    let begun = |world: &World| {
        let began = world.now().wall;
        let block = LogBlock { began: Some(began), last: None, facts: Vec::new(), ..failed_arrival(began) };
        Input::Past(vec![Log { name: "vm".into(), blocks: vec![block], unread: None }])
    };
    for heard in [false, true] {
        let mut world = lost_start();
        world.ms += 1;
        let past = begun(&world);
        world.tell(past);
        let listing = match heard {
            true => Listing { changing: vec![VM], ..Listing::default() },
            false => shown.clone(),
        };
        world.tell(Input::LinkUp(listing));
        if heard {
            assert_eq!((world.status(), world.acts(OperationKind::Destroy)), (Some(Status::Launching), 0));
            world.heard(Happening::Started(StartDetail::Booted));
        }
        assert_eq!((world.status(), world.acts(OperationKind::Destroy)), (Some(Status::Up), 1), "{heard}");
        let (run, what, outcome) = (RunId(1), OperationKind::Destroy, Outcome::Done);
        world.tell(Input::Answered(Answer::Performed { run, request: None, what, outcome }));
        world.heard(Happening::Stopped(StopDetail::Destroyed));
        assert_eq!((world.replies.as_slice(), world.status()), (&[Reply::Done, Reply::Done][..], None));
    }
}

/// Two runs were told of one life once: by the time of its request its part of the log was taken for another start's.
#[test]
fn a_start_that_is_found_up_began_when_it_was_found_and_not_when_it_was_asked_for() {
    let mut world = World::new();
    world.wants(Wanted::Do {
        domain: VM,
        act: Operation::Create { name: "vm".into(), xml: "<domain/>".into(), made: None, paused: false },
    });
    world.pass(20_000);
    let (run, what, outcome) = (RunId(1), OperationKind::Create, Outcome::NoLink);
    world.tell(Input::Answered(Answer::Performed { run, request: None, what, outcome }));
    let began = world.now().wall;
    world.ms += 500;
    let view = super::faults::listing(crate::hypervisor::DomainState::Running, Some(1)).domains.pop();
    world.tell(Input::Answered(Answer::Looked { domain: VM, view: Some(view) }));
    assert_eq!(world.status(), Some(Status::Up));
    let followed = &world.engine.runs[&RunId(1)];
    let (start, evidence) = (followed.start.clone(), followed.dossier.items().to_vec());
    // The daemon that follows finds it over.
    let alive = Some(world.now().wall);
    let left = Recovered { open: vec![(start, evidence)], last_run: 1, alive, ..Recovered::default() };
    let ms = world.ms + 60_000;
    let mut world = World { ms, ..super::faults::recovered(left) };
    let ended = Wall::from_millis(ms as i64 - 1_000);
    let end = (ended, Fact::LogEnd { word: crate::evidence::LogWord::Shutdown, at: Some(ended) });
    let (ended, facts) = (Some(ended), vec![end]);
    let block = LogBlock { incoming: false, last: ended, ended, facts, ..failed_arrival(began) };
    world.tell(Input::Past(vec![Log { name: "vm".into(), blocks: vec![block], unread: None }]));
    let heard_from = world.now().wall;
    world.tell(Input::LinkUp(Listing { heard_from, ..Listing::default() }));
    world.absent(6_000);
    assert_eq!(world.endings.iter().map(|ending| ending.run).collect::<Vec<_>>(), [RunId(1)]);
}
