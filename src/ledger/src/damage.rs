//! A damaged file: read what can be read into a fresh one, then let the fresh one take its place.
//!
//! The fresh file is complete and synced before the damaged one is moved, and takes the path in one step: whatever
//! happens in between, the next start finds either the damaged file, or the fresh one with all that was saved.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, params_from_iter};
use whydown_core::id::DomainId;
use whydown_core::time::Wall;

use crate::error::Salvaged;
use crate::history::beside;
use crate::place::only_plain_files;
use crate::rows;
use crate::schema;
use crate::settings::Uptime;
use crate::store::{self, Failure, Store};

/// Damaged files that are kept beside the ledger; older ones are removed. Each may be as large as the ledger.
const KEPT: usize = 5;

/// Rows that are read from one table. Retention keeps far fewer; a damaged tree may lead in circles.
const ROWS_MAX: u64 = 2_000_000;

/// Run numbers beyond this are damage, not numbers: even the milliseconds since 1970 stay below for 280,000 years.
const RUN_MAX: i64 = 1 << 53;

/// Replaces the damaged file. Where no last run number can be read, the fresh file begins with `floor`.
pub(crate) fn replace(
    path: &Path,
    now: Wall,
    floor: u64,
    uptime: &Uptime,
) -> Result<(PathBuf, Salvaged), Failure> {
    let fresh_path = beside(path, ".fresh");
    let failed =
        |doing: &str, error: io::Error| Failure::Unavailable(format!("it is damaged; {doing}: {error}"));
    for suffix in ["", "-wal", "-shm"] {
        remove_if_there(&beside(&fresh_path, suffix)).map_err(|e| failed("clearing the way", e))?;
    }
    let mut fresh = Store::open(&fresh_path, false, uptime)?;
    // What is no plain file holds nothing, and to read it may wait for ever.
    let old = only_plain_files(path).is_ok().then(|| {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        Connection::open_with_flags(path, flags).ok()
    });
    let salvaged = salvage(old.flatten().as_ref(), fresh.db(), floor, now)?;
    fresh.close()?;
    let permissions =
        std::fs::metadata(path).map_err(|e| failed("reading its permissions", e))?.permissions();
    std::fs::set_permissions(&fresh_path, permissions).map_err(|e| failed("setting permissions", e))?;
    store::sync_file_and_folder(&fresh_path).map_err(|e| failed("syncing the fresh file", e))?;

    let moved_to = free_name(path, now);
    for suffix in ["-wal", "-shm"] {
        match std::fs::rename(beside(path, suffix), beside(&moved_to, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("moving it away", error));
            }
            _ => {}
        }
    }
    if std::fs::hard_link(path, &moved_to).is_err() {
        std::fs::rename(path, &moved_to).map_err(|e| failed("moving it away", e))?;
    }
    std::fs::rename(&fresh_path, path).map_err(|e| failed("putting the fresh file in its place", e))?;
    store::sync_file_and_folder(path).map_err(|e| failed("syncing the folder", e))?;
    remove_oldest(path);
    Ok((moved_to, salvaged))
}

pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

pub(crate) fn free_name(path: &Path, now: Wall) -> PathBuf {
    (now.as_millis()..)
        .map(|millis| beside(path, &format!(".damaged-{millis}")))
        .find(|name| !name.exists())
        .expect("a folder does not hold a file for every millisecond")
}

/// Keeps the newest few damaged files. A failure here changes nothing for the ledger.
fn remove_oldest(path: &Path) {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str())) else {
        return;
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let prefix = format!("{name}.damaged-");
    let mut damaged: Vec<(u64, PathBuf)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let millis = entry.file_name().to_str()?.strip_prefix(&prefix)?.parse().ok()?;
            Some((millis, entry.path()))
        })
        .collect();
    damaged.sort();
    for (_, old) in damaged.iter().rev().skip(KEPT) {
        tracing::warn!(file = %old.display(), "removing an old damaged ledger");
        for suffix in ["", "-wal", "-shm"] {
            if let Err(error) = remove_if_there(&beside(old, suffix)) {
                tracing::warn!(file = %old.display(), %error, "it stays");
            }
        }
    }
}

