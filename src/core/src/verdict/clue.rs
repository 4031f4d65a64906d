//! Clues: yes/no questions put to a frozen dossier. A clue that is seen names the evidence it is seen in.

use super::arrival::{broken_arrival, handed_over, start_for, unheard_arrival};
use super::order::{self, Onset, onset, since_reset};
use super::process::{
    exit, exits_unseen, failed_for_itself, guest_exited, is_by, is_of_a_limit, is_own, killed_at_start,
    log_says_why, says_why, terminated_at_start, with_unit,
};
use super::requests::{EVER, asked, ended_for_us, may_have_been_met};
use super::setting::{has, ids, was_up};
use super::too_late::{gone_unexplained, over_before};
use super::traces::*;
use crate::cause::Cause;
use crate::evidence::{Dossier, EvidenceId, ExitStatus, Fact, LogWord, OperationKind, Sender, StartedFor};
use crate::hypervisor::{
    CrashDetail, DomainState, Happening, PauseReason, PmDetail, QemuReason, ResumeDetail, StartDetail,
    SuspendDetail, WatchdogAction,
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
    /// The panic device fired, and the VM was not kept as it was.
    PanickedAndEnded => Some(Cause::GuestPanic),
    /// The panic device fired, and the VM was kept as it was.
    DumpedAfterPanic => None,
    /// The panic device fired longer ago than libvirt needs to end it for that.
    PanickedBefore => Some(Cause::GuestPanic),
    /// The watchdog asked the guest to shut down shortly before.
    WatchdogShutdown => Some(Cause::WatchdogShutdown),
    /// The watchdog powered it off.
    WatchdogPoweredOff => Some(Cause::WatchdogPoweroff),
    /// QEMU's first word on the last shutdown is a guest's reset.
    ResetFirst => Some(Cause::DestroyedOnReboot),
    /// QEMU's first word is a reset by its monitor, as libvirt resets a guest.
    HostResetFirst => Some(Cause::DestroyedOnReboot),
    /// QEMU's first word is a reset of a part of the machine, or by the load of a snapshot.
    OtherResetFirst => Some(Cause::DestroyedOnReboot),
    /// QEMU's first word is a guest's shutdown; no agent through which another client could have asked, and no status of
    /// the guest's own.
    PlainPoweroff => Some(Cause::GuestPoweroff),
    /// A manager asked us for a shutdown not long before, and libvirt took it.
    WeAskedShutdown => Some(Cause::AdminShutdown),
    /// A shutdown through us ended in force.
    WeForcedOff => Some(Cause::AdminForcedOff),
    /// A manager asked us to destroy it.
    WeAskedDestroy => Some(Cause::AdminDestroyed),
    /// A shutdown through us ended in force, and libvirt's first signal to the process came after that.
    OurForceEnded => Some(Cause::AdminForcedOff),
    /// A manager asked us to destroy it, and libvirt's first signal to the process came after that.
    OurDestroyEnded => Some(Cause::AdminDestroyed),
    /// A manager asked us to destroy the domain's run before, and libvirt may have been at that.
    DestroyAstray => Some(Cause::AdminDestroyed),
    /// A manager asked us to destroy it before it was ever up, and libvirt's first signal to the process came after that.
    OurDestroyEndedAtStart => Some(Cause::DestroyedAtStart),
    /// A manager asked us to destroy it before it was ever up, and nothing shows that something else ended it.
    WeAskedDestroyAtStart => Some(Cause::DestroyedAtStart),
    /// libvirt refused the start in its own words, and a manager had asked us to destroy it.
    RefusedMeanwhile => None,
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
    /// The host has booted anew since, and whether libvirt said farewell before is known.
    NewBoot => None,
    /// QEMU's first word is a quit command.
    MonitorQuit => Some(Cause::MonitorQuit),
    /// QEMU's first word is that its window was closed.
    WindowClosed => Some(Cause::WindowClosed),
    /// QEMU's first word is an error of the host.
    HostError => Some(Cause::QemuFailed),
    /// QEMU's first word is a signal, and libvirt reported a shutdown by the host's side.
    SignalWord => Some(Cause::ProcessTerminated),
    /// This run's part of QEMU's log was not read whole.
    LogNotWhole => None,
    /// What its guest may have written looks like libvirt's farewell.
    LogDoubted => None,
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
    /// QEMU's log was read whole, and names no signal.
    NoSignalLogged => None,
    /// There was none at once after the save, before somebody could have taken it away.
    NeverManaged => None,
    /// The next run began from a snapshot.
    NextFromSnapshot => None,
    /// A snapshot operation was heard to stop it, and it runs again since.
    RunsAgain => None,
    /// The kernel's out-of-memory killer named the process.
    OomKilled => Some(Cause::OomKilled),
    /// libvirt itself ended the process before the link to it was lost.
    EndedBeforeLoss => None,
    /// A manager had asked us for a shutdown, and libvirt itself ended the process before the link to it was lost.
    AskedAndEnded => None,
    /// A libvirt that had been running all along ended the process.
    EndedByOldLibvirt => None,
    /// A libvirt that had come back ended the process.
    EndedByNewLibvirt => None,
    /// libvirt itself ended the process.
    LibvirtActed => None,
    /// libvirt stopped it for a dump of its memory.
    StoppedForDump => None,
    /// A save of it was completed.
    SaveCompleted => None,
    /// A migration of it to another host was completed.
    MigrationCompleted => Some(Cause::MigratedAway),
    /// The kernel saw another process send the SIGKILL.
    KilledBySender => Some(Cause::ProcessKilled),
    /// The SIGKILL was the kernel's own.
    KilledByKernel => Some(Cause::OomKilled),
    /// The same, and the process had used up what its hard limit on processor time gives.
    KilledAtLimit => Some(Cause::LimitReached),
    /// The kernel sent the signal of a limit that is set for the process.
    LimitReached => Some(Cause::LimitReached),
    /// The process was killed by the signal of such a limit.
    LimitSignal => Some(Cause::LimitReached),
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
    /// The kernel saw another process send the signal that ended it, which is of neither kind.
    OtherBySender => Some(Cause::ProcessTerminated),
    /// The process was killed by another signal, which libvirt never sends.
    OtherSignal => Some(Cause::ProcessTerminated),
    /// The guest ended QEMU by a device for that, with a status that is none of QEMU's.
    GuestExited => Some(Cause::GuestExit),
    /// The guest can have ended QEMU by a device for that, and QEMU itself can have failed.
    GuestMayHaveExited => None,
    /// A signal ended QEMU while it started.
    KilledAtStart => None,
    /// SIGTERM ended QEMU while it started, and libvirt is not known to have sent it.
    TerminatedAtStart => None,
    /// libvirt says that it was started for a VM that migrates here.
    ArrivalBegun => None,
    /// It was started to take over a memory, and no saved one is known.
    MemoryAwaited => None,
    /// It was started for a VM that had been saved.
    RestoreBegun => None,
    /// QEMU exited with a status that is neither 0 nor the one that it has for errors.
    ExitedOddly => None,
    /// The process exited with an error.
    ExitedWithError => Some(Cause::QemuFailed),
    /// The process exited with status 0, and its log was read and names no signal.
    LeftCleanly => None,
    /// QEMU exited in good order, no signal is known, and it had a watchdog that powers off so, of which nobody listened.
    WatchdogUnheard => None,
    /// An orderly shutdown, of which QEMU's own word was not heard, of a domain that a reboot ends as well.
    RebootMayHaveEnded => None,
    /// No panic of its guest could have ended it.
    NoPanicEnds => None,
    /// The same, and a libvirt that had been running all along ended the process.
    NoPanicAndEnded => None,
    /// How the process ended is known.
    StatusKnown => None,
    /// libvirt refused the start in its own words.
    StartRefused => None,
    /// libvirt's own log, or libvirt asked anew, says why a start by another client failed.
    LibvirtSpeaks => None,
    /// QEMU left words in its log.
    LogSpeaks => None,
    /// The process had exited some seconds before libvirt ended the VM.
    OverBefore => None,
    /// The process had exited when libvirt ended the VM, and nothing shows that libvirt's signal was what ended it.
    GoneUnexplained => None,
    /// A shutdown inside the guest had begun.
    GuestHadBegun => Some(Cause::GuestPoweroff),
    /// libvirt no longer knows it.
    Gone => None,
}

