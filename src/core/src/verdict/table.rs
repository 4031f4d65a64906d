//! The decision table. Within a setting the first row whose clue is seen decides; the last row of each needs none.

use super::clue::Clue;
use super::setting::Setting;
use crate::cause::Cause;
use crate::record::Certainty;

/// One row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Stable, such as `G4`; stands in every verdict.
    pub label: &'static str,
    /// Where it applies.
    pub setting: Setting,
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
    ($($setting:ident { $($label:literal $clue:tt => $cause:ident, $certainty:ident: $story:literal;)* })*) => {
        /// All rows, in the order in which they are tried.
        pub const ROWS: &[Row] = &[$($(Row {
            label: $label,
            setting: Setting::$setting,
            clue: table!(@clue $clue),
            cause: Cause::$cause,
            certainty: Certainty::$certainty,
            story: $story,
        },)*)*];
    };
    (@clue _) => { None };
    (@clue $clue:ident) => { Some(Clue::$clue) };
}

table! {
    ShutdownByGuest {
        "G1" Hibernating => GuestHibernated, Certain: "The guest said that it suspends to disk, then shut down.";
        "G2" CrashKernel => GuestPanic, Probable: "The crash kernel took over, wrote its dump and shut down.";
        "G3" WatchdogShutdown => WatchdogShutdown, Probable: "The watchdog had asked; whether the guest obeyed or shut down by itself leaves no trace.";
        "G4" ResetFirst => DestroyedOnReboot, Certain: "QEMU's word is reset, and on_reboot ended the VM.";
        "G5" WeAskedShutdown => AdminShutdown, Probable: "A manager had asked through us; whether the guest obeyed or its user powered it off leaves no trace.";
        "G6" HostGoingDown => HostShutdown, Probable: "Guests are asked to shut down when their host does.";
        "G7" ButtonPressed => OtherShutdown, Probable: "The power button had been pressed, and not by us; whether the guest obeyed leaves no trace.";
        "G8" PlainPoweroff => GuestPoweroff, Certain: "QEMU says guest-shutdown, and nobody could have asked.";
        "G9" _ => GuestPoweroff, Probable: "An agent, through which another client may have asked, leaves no trace.";
    }
    ShutdownByHost {
        "H1" MonitorQuit => MonitorQuit, Certain: "QEMU says that it was told to quit.";
        "H2" HostGoingDown => HostShutdown, Probable: "The host was going down and ended its processes.";
        "H3" InitSignal => HostShutdown, Probable: "Init ends processes when the host goes down.";
        "H4" OutsideSignal => ProcessTerminated, Certain: "QEMU or the kernel names the signal and its sender.";
        "H5" WeAskedDestroy => AdminDestroyed, Probable: "Our destroy, told as a shutdown.";
        "H6" MonitorLost => MonitorQuit, Probable: "The monitor broke off without a signal: a quit command does that.";
        "H7" _ => ProcessTerminated, Probable: "The host's side ended it, and the sender is unknown.";
    }
    ShutdownUnspoken {
        "U1" SignalThenNewBoot => HostShutdown, Probable: "A signal, no farewell of libvirt, and a new boot.";
        "U2" Hibernating => GuestHibernated, Probable: "The guest said that it suspends to disk.";
        "U3" WatchdogShutdown => WatchdogShutdown, Probable: "The watchdog had asked.";
        "U4" InitSignal => HostShutdown, Probable: "Init ends processes when the host goes down.";
        "U5" OutsideSignal => ProcessTerminated, Probable: "QEMU or the kernel names the signal and its sender.";
        "U6" WeAskedShutdown => AdminShutdown, Probable: "A manager had asked through us.";
        "U7" HostGoingDown => HostShutdown, Probable: "The host was going down.";
        "U8" ButtonPressed => OtherShutdown, Probable: "The power button had been pressed, and not by us.";
        "U9" _ => GuestPoweroff, Probable: "An orderly shutdown without another trace is the guest's own, as a rule.";
    }
    Destroyed {
        "D1" WeAskedDestroyAtStart => DestroyedAtStart, Certain: "A manager destroyed it through us before it was up.";
        "D2" WeForcedOff => AdminForcedOff, Certain: "Our own last step of a shutdown.";
        "D3" WeAskedDestroy => AdminDestroyed, Certain: "A manager destroyed it through us.";
        "D4" PostcopyFailed => PostcopyFailed, Probable: "Its post-copy migration had failed and it was cleaned up.";
        "D5" PausedLong => PausedTooLong, Probable: "An I/O error had paused it for long.";
        "D6" _ => OutsideDestroyed, Certain: "libvirt was told to destroy it, and not by us.";
    }
    Crashed {
        "C1" Panicked => GuestPanic, Certain: "The panic device fired, and on_crash ended it.";
        "C2" _ => CoreDumped, Probable: "libvirt calls it crashed without a panic: a dump with the order to crash.";
    }
    Migrated {
        "M1" _ => MigratedAway, Certain: "libvirt says so.";
    }
    Saved {
        "V1" ManagedImage => ManagedSaved, Certain: "libvirt saved it and keeps the image.";
        "V2" NoManagedImage => SavedToFile, Certain: "libvirt saved it and keeps no image of its own.";
        "V3" _ => SavedToFile, Probable: "libvirt saved it; whether it keeps the image is not known.";
    }
    Failed {
        "F1" WeAskedDestroy => AdminDestroyed, Probable: "The process was gone while our destroy was on its way.";
        "F2" WeForcedOff => AdminForcedOff, Probable: "The process was gone while our force was on its way.";
        "F3" IncomingUnfinished => IncomingMigrationFailed, Certain: "It came by migration and was never handed over.";
        "F4" PostcopyFailed => PostcopyFailed, Probable: "Its post-copy migration had failed.";
        "F5" WatchdogPoweredOff => WatchdogPoweroff, Certain: "The watchdog powers off without a shutdown.";
        "F6" OomKilled => OomKilled, Certain: "The kernel names the process.";
        "F15" KilledBySender => ProcessKilled, Certain: "The kernel saw who sent SIGKILL.";
        "F16" KilledByKernel => OomKilled, Probable: "The kernel itself sent SIGKILL, as it does when memory runs out, but said no word.";
        "F17" KilledByLibvirt => ProcessLost, Probable: "libvirt itself sent SIGKILL, and does not say why.";
        "F18" FaultBySender => ProcessTerminated, Certain: "The kernel saw another process send the signal.";
        "F19" FaultRaised => QemuCrashed, Certain: "The kernel saw QEMU's own fault, or its abort.";
        "F21" GuestExited => GuestExit, Certain: "QEMU's status is one that its guest chose, by a device that its definition has for it.";
        "F7" HostGoingDown => HostShutdown, Probable: "The host was going down.";
        "F8" InitSignal => HostShutdown, Probable: "Init ends processes when the host goes down.";
        "F9" OutsideSignal => ProcessTerminated, Probable: "QEMU or the kernel names the signal and its sender.";
        "F10" KilledHard => ProcessKilled, Probable: "SIGKILL, and no word of a lack of memory.";
        "F11" FaultSignal => QemuCrashed, Probable: "The signal of a fault ended it, and nobody saw another process send it.";
        "F12" OtherSignal => ProcessTerminated, Certain: "A signal ended it.";
        "F22" GuestMayHaveExited => GuestExit, Probable: "Its guest can end QEMU with this status, and QEMU uses it for its own errors as well.";
        "F13" ExitedWithError => QemuFailed, Certain: "QEMU gave up with an error.";
        "F20" LeftCleanly => MonitorQuit, Probable: "QEMU ended by itself in good order, and its log names no signal: a quit command does that.";
        "F14" _ => ProcessLost, Probable: "The process vanished and left no word.";
    }
    FromSnapshot {
        "R1" NextFromSnapshot => SnapshotReverted, Certain: "The next run began from a snapshot at once.";
        "R2" _ => SnapshotStopped, Probable: "A snapshot operation left it off.";
    }
    StoppedOther {
        "O1" _ => UnknownEnded, Unknown: "libvirt gave a detail that this version does not know.";
    }
    NotStarted {
        "B1" WeAskedDestroy => DestroyedAtStart, Certain: "A manager destroyed it through us before it was up.";
        "B6" OomKilled => StartFailed, Certain: "The kernel ran out of memory and names QEMU's process, which had not come up.";
        "B7" KilledAtStart => StartFailed, Probable: "A signal ended QEMU before it was up.";
        "B2" ManagedImage => RestoreFailed, Probable: "A saved image was there, so the start was a restore.";
        "B3" StartRefused => StartFailed, Certain: "libvirt said why.";
        "B4" LogSpeaks => StartFailed, Probable: "QEMU said why in its log.";
        "B5" _ => StartFailedSilent, Probable: "Neither libvirt nor QEMU said why.";
    }
    FoundCrashed {
        "X1" WeAskedDestroy => AdminDestroyed, Probable: "Our destroy was on its way when we stopped hearing.";
        "X2" OomKilled => OomKilled, Probable: "The kernel names the process.";
        "X12" KilledBySender => ProcessKilled, Probable: "The kernel saw who sent SIGKILL.";
        "X13" KilledByKernel => OomKilled, Probable: "The kernel itself sent SIGKILL, as it does when memory runs out.";
        "X14" FaultBySender => ProcessTerminated, Probable: "The kernel saw another process send the signal.";
        "X15" FaultRaised => QemuCrashed, Probable: "The kernel saw QEMU's own fault, or its abort.";
        "X3" InitSignal => HostShutdown, Probable: "Init ends processes when the host goes down.";
        "X4" OutsideSignal => ProcessTerminated, Probable: "libvirt, when it comes back, calls this crashed as well.";
        "X5" KilledHard => ProcessKilled, Probable: "SIGKILL, and no word of a lack of memory.";
        "X6" FaultSignal => QemuCrashed, Probable: "The signal of a fault ended it.";
        "X7" OtherSignal => ProcessTerminated, Probable: "A signal ended it.";
        "X16" GuestExited => GuestExit, Probable: "QEMU's status is one that its guest chose.";
        "X17" GuestMayHaveExited => GuestExit, Probable: "Its guest can end QEMU with this status.";
        "X8" ExitedWithError => QemuFailed, Probable: "QEMU gave up with an error.";
        "X9" Panicked => GuestPanic, Probable: "The panic device had fired.";
        "X11" EndedByLibvirt => GuestPanic, Probable: "libvirt called it crashed and had to end its process: the guest had crashed, not QEMU.";
        "X10" _ => ProcessLost, Probable: "libvirt found the process gone.";
    }
    FoundKilledByLibvirt {
        "K2" OomKilled => OomKilled, Probable: "The kernel names the process.";
        "K3" OutsideSignal => ProcessTerminated, Probable: "QEMU names the signal and its sender, and it is not libvirt.";
        "K4" KilledSooner => ProcessKilled, Probable: "SIGKILL, sooner than libvirt sends it: it could not take over what was gone.";
        "K5" FaultSignal => QemuCrashed, Probable: "QEMU's own fault dumped its core, and libvirt could not take over what was gone.";
        "K1" _ => KilledByLibvirt, Probable: "libvirt says that it could not take it over again.";
    }
    FoundMute {
        "N1" WeAskedDestroy => AdminDestroyed, Probable: "Our destroy was on its way when we stopped hearing.";
        "N2" WeForcedOff => AdminForcedOff, Probable: "Our force was on its way when we stopped hearing.";
        "N3" OomKilled => OomKilled, Probable: "The kernel names the process.";
        "N17" KilledBySender => ProcessKilled, Probable: "The kernel saw who sent SIGKILL.";
        "N18" KilledByKernel => OomKilled, Probable: "The kernel itself sent SIGKILL, as it does when memory runs out.";
        "N19" FaultBySender => ProcessTerminated, Probable: "The kernel saw another process send the signal.";
        "N20" FaultRaised => QemuCrashed, Probable: "The kernel saw QEMU's own fault, or its abort.";
        "N4" SignalThenNewBoot => HostShutdown, Probable: "A signal, no farewell of libvirt, and a new boot.";
        "N5" HostGoingDown => HostShutdown, Probable: "The host was going down.";
        "N6" NewBoot => HostLost, Probable: "It ran, the host booted anew, and nothing says goodbye.";
        "N7" InitSignal => HostShutdown, Probable: "Init ends processes when the host goes down.";
        "N8" OutsideSignal => ProcessTerminated, Probable: "QEMU or the kernel names the signal and its sender.";
        "N9" KilledHard => ProcessKilled, Probable: "SIGKILL, and no word of a lack of memory.";
        "N10" FaultSignal => QemuCrashed, Probable: "The signal of a fault ended it.";
        "N11" OtherSignal => ProcessTerminated, Probable: "A signal ended it.";
        "N21" GuestExited => GuestExit, Probable: "QEMU's status is one that its guest chose.";
        "N22" GuestMayHaveExited => GuestExit, Probable: "Its guest can end QEMU with this status.";
        "N12" ExitedWithError => QemuFailed, Probable: "QEMU gave up with an error.";
        "N13" WeAskedShutdown => AdminShutdown, Probable: "A manager had asked through us.";
        "N14" GuestHadBegun => GuestPoweroff, Probable: "The guest had begun to shut down when we stopped hearing.";
        "N15" Gone => UnknownVanished, Unknown: "It is gone, and nothing says how.";
        "N16" _ => UnknownEnded, Unknown: "It is off, and nothing says how.";
    }
}

/// The row for a setting, where `seen` answers the clues.
pub fn choose(setting: Setting, seen: impl Fn(Clue) -> bool) -> &'static Row {
    ROWS.iter()
        .filter(|row| row.setting == setting)
        .find(|row| row.clue.is_none_or(&seen))
        .expect("every setting ends in a row without a clue, which a test holds")
}

impl Row {
    /// Whether nothing that may still come can put another row of its setting in its place: its clue, and those of all
    /// rows before it, stand on what is heard before the end or never.
    pub fn is_settled(&self) -> bool {
        ROWS.iter()
            .filter(|row| row.setting == self.setting)
            .take_while(|row| row.label != self.label)
            .chain([self])
            .all(|row| row.clue.is_some_and(Clue::is_heard_before_the_end))
    }
}
