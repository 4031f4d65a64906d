//! Where clues are looked for: requests, signals, exits, pauses, and what libvirt did itself.

use super::clue::Clue;
use super::order::{self, Onset, onset, since_reset};
use super::process::{exit, is_by, spoke_after};
use super::requests::{EVER, asked, ever_asked};
use super::setting::{has, ids, stopped};
use crate::evidence::{Dossier, Evidence, EvidenceId, ExitStatus, Fact, LogWord, OperationKind, Sender};
use crate::hypervisor::{
    CrashDetail, DomainState, Happening, IoErrorAction, JobOperation, PauseReason, ShutOffReason,
    SuspendDetail,
};
use crate::limits;
use crate::time::Wall;

/// How long a VM must have been paused by an I/O error for VDSM's reason 14 (its own limit).
pub(super) const PAUSED_LONG: std::time::Duration = std::time::Duration::from_secs(80);

/// QEMU handles SIGBUS, and lives on where only its guest's memory is broken: one that was sent long before the end, and
/// is not known to have ended it, may be none of the end's business.
const BUS: std::time::Duration = std::time::Duration::from_secs(120);
/// libvirt sends SIGTERM first, and SIGKILL 10 s later to what is still there; half of it leaves room for both clocks.
pub(super) const LIBVIRTS_PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

const SIGBUS: i32 = 7;
pub(super) const SIGKILL: i32 = 9;
/// libvirt's, when it has lost the monitor: who ended the process with it is known by other evidence or not at all.
pub(super) const SIGTERM: i32 = 15;
/// SIGHUP, SIGINT, SIGTERM: QEMU obeys them, and they need not end it.
pub(super) const OBEYED: [i32; 3] = [1, 2, 15];
/// Those that dump core.
pub(super) use crate::evidence::FAULTS;

/// Pieces last witnessed not after the onset (with a second's grace for clocks and queues) and within `life` before it.
pub(super) fn recent(
    dossier: &Dossier,
    onset: Onset,
    life: std::time::Duration,
    wanted: impl Fn(&Fact) -> bool,
) -> Vec<EvidenceId> {
    let fresh =
        |e: &Evidence| e.last <= onset.to.after(limits::CLOCK_GRACE) && onset.from.since(e.last) <= life;
    order::enumerated(dossier).filter(|(_, e)| wanted(&e.fact) && fresh(e)).map(|(id, _)| id).collect()
}

/// Whether a managed save image waited when it was off. What was found while it ran says nothing of the end.
pub(super) fn image(dossier: &Dossier, waits: bool) -> Vec<EvidenceId> {
    ids(
        dossier,
        |f| matches!(f, Fact::Found { managed_save: Some(there), state } if *there == waits && !state.is_active()),
    )
}

/// An image is not taken away again as soon as this. Nobody tells of that: libvirt has no event for it.
const JUST_SAVED: std::time::Duration = std::time::Duration::from_secs(1);

/// That there was no image of libvirt's own right after it had told of the save, and that its definition, which an image goes
/// with, had not been taken away.
pub(super) fn never_managed(dossier: &Dossier, end: Wall) -> Vec<EvidenceId> {
    let undefined = |f: &Fact| matches!(f, Fact::Host(Happening::Undefined { renamed: false }));
    let written = |f: &Fact| matches!(f, Fact::Found { managed_save: Some(true), .. });
    let deaf = |f: &Fact| matches!(f, Fact::Gap { to, .. } if to.after(limits::CLOCK_GRACE) >= end);
    if stopped(dossier).is_none() || has(dossier, |f| undefined(f) || written(f) || deaf(f)) {
        return Vec::new();
    }
    let mut seen = image(dossier, false);
    seen.retain(|id| dossier.items()[usize::from(*id)].first.since(end) <= JUST_SAVED);
    // One without a definition is gone at once, and is never saved by libvirt for itself.
    seen.extend(ids(dossier, |f| matches!(f, Fact::Gone)));
    seen
}

pub(super) fn signal(dossier: &Dossier, wanted: Sender) -> Vec<EvidenceId> {
    ids(dossier, |f| matches!(f, Fact::LogSignal { sender, .. } if is_by(dossier, *sender, wanted)))
}

