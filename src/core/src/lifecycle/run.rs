//! One run while the engine follows it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::effect::Definition;
use super::glance::Glances;
use super::pending::{Pending, Shutting};
use crate::evidence::{Dossier, Evidence, EvidenceId, Fact, OperationKind, Sender, Who};
use crate::hypervisor::{
    DomainState, Happening, IoErrorAction, PauseReason, Server, StartDetail, SuspendDetail, WatchdogAction,
};
use crate::limits;
use crate::log::LogBlock;
use crate::record::{Ending, RunStart, When};
use crate::sample::Devices;
use crate::snapshot::Status;
use crate::time::{Mono, Now, Wall};

/// How long the repeat of a fact may wait to be written, so that a storm of them is written now and then.
const REPEAT_WAITS: Duration = Duration::from_secs(5);

/// The same where other facts came in between: then the repeat tells what came after what.
const REORDER_WAITS: Duration = Duration::from_millis(200);

/// It does not wait at all where the fact was last written so long before. A guest that is reset again and again does no
/// more than that.
const REORDER_AT_ONCE: Duration = Duration::from_millis(50);

/// Different facts of one kind that a run keeps; then the oldest of them gives way. A VM that lives for years through
/// restarts of libvirt, or a client with ever new texts, must not take the places of what tells of the end.
pub(super) const PLACES_OF_A_KIND: usize = 12;

/// Whether the record of something is on disk, or waits in memory as it cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnDisk {
    Yes,
    No,
}

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

/// A run that a snapshot operation has stopped: it may begin anew from the snapshot, however long its memory takes to
/// load, or be left off. libvirt shows which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Reverting {
    /// Nobody has looked since it was stopped, or libvirt could not say.
    #[default]
    Open,
    /// Looked at again, as the start did not come soon.
    LookedAgain,
    /// It was left off.
    LeftOff,
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
    /// What waits on it.
    pub pending: Pending,
    /// How libvirt showed it when it was last looked at, if nothing was heard since.
    pub shown: Option<DomainState>,
    /// Glances at how libvirt shows it.
    pub glances: Glances,
    /// When its process was seen to exit.
    pub exited: Option<Mono>,
    /// Destroyed through us: no longer shown, and acknowledged by this one when its ending is written.
    pub forgotten_by: Option<Who>,
    /// Its remains were looked at before it was told to us.
    pub looked_into: bool,
    /// What was not heard meanwhile: a run that came up and went in it left no word.
    pub missed: Option<Fact>,
    /// Parts of QEMU's log that were over while libvirt's answer to its start was still to come, with the gap in which they were:
    /// when it comes up, they are other runs'.
    pub others: Vec<(LogBlock, Fact)>,
    /// Its unit was given something to do: libvirt has it stopped after every end, and it matters only if the host's service
    /// manager sent a signal.
    pub unit_stopping: Option<(Wall, Fact)>,
    /// Facts whose repeats are not on their way to disk yet, and when they are to be.
    unkept: BTreeSet<EvidenceId>,
    pub keep_at: Option<Mono>,
    /// What is waited for after a snapshot operation has stopped it.
    pub reverting: Reverting,
    /// When the domain's next run began, where that is known before it is followed: then what libvirt shows or says of
    /// the domain is no more about this one.
    pub next: Option<Wall>,
    /// All that is left of it is known: nothing is asked when it ends.
    pub remains_known: bool,
    /// What it is made of, as far as it is known.
    pub made: Option<Arc<Devices>>,
    /// When the reading began that said so; the beginning of time if nobody has read it yet.
    pub made_read: Mono,
}

