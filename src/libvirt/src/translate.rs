//! libvirt's numbers and QEMU's words -> ours. Pure. A number that this program does not know becomes `Other` with
//! that number, never a neighbour's word.

use std::os::raw::c_int;

use serde_json::Value;
use virt_sys as sys;
use whydown_core::hypervisor::{
    CrashDetail, DomainState, Happening, IoErrorAction, JobOperation, PauseReason, PmDetail, QemuReason,
    ResumeDetail, ShutOffReason, ShutdownDetail, StartDetail, StopDetail, SuspendDetail, WatchdogAction,
};

/// Bytes of the JSON details of one QEMU event that are parsed. The ones wanted here have below 200.
const QMP_DETAIL_BYTES: usize = 16 * 1024;

/// Whether this is QEMU's word that a guest was asked already to give a device up. libvirt has no number for it.
pub(crate) fn is_leaving_already(text: &str) -> bool {
    text.contains("is already in the process of unplug")
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident -> $word:ident { $($number:ident => $variant:ident),* $(,)? }) => {
        $(#[$meta])*
        pub(crate) fn $name(number: c_int) -> $word {
            $(const $number: c_int = sys::$number as c_int;)*
            match number {
                $($number => $word::$variant,)*
                other => $word::Other(other),
            }
        }
    };
}

words!(
    /// `virDomainPausedReason`.
    pause_reason -> PauseReason {
        VIR_DOMAIN_PAUSED_UNKNOWN => Unknown,
        VIR_DOMAIN_PAUSED_USER => User,
        VIR_DOMAIN_PAUSED_MIGRATION => Migration,
        VIR_DOMAIN_PAUSED_SAVE => Save,
        VIR_DOMAIN_PAUSED_DUMP => Dump,
        VIR_DOMAIN_PAUSED_IOERROR => IoError,
        VIR_DOMAIN_PAUSED_WATCHDOG => Watchdog,
        VIR_DOMAIN_PAUSED_FROM_SNAPSHOT => FromSnapshot,
        VIR_DOMAIN_PAUSED_SHUTTING_DOWN => ShuttingDown,
        VIR_DOMAIN_PAUSED_SNAPSHOT => Snapshot,
        VIR_DOMAIN_PAUSED_CRASHED => Crashed,
        VIR_DOMAIN_PAUSED_STARTING_UP => StartingUp,
        VIR_DOMAIN_PAUSED_POSTCOPY => Postcopy,
        VIR_DOMAIN_PAUSED_POSTCOPY_FAILED => PostcopyFailed,
    }
);

words!(
    /// `virDomainShutoffReason`.
    shut_off_reason -> ShutOffReason {
        VIR_DOMAIN_SHUTOFF_UNKNOWN => Unknown,
        VIR_DOMAIN_SHUTOFF_SHUTDOWN => Shutdown,
        VIR_DOMAIN_SHUTOFF_DESTROYED => Destroyed,
        VIR_DOMAIN_SHUTOFF_CRASHED => Crashed,
        VIR_DOMAIN_SHUTOFF_MIGRATED => Migrated,
        VIR_DOMAIN_SHUTOFF_SAVED => Saved,
        VIR_DOMAIN_SHUTOFF_FAILED => Failed,
        VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT => FromSnapshot,
        VIR_DOMAIN_SHUTOFF_DAEMON => Daemon,
    }
);

words!(
    /// `virDomainEventStartedDetailType`.
    start_detail -> StartDetail {
        VIR_DOMAIN_EVENT_STARTED_BOOTED => Booted,
        VIR_DOMAIN_EVENT_STARTED_MIGRATED => Migrated,
        VIR_DOMAIN_EVENT_STARTED_RESTORED => Restored,
        VIR_DOMAIN_EVENT_STARTED_FROM_SNAPSHOT => FromSnapshot,
        VIR_DOMAIN_EVENT_STARTED_WAKEUP => Wakeup,
    }
);

