//! What managers ask for.

use super::effect::{Outcome, Question, Reply, Request, Wanted};
use super::engine::Engine;
use super::gate::as_written;
use super::run::{OnDisk, Phase, Shutting, status_during};
use crate::act::Act;
use crate::evidence::{Asked, Fact, Who, tame};
use crate::hypervisor::DomainRef;
use crate::id::{DomainId, RequestId, RunId};
use crate::limits;
use crate::record::When;
use crate::snapshot::{Link, Status};
use crate::time::{Mono, Now};

impl Engine {
    pub(super) fn serve(&mut self, now: Now, request: Request) {
        let Request { id, who, what } = request;
        let who = tame(&who);
        let domain = what.domain();
        self.requested(id);
        match what {
            _ if !self.settled => {
                let why = "whydown has not seen libvirt's domains yet";
                self.reply_at_once(id, Reply::Unavailable(why.into()));
            }
            Wanted::Create { domain, name, xml, made, paused } => {
                let run = self.create(now, id, who, domain, name, (xml, paused));
                if let (Some(run), Some(made)) = (run, made) {
                    self.made(now, run, made, Mono::default());
                }
            }
            Wanted::Shutdown { domain, again, agent_first, force_after } => {
                self.shut_down(now, id, domain, Shutting { who, again, agent_first, force_after });
            }
            Wanted::Do { domain, act } => self.act(now, id, who, domain, act),
            Wanted::Destroy { domain } => self.destroy(now, id, who, domain),
        }
        self.request_is_taken(id, domain);
    }

    /// Gives the new run, unless it was refused.
    fn create(
        &mut self,
        now: Now,
        id: RequestId,
        who: Who,
        domain: DomainId,
        name: String,
        (xml, paused): (String, bool),
    ) -> Option<RunId> {
        // As in the original, a Down record has to be acknowledged first.
        let open = self.current.get(&domain).is_some_and(|id| self.runs[id].is_open());
        if open || self.down.contains_key(&domain) {
            self.reply(id, domain, Reply::Exists);
            return None;
        }
        if let Some(why) = self.no_link() {
            self.reply(id, domain, Reply::Unavailable(why));
            return None;
        }
        let domain = DomainRef { id: domain, name, libvirt_id: None };
        // Of starts before this one.
        self.strays.remove(&domain.id);
        let start = self.new_start(now, &domain, now.wall, true, None);
        let run = self.begin(now, start, Phase::Launching, Status::Launching);
        if let Some(run) = self.runs.get_mut(&run) {
            run.creating = true;
        }
        self.note(run, now.wall, Fact::Requested { what: Asked::Create, who });
        self.ask(Question::Act { run, domain: domain.id, what: Asked::Create, xml: Some(xml), paused });
        self.reply(id, domain.id, Reply::Done);
        Some(run)
    }

    fn shut_down(&mut self, now: Now, id: RequestId, domain: DomainId, shutting: Shutting) {
        let Some(run) = self.open_run(domain) else {
            let reply = if self.is_known(domain) { Reply::IsDown } else { Reply::NoSuchVm };
            return self.reply(id, domain, reply);
        };
        if let Some(why) = self.no_link() {
            return self.reply(id, domain, Reply::Unavailable(why));
        }
        let who = shutting.who.clone();
        self.note(run, now.wall, Fact::Requested { what: shutting.button(), who: who.clone() });
        if let Some(wait) = shutting.force_after.filter(|_| !shutting.again) {
            // Whoever is answered that it shuts down may count on it, whatever becomes of this daemon.
            let within = wait.saturating_add(shutting.agent_first.unwrap_or_default());
            let within_ms = Some(u64::try_from(within.as_millis()).unwrap_or(u64::MAX));
            self.note(run, now.wall, Fact::ForceFollows { within_ms, who: who.clone() });
        }
        let first = match shutting.agent_first {
            Some(_) => {
                self.note(run, now.wall, Fact::Requested { what: shutting.agent(), who });
                shutting.agent()
            }
            None => shutting.button(),
        };
        if let Some(run) = self.runs.get_mut(&run) {
            // An agent that hangs may keep libvirt, and who asked, for a minute: its time runs from now on.
            if let Some(wait) = shutting.agent_first {
                run.press_at = Some((now.mono.after(wait), shutting.clone()));
            }
            run.shutting.push((id, shutting));
        }
        self.ask(Question::Act { run, domain, what: first, xml: None, paused: false });
        self.set_alarm(run);
    }