impl Run {
    pub fn new(start: RunStart, phase: Phase, status: Status, evidence: Vec<Evidence>) -> Self {
        let kept = evidence.iter().map(|e| e.last).collect();
        let pending = Pending::unsure_of(&in_doubt(&evidence));
        // A destroy was answered as done when libvirt had done it, whatever became of the daemon: until the run is found
        // running, it is taken for over and forgotten.
        let destroyer = pending.unsure.iter().any(|(what, _)| *what == OperationKind::Destroy);
        let destroyer = destroyer.then(|| last_to_destroy(&evidence)).flatten();
        Self {
            name: start.name.clone(),
            start,
            dossier: Dossier::from_items(evidence),
            kept,
            phase,
            status,
            pending,
            shown: None,
            glances: Glances::default(),
            exited: None,
            forgotten_by: destroyer,
            looked_into: false,
            missed: None,
            others: Vec::new(),
            unit_stopping: None,
            unkept: BTreeSet::new(),
            keep_at: None,
            reverting: Reverting::default(),
            next: None,
            remains_known: false,
            made: None,
            made_read: Mono::default(),
        }
    }

    /// A daemon before us asked libvirt to start it and heard nothing of it: it is not known to have come up.
    pub fn may_still_start(&mut self) {
        let asked =
            self.dossier.find(|f| matches!(f, Fact::Requested { what: OperationKind::Create, .. })).is_some();
        let came = self.start.incarnation.process.is_some() || crate::verdict::was_up(&self.dossier);
        if asked && !came && self.refused_at().is_none() {
            (self.phase, self.status) = (Phase::Launching, Status::Launching);
            self.pending.answer_is_lost(Mono::default());
        }
    }

    /// A daemon before us left acts without a word of what came of them. Whoever was asked to do them may still be at it.
    pub fn doubt_since(&mut self, now: Now) {
        let until = |what: OperationKind| {
            let since = last_asked(&self.dossier, what).map_or(Duration::ZERO, |at| now.wall.since(at));
            now.mono.after(limits::LONGEST_ACT.saturating_sub(since))
        };
        self.pending.unsure = self.pending.unsure.iter().map(|(what, _)| (*what, until(*what))).collect();
        self.pending.creating_until = self.pending.creating_until.map(|_| until(OperationKind::Create));
        self.owe_force(now);
    }

    /// This is libvirt from now on.
    pub fn libvirt_is(&mut self, server: Server, now: Mono) {
        let Self { pending, dossier, .. } = self;
        pending.libvirt_is(server, now, |what| last_asked(dossier, what));
    }

    /// A daemon before us had answered that it shuts down, with force to follow. The clock may have been set since: then it
    /// follows later than it was to, by as much as it was to take at most.
    fn owe_force(&mut self, now: Now) {
        let plans = self.dossier.items().iter().filter_map(|e| match &e.fact {
            Fact::ForceFollows { within_ms, who } => Some((e, *within_ms, who)),
            _ => None,
        });
        let plans: Vec<_> = plans.collect();
        let off = plans.iter().filter(|(_, within, _)| within.is_none()).map(|(e, ..)| e.last).max();
        let owed = plans.into_iter().filter_map(|(e, within, who)| {
            let within = Duration::from_millis(within?);
            let asked = if off.is_some_and(|off| e.first <= off) { e.last } else { e.first };
            off.is_none_or(|off| asked > off)
                .then(|| (within.saturating_sub(now.wall.since(asked)), who.clone()))
        });
        if let Some((left, who)) = owed.min_by_key(|(left, _)| *left) {
            let shutting = Shutting { who, again: false, agent_first: None, force_after: None };
            self.pending.force_within(now.mono.after(left), shutting);
        }
    }

    /// When something is due about this run.
    pub fn alarm(&self) -> Option<Mono> {
        match &self.phase {
            Phase::Settling { at_least, at_most, remains, .. } => {
                Some(if *remains { *at_least } else { *at_most })
            }
            Phase::Active | Phase::Launching => {
                [self.pending.alarm(), self.glances.due, self.keep_at].into_iter().flatten().min()
            }
            Phase::Recording(_) => None,
        }
    }

    /// Whether what is noted now still counts.
    pub fn takes_evidence(&self) -> bool {
        !matches!(self.phase, Phase::Recording(_))
    }

