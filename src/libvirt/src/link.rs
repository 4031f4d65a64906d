//! The link: connects, tells what is there, notices when it is lost, and connects again, for ever.
//!
//! ```text
//!            ┌──────── wait (doubling, varied) ◀──────┐
//!            ▼                                        │ StillDown
//! start ─▶ connecting ── register, list, barrier ─────┤
//!            ▲   └─▶ up: LinkUp, then events          │
//!            │            │ closed, or not alive      │
//!            └────────────┴─ drain, LinkLost ─────────┘
//! ```
//!
//! Two threads of its own: one for the link, one that tells. Each attempt to connect has one more, because libvirt has
//! no time limit for opening: a libvirtd that hangs keeps that thread, and nothing else.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use tracing::{debug, error, info, warn};
use whydown_core::hypervisor::{Happening, Listing};
use whydown_core::time::Wall;

use crate::act::Refusal;
use crate::ffi::register::CloseReason;
use crate::ffi::{KeepAlive, event_loop};
use crate::guest::Agents;
use crate::hearing::{Bell, Hearing};
use crate::listing;
use crate::probes::{self, Call};
use crate::process::Processes;
use crate::queue::{Item, Queue};
use crate::session::Session;
use crate::settings::{Settings, Told};

/// How often the link is looked at without being called: libvirt's close callback normally comes first.
const LOOK: Duration = Duration::from_secs(1);

/// An attempt that takes longer than this is reported, and again after the same time.
const SLOW_ATTEMPT: Duration = Duration::from_secs(30);

/// How long events that libvirt had received before the link broke may take to be given out.
const DRAIN: Duration = Duration::from_secs(2);

/// How long [`Hypervisor::stop`] waits for a libvirt or a listener that hangs.
const STOPPING: Duration = Duration::from_secs(12);

/// A handle on one libvirt; clones share it. It works until [`Hypervisor::stop`], also when all handles are gone.
#[derive(Clone)]
pub struct Hypervisor {
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    processes: Processes,
    queue: Arc<Queue>,
    bell: Arc<Bell>,
    stopping: AtomicBool,
    session: Mutex<Option<Arc<Session>>>,
    agents: Agents,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Hypervisor {
    /// Begins to connect and to tell, and returns at once.
    ///
    /// `told` is called on one thread and in order: first [`Told::StillDown`] or [`Told::LinkUp`]; events only between
    /// `LinkUp` and [`Told::LinkLost`]. It may block: 16,384 events then wait here, after that libvirt queues, and as
    /// its loop stands still a remote libvirtd may break the link after half a minute. It may call this handle. A
    /// panic in it is logged, and that one message is lost.
    ///
    /// Never fails: what is wrong, with the address or with libvirt, is told as `StillDown`.
    pub fn start(settings: Settings, told: impl Fn(Told) + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared {
            processes: Processes::new(settings.run_files()),
            settings,
            queue: Arc::default(),
            bell: Arc::default(),
            stopping: AtomicBool::new(false),
            session: Mutex::default(),
            agents: Agents::default(),
            threads: Mutex::default(),
        });
        let teller = {
            let (queue, processes) = (Arc::clone(&shared.queue), shared.processes.clone());
            spawn("libvirt-teller", move || tell(&queue, &processes, told))
        };
        let link = {
            let shared = Arc::clone(&shared);
            spawn("libvirt-link", move || shared.run())
        };
        shared.threads.lock().unwrap_or_else(PoisonError::into_inner).extend([teller, link]);
        Self { shared }
    }

