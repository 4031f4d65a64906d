//! The libvirt room: connects, listens, lists and acts, and says all of it in the words of
//! [`whydown_core::hypervisor`]. The only room that speaks libvirt, and the only one with unsafe code.
//!
//! It never says why a domain ended, keeps no history and decides nothing: it reports what libvirt reported.
//!
//! ```text
//!            callbacks (libvirt's loop)              one thread
//! libvirt ─────▶ ffi::register ─▶ translate ─▶ hearing ─▶ queue ─▶ teller ─▶ `told` of the caller
//!    ▲                                            ▲
//!    │ connect, register, list, barrier           │ LinkUp, LinkLost, StillDown
//!    ├──────────────── link (one thread, for ever)┘
//!    └──────────────── act, sampling, guest (the callers' own threads)
//! ```
//!
//! Start with [`Hypervisor::start`].

mod act;
mod deeds;
mod devices;
mod failed;
mod ffi;
mod guest;
mod hearing;
mod link;
mod listing;
mod probes;
mod process;
mod queue;
mod sampling;
mod session;
mod settings;
mod translate;

pub use act::{Refusal, ShutdownHow, Versions};
pub use deeds::{Progress, RebootHow};
pub use devices::{Unread, read_planned};
pub use ffi::{NodeInfo, share_one_heap};
pub use link::Hypervisor;
pub use settings::{Settings, Told};
