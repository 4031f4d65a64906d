//! What the daemon tells its own command line, as JSON under `/v1/`. Times are RFC 3339 texts in UTC.
//!
//! Members are added, never renamed or removed; unknown members are to be ignored.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use whydown_core::cause::Row;
use whydown_core::evidence::{Evidence, EvidenceId};
use whydown_core::record::{self, When};
use whydown_core::snapshot::{DomainPublic, Link, Snapshot, Status};
use whydown_core::time::Wall;
use whydown_core::verdict::{advice, describe, led_by, story_of};

/// `GET /v1/domains`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Domains {
    /// Whether libvirt was listed at least once: before that, absence means nothing.
    pub settled: bool,
    /// Since when the link to libvirt is lost; absent while it is there, and before it was ever there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_lost_since: Option<Timestamp>,
    /// All domains that managers see.
    pub domains: Vec<Domain>,
}

/// One domain.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Domain {
    /// UUID.
    pub domain: String,
    /// Name.
    pub name: String,
    /// What it is doing; `down` exactly when `ending` is there.
    pub status: Status,
    /// Number of the run.
    pub run: u64,
    /// When the run began, as far as seen.
    pub started: Timestamp,
    /// The QEMU process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// What paused it, where nobody asked for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_by: Option<String>,
    /// How it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// False while the ending could not be written to disk.
    pub durable: bool,
}

/// An ending, told to people.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ending {
    /// UUID of the domain.
    pub domain: String,
    /// Its name at the end.
    pub name: String,
    /// Number of the run.
    pub run: u64,
    /// When the run began, as far as seen.
    pub started: Timestamp,
    /// The moment of the end, or the latest possible one.
    pub ended: Timestamp,
    /// The earliest possible moment, where the end was not heard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_not_before: Option<Timestamp>,
    /// The cause's stable word.
    pub cause: String,
    /// `certain`, `probable` or `unknown`.
    pub certainty: String,
    /// What happened, in a sentence.
    pub sentence: String,
    /// What to do about it.
    pub advice: String,
    /// 0 or 1.
    pub exit_code: u8,
    /// VDSM's number, 0 to 14.
    pub exit_reason: u8,
    /// `exitMessage` on the wire.
    pub message: String,
    /// The other columns of the cause's row in THE TABLE.
    #[serde(flatten)]
    pub columns: Columns,
    /// Row of the decision table.
    pub row: String,
    /// Why that row was taken.
    pub story: String,
    /// What the verdict stands on.
    pub because: Vec<Witnessed>,
    /// What points elsewhere.
    pub despite: Vec<Witnessed>,
    /// The trouble before the end, the newest first: it speaks neither for the cause nor against it.
    #[serde(default)]
    pub led_by: Vec<Witnessed>,
    /// All evidence, in the order of its first appearance.
    pub evidence: Vec<Witnessed>,
    /// How often late proof has corrected it: the exit code stays, the cause, the reason and the message may change.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    pub revision: u16,
    /// What was told before each correction, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Earlier>,
    /// Who acknowledged it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acknowledged_by: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acknowledged_at: Option<Timestamp>,
}

/// What was told of an ending before late proof corrected it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Earlier {
    /// Its number; 0 is the first telling.
    pub revision: u16,
    /// When it was corrected.
    pub until: Timestamp,
    /// The cause's stable word.
    pub cause: String,
    /// `certain`, `probable` or `unknown`.
    pub certainty: String,
    /// What was thought to have happened, in a sentence.
    pub sentence: String,
    /// VDSM's number as it was told.
    pub exit_reason: u8,
    /// `exitMessage` as it was told.
    pub message: String,
    /// Row of the decision table.
    pub row: String,
    /// What it stood on, as it was known then.
    pub because: Vec<Witnessed>,
    /// What pointed elsewhere.
    pub despite: Vec<Witnessed>,
    /// All evidence as it was known then; empty where it has left by age.
    pub evidence: Vec<Witnessed>,
}

/// What THE TABLE says of a cause to other audiences; each is absent where an earlier daemon is asked.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Columns {
    /// How endings of this cause come about.
    pub cause_story: String,
    /// The reason for managers that know numbers up to 8.
    pub classic_reason: u8,
    /// Process exit status of commands that wait for an ending.
    pub exit_status: u8,
    /// Veritas monitor: 100 offline, 200 intentional offline.
    pub vcs_monitor: u8,
    /// OCF monitor.
    pub ocf_monitor: u8,
    /// KubeVirt VEP 362 reason; empty where it has no word.
    pub vep362: String,
    /// Whether high availability should start it again: `yes`, `no` or `ask`.
    pub restart: String,
}

/// A piece of evidence in words.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Witnessed {
    /// First time.
    pub first: Timestamp,
    /// Last time.
    pub last: Timestamp,
    /// How often.
    pub times: u32,
    /// What.
    pub what: String,
}