    /// What was to follow is not owed any more: who asked was told that it cannot be done.
    fn call_off_force(&mut self, now: Now, id: RunId) {
        let plans = |f: &Fact| matches!(f, Fact::ForceFollows { .. });
        let last = self.runs.get(&id).and_then(|run| run.dossier.latest(plans)).map(|(_, e)| e.fact.clone());
        if let Some(Fact::ForceFollows { within_ms: Some(_), who }) = last {
            self.note(id, now.wall, Fact::ForceFollows { within_ms: None, who });
        }
    }

    fn act(&mut self, now: Now, id: RequestId, who: Who, domain: DomainId, act: Act) {
        let Some(run) = self.open_run(domain) else {
            let reply = if self.is_known(domain) { Reply::IsDown } else { Reply::NoSuchVm };
            return self.reply(id, domain, reply);
        };
        if let Some(why) = self.no_link() {
            return self.reply(id, domain, Reply::Unavailable(why));
        }
        let what = act.asked();
        let Some(followed) = self.runs.get_mut(&run) else { return };
        if followed.phase == Phase::Launching {
            return self.reply(id, domain, Reply::Refused("it is still being started".into()));
        }
        // libvirt would keep whoever asks waiting until the long one is over.
        match followed.long {
            Some(_) if act.is_long() => return self.reply(id, domain, Reply::Exists),
            Some(_) if what != Asked::Abort => {
                return self.reply(id, domain, Reply::Moving("it is being migrated or saved"));
            }
            _ => {}
        }
        if act.is_long() {
            followed.long = Some(what);
            followed.status = status_during(what).unwrap_or(followed.status);
        }
        let request = (!act.is_long()).then_some(id);
        self.note(run, now.wall, Fact::Requested { what, who });
        self.touch(now, domain);
        if act.is_long() {
            self.reply(id, domain, Reply::Done);
        }
        self.ask(Question::Do { run, domain, request, act });
    }

    pub(super) fn did(
        &mut self,
        now: Now,
        id: RunId,
        request: Option<RequestId>,
        what: Asked,
        outcome: Outcome,
    ) {
        if let Some(request) = request {
            let reply = match &outcome {
                Outcome::Done => Reply::Done,
                Outcome::NoDomain => Reply::IsDown,
                Outcome::Refused(text) => Reply::Refused(tame(text)),
                Outcome::NoLink => Reply::Unavailable(NO_LINK.into()),
            };
            let on_disk = self.runs.get(&id).and_then(|run| run.act_out);
            self.reply_at_once(request, as_asked(reply, on_disk));
        }
        let Some(run) = self.runs.get_mut(&id).filter(|run| run.is_open()) else { return };
        let domain = run.start.domain;
        let was_long = run.long == Some(what);
        if was_long && outcome != Outcome::Done {
            run.long = None;
        }
        if let Outcome::Refused(text) = &outcome {
            self.note(id, now.wall, Fact::Refused { what, text: tame(text) });
        }
        self.glance_soon(now, id);
        if was_long {
            match outcome {
                // Its STOPPED is on the way.
                Outcome::Done => self.doubt(now, id),
                // It runs on, or stands still: libvirt knows.
                _ => self.look(domain),
            }
        }
    }

    fn destroy(&mut self, now: Now, id: RequestId, who: Who, domain: DomainId) {
        if let Some(run) = self.open_run(domain) {
            if let Some(why) = self.no_link() {
                return self.reply(id, domain, Reply::Unavailable(why));
            }
            self.note(run, now.wall, Fact::Requested { what: Asked::Destroy, who: who.clone() });
            if let Some(run) = self.runs.get_mut(&run) {
                run.destroying.push((id, who));
            }
            return self.ask_to_destroy(run, domain);
        }
        // It has ended by itself: only to be forgotten.
        if let Some(run) = self.current.get(&domain).copied() {
            return self.forget_ended(now, run, who, vec![id]);
        }
        let reply = if self.acknowledge(now, domain, who) { Reply::Done } else { Reply::NoSuchVm };
        self.reply(id, domain, reply);
    }

