//! Log lines that peers cause: so many of each, and then only a count of the rest.
//!
//! The journal takes so many lines of a service in a while and drops the rest, whatever they say. A peer that sends
//! nonsense must not use that up: what we say of VMs would be dropped with it.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::Duration;

use governor::clock::MonotonicClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};

use super::Share;

/// Lines of one peer at once, and then one in [`ONE_EVERY`].
const AT_ONCE: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// Lines of all peers at once, and then one in a tenth of [`ONE_EVERY`]: peers may be many.
const ALL_AT_ONCE: NonZeroU32 = NonZeroU32::new(200).unwrap();

/// Between two lines of a peer that has used up its first ones.
const ONE_EVERY: Duration = Duration::from_secs(3);

/// Peers whose lines are counted one by one; those of more are counted together.
const COUNTED: usize = 64;

type Keyed = RateLimiter<Share, HashMapStateStore<Share>, MonotonicClock, NoOpMiddleware<std::time::Instant>>;
type All = RateLimiter<
    governor::state::NotKeyed,
    governor::state::InMemoryState,
    MonotonicClock,
    NoOpMiddleware<std::time::Instant>,
>;

static NOISE: LazyLock<Noise> = LazyLock::new(Noise::new);

struct Noise {
    each: Keyed,
    all: All,
    left_out: Mutex<LeftOut>,
}

#[derive(Default)]
struct LeftOut {
    each: BTreeMap<Share, u64>,
    others: u64,
}

impl Noise {
    fn new() -> Self {
        let quota =
            |every, burst| Quota::with_period(every).expect("it is longer than nothing").allow_burst(burst);
        Self {
            each: RateLimiter::hashmap_with_clock(quota(ONE_EVERY, AT_ONCE), MonotonicClock),
            all: RateLimiter::direct_with_clock(quota(ONE_EVERY / 10, ALL_AT_ONCE), MonotonicClock),
            left_out: Mutex::default(),
        }
    }

    fn may_say(&self, share: Share) -> bool {
        let may = self.each.check_key(&share).is_ok() && self.all.check().is_ok();
        if !may {
            let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
            if left_out.each.len() < COUNTED || left_out.each.contains_key(&share) {
                *left_out.each.entry(share).or_default() += 1;
            } else {
                left_out.others += 1;
            }
        }
        may
    }

    /// What was left out since the last time, and forgets peers that were quiet.
    fn left_out(&self) -> LeftOut {
        self.each.retain_recent();
        self.each.shrink_to_fit();
        std::mem::take(&mut *self.left_out.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Whether a line may be logged that this peer causes; if not, it is counted.
pub fn may_say(share: Share) -> bool {
    NOISE.may_say(share)
}

/// Says how many lines were left out. To be called now and then.
pub(super) fn say_what_was_left_out() {
    let left_out = NOISE.left_out();
    for (share, count) in left_out.each {
        tracing::warn!("… and {count} more lines on what came from {share}");
    }
    if left_out.others > 0 {
        tracing::warn!("… and {} more lines on what came from others", left_out.others);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_has_few_lines_and_the_rest_is_counted() {
        let noise = Noise::new();
        let said = (0..35_000).filter(|_| noise.may_say(Share::User(1))).count();
        let most = AT_ONCE.get() as usize;
        assert!((most..most + 10).contains(&said), "{said}");
        assert!(noise.may_say(Share::User(2)), "another still has all of its own");
        let left_out = noise.left_out();
        assert_eq!(left_out.each[&Share::User(1)], 35_000 - said as u64);
        assert_eq!((left_out.each.len(), left_out.others), (1, 0));
        assert!(noise.left_out().each.is_empty(), "it is said once");
    }

    #[test]
    fn many_peers_together_have_few_lines_too() {
        let noise = Noise::new();
        let said = (0..100_000).filter(|uid| noise.may_say(Share::User(*uid))).count();
        let most = ALL_AT_ONCE.get() as usize;
        assert!((most..most + 50).contains(&said), "{said}");
        let left_out = noise.left_out();
        assert_eq!(left_out.each.len(), COUNTED);
        assert_eq!(left_out.each.values().sum::<u64>() + left_out.others, 100_000 - said as u64);
    }
}
