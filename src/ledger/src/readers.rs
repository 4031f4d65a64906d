//! The reading side: few threads, each with a connection of its own, and a bounded queue before them.
//!
//! A read gives one page and never holds the file between two. Whoever asks is told at once when the queue is full, or
//! when too much of it is theirs; whoever goes takes the read along. The writer can have all readers stand back.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rusqlite::InterruptHandle;

use crate::error::LedgerError;
use crate::history::{Page, Query, Reader, Waiting};
use crate::shared::{Shared, lock};
use crate::store::Failure;

/// Pages that are read at once. More would only wait for the same disk.
const THREADS: usize = 2;

/// Reads that wait at most; a page takes milliseconds, so that the last of them waits less than a second.
const WAITING_MAX: usize = 64;

/// Reads of one asker that wait or are under way at most.
const SHARE: usize = 16;

/// How long a reader waits for what is on its way to disk. A disk that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the writer waits for readers to stand back. They are told to; who takes longer hangs in the kernel.
const STAND_BACK: Duration = Duration::from_secs(2);

/// There is no room for another read now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Busy {
    /// Others read.
    #[error("too many read the ledger: try again")]
    Others,
    /// The same asker reads as much as one may.
    #[error("too many reads of yours are under way: try again")]
    Yours,
    /// The ledger has stopped.
    #[error("the ledger has stopped")]
    Stopped,
}

/// A read that was asked for. Dropping it gives up the read, also one that is under way.
#[derive(Debug)]
pub struct Reading(Arc<Ticket>);

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.given_up.store(true, Ordering::Release);
        self.0.interrupt();
    }
}

#[derive(Default)]
struct Ticket {
    given_up: AtomicBool,
    /// What ends the read while it is under way.
    under_way: Mutex<Option<InterruptHandle>>,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").field("given_up", &self.given_up).finish_non_exhaustive()
    }
}

impl Ticket {
    fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire)
    }

    fn interrupt(&self) {
        if let Some(handle) = &*lock(&self.under_way) {
            handle.interrupt();
        }
    }
}

struct Job {
    asker: Arc<str>,
    query: Query,
    bytes: usize,
    ticket: Arc<Ticket>,
    deliver: Box<dyn FnOnce(Page) + Send>,
}

impl Job {
    fn new(asker: &str, query: Query, bytes: usize, deliver: Box<dyn FnOnce(Page) + Send>) -> Box<Self> {
        Box::new(Self { asker: asker.into(), query, bytes, ticket: Arc::default(), deliver })
    }
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Box<Job>>,
    /// Waiting or under way, of each asker.
    shares: BTreeMap<Arc<str>, usize>,
    under_way: Vec<Arc<Ticket>>,
    threads: usize,
    stand_back: usize,
    stopped: bool,
}

/// See the module page.
pub(crate) struct Readers {
    state: Mutex<State>,
    /// There is work, or it is over.
    work: Condvar,
    /// A read has ended.
    ended: Condvar,
    slots: Vec<Mutex<Reader>>,
}

impl Readers {
    pub(crate) fn new(path: &std::path::Path) -> Self {
        let slots = (0..THREADS).map(|_| Mutex::new(Reader::new(path.to_owned()))).collect();
        Self { state: Mutex::default(), work: Condvar::new(), ended: Condvar::new(), slots }
    }

    /// Starts the threads. With none, every read is refused.
    pub(crate) fn start(shared: &Arc<Shared>) {
        for slot in 0..THREADS {
            let ours = Arc::clone(shared);
            match thread::Builder::new().name("ledger-reader".into()).spawn(move || run(&ours, slot)) {
                Ok(_) => lock(&shared.readers.state).threads += 1,
                Err(error) => tracing::error!(%error, "a thread that reads the ledger cannot be started"),
            }
        }
    }

    /// Takes on a read, or says at once that there is no room. `deliver` is called on a reader's thread, and must not
    /// block.
    pub(crate) fn ask(
        &self,
        asker: &str,
        query: Query,
        bytes: usize,
        deliver: Box<dyn FnOnce(Page) + Send>,
    ) -> Result<Reading, Busy> {
        let job = Job::new(asker, query, bytes, deliver);
        let reading = Reading(Arc::clone(&job.ticket));
        self.admit(lock(&self.state), job).map(|()| reading).map_err(|(busy, _)| busy)
    }

