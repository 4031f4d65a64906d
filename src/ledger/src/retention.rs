//! What leaves the file by age or count, in small slices between commits.
//!
//! Ages are those of time lived through (`lived` of an ending, in milliseconds): no wall clock decides what is forgotten.
//! Evidence leaves first, then whole endings. An ending may leave only when it was acknowledged, or when a later run
//! of its domain took its place. Runs that go on are not touched.

use std::time::Duration;

use rusqlite::{Connection, TransactionBehavior, params};

use crate::schema;
use crate::settings::Retention;
use crate::store::{Failure, Store};

/// Endings that one slice touches: a few milliseconds of work, for which an ending may have to wait.
const SLICE_ENDINGS: u64 = 200;

/// Pages that one slice gives back to the file system.
const SLICE_PAGES: u32 = 256;

/// Whether an ending (alias `e`) may leave.
fn may_leave() -> String {
    format!("(e.acknowledged_at IS NOT NULL OR EXISTS {})", schema::later_run("e"))
}

/// Takes out one slice. True if there may be more to take out now.
pub(crate) fn slice(store: &mut Store, retention: &Retention) -> Result<bool, Failure> {
    let now = store.lived();
    let before = |age: Duration| now.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
    let facts = store.facts;
    let endings = store.endings;
    let transaction = store.db().transaction_with_behavior(TransactionBehavior::Immediate)?;
    let bare = take_evidence(
        &transaction,
        before(retention.evidence_max_age),
        facts.saturating_sub(retention.evidence_max_count),
    )?;
    let gone = take_endings(
        &transaction,
        before(retention.endings_max_age),
        endings.saturating_sub(retention.endings_max_count),
    )?;
    transaction.commit()?;
    store.facts = facts.saturating_sub(bare.facts + gone.facts);
    store.endings = endings.saturating_sub(gone.endings);
    let freed = shrink(store.db())?;
    if bare.endings + gone.endings > 0 {
        tracing::debug!(
            bared = bare.endings,
            removed = gone.endings,
            "retention took a slice out of the ledger"
        );
    }
    Ok(bare.endings >= SLICE_ENDINGS || gone.endings >= SLICE_ENDINGS || freed)
}

#[derive(Default)]
struct Taken {
    endings: u64,
    facts: u64,
}

/// Takes the evidence of the oldest endings: of those older than `before`, and of more until `surplus` facts are gone.
fn take_evidence(db: &Connection, before: i64, surplus: u64) -> Result<Taken, Failure> {
    let mut taken = Taken::default();
    for (run, lived, facts) in oldest(db, "e.facts > 0")? {
        if lived >= before && taken.facts >= surplus {
            break;
        }
        db.prepare_cached("DELETE FROM evidence WHERE run = ?1")?.execute([run])?;
        db.prepare_cached("UPDATE ending SET facts = 0 WHERE run = ?1")?.execute([run])?;
        db.prepare_cached("UPDATE earlier SET facts = 0, changed = '[]' WHERE run = ?1")?.execute([run])?;
        taken.endings += 1;
        taken.facts += facts;
    }
    Ok(taken)
}

fn take_endings(db: &Connection, before: i64, surplus: u64) -> Result<Taken, Failure> {
    let mut taken = Taken::default();
    for (run, lived, facts) in oldest(db, "true")? {
        if lived >= before && taken.endings >= surplus {
            break;
        }
        db.prepare_cached("DELETE FROM run WHERE run = ?1")?.execute([run])?;
        taken.endings += 1;
        taken.facts += facts;
    }
    Ok(taken)
}

/// The oldest endings that may leave: run, time lived through until then, number of facts.
fn oldest(db: &Connection, which: &str) -> Result<Vec<(i64, i64, u64)>, Failure> {
    let sql = format!(
        "SELECT e.run, e.lived, e.facts FROM ending AS e WHERE {which} AND {} ORDER BY e.lived, e.run LIMIT ?1",
        may_leave()
    );
    let mut statement = db.prepare_cached(&sql)?;
    let rows = statement.query_map(params![SLICE_ENDINGS as i64], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get::<_, i64>(2)?.cast_unsigned()))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Gives free pages back. True if more are left. A few free pages stay: the next commits want them.
fn shrink(db: &Connection) -> Result<bool, Failure> {
    let free = |db: &Connection| db.query_row("PRAGMA freelist_count", [], |row| row.get::<_, u32>(0));
    if free(db)? <= SLICE_PAGES {
        return Ok(false);
    }
    let mut statement = db.prepare(&format!("PRAGMA incremental_vacuum({SLICE_PAGES})"))?;
    let mut pages = statement.query([])?;
    while pages.next()?.is_some() {}
    drop(pages);
    drop(statement);
    Ok(free(db)? > SLICE_PAGES)
}
