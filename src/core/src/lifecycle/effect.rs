//! The words between the engine and its shell.

use std::sync::Arc;

use super::attribution::Marks;
use super::failed::FailedStart;
use crate::evidence::{Fact, OperationKind, Who};
use crate::hypervisor::{DomainView, HostEvent, Listing, Process};
use crate::id::{BootId, DomainId, RequestId, RunId};
use crate::log::Log;
use crate::operation::Operation;
use crate::record::{Ending, Haste, Keep};
use crate::sample::Devices;
use crate::time::{Mono, Wall};

/// What the world tells the engine.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The hypervisor reported something.
    Host(HostEvent),
    /// A question was answered.
    Answered(Answer),
    /// A source of evidence has observed something.
    Observed {
        /// Of whom.
        subject: Subject,
        /// When it happened.
        at: Wall,
        /// What.
        fact: Fact,
    },
    /// A manager asks for something.
    Asked(Request),
    /// The link to libvirt is gone since `at`.
    LinkLost {
        /// Last moment of hearing.
        at: Wall,
    },
    /// QEMU's logs that were written while nobody listened; told just before the link is there again.
    Past(Vec<Log>),
    /// The link is there again, and this is what exists.
    LinkUp(Listing),
    /// A domain that runs as far as we know was not among those that run: libvirt says no word of processes that it
    /// finds gone while it takes them over after its own start.
    Missed(DomainId),
    /// What this run is made of was read, and is to be told of it for as long as it is shown.
    Made {
        /// Which run.
        run: RunId,
        /// What it is made of.
        devices: Arc<Devices>,
        /// When the reading began. One that began earlier than another says nothing against it, whenever it comes.
        read: Mono,
    },
    /// A start by another client failed.
    StartFailed(FailedStart),
    /// The ledger has the ending of this run on disk.
    Kept(RunId),
    /// The ledger could not keep it now; it is held in memory and tried again.
    NotKept(RunId),
    /// So many of all [`Effect::Keep`] are on disk.
    Written(u64),
    /// So many of all [`Effect::Keep`] were taken, and those that are not on disk wait in memory: it cannot be written now.
    Unwritten(u64),
    /// The ledger has the correction of this number of the run's ending on disk.
    KeptRevision(RunId, u16),
    /// A deadline passed (see `Engine::wake_at`).
    Wake,
}

/// Whom something is observed of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// This run.
    Run(RunId),
    /// This domain, whichever run it was in at that moment.
    Domain(DomainId),
    /// One process, known for sure.
    Process(Process),
    /// The process with this number, as the kernel's log names it.
    Pid(u32),
    /// A process that was begun to run this domain, and of which libvirt may never have told.
    Starting(DomainId, Process),
    /// The whole host.
    Host,
}

/// A manager's request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// To be answered by `Effect::Reply` exactly once.
    pub id: RequestId,
    /// By whom.
    pub who: Who,
    /// What.
    pub what: Wanted,
}

/// What a manager wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Ask the guest to shut down.
    Shutdown {
        /// Which.
        domain: DomainId,
        /// And to start again.
        again: bool,
        /// First by its agent; by its power button this long after, if it is still there.
        agent_first: Option<std::time::Duration>,
        /// Force it this long after the power button, if it is still there.
        force_after: Option<std::time::Duration>,
    },
    /// Do this.
    Do {
        /// With which.
        domain: DomainId,
        /// What. [`Operation::Destroy`] ends it and forgets it, and forgets it where it is Down.
        act: Operation,
    },
}

impl Wanted {
    /// With which domain.
    pub const fn domain(&self) -> DomainId {
        match self {
            Self::Shutdown { domain, .. } | Self::Do { domain, .. } => *domain,
        }
    }
}

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Done, or begun.
    Done,
    /// The same, and the ledger cannot be written: if whydown ends before it can, it knows nothing of this.
    DoneUnwritten,
    /// There is no such VM.
    NoSuchVm,
    /// It exists already.
    Exists,
    /// It is Down already.
    IsDown,
    /// libvirt refused; its own text.
    Refused(String),
    /// It is being migrated or saved; which of them, for a person.
    Moving(&'static str),
    /// We cannot act now; why.
    Unavailable(String),
}

