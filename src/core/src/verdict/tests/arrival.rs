//! Arrivals that broke off, and what was not the end: a panic before a shutdown, and a program around QEMU.

use super::*;
use crate::evidence::StartedFor;

fn gap(from: i64, to: i64) -> (i64, Fact) {
    (to, Fact::Gap { from: at(from), to: at(to), why: Deaf::LinkLost })
}

fn waits(from: i64) -> (i64, Fact) {
    (from, Fact::LogStart { at: at(from), incoming: true })
}

fn farewell(word: LogWord) -> (i64, Fact) {
    (100, Fact::LogEnd { word, at: Some(at(100)) })
}

fn left(reason: ShutOffReason) -> (i64, Fact) {
    (101, Fact::Found { state: DomainState::ShutOff(reason), managed_save: Some(false) })
}

fn cause(facts: &[(i64, Fact)]) -> Cause {
    decide(&dossier(facts), at(101)).cause
}

#[test]
fn what_was_begun_while_somebody_listened_and_never_told_as_started_never_ran_here() {
    let arrival = Cause::IncomingMigrationFailed;
    for (word, reason) in [
        (LogWord::Destroyed, ShutOffReason::Destroyed),
        (LogWord::Daemon, ShutOffReason::Daemon),
        (LogWord::Crashed, ShutOffReason::Crashed),
    ] {
        assert_eq!(cause(&[waits(50), gap(80, 101), farewell(word), left(reason)]), arrival, "{word:?}");
        // Begun while nobody listened, it may have been restored and have run, unless it was seen to wait.
        let unheard = [waits(50), gap(40, 101), farewell(word), left(reason)];
        assert_ne!(cause(&unheard), arrival, "{word:?}");
        let waiting = (60, found(DomainState::Paused(PauseReason::StartingUp)));
        let seen: Vec<_> = unheard.iter().cloned().chain([waiting]).collect();
        assert_eq!(cause(&seen), arrival, "{word:?}");
        let ran: Vec<_> = seen.into_iter().chain([(70, found(DomainState::Running))]).collect();
        assert_ne!(cause(&ran), arrival, "{word:?}");
    }
}

#[test]
fn a_panicked_guest_that_shut_down_in_good_order_unheard_was_brought_back_before() {
    let panicked = (50, host(Happening::GuestCrashed(CrashDetail::Panicked)));
    let told = |word| cause(&[panicked.clone(), gap(60, 101), farewell(word), left(ShutOffReason::Unknown)]);
    assert_ne!(told(LogWord::Shutdown), Cause::GuestPanic);
    assert_eq!(told(LogWord::Crashed), Cause::GuestPanic);
}

#[test]
fn a_program_around_qemu_that_is_gone_is_no_end_of_qemu() {
    let facts = [
        (1, Fact::Wrapped { program: "sh".into(), qemu: Some(7) }),
        (20, Fact::Exit(ExitStatus::Signal(9))),
        (99, host(Happening::QemuShutdown { guest: true, reason: QemuReason::GuestShutdown })),
        (100, host(Happening::ShutdownBegan(ShutdownDetail::Guest))),
        (101, host(Happening::Stopped(StopDetail::Shutdown))),
    ];
    says(&facts, 101, "G8", Certainty::Certain);
}

#[test]
fn a_qemu_that_did_not_come_up_was_for_whom_libvirt_says_or_else_for_what_was_not_saved() {
    let for_whom = |what| (90, Fact::StartedFor { what, told_by: "the log".into() });
    let failed = (95, Fact::StartFailed { told_by: "the log".into() });
    let words = (94, Fact::LogText("qemu: Address already in use".into()));
    let oom = (94, Fact::OomKilled { line: "Killed process".into() });
    let saved =
        (100, Fact::Found { state: DomainState::ShutOff(ShutOffReason::Failed), managed_save: Some(true) });
    let in_vain = (93, Fact::StartedInVain);
    for (what, besides, cause_then) in [
        (StartedFor::Migration, vec![], Cause::IncomingMigrationFailed),
        (StartedFor::Migration, vec![oom.clone()], Cause::IncomingMigrationFailed),
        (StartedFor::Either, vec![], Cause::IncomingMigrationFailed),
        (StartedFor::Either, vec![oom.clone()], Cause::IncomingMigrationFailed),
        (StartedFor::Either, vec![saved.clone()], Cause::RestoreFailed),
        (StartedFor::Restore, vec![], Cause::RestoreFailed),
        // libvirt tells of a start from a snapshot, of which the memory may be a file of its own.
        (StartedFor::Either, vec![in_vain], Cause::StartFailed),
    ] {
        let facts: Vec<_> =
            [for_whom(what), failed.clone(), words.clone()].into_iter().chain(besides).collect();
        assert_eq!(cause(&facts), cause_then, "{facts:?}");
    }
}