/// Copies what can be read and makes sense. Only a failure of the fresh file is a failure.
///
/// What cannot be read of an ending is lost; its run is never taken for one that goes on. A run goes on only if its row
/// says so, all its evidence could be read, nothing else that could be read says that it is over, and no later run of its
/// domain is known. Every other run without an ending stays as `lost`: what is older in its domain is no news then.
pub(crate) fn salvage(
    old: Option<&Connection>,
    fresh: &mut Connection,
    floor: u64,
    now: Wall,
) -> Result<Salvaged, Failure> {
    // What hangs together is made sure of at the end, not row by row.
    fresh.pragma_update(None, "foreign_keys", false)?;
    let transaction = fresh.transaction()?;
    let mut last_run = false;
    let mut whole = false;
    let mut doubted = Copied::default();
    if let Some(old) = old {
        // Without this SQLite reads nothing of a file that is shorter than its header says.
        let _ = old.pragma_update(None, "writable_schema", true);
        let copy = |table: &str, columns: &str, key: &str, sensible: &dyn Fn(&[Value]) -> bool| {
            copy_table(old, &transaction, table, columns, key, sensible)
        };
        let meta = copy("meta", "key, value", "key", &|row| matches!(row[1], Value::Integer(0..=i64::MAX)))?;
        let is_run = |row: &[Value]| sensible_run(&row[0]) && (row[1] == Value::Null || is_domain(&row[1]));
        let current = format!("{RUN_COLUMNS}, {RUN_COLUMNS_LATER}");
        // Before version 6 a run does not say itself that it is over.
        let says_state = old.prepare(&format!("SELECT {current} FROM run")).is_ok();
        let runs = copy("run", if says_state { &current } else { RUN_COLUMNS }, "run", &is_run)?;
        let endings =
            copy("ending", ENDING_COLUMNS, "run", &|row| sensible_run(&row[0]) && is_domain(&row[1]))?;
        doubted = copy("evidence", "run, position, first, last, times, fact", "run, position", &|row| {
            sensible_run(&row[0])
        })?;
        // From version 5 on; there is no such table in older files.
        copy("earlier", EARLIER_COLUMNS, "run, revision", &|row| {
            sensible_run(&row[0]) && matches!(row[1], Value::Integer(0..=REVISION_MAX))
        })?;
        if !says_state && endings.is_whole() {
            transaction.execute("UPDATE run SET state = 'open' WHERE state IS NULL", [])?;
        }
        last_run = true;
        whole = [&meta, &runs, &endings, &doubted].iter().all(|copied| copied.is_whole());
        read_indexes(old, &transaction)?;
    }
    transaction.execute_batch(
        "UPDATE run SET state = NULL WHERE state NOT IN ('open', 'ended', 'acknowledged', 'lost');
         INSERT OR IGNORE INTO run (run, domain) SELECT run, domain FROM ending;
         UPDATE run SET state = 'ended'
             WHERE coalesce(state, '') <> 'acknowledged' AND run IN (SELECT run FROM ending);
         UPDATE run SET state = 'acknowledged'
             WHERE run IN (SELECT run FROM ending WHERE acknowledged_at IS NOT NULL);
         UPDATE ending SET acknowledged_at = ended, acknowledged_by = '(unknown)'
             WHERE acknowledged_at IS NULL AND run IN (SELECT run FROM run WHERE state = 'acknowledged');",
    )?;
    let lost = give_up(&transaction, &doubted)?;
    transaction.execute_batch(
        "DELETE FROM evidence WHERE run NOT IN (SELECT run FROM run WHERE state <> 'lost');
         DELETE FROM earlier WHERE run NOT IN (SELECT run FROM ending);
         UPDATE ending SET revision = (SELECT count(*) FROM earlier WHERE earlier.run = ending.run);
         UPDATE ending SET facts = (SELECT count(*) FROM evidence WHERE evidence.run = ending.run);
         DELETE FROM meta WHERE key NOT IN ('alive', 'last_run', 'lost_until');",
    )?;
    if !whole || !lost.is_empty() {
        note_until_when(&transaction, now)?;
    }
    let marked: i64 = transaction.query_row(
        "SELECT count(*) FROM meta WHERE key = 'last_run' AND value <= ?1",
        [RUN_MAX],
        |row| row.get(0),
    )?;
    last_run &= marked == 1;
    if !last_run {
        transaction.execute("DELETE FROM meta WHERE key = 'last_run'", [])?;
        rows::raise_last_run(&transaction, floor.cast_signed())?;
    }
    let count = |sql: &str| {
        transaction
            .query_row(sql, [], |row| row.get::<_, i64>(0))
            .map(|n| usize::try_from(n).unwrap_or(usize::MAX))
    };
    let salvaged = Salvaged {
        open: count("SELECT count(*) FROM run WHERE at IS NOT NULL AND state = 'open'")?,
        endings: count("SELECT count(*) FROM ending")?,
        lost: lost.len(),
        last_run,
    };
    transaction.commit()?;
    for runs in lost.chunks(RUNS_IN_A_LINE) {
        tracing::error!(?runs, "lost: how these runs ended, or what was known of them, could not be read");
    }
    Ok(salvaged)
}

