//! The watching thread and what it shares with those who add watches.
//!
//! ```text
//! watched ──pidfd readable──▶ ended, at a time ──status, or STATUS_WAIT over──▶ told, forgotten
//! ```

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use rustix::io::Errno;
use whydown_core::evidence::ExitStatus;
use whydown_core::hypervisor::Process;
use whydown_core::time::{Mono, Wall};

use super::connector::{Connector, Drained, Ended, Event};
use super::{Config, STATUS_WAIT, Watching, status, watch_with};
use crate::core_dump;
use crate::process::{Stat, kernel_clock};
use crate::source::{Sink, Wakeup};

/// The event that ends the thread.
const STOP: u64 = 0;

/// Process events are waiting.
const CONNECTOR: u64 = 1;

/// The first number of a watch.
const FIRST_TOKEN: u64 = 2;

/// Events taken from the kernel at a time.
const EVENTS: usize = 64;

/// Why a watch was not added.
pub(super) enum NotAdded {
    Full(usize),
    Refused(Errno),
}

#[derive(Debug)]
pub(super) struct Shared {
    epoll: OwnedFd,
    stop: OwnedFd,
    limit: usize,
    watches: Mutex<Watches>,
}

#[derive(Debug)]
struct Watches {
    next: u64,
    by_token: BTreeMap<u64, Watch>,
    by_pid: HashMap<u32, u64>,
}

#[derive(Debug)]
struct Watch {
    process: Process,
    pidfd: OwnedFd,
    /// On the kernel's monotonic clock. Events from before it are about an earlier process of the same pid.
    since: Mono,
    /// Whether we have the right to see its status while it is a zombie. Without it the status reads as zero.
    status_visible: bool,
    /// From the kernel's process events, which may come before we look at the pidfd.
    status: Option<ExitStatus>,
    ended: Option<(Wall, Instant)>,
}

impl Shared {
    /// Of nobody yet, and of no more than `limit`.
    pub(super) fn open(limit: usize) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)?;
        let watches = Watches { next: FIRST_TOKEN, by_token: BTreeMap::new(), by_pid: HashMap::new() };
        Ok(Self { epoll, stop, limit, watches: Mutex::new(watches) })
    }

    /// Wakes the thread for process events too.
    pub(super) fn hear(&self, connector: &Connector) -> io::Result<()> {
        let readable = epoll::EventFlags::IN;
        Ok(epoll::add(&self.epoll, connector, epoll::EventData::new_u64(CONNECTOR), readable)?)
    }

    pub(super) fn add(
        &self,
        process: Process,
        pidfd: OwnedFd,
        status_visible: bool,
    ) -> Result<Watching, NotAdded> {
        let mut watches = self.lock();
        let known = watches.by_pid.get(&process.pid).and_then(|token| watches.by_token.get(token));
        if known.is_some_and(|watch| watch.process == process) {
            return Ok(Watching::AlreadySo);
        }
        if watches.by_token.len() >= self.limit {
            return Err(NotAdded::Full(self.limit));
        }
        let token = watches.next;
        epoll::add(&self.epoll, &pidfd, epoll::EventData::new_u64(token), epoll::EventFlags::IN)
            .map_err(NotAdded::Refused)?;
        watches.next += 1;
        watches.by_pid.insert(process.pid, token);
        let since = kernel_clock();
        watches
            .by_token
            .insert(token, Watch { process, pidfd, since, status_visible, status: None, ended: None });
        Ok(Watching::Begun)
    }

    #[cfg(test)]
    pub(super) fn watched(&self) -> usize {
        self.lock().by_token.len()
    }

    /// Nothing that is done under this lock leaves the watches half changed, so that a panic does not spoil them.
    fn lock(&self) -> MutexGuard<'_, Watches> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wakeup for Shared {
    fn end(&self) {
        // Full only if it was told to stop 2^64 times.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
    }
}

impl Watches {
    /// The kernel tells how a process ended.
    fn heard(&mut self, ended: Ended) {
        let Some(watch) = self.by_pid.get(&ended.pid).and_then(|token| self.by_token.get_mut(token)) else {
            return;
        };
        if ended.at >= watch.since && watch.status.is_none() {
            watch.status = Some(status(ended.status));
        }
    }

    fn forget(&mut self, token: u64) -> Option<Watch> {
        let watch = self.by_token.remove(&token)?;
        if self.by_pid.get(&watch.process.pid) == Some(&token) {
            self.by_pid.remove(&watch.process.pid);
        }
        Some(watch)
    }
}

