//! Corrections: what was told first stays readable, and its exit code stays.

mod common;

use common::*;
use std::sync::Arc;
use whydown_core::cause::Cause;
use whydown_core::evidence::{Evidence, Fact};
use whydown_core::id::RunId;
use whydown_core::record::{Certainty, Earlier, Ending, Keep, Verdict};
use whydown_ledger::{Ledger, Retention, Settings, Told, Trouble};

/// An ending that is only probable.
fn probable(run: u64) -> Ending {
    let first = ending(run, run as u8);
    let verdict = Verdict { certainty: Certainty::Probable, ..first.verdict.clone() };
    Ending { verdict, ..first }
}

/// The same after one more fact, with a piece that says more than before.
fn corrected(told: &Ending, more: i64) -> Ending {
    let mut evidence = told.evidence.clone();
    let before: Evidence = evidence[2].clone();
    evidence[2].fact = Fact::LogText(format!("after correction {more}"));
    evidence.push(common::evidence(more, Fact::LogSilent));
    let mut earlier = told.earlier.clone();
    earlier.push(Earlier {
        until: at(more),
        verdict: told.verdict.clone(),
        exit_reason: told.exit_reason,
        message: told.message.clone(),
        facts: told.evidence.len() as u16,
        changed: vec![(2, before)],
    });
    Ending {
        verdict: Verdict {
            cause: Cause::GuestPoweroff,
            row: "G9".into(),
            because: vec![3],
            ..told.verdict.clone()
        },
        exit_reason: 7,
        message: format!("correction {more}"),
        evidence,
        earlier,
        ..told.clone()
    }
}

fn revise(ending: &Ending) -> Keep {
    Keep::Revised(Arc::new(ending.clone()))
}

#[test]
fn a_correction_takes_the_place_of_the_first_telling_and_both_are_readable() {
    let folder = Folder::new();
    let first = probable(1);
    let second = corrected(&first, 20);
    let third = corrected(&second, 30);
    let (ledger, _, heard) = open(&folder.ledger());
    for op in
        [Keep::Start(start(1, 1)), Keep::Ending(Arc::new(first.clone())), revise(&second), revise(&third)]
    {
        ledger.keep(op);
    }
    heard.wait(|told| told.contains(&Told::KeptRevision(RunId(1), 2)));
    let expected = [Told::Kept(RunId(1)), Told::KeptRevision(RunId(1), 1), Told::KeptRevision(RunId(1), 2)];
    assert_eq!(heard.all(), expected);
    // Written again, as after a commit whose answer was lost: no change.
    ledger.keep(revise(&second));
    ledger.keep(revise(&third));
    ledger.close(PATIENCE).unwrap();

    let (ledger, recovered, _) = open(&folder.ledger());
    let found = ledger.ending(RunId(1)).unwrap().unwrap();
    assert_eq!(found, third);
    assert_eq!(found.evidence_of(0), first.evidence);
    assert_eq!(found.evidence_of(1), second.evidence);
    assert_eq!(found.evidence_of(2), third.evidence);
    assert_eq!(recovered.unacknowledged, std::slice::from_ref(&third));
    assert_eq!(recovered.uncertain, [(start(1, 1), third.clone())]);
    assert_eq!(history(&ledger, &everything()), std::slice::from_ref(&third));
    assert_eq!(ledger.health().evidence, third.evidence.len() as u64);
}

#[test]
fn an_acknowledged_ending_can_be_corrected_and_stays_acknowledged() {
    let folder = Folder::new();
    let first = probable(1);
    let second = corrected(&first, 20);
    write(
        &folder.ledger(),
        [Keep::Start(start(1, 1)), Keep::Ending(Arc::new(first)), acknowledge(1), revise(&second)],
    );
    let (ledger, recovered, _) = open(&folder.ledger());
    let found = ledger.ending(RunId(1)).unwrap().unwrap();
    assert_eq!(found, Ending { acknowledged: Some(by("engine")), ..second });
    assert_eq!(recovered.unacknowledged, []);
}

#[test]
fn a_correction_that_does_not_fit_changes_nothing() {
    let folder = Folder::new();
    let first = probable(1);
    let second = corrected(&first, 20);
    let other_code = Ending { exit_code: 1, ..second.clone() };
    let out_of_turn = corrected(&second, 30);
    let certain = ending(2, 2);
    let of_certain = corrected(&certain, 20);
    let of_nothing = corrected(&probable(3), 20);
    write(
        &folder.ledger(),
        [
            Keep::Ending(Arc::new(first.clone())),
            Keep::Ending(Arc::new(certain.clone())),
            revise(&other_code),
            revise(&out_of_turn),
            revise(&of_certain),
            revise(&of_nothing),
        ],
    );
    let (ledger, ..) = open(&folder.ledger());
    assert_eq!(ledger.ending(RunId(1)), Ok(Some(first)));
    assert_eq!(ledger.ending(RunId(2)), Ok(Some(certain)));
    assert_eq!(ledger.ending(RunId(3)), Ok(None));
}

#[test]
fn what_was_told_before_leaves_with_its_ending() {
    let folder = Folder::new();
    let first = probable(1);
    let second = corrected(&first, 20);
    write(
        &folder.ledger(),
        [Keep::Start(start(1, 1)), Keep::Ending(Arc::new(first)), revise(&second), acknowledge(1)],
    );
    let rows = |sql: &str| -> i64 {
        let db = rusqlite::Connection::open(folder.ledger()).unwrap();
        db.query_row(sql, [], |row| row.get(0)).unwrap()
    };
    let retention = Retention { evidence_max_count: 0, ..Retention::default() };
    let (ledger, ..) = open_with(Settings { retention, ..settings(&folder.ledger()) });
    eventually("the evidence leaves", || ledger.health().evidence == 0);
    ledger.close(PATIENCE).unwrap();
    assert_eq!(rows("SELECT count(*) FROM earlier WHERE facts = 0 AND changed = '[]'"), 1);
    let retention = Retention { endings_max_count: 0, ..Retention::default() };
    let (ledger, ..) = open_with(Settings { retention, ..settings(&folder.ledger()) });
    eventually("the ending leaves", || ledger.health().endings == 0);
    ledger.close(PATIENCE).unwrap();
    assert_eq!(rows("SELECT count(*) FROM earlier"), 0);
}

#[test]
fn a_damaged_ledger_keeps_what_was_told_before() {
    let folder = Folder::new();
    let first = probable(1);
    let second = corrected(&first, 20);
    write(&folder.ledger(), [Keep::Start(start(1, 1)), Keep::Ending(Arc::new(first)), revise(&second)]);
    let db = rusqlite::Connection::open(folder.ledger()).unwrap();
    db.execute_batch("PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 'ending_by_time';")
        .unwrap();
    drop(db);
    let opened = Ledger::open(settings(&folder.ledger()), |_| {});
    assert!(matches!(opened.trouble, Some(Trouble::Damaged { .. })), "{:?}", opened.trouble);
    assert_eq!(opened.ledger.ending(RunId(1)), Ok(Some(second)));
}
