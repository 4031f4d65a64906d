//! What waits on a run: who waits for which answer, what is to follow, and what libvirt was asked and has not answered.
//!
//! All of it is in one place, so that nothing of it is forgotten when the run comes up or ends.

use std::time::Duration;

use super::run::OnDisk;
use crate::evidence::{OperationKind, Who};
use crate::hypervisor::{Process, Server};
use crate::id::RequestId;
use crate::limits;
use crate::operation::Operation;
use crate::time::{Mono, Wall};

/// A shutdown or a reboot through us: what is to follow its present step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Shutting {
    pub who: Who,
    /// It is to start again.
    pub again: bool,
    /// How long its agent has before the power button.
    pub agent_first: Option<Duration>,
    /// How long the power button has before force.
    pub force_after: Option<Duration>,
}

impl Shutting {
    /// Its agent's step.
    pub const fn agent(&self) -> Operation {
        if self.again { Operation::AgentReboot } else { Operation::AgentShutdown }
    }

    /// The request itself, and its power button's step.
    pub const fn button(&self) -> Operation {
        if self.again { Operation::Reboot } else { Operation::Shutdown }
    }

    /// The last step.
    pub const fn force(&self) -> Operation {
        if self.again { Operation::ForceReset } else { Operation::ForceOff }
    }
}

/// See the module page.
#[derive(Debug, Clone, Default)]
pub(super) struct Pending {
    /// Who waits for the answer to a destroy.
    pub destroying: Vec<(RequestId, Who)>,
    /// Who waits for the answer to a shutdown, and what is to follow.
    pub shutting: Vec<(RequestId, Shutting)>,
    /// Who wants it destroyed and waits until the run is acknowledged, libvirt having had nothing to do for them.
    pub forgetting: Vec<(RequestId, Who)>,
    /// When the power button is to be pressed, the agent having been asked.
    pub press_at: Option<(Mono, Shutting)>,
    /// When force is to follow.
    pub force_at: Option<(Mono, Shutting)>,
    /// The save or the move that is under way through us.
    pub long: Option<OperationKind>,
    /// Something says that the run may be over without libvirt having said so: then libvirt is asked.
    pub doubted: Option<Mono>,
    /// libvirt has done the destroy; its STOPPED is waited for until then.
    pub destroyed_by: Option<Mono>,
    /// When libvirt had done it.
    pub destroyed_at: Option<Wall>,
    /// libvirt was asked to destroy it; and whether that is on disk.
    pub destroy_out: Option<OnDisk>,
    /// The same for a shutdown or a reboot.
    pub shutdown_out: Option<OnDisk>,
    /// The same for the last of all other operations.
    pub other_out: Option<OnDisk>,
    /// Which libvirt was last asked for anything, where that is known.
    asked_of: Option<Process>,
    /// libvirt was asked to start it and has not answered: that it is not there yet says nothing.
    pub creating: bool,
    /// Its answer went to a daemon before us, or to a link that broke: libvirt may still be at it, until then.
    pub creating_until: Option<Mono>,
    /// It is known to have begun, though its answer was lost: whoever sees it up sees it come up.
    begun_unseen: bool,
    /// Destroys that libvirt has not answered.
    destroys_out: u32,
    /// It is to be destroyed as soon as it is up: libvirt did not know it yet.
    destroy_again: bool,
    /// It came up after libvirt was asked to destroy it: that there is no such domain may have been true before.
    up_since_destroy: bool,
    /// Operations that broke off with the link: if the run still goes on at that time, they were not done.
    pub unsure: Vec<(OperationKind, Mono)>,
}

impl Pending {
    /// Of a run about which a daemon before us left these without a word of what came of them.
    pub fn unsure_of(left: &[OperationKind]) -> Self {
        let unsure = left.iter().map(|what| (*what, Mono::default())).collect();
        Self { unsure, ..Self::default() }
    }

    /// When something is due.
    pub fn alarm(&self) -> Option<Mono> {
        let press_at = self.press_at.as_ref().map(|(at, _)| *at);
        let force_at = self.force_at.as_ref().map(|(at, _)| *at);
        [press_at, force_at, self.destroyed_by, self.doubted, self.creating_until].into_iter().flatten().min()
    }

    /// The run is over: nothing follows, and nothing is expected of libvirt. Who waits is answered by what became of it.
    pub fn ends(&mut self) {
        self.press_at = None;
        self.force_at = None;
        self.long = None;
        self.destroyed_by = None;
        self.doubted = None;
        self.destroy_again = false;
        self.start_is_known();
    }

