//! Against a libvirtd of one's own: the link breaks, and comes back. Needs root.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use told::{Connected, LIMIT, clock};
use whydown_core::hypervisor::{DomainState, Happening, StopDetail};
use whydown_core::time::Wall;
use whydown_lab::{Guest, Libvirtd, Signal, lab_dir};
use whydown_libvirt::{Refusal, Settings, Told};

mod told;

/// The first start of libvirtd probes QEMU: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn one_at_a_time() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

fn settings(libvirtd: &Libvirtd) -> Settings {
    Settings {
        keepalive_interval_s: 1,
        keepalive_count: 2,
        reconnect_min: Duration::from_millis(20),
        reconnect_max: Duration::from_millis(200),
        // Its own mount namespace shows these directories under other names.
        run_dir: Some(libvirtd.directory().join("run/qemu")),
        ..Settings::new(libvirtd.uri(), clock)
    }
}

fn losses(told: &[Told]) -> Vec<(Wall, String)> {
    told.iter()
        .filter_map(|t| match t {
            Told::LinkLost { at, why } => Some((*at, why.clone())),
            _ => None,
        })
        .collect()
}

fn first_loss(connected: &Connected) -> (Wall, String) {
    connected.ears.wait("LinkLost", |told| losses(told).first().cloned())
}

#[test]
fn a_killed_libvirtd_is_one_loss_and_its_return_one_new_listing_with_the_same_process() {
    let _one = one_at_a_time();
    let directory = lab_dir().unwrap();
    let mut libvirtd = Libvirtd::start(directory.path().join("a"), "link-a").unwrap();
    let connected = Connected::to(settings(&libvirtd));
    let (hypervisor, ears) = (&connected.hypervisor, &connected.ears);
    assert!(ears.link_up(1).domains.is_empty());
    let stays = Guest::new(directory.path(), "stays").unwrap();
    let dies = Guest::new(directory.path(), "dies").unwrap();
    let stays_view = hypervisor.create(&stays.xml()).unwrap();
    let dies_view = hypervisor.create(&dies.xml()).unwrap();
    assert_eq!(stays_view.process.map(|p| p.pid), Some(libvirtd.qemu("stays").unwrap().pid()));

    let before = clock();
    libvirtd.kill_9().unwrap();
    let (at, why) = first_loss(&connected);
    assert!(at >= before && at <= clock(), "everything was heard up to the end");
    assert!(why.contains("closed the connection"), "{why}");
    ears.wait("StillDown", |told| told.iter().find(|t| matches!(t, Told::StillDown { .. })).cloned());
    assert_eq!(hypervisor.view(stays_view.domain.id), Err(Refusal::NoLink));
    libvirtd.qemu("dies").unwrap().signal(Signal::KILL).unwrap();

    libvirtd.start_again().unwrap();
    let listing = ears.link_up(2);
    let again = listing.domains.iter().find(|v| v.domain.id == stays_view.domain.id).unwrap();
    assert_eq!((again.state, again.process), (DomainState::Running, stays_view.process));
    assert!(!listing.domains.iter().any(|v| v.domain.id == dies_view.domain.id && v.process.is_some()));
    assert_eq!(losses(&ears.all()).len(), 1);

    // A fresh libvirtd holds the domain while it reconnects to QEMU. A destroy in that time ends the domain, is answered
    // with "no domain" and gives no event: measured, and libvirt's own. This command waits its turn.
    libvirtd.virsh(&["qemu-monitor-command", "stays", "--hmp", "info status"]).unwrap();
    hypervisor.destroy(stays_view.domain.id).unwrap();
    let ended = Happening::Stopped(StopDetail::Destroyed);
    ears.happenings(stays_view.domain.id, &ended);
    let stopped = ears.events(stays_view.domain.id).iter().filter(|e| e.what == ended).count();
    assert_eq!(stopped, 1, "the old link's registrations are gone");
}

