//! What all sources of evidence have in common: how they are known, what they say and to whom, and the thread that says it.
//!
//! ```text
//! start(config, sink) ─▶ Source: one thread ──▶ Observed { subject, at, fact } ─┐
//!                          │                    Overrun                        ├─▶ Sink ─▶ the engine, and the registry that
//!                          │ dropped: woken,    Unavailable { why }            │           knows the state of each source
//!                          ▼ and waited for     Available ─────────────────────┘
//! ```
//!
//! A source never fails to start: one that cannot be had says that it is unavailable, and why. One that dies later says so
//! too, also where it dies of a bug. What has not been said is no evidence of anything.

use std::fmt::Display;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use whydown_core::cause::Cause;
use whydown_core::evidence::Fact;
use whydown_core::lifecycle::Subject;
use whydown_core::time::Wall;

/// How a source is known to administrators, and what is lost without it.
#[derive(Debug)]
pub struct About {
    /// Its lasting word in `health` and `doctor`.
    pub name: &'static str,
    /// What is missing without it, in a few words.
    pub gives: &'static str,
    /// The sentence where all is well.
    pub fine: &'static str,
    /// The causes that it helps to tell.
    pub causes: &'static [Cause],
    /// Whether these causes cannot be told from others without it, or not for certain; otherwise less is known of them.
    pub needed: bool,
    /// What is done instead where it is unavailable, if that gives the same at a higher price.
    pub instead: Option<&'static str>,
    /// What to do where it is unavailable, and what to add.
    pub advice: Advice,
    /// How it is where it is not wanted or not there by nature: a sentence, what to do, and what to add.
    pub off: Option<(&'static str, Advice)>,
}

/// What an administrator may do.
#[derive(Debug, Clone, Copy)]
pub struct Advice {
    /// In a sentence.
    pub what: &'static str,
    /// A command, a setting or a rule; may be empty.
    pub add: &'static str,
}

/// What a source says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Something happened.
    Observed {
        /// Of whom.
        subject: Subject,
        /// When it happened.
        at: Wall,
        /// What.
        fact: Fact,
    },
    /// More happened than there was room for: some of it is not told, and nobody knows what.
    Overrun,
    /// It observes nothing from now on, or not all that it should.
    Unavailable {
        /// In words for an administrator.
        why: String,
    },
    /// It observes, for the first time or again.
    Available,
}

/// Where a source says what it has to say. It may block. Cheap to clone.
#[derive(Clone)]
pub struct Sink(Arc<dyn Fn(Report) + Send + Sync>);

impl Sink {
    /// Has this called with each report, on the source's own thread or on that which starts it.
    pub fn new(taken: impl Fn(Report) + Send + Sync + 'static) -> Self {
        Self(Arc::new(taken))
    }

    /// Something happened.
    pub fn observed(&self, subject: Subject, at: Wall, fact: Fact) {
        (self.0)(Report::Observed { subject, at, fact });
    }

    /// Some of what happened is missed.
    pub fn overrun(&self) {
        (self.0)(Report::Overrun);
    }

    /// It observes nothing, or not all.
    pub fn unavailable(&self, why: impl Display) {
        (self.0)(Report::Unavailable { why: why.to_string() });
    }

    /// It observes.
    pub fn available(&self) {
        (self.0)(Report::Available);
    }
}

/// What wakes a source's thread, for good.
pub trait Wakeup: Send + Sync + 'static {
    /// It is to end now.
    fn end(&self);
}

/// What a source that waits for a file is woken by.
#[derive(Debug)]
pub struct Stop(OwnedFd);

/// What a wait for a file has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// It is to end.
    Ended,
    /// There is something to read, or the time is over, or neither: a reader that does not wait finds out.
    Look,
}

impl Stop {
    /// # Errors
    /// No descriptor is to be had.
    pub fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Waits for something to read, and no longer than this, where a time is given.
    ///
    /// # Errors
    /// The kernel's, where it does not wait for this file.
    pub fn wait_for(&self, file: impl AsFd, at_most: Option<Duration>) -> Result<Waited, Errno> {
        let wait = at_most.and_then(|wait| Timespec::try_from(wait).ok());
        let mut awaited = [PollFd::new(self, PollFlags::IN), PollFd::new(&file, PollFlags::IN)];
        match poll(&mut awaited, wait.as_ref()) {
            Ok(_) if !awaited[0].revents().is_empty() => Ok(Waited::Ended),
            Ok(_) | Err(Errno::INTR) => Ok(Waited::Look),
            Err(errno) => Err(errno),
        }
    }

