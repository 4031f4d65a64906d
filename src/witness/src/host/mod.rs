//! Whether the host is going down.
//!
//! Two ways to know it, and one of them at a time:
//!
//! ```text
//! HostWatch     one thread on the system bus: logind's announcement, systemd's own state; told as it happens
//! ask           systemctl, run for each question: where there is no bus, and while it is away
//! ```
//!
//! Signals on the bus only say when to look. What counts is what systemd and logind themselves say when they are asked
//! next: `SystemState` is `stopping` exactly while `shutdown.target` is wanted, whoever wanted it and by whatever way, and
//! `PreparingForShutdown` is true from logind's announcement on, while those who delay a shutdown still do. So nobody
//! else on the bus can tell us a lie, and a signal that was missed costs time and no truth.
//!
//! What was heard stays while the bus is away: during a shutdown it ends before the host does. `/run/nologin` does not
//! count: it is also there while the host comes up, and for minutes before a shutdown that may be cancelled. On a host
//! without systemd nothing is said, and *not said* never means that the host stays up.

mod before;
mod bus;
mod systemctl;
#[cfg(test)]
mod tests;
mod unit;
mod watch;

use std::path::Path;
use std::time::Duration;

use whydown_core::cause::Cause;
use whydown_core::time::Wall;

pub use self::before::{WentDown, is_boot_id, went_down};
pub use self::systemctl::{Said, ask};
pub use self::unit::{unit_of, units_of};
pub use self::watch::HostWatch;
use crate::processes::Processes;
use crate::source::{About, Advice};

/// How long systemd may take to answer. It answers in milliseconds, but a host that goes down is busy, and the daemon
/// has to end as well.
pub const ANSWER_WAIT: Duration = Duration::from_secs(2);

/// Where the bus of a host is, on every one.
pub const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";

/// systemd's word, by either way.
const SYSTEMD: &str = "systemd is stopping the system";

/// logind's word.
const LOGIND: &str = "logind has announced a shutdown";

/// Whether systemd is the init of this host. It makes this folder where it is (`sd_booted(3)`).
pub fn booted() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Somebody's word that the host is going down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoingDown {
    /// When it was heard first.
    pub at: Wall,
    /// Who said so, in words for an administrator.
    pub by: String,
}

/// How the source on the bus is known.
pub const ABOUT: About = About {
    name: "systemd",
    gives: "the host's bus",
    fine: "systemd and logind tell over the host's bus when it goes down",
    causes: &[Cause::GuestPoweroff, Cause::ProcessTerminated, Cause::HostShutdown],
    needed: true,
    instead: Some("systemctl is run with each ending to learn whether the host goes down"),
    advice: Advice {
        what: "What tells it as it happens, for less:",
        add: "systemctl enable --now dbus.service",
    },
    off: Some((
        "the host's init is not systemd: nobody tells that the host goes down",
        Advice {
            what: "Without systemd a shutdown of the host looks like what its steps do to VMs.",
            add: "",
        },
    )),
};

/// What it needs.
pub struct Config {
    /// The address of the bus, as D-Bus writes it: [`SYSTEM_BUS`].
    pub bus: String,
    /// In which units they run.
    pub processes: Processes,
    /// The host's clock.
    pub clock: fn() -> Wall,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// As of after the question.
    Heard(Option<GoingDown>),
    /// The bus did not answer: the last that was heard on it.
    Unavailable(Option<GoingDown>),
}
