//! A disk without room: what the guest's write does under each policy, and what becomes of the VM then.

use std::time::Duration;

use anyhow::{Context, Result};
use whydown_lab::{BootDisk, Signal};

use super::{certain, none, probable};
use crate::case::{Case, PERSISTENT, Venue};
use crate::host::PATIENCE;
use crate::scene::Scene;

const PAUSED: &str = "paused (I/O error)";

/// Longer than whydown's limit for a pause that explains a destroy (80 s, as VDSM's).
const LONG: Duration = Duration::from_secs(82);

fn written(scene: &mut Scene<'_>) -> Result<()> {
    scene.serial()?.write_sector()?;
    scene.serial()?.written(PATIENCE)?.context("the guest says how its write went")?;
    Ok(())
}

fn paused(scene: &mut Scene<'_>) -> Result<()> {
    scene.serial()?.write_sector()?;
    scene.wait_state(PAUSED)
}

fn make_room(scene: &Scene<'_>) -> Result<()> {
    Ok(scene.disk.as_ref().context("it has a full disk")?.make_room()?)
}

pub(super) fn cases() -> Vec<Case> {
    let stop = |guest: whydown_lab::Guest| guest.boot_disk(BootDisk::Writable("stop"));
    let on_disk =
        |name: &str, what: &str, act, expect| Case::new(name, what, act, expect).at(Venue::Disk).guest(stop);
    vec![
        on_disk("disk-full", "the disk is full, error_policy is stop", paused, none).quick(),
        on_disk(
            "disk-full-resumed",
            "the disk is full and the VM paused; there is room again and a client resumes it",
            |scene| {
                paused(scene)?;
                make_room(scene)?;
                scene.virsh("resume VM")?;
                scene.serial()?.written(PATIENCE)?.context("its write was done")?;
                Ok(())
            },
            none,
        ),
        on_disk(
            "disk-full-resumed-in-vain",
            "the disk is full and the VM paused; a client resumes it while there is no room",
            |scene| {
                paused(scene)?;
                scene.virsh("resume VM")?;
                scene.wait_state(PAUSED)
            },
            none,
        )
        .only(PERSISTENT),
        on_disk(
            "disk-full-destroyed",
            "the disk is full and the VM paused; another client destroys it",
            |scene| {
                paused(scene)?;
                scene.virsh("destroy VM")
            },
            |_| certain("outside-destroyed"),
        ),
        on_disk(
            "disk-full-killed",
            "the disk is full and the VM paused; QEMU is killed",
            |scene| {
                paused(scene)?;
                scene.kill(Signal::KILL)
            },
            |_| probable("process-killed"),
        ),
        on_disk(
            "disk-full-for-long",
            "the disk is full and the VM paused for more than 80 s; another client destroys it",
            |scene| {
                paused(scene)?;
                scene.let_pass(LONG)?;
                scene.virsh("destroy VM")
            },
            |_| probable("paused-too-long"),
        )
        .only(PERSISTENT),
        on_disk("disk-full-reported", "the disk is full, error_policy is report", written, none)
            .guest(|guest| guest.boot_disk(BootDisk::Writable("report"))),
        on_disk("disk-full-ignored", "the disk is full, error_policy is ignore", written, none)
            .guest(|guest| guest.boot_disk(BootDisk::Writable("ignore"))),
        on_disk("disk-full-enospace", "the disk is full, error_policy is enospace", paused, none)
            .guest(|guest| guest.boot_disk(BootDisk::Writable("enospace")))
            .only(PERSISTENT),
    ]
}
