//! What is handed over comes back, in order and in few commits.

mod common;

use std::sync::Arc;

use common::*;
use whydown_core::evidence::Fact;
use whydown_core::id::RunId;
use whydown_core::limits::RUNS_RESERVED;
use whydown_core::record::{Haste, Keep, Recovered, Seen, When};
use whydown_core::sample::Devices;
use whydown_ledger::{Condition, Query, Settings, Told};

#[test]
fn a_new_ledger_knows_nothing() {
    let folder = Folder::new();
    let (ledger, recovered, _) = open(&folder.ledger());
    assert_eq!(recovered, Recovered::default());
    assert_eq!(history(&ledger, &everything()), []);
    assert_eq!(ledger.health().condition, Condition::Working);
}

#[test]
fn an_open_run_comes_back_with_its_evidence() {
    let folder = Folder::new();
    let evidence = facts(3);
    write(
        &folder.ledger(),
        [
            Keep::Start(start(3, 1)),
            Keep::Evidence(RunId(3), 0, evidence[0].clone()),
            Keep::Evidence(RunId(3), 1, evidence[1].clone()),
            Keep::Evidence(RunId(3), 2, evidence[2].clone()),
            Keep::Alive(at(40)),
            Keep::Alive(at(50)),
        ],
    );
    let (_, recovered, _) = open(&folder.ledger());
    let expected = Recovered {
        open: vec![(start(3, 1), evidence)],
        unacknowledged: vec![],
        uncertain: vec![],
        last_run: 3,
        alive: Some(at(50)),
        ..Recovered::default()
    };
    assert_eq!(recovered, expected);
}

#[test]
fn what_is_learned_of_a_run_after_its_start_is_kept() {
    let folder = Folder::new();
    let mut blind = start(3, 1);
    blind.incarnation.process = None;
    blind.incarnation.libvirt_id = None;
    let known = start(3, 1);
    assert_ne!(blind, known);
    write(&folder.ledger(), [Keep::Start(blind), Keep::Start(known.clone())]);
    let (_, recovered, _) = open(&folder.ledger());
    assert_eq!(recovered.open, vec![(known, vec![])]);
}

#[test]
fn the_place_of_evidence_that_never_came_is_held_by_a_remark() {
    let folder = Folder::new();
    let piece = evidence(1, Fact::LogSilent);
    let ops = [0, 3].map(|position| Keep::Evidence(RunId(1), position, piece.clone()));
    write(&folder.ledger(), [Keep::Start(start(1, 1))].into_iter().chain(ops));
    let (_, recovered, _) = open(&folder.ledger());
    let found: Vec<_> = recovered.open[0].1.iter().map(|evidence| &evidence.fact).collect();
    assert!(
        matches!(found[..], [Fact::LogSilent, Fact::Unreadable(_), Fact::Unreadable(_), Fact::LogSilent]),
        "{found:?}"
    );
}

#[test]
fn an_ending_comes_back_word_for_word() {
    let folder = Folder::new();
    let mut window = ending(2, 2);
    window.ended = When::Between(at(-100), at(90));
    window.evidence.push(evidence(5, Fact::Unreadable("{\"from-the-future\":1}".into())));
    write(
        &folder.ledger(),
        [Keep::Start(start(1, 1)), keep_ending(1, 1), Keep::Ending(Arc::new(window.clone()))],
    );
    let (ledger, recovered, _) = open(&folder.ledger());
    assert_eq!(recovered.unacknowledged, [ending(1, 1), window.clone()]);
    assert_eq!(recovered.open, []);
    assert_eq!(ledger.ending(RunId(2)), Ok(Some(window)));
    assert_eq!(ledger.ending(RunId(9)), Ok(None));
}