impl Clue {
    /// Whether it stands on words that come before the end or never: events of the guest and its machine, which libvirt
    /// and QEMU tell in order, and our own requests.
    pub(super) fn is_heard_before_the_end(self) -> bool {
        matches!(
            self,
            Self::Hibernating
                | Self::CrashKernel
                | Self::PanickedAndEnded
                | Self::WatchdogShutdown
                | Self::ResetFirst
                | Self::WeAskedShutdown
        )
    }

    /// Whether it needs a guest that can end QEMU with a status of its own.
    pub(super) fn is_of_an_exit(self) -> bool {
        matches!(self, Self::GuestExited | Self::GuestMayHaveExited)
    }

    /// The evidence in which it is seen; empty if it is not.
    pub fn seen(self, dossier: &Dossier, end: Wall) -> Vec<EvidenceId> {
        let heard =
            |wanted: fn(&Happening) -> bool| ids(dossier, |f| matches!(f, Fact::Host(h) if wanted(h)));
        // A reset begins the guest anew: what led to it explains nothing that comes later.
        let onset = || onset(dossier, end);
        let prelude = |wanted: fn(&Happening) -> bool| {
            let seen =
                recent(dossier, onset(), limits::PRELUDE_LIFE, |f| matches!(f, Fact::Host(h) if wanted(h)));
            since_reset(dossier, end, seen)
        };
        let word = |wanted: fn(bool, QemuReason) -> bool| order::first_of_qemu(dossier, end, wanted);
        match self {
            Self::Hibernating => prelude(|h| matches!(h, Happening::PmSuspended(PmDetail::Disk))),
            Self::CrashKernel => prelude(|h| matches!(h, Happening::GuestCrashed(CrashDetail::CrashLoaded))),
            Self::Panicked => {
                let mut seen = since_reset(dossier, end, heard(panicked));
                seen.extend(word(|_, r| r == QemuReason::GuestPanic));
                seen.extend(since_reset(dossier, end, ids(dossier, |f| matches!(f, Fact::LogPanic(_)))));
                seen
            }
            Self::PanickedAndEnded
                if !kept(dossier).is_empty() || died_otherwise(dossier) || shut_down_unheard(dossier) =>
            {
                Vec::new()
            }
            Self::PanickedAndEnded => Self::Panicked.seen(dossier, end),
            Self::DumpedAfterPanic => {
                let (mut seen, kept) = (Self::Panicked.seen(dossier, end), kept(dossier));
                if seen.is_empty() || kept.is_empty() {
                    return Vec::new();
                }
                seen.extend(kept);
                seen
            }
            Self::PanickedBefore => {
                let mut seen = Self::Panicked.seen(dossier, end);
                let soon =
                    |id: &EvidenceId| end.since(dossier.items()[usize::from(*id)].last) <= ENDS_PANICKED;
                if seen.iter().any(soon) {
                    seen.clear();
                }
                seen
            }
            Self::WatchdogShutdown => prelude(|h| matches!(h, Happening::Watchdog(WatchdogAction::Shutdown))),
            // QEMU then exits with 0 by itself.
            Self::WatchdogPoweredOff if !exit(dossier, |s| s != ExitStatus::Code(0)).is_empty() => Vec::new(),
            Self::WatchdogPoweredOff => {
                prelude(|h| matches!(h, Happening::Watchdog(WatchdogAction::PowerOff)))
            }
            Self::ResetFirst => word(|_, r| r == QemuReason::GuestReset),
            Self::HostResetFirst => {
                let mut seen = word(|_, r| r == QemuReason::HostQmpSystemReset);
                if !seen.is_empty() {
                    let resets =
                        [OperationKind::Reboot, OperationKind::AgentReboot, OperationKind::ForceReset];
                    seen.extend(
                        resets
                            .iter()
                            .flat_map(|what| asked(dossier, *what, onset().graced(), limits::REQUEST_LIFE)),
                    );
                }
                seen
            }
            Self::OtherResetFirst => {
                word(|_, r| matches!(r, QemuReason::SubsystemReset | QemuReason::SnapshotLoad))
            }
            Self::PlainPoweroff if somebody_may_have_asked(dossier, end) || exits_unseen(dossier) => {
                Vec::new()
            }
            Self::PlainPoweroff => word(|guest, r| guest && r == QemuReason::GuestShutdown),
            Self::WeAskedShutdown => {
                let began = onset().graced();
                // For a reboot its button is pressed as well, and on_reboot may end what goes off by it.
                let ways = [
                    OperationKind::Shutdown,
                    OperationKind::AgentShutdown,
                    OperationKind::Reboot,
                    OperationKind::AgentReboot,
                ];
                let ways = ways.iter().flat_map(|way| asked(dossier, *way, began, limits::REQUEST_LIFE));
                let seen = ways.collect();
                since_reset(dossier, end, seen)
            }
            Self::WeForcedOff => asked(dossier, OperationKind::ForceOff, Onset::at(end), EVER),
            Self::WeAskedDestroy => asked(dossier, OperationKind::Destroy, Onset::at(end), EVER),
            Self::OurForceEnded => ended_for_us(dossier, OperationKind::ForceOff, end),
            Self::OurDestroyEnded => ended_for_us(dossier, OperationKind::Destroy, end),
            Self::OurDestroyEndedAtStart | Self::WeAskedDestroyAtStart
                if was_up(dossier) || failed_for_itself(dossier) =>
            {
                Vec::new()
            }
            Self::OurDestroyEndedAtStart => ended_for_us(dossier, OperationKind::Destroy, end),
            Self::DestroyAstray => order::enumerated(dossier)
                .filter(|(_, e)| matches!(e.fact, Fact::Astray(OperationKind::Destroy, _)))
                .filter(|(_, e)| may_have_been_met(e, end))
                .map(|(id, _)| id)
                .collect(),
            Self::WeAskedDestroyAtStart => asked(dossier, OperationKind::Destroy, Onset::at(end), EVER),
            Self::RefusedMeanwhile if Self::WeAskedDestroy.seen(dossier, end).is_empty() => Vec::new(),
            Self::RefusedMeanwhile => Self::StartRefused.seen(dossier, end),
            Self::ButtonPressed => {
                let pressed = recent(dossier, onset(), limits::REQUEST_LIFE, |f| {
                    matches!(f, Fact::Host(Happening::QemuPowerdown))
                });
                since_reset(dossier, end, pressed)
            }
            Self::HostGoingDown => {
                // Once said it holds until the host is off: guests are shut down one after the other, a host may stay
                // off for days, and whoever is asked again says it again. So the first word counts, of any age, unless
                // the host was said to stay since it was last said. What was called off later had begun all the same.
                let began = onset();
                let latest = began.to.after(limits::HOST_WORD_DELAY);
                let stays = dossier.items().iter().filter(|e| e.fact == Fact::HostStays);
                let stays =
                    stays.filter_map(|e| [e.last, e.first].into_iter().find(|at| *at <= began.from)).max();
                let said = order::enumerated(dossier)
                    .filter(|(_, e)| matches!(e.fact, Fact::HostGoingDown { .. }) && e.first <= latest)
                    .filter(|(_, e)| stays.is_none_or(|stays| stays < e.last))
                    .map(|(id, _)| id);
                said.chain(went_down(dossier)).collect()
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
                    || !log_unread(dossier).is_empty()
                    || has(dossier, |f| matches!(f, Fact::LogEnd { .. }))
                {
                    return Vec::new();
                }
                signals.extend(boots);
                signals
            }
            // A process that was seen to end before did not go down with its host; and whether libvirt had said farewell is
            // not known of a log into which the guest can write so.
            Self::NewBoot
                if !log_unread(dossier).is_empty()
                    || order::exited(dossier).is_some()
                    || !Self::LogDoubted.seen(dossier, end).is_empty() =>
            {
                Vec::new()
            }
            Self::NewBoot => ids(dossier, |f| matches!(f, Fact::NewBoot { .. })),
            Self::MonitorQuit => word(|_, r| r == QemuReason::HostQmpQuit),
            Self::WindowClosed => word(|_, r| r == QemuReason::HostUi),
            Self::HostError => word(|_, r| r == QemuReason::HostError),
            // Where libvirt's own signal could be meant, it says nothing.
            Self::SignalWord if has(dossier, signal_of_libvirt) => Vec::new(),
            Self::SignalWord => {
                let mut seen = word(|_, r| r == QemuReason::HostSignal);
                if !seen.is_empty() {
                    seen.extend(signal(dossier, Sender::Itself));
                }
                seen
            }
            Self::LogNotWhole => log_not_whole(dossier),
            Self::LogDoubted => ids(dossier, |f| matches!(f, Fact::LogDoubted { .. })),
            Self::MonitorLost
                if has(dossier, |f| matches!(f, Fact::LogSignal { .. }))
                    || !log_not_whole(dossier).is_empty()
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
            Self::IncomingUnfinished if handed_over(dossier) => {
                let broken = broken_arrival(dossier);
                if broken.is_empty() { unheard_arrival(dossier) } else { broken }
            }
            Self::IncomingUnfinished => {
                let mut seen = heard(|h| matches!(h, Happening::Started(StartDetail::Migrated)));
                seen.extend(ids(dossier, |f| matches!(f, Fact::LogStart { incoming: true, .. })));
                seen
            }
            Self::PausedLong => paused_by_io_error(dossier, end),
            Self::ManagedImage => image(dossier, true),
            Self::NoManagedImage => {
                let mut seen = image(dossier, false);
                // One that was being written while it was saved may have gone with its definition.
                let written = |f: &Fact| matches!(f, Fact::Found { managed_save: Some(true), .. });
                if !has(dossier, written) {
                    seen.extend(ids(dossier, |f| matches!(f, Fact::Gone)));
                }
                seen
            }
            Self::NeverManaged => never_managed(dossier, end),
            // Of an operation that was not heard nobody knows how long before the next start it was.
            Self::RunsAgain if super::setting::stopped(dossier).is_none() => Vec::new(),
            Self::RunsAgain => ids(dossier, |f| matches!(f, Fact::Replaced)),
            Self::NextFromSnapshot => ids(dossier, |f| matches!(f, Fact::NextFromSnapshot)),
            Self::OomKilled => {
                let mut seen = ids(dossier, |f| matches!(f, Fact::OomKilled { .. }));
                if !seen.is_empty() {
                    seen.extend(killed(dossier, end, Sender::Kernel));
                }
                seen
            }
            Self::EndedBeforeLoss => ended_by_libvirt(dossier, Ended::BeforeLoss),
            Self::AskedAndEnded => asked_and_ended(dossier, end),
            Self::EndedByOldLibvirt => ended_by_libvirt(dossier, Ended::ByOld),
            Self::EndedByNewLibvirt => ended_by_libvirt(dossier, Ended::ByNew),
            Self::LibvirtActed => ids(dossier, signal_of_libvirt),
            Self::StoppedForDump => stopped_for_dump(dossier, end),
            Self::SaveCompleted => saved(dossier),
            Self::MigrationCompleted => migrated(dossier),
            Self::KilledBySender => with_unit(dossier, killed(dossier, end, Sender::Outside)),
            Self::KilledByKernel => killed(dossier, end, Sender::Kernel),
            Self::KilledAtLimit => killed_at_limit(dossier, end),
            Self::KilledByLibvirt => killed(dossier, end, Sender::Libvirt),
            Self::FaultBySender => {
                let seen = faulted(dossier, end, |_, sender| is_by(dossier, sender, Sender::Outside));
                with_unit(dossier, seen)
            }
            Self::LimitReached => faulted(dossier, end, |n, sender| is_of_a_limit(n) && is_own(sender)),
            Self::LimitSignal => exit(dossier, |s| matches!(s, ExitStatus::Signal(n) if is_of_a_limit(n))),
            Self::FaultRaised => faulted(dossier, end, |n, sender| !is_of_a_limit(n) && is_own(sender)),
            Self::KilledHard if !killed(dossier, end, Sender::Libvirt).is_empty() => Vec::new(),
            Self::KilledHard => exit(dossier, |s| matches!(s, ExitStatus::Signal(SIGKILL))),
            Self::KilledSooner if has(dossier, signal_of_libvirt) => Vec::new(),
            Self::KilledSooner => killed_sooner(dossier),
            Self::FaultSignal => exit(
                dossier,
                |s| matches!(s, ExitStatus::Signal(n) if FAULTS.contains(&n) && !is_of_a_limit(n)),
            ),
            Self::OtherBySender => {
                let mut seen = deadly(dossier, end, limits::REQUEST_LIFE, |n, sender| {
                    is_another(n) && !OBEYED.contains(&n) && is_by(dossier, sender, Sender::Outside)
                });
                if !seen.is_empty() {
                    seen.extend(exit(dossier, |s| matches!(s, ExitStatus::Signal(n) if is_another(n))));
                }
                with_unit(dossier, seen)
            }
            Self::OtherSignal => exit(dossier, |s| matches!(s, ExitStatus::Signal(n) if is_another(n))),
            Self::GuestExited => guest_exited(dossier, true),
            Self::GuestMayHaveExited => guest_exited(dossier, false),
            Self::KilledAtStart => killed_at_start(dossier),
            Self::TerminatedAtStart => terminated_at_start(dossier),
            Self::ArrivalBegun => start_for(dossier, StartedFor::Migration),
            Self::MemoryAwaited => start_for(dossier, StartedFor::Either),
            Self::RestoreBegun => start_for(dossier, StartedFor::Restore),
            Self::ExitedOddly => {
                let own = |s: ExitStatus| {
                    matches!(s, ExitStatus::Code(0) | ExitStatus::Code(super::process::ERROR))
                };
                exit(dossier, |s| matches!(s, ExitStatus::Code(_)) && !own(s))
            }
            Self::NoSignalLogged
                if !log_without_signal(dossier)
                    || super::process::guest_may_exit(dossier)
                    // Told to quit, it exits with 0.
                    || !exit(dossier, |s| s != ExitStatus::Code(0)).is_empty() =>
            {
                Vec::new()
            }
            Self::NoSignalLogged => {
                ids(dossier, |f| matches!(f, Fact::LogEnd { word: LogWord::Shutdown, .. }))
            }
            Self::ExitedWithError => {
                let mut seen = exit(dossier, |s| matches!(s, ExitStatus::Code(n) if n != 0));
                if !seen.is_empty() {
                    seen.extend(Self::LogSpeaks.seen(dossier, end));
                }
                seen
            }
            Self::LeftCleanly if !log_without_signal(dossier) => Vec::new(),
            Self::LeftCleanly => {
                let mut seen = exit(dossier, |s| s == ExitStatus::Code(0));
                if !seen.is_empty() {
                    seen.extend(Self::LogSpeaks.seen(dossier, end));
                }
                seen
            }
            Self::WatchdogUnheard => watchdog_unheard(dossier, end),
            Self::RebootMayHaveEnded if heard(|h| matches!(h, Happening::QemuShutdown { .. })).is_empty() => {
                ids(dossier, |f| *f == Fact::RebootEnds)
            }
            Self::RebootMayHaveEnded => Vec::new(),
            Self::NoPanicEnds => ids(dossier, |f| matches!(f, Fact::PanicStays | Fact::CannotPanic)),
            Self::NoPanicAndEnded => {
                let (mut seen, ended) =
                    (Self::NoPanicEnds.seen(dossier, end), Self::EndedByOldLibvirt.seen(dossier, end));
                if seen.is_empty() || ended.is_empty() {
                    return Vec::new();
                }
                seen.extend(ended);
                seen
            }
            Self::StatusKnown => exit(dossier, |_| true),
            Self::StartRefused => ids(
                dossier,
                |f| matches!(f, Fact::Refused { what: OperationKind::Create, text } if says_why(text)),
            ),
            Self::LibvirtSpeaks => ids(dossier, |f| matches!(f, Fact::StartTrouble(text) if says_why(text))),
            Self::LogSpeaks => ids(dossier, |f| matches!(f, Fact::LogText(text) if log_says_why(text))),
            Self::GuestHadBegun => order::guest_began(dossier, end).map(|(_, ids)| ids).unwrap_or_default(),
            Self::OverBefore => over_before(dossier, end),
            Self::GoneUnexplained => gone_unexplained(dossier),
            Self::Gone => ids(dossier, |f| matches!(f, Fact::Gone)),
        }
    }
}
