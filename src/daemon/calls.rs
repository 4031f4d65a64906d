//! Threads that call into libvirt and do nothing else: whatever else in the daemon blocks, an act finds its thread.
//!
//! ```text
//!  begin ──▶ waiting ──▶ a thread that comes takes the first, fetches another if more wait, and then makes its call
//!                ▲                                                                              │
//!                └─────────────────────────────── looks for more ◀─────────────────────────────┘
//! ```
//!
//! A call that hangs keeps its thread, and the one that was fetched before it began takes what waits: nobody is delayed.
//! Only one thread is fetched at a time, as most calls take less time than to wake one: of many that come at once most are
//! made by threads that are awake.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;

/// How long a thread waits for more to do before it leaves. One always stays.
const IDLE: Duration = Duration::from_secs(10);

type Call = Box<dyn FnOnce() + Send>;

/// See the module page. When it is dropped, what waits is forgotten, and a call that hangs is left behind.
pub struct Calls(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    work: Condvar,
    /// Threads at most.
    most: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Call>,
    threads: usize,
    idle: usize,
    /// A thread is on its way to what waits.
    coming: bool,
    closed: bool,
}

/// How a thread is fetched.
enum Fetched {
    Idle,
    New,
}

impl Calls {
    /// With so many threads at most.
    pub fn new(most: usize) -> Self {
        let state = State { threads: 1, coming: true, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), work: Condvar::new(), most });
        // Without it the program can ask nothing, and it has only just begun.
        shared.spawn().expect("the host gives a thread at the start");
        Self(shared)
    }

    /// Has this called on one of the threads. Waits for nothing.
    pub fn begin(&self, call: impl FnOnce() + Send + 'static) {
        let mut state = self.0.lock();
        state.waiting.push_back(Box::new(call));
        self.0.fetch(state);
    }

    /// The same, and tells what it gives; an error if it broke off.
    pub fn ask<T: Send + 'static>(&self, call: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
        let (tell, told) = oneshot::channel();
        self.begin(move || drop(tell.send(call())));
        told
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        let forgotten = std::mem::take(&mut state.waiting);
        drop(state);
        self.0.work.notify_all();
        drop(forgotten);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Calls are made without it, and every change under it is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a thread come if something waits and none is on its way. Where all are at work, the first that is done takes it.
    fn fetch(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if state.waiting.is_empty() || state.coming {
            return;
        }
        let fetched = match &mut *state {
            State { idle: 1.., .. } => Fetched::Idle,
            State { threads, .. } if *threads < self.most => {
                *threads += 1;
                Fetched::New
            }
            _ => return,
        };
        state.coming = true;
        drop(state);
        match fetched {
            Fetched::Idle => self.work.notify_one(),
            Fetched::New => {
                if let Err(error) = self.spawn() {
                    tracing::error!(%error, "the host gives no thread for a call into libvirt: it waits for another's end");
                    let mut state = self.lock();
                    state.threads -= 1;
                    state.coming = false;
                }
            }
        }
    }

    fn spawn(self: &Arc<Self>) -> std::io::Result<()> {
        let shared = Arc::clone(self);
        std::thread::Builder::new().name("libvirt-call".into()).spawn(move || shared.work()).map(drop)
    }

    /// A thread, from when it comes until it leaves.
    fn work(self: Arc<Self>) {
        let mut state = self.lock();
        state.coming = false;
        loop {
            if let Some(call) = state.waiting.pop_front() {
                self.fetch(state);
                if catch_unwind(AssertUnwindSafe(call)).is_err() {
                    tracing::error!("a call into libvirt broke off by a bug");
                }
                state = self.lock();
                continue;
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let (woken, waited) = self.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            // Whoever was meant: this one has come, and sees what waits.
            state.coming = false;
            if waited.timed_out() && state.waiting.is_empty() && state.threads > 1 {
                break;
            }
        }
        state.threads -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn calls_that_hang_delay_nobody() {
        let calls = Calls::new(8);
        let (end, ends) = channel::<()>();
        let ends = Arc::new(Mutex::new(ends));
        for _ in 0..7 {
            let ends = Arc::clone(&ends);
            calls.begin(move || assert!(ends.lock().unwrap().recv().is_err()));
        }
        // Each goes through what waits behind those that hang, some of them begun after it.
        for number in 0..1000 {
            assert_eq!(calls.ask(move || number).blocking_recv(), Ok(number));
        }
        drop(end);
    }

    #[test]
    fn as_many_as_there_are_threads_are_made_at_the_same_time() {
        const MOST: usize = 64;
        let calls = Calls::new(MOST);
        for _ in 0..3 {
            let (meet, met) = (Arc::new(Barrier::new(MOST + 1)), Arc::new(AtomicUsize::new(0)));
            for _ in 0..MOST {
                let (meet, met) = (Arc::clone(&meet), Arc::clone(&met));
                calls.begin(move || {
                    met.fetch_add(1, Ordering::SeqCst);
                    meet.wait();
                });
            }
            meet.wait();
            assert_eq!(met.load(Ordering::SeqCst), MOST);
        }
        assert!(calls.0.lock().threads <= MOST);
    }

    #[test]
    fn more_than_there_are_threads_wait_for_one() {
        let calls = Arc::new(Calls::new(3));
        let made = Arc::new(AtomicUsize::new(0));
        let askers: Vec<_> = (0..4)
            .map(|_| {
                let (calls, made) = (Arc::clone(&calls), Arc::clone(&made));
                std::thread::spawn(move || {
                    let asked: Vec<_> = (0..500)
                        .map(|_| {
                            let made = Arc::clone(&made);
                            calls.ask(move || made.fetch_add(1, Ordering::SeqCst))
                        })
                        .collect();
                    assert!(asked.into_iter().all(|told| told.blocking_recv().is_ok()));
                })
            })
            .collect();
        askers.into_iter().for_each(|asker| asker.join().unwrap());
        assert_eq!(made.load(Ordering::SeqCst), 2000, "each once");
        assert!(calls.0.lock().threads <= 3);
    }

    #[test]
    fn a_call_that_breaks_off_is_told_and_its_thread_goes_on() {
        let calls = Calls::new(1);
        let broken = calls.ask(|| std::panic::resume_unwind(Box::new("a bug")));
        let next = calls.ask(|| 7);
        assert!(broken.blocking_recv().map(|(): ()| ()).is_err());
        assert_eq!(next.blocking_recv(), Ok(7));
    }

    #[test]
    fn what_waits_at_the_end_is_forgotten_and_what_hangs_is_left_behind() {
        let calls = Calls::new(1);
        let ((end, ends), (begin, begun)) = (channel::<()>(), channel());
        let hangs = calls.ask(move || {
            begin.send(()).unwrap();
            ends.recv().is_err()
        });
        begun.recv().unwrap();
        let waits = calls.ask(|| ());
        drop(calls);
        assert!(waits.blocking_recv().is_err());
        drop(end);
        assert_eq!(hangs.blocking_recv(), Ok(true));
    }
}
