//! In which order things happened: what made the run go down first, and when.
//!
//! ```text
//!        revived               first word            exit        STOPPED, or found off
//!   ────────┼──────────────────────┼───────────────────┼────────────────┼─────────▶
//!           └ what was said before └ the onset: what   └ nothing that
//!             explains nothing       came shortly        came later can
//!             that came later        before it may       have ended it
//!                                    have led to it
//! ```

use std::time::Duration;

use super::process::spoke_after;
use crate::evidence::{Dossier, Evidence, EvidenceId, Fact};
use crate::hypervisor::{DomainState, Happening, PauseReason, QemuReason, ShutdownDetail};
use crate::limits;
use crate::time::Wall;

/// A VM that libvirt shows as running this long after a shutdown began has come back from it. What a restarted libvirt
/// shows at first may be what it last wrote down.
const STALE_STATE: Duration = Duration::from_secs(60);

/// When the end began: one moment where it is known, otherwise a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Onset {
    pub from: Wall,
    pub to: Wall,
}

impl Onset {
    /// This moment.
    pub(super) fn at(at: Wall) -> Self {
        Self { from: at, to: at }
    }

    /// With a second's grace for clocks and queues.
    pub(super) fn graced(self) -> Self {
        Self { from: self.from, to: self.to.after(limits::CLOCK_GRACE) }
    }
}

/// Who says first that it goes down, and by what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// libvirt.
    Libvirt(ShutdownDetail),
    /// QEMU.
    Qemu {
        /// Whether it says that the guest began it.
        guest: bool,
        /// Its reason.
        reason: QemuReason,
    },
}

impl Word {
    /// Whether the guest began it.
    pub(super) fn is_the_guests(self) -> bool {
        matches!(self, Self::Libvirt(ShutdownDetail::Guest) | Self::Qemu { guest: true, .. })
    }

    /// Whether QEMU says that the host's side began it, and not by a signal.
    pub(super) fn names_the_host(self) -> bool {
        matches!(
            self,
            Self::Qemu {
                reason: QemuReason::HostQmpQuit
                    | QemuReason::HostQmpSystemReset
                    | QemuReason::HostUi
                    | QemuReason::HostError
                    | QemuReason::SubsystemReset
                    | QemuReason::SnapshotLoad,
                ..
            }
        )
    }

    fn is_libvirts_host(self) -> bool {
        self == Self::Libvirt(ShutdownDetail::Host)
    }

    fn of(fact: &Fact) -> Option<Self> {
        match fact {
            Fact::Host(Happening::ShutdownBegan(detail)) => Some(Self::Libvirt(*detail)),
            Fact::Host(Happening::QemuShutdown { guest, reason }) => {
                Some(Self::Qemu { guest: *guest, reason: *reason })
            }
            _ => None,
        }
    }
}

/// The words on the last shutdown, each with its evidence and its moment, in the order in which they were heard.
/// libvirt's own kill makes later ones.
pub(super) fn words(dossier: &Dossier, end: Wall) -> Vec<(EvidenceId, Wall, Word)> {
    let reset = last_reset(dossier, end);
    let all = enumerated(dossier).filter_map(|(id, e)| {
        let word = Word::of(&e.fact)?;
        if reset.is_some_and(|reset| e.last < reset) || ran_on(dossier, id, e) {
            return None;
        }
        // A guest says it once: between the first and the last it was reset, though nobody heard of that.
        let again = word.is_the_guests() && e.last > e.first.after(limits::CLOCK_GRACE);
        let at = if again || reset.is_some_and(|reset| e.first < reset) { e.last } else { e.first };
        Some((id, at, word))
    });
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(id, at, _)| (*at, *id));
    all
}

/// Whether something shows it running on long after this word, without a reset that was heard. What was witnessed once, and
/// before the word, came before it whatever the clock says.
fn ran_on(dossier: &Dossier, word_id: EvidenceId, word: &Evidence) -> bool {
    let mut later = enumerated(dossier).filter(|(id, e)| *id > word_id || e.times > 1);
    later.any(|(_, e)| match &e.fact {
        Fact::Host(Happening::Resumed(_)) => e.last > word.last.after(limits::CLOCK_GRACE),
        Fact::Found { state, .. } => {
            let lives = matches!(
                state,
                DomainState::Running
                    | DomainState::Crashed
                    | DomainState::PmSuspended
                    | DomainState::Paused(_)
            );
            let ends = matches!(state, DomainState::Paused(PauseReason::ShuttingDown));
            lives && !ends && e.last > word.last.after(STALE_STATE)
        }
        _ => false,
    })
}

