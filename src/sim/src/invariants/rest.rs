//! What must be true when all faults have ended and some time has passed: nothing is owed to anybody, every end is told
//! once, and what is told as certain is true.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use whydown_core::evidence::{Fact, LogWord, OperationKind};
use whydown_core::hypervisor::Happening;
use whydown_core::id::RunId;
use whydown_core::limits;
use whydown_core::record::{Certainty, Ending, RunStart};
use whydown_core::snapshot::Status;

use crate::hypervisor::Life;
use crate::world::World;

/// From the process to STARTED in the told world.
const START_TAKES: Duration = Duration::from_millis(5);

impl World {
    /// Everything that is wrong with a world at rest, with what was wrong on the way.
    pub fn wrong_at_rest(&self) -> Vec<String> {
        let mut wrong = self.broken().to_vec();
        self.check_replies(&mut wrong);
        self.check_active(&mut wrong);
        self.check_off(&mut wrong);
        self.check_runs(&mut wrong);
        for ending in self.ledger.endings().values() {
            self.check_truth(ending, &mut wrong);
        }
        wrong
    }

    fn check_replies(&self, wrong: &mut Vec<String>) {
        for (request, times) in self.invariants().requests() {
            if *times != 1 {
                wrong.push(format!("{request:?} is answered {times} times"));
            }
        }
    }

    /// Every running domain is shown as what it is, in the run that it is in.
    fn check_active(&self, wrong: &mut Vec<String>) {
        let Some(picture) = self.snapshot() else { return wrong.push("there is no daemon".into()) };
        let mut running = 0;
        for (id, domain) in &self.hypervisor.domains {
            let Some(life) = self.hypervisor.life(*id) else { continue };
            running += 1;
            let Some(public) = picture.domains.get(id) else {
                wrong.push(format!("{} runs and is not shown", domain.name));
                continue;
            };
            if public.status == Status::Down {
                wrong.push(format!("{} runs and is shown as Down", domain.name));
            }
            let known =
                self.invariants().start_of(public.run).and_then(|start| self.hypervisor.life_of(start));
            if known.is_none_or(|known| known.process != life.process) {
                wrong.push(format!("{} is shown in run {}, which is another life", domain.name, public.run));
            }
        }
        let followed = self.engine().map_or(0, whydown_core::lifecycle::Engine::runs_followed);
        if followed != running {
            wrong.push(format!("{followed} runs are followed and {running} domains run"));
        }
    }

    /// Every domain that is off is Down with its ending, or was acknowledged.
    fn check_off(&self, wrong: &mut Vec<String>) {
        let Some(picture) = self.snapshot() else { return };
        for (id, public) in &picture.domains {
            if !self.is_active(*id) && public.status != Status::Down {
                wrong.push(format!("{} is off and shown as {:?}", public.name, public.status));
            }
        }
        let mut latest: BTreeMap<_, &RunStart> = BTreeMap::new();
        for start in self.ledger.starts().values() {
            latest.insert(start.domain, start);
        }
        for start in latest.values().filter(|start| !self.is_active(start.domain)) {
            let shown = picture.domains.get(&start.domain).is_some_and(|public| public.run == start.run);
            let acknowledged = self.ledger.acknowledged().contains_key(&start.run);
            if shown == acknowledged {
                wrong.push(format!(
                    "run {} is {} and {}",
                    start.run,
                    if shown { "shown" } else { "not shown" },
                    if acknowledged { "acknowledged" } else { "not acknowledged" }
                ));
            }
        }
    }

