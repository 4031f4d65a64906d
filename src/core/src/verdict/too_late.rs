//! What ended the process before libvirt was told to destroy its VM, or while libvirt was at it: a destroy may only tidy up.

use super::clue::Clue;
use super::order;
use super::process::exit;
use super::requests::was_taken;
use super::setting::{has, ids};
use super::traces::{FAULTS, LIBVIRTS_PATIENCE, OBEYED, SIGKILL, signal, signal_of_libvirt, when_sent};
use crate::evidence::{Dossier, Evidence, EvidenceId, ExitStatus, Fact, OperationKind, Sender};
use crate::limits;
use crate::time::Wall;

/// An end that libvirt needs this long to notice was over before it was destroyed. A destroy takes less, but for 40 s where
/// nobody reaps the process.
const LONG_OVER: std::time::Duration = std::time::Duration::from_secs(60);

/// Whether the process had ended by itself, or by another's doing, before libvirt was told to destroy the VM and only tidied
/// up. libvirt ends processes by SIGTERM, on which QEMU exits with 0, and by SIGKILL.
pub(super) fn died_before_destroy(dossier: &Dossier, end: Wall) -> bool {
    let killed = [
        Clue::OomKilled,
        Clue::KilledBySender,
        Clue::KilledByKernel,
        Clue::FaultBySender,
        Clue::FaultRaised,
        Clue::FaultSignal,
        Clue::LimitReached,
        Clue::LimitSignal,
        Clue::WatchdogPoweredOff,
    ];
    if killed.iter().any(|clue| !clue.seen(dossier, end).is_empty()) || obeyed_another(dossier) {
        return true;
    }
    let Some(exited) = order::exited(dossier) else { return false };
    let apart = end.since(exited);
    let seen = |clue: Clue| !clue.seen(dossier, end).is_empty();
    let by_others = || seen(Clue::KilledHard) || seen(Clue::OutsideSignal);
    seen(Clue::ExitedWithError) && apart >= LIBVIRTS_PATIENCE
        || !over_before(dossier, end).is_empty() && (apart >= LONG_OVER || by_others())
        || !seen(Clue::KilledHard) && we_came_too_late(dossier, exited)
}

/// Whether QEMU's log names the signal of another that it obeyed, and none of libvirt's, of which none is known to have come
/// before. What SIGKILL ended obeyed nobody.
fn obeyed_another(dossier: &Dossier) -> bool {
    let killed = !exit(dossier, |s| s == ExitStatus::Signal(SIGKILL)).is_empty();
    let named = signal(dossier, Sender::Outside);
    let by_libvirt = |f: &Fact| matches!(f, Fact::LogSignal { sender: Sender::Libvirt, .. });
    if killed || named.is_empty() || has(dossier, by_libvirt) {
        return false;
    }
    let pieces = || dossier.items().iter();
    let libvirts = pieces().filter(|e| signal_of_libvirt(&e.fact)).map(when_sent).min();
    let sent = |e: &Evidence| match &e.fact {
        Fact::Signalled { signal, sender, .. } if OBEYED.contains(signal) => *sender != Sender::Libvirt,
        _ => false,
    };
    let others = pieces().filter(|e| sent(e)).map(when_sent).min();
    libvirts.is_none_or(|libvirts| others.is_some_and(|others| others < libvirts))
}

/// Whether we were asked to destroy it when its process had exited, by no signal of libvirt's that is known: libvirt only
/// tidied up for us.
fn we_came_too_late(dossier: &Dossier, exited: Wall) -> bool {
    !has(dossier, signal_of_libvirt)
        && [OperationKind::Destroy, OperationKind::ForceOff].into_iter().any(|way| {
            let late = |e: &Evidence| match &e.fact {
                Fact::Requested { what, .. } => *what == way && e.first > exited,
                _ => false,
            };
            was_taken(dossier, way) && dossier.items().iter().any(late)
        })
}

/// libvirt looks five times a second whether what it ends is gone. On a host that is busy with other things this may take
/// some seconds.
const NOTICES: std::time::Duration = std::time::Duration::from_secs(10);

/// The exit of a process that was seen so long before libvirt ended the VM that libvirt, which is not known to have sent it
/// a signal, cannot have ended it. It may have stood still itself.
pub(super) fn over_before(dossier: &Dossier, end: Wall) -> Vec<EvidenceId> {
    let long = order::exited(dossier).is_some_and(|exited| end.since(exited) >= NOTICES);
    if !long || has(dossier, signal_of_libvirt) {
        return Vec::new();
    }
    ids(dossier, |f| matches!(f, Fact::Exit(_) | Fact::InnerExit(_)))
}

/// The exit of a process that was seen, where no signal of libvirt's is known that came before it, or where another's came
/// before libvirt's: the destroy may have come when it was gone, or on its way.
pub(super) fn gone_unexplained(dossier: &Dossier) -> Vec<EvidenceId> {
    let Some(exited) = order::exited(dossier) else { return Vec::new() };
    let sent = dossier.items().iter().filter(|e| signal_of_libvirt(&e.fact)).map(when_sent).min();
    let in_time = sent.filter(|sent| *sent <= exited.after(limits::CLOCK_GRACE));
    let mut seen =
        ids(dossier, |f| matches!(f, Fact::LogSignal { sender, .. } if *sender != Sender::Libvirt));
    seen.extend(order::enumerated(dossier).filter_map(|(id, e)| match &e.fact {
        Fact::Signalled { signal, sender, .. } => {
            let ends = OBEYED.contains(signal) || *signal == SIGKILL || FAULTS.contains(signal);
            let before = e.last <= exited && in_time.is_none_or(|sent| e.last <= sent);
            let soon = exited.since(e.last) <= limits::PRELUDE_LIFE;
            (*sender != Sender::Libvirt && ends && before && soon).then_some(id)
        }
        _ => None,
    }));
    if in_time.is_none() || !seen.is_empty() {
        seen.extend(ids(dossier, |f| matches!(f, Fact::Exit(_) | Fact::InnerExit(_))));
    }
    seen
}
