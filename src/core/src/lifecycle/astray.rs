//! What libvirt was asked to do to a run may meet the domain's next one: libvirt knows domains, and no runs.
//!
//! ```text
//!   goes out ──another run begins──▶ that run has evidence of it
//!      │
//!      ▼ answered: refused, or that run is known to be what it met ──▶ forgotten
//!      │
//!      ▼ answered otherwise, or the link broke ──▶ forgotten when no event of a run that it met is still to come
//! ```

use std::time::Duration;

use super::effect::Outcome;
use super::engine::Engine;
use super::follow::ECHO;
use crate::evidence::{Fact, OperationKind, Who};
use crate::hypervisor::StopDetail;
use crate::id::{DomainId, RunId};
use crate::limits;
use crate::time::{Mono, Now};

/// Whether it can end another run than the one that it was meant for.
const fn can_go_astray(what: OperationKind) -> bool {
    what.may_end_it() && !matches!(what, OperationKind::Create)
}

/// Whether a VM of which this was asked ends so, if that is why it ends.
const fn brings(what: OperationKind, end: StopDetail) -> bool {
    use OperationKind::{AgentShutdown, Destroy, ForceOff, Migrate, Save, Shutdown};
    matches!(
        (what, end),
        (Destroy | ForceOff, StopDetail::Destroyed)
            | (Shutdown | AgentShutdown, StopDetail::Shutdown)
            | (Save, StopDetail::Saved)
            | (Migrate, StopDetail::Migrated)
    )
}

/// One request that libvirt was asked to perform.
#[derive(Debug, Clone)]
struct Out {
    domain: DomainId,
    run: RunId,
    what: OperationKind,
    who: Who,
    /// Forgotten then, it being answered.
    until: Option<Mono>,
    /// Whether it is known to have met the run that it was meant for.
    met: bool,
}

/// See the module page.
#[derive(Debug, Default)]
pub(super) struct Astray(Vec<Out>);

impl Astray {
    fn has_met(&self, id: RunId, what: OperationKind) -> bool {
        let mut its = self.0.iter().filter(|out| out.run == id && out.what == what && out.until.is_none());
        its.next().is_some_and(|out| out.met)
    }
}

impl Engine {
    /// libvirt is asked for this now.
    pub(super) fn is_out(&mut self, id: RunId, what: OperationKind) {
        let Some(run) = self.runs.get(&id).filter(|_| can_go_astray(what)) else { return };
        let asked = run.dossier.latest(|f| matches!(f, Fact::Requested { what: w, .. } if *w == what));
        let who = match asked.map(|(_, piece)| &piece.fact) {
            Some(Fact::Requested { who, .. }) => who.clone(),
            _ => return,
        };
        self.astray.0.push(Out { domain: run.start.domain, run: id, what, who, until: None, met: false });
    }

    /// This run was heard to end like this. If libvirt says of one destroy that it is done, it has met this run; and so have all
    /// requests that the guest, or libvirt for as long as it takes, had in hand.
    pub(super) fn was_met(&mut self, id: RunId, end: StopDetail) {
        let outs = self.astray.0.iter_mut().filter(|out| out.run == id && brings(out.what, end));
        let one_each = end == StopDetail::Destroyed;
        for out in outs.take(if one_each { 1 } else { usize::MAX }) {
            out.met = true;
        }
        self.astray.0.retain(|out| !(out.met && out.until.is_some()));
    }

    /// libvirt has answered, or its answer is lost.
    pub(super) fn is_answered(&mut self, now: Now, id: RunId, what: OperationKind, outcome: &Outcome) {
        let wait = match outcome {
            Outcome::Done if self.astray.has_met(id, what) => Duration::ZERO,
            Outcome::Done => ECHO,
            Outcome::NoLink => limits::LONGEST_ACT,
            Outcome::NoDomain | Outcome::Refused(_) => Duration::ZERO,
        };
        let mut outs = self.astray.0.iter_mut();
        let Some(out) = outs.find(|out| out.run == id && out.what == what && out.until.is_none()) else {
            return;
        };
        out.until = Some(now.mono.after(wait));
        let domain = out.domain;
        self.astray.0.retain(|out| out.until.is_none_or(|until| until > now.mono));
        let present = self.current.get(&domain).copied().filter(|run| *run != id);
        if let Some(present) = present.filter(|_| !wait.is_zero()) {
            self.may_be_met(now, present);
        }
    }

    /// This run goes on while libvirt may be at what was asked for another one of its domain.
    pub(super) fn may_be_met(&mut self, now: Now, id: RunId) {
        let Some(domain) = self.runs.get(&id).map(|run| run.start.domain) else { return };
        self.astray.0.retain(|out| out.until.is_none_or(|until| until > now.mono));
        let others = self.astray.0.iter().filter(|out| out.domain == domain && out.run < id);
        let others: Vec<Fact> = others.map(|out| Fact::Astray(out.what, out.who.clone())).collect();
        for fact in others {
            self.note(id, now.wall, fact);
        }
    }
}
