//! To which run what was found belongs. What is heard is told apart by the process and by libvirt's number
//! (`Run::could_be`, `Engine::is_same_incarnation`); what lies in QEMU's log, here.
//!
//! Each block of a log is a start, and the order of the file is the truth: the clock may have been set between two of
//! them. A block is a run's by its domain's UUID and by when the run was seen first. What stands after the block of the
//! last run that is known are runs that nobody heard of. What libvirt shows of a domain that is off is about the last of
//! all of them, and about no other.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::evidence::{Fact, LogWord, StartedFor, tame};
use crate::id::DomainId;
use crate::log::{Log, LogBlock};
use crate::time::Wall;

/// How far two readings of the host's clock may disagree about one moment: what a time service corrects in one step in
/// daily use, and how late an event may be stamped.
const CLOCK_SLACK: Duration = Duration::from_secs(5);

/// How long before the event of its start a block may begin. QEMU reserves and clears the guest's memory in between.
pub const START_TAKES: Duration = Duration::from_secs(600);

/// What tells a run's block from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// Its domain.
    pub domain: DomainId,
    /// When the run was seen first.
    pub started: Wall,
    /// True if that was its start; false if it was found running, or in the log.
    pub seen_start: bool,
    /// When the domain's next run began, if there is one already.
    pub next_start: Option<Wall>,
    /// When the domain's run before was seen first, where that is known: its own part began after that. A start that
    /// failed early has none.
    pub previous: Option<Wall>,
    /// True if it was seen first when its start failed: its part was over by then.
    pub failing: bool,
}

/// What a log says of a run: the facts of its block, or why there is none.
pub fn facts_of(log: &Log, marks: Marks, now: Wall) -> Vec<(Wall, Fact)> {
    let unread = |why: &str| vec![(now, Fact::LogUnread(tame(why)))];
    if let Some(why) = &log.unread {
        return unread(why);
    }
    match block_of(&log.blocks, marks) {
        Some(index) => {
            let (before, block) = (&log.blocks[..index], &log.blocks[index]);
            let saved = || was_saved(before.iter().filter(|before| is_of(before, marks.domain)));
            let failed = block.farewell().filter(|(word, _)| block.incoming && *word == LogWord::Failed);
            let waited = failed.map(|(_, at)| (block.began.unwrap_or(at), started_for(saved())));
            block.facts.iter().cloned().chain(waited).collect()
        }
        None => unread(&format!("no part of {}.log belongs to this run", log.name)),
    }
}

/// What a QEMU that did not come up was started for, as its command line has it take over a memory: libvirt starts it alike
/// for what was saved and for what migrates here. `saved`: whether its last run before had ended by being saved.
pub fn started_for(saved: bool) -> Fact {
    let (what, told_by) = match saved {
        true => (StartedFor::Restore, "QEMU's log says that it had been saved before"),
        false => (StartedFor::Either, "QEMU's log has its command line"),
    };
    Fact::StartedFor { what, told_by: told_by.into() }
}

/// Whether the last of these that was no failed start ended by being saved.
fn was_saved<'a>(before: impl DoubleEndedIterator<Item = &'a LogBlock>) -> bool {
    let words = before.rev().map(|block| block.farewell().map(|(word, _)| word));
    words.into_iter().find(|word| *word != Some(LogWord::Failed)).flatten() == Some(LogWord::Saved)
}

/// The block of a run. Blocks of its domain's next run, and later ones, are out of the question; they may be in the log of
/// another name.
pub fn block_of(blocks: &[LogBlock], run: Marks) -> Option<usize> {
    let within = |blocks: &[LogBlock]| {
        begun(blocks, &run).or_else(|| blocks.first().filter(|block| headless_is_of(block, run)).map(|_| 0))
    };
    let Some(next) = run.next_start else { return within(blocks) };
    if let Some(until) = exactly(blocks, run.domain, next) {
        return within(&blocks[..until]);
    }
    let next = Marks { started: next, seen_start: true, previous: None, failing: false, ..run };
    let until = begun(blocks, &next).unwrap_or(blocks.len());
    within(&blocks[..until]).or_else(|| within(blocks))
}

