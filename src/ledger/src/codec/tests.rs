//! What is written is read back as it was.

use proptest::prelude::*;
use whydown_core::evidence::{Audited, Deaf, ExitStatus, LogWord, OperationKind, Sender, StartedFor};
use whydown_core::hypervisor::{
    DomainState, Happening, IoErrorAction, PauseReason, QemuReason, ShutOffReason, StartDetail, StopDetail,
};

use super::*;

fn asked() -> impl Strategy<Value = OperationKind> {
    prop_oneof![
        Just(OperationKind::Create),
        Just(OperationKind::Shutdown),
        Just(OperationKind::ForceOff),
        Just(OperationKind::Destroy)
    ]
}

fn moment() -> impl Strategy<Value = Wall> {
    any::<i64>().prop_map(Wall)
}

fn state() -> impl Strategy<Value = DomainState> {
    prop_oneof![
        Just(DomainState::Running),
        any::<i32>().prop_map(|n| DomainState::Paused(PauseReason::Other(n))),
        Just(DomainState::ShutOff(ShutOffReason::Daemon)),
        any::<(i32, i32)>().prop_map(|(state, reason)| DomainState::Other(state, reason)),
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        any::<bool>().prop_map(|renamed| Happening::Undefined { renamed }),
        any::<i32>().prop_map(|n| Happening::Started(StartDetail::Other(n))),
        Just(Happening::Stopped(StopDetail::FromSnapshot)),
        (any::<String>(), any::<String>()).prop_map(|(disk, reason)| Happening::IoError {
            disk,
            action: IoErrorAction::Pause,
            reason
        }),
        any::<bool>().prop_map(|guest| Happening::QemuShutdown { guest, reason: QemuReason::HostQmpQuit }),
        Just(Happening::QemuPanicked),
    ]
}

fn audited() -> impl Strategy<Value = Option<Audited>> {
    let process = (any::<String>(), any::<u32>(), any::<Option<u32>>());
    let sandbox = (any::<u32>(), any::<u32>());
    proptest::option::of(prop_oneof![
        process.prop_map(|(exe, uid, login)| Audited::Process { exe, uid, login }),
        sandbox.prop_map(|(call, arch)| Audited::Sandbox { call, arch }),
    ])
}

