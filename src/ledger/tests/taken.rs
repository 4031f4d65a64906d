//! Others take the file away while it is open, or put something else there: what was told to be on disk is there again,
//! and nothing that is told is false meanwhile.

mod common;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use common::*;
use whydown_core::evidence::Fact;
use whydown_core::id::RunId;
use whydown_core::record::Keep;
use whydown_ledger::{Condition, Ledger, Opened, Trouble};

fn remove(path: &Path, suffixes: &[&str]) {
    for suffix in suffixes {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        std::fs::remove_file(name).unwrap();
    }
}

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn cut(path: &Path, length: u64) {
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// What is done to the file, and whether all of it can be had again.
type Deed = (&'static str, fn(&Path));

const DEEDS: &[Deed] = &[
    ("its log is removed", |path| remove(path, &["-wal"])),
    ("its log's index is removed", |path| remove(path, &["-shm"])),
    ("its log and the index are removed", |path| remove(path, &["-wal", "-shm"])),
    ("it is removed", |path| remove(path, &[""])),
    ("it is removed with its log", |path| remove(path, &["", "-wal", "-shm"])),
    ("it is renamed", |path| std::fs::rename(path, path.with_extension("old")).unwrap()),
    ("an empty file takes its place", |path| {
        remove(path, &[""]);
        std::fs::write(path, "").unwrap();
    }),
    ("nonsense takes its place", |path| {
        std::fs::write(path.with_extension("new"), "nonsense ".repeat(1000)).unwrap();
        std::fs::rename(path.with_extension("new"), path).unwrap();
    }),
    ("its folder is removed", |path| std::fs::remove_dir_all(path.parent().unwrap()).unwrap()),
];

/// Two hundred endings of before, most of them in the file itself, and some runs that go on.
fn fill(path: &Path) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let ended = (1..=200).flat_map(|run| [Keep::Start(start(run, run as u8)), keep_ending(run, run as u8)]);
    write(
        path,
        ended.chain([Keep::Start(start(201, 201)), Keep::Evidence(RunId(201), 0, facts(1)[0].clone())]),
    );
}

fn is_fine(ledger: &Ledger) -> bool {
    let health = ledger.health();
    health.condition == Condition::Working && health.mended.is_some()
}

#[test]
fn a_file_that_is_taken_away_is_put_back_whole_and_history_is_never_false() {
    for (what, deed) in DEEDS {
        let folder = Folder::new();
        let path = folder.path().join("state/ledger.db");
        fill(&path);
        let (ledger, _, heard) = open(&path);
        ledger.keep(keep_ending(202, 202));
        heard.wait(|told| told.contains(&kept([202])[0]));
        assert_eq!(history(&ledger, &everything()).len(), 201, "{what}");
        deed(&path);
        // Asked at once: either it is put right first, or it says that it cannot be read.
        let seen = ledger.history(&everything());
        assert!(seen.endings.len() == 201 || !seen.unread.is_empty(), "{what}: {seen:?}");
        ledger.keep(keep_ending(203, 203));
        heard.wait(|told| told.contains(&kept([203])[0]));
        ledger.flush(PATIENCE).unwrap();
        eventually(what, || is_fine(&ledger));
        assert_eq!(
            runs(&history(&ledger, &everything())),
            (1..=200).chain([202, 203]).rev().collect::<Vec<_>>()
        );
        let told = ledger.health().mended.unwrap();
        assert!(told.contains("put back whole"), "{what}: {told}");
        ledger.close(PATIENCE).unwrap();
        let (ledger, recovered, _) = open(&path);
        assert_eq!(history(&ledger, &everything()).len(), 202, "{what}");
        assert_eq!((recovered.open.len(), recovered.open[0].1.len()), (1, 1), "{what}");
        assert!(recovered.last_run >= 203, "{what}");
    }
}

#[test]
fn it_is_noticed_though_nothing_is_written_or_read() {
    let folder = Folder::new();
    let (ledger, _, heard) = open(&folder.ledger());
    ledger.keep(keep_ending(1, 1));
    heard.wait(|told| told.len() == 1);
    ledger.flush(PATIENCE).unwrap();
    remove(&folder.ledger(), &["", "-wal", "-shm"]);
    eventually("it is put back", || is_fine(&ledger));
    assert!(folder.ledger().is_file());
    drop(ledger);
    let (_, recovered, _) = open(&folder.ledger());
    assert_eq!(recovered.unacknowledged, [ending(1, 1)]);
}

#[test]
fn a_file_that_is_cut_has_again_what_was_told_to_be_on_disk() {
    for length in [0, 1, 4096, 3 * 4096] {
        let folder = Folder::new();
        fill(&folder.ledger());
        let (ledger, _, heard) = open(&folder.ledger());
        ledger.keep(keep_ending(202, 202));
        ledger.keep(acknowledge(202));
        heard.wait(|told| told.contains(&kept([202])[0]));
        ledger.flush(PATIENCE).unwrap();
        cut(&folder.ledger(), length);
        let seen = ledger.history(&everything());
        assert!(
            !seen.endings.is_empty() || !seen.unread.is_empty(),
            "cut to {length}: nothing, and no word on it"
        );
        ledger.keep(keep_ending(203, 203));
        heard.wait(|told| told.contains(&kept([203])[0]));
        eventually("it is written anew", || is_fine(&ledger));
        ledger.close(PATIENCE).unwrap();
        // All that managers still wait for, the run that goes on, and the last ones.
        let (ledger, recovered, _) = open(&folder.ledger());
        let unacknowledged: Vec<u64> = recovered.unacknowledged.iter().map(|ending| ending.run.0).collect();
        assert_eq!(unacknowledged, (1..=200).chain([203]).collect::<Vec<_>>(), "cut to {length}");
        assert_eq!(recovered.unacknowledged[0], ending(1, 1), "cut to {length}");
        assert_eq!((recovered.open.len(), recovered.open[0].1.len()), (1, 1), "cut to {length}");
        assert!(recovered.last_run >= 203);
        assert_eq!(
            ledger.ending(RunId(202)).unwrap().unwrap().acknowledged,
            Some(by("engine")),
            "cut to {length}"
        );
    }
}

#[test]
fn what_is_no_plain_file_is_never_opened_and_the_ledger_waits_for_its_place() {
    let folder = Folder::new();
    fill(&folder.ledger());
    let (ledger, _, heard) = open(&folder.ledger());
    ledger.keep(keep_ending(202, 202));
    heard.wait(|told| told.contains(&kept([202])[0]));
    // In one step: with nothing there for a moment the ledger might be put back.
    let made = folder.path().join("fifo");
    fifo(&made);
    std::fs::rename(made, folder.ledger()).unwrap();
    let seen = ledger.history(&everything());
    assert!(seen.unread.len() == 1 || seen.endings.len() == 201, "{seen:?}");
    ledger.keep(keep_ending(203, 203));
    eventually("it says what is wrong", || match ledger.health().condition {
        Condition::Failing { error, .. } => error.contains("no plain file"),
        Condition::Working => false,
    });
    let seen = ledger.history(&everything());
    assert_eq!(runs(&seen.endings), [203], "what waits in memory");
    assert!(seen.unread[0].to_string().contains("no plain file"), "{:?}", seen.unread);
    std::fs::remove_file(folder.ledger()).unwrap();
    ledger.flush(PATIENCE).unwrap();
    eventually("it is put back", || is_fine(&ledger));
    assert_eq!(history(&ledger, &everything()).len(), 202);
    drop(ledger);
    let (ledger, ..) = open(&folder.ledger());
    assert_eq!(history(&ledger, &everything()).len(), 202);
}

#[test]
fn at_the_end_a_ledger_whose_place_is_not_free_is_saved_beside_it() {
    let folder = Folder::new();
    let (ledger, _, heard) = open(&folder.ledger());
    ledger.keep(keep_ending(1, 1));
    heard.wait(|told| told.contains(&kept([1])[0]));
    remove(&folder.ledger(), &["", "-wal", "-shm"]);
    fifo(&folder.ledger());
    let _ = ledger.close(Duration::from_secs(1));
    let saved = folder.path().join(format!("ledger.db.saved-{}", at(1_000_000).as_millis()));
    eventually("it is saved", || saved.is_file());
    drop(ledger);
    let back = folder.path().join("back.db");
    std::fs::rename(saved, &back).unwrap();
    let (_, recovered, _) = open(&back);
    assert_eq!(recovered.unacknowledged, [ending(1, 1)]);
}

#[test]
fn at_the_start_what_is_no_plain_file_is_trouble_and_holds_nobody_up() {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let folder = Folder::new();
        if !suffix.is_empty() {
            write(&folder.ledger(), [keep_ending(1, 1)]);
        }
        fifo(&folder.path().join(format!("ledger.db{suffix}")));
        let heard = Heard::default();
        let Opened { ledger, trouble, .. } = Ledger::open(settings(&folder.ledger()), heard.listener());
        let Some(Trouble::Unavailable { reason, .. }) = &trouble else { panic!("{suffix}: {trouble:?}") };
        assert!(reason.contains("no plain file"), "{reason}");
        ledger.keep(keep_ending(2, 2));
        heard.wait(|told| told.iter().any(|told| format!("{told:?}") == "NotKept(RunId(2))"));
        assert_eq!(ledger.history(&everything()).unread.len(), 1);
        std::fs::remove_file(folder.path().join(format!("ledger.db{suffix}"))).unwrap();
        ledger.flush(PATIENCE).unwrap();
        ledger.close(PATIENCE).unwrap();
    }
}

