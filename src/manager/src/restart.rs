//! What a manager should do about a VM that went down.
//!
//! Managers decide by the exit code, and so do we; the reason and the cause only refine it where they are known. A host
//! that sends neither is treated as managers always treated it.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crate::read::Exit;
use crate::reason::ExitReason;

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Then {
    /// Start it again.
    Restart,
    /// Leave it: somebody wanted it off.
    Leave,
    /// It runs elsewhere: hand it over to that host.
    HandOver,
    /// It fell, and it is not to be started again without somebody's say: tell somebody.
    Alert,
}

impl Then {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Leave => "leave",
            Self::HandOver => "hand-over",
            Self::Alert => "alert",
        }
    }
}

/// What a site chooses for a VM that is to be kept running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Choice {
    /// As managers always did: an error is started again, a normal exit is left.
    ByExitCode,
    /// Start it again, also after a normal exit.
    Restart,
    /// Leave it, also after an error.
    Leave,
    /// Tell somebody.
    Alert,
}

/// What the site wants of a VM.
///
/// The default for each cause is the column *start again?* of THE TABLE:
///
/// | start again? | exit code 0 | exit code 1 |
/// |---|---|---|
/// | yes | | restart |
/// | no | leave | alert: it failed here and is not known to be needed here |
/// | ask | by `when_asked` | by `when_asked` |
/// | no cause, or one that we do not know | leave | restart |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Whether this VM is to be kept running. If not, nothing is ever restarted: errors are alerts.
    pub highly_available: bool,
    /// For causes of which the table says that the site must know. By the exit code, if not said.
    pub when_asked: Choice,
    /// For endings of which the host says that they are probable, where the answer would be a restart. By the exit
    /// code, if not said: the cause is unsure, and that the VM is off is not.
    pub when_probable: Choice,
    /// For endings whose cause the host does not know, where the answer would be a restart. By the exit code, if not
    /// said. A site whose VMs may run elsewhere without its doing should choose an alert.
    pub when_unknown: Choice,
    /// For single causes, by their words; before everything else but a migration.
    pub by_cause: BTreeMap<String, Choice>,
}

impl Policy {
    /// The defaults, for a VM that is to be kept running or not.
    pub fn new(highly_available: bool) -> Self {
        Self {
            highly_available,
            when_asked: Choice::ByExitCode,
            when_probable: Choice::ByExitCode,
            when_unknown: Choice::ByExitCode,
            by_cause: BTreeMap::new(),
        }
    }
}

/// VDSM's number for a VM that migrated away.
const MIGRATED: ExitReason = ExitReason::Known(4);

/// What the table says of starting again, by cause.
static TABLE: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let table: toml::Table =
        include_str!("../../../proto-schemas/causes.toml").parse().expect("causes.toml is TOML");
    let rows = table["cause"].as_array().expect("rows");
    let text = |row: &toml::Value, name: &str| row[name].as_str().expect("a text").to_owned();
    rows.iter().map(|row| (text(row, "word"), text(row, "restart"))).collect()
});

/// Decides about one ending.
pub fn then(exit: &Exit, policy: &Policy) -> Then {
    if (exit.code, exit.reason) == (0, MIGRATED) {
        return Then::HandOver;
    }
    if !policy.highly_available {
        return if exit.code == 0 { Then::Leave } else { Then::Alert };
    }
    let cause = exit.cause.as_deref().unwrap_or_default();
    if let Some(choice) = policy.by_cause.get(cause) {
        return choose(*choice, exit);
    }
    let usual = match TABLE.get(cause).map(String::as_str) {
        Some("ask") => choose(policy.when_asked, exit),
        Some("no") if exit.code == 0 => Then::Leave,
        Some("no") => Then::Alert,
        _ => choose(Choice::ByExitCode, exit),
    };
    match (usual, exit.certainty.as_deref()) {
        (Then::Restart, Some("probable")) => choose(policy.when_probable, exit),
        (Then::Restart, Some("unknown")) => choose(policy.when_unknown, exit),
        (usual, _) => usual,
    }
}

fn choose(choice: Choice, exit: &Exit) -> Then {
    match choice {
        Choice::ByExitCode if exit.code == 0 => Then::Leave,
        Choice::ByExitCode | Choice::Restart => Then::Restart,
        Choice::Leave => Then::Leave,
        Choice::Alert => Then::Alert,
    }
}
