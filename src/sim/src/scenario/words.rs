//! The dictionary of stories: one line, one step.
//!
//! | line | meaning |
//! |---|---|
//! | `+0.204` | so many seconds pass |
//! | `start` | a process begins: RESUMED/UNPAUSED, then STARTED/BOOTED |
//! | `spawn` | a process begins, and nothing is heard of it yet |
//! | `LIFECYCLE STOPPED/SHUTDOWN` | libvirt's lifecycle event, by its names; STARTED begins a process, STOPPED ends it |
//! | `REBOOT`, `CONTROL_ERROR`, `AGENT connected`, `WATCHDOG poweroff`, `JOB_COMPLETED save` | libvirt's other events |
//! | `IO_ERROR virtio-disk0 pause enospc`, `MEMORY_FAILURE fatal` | the same |
//! | `qmp SHUTDOWN guest guest-shutdown`, `qmp RESET host host-qmp-system-reset` | QEMU's own events: who, and why |
//! | `qmp POWERDOWN`, `qmp GUEST_PANICKED` | the same |
//! | `state PAUSED/IOERROR`, `state SHUTOFF/CRASHED` | what libvirt shows from now on; SHUTOFF ends the process in silence |
//! | `image yes` | a managed save image waits, or not; `image unknown` |
//! | `log reason=crashed`, `log terminating on signal 15 from pid 1 (systemd)`, `log says …`, `log doubted reason=crashed`, `log unreadable`, `log cut` | QEMU's log |
//! | `signal 9 from 4711 (pkill)`, `signal 9 from kernel`, `signal 6 from itself` | a signal that the kernel saw delivered |
//! | `exit 1`, `exit signal 9`, `oom-kill` | the process's exit; the kernel's out-of-memory killer |
//! | `wrapped by sh`, `inner exit signal 9`, `may exit by isa-debug-exit`, `time used 600 of 600` | what is known of its process; seconds, and its hard limit |
//! | `definition a reboot ends it`, `definition it cannot panic` | what is known of how it is made |
//! | `qemu starts: exit signal 31`, `qemu starts: oom-kill` | of a process that was begun for it, and has not come up |
//! | `another start fails`, `another start fails: …` | as libvirt's state shows it, and its log says why |
//! | `another start failed 2 ago: …` | the same, found in the logs so many seconds later, whatever libvirt shows by then |
//! | `another arrival fails`, `another restore fails`, `another waiting fails` | the same of a QEMU that was to take over a memory |
//! | `host going down: …`, `host stays` | the host begins to shut down; it does not, or not any more |
//! | `host went down: 30`, `host went down: unknown` | the boot that is now leaves word that it was shut down, for so many seconds |
//! | `host says up`, `host says going down: …`, `host says nothing` | systemd's answer when it is asked |
//! | `unit stopping: NAME` | systemd was told to stop the VM's unit |
//! | `manager create`, `manager shutdown`, `manager shutdown force 30`, `manager destroy` | requests |
//! | `libvirt answers refused …` | to the next request: `done`, `no-domain`, `no-link`, `refused …` |
//! | `libvirtd restarts` | it is another process from now on; whatever else comes of that is told by other lines |
//! | `link lost`, `link back`, `daemon killed`, `daemon stopped`, `daemon started`, `host reboots` | faults and their ends |
//! | `ledger fails`, `ledger works`, `answers none`, `answers after 2`, `clock -3600` | more of them; seconds |

use std::time::Duration;

use whydown_core::evidence::{ExitStatus, Fact, LogWord};
use whydown_core::hypervisor::{
    CrashDetail, DomainState, Happening, IoErrorAction, JobOperation, PauseReason, PmDetail, Process,
    QemuReason, ResumeDetail, ShutOffReason, ShutdownDetail, StartDetail, StopDetail, SuspendDetail,
    WatchdogAction,
};
use whydown_core::id::DomainId;
use whydown_core::lifecycle::{Outcome, Subject, Wanted};
use whydown_core::operation::{Migration, Operation};

