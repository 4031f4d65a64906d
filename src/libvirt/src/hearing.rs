//! The ear of one session: keeps what it hears until the session's listing is told, then passes everything on, and falls
//! deaf when the session is over, so that no event of a lost link is ever taken for one of the next.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use whydown_core::hypervisor::{DomainRef, Happening, HostEvent, Listing};
use whydown_core::id::DomainId;
use whydown_core::time::Wall;

use crate::ffi::register::{CloseReason, Ear};
use crate::process::BootTicks;
use crate::queue::{Heard, Item, Queue};
use crate::settings::Told;

/// Events kept while one listing is taken. A listing takes well below a second and libvirt gives about a thousand
/// events a second; more than this means that the listing hangs.
const KEPT: usize = 64 * 1024;

/// Wakes the link's thread.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    pub(crate) fn ring(&self) {
        *self.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    /// Waits until it rings, or rang since the last wait, for at most `limit`.
    pub(crate) fn wait(&self, limit: Duration) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut rung, _) = self
            .changed
            .wait_timeout_while(rung, limit, |rung| !*rung)
            .unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }
}

#[derive(Debug)]
enum Phase {
    /// The listing is not told yet.
    Keeping { heard: Vec<Heard>, overflowed: bool },
    /// Everything goes to the queue.
    Live,
}

/// What changed while a listing was taken.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Domains that began or ended a run since the session began: their events are told after the listing, and would
    /// be taken for news about the run that the listing shows.
    pub(crate) runs: BTreeSet<DomainId>,
    /// Domains whose state changed since the given mark: the listing may show them before or after that.
    pub(crate) states: BTreeSet<DomainId>,
}

/// The ear of one session.
#[derive(Debug)]
pub(crate) struct Hearing {
    phase: Mutex<Phase>,
    deaf: AtomicBool,
    closed: Mutex<Option<(CloseReason, Wall)>>,
    last_heard: AtomicI64,
    queue: Arc<Queue>,
    bell: Arc<Bell>,
    clock: fn() -> Wall,
}

impl Hearing {
    pub(crate) fn new(queue: Arc<Queue>, bell: Arc<Bell>, clock: fn() -> Wall) -> Self {
        Self {
            phase: Mutex::new(Phase::Keeping { heard: Vec::new(), overflowed: false }),
            deaf: AtomicBool::new(false),
            closed: Mutex::new(None),
            last_heard: AtomicI64::new(i64::MIN),
            queue,
            bell,
            clock,
        }
    }

    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many events were kept so far: a mark for [`Hearing::changes_since`].
    pub(crate) fn mark(&self) -> usize {
        match &*self.phase() {
            Phase::Keeping { heard, .. } => heard.len(),
            Phase::Live => 0,
        }
    }

    /// What the kept events changed. `None` when there were too many to keep: the listing must be given up.
    pub(crate) fn changes_since(&self, mark: usize) -> Option<Changes> {
        match &*self.phase() {
            Phase::Keeping { overflowed: true, .. } => None,
            Phase::Keeping { heard, .. } => {
                let ids = |part: &[Heard], wanted: fn(&Happening) -> bool| {
                    part.iter().filter(|h| wanted(&h.event.what)).map(|h| h.event.domain.id).collect()
                };
                Some(Changes { runs: ids(heard, bounds_a_run), states: ids(&heard[mark..], changes_state) })
            }
            Phase::Live => Some(Changes::default()),
        }
    }

    /// Tells the listing and what was kept behind it, and passes everything on from now.
    pub(crate) fn go_live(&self, listing: Listing) {
        let mut phase = self.phase();
        let kept = match std::mem::replace(&mut *phase, Phase::Live) {
            Phase::Keeping { heard, .. } => heard,
            Phase::Live => Vec::new(),
        };
        let listing = std::iter::once(Item::Say(Told::LinkUp(listing)));
        // Still under the lock: an event that comes now waits for it and finds its place behind.
        self.queue.push_now(listing.chain(kept.into_iter().map(Item::Heard)));
    }

    /// Nothing is passed on any more.
    pub(crate) fn fall_deaf(&self) {
        self.deaf.store(true, Ordering::SeqCst);
    }

    /// Why and when libvirt closed the connection, if it did.
    pub(crate) fn closed(&self) -> Option<(CloseReason, Wall)> {
        *self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the last event came.
    pub(crate) fn last_heard(&self) -> Option<Wall> {
        let last = self.last_heard.load(Ordering::SeqCst);
        (last != i64::MIN).then_some(Wall(last))
    }
}

impl Ear for Hearing {
    fn hear(&self, domain: DomainRef, what: Happening) {
        let (at, arrived) = ((self.clock)(), BootTicks::now());
        if self.deaf.load(Ordering::SeqCst) {
            return;
        }
        self.last_heard.store(at.0, Ordering::SeqCst);
        let heard = Heard { event: HostEvent { domain, at, what, process: None }, arrived };
        if let Phase::Keeping { heard: kept, overflowed } = &mut *self.phase() {
            if kept.len() < KEPT {
                kept.push(heard);
            } else {
                *overflowed = true;
            }
            return;
        }
        // Outside the lock, as this may wait. The loop's one thread keeps the order.
        self.queue.push(Item::Heard(heard), || !self.deaf.load(Ordering::SeqCst));
    }

