//! The engine's state, its step, its deadlines, and the picture that it publishes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::astray::Astray;
use super::clock::Clock;
use super::effect::{Effect, Input, Subject};
use super::failed::ToldStart;
use super::gate::Gate;
use super::host::HostQuestion;
use super::late::Ended;
use super::loose::Loose;
use super::run::{Phase, Run};
use super::unheard::Doubtful;
use crate::evidence::Fact;
use crate::hypervisor::{Happening, Process, Server};
use crate::id::{BootId, DomainId, RunId};
use crate::log::Log;
use crate::record::{Ending, Keep, Recovered, RunStart, Seen};
use crate::sample::Devices;
use crate::snapshot::{DomainPublic, Link, Snapshot, Status};
use crate::time::{Mono, Now, Wall};

/// What the administrator chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// How long a vanished process's last words are waited for.
    pub settle: Duration,
    /// How long a start from a snapshot is waited for.
    pub settle_snapshot: Duration,
    /// How often the ledger is told that we listen.
    pub heartbeat: Duration,
    /// How old a Down record may grow without acknowledgement.
    pub unacknowledged_max_age: Duration,
    /// How many Down records may stand without acknowledgement.
    pub unacknowledged_max_count: usize,
    /// The present boot of the host.
    pub boot: BootId,
    /// When that began, as far as the host's clock tells.
    pub booted: Option<Wall>,
    /// Whether libvirt's driver is inside this process: then what an earlier process asked of it has ended with that.
    pub driver_inside: bool,
}

/// A Down domain that no manager has acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Down {
    pub ending: Arc<Ending>,
    pub durable: bool,
    /// How old it was at `since`, in time that whydown lived through.
    pub age: Duration,
    pub since: Mono,
    /// What it was made of.
    pub made: Option<Arc<Devices>>,
}

impl Down {
    /// How old it is. No wall clock makes it older.
    pub fn age(&self, now: Mono) -> Duration {
        self.age.saturating_add(now.since(self.since))
    }
}

/// Something that was heard of a domain without an open run, and may belong to the next one.
#[derive(Debug, Clone)]
pub(super) struct Prelude {
    pub at: Wall,
    /// When the engine heard it.
    pub heard: Mono,
    pub what: Happening,
}

/// What was witnessed of a process that was begun for a domain, before libvirt told of it. If it never does, the process
/// belongs to a start that failed.
#[derive(Debug, Clone)]
pub(super) struct Stray {
    pub process: Process,
    pub at: Wall,
    pub fact: Fact,
}

/// Facts of processes that have not come up, kept for one domain.
const STRAYS_PER_DOMAIN: usize = 16;

/// An end whose STOPPED may still come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Echo {
    /// When the engine learned of the end.
    pub at: Mono,
    /// Whether STOPPED was heard already.
    pub heard: bool,
    /// libvirt's number of the run.
    pub libvirt_id: Option<u32>,
    /// The process, where it was seen to exit and libvirt went on showing the run: it stays until libvirt takes note.
    pub ghost: Option<crate::hypervisor::Process>,
}

