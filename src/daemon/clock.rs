//! The one place of the daemon that reads clocks.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use whydown_core::time::{Mono, Now, Wall};

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The wall clock.
pub fn wall() -> Wall {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Wall(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

/// Both clocks.
pub fn now() -> Now {
    Now { mono: Mono(u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)), wall: wall() }
}

/// The runtime's moment of an engine deadline.
pub fn instant_of(at: Mono) -> tokio::time::Instant {
    tokio::time::Instant::from_std(*START + std::time::Duration::from_nanos(at.0))
}
