//! Glances: how libvirt shows a run that goes on, looked at soon after anything that may have changed that.
//!
//! Events say what happened, not how it is now: a machine that is reset while it is paused stays paused, and a panic may
//! come without a pause. So no state is concluded from an event for longer than until the next glance. One glance answers
//! for all that happened until it was begun: a storm costs one every [`QUIET`] a domain, and is never a glance an event.

use std::time::Duration;

use super::effect::Question;
use super::engine::Engine;
use super::reconcile::is_up;
use super::run::{Phase, Run};
use crate::evidence::Fact;
use crate::hypervisor::{DomainState, DomainView, Happening, IoErrorAction, PauseReason, Process};
use crate::id::RunId;
use crate::record::When;
use crate::snapshot::{Link, Status};
use crate::time::{Mono, Now, Wall};

/// Between something that happened and the glance that follows; what happens meanwhile shares it.
const QUIET: Duration = Duration::from_millis(200);

/// Until a glance that could not be had is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// How long libvirt may go on showing a VM whose process we saw exit, before it ends by what we saw. Where nobody reaps
/// QEMU, libvirt itself waits some 40 s for a process that is gone; where its worker hangs, it waits for ever.
const EXIT_PATIENCE: Duration = Duration::from_secs(45);

/// A run's glances.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Glances {
    /// When the next one is due.
    pub due: Option<Mono>,
    /// Whether one is under way.
    out: bool,
    /// Whether that one was overtaken, and says nothing.
    overtaken: bool,
}

impl Engine {
    /// Something happened that libvirt may show now.
    pub(super) fn glance_soon(&mut self, now: Now, id: RunId) {
        let is_up = |run: &&mut Run| run.phase == Phase::Active && !run.is_to_come_up();
        let Some(run) = self.runs.get_mut(&id).filter(is_up) else { return };
        let glances = &mut run.glances;
        if glances.out {
            glances.overtaken = true;
        } else if glances.due.is_none() {
            glances.due = Some(now.mono.after(QUIET));
            self.set_alarm(id);
        }
    }

    /// Begins the glance that is due.
    pub(super) fn glance(&mut self, now: Now, id: RunId) {
        let linked = matches!(self.link, Link::Up);
        let Some(run) = self.runs.get_mut(&id) else { return };
        if run.glances.due.is_none_or(|at| at > now.mono) {
            return;
        }
        run.glances.due = None;
        // Without a link the next listing shows it.
        if !linked || run.phase != Phase::Active || run.glances.out {
            return;
        }
        run.glances = Glances { due: None, out: true, overtaken: false };
        let Some(run) = self.runs.get(&id) else { return };
        let (domain, name, marks) = (run.start.domain, run.start.name.clone(), self.marks(run));
        let full = run.full_disks();
        self.ask(Question::Glance { run: id, domain, name, marks, full });
    }

    /// What a glance has seen.
    pub(super) fn glanced(
        &mut self,
        now: Now,
        id: RunId,
        view: Option<Option<DomainView>>,
        facts: Vec<(Wall, Fact)>,
    ) {
        let linked = matches!(self.link, Link::Up);
        let Some(run) = self.runs.get_mut(&id).filter(|run| run.phase == Phase::Active) else { return };
        let overtaken = std::mem::take(&mut run.glances).overtaken;
        if !linked {
            return;
        }
        if overtaken {
            return self.glance_soon(now, id);
        }
        match view {
            Some(Some(view)) if is_up(&view) && self.is_same_incarnation(id, &view) => {
                for (at, fact) in facts {
                    self.note(id, at, fact);
                }
                let before = self.runs[&id].status;
                self.show(now, id, &view);
                // What no event had told is evidence.
                let unknown = view.state == DomainState::Paused(PauseReason::Unknown);
                if self.runs[&id].status != before || unknown {
                    self.note(
                        id,
                        now.wall,
                        Fact::Found { state: view.state, managed_save: view.managed_save },
                    );
                }
            }
            // Its end, or the next run's start, is being reported. If not, it is looked for.
            Some(_) => self.doubt(now, id),
            None => {
                if let Some(run) = self.runs.get_mut(&id) {
                    run.glances.due = Some(now.mono.after(AGAIN));
                }
                self.set_alarm(id);
            }
        }
    }

    /// What was under way when the link was lost says nothing.
    pub(super) fn glances_are_void(&mut self) {
        for run in self.runs.values_mut() {
            run.glances.overtaken = true;
        }
    }

    /// Its process has exited: libvirt will say so, or be asked.
    pub(super) fn exited(&mut self, now: Now, id: RunId) {
        let Some(run) = self.runs.get_mut(&id).filter(|run| run.phase == Phase::Active) else { return };
        // The program around QEMU is gone, and QEMU may go on: libvirt must tell.
        if crate::verdict::is_only_around_qemu(&run.dossier) {
            return self.doubt(now, id);
        }
        run.exited.get_or_insert(now.mono);
        if run.status != Status::PoweringDown {
            run.status = Status::Ending;
        }
        let domain = run.start.domain;
        self.touch(now, domain);
        self.doubt(now, id);
    }

