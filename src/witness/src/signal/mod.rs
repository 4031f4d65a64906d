//! Who sent the signal that ends QEMU: from the kernel's own tracepoints, through tracefs.
//!
//! ```text
//! signal_generate: a thread sends a signal, or the kernel does ──┐  filters in the kernel: signals that end QEMU,
//! signal_deliver:  a fault ends the thread that runs             ┴─ an instance of our own ─ trace_pipe ─ one thread
//! ```
//!
//! The kernel filters by the signal and by the name of the thread that gets it, so that on a host where nobody sends
//! such signals nothing is ever woken. What comes is read in bounded pieces with a pause after each. Whose process it
//! was, the listener compares by pid.
//!
//! Names are looked up the moment the line is read. A sender that is gone by then (`/bin/kill`) is known by the name
//! that the kernel remembers for it, or by its pid alone.
//!
//! libvirt ends every QEMU with SIGTERM: that one is not told.

mod instance;
mod line;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use whydown_core::evidence::{Fact, Sender, tame};
use whydown_core::time::Wall;

use self::instance::Instance;
use self::line::{Line, parse, remembered};
use crate::host::unit_of;
use crate::libvirt::LibvirtProcess;
use crate::process::{Task, hosts_own_pids, kernel_clock};
use crate::sender::claimed;

/// Bytes read at once. The kernel gives whole lines, and at most a page or two of them.
const PIECE_BYTES: usize = 16 * 1024;

/// Pieces read before the pause.
const PIECES: usize = 16;

/// After each turn, so that a storm of signals costs little: what does not fit into the kernel's buffers meanwhile is
/// told as missed.
const PAUSE: Duration = Duration::from_millis(10);

/// How long the kernel may take to remember a name: until the thread is next taken off its processor.
const NAME_WAIT: Duration = Duration::from_millis(30);

/// Bytes read of the names that the kernel remembers. They are 128 unless its administrator chose more.
const NAMES_BYTES: u64 = 256 * 1024;

const SIGTERM: i32 = 15;

/// `SI_USER`, `SI_QUEUE`, `SI_TKILL`: a process called `kill`. Timers and queues have other codes, and whoever runs when
/// they are due is not their sender.
const SENT: [i32; 3] = [0, -1, -6];

/// What the witness tells.
#[derive(Debug)]
pub enum SignalWord {
    /// The process `pid` got a signal. Where its sender runs is told before.
    Signalled {
        /// Of the process, not of its thread.
        pid: u32,
        /// When the kernel saw it, on the clock given.
        at: Wall,
        /// [`Fact::Signalled`], or [`Fact::SenderUnit`].
        fact: Fact,
    },
    /// The kernel overwrote lines before we had read them.
    Overrun {
        /// When we learned it.
        at: Wall,
    },
    /// The trace cannot be read any more, and nothing else will be told.
    Lost {
        /// When.
        at: Wall,
        /// Why.
        why: io::Error,
    },
}

