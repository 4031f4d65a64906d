//! Witnesses that cannot be heard, each with the reason: as of the start, and what was lost since.

use std::sync::{Arc, Mutex, PoisonError};

/// Reasons that are kept; one witness gives one, so there are never so many.
const MOST: usize = 32;

/// What is not heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sense {
    /// That processes end.
    Exits,
    /// How processes ended.
    ExitStatuses,
    /// The kernel's log.
    KernelLog,
    /// Who sends signals.
    Signals,
    /// The kernel's audit.
    Audit,
    /// The bus on which the host says that it goes down.
    HostBus,
}

impl Sense {
    fn words(self) -> &'static str {
        match self {
            Self::Exits => "the end of processes",
            Self::ExitStatuses => "some exit statuses of QEMU",
            Self::KernelLog => "out-of-memory kills",
            Self::Signals => "who sends signals",
            Self::Audit => "the kernel's audit",
            Self::HostBus => "the host's bus",
        }
    }
}

/// The list. Cheap to clone; all clones are one list.
#[derive(Debug, Clone, Default)]
pub struct Deaf(Arc<Mutex<Vec<(Sense, String)>>>);

impl Deaf {
    /// A witness that cannot be heard. It is in the log too.
    pub fn add(&self, sense: Sense, why: impl ToString) {
        let why = why.to_string();
        tracing::warn!("cannot be heard: {}: {why}", sense.words());
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let new = (sense, why);
        if all.len() < MOST && !all.contains(&new) {
            all.push(new);
        }
    }

    /// One that is heard again.
    pub fn lift(&self, sense: Sense) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.iter().any(|(deaf, _)| *deaf == sense) {
            tracing::info!("can be heard: {}", sense.words());
        }
        all.retain(|(deaf, _)| *deaf != sense);
    }

    /// All of them in words.
    pub fn all(&self) -> Vec<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|(sense, why)| format!("{}: {why}", sense.words())).collect()
    }

    /// Why this is not heard, in words; `None` if it is.
    pub fn of(&self, wanted: Sense) -> Option<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (sense, why) = all.iter().find(|(sense, _)| *sense == wanted)?;
        Some(format!("not heard: {}: {why}", sense.words()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_lost_later_is_told_once_and_the_list_is_bounded() {
        let deaf = Deaf::default();
        let other = deaf.clone();
        other.add(Sense::KernelLog, "gone");
        other.add(Sense::KernelLog, "gone");
        assert_eq!(deaf.all(), ["out-of-memory kills: gone"]);
        assert_eq!(deaf.of(Sense::KernelLog).as_deref(), Some("not heard: out-of-memory kills: gone"));
        assert_eq!(deaf.of(Sense::Signals), None);
        deaf.add(Sense::Audit, "off");
        other.lift(Sense::Audit);
        assert_eq!(deaf.all(), ["out-of-memory kills: gone"], "the audit is heard again");
        (0..2 * MOST).for_each(|n| deaf.add(Sense::Exits, n));
        assert_eq!(deaf.all().len(), MOST);
    }
}
