//! The thread that writes, and what it shares with the handles.
//!
//! ```text
//!            ┌──────────── commit ────────────┐
//!            ▼                                │
//!        WRITING ── a commit or opening fails ──▶ FAILING ── waits, opens again ──▶ WRITING
//!            │                                       │
//!            └── closing, nothing waits ──▶ STOPPED ◀┴── closing, time is up: what waits is logged
//! ```
//!
//! If the thread dies by a bug, everything handed over later is logged as lost and health says so.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use whydown_core::record::{Keep, Recovered};
use whydown_core::time::Wall;

use crate::damage;
use crate::error::{LedgerError, Salvaged, Trouble};
use crate::health::{Condition, Health};
use crate::history::{Reader, beside};
use crate::ledger::Told;
use crate::queue::{Batch, Pushed, Queue};
use crate::recovery;
use crate::retention;
use crate::schema;
use crate::settings::Settings;
use crate::store::{Failure, Store};

/// Operations in one commit. One ending of ten facts takes about 50 µs to write, one sync some milliseconds.
const BATCH_MAX: usize = 2048;

/// How often retention looks for something to take out.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// How long retention may be put off by operations that wait.
const TIDY_PATIENCE: Duration = Duration::from_secs(10);

/// The wait between attempts while closing.
const CLOSING_RETRY: Duration = Duration::from_millis(200);

/// One dropped fact in so many is logged, after the first.
const LOG_EVERY: u64 = 1000;

/// A lock that outlives a panic elsewhere: every change under it is whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the handles and the writer share.
pub(crate) struct Shared {
    pub settings: Settings,
    pub state: Mutex<State>,
    pub reader: Mutex<Reader>,
    /// Something changed that the writer waits for.
    work: Condvar,
    /// Something changed that a handle waits for.
    done: Condvar,
}

/// Under the lock: short operations only.
pub(crate) struct State {
    pub queue: Queue,
    pub stopped: bool,
    failing: Option<(String, Wall)>,
    closing: Option<Instant>,
    retry_now: bool,
    suspect: bool,
    health: Counters,
}

#[derive(Default)]
struct Counters {
    commits: u64,
    evidence_dropped: u64,
    lost: u64,
    endings: u64,
    evidence: u64,
    damaged: Option<PathBuf>,
}

/// What was found when the ledger was opened.
pub(crate) struct Start {
    pub shared: Shared,
    pub store: Option<Store>,
    pub recovered: Recovered,
    pub trouble: Option<Trouble>,
}

/// Opens the file for the first time.
pub(crate) fn start(settings: Settings) -> Start {
    let path = settings.path.clone();
    let opened = open_or_replace(&settings, true).and_then(|(mut store, replaced)| {
        recovery::sweep_fragments(store.db())?;
        let recovered = recovery::recover(store.db())?;
        Ok((store, replaced, recovered))
    });
    let (store, recovered, trouble, failing) = match opened {
        Ok((store, None, recovered)) => (Some(store), recovered, None, None),
        Ok((store, Some(replaced), recovered)) => {
            let Replaced { moved_to, reason, salvaged } = replaced;
            (Some(store), recovered, Some(Trouble::Damaged { path, moved_to, reason, salvaged }), None)
        }
        Err(failure) => {
            let now = (settings.clock)();
            let recovered = recovery::read_unwritable(&path, recovery::recover)
                .unwrap_or_else(|| Recovered { last_run: run_floor(now), ..Recovered::default() });
            let reason = failure.to_string();
            let trouble = match failure {
                Failure::Newer { found } => Trouble::Newer { path, found, known: schema::CURRENT },
                Failure::Foreign => Trouble::Foreign { path },
                _ => Trouble::Unavailable { path, reason: reason.clone() },
            };
            tracing::error!(%trouble, "ledger");
            (None, recovered, Some(trouble), Some((reason, now)))
        }
    };
    let damaged = match &trouble {
        Some(Trouble::Damaged { moved_to, .. }) => Some(moved_to.clone()),
        _ => None,
    };
    let mut health = Counters { damaged, ..Counters::default() };
    if let Some(store) = &store {
        (health.endings, health.evidence) = (store.endings, store.facts);
    }
    let state = State {
        queue: Queue::new(settings.memory_max_ops),
        stopped: false,
        failing,
        closing: None,
        retry_now: false,
        suspect: false,
        health,
    };
    let reader = Mutex::new(Reader::new(settings.path.clone()));
    let shared =
        Shared { settings, state: Mutex::new(state), reader, work: Condvar::new(), done: Condvar::new() };
    Start { shared, store, recovered, trouble }
}

