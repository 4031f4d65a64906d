//! How the end became known: the first cut of every decision.

use super::clue::ever_asked;
use crate::evidence::{Asked, Dossier, EvidenceId, Fact, LogWord};
use crate::hypervisor::{DomainState, Happening, QemuReason, ShutOffReason, ShutdownDetail, StopDetail};

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

    /// The setting of this dossier.
    pub fn of(dossier: &Dossier) -> Self {
        if let Some(detail) = stopped(dossier) {
            return match detail {
                StopDetail::Shutdown => shutdown_side(dossier),
                StopDetail::Destroyed => Self::Destroyed,
                StopDetail::Crashed => Self::Crashed,
                StopDetail::Migrated => Self::Migrated,
                StopDetail::Saved => Self::Saved,
                StopDetail::Failed => Self::Failed,
                StopDetail::FromSnapshot => Self::FromSnapshot,
                StopDetail::Other(_) => Self::StoppedOther,
            };
        }
        let tried =
            begun_by_us(dossier) || has(dossier, |f| matches!(f, Fact::Host(Happening::ControlError)));
        if tried && (!was_up(dossier) || failed_unheard(dossier)) {
            return Self::NotStarted;
        }
        match found_reason(dossier) {
            Some(ShutOffReason::Shutdown) => return shutdown_side(dossier),
            Some(ShutOffReason::Destroyed) => return Self::Destroyed,
            Some(ShutOffReason::Crashed) => return Self::FoundCrashed,
            Some(ShutOffReason::Migrated) => return Self::Migrated,
            Some(ShutOffReason::Saved) => return Self::Saved,
            Some(ShutOffReason::FromSnapshot) => return Self::FromSnapshot,
            Some(ShutOffReason::Daemon) => return Self::FoundKilledByLibvirt,
            // FAILED tells of a later start that failed, not of this run: the log may know more.
            Some(ShutOffReason::Failed | ShutOffReason::Unknown | ShutOffReason::Other(_)) | None => {}
        }
        match log_word(dossier) {
            Some(LogWord::Shutdown) => shutdown_side(dossier),
            Some(LogWord::Destroyed) => Self::Destroyed,
            Some(LogWord::Crashed) => Self::FoundCrashed,
            Some(LogWord::Migrated) => Self::Migrated,
            Some(LogWord::Saved) => Self::Saved,
            // Of a run that had come up it speaks of a later start, which left its word in the same part of the log.
            Some(LogWord::Failed) if !super::clue::handed_over(dossier) => Self::Failed,
            Some(LogWord::FromSnapshot) => Self::FromSnapshot,
            Some(LogWord::Daemon) => Self::FoundKilledByLibvirt,
            Some(LogWord::Failed | LogWord::Other) | None => Self::FoundMute,
        }
    }

    /// The evidence that shows that and how it ended, and who had asked for it where that is no cause of its own.
    pub fn grounds(self, dossier: &Dossier) -> Vec<EvidenceId> {
        let mut all = self.shown(dossier);
        match self {
            Self::Migrated => all.extend(ever_asked(dossier, Asked::Migrate)),
            Self::Saved => all.extend(ever_asked(dossier, Asked::Save)),
            _ => {}
        }
        all
    }

    fn shown(self, dossier: &Dossier) -> Vec<EvidenceId> {
        let heard = ids(dossier, |f| matches!(f, Fact::Host(Happening::Stopped(_))));
        if !heard.is_empty() {
            let began = matches!(self, Self::ShutdownByGuest | Self::ShutdownByHost);
            let mut all = heard;
            if began {
                all.extend(ids(dossier, |f| matches!(f, Fact::Host(Happening::ShutdownBegan(_)))));
            }
            return all;
        }
        ids(dossier, |f| match f {
            Fact::Found { state, .. } => !state.is_active(),
            Fact::Gone | Fact::Replaced | Fact::LogEnd { .. } => true,
            Fact::Refused { .. } | Fact::Host(Happening::ControlError) => self == Self::NotStarted,
            _ => false,
        })
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

fn begun_by_us(dossier: &Dossier) -> bool {
    has(dossier, |f| matches!(f, Fact::Requested { what: Asked::Create, .. }))
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

/// Who began the last shutdown: libvirt's latest word on it, or QEMU's first where libvirt gave none. A reset makes
/// QEMU's earlier words void: a reboot through libvirt begins with a shutdown.
fn shutdown_side(dossier: &Dossier) -> Setting {
    let began = dossier.latest(|f| matches!(f, Fact::Host(Happening::ShutdownBegan(_))));
    match began.map(|(_, e)| &e.fact) {
        Some(Fact::Host(Happening::ShutdownBegan(ShutdownDetail::Guest))) => Setting::ShutdownByGuest,
        Some(Fact::Host(Happening::ShutdownBegan(ShutdownDetail::Host))) => Setting::ShutdownByHost,
        _ => match first_of_qemu(dossier) {
            Some((true, _)) => Setting::ShutdownByGuest,
            Some((false, QemuReason::HostQmpQuit)) => Setting::ShutdownByHost,
            // A signal without SHUTDOWN before it is libvirt's own, which ends what had begun while we were deaf.
            _ => Setting::ShutdownUnspoken,
        },
    }
}

fn first_of_qemu(dossier: &Dossier) -> Option<(bool, QemuReason)> {
    let reset = dossier.last_heard(|h| matches!(h, Happening::Rebooted | Happening::QemuReset { .. }));
    let said = dossier.items().iter().filter(|e| reset.is_none_or(|reset| e.last >= reset));
    let words = said.filter_map(|e| match e.fact {
        Fact::Host(Happening::QemuShutdown { guest, reason }) => Some((e.last, guest, reason)),
        _ => None,
    });
    words.min_by_key(|(at, ..)| *at).map(|(_, guest, reason)| (guest, reason))
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
