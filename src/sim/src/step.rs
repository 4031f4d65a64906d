//! One thing that befalls a told world. A random life is a list of these, and a list is all that a failure has to show.

use std::time::Duration;

use whydown_core::cause::Cause;
use whydown_core::evidence::Fact;
use whydown_core::hypervisor::{Happening, StartDetail};
use whydown_core::id::DomainId;
use whydown_core::lifecycle::{Subject, Wanted};
use whydown_core::operation::Operation;

use crate::ledger::Disk;
use crate::ways::{self, Act, Chatter, Way};
use crate::world::{Answers, Loss, World};

/// How a domain comes to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// A normal start by another client.
    Booted,
    /// From a saved state.
    Restored,
    /// By an incoming migration, handed over after a while.
    Migrated,
    /// By an incoming migration that fails.
    MigratedInVain,
    /// QEMU breaks off while it starts.
    Fails,
    /// A manager asks for it.
    Create,
}

/// One thing that befalls the world. Domains are numbered; what cannot happen now does not.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Told time passes: milliseconds.
    Pass(u32),
    /// A domain starts.
    Start(u8, Start),
    /// A life ends.
    Befall(u8, Way),
    /// Something that ends nothing.
    Chatter(u8, Chatter),
    /// The definition is removed, or added again.
    Defined(u8, bool),
    /// A manager asks for a shutdown, with force after so many seconds.
    Shutdown(u8, Option<u8>),
    /// A manager asks for a destroy.
    Destroy(u8),
    /// A guest takes no notice of its power button from now on, or does again.
    DeafGuest(u8, bool),
    /// The next request to libvirt breaks off, with effect or without.
    BreakNextAct(bool),
    /// The daemon is killed.
    Crash,
    /// The daemon stops in order.
    Stop,
    /// The daemon starts.
    Daemon,
    /// The link breaks.
    Lose(Loss),
    /// A session begins, and its listing is still to be taken.
    BeginSession,
    /// The listing is taken.
    FinishSession,
    /// The host loses its power and comes back.
    Reboot,
    /// The disk works, with commits of so many milliseconds.
    Disk(u16),
    /// The disk fails.
    DiskFails,
    /// Answers come after so many milliseconds.
    Answers(u16),
    /// Answers come, and say that there is none.
    NoAnswers(u16),
    /// Events lie in queues for so many milliseconds.
    EventDelay(u16),
    /// Witnesses speak so many milliseconds after they saw something.
    WitnessDelay(u16),
    /// libvirt reports so many milliseconds after it shows.
    ReportDelay(u16),
    /// Whether starts are reported with their process.
    Processes(bool),
    /// The wall clock is set by so many milliseconds.
    Jump(i32),
    /// The wall clock is set by so many years.
    JumpYears(i8),
    /// The wall clock begins at 1970, as where a battery is dead.
    Epoch,
    /// The host begins to go down.
    HostGoesDown,
    /// It does, and says so only to whoever asks.
    HostGoesDownUntold,
}

/// The told domain with this number. Even numbers are persistent.
pub fn domain(number: u8) -> DomainId {
    DomainId::from_bytes([number + 1; 16])
}

