//! Reading endings while the writer writes: a second connection, and what still waits in memory.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, InterruptHandle, OpenFlags, Params, Row, params_from_iter, types::Value};
use whydown_core::evidence::{Evidence, EvidenceId};
use whydown_core::id::{DomainId, RunId};
use whydown_core::record::{Acknowledged, Earlier, Ending, Keep};
use whydown_core::time::Wall;

use crate::codec;
use crate::error::LedgerError;
use crate::place::only_plain_files;
use crate::queue::size;
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
    /// Of this run.
    pub run: Option<RunId>,
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
    /// Only those behind this place: older ones.
    pub after: Option<Cursor>,
}

/// A place in history, behind one ending: what is there stays there, whatever ends meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    ended: Wall,
    run: RunId,
}

impl Cursor {
    /// Behind this ending.
    pub fn of(ending: &Ending) -> Self {
        Self { ended: ending.ended.latest(), run: ending.run }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.ended.0, self.run.0)
    }
}

/// The text is no place in history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is none that an answer has given as `next`")]
pub struct NotACursor;

impl FromStr for Cursor {
    type Err = NotACursor;

    fn from_str(text: &str) -> Result<Self, NotACursor> {
        let (ended, run) = text.split_once('.').ok_or(NotACursor)?;
        let ended = Wall(ended.parse().map_err(|_| NotACursor)?);
        Ok(Self { ended, run: RunId(run.parse().map_err(|_| NotACursor)?) })
    }
}

impl Default for Query {
    /// The newest hundred.
    fn default() -> Self {
        Self { run: None, domain: None, name: None, since: None, until: None, limit: 100, after: None }
    }
}

impl Query {
    fn accepts(&self, ending: &Ending) -> bool {
        let ended = ending.ended.latest();
        self.run.is_none_or(|run| run == ending.run)
            && self.domain.is_none_or(|domain| domain == ending.domain)
            && self.name.as_ref().is_none_or(|name| *name == ending.name)
            && self.since.is_none_or(|since| since <= ended)
            && self.until.is_none_or(|until| ended <= until)
            && self.after.is_none_or(|after| Cursor::of(ending) < after)
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

/// A piece of [`History`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// What was found, newest first.
    pub endings: Vec<Ending>,
    /// What could not be read.
    pub unread: Vec<LedgerError>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<Cursor>,
}

/// Called when a read begins, with what can break it off.
pub(crate) type Begin<'a> = &'a dyn Fn(InterruptHandle) -> Result<(), Failure>;

/// One connection that reads.
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

    /// What is on disk, until about so many bytes are found; with the failure, if there is one that others should know of.
    pub(crate) fn page(&mut self, query: &Query, bytes: usize, begin: Begin<'_>) -> (Page, Option<Failure>) {
        let sql = Sql::of(query);
        match self.read(begin, |db| page(db, &sql, query.limit.min(LIMIT_MAX), bytes)) {
            Ok(page) => (page, None),
            Err(failure) => {
                let error = LedgerError::Unreadable { path: self.path.clone(), reason: failure.to_string() };
                (Page { unread: vec![error], ..Page::default() }, Some(failure))
            }
        }
    }