/// See the module page.
#[derive(Debug)]
pub struct Engine {
    pub(super) settings: Settings,
    pub(super) link: Link,
    /// Who libvirt is, where that is known.
    pub(super) server: Option<Server>,
    /// Whether a listing was ever taken.
    pub(super) settled: bool,
    /// Where hearing ended before this process began, as far as the ledger knows.
    pub(super) alive_before: Option<Wall>,
    pub(super) last_run: u64,
    pub(super) runs: BTreeMap<RunId, Run>,
    /// The latest run of each domain, while it is followed.
    pub(super) current: BTreeMap<DomainId, RunId>,
    pub(super) down: BTreeMap<DomainId, Down>,
    /// What those are called now that were renamed since they ended. Endings keep the names of their time.
    pub(super) new_names: BTreeMap<DomainId, String>,
    /// Runs whose ending was told and is not certain, for a while: late proof may be about them.
    pub(super) ended: BTreeMap<RunId, Ended>,
    /// The same of the daemon before us, until the first step.
    uncertain: Vec<(RunStart, Ending)>,
    pub(super) preludes: BTreeMap<DomainId, Vec<Prelude>>,
    pub(super) strays: BTreeMap<DomainId, Vec<Stray>>,
    /// What was said of processes that nobody is known to have.
    pub(super) loose: Loose,
    /// What libvirt was asked to do to runs, and may do to others.
    pub(super) astray: Astray,
    /// Looks under way, one a domain; true when it was overtaken by events and says nothing.
    pub(super) looks: BTreeMap<DomainId, bool>,
    /// Domains of which nobody could say how they are; asked again with the next heartbeat.
    pub(super) unseen: BTreeSet<DomainId>,
    /// Domains whose last run ended a moment ago: a STOPPED that comes now may be about that run.
    pub(super) echoes: BTreeMap<DomainId, Echo>,
    /// While a listing is taken in: domains of which events are still to come.
    pub(super) changing: BTreeSet<DomainId>,
    /// The latest run of each domain that is no more followed.
    pub(super) latest: BTreeMap<DomainId, Seen>,
    /// Logs that were written while nobody listened, until the listing comes.
    pub(super) past: Vec<Log>,
    /// Starts in those logs of which something must tell whether they are over.
    pub(super) doubtful: Doubtful,
    /// The last starts of each domain that failed and were told.
    pub(super) failed: BTreeMap<DomainId, VecDeque<ToldStart>>,
    pub(super) next_heartbeat: Option<Mono>,
    alarms: BTreeSet<(Mono, RunId)>,
    pub(super) effects: Vec<Effect>,
    pub(super) gate: Gate,
    pub(super) host: HostQuestion,
    pub(super) clock: Clock,
    /// The moment of the present step.
    pub(super) mono: Mono,
    /// The same by the wall clock.
    pub(super) wall: Wall,
    pub(super) public: BTreeMap<DomainId, Arc<DomainPublic>>,
    generation: u64,
    changed: bool,
    /// Whether the first step is still to come: what was recovered is shown with it, as only then the time is known.
    fresh: bool,
    /// No status time goes below this: milliseconds.
    pub(super) floor: i64,
}

impl Engine {
    /// An engine that goes on where the ledger stands. Nothing is public before the first step.
    pub fn recover(settings: Settings, recovered: Recovered) -> Self {
        let floor = recovered.latest().as_millis();
        let mut engine = Self {
            settings,
            link: Link::Down { since: recovered.alive.unwrap_or_default() },
            server: None,
            settled: false,
            alive_before: recovered.alive,
            last_run: recovered.last_run,
            runs: BTreeMap::new(),
            current: BTreeMap::new(),
            down: BTreeMap::new(),
            new_names: BTreeMap::new(),
            ended: BTreeMap::new(),
            uncertain: recovered.uncertain,
            preludes: BTreeMap::new(),
            strays: BTreeMap::new(),
            loose: Loose::default(),
            astray: Astray::default(),
            looks: BTreeMap::new(),
            unseen: BTreeSet::new(),
            echoes: BTreeMap::new(),
            changing: BTreeSet::new(),
            latest: recovered.latest.into_iter().map(|seen| (seen.domain, seen)).collect(),
            past: Vec::new(),
            doubtful: Doubtful::new(),
            failed: BTreeMap::new(),
            next_heartbeat: None,
            alarms: BTreeSet::new(),
            effects: Vec::new(),
            gate: Gate::default(),
            host: HostQuestion::default(),
            clock: Clock::default(),
            mono: Mono::default(),
            wall: Wall::default(),
            public: BTreeMap::new(),
            generation: 0,
            changed: true,
            fresh: true,
            floor,
        };
        let mut made: BTreeMap<RunId, Arc<Devices>> =
            recovered.made.into_iter().map(|(run, devices)| (run, Arc::new(devices))).collect();
        for ending in recovered.unacknowledged {
            engine.last_run = engine.last_run.max(ending.run.0);
            let age = recovered.ages.get(&ending.run).copied().unwrap_or_default();
            let since = Mono::default();
            let made = made.remove(&ending.run);
            let (domain, ending) = (ending.domain, Arc::new(ending));
            engine.down.insert(domain, Down { ending, durable: true, age, since, made });
        }
        let mut open = recovered.open;
        open.sort_by_key(|(start, _)| start.run);
        for (start, evidence) in open {
            engine.last_run = engine.last_run.max(start.run.0);
            // Of a domain's runs only the latest is current; older ones that were left open end at the listing.
            let newest = engine.down.get(&start.domain).is_none_or(|down| down.ending.run < start.run);
            if newest {
                engine.current.insert(start.domain, start.run);
            }
            let mut run = Run::new(start, Phase::Active, Status::Up, evidence);
            if newest && !engine.settings.driver_inside && run.start.incarnation.boot == engine.settings.boot
            {
                run.may_still_start();
            }
            run.made = made.remove(&run.start.run);
            engine.runs.insert(run.start.run, run);
        }
        engine
    }

