//! What must be true after every step of every story, whatever the world does.
//!
//! Nothing here is fatal: what is broken is collected, with the moment, so that a failing story tells all of it.

mod rest;

use std::collections::{BTreeMap, BTreeSet};

use whydown_core::evidence::{Fact, OperationKind};
use whydown_core::id::{DomainId, RequestId, RunId};
use whydown_core::lifecycle::{Answer, Effect, Input, Question, Reply, Request, Wanted};
use whydown_core::limits;
use whydown_core::operation::Operation;
use whydown_core::record::{Certainty, Ending, Keep, RunStart, When};
use whydown_core::snapshot::{DomainPublic, Snapshot, Status};
use whydown_core::time::{Now, Wall};
use whydown_core::verdict::ROWS;

use crate::ledger::{ToldLedger, Tried};

/// See the module page.
#[derive(Debug, Default)]
pub struct Invariants {
    broken: Vec<String>,
    /// Runs as the present daemon, or the ledger before it, knows them.
    starts: BTreeMap<RunId, RunStart>,
    /// Endings of the present daemon.
    ended: BTreeSet<RunId>,
    /// Endings of which the present daemon was told that they must wait.
    not_kept: BTreeSet<RunId>,
    /// Requests to the present daemon, and how often each was answered.
    requests: BTreeMap<RequestId, u32>,
    /// The highest status time that readers of the present daemon saw of each domain.
    status_times: BTreeMap<DomainId, i64>,
    /// The same for the daemons before.
    status_times_before: BTreeMap<DomainId, i64>,
    /// The latest moment that the present daemon's ledger knew, in milliseconds.
    floor: i64,
    /// The highest run that readers of the present daemon saw of each domain.
    shown_runs: BTreeMap<DomainId, RunId>,
    /// Every run that any daemon ever gave a number, and how it began.
    given: BTreeMap<RunId, (DomainId, Wall)>,
    /// Runs that readers saw while nobody said that the ledger cannot be written.
    seen_runs: BTreeSet<RunId>,
    /// When each run began, as readers first saw it of one that was no longer being launched, while nobody said that the ledger
    /// cannot be written.
    shown_starts: BTreeMap<RunId, Wall>,
    /// Runs whose destroy was answered as done while nobody said that the ledger cannot be written.
    destroyed: BTreeSet<RunId>,
    /// Destroys that the present daemon was asked for, and of which run.
    destroys: BTreeMap<RequestId, Option<RunId>>,
    /// What the present daemon handed over: in all, and the number of the last about each domain.
    handed: u64,
    handed_last: BTreeMap<DomainId, u64>,
    /// So much of it is on disk.
    on_disk: u64,
    /// After how much each request to the present daemon may be answered: what was known of its domain when it came, and its
    /// own record.
    needs: BTreeMap<RequestId, u64>,
    /// Whether the present daemon's ledger said that it cannot write, and has not written since.
    cannot_write: bool,
    /// The exit code with which each run was first told, by any daemon.
    exit_codes: BTreeMap<RunId, u8>,
    /// The latest correction of each run that readers saw.
    shown_revisions: BTreeMap<RunId, u16>,
    /// Every status and ending that readers ever saw.
    shown: BTreeSet<(DomainId, &'static str)>,
}

impl Invariants {
    /// What was found to be broken.
    pub fn broken(&self) -> &[String] {
        &self.broken
    }

    /// How a run began, as the present daemon knows it.
    pub fn start_of(&self, run: RunId) -> Option<&RunStart> {
        self.starts.get(&run)
    }

    /// Whether readers ever saw this domain in a status, or down for a cause: by their stable words.
    pub fn was_shown(&self, domain: DomainId, word: &str) -> bool {
        self.shown.iter().any(|(shown, seen)| *shown == domain && *seen == word)
    }

    /// How often each request to the present daemon was answered.
    pub fn requests(&self) -> &BTreeMap<RequestId, u32> {
        &self.requests
    }

    pub(crate) fn asked(&mut self, request: RequestId) {
        self.requests.insert(request, 0);
    }

