//! The file: opened with care, written in whole transactions.
//!
//! A transaction that was reported as committed is on disk: write-ahead log, `synchronous = FULL`. After any failure
//! the connection is thrown away and the log is brought into the file (and the file synced) before anything else is
//! trusted: a failed `fsync` leaves pages in the cache that look written and are not.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};
use whydown_core::evidence::{Evidence, EvidenceId};
use whydown_core::id::{DomainId, RunId};
use whydown_core::record::{Acknowledged, Ending, Keep, RunStart, When};

use crate::codec;
use crate::history::beside;
use crate::queue::Batch;
use crate::schema::{self, Kind};

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
    /// The open file is not the one at the path any more.
    #[error("{0}")]
    Replaced(&'static str),
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
            Some(code) => Self::Unavailable(format!("{error} (SQLite error {})", code.extended_code)),
            None => Self::Unavailable(error.to_string()),
        }
    }
}

/// The open file with its one writing connection.
pub(crate) struct Store {
    db: Connection,
    path: PathBuf,
    /// Device and inode: the file that was opened may no longer be the one at its path.
    identity: (u64, u64),
    /// The same of the log beside it.
    log_identity: Option<(u64, u64)>,
    /// Endings in the file.
    pub endings: u64,
    /// Facts of ended runs in the file.
    pub facts: u64,
}

impl Store {
    /// Opens or creates the file and brings it to the current schema. `thorough` reads all of it for damage.
    pub(crate) fn open(path: &Path, thorough: bool) -> Result<Self, Failure> {
        if std::fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() == 0) {
            return Err(Failure::Damaged("the file is empty".into()));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut db = Connection::open_with_flags(path, flags)?;
        db.busy_timeout(BUSY_WAIT)?;
        db.set_prepared_statement_cache_capacity(32);
        let kind = schema::inspect(&db)?;
        if matches!(kind, Kind::Empty) {
            db.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        if thorough && !matches!(kind, Kind::Empty) {
            check(&db)?;
        }
        let mode: String = db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
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
        let count = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0)).map(i64::cast_unsigned);
        let endings = count("SELECT count(*) FROM ending")?;
        let facts = count("SELECT coalesce(sum(facts), 0) FROM ending WHERE facts > 0")?;
        let identity = identity(path).ok_or_else(|| Failure::Unavailable("it vanished while it was opened".into()))?;
        let log_identity = self::identity(&beside(path, "-wal"));
        Ok(Self { db, path: path.to_owned(), identity, log_identity, endings, facts })
    }

    /// Writes the whole batch in one commit, or nothing of it.
    pub(crate) fn write(&mut self, batch: &Batch) -> Result<(), Failure> {
        self.same_file()?;
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut grown = Grown::default();
        for (index, op) in batch.ops.iter().enumerate() {
            apply(&transaction, op, &mut grown).map_err(|error| match error.sqlite_error_code() {
                Some(ErrorCode::ConstraintViolation | ErrorCode::TooBig | ErrorCode::TypeMismatch) => {
                    Failure::Refused { index, reason: error.to_string() }
                }
                _ => Failure::from(error),
            })?;
        }
        for (run, count) in &batch.lost {
            note_lost(&transaction, *run, *count)?;
        }
        if grown.last_run > 0 {
            raise_last_run(&transaction, grown.last_run)?;
        }
        transaction.commit()?;
        self.endings += grown.endings;
        self.facts += grown.facts;
        Ok(())
    }

    /// The connection, for retention, recovery and salvage.
    pub(crate) fn db(&mut self) -> &mut Connection {
        &mut self.db
    }

    /// Closes the file and brings its log into it.
    pub(crate) fn close(self) -> Result<(), Failure> {
        self.db.close().map_err(|(_, error)| Failure::from(error))
    }

    /// Closes a file that is not the one at its path any more. Its log must not stay there: SQLite would take it for the
    /// log of the file that came in its place, and leaves it lying when it sees that the file was moved.
    pub(crate) fn leave(self) {
        let (path, log_identity) = (self.path.clone(), self.log_identity);
        if let Err(failure) = self.close() {
            tracing::warn!(%failure, "the replaced ledger could not be closed properly");
        }
        let log = beside(&path, "-wal");
        if log_identity.is_some() && identity(&log) == log_identity {
            for stale in [log, beside(&path, "-shm")] {
                if let Err(error) = std::fs::remove_file(&stale) {
                    tracing::warn!(file = %stale.display(), %error, "the log of the replaced ledger stays");
                }
            }
        }
    }

    /// Notices when the file was removed or replaced under us: what is written then reaches nobody. A removed file is
    /// put back from the one that is still open.
    fn same_file(&mut self) -> Result<(), Failure> {
        match identity(&self.path) {
            Some(identity) if identity == self.identity => Ok(()),
            Some(_) => Err(Failure::Replaced("another file was put in its place")),
            None => {
                let target = self.path.to_string_lossy();
                self.db.execute("VACUUM INTO ?1", [&target])?;
                sync_file_and_folder(&self.path)
                    .map_err(|error| Failure::Unavailable(format!("it was removed and cannot be put back: {error}")))?;
                tracing::error!(path = %self.path.display(), "the ledger was removed while in use; put back whole");
                Err(Failure::Replaced("it was removed and has been put back"))
            }
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
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

#[derive(Default)]
struct Grown {
    endings: u64,
    facts: u64,
    last_run: i64,
}

fn apply(db: &Transaction<'_>, op: &Keep, grown: &mut Grown) -> rusqlite::Result<()> {
    match op {
        Keep::Start(start) => {
            grown.last_run = grown.last_run.max(start.run.0.cast_signed());
            keep_start(db, start)
        }
        Keep::Evidence(run, position, evidence) => keep_evidence(db, *run, *position, evidence),
        Keep::Ending(ending) => {
            grown.last_run = grown.last_run.max(ending.run.0.cast_signed());
            if keep_ending(db, ending)? {
                grown.endings += 1;
                grown.facts += ending.evidence.len() as u64;
            }
            Ok(())
        }
        Keep::Acknowledge(run, acknowledged) => keep_acknowledgement(db, *run, acknowledged),
        Keep::Alive(at) => keep_alive(db, at.0),
    }
}

/// The latest moment of hearing.
pub(crate) fn keep_alive(db: &Connection, at: i64) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT INTO meta VALUES ('alive', ?1) ON CONFLICT DO UPDATE SET value = excluded.value")?
        .execute([at])
        .map(drop)
}

/// Run numbers never go back, whatever leaves the file.
pub(crate) fn raise_last_run(db: &Connection, run: i64) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO meta VALUES ('last_run', ?1) ON CONFLICT DO UPDATE SET value = max(value, excluded.value)",
    )?
    .execute([run])
    .map(drop)
}

