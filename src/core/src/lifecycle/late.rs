//! Proof that comes after an ending was told.
//!
//! ```text
//!   decided ──▶ remembered ──late fact──▶ decided again ──better──▶ Keep::Revised ──KeptRevision──▶ shown as corrected
//!                   │                          │
//!                   ▼ LATE_PROOF, or too many  ▼ no better: only remembered
//!               forgotten
//! ```
//!
//! What was certain is never looked at again. An ending counts as told from the moment at which the ledger has it, shown
//! or not: history may have shown it. Its exit code stays whatever comes, its end stays when it was, and a correction is
//! shown when it is on disk. At most one correction of a run is on its way.

use std::sync::Arc;

use super::attribution::Marks;
use super::effect::{Definition, Effect, Question};
use super::engine::{Echo, Engine};
use super::follow::ECHO;
use super::run::{PLACES_OF_A_KIND, same_kind};
use crate::evidence::{Dossier, Evidence, EvidenceId, Fact, Late};
use crate::hypervisor::{Happening, Process};
use crate::id::{DomainId, RunId};
use crate::limits;
use crate::record::{Certainty, Earlier, Ending, Keep, RunStart};
use crate::time::{Mono, Now, Wall};
use crate::verdict;

/// A start that failed is dated by an event or by libvirt's farewell, between which libvirt clears up.
const CLEARS_UP: std::time::Duration = std::time::Duration::from_secs(10);

/// An ended run that late proof may be about.
#[derive(Debug, Clone)]
pub(super) struct Ended {
    pub start: RunStart,
    /// As it was told last.
    pub ending: Arc<Ending>,
    dossier: Dossier,
    /// Pieces of what was told that say more since, as they were.
    changed: Vec<(EvidenceId, Evidence)>,
    /// A correction that the ledger has not answered yet.
    on_its_way: Option<Arc<Ending>>,
    /// Forgotten then.
    until: Mono,
    /// When its log is read again, the last of them first.
    looks: Vec<Mono>,
    /// What lowered its certainty may be known to the daemon before us alone.
    recovered: bool,
}

impl Ended {
    /// Whether this process ran it.
    pub fn was_run_by(&self, process: Process) -> bool {
        self.start.incarnation.process == Some(process)
    }

    /// Whether it is a start that failed at about this moment, with this farewell if that is known, of which libvirt's own log
    /// was not read.
    pub fn is_unexplained_start(&self, at: Wall, farewell: Option<Wall>) -> bool {
        let ended = self.ending.ended.latest();
        let has = |wanted: fn(&Fact) -> bool| self.dossier.find(wanted).is_some();
        let its = self.dossier.items().iter().find_map(|piece| match piece.fact {
            Fact::LogEnd { at, .. } => at,
            _ => None,
        });
        its.zip(farewell).is_none_or(|(its, farewell)| its == farewell)
            && ended.since(at).max(at.since(ended)) <= CLEARS_UP
            && has(|f| matches!(f, Fact::StartFailed { .. }))
            && !has(|f| matches!(f, Fact::StartTrouble(_)))
    }

    fn log_said_nothing(&self) -> bool {
        let read = self.dossier.find(|f| matches!(f, Fact::LogEnd { .. })).is_some();
        let tried = self.dossier.find(|f| matches!(f, Fact::LogUnread(_) | Fact::LogSilent)).is_some();
        tried && !read
    }

    /// True if it is news.
    fn take_in(&mut self, at: Wall, fact: Fact) -> bool {
        let same = self.dossier.items().iter().filter(|e| same_kind(&e.fact, &fact)).count();
        let known = self.dossier.find(|f| f.is_same(&fact)).is_some();
        if !known && same >= PLACES_OF_A_KIND {
            return false;
        }
        match self.dossier.add_late(at, fact) {
            Late::NoNews => return false,
            Late::New => {}
            Late::Completed(place, before) => {
                let handed_over = self.on_its_way.as_ref().unwrap_or(&self.ending);
                let told = usize::from(place) < handed_over.evidence.len();
                if told && self.changed.iter().all(|(known, _)| *known != place) {
                    self.changed.push((place, before));
                }
            }
        }
        true
    }
}