words!(
    /// `virDomainEventSuspendedDetailType`.
    suspend_detail -> SuspendDetail {
        VIR_DOMAIN_EVENT_SUSPENDED_PAUSED => Paused,
        VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED => Migrated,
        VIR_DOMAIN_EVENT_SUSPENDED_IOERROR => IoError,
        VIR_DOMAIN_EVENT_SUSPENDED_WATCHDOG => Watchdog,
        VIR_DOMAIN_EVENT_SUSPENDED_RESTORED => Restored,
        VIR_DOMAIN_EVENT_SUSPENDED_FROM_SNAPSHOT => FromSnapshot,
        VIR_DOMAIN_EVENT_SUSPENDED_API_ERROR => ApiError,
        VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY => Postcopy,
        VIR_DOMAIN_EVENT_SUSPENDED_POSTCOPY_FAILED => PostcopyFailed,
    }
);

words!(
    /// `virDomainEventResumedDetailType`.
    resume_detail -> ResumeDetail {
        VIR_DOMAIN_EVENT_RESUMED_UNPAUSED => Unpaused,
        VIR_DOMAIN_EVENT_RESUMED_MIGRATED => Migrated,
        VIR_DOMAIN_EVENT_RESUMED_FROM_SNAPSHOT => FromSnapshot,
        VIR_DOMAIN_EVENT_RESUMED_POSTCOPY => Postcopy,
        VIR_DOMAIN_EVENT_RESUMED_POSTCOPY_FAILED => PostcopyFailed,
    }
);

words!(
    /// `virDomainEventStoppedDetailType`.
    stop_detail -> StopDetail {
        VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN => Shutdown,
        VIR_DOMAIN_EVENT_STOPPED_DESTROYED => Destroyed,
        VIR_DOMAIN_EVENT_STOPPED_CRASHED => Crashed,
        VIR_DOMAIN_EVENT_STOPPED_MIGRATED => Migrated,
        VIR_DOMAIN_EVENT_STOPPED_SAVED => Saved,
        VIR_DOMAIN_EVENT_STOPPED_FAILED => Failed,
        VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT => FromSnapshot,
    }
);

words!(
    /// `virDomainEventShutdownDetailType`.
    shutdown_detail -> ShutdownDetail {
        VIR_DOMAIN_EVENT_SHUTDOWN_FINISHED => Finished,
        VIR_DOMAIN_EVENT_SHUTDOWN_GUEST => Guest,
        VIR_DOMAIN_EVENT_SHUTDOWN_HOST => Host,
    }
);

words!(
    /// `virDomainEventCrashedDetailType`.
    crash_detail -> CrashDetail {
        VIR_DOMAIN_EVENT_CRASHED_PANICKED => Panicked,
        VIR_DOMAIN_EVENT_CRASHED_CRASHLOADED => CrashLoaded,
    }
);

words!(
    /// `virDomainEventPMSuspendedDetailType`.
    pm_detail -> PmDetail {
        VIR_DOMAIN_EVENT_PMSUSPENDED_MEMORY => Memory,
        VIR_DOMAIN_EVENT_PMSUSPENDED_DISK => Disk,
    }
);

words!(
    /// `virDomainEventWatchdogAction`.
    watchdog_action -> WatchdogAction {
        VIR_DOMAIN_EVENT_WATCHDOG_NONE => Ignore,
        VIR_DOMAIN_EVENT_WATCHDOG_PAUSE => Pause,
        VIR_DOMAIN_EVENT_WATCHDOG_RESET => Reset,
        VIR_DOMAIN_EVENT_WATCHDOG_POWEROFF => PowerOff,
        VIR_DOMAIN_EVENT_WATCHDOG_SHUTDOWN => Shutdown,
        VIR_DOMAIN_EVENT_WATCHDOG_DEBUG => Debug,
        VIR_DOMAIN_EVENT_WATCHDOG_INJECTNMI => InjectNmi,
    }
);

