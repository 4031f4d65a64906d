//! Against real QEMU, with libvirt's driver in this process: how real endings are heard.
//!
//! A process may open only one embedded root, so all tests share one, each with its own guest.

use std::sync::LazyLock;

use told::{Connected, LIMIT, clock};
use whydown_core::hypervisor::{
    CrashDetail, DomainState, DomainView, Happening, PauseReason, QemuReason, ShutdownDetail, StartDetail,
    StopDetail,
};
use whydown_lab::{EmbedRoot, Guest, OnCrash, OnEnd, Serial, Signal, lab_dir};
use whydown_libvirt::{Refusal, Settings, ShutdownHow};

mod told;

/// Never dropped: the lab's guard removes it, guests and all, when this process is gone.
static ROOT: LazyLock<EmbedRoot> = LazyLock::new(|| {
    let directory = lab_dir().expect("a directory").keep();
    EmbedRoot::new(directory).expect("an embedded root")
});

fn connected() -> Connected {
    let connected = Connected::to(Settings::new(ROOT.uri(), clock));
    connected.ears.link_up(1);
    connected
}

fn guest(name: &str) -> Guest {
    Guest::new(ROOT.directory(), name).expect("a guest")
}

fn run(connected: &Connected, guest: &Guest) -> (DomainView, Serial) {
    let view = connected.hypervisor.create(&guest.xml()).expect("the guest starts");
    (view, guest.serial(LIMIT).expect("the guest answers"))
}

const STOPPED_SHUTDOWN: Happening = Happening::Stopped(StopDetail::Shutdown);
const STOPPED_FAILED: Happening = Happening::Stopped(StopDetail::Failed);

/// `wanted` come in this order, with others in between.
fn in_order(all: &[Happening], wanted: &[Happening]) {
    let mut rest = all.iter();
    for one in wanted {
        assert!(rest.any(|happening| happening == one), "{one:?} is not in its place in {all:#?}");
    }
}

#[test]
fn a_guest_that_powers_itself_off_is_heard_from_its_start_to_its_end_with_its_process() {
    let connected = connected();
    let (view, mut serial) = run(&connected, &guest("poweroff"));
    let qemu = ROOT.qemu("poweroff").unwrap();
    let process = view.process.expect("the process is found");
    assert_eq!(process.pid, qemu.pid());
    assert_eq!((view.state, view.persistent), (DomainState::Running, false));
    serial.power_off().unwrap();
    let all = connected.ears.happenings(view.domain.id, &STOPPED_SHUTDOWN);
    in_order(
        &all,
        &[
            Happening::Started(StartDetail::Booted),
            Happening::QemuShutdown { guest: true, reason: QemuReason::GuestShutdown },
            STOPPED_SHUTDOWN,
        ],
    );
    in_order(&all, &[Happening::ShutdownBegan(ShutdownDetail::Guest), STOPPED_SHUTDOWN]);
    assert!(!all.contains(&Happening::QemuPowerdown));
    let events = connected.ears.events(view.domain.id);
    let started = events.iter().find(|e| matches!(e.what, Happening::Started(_))).unwrap();
    assert_eq!(started.process, Some(process));
    assert_eq!(started.domain, view.domain);
    assert!(events.iter().filter(|e| !matches!(e.what, Happening::Started(_))).all(|e| e.process.is_none()));
    assert_eq!(connected.hypervisor.view(view.domain.id), Ok(None));
    let log = connected.hypervisor.log_path("poweroff").unwrap();
    assert!(std::fs::read_to_string(log).unwrap().contains("reason=shutdown"));
}

#[test]
fn a_killed_qemu_is_stopped_as_failed_and_nothing_else() {
    let connected = connected();
    let (view, _serial) = run(&connected, &guest("killed"));
    ROOT.qemu("killed").unwrap().signal(Signal::KILL).unwrap();
    let all = connected.ears.happenings(view.domain.id, &STOPPED_FAILED);
    assert!(!all.iter().any(|h| matches!(h, Happening::ShutdownBegan(_) | Happening::QemuShutdown { .. })));
}

