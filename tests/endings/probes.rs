//! libvirt's driver inside whydownd starts QEMUs to see what they can do. When the daemon stops, none is left.

use std::time::Instant;

use rustix::process::{Pid, kill_process};
use whydown_lab::{EmbedRoot, Launch, Result, Signal, Whydownd, lab_dir, wait_for};

use whydown_lab::host::PATIENCE;

/// Processes with a monitor in a probe's folder of this root.
fn probes(root: &EmbedRoot) -> Vec<Pid> {
    let wanted = format!("unix:{}/lib/qemu/qmp-", root.directory().display());
    let processes = std::fs::read_dir("/proc").expect("proc is there").flatten();
    let is_one = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
            line.split(|byte| *byte == 0).any(|argument| argument.starts_with(wanted.as_bytes()))
        })
    };
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(is_one).filter_map(Pid::from_raw).collect()
}

#[test]
fn a_daemon_that_stops_while_libvirt_probes_qemu_leaves_no_probe() -> Result<()> {
    for hangs in [false, true] {
        let folder = lab_dir()?;
        let root = EmbedRoot::new(folder.path().join("r"))?;
        // What was learned before is forgotten, so that there is something to probe.
        let known = root.directory().join("cache/qemu/capabilities");
        std::fs::remove_dir_all(&known)
            .or_else(|error| if known.exists() { Err(error) } else { Ok(()) })
            .expect("ours");
        let launch = Launch::new(env!("CARGO_BIN_EXE_whydownd"), folder.path().join("d"), &root.uri());
        let mut daemon = Whydownd::start(launch)?;
        let found = wait_for("a probe", PATIENCE, || Some(probes(&root)).filter(|found| !found.is_empty()))?;
        if hangs {
            // One that the host has no time for.
            for pid in found {
                let _ = kill_process(pid, Signal::STOP);
            }
        }
        let begun = Instant::now();
        let status = daemon.terminate()?;
        assert!(status.is_some_and(|status| status.success()), "{status:?}: {}", daemon.output_tail());
        assert!(begun.elapsed().as_secs() < 20, "{:?}: {}", begun.elapsed(), daemon.output_tail());
        assert_eq!(probes(&root), [], "{}", daemon.output_tail());
        let left = std::fs::read_dir(root.directory().join("lib/qemu")).expect("it is there").flatten();
        let left: Vec<_> =
            left.map(|entry| entry.file_name()).filter(|n| n.to_string_lossy().starts_with("qmp-")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    Ok(())
}
