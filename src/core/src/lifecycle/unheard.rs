//! Runs that began while nobody listened, as QEMU's logs tell of them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::attribution::{self, Marks};
use super::engine::Engine;
use super::run::{Phase, Run};
use crate::evidence::{Fact, LogWord};
use crate::hypervisor::{DomainRef, DomainView};
use crate::id::{BootId, DomainId, RunId};
use crate::limits;
use crate::log::LogBlock;
use crate::record::{Keep, RunStart, Seen};
use crate::snapshot::Status;
use crate::time::{Now, Wall};

/// From libvirt's farewell to the end of a process that does not obey: it gets SIGTERM, then SIGKILL, and time to go.
const STOP_TAKES: Duration = Duration::from_secs(60);

/// Starts of each domain that nobody heard of, in their order.
pub(super) type Unheard = BTreeMap<DomainId, Starts>;

/// Starts of one domain.
#[derive(Debug, Default)]
pub(super) struct Starts {
    blocks: Vec<LogBlock>,
    /// When another start came after them, of which events tell.
    followed: Option<Wall>,
}

/// Starts of which events or a look must tell whether they are over, with the gap.
pub(super) type Doubtful = BTreeMap<DomainId, (LogBlock, Fact)>;

/// The gap in which nothing was heard of a domain: of one that was in doubt when the link broke, it began before.
pub(super) fn gap_since(doubtful: &Doubtful, domain: DomainId, gap: &Fact) -> Fact {
    match (doubtful.get(&domain), gap) {
        (Some((_, Fact::Gap { from: before, .. })), Fact::Gap { from, to, why }) => {
            Fact::Gap { from: *before.min(from), to: *to, why: *why }
        }
        _ => gap.clone(),
    }
}

/// What an absence left of one domain.
#[derive(Debug, Default)]
pub(super) struct Remnants {
    /// Runs that are over, in their order.
    pub over: Vec<LogBlock>,
    /// What may be about the run that the domain is in, or about one of which events tell.
    pub present: Option<LogBlock>,
}

impl Engine {
    /// The starts that the logs tell of and that nobody heard; what began since `heard_from` is heard.
    pub(super) fn unheard(&mut self, deaf_since: Wall, gap: &Fact, hearing: &Hearing) -> Unheard {
        let logs = std::mem::take(&mut self.past);
        let mut unheard = Unheard::new();
        for (domain, blocks) in attribution::by_domain(logs) {
            let gap = &gap_since(&self.doubtful, domain, gap);
            let deaf_since = self.deaf_since(domain, deaf_since);
            // Which part is that of a start which libvirt has not answered yet shows when it comes up.
            if let Some(id) = self.launching(domain) {
                self.set_aside(id, blocks, hearing.up.contains(&domain), deaf_since, gap);
                continue;
            }
            let mut blocks = attribution::unheard(blocks, self.latest_known(domain), deaf_since);
            // The last start of a domain that is up is the one that it is in, however it is dated.
            let present = if hearing.up.contains(&domain) { blocks.pop() } else { None };
            let heard = |block: &LogBlock| block.began.is_some_and(|at| hearing.tells_of(domain, at));
            let unheard_until = blocks.iter().rposition(|block| !heard(block)).map_or(0, |last| last + 1);
            let first_heard = blocks.get(unheard_until).filter(|_| present.is_none());
            let followed = first_heard.and_then(|block| block.began);
            blocks.truncate(unheard_until);
            blocks.extend(present);
            if !blocks.is_empty() || followed.is_some() {
                unheard.insert(domain, Starts { blocks, followed });
            }
        }
        unheard
    }

    /// Since when nothing was heard of a domain, where that is the moment for others.
    pub(super) fn deaf_since(&self, domain: DomainId, at: Wall) -> Wall {
        match self.doubtful.get(&domain) {
            Some((_, Fact::Gap { from, .. })) => at.min(*from),
            _ => at,
        }
    }

    /// The latest run of a domain of which anything is known.
    pub(super) fn latest_known(&self, domain: DomainId) -> Option<Marks> {
        self.latest_but(domain, None)
    }

    /// The same without this run.
    pub(super) fn latest_but(&self, domain: DomainId, except: Option<RunId>) -> Option<Marks> {
        let its = |run: &&Run| run.start.domain == domain && Some(run.start.run) != except;
        let followed = self.runs.values().rev().find(its);
        let followed = followed.map(|run| Seen::of(&run.start));
        let seen =
            followed.into_iter().chain(self.latest.get(&domain).copied()).max_by_key(|seen| seen.run)?;
        let (started, seen_start) = (seen.at, seen.start);
        Some(Marks { domain, started, seen_start, next_start: None, previous: None, failing: false })
    }

