//! What readers may see: one immutable picture of all domains, shared without copying.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::hypervisor::WatchdogAction;
use crate::id::{DomainId, RunId};
use crate::record::Ending;
use crate::sample::Devices;
use crate::time::Wall;

/// What a domain is doing, in words that every audience can be told from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Asked to start, not yet running.
    Launching,
    /// Running.
    Up,
    /// Paused by request.
    Paused,
    /// Paused by an I/O error.
    PausedIoError,
    /// Being saved.
    Saving,
    /// Being restored.
    Restoring,
    /// Migrating away.
    MigrationSource,
    /// Arriving by migration.
    MigrationDestination,
    /// Shutting down.
    PoweringDown,
    /// Ended otherwise than by a shutdown, and not yet told: why is being found out, or written down.
    Ending,
    /// Ended; the ending says why.
    Down,
}

/// One domain in its latest run. It is Down exactly when `ending` is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainPublic {
    /// The identity.
    pub domain: DomainId,
    /// The name.
    pub name: String,
    /// The latest run.
    pub run: RunId,
    /// What it is doing.
    pub status: Status,
    /// When the run began, as far as seen.
    pub started: Wall,
    /// The process, where known.
    pub pid: Option<u32>,
    /// libvirt's word for the I/O error that paused it, such as `enospc`; empty where libvirt gave none.
    pub io_error: Option<Box<str>>,
    /// What paused it, in words, where nobody asked for that.
    pub paused_by: Option<Box<str>>,
    /// When its watchdog last fired in this run, and what was done.
    pub watchdog: Option<(Wall, WatchdogAction)>,
    /// How it ended.
    pub ending: Option<Arc<Ending>>,
    /// Whether the ending is on disk; true while there is no ending.
    pub durable: bool,
    /// When this picture of the domain was last changed: milliseconds that never go back, across restarts too.
    pub status_time: i64,
    /// What the run is made of: what its document said, or the one of the domain's last run while its own was not read.
    pub made: Option<Arc<Devices>>,
}

/// Whether we can hear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Link {
    /// Connected and listening.
    Up,
    /// Not connected since.
    Down {
        /// Since when.
        since: Wall,
    },
}

/// The whole picture. Cloning shares the domains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Rises with every change.
    pub generation: u64,
    /// The link to libvirt.
    pub link: Link,
    /// Whether the first listing has been taken: before it, absence means nothing.
    pub settled: bool,
    /// All domains that managers may see: active ones, and Down ones that nobody has acknowledged.
    pub domains: BTreeMap<DomainId, Arc<DomainPublic>>,
}
