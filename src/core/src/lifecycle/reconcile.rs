//! Listings, looks and remains: what is found instead of heard.

use super::effect::{Answer, Question};
use super::engine::Engine;
use super::run::{Phase, status_of};
use crate::evidence::{Deaf, Fact};
use crate::hypervisor::{DomainView, Listing};
use crate::id::{DomainId, RunId};
use crate::record::When;
use crate::snapshot::Link;
use crate::time::{Now, Wall};

impl Engine {
    pub(super) fn link_lost(&mut self, at: Wall) {
        if matches!(self.link, Link::Up) {
            self.link = Link::Down { since: at };
            self.next_heartbeat = None;
            self.effects.push(super::Effect::Keep(crate::record::Keep::Alive(at)));
            self.mark_changed();
        }
        self.looks.clear();
    }

    pub(super) fn link_up(&mut self, now: Now, listing: Listing) {
        let (from, why) = match (self.settled, self.link) {
            (true, Link::Down { since }) => (since, Deaf::LinkLost),
            (true, Link::Up) => (now.wall, Deaf::LinkLost),
            (false, _) => (self.alive_before.unwrap_or(now.wall), Deaf::DaemonAway),
        };
        let gap = Fact::Gap { from: from.min(now.wall), to: now.wall, why };
        self.link = Link::Up;
        self.settled = true;
        self.mark_changed();

        let open: Vec<RunId> = self.runs.iter().filter(|(_, run)| run.is_open()).map(|(id, _)| *id).collect();
        for id in &open {
            self.note(*id, now.wall, gap.clone());
        }
        // An open run that is not its domain's latest one must have ended.
        for id in &open {
            let domain = self.runs[id].start.domain;
            if self.current.get(&domain) != Some(id) {
                self.note(*id, now.wall, Fact::Replaced);
                self.end(now, *id, When::Between(self.last_sure(*id), now.wall));
            }
        }
        let listed: std::collections::BTreeSet<DomainId> =
            listing.domains.iter().map(|v| v.domain.id).collect();
        let changing: std::collections::BTreeSet<DomainId> = listing.changing.iter().copied().collect();
        for view in listing.domains {
            if !changing.contains(&view.domain.id) {
                self.saw(now, &view, &gap);
            }
        }
        let absent: Vec<DomainId> = self
            .current
            .iter()
            .filter(|(domain, id)| {
                !listed.contains(domain)
                    && !changing.contains(domain)
                    && self.runs.get(id).is_some_and(|r| r.is_open())
            })
            .map(|(domain, _)| *domain)
            .collect();
        for domain in absent {
            self.saw_nothing(now, domain);
        }
        for domain in changing {
            self.look(domain);
        }
        self.beat(now);
    }

    /// Asks what libvirt shows of a domain; the answer counts only if nothing is heard of it in between.
    pub(super) fn look(&mut self, domain: DomainId) {
        let heard = self.heard.get(&domain).copied().unwrap_or_default();
        self.looks.insert(domain, heard);
        self.ask(Question::Look { domain });
    }

    pub(super) fn answered(&mut self, now: Now, answer: Answer) {
        match answer {
            Answer::Looked { domain, view } => self.looked(now, domain, view),
            Answer::Remains { run, view, facts } => self.remains(now, run, view, facts),
            Answer::Acted { run, what, outcome } => self.acted(now, run, what, outcome),
        }
    }

    fn looked(&mut self, now: Now, domain: DomainId, view: Option<Option<DomainView>>) {
        let Some(asked_at) = self.looks.remove(&domain) else { return };
        if !matches!(self.link, Link::Up) {
            return;
        }
        if self.heard.get(&domain).copied().unwrap_or_default() != asked_at {
            self.look(domain);
            return;
        }
        let gap = Fact::Gap { from: now.wall, to: now.wall, why: Deaf::LinkLost };
        match view {
            Some(Some(view)) => self.saw(now, &view, &gap),
            Some(None) => self.saw_nothing(now, domain),
            None => {
                let run = self.current.get(&domain).copied();
                if let Some(id) = run.filter(|id| self.runs[id].phase == Phase::Launching) {
                    self.doubt(now, id);
                }
            }
        }
    }