/// Every kind of fact, with any text and any number. The match without a wildcard makes a new kind fail to compile here.
fn fact() -> impl Strategy<Value = Fact> {
    fn every_kind_has_its_line_below(fact: &Fact) {
        match fact {
            Fact::Host(_)
            | Fact::Requested { .. }
            | Fact::Refused { .. }
            | Fact::Found { .. }
            | Fact::Gone => {}
            Fact::Replaced
            | Fact::NextFromSnapshot
            | Fact::StartedInVain
            | Fact::Gap { .. }
            | Fact::LogEnd { .. } => {}
            Fact::LogSignal { .. }
            | Fact::LogDoubted { .. }
            | Fact::LogText(_)
            | Fact::StartFailed { .. }
            | Fact::StartTrouble(_)
            | Fact::StartedFor { .. }
            | Fact::LogSilent
            | Fact::LogCut
            | Fact::LogUnread(_)
            | Fact::Exit(_)
            | Fact::InnerExit(_)
            | Fact::Wrapped { .. }
            | Fact::RebootEnds
            | Fact::PanicStays
            | Fact::CannotPanic
            | Fact::WatchdogPowersOff
            | Fact::LogPanic(_)
            | Fact::GuestMayExit { .. } => {}
            Fact::Signalled { .. }
            | Fact::OomKilled { .. }
            | Fact::HostGoingDown { .. }
            | Fact::HostWentDown { .. }
            | Fact::HostStays
            | Fact::HostUp { .. }
            | Fact::UnitStopping { .. }
            | Fact::SenderUnit { .. }
            | Fact::ProcessorTime { .. }
            | Fact::PassedOn(_)
            | Fact::DiskSpace { .. }
            | Fact::ForceFollows { .. }
            | Fact::Astray(..)
            | Fact::CoreDump { .. }
            | Fact::CoreTaken { .. }
            | Fact::LibvirtSince(_)
            | Fact::NewBoot { .. }
            | Fact::ClockSet { .. }
            | Fact::LogStart { .. }
            | Fact::Unreadable(_) => {}
        }
    }
    let text = any::<String>;
    prop_oneof![
        happening().prop_map(Fact::Host),
        (asked(), text()).prop_map(|(what, who)| Fact::Requested { what, who }),
        (asked(), text()).prop_map(|(what, text)| Fact::Refused { what, text }),
        asked().prop_map(Fact::PassedOn),
        (state(), any::<Option<bool>>())
            .prop_map(|(state, managed_save)| Fact::Found { state, managed_save }),
        prop_oneof![
            Just(Fact::Gone),
            Just(Fact::Replaced),
            Just(Fact::HostStays),
            Just(Fact::NextFromSnapshot),
            Just(Fact::StartedInVain),
            Just(Fact::LogSilent),
            Just(Fact::LogCut),
            Just(Fact::RebootEnds),
            Just(Fact::PanicStays),
            Just(Fact::CannotPanic),
            Just(Fact::WatchdogPowersOff)
        ],
        (moment(), moment()).prop_map(|(from, to)| Fact::Gap { from, to, why: Deaf::LinkLost }),
        (moment(), any::<bool>()).prop_map(|(at, incoming)| Fact::LogStart { at, incoming }),
        moment().prop_map(|at| Fact::LogDoubted { word: LogWord::Migrated, at }),
        proptest::option::of(moment()).prop_map(|at| Fact::LogEnd { word: LogWord::FromSnapshot, at }),
        (any::<i32>(), any::<u32>(), text(), proptest::option::of(moment())).prop_map(
            |(signal, pid, program, at)| {
                Fact::LogSignal { signal, pid, program, sender: Sender::Init, at }
            }
        ),
        text().prop_map(Fact::LogText),
        text().prop_map(Fact::LogUnread),
        text().prop_map(Fact::LogPanic),
        any::<i32>().prop_map(|code| Fact::Exit(ExitStatus::Code(code))),
        any::<i32>().prop_map(|signal| Fact::Exit(ExitStatus::Signal(signal))),
        any::<i32>().prop_map(|code| Fact::InnerExit(ExitStatus::Code(code))),
        (text(), any::<Option<u32>>()).prop_map(|(program, qemu)| Fact::Wrapped { program, qemu }),
        prop_oneof![
            text().prop_map(|device| Fact::GuestMayExit { device }),
            text().prop_map(|by| Fact::HostUp { by }),
            text().prop_map(|unit| Fact::UnitStopping { unit }),
            (any::<u32>(), text()).prop_map(|(pid, unit)| Fact::SenderUnit { pid, unit }),
            (any::<u64>(), any::<u64>())
                .prop_map(|(used_ms, limit_s)| Fact::ProcessorTime { used_ms, limit_s }),
            (any::<Option<u64>>(), text()).prop_map(|(within_ms, who)| Fact::ForceFollows { within_ms, who }),
            (text(), text(), any::<Option<u64>>()).prop_map(|(disk, path, free)| Fact::DiskSpace {
                disk,
                path,
                free
            }),
            text().prop_map(|file| Fact::CoreDump { file }),
            (any::<u32>(), text()).prop_map(|(pid, by)| Fact::CoreTaken { by, pid }),
            text().prop_map(|told_by| Fact::StartFailed { told_by }),
            text().prop_map(Fact::StartTrouble),
            text().prop_map(|told_by| Fact::StartedFor { what: StartedFor::Either, told_by }),
        ],
        (any::<i32>(), any::<i32>(), any::<u32>(), text(), audited()).prop_map(
            |(signal, code, pid, program, audit)| {
                Fact::Signalled { signal, code, pid, program, sender: Sender::Itself, audit }
            }
        ),
        text().prop_map(|line| Fact::OomKilled { line }),
        text().prop_map(|by| Fact::HostGoingDown { by }),
        (text(), any::<Option<i64>>())
            .prop_map(|(by, since)| Fact::HostWentDown { since: since.map(Wall), by }),
        (any::<i64>(), any::<i64>())
            .prop_map(|(before, now)| Fact::ClockSet { before: Wall(before), now: Wall(now) }),
        moment().prop_map(Fact::LibvirtSince),
        (text(), text()).prop_map(|(before, now)| Fact::NewBoot { before: BootId(before), now: BootId(now) }),
        text().prop_map(Fact::Unreadable),
        // Texts that are facts themselves: they must come back as unreadable all the same.
        Just(Fact::Unreadable("\"gone\"".into())),
        Just(Fact::Unreadable("{\"unreadable\":\"{}\"}".into())),
    ]
    .prop_map(|fact| {
        every_kind_has_its_line_below(&fact);
        fact
    })
}

