//! What waits to be written, in order, in bounded memory.
//!
//! Within the bound everything waits. At the bound what runs are made of goes first, as it can be read again; then evidence: without loss where the run's ending waits too
//! (an ending brings its evidence), else the newest, counted for a marker in the file. Starts, endings and
//! acknowledgements stay up to a hard limit. Only the latest sign of life waits, always.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use whydown_core::id::RunId;
use whydown_core::record::{Ending, Keep};

/// The hard limit is this many times the bound.
const HARD_TIMES: usize = 4;

/// Bytes of text that count as one more operation.
const COST_BYTES: usize = 4096;

/// What one commit writes.
#[derive(Default)]
pub(crate) struct Batch {
    /// In order.
    pub ops: Vec<Arc<Keep>>,
    /// Facts of these runs found no room: how many.
    pub lost: Vec<(RunId, u32)>,
    /// The first entry behind the batch.
    until: u64,
    /// Whether more is left behind it.
    cut: bool,
    /// With the batch on disk, so many of the operations that were ever handed over are, or were counted as lost.
    pub upto: u64,
}

impl Batch {
    /// What never was in a queue.
    pub(crate) fn of(ops: Vec<Arc<Keep>>) -> Self {
        Self { ops, ..Self::default() }
    }

    /// Whether more is left behind it.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut
    }
}

/// What became of an operation that was to wait.
#[derive(Debug)]
pub(crate) enum Pushed {
    /// It waits.
    Waits,
    /// It waits, and a fact had to leave for it.
    WaitsForAFact,
    /// It can be read again, and found no room.
    NotNeeded,
    /// It is a fact and found no room.
    FactDropped,
    /// The hard limit is reached; here it is back.
    Refused(Box<Keep>),
}

struct Entry {
    seq: u64,
    /// It is the operation of this number, among all that were ever handed over.
    number: u64,
    op: Arc<Keep>,
    cost: usize,
    /// Whether [`Queue::newly_waiting_endings`] has passed it.
    seen: bool,
    /// Whether it is the last of those that were handed over together.
    ends: bool,
}

/// The waiting operations.
pub(crate) struct Queue {
    entries: VecDeque<Entry>,
    next_seq: u64,
    /// How many operations were ever handed over.
    handed: u64,
    /// How many of them were told to be waiting.
    told: u64,
    /// Entries before this one are being written and must not leave.
    in_flight: u64,
    /// Facts among the entries.
    facts: usize,
    /// Entries that tell what a run is made of.
    made: usize,
    cost: usize,
    bound: usize,
    lost: BTreeMap<RunId, u32>,
}

