//! The file was taken away while it was open: made good from what is still open and what memory holds.
//!
//! | at the path | what is done |
//! |---|---|
//! | nothing, or a link, or the file or its log cut, or no log | a fresh file from the open one takes its place |
//! | another sound ledger, as a backup | it is used; all of the open one is written into it, and what memory holds |
//! | another file, damaged or empty | it is moved away, and a fresh one from the open one takes its place |
//! | what is no plain file, or another program's | it is left alone; the open one is held, and tried again |
//!
//! Whatever fails on the way, the file that is open stays open.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, OpenFlags};
use whydown_core::time::Wall;

use crate::damage::{self, free_name, remove_if_there};
use crate::history::beside;
use crate::known::Known;
use crate::place::{Wrong, is_link, only_plain_files};
use crate::queue::Batch;
use crate::recovery::immutable_uri;
use crate::settings::Settings;
use crate::store::{self, Failure, Store};

/// A ledger that is in its place again.
pub(crate) struct Mended {
    pub store: Store,
    /// What happened, for people.
    pub told: String,
}

/// Makes it good. With a failure the file that was open comes back, unless all of it is in its place again.
pub(crate) fn mend(
    mut open: Store,
    settings: &Settings,
    known: &Known,
) -> Result<Mended, (Failure, Option<Box<Store>>)> {
    let (store, told) = match put_right(&mut open, settings, known) {
        Ok(done) => done,
        Err(failure) => return Err((failure, Some(Box::new(open)))),
    };
    let counted = open.counted();
    // It must be closed first: where SQLite takes it for empty, it takes the log at the path along.
    open.leave();
    let opened = match store {
        Some(store) => Ok(store),
        None => Store::open(&settings.path, false, &settings.uptime),
    };
    let counting = |mut store: Store| store.go_on_from(counted).map(|()| store);
    match opened.and_then(counting) {
        Ok(store) => Ok(Mended { store, told }),
        Err(failure) => Err((failure, None)),
    }
}

/// The store, if it is open already, and what happened.
fn put_right(
    open: &mut Store,
    settings: &Settings,
    known: &Known,
) -> Result<(Option<Store>, String), Failure> {
    let path = &settings.path;
    // A link is taken away, and what it leads to is left alone. The file's own is replaced in one step.
    for link in ["-wal", "-shm"].map(|suffix| beside(path, suffix)).iter().filter(|path| is_link(path)) {
        remove_if_there(link).map_err(|e| failed("removing a link", &e))?;
    }
    if is_link(path) {
        return rewrite(open, settings, known, &Wrong::Link.to_string()).map(|told| (None, told));
    }
    only_plain_files(path)?;
    let wrong = match open.place.look() {
        Err(wrong) => wrong,
        // It was moved away and back.
        Ok(()) => {
            return rewrite(open, settings, known, "it was moved while in use").map(|told| (None, told));
        }
    };
    if wrong == Wrong::Other {
        // The names of our log would be taken for the other's.
        open.place.leave_log();
        match Store::open(path, true, &settings.uptime) {
            Ok(mut store) => {
                take_over(&mut store, open, &beside(path, ".fresh"))?;
                put(&mut store, open, known)?;
                store.count()?;
                let told = format!("{wrong}: it is used, with all that could be had of the one before");
                return Ok((Some(store), told));
            }
            Err(Failure::Damaged(reason)) => {
                let moved_to = free_name(path, (settings.clock)());
                tracing::error!(moved_to = %moved_to.display(), reason, "what was put in the ledger's place is damaged");
                move_away(path, &moved_to)?;
            }
            Err(other) => return Err(other),
        }
    }
    rewrite(open, settings, known, &wrong.to_string()).map(|told| (None, told))
}

fn move_away(path: &Path, moved_to: &Path) -> Result<(), Failure> {
    for suffix in ["-wal", "-shm", ""] {
        match std::fs::rename(beside(path, suffix), beside(moved_to, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("moving away what was put in its place", &error));
            }
            _ => {}
        }
    }
    Ok(())
}

fn failed(doing: &str, error: &io::Error) -> Failure {
    Failure::Unavailable(format!("it is not in its place; {doing}: {error}"))
}

