//! What is kept: the start of a run, the evidence as it comes, and the ending as it was told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cause::Cause;
use crate::evidence::{Evidence, EvidenceId};
use crate::hypervisor::Process;
use crate::id::{BootId, DomainId, RunId};
use crate::limits;
use crate::sample::Devices;
use crate::time::Wall;

/// What tells one run of a domain from the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation {
    /// libvirt's number of the active domain.
    pub libvirt_id: Option<u32>,
    /// The process.
    pub process: Option<Process>,
    /// The boot of the host.
    pub boot: BootId,
}

/// A run, written down when it begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStart {
    /// Which run.
    pub run: RunId,
    /// Of which domain.
    pub domain: DomainId,
    /// The domain's name then.
    pub name: String,
    /// When it was first seen.
    pub at: Wall,
    /// Whether we saw it start; false if it was found running.
    pub seen: bool,
    /// What tells it apart.
    pub incarnation: Incarnation,
}

/// When a run was seen first: by that its part of QEMU's log is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Which run.
    pub run: RunId,
    /// Of which domain.
    pub domain: DomainId,
    /// When it was first seen.
    pub at: Wall,
    /// Whether that was its start.
    pub start: bool,
}

impl Seen {
    /// Of this run.
    pub const fn of(start: &RunStart) -> Self {
        Self { run: start.run, domain: start.domain, at: start.at, start: start.seen }
    }
}

/// How sure the verdict is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Certainty {
    /// There is no evidence for any cause.
    Unknown,
    /// Concluded from what was left behind, or from evidence that leaves room.
    Probable,
    /// Witnessed.
    Certain,
}

impl Certainty {
    /// The stable word.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Probable => "probable",
            Self::Certain => "certain",
        }
    }
}

/// The cause of an ending, with its grounds. `because` is never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The row of THE TABLE.
    pub cause: Cause,
    /// How sure.
    pub certainty: Certainty,
    /// The row of the decision table, such as `S4`.
    pub row: String,
    /// The evidence that it stands on.
    pub because: Vec<EvidenceId>,
    /// Evidence that points elsewhere.
    pub despite: Vec<EvidenceId>,
}

/// When it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum When {
    /// Heard at this moment.
    At(Wall),
    /// Somewhere in this window.
    Between(Wall, Wall),
}

impl When {
    /// The earliest moment at which it can have ended.
    pub const fn earliest(self) -> Wall {
        match self {
            Self::At(at) | Self::Between(at, _) => at,
        }
    }

    /// The latest moment at which it can have ended.
    pub const fn latest(self) -> Wall {
        match self {
            Self::At(at) | Self::Between(_, at) => at,
        }
    }
}

/// The ending of a run, as it was told. Never changed afterwards, but for its acknowledgement, and by proof that came
/// late: then the cause, the reason and the message may change, the exit code never
/// (see the decision on late proof in `docs/decisions`). What was told before is kept with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ending {
    /// Which run.
    pub run: RunId,
    /// Of which domain.
    pub domain: DomainId,
    /// The domain's name at the end.
    pub name: String,
    /// When the run began, as far as seen.
    pub started: Wall,
    /// When it ended.
    pub ended: When,
    /// The cause.
    pub verdict: Verdict,
    /// 0 or 1.
    pub exit_code: u8,
    /// VDSM's number, 0 to 14.
    pub exit_reason: u8,
    /// For people and for old managers; tame text, never empty.
    pub message: String,
    /// All evidence, frozen.
    pub evidence: Vec<Evidence>,
    /// Who acknowledged it, and when; `None` while managers still have to.
    pub acknowledged: Option<Acknowledged>,
    /// What was told before late proof corrected it, oldest first: as many as there were corrections.
    pub earlier: Vec<Earlier>,
}

impl Ending {
    /// Whether it was told when a later run of its domain was known already.
    pub fn was_told_later(&self) -> bool {
        self.acknowledged.as_ref().is_some_and(|by| by.by == TOLD_LATER)
    }

    /// How often it was corrected; 0 as it was told first.
    pub fn revision(&self) -> u16 {
        u16::try_from(self.earlier.len()).unwrap_or(u16::MAX)
    }

