//! What was witnessed of one run: facts with their times, kept in the order of their first appearance.

use serde::{Deserialize, Serialize};

use crate::hypervisor::{DomainState, Happening};
use crate::id::BootId;
use crate::limits;
pub use crate::operation::OperationKind;
use crate::time::Wall;

/// Who made a request: a unix user, an address, a certificate's subject; as HTTP knew it.
pub type Who = String;

/// Who sent a signal, as far as QEMU's log or the kernel tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sender {
    /// libvirt itself, ending the process as it always does.
    Libvirt,
    /// The host's init, process 1: it ends what is in a unit that is stopped, and everything when the host goes down.
    /// Of evidence that older versions stored also a program that is only called like it.
    Init,
    /// Another service manager by its program: that of a user, who logs out.
    Manager,
    /// Somebody else on the host.
    Outside,
    /// The kernel: for a fault of the process, or to end it.
    Kernel,
    /// The process that got it, as `abort` does.
    Itself,
}

/// libvirt's own word in the domain's log: `shutting down, reason=…`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogWord {
    /// `shutdown`
    Shutdown,
    /// `destroyed`
    Destroyed,
    /// `crashed`
    Crashed,
    /// `migrated`
    Migrated,
    /// `saved`
    Saved,
    /// `failed`
    Failed,
    /// `from snapshot`
    FromSnapshot,
    /// `daemon`
    Daemon,
    /// A word that this program does not know.
    Other,
}

/// SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGXCPU, SIGXFSZ, SIGSYS: signals that dump core.
pub const FAULTS: [i32; 10] = [3, 4, 5, 6, 7, 8, 11, 24, 25, 31];

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitStatus {
    /// It exited with this status.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl ExitStatus {
    /// Whether its memory may have been written down.
    pub fn may_dump_core(self) -> bool {
        matches!(self, Self::Signal(signal) if FAULTS.contains(&signal))
    }
}

/// Why we could not hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deaf {
    /// whydown itself was not running.
    DaemonAway,
    /// The link to libvirt was lost.
    LinkLost,
}

/// Whose memory a QEMU waits for when it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StartedFor {
    /// That of a VM that migrates here.
    Migration,
    /// That of a VM that was saved.
    Restore,
    /// One of the two: QEMU is started alike for both.
    Either,
}

/// What the kernel's audit adds to a signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Audited {
    /// The process that sent it.
    Process {
        /// The file of its program; empty where the kernel does not know it.
        exe: String,
        /// Its user.
        uid: u32,
        /// The user who once logged in, whatever it became since by `su` or `sudo`; `None` for services.
        login: Option<u32>,
    },
    /// The kernel itself, for a system call that QEMU's own sandbox forbids.
    Sandbox {
        /// The call's number.
        call: u32,
        /// Of which architecture, as the audit numbers them.
        arch: u32,
    },
}

