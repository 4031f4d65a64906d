//! Evidence that libvirt does not give: QEMU's log, the end of a process, the kernel's out-of-memory killer, who
//! sent a signal, the host going down. Each witness delivers [`whydown_core::evidence::Fact`]s with their times.
//!
//! A witness only tells what it saw. It never decides why a domain ended, never sends a signal to a process that it did
//! not start, and never fails loudly because the world is odd: what cannot be read is said, as a fact or as an error.
//!
//! Those that are listened to as long as the daemon runs have one shape: [`source`].
//!
//! | witness | hears | needs |
//! |---|---|---|
//! | [`log`] | libvirt's farewell, signals, QEMU's own words | read access to the folder of the domains' logs |
//! | [`exit`] | when a process ended, and with what status | `pidfd_open` (Linux 5.3); the status of all: `CAP_NET_ADMIN`, in the host's pid namespace |
//! | [`emulator`] | which process is QEMU, for which domain, and what runs it | `/proc`, and libvirt's pid files |
//! | [`kernel`] | out-of-memory kills | `/dev/kmsg` (`CAP_SYSLOG`), in the host's pid namespace |
//! | [`signal`] | who sent the signal that ends a process | tracefs, as root and in the host's pid namespace |
//! | [`audit`] | crashes, what QEMU's sandbox forbids, who sent a signal and as whom they logged in | `CAP_AUDIT_READ`, in the host's own namespaces; an audit that runs, and for senders a rule |
//! | [`daemon_log`] | why libvirt refused a start | `journalctl`, or read access to the file where libvirt's daemon writes |
//! | [`core_dump`] | where QEMU's memory was written when a fault ended it | `/proc`, in the host's pid namespace; read access to the folder |
//! | [`host`] | whether the host goes down, and how a boot ended that is over | systemd; its bus, or `systemctl`; `journalctl`, or `/var/log/wtmp` |

pub mod audit;
pub mod core_dump;
pub mod daemon_log;
pub mod emulator;
pub mod emulators;
pub mod exit;
pub mod host;
mod journal;
pub mod kernel;
pub mod libvirt;
pub mod log;
pub mod process;
pub mod processes;
mod sender;
pub mod signal;
pub mod sock_diag;
pub mod source;
pub mod threads;
pub mod units;
