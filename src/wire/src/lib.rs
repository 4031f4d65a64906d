//! XML-RPC in and out, in the form that VDSM gave to its managers.
//!
//! ```text
//! request bytes ─▶ scan ─▶ Call ─▶ Verb            (bounded, typed, or refused with a status)
//! Snapshot, Samples ─▶ Board ─▶ Bodies ─▶ Body     (each VM written once per change, each poll a shared buffer)
//! ```
//!
//! This room alone knows the names, types and numbers of that contract; `proto-schemas/verbs.toml` and `profiles.toml` hold them as data
//! and the tests hold the code to it. It opens no socket, reads no clock and decides nothing about a VM.

mod absent;
mod board;
mod call;
mod classic;
mod codes;
mod devices;
mod fields;
mod guest;
mod host;
mod network;
mod outcome;
#[cfg(test)]
mod parameters;
mod profile;
mod refused;
mod running;
mod scan;
mod verb;
mod verbs;
mod vm;
mod write;
mod written;

pub use absent::absent_verbs;
pub use board::{Board, Bodies, Body, VmCounts};
pub use call::{BAD_CALL_FAULT, BadCall, Call, CallLimits};
pub use classic::{ClassicVm, Documents, OnHost, led_to};
pub use codes::{Code, done, fault, status_reply};
pub use host::{
    Hardware, HostFacts, HostStats, Ksm, OperatingSystem, Package, RNG_SOURCES, capabilities, hardware,
    host_stats,
};
pub use network::{LinkKind, LinkTraffic, NetLink};
pub use outcome::{
    Work, WorkKind, act_reply, cancel_reply, create_reply, destroy_reply, device_reply,
    migration_create_reply, no_image_reply, shutdown_reply, snapshot_reply, work_begun_reply, work_reply,
};
pub use profile::Generation;
pub use refused::Refused;
pub use verb::{DEFAULT_SHUTDOWN_DELAY_S, DEFAULT_SHUTDOWN_TIMEOUT_S, Needs, Verb};
pub use verbs::{METHODS, Method, Param, list_methods, method_help, method_signature};
pub use vm::{Range, SILENT_AFTER};
