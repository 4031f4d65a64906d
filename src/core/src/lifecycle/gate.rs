//! What must be on disk first: acts, answers and news wait here for the ledger.
//!
//! ```text
//!  a step's effects, in order:  Keep   Keep   Ask(Act)   Reply   …
//!       Keep ─────────────── goes out at once, and is counted
//!       act, answer ──────── goes out when all that was counted before it is on disk
//!       news of a domain ─── is shown when all that the step counted is on disk
//!
//!  Input::Written(n) ────────────────────────▶ what waited for the first n goes on
//!  Input::Unwritten(n), or a disk that hangs ▶ goes on too, and a *done* says that it is not on disk
//! ```
//!
//! Nothing is counted for one domain alone: one commit serves all that wait, and nobody who adds a step can forget to wait.
//! What an act came to is answered without waiting: what that needs was written before libvirt was asked. See
//! `docs/decisions/0013-first-on-disk.md`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::effect::{Effect, Question, Reply};
use super::engine::Engine;
use super::run::{OnDisk, Phase};
use crate::evidence::Asked;
use crate::id::{DomainId, RequestId, RunId};
use crate::limits;
use crate::record::Keep;
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
    /// Acts and answers, and after how much each goes out.
    held: VecDeque<(u64, Effect)>,
    /// Domains whose picture stays as it is, and until how much is settled.
    veils: BTreeMap<DomainId, u64>,
    /// Domains of which the present step has news that must be on disk first.
    news: BTreeSet<DomainId>,
    /// Whether the present step took the first listing.
    listed: bool,
    /// After how much the first listing counts for readers.
    listing: Option<u64>,
    /// Since when something waits without any word from the ledger.
    since: Option<Mono>,
    /// Effects that need not wait any more.
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

    /// What is settled now can only be what is on disk.
    fn on_disk(&self, after: u64) -> OnDisk {
        if after <= self.written { OnDisk::Yes } else { OnDisk::No }
    }

    fn is_waiting(&self) -> bool {
        !self.held.is_empty() || !self.veils.is_empty() || self.listing.is_some()
    }
}

impl Engine {
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

    /// An answer whose record is on disk already.
    pub(super) fn reply_at_once(&mut self, id: RequestId, reply: Reply) {
        self.gate.ready.push(Effect::Reply(id, reply));
    }

    /// Holds back what has to wait, at the end of a step. What goes out is left in `effects`.
    pub(super) fn hold_back(&mut self, now: Now) {
        let effects = std::mem::take(&mut self.effects);
        let mut going = std::mem::take(&mut self.gate.ready);
        going.reserve(effects.len());
        let mut hurry = false;
        for effect in effects {
            match &effect {
                Effect::Keep(keep) => {
                    self.gate.handed += 1;
                    hurry |= self.is_urgent(keep);
                }
                Effect::Ask(Question::Act { .. } | Question::Do { .. }) | Effect::Reply(..)
                    if self.gate.handed > self.gate.settled =>
                {
                    self.gate.held.push_back((self.gate.handed, effect));
                    continue;
                }
                Effect::Ask(question) => self.goes_out(question, OnDisk::Yes),
                Effect::Reply(..)
                | Effect::Watch(_)
                | Effect::Publish
                | Effect::Hurry
                | Effect::Corrected(_) => {}
            }
            going.push(effect);
        }
        self.effects = going;
        let waits = self.gate.handed > self.gate.settled;
        for domain in std::mem::take(&mut self.gate.news) {
            if waits {
                self.gate.veils.insert(domain, self.gate.handed);
            } else {
                self.gate.veils.remove(&domain);
                self.touch(now, domain);
            }
        }
        if std::mem::take(&mut self.gate.listed) {
            self.gate.listing = waits.then_some(self.gate.handed);
            self.mark_changed();
        }
        if hurry {
            self.effects.push(Effect::Hurry);
        }
        if !self.gate.is_waiting() {
            self.gate.since = None;
        } else if self.gate.since.is_none() {
            self.gate.since = Some(now.mono);
        }
    }

    /// What tells of a run whose destroy is on disk and answered need not hurry: a daemon that finds none of it ends and
    /// forgets the run as well. Who destroys the next VM shares its commit with it, and waits for one and not for two.
    fn is_urgent(&self, keep: &Keep) -> bool {
        let run = match keep {
            Keep::Alive(_) => return false,
            Keep::Start(_) | Keep::Revised(_) => return true,
            Keep::Evidence(run, ..) | Keep::Acknowledge(run, _) => *run,
            Keep::Ending(ending) => ending.run,
        };
        !self.runs.get(&run).is_some_and(|run| {
            run.destroy_out == Some(OnDisk::Yes) && run.forgotten_by.is_some() && run.forgetting.is_empty()
        })
    }

    /// So much of what was handed over is on disk.
    pub(super) fn written(&mut self, now: Now, count: u64) {
        self.gate.written = self.gate.written.max(count);
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
        while self.gate.held.front().is_some_and(|(after, _)| *after <= settled) {
            let Some((after, effect)) = self.gate.held.pop_front() else { break };
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
            Effect::Reply(id, Reply::Done) if on_disk == OnDisk::No => {
                Effect::Reply(id, Reply::DoneUnwritten)
            }
            effect => effect,
        };
        if let Effect::Ask(question) = &effect {
            self.goes_out(question, on_disk);
        }
        self.gate.ready.push(effect);
    }

    /// The run has ended before libvirt was asked for what was wanted of it. That is not asked any more: it would meet the
    /// domain's next run. Gives what it was.
    pub(super) fn take_back(&mut self, id: RunId) -> Vec<Asked> {
        let mut taken = Vec::new();
        let mut unanswered = Vec::new();
        self.gate.held.retain(|(_, effect)| {
            let what = match effect {
                Effect::Ask(Question::Act { run, what, .. }) if *run == id => *what,
                Effect::Ask(Question::Do { run, act, request, .. }) if *run == id => {
                    unanswered.extend(*request);
                    act.asked()
                }
                _ => return true,
            };
            taken.push(what);
            false
        });
        for request in unanswered {
            self.reply(request, Reply::IsDown);
        }
        taken
    }

    /// libvirt is asked now, and the request for it is on disk, or cannot be written.
    fn goes_out(&mut self, question: &Question, on_disk: OnDisk) {
        let (Question::Act { run, .. } | Question::Do { run, .. }) = question else { return };
        let Some(run) = self.runs.get_mut(run) else { return };
        let Question::Act { what, .. } = question else {
            run.act_out = Some(on_disk);
            return;
        };
        match what {
            Asked::Destroy => run.destroy_out = Some(on_disk),
            Asked::Shutdown | Asked::Reboot | Asked::AgentShutdown | Asked::AgentReboot => {
                run.shutdown_out = Some(on_disk);
            }
            _ => {}
        }
    }
}
