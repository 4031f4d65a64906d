//! Listings, looks and remains: what is found instead of heard.

use std::collections::BTreeSet;

use super::attribution;
use super::effect::{Answer, Question};
use super::engine::Engine;
use super::run::{Phase, Reverting, status_of};
use super::unheard::{Hearing, gap_since};
use crate::evidence::{Deaf, Fact, OperationKind};
use crate::hypervisor::{DomainState, DomainView, Happening, Listing, PauseReason};
use crate::id::{DomainId, RunId};
use crate::limits;
use crate::record::{Incarnation, Keep, When};
use crate::snapshot::Link;
use crate::time::{Mono, Now, Wall};

impl Engine {
    pub(super) fn link_lost(&mut self, at: Wall) {
        if matches!(self.link, Link::Up) {
            self.link = Link::Down { since: at };
            self.next_heartbeat = None;
            self.keep_alive(at);
            self.mark_changed();
        }
        for overtaken in self.looks.values_mut() {
            *overtaken = true;
        }
        self.unseen.clear();
        self.glances_are_void();
    }

    pub(super) fn link_up(&mut self, now: Now, listing: Listing) {
        let (from, why) = match (self.settled, self.link) {
            (true, Link::Down { since }) => (since, Deaf::LinkLost),
            (true, Link::Up) => (now.wall, Deaf::LinkLost),
            (false, _) => (self.alive_before.unwrap_or(now.wall), Deaf::DaemonAway),
        };
        let gap = Fact::Gap { from: from.min(now.wall), to: now.wall, why };
        let before = std::mem::replace(&mut self.server, listing.server);
        let same_libvirt =
            matches!((before, self.server), (Some(before), Some(now)) if before.process == now.process);
        if let Some(server) = listing.server {
            self.runs.values_mut().for_each(|run| run.libvirt_is(server, now.mono));
        }
        self.know_of_lost_starts(&listing, from.min(now.wall));
        let changing: BTreeSet<DomainId> = listing.changing.iter().copied().collect();
        let up = listing.domains.iter().filter(|view| is_up(view)).map(|view| view.domain.id);
        let up = up.filter(|domain| !changing.contains(domain)).collect();
        self.changing.clone_from(&changing);
        let hearing = Hearing { from: listing.heard_from, now: now.wall, changing, up };
        let mut unheard = self.unheard(from.min(now.wall), &gap, &hearing);
        // What was in doubt is found in the log again.
        let doubted = std::mem::take(&mut self.doubtful);
        let gap_of = |domain: DomainId| gap_since(&doubted, domain, &gap);
        self.link = Link::Up;
        if !std::mem::replace(&mut self.settled, true) {
            self.listed();
        }
        self.mark_changed();

        let open: Vec<RunId> = self.runs.iter().filter(|(_, run)| run.is_open()).map(|(id, _)| *id).collect();
        for view in listing.domains.iter().filter(|view| self.goes_on(view, same_libvirt)) {
            unheard.remove(&view.domain.id);
        }
        for id in &open {
            match self.runs.get_mut(id).filter(|run| run.pending.creating_until.is_some()) {
                // If it is still to come up, nothing was missed.
                Some(run) => {
                    run.missed.get_or_insert_with(|| gap.clone());
                }
                None => self.note(*id, now.wall, gap.clone()),
            }
            self.expect(*id, &unheard);
        }
        for id in &open {
            self.end_what_is_over(now, *id);
        }
        let listed: BTreeSet<DomainId> = listing.domains.iter().map(|v| v.domain.id).collect();
        for view in listing.domains {
            let domain = view.domain.id;
            let (starts, gap) = (unheard.remove(&domain).unwrap_or_default(), gap_of(domain));
            let changing = hearing.changing.contains(&domain);
            let later = Self::sort_out(domain, starts, is_up(&view), &hearing);
            let shown = match changing {
                true => None,
                false if is_up(&view) => Some(Fact::Replaced),
                false => Some(Fact::Found { state: view.state, managed_save: view.managed_save }),
            };
            self.tell_unheard(now, domain, &later, &gap, shown.as_ref());
            if changing {
                self.doubtful.extend(later.present.map(|block| (domain, (block, gap.clone()))));
            } else if is_up(&view) || later.over.is_empty() {
                let began = later.present.and_then(|block| block.began);
                self.saw(now, &view, &gap, began);
            }
        }
        for (domain, starts) in unheard {
            let (later, gap) = (Self::sort_out(domain, starts, false, &hearing), gap_of(domain));
            let shown = Some(Fact::Gone).filter(|_| !hearing.changing.contains(&domain));
            self.tell_unheard(now, domain, &later, &gap, shown.as_ref());
            self.doubtful.extend(later.present.map(|block| (domain, (block, gap.clone()))));
        }
        let absent: Vec<DomainId> = self
            .current
            .iter()
            .filter(|(domain, id)| {
                !listed.contains(domain)
                    && !hearing.changing.contains(domain)
                    && self.runs.get(id).is_some_and(|r| r.is_open())
            })
            .map(|(domain, _)| *domain)
            .collect();
        for domain in absent {
            self.saw_nothing(now, domain);
        }
        for domain in hearing.changing {
            self.look(domain);
        }
        self.changing.clear();
        for id in open {
            // A force that came due without a link has waited for this one.
            self.set_alarm(id);
        }
        self.beat(now);
    }

