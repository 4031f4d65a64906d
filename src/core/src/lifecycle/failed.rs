//! Starts by other clients that failed. libvirt reports no event where it refuses before QEMU runs: it only calls the domain
//! off for the reason *failed*, writes its farewell into QEMU's log, and tells the kernel's audit. Whoever looks there tells
//! us, each failure once or more often.

use std::time::Duration;

use super::engine::Engine;
use super::run::Phase;
use crate::evidence::{Fact, LogWord};
use crate::hypervisor::DomainRef;
use crate::id::{DomainId, RunId};
use crate::record::When;
use crate::snapshot::{Link, Status};
use crate::time::{Now, Wall};

/// How long it is remembered which start failed last. Who tells of it later asks the ledger before.
const REMEMBERED: Duration = Duration::from_secs(3600);

impl Engine {
    /// A start failed at this moment, as these facts show.
    pub(super) fn start_failed(&mut self, now: Now, domain: &DomainRef, at: Wall, facts: Vec<(Wall, Fact)>) {
        let at = at.min(now.wall);
        if !self.settled || !matches!(self.link, Link::Up) {
            return;
        }
        let current = self.current.get(&domain.id).and_then(|id| Some((*id, self.runs.get(id)?)));
        match current {
            // An event told of it first, and libvirt still showed it as being started when it was asked.
            Some((id, run)) if run.phase == Phase::Launching && !run.awaits_its_start() => {
                let began = run.start.at;
                return self.failed_at(now, id, began, facts);
            }
            // Of a run that goes on, or of one that we start, libvirt's answer and the events tell.
            Some((_, run)) if run.is_open() => return,
            _ => {}
        }
        // Whoever reads QEMU's logs after an absence may have told of it.
        let farewell = Fact::LogEnd { word: LogWord::Failed, at: Some(at) };
        let told = self.failed.get(&domain.id).is_some_and(|told| *told >= at)
            || self
                .runs
                .values()
                .any(|run| run.start.domain == domain.id && run.dossier.find(|f| *f == farewell).is_some())
            || self
                .down
                .get(&domain.id)
                .is_some_and(|down| down.ending.evidence.iter().any(|e| e.fact == farewell));
        if told {
            return self.told_why_later(now, domain.id, at, facts);
        }
        let start = self.new_start(now, domain, at, true, None);
        let id = self.begin(now, start, Phase::Launching, Status::Launching);
        self.failed_at(now, id, at, facts);
    }

    /// What libvirt's own log says of a start that was told without, as it could not be read then.
    fn told_why_later(&mut self, now: Now, domain: DomainId, at: Wall, facts: Vec<(Wall, Fact)>) {
        let lacking = |id: &RunId| self.ended.get(id).is_some_and(|ended| ended.is_unexplained_start(at));
        if let Some(id) = self.last_ended(domain).filter(lacking) {
            let why = facts.into_iter().filter(|(_, fact)| matches!(fact, Fact::StartTrouble(_)));
            self.late(now, id, why.collect::<Vec<_>>());
        }
    }

    fn failed_at(&mut self, now: Now, id: RunId, at: Wall, facts: Vec<(Wall, Fact)>) {
        for (at, fact) in facts {
            self.note(id, at, fact);
        }
        if let Some(run) = self.runs.get_mut(&id) {
            run.looked_into = true;
        }
        self.end(now, id, When::At(at));
    }

    /// A run has ended that had never come up.
    pub(super) fn never_came_up(&mut self, now: Now, id: RunId, domain: DomainId) {
        let at = self.runs.get(&id).and_then(|run| run.dossier.items().iter().map(|e| e.last).max());
        let told = at.map_or(now.wall, |at| at.max(now.wall));
        self.failed.insert(domain, told);
        self.failed.retain(|_, told| now.wall.since(*told) <= REMEMBERED);
    }
}
