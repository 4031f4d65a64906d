//! Witnesses that cannot be heard, each with the reason: as of the start, and what was lost since.

use std::sync::{Arc, Mutex, PoisonError};

/// Reasons that are kept; one witness gives one, so there are never so many.
const MOST: usize = 32;

/// The list. Cheap to clone; all clones are one list.
#[derive(Debug, Clone, Default)]
pub struct Deaf(Arc<Mutex<Vec<String>>>);

impl Deaf {
    /// A witness that cannot be heard. It is in the log too.
    pub fn add(&self, why: String) {
        tracing::warn!("cannot be heard: {why}");
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MOST && !all.contains(&why) {
            all.push(why);
        }
    }

    /// All of them.
    pub fn all(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_is_lost_later_is_told_once_and_the_list_is_bounded() {
        let deaf = Deaf::default();
        let other = deaf.clone();
        other.add("out-of-memory kills: gone".into());
        other.add("out-of-memory kills: gone".into());
        assert_eq!(deaf.all(), ["out-of-memory kills: gone"]);
        (0..2 * MOST).for_each(|n| deaf.add(n.to_string()));
        assert_eq!(deaf.all().len(), MOST);
    }
}
