//! Crashes, what QEMU's sandbox forbids, and who sent a signal: from the kernel's audit, where it runs.
//!
//! ```text
//! ANOM_ABEND              a signal that dumps core ends a process ──┐
//! VIRT_CONTROL            libvirt could not start a domain          │
//! SECCOMP                 a process did what its sandbox forbids    ├─ the kernel ─ netlink ─ one thread
//! SYSCALL with OBJ_PIDs   a process sent a signal, and to whom ─────┘  (beside the audit's own daemon)
//! ```
//!
//! The last needs a rule of the administrator's, and all need an audit that is switched on, but for what a sandbox forbids:
//! that comes in any case. This only listens: it sets no rule, switches nothing on or off, and asks the kernel for nothing.
//!
//! Whether anything can be heard at all is tried out: whoever joins is recorded, so that a second ear is heard by the
//! first, unless the audit is switched off.
//!
//! What the kernel filters out wakes nobody. What comes is read in bounded pieces with a pause after each; what does not
//! fit into the kernel's bounded buffer meanwhile is told as missed. libvirt's SIGTERM is not told.

mod call;
mod ear;
mod event;
mod filter;
mod record;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use whydown_core::cause::Cause;
use whydown_core::evidence::{Audited, ExitStatus, Fact, Sender, StartedFor};
use whydown_core::id::DomainId;
use whydown_core::time::Wall;

use self::ear::{Ear, NotJoined, RECORD_BYTES, Read};
use self::event::{Event, Events};
use self::record::{ANOM_ABEND, CONFIG_CHANGE, EVENT_LISTENER, Record, Sending, Stamp, parse};
use crate::host::unit_of;
use crate::libvirt::LibvirtProcess;
use crate::process::{hosts_own_pids, running_since};
use crate::processes::Processes;
use crate::sender::{claimed, sender};
use crate::source::{About, Advice, Sink, Source, Stop, Waited};

/// Records read before the pause.
const RECORDS: usize = 1024;

/// After each turn, so that a storm of records costs little.
const PAUSE: Duration = Duration::from_millis(10);

/// How long the record of our own second ear may take. It comes within milliseconds, unless the audit is far behind.
const PATIENCE: Duration = Duration::from_secs(3);

/// After how long an audit that is not heard is tried again. Nothing is recorded then, unless it has been switched on.
const AGAIN: Duration = Duration::from_secs(60);

/// A record that is older was stamped by another clock: the host's time was set since.
const OLDEST: Duration = Duration::from_secs(60);

/// The first Linux that records who listens.
const RECORDS_LISTENERS: (u32, u32) = (5, 8);

const SIGTERM: i32 = 15;

/// Who writes of domains.
const LIBVIRT: &str = "libvirtd";

/// `SYS_SECCOMP`
const BY_SANDBOX: i32 = 1;

/// Records that only an audit that is on makes. What a sandbox forbids is recorded in any case, and a system call that
/// began before the audit was switched off, after that.
const SIGNS_OF_LIFE: [u16; 3] = [EVENT_LISTENER, CONFIG_CHANGE, ANOM_ABEND];

/// How it is known.
pub const ABOUT: About = About {
    name: "audit",
    gives: "the kernel's audit",
    fine: "the kernel's audit is heard, and names who sends signals",
    causes: &[Cause::ProcessKilled, Cause::QemuCrashed],
    // What it tells others tell as well, but for the person.
    needed: false,
    instead: None,
    advice: Advice { what: GIVES, add: RULES },
    off: Some((
        "the kernel's audit is not listened to: witness.audit is false",
        Advice { what: GIVES, add: "[witness]\naudit = true" },
    )),
};

const GIVES: &str = "It tells of crashes and of what QEMU's sandbox forbids, and with a rule who kills, and as whom they \
    logged in:";

/// The rules by which it names who sends SIGKILL: as `auditctl` takes them, and its `rules.d`. Each is for the calls that
/// have the signal in the same place; without the number, QEMU's own signals would be recorded by the thousand.
pub const RULES: &str = "\
-a always,exit -F arch=b64 -S kill,tkill,rt_sigqueueinfo,pidfd_send_signal -F a1=9 -F key=whydown
-a always,exit -F arch=b64 -S tgkill,rt_tgsigqueueinfo -F a2=9 -F key=whydown";

/// What it needs.
pub struct Config {
    /// Who libvirt is.
    pub libvirt: LibvirtProcess,
    /// Whose processes they are.
    pub processes: Processes,
    /// The host's clock.
    pub clock: fn() -> Wall,
    /// Set once a signal's sender was recorded: there is a rule for it.
    pub names_senders: Arc<AtomicBool>,
    /// Takes what libvirt records of starts that failed: which of them are told already, history knows.
    pub not_started: Box<dyn Fn(NotStarted) + Send>,
}