    /// The same for a caller that may block: it waits for room.
    pub(crate) fn ask_patiently(
        &self,
        asker: &str,
        query: Query,
        bytes: usize,
        deliver: Box<dyn FnOnce(Page) + Send>,
    ) -> Result<Reading, Busy> {
        let mut job = Job::new(asker, query, bytes, deliver);
        let reading = Reading(Arc::clone(&job.ticket));
        let mut state = lock(&self.state);
        loop {
            job = match self.admit(state, job) {
                Ok(()) => return Ok(reading),
                Err((Busy::Stopped, _)) => return Err(Busy::Stopped),
                Err((_, job)) => job,
            };
            // A wait of some time, as room may have come between the two locks.
            let wait = Duration::from_millis(20);
            let waited = self.ended.wait_timeout(lock(&self.state), wait);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn admit(&self, mut state: MutexGuard<'_, State>, job: Box<Job>) -> Result<(), (Busy, Box<Job>)> {
        if state.stopped || state.threads == 0 {
            return Err((Busy::Stopped, job));
        }
        // Those that were given up while they waited hold no place.
        let State { jobs, shares, .. } = &mut *state;
        jobs.retain(|job| {
            let given_up = job.ticket.is_given_up();
            if given_up {
                give_back(shares, &job.asker);
            }
            !given_up
        });
        if state.shares.get(&job.asker).is_some_and(|mine| *mine >= SHARE) {
            return Err((Busy::Yours, job));
        }
        if state.jobs.len() >= WAITING_MAX {
            return Err((Busy::Others, job));
        }
        *state.shares.entry(Arc::clone(&job.asker)).or_default() += 1;
        state.jobs.push_back(job);
        drop(state);
        self.work.notify_all();
        Ok(())
    }

    /// Has every reader let go of the file, and keeps it so until what this gives back is dropped. Reads under way are
    /// broken off and done again afterwards.
    pub(crate) fn stand_back(&self) -> StandBack<'_> {
        let mut state = lock(&self.state);
        state.stand_back += 1;
        self.wait_for_none(state);
        self.close_all();
        StandBack(self)
    }

    /// No more reads: those that wait get no answer. The threads end.
    pub(crate) fn stop(&self) {
        let mut state = lock(&self.state);
        state.stopped = true;
        state.shares.clear();
        state.under_way.iter().for_each(|ticket| ticket.interrupt());
        let waiting = std::mem::take(&mut state.jobs);
        drop(state);
        drop(waiting);
        self.work.notify_all();
        self.ended.notify_all();
    }

    fn wait_for_none(&self, mut state: MutexGuard<'_, State>) {
        let deadline = Instant::now() + STAND_BACK;
        while !state.under_way.is_empty() {
            // Again and again: one that was just beginning hears nothing yet.
            state.under_way.iter().for_each(|ticket| ticket.interrupt());
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                tracing::warn!("a read of the ledger hangs and is not waited for");
                return;
            }
            let wait = left.min(Duration::from_millis(20));
            state = self.ended.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn close_all(&self) {
        for slot in &self.slots {
            if let Ok(mut reader) = slot.try_lock() {
                reader.close();
            }
        }
    }

    fn next(&self) -> Option<Box<Job>> {
        let mut state = lock(&self.state);
        loop {
            if state.stopped {
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// From now on it holds the file; not while readers stand back.
    fn begin(&self, job: &Job) {
        let mut state = lock(&self.state);
        while state.stand_back > 0 && !state.stopped {
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.under_way.push(Arc::clone(&job.ticket));
    }

    /// The read is over, or is to be done again.
    fn end(&self, ticket: &Arc<Ticket>, asker: &Arc<str>, again: Option<Box<Job>>) {
        lock(&ticket.under_way).take();
        let mut state = lock(&self.state);
        state.under_way.retain(|other| !Arc::ptr_eq(other, ticket));
        match again {
            Some(job) if !state.stopped => state.jobs.push_front(job),
            _ => give_back(&mut state.shares, asker),
        }
        drop(state);
        self.ended.notify_all();
        self.work.notify_all();
    }
}

fn give_back(shares: &mut BTreeMap<Arc<str>, usize>, asker: &Arc<str>) {
    if let Some(share) = shares.get_mut(asker) {
        *share -= 1;
        if *share == 0 {
            shares.remove(asker);
        }
    }
}

/// Readers stand back while this lives.
pub(crate) struct StandBack<'a>(&'a Readers);

impl Drop for StandBack<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).stand_back -= 1;
        self.0.work.notify_all();
    }
}

fn run(shared: &Shared, slot: usize) {
    let readers = &shared.readers;
    while let Some(job) = readers.next() {
        let (ticket, asker) = (Arc::clone(&job.ticket), Arc::clone(&job.asker));
        let begin = |handle: InterruptHandle| {
            *lock(&ticket.under_way) = Some(handle);
            if ticket.is_given_up() { Err(Failure::BrokenOff) } else { Ok(()) }
        };
        // Memory first: what leaves it in between is then found on disk.
        let waiting = waiting(shared, &job.query);
        let in_place = shared.when_in_place(PATIENCE);
        readers.begin(&job);
        let (page, failure) = match in_place {
            Ok(()) => lock(&readers.slots[slot]).page(&job.query, job.bytes, &begin),
            Err(reason) => {
                let path = shared.settings.path.clone();
                (Page { unread: vec![LedgerError::Unreadable { path, reason }], ..Page::default() }, None)
            }
        };
        let again = match failure {
            Some(Failure::BrokenOff) => (!ticket.is_given_up()).then_some(job),
            failure => {
                if let Some(Failure::Damaged(_)) = failure {
                    shared.suspect();
                }
                if !ticket.is_given_up() {
                    (job.deliver)(waiting.merge(&job.query, job.bytes, page));
                }
                None
            }
        };
        readers.end(&ticket, &asker, again);
    }
}

/// What waits in memory because it cannot be written. What is only on its way to disk is waited for: a reader is shown
/// nothing before it is there, and misses nothing that was handed over before it asked. Who goes on behind an earlier
/// page need not wait: what is new stands before it.
fn waiting(shared: &Shared, query: &Query) -> Waiting {
    let state = match query.after {
        None => shared.when_written(PATIENCE),
        Some(_) => lock(&shared.state),
    };
    match query.after {
        Some(_) if state.failing.is_none() => Waiting::default(),
        _ => Waiting::of(state.queue.waiting()),
    }
}
