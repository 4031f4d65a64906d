//! What an administrator may choose about the ledger, with the defaults.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use whydown_core::time::Wall;

/// Where the ledger reads the wall clock; it dates damaged files and failures, nothing else.
pub type Clock = Arc<dyn Fn() -> Wall + Send + Sync>;

/// How long something has run that only ever goes on: the time that is lived through, for ages.
pub type Uptime = Arc<dyn Fn() -> Duration + Send + Sync>;

/// How the ledger is kept.
#[derive(Clone)]
pub struct Settings {
    /// The file. Its directory must exist or appear later; the ledger does not create it.
    pub path: PathBuf,
    /// What leaves the file, and when.
    pub retention: Retention,
    /// How much is held in memory while the file cannot be written. Each operation counts one, and one more for every
    /// 4 KiB of text in it. Here evidence begins to be dropped; at four times this, everything is.
    pub memory_max_ops: usize,
    /// The first wait before a file that failed is opened again; doubled after each failure.
    pub retry_min: Duration,
    /// The longest such wait.
    pub retry_max: Duration,
    /// How long what nobody waits for may wait for more, to share a commit with it.
    pub linger: Duration,
    /// The wall clock.
    pub clock: Clock,
    /// A clock that nobody can set. Ages are counted by it, from one start to the next.
    pub uptime: Uptime,
}

impl Default for Settings {
    /// `/var/lib/whydown/ledger.db`, 20,000 operations in memory, retries after 1 s to 30 s, the system's clock.
    fn default() -> Self {
        Self {
            path: PathBuf::from("/var/lib/whydown/ledger.db"),
            retention: Retention::default(),
            memory_max_ops: 20_000,
            retry_min: Duration::from_secs(1),
            retry_max: Duration::from_secs(30),
            // A manager that destroys one VM after another is back within this.
            linger: Duration::from_millis(50),
            clock: Arc::new(system_clock),
            uptime: uptime(),
        }
    }
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings")
            .field("path", &self.path)
            .field("retention", &self.retention)
            .field("memory_max_ops", &self.memory_max_ops)
            .field("retry_min", &self.retry_min)
            .field("retry_max", &self.retry_max)
            .finish_non_exhaustive()
    }
}

/// What leaves the file, and when. Ages are counted in time that whydown lived through: neither a wall clock that jumps nor
/// a host that is off makes anything older. An ending that nobody has acknowledged and that is the latest of its domain stays,
/// with its evidence, whatever these say; so does everything of a run that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// Evidence of endings older than this leaves; the ending itself stays.
    pub evidence_max_age: Duration,
    /// At most this many facts of ended runs stay; those of the oldest endings leave first.
    pub evidence_max_count: u64,
    /// Endings older than this leave.
    pub endings_max_age: Duration,
    /// At most this many endings stay; the oldest leave first.
    pub endings_max_count: u64,
}

impl Default for Retention {
    /// Evidence for 90 days and at most 500,000 facts; endings for 365 days and at most 100,000. A usual ending takes
    /// about 300 bytes and each of its facts about 100: at these bounds the file stays below 100 MB.
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self {
            evidence_max_age: 90 * DAY,
            evidence_max_count: 500_000,
            endings_max_age: 365 * DAY,
            endings_max_count: 100_000,
        }
    }
}

fn uptime() -> Uptime {
    let start = Instant::now();
    Arc::new(move || start.elapsed())
}

fn system_clock() -> Wall {
    // Before 1970 only on a host without a clock; zero is then as wrong as anything else.
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since_1970.as_nanos()).unwrap_or(i64::MAX))
}
