//! Bounded polling: the only way in which the lab waits for another process.

use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Pause between two looks at a condition. Short against a machine's start (250 ms), long against a look (1 ms).
pub(crate) const POLL: Duration = Duration::from_millis(10);

/// Looks until `look` gives a value, for at most `limit`. `what` completes the sentence "... did not happen".
///
/// # Errors
///
/// [`Error::TimedOut`] when the limit has passed.
pub fn wait_for<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    try_wait_for(what, limit, || Ok(look()))
}

/// As [`wait_for`], for a look that may itself fail; its error ends the wait.
pub(crate) fn try_wait_for<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let until = Instant::now() + limit;
    loop {
        // The deadline is read before the look: a look that starts in time counts, however slow the machine is.
        let last = Instant::now() >= until;
        if let Some(found) = look()? {
            return Ok(found);
        }
        if last {
            return Err(Error::TimedOut { what: what.into(), limit, seen: String::new() });
        }
        std::thread::sleep(POLL);
    }
}

/// Waits until `condition` holds, for at most `limit`; for tests.
///
/// # Panics
///
/// When the limit has passed, with `what` in the message and at the caller's line.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    if let Err(error) = wait_for(what, limit, || condition().then_some(())) {
        panic!("{error}");
    }
}
