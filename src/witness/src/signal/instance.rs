//! A trace instance of our own: a folder below `instances` in tracefs, with its own buffers, filters and switches, so
//! that nobody else's tracing is touched or touches ours.
//!
//! Its name holds the process that made it. One whose process is gone was left by a killed daemon, and is removed by
//! the next; removing an instance frees its buffers and ends its tracing.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{Mode, OFlags, statfs};
use whydown_core::hypervisor::Process;

use super::SignalTraceError;
use crate::process::{alive, identify};

/// What `statfs` calls tracefs.
const TRACEFS: u64 = 0x7472_6163;

/// How all of our instances' names begin.
const PREFIX: &str = "whydown-";

/// Buffers for each processor. An event takes some 60 bytes, and they are read within milliseconds.
const BUFFER_KIB: &str = "32";

/// Signals that another process sends to end QEMU, delivered and not ignored; and of all programs their aborts, and the
/// kernel's own SIGKILLs, as the thread of QEMU that aborts, or reaches a limit, may have any name. The names are those of the thread that gets the signal: a process's
/// first thread is named after its program. SIGUSR1 is not among them: QEMU sends itself thousands.
const GENERATED: &str = "(result==0||result==4)&&\
    (((comm~\"qemu*\"||comm~\"kvm*\")&&((sig>=1&&sig<=9)||sig==11||sig==15||sig==24||sig==25||sig==31))||\
    (code==128&&sig==9)||\
    (code==-6&&((sig>=3&&sig<=8)||sig==11||sig==24||sig==25||sig==31)))";

/// Faults that the kernel found and that end the process, as nothing in it handles them.
const DEADLY: &str = "sa_handler==0&&code>0&&((sig>=3&&sig<=8)||sig==11||sig==24||sig==25||sig==31)";

/// Whoever made the instance may have set the usual form of lines otherwise; older kernels do not know all of these.
const PLAIN: [&str; 10] = [
    "noraw",
    "nohex",
    "nobin",
    "noblock",
    "nofields",
    "noverbose",
    "nolatency-format",
    // Which process a thread belongs to, as it may be gone when its signal is read.
    "record-tgid",
    "context-info",
    "noirq-info",
];

/// An instance. It is removed when this is dropped.
#[derive(Debug)]
pub(super) struct Instance {
    folder: PathBuf,
}

impl Instance {
    /// Makes one that traces, and removes those that killed daemons left.
    pub(super) fn make(root: &Path) -> Result<Self, SignalTraceError> {
        let mounted = statfs(root).is_ok_and(|found| u64::try_from(found.f_type) == Ok(TRACEFS));
        if !mounted {
            return Err(SignalTraceError::NotMounted { root: root.to_owned() });
        }
        let all = root.join("instances");
        remove_left(&all);
        let instance = Self { folder: all.join(own_name()) };
        let refused = |path: &Path| {
            let path = path.to_owned();
            move |source| SignalTraceError::Refused { path, source }
        };
        fs::create_dir(&instance.folder).map_err(refused(&instance.folder))?;
        for (file, text) in [
            ("buffer_size_kb", BUFFER_KIB),
            ("trace_clock", "mono"),
            ("events/signal/signal_generate/filter", GENERATED),
            ("events/signal/signal_deliver/filter", DEADLY),
        ] {
            instance.write(file, text).map_err(refused(&instance.folder.join(file)))?;
        }
        for option in PLAIN {
            let _ = instance.write("trace_options", option);
        }
        for event in ["signal_generate", "signal_deliver"] {
            let file = format!("events/signal/{event}/enable");
            instance.write(&file, "1").map_err(refused(&instance.folder.join(file)))?;
        }
        Ok(instance)
    }

    /// Where it is.
    #[cfg(test)]
    pub(super) fn path(&self) -> &Path {
        &self.folder
    }

    /// Its lines, each given once. Reading does not wait.
    pub(super) fn pipe(&self) -> Result<OwnedFd, SignalTraceError> {
        let path = self.folder.join("trace_pipe");
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::open(&path, flags, Mode::empty())
            .map_err(|errno| SignalTraceError::Refused { path, source: errno.into() })
    }

    /// Filters and switches are taken in one write, or not at all.
    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        File::options().write(true).open(self.folder.join(file))?.write_all(text.as_bytes())
    }
}

/// How often a removal is tried, and how long it waits in between: a quarter of a second in all.
const REMOVALS: u32 = 25;
const REMOVAL_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

impl Drop for Instance {
    fn drop(&mut self) {
        // Somebody may look into it just now, if only a child of ours that has not begun its own program. If that goes
        // on, the next start removes it.
        for _ in 0..REMOVALS {
            match fs::remove_dir(&self.folder) {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(REMOVAL_PAUSE)
                }
                _ => return,
            }
        }
    }
}

fn own_name() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    let made = MADE.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    let start = identify(pid).map_or(0, |me| me.start_ticks);
    format!("{PREFIX}{pid}-{start}-{made}")
}

fn maker(name: &str) -> Option<Process> {
    let mut numbers = name.strip_prefix(PREFIX)?.splitn(3, '-');
    let pid = numbers.next()?.parse().ok()?;
    let start_ticks = numbers.next()?.parse().ok()?;
    Some(Process { pid, start_ticks })
}

fn remove_left(all: &Path) {
    for left in fs::read_dir(all).into_iter().flatten().flatten() {
        if left.file_name().to_str().and_then(maker).is_some_and(|maker| !alive(maker)) {
            let _ = fs::remove_dir(left.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_instances_of_dead_daemons_are_ours_to_remove() {
        let me = identify(std::process::id()).unwrap();
        assert_eq!(maker(&own_name()), Some(me));
        for name in ["whydown", "whydown-", "whydown-x-1-0", "whydown-7", "other-7-8-0", "whydown--7-8"] {
            assert_eq!(maker(name), None, "{name}");
        }
    }

    #[test]
    fn a_filter_fits_what_the_kernel_takes() {
        assert!(GENERATED.len() < 4096 && !GENERATED.contains('\n'));
        assert!(DEADLY.len() < 4096);
    }
}