/// Higher than any run number ever given, if numbers were counted from one or from an earlier such floor.
fn run_floor(now: Wall) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(0)
}

struct Replaced {
    moved_to: PathBuf,
    reason: String,
    salvaged: Salvaged,
}

/// Opens the file; a damaged one is replaced first, once.
fn open_or_replace(settings: &Settings, thorough: bool) -> Result<(Store, Option<Replaced>), Failure> {
    let path = &settings.path;
    let reason = match Store::open(path, thorough) {
        Ok(store) => return Ok((store, None)),
        Err(Failure::Damaged(reason)) => reason,
        Err(other) => return Err(other),
    };
    let now = (settings.clock)();
    tracing::error!(path = %path.display(), reason, "the ledger is damaged: saving what can be read");
    let (moved_to, salvaged) = damage::replace(path, now, run_floor(now))?;
    tracing::error!(
        path = %path.display(), moved_to = %moved_to.display(), %salvaged, "began a fresh ledger in place of a damaged one"
    );
    match Store::open(path, false) {
        Ok(store) => Ok((store, Some(Replaced { moved_to, reason, salvaged }))),
        Err(Failure::Damaged(again)) => Err(Failure::Unavailable(format!("its fresh file is damaged too: {again}"))),
        Err(other) => Err(other),
    }
}

impl Shared {
    pub(crate) fn keep(&self, op: Keep) {
        let mut state = lock(&self.state);
        if state.stopped {
            state.health.lost += 1;
            tracing::error!(?op, "lost: it was handed to a ledger that has stopped");
            return;
        }
        match state.queue.push(op) {
            Pushed::Waits => {}
            Pushed::FactDropped | Pushed::WaitsForAFact => {
                let dropped = state.health.evidence_dropped;
                state.health.evidence_dropped += 1;
                if dropped.is_multiple_of(LOG_EVERY) {
                    let waiting = state.queue.len();
                    tracing::error!(dropped = dropped + 1, waiting, "no room in memory: evidence is being dropped");
                }
            }
            Pushed::Refused(op) => {
                state.health.lost += 1;
                tracing::error!(?op, "lost: no room in memory, and the ledger cannot be written");
            }
        }
        drop(state);
        self.work.notify_one();
    }

    pub(crate) fn suspect(&self) {
        lock(&self.state).suspect = true;
        self.work.notify_one();
    }

    pub(crate) fn flush(&self, deadline: Instant) -> Result<(), LedgerError> {
        let mut state = lock(&self.state);
        let mark = state.queue.mark();
        state.retry_now = true;
        self.work.notify_one();
        while !state.queue.written_up_to(mark) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.stopped {
                return Err(state.not_written());
            }
            state = self.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    pub(crate) fn close(&self, deadline: Instant) -> Result<(), LedgerError> {
        let mut state = lock(&self.state);
        if state.closing.is_none() {
            state.closing = Some(deadline);
            state.retry_now = true;
            self.work.notify_one();
        }
        while !state.stopped {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() && !state.queue.is_empty() {
                return Err(state.not_written());
            }
            // Nothing waits, only the file is still to be closed; a dead disk may take for ever over that.
            let (next, waited) =
                self.done.wait_timeout(state, left.max(CLOSING_RETRY)).unwrap_or_else(PoisonError::into_inner);
            state = next;
            if left.is_zero() && waited.timed_out() {
                break;
            }
        }
        if state.queue.is_empty() { Ok(()) } else { Err(state.not_written()) }
    }

    /// Nothing will be written any more.
    pub(crate) fn stop(&self, error: Option<String>) {
        let mut state = lock(&self.state);
        state.stopped = true;
        if let Some(error) = error {
            state.failing = Some((error, (self.settings.clock)()));
        }
        for op in state.queue.waiting() {
            tracing::error!(?op, "lost: the ledger stopped before it could be written");
        }
        state.health.lost += state.queue.len() as u64;
        drop(state);
        self.done.notify_all();
    }

    pub(crate) fn health(&self) -> Health {
        let size = |suffix: &str| std::fs::metadata(beside(&self.settings.path, suffix)).map(|file| file.len());
        let file_bytes = size("").ok().map(|bytes| bytes + size("-wal").unwrap_or(0));
        let state = lock(&self.state);
        let counters = &state.health;
        Health {
            condition: match &state.failing {
                None => Condition::Working,
                Some((error, since)) => Condition::Failing { error: error.clone(), since: *since },
            },
            waiting: state.queue.len(),
            commits: counters.commits,
            evidence_dropped: counters.evidence_dropped,
            lost: counters.lost,
            endings: counters.endings,
            evidence: counters.evidence,
            file_bytes,
            damaged: counters.damaged.clone(),
        }
    }
}

impl State {
    fn not_written(&self) -> LedgerError {
        let reason = match &self.failing {
            Some((error, _)) => error.clone(),
            None => "time is up".to_owned(),
        };
        LedgerError::NotWritten { waiting: self.queue.len(), reason }
    }
}

enum Next {
    Write(Batch),
    Tell(Vec<Told>),
    Open { thorough: bool },
    Tidy,
    Stop,
}

/// The writing side.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    store: Option<Store>,
    told: Box<dyn Fn(Told) + Send>,
    /// Whether the whole file was read for damage since there was a reason to.
    checked: bool,
    wait: Duration,
    open_at: Instant,
    tidy_at: Instant,
}

