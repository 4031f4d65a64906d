//! The ways to end a VM, and what happens to VMs that ends none of them, as event sequences recorded on real systems:
//! libvirt 9.0, QEMU 7.2. Times are milliseconds from the beginning.

use whydown_core::cause::Cause;
use whydown_core::evidence::{ExitStatus, LogWord};
use whydown_core::hypervisor::{
    CrashDetail, DomainState, Happening, IoErrorAction, JobOperation, PauseReason, PmDetail, QemuReason,
    ResumeDetail, ShutOffReason, ShutdownDetail, StartDetail, StopDetail, SuspendDetail, WatchdogAction,
};

use crate::hypervisor::LogLine;

/// libvirtd's pid in every log of the told world.
pub const LIBVIRTD: u32 = 7371;

/// One thing that happens to a domain, or to its process.
#[derive(Debug, Clone, PartialEq)]
pub enum Act {
    /// libvirt reports it.
    Say(Happening),
    /// libvirt shows this state.
    Show(DomainState),
    /// A line comes into the log.
    Log(LogLine),
    /// The process exits.
    Exit(ExitStatus),
    /// The kernel's out-of-memory killer names the process.
    Oom,
    /// The kernel delivers a signal: its number, and who sent it.
    Signal(i32, From),
    /// libvirt keeps a managed save image, or no longer does.
    Image(bool),
    /// A process begins to run it.
    Begin,
    /// A process breaks off before it runs it.
    BeginInVain,
    /// The process that begins waits for a VM that migrates here.
    Incoming,
    /// The process is gone and libvirt has noticed; it shows this.
    End(DomainState),
}

/// Who sends a signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// The kernel.
    Kernel,
    /// The process that gets it.
    Itself,
    /// A process with this pid and name.
    Process(u32, String),
}

/// How a life ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is explained by its sequence")]
pub enum Way {
    GuestPoweroff,
    GuestReset,
    GuestPanic,
    Hibernated,
    WatchdogPoweroff,
    WatchdogShutdown,
    ButtonShutdown,
    AgentShutdown,
    OutsideDestroy,
    OurShutdown,
    OurDestroy,
    OurForce,
    Killed,
    KilledInSight,
    Segfault,
    SegfaultInSight,
    SegfaultSent,
    QemuError,
    Terminated,
    TerminatedInSight,
    TerminatedByInit,
    MonitorQuit,
    OutOfMemory,
    OutOfMemoryInSight,
    OutOfMemoryUnsaid,
    MigratedAway,
    ManagedSave,
    SaveToFile,
    CoreDump,
    SnapshotHalt,
    SnapshotRevert,
    IncomingFailed,
    HostLost,
}

impl Way {
    /// Those that can befall any running VM without anybody asking whydown.
    pub const BEFALLING: [Self; 27] = [
        Self::GuestPoweroff,
        Self::GuestReset,
        Self::GuestPanic,
        Self::Hibernated,
        Self::WatchdogPoweroff,
        Self::WatchdogShutdown,
        Self::ButtonShutdown,
        Self::OutsideDestroy,
        Self::Killed,
        Self::KilledInSight,
        Self::Segfault,
        Self::SegfaultInSight,
        Self::SegfaultSent,
        Self::QemuError,
        Self::Terminated,
        Self::TerminatedInSight,
        Self::TerminatedByInit,
        Self::MonitorQuit,
        Self::OutOfMemory,
        Self::OutOfMemoryInSight,
        Self::OutOfMemoryUnsaid,
        Self::MigratedAway,
        Self::ManagedSave,
        Self::SaveToFile,
        Self::CoreDump,
        Self::SnapshotHalt,
        Self::SnapshotRevert,
    ];

