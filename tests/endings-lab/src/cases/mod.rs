//! All cases, by what ends the VM; and what is not among them.

mod absent;
mod asked;
mod disk;
mod guest;
mod others;
mod pair;
mod process;
mod saved;
mod start;

use crate::case::{Case, Certainty, Expect, Kind};

/// Every case, in the order of the page.
pub fn all() -> Vec<Case> {
    let mut all = guest::cases();
    all.extend(asked::cases());
    all.extend(others::cases());
    all.extend(process::cases());
    all.extend(disk::cases());
    all.extend(saved::cases());
    all.extend(start::cases());
    all.extend(pair::cases());
    all.extend(absent::cases());
    all
}

/// Known ways that no case covers yet, each with what it needs.
pub const NOT_COVERED: &[(&str, &str)] = &[
    ("shutdown and reboot by a guest agent", "a guest with an operating system, as `tests/guests` has one"),
    (
        "suspend to disk (S4) and to memory (S3) by the guest",
        "a guest with an operating system, as `tests/guests` has one",
    ),
    (
        "a kernel's panic with its text, kdump, panic without a panic device",
        "a guest with an operating system, as `tests/guests` has one",
    ),
    (
        "QEMU killed by the kernel for lack of memory, in its control group and on the host",
        "cases with control groups, as `tests/signals` has them",
    ),
    ("who sent SIGKILL", "tracing of signals, as `tests/signals` has it"),
    ("a KVM internal error", "hardware virtualisation"),
    (
        "autodestroy by the end of its owner's connection",
        "a client that asks for it; virsh does so only for `create --autodestroy`, told as destroyed by another",
    ),
    ("a real shutdown by systemd with its scopes", "a machine with systemd as its init"),
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
