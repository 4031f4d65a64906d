//! A ledger in memory: keeps what it is given in order, in commits, as late as it is told to, or not at all.
//!
//! It holds the promises of the real one: one order, a commit is whole or nothing, an ending is kept once, its first
//! version stays but for numbered corrections, and after a crash exactly what was committed is there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use whydown_core::evidence::{Evidence, EvidenceId, Fact, OperationKind};
use whydown_core::id::RunId;
use whydown_core::limits;
use whydown_core::record::{Acknowledged, Certainty, Ending, Keep, Recovered, RunStart, Seen};
use whydown_core::sample::Devices;
use whydown_core::time::Wall;

/// How the told disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// A commit takes this long.
    Works(Duration),
    /// Every commit fails.
    Fails,
}

/// What a try to commit came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tried {
    /// Endings that are on disk now.
    pub kept: Vec<RunId>,
    /// Corrections that are on disk now.
    pub revised: Vec<(RunId, u16)>,
    /// Endings that are told for the first time that they must wait.
    pub not_kept: Vec<RunId>,
    /// How much of what this daemon handed over it was about.
    pub count: u64,
    /// Whether that is on disk now.
    pub written: bool,
}

/// See the module page.
#[derive(Debug, Default)]
pub struct ToldLedger {
    waiting: VecDeque<Keep>,
    /// How much the present daemon handed over.
    handed: u64,
    told_to_wait: BTreeSet<RunId>,
    starts: BTreeMap<RunId, RunStart>,
    evidence: BTreeMap<RunId, BTreeMap<EvidenceId, Evidence>>,
    endings: BTreeMap<RunId, Ending>,
    /// What was told before the corrections, as it was, the first telling first.
    before: BTreeMap<RunId, Vec<Ending>>,
    acknowledged: BTreeMap<RunId, Acknowledged>,
    made: BTreeMap<RunId, Devices>,
    /// Numbers up to here may have been given.
    last_run: u64,
    /// The highest number that was given.
    given: u64,
    alive: Option<Wall>,
    /// Time that daemons have lived through, and what of it is on disk.
    lived: Duration,
    lived_on_disk: Duration,
    written_at: BTreeMap<RunId, Duration>,
    /// Endings that came again, differently, after they had been kept: a broken promise of the engine.
    contradicted: Vec<RunId>,
}

impl ToldLedger {
    /// A daemon begins: the next numbers are taken on disk before it gives them.
    pub fn begin(&mut self) -> Recovered {
        self.lived = self.lived_on_disk;
        let recovered = self.recovered();
        self.given = self.last_run;
        self.last_run += limits::RUNS_RESERVED;
        recovered
    }

    /// The daemon has ended in order, with all of it on disk: its numbers go on where they stand.
    pub fn end(&mut self) {
        self.last_run = self.given;
    }

    /// A daemon lives through so much time.
    pub fn lives(&mut self, time: Duration) {
        self.lived += time;
    }

    /// Takes one thing to keep. It is safe only after [`Self::commit`].
    pub fn keep(&mut self, keep: Keep) {
        self.handed += 1;
        self.waiting.push_back(keep);
    }

    /// Whether something waits.
    pub fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Writes all that waits, in one commit.
    pub fn commit(&mut self) -> Tried {
        let mut tried = Tried { count: self.handed, written: true, ..Tried::default() };
        while let Some(keep) = self.waiting.pop_front() {
            self.write(keep, &mut tried);
        }
        tried
    }

    /// Fails to write. Each waiting ending is told once.
    pub fn fail(&mut self) -> Tried {
        let waiting = self.waiting.iter().filter_map(|keep| match keep {
            Keep::Ending(ending) => Some(ending.run),
            _ => None,
        });
        let new: Vec<RunId> = waiting.filter(|run| !self.told_to_wait.contains(run)).collect();
        self.told_to_wait.extend(&new);
        Tried { not_kept: new, count: self.handed, ..Tried::default() }
    }

    /// The daemon is gone, and with it all that was not committed.
    pub fn crash(&mut self) {
        self.waiting.clear();
        self.told_to_wait.clear();
        self.handed = 0;
    }

