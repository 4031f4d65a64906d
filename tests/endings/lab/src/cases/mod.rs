//! All cases, by what ends the VM; and what is not among them.

mod absent;
mod asked;
mod disk;
pub(crate) mod emulator;
mod forged;
mod guest;
pub(crate) mod internal;
mod limits;
mod linux;
mod memory;
mod others;
mod pair;
mod process;
mod saved;
mod snapshots;
mod start;
mod traced;

use crate::case::{Case, Certainty, Expect, Kind};

/// Every case, in the order of the page.
pub fn all() -> Vec<Case> {
    let mut all = guest::cases();
    all.extend(linux::cases());
    all.extend(asked::cases());
    all.extend(others::cases());
    all.extend(snapshots::cases());
    all.extend(process::cases());
    all.extend(traced::cases());
    all.extend(memory::cases());
    all.extend(limits::cases());
    all.extend(emulator::cases());
    all.extend(forged::cases());
    all.extend(internal::cases());
    all.extend(disk::cases());
    all.extend(saved::cases());
    all.extend(start::cases());
    all.extend(pair::cases());
    all.extend(absent::cases());
    all
}

/// Known ways that no case covers yet, each with what it needs.
pub const NOT_COVERED: &[(&str, &str)] = &[
    ("lack of memory on the whole host", "a host that may run out of it; in a control group it is covered"),
    ("a KVM internal error that KVM itself has", "hardware virtualisation; what follows from one is covered"),
    ("a real shutdown by systemd with its scopes", "a whole host of its own, as `tests/host` has one"),
];

fn certain(cause: &'static str) -> Expect {
    Expect::Ending(cause, Certainty::Certain)
}

fn probable(cause: &'static str) -> Expect {
    Expect::Ending(cause, Certainty::Probable)
}

fn none(_: Kind) -> Expect {
    Expect::NoEnding
}

fn nothing(_: Kind) -> Expect {
    Expect::Nothing
}
