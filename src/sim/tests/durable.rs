//! What is on disk first: acts, answers and pictures wait for it, and a wall clock that jumps forgets nothing.

use std::time::Duration;

use proptest::prelude::*;
use whydown_core::cause::Cause;
use whydown_core::evidence::Fact;
use whydown_core::id::DomainId;
use whydown_core::lifecycle::{Outcome, Reply, Wanted};
use whydown_core::operation::Operation;
use whydown_core::record::Certainty;
use whydown_core::snapshot::Status;
use whydown_sim::ledger::Disk;
use whydown_sim::step::{Start, Step, domain};
use whydown_sim::ways::{Chatter, Way};
use whydown_sim::world::{Acting, World};

const SYNC: Duration = Duration::from_millis(300);
const REST: Duration = Duration::from_secs(200);

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A host whose disk takes 300 ms to write, with one VM up.
fn slow() -> (World, DomainId) {
    let mut world = World::new();
    world.start_daemon();
    world.regain_link();
    world.disk = Disk::Works(SYNC);
    world.take(&Step::Start(0, Start::Booted));
    world.pass(Duration::from_secs(100));
    (world, domain(0))
}

fn status(world: &World, vm: DomainId) -> Option<Status> {
    world.snapshot().and_then(|shown| shown.domains.get(&vm).map(|domain| domain.status))
}

fn rests(mut world: World) -> World {
    world.heal(REST);
    let wrong = world.wrong_at_rest();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    world
}

#[test]
fn a_destroy_waits_for_one_commit_and_what_was_answered_stays_done_through_a_kill() {
    for lost in 0..100 {
        let (mut world, vm) = slow();
        let run = world.public_run(vm).unwrap();
        let asked = world.ask("manager", Wanted::Do { domain: vm, act: Operation::Destroy }).unwrap();
        world.pass(millis(299));
        assert!(world.is_active(vm), "libvirt is asked for nothing before that is on disk");
        world.pass(millis(250));
        assert_eq!(world.replies(asked), [Reply::Done], "one commit is enough");
        assert_eq!(status(&world, vm), None, "who is answered sees what the answer says");
        world.pass(millis(lost * 5));
        world.crash_daemon();
        world.start_daemon();
        assert_eq!(status(&world, vm), None, "nor is it shown before the first listing");
        let world = rests(world);
        assert_eq!(status(&world, vm), None);
        let ending = &world.ledger.endings()[&run];
        assert_eq!(ending.verdict.cause, Cause::AdminDestroyed, "{ending:#?}");
        assert_eq!(world.ledger.acknowledged()[&run].by, "manager");
    }
}

#[test]
fn a_destroy_that_met_a_vm_which_had_just_ended_by_itself_stays_done() {
    for kill in [false, true] {
        for passed in 0..60 {
            let mut world = World::new();
            world.start_daemon();
            world.regain_link();
            world.take(&Step::WitnessDelay(119));
            world.take(&Step::Start(1, Start::Booted));
            world.pass(millis(2));
            world.befall(domain(1), Way::Killed);
            let asked =
                world.ask("manager", Wanted::Do { domain: domain(1), act: Operation::Destroy }).unwrap();
            world.pass(millis(passed));
            let done = world.replies(asked) == [Reply::Done];
            if kill {
                world.crash_daemon()
            } else {
                world.stop_daemon()
            }
            world.start_daemon();
            let world = rests(world);
            if done {
                assert_eq!(status(&world, domain(1)), None);
                let by: Vec<_> = world.ledger.acknowledged().values().map(|done| done.by.as_str()).collect();
                assert_eq!(by, ["manager"]);
            }
        }
    }
}

#[test]
fn an_acknowledgement_is_answered_when_it_is_on_disk_and_is_shown_until_then() {
    let (mut world, vm) = slow();
    world.befall(vm, Way::GuestPoweroff);
    world.pass(Duration::from_secs(2));
    assert_eq!(status(&world, vm), Some(Status::Down));
    let asked = world.ask("manager", Wanted::Do { domain: vm, act: Operation::Destroy }).unwrap();
    world.pass(millis(299));
    assert_eq!((world.replies(asked), status(&world, vm)), (&[][..], Some(Status::Down)));
    world.pass(millis(2));
    assert_eq!((world.replies(asked), status(&world, vm)), (&[Reply::Done][..], None));
    world.crash_daemon();
    let world = rests(world);
    assert_eq!(status(&world, vm), None);
}

