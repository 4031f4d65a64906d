//! What must be on disk first: acts, answers and news wait here for the ledger, each for what it needs itself.
//!
//! ```text
//!  what a step wants, in order:  Keep   Keep   Ask(Perform)   Reply   …
//!       Keep ─────────────── goes out at once, and is counted: in all, and for its domain
//!       act, answer ──────── goes out when all that was counted for its domain before it is on disk
//!       news of a domain ─── is shown when all that was counted for it by the end of the step is on disk
//!
//!  Input::Written(n) ────────────────────────▶ what waited for one of the first n goes on
//!  Input::Unwritten(n), or a disk that hangs ▶ goes on too, and a *done* says that it is not on disk
//! ```
//!
//! Whoever wants something names its domain and nothing else, so nobody who adds a step can forget to wait. What an act came
//! to is answered when what was written at its request is on disk, and waits for nothing that was heard since. See
//! `docs/decisions/0013-first-on-disk.md`.

use std::collections::{BTreeMap, BTreeSet};

use super::effect::{Effect, Question, Reply};
use super::engine::Engine;
use super::run::{OnDisk, Phase};
use crate::evidence::{Fact, OperationKind};
use crate::id::{DomainId, RequestId, RunId};
use crate::limits;
use crate::record::{Haste, Keep};
use crate::time::{Mono, Now};

/// See the module page.
#[derive(Debug, Default)]
pub(super) struct Gate {
    /// What the ledger was handed so far.
    handed: u64,
    /// So much of it is on disk.
    written: u64,
    /// So much of it is on disk, or known to wait in memory.
    settled: u64,
    /// The number of the last thing that was handed over about each domain, where that is not on disk.
    last: BTreeMap<DomainId, u64>,
    /// Acts and answers: after how much each goes out, and which came first.
    held: BTreeMap<(u64, u64), Effect>,
    /// How many were ever held.
    came: u64,
    /// What was handed over for each request that is not answered.
    requests: BTreeMap<RequestId, u64>,
    /// Domains whose picture stays as it is, and until how much is settled.
    veils: BTreeMap<DomainId, u64>,
    /// Domains of which the present step has news that must be on disk first.
    news: BTreeSet<DomainId>,
    /// Whether the present step took the first listing.
    listed: bool,
    /// After how much the first listing counts for readers.
    listing: Option<u64>,
    /// Whether the present step wants something that waits.
    waits: bool,
    /// Since when something waits without any word from the ledger.
    since: Option<Mono>,
    /// Effects that need not wait, or not any more.
    pub ready: Vec<Effect>,
}

impl Gate {
    /// Whether readers may be told that the first listing was taken.
    pub fn shows_listing(&self) -> bool {
        !self.listed && self.listing.is_none()
    }

    /// When the disk counts as hanging.
    pub fn patience_ends(&self) -> Option<Mono> {
        self.since.map(|since| since.after(limits::DISK_PATIENCE))
    }

    /// An answer that needs what was handed over for its request, and nothing that was heard since.
    pub fn answer_at_once(&mut self, id: RequestId, reply: Reply) {
        let after = self.requests.remove(&id).unwrap_or_default();
        self.answer(after, id, reply);
    }

    fn answer(&mut self, after: u64, id: RequestId, reply: Reply) {
        if after > self.settled {
            self.hold(after, Effect::Reply(id, reply));
        } else {
            self.ready.push(Effect::Reply(id, as_written(reply, self.on_disk(after))));
        }
    }

    fn hold(&mut self, after: u64, effect: Effect) {
        self.waits = true;
        self.came += 1;
        self.held.insert((after, self.came), effect);
    }

    /// After how much all that was handed over about this domain is on disk.
    fn needs(&self, domain: DomainId) -> u64 {
        self.last.get(&domain).copied().unwrap_or_default()
    }

    /// What is settled now can only be what is on disk.
    fn on_disk(&self, after: u64) -> OnDisk {
        if after <= self.written { OnDisk::Yes } else { OnDisk::No }
    }

    fn is_waiting(&self) -> bool {
        !self.held.is_empty() || !self.veils.is_empty() || self.listing.is_some()
    }
}

/// The answer, and that its record cannot be written, where that is so.
pub(super) fn as_written(reply: Reply, on_disk: OnDisk) -> Reply {
    match (reply, on_disk) {
        (Reply::Done, OnDisk::No) => Reply::DoneUnwritten,
        (reply, _) => reply,
    }
}

