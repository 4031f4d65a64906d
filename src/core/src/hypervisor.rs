//! The port: what a hypervisor shows and what it can be asked. Words only; libvirt's numbers stay in their room.
//!
//! Every enum that mirrors a libvirt enumeration has an `Other` variant that keeps the number, because a newer libvirt
//! may say more than this program knows. `Other` is never taken for a known word.

use serde::{Deserialize, Serialize};

use crate::id::DomainId;
use crate::time::Wall;

/// Which domain an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainRef {
    /// The identity.
    pub id: DomainId,
    /// The name at that moment; it may change.
    pub name: String,
    /// libvirt's number of the active domain, where it is active.
    pub libvirt_id: Option<u32>,
}

/// The QEMU process of a run. Both numbers together are never used twice within one boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Process {
    /// Process id on the host.
    pub pid: u32,
    /// Start time in clock ticks since boot: field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
}

/// A domain as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainView {
    /// Which one; `libvirt_id` is there exactly when the domain is active.
    pub domain: DomainRef,
    /// State and reason.
    pub state: DomainState,
    /// Whether libvirt keeps its definition when it is off.
    pub persistent: bool,
    /// Whether a managed save image waits; `None` if that could not be read.
    pub managed_save: Option<bool>,
    /// The process, where it runs on this host and could be identified.
    pub process: Option<Process>,
}

/// `virDomainState` with its reason, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DomainState {
    /// Running or blocked on a resource.
    Running,
    /// Its CPUs are stopped.
    Paused(PauseReason),
    /// The guest is shutting down, or QEMU waits to be ended.
    ShuttingDown,
    /// Not running.
    ShutOff(ShutOffReason),
    /// The guest panicked and is kept as it was.
    Crashed,
    /// Suspended to memory by the guest.
    PmSuspended,
    /// A state that this program does not know: state and reason numbers.
    Other(i32, i32),
}

impl DomainState {
    /// Whether a process stands behind the domain.
    pub fn is_active(self) -> bool {
        !matches!(self, Self::ShutOff(_) | Self::Other(..))
    }
}

macro_rules! mirrored {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum $name {
            $($(#[$vmeta])* $variant,)*
            /// A number that this program has no word for.
            Other(i32),
        }
    };
}

mirrored!(
    /// Why a domain is paused (`virDomainPausedReason`).
    PauseReason {
        /// libvirt gives no reason. QEMU's internal errors look like this.
        Unknown,
        /// A client asked.
        User,
        /// Outgoing migration.
        Migration,
        /// Being saved.
        Save,
        /// Being dumped.
        Dump,
        /// An I/O error.
        IoError,
        /// The watchdog.
        Watchdog,
        /// Restored from a snapshot.
        FromSnapshot,
        /// The guest is shutting down.
        ShuttingDown,
        /// A snapshot is being taken.
        Snapshot,
        /// The guest crashed.
        Crashed,
        /// Being started.
        StartingUp,
        /// Post-copy migration, running elsewhere.
        Postcopy,
        /// Post-copy migration that failed.
        PostcopyFailed,
    }
);

mirrored!(
    /// Why a domain is off (`virDomainShutoffReason`). libvirt forgets it when it restarts.
    ShutOffReason {
        /// Not known, or forgotten.
        Unknown,
        /// An orderly shutdown.
        Shutdown,
        /// Destroyed by a client.
        Destroyed,
        /// The guest crashed, or QEMU vanished: libvirt uses one word for both.
        Crashed,
        /// Migrated away.
        Migrated,
        /// Saved.
        Saved,
        /// The start failed.
        Failed,
        /// Left off by a snapshot operation.
        FromSnapshot,
        /// libvirt killed it when it could not reconnect.
        Daemon,
    }
);

mirrored!(
    /// Detail of a start.
    StartDetail {
        /// A normal boot.
        Booted,
        /// An incoming migration.
        Migrated,
        /// From a saved state.
        Restored,
        /// From a snapshot.
        FromSnapshot,
        /// Woken up.
        Wakeup,
    }
);

mirrored!(
    /// Detail of a suspend.
    SuspendDetail {
        /// By a client.
        Paused,
        /// For migration.
        Migrated,
        /// By an I/O error.
        IoError,
        /// By the watchdog.
        Watchdog,
        /// Restored paused.
        Restored,
        /// From a paused snapshot.
        FromSnapshot,
        /// After an API error.
        ApiError,
        /// For post-copy.
        Postcopy,
        /// Post-copy failed.
        PostcopyFailed,
    }
);

mirrored!(
    /// Detail of a resume.
    ResumeDetail {
        /// By a client, or at the end of a start.
        Unpaused,
        /// An incoming migration was handed over.
        Migrated,
        /// From a snapshot.
        FromSnapshot,
        /// Post-copy.
        Postcopy,
        /// It runs on as far as its memory is there: post-copy failed on the destination.
        PostcopyFailed,
    }
);

mirrored!(
    /// Detail of STOPPED. The names are libvirt's; see `docs/concepts/endings.md` for what they hide.
    StopDetail {
        /// An orderly end, asked by whomever.
        Shutdown,
        /// Destroyed by a client.
        Destroyed,
        /// The guest crashed.
        Crashed,
        /// Migrated away.
        Migrated,
        /// Saved.
        Saved,
        /// The process is gone, or never came up. The state's reason then reads *crashed*.
        Failed,
        /// Stopped by a snapshot operation.
        FromSnapshot,
    }
);

mirrored!(
    /// Detail of SHUTDOWN: who began it.
    ShutdownDetail {
        /// An older libvirt does not say.
        Finished,
        /// Inside the guest; also the answer to a power button.
        Guest,
        /// The host: a signal, a quit command or a destroy.
        Host,
    }
);

mirrored!(
    /// Detail of a guest crash event.
    CrashDetail {
        /// The panic device fired.
        Panicked,
        /// The guest's crash kernel took over and the guest goes on.
        CrashLoaded,
    }
);

mirrored!(
    /// Detail of power management suspend.
    PmDetail {
        /// To memory.
        Memory,
        /// To disk.
        Disk,
    }
);

mirrored!(
    /// What the watchdog did.
    WatchdogAction {
        /// Nothing.
        Ignore,
        /// Paused the guest.
        Pause,
        /// Reset the guest.
        Reset,
        /// Powered it off at once.
        PowerOff,
        /// Asked the guest to shut down.
        Shutdown,
        /// Debug.
        Debug,
        /// Injected an NMI.
        InjectNmi,
    }
);

mirrored!(
    /// What QEMU did about an I/O error.
    IoErrorAction {
        /// Ignored it.
        Ignore,
        /// Paused the guest.
        Pause,
        /// Reported it to the guest.
        Report,
    }
);

mirrored!(
    /// What job was completed.
    JobOperation {
        /// Not said.
        Unknown,
        /// Start.
        Start,
        /// Save.
        Save,
        /// Restore.
        Restore,
        /// Incoming migration.
        MigrationIn,
        /// Outgoing migration.
        MigrationOut,
        /// Snapshot.
        Snapshot,
        /// Revert to a snapshot.
        SnapshotRevert,
        /// Dump.
        Dump,
        /// Backup.
        Backup,
        /// Snapshot deletion.
        SnapshotDelete,
    }
);

/// The reason that QEMU itself gives with its SHUTDOWN and RESET events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QemuReason {
    /// `guest-shutdown`.
    GuestShutdown,
    /// `guest-reset`.
    GuestReset,
    /// `guest-panic`.
    GuestPanic,
    /// `host-error`.
    HostError,
    /// `host-qmp-quit`.
    HostQmpQuit,
    /// `host-qmp-system-reset`.
    HostQmpSystemReset,
    /// `host-signal`.
    HostSignal,
    /// `host-ui`.
    HostUi,
    /// `subsystem-reset`.
    SubsystemReset,
    /// `snapshot-load`.
    SnapshotLoad,
    /// A word that this program does not know, or none.
    Other,
}

