//! One operation of the engine, as rows. Writing an operation again changes nothing: a commit may reach the disk and
//! be reported as failed all the same.

use rusqlite::{Connection, OptionalExtension, Transaction, params};
use whydown_core::evidence::{Evidence, EvidenceId};
use whydown_core::id::{DomainId, RunId};
use whydown_core::record::{Acknowledged, Ending, Keep, RunStart, When};
use whydown_core::sample::Devices;

use crate::codec;

/// By how much the file grows, once the transaction is committed.
#[derive(Default)]
pub(crate) struct Grown {
    /// New endings.
    pub endings: u64,
    /// Their facts.
    pub facts: u64,
    /// The highest run number, or zero.
    pub last_run: i64,
}

/// Writes one operation. `lived` is the time that whydown has lived through, in milliseconds.
pub(crate) fn apply(db: &Transaction<'_>, op: &Keep, lived: i64, grown: &mut Grown) -> rusqlite::Result<()> {
    match op {
        Keep::Start(start) => {
            grown.last_run = grown.last_run.max(start.run.0.cast_signed());
            keep_start(db, start)
        }
        Keep::Evidence(run, position, evidence) => keep_evidence(db, *run, *position, evidence),
        Keep::Ending(ending) => {
            grown.last_run = grown.last_run.max(ending.run.0.cast_signed());
            if keep_ending(db, ending, lived)? {
                grown.endings += 1;
                grown.facts += ending.evidence.len() as u64;
            }
            Ok(())
        }
        Keep::Revised(ending) => {
            grown.facts += keep_revision(db, ending)?;
            Ok(())
        }
        Keep::Acknowledge(run, acknowledged) => keep_acknowledgement(db, *run, acknowledged),
        Keep::Made(run, devices) => keep_made(db, *run, devices),
        Keep::Alive(at) => keep_alive(db, at.0, lived),
    }
}

/// The latest moment of hearing, and the time lived through until then.
fn keep_alive(db: &Connection, at: i64, lived: i64) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO meta VALUES ('alive', ?1) ON CONFLICT DO UPDATE SET value = excluded.value",
    )?
    .execute([at])?;
    db.prepare_cached(
        "INSERT INTO meta VALUES ('lived', ?1) ON CONFLICT DO UPDATE SET value = max(value, excluded.value)",
    )?
    .execute([lived])
    .map(drop)
}

/// Run numbers never go back, whatever leaves the file. The mark stands beyond the numbers that were given, so that none
/// of them is given again by a daemon that finds no trace of them.
pub(crate) fn raise_last_run(db: &Connection, run: i64) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO meta VALUES ('last_run', ?1) ON CONFLICT DO UPDATE SET value = max(value, excluded.value)",
    )?
    .execute([run])
    .map(drop)
}

/// Gives numbers back that were reserved and not given.
pub(crate) fn give_back_runs(db: &Connection, last: i64) -> rusqlite::Result<()> {
    db.execute("UPDATE meta SET value = min(value, ?1) WHERE key = 'last_run'", [last]).map(drop)
}

/// A run's start comes again when it is learned what tells it apart: the last word counts.
fn keep_start(db: &Transaction<'_>, start: &RunStart) -> rusqlite::Result<()> {
    let process = start.incarnation.process;
    db.prepare_cached(
        "INSERT INTO run (run, domain, name, at, seen, libvirt_id, pid, start_ticks, boot, state)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, 'open')
         ON CONFLICT DO UPDATE SET domain = excluded.domain, name = excluded.name, at = excluded.at,
             seen = excluded.seen, libvirt_id = excluded.libvirt_id, pid = excluded.pid,
             start_ticks = excluded.start_ticks, boot = excluded.boot,
             state = iif(run.state IN ('ended', 'acknowledged'), run.state, 'open')",
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
        "INSERT INTO run (run, domain, state) VALUES (?1, ?2, 'open')
         ON CONFLICT DO UPDATE SET domain = excluded.domain WHERE run.domain IS NULL",
    )?
    .execute(params![run.0.cast_signed(), domain.map(|domain| domain.to_string())])
    .map(drop)
}

fn keep_evidence(
    db: &Transaction<'_>,
    run: RunId,
    position: EvidenceId,
    item: &Evidence,
) -> rusqlite::Result<()> {
    let ended = db.prepare_cached("SELECT 1 FROM ending WHERE run = ?1")?.exists([run.0.cast_signed()])?;
    if ended {
        tracing::warn!(%run, "evidence came after the run's ending was kept; the ending stays as it was told");
        return Ok(());
    }
    know_run(db, run, None)?;
    insert_evidence(db, run, position, item)
}

