//! What happens to domains, and what the daemon's hands do and find.

use std::time::Duration;

use whydown_core::cause::Cause;
use whydown_core::evidence::{Fact, LogWord, OperationKind, StartedFor};
use whydown_core::hypervisor::{DomainState, DomainView, Happening, PauseReason, ShutOffReason, StartDetail};
use whydown_core::id::{DomainId, RunId};
use whydown_core::lifecycle::attribution::{self, Marks};
use whydown_core::lifecycle::{Answer, FailedStart, Input, Outcome, Question, Subject};
use whydown_core::time::Wall;

use super::agenda::Due;
use super::{Acting, Answers, World};
use crate::hypervisor::signalled;
use crate::ways::{self, Act, Chatter, Way};

impl World {
    /// The life of a running VM ends in this way. False if it cannot happen now.
    pub fn befall(&mut self, id: DomainId, way: Way) -> bool {
        let Some(domain) = self.hypervisor.domains.get_mut(&id) else { return false };
        let (Some(life), None) = (domain.life, domain.ending) else { return false };
        if !self.hypervisor.up && way.needs_libvirtd()
            || matches!(way, Way::ManagedSave | Way::SnapshotHalt | Way::SnapshotRevert) && !domain.persistent
        {
            return false;
        }
        domain.ending = Some(life);
        self.hypervisor.lives[life].way = Some(way);
        if self.hypervisor.up {
            self.happens(id, way.sequence());
        } else if let Some(domain) = self.hypervisor.domains.get_mut(&id) {
            if way.waits_for_libvirtd() {
                domain.on_return = ways::found_waiting();
            } else {
                domain.on_return = ways::found_gone();
                self.happens(id, ways::unheard(way));
            }
        }
        true
    }

    /// Something happens to a running VM that does not end it. False if it cannot happen now.
    pub fn chatter(&mut self, id: DomainId, chatter: Chatter) -> bool {
        let fits = self.hypervisor.domains.get(&id).is_some_and(|d| d.life.is_some() && d.ending.is_none());
        if fits && self.hypervisor.up {
            self.happens(id, chatter.sequence());
        }
        fits
    }

    /// A start fails before QEMU runs, or in it: libvirt shows it, and whoever looks tells the daemon.
    pub fn start_fails(&mut self, id: DomainId, started_for: Option<StartedFor>, why: Option<&str>) {
        let shown = DomainState::ShutOff(ShutOffReason::Failed);
        self.hypervisor.end(id, shown, self.now);
        let managed_save = self.hypervisor.view(id).and_then(|view| view.managed_save);
        self.tell_of_failed_start(
            id,
            self.now.wall,
            started_for,
            why,
            Some(Fact::Found { state: shown, managed_save }),
        );
    }

    /// A start failed some time ago, and is found in the logs by now.
    pub fn start_failed_before(
        &mut self,
        id: DomainId,
        ago: Duration,
        started_for: Option<StartedFor>,
        why: Option<&str>,
    ) {
        self.tell_of_failed_start(id, self.now.wall.before(ago), started_for, why, None);
    }

    fn tell_of_failed_start(
        &mut self,
        id: DomainId,
        at: Wall,
        started_for: Option<StartedFor>,
        why: Option<&str>,
        found: Option<Fact>,
    ) {
        if !self.is_listening() {
            return;
        }
        let told_by = || "libvirt's farewell".to_owned();
        let mut facts = vec![(at, Fact::StartFailed { told_by: told_by() })];
        facts.push(match found {
            Some(found) => (self.now.wall, found),
            None => (at, Fact::LogEnd { word: LogWord::Failed, at: Some(at) }),
        });
        facts.extend(started_for.map(|what| (at, Fact::StartedFor { what, told_by: told_by() })));
        facts.extend(why.map(|why| (at, Fact::StartTrouble(why.to_owned()))));
        let domain = self.hypervisor.reference(id);
        self.tell(Input::StartFailed(FailedStart { domain, at, began: None, facts }));
    }

    /// Whether nothing more is on its way to happen to this domain.
    pub fn is_quiet(&self, id: DomainId) -> bool {
        !self.agenda.any(|due| match due {
            Due::Happens(domain, _) => *domain == id,
            Due::Report(event) => event.domain.id == id,
            _ => false,
        })
    }

