//! Starts by others that fail, as stories tell them.

use std::time::Duration;

use whydown_core::evidence::StartedFor;

use super::words::VM;
use crate::world::World;

/// One of them.
#[derive(Debug, Clone, PartialEq)]
pub struct StartFails {
    /// How long before it is found.
    ago: Option<Duration>,
    /// For whose memory, if for one.
    started_for: Option<StartedFor>,
    /// What libvirt's log says.
    why: Option<String>,
}

impl StartFails {
    /// What stands behind `another` in a story.
    pub fn parse(rest: &str) -> Option<Self> {
        let (what, why) = match rest.split_once(": ") {
            Some((what, why)) => (what, Some(why.to_owned())),
            None => (rest, None),
        };
        let (what, how) = what.split_once(' ')?;
        let started_for = match what {
            "start" => None,
            "arrival" => Some(StartedFor::Migration),
            "restore" => Some(StartedFor::Restore),
            "waiting" => Some(StartedFor::Either),
            _ => return None,
        };
        let ago = match how.strip_prefix("failed ").and_then(|ago| ago.strip_suffix(" ago")) {
            Some(ago) => Some(Duration::try_from_secs_f64(ago.parse().ok()?).ok()?),
            None => None,
        };
        (ago.is_some() || how == "fails").then_some(Self { ago, started_for, why })
    }

    /// It happens, or is found.
    pub fn happens(&self, world: &mut World) {
        let (what, why) = (self.started_for, self.why.as_deref());
        match self.ago {
            None => world.start_fails(VM, what, why),
            Some(ago) => world.start_failed_before(VM, ago, what, why),
        }
    }
}
