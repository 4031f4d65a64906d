//! Whether the host goes down, asked when a guest begins to shut down: it may take minutes, and when it is off nobody may be
//! left who says it.
//!
//! ```text
//! idle ──a guest begins──▶ asked ──answered──▶ resting for PAUSE ──▶ idle, or asked again if another guest began since
//! ```
//!
//! So however many guests there are it is asked once a [`PAUSE`], and always after the last of them began.

use std::time::Duration;

use super::effect::{Question, Subject};
use super::engine::Engine;
use crate::evidence::Fact;
use crate::time::{Mono, Now, Wall};

/// Between an answer and the next question: without a bus each starts a program.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the question stands.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct HostQuestion {
    /// A guest has begun since it was last put.
    wanted: bool,
    /// It waits for its answer.
    out: bool,
    /// It is not put before this.
    rests_until: Mono,
}

impl HostQuestion {
    /// When it is to be put, if it is.
    pub(super) fn due(&self) -> Option<Mono> {
        (self.wanted && !self.out).then_some(self.rests_until)
    }
}

impl Engine {
    /// A guest begins to shut down.
    pub(super) fn wonder_about_host(&mut self, now: Now) {
        self.host.wanted = true;
        self.ask_about_host(now);
    }

    /// Puts the question, if it is due.
    pub(super) fn ask_about_host(&mut self, now: Now) {
        if self.host.due().is_some_and(|at| at <= now.mono) {
            self.host = HostQuestion { wanted: false, out: true, ..self.host };
            self.ask(Question::Host);
        }
    }

    /// It goes down, as somebody says, or nobody says so.
    pub(super) fn host_answered(&mut self, now: Now, going_down: Option<(Wall, String)>) {
        self.host = HostQuestion { out: false, rests_until: now.mono.after(PAUSE), ..self.host };
        if let Some((at, by)) = going_down {
            self.witnessed(now, Subject::Host, at, &Fact::HostGoingDown { by });
        }
    }
}
