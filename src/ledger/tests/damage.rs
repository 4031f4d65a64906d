//! A damaged file is moved away, loudly, and what can be read lives on.

mod common;

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;
use std::path::Path;

use common::*;
use whydown_core::id::RunId;
use whydown_core::record::{Keep, Recovered};
use whydown_ledger::{Ledger, Opened, Salvaged, Trouble};

const MANY: u64 = 400;

fn fill(path: &Path) {
    let ended = (1..=MANY).flat_map(|run| [Keep::Start(start(run, run as u8)), keep_ending(run, run as u8)]);
    let open = [Keep::Start(start(MANY + 1, 3)), Keep::Evidence(RunId(MANY + 1), 0, facts(1)[0].clone())];
    write(path, ended.chain(open));
}

/// Opens a damaged ledger; the fresh one must work.
fn reopen(folder: &Folder) -> (Recovered, Salvaged) {
    let before = std::fs::read(folder.ledger()).unwrap();
    let heard = Heard::default();
    let Opened { ledger, recovered, trouble } = Ledger::open(settings(&folder.ledger()), heard.listener());
    let Some(Trouble::Damaged { moved_to, salvaged, .. }) = trouble else { panic!("{trouble:?}") };
    assert_eq!(folder.damaged(), std::slice::from_ref(&moved_to));
    assert_eq!(std::fs::read(&moved_to).unwrap(), before, "the damaged file is kept as it was");
    assert_eq!(ledger.health().damaged, Some(moved_to));
    assert_eq!(ledger.health().endings, salvaged.endings as u64);

    ledger.keep(keep_ending(recovered.last_run + 1, 9));
    heard.wait(|told| *told == kept([recovered.last_run + 1]));
    assert_eq!(history(&ledger, &everything()).len(), salvaged.endings + 1);
    ledger.close(PATIENCE).unwrap();
    // From now on there is no trouble.
    let (_, again, _) = open(&folder.ledger());
    assert_eq!(again.last_run, recovered.last_run + 1);
    (recovered, salvaged)
}

#[test]
fn a_file_that_is_no_database_is_replaced_and_run_numbers_do_not_go_back() {
    let folder = Folder::new();
    std::fs::write(
        folder.ledger(),
        "this is not a database, but it is long enough to look like one".repeat(100),
    )
    .unwrap();
    let (recovered, salvaged) = reopen(&folder);
    assert_eq!(salvaged, Salvaged::default());
    assert_eq!(recovered.last_run, at(1_000_000).as_millis() as u64);
    assert_eq!(recovered.unacknowledged, []);
}

#[test]
fn an_empty_file_is_damage_too() {
    let folder = Folder::new();
    std::fs::write(folder.ledger(), "").unwrap();
    let (recovered, _) = reopen(&folder);
    assert_eq!(recovered.last_run, at(1_000_000).as_millis() as u64);
}

#[test]
fn a_truncated_file_gives_what_is_left() {
    let folder = Folder::new();
    fill(&folder.ledger());
    let length = std::fs::metadata(folder.ledger()).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(folder.ledger()).unwrap().set_len(length * 2 / 3).unwrap();
    let (recovered, salvaged) = reopen(&folder);
    assert!(recovered.last_run > MANY);
    assert!(salvaged.endings > 0, "{salvaged:?}");
    for found in &recovered.unacknowledged {
        assert_eq!(found.message, ending(found.run.0, 0).message);
    }
}

#[test]
fn a_page_of_garbage_anywhere_loses_no_more_than_it_must() {
    let whole = Folder::new();
    fill(&whole.ledger());
    let bytes = std::fs::read(whole.ledger()).unwrap();
    let pages = bytes.len() / 4096;
    let (mut noticed, mut best) = (0, 0);
    for page in (1..pages).step_by(pages / 16) {
        let folder = Folder::new();
        let mut bytes = bytes.clone();
        bytes[page * 4096..(page + 1) * 4096].fill(0xA5);
        std::fs::write(folder.ledger(), &bytes).unwrap();
        let opened = Ledger::open(settings(&folder.ledger()), |_| ());
        // A page that was free holds nothing to lose.
        if let Some(trouble) = &opened.trouble {
            noticed += 1;
            let Trouble::Damaged { salvaged, .. } = trouble else { panic!("{trouble}") };
            assert!(opened.recovered.last_run > MANY, "page {page}: {trouble}");
            best = best.max(salvaged.endings);
        } else {
            assert_eq!(opened.ledger.health().endings, MANY, "page {page}");
        }
        for found in history(&opened.ledger, &everything()) {
            assert_eq!(found.message, ending(found.run.0, 0).message);
        }
    }
    assert!(noticed >= 8, "only {noticed} damaged pages were noticed");
    assert_eq!(best, MANY as usize, "damage outside the endings loses none of them");
}

