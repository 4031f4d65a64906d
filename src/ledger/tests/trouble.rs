//! The file cannot be used: nothing is lost, everything is said, and it mends itself.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use common::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use whydown_core::evidence::Fact;
use whydown_core::id::RunId;
use whydown_core::record::Keep;
use whydown_ledger::{Condition, Ledger, LedgerError, Opened, Settings, Told, Trouble};

fn is_failing(ledger: &Ledger) -> bool {
    matches!(ledger.health().condition, Condition::Failing { .. })
}

#[test]
fn endings_wait_in_memory_until_the_folder_appears() {
    let folder = Folder::new();
    let path = folder.path().join("later/ledger.db");
    let heard = Heard::default();
    let Opened { ledger, recovered, trouble } = Ledger::open(settings(&path), heard.listener());
    assert!(matches!(trouble, Some(Trouble::Unavailable { .. })), "{trouble:?}");
    // Not even the last run number is known: numbers go on far above any that was given.
    assert_eq!(recovered.last_run, at(1_000_000).as_millis() as u64);

    for run in 1..=3 {
        ledger.keep(keep_ending(run, run as u8));
    }
    ledger.keep(acknowledge(2));
    heard.wait(|told| told.len() == 3);
    assert_eq!(heard.all(), (1..=3).map(|run| Told::NotKept(RunId(run))).collect::<Vec<_>>());
    eventually("it is said of all four that they wait", || {
        heard.counts().last() == Some(&Told::Unwritten(4))
    });
    assert!(matches!(
        ledger.flush(std::time::Duration::ZERO),
        Err(LedgerError::NotWritten { waiting: 4, .. })
    ));
    let health = ledger.health();
    assert!(
        matches!(&health.condition, Condition::Failing { since, .. } if *since == at(1_000_000)),
        "{health:?}"
    );
    assert_eq!((health.waiting, ledger.file_bytes()), (4, None));
    // Readers see what waits, and that it is not the whole truth.
    let seen = ledger.history(&everything());
    assert_eq!(runs(&seen.endings), [3, 2, 1]);
    assert_eq!(seen.endings[1].acknowledged, Some(by("engine")));
    assert!(matches!(seen.unread[..], [LedgerError::Unreadable { .. }]), "{:?}", seen.unread);
    assert_eq!(ledger.ending(RunId(1)), Ok(Some(ending(1, 1))));
    assert!(ledger.ending(RunId(9)).is_err());

    std::fs::create_dir(folder.path().join("later")).unwrap();
    ledger.flush(PATIENCE).unwrap();
    assert_eq!(heard.all()[3..], kept(1..=3));
    assert_eq!(heard.counts().last(), Some(&Told::Written(4)));
    assert_eq!(ledger.health().condition, Condition::Working);
    assert_eq!(runs(&history(&ledger, &everything())), [3, 2, 1]);
}

#[test]
fn a_failing_ledger_mends_without_being_asked() {
    let folder = Folder::new();
    let path = folder.path().join("later/ledger.db");
    let heard = Heard::default();
    let Opened { ledger, .. } = Ledger::open(settings(&path), heard.listener());
    std::fs::create_dir(folder.path().join("later")).unwrap();
    eventually("the ledger works with nothing to write", || !is_failing(&ledger));
    ledger.keep(keep_ending(1, 1));
    heard.wait(|told| told.contains(&Told::Kept(RunId(1))));
}

#[test]
fn a_ledger_that_can_never_be_written_still_closes() {
    let folder = Folder::new();
    let Opened { ledger, .. } = Ledger::open(settings(&folder.path().join("never/ledger.db")), |_| ());
    ledger.keep(keep_ending(1, 1));
    assert!(matches!(
        ledger.close(std::time::Duration::from_millis(300)),
        Err(LedgerError::NotWritten { waiting: 1, .. })
    ));
    eventually("what was lost is counted", || ledger.health().lost == 1);
}

