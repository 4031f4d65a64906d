//! The engine: follows every domain through its runs, and decides each ending once.
//!
//! ```text
//!            create through us, or a failed start heard
//!                       │
//!                  ┌────▼─────┐ STARTED   ┌────────┐ STOPPED, or found ended  ┌──────────┐ decided  ┌───────────┐
//!   STARTED, found │ Launching│──────────▶│ Active │─────────────────────────▶│ Settling │─────────▶│ Recording │
//!   running ──────▶└────┬─────┘           └────────┘                          └──────────┘          └─────┬─────┘
//!                       └────────────── never came up ───────────────────────────▲                        │ Kept
//!                                                                                                          ▼
//!                                                                              Down, until acknowledged or started
//! ```
//!
//! Settling is short, and only as long as late evidence can still change the answer. Down is public when the ledger
//! has the ending; until then the domain is shown as powering down, or as ending where nobody shut it down. Nothing is
//! asked of libvirt, answered or shown before the record that it needs is on disk (`gate`). An event for an older run never
//! closes a newer one.

mod astray;
pub mod attribution;
mod clock;
mod effect;
mod engine;
mod failed;
mod follow;
mod gate;
mod glance;
mod host;
mod late;
mod loose;
mod made;
mod pending;
mod performed;
mod reconcile;
mod run;
mod serve;
mod settle;
mod unheard;

pub use effect::{Answer, Definition, Effect, Input, Outcome, Question, Reply, Request, Subject, Wanted};
pub use engine::{Engine, Settings};
pub use failed::FailedStart;
pub use glance::internal_error;

#[cfg(test)]
mod tests;
