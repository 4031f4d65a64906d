//! Between core's words and columns. What this version cannot read is kept as it is, and said.

use rusqlite::Row;
use rusqlite::types::ValueRef;
use whydown_core::cause::Cause;
use whydown_core::evidence::{Evidence, EvidenceId, Fact};
use whydown_core::hypervisor::Process;
use whydown_core::id::{BootId, DomainId, RunId};
use whydown_core::record::{Acknowledged, Certainty, Earlier, Ending, Incarnation, RunStart, Verdict, When};
use whydown_core::sample::Devices;
use whydown_core::time::Wall;

/// Characters of one stored fact that are read. A fact holds few texts of at most 4 KiB each; a longer one is not ours,
/// or its row is damaged, and it is shown cut, as unreadable.
pub(crate) const FACT_CHARS: usize = 128 * 1024;

/// Why a row makes no sense.
pub(crate) type Senseless = String;

/// The stored form of a fact: its JSON. A fact that was unreadable goes back exactly as it was found, so that the
/// version that understands it can read it again.
pub(crate) fn fact_to_text(fact: &Fact) -> String {
    match fact {
        Fact::Unreadable(raw) if serde_json::from_str::<Fact>(raw).is_err() => raw.clone(),
        known => serde_json::to_string(known).expect("facts hold only strings, numbers and flags"),
    }
}

pub(crate) fn devices_to_text(devices: &Devices) -> String {
    serde_json::to_string(devices).expect("devices hold only strings, numbers and flags")
}

pub(crate) fn devices_from_text(text: &str) -> Option<Devices> {
    serde_json::from_str(text).ok()
}

/// The fact in its stored form; [`Fact::Unreadable`] if this version has no word for it.
pub(crate) fn fact_from_text(text: String) -> Fact {
    serde_json::from_str(&text).unwrap_or(Fact::Unreadable(text))
}

/// Positions of evidence, as a JSON array.
pub(crate) fn positions_to_text(positions: &[EvidenceId]) -> String {
    serde_json::to_string(positions).expect("numbers are always JSON")
}

/// Columns of an ending, in the order in which [`ending_from_row`] reads them, from table `ending` alias `e`.
pub(crate) const ENDING_COLUMNS: &str = "e.run, e.domain, e.name, e.started, e.ended_after, e.ended, e.cause, \
    e.certainty, e.row, e.because, e.despite, e.exit_code, e.exit_reason, e.message, e.acknowledged_at, e.acknowledged_by, e.revision";

/// How many corrections the ending of this row has.
pub(crate) fn revision_of(row: &Row<'_>) -> rusqlite::Result<u32> {
    count(row, 16, u16::MAX.into())
}

/// Columns of what was told before a correction, in the order in which [`earlier_from_row`] reads them.
pub(crate) const EARLIER_COLUMNS: &str =
    "until, cause, certainty, row, because, despite, exit_reason, message, facts, substr(changed, 1, ?2)";

/// Characters of one revision's changed pieces that are read.
pub(crate) const CHANGED_CHARS: usize = 4 * FACT_CHARS;

/// What was told before a correction. What makes no sense in it reads as nothing: the correction itself stands elsewhere.
pub(crate) fn earlier_from_row(row: &Row<'_>) -> rusqlite::Result<Earlier> {
    let cause = Cause::from_word(&text(row, 1)?);
    Ok(Earlier {
        until: Wall(row.get(0)?),
        verdict: Verdict {
            cause: cause.unwrap_or(Cause::UnknownEnded),
            certainty: match cause {
                Some(_) => certainty_from_word(&text(row, 2)?),
                None => Certainty::Unknown,
            },
            row: text(row, 3)?,
            because: serde_json::from_str(&text(row, 4)?).unwrap_or_default(),
            despite: serde_json::from_str(&text(row, 5)?).unwrap_or_default(),
        },
        exit_reason: u8::try_from(count(row, 6, u8::MAX.into())?).unwrap_or_default(),
        message: text(row, 7)?,
        facts: u16::try_from(count(row, 8, u16::MAX.into())?).unwrap_or_default(),
        changed: changed_from_text(&text(row, 9)?),
    })
}

/// A piece of evidence as it stands in `earlier.changed`: position, first, last, times, and the fact as in
/// `evidence.fact`.
type Changed = (EvidenceId, Wall, Wall, u32, String);

/// Pieces with their positions, as a JSON array.
pub(crate) fn changed_to_text(changed: &[(EvidenceId, Evidence)]) -> String {
    let changed = changed.iter().map(|(position, piece)| -> Changed {
        (*position, piece.first, piece.last, piece.times, fact_to_text(&piece.fact))
    });
    serde_json::to_string(&changed.collect::<Vec<_>>()).expect("numbers and texts are always JSON")
}

fn changed_from_text(text: &str) -> Vec<(EvidenceId, Evidence)> {
    let changed: Vec<Changed> = serde_json::from_str(text).unwrap_or_default();
    let piece = |(position, first, last, times, fact): Changed| {
        (position, Evidence { first, last, times, fact: fact_from_text(fact) })
    };
    changed.into_iter().map(piece).collect()
}

