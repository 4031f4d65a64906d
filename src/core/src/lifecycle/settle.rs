//! From the end of a run to its record: wait where it helps, decide once, write, show.

use std::sync::Arc;
use std::time::Duration;

use super::effect::Reply;
use super::engine::{Down, Echo, Engine};
use super::failed::ending_of;
use super::run::{Phase, Reverting};
use crate::cause::Cause;
use crate::evidence::{Fact, Who};
use crate::hypervisor::{Happening, StopDetail};
use crate::id::{DomainId, RunId};
use crate::record::{Acknowledged, Keep, Verdict, When};
use crate::snapshot::Link;
use crate::time::{Now, Wall};
use crate::verdict;

/// How long the remains of a run (libvirt's state, QEMU's log) are waited for. They take milliseconds; only a hung
/// libvirtd or disk, or a storm, takes longer.
const REMAINS_PATIENCE: Duration = Duration::from_secs(5);

impl Engine {
    /// A run has ended. Decides at once if nothing can change the answer.
    pub(super) fn end(&mut self, now: Now, id: RunId, end: When) {
        let new_boot = self.settings.boot.clone();
        self.keep_repeats(id);
        let Some(run) = self.runs.get_mut(&id) else { return };
        let stopped = run.dossier.items().iter().rev().find_map(|e| match e.fact {
            Fact::Host(Happening::Stopped(detail)) => Some(detail),
            _ => None,
        });
        let remains = run.remains_known || run.looked_into;
        let wait = match stopped {
            _ if remains => Duration::ZERO,
            Some(StopDetail::Failed) => self.settings.settle,
            // The status comes from the kernel, and libvirt's word by another way.
            Some(StopDetail::Shutdown) if verdict::guest_may_exit(&run.dossier) => self.settings.settle,
            // Why the kernel killed it comes by a way of its own, too.
            None if verdict::was_killed(&run.dossier) => self.settings.settle,
            Some(StopDetail::FromSnapshot) => self.settings.settle_snapshot,
            _ => Duration::ZERO,
        };
        let (never_came_up, looked_into) = (run.phase == Phase::Launching, run.looked_into);
        run.phase = Phase::Settling {
            end,
            at_least: now.mono.after(wait),
            at_most: now.mono.after(wait.max(REMAINS_PATIENCE)),
            remains,
        };
        run.pending.ends();
        run.glances = Default::default();
        let before = run.start.incarnation.boot.clone();
        let libvirt_id = run.start.incarnation.libvirt_id;
        let followed = run.next.is_some();
        let domain = run.start.domain;
        // Of one that an earlier boot took along nothing is said any more; of one that another followed, if events are to come.
        let told = !followed || self.changing.contains(&domain);
        if self.current.get(&domain) == Some(&id) && told && before == new_boot {
            self.echoes.insert(
                domain,
                Echo { at: now.mono, heard: stopped.is_some() || looked_into, libvirt_id, ghost: None },
            );
        }
        if never_came_up {
            self.never_came_up(now, id);
        }
        if let Some(end) = stopped {
            self.was_met(id, end);
        }
        for what in self.take_back(id) {
            self.note(id, now.wall, Fact::Refused { what, text: NOT_ASKED.into() });
        }
        if before != new_boot {
            self.note(id, now.wall, Fact::NewBoot { before, now: new_boot });
        }
        self.note_its_fate(now, id);
        self.answer_waiting(now, id);
        self.touch(now, domain);
        self.reconsider(now, id);
        self.set_alarm(id);
        if !remains && matches!(self.runs.get(&id).map(|run| &run.phase), Some(Phase::Settling { .. })) {
            self.ask_for_remains(id);
        }
    }

    /// Of an end of which not all was heard, what its definition says of a reboot or a panic may be all that tells it. And
    /// whether a panic ended it, or somebody did later, libvirt tells alike.
    fn note_its_fate(&mut self, now: Now, id: RunId) {
        let Some(run) = self.runs.get(&id) else { return };
        let asked = run.dossier.find(|f| matches!(f, Fact::Gap { .. }) || verdict::is_panic(f)).is_some();
        let Some(made) = run.made.clone().filter(|_| asked) else { return };
        for fact in made.fate() {
            self.note(id, now.wall, fact);
        }
    }

