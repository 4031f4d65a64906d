//! Reading endings while the writer writes: a second connection, and what still waits in memory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, Params, params_from_iter, types::Value};
use whydown_core::evidence::{Evidence, EvidenceId};
use whydown_core::id::{DomainId, RunId};
use whydown_core::record::{Acknowledged, Ending, Keep};
use whydown_core::time::Wall;

use crate::codec;
use crate::error::LedgerError;
use crate::recovery;
use crate::schema::{self, Kind};
use crate::store::Failure;

/// The most endings that one query gives, whatever it asks for: each may carry half a megabyte of evidence.
pub(crate) const LIMIT_MAX: usize = 10_000;

/// How long a reader waits for a lock.
const BUSY_WAIT: Duration = Duration::from_secs(2);

/// Which endings are wanted: those to which everything that is given applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// Of this domain.
    pub domain: Option<DomainId>,
    /// Whose domain had this name at the end.
    pub name: Option<String>,
    /// Not before this moment (by the latest moment at which the run can have ended).
    pub since: Option<Wall>,
    /// Not after this moment.
    pub until: Option<Wall>,
    /// At most so many, the newest; never more than 10,000.
    pub limit: usize,
}

impl Default for Query {
    /// The newest hundred.
    fn default() -> Self {
        Self { domain: None, name: None, since: None, until: None, limit: 100 }
    }
}

impl Query {
    fn accepts(&self, ending: &Ending) -> bool {
        let ended = ending.ended.latest();
        self.domain.is_none_or(|domain| domain == ending.domain)
            && self.name.as_ref().is_none_or(|name| *name == ending.name)
            && self.since.is_none_or(|since| since <= ended)
            && self.until.is_none_or(|until| ended <= until)
    }
}

/// Endings, newest first.
///
/// An ending whose evidence has left by age or count comes with none, and its verdict's positions point to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// What was found.
    pub endings: Vec<Ending>,
    /// What could not be read: with anything in here, `endings` is not the whole truth.
    pub unread: Vec<LedgerError>,
}

/// The reading side. One at a time uses it.
pub(crate) struct Reader {
    path: PathBuf,
    db: Option<Connection>,
}

impl Reader {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, db: None }
    }

    /// Lets go of the file, before it is moved or opened anew.
    pub(crate) fn close(&mut self) {
        self.db = None;
    }

    /// What is on disk; with the failure, if there is one that the writer should know of.
    pub(crate) fn history(&mut self, query: &Query) -> (History, Option<Failure>) {
        let sql = Sql::of(query);
        match self.read(|db| {
            let mut unread = Vec::new();
            Ok((endings(db, &sql.text, params_from_iter(&sql.values), &mut unread)?, unread))
        }) {
            Ok((endings, unread)) => (History { endings, unread }, None),
            Err(failure) => {
                let error = LedgerError::Unreadable { path: self.path.clone(), reason: failure.to_string() };
                (History { endings: Vec::new(), unread: vec![error] }, Some(failure))
            }
        }
    }

    /// The ending of one run on disk.
    pub(crate) fn ending(&mut self, run: RunId) -> Result<Result<Option<Ending>, LedgerError>, Failure> {
        let sql = format!("SELECT {} FROM ending AS e WHERE e.run = ?1", codec::ENDING_COLUMNS);
        let (found, mut unread) = self.read(|db| {
            let mut unread = Vec::new();
            Ok((endings(db, &sql, [run.0.cast_signed()], &mut unread)?, unread))
        })?;
        Ok(match unread.pop() {
            Some(error) => Err(error),
            None => Ok(found.into_iter().next()),
        })
    }

    /// Reads in the usual way; if that fails, in the ways that a file which cannot be written leaves.
    fn read<T>(&mut self, mut read: impl FnMut(&Connection) -> Result<T, Failure>) -> Result<T, Failure> {
        let found = self.connect().and_then(&mut read);
        match found {
            Err(Failure::Unavailable(reason)) => {
                self.close();
                recovery::read_unwritable(&self.path, read).ok_or(Failure::Unavailable(reason))
            }
            Err(failure) => {
                self.close();
                Err(failure)
            }
            found => found,
        }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    fn connect(&mut self) -> Result<&Connection, Failure> {
        let db = match self.db.take() {
            Some(db) => db,
            None => {
                let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
                let db = Connection::open_with_flags(&self.path, flags)?;
                db.busy_timeout(BUSY_WAIT)?;
                db.pragma_update(None, "query_only", true)?;
                db.pragma_update(None, "trusted_schema", false)?;
                match schema::inspect(&db)? {
                    Kind::Ledger(schema::CURRENT) => db,
                    _ => return Err(Failure::Unavailable("it is not ready to be read yet".into())),
                }
            }
        };
        Ok(self.db.insert(db))
    }
}

struct Sql {
    text: String,
    values: Vec<Value>,
}