/// Something that the hypervisor reported about one domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Happening {
    /// Its persistent definition was added or changed.
    Defined,
    /// Its persistent definition was removed; a running domain goes on as transient.
    Undefined {
        /// It was only renamed.
        renamed: bool,
    },
    /// A process runs the domain. A normal start shows RESUMED *before* STARTED.
    Started(StartDetail),
    /// Its CPUs stopped.
    Suspended(SuspendDetail),
    /// Its CPUs run.
    Resumed(ResumeDetail),
    /// The end.
    Stopped(StopDetail),
    /// A shutdown began.
    ShutdownBegan(ShutdownDetail),
    /// Power management suspend.
    PmSuspended(PmDetail),
    /// The guest crashed.
    GuestCrashed(CrashDetail),
    /// The guest was reset. Firmware may reset again, so one reboot shows one to three of these.
    Rebooted,
    /// The watchdog fired.
    Watchdog(WatchdogAction),
    /// A disk request failed.
    IoError {
        /// libvirt's alias of the device, such as `virtio-disk0`.
        disk: String,
        /// What was done.
        action: IoErrorAction,
        /// libvirt's word, such as `enospc`; may be empty.
        reason: String,
    },
    /// libvirt lost control of the monitor.
    ControlError,
    /// A job was completed.
    JobCompleted(JobOperation),
    /// The guest agent connected or disconnected.
    Agent {
        /// Which of both.
        connected: bool,
    },
    /// The host's memory failed under the guest.
    MemoryFailure {
        /// Whether QEMU called it fatal.
        fatal: bool,
    },
    /// QEMU's own SHUTDOWN event. libvirt's own kill makes a second one: only the first tells.
    QemuShutdown {
        /// Whether QEMU says that the guest began it.
        guest: bool,
        /// QEMU's reason.
        reason: QemuReason,
    },
    /// QEMU's own RESET event.
    QemuReset {
        /// Whether the guest began it.
        guest: bool,
        /// QEMU's reason.
        reason: QemuReason,
    },
    /// Somebody pressed the guest's power button.
    QemuPowerdown,
    /// QEMU's panic device reported a panic.
    QemuPanicked,
}

/// A report with its domain and the time of its arrival (libvirt's events carry none).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostEvent {
    /// Which domain.
    pub domain: DomainRef,
    /// When it arrived here.
    pub at: Wall,
    /// What.
    pub what: Happening,
    /// The process behind the domain, filled in for a start where it could be identified.
    pub process: Option<Process>,
}

/// A whole listing, taken so that it includes every event delivered before it and none delivered after it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// All domains, active and inactive.
    pub domains: Vec<DomainView>,
    /// Domains that changed while the listing was taken: their absence or state here means nothing.
    pub changing: Vec<DomainId>,
    /// Of what began after this moment events tell.
    pub heard_from: Wall,
    /// Who libvirt is, where it is a process of its own and the kernel tells.
    pub server: Option<Server>,
}

/// The process that is libvirt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// Which.
    pub process: Process,
    /// Since when it has been running.
    pub since: Wall,
}
