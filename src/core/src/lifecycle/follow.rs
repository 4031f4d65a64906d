//! What the hypervisor reports, event by event.

use std::sync::Arc;

use super::attribution::Marks;
use super::effect::{Effect, Question};
use super::engine::{Echo, Engine, Prelude};
use super::run::{Phase, Run, could_be, status_after};
use crate::evidence::{Deaf, Fact};
use crate::hypervisor::{DomainRef, Happening, HostEvent, Process, StartDetail};
use crate::id::{BootId, DomainId, RunId};
use crate::record::{Incarnation, Keep, RunStart, When};
use crate::snapshot::Status;
use crate::time::{Now, Wall};

/// What is kept of a domain between its runs; a client that pauses and resumes in a loop must not fill the memory.
const PRELUDES_PER_DOMAIN: usize = 32;

/// A STOPPED for a run that was already found ended comes this soon after. It may have lain in a queue behind a storm.
pub(super) const ECHO: std::time::Duration = std::time::Duration::from_secs(5);

impl Engine {
    pub(super) fn follow(&mut self, now: Now, event: HostEvent) {
        let domain = event.domain.id;
        if let Some(overtaken) = self.looks.get_mut(&domain) {
            *overtaken = true;
        }
        // What is said from now on is not about a run of which is known that another came after it, nor about one that ended
        // with an earlier boot of the host.
        let earlier = |run: &Run| run.next.is_some() || run.start.incarnation.boot != self.settings.boot;
        let over = |id: &RunId| !self.runs[id].is_open() && earlier(&self.runs[id]);
        let run = self.current.get(&domain).copied().filter(|id| !over(id));
        let open = run.filter(|id| self.runs[id].is_open());
        let told = matches!(event.what, Happening::Started(_) | Happening::Stopped(_));
        let doubted = if told { self.doubt_is_over(now, domain) } else { None };
        if matches!(event.what, Happening::ShutdownBegan(_) | Happening::QemuPowerdown) {
            self.wonder_about_host(now);
        }
        match event.what {
            Happening::Started(detail) => self.started(now, event, detail, run),
            Happening::Stopped(_) => match doubted {
                Some((block, gap)) if open.is_none() => self.stopped_unknown(now, &event, block.began, gap),
                _ => self.stopped(now, &event, run),
            },
            Happening::Defined => {
                self.renamed(now, &event.domain, open);
                self.named_while_off(now, &event.domain);
            }
            Happening::Undefined { renamed } => {
                // That it is gone then tells nothing of how it was kept while it ran.
                if let Some(id) = run.filter(|id| !renamed && self.runs[id].takes_evidence()) {
                    self.note(id, event.at, Fact::Host(event.what));
                    self.reconsider(now, id);
                }
            }
            _ => match open {
                Some(id) if self.runs[&id].could_be(event.domain.libvirt_id) => {
                    self.renamed(now, &event.domain, Some(id));
                    if let Some(run) = self.runs.get_mut(&id) {
                        run.follow(&event.what);
                    }
                    let lost = event.what == Happening::ControlError;
                    let unsettles = !matches!(event.what, Happening::Agent { .. });
                    self.note(id, event.at, Fact::Host(event.what));
                    if lost {
                        self.doubt(now, id);
                    }
                    if unsettles {
                        self.glance_soon(now, id);
                    }
                    self.touch(now, domain);
                }
                Some(id) if event.what == Happening::ControlError && self.failed_unasked(id) => {
                    self.another_follows(now, id, event.at);
                    self.between_runs(now, event, run);
                }
                Some(_) => self.remember(domain, event.at, event.what),
                None => self.between_runs(now, event, run),
            },
        }
    }