    /// The truth changes, and libvirt reports it if it runs.
    pub(super) fn happen(&mut self, id: DomainId, act: Act) {
        let now = self.now;
        match act {
            Act::Say(what) => {
                if self.hypervisor.up && self.may_be_said(id, &what) {
                    self.hypervisor.shows(id, &what);
                    let event = self.event(id, what);
                    // libvirt never changes the order of what it reports.
                    let at = now.mono.after(self.report_delay).max(self.reported_last);
                    self.reported_last = at;
                    if at <= now.mono {
                        self.report(event);
                    } else {
                        self.agenda.add(at, Due::Report(event));
                    }
                }
            }
            Act::Show(state) => {
                if let Some(domain) = self.hypervisor.domains.get_mut(&id)
                    && domain.life.is_some() == state.is_active()
                {
                    domain.state = state;
                }
            }
            Act::Log(line) => {
                if let Some(life) = self.hypervisor.latest_life_mut(id) {
                    life.log.push((now.wall, line));
                }
            }
            Act::Exit(status) => {
                // The kernel may tell of it when libvirt has told of the end.
                if let Some(process) = self.hypervisor.latest_life_mut(id).map(|life| life.process)
                    && self.watched.remove(&(process.pid, process.start_ticks))
                {
                    self.witness(Subject::Process(process), Fact::Exit(status));
                }
            }
            Act::Oom => {
                if let Some(pid) = self.hypervisor.life(id).map(|life| life.process.pid) {
                    let line = format!("oom-kill: task=qemu-system-x86, pid={pid}");
                    self.witness(Subject::Pid(pid), Fact::OomKilled { line });
                }
            }
            Act::Signal(signal, from) => {
                if let Some(pid) = self.hypervisor.life(id).map(|life| life.process.pid) {
                    self.witness(Subject::Pid(pid), signalled(signal, from, pid));
                }
            }
            Act::Image(there) => {
                if let Some(domain) = self.hypervisor.domains.get_mut(&id) {
                    domain.managed_save = Some(there);
                }
            }
            Act::Begin => {
                if !self.hypervisor.is_active(id) {
                    self.hypervisor.begin(id, now);
                }
            }
            Act::BeginInVain => self.hypervisor.fail_to_start(id, now),
            Act::Incoming => {
                if let Some(life) = self.hypervisor.life_mut(id) {
                    life.incoming = true;
                }
            }
            Act::End(shown) => {
                if self.hypervisor.up {
                    self.hypervisor.end(id, shown, now);
                } else if let Some(domain) = self.hypervisor.domains.get_mut(&id) {
                    // libvirtd went while it was at it: it will find the process gone.
                    domain.on_return = ways::found_gone();
                }
            }
        }
    }

    /// What a VM says after its end was never said.
    fn may_be_said(&self, id: DomainId, what: &Happening) -> bool {
        match what {
            Happening::Stopped(_)
            | Happening::Started(StartDetail::FromSnapshot)
            | Happening::ControlError
            | Happening::JobCompleted(_)
            | Happening::Defined
            | Happening::Undefined { .. } => true,
            _ => self.hypervisor.is_active(id),
        }
    }

    /// The hands do what was asked, and their answer is on its way.
    pub(super) fn carry(&mut self, question: Question) {
        let answer = match question {
            Question::Host => {
                Answer::Host { going_down: self.host_says_down.clone().map(|by| (self.now.wall, by)) }
            }
            Question::Look { domain } => Answer::Looked { domain, view: self.looked_at(domain) },
            Question::Glance { run, domain, .. } => {
                Answer::Glanced { run, view: self.looked_at(domain), facts: Vec::new() }
            }
            Question::Remains { run, domain, name, marks, boot_before, definition: _ } => {
                let mut facts = self.log_of(&name, marks);
                let left = self.went_down.iter().filter(|(boot, ..)| boot_before.as_ref() == Some(boot));
                facts.extend(left.map(|(_, at, fact)| (*at, fact.clone())));
                let down = self.host_says_down.clone().map(|by| Fact::HostGoingDown { by });
                facts.extend(down.map(|fact| (self.now.wall, fact)));
                if self.host_says_up {
                    facts.push((self.now.wall, Fact::HostUp { by: "systemd says running".into() }));
                }
                Answer::Remains { run, view: self.looked_at(domain), facts }
            }
            Question::Perform { run, domain, request, act } => {
                let what = act.kind();
                let (outcome, wait) = self.act(run, domain, what);
                let answer = Answer::Performed { run, request, what, outcome };
                return self.at(wait, Due::Tell(self.daemon, Input::Answered(answer)));
            }
        };
        let wait = match self.answers {
            Answers::After(wait) | Answers::None(wait) => wait,
        };
        self.at(wait, Due::Tell(self.daemon, Input::Answered(answer)));
    }

    fn looked_at(&self, domain: DomainId) -> Option<Option<DomainView>> {
        let asked = self.is_listening() && matches!(self.answers, Answers::After(_));
        asked.then(|| self.hypervisor.view(domain))
    }

    fn log_of(&self, name: &str, marks: Marks) -> Vec<(Wall, Fact)> {
        match self.answers {
            Answers::After(_) => {
                attribution::facts_of(&self.hypervisor.log(name, self.now), marks, self.now.wall)
            }
            Answers::None(_) => vec![(self.now.wall, Fact::LogUnread("it cannot be read".into()))],
        }
    }

