//! When a process ended, and how: by a pidfd for the time, and by two ways for the status.
//!
//! A process that is nobody's child of ours gives its status to its parent alone. Two others may see it:
//!
//! ```text
//!              pidfd readable: it has ended                reaped by its parent
//! ────running────────┬──────────── zombie ────────────────────────┬───────────
//!                    └─ /proc/PID/stat, field 52, while it lasts  ┘
//!                       └─ the kernel's process events, a moment later, for every process
//! ```
//!
//! The first needs the right to look into the process and a parent that is slower than we are; the second needs
//! `CAP_NET_ADMIN` and the host's own namespaces, as the daemon has where libvirt runs. Where neither speaks within
//! [`STATUS_WAIT`], the end is told without a status. Nothing here reaps, signals or slows a process.
//!
//! `PIDFD_GET_INFO` (Linux 6.15) would be a third way; it needs `unsafe`, which this crate does not hold.

mod connector;
mod watch;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Resource, getrlimit, pidfd_open};
use whydown_core::cause::Cause;
use whydown_core::evidence::ExitStatus;
use whydown_core::hypervisor::Process;
use whydown_core::time::Wall;

use self::connector::Connector;
use self::watch::{Ears, Shared};
use crate::process::Stat;
use crate::processes::Processes;
use crate::source::{About, Advice, Sink, Source};

/// How long a status may come after the end that it belongs to. The kernel sends both within a millisecond.
pub const STATUS_WAIT: Duration = Duration::from_millis(250);

/// Processes that are watched at most; also at most half of the file descriptors that we may open. More VMs than this
/// are not run on one host.
pub const WATCHES: usize = 16_384;

/// Why a process is not watched.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// It has ended, and perhaps another has its pid.
    #[error("process {} is gone", .0.pid)]
    Gone(Process),
    /// No more processes can be watched.
    #[error("process {} is not watched: {limit} are already", .process.pid)]
    Full {
        /// Which.
        process: Process,
        /// How many are watched.
        limit: usize,
    },
    /// The kernel refused.
    #[error("process {} is not watched: {source}", .process.pid)]
    Refused {
        /// Which.
        process: Process,
        /// Why.
        source: io::Error,
    },
    /// The watching thread has died, or could not be had.
    #[error("the watch over processes has ended")]
    Ended,
}

/// Whether a watch was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watching {
    /// It was.
    Begun,
    /// It is watched already.
    AlreadySo,
}

/// How it is known.
pub const ABOUT: About = About {
    name: "exit-status",
    gives: "some exit statuses of QEMU",
    fine: "exit statuses of QEMU are seen",
    causes: &[
        Cause::ProcessLost,
        Cause::ProcessKilled,
        Cause::OomKilled,
        Cause::QemuCrashed,
        Cause::LimitReached,
        Cause::GuestExit,
        Cause::QemuFailed,
        Cause::ProcessTerminated,
    ],
    needed: true,
    instead: None,
    advice: Advice { what: "Run whydown on the host itself, with CAP_NET_ADMIN, as its unit does.", add: "" },
    off: None,
};

/// What it needs.
pub struct Config {
    /// Whose processes they are. Those of the host that begin a program are looked up there, where the kernel's process
    /// events are heard, and those that run a domain are watched.
    pub processes: Processes,
    /// The host's clock.
    pub clock: fn() -> Wall,
}

/// Watches over processes with one thread, named `exit-watch`. Dropping it ends the thread and all watches.
#[derive(Debug)]
pub struct ExitWatch {
    /// Without descriptors there is nothing to watch with.
    shared: Option<Arc<Shared>>,
    source: Source,
}

impl ExitWatch {
    /// Begins. Of every watched process that ends its [`Fact::Exit`] or [`Fact::InnerExit`] is told, with the time at which
    /// the clock stood when we learned of the end, which is milliseconds after it; and before it, where its memory may have
    /// been written, [`Fact::CoreDump`] or [`Fact::CoreTaken`]. Where nothing says how it ended, only what is known of it
    /// is kept up.
    ///
    /// Without the kernel's process events it is told as unavailable, and goes on with what it sees: statuses are missing
    /// where a parent reaps at once.
    ///
    /// [`Fact::Exit`]: whydown_core::evidence::Fact::Exit
    /// [`Fact::InnerExit`]: whydown_core::evidence::Fact::InnerExit
    /// [`Fact::CoreDump`]: whydown_core::evidence::Fact::CoreDump
    /// [`Fact::CoreTaken`]: whydown_core::evidence::Fact::CoreTaken
    pub fn start(config: Config, sink: Sink) -> Self {
        let open_files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let limit = WATCHES.min(usize::try_from(open_files / 2).unwrap_or(usize::MAX));
        let (shared, connector) = match Shared::open(limit) {
            Ok(shared) => (Arc::new(shared), Connector::open()),
            Err(error) => {
                let why = format!("the end of processes cannot be seen: {error}");
                return Self { shared: None, source: Source::none(&sink, why) };
            }
        };
        let connector = connector.and_then(|connector| shared.hear(&connector).map(|()| connector));
        let connector = connector.map_err(|error| sink.unavailable(error)).ok();
        let ears = Ears::new(Arc::clone(&shared), connector, config, sink.clone());
        let wakeup = Arc::clone(&shared);
        let source = Source::run("exit-watch", &sink, wakeup, move || ears.listen());
        Self { shared: Some(shared), source }
    }

    /// Watches a process. It is let go when its end has been told.
    ///
    /// # Errors
    /// [`WatchError`]: its end will not be told.
    pub fn watch(&self, process: Process) -> Result<Watching, WatchError> {
        match &self.shared {
            Some(shared) if !self.source.has_ended() => watch_with(shared, process),
            _ => Err(WatchError::Ended),
        }
    }
}

fn watch_with(shared: &Shared, process: Process) -> Result<Watching, WatchError> {
    let refused = |errno: Errno| match errno {
        Errno::SRCH => WatchError::Gone(process),
        errno => WatchError::Refused { process, source: errno.into() },
    };
    let pid = i32::try_from(process.pid).ok().and_then(Pid::from_raw).ok_or(WatchError::Gone(process))?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(refused)?;
    // Looked at after opening: if the pid still belongs to the process now, the descriptor is the process's.
    let stat = Stat::of(process.pid).filter(|stat| stat.start_ticks == process.start_ticks);
    let stat = stat.ok_or(WatchError::Gone(process))?;
    shared.add(process, pidfd, stat.start_stack != 0).map_err(|why| match why {
        watch::NotAdded::Full(limit) => WatchError::Full { process, limit },
        watch::NotAdded::Refused(errno) => refused(errno),
    })
}

/// From the status as `wait` gives it.
fn status(raw: i32) -> ExitStatus {
    match raw & 0x7f {
        0 => ExitStatus::Code((raw >> 8) & 0xff),
        signal => ExitStatus::Signal(signal),
    }
}

#[cfg(test)]
mod tests;
