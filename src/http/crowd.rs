//! Who is in, and whose places they are: one peer's many connections must not keep the others out.
//!
//! There are so many places at a listener. While some are free, whoever comes gets one. When none is, a newcomer whose
//! peer has fewer than another gets one of that other's: of the peer with the most, first a connection between two
//! requests, the one that came first. A newcomer whose peer has the most itself is turned away, and who is in stays in.
//! So a peer alone may have all, and each of several at least its part.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::Notify;

use super::Share;
use super::guarded::Exchanges;
use super::held::Holder;

/// See the module page. Clones are one crowd.
#[derive(Debug, Clone)]
pub(super) struct Crowd(Arc<Inner>);

/// Connections that there may be at all listeners together, however few file descriptors are left.
const ALWAYS: usize = 16;

/// Those of all listeners: they share the process's file descriptors.
static ALL: Mutex<Vec<Weak<Inner>>> = Mutex::new(Vec::new());

#[derive(Debug)]
struct Inner {
    most: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    next: u64,
    /// By the order in which they came.
    places: BTreeMap<u64, Seat>,
    taken: BTreeMap<Share, usize>,
}

#[derive(Debug)]
struct Seat {
    share: Share,
    exchanges: Exchanges,
    leave: Arc<Notify>,
}

/// A place; given back when it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Crowd,
    share: Share,
    number: u64,
    leave: Arc<Notify>,
    /// What is said on it.
    pub exchanges: Exchanges,
}

/// What came of it when somebody wanted in.
#[derive(Debug)]
pub(super) enum Entry {
    /// There was room.
    In(Place),
    /// Another had to leave for it: whose connection, and how many that peer had.
    InsteadOf(Place, Share, usize),
    /// Nobody has more.
    Full,
}

impl Crowd {
    /// A crowd with so many places.
    pub(super) fn new(most: usize) -> Self {
        let inner = Arc::new(Inner { most, state: Mutex::default() });
        ALL.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&inner));
        Self(inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection of this peer wants in.
    pub(super) fn enter(&self, share: Share) -> Entry {
        let mut state = self.lock();
        if state.places.len() < self.0.most {
            return Entry::In(self.seat(&mut state, share));
        }
        let mine = state.taken.get(&share).copied().unwrap_or(0);
        match state.greediest() {
            Some((greedy, count)) if count >= mine + 2 => {
                state.send_away(greedy);
                Entry::InsteadOf(self.seat(&mut state, share), greedy, count)
            }
            _ => Entry::Full,
        }
    }

    /// The process has no file descriptors left: at whatever listener, the peer with the most gives one back, if it has
    /// several. False if none has.
    pub(super) fn make_room() -> bool {
        let mut crowds = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        crowds.retain(|crowd| crowd.strong_count() > 0);
        let crowds: Vec<Self> = crowds.iter().filter_map(Weak::upgrade).map(Self).collect();
        let most = |crowd: &&Self| crowd.lock().greediest().map_or(0, |(_, count)| count);
        let Some(crowd) = crowds.iter().max_by_key(most) else { return false };
        let mut state = crowd.lock();
        match state.greediest() {
            Some((greedy, 2..)) => {
                state.send_away(greedy);
                true
            }
            _ => false,
        }
    }

    /// Only few file descriptors are left: whether a newcomer of this peer may have one all the same. It may while few
    /// connections are open at all, or where another peer has more than it: that one gives one back.
    pub(super) fn makes_room_for(share: Share) -> bool {
        let crowds = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        let crowds: Vec<Self> = crowds.iter().filter_map(Weak::upgrade).map(Self).collect();
        let mut taken: BTreeMap<Share, usize> = BTreeMap::new();
        for crowd in &crowds {
            for (share, count) in &crowd.lock().taken {
                *taken.entry(*share).or_default() += count;
            }
        }
        if taken.values().sum::<usize>() < ALWAYS {
            return true;
        }
        let mine = taken.get(&share).copied().unwrap_or(0);
        let Some((&greedy, &count)) = taken.iter().max_by_key(|(_, count)| **count) else { return true };
        let theirs = |crowd: &&Self| crowd.lock().taken.get(&greedy).copied().unwrap_or(0);
        match crowds.iter().max_by_key(theirs) {
            Some(crowd) if count >= mine + 2 => {
                crowd.lock().send_away(greedy);
                true
            }
            _ => false,
        }
    }

    fn seat(&self, state: &mut State, share: Share) -> Place {
        let (number, leave, exchanges) = (state.next, Arc::<Notify>::default(), Exchanges::default());
        state.next += 1;
        let seat = Seat { share, exchanges: exchanges.clone(), leave: Arc::clone(&leave) };
        state.places.insert(number, seat);
        *state.taken.entry(share).or_default() += 1;
        Place { crowd: self.clone(), share, number, leave, exchanges }
    }
}

