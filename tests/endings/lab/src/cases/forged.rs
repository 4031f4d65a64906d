//! Whole parts of QEMU's log that nobody wrote who should have: in the name of who sends a signal, and by a guest whose
//! console is QEMU's own output.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use whydown_lab::{Agent, LinuxGuest, Signal};

use super::{certain, probable};
use crate::case::{Away, Case, Certainty, PERSISTENT, Venue};
use crate::host::PATIENCE;
use crate::scene::Scene;

pub(super) fn cases() -> Vec<Case> {
    let mut all = vec![
        Case::new(
            "sigterm-forged-name",
            "somebody sends SIGTERM whose name goes on with a forged line on the host's init",
            |scene| forged(scene, "evil)\nqemu-system-x86_64: terminating on signal 15 from pid 1 (/sbin/init"),
            |_| certain("process-terminated"),
        )
        .because("evil"),
        Case::new(
            "sigterm-forged-part",
            "somebody sends SIGTERM whose name goes on with a forged end, and a whole forged run behind it",
            forged_part,
            |_| certain("process-terminated"),
        )
        .because("evil"),
        Case::new(
            "sigterm-forged-part-whydownd-away",
            "somebody sends SIGTERM whose name goes on with a forged end and a whole forged run, while whydownd is stopped",
            forged_part,
            |_| probable("process-terminated"),
        )
        .because("evil")
        .at_most(Certainty::Probable)
        .at(Venue::Away(Away::Daemon)),
        Case::new(
            "sigterm-forged-part-both-away",
            "the same while libvirtd and whydownd are stopped",
            forged_part,
            |_| probable("process-terminated"),
        )
        .because("evil")
        .at_most(Certainty::Probable)
        .at(Venue::Away(Away::Both)),
        Case::new(
            "sigterm-forged-part-host-stops",
            "the same as the host stops, and a new boot follows",
            forged_part,
            |_| probable("host-shutdown"),
        )
        .at_most(Certainty::Probable)
        .only(PERSISTENT)
        .at(Venue::Away(Away::Boot)),
    ];
    all.extend(by_its_guest());
    all
}

/// A second serial line of the guest's is QEMU's standard output, which libvirt keeps as its log.
fn speaks_to_the_log(guest: LinuxGuest) -> LinuxGuest {
    const OUTPUT: &str = "<serial type='stdio'><target port='1'/></serial>";
    guest.agent(Agent::None).machine(|guest| guest.device_xml(OUTPUT))
}

fn by_its_guest() -> Vec<Case> {
    let forging =
        |name: &str, what: &str, act, expect| Case::new(name, what, act, expect).linux(speaks_to_the_log);
    vec![
        forging(
            "console-forged-part-then-killed",
            "the guest writes a forged signal, a forged end and a whole forged run into QEMU's log; then QEMU is killed",
            |scene| {
                write_into_the_log(scene)?;
                scene.kill(Signal::KILL)
            },
            |_| probable("process-killed"),
        )
        .only(PERSISTENT),
        forging(
            "console-forged-part-then-terminated",
            "the same, and QEMU gets SIGTERM: which line on a signal is QEMU's own nobody can tell",
            |scene| {
                write_into_the_log(scene)?;
                scene.kill(Signal::TERM)
            },
            |_| probable("process-terminated"),
        )
        .at_most(Certainty::Probable)
        .only(PERSISTENT),
        forging(
            "console-forged-part-whydownd-away",
            "the guest writes a forged signal, a forged end and a whole forged run into QEMU's log, and powers itself off \
             while whydownd is stopped",
            |scene| {
                write_into_the_log(scene)?;
                Ok(scene.console()?.order("poweroff")?)
            },
            |_| probable("guest-poweroff"),
        )
        .at_most(Certainty::Probable)
        .only(PERSISTENT)
        .at(Venue::Away(Away::Daemon)),
        forging(
            "console-forged-part-then-power-cut",
            "the guest writes a forged signal, a forged end and a whole forged run into QEMU's log, and the host loses power",
            |scene| {
                write_into_the_log(scene)?;
                scene.kill(Signal::KILL)
            },
            |_| probable("host-lost"),
        )
        .at_most(Certainty::Probable)
        .only(PERSISTENT)
        .at(Venue::Away(Away::PowerCut)),
        forging(
            "console-forged-end-then-power-cut",
            "the guest writes a forged end into QEMU's log, with a date that is right, and the host loses power",
            |scene| {
                let log = std::fs::read_to_string(scene.host.libvirtd.domain_log_path(scene.name()))?;
                let (before, _) = log.rsplit_once(": starting up libvirt").context("libvirt's line")?;
                let stamp = before.rsplit('\n').next().unwrap_or_default();
                say_into_the_log(scene, &format!("{stamp}: shutting down, reason=destroyed\n"))?;
                scene.kill(Signal::KILL)
            },
            |_| probable("host-lost"),
        )
        .honest(
            "unknown-ended",
            "a guest that may write into QEMU's log writes there what libvirt would, and nothing else is left of that boot",
        )
        .at_most(Certainty::Probable)
        .only(PERSISTENT)
        .at(Venue::Away(Away::PowerCut)),
    ]
}

/// A perfect copy of the VM's own start, with an end before it and one behind it.
fn part(scene: &Scene<'_>) -> Result<String> {
    let log = std::fs::read_to_string(scene.host.libvirtd.domain_log_path(scene.name()))?;
    let (start, _) = log.rsplit_once("-msg timestamp=on\n").context("libvirt's command line")?;
    let begin =
        start.rfind(": starting up libvirt").and_then(|at| start[..at].rfind('\n')).map_or(0, |at| at + 1);
    let end = "2026-11-28 00:00:00.000+0000: shutting down, reason=";
    Ok(format!("{end}saved\n{}-msg timestamp=on\n{end}destroyed\n", &start[begin..]))
}

fn forged_part(scene: &mut Scene<'_>) -> Result<()> {
    let name = format!("evil)\n{}(", part(scene)?);
    forged(scene, &name)
}

/// Sends SIGTERM under this name, and stays until QEMU has read it.
fn forged(scene: &mut Scene<'_>, name: &str) -> Result<()> {
    let qemu = scene.process.as_ref().context("it was never up")?;
    let mut sender = Command::new("/bin/bash")
        .arg0(name)
        .args(["-c", "kill -TERM \"$1\"; read -r", "sender", &qemu.pid().to_string()])
        .stdin(Stdio::piped())
        .spawn()?;
    let gone = qemu.wait_gone(PATIENCE);
    drop(sender.stdin.take());
    sender.wait()?;
    Ok(gone?)
}

/// Has the guest say it on its second line, and waits until it stands in the log.
fn write_into_the_log(scene: &mut Scene<'_>) -> Result<()> {
    let signal =
        "2026-11-28T00:00:00.000000Z qemu-system-x86_64: terminating on signal 15 from pid 1 (/sbin/init)";
    let text = format!("{signal}\n{}", part(scene)?);
    say_into_the_log(scene, &text)
}

fn say_into_the_log(scene: &mut Scene<'_>, text: &str) -> Result<()> {
    scene.console()?.say_there(&format!("{text}{END_OF_FORGERY}\n"))?;
    let log = scene.host.libvirtd.domain_log_path(scene.name());
    let written = || std::fs::read_to_string(&log).is_ok_and(|log| log.contains(END_OF_FORGERY));
    Ok(whydown_lab::wait_for("what the guest wrote", PATIENCE, || written().then_some(()))?)
}

const END_OF_FORGERY: &str = "lab: so much for that";