/// A fresh file with all that can still be read of the open one takes the place.
fn rewrite(open: &mut Store, settings: &Settings, known: &Known, why: &str) -> Result<String, Failure> {
    let path = &settings.path;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        let mut builder = std::fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(folder).map_err(|e| failed("making its folder", &e))?;
    }
    let fresh_path = beside(path, ".fresh");
    clear(&fresh_path)?;
    let had = open.endings;
    // SQLite takes a file of no length for an empty one: only the number of endings shows whether it is whole.
    let copied = open.db().execute("VACUUM INTO ?1", [fresh_path.to_string_lossy()]);
    let whole = copied.is_ok()
        && Store::open(&fresh_path, true, &settings.uptime).is_ok_and(|store| store.endings >= had);
    if !whole {
        clear(&fresh_path)?;
    }
    let mut fresh = Store::open(&fresh_path, false, &settings.uptime)?;
    if !whole {
        let now = (settings.clock)();
        damage::salvage(Some(open.db()), fresh.db(), 0, now)?;
        // Without its log the file itself is still whole, as it was some time ago.
        if let Some(base) = without_log(open) {
            damage::salvage(Some(&base), fresh.db(), 0, now)?;
        }
    }
    put(&mut fresh, open, known)?;
    fresh.count()?;
    let found = fresh.endings;
    fresh.close()?;
    store::sync_file_and_folder(&fresh_path).map_err(|e| failed("syncing the fresh file", &e))?;
    open.place.leave_log();
    // A log that is not ours may have been left there.
    for suffix in ["-wal", "-shm"] {
        remove_if_there(&beside(path, suffix)).map_err(|e| failed("removing a stray log", &e))?;
    }
    std::fs::rename(&fresh_path, path).map_err(|e| failed("putting the fresh file in its place", &e))?;
    store::sync_file_and_folder(path).map_err(|e| failed("syncing the folder", &e))?;
    Ok(match had.saturating_sub(found) {
        0 => format!("{why}: it was put back whole"),
        lost => {
            format!("{why}: it was written anew with {found} endings, and {lost} could not be read any more")
        }
    })
}

/// The file as it is without its log, if only that was cut.
fn without_log(open: &Store) -> Option<Connection> {
    if open.place.look() != Err(Wrong::LogCut) {
        return None;
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(immutable_uri(open.place.path()), flags).ok()
}

/// All that the open file has of any run is written into the other one, in place of what that has of it. If it cannot be
/// read, memory must do. `between` is a name that is free.
fn take_over(other: &mut Store, open: &mut Store, between: &Path) -> Result<(), Failure> {
    clear(between)?;
    let name = between.to_string_lossy().into_owned();
    if let Err(error) = open.db().execute("VACUUM INTO ?1", [&name]) {
        tracing::error!(%error, "the ledger that was replaced cannot be read any more");
        return clear(between);
    }
    let db = other.db();
    db.execute("ATTACH ?1 AS ours", [&name])?;
    let taken = db.execute_batch(
        "BEGIN IMMEDIATE;
         DELETE FROM main.run WHERE run IN (SELECT run FROM ours.run);
         INSERT INTO main.run SELECT * FROM ours.run;
         INSERT INTO main.evidence SELECT * FROM ours.evidence;
         INSERT INTO main.ending SELECT * FROM ours.ending;
         INSERT INTO main.earlier SELECT * FROM ours.earlier;
         INSERT INTO main.made SELECT * FROM ours.made;
         INSERT INTO main.meta SELECT * FROM ours.meta WHERE key IN ('alive', 'lost_until')
             ON CONFLICT DO UPDATE SET value = max(value, excluded.value);
         COMMIT",
    );
    if taken.is_err() && !db.is_autocommit() {
        db.execute_batch("ROLLBACK")?;
    }
    db.execute("DETACH ours", [])?;
    taken?;
    clear(between)
}

/// The end has come and the place is not free: what is open is saved under another name.
pub(crate) fn save_beside(open: &mut Store, path: &Path, now: Wall) -> Result<PathBuf, Failure> {
    let saved = beside(path, &format!(".saved-{}", now.as_millis()));
    open.db().execute("VACUUM INTO ?1", [saved.to_string_lossy()])?;
    store::sync_file_and_folder(&saved).map_err(|e| failed("saving it beside", &e))?;
    Ok(saved)
}

fn clear(path: &Path) -> Result<(), Failure> {
    for suffix in ["", "-wal", "-shm"] {
        remove_if_there(&beside(path, suffix)).map_err(|e| failed("clearing the way", &e))?;
    }
    Ok(())
}

/// Writes what memory holds, where it is not there already.
fn put(store: &mut Store, open: &Store, known: &Known) -> Result<(), Failure> {
    store.go_on_from(open.counted())?;
    put_known(store, known)?;
    close_others(store, known)
}

/// Nobody follows a run that memory does not know as one that goes on: it has ended since the file said so.
fn close_others(store: &mut Store, known: &Known) -> Result<(), Failure> {
    let follows: BTreeSet<i64> = known.open().map(|run| run.0.cast_signed()).collect();
    let db = store.db();
    let open: Vec<i64> = db
        .prepare("SELECT run FROM run WHERE state = 'open' AND at IS NOT NULL")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let lost: Vec<i64> = open.into_iter().filter(|run| !follows.contains(run)).collect();
    let transaction = db.transaction()?;
    for run in &lost {
        transaction.execute("UPDATE run SET state = 'lost' WHERE run = ?1", [run])?;
        transaction.execute("DELETE FROM evidence WHERE run = ?1", [run])?;
    }
    transaction.commit()?;
    store.note_length()?;
    if !lost.is_empty() {
        tracing::error!(runs = ?lost, "lost: how these runs ended is in no file any more");
    }
    Ok(())
}

/// The same, where the numbers are right.
pub(crate) fn put_known(store: &mut Store, known: &Known) -> Result<(), Failure> {
    let batch = Batch::of(known.ops().cloned().collect());
    store.write(&batch)
}
