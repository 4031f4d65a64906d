//! The engine: follows every domain through its runs, and decides each ending once.

mod effect;

pub use effect::{Answer, Effect, Input, Outcome, Question, Reply, Request, Wanted};
