//! What the file knows when the daemon starts: runs that went on, endings that nobody acknowledged, the last run number.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};
use whydown_core::evidence::{Evidence, Fact};
use whydown_core::id::RunId;
use whydown_core::limits;
use whydown_core::record::{Ending, Recovered, RunStart, Seen};
use whydown_core::sample::Devices;
use whydown_core::time::Wall;

use crate::codec;
use crate::history;
use crate::place::only_plain_files;
use crate::schema::{self, Kind};
use crate::store::Failure;

/// Reads all of it.
pub(crate) fn recover(db: &Connection) -> Result<Recovered, Failure> {
    let number = |key: &str| {
        db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get::<_, i64>(0)).optional()
    };
    // The mark is raised with every commit that names a run; the tables are asked all the same.
    let highest: Option<i64> = db.query_row("SELECT max(run) FROM run", [], |row| row.get(0))?;
    let last_run = number("last_run")?.unwrap_or(0).max(highest.unwrap_or(0));
    Ok(Recovered {
        open: open_runs(db)?,
        unacknowledged: unacknowledged(db)?,
        uncertain: uncertain(db)?,
        last_run: last_run.cast_unsigned(),
        alive: number("alive")?.map(Wall),
        ages: ages(db, number("lived")?.unwrap_or(0))?,
        latest: latest(db)?,
        made: made(db)?,
    })
}

/// What cannot be read is read anew from libvirt, where the run goes on.
fn made(db: &Connection) -> Result<BTreeMap<RunId, Devices>, Failure> {
    let mut statement = db.prepare("SELECT run, devices FROM made")?;
    let mut rows = statement.query([])?;
    let mut made = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let (run, text): (i64, String) = (row.get(0)?, row.get(1)?);
        match codec::devices_from_text(&text) {
            Some(devices) => drop(made.insert(RunId(run.cast_unsigned()), devices)),
            None => tracing::warn!(run, "what it is made of makes no sense and is passed over"),
        }
    }
    Ok(made)
}

/// Reads a file that cannot be written: on a full disk, on a file system that is read-only. `None` if that fails too.
pub(crate) fn read_unwritable<T>(
    path: &Path,
    mut read: impl FnMut(&Connection) -> Result<T, Failure>,
) -> Option<T> {
    only_plain_files(path).ok()?;
    let read_write = OpenFlags::SQLITE_OPEN_READ_WRITE;
    let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY;
    // With the exclusive mode SQLite needs no shared-memory file, for which a full disk has no room. An immutable file
    // is read without any other file, which is right only while there is no log beside it.
    let log = std::fs::metadata(history::beside(path, "-wal")).map_or(0, |log| log.len());
    let ways: [(OpenFlags, bool, bool); 3] =
        [(read_write, true, false), (read_only, false, false), (read_only, false, log == 0)];
    ways.into_iter().find_map(|(flags, exclusive, immutable)| {
        let opened = if immutable {
            Connection::open_with_flags(immutable_uri(path), flags | OpenFlags::SQLITE_OPEN_URI)
        } else {
            Connection::open_with_flags(path, flags)
        };
        let db = opened.ok()?;
        if exclusive {
            db.pragma_update_and_check(None, "locking_mode", "EXCLUSIVE", |_| Ok(())).ok()?;
        }
        match schema::inspect(&db) {
            Ok(Kind::Ledger(schema::CURRENT)) => read(&db).ok(),
            _ => None,
        }
    })
}