#[test]
fn an_ending_brings_its_evidence_in_place_of_what_came_piece_by_piece() {
    let folder = Folder::new();
    let piece = evidence(1, Fact::LogSilent);
    write(
        &folder.ledger(),
        [
            Keep::Start(start(1, 1)),
            Keep::Evidence(RunId(1), 0, piece.clone()),
            Keep::Evidence(RunId(1), 7, piece.clone()),
            keep_ending(1, 1),
            // Late: the ending stays as it was told.
            Keep::Evidence(RunId(1), 3, piece),
        ],
    );
    let (ledger, ..) = open(&folder.ledger());
    assert_eq!(history(&ledger, &everything()), [ending(1, 1)]);
}

#[test]
fn only_the_latest_run_of_a_domain_waits_for_managers() {
    let folder = Folder::new();
    let ops = [
        // Superseded by a later ending, which is acknowledged.
        keep_ending(1, 1),
        keep_ending(2, 1),
        acknowledge(2),
        // Superseded by a run that goes on.
        keep_ending(3, 2),
        Keep::Start(start(4, 2)),
        // Not superseded: the later run is of another domain.
        keep_ending(5, 3),
    ];
    write(&folder.ledger(), ops);
    let (_, recovered, _) = open(&folder.ledger());
    assert_eq!(runs(&recovered.unacknowledged), [5]);
    assert_eq!(recovered.open.len(), 1);
    assert_eq!(recovered.last_run, 5);
}

/// An engine asks for it until it has acknowledged the ending.
#[test]
fn what_a_run_is_made_of_is_there_until_its_ending_is_acknowledged() {
    let made = |memory_kib| Devices { memory_kib, ..Devices::default() };
    let keep = |run, memory_kib| Keep::Made(RunId(run), Arc::new(made(memory_kib)));
    let folder = Folder::new();
    let ops = [
        Keep::Start(start(1, 1)),
        keep(1, 1024),
        keep(1, 2048),
        keep_ending(1, 1),
        Keep::Start(start(2, 2)),
        keep(2, 4096),
        keep_ending(2, 2),
        acknowledge(2),
        keep(2, 8192),
        Keep::Start(start(3, 3)),
        // Of no run.
        keep(77, 1),
    ];
    write(&folder.ledger(), ops);
    let (ledger, recovered, _) = open(&folder.ledger());
    assert_eq!(recovered.made, [(RunId(1), made(2048))].into());
    assert_eq!(ledger.health().lost, 0);
}

#[test]
fn the_first_ending_and_the_first_acknowledgement_stay() {
    let folder = Folder::new();
    let (ledger, _, heard) = open(&folder.ledger());
    ledger.keep(keep_ending(1, 1));
    let mut second = ending(1, 1);
    second.message = "something else".into();
    second.evidence.clear();
    ledger.keep(Keep::Ending(Arc::new(second)));
    ledger.keep(Keep::Acknowledge(RunId(1), by("first")));
    ledger.keep(Keep::Acknowledge(RunId(1), by("second")));
    ledger.keep(acknowledge(77));
    ledger.flush(PATIENCE).unwrap();
    let mut expected = ending(1, 1);
    expected.acknowledged = Some(by("first"));
    assert_eq!(history(&ledger, &everything()), [expected]);
    assert_eq!(heard.all(), kept([1, 1]));
    assert_eq!(ledger.health().lost, 0);
}

#[test]
fn a_burst_of_endings_takes_few_commits_and_is_told_in_order() {
    let folder = Folder::new();
    let (ledger, _, heard) = open(&folder.ledger());
    for run in 1..=1000 {
        ledger.keep(Keep::Start(start(run, (run % 200) as u8)));
        ledger.keep(keep_ending(run, (run % 200) as u8));
    }
    ledger.flush(PATIENCE).unwrap();
    assert_eq!(heard.all(), kept(1..=1000));
    let health = ledger.health();
    assert_eq!((health.endings, health.evidence, health.waiting), (1000, 3000, 0));
    // Two thousand operations: the first commit takes what is there when the writer looks, the rest comes in bulk.
    assert!(health.commits <= 100, "{} commits", health.commits);
    assert!(ledger.file_bytes().unwrap() > 100_000);
}

