//! The table is whole: every setting, every combination of clues, exactly one row.

mod arrival;
mod destroys;
mod lack;
mod status;
mod strong;
mod unheard;

use std::collections::BTreeSet;

use super::*;
use crate::cause::Cause;
use crate::evidence::{Deaf, ExitStatus, LogWord, OperationKind, Sender};
use crate::hypervisor::{
    CrashDetail, DomainState, Happening, PauseReason, PmDetail, QemuReason, ResumeDetail, ShutOffReason,
    ShutdownDetail, StartDetail, StopDetail, SuspendDetail, WatchdogAction,
};
use crate::id::BootId;

fn rows_of(setting: Setting) -> Vec<&'static Row> {
    setting.rows().collect()
}

#[test]
fn every_setting_ends_in_exactly_one_row_without_a_clue() {
    for setting in Setting::ALL {
        let rows = rows_of(setting);
        let without: Vec<_> = rows.iter().filter(|row| row.clue.is_none()).collect();
        assert_eq!(without.len(), 1, "{setting:?}");
        assert!(rows.last().is_some_and(|row| row.clue.is_none()), "{setting:?}");
    }
}

/// A decision list takes the first row whose clue is seen, so that what is seen besides can only bring in an earlier one:
/// each row with each pair of others shows all that any combination can.
#[test]
fn the_walk_over_combinations_of_clues_finds_the_first_row_that_fits_and_reaches_every_row() {
    let mut reached = BTreeSet::new();
    for setting in Setting::ALL {
        let rows = rows_of(setting);
        let clues: Vec<Option<Clue>> = rows.iter().map(|row| row.clue).collect();
        for a in &clues {
            for b in &clues {
                for c in &clues {
                    let seen = |clue: Clue| [a, b, c].contains(&&Some(clue));
                    let first = rows.iter().find(|row| row.clue.is_none_or(seen)).map(|row| row.label);
                    let chosen = table::choose(setting, seen);
                    assert_eq!(Some(chosen.label), first, "{setting:?} {a:?} {b:?} {c:?}");
                    reached.insert(chosen.label);
                }
            }
        }
    }
    let all: BTreeSet<_> = ROWS.iter().map(|row| row.label).collect();
    assert_eq!(all.len(), ROWS.len(), "labels are unique");
    assert_eq!(reached, all);
}

#[test]
fn labels_of_rows_that_left_the_table_are_given_to_no_other_and_keep_their_sentence() {
    for (label, story) in RETIRED {
        assert!(ROWS.iter().all(|row| row.label != *label), "{label}");
        assert_eq!(story_of(label), Some(*story));
    }
    assert_eq!(story_of("G8"), Some("QEMU says guest-shutdown, and nobody could have asked."));
    assert_eq!(story_of("no such row"), None);
}

#[test]
fn no_clue_stands_twice_in_a_setting() {
    for setting in Setting::ALL {
        let clues: Vec<_> = rows_of(setting).iter().filter_map(|row| row.clue).collect();
        let distinct: BTreeSet<_> = clues.iter().collect();
        assert_eq!(clues.len(), distinct.len(), "{setting:?}");
    }
}

#[test]
fn every_cause_of_the_table_can_be_decided() {
    let decided: BTreeSet<Cause> = ROWS.iter().map(|row| row.cause).collect();
    let all: BTreeSet<Cause> = Cause::ALL.iter().copied().collect();
    assert_eq!(decided, all);
}

#[test]
fn unknown_causes_are_never_more_than_unknown_and_others_never_less_than_probable() {
    for row in ROWS {
        let unknown = matches!(row.cause, Cause::UnknownEnded | Cause::UnknownVanished);
        assert_eq!(row.certainty == Certainty::Unknown, unknown, "{}", row.label);
    }
}