#[test]
fn damage_that_shows_in_use_is_replaced_and_what_was_being_written_is_kept() {
    let folder = Folder::new();
    fill(&folder.ledger());
    let (ledger, _, heard) = open(&folder.ledger());
    // Everything but the header and the tables' list, under the feet of the running ledger.
    let file = std::fs::OpenOptions::new().write(true).open(folder.ledger()).unwrap();
    let length = file.metadata().unwrap().len();
    file.write_all_at(&vec![0xA5; length as usize - 4096], 4096).unwrap();
    drop(file);
    // Readers say what they cannot read; the writer then looks for itself.
    let seen = ledger.history(&everything());
    assert_eq!(seen.unread.len(), 1, "{:?}", seen.unread);
    ledger.keep(keep_ending(1000, 1));
    heard.wait(|told| told.last() == Some(&kept([1000])[0]));
    eventually("the damaged file is moved away", || ledger.health().damaged.is_some());
    assert_eq!(folder.damaged().len(), 1);
    ledger.flush(PATIENCE).unwrap();
    assert_eq!(ledger.ending(RunId(1000)), Ok(Some(ending(1000, 1))));
    ledger.close(PATIENCE).unwrap();
    let (_, recovered, _) = open(&folder.ledger());
    assert!(recovered.last_run >= 1000);
}

#[test]
fn a_missing_table_is_damage() {
    let folder = Folder::new();
    write(&folder.ledger(), [Keep::Start(start(1, 1)), keep_ending(1, 1)]);
    let db = rusqlite::Connection::open(folder.ledger()).unwrap();
    db.execute_batch("DROP TABLE evidence").unwrap();
    drop(db);
    let (recovered, salvaged) = reopen(&folder);
    assert_eq!(salvaged, Salvaged { open: 0, endings: 1, lost: 0, last_run: true });
    assert_eq!(recovered.last_run, 1);
    assert_eq!(recovered.unacknowledged[0].evidence, []);
}

#[test]
fn few_damaged_files_are_kept() {
    let folder = Folder::new();
    for _ in 0..8 {
        std::fs::write(folder.ledger(), "garbage").unwrap();
        let Opened { ledger, trouble, .. } = Ledger::open(settings(&folder.ledger()), |_| ());
        assert!(matches!(trouble, Some(Trouble::Damaged { .. })));
        ledger.close(PATIENCE).unwrap();
    }
    assert_eq!(folder.damaged().len(), 5);
}

/// Ended runs, of which most are acknowledged, and every sixth domain in a run that goes on: 180 runs of 60 domains.
fn fill_mixed(path: &Path) {
    let mut ops = Vec::new();
    for run in 1..=180u64 {
        let of = (run % 60) as u8;
        ops.push(Keep::Start(start(run, of)));
        if run > 120 && run % 6 == 0 {
            ops.extend(
                (0..).zip(facts(run)).map(|(position, fact)| Keep::Evidence(RunId(run), position, fact)),
            );
            continue;
        }
        ops.push(keep_ending(run, of));
        if run % 4 != 0 {
            ops.push(acknowledge(run));
        }
    }
    write(path, ops.into_iter().chain([Keep::Alive(at(900))]));
}

/// What a damaged copy gives may be less than what was there, and nothing else. How many runs went on, and how many were
/// lost.
fn is_no_more_than(
    before: &Recovered,
    endings: &[whydown_core::record::Ending],
    folder: &Folder,
    what: &str,
) -> [usize; 2] {
    let Opened { ledger, recovered, trouble } = Ledger::open(settings(&folder.ledger()), |_| ());
    let salvaged = match &trouble {
        None => Salvaged { open: recovered.open.len(), endings: endings.len(), lost: 0, last_run: true },
        Some(Trouble::Damaged { salvaged, .. }) => *salvaged,
        Some(other) => panic!("{what}: {other}"),
    };
    assert!(recovered.last_run >= before.last_run, "{what}: numbers would come twice");
    assert_eq!(salvaged.open, recovered.open.len(), "{what}");
    for open in &recovered.open {
        assert!(before.open.contains(open), "{what}: {} was not open, or had other evidence", open.0.run);
    }
    for down in &recovered.unacknowledged {
        // Where nothing at all is left of a later run, what was told before it is shown again.
        let was = endings.iter().find(|ending| ending.run == down.run).expect(what);
        assert_eq!(was.acknowledged, None, "{what}: {}", down.run);
    }
    for told in ledger.history(&everything()).endings {
        let was = endings.iter().find(|ending| ending.run == told.run).expect(what);
        assert_eq!(
            (&told.verdict, told.exit_code, &told.acknowledged),
            (&was.verdict, was.exit_code, &was.acknowledged)
        );
    }
    assert_eq!(ledger.health().unreadable, salvaged.lost as u64, "{what}");
    let all = salvaged.open + salvaged.endings + salvaged.lost;
    assert!(all <= 180, "{what}: {salvaged:?}");
    // Nothing of it becomes news at the next start either.
    ledger.close(PATIENCE).unwrap();
    let (_, again, _) = open(&folder.ledger());
    assert_eq!((&again.open, &again.unacknowledged), (&recovered.open, &recovered.unacknowledged), "{what}");
    [salvaged.open, salvaged.lost]
}

