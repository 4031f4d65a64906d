//! Finding, signalling and clearing away QEMU processes, without ever hitting a stranger.
//!
//! A process is named by a pidfd that is opened first and checked afterwards, so a reused number is never signalled.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

use crate::wait::{POLL, wait_for};
use crate::{Error, Result};

pub use rustix::process::Signal;

/// A running QEMU process.
#[derive(Debug)]
pub struct Qemu {
    pid: u32,
    pidfd: OwnedFd,
}

impl Qemu {
    /// Takes the process that a libvirt pid file names.
    pub(crate) fn from_pid_file(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).map_err(Error::file("read", path))?;
        let pid = text.trim().parse().map_err(|_| Error::Invalid {
            what: "the pid file",
            expected: "a number",
            got: text.clone(),
        })?;
        let pidfd = open(pid).map_err(|source| Error::io(format!("open process {pid}"), source))?;
        if !is_qemu(pid) && !runs_qemu(pid) {
            return Err(Error::Invalid { what: "the pid file", expected: "the pid of a QEMU", got: text });
        }
        Ok(Self { pid, pidfd })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Sends `signal` to this very process.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it is gone already or belongs to someone else.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        pidfd_send_signal(&self.pidfd, signal)
            .map_err(|error| Error::io(format!("signal process {}", self.pid), error.into()))
    }

    /// Whether this signal was sent to it and waits, as it is stopped.
    pub fn has_pending(&self, signal: Signal) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let sets = status.lines().filter_map(|line| {
            let set = line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:"))?;
            u64::from_str_radix(set.trim(), 16).ok()
        });
        sets.fold(0, |all, set| all | set) & 1 << (signal.as_raw() - 1) != 0
    }

    /// Whether it still executes; a zombie that nobody has reaped yet does not.
    pub fn is_alive(&self) -> bool {
        !self.ended(Some(Duration::ZERO))
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    ///
    /// [`Error::TimedOut`] after `limit`.
    pub fn wait_gone(&self, limit: Duration) -> Result<()> {
        wait_for(&format!("the end of QEMU process {}", self.pid), limit, || self.ended(None).then_some(()))
    }

    /// A pidfd becomes readable when its process ends; waits a moment for that, or for the time given.
    fn ended(&self, time: Option<Duration>) -> bool {
        let time = Timespec::try_from(time.unwrap_or(POLL)).expect("a few milliseconds fit");
        let mut watched = [PollFd::new(&self.pidfd, PollFlags::IN)];
        poll(&mut watched, Some(&time)).is_ok_and(|ready| ready > 0)
    }
}

/// Which QEMU processes are ours.
pub(crate) enum Owner<'a> {
    /// Those of an embedded root: its path is in their arguments.
    EmbedRoot(&'a Path),
    /// Those of a libvirtd in its own mount namespace: they see this directory as `/run/libvirt`.
    RunDirectory(&'a Path),
}

/// Kills every QEMU of `owner` and waits until all are gone.
///
/// Capability probes, which have no pid file that would outlive their libvirtd, are found too.
pub(crate) fn kill_all(owner: &Owner<'_>) {
    // A child of a killed libvirtd may be on its way from fork to exec; a second round finds it as a QEMU.
    while kill_found(owner) > 0 {}
}

fn kill_found(owner: &Owner<'_>) -> usize {
    let mut killed = Vec::new();
    let Ok(entries) = fs::read_dir("/proc") else { return 0 };
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let Ok(pidfd) = open(pid) else { continue };
        if is_qemu(pid) && belongs(pid, owner) {
            let qemu = Qemu { pid, pidfd };
            if qemu.signal(Signal::KILL).is_ok() {
                killed.push(qemu);
            }
        }
    }
    for qemu in &killed {
        // Called on drop: one that does not die even of SIGKILL (stuck in the kernel) must not hide the test's result.
        let _ = qemu.wait_gone(Duration::from_secs(10));
    }
    killed.len()
}

fn belongs(pid: u32, owner: &Owner<'_>) -> bool {
    match owner {
        Owner::EmbedRoot(root) => {
            let mut inside = root.as_os_str().as_bytes().to_vec();
            inside.push(b'/');
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.windows(inside.len()).any(|part| part == inside))
        }
        Owner::RunDirectory(run) => {
            let seen = PathBuf::from(format!("/proc/{pid}/root/run/libvirt"));
            match (fs::metadata(seen), fs::metadata(run)) {
                (Ok(seen), Ok(ours)) => (seen.dev(), seen.ino()) == (ours.dev(), ours.ino()),
                _ => false,
            }
        }
    }
}

fn is_qemu(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
        let program = line.split(|byte| *byte == 0).next().unwrap_or_default();
        let name = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        name.starts_with(b"qemu-system-")
    })
}

/// Whether it is a script that was given QEMU's arguments.
fn runs_qemu(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline"))
        .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == b"-uuid"))
}

fn open(pid: u32) -> std::io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(std::io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}
