//! How the end became known: the first cut of every decision.

use super::arrival::handed_over;
use super::clue::Clue;
use super::order;
use super::requests::ever_asked;
use super::too_late::died_before_destroy;
use super::traces::{ended_by_libvirt_at, image};
use crate::evidence::{Dossier, Evidence, EvidenceId, Fact, LogWord, OperationKind};
use crate::hypervisor::{DomainState, Happening, ShutOffReason, ShutdownDetail, StopDetail};
use crate::time::Wall;

/// The first cut: what libvirt said of the end, or what was found instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Setting {
    /// STOPPED/SHUTDOWN, begun inside the guest.
    ShutdownByGuest,
    /// STOPPED/SHUTDOWN, begun on the host's side.
    ShutdownByHost,
    /// STOPPED/SHUTDOWN or its trace, and nobody said who began it.
    ShutdownUnspoken,
    /// STOPPED/DESTROYED or its trace.
    Destroyed,
    /// STOPPED/CRASHED.
    Crashed,
    /// STOPPED/MIGRATED or its trace.
    Migrated,
    /// STOPPED/SAVED or its trace.
    Saved,
    /// STOPPED/FAILED: the process is gone.
    Failed,
    /// STOPPED/FROM_SNAPSHOT or its trace.
    FromSnapshot,
    /// STOPPED with a detail that this program does not know.
    StoppedOther,
    /// It never came up.
    NotStarted,
    /// Found off; libvirt's word is *crashed*, which it uses for every process that is gone.
    FoundCrashed,
    /// Found off; libvirt itself killed it when it could not reconnect.
    FoundKilledByLibvirt,
    /// Found off or gone, and neither libvirt nor the log has a word for it.
    FoundMute,
}

impl Setting {
    /// All settings.
    pub const ALL: [Self; 14] = [
        Self::ShutdownByGuest,
        Self::ShutdownByHost,
        Self::ShutdownUnspoken,
        Self::Destroyed,
        Self::Crashed,
        Self::Migrated,
        Self::Saved,
        Self::Failed,
        Self::FromSnapshot,
        Self::StoppedOther,
        Self::NotStarted,
        Self::FoundCrashed,
        Self::FoundKilledByLibvirt,
        Self::FoundMute,
    ];

    /// The setting of this dossier, where `end` is the latest moment at which the run can have ended.
    ///
    /// What libvirt says of the end comes last of what happens. So what QEMU or libvirt had said of it before, of a shutdown
    /// inside the guest above all, decides the setting, unless libvirt names a deed of its own that such a guest cannot
    /// undergo: a migration, a save, a snapshot.
    pub fn of(dossier: &Dossier, end: Wall) -> Self {
        let Some(said) = Self::said(dossier, end) else { return Self::NotStarted };
        let panicked = || !Clue::Panicked.seen(dossier, end).is_empty();
        if matches!(said, Self::Migrated | Self::Saved | Self::FromSnapshot)
            || said == Self::Crashed && panicked()
        {
            return said;
        }
        let guest_began = order::guest_began(dossier, end).map(|(at, _)| at);
        match said {
            Self::Destroyed => {
                let ended = we_destroyed(dossier, end);
                match guest_began {
                    // It was off already, and only tidied up.
                    Some(began) if ended.is_none_or(|ended| began < ended) => Self::ShutdownByGuest,
                    // Nor does it matter who had libvirt end what something else did end meanwhile.
                    _ if died_before_destroy(dossier, end) => Self::Failed,
                    _ => Self::Destroyed,
                }
            }
            _ if guest_began.is_some() => Self::ShutdownByGuest,
            Self::FoundCrashed | Self::FoundKilledByLibvirt | Self::FoundMute if host_began(dossier, end) => {
                Self::ShutdownByHost
            }
            said => said,
        }
    }

