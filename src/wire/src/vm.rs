//! One VM as managers see it: status words, exit fields, and what is written once and used until it changes.
//!
//! A VM is shown as Down exactly when its ending is there, so Down never appears without its exit fields. What a VM that
//! runs uses stands in [`running`](crate::running).

use std::time::Duration;

use whydown_core::hypervisor::WatchdogAction;
use whydown_core::record::Ending;
use whydown_core::sample::Usage;
use whydown_core::snapshot::{DomainPublic, Link, Snapshot, Status};
use whydown_core::time::Wall;

use crate::profile::{Key, Profile};
use crate::write::{Members, Xml};
use crate::{devices, running};

/// How long the link to libvirt may be lost before VMs are said not to respond; VDSM's own bound for stale news.
pub const SILENT_AFTER: Duration = Duration::from_secs(60);

/// Up to which exit reason a manager is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Range {
    /// Numbers 0 to 8, for engines before 4.1: a higher one breaks them. The exit code is always the true one.
    Classic,
    /// Numbers 0 to 12, for engine 4.1: to it a VM with a higher one is not there.
    V4_1,
    /// Numbers 0 to 14.
    Full,
}

impl Range {
    /// All, from the narrowest on.
    pub const ALL: [Self; 3] = [Self::Classic, Self::V4_1, Self::Full];

    /// The name in the configuration and in requests.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::V4_1 => "4.1",
            Self::Full => "full",
        }
    }

    /// The range of this name.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|range| range.word() == word)
    }

    /// The highest number in it.
    pub const fn highest(self) -> u8 {
        match self {
            Self::Classic => 8,
            Self::V4_1 => 12,
            Self::Full => 14,
        }
    }

    /// The number for this ending. Beyond the range it is the nearest one of the same exit code that all know: of 9 to
    /// 12 none is near to 13 or 14.
    fn reason(self, ending: &Ending) -> u8 {
        match ending.exit_reason {
            within if within <= self.highest() => within,
            _ => ending.numbers_of().row().classic_reason,
        }
    }
}

/// What changes without any change of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub now: Wall,
    /// Whether the link has been lost for longer than [`SILENT_AFTER`].
    pub silent: bool,
}

impl Moment {
    pub(crate) fn of(snapshot: &Snapshot, now: Wall) -> Self {
        let silent = match snapshot.link {
            Link::Up => false,
            Link::Down { since } => now.since(since) >= SILENT_AFTER,
        };
        Self { now, silent }
    }
}

/// A status word with the pause code that goes with it.
pub(crate) fn status_words(domain: &DomainPublic) -> (&'static str, Option<&'static str>) {
    if domain.ending.is_some() {
        return ("Down", None);
    }
    match domain.status {
        Status::Launching => ("WaitForLaunch", None),
        Status::Up => ("Up", None),
        Status::Paused => ("Paused", Some("NOERR")),
        Status::PausedIoError => ("Paused", Some(pause_code(domain.io_error.as_deref().unwrap_or_default()))),
        Status::Saving => ("Saving State", None),
        Status::Restoring => ("Restoring state", None),
        Status::MigrationSource => ("Migration Source", None),
        Status::MigrationDestination => ("Migration Destination", None),
        // Down without an ending cannot be told yet, whoever said it.
        Status::PoweringDown | Status::Ending | Status::Down => ("Powering down", None),
    }
}

/// The codes that managers know. QEMU tells a lack of space apart and nothing else, so an error without a word is one.
fn pause_code(reason: &str) -> &'static str {
    match reason {
        "enospc" => "ENOSPC",
        "eperm" => "EPERM",
        "eother" => "EOTHER",
        _ => "EIO",
    }
}

/// What is written of a VM once and used until it changes: members without the struct around them.
#[derive(Debug)]
pub(crate) struct Fragment {
    stats: Box<str>,
    /// Where a wider range says something else: from which range on, and what.
    wider: Option<(Range, Box<str>)>,
    short: Box<str>,
    running: bool,
    started: Wall,
    profile: &'static Profile,
    /// When the sample in it was taken.
    sampled: Option<Wall>,
    responds: bool,
}

impl Fragment {
    /// Of this picture, and of what is known of its run beyond that.
    pub(crate) fn of(domain: &DomainPublic, usage: Option<&Usage>, profile: &'static Profile) -> Self {
        let usage = usage.filter(|usage| usage.run == domain.run);
        let stats = members(8192, |s| match &domain.ending {
            Some(ending) => put_down(s, domain, ending, Range::Classic, profile),
            None => {
                put_short(s, domain, profile);
                put_process(s, domain, profile);
                running::put(s, domain, usage, profile);
                let progress = usage.filter(|_| is_moving(domain.status)).and_then(|usage| usage.progress);
                profile.put(s, Key::MigrationProgress, progress);
            }
        });
        let wider = domain.ending.as_ref().and_then(|ending| {
            let told = Range::Classic.reason(ending);
            let least = Range::ALL.into_iter().find(|range| range.reason(ending) != told)?;
            Some((least, members(768, |s| put_down(s, domain, ending, least, profile))))
        });
        let short = members(192, |s| put_short(s, domain, profile));
        let running = domain.ending.is_none();
        let of_a_run = usage.filter(|_| running && domain.status != Status::Launching);
        Self {
            stats,
            wider,
            short,
            running,
            started: domain.started,
            profile,
            sampled: of_a_run.and_then(|usage| usage.sample.is_some().then_some(usage.taken)),
            responds: of_a_run.is_none_or(|usage| usage.responds || is_moving(domain.status)),
        }
    }