    /// Takes one input and says what should be done about it.
    pub fn step(&mut self, now: Now, input: Input) -> Vec<Effect> {
        (self.mono, self.wall) = (now.mono, now.wall);
        if std::mem::take(&mut self.fresh) {
            for down in self.down.values_mut() {
                down.since = now.mono;
            }
            for run in self.runs.values_mut() {
                run.doubt_since(now);
            }
            let known: Vec<_> = self.current.keys().chain(self.down.keys()).copied().collect();
            for domain in known {
                self.touch(now, domain);
            }
            let uncertain = std::mem::take(&mut self.uncertain);
            self.recover_ended(now, uncertain);
        }
        self.look_at_clock(now);
        match input {
            Input::Host(event) => self.follow(now, event),
            Input::Answered(answer) => self.answered(now, answer),
            Input::Observed { subject, at, fact } => self.witnessed(now, subject, at, &fact),
            Input::Asked(request) => self.serve(now, request),
            Input::LinkLost { at } => self.link_lost(at),
            Input::Past(logs) => self.past = logs,
            Input::LinkUp(listing) => self.link_up(now, listing),
            Input::Missed(domain) => self.missed(domain),
            Input::Made { run, devices, read } => self.made(now, run, devices, read),
            Input::StartFailed(failed) => self.start_failed(now, failed),
            Input::Kept(run) => self.kept(now, run),
            Input::NotKept(run) => self.not_kept(now, run),
            Input::Written(count) => self.written(now, count),
            Input::Unwritten(count) => self.unwritten(now, count),
            Input::KeptRevision(run, number) => self.kept_revision(now, run, number),
            Input::Wake => {}
        }
        self.pass_deadlines(now);
        self.hold_back(now);
        if std::mem::take(&mut self.changed) {
            self.generation += 1;
            self.effects.push(Effect::Publish);
        }
        std::mem::take(&mut self.effects)
    }

    /// When `Input::Wake` is due at the latest; at once before the first step.
    pub fn wake_at(&self) -> Option<Mono> {
        if self.fresh {
            return Some(Mono::default());
        }
        let alarm = self.alarms.first().map(|(at, _)| *at);
        [alarm, self.next_heartbeat, self.gate.patience_ends(), self.next_second_look(), self.host.due()]
            .into_iter()
            .flatten()
            .min()
    }

