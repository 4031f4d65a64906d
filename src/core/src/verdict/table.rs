//! The decision table. Each setting is a list of places; the first row in them whose clue is seen decides, and the last row
//! of each setting needs none.
//!
//! What positively shows the end stands in three places of its own, which every setting goes through before it interprets
//! what libvirt made of it: QEMU's words, what was asked of us, and what befell the process. A setting in which libvirt names
//! a deed of its own goes through none of them, and says so in [`Setting::places`].

use super::clue::Clue;
use super::setting::Setting;
use crate::cause::Cause;
use crate::record::Certainty;

/// Where a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In this setting alone, before the places that it shares.
    First(Setting),
    /// QEMU's own word on the shutdown, other than a guest's.
    Words,
    /// What was asked of us.
    Requests,
    /// What befell the process.
    Deaths,
    /// In this setting alone, after the places that it shares.
    Then(Setting),
}

impl Setting {
    /// The places of this setting, in the order in which they are tried.
    pub fn places(self) -> Vec<Place> {
        let shared: &[Place] = match self {
            // libvirt reports a deed of its own, or the guest's word is the first.
            Self::ShutdownByGuest
            | Self::Destroyed
            | Self::Migrated
            | Self::Saved
            | Self::FromSnapshot
            | Self::NotStarted => &[],
            // What befell the process, if that is known, ended it, whatever was on its way.
            Self::ShutdownByHost
            | Self::ShutdownUnspoken
            | Self::Crashed
            | Self::Failed
            | Self::StoppedOther
            | Self::FoundCrashed
            | Self::FoundKilledByLibvirt
            | Self::FoundMute => &[Place::Words, Place::Deaths, Place::Requests],
        };
        let words = shared.contains(&Place::Words).then_some(Place::Words);
        let rest = shared.iter().copied().filter(|place| *place != Place::Words);
        words.into_iter().chain([Place::First(self)]).chain(rest).chain([Place::Then(self)]).collect()
    }

    /// The rows of this setting, in the order in which they are tried.
    pub fn rows(self) -> impl Iterator<Item = &'static Row> {
        self.places().into_iter().flat_map(|place| ROWS.iter().filter(move |row| row.place == place))
    }

    /// How certain a row can be here at most: what befell the process, or what QEMU said, is certain only where libvirt's own
    /// words agree with it.
    pub fn at_most(self, row: &Row) -> Certainty {
        let agrees = match row.place {
            Place::Words => self == Self::ShutdownByHost,
            Place::Deaths if row.clue == Some(Clue::OutsideSignal) => self == Self::ShutdownByHost,
            Place::Deaths | Place::Requests => self == Self::Failed,
            Place::First(_) | Place::Then(_) => true,
        };
        if agrees { row.certainty } else { row.certainty.min(Certainty::Probable) }
    }
}

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Stable, such as `G4`; stands in every verdict.
    pub label: &'static str,
    /// Where it stands.
    pub place: Place,
    /// What must be seen; `None` in the last row of a setting.
    pub clue: Option<Clue>,
    /// What it was.
    pub cause: Cause,
    /// How sure we can be at most.
    pub certainty: Certainty,
    /// Why.
    pub story: &'static str,
}

macro_rules! table {
    ($([$place:expr] { $($label:literal $clue:tt => $cause:ident, $certainty:ident: $story:literal;)* })*) => {
        /// All rows, in the order in which they are tried within each place.
        pub const ROWS: &[Row] = &[$($(Row {
            label: $label,
            place: $place,
            clue: table!(@clue $clue),
            cause: Cause::$cause,
            certainty: Certainty::$certainty,
            story: $story,
        },)*)*];
    };
    (@clue _) => { None };
    (@clue $clue:ident) => { Some(Clue::$clue) };
}

use Place::{Deaths, First, Requests, Then, Words};
use Setting::{
    Crashed, Destroyed, Failed, FoundCrashed, FoundKilledByLibvirt, FoundMute, FromSnapshot, Migrated,
    NotStarted, Saved, ShutdownByGuest, ShutdownByHost, ShutdownUnspoken, StoppedOther,
};