#[test]
fn a_destroyed_domain_is_stopped_as_destroyed_and_is_gone() {
    let connected = connected();
    let (view, _serial) = run(&connected, &guest("destroyed"));
    let id = view.domain.id;
    assert!(connected.hypervisor.domain_xml(id).unwrap().contains("<name>destroyed</name>"));
    connected.hypervisor.destroy(id).unwrap();
    connected.ears.happenings(id, &Happening::Stopped(StopDetail::Destroyed));
    assert_eq!(connected.hypervisor.destroy(id), Err(Refusal::NoDomain));
}

#[test]
fn a_power_button_is_heard_before_the_shutdown_that_it_brings() {
    let connected = connected();
    let (view, _serial) = run(&connected, &guest("button"));
    let refused = connected.hypervisor.shutdown(view.domain.id, ShutdownHow::Agent);
    assert!(matches!(&refused, Err(Refusal::Refused { text, .. }) if text.contains("agent")), "{refused:?}");
    connected.hypervisor.shutdown(view.domain.id, ShutdownHow::Acpi).unwrap();
    let all = connected.ears.happenings(view.domain.id, &STOPPED_SHUTDOWN);
    in_order(
        &all,
        &[
            Happening::QemuPowerdown,
            Happening::QemuShutdown { guest: true, reason: QemuReason::GuestShutdown },
            STOPPED_SHUTDOWN,
        ],
    );
}

#[test]
fn a_panicking_guest_is_heard_as_crashed() {
    let connected = connected();
    let (view, mut serial) = run(&connected, &guest("panics").on_crash(OnCrash::Destroy));
    serial.panic().unwrap();
    let stopped = Happening::Stopped(StopDetail::Crashed);
    let all = connected.ears.happenings(view.domain.id, &stopped);
    in_order(&all, &[Happening::GuestCrashed(CrashDetail::Panicked), stopped.clone()]);
    in_order(&all, &[Happening::QemuPanicked, stopped]);
}

#[test]
fn a_reset_is_no_ending() {
    let connected = connected();
    let (view, mut serial) = run(&connected, &guest("resets").on_reboot(OnEnd::Restart));
    serial.reset().unwrap();
    serial.started_again(LIMIT).unwrap();
    let all = connected.ears.happenings(view.domain.id, &Happening::Rebooted);
    assert!(!all.iter().any(|h| matches!(h, Happening::Stopped(_) | Happening::ShutdownBegan(_))), "{all:?}");
    connected
        .ears
        .happenings(view.domain.id, &Happening::QemuReset { guest: true, reason: QemuReason::GuestReset });
    let now = connected.hypervisor.view(view.domain.id).unwrap().unwrap();
    assert_eq!((now.state, now.process), (DomainState::Running, view.process));
    connected.hypervisor.destroy(view.domain.id).unwrap();
}

#[test]
fn a_listing_shows_what_runs_with_its_process_and_state() {
    let first = connected();
    let (view, _serial) = run(&first, &guest("listed"));
    let other = virt::connect::Connect::open(Some(&ROOT.uri())).unwrap();
    let dom = other.lookup_domain_by_uuid_string(&view.domain.id.to_string()).unwrap();
    dom.suspend().unwrap();
    let second = connected();
    let listing = second.ears.link_up(1);
    let listed = listing.domains.iter().find(|v| v.domain.id == view.domain.id).unwrap();
    assert_eq!(listed.state, DomainState::Paused(PauseReason::User));
    assert_eq!((listed.process, listed.persistent), (view.process, false));
    assert_eq!((&listed.domain, listed.managed_save), (&view.domain, Some(false)));
    first.hypervisor.destroy(view.domain.id).unwrap();
    let versions = second.hypervisor.versions().unwrap();
    assert!(versions.hypervisor.is_some_and(|version| version > 2_000_000));
    assert_eq!(versions.driver, "QEMU");
}

#[test]
fn a_domain_that_cannot_start_is_refused_in_libvirts_own_words() {
    let connected = connected();
    let guest = guest("nodisk");
    let xml = guest.xml().replace(&guest.image_path().display().to_string(), "/there/is/no/such/disk");
    let refused = connected.hypervisor.create(&xml);
    assert!(
        matches!(&refused, Err(Refusal::Refused { text, .. }) if text.contains("/there/is/no/such/disk"))
    );
}
