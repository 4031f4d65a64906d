//! What requests and answers hold of memory, and whose they are: who sends much at once, or takes its answers in slowly,
//! must not fill it.
//!
//! A request is held from its first bytes until it was answered, an answer until its client has taken it in. An answer
//! that several take in is there once. All listeners share the bounds.
//!
//! Of requests each peer may have its part. Beyond it, and where there is no room for all, a request is refused; one of a
//! peer that holds less than another is let in, and the other loses the connection of its oldest. Of requests and answers
//! together, beyond the bound, the peer that holds the most loses the connections of the oldest that it holds. So no peer
//! loses anything by another that holds more.

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

/// Bytes of requests that may be held, unless a few of the largest take more; and those of one peer, but that one alone
/// may have any size. Honest requests that count are few: a document has some tens of kilobytes.
const REQUESTS: usize = 16 << 20;
const REQUESTS_EACH: usize = 8 << 20;

/// What is smaller is not counted: the number of connections bounds it.
const SMALL: usize = 16 << 10;

/// Of the whole process.
static MEMORY: LazyLock<Memory> =
    LazyLock::new(|| Memory::new(Bounds { all: BOUND, requests: REQUESTS, requests_each: REQUESTS_EACH }));

#[derive(Debug, Clone)]
struct Memory(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bounds: Bounds,
    state: Mutex<State>,
}

/// In bytes.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    all: usize,
    requests: usize,
    requests_each: usize,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// By the order in which they began.
    holds: BTreeMap<u64, Held>,
    things: BTreeMap<Thing, Size>,
    total: usize,
}

#[derive(Debug, Default)]
struct Size {
    /// By how many it is held.
    holders: usize,
    bytes: usize,
}

/// There is no room for this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoRoom;

/// What is there once, by however many it is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    /// A request.
    Growing(u64),
    /// Where it lies, and its length: while it is held, nothing else lies there.
    Whole(usize, usize),
}

#[derive(Debug)]
struct Held {
    thing: Thing,
    share: Share,
    leave: Arc<Notify>,
    /// Whether it was told so. What it holds is there until it has left.
    leaves: bool,
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

    /// An answer that is whole, held until the last of it has gone.
    pub(super) fn keep(&self, bytes: Bytes) -> Bytes {
        if bytes.len() < SMALL {
            return bytes;
        }
        let thing = Thing::Whole(bytes.as_ptr().addr(), bytes.len());
        let hold = MEMORY.hold(self, |_| thing, bytes.len());
        hold.keep_with(bytes)
    }
}

impl Hold {
    /// So many bytes the request has by now.
    ///
    /// # Errors
    /// [`NoRoom`]: it may not have them.
    pub(super) fn has(&self, bytes: usize) -> Result<(), NoRoom> {
        let counted = if bytes < SMALL { 0 } else { bytes };
        let mut state = self.memory.lock();
        let Some(share) = state.holds.get(&self.number).map(|held| held.share) else { return Ok(()) };
        let had = state.set(self.number, 0);
        if counted <= had {
            state.set(self.number, counted);
            return Ok(());
        }
        let Bounds { requests, requests_each, .. } = self.memory.0.bounds;
        let (all, each) = state.requests(|_| true);
        let mine = each.get(&share).copied().unwrap_or(0);
        if mine > 0 && mine + counted > requests_each {
            return Err(NoRoom);
        }
        let bound = requests.max(counted * OF_THE_LARGEST);
        let mut cut = Vec::new();
        if all + counted > bound {
            loop {
                let (staying, each) = state.requests(|held| !held.leaves);
                if staying + counted <= bound {
                    break;
                }
                match each.iter().max_by_key(|(_, bytes)| **bytes) {
                    Some((&greedy, &bytes)) if bytes > mine + counted => {
                        state.cut_oldest(greedy, |thing| matches!(thing, Thing::Growing(_)));
                        cut.push((greedy, bytes));
                    }
                    _ => return Err(NoRoom),
                }
            }
        }
        state.set(self.number, counted);
        cut.extend(self.memory.keep_within(&mut state));
        drop(state);
        say(cut);
        Ok(())
    }

