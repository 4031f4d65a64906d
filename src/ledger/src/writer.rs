//! The thread that writes.
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

use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use whydown_core::record::Keep;

use crate::known::Known;
use crate::ledger::Told;
use crate::mend::{Mended, mend, put_known, save_beside};
use crate::opening::open_or_replace;
use crate::queue::Batch;
use crate::retention;
use crate::shared::{Shared, lock, what};
use crate::store::{Failure, Store};

/// Operations in one commit. One ending of ten facts takes about 50 µs to write, one sync some milliseconds.
const BATCH_MAX: usize = 2048;

/// How often retention looks for something to take out.
const TIDY_EVERY: Duration = Duration::from_secs(60);

/// How long retention may be put off by operations that wait.
const TIDY_PATIENCE: Duration = Duration::from_secs(10);

/// How often the writer looks whether the file is where it should be, when nothing is written.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The wait between attempts while closing.
const CLOSING_RETRY: Duration = Duration::from_millis(200);

enum Next {
    Write { batch: Batch, waiting: u32 },
    Tell(Vec<Told>),
    Open { thorough: bool },
    Look,
    Tidy,
    Stop,
}

/// The writing side.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    store: Option<Store>,
    /// A file that is open and is not in its place, until it is made good.
    misplaced: Option<Box<Store>>,
    known: Known,
    told: Box<dyn Fn(Told) + Send>,
    /// Whether the whole file was read for damage since there was a reason to.
    checked: bool,
    wait: Duration,
    open_at: Instant,
    tidy_at: Instant,
    look_at: Instant,
}

impl Writer {
    pub(crate) fn new(
        shared: Arc<Shared>,
        store: Option<Store>,
        known: Known,
        told: Box<dyn Fn(Told) + Send>,
    ) -> Self {
        let now = Instant::now();
        let wait = shared.settings.retry_min;
        *lock(&shared.place) = store.as_ref().map(|store| store.place.clone());
        Self {
            checked: store.is_some(),
            shared,
            store,
            misplaced: None,
            known,
            told,
            wait,
            open_at: now + wait,
            tidy_at: now,
            look_at: now,
        }
    }