/// The block that a process seen when this run was began with. If that was its start, the nearest in time before; otherwise the last
/// in the log that had begun, whatever the clock was then. Never one that had ended by then.
fn begun(blocks: &[LogBlock], run: &Marks) -> Option<usize> {
    let Marks { domain, started: moment, seen_start, previous, failing, .. } = *run;
    // A run that was found in the log began with exactly this.
    if let Some(found) = exactly(blocks, domain, moment).filter(|_| !seen_start) {
        return Some(found);
    }
    let its = |block: &LogBlock| is_of(block, domain);
    let mut begun = blocks.iter().enumerate().filter_map(|(index, block)| {
        let start = block.began.filter(|start| its(block) && *start <= moment)?;
        Some((index, start))
    });
    // No other: whatever began before it was over then, though nobody may have said farewell.
    let last = if seen_start { begun.max_by_key(|(_, start)| *start) } else { begun.next_back() };
    let best = last.filter(|(index, start)| {
        // A clock that was set back between the two says nothing.
        let is_earlier = previous.is_some_and(|previous| *start <= previous && previous <= moment);
        let is_too_old = seen_start && moment.since(*start) > START_TAKES;
        !is_earlier && !is_too_old && !ended_before(&blocks[*index], moment)
    });
    // The clock was set back a little between the line and the event; or the run was seen first when it was asked for.
    let soon = blocks
        .iter()
        .position(|b| its(b) && b.began.is_some_and(|s| s > moment && s <= moment.after(CLOCK_SLACK)));
    match best.map(|(index, _)| index) {
        // It was over when the run was seen, a moment ago.
        Some(index) if seen_start && !failing && over_at(&blocks[index]).is_some_and(|at| at < moment) => {
            soon.or(Some(index))
        }
        best => best.or(soon),
    }
}

/// When libvirt said farewell in it, be it to a run or to a start that failed.
fn over_at(block: &LogBlock) -> Option<Wall> {
    block.ended.or_else(|| block.farewell().map(|(_, at)| at))
}

fn exactly(blocks: &[LogBlock], domain: DomainId, began: Wall) -> Option<usize> {
    blocks.iter().rposition(|block| is_of(block, domain) && block.began == Some(began))
}

fn is_of(block: &LogBlock, domain: DomainId) -> bool {
    block.domain.is_none_or(|other| other == domain)
}

/// Whether libvirt had said farewell in it before `moment`. A clock that was set back within the block tells nothing.
fn ended_before(block: &LogBlock, moment: Wall) -> bool {
    block.ended.is_some_and(|at| at.after(CLOCK_SLACK) < moment)
}

/// Whether a block without its beginning can be the run's: it was still written when the run was seen, had not ended
/// before, and had begun before the next run.
fn headless_is_of(block: &LogBlock, run: Marks) -> bool {
    let (Some(first), Some(last)) = (block.first, block.last) else { return false };
    block.began.is_none()
        && last.after(CLOCK_SLACK) >= run.started
        && !ended_before(block, run.started)
        && run.next_start.is_none_or(|next| first < next)
}

/// The blocks of each domain in one order: that of their files, and by their times where a domain was called by another
/// name meanwhile. A block without its beginning comes first, and may be of any domain of its log.
pub(super) fn by_domain(logs: Vec<Log>) -> BTreeMap<DomainId, Vec<LogBlock>> {
    let mut parts: BTreeMap<DomainId, Vec<Vec<LogBlock>>> = BTreeMap::new();
    for log in logs {
        let mut domains: Vec<DomainId> = log.blocks.iter().filter_map(|block| block.domain).collect();
        domains.sort_unstable();
        domains.dedup();
        for domain in domains {
            let its = log.blocks.iter().filter(|block| is_of(block, domain));
            parts.entry(domain).or_default().push(its.cloned().collect());
        }
    }
    parts.into_iter().map(|(domain, parts)| (domain, restored(merged(parts)))).collect()
}

/// What was saved waits for its own memory when it starts next, as a VM does that migrates here.
fn restored(mut blocks: Vec<LogBlock>) -> Vec<LogBlock> {
    let mut saved = false;
    for block in &mut blocks {
        let word = block.farewell().map(|(word, _)| word);
        if saved && std::mem::take(&mut block.incoming) && word == Some(LogWord::Failed) {
            block.facts.extend(block.began.map(|began| (began, started_for(true))));
        }
        if word != Some(LogWord::Failed) {
            saved = word == Some(LogWord::Saved);
        }
    }
    blocks
}

