//! The blocks of a log, one a start, and which of them belongs to a run.

use std::time::Duration;

use whydown_core::evidence::LogWord;
use whydown_core::time::Wall;

use super::LogRun;
use super::line::{Line, parse};
use super::tail::Tail;

/// How far two readings of the host's clock may disagree about one moment: what a time service corrects in one step in
/// daily use, and how late an event may be stamped.
const CLOCK_SLACK: Duration = Duration::from_secs(5);

/// How long before the event of its start a block may begin. QEMU reserves and clears the guest's memory in between.
const START_TAKES: Duration = Duration::from_secs(600);

/// What was written between two starts.
#[derive(Debug)]
pub(super) struct Block<'a> {
    /// When it began; `None` if its beginning lies before what was read.
    pub(super) start: Option<Wall>,
    /// The command line, as libvirt wrote it for a shell; empty if its beginning was not read.
    pub(super) command: &'a [u8],
    /// Everything after its command line.
    body: &'a [u8],
}

impl<'a> Block<'a> {
    /// The lines after the command line.
    pub(super) fn lines(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.body.split(|b| *b == b'\n')
    }

    /// Whether libvirt had said farewell in it before `moment`. A clock that was set back within the block tells nothing.
    fn ended_before(&self, moment: Wall) -> bool {
        self.lines().any(|bytes| match parse(bytes) {
            Line::End { word, at } => {
                word != LogWord::Failed
                    && at.after(CLOCK_SLACK) < moment
                    && self.start.is_none_or(|start| at >= start)
            }
            _ => false,
        })
    }

    fn stamps(&self) -> impl Iterator<Item = Wall> + use<'a> {
        self.lines().filter_map(|bytes| parse(bytes).at())
    }
}

/// Cuts a log into its blocks, in its order. The first one may lack its beginning.
pub(super) fn blocks(tail: &Tail) -> Vec<Block<'_>> {
    // A quote that never closes means a command line that was never written out (a full disk). Then quotes tell nothing.
    cut(&tail.bytes, true).or_else(|| cut(&tail.bytes, false)).unwrap_or_default()
}

/// `None` if the log ends within a quoted argument.
fn cut(log: &[u8], heed_quotes: bool) -> Option<Vec<Block<'_>>> {
    let mut blocks = Vec::new();
    let mut start = None;
    let mut command = 0;
    let mut body = 0;
    let mut position = 0;
    let mut place = Place::Body;
    for bytes in log.split(|b| *b == b'\n') {
        let next = (position + bytes.len() + 1).min(log.len());
        if place == Place::Quoted {
            place = place.after(bytes, heed_quotes);
            body = next;
        } else if let Some(line) = stamped(bytes) {
            if let Line::Start { at } = line {
                blocks.push(Block { start, command: &log[command..body], body: &log[body..position] });
                (start, command, body, place) = (Some(at), next, next, Place::Command);
            } else {
                place = Place::Body;
            }
        } else if place == Place::Command {
            place = place.after(bytes, heed_quotes);
            body = next;
        }
        position = next;
    }
    let body = body.min(log.len());
    blocks.push(Block { start, command: &log[command.min(body)..body], body: &log[body..] });
    if blocks.first().is_some_and(|first| first.start.is_none() && first.stamps().next().is_none()) {
        blocks.remove(0);
    }
    (place != Place::Quoted).then_some(blocks)
}

/// A line of libvirt's. The look at its first byte spares parsing every line of a chatty QEMU.
fn stamped(bytes: &[u8]) -> Option<Line> {
    let line = bytes.first().is_some_and(u8::is_ascii_digit).then(|| parse(bytes))?;
    matches!(line, Line::Start { .. } | Line::End { .. } | Line::Libvirt { .. }).then_some(line)
}

/// Where in a block a line stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In the command line, between two arguments.
    Command,
    /// In the command line, within a quoted argument that holds a line break.
    Quoted,
    /// After the command line.
    Body,
}

impl Place {
    /// Where the line after `bytes` stands. libvirt quotes as a shell reads it, and ends every line of a command but the
    /// last with a backslash.
    fn after(self, bytes: &[u8], heed_quotes: bool) -> Self {
        let mut quoted = self == Place::Quoted;
        let mut escaped = false;
        for byte in bytes {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if !quoted => escaped = true,
                b'\'' if heed_quotes => quoted = !quoted,
                _ => {}
            }
        }
        match (quoted, escaped) {
            (true, _) => Place::Quoted,
            (false, true) => Place::Command,
            (false, false) => Place::Body,
        }
    }
}

/// The block of `run`. Blocks of its domain's next run, and later ones, are out of the question.
pub(super) fn select<'a, 'b>(blocks: &'b [Block<'a>], run: LogRun) -> Option<&'b Block<'a>> {
    let until = run.next_start.and_then(|next| begun(blocks, next, true)).unwrap_or(blocks.len());
    let blocks = &blocks[..until];
    match begun(blocks, run.started, run.seen_start) {
        Some(index) => blocks.get(index),
        None => blocks.first().filter(|block| headless_is_of(block, run)),
    }
}

/// The block that a process seen at `moment` began with. If that was its start, the nearest in time before; otherwise
/// the last in the log that had begun, whatever the clock was then. Never one that had ended by then.
fn begun(blocks: &[Block<'_>], moment: Wall, seen_start: bool) -> Option<usize> {
    let mut best: Option<(Wall, usize)> = None;
    for (index, block) in blocks.iter().enumerate() {
        let Some(start) = block.start.filter(|start| *start <= moment) else { continue };
        if seen_start && moment.since(start) > START_TAKES {
            continue;
        }
        if best.is_none_or(|(known, _)| !seen_start || start >= known) && !block.ended_before(moment) {
            best = Some((start, index));
        }
    }
    best.map(|(_, index)| index).or_else(|| {
        // The clock was set back a little between the line and the event.
        blocks.iter().position(|b| b.start.is_some_and(|s| s > moment && s <= moment.after(CLOCK_SLACK)))
    })
}

/// Whether a block without its beginning can be the run's: it was still written when the run was seen, had not ended
/// before, and had begun before the next run.
fn headless_is_of(block: &Block<'_>, run: LogRun) -> bool {
    let (Some(first), Some(last)) = (block.stamps().next(), block.stamps().last()) else { return false };
    block.start.is_none()
        && last.after(CLOCK_SLACK) >= run.started
        && !block.ended_before(run.started)
        && run.next_start.is_none_or(|next| first < next)
}