#[test]
fn history_is_filtered_newest_first_and_limited() {
    let folder = Folder::new();
    write(&folder.ledger(), (1..=20).map(|run| keep_ending(run, (run % 2) as u8)));
    let (ledger, ..) = open(&folder.ledger());
    let check = |query: Query, expected: &[u64]| {
        assert_eq!(runs(&history(&ledger, &query)), expected, "{query:?}");
    };
    let all = everything;
    check(Query { limit: 3, ..all() }, &[20, 19, 18]);
    check(Query { limit: 0, ..all() }, &[]);
    check(Query { domain: Some(domain(1)), limit: 3, ..all() }, &[19, 17, 15]);
    check(Query { name: Some("vm-0".into()), limit: 2, ..all() }, &[20, 18]);
    check(Query { name: Some("vm-0' OR '1'='1".into()), ..all() }, &[]);
    check(Query { name: Some("vm-0".into()), domain: Some(domain(1)), ..all() }, &[]);
    // Run n ended ten seconds after second n; both bounds are inside.
    check(Query { since: Some(at(15)), until: Some(at(17)), ..all() }, &[7, 6, 5]);
    check(Query { since: Some(at(15)), until: Some(at(17)), domain: Some(domain(0)), ..all() }, &[6]);
}

#[test]
fn clones_share_one_ledger_and_the_last_one_dropped_writes_the_rest() {
    let folder = Folder::new();
    let (ledger, ..) = open(&folder.ledger());
    let clone = ledger.clone();
    drop(ledger);
    for run in 1..=300 {
        clone.keep(keep_ending(run, 1));
    }
    drop(clone);
    let (ledger, recovered, _) = open(&folder.ledger());
    assert_eq!(recovered.last_run, 300);
    assert_eq!(history(&ledger, &everything()).len(), 300);
}

#[test]
fn a_closed_ledger_says_what_it_loses() {
    let folder = Folder::new();
    let (ledger, _, heard) = open(&folder.ledger());
    ledger.keep(keep_ending(1, 1));
    ledger.close(PATIENCE).unwrap();
    ledger.close(PATIENCE).unwrap();
    assert_eq!(heard.all(), kept([1]));
    assert!(!folder.ledger().with_extension("db-wal").exists(), "an orderly close leaves one file");
    ledger.keep(keep_ending(2, 1));
    assert_eq!(ledger.health().lost, 1);
    assert_eq!(runs(&history(&ledger, &everything())), [1]);
}

#[test]
fn a_cause_and_a_fact_of_a_newer_version_do_not_lose_the_ending() {
    let folder = Folder::new();
    write(
        &folder.ledger(),
        [keep_ending(1, 1), Keep::Start(start(2, 2)), Keep::Evidence(RunId(2), 0, facts(2)[0].clone())],
    );
    let raw = r#"{"quantum-flip":{"qubit":7}}"#;
    let db = rusqlite::Connection::open(folder.ledger()).unwrap();
    db.execute("UPDATE ending SET cause = 'quantum-flip', certainty = 'certain'", []).unwrap();
    db.execute("UPDATE evidence SET fact = ?1 WHERE position = 0", [raw]).unwrap();
    drop(db);

    let (ledger, recovered, _) = open(&folder.ledger());
    let found = &recovered.unacknowledged[0];
    assert_eq!(found.verdict.cause.word(), "unknown-ended");
    assert_eq!(found.verdict.certainty.word(), "unknown");
    assert_eq!((found.message.as_str(), found.exit_reason), (ending(1, 1).message.as_str(), 4));
    assert_eq!(found.evidence[0].fact, Fact::Unreadable(raw.into()));
    assert_eq!(found.evidence[1..3], facts(1)[1..3]);
    assert!(matches!(&found.evidence[3].fact, Fact::Unreadable(text) if text.contains("`quantum-flip`")));
    assert_eq!(history(&ledger, &everything()), std::slice::from_ref(found));

    // The open run ends: what this version could not read goes back as it was, for the version that can.
    let mut last = ending(2, 2);
    last.evidence = recovered.open[0].1.clone();
    assert_eq!(last.evidence[0].fact, Fact::Unreadable(raw.into()));
    ledger.keep(Keep::Ending(Arc::new(last)));
    ledger.close(PATIENCE).unwrap();
    let db = rusqlite::Connection::open(folder.ledger()).unwrap();
    let stored: String =
        db.query_row("SELECT fact FROM evidence WHERE run = 2", [], |row| row.get(0)).unwrap();
    assert_eq!(stored, raw);
    let cause: String = db.query_row("SELECT cause FROM ending WHERE run = 1", [], |row| row.get(0)).unwrap();
    assert_eq!(cause, "quantum-flip");
}