    /// Something about a domain that has no open run: late words of the last one, or first words of the next.
    fn between_runs(&mut self, now: Now, event: HostEvent, ending: Option<RunId>) {
        match event.what {
            // Of a start of which QEMU's log tells and that is in doubt: whether it is over is told next.
            Happening::ControlError if self.doubtful.contains_key(&event.domain.id) => {
                self.remember(event.domain.id, event.at, event.what);
            }
            Happening::Resumed(_)
            | Happening::Suspended(_)
            | Happening::PmSuspended(_)
            | Happening::Agent { .. } => {
                self.remember(event.domain.id, event.at, event.what);
            }
            Happening::ControlError if self.is_late_word(now, &event.domain) => {
                if let Some(id) = ending {
                    self.note(id, event.at, Fact::Host(Happening::ControlError));
                    self.reconsider(now, id);
                }
            }
            Happening::ControlError
                if ending.is_none_or(|id| !self.runs[&id].could_be(event.domain.libvirt_id)) =>
            {
                // A start that fails in QEMU shows nothing but this. Whether it is one, libvirt must tell.
                let seen = self.seen_of_its_process(event.domain.id).unwrap_or(event.at);
                let start = self.new_start(now, &event.domain, seen.min(event.at), true, None);
                let id = self.begin(now, start, Phase::Launching, Status::Launching);
                self.note(id, event.at, Fact::Host(Happening::ControlError));
                self.ask_for_remains(id);
            }
            what => {
                if let Some(id) = ending.filter(|id| matches!(self.runs[id].phase, Phase::Settling { .. })) {
                    self.note(id, event.at, Fact::Host(what));
                    self.reconsider(now, id);
                }
            }
        }
    }

    fn started(&mut self, now: Now, event: HostEvent, detail: StartDetail, run: Option<RunId>) {
        let fact = Fact::Host(Happening::Started(detail));
        let nobody_runs_it = event.domain.libvirt_id.is_none() && event.process.is_none();
        if detail == StartDetail::FromSnapshot && nobody_runs_it {
            return self.started_in_vain(now, &event, run);
        }
        if detail == StartDetail::FromSnapshot {
            self.starts_from_snapshot(now, event.domain.id, event.at);
        }
        if let Some(id) = run {
            let known = &self.runs[&id];
            match known.phase {
                Phase::Launching if self.failed_unasked(id) && !known.could_be(event.domain.libvirt_id) => {
                    self.another_follows(now, id, event.at);
                }
                Phase::Active if !known.is_to_come_up() && self.is_same_start(id, &event) => {
                    self.note(id, event.at, fact);
                    self.glance_soon(now, id);
                    if detail == StartDetail::Wakeup
                        && let Some(run) = self.runs.get_mut(&id)
                    {
                        run.status = Status::Up;
                        self.touch(now, event.domain.id);
                    }
                    return;
                }
                Phase::Active if !known.is_to_come_up() => {
                    self.note(id, event.at, Fact::Replaced);
                    self.end_unheard(now, id, event.at);
                }
                Phase::Launching | Phase::Active => {
                    // By the time of its start its part of the log is found; it was asked for long before, maybe.
                    if let Some(run) = self.runs.get_mut(&id) {
                        (run.start.at, run.start.seen) = (event.at, true);
                    }
                    self.came_up(now, id, &event.domain, event.process);
                    self.news(event.domain.id);
                    self.note(id, event.at, fact);
                    self.glance_soon(now, id);
                    self.touch(now, event.domain.id);
                    return;
                }
                Phase::Settling { .. } => {
                    if detail == StartDetail::FromSnapshot {
                        self.note(id, event.at, Fact::NextFromSnapshot);
                    }
                    // The domain shows its next run from now on, and its state says nothing more of this one.
                    self.reconsider(now, id);
                }
                Phase::Recording(_) => {}
            }
        }
        if let Some(echo) = self.echoes.get_mut(&event.domain.id) {
            echo.ghost = None;
        }
        // What is woken ran before: its beginning was not heard.
        let seen = detail != StartDetail::Wakeup;
        let start = self.new_start(now, &event.domain, event.at, seen, event.process);
        let id = self.begin(now, start, Phase::Active, Status::Up);
        if !seen {
            self.note(id, event.at, unheard_beginning(event.at));
        }
        for prelude in self.preludes.remove(&event.domain.id).unwrap_or_default() {
            self.note(id, prelude.at, Fact::Host(prelude.what));
        }
        if let Some(run) = self.runs.get_mut(&id)
            && let Some(status) = status_after(&Happening::Started(detail))
        {
            run.status = status;
        }
        self.note(id, event.at, fact);
        self.glance_soon(now, id);
        self.touch(now, event.domain.id);
    }