/// Whether an ended domain's definition is to be read. It costs two calls to libvirt, which counts when many end at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Definition {
    /// What it says is known, or can say nothing of this end.
    Unwanted,
    /// It says something of this end only if QEMU's log tells of a panic.
    IfPanicked,
    /// Not all of the end was heard, and nobody read it while the domain ran.
    Wanted,
}

/// What the engine wants to know or wants done. Each is answered by one [`Answer`]; a question that cannot be answered
/// is answered with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// What remains of a run: libvirt's state of the domain, this run's part of QEMU's log, whether the host goes down, and
    /// how the boot ended in which it ran, if that is over.
    Remains {
        /// Which run.
        run: RunId,
        /// Its domain.
        domain: DomainId,
        /// What it was called when it was started, which is the name of its log.
        name: String,
        /// By what its part of the log is found.
        marks: Marks,
        /// The boot in which it ran, if that is over.
        boot_before: Option<BootId>,
        /// Whether what its definition says of reboots and panics is wanted.
        definition: Definition,
    },
    /// Whether the host goes down. A shell that would be told so as it happens need ask nobody.
    Host,
    /// What libvirt shows of this domain now.
    Look {
        /// Which.
        domain: DomainId,
    },
    /// How libvirt shows a run that goes on; and where it is paused and nobody says why, what QEMU's log says of that.
    Glance {
        /// Which run.
        run: RunId,
        /// Its domain.
        domain: DomainId,
        /// As in `Remains`.
        name: String,
        /// As in `Remains`.
        marks: Marks,
        /// libvirt's names of those of its disks that paused it as they had no room, to be looked at.
        full: Vec<String>,
    },
    /// Do this.
    Perform {
        /// For which run.
        run: RunId,
        /// Its domain.
        domain: DomainId,
        /// Who waits for the answer to exactly this.
        request: Option<RequestId>,
        /// What.
        act: Operation,
    },
}

/// An answer from the shell.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// To [`Question::Remains`].
    Remains {
        /// Which run.
        run: RunId,
        /// libvirt's view: `Some(None)` when it knows no such domain, `None` when it could not be asked.
        view: Option<Option<DomainView>>,
        /// What the log and other witnesses say, with their times.
        facts: Vec<(Wall, Fact)>,
    },
    /// To [`Question::Host`].
    Host {
        /// When it was said that it does, and by whom, in words for an administrator; `None` where nobody says so.
        going_down: Option<(Wall, String)>,
    },
    /// To [`Question::Look`].
    Looked {
        /// Which.
        domain: DomainId,
        /// As in `Remains`.
        view: Option<Option<DomainView>>,
    },
    /// To [`Question::Glance`].
    Glanced {
        /// Which run.
        run: RunId,
        /// As in `Remains`.
        view: Option<Option<DomainView>>,
        /// QEMU's words on an error of its own, with their times.
        facts: Vec<(Wall, Fact)>,
    },
    /// To [`Question::Perform`].
    Performed {
        /// For which run.
        run: RunId,
        /// Who waits.
        request: Option<RequestId>,
        /// What.
        what: OperationKind,
        /// How it went.
        outcome: Outcome,
    },
}

/// How an operation went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// libvirt did it.
    Done,
    /// libvirt knows no such active domain any more.
    NoDomain,
    /// libvirt refused, with its own text.
    Refused(String),
    /// There is no link to libvirt.
    NoLink,
}

/// What the engine wants the shell to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Ask this.
    Ask(Question),
    /// Write this down, in this order, and all that one step wants in one commit. Answered by `Input::Written` or
    /// `Input::Unwritten`, which count these.
    Keep(Keep),
    /// What was handed to the ledger is waited for. Without this it may wait some moments for more.
    Hurry(Haste),
    /// Answer this request.
    Reply(RequestId, Reply),
    /// Tell when this process exits, and how.
    Watch(Process),
    /// An ending that is no longer shown was corrected, and the correction is on disk.
    Corrected(Arc<Ending>),
    /// Readers should get the new snapshot.
    Publish,
}
