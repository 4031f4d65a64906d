//! Endings that nobody heard: the daemon or libvirtd was away, or was killed at the worst moment.

use std::time::Duration;

use whydown_lab::{Result, Signal, wait_until};

use crate::host::{Host, PATIENCE, says, told};

#[test]
fn what_ends_while_the_daemon_is_away_is_found_and_never_certain() -> Result<()> {
    let mut host = Host::start("away")?;
    let (stays, off) = (host.guest("stays")?, host.guest("off")?);
    let (transient, killed) = (host.guest("transient")?, host.guest("killed")?);
    let _stays = host.up(&stays)?;
    let mut off_serial = host.up_persistent(&off)?;
    let mut transient_serial = host.up(&transient)?;
    let _killed = host.up(&killed)?;
    let run = host.run(&stays);

    host.daemon.terminate()?;
    off_serial.power_off()?;
    transient_serial.power_off()?;
    host.libvirtd.qemu("killed")?.signal(Signal::KILL)?;
    host.libvirtd.wait_state("off", Some("shut off (shutdown)"), PATIENCE)?;
    host.libvirtd.wait_state("transient", None, PATIENCE)?;
    host.libvirtd.wait_state("killed", None, PATIENCE)?;
    host.daemon.start_again()?;

    host.check(&off, &told("guest-poweroff", 0, 7), "probable")?;
    host.check(&transient, &told("guest-poweroff", 0, 7), "probable")?;
    let ending = host.check(&killed, &told("process-lost", 1, 2), "probable")?;
    assert!(ending["ended_not_before"].is_string(), "a window: {ending:#}");
    assert_eq!(
        (host.status(&stays).as_deref(), host.run(&stays)),
        (Some("up"), run),
        "what runs keeps its run"
    );
    Ok(())
}

#[test]
fn libvirtd_may_come_and_go() -> Result<()> {
    let mut host = Host::start("restart")?;
    let (stays, off) = (host.guest("stays")?, host.guest("off")?);
    let _stays = host.up(&stays)?;
    let mut serial = host.up_persistent(&off)?;
    let run = host.run(&stays);
    host.libvirtd.restart()?;
    assert_eq!(host.run(&stays), run);
    assert_eq!(host.status(&off).as_deref(), Some("up"));

    host.libvirtd.kill_9()?;
    serial.power_off()?;
    host.libvirtd.start_again()?;
    let ending = host.ending(&off);
    assert_eq!(
        (ending["cause"].as_str(), ending["exit_code"].as_i64()),
        (Some("guest-poweroff"), Some(0)),
        "{ending:#}"
    );
    assert_eq!(ending["certainty"], "probable");
    assert!(says(&ending["evidence"], "was not listening"), "{ending:#}");
    wait_until("the other is up", PATIENCE, || host.status(&stays).as_deref() == Some("up"));
    assert_eq!(host.run(&stays), run);
    Ok(())
}

#[test]
fn a_daemon_killed_at_the_end_of_a_vm_tells_it_once_and_rightly() -> Result<()> {
    let mut host = Host::start("crash")?;
    for (round, wait_ms) in [0u64, 60, 150, 210, 260, 400].into_iter().enumerate() {
        let guest = host.guest(&format!("c{round}"))?;
        let mut serial = host.up_persistent(&guest)?;
        serial.power_off()?;
        // The moment of the kill is what is tried here, from before the first event to after the commit.
        std::thread::sleep(Duration::from_millis(wait_ms));
        host.daemon.kill_9()?;
        host.libvirtd.wait_state(guest.name(), Some("shut off (shutdown)"), PATIENCE)?;
        host.daemon.start_again()?;
        let ending = host.ending(&guest);
        assert_eq!(ending["cause"], "guest-poweroff", "after {wait_ms} ms: {ending:#}");
        assert_eq!(host.history(&guest)?.len(), 1, "after {wait_ms} ms");
        host.daemon.restart()?;
        assert_eq!(host.ending(&guest), ending, "a restart changes nothing");
    }
    Ok(())
}

#[test]
fn a_hung_vm_holds_up_nobody() -> Result<()> {
    let host = Host::start("hung")?;
    let (hung, other) = (host.guest("hung")?, host.guest("other")?);
    let (_a, _b) = (host.up(&hung)?, host.up(&other)?);
    let qemu = host.libvirtd.qemu("hung")?;
    qemu.signal(Signal::STOP)?;
    let asked = std::time::Instant::now();
    assert_eq!(host.call("getAllVmStats()")?, 0);
    assert_eq!(host.call(&format!("destroy('{}')", other.uuid_text()))?, 0);
    assert!(asked.elapsed() < Duration::from_secs(8), "held up for {:?}", asked.elapsed());
    host.libvirtd.pause()?;
    assert_eq!(host.call("getAllVmStats()")?, 0, "a hung libvirtd does not hurt a poll");
    host.libvirtd.unpause()?;
    qemu.signal(Signal::CONT)?;
    Ok(())
}
