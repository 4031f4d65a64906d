//! What managers ask for.

use super::effect::{Outcome, Question, Reply, Request, Wanted};
use super::engine::Engine;
use super::run::Phase;
use crate::evidence::{Asked, Fact, Who, tame};
use crate::hypervisor::DomainRef;
use crate::id::{DomainId, RequestId, RunId};
use crate::record::When;
use crate::snapshot::{Link, Status};
use crate::time::Now;

impl Engine {
    pub(super) fn serve(&mut self, now: Now, request: Request) {
        let Request { id, who, what } = request;
        let who = tame(&who);
        if !self.settled {
            return self.reply(id, Reply::Unavailable("whydown has not seen libvirt's domains yet".into()));
        }
        match what {
            Wanted::Create { domain, name, xml } => self.create(now, id, who, domain, name, xml),
            Wanted::Shutdown { domain, force_after } => self.shut_down(now, id, who, domain, force_after),
            Wanted::Destroy { domain } => self.destroy(now, id, who, domain),
        }
    }

    fn create(&mut self, now: Now, id: RequestId, who: Who, domain: DomainId, name: String, xml: String) {
        // As in the original, a Down record has to be acknowledged first.
        let open = self.current.get(&domain).is_some_and(|id| self.runs[id].is_open());
        if open || self.down.contains_key(&domain) {
            return self.reply(id, Reply::Exists);
        }
        if let Some(why) = self.no_link() {
            return self.reply(id, Reply::Unavailable(why));
        }
        let domain = DomainRef { id: domain, name, libvirt_id: None };
        let start = self.new_start(now, &domain, now.wall, true, None);
        let run = self.begin(now, start, Phase::Launching, Status::Launching);
        if let Some(run) = self.runs.get_mut(&run) {
            run.creating = true;
        }
        self.note(run, now.wall, Fact::Requested { what: Asked::Create, who });
        self.ask(Question::Act { run, domain: domain.id, what: Asked::Create, xml: Some(xml) });
        self.reply(id, Reply::Done);
    }

    fn shut_down(
        &mut self,
        now: Now,
        id: RequestId,
        who: Who,
        domain: DomainId,
        force_after: Option<std::time::Duration>,
    ) {
        let Some(run) = self.open_run(domain) else {
            let reply = if self.is_known(domain) { Reply::IsDown } else { Reply::NoSuchVm };
            return self.reply(id, reply);
        };
        if let Some(why) = self.no_link() {
            return self.reply(id, Reply::Unavailable(why));
        }
        self.note(run, now.wall, Fact::Requested { what: Asked::Shutdown, who: who.clone() });
        if let Some(run) = self.runs.get_mut(&run) {
            run.shutting.push((id, who, force_after));
        }
        self.ask(Question::Act { run, domain, what: Asked::Shutdown, xml: None });
    }

    fn destroy(&mut self, now: Now, id: RequestId, who: Who, domain: DomainId) {
        if let Some(run) = self.open_run(domain) {
            if let Some(why) = self.no_link() {
                return self.reply(id, Reply::Unavailable(why));
            }
            self.note(run, now.wall, Fact::Requested { what: Asked::Destroy, who: who.clone() });
            if let Some(run) = self.runs.get_mut(&run) {
                run.destroying.push((id, who));
            }
            return self.ask_to_destroy(run, domain);
        }
        // It has ended by itself: only to be forgotten.
        if let Some(run) = self.current.get(&domain).copied() {
            self.forget(now, run, who);
            return self.reply(id, Reply::Done);
        }
        let reply = if self.acknowledge(now, domain, who) { Reply::Done } else { Reply::NoSuchVm };
        self.reply(id, reply);
    }

    pub(super) fn ask_to_destroy(&mut self, run: RunId, domain: DomainId) {
        if let Some(run) = self.runs.get_mut(&run) {
            run.destroys_out += 1;
        }
        self.ask(Question::Act { run, domain, what: Asked::Destroy, xml: None });
    }

    /// The time of a run that still stands has come: for force, or to look why a destroyed one is not gone.
    pub(super) fn press_on(&mut self, now: Now, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        if run.destroyed_by.is_some_and(|at| at <= now.mono) {
            run.destroyed_by = None;
            let domain = run.start.domain;
            self.answer_waiting(now, id);
            self.look(domain);
        }
        let linked = self.no_link().is_none();
        let Some(run) = self.runs.get_mut(&id) else { return };
        if run.doubted.is_some_and(|at| at <= now.mono) {
            run.doubted = None;
            let domain = run.start.domain;
            self.look(domain);
        }
        let Some(run) = self.runs.get_mut(&id) else { return };
        if run.force_at.as_ref().is_none_or(|(at, _)| *at > now.mono) {
            return self.set_alarm(id);
        }
        if !linked {
            // What could not be done is not asked for: the next link brings it up again.
            return;
        }
        let Some((_, who)) = run.force_at.take() else { return };
        let domain = run.start.domain;
        self.note(id, now.wall, Fact::Requested { what: Asked::ForceOff, who });
        self.ask(Question::Act { run: id, domain, what: Asked::ForceOff, xml: None });
    }