impl State {
    fn greediest(&self) -> Option<(Share, usize)> {
        self.taken.iter().map(|(share, count)| (*share, *count)).max_by_key(|(_, count)| *count)
    }

    fn send_away(&mut self, share: Share) {
        let theirs = || self.places.iter().filter(|(_, seat)| seat.share == share);
        let idle = theirs().find(|(_, seat)| !seat.exchanges.is_under_way()).or_else(|| theirs().next());
        if let Some((&number, seat)) = idle {
            seat.leave.notify_one();
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) {
        let Some(seat) = self.places.remove(&number) else { return };
        if let Some(count) = self.taken.get_mut(&seat.share) {
            *count -= 1;
            if *count == 0 {
                self.taken.remove(&seat.share);
            }
        }
    }
}

impl Place {
    /// Whose it is, and what tells it to end.
    pub(super) fn holder(&self) -> Holder {
        Holder { share: self.share, leave: Arc::clone(&self.leave) }
    }

    /// Waits until another is to have it.
    pub(super) async fn taken_away(&self) {
        self.leave.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.lock().remove(self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(crowd: &Crowd, uid: u32) -> Option<Place> {
        match crowd.enter(Share::User(uid)) {
            Entry::In(place) | Entry::InsteadOf(place, ..) => Some(place),
            Entry::Full => None,
        }
    }

    /// Whether it was told to leave.
    fn left(place: &Place) -> bool {
        let told = std::pin::pin!(place.taken_away());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        told.poll(&mut context).is_ready()
    }

    #[test]
    fn one_alone_may_have_all_and_gives_them_back_to_those_who_have_fewer() {
        let crowd = Crowd::new(10);
        let mut greedy: Vec<Place> = (0..10).map(|_| enter(&crowd, 1).unwrap()).collect();
        assert!(enter(&crowd, 1).is_none(), "who is in stays in");
        // The oldest is under way, so the next one leaves.
        let under_way = greedy[0].exchanges.begin();
        let others: Vec<Place> = (2..=6).map(|uid| enter(&crowd, uid).unwrap()).collect();
        let gone: Vec<bool> = greedy.iter().map(left).collect();
        assert_eq!(gone, [false, true, true, true, true, true, false, false, false, false]);
        assert!(others.iter().all(|place| !left(place)));
        drop(under_way);
        // Down to one more than the others have, and no further.
        let more: Vec<_> = (7..=9).map(|uid| enter(&crowd, uid).unwrap()).collect();
        assert_eq!(more.len(), 3);
        let _last = enter(&crowd, 10).unwrap();
        assert!(enter(&crowd, 11).is_none(), "each has one");
        // What was taken away is not given back twice.
        greedy.clear();
        assert_eq!(crowd.lock().places.len(), 9);
        assert_eq!(crowd.lock().taken.values().sum::<usize>(), 9);
    }

    #[test]
    fn who_is_always_under_way_leaves_too() {
        let crowd = Crowd::new(3);
        let busy: Vec<Place> = (0..3).map(|_| enter(&crowd, 1).unwrap()).collect();
        let _under_way: Vec<_> = busy.iter().map(|place| place.exchanges.begin()).collect();
        let _other = enter(&crowd, 2).unwrap();
        assert_eq!(busy.iter().filter(|place| left(place)).count(), 1);
    }
}