    /// The cause that may be told as certain; none where nothing on the host can be certain of it.
    pub fn certain_cause(self) -> Option<Cause> {
        Some(match self {
            Self::GuestPoweroff => Cause::GuestPoweroff,
            Self::GuestReset => Cause::DestroyedOnReboot,
            Self::GuestPanic => Cause::GuestPanic,
            Self::Hibernated => Cause::GuestHibernated,
            Self::WatchdogPoweroff => Cause::WatchdogPoweroff,
            Self::WatchdogShutdown => Cause::WatchdogShutdown,
            Self::ButtonShutdown => Cause::OtherShutdown,
            Self::OutsideDestroy => Cause::OutsideDestroyed,
            Self::OurShutdown => Cause::AdminShutdown,
            Self::OurDestroy => Cause::AdminDestroyed,
            Self::OurForce => Cause::AdminForcedOff,
            Self::KilledInSight => Cause::ProcessKilled,
            Self::SegfaultInSight => Cause::QemuCrashed,
            Self::QemuError => Cause::QemuFailed,
            Self::Terminated | Self::TerminatedInSight | Self::SegfaultSent => Cause::ProcessTerminated,
            Self::MonitorQuit => Cause::MonitorQuit,
            Self::OutOfMemory | Self::OutOfMemoryInSight => Cause::OomKilled,
            Self::MigratedAway => Cause::MigratedAway,
            Self::ManagedSave => Cause::ManagedSaved,
            Self::SaveToFile => Cause::SavedToFile,
            Self::SnapshotRevert => Cause::SnapshotReverted,
            Self::IncomingFailed => Cause::IncomingMigrationFailed,
            Self::AgentShutdown
            | Self::Killed
            | Self::Segfault
            | Self::OutOfMemoryUnsaid
            | Self::TerminatedByInit
            | Self::CoreDump
            | Self::SnapshotHalt
            | Self::HostLost => return None,
        })
    }

    /// Whether QEMU waits for libvirtd before it goes, so that a libvirtd which is away finishes it on its return.
    pub fn waits_for_libvirtd(self) -> bool {
        matches!(
            self,
            Self::GuestPoweroff
                | Self::GuestReset
                | Self::Hibernated
                | Self::WatchdogShutdown
                | Self::ButtonShutdown
                | Self::AgentShutdown
        )
    }

    /// Whether only libvirtd can do it.
    pub fn needs_libvirtd(self) -> bool {
        matches!(
            self,
            Self::OutsideDestroy
                | Self::OurShutdown
                | Self::OurDestroy
                | Self::OurForce
                | Self::MigratedAway
                | Self::ManagedSave
                | Self::SaveToFile
                | Self::CoreDump
                | Self::SnapshotHalt
                | Self::SnapshotRevert
                | Self::IncomingFailed
                | Self::GuestPanic
        )
    }

