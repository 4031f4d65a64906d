//! What leaves by age and count, and what never does.

mod common;

use std::time::Duration;

use common::*;
use whydown_core::id::RunId;
use whydown_core::record::Keep;
use whydown_ledger::{Ledger, Retention, Settings};

const FOREVER: Retention = Retention {
    evidence_max_age: Duration::MAX,
    evidence_max_count: u64::MAX,
    endings_max_age: Duration::MAX,
    endings_max_count: u64::MAX,
};

/// Opens with this retention and waits until so many endings and facts are left.
fn tidied(folder: &Folder, retention: Retention, endings: u64, facts: u64) -> Ledger {
    let (ledger, ..) = open_with(Settings { retention, ..settings(&folder.ledger()) });
    eventually("retention comes to its end", || {
        let health = ledger.health();
        (health.endings, health.evidence) == (endings, facts)
    });
    // A commit and one more round change nothing.
    ledger.keep(Keep::Alive(at(1)));
    ledger.flush(PATIENCE).unwrap();
    assert_eq!((ledger.health().endings, ledger.health().evidence), (endings, facts));
    ledger
}

/// The test's clock stands at second 1,000,000; run n ended at second n + 10.
fn age(seconds_after_start: u64) -> Duration {
    Duration::from_secs(1_000_000 - seconds_after_start)
}

#[test]
fn old_evidence_leaves_first_and_the_ending_stays() {
    let folder = Folder::new();
    write(&folder.ledger(), (1..=10).flat_map(|run| [keep_ending(run, run as u8), acknowledge(run)]));
    let ledger = tidied(&folder, Retention { evidence_max_age: age(15), ..FOREVER }, 10, 18);
    let left = history(&ledger, &everything());
    for found in left {
        let mut expected = ending(found.run.0, found.run.0 as u8);
        expected.acknowledged = Some(by("engine"));
        // Run 5 ended exactly at the limit and stays whole.
        if found.run.0 < 5 {
            expected.evidence.clear();
        }
        assert_eq!(found, expected);
    }
}

#[test]
fn surplus_evidence_leaves_from_the_oldest_endings() {
    let folder = Folder::new();
    write(&folder.ledger(), (1..=10).flat_map(|run| [keep_ending(run, run as u8), acknowledge(run)]));
    // 30 facts, 20 may stay: four endings of three facts have to give theirs.
    let ledger = tidied(&folder, Retention { evidence_max_count: 20, ..FOREVER }, 10, 18);
    let bare: Vec<u64> =
        history(&ledger, &everything()).iter().filter(|e| e.evidence.is_empty()).map(|e| e.run.0).collect();
    assert_eq!(bare, [4, 3, 2, 1]);
}

#[test]
fn endings_leave_by_age_and_by_count_with_all_that_hangs_on_them() {
    for retention in
        [Retention { endings_max_age: age(16), ..FOREVER }, Retention { endings_max_count: 5, ..FOREVER }]
    {
        let folder = Folder::new();
        write(
            &folder.ledger(),
            (1..=10).flat_map(|run| {
                [Keep::Start(start(run, run as u8)), keep_ending(run, run as u8), acknowledge(run)]
            }),
        );
        let ledger = tidied(&folder, retention, 5, 15);
        assert_eq!(runs(&history(&ledger, &everything())), [10, 9, 8, 7, 6]);
        ledger.close(PATIENCE).unwrap();
        let db = rusqlite::Connection::open(folder.ledger()).unwrap();
        for (table, rows) in [("run", 5), ("ending", 5), ("evidence", 15)] {
            let count: i64 =
                db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
            assert_eq!(count, rows, "{table}");
        }
        drop(db);
        let (_, recovered, _) = open(&folder.ledger());
        assert_eq!(recovered.last_run, 10);
    }
}

#[test]
fn what_managers_still_wait_for_and_what_goes_on_never_leaves() {
    let folder = Folder::new();
    let ops = [
        // The latest of its domain, unacknowledged: stays, whole.
        keep_ending(1, 1),
        // Superseded by run 3: leaves, acknowledged or not.
        keep_ending(2, 2),
        keep_ending(3, 2),
        // Superseded by a run that goes on: leaves. The run and its evidence stay.
        keep_ending(4, 3),
        Keep::Start(start(5, 3)),
        Keep::Evidence(RunId(5), 0, facts(5)[0].clone()),
        // Acknowledged: leaves.
        keep_ending(6, 4),
        acknowledge(6),
    ];
    write(&folder.ledger(), ops);
    let nothing = Retention {
        evidence_max_age: Duration::ZERO,
        evidence_max_count: 0,
        endings_max_age: Duration::ZERO,
        endings_max_count: 0,
    };
    let ledger = tidied(&folder, nothing.clone(), 2, 6);
    assert_eq!(history(&ledger, &everything()), [ending(3, 2), ending(1, 1)]);
    ledger.close(PATIENCE).unwrap();
    let (_, recovered, _) = open_with(Settings { retention: nothing, ..settings(&folder.ledger()) });
    assert_eq!(recovered.unacknowledged, [ending(1, 1), ending(3, 2)]);
    assert_eq!(recovered.open, [(start(5, 3), vec![facts(5)[0].clone()])]);
    assert_eq!(recovered.last_run, 6, "run numbers stay, whatever leaves");
}

#[test]
fn many_endings_leave_in_slices_while_new_ones_are_kept_and_the_file_shrinks() {
    let folder = Folder::new();
    write(&folder.ledger(), (1..=3000).flat_map(|run| [keep_ending(run, run as u8), acknowledge(run)]));
    let before = std::fs::metadata(folder.ledger()).unwrap().len();
    let retention = Retention { endings_max_count: 100, ..FOREVER };
    let (ledger, _, heard) = open_with(Settings { retention, ..settings(&folder.ledger()) });
    ledger.keep(keep_ending(5000, 1));
    heard.wait(|told| *told == kept([5000]));
    eventually("only the newest hundred are left", || ledger.health().endings == 100);
    ledger.close(PATIENCE).unwrap();
    let after = std::fs::metadata(folder.ledger()).unwrap().len();
    assert!(after < before, "{after} of {before} bytes are left");
}