    /// libvirt tells of a start from a snapshot before it looks whether that came up. Nothing runs it: that start failed,
    /// and is a run of its own, with QEMU's words.
    fn started_in_vain(&mut self, now: Now, event: &HostEvent, run: Option<RunId>) {
        let phase = run.map(|id| (id, &self.runs[&id].phase));
        // The monitor's word came first, and the failed start was found and ended by it.
        let told = self.echo(now, event.domain.id).is_some_and(|echo| !echo.heard);
        let id = match phase {
            Some((id, Phase::Settling { .. })) if told => {
                self.note(id, event.at, Fact::StartedInVain);
                return self.reconsider(now, id);
            }
            Some((_, Phase::Recording(_))) | None if told => return,
            Some((id, Phase::Launching)) => id,
            // It runs, as far as is known: libvirt must tell.
            Some((_, Phase::Active)) => return self.look(event.domain.id),
            Some((_, Phase::Settling { .. } | Phase::Recording(_))) | None => {
                let start = self.new_start(now, &event.domain, event.at, true, None);
                self.begin(now, start, Phase::Launching, Status::Launching)
            }
        };
        self.preludes.remove(&event.domain.id);
        self.note(id, event.at, Fact::StartedInVain);
        self.ask_for_remains(id);
        if let Some(before) = run.filter(|before| *before != id) {
            self.reconsider(now, before);
        }
    }

    fn stopped(&mut self, now: Now, event: &HostEvent, run: Option<RunId>) {
        let fact = Fact::Host(event.what.clone());
        let echo = self.echo(now, event.domain.id);
        if let Some(id) = run {
            let known = &self.runs[&id];
            if !known.could_be(event.domain.libvirt_id) {
                return;
            }
            match known.phase.clone() {
                // The run before was found ended and its end had not been reported: this is it. The new run has no
                // process yet, or was found and not heard; in that case libvirt must tell which of them ended.
                Phase::Launching | Phase::Active
                    if echo.is_some_and(|echo| !echo.heard)
                        && (known.is_to_come_up() || !known.start.seen) =>
                {
                    self.echoes.remove(&event.domain.id);
                    if !self.runs[&id].pending.awaits_its_start() {
                        self.look(event.domain.id);
                    }
                }
                Phase::Launching | Phase::Active => {
                    self.note(id, event.at, fact);
                    self.end(now, id, When::At(event.at));
                }
                Phase::Settling { at_least, at_most, remains, .. } => {
                    self.note(id, event.at, fact);
                    let by_its_exit = echo.is_some_and(|echo| echo.ghost.is_some());
                    if let Some(echo) = self.echoes.get_mut(&event.domain.id) {
                        echo.heard = true;
                        echo.ghost = None;
                    }
                    if by_its_exit {
                        return self.reconsider(now, id);
                    }
                    if let Some(run) = self.runs.get_mut(&id) {
                        run.phase = Phase::Settling { end: When::At(event.at), at_least, at_most, remains };
                    }
                    self.reconsider(now, id);
                    self.set_alarm(id);
                }
                Phase::Recording(_) => {
                    self.echoes.remove(&event.domain.id);
                    if echo.is_none_or(|echo| echo.ghost.is_none()) {
                        self.late(now, id, [(event.at, fact)]);
                    }
                }
            }
            return;
        }
        if let Some(echo) = echo {
            self.echoes.remove(&event.domain.id);
            // It was found ended and told, and this is libvirt's own word on that end. One that comes for a process which had
            // exited long before says only who tidied up.
            if !echo.heard
                && echo.ghost.is_none()
                && let Some(id) = self.last_ended(event.domain.id)
                && self.ended.get(&id).is_some_and(|ended| could_be(&ended.start, event.domain.libvirt_id))
            {
                self.late(now, id, [(event.at, fact)]);
            }
            return;
        }
        self.stopped_unknown(now, event, None, unheard_beginning(event.at));
    }

    /// It came while we were not listening, when its part of the log says if it says so, and this is the first that we hear of
    /// it.
    fn stopped_unknown(&mut self, now: Now, event: &HostEvent, began: Option<Wall>, gap: Fact) {
        let start = self.new_start(now, &event.domain, began.unwrap_or(event.at), false, None);
        let id = self.begin(now, start, Phase::Active, Status::Up);
        self.note(id, event.at, gap);
        for prelude in self.preludes.remove(&event.domain.id).unwrap_or_default() {
            self.note(id, prelude.at, Fact::Host(prelude.what));
        }
        self.note(id, event.at, Fact::Host(event.what.clone()));
        self.end(now, id, When::At(event.at));
    }