#[test]
fn an_ending_that_makes_no_sense_is_said_and_hides_no_other() {
    let folder = Folder::new();
    write(&folder.ledger(), [keep_ending(1, 1), keep_ending(2, 2), keep_ending(3, 3)]);
    let db = rusqlite::Connection::open(folder.ledger()).unwrap();
    db.execute("UPDATE ending SET exit_code = 4711 WHERE run = 2", []).unwrap();
    db.execute("UPDATE evidence SET times = -1 WHERE run = 3", []).unwrap();
    drop(db);
    let (ledger, recovered, _) = open(&folder.ledger());
    assert_eq!(runs(&recovered.unacknowledged), [1, 3]);
    let history = ledger.history(&everything());
    assert_eq!(runs(&history.endings), [3, 1]);
    assert!(history.unread[0].to_string().contains("run 2"), "{:?}", history.unread);
    assert!(ledger.ending(RunId(2)).is_err());
}

#[test]
fn after_every_commit_it_is_told_how_much_of_all_that_was_handed_over_is_on_disk() {
    let folder = Folder::new();
    let (ledger, _, heard) = open(&folder.ledger());
    ledger.keep(Keep::Start(start(1, 1)));
    ledger.flush(PATIENCE).unwrap();
    ledger.keep(Keep::Alive(at(1)));
    ledger.keep(keep_ending(1, 1));
    ledger.flush(PATIENCE).unwrap();
    let counts = heard.counts();
    assert_eq!(counts.first(), Some(&Told::Written(1)));
    assert_eq!(counts.last(), Some(&Told::Written(3)));
}

#[test]
fn numbers_are_taken_on_disk_before_they_are_given_and_go_on_after_an_orderly_end() {
    let folder = Folder::new();
    let (ledger, recovered, _) = open(&folder.ledger());
    assert_eq!(recovered.last_run, 0);
    // Whoever is killed now leaves this behind.
    let left = |path: &std::path::Path| {
        let copy = Folder::new();
        for suffix in ["", "-wal"] {
            let from = path.with_file_name(format!("ledger.db{suffix}"));
            std::fs::copy(from, copy.path().join(format!("ledger.db{suffix}"))).unwrap();
        }
        let (ledger, recovered, _) = open(&copy.ledger());
        drop(ledger);
        recovered.last_run
    };
    assert_eq!(left(&folder.ledger()), RUNS_RESERVED);
    for run in 1..=3 * RUNS_RESERVED / 4 {
        ledger.keep(Keep::Start(start(run, run as u8)));
        if run % 500 == 0 {
            ledger.flush(PATIENCE).unwrap();
            let mark = left(&folder.ledger());
            assert!(mark >= run + RUNS_RESERVED / 2, "at {run} there are numbers up to {mark}");
        }
    }
    ledger.close(PATIENCE).unwrap();
    let (_, recovered, _) = open(&folder.ledger());
    assert_eq!(recovered.last_run, 3 * RUNS_RESERVED / 4);
}

