//! The Linux guest, on libvirt's embedded driver and by itself: it becomes ready, and does what it is told to.

use std::time::{Duration, Instant};

use whydown_lab::{EmbedRoot, LinuxGuest, OnCrash, Result, lab_dir, wait_until};

/// A boot takes some four seconds where nothing else runs.
const PATIENCE: Duration = Duration::from_secs(90);

#[test]
fn it_boots_runs_out_of_memory_without_ending_reboots_and_panics_with_a_text() -> Result<()> {
    let directory = lab_dir()?;
    let root = EmbedRoot::new(directory.path().join("r"))?;
    let mut shell = root.shell()?;
    let guest = LinuxGuest::new(directory.path(), "l")?.machine(|guest| guest.on_crash(OnCrash::Destroy));
    let begun = Instant::now();
    shell.ask(&format!("create {}", guest.write_xml()?.display()))?;
    let mut console = guest.console(PATIENCE)?;
    eprintln!("ready after {:?}", begun.elapsed());
    console.order("oom")?;
    console.wait_said("lab: was killed", 1, PATIENCE)?;
    console.order("reboot")?;
    console.wait_ready(2, PATIENCE)?;
    console.order("panic")?;
    console.wait_said("Kernel panic - not syncing: sysrq triggered crash", 1, PATIENCE)?;
    wait_until("libvirt has ended it", PATIENCE, || {
        shell.ask("domstate l").unwrap().contains("failed to get domain")
    });
    Ok(())
}