    pub(super) fn acted(&mut self, now: Now, id: RunId, what: Asked, outcome: Outcome) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let comes_again = what == Asked::Destroy && run.phase == Phase::Launching;
        let refused = match &outcome {
            Outcome::Refused(text) => Some(tame(text)),
            // A start that came and went was done all the same.
            Outcome::NoDomain if what != Asked::Create && !comes_again => Some(NO_DOMAIN.into()),
            Outcome::Done | Outcome::NoDomain | Outcome::NoLink => None,
        };
        if what == Asked::Destroy {
            run.destroys_out = run.destroys_out.saturating_sub(1);
        }
        match what {
            Asked::Create => run.creating = false,
            Asked::Shutdown => {
                for (request, who, force_after) in std::mem::take(&mut run.shutting) {
                    let on_its_way = matches!(outcome, Outcome::Done | Outcome::Refused(_));
                    if let Some(wait) = force_after.filter(|_| on_its_way) {
                        // Of several who asked, the first force counts: nobody puts off another's.
                        let at = now.mono.after(wait);
                        if run.force_at.as_ref().is_none_or(|(known, _)| at < *known) {
                            run.force_at = Some((at, who));
                        }
                    }
                    let reply = match &outcome {
                        Outcome::Done => Reply::Done,
                        Outcome::NoDomain => Reply::IsDown,
                        // With force to follow the request is on its way, whatever the guest could be told.
                        Outcome::Refused(_) if force_after.is_some() => Reply::Done,
                        Outcome::Refused(text) => Reply::Refused(text.clone()),
                        Outcome::NoLink => Reply::Unavailable(NO_LINK.into()),
                    };
                    self.effects.push(super::Effect::Reply(request, reply));
                }
            }
            Asked::ForceOff => {}
            // Another destroy is done, or may still be: this one's refusal answers nobody.
            Asked::Destroy if run.has_other_destroys() && !matches!(outcome, Outcome::Done) => {}
            // libvirt does not know it yet: it is asked again when it is up.
            Asked::Destroy if outcome == Outcome::NoDomain && run.phase == Phase::Launching => {
                run.destroy_again = true;
            }
            Asked::Destroy => {
                let refusal = match &outcome {
                    // Its STOPPED is on the way; the answer waits for it, so that who asked may start it again at once.
                    Outcome::Done | Outcome::NoDomain => None,
                    Outcome::Refused(text) => Some(Reply::Refused(text.clone())),
                    Outcome::NoLink => Some(Reply::Unavailable(NO_LINK.into())),
                };
                match refusal {
                    None => run.destroyed_by = Some(now.mono.after(STOPPED_PATIENCE)),
                    Some(reply) => {
                        for (request, _) in std::mem::take(&mut run.destroying) {
                            self.effects.push(super::Effect::Reply(request, reply.clone()));
                        }
                    }
                }
            }
        }
        if let Some(text) = refused {
            self.note(id, now.wall, Fact::Refused { what, text });
        }
        self.look_what_came_of_it(now, id, what, &outcome);
        self.reconsider(now, id);
        self.set_alarm(id);
    }

    /// Has libvirt asked about a run some time from now, if it has said nothing by then. A restarted libvirtd ends a
    /// domain that it is asked to destroy while it reconnects, and never reports it.
    pub(super) fn doubt(&mut self, now: Now, id: RunId) {
        if let Some(run) = self.runs.get_mut(&id).filter(|run| run.is_open()) {
            run.doubted = Some(now.mono.after(STOPPED_PATIENCE));
            self.set_alarm(id);
        }
    }

    /// A start that was refused is over. Where nobody knows whether libvirt did what it was asked, it must show.
    fn look_what_came_of_it(&mut self, now: Now, id: RunId, what: Asked, outcome: &Outcome) {
        let Some(run) = self.runs.get_mut(&id).filter(|run| run.is_open()) else { return };
        let domain = run.start.domain;
        let launching = run.phase == Phase::Launching;
        let in_doubt = match (what, outcome) {
            (Asked::Create, Outcome::Refused(_)) if launching => {
                return self.end(now, id, When::At(now.wall));
            }
            (Asked::Create, Outcome::NoLink | Outcome::NoDomain) => launching,
            (Asked::Destroy | Asked::ForceOff, Outcome::NoLink) => {
                run.unsure.push((what, now.mono.after(LONGEST_ACT)));
                false
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
        let (destroying, shutting) = (std::mem::take(&mut run.destroying), std::mem::take(&mut run.shutting));
        let first = destroying.first().map(|(_, who)| who.clone());
        let requests = destroying.iter().map(|(id, _)| *id).chain(shutting.iter().map(|(id, ..)| *id));
        for request in requests {
            self.effects.push(super::Effect::Reply(request, Reply::Done));
        }
        if let Some(who) = first {
            self.forget(now, id, who);
        }
    }

    /// No longer shown; acknowledged as soon as its ending is written.
    fn forget(&mut self, now: Now, id: RunId, who: Who) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let domain = run.start.domain;
        let recorded = matches!(run.phase, Phase::Recording(_));
        if run.forgotten_by.is_none() {
            run.forgotten_by = Some(who);
            if recorded {
                self.keep_acknowledgement(now, id);
            }
        }
        self.touch(now, domain);
    }

    fn open_run(&self, domain: DomainId) -> Option<RunId> {
        self.current
            .get(&domain)
            .copied()
            .filter(|id| self.runs.get(id).is_some_and(|run| run.is_open() && run.forgotten_by.is_none()))
    }

    fn is_known(&self, domain: DomainId) -> bool {
        self.current.contains_key(&domain) || self.down.contains_key(&domain)
    }

    fn no_link(&self) -> Option<String> {
        (!matches!(self.link, Link::Up)).then(|| NO_LINK.into())
    }
}

/// A destroy of a QEMU that hangs takes libvirt up to half a minute.
const LONGEST_ACT: std::time::Duration = std::time::Duration::from_secs(60);

/// libvirt reports STOPPED within milliseconds of a destroy.
const STOPPED_PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

const NO_DOMAIN: &str = "it knows no such domain";

const NO_LINK: &str = "whydown is not connected to libvirt";
