//! What QEMU's log of a domain (`NAME.log`) says: a part for each start. Which of them is about which run, core decides.
//!
//! libvirt opens a block for every start, with a line that begins the run's part; QEMU's standard error and libvirt's
//! farewell follow. Their order differs from ending to ending, so the whole block is read, never only its last line.
//!
//! ```text
//! 2026-11-21 10:04:50.163+0000: starting up libvirt version: 9.0.0, …      libvirt: a block begins
//! LC_ALL=C \                                                               the command line, to its last argument
//! /usr/bin/qemu-system-x86_64 \
//! -name guest=w1 \
//! -msg timestamp=on
//! 2026-11-21T10:04:50.622396Z qemu-system-x86_64: terminating on signal …  QEMU
//! 2026-11-21 10:04:52.225+0000: shutting down, reason=destroyed            libvirt: its farewell
//! ```
//!
//! The text is hostile. Arguments come from whoever defined the domain and may hold line breaks; words of a guest reach
//! QEMU's standard error; a sender of signals chooses the name of its own program. So: a command line is followed
//! through its quotes and never taken for words; libvirt's and QEMU's lines count only whole and from their beginning, and
//! QEMU's only with a stamp where it was told to stamp them, and a start only with its command behind it. QEMU speaks of a signal once and ends, so that of several such
//! lines the first counts: the others are in the name of its sender. libvirt speaks its farewell at the end, so that of
//! several the last one counts, unless it stands in such a name; nor does a start there begin a block, as far as that can be told. What is not believed is kept as text. A guest that was
//! given QEMU's standard output as a console can write perfect copies: of such a domain no signal is believed, and a farewell
//! is told as one that its guest may have written.
//!
//! Nothing here follows a link, waits on a pipe or reads more than [`TAIL_BYTES`].

mod block;
mod command;
mod failures;
mod line;
mod scan;
mod tail;

use std::collections::VecDeque;
use std::path::Path;

use whydown_core::evidence::{Fact, LogWord, Sender};
use whydown_core::limits;
use whydown_core::log::{Log, LogBlock};
use whydown_core::time::Wall;

use self::block::{Block, blocks};
use self::line::{Line, closes, parse};
use crate::host::unit_of;
use crate::libvirt::LibvirtProcess;
use crate::process::running_since;
use crate::sender::claimed;

pub use self::failures::{Failure, Failures, Grown, failures};
pub use self::scan::{Scan, written_since};
pub use self::tail::{BACKUPS, TAIL_BYTES};

/// Blocks of one log that are told: the last ones. A run leaves one, and so does a start that fails in QEMU.
pub const BLOCKS: usize = 64;

/// What the log `NAME.log` in `folder`, and its rotated parts `NAME.log.0` and so on, hold: the last [`BLOCKS`] starts,
/// each fact with the time at which it was written, or `now` if it bears none.
///
/// `libvirt` says whose signals are libvirt's own. Never fails: what cannot
/// be read is said. Blocks for as long as the disk takes.
pub fn read(folder: &Path, name: &str, libvirt: &LibvirtProcess, now: Wall) -> Log {
    match tail::read(folder, name) {
        Ok(tail) => {
            Log { name: name.to_owned(), blocks: told(name, &tail.bytes, libvirt, now), unread: None }
        }
        Err(error) => Log { name: name.to_owned(), blocks: Vec::new(), unread: Some(error.to_string()) },
    }
}

fn told(name: &str, log: &[u8], libvirt: &LibvirtProcess, now: Wall) -> Vec<LogBlock> {
    let blocks = blocks(log);
    let surplus = blocks.len().saturating_sub(BLOCKS);
    let told = |block: &Block<'_>| {
        let mut stamps = block.stamps();
        let first = stamps.next();
        LogBlock {
            name: name.to_owned(),
            domain: block.said.domain,
            began: block.start,
            incoming: block.said.incoming,
            from_snapshot: block.said.from_snapshot,
            first,
            last: stamps.last().or(first),
            // Nor does what its guest may have written tell that it was over.
            ended: block.ended().filter(|_| !command::speaks_to_the_log(block.command)),
            facts: facts(block, libvirt, now),
        }
    };
    blocks[surplus..].iter().map(told).collect()
}

