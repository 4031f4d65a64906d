//! KVM cannot go on, and QEMU stops the machine for that. Where there is no KVM a library stands in for the reason alone:
//! the words, QEMU's state and everything that follows from them are QEMU's and libvirt's own.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use whydown_lab::{Guest, Signal, run, wait_for};

use super::{certain, none, probable};
use crate::case::{Case, PERSISTENT};
use crate::host::PATIENCE;
use crate::scene::Scene;

/// The ending of the emulator that loads the library beside it.
pub(crate) const EMULATOR: &str = "internal";

const SOURCE: &str = include_str!("internal-error.c");

const WORDS: &str = "KVM internal error. Suberror: 1";

fn with_library(guest: Guest) -> Guest {
    let emulator = guest.image_path().with_extension(EMULATOR);
    guest.device_xml(&format!("<emulator>{}</emulator>\n", emulator.display()))
}

/// Compiles the library beside the emulator.
pub(crate) fn write_library(emulator: &Path) -> Result<()> {
    let (source, library) = (format!("{}.c", emulator.display()), format!("{}.so", emulator.display()));
    std::fs::write(&source, SOURCE)?;
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-O1", "-pthread", "-o", &library, &source, "-ldl"]);
    run(&mut compile, PATIENCE).map(drop).context("the library that stands in for KVM")
}

/// QEMU stops the machine, libvirt shows it paused without a reason, and whydown says what QEMU said.
fn fails(scene: &mut Scene<'_>) -> Result<()> {
    let emulator = scene.guest.image_path().with_extension(EMULATOR);
    std::fs::write(format!("{}.so.now", emulator.display()), "")?;
    scene.wait_state("paused (unknown)")?;
    let said = scene.host.libvirtd.virsh(&[
        "qemu-monitor-command",
        scene.name(),
        "{\"execute\":\"query-status\"}",
    ])?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(said.contains("\"internal-error\""), "QEMU is in another state: {said}");
    Ok(wait_for("QEMU's words in what is shown", PATIENCE, || {
        let shown = scene.host.shown(&scene.guest)?;
        (shown["status"] == "paused" && shown["paused_by"].as_str()?.contains(WORDS)).then_some(())
    })?)
}

pub(super) fn cases() -> Vec<Case> {
    const STAND_IN: &str = "(in place of KVM a library stops QEMU, in QEMU's words and state)";
    let failing = |name: &str, what: &str, act, expect| {
        Case::new(name, &format!("{what} {STAND_IN}"), act, expect).guest(with_library)
    };
    vec![
        failing("internal-error", "KVM has an internal error, and QEMU stops the machine", fails, none),
        failing(
            "internal-error-destroyed",
            "KVM has an internal error; another client destroys the VM that stands still",
            |scene| {
                fails(scene)?;
                scene.virsh("destroy VM")
            },
            |_| certain("outside-destroyed"),
        )
        .led_by(WORDS),
        failing(
            "internal-error-killed",
            "KVM has an internal error, and QEMU is killed",
            |scene| {
                fails(scene)?;
                scene.kill(Signal::KILL)
            },
            |_| probable("process-killed"),
        )
        .led_by(WORDS)
        .only(PERSISTENT),
        failing(
            "internal-error-reset",
            "KVM has an internal error, another client resets and resumes the VM, and the guest powers itself off",
            |scene| {
                fails(scene)?;
                scene.virsh("reset VM")?;
                scene.virsh("resume VM")?;
                scene.serial()?.started_again(PATIENCE)?;
                scene.serial()?.answer(PATIENCE)?;
                Ok(scene.serial()?.power_off()?)
            },
            |_| certain("guest-poweroff"),
        )
        .only(PERSISTENT),
    ]
}