    /// Whether a daemon that begins now would take it for destroyed through us, and forget it.
    pub fn is_destroyed_on_record(&self) -> bool {
        in_doubt(self.dossier.items()).contains(&OperationKind::Destroy)
    }

    /// When libvirt refused to start it, if that is what became of its start.
    pub fn refused_at(&self) -> Option<Wall> {
        let refused = |f: &Fact| matches!(f, Fact::Refused { what: OperationKind::Create, .. });
        let unknown = self.start.incarnation.process.is_none() && !crate::verdict::was_up(&self.dossier);
        self.dossier.latest(refused).filter(|_| unknown).map(|(_, piece)| piece.last)
    }

    /// Whether libvirt was asked to start it, nothing more is to come of that, or its answer is lost, and it was not seen up.
    pub fn was_started_unseen(&self) -> bool {
        let asked = |f: &Fact| matches!(f, Fact::Requested { what: OperationKind::Create, .. });
        self.phase == Phase::Launching
            && !self.pending.awaits_its_start()
            && self.dossier.find(asked).is_some()
            && self.refused_at().is_none()
    }

    /// Whether it was not seen up yet: neither its process nor when it began is known.
    pub fn is_to_come_up(&self) -> bool {
        self.phase == Phase::Launching || self.phase == Phase::Active && self.pending.has_begun_unseen()
    }