impl Watch {
    /// Looks at the zombie. Zero counts only where we know that we would see another number.
    fn look(&mut self) {
        let stat =
            Stat::of(self.process.pid).filter(|s| s.start_ticks == self.process.start_ticks && s.dead());
        if let Some(stat) = stat.filter(|stat| stat.exit_code != 0 || self.status_visible) {
            self.status = self.status.or(Some(status(stat.exit_code)));
        }
    }
}

/// The thread's own part.
pub(super) struct Ears {
    shared: Arc<Shared>,
    connector: Option<Connector>,
    config: Config,
    sink: Sink,
    /// Watches whose processes have ended, and that wait for a status.
    ending: Vec<u64>,
}

impl Ears {
    pub(super) fn new(shared: Arc<Shared>, connector: Option<Connector>, config: Config, sink: Sink) -> Self {
        Self { shared, connector, config, sink, ending: Vec::new() }
    }

    /// Until told to stop.
    pub(super) fn listen(mut self) -> Result<(), Errno> {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            match epoll::wait(&self.shared.epoll, spare_capacity(&mut events), self.patience().as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
            let mut heard = Vec::new();
            for event in events.drain(..) {
                match event.data.u64() {
                    STOP => return Ok(()),
                    CONNECTOR => {
                        for event in self.drain() {
                            match event {
                                Event::Ended(ended) => heard.push(ended),
                                Event::Began(pid) => self.began(pid),
                            }
                        }
                    }
                    token => self.ended(token, (self.config.clock)()),
                }
            }
            for (process, at, status) in self.settle(heard) {
                self.tell(process, at, status);
            }
        }
    }

    /// The process events that wait. Where they cannot be read any more nothing waits for them from then on.
    fn drain(&mut self) -> Vec<Event> {
        let Some(connector) = &self.connector else { return Vec::new() };
        let Drained { events, missed, lost } = connector.drain();
        if missed {
            self.sink.overrun();
        }
        if let Some(errno) = lost {
            self.connector = None;
            self.sink.unavailable(format_args!("the kernel's process events cannot be read: {errno}"));
        }
        events
    }

    /// A process has begun a program.
    fn began(&self, pid: u32) {
        let Some(begun) = self.config.processes.emulators.begun(pid) else { return };
        for fact in begun.facts {
            self.sink.observed(begun.subject, (self.config.clock)(), fact);
        }
        // One that is gone already ends without a word.
        let _ = watch_with(&self.shared, begun.process);
    }

    fn tell(&self, process: Process, at: Wall, status: Option<ExitStatus>) {
        let (subject, fact) = self.config.processes.emulators.ended(process, status);
        // Where its memory is comes first: the end may be decided as soon as its status is known.
        let core = status.filter(|status| status.may_dump_core()).and_then(|_| core_dump::of(process.pid));
        for fact in core.into_iter().chain(fact) {
            self.sink.observed(subject, at, fact);
        }
    }

    /// How long to wait for events: for ever, unless an end waits for its status.
    fn patience(&self) -> Option<Timespec> {
        let watches = self.shared.lock();
        let ended = self.ending.iter().filter_map(|token| watches.by_token.get(token)?.ended);
        let since = ended.map(|(_, since)| since).min()?;
        let left = STATUS_WAIT.saturating_sub(since.elapsed());
        Timespec::try_from(left).ok()
    }

    fn ended(&mut self, token: u64, at: Wall) {
        let mut watches = self.shared.lock();
        let Some(watch) = watches.by_token.get_mut(&token).filter(|watch| watch.ended.is_none()) else {
            return;
        };
        watch.ended = Some((at, Instant::now()));
        watch.look();
        self.ending.push(token);
        // It stays readable for good. Closing it would end this too, and comes at the latest after STATUS_WAIT.
        let _ = epoll::delete(&self.shared.epoll, &watch.pidfd);
    }

    /// Takes those whose status is known, or waited for in vain.
    fn settle(&mut self, heard: Vec<Ended>) -> Vec<(Process, Wall, Option<ExitStatus>)> {
        let mut watches = self.shared.lock();
        heard.into_iter().for_each(|ended| watches.heard(ended));
        let hopeless = self.connector.is_none();
        let mut settled = Vec::new();
        self.ending.retain(|token| {
            let ready = watches.by_token.get(token).is_none_or(|watch| {
                let over = watch.ended.is_none_or(|(_, since)| since.elapsed() >= STATUS_WAIT);
                watch.status.is_some() || hopeless || over
            });
            let known = if ready { watches.forget(*token) } else { None };
            settled.extend(known.and_then(|w| w.ended.map(|(at, _)| (w.process, at, w.status))));
            !ready
        });
        settled
    }
}