use super::starts::StartFails;
use crate::hypervisor::LogLine;
use crate::ledger::Disk;
use crate::ways::{Act, From};
use crate::world::{Acting, Answers, Loss, World};

/// The domain of every story.
pub const VM: DomainId = DomainId::from_bytes([7; 16]);

/// A line that the dictionary does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no such step: {0}")]
pub struct NoSuchStep(pub String);

/// What one line means.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    /// Time passes.
    Pass(Duration),
    /// It happens to the domain, one after the other.
    Happens(Vec<Act>),
    /// The log cannot be read.
    LogUnreadable,
    /// The log has lost the beginning of its part.
    LogCut,
    /// What libvirt says of a managed save image.
    Image(Option<bool>),
    /// The host begins to go down.
    HostGoingDown(String),
    /// The present boot leaves word behind that it was shut down in good order, from so long before this moment on.
    HostWentDown(Option<Duration>),
    /// It is said to stay, whatever was said before.
    HostStays,
    /// It says that it is up, from now on, whenever it is asked.
    HostSaysUp,
    /// It says, when it is asked, that it goes down by this one's word; or says nothing any more.
    HostSaysDown(Option<String>),
    /// Something is witnessed of the process.
    OfProcess(Fact),
    /// Something is witnessed of a process that has not come up.
    AtStart(Fact),
    /// A start by another client fails, and libvirt's log says why.
    StartFails(StartFails),
    /// A manager asks.
    Manager(Wanted),
    /// libvirt's answer to a later request.
    Answer(Outcome),
    /// A fault, or its end.
    Fault(Fault),
}

/// Faults and their ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are the dictionary's own words")]
pub enum Fault {
    LibvirtdRestarts,
    LinkLost,
    LinkBack,
    DaemonKilled,
    DaemonStopped,
    DaemonStarted,
    HostReboots,
    LedgerFails,
    LedgerWorks,
    AnswersNone,
    AnswersAfter(Duration),
    Clock(i64),
}

/// Reads one line.
///
/// # Errors
/// [`NoSuchStep`] holds the line.
pub fn parse(line: &str) -> Result<Line, NoSuchStep> {
    understood(line.trim()).ok_or_else(|| NoSuchStep(line.to_owned()))
}