    /// What happens.
    pub fn sequence(self) -> Vec<(u64, Act)> {
        let mut acts = Vec::new();
        match self {
            Self::GuestPoweroff | Self::AgentShutdown => shutdown(&mut acts, 0, QemuReason::GuestShutdown),
            Self::OurShutdown | Self::ButtonShutdown => {
                acts.push((0, Act::Say(Happening::QemuPowerdown)));
                shutdown(&mut acts, 35, QemuReason::GuestShutdown);
            }
            Self::GuestReset => shutdown(&mut acts, 0, QemuReason::GuestReset),
            Self::Hibernated => {
                acts.push((0, Act::Say(Happening::PmSuspended(PmDetail::Disk))));
                shutdown(&mut acts, 3, QemuReason::GuestShutdown);
            }
            Self::WatchdogShutdown => {
                acts.push((0, Act::Say(Happening::Watchdog(WatchdogAction::Shutdown))));
                acts.push((1, Act::Say(Happening::QemuPowerdown)));
                shutdown(&mut acts, 30, QemuReason::GuestShutdown);
            }
            Self::WatchdogPoweroff => {
                acts.push((0, Act::Say(Happening::Watchdog(WatchdogAction::PowerOff))));
                acts.push((0, Act::Exit(ExitStatus::Code(0))));
                vanished(&mut acts, 5);
            }
            Self::GuestPanic => {
                acts.push((0, Act::Say(Happening::QemuPanicked)));
                acts.push((1, Act::Say(Happening::GuestCrashed(CrashDetail::Panicked))));
                acts.push((1, Act::Show(DomainState::Crashed)));
                acts.push((10, Act::Log(LogLine::Reason(LogWord::Crashed))));
                killed_by_libvirt(&mut acts, 12, ShutOffReason::Crashed, StopDetail::Crashed);
            }
            Self::OutsideDestroy | Self::OurDestroy | Self::OurForce => {
                acts.push((0, Act::Log(signal(15, LIBVIRTD, "/usr/sbin/libvirtd"))));
                acts.push((1, Act::Say(qemu_shutdown(false, QemuReason::HostSignal))));
                acts.push((202, Act::Say(Happening::ShutdownBegan(ShutdownDetail::Host))));
                acts.push((203, Act::Exit(ExitStatus::Code(0))));
                acts.push((203, Act::Log(LogLine::Reason(LogWord::Destroyed))));
                stop(&mut acts, 204, ShutOffReason::Destroyed, StopDetail::Destroyed);
            }
            Self::Killed => {
                acts.push((0, Act::Exit(ExitStatus::Signal(9))));
                vanished(&mut acts, 6);
            }
            Self::Segfault => {
                acts.push((0, Act::Exit(ExitStatus::Signal(11))));
                vanished(&mut acts, 6);
            }
            Self::KilledInSight => {
                acts.push((0, Act::Signal(9, somebody())));
                acts.push((1, Act::Exit(ExitStatus::Signal(9))));
                vanished(&mut acts, 6);
            }
            Self::SegfaultInSight => {
                acts.push((0, Act::Signal(11, From::Kernel)));
                acts.push((1, Act::Exit(ExitStatus::Signal(11))));
                vanished(&mut acts, 6);
            }
            Self::SegfaultSent => {
                acts.push((0, Act::Signal(11, somebody())));
                acts.push((1, Act::Exit(ExitStatus::Signal(11))));
                vanished(&mut acts, 6);
            }
            Self::QemuError => {
                acts.push((0, Act::Log(LogLine::Text("qemu-system-x86_64: the backend went away".into()))));
                acts.push((0, Act::Exit(ExitStatus::Code(1))));
                vanished(&mut acts, 6);
            }
            Self::OutOfMemory => {
                acts.push((0, Act::Oom));
                acts.push((1, Act::Exit(ExitStatus::Signal(9))));
                vanished(&mut acts, 4);
            }
            Self::OutOfMemoryInSight => {
                acts.push((0, Act::Signal(9, From::Kernel)));
                acts.push((0, Act::Oom));
                acts.push((1, Act::Exit(ExitStatus::Signal(9))));
                vanished(&mut acts, 4);
            }
            Self::OutOfMemoryUnsaid => {
                acts.push((0, Act::Signal(9, From::Kernel)));
                acts.push((1, Act::Exit(ExitStatus::Signal(9))));
                vanished(&mut acts, 4);
            }
            Self::TerminatedInSight => {
                acts.push((0, Act::Signal(15, somebody())));
                terminated(&mut acts, 9044, "/usr/bin/python3");
            }
            Self::Terminated => terminated(&mut acts, 9044, "/usr/bin/python3"),
            Self::TerminatedByInit => terminated(&mut acts, 1, "/usr/lib/systemd/systemd"),
            Self::MonitorQuit => {
                acts.push((0, Act::Say(qemu_shutdown(false, QemuReason::HostQmpQuit))));
                acts.push((5, Act::Say(Happening::ShutdownBegan(ShutdownDetail::Host))));
                acts.push((6, Act::Say(Happening::ControlError)));
                acts.push((10, Act::Exit(ExitStatus::Code(0))));
                acts.push((14, Act::Log(LogLine::Reason(LogWord::Shutdown))));
                stop(&mut acts, 15, ShutOffReason::Shutdown, StopDetail::Shutdown);
            }
            Self::MigratedAway => {
                acts.push((110, Act::Say(Happening::Suspended(SuspendDetail::Migrated))));
                acts.push((110, Act::Show(DomainState::Paused(PauseReason::Migration))));
                acts.push((280, Act::Log(LogLine::Reason(LogWord::Migrated))));
                killed_by_libvirt(&mut acts, 281, ShutOffReason::Migrated, StopDetail::Migrated);
                acts.push((485, Act::Say(Happening::JobCompleted(JobOperation::MigrationOut))));
            }
            Self::ManagedSave | Self::SaveToFile => {
                acts.push((10, Act::Say(Happening::Suspended(SuspendDetail::Paused))));
                acts.push((10, Act::Show(DomainState::Paused(PauseReason::Save))));
                acts.push((120, Act::Say(Happening::JobCompleted(JobOperation::Save))));
                acts.push((121, Act::Image(self == Self::ManagedSave)));
                acts.push((122, Act::Log(LogLine::Reason(LogWord::Saved))));
                killed_by_libvirt(&mut acts, 123, ShutOffReason::Saved, StopDetail::Saved);
            }
            Self::CoreDump => {
                acts.push((10, Act::Say(Happening::Suspended(SuspendDetail::Paused))));
                acts.push((10, Act::Show(DomainState::Paused(PauseReason::Dump))));
                acts.push((360, Act::Log(LogLine::Reason(LogWord::Crashed))));
                killed_by_libvirt(&mut acts, 361, ShutOffReason::Crashed, StopDetail::Crashed);
            }
            Self::SnapshotHalt => {
                acts.push((5, Act::Say(Happening::Suspended(SuspendDetail::Paused))));
                acts.push((5, Act::Show(DomainState::Paused(PauseReason::Snapshot))));
                acts.push((80, Act::Log(LogLine::Reason(LogWord::FromSnapshot))));
                killed_by_libvirt(&mut acts, 81, ShutOffReason::FromSnapshot, StopDetail::FromSnapshot);
            }
            Self::SnapshotRevert => {
                acts.push((0, Act::Log(LogLine::Reason(LogWord::FromSnapshot))));
                killed_by_libvirt(&mut acts, 1, ShutOffReason::FromSnapshot, StopDetail::FromSnapshot);
                acts.push((650, Act::Begin));
                acts.push((651, Act::Say(Happening::Started(StartDetail::FromSnapshot))));
                acts.push((652, Act::Say(Happening::Resumed(ResumeDetail::FromSnapshot))));
            }
            Self::IncomingFailed => {
                acts.push((0, Act::Log(LogLine::Reason(LogWord::Failed))));
                acts.push((1, Act::Log(signal(15, LIBVIRTD, "/usr/sbin/libvirtd"))));
                stop(&mut acts, 2, ShutOffReason::Failed, StopDetail::Failed);
            }
            Self::HostLost => {}
        }
        acts
    }
}

