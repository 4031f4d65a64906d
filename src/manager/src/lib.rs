//! The manager's side: reads what hosts tell of their VMs, old hosts and new ones, and says what should follow.
//!
//! A reply is read VM by VM: one that makes no sense is named and counted, and never spoils the rest. A fault or a lost
//! connection says nothing about VMs; only a good reply that lacks a VM means that it is gone.
//!
//! This crate reads and decides. It opens no connection: whoever polls gives it the body.

mod read;
mod reason;
mod restart;

pub use read::{BadReply, BadVm, Exit, Reading, Vm, read_all_vm_stats};
pub use reason::ExitReason;
pub use restart::{Policy, Then, then};

#[cfg(test)]
mod tests;
