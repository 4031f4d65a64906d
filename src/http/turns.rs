//! Turns at what few may do at once: each peer waits behind its own, so that nobody waits behind the many of another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Share;

/// See the module page.
#[derive(Debug)]
pub struct Turns {
    all: Arc<Semaphore>,
    /// At once, of one peer.
    each: usize,
    shares: Mutex<BTreeMap<Share, Arc<Semaphore>>>,
}

/// A turn; it ends when it is dropped.
#[derive(Debug)]
pub struct Turn {
    _all: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
}

impl Turns {
    /// So many at once, and of one peer.
    pub fn new(all: usize, each: usize) -> Self {
        Self { all: Arc::new(Semaphore::new(all)), each, shares: Mutex::default() }
    }

    /// Waits for a turn.
    pub async fn take(&self, share: Share) -> Turn {
        let own = {
            let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
            shares.retain(|_, own| Arc::strong_count(own) > 1);
            Arc::clone(shares.entry(share).or_insert_with(|| Arc::new(Semaphore::new(self.each))))
        };
        // First among one's own: before the one for all stand only as many as may go in.
        let own = own.acquire_owned().await.expect("nobody closes it");
        let all = Arc::clone(&self.all).acquire_owned().await.expect("nobody closes it");
        Turn { _all: all, _own: own }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;

    #[tokio::test]
    async fn nobody_waits_behind_the_many_of_another() {
        let turns = Arc::new(Turns::new(1, 1));
        let under_way = turns.take(Share::User(1)).await;
        let mut many: Vec<_> = (0..100).map(|_| Box::pin(turns.take(Share::User(1)))).collect();
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(many.iter_mut().all(|next| next.as_mut().poll(&mut context).is_pending()));
        let mut other = Box::pin(turns.take(Share::User(2)));
        assert!(other.as_mut().poll(&mut context).is_pending(), "one at a time");
        drop(under_way);
        // Of the hundred at most one stands before it.
        let first = many.iter_mut().position(|next| next.as_mut().poll(&mut context).is_ready());
        if let Some(first) = first {
            drop(many.swap_remove(first));
        }
        drop(other.await);
        drop(many);
        drop(turns.take(Share::User(3)).await);
        assert_eq!(turns.shares.lock().unwrap().len(), 1, "those who are gone are forgotten");
    }
}