#[test]
fn what_was_not_heard_is_never_certain() {
    let mut dossier = Dossier::default();
    let at = Wall::from_millis(1_000_000);
    dossier.add(at, Fact::Gap { from: at, to: at, why: Deaf::DaemonAway });
    dossier.add(at, Fact::Host(Happening::Stopped(StopDetail::Migrated)));
    assert_eq!(decide(&dossier, at).certainty, Certainty::Probable, "an ending in a gap's shadow");
    let late = at.after(limits::GAP_SHADOW).after(std::time::Duration::from_millis(1));
    assert_eq!(decide(&dossier, late).certainty, Certainty::Certain, "an ending behind the shadow");
}

#[test]
fn an_empty_dossier_is_unknown() {
    let verdict = decide(&Dossier::default(), Wall(0));
    assert_eq!((verdict.cause, verdict.certainty), (Cause::UnknownEnded, Certainty::Unknown));
}

fn at(seconds: i64) -> Wall {
    Wall::from_millis(1_763_690_000_000 + seconds * 1000)
}

fn dossier(facts: &[(i64, Fact)]) -> Dossier {
    let mut dossier = Dossier::default();
    for (seconds, fact) in facts {
        dossier.add(at(*seconds), fact.clone());
    }
    dossier
}

fn host(happening: Happening) -> Fact {
    Fact::Host(happening)
}

fn poweroff() -> [Fact; 3] {
    [
        host(Happening::QemuShutdown { guest: true, reason: QemuReason::GuestShutdown }),
        host(Happening::ShutdownBegan(ShutdownDetail::Guest)),
        host(Happening::Stopped(StopDetail::Shutdown)),
    ]
}

/// What is said of these facts, where a guest's power-off follows them at 100 s.
#[track_caller]
fn before_a_poweroff(facts: &[(i64, Fact)], row: &str, certainty: Certainty) -> Verdict {
    let mut all = vec![(0, host(Happening::Started(StartDetail::Booted)))];
    all.extend_from_slice(facts);
    all.extend(poweroff().map(|fact| (100, fact)));
    says(&all, 100, row, certainty)
}

#[track_caller]
fn says(facts: &[(i64, Fact)], end: i64, row: &str, certainty: Certainty) -> Verdict {
    let verdict = decide(&dossier(facts), at(end));
    assert_eq!((verdict.row.as_str(), verdict.certainty), (row, certainty), "{facts:#?}\n{verdict:?}");
    verdict
}

fn asked(what: OperationKind) -> Fact {
    Fact::Requested { what, who: "engine".into() }
}

fn refused(what: OperationKind) -> Fact {
    Fact::Refused { what, text: "not now".into() }
}

fn found(state: DomainState) -> Fact {
    Fact::Found { state, managed_save: Some(false) }
}

fn gap(from: i64, to: i64) -> Fact {
    Fact::Gap { from: at(from), to: at(to), why: Deaf::LinkLost }
}

#[test]
fn a_reset_makes_void_what_led_to_it() {
    let reset = (60, host(Happening::Rebooted));
    for before in [
        Happening::QemuPowerdown,
        Happening::GuestCrashed(CrashDetail::CrashLoaded),
        Happening::Watchdog(WatchdogAction::Shutdown),
        Happening::PmSuspended(PmDetail::Disk),
    ] {
        before_a_poweroff(&[(50, host(before)), reset.clone()], "G8", Certainty::Certain);
    }
    let panicked = [
        (10, host(Happening::QemuPanicked)),
        reset.clone(),
        (90, host(Happening::Stopped(StopDetail::Crashed))),
    ];
    says(&panicked, 90, "C5", Certainty::Unknown);
    let rebooted = [
        (58, host(Happening::QemuShutdown { guest: true, reason: QemuReason::GuestShutdown })),
        reset,
        (62, host(Happening::Stopped(StopDetail::Shutdown))),
    ];
    says(&rebooted, 62, "U9", Certainty::Probable);
}

