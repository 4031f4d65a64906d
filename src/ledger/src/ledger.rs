//! The handle that the rest of the program holds.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use whydown_core::id::RunId;
use whydown_core::record::{Ending, Keep, Recovered};

use crate::error::{LedgerError, Trouble};
use crate::health::Health;
use crate::history::{History, Query, Waiting};
use crate::opening;
use crate::settings::Settings;
use crate::shared::{self, Shared};
use crate::store::Failure;
use crate::writer::Writer;

/// How long the last handle waits for the writer when it is dropped.
const DROP_PATIENCE: Duration = Duration::from_secs(5);

/// How long a reader waits for what is on its way to disk. A disk that takes longer hangs.
const READER_PATIENCE: Duration = Duration::from_secs(5);

/// What the ledger says of what it was handed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It is on disk, whatever happens to the power.
    Kept(RunId),
    /// It cannot be written now and waits in memory. Said once; [`Told::Kept`] follows when it was written.
    NotKept(RunId),
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
        let writer = Writer::new(Arc::clone(&shared), start.store, Box::new(told));
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
        let inner = Inner { shared, thread: Mutex::new(thread) };
        Opened { ledger: Self { inner: Arc::new(inner) }, recovered: start.recovered, trouble }
    }

    /// Hands over an operation, to be written in this order. Waits for no disk.
    pub fn keep(&self, op: Keep) {
        self.inner.shared.keep(op);
    }

    /// Endings, newest first: those on disk, and those that wait in memory because they cannot be written. What could
    /// not be read is said in the answer. Waits for the disk, for other readers and, while the ledger is failing, for an attempt to open the file.
    pub fn history(&self, query: &Query) -> History {
        // Memory first: what leaves it in between is then found on disk.
        let waiting = self.waiting();
        let (mut history, failure) = shared::lock(&self.inner.shared.reader).history(query);
        self.suspect(failure);
        waiting.merge(query, &mut history);
        history
    }

    /// The ending of one run, from disk or memory; `None` if the run is not known to have ended.
    ///
    /// # Errors
    /// The file cannot be read and the ending does not wait in memory, or its row makes no sense.
    pub fn ending(&self, run: RunId) -> Result<Option<Ending>, LedgerError> {
        let waiting = self.waiting();
        let on_disk = {
            let mut reader = shared::lock(&self.inner.shared.reader);
            let found = reader.ending(run);
            found.map_err(|failure| {
                let error =
                    LedgerError::Unreadable { path: reader.path().to_owned(), reason: failure.to_string() };
                self.suspect(Some(failure));
                error
            })
        };
        let found = match on_disk {
            Ok(Ok(Some(ending))) => Ok(Some(ending)),
            Ok(Ok(None)) => Ok(waiting.ending(run)),
            Ok(Err(error)) | Err(error) => waiting.ending(run).map(Some).ok_or(error),
        };
        found.map(|ending| {
            ending.map(|mut ending| {
                waiting.acknowledge(&mut ending);
                ending
            })
        })
    }

    /// How the ledger fares.
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

    /// What waits in memory because it cannot be written. What is only on its way to disk is waited for: a reader is
    /// shown nothing before it is there, and misses nothing that was handed over before it asked.
    fn waiting(&self) -> Waiting {
        Waiting::of(self.inner.shared.when_written(READER_PATIENCE).queue.waiting())
    }

    fn suspect(&self, failure: Option<Failure>) {
        if let Some(Failure::Damaged(_)) = failure {
            self.inner.shared.suspect();
        }
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
    }
}

/// A timeout that no clock can express is as good as a year.
fn deadline(timeout: Duration) -> Instant {
    let now = Instant::now();
    now.checked_add(timeout).unwrap_or_else(|| now + Duration::from_secs(365 * 24 * 60 * 60))
}
