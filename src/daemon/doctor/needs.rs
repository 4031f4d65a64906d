//! What each cause needs to be told from the others, beside the sources of evidence, which name their causes themselves:
//! [`About::causes`](whydown_witness::source::About).

use whydown_core::cause::Cause;

/// Something that must be there for a cause to be told, and is no source that runs.
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
    pub const ALL: [Self; 7] = [
        Self::Link,
        Self::Ledger,
        Self::QemuEvents,
        Self::QemuLog,
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
        Cause::GuestPoweroff => &[Link, QemuEvents, NoAgent],
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
        Cause::ProcessLost | Cause::ProcessKilled | Cause::OomKilled => &[Link],
        Cause::QemuCrashed | Cause::LimitReached | Cause::GuestExit => &[Link],
        Cause::QemuFailed | Cause::ProcessTerminated => &[Link, QemuLog],
        Cause::WindowClosed => &[Link, QemuEvents],
        Cause::MonitorQuit => &[Link, QemuEvents, QemuLog],
        Cause::HostShutdown => &[Link, QemuLog],
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

    use super::super::super::sources::ALL;
    use super::*;

    #[test]
    fn every_cause_is_mentioned_or_needs_nothing_on_purpose() {
        let sources = ALL.into_iter().filter(|about| about.needed).flat_map(|about| about.causes).copied();
        let mentioned: BTreeSet<Cause> =
            Need::ALL.into_iter().flat_map(Need::causes).chain(sources).collect();
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