    fn act(&mut self, run: RunId, domain: DomainId, what: OperationKind) -> (Outcome, Duration) {
        let soon = Duration::from_millis(2);
        if let Acting::Told(outcomes) = &mut self.acting {
            let outcome = if outcomes.is_empty() { Outcome::Done } else { outcomes.remove(0) };
            return (outcome, soon);
        }
        if !self.is_listening() || !self.hypervisor.up {
            self.not_done(domain, what);
            return (Outcome::NoLink, soon);
        }
        match self.break_next_act.take() {
            Some(false) => {
                self.not_done(domain, what);
                return (Outcome::NoLink, soon);
            }
            Some(true) => {
                self.really_act(run, domain, what);
                return (Outcome::NoLink, soon);
            }
            None => {}
        }
        self.really_act(run, domain, what)
    }

    /// A request is on its way: whoever says from now on that it ended the VM is not wrong.
    pub(super) fn wanted(&mut self, question: &Question) {
        let Question::Perform { domain: id, act, .. } = question else { return };
        let what = act.kind();
        if let Some(life) = self.hypervisor.life_mut(*id) {
            causes_of(what).iter().for_each(|cause| life.also_true(*cause));
        } else if let Some(domain) = self.hypervisor.domains.get_mut(id) {
            domain.also_next.extend(causes_of(what));
        }
    }

    /// It was not done after all, which nobody can know for as long as libvirt may be at it. A shutdown is up to the
    /// guest, and the manager did want it.
    fn not_done(&mut self, domain: DomainId, what: OperationKind) {
        let until = self.now.mono.after(LONGEST_ACT);
        if let Some(life) = self.hypervisor.life_mut(domain).filter(|_| what != OperationKind::Shutdown) {
            for (_, true_until) in life.also.iter_mut().filter(|(cause, _)| causes_of(what).contains(cause)) {
                *true_until = until.min(*true_until);
            }
        }
    }

    /// As libvirt does it.
    fn really_act(&mut self, run: RunId, id: DomainId, what: OperationKind) -> (Outcome, Duration) {
        let soon = Duration::from_millis(2);
        let refused = |text: &str| (Outcome::Refused(text.to_owned()), soon);
        if what == OperationKind::Create {
            if self.hypervisor.is_active(id) || !self.is_quiet(id) {
                return refused("Requested operation is not valid: domain is already active");
            }
            let name = self.invariants.start_of(run).map_or_else(|| id.to_string(), |s| s.name.clone());
            self.hypervisor.define(id, &name, false);
            self.happens(id, ways::start(whydown_core::hypervisor::StartDetail::Booted));
            return (Outcome::Done, Duration::from_millis(4));
        }
        if self.hypervisor.view(id).is_none() {
            return (Outcome::NoDomain, soon);
        }
        if !self.hypervisor.is_active(id) {
            return refused("Requested operation is not valid: domain is not running");
        }
        let way = match what {
            OperationKind::Shutdown => Way::OurShutdown,
            OperationKind::ForceOff => Way::OurForce,
            OperationKind::Create | OperationKind::Destroy => Way::OurDestroy,
            OperationKind::Save => Way::ManagedSave,
            OperationKind::Migrate => Way::MigratedAway,
            OperationKind::AgentShutdown | OperationKind::AgentReboot => {
                return refused("QEMU guest agent is not configured");
            }
            // The VM goes on.
            _ => return (Outcome::Done, soon),
        };
        let arriving = self.hypervisor.domains.get(&id).map(|domain| domain.state)
            == Some(DomainState::Paused(PauseReason::Migration));
        if what == OperationKind::Shutdown && (arriving || self.deaf_guests.contains(&id)) {
            self.happens(id, Chatter::IgnoredButton.sequence());
            return (Outcome::Done, soon);
        }
        if self.befall(id, way) {
            let wait = if what == OperationKind::Shutdown { 3 } else { 206 };
            return (Outcome::Done, Duration::from_millis(wait));
        }
        // Its end is under way already; libvirt waits for that.
        refused("Requested operation is not valid: domain is not running")
    }
}

/// A minute for the slowest destroy, and a heartbeat until it is looked at.
const LONGEST_ACT: Duration = Duration::from_secs(92);

fn causes_of(what: OperationKind) -> &'static [Cause] {
    match what {
        OperationKind::Shutdown => &[Cause::AdminShutdown],
        OperationKind::ForceOff => &[Cause::AdminForcedOff],
        OperationKind::Destroy => &[Cause::AdminDestroyed, Cause::DestroyedAtStart],
        OperationKind::AgentShutdown => &[Cause::AdminShutdown],
        OperationKind::Save => &[Cause::ManagedSaved],
        OperationKind::Migrate => &[Cause::MigratedAway],
        _ => &[],
    }
}