/// What happens to a running VM without ending it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is explained by its sequence")]
pub enum Chatter {
    GuestReboot,
    AcpiReboot,
    WatchdogReset,
    PauseAndResume,
    IoErrorPause,
    Resume,
    AgentUp,
    AgentDown,
    PanicAndRestart,
    SuspendToMemory,
    Wakeup,
    IgnoredButton,
    CrashKernel,
}

impl Chatter {
    /// All.
    pub const ALL: [Self; 13] = [
        Self::GuestReboot,
        Self::AcpiReboot,
        Self::WatchdogReset,
        Self::PauseAndResume,
        Self::IoErrorPause,
        Self::Resume,
        Self::AgentUp,
        Self::AgentDown,
        Self::PanicAndRestart,
        Self::SuspendToMemory,
        Self::Wakeup,
        Self::IgnoredButton,
        Self::CrashKernel,
    ];

    /// What happens.
    pub fn sequence(self) -> Vec<(u64, Act)> {
        let say = Act::Say;
        match self {
            Self::GuestReboot => vec![
                (0, say(qemu_reset(true, QemuReason::GuestReset))),
                (4, say(Happening::Rebooted)),
                (40, say(qemu_reset(true, QemuReason::GuestReset))),
                (44, say(Happening::Rebooted)),
            ],
            Self::AcpiReboot => vec![
                (0, say(Happening::QemuPowerdown)),
                (30, say(qemu_shutdown(true, QemuReason::GuestShutdown))),
                (34, say(qemu_reset(false, QemuReason::HostQmpSystemReset))),
                (38, say(Happening::Rebooted)),
            ],
            Self::WatchdogReset => vec![
                (0, say(Happening::Watchdog(WatchdogAction::Reset))),
                (5, say(qemu_reset(true, QemuReason::GuestReset))),
                (9, say(Happening::Rebooted)),
            ],
            Self::PauseAndResume => vec![
                (0, Act::Show(DomainState::Paused(PauseReason::User))),
                (0, say(Happening::Suspended(SuspendDetail::Paused))),
                (200, Act::Show(DomainState::Running)),
                (200, say(Happening::Resumed(ResumeDetail::Unpaused))),
            ],
            Self::IoErrorPause => {
                let error = |action, reason: &str| Happening::IoError {
                    disk: "virtio-disk0".into(),
                    action,
                    reason: reason.into(),
                };
                vec![
                    (0, say(error(IoErrorAction::Pause, ""))),
                    (0, say(error(IoErrorAction::Pause, "enospc"))),
                    (1, Act::Show(DomainState::Paused(PauseReason::IoError))),
                    (1, say(Happening::Suspended(SuspendDetail::IoError))),
                ]
            }
            Self::Resume => vec![
                (0, Act::Show(DomainState::Running)),
                (0, say(Happening::Resumed(ResumeDetail::Unpaused))),
            ],
            Self::AgentUp => vec![(0, say(Happening::Agent { connected: true }))],
            Self::AgentDown => vec![(0, say(Happening::Agent { connected: false }))],
            Self::PanicAndRestart => vec![
                (0, say(Happening::QemuPanicked)),
                (0, say(Happening::Suspended(SuspendDetail::Paused))),
                (1, say(Happening::GuestCrashed(CrashDetail::Panicked))),
                (10, say(qemu_reset(false, QemuReason::HostQmpSystemReset))),
                (12, say(Happening::Rebooted)),
                (14, say(Happening::Resumed(ResumeDetail::Unpaused))),
            ],
            Self::SuspendToMemory => vec![
                (0, Act::Show(DomainState::PmSuspended)),
                (0, say(Happening::PmSuspended(PmDetail::Memory))),
            ],
            Self::Wakeup => {
                vec![(0, Act::Show(DomainState::Running)), (0, say(Happening::Started(StartDetail::Wakeup)))]
            }
            Self::IgnoredButton => vec![(0, say(Happening::QemuPowerdown))],
            Self::CrashKernel => vec![(0, say(Happening::GuestCrashed(CrashDetail::CrashLoaded)))],
        }
    }
}