    /// A launching run has its process.
    pub(super) fn came_up(&mut self, now: Now, id: RunId, domain: &DomainRef, process: Option<Process>) {
        let boot = self.settings.boot.clone();
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.phase = Phase::Active;
        run.status = Status::Up;
        let to_be_destroyed = run.pending.came_up();
        run.start.incarnation = Incarnation { libvirt_id: domain.libvirt_id, process, boot };
        let start = run.start.clone();
        self.keep(domain.id, Keep::Start(start));
        self.effects.extend(process.map(Effect::Watch));
        self.take_strays(now, id);
        self.renamed(now, domain, Some(id));
        match self.runs.get(&id).map(|run| (run.start.seen, run.start.at, run.pending.destroyed_at)) {
            // It was heard late to come up, before it was destroyed: libvirt must tell whether it is there.
            Some((true, began, Some(destroyed))) if began <= destroyed => self.look(domain.id),
            _ => self.is_not_over(now, id),
        }
        self.tell_others(now, id);
        // Somebody asked to destroy it before libvirt knew it.
        if to_be_destroyed {
            self.ask_to_destroy(id);
        }
    }

    /// The end of the domain's last run, if that was a moment ago.
    fn echo(&self, now: Now, domain: DomainId) -> Option<Echo> {
        self.echoes
            .get(&domain)
            .copied()
            .filter(|echo| echo.ghost.is_some() || now.mono.since(echo.at) <= ECHO)
    }

    /// Whether this is said of a run that was found ended before libvirt had reported its end.
    fn is_late_word(&self, now: Now, domain: &DomainRef) -> bool {
        self.echo(now, domain.id).is_some_and(|echo| {
            let same = match (echo.libvirt_id, domain.libvirt_id) {
                (Some(mine), Some(theirs)) => mine == theirs,
                _ => true,
            };
            !echo.heard && same
        })
    }