impl Sql {
    fn of(query: &Query) -> Self {
        let wanted = [
            ("e.domain =", query.domain.map(|domain| Value::Text(domain.to_string()))),
            ("e.name =", query.name.clone().map(Value::Text)),
            ("e.ended >=", query.since.map(|since| Value::Integer(since.0))),
            ("e.ended <=", query.until.map(|until| Value::Integer(until.0))),
        ];
        let mut text = format!("SELECT {} FROM ending AS e", codec::ENDING_COLUMNS);
        let mut values = Vec::new();
        for (condition, value) in wanted.into_iter().filter_map(|(c, value)| Some((c, value?))) {
            text += if values.is_empty() { " WHERE " } else { " AND " };
            text += &format!("{condition} ?");
            values.push(value);
        }
        let limit = query.limit.min(LIMIT_MAX);
        text += &format!(" ORDER BY e.ended DESC, e.run DESC LIMIT {limit}");
        Self { text, values }
    }
}

/// The endings that `sql` names, with their evidence. Those that make no sense go to `unread`.
pub(crate) fn endings(
    db: &Connection,
    sql: &str,
    values: impl Params,
    unread: &mut Vec<LedgerError>,
) -> Result<Vec<Ending>, Failure> {
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query(values)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        match codec::ending_from_row(row)? {
            Ok(mut ending) => {
                ending.evidence =
                    evidence_of(db, ending.run)?.into_iter().map(|(_, evidence)| evidence).collect();
                let word = codec::text(row, 6)?;
                if word != ending.verdict.cause.word() {
                    ending.evidence.push(codec::unknown_cause_remark(ending.ended.latest(), &word));
                }
                found.push(ending);
            }
            Err((run, reason)) => unread.push(LedgerError::Row { run, reason }),
        }
    }
    Ok(found)
}

/// The evidence of a run by position.
pub(crate) fn evidence_of(db: &Connection, run: RunId) -> Result<Vec<(EvidenceId, Evidence)>, Failure> {
    let mut statement = db.prepare_cached(
        "SELECT position, first, last, times, substr(fact, 1, ?2) FROM evidence WHERE run = ?1 ORDER BY position",
    )?;
    let rows = statement.query_map((run.0.cast_signed(), codec::FACT_CHARS as i64), |row| {
        let position = codec::count(row, 0, EvidenceId::MAX.into())?;
        let evidence = Evidence {
            first: Wall(row.get(1)?),
            last: Wall(row.get(2)?),
            times: codec::count(row, 3, u32::MAX)?,
            fact: codec::fact_from_text(codec::text(row, 4)?),
        };
        Ok((EvidenceId::try_from(position).expect("it was held within"), evidence))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Endings and acknowledgements that wait in memory.
#[derive(Default)]
pub(crate) struct Waiting {
    endings: BTreeMap<RunId, Arc<Keep>>,
    acknowledged: BTreeMap<RunId, Acknowledged>,
}

impl Waiting {
    /// Of each run the first of each counts.
    pub(crate) fn of<'a>(ops: impl Iterator<Item = &'a Arc<Keep>>) -> Self {
        let mut waiting = Self::default();
        for op in ops {
            match &**op {
                Keep::Ending(ending) => {
                    waiting.endings.entry(ending.run).or_insert_with(|| Arc::clone(op));
                }
                Keep::Acknowledge(run, by) => {
                    waiting.acknowledged.entry(*run).or_insert_with(|| by.clone());
                }
                Keep::Start(_) | Keep::Evidence(..) | Keep::Alive(_) => {}
            }
        }
        waiting
    }

    /// The ending of one run that waits.
    pub(crate) fn ending(&self, run: RunId) -> Option<Ending> {
        match &**self.endings.get(&run)? {
            Keep::Ending(ending) => Some((**ending).clone()),
            _ => None,
        }
    }

    /// Marks what is acknowledged in memory only.
    pub(crate) fn acknowledge(&self, ending: &mut Ending) {
        if ending.acknowledged.is_none() {
            ending.acknowledged = self.acknowledged.get(&ending.run).cloned();
        }
    }

    /// Puts what waits between what is on disk. What is on disk was first.
    pub(crate) fn merge(&self, query: &Query, history: &mut History) {
        let on_disk: std::collections::BTreeSet<RunId> =
            history.endings.iter().map(|ending| ending.run).collect();
        history.endings.extend(
            self.endings
                .keys()
                .filter(|run| !on_disk.contains(run))
                .filter_map(|run| self.ending(*run))
                .filter(|ending| query.accepts(ending)),
        );
        history.endings.iter_mut().for_each(|ending| self.acknowledge(ending));
        history.endings.sort_by_key(|ending| std::cmp::Reverse((ending.ended.latest(), ending.run)));
        history.endings.truncate(query.limit.min(LIMIT_MAX));
    }
}

/// The name of a file that SQLite keeps beside the ledger.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