    /// Launching or Active.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Launching | Phase::Active)
    }

    /// Whether the host was said to go down, and not since to stay.
    pub fn thinks_that_the_host_goes_down(&self) -> bool {
        let down = self.dossier.latest(|f| matches!(f, Fact::HostGoingDown { .. })).map(|(_, e)| e.last);
        down > self.dossier.latest(|f| *f == Fact::HostStays).map(|(_, e)| e.last)
    }

    /// Whether a signal of a service manager is known: only then it matters that the host is up, and what was stopped.
    pub fn blames_a_manager(&self) -> bool {
        self.dossier.find(Fact::is_signal_of_a_manager).is_some()
    }

    /// Adds a fact; gives the piece back if the ledger should hear of it at once.
    pub fn note(&mut self, now: Mono, at: Wall, fact: Fact) -> Option<(EvidenceId, Evidence)> {
        let fact = self.with_own_sender(fact);
        let requested = matches!(fact, Fact::Requested { .. } | Fact::Refused { .. });
        let known = self.dossier.items().iter().position(|e| e.fact.is_same(&fact));
        let before = known.map(|index| self.dossier.items()[index].fact.clone());
        if known.is_none()
            && let Some(place) = self.oldest_of_too_many(&fact)
        {
            return Some(self.replace(place, Evidence { first: at, last: at, times: 1, fact }));
        }
        let added = self.dossier.add(at, fact);
        let index = match known {
            Some(index) => index,
            None if added => {
                self.kept.push(Wall(i64::MIN));
                self.dossier.items().len() - 1
            }
            None => return None,
        };
        let (piece, kept) = (&self.dossier.items()[index], self.kept[index]);
        let moved = piece.last.since(kept).max(kept.since(piece.last));
        let mut others = self.dossier.items().iter().enumerate().filter(|(other, _)| *other != index);
        let reordered = others.any(|(_, other)| other.last >= kept);
        let at_once = if reordered { REORDER_AT_ONCE } else { REPEAT_WAITS };
        if before.as_ref() == Some(&piece.fact) && !requested && moved < at_once {
            self.unkept.insert(index as EvidenceId);
            let wait = if reordered { REORDER_WAITS } else { REPEAT_WAITS };
            let due = now.after(wait);
            self.keep_at = Some(self.keep_at.map_or(due, |sooner| sooner.min(due)));
            return None;
        }
        self.kept[index] = piece.last;
        self.unkept.remove(&(index as EvidenceId));
        Some((index as EvidenceId, piece.clone()))
    }

    /// Repeats that were not written yet, to be written now.
    pub fn take_unkept(&mut self) -> Vec<(EvidenceId, Evidence)> {
        self.keep_at = None;
        let unkept = std::mem::take(&mut self.unkept);
        let pieces = unkept.into_iter().map(|id| (id, self.dossier.items()[usize::from(id)].clone()));
        let pieces: Vec<_> = pieces.collect();
        for (id, piece) in &pieces {
            self.kept[usize::from(*id)] = piece.last;
        }
        pieces
    }

    /// What the process that libvirt started sends on to its QEMU is nobody else's signal.
    fn with_own_sender(&self, mut fact: Fact) -> Fact {
        if let Fact::LogSignal { pid, sender, .. } | Fact::Signalled { pid, sender, .. } = &mut fact
            && *sender == Sender::Outside
            && self.start.incarnation.process.is_some_and(|own| own.pid == *pid)
        {
            *sender = Sender::Itself;
        }
        fact
    }

    /// Where the oldest fact of the same kind stands, if that kind has all the places that it may have.
    fn oldest_of_too_many(&self, fact: &Fact) -> Option<usize> {
        let same = self.dossier.items().iter().enumerate().filter(|(_, e)| same_kind(&e.fact, fact));
        let places: Vec<(Wall, usize)> = same.map(|(place, e)| (e.last, place)).collect();
        let oldest = places.iter().min().map(|(_, place)| *place);
        oldest.filter(|_| places.len() >= PLACES_OF_A_KIND)
    }

    fn replace(&mut self, place: usize, piece: Evidence) -> (EvidenceId, Evidence) {
        // An old gap is no loss: only the last ones cast a shadow. And a console's password changes every minute.
        let no_loss = match &piece.fact {
            Fact::Gap { .. } | Fact::DiskSpace { .. } | Fact::SenderUnit { .. } => true,
            Fact::Requested { what, .. } | Fact::Refused { what, .. } => !what.may_end_it(),
            _ => false,
        };
        let lost = u32::from(!no_loss);
        let dropped = self.dossier.dropped.saturating_add(lost);
        let mut items = self.dossier.items().to_vec();
        items[place] = piece.clone();
        self.kept[place] = piece.last;
        self.dossier = Dossier::from_items(items);
        self.dossier.dropped = dropped;
        (place as EvidenceId, piece)
    }

    /// The status as this event leaves it.
    ///
    /// Until libvirt has said that it started, it is being launched: QEMU's own word that its CPUs run may come first, and when
    /// it began is not known yet.
    pub fn follow(&mut self, happening: &Happening) {
        self.shown = None;
        let paused = matches!(happening, Happening::Suspended(_) | Happening::Resumed(_));
        let says_nothing = self.exited.is_some() || self.is_to_come_up();
        if let Some(status) =
            status_after(happening).filter(|_| !(says_nothing || paused && self.pending.long.is_some()))
        {
            self.status = status;
        }
        if *happening == Happening::Rebooted {
            self.pending.was_reset();
        }
    }

    /// libvirt's word for what paused it, while it is paused by an I/O error.
    pub fn io_error(&self) -> Option<Box<str>> {
        let paused =
            |fact: &Fact| matches!(fact, Fact::Host(Happening::IoError { action: IoErrorAction::Pause, .. }));
        match &self.dossier.latest(paused).filter(|_| self.status == Status::PausedIoError)?.1.fact {
            Fact::Host(Happening::IoError { reason, .. }) => Some(reason.as_str().into()),
            _ => None,
        }
    }

    /// When its watchdog last fired, and what was done.
    pub fn watchdog(&self) -> Option<(Wall, WatchdogAction)> {
        let (_, piece) = self.dossier.latest(|fact| matches!(fact, Fact::Host(Happening::Watchdog(_))))?;
        match piece.fact {
            Fact::Host(Happening::Watchdog(action)) => Some((piece.last, action)),
            _ => None,
        }
    }

    /// Whether its definition is to be read: not all of its end was heard, and nobody read its document while it ran.
    pub(super) fn definition_wanted(&self) -> Definition {
        let unread =
            self.made.as_ref().is_none_or(|made| made.on_reboot.is_none() && made.on_crash.is_none());
        let has = |wanted: fn(&Fact) -> bool| self.dossier.find(wanted).is_some();
        let may_tell = match &self.phase {
            Phase::Settling { end, .. } => crate::verdict::asks_its_definition(&self.dossier, end.latest()),
            _ => true,
        };
        if !unread || !has(|f| matches!(f, Fact::Gap { .. })) {
            Definition::Unwanted
        } else if may_tell || has(shows_panic) {
            Definition::Wanted
        } else {
            Definition::IfPanicked
        }
    }

    /// Whether this event can be about this run: numbers that are known on both sides must agree.
    pub fn could_be(&self, libvirt_id: Option<u32>) -> bool {
        could_be(&self.start, libvirt_id)
    }
}