impl Queue {
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            next_seq: 0,
            handed: 0,
            told: 0,
            in_flight: 0,
            facts: 0,
            made: 0,
            cost: 0,
            bound: bound.max(1),
            lost: BTreeMap::new(),
        }
    }

    /// How many operations wait.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is anything to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.lost.is_empty()
    }

    /// The mark that [`Self::written_up_to`] reaches when everything that waits now is written.
    pub(crate) fn mark(&self) -> u64 {
        self.next_seq
    }

    /// Whether everything before `mark` has left, written or counted as lost.
    pub(crate) fn written_up_to(&self, mark: u64) -> bool {
        self.entries.front().is_none_or(|entry| entry.seq >= mark) && self.lost.is_empty()
    }

    /// Takes an operation in, and makes room for it where needed.
    pub(crate) fn push(&mut self, op: Keep) -> Pushed {
        self.handed += 1;
        let cost = cost(&op);
        let mut outcome = Pushed::Waits;
        if let Keep::Alive(_) = op {
            self.remove_last(|op| matches!(op, Keep::Alive(_)));
        }
        if self.cost + cost > self.bound {
            self.drop_what_can_be_read_again();
        }
        if self.cost + cost > self.bound && self.facts > 0 {
            self.drop_facts_of_ended_runs();
        }
        if self.cost + cost > self.bound {
            if let Keep::Evidence(run, ..) = op {
                self.note_lost(run);
                return Pushed::FactDropped;
            }
            if let Keep::Made(..) = op {
                return Pushed::NotNeeded;
            }
            if let Some(run) = self.remove_last_fact() {
                self.note_lost(run);
                outcome = Pushed::WaitsForAFact;
            }
        }
        if self.cost + cost > self.bound.saturating_mul(HARD_TIMES) {
            return Pushed::Refused(Box::new(op));
        }
        match &op {
            Keep::Ending(ending) => drop(self.lost.remove(&ending.run)),
            Keep::Evidence(..) => self.facts += 1,
            Keep::Made(..) => self.made += 1,
            _ => {}
        }
        self.cost += cost;
        let (seq, number) = (self.next_seq, self.handed);
        self.entries.push_back(Entry { seq, number, op: Arc::new(op), cost, seen: false, ends: false });
        self.next_seq += 1;
        outcome
    }

    /// What comes next was not handed over together with what came before.
    pub(crate) fn ends_here(&mut self) {
        if let Some(entry) = self.entries.back_mut() {
            entry.ends = true;
        }
    }

    /// Begins to write the first entries: `max`, and what was handed over together with the last of them.
    pub(crate) fn take(&mut self, max: usize) -> Batch {
        let rest = self.entries.iter().skip(max.saturating_sub(1)).take_while(|entry| !entry.ends).count();
        let ops: Vec<_> = self.entries.iter().take(max + rest).map(|entry| Arc::clone(&entry.op)).collect();
        self.in_flight = self.entries.get(ops.len()).map_or(self.next_seq, |entry| entry.seq);
        let upto = self.entries.get(ops.len()).map_or(self.handed, |entry| entry.number - 1);
        let cut = ops.len() < self.entries.len();
        let lost = std::mem::take(&mut self.lost).into_iter().collect();
        Batch { ops, lost, until: self.in_flight, cut, upto }
    }

    /// The batch is on disk.
    pub(crate) fn done(&mut self, batch: &Batch) {
        while self.entries.front().is_some_and(|entry| entry.seq < batch.until) {
            self.remove_at(0);
        }
        self.in_flight = 0;
    }

    /// The batch is not on disk: all of it waits again.
    pub(crate) fn undone(&mut self, batch: &Batch) {
        self.in_flight = 0;
        for (run, count) in &batch.lost {
            let lost = self.lost.entry(*run).or_default();
            *lost = lost.saturating_add(*count);
        }
        let ended: Vec<RunId> =
            self.endings().map(|ending| ending.run).filter(|run| self.lost.contains_key(run)).collect();
        for run in ended {
            self.lost.remove(&run);
        }
    }

    /// Takes one operation of an undone batch out: it can never be written.
    pub(crate) fn give_up(&mut self, index: usize) -> Option<Arc<Keep>> {
        (index < self.entries.len()).then(|| self.remove_at(index))
    }

    /// Endings that wait and whose runs were not named by this before.
    pub(crate) fn newly_waiting_endings(&mut self) -> Vec<RunId> {
        let mut runs = Vec::new();
        for entry in self.entries.iter_mut().filter(|entry| !entry.seen) {
            entry.seen = true;
            if let Keep::Ending(ending) = &*entry.op {
                runs.push(ending.run);
            }
        }
        runs
    }

    /// Whether something was handed over since [`Self::told_to_wait`].
    pub(crate) fn has_untold(&self) -> bool {
        self.handed > self.told
    }

    /// How many operations were handed over: of all of them it is told now that they wait.
    pub(crate) fn told_to_wait(&mut self) -> u64 {
        self.told = self.handed;
        self.handed
    }

    /// What waits, in order.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = &Arc<Keep>> {
        self.entries.iter().map(|entry| &entry.op)
    }

    fn endings(&self) -> impl Iterator<Item = &Ending> {
        self.entries.iter().filter_map(|entry| match &*entry.op {
            Keep::Ending(ending) => Some(&**ending),
            _ => None,
        })
    }

    fn note_lost(&mut self, run: RunId) {
        // A run that ended in the meantime has lost nothing.
        if self.endings().all(|ending| ending.run != run) {
            let lost = self.lost.entry(run).or_default();
            *lost = lost.saturating_add(1);
        }
    }

    fn drop_facts_of_ended_runs(&mut self) {
        let ended: BTreeSet<RunId> = self.endings().map(|ending| ending.run).collect();
        let in_flight = self.in_flight;
        let (mut facts, mut cost) = (0, 0);
        self.entries.retain(|entry| {
            let leaves = entry.seq >= in_flight
                && matches!(&*entry.op, Keep::Evidence(run, ..) if ended.contains(run));
            facts += usize::from(leaves);
            cost += if leaves { entry.cost } else { 0 };
            !leaves
        });
        self.facts -= facts;
        self.cost -= cost;
    }

    fn drop_what_can_be_read_again(&mut self) {
        while self.made > 0 && self.remove_last(|op| matches!(op, Keep::Made(..))).is_some() {}
    }

    fn remove_last_fact(&mut self) -> Option<RunId> {
        if self.facts == 0 {
            return None;
        }
        match *self.remove_last(|op| matches!(op, Keep::Evidence(..)))? {
            Keep::Evidence(run, ..) => Some(run),
            _ => None,
        }
    }

    /// The last entry that `which` accepts and that is not being written.
    fn remove_last(&mut self, which: impl Fn(&Keep) -> bool) -> Option<Arc<Keep>> {
        let found = self
            .entries
            .iter()
            .enumerate()
            .rev()
            .take_while(|(_, entry)| entry.seq >= self.in_flight)
            .find(|(_, entry)| which(&entry.op))
            .map(|(index, _)| index)?;
        Some(self.remove_at(found))
    }

    fn remove_at(&mut self, index: usize) -> Arc<Keep> {
        let entry = self.entries.remove(index).expect("callers name an entry that is there");
        self.cost -= entry.cost;
        self.facts -= usize::from(matches!(&*entry.op, Keep::Evidence(..)));
        self.made -= usize::from(matches!(&*entry.op, Keep::Made(..)));
        entry.op
    }
}

/// Bytes of an ending, about as it is told.
pub(crate) fn size(ending: &Ending) -> usize {
    let mut bytes = Bytes(0);
    serde_json::to_writer(&mut bytes, ending).expect("a counter takes every byte");
    bytes.0
}

/// What an operation counts for: one, and one more for every 4 KiB in it.
fn cost(op: &Keep) -> usize {
    let mut bytes = Bytes(0);
    let counted = match op {
        Keep::Ending(ending) | Keep::Revised(ending) => serde_json::to_writer(&mut bytes, &**ending),
        Keep::Evidence(_, _, evidence) => serde_json::to_writer(&mut bytes, evidence),
        Keep::Made(_, devices) => serde_json::to_writer(&mut bytes, &**devices),
        Keep::Start(_) | Keep::Acknowledge(..) | Keep::Alive(_) => Ok(()),
    };
    counted.expect("a counter takes every byte");
    1 + bytes.0 / COST_BYTES
}

struct Bytes(usize);

impl std::io::Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