    pub(crate) fn committed(&mut self, tried: &Tried) {
        self.not_kept.extend(&tried.not_kept);
        if tried.written {
            self.on_disk = tried.count;
        }
        self.cannot_write = !tried.written;
    }

    /// Runs that readers saw, and that have to be found for ever.
    pub fn seen_runs(&self) -> &BTreeSet<RunId> {
        &self.seen_runs
    }

    /// Runs whose destroy was answered as done.
    pub fn destroyed(&self) -> &BTreeSet<RunId> {
        &self.destroyed
    }

    pub(crate) fn crashed(&mut self) {
        self.requests.clear();
        self.destroys.clear();
        self.needs.clear();
        self.handed_last.clear();
        (self.handed, self.on_disk) = (0, 0);
        self.cannot_write = false;
        self.not_kept.clear();
        self.ended.clear();
        self.shown_runs.clear();
        for (id, shown) in std::mem::take(&mut self.status_times) {
            let before = self.status_times_before.entry(id).or_insert(shown);
            *before = shown.max(*before);
        }
    }

    /// The wall clock goes back. What a daemon showed that its ledger did not live to learn binds no later one any more.
    pub(crate) fn clock_went_back(&mut self) {
        for shown in self.status_times_before.values_mut() {
            *shown = self.floor.min(*shown);
        }
    }

    pub(crate) fn restarted(&mut self, now: Now, snapshot: Option<&Snapshot>, ledger: &ToldLedger) {
        self.starts = ledger.starts().clone();
        // What was shown and never reached the disk is decided anew.
        self.exit_codes.retain(|run, _| ledger.endings().contains_key(run));
        self.floor = ledger.latest().as_millis();
        if self.status_times_before.values().any(|shown| *shown > now.wall.as_millis()) {
            self.clock_went_back();
        }
        if let Some(snapshot) = snapshot {
            self.check_picture(now, snapshot, ledger);
        }
    }

    fn claim(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.broken.push(what());
        }
    }

    pub(crate) fn stepped(
        &mut self,
        now: Now,
        input: &Input,
        effects: &[Effect],
        before: &Snapshot,
        after: &Snapshot,
        ledger: &ToldLedger,
    ) {
        if let Input::Asked(Request { id, what: Wanted::Do { domain, act: Operation::Destroy }, .. }) = input
        {
            // The latest run is meant, shown or not.
            let run =
                self.starts.values().filter(|start| start.domain == *domain).map(|start| start.run).max();
            self.destroys.insert(*id, run);
        }
        if let Input::Asked(Request { id, what, .. }) = input {
            self.needs.insert(*id, self.handed_last.get(&what.domain()).copied().unwrap_or_default());
        }
        for effect in effects {
            if let Effect::Keep(keep) = effect {
                self.hand_over(input, keep);
            }
            match effect {
                Effect::Keep(Keep::Start(start)) => {
                    let known = self.starts.insert(start.run, start.clone()).is_some();
                    let given = self.given.insert(start.run, (start.domain, start.at));
                    self.claim(known || given.is_none(), || {
                        format!("run {} is given again: {given:?}, now {start:?}", start.run)
                    });
                }
                Effect::Ask(Question::Perform { run, act, .. }) => self.check_act(*run, act.kind(), ledger),
                Effect::Keep(Keep::Ending(ending)) => self.check_ending(ending, ledger),
                Effect::Keep(Keep::Revised(ending)) => self.check_revision(ending, ledger),
                Effect::Corrected(ending) => {
                    let on_disk = ledger.told_of(ending.run).any(|told| told == &**ending);
                    self.claim(on_disk, || format!("a correction is told before it is on disk: {ending:?}"));
                    self.check_exit_code(ending);
                }
                Effect::Reply(request, reply) => {
                    let times = self.requests.get_mut(request).map(|times| {
                        *times += 1;
                        *times
                    });
                    self.claim(times == Some(1), || {
                        format!("{request:?} is answered {times:?} times, now with {reply:?}")
                    });
                    self.check_destroyed(*request, reply, ledger);
                    let needs = self.needs.get(request).copied().unwrap_or_default();
                    // That nobody can be asked now says nothing of a VM.
                    let says_nothing = matches!(reply, Reply::DoneUnwritten | Reply::Unavailable(_));
                    let holds = needs <= self.on_disk || self.cannot_write || says_nothing;
                    self.claim(holds, || {
                        format!("{request:?} is answered with {reply:?} before what that needs is on disk")
                    });
                }
                Effect::Keep(_) | Effect::Ask(_) | Effect::Watch(_) | Effect::Publish | Effect::Hurry(_) => {}
            }
        }
        let publishes = effects.iter().filter(|effect| matches!(effect, Effect::Publish)).count() as u64;
        let rose = after.generation - before.generation;
        self.claim(rose == publishes, || format!("the generation rises by {rose} with {publishes} pictures"));
        let same = before.domains == after.domains && before.link == after.link;
        self.claim(rose > 0 || same && before.settled == after.settled, || {
            format!("the picture changes unsaid by {input:?}")
        });
        self.check_older_runs(input, before, after);
        self.check_gone(before, after, ledger);
        self.check_picture(now, after, ledger);
    }

