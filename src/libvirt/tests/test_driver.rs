//! Against libvirt's test driver: events and their order, numbers into words, scale, and what is given back.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use told::{Connected, Ears, LIMIT, clock};
use whydown_core::hypervisor::{DomainState, Happening, PauseReason, ShutOffReason, StartDetail, StopDetail};
use whydown_core::id::DomainId;
use whydown_libvirt::{Hypervisor, Refusal, Settings, ShutdownHow, Told};

mod told;

/// `test:///default` is one world for all connections that are open at the same time: one test at a time.
static ONE_WORLD: Mutex<()> = Mutex::new(());

fn one_world() -> std::sync::MutexGuard<'static, ()> {
    ONE_WORLD.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn settings() -> Settings {
    Settings::new("test:///default", clock)
}

fn id(number: u32) -> DomainId {
    let mut bytes = *b"whydown-test\0\0\0\0";
    bytes[12..].copy_from_slice(&number.to_be_bytes());
    DomainId::from_bytes(bytes)
}

fn xml(number: u32) -> String {
    format!(
        "<domain type='test'><name>guest{number}</name><uuid>{}</uuid><memory>1024</memory>\
         <os><type>hvm</type></os></domain>",
        id(number)
    )
}

/// A world of its own, in a file, with `count` running domains, every second of them transient.
fn world(count: u32, directory: &std::path::Path) -> String {
    let mut text = String::from("<node>");
    for number in 0..count {
        let transient = if number % 2 == 1 { "<test:transient/>" } else { "" };
        write!(
            text,
            "<domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>\
             <name>guest{number}</name><uuid>{}</uuid><memory>1024</memory><os><type>hvm</type></os>\
             <test:runstate>{}</test:runstate>{transient}</domain>",
            id(number),
            if number % 5 == 3 { 3 } else { 1 },
        )
        .unwrap();
    }
    text.push_str("</node>");
    let path = directory.join("world.xml");
    std::fs::write(&path, text).unwrap();
    format!("test://{}", path.display())
}

#[test]
fn the_events_of_one_life_come_in_their_order_after_the_listing() {
    let _world = one_world();
    let connected = Connected::to(settings());
    let (hypervisor, ears) = (&connected.hypervisor, &connected.ears);
    let listing = ears.link_up(1);
    let found = listing.domains.iter().find(|view| view.domain.name == "test").unwrap();
    assert_eq!(
        (found.state, found.persistent, found.managed_save),
        (DomainState::Running, true, Some(false))
    );
    assert_eq!((found.domain.libvirt_id, found.process), (Some(1), None));
    assert!(listing.changing.is_empty());

    let view = hypervisor.create(&xml(1)).unwrap();
    assert_eq!((view.domain.id, view.domain.name.as_str()), (id(1), "guest1"));
    assert_eq!((view.state, view.persistent), (DomainState::Running, false));
    assert!(view.domain.libvirt_id.is_some());
    hypervisor.destroy(id(1)).unwrap();
    let ended = Happening::Stopped(StopDetail::Destroyed);
    let life = [Happening::Started(StartDetail::Booted), ended.clone()];
    assert_eq!(ears.happenings(id(1), &ended), life);
    let events = ears.events(id(1));
    assert!(events[0].at <= events[1].at);
    assert_eq!(events[0].domain.libvirt_id, view.domain.libvirt_id);
    assert!(matches!(ears.all()[0], Told::LinkUp(_)));
}

#[test]
fn suspend_resume_shutdown_and_start_are_told_in_words_as_virsh_or_anyone_does_them() {
    let _world = one_world();
    let connected = Connected::to(settings());
    let ears = &connected.ears;
    let domain = ears.link_up(1).domains[0].domain.id;
    // Another client of the same world.
    let other = virt::connect::Connect::open(Some("test:///default")).unwrap();
    let dom = other.lookup_domain_by_uuid_string(&domain.to_string()).unwrap();
    dom.suspend().unwrap();
    let paused = connected.hypervisor.view(domain).unwrap().unwrap();
    assert_eq!(paused.state, DomainState::Paused(PauseReason::User));
    dom.resume().unwrap();
    connected.hypervisor.shutdown(domain, ShutdownHow::AcpiOrAgent).unwrap();
    let stopped = Happening::Stopped(StopDetail::Shutdown);
    ears.happenings(domain, &stopped);
    let off = connected.hypervisor.view(domain).unwrap().unwrap();
    assert_eq!(off.state, DomainState::ShutOff(ShutOffReason::Shutdown));
    assert_eq!(off.domain.libvirt_id, None);
    connected.hypervisor.start_defined(domain).unwrap();
    let started = Happening::Started(StartDetail::Booted);
    let all = ears.happenings(domain, &started);
    use whydown_core::hypervisor::{ResumeDetail, SuspendDetail};
    let expected = [
        Happening::Suspended(SuspendDetail::Paused),
        Happening::Resumed(ResumeDetail::Unpaused),
        stopped,
        started,
    ];
    assert_eq!(all, expected);
}