#[test]
fn in_memory_evidence_goes_first_and_leaves_a_mark_and_the_rest_stays() {
    let folder = Folder::new();
    let path = folder.path().join("later/ledger.db");
    let heard = Heard::default();
    let bounded = Settings { memory_max_ops: 20, ..settings(&path) };
    let Opened { ledger, .. } = Ledger::open(bounded, heard.listener());
    ledger.keep(Keep::Start(start(1, 1)));
    ledger.keep(Keep::Start(start(2, 2)));
    for position in 0..100 {
        ledger.keep(Keep::Evidence(
            RunId(1),
            position,
            evidence(position.into(), Fact::LogText(format!("{position}"))),
        ));
        ledger.keep(Keep::Alive(at(position.into())));
    }
    assert!(ledger.health().waiting <= 20, "{:?}", ledger.health());
    for run in 11..=40 {
        ledger.keep(keep_ending(run, run as u8));
    }
    let health = ledger.health();
    // Two starts, thirty endings, one sign of life: more than the bound, but none of it may go.
    assert_eq!((health.waiting, health.evidence_dropped, health.lost), (33, 100, 0));

    std::fs::create_dir(folder.path().join("later")).unwrap();
    ledger.flush(PATIENCE).unwrap();
    ledger.close(PATIENCE).unwrap();
    let (_, recovered, _) = open(&path);
    assert_eq!(recovered.alive, Some(at(99)));
    assert_eq!(recovered.unacknowledged.len(), 30);
    let (run, evidence) = &recovered.open[0];
    assert_eq!(run.run, RunId(1));
    assert!(
        matches!(&evidence[..], [one] if matches!(&one.fact, Fact::Unreadable(text) if text.contains("could not be written"))),
        "{evidence:?}"
    );
    assert_eq!(recovered.open[1].1, [], "the other run lost nothing");
}

#[test]
fn beyond_the_hard_limit_what_is_lost_is_counted() {
    let folder = Folder::new();
    let path = folder.path().join("later/ledger.db");
    let bounded = Settings { memory_max_ops: 10, ..settings(&path) };
    let Opened { ledger, .. } = Ledger::open(bounded, |_| ());
    for run in 1..=50 {
        ledger.keep(keep_ending(run, 1));
    }
    let health = ledger.health();
    assert_eq!((health.waiting, health.lost), (40, 10));
    std::fs::create_dir(folder.path().join("later")).unwrap();
    ledger.flush(PATIENCE).unwrap();
    assert_eq!(history(&ledger, &everything()).len(), 40);
}

#[test]
fn a_newer_schema_is_refused_and_left_as_it_is() {
    let folder = Folder::new();
    write(&folder.ledger(), [keep_ending(1, 1)]);
    let db = rusqlite::Connection::open(folder.ledger()).unwrap();
    let version: i64 = db.query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
    db.pragma_update(None, "user_version", version + 1).unwrap();
    drop(db);
    let before = std::fs::read(folder.ledger()).unwrap();

    let heard = Heard::default();
    let Opened { ledger, trouble, .. } = Ledger::open(settings(&folder.ledger()), heard.listener());
    let expected = Trouble::Newer { path: folder.ledger(), found: version + 1, known: version };
    assert_eq!(trouble, Some(expected));
    ledger.keep(keep_ending(2, 2));
    heard.wait(|told| told == [Told::NotKept(RunId(2))]);
    assert!(ledger.close(std::time::Duration::from_millis(100)).is_err());
    drop(ledger);
    assert_eq!(std::fs::read(folder.ledger()).unwrap(), before);
    assert_eq!(folder.damaged(), Vec::<std::path::PathBuf>::new());
}

#[test]
fn a_database_of_another_program_is_left_as_it_is() {
    let folder = Folder::new();
    let db = rusqlite::Connection::open(folder.ledger()).unwrap();
    db.execute_batch("CREATE TABLE cake (recipe TEXT)").unwrap();
    drop(db);
    let before = std::fs::read(folder.ledger()).unwrap();
    let Opened { trouble, ledger, .. } = Ledger::open(settings(&folder.ledger()), |_| ());
    assert_eq!(trouble, Some(Trouble::Foreign { path: folder.ledger() }));
    drop(ledger);
    assert_eq!(std::fs::read(folder.ledger()).unwrap(), before);
}

#[test]
fn a_path_that_is_a_folder_is_trouble_and_not_damage() {
    let folder = Folder::new();
    std::fs::create_dir(folder.ledger()).unwrap();
    let Opened { trouble, .. } = Ledger::open(settings(&folder.ledger()), |_| ());
    assert!(matches!(trouble, Some(Trouble::Unavailable { .. })), "{trouble:?}");
    assert!(folder.ledger().is_dir());
}