    fn launching(&self, domain: DomainId) -> Option<RunId> {
        self.current.get(&domain).copied().filter(|id| self.runs[id].phase == Phase::Launching)
    }

    /// Parts of the log that are over: of other clients' starts, or of this one, if it came and went. That it comes up from
    /// now on will tell.
    fn set_aside(&mut self, id: RunId, blocks: Vec<LogBlock>, up: bool, deaf_since: Wall, gap: &Fact) {
        let Some(run) = self.runs.get(&id).filter(|run| run.pending.awaits_its_start()) else { return };
        let known = self.latest_but(run.start.domain, Some(id));
        let mut over = attribution::unheard(blocks, known, deaf_since);
        if over.last().is_some_and(|last| up || last.farewell().is_none()) {
            over.pop();
        }
        let Some(run) = self.runs.get_mut(&id) else { return };
        for block in over {
            if run.others.iter().all(|(other, _)| other.began != block.began) {
                run.others.push((block, gap.clone()));
            }
        }
    }

    /// A start has come up: what was over before was other clients'.
    pub(super) fn tell_others(&mut self, now: Now, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let (domain, at, others) = (run.start.domain, run.start.at, std::mem::take(&mut run.others));
        // libvirt may say farewell to it before it ends.
        let its_own = |block: &LogBlock| {
            block.began.is_some_and(|began| began <= at) && block.farewell().is_some_and(|(_, end)| end > at)
        };
        for (block, gap) in others.into_iter().filter(|(block, _)| !its_own(block)) {
            self.tell_as_before(now, domain, &block, gap);
        }
    }

    /// Which of these starts are over. One that libvirt shows as active goes on; so may, where events are still to
    /// come, one that had not ended when they began to be heard.
    pub(super) fn sort_out(domain: DomainId, starts: Starts, up: bool, hearing: &Hearing) -> Remnants {
        let Starts { mut blocks, followed } = starts;
        let changing = hearing.changing.contains(&domain);
        let goes_on = |last: &LogBlock| match last.farewell() {
            None => (up || changing) && followed.is_none(),
            // libvirt says farewell to some of them before it ends their process.
            Some((_, at)) if up && followed.is_none() && hearing.now.since(at) <= STOP_TAKES => true,
            Some((word, at)) => (changing || word == LogWord::Failed) && hearing.is_later(at),
        };
        let present = if blocks.last().is_some_and(goes_on) { blocks.pop() } else { None };
        Remnants { over: blocks, present }
    }

    /// Whether what libvirt shows of this domain is about a run that no block tells of: the one that was open goes on.
    pub(super) fn goes_on(&self, view: &DomainView, same_libvirt: bool) -> bool {
        let open = self.current.get(&view.domain.id).filter(|id| self.runs[*id].is_open());
        open.is_some_and(|id| {
            // libvirt gives a number again only when it has started anew; otherwise the process alone is sure.
            let RunStart { incarnation: known, at, .. } = &self.runs[id].start;
            let same_libvirt = same_libvirt || self.libvirt_was_there(*at);
            let sure = view.process.is_some() && known.process.is_some()
                || same_libvirt && view.domain.libvirt_id.is_some() && known.libvirt_id.is_some();
            sure && self.is_same_incarnation(*id, view)
        })
    }

    /// Whether the present libvirt had begun by then.
    fn libvirt_was_there(&self, at: Wall) -> bool {
        self.server.is_some_and(|server| server.since.after(limits::CLOCK_GRACE) < at)
    }