    /// These bytes are what it is, as long as there are any of them.
    pub(super) fn keep_with(self, bytes: Bytes) -> Bytes {
        if bytes.len() < SMALL {
            return bytes;
        }
        Bytes::from_owner(Counted { bytes, _hold: self })
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.memory.lock().remove(self.number);
    }
}

impl Memory {
    fn new(bounds: Bounds) -> Self {
        Self(Arc::new(Inner { bounds, state: Mutex::default() }))
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
        state.holds.insert(number, Held { thing, share, leave, leaves: false });
        let size = state.things.entry(thing).or_insert(Size { holders: 0, bytes });
        size.holders += 1;
        if size.holders == 1 {
            state.total += bytes;
        }
        let cut = self.keep_within(&mut state);
        drop(state);
        say(cut);
        Hold { memory: self.clone(), number }
    }

    /// Whose connections were cut for it, and how much they held.
    fn keep_within(&self, state: &mut State) -> Vec<(Share, usize)> {
        let mut cut = Vec::new();
        loop {
            if state.total <= self.0.bounds.all {
                break;
            }
            let (total, largest) = state.staying();
            if total <= self.0.bounds.all.max(largest * OF_THE_LARGEST) {
                break;
            }
            let Some((share, bytes)) = state.greediest() else { break };
            state.cut_oldest(share, |_| true);
            cut.push((share, bytes));
        }
        cut
    }
}

fn say(cut: Vec<(Share, usize)>) {
    for (share, bytes) in cut {
        if noise::may_say(share) {
            let mib = bytes >> 20;
            warn!(
                "{share} held {mib} MiB of requests and answers, too slowly for what there is: a connection of it is cut"
            );
        }
    }
}

impl State {
    /// What it had before.
    fn set(&mut self, number: u64, bytes: usize) -> usize {
        let thing = self.holds.get(&number).map(|held| held.thing);
        let Some(size) = thing.and_then(|thing| self.things.get_mut(&thing)) else { return 0 };
        let had = std::mem::replace(&mut size.bytes, bytes);
        self.total = self.total - had + bytes;
        had
    }

    fn bytes(&self, thing: Thing) -> usize {
        self.things.get(&thing).map_or(0, |size| size.bytes)
    }

    /// Bytes of such requests, of all and of each peer.
    fn requests(&self, such: impl Fn(&Held) -> bool) -> (usize, BTreeMap<Share, usize>) {
        let (mut all, mut each) = (0, BTreeMap::new());
        let is_request = |held: &&Held| matches!(held.thing, Thing::Growing(_));
        for held in self.holds.values().filter(is_request).filter(|held| such(held)) {
            let bytes = self.bytes(held.thing);
            all += bytes;
            *each.entry(held.share).or_default() += bytes;
        }
        (all, each)
    }

    /// Bytes that nobody was told to let go of, and those of the largest.
    fn staying(&self) -> (usize, usize) {
        let staying = self.holds.values().filter(|held| !held.leaves);
        let things: BTreeSet<Thing> = staying.map(|held| held.thing).collect();
        let sizes = || things.iter().map(|thing| self.bytes(*thing));
        (sizes().sum(), sizes().max().unwrap_or(0))
    }

    /// The peer that holds the most, and how much.
    fn greediest(&self) -> Option<(Share, usize)> {
        let staying = self.holds.values().filter(|held| !held.leaves);
        let things: BTreeSet<(Share, Thing)> = staying.map(|held| (held.share, held.thing)).collect();
        let mut sums: BTreeMap<Share, usize> = BTreeMap::new();
        for (share, thing) in things {
            *sums.entry(share).or_default() += self.bytes(thing);
        }
        sums.into_iter().max_by_key(|(_, bytes)| *bytes).filter(|(_, bytes)| *bytes > 0)
    }