    /// What libvirt said of the end, or what was found; `None` if it never came up.
    fn said(dossier: &Dossier, end: Wall) -> Option<Self> {
        if let Some(detail) = stopped(dossier) {
            return Some(Self::of_stop(detail, dossier, end));
        }
        // A start of which only the log tells, and which libvirt calls failed there.
        if let Some(incoming) = failed_in_log(dossier) {
            // libvirt has QEMU wait for a saved image as for a VM that migrates here.
            return (incoming && image(dossier, true).is_empty()).then_some(Self::Failed);
        }
        let tried = begun_by_us(dossier)
            || has(dossier, |f| {
                matches!(
                    f,
                    Fact::Host(Happening::ControlError) | Fact::StartedInVain | Fact::StartFailed { .. }
                )
            });
        if tried && (!was_up(dossier) || failed_unheard(dossier)) {
            return None;
        }
        let by_reason = match found_reason(dossier) {
            Some(ShutOffReason::Shutdown) => Some(shutdown_side(dossier, end)),
            Some(ShutOffReason::Destroyed) => Some(Self::Destroyed),
            Some(ShutOffReason::Crashed) => Some(Self::FoundCrashed),
            Some(ShutOffReason::Migrated) => Some(Self::Migrated),
            Some(ShutOffReason::Saved) => Some(Self::Saved),
            Some(ShutOffReason::FromSnapshot) => Some(Self::FromSnapshot),
            Some(ShutOffReason::Daemon) => Some(Self::FoundKilledByLibvirt),
            // FAILED tells of a later start that failed, not of this run: the log may know more.
            Some(ShutOffReason::Failed | ShutOffReason::Unknown | ShutOffReason::Other(_)) | None => None,
        };
        let by_log = || match log_word(dossier) {
            Some(LogWord::Shutdown) => shutdown_side(dossier, end),
            Some(LogWord::Destroyed) => Self::Destroyed,
            Some(LogWord::Crashed) => Self::FoundCrashed,
            Some(LogWord::Migrated) => Self::Migrated,
            Some(LogWord::Saved) => Self::Saved,
            // Of a run that had come up it speaks of a later start, which left its word in the same part of the log.
            Some(LogWord::Failed) if !handed_over(dossier) => Self::Failed,
            Some(LogWord::FromSnapshot) => Self::FromSnapshot,
            Some(LogWord::Daemon) => Self::FoundKilledByLibvirt,
            Some(LogWord::Failed | LogWord::Other) | None => Self::FoundMute,
        };
        Some(by_reason.unwrap_or_else(by_log))
    }

    fn of_stop(detail: StopDetail, dossier: &Dossier, end: Wall) -> Self {
        match detail {
            StopDetail::Shutdown => shutdown_side(dossier, end),
            StopDetail::Destroyed => Self::Destroyed,
            StopDetail::Crashed => Self::Crashed,
            StopDetail::Migrated => Self::Migrated,
            StopDetail::Saved => Self::Saved,
            StopDetail::Failed => Self::Failed,
            StopDetail::FromSnapshot => Self::FromSnapshot,
            StopDetail::Other(_) => Self::StoppedOther,
        }
    }

    /// Whether libvirt reported the end in the very words of this setting. What is concluded from other words is probable.
    pub(super) fn was_reported(self, dossier: &Dossier, end: Wall) -> bool {
        self == Self::NotStarted
            || stopped(dossier).is_some_and(|detail| Self::of_stop(detail, dossier, end) == self)
    }

    /// The evidence that shows that and how it ended, and who had asked for it where that is no cause of its own.
    pub fn grounds(self, dossier: &Dossier) -> Vec<EvidenceId> {
        let mut all = self.shown(dossier);
        match self {
            Self::Migrated => all.extend(ever_asked(dossier, OperationKind::Migrate)),
            Self::Saved => all.extend(ever_asked(dossier, OperationKind::Save)),
            _ => {}
        }
        all
    }

    fn shown(self, dossier: &Dossier) -> Vec<EvidenceId> {
        let heard = ids(dossier, |f| matches!(f, Fact::Host(Happening::Stopped(_))));
        let mut began = match self {
            Self::ShutdownByGuest => {
                ids(dossier, |f| matches!(f, Fact::Host(Happening::ShutdownBegan(ShutdownDetail::Guest))))
            }
            Self::ShutdownByHost => {
                ids(dossier, |f| matches!(f, Fact::Host(Happening::ShutdownBegan(ShutdownDetail::Host))))
            }
            _ => Vec::new(),
        };
        if began.is_empty() && self == Self::ShutdownByGuest {
            began = ids(dossier, |f| matches!(f, Fact::Host(Happening::QemuShutdown { guest: true, .. })));
        }
        if !heard.is_empty() {
            began.extend(heard);
            return began;
        }
        began.extend(ids(dossier, |f| match f {
            Fact::Found { state, .. } => !state.is_active(),
            Fact::Gone | Fact::Replaced | Fact::LogEnd { .. } | Fact::LogStart { .. } => true,
            Fact::Refused { .. }
            | Fact::Host(Happening::ControlError)
            | Fact::StartedInVain
            | Fact::StartFailed { .. } => self == Self::NotStarted,
            _ => false,
        }));
        began
    }
}