    /// Another start came after this run, unless it is the one that is still being begun.
    pub(super) fn expect(&mut self, id: RunId, later: &Unheard) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        if self.current.get(&run.start.domain) != Some(&id) {
            return;
        }
        let starts = later.get(&run.start.domain);
        let next = starts.and_then(|starts| starts.blocks.first());
        // From a run of which neither process nor number is known, events could not tell a start that they tell of.
        let known = &run.start.incarnation;
        let nameless = known.process.is_none() && known.libvirt_id.is_none();
        let heard = starts.and_then(|starts| starts.followed).filter(|_| nameless);
        run.next = next.and_then(|next| next.began).or(heard);
        if let Some(began) = next.filter(|next| next.from_snapshot).and_then(|next| next.began) {
            self.note(id, began, Fact::NextFromSnapshot);
        }
    }

    /// Runs that began and ended while nobody listened, each by what its own block says. What libvirt shows now is
    /// about the last of them, if no other run came after it.
    pub(super) fn tell_unheard(
        &mut self,
        now: Now,
        domain: DomainId,
        later: &Remnants,
        gap: &Fact,
        shown: Option<&Fact>,
    ) {
        let next = later.over.iter().skip(1).chain(&later.present).map(Some);
        let next: Vec<Option<&LogBlock>> = next.chain([None]).collect();
        for (block, next) in later.over.iter().zip(next) {
            let Some(began) = block.began else { continue };
            let named = DomainRef { id: domain, name: block.name.clone(), libvirt_id: None };
            let mut start = self.new_start(now, &named, began, false, None);
            if self.settings.booted.is_some_and(|booted| began.after(limits::BOOT_SLACK) < booted) {
                start.incarnation.boot = self.boot_before(domain);
            }
            let id = self.begin(now, start, Phase::Active, Status::PoweringDown);
            self.note(id, now.wall, gap.clone());
            self.note(id, began, Fact::LogStart { at: began, incoming: block.incoming });
            for (at, fact) in &block.facts {
                self.note(id, *at, fact.clone());
            }
            if let Some(began) = next.filter(|next| next.from_snapshot).and_then(|next| next.began) {
                self.note(id, began, Fact::NextFromSnapshot);
            }
            let left = if next.is_some() { Some(&Fact::Replaced) } else { shown };
            if let Some(left) = left {
                self.note(id, now.wall, left.clone());
            }
            if let Some(run) = self.runs.get_mut(&id) {
                run.next = next.and_then(|next| next.began);
                // How the boot ended in which it ran does not stand in QEMU's log.
                run.remains_known = run.start.incarnation.boot == self.settings.boot;
            }
            self.end_unheard(now, id, now.wall);
        }
    }

    /// Nothing was heard of a start that had not ended when the listing came. It is over, if the domain is off or gone now;
    /// otherwise it is the one that the domain is in, and began then.
    pub(super) fn resolve_doubt(&mut self, now: Now, domain: DomainId, off: Option<Fact>) -> Option<Wall> {
        let (block, gap) = self.doubt_is_over(now, domain)?;
        let began = block.began;
        if off.is_some() && !self.current.get(&domain).is_some_and(|id| self.runs[id].is_open()) {
            let later = Remnants { over: vec![block], present: None };
            self.tell_unheard(now, domain, &later, &gap, off.as_ref());
        }
        began
    }

    /// What was in doubt of a domain, and is not any more. With the last doubt all that came before is heard.
    pub(super) fn doubt_is_over(&mut self, now: Now, domain: DomainId) -> Option<(LogBlock, Fact)> {
        let doubted = self.doubtful.remove(&domain);
        if doubted.is_some() {
            self.keep_alive(now.wall);
        }
        doubted
    }

    /// Tells the ledger that we have heard all that happened until then. While something is in doubt we have not: a daemon that
    /// begins then has to find it.
    pub(super) fn keep_alive(&mut self, at: Wall) {
        if self.doubtful.is_empty() {
            self.keep_beside(Keep::Alive(at));
        }
    }

    /// A boot before the present one: the one of the domain's run before, where that is known.
    fn boot_before(&self, domain: DomainId) -> BootId {
        let runs = self.runs.values().rev().filter(|run| run.start.domain == domain);
        let known = runs.map(|run| &run.start.incarnation.boot).find(|boot| **boot != self.settings.boot);
        known.cloned().unwrap_or_else(|| BootId("(an earlier boot)".into()))
    }

    /// Keeps when a run that is no more followed began.
    pub(super) fn remember_run(&mut self, start: &RunStart) {
        let seen = Seen::of(start);
        let known = self.latest.entry(start.domain).or_insert(seen);
        if known.run < seen.run {
            *known = seen;
        }
        if self.latest.len() > 2 * limits::RUNS_REMEMBERED {
            let mut runs: Vec<RunId> = self.latest.values().map(|seen| seen.run).collect();
            runs.sort_unstable();
            let oldest = runs[runs.len() - limits::RUNS_REMEMBERED];
            self.latest.retain(|_, seen| seen.run >= oldest);
        }
    }
}

/// From when on events tell of what happens.
#[derive(Debug)]
pub(super) struct Hearing {
    /// The moment.
    pub from: Wall,
    /// The clock now. Both are dated by it, and it may have been set between them.
    pub now: Wall,
    /// Domains of which events are still to come.
    pub changing: BTreeSet<DomainId>,
    /// Domains that are up, of the others.
    pub up: BTreeSet<DomainId>,
}

impl Hearing {
    /// Whether events tell of what is dated so. What is dated ahead was written before the clock was set back.
    fn tells_of(&self, domain: DomainId, at: Wall) -> bool {
        // Of a domain that changes events come in any case.
        self.is_later(at) || at >= self.from && self.changing.contains(&domain)
    }

    fn is_later(&self, at: Wall) -> bool {
        at > self.from && (at <= self.now || self.from > self.now)
    }
}