/// One thing that was witnessed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fact {
    /// The hypervisor reported it.
    Host(Happening),
    /// A manager asked us for it.
    Requested {
        /// What.
        what: OperationKind,
        /// By whom.
        who: Who,
    },
    /// libvirt was asked for it, its request being on disk, or not to be written.
    PassedOn(OperationKind),
    /// A shutdown that a manager asked us for ends with force, if that is not called off: what whydown owes after a restart
    /// of its own.
    ForceFollows {
        /// How long after this at most, in milliseconds; `None` calls off what was said before.
        within_ms: Option<u64>,
        /// Who asked.
        who: Who,
    },
    /// libvirt was still to answer what a manager had asked of the domain's run before, and may have done it to this one.
    Astray(OperationKind, Who),
    /// libvirt refused what a manager had asked; its own text.
    Refused {
        /// What had been asked.
        what: OperationKind,
        /// libvirt's words.
        text: String,
    },
    /// The state that libvirt showed when asked.
    Found {
        /// State and reason.
        state: DomainState,
        /// Whether a managed save image waits; `None` if unread.
        managed_save: Option<bool>,
    },
    /// libvirt no longer knew the domain.
    Gone,
    /// The domain has a later run: this one had ended before.
    Replaced,
    /// QEMU's log holds its start, of which nothing was heard.
    LogStart {
        /// When it began.
        at: Wall,
        /// Whether it waited for a VM that migrates here.
        incoming: bool,
    },
    /// The next run of the domain began from a snapshot.
    NextFromSnapshot,
    /// libvirt told of a start from a snapshot, and no process was there: it tells so of one that failed as well.
    StartedInVain,
    /// We could not hear from `from` to `to`.
    Gap {
        /// Last moment of hearing.
        from: Wall,
        /// First moment of hearing again.
        to: Wall,
        /// Why.
        why: Deaf,
    },
    /// libvirt's farewell in the log.
    LogEnd {
        /// Its word.
        word: LogWord,
        /// Its time.
        at: Option<Wall>,
    },
    /// What may be libvirt's farewell in the log, of a domain whose guest can write there as well.
    LogDoubted {
        /// Its word.
        word: LogWord,
        /// Its time, as it says.
        at: Wall,
    },
    /// QEMU's log names a signal.
    LogSignal {
        /// Signal number.
        signal: i32,
        /// Sender's process id.
        pid: u32,
        /// Sender's program, empty if it was gone already.
        program: String,
        /// Who that is.
        sender: Sender,
        /// Its time.
        at: Option<Wall>,
    },
    /// Other words of QEMU in the log, last lines first kept.
    LogText(String),
    /// The log was read, and this run's part holds no farewell.
    LogSilent,
    /// The log was read, and this run's part has lost its beginning, and perhaps more.
    LogCut,
    /// The log could not be read.
    LogUnread(String),
    /// The process's exit status.
    Exit(ExitStatus),
    /// The process that libvirt started is not QEMU, but runs it: what it exits with is not QEMU's own status.
    Wrapped {
        /// Its program.
        program: String,
        /// The process that is QEMU, if it was found.
        qemu: Option<u32>,
    },
    /// The exit status of QEMU itself, where another program runs it.
    InnerExit(ExitStatus),
    /// It has a device by which its guest ends QEMU with a status of the guest's choice.
    GuestMayExit {
        /// QEMU's name of the device.
        device: String,
    },
    /// A reboot of its guest ends it, as its definition said when it was last read (`on_reboot`).
    RebootEnds,
    /// A panic of its guest does not end it, as its definition said when it was last read (`on_crash`).
    PanicStays,
    /// It was begun without a device by which its guest could report a panic.
    CannotPanic,
    /// It was begun with a watchdog that powers it off.
    WatchdogPowersOff,
    /// libvirt wrote into the log that the guest panicked, as it does where the guest says more of that.
    LogPanic(String),
    /// The kernel delivered a signal to it, and says who sent it. One that is blocked or ignored is not among them.
    Signalled {
        /// Signal number.
        signal: i32,
        /// The kernel's code: above zero it sent the signal itself, otherwise a process did.
        code: i32,
        /// The sender's process id; zero for the kernel.
        pid: u32,
        /// The sender's program, at most 15 bytes of its name; empty if it was gone already, and for the kernel.
        program: String,
        /// Who that is.
        sender: Sender,
        /// What the kernel's audit adds; stored since it is listened to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        audit: Option<Audited>,
    },
    /// The kernel's out-of-memory killer named this process.
    OomKilled {
        /// The kernel's line.
        line: String,
    },
    /// The host was going down.
    HostGoingDown {
        /// Who said so.
        by: String,
    },
    /// The host was shut down in good order in the boot in which it ran, as what that boot has left says; dated by when it was
    /// off, or nearly so.
    HostWentDown {
        /// When that began, where it is known.
        since: Option<Wall>,
        /// Who says so.
        by: String,
    },
    /// The host was said to go down, and it does not any more. Nothing where nobody said that it did.
    HostStays,
    /// The host's service manager was asked after the end, and says that the host is not going down.
    HostUp {
        /// Its words, for an administrator.
        by: String,
    },
    /// The host's service manager was told to stop the unit in which it ran, while it ran.
    UnitStopping {
        /// The name of the unit.
        unit: String,
    },
    /// The unit of systemd in which the process ran that sent a signal.
    SenderUnit {
        /// The sender's process id.
        pid: u32,
        /// The name of the unit.
        unit: String,
    },
    /// The processor time of a process that has a hard limit on it, looked at when the kernel itself sent it SIGKILL.
    ProcessorTime {
        /// What it had used, in milliseconds, as the kernel shows it.
        used_ms: u64,
        /// The limit, in seconds.
        limit_s: u64,
    },
    /// What a disk that an I/O error was about is on this host, looked at when libvirt showed the VM paused by it.
    DiskSpace {
        /// libvirt's alias of the device, such as `virtio-disk0`.
        disk: String,
        /// The file, or the device of the host.
        path: String,
        /// Bytes that were free on the file system of a file, for those who are not root; `None` for a device.
        free: Option<u64>,
    },
    /// QEMU's own memory was written to this file when a fault ended it.
    CoreDump {
        /// Its path.
        file: String,
    },
    /// QEMU's own memory was given to a program of the host's when a fault ended it.
    CoreTaken {
        /// The program, as the kernel's `core_pattern` names it.
        by: String,
        /// The process whose memory it was.
        pid: u32,
    },
    /// The libvirt that ended the process, and that runs still, has been running since then. It shows whether it can have
    /// followed the VM, or came back to it.
    LibvirtSince(Wall),
    /// The host has booted anew since the run was last seen.
    NewBoot {
        /// The boot in which it ran.
        before: BootId,
        /// The boot now.
        now: BootId,
    },
    /// The wall clock was set: what is dated before it and after it lies by another time apart than the dates say.
    ClockSet {
        /// What it would have shown.
        before: Wall,
        /// What it showed instead.
        now: Wall,
    },
    /// A start by another client failed.
    StartFailed {
        /// Who says so.
        told_by: String,
    },
    /// What libvirt says about a start that failed: its log of that moment, or its answer when asked for what it needed.
    StartTrouble(String),
    /// QEMU was started to take over a memory that was saved or is sent here, and did not come up.
    StartedFor {
        /// What is known of that.
        what: StartedFor,
        /// Who says so.
        told_by: String,
    },
    /// Stored evidence that this version cannot read.
    Unreadable(String),
}