    /// Starts whose answer is lost: where libvirt shows the domain up, or QEMU's log has its start, libvirt is no more at it. Its
    /// part of the log is the first since it was asked for; what came after is another run.
    fn know_of_lost_starts(&mut self, listing: &Listing, deaf_since: Wall) {
        let lost = self.runs.iter().filter(|(_, run)| run.was_started_unseen());
        let lost: Vec<(RunId, DomainId)> = lost.map(|(id, run)| (*id, run.start.domain)).collect();
        if lost.is_empty() {
            return;
        }
        let mut begun = attribution::by_domain(self.past.clone());
        for (id, domain) in lost {
            let deaf_since = self.deaf_since(domain, deaf_since);
            let blocks = begun.remove(&domain).unwrap_or_default();
            let blocks = attribution::unheard(blocks, self.latest_but(domain, Some(id)), deaf_since);
            let Some(run) = self.runs.get_mut(&id) else { continue };
            let since = run.start.at.before(limits::CLOCK_GRACE);
            let began = blocks.iter().filter_map(|block| block.began).find(|at| *at >= since);
            let shown = listing.domains.iter().any(|view| view.domain.id == domain && is_up(view));
            if !shown && began.is_none() {
                continue;
            }
            run.phase = Phase::Active;
            run.pending.has_begun();
            if let Some(began) = began {
                (run.start.at, run.start.seen) = (began, false);
                let start = run.start.clone();
                self.keep(domain, Keep::Start(start));
            }
        }
    }

    /// libvirt has had its time for a start whose answer is lost: it is asked once more whether it knows the domain.
    pub(super) fn give_up_lost_start(&mut self, now: Now, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        if run.pending.creating_until.is_none_or(|at| at > now.mono) {
            return;
        }
        run.pending.start_is_known();
        let (domain, missed) = (run.start.domain, run.missed.take());
        if let Some(gap) = missed {
            self.note(id, now.wall, gap);
        }
        if matches!(self.link, Link::Up) {
            self.look(domain);
        }
    }

    /// Ends a run that is over whatever the listing shows: its end was heard by a daemon that did not live to tell it,
    /// its domain has a later run, or the host has booted anew.
    fn end_what_is_over(&mut self, now: Now, id: RunId) {
        let Some(run) = self.runs.get(&id) else { return };
        let stopped = run.dossier.last_heard(|h| matches!(h, Happening::Stopped(_)));
        if let Some(at) = stopped.or_else(|| run.refused_at()) {
            self.end(now, id, When::At(at));
        } else if self.current.get(&run.start.domain) != Some(&id) || run.next.is_some() {
            self.note(id, now.wall, Fact::Replaced);
            self.end_unheard(now, id, now.wall);
        } else if run.start.incarnation.boot != self.settings.boot {
            self.end_unheard(now, id, now.wall);
        }
    }