    /// The present picture. Costs a copy of the map; the domains are shared.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            generation: self.generation,
            link: self.link,
            settled: self.settled && self.gate.shows_listing(),
            domains: self.public.clone(),
        }
    }

    /// How many runs are followed, ended ones that are not yet written included.
    pub fn runs_followed(&self) -> usize {
        self.runs.len()
    }

    /// Looks at this run again when its time comes. An alarm that has become idle wakes us once for nothing.
    pub(super) fn set_alarm(&mut self, id: RunId) {
        if let Some(at) = self.runs.get(&id).and_then(Run::alarm) {
            self.alarms.insert((at, id));
        }
    }

    fn pass_deadlines(&mut self, now: Now) {
        while let Some((at, id)) = self.alarms.first().copied().filter(|(at, _)| *at <= now.mono) {
            self.alarms.remove(&(at, id));
            let Some(run) = self.runs.get(&id) else { continue };
            match run.alarm() {
                Some(due) if due <= now.mono => match run.phase {
                    Phase::Settling { .. } if self.may_come_back(id) => {
                        self.look_whether_it_comes_back(now, id)
                    }
                    Phase::Settling { .. } => self.record(now, id, None),
                    Phase::Launching | Phase::Active => self.press_on(now, id),
                    Phase::Recording(_) => {}
                },
                Some(_) => self.set_alarm(id),
                None => {}
            }
        }
        self.look_again(now);
        self.ask_about_host(now);
        if self.next_heartbeat.is_some_and(|at| now.mono >= at) {
            self.beat(now);
        }
        if self.gate.patience_ends().is_some_and(|at| now.mono >= at) {
            self.disk_hangs(now);
        }
    }

    /// Tells the ledger that we listen, and does what is due now and then.
    pub(super) fn beat(&mut self, now: Now) {
        self.next_heartbeat = None;
        if matches!(self.link, Link::Up) {
            self.keep_alive(now.wall);
            self.next_heartbeat = Some(now.mono.after(self.settings.heartbeat));
        }
        self.preludes.retain(|_, heard| {
            heard.retain(|p| now.mono.since(p.heard) <= crate::limits::PRELUDE_LIFE);
            !heard.is_empty()
        });
        self.strays.retain(|_, seen| {
            seen.retain(|stray| now.wall.since(stray.at) <= crate::limits::PRELUDE_LIFE);
            !seen.is_empty()
        });
        self.echoes.retain(|_, echo| echo.ghost.is_some() || now.mono.since(echo.at) <= super::follow::ECHO);
        self.forget_old_endings(now);
        let unsure =
            self.runs.values().filter(|run| run.pending.unsure.iter().any(|(_, at)| *at <= now.mono));
        self.unseen.extend(unsure.map(|run| run.start.domain));
        for domain in std::mem::take(&mut self.unseen) {
            self.look(domain);
        }
        self.enforce_bounds(now);
    }

    /// A process that was begun for a domain: it is the domain's run, that of a start that has not come up, or of one that
    /// libvirt has not told of yet.
    fn witnessed_at_start(&mut self, now: Now, domain: DomainId, process: Process, at: Wall, fact: Fact) {
        for (at, fact) in self.loose.take(now, process.pid) {
            self.witnessed_at_start(now, domain, process, at, fact);
        }
        let of_run = self.runs.values().any(|run| run.start.incarnation.process == Some(process))
            || self.ended.values().any(|ended| ended.was_run_by(process));
        if of_run {
            return self.witnessed(now, Subject::Process(process), at, &fact);
        }
        if let Some(id) = self.start_without_process(domain) {
            self.note(id, at, fact);
            return self.reconsider(now, id);
        }
        let seen = self.strays.entry(domain).or_default();
        if seen.len() == STRAYS_PER_DOMAIN {
            seen.remove(0);
        }
        seen.push(Stray { process, at, fact });
    }

    /// The domain's start that libvirt has not shown a process of.
    fn start_without_process(&self, domain: DomainId) -> Option<RunId> {
        let id = *self.current.get(&domain)?;
        let run = self.runs.get(&id).filter(|run| run.start.incarnation.process.is_none())?;
        let up = crate::verdict::was_up(&run.dossier);
        let open = matches!(run.phase, Phase::Launching | Phase::Settling { .. });
        (open && !up).then_some(id)
    }

    /// What was witnessed of processes that were begun for this run's domain: of its own, or of the last
    /// one if libvirt never told of any.
    pub(super) fn take_strays(&mut self, now: Now, id: RunId) {
        let Some(run) = self.runs.get(&id) else { return };
        let known = run.start.incarnation.process;
        for (at, fact) in known.map(|process| self.loose.take(now, process.pid)).unwrap_or_default() {
            self.note(id, at, fact);
        }
        let Some(run) = self.runs.get(&id) else { return };
        let seen = self.strays.remove(&run.start.domain).unwrap_or_default();
        let Some(process) = known.or(seen.last().map(|stray| stray.process)) else { return };
        for stray in seen.into_iter().filter(|stray| stray.process == process) {
            self.note(id, stray.at, stray.fact);
        }
    }

    /// When anything was witnessed first of the last process that was begun for this domain and that libvirt has not told of.
    pub(super) fn seen_of_its_process(&self, domain: DomainId) -> Option<Wall> {
        let seen = self.strays.get(&domain)?;
        let process = seen.last()?.process;
        seen.iter().filter(|stray| stray.process == process).map(|stray| stray.at).min()
    }

    pub(super) fn witnessed(&mut self, now: Now, subject: Subject, at: Wall, fact: &Fact) {
        if let Subject::Starting(domain, process) = subject {
            return self.witnessed_at_start(now, domain, process, at, fact.clone());
        }
        if let Subject::Domain(domain) = subject {
            let meant = self.run_at(domain, at);
            return meant.into_iter().for_each(|run| self.witnessed(now, Subject::Run(run), at, fact));
        }
        let of_it: Vec<RunId> = self
            .runs
            .iter()
            .filter(|(id, run)| match subject {
                Subject::Run(meant) => **id == meant,
                Subject::Process(process) => run.start.incarnation.process == Some(process),
                Subject::Pid(pid) => {
                    run.start.incarnation.process.is_some_and(|p| p.pid == pid)
                        && run.start.incarnation.boot == self.settings.boot
                }
                Subject::Domain(_) | Subject::Starting(..) => false,
                // What the host says now is nothing about a boot before.
                Subject::Host => {
                    run.start.incarnation.boot == self.settings.boot
                        && (*fact != Fact::HostStays || run.thinks_that_the_host_goes_down())
                }
            })
            .filter(|(_, run)| !matches!(run.phase, Phase::Recording(_)))
            .map(|(id, _)| *id)
            .collect();
        let ended = match subject {
            Subject::Run(run) => self.ended.keys().copied().filter(|id| *id == run).collect(),
            Subject::Process(process) => {
                self.ended.iter().filter(|(_, run)| run.was_run_by(process)).map(|(id, _)| *id).collect()
            }
            Subject::Pid(pid) => self.ended_with_pid(pid, at),
            Subject::Host if matches!(fact, Fact::HostGoingDown { .. }) => self.ended_just_before(at),
            Subject::Host | Subject::Domain(_) | Subject::Starting(..) => Vec::new(),
        };
        if let Subject::Pid(pid) = subject
            && of_it.is_empty()
            && ended.is_empty()
        {
            self.loose.add(now, pid, at, fact.clone());
        }
        for id in ended {
            self.late(now, id, [(at, fact.clone())]);
        }
        for id in of_it {
            if matches!(fact, Fact::UnitStopping { .. }) {
                if let Some(run) = self.runs.get_mut(&id) {
                    run.unit_stopping = Some((at, fact.clone()));
                }
                continue;
            }
            self.note(id, at, fact.clone());
            match fact {
                Fact::Exit(_) => self.exited(now, id),
                Fact::InnerExit(_) => self.doubt(now, id),
                _ => {}
            }
            self.reconsider(now, id);
        }
    }

    /// Whether this run is over, and how it ended is still to be decided or on its way to disk.
    pub fn is_ending(&self, run: RunId) -> bool {
        self.runs.get(&run).is_some_and(|run| !run.is_open())
    }

    /// Adds a fact to a run, and lets the ledger keep it. Of a run whose destroy was answered it is kept with the ending: that
    /// libvirt refused to destroy what had just ended by itself would say, without the ending, that nothing was answered.
    pub(super) fn note(&mut self, id: RunId, at: Wall, fact: Fact) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let domain = run.start.domain;
        let answered = run.pending.destroy_out.is_some() && run.forgotten_by.is_some() && !run.is_open();
        match run.note(self.mono, at, fact).filter(|_| !answered) {
            Some((index, piece)) => self.keep(domain, Keep::Evidence(id, index, piece)),
            None if run.keep_at.is_some() => self.set_alarm(id),
            None => {}
        }
    }

    /// Repeats that have waited to be written are, so that a restart finds everything in its order.
    pub(super) fn keep_repeats(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let domain = run.start.domain;
        for (index, piece) in run.take_unkept() {
            self.keep(domain, Keep::Evidence(id, index, piece));
        }
    }

    pub(super) fn mark_changed(&mut self) {
        self.changed = true;
    }

    /// Brings the public picture of a domain up to date.
    pub(super) fn touch(&mut self, now: Now, domain: DomainId) {
        if self.is_veiled(domain) {
            return;
        }
        let fresh = self.picture(domain);
        let old = self.public.get(&domain);
        let same = match (&fresh, old) {
            (None, None) => true,
            (Some(fresh), Some(old)) => {
                DomainPublic { status_time: old.status_time, ..fresh.clone() } == **old
            }
            _ => false,
        };
        if same {
            return;
        }
        self.changed = true;
        match fresh {
            None => {
                self.public.remove(&domain);
            }
            Some(mut fresh) => {
                self.floor = self.floor.max(now.wall.as_millis());
                fresh.status_time = self.floor;
                self.public.insert(domain, Arc::new(fresh));
            }
        }
    }

    fn picture(&self, domain: DomainId) -> Option<DomainPublic> {
        let run = self.current.get(&domain).and_then(|id| self.runs.get(id));
        if let Some(run) = run {
            if run.forgotten_by.is_some() {
                return None;
            }
            // Of a start that did not come up nobody is told that it is over before that is on disk: a daemon that begins then and
            // does not know it may see it come up.
            let orderly = run.is_open() || matches!(run.status, Status::PoweringDown | Status::Launching);
            let status = if orderly { run.status } else { Status::Ending };
            return Some(DomainPublic {
                domain,
                name: run.name.clone(),
                run: run.start.run,
                status,
                started: run.start.at,
                pid: run.start.incarnation.process.map(|p| p.pid),
                io_error: run.io_error(),
                paused_by: run.paused_by(),
                watchdog: run.watchdog(),
                ending: None,
                durable: true,
                status_time: 0,
                made: run.made.clone(),
            });
        }
        self.down.get(&domain).map(|down| DomainPublic {
            domain,
            name: self.new_names.get(&domain).unwrap_or(&down.ending.name).clone(),
            run: down.ending.run,
            status: Status::Down,
            started: down.ending.started,
            pid: None,
            io_error: None,
            paused_by: None,
            watchdog: None,
            ending: Some(Arc::clone(&down.ending)),
            durable: down.durable,
            status_time: 0,
            made: down.made.clone(),
        })
    }
}