#[test]
fn that_nobody_could_have_asked_is_certain_only_if_we_heard_all() {
    before_a_poweroff(&[], "G8", Certainty::Certain);
    let agent = |connected| host(Happening::Agent { connected });
    before_a_poweroff(&[(5, agent(true))], "G9", Certainty::Probable);
    // It goes with the guest that shuts down, whoever asked for that.
    before_a_poweroff(&[(5, agent(true)), (99, agent(false))], "G9", Certainty::Probable);
    let long_gone = [(-400, agent(true)), (-300, agent(false))];
    before_a_poweroff(&long_gone, "G8", Certainty::Certain);
    // A channel is told to be empty before the machine starts, and that is nobody's going.
    before_a_poweroff(&[(-1, agent(false))], "G8", Certainty::Certain);
    before_a_poweroff(&[(-1, agent(false)), (99, agent(false))], "G9", Certainty::Probable);
    // An agent may have come while we were deaf; its going tells that it is gone.
    before_a_poweroff(&[(20, gap(10, 20))], "G9", Certainty::Probable);
    before_a_poweroff(&[(20, gap(10, 20)), (30, agent(false))], "G9", Certainty::Probable);
    before_a_poweroff(&[(-400, gap(-500, -400)), (-300, agent(false))], "G8", Certainty::Certain);
}

#[test]
fn a_request_too_old_to_explain_it_forbids_certainty_all_the_same() {
    let mut facts = vec![(0, asked(OperationKind::Shutdown)), (0, host(Happening::QemuPowerdown))];
    facts.extend(poweroff().map(|fact| (600, fact)));
    says(&facts, 600, "G9", Certainty::Probable);
}

#[test]
fn a_guest_that_was_asked_has_not_certainly_obeyed() {
    let pressed = host(Happening::QemuPowerdown);
    let dog = host(Happening::Watchdog(WatchdogAction::Shutdown));
    let ours = [OperationKind::Shutdown, OperationKind::AgentShutdown].map(|what| (asked(what), "G5"));
    for (asked, row) in ours.into_iter().chain([(pressed, "G7"), (dog, "G3")]) {
        for second in [99, 30] {
            before_a_poweroff(&[(second, asked.clone())], row, Certainty::Probable);
        }
    }
}

#[test]
fn a_refusal_undoes_one_request_and_not_an_earlier_one_that_was_taken() {
    let destroyed = (90, host(Happening::Stopped(StopDetail::Destroyed)));
    let started = (0, host(Happening::Started(StartDetail::Booted)));
    let destroy = |second| (second, asked(OperationKind::Destroy));
    let refusal = |second| (second, refused(OperationKind::Destroy));
    says(
        &[started.clone(), destroy(80), destroy(81), refusal(82), destroyed.clone()],
        90,
        "D11",
        Certainty::Probable,
    );
    says(&[started.clone(), destroy(80), refusal(81), destroyed.clone()], 90, "D6", Certainty::Certain);
    says(
        &[started.clone(), destroy(80), refusal(81), destroy(82), destroyed.clone()],
        90,
        "D11",
        Certainty::Probable,
    );
    // A request that came when it was over, and only not yet heard of, ended nothing.
    says(&[started, destroy(91), destroyed], 90, "D6", Certainty::Certain);
}

#[test]
fn an_incoming_vm_that_was_found_running_had_been_handed_over() {
    let arrived = (0, host(Happening::Started(StartDetail::Migrated)));
    let gone = (900, host(Happening::Stopped(StopDetail::Failed)));
    let paused = DomainState::Paused(PauseReason::Migration);
    says(&[arrived.clone(), gone.clone()], 900, "E1", Certainty::Certain);
    says(&[arrived.clone(), (3, gap(2, 3)), (3, found(paused)), gone.clone()], 900, "E1", Certainty::Certain);
    says(
        &[arrived.clone(), (3, gap(2, 3)), (3, found(DomainState::Running)), gone.clone()],
        900,
        "F14",
        Certainty::Probable,
    );
    let resumed = (30, host(Happening::Resumed(ResumeDetail::Unpaused)));
    says(&[arrived, resumed, gone], 900, "F14", Certainty::Probable);
}