impl Engine {
    /// An ending was handed to the ledger: from now on only proof changes it. `looked` says whether the remains of the
    /// run were looked at.
    pub(super) fn remember_ended(
        &mut self,
        now: Now,
        start: RunStart,
        dossier: Dossier,
        ending: &Arc<Ending>,
        looked: bool,
    ) {
        if ending.verdict.certainty == Certainty::Certain {
            return;
        }
        let mut ended = Ended {
            start,
            ending: Arc::clone(ending),
            dossier,
            changed: Vec::new(),
            on_its_way: None,
            until: now.mono.after(limits::LATE_PROOF),
            looks: Vec::new(),
            recovered: false,
        };
        if !looked || ended.log_said_nothing() {
            ended.looks = limits::SECOND_LOOKS.iter().rev().map(|wait| now.mono.after(*wait)).collect();
        }
        self.put_among_ended(ended);
    }

    /// The endings that a daemon before us told a short time ago.
    pub(super) fn recover_ended(&mut self, now: Now, recovered: Vec<(RunStart, Ending)>) {
        for (start, ending) in recovered {
            let age = now.wall.since(ending.ended.latest());
            if age > limits::LATE_PROOF || ending.verdict.certainty == Certainty::Certain {
                continue;
            }
            // libvirt may still be to report an end that was found.
            let heard = |f: &Fact| matches!(f, Fact::Host(Happening::Stopped(_)));
            let found = ending.evidence.iter().all(|piece| !heard(&piece.fact));
            if found && age <= ECHO && start.incarnation.boot == self.settings.boot {
                let libvirt_id = start.incarnation.libvirt_id;
                let echo = Echo { at: now.mono, heard: false, libvirt_id, ghost: None };
                self.echoes.insert(start.domain, echo);
            }
            let mut ended = Ended {
                start,
                dossier: Dossier::from_items(ending.evidence.clone()),
                ending: Arc::new(ending),
                changed: Vec::new(),
                on_its_way: None,
                until: now.mono.after(limits::LATE_PROOF),
                looks: Vec::new(),
                recovered: true,
            };
            if ended.log_said_nothing() {
                ended.looks = limits::SECOND_LOOKS.iter().rev().map(|wait| now.mono.after(*wait)).collect();
            }
            self.put_among_ended(ended);
        }
    }

    fn put_among_ended(&mut self, ended: Ended) {
        self.ended.insert(ended.start.run, ended);
        while self.ended.len() > limits::ENDED_RUNS {
            self.ended.pop_first();
        }
    }

    /// Forgets those whose time is over. One with a correction on its way waits for the ledger's answer.
    pub(super) fn forget_old_endings(&mut self, now: Now) {
        self.ended.retain(|_, ended| ended.on_its_way.is_some() || ended.until > now.mono);
    }

    /// When a log is to be read again.
    pub(super) fn next_second_look(&self) -> Option<Mono> {
        self.ended.values().filter_map(|ended| ended.looks.last().copied()).min()
    }