    /// Tells the connections of the peer to leave that hold the oldest such thing.
    fn cut_oldest(&mut self, share: Share, such: impl Fn(Thing) -> bool) {
        let theirs = |held: &&Held| {
            held.share == share && !held.leaves && such(held.thing) && self.bytes(held.thing) > 0
        };
        let Some(thing) = self.holds.values().find(theirs).map(|held| held.thing) else { return };
        for held in self.holds.values_mut().filter(|held| held.share == share && held.thing == thing) {
            held.leaves = true;
            held.leave.notify_one();
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(held) = self.holds.remove(&number) else { return };
        if let Some(size) = self.things.get_mut(&held.thing) {
            size.holders -= 1;
            if size.holders == 0 {
                self.total -= size.bytes;
                self.things.remove(&held.thing);
            }
        }
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

    fn bounded(all: usize) -> Memory {
        Memory::new(Bounds { all, requests: all, requests_each: all })
    }

    #[test]
    fn who_holds_the_most_loses_its_oldest_and_nobody_else_anything() {
        let memory = bounded(10 * SMALL);
        let honest = holder(1);
        let _kept = hold(&memory, &honest, 1, 2 * SMALL);
        let greedy: Vec<Holder> = (0..20).map(|_| holder(2)).collect();
        let held: Vec<Hold> =
            greedy.iter().enumerate().map(|(n, holder)| hold(&memory, holder, 10 + n, SMALL)).collect();
        let gone = greedy.iter().map(left).collect::<Vec<_>>();
        assert_eq!(gone, (0..20).map(|n| n < 12).collect::<Vec<_>>());
        assert!(!left(&honest));
        assert_eq!(memory.lock().total, 22 * SMALL, "what was cut is there until it has gone");
        assert_eq!(memory.lock().staying(), (10 * SMALL, 2 * SMALL));
        drop(held);
        assert_eq!(memory.lock().total, 2 * SMALL);
    }

    #[test]
    fn what_many_take_in_is_there_once() {
        let memory = bounded(10 * SMALL);
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
        let memory = bounded(SMALL);
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
        let memory = bounded(10 * SMALL);
        let (slow, other) = (holder(1), holder(2));
        let request = |holder| memory.hold(holder, Thing::Growing, 0);
        let requests: Vec<Hold> = (0..8).map(|_| request(&slow)).collect();
        assert_eq!(memory.lock().total, 0, "what was only announced takes nothing");
        requests.iter().for_each(|request| request.has(SMALL).unwrap());
        let theirs = request(&other);
        theirs.has(SMALL).unwrap();
        let bytes = theirs.keep_with(Bytes::from(vec![0; SMALL]));
        let half = bytes.slice(..SMALL / 2);
        drop(bytes);
        assert_eq!(memory.lock().total, 9 * SMALL);
        drop(half);
        assert_eq!(memory.lock().total, 8 * SMALL);
        requests[0].has(10).unwrap();
        assert_eq!(memory.lock().total, 7 * SMALL, "what was unpacked may be less");
    }

    #[test]
    fn requests_beyond_a_peers_part_or_all_room_are_refused_but_to_those_who_hold_less() {
        let memory = Memory::new(Bounds { all: 100 * SMALL, requests: 16 * SMALL, requests_each: 8 * SMALL });
        let request = |holder| memory.hold(holder, Thing::Growing, 0);
        let [one, two, three] = [1, 2, 3].map(holder);
        let mut greedy: Vec<Hold> = (0..9).map(|_| request(&one)).collect();
        assert_eq!(greedy.iter().filter(|hold| hold.has(SMALL).is_ok()).count(), 8);
        let others: Vec<Hold> = (0..8).map(|_| request(&two)).collect();
        assert!(others.iter().all(|hold| hold.has(SMALL).is_ok()), "each has its part");
        assert!(!left(&one) && !left(&two));
        let third = request(&three);
        assert_eq!(third.has(SMALL), Ok(()));
        assert!(left(&one) || left(&two), "one of theirs has to leave for it");
        // Alone it may have any size, and is counted.
        greedy.clear();
        drop((others, third));
        let lone = request(&one);
        assert_eq!(lone.has(20 * SMALL), Ok(()));
        assert_eq!(request(&one).has(SMALL), Err(NoRoom));
        assert_eq!(request(&two).has(SMALL), Ok(()));
        drop(lone);
        assert_eq!(memory.lock().total, 0);
    }
}
