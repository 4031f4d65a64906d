//! What came of an operation that libvirt was asked to perform: who waits for it is answered, and what follows is asked for.

use std::time::Duration;

use super::effect::{Outcome, Reply};
use super::engine::Engine;
use super::gate::as_written;
use super::run::{OnDisk, Phase};
use super::serve::NO_LINK;
use crate::evidence::{Fact, OperationKind, tame};
use crate::id::{RequestId, RunId};
use crate::record::When;
use crate::snapshot::Link;
use crate::time::Now;

/// libvirt reports STOPPED within milliseconds of a destroy.
const STOPPED_PATIENCE: Duration = Duration::from_secs(2);

const NO_DOMAIN: &str = "it knows no such domain";

impl Engine {
    /// libvirt was asked to do this with a run, or could not be; `request` waits for exactly that.
    pub(super) fn performed(
        &mut self,
        now: Now,
        id: RunId,
        request: Option<RequestId>,
        what: OperationKind,
        outcome: &Outcome,
    ) {
        if let Some(request) = request {
            // Before libvirt was asked the request was on disk: the answer needs nothing that was handed over since.
            let on_disk = self.runs.get(&id).and_then(|run| run.pending.other_out);
            self.reply_at_once(request, as_asked(reply_to(outcome), on_disk));
        }
        self.is_answered(now, id, what, outcome);
        let Some(run) = self.runs.get_mut(&id) else { return };
        let was_long = what.is_long() && run.pending.long == Some(what);
        // One that never came up may have been ended by exactly this, and be gone when libvirt answers.
        let comes_again = what == OperationKind::Destroy
            && (run.is_to_come_up()
                || run.is_open() && run.pending.is_up_since_destroy()
                || !crate::verdict::was_up(&run.dossier));
        let refused = match outcome {
            Outcome::Refused(text) => Some(tame(text)),
            // A start that came and went was done all the same.
            Outcome::NoDomain if what.is_a_step() && what != OperationKind::Create && !comes_again => {
                Some(NO_DOMAIN.into())
            }
            Outcome::Done | Outcome::NoDomain | Outcome::NoLink => None,
        };
        match what {
            OperationKind::Create => self.start_was_asked(now, id, outcome),
            OperationKind::AgentShutdown | OperationKind::AgentReboot => {
                self.agent_was_asked(now, id, what, outcome)
            }
            OperationKind::Shutdown | OperationKind::Reboot => {
                self.button_was_pressed(now, id, what, outcome)
            }
            OperationKind::Destroy => self.destroy_was_asked(now, id, outcome),
            // Force has no answer.
            OperationKind::ForceOff | OperationKind::ForceReset => {}
            _ if !run.is_open() => return,
            // It runs on, or stands still.
            _ if was_long && *outcome != Outcome::Done => run.pending.long = None,
            _ => {}
        }
        if let Some(text) = refused {
            self.note(id, now.wall, Fact::Refused { what, text });
        }
        self.look_what_came_of_it(now, id, what, outcome);
        if was_long {
            match outcome {
                // Its STOPPED is on the way.
                Outcome::Done => self.doubt(now, id),
                // libvirt knows how it is.
                _ => self.look_at(id),
            }
        }
        self.glance_soon(now, id);
        self.reconsider(now, id);
        self.set_alarm(id);
    }

    fn look_at(&mut self, id: RunId) {
        if let Some(domain) = self.runs.get(&id).map(|run| run.start.domain) {
            self.look(domain);
        }
    }

    fn start_was_asked(&mut self, now: Now, id: RunId, outcome: &Outcome) {
        let (inside, server) = (self.settings.driver_inside, self.server.map(|server| server.process));
        let Some(run) = self.runs.get_mut(&id) else { return };
        if *outcome == Outcome::NoLink && run.pending.creating && !inside {
            let until = run.pending.may_be_at_it_until(now.mono, server);
            run.pending.answer_is_lost(until);
        } else {
            run.pending.creating = false;
        }
    }

    fn agent_was_asked(&mut self, now: Now, id: RunId, what: OperationKind, outcome: &Outcome) {
        self.call_off_force_if_over(now, id, what, outcome);
        let Some(run) = self.runs.get_mut(&id) else { return };
        if matches!(outcome, Outcome::Refused(_)) {
            // Without an agent, the power button at once.
            if let Some(button) = run.pending.shutting.last().map(|(_, shutting)| shutting.button()) {
                run.pending.press_at = None;
                self.perform(id, button);
            }
            return;
        }
        if *outcome != Outcome::Done {
            run.pending.press_at = None;
        }
        let asked = run.pending.shutdown_out;
        for (request, _) in std::mem::take(&mut run.pending.shutting) {
            self.reply_at_once(request, as_asked(reply_to(outcome), asked));
        }
    }

    fn button_was_pressed(&mut self, now: Now, id: RunId, what: OperationKind, outcome: &Outcome) {
        self.call_off_force_if_over(now, id, what, outcome);
        let Some(run) = self.runs.get_mut(&id) else { return };
        let asked = run.pending.shutdown_out;
        for (request, shutting) in std::mem::take(&mut run.pending.shutting) {
            let force_after = shutting.force_after;
            let on_its_way = matches!(outcome, Outcome::Done | Outcome::Refused(_));
            if let Some(wait) = force_after.filter(|_| on_its_way) {
                run.pending.force_within(now.mono.after(wait), shutting);
            }
            let reply = match outcome {
                // With force to follow the request is on its way, whatever the guest could be told.
                Outcome::Refused(_) if force_after.is_some() => Reply::Done,
                outcome => reply_to(outcome),
            };
            self.gate.answer_at_once(request, as_asked(reply, asked));
        }
    }

