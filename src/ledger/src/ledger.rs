//! The handle that the rest of the program holds.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use whydown_core::id::RunId;
use whydown_core::record::{Ending, Haste, Keep, Recovered};

use crate::error::{LedgerError, Trouble};
use crate::health::Health;
use crate::history::{History, LIMIT_MAX, Page, Query};
use crate::known::Known;
use crate::opening;
use crate::readers::{Busy, Readers, Reading};
use crate::settings::Settings;
use crate::shared::{self, Shared};
use crate::writer::Writer;

/// How long the last handle waits for the writer when it is dropped.
const DROP_PATIENCE: Duration = Duration::from_secs(5);

/// Bytes of a page of [`Ledger::history`].
const PAGE_BYTES: usize = 1 << 20;

/// What the ledger says of what it was handed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It is on disk, whatever happens to the power.
    Kept(RunId),
    /// It cannot be written now and waits in memory. Said once; [`Told::Kept`] follows when it was written.
    NotKept(RunId),
    /// The correction of this number of the run's ending is on disk.
    KeptRevision(RunId, u16),
    /// Of all operations that were ever handed over, so many are on disk. Said after every commit, behind its endings.
    Written(u64),
    /// So many were handed over, and those that are not on disk wait in memory: the file cannot be written now.
    Unwritten(u64),
}

/// What opening gives.
#[derive(Debug)]
pub struct Opened {
    /// The handle.
    pub ledger: Ledger,
    /// What the file knew. Where even the last run number could not be read, it is the number of milliseconds since
    /// 1970, which is higher than any number ever given.
    pub recovered: Recovered,
    /// Why the ledger did not open as it should; it works all the same.
    pub trouble: Option<Trouble>,
}

/// The ledger. Clones share one file and one writer; the last one dropped waits some seconds for the writer to finish.
#[derive(Clone)]
pub struct Ledger {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Ledger {
    /// Opens or creates the file and starts the writer, a thread named `ledger`. This never fails: see
    /// [`Opened::trouble`]. It reads the whole file for damage first, which takes about a second for 500 MB.
    ///
    /// `told` is called on the writer's thread, in the order of the commits. It must not block for long, must not
    /// panic, and must not own a clone of the handle (which would then never be the last one).
    pub fn open(settings: Settings, told: impl Fn(Told) + Send + 'static) -> Opened {
        let start = opening::start(settings);
        let shared = Arc::new(start.shared);
        let known = Known::of(&start.recovered, start.newest, start.starts);
        let writer = Writer::new(Arc::clone(&shared), start.store, known, Box::new(told));
        let spawned = thread::Builder::new().name("ledger".into()).spawn(move || writer.run());
        let mut trouble = start.trouble;
        let thread = match spawned {
            Ok(thread) => Some(thread),
            Err(error) => {
                let reason = format!("the writer's thread cannot be started: {error}");
                tracing::error!(%error, "the ledger writes nothing: its thread cannot be started");
                shared.stop(Some(reason.clone()));
                trouble = Some(Trouble::Unavailable { path: shared.settings.path.clone(), reason });
                None
            }
        };
        Readers::start(&shared);
        let inner = Inner { shared, thread: Mutex::new(thread) };
        Opened { ledger: Self { inner: Arc::new(inner) }, recovered: start.recovered, trouble }
    }

    /// Has everything that was handed over written, at once or in a moment.
    ///
    /// [`Haste::Now`] is for one who waits, and is to be said once for each: as many of those whom one commit serves are waited
    /// for before the next, for a quarter of a commit's time and at most 5 ms. [`Haste::Soon`] waits as long for company.
    pub fn hurry(&self, haste: Haste) {
        self.inner.shared.hurry(haste);
    }

    /// Hands over an operation, to be written in this order: with [`Self::hurry`], or else some moments later, when more has
    /// come. Waits for no disk.
    pub fn keep(&self, op: Keep) {
        self.keep_together(vec![op]);
    }

    /// The same for several, in one commit: after a crash all of them are there, or none.
    pub fn keep_together(&self, ops: Vec<Keep>) {
        self.inner.shared.keep(ops);
    }

