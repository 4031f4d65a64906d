//! What the evidence says of QEMU's process: how it ended, by whose hand, and what of that is not its own.
//!
//! Between libvirt and QEMU there may be a program that runs QEMU as its child. What that one exits with is its own
//! choice; a shell says with 128 and a number that a signal ended its child. And libvirt ends it when its QEMU is gone.

use super::clue::Clue;
use super::order::enumerated;
use super::setting::{has, ids};
use crate::evidence::{Dossier, EvidenceId, ExitStatus, Fact, OperationKind, Sender};
use crate::hypervisor::Happening;
use crate::limits;
use crate::time::Wall;

/// A shell's status for a child that a signal ended is this and the signal's number.
const SHELL: i32 = 128;

/// The last signal's number.
const SIGNALS: i32 = 64;

/// `isa-debug-exit`: a guest writes `n`, and QEMU exits with `2n + 1`.
const DEBUG_EXIT: &str = "isa-debug-exit";

/// Devices that stand in a file which QEMU was given, and nobody has read.
const SOME_FILE: &str = "readconfig";

/// QEMU's own status for all errors.
pub(super) const ERROR: i32 = 1;

const SIGTERM: i32 = 15;

/// SIGXCPU.
pub(super) const XCPU: i32 = 24;

/// SIGXCPU, SIGXFSZ: the kernel sends them where the process reaches a limit that is set for it.
const OF_LIMITS: [i32; 2] = [XCPU, 25];

/// Where the status of QEMU that `wanted` accepts is seen.
pub(super) fn exit(dossier: &Dossier, wanted: impl Fn(ExitStatus) -> bool) -> Vec<EvidenceId> {
    let statuses = enumerated(dossier).filter_map(|(id, e)| Some((id, status(dossier, &e.fact)?)));
    statuses.filter(|(_, status)| wanted(*status)).map(|(id, _)| id).collect()
}

/// QEMU's status, as far as this piece tells it.
fn status(dossier: &Dossier, fact: &Fact) -> Option<ExitStatus> {
    let inner = has(dossier, |f| matches!(f, Fact::InnerExit(_)));
    match fact {
        Fact::InnerExit(status) => Some(*status),
        Fact::Exit(_) if inner => None,
        // What ended the program around it says nothing of QEMU.
        Fact::Exit(ExitStatus::Signal(_)) if is_wrapped(dossier) => None,
        Fact::Exit(status) if is_relayed(dossier, *status) => relayed(*status),
        Fact::Exit(status) => Some(*status),
        _ => None,
    }
}

/// Whether it is a shell's word on its child. QEMU's own statuses are small numbers, unless its guest chooses them.
fn is_relayed(dossier: &Dossier, status: ExitStatus) -> bool {
    relayed(status).is_some() && (is_wrapped(dossier) || guests_device(dossier).is_none())
}

fn relayed(status: ExitStatus) -> Option<ExitStatus> {
    match status {
        ExitStatus::Code(code) if (SHELL + 1..=SHELL + SIGNALS).contains(&code) => {
            Some(ExitStatus::Signal(code - SHELL))
        }
        _ => None,
    }
}

fn is_wrapped(dossier: &Dossier) -> bool {
    has(dossier, |f| matches!(f, Fact::Wrapped { .. }))
}

/// Whether this piece makes an end less sure that is known by an exit status: it tells of the program around QEMU, and nobody saw QEMU itself end.
pub(super) fn is_second_hand(dossier: &Dossier, fact: &Fact) -> bool {
    let inner = has(dossier, |f| matches!(f, Fact::InnerExit(_)));
    match fact {
        Fact::Wrapped { .. } => !inner,
        Fact::Exit(status) => !inner && is_relayed(dossier, *status),
        _ => false,
    }
}

fn guests_device(dossier: &Dossier) -> Option<(EvidenceId, &str)> {
    enumerated(dossier).find_map(|(id, e)| match &e.fact {
        Fact::GuestMayExit { device } => Some((id, device.as_str())),
        _ => None,
    })
}