#[test]
fn a_long_pause_is_one_that_lasted_to_the_end() {
    let paused = |second| (second, host(Happening::Suspended(SuspendDetail::IoError)));
    let resumed = |second| (second, host(Happening::Resumed(ResumeDetail::Unpaused)));
    let found_paused = |second| (second, found(DomainState::Paused(PauseReason::IoError)));
    let found_running = |second| (second, found(DomainState::Running));
    let destroyed = (200, host(Happening::Stopped(StopDetail::Destroyed)));
    let cases: [(&[(i64, Fact)], &str); 7] = [
        (&[paused(10)], "D5"),
        (&[paused(150)], "D6"),
        (&[paused(10), resumed(20)], "D6"),
        (&[paused(10), found_running(20)], "D6"),
        (&[paused(10), resumed(20), paused(190)], "D6"),
        (&[found_paused(10)], "D5"),
        (&[found_paused(10), resumed(20), found_paused(190)], "D6"),
    ];
    for (facts, row) in cases {
        let mut facts = facts.to_vec();
        facts.push(destroyed.clone());
        assert_eq!(decide(&dossier(&facts), at(200)).row, row, "{facts:#?}");
    }
}

#[test]
fn an_image_is_looked_for_when_the_vm_is_off() {
    let saved = (90, host(Happening::Stopped(StopDetail::Saved)));
    let off =
        |there| Fact::Found { state: DomainState::ShutOff(ShutOffReason::Saved), managed_save: Some(there) };
    let running = (10, found(DomainState::Running));
    says(&[running.clone(), saved.clone()], 90, "V3", Certainty::Probable);
    says(&[running.clone(), saved.clone(), (91, off(true))], 90, "V1", Certainty::Certain);
    says(&[running.clone(), saved.clone(), (91, off(false))], 90, "V2", Certainty::Certain);
    says(&[running.clone(), saved.clone(), (91, Fact::Gone)], 90, "V2", Certainty::Certain);
    // What is seen later, or after its definition went or while nobody listened, may have had one.
    says(&[running.clone(), saved.clone(), (95, off(false))], 90, "V4", Certainty::Probable);
    let undefined = (91, host(Happening::Undefined { renamed: false }));
    says(&[running.clone(), saved.clone(), undefined, (91, Fact::Gone)], 90, "V4", Certainty::Probable);
    let away = (92, Fact::Gap { from: at(50), to: at(92), why: Deaf::DaemonAway });
    says(&[running.clone(), away, (92, off(false))], 92, "V4", Certainty::Probable);
    // An image that was there while it was saved may have gone with the definition.
    let saving = Fact::Found { state: DomainState::Paused(PauseReason::Save), managed_save: Some(true) };
    says(&[running, (85, saving), saved, (91, Fact::Gone)], 90, "V3", Certainty::Probable);
}

#[test]
fn libvirts_reason_and_a_failed_start_behind_a_new_boot_are_a_later_runs() {
    let started = (0, host(Happening::Started(StartDetail::Booted)));
    let booted = (90, Fact::NewBoot { before: BootId("a".into()), now: BootId("b".into()) });
    let failed = (91, Fact::LogEnd { word: LogWord::Failed, at: Some(at(88)) });
    for reason in
        [ShutOffReason::Unknown, ShutOffReason::Failed, ShutOffReason::Shutdown, ShutOffReason::Crashed]
    {
        let facts =
            [started.clone(), booted.clone(), (90, found(DomainState::ShutOff(reason))), failed.clone()];
        says(&facts, 90, "N6", Certainty::Probable);
    }
}