    /// Whether this start can be about a run that is up already.
    fn is_same_start(&self, id: RunId, event: &HostEvent) -> bool {
        let known = &self.runs[&id];
        if known.start.incarnation.boot != self.settings.boot {
            return false;
        }
        match (known.start.incarnation.process, event.process) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => known.could_be(event.domain.libvirt_id),
        }
    }

    fn renamed(&mut self, now: Now, domain: &DomainRef, run: Option<RunId>) {
        let Some(run) = run.and_then(|id| self.runs.get_mut(&id)) else { return };
        if run.name != domain.name {
            run.name.clone_from(&domain.name);
            self.touch(now, domain.id);
        }
    }

    /// What libvirt calls a domain that is not up. Its last run bore the name that it has in its ending.
    pub(super) fn named_while_off(&mut self, now: Now, domain: &DomainRef) {
        let id = domain.id;
        let over = self.current.get(&id).and_then(|run| self.runs.get(run)).filter(|run| !run.is_open());
        let ending = self.down.get(&id).map(|down| &down.ending.name);
        let Some(known) = over.map(|run| &run.name).or(ending) else { return };
        if *known == domain.name {
            self.new_names.remove(&id);
        } else {
            self.new_names.insert(id, domain.name.clone());
        }
        self.new_names.retain(|id, _| self.down.contains_key(id) || self.current.contains_key(id));
        self.touch(now, id);
    }

    fn remember(&mut self, domain: DomainId, at: Wall, what: Happening) {
        let heard = self.preludes.entry(domain).or_default();
        if heard.len() == PRELUDES_PER_DOMAIN {
            heard.remove(0);
        }
        heard.push(Prelude { at, heard: self.mono, what });
    }

    pub(super) fn new_start(
        &mut self,
        _now: Now,
        domain: &DomainRef,
        at: Wall,
        seen: bool,
        process: Option<Process>,
    ) -> RunStart {
        self.last_run += 1;
        RunStart {
            run: RunId(self.last_run),
            domain: domain.id,
            name: domain.name.clone(),
            at,
            seen,
            incarnation: Incarnation {
                libvirt_id: domain.libvirt_id,
                process,
                boot: self.settings.boot.clone(),
            },
        }
    }

    /// A new run becomes the domain's current one; an old ending stays in history.
    pub(super) fn begin(&mut self, now: Now, start: RunStart, phase: Phase, status: Status) -> RunId {
        let (id, domain) = (start.run, start.domain);
        self.keep(domain, Keep::Start(start.clone()));
        let made = self.made_before(domain);
        if let Some(devices) = &made {
            self.keep_beside(Keep::Made(id, Arc::clone(devices)));
        }
        self.effects.extend(start.incarnation.process.map(Effect::Watch));
        self.current.insert(domain, id);
        self.down.remove(&domain);
        self.new_names.remove(&domain);
        let comes_up = start.incarnation.process.is_some() || phase == Phase::Launching;
        let mut run = Run::new(start, phase, status, Vec::new());
        run.made = made;
        self.runs.insert(id, run);
        if comes_up {
            self.take_strays(now, id);
        }
        self.may_be_met(now, id);
        self.news(domain);
        id
    }

    /// The last moment at which this run was surely alive.
    pub(super) fn last_sure(&self, id: RunId) -> Wall {
        let Some(run) = self.runs.get(&id) else { return Wall::default() };
        let gaps = run.dossier.items().iter().filter_map(|e| match e.fact {
            Fact::Gap { from, .. } => Some(from),
            _ => None,
        });
        let heard = run.dossier.last_heard(|_| true);
        gaps.max().max(heard).unwrap_or(run.start.at).max(run.start.at)
    }

    /// A run has ended somewhere between the last moment at which it was surely alive and this one. A clock that was
    /// set back must not turn the window round.
    pub(super) fn end_unheard(&mut self, now: Now, id: RunId, at: Wall) {
        let bounds = self.runs.get(&id).map(|run| {
            // The next run began after it, and no process lives through a boot of the host.
            let boot = self.settings.booted.filter(|_| run.start.incarnation.boot != self.settings.boot);
            (self.last_sure(id), [run.next, boot])
        });
        let (sure, earlier) = bounds.unwrap_or((at, [None; 2]));
        let at = earlier.into_iter().flatten().filter(|bound| *bound >= sure).fold(at, Wall::min);
        self.end(now, id, When::Between(sure.min(at), at));
    }

    /// By what a run's part of QEMU's log is told from those of its domain's other runs.
    pub(super) fn marks(&self, run: &Run) -> Marks {
        let RunStart { domain, at: started, seen: seen_start, .. } = run.start;
        let later = self.runs.values().find(|r| r.start.domain == domain && r.start.run > run.start.run);
        let next_start = run.next.or(later.map(|later| later.start.at));
        let before =
            self.runs.values().rev().find(|r| r.start.domain == domain && r.start.run < run.start.run);
        let kept = self.latest.get(&domain).filter(|seen| seen.run < run.start.run).map(|seen| seen.at);
        let previous = before.map(|before| before.start.at).or(kept);
        let heard = run
            .dossier
            .items()
            .iter()
            .find(|piece| matches!(piece.fact, Fact::Host(_) | Fact::Requested { .. }));
        let failing = heard.is_some_and(|piece| piece.fact == Fact::Host(Happening::ControlError));
        Marks { domain, started, seen_start, next_start, previous, failing }
    }

    pub(super) fn ask_for_remains(&mut self, id: RunId) {
        let Some(run) = self.runs.get(&id) else { return };
        let question = Question::Remains {
            run: id,
            domain: run.start.domain,
            name: run.start.name.clone(),
            marks: self.marks(run),
            boot_before: self.boot_that_is_over(&run.start),
            definition: run.definition_wanted(),
        };
        self.ask(question);
    }

    /// The boot in which it ran, if that is over.
    pub(super) fn boot_that_is_over(&self, start: &RunStart) -> Option<BootId> {
        Some(&start.incarnation.boot).filter(|boot| **boot != self.settings.boot).cloned()
    }
}

/// We did not hear up to this moment, as far as a run goes.
fn unheard_beginning(at: Wall) -> Fact {
    Fact::Gap { from: at, to: at, why: Deaf::LinkLost }
}