/// The status that a guest chose, by a device that its definition has for that. `sure` asks for one that is never QEMU's.
pub(super) fn guest_exited(dossier: &Dossier, sure: bool) -> Vec<EvidenceId> {
    let Some((id, device)) = guests_device(dossier) else { return Vec::new() };
    let odd = |code: i32| device != DEBUG_EXIT || code % 2 == 1;
    let unsure = |code: i32| code == ERROR || device == SOME_FILE;
    let chosen = |code: i32| odd(code) && code != 0 && unsure(code) != sure;
    let mut seen = exit(dossier, |s| matches!(s, ExitStatus::Code(code) if chosen(code)));
    if !seen.is_empty() {
        seen.push(id);
    }
    seen
}

/// Whether another program runs QEMU, and QEMU itself was not seen to end.
pub fn is_only_around_qemu(dossier: &Dossier) -> bool {
    is_wrapped(dossier) && !has(dossier, |f| matches!(f, Fact::InnerExit(_)))
}

/// Whether its guest can end QEMU with a status of its own.
pub fn guest_may_exit(dossier: &Dossier) -> bool {
    guests_device(dossier).is_some()
}

/// Whether a signal ended its process.
pub fn was_killed(dossier: &Dossier) -> bool {
    !exit(dossier, |status| matches!(status, ExitStatus::Signal(_))).is_empty()
}

/// Whether its guest may have ended QEMU with a status of its own, which nobody saw.
pub(super) fn exits_unseen(dossier: &Dossier) -> bool {
    guest_may_exit(dossier) && exit(dossier, |_| true).is_empty()
}

/// Whether a signal of `sender` speaks for `wanted`. The host's init ends what is in a unit that is stopped, as anybody on
/// the host may; that it does so because the host goes down, it says itself where it can be asked.
pub(super) fn is_by(dossier: &Dossier, sender: Sender, wanted: Sender) -> bool {
    match (wanted, sender) {
        (Sender::Outside, Sender::Manager) => true,
        (Sender::Outside, Sender::Init) => host_is_up(dossier),
        (Sender::Init, Sender::Init) => !host_is_up(dossier),
        (wanted, sender) => wanted == sender,
    }
}

/// Whether the host was last said to be up, in the boot in which the run ended: what systemd says after a new boot is
/// nothing about the one before.
fn host_is_up(dossier: &Dossier) -> bool {
    if has(dossier, |f| matches!(f, Fact::NewBoot { .. })) {
        return false;
    }
    let last = |wanted: fn(&Fact) -> bool| dossier.latest(wanted).map(|(_, e)| e.last);
    last(|f| matches!(f, Fact::HostUp { .. })) > last(|f| matches!(f, Fact::HostGoingDown { .. }))
}

/// Whether it is a signal of a limit that is set for the process.
pub(super) fn is_of_a_limit(signal: i32) -> bool {
    OF_LIMITS.contains(&signal)
}

/// Whether no other process sent it. The kernel signs some of its own signals with the process that gets them.
pub(super) fn is_own(sender: Sender) -> bool {
    matches!(sender, Sender::Kernel | Sender::Itself)
}

/// Adds to signals from outside in which units of systemd their senders ran, what shows that they were no shutdown of the
/// host's, and which unit was stopped.
pub(super) fn with_unit(dossier: &Dossier, mut seen: Vec<EvidenceId>) -> Vec<EvidenceId> {
    let senders: Vec<u32> = seen
        .iter()
        .filter_map(|id| match dossier.items()[usize::from(*id)].fact {
            Fact::Signalled { pid, .. } | Fact::LogSignal { pid, .. } => Some(pid),
            _ => None,
        })
        .collect();
    seen.extend(ids(dossier, |f| matches!(f, Fact::SenderUnit { pid, .. } if senders.contains(pid))));
    let by_manager = seen.iter().any(|id| dossier.items()[usize::from(*id)].fact.is_signal_of_a_manager());
    if by_manager {
        let up = host_is_up(dossier);
        seen.extend(ids(dossier, |f| match f {
            Fact::HostUp { .. } => up,
            Fact::UnitStopping { .. } => true,
            _ => false,
        }));
    }
    seen
}

