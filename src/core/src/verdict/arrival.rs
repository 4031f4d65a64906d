//! VMs that migrate here: whether they were handed over, or broke off before they ran here.

use super::clue::Clue;
use super::setting::{failed_in_log, has, ids, stopped};
use super::traces::image;
use crate::evidence::{Dossier, EvidenceId, Fact, LogWord, StartedFor};
use crate::hypervisor::{DomainState, Happening, PauseReason, ShutdownDetail, StartDetail, StopDetail};
use crate::limits;
use crate::time::Wall;

/// An arrival that is over so soon after its beginning has not come up in between.
const BREAKS_OFF: std::time::Duration = std::time::Duration::from_secs(30);

/// Whether an incoming migration was finished: it ran here, or was found in a state that only a VM of this host has.
pub(super) fn handed_over(dossier: &Dossier) -> bool {
    if failed_in_log(dossier) == Some(true) {
        return false;
    }
    let arrived = dossier.find(|f| matches!(f, Fact::Host(Happening::Started(StartDetail::Migrated))));
    let Some(arrived) = arrived.map(|(_, e)| e.first) else { return true };
    dossier.items().iter().any(|e| {
        e.last >= arrived
            && match &e.fact {
                // libvirt's own kill of what never ran here is told as a shutdown by the host's side.
                Fact::Host(
                    Happening::Resumed(_)
                    | Happening::Rebooted
                    | Happening::ShutdownBegan(ShutdownDetail::Guest | ShutdownDetail::Finished)
                    | Happening::QemuShutdown { guest: true, .. },
                ) => true,
                Fact::Found { state: DomainState::Paused(reason), .. } => matches!(
                    reason,
                    PauseReason::User | PauseReason::IoError | PauseReason::Watchdog | PauseReason::Snapshot
                ),
                Fact::Found { state, .. } => state.is_active(),
                _ => false,
            }
    })
}

/// An incoming migration that failed and whose beginning nobody heard: libvirt showed nothing but that it waited for its
/// memory, and then that the process is gone, and the log says that this was no end of a VM. A saved image that fails to load
/// is not told as stopped, and the source of a migration is never told to have failed to start or to load.
pub(super) fn unheard_arrival(dossier: &Dossier) -> Vec<EvidenceId> {
    let arriving = |state: &DomainState| *state == DomainState::Paused(PauseReason::Migration);
    let was_anything_else = has(dossier, |f| match f {
        Fact::Host(Happening::Started(_) | Happening::Resumed(_) | Happening::Suspended(_)) => true,
        Fact::Found { state, .. } => state.is_active() && !arriving(state),
        _ => false,
    });
    if was_anything_else || stopped(dossier) != Some(StopDetail::Failed) {
        return Vec::new();
    }
    let failed = ids(dossier, |f| match f {
        Fact::LogEnd { word, .. } => *word == LogWord::Failed,
        Fact::LogText(text) => text.contains("load of migration failed"),
        _ => false,
    });
    let mut seen = ids(dossier, |f| matches!(f, Fact::Found { state, .. } if arriving(state)));
    if seen.is_empty() || failed.is_empty() {
        return Vec::new();
    }
    seen.extend(failed);
    seen
}

/// A VM that its log shows waiting for its memory, and that broke off before it ran here, though nobody heard of its start:
/// libvirt showed nothing else of it, or somebody listened when it was begun and would have heard that it came up.
pub(super) fn broken_arrival(dossier: &Dossier) -> Vec<EvidenceId> {
    let begun = dossier.items().iter().find_map(|e| match e.fact {
        Fact::LogStart { at, incoming: true } => Some(at),
        _ => None,
    });
    let Some(begun) = begun else { return Vec::new() };
    let arriving = |state: &DomainState| {
        matches!(state, DomainState::Paused(PauseReason::Migration | PauseReason::StartingUp))
    };
    let ran = has(dossier, |f| match f {
        Fact::Host(
            Happening::Started(_)
            | Happening::Resumed(_)
            | Happening::Rebooted
            | Happening::ShutdownBegan(ShutdownDetail::Guest | ShutdownDetail::Finished)
            | Happening::QemuShutdown { guest: true, .. },
        ) => true,
        Fact::Found { state, .. } => state.is_active() && !arriving(state),
        _ => false,
    });
    let gaps = || {
        dossier.items().iter().filter_map(|e| match e.fact {
            Fact::Gap { from, .. } => Some(from),
            _ => None,
        })
    };
    // Where it came up soon after the link was lost, it lived for longer than an arrival takes that breaks off with it.
    let over = dossier.items().iter().find_map(|e| match e.fact {
        Fact::LogEnd { at, .. } => at,
        _ => None,
    });
    let short = over.is_some_and(|over| over.since(begun) <= BREAKS_OFF);
    let heard = if short { begun } else { begun.after(limits::CLOCK_GRACE) };
    let listened = gaps().next().is_some() && gaps().all(|from| from > heard);
    let mut seen = ids(dossier, |f| matches!(f, Fact::Found { state, .. } if arriving(state)));
    if ran || !listened && seen.is_empty() || !image(dossier, true).is_empty() {
        return Vec::new();
    }
    seen.extend(ids(dossier, |f| matches!(f, Fact::LogStart { .. })));
    seen
}

/// That a start which failed was one for such a memory, and why it failed. What libvirt says of it tells more than how QEMU was
/// started; and what was saved waits for nobody from elsewhere.
pub(super) fn start_for(dossier: &Dossier, wanted: StartedFor) -> Vec<EvidenceId> {
    let said =
        |what: StartedFor| ids(dossier, |f| matches!(f, Fact::StartedFor { what: w, .. } if *w == what));
    let (arrival, restore) = (said(StartedFor::Migration), said(StartedFor::Restore));
    let saved = || !restore.is_empty() || !image(dossier, true).is_empty();
    let mut seen = match wanted {
        StartedFor::Migration => arrival,
        StartedFor::Restore => restore,
        // A snapshot may have its memory in a file, from which it is loaded alike.
        StartedFor::Either if saved() || has(dossier, |f| matches!(f, Fact::StartedInVain)) => Vec::new(),
        StartedFor::Either => said(StartedFor::Either),
    };
    if !seen.is_empty() && wanted != StartedFor::Restore {
        let why = [
            Clue::OomKilled,
            Clue::KilledAtStart,
            Clue::LibvirtSpeaks,
            Clue::LogSpeaks,
            Clue::TerminatedAtStart,
        ];
        let why = why.iter().map(|clue| clue.seen(dossier, Wall(i64::MAX)));
        seen.extend(why.into_iter().find(|why| !why.is_empty()).unwrap_or_default());
    }
    seen
}