proptest! {
    #[test]
    fn every_fact_comes_back_as_it_was(fact in fact()) {
        prop_assert_eq!(fact_from_text(fact_to_text(&fact)), fact);
    }

    #[test]
    fn any_text_is_some_fact_and_is_stored_again_as_it_was(text in any::<String>()) {
        let fact = fact_from_text(text.clone());
        prop_assert!(matches!(&fact, Fact::Unreadable(raw) if *raw == text) || serde_json::from_str::<Fact>(&text).is_ok());
        prop_assert_eq!(fact_from_text(fact_to_text(&fact)), fact);
    }

    #[test]
    fn a_fact_comes_back_through_the_tables(facts in proptest::collection::vec(fact(), 1..20)) {
        let db = rusqlite::Connection::open_in_memory().unwrap();
        db.execute_batch("CREATE TABLE t (fact TEXT NOT NULL) STRICT").unwrap();
        for fact in &facts {
            db.execute("INSERT INTO t VALUES (?1)", [fact_to_text(fact)]).unwrap();
        }
        let mut statement = db.prepare("SELECT fact FROM t ORDER BY rowid").unwrap();
        let found: Vec<Fact> =
            statement.query_map([], |row| text(row, 0)).unwrap().map(|text| fact_from_text(text.unwrap())).collect();
        prop_assert_eq!(found, facts);
    }
}

/// Ledgers of before the audit was listened to hold the first form; a version from then reads the second as the first.
#[test]
fn a_signal_is_stored_as_ever_and_the_audits_word_beside_it() {
    let before = r#"{"signalled":{"signal":9,"code":0,"pid":7,"program":"kill","sender":"outside"}}"#;
    let fact = |audit| Fact::Signalled {
        signal: 9,
        code: 0,
        pid: 7,
        program: "kill".into(),
        sender: Sender::Outside,
        audit,
    };
    assert_eq!(fact_from_text(before.into()), fact(None));
    assert_eq!(fact_to_text(&fact(None)), before);
    let audit = Audited::Process { exe: "/usr/bin/kill".into(), uid: 0, login: Some(1000) };
    let with =
        before.replace("\"}}", r#"","audit":{"process":{"exe":"/usr/bin/kill","uid":0,"login":1000}}}}"#);
    assert_eq!(fact_to_text(&fact(Some(audit))), with);
}

#[test]
fn every_certainty_is_read_from_its_word() {
    for certainty in [Certainty::Unknown, Certainty::Probable, Certainty::Certain] {
        assert_eq!(certainty_from_word(certainty.word()), certainty);
    }
    assert_eq!(certainty_from_word("sure"), Certainty::Unknown);
}

#[test]
fn every_cause_is_read_from_its_word() {
    for cause in Cause::ALL {
        assert_eq!(Cause::from_word(cause.word()), Some(cause));
    }
}