fn insert_evidence(
    db: &Connection,
    run: RunId,
    position: EvidenceId,
    item: &Evidence,
) -> rusqlite::Result<()> {
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
fn keep_ending(db: &Transaction<'_>, ending: &Ending, lived: i64) -> rusqlite::Result<bool> {
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
                 despite, exit_code, exit_reason, message, acknowledged_at, acknowledged_by, facts, lived)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)
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
            lived,
        ])?;
    if new == 0 {
        report_second(db, ending, number, ended)?;
        return Ok(false);
    }
    db.prepare_cached("DELETE FROM evidence WHERE run = ?1")?.execute([number])?;
    let state = if ending.acknowledged.is_some() { "acknowledged" } else { "ended" };
    db.prepare_cached("UPDATE run SET evidence_lost = 0, state = ?2 WHERE run = ?1")?
        .execute(params![number, state])?;
    for (position, item) in (0..).zip(&ending.evidence) {
        insert_evidence(db, ending.run, position, item)?;
    }
    Ok(true)
}

/// A correction of an ending that is here, numbered one higher than what is here. How many facts it adds. Its exit code is
/// that of the first telling, whatever comes: a manager has acted on it.
fn keep_revision(db: &Transaction<'_>, ending: &Ending) -> rusqlite::Result<u64> {
    let number = ending.run.0.cast_signed();
    let verdict = &ending.verdict;
    let Some(earlier) = ending.earlier.last() else { return Ok(0) };
    let known: Option<(i64, i64)> = db
        .prepare_cached("SELECT revision, facts FROM ending WHERE run = ?1")?
        .query_row([number], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let corrected = db
        .prepare_cached(
            "UPDATE ending SET cause = ?2, certainty = ?3, row = ?4, because = ?5, despite = ?6, exit_reason = ?7,
                 message = ?8, facts = ?9, revision = ?10
             WHERE run = ?1 AND revision = ?10 - 1 AND exit_code = ?11 AND certainty <> 'certain'",
        )?
        .execute(params![
            number,
            verdict.cause.word(),
            verdict.certainty.word(),
            verdict.row,
            codec::positions_to_text(&verdict.because),
            codec::positions_to_text(&verdict.despite),
            ending.exit_reason,
            ending.message,
            ending.evidence.len() as i64,
            ending.revision(),
            ending.exit_code,
        ])?;
    let facts_before = match known {
        Some((_, facts)) if corrected > 0 => facts,
        // Written before: a commit may have reached the disk and failed all the same.
        Some((revision, _)) if revision >= i64::from(ending.revision()) => return Ok(0),
        known => {
            let revision = ending.revision();
            tracing::warn!(run = %ending.run, revision, ?known, "a correction found nothing that it corrects");
            return Ok(0);
        }
    };
    db.prepare_cached(
        "INSERT INTO earlier (run, revision, until, cause, certainty, row, because, despite, exit_reason, message,
             facts, changed)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        number,
        ending.revision() - 1,
        earlier.until.0,
        earlier.verdict.cause.word(),
        earlier.verdict.certainty.word(),
        earlier.verdict.row,
        codec::positions_to_text(&earlier.verdict.because),
        codec::positions_to_text(&earlier.verdict.despite),
        earlier.exit_reason,
        earlier.message,
        earlier.facts,
        codec::changed_to_text(&earlier.changed),
    ])?;
    for (position, item) in (0..).zip(&ending.evidence) {
        insert_evidence(db, ending.run, position, item)?;
    }
    Ok((ending.evidence.len() as u64).saturating_sub(facts_before.cast_unsigned()))
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

/// Only of a run that is known and not acknowledged.
fn keep_made(db: &Transaction<'_>, run: RunId, devices: &Devices) -> rusqlite::Result<()> {
    db.prepare_cached(
        "INSERT INTO made SELECT run, ?2 FROM run WHERE run = ?1 AND state IN ('open', 'ended')
         ON CONFLICT DO UPDATE SET devices = excluded.devices",
    )?
    .execute(params![run.0.cast_signed(), codec::devices_to_text(devices)])
    .map(drop)
}

fn keep_acknowledgement(
    db: &Transaction<'_>,
    run: RunId,
    acknowledged: &Acknowledged,
) -> rusqlite::Result<()> {
    let changed = db
        .prepare_cached(
            "UPDATE ending SET acknowledged_at = ?2, acknowledged_by = ?3 WHERE run = ?1 AND acknowledged_at IS NULL",
        )?
        .execute(params![run.0.cast_signed(), acknowledged.at.0, acknowledged.by])?;
    if changed > 0 {
        db.prepare_cached("UPDATE run SET state = 'acknowledged' WHERE run = ?1")?
            .execute([run.0.cast_signed()])?;
        db.prepare_cached("DELETE FROM made WHERE run = ?1")?.execute([run.0.cast_signed()])?;
    } else {
        tracing::debug!(%run, "an acknowledgement found nothing to acknowledge");
    }
    Ok(())
}

/// Says in the file that facts of a run never reached it. A run that has ended brought all its evidence with it.
pub(crate) fn note_lost(db: &Transaction<'_>, run: RunId, count: u32) -> rusqlite::Result<()> {
    let ended = db.prepare_cached("SELECT 1 FROM ending WHERE run = ?1")?.exists([run.0.cast_signed()])?;
    if ended {
        return Ok(());
    }
    know_run(db, run, None)?;
    db.prepare_cached("UPDATE run SET evidence_lost = evidence_lost + ?2 WHERE run = ?1")?
        .execute(params![run.0.cast_signed(), count])
        .map(drop)
}
