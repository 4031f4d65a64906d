//! QEMUs that libvirt's driver inside this process starts only to see what they can do. They run in the background, and
//! one that nobody listens to any more runs for ever: when we stop, none may be left.
//!
//! Only probes of our own driver are looked at: they have a folder of their own below its root, which no other process
//! may open, and name it in their arguments. No VM does.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tracing::{info, warn};

/// How long a probe that is under way may go on when we stop: the next start need not begin it anew then.
const PATIENCE: Duration = Duration::from_secs(2);

/// A call that has started none for this long is about something else, and starts none.
const QUIET: Duration = Duration::from_secs(3);

const LOOK: Duration = Duration::from_millis(20);

/// Bytes of a command line that are searched; a probe's is some 300 long.
const COMMAND_LINE_BYTES: u64 = 4096;

/// Calls into the driver that are under way. There is one driver in a process.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// A call into the driver, during which it may start a probe.
#[derive(Debug)]
pub(crate) struct Call(());

impl Call {
    pub(crate) fn begin() -> Self {
        CALLS.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        CALLS.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Waits until the driver with its folder of probes at `folder` has none any more and starts none, and ends those that
/// take too long. False if at `until` there may still be some.
pub(crate) fn end_all(folder: &Path, until: Instant) -> bool {
    let (patience, mut seen) = ((Instant::now() + PATIENCE).min(until), Instant::now());
    let mut ended = 0;
    loop {
        // A call that is over starts nothing: what is not there after that does not come.
        let may_start = CALLS.load(Ordering::SeqCst) > 0;
        let probes = running(folder);
        let now = Instant::now();
        if probes.is_empty() && (!may_start || now - seen > QUIET) {
            break;
        }
        seen = if probes.is_empty() { seen } else { now };
        if now >= until {
            warn!(probes = probes.len(), "libvirt still probes QEMU, and is left at it");
            return false;
        }
        if now >= patience {
            ended += probes.into_iter().filter(|pid| end(*pid, folder)).count();
        }
        std::thread::sleep(LOOK);
    }
    if ended > 0 {
        info!(ended, "QEMUs that libvirt probed were ended: we stop");
    }
    remove_leftovers(folder);
    true
}

/// Processes that are probes of the driver with this folder, before and after they go to the background.
fn running(folder: &Path) -> Vec<Pid> {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Pid::from_raw).filter(|pid| is_probe(*pid, folder)).collect()
}

fn is_probe(pid: Pid, folder: &Path) -> bool {
    let file = std::fs::File::open(format!("/proc/{}/cmdline", pid.as_raw_nonzero()));
    let mut line = Vec::new();
    let read = file.and_then(|file| file.take(COMMAND_LINE_BYTES).read_to_end(&mut line));
    read.is_ok() && names_probe(&line, folder)
}

/// Whether these arguments name a monitor in a folder of a probe.
fn names_probe(line: &[u8], folder: &Path) -> bool {
    let monitor = format!("unix:{}/qmp-", folder.display());
    let mut arguments = line.split(|byte| *byte == 0);
    arguments.any(|argument| argument == b"-qmp")
        && arguments.any(|argument| argument.starts_with(monitor.as_bytes()))
}

/// The number may be another process's by now: what is held by its descriptor is looked at again.
fn end(pid: Pid, folder: &Path) -> bool {
    let Ok(held) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    is_probe(pid, folder) && pidfd_send_signal(held, Signal::KILL).is_ok()
}

/// Folders of probes that are over, with the socket and the pid file in them.
fn remove_leftovers(folder: &Path) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let of_probes = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("qmp-"));
    for path in of_probes.map(|entry| entry.path()).collect::<Vec<PathBuf>>() {
        for file in ["qmp.monitor", "qmp.pid"] {
            let _ = std::fs::remove_file(path.join(file));
        }
        // With anything else in it, it stays.
        let _ = std::fs::remove_dir(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_known_by_a_monitor_in_its_drivers_folder() {
        let folder = Path::new("/var/lib/w/embed/lib/qemu");
        let line = |monitor: &str| {
            format!("/usr/bin/qemu-system-x86_64\0-S\0-qmp\0{monitor}\0-daemonize\0").into_bytes()
        };
        assert!(names_probe(
            &line("unix:/var/lib/w/embed/lib/qemu/qmp-A1b2C3/qmp.monitor,server=on,wait=off"),
            folder
        ));
        for other in [
            "unix:/var/lib/w/embed2/lib/qemu/qmp-A1b2C3/qmp.monitor,server=on",
            "unix:/var/lib/w/embed/lib/qemu/domain-1-vm/monitor.sock",
            "stdio",
        ] {
            assert!(!names_probe(&line(other), folder), "{other}");
        }
        let named = b"vim\0unix:/var/lib/w/embed/lib/qemu/qmp-A1b2C3/qmp.monitor\0";
        assert!(!names_probe(named, folder), "no QEMU");
    }
}