    fn devices(&self, domain: DomainId) {
        let live = matches!(*self.phase(), Phase::Live);
        if live && !self.deaf.load(Ordering::SeqCst) {
            let word = Item::Say(Told::Devices(domain));
            self.queue.push(word, || !self.deaf.load(Ordering::SeqCst));
        }
    }

    fn closed(&self, reason: CloseReason) {
        let at = (self.clock)();
        self.closed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((reason, at));
        self.bell.ring();
    }
}

/// Whether it begins or ends a run.
fn bounds_a_run(what: &Happening) -> bool {
    matches!(what, Happening::Started(_) | Happening::Stopped(_))
}

/// Whether a listing taken before it may show another state than one taken after it.
fn changes_state(what: &Happening) -> bool {
    match what {
        Happening::Defined
        | Happening::Undefined { .. }
        | Happening::Started(_)
        | Happening::Suspended(_)
        | Happening::Resumed(_)
        | Happening::Stopped(_)
        | Happening::ShutdownBegan(_)
        | Happening::PmSuspended(_)
        | Happening::GuestCrashed(_) => true,
        Happening::Rebooted
        | Happening::Watchdog(_)
        | Happening::IoError { .. }
        | Happening::ControlError
        | Happening::JobCompleted(_)
        | Happening::Agent { .. }
        | Happening::MemoryFailure { .. }
        | Happening::QemuShutdown { .. }
        | Happening::QemuReset { .. }
        | Happening::QemuPowerdown
        | Happening::QemuPanicked => false,
    }
}

#[cfg(test)]
mod tests {
    use whydown_core::hypervisor::{ResumeDetail, StopDetail};

    use super::*;

    fn domain(number: u8) -> DomainRef {
        DomainRef { id: DomainId::from_bytes([number; 16]), name: number.to_string(), libvirt_id: None }
    }

    fn next(queue: &Queue) -> Told {
        match queue.pop().unwrap() {
            Item::Heard(heard) => Told::Event(heard.event),
            Item::Say(told) => told,
        }
    }

    fn ear() -> (Arc<Queue>, Hearing) {
        let queue = Arc::new(Queue::default());
        let hearing = Hearing::new(Arc::clone(&queue), Arc::default(), || Wall(7));
        (queue, hearing)
    }

    #[test]
    fn what_is_heard_before_the_listing_is_told_after_it_and_before_what_comes_later() {
        let (queue, hearing) = ear();
        hearing.hear(domain(1), Happening::Stopped(StopDetail::Failed));
        hearing.go_live(Listing::default());
        hearing.hear(domain(2), Happening::Rebooted);
        assert_eq!(next(&queue), Told::LinkUp(Listing::default()));
        assert!(
            matches!(next(&queue), Told::Event(event) if event.domain == domain(1) && event.at == Wall(7))
        );
        assert!(matches!(next(&queue), Told::Event(event) if event.domain == domain(2)));
    }

    #[test]
    fn a_run_that_ended_or_began_is_changing_for_good_and_another_change_only_until_the_next_listing() {
        let (_, hearing) = ear();
        hearing.hear(domain(1), Happening::Stopped(StopDetail::Failed));
        hearing.hear(domain(2), Happening::Resumed(ResumeDetail::Unpaused));
        hearing.hear(domain(3), Happening::Rebooted);
        let first = hearing.changes_since(0).unwrap();
        assert_eq!(first.runs, [domain(1).id].into());
        assert_eq!(first.states, [domain(1).id, domain(2).id].into());
        let second = hearing.changes_since(hearing.mark()).unwrap();
        assert_eq!(second, Changes { runs: first.runs, states: BTreeSet::new() });
    }

    #[test]
    fn more_than_can_be_kept_gives_the_listing_up() {
        let (_, hearing) = ear();
        for _ in 0..KEPT {
            hearing.hear(domain(1), Happening::Rebooted);
        }
        assert!(hearing.changes_since(0).is_some());
        hearing.hear(domain(1), Happening::Rebooted);
        assert_eq!(hearing.changes_since(0), None);
    }

    #[test]
    fn a_session_that_is_over_says_nothing_more() {
        let (queue, hearing) = ear();
        hearing.go_live(Listing::default());
        hearing.fall_deaf();
        hearing.hear(domain(1), Happening::Rebooted);
        queue.push_now([Item::Say(Told::StillDown { why: String::new(), attempts: 9 })]);
        assert_eq!(next(&queue), Told::LinkUp(Listing::default()));
        assert!(matches!(next(&queue), Told::StillDown { attempts: 9, .. }));
    }
}