    /// One page of endings, newest first: those on disk, and those that wait in memory because they
    /// cannot be written. It ends when about `bytes`
    /// were found, or by the query's limit. What could not be read is said in it.
    ///
    /// It waits for nothing: `deliver` is called later, on another thread, where it must not block; never after the
    /// [`Reading`] was dropped, and not if the ledger stops first. `asker` is whose share of the readers it takes.
    ///
    /// # Errors
    /// [`Busy`] at once, if there is no room.
    pub fn ask(
        &self,
        asker: &str,
        query: Query,
        bytes: usize,
        deliver: impl FnOnce(Page) + Send + 'static,
    ) -> Result<Reading, Busy> {
        self.inner.shared.readers.ask(asker, query, bytes, Box::new(deliver))
    }

    /// The same, whole, for callers that may wait for the disk and for other readers.
    pub fn history(&self, query: &Query) -> History {
        let (mut history, mut query) = (History::default(), query.clone());
        query.limit = query.limit.min(LIMIT_MAX);
        loop {
            let (deliver, delivered) = std::sync::mpsc::channel();
            let readers = &self.inner.shared.readers;
            let send = Box::new(move |page| drop(deliver.send(page)));
            let _reading = readers.ask_patiently("", query.clone(), PAGE_BYTES, send);
            let Ok(page) = delivered.recv() else {
                history.unread.push(LedgerError::Unreadable {
                    path: self.inner.shared.settings.path.clone(),
                    reason: Busy::Stopped.to_string(),
                });
                return history;
            };
            query.limit -= page.endings.len();
            query.after = page.next;
            history.endings.extend(page.endings);
            history.unread.extend(page.unread);
            if query.after.is_none() || query.limit == 0 {
                return history;
            }
        }
    }

    /// The ending of one run, from disk or memory; `None` if the run is not known to have ended.
    ///
    /// # Errors
    /// The file cannot be read and the ending does not wait in memory, or its row makes no sense.
    pub fn ending(&self, run: RunId) -> Result<Option<Ending>, LedgerError> {
        let mut found = self.history(&Query { run: Some(run), limit: 1, ..Query::default() });
        match (found.endings.pop(), found.unread.pop()) {
            (Some(ending), _) => Ok(Some(ending)),
            (None, Some(error)) => Err(error),
            (None, None) => Ok(None),
        }
    }

    /// Bytes of the file and its write-ahead log; `None` if it is not there. Asks the disk.
    pub fn file_bytes(&self) -> Option<u64> {
        self.inner.shared.file_bytes()
    }

    /// How the ledger fares. Asks no disk.
    pub fn health(&self) -> Health {
        self.inner.shared.health()
    }

    /// Waits until everything that was handed over before is on disk. A ledger that is failing tries again at once.
    ///
    /// # Errors
    /// Time is up, or the writer has stopped.
    pub fn flush(&self, timeout: Duration) -> Result<(), LedgerError> {
        self.inner.shared.flush(deadline(timeout))
    }

    /// Writes everything that waits, closes the file and stops the writer. What is handed over afterwards is lost, and
    /// logged. Closing again does nothing.
    ///
    /// # Errors
    /// Time is up before everything is on disk; each ending that is not was logged whole, or is still being written.
    pub fn close(&self, timeout: Duration) -> Result<(), LedgerError> {
        self.inner.close(deadline(timeout))
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ledger").field("path", &self.inner.shared.settings.path).finish_non_exhaustive()
    }
}

impl Inner {
    fn close(&self, deadline: Instant) -> Result<(), LedgerError> {
        let closed = self.shared.close(deadline);
        let stopped = shared::lock(&self.shared.state).stopped;
        // A thread that hangs in the kernel over a dead disk is left behind.
        if let Some(thread) = shared::lock(&self.thread).take_if(|_| stopped)
            && thread.thread().id() != thread::current().id()
            && thread.join().is_err()
        {
            tracing::error!("the ledger's writer ended by a panic");
        }
        closed
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Err(error) = self.close(deadline(DROP_PATIENCE)) {
            tracing::error!(%error, "the ledger was dropped before everything was on disk");
        }
        self.shared.readers.stop();
    }
}

/// A timeout that no clock can express is as good as a year.
fn deadline(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or_else(|| now + Duration::from_secs(365 * 24 * 60 * 60))
}