    /// Reads logs again whose time has come. Where the domain has a later run already, its log speaks of that one too, and
    /// is left alone.
    pub(super) fn look_again(&mut self, now: Now) {
        let due: Vec<RunId> = self
            .ended
            .iter()
            .filter(|(_, ended)| ended.looks.last().is_some_and(|at| *at <= now.mono))
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            let Some(ended) = self.ended.get_mut(&id) else { continue };
            ended.looks.retain(|at| *at > now.mono);
            let domain = ended.start.domain;
            if !ended.ending.is_final() && self.is_latest(domain, id) {
                self.ask_for_remains_of_ended(id);
            }
        }
    }

    fn ask_for_remains_of_ended(&mut self, id: RunId) {
        let Some(ended) = self.ended.get(&id) else { return };
        let RunStart { domain, at: started, seen: seen_start, .. } = ended.start;
        let marks = Marks { domain, started, seen_start, next_start: None, previous: None, failing: false };
        let name = ended.start.name.clone();
        let boot_before = self.boot_that_is_over(&ended.start);
        self.ask(Question::Remains {
            run: id,
            domain,
            name,
            marks,
            boot_before,
            definition: Definition::Unwanted,
        });
    }

    /// Whether no later run of this domain is known.
    pub(super) fn is_latest(&self, domain: DomainId, id: RunId) -> bool {
        self.current.get(&domain).is_none_or(|current| *current == id)
            && self.down.get(&domain).is_none_or(|down| down.ending.run == id)
    }

    /// The domain starts from a snapshot. If that had stopped its last run, and nobody saw it left off in between, that run
    /// was gone back from.
    pub(super) fn starts_from_snapshot(&mut self, now: Now, domain: DomainId, at: Wall) {
        let Some(id) = self.last_ended(domain) else { return };
        // One that came after it, certain or still to be told, is what was gone back from.
        let later = self.latest.get(&domain).is_some_and(|seen| seen.run > id);
        let Some(ended) = self.ended.get(&id).filter(|_| !later && self.is_latest(domain, id)) else {
            return;
        };
        let seen_off = ended.dossier.find(|f| match f {
            Fact::Found { state, .. } => !state.is_active(),
            Fact::Gone => true,
            _ => false,
        });
        if seen_off.is_none() && verdict::was_stopped_by_a_snapshot(&ended.dossier) {
            self.late(now, id, [(at, Fact::NextFromSnapshot)]);
        }
    }

    /// The run of this domain that ended last, if it is remembered.
    pub(super) fn last_ended(&self, domain: DomainId) -> Option<RunId> {
        let its = |ended: &Ended| ended.start.domain == domain && !ended.ending.was_told_later();
        self.ended.iter().rev().find(|(_, ended)| its(ended)).map(|(id, _)| *id)
    }

    /// Ended runs that what a witness says of this process number is about. Numbers are given again: what is said of one
    /// that was not there any more is about somebody else.
    pub(super) fn ended_with_pid(&self, pid: u32, at: Wall) -> Vec<RunId> {
        let runs_now = |run: &super::run::Run| run.start.incarnation.process.is_some_and(|p| p.pid == pid);
        if self.runs.values().any(|run| run.is_open() && runs_now(run)) {
            return Vec::new();
        }
        self.ended
            .iter()
            .filter(|(_, ended)| {
                ended.start.incarnation.process.is_some_and(|p| p.pid == pid)
                    && ended.start.incarnation.boot == self.settings.boot
                    && ended.start.at <= at.after(limits::CLOCK_GRACE)
                    && at <= ended.ending.ended.latest().after(limits::CLOCK_GRACE)
            })
            .map(|(id, _)| *id)
            .collect()
    }

    /// The run in which this domain was at that moment: the last that had begun, unless it had ended before.
    pub(super) fn run_at(&self, domain: DomainId, at: Wall) -> Option<RunId> {
        let open = self.runs.iter().map(|(id, run)| (&run.start, *id, None));
        let ended = self.ended.iter().map(|(id, run)| (&run.start, *id, Some(run.ending.ended.latest())));
        let of_it = open.chain(ended).filter(|(start, ..)| start.domain == domain && start.at <= at);
        let (_, id, end) = of_it.max_by_key(|(start, id, _)| (start.at, *id))?;
        end.is_none_or(|end| at <= end.after(limits::CLOCK_GRACE)).then_some(id)
    }

    /// Ended runs to which a word on the host may belong: it comes a little late where the host is slow.
    pub(super) fn ended_just_before(&self, at: Wall) -> Vec<RunId> {
        self.ended
            .iter()
            .filter(|(_, ended)| {
                let end = ended.ending.ended.latest();
                end <= at && at.since(end) <= limits::HOST_WORD_DELAY
            })
            .map(|(id, _)| *id)
            .collect()
    }

    /// Facts about a run whose ending was told.
    pub(super) fn late(&mut self, now: Now, id: RunId, facts: impl IntoIterator<Item = (Wall, Fact)>) {
        let Some(ended) = self.ended.get_mut(&id) else { return };
        let mut news = false;
        for (at, fact) in facts {
            news |= ended.take_in(at, fact);
        }
        if news {
            self.revise(now, id);
        }
    }

    /// Decides again, and hands a better answer to the ledger.
    fn revise(&mut self, now: Now, id: RunId) {
        let Some(ended) = self.ended.get_mut(&id) else { return };
        if ended.on_its_way.is_some() || ended.ending.is_final() {
            return;
        }
        let told = &ended.ending;
        let mut verdict = verdict::decide(&ended.dossier, told.ended.latest());
        if ended.recovered {
            verdict.certainty = verdict.certainty.min(Certainty::Probable);
        }
        let row = verdict.cause.row();
        let message = verdict.cause.message(verdict::text_of(verdict.cause, &ended.dossier).as_deref());
        let is_late = |id: &EvidenceId| {
            usize::from(*id) >= told.evidence.len() || ended.changed.iter().any(|(changed, _)| changed == id)
        };
        // Another version of this program may think otherwise of the same evidence: that is no proof.
        let is_proved = verdict.because.iter().any(is_late);
        // Another row alone is no news to anybody, but who did it is.
        let names_somebody = |id: &&EvidenceId| {
            let fact = ended.dossier.items().get(usize::from(**id)).map(|piece| &piece.fact);
            matches!(fact, Some(Fact::Signalled { .. } | Fact::LogSignal { .. } | Fact::OomKilled { .. }))
        };
        let differs = (verdict.cause, verdict.certainty, &message)
            != (told.verdict.cause, told.verdict.certainty, &told.message)
            || verdict.because.iter().filter(names_somebody).any(is_late);
        if !differs || !is_proved || verdict.certainty < told.verdict.certainty {
            return;
        }
        let mut earlier = told.earlier.clone();
        earlier.push(Earlier {
            until: now.wall,
            verdict: told.verdict.clone(),
            exit_reason: told.exit_reason,
            message: told.message.clone(),
            facts: u16::try_from(told.evidence.len()).unwrap_or(u16::MAX),
            changed: std::mem::take(&mut ended.changed),
        });
        let same_code = row.exit_code == told.exit_code;
        let ending = Arc::new(Ending {
            verdict,
            // A manager has read the exit code and acts by it; the reason must fit it.
            exit_reason: if same_code { row.exit_reason } else { told.exit_reason },
            message,
            evidence: ended.dossier.items().to_vec(),
            acknowledged: told.acknowledged.clone().filter(|_| told.was_told_later()),
            earlier,
            ..(**told).clone()
        });
        ended.on_its_way = Some(Arc::clone(&ending));
        self.keep(ending.domain, Keep::Revised(Arc::clone(&ending)));
    }

    /// A correction is on disk.
    pub(super) fn kept_revision(&mut self, now: Now, id: RunId, number: u16) {
        let Some(ended) = self.ended.get_mut(&id) else { return };
        let Some(ending) = ended.on_its_way.take_if(|ending| ending.revision() == number) else { return };
        ended.ending = Arc::clone(&ending);
        match self.down.iter_mut().find(|(_, down)| down.ending.run == id) {
            Some((domain, down)) => {
                let domain = *domain;
                down.ending = ending;
                self.touch(now, domain);
            }
            None => self.effects.push(Effect::Corrected(ending)),
        }
        // What came meanwhile may say still more.
        self.revise(now, id);
    }
}

impl Ending {
    /// Whether nothing that may come changes it any more.
    fn is_final(&self) -> bool {
        self.verdict.certainty == Certainty::Certain || self.earlier.len() >= limits::REVISIONS
    }
}