impl World {
    /// Takes one step.
    pub fn take(&mut self, step: &Step) {
        match step {
            Step::Pass(millis) => self.pass(Duration::from_millis(u64::from(*millis))),
            Step::Start(number, start) => self.start(*number, *start),
            Step::Befall(number, way) => {
                let id = domain(*number);
                if self.is_quiet(id) {
                    self.befall(id, *way);
                }
            }
            Step::Chatter(number, chatter) => {
                let id = domain(*number);
                if self.is_quiet(id) && self.chatter(id, *chatter) && *chatter == Chatter::IgnoredButton {
                    self.also_true(id, Cause::OtherShutdown);
                }
            }
            Step::Defined(number, there) => self.defined(domain(*number), *there),
            Step::Shutdown(number, force) => {
                let force_after = force.map(|seconds| Duration::from_secs(u64::from(seconds)));
                self.ask(
                    "manager",
                    Wanted::Shutdown {
                        domain: domain(*number),
                        again: false,
                        agent_first: None,
                        force_after,
                    },
                );
            }
            Step::Destroy(number) => {
                self.ask("manager", Wanted::Do { domain: domain(*number), act: Operation::Destroy });
            }
            Step::DeafGuest(number, true) => {
                self.deaf_guests.insert(domain(*number));
            }
            Step::DeafGuest(number, false) => {
                self.deaf_guests.remove(&domain(*number));
            }
            Step::BreakNextAct(effect) => self.break_next_act = Some(*effect),
            Step::Crash => self.crash_daemon(),
            Step::Stop => self.stop_daemon(),
            Step::Daemon => self.start_daemon(),
            Step::Lose(loss) => self.lose_link(*loss),
            Step::BeginSession => self.begin_session(),
            Step::FinishSession => self.finish_session(),
            Step::Reboot => self.reboot_host(),
            Step::Disk(millis) => self.disk = Disk::Works(Duration::from_millis(u64::from(*millis))),
            Step::DiskFails => self.disk = Disk::Fails,
            Step::Answers(millis) => {
                self.answers = Answers::After(Duration::from_millis(u64::from(*millis)));
            }
            Step::NoAnswers(millis) => {
                self.answers = Answers::None(Duration::from_millis(u64::from(*millis)));
            }
            Step::EventDelay(millis) => self.event_delay = Duration::from_millis(u64::from(*millis)),
            Step::WitnessDelay(millis) => self.witness_delay = Duration::from_millis(u64::from(*millis)),
            Step::ReportDelay(millis) => {
                self.report_delay = Duration::from_millis(u64::from(*millis));
                self.longest_report_delay = self.longest_report_delay.max(self.report_delay);
            }
            Step::Processes(known) => self.processes_known = *known,
            Step::Jump(millis) => self.jump(i64::from(*millis)),
            Step::JumpYears(years) => self.jump(i64::from(*years) * 31_557_600_000),
            Step::Epoch => self.jump(-self.now().wall.as_millis()),
            Step::HostGoesDown => {
                self.witness(Subject::Host, Fact::HostGoingDown { by: "systemd: poweroff.target".into() });
            }
            Step::HostGoesDownUntold => self.host_says_down = Some("systemd: poweroff.target".into()),
        }
    }

    fn start(&mut self, number: u8, start: Start) {
        let id = domain(number);
        let name = format!("vm{number}");
        if start == Start::Create {
            let xml = format!("<domain><name>{name}</name></domain>");
            self.ask(
                "manager",
                Wanted::Do { domain: id, act: Operation::Create { name, xml, made: None, paused: false } },
            );
            return;
        }
        if !self.hypervisor.up || self.is_active(id) || !self.is_quiet(id) {
            return;
        }
        self.hypervisor.define(id, &name, number.is_multiple_of(2));
        match start {
            Start::Booted | Start::Create => self.happens(id, ways::start(StartDetail::Booted)),
            Start::Restored => self.happens(id, ways::start(StartDetail::Restored)),
            Start::Migrated => {
                self.happens(id, ways::start(StartDetail::Migrated));
                let later = ways::handed_over().into_iter().map(|(at, act)| (at + 280, act)).collect();
                self.happens(id, later);
            }
            Start::MigratedInVain => {
                self.happens(id, ways::start(StartDetail::Migrated));
                let end = Way::IncomingFailed.sequence();
                self.happens(id, end.into_iter().map(|(at, act)| (at + 280, act)).collect());
                self.pass(Duration::from_millis(2));
                let free = self.hypervisor.domains.get_mut(&id).filter(|domain| domain.ending.is_none());
                if let Some(domain) = free {
                    domain.ending = domain.life;
                    if let Some(life) = self.hypervisor.life_mut(id) {
                        life.way = Some(Way::IncomingFailed);
                    }
                }
            }
            Start::Fails => self.happens(id, ways::start_that_fails()),
        }
    }

    fn defined(&mut self, id: DomainId, there: bool) {
        let up = self.hypervisor.up;
        let now = up && self.is_quiet(id);
        let Some(domain) = self.hypervisor.domains.get_mut(&id).filter(|_| now) else { return };
        if domain.persistent == there {
            return;
        }
        domain.persistent = there;
        let what = if there { Happening::Defined } else { Happening::Undefined { renamed: false } };
        self.happens(id, vec![(0, Act::Say(what))]);
    }

    fn also_true(&mut self, id: DomainId, cause: Cause) {
        if let Some(life) = self.hypervisor.life_mut(id) {
            life.also_true(cause);
        }
    }
}