/// Signals that QEMU obeys, seen by the kernel not long before the end.
pub(super) fn obeyed(dossier: &Dossier, end: Wall, wanted: Sender) -> Vec<EvidenceId> {
    let window = Onset { from: onset(dossier, end).from, to: end };
    recent(dossier, window, limits::REQUEST_LIFE, |f| {
        matches!(f, Fact::Signalled { signal, sender, .. }
                if OBEYED.contains(signal) && is_by(dossier, *sender, wanted))
    })
}

/// SIGKILLs of this sender that can have ended it, with the exit status that they left. One that hangs is sent one by libvirt
/// ten seconds after SIGTERM: what comes after that ends nothing.
pub(super) fn killed(dossier: &Dossier, end: Wall, wanted: Sender) -> Vec<EvidenceId> {
    let libvirts = |f: &Fact| matches!(f, Fact::Signalled { signal: SIGKILL, sender: Sender::Libvirt, .. });
    let over = dossier.items().iter().filter(|e| libvirts(&e.fact)).map(|e| e.first).min();
    let mut seen = deadly(dossier, end, EVER, |n, sender| n == SIGKILL && is_by(dossier, sender, wanted));
    seen.retain(|id| {
        wanted == Sender::Libvirt || over.is_none_or(|over| dossier.items()[usize::from(*id)].first < over)
    });
    if !seen.is_empty() {
        seen.extend(exit(dossier, |s| s == ExitStatus::Signal(SIGKILL)));
    }
    seen
}

/// The kernel's own SIGKILL to a process that had used up what its hard limit on processor time gives. The kernel counts that
/// time by its ticks for the limit, and otherwise for those who look: the two are some hundredths apart.
pub(super) fn killed_at_limit(dossier: &Dossier, end: Wall) -> Vec<EvidenceId> {
    let used_up = ids(dossier, |f| match f {
        Fact::ProcessorTime { used_ms, limit_s } => {
            let limit_ms = limit_s.saturating_mul(1000);
            used_ms.saturating_add(limit_ms / 20) >= limit_ms
        }
        _ => false,
    });
    let mut seen = killed(dossier, end, Sender::Kernel);
    if used_up.is_empty() || seen.is_empty() {
        return Vec::new();
    }
    seen.extend(used_up);
    seen
}

/// Signals, seen by the kernel within `life` before the end, that the exit status does not contradict.
pub(super) fn deadly(
    dossier: &Dossier,
    end: Wall,
    life: std::time::Duration,
    wanted: impl Fn(i32, Sender) -> bool,
) -> Vec<EvidenceId> {
    let statuses = exit(dossier, |_| true);
    let agrees = |n: i32| statuses.is_empty() || !exit(dossier, |s| s == ExitStatus::Signal(n)).is_empty();
    recent(
        dossier,
        Onset { from: onset(dossier, end).from, to: end },
        life,
        |f| matches!(f, Fact::Signalled { signal, sender, .. } if wanted(*signal, *sender) && agrees(*signal)),
    )
}

/// Signals of a fault by these senders that can have ended it, with the exit status that they left. However long ago:
/// nothing in QEMU handles them, so that it dies of the first, and is told to have ended when its memory is written down.
pub(super) fn faulted(dossier: &Dossier, end: Wall, wanted: impl Fn(i32, Sender) -> bool) -> Vec<EvidenceId> {
    let mut seen =
        deadly(dossier, end, EVER, |n, sender| FAULTS.contains(&n) && n != SIGBUS && wanted(n, sender));
    seen.extend(deadly(dossier, end, BUS, |n, sender| n == SIGBUS && wanted(n, sender)));
    seen.retain(|id| !spoke_after(dossier, dossier.items()[usize::from(*id)].last));
    if !seen.is_empty() {
        seen.extend(exit(dossier, |s| matches!(s, ExitStatus::Signal(n) if FAULTS.contains(&n))));
    }
    seen
}

/// A log that could not be read at first may have been read later.
pub(super) fn log_without_signal(dossier: &Dossier) -> bool {
    is_log_read(dossier)
        && log_not_whole(dossier).is_empty()
        && !has(dossier, |f| match f {
            Fact::LogSignal { .. } => true,
            // Where a guest writes into the log as well, what it says of signals is not believed, and may be true.
            Fact::LogText(text) => text.contains(SIGNAL_WORDS),
            _ => false,
        })
}