#[test]
fn a_run_and_the_answer_to_its_creation_wait_for_the_disk() {
    let (mut world, _) = slow();
    let vm = domain(3);
    let what = Wanted::Do {
        domain: vm,
        act: Operation::Create { name: "new".into(), xml: "<domain/>".into(), made: None, paused: false },
    };
    let asked = world.ask("manager", what).unwrap();
    world.pass(millis(299));
    assert_eq!((world.replies(asked), status(&world, vm)), (&[][..], None));
    assert!(!world.is_active(vm));
    world.pass(millis(2));
    assert_eq!((world.replies(asked), status(&world, vm)), (&[Reply::Done][..], Some(Status::Launching)));
    let run = world.public_run(vm).unwrap();
    world.crash_daemon();
    let world = rests(world);
    assert!(world.ledger.endings().contains_key(&run), "a run that was shown has an ending, or goes on");
}

#[test]
fn absence_means_nothing_before_what_the_first_listing_showed_is_on_disk() {
    let mut world = World::new();
    world.take(&Step::Start(0, Start::Booted));
    world.pass(Duration::from_secs(1));
    world.disk = Disk::Works(SYNC);
    world.start_daemon();
    world.regain_link();
    let shown = world.snapshot().unwrap();
    assert!(!shown.settled && shown.domains.is_empty());
    world.pass(millis(301));
    let shown = world.snapshot().unwrap();
    assert!(shown.settled && shown.domains.len() == 1);
}

#[test]
fn with_a_disk_that_cannot_be_written_a_destroy_is_done_at_once_and_says_so() {
    let (mut world, vm) = slow();
    world.disk = Disk::Fails;
    let asked = world.ask("manager", Wanted::Do { domain: vm, act: Operation::Destroy }).unwrap();
    world.pass(Duration::from_secs(1));
    assert_eq!(world.replies(asked), [Reply::DoneUnwritten]);
    assert_eq!(status(&world, vm), None);
    assert!(!world.is_active(vm));
    rests(world);
}

#[test]
fn a_disk_that_hangs_is_taken_for_one_that_cannot_be_written() {
    let (mut world, vm) = slow();
    world.disk = Disk::Works(Duration::from_secs(3_600));
    let asked = world.ask("manager", Wanted::Do { domain: vm, act: Operation::Destroy }).unwrap();
    world.pass(Duration::from_secs(9));
    assert_eq!(world.replies(asked), []);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.replies(asked), [Reply::DoneUnwritten]);
    assert!(!world.is_active(vm));
}

#[test]
fn a_destroy_that_libvirt_still_does_when_the_daemon_is_back_was_ours() {
    let (mut world, vm) = slow();
    let run = world.public_run(vm).unwrap();
    world.ask("manager", Wanted::Do { domain: vm, act: Operation::Destroy });
    world.pass(millis(302));
    world.crash_daemon();
    world.start_daemon();
    world.regain_link();
    world.pass(millis(500));
    assert_eq!(status(&world, vm), Some(Status::Up), "what runs is shown");
    // libvirtd goes on with what its client asked, whatever became of the client.
    world.befall(vm, Way::OurDestroy);
    let world = rests(world);
    assert_eq!(world.ledger.endings()[&run].verdict.cause, Cause::AdminDestroyed);
}

#[test]
fn a_request_to_destroy_that_was_never_done_explains_nothing_an_hour_later() {
    let (mut world, vm) = slow();
    let run = world.public_run(vm).unwrap();
    world.ask("manager", Wanted::Do { domain: vm, act: Operation::Destroy });
    world.pass(millis(302));
    world.crash_daemon();
    world.start_daemon();
    world.regain_link();
    world.pass(Duration::from_secs(3_600));
    world.befall(vm, Way::GuestPoweroff);
    let world = rests(world);
    assert_eq!(world.ledger.endings()[&run].verdict.cause, Cause::GuestPoweroff);
    assert_eq!(status(&world, vm), Some(Status::Down));
}

#[test]
fn no_number_is_given_twice_whatever_is_killed_before_a_commit() {
    let mut world = World::new();
    world.disk = Disk::Works(Duration::from_secs(5));
    for _ in 0..20 {
        world.start_daemon();
        world.regain_link();
        world.take(&Step::Start(0, Start::Booted));
        world.take(&Step::Start(1, Start::Create));
        world.pass(millis(700));
        world.crash_daemon();
        world.reboot_host();
    }
    rests(world);
}

