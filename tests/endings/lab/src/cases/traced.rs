//! Who sent the signal that ended QEMU, where whydown hears it from the kernel.

use std::io::{BufRead, BufReader};

use anyhow::{Context, Result};
use whydown_lab::Guest;

use super::certain;
use crate::case::{Act, Case, Venue};
use crate::scene::Scene;

/// How the sender is named: procps's program, run by somebody.
const BY_KILL: &str = ", \"kill\": somebody on the host";

pub(super) fn cases() -> Vec<Case> {
    let sent = |name: &str, signal: &'static str, act: Act, cause| {
        let what = format!("somebody sends {signal} to QEMU by kill, where signals are traced");
        Case::new(name, &what, act, cause).at(Venue::Traced).because(signal).because(BY_KILL)
    };
    vec![
        sent("sigkill-traced", "SIGKILL", |s| send(s, "-KILL"), |_| certain("process-killed")).quick(),
        sent("sigterm-traced", "SIGTERM", |s| send(s, "-TERM"), |_| certain("process-terminated")),
        sent("sigsegv-traced", "SIGSEGV", |s| send(s, "-SEGV"), |_| certain("process-terminated")).quick(),
        sent("sigabrt-traced", "SIGABRT", |s| send(s, "-ABRT"), |_| certain("process-terminated")),
        sent("sigbus-traced", "SIGBUS", |s| send(s, "-BUS"), |_| certain("process-terminated")),
        Case::new(
            "qemu-crashed-traced",
            "QEMU touches memory that its file no longer has, and crashes, where signals are traced",
            crash,
            |_| certain("qemu-crashed"),
        )
        .guest(memory_in_a_file)
        .because("SIGBUS from ")
        .at(Venue::Traced)
        .quick(),
    ]
}

fn send(scene: &mut Scene<'_>, signal: &str) -> Result<()> {
    let pid = scene.process.as_ref().context("it was never up")?.pid().to_string();
    scene.program("/bin/kill", &[signal, &pid])
}

fn memory_in_a_file(guest: Guest) -> Guest {
    guest.domain_xml("<memoryBacking><source type='file'/><access mode='shared'/></memoryBacking>\n")
}

/// Takes the file of the guest's memory from under QEMU: the next touch is a fault of its own, which the kernel signals.
fn crash(scene: &mut Scene<'_>) -> Result<()> {
    const MEMORY: u64 = 2 << 20;
    let process = scene.process.as_ref().context("it was never up")?;
    let of_process = format!("/proc/{}", process.pid());
    let maps = std::fs::File::open(format!("{of_process}/maps"))?;
    for line in BufReader::new(maps).lines() {
        let line = line?;
        let Some((range, more)) = line.split_once(' ') else { continue };
        let Some((from, to)) = range.split_once('-') else { continue };
        let length = u64::from_str_radix(to, 16)? - u64::from_str_radix(from, 16)?;
        if length == MEMORY && more.starts_with("rw-s") {
            let file =
                std::fs::File::options().write(true).open(format!("{of_process}/map_files/{range}"))?;
            return Ok(file.set_len(0)?);
        }
    }
    anyhow::bail!("QEMU has no file of {MEMORY} bytes in its memory")
}