/// Why signals are not traced.
#[derive(Debug, thiserror::Error)]
pub enum SignalTraceError {
    /// There is no tracefs.
    #[error(
        "no tracefs at {}: mount -t tracefs tracefs {}, or set witness.tracefs to where it is",
        root.display(), root.display()
    )]
    NotMounted {
        /// Where it should be.
        root: PathBuf,
    },
    /// The kernel tells pids of the host, and ours are others.
    #[error("this is not the host's own pid namespace, and the kernel traces the host's pids")]
    OtherPids,
    /// The kernel refused a file.
    #[error("{}: {source}", path.display())]
    Refused {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No descriptor or thread is to be had.
    #[error("the trace cannot be followed: {0}")]
    NoThread(#[source] io::Error),
}

/// Follows signals with one thread, named `signal-trace`. Dropping it ends the thread and the tracing.
#[derive(Debug)]
pub struct SignalTrace {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    /// Dropped last: the kernel does not remove what is read.
    _instance: Instance,
}

impl SignalTrace {
    /// Begins now; what was sent before is not told. `root` is where tracefs is mounted, `libvirt` says who
    /// libvirt is. `told` is called on the witness's own thread.
    ///
    /// # Errors
    /// [`SignalTraceError`]; nothing is left behind.
    pub fn start(
        root: &Path,
        libvirt: LibvirtProcess,
        told: impl Fn(SignalWord) + Send + 'static,
        clock: impl Fn() -> Wall + Send + 'static,
    ) -> Result<Self, SignalTraceError> {
        if !hosts_own_pids() {
            return Err(SignalTraceError::OtherPids);
        }
        let instance = Instance::make(root)?;
        let pipe = instance.pipe()?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let stop = Arc::new(stop.map_err(|e| SignalTraceError::NoThread(e.into()))?);
        let stopped = Arc::clone(&stop);
        let ears = Ears { names: root.join("saved_cmdlines"), libvirt, stop: stopped, clock, told };
        let thread = std::thread::Builder::new()
            .name("signal-trace".into())
            .spawn(move || ears.listen(&pipe))
            .map_err(SignalTraceError::NoThread)?;
        Ok(Self { stop, thread: Some(thread), _instance: instance })
    }
}

impl Drop for SignalTrace {
    fn drop(&mut self) {
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

/// The thread's own part.
struct Ears<T, C> {
    names: PathBuf,
    libvirt: LibvirtProcess,
    stop: Arc<OwnedFd>,
    clock: C,
    told: T,
}

/// A signal with what could be learned of both sides when its line was read.
struct Heard {
    at: Duration,
    signal: i32,
    code: i32,
    /// The process that got it.
    to: u32,
    /// Where it was a process.
    by: Option<By>,
}

/// Who sent it.
struct By {
    thread: u32,
    process: u32,
    name: Option<String>,
    /// The unit of systemd in which it runs, where it still does.
    unit: Option<String>,
}

impl<T: Fn(SignalWord), C: Fn() -> Wall> Ears<T, C> {
    /// Until told to stop, or the trace is lost.
    fn listen(self, pipe: &OwnedFd) {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let mut awaited = [PollFd::new(&*self.stop, PollFlags::IN), PollFd::new(pipe, PollFlags::IN)];
            match poll(&mut awaited, None) {
                Ok(_) if !awaited[0].revents().is_empty() => return,
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return self.lost(errno.into()),
            }
            for _ in 0..PIECES {
                match rustix::io::read(pipe, &mut piece) {
                    Ok(0) | Err(Errno::AGAIN) => break,
                    Ok(length) => self.read(&String::from_utf8_lossy(&piece[..length])),
                    Err(Errno::INTR) => {}
                    Err(errno) => return self.lost(errno.into()),
                }
            }
            if self.stopped_within(PAUSE) {
                return;
            }
        }
    }

    fn lost(&self, why: io::Error) {
        (self.told)(SignalWord::Lost { at: (self.clock)(), why });
    }

    fn stopped_within(&self, wait: Duration) -> bool {
        let wait = Timespec::try_from(wait).ok();
        let mut awaited = [PollFd::new(&*self.stop, PollFlags::IN)];
        matches!(poll(&mut awaited, wait.as_ref()), Ok(ready) if ready > 0)
    }

    /// All lines of a piece. Both sides are looked up before anything else is done, as they may be gone soon.
    fn read(&self, piece: &str) {
        let mut heard = Vec::new();
        let mut missed = false;
        for line in piece.lines() {
            match parse(line) {
                Some(Line::Missed) => missed = true,
                Some(Line::Generated { at, by, process, name, signal, code, to }) => {
                    let by = SENT.contains(&code).then(|| {
                        // The thread may be gone, and its process goes on: libvirt starts VMs on threads of their own.
                        let sender = Task::of(by).or_else(|| process.and_then(Task::of));
                        let unit = sender.as_ref().and_then(|task| unit_of(task.process));
                        let name = sender.as_ref().map(|task| task.name.clone()).or(name);
                        By {
                            thread: by,
                            process: sender.map_or(process.unwrap_or(by), |task| task.process),
                            name,
                            unit,
                        }
                    });
                    if by.is_some() || code > 0 {
                        heard.push(Heard { at, signal, code, to: process_of(to), by });
                    }
                }
                Some(Line::Deadly { at, signal, code, to, process }) => {
                    heard.push(Heard {
                        at,
                        signal,
                        code,
                        to: process.unwrap_or_else(|| process_of(to)),
                        by: None,
                    });
                }
                None => {}
            }
        }
        if heard.iter().any(|one| matches!(one.by, Some(By { name: None, .. }))) {
            self.stopped_within(NAME_WAIT);
            let saved = read_start(&self.names);
            for By { thread, name, .. } in heard.iter_mut().filter_map(|one| one.by.as_mut()) {
                *name = name.take().or_else(|| remembered(&saved, *thread));
            }
        }
        for one in heard {
            self.tell(one);
        }
        if missed {
            (self.told)(SignalWord::Overrun { at: (self.clock)() });
        }
    }

    fn tell(&self, one: Heard) {
        let Heard { at, signal, code, to, by } = one;
        let (pid, program, who, unit) = match by {
            None => (0, String::new(), Sender::Kernel, None),
            Some(By { thread, process, name, unit }) => {
                let program = tame(&name.unwrap_or_default());
                let itself = process == to || thread == to;
                let who = if itself {
                    Sender::Itself
                } else {
                    claimed(process, &program, &self.libvirt, Duration::ZERO)
                };
                (process, program, who, unit)
            }
        };
        if signal == SIGTERM && who == Sender::Libvirt {
            return;
        }
        let fact = Fact::Signalled { signal, code, pid, program, sender: who, audit: None };
        let age = Duration::from_nanos(kernel_clock().0).saturating_sub(at);
        let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
        let at = Wall((self.clock)().0.saturating_sub(age));
        if let Some(unit) = unit.filter(|_| matches!(who, Sender::Outside | Sender::Manager)) {
            (self.told)(SignalWord::Signalled { pid: to, at, fact: Fact::SenderUnit { pid, unit } });
        }
        (self.told)(SignalWord::Signalled { pid: to, at, fact });
    }
}

/// The process that a thread belongs to. One that is gone already is taken for a process: that of a thread matches none.
fn process_of(thread: u32) -> u32 {
    Task::of(thread).map_or(thread, |task| task.process)
}

fn read_start(path: &Path) -> String {
    let mut names = Vec::new();
    if let Ok(file) = File::open(path) {
        let _ = file.take(NAMES_BYTES).read_to_end(&mut names);
    }
    String::from_utf8_lossy(&names).into_owned()
}

#[cfg(test)]
mod tests;
