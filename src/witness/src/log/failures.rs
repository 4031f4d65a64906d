//! Starts that failed, as logs tell of them: each has libvirt's farewell, and where QEMU ran a block of its own. And which logs
//! have got such farewells since they were looked at last.

use std::collections::{HashMap, VecDeque};
use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use whydown_core::evidence::{Fact, LogWord};
use whydown_core::id::DomainId;
use whydown_core::lifecycle::attribution::started_for;
use whydown_core::time::Wall;

use super::block::{Block, blocks};
use super::line::{Line, parse};
use super::{Chosen, command, rest_of_name, tail};
use crate::libvirt::LibvirtProcess;

/// Of one log the last so many are told: one that is started in vain for ever fills its log with them.
pub const FAILURES: usize = 64;

/// A start that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// When, by libvirt's farewell.
    pub at: Wall,
    /// When QEMU was begun; `None` where libvirt refused before that.
    pub began: Option<Wall>,
    /// Whose start it was, by its command line; `None` where that was not read, or never written.
    pub domain: Option<DomainId>,
    /// What the log says of it, with the times.
    pub facts: Vec<(Wall, Fact)>,
}

/// Those of one log, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Failures {
    /// The last 64 of them.
    pub last: Vec<Failure>,
    /// When those were that there was no room for.
    pub more: Vec<Wall>,
}

/// The starts of the domain `name` that failed. Of one that libvirt refused before QEMU ran there is only libvirt's farewell,
/// in the block of the run before it.
///
/// # Errors
/// Why the log cannot be read.
pub fn failures(folder: &Path, name: &str, libvirt: &LibvirtProcess, now: Wall) -> Result<Failures, String> {
    let tail = tail::read(folder, name).map_err(|error| error.to_string())?;
    let blocks = blocks(&tail.bytes);
    let mut found = Failures::default();
    let mut last: VecDeque<Found<'_>> = VecDeque::new();
    let mut saved = false;
    for block in &blocks {
        let mut own = block.start.is_some();
        for (word, at) in farewells(block) {
            // The block's first farewell ends the QEMU that began it.
            let first = std::mem::take(&mut own);
            if word == LogWord::Failed {
                if last.len() == FAILURES {
                    found.more.extend(last.pop_front().map(|oldest| oldest.at));
                }
                let waited_for_saved = block.said.incoming.then_some(saved);
                last.push_back(Found { at, qemu: first.then_some((block, waited_for_saved)) });
            } else {
                saved = word == LogWord::Saved;
            }
        }
    }
    found.last = last.into_iter().map(|one| one.told(libvirt, now)).collect();
    Ok(found)
}

/// One farewell, and the block of its QEMU, with whether that waited for a memory and was saved before.
struct Found<'a> {
    at: Wall,
    qemu: Option<(&'a Block<'a>, Option<bool>)>,
}

impl Found<'_> {
    fn told(self, libvirt: &LibvirtProcess, now: Wall) -> Failure {
        let at = self.at;
        let Some((block, waited_for_saved)) = self.qemu else {
            let facts = vec![(at, Fact::LogEnd { word: LogWord::Failed, at: Some(at) })];
            return Failure { at, began: None, domain: None, facts };
        };
        let mut facts = super::facts(block, libvirt, now);
        // What the block says of the whole of it, and this farewell.
        facts.retain(|(_, fact)| !matches!(fact, Fact::LogEnd { .. }));
        facts.insert(0, (at, Fact::LogEnd { word: LogWord::Failed, at: Some(at) }));
        facts.extend(waited_for_saved.map(|saved| (block.start.unwrap_or(at), started_for(saved))));
        Failure { at, began: block.start, domain: block.said.domain, facts }
    }
}

/// Logs that are followed; libvirt keeps one for each name that ever ran.
const LOGS: usize = 50_000;

/// Bytes that one log may have grown by to be read for farewells between two looks; of more it is read as a whole.
const GROWN_BYTES: u64 = 1 << 20;

/// libvirt's words for a start that it gives up.
const FAREWELL: &[u8] = b"reason=failed";

/// How long logs were when they were looked at last, and so which have got farewells to starts since. A QEMU that says much costs
/// what it says, and no more.
#[derive(Debug, Default)]
pub struct Grown {
    /// The file's number and its length.
    known: HashMap<String, (u64, u64)>,
    looked: bool,
}

impl Grown {
    /// The names of logs in `folder` in which starts were given up since the last look; in the first one, of those that were
    /// written since `since`. None where the folder cannot be read.
    pub fn with_failures(&mut self, folder: &Path, since: Wall) -> Vec<String> {
        let mut names = Vec::new();
        let Ok(entries) = fs::read_dir(folder) else { return names };
        let mut known = HashMap::new();
        for entry in entries.flatten() {
            let file = entry.file_name();
            let Some(name) = file.to_str().and_then(|file| file.strip_suffix(".log")) else { continue };
            let Ok(metadata) = entry.metadata() else { continue };
            if !metadata.is_file() || known.len() >= LOGS {
                continue;
            }
            let now = (metadata.ino(), metadata.len());
            let before = self.known.get(name).copied();
            let is_news = match before {
                Some(before) if before == now => false,
                // It grew.
                Some((inode, length)) if inode == now.0 && length < now.1 => {
                    says_farewell(&entry.path(), length, now.1)
                }
                // It is another file by now, or shorter: what stood in the last one may have been moved away.
                Some(_) => true,
                None if self.looked || super::scan::was_written_since(&metadata, since) => {
                    says_farewell(&entry.path(), now.1.saturating_sub(GROWN_BYTES), now.1)
                }
                None => false,
            };
            if is_news {
                names.push(name.to_owned());
            }
            known.insert(name.to_owned(), now);
        }
        (self.known, self.looked) = (known, true);
        names
    }

    /// Forgets all of it: what was written since a moment is looked at anew.
    pub fn forget(&mut self) {
        *self = Self::default();
    }
}

fn says_farewell(path: &Path, from: u64, to: u64) -> bool {
    if to - from > GROWN_BYTES {
        return true;
    }
    // The words may have been cut in two.
    let from = from.saturating_sub(FAREWELL.len() as u64);
    let Ok(mut file) = tail::open(path) else { return false };
    let mut bytes = Vec::new();
    let read = file.seek(SeekFrom::Start(from)).and_then(|_| file.take(to - from).read_to_end(&mut bytes));
    read.is_ok() && bytes.windows(FAREWELL.len()).any(|window| window == FAREWELL)
}

/// libvirt's farewells in a block: none in the name of a sender of signals. Where a guest may write into the log as well, only the
/// last one is libvirt's, and only if it comes after the beginning.
fn farewells(block: &Block<'_>) -> Vec<(LogWord, Wall)> {
    let name = Chosen::signal_of(block).map_or(0..0, |signal| rest_of_name(block, signal));
    let lines = block.lines().enumerate().filter(|(position, _)| !name.contains(position));
    let mut farewells: Vec<_> = lines
        .filter_map(|(_, bytes)| match parse(bytes) {
            Line::End { word, at } => Some((word, at)),
            _ => None,
        })
        .collect();
    if command::speaks_to_the_log(block.command) {
        farewells.drain(..farewells.len().saturating_sub(1));
        farewells.retain(|(_, at)| block.start.is_none_or(|start| start <= *at));
    }
    farewells
}
