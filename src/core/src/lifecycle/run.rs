//! One run while the engine follows it.

use std::sync::Arc;

use crate::evidence::{Dossier, Evidence, EvidenceId, Fact, Who};
use crate::hypervisor::{DomainState, Happening, PauseReason, StartDetail, SuspendDetail};
use crate::id::RequestId;
use crate::record::{Ending, RunStart, When};
use crate::snapshot::Status;
use crate::time::{Mono, Wall};

/// A repeated fact is written again when its last time has moved by this much.
const REPEAT_WORTH_KEEPING: std::time::Duration = std::time::Duration::from_secs(5);

/// Where a run stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Phase {
    /// Asked to start, or a start was heard to fail.
    Launching,
    /// It runs, or is paused.
    Active,
    /// It has ended; late evidence may still come.
    Settling {
        /// When it ended.
        end: When,
        /// Not decided before, unless it is certain.
        at_least: Mono,
        /// Decided then in any case.
        at_most: Mono,
        /// Whether the remains were looked at.
        remains: bool,
    },
    /// Decided, and on its way to disk.
    Recording(Arc<Ending>),
}

/// A destroy that was asked while the start was under way: libvirt may not have known the domain yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EarlyDestroy {
    /// There is none.
    No,
    /// It is on its way.
    Asked,
    /// libvirt knew no such domain: it is asked again when the start is done.
    Missed,
}

/// A run that the engine follows.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub start: RunStart,
    /// The present name.
    pub name: String,
    pub dossier: Dossier,
    /// For each piece of evidence, the `last` that the ledger knows.
    kept: Vec<Wall>,
    pub phase: Phase,
    pub status: Status,
    /// Who waits for the answer to a destroy.
    pub destroying: Vec<(RequestId, Who)>,
    /// Who waits for the answer to a shutdown, and when to force it off.
    pub shutting: Vec<(RequestId, Who, Option<std::time::Duration>)>,
    pub force_at: Option<(Mono, Who)>,
    /// Something says that it may be over without libvirt having said so: then libvirt is asked.
    pub doubted: Option<Mono>,
    /// libvirt has our order to start it, and has not answered.
    pub creating: bool,
    /// Whether a destroy may have come before libvirt knew the domain.
    pub early_destroy: EarlyDestroy,
    /// libvirt has done the destroy; its STOPPED is waited for until then.
    pub destroyed_by: Option<Mono>,
    /// STOPPED did not come: libvirt was asked what became of it.
    pub destroy_looked: bool,
    /// Destroyed through us: no longer shown, and acknowledged by this one when its ending is written.
    pub forgotten_by: Option<Who>,
}

impl Run {
    pub fn new(start: RunStart, phase: Phase, status: Status, evidence: Vec<Evidence>) -> Self {
        let kept = evidence.iter().map(|e| e.last).collect();
        Self {
            name: start.name.clone(),
            start,
            dossier: Dossier::from_items(evidence),
            kept,
            phase,
            status,
            destroying: Vec::new(),
            shutting: Vec::new(),
            force_at: None,
            doubted: None,
            creating: false,
            early_destroy: EarlyDestroy::No,
            destroyed_by: None,
            destroy_looked: false,
            forgotten_by: None,
        }
    }

    /// When something is due about this run.
    pub fn alarm(&self) -> Option<Mono> {
        match &self.phase {
            Phase::Settling { at_least, at_most, remains, .. } => {
                Some(if *remains { *at_least } else { *at_most })
            }
            Phase::Active | Phase::Launching => {
                let force_at = self.force_at.as_ref().map(|(at, _)| *at);
                [force_at, self.destroyed_by, self.doubted].into_iter().flatten().min()
            }
            Phase::Recording(_) => None,
        }
    }

    /// Launching or Active.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Launching | Phase::Active)
    }

    /// Adds a fact; gives the piece back if the ledger should hear of it.
    pub fn note(&mut self, at: Wall, fact: Fact) -> Option<(EvidenceId, Evidence)> {
        let requested = matches!(fact, Fact::Requested { .. } | Fact::Refused { .. });
        let known = self.dossier.items().iter().position(|e| e.fact == fact);
        let added = self.dossier.add(at, fact);
        let index = match known {
            Some(index) => index,
            None if added => {
                self.kept.push(Wall(i64::MIN));
                self.dossier.items().len() - 1
            }
            None => return None,
        };
        let piece = &self.dossier.items()[index];
        let worth =
            known.is_none() || requested || piece.last.since(self.kept[index]) >= REPEAT_WORTH_KEEPING;
        worth.then(|| {
            self.kept[index] = piece.last;
            (index as EvidenceId, piece.clone())
        })
    }

    /// Whether this event can be about this run: numbers that are known on both sides must agree.
    pub fn could_be(&self, libvirt_id: Option<u32>) -> bool {
        match (self.start.incarnation.libvirt_id, libvirt_id) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => true,
        }
    }
}

/// The status that follows from what happened; `None` if it changes nothing.
pub(super) fn status_after(happening: &Happening) -> Option<Status> {
    Some(match happening {
        Happening::Started(StartDetail::Migrated) => Status::MigrationDestination,
        Happening::Started(_) | Happening::Resumed(_) => Status::Up,
        Happening::Suspended(SuspendDetail::IoError) => Status::PausedIoError,
        Happening::Suspended(
            SuspendDetail::Migrated | SuspendDetail::Postcopy | SuspendDetail::PostcopyFailed,
        ) => Status::MigrationSource,
        Happening::Suspended(_) | Happening::PmSuspended(_) => Status::Paused,
        Happening::ShutdownBegan(_) => Status::PoweringDown,
        Happening::Rebooted => Status::Up,
        _ => return None,
    })
}

/// The status of an active domain whose events were not heard.
pub(super) fn status_of(state: DomainState) -> Status {
    match state {
        DomainState::Paused(PauseReason::IoError) => Status::PausedIoError,
        DomainState::Paused(PauseReason::Migration | PauseReason::Postcopy | PauseReason::PostcopyFailed) => {
            Status::MigrationSource
        }
        DomainState::Paused(PauseReason::Save) => Status::Saving,
        DomainState::Paused(PauseReason::StartingUp) => Status::Launching,
        DomainState::Paused(_) | DomainState::PmSuspended | DomainState::Crashed => Status::Paused,
        DomainState::ShuttingDown => Status::PoweringDown,
        DomainState::Running | DomainState::ShutOff(_) | DomainState::Other(..) => Status::Up,
    }
}