fn understood(line: &str) -> Option<Line> {
    let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
    let rest = rest.trim();
    let say = |what| Some(Line::Happens(vec![Act::Say(what)]));
    match first {
        // A process is there, and libvirt shows it on its way up; nothing is reported yet.
        "begins" => {
            Some(Line::Happens(vec![Act::Begin, Act::Show(DomainState::Paused(PauseReason::StartingUp))]))
        }
        // What libvirt reports of a start from a snapshot that has failed, too.
        "in-vain" => say(Happening::Started(StartDetail::FromSnapshot)),
        "start" => Some(Line::Happens(vec![
            Act::Begin,
            Act::Say(Happening::Resumed(ResumeDetail::Unpaused)),
            Act::Say(Happening::Started(StartDetail::Booted)),
        ])),
        "spawn" => Some(Line::Happens(vec![Act::Begin])),
        "LIFECYCLE" => lifecycle(rest).map(Line::Happens),
        "REBOOT" => say(Happening::Rebooted),
        "CONTROL_ERROR" => say(Happening::ControlError),
        "AGENT" => {
            say(Happening::Agent { connected: pick(rest, &[("connected", true), ("disconnected", false)])? })
        }
        "WATCHDOG" => say(Happening::Watchdog(watchdog(rest)?)),
        "JOB_COMPLETED" => say(Happening::JobCompleted(pick(
            rest,
            &[
                ("save", JobOperation::Save),
                ("migration-out", JobOperation::MigrationOut),
                ("dump", JobOperation::Dump),
            ],
        )?)),
        "IO_ERROR" => say(io_error(rest)?),
        "MEMORY_FAILURE" => say(Happening::MemoryFailure { fatal: rest == "fatal" }),
        "qmp" => say(qmp(rest)?),
        "state" => Some(Line::Happens(vec![shown(rest)?])),
        "image" => {
            Some(Line::Image(pick(rest, &[("yes", Some(true)), ("no", Some(false)), ("unknown", None)])?))
        }
        "log" if rest == "unreadable" => Some(Line::LogUnreadable),
        "log" if rest == "cut" => Some(Line::LogCut),
        "log" => Some(Line::Happens(vec![Act::Log(log_line(rest)?)])),
        "exit" => Some(Line::Happens(vec![Act::Exit(exit_status(rest)?)])),
        "inner" => Some(Line::OfProcess(Fact::InnerExit(exit_status(rest.strip_prefix("exit ")?)?))),
        "wrapped" => {
            let program = rest.strip_prefix("by ")?.to_owned();
            Some(Line::OfProcess(Fact::Wrapped { program, qemu: Some(4321) }))
        }
        "may" => {
            Some(Line::OfProcess(Fact::GuestMayExit { device: rest.strip_prefix("exit by ")?.to_owned() }))
        }
        "another" => StartFails::parse(rest).map(Line::StartFails),
        "definition" | "time" => super::kinds::of_process(rest).map(Line::OfProcess),
        "unit" => {
            Some(Line::OfProcess(Fact::UnitStopping { unit: rest.strip_prefix("stopping: ")?.to_owned() }))
        }
        "qemu" => match rest.strip_prefix("starts: ")? {
            "oom-kill" => {
                Some(Line::AtStart(Fact::OomKilled { line: "oom-kill: task=qemu-system-x86".into() }))
            }
            said => Some(Line::AtStart(Fact::Exit(exit_status(said.strip_prefix("exit ")?)?))),
        },
        "signal" => signal(rest),
        "oom-kill" => Some(Line::Happens(vec![Act::Oom])),
        "manager" => manager(rest).map(Line::Manager),
        "libvirt" => answer(rest.strip_prefix("answers ")?).map(Line::Answer),
        "host" if rest == "stays" => Some(Line::HostStays),
        "host" if rest == "says up" => Some(Line::HostSaysUp),
        "host" if rest == "says nothing" => Some(Line::HostSaysDown(None)),
        "host" if rest.starts_with("says going down: ") => {
            Some(Line::HostSaysDown(Some(rest["says going down: ".len()..].to_owned())))
        }
        "host" if rest.starts_with("went down: ") => {
            Some(Line::HostWentDown(match &rest["went down: ".len()..] {
                "unknown" => None,
                seconds => Some(Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?),
            }))
        }
        "host" if rest != "reboots" => {
            Some(Line::HostGoingDown(rest.strip_prefix("going down: ")?.to_owned()))
        }
        _ => match line.strip_prefix('+') {
            Some(seconds) => Some(Line::Pass(Duration::try_from_secs_f64(seconds.parse().ok()?).ok()?)),
            None => fault(line).map(Line::Fault),
        },
    }
}

fn exit_status(text: &str) -> Option<ExitStatus> {
    Some(match text.strip_prefix("signal ") {
        Some(signal) => ExitStatus::Signal(signal.parse().ok()?),
        None => ExitStatus::Code(text.parse().ok()?),
    })
}

fn signal(text: &str) -> Option<Line> {
    let (number, from) = text.split_once(" from ")?;
    let from = match from {
        "kernel" => From::Kernel,
        "itself" => From::Itself,
        process => {
            let (pid, program) = process.strip_suffix(')')?.split_once(" (")?;
            From::Process(pid.parse().ok()?, program.to_owned())
        }
    };
    Some(Line::Happens(vec![Act::Signal(number.parse().ok()?, from)]))
}