#[test]
fn a_libvirtd_that_hangs_is_a_loss_since_the_last_certain_moment_and_hangs_nobody() {
    let _one = one_at_a_time();
    let directory = lab_dir().unwrap();
    let libvirtd = Libvirtd::start(directory.path().join("b"), "link-b").unwrap();
    let connected = Connected::to(settings(&libvirtd));
    connected.ears.link_up(1);
    // Leaves a connection for the first of the callers below; the others have to open theirs.
    connected.hypervisor.versions().unwrap();
    let paused = clock();
    libvirtd.pause().unwrap();
    // Several at once: on one shared connection their end by keepalive would crash libvirt's client.
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let hypervisor = connected.hypervisor.clone();
            std::thread::spawn(move || hypervisor.view(whydown_core::id::DomainId::from_bytes([1; 16])))
        })
        .collect();
    let (at, why) = first_loss(&connected);
    assert!(why.contains("keepalive"), "{why}");
    let noticed = clock();
    // Noticed 3 s later; by then nothing is certain since about the pause, and surely not since now.
    assert!(at < noticed && noticed.since(at) >= Duration::from_secs(2), "{at:?} {noticed:?}");
    assert!(at.since(paused) < Duration::from_secs(2), "{at:?} {paused:?}");
    // Callers in the middle of a call are let go, and later ones are refused at once.
    for caller in callers {
        assert_eq!(caller.join().unwrap(), Err(Refusal::NoLink));
    }
    assert!(connected.hypervisor.versions().is_err());
    libvirtd.unpause().unwrap();
    connected.ears.link_up(2);
}

#[test]
fn an_attempt_that_hangs_does_not_keep_the_program_from_stopping() {
    let _one = one_at_a_time();
    let directory = lab_dir().unwrap();
    let libvirtd = Libvirtd::start(directory.path().join("c"), "link-c").unwrap();
    libvirtd.pause().unwrap();
    let connected = Connected::to(settings(&libvirtd));
    assert_eq!(connected.hypervisor.versions(), Err(Refusal::NoLink));
    let begun = Instant::now();
    assert!(connected.hypervisor.stop());
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(connected.ears.all().is_empty());
    libvirtd.unpause().unwrap();
}

#[test]
fn many_calls_on_domains_that_hang_do_not_break_the_link_that_hears() {
    let _one = one_at_a_time();
    let directory = lab_dir().unwrap();
    let libvirtd = Libvirtd::start(directory.path().join("d"), "link-d").unwrap();
    let connected = Connected::to(settings(&libvirtd));
    let (hypervisor, ears) = (&connected.hypervisor, &connected.ears);
    ears.link_up(1);
    // libvirtd serves five calls of one connection at a time: eight that hang would fill it.
    let guests: Vec<_> = (0..8)
        .map(|number| {
            let guest = Guest::new(directory.path(), &format!("hangs{number}")).unwrap();
            let view = hypervisor.create(&guest.xml()).unwrap();
            guest.serial(LIMIT).unwrap();
            libvirtd.qemu(guest.name()).unwrap().signal(Signal::STOP).unwrap();
            view.domain
        })
        .collect();
    let well = hypervisor.create(&Guest::new(directory.path(), "well").unwrap().xml()).unwrap();
    let callers: Vec<_> = guests
        .iter()
        .map(|domain| {
            let (hypervisor, id) = (hypervisor.clone(), domain.id);
            std::thread::spawn(move || hypervisor.destroy(id))
        })
        .collect();
    // A destroy of a stopped QEMU takes ten seconds; meanwhile others are looked at.
    let mut looks = 0;
    while callers.iter().any(|caller| !caller.is_finished()) {
        let begun = Instant::now();
        assert!(hypervisor.view(well.domain.id).unwrap().is_some_and(|view| view.process == well.process));
        assert!(begun.elapsed() < Duration::from_secs(5), "a view waited for calls on other domains");
        looks += 1;
    }
    hypervisor.destroy(well.domain.id).unwrap();
    for caller in callers {
        caller.join().unwrap().unwrap();
    }
    for domain in &guests {
        ears.happenings(domain.id, &Happening::Stopped(StopDetail::Destroyed));
    }
    assert!(losses(&ears.all()).is_empty(), "the link broke: {:?}", losses(&ears.all()));
    assert!(looks > 10);
}
