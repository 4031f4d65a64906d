//! Every ledger that was ever written opens for ever.

mod common;

use common::*;
use whydown_core::cause::Cause;
use whydown_core::evidence::{Fact, Sender};
use whydown_core::id::RunId;
use whydown_core::record::{Certainty, Ending, Recovered, Seen, Verdict, When};
use whydown_ledger::{Ledger, Retention, Settings};

fn knows_what_version_1_wrote(ledger: &Ledger, recovered: &Recovered) {
    let open = vec![
        evidence(1, Fact::LogSilent),
        evidence(
            4,
            Fact::LogSignal { signal: 15, pid: 1, program: String::new(), sender: Sender::Init, at: None },
        ),
    ];
    let expected = Recovered {
        open: vec![(start(3, 3), open)],
        unacknowledged: vec![ending(1, 1)],
        uncertain: vec![],
        last_run: 42,
        alive: Some(at(500)),
        // Ages are counted from the day on which it was brought up.
        ages: [(RunId(1), std::time::Duration::ZERO)].into(),
        latest: vec![Seen::of(&start(1, 1))],
        made: [].into(),
    };
    assert_eq!(*recovered, expected);
    // Its start had not reached the disk, nor had its evidence.
    let lost = Ending {
        ended: When::Between(at(5), at(12)),
        verdict: Verdict {
            cause: Cause::HostLost,
            certainty: Certainty::Probable,
            row: "G1".into(),
            because: vec![0],
            despite: vec![],
        },
        exit_code: 1,
        exit_reason: 1,
        message: "The host went down".into(),
        evidence: vec![],
        acknowledged: Some(by("engine")),
        ..ending(2, 2)
    };
    assert_eq!(history(ledger, &everything()), [lost, ending(1, 1)]);
}

#[test]
fn a_ledger_of_version_1_is_brought_up_and_opens_again() {
    let folder = Folder::new();
    std::fs::write(folder.ledger(), include_bytes!("golden/ledger-v1.db")).unwrap();
    for _ in 0..2 {
        let (ledger, recovered, _) = open(&folder.ledger());
        knows_what_version_1_wrote(&ledger, &recovered);
        assert_eq!((ledger.health().endings, ledger.health().evidence), (2, 3));
    }
    // What version 2 counts was counted for the old endings too: their evidence leaves like any other.
    let (ledger, ..) = open(&folder.ledger());
    ledger.keep(acknowledge(1));
    ledger.close(PATIENCE).unwrap();
    let retention = Retention { evidence_max_count: 0, ..Retention::default() };
    let (ledger, ..) = open_with(Settings { retention, ..settings(&folder.ledger()) });
    eventually("the evidence leaves", || ledger.health().evidence == 0);
    assert_eq!(ledger.ending(RunId(1)).unwrap().unwrap().evidence, []);
}

#[test]
fn a_ledger_of_version_2_is_brought_up_and_opens_again() {
    let folder = Folder::new();
    let db = rusqlite::Connection::open(folder.ledger()).unwrap();
    db.execute_batch(include_str!("golden/ledger-v2.sql")).unwrap();
    drop(db);
    for _ in 0..2 {
        let (ledger, recovered, _) = open(&folder.ledger());
        knows_what_version_1_wrote(&ledger, &recovered);
        assert_eq!((ledger.health().endings, ledger.health().evidence), (2, 3));
    }
}

#[test]
fn the_text_beside_the_file_says_what_is_in_it() {
    let folder = Folder::new();
    let db = rusqlite::Connection::open(folder.ledger()).unwrap();
    db.execute_batch(include_str!("golden/ledger-v1.sql")).unwrap();
    drop(db);
    let (ledger, recovered, _) = open(&folder.ledger());
    knows_what_version_1_wrote(&ledger, &recovered);
}
