//! Clues: yes/no questions put to a frozen dossier. A clue that is seen names the evidence it is seen in.

use super::process::{exit, guest_exited, is_by, killed_at_start, says_why, spoke_after, with_unit};
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
    /// Somebody on the host sent a signal that QEMU obeys.
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
    /// The kernel saw another process send the SIGKILL.
    KilledBySender => Some(Cause::ProcessKilled),
    /// The SIGKILL was the kernel's own.
    KilledByKernel => Some(Cause::OomKilled),
    /// The SIGKILL was libvirt's, which it sends for many reasons.
    KilledByLibvirt => None,
    /// The kernel saw another process send the signal of a fault.
    FaultBySender => Some(Cause::ProcessTerminated),
    /// The kernel saw a fault of the process, or its own abort.
    FaultRaised => Some(Cause::QemuCrashed),
    /// The process was killed by SIGKILL, and it was not libvirt's.
    KilledHard => Some(Cause::ProcessKilled),
    /// The process was killed by SIGKILL sooner than libvirt, which says that it ended it, can have sent that.
    KilledSooner => None,
    /// The process was killed by a signal of the kind that its own fault sends.
    FaultSignal => Some(Cause::QemuCrashed),
    /// The process was killed by another signal.
    OtherSignal => Some(Cause::ProcessTerminated),
    /// The guest ended QEMU by a device for that, with a status that is none of QEMU's.
    GuestExited => Some(Cause::GuestExit),
    /// The guest can have ended QEMU by a device for that, and QEMU itself can have failed.
    GuestMayHaveExited => None,
    /// A signal ended QEMU while it started.
    KilledAtStart => None,
    /// The process exited with an error.
    ExitedWithError => Some(Cause::QemuFailed),
    /// The process exited with status 0, and its log was read and names no signal.
    LeftCleanly => None,
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

/// QEMU handles SIGBUS, and lives on where only its guest's memory is broken: one that was sent long before the end, and
/// is not known to have ended it, may be none of the end's business.
const BUS: std::time::Duration = std::time::Duration::from_secs(120);
/// libvirt sends SIGTERM first, and SIGKILL 10 s later to what is still there; half of it leaves room for both clocks.
const LIBVIRTS_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// A destroy that libvirt took ends the VM, however long that takes.
const EVER: std::time::Duration = std::time::Duration::MAX;

const SIGBUS: i32 = 7;
const SIGKILL: i32 = 9;
/// libvirt's, when it has lost the monitor: who ended the process with it is known by other evidence or not at all.
const SIGTERM: i32 = 15;
/// SIGHUP, SIGINT, SIGTERM: QEMU obeys them, and they need not end it.
const OBEYED: [i32; 3] = [1, 2, 15];
/// SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGXCPU, SIGXFSZ, SIGSYS: those that dump core.
const FAULTS: [i32; 10] = [3, 4, 5, 6, 7, 8, 11, 24, 25, 31];

impl Clue {
    /// Whether it stands on words that come before the end or never: events of the guest and its machine, which libvirt
    /// and QEMU tell in order, and our own requests.
    pub(super) fn is_heard_before_the_end(self) -> bool {
        matches!(
            self,
            Self::Hibernating
                | Self::CrashKernel
                | Self::WatchdogShutdown
                | Self::ResetFirst
                | Self::WeAskedShutdown
        )
    }