pub(crate) fn immutable_uri(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let escaped: String = path
        .as_os_str()
        .as_bytes()
        .iter()
        .map(|&byte| match byte {
            b'/' | b'.' | b'-' | b'_' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect();
    format!("file:{escaped}?immutable=1")
}

/// Removes evidence of runs that never got a start or an ending: nobody is left who could end them.
pub(crate) fn sweep_fragments(db: &Connection) -> Result<(), Failure> {
    let gone = db.execute(
        "DELETE FROM run WHERE at IS NULL AND coalesce(state, 'open') = 'open'
             AND NOT EXISTS (SELECT 1 FROM ending WHERE ending.run = run.run)",
        [],
    )?;
    if gone > 0 {
        tracing::warn!(
            runs = gone,
            "removed evidence of runs whose start and ending never reached the ledger"
        );
    }
    Ok(())
}

fn open_runs(db: &Connection) -> Result<Vec<(RunStart, Vec<Evidence>)>, Failure> {
    let sql = format!(
        "SELECT {}, r.evidence_lost FROM run AS r
         WHERE r.at IS NOT NULL AND r.state = 'open' AND NOT EXISTS (SELECT 1 FROM ending WHERE ending.run = r.run)
         ORDER BY r.run",
        codec::START_COLUMNS
    );
    let mut statement = db.prepare(&sql)?;
    let mut rows = statement.query([])?;
    let mut open = Vec::new();
    while let Some(row) = rows.next()? {
        let number: i64 = row.get(0)?;
        match codec::start_from_row(row)? {
            Some(start) => {
                let evidence = whole_dossier(db, &start, codec::count(row, 9, u32::MAX)?)?;
                open.push((start, evidence));
            }
            None => tracing::error!(run = number, "the start of a run makes no sense and is passed over"),
        }
    }
    Ok(open)
}

/// The evidence of an open run, each piece at its position: new facts will be counted on from the last. Where a fact
/// never reached the disk its place is held by a remark.
fn whole_dossier(db: &Connection, start: &RunStart, lost: u32) -> Result<Vec<Evidence>, Failure> {
    let mut whole: Vec<Evidence> = Vec::new();
    let mut holes = 0u32;
    let remark = |about: Option<&Evidence>| {
        let at = about.map_or(start.at, |evidence| evidence.first);
        let said = "a fact was witnessed here and could not be written to the ledger".to_owned();
        Evidence { first: at, last: at, times: 1, fact: Fact::Unreadable(said) }
    };
    for (position, evidence) in history::evidence_of(db, start.run)? {
        while whole.len() < usize::from(position) {
            holes += 1;
            whole.push(remark(Some(&evidence)));
        }
        whole.push(evidence);
    }
    if lost > holes {
        whole.push(remark(whole.last()));
    }
    Ok(whole)
}

/// How much time whydown has lived through since each ending that nobody acknowledged was written.
fn ages(db: &Connection, lived: i64) -> Result<BTreeMap<RunId, Duration>, Failure> {
    let mut statement = db.prepare("SELECT run, lived FROM ending WHERE acknowledged_at IS NULL")?;
    let ages = statement.query_map([], |row| {
        let age = lived.saturating_sub(row.get(1)?);
        let age = Duration::from_millis(u64::try_from(age).unwrap_or(0));
        Ok((RunId(row.get::<_, i64>(0)?.cast_unsigned()), age))
    })?;
    Ok(ages.collect::<Result<_, _>>()?)
}

/// When the latest run of each domain was seen first, of those that are over; the newest ones.
fn latest(db: &Connection) -> Result<Vec<Seen>, Failure> {
    let mut statement = db.prepare(
        "SELECT max(r.run), r.domain, r.at, r.seen FROM run AS r
         WHERE r.at IS NOT NULL AND r.domain IS NOT NULL AND r.state <> 'open' GROUP BY r.domain ORDER BY 1 DESC LIMIT ?1",
    )?;
    let mut rows = statement.query([i64::try_from(limits::RUNS_REMEMBERED).unwrap_or(i64::MAX)])?;
    let mut latest = Vec::new();
    while let Some(row) = rows.next()? {
        let domain: String = row.get(1)?;
        // What makes no sense is said where its ending is read.
        if let Ok(domain) = domain.parse() {
            let run = RunId(row.get::<_, i64>(0)?.cast_unsigned());
            latest.push(Seen { run, domain, at: Wall(row.get(2)?), start: row.get(3)? });
        }
    }
    Ok(latest)
}

fn unacknowledged(db: &Connection) -> Result<Vec<Ending>, Failure> {
    let sql = format!(
        "SELECT {} FROM ending AS e WHERE e.acknowledged_at IS NULL
             AND NOT EXISTS {}
         ORDER BY e.run",
        codec::ENDING_COLUMNS,
        schema::later_run("e")
    );
    let mut unreadable = Vec::new();
    let endings = history::endings(db, &sql, [], &mut unreadable)?;
    for error in unreadable {
        tracing::error!(%error, "an ending that managers still wait for cannot be shown to them");
    }
    Ok(endings)
}

/// The newest endings, with their evidence. The newest comes first.
pub(crate) fn newest(db: &Connection, count: usize) -> Result<Vec<Ending>, Failure> {
    let sql = format!(
        "SELECT {} FROM ending AS e ORDER BY e.ended DESC, e.run DESC LIMIT {count}",
        codec::ENDING_COLUMNS
    );
    // Those that make no sense are said where they are asked for.
    history::endings(db, &sql, [], &mut Vec::new())
}

/// How these runs began, as far as that is there.
pub(crate) fn starts(db: &Connection, runs: BTreeSet<RunId>) -> Result<Vec<RunStart>, Failure> {
    let sql = format!("SELECT {} FROM run AS r WHERE r.run = ?1 AND r.at IS NOT NULL", codec::START_COLUMNS);
    let mut statement = db.prepare(&sql)?;
    let mut found = Vec::new();
    for run in runs {
        // What makes no sense is nobody's start.
        let start = statement.query_row([run.0.cast_signed()], codec::start_from_row).optional();
        found.extend(start.ok().flatten().flatten());
    }
    Ok(found)
}

/// The latest endings that late proof may be about, with how their runs began.
fn uncertain(db: &Connection) -> Result<Vec<(RunStart, Ending)>, Failure> {
    let sql = format!(
        "SELECT {} FROM ending AS e WHERE e.certainty <> 'certain' ORDER BY e.ended DESC, e.run DESC LIMIT {}",
        codec::ENDING_COLUMNS,
        limits::ENDED_RUNS
    );
    // Those that make no sense are said where managers wait for them.
    let endings = history::endings(db, &sql, [], &mut Vec::new())?;
    let mut statement =
        db.prepare(&format!("SELECT {} FROM run AS r WHERE r.run = ?1", codec::START_COLUMNS))?;
    let mut found = Vec::new();
    for ending in endings {
        let start = statement.query_row([ending.run.0.cast_signed()], codec::start_from_row).optional()?;
        found.extend(start.flatten().map(|start| (start, ending)));
    }
    found.sort_by_key(|(start, _)| start.run);
    Ok(found)
}