words!(
    /// `virDomainEventIOErrorAction`.
    io_error_action -> IoErrorAction {
        VIR_DOMAIN_EVENT_IO_ERROR_NONE => Ignore,
        VIR_DOMAIN_EVENT_IO_ERROR_PAUSE => Pause,
        VIR_DOMAIN_EVENT_IO_ERROR_REPORT => Report,
    }
);

words!(
    /// `virDomainJobOperation`.
    job_operation -> JobOperation {
        VIR_DOMAIN_JOB_OPERATION_UNKNOWN => Unknown,
        VIR_DOMAIN_JOB_OPERATION_START => Start,
        VIR_DOMAIN_JOB_OPERATION_SAVE => Save,
        VIR_DOMAIN_JOB_OPERATION_RESTORE => Restore,
        VIR_DOMAIN_JOB_OPERATION_MIGRATION_IN => MigrationIn,
        VIR_DOMAIN_JOB_OPERATION_MIGRATION_OUT => MigrationOut,
        VIR_DOMAIN_JOB_OPERATION_SNAPSHOT => Snapshot,
        VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_REVERT => SnapshotRevert,
        VIR_DOMAIN_JOB_OPERATION_DUMP => Dump,
        VIR_DOMAIN_JOB_OPERATION_BACKUP => Backup,
        VIR_DOMAIN_JOB_OPERATION_SNAPSHOT_DELETE => SnapshotDelete,
    }
);

/// `virDomainState` with the reason that belongs to it.
pub(crate) fn domain_state(state: c_int, reason: c_int) -> DomainState {
    match u32::try_from(state) {
        Ok(sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED) => DomainState::Running,
        Ok(sys::VIR_DOMAIN_PAUSED) => DomainState::Paused(pause_reason(reason)),
        Ok(sys::VIR_DOMAIN_SHUTDOWN) => DomainState::ShuttingDown,
        Ok(sys::VIR_DOMAIN_SHUTOFF) => DomainState::ShutOff(shut_off_reason(reason)),
        Ok(sys::VIR_DOMAIN_CRASHED) => DomainState::Crashed,
        Ok(sys::VIR_DOMAIN_PMSUSPENDED) => DomainState::PmSuspended,
        _ => DomainState::Other(state, reason),
    }
}

/// A lifecycle event with its detail; `None` for an event number that this program has no word for.
pub(crate) fn lifecycle(event: c_int, detail: c_int) -> Option<Happening> {
    Some(match u32::try_from(event).ok()? {
        sys::VIR_DOMAIN_EVENT_DEFINED => Happening::Defined,
        sys::VIR_DOMAIN_EVENT_UNDEFINED => {
            Happening::Undefined { renamed: detail == sys::VIR_DOMAIN_EVENT_UNDEFINED_RENAMED as c_int }
        }
        sys::VIR_DOMAIN_EVENT_STARTED => Happening::Started(start_detail(detail)),
        sys::VIR_DOMAIN_EVENT_SUSPENDED => Happening::Suspended(suspend_detail(detail)),
        sys::VIR_DOMAIN_EVENT_RESUMED => Happening::Resumed(resume_detail(detail)),
        sys::VIR_DOMAIN_EVENT_STOPPED => Happening::Stopped(stop_detail(detail)),
        sys::VIR_DOMAIN_EVENT_SHUTDOWN => Happening::ShutdownBegan(shutdown_detail(detail)),
        sys::VIR_DOMAIN_EVENT_PMSUSPENDED => Happening::PmSuspended(pm_detail(detail)),
        sys::VIR_DOMAIN_EVENT_CRASHED => Happening::GuestCrashed(crash_detail(detail)),
        _ => return None,
    })
}

