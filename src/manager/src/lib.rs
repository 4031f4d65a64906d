//! The manager's side: reads what hosts tell of their VMs, old hosts and new ones, and says what should follow.
//!
//! A reply is read VM by VM: one that makes no sense is named and counted, and never spoils the rest. A fault or a lost
//! connection says nothing about VMs; only a good reply that lacks a VM means that it is gone.
//!
//! [`read_all_vm_stats`] reads a body, [`HostClient`] calls one host, [`Fleet`] follows many, [`then`] says what should
//! follow by a [`Policy`].

mod client;
mod fleet;
mod known;
mod memory;
mod read;
mod reason;
mod restart;
mod tls;

pub use client::{BadTarget, CallError, HostClient, Patience, Target, TlsFiles};
pub use fleet::{Fleet, News, Rhythm};
pub use memory::{Memory, Told};
pub use read::{BadReply, BadVm, Exit, Reading, Vm, read_all_vm_stats};
pub use reason::ExitReason;
pub use restart::{Choice, Policy, Then, then};

#[cfg(test)]
mod tests;