#[test]
fn a_start_that_libvirt_holds_as_failed_never_came_up_even_if_we_were_deaf() {
    let facts = [
        (0, host(Happening::ControlError)),
        (9, gap(1, 9)),
        (9, found(DomainState::ShutOff(ShutOffReason::Failed))),
    ];
    says(&facts, 9, "B5", Certainty::Probable);
}

#[test]
fn what_always_comes_with_a_cause_does_not_speak_against_it() {
    let pressed = (99, host(Happening::QemuPowerdown));
    let asked = (99, asked(OperationKind::Shutdown));
    let ours = before_a_poweroff(&[asked, pressed.clone()], "G5", Certainty::Probable);
    let watchdog = (99, host(Happening::Watchdog(WatchdogAction::Shutdown)));
    let watchdogs = before_a_poweroff(&[watchdog, pressed.clone()], "G3", Certainty::Probable);
    let others = before_a_poweroff(&[pressed], "G7", Certainty::Probable);
    let oom = [
        (9, Fact::OomKilled { line: "oom".into() }),
        (9, Fact::Exit(ExitStatus::Signal(9))),
        (9, host(Happening::Stopped(StopDetail::Failed))),
    ];
    let ooms = says(&oom, 9, "E4", Certainty::Certain);
    for verdict in [ours, watchdogs, others, ooms] {
        assert_eq!(verdict.despite, Vec::<EvidenceId>::new(), "{verdict:?}");
    }
}

#[test]
fn sigkill_is_never_certainly_not_the_kernels() {
    let facts = [(9, Fact::Exit(ExitStatus::Signal(9))), (9, host(Happening::Stopped(StopDetail::Failed)))];
    says(&facts, 9, "F10", Certainty::Probable);
}

fn signalled(signal: i32, sender: Sender) -> Fact {
    let code = if sender == Sender::Kernel { 128 } else { 0 };
    Fact::Signalled { signal, code, pid: 7, program: "x".into(), sender, audit: None }
}

#[test]
fn only_the_signal_that_ended_it_tells_who_ended_it() {
    let gone = (100, host(Happening::Stopped(StopDetail::Failed)));
    let exit = |status| (100, Fact::Exit(status));
    let sent = |second, signal, sender| (second, signalled(signal, sender));
    let outside = Sender::Outside;
    let killed = exit(ExitStatus::Signal(9));
    says(&[sent(99, 9, outside), killed.clone(), gone.clone()], 100, "E5", Certainty::Certain);
    says(&[sent(99, 9, outside), gone.clone()], 100, "E5", Certainty::Certain);
    // It had exited by itself before the signal could end it.
    says(&[sent(99, 9, outside), exit(ExitStatus::Code(1)), gone.clone()], 100, "F13", Certainty::Certain);
    says(
        &[sent(99, 9, outside), exit(ExitStatus::Signal(11)), gone.clone()],
        100,
        "F11",
        Certainty::Probable,
    );
    // A signal of a fault that it outlived, as under a debugger, explains nothing.
    let spoke = (100 - 300, host(Happening::Rebooted));
    says(&[sent(100 - 600, 11, outside), spoke, gone.clone()], 100, "F14", Certainty::Probable);
    // The kernel's own SIGKILL is no more than likely a lack of memory, and no other's.
    says(&[sent(99, 9, Sender::Kernel), killed.clone(), gone.clone()], 100, "E6", Certainty::Probable);
    says(&[sent(99, 9, Sender::Libvirt), killed.clone(), gone.clone()], 100, "F17", Certainty::Probable);
    says(&[sent(99, 9, Sender::Init), killed, gone], 100, "E12", Certainty::Probable);
}

#[test]
fn libvirts_own_signals_speak_against_nothing() {
    let facts = [
        (98, signalled(15, Sender::Libvirt)),
        (99, signalled(9, Sender::Libvirt)),
        (99, Fact::Exit(ExitStatus::Signal(9))),
        (100, host(Happening::Stopped(StopDetail::Destroyed))),
    ];
    let verdict = says(&facts, 100, "D6", Certainty::Certain);
    assert_eq!(verdict.despite, Vec::<EvidenceId>::new());
}

