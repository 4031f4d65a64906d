//! What the handles and the writer share, under one short lock.

use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use whydown_core::record::{Haste, Keep};
use whydown_core::time::Wall;

use crate::error::LedgerError;
use crate::health::{Condition, Health};
use crate::history::beside;
use crate::place::Place;
use crate::queue::{Pushed, Queue};
use crate::readers::Readers;
use crate::settings::Settings;

/// How long closing goes on waiting for the file alone, when time is up and nothing waits to be written.
const CLOSING_GRACE: Duration = Duration::from_millis(200);

/// After how long a reader looks again whether the writer has looked.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What part of the last commit's time the next one may wait for company.
const PAUSE_PART: u32 = 4;

/// And how long at most, however slow the disk is.
const PAUSE_MAX: Duration = Duration::from_millis(5);

/// How long what is only to be shown waits at least: what an ending needs for itself comes within this, and whoever polls does
/// not see it.
const PAUSE_MIN: Duration = Duration::from_millis(1);

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
    pub readers: Readers,
    /// Where the open file is; `None` while none is.
    pub place: Mutex<Option<Place>>,
    /// Something changed that the writer waits for.
    pub work: Condvar,
    /// Something changed that a handle waits for.
    pub done: Condvar,
}

/// Under the lock: short operations only.
pub(crate) struct State {
    pub queue: Queue,
    pub stopped: bool,
    pub failing: Option<(String, Wall)>,
    pub closing: Option<Instant>,
    pub retry_now: bool,
    /// What is in the queue is to be written without any wait.
    pub at_once: bool,
    /// So many wait for what is in the queue, or for what was to be written before it.
    pub waiting: u32,
    /// Who waited when the last commit was done, and who was served by it and may come back: so many, and how long they are
    /// waited for.
    pub returning: (u32, Instant),
    /// How long company is waited for by what is only to be shown.
    pub pause: Duration,
    /// What is in the queue is written then, whoever waits.
    pub lingers_until: Option<Instant>,
    pub suspect: bool,
    /// The file is not in its place, and whether it could not be put there.
    pub misplaced: Option<bool>,
    /// A reader finds the file not in its place.
    pub look: bool,
    pub health: Counters,
}

/// What [`Health`] counts.
#[derive(Default)]
pub(crate) struct Counters {
    pub commits: u64,
    pub evidence_dropped: u64,
    pub lost: u64,
    pub unreadable: u64,
    pub lost_until: Option<Wall>,
    pub endings: u64,
    pub evidence: u64,
    pub damaged: Option<PathBuf>,
    pub mended: Option<String>,
}

impl Shared {
    pub(crate) fn new(settings: Settings, failing: Option<(String, Wall)>, health: Counters) -> Self {
        let state = State {
            queue: Queue::new(settings.memory_max_ops),
            stopped: false,
            failing,
            closing: None,
            retry_now: false,
            at_once: false,
            waiting: 0,
            returning: (0, Instant::now()),
            pause: PAUSE_MIN,
            lingers_until: None,
            suspect: false,
            misplaced: None,
            look: false,
            health,
        };
        let readers = Readers::new(&settings.path);
        Self {
            settings,
            state: Mutex::new(state),
            readers,
            place: Mutex::default(),
            work: Condvar::new(),
            done: Condvar::new(),
        }
    }

    /// Takes these in, to be written in one commit.
    pub(crate) fn keep(&self, ops: Vec<Keep>) {
        if ops.is_empty() {
            return;
        }
        let mut state = lock(&self.state);
        if state.stopped {
            for op in ops {
                state.health.lost += 1;
                tracing::error!(?op, "lost: {}: it was handed to a ledger that has stopped", what(&op));
            }
            return;
        }
        let first = state.lingers_until.is_none();
        if first {
            state.lingers_until = Some(Instant::now() + self.settings.linger);
        }
        // More of what waits anyway wakes nobody up.
        let wakes = first || state.failing.is_some();
        for op in ops {
            state.take_in(op);
        }
        state.queue.ends_here();
        drop(state);
        if wakes {
            self.work.notify_one();
        }
    }