/// Whether QEMU, or its guest by it, was heard after this moment: then no signal had ended it by then. A process that a
/// fault ends says nothing any more, however long its memory takes to be written down.
pub(super) fn spoke_after(dossier: &Dossier, moment: Wall) -> bool {
    let spoke = dossier.last_heard(|h| {
        matches!(
            h,
            Happening::Resumed(_)
                | Happening::Suspended(_)
                | Happening::PmSuspended(_)
                | Happening::GuestCrashed(_)
                | Happening::Rebooted
                | Happening::Watchdog(_)
                | Happening::IoError { .. }
                | Happening::Agent { connected: true }
                | Happening::QemuPowerdown
                | Happening::QemuPanicked
                | Happening::QemuReset { .. }
                | Happening::QemuShutdown { .. }
        )
    });
    spoke.is_some_and(|at| at > moment.after(limits::CLOCK_GRACE))
}

/// A signal that ended QEMU while it started, if libvirt names no other reason: what it refuses for a reason of its own,
/// it ends itself.
pub(super) fn killed_at_start(dossier: &Dossier) -> Vec<EvidenceId> {
    let own_reason = dossier.items().iter().any(|e| match &e.fact {
        Fact::Refused { what: OperationKind::Create, text } => after_the_monitor(text).is_none(),
        _ => false,
    });
    if own_reason || has(dossier, |f| matches!(f, Fact::Signalled { signal: 9, sender: Sender::Libvirt, .. }))
    {
        return Vec::new();
    }
    // libvirt ends by SIGTERM what it gives up; of what had ended before, it says that the monitor is gone.
    let gone = has(dossier, |f| match f {
        Fact::Refused { what: OperationKind::Create, text } | Fact::StartTrouble(text) => {
            after_the_monitor(text).is_some()
        }
        _ => false,
    }) && !has(dossier, super::traces::signal_of_libvirt);
    let mut seen = exit(dossier, |s| matches!(s, ExitStatus::Signal(n) if n != SIGTERM || gone));
    let agrees = |n: i32| {
        exit(dossier, |_| true).is_empty() || !exit(dossier, |s| s == ExitStatus::Signal(n)).is_empty()
    };
    seen.extend(ids(dossier, |f| match f {
        Fact::Signalled { signal, sender, .. } => *sender != Sender::Libvirt && agrees(*signal),
        // It was up enough to say so, and then exits with 0.
        Fact::LogSignal { sender, .. } => *sender != Sender::Libvirt,
        _ => false,
    }));
    seen
}

/// Words of libvirt's on a start that somebody ends meanwhile: that it is gone, and not why.
const ENDED_MEANWHILE: [&str; 5] = [
    "domain is no longer running",
    "domain is not running",
    "guest unexpectedly quit",
    "no such process",
    "connection reset by peer",
];

/// What QEMU says on its way out, or of nothing that ends it.
const NOTHING_WRONG: [&str; 2] = ["terminating on signal", "warning:"];

/// Whether something shows that a start did not come up for a reason other than that it was to be destroyed: libvirt's
/// reason, an error of QEMU's own, a lack of memory, a signal that libvirt did not send.
pub(super) fn failed_for_itself(dossier: &Dossier) -> bool {
    let reason = |text: &str| {
        let said = after_the_monitor(text).unwrap_or(text).to_ascii_lowercase();
        let wrong = |line: &str| !line.trim().is_empty() && !NOTHING_WRONG.iter().any(|w| line.contains(w));
        said.lines().any(wrong) && !ENDED_MEANWHILE.iter().any(|words| said.contains(words))
    };
    let by_libvirt = |n: i32| n == SIGTERM || n == super::traces::SIGKILL;
    let told = has(dossier, |f| match f {
        Fact::Refused { what: OperationKind::Create, text } => reason(text),
        Fact::OomKilled { .. } => true,
        Fact::LogSignal { sender, .. } => *sender != Sender::Libvirt,
        Fact::Signalled { signal, sender, .. } => {
            *sender != Sender::Libvirt
                && (exit(dossier, |_| true).is_empty()
                    || !exit(dossier, |s| s == ExitStatus::Signal(*signal)).is_empty())
        }
        _ => false,
    });
    let ended = |s: ExitStatus| match s {
        ExitStatus::Code(code) => code != 0,
        ExitStatus::Signal(n) => !by_libvirt(n),
    };
    told || !exit(dossier, ended).is_empty()
}

