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
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Resource, getrlimit, pidfd_open};
use whydown_core::evidence::ExitStatus;
use whydown_core::hypervisor::Process;
use whydown_core::time::Wall;

use self::connector::Connector;
use self::watch::{CONNECTOR, Ears, STOP, Shared};
use crate::process::Stat;

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
    /// The watching thread has died: what it called panicked.
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

/// Watches over processes with one thread, named `exit-watch`. Dropping it ends the thread and all watches.
#[derive(Debug)]
pub struct ExitWatch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    trouble: Option<io::Error>,
}

impl ExitWatch {
    /// Begins. `told` is called once for every watched process that ends, on the watch's own thread, with the time at
    /// which `clock` stood when we learned of the end, which is milliseconds after it. It must not block for long.
    ///
    /// Fails if the kernel refuses descriptors or a thread. Without the kernel's process events it begins all the same:
    /// see [`ExitWatch::trouble`].
    pub fn start(
        told: impl Fn(Process, Wall, Option<ExitStatus>) + Send + 'static,
        clock: impl Fn() -> Wall + Send + 'static,
    ) -> io::Result<Self> {
        Self::start_and_choose(|_| None, told, clock)
    }

    /// As [`ExitWatch::start`]. `began` is asked of every process of the host that begins a program, where the kernel's
    /// process events are heard, and names those that are to be watched; it should answer within microseconds.
    pub fn start_and_choose(
        began: impl Fn(u32) -> Option<Process> + Send + 'static,
        told: impl Fn(Process, Wall, Option<ExitStatus>) + Send + 'static,
        clock: impl Fn() -> Wall + Send + 'static,
    ) -> io::Result<Self> {
        let open_files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let limit = WATCHES.min(usize::try_from(open_files / 2).unwrap_or(usize::MAX));
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)?;
        let (connector, trouble) = match Connector::open() {
            Ok(connector) => {
                epoll::add(&epoll, &connector, epoll::EventData::new_u64(CONNECTOR), epoll::EventFlags::IN)?;
                (Some(connector), None)
            }
            Err(error) => (None, Some(error)),
        };
        let shared = Arc::new(Shared::new(epoll, stop, limit));
        let ears = Ears::new(Arc::clone(&shared), connector);
        let thread = std::thread::Builder::new()
            .name("exit-watch".into())
            .spawn(move || ears.listen(began, told, clock))?;
        Ok(Self { shared, thread: Some(thread), trouble })
    }

    /// Watches a process. It is let go when its end has been told.
    pub fn watch(&self, process: Process) -> Result<Watching, WatchError> {
        if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            return Err(WatchError::Ended);
        }
        watch_with(&self.shared, process)
    }

    /// Why the kernel's process events cannot be heard, if so. Then statuses are missing where a parent reaps at once.
    pub fn trouble(&self) -> Option<&io::Error> {
        self.trouble.as_ref()
    }

    /// How many processes are watched now.
    pub fn watched(&self) -> usize {
        self.shared.watched()
    }
}

impl Drop for ExitWatch {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so on standard error.
            let _ = thread.join();
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
