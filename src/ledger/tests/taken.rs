//! Others take the file away while it is open, or put something else there: what was told to be on disk is there again,
//! and nothing that is told is false meanwhile.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::*;
use whydown_core::evidence::Fact;
use whydown_core::id::RunId;
use whydown_core::record::Keep;
use whydown_ledger::{Condition, Ledger, Opened, Trouble};

fn remove(path: &Path, suffixes: &[&str]) {
    suffixes.iter().for_each(|suffix| std::fs::remove_file(beside(path, suffix)).unwrap());
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
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
    ("a link to it takes its place", |path| {
        std::fs::rename(path, path.with_extension("moved")).unwrap();
        std::os::unix::fs::symlink(path.with_extension("moved"), path).unwrap();
    }),
    ("a link to its log takes the log's place", |path| {
        let (log, moved) = (beside(path, "-wal"), beside(path, "-wal.moved"));
        std::fs::rename(&log, &moved).unwrap();
        std::os::unix::fs::symlink(moved, log).unwrap();
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

/// What its log held is there again: at once, and without a word from anybody.
#[test]
fn a_log_that_is_cut_has_again_what_was_told_to_be_on_disk() {
    let cuts =
        [("all", 0.0, false), ("its head stays", -1.0, true), ("half", 0.5, true), ("its end", 0.999, false)];
    for (what, part, asked) in cuts {
        let folder = Folder::new();
        fill(&folder.ledger());
        let (ledger, _, heard) = open(&folder.ledger());
        ledger.keep_together(vec![Keep::Start(start(202, 202)), keep_ending(202, 202)]);
        ledger.keep(acknowledge(202));
        heard.wait(|told| told.contains(&kept([202])[0]));
        ledger.flush(PATIENCE).unwrap();
        let log = beside(&folder.ledger(), "-wal");
        let length = log.metadata().unwrap().len();
        cut(&log, if part < 0.0 { 32 } else { (length as f64 * part) as u64 });
        if asked {
            let seen = ledger.history(&everything());
            assert!(seen.endings.len() == 201 || !seen.unread.is_empty(), "{what}: {seen:?}");
        }
        eventually("it is put right", || is_fine(&ledger));
        ledger.keep(keep_ending(203, 203));
        heard.wait(|told| told.contains(&kept([203])[0]));
        let told = ledger.health().mended.unwrap();
        assert!(told.contains("its log was cut while in use"), "{told}");
        // What is on disk now is what the next one finds, whatever happens to this one.
        let left = Folder::new();
        for suffix in ["", "-wal"] {
            std::fs::copy(beside(&folder.ledger(), suffix), beside(&left.ledger(), suffix)).unwrap();
        }
        let (left, recovered, _) = open(&left.ledger());
        let unacknowledged: Vec<u64> = recovered.unacknowledged.iter().map(|ending| ending.run.0).collect();
        assert_eq!(unacknowledged, (1..=200).chain([203]).collect::<Vec<_>>(), "{what} is cut");
        assert_eq!((recovered.open.len(), recovered.open[0].1.len()), (1, 1), "{what} is cut");
        assert!(recovered.latest.iter().any(|seen| seen.run == RunId(202)), "{what} is cut: {recovered:?}");
        assert_eq!(left.ending(RunId(202)).unwrap().unwrap().acknowledged, Some(by("engine")), "{what}");
    }
}

#[test]
fn a_log_that_another_program_has_brought_into_the_file_is_not_missed() {
    let folder = Folder::new();
    fill(&folder.ledger());
    let (ledger, _, heard) = open(&folder.ledger());
    ledger.keep(keep_ending(202, 202));
    heard.wait(|told| told.contains(&kept([202])[0]));
    // A process of its own, as locks know processes.
    let sql = "import sqlite3, sys\nprint(sqlite3.connect(sys.argv[1]).execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchone())";
    let done = Command::new("python3").arg("-c").arg(sql).arg(folder.ledger()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "(0, 0, 0)", "{done:?}");
    assert_eq!(beside(&folder.ledger(), "-wal").metadata().unwrap().len(), 0);
    assert_eq!(history(&ledger, &everything()).len(), 201);
    ledger.keep(keep_ending(203, 203));
    heard.wait(|told| told.contains(&kept([203])[0]));
    ledger.flush(PATIENCE).unwrap();
    assert_eq!((ledger.health().mended, ledger.health().condition), (None, Condition::Working));
    assert_eq!(history(&ledger, &everything()).len(), 202);
}

/// Files as they were some time ago are put back while more has been told since.
#[test]
fn an_older_copy_that_is_put_in_its_place_forgets_nothing_and_lets_nothing_go_on() {
    let folder = Folder::new();
    fill(&folder.ledger());
    let (ledger, _, heard) = open(&folder.ledger());
    let older = folder.path().join("older.db");
    // More endings than memory keeps, of runs that still go on in the copy.
    ledger.keep_together((300..700).map(|run| Keep::Start(start(run, 9))).collect());
    ledger.flush(PATIENCE).unwrap();
    for suffix in ["", "-wal"] {
        std::fs::copy(beside(&folder.ledger(), suffix), beside(&older, suffix)).unwrap();
    }
    for run in 300..700 {
        ledger.keep_together(vec![keep_ending(run, 9), acknowledge(run)]);
    }
    // And one that it has never heard of.
    ledger.keep_together(vec![Keep::Start(start(800, 10)), keep_ending(800, 10), acknowledge(800)]);
    heard.wait(|told| told.contains(&kept([800])[0]));
    ledger.flush(PATIENCE).unwrap();
    for suffix in ["", "-wal"] {
        std::fs::rename(beside(&older, suffix), beside(&folder.ledger(), suffix)).unwrap();
    }
    eventually("it is put right", || is_fine(&ledger));
    ledger.keep(keep_ending(203, 203));
    heard.wait(|told| told.contains(&kept([203])[0]));
    assert_eq!(history(&ledger, &everything()).len(), 602);
    ledger.close(PATIENCE).unwrap();
    let (ledger, recovered, _) = open(&folder.ledger());
    assert_eq!(history(&ledger, &everything()).len(), 602);
    let goes_on: Vec<u64> = recovered.open.iter().map(|(start, _)| start.run.0).collect();
    assert_eq!(goes_on, [201]);
    for (domain, run) in [(9, 699), (10, 800)] {
        let seen = recovered.latest.iter().find(|seen| seen.domain == common::domain(domain));
        let seen = seen.map(|seen| (seen.run, seen.at, seen.start));
        assert_eq!(seen, Some((RunId(run), at(run as i64), true)), "its log is no news");
    }
}

#[test]
fn at_the_start_a_link_is_not_followed_and_nothing_that_it_leads_to_is_touched() {
    let folder = Folder::new();
    let elsewhere = folder.path().join("elsewhere.db");
    write(&elsewhere, [keep_ending(1, 1)]);
    std::os::unix::fs::symlink(&elsewhere, folder.ledger()).unwrap();
    let before = std::fs::read(&elsewhere).unwrap();
    let Opened { ledger, trouble, .. } =
        Ledger::open(settings(&folder.ledger()), Heard::default().listener());
    let Some(Trouble::Unavailable { reason, .. }) = &trouble else { panic!("{trouble:?}") };
    assert!(reason.contains("a link"), "{reason}");
    assert_eq!(std::fs::read(&elsewhere).unwrap(), before);
    ledger.keep(keep_ending(2, 2));
    std::fs::rename(&elsewhere, folder.ledger()).unwrap();
    ledger.flush(PATIENCE).unwrap();
    assert_eq!(runs(&history(&ledger, &everything())), [2, 1]);
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
