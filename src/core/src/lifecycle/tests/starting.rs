//! What is witnessed of a process that was begun for a domain, and libvirt has not told of.

use super::*;
use crate::evidence::ExitStatus;
use crate::hypervisor::Process;
use crate::operation::Operation;

const FIRST: Process = Process { pid: 4001, start_ticks: 1 };
const SECOND: Process = Process { pid: 4002, start_ticks: 2 };

impl World {
    fn seen(&mut self, process: Process, fact: Fact) {
        self.ms += 1;
        let at = self.now().wall;
        self.tell(Input::Observed { subject: Subject::Starting(VM, process), at, fact });
    }

    fn started(&mut self, process: Process) {
        self.ms += 1;
        let domain = DomainRef { id: VM, name: "vm".into(), libvirt_id: Some(process.pid) };
        let (at, what) = (self.now().wall, Happening::Started(StartDetail::Booted));
        self.tell(Input::Host(HostEvent { domain, at, what, process: Some(process) }));
    }

    /// libvirt lost a monitor, and shows the domain off, as a start has failed.
    fn failed(&mut self) {
        self.heard(Happening::ControlError);
        let run = self.asked.iter().rev().find_map(|question| match question {
            Question::Remains { run, .. } => Some(*run),
            _ => None,
        });
        let run = run.expect("the remains are asked for");
        self.tell(Input::Answered(Answer::Remains { run, view: Some(None), facts: vec![] }));
        self.pass(10_000);
    }

    fn evidence(&self) -> Vec<Fact> {
        self.endings.last().expect("an ending").evidence.iter().map(|piece| piece.fact.clone()).collect()
    }
}

fn killed() -> Fact {
    Fact::Exit(ExitStatus::Signal(9))
}

fn oom() -> Fact {
    Fact::OomKilled { line: "Killed process".into() }
}

#[test]
fn what_ended_a_process_that_never_came_up_is_told_of_its_start() {
    let mut world = World::new();
    world.seen(FIRST, oom());
    world.seen(FIRST, killed());
    world.failed();
    assert_eq!(world.endings.last().map(|ending| ending.verdict.row.as_str()), Some("B6"));
    assert!(world.evidence().contains(&killed()), "{:?}", world.endings);
}

/// The kernel's log is read by another thread than the events of processes, which may be behind on a busy host.
#[test]
fn a_word_on_a_process_waits_until_it_is_known_whose_it_is() {
    let mut world = World::new();
    let of = |world: &World, pid| Input::Observed {
        subject: Subject::Pid(pid),
        at: world.now().wall,
        fact: oom(),
    };
    world.tell(of(&world, FIRST.pid));
    world.tell(of(&world, 77));
    world.seen(FIRST, killed());
    world.failed();
    assert_eq!(world.endings.last().map(|ending| ending.verdict.row.as_str()), Some("B6"));
    // Or it came up, and libvirt's word is behind.
    world.tell(of(&world, SECOND.pid));
    world.started(SECOND);
    world.heard(Happening::Stopped(StopDetail::Failed));
    world.pass(10_000);
    assert!(world.evidence().contains(&oom()), "{:?}", world.endings);
    // One that is old is another's.
    let mut world = World::new();
    world.tell(of(&world, FIRST.pid));
    world.pass(11_000);
    world.started(FIRST);
    world.heard(Happening::Stopped(StopDetail::Failed));
    world.pass(10_000);
    assert!(!world.evidence().contains(&oom()), "{:?}", world.endings);
}

#[test]
fn of_several_starts_the_last_one_is_told() {
    let mut world = World::new();
    world.seen(FIRST, oom());
    world.seen(SECOND, Fact::Exit(ExitStatus::Code(1)));
    world.failed();
    assert!(!world.evidence().contains(&oom()), "{:?}", world.endings);
    assert_eq!(world.endings.last().map(|ending| ending.verdict.row.as_str()), Some("B5"));
}

#[test]
fn a_process_that_comes_up_keeps_what_was_seen_of_it_and_takes_nothing_of_another() {
    let mut world = World::new();
    let wrapped = Fact::Wrapped { program: "sh".into(), qemu: Some(7) };
    world.seen(FIRST, oom());
    world.seen(SECOND, wrapped.clone());
    world.started(SECOND);
    // Of the run itself from now on, by whichever name.
    world.seen(SECOND, killed());
    world.heard(Happening::Stopped(StopDetail::Failed));
    world.pass(10_000);
    let evidence = world.evidence();
    assert!(evidence.contains(&wrapped) && evidence.contains(&killed()), "{evidence:?}");
    assert!(!evidence.contains(&oom()), "{evidence:?}");
}

#[test]
fn a_run_that_ends_takes_nothing_of_the_start_that_follows() {
    let mut world = World::new();
    world.started(FIRST);
    world.heard(Happening::Stopped(StopDetail::Failed));
    world.seen(SECOND, oom());
    world.pass(10_000);
    assert!(!world.evidence().contains(&oom()), "{:?}", world.endings);
    world.failed();
    assert_eq!(world.endings.len(), 2);
    assert!(world.evidence().contains(&oom()), "{:?}", world.endings);
}

#[test]
fn a_start_through_us_takes_nothing_of_one_before_it() {
    let mut world = World::new();
    world.seen(FIRST, oom());
    world.wants(Wanted::Do {
        domain: VM,
        act: Operation::Create { name: "vm".into(), xml: "<domain/>".into(), made: None, paused: false },
    });
    let refused = Outcome::Refused("no such disk".into());
    let run = world.asked.iter().find_map(|question| match question {
        Question::Perform { run, .. } => Some(*run),
        _ => None,
    });
    let run = run.expect("libvirt is asked");
    world.tell(Input::Answered(Answer::Performed {
        run,
        request: None,
        what: crate::operation::OperationKind::Create,
        outcome: refused,
    }));
    world.pass(10_000);
    assert!(!world.evidence().contains(&oom()), "{:?}", world.endings);
    assert_eq!(world.endings.last().map(|ending| ending.verdict.row.as_str()), Some("B3"));
}

#[test]
fn what_is_not_claimed_for_long_is_forgotten() {
    let mut world = World::new();
    world.seen(FIRST, oom());
    world.pass(300_000);
    world.failed();
    assert!(!world.evidence().contains(&oom()), "{:?}", world.endings);
}
