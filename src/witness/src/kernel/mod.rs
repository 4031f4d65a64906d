//! The kernel's log, for the one thing that nobody else tells: that its out-of-memory killer ended a process.
//!
//! Follows `/dev/kmsg`, and reads back first to the moment at which whydown last listened: a process that was killed
//! while it was away is named there, as long as the kernel keeps the line. What was said before that is not told, as
//! its process numbers may be other processes by now. Only the kernel's own lines count: a program that writes to
//! `/dev/kmsg` is marked as a user by the kernel, whatever it claims.

mod line;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use whydown_core::cause::Cause;
use whydown_core::evidence::Fact;
use whydown_core::time::Wall;

use self::line::{oom_killed, stamp};
use crate::process::hosts_own_pids;
use crate::processes::Processes;
use crate::source::{About, Advice, Sink, Source, Stop, Waited};

/// The kernel gives one record a read, and refuses a smaller buffer than the record. Its own bound is below 8 KiB.
const RECORD_BYTES: usize = 8192;

/// So many kills are told from the past at most: nobody takes them in yet, and there must be room.
const CATCH_UP_MAX: usize = 4096;

/// How it is known.
pub const ABOUT: About = About {
    name: "kernel-log",
    gives: "out-of-memory kills",
    fine: "the kernel's log is read",
    causes: &[Cause::ProcessKilled, Cause::OomKilled],
    needed: true,
    instead: None,
    advice: Advice { what: "Give whydown CAP_SYSLOG and /dev/kmsg, as its unit does.", add: "" },
    off: None,
};

/// Where the kernel's log is.
pub const DEVICE: &str = "/dev/kmsg";

/// What it needs.
pub struct Config {
    /// [`DEVICE`].
    pub device: PathBuf,
    /// What was said after this is told too. Without it the log is followed from its present end.
    pub since: Option<Wall>,
    /// Whose processes they are.
    pub processes: Processes,
    /// The host's clock.
    pub clock: fn() -> Wall,
}

/// Follows the kernel's log with one thread, named `kernel-log`, and tells [`Fact::OomKilled`]: twice of each kill, as the
/// kernel says it in two lines; when we read it, or of what was said while we were away, when the kernel said it.
///
/// When this returns, all that was said before it has been told.
pub fn start(config: Config, sink: Sink) -> Source {
    if !hosts_own_pids() {
        return Source::none(
            &sink,
            "this is not the host's own pid namespace, and the kernel's log has the host's pids",
        );
    }
    let from = if config.since.is_some() { SeekFrom::Start(0) } else { SeekFrom::End(0) };
    let log = match open(&config.device, from) {
        Ok(log) => log,
        Err(errno) => {
            return Source::none(&sink, format_args!("{} cannot be read: {errno}", config.device.display()));
        }
    };
    let stop = match Stop::new() {
        Ok(stop) => stop,
        Err(error) => return Source::none(&sink, format_args!("it cannot be followed: {error}")),
    };
    let (caught_up, waiting) = sync_channel(1);
    let (told, woken) = (sink.clone(), Arc::clone(&stop));
    let source =
        Source::run("kernel-log", &sink, stop, move || follow(&log, &woken, &caught_up, &config, &told));
    // An error means that the thread has ended, and has told why.
    let _ = waiting.recv();
    source
}

fn open(path: &Path, from: SeekFrom) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let log = rustix::fs::open(path, flags, Mode::empty())?;
    match rustix::fs::seek(&log, from) {
        // What knows no places, such as a pipe in the device's stead, is read from where it stands.
        Ok(_) | Err(Errno::SPIPE) => Ok(log),
        Err(errno) => Err(errno),
    }
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
    stop: &Stop,
    caught_up: &SyncSender<()>,
    config: &Config,
    sink: &Sink,
) -> Result<(), io::Error> {
    let tell = |pid: u32, at: Wall, line: String| {
        sink.observed(config.processes.emulators.subject(pid), at, Fact::OomKilled { line });
    };
    let mut record = [0; RECORD_BYTES];
    // What the kernel has overwritten of the past is nobody's loss but the past's.
    if let Some(since) = config.since {
        let mut left = CATCH_UP_MAX;
        while left > 0 {
            match rustix::io::read(log, &mut record) {
                Ok(length @ 1..) => {
                    let record = &record[..length];
                    let Some(((pid, line), age)) = oom_killed(record).zip(age(record)) else { continue };
                    let at = (config.clock)().before(age);
                    if at >= since {
                        left -= 1;
                        tell(pid, at, line);
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
        if stop.wait_for(log, None)? == Waited::Ended {
            return Ok(());
        }
        match rustix::io::read(log, &mut record) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                if let Some((pid, line)) = oom_killed(&record[..length]) {
                    tell(pid, (config.clock)(), line);
                }
            }
            Err(Errno::PIPE) => sink.overrun(),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests;
