//! The told world: an engine, and a shell around it that can be late, deaf, forgetful and killed.
//!
//! ```text
//!  truth (Hypervisor) ──happens──▶ session ──hears──▶ postbox ──▶ Engine::step ──effects──▶ hands, ledger, replies
//!         ▲                         (link)                             ▲                          │
//!         └────────────── acts ─────────────────── agenda ◀────────────┴── answers, kept ─────────┘
//! ```
//!
//! Everything that is to come stands in one agenda, ordered by told time and then by the order in which it was written
//! down: the same story always gives the same effects.

mod agenda;
mod daemon;
mod hands;
mod link;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use whydown_core::hypervisor::{Happening, HostEvent, Process};
use whydown_core::id::{DomainId, RequestId, RunId};
use whydown_core::lifecycle::{Effect, Engine, Input, Outcome, Reply, Settings};
use whydown_core::snapshot::Snapshot;
use whydown_core::time::{Mono, Now, Wall};

use crate::hypervisor::Hypervisor;
use crate::invariants::Invariants;
use crate::ledger::{Disk, ToldLedger};
use crate::ways::Act;

use agenda::{Agenda, Due};
pub use link::Loss;
use link::Session;

/// How the world's answers come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answers {
    /// After this long.
    After(Duration),
    /// After this long, and only that there is none: libvirt cannot be asked, the log cannot be read.
    None(Duration),
}

/// Who decides what a request to libvirt does.
#[derive(Debug, Clone, Default)]
pub enum Acting {
    /// The told hypervisor does it, as libvirt would.
    #[default]
    Real,
    /// The story tells what happens; these outcomes are given in turn, and then *done*.
    Told(Vec<Outcome>),
}

/// What the world did, for comparison and for the reader of a failure.
#[derive(Debug, Clone, PartialEq)]
pub enum Trace {
    /// The engine was told.
    Told(Now, Input),
    /// The engine wanted.
    Wanted(Effect),
    /// A daemon began.
    DaemonBegan(Now),
    /// A daemon ended.
    DaemonEnded(Now),
}

/// How long the ledger waits for more where nothing is in a hurry.
const LINGER: Duration = Duration::from_millis(50);

/// Times of the told administrator; short ones, so that stories stay short.
pub fn settings(hypervisor: &Hypervisor) -> Settings {
    Settings {
        settle: Duration::from_millis(300),
        settle_snapshot: Duration::from_secs(1),
        heartbeat: Duration::from_secs(30),
        unacknowledged_max_age: Duration::from_secs(86_400),
        unacknowledged_max_count: 1000,
        boot: hypervisor.boot(),
        booted: hypervisor.booted,
        driver_inside: false,
    }
}

/// See the module page.
#[derive(Debug)]
pub struct World {
    now: Now,
    engine: Option<Engine>,
    /// Which daemon this is: what was meant for an earlier one is lost.
    daemon: u32,
    /// The truth.
    pub hypervisor: Hypervisor,
    /// The disk's contents.
    pub ledger: ToldLedger,
    /// How the disk is.
    pub disk: Disk,
    /// How answers come.
    pub answers: Answers,
    /// What becomes of requests to libvirt.
    pub acting: Acting,
    /// How long an event lies in queues before the engine takes it.
    pub event_delay: Duration,
    /// How long after a domain's state has changed libvirt reports it.
    pub report_delay: Duration,
    /// The longest that it was.
    pub longest_report_delay: Duration,
    /// How long a witness takes to say what it saw.
    pub witness_delay: Duration,
    /// Whether starts are reported with their process.
    pub processes_known: bool,
    /// Whether the next request to libvirt breaks off; and whether it takes effect all the same.
    pub break_next_act: Option<bool>,
    /// Whether the host's service manager, when it is asked, says that the host is up.
    pub host_says_up: bool,
    /// Who says that it goes down, when it is asked and not before.
    pub host_says_down: Option<String>,
    /// What boots leave behind on how they ended, each dated by that end.
    pub went_down: Vec<(whydown_core::id::BootId, Wall, whydown_core::evidence::Fact)>,
    /// Guests that take no notice of their power button.
    pub deaf_guests: BTreeSet<DomainId>,
    session: Session,
    sessions: u32,
    agenda: Agenda,
    /// When the ledger commits.
    commit_due: Option<Mono>,
    hear_last: Mono,
    reported_last: Mono,
    watched: BTreeSet<(u32, u64)>,
    replies: BTreeMap<RequestId, Vec<Reply>>,
    next_request: u64,
    trace: Vec<Trace>,
    traced: bool,
    deaf: Vec<(Mono, Mono)>,
    deaf_since: Option<Mono>,
    jumps: Vec<Mono>,
    /// Whether a listing came while the logs could not be read.
    pub(crate) logs_were_unread: bool,
    /// Since when it is on disk that a daemon listened.
    pub(crate) listened_since: Option<Mono>,
    invariants: Invariants,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// A host that has been up for a while, with libvirt, and no daemon yet.
    pub fn new() -> Self {
        let mono = Mono(1_000_000_000_000);
        Self {
            now: Now { mono, wall: Wall::from_millis(1_763_690_000_000) },
            engine: None,
            daemon: 0,
            hypervisor: Hypervisor::default(),
            ledger: ToldLedger::default(),
            disk: Disk::Works(Duration::from_millis(2)),
            answers: Answers::After(Duration::from_millis(3)),
            acting: Acting::default(),
            host_says_up: false,
            host_says_down: None,
            went_down: Vec::new(),
            event_delay: Duration::ZERO,
            report_delay: Duration::ZERO,
            longest_report_delay: Duration::ZERO,
            witness_delay: Duration::ZERO,
            processes_known: true,
            break_next_act: None,
            deaf_guests: BTreeSet::new(),
            session: Session::None,
            sessions: 0,
            agenda: Agenda::default(),
            commit_due: None,
            hear_last: mono,
            reported_last: mono,
            watched: BTreeSet::new(),
            replies: BTreeMap::new(),
            next_request: 0,
            trace: Vec::new(),
            traced: true,
            deaf: Vec::new(),
            deaf_since: Some(Mono(0)),
            jumps: Vec::new(),
            logs_were_unread: false,
            listened_since: None,
            invariants: Invariants::default(),
        }
    }

