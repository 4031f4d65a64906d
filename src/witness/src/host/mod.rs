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

use whydown_core::time::Wall;

pub use self::before::{WentDown, is_boot_id, went_down};
pub use self::bus::BusError;
pub use self::systemctl::{Said, ask};
pub use self::unit::{unit_of, units_of};
pub use self::watch::HostWatch;

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

/// What the witness on the bus tells.
#[derive(Debug)]
pub enum HostWord {
    /// The host is going down. Each of logind and systemd says it once.
    GoingDown(GoingDown),
    /// It is not: as of the first look after each connection, or because a shutdown was called off.
    Stays {
        /// When it was heard.
        at: Wall,
        /// It was going down before.
        called_off: bool,
    },
    /// systemd was given something to do with a unit. Of a scope that runs that is to stop it.
    UnitJob {
        /// When it was heard.
        at: Wall,
        /// The unit's name.
        unit: String,
    },
    /// The bus is heard, from now on.
    Heard,
    /// It is not heard, from now on; it is tried again for ever.
    Deaf {
        /// Why.
        why: BusError,
    },
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// As of after the question.
    Heard(Option<GoingDown>),
    /// The bus did not answer: the last that was heard on it.
    Deaf(Option<GoingDown>),
}