/// An agent lifecycle state; `None` for one that this program does not know.
pub(crate) fn agent(state: c_int) -> Option<Happening> {
    match u32::try_from(state).ok()? {
        sys::VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_CONNECTED => {
            Some(Happening::Agent { connected: true })
        }
        sys::VIR_CONNECT_DOMAIN_EVENT_AGENT_LIFECYCLE_STATE_DISCONNECTED => {
            Some(Happening::Agent { connected: false })
        }
        _ => None,
    }
}

/// `virDomainMemoryFailureActionType`.
pub(crate) fn memory_failure(action: c_int) -> Happening {
    Happening::MemoryFailure { fatal: action == sys::VIR_DOMAIN_EVENT_MEMORY_FAILURE_ACTION_FATAL as c_int }
}

/// The raw QEMU events that tell more than libvirt's own, as one expression for libvirt's filter.
pub(crate) const QMP_WANTED: &std::ffi::CStr = c"^(SHUTDOWN|RESET|POWERDOWN|GUEST_PANICKED)$";

/// A raw QEMU event; `None` for one that was not asked for. Details that are missing, too long or not as expected
/// read as "QEMU did not say": `guest` false and reason `Other`.
pub(crate) fn qmp(event: &str, details: Option<&str>) -> Option<Happening> {
    let details: Value = details
        .filter(|text| text.len() <= QMP_DETAIL_BYTES)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or(Value::Null);
    let guest = details.get("guest").and_then(Value::as_bool).unwrap_or(false);
    let reason = || qemu_reason(details.get("reason").and_then(Value::as_str).unwrap_or(""));
    match event {
        "SHUTDOWN" => Some(Happening::QemuShutdown { guest, reason: reason() }),
        "RESET" => Some(Happening::QemuReset { guest, reason: reason() }),
        "POWERDOWN" => Some(Happening::QemuPowerdown),
        "GUEST_PANICKED" => Some(Happening::QemuPanicked),
        _ => None,
    }
}