impl Writer {
    pub(crate) fn new(shared: Arc<Shared>, store: Option<Store>, told: Box<dyn Fn(Told) + Send>) -> Self {
        let now = Instant::now();
        let wait = shared.settings.retry_min;
        Self { checked: store.is_some(), shared, store, told, wait, open_at: now + wait, tidy_at: now }
    }

    /// Until closed.
    pub(crate) fn run(mut self) {
        let _last_word = LastWord(Arc::clone(&self.shared));
        loop {
            match self.next() {
                Next::Write(batch) => self.write(batch),
                Next::Tell(words) => words.into_iter().for_each(&self.told),
                Next::Open { thorough } => self.open(thorough),
                Next::Tidy => self.tidy(),
                Next::Stop => break,
            }
        }
        lock(&self.shared.reader).close();
        if let Some(Err(failure)) = self.store.take().map(Store::close) {
            // Everything is in the log beside the file; the next opening brings it in.
            tracing::warn!(%failure, "the ledger could not be closed properly");
        }
    }

    fn next(&mut self) -> Next {
        let shared = Arc::clone(&self.shared);
        let mut state = lock(&shared.state);
        loop {
            let now = Instant::now();
            let until = if self.store.is_some() {
                if std::mem::take(&mut state.suspect) {
                    return Next::Open { thorough: true };
                }
                let waits = !state.queue.is_empty();
                let tidy_late = self.tidy_at + TIDY_PATIENCE <= now;
                if waits && !tidy_late {
                    return Next::Write(state.queue.take(BATCH_MAX));
                }
                if state.closing.is_some() && !waits {
                    return Next::Stop;
                }
                if self.tidy_at <= now {
                    return Next::Tidy;
                }
                self.tidy_at
            } else {
                if state.queue.has_untold_ending() {
                    return Next::Tell(state.queue.newly_waiting_endings().into_iter().map(Told::NotKept).collect());
                }
                if std::mem::take(&mut state.retry_now) || self.open_at <= now {
                    return Next::Open { thorough: !self.checked };
                }
                match state.closing {
                    Some(_) if state.queue.is_empty() => return Next::Stop,
                    Some(deadline) if deadline <= now => return Next::Stop,
                    Some(deadline) => deadline.min(self.open_at).min(now + CLOSING_RETRY),
                    None => self.open_at,
                }
            };
            let left = until.saturating_duration_since(now);
            let (next, waited) = shared.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state = next;
            // While closing, every short wait ends in another attempt.
            if waited.timed_out() && state.closing.is_some() {
                state.retry_now = true;
            }
        }
    }