    /// Decides if nothing can change the answer any more, or if all that was waited for is there.
    pub(super) fn reconsider(&mut self, now: Now, id: RunId) {
        let Some(run) = self.runs.get(&id) else { return };
        let Phase::Settling { end, at_least, at_most, remains } = &run.phase else { return };
        let due = now.mono >= *at_most || (*remains && now.mono >= *at_least);
        let latest = self.current.get(&run.start.domain) == Some(&id) && run.next.is_none();
        let heard = end.latest();
        if due && !self.may_come_back(id) || !latest && *remains {
            return self.record(now, id, None);
        }
        let verdict = verdict::decide(&run.dossier, heard);
        // A refused start was a restore where a saved image waits, and only the remains tell of one. And what QEMU
        // said last stands in its log.
        let asks_first = !remains
            && matches!(
                verdict.cause,
                Cause::StartFailed | Cause::QemuFailed | Cause::QemuCrashed | Cause::GuestExit
            );
        if verdict::is_final(&verdict, &run.dossier) && !asks_first {
            self.record(now, id, Some((heard, verdict)));
        }
    }

    /// Whether a snapshot operation has stopped it and libvirt has not said yet what came of that.
    pub(super) fn may_come_back(&self, id: RunId) -> bool {
        let Some(run) = self.runs.get(&id) else { return false };
        let latest = self.current.get(&run.start.domain) == Some(&id);
        let stopped = || verdict::was_stopped_by_a_snapshot(&run.dossier);
        latest && run.reverting != Reverting::LeftOff && matches!(self.link, Link::Up) && stopped()
    }

    /// The start from the snapshot did not come soon: memory takes long to load. libvirt shows whether it is at it.
    pub(super) fn look_whether_it_comes_back(&mut self, now: Now, id: RunId) {
        let wait = self.settings.settle_snapshot.max(REMAINS_PATIENCE);
        let Some(run) = self.runs.get_mut(&id) else { return };
        let Phase::Settling { end, .. } = run.phase else { return };
        run.reverting = Reverting::LookedAgain;
        let at = now.mono.after(wait);
        run.phase = Phase::Settling { end, at_least: at, at_most: at, remains: false };
        self.set_alarm(id);
        self.ask_for_remains(id);
    }

    /// Decides, and hands the ending to the ledger. `decided`: what was decided already, with its end taken for so late.
    pub(super) fn record(&mut self, now: Now, id: RunId, decided: Option<(Wall, Verdict)>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let Phase::Settling { end, remains, .. } = &run.phase else { return };
        let looked = *remains;
        let (ended, heard) = dated(run.start.at, *end, &run.dossier);
        let decided = decided.filter(|(end, _)| *end == heard).map(|(_, verdict)| verdict);
        let verdict = decided.unwrap_or_else(|| verdict::decide(&run.dossier, heard));
        let ending = Arc::new(ending_of(&run.start, &run.name, &run.dossier, ended, verdict));
        run.phase = Phase::Recording(Arc::clone(&ending));
        let forgotten = run.forgotten_by.is_some();
        let (start, dossier) = (run.start.clone(), run.dossier.clone());
        self.recorded_start(id);
        self.remember_ended(now, start, dossier, &ending, looked);
        self.keep(ending.domain, Keep::Ending(Arc::clone(&ending)));
        if forgotten {
            self.acknowledge_recorded(now, id, true);
        }
    }