#[test]
fn evidence_dated_after_the_end_shows_a_clock_that_was_set_and_forbids_certainty() {
    let verdict = before_a_poweroff(&[(3_600, host(Happening::Rebooted))], "G8", Certainty::Probable);
    assert_eq!(verdict.despite.len(), 1);
}

#[test]
fn only_rows_that_stand_on_what_was_heard_before_the_end_wait_for_nothing() {
    let settled = |may_exit| -> Vec<_> {
        ROWS.iter().filter(|row| row.is_settled(may_exit)).map(|row| row.label).collect()
    };
    assert_eq!(settled(true), ["G1", "G2", "G10", "G3", "G4"]);
    assert_eq!(settled(false), ["G1", "G2", "G10", "G3", "G4", "G11", "G12", "G5"]);
}

#[test]
fn a_sender_is_known_however_long_the_dump_of_the_memory_takes() {
    for minutes in [1, 3, 90] {
        let end = 100 + 60 * minutes;
        let sent = (100, signalled(11, Sender::Outside));
        let exit = (end, Fact::Exit(ExitStatus::Signal(11)));
        let gone = (end, host(Happening::Stopped(StopDetail::Failed)));
        says(&[sent.clone(), exit.clone(), gone.clone()], end, "E7", Certainty::Certain);
        says(&[(100, signalled(11, Sender::Kernel)), exit, gone.clone()], end, "E8", Certainty::Certain);
        says(&[sent, gone], end, "E7", Certainty::Certain);
    }
}

fn up() -> Fact {
    Fact::HostUp { by: "systemd says that it is running".into() }
}

#[test]
fn a_signal_of_the_hosts_init_is_no_shutdown_of_a_host_that_says_that_it_is_up() {
    let unit = (98, Fact::UnitStopping { unit: "machine-qemu-1-vm.scope".into() });
    let began = (99, host(Happening::ShutdownBegan(ShutdownDetail::Host)));
    let gone = (100, host(Happening::Stopped(StopDetail::Shutdown)));
    let log = |sender| {
        let (pid, program) = (1, "/sbin/init".into());
        (100, Fact::LogSignal { signal: 15, pid, program, sender, at: Some(at(99)) })
    };
    let told = [began.clone(), log(Sender::Init), gone.clone()];
    says(&told, 100, "E12", Certainty::Probable);
    let with = |more: &[(i64, Fact)]| told.iter().cloned().chain(more.to_vec()).collect::<Vec<_>>();
    let verdict = says(&with(&[unit, (100, up())]), 100, "E11", Certainty::Certain);
    assert_eq!(verdict.because.len(), 5, "{verdict:?}");
    // The host's own word, later than that, tells of its shutdown.
    says(&with(&[(99, up()), (100, Fact::HostGoingDown { by: "x".into() })]), 100, "H2", Certainty::Probable);
    // A user's manager never was the host's.
    says(&[began, log(Sender::Manager), gone], 100, "E11", Certainty::Certain);
    let failed = (100, host(Happening::Stopped(StopDetail::Failed)));
    let killed =
        [(99, signalled(9, Sender::Init)), (99, Fact::Exit(ExitStatus::Signal(9))), (100, up()), failed];
    says(&killed, 100, "E5", Certainty::Certain);
}