/// QEMU's words for a signal.
const SIGNAL_WORDS: &str = "terminating on signal";

/// Whether this run's part of the log was read, at least to its end.
fn is_log_read(dossier: &Dossier) -> bool {
    has(dossier, |f| matches!(f, Fact::LogEnd { .. } | Fact::LogDoubted { .. } | Fact::LogSilent))
}

/// What shows that the log may have said more than was read: that a line is absent from it means nothing then.
pub(super) fn log_not_whole(dossier: &Dossier) -> Vec<EvidenceId> {
    let cut = ids(dossier, |f| *f == Fact::LogCut);
    if cut.is_empty() { log_unread(dossier) } else { cut }
}

/// What shows that the log was never read, and so whether libvirt said farewell in it is not known.
pub(super) fn log_unread(dossier: &Dossier) -> Vec<EvidenceId> {
    if is_log_read(dossier) {
        return Vec::new();
    }
    ids(dossier, |f| matches!(f, Fact::LogUnread(_)))
}

pub(super) fn signal_of_libvirt(fact: &Fact) -> bool {
    matches!(
        fact,
        Fact::LogSignal { sender: Sender::Libvirt, .. } | Fact::Signalled { sender: Sender::Libvirt, .. }
    )
}

pub(super) fn panicked(happening: &Happening) -> bool {
    matches!(happening, Happening::GuestCrashed(CrashDetail::Panicked) | Happening::QemuPanicked)
}

/// Whether it tells of a panic of the guest.
pub(crate) fn is_panic(fact: &Fact) -> bool {
    match fact {
        Fact::Host(happening) => panicked(happening),
        Fact::LogPanic(_) => true,
        _ => false,
    }
}

/// libvirt ends a guest that panicked at once, if it does, and with force after some ten seconds; longer where it dumps its
/// memory first.
pub(super) const ENDS_PANICKED: std::time::Duration = std::time::Duration::from_secs(30);

/// What shows that a guest that panicked was kept: it was resumed, or still there as *crashed* long after, or its definition
/// has it kept.
pub(super) fn kept(dossier: &Dossier) -> Vec<EvidenceId> {
    let at = dossier.last_heard(panicked).unwrap_or(Wall(i64::MAX));
    let shown = order::enumerated(dossier).filter(|(_, e)| match e.fact {
        Fact::Host(Happening::Resumed(_)) => e.last > at,
        Fact::Found { state: DomainState::Crashed, .. } => e.last > at.after(limits::PRELUDE_LIFE),
        Fact::PanicStays => true,
        _ => false,
    });
    shown.map(|(id, _)| id).collect()
}

/// Whether the exit status is none that libvirt's end of a panicked guest leaves: QEMU exits with 0 on its SIGTERM.
pub(super) fn died_otherwise(dossier: &Dossier) -> bool {
    !exit(dossier, |s| s != ExitStatus::Code(0)).is_empty() && !has(dossier, signal_of_libvirt)
}

/// A signal that is neither SIGKILL nor SIGTERM, and dumps no core.
pub(super) fn is_another(signal: i32) -> bool {
    signal != SIGKILL && signal != SIGTERM && !FAULTS.contains(&signal)
}

/// Which libvirt ended the process, and when.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// Before we stopped hearing: in the ordinary course of something that we did not hear the end of.
    BeforeLoss,
    /// Meanwhile, by a libvirt that had run all along and knew what it did.
    ByOld,
    /// Meanwhile, by a libvirt that had come back and may not have got hold of it.
    ByNew,
}

/// A libvirt that comes back and cannot reach a VM ends it this soon after its own start.
const TAKES_OVER: std::time::Duration = std::time::Duration::from_secs(120);