#[test]
fn a_ledger_with_a_rollback_journal_opens_as_any_other() {
    let folder = Folder::new();
    fill(&folder.ledger());
    let db = rusqlite::Connection::open(folder.ledger()).unwrap();
    let mode: String = db.pragma_update_and_check(None, "journal_mode", "DELETE", |row| row.get(0)).unwrap();
    assert_eq!(mode, "delete");
    drop(db);
    for _ in 0..2 {
        let (ledger, recovered, _) = open(&folder.ledger());
        assert_eq!(ledger.health().condition, Condition::Working);
        assert_eq!(recovered.unacknowledged.len(), 200);
        assert_eq!(history(&ledger, &everything()).len(), 200);
        ledger.close(PATIENCE).unwrap();
    }
}

#[test]
fn a_ledger_that_is_closed_while_its_file_is_away_puts_it_back_first() {
    let folder = Folder::new();
    let (ledger, _, heard) = open(&folder.ledger());
    ledger.keep(keep_ending(1, 1));
    heard.wait(|told| told.len() == 1);
    let fact = evidence(1, Fact::LogSilent);
    ledger.keep(Keep::Start(start(2, 2)));
    ledger.keep(Keep::Evidence(RunId(2), 0, fact));
    ledger.flush(PATIENCE).unwrap();
    remove(&folder.ledger(), &["", "-wal", "-shm"]);
    ledger.close(Duration::from_secs(20)).unwrap();
    let (_, recovered, _) = open(&folder.ledger());
    assert_eq!((recovered.unacknowledged.len(), recovered.open.len()), (1, 1));
}