    /// Bytes that [`Self::put_stats`] may need.
    pub(crate) fn size(&self) -> usize {
        self.stats.len() + 320
    }

    /// The members of `statsList`'s entry.
    pub(crate) fn put_stats(&self, s: &mut Members<'_>, range: Range, moment: Moment) {
        if self.running {
            let elapsed = moment.now.since(self.started).as_secs();
            self.profile.put(s, Key::ElapsedTime, Some(elapsed));
            let silent = moment.silent || !self.responds;
            self.profile.put(s, Key::MonitorResponse, Some(if silent { "-1" } else { "0" }));
            if let Some(taken) = self.sampled {
                let age = moment.now.since(taken).as_secs_f64();
                self.profile.put(s, Key::StatsAge, Some(format_args!("{age:.2}")));
            }
        }
        match &self.wider {
            Some((least, wider)) if range >= *least => s.prepared(wider),
            _ => s.prepared(&self.stats),
        }
    }

    /// The members of `vmList`'s entry in its short form.
    pub(crate) fn put_short(&self, s: &mut Members<'_>) {
        s.prepared(&self.short);
    }
}

/// While a VM migrates or is saved its monitor is busy, and that is no silence.
fn is_moving(status: Status) -> bool {
    matches!(
        status,
        Status::Saving | Status::Restoring | Status::MigrationSource | Status::MigrationDestination
    )
}

/// In as many bytes as it has, and not the buffer that it was written in: there is one of each VM for as long as it runs.
fn members(capacity: usize, fill: impl FnOnce(&mut Members<'_>)) -> Box<str> {
    let mut xml = Xml::with_capacity(capacity);
    fill(&mut xml.members());
    xml.as_str().into()
}

fn put_short(s: &mut Members<'_>, domain: &DomainPublic, profile: &Profile) {
    profile.put(s, Key::VmId, Some(domain.domain));
    profile.put(s, Key::Status, Some(status_words(domain).0));
    profile.put(s, Key::StatusTime, Some(domain.status_time));
}

fn put_process(s: &mut Members<'_>, domain: &DomainPublic, profile: &Profile) {
    profile.put(s, Key::VmName, Some(&domain.name));
    profile.put(s, Key::VmType, Some("kvm"));
    profile.put(s, Key::Pid, domain.pid);
    profile.put(s, Key::PauseCode, status_words(domain).1);
    let event = domain.watchdog.map(|(at, action)| {
        move |s: &mut Members<'_>| {
            profile.put(s, Key::WatchdogTime, Some(at.as_millis() as f64 / 1000.0));
            profile.put(s, Key::WatchdogAction, Some(watchdog_word(action)));
        }
    });
    profile.put_struct(s, Key::WatchdogEvent, event);
}

/// VDSM's words.
const fn watchdog_word(action: WatchdogAction) -> &'static str {
    match action {
        WatchdogAction::Ignore => "ignore",
        WatchdogAction::Pause => "pause",
        WatchdogAction::Reset => "reset",
        WatchdogAction::PowerOff => "destroy",
        WatchdogAction::Shutdown => "shutdown",
        WatchdogAction::Debug | WatchdogAction::InjectNmi | WatchdogAction::Other(_) => "log",
    }
}

fn put_down(s: &mut Members<'_>, domain: &DomainPublic, ending: &Ending, range: Range, profile: &Profile) {
    put_short(s, domain, profile);
    put_exit(s, domain, ending, range);
}

/// VDSM's three exit fields, and ours. Managers leave members alone that they do not know; text is the safest type.
fn put_exit(s: &mut Members<'_>, domain: &DomainPublic, ending: &Ending, range: Range) {
    let row = ending.verdict.cause.row();
    // A manager that gets an empty message shows nothing, and one of them an error; core never makes one.
    let message = if ending.message.is_empty() { "VM terminated" } else { &ending.message };
    s.int("exitCode", i32::from(ending.exit_code != 0));
    s.text("exitMessage", message);
    s.int("exitReason", i32::from(range.reason(ending)));
    s.text("exitCause", row.word);
    s.text("exitCertainty", ending.verdict.certainty.word());
    s.number_text("exitReasonExact", ending.exit_reason);
    s.number_text("exitRunId", ending.run);
    s.number_text("exitTime", ending.ended.latest().as_millis());
    if ending.revision() > 0 {
        s.number_text("exitRevision", ending.revision());
    }
    if !domain.durable {
        s.boolean("exitDurable", false);
    }
}

/// The entry of `vmList` in its full form. Engines break off without `devices`.
pub(crate) fn put_full(
    s: &mut Members<'_>,
    domain: &DomainPublic,
    usage: Option<&Usage>,
    range: Range,
    profile: &Profile,
) {
    let usage = usage.filter(|usage| usage.run == domain.run);
    put_short(s, domain, profile);
    // Of a VM that it does not know a manager wants the name, whatever its generation.
    s.text("vmName", &domain.name);
    profile.put(s, Key::VmType, Some("kvm"));
    profile.put(s, Key::Pid, domain.pid);
    profile.put(s, Key::PauseCode, status_words(domain).1);
    devices::put(s, domain, usage, profile);
    if let Some(ending) = &domain.ending {
        put_exit(s, domain, ending, range);
    }
}
