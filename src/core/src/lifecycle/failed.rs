//! Starts by other clients that failed. libvirt reports no event where it refuses before QEMU runs: it only calls the domain
//! off for the reason *failed*, writes its farewell into QEMU's log, and tells the kernel's audit. Whoever looks there tells
//! us, each failure once or more often, and maybe when the domain has started since.
//!
//! ```text
//!   a failure ──the own end of a run that had come up, or told before──▶ nothing, or why it failed
//!       │
//!       ├──the monitor's error was heard of it──▶ that run ends
//!       ├──a later run of its domain is known──▶ an ending of its own, in history alone
//!       └──else──▶ a run of its own, which ends
//! ```

use std::sync::Arc;
use std::time::Duration;

use super::engine::{Echo, Engine};
use super::run::Phase;
use super::settle::dated;
use crate::evidence::{Dossier, Fact, LogWord, OperationKind};
use crate::hypervisor::DomainRef;
use crate::id::{DomainId, RunId};
use crate::limits;
use crate::log::LogBlock;
use crate::record::{Acknowledged, Ending, Keep, RunStart, TOLD_LATER, Verdict, When};
use crate::snapshot::{Link, Status};
use crate::time::{Now, Wall};
use crate::verdict;

/// How long it is remembered which starts failed last. Who tells of them later asks the ledger before.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// And how many of one domain. One that is started again and again for ever must not fill the memory.
const OF_A_DOMAIN: usize = 64;

/// libvirt tells of one failure in several ways within this time, as far as each is dated by a clock of its own.
const ONE_MOMENT: Duration = Duration::from_millis(500);

/// A start that failed, as somebody tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedStart {
    /// Of which domain.
    pub domain: DomainRef,
    /// When it was over.
    pub at: Wall,
    /// When its QEMU was started, if there is a part of QEMU's log that tells of that.
    pub began: Option<Wall>,
    /// All that is known of it, with the times.
    pub facts: Vec<(Wall, Fact)>,
}

impl FailedStart {
    /// Whether it tells only why a start failed of which was told before.
    fn only_says_why(&self) -> bool {
        !self.facts.iter().any(|(_, fact)| matches!(fact, Fact::StartFailed { .. }))
    }

    /// libvirt's farewell to it in QEMU's log.
    fn farewell(&self) -> Option<Wall> {
        farewell(self.facts.iter().map(|(_, fact)| fact))
    }
}

fn farewell<'a>(facts: impl IntoIterator<Item = &'a Fact>) -> Option<Wall> {
    facts.into_iter().find_map(|fact| match fact {
        Fact::LogEnd { word: LogWord::Failed, at } => *at,
        _ => None,
    })
}

/// A start of a domain that failed and was told.
#[derive(Debug, Clone)]
pub(super) struct ToldStart {
    run: RunId,
    /// It failed in this time.
    from: Wall,
    until: Wall,
    /// libvirt's farewell to it in QEMU's log, as far as that is known.
    farewell: Option<Wall>,
}

impl Engine {
    /// A start failed, as these facts show.
    pub(super) fn start_failed(&mut self, now: Now, mut failed: FailedStart) {
        failed.at = failed.at.min(now.wall);
        if !self.settled || !matches!(self.link, Link::Up) || self.is_the_end_of_a_run(&failed) {
            return;
        }
        let (domain, at) = (failed.domain.id, failed.at);
        if self.was_told(&failed) || failed.only_says_why() {
            return self.told_why_later(now, domain, at, failed.facts);
        }
        let open = self.current.get(&domain).copied().filter(|id| self.runs[id].is_open());
        if let Some(id) = open.filter(|id| self.failed_unasked(*id)) {
            let began = self.runs[&id].start.at;
            // An event told of it first, and libvirt still showed it as being started when it was asked.
            if failed.began.is_none_or(|its| its <= began) && at.after(limits::CLOCK_GRACE) >= began {
                return self.failed_at(now, id, began, failed.facts);
            }
            if at > began {
                self.another_follows(now, id, failed.began.unwrap_or(at));
            }
        } else if open.is_some_and(|id| self.runs[&id].start.at <= at) {
            // Of a run that goes on, or of one that we start, libvirt's answer and the events tell.
            return;
        }
        if self.latest_known(domain).is_some_and(|latest| latest.started > at) {
            return self.tell_later(now, failed);
        }
        let start = self.new_start(now, &failed.domain, failed.began.unwrap_or(at).min(at), true, None);
        let id = self.begin(now, start, Phase::Launching, Status::Launching);
        self.failed_at(now, id, at, failed.facts);
    }