/// A line of `GET /v1/watch`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Change {
    /// When it came to be so: of what was there before the reader came, too.
    pub at: Timestamp,
    /// The domain as it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
    /// A domain that is no longer shown: its UUID.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left: Option<String>,
    /// With `left`: how its run ended, if that was never shown, as it was destroyed by request or began anew at once.
    /// With `corrected` and no domain: the ending of a run that is no longer shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// The ending was told before, and late proof has corrected it: its `revision` counts the corrections.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub corrected: bool,
    /// True in the last line of a stream that ends because the daemon stops.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stopping: bool,
    /// Changes that this reader missed because it was too slow, or nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed: u64,
}

/// `GET /v1/why?vm=`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Why {
    /// The domain, where it is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub domain: Option<Domain>,
    /// Its latest ending, acknowledged or not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// What libvirt has under this name or UUID, where it is not shown: it is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub defined: Option<Defined>,
    /// UUIDs of other domains of the name that was asked for: of those that are shown, and where none is, of those whose
    /// endings are the latest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub namesakes: Vec<String>,
}

/// A domain that libvirt has and that is off.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Defined {
    /// UUID.
    pub domain: String,
    /// Name.
    pub name: String,
    /// libvirt's state of it, in words.
    pub state: String,
    /// Whether its last start failed, and no ending tells of that yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub start_failed: bool,
}

/// `GET /v1/history`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct History {
    /// Newest first.
    pub endings: Vec<Ending>,
    /// Where the rest begins: the value of `after` in the next question. Absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// What could not be read: with anything in here, `endings` is not the whole truth.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<String>,
}

/// `GET /v1/health`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Health {
    /// The program's version.
    pub version: String,
    /// Since when the daemon runs.
    pub started: Timestamp,
    /// Whether libvirt was listed at least once.
    pub settled: bool,
    /// Since when the link to libvirt is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_lost_since: Option<Timestamp>,
    /// What is wrong with the ledger.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ledger_trouble: Option<String>,
    /// Writes that wait for the ledger.
    pub ledger_waiting: usize,
    /// Where the ledger's file was moved to because it was damaged, since this daemon runs: what could be read of it
    /// is in the fresh one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger_damaged: Option<String>,
    /// What others did to the ledger's file while it was open, and what became of it; the last such thing since this
    /// daemon runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ledger_mended: Option<String>,
    /// Records that are lost since this daemon runs; the log names each. Endings and starts that found no room in memory while
    /// the ledger could not be written, and runs of which a damaged ledger no longer gave the ending, or not all that a run
    /// that goes on needs.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ledger_lost: u64,
    /// Sources of evidence that are unavailable now, each with the reason.
    pub unavailable_sources: Vec<UnavailableSource>,
    /// What is wrong with the certificates; absent where there is no TLS, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls_trouble: Option<String>,
}

/// A source of evidence that observes nothing, or not all that it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnavailableSource {
    /// Its lasting word, as the doctor has it.
    pub name: String,
    /// What is missing without it.
    pub gives: String,
    /// Why.
    pub why: String,
    /// Since when; absent where that is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
}

/// `GET /v1/doctor`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Doctor {
    /// The program's version.
    pub version: String,
    /// libvirt's version; absent where it does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libvirt: Option<String>,
    /// The hypervisor's version; absent where libvirt does not know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<String>,
    /// The VM that was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vm: Option<Domain>,
    /// Words of the causes that can be told.
    pub can_tell: Vec<String>,
    /// Words of the causes that cannot be told from others, or not for certain.
    pub cannot_tell: Vec<String>,
    /// One for each thing that was looked at.
    pub findings: Vec<Finding>,
}

/// How a finding is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingLevel {
    /// It is as it should be.
    Fine,
    /// Worth to know: a choice, or a limit that nobody can lift.
    Note,
    /// Causes cannot be told apart.
    Cannot,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// A stable word for it.
    pub about: String,
    /// How to take it.
    pub level: FindingLevel,
    /// What was found.
    pub what: String,
    /// Words of the causes that it concerns.
    pub causes: Vec<String>,
    /// What to do; empty where nothing is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub advice: String,
    /// A piece of a definition or of the configuration, or a command, to do it with; empty where there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub add: String,
}

/// The body of an answer that is not 200.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trouble {
    /// What is wrong.
    pub error: String,
}

fn is_none_yet(n: &u16) -> bool {
    *n == 0
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// A moment as RFC 3339 can say it; moments out of its range become its ends.
pub fn timestamp(at: Wall) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(at.0)).unwrap_or(if at.0 < 0 {
        Timestamp::MIN
    } else {
        Timestamp::MAX
    })
}