table! {
    [Words] {
        "W1" MonitorQuit => MonitorQuit, Certain: "QEMU says that it was told to quit.";
        "W2" HostResetFirst => DestroyedOnReboot, Certain: "QEMU's word is a reset from the host's side, and on_reboot ended the VM.";
        "W3" OtherResetFirst => DestroyedOnReboot, Probable: "QEMU's word is a reset, of a part of the machine or by the load of a snapshot.";
        "W4" WindowClosed => WindowClosed, Certain: "QEMU says that its window was closed.";
        "W5" HostError => QemuFailed, Probable: "QEMU says that an error of the host ended it.";
    }
    [Requests] {
        "Q1" WeAskedDestroy => AdminDestroyed, Probable: "Our destroy was on its way when it ended.";
        "Q2" WeForcedOff => AdminForcedOff, Probable: "Our force was on its way when it ended.";
    }
    [Deaths] {
        "E1" IncomingUnfinished => IncomingMigrationFailed, Certain: "It came by migration and was never handed over.";
        "E2" PostcopyFailed => PostcopyFailed, Probable: "Its post-copy migration had failed.";
        "E3" WatchdogPoweredOff => WatchdogPoweroff, Certain: "The watchdog powers off without a shutdown.";
        "E4" OomKilled => OomKilled, Certain: "The kernel names the process.";
        "E5" KilledBySender => ProcessKilled, Certain: "The kernel saw who sent SIGKILL.";
        "E16" KilledAtLimit => LimitReached, Probable: "The kernel itself sent SIGKILL, and the process had used up what its hard limit on processor time gives.";
        "E6" KilledByKernel => OomKilled, Probable: "The kernel itself sent SIGKILL, and neither said a word nor was a limit on processor time seen to be used up: as a rule because memory ran out.";
        "E15" LimitReached => LimitReached, Certain: "The kernel sent the signal of a limit that is set for QEMU's process.";
        "E7" FaultBySender => ProcessTerminated, Certain: "The kernel saw another process send the signal.";
        "E8" FaultRaised => QemuCrashed, Certain: "The kernel saw QEMU's own fault, or its abort.";
        "E9" OtherBySender => ProcessTerminated, Certain: "The kernel saw another process send the signal.";
        "E10" PanickedAndEnded => GuestPanic, Probable: "The panic device had fired, and the VM was ended.";
        "E13" GuestExited => GuestExit, Certain: "QEMU's status is one that its guest chose, by a device that its definition has for it.";
        "E14" GuestMayHaveExited => GuestExit, Probable: "Its guest can end QEMU with this status, and QEMU uses it for its own errors as well.";
        "E12" InitSignal => HostShutdown, Probable: "Init ends processes when the host goes down.";
        "E11" OutsideSignal => ProcessTerminated, Certain: "QEMU or the kernel names the signal and its sender.";
    }
    [First(ShutdownByGuest)] {
        "G1" Hibernating => GuestHibernated, Certain: "The guest said that it suspends to disk, then shut down.";
        "G2" CrashKernel => GuestPanic, Probable: "The crash kernel took over, wrote its dump and shut down.";
        "G10" PanickedAndEnded => GuestPanic, Probable: "The guest had panicked, and then shut down.";
        "G3" WatchdogShutdown => WatchdogShutdown, Probable: "The watchdog had asked; whether the guest obeyed or shut down by itself leaves no trace.";
        "G4" ResetFirst => DestroyedOnReboot, Certain: "QEMU's word is reset, and on_reboot ended the VM.";
        "G11" GuestExited => GuestExit, Certain: "QEMU's status is one that its guest chose, by a device that its definition has for it: newer QEMUs shut down for that in good order.";
        "G12" GuestMayHaveExited => GuestExit, Probable: "Its guest can end QEMU with this status, and QEMU uses it for its own errors as well.";
        "G5" WeAskedShutdown => AdminShutdown, Probable: "A manager had asked through us; whether the guest obeyed or its user powered it off leaves no trace.";
        "G6" HostGoingDown => HostShutdown, Probable: "Guests are asked to shut down when their host does.";
        "G7" ButtonPressed => OtherShutdown, Probable: "The power button had been pressed, and not by us; whether the guest obeyed leaves no trace.";
        "G8" PlainPoweroff => GuestPoweroff, Certain: "QEMU says guest-shutdown, and nobody could have asked.";
        "G13" RebootMayHaveEnded => GuestPoweroff, Probable: "libvirt says that the guest began it, and QEMU was not heard: the guest went off, or rebooted, which ends it by its definition as well.";
        "G9" _ => GuestPoweroff, Probable: "Another client may have asked the guest: through an agent, which leaves no trace, or while nobody listened; nor does a guest leave one that ended QEMU by a device for that, where the exit status was not seen.";
    }
    [First(ShutdownByHost)] {
        "H2" HostGoingDown => HostShutdown, Probable: "The host was going down and ended its processes.";
    }
    [Then(ShutdownByHost)] {
        "H8" SignalWord => ProcessTerminated, Probable: "QEMU says that a signal ended it, and nobody else is known to have sent it.";
        "H6" MonitorLost => MonitorQuit, Probable: "The monitor broke off without a signal: a quit command does that.";
        "H9" _ => UnknownEnded, Unknown: "The host's side ended it, and nothing says by what.";
    }
    [First(ShutdownUnspoken)] {
        "U1" SignalThenNewBoot => HostShutdown, Probable: "A signal, no farewell of libvirt, and a new boot.";
        "U11" CrashKernel => GuestPanic, Probable: "The crash kernel had taken over, and then it was shut down.";
        "U2" Hibernating => GuestHibernated, Probable: "The guest said that it suspends to disk.";
        "U3" WatchdogShutdown => WatchdogShutdown, Probable: "The watchdog had asked.";
    }
    [Then(ShutdownUnspoken)] {
        "U6" WeAskedShutdown => AdminShutdown, Probable: "A manager had asked through us.";
        "U7" HostGoingDown => HostShutdown, Probable: "The host was going down.";
        "U8" ButtonPressed => OtherShutdown, Probable: "The power button had been pressed, and not by us.";
        "U10" LogNotWhole => UnknownEnded, Unknown: "An orderly shutdown, and what led to it may stand in QEMU's log, of which this run's part was not read whole.";
        "U14" NoSignalLogged => UnknownEnded, Unknown: "An orderly shutdown, and QEMU's log names no signal: libvirt ends a guest that is off by one, and somebody's quit command leaves none; but a busy host may lose the line.";
        "U13" RebootMayHaveEnded => GuestPoweroff, Probable: "An orderly shutdown without another trace: the guest went off, or rebooted, which ends it by its definition as well; nothing tells which.";
        "U9" _ => GuestPoweroff, Probable: "An orderly shutdown without another trace is the guest's own, as a rule.";
    }
    [First(Destroyed)] {
        "D1" OurDestroyEndedAtStart => DestroyedAtStart, Certain: "A manager destroyed it through us before it was up, and libvirt's signal came after that.";
        "D12" WeAskedDestroyAtStart => DestroyedAtStart, Probable: "A manager destroyed it through us before it was up; when libvirt sent its signal is not known, and another client may have destroyed it just before.";
        "D2" OurForceEnded => AdminForcedOff, Certain: "Our own last step of a shutdown, and libvirt's signal came after it.";
        "D3" OurDestroyEnded => AdminDestroyed, Certain: "A manager destroyed it through us, and libvirt's signal came after that.";
        "D10" WeForcedOff => AdminForcedOff, Probable: "Our own last step of a shutdown was on its way; when libvirt sent its signal is not known, and another client may have destroyed it just before.";
        "D11" WeAskedDestroy => AdminDestroyed, Probable: "A manager destroyed it through us; when libvirt sent its signal is not known, and another client may have destroyed it just before.";
        "D16" DestroyAstray => AdminDestroyed, Probable: "A manager had destroyed the domain's run before through us, and libvirt was still to answer that when this one began.";
        "D7" IncomingUnfinished => IncomingMigrationFailed, Certain: "It came by migration and was destroyed before it was handed over: on its source it goes on.";
        "D4" PostcopyFailed => PostcopyFailed, Probable: "Its post-copy migration had failed and it was cleaned up.";
        "D5" PausedLong => PausedTooLong, Probable: "An I/O error had paused it for long.";
        "D8" OverBefore => OutsideDestroyed, Probable: "libvirt was told to destroy it when its process had been gone for some seconds, and nothing says what had ended that.";
        "D9" GoneUnexplained => OutsideDestroyed, Probable: "libvirt was told to destroy it, and whether that ended its process, or something else just before, is not known.";
        "D6" _ => OutsideDestroyed, Certain: "libvirt was told to destroy it, and not by us.";
    }
    [First(Crashed)] {
        "C7" DumpedAfterPanic => CoreDumped, Probable: "The guest had panicked, which did not end it; that libvirt called it crashed at its end as well, a dump with the order to crash does.";
        "C8" PanickedBefore => GuestPanic, Probable: "The panic device had fired some time before: on_crash had its memory dumped and then ended it, or somebody dumped it with the order to crash.";
        "C1" Panicked => GuestPanic, Certain: "The panic device fired, and on_crash ended it.";
    }
    [Then(Crashed)] {
        "C3" CrashKernel => GuestPanic, Probable: "The guest's crash kernel had taken over.";
        "C6" NoPanicEnds => CoreDumped, Probable: "libvirt called it crashed, and no panic ends this VM: a dump with the order to crash.";
        "C4" StoppedForDump => CoreDumped, Probable: "libvirt stopped it, and called it crashed without a panic: a dump with the order to crash.";
        "C5" _ => UnknownEnded, Unknown: "libvirt calls it crashed: a panic, or a dump with the order to crash, and nothing says which.";
    }
    [First(Migrated)] {
        "M1" _ => MigratedAway, Certain: "libvirt says so.";
    }
    [First(Saved)] {
        "V1" ManagedImage => ManagedSaved, Certain: "libvirt saved it and keeps the image.";
        "V2" NeverManaged => SavedToFile, Certain: "libvirt saved it and kept no image of its own.";
        "V4" NoManagedImage => SavedToFile, Probable: "libvirt saved it, and had no image of its own when it was asked.";
        "V3" _ => SavedToFile, Probable: "libvirt saved it; whether it keeps the image is not known.";
    }
    [Then(Failed)] {
        "F7" HostGoingDown => HostShutdown, Probable: "The host was going down.";
        "F17" KilledByLibvirt => ProcessLost, Probable: "libvirt itself sent SIGKILL, and does not say why.";
        "F10" KilledHard => ProcessKilled, Probable: "SIGKILL, and no word of a lack of memory.";
        "F26" LimitSignal => LimitReached, Probable: "The signal of a limit ended it, and nobody saw another process send it.";
        "F11" FaultSignal => QemuCrashed, Probable: "The signal of a fault ended it, and nobody saw another process send it.";
        "F12" OtherSignal => ProcessTerminated, Certain: "A signal ended it.";
        "F23" ExitedOddly => QemuFailed, Probable: "QEMU ended with a status that is not the one of its own errors.";
        "F13" ExitedWithError => QemuFailed, Certain: "QEMU gave up with an error.";
        "F20" LeftCleanly => MonitorQuit, Probable: "QEMU ended by itself in good order, and its log names no signal: a quit command does that.";
        "F25" LibvirtActed => ProcessLost, Probable: "libvirt itself ended it, as it does when it has lost QEMU's monitor, and does not say why.";
        "F24" StatusKnown => UnknownEnded, Unknown: "How the process ended is known, and who or what ended it so is not: a signal that QEMU obeys, a quit command and a watchdog all may.";
        "F14" _ => ProcessLost, Probable: "The process vanished and left no word.";
    }
    [First(FromSnapshot)] {
        "R1" NextFromSnapshot => SnapshotReverted, Certain: "The next run began from a snapshot at once.";
        "R3" RunsAgain => SnapshotReverted, Probable: "The snapshot operation had stopped it, and another process runs it.";
        "R2" _ => SnapshotStopped, Probable: "A snapshot operation left it off.";
    }
    [Then(StoppedOther)] {
        "O2" HostGoingDown => HostShutdown, Probable: "The host was going down.";
        "O1" _ => UnknownEnded, Unknown: "libvirt gave a detail that this version does not know.";
    }
    [First(NotStarted)] {
        "B1" OurDestroyEndedAtStart => DestroyedAtStart, Certain: "A manager destroyed it through us before it was up, and libvirt's signal came after that.";
        "B13" WeAskedDestroyAtStart => DestroyedAtStart, Probable: "A manager destroyed it through us before it was up, and nothing else is known to have ended it.";
        "B9" ArrivalBegun => IncomingMigrationFailed, Probable: "It was to come from another host, and its QEMU did not come up: on its source it goes on.";
        "B11" MemoryAwaited => IncomingMigrationFailed, Probable: "QEMU was to take over a memory and did not come up, and no saved one is known: as a rule a VM that migrates here, which goes on on its source.";
        "B6" OomKilled => StartFailed, Certain: "The kernel ran out of memory and names QEMU's process, which had not come up.";
        "B7" KilledAtStart => StartFailed, Probable: "A signal ended QEMU before it was up.";
        "B2" ManagedImage => RestoreFailed, Probable: "A saved image was there, so the start was a restore.";
        "B10" RestoreBegun => RestoreFailed, Probable: "It had been saved, so the start was a restore.";
        "B14" RefusedMeanwhile => StartFailed, Probable: "libvirt said why, and it was not that a manager destroyed it through us meanwhile.";
        "B3" StartRefused => StartFailed, Certain: "libvirt said why.";
        "B8" LibvirtSpeaks => StartFailed, Probable: "libvirt's log said why at that moment, or libvirt says what the start lacks.";
        "B4" LogSpeaks => StartFailed, Probable: "QEMU said why in its log.";
        "B12" TerminatedAtStart => StartFailed, Probable: "SIGTERM ended QEMU before it was up, and neither libvirt nor QEMU gave another reason.";
        "B5" _ => StartFailedSilent, Probable: "Neither libvirt nor QEMU said why.";
    }
    [Then(FoundCrashed)] {
        "X16" HostGoingDown => HostShutdown, Probable: "The host was going down.";
        "X5" KilledHard => ProcessKilled, Probable: "SIGKILL, and no word of a lack of memory.";
        "X31" LimitSignal => LimitReached, Probable: "The signal of a limit ended it.";
        "X6" FaultSignal => QemuCrashed, Probable: "The signal of a fault ended it.";
        "X7" OtherSignal => ProcessTerminated, Probable: "A signal ended it.";
        "X8" ExitedWithError => QemuFailed, Probable: "QEMU gave up with an error.";
        "X17" MigrationCompleted => MigratedAway, Probable: "libvirt had migrated it.";
        "X18" SaveCompleted => SavedToFile, Probable: "libvirt had saved it.";
        "X19" StoppedForDump => CoreDumped, Probable: "libvirt had stopped it, as it does for a dump of its memory.";
        "X26" AskedAndEnded => AdminShutdown, Probable: "A manager had asked through us, and libvirt ended it while we listened.";
        "X20" EndedBeforeLoss => OutsideDestroyed, Probable: "libvirt ended it while we listened, and not for us; it was gone itself before it could say why.";
        "X29" NoPanicAndEnded => CoreDumped, Probable: "The libvirt that called it crashed and ended its process had followed it all along, and no panic ends this VM: a dump with the order to crash.";
        "X21" EndedByOldLibvirt => GuestPanic, Probable: "The libvirt that called it crashed and ended its process had followed it all along: the guest had panicked, as a rule, or somebody dumped it with the order to crash; QEMU itself had not crashed.";
        "X22" EndedByNewLibvirt => KilledByLibvirt, Probable: "A libvirt that had come back ended a process that was still there: it could not take it over.";
        "X23" LibvirtActed => UnknownEnded, Unknown: "libvirt called it crashed and ended its process: the guest had crashed, or libvirt could not take it over.";
        "X30" WatchdogUnheard => WatchdogPoweroff, Probable: "QEMU ended by itself in good order, its log names no signal, and its watchdog powers off so; a quit command leaves the same.";
        "X28" LeftCleanly => MonitorQuit, Probable: "QEMU ended by itself in good order, and its log names no signal: a quit command does that.";
        "X27" StatusKnown => UnknownEnded, Unknown: "How the process ended is known, and who or what ended it so is not: a signal that QEMU obeys, a quit command and a watchdog all may.";
        "X10" _ => ProcessLost, Probable: "libvirt found the process gone.";
    }
    [Then(FoundKilledByLibvirt)] {
        "K4" KilledSooner => ProcessKilled, Probable: "SIGKILL, sooner than libvirt sends it: it could not take over what was gone.";
        "K11" LimitSignal => LimitReached, Probable: "The signal of a limit ended it, and libvirt could not take over what was gone.";
        "K5" FaultSignal => QemuCrashed, Probable: "QEMU's own fault dumped its core, and libvirt could not take over what was gone.";
        "K6" ExitedWithError => QemuFailed, Probable: "QEMU gave up with an error, and libvirt could not take over what was gone.";
        "K7" HostGoingDown => HostShutdown, Probable: "The host was going down.";
        "K9" AskedAndEnded => AdminShutdown, Probable: "A manager had asked through us, and libvirt ended it while we listened.";
        "K8" EndedBeforeLoss => OutsideDestroyed, Probable: "libvirt ended it while we listened, and not for us; it was gone itself before it could say why.";
        "K10" OtherSignal => ProcessTerminated, Probable: "A signal ended it that libvirt does not send, and libvirt could not take over what was gone.";
        "K1" _ => KilledByLibvirt, Probable: "libvirt says that it could not take it over again.";
    }
    [First(FoundMute)] {
        "N4" SignalThenNewBoot => HostShutdown, Probable: "A signal, no farewell of libvirt, and a new boot.";
    }
    [Then(FoundMute)] {
        "N5" HostGoingDown => HostShutdown, Probable: "The host was going down.";
        "N6" NewBoot => HostLost, Probable: "It ran, the host booted anew, and nothing says goodbye.";
        "N9" KilledHard => ProcessKilled, Probable: "SIGKILL, and no word of a lack of memory.";
        "N34" LimitSignal => LimitReached, Probable: "The signal of a limit ended it.";
        "N10" FaultSignal => QemuCrashed, Probable: "The signal of a fault ended it.";
        "N11" OtherSignal => ProcessTerminated, Probable: "A signal ended it.";
        "N12" ExitedWithError => QemuFailed, Probable: "QEMU gave up with an error.";
        "N24" MigrationCompleted => MigratedAway, Probable: "libvirt had migrated it.";
        "N25" ManagedImage => ManagedSaved, Probable: "A saved image waits.";
        "N26" SaveCompleted => SavedToFile, Probable: "libvirt had saved it.";
        "N27" Hibernating => GuestHibernated, Probable: "The guest had said that it suspends to disk.";
        "N21" WatchdogShutdown => WatchdogShutdown, Probable: "The watchdog had asked.";
        "N13" WeAskedShutdown => AdminShutdown, Probable: "A manager had asked through us.";
        "N22" ButtonPressed => OtherShutdown, Probable: "The power button had been pressed, and not by us.";
        "N23" EndedBeforeLoss => OutsideDestroyed, Probable: "libvirt ended it while we listened, and not for us; it was gone itself before it could say why.";
        "N32" LogDoubted => UnknownEnded, Unknown: "Its log, into which its guest can write, has a farewell: libvirt's, or the guest's own while it ran on.";
        "N33" WatchdogUnheard => WatchdogPoweroff, Probable: "QEMU ended by itself in good order, its log names no signal, and its watchdog powers off so; a quit command leaves the same.";
        "N31" LeftCleanly => MonitorQuit, Probable: "QEMU ended by itself in good order, and its log names no signal: a quit command does that.";
        "N30" StatusKnown => UnknownEnded, Unknown: "How the process ended is known, and who or what ended it so is not: a signal that QEMU obeys, a quit command and a watchdog all may.";
        "N15" Gone => UnknownVanished, Unknown: "It is gone, and nothing says how.";
        "N16" _ => UnknownEnded, Unknown: "It is off, and nothing says how.";
    }
}