#[test]
fn a_reader_is_shown_nothing_before_it_is_on_disk_and_misses_nothing_that_was_handed_over() {
    let folder = Folder::new();
    let (ledger, _, _) = open(&folder.ledger());
    for run in 1..=50 {
        ledger.keep(keep_ending(run, run as u8));
        ledger.keep(acknowledge(run));
        let shown = history(&ledger, &everything());
        let on_disk: i64 = rusqlite::Connection::open(folder.ledger())
            .unwrap()
            .query_row("SELECT count(*) FROM ending WHERE acknowledged_at IS NOT NULL", [], |row| row.get(0))
            .unwrap();
        assert_eq!((shown.len() as u64, on_disk as u64), (run, run));
        assert!(shown.iter().all(|ending| ending.acknowledged.is_some()));
    }
}

#[test]
fn what_nobody_waits_for_shares_a_commit_with_what_is_in_a_hurry() {
    let folder = Folder::new();
    let linger = std::time::Duration::from_secs(3_600);
    let (ledger, _, heard) = open_with(Settings { linger, ..settings(&folder.ledger()) });
    ledger.keep(keep_ending(1, 1));
    ledger.keep(Keep::Start(start(2, 2)));
    ledger.hurry(Haste::Now);
    heard.wait(|told| *told == kept([1]));
    eventually("both are in one commit", || heard.counts() == [Told::Written(2)]);
    // Who reads, and who closes, waits for nothing that lingers.
    ledger.keep(keep_ending(3, 3));
    assert_eq!(runs(&history(&ledger, &everything())), [3, 1]);
    ledger.keep(keep_ending(4, 4));
    ledger.close(PATIENCE).unwrap();
    let (ledger, ..) = open(&folder.ledger());
    assert_eq!(runs(&history(&ledger, &everything())), [4, 3, 1]);
}

#[test]
fn of_every_domain_it_is_known_when_its_latest_run_that_has_ended_began() {
    let folder = Folder::new();
    let ops = [1, 2, 3, 4].map(|run| Keep::Start(start(run, if run == 2 { 2 } else { 1 })));
    let endings = [1, 2, 3].map(|run| Keep::Ending(Arc::new(ending(run, if run == 2 { 2 } else { 1 }))));
    write(&folder.ledger(), ops.into_iter().chain(endings).chain([acknowledge(3)]));
    let (_, recovered, _) = open(&folder.ledger());
    // Run 4 goes on, and is told apart by itself.
    assert_eq!(recovered.latest, [Seen::of(&start(3, 1)), Seen::of(&start(2, 2))]);
}

/// A failed start that was found when a later run of its domain was known: its number is higher, and it came before.
#[test]
fn what_was_told_later_takes_nothing_from_the_run_that_goes_on_nor_from_the_ending_that_managers_wait_for() {
    let folder = Folder::new();
    let told_later = |run: u64, of: u8| {
        Keep::Ending(Arc::new(whydown_core::record::Ending {
            acknowledged: Some(by(whydown_core::record::TOLD_LATER)),
            ..ending(run, of)
        }))
    };
    write(
        &folder.ledger(),
        [
            Keep::Start(start(1, 1)),
            Keep::Start(start(2, 2)),
            keep_ending(2, 2),
            told_later(3, 1),
            told_later(4, 2),
            Keep::Alive(at(50)),
        ],
    );
    let check = |recovered: &Recovered| {
        let open: Vec<u64> = recovered.open.iter().map(|(start, _)| start.run.0).collect();
        assert_eq!((open, runs(&recovered.unacknowledged)), (vec![1], vec![2]));
        assert_eq!(recovered.latest.iter().map(|seen| seen.run.0).collect::<Vec<_>>(), [2]);
    };
    let (ledger, recovered, _) = open(&folder.ledger());
    check(&recovered);
    assert_eq!(history(&ledger, &everything()).len(), 3);
    drop(ledger);
    // Nor when the file is damaged elsewhere.
    let db = rusqlite::Connection::open(folder.ledger()).unwrap();
    db.execute_batch("DROP TABLE made").unwrap();
    drop(db);
    let opened = whydown_ledger::Ledger::open(settings(&folder.ledger()), |_| ());
    assert!(opened.trouble.is_some());
    check(&opened.recovered);
    assert_eq!(history(&opened.ledger, &everything()).len(), 3);
}
