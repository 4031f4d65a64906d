//! The file: opened with care, written in whole transactions.
//!
//! A transaction that was reported as committed is on disk: write-ahead log, `synchronous = FULL`. After any failure
//! the connection is thrown away and the log is brought into the file (and the file synced) before anything else is
//! trusted: a failed `fsync` leaves pages in the cache that look written and are not.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior};
use whydown_core::limits;
use whydown_core::time::Wall;

use crate::place::{Place, Wrong, forbidden, heal_log, only_plain_files};
use crate::queue::Batch;
use crate::rows::{self, Grown};
use crate::schema::{self, Kind};
use crate::settings::Uptime;

/// How long SQLite waits for another program's lock (a backup, an administrator's shell).
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// Bytes to which the write-ahead log is cut after it was brought into the file.
const LOG_BYTES: i64 = 16 * 1024 * 1024;

/// Why the file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Unavailable(String),
    #[error("its schema version {found} is newer than this program's {}", schema::CURRENT)]
    Newer { found: i64 },
    #[error("it is another program's database")]
    Foreign,
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// The open file is not what is at the path any more.
    #[error("{0}")]
    Misplaced(#[from] Wrong),
    /// A read was told to end.
    #[error("the read was broken off")]
    BrokenOff,
    /// SQLite refuses this one operation for what it is: only a bug of ours can do that.
    #[error("operation {index} was refused: {reason}")]
    Refused { index: usize, reason: String },
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error() {
            Some(code) if matches!(code.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Damaged(error.to_string())
            }
            Some(code) if code.code == ErrorCode::OperationInterrupted => Self::BrokenOff,
            Some(code) => Self::Unavailable(format!("{error} (SQLite error {})", code.extended_code)),
            None => Self::Unavailable(error.to_string()),
        }
    }
}

/// The open file with its one writing connection.
pub(crate) struct Store {
    db: Connection,
    /// The file that was opened may no longer be the one at its path.
    pub place: Place,
    /// Endings in the file.
    pub endings: u64,
    /// Facts of ended runs in the file.
    pub facts: u64,
    /// The mark for run numbers in the file: none below it is given by a later daemon.
    reserved: i64,
    /// The highest run number that was given, where it is known.
    given: Option<i64>,
    /// Milliseconds that were lived through before the file was opened.
    lived_before: i64,
    opened_at: Duration,
    uptime: Uptime,
}

/// Run numbers, and time lived through.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    given: Option<i64>,
    reserved: i64,
    lived: i64,
}

impl Store {
    /// Opens or creates the file and brings it to the current schema. `thorough` reads all of it for damage.
    pub(crate) fn open(path: &Path, thorough: bool, uptime: &Uptime) -> Result<Self, Failure> {
        only_plain_files(path)?;
        heal_log(path);
        Self::open_as_it_is(path, thorough, uptime).map_err(|failure| match (failure, forbidden(path)) {
            // SQLite does not say which of its files it is.
            (Failure::Unavailable(reason), Some(forbidden)) => {
                Failure::Unavailable(format!("{forbidden}: {reason}"))
            }
            (failure, _) => failure,
        })
    }