/// The signals of libvirt that ended the process, if that was in this way, and what else shows that.
pub(super) fn ended_by_libvirt(dossier: &Dossier, wanted: Ended) -> Vec<EvidenceId> {
    let signals = ids(dossier, signal_of_libvirt);
    let Some(signalled) = ended_by_libvirt_at(dossier) else { return Vec::new() };
    // Nobody listened to a run that only the log tells of, whatever the dates say.
    let unheard = has(dossier, |f| matches!(f, Fact::LogStart { .. }));
    let listening = !unheard
        && dossier.items().iter().any(|e| matches!(e.fact, Fact::Gap { from, .. } if signalled <= from));
    let deaf = unheard
        || has(
            dossier,
            |f| matches!(f, Fact::Gap { from, to, .. } if *from < signalled && signalled <= to.after(limits::CLOCK_GRACE)),
        );
    let since = dossier.latest(|f| matches!(f, Fact::LibvirtSince(_)));
    let (ended, shown) = match since.map(|(id, e)| (id, &e.fact)) {
        // It cannot have sent what is dated before it began: the clock was set between the two.
        Some((_, Fact::LibvirtSince(since))) if *since > signalled.after(limits::CLOCK_GRACE) => {
            return Vec::new();
        }
        Some((id, Fact::LibvirtSince(since))) => {
            let came_back = began(dossier) < *since && signalled.since(*since) <= TAKES_OVER;
            match (came_back, listening && !deaf) {
                (true, _) => (Ended::ByNew, Some(id)),
                (false, true) => (Ended::BeforeLoss, None),
                (false, false) => (Ended::ByOld, Some(id)),
            }
        }
        // That libvirt is gone itself. What it did while we listened it did in the ordinary course.
        _ if listening && !deaf => (Ended::BeforeLoss, None),
        _ if deaf => return Vec::new(),
        _ => (Ended::ByOld, None),
    };
    if ended == wanted { signals.into_iter().chain(shown).collect() } else { Vec::new() }
}

/// A shutdown through us that libvirt's own signal ended, of which we had not heard the end: the request came before that
/// signal, and not long before it. Of equal requests only the first and the last moment are known: where the last came too
/// late, those between them count for nothing.
pub(super) fn asked_and_ended(dossier: &Dossier, end: Wall) -> Vec<EvidenceId> {
    let ended = ended_by_libvirt(dossier, Ended::BeforeLoss);
    let Some(sent) = ended_by_libvirt_at(dossier).filter(|_| !ended.is_empty()) else { return Vec::new() };
    let led_to_it = |e: &Evidence| {
        let asked = if e.last <= sent { e.last } else { e.first };
        asked <= sent && sent.since(asked) <= limits::REQUEST_LIFE
    };
    let mut seen = Clue::WeAskedShutdown.seen(dossier, end);
    seen.retain(|id| led_to_it(&dossier.items()[usize::from(*id)]));
    if !seen.is_empty() {
        seen.extend(ended);
    }
    seen
}

/// When libvirt sent its first signal to the process, as far as dates tell what came before what.
pub(super) fn ended_by_libvirt_at(dossier: &Dossier) -> Option<Wall> {
    if has(dossier, |f| matches!(f, Fact::ClockSet { .. })) {
        return None;
    }
    dossier.items().iter().filter(|e| signal_of_libvirt(&e.fact)).map(when_sent).min()
}

/// When anything was known of the run first.
fn began(dossier: &Dossier) -> Wall {
    let dated_anew = |f: &Fact| matches!(f, Fact::LibvirtSince(_) | Fact::HostWentDown { .. });
    let known = dossier.items().iter().filter(|e| !dated_anew(&e.fact));
    known.map(|e| e.first).min().unwrap_or_default()
}

pub(super) fn when_sent(piece: &Evidence) -> Wall {
    match piece.fact {
        Fact::LogSignal { at: Some(at), .. } => at,
        _ => piece.first,
    }
}

/// libvirt stops a VM that it dumps. A panic does that too, and is told with it: only where we had listened for long
/// enough to have heard of one does the stop speak for a dump.
pub(super) fn stopped_for_dump(dossier: &Dossier, end: Wall) -> Vec<EvidenceId> {
    let dumping =
        ids(dossier, |f| matches!(f, Fact::Found { state: DomainState::Paused(PauseReason::Dump), .. }));
    if !dumping.is_empty() {
        return dumping;
    }
    let stopped =
        last_pause(dossier, |f| matches!(f, Fact::Host(Happening::Suspended(SuspendDetail::Paused))));
    let deaf = |since: Wall| {
        has(
            dossier,
            |f| matches!(f, Fact::Gap { from, to, .. } if *from <= since && to.after(limits::GAP_SHADOW) >= since),
        )
    };
    let since = |id: &EvidenceId| dossier.items()[usize::from(*id)].first.min(end);
    stopped.into_iter().filter(|id| !deaf(since(id))).collect()
}

