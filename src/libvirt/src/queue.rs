//! What waits to be told, in order. Events stop at a bound, and then libvirt's loop waits: libvirt queues, and nothing is
//! lost. News of the link always find a place; there are few of them.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use whydown_core::hypervisor::HostEvent;

use crate::process::BootTicks;
use crate::settings::Told;

/// Events that wait here, about 300 bytes each, before libvirt has to queue.
const WAITING: usize = 16 * 1024;

/// An event with the moment of its arrival on the scale of process start times.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) event: HostEvent,
    pub(crate) arrived: BootTicks,
}

/// Something to be told.
#[derive(Debug)]
pub(crate) enum Item {
    Heard(Heard),
    Say(Told),
}

#[derive(Debug, Default)]
struct State {
    items: VecDeque<Item>,
    closed: bool,
}

/// The queue between libvirt's loop and the teller.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change of the state is a single step, so a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an event, or a word on devices, waiting for a place; forgets it if the queue is closed or `wanted` says no by then.
    pub(crate) fn push(&self, item: Item, wanted: impl Fn() -> bool) {
        let mut state = self.lock();
        while state.items.len() >= WAITING && !state.closed && wanted() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if !state.closed && wanted() {
            state.items.push_back(item);
            self.changed.notify_all();
        }
    }

    /// Adds these at once, beyond the bound if need be.
    pub(crate) fn push_now(&self, items: impl IntoIterator<Item = Item>) {
        let mut state = self.lock();
        if !state.closed {
            state.items.extend(items);
            self.changed.notify_all();
        }
    }

    /// The next one; waits for it. `None` when the queue is closed.
    pub(crate) fn pop(&self) -> Option<Item> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(item) = state.items.pop_front() {
                self.changed.notify_all();
                return Some(item);
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Forgets what waits and takes nothing more.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.items.clear();
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::{Sender, channel};

    use whydown_core::hypervisor::{DomainRef, Happening};
    use whydown_core::id::DomainId;
    use whydown_core::time::Wall;

    use super::*;

    fn heard(number: usize) -> Heard {
        let domain =
            DomainRef { id: DomainId::from_bytes([0; 16]), name: number.to_string(), libvirt_id: None };
        let event = HostEvent { domain, at: Wall(0), what: Happening::Rebooted, process: None };
        Heard { event, arrived: BootTicks::now() }
    }

    /// Says when it is asked by one who waits, or is about to: there was no place.
    fn tells(full: &Sender<()>) -> impl Fn() -> bool {
        let full = full.clone();
        move || full.send(()).is_ok()
    }

    #[test]
    fn a_slow_listener_makes_libvirt_wait_and_loses_nothing() {
        let queue = Arc::new(Queue::default());
        let pushed = Arc::new(AtomicUsize::new(0));
        let (full, is_full) = channel();
        let total = 3 * WAITING;
        let writer = std::thread::spawn({
            let (queue, pushed) = (Arc::clone(&queue), Arc::clone(&pushed));
            move || {
                for number in 0..WAITING {
                    queue.push(Item::Heard(heard(number)), || true);
                }
                pushed.store(WAITING, Ordering::SeqCst);
                for number in WAITING..total {
                    queue.push(Item::Heard(heard(number)), tells(&full));
                    pushed.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        is_full.recv().unwrap();
        queue.push_now([Item::Say(Told::StillDown { why: String::new(), attempts: 1 })]);
        let (mut events, mut at_said) = (0, None);
        while events < total {
            // Each event that is taken makes room for one.
            let ahead = pushed.load(Ordering::SeqCst);
            assert!(ahead <= events + WAITING, "{ahead} were pushed when {events} were taken");
            match queue.pop().unwrap() {
                Item::Heard(heard) => {
                    assert_eq!(heard.event.domain.name, events.to_string());
                    events += 1;
                }
                Item::Say(_) => at_said = Some(events),
            }
        }
        writer.join().unwrap();
        assert_eq!(
            at_said,
            Some(WAITING),
            "news of the link do not wait, and events that come later stand behind"
        );
        queue.close();
        assert!(queue.pop().is_none(), "each came once");
    }

    #[test]
    fn closing_releases_whoever_waits() {
        let queue = Arc::new(Queue::default());
        for number in 0..WAITING {
            queue.push(Item::Heard(heard(number)), || true);
        }
        let (full, is_full) = channel();
        let writer = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.push(Item::Heard(heard(WAITING)), tells(&full))
        });
        // It is asked with the queue's lock, which it gives back only by waiting.
        is_full.recv().unwrap();
        assert_eq!(queue.lock().items.len(), WAITING, "it waits");
        queue.close();
        writer.join().unwrap();
        assert!(queue.pop().is_none());
        queue.push(Item::Heard(heard(0)), || true);
        assert!(queue.pop().is_none(), "nothing comes into a queue that is closed");
    }

    #[test]
    fn what_is_not_wanted_any_more_is_forgotten() {
        let queue = Queue::default();
        queue.push(Item::Heard(heard(0)), || false);
        for number in 0..WAITING {
            queue.push(Item::Heard(heard(number)), || true);
        }
        queue.push(Item::Heard(heard(WAITING)), || false);
        assert_eq!(queue.lock().items.len(), WAITING);
    }
}