#[test]
fn what_libvirt_does_not_know_is_none_and_what_it_refuses_is_in_its_own_words() {
    let _world = one_world();
    let connected = Connected::to(settings());
    let (hypervisor, ears) = (&connected.hypervisor, &connected.ears);
    let running = ears.link_up(1).domains[0].domain.id;
    assert_eq!(hypervisor.view(id(9)), Ok(None));
    assert_eq!(hypervisor.destroy(id(9)), Err(Refusal::NoDomain));
    assert_eq!(hypervisor.domain_xml(id(9)), Err(Refusal::NoDomain));
    let refused = hypervisor.start_defined(running);
    assert!(
        matches!(&refused, Err(Refusal::Refused { code, text }) if *code != 0 && text.contains("already running")),
        "{refused:?}"
    );
    let refused = hypervisor.shutdown(running, ShutdownHow::Agent);
    assert!(
        matches!(&refused, Err(Refusal::Refused { code: 8, text }) if text.contains("flags")),
        "{refused:?}"
    );
    let refused = hypervisor.create("<domain type='test'/>");
    assert!(
        matches!(&refused, Err(Refusal::Refused { text, .. }) if text == "missing name information"),
        "{refused:?}"
    );
    let refused = hypervisor.create("<domain>\0</domain>");
    assert!(matches!(&refused, Err(Refusal::Refused { code: 8, .. })), "{refused:?}");
    assert!(hypervisor.domain_xml(running).unwrap().starts_with("<domain type='test'"));
    assert_eq!(hypervisor.log_path("test"), None);
    let versions = hypervisor.versions().unwrap();
    assert!(versions.libvirt >= 6_000_000, "{versions:?}");
    assert_eq!((versions.driver.as_str(), versions.hypervisor), ("TEST", Some(2)));
    assert!(versions.node.cpus > 0 && versions.node.memory_kib > 0 && !versions.host_name.is_empty());
    assert!(versions.capabilities.contains("<capabilities>"));
}

#[test]
fn ten_thousand_domains_are_listed_in_seconds_and_every_ending_is_heard() {
    const COUNT: u32 = 10_000;
    let directory = tempfile::tempdir().unwrap();
    let connected = Connected::to(Settings::new(world(COUNT, directory.path()), clock));
    let (hypervisor, ears) = (&connected.hypervisor, &connected.ears);
    let listing = ears.link_up(1);
    assert_eq!(listing.domains.len(), COUNT as usize);
    assert!(listing.changing.is_empty());
    for view in &listing.domains {
        let number: u32 = view.domain.name.strip_prefix("guest").unwrap().parse().unwrap();
        assert_eq!(view.domain.id, id(number));
        assert_eq!(view.persistent, number.is_multiple_of(2));
        let paused = matches!(view.state, DomainState::Paused(_));
        assert_eq!(paused, number % 5 == 3, "{view:?}");
        assert!(view.domain.libvirt_id.is_some());
    }
    let numbers = (0..COUNT).filter(|number| !number.is_multiple_of(4));
    for number in numbers.clone() {
        hypervisor.destroy(id(number)).unwrap();
    }
    let expected: BTreeSet<DomainId> = numbers.map(id).collect();
    let ended = ears.wait("all endings", |told| {
        let ended = told.iter().filter_map(|t| match t {
            Told::Event(e) if e.what == Happening::Stopped(StopDetail::Destroyed) => Some(e.domain.id),
            _ => None,
        });
        let ended: Vec<_> = ended.collect();
        (ended.len() >= expected.len()).then_some(ended)
    });
    assert_eq!(ended.len(), expected.len(), "each once");
    assert_eq!(ended.into_iter().collect::<BTreeSet<_>>(), expected);
}