/// A save that was completed, or that a manager had asked of us when libvirt ended the process.
pub(super) fn saved(dossier: &Dossier) -> Vec<EvidenceId> {
    let mut seen = ids(dossier, |f| matches!(f, Fact::Host(Happening::JobCompleted(JobOperation::Save))));
    let ended = ended_by_libvirt(dossier, Ended::BeforeLoss);
    if !ended.is_empty() {
        seen.extend(ever_asked(dossier, OperationKind::Save));
    }
    seen
}

/// A migration that was completed: libvirt says so, or ended the process that it had stopped for its last step.
pub(super) fn migrated(dossier: &Dossier) -> Vec<EvidenceId> {
    let mut seen =
        ids(dossier, |f| matches!(f, Fact::Host(Happening::JobCompleted(JobOperation::MigrationOut))));
    if !ended_by_libvirt(dossier, Ended::BeforeLoss).is_empty() {
        seen.extend(last_pause(dossier, |f| {
            matches!(f, Fact::Host(Happening::Suspended(SuspendDetail::Migrated)))
        }));
    }
    seen
}

/// That the host was shut down in good order in the boot in which it ran, if it can have ended in the course of that: its end
/// is dated so, or it is not dated at all, as QEMU's log, which was read, has no word of it.
pub(super) fn went_down(dossier: &Dossier) -> Vec<EvidenceId> {
    let dates = dossier.items().iter().filter_map(|e| match e.fact {
        Fact::LogEnd { at, .. } | Fact::LogSignal { at, .. } => at,
        Fact::LogDoubted { at, .. } => Some(at),
        Fact::Exit(_) | Fact::Host(Happening::Stopped(_)) => Some(e.first),
        _ => None,
    });
    let dated = dates.min();
    if dated.is_none() && !log_not_whole(dossier).is_empty() {
        return Vec::new();
    }
    let covers = |e: &Evidence, since: Option<Wall>| {
        let from = since.unwrap_or(e.first.before(limits::SHUTDOWN_LASTS)).before(limits::CLOCK_GRACE);
        let dated = dated.map(|at| (from..=e.first.after(limits::CLOCK_GRACE)).contains(&at));
        dated.unwrap_or(began(dossier) <= e.first)
    };
    let all = order::enumerated(dossier);
    all.filter(|(_, e)| matches!(e.fact, Fact::HostWentDown { since, .. } if covers(e, since)))
        .map(|(id, _)| id)
        .collect()
}

/// QEMU exited with 0, its log, read whole, names no signal, and its watchdog powers it off so: of that QEMU tells libvirt,
/// and nobody listened. A quit command leaves the same.
pub(super) fn watchdog_unheard(dossier: &Dossier, end: Wall) -> Vec<EvidenceId> {
    let exited = order::exited(dossier).unwrap_or(end);
    let deaf = |f: &Fact| matches!(f, Fact::Gap { from, to, .. } if *from <= exited && exited <= to.after(limits::CLOCK_GRACE));
    let left = Clue::LeftCleanly.seen(dossier, end);
    let mut seen = ids(dossier, |f| *f == Fact::WatchdogPowersOff);
    if left.is_empty() || seen.is_empty() || !has(dossier, deaf) {
        return Vec::new();
    }
    seen.extend(left);
    seen
}

/// SIGKILL before libvirt's farewell, or so soon after it that libvirt cannot have sent it.
pub(super) fn killed_sooner(dossier: &Dossier) -> Vec<EvidenceId> {
    let farewell = dossier.items().iter().find_map(|e| match e.fact {
        Fact::LogEnd { at, .. } => at,
        _ => None,
    });
    let Some(farewell) = farewell else { return Vec::new() };
    let mut seen = exit(dossier, |s| s == ExitStatus::Signal(SIGKILL));
    seen.retain(|id| dossier.items()[usize::from(*id)].first.since(farewell) < LIBVIRTS_PATIENCE);
    seen
}

