//! The truth of the told host: its domains, their lives, what libvirt shows of them, and what their logs hold.
//!
//! Truth changes when it changes, heard or not. What is heard of it is the world's business.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use whydown_core::cause::Cause;
use whydown_core::evidence::{Fact, LogWord, Sender};
use whydown_core::hypervisor::{
    CrashDetail, DomainRef, DomainState, DomainView, Happening, PauseReason, PmDetail, Process,
    ShutOffReason, StartDetail, SuspendDetail,
};
use whydown_core::id::{BootId, DomainId};
use whydown_core::limits::CLOCK_GRACE;
use whydown_core::log::{Log, LogBlock};
use whydown_core::record::RunStart;
use whydown_core::time::{Mono, Now, Wall};

use crate::ways::{Act, From, Way};

/// A line of a domain's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogLine {
    /// `shutting down, reason=…`
    Reason(LogWord),
    /// The same, in the log of a domain whose guest can write there as well.
    Doubted(LogWord),
    /// `terminating on signal … from pid … (…)`
    Signal {
        /// Number.
        signal: i32,
        /// Sender.
        pid: u32,
        /// Sender's program.
        program: String,
    },
    /// Anything else of QEMU.
    Text(String),
}

/// One life of a domain, as it truly was.
#[derive(Debug, Clone)]
pub struct Life {
    /// Of which domain.
    pub domain: DomainId,
    /// libvirt's number; they begin anew with every boot.
    pub libvirt_id: u32,
    /// Its process; never twice in one world.
    pub process: Process,
    /// In which boot.
    pub boot: BootId,
    /// What the clock showed when its part of the log began.
    pub logged: Wall,
    /// Whether it began by an incoming migration.
    pub incoming: bool,
    /// Whether it loads a snapshot.
    pub from_snapshot: bool,
    /// When it began.
    pub started: Mono,
    /// When it ended.
    pub ended: Option<Mono>,
    /// How it ended, where the told world knows a way for it.
    pub way: Option<Way>,
    /// Causes that would be true as well until then, such as a shutdown that a manager had asked for before.
    pub also: Vec<(Cause, Mono)>,
    /// Its part of the log.
    pub log: Vec<(Wall, LogLine)>,
    /// Why the log cannot be read, if so.
    pub log_unread: Option<String>,
    /// Whether the beginning of its part of the log was taken away.
    pub log_cut: bool,
}

impl Life {
    /// From now on this would be true as well.
    pub fn also_true(&mut self, cause: Cause) {
        self.also.push((cause, Mono(u64::MAX)));
    }

    /// Whether it may be told as certain that this ended it.
    pub fn may_be_certain(&self, cause: Cause) -> bool {
        let ended = self.ended.unwrap_or_default();
        self.way.and_then(Way::certain_cause) == Some(cause)
            || self.also.iter().any(|(also, until)| *also == cause && ended <= *until)
    }
}

/// A start, as it is logged.
#[derive(Debug, Clone)]
pub struct Start {
    /// Of which domain.
    pub domain: DomainId,
    /// What it was called then.
    pub name: String,
    /// What the clock showed.
    pub at: Wall,
    /// The life that began, as an index; `None` if it failed.
    pub life: Option<usize>,
}

/// A domain, as libvirt has it.
#[derive(Debug, Clone)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Whether libvirt keeps it when it is off.
    pub persistent: bool,
    /// What libvirt shows.
    pub state: DomainState,
    /// What libvirt says of a managed save image.
    pub managed_save: Option<bool>,
    /// The present life, as an index.
    pub life: Option<usize>,
    /// The life whose end is under way, so that nothing else begins one.
    pub ending: Option<usize>,
    /// Causes that would be true of the next life too: a request may be on its way before the life begins.
    pub also_next: Vec<Cause>,
    /// What libvirt will do about it when it comes back.
    pub on_return: Vec<(u64, Act)>,
}

/// See the module page.
#[derive(Debug)]
pub struct Hypervisor {
    /// All that libvirt knows, and domains that were known once.
    pub domains: BTreeMap<DomainId, Domain>,
    /// All lives that ever began.
    pub lives: Vec<Life>,
    /// All starts in the order in which they were logged.
    pub starts: Vec<Start>,
    /// Whether libvirtd runs.
    pub up: bool,
    /// Since when it has been running; `None` for since long before the story.
    pub up_since: Option<Now>,
    /// When the present boot began, where the story tells.
    pub booted: Option<Wall>,
    boots: u32,
    next_libvirt_id: u32,
    next_pid: u32,
}