/// libvirt could not start a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotStarted {
    /// Who says so: the process of a libvirt, as far as its name and its program tell. Of several on one kernel all tell the
    /// one audit.
    pub by: u32,
    /// Which one.
    pub domain: DomainId,
    /// Its name, made harmless.
    pub name: String,
    /// For whose memory, if for one.
    pub started_for: Option<StartedFor>,
    /// When.
    pub at: Wall,
}

/// Why nothing is heard though we may listen.
const SILENT: &str = "the kernel's audit is switched off (enabled 0): auditctl -e 1 switches it on, and audit=1 on \
    the kernel's command line from the start";

/// Why the audit is not listened to.
#[derive(Debug, thiserror::Error)]
enum AuditError {
    /// It was switched off for as long as the host runs.
    #[error("the kernel's audit was switched off at boot (audit=0 on the kernel's command line)")]
    Off,
    /// There is none.
    #[error("this kernel has no audit (CONFIG_AUDIT)")]
    Absent,
    /// Not for us.
    #[error(
        "no right to the kernel's audit ({0}): it needs CAP_AUDIT_READ, in the host's own user namespace"
    )]
    Refused(#[source] io::Error),
    /// The kernel tells pids of the host, and ours are others.
    #[error("this is not the host's own pid namespace, and the kernel's audit tells the host's pids")]
    OtherPids,
    /// The kernel tells it to the host's own network namespace alone.
    #[error("this is not the host's own network namespace, and the kernel's audit is told there alone")]
    OtherNetwork,
    /// No descriptor is to be had.
    #[error("the kernel's audit cannot be followed: {0}")]
    Failed(#[source] io::Error),
}

/// Follows the audit with one thread, named `audit`, and tells [`Fact::Signalled`], [`Fact::SenderUnit`] and
/// [`Fact::Exit`]. What was recorded before is not told.
pub fn start(config: Config, sink: Sink) -> Source {
    match open() {
        Ok((ear, stop)) => {
            let ears = Ears::new(config, sink.clone(), Arc::clone(&stop));
            Source::run("audit", &sink, stop, move || ears.listen(&ear))
        }
        Err(why) => Source::none(&sink, why),
    }
}

fn open() -> Result<(Ear, Arc<Stop>), AuditError> {
    if !hosts_own_pids() {
        return Err(AuditError::OtherPids);
    }
    if !hosts_own_network() {
        return Err(AuditError::OtherNetwork);
    }
    let ear = Ear::join().map_err(refusal)?;
    Ok((ear, Stop::new().map_err(AuditError::Failed)?))
}

fn refusal(why: NotJoined) -> AuditError {
    match why {
        NotJoined::Refused(why) => AuditError::Refused(why),
        NotJoined::Failed(why) => AuditError::Failed(why),
        NotJoined::Absent => {
            let asked = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
            let off = asked.split_ascii_whitespace().any(|word| matches!(word, "audit=0" | "audit=off"));
            if off { AuditError::Off } else { AuditError::Absent }
        }
    }
}

/// Whether our network namespace is that of the host's first process; also where that one cannot be looked at.
fn hosts_own_network() -> bool {
    let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    of("1").is_none_or(|hosts| of("self").is_some_and(|ours| ours == hosts))
}

/// Whether this kernel records who joins the group.
fn records_listeners() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= RECORDS_LISTENERS
}

/// Whether the audit is heard at all, tried out: while it is not, again and again, as nobody tells that it is switched on.
enum Trial {
    /// A second ear has joined, and is heard by this time or not at all.
    Out {
        /// Held, not read.
        _second: Ear,
        until: Instant,
    },
    /// To be begun at this time.
    Due(Instant),
    /// It is heard, or there is no way to tell.
    Over,
}

impl Trial {
    fn next(&self) -> Option<Instant> {
        match self {
            Self::Out { until: at, .. } | Self::Due(at) => Some(*at),
            Self::Over => None,
        }
    }
}

/// The thread's own part.
struct Ears {
    config: Config,
    sink: Sink,
    stop: Arc<Stop>,
    events: Events,
    /// Whether the audit speaks, once that was told.
    speaks: Option<bool>,
}

impl Ears {
    fn new(config: Config, sink: Sink, stop: Arc<Stop>) -> Self {
        Self { config, sink, stop, events: Events::default(), speaks: None }
    }

    /// Until told to stop, or nothing can be read.
    fn listen(mut self, ear: &Ear) -> Result<(), Errno> {
        let mut buffer = vec![0; RECORD_BYTES];
        let mut trial = Trial::Due(Instant::now());
        loop {
            trial = self.try_out(trial);
            let wait = trial.next().map(|at| at.saturating_duration_since(Instant::now()));
            if self.stop.wait_for(ear, wait)? == Waited::Ended {
                return Ok(());
            }
            self.turn(ear, &mut buffer)?;
            if self.stop.rest(PAUSE) {
                return Ok(());
            }
        }
    }