impl Fact {
    /// Whether both tell the same thing: equal, or one signal, by whatever names of its sender the trace and the audit tell it.
    pub fn is_same(&self, other: &Self) -> bool {
        self == other || self.is_other_word_on(other)
    }

    /// Whether it is a signal that the host's init, or another service manager, sent.
    pub fn is_signal_of_a_manager(&self) -> bool {
        matches!(
            self,
            Self::LogSignal { sender: Sender::Init | Sender::Manager, .. }
                | Self::Signalled { sender: Sender::Init | Sender::Manager, .. }
        )
    }

    fn is_other_word_on(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Signalled { signal, pid, audit, .. },
                Self::Signalled { signal: other, pid: by, audit: added, .. },
            ) if (signal, pid) == (other, by) => match (audit, added) {
                (Some(audit), Some(added)) => audit == added,
                (None, None) => false,
                _ => true,
            },
            _ => false,
        }
    }

    /// Takes over what the audit adds. It names the file of a program, which nobody can change as its name.
    fn complete(&mut self, fuller: Self) {
        let Self::Signalled { program, sender, audit, .. } = self else { return };
        let Self::Signalled { program: name, sender: who, audit: Some(added), .. } = fuller else { return };
        *audit = Some(added);
        *sender = who;
        if program.is_empty() {
            *program = name;
        }
    }
}

/// Position of a piece of evidence in its dossier.
pub type EvidenceId = u16;

/// A fact, with when and how often it was witnessed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The first time.
    pub first: Wall,
    /// The last time.
    pub last: Wall,
    /// How often.
    pub times: u32,
    /// What.
    pub fact: Fact,
}

/// What a fact that came late added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Late {
    /// Nothing.
    NoNews,
    /// A piece of its own, behind all others.
    New,
    /// What is here says more of this piece, which was like this before.
    Completed(EvidenceId, Evidence),
}

/// All that was witnessed of one run. Bounded: equal facts are counted, and at most
/// [`limits::FACTS_PER_RUN`] different ones are kept.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Dossier {
    items: Vec<Evidence>,
    /// Facts that found no place.
    pub dropped: u32,
}

impl Dossier {
    /// From stored evidence.
    pub fn from_items(items: Vec<Evidence>) -> Self {
        Self { items, dropped: 0 }
    }

    /// Adds a fact. True if it is new, false if it is a repeat or found no place. What two witnesses tell of one moment
    /// is counted once, and a process ends only once.
    pub fn add(&mut self, at: Wall, fact: Fact) -> bool {
        if let Some(known) = self.items.iter_mut().find(|e| e.fact.is_same(&fact)) {
            let apart = known.last.since(at).max(at.since(known.last));
            let echo = known.fact.is_other_word_on(&fact) && apart <= limits::CLOCK_GRACE;
            if !echo && !matches!(fact, Fact::Exit(_) | Fact::InnerExit(_)) {
                known.times = known.times.saturating_add(1);
            }
            known.last = known.last.max(at);
            known.fact.complete(fact);
            return false;
        }
        if self.items.len() >= limits::FACTS_PER_RUN {
            self.dropped = self.dropped.saturating_add(1);
            return false;
        }
        self.items.push(Evidence { first: at, last: at, times: 1, fact });
        true
    }

    /// Adds a fact that came after the ending was told. What is known already is no news and changes nothing, so that the
    /// evidence as it was told can be had back.
    pub fn add_late(&mut self, at: Wall, fact: Fact) -> Late {
        if let Some(place) = self.items.iter().position(|e| e.fact.is_same(&fact)) {
            let before = self.items[place].clone();
            self.items[place].fact.complete(fact);
            return if self.items[place] == before {
                Late::NoNews
            } else {
                Late::Completed(place as EvidenceId, before)
            };
        }
        let ends_twice =
            matches!(fact, Fact::Exit(_)) && self.items.iter().any(|e| matches!(e.fact, Fact::Exit(_)));
        if ends_twice || self.items.len() >= limits::FACTS_PER_RUN {
            return Late::NoNews;
        }
        self.items.push(Evidence { first: at, last: at, times: 1, fact });
        Late::New
    }

