//! What a manager should do about a VM that went down.

use crate::read::Exit;
use crate::reason::ExitReason;

/// What the site wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Whether this VM is to be kept running.
    pub highly_available: bool,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Start it again.
    Restart,
    /// Leave it: somebody wanted it off.
    Leave,
    /// It runs elsewhere: hand it over to that host.
    HandOver,
    /// It fell, and nobody asked for it to be kept running: tell somebody.
    Alert,
}

/// VDSM's number for a VM that migrated away.
const MIGRATED: ExitReason = ExitReason::Known(4);

/// Decides as managers always did: by the exit code. The reason only tells a migration from the other normal exits, and
/// only where it is known; without it a normal exit is a wanted one.
pub fn then(exit: &Exit, policy: Policy) -> Then {
    match (exit.code, exit.reason, policy.highly_available) {
        (0, MIGRATED, _) => Then::HandOver,
        (0, _, _) => Then::Leave,
        (_, _, true) => Then::Restart,
        (_, _, false) => Then::Alert,
    }
}
