//! What managers ask for.

use super::effect::{Question, Reply, Request, Wanted};
use super::engine::Engine;
use super::pending::Shutting;
use super::run::{Phase, status_during};
use crate::evidence::{Fact, OperationKind, Who, tame};
use crate::hypervisor::DomainRef;
use crate::id::{DomainId, RequestId, RunId};
use crate::operation::Operation;
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
            Wanted::Shutdown { domain, again, agent_first, force_after } => {
                self.shut_down(now, id, domain, Shutting { who, again, agent_first, force_after });
            }
            Wanted::Do { act: act @ Operation::Create { .. }, .. } => self.create(now, id, who, domain, act),
            Wanted::Do { act: Operation::Destroy, .. } => self.destroy(now, id, who, domain),
            Wanted::Do { act, .. } => self.act(now, id, who, domain, act),
        }
        self.request_is_taken(id, domain);
    }

    fn create(&mut self, now: Now, id: RequestId, who: Who, domain: DomainId, act: Operation) {
        let Operation::Create { name, made, .. } = &act else { return };
        // As in the original, a Down record has to be acknowledged first.
        let open = self.current.get(&domain).is_some_and(|id| self.runs[id].is_open());
        if open || self.down.contains_key(&domain) {
            return self.reply(id, domain, Reply::Exists);
        }
        if let Some(why) = self.no_link() {
            return self.reply(id, domain, Reply::Unavailable(why));
        }
        let new = DomainRef { id: domain, name: name.clone(), libvirt_id: None };
        // Of starts before this one.
        self.strays.remove(&domain);
        let start = self.new_start(now, &new, now.wall, true, None);
        let run = self.begin(now, start, Phase::Launching, Status::Launching);
        if let Some(run) = self.runs.get_mut(&run) {
            run.pending.creating = true;
        }
        self.note(run, now.wall, Fact::Requested { what: OperationKind::Create, who });
        let made = made.clone();
        self.perform(run, act);
        self.reply(id, domain, Reply::Done);
        if let Some(made) = made {
            self.made(now, run, made, Mono::default());
        }
    }

    /// Has libvirt do this with a run, when all that was handed over about its domain is on disk. Nobody waits for exactly this.
    pub(super) fn perform(&mut self, run: RunId, act: Operation) {
        let Some(domain) = self.runs.get(&run).map(|run| run.start.domain) else { return };
        self.ask(Question::Perform { run, domain, request: None, act });
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
        self.note(run, now.wall, Fact::Requested { what: shutting.button().kind(), who: who.clone() });
        if let Some(wait) = shutting.force_after.filter(|_| !shutting.again) {
            // Whoever is answered that it shuts down may count on it, whatever becomes of this daemon.
            let within = wait.saturating_add(shutting.agent_first.unwrap_or_default());
            let within_ms = Some(u64::try_from(within.as_millis()).unwrap_or(u64::MAX));
            self.note(run, now.wall, Fact::ForceFollows { within_ms, who: who.clone() });
        }
        let first = match shutting.agent_first {
            Some(_) => {
                self.note(run, now.wall, Fact::Requested { what: shutting.agent().kind(), who });
                shutting.agent()
            }
            None => shutting.button(),
        };
        if let Some(run) = self.runs.get_mut(&run) {
            // An agent that hangs may keep libvirt, and who asked, for a minute: its time runs from now on.
            if let Some(wait) = shutting.agent_first {
                run.pending.press_at = Some((now.mono.after(wait), shutting.clone()));
            }
            run.pending.shutting.push((id, shutting));
        }
        self.perform(run, first);
        self.set_alarm(run);
    }

    /// What was to follow is not owed any more: who asked was told that it cannot be done.
    pub(super) fn call_off_force(&mut self, now: Now, id: RunId) {
        let plans = |f: &Fact| matches!(f, Fact::ForceFollows { .. });
        let last = self.runs.get(&id).and_then(|run| run.dossier.latest(plans)).map(|(_, e)| e.fact.clone());
        if let Some(Fact::ForceFollows { within_ms: Some(_), who }) = last {
            self.note(id, now.wall, Fact::ForceFollows { within_ms: None, who });
        }
    }

    fn act(&mut self, now: Now, id: RequestId, who: Who, domain: DomainId, act: Operation) {
        let Some(run) = self.open_run(domain) else {
            let reply = if self.is_known(domain) { Reply::IsDown } else { Reply::NoSuchVm };
            return self.reply(id, domain, reply);
        };
        if let Some(why) = self.no_link() {
            return self.reply(id, domain, Reply::Unavailable(why));
        }
        let what = act.kind();
        let Some(followed) = self.runs.get_mut(&run) else { return };
        if followed.is_to_come_up() {
            return self.reply(id, domain, Reply::Refused("it is still being started".into()));
        }
        // libvirt would keep whoever asks waiting until the long one is over.
        match followed.pending.long {
            Some(_) if what.is_long() => return self.reply(id, domain, Reply::Exists),
            Some(_) if what != OperationKind::Abort => {
                return self.reply(id, domain, Reply::Moving("it is being migrated or saved"));
            }
            _ => {}
        }
        if what.is_long() {
            followed.pending.long = Some(what);
            followed.status = status_during(what).unwrap_or(followed.status);
        }
        let request = (!what.is_long()).then_some(id);
        self.note(run, now.wall, Fact::Requested { what, who });
        self.touch(now, domain);
        if what.is_long() {
            self.reply(id, domain, Reply::Done);
        }
        self.ask(Question::Perform { run, domain, request, act });
    }

    fn destroy(&mut self, now: Now, id: RequestId, who: Who, domain: DomainId) {
        if let Some(run) = self.open_run(domain) {
            if let Some(why) = self.no_link() {
                return self.reply(id, domain, Reply::Unavailable(why));
            }
            return self.destroy_run(now, id, who, run);
        }
        // It has ended by itself: only to be forgotten.
        if let Some(run) = self.current.get(&domain).copied() {
            return self.forget_ended(now, run, vec![(id, who)]);
        }
        let reply = if self.acknowledge(now, domain, who) { Reply::Done } else { Reply::NoSuchVm };
        self.reply(id, domain, reply);
    }

    pub(super) fn ask_to_destroy(&mut self, id: RunId) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.pending.destroy_is_asked();
        }
        self.perform(id, Operation::Destroy);
    }

    /// The time of a run that still stands has come: for force, or to look why a destroyed one is not gone.
    pub(super) fn press_on(&mut self, now: Now, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        if run.pending.destroyed_by.is_some_and(|at| at <= now.mono) {
            run.pending.destroyed_by = None;
            let domain = run.start.domain;
            self.answer_waiting(now, id);
            self.look(domain);
        }
        let linked = self.no_link().is_none();
        let Some(run) = self.runs.get_mut(&id) else { return };
        if run.pending.doubted.is_some_and(|at| at <= now.mono) {
            run.pending.doubted = None;
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
        if let Some((_, shutting)) = run.pending.press_at.take_if(|(at, _)| *at <= now.mono) {
            let act = shutting.button();
            if let Some(wait) = shutting.force_after {
                run.pending.force_within(now.mono.after(wait), shutting.clone());
            }
            self.note(id, now.wall, Fact::Requested { what: act.kind(), who: shutting.who });
            self.perform(id, act);
        }
        let Some(run) = self.runs.get_mut(&id) else { return };
        if let Some((_, shutting)) = run.pending.force_at.take_if(|(at, _)| *at <= now.mono) {
            let act = shutting.force();
            self.note(id, now.wall, Fact::Requested { what: act.kind(), who: shutting.who });
            self.perform(id, act);
        }
        self.set_alarm(id);
    }

    /// A run that ended by itself is acknowledged with its ending, and then no longer shown; then they are answered.
    pub(super) fn forget_ended(&mut self, now: Now, id: RunId, requests: Vec<(RequestId, Who)>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let Some(who) = requests.first().map(|(_, who)| who.clone()) else { return };
        let domain = run.start.domain;
        let first = run.forgotten_by.is_none();
        run.forgotten_by.get_or_insert(who);
        run.pending.forgetting.extend(requests);
        match run.phase {
            Phase::Recording(_) => self.acknowledge_recorded(now, id, first),
            // It stays as it is shown until then.
            _ if first && self.current.get(&domain) == Some(&id) => self.veil(domain),
            _ => {}
        }
    }

    /// A run that was taken for over runs: what runs is never hidden, and who waits for it to be forgotten wants it destroyed.
    pub(super) fn is_not_over(&mut self, now: Now, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.forgotten_by = None;
        for (request, who) in std::mem::take(&mut run.pending.forgetting) {
            self.destroy_run(now, request, who, id);
        }
    }

    fn destroy_run(&mut self, now: Now, request: RequestId, who: Who, id: RunId) {
        self.note(id, now.wall, Fact::Requested { what: OperationKind::Destroy, who: who.clone() });
        if let Some(run) = self.runs.get_mut(&id) {
            run.pending.destroying.push((request, who));
        }
        self.ask_to_destroy(id);
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

pub(super) const NO_LINK: &str = "whydown is not connected to libvirt";
