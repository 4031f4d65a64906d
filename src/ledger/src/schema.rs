//! The tables, and how an older file becomes a current one. A released step is never changed: add another.
//!
//! `run` holds one row for every run that any record speaks of; its other columns are null where only the number is
//! known. `evidence` and `ending` hang on it, so that a run leaves as a whole.

use rusqlite::Connection;
use whydown_core::record::TOLD_LATER;

use crate::store::Failure;

/// `PRAGMA application_id`: the letters WDWN.
pub(crate) const APPLICATION_ID: i64 = 0x5744_574E;

/// Step `n` of this list makes version `n + 1` out of version `n`.
const STEPS: &[&str] = &[
    // 1: runs, evidence, endings.
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
     CREATE TABLE run (
         run INTEGER PRIMARY KEY,
         domain TEXT, name TEXT, at INTEGER, seen INTEGER,
         libvirt_id INTEGER, pid INTEGER, start_ticks INTEGER, boot TEXT
     ) STRICT;
     CREATE INDEX run_by_domain ON run (domain, run);
     CREATE TABLE evidence (
         run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
         position INTEGER NOT NULL,
         first INTEGER NOT NULL, last INTEGER NOT NULL, times INTEGER NOT NULL, fact TEXT NOT NULL,
         PRIMARY KEY (run, position)
     ) STRICT, WITHOUT ROWID;
     CREATE TABLE ending (
         run INTEGER PRIMARY KEY REFERENCES run ON DELETE CASCADE,
         domain TEXT NOT NULL, name TEXT NOT NULL,
         started INTEGER NOT NULL, ended_after INTEGER, ended INTEGER NOT NULL,
         cause TEXT NOT NULL, certainty TEXT NOT NULL, row TEXT NOT NULL,
         because TEXT NOT NULL, despite TEXT NOT NULL,
         exit_code INTEGER NOT NULL, exit_reason INTEGER NOT NULL, message TEXT NOT NULL,
         acknowledged_at INTEGER, acknowledged_by TEXT
     ) STRICT;
     CREATE INDEX ending_by_time ON ending (ended, run);
     CREATE INDEX ending_by_domain ON ending (domain, ended, run);",
    // 2: what is missing is said. `evidence_lost` counts facts of an open run that never reached the disk; `facts`
    // counts those of an ending that are there.
    "ALTER TABLE run ADD COLUMN evidence_lost INTEGER NOT NULL DEFAULT 0;
     ALTER TABLE ending ADD COLUMN facts INTEGER NOT NULL DEFAULT 0;
     UPDATE ending SET facts = (SELECT count(*) FROM evidence AS e WHERE e.run = ending.run);
     CREATE INDEX ending_with_facts ON ending (ended, run) WHERE facts > 0;",
    // 3: how old an ending is, counted in time that whydown lived through and not by a wall clock that may be wrong:
    // `lived` is milliseconds of that time. Endings of before count from this step on.
    "ALTER TABLE ending ADD COLUMN lived INTEGER NOT NULL DEFAULT 0;
     DROP INDEX ending_with_facts;
     CREATE INDEX ending_with_facts ON ending (lived, run) WHERE facts > 0;
     CREATE INDEX ending_by_age ON ending (lived, run);",
    // 4: whoever asks for a name that never was must not have all endings read for it.
    "CREATE INDEX ending_by_name ON ending (name, ended, run);",
    // 5: late proof corrects endings. `revision` counts the corrections of one; `earlier` has what was told before each,
    // with the pieces of evidence that have changed since as they were.
    "ALTER TABLE ending ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
     CREATE TABLE earlier (
         run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE,
         revision INTEGER NOT NULL,
         until INTEGER NOT NULL,
         cause TEXT NOT NULL, certainty TEXT NOT NULL, row TEXT NOT NULL,
         because TEXT NOT NULL, despite TEXT NOT NULL,
         exit_reason INTEGER NOT NULL, message TEXT NOT NULL,
         facts INTEGER NOT NULL, changed TEXT NOT NULL,
         PRIMARY KEY (run, revision)
     ) STRICT, WITHOUT ROWID;",
    // 6: that a run is over stands with the run, too: `open`, `ended`, `acknowledged`, or `lost`, where a damaged file no
    // longer gave its ending. A run goes on only where it says so: damage can take the word away and not write it.
    "ALTER TABLE run ADD COLUMN state TEXT;
     UPDATE run SET state = coalesce(
         (SELECT iif(acknowledged_at IS NULL, 'ended', 'acknowledged') FROM ending WHERE ending.run = run.run), 'open');",
    // 7: what a run is made of, as managers ask for it also when it is over and whoever saw it has begun anew: JSON, until
    // its ending is acknowledged.
    "CREATE TABLE made (
         run INTEGER PRIMARY KEY REFERENCES run ON DELETE CASCADE,
         devices TEXT NOT NULL
     ) STRICT, WITHOUT ROWID;",
];