#[test]
fn a_program_around_qemu_does_not_speak_for_it() {
    let gone = (100, host(Happening::Stopped(StopDetail::Failed)));
    let wrapped = (1, Fact::Wrapped { program: "sh".into(), qemu: Some(7) });
    let outer = |status| (100, Fact::Exit(status));
    let inner = |status| (99, Fact::InnerExit(status));
    let (signal, code) = (ExitStatus::Signal, ExitStatus::Code);
    for (facts, row, certainty) in [
        // libvirt ends the program when its QEMU is gone.
        (vec![wrapped.clone(), inner(signal(9)), outer(signal(15))], "F10", Certainty::Probable),
        (vec![wrapped.clone(), outer(signal(15))], "F14", Certainty::Probable),
        (vec![wrapped.clone(), outer(signal(9))], "F14", Certainty::Probable),
        (vec![outer(signal(15))], "F24", Certainty::Unknown),
        // A shell says how its child ended.
        (vec![wrapped.clone(), outer(code(139))], "F11", Certainty::Probable),
        (vec![outer(code(139))], "F11", Certainty::Probable),
        (vec![outer(code(130))], "F12", Certainty::Probable),
        (vec![wrapped.clone(), outer(code(1))], "F13", Certainty::Probable),
        (vec![wrapped.clone(), inner(code(1)), outer(code(0))], "F13", Certainty::Certain),
        (vec![wrapped.clone(), inner(signal(11)), outer(code(139))], "F11", Certainty::Probable),
        (
            vec![wrapped, (98, signalled(11, Sender::Outside)), inner(signal(11)), outer(code(139))],
            "E7",
            Certainty::Certain,
        ),
    ] {
        says(&facts.into_iter().chain([gone.clone()]).collect::<Vec<_>>(), 100, row, certainty);
    }
}

#[test]
fn a_status_that_the_guest_chose_is_no_failure_of_qemu() {
    let gone = (100, host(Happening::Stopped(StopDetail::Failed)));
    let may = |device: &str| (1, Fact::GuestMayExit { device: device.into() });
    for (device, code, row, certainty) in [
        ("isa-debug-exit", 33, "E13", Certainty::Certain),
        ("isa-debug-exit", 139, "E13", Certainty::Certain),
        ("isa-debug-exit", 1, "E14", Certainty::Probable),
        ("isa-debug-exit", 2, "F23", Certainty::Probable),
        ("readconfig", 33, "E14", Certainty::Probable),
        ("semihosting", 2, "E13", Certainty::Certain),
        ("semihosting", 1, "E14", Certainty::Probable),
    ] {
        let facts = [may(device), (99, Fact::Exit(ExitStatus::Code(code))), gone.clone()];
        says(&facts, 100, row, certainty);
    }
    says(&[(99, Fact::Exit(ExitStatus::Code(33))), gone.clone()], 100, "F23", Certainty::Probable);
    says(&[(99, Fact::Exit(ExitStatus::Code(1))), gone], 100, "F13", Certainty::Certain);
}

#[test]
fn a_guest_that_can_choose_qemus_status_is_known_to_have_powered_off_only_by_that() {
    let may = (1, Fact::GuestMayExit { device: "isa-debug-exit".into() });
    let exit = |code| vec![(99, Fact::Exit(ExitStatus::Code(code)))];
    for (exits, row, certainty) in [
        (exit(33), "G11", Certainty::Certain),
        (exit(1), "G12", Certainty::Probable),
        (exit(0), "G8", Certainty::Certain),
        (Vec::new(), "G9", Certainty::Probable),
    ] {
        before_a_poweroff(&[[may.clone()].to_vec(), exits].concat(), row, certainty);
    }
    before_a_poweroff(&exit(33), "G8", Certainty::Certain);
}