    pub(crate) fn hurry(&self, haste: Haste) {
        let mut state = lock(&self.state);
        match haste {
            Haste::Now => state.waiting = state.waiting.saturating_add(1),
            Haste::Soon => {
                let soon = Instant::now() + state.pause;
                state.lingers_until = state.lingers_until.map(|until| until.min(soon));
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
        state.at_once |= !state.queue.is_empty();
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

    /// Waits until what was handed over before is on disk, or cannot be written, or time is up.
    pub(crate) fn when_written(&self, patience: Duration) -> MutexGuard<'_, State> {
        let deadline = Instant::now() + patience;
        let mut state = lock(&self.state);
        let mark = state.queue.mark();
        state.at_once |= !state.queue.is_empty();
        self.work.notify_one();
        while !state.queue.written_up_to(mark) && state.failing.is_none() && !state.stopped {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.done.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }

    /// Waits until the file is where it should be. Another file at its path, or itself without its log, would be read as if
    /// it were the ledger.
    ///
    /// # Errors
    /// What is wrong, if it cannot be put right now.
    pub(crate) fn when_in_place(&self, patience: Duration) -> Result<(), String> {
        let deadline = Instant::now() + patience;
        loop {
            let wrong = match &*lock(&self.place) {
                Some(place) => place.look().err(),
                None => None,
            };
            let mut state = lock(&self.state);
            let error = match (wrong, state.misplaced) {
                (None, None) => return Ok(()),
                (_, Some(true)) => state.failing.as_ref().map(|(error, _)| error.clone()),
                (wrong, _) if deadline <= Instant::now() => wrong.map(|wrong| wrong.to_string()),
                _ => {
                    state.look = true;
                    self.work.notify_one();
                    drop(self.done.wait_timeout(state, LOOK_AGAIN).unwrap_or_else(PoisonError::into_inner));
                    continue;
                }
            };
            return Err(error.unwrap_or_else(|| "it is not in its place".into()));
        }
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
            let (next, waited) = self
                .done
                .wait_timeout(state, left.max(CLOSING_GRACE))
                .unwrap_or_else(PoisonError::into_inner);
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
            tracing::error!(?op, "lost: {}: the ledger stopped before it could be written", what(op));
        }
        state.health.lost += state.queue.len() as u64;
        drop(state);
        self.done.notify_all();
    }

    pub(crate) fn file_bytes(&self) -> Option<u64> {
        let size =
            |suffix: &str| std::fs::metadata(beside(&self.settings.path, suffix)).map(|file| file.len());
        size("").ok().map(|bytes| bytes + size("-wal").unwrap_or(0))
    }

    pub(crate) fn health(&self) -> Health {
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
            unreadable: counters.unreadable,
            lost_until: counters.lost_until,
            endings: counters.endings,
            evidence: counters.evidence,
            damaged: counters.damaged.clone(),
            mended: counters.mended.clone(),
        }
    }
}

impl State {
    /// One more waits, or what could not.
    fn take_in(&mut self, op: Keep) {
        match self.queue.push(op) {
            Pushed::Waits | Pushed::NotNeeded => {}
            Pushed::FactDropped | Pushed::WaitsForAFact => {
                self.health.evidence_dropped += 1;
                let (dropped, waiting) = (self.health.evidence_dropped, self.queue.len());
                if dropped % LOG_EVERY == 1 {
                    tracing::error!(dropped, waiting, "no room in memory: evidence is being dropped");
                }
            }
            Pushed::Refused(op) => {
                self.health.lost += 1;
                let lost = what(&op);
                tracing::error!(?op, "lost: {lost}: no room in memory, and the ledger cannot be written");
            }
        }
    }

    /// When what waits is to be written: this, or earlier.
    pub(crate) fn due(&self, now: Instant) -> Instant {
        let (returning, until) = self.returning;
        if self.at_once || self.closing.is_some() || self.waiting > 0 && self.waiting >= returning {
            return now;
        }
        let lingers = self.lingers_until.unwrap_or(now);
        if self.waiting > 0 { until } else { lingers.max(until) }
    }

    /// All that waits is taken to be written, or what `cut` leaves. Gives how many wait for it.
    pub(crate) fn begin(&mut self, now: Instant, cut: bool) -> u32 {
        self.at_once &= cut;
        self.lingers_until = cut.then_some(now);
        if cut { 0 } else { std::mem::take(&mut self.waiting) }
    }