/// Whether somebody could have asked the guest to shut down: by an agent, by its power button, or through us too long ago
/// to explain it. An agent that came while we could not hear leaves no trace; one that goes shortly before may go because
/// the guest shuts down as it was asked to.
pub(super) fn somebody_may_have_asked(dossier: &Dossier, end: Wall) -> bool {
    let agent = dossier.latest(|f| matches!(f, Fact::Host(Happening::Agent { .. })));
    match agent {
        Some((_, Evidence { fact: Fact::Host(Happening::Agent { connected: true }), .. })) => return true,
        // Before the start libvirt tells of each agent's channel that nobody is there yet.
        Some((_, gone))
            if gone.last.after(limits::REQUEST_LIFE) >= onset(dossier, end).from
                && started(dossier).is_none_or(|at| gone.last > at) =>
        {
            return true;
        }
        _ => {}
    }
    let heard_of_agents = agent.map(|(_, e)| e.last);
    let deaf_since =
        |f: &Fact| matches!(f, Fact::Gap { to, .. } if heard_of_agents.is_none_or(|at| *to > at));
    let pressed = ids(dossier, |f| matches!(f, Fact::Host(Happening::QemuPowerdown)));
    has(dossier, deaf_since)
        || !since_reset(dossier, end, pressed).is_empty()
        // It was asked as the guest was reset: it may obey when it is up again.
        || !asked(dossier, OperationKind::Shutdown, Onset::at(end), EVER).is_empty()
}

/// When libvirt told of the start, if that was heard.
pub(super) fn started(dossier: &Dossier) -> Option<Wall> {
    dossier.find(|f| matches!(f, Fact::Host(Happening::Started(_)))).map(|(_, e)| e.first)
}

/// Whether a guest that had panicked is said to have shut down in good order, of which nobody heard: then it had been brought
/// back before that.
pub(super) fn shut_down_unheard(dossier: &Dossier) -> bool {
    let Some(panicked) = dossier.last_heard(panicked) else { return false };
    let deaf = has(dossier, |f| matches!(f, Fact::Gap { from, .. } if *from >= panicked));
    deaf && stopped(dossier).is_none()
        && has(dossier, |f| {
            matches!(
                f,
                Fact::LogEnd { word: LogWord::Shutdown, .. }
                    | Fact::Found { state: DomainState::ShutOff(ShutOffReason::Shutdown), .. }
            )
        })
}

/// The last pause, if `wanted` accepts it and nothing shows it running after it.
pub(super) fn last_pause(dossier: &Dossier, wanted: impl Fn(&Fact) -> bool) -> Vec<EvidenceId> {
    let last = dossier.latest(|f| {
        matches!(
            f,
            Fact::Host(Happening::Suspended(_) | Happening::Resumed(_))
                | Fact::Found { state: DomainState::Running | DomainState::Paused(_), .. }
        )
    });
    match last {
        Some((id, e)) if wanted(&e.fact) => vec![id],
        _ => Vec::new(),
    }
}

pub(super) fn is_io_error_pause(fact: &Fact) -> bool {
    matches!(
        fact,
        Fact::Host(Happening::Suspended(SuspendDetail::IoError))
            | Fact::Found { state: DomainState::Paused(PauseReason::IoError), .. }
    )
}

/// The last pause, if an I/O error made it and it lasted long enough for the original's own limit.
pub(super) fn paused_by_io_error(dossier: &Dossier, end: Wall) -> Vec<EvidenceId> {
    if last_pause(dossier, is_io_error_pause).is_empty() {
        return Vec::new();
    }
    let ran = dossier
        .latest(|f| {
            matches!(f, Fact::Host(Happening::Resumed(_)) | Fact::Found { state: DomainState::Running, .. })
        })
        .map(|(_, e)| e.last);
    // An earlier pause for the same reason is the same piece: then only its last time speaks of the present one.
    let since = |e: &Evidence| if ran.is_none_or(|ran| e.first >= ran) { e.first } else { e.last };
    let mut seen: Vec<EvidenceId> = order::enumerated(dossier)
        .filter(|(_, e)| is_io_error_pause(&e.fact) && ran.is_none_or(|ran| e.last >= ran))
        .map(|(id, _)| id)
        .collect();
    if !seen.iter().any(|id| end.since(since(&dossier.items()[usize::from(*id)])) >= PAUSED_LONG) {
        seen.clear();
    }
    if !seen.is_empty() {
        seen.extend(ids(dossier, |f| {
            matches!(
                f,
                Fact::Host(Happening::IoError { action: IoErrorAction::Pause, .. }) | Fact::DiskSpace { .. }
            )
        }));
    }
    seen
}