/// Walks a damage of some pages over the whole file.
fn walk(
    bytes: &[u8],
    pages: usize,
    step: usize,
    before: &Recovered,
    endings: &[whydown_core::record::Ending],
) {
    let mut seen = BTreeSet::new();
    for page in (1..bytes.len() / 4096).step_by(step) {
        for with in [0, 0xA5] {
            let folder = Folder::in_memory();
            let mut bytes = bytes.to_vec();
            let end = ((page + pages) * 4096).min(bytes.len());
            bytes[page * 4096..end].fill(with);
            std::fs::write(folder.ledger(), &bytes).unwrap();
            let [open, lost] = is_no_more_than(before, endings, &folder, &format!("page {page}, {with:#x}"));
            seen.insert((open == before.open.len(), lost > 0));
        }
    }
    assert!(seen.contains(&(true, true)), "some damage takes endings and leaves what goes on: {seen:?}");
}

#[test]
fn no_damage_makes_an_ended_run_go_on_again() {
    let whole = Folder::in_memory();
    fill_mixed(&whole.ledger());
    let (ledger, before, _) = open(&whole.ledger());
    let endings = history(&ledger, &everything());
    assert_eq!((before.open.len(), endings.len()), (10, 170));
    ledger.close(PATIENCE).unwrap();
    let bytes = std::fs::read(whole.ledger()).unwrap();
    walk(&bytes, 1, 1, &before, &endings);
    walk(&bytes, 7, 3, &before, &endings);
}

#[test]
fn nor_does_damage_of_a_ledger_in_which_runs_do_not_say_so() {
    let whole = Folder::in_memory();
    fill_mixed(&whole.ledger());
    let (ledger, before, _) = open(&whole.ledger());
    let endings = history(&ledger, &everything());
    ledger.close(PATIENCE).unwrap();
    let db = rusqlite::Connection::open(whole.ledger()).unwrap();
    db.execute_batch("ALTER TABLE run DROP COLUMN state; DROP TABLE made; PRAGMA user_version = 5; VACUUM")
        .unwrap();
    db.close().unwrap();
    let bytes = std::fs::read(whole.ledger()).unwrap();
    let folder = Folder::in_memory();
    std::fs::write(folder.ledger(), &bytes).unwrap();
    assert_eq!(is_no_more_than(&before, &endings, &folder, "not damaged"), [10, 0]);
    for page in 1..bytes.len() / 4096 {
        let folder = Folder::in_memory();
        let mut bytes = bytes.clone();
        bytes[page * 4096..(page + 1) * 4096].fill(0);
        std::fs::write(folder.ledger(), &bytes).unwrap();
        is_no_more_than(&before, &endings, &folder, &format!("page {page}"));
    }
}

#[test]
fn a_run_that_goes_on_through_damage_in_use_goes_on() {
    let folder = Folder::in_memory();
    fill_mixed(&folder.ledger());
    let (ledger, before, heard) = open(&folder.ledger());
    let file = std::fs::OpenOptions::new().write(true).open(folder.ledger()).unwrap();
    let length = file.metadata().unwrap().len();
    file.write_all_at(&vec![0; length as usize - 4096], 4096).unwrap();
    drop(file);
    assert_eq!(ledger.history(&everything()).unread.len(), 1);
    ledger.keep(keep_ending(1000, 200));
    heard.wait(|told| told.last() == Some(&kept([1000])[0]));
    eventually("the damaged file is moved away", || ledger.health().damaged.is_some());
    ledger.close(PATIENCE).unwrap();
    let (ledger, after, _) = open(&folder.ledger());
    assert_eq!(after.open, before.open, "memory held it");
    assert!(ledger.health().lost_until.is_some());
    // All were among the last few hundred.
    assert_eq!(history(&ledger, &everything()).len(), 171);
}