/// Whether a run came after the one that `row` is about, as a subquery. What was told later has a higher number, and came before.
pub(crate) fn later_run(row: &str) -> String {
    format!(
        "(SELECT 1 FROM run AS later WHERE later.domain = {row}.domain AND later.run > {row}.run
             AND NOT EXISTS (SELECT 1 FROM ending AS told
                 WHERE told.run = later.run AND told.acknowledged_by = '{TOLD_LATER}'))"
    )
}

/// The version that this program writes.
pub(crate) const CURRENT: i64 = STEPS.len() as i64;

/// What a file is, before anything is changed in it.
pub(crate) enum Kind {
    /// No table yet.
    Empty,
    /// A ledger of this version.
    Ledger(i64),
}

/// Looks at the file without changing it.
pub(crate) fn inspect(db: &Connection) -> Result<Kind, Failure> {
    let number = |sql: &str| db.query_row(sql, [], |row| row.get::<_, i64>(0));
    let version = number("PRAGMA user_version")?;
    let application = number("PRAGMA application_id")?;
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    match (application, version, tables) {
        (0, 0, 0) => Ok(Kind::Empty),
        (APPLICATION_ID, 1.., _) if version > CURRENT => Err(Failure::Newer { found: version }),
        (APPLICATION_ID, 1.., _) => Ok(Kind::Ledger(version)),
        _ => Err(Failure::Foreign),
    }
}

/// Brings the file to [`CURRENT`], all steps in one transaction.
pub(crate) fn migrate(db: &mut Connection, from: Kind) -> Result<(), Failure> {
    let version = match from {
        Kind::Empty => 0,
        Kind::Ledger(version) => version,
    };
    if version == CURRENT {
        return Ok(());
    }
    let transaction = db.transaction()?;
    for step in &STEPS[usize::try_from(version).expect("versions below CURRENT are small")..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", CURRENT)?;
    transaction.commit()?;
    if version > 0 {
        tracing::info!(from = version, to = CURRENT, "ledger brought to a newer schema");
    }
    Ok(())
}

/// Says what is missing in a file that claims to be current: every column that this program uses.
pub(crate) fn verify(db: &Connection) -> Result<(), Failure> {
    const USED: &[&str] = &[
        "SELECT key, value FROM meta",
        "SELECT run, domain, name, at, seen, libvirt_id, pid, start_ticks, boot, evidence_lost, state FROM run",
        "SELECT run, position, first, last, times, fact FROM evidence",
        "SELECT run, domain, name, started, ended_after, ended, cause, certainty, row, because, despite, exit_code,
             exit_reason, message, acknowledged_at, acknowledged_by, facts, lived, revision FROM ending",
        "SELECT run, revision, until, cause, certainty, row, because, despite, exit_reason, message, facts, changed
             FROM earlier",
        "SELECT run, devices FROM made",
    ];
    for sql in USED {
        db.prepare(sql).map_err(|error| match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::Unknown) => {
                Failure::Damaged(format!("a table is missing or changed: {error}"))
            }
            _ => Failure::from(error),
        })?;
    }
    Ok(())
}