fn merged(parts: Vec<Vec<LogBlock>>) -> Vec<LogBlock> {
    let mut parts: Vec<_> = parts.into_iter().map(|part| part.into_iter().peekable()).collect();
    let mut whole = Vec::new();
    loop {
        let heads = parts.iter_mut().enumerate();
        let heads = heads.filter_map(|(place, part)| part.peek().map(|head| (head.began, place)));
        let Some((_, first)) = heads.min() else { return whole };
        whole.extend(parts[first].next());
    }
}

/// The starts that nobody heard of: what stands behind the block of the last known run. Where no block is the known
/// run's, or none is known, it is what began when nobody listened, and what stands behind that.
pub(super) fn unheard(mut blocks: Vec<LogBlock>, known: Option<Marks>, deaf_since: Wall) -> Vec<LogBlock> {
    let first = match known.and_then(|marks| block_of(&blocks, marks)) {
        Some(its) => its + 1,
        None => {
            // One that was being started when hearing ended had begun before.
            let starting = |b: &LogBlock, began: Wall| {
                began.after(START_TAKES) >= deaf_since && b.farewell().is_none_or(|(_, at)| at >= deaf_since)
            };
            let behind = |b: &LogBlock| {
                let new = |at: Wall| at >= deaf_since || starting(b, at);
                b.began.is_some_and(|at| new(at) && known.is_none_or(|known| at > known.started))
            };
            blocks.iter().position(behind).unwrap_or(blocks.len())
        }
    };
    let mut blocks = blocks.split_off(first);
    blocks.retain(|block| block.began.is_some() && block.domain.is_some());
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    const VM: DomainId = DomainId::from_bytes([7; 16]);

    fn at(millis: i64) -> Wall {
        Wall::from_millis(1_763_690_000_000 + millis)
    }

    fn block(began: i64, ended: Option<i64>) -> LogBlock {
        LogBlock {
            name: "vm".into(),
            domain: Some(VM),
            began: Some(at(began)),
            ended: ended.map(at),
            ..LogBlock::default()
        }
    }

    fn asked_for(started: i64) -> Marks {
        Marks {
            domain: VM,
            started: at(started),
            seen_start: true,
            next_start: None,
            previous: None,
            failing: false,
        }
    }

    #[test]
    fn a_run_that_was_asked_for_a_moment_after_another_ended_has_the_block_that_begins_next() {
        let blocks = [block(0, Some(9_000)), block(10_067, None)];
        assert_eq!(block_of(&blocks, asked_for(10_000)), Some(1));
        assert_eq!(unheard(blocks.to_vec(), Some(asked_for(10_000)), at(10_000)), []);
        // Without a next one, what ended a moment ago may be its own, by a clock that was set a little.
        assert_eq!(block_of(&blocks[..1], asked_for(10_000)), Some(0));
        // A start that is heard is told after its block began.
        assert_eq!(block_of(&[block(0, Some(9_000)), block(9_900, None)], asked_for(10_000)), Some(1));
        assert_eq!(block_of(&[block(9_900, Some(10_200)), block(10_300, None)], asked_for(10_000)), Some(0));
    }

    /// Told wrongly once: libvirtd was killed in the midst of a start, of which no farewell tells, and the run after that
    /// had one.
    #[test]
    fn a_start_that_another_followed_was_over_by_then_though_nobody_said_farewell() {
        let blocks = [block(0, None), block(10_000, Some(60_000)), block(70_600, None)];
        assert_eq!(block_of(&blocks, asked_for(70_000)), Some(2));
        assert_eq!(unheard(blocks.to_vec(), Some(asked_for(70_000)), at(69_000)), []);
        let found = Marks { seen_start: false, ..asked_for(71_000) };
        assert_eq!(block_of(&blocks, found), Some(2));
        assert_eq!(block_of(&blocks[..2], Marks { started: at(69_000), ..found }), None);
    }
}