    /// In the order of first appearance.
    pub fn items(&self) -> &[Evidence] {
        &self.items
    }

    /// The first piece that `wanted` accepts, with its position.
    pub fn find(&self, wanted: impl Fn(&Fact) -> bool) -> Option<(EvidenceId, &Evidence)> {
        self.items.iter().enumerate().find(|(_, e)| wanted(&e.fact)).map(|(i, e)| (i as EvidenceId, e))
    }

    /// The piece with the latest `last` time that `wanted` accepts.
    pub fn latest(&self, wanted: impl Fn(&Fact) -> bool) -> Option<(EvidenceId, &Evidence)> {
        self.items
            .iter()
            .enumerate()
            .filter(|(_, e)| wanted(&e.fact))
            .max_by_key(|(i, e)| (e.last, *i))
            .map(|(i, e)| (i as EvidenceId, e))
    }

    /// The latest time at which `happening` was reported.
    pub fn last_heard(&self, wanted: impl Fn(&Happening) -> bool) -> Option<Wall> {
        self.latest(|f| matches!(f, Fact::Host(h) if wanted(h))).map(|(_, e)| e.last)
    }
}

/// Cuts a text to [`limits::TEXT_BYTES`] at a character's edge, and replaces control characters that XML, terminals
/// and journals cannot carry by U+FFFD.
pub fn tame(text: &str) -> String {
    let mut tame = String::with_capacity(text.len().min(limits::TEXT_BYTES));
    for c in text.chars() {
        let c = match c {
            '\t' | '\n' => c,
            '\u{FFFE}' | '\u{FFFF}' => '\u{FFFD}',
            c if c.is_control() => '\u{FFFD}',
            c => c,
        };
        if tame.len() + c.len_utf8() > limits::TEXT_BYTES {
            break;
        }
        tame.push(c);
    }
    tame
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    fn killed(program: &str, audit: Option<Audited>) -> Fact {
        Fact::Signalled {
            signal: 9,
            code: 0,
            pid: 7,
            program: program.into(),
            sender: Sender::Outside,
            audit,
        }
    }

    fn audited() -> Option<Audited> {
        Some(Audited::Process { exe: "/usr/bin/kill".into(), uid: 0, login: Some(1000) })
    }

    #[test]
    fn a_signal_that_two_witnesses_tell_is_one_with_all_that_both_know() {
        for turned in [false, true] {
            let mut told = [killed("main", None), killed("thread", audited())];
            if turned {
                told.reverse();
            }
            let mut dossier = Dossier::default();
            let added = told.map(|fact| dossier.add(Wall(5 * SECOND), fact));
            assert_eq!(added, [true, false]);
            let [one] = dossier.items() else { panic!("{dossier:?}") };
            assert_eq!(one.times, 1, "{one:?}");
            assert_eq!(one.fact, killed(if turned { "thread" } else { "main" }, audited()));
            // Another one, much later, is counted.
            dossier.add(Wall(60 * SECOND), killed("main", None));
            dossier.add(Wall(60 * SECOND), killed("thread", audited()));
            let [one] = dossier.items() else { panic!("{dossier:?}") };
            assert_eq!((one.first, one.last), (Wall(5 * SECOND), Wall(60 * SECOND)));
            assert!(one.times >= 2, "{one:?}");
        }
    }

    #[test]
    fn a_name_that_was_gone_and_a_sender_of_a_changed_name_come_from_the_audit() {
        let mut dossier = Dossier::default();
        dossier.add(Wall(0), killed("", None));
        let Fact::Signalled { signal, code, pid, program, audit, .. } = killed("kill", audited()) else {
            unreachable!()
        };
        let fuller = Fact::Signalled { signal, code, pid, program, sender: Sender::Init, audit };
        dossier.add(Wall(SECOND / 10), fuller.clone());
        assert_eq!(dossier.items()[0].fact, fuller);
    }

    #[test]
    fn signals_of_other_processes_and_other_numbers_stay_apart_and_an_end_is_counted_once() {
        let mut dossier = Dossier::default();
        for (signal, pid) in [(9, 7), (9, 8), (15, 7)] {
            let audit = audited().filter(|_| pid == 8 || signal == 15);
            let sender = Sender::Outside;
            dossier
                .add(Wall(0), Fact::Signalled { signal, code: 0, pid, program: "x".into(), sender, audit });
        }
        assert_eq!(dossier.items().len(), 3);
        assert!(dossier.add(Wall(0), Fact::Exit(ExitStatus::Signal(6))));
        assert!(!dossier.add(Wall(SECOND), Fact::Exit(ExitStatus::Signal(6))));
        assert_eq!(dossier.items()[3].times, 1);
    }
}