impl Default for Hypervisor {
    fn default() -> Self {
        Self {
            domains: BTreeMap::new(),
            lives: Vec::new(),
            starts: Vec::new(),
            up: true,
            up_since: None,
            booted: None,
            boots: 1,
            next_libvirt_id: 1,
            next_pid: 5000,
        }
    }
}

impl Hypervisor {
    /// The present boot.
    pub fn boot(&self) -> BootId {
        BootId(format!("boot-{}", self.boots))
    }

    /// A domain that is off. Does nothing if it is there already.
    pub fn define(&mut self, id: DomainId, name: &str, persistent: bool) {
        self.domains.entry(id).or_insert_with(|| Domain {
            name: name.to_owned(),
            persistent,
            state: DomainState::ShutOff(ShutOffReason::Unknown),
            managed_save: Some(false),
            life: None,
            ending: None,
            also_next: Vec::new(),
            on_return: Vec::new(),
        });
    }

    /// A process begins to run the domain.
    pub fn begin(&mut self, id: DomainId, now: Now) {
        let life = Life {
            domain: id,
            libvirt_id: self.next_libvirt_id,
            process: Process { pid: self.next_pid, start_ticks: now.mono.0 / 10_000_000 },
            boot: self.boot(),
            logged: now.wall,
            incoming: false,
            from_snapshot: false,
            started: now.mono,
            ended: None,
            way: None,
            also: Vec::new(),
            log: Vec::new(),
            log_unread: None,
            log_cut: false,
        };
        self.next_libvirt_id += 1;
        self.next_pid += 1;
        self.lives.push(life);
        self.log_start(id, now.wall, Some(self.lives.len() - 1));
        if let Some(domain) = self.domains.get_mut(&id) {
            if let Some(life) = self.lives.last_mut() {
                std::mem::take(&mut domain.also_next).into_iter().for_each(|cause| life.also_true(cause));
            }
            domain.life = Some(self.lives.len() - 1);
            domain.ending = None;
            domain.on_return.clear();
            domain.state = DomainState::Running;
        }
    }

    /// What libvirt says of a domain that runs, it shows as well. What shows itself otherwise is told apart.
    pub fn shows(&mut self, id: DomainId, what: &Happening) {
        let Some(domain) = self.domains.get_mut(&id).filter(|domain| domain.life.is_some()) else { return };
        domain.state = match what {
            Happening::Started(StartDetail::Migrated) => DomainState::Paused(PauseReason::Migration),
            Happening::Started(_) | Happening::Resumed(_) => DomainState::Running,
            Happening::Suspended(detail) => DomainState::Paused(match detail {
                SuspendDetail::Migrated => PauseReason::Migration,
                SuspendDetail::IoError => PauseReason::IoError,
                SuspendDetail::Watchdog => PauseReason::Watchdog,
                SuspendDetail::FromSnapshot => PauseReason::FromSnapshot,
                SuspendDetail::Postcopy => PauseReason::Postcopy,
                SuspendDetail::PostcopyFailed => PauseReason::PostcopyFailed,
                _ => PauseReason::User,
            }),
            Happening::PmSuspended(PmDetail::Memory) => DomainState::PmSuspended,
            Happening::ShutdownBegan(_) => DomainState::ShuttingDown,
            Happening::GuestCrashed(CrashDetail::Panicked) => DomainState::Crashed,
            Happening::Rebooted if domain.state == DomainState::ShuttingDown => DomainState::Running,
            _ => return,
        };
    }

    fn log_start(&mut self, domain: DomainId, at: Wall, life: Option<usize>) {
        // Nor is one dated in the very moment in which the end of the run before is reported.
        let mut at = at.after(Duration::from_nanos(1));
        // No two starts of a domain are so close that libvirt dates them alike.
        while self.starts.iter().any(|start| start.domain == domain && start.at == at) {
            at = at.after(Duration::from_nanos(1));
        }
        if let Some(life) = life {
            self.lives[life].logged = at;
        }
        let name = self.domains.get(&domain).map_or_else(|| domain.to_string(), |domain| domain.name.clone());
        self.starts.push(Start { domain, name, at, life });
    }

    /// QEMU breaks off while it starts: that leaves a part of the log.
    pub fn fail_to_start(&mut self, domain: DomainId, now: Now) {
        self.log_start(domain, now.wall, None);
    }

