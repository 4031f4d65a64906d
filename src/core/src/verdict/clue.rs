//! Clues: yes/no questions put to a frozen dossier. A clue that is seen names the evidence it is seen in.

use super::setting::{has, ids, was_up};
use crate::cause::Cause;
use crate::evidence::{Asked, Dossier, Evidence, EvidenceId, ExitStatus, Fact, Sender};
use crate::hypervisor::{
    CrashDetail, DomainState, Happening, IoErrorAction, PauseReason, PmDetail, QemuReason, ResumeDetail,
    ShutdownDetail, StartDetail, SuspendDetail, WatchdogAction,
};
use crate::limits;
use crate::time::Wall;

macro_rules! clues {
    ($($(#[$meta:meta])* $name:ident => $cause:expr,)*) => {
        /// One question. Seen means yes; unseen means only that nothing says so.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Clue { $($(#[$meta])* $name,)* }

        impl Clue {
            /// All clues.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The cause that this clue speaks for, where it speaks for one by itself.
            pub const fn points_to(self) -> Option<Cause> {
                match self { $(Self::$name => $cause,)* }
            }
        }
    };
}

clues! {
    /// The guest announced suspend-to-disk shortly before.
    Hibernating => Some(Cause::GuestHibernated),
    /// The guest's crash kernel took over shortly before.
    CrashKernel => Some(Cause::GuestPanic),
    /// The panic device fired.
    Panicked => Some(Cause::GuestPanic),
    /// The watchdog asked the guest to shut down shortly before.
    WatchdogShutdown => Some(Cause::WatchdogShutdown),
    /// The watchdog powered it off.
    WatchdogPoweredOff => Some(Cause::WatchdogPoweroff),
    /// QEMU's first word on the last shutdown is a guest's reset.
    ResetFirst => Some(Cause::DestroyedOnReboot),
    /// QEMU's first word is a guest's shutdown, and no agent through which another client could have asked.
    PlainPoweroff => Some(Cause::GuestPoweroff),
    /// A manager asked us for a shutdown not long before, and libvirt took it.
    WeAskedShutdown => Some(Cause::AdminShutdown),
    /// A shutdown through us ended in force.
    WeForcedOff => Some(Cause::AdminForcedOff),
    /// A manager asked us to destroy it.
    WeAskedDestroy => Some(Cause::AdminDestroyed),
    /// A manager asked us to destroy it before it was ever up.
    WeAskedDestroyAtStart => Some(Cause::DestroyedAtStart),
    /// Somebody pressed its power button not long before.
    ButtonPressed => Some(Cause::OtherShutdown),
    /// The host was going down.
    HostGoingDown => Some(Cause::HostShutdown),
    /// The host's init sent a signal.
    InitSignal => Some(Cause::HostShutdown),
    /// Somebody on the host sent a signal.
    OutsideSignal => Some(Cause::ProcessTerminated),
    /// A signal from outside, no farewell of libvirt, and a new boot.
    SignalThenNewBoot => Some(Cause::HostShutdown),
    /// The host has booted anew since.
    NewBoot => None,
    /// QEMU's first word is a quit command.
    MonitorQuit => Some(Cause::MonitorQuit),
    /// The monitor broke off, and no signal is known.
    MonitorLost => None,
    /// Its post-copy migration failed.
    PostcopyFailed => Some(Cause::PostcopyFailed),
    /// An incoming migration that was never handed over.
    IncomingUnfinished => Some(Cause::IncomingMigrationFailed),
    /// Paused by an I/O error for 80 s or more.
    PausedLong => Some(Cause::PausedTooLong),
    /// A managed save image waits.
    ManagedImage => None,
    /// There is no managed save image.
    NoManagedImage => None,
    /// The next run began from a snapshot.
    NextFromSnapshot => None,
    /// The kernel's out-of-memory killer named the process.
    OomKilled => Some(Cause::OomKilled),
    /// libvirt itself ended the process: it was still there.
    EndedByLibvirt => None,
    /// The process was killed by SIGKILL.
    KilledHard => Some(Cause::ProcessKilled),
    /// The process was killed by a signal of its own fault.
    FaultSignal => Some(Cause::QemuCrashed),
    /// The process was killed by another signal.
    OtherSignal => Some(Cause::ProcessTerminated),
    /// The process exited with an error.
    ExitedWithError => Some(Cause::QemuFailed),
    /// libvirt refused the start in its own words.
    StartRefused => None,
    /// QEMU left words in its log.
    LogSpeaks => None,
    /// A shutdown inside the guest had begun.
    GuestHadBegun => Some(Cause::GuestPoweroff),
    /// libvirt no longer knows it.
    Gone => None,
}

/// How long a VM must have been paused by an I/O error for VDSM's reason 14 (its own limit).
const PAUSED_LONG: std::time::Duration = std::time::Duration::from_secs(80);

/// QEMU's words on one shutdown lie this close before libvirt's report of it.
const FINAL_WORDS: std::time::Duration = std::time::Duration::from_secs(5);

const SIGKILL: i32 = 9;
/// SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGXCPU, SIGXFSZ, SIGSYS: those that dump core.
const FAULTS: [i32; 10] = [3, 4, 5, 6, 7, 8, 11, 24, 25, 31];

impl Clue {
    /// The evidence in which it is seen; empty if it is not.
    pub fn seen(self, dossier: &Dossier, end: Wall) -> Vec<EvidenceId> {
        let heard =
            |wanted: fn(&Happening) -> bool| ids(dossier, |f| matches!(f, Fact::Host(h) if wanted(h)));
        let prelude = |wanted: fn(&Happening) -> bool| {
            recent(
                dossier,
                began(dossier, end),
                limits::PRELUDE_LIFE,
                |f| matches!(f, Fact::Host(h) if wanted(h)),
            )
        };
        match self {
            Self::Hibernating => prelude(|h| matches!(h, Happening::PmSuspended(PmDetail::Disk))),
            Self::CrashKernel => prelude(|h| matches!(h, Happening::GuestCrashed(CrashDetail::CrashLoaded))),
            Self::Panicked => heard(|h| {
                matches!(h, Happening::GuestCrashed(CrashDetail::Panicked) | Happening::QemuPanicked)
            }),
            Self::WatchdogShutdown => prelude(|h| matches!(h, Happening::Watchdog(WatchdogAction::Shutdown))),
            Self::WatchdogPoweredOff => {
                prelude(|h| matches!(h, Happening::Watchdog(WatchdogAction::PowerOff)))
            }
            Self::ResetFirst => first_word(dossier, end, |_, r| r == QemuReason::GuestReset),
            Self::PlainPoweroff if agent_connected(dossier) => Vec::new(),
            Self::PlainPoweroff => {
                first_word(dossier, end, |guest, r| guest && r == QemuReason::GuestShutdown)
            }
            Self::WeAskedShutdown => {
                asked(dossier, Asked::Shutdown, Some((began(dossier, end), limits::REQUEST_LIFE)))
            }
            Self::WeForcedOff => asked(dossier, Asked::ForceOff, None),
            Self::WeAskedDestroy => asked(dossier, Asked::Destroy, None),
            Self::WeAskedDestroyAtStart if was_up(dossier) => Vec::new(),
            Self::WeAskedDestroyAtStart => asked(dossier, Asked::Destroy, None),
            Self::ButtonPressed => {
                let began = began(dossier, end);
                recent(dossier, began, limits::REQUEST_LIFE, |f| {
                    matches!(f, Fact::Host(Happening::QemuPowerdown))
                })
            }
            Self::HostGoingDown => {
                let began = began(dossier, end);
                recent(dossier, began, limits::REQUEST_LIFE, |f| matches!(f, Fact::HostGoingDown { .. }))
            }
            Self::InitSignal => signal(dossier, Sender::Init),
            Self::OutsideSignal => signal(dossier, Sender::Outside),
            Self::SignalThenNewBoot => {
                let boots = ids(dossier, |f| matches!(f, Fact::NewBoot { .. }));
                let mut signals = signal(dossier, Sender::Outside);
                signals.extend(signal(dossier, Sender::Init));
                if boots.is_empty()
                    || signals.is_empty()
                    || has(dossier, |f| matches!(f, Fact::LogEnd { .. }))
                {
                    return Vec::new();
                }
                signals.extend(boots);
                signals
            }
            Self::NewBoot => ids(dossier, |f| matches!(f, Fact::NewBoot { .. })),
            Self::MonitorQuit => first_word(dossier, end, |_, r| r == QemuReason::HostQmpQuit),
            Self::MonitorLost if has(dossier, |f| matches!(f, Fact::LogSignal { .. })) => Vec::new(),
            Self::MonitorLost => heard(|h| matches!(h, Happening::ControlError)),
            Self::PostcopyFailed => {
                last_pause(dossier, |h| matches!(h, Happening::Suspended(SuspendDetail::PostcopyFailed)))
            }
            Self::IncomingUnfinished
                if has(dossier, |f| matches!(f, Fact::Host(Happening::Resumed(ResumeDetail::Migrated)))) =>
            {
                Vec::new()
            }
            Self::IncomingUnfinished => heard(|h| matches!(h, Happening::Started(StartDetail::Migrated))),
            Self::PausedLong => paused_by_io_error(dossier, end),
            Self::ManagedImage => ids(dossier, |f| matches!(f, Fact::Found { managed_save: Some(true), .. })),
            Self::NoManagedImage => {
                ids(dossier, |f| matches!(f, Fact::Gone | Fact::Found { managed_save: Some(false), .. }))
            }
            Self::NextFromSnapshot => ids(dossier, |f| matches!(f, Fact::NextFromSnapshot)),
            Self::OomKilled => ids(dossier, |f| matches!(f, Fact::OomKilled { .. })),
            Self::EndedByLibvirt => signal(dossier, Sender::Libvirt),
            Self::KilledHard => exit(dossier, |s| matches!(s, ExitStatus::Signal(SIGKILL))),
            Self::FaultSignal => exit(dossier, |s| matches!(s, ExitStatus::Signal(n) if FAULTS.contains(&n))),
            Self::OtherSignal => {
                exit(dossier, |s| matches!(s, ExitStatus::Signal(n) if n != SIGKILL && !FAULTS.contains(&n)))
            }
            Self::ExitedWithError => exit(dossier, |s| matches!(s, ExitStatus::Code(n) if n != 0)),
            Self::StartRefused => ids(dossier, |f| matches!(f, Fact::Refused { what: Asked::Create, .. })),
            Self::LogSpeaks => ids(dossier, |f| matches!(f, Fact::LogText(text) if !text.trim().is_empty())),
            Self::GuestHadBegun => ids(dossier, |f| {
                matches!(
                    f,
                    Fact::Host(
                        Happening::ShutdownBegan(ShutdownDetail::Guest)
                            | Happening::QemuShutdown { guest: true, .. }
                    )
                )
            }),
            Self::Gone => ids(dossier, |f| matches!(f, Fact::Gone)),
        }
    }
}

/// When the last shutdown began, or the end itself where that was not heard.
fn began(dossier: &Dossier, end: Wall) -> Wall {
    dossier.last_heard(|h| matches!(h, Happening::ShutdownBegan(_))).map_or(end, |at| at.min(end))
}

/// Pieces last witnessed not after `end` (with a second's grace for clocks and queues) and within `life` before it.
fn recent(
    dossier: &Dossier,
    end: Wall,
    life: std::time::Duration,
    wanted: impl Fn(&Fact) -> bool,
) -> Vec<EvidenceId> {
    let fresh = |e: &Evidence| e.last <= end.after(limits::CLOCK_GRACE) && end.since(e.last) <= life;
    enumerated(dossier).filter(|(_, e)| wanted(&e.fact) && fresh(e)).map(|(id, _)| id).collect()
}

fn enumerated(dossier: &Dossier) -> impl Iterator<Item = (EvidenceId, &Evidence)> {
    dossier.items().iter().enumerate().map(|(id, e)| (id as EvidenceId, e))
}

/// QEMU's first SHUTDOWN of the last shutdown, if `wanted` accepts it. libvirt's own kill makes later ones.
fn first_word(dossier: &Dossier, end: Wall, wanted: impl Fn(bool, QemuReason) -> bool) -> Vec<EvidenceId> {
    let began = began(dossier, end);
    let window = if began == end { limits::PRELUDE_LIFE } else { FINAL_WORDS };
    let first = enumerated(dossier)
        .filter(|(_, e)| matches!(e.fact, Fact::Host(Happening::QemuShutdown { .. })))
        .filter(|(_, e)| e.last >= began || began.since(e.last) <= window)
        .min_by_key(|(id, e)| (e.last, *id));
    match first {
        Some((id, Evidence { fact: Fact::Host(Happening::QemuShutdown { guest, reason }), .. }))
            if wanted(*guest, *reason) =>
        {
            vec![id]
        }
        _ => Vec::new(),
    }
}

/// A request through us that libvirt did not refuse; `within` a time before a moment, where that is given.
fn asked(dossier: &Dossier, what: Asked, within: Option<(Wall, std::time::Duration)>) -> Vec<EvidenceId> {
    let refused =
        dossier.latest(|f| matches!(f, Fact::Refused { what: w, .. } if *w == what)).map(|(_, e)| e.last);
    enumerated(dossier)
        .filter(|(_, e)| matches!(&e.fact, Fact::Requested { what: w, .. } if *w == what))
        .filter(|(_, e)| refused.is_none_or(|refused| e.last > refused))
        .filter(|(_, e)| {
            within.is_none_or(|(end, life)| {
                e.last <= end.after(limits::CLOCK_GRACE) && end.since(e.last) <= life
            })
        })
        .map(|(id, _)| id)
        .collect()
}

fn signal(dossier: &Dossier, wanted: Sender) -> Vec<EvidenceId> {
    ids(dossier, |f| matches!(f, Fact::LogSignal { sender, .. } if *sender == wanted))
}

fn exit(dossier: &Dossier, wanted: impl Fn(ExitStatus) -> bool) -> Vec<EvidenceId> {
    ids(dossier, |f| matches!(f, Fact::Exit(status) if wanted(*status)))
}

fn agent_connected(dossier: &Dossier) -> bool {
    dossier
        .latest(|f| matches!(f, Fact::Host(Happening::Agent { .. })))
        .is_some_and(|(_, e)| matches!(e.fact, Fact::Host(Happening::Agent { connected: true })))
}

/// The last pause, if `wanted` accepts it and no resume came after it.
fn last_pause(dossier: &Dossier, wanted: impl Fn(&Happening) -> bool) -> Vec<EvidenceId> {
    let last = dossier.latest(|f| matches!(f, Fact::Host(Happening::Suspended(_) | Happening::Resumed(_))));
    match last {
        Some((id, Evidence { fact: Fact::Host(h), .. })) if wanted(h) => vec![id],
        _ => Vec::new(),
    }
}

/// The last pause, if an I/O error made it and it lasted long enough for the original's own limit.
fn paused_by_io_error(dossier: &Dossier, end: Wall) -> Vec<EvidenceId> {
    let mut seen = last_pause(dossier, |h| matches!(h, Happening::Suspended(SuspendDetail::IoError)));
    // `first` would be wrong for a second pause, `last` is when the present one began.
    seen.retain(|id| end.since(dossier.items()[usize::from(*id)].last) >= PAUSED_LONG);
    if seen.is_empty() {
        // Found paused when we came to listen: it had been so for at least that long.
        let resumed = dossier.last_heard(|h| matches!(h, Happening::Resumed(_)));
        seen.extend(
            enumerated(dossier)
                .filter(|(_, e)| {
                    matches!(e.fact, Fact::Found { state: DomainState::Paused(PauseReason::IoError), .. })
                        && end.since(e.first) >= PAUSED_LONG
                        && resumed.is_none_or(|resumed| resumed < e.last)
                })
                .map(|(id, _)| id),
        );
    }
    if !seen.is_empty() {
        seen.extend(ids(dossier, |f| {
            matches!(f, Fact::Host(Happening::IoError { action: IoErrorAction::Pause, .. }))
        }));
    }
    seen
}