    /// Counts what the ledger is handed. What a request has written is needed for its answer.
    fn hand_over(&mut self, input: &Input, keep: &Keep) {
        self.handed += 1;
        let run = match keep {
            Keep::Start(start) => start.run,
            Keep::Evidence(run, ..) | Keep::Acknowledge(run, _) => *run,
            Keep::Ending(ending) | Keep::Revised(ending) => ending.run,
            Keep::Made(..) | Keep::Alive(_) => return,
        };
        let begun = if let Keep::Start(start) = keep { Some(start.domain) } else { None };
        let Some(domain) = begun.or_else(|| self.starts.get(&run).map(|start| start.domain)) else { return };
        self.handed_last.insert(domain, self.handed);
        let own = match keep {
            Keep::Evidence(.., piece) => matches!(piece.fact, Fact::Requested { .. }),
            keep => matches!(keep, Keep::Start(_) | Keep::Acknowledge(..)),
        };
        if let Input::Asked(Request { id, what, .. }) = input
            && own
            && what.domain() == domain
        {
            self.needs.insert(*id, self.handed);
        }
    }

    /// News about a run never changes what is shown of a newer one.
    fn check_older_runs(&mut self, input: &Input, before: &Snapshot, after: &Snapshot) {
        let about = match input {
            Input::Kept(run)
            | Input::NotKept(run)
            | Input::Answered(Answer::Remains { run, .. } | Answer::Performed { run, .. }) => *run,
            _ => return,
        };
        let Some(domain) = self.starts.get(&about).map(|start| start.domain) else { return };
        if let Some(newer) = before.domains.get(&domain).filter(|shown| shown.run > about) {
            let now = after.domains.get(&domain);
            self.claim(now == Some(newer), || {
                format!("news of run {about} changed run {}: {newer:?} became {now:?}", newer.run)
            });
        }
    }

    /// libvirt is asked for nothing before the request is on disk.
    fn check_act(&mut self, run: RunId, what: OperationKind, ledger: &ToldLedger) {
        // What follows a request by itself, where an agent refuses, is part of it.
        let asked = ledger.asked(run, what) || self.cannot_write;
        self.claim(asked, || format!("libvirt is asked to {what:?} run {run} before that is on disk"));
    }

    /// A destroy is answered as done when a daemon that begins now would forget the run as well.
    fn check_destroyed(&mut self, request: RequestId, reply: &Reply, ledger: &ToldLedger) {
        let Some(Some(run)) = self.destroys.get(&request).copied() else { return };
        if *reply == Reply::Done {
            let certain = ledger.acknowledged().contains_key(&run) || ledger.is_destroyed(run);
            self.claim(certain, || format!("run {run} is told as destroyed and would come back"));
            self.destroyed.insert(run);
        }
    }