    /// The log of this name.
    pub fn log(&self, name: &str, now: Now) -> Log {
        let starts: Vec<&Start> = self.starts.iter().filter(|start| start.name == name).collect();
        let lives = starts.iter().filter_map(|start| start.life.map(|life| &self.lives[life]));
        let unread = lives.filter_map(|life| life.log_unread.clone()).next_back();
        let blocks = if unread.is_some() { &[][..] } else { &starts[..] };
        let blocks = blocks.iter().map(|start| self.block(start, now)).collect();
        Log { name: name.to_owned(), blocks, unread }
    }

    /// All logs.
    pub fn logs(&self, now: Now) -> Vec<Log> {
        let names: BTreeSet<&str> = self.starts.iter().map(|start| start.name.as_str()).collect();
        names.into_iter().map(|name| self.log(name, now)).collect()
    }

    fn block(&self, start: &Start, now: Now) -> LogBlock {
        let failed = || vec![(start.at, Fact::LogEnd { word: LogWord::Failed, at: Some(start.at) })];
        let life = start.life.map(|life| &self.lives[life]);
        let stamps = || life.into_iter().flat_map(|life| life.log.iter().map(|(at, _)| *at));
        let farewells = life.into_iter().flat_map(|life| &life.log).filter_map(|(at, line)| match line {
            LogLine::Reason(word) if *word != LogWord::Failed && *at >= start.at => Some(*at),
            _ => None,
        });
        LogBlock {
            name: start.name.clone(),
            domain: Some(start.domain),
            began: Some(start.at),
            incoming: life.is_some_and(|life| life.incoming),
            from_snapshot: life.is_some_and(|life| life.from_snapshot),
            first: stamps().next(),
            last: stamps().next_back(),
            ended: farewells.min(),
            facts: life.map_or_else(failed, |life| self.log_facts(life, now)),
        }
    }

    /// The process is gone; libvirt shows this from now on.
    pub fn end(&mut self, id: DomainId, shown: DomainState, now: Now) {
        let Some(domain) = self.domains.get_mut(&id) else { return };
        if let Some(life) = domain.life.take() {
            self.lives[life].ended = Some(now.mono);
        }
        domain.ending = None;
        domain.state = shown;
    }

    /// The present life of a domain.
    pub fn life(&self, id: DomainId) -> Option<&Life> {
        self.domains.get(&id)?.life.map(|life| &self.lives[life])
    }

    /// The present life of a domain, to be changed.
    pub fn life_mut(&mut self, id: DomainId) -> Option<&mut Life> {
        let life = self.domains.get(&id)?.life?;
        self.lives.get_mut(life)
    }

    /// The present or latest life of a domain, to be changed.
    pub fn latest_life_mut(&mut self, id: DomainId) -> Option<&mut Life> {
        self.lives.iter_mut().rev().find(|life| life.domain == id)
    }

    /// Whether a process runs it.
    pub fn is_active(&self, id: DomainId) -> bool {
        self.life(id).is_some()
    }

    /// How an event names it. libvirt has taken the number away when it reports the end.
    pub fn reference(&self, id: DomainId) -> DomainRef {
        let name = self.domains.get(&id).map_or_else(|| id.to_string(), |domain| domain.name.clone());
        DomainRef { id, name, libvirt_id: self.life(id).map(|life| life.libvirt_id) }
    }

    /// What libvirt shows of it; `None` if it knows no such domain.
    pub fn view(&self, id: DomainId) -> Option<DomainView> {
        let domain = self.domains.get(&id)?;
        let life = self.life(id);
        if life.is_none() && !domain.persistent {
            return None;
        }
        Some(DomainView {
            domain: self.reference(id),
            state: domain.state,
            persistent: domain.persistent,
            managed_save: domain.managed_save,
            process: life.map(|life| life.process),
        })
    }

    /// All that libvirt shows.
    pub fn views(&self) -> Vec<DomainView> {
        self.domains.keys().filter_map(|id| self.view(*id)).collect()
    }

    /// libvirtd starts anew: it has forgotten why domains are off.
    pub fn forget_reasons(&mut self) {
        for domain in self.domains.values_mut().filter(|domain| domain.life.is_none()) {
            domain.state = DomainState::ShutOff(ShutOffReason::Unknown);
        }
    }

    /// The host goes down without a word.
    pub fn loses_power(&mut self, now: Now) {
        let ids: Vec<DomainId> = self.domains.keys().copied().collect();
        for id in ids {
            if let Some(life) = self.life_mut(id) {
                life.way = life.way.or(Some(Way::HostLost));
            }
            self.end(id, DomainState::ShutOff(ShutOffReason::Unknown), now);
            // What waited for libvirt is gone with the boot.
            self.domains.entry(id).and_modify(|domain| domain.on_return.clear());
        }
        self.up = false;
    }