/// Marks the runs without an ending that do not surely go on. Those that were not marked before.
fn give_up(fresh: &Connection, doubted: &Copied) -> Result<Vec<i64>, Failure> {
    // Of a run whose start never came there is only evidence: if it is all there is, it is swept at the next start.
    let mut select = fresh.prepare(&format!(
        "SELECT r.run, r.at IS NOT NULL, r.state = 'open' AND NOT EXISTS {}
         FROM run AS r
         WHERE coalesce(r.state, '') <> 'lost' AND r.run NOT IN (SELECT run FROM ending)",
        schema::later_run("r")
    ))?;
    let found = select.query_map([], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?, row.get::<_, Option<bool>>(2)? == Some(true)))
    })?;
    let found = found.collect::<Result<Vec<_>, _>>()?;
    let goes_on = |run: i64, begun: bool, says_so: bool| says_so && (!begun || !doubted.may_lack(run));
    let lost: Vec<i64> = found
        .into_iter()
        .filter_map(|(run, begun, says_so)| (!goes_on(run, begun, says_so)).then_some(run))
        .collect();
    let mut mark = fresh.prepare("UPDATE run SET state = 'lost' WHERE run = ?1")?;
    for run in &lost {
        mark.execute([run])?;
    }
    Ok(lost)
}

/// Until when something was told that is lost: as far as the file goes. What QEMU's logs and libvirt say of before is no
/// news, of every domain.
fn note_until_when(fresh: &Connection, now: Wall) -> Result<(), Failure> {
    fresh.execute(
        "INSERT INTO meta SELECT 'lost_until', coalesce(
             max((SELECT value FROM meta WHERE key = 'alive'), coalesce((SELECT max(ended) FROM ending), 0),
                 coalesce((SELECT max(at) FROM run), 0)), ?1)
         WHERE true ON CONFLICT DO UPDATE SET value = max(value, excluded.value)",
        [now.0],
    )?;
    fresh.execute("UPDATE meta SET value = min(value, ?1) WHERE key = 'lost_until'", [now.0])?;
    fresh.execute(
        "UPDATE run SET at = (SELECT value FROM meta WHERE key = 'lost_until'), seen = 0
         WHERE state = 'lost' AND at IS NULL",
        [],
    )?;
    Ok(())
}

/// Indexes stand elsewhere in the file than their tables: they know of runs and endings whose rows are damaged.
fn read_indexes(old: &Connection, fresh: &Connection) -> Result<(), Failure> {
    let over = "INSERT INTO run (run, domain, state) VALUES (?1, ?2, 'ended')
         ON CONFLICT DO UPDATE SET domain = coalesce(domain, excluded.domain),
             state = iif(state IN ('acknowledged', 'lost'), state, 'ended')";
    let there = "INSERT INTO run (run, domain) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET domain = coalesce(domain, excluded.domain)";
    let reads = [
        ("ended, run", "SELECT run, NULL FROM ending INDEXED BY ending_by_time", over),
        ("domain, ended, run", "SELECT run, domain FROM ending INDEXED BY ending_by_domain", over),
        ("domain, run", "SELECT run, domain FROM run INDEXED BY run_by_domain", there),
    ];
    for (key, select, insert) in reads {
        let mut insert = fresh.prepare(insert)?;
        for order in [key, &backwards(key)] {
            let Ok(mut select) = old.prepare(&format!("{select} ORDER BY {order}")) else { break };
            let Ok(mut rows) = select.query([]) else { break };
            let mut read = 0;
            let whole = loop {
                match rows.next() {
                    Ok(Some(row)) if read < ROWS_MAX => {
                        read += 1;
                        if let (Ok(run), Ok(domain)) = (row.get::<_, Value>(0), row.get::<_, Value>(1))
                            && sensible_run(&run)
                            && (domain == Value::Null || is_domain(&domain))
                        {
                            insert.execute([run, domain])?;
                        }
                    }
                    Ok(Some(_)) | Err(_) => break false,
                    Ok(None) => break true,
                }
            };
            if whole {
                break;
            }
        }
    }
    Ok(())
}

/// Run numbers in one line of the log.
const RUNS_IN_A_LINE: usize = 200;