    /// Asks what libvirt shows of a domain; the answer counts only if nothing is heard of it in between. One question
    /// a domain is under way at any time, so that an answer is never taken for that to a later question.
    pub(super) fn look(&mut self, domain: DomainId) {
        match self.looks.get_mut(&domain) {
            Some(overtaken) => *overtaken = true,
            None => {
                self.looks.insert(domain, false);
                self.ask(Question::Look { domain });
            }
        }
    }

    /// Looks for a domain that somebody did not find.
    pub(super) fn missed(&mut self, domain: DomainId) {
        let run = self.current.get(&domain).and_then(|id| self.runs.get(id));
        if matches!(self.link, Link::Up) && run.is_some_and(|run| matches!(run.phase, Phase::Active)) {
            self.look(domain);
        }
    }

    pub(super) fn answered(&mut self, now: Now, answer: Answer) {
        match answer {
            Answer::Host { going_down } => self.host_answered(now, going_down),
            Answer::Looked { domain, view } => self.looked(now, domain, view),
            Answer::Glanced { run, view, facts } => self.glanced(now, run, view, facts),
            Answer::Remains { run, view, facts } => self.remains(now, run, view, facts),
            Answer::Performed { run, request, what, outcome } => {
                self.performed(now, run, request, what, &outcome);
            }
        }
    }

    fn looked(&mut self, now: Now, domain: DomainId, view: Option<Option<DomainView>>) {
        let Some(overtaken) = self.looks.remove(&domain) else { return };
        if !matches!(self.link, Link::Up) {
            return;
        }
        if overtaken {
            self.look(domain);
            return;
        }
        let gap = Fact::Gap { from: now.wall, to: now.wall, why: Deaf::LinkLost };
        match view {
            Some(Some(view)) => {
                let shown = Fact::Found { state: view.state, managed_save: view.managed_save };
                let began = self.resolve_doubt(now, domain, Some(shown).filter(|_| !is_up(&view)));
                self.saw(now, &view, &gap, began);
            }
            Some(None) => {
                self.resolve_doubt(now, domain, Some(Fact::Gone));
                self.saw_nothing(now, domain);
            }
            None => {
                self.unseen.insert(domain);
            }
        }
    }