    pub(super) fn ask_to_destroy(&mut self, run: RunId, domain: DomainId) {
        if let Some(run) = self.runs.get_mut(&run) {
            run.destroys_out += 1;
        }
        self.ask(Question::Act { run, domain, what: Asked::Destroy, xml: None, paused: false });
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
            if self.ends_by_its_exit(now, id) {
                return;
            }
            self.look(domain);
        }
        self.glance(now, id);
        self.give_up_lost_start(now, id);
        if self.runs.get(&id).is_some_and(|run| run.keep_at.is_some_and(|at| at <= now.mono)) {
            self.keep_repeats(id);
        }
        let Some(run) = self.runs.get_mut(&id) else { return };
        if !linked {
            // What could not be done is not asked for: the next link brings it up again.
            return;
        }
        let domain = run.start.domain;
        if let Some((_, shutting)) = run.press_at.take_if(|(at, _)| *at <= now.mono) {
            let what = shutting.button();
            if let Some(wait) = shutting.force_after {
                run.force_within(now.mono.after(wait), shutting.clone());
            }
            self.note(id, now.wall, Fact::Requested { what, who: shutting.who });
            self.ask(Question::Act { run: id, domain, what, xml: None, paused: false });
        }
        let Some(run) = self.runs.get_mut(&id) else { return };
        if let Some((_, shutting)) = run.force_at.take_if(|(at, _)| *at <= now.mono) {
            let what = shutting.force();
            self.note(id, now.wall, Fact::Requested { what, who: shutting.who });
            self.ask(Question::Act { run: id, domain, what, xml: None, paused: false });
        }
        self.set_alarm(id);
    }

    pub(super) fn acted(&mut self, now: Now, id: RunId, what: Asked, outcome: Outcome) {
        if matches!(what, Asked::Shutdown | Asked::AgentShutdown)
            && matches!(outcome, Outcome::NoDomain | Outcome::NoLink)
            && self.runs.get(&id).is_some_and(|run| run.force_at.is_none() && !run.shutting.is_empty())
        {
            self.call_off_force(now, id);
        }
        let inside = self.settings.driver_inside;
        let Some(run) = self.runs.get_mut(&id) else { return };
        let comes_again = what == Asked::Destroy
            && (run.phase == Phase::Launching || run.is_open() && run.up_since_destroy);
        // Before libvirt was asked the request was on disk: the answer needs nothing that was handed over since.
        let shutdown_out = run.shutdown_out;
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
            Asked::Create if outcome == Outcome::NoLink && run.creating && !inside => {
                run.answer_is_lost(now.mono.after(limits::LONGEST_ACT));
            }
            Asked::Create => run.creating = false,
            Asked::AgentShutdown | Asked::AgentReboot => match &outcome {
                // Without an agent, the power button at once.
                Outcome::Refused(_) => {
                    if let Some((_, shutting)) = run.shutting.last() {
                        let (what, domain) = (shutting.button(), run.start.domain);
                        run.press_at = None;
                        self.ask(Question::Act { run: id, domain, what, xml: None, paused: false });
                    }
                }
                outcome => {
                    if *outcome != Outcome::Done {
                        run.press_at = None;
                    }
                    for (request, _) in std::mem::take(&mut run.shutting) {
                        let reply = match outcome {
                            Outcome::NoDomain => Reply::IsDown,
                            Outcome::NoLink => Reply::Unavailable(NO_LINK.into()),
                            Outcome::Done | Outcome::Refused(_) => Reply::Done,
                        };
                        self.reply_at_once(request, as_asked(reply, shutdown_out));
                    }
                }
            },
            Asked::Shutdown | Asked::Reboot => {
                for (request, shutting) in std::mem::take(&mut run.shutting) {
                    let force_after = shutting.force_after;
                    let on_its_way = matches!(outcome, Outcome::Done | Outcome::Refused(_));
                    if let Some(wait) = force_after.filter(|_| on_its_way) {
                        run.force_within(now.mono.after(wait), shutting);
                    }
                    let reply = match &outcome {
                        Outcome::Done => Reply::Done,
                        Outcome::NoDomain => Reply::IsDown,
                        // With force to follow the request is on its way, whatever the guest could be told.
                        Outcome::Refused(_) if force_after.is_some() => Reply::Done,
                        Outcome::Refused(text) => Reply::Refused(text.clone()),
                        Outcome::NoLink => Reply::Unavailable(NO_LINK.into()),
                    };
                    let reply = as_asked(reply, shutdown_out);
                    self.gate.answer_at_once(request, reply);
                }
            }
            // Force has no answer, and the rest is answered by `did`.
            Asked::ForceOff
            | Asked::ForceReset
            | Asked::Pause
            | Asked::Resume
            | Asked::Save
            | Asked::Migrate
            | Asked::Abort
            | Asked::SetTicket
            | Asked::SetMemory
            | Asked::SetVcpus
            | Asked::SetLink
            | Asked::ChangeMedium
            | Asked::PlugCard
            | Asked::UnplugCard
            | Asked::PlugDisk
            | Asked::UnplugDisk
            | Asked::Snapshot
            | Asked::Freeze
            | Asked::Thaw => {}
            // Another destroy is done, or may still be: this one's refusal answers nobody.
            Asked::Destroy if run.has_other_destroys() && !matches!(outcome, Outcome::Done) => {}
            // libvirt does not know it yet: it is asked again when it is up.
            Asked::Destroy if outcome == Outcome::NoDomain && run.phase == Phase::Launching => {
                run.destroy_again = true;
            }
            // Nor did it when it was asked, and it has come up since.
            Asked::Destroy if outcome == Outcome::NoDomain && run.is_open() && run.up_since_destroy => {
                run.up_since_destroy = false;
                let domain = run.start.domain;
                self.ask_to_destroy(id, domain);
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
                            self.reply_at_once(request, reply.clone());
                        }
                    }
                }
            }
        }
        if let Some(text) = refused {
            self.note(id, now.wall, Fact::Refused { what, text });
        }
        self.look_what_came_of_it(now, id, what, &outcome);
        self.glance_soon(now, id);
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
                run.unsure.push((what, now.mono.after(limits::LONGEST_ACT)));
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
        let domain = run.start.domain;
        let (destroying, shutting) = (std::mem::take(&mut run.destroying), std::mem::take(&mut run.shutting));
        let (destroy_out, shutdown_out) = (run.destroy_out, run.shutdown_out);
        for (request, _) in shutting {
            match shutdown_out {
                Some(on_disk) => self.reply_at_once(request, done(on_disk)),
                None => self.reply(request, domain, Reply::Done),
            }
        }
        let Some(who) = destroying.first().map(|(_, who)| who.clone()) else { return };
        let requests = destroying.into_iter().map(|(id, _)| id);
        match destroy_out {
            // libvirt has done it, and a daemon that finds the request and no domain forgets it as well.
            Some(on_disk) => {
                if let Some(run) = self.runs.get_mut(&id) {
                    run.forgotten_by.get_or_insert(who);
                }
                for request in requests {
                    self.reply_at_once(request, done(on_disk));
                }
                self.touch(now, domain);
            }
            None => self.forget_ended(now, id, who, requests.collect()),
        }
    }

    /// A run that ended by itself is acknowledged with its ending, and then no longer shown; then they are answered.
    fn forget_ended(&mut self, now: Now, id: RunId, who: Who, requests: Vec<RequestId>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let domain = run.start.domain;
        let first = run.forgotten_by.is_none();
        run.forgotten_by.get_or_insert(who);
        run.forgetting.extend(requests);
        match run.phase {
            Phase::Recording(_) => self.acknowledge_recorded(now, id, first),
            // It stays as it is shown until then.
            _ if first && self.current.get(&domain) == Some(&id) => self.veil(domain),
            _ => {}
        }
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

/// libvirt reports STOPPED within milliseconds of a destroy.
const STOPPED_PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

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

const NO_DOMAIN: &str = "it knows no such domain";

const NO_LINK: &str = "whydown is not connected to libvirt";
