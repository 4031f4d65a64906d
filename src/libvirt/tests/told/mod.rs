//! A listener for tests: keeps what it is told and waits for more, always with a limit.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use whydown_core::hypervisor::{Happening, HostEvent, Listing};
use whydown_core::id::DomainId;
use whydown_core::time::Wall;
use whydown_libvirt::{Hypervisor, Settings, Told};

/// Far above what anything here takes, so that a loaded machine does not fail a test.
pub const LIMIT: Duration = Duration::from_secs(60);

pub fn clock() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    Wall(i64::try_from(since.as_nanos()).expect("a clock before 2262"))
}

#[derive(Clone, Default)]
pub struct Ears {
    inner: Arc<(Mutex<Vec<Told>>, Condvar)>,
}

impl Ears {
    pub fn listener(&self) -> impl Fn(Told) + Send + Sync + 'static {
        let inner = Arc::clone(&self.inner);
        move |told| {
            inner.0.lock().unwrap().push(told);
            inner.1.notify_all();
        }
    }

    pub fn all(&self) -> Vec<Told> {
        self.inner.0.lock().unwrap().clone()
    }

    /// Waits until `find` finds something in all that was told.
    pub fn wait<T>(&self, what: &str, mut find: impl FnMut(&[Told]) -> Option<T>) -> T {
        let until = Instant::now() + LIMIT;
        let mut told = self.inner.0.lock().unwrap();
        loop {
            if let Some(found) = find(&told) {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let last: Vec<_> = told.iter().rev().take(20).collect();
                panic!("no {what} within {LIMIT:?}; the last of {} told: {last:#?}", told.len());
            }
            told = self.inner.1.wait_timeout(told, left).unwrap().0;
        }
    }

    /// The listing of the `number`th time (from 1) that the link came up.
    pub fn link_up(&self, number: usize) -> Listing {
        self.wait("LinkUp", |told| {
            told.iter()
                .filter_map(|t| match t {
                    Told::LinkUp(listing) => Some(listing.clone()),
                    _ => None,
                })
                .nth(number - 1)
        })
    }

    /// The events of one domain so far.
    pub fn events(&self, id: DomainId) -> Vec<HostEvent> {
        events_of(&self.all(), id)
    }

    /// Waits until the domain's happenings hold `wanted`, and returns all of them.
    pub fn happenings(&self, id: DomainId, wanted: &Happening) -> Vec<Happening> {
        self.wait(&format!("{wanted:?} of {id}"), |told| {
            let all: Vec<_> = events_of(told, id).into_iter().map(|e| e.what).collect();
            all.contains(wanted).then_some(all)
        })
    }
}

fn events_of(told: &[Told], id: DomainId) -> Vec<HostEvent> {
    told.iter()
        .filter_map(|t| match t {
            Told::Event(event) if event.domain.id == id => Some(event.clone()),
            _ => None,
        })
        .collect()
}

/// A started hypervisor, stopped at the end of the test.
pub struct Connected {
    pub hypervisor: Hypervisor,
    pub ears: Ears,
}

impl Connected {
    pub fn to(settings: Settings) -> Self {
        let ears = Ears::default();
        let hypervisor = Hypervisor::start(settings, ears.listener());
        Self { hypervisor, ears }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let stopped = self.hypervisor.stop();
        if !std::thread::panicking() {
            assert!(stopped, "the hypervisor did not stop");
        }
    }
}