    /// The host comes up again, and libvirt with it.
    pub fn boots(&mut self, now: Now) {
        self.forget_reasons();
        self.boots += 1;
        self.booted = Some(now.wall);
        self.next_libvirt_id = 1;
        self.up = true;
        self.up_since = Some(now);
    }

    /// The life that a run of the engine is about, as far as its marks tell.
    pub fn life_of(&self, start: &RunStart) -> Option<&Life> {
        let known = &start.incarnation;
        self.lives.iter().find(|life| {
            life.domain == start.domain
                && match known.process {
                    Some(process) => life.process == process,
                    None if known.libvirt_id.is_some() => {
                        life.boot == known.boot && Some(life.libvirt_id) == known.libvirt_id
                    }
                    // Only the log tells of it.
                    None => !start.seen && life.logged == start.at,
                }
        })
    }

    /// The life whose part of the log began at this moment.
    pub fn life_logged(&self, domain: DomainId, began: Wall) -> Option<&Life> {
        self.lives.iter().find(|life| life.domain == domain && life.logged == began)
    }

    /// What the log says of a life, as the witness of logs tells it.
    pub fn log_facts(&self, life: &Life, now: Now) -> Vec<(Wall, Fact)> {
        let Now { mono, wall } = now;
        if let Some(why) = &life.log_unread {
            return vec![(wall, Fact::LogUnread(why.clone()))];
        }
        let mut facts = Vec::new();
        let mut words = Vec::new();
        let last_signal = life.log.iter().rposition(|(_, line)| matches!(line, LogLine::Signal { .. }));
        for (position, (at, line)) in life.log.iter().enumerate() {
            match line {
                LogLine::Doubted(word) => facts.push((*at, Fact::LogDoubted { word: *word, at: *at })),
                LogLine::Reason(word) => facts.push((*at, Fact::LogEnd { word: *word, at: Some(*at) })),
                LogLine::Signal { signal, pid, program } if Some(position) == last_signal => {
                    let (signal, pid, program) = (*signal, *pid, program.clone());
                    let sender = sender(pid, &program);
                    facts.push((*at, Fact::LogSignal { signal, pid, program, sender, at: Some(*at) }));
                }
                LogLine::Signal { .. } => {}
                LogLine::Text(text) => words.push(text.clone()),
            }
        }
        // The libvirt that sent the signal runs still. Since when, is told by how long, and by the present clock.
        let sent = facts.iter().find(|(_, f)| matches!(f, Fact::LogSignal { sender: Sender::Libvirt, .. }));
        let since = self.up_since.map_or(Mono(0), |since| since.mono);
        let it_does = self.up && life.ended.is_none_or(|ended| ended >= since);
        let since = wall.before(mono.since(since));
        // The witness takes one that began later for another process with its number.
        if it_does && sent.is_some_and(|(at, _)| since <= at.after(CLOCK_GRACE)) {
            facts.push((wall, Fact::LibvirtSince(since)));
        }
        if !facts.iter().any(|(_, fact)| matches!(fact, Fact::LogEnd { .. } | Fact::LogDoubted { .. })) {
            facts.push((wall, Fact::LogSilent));
        }
        if life.log_cut {
            facts.push((now.wall, Fact::LogCut));
        }
        if !words.is_empty() {
            facts.push((wall, Fact::LogText(words.join("\n"))));
        }
        facts
    }
}

/// What the kernel tells of a signal to the process `to`.
pub(crate) fn signalled(signal: i32, from: From, to: u32) -> Fact {
    match from {
        From::Kernel => {
            let (program, sender) = (String::new(), Sender::Kernel);
            Fact::Signalled { signal, code: 128, pid: 0, program, sender, audit: None }
        }
        From::Itself => {
            let program = "qemu-system-x86".into();
            let sender = Sender::Itself;
            Fact::Signalled { signal, code: -6, pid: to, program, sender, audit: None }
        }
        From::Process(pid, program) => {
            let sender = sender(pid, &program);
            Fact::Signalled { signal, code: 0, pid, program, sender, audit: None }
        }
    }
}

fn sender(pid: u32, program: &str) -> Sender {
    match (pid, program.rsplit('/').next().unwrap_or_default()) {
        (1, _) => Sender::Init,
        (_, "systemd") => Sender::Manager,
        (_, "libvirtd" | "virtqemud") => Sender::Libvirt,
        _ => Sender::Outside,
    }
}
