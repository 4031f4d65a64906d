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
//!
//! The kernel itself sends SIGKILL for want of memory, and at a hard limit on processor time. The process is still there for
//! some milliseconds, as its memory is taken down: what it had used of such a limit is looked at then.

mod instance;
mod line;

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use whydown_core::cause::Cause;
use whydown_core::evidence::{Fact, Sender, tame};
use whydown_core::time::Wall;

use self::instance::Instance;
use self::line::{Line, parse, remembered};
use crate::host::unit_of;
use crate::libvirt::LibvirtProcess;
use crate::process::{ProcessorTime, Task, hosts_own_pids, kernel_clock};
use crate::processes::Processes;
use crate::sender::claimed;
use crate::source::{About, Advice, Sink, Source, Stop, Waited};

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
const SIGKILL: i32 = 9;

/// `SI_USER`, `SI_QUEUE`, `SI_TKILL`: a process called `kill`. Timers and queues have other codes, and whoever runs when
/// they are due is not their sender.
const SENT: [i32; 3] = [0, -1, -6];

/// How it is known.
pub const ABOUT: About = About {
    name: "signals",
    gives: "who sends signals",
    fine: "who sends signals is seen",
    causes: &[
        Cause::ProcessKilled,
        Cause::OomKilled,
        Cause::QemuCrashed,
        Cause::LimitReached,
        Cause::ProcessTerminated,
    ],
    needed: true,
    instead: None,
    advice: Advice {
        what: "Mount tracefs, and restart whydown as root in the host's own namespaces.",
        add: "mount -t tracefs tracefs /sys/kernel/tracing",
    },
    off: Some((
        "signals are not traced: witness.tracefs is empty",
        Advice {
            what: "Name where tracefs is mounted.",
            add: "[witness]\ntracefs = \"/sys/kernel/tracing\"",
        },
    )),
};

/// What it needs.
pub struct Config {
    /// Where tracefs is mounted.
    pub root: PathBuf,
    /// Who libvirt is.
    pub libvirt: LibvirtProcess,
    /// Whose processes and threads they are.
    pub processes: Processes,
    /// The host's clock.
    pub clock: fn() -> Wall,
}

/// Why signals are not traced.
#[derive(Debug, thiserror::Error)]
enum SignalTraceError {
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
    /// No descriptor is to be had.
    #[error("the trace cannot be followed: {0}")]
    NoDescriptor(#[source] io::Error),
}

/// Follows signals with one thread, named `signal-trace`, and tells [`Fact::Signalled`], and before it [`Fact::SenderUnit`]
/// where the sender's unit is known. Begins now; what was sent before is not told. Nothing is left behind at the end.
pub fn start(config: Config, sink: Sink) -> Source {
    match open(&config.root) {
        Ok(opened) => follow(opened, config, sink),
        Err(why) => Source::none(&sink, why),
    }
}

fn follow((instance, pipe, stop): Opened, config: Config, sink: Sink) -> Source {
    let ears = Ears { config, sink: sink.clone(), stop: Arc::clone(&stop) };
    Source::run("signal-trace", &sink, stop, move || {
        // Dropped last: the kernel does not remove what is read.
        let _instance = instance;
        let pipe = pipe;
        ears.listen(&pipe)
    })
}

type Opened = (Instance, OwnedFd, Arc<Stop>);

fn open(root: &Path) -> Result<Opened, SignalTraceError> {
    if !hosts_own_pids() {
        return Err(SignalTraceError::OtherPids);
    }
    let instance = Instance::make(root)?;
    let pipe = instance.pipe()?;
    Ok((instance, pipe, Stop::new().map_err(SignalTraceError::NoDescriptor)?))
}

/// The thread's own part.
struct Ears {
    config: Config,
    sink: Sink,
    stop: Arc<Stop>,
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
    /// What the process that the kernel kills has used of its hard limit, where it has one and is still there.
    used: Option<ProcessorTime>,
}

/// Who sent it.
struct By {
    thread: u32,
    process: u32,
    name: Option<String>,
    /// The unit of systemd in which it runs, where it still does.
    unit: Option<String>,
}

impl Ears {
    /// Until told to stop, or the trace is lost.
    fn listen(self, pipe: &OwnedFd) -> Result<(), Errno> {
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            if self.stop.wait_for(pipe, None)? == Waited::Ended {
                return Ok(());
            }
            for _ in 0..PIECES {
                match rustix::io::read(pipe, &mut piece) {
                    Ok(0) | Err(Errno::AGAIN) => break,
                    Ok(length) => self.read(&String::from_utf8_lossy(&piece[..length])),
                    Err(Errno::INTR) => {}
                    Err(errno) => return Err(errno),
                }
            }
            if self.stop.rest(PAUSE) {
                return Ok(());
            }
        }
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
                        let used = (signal == SIGKILL && by.is_none()).then(|| ProcessorTime::of(to));
                        let used = used.flatten();
                        heard.push(Heard { at, signal, code, to: process_of(to), by, used });
                    }
                }
                Some(Line::Deadly { at, signal, code, to, process }) => {
                    heard.push(Heard {
                        at,
                        signal,
                        code,
                        to: process.unwrap_or_else(|| process_of(to)),
                        by: None,
                        used: None,
                    });
                }
                None => {}
            }
        }
        if heard.iter().any(|one| matches!(one.by, Some(By { name: None, .. }))) {
            self.stop.rest(NAME_WAIT);
            let saved = read_start(&self.config.root.join("saved_cmdlines"));
            for By { thread, name, .. } in heard.iter_mut().filter_map(|one| one.by.as_mut()) {
                *name = name.take().or_else(|| remembered(&saved, *thread));
            }
        }
        for one in heard {
            self.tell(one);
        }
        // The next words are as true as ever; which were missed nobody can tell.
        if missed {
            self.sink.overrun();
        }
    }

    fn tell(&self, one: Heard) {
        let Heard { at, signal, code, to, by, used } = one;
        let (pid, program, who, unit) = match by {
            None => (0, String::new(), Sender::Kernel, None),
            Some(By { thread, process, name, unit }) => {
                let program = tame(&name.unwrap_or_default());
                let itself = process == to || thread == to;
                let who = if itself {
                    Sender::Itself
                } else {
                    claimed(process, &program, &self.config.libvirt, Duration::ZERO)
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
        let at = Wall((self.config.clock)().0.saturating_sub(age));
        let subject = self.config.processes.subject_of_thread(to);
        if let Some(unit) = unit.filter(|_| matches!(who, Sender::Outside | Sender::Manager)) {
            self.sink.observed(subject, at, Fact::SenderUnit { pid, unit });
        }
        if let Some(ProcessorTime { used_ms, limit_s }) = used {
            self.sink.observed(subject, at, Fact::ProcessorTime { used_ms, limit_s });
        }
        self.sink.observed(subject, at, fact);
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