/// The first word on the last shutdown.
pub(super) fn first(dossier: &Dossier, end: Wall) -> Option<(EvidenceId, Wall, Word)> {
    words(dossier, end).into_iter().next()
}

/// The word that tells which side began the last shutdown: QEMU's first one, from which libvirt has its own. A signal may
/// be libvirt's, which ends so what had begun before we listened: then libvirt's first word tells.
pub(super) fn telling(dossier: &Dossier, end: Wall) -> Option<(EvidenceId, Wall, Word)> {
    let words = words(dossier, end);
    let of_qemu = words.iter().find(|(_, _, word)| matches!(word, Word::Qemu { .. }));
    let of_qemu = of_qemu.filter(|(_, _, word)| word.is_the_guests() || word.names_the_host());
    let of_libvirt = || words.iter().find(|(_, _, word)| word.is_the_guests() || word.is_libvirts_host());
    of_qemu.or_else(of_libvirt).copied()
}

/// When the guest began to shut down, if that is what the words on the last shutdown tell, with all words that say so.
pub(super) fn guest_began(dossier: &Dossier, end: Wall) -> Option<(Wall, Vec<EvidenceId>)> {
    telling(dossier, end).filter(|(_, _, word)| word.is_the_guests())?;
    let words = words(dossier, end).into_iter().filter(|(_, _, word)| word.is_the_guests());
    let words: Vec<_> = words.collect();
    let at = words.iter().map(|(_, at, _)| *at).min()?;
    Some((at, words.into_iter().map(|(id, ..)| id).collect()))
}

/// QEMU's first word on the last shutdown, if `wanted` accepts it.
pub(super) fn first_of_qemu(
    dossier: &Dossier,
    end: Wall,
    wanted: impl Fn(bool, QemuReason) -> bool,
) -> Vec<EvidenceId> {
    let first = words(dossier, end).into_iter().find_map(|(id, _, word)| match word {
        Word::Qemu { guest, reason } => Some((id, guest, reason)),
        Word::Libvirt(_) => None,
    });
    match first {
        Some((id, guest, reason)) if wanted(guest, reason) => vec![id],
        _ => Vec::new(),
    }
}

/// When the process exited, where that was seen.
pub(super) fn exited(dossier: &Dossier) -> Option<Wall> {
    let exits = dossier.items().iter().filter(|e| matches!(e.fact, Fact::Exit(_) | Fact::InnerExit(_)));
    // A program around QEMU may be gone long before QEMU is.
    let only_around =
        |e: &&Evidence| super::process::is_only_around_qemu(dossier) && spoke_after(dossier, e.first);
    exits.filter(|e| !only_around(e)).map(|e| e.first).min()
}

/// When the end began. Nobody heard of an end that was found: it lies behind the last moment of listening.
pub(super) fn onset(dossier: &Dossier, end: Wall) -> Onset {
    let at = |at: Wall| Onset::at(at.min(end));
    if let Some((_, word, _)) = first(dossier, end) {
        return at(word);
    }
    if let Some(exit) = exited(dossier) {
        return at(exit);
    }
    let stopped = dossier.find(|f| matches!(f, Fact::Host(Happening::Stopped(_)))).is_some();
    let listening = dossier.items().iter().filter_map(|e| match e.fact {
        Fact::Gap { from, to, .. } if !stopped && to.after(limits::CLOCK_GRACE) >= end => Some(from),
        _ => None,
    });
    Onset { from: listening.max().unwrap_or(end).min(end), to: end }
}

/// When the guest was last reset.
pub(super) fn last_reset(dossier: &Dossier, end: Wall) -> Option<Wall> {
    dossier
        .last_heard(|h| matches!(h, Happening::Rebooted | Happening::QemuReset { .. }))
        .filter(|reset| *reset <= end.after(limits::CLOCK_GRACE))
}

/// Those that no reset of the guest came after: a reset begins the guest anew, and what led to it explains nothing that
/// comes later.
pub(super) fn since_reset(dossier: &Dossier, end: Wall, mut seen: Vec<EvidenceId>) -> Vec<EvidenceId> {
    if let Some(reset) = last_reset(dossier, end) {
        seen.retain(|id| dossier.items()[usize::from(*id)].last >= reset);
    }
    seen
}

pub(super) fn enumerated(dossier: &Dossier) -> impl Iterator<Item = (EvidenceId, &Evidence)> {
    dossier.items().iter().enumerate().map(|(id, e)| (id as EvidenceId, e))
}
