//! The decision: from a frozen dossier to a row of the decision table, and with it to a row of THE TABLE.
//!
//! ```text
//! dossier ──▶ setting        ──▶ rows of that setting, in order ──▶ verdict
//!             (how the end       (the first row whose clue is       (cause, certainty,
//!              became known)      in the evidence; the last          because, despite)
//!                                 row needs none)
//! ```
//!
//! Nothing here remembers anything: the same dossier always gives the same verdict. Absence of a report is never
//! a cause; the rows that rest on absence say *unknown*, or say what is the rule and call it probable.

mod advice;
mod arrival;
mod clue;
mod context;
mod explain;
mod order;
mod process;
mod requests;
mod setting;
mod table;
mod too_late;
mod traces;

pub use advice::{advice, plain_advice};
pub use clue::Clue;
pub use context::{LED_BY, led_by};
pub use explain::{describe, text_of};
pub use process::{guest_may_exit, is_only_around_qemu, is_said_by_qemu, log_says_why, was_killed};
pub use setting::Setting;
pub(crate) use setting::was_up;
pub use table::{Place, RETIRED, ROWS, Row, story_of};
pub(crate) use traces::is_panic;

use crate::cause::Cause;
use crate::evidence::{Dossier, EvidenceId, Fact};
use crate::hypervisor::{Happening, StopDetail};
use crate::limits;
use crate::record::{Certainty, Verdict};
use crate::time::Wall;

/// Decides. `end` is the latest moment at which the run can have ended.
///
/// `because` always holds at least one piece of evidence if the dossier holds any.
pub fn decide(dossier: &Dossier, end: Wall) -> Verdict {
    let setting = Setting::of(dossier, end);
    let row = table::choose(setting, |clue| !clue.seen(dossier, end).is_empty());
    let mut because = row.clue.map(|clue| clue.seen(dossier, end)).unwrap_or_default();
    because.extend(setting.grounds(dossier));
    if because.is_empty() && !dossier.items().is_empty() {
        because.push((dossier.items().len() - 1) as EvidenceId);
    }
    tidy(&mut because);

    let mut despite = Vec::new();
    for clue in Clue::ALL {
        if clue.points_to().is_some_and(|cause| cause != row.cause) && !accompanies(*clue, setting, row.cause)
        {
            despite.extend(clue.seen(dossier, end));
        }
    }
    let blurs = blurs(dossier, end, &because);
    let found = !setting.was_reported(dossier, end);
    let at_most = setting.at_most(row);
    let certainty = if found || !blurs.is_empty() || dossier.dropped > 0 {
        at_most.min(Certainty::Probable)
    } else {
        at_most
    };
    if at_most == Certainty::Certain {
        despite.extend(blurs);
    }
    tidy(&mut despite);
    despite.retain(|id| !because.contains(id));
    Verdict { cause: row.cause, certainty, row: row.label.to_owned(), because, despite }
}

/// Whether a snapshot operation was heard to stop it, and no start from a snapshot after it.
pub fn was_stopped_by_a_snapshot(dossier: &Dossier) -> bool {
    setting::stopped(dossier) == Some(StopDetail::FromSnapshot)
        && dossier.find(|f| matches!(f, Fact::NextFromSnapshot)).is_none()
}

/// Whether a run whose end was not all heard, and that is not known to have panicked, may be told by what its definition says
/// of reboots and panics. No row asks for that where it was heard to be destroyed, or shut down with a request of ours.
pub(crate) fn asks_its_definition(dossier: &Dossier, end: Wall) -> bool {
    match setting::stopped(dossier) {
        Some(StopDetail::Destroyed) => false,
        Some(StopDetail::Shutdown) => Clue::WeAskedShutdown.seen(dossier, end).is_empty(),
        _ => true,
    }
}

/// Whether nothing that may still come can change this verdict: it is certain, or its row is [settled](Row::is_settled).
pub fn is_final(verdict: &Verdict, dossier: &Dossier) -> bool {
    let may_exit = guest_may_exit(dossier);
    verdict.certainty == Certainty::Certain
        || ROWS.iter().any(|row| row.label == verdict.row && row.is_settled(may_exit))
}

/// Whether this clue is seen whenever that cause is at work, and so speaks for nothing else.
fn accompanies(clue: Clue, setting: Setting, cause: Cause) -> bool {
    // Where libvirt says that it ended otherwise than by a shutdown, a wish for one was not what ended it: it led to it.
    let no_shutdown = matches!(
        setting,
        Setting::Destroyed
            | Setting::Crashed
            | Setting::Migrated
            | Setting::Saved
            | Setting::Failed
            | Setting::FromSnapshot
    );
    match clue {
        Clue::ButtonPressed | Clue::WeAskedShutdown if no_shutdown => true,
        Clue::PlainPoweroff | Clue::GuestHadBegun => {
            matches!(setting, Setting::ShutdownByGuest | Setting::ShutdownUnspoken)
        }
        // QEMU's word on a signal and libvirt's own kills come with every end by the host's side.
        Clue::SignalWord => true,
        Clue::PanickedAndEnded => cause == Cause::GuestPanic,
        // A shutdown through us, a watchdog and a host that goes down press the button too.
        Clue::ButtonPressed => {
            matches!(
                cause,
                Cause::AdminShutdown | Cause::AdminForcedOff | Cause::WatchdogShutdown | Cause::HostShutdown
            )
        }
        Clue::WeAskedShutdown => cause == Cause::AdminForcedOff,
        // It gives up if the rest of its memory does not come.
        Clue::ExitedWithError => cause == Cause::IncomingMigrationFailed,
        Clue::KilledHard => {
            matches!(cause, Cause::OomKilled | Cause::LimitReached) || setting == Setting::NotStarted
        }
        // It is the kernel's SIGKILL at a hard limit.
        Clue::KilledByKernel => cause == Cause::LimitReached,
        _ => false,
    }
}

/// Evidence that forbids certainty: something may have happened that we could not hear or cannot read.
fn blurs(dossier: &Dossier, end: Wall, because: &[EvidenceId]) -> Vec<EvidenceId> {
    let by_exit = because.iter().any(|id| matches!(dossier.items()[usize::from(*id)].fact, Fact::Exit(_)));
    dossier
        .items()
        .iter()
        .enumerate()
        .filter(|(_, evidence)| match &evidence.fact {
            Fact::Gap { to, .. } => end <= to.after(limits::GAP_SHADOW),
            Fact::Unreadable(_) => true,
            Fact::Astray(..) => requests::may_have_been_met(evidence, end),
            Fact::Wrapped { .. } | Fact::Exit(_) => {
                by_exit && process::is_second_hand(dossier, &evidence.fact)
            }
            // How long before the end anything was is not known.
            Fact::ClockSet { .. } => end <= evidence.last.after(limits::REQUEST_LIFE),
            // libvirt may be long in telling of an exit that was seen.
            Fact::Host(
                Happening::Stopped(_)
                | Happening::ShutdownBegan(_)
                | Happening::QemuShutdown { .. }
                | Happening::ControlError,
            ) if order::exited(dossier).is_some() => false,
            // Heard before the end and dated after it: the clock was set back, and what lay how long before what is
            // not known.
            Fact::Host(_) | Fact::Requested { .. } => evidence.last > end.after(limits::CLOCK_GRACE),
            _ => false,
        })
        .map(|(id, _)| id as EvidenceId)
        .collect()
}

fn tidy(ids: &mut Vec<EvidenceId>) {
    ids.sort_unstable();
    ids.dedup();
}

#[cfg(test)]
mod tests;