#[test]
fn what_ended_qemu_while_it_started_is_why_it_did_not() {
    let asked = (0, asked(OperationKind::Create));
    let refusal = |text: &str| (9, Fact::Refused { what: OperationKind::Create, text: text.into() });
    let closed = refusal("internal error: QEMU unexpectedly closed the monitor (vm='x')");
    let oom = (8, Fact::OomKilled { line: "Killed process 7 (qemu)".into() });
    let killed = (8, Fact::Exit(ExitStatus::Signal(31)));
    let says = |facts: &[(i64, Fact)], row, certainty, text: Option<&str>| {
        let verdict = says(facts, 9, row, certainty);
        assert_eq!(text_of(verdict.cause, &dossier(facts)).as_deref(), text, "{facts:?}");
    };
    let (certain, probable) = (Certainty::Certain, Certainty::Probable);
    says(&[asked.clone(), closed.clone()], "B5", probable, None);
    says(&[asked.clone(), closed.clone(), (9, Fact::LogText("no".into()))], "B4", probable, Some("no"));
    says(&[asked.clone(), oom.clone(), closed.clone()], "B6", certain, Some("Killed process 7 (qemu)"));
    says(&[(9, host(Happening::ControlError)), oom], "B6", certain, Some("Killed process 7 (qemu)"));
    let by_sandbox = Fact::Signalled {
        signal: 31,
        code: 1,
        pid: 0,
        program: String::new(),
        sender: Sender::Kernel,
        audit: Some(crate::evidence::Audited::Sandbox { call: 59, arch: 0xc000_003e }),
    };
    let text = "QEMU was ended while it started: SIGSYS from the kernel itself; the audit says: its sandbox forbids \
                system call 59 of x86_64";
    says(&[asked.clone(), (8, by_sandbox), killed.clone(), closed.clone()], "B7", probable, Some(text));
    let text = "QEMU was ended while it started: the process was killed by signal 31";
    says(&[asked.clone(), killed.clone(), closed], "B7", probable, Some(text));
    // libvirt has its own reason, and ends QEMU for it.
    let reason = refusal("unable to set memory limit");
    let by_libvirt = (8, Fact::Exit(ExitStatus::Signal(9)));
    says(&[asked, by_libvirt, reason], "B3", certain, Some("unable to set memory limit"));
}

#[test]
fn what_waited_for_a_saved_image_and_failed_unheard_is_a_restore_and_no_arrival() {
    let failed = |managed_save| {
        [
            (90, Fact::LogStart { at: at(90), incoming: true }),
            (99, Fact::LogEnd { word: LogWord::Failed, at: Some(at(99)) }),
            (100, Fact::Found { state: DomainState::ShutOff(ShutOffReason::Failed), managed_save }),
        ]
    };
    says(&failed(Some(true)), 100, "B2", Certainty::Probable);
    assert_eq!(decide(&dossier(&failed(Some(false))), at(100)).cause, Cause::IncomingMigrationFailed);
}

#[test]
fn an_arrival_whose_beginning_nobody_heard_is_told_by_what_it_left_and_nothing_else_is() {
    let paused = |reason| (10, found(DomainState::Paused(reason)));
    let failed = |detail| (100, host(Happening::Stopped(detail)));
    let end = |word| (100, Fact::LogEnd { word, at: Some(at(100)) });
    let text = (99, Fact::LogText("load of migration failed: Input/output error".into()));
    let cause = |facts: &[(i64, Fact)]| decide(&dossier(facts), at(100)).cause;
    let arriving = paused(PauseReason::Migration);
    let gone = failed(StopDetail::Failed);
    for facts in [
        vec![arriving.clone(), text.clone(), gone.clone(), end(LogWord::Crashed)],
        vec![arriving.clone(), gone.clone(), end(LogWord::Failed)],
    ] {
        assert_eq!(cause(&facts), Cause::IncomingMigrationFailed, "{facts:?}");
    }
    let resumed = (50, host(Happening::Resumed(ResumeDetail::Migrated)));
    for facts in [
        vec![arriving.clone(), gone.clone(), end(LogWord::Crashed)],
        vec![arriving.clone(), resumed, text.clone(), gone.clone(), end(LogWord::Crashed)],
        vec![paused(PauseReason::User), gone, end(LogWord::Failed)],
        vec![arriving, text, failed(StopDetail::Destroyed), end(LogWord::Destroyed)],
    ] {
        assert_ne!(cause(&facts), Cause::IncomingMigrationFailed, "{facts:?}");
    }
}
