//! Who was refused over plain TCP since the start, for the doctor.

use std::sync::{Mutex, PoisonError};

/// How often, and the last one.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<(u64, String)>);

impl Refusals {
    /// One more.
    pub fn add(&self, who: &str, what: &str) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *kept = (kept.0.saturating_add(1), format!("{who}, for {what}"));
    }

    /// How many, and the last one's words.
    pub fn told(&self) -> (u64, String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