/// The farewells, signals and words in one block, in the order of the log, and the words last.
fn facts(block: &Block<'_>, libvirt: &LibvirtProcess, now: Wall) -> Vec<(Wall, Fact)> {
    let chosen = Chosen::of(block);
    let mut words = Words::default();
    let mut facts = Vec::new();
    if let Some(device) = command::guests_exit(block.command) {
        facts.push((block.start.unwrap_or(now), Fact::GuestMayExit { device: device.into() }));
    }
    if command::watchdog_powers_off(block.command) {
        facts.push((block.start.unwrap_or(now), Fact::WatchdogPowersOff));
    }
    let doubted = command::speaks_to_the_log(block.command);
    for (position, bytes) in block.lines().enumerate() {
        match parse(bytes) {
            Line::End { word, at } if chosen.end == Some(position) && doubted => {
                facts.push((at, Fact::LogDoubted { word, at }));
            }
            Line::End { word, at } if chosen.end == Some(position) => {
                facts.push((at, Fact::LogEnd { word, at: Some(at) }));
                // A panic and a dump with the order to crash both leave this word.
                if word == LogWord::Crashed && command::cannot_panic(block.command) {
                    facts.push((block.start.unwrap_or(now), Fact::CannotPanic));
                }
            }
            Line::Panic { at, text } if !doubted && !chosen.name.contains(&position) => {
                facts.push((at, Fact::LogPanic(whydown_core::evidence::tame(&text))));
            }
            Line::Signal { signal, pid, program, at } if chosen.signal == Some(position) => {
                let ago = now.since(at.unwrap_or(now));
                let sender = claimed(pid, &program, libvirt, ago);
                if matches!(sender, Sender::Outside | Sender::Manager)
                    && at.is_some_and(|at| running_since(pid).is_some_and(|since| since <= at))
                    && let Some(unit) = unit_of(pid)
                {
                    facts.push((at.unwrap_or(now), Fact::SenderUnit { pid, unit }));
                }
                facts.push((at.unwrap_or(now), Fact::LogSignal { signal, pid, program, sender, at }));
            }
            // What a later start left, which failed before QEMU ran, is about that alone.
            Line::End { word: LogWord::Failed, .. } => {}
            Line::End { at, .. } => words.add(Some(at), &line::text(bytes)),
            Line::Signal { at, .. } => words.add(at, &line::text(bytes)),
            Line::Words { at, text } => words.add(at, &text),
            Line::Start { .. } | Line::Libvirt { .. } | Line::Panic { .. } | Line::Noise => {}
        }
    }
    if chosen.end.is_none() {
        facts.push((now, Fact::LogSilent));
    }
    if block.start.is_none() {
        facts.push((now, Fact::LogCut));
    }
    if let Some((at, text)) = words.into_text() {
        facts.push((at.unwrap_or(now), Fact::LogText(text)));
    }
    facts
}

/// The lines of a block that count as the farewell and as the signal.
struct Chosen {
    end: Option<usize>,
    signal: Option<usize>,
    /// Lines that may be in the name of who sent the signal.
    name: std::ops::Range<usize>,
}

impl Chosen {
    fn of(block: &Block<'_>) -> Self {
        let signal = Self::signal_of(block);
        let name = signal.map_or(0..0, |signal| rest_of_name(block, signal));
        // What the guest of a domain whose console is the log dates before its own start, libvirt did not write.
        let doubted = command::speaks_to_the_log(block.command);
        let begun = block.start.filter(|_| doubted).map(|start| start.before(limits::CLOCK_GRACE));
        let (mut end, mut failed, mut said) = (None, None, false);
        for (position, bytes) in block.lines().enumerate().filter(|(position, _)| !name.contains(position)) {
            match parse(bytes) {
                Line::End { at, .. } if begun.is_some_and(|begun| at < begun) => {}
                // A later start that failed before QEMU ran leaves its `failed` in the block of the run before it.
                Line::End { word: LogWord::Failed, .. } => failed = failed.or(Some(position)),
                // What another libvirt found of it later hides no word of the one that ended it.
                Line::End { word: LogWord::Other, .. } if said => {}
                Line::End { word, .. } => (end, said) = (Some(position), word != LogWord::Other),
                _ => {}
            }
        }
        Self { end: end.or(failed), signal, name }
    }

    /// The first that is QEMU's own.
    fn signal_of(block: &Block<'_>) -> Option<usize> {
        if command::speaks_to_the_log(block.command) {
            return None;
        }
        let signals = block.lines().enumerate().filter_map(|(position, bytes)| match parse(bytes) {
            Line::Signal { at, .. } => Some((position, at.is_some())),
            _ => None,
        });
        let signals: Vec<(usize, bool)> = signals.collect();
        let stamps = command::stamps(block.command) || signals.iter().any(|(_, stamped)| *stamped);
        signals.iter().find(|(_, stamped)| *stamped || !stamps).map(|(position, _)| *position)
    }
}

/// The lines after that of a signal which may still be the name of its sender, which may hold line breaks. QEMU closes the
/// name with a bracket: the last line that ends so, whatever it begins with, as no line of libvirt's farewell does; or what
/// follows, if the name was not closed on its own line.
fn rest_of_name(block: &Block<'_>, signal: usize) -> std::ops::Range<usize> {
    let mut lines = block.lines().enumerate().skip(signal);
    let open = lines.next().is_some_and(|(_, bytes)| !closes(bytes) && bytes.contains(&b'('));
    let closed = lines.filter(|(_, bytes)| closes(bytes)).last();
    match closed {
        Some((position, _)) => signal + 1..position + 1,
        None if open => signal + 1..usize::MAX,
        None => 0..0,
    }
}

/// The last lines, as many as [`limits::TEXT_BYTES`] hold.
#[derive(Default)]
struct Words {
    lines: VecDeque<String>,
    bytes: usize,
    at: Option<Wall>,
}

impl Words {
    fn add(&mut self, at: Option<Wall>, text: &str) {
        let tame = whydown_core::evidence::tame(text);
        if tame.trim().is_empty() {
            return;
        }
        self.at = at.or(self.at);
        self.bytes += tame.len() + 1;
        self.lines.push_back(tame);
        while self.bytes > limits::TEXT_BYTES + 1 && self.lines.len() > 1 {
            self.bytes -= self.lines.pop_front().map_or(0, |line| line.len() + 1);
        }
    }

    fn into_text(self) -> Option<(Option<Wall>, String)> {
        if self.lines.is_empty() {
            return None;
        }
        Some((self.at, Vec::from(self.lines).join("\n")))
    }
}

#[cfg(test)]
mod failed_starts;
#[cfg(test)]
mod names;
#[cfg(test)]
mod starts;
#[cfg(test)]
mod tests;
