//! Limits that the host sets for QEMU's process, on processor time and on the size of files.

use anyhow::{Context, Result};
use whydown_lab::BootDisk;

use super::{certain, none, probable};
use crate::case::{Case, PERSISTENT, Venue};
use crate::host::PATIENCE;
use crate::scene::Scene;

/// Seconds of processor time: a QEMU has used less before its guest is up, or dies as soon as the limit is set.
const SOFT: &str = "--cpu=2:3600";
/// The kernel sends SIGKILL, and no SIGXCPU before, where both are one.
const HARD: &str = "--cpu=3:3";

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "processor-limit",
            "QEMU reaches a limit on its processor time",
            |scene| spin(scene, SOFT),
            |_| probable("limit-reached"),
        ),
        Case::new(
            "processor-limit-traced",
            "QEMU reaches a limit on its processor time, where signals are traced",
            |scene| spin(scene, SOFT),
            |_| certain("limit-reached"),
        )
        .because("SIGXCPU from the kernel itself")
        .at(Venue::Traced),
        Case::new(
            "processor-hard-limit",
            "QEMU reaches a hard limit on its processor time, at which the kernel sends SIGKILL",
            |scene| spin(scene, HARD),
            |_| probable("limit-reached"),
        )
        .honest("process-killed", "SIGKILL leaves no word of who sent it where signals are not traced"),
        Case::new(
            "processor-hard-limit-traced",
            "QEMU reaches a hard limit on its processor time, where signals are traced",
            |scene| spin(scene, HARD),
            |_| probable("limit-reached"),
        )
        .because("SIGKILL from the kernel itself")
        .because("of which its hard limit gives it 3 s")
        .honest("oom-killed", "on a busy host the process is gone before what it had used can be looked at")
        .at(Venue::Traced),
        // Its threads that write hold the signal off, and the write fails.
        Case::new("file-limit", "QEMU writes to a disk beyond a limit on the size of files", fill, none)
            .guest(|guest| guest.boot_disk(BootDisk::Writable("report")))
            .only(PERSISTENT),
    ]
}

/// Sets the limit, and has the guest use up processor time.
fn spin(scene: &mut Scene<'_>, limit: &str) -> Result<()> {
    set(scene, limit)?;
    // It may be over at once.
    let _ = scene.serial().and_then(|line| Ok(line.spin()?));
    scene.wait_process_gone()
}

/// Has the guest write, which its QEMU may not.
fn fill(scene: &mut Scene<'_>) -> Result<()> {
    set(scene, "--fsize=16384:16384")?;
    scene.serial()?.write_sector()?;
    scene.serial()?.written(PATIENCE)?.context("the guest says how its write went")?;
    Ok(scene.serial()?.answer(PATIENCE)?)
}

fn set(scene: &Scene<'_>, limit: &str) -> Result<()> {
    let pid = scene.process.as_ref().context("it was never up")?.pid().to_string();
    scene.program("prlimit", &[limit, "--pid", &pid])
}