    fn write(&mut self, keep: Keep, tried: &mut Tried) {
        match keep {
            Keep::Start(start) => {
                self.given(start.run);
                self.starts.insert(start.run, start);
            }
            Keep::Evidence(run, position, piece) => {
                self.given(run);
                if !self.endings.contains_key(&run) {
                    self.evidence.entry(run).or_default().insert(position, piece);
                }
            }
            Keep::Ending(ending) => {
                self.given(ending.run);
                self.written_at.entry(ending.run).or_insert(self.lived);
                tried.kept.push(ending.run);
                match self.endings.get(&ending.run) {
                    Some(known) if *known != *ending => self.contradicted.push(ending.run),
                    Some(_) => {}
                    None => {
                        if let Some(by) = ending.acknowledged.clone() {
                            self.acknowledged.entry(ending.run).or_insert(by);
                        }
                        self.endings.insert(ending.run, Arc::unwrap_or_clone(ending));
                    }
                }
            }
            Keep::Revised(ending) => {
                tried.revised.push((ending.run, ending.revision()));
                let Some(told) = self.endings.get_mut(&ending.run) else {
                    return self.contradicted.push(ending.run);
                };
                let before = self.before.entry(ending.run).or_default();
                before.push(std::mem::replace(told, Arc::unwrap_or_clone(ending)));
                let fits = |(number, told): (u16, &Ending)| {
                    let evidence_stays = self.endings[&told.run].evidence_of(number) == told.evidence;
                    told.revision() == number
                        && told.verdict.certainty < Certainty::Certain
                        && told.exit_code == self.endings[&told.run].exit_code
                        && told.ended == self.endings[&told.run].ended
                        && evidence_stays
                };
                let run = before[0].run;
                if !(0..).zip(before.iter()).all(fits)
                    || usize::from(self.endings[&run].revision()) != before.len()
                {
                    self.contradicted.push(run);
                }
            }
            Keep::Acknowledge(run, by) => {
                self.acknowledged.entry(run).or_insert(by);
                self.made.remove(&run);
            }
            Keep::Made(run, devices) => {
                if self.starts.contains_key(&run) && !self.acknowledged.contains_key(&run) {
                    self.made.insert(run, (*devices).clone());
                }
            }
            Keep::Alive(at) => {
                self.alive = Some(at);
                self.lived_on_disk = self.lived;
            }
        }
    }

    fn given(&mut self, run: RunId) {
        self.given = self.given.max(run.0);
        if self.given > self.last_run.saturating_sub(limits::RUNS_RESERVED / 2) {
            self.last_run = self.given + limits::RUNS_RESERVED;
        }
    }

    /// What a daemon that starts now is given.
    pub fn recovered(&self) -> Recovered {
        let open = self.starts.values().filter(|start| !self.endings.contains_key(&start.run));
        let last = |ending: &&Ending| {
            !self.starts.values().any(|later| later.domain == ending.domain && later.run > ending.run)
        };
        let ended = self.starts.values().filter(|start| self.endings.contains_key(&start.run));
        let latest: BTreeMap<_, _> = ended.map(|start| (start.domain, Seen::of(start))).collect();
        Recovered {
            open: open.map(|start| (start.clone(), self.evidence_of(start.run))).collect(),
            unacknowledged: self
                .endings
                .values()
                .filter(|ending| !self.acknowledged.contains_key(&ending.run))
                .filter(last)
                .cloned()
                .collect(),
            uncertain: self
                .endings
                .values()
                .filter(|ending| ending.verdict.certainty < Certainty::Certain)
                .filter_map(|ending| Some((self.starts.get(&ending.run)?.clone(), ending.clone())))
                .collect(),
            last_run: self.last_run,
            alive: self.alive,
            ages: self.written_at.iter().map(|(run, at)| (*run, self.lived.saturating_sub(*at))).collect(),
            latest: latest.into_values().collect(),
            made: self.made.clone(),
        }
    }

    /// The latest moment of which it knows, among what a daemon that starts is given.
    pub fn latest(&self) -> Wall {
        self.recovered().latest()
    }

    fn evidence_of(&self, run: RunId) -> Vec<Evidence> {
        self.evidence.get(&run).map(|pieces| pieces.values().cloned().collect()).unwrap_or_default()
    }

    /// Whether it is on disk that libvirt was to be asked for this.
    pub fn asked(&self, run: RunId, what: OperationKind) -> bool {
        let asked = |piece: &Evidence| matches!(piece.fact, Fact::Requested { what: w, .. } if w == what);
        let open = self.evidence.get(&run).is_some_and(|pieces| pieces.values().any(asked));
        open || self.endings.get(&run).is_some_and(|ending| ending.evidence.iter().any(asked))
    }

    /// Whether a daemon that begins now would take an open run for destroyed: libvirt was to be asked to, and it is not on disk that
    /// it refused every time.
    pub fn is_destroyed(&self, run: RunId) -> bool {
        if self.endings.contains_key(&run) {
            return false;
        }
        let (mut asked, mut refused) = (0, 0);
        for piece in self.evidence.get(&run).into_iter().flat_map(|pieces| pieces.values()) {
            match piece.fact {
                Fact::Requested { what: OperationKind::Destroy, .. } => asked += piece.times,
                Fact::Refused { what: OperationKind::Destroy, .. } => refused += piece.times,
                _ => {}
            }
        }
        asked > refused
    }

    /// All endings on disk, by run.
    pub fn endings(&self) -> &BTreeMap<RunId, Ending> {
        &self.endings
    }

    /// Everything that was ever told of a run's end and is on disk, the latest last.
    pub fn told_of(&self, run: RunId) -> impl Iterator<Item = &Ending> {
        self.before.get(&run).into_iter().flatten().chain(self.endings.get(&run))
    }

    /// All starts on disk, by run.
    pub fn starts(&self) -> &BTreeMap<RunId, RunStart> {
        &self.starts
    }

    /// Who acknowledged which ending, as it is on disk.
    pub fn acknowledged(&self) -> &BTreeMap<RunId, Acknowledged> {
        &self.acknowledged
    }

    /// Runs whose ending was to be kept again in another version.
    pub fn contradicted(&self) -> &[RunId] {
        &self.contradicted
    }
}
