//! A libvirtd of one's own: machines live whole lives under it and outlive its restarts.

use std::process::Command;
use std::time::Duration;

use whydown_lab::{
    BootDisk, Error, Guest, Libvirtd, OnCrash, OnEnd, Result, Signal, WatchdogAction, lab_dir,
};

const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_transient_guest_lives_a_whole_life() -> Result<()> {
    let directory = lab_dir()?;
    let libvirtd = Libvirtd::start(directory.path().join("a"), "lab-a")?;
    let guest = Guest::new(directory.path(), "life")?;
    assert_eq!(libvirtd.state("life")?, None);
    libvirtd.create(&guest)?;
    let mut serial = guest.serial(LIMIT)?;
    assert_eq!(libvirtd.state("life")?.as_deref(), Some("running (booted)"));
    let qemu = libvirtd.qemu("life")?;
    serial.power_off()?;
    libvirtd.wait_state("life", None, LIMIT)?;
    assert!(!qemu.is_alive());
    let log = std::fs::read_to_string(libvirtd.domain_log_path("life")).unwrap();
    assert!(log.contains("shutting down, reason=shutdown"), "{log}");
    Ok(())
}

#[test]
fn guests_live_on_while_libvirtd_is_restarted_or_killed() -> Result<()> {
    let directory = lab_dir()?;
    let mut libvirtd = Libvirtd::start(directory.path().join("a"), "lab-a")?;
    let guest = Guest::new(directory.path(), "keeps")?;
    libvirtd.define(&guest)?;
    libvirtd.start_domain("keeps")?;
    let mut serial = guest.serial(LIMIT)?;
    let first = libvirtd.pid();

    libvirtd.restart()?;
    assert_ne!(libvirtd.pid(), first);
    assert_eq!(libvirtd.state("keeps")?.as_deref(), Some("running (booted)"));
    serial.answer(LIMIT)?;

    libvirtd.kill_9()?;
    assert_eq!(libvirtd.pid(), None);
    serial.answer(LIMIT)?;
    libvirtd.start_again()?;
    assert_eq!(libvirtd.state("keeps")?.as_deref(), Some("running (booted)"));
    serial.answer(LIMIT)?;

    libvirtd.destroy("keeps")?;
    assert_eq!(libvirtd.state("keeps")?.as_deref(), Some("shut off (destroyed)"));
    Ok(())
}

#[test]
fn the_guest_ends_in_every_way_it_knows() -> Result<()> {
    let directory = lab_dir()?;
    let libvirtd = Libvirtd::start(directory.path().join("a"), "lab-a")?;
    let start = |guest: &Guest| {
        libvirtd.define(guest)?;
        libvirtd.start_domain(guest.name())?;
        guest.serial(LIMIT)
    };

    let guest = Guest::new(directory.path(), "reset")?.on_reboot(OnEnd::Destroy);
    start(&guest)?.reset()?;
    libvirtd.wait_state("reset", Some("shut off (shutdown)"), LIMIT)?;

    let guest = Guest::new(directory.path(), "again")?;
    let mut serial = start(&guest)?;
    serial.triple_fault()?;
    serial.started_again(LIMIT)?;
    serial.answer(LIMIT)?;
    serial.crash_loaded()?;
    assert_eq!(libvirtd.state("again")?.as_deref(), Some("running (booted)"));
    serial.panic()?;
    libvirtd.wait_state("again", Some("shut off (crashed)"), LIMIT)?;

    let guest = Guest::new(directory.path(), "kept")?.on_crash(OnCrash::Preserve);
    start(&guest)?.panic()?;
    libvirtd.wait_state("kept", Some("crashed (panicked)"), LIMIT)?;

    let guest = Guest::new(directory.path(), "dog")?.watchdog(WatchdogAction::Pause);
    start(&guest)?.arm_watchdog()?;
    libvirtd.wait_state("dog", Some("paused (watchdog)"), LIMIT)?;

    let guest = Guest::new(directory.path(), "button")?;
    let mut serial = start(&guest)?;
    serial.ignore_button()?;
    libvirtd.virsh(&["shutdown", "button", "--mode", "acpi"])?;
    serial.answer(LIMIT)?;
    assert_eq!(libvirtd.state("button")?.as_deref(), Some("running (booted)"));
    serial.reset()?;
    serial.started_again(LIMIT)?;
    serial.answer(LIMIT)?;
    libvirtd.virsh(&["shutdown", "button", "--mode", "acpi"])?;
    libvirtd.wait_state("button", Some("shut off (shutdown)"), LIMIT)?;

    let guest = Guest::new(directory.path(), "shot")?;
    let mut serial = start(&guest)?;
    serial.hang()?;
    let error = serial.answer(Duration::from_secs(1)).expect_err("a hanging guest cannot answer");
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    libvirtd.qemu("shot")?.signal(Signal::KILL)?;
    libvirtd.wait_state("shot", Some("shut off (crashed)"), LIMIT)
}