/// Whether it tells of a panic, or that libvirt showed the domain as one that had panicked.
fn shows_panic(fact: &Fact) -> bool {
    let crashed = |state| matches!(state, DomainState::Crashed | DomainState::Paused(PauseReason::Crashed));
    crate::verdict::is_panic(fact) || matches!(fact, Fact::Found { state, .. } if crashed(*state))
}

/// Whether an event with this number of libvirt's can be about a run that began like this.
pub(super) fn could_be(start: &RunStart, libvirt_id: Option<u32>) -> bool {
    match (start.incarnation.libvirt_id, libvirt_id) {
        (Some(mine), Some(theirs)) => mine == theirs,
        _ => true,
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
        _ => return None,
    })
}

/// The status while something long is under way through us, whatever libvirt does to its CPUs for it.
pub(super) fn status_during(long: OperationKind) -> Option<Status> {
    match long {
        OperationKind::Save => Some(Status::Saving),
        OperationKind::Migrate => Some(Status::MigrationSource),
        _ => None,
    }
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

/// When this was last asked for.
fn last_asked(dossier: &Dossier, what: OperationKind) -> Option<Wall> {
    dossier.latest(|f| matches!(f, Fact::Requested { what: w, .. } if *w == what)).map(|(_, e)| e.last)
}

fn last_to_destroy(evidence: &[Evidence]) -> Option<Who> {
    let asked = evidence.iter().filter_map(|piece| match &piece.fact {
        Fact::Requested { what: OperationKind::Destroy, who } => Some((piece.last, who)),
        _ => None,
    });
    asked.max_by_key(|(at, _)| *at).map(|(_, who)| who.clone())
}

/// Whether both take places of the same kind.
pub(super) fn same_kind(a: &Fact, b: &Fact) -> bool {
    match (a, b) {
        (Fact::Host(a), Fact::Host(b)) => std::mem::discriminant(a) == std::mem::discriminant(b),
        (Fact::Requested { what: a, .. }, Fact::Requested { what: b, .. })
        | (Fact::Refused { what: a, .. }, Fact::Refused { what: b, .. }) => a.may_end_it() == b.may_end_it(),
        (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

/// What a daemon before us had asked libvirt to do at once, without writing down that it was refused. If the run is found
/// running, it was not done.
fn in_doubt(evidence: &[Evidence]) -> Vec<OperationKind> {
    let times = |wanted: &dyn Fn(&Fact) -> bool| -> u32 {
        evidence.iter().filter(|e| wanted(&e.fact)).map(|e| e.times).sum()
    };
    let mut unsure = Vec::new();
    for what in [OperationKind::Destroy, OperationKind::ForceOff] {
        let asked = times(&|f| matches!(f, Fact::Requested { what: w, .. } if *w == what));
        let refused = times(&|f| matches!(f, Fact::Refused { what: w, .. } if *w == what));
        unsure.extend((refused..asked).map(|_| what));
    }
    unsure
}