fn keep_start(db: &Transaction<'_>, start: &RunStart) -> rusqlite::Result<()> {
    let process = start.incarnation.process;
    db.prepare_cached(
        "INSERT INTO run (run, domain, name, at, seen, libvirt_id, pid, start_ticks, boot)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT DO UPDATE SET domain = excluded.domain, name = excluded.name, at = excluded.at,
             seen = excluded.seen, libvirt_id = excluded.libvirt_id, pid = excluded.pid,
             start_ticks = excluded.start_ticks, boot = excluded.boot
         WHERE run.at IS NULL",
    )?
    .execute(params![
        start.run.0.cast_signed(),
        start.domain.to_string(),
        start.name,
        start.at.0,
        start.seen,
        start.incarnation.libvirt_id,
        process.map(|p| p.pid),
        process.map(|p| p.start_ticks.cast_signed()),
        start.incarnation.boot.0,
    ])
    .map(drop)
}

/// Makes sure that the run has a row to hang on, and that the row knows the domain if we do.
fn know_run(db: &Connection, run: RunId, domain: Option<DomainId>) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO run (run, domain) VALUES (?1, ?2)
         ON CONFLICT DO UPDATE SET domain = excluded.domain WHERE run.domain IS NULL",
    )?
    .execute(params![run.0.cast_signed(), domain.map(|domain| domain.to_string())])
    .map(drop)
}

fn keep_evidence(db: &Transaction<'_>, run: RunId, position: EvidenceId, item: &Evidence) -> rusqlite::Result<()> {
    let ended = db.prepare_cached("SELECT 1 FROM ending WHERE run = ?1")?.exists([run.0.cast_signed()])?;
    if ended {
        tracing::warn!(%run, "evidence came after the run's ending was kept; the ending stays as it was told");
        return Ok(());
    }
    know_run(db, run, None)?;
    insert_evidence(db, run, position, item)
}