    /// Rests for so long. Whether it is to end.
    pub fn rest(&self, pause: Duration) -> bool {
        let pause = Timespec::try_from(pause).ok();
        let mut awaited = [PollFd::new(self, PollFlags::IN)];
        matches!(poll(&mut awaited, pause.as_ref()), Ok(ready) if ready > 0)
    }
}

impl AsFd for Stop {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Wakeup for Stop {
    fn end(&self) {
        // Full only if it was told to end 2^64 times.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

/// Why a source that broke off by a bug is unavailable.
const BUG: &str = "it broke off by a bug, which the log names";

/// A source. Its thread ends when this is dropped. One that could not be had is empty.
#[derive(Default)]
pub struct Source(Option<Running>);

struct Running {
    wakeup: Arc<dyn Wakeup>,
    thread: Option<JoinHandle<()>>,
}

impl Source {
    /// Runs `observe` on a thread of this name, until it is woken by `wakeup` and gives `Ok`. Whatever else ends it is told.
    pub fn run<E: Display>(
        name: &str,
        sink: &Sink,
        wakeup: Arc<impl Wakeup>,
        observe: impl FnOnce() -> Result<(), E> + Send + 'static,
    ) -> Self {
        let told = sink.clone();
        let body = move || match catch_unwind(AssertUnwindSafe(observe)) {
            Ok(Ok(())) => {}
            Ok(Err(why)) => told.unavailable(why),
            // Its message is in the log: a panic writes it there.
            Err(_) => told.unavailable(BUG),
        };
        match std::thread::Builder::new().name(name.into()).spawn(body) {
            Ok(thread) => Self(Some(Running { wakeup, thread: Some(thread) })),
            Err(error) => Self::none(sink, format_args!("no thread is to be had: {error}")),
        }
    }

    /// One that cannot be had; the sink is told why.
    pub fn none(sink: &Sink, why: impl Display) -> Self {
        sink.unavailable(why);
        Self(None)
    }

    /// Whether its thread runs no more, or never did.
    pub fn has_ended(&self) -> bool {
        let thread = self.0.as_ref().and_then(|running| running.thread.as_ref());
        thread.is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.wakeup.end();
        if let Some(thread) = self.thread.take() {
            // It catches its own panics.
            let _ = thread.join();
        }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source").field("has_ended", &self.has_ended()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    fn sink() -> (Sink, Receiver<Report>) {
        let (tell, told) = channel();
        (Sink::new(move |report| drop(tell.send(report))), told)
    }

    /// Runs to the end what a source observes, and gives all that was told of it.
    fn told_by<E: Display>(observe: impl FnOnce() -> Result<(), E> + Send + 'static) -> Vec<Report> {
        let (sink, told) = sink();
        let source = Source::run("test", &sink, Stop::new().unwrap(), observe);
        drop((source, sink));
        told.iter().collect()
    }

    #[test]
    fn a_source_that_ends_by_itself_is_unavailable_and_one_that_is_ended_is_not() {
        let lost = |why: &str| vec![Report::Unavailable { why: why.into() }];
        assert_eq!(told_by(|| Err(Errno::BADF)), lost(&Errno::BADF.to_string()));
        assert_eq!(told_by(|| -> Result<(), Errno> { panic!("on purpose") }), lost(BUG));
        let stop = Stop::new().unwrap();
        let (sink, told) = sink();
        let (reader, _writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let waits = Arc::clone(&stop);
        let source = Source::run("test", &sink, stop, move || match waits.wait_for(&reader, None) {
            Ok(Waited::Ended) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        assert!(!source.has_ended());
        drop((source, sink));
        assert_eq!(told.iter().collect::<Vec<_>>(), []);
    }

    #[test]
    fn one_that_cannot_be_had_is_empty_and_says_why() {
        let (sink, told) = sink();
        assert!(Source::none(&sink, "no right").has_ended());
        drop(sink);
        assert_eq!(told.iter().collect::<Vec<_>>(), [Report::Unavailable { why: "no right".into() }]);
    }
}