    /// Takes the trial a step further, where it is time.
    fn try_out(&mut self, trial: Trial) -> Trial {
        let now = Instant::now();
        match trial {
            Trial::Over if self.speaks == Some(false) => Trial::Due(now + AGAIN),
            Trial::Over => Trial::Over,
            _ if self.speaks == Some(true) => Trial::Over,
            Trial::Due(at) if now >= at => {
                let out = |_second| Trial::Out { _second, until: now + PATIENCE };
                Ear::join().map_or(Trial::Over, out)
            }
            Trial::Out { until, .. } if now >= until => {
                if !records_listeners() {
                    return Trial::Over;
                }
                self.hears(false);
                Trial::Due(now + AGAIN)
            }
            waiting => waiting,
        }
    }

    /// What waits, up to a bound.
    fn turn(&mut self, ear: &Ear, buffer: &mut [u8]) -> Result<(), Errno> {
        for _ in 0..RECORDS {
            match ear.read(buffer)? {
                Read::Empty => break,
                Read::Other => {}
                Read::Missed => self.sink.overrun(),
                Read::Record(kind, length) => {
                    if SIGNS_OF_LIFE.contains(&kind) {
                        self.hears(true);
                    }
                    self.read(kind, &String::from_utf8_lossy(ear::text(buffer, length)));
                }
            }
        }
        Ok(())
    }

    /// Tells whether the audit is heard, where that is new.
    fn hears(&mut self, speaks: bool) {
        if self.speaks != Some(speaks) {
            self.speaks = Some(speaks);
            if speaks { self.sink.available() } else { self.sink.unavailable(SILENT) }
        }
    }

    fn read(&mut self, kind: u16, text: &str) {
        let Some((stamp, record)) = parse(kind, text) else { return };
        match self.events.take(stamp, record) {
            Some(Event::Sent { stamp, from, to, name }) => self.sent(stamp, from, to, &name),
            Some(Event::Said(stamp, Record::Ended { pid, name, exe, signal })) => {
                if is_qemu(&name) || is_qemu(&exe) {
                    self.tell(stamp, pid, Fact::Exit(ExitStatus::Signal(signal)));
                }
            }
            Some(Event::Said(stamp, Record::Forbidden { pid, name, exe, signal, arch, call })) => {
                if is_qemu(&name) || is_qemu(&exe) {
                    let audit = Some(Audited::Sandbox { call, arch });
                    let (code, program, sender) = (BY_SANDBOX, String::new(), Sender::Kernel);
                    self.tell(stamp, pid, Fact::Signalled { signal, code, pid: 0, program, sender, audit });
                }
            }
            Some(Event::Said(stamp, Record::NotStarted { pid, domain, name, started_for })) => {
                // Whoever may write to the audit may say so: one that still runs, and is not libvirt, is not believed.
                let at = moment(stamp, (self.config.clock)());
                if claimed(pid, LIBVIRT, &self.config.libvirt, (self.config.clock)().since(at))
                    == Sender::Libvirt
                {
                    (self.config.not_started)(NotStarted { by: pid, domain, name, started_for, at });
                }
            }
            Some(Event::Said(_, Record::Switched { on: false })) => self.hears(false),
            Some(Event::Said(..)) | None => {}
        }
    }

    fn sent(&mut self, stamp: Stamp, from: Sending, to: u32, name: &str) {
        self.config.names_senders.store(true, Ordering::Relaxed);
        let Sending { signal, code, pid, uid, login, name: program, exe, .. } = from;
        let itself = pid == to;
        let ours = is_qemu(name) || itself && (is_qemu(&exe) || is_qemu(&program));
        if !ours {
            return;
        }
        // The file tells more of a program than a name that it gives itself.
        let known_by = if exe.is_empty() { &program } else { &exe };
        let sender = if itself { Sender::Itself } else { sender(pid, known_by, &self.config.libvirt) };
        if signal == SIGTERM && sender == Sender::Libvirt {
            return;
        }
        // It may have ended since, and another have its number: one that began after the record is not it.
        let ran = matches!(sender, Sender::Outside | Sender::Manager)
            && running_since(pid).is_some_and(|since| since <= moment(stamp, (self.config.clock)()));
        if let Some(unit) = ran.then(|| unit_of(pid)).flatten() {
            self.tell(stamp, to, Fact::SenderUnit { pid, unit });
        }
        let audit = Some(Audited::Process { exe, uid, login });
        self.tell(stamp, to, Fact::Signalled { signal, code, pid, program, sender, audit });
    }

    fn tell(&self, stamp: Stamp, pid: u32, fact: Fact) {
        let at = moment(stamp, (self.config.clock)());
        let emulators = &self.config.processes.emulators;
        self.sink.observed(emulators.subject(pid), at, emulators.as_told_of(pid, fact));
    }
}

/// A record's own time, unless it cannot be right.
fn moment(stamp: Stamp, now: Wall) -> Wall {
    let at = i64::try_from(stamp.millis.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
    if at <= now.0 && now.since(Wall(at)) <= OLDEST { Wall(at) } else { now }
}

/// By its name or the path of its program, as [`crate::signal`] knows it.
fn is_qemu(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or_default();
    name.starts_with("qemu") || name.starts_with("kvm")
}

#[cfg(test)]
mod tests;
