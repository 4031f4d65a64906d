//! A told world behind the same port: everything that the engine hears, asks and writes is told here, so that any story
//! of a host can be played in microseconds, with every fault at every step, and be played again exactly.
//!
//! - [`world`] owns an engine and plays its shell: clock, postbox, link, ledger and hands.
//! - [`hypervisor`] is the truth: domains, their lives, what libvirt shows of them and what their logs hold.
//! - [`ways`] are the ways to end a VM, and those that end none, as recorded on real systems.
//! - [`ledger`] keeps what it is given, late, or not at all, and forgets the rest in a crash.
//! - [`step`] is one thing that befalls a world; a random life is a list of them.
//! - [`invariants`] are checked after every step of every story.
//! - [`scenario`] reads stories from data and compares what was said with what should have been.
//!
//! It never decides why a VM ended, reads no clock, and knows nothing of the engine that a shell would not know.

pub mod hypervisor;
pub mod invariants;
pub mod ledger;
pub mod scenario;
pub mod step;
pub mod ways;
pub mod world;