/// Only columns of schema version 1: they are there in every version. So ages are counted anew, `lived` with them.
const RUN_COLUMNS: &str = "run, domain, name, at, seen, libvirt_id, pid, start_ticks, boot";
/// From version 6 on.
const RUN_COLUMNS_LATER: &str = "evidence_lost, state";
const ENDING_COLUMNS: &str = "run, domain, name, started, ended_after, ended, cause, certainty, row, because, despite, \
    exit_code, exit_reason, message, acknowledged_at, acknowledged_by";

const EARLIER_COLUMNS: &str =
    "run, revision, until, cause, certainty, row, because, despite, exit_reason, message, facts, changed";

/// Revisions beyond this are damage.
const REVISION_MAX: i64 = u16::MAX as i64;

/// What of a table whose key begins with the run's number could not be copied.
#[derive(Default)]
struct Copied {
    /// The damage lies between these runs; rows of both may lack.
    gap: Option<(i64, i64)>,
    /// Rows of these make no sense.
    odd: BTreeSet<i64>,
}

impl Copied {
    const NOTHING: Self = Self { gap: Some((i64::MIN, i64::MAX)), odd: BTreeSet::new() };

    fn is_whole(&self) -> bool {
        self.gap.is_none() && self.odd.is_empty()
    }

    fn may_lack(&self, run: i64) -> bool {
        self.odd.contains(&run) || self.gap.is_some_and(|(from, to)| (from..=to).contains(&run))
    }
}

fn backwards(key: &str) -> String {
    key.split(", ").map(|column| format!("{column} DESC")).collect::<Vec<_>>().join(", ")
}

fn sensible_run(run: &Value) -> bool {
    matches!(run, Value::Integer(0..=RUN_MAX))
}

fn is_domain(domain: &Value) -> bool {
    matches!(domain, Value::Text(text) if text.parse::<DomainId>().is_ok())
}

/// No text of ours holds a zero byte; a page of zeroes does.
fn is_clean(value: &Value) -> bool {
    !matches!(value, Value::Text(text) if text.contains('\0'))
}

/// Reads the table from its beginning up to the damage, then from its end back to the damage.
fn copy_table(
    old: &Connection,
    fresh: &Connection,
    table: &str,
    columns: &str,
    key: &str,
    sensible: &dyn Fn(&[Value]) -> bool,
) -> Result<Copied, Failure> {
    let width = columns.split(',').count();
    let places = vec!["?"; width].join(", ");
    let mut insert =
        fresh.prepare(&format!("INSERT OR IGNORE INTO {table} ({columns}) VALUES ({places})"))?;
    let mut copied = Copied::default();
    let mut at = [i64::MIN, i64::MAX];
    for (order, reached) in [key, &backwards(key)].into_iter().zip(0..) {
        // `NOT INDEXED` keeps to the table itself: an index is the more to be damaged.
        let Ok(mut select) =
            old.prepare(&format!("SELECT {columns} FROM {table} NOT INDEXED ORDER BY {order}"))
        else {
            return Ok(Copied::NOTHING);
        };
        let Ok(mut rows) = select.query([]) else { return Ok(Copied::NOTHING) };
        let mut read = 0;
        let whole = loop {
            match rows.next() {
                Ok(Some(row)) if read < ROWS_MAX => {
                    read += 1;
                    let values: Result<Vec<Value>, _> = (0..width).map(|column| row.get(column)).collect();
                    let fits = match &values {
                        Ok(values) if values.iter().all(is_clean) && sensible(values) => {
                            insert_if_it_fits(&mut insert, values)?
                        }
                        _ => false,
                    };
                    match row.get::<_, Value>(0) {
                        Ok(Value::Integer(run)) => {
                            at[reached] = run;
                            if !fits {
                                copied.odd.insert(run);
                            }
                        }
                        _ if !fits => copied = Copied::NOTHING,
                        _ => {}
                    }
                }
                Ok(Some(_)) | Err(_) => break false,
                Ok(None) => break true,
            }
        };
        if whole {
            return Ok(copied);
        }
        tracing::error!(table, rows = read, "the damaged ledger could be read only so far");
    }
    copied.gap = copied.gap.or(Some((at[0].min(at[1]), at[0].max(at[1]))));
    Ok(copied)
}

/// Whether it was put in. A row that the fresh tables refuse is damage too; anything else is trouble with the fresh file.
fn insert_if_it_fits(insert: &mut rusqlite::Statement<'_>, values: &[Value]) -> Result<bool, Failure> {
    match insert.execute(params_from_iter(values)) {
        Ok(rows) => Ok(rows == 1),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => {
            Ok(false)
        }
        Err(error) => Err(error.into()),
    }
}