    /// Reads in the usual way; if that fails, in the ways that a file which cannot be written leaves.
    fn read<T>(
        &mut self,
        begin: Begin<'_>,
        read: impl Fn(&Connection) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let read = |db: &Connection| {
            begin(db.get_interrupt_handle())?;
            read(db)
        };
        let found = self.connect().and_then(read);
        match found {
            Err(Failure::BrokenOff) => Err(Failure::BrokenOff),
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

    fn connect(&mut self) -> Result<&Connection, Failure> {
        let db = match self.db.take() {
            Some(db) => db,
            None => {
                only_plain_files(&self.path)?;
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
            ("e.run =", query.run.map(|run| Value::Integer(run.0.cast_signed()))),
        ];
        let mut text = format!("SELECT {} FROM ending AS e", codec::ENDING_COLUMNS);
        let mut values = Vec::new();
        for (condition, value) in wanted.into_iter().filter_map(|(c, value)| Some((c, value?))) {
            text += if values.is_empty() { " WHERE " } else { " AND " };
            text += &format!("{condition} ?");
            values.push(value);
        }
        if let Some(after) = query.after {
            text += if values.is_empty() { " WHERE " } else { " AND " };
            text += "(e.ended, e.run) < (?, ?)";
            values.extend([Value::Integer(after.ended.0), Value::Integer(after.run.0.cast_signed())]);
        }
        // One more tells whether there is more.
        let limit = query.limit.min(LIMIT_MAX) + 1;
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
        match ending(db, row)? {
            Ok(ending) => found.push(ending),
            Err(error) => unread.push(error),
        }
    }
    Ok(found)
}

/// One page of what `sql` names.
fn page(db: &Connection, sql: &Sql, limit: usize, bytes: usize) -> Result<Page, Failure> {
    let mut statement = db.prepare_cached(&sql.text)?;
    let mut rows = statement.query(params_from_iter(&sql.values))?;
    let (mut page, mut last) = (Page::default(), None);
    let mut room = Room::new(limit, bytes);
    while let Some(row) = rows.next()? {
        if room.is_full() {
            page.next = last;
            break;
        }
        last = Some(Cursor { ended: Wall(row.get(5)?), run: RunId(row.get::<_, i64>(0)?.cast_unsigned()) });
        match ending(db, row)? {
            Ok(ending) => {
                room.take(&ending);
                page.endings.push(ending);
            }
            Err(error) => {
                room.endings -= 1;
                page.unread.push(error);
            }
        }
    }
    Ok(page)
}

/// What a page may still take: at least one ending, whatever its size.
struct Room {
    endings: usize,
    bytes: usize,
}

impl Room {
    fn new(endings: usize, bytes: usize) -> Self {
        Self { endings, bytes: bytes.max(1) }
    }

    fn is_full(&self) -> bool {
        self.endings == 0 || self.bytes == 0
    }

    fn take(&mut self, ending: &Ending) {
        self.endings -= 1;
        self.bytes = self.bytes.saturating_sub(size(ending));
    }
}

/// The ending in this row with its evidence, or why it makes no sense.
fn ending(db: &Connection, row: &Row<'_>) -> Result<Result<Ending, LedgerError>, Failure> {
    let mut ending = match codec::ending_from_row(row)? {
        Ok(ending) => ending,
        Err((run, reason)) => return Ok(Err(LedgerError::Row { run, reason })),
    };
    ending.evidence = evidence_of(db, ending.run)?.into_iter().map(|(_, evidence)| evidence).collect();
    if codec::revision_of(row)? > 0 {
        ending.earlier = earlier_of(db, ending.run)?;
    }
    let word = codec::text(row, 6)?;
    if word != ending.verdict.cause.word() {
        ending.evidence.push(codec::unknown_cause_remark(ending.ended.latest(), &word));
    }
    Ok(Ok(ending))
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

/// What was told of a run's end before late proof corrected it, oldest first.
fn earlier_of(db: &Connection, run: RunId) -> Result<Vec<Earlier>, Failure> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT {} FROM earlier WHERE run = ?1 ORDER BY revision",
        codec::EARLIER_COLUMNS
    ))?;
    let values = (run.0.cast_signed(), codec::CHANGED_CHARS as i64);
    let rows = statement.query_map(values, codec::earlier_from_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Endings and acknowledgements that wait in memory. A correction that waits is not told yet.
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
                Keep::Start(_) | Keep::Evidence(..) | Keep::Revised(_) | Keep::Made(..) | Keep::Alive(_) => {}
            }
        }
        waiting
    }

    /// Marks what is acknowledged in memory only.
    fn acknowledge(&self, ending: &mut Ending) {
        if ending.acknowledged.is_none() {
            ending.acknowledged = self.acknowledged.get(&ending.run).cloned();
        }
    }

    /// Puts what waits between what is on disk, as far as the page goes. What is on disk was first.
    pub(crate) fn merge(&self, query: &Query, bytes: usize, mut page: Page) -> Page {
        let on_disk: BTreeSet<RunId> = page.endings.iter().map(|ending| ending.run).collect();
        let waiting: Vec<&Ending> = self
            .endings
            .iter()
            .filter(|(run, _)| !on_disk.contains(run))
            .filter_map(|(_, op)| match &**op {
                Keep::Ending(ending) => Some(&**ending),
                _ => None,
            })
            .filter(|ending| query.accepts(ending))
            .filter(|ending| page.next.is_none_or(|end| Cursor::of(ending) > end))
            .collect();
        if !waiting.is_empty() {
            let found = std::mem::take(&mut page.endings);
            let mut all: Vec<Cow<'_, Ending>> = found.into_iter().map(Cow::Owned).collect();
            all.extend(waiting.into_iter().map(Cow::Borrowed));
            all.sort_by_key(|ending| std::cmp::Reverse(Cursor::of(ending)));
            let mut room = Room::new(query.limit.min(LIMIT_MAX), bytes);
            for ending in all {
                if room.is_full() {
                    page.next = page.endings.last().map(Cursor::of);
                    break;
                }
                room.take(&ending);
                page.endings.push(ending.into_owned());
            }
        }
        page.endings.iter_mut().for_each(|ending| self.acknowledge(ending));
        page
    }
}

/// The name of a file that SQLite keeps beside the ledger.
pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