impl Domains {
    /// All of a picture.
    pub fn of(snapshot: &Snapshot) -> Self {
        let domains = snapshot.domains.values().map(|domain| Domain::of(domain)).collect();
        Self { domains, ..Self::frame(snapshot) }
    }

    /// All but the domains.
    pub fn frame(snapshot: &Snapshot) -> Self {
        Self {
            settled: snapshot.settled,
            link_lost_since: lost_since(snapshot).filter(|_| snapshot.settled),
            domains: Vec::new(),
        }
    }
}

/// Since when the link is lost.
pub fn lost_since(snapshot: &Snapshot) -> Option<Timestamp> {
    match snapshot.link {
        Link::Up => None,
        Link::Down { since } => Some(timestamp(since)),
    }
}

impl Domain {
    /// One domain of a picture.
    pub fn of(domain: &DomainPublic) -> Self {
        Self {
            domain: domain.domain.to_string(),
            name: domain.name.clone(),
            status: domain.status,
            run: domain.run.0,
            started: timestamp(domain.started),
            pid: domain.pid,
            paused_by: domain.paused_by.as_deref().map(Into::into),
            ending: domain.ending.as_deref().map(Ending::of),
            durable: domain.durable,
        }
    }
}

impl Ending {
    /// An ending with its evidence in words.
    pub fn of(ending: &record::Ending) -> Self {
        let row = ending.verdict.cause.row();
        let chosen = |ids: &[EvidenceId]| chosen(ids, &ending.evidence);
        Self {
            domain: ending.domain.to_string(),
            name: ending.name.clone(),
            run: ending.run.0,
            started: timestamp(ending.started),
            ended: timestamp(ending.ended.latest()),
            ended_not_before: match ending.ended {
                When::At(_) => None,
                When::Between(from, _) => Some(timestamp(from)),
            },
            cause: row.word.into(),
            certainty: ending.verdict.certainty.word().into(),
            sentence: row.sentence.into(),
            advice: advice(ending),
            exit_code: ending.exit_code,
            exit_reason: ending.exit_reason,
            message: ending.message.clone(),
            columns: Columns::of(row, ending.numbers_of().row()),
            row: ending.verdict.row.clone(),
            story: story_of(&ending.verdict.row).unwrap_or_default().into(),
            because: chosen(&ending.verdict.because),
            despite: chosen(&ending.verdict.despite),
            led_by: chosen(&led_by(&ending.evidence, &ending.verdict)),
            evidence: ending.evidence.iter().map(Witnessed::of).collect(),
            revision: ending.revision(),
            earlier: (0..).zip(&ending.earlier).map(|(n, e)| Earlier::of(n, e, ending)).collect(),
            acknowledged_by: ending.acknowledged.as_ref().map(|a| a.by.clone()),
            acknowledged_at: ending.acknowledged.as_ref().map(|a| timestamp(a.at)),
        }
    }
}

impl Earlier {
    fn of(revision: u16, earlier: &record::Earlier, ending: &record::Ending) -> Self {
        let row = earlier.verdict.cause.row();
        let evidence = ending.evidence_of(revision);
        Self {
            revision,
            until: timestamp(earlier.until),
            cause: row.word.into(),
            certainty: earlier.verdict.certainty.word().into(),
            sentence: row.sentence.into(),
            exit_reason: earlier.exit_reason,
            message: earlier.message.clone(),
            row: earlier.verdict.row.clone(),
            because: chosen(&earlier.verdict.because, &evidence),
            despite: chosen(&earlier.verdict.despite, &evidence),
            evidence: evidence.iter().map(Witnessed::of).collect(),
        }
    }
}

fn chosen(ids: &[EvidenceId], evidence: &[Evidence]) -> Vec<Witnessed> {
    ids.iter().filter_map(|id| evidence.get(usize::from(*id))).map(Witnessed::of).collect()
}

impl Ending {
    /// Whether it tells of a start that failed.
    pub fn tells_a_failed_start(&self) -> bool {
        ["start-failed", "start-failed-silent", "restore-failed"].contains(&self.cause.as_str())
    }
}

impl Columns {
    /// The story is the cause's own; what machines act by is that of the cause whose numbers are told to them.
    fn of(row: &Row, numbers: &Row) -> Self {
        Self {
            cause_story: row.story.into(),
            classic_reason: numbers.classic_reason,
            exit_status: numbers.exit_status,
            vcs_monitor: numbers.vcs_monitor,
            ocf_monitor: numbers.ocf_monitor,
            vep362: numbers.vep362.into(),
            restart: numbers.restart.word().into(),
        }
    }
}

impl Witnessed {
    fn of(evidence: &Evidence) -> Self {
        Self {
            first: timestamp(evidence.first),
            last: timestamp(evidence.last),
            times: evidence.times,
            what: describe(&evidence.fact),
        }
    }
}
