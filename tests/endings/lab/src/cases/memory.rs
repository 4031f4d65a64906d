//! Lack of memory on the host, in the control group of one machine.

use anyhow::{Context, Result};
use whydown_lab::{MemoryGroup, Qemu, Signal};

use super::{certain, none, probable};
use crate::case::{Case, Venue};
use crate::host::PATIENCE;
use crate::scene::Scene;

/// The kernel gives out no page of this.
const NO_BYTES: u64 = 0;

pub(super) fn cases() -> Vec<Case> {
    vec![
        Case::new(
            "out-of-memory",
            "the kernel kills QEMU, as its control group has no memory left",
            starve,
            |_| certain("oom-killed"),
        )
        .because("the kernel says: ")
        .quick(),
        Case::new(
            "out-of-memory-traced",
            "the kernel kills QEMU for lack of memory, where signals are traced",
            starve,
            |_| certain("oom-killed"),
        )
        .because("the kernel says: ")
        .because("SIGKILL from the kernel itself")
        .at(Venue::Traced),
        Case::new(
            "out-of-memory-next-door",
            "the kernel kills another QEMU for lack of memory in its control group",
            starve_neighbour,
            none,
        ),
        Case::new(
            "out-of-memory-next-door-then-killed",
            "the kernel kills another QEMU for lack of memory, and then somebody kills this one",
            |scene| {
                starve_neighbour(scene)?;
                scene.kill(Signal::KILL)
            },
            |_| probable("process-killed"),
        ),
    ]
}

/// Takes all memory from its QEMU, and waits until the kernel has killed it for that.
pub(super) fn starve(scene: &mut Scene<'_>) -> Result<()> {
    // The next one who connects to its serial line costs memory of the kernel, which counts too.
    scene.line = None;
    let line = scene.guest.serial_path();
    starved(scene.process.as_ref().context("it was never up")?, scene.name(), &line)
}

/// The same for another machine beside it.
fn starve_neighbour(scene: &mut Scene<'_>) -> Result<()> {
    let neighbour = scene.host.guest(&format!("{}-next", scene.name()))?;
    scene.host.libvirtd.create(&neighbour)?;
    drop(neighbour.serial(PATIENCE)?);
    let process = scene.host.libvirtd.qemu(neighbour.name())?;
    starved(&process, neighbour.name(), &neighbour.serial_path())?;
    Ok(scene.serial()?.answer(PATIENCE)?)
}

fn starved(process: &Qemu, name: &str, line: &std::path::Path) -> Result<()> {
    let group = MemoryGroup::make(name, NO_BYTES)?;
    group.take(process)?;
    // A QEMU that is gone by now has no line any more.
    let _caller = std::os::unix::net::UnixStream::connect(line);
    Ok(process.wait_gone(PATIENCE)?)
}