    /// One ending for each run that is over, one run for each life, and no run for nothing.
    fn check_runs(&self, wrong: &mut Vec<String>) {
        for run in self.ledger.contradicted() {
            wrong.push(format!("run {run} was to be kept again, otherwise"));
        }
        for run in self.invariants().seen_runs() {
            if !self.ledger.starts().contains_key(run) {
                wrong.push(format!("run {run} was shown and is nowhere"));
            }
        }
        for run in self.invariants().destroyed() {
            if !self.ledger.acknowledged().contains_key(run) {
                wrong.push(format!("run {run} was told as destroyed and is not acknowledged"));
            }
        }
        let mut open = BTreeSet::new();
        let mut lives: BTreeMap<(u32, u64), RunId> = BTreeMap::new();
        let mut without_life = BTreeMap::<_, Vec<&RunStart>>::new();
        for (run, start) in self.ledger.starts() {
            if !self.ledger.endings().contains_key(run) {
                if !self.is_active(start.domain) {
                    wrong.push(format!("run {run} is over and has no ending"));
                }
                if !open.insert(start.domain) {
                    wrong.push(format!("run {run} is the second open run of {}", start.name));
                }
            }
            match self.hypervisor.life_of(start) {
                Some(life) => {
                    let key = (life.process.pid, life.process.start_ticks);
                    // Where the clock is set during a life its start may be dated by one clock and what is found by another.
                    let unsure = self.was_jumped_in(life);
                    if let Some(other) = lives.insert(key, *run).filter(|_| !unsure) {
                        wrong.push(format!("runs {other} and {run} are the same life"));
                    }
                }
                None => without_life.entry(start.domain).or_default().push(start),
            }
        }
        for ending in self.ledger.endings().values().filter(|ending| ending.was_told_later()) {
            let Some(life) = self.hypervisor.life_logged(ending.domain, ending.started) else { continue };
            let (key, unsure) = ((life.process.pid, life.process.start_ticks), self.was_jumped_in(life));
            if let Some(other) = lives.insert(key, ending.run).filter(|_| !unsure) {
                wrong.push(format!("runs {other} and {} are the same life", ending.run));
            }
        }
        let untold = |life: &&Life| !lives.contains_key(&(life.process.pid, life.process.start_ticks));
        for (domain, runs) in &without_life {
            let unknown = self.hypervisor.lives.iter().filter(untold).filter(|life| life.domain == *domain);
            let unexplained = runs.iter().filter(|start| !self.was_an_attempt(start.run)).count();
            // A clock that is set within moments of a start dates the start and what is heard of it too far apart.
            let jumped = self.hypervisor.lives.iter().any(|l| l.domain == *domain && self.was_jumped_in(l));
            if unexplained > unknown.count() && !jumped {
                wrong.push(format!("there are more runs than lives: {runs:?}"));
            }
        }
        if self.logs_were_unread || !self.jumps().is_empty() {
            return;
        }
        for id in self.hypervisor.domains.keys() {
            let missed = self.hypervisor.lives.iter().filter(untold);
            let missed =
                missed.filter(|life| life.domain == *id && self.listened_since <= Some(life.started));
            let missed: Vec<&Life> = missed.filter(|_| self.listened_since.is_some()).collect();
            if missed.len() > without_life.get(id).map_or(0, Vec::len) {
                wrong.push(format!("there are lives that no run tells of: {missed:?}, {without_life:?}"));
            }
        }
    }

    /// Whether the run was a start that may have failed.
    fn was_an_attempt(&self, run: RunId) -> bool {
        self.ledger.endings().get(&run).is_some_and(|ending| {
            ending.evidence.iter().any(|piece| {
                matches!(
                    piece.fact,
                    Fact::Requested { what: OperationKind::Create, .. }
                        | Fact::Host(Happening::ControlError)
                        | Fact::LogEnd { word: LogWord::Failed, .. }
                )
            })
        })
    }

    /// What is told as certain is true, and was not told about what lay in or behind our deafness.
    fn check_truth(&self, ending: &Ending, wrong: &mut Vec<String>) {
        let start = self.ledger.starts().get(&ending.run);
        let life = match start {
            Some(start) => self.hypervisor.life_of(start),
            // What was told later has no start on disk.
            None => self.hypervisor.life_logged(ending.domain, ending.started),
        };
        let Some(life) = life else { return };
        let Some(ended) = life.ended else {
            if start.is_some_and(|start| self.is_taken_for_another(start, life)) {
                return;
            }
            return wrong.push(format!("run {} has an ending and goes on", ending.run));
        };
        if ending.verdict.certainty != Certainty::Certain {
            return;
        }
        if self.was_jumped_in(life) {
            return;
        }
        let cause = ending.verdict.cause;
        if !life.may_be_certain(cause) {
            wrong
                .push(format!("run {} is certain of what is not so: {:?}, {ending:?}", ending.run, life.way));
        }
        // libvirt reports a start a moment after it: a link of that moment has heard all of it.
        let heard_from = life.started.after(self.longest_report_delay + START_TAKES);
        let shadow = self
            .deaf()
            .any(|(from, to)| from < ended && heard_from < to && ended.since(to) < limits::GAP_SHADOW);
        if shadow {
            wrong.push(format!("run {} is certain though we were deaf: {ending:?}", ending.run));
        }
    }

    /// Whether nothing is left that shows that the life of this run goes on, and its present run is told as another: the clock was
    /// set around its start, so that its part of the log is dated after it; its process was not told; and libvirt has begun
    /// anew since, so that its number may have been given again.
    fn is_taken_for_another(&self, start: &RunStart, life: &Life) -> bool {
        let libvirt_is_another = self.hypervisor.up_since.is_some_and(|since| since.mono >= life.started);
        let later = self.ledger.starts().values().any(|later| {
            later.run > start.run
                && self.hypervisor.life_of(later).is_some_and(|its| its.process == life.process)
        });
        self.was_jumped_in(life) && start.incarnation.process.is_none() && libvirt_is_another && later
    }

    /// Whether the wall clock was set in this life, or around it: then its evidence is dated by two clocks, and nobody can say how
    /// long before what something was.
    fn was_jumped_in(&self, life: &Life) -> bool {
        let until = life.ended.map(|ended| ended.after(limits::REQUEST_LIFE));
        self.jumps().iter().any(|at| {
            until.is_none_or(|until| *at <= until) && life.started.since(*at) <= limits::REQUEST_LIFE
        })
    }
}