/// SIGTERM that ended QEMU while it started, where nobody is known to have sent it.
pub(super) fn terminated_at_start(dossier: &Dossier) -> Vec<EvidenceId> {
    if has(dossier, super::traces::signal_of_libvirt) {
        return Vec::new();
    }
    exit(dossier, |s| s == ExitStatus::Signal(SIGTERM))
}

/// libvirt's words for a QEMU that is gone before it is up: that it is, and not why.
const MONITOR_CLOSED: [&str; 3] = [
    "process exited while connecting to monitor",
    "unexpectedly closed the monitor",
    "end of file from qemu monitor",
];

/// What the process that libvirt forks to become QEMU says where libvirt gives the start up before: not why.
const GIVEN_UP: &str = "libvirtd quit during handshake";

/// How that process begins its lines, before it is QEMU.
const BEFORE_QEMU: &str = "libvirt:";

/// Whether QEMU's log says why QEMU did not come up: more than that libvirt has given it up.
pub fn log_says_why(text: &str) -> bool {
    text.lines().any(|line| !line.trim().is_empty() && !line.contains(GIVEN_UP))
}

/// Whether these are words of QEMU, and not only of the process that was to become it.
pub fn is_said_by_qemu(text: &str) -> bool {
    text.lines().any(|line| !line.trim().is_empty() && !line.starts_with(BEFORE_QEMU))
}

/// What libvirt's text says after such words; `None` if it has none of them. There it puts what QEMU had written.
fn after_the_monitor(text: &str) -> Option<&str> {
    let lower = text.to_ascii_lowercase();
    let (at, words) = MONITOR_CLOSED.iter().find_map(|words| Some((lower.rfind(words)?, words)))?;
    let mut rest = text[at + words.len()..].trim_start();
    if let Some(named) = rest.strip_prefix("(vm='") {
        rest = named.split_once("')").map_or("", |(_, rest)| rest);
    }
    Some(rest.trim_start_matches([':', ' ']).trim())
}

/// Whether libvirt's refusal of a start says why.
pub(super) fn says_why(text: &str) -> bool {
    !after_the_monitor(text).unwrap_or(text).trim().is_empty()
}

/// What ended QEMU while it started, in words, if that is known and no reason of libvirt's stands against it.
pub(super) fn start_killer(dossier: &Dossier) -> Option<String> {
    // The kernel says it twice, in words last.
    let line = dossier.items().iter().rev().find_map(|e| match &e.fact {
        Fact::OomKilled { line } => Some(line.clone()),
        _ => None,
    });
    let killed = || {
        let seen = Clue::KilledAtStart.seen(dossier, Wall(i64::MAX));
        let facts = || seen.iter().map(|id| &dossier.items()[usize::from(*id)].fact);
        // Who sent it tells more than that it came.
        let told = facts().find(|f| matches!(f, Fact::Signalled { .. } | Fact::LogSignal { .. }));
        told.or_else(|| facts().next()).map(ended_in_words)
    };
    line.or_else(killed)
}

fn ended_in_words(how: &Fact) -> String {
    let how = super::describe(how);
    let how = how.strip_prefix("QEMU's log: ended by ").unwrap_or(&how);
    format!("QEMU was ended while it started: {how}")
}