    /// A domain as libvirt shows it now, and when its run began, if the log tells of that.
    fn saw(&mut self, now: Now, view: &DomainView, gap: &Fact, began: Option<Wall>) {
        let domain = view.domain.id;
        let run = self.current.get(&domain).copied().filter(|id| self.runs[id].is_open());
        let found = Fact::Found { state: view.state, managed_save: view.managed_save };
        if !is_up(view) {
            self.named_while_off(now, &view.domain);
            // A start that libvirt has not answered yet may still come up.
            match run {
                Some(id) if self.runs[&id].pending.creating => {
                    self.unseen.insert(domain);
                }
                Some(id) => {
                    self.note(id, now.wall, found);
                    self.end_unheard(now, id, now.wall);
                }
                None => {}
            }
            return;
        }
        if run.is_none() && self.is_ghost(view) {
            return;
        }
        match run {
            Some(id) if self.runs[&id].is_to_come_up() => {
                // By when it was seen its part of the log is found; it was asked for long before, maybe, and others' starts
                // have come and gone since.
                if let Some(run) = self.runs.get_mut(&id)
                    && run.start.seen
                {
                    (run.start.at, run.start.seen) = (began.unwrap_or(now.wall), false);
                }
                self.came_up(now, id, &view.domain, view.process);
                self.news(domain);
                // It was found up, not heard to come up: it may have been up before.
                if self.runs[&id].dossier.find(|f| f == gap).is_none() {
                    self.note(id, now.wall, gap.clone());
                }
                self.note(id, now.wall, found);
                self.show(now, id, view);
            }
            Some(id) if self.is_same_incarnation(id, view) => {
                self.learn_marks(id, view);
                self.effects.extend(view.process.map(super::Effect::Watch));
                if self.runs[&id].exited.is_some() {
                    // libvirt has not noticed yet.
                    self.doubt(now, id);
                } else {
                    self.still_runs(now, id);
                    self.note(id, now.wall, found);
                }
                self.show(now, id, view);
            }
            // It is on its way up, and may still fail: STARTED comes when it is up, or libvirt shows it off.
            None if view.state == DomainState::Paused(PauseReason::StartingUp)
                && self.current.get(&domain).is_some_and(|id| self.may_come_back(*id)) => {}
            other => {
                if let Some(id) = other {
                    self.note(id, now.wall, Fact::Replaced);
                    self.end_unheard(now, id, now.wall);
                }
                self.runs_after_a_snapshot(now, domain);
                let began = began.unwrap_or(now.wall);
                let start = self.new_start(now, &view.domain, began, false, view.process);
                let id = self.begin(now, start, Phase::Active, status_of(view.state));
                self.preludes.remove(&domain);
                self.note(id, now.wall, gap.clone());
                self.note(id, now.wall, found);
                self.show(now, id, view);
            }
        }
    }

    /// A run that a snapshot operation has stopped, of whose next start nothing was heard: it runs again.
    fn runs_after_a_snapshot(&mut self, now: Now, domain: DomainId) {
        let stopped = self.current.get(&domain).copied().filter(|id| {
            let run = &self.runs[id];
            matches!(run.phase, Phase::Settling { .. })
                && crate::verdict::was_stopped_by_a_snapshot(&run.dossier)
        });
        if let Some(id) = stopped {
            self.note(id, now.wall, Fact::Replaced);
        }
    }

