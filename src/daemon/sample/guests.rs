//! Whose agent is asked when: seldom, a few at once, and those that do not answer ever more seldom.
//!
//! Nothing here waits or asks; time comes in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use whydown_core::id::{DomainId, RunId};
use whydown_core::time::Mono;

/// Guests asked at once. Each holds a thread here and one of libvirtd's twenty workers, for half a minute at most.
const AT_ONCE: usize = 4;

/// What a guest told is believed for this many intervals without news.
const BELIEVED: u32 = 3;

/// A guest that never answers is asked once in so many intervals, in the end.
const SELDOM: u32 = 16;

/// One connected agent.
#[derive(Debug)]
struct Agent {
    run: RunId,
    /// When it is asked next.
    due: Mono,
    /// How many questions in a row it has left without an answer.
    silences: u32,
    /// When it last told something.
    heard: Option<Mono>,
}

/// See the module page.
#[derive(Debug)]
pub(super) struct Guests {
    interval: Duration,
    agents: BTreeMap<DomainId, Agent>,
    /// Asked, and not back; also of domains that are gone meanwhile.
    under_way: BTreeSet<DomainId>,
}

impl Guests {
    /// Asks each every `interval`; nobody if that is zero.
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, agents: BTreeMap::new(), under_way: BTreeSet::new() }
    }

    /// Follows who is connected. One that has just connected is asked at once.
    pub(super) fn follow(&mut self, connected: &BTreeMap<DomainId, RunId>, now: Mono) {
        self.agents.retain(|id, agent| connected.get(id) == Some(&agent.run));
        if self.interval.is_zero() {
            return;
        }
        for (id, run) in connected {
            let fresh = Agent { run: *run, due: now, silences: 0, heard: None };
            self.agents.entry(*id).or_insert(fresh);
        }
    }

    /// Who is to be asked now; they count as under way.
    pub(super) fn due(&mut self, now: Mono) -> Vec<(DomainId, RunId)> {
        let room = AT_ONCE.saturating_sub(self.under_way.len());
        let due = self.agents.iter().filter(|(id, agent)| agent.due <= now && !self.under_way.contains(id));
        let mut due: Vec<_> = due.map(|(id, agent)| (agent.due, *id, agent.run)).collect();
        due.sort_unstable();
        due.truncate(room);
        self.under_way.extend(due.iter().map(|(_, id, _)| id));
        due.into_iter().map(|(_, id, run)| (id, run)).collect()
    }

    /// One came back; `told` says whether it answered. True if what it told is of a run that is still followed.
    pub(super) fn back(&mut self, id: DomainId, run: RunId, told: bool, now: Mono) -> bool {
        self.under_way.remove(&id);
        let Some(agent) = self.agents.get_mut(&id).filter(|agent| agent.run == run) else { return false };
        if told {
            (agent.heard, agent.silences) = (Some(now), 0);
        } else {
            agent.silences = agent.silences.saturating_add(1);
        }
        let factor = 1u32.checked_shl(agent.silences).unwrap_or(SELDOM).min(SELDOM);
        // The first silence costs nothing: a freeze or a busy moment is over by the next time.
        let factor = if agent.silences <= 1 { 1 } else { factor };
        agent.due = now.after(self.interval * factor);
        told
    }

    /// Whether what this run's guest told is still to be believed.
    pub(super) fn believes(&self, id: DomainId, run: RunId, now: Mono) -> bool {
        let agent = self.agents.get(&id).filter(|agent| agent.run == run);
        let heard = agent.and_then(|agent| agent.heard);
        heard.is_some_and(|heard| now.since(heard) < self.interval * BELIEVED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Mono {
        Mono(second * 1_000_000_000)
    }

    fn id(number: u8) -> DomainId {
        DomainId::from_bytes([number; 16])
    }

    fn connected(numbers: impl IntoIterator<Item = u8>) -> BTreeMap<DomainId, RunId> {
        numbers.into_iter().map(|number| (id(number), RunId(number.into()))).collect()
    }

    #[test]
    fn a_guest_is_asked_when_its_agent_connects_and_then_once_an_interval() {
        let mut guests = Guests::new(Duration::from_secs(30));
        guests.follow(&connected([1]), at(0));
        assert_eq!(guests.due(at(0)), [(id(1), RunId(1))]);
        assert_eq!(guests.due(at(60)), [], "it is still being asked");
        assert!(guests.back(id(1), RunId(1), true, at(61)));
        assert_eq!((guests.due(at(90)).len(), guests.due(at(91)).len()), (0, 1));
    }

    #[test]
    fn guests_that_hang_keep_nobody_else_waiting_for_long() {
        let mut guests = Guests::new(Duration::from_secs(10));
        guests.follow(&connected(1..=100), at(0));
        let hangs = |id: DomainId| id != super::tests::id(100);
        let (mut asked, mut second) = (0, 0);
        // Each that hangs takes five seconds to be given up.
        while second < 3600 {
            for (id, run) in guests.due(at(second)) {
                asked += u32::from(!hangs(id));
                guests.back(id, run, !hangs(id), at(second + 5));
            }
            second += 5;
        }
        assert!(asked > 30, "the one that answers was asked {asked} times in an hour");
    }

    #[test]
    fn only_so_many_are_asked_at_once_and_those_that_never_come_back_count() {
        let mut guests = Guests::new(Duration::from_secs(10));
        guests.follow(&connected(1..=9), at(0));
        assert_eq!((guests.due(at(0)).len(), guests.due(at(99)).len()), (AT_ONCE, 0));
        guests.follow(&connected([]), at(100));
        guests.follow(&connected(1..=9), at(100));
        assert_eq!(guests.due(at(100)), []);
        assert!(guests.back(id(1), RunId(1), true, at(101)));
        assert_eq!(guests.due(at(101)).len(), 1);
    }

    #[test]
    fn what_was_told_is_believed_for_three_intervals_and_as_long_as_the_agent_is_there() {
        let mut guests = Guests::new(Duration::from_secs(10));
        guests.follow(&connected([1]), at(0));
        assert!(!guests.believes(id(1), RunId(1), at(0)));
        guests.due(at(0));
        guests.back(id(1), RunId(1), true, at(1));
        guests.due(at(11));
        assert!(!guests.back(id(1), RunId(1), false, at(16)));
        assert!(guests.believes(id(1), RunId(1), at(30)) && !guests.believes(id(1), RunId(1), at(31)));
        assert!(!guests.believes(id(1), RunId(2), at(2)), "another run");
        guests.follow(&connected([]), at(17));
        assert!(!guests.believes(id(1), RunId(1), at(18)));
        guests.follow(&BTreeMap::from([(id(1), RunId(2))]), at(20));
        assert!(!guests.back(id(1), RunId(1), true, at(21)), "an answer of the run before");
    }

    #[test]
    fn with_an_interval_of_zero_nobody_is_asked() {
        let mut guests = Guests::new(Duration::ZERO);
        guests.follow(&connected([1]), at(0));
        assert_eq!(guests.due(at(100)), []);
    }
}