#[test]
fn a_ledger_that_is_removed_while_in_use_is_put_back_whole() {
    let folder = Folder::new();
    let (ledger, _, heard) = open(&folder.ledger());
    ledger.keep(keep_ending(1, 1));
    heard.wait(|told| told.len() == 1);
    assert_eq!(runs(&history(&ledger, &everything())), [1]);
    for (run, suffixes) in [(2, &["", "-wal", "-shm"][..]), (3, &[""])] {
        for suffix in suffixes {
            std::fs::remove_file(folder.path().join(format!("ledger.db{suffix}"))).unwrap();
        }
        ledger.keep(keep_ending(run, run as u8));
        ledger.flush(PATIENCE).unwrap();
        assert_eq!(history(&ledger, &everything()).len() as u64, run);
    }
    ledger.close(PATIENCE).unwrap();
    let (_, recovered, _) = open(&folder.ledger());
    assert_eq!(recovered.unacknowledged, [ending(1, 1), ending(2, 2), ending(3, 3)]);
}

#[test]
fn a_backup_that_is_put_in_place_while_in_use_is_used() {
    let folder = Folder::new();
    let backup = folder.path().join("backup.db");
    write(&backup, [keep_ending(50, 5)]);
    let (ledger, ..) = open(&folder.ledger());
    ledger.keep(keep_ending(1, 1));
    ledger.flush(PATIENCE).unwrap();
    assert_eq!(runs(&history(&ledger, &everything())), [1]);
    std::fs::rename(&backup, folder.ledger()).unwrap();
    ledger.keep(keep_ending(60, 6));
    ledger.flush(PATIENCE).unwrap();
    // What was told to be on disk is so in the other file, too.
    assert_eq!(runs(&history(&ledger, &everything())), [60, 50, 1]);
    assert!(ledger.health().mended.unwrap().contains("it is used"));
    ledger.close(PATIENCE).unwrap();
    let (ledger, ..) = open(&folder.ledger());
    assert_eq!(runs(&history(&ledger, &everything())), [60, 50, 1]);
}

#[test]
fn another_program_may_hold_the_lock_for_a_while() {
    let folder = Folder::new();
    let (ledger, _, heard) = open(&folder.ledger());
    ledger.keep(keep_ending(1, 1));
    heard.wait(|told| told.len() == 1);
    let db = rusqlite::Connection::open(folder.ledger()).unwrap();
    db.execute_batch("BEGIN IMMEDIATE").unwrap();
    ledger.keep(keep_ending(2, 2));
    // Readers are not in the way of anybody.
    assert_eq!(runs(&history(&ledger, &everything())), [2, 1]);
    heard.wait(|told| told.contains(&Told::NotKept(RunId(2))));
    db.execute_batch("COMMIT").unwrap();
    heard.wait(|told| told.last() == Some(&Told::Kept(RunId(2))));
}

const CHILD: &str = "WHYDOWN_TEST_FULL_DISK";

/// Runs one test of this binary again with SIGXFSZ ignored, so that a file that may not grow is an error and no death:
/// for SQLite it is what a full disk is.
fn again_without_death_by_file_size(test: &str, path: &Path) {
    let child = Command::new("sh")
        .args(["-c", "trap '' XFSZ; exec \"$@\"", "sh"])
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, path)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stderr));
    assert!(String::from_utf8_lossy(&child.stderr).contains("the child came to its end"));
}

fn files_may_grow_to(bytes: Option<u64>) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Fsize);
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).unwrap();
}

#[test]
fn a_disk_that_fills_up_keeps_endings_waiting_until_there_is_room() {
    const TEST: &str = "a_disk_that_fills_up_keeps_endings_waiting_until_there_is_room";
    let Some(path) = std::env::var_os(CHILD) else {
        let folder = Folder::new();
        again_without_death_by_file_size(TEST, &folder.ledger());
        let (ledger, ..) = open(&folder.ledger());
        assert_eq!(history(&ledger, &everything()).len(), 400);
        return;
    };
    let (ledger, _, heard) = open(Path::new(&path));
    files_may_grow_to(Some(150_000));
    for run in 1..=400 {
        ledger.keep(keep_ending(run, 1));
        if run == 20 {
            ledger.flush(PATIENCE).unwrap();
        }
    }
    heard.wait(|told| told.iter().any(|told| matches!(told, Told::NotKept(_))));
    assert!(is_failing(&ledger), "{:?}", ledger.health());
    let seen = ledger.history(&everything());
    assert_eq!((seen.endings.len(), seen.unread), (400, vec![]), "disk and memory together hold everything");
    files_may_grow_to(None);
    ledger.flush(PATIENCE).unwrap();
    let told = heard.all();
    assert_eq!(told.iter().filter(|told| matches!(told, Told::Kept(_))).count(), 400);
    let once: std::collections::HashSet<_> = told.iter().map(|told| format!("{told:?}")).collect();
    assert_eq!(once.len(), told.len(), "nothing is told twice");
    ledger.close(PATIENCE).unwrap();
    eprintln!("the child came to its end");
}