    /// Both clocks.
    pub fn now(&self) -> Now {
        self.now
    }

    /// The picture that readers have, while there is a daemon.
    pub fn snapshot(&self) -> Option<Snapshot> {
        self.engine.as_ref().map(Engine::snapshot)
    }

    /// The engine of the present daemon.
    pub fn engine(&self) -> Option<&Engine> {
        self.engine.as_ref()
    }

    /// All that was told and wanted so far.
    pub fn trace(&self) -> &[Trace] {
        &self.trace
    }

    /// Keeps no trace from now on: a storm's would be long.
    pub fn trace_off(&mut self) {
        self.traced = false;
    }

    /// The answers to a request.
    pub fn replies(&self, request: RequestId) -> &[Reply] {
        self.replies.get(&request).map_or(&[], Vec::as_slice)
    }

    /// Stretches of true time in which nothing could be heard, the present one included.
    pub fn deaf(&self) -> impl Iterator<Item = (Mono, Mono)> + '_ {
        self.deaf.iter().copied().chain(self.deaf_since.map(|since| (since, self.now.mono)))
    }

    /// Moments at which the wall clock was set.
    pub fn jumps(&self) -> &[Mono] {
        &self.jumps
    }

    /// What was found to be broken so far.
    pub fn broken(&self) -> &[String] {
        self.invariants.broken()
    }

    /// What has been seen of every run.
    pub fn invariants(&self) -> &Invariants {
        &self.invariants
    }

    /// Sets the wall clock by so many milliseconds.
    ///
    /// Not while a listing is taken: that takes some milliseconds, and which starts were logged before it is told by dates.
    pub fn jump(&mut self, millis: i64) {
        self.finish_session();
        self.now.wall = Wall(self.now.wall.0.saturating_add(millis.saturating_mul(1_000_000)));
        self.jumps.push(self.now.mono);
        if millis < 0 {
            self.invariants.clock_went_back();
        }
    }

    /// Lets told time pass, with all that is due in it.
    pub fn pass(&mut self, wait: Duration) {
        let until = self.now.mono.after(wait);
        loop {
            let due = self.agenda.next_at();
            let wake = self.engine.as_ref().and_then(Engine::wake_at);
            let Some(at) = due.into_iter().chain(wake).min().filter(|at| *at <= until) else { break };
            self.advance(at);
            if due.is_some_and(|due| due <= at) {
                if let Some(due) = self.agenda.pop() {
                    self.handle(due);
                }
            } else {
                self.tell(Input::Wake);
            }
        }
        self.advance(until);
    }

    fn advance(&mut self, to: Mono) {
        let step = to.since(self.now.mono);
        if self.engine.is_some() {
            self.ledger.lives(step);
        }
        self.now = Now { mono: self.now.mono.max(to), wall: self.now.wall.after(step) };
    }

    fn at(&mut self, wait: Duration, due: Due) {
        self.agenda.add(self.now.mono.after(wait), due);
    }

    /// Something happens to a domain, now and in the next moments.
    pub fn happens(&mut self, domain: DomainId, acts: Vec<(u64, Act)>) {
        for (after, act) in acts {
            self.at(Duration::from_millis(after), Due::Happens(domain, act));
        }
    }

    fn handle(&mut self, due: Due) {
        match due {
            Due::Happens(domain, act) => self.happen(domain, act),
            Due::Report(event) => self.report(event),
            Due::Hear(session, event, _) => {
                if session == self.session.number() && self.engine.is_some() {
                    self.tell(Input::Host(event));
                }
            }
            Due::Tell(daemon, input) => {
                if daemon == self.daemon {
                    self.tell(input);
                }
            }
            Due::Carry(daemon, question) => {
                if daemon == self.daemon {
                    self.carry(question);
                }
            }
            Due::Commit(daemon) => {
                if daemon == self.daemon && self.commit_due == Some(self.now.mono) {
                    self.commit();
                }
            }
        }
    }

    /// Tells the engine, and does what it wants.
    fn tell(&mut self, input: Input) {
        let Some(engine) = self.engine.as_mut() else { return };
        let before = engine.snapshot();
        let effects = engine.step(self.now, input.clone());
        let after = engine.snapshot();
        if self.traced {
            self.trace.push(Trace::Told(self.now, input.clone()));
            self.trace.extend(effects.iter().cloned().map(Trace::Wanted));
        }
        self.invariants.stepped(self.now, &input, &effects, &before, &after, &self.ledger);
        for effect in effects {
            self.carry_out(effect);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Ask(question) => {
                self.wanted(&question);
                let (Answers::After(wait) | Answers::None(wait)) = self.answers;
                self.at(wait, Due::Carry(self.daemon, question));
            }
            Effect::Keep(keep) => {
                self.ledger.keep(keep);
                self.commit_after(LINGER);
            }
            Effect::Hurry(_) => self.commit_after(Duration::ZERO),
            Effect::Reply(request, reply) => self.replies.entry(request).or_default().push(reply),
            Effect::Watch(process) => self.watch(process),
            Effect::Publish | Effect::Corrected(_) => {}
        }
    }

    fn watch(&mut self, process: Process) {
        self.watched.insert((process.pid, process.start_ticks));
    }

    /// A commit begins that long from now, or earlier, and takes what is handed over while it runs along.
    fn commit_after(&mut self, pause: Duration) {
        let wait = match self.disk {
            Disk::Works(wait) => wait,
            Disk::Fails => Duration::from_millis(1),
        };
        let at = self.now.mono.after(pause + wait);
        if self.ledger.is_waiting() && self.commit_due.is_none_or(|due| at < due) {
            self.commit_due = Some(at);
            self.agenda.add(at, Due::Commit(self.daemon));
        }
    }

    fn commit(&mut self) {
        self.commit_due = None;
        let tried = match self.disk {
            Disk::Works(_) => self.ledger.commit(),
            Disk::Fails => self.ledger.fail(),
        };
        self.invariants.committed(&tried);
        if self.ledger.recovered().alive.is_some() {
            self.listened_since.get_or_insert(self.now.mono);
        }
        if self.ledger.is_waiting() {
            let at = self.now.mono.after(Duration::from_secs(1));
            self.commit_due = Some(at);
            self.agenda.add(at, Due::Commit(self.daemon));
        }
        for run in tried.kept {
            self.tell(Input::Kept(run));
        }
        for run in tried.not_kept {
            self.tell(Input::NotKept(run));
        }
        for (run, number) in tried.revised {
            self.tell(Input::KeptRevision(run, number));
        }
        let count = tried.count;
        self.tell(if tried.written { Input::Written(count) } else { Input::Unwritten(count) });
    }

    /// The domains' latest runs as readers see them.
    pub fn public_run(&self, domain: DomainId) -> Option<RunId> {
        self.snapshot()?.domains.get(&domain).map(|public| public.run)
    }

    fn event(&self, domain: DomainId, what: Happening) -> HostEvent {
        let process = match what {
            Happening::Started(_) if self.processes_known => {
                self.hypervisor.life(domain).map(|life| life.process)
            }
            _ => None,
        };
        HostEvent { domain: self.hypervisor.reference(domain), at: self.now.wall, what, process }
    }
}