    fn write(&mut self, batch: Batch) {
        let Some(store) = &mut self.store else { return };
        match store.write(&batch) {
            Ok(()) => {
                let (endings, facts) = (store.endings, store.facts);
                for op in &batch.ops {
                    if let Keep::Ending(ending) = &**op {
                        (self.told)(Told::Kept(ending.run));
                    }
                }
                self.wait = self.shared.settings.retry_min;
                let mut state = lock(&self.shared.state);
                state.queue.done(&batch);
                state.retry_now = false;
                state.health.commits += 1;
                (state.health.endings, state.health.evidence) = (endings, facts);
                if let Some((_, since)) = state.failing.take() {
                    let now = (self.shared.settings.clock)();
                    tracing::warn!(failed_for = ?now.since(since), "the ledger is written again");
                }
                drop(state);
                self.shared.done.notify_all();
            }
            Err(Failure::Refused { index, reason }) => {
                let mut state = lock(&self.shared.state);
                state.queue.undone(&batch);
                let op = state.queue.give_up(index);
                state.health.lost += 1;
                drop(state);
                tracing::error!(?op, reason, "lost: SQLite refuses it; this is a bug");
                if let Some(Keep::Ending(ending)) = op.as_deref() {
                    (self.told)(Told::NotKept(ending.run));
                }
                self.shared.done.notify_all();
            }
            Err(failure) => {
                lock(&self.shared.state).queue.undone(&batch);
                self.fail(failure);
            }
        }
    }

    fn open(&mut self, thorough: bool) {
        let shared = Arc::clone(&self.shared);
        // Readers let go of the file too: it may be moved, and closing an old one would take the log of a new one along.
        let mut reader = lock(&shared.reader);
        reader.close();
        self.store = None;
        match open_or_replace(&shared.settings, thorough) {
            Ok((store, replaced)) => {
                self.checked = true;
                let mut state = lock(&shared.state);
                (state.health.endings, state.health.evidence) = (store.endings, store.facts);
                if let Some(replaced) = replaced {
                    state.health.damaged = Some(replaced.moved_to);
                }
                // With something to write, only the next commit tells.
                if state.queue.is_empty() && state.failing.take().is_some() {
                    tracing::warn!("the ledger can be written again");
                    self.wait = shared.settings.retry_min;
                }
                drop(state);
                self.store = Some(store);
            }
            Err(failure) => {
                drop(reader);
                self.fail(failure);
            }
        }
    }

    fn tidy(&mut self) {
        let Some(store) = &mut self.store else { return };
        let now = (self.shared.settings.clock)();
        match retention::slice(store, &self.shared.settings.retention, now) {
            Ok(more) => {
                let mut state = lock(&self.shared.state);
                (state.health.endings, state.health.evidence) = (store.endings, store.facts);
                self.tidy_at = Instant::now() + if more { Duration::ZERO } else { TIDY_EVERY };
            }
            Err(failure) => {
                self.tidy_at = Instant::now() + TIDY_EVERY;
                self.fail(failure);
            }
        }
    }

    /// Lets go of the file, and says so once.
    fn fail(&mut self, failure: Failure) {
        // What looks damaged or replaced is looked at again at once, but only for the first time in a row.
        let first = self.wait == self.shared.settings.retry_min;
        let at_once = match failure {
            Failure::Damaged(_) => {
                self.checked = false;
                first
            }
            Failure::Replaced(_) => {
                lock(&self.shared.reader).close();
                if let Some(store) = self.store.take() {
                    store.leave();
                }
                first
            }
            _ => false,
        };
        self.store = None;
        self.open_at = Instant::now() + if at_once { Duration::ZERO } else { self.wait };
        self.wait = (self.wait * 2).min(self.shared.settings.retry_max);

        let error = failure.to_string();
        let mut state = lock(&self.shared.state);
        let since = match &state.failing {
            Some((known, since)) if *known == error => *since,
            failing => {
                let waiting = state.queue.len();
                tracing::error!(
                    path = %self.shared.settings.path.display(), error, waiting,
                    "the ledger cannot be written; endings are held in memory"
                );
                failing.as_ref().map_or_else(|| (self.shared.settings.clock)(), |(_, since)| *since)
            }
        };
        state.failing = Some((error, since));
        drop(state);
        self.shared.done.notify_all();
    }
}

/// Marks the writer as stopped, however it stopped.
struct LastWord(Arc<Shared>);

impl Drop for LastWord {
    fn drop(&mut self) {
        let died = std::thread::panicking().then(|| "the ledger's thread died by a bug".to_owned());
        self.0.stop(died);
    }
}
