//! QEMU's log of a domain as it was read: a block for each start, in the order in which they were written.
//!
//! Reading is the witness's work; to which run a block belongs is decided in [`crate::lifecycle`], for all who ask.

use crate::evidence::{Fact, LogWord};
use crate::id::DomainId;
use crate::time::Wall;

/// What was written from one start to the next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LogBlock {
    /// What its domain was called then: the name of the log.
    pub name: String,
    /// Whose start it was, by `-uuid` of the command line; `None` where that was not read. A log is called after the name
    /// of its domain, which another domain may have had before.
    pub domain: Option<DomainId>,
    /// When it began; `None` if its beginning lies before what was read.
    pub began: Option<Wall>,
    /// Whether the command line lets it wait for a VM that migrates here: `-incoming defer`.
    pub incoming: bool,
    /// Whether the command line lets it load a snapshot: `-loadvm`.
    pub from_snapshot: bool,
    /// The first time that is written in it after its command line.
    pub first: Option<Wall>,
    /// The last such time.
    pub last: Option<Wall>,
    /// libvirt's first farewell that is no start's failure, not counting one from before the beginning.
    pub ended: Option<Wall>,
    /// Its farewell, or [`Fact::LogSilent`]; its signal and its words.
    pub facts: Vec<(Wall, Fact)>,
}

impl LogBlock {
    /// libvirt's farewell that counts, with its time; there is one for a start that failed as well.
    pub fn farewell(&self) -> Option<(LogWord, Wall)> {
        self.facts.iter().find_map(|(at, fact)| match fact {
            Fact::LogEnd { word, .. } => Some((*word, *at)),
            _ => None,
        })
    }
}

/// One log, with its rotated parts as far as they were read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Log {
    /// Its name without `.log`: what its domain was called when it was started.
    pub name: String,
    /// Its blocks, in the order of the file.
    pub blocks: Vec<LogBlock>,
    /// Why it could not be read, if so.
    pub unread: Option<String>,
}