/// When the shutdown of the first VM is answered, whose agent does not answer; the other VM is heard of at these moments.
fn shut_down_beside(others: &[u64]) -> u64 {
    let (mut world, vm) = slow();
    world.take(&Step::Start(1, Start::Booted));
    world.pass(Duration::from_secs(100));
    world.acting = Acting::Told(vec![Outcome::Refused("the agent does not answer".into())]);
    let agent_first = Some(Duration::from_secs(60));
    let what = Wanted::Shutdown { domain: vm, again: false, agent_first, force_after: None };
    let asked = world.ask("manager", what).unwrap();
    for at in 0..2_000 {
        if !world.replies(asked).is_empty() {
            assert_eq!(world.replies(asked), [Reply::Done]);
            assert!(world.broken().is_empty(), "{}", world.broken().join("\n"));
            return at;
        }
        if others.contains(&at) {
            world.take(&Step::Chatter(1, Chatter::PauseAndResume));
        }
        world.pass(millis(1));
    }
    panic!("the shutdown is not answered");
}

#[test]
fn an_act_whose_own_request_is_on_disk_waits_for_nothing_that_is_heard_of_another_vm() {
    let alone = shut_down_beside(&[]);
    // One commit of 300 ms, and twice libvirt's answer.
    assert!((300..320).contains(&alone), "{alone} ms");
    // Between the agent's step and the power button's.
    assert_eq!(shut_down_beside(&[301, 302, 303, 304]), alone);
}

fn clock() -> impl Strategy<Value = Step> {
    prop_oneof![Just(Step::JumpYears(10)), Just(Step::JumpYears(-10)), Just(Step::Epoch)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// Whatever is heard of another VM, and whenever.
    #[test]
    fn no_vm_waits_longer_for_what_is_heard_of_another(others in prop::collection::vec(0..400u64, 0..20)) {
        prop_assert!(shut_down_beside(&others) <= shut_down_beside(&[]));
    }

    /// A VM ends under each clock, and the daemon is restarted or killed under each.
    #[test]
    fn a_clock_that_is_years_wrong_forgets_nothing_and_the_times_shown_heal(
        jumps in prop::collection::vec((clock(), any::<bool>(), any::<bool>(), 0..4_000u64), 1..5)
    ) {
        let mut world = World::new();
        world.start_daemon();
        world.regain_link();
        let truth = world.now();
        for (number, (jump, kill, restart, wait)) in (0u8..).zip(&jumps) {
            world.take(&Step::Start(number, Start::Booted));
            world.pass(Duration::from_secs(1));
            world.take(jump);
            world.pass(millis(*wait));
            world.befall(domain(number), Way::GuestPoweroff);
            world.pass(Duration::from_secs(40));
            if *restart {
                if *kill { world.crash_daemon() } else { world.stop_daemon() }
                world.start_daemon();
                world.regain_link();
                world.pass(Duration::from_secs(40));
            }
        }
        // The clock is right again, and the daemon is restarted once more.
        let right = truth.wall.after(world.now().mono.since(truth.mono));
        world.jump(right.as_millis() - world.now().wall.as_millis());
        world.pass(Duration::from_secs(60));
        world.stop_daemon();
        world.start_daemon();
        world.regain_link();
        world.pass(Duration::from_secs(700));
        let shown = world.snapshot().unwrap();
        prop_assert_eq!(shown.domains.len(), jumps.len(), "nothing is withdrawn");
        for vm in shown.domains.values() {
            prop_assert_eq!(vm.status, Status::Down);
            prop_assert!(vm.status_time <= world.now().wall.as_millis(), "it says {}", vm.status_time);
        }
        for ending in world.ledger.endings().values() {
            prop_assert_eq!(ending.verdict.cause, Cause::GuestPoweroff);
            let marked = ending.evidence.iter().any(|piece| matches!(piece.fact, Fact::ClockSet { .. }));
            prop_assert!(marked, "what two clocks dated is marked");
            prop_assert!(ending.verdict.certainty < Certainty::Certain);
        }
        prop_assert!(world.broken().is_empty(), "{}", world.broken().join("\n"));
    }
}

#[test]
fn down_records_leave_by_the_time_that_was_lived_through() {
    let (mut world, vm) = slow();
    world.befall(vm, Way::GuestPoweroff);
    world.pass(Duration::from_secs(3_600));
    // An hour of ten years, by a clock that is wrong, and a night in which the host is off.
    world.take(&Step::JumpYears(10));
    world.pass(Duration::from_secs(3_600));
    world.take(&Step::JumpYears(-10));
    world.stop_daemon();
    world.pass(Duration::from_secs(86_400));
    world.start_daemon();
    world.regain_link();
    // The told administrator keeps them for a day, of which 22 hours are left.
    world.pass(Duration::from_secs(21 * 3_600));
    assert_eq!(status(&world, vm), Some(Status::Down));
    world.pass(Duration::from_secs(2 * 3_600));
    assert_eq!(status(&world, vm), None);
    assert_eq!(world.ledger.acknowledged().values().next().unwrap().by, "(limit)");
}