    /// The cause whose numbers are told to managers: the present one if it has the exit code that was told first, else
    /// the last one before that had it. A manager acts on an exit code once.
    pub fn numbers_of(&self) -> Cause {
        let causes = self.earlier.iter().map(|earlier| earlier.verdict.cause).chain([self.verdict.cause]);
        causes.rev().find(|cause| cause.row().exit_code == self.exit_code).unwrap_or(self.verdict.cause)
    }

    /// The evidence on which this revision stood, as it was then.
    pub fn evidence_of(&self, revision: u16) -> Vec<Evidence> {
        let mut evidence = self.evidence.clone();
        for earlier in self.earlier.iter().skip(usize::from(revision)).rev() {
            for (position, piece) in &earlier.changed {
                if let Some(place) = evidence.get_mut(usize::from(*position)) {
                    *place = piece.clone();
                }
            }
            evidence.truncate(usize::from(earlier.facts));
        }
        evidence
    }
}

/// What was told of an ending before late proof corrected it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// When it was corrected.
    pub until: Wall,
    /// The cause as it was thought to be.
    pub verdict: Verdict,
    /// VDSM's number.
    pub exit_reason: u8,
    /// The message.
    pub message: String,
    /// How many pieces of evidence there were; they are the first ones of those that are there now.
    pub facts: u16,
    /// Those of them that have changed since, as they were.
    pub changed: Vec<(EvidenceId, Evidence)>,
}

/// Who has acknowledged what was learned of only when a later run of its domain was known: history alone has it. Its run
/// has no start on disk, and its number is no later than another's.
pub const TOLD_LATER: &str = "(told later)";

/// An acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acknowledged {
    /// When.
    pub at: Wall,
    /// By whom; `(limit)` when it left by age or count, [`TOLD_LATER`] when it was never shown.
    pub by: String,
}

/// What the ledger is told to keep, in this order for each run: start, evidence, ending, and then its acknowledgement and
/// its corrections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// A run began.
    Start(RunStart),
    /// A new fact about a run that goes on, with its position.
    Evidence(RunId, EvidenceId, Evidence),
    /// A run ended. Answered by `Input::Kept`.
    Ending(Arc<Ending>),
    /// Late proof corrects an ending. Answered by `Input::KeptRevision`.
    Revised(Arc<Ending>),
    /// An ending was acknowledged.
    Acknowledge(RunId, Acknowledged),
    /// What a run is made of, until its ending is acknowledged: the last word counts.
    Made(RunId, Arc<Devices>),
    /// We were alive and listening at this moment.
    Alive(Wall),
}

/// How soon what was kept has to be on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Haste {
    /// It is shown only then: at once, but for a moment in which more may come.
    Soon,
    /// An act or an answer waits for it.
    Now,
}

impl Recovered {
    /// The latest moment of which it knows. What is dated long behind the last sign of life was dated by a clock that was
    /// wrong, and does not count.
    pub fn latest(&self) -> Wall {
        let evidence = self
            .open
            .iter()
            .flat_map(|(start, evidence)| evidence.iter().map(|piece| piece.last).chain([start.at]));
        let ended = self.unacknowledged.iter().map(|ending| ending.ended.latest());
        let believable = |at: &Wall| self.alive.is_none_or(|alive| at.since(alive) <= limits::CLOCK_AHEAD);
        evidence.chain(ended).filter(believable).chain(self.alive).max().unwrap_or_default()
    }
}

/// What the ledger knew when it was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovered {
    /// Runs with no ending, with their evidence.
    pub open: Vec<(RunStart, Vec<Evidence>)>,
    /// Endings that no manager has acknowledged: the latest run of their domain only.
    pub unacknowledged: Vec<Ending>,
    /// The latest endings that are not certain, with how their runs began: late proof may be about them.
    pub uncertain: Vec<(RunStart, Ending)>,
    /// Higher numbers were never given to a run.
    pub last_run: u64,
    /// The last moment at which whydown was listening.
    pub alive: Option<Wall>,
    /// How old those endings are, in time that whydown lived through since they were written.
    pub ages: BTreeMap<RunId, Duration>,
    /// The latest run of each domain that has ended, the newest [`limits::RUNS_REMEMBERED`](crate::limits):
    /// what stands behind it in QEMU's log is news.
    pub latest: Vec<Seen>,
    /// What runs are made of that go on or ended unacknowledged, as far as it was read.
    pub made: BTreeMap<RunId, Devices>,
}
