//! The daemon: opens the ledger, recovers the engine, listens to libvirt and the witnesses, serves managers.
//!
//! | task or thread | owns | if it dies |
//! |---|---|---|
//! | `engine` task | the engine, the pictures | the daemon ends: systemd starts it again |
//! | libvirt threads | the link | reconnects for ever |
//! | `libvirt-call` threads | a call into libvirt each | that call is answered as refused |
//! | `ledger-reader` threads | a connection to the file each | history is refused |
//! | `ledger` thread | the file | writes wait in memory, loudly |
//! | witnesses | one source each | their evidence is missing, and health says so |
//! | sampler task | samples, devices | figures stay as they are, and age |
//! | HTTP tasks | one connection each | that connection is closed |

mod abilities;
mod absence;
mod alone;
mod calls;
mod clock;
mod deaf;
mod device;
mod doctor;
mod document;
mod doors;
mod embed;
mod emulators;
mod engine;
mod error;
mod failed;
mod going_down;
mod hands;
mod host;
mod judge;
mod link;
mod meant;
mod network;
mod parameters;
mod passed_over;
mod plug;
mod policy;
mod post;
mod reads;
mod rights;
mod rpc;
mod run;
mod sample;
mod sight;
mod space;
mod threads;
mod units;
mod watch;
mod witnesses;
mod work;

pub use error::StartError;
pub use run::run;