    fn destroy_was_asked(&mut self, now: Now, id: RunId, outcome: &Outcome) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.pending.destroy_is_answered();
        match outcome {
            // Its STOPPED is on the way; the answer waits for it, so that who asked may start it again at once.
            Outcome::Done => {
                run.pending.destroyed_by = Some(now.mono.after(STOPPED_PATIENCE));
                run.pending.destroyed_at = Some(now.wall);
            }
            // Another destroy is done, or may still be: this one's refusal answers nobody.
            _ if run.pending.has_other_destroys() => {}
            // libvirt does not know it yet: it is asked again when it is up.
            Outcome::NoDomain if run.is_to_come_up() => run.pending.destroy_when_up(),
            // Nor did it when it was asked, and it has come up since.
            Outcome::NoDomain if run.is_open() && run.pending.take_up_since_destroy() => {
                self.ask_to_destroy(id);
            }
            Outcome::NoDomain => run.pending.destroyed_by = Some(now.mono.after(STOPPED_PATIENCE)),
            Outcome::Refused(_) | Outcome::NoLink => {
                for (request, _) in std::mem::take(&mut run.pending.destroying) {
                    self.reply_at_once(request, reply_to(outcome));
                }
            }
        }
    }

    /// A shutdown of which who asked is told that it cannot be done has no force to follow.
    fn call_off_force_if_over(&mut self, now: Now, id: RunId, what: OperationKind, outcome: &Outcome) {
        let over = matches!(what, OperationKind::Shutdown | OperationKind::AgentShutdown)
            && matches!(outcome, Outcome::NoDomain | Outcome::NoLink);
        let waits =
            |run: &super::run::Run| run.pending.force_at.is_none() && !run.pending.shutting.is_empty();
        if over && self.runs.get(&id).is_some_and(waits) {
            self.call_off_force(now, id);
        }
    }

    /// Has libvirt asked about a run some time from now, if it has said nothing by then. A restarted libvirtd ends a
    /// domain that it is asked to destroy while it reconnects, and never reports it.
    pub(super) fn doubt(&mut self, now: Now, id: RunId) {
        if let Some(run) = self.runs.get_mut(&id).filter(|run| run.is_open()) {
            run.pending.doubted = Some(now.mono.after(STOPPED_PATIENCE));
            self.set_alarm(id);
        }
    }

    /// A start that was refused is over. Where nobody knows whether libvirt did what it was asked, it must show.
    fn look_what_came_of_it(&mut self, now: Now, id: RunId, what: OperationKind, outcome: &Outcome) {
        let server = self.server.map(|server| server.process);
        let Some(run) = self.runs.get_mut(&id).filter(|run| run.is_open()) else { return };
        let domain = run.start.domain;
        let launching = run.phase == Phase::Launching;
        let in_doubt = match (what, outcome) {
            (OperationKind::Create, Outcome::Refused(_)) if launching => {
                return self.end(now, id, When::At(now.wall));
            }
            (OperationKind::Create, Outcome::NoLink | Outcome::NoDomain) => launching,
            (OperationKind::Destroy | OperationKind::ForceOff, Outcome::NoLink) => {
                let until = run.pending.may_be_at_it_until(now.mono, server);
                run.pending.is_unsure(what, until);
                until <= now.mono
            }
            _ => false,
        };
        // Without a link the next listing tells.
        if in_doubt && matches!(self.link, Link::Up) {
            self.look(domain);
        }
    }

    /// The run is over, or as good as that: whoever waits for it hears so. A destroy forgets it.
    pub(super) fn answer_waiting(&mut self, now: Now, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let domain = run.start.domain;
        let (destroying, shutting) =
            (std::mem::take(&mut run.pending.destroying), std::mem::take(&mut run.pending.shutting));
        let shutdown_out = run.pending.shutdown_out;
        let destroy_out = run.pending.destroy_out.filter(|_| run.is_destroyed_on_record());
        for (request, _) in shutting {
            match shutdown_out {
                Some(on_disk) => self.reply_at_once(request, done(on_disk)),
                None => self.reply(request, domain, Reply::Done),
            }
        }
        let Some(who) = destroying.first().map(|(_, who)| who.clone()) else { return };
        match destroy_out {
            // libvirt has done it, and a daemon that finds the request and no domain forgets it as well.
            Some(on_disk) => {
                if let Some(run) = self.runs.get_mut(&id) {
                    run.forgotten_by.get_or_insert(who);
                }
                for (request, _) in destroying {
                    self.reply_at_once(request, done(on_disk));
                }
                self.touch(now, domain);
            }
            // It was not asked, or has said that it did not do it: that takes back what the request says.
            None => self.forget_ended(now, id, destroying),
        }
    }
}

/// The answer, and that libvirt was asked without a record, where that is so.
fn as_asked(reply: Reply, asked: Option<OnDisk>) -> Reply {
    as_written(reply, asked.unwrap_or(OnDisk::Yes))
}

const fn done(on_disk: OnDisk) -> Reply {
    match on_disk {
        OnDisk::Yes => Reply::Done,
        OnDisk::No => Reply::DoneUnwritten,
    }
}

/// What whoever waits for an operation is told of how it went.
fn reply_to(outcome: &Outcome) -> Reply {
    match outcome {
        Outcome::Done => Reply::Done,
        Outcome::NoDomain => Reply::IsDown,
        Outcome::Refused(text) => Reply::Refused(tame(text)),
        Outcome::NoLink => Reply::Unavailable(NO_LINK.into()),
    }
}