/// A normal start. RESUMED comes before STARTED.
pub fn start(detail: StartDetail) -> Vec<(u64, Act)> {
    let resumed = |detail| Act::Say(Happening::Resumed(detail));
    let started = Act::Say(Happening::Started(detail));
    match detail {
        StartDetail::Restored => vec![
            (0, Act::Begin),
            (0, Act::Image(false)),
            (1, started),
            (5, resumed(ResumeDetail::FromSnapshot)),
        ],
        StartDetail::Migrated => {
            vec![
                (0, Act::Begin),
                (0, Act::Incoming),
                (0, Act::Show(DomainState::Paused(PauseReason::Migration))),
                (1, started),
            ]
        }
        _ => vec![(0, Act::Begin), (1, resumed(ResumeDetail::Unpaused)), (2, started)],
    }
}

/// An incoming VM is handed over.
pub fn handed_over() -> Vec<(u64, Act)> {
    vec![(0, Act::Show(DomainState::Running)), (1, Act::Say(Happening::Resumed(ResumeDetail::Migrated)))]
}

/// QEMU breaks off while it starts.
pub fn start_that_fails() -> Vec<(u64, Act)> {
    vec![
        (0, Act::BeginInVain),
        (0, Act::Show(DomainState::ShutOff(ShutOffReason::Failed))),
        (0, Act::Say(Happening::ControlError)),
    ]
}

/// What is to be found when QEMU goes while libvirtd is away.
pub fn unheard(way: Way) -> Vec<(u64, Act)> {
    let mut acts: Vec<_> = way
        .sequence()
        .into_iter()
        .filter(|(_, act)| {
            matches!(act, Act::Exit(_) | Act::Oom | Act::Signal(..) | Act::Log(LogLine::Signal { .. }))
        })
        .collect();
    if acts.is_empty() {
        acts.push((0, Act::Exit(ExitStatus::Code(0))));
    }
    acts
}