fn fault(line: &str) -> Option<Fault> {
    let seconds = |text: &str| text.parse().ok().and_then(|s| Duration::try_from_secs_f64(s).ok());
    Some(match line {
        "libvirtd restarts" => Fault::LibvirtdRestarts,
        "link lost" => Fault::LinkLost,
        "link back" => Fault::LinkBack,
        "daemon killed" => Fault::DaemonKilled,
        "daemon stopped" => Fault::DaemonStopped,
        "daemon started" => Fault::DaemonStarted,
        "host reboots" => Fault::HostReboots,
        "ledger fails" => Fault::LedgerFails,
        "ledger works" => Fault::LedgerWorks,
        "answers none" => Fault::AnswersNone,
        _ => match line.strip_prefix("answers after ") {
            Some(wait) => Fault::AnswersAfter(seconds(wait)?),
            None => Fault::Clock(line.strip_prefix("clock ")?.parse().ok()?),
        },
    })
}

impl World {
    /// Plays one line. Requests are remembered in `asked`.
    pub fn play(&mut self, line: &Line, asked: &mut Vec<whydown_core::id::RequestId>) {
        match line {
            Line::Pass(wait) => self.pass(*wait),
            Line::Happens(acts) => {
                for act in acts {
                    self.happens(VM, vec![(0, act.clone())]);
                    self.pass(Duration::from_micros(100));
                }
            }
            Line::LogUnreadable => {
                if let Some(life) = self.hypervisor.latest_life_mut(VM) {
                    life.log_unread = Some("permission denied".into());
                }
            }
            Line::LogCut => {
                if let Some(life) = self.hypervisor.latest_life_mut(VM) {
                    life.log_cut = true;
                }
            }
            Line::Image(there) => {
                if let Some(domain) = self.hypervisor.domains.get_mut(&VM) {
                    domain.managed_save = *there;
                }
            }
            Line::HostGoingDown(by) => self.witness(Subject::Host, Fact::HostGoingDown { by: by.clone() }),
            Line::HostWentDown(lasted) => {
                let at = self.now().wall;
                let since = lasted.map(|lasted| at.before(lasted));
                let fact = Fact::HostWentDown { since, by: "the journal of that boot says so".into() };
                self.went_down.push((self.hypervisor.boot(), at, fact));
            }
            Line::HostSaysUp => self.host_says_up = true,
            Line::HostSaysDown(by) => self.host_says_down = by.clone(),
            Line::OfProcess(fact) => {
                if let Some(process) = self.hypervisor.life(VM).map(|life| life.process) {
                    self.witness(Subject::Process(process), fact.clone());
                }
            }
            Line::AtStart(fact) => {
                let process = Process { pid: 4999, start_ticks: 77 };
                self.witness(Subject::Starting(VM, process), fact.clone());
            }
            Line::StartFails(start) => start.happens(self),
            Line::HostStays => self.witness(Subject::Host, Fact::HostStays),
            Line::Manager(wanted) => asked.extend(self.ask("engine", wanted.clone())),
            Line::Answer(outcome) => {
                if let Acting::Told(outcomes) = &mut self.acting {
                    outcomes.push(outcome.clone());
                }
            }
            Line::Fault(fault) => self.play_fault(*fault),
        }
    }

    fn play_fault(&mut self, fault: Fault) {
        let usual = Duration::from_millis(3);
        match fault {
            Fault::LibvirtdRestarts => self.hypervisor.up_since = Some(self.now()),
            Fault::LinkLost => self.lose_link(Loss::Cut),
            Fault::LinkBack => self.regain_link(),
            Fault::DaemonKilled => self.crash_daemon(),
            Fault::DaemonStopped => self.stop_daemon(),
            Fault::DaemonStarted => {
                self.start_daemon();
                self.regain_link();
            }
            Fault::HostReboots => self.reboot_host(),
            Fault::LedgerFails => self.disk = Disk::Fails,
            Fault::LedgerWorks => self.disk = Disk::Works(Duration::from_millis(2)),
            Fault::AnswersNone => self.answers = Answers::None(usual),
            Fault::AnswersAfter(wait) => self.answers = Answers::After(wait),
            Fault::Clock(seconds) => self.jump(seconds * 1000),
        }
    }
}

