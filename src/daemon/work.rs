//! Migrations and saves: how far each is, told from memory, so that a question about a hung one never hangs.
//!
//! Each runs on a thread of its own; another asks libvirt every second how far it is. More than [`AT_ONCE`] wait for
//! their turn, as in the original, and can be given up while they wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Semaphore, watch};
use whydown_core::cause::Cause;
use whydown_core::id::{DomainId, RunId};
use whydown_core::operation::Operation;
use whydown_core::snapshot::{DomainPublic, Status};
use whydown_libvirt::{Progress, Refusal};
use whydown_wire::{Work, WorkKind};

/// Under way at once. Each holds a connection to libvirt, of which there are sixteen for everything.
pub const AT_ONCE: usize = 6;

/// Past ones that are remembered.
const REMEMBERED: usize = 1024;

/// How often libvirt is asked how far one is.
pub const LOOK: std::time::Duration = std::time::Duration::from_secs(1);

#[derive(Debug)]
struct Entry {
    run: RunId,
    kind: WorkKind,
    waits: bool,
    work: Work,
}

/// All of them, by VM. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Works {
    entries: Arc<Mutex<HashMap<DomainId, Entry>>>,
    /// Places for those under way.
    pub room: Arc<Semaphore>,
    /// How many migrations have left this host's limit behind them.
    leaving: watch::Sender<usize>,
}

/// One migration among those that count for the limit; no longer when it is dropped.
#[derive(Debug)]
pub struct Leaving(watch::Sender<usize>);

impl Drop for Leaving {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}

impl Default for Works {
    fn default() -> Self {
        Self {
            entries: Arc::default(),
            room: Arc::new(Semaphore::new(AT_ONCE)),
            leaving: watch::channel(0).0,
        }
    }
}

impl Works {
    fn lock(&self) -> MutexGuard<'_, HashMap<DomainId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One is asked for.
    pub fn begin(&self, domain: DomainId, run: RunId, act: &Operation) {
        let kind = if matches!(act, Operation::Save) { WorkKind::Save } else { WorkKind::Migration };
        let mut entries = self.lock();
        if entries.len() >= REMEMBERED {
            entries.retain(|_, entry| matches!(entry.work, Work::Begun(_)));
        }
        entries.insert(domain, Entry { run, kind, waits: true, work: Work::Begun(0) });
    }

    /// Waits until fewer than `most` migrations are on their way, where its manager set a limit. All count, and each is
    /// held up by its own limit alone.
    pub async fn leave(&self, most: Option<u64>) -> Leaving {
        let mut changes = self.leaving.subscribe();
        let most = most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        loop {
            let left = self.leaving.send_if_modified(|count| {
                let free = *count < most;
                *count += usize::from(free);
                free
            });
            if left {
                return Leaving(self.leaving.clone());
            }
            changes.changed().await.expect("we hold the other end");
        }
    }

    /// Its turn has come; false if it was given up meanwhile.
    pub fn go(&self, domain: DomainId) -> bool {
        self.lock().get_mut(&domain).is_some_and(|entry| {
            entry.waits = false;
            matches!(entry.work, Work::Begun(_))
        })
    }

    /// Gives up one that waits for its turn; false if there is none.
    pub fn give_up(&self, domain: DomainId) -> bool {
        match self.lock().get_mut(&domain) {
            Some(entry) if entry.waits && matches!(entry.work, Work::Begun(_)) => {
                entry.work = Work::Cancelled;
                true
            }
            _ => false,
        }
    }

    /// libvirt was asked how far it is; false when there is nothing more to ask.
    pub fn looked(&self, domain: DomainId, progress: Option<Progress>) -> bool {
        let mut entries = self.lock();
        let Some(Entry { work: Work::Begun(percent), .. }) = entries.get_mut(&domain) else { return false };
        if let Some(Progress { total, remaining }) = progress.filter(|progress| progress.total > 0) {
            let done = u128::from(total.saturating_sub(remaining)) * 100 / u128::from(total);
            // The end is told by its end; and memory that changes anew must not let it go back.
            *percent = (*percent).max(u8::try_from(done).unwrap_or(100).min(99));
        }
        true
    }

    /// It is over.
    pub fn end(&self, domain: DomainId, done: &Result<(), Refusal>) {
        if let Some(entry) = self.lock().get_mut(&domain).filter(|e| matches!(e.work, Work::Begun(_))) {
            entry.work = match done {
                Ok(()) => Work::Done(entry.kind),
                Err(refusal) if refusal.is_aborted() => Work::Cancelled,
                Err(refusal) => Work::Failed(refusal.to_string()),
            };
        }
    }