/// Whether STOPPED was heard.
pub(super) fn stopped(dossier: &Dossier) -> Option<StopDetail> {
    dossier.items().iter().rev().find_map(|e| match e.fact {
        Fact::Host(Happening::Stopped(detail)) => Some(detail),
        _ => None,
    })
}

/// Whether it was ever seen up: a start or a pause was heard, or it was found running.
pub(crate) fn was_up(dossier: &Dossier) -> bool {
    has(dossier, |f| match f {
        Fact::Host(Happening::Started(_) | Happening::Resumed(_)) => true,
        Fact::Gap { .. } => true,
        Fact::Found { state, .. } => state.is_active(),
        _ => false,
    })
}

/// Whether libvirt holds a start of which nothing was heard as failed.
fn failed_unheard(dossier: &Dossier) -> bool {
    found_reason(dossier) == Some(ShutOffReason::Failed)
        && !has(dossier, |f| match f {
            Fact::Host(Happening::Started(_) | Happening::Resumed(_)) => true,
            Fact::Found { state, .. } => state.is_active(),
            _ => false,
        })
}

/// Whether only the log tells of this start, and calls it failed; and whether it waited for a VM that migrates here.
pub(super) fn failed_in_log(dossier: &Dossier) -> Option<bool> {
    let start = dossier.items().iter().find_map(|e| match e.fact {
        Fact::LogStart { incoming, .. } => Some(incoming),
        _ => None,
    });
    start.filter(|_| log_word(dossier) == Some(LogWord::Failed))
}

fn begun_by_us(dossier: &Dossier) -> bool {
    has(dossier, |f| matches!(f, Fact::Requested { what: OperationKind::Create, .. }))
}

fn found_reason(dossier: &Dossier) -> Option<ShutOffReason> {
    // A domain that runs anew shows the state of its next run, not of this one; and libvirt keeps no reason over a
    // boot, so that one which it has is a later run's.
    if has(dossier, |f| matches!(f, Fact::Replaced | Fact::NewBoot { .. })) {
        return None;
    }
    dossier.items().iter().rev().find_map(|e| match e.fact {
        Fact::Found { state: DomainState::ShutOff(reason), .. } => Some(reason),
        _ => None,
    })
}

fn log_word(dossier: &Dossier) -> Option<LogWord> {
    dossier.items().iter().rev().find_map(|e| match e.fact {
        Fact::LogEnd { word, .. } => Some(word),
        _ => None,
    })
}

/// Who began the last shutdown.
fn shutdown_side(dossier: &Dossier, end: Wall) -> Setting {
    match order::telling(dossier, end) {
        Some((_, _, word)) if word.is_the_guests() => Setting::ShutdownByGuest,
        Some(_) => Setting::ShutdownByHost,
        None => Setting::ShutdownUnspoken,
    }
}

/// Whether QEMU's first word says that the host's side began it, and that it was no signal, which may have been libvirt's.
fn host_began(dossier: &Dossier, end: Wall) -> bool {
    order::telling(dossier, end).is_some_and(|(_, _, word)| word.names_the_host())
}

/// When libvirt began to end it, where that can have been for us: by its signal, or else when it was asked, or when we were.
fn we_destroyed(dossier: &Dossier, end: Wall) -> Option<Wall> {
    let first =
        |of: &dyn Fn(&Evidence) -> bool| dossier.items().iter().filter(|e| of(e)).map(|e| e.first).min();
    let ways = [Clue::WeAskedDestroy, Clue::WeForcedOff];
    let asked = ways.iter().flat_map(|clue| clue.seen(dossier, end));
    let asked = asked.map(|id| dossier.items()[usize::from(id)].first).min()?;
    let passed_on = first(&|e| matches!(e.fact, Fact::PassedOn(_)));
    Some(ended_by_libvirt_at(dossier).or(passed_on).map_or(asked, |began| began.max(asked)))
}

pub(super) fn has(dossier: &Dossier, wanted: impl Fn(&Fact) -> bool) -> bool {
    dossier.items().iter().any(|e| wanted(&e.fact))
}

pub(super) fn ids(dossier: &Dossier, wanted: impl Fn(&Fact) -> bool) -> Vec<EvidenceId> {
    dossier
        .items()
        .iter()
        .enumerate()
        .filter(|(_, e)| wanted(&e.fact))
        .map(|(i, _)| i as EvidenceId)
        .collect()
}