    /// A domain as libvirt shows it now.
    fn saw(&mut self, now: Now, view: &DomainView, gap: &Fact) {
        let domain = view.domain.id;
        let run = self.current.get(&domain).copied().filter(|id| self.runs[id].is_open());
        let found = Fact::Found { state: view.state, managed_save: view.managed_save };
        if !view.state.is_active() {
            if let Some(id) = run {
                self.note(id, now.wall, found);
                self.end(now, id, When::Between(self.last_sure(id), now.wall));
            }
            return;
        }
        match run {
            Some(id) if self.runs[&id].phase == Phase::Launching => {
                self.came_up(now, id, &view.domain, view.process);
                self.note(id, now.wall, found);
                self.show(now, id, view);
            }
            Some(id) if self.is_same_incarnation(id, view) => {
                if let Some(process) = view.process {
                    if let Some(run) = self.runs.get_mut(&id)
                        && run.start.incarnation.process.is_none()
                    {
                        run.start.incarnation.process = Some(process);
                        let start = run.start.clone();
                        self.effects.push(super::Effect::Keep(crate::record::Keep::Start(start)));
                    }
                    self.effects.push(super::Effect::Watch(process));
                }
                self.note(id, now.wall, found);
                self.show(now, id, view);
            }
            other => {
                if let Some(id) = other {
                    self.note(id, now.wall, Fact::Replaced);
                    self.end(now, id, When::Between(self.last_sure(id), now.wall));
                }
                let start = self.new_start(now, &view.domain, now.wall, false, view.process);
                let id = self.begin(now, start, Phase::Active, status_of(view.state));
                self.preludes.remove(&domain);
                self.note(id, now.wall, gap.clone());
                self.note(id, now.wall, found);
                self.show(now, id, view);
            }
        }
    }

    fn show(&mut self, now: Now, id: RunId, view: &DomainView) {
        self.seen_alive(id);
        if let Some(run) = self.runs.get_mut(&id) {
            run.name = crate::evidence::tame(&view.domain.name);
            run.status = status_of(view.state);
        }
        self.touch(now, view.domain.id);
    }

    fn saw_nothing(&mut self, now: Now, domain: DomainId) {
        if let Some(id) = self.current.get(&domain).copied().filter(|id| self.runs[id].is_open()) {
            self.note(id, now.wall, Fact::Gone);
            self.end(now, id, When::Between(self.last_sure(id), now.wall));
        }
    }

    /// The process decides where it is known on both sides; libvirt's own number otherwise.
    fn is_same_incarnation(&self, id: RunId, view: &DomainView) -> bool {
        let known = &self.runs[&id].start.incarnation;
        if known.boot != self.settings.boot {
            return false;
        }
        match (known.process, view.process) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => self.runs[&id].could_be(view.domain.libvirt_id),
        }
    }

    fn remains(&mut self, now: Now, id: RunId, view: Option<Option<DomainView>>, facts: Vec<(Wall, Fact)>) {
        let Some(run) = self.runs.get(&id) else { return };
        let (domain, launching) = (run.start.domain, run.phase == Phase::Launching);
        let latest = self.current.get(&domain) == Some(&id);
        let replaced = run.dossier.find(|f| matches!(f, Fact::Replaced)).is_some();
        match &view {
            // It goes up after all, or libvirt cannot say: the next word or listing tells.
            Some(Some(view)) if view.state.is_active() && launching => return,
            None if launching => return,
            Some(Some(view)) if latest && !replaced && !view.state.is_active() => {
                self.note(id, now.wall, Fact::Found { state: view.state, managed_save: view.managed_save });
            }
            Some(None) if latest && !replaced => self.note(id, now.wall, Fact::Gone),
            _ => {}
        }
        for (at, fact) in facts {
            self.note(id, at, fact);
        }
        if launching {
            let at = self.runs[&id].start.at;
            self.end(now, id, When::At(at));
        }
        if let Some(run) = self.runs.get_mut(&id)
            && let Phase::Settling { remains, .. } = &mut run.phase
        {
            *remains = true;
        }
        self.reconsider(now, id);
        self.set_alarm(id);
    }
}
