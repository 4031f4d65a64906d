//! Signals from processes, from libvirt, and from nobody.

use std::process::Command;

use whydown_lab::{Launch, Result, Signal, wait_until};

use crate::signals::tracing_host;
use whydown_lab::host::{Host, PATIENCE, says, told};

#[test]
fn whoever_kills_a_vm_is_named_and_then_it_is_certain() -> Result<()> {
    let host = tracing_host("named")?;
    let killed = host.guest("killed")?;
    let _a = host.up(&killed)?;
    let qemu = host.libvirtd.qemu("killed")?.pid().to_string();
    let mut kill = Command::new("/bin/kill").args(["-9", &qemu]).spawn().expect("procps is installed");
    let by = kill.id();
    assert!(kill.wait().expect("it ends").success());
    let ending = host.check(&killed, &told("process-killed", 1, 2), "certain")?;
    let words = format!("SIGKILL from process {by}, \"kill\": somebody on the host");
    assert!(says(&ending["because"], &words), "{ending:#}");
    assert_eq!(ending["despite"].as_array().map(Vec::len), Some(0), "{ending:#}");
    let killed_by_it = says(&ending["because"], "the process was killed by signal 9");
    assert!(killed_by_it || !says(&ending["evidence"], "signal 9"), "both agree: {ending:#}");

    // The signal of a fault, from somebody: QEMU is not to blame.
    let faulted = host.guest("faulted")?;
    let _b = host.up(&faulted)?;
    host.libvirtd.qemu("faulted")?.signal(Signal::SEGV)?;
    let ending = host.check(&faulted, &told("process-terminated", 1, 11), "certain")?;
    let me = std::process::id();
    assert!(says(&ending["because"], &format!("SIGSEGV from process {me}, ")), "{ending:#}");

    // QEMU's own log names the sender of a signal that it obeys: it is the same one.
    let ended = host.guest("ended")?;
    let _c = host.up(&ended)?;
    host.libvirtd.qemu("ended")?.signal(Signal::TERM)?;
    let ending = host.check(&ended, &told("process-terminated", 1, 11), "certain")?;
    assert!(says(&ending["because"], &format!("SIGTERM from process {me}, ")), "{ending:#}");
    let log = std::fs::read_to_string(host.libvirtd.directory().join("log/qemu/ended.log")).expect("a log");
    assert!(log.contains(&format!("terminating on signal 15 from pid {me} ")), "{log}");
    Ok(())
}

#[test]
fn what_libvirt_does_to_its_own_processes_is_no_outsiders_kill() -> Result<()> {
    let host = tracing_host("own")?;
    let destroyed = host.guest("destroyed")?;
    let _a = host.up(&destroyed)?;
    host.libvirtd.destroy("destroyed")?;
    let ending = host.check(&destroyed, &told("outside-destroyed", 1, 2), "certain")?;
    assert!(!says(&ending["evidence"], "somebody on the host"), "{ending:#}");

    // One that does not run can only be killed: libvirt asks first, waits, and sends SIGKILL.
    let stuck = host.guest("stuck")?;
    let _b = host.up(&stuck)?;
    host.libvirtd.qemu("stuck")?.signal(Signal::STOP)?;
    host.libvirtd.destroy("stuck")?;
    let ending = host.check(&stuck, &told("outside-destroyed", 1, 2), "certain")?;
    assert!(says(&ending["evidence"], "libvirt itself"), "{ending:#}");
    assert_eq!(ending["despite"].as_array().map(Vec::len), Some(0), "{ending:#}");

    let off = host.guest("off")?;
    host.up(&off)?.power_off()?;
    host.check(&off, &told("guest-poweroff", 0, 7), "certain")?;
    Ok(())
}

#[test]
fn a_daemon_that_was_killed_leaves_no_tracing_behind_its_next_start() -> Result<()> {
    let mut host = tracing_host("left")?;
    let instances = |host: &Host, pid: u32| {
        let mine = format!("whydown-{pid}-");
        host.daemon.trace_instances().iter().filter(|name| name.starts_with(&mine)).count()
    };
    let first = host.daemon.pid().expect("it runs");
    assert_eq!(instances(&host, first), 1);
    host.daemon.kill_9()?;
    host.daemon.start_again()?;
    let second = host.daemon.pid().expect("it runs");
    assert_eq!((instances(&host, first), instances(&host, second)), (0, 1));

    let killed = host.guest("killed")?;
    let _a = host.up(&killed)?;
    host.libvirtd.qemu("killed")?.signal(Signal::KILL)?;
    wait_until("it is down", PATIENCE, || host.status(&killed).as_deref() == Some("down"));
    let ending = host.ending(&killed);
    assert!(says(&ending["because"], "SIGKILL from process"), "{ending:#}");
    Ok(())
}

#[test]
fn where_nothing_can_be_traced_health_says_so_and_what_to_do() -> Result<()> {
    let nowhere = |launch: Launch| launch.environment("WHYDOWN_WITNESS__TRACEFS", "/tmp");
    let host = Host::start_as("deaf", "", nowhere)?;
    let health = host.whydown(&["--json", "health"])?;
    let unavailable = health["unavailable_sources"].as_array().expect("a list");
    let signals = unavailable.iter().find(|one| one["name"] == "signals").expect("it is named");
    let why = signals["why"].as_str().expect("a text");
    assert!(why.contains("no tracefs at /tmp: mount -t tracefs"), "{health:#}");
    Ok(())
}