    /// What is no longer shown was acknowledged on disk, or destroyed at a request that is on disk: it, or a later run of its
    /// domain that took its place before it could be shown.
    fn check_gone(&mut self, before: &Snapshot, after: &Snapshot, ledger: &ToldLedger) {
        let gone = before.domains.iter().filter(|(id, _)| !after.domains.contains_key(id));
        for (domain, run) in gone.map(|(id, public)| (*id, public.run)).collect::<Vec<_>>() {
            let later = self.starts.values().filter(|start| start.domain == domain).map(|start| start.run);
            let on_disk = later.chain([run]).filter(|later| *later >= run).any(|run| {
                ledger.acknowledged().contains_key(&run) || ledger.asked(run, OperationKind::Destroy)
            });
            self.claim(on_disk || self.cannot_write, || {
                format!("run {run} is not shown any more, and nothing on disk says why")
            });
        }
    }

    fn check_picture(&mut self, now: Now, snapshot: &Snapshot, ledger: &ToldLedger) {
        for (id, public) in &snapshot.domains {
            self.check_domain(now, *id, public, ledger);
        }
    }

    /// Until libvirt has said that it started, the time is that of the request.
    fn check_start(&mut self, public: &DomainPublic) {
        if public.status != Status::Launching {
            let first = *self.shown_starts.entry(public.run).or_insert(public.started);
            self.claim(first == public.started, || {
                format!("run {} was shown with its start at {first:?}: {public:?}", public.run)
            });
        }
    }

    fn check_domain(&mut self, now: Now, id: DomainId, public: &DomainPublic, ledger: &ToldLedger) {
        let on_disk = ledger.starts().contains_key(&public.run) || self.cannot_write;
        self.claim(on_disk, || format!("run {} is shown before it is on disk", public.run));
        if !self.cannot_write {
            self.seen_runs.insert(public.run);
            self.check_start(public);
        }
        let down = public.status == Status::Down;
        self.claim(!down || !self.destroyed.contains(&public.run), || {
            format!("run {} was told as destroyed and is Down again", public.run)
        });
        self.claim(down == public.ending.is_some(), || {
            format!("Down without ending, or the reverse: {public:?}")
        });
        if let Some(ending) = &public.ending {
            let (run, durable) = (ending.run, public.durable);
            self.claim(run == public.run, || format!("run {} is shown with run {run}'s ending", public.run));
            let kept = ledger.endings().get(&run);
            self.claim(!durable || kept.is_some(), || format!("run {run} is Down before it is on disk"));
            let told = durable || self.not_kept.contains(&run);
            self.claim(told, || format!("run {run} is Down though nobody said that it cannot be kept"));
            if kept.is_some() {
                let as_kept = ledger.told_of(run).any(|told| told == &**ending);
                self.claim(as_kept, || format!("run {run} is shown otherwise than it was kept"));
            }
            let again = self.shown_revisions.insert(run, ending.revision());
            self.claim(again <= Some(ending.revision()), || {
                format!("run {run} is shown as it was before its correction {again:?}")
            });
            self.check_exit_code(ending);
            self.shown.insert((id, ending.verdict.cause.word()));
        }
        self.shown.insert((id, word_of(public.status)));
        let before = self.status_times_before.get(&id).copied().unwrap_or(i64::MIN);
        let last = self.status_times.insert(id, public.status_time).unwrap_or(before);
        // Only a time that a wrong clock showed, more than an hour ahead, is taken back.
        let wrong = last > now.wall.after(limits::CLOCK_AHEAD).as_millis();
        self.claim(last <= public.status_time || wrong, || {
            format!("the status time of {} goes back from {last} to {}", public.name, public.status_time)
        });
        let highest = self.shown_runs.insert(id, public.run);
        self.claim(highest <= Some(public.run), || {
            format!("{} goes back from run {highest:?} to run {}", public.name, public.run)
        });
    }

    /// A manager acts once on an exit code: it is the same in everything that is ever shown or kept of a run, over all
    /// daemons.
    fn check_exit_code(&mut self, ending: &Ending) {
        let run = ending.run;
        let first = *self.exit_codes.entry(run).or_insert(ending.exit_code);
        self.claim(first == ending.exit_code, || {
            format!("run {run} was told with exit code {first} and then {}", ending.exit_code)
        });
        let numbers = ending.numbers_of().row();
        self.claim(
            (ending.exit_code, ending.exit_reason) == (numbers.exit_code, numbers.exit_reason),
            || format!("run {run}'s numbers are not those of a cause that was told: {ending:?}"),
        );
    }

