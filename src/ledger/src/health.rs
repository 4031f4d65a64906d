//! How the ledger fares, for status pages and metrics.

use std::path::PathBuf;

use whydown_core::time::Wall;

/// Whether the file can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It can.
    Working,
    /// It cannot: endings are held in memory.
    Failing {
        /// What is wrong.
        error: String,
        /// Since when.
        since: Wall,
    },
}

/// How the ledger fares. Counters begin at zero when the ledger is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// Whether the file can be written.
    pub condition: Condition,
    /// Operations that are not on disk yet.
    pub waiting: usize,
    /// Commits of operations so far. Retention's own commits are not counted.
    pub commits: u64,
    /// Facts that found no room in memory while the file could not be written.
    pub evidence_dropped: u64,
    /// Other operations that found no room, or that SQLite refused for what they are: each was logged whole.
    pub lost: u64,
    /// Runs of which a damaged file no longer gave the ending, or not all that a run that goes on needs: each was logged
    /// by its number.
    pub unreadable: u64,
    /// Endings of until then may have been told and lost with a damaged file; kept for ever.
    pub lost_until: Option<Wall>,
    /// Endings on disk.
    pub endings: u64,
    /// Facts of ended runs on disk.
    pub evidence: u64,
    /// Where the last damaged file was moved to since the ledger was opened.
    pub damaged: Option<PathBuf>,
    /// What others did to the file while it was open, the last time, and what became of it.
    pub mended: Option<String>,
}