/// Rows that no longer decide, with what they said: verdicts of older versions name them.
pub const RETIRED: &[(&str, &str)] = &[
    ("C2", "libvirt calls it crashed without a panic: a dump with the order to crash."),
    ("F1", "The process was gone while our destroy was on its way."),
    ("F2", "The process was gone while our force was on its way."),
    ("F3", "It came by migration and was never handed over."),
    ("F4", "Its post-copy migration had failed."),
    ("F5", "The watchdog powers off without a shutdown."),
    ("F6", "The kernel names the process."),
    ("F8", "Init ends processes when the host goes down."),
    ("F9", "QEMU or the kernel names the signal and its sender."),
    ("F15", "The kernel saw who sent SIGKILL."),
    ("F16", "The kernel itself sent SIGKILL, as it does when memory runs out, but said no word."),
    ("F18", "The kernel saw another process send the signal."),
    ("F19", "The kernel saw QEMU's own fault, or its abort."),
    ("F21", "QEMU's status is one that its guest chose, by a device that its definition has for it."),
    ("F22", "Its guest can end QEMU with this status, and QEMU uses it for its own errors as well."),
    ("H1", "QEMU says that it was told to quit."),
    ("H3", "Init ends processes when the host goes down."),
    ("H4", "QEMU or the kernel names the signal and its sender."),
    ("H5", "Our destroy, told as a shutdown."),
    ("H7", "The host's side ended it, and the sender is unknown."),
    ("K2", "The kernel names the process."),
    ("K3", "QEMU names the signal and its sender, and it is not libvirt."),
    ("N1", "Our destroy was on its way when we stopped hearing."),
    ("N2", "Our force was on its way when we stopped hearing."),
    ("N3", "The kernel names the process."),
    ("N7", "Init ends processes when the host goes down."),
    ("N8", "QEMU or the kernel names the signal and its sender."),
    ("N14", "The guest had begun to shut down when we stopped hearing."),
    ("N17", "The kernel saw who sent SIGKILL."),
    ("N18", "The kernel itself sent SIGKILL, as it does when memory runs out."),
    ("N19", "The kernel saw another process send the signal."),
    ("N20", "The kernel saw QEMU's own fault, or its abort."),
    ("N28", "QEMU's status is one that its guest chose."),
    ("N29", "Its guest can end QEMU with this status."),
    ("U4", "Init ends processes when the host goes down."),
    ("U5", "QEMU or the kernel names the signal and its sender."),
    (
        "U12",
        "QEMU's log, read whole, names no signal: libvirt ends a guest that is off by one, and a quit command leaves none.",
    ),
    ("X1", "Our destroy was on its way when we stopped hearing."),
    ("X2", "The kernel names the process."),
    ("X3", "Init ends processes when the host goes down."),
    ("X4", "libvirt, when it comes back, calls this crashed as well."),
    ("X9", "The panic device had fired."),
    ("X11", "libvirt called it crashed and had to end its process: the guest had crashed, not QEMU."),
    ("X12", "The kernel saw who sent SIGKILL."),
    ("X13", "The kernel itself sent SIGKILL, as it does when memory runs out."),
    ("X14", "The kernel saw another process send the signal."),
    ("X15", "The kernel saw QEMU's own fault, or its abort."),
    ("X24", "QEMU's status is one that its guest chose."),
    ("X25", "Its guest can end QEMU with this status."),
];

