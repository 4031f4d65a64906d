//! The daemon is killed, the power fails: what was told as kept is there, and nothing is there out of order.
//!
//! Each test runs its own binary again as a child that keeps endings without a pause and says on standard error which
//! ones are kept.

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::*;
use rustix::process::{Pid, Signal, kill_process};
use whydown_core::id::RunId;
use whydown_core::record::Keep;
use whydown_ledger::{Ledger, Opened, Told};

const CHILD: &str = "WHYDOWN_TEST_LEDGER";

/// The child's part: keeps endings until it is killed, never more than some hundred ahead of the disk.
fn keep_without_end(path: &Path) -> ! {
    let (confirm, confirmed) = std::sync::mpsc::channel();
    let Opened { ledger, recovered, trouble } = Ledger::open(settings(path), move |told| match told {
        Told::Kept(RunId(run)) => {
            eprintln!("kept {run}");
            confirm.send(()).unwrap();
        }
        Told::NotKept(run) => panic!("run {run} was not kept"),
        Told::Written(_) => {}
        Told::Unwritten(_) => panic!("it cannot be written"),
        Told::KeptRevision(run, number) => panic!("run {run} has no correction {number}"),
    });
    assert_eq!(trouble, None);
    for run in recovered.last_run + 1.. {
        ledger.keep(Keep::Start(start(run, (run % 7) as u8)));
        ledger.keep(keep_ending(run, (run % 7) as u8));
        if run > recovered.last_run + 300 {
            confirmed.recv().unwrap();
        }
    }
    unreachable!("run numbers do not end")
}

/// Runs this binary again for one test, if this is not that run already.
fn child(test: &str, path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(CHILD, path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn play_the_child() {
    if let Some(path) = std::env::var_os(CHILD) {
        keep_without_end(Path::new(&path));
    }
}

fn number(line: &str) -> u64 {
    line.strip_prefix("kept ").unwrap_or_else(|| panic!("the child said: {line}")).parse().unwrap()
}

/// What was found after a child's end.
struct Found {
    endings: usize,
    /// The next daemon's numbers begin behind this one.
    last_run: u64,
}

/// Every run of every child up to its last one is there, as an ending that is whole or, where the child was stopped between
/// the two, as a run that goes on; and among the endings are all that were told. Each child's numbers begin with one of
/// `begun`, which nothing before it can have given.
fn assert_nothing_lost(path: &Path, told: &[u64], begun: &[u64]) -> Found {
    let (ledger, recovered, _) = open(path);
    let found = history(&ledger, &everything());
    for found in &found {
        assert_eq!(*found, ending(found.run.0, (found.run.0 % 7) as u8));
    }
    let ended: BTreeSet<u64> = runs(&found).into_iter().collect();
    let lost: Vec<_> = told.iter().filter(|run| !ended.contains(run)).collect();
    assert!(lost.is_empty(), "told as kept and not there: {lost:?}");
    let open = recovered.open.iter().map(|(start, _)| start.run.0);
    let all: BTreeSet<u64> = ended.iter().copied().chain(open).collect();
    let highest = all.last().copied().unwrap_or(0);
    let gaps: Vec<_> = all.iter().filter(|run| !all.contains(&(**run - 1)) && !begun.contains(run)).collect();
    assert!(gaps.is_empty(), "runs are missing before {gaps:?}");
    assert!(highest <= recovered.last_run, "{highest} was given and may be given again");
    Found { endings: found.len(), last_run: recovered.last_run }
}

#[test]
fn every_ending_that_was_told_as_kept_survives_kill_9() {
    play_the_child();
    let folder = Folder::new();
    let (mut told, mut begun) = (Vec::new(), vec![1]);
    for round in 1..=6u64 {
        let mut child = child("every_ending_that_was_told_as_kept_survives_kill_9", &folder.ledger());
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        // Another moment of the work in each round: opening, the first commits, in the midst of bulk.
        for _ in 0..round * round * 5 {
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            told.push(number(line.trim_end()));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        // The last line may have been cut by the kill.
        let whole = rest.rsplit_once('\n').map_or("", |(whole, _)| whole);
        told.extend(whole.lines().map(number));
        let last_run = assert_nothing_lost(&folder.ledger(), &told, &begun).last_run;
        begun.push(last_run + 1);
    }
}

#[test]
fn a_copy_of_the_files_at_any_moment_holds_what_was_told_until_then() {
    play_the_child();
    let folder = Folder::new();
    let mut child =
        child("a_copy_of_the_files_at_any_moment_holds_what_was_told_until_then", &folder.ledger());
    let pid = Pid::from_child(&child);
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut told = Vec::new();
    for moment in 0..8u64 {
        for _ in 0..=moment * 7 {
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            told.push(number(line.trim_end()));
        }
        kill_process(pid, Signal::STOP).unwrap();
        let stopped = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::UNTRACED).unwrap();
        assert!(stopped.is_some_and(|(_, status)| status.stopped()));
        let copy = Folder::new();
        for suffix in ["", "-wal"] {
            let name = format!("ledger.db{suffix}");
            std::fs::copy(folder.path().join(&name), copy.path().join(&name)).unwrap();
        }
        kill_process(pid, Signal::CONT).unwrap();
        assert_nothing_lost(&copy.ledger(), &told, &[1]);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_log_that_ends_anywhere_gives_a_ledger_that_is_whole_up_to_there() {
    // What a power cut leaves of writes that were never synced: the log cut, or garbage, at any byte.
    let folder = Folder::new();
    let (ledger, _, heard) = open(&folder.ledger());
    for run in 1..=200 {
        ledger.keep(Keep::Start(start(run, (run % 7) as u8)));
        ledger.keep(keep_ending(run, (run % 7) as u8));
        if run % 20 == 0 {
            heard.wait(|told| told.len() as u64 == run);
        }
    }
    let database = std::fs::read(folder.ledger()).unwrap();
    let log = std::fs::read(folder.path().join("ledger.db-wal")).unwrap();
    assert!(log.len() > 100_000, "the log holds the writes");
    let mut seen = BTreeSet::new();
    for step in 0..16 {
        // An odd stride meets every place of a frame: header, page, the edge between two.
        let cut = (step * log.len() / 16 + step * 977) % log.len();
        for garbage in [false, true] {
            let copy = Folder::new();
            let mut torn = log[..cut].to_vec();
            if garbage {
                torn.resize(log.len(), 0xA5);
            }
            std::fs::write(copy.ledger(), &database).unwrap();
            std::fs::write(copy.path().join("ledger.db-wal"), &torn).unwrap();
            seen.insert(assert_nothing_lost(&copy.ledger(), &[], &[1]).endings);
        }
    }
    assert!(seen.len() > 5, "cuts at different places leave different numbers of endings: {seen:?}");
    drop(ledger);
}
