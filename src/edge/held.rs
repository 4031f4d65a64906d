//! What requests and answers hold of memory, and whose they are: who takes its answers in slowly must not fill it.
//!
//! A request is held from its first bytes until it was answered, an answer until its client has taken it in. An answer
//! that several take in is there once. All listeners share one bound; beyond it, the peer that holds the most loses the
//! connections of the oldest that it holds. So a peer alone may have all, and no other loses anything by it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tracing::warn;

use super::{Share, noise};

/// Bytes that may be held, unless a few of the largest take more: of a host with ten thousand VMs one answer has thirty
/// megabytes.
const BOUND: usize = 64 << 20;
const OF_THE_LARGEST: usize = 4;

/// What is smaller is not counted: the number of connections bounds it.
const SMALL: usize = 16 << 10;

/// Of the whole process.
static MEMORY: LazyLock<Memory> = LazyLock::new(|| Memory::new(BOUND));

#[derive(Debug, Clone)]
struct Memory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bound: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// By the order in which they began.
    holds: BTreeMap<u64, Held>,
    /// By how many each is held, and its bytes.
    things: BTreeMap<Thing, (usize, usize)>,
    total: usize,
}

/// What is there once, by however many it is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Growing(u64),
    /// Where it lies, and its length: while it is held, nothing else lies there.
    Whole(usize, usize),
}

#[derive(Debug)]
struct Held {
    thing: Thing,
    share: Share,
    leave: Arc<Notify>,
}

/// Whose connection it is, and how it is told to end.
#[derive(Debug, Clone)]
pub(super) struct Holder {
    pub share: Share,
    pub leave: Arc<Notify>,
}

/// A part of memory; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Hold {
    memory: Memory,
    number: u64,
}

/// Bytes, and the part of memory that they are.
struct Counted {
    bytes: Bytes,
    _hold: Hold,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Holder {
    /// A request that is coming in. Nothing of it has come.
    pub(super) fn request(&self) -> Hold {
        MEMORY.hold(self, Thing::Growing, 0)
    }

    /// Whether so many bytes count.
    pub(super) fn counts(&self, bytes: usize) -> bool {
        bytes >= SMALL
    }

    /// Bytes that are whole, an answer or what a request was unpacked to, held until the last of them has gone.
    pub(super) fn keep(&self, bytes: Bytes) -> Bytes {
        if !self.counts(bytes.len()) {
            return bytes;
        }
        let thing = Thing::Whole(bytes.as_ptr().addr(), bytes.len());
        let hold = MEMORY.hold(self, |_| thing, bytes.len());
        hold.keep_with(bytes)
    }
}

impl Hold {
    /// So many bytes it has by now.
    pub(super) fn has(&self, bytes: usize) {
        let counted = if bytes < SMALL { 0 } else { bytes };
        let mut state = self.memory.lock();
        let Some(held) = state.holds.get(&self.number) else { return };
        let thing = held.thing;
        let before =
            state.things.get_mut(&thing).map(|(_, had)| std::mem::replace(had, counted)).unwrap_or(0);
        state.total = state.total - before + counted;
        self.memory.keep_within(state);
    }

    /// These bytes are what it is, as long as there are any of them.
    pub(super) fn keep_with(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Counted { bytes, _hold: self })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.memory.lock().remove(self.number);
    }
}

