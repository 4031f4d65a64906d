//! The thread that listens, and the questions that it answers.
//!
//! ```text
//! away ──▶ connected, subscribed ──▶ first look ──▶ heard ──▶ a signal, or a question: look ──▶ heard …
//!   ▲                                                 │ closed, or no answer in time
//!   └─────────── after 1 s, up to 30 s ◀──────────────┘
//! ```
//!
//! A question waits for a look that began after it, and all that wait share one.

use std::future::poll_fn;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use whydown_core::time::Wall;
use zruntime::SharedRuntime;

use super::bus::{Bus, BusError, State};
use super::{ANSWER_WAIT, Answer, GoingDown, HostWord, LOGIND, SYSTEMD};

/// Before a bus that went away is tried again: it comes back within seconds when it is restarted.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// And at most, after it has been away for long.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// Questions that wait. Who asks when there are more gets the last that was heard.
const QUESTIONS: usize = 256;

/// A question to systemd and logind, under way.
type Look = Pin<Box<dyn Future<Output = Result<State, BusError>>>>;

/// Listens on the system bus with one thread, named `host-bus`. Dropping it ends the thread.
#[derive(Debug)]
pub struct HostWatch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    stop: bool,
    /// Of the thread, while it waits.
    waker: Option<Waker>,
    heard: bool,
    /// The first word of those that hold now.
    word: Option<GoingDown>,
    /// Who has said it since it was last not so.
    said: Vec<&'static str>,
    questions: Vec<SyncSender<Option<GoingDown>>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bus is not heard any more; says whether it was. Who waits learns at once that nobody answers.
    fn lose(&self) -> bool {
        let mut inner = self.lock();
        inner.questions.clear();
        std::mem::take(&mut inner.heard)
    }
}

impl HostWatch {
    /// Begins now. `address` is that of a bus, as D-Bus writes it; `told` is called on the witness's own thread, and may
    /// block it.
    ///
    /// # Errors
    /// No thread is to be had. A bus that cannot be had is told.
    pub fn start(
        address: &str,
        told: impl Fn(HostWord) + Send + 'static,
        clock: impl Fn() -> Wall + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let ears = Ears { address: address.to_owned(), shared: Arc::clone(&shared), told, clock };
        let thread = std::thread::Builder::new().name("host-bus".into()).spawn(move || ears.listen())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Whether the bus is heard.
    pub fn is_heard(&self) -> bool {
        self.shared.lock().heard
    }

    /// Whether the host is going down now. Blocks for a millisecond as a rule, and for [`ANSWER_WAIT`] at most.
    pub fn ask(&self) -> Answer {
        let (reply, answered) = sync_channel(1);
        let mut inner = self.shared.lock();
        if !inner.heard || inner.questions.len() >= QUESTIONS {
            return Answer::Deaf(inner.word.clone());
        }
        inner.questions.push(reply);
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        match answered.recv_timeout(ANSWER_WAIT) {
            Ok(word) => Answer::Heard(word),
            Err(_) => Answer::Deaf(self.shared.lock().word.clone()),
        }
    }
}

impl Drop for HostWatch {
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        inner.stop = true;
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

/// The thread's own part.
struct Ears<T, C> {
    address: String,
    shared: Arc<Shared>,
    told: T,
    clock: C,
}

impl<T: Fn(HostWord), C: Fn() -> Wall> Ears<T, C> {
    /// Until told to stop. The bus is another program's, and a panic over its words must not leave us deaf in silence.
    fn listen(self) {
        if catch_unwind(AssertUnwindSafe(|| self.listen_until_stopped())).is_err() {
            self.shared.lose();
            (self.told)(HostWord::Deaf { why: BusError::Unreadable });
        }
    }

    fn listen_until_stopped(&self) {
        zbus::block_on(async {
            let mut listening = pin!(self.listen_for_ever());
            poll_fn(|context| {
                let mut inner = self.shared.lock();
                if inner.stop {
                    return Poll::Ready(());
                }
                inner.waker = Some(context.waker().clone());
                drop(inner);
                listening.as_mut().poll(context)
            })
            .await;
        });
    }

    async fn listen_for_ever(&self) {
        let (mut pause, mut said) = (PAUSE_MIN, false);
        loop {
            let why = match SharedRuntime::current() {
                Ok(runtime) => self.listen_once(&runtime).await,
                Err(error) => BusError::NoThread(error),
            };
            let was_heard = self.shared.lose();
            if was_heard || !said {
                said = true;
                (self.told)(HostWord::Deaf { why });
            }
            pause = if was_heard { PAUSE_MIN } else { (pause * 2).min(PAUSE_MAX) };
            match SharedRuntime::current() {
                Ok(runtime) => runtime.sleep(pause).await,
                // Without a descriptor for its timer this thread can do nothing but end; the other way is there.
                Err(_) => return,
            }
        }
    }

    /// Until the bus is lost.
    async fn listen_once(&self, runtime: &SharedRuntime) -> BusError {
        let opened = runtime.timeout(2 * ANSWER_WAIT, Bus::open(&self.address)).await;
        let mut bus = match opened {
            Ok(Ok(bus)) => bus,
            Ok(Err(why)) => return why,
            Err(_) => return BusError::Slow { what: "it cannot be reached" },
        };
        let (mut look, mut first) = (true, true);
        let mut waiting = Vec::new();
        let mut looking: Option<Look> = None;
        loop {
            let looked = poll_fn(|context| {
                match bus.poll_news(context) {
                    Poll::Ready(Ok(())) => look = true,
                    Poll::Ready(Err(why)) => return Poll::Ready(Err(why)),
                    Poll::Pending => {}
                }
                for unit in bus.take_units() {
                    (self.told)(HostWord::UnitJob { at: (self.clock)(), unit });
                }
                if looking.is_none() {
                    waiting = std::mem::take(&mut self.shared.lock().questions);
                    if !look && waiting.is_empty() {
                        return Poll::Pending;
                    }
                    look = false;
                }
                looking.get_or_insert_with(|| Box::pin(bus.asking.clone().state())).as_mut().poll(context)
            })
            .await;
            looking = None;
            match looked {
                Ok(state) => self.apply(state, first),
                Err(why) => return why,
            }
            let mut inner = self.shared.lock();
            inner.heard = true;
            let word = inner.word.clone();
            drop(inner);
            for question in waiting.drain(..) {
                // Who has given up is gone.
                let _ = question.try_send(word.clone());
            }
            if std::mem::take(&mut first) {
                (self.told)(HostWord::Heard);
            }
        }
    }

    /// Tells what is new.
    fn apply(&self, state: State, first: bool) {
        let at = (self.clock)();
        let mut new = Vec::new();
        let mut inner = self.shared.lock();
        for (so, by) in [(state.announced, LOGIND), (state.stopping, SYSTEMD)] {
            if so && !inner.said.contains(&by) {
                let word = GoingDown { at, by: by.into() };
                inner.said.push(by);
                inner.word.get_or_insert_with(|| word.clone());
                new.push(HostWord::GoingDown(word));
            }
        }
        if !state.announced && !state.stopping {
            inner.said.clear();
            let called_off = inner.word.take().is_some();
            if called_off || first {
                new.push(HostWord::Stays { at, called_off });
            }
        }
        drop(inner);
        for word in new {
            (self.told)(word);
        }
    }
}