/// What libvirtd does on its return about a QEMU that is gone.
pub fn found_gone() -> Vec<(u64, Act)> {
    vec![
        (0, Act::Log(LogLine::Reason(LogWord::Crashed))),
        (0, Act::End(DomainState::ShutOff(ShutOffReason::Crashed))),
    ]
}

/// What libvirtd does on its return about a QEMU that waits.
pub fn found_waiting() -> Vec<(u64, Act)> {
    let mut acts = Vec::new();
    acts.push((0, Act::Log(signal(15, LIBVIRTD, "/usr/sbin/libvirtd"))));
    acts.push((138, Act::Exit(ExitStatus::Code(0))));
    acts.push((139, Act::Log(LogLine::Reason(LogWord::Shutdown))));
    stop(&mut acts, 140, ShutOffReason::Shutdown, StopDetail::Shutdown);
    acts
}

fn somebody() -> From {
    From::Process(9044, "python3".into())
}

fn qemu_shutdown(guest: bool, reason: QemuReason) -> Happening {
    Happening::QemuShutdown { guest, reason }
}

fn qemu_reset(guest: bool, reason: QemuReason) -> Happening {
    Happening::QemuReset { guest, reason }
}

fn signal(signal: i32, pid: u32, program: &str) -> LogLine {
    LogLine::Signal { signal, pid, program: program.into() }
}

fn stop(acts: &mut Vec<(u64, Act)>, at: u64, shown: ShutOffReason, said: StopDetail) {
    acts.push((at, Act::End(DomainState::ShutOff(shown))));
    acts.push((at, Act::Say(Happening::Stopped(said))));
}

/// libvirt has said its farewell in the log and ends the process.
fn killed_by_libvirt(acts: &mut Vec<(u64, Act)>, at: u64, shown: ShutOffReason, said: StopDetail) {
    acts.push((at, Act::Log(signal(15, LIBVIRTD, "/usr/sbin/libvirtd"))));
    acts.push((at + 200, Act::Exit(ExitStatus::Code(0))));
    stop(acts, at + 203, shown, said);
}

/// A shutdown that the guest carries out, for whatever reason.
fn shutdown(acts: &mut Vec<(u64, Act)>, at: u64, reason: QemuReason) {
    acts.push((at, Act::Say(qemu_shutdown(true, reason))));
    acts.push((at + 1, Act::Show(DomainState::ShuttingDown)));
    acts.push((at + 1, Act::Say(Happening::ShutdownBegan(ShutdownDetail::Guest))));
    acts.push((at + 2, Act::Say(qemu_shutdown(false, QemuReason::HostSignal))));
    acts.push((at + 2, Act::Log(signal(15, LIBVIRTD, "/usr/sbin/libvirtd"))));
    acts.push((at + 200, Act::Exit(ExitStatus::Code(0))));
    acts.push((at + 203, Act::Log(LogLine::Reason(LogWord::Shutdown))));
    stop(acts, at + 204, ShutOffReason::Shutdown, StopDetail::Shutdown);
}

/// A signal that QEMU obeys.
fn terminated(acts: &mut Vec<(u64, Act)>, pid: u32, program: &str) {
    acts.push((0, Act::Log(signal(15, pid, program))));
    acts.push((1, Act::Say(qemu_shutdown(false, QemuReason::HostSignal))));
    acts.push((2, Act::Show(DomainState::ShuttingDown)));
    acts.push((2, Act::Say(Happening::ShutdownBegan(ShutdownDetail::Host))));
    acts.push((100, Act::Exit(ExitStatus::Code(0))));
    acts.push((203, Act::Log(LogLine::Reason(LogWord::Shutdown))));
    stop(acts, 204, ShutOffReason::Shutdown, StopDetail::Shutdown);
}

/// libvirt notices that the process is gone.
fn vanished(acts: &mut Vec<(u64, Act)>, at: u64) {
    acts.push((at, Act::Log(LogLine::Reason(LogWord::Crashed))));
    stop(acts, at, ShutOffReason::Crashed, StopDetail::Failed);
}