impl Engine {
    /// Hands something about this domain to the ledger.
    pub(super) fn keep(&mut self, domain: DomainId, keep: Keep) {
        self.gate.handed += 1;
        self.gate.last.insert(domain, self.gate.handed);
        self.effects.push(Effect::Keep(keep));
    }

    /// Hands over what nothing waits for.
    pub(super) fn keep_beside(&mut self, keep: Keep) {
        self.gate.handed += 1;
        self.effects.push(Effect::Keep(keep));
    }

    /// Asks, and has something done when all that was handed over about its domain is on disk.
    pub(super) fn ask(&mut self, question: Question) {
        let Question::Perform { domain, .. } = &question else {
            return self.effects.push(Effect::Ask(question));
        };
        let after = self.gate.needs(*domain);
        if after > self.gate.settled {
            return self.gate.hold(after, Effect::Ask(question));
        }
        self.goes_out(&question, self.gate.on_disk(after));
        self.effects.push(Effect::Ask(question));
    }

    /// Answers when all that was handed over about this domain is on disk.
    pub(super) fn reply(&mut self, id: RequestId, domain: DomainId, reply: Reply) {
        self.gate.requests.remove(&id);
        self.gate.answer(self.gate.needs(domain), id, reply);
    }

    /// Answers when what was handed over for this request is on disk.
    pub(super) fn reply_at_once(&mut self, id: RequestId, reply: Reply) {
        self.gate.answer_at_once(id, reply);
    }

    /// A manager asks something of this domain.
    pub(super) fn requested(&mut self, id: RequestId) {
        self.gate.requests.insert(id, 0);
    }

    /// Whatever was handed over for that request was so by now.
    pub(super) fn request_is_taken(&mut self, id: RequestId, domain: DomainId) {
        let needs = self.gate.needs(domain);
        if let Some(after) = self.gate.requests.get_mut(&id) {
            *after = needs;
        }
    }

    /// The picture of this domain is to change by something that this step hands to the ledger.
    pub(super) fn news(&mut self, domain: DomainId) {
        self.gate.news.insert(domain);
    }

    /// The first listing is taken: from now on absence means something, as soon as all that it showed is on disk.
    pub(super) fn listed(&mut self) {
        self.gate.listed = true;
    }

    /// Whether the picture of this domain has to stay as it is for now.
    pub(super) fn is_veiled(&self, domain: DomainId) -> bool {
        self.gate.news.contains(&domain) || self.gate.veils.contains_key(&domain)
    }

    /// The picture of this domain stays as it is until it has news that is on disk.
    pub(super) fn veil(&mut self, domain: DomainId) {
        self.gate.veils.insert(domain, u64::MAX);
    }

    /// What the step shows waits for its records, at the end of it. What goes out is left in `effects`.
    pub(super) fn hold_back(&mut self, now: Now) {
        let effects = std::mem::take(&mut self.effects);
        let kept = effects.iter().filter_map(|effect| match effect {
            Effect::Keep(keep) => self.haste(keep),
            _ => None,
        });
        let mut haste = kept.max();
        self.effects = std::mem::take(&mut self.gate.ready);
        self.effects.extend(effects);
        if std::mem::take(&mut self.gate.waits) {
            haste = Some(Haste::Now);
        }
        for domain in std::mem::take(&mut self.gate.news) {
            let after = self.gate.needs(domain);
            if after > self.gate.settled {
                self.gate.veils.insert(domain, after);
            } else {
                self.gate.veils.remove(&domain);
                self.touch(now, domain);
            }
        }
        if std::mem::take(&mut self.gate.listed) {
            let waits = self.gate.handed > self.gate.settled;
            self.gate.listing = waits.then_some(self.gate.handed);
            self.mark_changed();
        }
        self.effects.extend(haste.map(Effect::Hurry));
        if !self.gate.is_waiting() {
            self.gate.since = None;
        } else if self.gate.since.is_none() {
            self.gate.since = Some(now.mono);
        }
    }