    fn open_as_it_is(path: &Path, thorough: bool, uptime: &Uptime) -> Result<Self, Failure> {
        if std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == 0) {
            return Err(Failure::Damaged("the file is empty".into()));
        }
        let mut db = connect(path)?;
        let kind = schema::inspect(&db)?;
        if matches!(kind, Kind::Empty) {
            db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        if thorough && !matches!(kind, Kind::Empty) {
            check(&db)?;
        }
        let was: String = db.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        let mode: String = db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
        if mode == "wal" && was != "wal" && !matches!(kind, Kind::Empty) {
            // The connection that changed the mode of a file with something in it cannot bring the log into it.
            db.close().map_err(|(_, error)| error)?;
            db = connect(path)?;
        }
        if mode != "wal" {
            return Err(Failure::Unavailable(format!("its journal stays in mode `{mode}` instead of `wal`")));
        }
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "foreign_keys", true)?;
        db.pragma_update(None, "cell_size_check", true)?;
        db.pragma_update(None, "trusted_schema", false)?;
        db.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES, |_| Ok(()))?;
        schema::migrate(&mut db, kind)?;
        schema::verify(&db)?;
        settle_log(&db)?;
        // A file that opens may still be one that cannot be written: a full disk shows only now.
        db.execute("INSERT INTO meta VALUES ('opened', 1) ON CONFLICT DO UPDATE SET value = value + 1", [])?;
        let (endings, facts) = count(&db)?;
        let place =
            Place::of(path).ok_or_else(|| Failure::Unavailable("it vanished while it was opened".into()))?;
        let number = |key: &str| {
            db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get::<_, i64>(0))
                .optional()
        };
        let (reserved, lived_before) = (number("last_run")?.unwrap_or(0), number("lived")?.unwrap_or(0));
        Ok(Self {
            place,
            endings,
            facts,
            reserved,
            given: None,
            lived_before,
            opened_at: uptime(),
            uptime: Arc::clone(uptime),
            db,
        })
    }

    /// Time that whydown has lived through, in milliseconds. It goes on from one start to the next where the file last
    /// heard that we live.
    pub(crate) fn lived(&self) -> i64 {
        let since = (self.uptime)().saturating_sub(self.opened_at);
        self.lived_before.saturating_add(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// A daemon begins, and gives numbers above `last`: the next ones are taken before any of them is given.
    pub(crate) fn reserve_runs(&mut self, last: u64) -> Result<(), Failure> {
        let last = last.cast_signed();
        self.given = Some(last);
        self.reserved = last.saturating_add(limits::RUNS_RESERVED.cast_signed());
        Ok(rows::raise_last_run(&self.db, self.reserved)?)
    }

    /// The daemon ends in order, all that it gave a number is on disk, and the numbers go on where they stand.
    pub(crate) fn give_back_runs(&mut self) -> Result<(), Failure> {
        match self.given {
            Some(given) => Ok(rows::give_back_runs(&self.db, given)?),
            None => Ok(()),
        }
    }

    /// Writes the whole batch in one commit, or nothing of it.
    pub(crate) fn write(&mut self, batch: &Batch) -> Result<(), Failure> {
        // What is written to a file that was taken away reaches nobody; and a file that was cut is longer afterwards.
        self.look()?;
        let lived = self.lived();
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut grown = Grown::default();
        let mut reserved = self.reserved;
        for (index, op) in batch.ops.iter().enumerate() {
            rows::apply(&transaction, op, lived, &mut grown).map_err(|error| {
                match error.sqlite_error_code() {
                    Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) => {
                        Failure::Refused { index, reason: error.to_string() }
                    }
                    _ => Failure::from(error),
                }
            })?;
        }
        for (run, count) in &batch.lost {
            rows::note_lost(&transaction, *run, *count)?;
        }
        // Half of what is reserved is always left: numbers are given while this is being written.
        if grown.last_run > reserved.saturating_sub(limits::RUNS_RESERVED.cast_signed() / 2) {
            reserved = grown.last_run.saturating_add(limits::RUNS_RESERVED.cast_signed());
            rows::raise_last_run(&transaction, reserved)?;
        }
        transaction.commit()?;
        self.note_length()?;
        self.place.look()?;
        self.reserved = reserved;
        self.given = self.given.map(|given| given.max(grown.last_run));
        self.endings += grown.endings;
        self.facts += grown.facts;
        Ok(())
    }

    /// Whether the file is where it should be, whole and with its log.
    pub(crate) fn look(&mut self) -> Result<(), Wrong> {
        match self.place.look() {
            Err(Wrong::LogCut) if self.place.log_is_empty() && self.needs_no_log() => {
                self.place.note_log();
                self.place.look()
            }
            looked => looked,
        }
    }

    /// Whether all that was committed is in the file itself, as where another program had SQLite bring the log into it and
    /// empty it. Only to be asked of an empty log: of one that was cut, a part would be brought in.
    fn needs_no_log(&self) -> bool {
        let brought_in = "PRAGMA wal_checkpoint(PASSIVE)";
        self.db
            .query_row(brought_in, [], |row| Ok(row.get::<_, i64>(1)? == row.get::<_, i64>(2)?))
            .unwrap_or(false)
    }

    /// Until when endings may have been lost with a damaged file.
    pub(crate) fn lost_until(&self) -> Result<Option<Wall>, Failure> {
        let mark = "SELECT value FROM meta WHERE key = 'lost_until'";
        Ok(self.db.query_row(mark, [], |row| row.get(0)).optional()?.map(Wall))
    }

    /// Runs of which no ending is there any more.
    pub(crate) fn lost_runs(&self) -> Result<u64, Failure> {
        let sql = "SELECT count(*) FROM run WHERE state = 'lost'";
        Ok(self.db.query_row(sql, [], |row| row.get::<_, i64>(0))?.cast_unsigned())
    }

    /// The connection, for retention, recovery and salvage.
    pub(crate) fn db(&mut self) -> &mut Connection {
        &mut self.db
    }

    /// Closes the file and brings its log into it.
    pub(crate) fn close(self) -> Result<(), Failure> {
        self.db.close().map_err(|(_, error)| Failure::from(error))
    }

    /// Closes a file that is not the one at its path any more.
    pub(crate) fn leave(self) {
        self.place.leave_log();
        if let Err(failure) = self.close() {
            tracing::warn!(%failure, "the replaced ledger could not be closed properly");
        }
    }

    /// What is counted on from one file to the next.
    pub(crate) fn counted(&self) -> Counted {
        Counted { given: self.given, reserved: self.reserved, lived: self.lived() }
    }

    /// Goes on counting from there.
    pub(crate) fn go_on_from(&mut self, counted: Counted) -> Result<(), Failure> {
        self.given = self.given.max(counted.given);
        self.reserved = self.reserved.max(counted.reserved);
        self.lived_before = self.lived_before.max(counted.lived);
        Ok(rows::raise_last_run(&self.db, self.reserved)?)
    }

    /// To be called when something was written, before anything else is.
    pub(crate) fn note_length(&mut self) -> Result<(), Failure> {
        let number = |pragma: &str| self.db.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).ok();
        let bytes = || Some(number("page_count")?.saturating_mul(number("page_size")?).cast_unsigned());
        Ok(self.place.note_length(bytes, LOG_BYTES.cast_unsigned())?)
    }

    /// Counts what is in the file.
    pub(crate) fn count(&mut self) -> Result<(), Failure> {
        (self.endings, self.facts) = count(&self.db)?;
        Ok(())
    }
}

