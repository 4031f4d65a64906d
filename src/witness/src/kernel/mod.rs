//! The kernel's log, for the one thing that nobody else tells: that its out-of-memory killer ended a process.
//!
//! Follows `/dev/kmsg`, and reads back first to the moment at which whydown last listened: a process that was killed
//! while it was away is named there, as long as the kernel keeps the line. What was said before that is not told, as
//! its process numbers may be other processes by now. Only the kernel's own lines count: a program that writes to
//! `/dev/kmsg` is marked as a user by the kernel, whatever it claims.

mod line;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use whydown_core::evidence::Fact;
use whydown_core::time::Wall;

use self::line::{oom_killed, stamp};
use crate::process::hosts_own_pids;

/// The kernel gives one record a read, and refuses a smaller buffer than the record. Its own bound is below 8 KiB.
const RECORD_BYTES: usize = 8192;

/// So many kills are told from the past at most: nobody takes them in yet, and there must be room.
const CATCH_UP_MAX: usize = 4096;

/// What the witness tells.
#[derive(Debug)]
pub enum KernelWord {
    /// The out-of-memory killer ended the process `pid`. The kernel says it in two lines; both are told.
    Killed {
        /// On the host.
        pid: u32,
        /// When we read it, by the clock given; of what was said while we were away, when the kernel said it.
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
    /// The kernel tells pids of the host, and ours are others.
    #[error("this is not the host's own pid namespace, and the kernel's log has the host's pids")]
    OtherPids,
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
    /// Begins with what was said after `since`, or at the present end of the log. When this returns, all that was said
    /// before it has been told. `told` is called on the witness's own thread.
    pub fn start(
        since: Option<Wall>,
        told: impl Fn(KernelWord) + Send + 'static,
        clock: impl Fn() -> Wall + Send + 'static,
    ) -> Result<Self, KernelLogError> {
        if !hosts_own_pids() {
            return Err(KernelLogError::OtherPids);
        }
        let from = if since.is_some() { SeekFrom::Start(0) } else { SeekFrom::End(0) };
        let log = open(Path::new("/dev/kmsg"), from).map_err(|e| KernelLogError::Unreadable(e.into()))?;
        let (caught_up, waiting) = sync_channel(1);
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let stop = Arc::new(stop.map_err(|e| KernelLogError::NoThread(e.into()))?);
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("kernel-log".into())
            .spawn(move || follow(&log, &stopped, since, &caught_up, told, clock))
            .map_err(KernelLogError::NoThread)?;
        // An error means that the thread has ended, and has told why.
        let _ = waiting.recv();
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

fn open(path: &Path, from: SeekFrom) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let log = rustix::fs::open(path, flags, Mode::empty())?;
    rustix::fs::seek(&log, from)?;
    Ok(log)
}

/// How long ago the kernel wrote this record. Its stamps run with the clock that counts from the boot.
fn age(record: &[u8]) -> Option<Duration> {
    let now = clock_gettime(ClockId::Monotonic);
    let now = Duration::new(u64::try_from(now.tv_sec).ok()?, u32::try_from(now.tv_nsec).ok()?);
    Some(now.saturating_sub(stamp(record)?))
}

/// Until told to stop, or the log is lost. Says that it has `caught_up` when it has read what was there at the start.
fn follow(
    log: &OwnedFd,
    stop: &OwnedFd,
    since: Option<Wall>,
    caught_up: &SyncSender<()>,
    told: impl Fn(KernelWord),
    clock: impl Fn() -> Wall,
) {
    let mut record = [0; RECORD_BYTES];
    // What the kernel has overwritten of the past is nobody's loss but the past's.
    if let Some(since) = since {
        let mut left = CATCH_UP_MAX;
        while left > 0 {
            match rustix::io::read(log, &mut record) {
                Ok(length @ 1..) => {
                    let record = &record[..length];
                    let Some(((pid, line), age)) = oom_killed(record).zip(age(record)) else { continue };
                    let at = clock().before(age);
                    if at >= since {
                        left -= 1;
                        told(KernelWord::Killed { pid, at, fact: Fact::OomKilled { line } });
                    }
                }
                Err(Errno::PIPE | Errno::INTR) => {}
                // Its end, or a failure that is met again below.
                Ok(0) | Err(_) => break,
            }
        }
    }
    // Nobody waits where this has no receiver.
    let _ = caught_up.send(());
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
