//! What managers asked of us, and whether that can have ended it. Others may ask libvirt for the same at the same moment.

use super::order::{self, Onset};
use super::setting::ids;
use super::traces::{SIGTERM, ended_by_libvirt_at, signal_of_libvirt, when_sent};
use crate::evidence::{Dossier, Evidence, EvidenceId, Fact, OperationKind};
use crate::limits;
use crate::time::Wall;

/// A destroy that libvirt took ends the VM, however long that takes.
pub(super) const EVER: std::time::Duration = std::time::Duration::MAX;

/// Requests through us that came before `onset` and not longer than `life` before it, if libvirt did not refuse as many.
/// Equal requests are one piece of evidence, so that a refusal does not tell which of them was refused. What was asked when
/// the process had exited, or when libvirt had sent it the signal that ended it, ended nothing.
pub(super) fn asked(
    dossier: &Dossier,
    what: OperationKind,
    onset: Onset,
    life: std::time::Duration,
) -> Vec<EvidenceId> {
    if !was_taken(dossier, what) {
        return Vec::new();
    }
    let over =
        order::exited(dossier).into_iter().chain(ended_by_libvirt_at(dossier)).fold(onset.to, Wall::min);
    order::enumerated(dossier)
        .filter(|(_, e)| matches!(&e.fact, Fact::Requested { what: w, .. } if *w == what))
        .filter(|(_, e)| e.first <= over && onset.from.since(e.last) <= life)
        .map(|(id, _)| id)
        .collect()
}

/// Requests to end it at once that came through us before libvirt sent the process its first signal, with that signal. Two
/// clients may destroy a VM at the same time, above all one that hangs, and libvirt tells both that it did: whose signal it
/// was, only its time shows.
pub(super) fn ended_for_us(dossier: &Dossier, what: OperationKind, end: Wall) -> Vec<EvidenceId> {
    let mut seen = asked(dossier, what, Onset::at(end), EVER);
    let pieces = || dossier.items().iter();
    let dated = pieces().all(|e| !matches!(e.fact, Fact::LogSignal { at: None, .. }));
    // It sends SIGTERM first. Where only the SIGKILL is known that it sends ten seconds later, when it began is not.
    let first = |sent: &Wall| {
        pieces().any(|e| {
            let signal = match e.fact {
                Fact::LogSignal { signal, .. } | Fact::Signalled { signal, .. } => signal,
                _ => return false,
            };
            signal_of_libvirt(&e.fact) && signal == SIGTERM && when_sent(e) == *sent
        })
    };
    let sent = ended_by_libvirt_at(dossier).filter(|sent| dated && first(sent));
    let Some(sent) = sent else { return Vec::new() };
    // Which of equal requests libvirt refused is not known: one that it had refused before the signal may be any but the last.
    let refused =
        |e: &Evidence| matches!(&e.fact, Fact::Refused { what: w, .. } if *w == what) && e.first <= sent;
    let refused = pieces().any(refused);
    let before = |piece: &Evidence| (if refused { piece.last } else { piece.first }) <= sent;
    seen.retain(|id| before(&dossier.items()[usize::from(*id)]));
    // The request is older than the moment at which libvirt was asked, by as long as the disk takes.
    let passed_on = order::enumerated(dossier).find(|(_, e)| e.fact == Fact::PassedOn(what) && before(e));
    let Some((passed_on, _)) = passed_on.filter(|_| !seen.is_empty()) else { return Vec::new() };
    seen.push(passed_on);
    seen.extend(ids(dossier, signal_of_libvirt));
    seen
}

/// Whether this run ended while libvirt may have been at what was asked for the run before.
pub(super) fn may_have_been_met(piece: &Evidence, end: Wall) -> bool {
    let Fact::Astray(what, _) = piece.fact else { return false };
    let reach = match what {
        OperationKind::Destroy | OperationKind::ForceOff => limits::LONGEST_ACT,
        // A guest takes its time.
        _ => limits::REQUEST_LIFE,
    };
    end <= piece.last.after(reach)
}

/// Whether this was asked of us more often than libvirt refused it.
pub(super) fn was_taken(dossier: &Dossier, what: OperationKind) -> bool {
    let times = |wanted: fn(&Fact) -> Option<OperationKind>| -> u64 {
        dossier.items().iter().filter(|e| wanted(&e.fact) == Some(what)).map(|e| u64::from(e.times)).sum()
    };
    let requested = times(|f| match f {
        Fact::Requested { what, .. } => Some(*what),
        _ => None,
    });
    let refused = times(|f| match f {
        Fact::Refused { what, .. } => Some(*what),
        _ => None,
    });
    requested > refused
}

/// All requests of this kind through us, if libvirt did not refuse as many.
pub(super) fn ever_asked(dossier: &Dossier, what: OperationKind) -> Vec<EvidenceId> {
    asked(dossier, what, Onset::at(Wall(i64::MAX)), EVER)
}
