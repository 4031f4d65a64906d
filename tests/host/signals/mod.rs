//! Who sends the signals that end real guests: the kernel's own word on it, and what follows for the verdict.
//!
//! The daemon has a tracefs of its own, in a mount namespace of its own; or it hears the kernel's audit.

mod audit;
mod cores;
mod doctor;
mod memory;
mod senders;

use whydown_lab::host::Host;
use whydown_lab::{Launch, Result};

/// A host whose daemon hears who sends signals.
fn tracing_host(name: &str) -> Result<Host> {
    Host::start_as(name, "", Launch::tracefs)
}