    /// The run has come up. Gives whether it was to be destroyed before libvirt knew it.
    pub fn came_up(&mut self) -> bool {
        self.start_is_known();
        self.up_since_destroy = self.destroys_out > 0;
        std::mem::take(&mut self.destroy_again)
    }

    /// What became of the start is known.
    pub fn start_is_known(&mut self) {
        (self.creating, self.creating_until, self.begun_unseen) = (false, None, false);
    }

    /// Its answer was lost, and it has begun all the same.
    pub fn has_begun(&mut self) {
        self.start_is_known();
        self.begun_unseen = true;
    }

    /// Whether it has begun, and was not seen up yet.
    pub fn has_begun_unseen(&self) -> bool {
        self.begun_unseen
    }

    /// Of its start no answer comes any more; libvirt may be at it until then.
    pub fn answer_is_lost(&mut self, until: Mono) {
        (self.creating, self.creating_until) = (true, Some(until));
    }

    /// Whether libvirt's answer to its start is still to come.
    pub fn awaits_its_start(&self) -> bool {
        self.creating && self.creating_until.is_none()
    }

    /// Of several who asked, the first force counts: nobody puts off another's.
    pub fn force_within(&mut self, at: Mono, shutting: Shutting) {
        if self.force_at.as_ref().is_none_or(|(known, _)| at < *known) {
            self.force_at = Some((at, shutting));
        }
    }

    /// The guest was reset: what was to follow a reboot that was asked for is not needed.
    pub fn was_reset(&mut self) {
        self.press_at = self.press_at.take().filter(|(_, shutting)| !shutting.again);
        self.force_at = self.force_at.take().filter(|(_, shutting)| !shutting.again);
    }

    /// libvirt is about to be asked to destroy it.
    pub fn destroy_is_asked(&mut self) {
        self.destroys_out += 1;
    }

    /// libvirt has answered a destroy.
    pub fn destroy_is_answered(&mut self) {
        self.destroys_out = self.destroys_out.saturating_sub(1);
    }

    /// Whether a destroy is done already, or libvirt has one still to answer.
    pub fn has_other_destroys(&self) -> bool {
        self.destroyed_by.is_some() || self.destroys_out > 0 || self.destroy_again
    }

    /// It is to be destroyed as soon as it is up.
    pub fn destroy_when_up(&mut self) {
        self.destroy_again = true;
    }

    /// Whether it came up after libvirt was asked to destroy it.
    pub fn is_up_since_destroy(&self) -> bool {
        self.up_since_destroy
    }

    /// The same, and that is not so any more.
    pub fn take_up_since_destroy(&mut self) -> bool {
        std::mem::take(&mut self.up_since_destroy)
    }

    /// Until when the libvirt that was asked may be at it, its answer being lost; `server` is who libvirt is now. One that is
    /// gone has done what it will ever do.
    pub fn may_be_at_it_until(&self, now: Mono, server: Option<Process>) -> Mono {
        match (self.asked_of, server) {
            (Some(asked), Some(server)) if asked != server => now,
            _ => now.after(limits::LONGEST_ACT),
        }
    }

    /// libvirt is another process than before, which began at `since`: what the one before was at, it is not any more.
    /// `asked`: when something was asked for, as evidence has it.
    pub fn libvirt_is(&mut self, server: Server, now: Mono, asked: impl Fn(OperationKind) -> Option<Wall>) {
        let gone = |what: OperationKind| match self.asked_of {
            Some(asked_of) => asked_of != server.process,
            None => asked(what).is_some_and(|at| at.after(limits::CLOCK_GRACE) < server.since),
        };
        for (what, until) in &mut self.unsure {
            if gone(*what) {
                *until = now.min(*until);
            }
        }
        if gone(OperationKind::Create) {
            self.creating_until = self.creating_until.map(|until| until.min(now));
        }
    }

    /// Nobody knows whether libvirt did this: if the run still goes on at that time, it did not.
    pub fn is_unsure(&mut self, what: OperationKind, until: Mono) {
        self.unsure.push((what, until));
    }

    /// libvirt is asked now, and the request for it is on disk, or cannot be written.
    pub fn goes_out(&mut self, what: OperationKind, on_disk: OnDisk, server: Option<Process>) {
        self.asked_of = server;
        let out = match what {
            OperationKind::Destroy => &mut self.destroy_out,
            OperationKind::Shutdown
            | OperationKind::Reboot
            | OperationKind::AgentShutdown
            | OperationKind::AgentReboot => &mut self.shutdown_out,
            _ => &mut self.other_out,
        };
        *out = Some(on_disk);
    }
}