    /// A run is acknowledged with its ending, or was before: whoever waits for that is answered when both are on disk.
    pub(super) fn acknowledge_recorded(&mut self, now: Now, id: RunId, first: bool) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let (domain, by) = (run.start.domain, run.forgotten_by.clone());
        let waiting = std::mem::take(&mut run.pending.forgetting);
        if let Some(by) = by.filter(|_| first) {
            self.keep(domain, Keep::Acknowledge(id, Acknowledged { at: now.wall, by }));
        }
        if self.current.get(&domain) == Some(&id) {
            self.news(domain);
        }
        for (request, _) in waiting {
            self.reply(request, domain, Reply::Done);
        }
    }

    /// The ending is on disk.
    pub(super) fn kept(&mut self, now: Now, id: RunId) {
        self.published(now, id, true);
    }

    /// The ledger cannot write now: the truth is shown all the same, marked as not yet durable.
    pub(super) fn not_kept(&mut self, now: Now, id: RunId) {
        self.published(now, id, false);
    }

    fn published(&mut self, now: Now, id: RunId, durable: bool) {
        match self.runs.get(&id).map(|run| (&run.phase, run.start.domain)) {
            Some((Phase::Recording(ending), domain)) => {
                let ending = Arc::clone(ending);
                let mut made = None;
                let forgotten = self.runs.remove(&id).is_some_and(|run| {
                    self.remember_run(&run.start);
                    made = run.made;
                    run.forgotten_by.is_some()
                });
                if self.current.get(&domain) == Some(&id) {
                    self.current.remove(&domain);
                    if !forgotten {
                        let (age, since) = (Duration::ZERO, now.mono);
                        self.down.insert(domain, Down { ending, durable, age, since, made });
                    }
                }
                self.touch(now, domain);
                self.enforce_bounds(now);
            }
            Some(_) => {}
            None => {
                let found = self.down.iter_mut().find(|(_, down)| down.ending.run == id);
                if let Some((domain, down)) = found {
                    let domain = *domain;
                    down.durable = durable;
                    self.touch(now, domain);
                }
            }
        }
    }

    /// A manager has taken note of a Down domain. False if there is none.
    pub(super) fn acknowledge(&mut self, now: Now, domain: DomainId, by: Who) -> bool {
        let Some(down) = self.down.remove(&domain) else { return false };
        self.new_names.remove(&domain);
        self.keep(domain, Keep::Acknowledge(down.ending.run, Acknowledged { at: now.wall, by }));
        self.news(domain);
        true
    }

    /// Down records leave by age and by count, the oldest first. They stay in history. Ages are time lived through: a clock
    /// that is years wrong for a second must not take endings from managers that never saw them.
    pub(super) fn enforce_bounds(&mut self, now: Now) {
        let age = self.settings.unacknowledged_max_age;
        let mut leaving: Vec<DomainId> = self
            .down
            .iter()
            .filter(|(_, down)| down.age(now.mono) > age)
            .map(|(domain, _)| *domain)
            .collect();
        let surplus =
            (self.down.len() - leaving.len()).saturating_sub(self.settings.unacknowledged_max_count);
        if surplus > 0 {
            let mut by_age: Vec<_> = self
                .down
                .iter()
                .filter(|(domain, _)| !leaving.contains(domain))
                .map(|(domain, down)| (std::cmp::Reverse(down.age(now.mono)), down.ending.run, *domain))
                .collect();
            by_age.sort_unstable();
            leaving.extend(by_age.into_iter().take(surplus).map(|(.., domain)| domain));
        }
        for domain in leaving {
            self.acknowledge(now, domain, "(limit)".into());
        }
    }
}

/// Why an act counts as refused that was still waiting for the disk.
const NOT_ASKED: &str = "it had ended before libvirt was asked";

/// When it ended, as all evidence has it, and the moment against which what came before is measured: what is heard of an end is
/// dated by when it was heard.
pub(super) fn dated(start: Wall, end: When, dossier: &crate::evidence::Dossier) -> (When, Wall) {
    let ended = not_before(start, narrowed(end, dossier), dossier);
    (ended, if let When::At(at) = end { at } else { ended.latest() })
}