    /// How soon this is to be on disk, apart from acts and answers that wait for it.
    ///
    /// What is shown only then is wanted soon. What tells of a run whose destroy is on disk and answered is not: a daemon that
    /// finds none of it ends and forgets the run as well. Evidence has time until an ending or an act needs it, unless it takes
    /// back what a request says.
    fn haste(&self, keep: &Keep) -> Option<Haste> {
        let run = match keep {
            Keep::Evidence(.., piece) => {
                let takes_back = matches!(
                    &piece.fact,
                    Fact::Refused { what: OperationKind::Destroy | OperationKind::ForceOff, .. }
                );
                return takes_back.then_some(Haste::Soon);
            }
            Keep::Alive(_) | Keep::Made(..) => return None,
            Keep::Start(_) | Keep::Revised(_) => return Some(Haste::Soon),
            Keep::Acknowledge(run, _) => *run,
            Keep::Ending(ending) => ending.run,
        };
        let forgotten = self.runs.get(&run).is_some_and(|run| {
            run.pending.destroy_out == Some(OnDisk::Yes)
                && run.forgotten_by.is_some()
                && run.pending.forgetting.is_empty()
        });
        (!forgotten).then_some(Haste::Soon)
    }

    /// So much of what was handed over is on disk.
    pub(super) fn written(&mut self, now: Now, count: u64) {
        let written = self.gate.written.max(count);
        self.gate.written = written;
        self.gate.last.retain(|_, last| *last > written);
        self.settled(now, count);
    }

    /// So much was handed over, and what of it is not on disk waits in memory.
    pub(super) fn unwritten(&mut self, now: Now, count: u64) {
        self.settled(now, count);
    }

    /// The disk has said nothing for too long: it is taken for one that cannot be written. What was decided is shown.
    pub(super) fn disk_hangs(&mut self, now: Now) {
        let recording = self.runs.iter().filter(|(_, run)| matches!(run.phase, Phase::Recording(_)));
        let recording: Vec<RunId> = recording.map(|(id, _)| *id).collect();
        for id in recording {
            self.not_kept(now, id);
        }
        self.settled(now, self.gate.handed);
    }

    fn settled(&mut self, now: Now, count: u64) {
        self.gate.settled = self.gate.settled.max(count.min(self.gate.handed));
        self.gate.since = None;
        let settled = self.gate.settled;
        while let Some(held) = self.gate.held.first_entry().filter(|held| held.key().0 <= settled) {
            let ((after, _), effect) = held.remove_entry();
            let on_disk = self.gate.on_disk(after);
            self.let_go(effect, on_disk);
        }
        let lifted: Vec<DomainId> = self
            .gate
            .veils
            .iter()
            .filter(|(_, until)| **until <= settled)
            .map(|(domain, _)| *domain)
            .collect();
        for domain in lifted {
            self.gate.veils.remove(&domain);
            self.touch(now, domain);
        }
        if self.gate.listing.take_if(|until| *until <= settled).is_some() {
            self.mark_changed();
        }
    }

    fn let_go(&mut self, effect: Effect, on_disk: OnDisk) {
        let effect = match effect {
            Effect::Reply(id, reply) => Effect::Reply(id, as_written(reply, on_disk)),
            effect => effect,
        };
        if let Effect::Ask(question) = &effect {
            self.goes_out(question, on_disk);
        }
        self.gate.ready.push(effect);
    }

    /// The run has ended before libvirt was asked for what was wanted of it. That is not asked any more: it would meet the
    /// domain's next run. Gives what it was.
    pub(super) fn take_back(&mut self, id: RunId) -> Vec<OperationKind> {
        let mut taken = Vec::new();
        let mut unanswered = Vec::new();
        self.gate.held.retain(|_, effect| {
            let Effect::Ask(Question::Perform { run, act, request, .. }) = effect else { return true };
            if *run == id {
                unanswered.extend(*request);
                taken.push(act.kind());
            }
            *run != id
        });
        let domain = self.runs.get(&id).map(|run| run.start.domain);
        for request in unanswered {
            match domain {
                Some(domain) => self.reply(request, domain, Reply::IsDown),
                None => self.reply_at_once(request, Reply::IsDown),
            }
        }
        taken
    }

    /// libvirt is asked now, and the request for it is on disk, or cannot be written. What ends a VM at once is dated by this:
    /// the request may be older by as long as the disk takes, and another client's may have been at work meanwhile.
    fn goes_out(&mut self, question: &Question, on_disk: OnDisk) {
        let Question::Perform { run: id, act, .. } = question else { return };
        let Some(run) = self.runs.get_mut(id) else { return };
        run.pending.goes_out(act.kind(), on_disk, self.server.map(|server| server.process));
        if matches!(act.kind(), OperationKind::Destroy | OperationKind::ForceOff) && run.is_open() {
            self.note(*id, self.wall, Fact::PassedOn(act.kind()));
        }
        self.is_out(*id, act.kind());
    }
}
