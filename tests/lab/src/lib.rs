//! The lab: real virtual machines, real libvirtd and a real whydownd for tests and demonstrations.
//!
//! A [`Guest`] is a machine of 512 bytes that ends in the way it is told to; a [`LinuxGuest`] is a whole Linux with a
//! guest agent, where that is needed.
//! It lives under libvirt's embedded driver ([`EmbedRoot`]) or under a [`Libvirtd`] of its own, of which several
//! may run side by side.
//! [`Whydownd`] runs the daemon under test.
//! Everything stays in one short temporary directory ([`lab_dir`]), and everything started is gone when its handle
//! is dropped, or when the process that held it is killed.
//!
//! The lab never imitates: where a part of the machine is missing it returns an [`Error`] that says what to install
//! or how to run, and it never skips.
//! It does not link libvirt; it talks to it through `virsh`.
//! Waiting is always polling with a condition and a limit ([`wait_until`]).
//!
//! ```no_run
//! use std::time::Duration;
//! use whydown_lab::{Guest, Libvirtd, lab_dir};
//!
//! # fn main() -> whydown_lab::Result<()> {
//! let directory = lab_dir()?;
//! let libvirtd = Libvirtd::start(directory.path().join("a"), "host-a")?;
//! let guest = Guest::new(directory.path(), "vm")?;
//! libvirtd.create(&guest)?;
//! guest.serial(Duration::from_secs(60))?.power_off()?;
//! libvirtd.wait_state("vm", None, Duration::from_secs(60))?;
//! # Ok(())
//! # }
//! ```

mod command;
mod error;
mod guard;
mod memory;
mod process;
mod wait;

mod guest;
mod linux;
mod reap;

mod booted;
mod cache;
mod embed;
mod libvirtd;

mod audit;
mod authority;
mod daemon;
mod python;

pub mod engine;
pub mod generated;
pub mod host;
pub mod requests;

pub use audit::Audit;
pub use authority::{Authority, Papers, Term};
pub use booted::{BootedHost, GoDown};
pub use command::run;
pub use daemon::{Launch, Whydownd, program};
pub use embed::{EmbedRoot, EmbedShell};
pub use error::{Error, Result};
pub use guest::{
    BOOT_SECTOR, BootDisk, Guest, OnCrash, OnEnd, Serial, WRITTEN_OFFSET, WatchdogAction, empty_qcow2,
    write_image,
};
pub use host::Host;
pub use libvirtd::{FullDisk, Libvirtd};
pub use linux::{Agent, Console, LinuxGuest};
pub use memory::MemoryGroup;
pub use process::{Qemu, Signal};
pub use python::{python, unix_client, xmlrpc_client};
pub use reap::{require_reaper, supervise};
pub use wait::{wait_for, wait_until};

/// Makes a temporary directory with a path short enough for UNIX sockets below it (they end at 107 bytes).
///
/// It lies in `/tmp` whatever `TMPDIR` says, and is removed with all its content on drop.
///
/// # Errors
///
/// [`Error::Io`] when `/tmp` is not writable.
pub fn lab_dir() -> Result<tempfile::TempDir> {
    tempfile::Builder::new()
        .prefix("wd")
        .rand_bytes(6)
        .tempdir_in("/tmp")
        .map_err(|source| Error::io("make a directory in /tmp", source))
}
