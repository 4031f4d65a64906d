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

    #[test]
    fn a_slow_listener_makes_libvirt_wait_and_loses_nothing() {
        let queue = Arc::new(Queue::default());
        let pushed = Arc::new(AtomicUsize::new(0));
        let total = WAITING + 100;
        let writer = std::thread::spawn({
            let (queue, pushed) = (Arc::clone(&queue), Arc::clone(&pushed));
            move || {
                for number in 0..total {
                    queue.push(Item::Heard(heard(number)), || true);
                    pushed.fetch_add(1, Ordering::SeqCst);
                }
            }
        });
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while pushed.load(Ordering::SeqCst) < WAITING {
            assert!(std::time::Instant::now() < until, "the writer does not fill the queue");
            std::thread::yield_now();
        }
        queue.push_now([Item::Say(Told::StillDown { why: String::new(), attempts: 1 })]);
        let (mut events, mut at_said) = (0, None);
        while events < total {
            match queue.pop().unwrap() {
                Item::Heard(heard) => {
                    assert_eq!(heard.event.domain.name, events.to_string());
                    events += 1;
                }
                Item::Say(_) => at_said = Some(events),
            }
        }
        writer.join().unwrap();
        assert!(at_said.is_some_and(|at| at >= WAITING), "{at_said:?}");
    }

    #[test]
    fn closing_releases_whoever_waits() {
        let queue = Arc::new(Queue::default());
        for number in 0..WAITING {
            queue.push(Item::Heard(heard(number)), || true);
        }
        let writer = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.push(Item::Heard(heard(0)), || true)
        });
        queue.close();
        writer.join().unwrap();
        assert!(queue.pop().is_none());
    }
}