#[test]
fn a_guest_without_room_is_stopped_by_its_write_and_finishes_it_when_there_is_room() -> Result<()> {
    let directory = lab_dir()?;
    let libvirtd = Libvirtd::start(directory.path().join("a"), "lab-a")?;

    let guest = Guest::new(directory.path(), "room")?.boot_disk(BootDisk::Writable("stop"));
    libvirtd.create(&guest)?;
    let mut serial = guest.serial(LIMIT)?;
    serial.write_sector()?;
    assert_eq!(serial.written(LIMIT)?, Some(0));

    let disk = libvirtd.full_disk("full")?;
    let guest =
        Guest::new(directory.path(), "full")?.boot_disk(BootDisk::Writable("stop")).image(disk.image());
    libvirtd.create(&guest)?;
    let mut serial = guest.serial(LIMIT)?;
    serial.write_sector()?;
    libvirtd.wait_state("full", Some("paused (I/O error)"), LIMIT)?;
    disk.make_room()?;
    libvirtd.virsh(&["resume", "full"])?;
    assert_eq!(serial.written(LIMIT)?, Some(0));
    Ok(())
}

#[test]
fn a_paused_libvirtd_says_nothing_until_it_is_let_go() -> Result<()> {
    let directory = lab_dir()?;
    let libvirtd = Libvirtd::start(directory.path().join("a"), "lab-a")?;
    libvirtd.pause()?;
    let uri = libvirtd.uri();
    let ask = |limit| whydown_lab::run(Command::new("virsh").args(["-c", &uri, "uri"]), limit);
    let error = ask(Duration::from_secs(2)).expect_err("a paused libvirtd cannot answer");
    assert!(matches!(error, Error::TimedOut { .. }), "{error}");
    libvirtd.unpause()?;
    ask(LIMIT).map(drop)
}

#[test]
fn two_stand_side_by_side_and_a_guest_moves_from_one_to_the_other() -> Result<()> {
    let directory = lab_dir()?;
    let here = Libvirtd::start(directory.path().join("a"), "lab-a")?;
    let there = Libvirtd::start(directory.path().join("b"), "lab-b")?;
    let guest = Guest::new(directory.path(), "moves")?;
    here.create(&guest)?;
    drop(guest.serial(LIMIT)?);
    // Both ends are on one machine, so the other end needs a socket path of its own.
    let arrived = guest.xml().replace("moves.ser", "moved.ser");
    let xml = directory.path().join("moved.xml");
    std::fs::write(&xml, arrived).unwrap();
    let socket = format!("unix://{}/m.sock", directory.path().display());
    let (xml, to) = (xml.to_string_lossy(), there.uri());
    here.virsh(&["migrate", "moves", "--live", "--desturi", &to, "--migrateuri", &socket, "--xml", &xml])?;
    assert_eq!(here.state("moves")?, None);
    assert_eq!(there.state("moves")?.as_deref(), Some("running (migrated)"));
    let mut serial = whydown_lab::Serial::connect(&directory.path().join("moved.ser"), LIMIT)?;
    serial.power_off()?;
    there.wait_state("moves", None, LIMIT)
}

#[test]
fn nothing_is_left_when_the_handle_is_dropped() -> Result<()> {
    let directory = lab_dir()?;
    let path = directory.path().join("a");
    let libvirtd = Libvirtd::start(&path, "lab-a")?;
    let guest = Guest::new(directory.path(), "left")?;
    libvirtd.create(&guest)?;
    drop(guest.serial(LIMIT)?);
    let qemu = libvirtd.qemu("left")?;
    assert!(qemu.is_alive());
    drop(libvirtd);
    assert!(!qemu.is_alive());
    assert!(!path.exists());
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
    assert!(!mounts.contains(&*path.to_string_lossy()), "{mounts}");
    Ok(())
}