impl Memory {
    fn new(bound: usize) -> Self {
        Self(Arc::new(Inner { bound, state: Mutex::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, holder: &Holder, thing: impl FnOnce(u64) -> Thing, bytes: usize) -> Hold {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        let thing = thing(number);
        let Holder { share, leave } = holder.clone();
        state.holds.insert(number, Held { thing, share, leave });
        let (count, _) = state.things.entry(thing).or_insert((0, bytes));
        *count += 1;
        if *count == 1 {
            state.total += bytes;
        }
        self.keep_within(state);
        Hold { memory: self.clone(), number }
    }

    fn keep_within(&self, mut state: MutexGuard<'_, State>) {
        let mut cut = Vec::new();
        loop {
            if state.total <= self.0.bound {
                break;
            }
            let largest = state.things.values().map(|(_, bytes)| *bytes).max().unwrap_or(0);
            if state.total <= largest * OF_THE_LARGEST {
                break;
            }
            let Some((share, bytes)) = state.greediest() else { break };
            state.cut_oldest(share);
            cut.push((share, bytes));
        }
        drop(state);
        for (share, bytes) in cut {
            if noise::may_say(share) {
                let mib = bytes >> 20;
                warn!(
                    "{share} held {mib} MiB of requests and answers, too slowly for what there is: a connection of it is cut"
                );
            }
        }
    }
}

impl State {
    /// The peer that holds the most, and how much.
    fn greediest(&self) -> Option<(Share, usize)> {
        let things: BTreeSet<(Share, Thing)> =
            self.holds.values().map(|held| (held.share, held.thing)).collect();
        let mut sums: BTreeMap<Share, usize> = BTreeMap::new();
        for (share, thing) in things {
            *sums.entry(share).or_default() += self.things.get(&thing).map_or(0, |(_, bytes)| *bytes);
        }
        sums.into_iter().max_by_key(|(_, bytes)| *bytes)
    }

    fn cut_oldest(&mut self, share: Share) {
        let theirs =
            |held: &&Held| held.share == share && self.things.get(&held.thing).is_some_and(|t| t.1 > 0);
        let Some(thing) = self.holds.values().find(theirs).map(|held| held.thing) else { return };
        let of_it: Vec<u64> = self
            .holds
            .iter()
            .filter(|(_, held)| held.share == share && held.thing == thing)
            .map(|(number, _)| *number)
            .collect();
        for number in of_it {
            if let Some(held) = self.remove(number) {
                held.leave.notify_one();
            }
        }
    }

    fn remove(&mut self, number: u64) -> Option<Held> {
        let held = self.holds.remove(&number)?;
        if let Some((count, bytes)) = self.things.get_mut(&held.thing) {
            *count -= 1;
            if *count == 0 {
                self.total -= *bytes;
                self.things.remove(&held.thing);
            }
        }
        Some(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(uid: u32) -> Holder {
        Holder { share: Share::User(uid), leave: Arc::default() }
    }

    /// Whether its connection was told to end.
    fn left(holder: &Holder) -> bool {
        let told = std::pin::pin!(holder.leave.notified());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        told.poll(&mut context).is_ready()
    }

    fn hold(memory: &Memory, holder: &Holder, at: usize, bytes: usize) -> Hold {
        memory.hold(holder, |_| Thing::Whole(at, bytes), bytes)
    }

    #[test]
    fn who_holds_the_most_loses_its_oldest_and_nobody_else_anything() {
        let memory = Memory::new(10 * SMALL);
        let honest = holder(1);
        let _kept = hold(&memory, &honest, 1, 2 * SMALL);
        let greedy: Vec<Holder> = (0..20).map(|_| holder(2)).collect();
        let _held: Vec<Hold> =
            greedy.iter().enumerate().map(|(n, holder)| hold(&memory, holder, 10 + n, SMALL)).collect();
        let gone = greedy.iter().map(left).collect::<Vec<_>>();
        assert_eq!(gone, (0..20).map(|n| n < 12).collect::<Vec<_>>());
        assert!(!left(&honest));
        assert_eq!(memory.lock().total, 10 * SMALL);
    }

    #[test]
    fn what_many_take_in_is_there_once() {
        let memory = Memory::new(10 * SMALL);
        let many: Vec<Holder> = (0..100).map(holder).collect();
        let held: Vec<Hold> = many.iter().map(|holder| hold(&memory, holder, 7, 9 * SMALL)).collect();
        assert!(!many.iter().any(left));
        assert_eq!(memory.lock().total, 9 * SMALL);
        drop(held);
        let state = memory.lock();
        assert!(state.total == 0 && state.things.is_empty() && state.holds.is_empty());
    }

    #[test]
    fn a_few_of_the_largest_always_have_room() {
        let memory = Memory::new(SMALL);
        let holders: Vec<Holder> = (0..4).map(holder).collect();
        let _held: Vec<Hold> =
            holders.iter().enumerate().map(|(n, holder)| hold(&memory, holder, n, 100 * SMALL)).collect();
        assert!(!holders.iter().any(left));
        let one_more = holder(0);
        let _more = hold(&memory, &one_more, 9, 100 * SMALL);
        assert!(left(&holders[0]) && !left(&one_more), "its own older one");
    }

    #[test]
    fn a_request_counts_by_what_came_of_it_and_no_longer_than_it_is_there() {
        let memory = Memory::new(10 * SMALL);
        let (slow, other) = (holder(1), holder(2));
        let requests: Vec<Hold> = (0..8).map(|_| memory.hold(&slow, Thing::Growing, 0)).collect();
        assert_eq!(memory.lock().total, 0, "what was only announced takes nothing");
        requests.iter().for_each(|request| request.has(SMALL));
        let bytes = hold(&memory, &other, 1, SMALL).keep_with(Bytes::from(vec![0; SMALL]));
        let half = bytes.slice(..SMALL / 2);
        drop(bytes);
        assert_eq!(memory.lock().total, 9 * SMALL);
        drop(half);
        requests[0].has(2 * SMALL);
        assert_eq!(memory.lock().total, 9 * SMALL);
        requests[1].has(2 * SMALL);
        assert!(!left(&slow));
        requests[2].has(2 * SMALL);
        assert!(left(&slow) && !left(&other));
    }
}