/// An ending without its evidence and what was told before. The outer error is SQLite's; the inner one says that the row makes no sense.
pub(crate) fn ending_from_row(row: &Row<'_>) -> rusqlite::Result<Result<Ending, (RunId, Senseless)>> {
    let run = RunId(row.get::<_, i64>(0)?.cast_unsigned());
    let domain = text(row, 1)?;
    let because = text(row, 9)?;
    let despite = text(row, 10)?;
    let cause_word = text(row, 6)?;
    let certainty = text(row, 7)?;
    let exit_code: i64 = row.get(11)?;
    let exit_reason: i64 = row.get(12)?;
    let ended = match row.get::<_, Option<i64>>(4)? {
        Some(after) => When::Between(Wall(after), Wall(row.get(5)?)),
        None => When::At(Wall(row.get(5)?)),
    };
    let acknowledged = match row.get::<_, Option<i64>>(14)? {
        Some(at) => Some(Acknowledged { at: Wall(at), by: text(row, 15)? }),
        None => None,
    };
    let (name, started, label, message) = (text(row, 2)?, Wall(row.get(3)?), text(row, 8)?, text(row, 13)?);
    let sensible = || -> Result<Ending, Senseless> {
        let cause = Cause::from_word(&cause_word);
        let verdict = Verdict {
            cause: cause.unwrap_or(Cause::UnknownEnded),
            // A cause that cannot be named is not known, however sure the version was that named it.
            certainty: if cause.is_some() { certainty_from_word(&certainty) } else { Certainty::Unknown },
            row: label,
            because: serde_json::from_str(&because).map_err(|e| format!("because: {e}"))?,
            despite: serde_json::from_str(&despite).map_err(|e| format!("despite: {e}"))?,
        };
        Ok(Ending {
            run,
            domain: domain.parse().map_err(|e| format!("domain: {e}"))?,
            name,
            started,
            ended,
            verdict,
            exit_code: u8::try_from(exit_code).map_err(|e| format!("exit code: {e}"))?,
            exit_reason: u8::try_from(exit_reason).map_err(|e| format!("exit reason: {e}"))?,
            message,
            evidence: Vec::new(),
            acknowledged,
            earlier: Vec::new(),
        })
    };
    Ok(sensible().map_err(|reason| (run, reason)))
}

/// The remark that an ending with an unknown cause carries behind its evidence, where no position points to.
pub(crate) fn unknown_cause_remark(ended: Wall, word: &str) -> Evidence {
    let said = format!("the ledger names the cause `{word}`, which this version does not know");
    Evidence { first: ended, last: ended, times: 1, fact: Fact::Unreadable(said) }
}

fn certainty_from_word(word: &str) -> Certainty {
    [Certainty::Certain, Certainty::Probable]
        .into_iter()
        .find(|certainty| certainty.word() == word)
        .unwrap_or(Certainty::Unknown)
}

/// A column's text; bytes that are not UTF-8 are damage that should not take the rest of the row with it. Empty for null.
pub(crate) fn text(row: &Row<'_>, column: usize) -> rusqlite::Result<String> {
    match row.get_ref(column)? {
        ValueRef::Null => Ok(String::new()),
        value => Ok(String::from_utf8_lossy(value.as_bytes()?).into_owned()),
    }
}

/// A column's number, held within 0 and `most`.
pub(crate) fn count(row: &Row<'_>, column: usize, most: u32) -> rusqlite::Result<u32> {
    let number: i64 = row.get(column)?;
    Ok(u32::try_from(number.clamp(0, i64::from(most))).expect("it was clamped"))
}

/// Columns of a start, in the order in which [`start_from_row`] reads them, from table `run` alias `r`.
pub(crate) const START_COLUMNS: &str =
    "r.run, r.domain, r.name, r.at, r.seen, r.libvirt_id, r.pid, r.start_ticks, r.boot";

/// A start, where one is in the row: a run may be known by its later records only.
pub(crate) fn start_from_row(row: &Row<'_>) -> rusqlite::Result<Option<RunStart>> {
    let (Ok(domain), Some(at)) = (text(row, 1)?.parse::<DomainId>(), row.get::<_, Option<i64>>(3)?) else {
        return Ok(None);
    };
    let number = |column: usize| -> rusqlite::Result<Option<u32>> {
        Ok(row.get::<_, Option<i64>>(column)?.and_then(|number| u32::try_from(number).ok()))
    };
    let process = match (number(6)?, row.get::<_, Option<i64>>(7)?) {
        (Some(pid), Some(ticks)) => Some(Process { pid, start_ticks: ticks.cast_unsigned() }),
        _ => None,
    };
    Ok(Some(RunStart {
        run: RunId(row.get::<_, i64>(0)?.cast_unsigned()),
        domain,
        name: text(row, 2)?,
        at: Wall(at),
        seen: row.get::<_, Option<i64>>(4)? == Some(1),
        incarnation: Incarnation { libvirt_id: number(5)?, process, boot: BootId(text(row, 8)?) },
    }))
}

#[cfg(test)]
mod tests;
