//! A damaged file: read what can be read into a fresh one, then let the fresh one take its place.
//!
//! The fresh file is complete and synced before the damaged one is moved, and takes the path in one step: whatever
//! happens in between, the next start finds either the damaged file, or the fresh one with all that was saved.

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
    let salvaged = salvage(old.flatten().as_ref(), fresh.db(), floor)?;
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
pub(crate) fn salvage(
    old: Option<&Connection>,
    fresh: &mut Connection,
    floor: u64,
) -> Result<Salvaged, Failure> {
    // What hangs together is made sure of at the end, not row by row.
    fresh.pragma_update(None, "foreign_keys", false)?;
    let transaction = fresh.transaction()?;
    let mut last_run = false;
    if let Some(old) = old {
        // Without this SQLite reads nothing of a file that is shorter than its header says.
        let _ = old.pragma_update(None, "writable_schema", true);
        let copy = |table: &str, columns: &str, key: &str, sensible: &dyn Fn(&[Value]) -> bool| {
            copy_table(old, &transaction, table, columns, key, sensible)
        };
        copy("meta", "key, value", "key", &|row| matches!(row[1], Value::Integer(0..=i64::MAX)))?;
        copy("run", RUN_COLUMNS, "run", &|row| {
            sensible_run(&row[0]) && (row[1] == Value::Null || is_domain(&row[1]))
        })?;
        copy("ending", ENDING_COLUMNS, "run", &|row| sensible_run(&row[0]) && is_domain(&row[1]))?;
        copy("evidence", "run, position, first, last, times, fact", "run, position", &|row| {
            sensible_run(&row[0])
        })?;
        // From version 3 on; there is no such table in older files.
        copy("earlier", EARLIER_COLUMNS, "run, revision", &|row| {
            sensible_run(&row[0]) && matches!(row[1], Value::Integer(0..=REVISION_MAX))
        })?;
        last_run = true;
    }
    transaction.execute_batch(
        "INSERT OR IGNORE INTO run (run, domain) SELECT run, domain FROM ending;
         DELETE FROM evidence WHERE run NOT IN (SELECT run FROM run);
         DELETE FROM earlier WHERE run NOT IN (SELECT run FROM ending);
         UPDATE ending SET revision = (SELECT count(*) FROM earlier WHERE earlier.run = ending.run);
         UPDATE ending SET facts = (SELECT count(*) FROM evidence WHERE evidence.run = ending.run);
         DELETE FROM meta WHERE key NOT IN ('alive', 'last_run');",
    )?;
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
        open: count(
            "SELECT count(*) FROM run
             WHERE at IS NOT NULL AND NOT EXISTS (SELECT 1 FROM ending WHERE ending.run = run.run)",
        )?,
        endings: count("SELECT count(*) FROM ending")?,
        last_run,
    };
    transaction.commit()?;
    Ok(salvaged)
}

/// Only columns of schema version 1: they are there in every version. So ages are counted anew, `lived` with them.
const RUN_COLUMNS: &str = "run, domain, name, at, seen, libvirt_id, pid, start_ticks, boot";
const ENDING_COLUMNS: &str = "run, domain, name, started, ended_after, ended, cause, certainty, row, because, despite, \
    exit_code, exit_reason, message, acknowledged_at, acknowledged_by";

const EARLIER_COLUMNS: &str =
    "run, revision, until, cause, certainty, row, because, despite, exit_reason, message, facts, changed";

/// Revisions beyond this are damage.
const REVISION_MAX: i64 = u16::MAX as i64;

fn sensible_run(run: &Value) -> bool {
    matches!(run, Value::Integer(0..=RUN_MAX))
}

fn is_domain(domain: &Value) -> bool {
    matches!(domain, Value::Text(text) if text.parse::<DomainId>().is_ok())
}

/// Reads the table from its beginning up to the damage, then from its end back to the damage.
fn copy_table(
    old: &Connection,
    fresh: &Connection,
    table: &str,
    columns: &str,
    key: &str,
    sensible: &dyn Fn(&[Value]) -> bool,
) -> Result<(), Failure> {
    let width = columns.split(',').count();
    let places = vec!["?"; width].join(", ");
    let mut insert =
        fresh.prepare(&format!("INSERT OR IGNORE INTO {table} ({columns}) VALUES ({places})"))?;
    let backwards = key.split(", ").map(|column| format!("{column} DESC")).collect::<Vec<_>>().join(", ");
    for order in [key, &backwards] {
        // `NOT INDEXED` keeps to the table itself: an index is the more to be damaged.
        let Ok(mut select) =
            old.prepare(&format!("SELECT {columns} FROM {table} NOT INDEXED ORDER BY {order}"))
        else {
            return Ok(());
        };
        let Ok(mut rows) = select.query([]) else { return Ok(()) };
        let mut read = 0;
        let whole = loop {
            match rows.next() {
                Ok(Some(row)) if read < ROWS_MAX => {
                    read += 1;
                    let values: Result<Vec<Value>, _> = (0..width).map(|column| row.get(column)).collect();
                    if let Ok(values) = values
                        && sensible(&values)
                    {
                        insert_if_it_fits(&mut insert, &values)?;
                    }
                }
                Ok(Some(_)) | Err(_) => break false,
                Ok(None) => break true,
            }
        };
        if whole {
            break;
        }
        tracing::error!(table, rows = read, "the damaged ledger could be read only so far");
    }
    Ok(())
}

/// A row that the fresh tables refuse is damage too; anything else is trouble with the fresh file.
fn insert_if_it_fits(insert: &mut rusqlite::Statement<'_>, values: &[Value]) -> Result<(), Failure> {
    match insert.execute(params_from_iter(values)) {
        Ok(_) => Ok(()),
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