fn insert_evidence(db: &Connection, run: RunId, position: EvidenceId, item: &Evidence) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO evidence (run, position, first, last, times, fact) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET first = excluded.first, last = excluded.last, times = excluded.times,
             fact = excluded.fact",
    )?
    .execute(params![
        run.0.cast_signed(),
        position,
        item.first.0,
        item.last.0,
        item.times,
        codec::fact_to_text(&item.fact)
    ])
    .map(drop)
}

/// True if it was new. The ending brings its own frozen evidence, which takes the place of what came piece by piece.
fn keep_ending(db: &Transaction<'_>, ending: &Ending) -> rusqlite::Result<bool> {
    let number = ending.run.0.cast_signed();
    know_run(db, ending.run, Some(ending.domain))?;
    let (after, ended) = match ending.ended {
        When::At(at) => (None, at.0),
        When::Between(from, to) => (Some(from.0), to.0),
    };
    let verdict = &ending.verdict;
    let new = db
        .prepare_cached(
            "INSERT INTO ending (run, domain, name, started, ended_after, ended, cause, certainty, row, because,
                 despite, exit_code, exit_reason, message, acknowledged_at, acknowledged_by, facts)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)
             ON CONFLICT (run) DO NOTHING",
        )?
        .execute(params![
            number,
            ending.domain.to_string(),
            ending.name,
            ending.started.0,
            after,
            ended,
            verdict.cause.word(),
            verdict.certainty.word(),
            verdict.row,
            codec::positions_to_text(&verdict.because),
            codec::positions_to_text(&verdict.despite),
            ending.exit_code,
            ending.exit_reason,
            ending.message,
            ending.acknowledged.as_ref().map(|a| a.at.0),
            ending.acknowledged.as_ref().map(|a| &a.by),
            ending.evidence.len() as i64,
        ])?;
    if new == 0 {
        report_second(db, ending, number, ended)?;
        return Ok(false);
    }
    db.prepare_cached("DELETE FROM evidence WHERE run = ?1")?.execute([number])?;
    db.prepare_cached("UPDATE run SET evidence_lost = 0 WHERE run = ?1 AND evidence_lost > 0")?.execute([number])?;
    for (position, item) in (0..).zip(&ending.evidence) {
        insert_evidence(db, ending.run, position, item)?;
    }
    Ok(true)
}

/// A second ending of a run is no news if it says the same: a commit may have reached the disk and failed all the same.
fn report_second(db: &Transaction<'_>, ending: &Ending, number: i64, ended: i64) -> rusqlite::Result<()> {
    let first: Option<(String, i64)> = db
        .prepare_cached("SELECT cause, ended FROM ending WHERE run = ?1")?
        .query_row([number], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    if let Some((cause, at)) = first
        && (cause != ending.verdict.cause.word() || at != ended)
    {
        let refused = ending.verdict.cause.word();
        tracing::error!(run = %ending.run, kept = cause, refused, "a run ended twice; the first ending stays");
    }
    Ok(())
}

fn keep_acknowledgement(db: &Transaction<'_>, run: RunId, acknowledged: &Acknowledged) -> rusqlite::Result<()> {
    let changed = db
        .prepare_cached(
            "UPDATE ending SET acknowledged_at = ?2, acknowledged_by = ?3 WHERE run = ?1 AND acknowledged_at IS NULL",
        )?
        .execute(params![run.0.cast_signed(), acknowledged.at.0, acknowledged.by])?;
    if changed == 0 {
        tracing::debug!(%run, "an acknowledgement found nothing to acknowledge");
    }
    Ok(())
}

/// Says in the file that facts of a run never reached it. A run that has ended brought all its evidence with it.
fn note_lost(db: &Transaction<'_>, run: RunId, count: u32) -> rusqlite::Result<()> {
    let ended = db.prepare_cached("SELECT 1 FROM ending WHERE run = ?1")?.exists([run.0.cast_signed()])?;
    if ended {
        return Ok(());
    }
    know_run(db, run, None)?;
    db.prepare_cached("UPDATE run SET evidence_lost = evidence_lost + ?2 WHERE run = ?1")?
        .execute(params![run.0.cast_signed(), count])
        .map(drop)
}