/// What a row says, be it one of today's or a retired one; `None` for a label that this version never had.
pub fn story_of(label: &str) -> Option<&'static str> {
    let today = ROWS.iter().map(|row| (row.label, row.story));
    today.chain(RETIRED.iter().copied()).find(|(known, _)| *known == label).map(|(_, story)| story)
}

/// The row for a setting, where `seen` answers the clues.
pub fn choose(setting: Setting, seen: impl Fn(Clue) -> bool) -> &'static Row {
    setting
        .rows()
        .find(|row| row.clue.is_none_or(&seen))
        .expect("every setting ends in a row without a clue, which a test holds")
}

impl Row {
    /// Whether nothing that may still come can put another row of its setting in its place: its clue, and those of all rows
    /// before it, stand on what is heard before the end or never. What settings share is never settled. `may_exit`: whether
    /// its guest can end QEMU with a status of its own, which is seen at the end.
    pub fn is_settled(&self, may_exit: bool) -> bool {
        let (Place::First(setting) | Place::Then(setting)) = self.place else { return false };
        let clues = setting.rows().take_while(|row| row.label != self.label).map(|row| row.clue);
        clues.chain([self.clue]).all(|clue| {
            clue.is_some_and(|clue| clue.is_heard_before_the_end() || !may_exit && clue.is_of_an_exit())
        })
    }
}