fn pick<T: Clone>(word: &str, words: &[(&str, T)]) -> Option<T> {
    words.iter().find(|(known, _)| *known == word).map(|(_, meaning)| meaning.clone())
}

fn lifecycle(text: &str) -> Option<Vec<Act>> {
    let (event, detail) = text.split_once('/')?;
    let say = |what| vec![Act::Say(what)];
    Some(match event {
        "DEFINED" => say(Happening::Defined),
        "UNDEFINED" => say(Happening::Undefined { renamed: detail == "RENAMED" }),
        "STARTED" => vec![Act::Begin, Act::Say(Happening::Started(started(detail)?))],
        "SUSPENDED" => say(Happening::Suspended(suspended(detail)?)),
        "RESUMED" => say(Happening::Resumed(pick(
            detail,
            &[
                ("UNPAUSED", ResumeDetail::Unpaused),
                ("MIGRATED", ResumeDetail::Migrated),
                ("FROM_SNAPSHOT", ResumeDetail::FromSnapshot),
                ("POSTCOPY", ResumeDetail::Postcopy),
                ("POSTCOPY_FAILED", ResumeDetail::PostcopyFailed),
            ],
        )?)),
        "STOPPED" => {
            let (detail, reason) = stopped(detail)?;
            vec![Act::End(DomainState::ShutOff(reason)), Act::Say(Happening::Stopped(detail))]
        }
        "SHUTDOWN" => say(Happening::ShutdownBegan(pick(
            detail,
            &[
                ("FINISHED", ShutdownDetail::Finished),
                ("GUEST", ShutdownDetail::Guest),
                ("HOST", ShutdownDetail::Host),
            ],
        )?)),
        "PMSUSPENDED" => say(Happening::PmSuspended(pick(
            detail,
            &[("MEMORY", PmDetail::Memory), ("DISK", PmDetail::Disk)],
        )?)),
        "CRASHED" => say(Happening::GuestCrashed(pick(
            detail,
            &[("PANICKED", CrashDetail::Panicked), ("CRASHLOADED", CrashDetail::CrashLoaded)],
        )?)),
        _ => return None,
    })
}

fn started(detail: &str) -> Option<StartDetail> {
    pick(
        detail,
        &[
            ("BOOTED", StartDetail::Booted),
            ("MIGRATED", StartDetail::Migrated),
            ("RESTORED", StartDetail::Restored),
            ("FROM_SNAPSHOT", StartDetail::FromSnapshot),
            ("WAKEUP", StartDetail::Wakeup),
        ],
    )
}

fn suspended(detail: &str) -> Option<SuspendDetail> {
    pick(
        detail,
        &[
            ("PAUSED", SuspendDetail::Paused),
            ("MIGRATED", SuspendDetail::Migrated),
            ("IOERROR", SuspendDetail::IoError),
            ("WATCHDOG", SuspendDetail::Watchdog),
            ("RESTORED", SuspendDetail::Restored),
            ("FROM_SNAPSHOT", SuspendDetail::FromSnapshot),
            ("API_ERROR", SuspendDetail::ApiError),
            ("POSTCOPY", SuspendDetail::Postcopy),
            ("POSTCOPY_FAILED", SuspendDetail::PostcopyFailed),
        ],
    )
}