#[test]
fn a_listing_taken_in_the_middle_of_changes_leads_with_its_events_to_what_is_true_at_the_end() {
    let _world = one_world();
    // Keeps the world alive between the connections under test.
    let keeper = Connected::to(settings());
    keeper.ears.link_up(1);
    let stop = Arc::new(AtomicBool::new(false));
    let churn = std::thread::spawn({
        let (hypervisor, ears, stop) = (keeper.hypervisor.clone(), keeper.ears.clone(), Arc::clone(&stop));
        move || {
            let mut number = 0;
            while !stop.load(Ordering::SeqCst) {
                hypervisor.create(&xml(number % 7)).unwrap();
                hypervisor.destroy(id(number % 7)).unwrap();
                number += 1;
                // Not faster than events are heard: otherwise they only pile up, and no listing meets one.
                ears.wait("own events", |told| (told.len() > 2 * number as usize).then_some(()));
            }
            for survivor in [1, 4, 100] {
                hypervisor.create(&xml(survivor)).unwrap();
            }
        }
    });
    let connected: Vec<_> = (0..20)
        .map(|_| {
            let connected = Connected::to(settings());
            connected.ears.link_up(1);
            connected
        })
        .collect();
    stop.store(true, Ordering::SeqCst);
    churn.join().unwrap();
    let mut changing = 0;
    for connected in &connected {
        connected.ears.happenings(id(100), &Happening::Started(StartDetail::Booted));
        let listing = connected.ears.link_up(1);
        changing += listing.changing.len();
        let listed = listing.domains.iter().filter(|view| view.state.is_active()).map(|view| view.domain.id);
        let mut running: BTreeSet<_> = listed.filter(|domain| !listing.changing.contains(domain)).collect();
        let told = connected.ears.all();
        assert!(matches!(told[0], Told::LinkUp(_)), "{:?}", told[0]);
        for domain in &listing.changing {
            assert!(
                !connected.ears.events(*domain).is_empty(),
                "{domain} is changing, and nothing was told of it"
            );
        }
        for told in told {
            let Told::Event(event) = told else { continue };
            match event.what {
                Happening::Started(_) => running.insert(event.domain.id),
                Happening::Stopped(_) => running.remove(&event.domain.id),
                _ => continue,
            };
        }
        running.retain(|domain| (0..=100).map(id).any(|ours| ours == *domain));
        assert_eq!(running, [1, 4, 100].map(id).into());
    }
    assert!(changing > 0, "no listing met a change: this test proved nothing");
}

#[test]
fn a_listener_may_call_back_and_may_panic() {
    let _world = one_world();
    let slot: Arc<Mutex<Option<Hypervisor>>> = Arc::default();
    let ears = Ears::default();
    let hypervisor = Hypervisor::start(settings(), {
        let (slot, keep) = (Arc::clone(&slot), ears.listener());
        move |told| {
            if let Told::LinkUp(listing) = &told {
                let until = Instant::now() + LIMIT;
                let hypervisor = loop {
                    if let Some(hypervisor) = slot.lock().unwrap().clone() {
                        break hypervisor;
                    }
                    assert!(Instant::now() < until);
                    std::thread::yield_now();
                };
                // Told that the link is up, it can act at once.
                assert!(hypervisor.view(listing.domains[0].domain.id).unwrap().is_some());
                keep(told);
                panic!("this panic is part of the test");
            }
            keep(told);
        }
    });
    *slot.lock().unwrap() = Some(hypervisor.clone());
    let domain = ears.link_up(1).domains[0].domain.id;
    hypervisor.destroy(domain).unwrap();
    ears.happenings(domain, &Happening::Stopped(StopDetail::Destroyed));
    assert!(hypervisor.stop());
}

#[test]
fn without_a_link_every_call_says_so_at_once_and_the_reason_is_told() {
    let connected = Connected::to(Settings {
        reconnect_min: Duration::from_millis(1),
        reconnect_max: Duration::from_millis(10),
        ..Settings::new("test:///there/is/no/such/file.xml", clock)
    });
    let hypervisor = &connected.hypervisor;
    connected.ears.wait("a fifth attempt", |told| {
        told.iter()
            .find(|t| matches!(t, Told::StillDown { why, attempts: 5 } if why.contains("file.xml")))
            .cloned()
    });
    assert_eq!(hypervisor.view(id(1)), Err(Refusal::NoLink));
    assert_eq!(hypervisor.create(&xml(1)), Err(Refusal::NoLink));
    assert_eq!(hypervisor.shutdown(id(1), ShutdownHow::Acpi), Err(Refusal::NoLink));
    assert_eq!(hypervisor.destroy(id(1)), Err(Refusal::NoLink));
    assert_eq!(hypervisor.versions(), Err(Refusal::NoLink));
    assert!(connected.ears.all().iter().all(|t| matches!(t, Told::StillDown { .. })));
}

#[test]
fn after_a_stop_nothing_is_told_and_calls_have_no_link() {
    let _world = one_world();
    let connected = Connected::to(settings());
    let domain = connected.ears.link_up(1).domains[0].domain.id;
    assert!(connected.hypervisor.stop());
    let told = connected.ears.all().len();
    assert_eq!(connected.hypervisor.view(domain), Err(Refusal::NoLink));
    assert!(connected.hypervisor.stop(), "a second stop has nothing to do");
    assert_eq!(connected.ears.all().len(), told);
}

#[test]
fn a_thousand_connections_leave_nothing_behind() {
    let _world = one_world();
    let round = || {
        let connected = Connected::to(settings());
        connected.ears.link_up(1);
    };
    // The first rounds fill caches of libvirt, of the allocator and of thread stacks.
    for _ in 0..100 {
        round();
    }
    let before = resident_kib();
    for _ in 0..1000 {
        round();
    }
    let grown = resident_kib().saturating_sub(before);
    // One leaked connection of the test driver costs more than 20 KiB.
    assert!(grown < 6 * 1024, "{grown} KiB more after 1,000 connections");
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}