    /// The evidence in which it is seen; empty if it is not.
    pub fn seen(self, dossier: &Dossier, end: Wall) -> Vec<EvidenceId> {
        let heard =
            |wanted: fn(&Happening) -> bool| ids(dossier, |f| matches!(f, Fact::Host(h) if wanted(h)));
        // A reset begins the guest anew: what led to it explains nothing that comes later.
        let prelude = |wanted: fn(&Happening) -> bool| {
            let began = began(dossier, end);
            let seen =
                recent(dossier, began, limits::PRELUDE_LIFE, |f| matches!(f, Fact::Host(h) if wanted(h)));
            since_reset(dossier, end, seen)
        };
        match self {
            Self::Hibernating => prelude(|h| matches!(h, Happening::PmSuspended(PmDetail::Disk))),
            Self::CrashKernel => prelude(|h| matches!(h, Happening::GuestCrashed(CrashDetail::CrashLoaded))),
            Self::Panicked => {
                let panicked = heard(|h| {
                    matches!(h, Happening::GuestCrashed(CrashDetail::Panicked) | Happening::QemuPanicked)
                });
                since_reset(dossier, end, panicked)
            }
            Self::WatchdogShutdown => prelude(|h| matches!(h, Happening::Watchdog(WatchdogAction::Shutdown))),
            Self::WatchdogPoweredOff => {
                prelude(|h| matches!(h, Happening::Watchdog(WatchdogAction::PowerOff)))
            }
            Self::ResetFirst => first_word(dossier, end, |_, r| r == QemuReason::GuestReset),
            Self::PlainPoweroff if somebody_may_have_asked(dossier, end) => Vec::new(),
            Self::PlainPoweroff => {
                first_word(dossier, end, |guest, r| guest && r == QemuReason::GuestShutdown)
            }
            Self::WeAskedShutdown => {
                let began = began(dossier, end).after(limits::CLOCK_GRACE);
                let mut seen = asked(dossier, Asked::Shutdown, began, limits::REQUEST_LIFE);
                seen.extend(asked(dossier, Asked::AgentShutdown, began, limits::REQUEST_LIFE));
                seen
            }
            Self::WeForcedOff => asked(dossier, Asked::ForceOff, end, EVER),
            Self::WeAskedDestroy => asked(dossier, Asked::Destroy, end, EVER),
            Self::WeAskedDestroyAtStart if was_up(dossier) => Vec::new(),
            Self::WeAskedDestroyAtStart => asked(dossier, Asked::Destroy, end, EVER),
            Self::ButtonPressed => {
                let began = began(dossier, end);
                let pressed = recent(dossier, began, limits::REQUEST_LIFE, |f| {
                    matches!(f, Fact::Host(Happening::QemuPowerdown))
                });
                since_reset(dossier, end, pressed)
            }
            Self::HostGoingDown => {
                // Once said it holds until the host is off: guests are shut down one after the other, a host may stay
                // off for days, and whoever is asked again says it again. So the first word counts, of any age, unless
                // the host was said to stay since it was last said. What was called off later had begun all the same.
                let began = began(dossier, end);
                let latest = began.after(limits::HOST_WORD_DELAY);
                let stays = dossier.items().iter().filter(|e| e.fact == Fact::HostStays);
                let stays = stays.filter_map(|e| [e.last, e.first].into_iter().find(|at| *at <= began)).max();
                enumerated(dossier)
                    .filter(|(_, e)| matches!(e.fact, Fact::HostGoingDown { .. }) && e.first <= latest)
                    .filter(|(_, e)| stays.is_none_or(|stays| stays < e.last))
                    .map(|(id, _)| id)
                    .collect()
            }
            Self::InitSignal => {
                let mut seen = signal(dossier, Sender::Init);
                seen.extend(obeyed(dossier, end, Sender::Init));
                seen.extend(killed(dossier, end, Sender::Init));
                seen
            }
            Self::OutsideSignal => {
                let mut seen = signal(dossier, Sender::Outside);
                seen.extend(obeyed(dossier, end, Sender::Outside));
                with_unit(dossier, seen)
            }
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
            Self::MonitorLost
                if has(dossier, |f| matches!(f, Fact::LogSignal { .. }))
                    || !obeyed(dossier, end, Sender::Init).is_empty()
                    || !obeyed(dossier, end, Sender::Outside).is_empty() =>
            {
                Vec::new()
            }
            Self::MonitorLost => heard(|h| matches!(h, Happening::ControlError)),
            Self::PostcopyFailed => last_pause(dossier, |f| {
                matches!(
                    f,
                    Fact::Host(
                        Happening::Suspended(SuspendDetail::PostcopyFailed)
                            | Happening::Resumed(ResumeDetail::PostcopyFailed)
                    ) | Fact::Found { state: DomainState::Paused(PauseReason::PostcopyFailed), .. }
                )
            }),
            Self::IncomingUnfinished if handed_over(dossier) => Vec::new(),
            Self::IncomingUnfinished => heard(|h| matches!(h, Happening::Started(StartDetail::Migrated))),
            Self::PausedLong => paused_by_io_error(dossier, end),
            Self::ManagedImage => image(dossier, true),
            Self::NoManagedImage => {
                let mut seen = image(dossier, false);
                seen.extend(ids(dossier, |f| matches!(f, Fact::Gone)));
                seen
            }
            Self::NextFromSnapshot => ids(dossier, |f| matches!(f, Fact::NextFromSnapshot)),
            Self::OomKilled => {
                let mut seen = ids(dossier, |f| matches!(f, Fact::OomKilled { .. }));
                if !seen.is_empty() {
                    seen.extend(killed(dossier, end, Sender::Kernel));
                }
                seen
            }
            Self::EndedByLibvirt => signal(dossier, Sender::Libvirt),
            Self::KilledBySender => with_unit(dossier, killed(dossier, end, Sender::Outside)),
            Self::KilledByKernel => killed(dossier, end, Sender::Kernel),
            Self::KilledByLibvirt => killed(dossier, end, Sender::Libvirt),
            Self::FaultBySender => faulted(dossier, end, |sender| is_by(dossier, sender, Sender::Outside)),
            Self::FaultRaised => {
                faulted(dossier, end, |sender| matches!(sender, Sender::Kernel | Sender::Itself))
            }
            Self::KilledHard if !killed(dossier, end, Sender::Libvirt).is_empty() => Vec::new(),
            Self::KilledHard => exit(dossier, |s| matches!(s, ExitStatus::Signal(SIGKILL))),
            Self::KilledSooner if has(dossier, signal_of_libvirt) => Vec::new(),
            Self::KilledSooner => killed_sooner(dossier),
            Self::FaultSignal => exit(dossier, |s| matches!(s, ExitStatus::Signal(n) if FAULTS.contains(&n))),
            Self::OtherSignal => exit(
                dossier,
                |s| matches!(s, ExitStatus::Signal(n) if ![SIGKILL, SIGTERM].contains(&n) && !FAULTS.contains(&n)),
            ),
            Self::GuestExited => guest_exited(dossier, true),
            Self::GuestMayHaveExited => guest_exited(dossier, false),
            Self::KilledAtStart => killed_at_start(dossier),
            Self::ExitedWithError => {
                let mut seen = exit(dossier, |s| matches!(s, ExitStatus::Code(n) if n != 0));
                if !seen.is_empty() {
                    seen.extend(Self::LogSpeaks.seen(dossier, end));
                }
                seen
            }
            Self::LeftCleanly if !log_without_signal(dossier) => Vec::new(),
            Self::LeftCleanly => exit(dossier, |s| s == ExitStatus::Code(0)),
            Self::StartRefused => {
                ids(dossier, |f| matches!(f, Fact::Refused { what: Asked::Create, text } if says_why(text)))
            }
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

pub(super) fn enumerated(dossier: &Dossier) -> impl Iterator<Item = (EvidenceId, &Evidence)> {
    dossier.items().iter().enumerate().map(|(id, e)| (id as EvidenceId, e))
}

/// QEMU's first SHUTDOWN of the last shutdown, if `wanted` accepts it. libvirt's own kill makes later ones.
fn first_word(dossier: &Dossier, end: Wall, wanted: impl Fn(bool, QemuReason) -> bool) -> Vec<EvidenceId> {
    let began = began(dossier, end);
    let window = if began == end { limits::PRELUDE_LIFE } else { FINAL_WORDS };
    let reset = last_reset(dossier, end);
    let first = enumerated(dossier)
        .filter(|(_, e)| matches!(e.fact, Fact::Host(Happening::QemuShutdown { .. })))
        .filter(|(_, e)| e.last >= began || began.since(e.last) <= window)
        .filter(|(_, e)| reset.is_none_or(|reset| e.last >= reset))
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

/// Requests through us that came before `moment` and not longer than `life` before it, if libvirt did not refuse as many.
/// Equal requests are one piece of evidence, so that a refusal does not tell which of them was refused.
fn asked(dossier: &Dossier, what: Asked, moment: Wall, life: std::time::Duration) -> Vec<EvidenceId> {
    let times = |wanted: fn(&Fact) -> Option<Asked>| -> u64 {
        dossier.items().iter().filter(|e| wanted(&e.fact) == Some(what)).map(|e| u64::from(e.times)).sum()
    };
    let requested = times(|f| match f {
        Fact::Requested { what, .. } => Some(*what),
        _ => None,
    });
    let refused = times(|f| match f {
        Fact::Refused { what, .. } => Some(*what),
        _ => None,
    });
    if requested <= refused {
        return Vec::new();
    }
    enumerated(dossier)
        .filter(|(_, e)| matches!(&e.fact, Fact::Requested { what: w, .. } if *w == what))
        .filter(|(_, e)| e.first <= moment && moment.since(e.last) <= life)
        .map(|(id, _)| id)
        .collect()
}

/// All requests of this kind through us, if libvirt did not refuse as many.
pub(super) fn ever_asked(dossier: &Dossier, what: Asked) -> Vec<EvidenceId> {
    asked(dossier, what, Wall(i64::MAX), EVER)
}

/// Whether a managed save image waited when it was off. What was found while it ran says nothing of the end.
fn image(dossier: &Dossier, waits: bool) -> Vec<EvidenceId> {
    ids(
        dossier,
        |f| matches!(f, Fact::Found { managed_save: Some(there), state } if *there == waits && !state.is_active()),
    )
}

fn signal(dossier: &Dossier, wanted: Sender) -> Vec<EvidenceId> {
    ids(dossier, |f| matches!(f, Fact::LogSignal { sender, .. } if is_by(dossier, *sender, wanted)))
}

/// Signals that QEMU obeys, seen by the kernel not long before the end.
fn obeyed(dossier: &Dossier, end: Wall, wanted: Sender) -> Vec<EvidenceId> {
    recent(dossier, end, limits::REQUEST_LIFE, |f| {
        matches!(f, Fact::Signalled { signal, sender, .. }
                if OBEYED.contains(signal) && is_by(dossier, *sender, wanted))
    })
}

/// SIGKILLs of this sender that can have ended it, with the exit status that they left.
fn killed(dossier: &Dossier, end: Wall, wanted: Sender) -> Vec<EvidenceId> {
    let mut seen = deadly(dossier, end, EVER, |n, sender| n == SIGKILL && is_by(dossier, sender, wanted));
    if !seen.is_empty() {
        seen.extend(exit(dossier, |s| s == ExitStatus::Signal(SIGKILL)));
    }
    seen
}

/// Signals, seen by the kernel within `life` before the end, that the exit status does not contradict.
fn deadly(
    dossier: &Dossier,
    end: Wall,
    life: std::time::Duration,
    wanted: impl Fn(i32, Sender) -> bool,
) -> Vec<EvidenceId> {
    let statuses = exit(dossier, |_| true);
    let agrees = |n: i32| statuses.is_empty() || !exit(dossier, |s| s == ExitStatus::Signal(n)).is_empty();
    recent(
        dossier,
        end,
        life,
        |f| matches!(f, Fact::Signalled { signal, sender, .. } if wanted(*signal, *sender) && agrees(*signal)),
    )
}

/// Signals of a fault by these senders that can have ended it, with the exit status that they left. However long ago:
/// nothing in QEMU handles them, so that it dies of the first, and is told to have ended when its memory is written down.
fn faulted(dossier: &Dossier, end: Wall, wanted: impl Fn(Sender) -> bool) -> Vec<EvidenceId> {
    let mut seen =
        deadly(dossier, end, EVER, |n, sender| FAULTS.contains(&n) && n != SIGBUS && wanted(sender));
    seen.extend(deadly(dossier, end, BUS, |n, sender| n == SIGBUS && wanted(sender)));
    seen.retain(|id| !spoke_after(dossier, dossier.items()[usize::from(*id)].last));
    if !seen.is_empty() {
        seen.extend(exit(dossier, |s| matches!(s, ExitStatus::Signal(n) if FAULTS.contains(&n))));
    }
    seen
}

/// A log that could not be read at first may have been read later.
fn log_without_signal(dossier: &Dossier) -> bool {
    has(dossier, |f| matches!(f, Fact::LogEnd { .. } | Fact::LogSilent))
        && !has(dossier, |f| matches!(f, Fact::LogSignal { .. }))
}

fn signal_of_libvirt(fact: &Fact) -> bool {
    matches!(fact, Fact::LogSignal { sender: Sender::Libvirt, .. })
}

/// SIGKILL before libvirt's farewell, or so soon after it that libvirt cannot have sent it.
fn killed_sooner(dossier: &Dossier) -> Vec<EvidenceId> {
    let farewell = dossier.items().iter().find_map(|e| match e.fact {
        Fact::LogEnd { at, .. } => at,
        _ => None,
    });
    let Some(farewell) = farewell else { return Vec::new() };
    let mut seen = exit(dossier, |s| s == ExitStatus::Signal(SIGKILL));
    seen.retain(|id| dossier.items()[usize::from(*id)].first.since(farewell) < LIBVIRTS_PATIENCE);
    seen
}

/// Whether somebody could have asked the guest to shut down: by an agent, by its power button, or through us too long ago
/// to explain it. An agent that came while we could not hear leaves no trace; one that goes shortly before may go because
/// the guest shuts down as it was asked to.
fn somebody_may_have_asked(dossier: &Dossier, end: Wall) -> bool {
    let agent = dossier.latest(|f| matches!(f, Fact::Host(Happening::Agent { .. })));
    match agent {
        Some((_, Evidence { fact: Fact::Host(Happening::Agent { connected: true }), .. })) => return true,
        // Before the start libvirt tells of each agent's channel that nobody is there yet.
        Some((_, gone))
            if gone.last.after(limits::REQUEST_LIFE) >= began(dossier, end)
                && started(dossier).is_none_or(|at| gone.last > at) =>
        {
            return true;
        }
        _ => {}
    }
    let heard_of_agents = agent.map(|(_, e)| e.last);
    let deaf_since =
        |f: &Fact| matches!(f, Fact::Gap { to, .. } if heard_of_agents.is_none_or(|at| *to > at));
    let pressed = ids(dossier, |f| matches!(f, Fact::Host(Happening::QemuPowerdown)));
    has(dossier, deaf_since)
        || !since_reset(dossier, end, pressed).is_empty()
        || !asked(dossier, Asked::Shutdown, end, EVER).is_empty()
}

/// When libvirt told of the start, if that was heard.
fn started(dossier: &Dossier) -> Option<Wall> {
    dossier.find(|f| matches!(f, Fact::Host(Happening::Started(_)))).map(|(_, e)| e.first)
}

/// When the guest was last reset.
fn last_reset(dossier: &Dossier, end: Wall) -> Option<Wall> {
    dossier
        .last_heard(|h| matches!(h, Happening::Rebooted | Happening::QemuReset { .. }))
        .filter(|reset| *reset <= end.after(limits::CLOCK_GRACE))
}

/// Those that no reset of the guest came after.
fn since_reset(dossier: &Dossier, end: Wall, mut seen: Vec<EvidenceId>) -> Vec<EvidenceId> {
    if let Some(reset) = last_reset(dossier, end) {
        seen.retain(|id| dossier.items()[usize::from(*id)].last >= reset);
    }
    seen
}

/// Whether an incoming migration was finished: it ran here, or was found in a state that only a VM of this host has.
pub(super) fn handed_over(dossier: &Dossier) -> bool {
    let arrived = dossier.find(|f| matches!(f, Fact::Host(Happening::Started(StartDetail::Migrated))));
    let Some(arrived) = arrived.map(|(_, e)| e.first) else { return true };
    dossier.items().iter().any(|e| {
        e.last >= arrived
            && match &e.fact {
                Fact::Host(Happening::Resumed(_) | Happening::Rebooted | Happening::ShutdownBegan(_)) => true,
                Fact::Found { state: DomainState::Paused(reason), .. } => matches!(
                    reason,
                    PauseReason::User | PauseReason::IoError | PauseReason::Watchdog | PauseReason::Snapshot
                ),
                Fact::Found { state, .. } => state.is_active(),
                _ => false,
            }
    })
}

/// The last pause, if `wanted` accepts it and nothing shows it running after it.
fn last_pause(dossier: &Dossier, wanted: impl Fn(&Fact) -> bool) -> Vec<EvidenceId> {
    let last = dossier.latest(|f| {
        matches!(
            f,
            Fact::Host(Happening::Suspended(_) | Happening::Resumed(_))
                | Fact::Found { state: DomainState::Running | DomainState::Paused(_), .. }
        )
    });
    match last {
        Some((id, e)) if wanted(&e.fact) => vec![id],
        _ => Vec::new(),
    }
}

fn is_io_error_pause(fact: &Fact) -> bool {
    matches!(
        fact,
        Fact::Host(Happening::Suspended(SuspendDetail::IoError))
            | Fact::Found { state: DomainState::Paused(PauseReason::IoError), .. }
    )
}

/// The last pause, if an I/O error made it and it lasted long enough for the original's own limit.
fn paused_by_io_error(dossier: &Dossier, end: Wall) -> Vec<EvidenceId> {
    if last_pause(dossier, is_io_error_pause).is_empty() {
        return Vec::new();
    }
    let ran = dossier
        .latest(|f| {
            matches!(f, Fact::Host(Happening::Resumed(_)) | Fact::Found { state: DomainState::Running, .. })
        })
        .map(|(_, e)| e.last);
    // An earlier pause for the same reason is the same piece: then only its last time speaks of the present one.
    let since = |e: &Evidence| if ran.is_none_or(|ran| e.first >= ran) { e.first } else { e.last };
    let mut seen: Vec<EvidenceId> = enumerated(dossier)
        .filter(|(_, e)| is_io_error_pause(&e.fact) && ran.is_none_or(|ran| e.last >= ran))
        .map(|(id, _)| id)
        .collect();
    if !seen.iter().any(|id| end.since(since(&dossier.items()[usize::from(*id)])) >= PAUSED_LONG) {
        seen.clear();
    }
    if !seen.is_empty() {
        seen.extend(ids(dossier, |f| {
            matches!(f, Fact::Host(Happening::IoError { action: IoErrorAction::Pause, .. }))
        }));
    }
    seen
}
