//! The kernel's log, for the one thing that nobody else tells: that its out-of-memory killer ended a process.
//!
//! Follows `/dev/kmsg` from the moment of starting; what the kernel said before is not told. Only the kernel's own lines
//! count: a program that writes to `/dev/kmsg` is marked as a user by the kernel, whatever it claims.

mod line;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use whydown_core::evidence::Fact;
use whydown_core::time::Wall;

use self::line::oom_killed;

/// The kernel gives one record a read, and refuses a smaller buffer than the record. Its own bound is below 8 KiB.
const RECORD_BYTES: usize = 8192;

/// What the witness tells.
#[derive(Debug)]
pub enum KernelWord {
    /// The out-of-memory killer ended the process `pid`. The kernel says it in two lines; both are told.
    Killed {
        /// On the host.
        pid: u32,
        /// When we read it, by the clock given; the kernel's own stamps count from the boot.
        at: Wall,
        /// [`Fact::OomKilled`].
        fact: Fact,
    },
    /// The kernel overwrote lines before we had read them.
    Overrun {
        /// When we learned it.
        at: Wall,
    },
    /// The log cannot be read any more, and nothing else will be told.
    Lost {
        /// When.
        at: Wall,
        /// Why.
        why: io::Error,
    },
}

/// Why the kernel's log is no witness.
#[derive(Debug, thiserror::Error)]
pub enum KernelLogError {
    /// There is no such device, or no right to read it.
    #[error("/dev/kmsg cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// No descriptor or thread is to be had.
    #[error("the kernel's log cannot be followed: {0}")]
    NoThread(#[source] io::Error),
}

/// Follows the kernel's log with one thread, named `kernel-log`. Dropping it ends the thread.
#[derive(Debug)]
pub struct KernelLog {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl KernelLog {
    /// Begins at the present end of the log. `told` is called on the witness's own thread.
    pub fn start(
        told: impl Fn(KernelWord) + Send + 'static,
        clock: impl Fn() -> Wall + Send + 'static,
    ) -> Result<Self, KernelLogError> {
        let log = open(Path::new("/dev/kmsg")).map_err(|e| KernelLogError::Unreadable(e.into()))?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let stop = Arc::new(stop.map_err(|e| KernelLogError::NoThread(e.into()))?);
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("kernel-log".into())
            .spawn(move || follow(&log, &stopped, told, clock))
            .map_err(KernelLogError::NoThread)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for KernelLog {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

fn open(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let log = rustix::fs::open(path, flags, Mode::empty())?;
    rustix::fs::seek(&log, SeekFrom::End(0))?;
    Ok(log)
}

/// Until told to stop, or the log is lost.
fn follow(log: &OwnedFd, stop: &OwnedFd, told: impl Fn(KernelWord), clock: impl Fn() -> Wall) {
    let mut record = [0; RECORD_BYTES];
    loop {
        let mut awaited = [PollFd::new(stop, PollFlags::IN), PollFd::new(log, PollFlags::IN)];
        match poll(&mut awaited, None) {
            Ok(_) if !awaited[0].revents().is_empty() => return,
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return told(KernelWord::Lost { at: clock(), why: errno.into() }),
        }
        match rustix::io::read(log, &mut record) {
            Ok(0) => {
                let why = io::ErrorKind::UnexpectedEof.into();
                return told(KernelWord::Lost { at: clock(), why });
            }
            Ok(length) => {
                if let Some((pid, line)) = oom_killed(&record[..length]) {
                    told(KernelWord::Killed { pid, at: clock(), fact: Fact::OomKilled { line } });
                }
            }
            Err(Errno::PIPE) => told(KernelWord::Overrun { at: clock() }),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return told(KernelWord::Lost { at: clock(), why: errno.into() }),
        }
    }
}

#[cfg(test)]
mod tests;
