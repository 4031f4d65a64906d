//! What each cause needs to be told from the others: the one table that the doctor reads.

use whydown_core::cause::Cause;

/// Something that must be there for a cause to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    /// The link to libvirt: what ends while it is away is found afterwards, as probable.
    Link,
    /// The ledger: what managers asked for survives our own restart only there.
    Ledger,
    /// QEMU's own events, through libvirt's QEMU driver.
    QemuEvents,
    /// QEMU's log.
    QemuLog,
    /// Exit statuses of QEMU.
    ExitStatus,
    /// Who sends signals.
    Signals,
    /// The kernel's log.
    KernelLog,
    /// systemd's or logind's word that the host goes down.
    Systemd,
    /// A panic device in the VM.
    PanicDevice,
    /// A definition that libvirt keeps when the VM is off.
    Persistent,
    /// No agent through which another client can ask without a trace.
    NoAgent,
}

impl Need {
    /// All of them, in the order in which they are told.
    #[cfg(test)]
    pub const ALL: [Self; 11] = [
        Self::Link,
        Self::Ledger,
        Self::QemuEvents,
        Self::QemuLog,
        Self::ExitStatus,
        Self::Signals,
        Self::KernelLog,
        Self::Systemd,
        Self::PanicDevice,
        Self::Persistent,
        Self::NoAgent,
    ];

    /// The causes that cannot be told from others without it.
    pub fn causes(self) -> impl Iterator<Item = Cause> {
        Cause::ALL.iter().copied().filter(move |cause| needs(*cause).contains(&self))
    }
}

/// What this cause needs. Empty: it says itself that nothing is known.
pub const fn needs(cause: Cause) -> &'static [Need] {
    use Need::*;
    match cause {
        Cause::GuestPoweroff => &[Link, QemuEvents, Systemd, NoAgent],
        Cause::OtherShutdown => &[Link, QemuEvents, NoAgent],
        Cause::GuestHibernated | Cause::WatchdogPoweroff | Cause::WatchdogShutdown => &[Link],
        Cause::DestroyedOnReboot => &[Link, QemuEvents, PanicDevice],
        Cause::GuestPanic => &[Link, PanicDevice],
        Cause::AdminShutdown | Cause::AdminForcedOff | Cause::AdminDestroyed | Cause::DestroyedAtStart => {
            &[Link, Ledger]
        }
        Cause::OutsideDestroyed => &[Link, Ledger, Persistent],
        Cause::MigratedAway | Cause::ManagedSaved | Cause::SavedToFile => &[Link, Persistent],
        Cause::SnapshotReverted | Cause::SnapshotStopped => &[Link],
        Cause::PausedTooLong | Cause::CoreDumped => &[Link],
        Cause::ProcessLost => &[Link, ExitStatus],
        Cause::ProcessKilled | Cause::OomKilled => &[Link, ExitStatus, Signals, KernelLog],
        Cause::QemuCrashed | Cause::LimitReached => &[Link, ExitStatus, Signals],
        Cause::GuestExit => &[Link, ExitStatus],
        Cause::QemuFailed => &[Link, QemuLog, ExitStatus],
        Cause::ProcessTerminated => &[Link, QemuLog, ExitStatus, Signals, Systemd],
        Cause::WindowClosed => &[Link, QemuEvents],
        Cause::MonitorQuit => &[Link, QemuEvents, QemuLog],
        Cause::HostShutdown => &[Link, QemuLog, Systemd],
        Cause::HostLost => &[Ledger, QemuLog],
        Cause::StartFailed | Cause::StartFailedSilent | Cause::RestoreFailed => &[Link, QemuLog, Persistent],
        Cause::IncomingMigrationFailed | Cause::PostcopyFailed => &[Link],
        Cause::KilledByLibvirt => &[QemuLog, Persistent],
        Cause::UnknownEnded | Cause::UnknownVanished => &[],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_cause_is_mentioned_or_needs_nothing_on_purpose() {
        let mentioned: BTreeSet<Cause> = Need::ALL.into_iter().flat_map(Need::causes).collect();
        let nothing: Vec<Cause> =
            Cause::ALL.iter().copied().filter(|cause| !mentioned.contains(cause)).collect();
        assert_eq!(nothing, [Cause::UnknownEnded, Cause::UnknownVanished]);
        for cause in Cause::ALL.iter().copied() {
            assert!(needs(cause).iter().all(|need| Need::ALL.contains(need)), "{cause:?}");
            assert!(needs(cause).is_sorted() && !cause.row().word.is_empty(), "{cause:?}");
        }
    }

    #[test]
    fn without_any_need_at_least_two_causes_look_alike_or_one_is_lost() {
        for need in Need::ALL {
            assert!(need.causes().next().is_some(), "{need:?} is needed for nothing");
        }
    }
}
