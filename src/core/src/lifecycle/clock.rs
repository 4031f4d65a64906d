//! How far the wall clock can be believed, judged by the one that nobody can set.
//!
//! A dead battery, a wrong NTP server or an administrator sets the wall clock by seconds or by decades, and back. Nothing
//! expires by it; what it dates is marked, and the times that managers read come back to the truth when it has been
//! consistent for long.

use super::engine::Engine;
use crate::evidence::Fact;
use crate::id::{DomainId, RunId};
use crate::limits;
use crate::time::{Mono, Now, Wall};

/// Both clocks as they were last seen, and since when they have gone on together.
#[derive(Debug, Default)]
pub(super) struct Clock {
    last: Option<Now>,
    steady_since: Mono,
}

impl Clock {
    /// Looks at both. If the wall clock was set: what it would show otherwise.
    fn look(&mut self, now: Now) -> Option<Wall> {
        let Some(last) = self.last.replace(now) else {
            self.steady_since = now.mono;
            return None;
        };
        let expected = last.wall.after(now.mono.since(last.mono));
        let apart = expected.since(now.wall).max(now.wall.since(expected));
        if apart < limits::CLOCK_SET {
            return None;
        }
        self.steady_since = now.mono;
        Some(expected)
    }
}

impl Engine {
    /// Marks what is dated by a clock that was set, and heals what was dated by one that was years ahead.
    pub(super) fn look_at_clock(&mut self, now: Now) {
        if let Some(before) = self.clock.look(now) {
            let concerned = self.runs.iter().filter(|(_, run)| run.takes_evidence());
            let concerned: Vec<RunId> = concerned.map(|(id, _)| *id).collect();
            for id in concerned {
                self.note(id, now.wall, Fact::ClockSet { before, now: now.wall });
            }
        }
        let truth = now.wall.as_millis();
        let ahead = limits::CLOCK_AHEAD.as_millis();
        let far = u128::try_from(self.floor.saturating_sub(truth)).is_ok_and(|by| by > ahead);
        if far && now.mono.since(self.clock.steady_since) >= limits::CLOCK_STEADY {
            self.floor = truth;
            self.date_anew(truth);
        }
    }

    /// Pictures whose time lies ahead are dated now.
    fn date_anew(&mut self, truth: i64) {
        let ahead: Vec<DomainId> =
            self.public.iter().filter(|(_, shown)| shown.status_time > truth).map(|(id, _)| *id).collect();
        for id in ahead {
            if let Some(shown) = self.public.get_mut(&id) {
                let mut anew = (**shown).clone();
                anew.status_time = truth;
                *shown = std::sync::Arc::new(anew);
                self.mark_changed();
            }
        }
    }
}