    /// Whether this run is a start by another client, of which is only known that its monitor broke.
    pub(super) fn failed_unasked(&self, id: RunId) -> bool {
        self.runs.get(&id).is_some_and(|run| run.phase == Phase::Launching && !run.pending.creating)
    }

    /// A start of which was heard that its monitor broke is over: its domain was started again at this moment.
    pub(super) fn another_follows(&mut self, now: Now, id: RunId, next: Wall) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.next = Some(next);
        let at = run.start.at;
        self.end(now, id, When::At(at));
    }

    /// Whether it is what became of a run that had come up: then that began while its QEMU lived.
    fn is_the_end_of_a_run(&self, failed: &FailedStart) -> bool {
        let Some(began) = failed.began else { return false };
        let domain = failed.domain.id;
        let told = self.failed.get(&domain);
        let came_up = |run: RunId| told.is_none_or(|told| told.iter().all(|start| start.run != run));
        let followed = self.runs.values().filter(|run| run.phase != Phase::Launching);
        let followed = followed.map(|run| (run.start.domain, run.start.run, run.start.at));
        let ended = self.ended.values().map(|ended| (ended.start.domain, ended.start.run, ended.start.at));
        let latest = self.latest.get(&domain).map(|seen| (seen.domain, seen.run, seen.at));
        followed
            .chain(ended)
            .chain(latest)
            .any(|(its, run, start)| its == domain && (began..=failed.at).contains(&start) && came_up(run))
    }

    /// Whether it was told, by whatever way it was heard of. Of those that nobody knows the farewell of, one is known by it from
    /// now on.
    fn was_told(&mut self, failed: &FailedStart) -> bool {
        let (domain, farewell) = (failed.domain.id, failed.farewell());
        let known = farewell.map(|at| Fact::LogEnd { word: LogWord::Failed, at: Some(at) });
        // Whoever reads QEMU's logs after an absence may have told of it.
        if let Some(known) = known {
            let followed = self.runs.values().filter(|run| run.start.domain == domain);
            let followed = followed.flat_map(|run| run.dossier.items());
            let down = self.down.get(&domain).into_iter().flat_map(|down| &down.ending.evidence);
            if followed.chain(down).any(|piece| piece.fact == known) {
                return true;
            }
        }
        let Some(told) = self.failed.get_mut(&domain) else { return false };
        let same = |start: &&mut ToldStart| match (start.farewell, farewell) {
            (Some(its), Some(this)) => its == this,
            _ => (start.from..=start.until).contains(&failed.at),
        };
        match told.iter_mut().find(same) {
            Some(start) => {
                start.farewell = start.farewell.or(farewell);
                true
            }
            None => false,
        }
    }

    /// What libvirt's own log says of a start that was told without, as it could not be read then.
    fn told_why_later(&mut self, now: Now, domain: DomainId, at: Wall, facts: Vec<(Wall, Fact)>) {
        let lacking = self.ended.iter().rev().find(|(_, ended)| {
            ended.start.domain == domain
                && ended.is_unexplained_start(at, farewell(facts.iter().map(|f| &f.1)))
        });
        if let Some(id) = lacking.map(|(id, _)| *id) {
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

    /// A start that failed before a run of its domain that is known already.
    fn tell_later(&mut self, now: Now, failed: FailedStart) {
        let FailedStart { domain, at, began, .. } = &failed;
        let mut start = self.new_start(now, domain, began.unwrap_or(*at).min(*at), true, None);
        start.incarnation.libvirt_id = None;
        let mut dossier = Dossier::default();
        for (at, fact) in &failed.facts {
            dossier.add(*at, fact.clone());
        }
        self.remember_told(now, domain.id, start.run, (*at, *at), &dossier);
        self.tell_in_history(now, start, dossier, When::At(*at));
    }

    /// An ending, and nothing of what is shown: a later run of its domain is known.
    fn tell_in_history(&mut self, now: Now, start: RunStart, dossier: Dossier, end: When) {
        let (ended, heard) = dated(start.at, end, &dossier);
        let acknowledged = Some(Acknowledged { at: now.wall, by: TOLD_LATER.into() });
        let verdict = verdict::decide(&dossier, heard);
        let ending = Ending { acknowledged, ..ending_of(&start, &start.name, &dossier, ended, verdict) };
        let ending = Arc::new(ending);
        self.remember_ended(now, start, dossier, &ending, true);
        self.keep(ending.domain, Keep::Ending(ending));
    }

    /// A run of which its part of QEMU's log alone tells, and that was over before its domain's present run came up.
    pub(super) fn tell_as_before(&mut self, now: Now, domain: DomainId, block: &LogBlock, gap: Fact) {
        let Some(began) = block.began else { return };
        let named = DomainRef { id: domain, name: block.name.clone(), libvirt_id: None };
        let start = self.new_start(now, &named, began, false, None);
        let mut dossier = Dossier::default();
        dossier.add(now.wall, gap);
        dossier.add(began, Fact::LogStart { at: began, incoming: block.incoming });
        for (at, fact) in &block.facts {
            dossier.add(*at, fact.clone());
        }
        dossier.add(now.wall, Fact::Replaced);
        if let Some((LogWord::Failed, at)) = block.farewell() {
            self.remember_told(now, domain, start.run, (at, at), &dossier);
        }
        if self.changing.contains(&domain) {
            let echo = Echo { at: now.mono, heard: false, libvirt_id: None, ghost: None };
            self.echoes.entry(domain).or_insert(echo);
        }
        self.tell_in_history(now, start, dossier, When::Between(began, now.wall.max(began)));
    }

    /// A run has ended that had never come up.
    pub(super) fn never_came_up(&mut self, now: Now, id: RunId) {
        let Some(run) = self.runs.get(&id) else { return };
        let (domain, began, dossier) = (run.start.domain, run.start.at, run.dossier.clone());
        let asked =
            dossier.find(|f| matches!(f, Fact::Requested { what: OperationKind::Create, .. })).is_some();
        // Where it was found by its farewell, that is when it failed. An event may come a moment after that.
        let (from, until) = match dossier.find(|f| matches!(f, Fact::StartFailed { .. })) {
            Some((_, told)) if run.looked_into => {
                (told.first.before(ONE_MOMENT), told.first.after(ONE_MOMENT))
            }
            // libvirt says farewell to what it was asked to start after it was asked.
            _ if asked => (began, now.wall.max(began)),
            _ => (began.before(limits::CLOCK_GRACE), now.wall.max(began)),
        };
        self.remember_told(now, domain, id, (from, until), &dossier);
    }

    /// The most that is remembered of one domain.
    #[cfg(test)]
    pub(super) fn remembers_failed_starts(&self) -> usize {
        self.failed.values().map(std::collections::VecDeque::len).max().unwrap_or_default()
    }

    fn remember_told(
        &mut self,
        now: Now,
        domain: DomainId,
        run: RunId,
        (from, until): (Wall, Wall),
        dossier: &Dossier,
    ) {
        let farewell = farewell(dossier.items().iter().map(|piece| &piece.fact));
        let told = self.failed.entry(domain).or_default();
        if told.len() == OF_A_DOMAIN {
            told.pop_front();
        }
        told.push_back(ToldStart { run, from, until, farewell });
        self.failed
            .retain(|_, told| told.back().is_some_and(|last| now.wall.since(last.until) <= REMEMBERED));
    }

    /// What is known of it when it is written down tells it from others.
    pub(super) fn recorded_start(&mut self, id: RunId) {
        let Some(run) = self.runs.get(&id) else { return };
        let known = farewell(run.dossier.items().iter().map(|piece| &piece.fact));
        let told = self.failed.get_mut(&run.start.domain).into_iter().flatten();
        for start in told.filter(|start| start.run == id) {
            start.farewell = start.farewell.or(known);
        }
    }
}

/// The ending of a run, as it is decided for the first time. `heard`: the moment by which the end is dated.
pub(super) fn ending_of(
    start: &RunStart,
    name: &str,
    dossier: &Dossier,
    ended: When,
    verdict: Verdict,
) -> Ending {
    let row = verdict.cause.row();
    let text = verdict::text_of(verdict.cause, dossier);
    Ending {
        run: start.run,
        domain: start.domain,
        name: name.to_owned(),
        started: start.at,
        ended,
        exit_code: row.exit_code,
        exit_reason: row.exit_reason,
        message: verdict.cause.message(text.as_deref()),
        verdict,
        evidence: dossier.items().to_vec(),
        acknowledged: None,
        earlier: Vec::new(),
    }
}