    /// What tells the run apart, where it was not known yet.
    fn learn_marks(&mut self, id: RunId, view: &DomainView) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let known = &mut run.start.incarnation;
        let learned = Incarnation {
            libvirt_id: known.libvirt_id.or(view.domain.libvirt_id),
            process: known.process.or(view.process),
            boot: known.boot.clone(),
        };
        if learned != *known {
            *known = learned;
            let start = run.start.clone();
            self.keep(start.domain, Keep::Start(start));
        }
    }

    /// Acts of which nobody knew whether they were done were not.
    fn still_runs(&mut self, now: Now, id: RunId) {
        self.is_not_over(now, id);
        let Some(run) = self.runs.get_mut(&id) else { return };
        let (late, open) =
            std::mem::take(&mut run.pending.unsure).into_iter().partition(|(_, at)| *at <= now.mono);
        run.pending.unsure = open;
        let late: Vec<(OperationKind, Mono)> = late;
        for (what, _) in late {
            self.note(id, now.wall, Fact::Refused { what, text: NOT_DONE.into() });
        }
    }

    pub(super) fn show(&mut self, now: Now, id: RunId, view: &DomainView) {
        // A start that broke off with its libvirtd is given up without a word.
        if view.state == DomainState::Paused(PauseReason::StartingUp) {
            self.unseen.insert(view.domain.id);
        }
        if let Some(run) = self.runs.get_mut(&id) {
            run.name.clone_from(&view.domain.name);
            run.status = run.status_seen(view.state);
            run.shown = Some(view.state);
        }
        self.touch(now, view.domain.id);
    }

    fn saw_nothing(&mut self, now: Now, domain: DomainId) {
        match self.current.get(&domain).copied().filter(|id| self.runs[id].is_open()) {
            // A start that libvirt has not answered yet may still come up.
            Some(id) if self.runs[&id].pending.creating => {
                self.unseen.insert(domain);
            }
            Some(id) => {
                self.note(id, now.wall, Fact::Gone);
                self.end_unheard(now, id, now.wall);
            }
            None => {}
        }
    }

    /// The process decides where it is known on both sides; libvirt's own number otherwise.
    pub(super) fn is_same_incarnation(&self, id: RunId, view: &DomainView) -> bool {
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
        if self.ended.contains_key(&id) {
            // It was decided without, or its log is read again. The domain's state may be a later run's by now.
            self.late(now, id, facts.into_iter().filter(|(_, fact)| !matches!(fact, Fact::LogUnread(_))));
            return;
        }
        // A start that was thought to fail came up meanwhile: what was found before is not about it. And what is
        // decided takes no more evidence.
        let wanted = |phase: &Phase| matches!(phase, Phase::Launching | Phase::Settling { .. });
        let Some(run) = self.runs.get(&id).filter(|run| wanted(&run.phase)) else { return };
        let (domain, launching) = (run.start.domain, run.phase == Phase::Launching);
        let latest = self.current.get(&domain) == Some(&id) && run.next.is_none();
        let replaced = run.dossier.find(|f| matches!(f, Fact::Replaced)).is_some();
        match &view {
            // It goes up after all, or libvirt is still clearing up after it.
            Some(Some(view)) if is_up(view) && launching => return self.doubt(now, id),
            // libvirt cannot say, and must be asked again.
            None if launching => {
                if matches!(self.link, Link::Up) {
                    self.unseen.insert(domain);
                }
                return;
            }
            Some(Some(view)) if latest && !replaced && !is_up(view) => {
                self.note(id, now.wall, Fact::Found { state: view.state, managed_save: view.managed_save });
            }
            Some(None) if latest && !replaced => self.note(id, now.wall, Fact::Gone),
            _ => {}
        }
        for (at, fact) in facts {
            let of_this_boot = self.runs[&id].start.incarnation.boot == self.settings.boot;
            let idle =
                matches!(fact, Fact::HostUp { .. }) && !(of_this_boot && self.runs[&id].blames_a_manager());
            // Nor does the shutdown that is under way end what had ended before the boot.
            let idle = idle || matches!(fact, Fact::HostGoingDown { .. }) && !of_this_boot;
            let idle = idle || matches!(fact, Fact::HostWentDown { .. }) && of_this_boot;
            // A line that was read before is no second one.
            let known = self.runs[&id].dossier.find(|known| *known == fact);
            let idle = idle || known.is_some_and(|(_, piece)| piece.first == at);
            if !idle {
                self.note(id, at, fact);
            }
        }
        if self.runs[&id].blames_a_manager()
            && let Some((at, fact)) = self.runs.get_mut(&id).and_then(|run| run.unit_stopping.take())
        {
            self.note(id, at, fact);
        }
        if launching {
            let at = self.runs[&id].start.at;
            self.end(now, id, When::At(at));
        }
        if let Some(run) = self.runs.get_mut(&id)
            && let Phase::Settling { remains, at_least, .. } = &mut run.phase
        {
            *remains = true;
            // A look that came before the time for the start was over may have come before libvirt began with it.
            let left_off = matches!(&view, Some(None)) || matches!(&view, Some(Some(view)) if !is_up(view));
            if run.reverting == Reverting::LookedAgain && left_off {
                run.reverting = Reverting::LeftOff;
                *at_least = now.mono;
            }
        }
        self.reconsider(now, id);
        self.set_alarm(id);
    }
}

/// Whether a process stands behind it. Of a state that this program does not know, libvirt's number tells.
pub(super) fn is_up(view: &DomainView) -> bool {
    match view.state {
        DomainState::Other(..) => view.domain.libvirt_id.is_some(),
        state => state.is_active(),
    }
}

/// Why an act that broke off counts as refused.
const NOT_DONE: &str = "the link to libvirt broke before it was done";