    /// Whether libvirt has shown a run whose process is gone for long enough; then it ends by what we saw.
    pub(super) fn ends_by_its_exit(&mut self, now: Now, id: RunId) -> bool {
        let Some(run) = self.runs.get(&id).filter(|run| run.is_open()) else { return false };
        let (Some(since), Link::Up) = (run.exited, self.link) else { return false };
        if now.mono.since(since) < EXIT_PATIENCE {
            self.doubt(now, id);
            return false;
        }
        let process = run.start.incarnation.process;
        let at = run.dossier.find(|f| matches!(f, Fact::Exit(_))).map_or(now.wall, |(_, e)| e.first);
        let domain = run.start.domain;
        self.end(now, id, When::At(at));
        if let Some(echo) = self.echoes.get_mut(&domain) {
            echo.ghost = process;
        }
        true
    }

    /// Whether libvirt still shows a run that has ended by its exit.
    pub(super) fn is_ghost(&self, view: &DomainView) -> bool {
        let Some(echo) = self.echoes.get(&view.domain.id) else { return false };
        let same = |ghost: Process| view.process.is_none_or(|process| process == ghost);
        echo.ghost.is_some_and(same) && echo.libvirt_id.is_some() && echo.libvirt_id == view.domain.libvirt_id
    }
}

impl Run {
    /// The status of an active domain that libvirt shows like this.
    pub(super) fn status_seen(&self, state: DomainState) -> Status {
        if self.exited.is_some() {
            return if self.status == Status::PoweringDown { Status::PoweringDown } else { Status::Ending };
        }
        if let Some(status) = self.pending.long.and_then(super::run::status_during) {
            return status;
        }
        match state {
            DomainState::Paused(PauseReason::Migration | PauseReason::StartingUp) if self.is_arriving() => {
                Status::MigrationDestination
            }
            // What was restored and not let run keeps this reason for ever.
            DomainState::Paused(PauseReason::Migration) if self.start.seen && !self.is_leaving() => {
                Status::Paused
            }
            state => super::run::status_of(state),
        }
    }

    /// Whether it was paused to go to another host.
    fn is_leaving(&self) -> bool {
        use crate::hypervisor::SuspendDetail::{Migrated, Postcopy, PostcopyFailed};
        let left = self
            .dossier
            .last_heard(|h| matches!(h, Happening::Suspended(Migrated | Postcopy | PostcopyFailed)));
        left.is_some() && left >= self.dossier.last_heard(|h| matches!(h, Happening::Resumed(_)))
    }

    /// Whether it came by migration and was not handed over yet. Both ends of a migration are paused for it.
    fn is_arriving(&self) -> bool {
        use crate::hypervisor::StartDetail::Migrated;
        let came = self.dossier.last_heard(|h| matches!(h, Happening::Started(Migrated)));
        came.is_some() && came > self.dossier.last_heard(|h| matches!(h, Happening::Resumed(_)))
    }

    /// libvirt's names of the disks that paused it as they had no room. Others are not looked at: a storage that is gone
    /// would hang whoever looks.
    fn full_disks(&self) -> Vec<String> {
        if self.status != Status::PausedIoError {
            return Vec::new();
        }
        let pieces = self.dossier.items().iter().filter_map(|e| match &e.fact {
            Fact::Host(Happening::IoError { disk, action: IoErrorAction::Pause, reason }) => {
                (reason == "enospc" && !disk.is_empty()).then(|| disk.clone())
            }
            _ => None,
        });
        pieces.collect()
    }

    /// Why it is paused, in words, where nobody asked for it.
    pub(super) fn paused_by(&self) -> Option<Box<str>> {
        if !matches!(self.status, Status::Paused | Status::PausedIoError) {
            return None;
        }
        match self.shown? {
            DomainState::Paused(PauseReason::IoError) => {
                let reason = self.io_error().unwrap_or_default();
                let place = self.dossier.latest(|f| matches!(f, Fact::DiskSpace { .. }));
                let place =
                    place.filter(|_| &*reason == "enospc").map(|(_, e)| crate::verdict::describe(&e.fact));
                Some(match (reason.is_empty(), place) {
                    (true, _) => "an I/O error".into(),
                    (false, None) => format!("an I/O error: {reason}").into(),
                    (false, Some(place)) => format!("an I/O error: {reason}; {place}").into(),
                })
            }
            DomainState::Paused(PauseReason::Unknown) => {
                let said = self
                    .dossier
                    .latest(|f| matches!(f, Fact::LogText(text) if internal_error(text).is_some()));
                let line = said.and_then(|(_, e)| match &e.fact {
                    Fact::LogText(text) => internal_error(text),
                    _ => None,
                });
                Some(
                    line.unwrap_or("QEMU, and libvirt gives no reason: its internal errors look like this")
                        .into(),
                )
            }
            DomainState::Paused(PauseReason::Watchdog) => Some("its watchdog".into()),
            DomainState::Paused(PauseReason::Crashed) | DomainState::Crashed => {
                Some("a panic of the guest, which is kept as it is".into())
            }
            DomainState::PmSuspended => Some("the guest, which sleeps".into()),
            _ => None,
        }
    }
}

/// The line in which QEMU tells of an error of its own or of KVM's.
pub fn internal_error(text: &str) -> Option<&str> {
    text.lines().map(str::trim).find(|line| line.contains("internal error") && !line.is_empty())
}