fn connect(path: &Path) -> Result<Connection, Failure> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(BUSY_WAIT)?;
    db.set_prepared_statement_cache_capacity(32);
    Ok(db)
}

fn count(db: &Connection) -> Result<(u64, u64), Failure> {
    let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned);
    let endings = count("SELECT count(*) FROM ending")?;
    Ok((endings, count("SELECT coalesce(sum(facts), 0) FROM ending WHERE facts > 0")?))
}

/// Makes a new file and its name durable.
pub(crate) fn sync_file_and_folder(path: &Path) -> std::io::Result<()> {
    std::fs::File::open(path)?.sync_all()?;
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => std::fs::File::open(folder)?.sync_all(),
        _ => std::fs::File::open(".")?.sync_all(),
    }
}

fn check(db: &Connection) -> Result<(), Failure> {
    let mut complaints = Vec::new();
    let mut statement = db.prepare("PRAGMA quick_check(3)")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        complaints.push(row.get::<_, String>(0)?);
    }
    if complaints == ["ok"] { Ok(()) } else { Err(Failure::Damaged(complaints.join("; "))) }
}

/// Brings the log into the file and syncs it.
fn settle_log(db: &Connection) -> Result<(), Failure> {
    let busy: i64 = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    if busy == 0 { Ok(()) } else { Err(Failure::Unavailable("another program keeps it locked".into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_waits_for_the_disk() {
        let folder = tempfile::tempdir().unwrap();
        let mut store =
            Store::open(&folder.path().join("ledger.db"), true, &crate::Settings::default().uptime).unwrap();
        let mut set =
            |pragma: &str| store.db().pragma_query_value(None, pragma, |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(set("synchronous"), 2, "FULL: the log is synced with every commit");
        assert_eq!(set("foreign_keys"), 1);
        assert_eq!(set("auto_vacuum"), 2, "incremental");
        let mode: String = store.db().pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        assert_eq!(mode, "wal");
    }
}
