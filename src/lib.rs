//! The shell around the rooms: it reads clocks, sockets and configuration, and decides nothing about why a VM ended.
//!
//! - [`config`]: the layered configuration of the daemon.
//! - [`http`]: listeners on TCP, TLS and unix sockets, with a bound on everything.
//! - [`files`]: files that the configuration names, opened with care.
//! - [`told`]: what the daemon tells its own command line, as JSON.
//! - [`visible`]: texts of strangers on a terminal.
//! - [`daemon`]: the daemon.
//! - [`ctl`]: the command line.

pub mod config;
pub mod ctl;
pub mod daemon;
pub mod files;
pub mod http;
pub mod told;
pub mod visible;