/// The detail of STOPPED, and the state that libvirt shows then: the names do not match.
fn stopped(detail: &str) -> Option<(StopDetail, ShutOffReason)> {
    if let Ok(number) = detail.parse() {
        return Some((StopDetail::Other(number), ShutOffReason::Other(number)));
    }
    pick(
        detail,
        &[
            ("SHUTDOWN", (StopDetail::Shutdown, ShutOffReason::Shutdown)),
            ("DESTROYED", (StopDetail::Destroyed, ShutOffReason::Destroyed)),
            ("CRASHED", (StopDetail::Crashed, ShutOffReason::Crashed)),
            ("MIGRATED", (StopDetail::Migrated, ShutOffReason::Migrated)),
            ("SAVED", (StopDetail::Saved, ShutOffReason::Saved)),
            ("FAILED", (StopDetail::Failed, ShutOffReason::Crashed)),
            ("FROM_SNAPSHOT", (StopDetail::FromSnapshot, ShutOffReason::FromSnapshot)),
        ],
    )
}

fn watchdog(text: &str) -> Option<WatchdogAction> {
    pick(
        text,
        &[
            ("none", WatchdogAction::Ignore),
            ("pause", WatchdogAction::Pause),
            ("reset", WatchdogAction::Reset),
            ("poweroff", WatchdogAction::PowerOff),
            ("shutdown", WatchdogAction::Shutdown),
            ("debug", WatchdogAction::Debug),
            ("inject-nmi", WatchdogAction::InjectNmi),
        ],
    )
}

fn io_error(text: &str) -> Option<Happening> {
    let mut words = text.split(' ');
    let disk = words.next()?.to_owned();
    let action = pick(
        words.next()?,
        &[
            ("ignore", IoErrorAction::Ignore),
            ("pause", IoErrorAction::Pause),
            ("report", IoErrorAction::Report),
        ],
    )?;
    Some(Happening::IoError { disk, action, reason: words.next().unwrap_or_default().to_owned() })
}

fn qmp(text: &str) -> Option<Happening> {
    let words: Vec<&str> = text.split(' ').collect();
    let side = |word| pick(word, &[("guest", true), ("host", false)]);
    Some(match words.as_slice() {
        ["POWERDOWN"] => Happening::QemuPowerdown,
        ["GUEST_PANICKED"] => Happening::QemuPanicked,
        ["SHUTDOWN", who, reason] => {
            Happening::QemuShutdown { guest: side(who)?, reason: qemu_reason(reason)? }
        }
        ["RESET", who, reason] => Happening::QemuReset { guest: side(who)?, reason: qemu_reason(reason)? },
        _ => return None,
    })
}

fn qemu_reason(text: &str) -> Option<QemuReason> {
    pick(
        text,
        &[
            ("guest-shutdown", QemuReason::GuestShutdown),
            ("guest-reset", QemuReason::GuestReset),
            ("guest-panic", QemuReason::GuestPanic),
            ("host-error", QemuReason::HostError),
            ("host-qmp-quit", QemuReason::HostQmpQuit),
            ("host-qmp-system-reset", QemuReason::HostQmpSystemReset),
            ("host-signal", QemuReason::HostSignal),
            ("host-ui", QemuReason::HostUi),
            ("subsystem-reset", QemuReason::SubsystemReset),
            ("snapshot-load", QemuReason::SnapshotLoad),
        ],
    )
}

fn shown(text: &str) -> Option<Act> {
    let (state, reason) = text.split_once('/').unwrap_or((text, ""));
    Some(match state {
        "RUNNING" => Act::Show(DomainState::Running),
        "SHUTDOWN" => Act::Show(DomainState::ShuttingDown),
        "CRASHED" => Act::Show(DomainState::Crashed),
        "PMSUSPENDED" => Act::Show(DomainState::PmSuspended),
        "PAUSED" => Act::Show(DomainState::Paused(paused(reason)?)),
        "SHUTOFF" => Act::End(DomainState::ShutOff(shut_off(reason)?)),
        _ => return None,
    })
}

fn paused(reason: &str) -> Option<PauseReason> {
    pick(
        reason,
        &[
            ("UNKNOWN", PauseReason::Unknown),
            ("USER", PauseReason::User),
            ("MIGRATION", PauseReason::Migration),
            ("SAVE", PauseReason::Save),
            ("DUMP", PauseReason::Dump),
            ("IOERROR", PauseReason::IoError),
            ("WATCHDOG", PauseReason::Watchdog),
            ("SNAPSHOT", PauseReason::Snapshot),
            ("POSTCOPY", PauseReason::Postcopy),
            ("POSTCOPY_FAILED", PauseReason::PostcopyFailed),
        ],
    )
}