#[test]
fn a_disk_that_is_full_at_the_start_still_gives_back_what_it_holds() {
    const TEST: &str = "a_disk_that_is_full_at_the_start_still_gives_back_what_it_holds";
    let Some(path) = std::env::var_os(CHILD) else {
        let folder = Folder::new();
        again_without_death_by_file_size(TEST, &folder.ledger());
        return;
    };
    let path = Path::new(&path);
    write(path, [keep_ending(1, 1), Keep::Start(start(2, 2))]);
    files_may_grow_to(Some(0));
    let heard = Heard::default();
    let Opened { ledger, recovered, trouble } = Ledger::open(settings(path), heard.listener());
    assert!(matches!(trouble, Some(Trouble::Unavailable { .. })), "{trouble:?}");
    assert_eq!(recovered.unacknowledged, [ending(1, 1)]);
    assert_eq!(recovered.open.len(), 1);
    // No number can be reserved: those that a daemon without a disk gave before are passed over.
    assert_eq!(recovered.last_run, at(1_000_000).as_millis() as u64);
    ledger.keep(keep_ending(3, 3));
    heard.wait(|told| told == [Told::NotKept(RunId(3))]);
    let seen = ledger.history(&everything());
    assert_eq!((runs(&seen.endings), seen.unread), (vec![3, 1], vec![]));
    files_may_grow_to(None);
    ledger.flush(PATIENCE).unwrap();
    assert_eq!(runs(&history(&ledger, &everything())), [3, 1]);
    eprintln!("the child came to its end");
}

#[test]
fn a_clock_may_be_anything() {
    let folder = Folder::new();
    let odd = Settings {
        clock: Arc::new(|| whydown_core::time::Wall(i64::MIN)),
        ..settings(&folder.path().join("no/l.db"))
    };
    let Opened { recovered, .. } = Ledger::open(odd, |_| ());
    assert_eq!(recovered.last_run, 0);
}

/// Takes from this thread, and those that it starts, what root may do in spite of the rights of files.
fn as_one_who_keeps_to_rights() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let mut all = capabilities(None).unwrap();
    for set in [&mut all.effective, &mut all.permitted] {
        set.remove(CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH | CapabilitySet::FOWNER);
    }
    set_capabilities(None, all).unwrap();
}

#[test]
fn wrong_rights_are_named_and_once_put_right_nothing_stays_behind() {
    use std::os::unix::fs::{PermissionsExt, chown};
    as_one_who_keeps_to_rights();
    let rights = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    // As SQLite makes them from a ledger of which the rights are wrong; of our own, and of another's.
    for (owner, suffixes) in
        [(None, &["-shm"][..]), (None, &["-shm", "-wal"]), (Some(65534), &["-shm", "-wal"])]
    {
        let folder = Folder::new();
        write(&folder.ledger(), [keep_ending(1, 1)]);
        rights(&folder.ledger(), 0o400);
        for suffix in suffixes {
            let side = folder.path().join(format!("ledger.db{suffix}"));
            std::fs::write(&side, "").unwrap();
            rights(&side, 0o400);
            chown(&side, owner, owner).unwrap();
        }
        let Opened { ledger, trouble, .. } = Ledger::open(settings(&folder.ledger()), |_| ());
        let told = trouble.expect("it cannot be written").to_string();
        assert!(told.contains("ledger.db may not be written (mode 0400, owner 0)"), "{told}");
        ledger.keep(keep_ending(2, 2));
        let Condition::Failing { error, .. } = ledger.health().condition else { panic!("it is written") };
        assert!(error.contains("ledger.db may not be written"), "{error}");
        rights(&folder.ledger(), 0o600);
        ledger.flush(PATIENCE).unwrap();
        assert_eq!(runs(&history(&ledger, &everything())), [2, 1]);
    }
}
