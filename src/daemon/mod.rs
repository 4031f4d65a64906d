//! The daemon: opens the ledger, recovers the engine, listens to libvirt and the sources of evidence, serves managers.
//!
//! | task or thread | owns | if it dies |
//! |---|---|---|
//! | `engine` task | the engine, the pictures | the daemon ends: systemd starts it again |
//! | libvirt threads | the link | reconnects for ever |
//! | `libvirt-call` threads | a call into libvirt each | that call is answered as refused |
//! | `ledger-reader` threads | a connection to the file each | history is refused |
//! | `ledger` thread | the file | writes wait in memory, loudly |
//! | a thread of each source of evidence | what it listens to | its evidence is missing, and health names it |
//! | sampler task | samples, devices | figures stay as they are, and age |
//! | HTTP tasks | one connection each | that connection is closed |

mod abilities;
mod absence;
mod alone;
mod calls;
pub(crate) mod clock;
mod device;
pub(crate) mod doctor;
pub(crate) mod document;
mod embed;
pub(crate) mod engine;
mod error;
mod failed;
mod hands;
pub(crate) mod host;
pub(crate) mod judge;
mod link;
pub(crate) mod mailbox;
pub(crate) mod meant;
pub(crate) mod network;
mod plug;
pub(crate) mod policy;
mod recovery;
pub(crate) mod refusals;
mod run;
mod sample;
mod serving;
pub(crate) mod sources;
pub(crate) mod space;
mod stopping;
pub(crate) mod work;

pub use error::StartError;
pub use run::run;
