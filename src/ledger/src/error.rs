//! What can go wrong, in words for people.

use std::path::PathBuf;

use whydown_core::id::RunId;

/// Why the ledger did not open as it should. The ledger works all the same: from memory, until the file can be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// The file cannot be opened or written now. What is to be kept is held in memory, and the file is tried again.
    #[error("the ledger {path} cannot be used now, endings are held in memory until it can: {reason}", path = path.display())]
    Unavailable {
        /// The file.
        path: PathBuf,
        /// The operating system's or SQLite's words.
        reason: String,
    },
    /// A newer version of this program wrote the file. It is left as it is.
    #[error(
        "the ledger {path} has schema version {found}, and this program knows versions up to {known}: \
         install the newer program again, or move the file away",
        path = path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The highest version that this program knows.
        known: i64,
    },
    /// The file is a database of another program. It is left as it is.
    #[error("{path} is a database, but not a ledger of whydown: move it away, or choose another path", path = path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The file was damaged. It was moved away, and a fresh one holds what could still be read.
    #[error(
        "the ledger {path} was damaged ({reason}); it was moved to {moved_to}, and a fresh one was begun with {salvaged}",
        path = path.display(), moved_to = moved_to.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged file lies now.
        moved_to: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What was read from it.
        salvaged: Salvaged,
    },
}

/// What could be read from a damaged file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Salvaged {
    /// Runs without an ending.
    pub open: usize,
    /// Endings.
    pub endings: usize,
    /// Runs that are known to be over and of which the ending could not be read, and runs that may go on and of which
    /// something could not be read. There may be more of which nothing at all could be read.
    pub lost: usize,
    /// Whether the last run number was there. If not, run numbers go on from the number of milliseconds since 1970.
    pub last_run: bool,
}

impl std::fmt::Display for Salvaged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { open, endings, lost, last_run } = self;
        let number = if *last_run { "the last run number" } else { "a new base for run numbers" };
        write!(f, "{endings} endings, {open} open runs and {number}; at least {lost} runs are lost")
    }
}

/// Why an operation of the ledger failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The file could not be read.
    #[error("the ledger {path} cannot be read: {reason}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// One ending is there, but makes no sense.
    #[error("the ending of run {run} is in the ledger, but cannot be read: {reason}")]
    Row {
        /// Which run.
        run: RunId,
        /// What is wrong with it.
        reason: String,
    },
    /// Time was up before everything was on disk.
    #[error("{waiting} operations are not on disk yet: {reason}")]
    NotWritten {
        /// How many.
        waiting: usize,
        /// Why, as far as known.
        reason: String,
    },
}