/// The process may have exited before libvirt told that it had started, or that this failed: nothing ends before it has begun.
/// Where the clock was set back in between, both moments stay as it showed them.
fn not_before(start: Wall, ended: When, dossier: &crate::evidence::Dossier) -> When {
    if dossier.find(|fact| matches!(fact, Fact::ClockSet { .. })).is_some() {
        return ended;
    }
    match ended {
        When::At(at) => When::At(at.max(start)),
        When::Between(from, to) => When::Between(from.max(start), to.max(start)),
    }
}

/// The window up to libvirt's farewell, where that came while we could not hear: we may have been away again before we had
/// found the end.
fn in_an_earlier_gap(dossier: &crate::evidence::Dossier) -> Option<(Wall, Wall)> {
    if dossier.find(|fact| matches!(fact, Fact::ClockSet { .. })).is_some() {
        return None;
    }
    let farewell = dossier.items().iter().find_map(|e| match e.fact {
        Fact::LogEnd { at, .. } => at,
        _ => None,
    })?;
    let shown_up = dossier
        .items()
        .iter()
        .any(|e| matches!(e.fact, Fact::Found { state, .. } if state.is_active()) && e.last > farewell);
    if shown_up {
        return None;
    }
    dossier.items().iter().find_map(|e| match e.fact {
        Fact::Gap { from, to, .. } if (from..=to).contains(&farewell) => Some((from, farewell)),
        _ => None,
    })
}

/// Evidence with a time of its own narrows the window in which an unheard end lies. The process's own exit is the end,
/// however much later libvirt noticed it.
fn narrowed(end: When, dossier: &crate::evidence::Dossier) -> When {
    let (mut from, mut to) = match end {
        When::At(heard) => {
            let exit = dossier.find(|fact| matches!(fact, Fact::Exit(_))).map(|(_, exit)| exit.first);
            return When::At(exit.unwrap_or(heard).min(heard));
        }
        When::Between(from, to) => {
            in_an_earlier_gap(dossier).filter(|(_, at)| *at < from).unwrap_or((from, to))
        }
    };
    for evidence in dossier.items() {
        match evidence.fact {
            // The process's own exit is the end.
            Fact::Exit(_) | Fact::InnerExit(_) if (from..=to).contains(&evidence.first) => {
                return When::At(evidence.first);
            }
            // libvirt's farewell may come long after the end, never before it.
            Fact::LogEnd { at: Some(at), .. } if (from..=to).contains(&at) => to = at,
            // QEMU's word on a signal comes before the end.
            Fact::LogSignal { at: Some(at), .. } if (from..=to).contains(&at) => from = at,
            Fact::Signalled { .. } if (from..=to).contains(&evidence.first) => from = evidence.first,
            _ => {}
        }
    }
    When::Between(from, to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::{Deaf, Dossier, LogWord};
    use crate::hypervisor::DomainState;

    #[test]
    fn an_end_in_a_gap_before_the_last_one_is_dated_by_libvirts_farewell() {
        let gap = |from, to| Fact::Gap { from: Wall(from), to: Wall(to), why: Deaf::DaemonAway };
        let farewell = |at| Fact::LogEnd { word: LogWord::Destroyed, at: Some(Wall(at)) };
        let window = When::Between(Wall(50), Wall(60));
        for (at, ended) in [
            (25, When::Between(Wall(20), Wall(25))),
            (55, When::Between(Wall(50), Wall(55))),
            // Nobody was away then: it is not believed.
            (35, window),
        ] {
            let mut dossier = Dossier::default();
            for fact in [gap(20, 30), gap(50, 60), farewell(at)] {
                dossier.add(Wall(60), fact);
            }
            assert_eq!(narrowed(window, &dossier), ended, "{at}");
            let mut later = dossier.clone();
            later.add(Wall(45), Fact::Found { state: DomainState::Running, managed_save: None });
            assert_eq!(narrowed(window, &later) == ended, at != 25, "it ran on: {at}");
            dossier.add(Wall(60), Fact::ClockSet { before: Wall(1), now: Wall(2) });
            assert_eq!(narrowed(window, &dossier) == ended, at != 25, "{at}");
        }
    }
}
