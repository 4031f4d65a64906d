//! What leaves by age and count, and what never does.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::*;
use whydown_core::id::RunId;
use whydown_core::record::Keep;
use whydown_core::time::Wall;
use whydown_ledger::{Ledger, Retention, Settings};

const FOREVER: Retention = Retention {
    evidence_max_age: Duration::MAX,
    evidence_max_count: u64::MAX,
    endings_max_age: Duration::MAX,
    endings_max_count: u64::MAX,
};

/// Opens with this retention and waits until so many endings and facts are left.
fn tidied(folder: &Folder, retention: Retention, endings: u64, facts: u64) -> Ledger {
    let (uptime, _) = told_uptime();
    let (ledger, ..) = open_with(Settings { retention, uptime, ..settings(&folder.ledger()) });
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

/// Writes endings 1 to 10, each a second of lived time after the one before it, by daemons that were killed or stopped in
/// between, under a wall clock that is anywhere; then ten seconds more pass.
fn write_with_ages(path: &Path) {
    for part in [1..=4u64, 5..=10] {
        let (uptime, seconds) = told_uptime();
        let wall = if *part.start() == 1 { at(300_000_000) } else { Wall(0) };
        let (ledger, ..) = open_with(Settings { uptime, clock: Arc::new(move || wall), ..settings(path) });
        let first = *part.start();
        for run in part {
            seconds.store(run + 1 - first, Ordering::SeqCst);
            ledger.keep(keep_ending(run, run as u8));
            ledger.keep(acknowledge(run));
            ledger.keep(Keep::Alive(wall));
            ledger.flush(PATIENCE).unwrap();
        }
        ledger.close(PATIENCE).unwrap();
    }
    let (uptime, seconds) = told_uptime();
    let (ledger, ..) = open_with(Settings { uptime, ..settings(path) });
    seconds.store(10, Ordering::SeqCst);
    ledger.keep(Keep::Alive(at(1)));
    ledger.close(PATIENCE).unwrap();
}

/// Run n was written after n seconds of lived time, of which there are 20 now.
fn age(seconds_lived_then: u64) -> Duration {
    Duration::from_secs(20 - seconds_lived_then)
}

#[test]
fn old_evidence_leaves_first_and_the_ending_stays() {
    let folder = Folder::new();
    write_with_ages(&folder.ledger());
    let ledger = tidied(&folder, Retention { evidence_max_age: age(5), ..FOREVER }, 10, 18);
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
        [Retention { endings_max_age: age(6), ..FOREVER }, Retention { endings_max_count: 5, ..FOREVER }]
    {
        let folder = Folder::new();
        write_with_ages(&folder.ledger());
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

#[test]
fn no_wall_clock_makes_anything_older_nor_does_a_host_that_is_off() {
    // A dead battery, before NTP: ten years ahead, then back. And ten years back, and 1970.
    let year = 31_557_600;
    let folder = Folder::new();
    for (run, seconds) in [(1, 0), (2, 10 * year), (3, -10 * year), (4, -1_800_000_000), (5, 0)] {
        let clock = Arc::new(move || at(seconds));
        let (ledger, ..) = open_with(Settings { clock, ..settings(&folder.ledger()) });
        let mut ending = ending(run, run as u8);
        ending.ended = whydown_core::record::When::At(at(seconds));
        ledger.keep(Keep::Ending(Arc::new(ending)));
        ledger.keep(acknowledge(run));
        ledger.keep(Keep::Alive(at(seconds)));
        ledger.flush(PATIENCE).unwrap();
        assert_eq!(ledger.health().endings, run, "with the clock at {seconds}");
        assert_eq!(ledger.health().evidence, run * 3);
        ledger.close(PATIENCE).unwrap();
    }
    let retention = Retention { endings_max_count: 2, ..FOREVER };
    let (ledger, ..) = open_with(Settings { retention, ..settings(&folder.ledger()) });
    eventually("the surplus leaves", || ledger.health().endings == 2);
    let mut left = runs(&history(&ledger, &everything()));
    left.sort_unstable();
    assert_eq!(left, [4, 5], "those that were written last stay, whatever their clock said");
}

#[test]
fn the_age_of_what_managers_wait_for_is_time_lived_through() {
    let folder = Folder::new();
    let (uptime, seconds) = told_uptime();
    let (ledger, ..) = open_with(Settings { uptime, ..settings(&folder.ledger()) });
    for (run, second) in [(1, 5), (2, 30)] {
        seconds.store(second, Ordering::SeqCst);
        ledger.keep(keep_ending(run, run as u8));
        ledger.flush(PATIENCE).unwrap();
    }
    seconds.store(40, Ordering::SeqCst);
    ledger.keep(Keep::Alive(at(0)));
    ledger.close(PATIENCE).unwrap();
    let (ledger, recovered, _) = open(&folder.ledger());
    let ages = [(RunId(1), Duration::from_secs(35)), (RunId(2), Duration::from_secs(10))];
    assert_eq!(recovered.ages, ages.into());
    ledger.close(PATIENCE).unwrap();
}