    /// How far the one of this run is, in percent, while it is under way.
    pub fn percent(&self, domain: DomainId, run: RunId) -> Option<u8> {
        match self.lock().get(&domain) {
            Some(Entry { run: its, work: Work::Begun(percent), .. }) if *its == run => Some(*percent),
            _ => None,
        }
    }

    /// What a manager is told of a VM. One that somebody else moves or saves is on its way, by an unknown part.
    pub fn of(&self, vm: &DomainPublic) -> Work {
        match vm.ending.as_ref().map(|ending| ending.verdict.cause) {
            Some(Cause::MigratedAway) => return Work::Done(WorkKind::Migration),
            Some(Cause::ManagedSaved | Cause::SavedToFile) => return Work::Done(WorkKind::Save),
            _ => {}
        }
        let entries = self.lock();
        let entry = entries.get(&vm.domain).filter(|entry| entry.run == vm.run);
        let others = match vm.status {
            Status::MigrationSource | Status::Saving => Work::Begun(0),
            _ => Work::None,
        };
        entry.map_or(others, |entry| entry.work.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use whydown_core::time::Wall;

    const VM: DomainId = DomainId::from_bytes([7; 16]);

    fn vm(run: u64) -> DomainPublic {
        DomainPublic {
            domain: VM,
            name: "vm".into(),
            run: RunId(run),
            status: Status::Up,
            started: Wall(0),
            pid: None,
            io_error: None,
            paused_by: None,
            watchdog: None,
            ending: None,
            durable: true,
            status_time: 0,
            made: None,
        }
    }

    #[test]
    fn progress_rises_and_only_the_end_is_the_whole() {
        let works = Works::default();
        assert!(!works.looked(VM, None));
        works.begin(VM, RunId(1), &Operation::Save);
        assert!(works.go(VM));
        let look = |total, remaining| {
            assert!(works.looked(VM, Some(Progress { total, remaining })));
            works.of(&vm(1))
        };
        assert_eq!(look(200, 100), Work::Begun(50));
        assert_eq!(look(200, 150), Work::Begun(50));
        assert_eq!((works.percent(VM, RunId(1)), works.percent(VM, RunId(2))), (Some(50), None));
        assert_eq!(look(u64::MAX, 0), Work::Begun(99));
        assert_eq!(look(0, 0), Work::Begun(99));
        works.end(VM, &Ok(()));
        assert_eq!(works.percent(VM, RunId(1)), None);
        assert_eq!(works.of(&vm(1)), Work::Done(WorkKind::Save));
        assert!(!works.looked(VM, None));
        assert_eq!(works.of(&vm(2)), Work::None, "the next run has not moved");
        let others = DomainPublic { status: Status::MigrationSource, ..vm(2) };
        assert_eq!(works.of(&others), Work::Begun(0), "another client moves it");
    }

    #[test]
    fn one_that_waits_can_be_given_up_and_then_never_goes() {
        let works = Works::default();
        works.begin(VM, RunId(1), &Operation::Migrate(Default::default()));
        assert!(works.give_up(VM));
        assert!(!works.give_up(VM));
        assert!(!works.go(VM));
        assert_eq!(works.of(&vm(1)), Work::Cancelled);
        works.begin(VM, RunId(1), &Operation::Migrate(Default::default()));
        assert!(works.go(VM));
        assert!(!works.give_up(VM), "libvirt must end it");
    }

    #[tokio::test]
    async fn a_migration_waits_until_fewer_than_its_limit_are_on_their_way() {
        let works = Works::default();
        let (first, second) = (works.leave(None).await, works.leave(Some(2)).await);
        let other = works.clone();
        let third = tokio::spawn(async move { other.leave(Some(2)).await });
        tokio::task::yield_now().await;
        assert!(!third.is_finished(), "two are on their way");
        let unlimited = works.leave(None).await;
        drop(first);
        tokio::task::yield_now().await;
        assert!(!third.is_finished(), "the one without a limit counts");
        drop((second, unlimited));
        let third = third.await.expect("no panic");
        assert_eq!(*works.leaving.borrow(), 1);
        drop(third);
        assert_eq!(*works.leaving.borrow(), 0);
    }

    #[test]
    fn a_failure_keeps_libvirts_text_and_the_memory_is_bounded() {
        let works = Works::default();
        for n in 0..3 * REMEMBERED {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
            let domain = DomainId::from_bytes(bytes);
            works.begin(domain, RunId(1), &Operation::Save);
            works.end(domain, &Err(Refusal::Refused { code: 1, text: "no room".into() }));
        }
        assert!(works.lock().len() <= REMEMBERED);
        works.begin(VM, RunId(1), &Operation::Save);
        works.end(VM, &Err(Refusal::Refused { code: 1, text: "no room".into() }));
        assert_eq!(works.of(&vm(1)), Work::Failed("no room".into()));
    }
}