    fn check_revision(&mut self, ending: &Ending, ledger: &ToldLedger) {
        let run = ending.run;
        let told = ledger.endings().get(&run);
        let known = self.ended.contains(&run) || told.is_some();
        self.claim(known, || format!("run {run} is corrected and never ended"));
        let certain = told.is_some_and(|told| told.verdict.certainty == Certainty::Certain);
        self.claim(!certain, || format!("run {run} was certain and is corrected: {ending:?}"));
        let before = ending.earlier.last();
        let was_sure = before.is_some_and(|before| before.verdict.certainty <= ending.verdict.certainty);
        self.claim(was_sure, || format!("run {run} is corrected to what is less sure: {ending:?}"));
        self.claim(ending.earlier.len() <= limits::REVISIONS, || format!("run {run} is corrected for ever"));
        self.check_exit_code(ending);
        self.check_form(ending);
    }

    fn check_ending(&mut self, ending: &Ending, ledger: &ToldLedger) {
        let run = ending.run;
        let begun = self.starts.contains_key(&run) || ending.was_told_later();
        self.claim(begun, || format!("run {run} ends and never began"));
        let first = self.ended.insert(run);
        self.claim(first, || format!("run {run} ends twice"));
        self.claim(!ledger.endings().contains_key(&run), || {
            format!("run {run} ends again after its ending was kept")
        });
        self.claim(ending.revision() == 0, || format!("run {run} ends corrected: {ending:?}"));
        self.check_exit_code(ending);
        self.check_form(ending);
    }

    fn check_form(&mut self, ending: &Ending) {
        let run = ending.run;
        let Ending { verdict, evidence, .. } = ending;
        self.claim(!verdict.because.is_empty(), || format!("run {run} ends without a because: {ending:?}"));
        let ids = verdict.because.iter().chain(&verdict.despite);
        let valid = ids.clone().all(|id| usize::from(*id) < evidence.len());
        self.claim(valid, || format!("run {run} points at evidence that is not there: {ending:?}"));
        let both = verdict.because.iter().any(|id| verdict.despite.contains(id));
        self.claim(!both, || format!("run {run} has evidence for and against itself: {ending:?}"));
        let row = ROWS.iter().find(|row| row.label == verdict.row);
        self.claim(
            row.is_some_and(|row| row.cause == verdict.cause && verdict.certainty <= row.certainty),
            || format!("run {run} says more than its row: {verdict:?}"),
        );
        self.claim(!ending.message.trim().is_empty(), || format!("run {run} ends without a message"));
        self.claim(evidence.len() <= limits::FACTS_PER_RUN, || format!("run {run} has too much evidence"));
        let ordered = match ending.ended {
            When::At(_) => true,
            When::Between(from, to) => from <= to,
        };
        let clock_set = evidence.iter().any(|piece| matches!(piece.fact, Fact::ClockSet { .. }));
        self.claim(clock_set || ending.started <= ending.ended.earliest(), || {
            format!("run {run} began at {:?} and had ended at {:?}", ending.started, ending.ended)
        });
        self.claim(ordered, || format!("run {run} ends in a window turned round: {:?}", ending.ended));
        let shadowed =
            evidence.iter().any(|piece| matches!(piece.fact, Fact::Gap { to, .. } if in_shadow(ending, to)));
        self.claim(!shadowed || verdict.certainty < Certainty::Certain, || {
            format!("run {run} is certain in the shadow of a gap: {ending:?}")
        });
    }
}

fn in_shadow(ending: &Ending, to: Wall) -> bool {
    ending.ended.latest() <= to.after(limits::GAP_SHADOW)
}

/// The stable word of a status, as stories write it.
pub fn word_of(status: Status) -> &'static str {
    match status {
        Status::Launching => "launching",
        Status::Up => "up",
        Status::Paused => "paused",
        Status::PausedIoError => "paused-io-error",
        Status::Saving => "saving",
        Status::Restoring => "restoring",
        Status::MigrationSource => "migration-source",
        Status::MigrationDestination => "migration-destination",
        Status::PoweringDown => "powering-down",
        Status::Ending => "ending",
        Status::Down => "down",
    }
}