    /// Until closed.
    pub(crate) fn run(mut self) {
        let _last_word = LastWord(Arc::clone(&self.shared));
        let shared = Arc::clone(&self.shared);
        loop {
            match self.next() {
                Next::Write { batch, waiting } => self.write(batch, waiting),
                Next::Tell(words) => words.into_iter().for_each(&self.told),
                Next::Open { thorough } => self.open(thorough),
                Next::Look => self.look(),
                Next::Tidy => self.tidy(),
                Next::Stop => break,
            }
        }
        // The last connection to close brings the log into the file: that should be this one.
        let _standing_back = shared.readers.stand_back();
        if let Some(store) = &mut self.store
            && lock(&self.shared.state).health.lost == 0
            && let Err(failure) = store.give_back_runs()
        {
            tracing::warn!(%failure, "numbers of runs that were reserved are passed over");
        }
        if let Some(mut open) = self.misplaced.take() {
            let now = (shared.settings.clock)();
            match save_beside(&mut open, &shared.settings.path, now) {
                Ok(saved) => tracing::error!(
                    "the ledger could not be put in its place before the end: all of it lies at {}",
                    saved.display()
                ),
                Err(failure) => tracing::error!(
                    %failure, "lost: the ledger could not be put in its place before the end, nor beside it"
                ),
            }
        }
        if let Some(Err(failure)) = self.store.take().map(Store::close) {
            // Everything is in the log beside the file; the next opening brings it in.
            tracing::warn!(%failure, "the ledger could not be closed properly");
        }
        // What is closed has no log beside it, and nobody misses one.
        *lock(&self.shared.place) = None;
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
                if std::mem::take(&mut state.look) || self.look_at <= now {
                    return Next::Look;
                }
                let waits = !state.queue.is_empty();
                let tidy_late = self.tidy_at + TIDY_PATIENCE <= now;
                let due = state.due(now);
                if waits && due <= now && !tidy_late {
                    let batch = state.queue.take(BATCH_MAX);
                    let waiting = state.begin(now, batch.is_cut());
                    return Next::Write { batch, waiting };
                }
                if state.closing.is_some() && !waits {
                    let in_place = self.store.as_ref().is_some_and(|store| store.place.look().is_ok());
                    return if in_place { Next::Stop } else { Next::Look };
                }
                if self.tidy_at <= now {
                    return Next::Tidy;
                }
                let next = self.tidy_at.min(self.look_at);
                if waits { due.min(next) } else { next }
            } else {
                if state.queue.has_untold() {
                    let endings = state.queue.newly_waiting_endings().into_iter().map(Told::NotKept);
                    let mut words: Vec<Told> = endings.collect();
                    words.push(Told::Unwritten(state.queue.told_to_wait()));
                    return Next::Tell(words);
                }
                if std::mem::take(&mut state.retry_now) || self.open_at <= now {
                    return Next::Open { thorough: !self.checked };
                }
                match state.closing {
                    Some(_) if state.queue.is_empty() && self.misplaced.is_none() => return Next::Stop,
                    Some(deadline) if deadline <= now => return Next::Stop,
                    Some(deadline) => deadline.min(self.open_at).min(now + CLOSING_RETRY),
                    None => self.open_at,
                }
            };
            let left = until.saturating_duration_since(now);
            let (next, waited) =
                shared.work.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            state = next;
            // While closing, every short wait ends in another attempt.
            if waited.timed_out() && state.closing.is_some() {
                state.retry_now = true;
            }
        }
    }

    /// `waiting` is how many wait for it.
    fn write(&mut self, batch: Batch, waiting: u32) {
        let Some(store) = &mut self.store else { return };
        let began = Instant::now();
        match store.write(&batch) {
            Ok(()) => {
                let (endings, facts) = (store.endings, store.facts);
                *lock(&self.shared.place) = Some(store.place.clone());
                let now = Instant::now();
                lock(&self.shared.state).committed(waiting, now.duration_since(began), now);
                batch.ops.iter().for_each(|op| self.known.note(op));
                for op in &batch.ops {
                    match &**op {
                        Keep::Ending(ending) => (self.told)(Told::Kept(ending.run)),
                        Keep::Revised(ending) => {
                            (self.told)(Told::KeptRevision(ending.run, ending.revision()));
                        }
                        _ => {}
                    }
                }
                (self.told)(Told::Written(batch.upto));
                self.wait = self.shared.settings.retry_min;
                let mut state = lock(&self.shared.state);
                state.queue.done(&batch);
                if state.queue.is_empty() {
                    (state.at_once, state.waiting) = (false, 0);
                }
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
                let lost = op.as_deref().map(what).unwrap_or_default();
                tracing::error!(?op, reason, "lost: {lost}: SQLite refuses it; this is a bug");
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
        let standing_back = shared.readers.stand_back();
        let misplaced = |store: &Store| store.place.look().is_err();
        let open =
            self.misplaced.take().or_else(|| self.store.take_if(|store| misplaced(store)).map(Box::new));
        self.store = None;
        if let Some(open) = open {
            return match mend(*open, &shared.settings, &self.known) {
                Ok(mended) => self.is_mended(mended),
                Err((failure, open)) => {
                    self.misplaced = open;
                    drop(standing_back);
                    self.fail(failure);
                    lock(&shared.state).misplaced = self.misplaced.as_ref().map(|_| true);
                }
            };
        }
        match open_or_replace(&shared.settings, thorough) {
            Ok((mut store, replaced)) => {
                self.checked = true;
                let lost = match replaced.as_ref().map(|replaced| replaced.salvaged.lost as u64) {
                    Some(lost) => match self.put_back(&mut store) {
                        Ok(back) => lost.saturating_sub(back),
                        Err(failure) => {
                            drop(standing_back);
                            return self.fail(failure);
                        }
                    },
                    None => 0,
                };
                let mut state = lock(&shared.state);
                state.health.unreadable += lost;
                state.health.lost_until = store.lost_until().unwrap_or_default();
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
                *lock(&shared.place) = Some(store.place.clone());
                self.store = Some(store);
            }
            Err(failure) => {
                drop(standing_back);
                self.fail(failure);
            }
        }
    }

    /// A fresh file has what could be read of a damaged one; memory may hold more. How many runs are not lost by it.
    fn put_back(&mut self, store: &mut Store) -> Result<u64, Failure> {
        let before = store.lost_runs()?;
        put_known(store, &self.known)?;
        Ok(before.saturating_sub(store.lost_runs()?))
    }

    fn is_mended(&mut self, Mended { store, told }: Mended) {
        tracing::error!(path = %self.shared.settings.path.display(), "the ledger: {told}");
        let mut state = lock(&self.shared.state);
        (state.health.endings, state.health.evidence) = (store.endings, store.facts);
        state.health.lost_until = store.lost_until().unwrap_or_default();
        state.health.mended = Some(told);
        state.misplaced = None;
        if state.queue.is_empty() {
            state.failing = None;
        }
        drop(state);
        self.wait = self.shared.settings.retry_min;
        *lock(&self.shared.place) = Some(store.place.clone());
        self.store = Some(store);
        self.shared.done.notify_all();
    }

    /// Whether the file is where it should be.
    fn look(&mut self) {
        self.look_at = Instant::now() + LOOK_EVERY;
        let Some(store) = &mut self.store else { return self.shared.done.notify_all() };
        match store.look() {
            Err(wrong) => self.fail(wrong.into()),
            Ok(()) => {
                *lock(&self.shared.place) = Some(store.place.clone());
                self.shared.done.notify_all();
            }
        }
    }

    fn tidy(&mut self) {
        let Some(store) = &mut self.store else { return };
        if let Err(wrong) = store.look() {
            return self.fail(wrong.into());
        }
        match retention::slice(store, &self.shared.settings.retention) {
            Ok(more) => {
                if let Err(failure) = store.note_length() {
                    return self.fail(failure);
                }
                *lock(&self.shared.place) = Some(store.place.clone());
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
            Failure::Misplaced(_) => first,
            _ => false,
        };
        // What is open and cannot be found at its path may be all that there is: it stays open.
        if let Some(store) = self.store.take()
            && store.place.look().is_err()
        {
            self.misplaced = Some(Box::new(store));
        }
        *lock(&self.shared.place) = None;
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
        state.misplaced = self.misplaced.as_ref().map(|_| !at_once);
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