    /// A commit that so many waited for took so long. They are told now, and as many as that may be back in a moment: who
    /// works through a list does the next thing when the last is done. To wait for them is cheaper than to have them wait for
    /// the next commit and then for their own; who is alone waits for nobody.
    pub(crate) fn committed(&mut self, served: u32, took: Duration, now: Instant) {
        let pause = (took / PAUSE_PART).min(PAUSE_MAX);
        let returning = served.saturating_add(self.waiting);
        self.returning = (returning, if returning > 0 { now + pause } else { now });
        self.pause = pause.max(PAUSE_MIN);
    }

    fn not_written(&self) -> LedgerError {
        let reason = match &self.failing {
            Some((error, _)) => error.clone(),
            None => "time is up".to_owned(),
        };
        LedgerError::NotWritten { waiting: self.queue.len(), reason }
    }
}

/// What is lost, in words: the whole of it is in the line's field `op`.
pub(crate) fn what(op: &Keep) -> String {
    match op {
        Keep::Start(start) => format!("the start of {:?}, run {}", start.name, start.run.0),
        Keep::Evidence(run, ..) => format!("evidence of run {}", run.0),
        Keep::Made(run, _) => format!("what run {} is made of", run.0),
        Keep::Ending(ending) => {
            let cause = ending.verdict.cause.word();
            format!("the ending of {:?}, run {}, {cause}", ending.name, ending.run.0)
        }
        Keep::Revised(ending) => {
            format!("the corrected ending of {:?}, run {}", ending.name, ending.run.0)
        }
        Keep::Acknowledge(run, by) => format!("that {:?} acknowledged run {}", by.by, run.0),
        Keep::Alive(_) => "a sign of life".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    /// A ledger whose last commit took 12 ms and served so many, and the moment when it was done.
    fn after_a_commit_for(served: u32) -> (Shared, Instant) {
        let shared = Shared::new(Settings::default(), None, Counters::default());
        let now = Instant::now();
        lock(&shared.state).committed(served, milliseconds(12), now);
        (shared, now)
    }

    #[test]
    fn those_who_came_too_late_for_a_commit_wait_for_those_whom_it_served() {
        let (shared, now) = after_a_commit_for(0);
        shared.keep(vec![Keep::Alive(Wall(1))]);
        shared.hurry(Haste::Now);
        lock(&shared.state).committed(2, milliseconds(12), now);
        assert_eq!(lock(&shared.state).due(now), now + milliseconds(3));
        shared.hurry(Haste::Now);
        shared.hurry(Haste::Now);
        assert_eq!(lock(&shared.state).due(now), now);
    }

    #[test]
    fn who_is_alone_waits_for_nobody() {
        for served in [0, 1] {
            let (shared, now) = after_a_commit_for(served);
            shared.keep(vec![Keep::Alive(Wall(1))]);
            shared.hurry(Haste::Now);
            assert_eq!(lock(&shared.state).due(now), now);
        }
    }

    #[test]
    fn those_who_were_served_together_are_waited_for_and_not_for_long() {
        let (shared, now) = after_a_commit_for(3);
        shared.keep(vec![Keep::Alive(Wall(1))]);
        for _ in 0..2 {
            shared.hurry(Haste::Now);
            assert_eq!(lock(&shared.state).due(now), now + milliseconds(3), "a quarter of the commit");
        }
        shared.hurry(Haste::Now);
        assert_eq!(lock(&shared.state).due(now), now, "all are back");
        let mut state = lock(&shared.state);
        assert_eq!(state.begin(now, false), 3);
        state.committed(3, milliseconds(300), now);
        drop(state);
        shared.keep(vec![Keep::Alive(Wall(2))]);
        shared.hurry(Haste::Now);
        assert_eq!(lock(&shared.state).due(now), now + PAUSE_MAX);
    }

    #[test]
    fn what_is_only_to_be_shown_has_a_moment_for_company_and_what_nobody_wants_longer() {
        let (shared, now) = after_a_commit_for(0);
        shared.keep(vec![Keep::Alive(Wall(1))]);
        let lingers = lock(&shared.state).due(now);
        assert!(lingers >= now + shared.settings.linger);
        shared.hurry(Haste::Soon);
        let soon = lock(&shared.state).due(now);
        assert!((now + milliseconds(3)..lingers).contains(&soon), "{:?}", soon - now);
        shared.hurry(Haste::Now);
        assert_eq!(lock(&shared.state).due(now), now);
    }
}