    /// Takes everything back, closes the connection and ends the threads. What was not told by then is not told any
    /// more. A driver inside this process leaves no probe of QEMU behind: what takes longer than 2 s is ended. True when
    /// all of that is done; false if libvirt or `told` still held something after 15 s, which is then left behind. May
    /// be called again, and from `told`.
    pub fn stop(&self) -> bool {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.queue.close();
        self.shared.bell.ring();
        let threads =
            std::mem::take(&mut *self.shared.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let me = std::thread::current().id();
        let until = Instant::now() + STOPPING;
        let joined =
            threads.into_iter().filter(|thread| !is(thread, me)).all(|thread| join_until(thread, until));
        let probes = self.settings().probes();
        joined & probes.is_none_or(|folder| probes::end_all(&folder, until))
    }

    pub(crate) fn session(&self) -> Result<Arc<Session>, Refusal> {
        self.shared.session().clone().ok_or(Refusal::NoLink)
    }

    pub(crate) fn agents(&self) -> &Agents {
        &self.shared.agents
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    pub(crate) fn processes(&self) -> &Processes {
        &self.shared.processes
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    // Without these threads the program hears nothing, and it has only just begun.
    std::thread::Builder::new().name(name.into()).spawn(body).expect("the host gives a thread at the start")
}

fn is(thread: &JoinHandle<()>, id: ThreadId) -> bool {
    thread.thread().id() == id
}

fn join_until(thread: JoinHandle<()>, until: Instant) -> bool {
    while !thread.is_finished() {
        if Instant::now() >= until {
            warn!("thread {} does not end and is left behind", thread.thread().name().unwrap_or("?"));
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    thread.join().is_ok()
}

/// The teller's thread: finds the process of a start, which only reads files, and tells.
fn tell(queue: &Queue, processes: &Processes, told: impl Fn(Told)) {
    while let Some(item) = queue.pop() {
        let message = match item {
            Item::Say(message) => message,
            Item::Heard(mut heard) => {
                if matches!(heard.event.what, Happening::Started(_)) {
                    heard.event.process = processes.of_run_at(&heard.event.domain.name, heard.arrived);
                }
                Told::Event(heard.event)
            }
        };
        if catch_unwind(AssertUnwindSafe(|| told(message))).is_err() {
            error!("a bug: the listener panicked, and what it was told is lost");
        }
    }
}

/// What an attempt to connect brings.
type Attempted = Result<(Arc<Session>, Listing), String>;

/// Why a session is over.
struct Loss {
    at: Wall,
    why: String,
}

impl Shared {
    fn session(&self) -> MutexGuard<'_, Option<Arc<Session>>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn say(&self, message: Told) {
        self.queue.push_now([Item::Say(message)]);
    }

    /// The link's thread.
    fn run(&self) {
        let mut backoff = Backoff::new(self.settings.reconnect_min, self.settings.reconnect_max);
        let mut attempts = 0u32;
        while !self.is_stopping() {
            match self.connect(attempts) {
                Some(Ok((session, listing))) => {
                    info!(uri = %self.settings.uri, domains = listing.domains.len(), "the link to libvirt is up");
                    let up = (Instant::now(), (self.settings.clock)());
                    attempts = 0;
                    self.live(session, listing, up.1);
                    // A link that breaks at once is no success: the waits go on where they were.
                    if up.0.elapsed() > self.settings.reconnect_max {
                        backoff.reset();
                    }
                }
                Some(Err(why)) => {
                    attempts = attempts.saturating_add(1);
                    debug!(uri = %self.settings.uri, attempts, "no link to libvirt: {why}");
                    self.say(Told::StillDown { why, attempts });
                }
                None => return,
            }
            self.pause(backoff.next());
        }
    }

    fn pause(&self, wait: Duration) {
        let until = Instant::now() + wait;
        while !self.is_stopping() && Instant::now() < until {
            self.bell.wait(until.saturating_duration_since(Instant::now()));
        }
    }

    /// One attempt. `None` when it was given up because we stop.
    fn connect(&self, attempts: u32) -> Option<Attempted> {
        let waiting = match self.begin_attempt() {
            Ok(waiting) => waiting,
            Err(why) => return Some(Err(why)),
        };
        let begun = Instant::now();
        let mut reported = 0;
        loop {
            match waiting.recv_timeout(Duration::from_millis(100)) {
                Ok(result) => return Some(result),
                Err(RecvTimeoutError::Disconnected) => {
                    return Some(Err("the attempt to connect broke off".into()));
                }
                Err(RecvTimeoutError::Timeout) if self.is_stopping() => return None,
                Err(RecvTimeoutError::Timeout) => {
                    let slow = begun.elapsed().as_secs() / SLOW_ATTEMPT.as_secs();
                    if slow > reported {
                        reported = slow;
                        let why = format!("libvirt has not answered for {} s", begun.elapsed().as_secs());
                        self.say(Told::StillDown { why, attempts: attempts.saturating_add(1) });
                    }
                }
            }
        }
    }

    fn begin_attempt(&self) -> Result<Receiver<Attempted>, String> {
        let (done, waiting) = sync_channel(1);
        let hearing =
            Arc::new(Hearing::new(Arc::clone(&self.queue), Arc::clone(&self.bell), self.settings.clock));
        let (settings, processes) = (self.settings.clone(), self.processes.clone());
        let attempt = move || {
            let _call = Call::begin();
            // If nobody waits any more, the session ends with the message.
            let _ = done.send(attempt(&settings, &processes, hearing));
        };
        let spawned = std::thread::Builder::new().name("libvirt-attempt".into()).spawn(attempt);
        spawned.map(|_| waiting).map_err(|error| format!("the host gives no thread: {error}"))
    }

    /// From `LinkUp` until the link is lost or we stop.
    fn live(&self, session: Arc<Session>, listing: Listing, up: Wall) {
        // Callers may act as soon as they are told, so the session is there first.
        *self.session() = Some(Arc::clone(&session));
        session.hearing.go_live(listing);
        let loss = loop {
            if self.is_stopping() {
                break None;
            }
            if let Some(loss) = self.loss(&session, up) {
                break Some(loss);
            }
            self.bell.wait(LOOK);
        };
        *self.session() = None;
        if let Some(Loss { at, why }) = loss {
            // What libvirt had received before is still in its queue, and is evidence.
            if !event_loop::barrier(DRAIN) {
                warn!("libvirt's event loop hangs: events of the last moments before the loss are missing");
            }
            session.hearing.fall_deaf();
            warn!(uri = %self.settings.uri, "the link to libvirt is lost: {why}");
            self.say(Told::LinkLost { at, why });
        }
        session.end();
    }

    fn loss(&self, session: &Session, up: Wall) -> Option<Loss> {
        let (reason, noticed) = match session.hearing.closed() {
            Some((reason, at)) => (Some(reason), at),
            None if session.conn.is_alive() => return None,
            None => (None, (self.settings.clock)()),
        };
        let why = match reason {
            Some(CloseReason::EndOfFile) => "libvirt closed the connection".to_owned(),
            Some(CloseReason::KeepAlive) => "libvirt did not answer keepalive messages".to_owned(),
            Some(CloseReason::Other(number)) => format!("libvirt's connection broke (reason {number})"),
            None => "libvirt's connection is dead".to_owned(),
        };
        let heard = session.hearing.last_heard().unwrap_or(up).max(up).min(noticed);
        Some(Loss { at: certain_until(reason, noticed, heard, session.watched(), &self.settings), why })
    }
}

/// Up to when everything was heard for certain. The end of the stream says that nothing is missing before it; any other
/// end may have been noticed as late as keepalive allows, but an event that arrived proves its own moment.
fn certain_until(
    reason: Option<CloseReason>,
    noticed: Wall,
    heard: Wall,
    watched: KeepAlive,
    settings: &Settings,
) -> Wall {
    if reason == Some(CloseReason::EndOfFile) || watched == KeepAlive::Local {
        return noticed;
    }
    if watched == KeepAlive::Silent {
        return heard;
    }
    let blind = i64::try_from(settings.keepalive_blindness().as_nanos()).unwrap_or(i64::MAX);
    Wall(noticed.0.saturating_sub(blind)).max(heard)
}

/// The whole attempt: loop, connection, registrations, listing.
fn attempt(settings: &Settings, processes: &Processes, hearing: Arc<Hearing>) -> Attempted {
    event_loop::ensure().map_err(|fault| fault.to_string())?;
    let heard_from = (settings.clock)();
    let session = Session::open(settings, hearing).map_err(|fault| fault.to_string())?;
    let listing = listing::take(&session.conn, &session.hearing, processes, heard_from)
        .map_err(|why| why.to_string())?;
    Ok((Arc::new(session), listing))
}

/// Waits that double up to a bound and vary, so that many hosts do not knock in step.
struct Backoff {
    min: Duration,
    max: Duration,
    wait: Duration,
}

impl Backoff {
    fn new(min: Duration, max: Duration) -> Self {
        let min = min.max(Duration::from_millis(1));
        Self { min, max: max.max(min), wait: min }
    }

    fn reset(&mut self) {
        self.wait = self.min;
    }

    /// Between half of this turn's wait and all of it.
    fn next(&mut self) -> Duration {
        let half = self.wait / 2;
        self.wait = self.wait.saturating_mul(2).min(self.max);
        // The standard library's only source of chance is the seed of its hash maps.
        let chance = RandomState::new().build_hasher().finish() as u32;
        half + half.mul_f64(f64::from(chance) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_again_after_a_success() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(min, max);
        for expected in [100, 200, 400, 800, 1000, 1000] {
            let wait = backoff.next().as_millis();
            assert!((expected / 2..=expected).contains(&wait), "{wait} of {expected}");
        }
        backoff.reset();
        assert!(backoff.next() <= min);
    }

    #[test]
    fn waits_vary() {
        let waits: std::collections::BTreeSet<_> =
            (0..20).map(|_| Backoff::new(Duration::from_secs(1), Duration::from_secs(1)).next()).collect();
        assert!(waits.len() > 1);
    }

    #[test]
    fn hearing_is_certain_only_as_far_as_the_way_of_the_loss_allows() {
        let settings = Settings::new("qemu:///system", || Wall(0));
        let (noticed, heard) = (Wall::from_millis(100_000), Wall::from_millis(70_000));
        let until =
            |reason, heard, watched| certain_until(reason, noticed, heard, watched, &settings).as_millis();
        assert_eq!(until(Some(CloseReason::EndOfFile), heard, KeepAlive::Running), 100_000);
        assert_eq!(until(Some(CloseReason::KeepAlive), heard, KeepAlive::Running), 80_000);
        assert_eq!(until(Some(CloseReason::Other(0)), heard, KeepAlive::Running), 80_000);
        assert_eq!(until(None, heard, KeepAlive::Running), 80_000);
        assert_eq!(
            until(Some(CloseReason::KeepAlive), Wall::from_millis(90_000), KeepAlive::Running),
            90_000
        );
        assert_eq!(until(Some(CloseReason::Other(0)), heard, KeepAlive::Silent), 70_000);
    }
}