/// The same of SIGTERM, where nobody gave another reason.
pub(super) fn start_terminator(dossier: &Dossier) -> Option<String> {
    let seen = terminated_at_start(dossier);
    seen.first().map(|id| ended_in_words(&dossier.items()[usize::from(*id)].fact))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_libvirt_gave_a_start_up_is_no_reason_and_what_was_said_before_qemu_ran_is_not_qemus() {
        let given_up = "libvirt:  error : libvirtd quit during handshake: Input/output error";
        let limit = "libvirt:  error : cannot limit locked memory of process 7 to 6: Operation not permitted";
        let qemu = "2026-11-28T15:41:13.411244Z qemu-system-x86_64: -vnc x: Address already in use";
        for (text, why, by_qemu) in [
            (given_up.to_owned(), false, false),
            (limit.to_owned(), true, false),
            (format!("{given_up}\n{limit}\n"), true, false),
            (qemu.to_owned(), true, true),
            (format!("{given_up}\n\n{qemu}"), true, true),
            (" \n".to_owned(), false, false),
        ] {
            assert_eq!((log_says_why(&text), is_said_by_qemu(&text)), (why, by_qemu), "{text}");
        }
    }

    #[test]
    fn a_start_that_was_destroyed_meanwhile_failed_for_itself_only_where_something_says_so() {
        let failed = |text: &str, more: &[Fact]| {
            let mut dossier = Dossier::default();
            dossier.add(Wall(0), Fact::Refused { what: OperationKind::Create, text: text.into() });
            for fact in more {
                dossier.add(Wall(1), fact.clone());
            }
            failed_for_itself(&dossier)
        };
        let closed = "internal error: qemu unexpectedly closed the monitor";
        let term = "2026-11-28T22:12:54Z qemu-system-x86_64: terminating on signal 15 from pid 7 (libvirtd)";
        let cpu = "2026-11-28T22:12:54Z qemu-system-x86_64: warning: TCG doesn't support requested feature";
        for text in [
            closed.to_owned(),
            format!("{closed}: {term}"),
            format!("{closed}: {cpu}\n{term}"),
            "operation failed: domain is no longer running".into(),
            "Unable to write to '/sys/fs/cgroup/x/cgroup.procs': No such process".into(),
        ] {
            assert!(!failed(&text, &[]), "{text}");
            assert!(!failed(&text, &[Fact::Exit(ExitStatus::Signal(SIGTERM))]), "{text}");
            let gone_wrong = [
                Fact::Exit(ExitStatus::Code(ERROR)),
                Fact::Exit(ExitStatus::Signal(31)),
                Fact::OomKilled { line: "oom".into() },
            ];
            assert!(gone_wrong.into_iter().all(|fact| failed(&text, &[fact])), "{text}");
        }
        for text in [
            "Cannot access storage file '/x': No such file or directory".to_owned(),
            format!("{closed}: 2026-11-28T22:12:54Z qemu-system-x86_64: -vnc x: Address already in use"),
        ] {
            assert!(failed(&text, &[]), "{text}");
        }
    }

    #[test]
    fn that_qemu_is_gone_is_no_reason_and_what_it_wrote_is() {
        for text in [
            "internal error: process exited while connecting to monitor",
            "internal error: process exited while connecting to monitor: ",
            "internal error: qemu unexpectedly closed the monitor",
            "internal error: QEMU unexpectedly closed the monitor (vm='a: b')",
            "internal error: QEMU unexpectedly closed the monitor (vm='x'): ",
            "internal error: End of file from qemu monitor",
            "internal error: End of file from qemu monitor (vm='x')",
            " ",
        ] {
            assert!(!says_why(text), "{text}");
        }
        for text in [
            "Cannot access storage file '/x': No such file or directory",
            "internal error: process exited while connecting to monitor: qemu-system-x86_64: -drive file=/x: no",
            "internal error: QEMU unexpectedly closed the monitor (vm='x'): qemu-system-x86_64: cannot set up memory",
        ] {
            assert!(says_why(text), "{text}");
        }
    }
}