fn shut_off(reason: &str) -> Option<ShutOffReason> {
    pick(
        reason,
        &[
            ("UNKNOWN", ShutOffReason::Unknown),
            ("SHUTDOWN", ShutOffReason::Shutdown),
            ("DESTROYED", ShutOffReason::Destroyed),
            ("CRASHED", ShutOffReason::Crashed),
            ("MIGRATED", ShutOffReason::Migrated),
            ("SAVED", ShutOffReason::Saved),
            ("FAILED", ShutOffReason::Failed),
            ("FROM_SNAPSHOT", ShutOffReason::FromSnapshot),
            ("DAEMON", ShutOffReason::Daemon),
        ],
    )
}

fn log_line(text: &str) -> Option<LogLine> {
    if let Some(text) = text.strip_prefix("doubted ") {
        return match log_line(text)? {
            LogLine::Reason(word) => Some(LogLine::Doubted(word)),
            _ => None,
        };
    }
    if let Some(word) = text.strip_prefix("reason=") {
        return Some(LogLine::Reason(pick(
            word,
            &[
                ("shutdown", LogWord::Shutdown),
                ("destroyed", LogWord::Destroyed),
                ("crashed", LogWord::Crashed),
                ("migrated", LogWord::Migrated),
                ("saved", LogWord::Saved),
                ("failed", LogWord::Failed),
                ("from snapshot", LogWord::FromSnapshot),
                ("daemon", LogWord::Daemon),
            ],
        )?));
    }
    if let Some(rest) = text.strip_prefix("terminating on signal ") {
        let (signal, rest) = rest.split_once(" from pid ")?;
        let (pid, program) = rest.split_once(" (")?;
        return Some(LogLine::Signal {
            signal: signal.parse().ok()?,
            pid: pid.parse().ok()?,
            program: program.strip_suffix(')')?.to_owned(),
        });
    }
    Some(LogLine::Text(text.strip_prefix("says ")?.to_owned()))
}

fn manager(text: &str) -> Option<Wanted> {
    let words: Vec<&str> = text.split(' ').collect();
    Some(match words.as_slice() {
        ["create"] => Wanted::Do {
            domain: VM,
            act: Operation::Create { name: "vm".into(), xml: "<domain/>".into(), made: None, paused: false },
        },
        ["shutdown"] => shutdown(None, None),
        ["shutdown", "force", seconds] => shutdown(None, Some(seconds.parse().ok()?)),
        ["shutdown", "agent", wait, "force", seconds] => {
            shutdown(Some(wait.parse().ok()?), Some(seconds.parse().ok()?))
        }
        ["pause"] => Wanted::Do { domain: VM, act: Operation::Pause },
        ["save"] => Wanted::Do { domain: VM, act: Operation::Save },
        ["migrate"] => Wanted::Do { domain: VM, act: Operation::Migrate(Migration::default()) },
        ["destroy"] => Wanted::Do { domain: VM, act: Operation::Destroy },
        _ => return None,
    })
}

fn shutdown(agent_first: Option<u64>, force_after: Option<u64>) -> Wanted {
    let (agent_first, force_after) =
        (agent_first.map(Duration::from_secs), force_after.map(Duration::from_secs));
    Wanted::Shutdown { domain: VM, again: false, agent_first, force_after }
}

fn answer(text: &str) -> Option<Outcome> {
    Some(match text {
        "done" => Outcome::Done,
        "no-domain" => Outcome::NoDomain,
        "no-link" => Outcome::NoLink,
        _ => Outcome::Refused(text.strip_prefix("refused ")?.to_owned()),
    })
}
