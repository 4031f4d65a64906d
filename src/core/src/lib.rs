//! The heart of whydown: what a domain is doing, what was witnessed of its end, and which row of THE TABLE that is.
//!
//! Nothing here does I/O, reads a clock or spawns anything. The world reaches this crate as [`lifecycle::Input`],
//! time as [`time::Now`]; what should be done about it leaves as [`lifecycle::Effect`].
//!
//! ```text
//! lifecycle ──▶ evidence ──▶ verdict ──▶ record ──▶ snapshot
//! (what is it   (what was    (which row  (the exit  (what readers
//!  doing?)       witnessed?)  of THE      as told)   may see)
//!                             TABLE?)
//! ```

pub mod cause;
pub mod evidence;
pub mod guest;
pub mod hypervisor;
pub mod id;
pub mod lifecycle;
pub mod limits;
pub mod log;
pub mod operation;
pub mod record;
pub mod sample;
pub mod snapshot;
pub mod time;
pub mod verdict;
