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
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use whydown_core::evidence::Fact;
use whydown_core::lifecycle::Subject;
use zruntime::SharedRuntime;

use super::bus::{Bus, BusError, State};
use super::{ANSWER_WAIT, Answer, Config, GoingDown, LOGIND, SYSTEMD};
use crate::source::{Sink, Source, Wakeup};

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
    _source: Source,
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

impl Wakeup for Shared {
    fn end(&self) {
        let mut inner = self.lock();
        inner.stop = true;
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl HostWatch {
    /// Begins now. Told is [`Fact::HostGoingDown`], once by each of logind and systemd; [`Fact::HostStays`], as of the first
    /// look after each connection, and when a shutdown was called off; and [`Fact::UnitStopping`] of the processes in a unit
    /// that systemd was given something to do with: of a scope that runs that is to stop it. A bus that cannot be had is
    /// tried again for ever.
    pub fn start(config: Config, sink: Sink) -> Self {
        let shared = Arc::<Shared>::default();
        let ears = Ears { config, shared: Arc::clone(&shared), sink: sink.clone() };
        let source = Source::run("host-bus", &sink, Arc::clone(&shared), move || ears.listen());
        Self { shared, _source: source }
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
            return Answer::Unavailable(inner.word.clone());
        }
        inner.questions.push(reply);
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        match answered.recv_timeout(ANSWER_WAIT) {
            Ok(word) => Answer::Heard(word),
            Err(_) => Answer::Unavailable(self.shared.lock().word.clone()),
        }
    }
}

/// The thread's own part.
struct Ears {
    config: Config,
    shared: Arc<Shared>,
    sink: Sink,
}

impl Ears {
    /// Until told to stop. The bus is another program's, and a panic over its words must not leave us deaf in silence.
    fn listen(self) -> Result<(), BusError> {
        catch_unwind(AssertUnwindSafe(|| self.listen_until_stopped())).map_err(|_| {
            self.shared.lose();
            BusError::Unreadable
        })
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
                self.sink.unavailable(why);
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
        let opened = runtime.timeout(2 * ANSWER_WAIT, Bus::open(&self.config.bus)).await;
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
                    self.has_a_job(unit);
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
                self.sink.available();
            }
        }
    }

    fn has_a_job(&self, unit: String) {
        let at = (self.config.clock)();
        for process in self.config.processes.units.processes_of(&unit) {
            let fact = Fact::UnitStopping { unit: unit.clone() };
            self.sink.observed(Subject::Process(process), at, fact);
        }
    }

    /// Tells what is new.
    fn apply(&self, state: State, first: bool) {
        let at = (self.config.clock)();
        let mut new = Vec::new();
        let mut inner = self.shared.lock();
        for (so, by) in [(state.announced, LOGIND), (state.stopping, SYSTEMD)] {
            if so && !inner.said.contains(&by) {
                inner.said.push(by);
                inner.word.get_or_insert_with(|| GoingDown { at, by: by.into() });
                new.push(Fact::HostGoingDown { by: by.into() });
            }
        }
        if !state.announced && !state.stopping {
            inner.said.clear();
            let called_off = inner.word.take().is_some();
            if called_off || first {
                new.push(Fact::HostStays);
            }
        }
        drop(inner);
        for fact in new {
            self.sink.observed(Subject::Host, at, fact);
        }
    }
}
