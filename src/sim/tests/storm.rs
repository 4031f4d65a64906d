//! Storms: what the engine keeps in memory is bounded by what is there, not by what has happened.

use std::time::Duration;

use whydown_core::evidence::Fact;
use whydown_core::hypervisor::{Happening, IoErrorAction, ResumeDetail, SuspendDetail};
use whydown_core::id::DomainId;
use whydown_core::lifecycle::Wanted;
use whydown_core::limits;
use whydown_core::operation::Operation;
use whydown_sim::step::domain;
use whydown_sim::ways::{self, Act, Way};
use whydown_sim::world::{Loss, World};

/// A measure of all that an engine holds: the length of its own account of itself.
fn size(world: &World) -> usize {
    format!("{:?}", world.engine().expect("there is a daemon")).len()
}

fn world() -> World {
    let mut world = World::new();
    world.start_daemon();
    world.regain_link();
    world.trace_off();
    world
}

fn say(world: &mut World, id: DomainId, what: Happening) {
    world.happens(id, vec![(0, Act::Say(what))]);
}

#[test]
fn a_running_vm_in_a_storm_of_events_takes_no_more_than_its_places() {
    let mut world = world();
    let id = domain(0);
    world.hypervisor.define(id, "vm0", true);
    world.happens(id, ways::start(whydown_core::hypervisor::StartDetail::Booted));
    world.pass(Duration::from_secs(1));
    for round in 0..5_000u32 {
        let disk = format!("virtio-disk{}", round % 977);
        say(
            &mut world,
            id,
            Happening::IoError { disk, action: IoErrorAction::Report, reason: format!("r{round}") },
        );
        say(&mut world, id, Happening::Suspended(SuspendDetail::Paused));
        say(&mut world, id, Happening::Resumed(ResumeDetail::Unpaused));
        say(&mut world, id, Happening::Rebooted);
        world.pass(Duration::from_millis(1));
    }
    assert!(size(&world) < 60_000, "{}", size(&world));
    assert!(world.befall(id, Way::GuestPanic));
    world.pass(Duration::from_secs(10));
    let ending = world.ledger.endings().values().next().expect("it has ended");
    assert_eq!(ending.verdict.cause.word(), "guest-panic");
    assert!(ending.evidence.len() <= limits::FACTS_PER_RUN);
    assert!(ending.evidence.iter().any(|piece| matches!(piece.fact, Fact::Host(Happening::Stopped(_)))));
    assert_eq!(world.wrong_at_rest(), Vec::<String>::new());
}

#[test]
fn events_of_domains_that_never_ran_are_forgotten() {
    let mut world = world();
    let before = size(&world);
    for number in 0..2_000u32 {
        let mut bytes = [9; 16];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let id = DomainId::from_bytes(bytes);
        world.hypervisor.define(id, "passing", true);
        world.happens(id, vec![(0, Act::Begin)]);
        for _ in 0..40 {
            say(&mut world, id, Happening::Suspended(SuspendDetail::Paused));
        }
        world.pass(Duration::from_millis(1));
    }
    let in_the_storm = size(&world);
    assert!(in_the_storm < before + 2_000 * 32 * 100, "{in_the_storm}");
    world.pass(Duration::from_secs(200));
    assert!(size(&world) <= before + 200, "{before} before, {} after", size(&world));
}

#[test]
fn runs_that_are_over_and_acknowledged_leave_nothing_behind_but_when_they_began() {
    let mut world = world();
    world.pass(Duration::from_secs(60));
    let before = size(&world);
    for number in 0..500u32 {
        let mut bytes = [8; 16];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        let id = DomainId::from_bytes(bytes);
        world.ask(
            "engine",
            Wanted::Do {
                domain: id,
                act: Operation::Create {
                    name: format!("job{number}"),
                    xml: "<domain/>".into(),
                    made: None,
                    paused: false,
                },
            },
        );
        world.pass(Duration::from_millis(200));
        if number % 2 == 0 {
            world.ask("engine", Wanted::Do { domain: id, act: Operation::Destroy });
            world.pass(Duration::from_millis(300));
        } else {
            world.befall(id, Way::GuestPoweroff);
            world.pass(Duration::from_millis(400));
            world.ask("engine", Wanted::Do { domain: id, act: Operation::Destroy });
        }
        if number % 50 == 0 {
            world.lose_link(Loss::Cut);
            world.pass(Duration::from_secs(1));
            world.regain_link();
        }
    }
    world.pass(Duration::from_secs(200));
    assert_eq!(world.wrong_at_rest(), Vec::<String>::new());
    assert_eq!(world.ledger.endings().len(), 500);
    // That is kept of the last few thousand: what stands behind them in a log is news.
    let began = 500 * 160;
    assert!(size(&world) <= before + began + 200, "{before} before, {} after", size(&world));
}

#[test]
fn a_mass_ending_is_told_whole() {
    let mut world = world();
    let ids: Vec<DomainId> = (0..200u8).map(domain).collect();
    for id in &ids {
        world.hypervisor.define(*id, &id.to_string(), true);
        world.happens(*id, ways::start(whydown_core::hypervisor::StartDetail::Booted));
    }
    world.pass(Duration::from_secs(1));
    for id in &ids {
        assert!(world.befall(*id, Way::Killed));
    }
    world.pass(Duration::from_secs(10));
    assert_eq!(world.ledger.endings().len(), ids.len());
    assert_eq!(world.wrong_at_rest(), Vec::<String>::new());
}

#[test]
fn five_hundred_killed_at_once_for_lack_of_memory_are_each_told_and_on_disk_within_two_seconds_of_told_time()
{
    let mut world = world();
    let ids: Vec<DomainId> = (0..500u32)
        .map(|number| {
            let mut bytes = [7; 16];
            bytes[..4].copy_from_slice(&number.to_be_bytes());
            DomainId::from_bytes(bytes)
        })
        .collect();
    for id in &ids {
        world.hypervisor.define(*id, &id.to_string(), true);
        world.happens(*id, ways::start(whydown_core::hypervisor::StartDetail::Booted));
    }
    world.pass(Duration::from_secs(1));
    // Every third one without the kernel's line: the log is limited just when much is to be said.
    for (number, id) in ids.iter().enumerate() {
        assert!(world.befall(*id, if number % 3 == 0 { Way::OutOfMemoryUnsaid } else { Way::OutOfMemory }));
    }
    world.pass(Duration::from_secs(2));
    let endings = world.ledger.endings();
    assert_eq!(endings.len(), ids.len());
    assert!(endings.values().all(|ending| ending.verdict.cause.word() == "oom-killed"));
    let certain = endings.values().filter(|ending| ending.verdict.certainty.word() == "certain").count();
    assert_eq!(certain, 333, "of the others only the kernel's signal was seen");
    world.pass(Duration::from_secs(10));
    assert_eq!(world.wrong_at_rest(), Vec::<String>::new());
}
