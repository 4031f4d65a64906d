//! What was written lately and still matters, kept in memory: with it a file that others took away is made good.
//!
//! All of the runs that go on, the endings that nobody has acknowledged, and the last few hundred others. The engine
//! knows as much; what it was told to be durable must be so again even if the file is not.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use whydown_core::evidence::EvidenceId;
use whydown_core::id::{DomainId, RunId};
use whydown_core::record::{Ending, Keep, Recovered, RunStart};

/// Endings that are kept though they were acknowledged, or a later run of their domain has ended.
pub(crate) const SETTLED: usize = 256;

/// See the module page.
#[derive(Default)]
pub(crate) struct Known {
    /// Of runs that go on, and of those whose endings are here: without its start nobody knows later what QEMU's log says of it.
    starts: BTreeMap<RunId, Arc<Keep>>,
    evidence: BTreeMap<(RunId, EvidenceId), Arc<Keep>>,
    endings: BTreeMap<RunId, Arc<Keep>>,
    /// Corrections of these, by number.
    revised: BTreeMap<(RunId, u16), Arc<Keep>>,
    acknowledged: BTreeMap<RunId, Arc<Keep>>,
    /// What those are made of that nobody has acknowledged.
    made: BTreeMap<RunId, Arc<Keep>>,
    /// The last ending of each domain that is among them.
    latest: BTreeMap<DomainId, RunId>,
    /// Which may leave, the oldest first.
    settled: VecDeque<RunId>,
    alive: Option<Arc<Keep>>,
}

impl Known {
    /// What the file gave when it was opened, `newest` among its endings, and how ended runs began.
    pub(crate) fn of(recovered: &Recovered, newest: Vec<Ending>, starts: Vec<RunStart>) -> Self {
        let mut known = Self::default();
        for start in starts {
            known.note(&Arc::new(Keep::Start(start)));
        }
        for (start, evidence) in &recovered.open {
            known.note(&Arc::new(Keep::Start(start.clone())));
            for (position, evidence) in (0..).zip(evidence) {
                known.note(&Arc::new(Keep::Evidence(start.run, position, evidence.clone())));
            }
        }
        let mut endings: BTreeMap<RunId, Ending> =
            newest.into_iter().map(|ending| (ending.run, ending)).collect();
        endings.extend(recovered.unacknowledged.iter().map(|ending| (ending.run, ending.clone())));
        for ending in endings.into_values() {
            known.note(&Arc::new(Keep::Ending(Arc::new(ending))));
        }
        for (run, devices) in &recovered.made {
            known.note(&Arc::new(Keep::Made(*run, Arc::new(devices.clone()))));
        }
        known.alive = recovered.alive.map(|alive| Arc::new(Keep::Alive(alive)));
        known
    }

    /// This is on disk now.
    pub(crate) fn note(&mut self, op: &Arc<Keep>) {
        match &**op {
            Keep::Start(start) => drop(self.starts.insert(start.run, Arc::clone(op))),
            Keep::Evidence(run, position, _) => {
                if !self.endings.contains_key(run) {
                    self.evidence.insert((*run, *position), Arc::clone(op));
                }
            }
            Keep::Ending(ending) => {
                let own = self.evidence.range((ending.run, 0)..=(ending.run, EvidenceId::MAX));
                for place in own.map(|(place, _)| *place).collect::<Vec<_>>() {
                    self.evidence.remove(&place);
                }
                self.endings.entry(ending.run).or_insert_with(|| Arc::clone(op));
                if ending.was_told_later() {
                    return self.settle(ending.run);
                }
                if let Some(earlier) = self.latest.insert(ending.domain, ending.run)
                    && earlier != ending.run
                {
                    self.settle(earlier);
                }
                if ending.acknowledged.is_some() {
                    self.settle(ending.run);
                }
            }
            Keep::Revised(ending) => {
                if self.endings.contains_key(&ending.run) {
                    self.revised.insert((ending.run, ending.revision()), Arc::clone(op));
                }
            }
            Keep::Acknowledge(run, _) => {
                if self.endings.contains_key(run) {
                    self.acknowledged.entry(*run).or_insert_with(|| Arc::clone(op));
                    self.settle(*run);
                }
            }
            Keep::Made(run, _) => {
                if self.starts.contains_key(run) || self.endings.contains_key(run) {
                    self.made.insert(*run, Arc::clone(op));
                }
            }
            Keep::Alive(_) => self.alive = Some(Arc::clone(op)),
        }
    }

    fn settle(&mut self, run: RunId) {
        if self.settled.contains(&run) {
            return;
        }
        self.settled.push_back(run);
        self.made.remove(&run);
        while self.settled.len() > SETTLED {
            let Some(oldest) = self.settled.pop_front() else { return };
            self.acknowledged.remove(&oldest);
            self.revised.retain(|(run, _), _| *run != oldest);
            self.starts.remove(&oldest);
            if let Some(op) = self.endings.remove(&oldest)
                && let Keep::Ending(ending) = &*op
                && self.latest.get(&ending.domain) == Some(&oldest)
            {
                self.latest.remove(&ending.domain);
            }
        }
    }

    /// Runs that go on.
    pub(crate) fn open(&self) -> impl Iterator<Item = RunId> {
        self.starts.keys().copied().filter(|run| !self.endings.contains_key(run))
    }

    /// All of it, in an order in which it can be written.
    pub(crate) fn ops(&self) -> impl Iterator<Item = &Arc<Keep>> {
        let runs = self.starts.values().chain(self.evidence.values());
        let ended = self.endings.values().chain(self.revised.values()).chain(self.acknowledged.values());
        runs.chain(ended).chain(self.made.values()).chain(&self.alive)
    }
}