fn qemu_reason(word: &str) -> QemuReason {
    match word {
        "guest-shutdown" => QemuReason::GuestShutdown,
        "guest-reset" => QemuReason::GuestReset,
        "guest-panic" => QemuReason::GuestPanic,
        "host-error" => QemuReason::HostError,
        "host-qmp-quit" => QemuReason::HostQmpQuit,
        "host-qmp-system-reset" => QemuReason::HostQmpSystemReset,
        "host-signal" => QemuReason::HostSignal,
        "host-ui" => QemuReason::HostUi,
        "subsystem-reset" => QemuReason::SubsystemReset,
        "snapshot-load" => QemuReason::SnapshotLoad,
        _ => QemuReason::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_was_asked_already_is_asked() {
        let qemu = |why: &str| format!("internal error: unable to execute QEMU command 'device_del': {why}");
        assert!(is_leaving_already(&qemu("Device net1 is already in the process of unplug")));
        assert!(!is_leaving_already(&qemu("Device 'net1' not found")));
        assert!(!is_leaving_already(&qemu("Bus 'pci.0' does not support hotplugging")));
    }

    #[test]
    fn known_numbers_become_words_and_unknown_ones_keep_their_number() {
        assert_eq!(lifecycle(5, 0), Some(Happening::Stopped(StopDetail::Shutdown)));
        assert_eq!(lifecycle(5, 5), Some(Happening::Stopped(StopDetail::Failed)));
        assert_eq!(lifecycle(5, 6), Some(Happening::Stopped(StopDetail::FromSnapshot)));
        assert_eq!(lifecycle(5, 7), Some(Happening::Stopped(StopDetail::Other(7))));
        assert_eq!(lifecycle(5, -1), Some(Happening::Stopped(StopDetail::Other(-1))));
        assert_eq!(lifecycle(6, 1), Some(Happening::ShutdownBegan(ShutdownDetail::Guest)));
        assert_eq!(lifecycle(6, 2), Some(Happening::ShutdownBegan(ShutdownDetail::Host)));
        assert_eq!(lifecycle(8, 0), Some(Happening::GuestCrashed(CrashDetail::Panicked)));
        assert_eq!(lifecycle(1, 1), Some(Happening::Undefined { renamed: true }));
        assert_eq!(lifecycle(1, 0), Some(Happening::Undefined { renamed: false }));
        assert_eq!(lifecycle(2, 99), Some(Happening::Started(StartDetail::Other(99))));
        assert_eq!(lifecycle(9, 0), None);
        assert_eq!(lifecycle(-1, 0), None);
    }

    #[test]
    fn a_state_carries_the_reason_of_its_own_kind() {
        assert_eq!(domain_state(1, 1), DomainState::Running);
        assert_eq!(domain_state(2, 0), DomainState::Running);
        assert_eq!(domain_state(3, 5), DomainState::Paused(PauseReason::IoError));
        assert_eq!(domain_state(3, 14), DomainState::Paused(PauseReason::Other(14)));
        assert_eq!(domain_state(4, 1), DomainState::ShuttingDown);
        assert_eq!(domain_state(5, 3), DomainState::ShutOff(ShutOffReason::Crashed));
        assert_eq!(domain_state(5, 8), DomainState::ShutOff(ShutOffReason::Daemon));
        assert_eq!(domain_state(6, 1), DomainState::Crashed);
        assert_eq!(domain_state(7, 0), DomainState::PmSuspended);
        for (state, reason) in [(0, 0), (8, 0), (-1, -1), (i32::MIN, 7)] {
            assert_eq!(domain_state(state, reason), DomainState::Other(state, reason));
        }
    }

    #[test]
    fn qemus_reason_is_read_and_what_it_did_not_say_is_not_invented() {
        assert_eq!(
            qmp("SHUTDOWN", Some(r#"{"guest":true,"reason":"guest-reset"}"#)),
            Some(Happening::QemuShutdown { guest: true, reason: QemuReason::GuestReset })
        );
        assert_eq!(
            qmp("RESET", Some(r#"{"guest":false,"reason":"host-qmp-system-reset"}"#)),
            Some(Happening::QemuReset { guest: false, reason: QemuReason::HostQmpSystemReset })
        );
        let silent = Some(Happening::QemuShutdown { guest: false, reason: QemuReason::Other });
        let long = format!(r#"{{"guest":true,"pad":"{}"}}"#, "x".repeat(QMP_DETAIL_BYTES));
        for details in
            [None, Some(""), Some("["), Some("7"), Some(r#"{"guest":"yes","reason":3}"#), Some(&long)]
        {
            assert_eq!(qmp("SHUTDOWN", details), silent, "{details:?}");
        }
        assert_eq!(qmp("POWERDOWN", None), Some(Happening::QemuPowerdown));
        assert_eq!(qmp("GUEST_PANICKED", Some(r#"{"action":"pause"}"#)), Some(Happening::QemuPanicked));
        assert_eq!(qmp("RTC_CHANGE", None), None);
    }

    #[test]
    fn the_other_numbers_follow_libvirts_own_constants() {
        assert_eq!(watchdog_action(3), WatchdogAction::PowerOff);
        assert_eq!(watchdog_action(7), WatchdogAction::Other(7));
        assert_eq!(io_error_action(1), IoErrorAction::Pause);
        assert_eq!(io_error_action(3), IoErrorAction::Other(3));
        assert_eq!(job_operation(2), JobOperation::Save);
        assert_eq!(job_operation(11), JobOperation::Other(11));
        assert_eq!(agent(1), Some(Happening::Agent { connected: true }));
        assert_eq!(agent(2), Some(Happening::Agent { connected: false }));
        assert_eq!(agent(0), None);
        assert_eq!(memory_failure(2), Happening::MemoryFailure { fatal: true });
        assert_eq!(memory_failure(1), Happening::MemoryFailure { fatal: false });
    }
}
