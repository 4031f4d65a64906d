//! How each source of evidence stands, for as long as the daemon runs: from its start, and when it dies later.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use whydown_core::time::Wall;
use whydown_witness::source::About;

use crate::told;

/// How a source stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is not wanted, or not there by nature: nobody misses it.
    Off,
    /// It observes.
    Available,
    /// It does not, or not all that it should.
    Unavailable {
        /// In words for an administrator.
        why: String,
        /// Since when.
        since: Wall,
    },
}

#[derive(Debug)]
struct Entry {
    about: &'static About,
    state: State,
    /// How often there was no room for what happened.
    overruns: u64,
}

/// See the module page. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Registry(Arc<Mutex<Vec<Entry>>>);

impl Registry {
    /// Of these, none of which is started.
    pub fn of(all: &[&'static About]) -> Self {
        let entry = |about: &&'static About| Entry { about, state: State::Off, overruns: 0 };
        Self(Arc::new(Mutex::new(all.iter().map(entry).collect())))
    }

    /// It is started.
    pub fn begins(&self, about: &About) {
        self.with(about, |entry| entry.state = State::Available);
    }

    /// It observes, for the first time or again.
    pub fn available(&self, about: &About) {
        self.with(about, |entry| {
            if let State::Unavailable { .. } = std::mem::replace(&mut entry.state, State::Available) {
                tracing::info!("{} is available: {}", about.name, about.gives);
            }
        });
    }

    /// It does not observe, or not all, from this moment on. It is in the log too.
    pub fn unavailable(&self, about: &About, why: String, at: Wall) {
        self.with(about, |entry| {
            if matches!(&entry.state, State::Unavailable { why: known, .. } if *known == why) {
                return;
            }
            tracing::warn!("{} is unavailable: {}: {why}", about.name, about.gives);
            let since = match entry.state {
                State::Unavailable { since, .. } => since,
                State::Off | State::Available => at,
            };
            entry.state = State::Unavailable { why, since };
        });
    }

    /// There was no room for what happened. A storm would fill the log: each doubling is told.
    pub fn overrun(&self, about: &About) {
        self.with(about, |entry| {
            entry.overruns += 1;
            if entry.overruns.is_power_of_two() {
                let times = entry.overruns;
                tracing::warn!(
                    "{}: more happened than there was room for, and some of it is not told: {} ({times} times)",
                    about.name,
                    about.gives
                );
            }
        });
    }

    /// How each stands.
    pub fn all(&self) -> Vec<(&'static About, State)> {
        self.entries().iter().map(|entry| (entry.about, entry.state.clone())).collect()
    }

    /// Those that are unavailable, as readers are told.
    pub fn told_unavailable(&self) -> Vec<told::UnavailableSource> {
        let told = |entry: &Entry| match &entry.state {
            State::Unavailable { why, since } => Some(told::UnavailableSource {
                name: entry.about.name.into(),
                gives: entry.about.gives.into(),
                why: why.clone(),
                since: Some(told::timestamp(*since)),
            }),
            State::Off | State::Available => None,
        };
        self.entries().iter().filter_map(told).collect()
    }

    fn with(&self, about: &About, change: impl FnOnce(&mut Entry)) {
        let mut entries = self.entries();
        let entry = entries.iter_mut().find(|entry| entry.about.name == about.name);
        change(entry.expect("every source that is started is in the list of all"));
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use whydown_witness::kernel;

    use super::super::ALL;
    use super::*;

    #[test]
    fn one_that_is_lost_later_is_told_with_the_last_reason_since_the_first_until_it_is_back() {
        let registry = Registry::of(&ALL);
        registry.begins(&kernel::ABOUT);
        assert_eq!(registry.told_unavailable(), []);
        let other = registry.clone();
        for (millis, why) in [(1, "gone"), (2, "gone"), (3, "gone for good")] {
            other.unavailable(&kernel::ABOUT, why.into(), Wall::from_millis(millis));
        }
        let told = told::UnavailableSource {
            name: "kernel-log".into(),
            gives: "out-of-memory kills".into(),
            why: "gone for good".into(),
            since: Some(told::timestamp(Wall::from_millis(1))),
        };
        assert_eq!(registry.told_unavailable(), [told]);
        other.available(&kernel::ABOUT);
        assert_eq!(registry.told_unavailable(), []);
    }

    #[test]
    fn what_nobody_wants_is_not_missed_and_names_are_different() {
        let all = Registry::of(&ALL).all();
        assert!(all.iter().all(|(_, state)| *state == State::Off));
        let names: std::collections::BTreeSet<&str> = all.iter().map(|(about, _)| about.name).collect();
        assert_eq!(names.len(), ALL.len());
        assert!(all.iter().all(|(about, _)| !about.causes.is_empty() && !about.advice.what.is_empty()));
    }
}
