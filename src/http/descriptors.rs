//! File descriptors: connections leave some for the rest of the daemon. libvirt's client ends the whole process where it
//! gets none, and the ledger and the witnesses need theirs.

use std::os::fd::RawFd;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What connections leave: some for each call into libvirt that is under way, for the ledger's file and its readers, and for
/// what is read of processes and logs.
const RESERVE: u64 = 128;

/// The least with which there is something to give away.
const LEAST: u64 = 256;

/// The process may open too few files.
#[derive(Debug, thiserror::Error)]
#[error(
    "the limit of open files is {limit}, and has to be at least {LEAST}: {RESERVE} are kept for libvirt and the ledger \
     (LimitNOFILE= of the unit, or ulimit -n)"
)]
pub struct TooFewFiles {
    limit: u64,
}

/// Takes as many as the system lets this process have.
///
/// # Errors
/// [`TooFewFiles`] with the limit.
pub fn take_all_files() -> Result<(), TooFewFiles> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
    enough(limit())
}

fn enough(limit: u64) -> Result<(), TooFewFiles> {
    if limit < LEAST { Err(TooFewFiles { limit }) } else { Ok(()) }
}

/// As it is now: it may be changed from outside at any time.
fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Whether a new descriptor is one of those that connections leave. The kernel gives the lowest number that is free, so the
/// number says how many are taken.
pub(super) fn is_reserved(descriptor: RawFd) -> bool {
    is_reserved_of(descriptor, limit())
}

fn is_reserved_of(descriptor: RawFd, limit: u64) -> bool {
    u64::try_from(descriptor).is_ok_and(|number| number.saturating_add(RESERVE) >= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_are_reserved_and_too_few_are_an_error_with_the_number() {
        assert!(!is_reserved_of(871, 1000) && is_reserved_of(872, 1000) && is_reserved_of(999, 1000));
        assert!(!is_reserved_of(100_000, u64::MAX));
        assert!(enough(LEAST).is_ok());
        let said = enough(255).unwrap_err().to_string();
        assert!(said.contains("is 255,") && said.contains("LimitNOFILE="), "{said}");
    }
}
